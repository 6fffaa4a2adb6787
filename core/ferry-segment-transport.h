/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#if !defined(FERRY_INSIDE) && !defined(FERRY_COMPILATION)
#error "Only <ferry.h> can be included directly."
#endif

#include "ferry-transport.h"
#include "ferry-types.h"

G_BEGIN_DECLS

#define FERRY_TYPE_SEGMENT_TRANSPORT (ferry_segment_transport_get_type ())

FERRY_AVAILABLE_IN_1_0
G_DECLARE_DERIVABLE_TYPE (FerrySegmentTransport, ferry_segment_transport, FERRY, SEGMENT_TRANSPORT, GObject)

/**
 * FerrySegmentArea:
 * @FERRY_SEGMENT_AREA_CONTROL: rings, tables and counters; every participant writes
 * @FERRY_SEGMENT_AREA_DATA: payload; broadcast receivers only read
 *
 * The two memory objects that make a segment.
 *
 * Since: 1.0
 */
typedef enum
{
  FERRY_SEGMENT_AREA_CONTROL,
  FERRY_SEGMENT_AREA_DATA,
} FerrySegmentArea;

/**
 * FerrySegmentTransportClass:
 * @parent_class: the parent class
 * @reserve: makes both memory objects, of these sizes, sparse and not yet to be
 *   found by anybody, and hands them over with
 *   [method@SegmentTransport.take_fds]
 * @share: makes the segment found under the name, atomically; fails with
 *   %FERRY_ERROR_EXISTS when another one is found there
 * @attach: finds the segment of that name and hands its memory over with
 *   [method@SegmentTransport.take_fds]; fails with %FERRY_ERROR_NOT_FOUND when
 *   there is none. The data area is opened for reading only when
 *   [func@SegmentTransport.wants_writable_data] says so
 * @withdraw: the segment is no longer to be found under the name; called by the last
 *   one to leave, and for a segment whose participants all died
 * @commit_pages: makes pages of an area real, so that touching them can't fail; fails with
 *   %FERRY_ERROR_NO_SPACE. The default allocates with fallocate()
 * @decommit_pages: gives pages back; they read as zero afterwards. The default punches a hole
 * @map: maps a part of an area. The default uses mmap()
 * @unmap: undoes @map
 * @wait_word: sleeps while the word has the expected value, at most @timeout
 *   microseconds (negative: for ever); returns %FALSE on time-out. The
 *   default is a futex
 * @wake_word: wakes @n_waiters that sleep on the word. The default is a futex
 * @forked: called in a fork child when it first uses an endpoint of its parent; optional
 * @left: called when the endpoint has left the channel, and after an attempt at opening that failed; may be called
 *   more than once; optional
 * @sweep: removes what a segment that can't be attached any more left under the name;
 *   optional
 * @list_names: the names of all segments of this transport, alive or not; optional
 *
 * What a transport over mapped memory says of its memory; the base does all the
 * rest. Only @reserve, @share, @attach and @withdraw have no default.
 *
 * Since: 1.0
 */
struct _FerrySegmentTransportClass
{
  GObjectClass parent_class;

  gboolean (*reserve) (FerrySegmentTransport *self, const FerryChannelConfig *config, guint64 control_size,
                       guint64 data_size, GError **error);
  gboolean (*share) (FerrySegmentTransport *self, const FerryChannelConfig *config, GError **error);
  gboolean (*attach) (FerrySegmentTransport *self, const FerryChannelConfig *config, GCancellable *cancellable,
                      GError **error);
  void (*withdraw) (FerrySegmentTransport *self);
  gboolean (*commit_pages) (FerrySegmentTransport *self, FerrySegmentArea area, guint64 offset, guint64 size,
                            GError **error);
  gboolean (*decommit_pages) (FerrySegmentTransport *self, FerrySegmentArea area, guint64 offset, guint64 size,
                              GError **error);
  gpointer (*map) (FerrySegmentTransport *self, FerrySegmentArea area, guint64 offset, gsize size, gboolean writable,
                   GError **error);
  void (*unmap) (FerrySegmentTransport *self, gpointer address, gsize size);
  gboolean (*wait_word) (FerrySegmentTransport *self, guint32 *word, guint32 expected, gint64 timeout);
  void (*wake_word) (FerrySegmentTransport *self, guint32 *word, guint n_waiters);
  void (*forked) (FerrySegmentTransport *self);
  void (*left) (FerrySegmentTransport *self);
  char **(*list_names) (FerrySegmentTransport *self, GError **error);
  gboolean (*sweep) (FerrySegmentTransport *self, const char *name, GError **error);

  /*< private >*/
  gpointer _reserved[5];
};

FERRY_AVAILABLE_IN_1_0
void ferry_segment_transport_take_fds (FerrySegmentTransport *self, int control_fd, int data_fd);

FERRY_AVAILABLE_IN_1_0
void ferry_segment_transport_set_data_offset (FerrySegmentTransport *self, guint64 offset);

FERRY_AVAILABLE_IN_1_0
int ferry_segment_transport_get_control_fd (FerrySegmentTransport *self);

FERRY_AVAILABLE_IN_1_0
int ferry_segment_transport_get_data_fd (FerrySegmentTransport *self);

FERRY_AVAILABLE_IN_1_0
gboolean ferry_segment_transport_read_control_size (int control_fd, guint64 *control_size);

FERRY_AVAILABLE_IN_1_0
void ferry_segment_transport_warm_up (FerrySegmentTransport *self);

FERRY_AVAILABLE_IN_1_0
gboolean ferry_segment_transport_wants_writable_data (int control_fd, FerryRole role);

G_END_DECLS
