/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "ferry-store-private.h"
#include "ferry-store-reference.h"

G_BEGIN_DECLS

/* Objects on their way through a channel: docs/store.md, section 7. */

/* The packed wire name of codec `store`: the bytes of the word. */
#define FERRY_STORE_WIRE_NAME_PACKED (GUINT64_FROM_LE (G_GUINT64_CONSTANT (0x65726f7473)))

FerryStoreReference *ferry_store_reference_new_held (FerryStore *store, FerryRef ref);

/* The list of open stores, around a fork. */
void ferry_store_lock_open (void);
void ferry_store_unlock_open (void);

/* The feature's name of the transport that this memory comes from, or NULL. */
const char *ferry_segment_get_transport_name (FerrySegment *segment);

/* Before the message in @block is published: the object that it refers to lives as long as the block does. Does not wait longer
 * than @timeout for who holds the store. */
gboolean ferry_store_ticket_bind (FerrySegment *segment, guint32 block, const guint8 *message, gsize size,
                                  gint64 timeout, GCancellable *cancellable, GError **error);

/* The message of a block is gone, and the block still ours alone. Never waits. */
void ferry_store_ticket_unbind (FerrySegment *segment, guint32 block);

/* We leave the channel; @is_alone: nobody else is in it; @is_last: and nobody can come any more. Under the channel's lock. */
void ferry_store_tickets_leave (FerrySegment *segment, gboolean is_alone, gboolean is_last);
void ferry_store_tickets_refork (FerrySegment *segment);
void ferry_store_tickets_clear (FerrySegment *segment);
guint ferry_store_tickets_runtime_directory (void);

/* For a collection: what became of the channels that objects travel in is looked up before the gate is closed, and what is
 * left of tickets afterwards. */
GPtrArray *ferry_store_tickets_survey (FerryStore *self);
gboolean ferry_store_tickets_sweep (FerryStore *self, GPtrArray *survey, GError **error);

G_END_DECLS
