/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#if !defined(FERRY_INSIDE) && !defined(FERRY_COMPILATION)
#error "Only <ferry.h> can be included directly."
#endif

#include "ferry-enums.h"
#include "ferry-types.h"

G_BEGIN_DECLS

/**
 * FerryStatistics:
 * @messages_sent: messages committed by the senders of this channel since its creation
 * @bytes_sent: their payload in bytes
 * @messages_received: messages taken by receivers; in broadcast each receiver counts
 * @bytes_received: their payload in bytes
 * @messages_dropped: messages discarded by a back-pressure policy; each counts once,
 *   however many broadcast receivers missed it
 * @send_waits: how often a sender had to wait for room
 * @receive_waits: how often a receiver had to wait for a message
 * @in_flight: messages committed and not yet taken by everyone who shall
 * @in_flight_peak: the largest @in_flight so far
 * @capacity: the bound of @in_flight
 * @bytes_committed: shared memory that backs payload now, in bytes
 * @bytes_committed_peak: the largest @bytes_committed so far
 * @max_bytes: the bound of @bytes_committed
 * @senders: live senders
 * @receivers: live receivers
 * @repairs: dead participants whose traces were repaired
 *
 * A snapshot of a channel's counters. Each number is exact when nothing moves;
 * between themselves they may be a few messages apart while peers work.
 *
 * Since: 1.0
 */
struct _FerryStatistics
{
  guint64 messages_sent;
  guint64 bytes_sent;
  guint64 messages_received;
  guint64 bytes_received;
  guint64 messages_dropped;
  guint64 send_waits;
  guint64 receive_waits;
  guint64 in_flight;
  guint64 in_flight_peak;
  guint64 capacity;
  guint64 bytes_committed;
  guint64 bytes_committed_peak;
  guint64 max_bytes;
  guint senders;
  guint receivers;
  guint64 repairs;

  /*< private >*/
  guint64 _reserved[8];
};

/**
 * FerryParticipant:
 * @id: the number of the participant in the channel, as in
 *   [method@Buffer.get_sender]; numbers are used again after a leave
 * @incarnation: tells users of the same @id apart
 * @role: sender or receiver
 * @pid: process id as that process sees it (informative only: it may mean another
 *   process here when PID namespaces differ)
 * @uid: its user id
 * @alive: whether it was alive when asked
 * @messages: messages sent or received
 * @bytes: their payload in bytes
 * @waits: how often it had to wait
 * @dropped: messages it dropped or missed
 * @held: blocks it holds, loaned or received
 *
 * One endpoint of a channel, as its peers see it.
 *
 * Since: 1.0
 */
struct _FerryParticipant
{
  guint id;
  guint incarnation;
  FerryRole role;
  gint64 pid;
  guint uid;
  gboolean alive;
  guint64 messages;
  guint64 bytes;
  guint64 waits;
  guint64 dropped;
  guint held;

  /*< private >*/
  guint64 _reserved[4];
};

#define FERRY_TYPE_STATISTICS (ferry_statistics_get_type ())
#define FERRY_TYPE_PARTICIPANT (ferry_participant_get_type ())

FERRY_AVAILABLE_IN_1_0
GType ferry_statistics_get_type (void) G_GNUC_CONST;

FERRY_AVAILABLE_IN_1_0
FerryStatistics *ferry_statistics_new (void);

FERRY_AVAILABLE_IN_1_0
FerryStatistics *ferry_statistics_copy (const FerryStatistics *self);

FERRY_AVAILABLE_IN_1_0
void ferry_statistics_free (FerryStatistics *self);

FERRY_AVAILABLE_IN_1_0
GType ferry_participant_get_type (void) G_GNUC_CONST;

FERRY_AVAILABLE_IN_1_0
FerryParticipant *ferry_participant_new (void);

FERRY_AVAILABLE_IN_1_0
FerryParticipant *ferry_participant_copy (const FerryParticipant *self);

FERRY_AVAILABLE_IN_1_0
void ferry_participant_free (FerryParticipant *self);

G_DEFINE_AUTOPTR_CLEANUP_FUNC (FerryStatistics, ferry_statistics_free)
G_DEFINE_AUTOPTR_CLEANUP_FUNC (FerryParticipant, ferry_participant_free)

G_END_DECLS
