/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#if !defined(FERRY_INSIDE) && !defined(FERRY_COMPILATION)
#error "Only <ferry.h> can be included directly."
#endif

#include "ferry-channel-config.h"
#include "ferry-enums.h"
#include "ferry-statistics.h"
#include "ferry-types.h"

G_BEGIN_DECLS

#define FERRY_TYPE_TRANSPORT (ferry_transport_get_type ())

FERRY_AVAILABLE_IN_1_0
G_DECLARE_INTERFACE (FerryTransport, ferry_transport, FERRY, TRANSPORT, GObject)

/**
 * FerryTransportInterface:
 * @open: creates or joins the channel that the configuration names, as one
 *   participant; fills in the fields of the configuration that the channel fixes
 * @close: leaves; what is waiting in other threads fails with %FERRY_ERROR_CLOSED
 * @loan: gives a writable buffer of at least the size, to be filled and committed
 * @commit: makes a loaned buffer a message; on failure the buffer stays the caller's.
 *   Returns %TRUE also when the message was dropped by the policy
 * @send: copies bytes into a message, its wire name and version given packed as in
 *   [func@Transport.pack_wire_name]; optional: without it loan and commit are used
 * @take: takes the next message
 * @release: called once when the last reference to a buffer that names this
 *   transport as its owner is dropped
 * @wait: waits until the condition (%G_IO_IN: a message or the end of stream,
 *   %G_IO_OUT: room) may hold
 * @wake: lets every wait of this endpoint return and check again
 * @get_fd: a descriptor that becomes readable when an armed condition may hold
 * @check: the conditions of @condition that hold now; those that don't are armed on
 *   the descriptor
 * @flush: waits until everything that was sent so far is taken; what is sent while it waits does
 *   not count
 * @end_of_stream: declares that this sender sends no more
 * @shut_down: closes the channel for everybody
 * @get_statistics: fills in a snapshot
 * @list_participants: who is in the channel
 * @poll_events: tells life-cycle changes since the last call, one a call
 * @trim: gives idle memory back now
 * @verify: checks the invariants of a channel at rest
 * @list_channels: the names of the channels that this transport finds, alive or not;
 *   may be called without opening
 * @probe_channel: whether the channel of that name has a live participant; may be called
 *   without opening
 * @sweep_channel: removes what a channel without live participants left; fails with
 *   %FERRY_ERROR_EXISTS when it is alive; may be called without opening
 * @get_participant: twin of @list_participants for language bindings, called when that is
 *   missing: fills in the participant of that index, counted from 0; %FALSE when there are
 *   no more
 * @privatize: see [method@Buffer.privatize], which has checked its arguments; a transport that
 *   can't do that leaves it out
 * @mark: tells how far has been sent, for @flush_mark; optional, and only with that
 * @flush_mark: waits until everything before a mark is taken; may be called again with the
 *   same mark after a time-out
 *
 * What a transport does, at the level of messages.
 *
 * Time-outs are in microseconds; negative means for ever, 0 not at all. All
 * functions but open and close may be called by several threads at once.
 *
 * Since: 1.0
 */
struct _FerryTransportInterface
{
  GTypeInterface g_iface;

  gboolean (*open) (FerryTransport *self, FerryChannelConfig *config, GCancellable *cancellable, GError **error);
  gboolean (*close) (FerryTransport *self, GError **error);
  FerryBuffer *(*loan) (FerryTransport *self, gsize size, gint64 timeout, GCancellable *cancellable, GError **error);
  gboolean (*commit) (FerryTransport *self, FerryBuffer *buffer, gint64 timeout, GCancellable *cancellable,
                      GError **error);
  gboolean (*send) (FerryTransport *self, const guint8 *data, gsize size, guint64 wire_name, guint64 wire_version,
                    gint64 timeout, GCancellable *cancellable, GError **error);
  FerryBuffer *(*take) (FerryTransport *self, gint64 timeout, GCancellable *cancellable, GError **error);
  void (*release) (FerryTransport *self, FerryBuffer *buffer);
  gboolean (*wait) (FerryTransport *self, GIOCondition condition, gint64 timeout, GCancellable *cancellable,
                    GError **error);
  void (*wake) (FerryTransport *self);
  int (*get_fd) (FerryTransport *self, GError **error);
  GIOCondition (*check) (FerryTransport *self, GIOCondition condition);
  gboolean (*flush) (FerryTransport *self, gint64 timeout, GCancellable *cancellable, GError **error);
  gboolean (*end_of_stream) (FerryTransport *self, GError **error);
  gboolean (*shut_down) (FerryTransport *self, GError **error);
  gboolean (*get_statistics) (FerryTransport *self, FerryStatistics *statistics, GError **error);
  GPtrArray *(*list_participants) (FerryTransport *self, GError **error);
  FerryTransportEvent (*poll_events) (FerryTransport *self, FerryParticipant *participant);
  gsize (*trim) (FerryTransport *self);
  gboolean (*verify) (FerryTransport *self, GError **error);
  char **(*list_channels) (FerryTransport *self, GError **error);
  gboolean (*probe_channel) (FerryTransport *self, const char *name, gboolean *alive, GError **error);
  gboolean (*sweep_channel) (FerryTransport *self, const char *name, GError **error);
  gboolean (*get_participant) (FerryTransport *self, guint index, FerryParticipant *participant);
  gboolean (*privatize) (FerryTransport *self, FerryBuffer *buffer, gsize offset, gsize size);
  gboolean (*mark) (FerryTransport *self, guint64 *mark, GError **error);
  gboolean (*flush_mark) (FerryTransport *self, guint64 mark, gint64 timeout, GCancellable *cancellable,
                          GError **error);

  /*< private >*/
  gpointer _reserved[4];
};

FERRY_AVAILABLE_IN_1_0
void ferry_transport_pack_wire_name (const char *wire_name, guint version, guint64 *packed_name,
                                     guint64 *packed_version);

FERRY_AVAILABLE_IN_1_0
gboolean ferry_transport_open (FerryTransport *self, FerryChannelConfig *config, GCancellable *cancellable,
                               GError **error);

FERRY_AVAILABLE_IN_1_0
gboolean ferry_transport_close (FerryTransport *self, GError **error);

FERRY_AVAILABLE_IN_1_0
FerryBuffer *ferry_transport_loan (FerryTransport *self, gsize size, gint64 timeout, GCancellable *cancellable,
                                   GError **error);

FERRY_AVAILABLE_IN_1_0
gboolean ferry_transport_commit (FerryTransport *self, FerryBuffer *buffer, gint64 timeout, GCancellable *cancellable,
                                 GError **error);

FERRY_AVAILABLE_IN_1_0
FerryBuffer *ferry_transport_take (FerryTransport *self, gint64 timeout, GCancellable *cancellable, GError **error);

FERRY_AVAILABLE_IN_1_0
gboolean ferry_transport_wait (FerryTransport *self, GIOCondition condition, gint64 timeout, GCancellable *cancellable,
                               GError **error);

FERRY_AVAILABLE_IN_1_0
gboolean ferry_transport_wait_quietly (FerryTransport *self, GIOCondition condition, gint64 timeout,
                                       GCancellable *cancellable);

FERRY_AVAILABLE_IN_1_0
void ferry_transport_wake (FerryTransport *self);

FERRY_AVAILABLE_IN_1_0
gboolean ferry_transport_get_statistics (FerryTransport *self, FerryStatistics *statistics, GError **error);

FERRY_AVAILABLE_IN_1_0
gboolean ferry_transport_verify (FerryTransport *self, GError **error);

FERRY_AVAILABLE_IN_1_0
char **ferry_transport_list_channels (FerryTransport *self, GError **error);

FERRY_AVAILABLE_IN_1_0
gboolean ferry_transport_probe_channel (FerryTransport *self, const char *name, gboolean *alive, GError **error);

FERRY_AVAILABLE_IN_1_0
gboolean ferry_transport_sweep_channel (FerryTransport *self, const char *name, GError **error);

G_END_DECLS
