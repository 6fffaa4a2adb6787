/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The ring of docs/memory-model.md, section 3. */

#include "ferry-ring-private.h"

/* Answers that take longer than this on average are no ping-pong. Nanoseconds. */
#define QUICK_ANSWER_NS (1000)
/* A spinner looks at the slot itself every so many looks. */
#define SLOT_LOOK_INTERVAL (16)
/* The messages of a stream follow each other faster than this, in ns. */
#define STREAM_PACE_NS (150)
/* Pauses, of some 50 ns, between two looks at the clock. */
#define CLOCK_PAUSES (8)

static inline guint64
ferry_ring_walk_limit (FerrySegment *self)
{
  /* A stale hint is at most two jumps and two rounds away, see R2 and R3. */
  return 4 * self->ring_slots + 16;
}

/* Private: the first position that is not claimed, found from the hint. G_MAXUINT64 when the
 * walk does not end. */
guint64
ferry_ring_find_tail (FerrySegment *self)
{
  guint64 t = atomic_load_explicit (self->tail, memory_order_acquire);
  guint64 start = t;

  for (guint64 n = ferry_ring_walk_limit (self); n > 0; n--)
    {
      guint64 w = atomic_load_explicit (&ferry_segment_slot (self, t)->word, memory_order_acquire);
      guint64 lap = t >> self->lap_shift;
      gint64 ahead = ferry_word_lap_ahead (w, lap);

      if (ahead < 0 || (ahead == 0 && ferry_word_state (w) == FERRY_SLOT_EMPTY))
        return t;
      /* This slot resolved the position one lap before its word, so everything below that one is claimed. */
      if (ahead > 1)
        t += (guint64) (ahead - 1) << self->lap_shift;
      t++;
    }
  /* Senders may claim as fast as we walk; then this is as good an answer as any. */
  return t != start && atomic_load_explicit (self->tail, memory_order_acquire) != start ? t : G_MAXUINT64;
}

/* Private: moves the head hint over what is resolved (R3) and returns it. G_MAXUINT64 when
 * the ring makes no sense. */
guint64
ferry_ring_advance_head (FerrySegment *self)
{
  guint64 h = atomic_load_explicit (self->head, memory_order_acquire);
  guint64 start = h;
  guint64 n;

  for (n = ferry_ring_walk_limit (self); n > 0; n--)
    {
      FerrySlot *slot = ferry_segment_slot (self, h);
      guint64 w = atomic_load_explicit (&slot->word, memory_order_acquire);
      guint64 lap = h >> self->lap_shift;
      gint64 ahead = ferry_word_lap_ahead (w, lap);

      if (ahead < 0)
        return G_MAXUINT64;
      if (ahead == 0)
        {
          /* In broadcast VOID stays until the readers are past it: it is reclaimed like a message. */
          if (ferry_word_state (w) != FERRY_SLOT_VOID || self->mode == FERRY_MODE_BROADCAST)
            break;
          atomic_compare_exchange_strong_explicit (&slot->word, &w, ferry_word (lap + 1, 0, FERRY_SLOT_EMPTY),
                                                   memory_order_seq_cst, memory_order_relaxed);
          continue;
        }
      /* The slot was used again in lap + ahead - 1, so its position two laps before the word, and all below, are
       * resolved. */
      if (ahead > 2)
        h += (guint64) (ahead - 2) << self->lap_shift;
      h++;
    }
  /* Receivers may resolve as fast as we walk: what was walked over is resolved all the same. */
  if (n == 0 && (h == start || atomic_load_explicit (self->head, memory_order_acquire) == start))
    return G_MAXUINT64;
  if (h != start)
    atomic_store_explicit (self->head, h, memory_order_release);
  return h;
}

/* Private: the smallest cursor of active broadcast receivers, at most @tail. */
guint64
ferry_ring_min_cursor (FerrySegment *self, guint64 tail)
{
  guint64 min = tail;
  guint n = ferry_segment_n_records (self);

  for (guint i = 0; i < n; i++)
    {
      FerryParticipantRecord *record = &self->records[i];
      guint64 word = atomic_load_explicit (&record->word, memory_order_seq_cst);

      if (ferry_record_state (word) != FERRY_RECORD_ACTIVE || ferry_record_role (word) != FERRY_ROLE_RECEIVER)
        continue;
      guint64 cursor = atomic_load_explicit (&record->cursor, memory_order_acquire);
      /* Positions wrap never; a scribbled cursor can hold senders up or let them overtake, nothing else. */
      if ((gint64) (min - cursor) > 0)
        min = cursor;
    }
  return min;
}

/* Private: resolves a slot that this participant (or, in a repair, a dead one) has TAKEN in
 * broadcast: its block is retired, its place becomes free. */
gboolean
ferry_ring_finish_taken (FerrySegment *self, FerrySlot *slot, guint64 word)
{
  guint32 block = ferry_slot_block (slot);
  guint64 generation = slot->generation;

  if (block != FERRY_NO_BLOCK && ferry_arena_check_ref (self, block, 0))
    ferry_arena_retire (self, block, generation);
  FERRY_STEP ("reclaim-before-empty");
  return atomic_compare_exchange_strong_explicit (&slot->word, &word,
                                                  ferry_word (ferry_word_lap (word) + 1, 0, FERRY_SLOT_EMPTY),
                                                  memory_order_seq_cst, memory_order_relaxed);
}

/* Takes the slot at the head out of a broadcast ring. FALSE when there is none to take. */
static gboolean
ferry_ring_reclaim_one (FerrySegment *self, guint64 position)
{
  FerrySlot *slot = ferry_segment_slot (self, position);
  guint64 w = atomic_load_explicit (&slot->word, memory_order_acquire);
  guint64 lap = position >> self->lap_shift;
  guint64 taken = ferry_word (lap, self->id, FERRY_SLOT_TAKEN);

  if (ferry_word_lap_ahead (w, lap) != 0)
    return FALSE;
  if (ferry_word_state (w) == FERRY_SLOT_VOID)
    return atomic_compare_exchange_strong_explicit (&slot->word, &w, ferry_word (lap + 1, 0, FERRY_SLOT_EMPTY),
                                                    memory_order_seq_cst, memory_order_relaxed);
  if (ferry_word_state (w) != FERRY_SLOT_COMMITTED)
    return FALSE;
  if (!atomic_compare_exchange_strong_explicit (&slot->word, &w, taken, memory_order_seq_cst, memory_order_relaxed))
    return FALSE;
  FERRY_STEP ("reclaim-taken");
  ferry_ring_finish_taken (self, slot, taken);
  return TRUE;
}

/* Private: broadcast: gives up what every receiver has read and no history asks for. */
void
ferry_ring_reclaim (FerrySegment *self)
{
  guint64 tail = ferry_ring_find_tail (self);
  guint64 limit = ferry_ring_min_cursor (self, tail);
  gboolean any = FALSE;

  if (tail == G_MAXUINT64)
    return;
  if (self->history > 0)
    {
      guint64 keep_from = tail > self->history ? tail - self->history : 0;
      limit = MIN (limit, keep_from);
    }
  for (guint64 n = ferry_ring_walk_limit (self); n > 0; n--)
    {
      guint64 h = ferry_ring_advance_head (self);

      if (h == G_MAXUINT64 || (gint64) (limit - h) <= 0 || !ferry_ring_reclaim_one (self, h))
        break;
      any = TRUE;
    }
  if (any && ferry_waiter_any (self->tx_sleeping))
    ferry_waiter_wake_one (self, FERRY_SIDE_TX);
}

/* Private: broadcast: gives up the oldest message that only the history asks for, when its memory is needed. FALSE
 * when there is none. */
gboolean
ferry_ring_forget_one (FerrySegment *self)
{
  guint64 tail = ferry_ring_find_tail (self);
  guint64 h = ferry_ring_advance_head (self);

  return tail != G_MAXUINT64 && h != G_MAXUINT64 && (gint64) (ferry_ring_min_cursor (self, tail) - h) > 0
         && ferry_ring_reclaim_one (self, h);
}

/* The position below which nothing counts against the capacity any more. */
static guint64
ferry_ring_refresh_head (FerrySegment *self, guint64 t)
{
  guint64 h;

  h = ferry_ring_advance_head (self);
  if (h != G_MAXUINT64 && self->mode == FERRY_MODE_BROADCAST)
    {
      guint64 cursor = ferry_ring_min_cursor (self, t);

      /* The head is beyond a cursor only when drop-oldest overtook it. */
      if ((gint64) (cursor - h) > 0)
        h = cursor;
    }
  if (h != G_MAXUINT64)
    atomic_store_explicit (&self->cached_head, h, memory_order_release);
  return h;
}

/* Private: more messages may be in flight than ever before: the cached head may be old, so look closer, and yet closer, only
 * when it would be a new peak. */
void
ferry_ring_raise_peak (FerrySegment *self, guint64 t)
{
  guint64 peak = atomic_load_explicit (&self->shared->in_flight_peak, memory_order_relaxed);
  guint64 depth;
  guint64 h;

  if (self->mode == FERRY_MODE_WORK_QUEUE)
    {
      guint64 hint = atomic_load_explicit (self->head, memory_order_acquire);

      if (t + 1 - hint <= peak)
        {
          atomic_store_explicit (&self->cached_head, hint, memory_order_release);
          return;
        }
    }
  h = ferry_ring_refresh_head (self, t);
  depth = t + 1 - h;
  if (h == G_MAXUINT64 || depth > self->ring_slots)
    return;
  while (depth > peak
         && !atomic_compare_exchange_weak_explicit (&self->shared->in_flight_peak, &peak, depth, memory_order_relaxed,
                                                    memory_order_relaxed))
    ;
}

/* A stream is fastest with some dozens of messages between its ends. A receiver at the heels of its sender asks for
 * cache lines while the sender works on them or their neighbours. Then both wait for lines and are equally slow, so that
 * it stays like that: 64 bytes took a fifth longer a message than with 32 messages or more between the two. So a receiver
 * that finds itself that close, and its messages close together, lets the sender get ahead before it takes the next one. It
 * costs no throughput, for it is the slower one that sets the pace, and of latency what these messages take: 3 us. */
static void
ferry_ring_keep_distance (FerrySegment *self)
{
  guint64 position = self->mode == FERRY_MODE_BROADCAST ? atomic_load_explicit (&self->cursor, memory_order_relaxed)
                                                        : atomic_load_explicit (&self->own_head, memory_order_relaxed);
  gint64 now = ferry_waiter_now ();
  gint64 since = now - atomic_load_explicit (&self->pace.time, memory_order_relaxed);
  guint64 n = position - atomic_load_explicit (&self->pace.position, memory_order_relaxed);
  gint64 until = now;

  atomic_store_explicit (&self->too_close, FALSE, memory_order_relaxed);
  /* Threads of one endpoint share these numbers: whatever comes of them is bounded. */
  if (n > 0 && n < G_MAXUINT32 && since > 0 && since < (gint64) n * STREAM_PACE_NS)
    until += FERRY_RING_DISTANCE * since / (gint64) n;
  while (now < until)
    {
      for (guint i = 0; i < CLOCK_PAUSES; i++)
        ferry_waiter_relax ();
      now = ferry_waiter_now ();
    }
  atomic_store_explicit (&self->pace.time, now, memory_order_relaxed);
  atomic_store_explicit (&self->pace.position, position, memory_order_relaxed);
  atomic_store_explicit (&self->cached_tail, atomic_load_explicit (self->tail, memory_order_relaxed),
                         memory_order_relaxed);
}

/* Private: the slot that the next ferry_ring_send() writes, if nobody else sends; to ask for its cache line. */
gconstpointer
ferry_ring_next_slot (FerrySegment *self)
{
  return ferry_segment_slot (self, atomic_load_explicit (&self->own_tail, memory_order_relaxed));
}

/* Where to begin to look for the tail. Receivers read the shared hint while they wait, so a sender that is alone does
 * better with what it remembers; where others were here since, the shared hint is ahead of that. */
static inline guint64
ferry_ring_guess_tail (FerrySegment *self)
{
  guint64 t = atomic_load_explicit (&self->own_tail, memory_order_acquire);
  guint64 w = atomic_load_explicit (&ferry_segment_slot (self, t)->word, memory_order_acquire);

  if (G_LIKELY (w == ferry_word (t >> self->lap_shift, 0, FERRY_SLOT_EMPTY)))
    return t;
  return atomic_load_explicit (self->tail, memory_order_acquire);
}

/* Private: one message into the ring. FERRY_RING_FULL when there is no room now. */
FerryRingResult
ferry_ring_send (FerrySegment *self, const FerryMessage *message, const guint8 *payload)
{
  guint64 t = ferry_ring_guess_tail (self);
  FerrySlot *slot;
  guint64 start = t;
  guint64 lap;
  guint64 n;
  gboolean reclaimed = FALSE;
  gboolean beaten = FALSE; /* somebody else was quicker: the walk proves nothing */

again:
  for (n = ferry_ring_walk_limit (self); n > 0; n--)
    {
      guint64 w;
      gint64 ahead;

      slot = ferry_segment_slot (self, t);
      lap = t >> self->lap_shift;
      w = atomic_load_explicit (&slot->word, memory_order_acquire);
      ahead = ferry_word_lap_ahead (w, lap);

      if (G_LIKELY (w == ferry_word (lap, 0, FERRY_SLOT_EMPTY)))
        {
          if (G_UNLIKELY (t - atomic_load_explicit (&self->cached_head, memory_order_acquire) >= self->capacity))
            {
              guint64 h = ferry_ring_refresh_head (self, t);

              if (h == G_MAXUINT64)
                return FERRY_RING_CORRUPT;
              if (t - h >= self->capacity)
                {
                  /* t may have been claimed, and more taken, since: only a head that is not ahead of it counts */
                  if ((gint64) (h - t) > 0)
                    {
                      t = h;
                      continue;
                    }
                  return FERRY_RING_FULL;
                }
            }
          FERRY_STEP ("send-before-claim");
          if (G_LIKELY (atomic_compare_exchange_strong_explicit (&slot->word, &w,
                                                                 ferry_word (lap, self->id, FERRY_SLOT_WRITING),
                                                                 memory_order_acq_rel, memory_order_relaxed)))
            break;
          beaten = TRUE;
          continue;
        }
      if (ahead < 0)
        {
          /* The slot's last message is still there. In broadcast everybody may have read it. */
          if (self->mode == FERRY_MODE_BROADCAST && !reclaimed)
            {
              reclaimed = TRUE;
              ferry_ring_reclaim (self);
              continue;
            }
          return FERRY_RING_FULL;
        }
      if (ahead > 1)
        t += (guint64) (ahead - 1) << self->lap_shift;
      t++;
    }
  if (G_UNLIKELY (n == 0))
    {
      /* Others claimed as fast as we walked; or nothing moves, and yet there is no end. */
      guint64 now = atomic_load_explicit (self->tail, memory_order_acquire);

      if (!beaten && now == start)
        return FERRY_RING_CORRUPT;
      start = now;
      beaten = FALSE;
      goto again;
    }

  ferry_ring_write (self, slot, t, message, payload);
  return FERRY_RING_OK;
}

/* Where to begin to look for the head. Senders read the shared hint while they wait for room, and each time take its line
 * away, so a receiver that is alone does better with what it remembers, and stores the hint seldom; where others were here
 * since, the shared hint is ahead of that. @own: which it is. */
static inline guint64
ferry_ring_guess_head (FerrySegment *self, gboolean *own)
{
  guint64 h = atomic_load_explicit (&self->own_head, memory_order_acquire);
  guint64 w = atomic_load_explicit (&ferry_segment_slot (self, h)->word, memory_order_acquire);

  *own = ferry_word_lap_ahead (w, h >> self->lap_shift) == 0
         && (ferry_word_state (w) == FERRY_SLOT_COMMITTED || ferry_word_state (w) == FERRY_SLOT_EMPTY);
  return G_LIKELY (*own) ? h : atomic_load_explicit (self->head, memory_order_acquire);
}

static FerryRingResult
ferry_ring_take_work (FerrySegment *self, FerryMessage *message, guint8 *payload)
{
  gboolean own;
  guint64 h = ferry_ring_guess_head (self, &own);
  guint64 start = h;
  guint64 pending = 0;          /* slots passed since the first one that is not resolved, with it */
  guint64 writing = 0;          /* the first of them that was being written ... */
  guint64 pending_before = 0;   /* ... and how many were passed before it */
  gboolean any_writing = FALSE; /* ... if any */
  guint64 horizon = 0;          /* up to here all was looked at twice ... */
  gboolean looked_twice = FALSE;
  gboolean beaten = FALSE; /* somebody else was quicker: the walk proves nothing */
  guint64 n;

  for (n = ferry_ring_walk_limit (self); n > 0; n--)
    {
      FerrySlot *slot = ferry_segment_slot (self, h);
      guint64 lap = h >> self->lap_shift;
      guint64 w = atomic_load_explicit (&slot->word, memory_order_acquire);
      gint64 ahead = ferry_word_lap_ahead (w, lap);

      if (G_UNLIKELY (ahead != 0))
        {
          if (ahead < 0)
            {
              if (pending == 0)
                return FERRY_RING_CORRUPT;
              return FERRY_RING_PENDING; /* a whole lap behind an unresolved slot: not claimed yet */
            }
          if (ahead > 2 && pending == 0)
            h += (guint64) (ahead - 2) << self->lap_shift;
          h++;
          if (pending > 0)
            {
              if (++pending > self->ring_slots)
                return FERRY_RING_PENDING;
            }
          continue;
        }

      if (G_UNLIKELY (ferry_word_state (w) != FERRY_SLOT_COMMITTED))
        {
          switch (ferry_word_state (w))
            {
            case FERRY_SLOT_EMPTY:
              if (pending == 0 && h != start)
                {
                  atomic_store_explicit (self->head, h, memory_order_release);
                  atomic_store_explicit (&self->own_head, h, memory_order_release);
                }
              return pending == 0 ? FERRY_RING_EMPTY : FERRY_RING_PENDING;
            case FERRY_SLOT_VOID:
              atomic_compare_exchange_strong_explicit (&slot->word, &w, ferry_word (lap + 1, 0, FERRY_SLOT_EMPTY),
                                                       memory_order_seq_cst, memory_order_relaxed);
              continue;
            case FERRY_SLOT_WRITING:
              if (!any_writing)
                {
                  writing = h;
                  pending_before = pending;
                }
              any_writing = TRUE;
              G_GNUC_FALLTHROUGH;
            case FERRY_SLOT_TAKEN:
              if (++pending > self->ring_slots)
                return FERRY_RING_PENDING;
              h++;
              continue;
            default:
              return FERRY_RING_CORRUPT;
            }
        }

      /* What was being written when we passed it may be committed by now, and this one be its sender's next: a second
       * look at what was passed. All below was claimed before this one was committed, so in that look of each sender
       * only its last can still be WRITING. */
      if (G_UNLIKELY (any_writing && (!looked_twice || (gint64) (h - horizon) > 0)))
        {
          looked_twice = TRUE;
          horizon = h;
          h = writing;
          pending = pending_before;
          any_writing = FALSE;
          continue;
        }

      if (G_UNLIKELY (!ferry_ring_read_slot (self, slot, h, message)))
        {
          if (atomic_load_explicit (&slot->word, memory_order_acquire) != w)
            continue;
          /* Nobody can make sense of it: out of the way, and say so. */
          atomic_compare_exchange_strong_explicit (&slot->word, &w, ferry_word (lap + 1, 0, FERRY_SLOT_EMPTY),
                                                   memory_order_seq_cst, memory_order_relaxed);
          return FERRY_RING_CORRUPT;
        }
      if (message->block == FERRY_NO_BLOCK)
        {
          ferry_ring_copy_payload (payload, slot, message->size);
          FERRY_STEP ("take-copied");
          /* Success means that the slot was COMMITTED in this lap all the while, so what was copied is the message.
           * Release: the copy is done before a sender writes here again. */
          if (G_UNLIKELY (!atomic_compare_exchange_strong_explicit (&slot->word, &w,
                                                                    ferry_word (lap + 1, 0, FERRY_SLOT_EMPTY),
                                                                    memory_order_seq_cst, memory_order_relaxed)))
            {
              beaten = TRUE;
              continue;
            }
          FERRY_STEP ("take-emptied");
        }
      else
        {
          guint64 taken = ferry_word (lap, self->id, FERRY_SLOT_TAKEN);
          gboolean ours;

          if (!atomic_compare_exchange_strong_explicit (&slot->word, &w, taken, memory_order_seq_cst,
                                                        memory_order_relaxed))
            {
              beaten = TRUE;
              continue;
            }
          FERRY_STEP ("take-taken");
          ours = ferry_arena_own (self, message->block, message->generation);
          FERRY_STEP ("take-owned");
          atomic_exchange_explicit (&slot->word, ferry_word (lap + 1, 0, FERRY_SLOT_EMPTY), memory_order_seq_cst);
          FERRY_STEP ("take-released");
          if (!ours)
            return FERRY_RING_CORRUPT;
        }
      if (pending == 0)
        ferry_ring_move_head (self, h + 1, own);
      FERRY_STEP ("take-head");
      ferry_waiter_notify_senders (self);
      FERRY_STEP ("take-woken");
      ferry_ring_prefetch_ahead (self, h);
      return FERRY_RING_OK;
    }
  /* Others took and sent as fast as we walked, or around a slot in somebody's hands; or nothing moves, and yet there is
   * no end. */
  return !beaten && pending == 0 && atomic_load_explicit (self->head, memory_order_acquire) == start
             ? FERRY_RING_CORRUPT
             : FERRY_RING_PENDING;
}

static FerryRingResult
ferry_ring_take_broadcast (FerrySegment *self, FerryMessage *message, guint8 *payload, guint64 *dropped)
{
  guint64 c = atomic_load_explicit (&self->cursor, memory_order_relaxed);
  guint64 start = c;
  guint64 n;

  for (n = ferry_ring_walk_limit (self); n > 0; n--)
    {
      FerrySlot *slot = ferry_segment_slot (self, c);
      guint64 lap = c >> self->lap_shift;
      guint64 w = atomic_load_explicit (&slot->word, memory_order_acquire);
      gint64 ahead = ferry_word_lap_ahead (w, lap);
      gboolean sane;

      if (G_UNLIKELY (ahead < 0))
        return FERRY_RING_EMPTY;
      if (G_UNLIKELY (ahead > 0))
        {
          /* Overtaken: go on with the oldest that is left. */
          guint64 h = ferry_ring_advance_head (self);

          if (h == G_MAXUINT64)
            return FERRY_RING_CORRUPT;
          if ((gint64) (h - c) <= 0)
            h = c + 1;
          *dropped += h - c;
          c = h;
          atomic_store_explicit (&self->cursor, c, memory_order_relaxed);
          atomic_store_explicit (&self->me->cursor, c, memory_order_seq_cst);
          continue;
        }
      switch (ferry_word_state (w))
        {
        case FERRY_SLOT_COMMITTED:
          break;
        case FERRY_SLOT_EMPTY:
          return FERRY_RING_EMPTY;
        case FERRY_SLOT_WRITING:
          return FERRY_RING_PENDING;
        case FERRY_SLOT_VOID:
          c++;
          atomic_store_explicit (&self->cursor, c, memory_order_relaxed);
          atomic_store_explicit (&self->me->cursor, c, memory_order_seq_cst);
          continue;
        case FERRY_SLOT_TAKEN: /* dropped before we came */
          c++;
          *dropped += 1;
          atomic_store_explicit (&self->cursor, c, memory_order_relaxed);
          atomic_store_explicit (&self->me->cursor, c, memory_order_seq_cst);
          continue;
        default:
          return FERRY_RING_CORRUPT;
        }

      sane = ferry_ring_read_slot (self, slot, c, message);
      if (sane && message->block == FERRY_NO_BLOCK)
        {
          ferry_ring_copy_payload (payload, slot, message->size);
        }
      else if (sane)
        {
          FERRY_STEP ("read-before-hold");
          ferry_arena_hold (self, message->block);
          FERRY_STEP ("read-held");
        }
      /* Store-buffering pattern with ferry_ring_reclaim_one(): it changes the word, then looks at holders; we set
       * holders, then look at the word. */
      atomic_thread_fence (memory_order_seq_cst);
      if (G_UNLIKELY (atomic_load_explicit (&slot->word, memory_order_acquire) != w))
        {
          if (sane && message->block != FERRY_NO_BLOCK)
            ferry_arena_unhold (self, message->block, self->id);
          continue;
        }
      c++;
      atomic_store_explicit (&self->cursor, c, memory_order_relaxed);
      /* Release: reading is done; full barrier before tx_sleeping is looked at. */
      atomic_exchange_explicit (&self->me->cursor, c, memory_order_seq_cst);
      if (G_UNLIKELY (!sane))
        return FERRY_RING_CORRUPT;
      FERRY_STEP ("read-cursor");
      if (message->block != FERRY_NO_BLOCK)
        ferry_ring_reclaim (self);
      ferry_waiter_notify_senders (self);
      ferry_ring_prefetch_ahead (self, c);
      return FERRY_RING_OK;
    }
  /* Overtaken as fast as we read. */
  return c == start ? FERRY_RING_CORRUPT : FERRY_RING_PENDING;
}

/* Private: the next message. Inline payload goes to @payload (inline_max bytes); a block is
 * owned (work queue) or held (broadcast) by us afterwards. */
FerryRingResult
ferry_ring_take (FerrySegment *self, FerryMessage *message, guint8 *payload, guint64 *dropped)
{
  FerryRingResult result;

  if (G_UNLIKELY (atomic_load_explicit (&self->too_close, memory_order_relaxed)))
    ferry_ring_keep_distance (self);
  if (self->mode == FERRY_MODE_WORK_QUEUE)
    return ferry_ring_take_work (self, message, payload);

  g_mutex_lock (&self->cursor_mutex);
  result = ferry_ring_take_broadcast (self, message, payload, dropped);
  g_mutex_unlock (&self->cursor_mutex);
  return result;
}

/* Private: makes room by discarding the oldest message that waits. FERRY_RING_EMPTY when
 * there is none. */
FerryRingResult
ferry_ring_drop_oldest (FerrySegment *self)
{
  if (self->mode == FERRY_MODE_BROADCAST)
    {
      guint64 h = ferry_ring_advance_head (self);
      guint64 oldest = ferry_ring_min_cursor (self, ferry_ring_find_tail (self));

      /* What lies before the oldest cursor is history; it goes first, then the oldest unread message. */
      for (guint64 n = ferry_ring_walk_limit (self); n > 0; n--)
        {
          if (h == G_MAXUINT64)
            return FERRY_RING_CORRUPT;
          if (!ferry_ring_reclaim_one (self, h))
            return FERRY_RING_EMPTY;
          if ((gint64) (h - oldest) >= 0)
            break;
          h = ferry_ring_advance_head (self);
        }
      ferry_ring_advance_head (self);
      return FERRY_RING_OK;
    }
  else
    {
      FerryMessage message;
      guint8 payload[FERRY_MAX_INLINE];
      FerryRingResult result = ferry_ring_take_work (self, &message, payload);

      if (result == FERRY_RING_OK && message.block != FERRY_NO_BLOCK)
        {
          ferry_arena_free (self, message.block);
          ferry_waiter_notify_senders (self); /* the take did so before its block was free */
        }
      return result;
    }
}

/* Private: whether a look at the next slot promises a message; cheap enough to spin on. */
gboolean
ferry_ring_maybe_ready (FerrySegment *self)
{
  guint64 position;
  guint64 w;
  gint64 ahead;
  gboolean own;

  if (self->mode == FERRY_MODE_BROADCAST && self->role == FERRY_ROLE_RECEIVER)
    position = atomic_load_explicit (&self->cursor, memory_order_relaxed);
  else
    position = ferry_ring_guess_head (self, &own);
  w = atomic_load_explicit (&ferry_segment_slot (self, position)->word, memory_order_acquire);
  ahead = ferry_word_lap_ahead (w, position >> self->lap_shift);
  if (ahead != 0)
    return ahead > 0;
  return ferry_word_state (w) != FERRY_SLOT_EMPTY;
}

/* Private: what a spinning receiver looks at. Behind a stream it is the tail, which a sender writes once, after the
 * commit: looking at the slot itself would take the line away from the sender between its claim and its commit. The tail is only
 * a hint, so the slot has its turn too. Waiting for an answer, it is the slot: one cache line less to fetch. */
gboolean
ferry_ring_spin_ready (FerrySegment *self, gpointer looks)
{
  guint64 position;

  if ((atomic_load_explicit (&self->backoff, memory_order_relaxed) == 0
       && atomic_load_explicit (&self->mean_wait, memory_order_relaxed) < QUICK_ANSWER_NS)
      || ++*(guint *) looks % SLOT_LOOK_INTERVAL == 0)
    return ferry_ring_maybe_ready (self);
  position = self->mode == FERRY_MODE_BROADCAST ? atomic_load_explicit (&self->cursor, memory_order_relaxed)
                                                : atomic_load_explicit (&self->own_head, memory_order_relaxed);
  return (gint64) (atomic_load_explicit (self->tail, memory_order_acquire) - position) > 0;
}

/* Private: whether a message could be taken now; surer than ferry_ring_maybe_ready() and dearer. */
gboolean
ferry_ring_has_message (FerrySegment *self)
{
  gboolean reader = self->mode == FERRY_MODE_BROADCAST && self->role == FERRY_ROLE_RECEIVER;
  guint64 position
      = reader ? atomic_load_explicit (&self->cursor, memory_order_relaxed) : ferry_ring_advance_head (self);

  if (position == G_MAXUINT64)
    return TRUE; /* let the call find out and say so */
  for (guint64 i = 0; i < self->ring_slots; i++, position++)
    {
      guint64 w = atomic_load_explicit (&ferry_segment_slot (self, position)->word, memory_order_acquire);
      gint64 ahead = ferry_word_lap_ahead (w, position >> self->lap_shift);

      if (ahead == 0 && (ferry_word_state (w) == FERRY_SLOT_COMMITTED || ferry_word_state (w) == FERRY_SLOT_VOID))
        return TRUE;
      if (reader)
        return ahead > 0 || (ahead == 0 && ferry_word_state (w) == FERRY_SLOT_TAKEN);
      if (ahead < 0 || (ahead == 0 && ferry_word_state (w) == FERRY_SLOT_EMPTY))
        return FALSE;
    }
  return FALSE;
}

/* Private: whether a message could be sent now. */
gboolean
ferry_ring_has_room (FerrySegment *self)
{
  guint64 t = atomic_load_explicit (&self->own_tail, memory_order_acquire);
  guint64 h;
  guint64 w = atomic_load_explicit (&ferry_segment_slot (self, t)->word, memory_order_acquire);

  /* The usual case: the slot behind our last message is free. */
  if (G_LIKELY (w == ferry_word (t >> self->lap_shift, 0, FERRY_SLOT_EMPTY)
                && t - atomic_load_explicit (&self->cached_head, memory_order_acquire) < self->capacity))
    return TRUE;
  t = ferry_ring_find_tail (self);

  if (t == G_MAXUINT64)
    return TRUE; /* let the call find out and say so */
  /* The head only grows: what an old one allows holds all the more now, and its cache line stays with the receivers. */
  h = atomic_load_explicit (&self->cached_head, memory_order_acquire);
  w = atomic_load_explicit (&ferry_segment_slot (self, t)->word, memory_order_acquire);
  if (t - h < self->capacity && ferry_word_lap_ahead (w, t >> self->lap_shift) >= 0)
    return TRUE;
  if (self->mode == FERRY_MODE_BROADCAST)
    ferry_ring_reclaim (self);
  h = ferry_ring_refresh_head (self, t);
  if (h == G_MAXUINT64 || (gint64) (h - t) > 0)
    return TRUE;
  if (t - h >= self->capacity)
    return FALSE;
  w = atomic_load_explicit (&ferry_segment_slot (self, t)->word, memory_order_acquire);
  return ferry_word_lap_ahead (w, t >> self->lap_shift) >= 0;
}
