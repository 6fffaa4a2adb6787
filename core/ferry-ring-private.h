/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The parts of the ring (docs/memory-model.md, section 3) that each message goes through, inlined into the calls of a transport:
 * a small message takes some 150 instructions from the caller to the slot, and a call of a function with its saved
 * registers is a tenth of that. What is not the usual case lies in ferry-ring.c. */

#pragma once

#include "ferry-segment-private.h"

#include "ferry-buffer-private.h"

#include <string.h>

G_BEGIN_DECLS

/* How many slots ahead are fetched into the cache. A miss costs some 80 ns between cores and
 * a message some 40, so a few suffice; more only evicts. */
#define FERRY_RING_PREFETCH_DISTANCE (12)
/* How many messages a receiver takes before it looks at the tail again. */
#define FERRY_RING_TAIL_REFRESH (16)
/* A receiver that is alone stores the head hint every so many messages. */
#define FERRY_RING_HEAD_INTERVAL (8)
/* The ends of a stream keep so many messages between them ... */
#define FERRY_RING_DISTANCE (64)
/* ... if the ring has room for several times as many. */
#define FERRY_RING_DISTANCE_CAPACITY (4 * FERRY_RING_DISTANCE)
/* The second cache line of a slot, in bytes from its start. */
#define FERRY_RING_CACHE_LINE (64)

/* Small payload is copied in four pieces of so many bytes, two from the front and two from the end, which may overlap. */
#define FERRY_RING_PIECE (16)

/* Payload of a slot. From 32 to 64 bytes need no call. */
static inline void
ferry_ring_copy (guint8 *to, const guint8 *from, gsize size)
{
  if (G_LIKELY (size >= 2 * FERRY_RING_PIECE && size <= 4 * FERRY_RING_PIECE))
    {
      guint8 pieces[4][FERRY_RING_PIECE];

      memcpy (pieces[0], from, FERRY_RING_PIECE);
      memcpy (pieces[1], from + FERRY_RING_PIECE, FERRY_RING_PIECE);
      memcpy (pieces[2], from + size - 2 * FERRY_RING_PIECE, FERRY_RING_PIECE);
      memcpy (pieces[3], from + size - FERRY_RING_PIECE, FERRY_RING_PIECE);
      memcpy (to, pieces[0], FERRY_RING_PIECE);
      memcpy (to + FERRY_RING_PIECE, pieces[1], FERRY_RING_PIECE);
      memcpy (to + size - 2 * FERRY_RING_PIECE, pieces[2], FERRY_RING_PIECE);
      memcpy (to + size - FERRY_RING_PIECE, pieces[3], FERRY_RING_PIECE);
    }
  else if (size > 0)
    {
      memcpy (to, from, size);
    }
}

/* Copies a slot's fields to private memory and checks them. */
static inline gboolean
ferry_ring_read_slot (FerrySegment *self, FerrySlot *slot, guint64 position, FerryMessage *message)
{
  message->sequence = position;
  message->size = slot->size;
  message->timestamp = slot->timestamp;
  message->block = slot->block;
  message->sender = slot->sender;
  message->generation = slot->generation;
  message->wire_name = slot->wire_name;
  message->wire_version = slot->wire_version;

  /* The compiler must not read the slot again: a hostile peer may change it any time. */
  __asm__ volatile("" ::: "memory");

  if (message->block == FERRY_NO_BLOCK)
    return message->size <= self->inline_max;
  return ferry_arena_check_ref (self, message->block, message->size);
}

/* Copies inline payload out. In broadcast a sender may overwrite it meanwhile; the word is checked afterwards. */
__attribute__ ((no_sanitize ("thread"))) static inline void
ferry_ring_copy_payload (guint8 *to, const FerrySlot *slot, gsize size)
{
  ferry_ring_copy (to, slot->payload, size);
}

static inline void
ferry_ring_prefetch_ahead (FerrySegment *self, guint64 position)
{
  guint64 known = atomic_load_explicit (&self->cached_tail, memory_order_relaxed);

  if (position + FERRY_RING_DISTANCE >= known && position % FERRY_RING_TAIL_REFRESH == 0)
    {
      guint64 before = known;

      known = atomic_load_explicit (self->tail, memory_order_relaxed);
      atomic_store_explicit (&self->cached_tail, known, memory_order_relaxed);
      /* A single message may be a question that waits for its answer, and what grows no more is the end of a burst. */
      if (position + FERRY_RING_DISTANCE >= known && known > position + 1
          && known - before >= FERRY_RING_TAIL_REFRESH / 2 && self->capacity >= FERRY_RING_DISTANCE_CAPACITY
          && ferry_waiter_may_spin (self))
        atomic_store_explicit (&self->too_close, TRUE, memory_order_relaxed);
    }
  if (position + FERRY_RING_PREFETCH_DISTANCE >= known)
    return;
  FerrySlot *ahead = ferry_segment_slot (self, position + FERRY_RING_PREFETCH_DISTANCE);
  /* In broadcast too, though it is only read: a line that two caches share is dearer to take for the sender. */
  ferry_prefetch_for_writing (ahead);
  __builtin_prefetch ((guint8 *) ahead + FERRY_RING_CACHE_LINE, 0);
}

void ferry_ring_raise_peak (FerrySegment *self, guint64 t);

/* A slot that we have claimed becomes the message. */
static inline void
ferry_ring_write (FerrySegment *self, FerrySlot *slot, guint64 t, const FerryMessage *message, const guint8 *payload)
{
  guint64 lap = t >> self->lap_shift;

  FERRY_STEP ("send-claimed");
  slot->size = message->size;
  slot->timestamp = message->timestamp;
  __atomic_store_n (&slot->block, message->block, __ATOMIC_RELAXED);
  slot->sender = (guint16) self->id;
  slot->flags = 0;
  slot->generation = message->generation;
  slot->wire_name = message->wire_name;
  slot->wire_version = message->wire_version;
  if (message->block == FERRY_NO_BLOCK)
    ferry_ring_copy (slot->payload, payload, message->size);
  if (message->block != FERRY_NO_BLOCK)
    FERRY_TSAN_RELEASE (ferry_arena_block (self, message->block));
  FERRY_STEP ("send-written");

  /* Release for the fields (pairs with the acquire loads of the word in ferry_ring_take()), and a full barrier before
   * rx_sleeping is looked at (pairs with ferry_waiter_prepare()). */
  atomic_exchange_explicit (&slot->word, ferry_word (lap, self->id, FERRY_SLOT_COMMITTED), memory_order_seq_cst);
  FERRY_STEP ("send-committed");
  atomic_store_explicit (self->tail, t + 1, memory_order_release);
  atomic_store_explicit (&self->own_tail, t + 1, memory_order_release);
  FERRY_STEP ("send-tail");
  ferry_waiter_notify_receivers (self);
  FERRY_STEP ("send-woken");

  /* The cached head may be old, so the depth is at most this. */
  if (G_UNLIKELY (t + 1 - atomic_load_explicit (&self->cached_head, memory_order_relaxed)
                  > atomic_load_explicit (&self->shared->in_flight_peak, memory_order_relaxed)))
    ferry_ring_raise_peak (self, t);
  /* Only slots that are surely free: in a full ring the next ones are those that receivers are about to take. */
  if (G_LIKELY (t + FERRY_RING_PREFETCH_DISTANCE - atomic_load_explicit (&self->cached_head, memory_order_relaxed)
                < self->ring_slots))
    {
      FerrySlot *next = ferry_segment_slot (self, t + FERRY_RING_PREFETCH_DISTANCE);

      ferry_prefetch_for_writing (next);
      ferry_prefetch_for_writing ((guint8 *) next + FERRY_RING_CACHE_LINE);
    }
}

/* All below @h is resolved, of the messages of a work queue. @alone: nobody else took any since we stored the shared hint. */
static inline void
ferry_ring_move_head (FerrySegment *self, guint64 h, gboolean alone)
{
  atomic_store_explicit (&self->own_head, h, memory_order_release);
  if (h % FERRY_RING_HEAD_INTERVAL == FERRY_RING_HEAD_INTERVAL / 2)
    ferry_prefetch_for_writing (self->head);
  if (!alone || h % FERRY_RING_HEAD_INTERVAL == 0)
    atomic_store_explicit (self->head, h, memory_order_release);
}

/* ferry_ring_send() in the usual case, of a payload that fits into the slot behind the one that we wrote last. FALSE: nothing was
 * done. */
static inline gboolean
ferry_ring_try_send (FerrySegment *self, const FerryMessage *message, const guint8 *payload)
{
  guint64 t = atomic_load_explicit (&self->own_tail, memory_order_acquire);
  FerrySlot *slot = ferry_segment_slot (self, t);
  guint64 lap = t >> self->lap_shift;
  guint64 w = atomic_load_explicit (&slot->word, memory_order_acquire);

  if (w != ferry_word (lap, 0, FERRY_SLOT_EMPTY)
      || t - atomic_load_explicit (&self->cached_head, memory_order_acquire) >= self->capacity)
    return FALSE;
  FERRY_STEP ("send-before-claim");
  if (!atomic_compare_exchange_strong_explicit (&slot->word, &w, ferry_word (lap, self->id, FERRY_SLOT_WRITING),
                                                memory_order_acq_rel, memory_order_relaxed))
    return FALSE;
  ferry_ring_write (self, slot, t, message, payload);
  return TRUE;
}

/* ferry_ring_take() in the usual case, of a small message of a work queue that is the next one. NULL: nothing was done.
 * @given: a buffer with room for it, or NULL for a new one. */
static inline FerryBuffer *
ferry_ring_try_take (FerrySegment *self, FerryBuffer *given, FerryMessage *message)
{
  guint64 h = atomic_load_explicit (&self->own_head, memory_order_acquire);
  FerrySlot *slot = ferry_segment_slot (self, h);
  guint64 lap = h >> self->lap_shift;
  guint64 w = atomic_load_explicit (&slot->word, memory_order_acquire);
  FerryBuffer *buffer;

  if (ferry_word_lap_ahead (w, lap) != 0 || ferry_word_state (w) != FERRY_SLOT_COMMITTED
      || atomic_load_explicit (&self->too_close, memory_order_relaxed) || !ferry_ring_read_slot (self, slot, h, message)
      || message->block != FERRY_NO_BLOCK)
    return NULL;
  buffer = given != NULL ? given : ferry_buffer_alloc (self->inline_max);
  ferry_ring_copy_payload (buffer->data, slot, message->size);
  FERRY_STEP ("take-copied");
  if (!atomic_compare_exchange_strong_explicit (&slot->word, &w, ferry_word (lap + 1, 0, FERRY_SLOT_EMPTY),
                                                memory_order_seq_cst, memory_order_relaxed))
    {
      if (given == NULL)
        ferry_buffer_unref (buffer);
      return NULL;
    }
  FERRY_STEP ("take-emptied");
  ferry_ring_move_head (self, h + 1, TRUE);
  FERRY_STEP ("take-head");
  ferry_waiter_notify_senders (self);
  FERRY_STEP ("take-woken");
  ferry_ring_prefetch_ahead (self, h);
  return buffer;
}

G_END_DECLS
