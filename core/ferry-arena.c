/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The blocks of docs/memory-model.md, section 4. */

#include "ferry-segment-private.h"

#include "ferry-error.h"
#include "ferry-store-ticket-private.h"

#include <unistd.h>

/* A block from this size on is worth waiting for: two of them and the source overflow a second-level cache. Bytes. */
#define REUSE_MIN_SIZE (512 * 1024)
/* So long: what a copy of the smallest such block costs more when it goes to cold memory. Nanoseconds. */
#define REUSE_PATIENCE_NS (3000)
#define REUSE_LOOKS (8)
#define REUSE_SKIP_MAX (1023)
/* Small blocks are used in turns: so many, and no more than this many bytes of a class, half a second-level cache. */
#define ROTATION_BLOCKS (64)
#define ROTATION_BYTES (1024 * 1024)
/* A stream's rotation takes one more block with every so many messages; nanoseconds in which these pass in a stream. */
#define STREAM_MESSAGES (8)
#define STREAM_NS (STREAM_MESSAGES * 100 * 1000)
#define ROTATION_LOOKS (2)
/* After a failure for want of memory. */
#define WARM_UP_PAUSE_NS (1000 * 1000 * 1000)
/* How fast memory is copied, for want of better knowledge, and how long a copy is waited for at most. */
#define COPY_BYTES_PER_NS (8)
#define GROW_PATIENCE_MAX_NS (100 * 1000 * 1000)
/* Waiting for longer than this is done in naps. */
#define NAP_AFTER_NS (20 * 1000)
#define NAP_US (20)
/* So many blocks are looked at. */
#define WARM_LOOKS (16)

guint64
ferry_arena_class_size (guint klass)
{
  return G_GUINT64_CONSTANT (1) << (FERRY_MIN_BLOCK_SHIFT + klass);
}

guint
ferry_arena_class_blocks (guint klass)
{
  guint64 n = (G_GUINT64_CONSTANT (1) << FERRY_CLASS_RANGE_SHIFT) / ferry_arena_class_size (klass);

  return (guint) CLAMP (n, FERRY_MIN_BLOCKS, FERRY_MAX_BLOCKS);
}

static inline guint
ferry_arena_class_for (guint64 size)
{
  guint64 above = (size - 1) >> FERRY_MIN_BLOCK_SHIFT;

  if (size <= 1 || above == 0)
    return 0;
  return MIN (64 - (guint) __builtin_clzll (above), FERRY_N_CLASSES);
}

static inline guint64
ferry_arena_round (guint64 size)
{
  guint64 page = G_GUINT64_CONSTANT (1) << FERRY_MIN_BLOCK_SHIFT;

  return (MAX (size, 1) + page - 1) & ~(page - 1);
}

static inline guint
ferry_arena_n_used (FerrySegment *self, guint klass)
{
  return MIN (atomic_load_explicit (&self->class_used[klass], memory_order_acquire), self->classes[klass].n_blocks);
}

/* After the word became FREE. A bit that is set already stays as it is, and its cache line where it is; who clears it
 * looks at the word afterwards, both seq_cst, so that either we see it cleared or that one sees FREE (B2). */
static inline void
ferry_arena_set_bit (FerrySegment *self, guint klass, guint index)
{
  _Atomic guint64 *word = &self->classes[klass].bitmap[index / 64];
  guint64 bit = G_GUINT64_CONSTANT (1) << (index % 64);

  if (!(atomic_load_explicit (word, memory_order_seq_cst) & bit))
    atomic_fetch_or_explicit (word, bit, memory_order_seq_cst);
}

/* Private: whether the number names a block that is in use and large enough. Every block
 * number that comes out of shared memory passes here. */
gboolean
ferry_arena_check_ref (FerrySegment *self, guint32 block, guint64 size)
{
  guint klass = FERRY_BLOCK_CLASS (block);
  guint index = FERRY_BLOCK_INDEX (block);

  if (klass >= FERRY_N_CLASSES || size > ferry_arena_class_size (klass))
    return FALSE;
  if (index >= ferry_arena_n_used (self, klass))
    return FALSE;
  return atomic_load_explicit (&self->classes[klass].blocks[index].committed, memory_order_relaxed) >= size;
}

/* Private: the address of a block. Chunks are mapped once and stay. */
guint8 *
ferry_arena_map_block (FerrySegment *self, guint32 block, GError **error)
{
  guint klass = FERRY_BLOCK_CLASS (block);
  guint index = FERRY_BLOCK_INDEX (block);
  guint64 size = ferry_arena_class_size (klass);
  guint per_chunk = self->classes[klass].blocks_per_chunk;
  guint chunk = index / per_chunk;
  _Atomic (gpointer) *chunks
      = (_Atomic (gpointer) *) atomic_load_explicit (&self->classes[klass].chunks, memory_order_acquire);
  gpointer address;

  if (G_UNLIKELY (chunks == NULL))
    {
      gpointer *fresh = g_new0 (gpointer, self->classes[klass].n_chunks);
      gpointer *expected = NULL;

      if (!atomic_compare_exchange_strong_explicit (&self->classes[klass].chunks, &expected, fresh,
                                                    memory_order_acq_rel, memory_order_acquire))
        {
          g_free (fresh);
          fresh = expected;
        }
      chunks = (_Atomic (gpointer) *) fresh;
    }

  address = atomic_load_explicit (&chunks[chunk], memory_order_acquire);
  if (G_UNLIKELY (address == NULL))
    {
      gpointer expected = NULL;

      address = self->klass->map (self->transport, FERRY_SEGMENT_AREA_DATA,
                                  self->classes[klass].data_offset + (guint64) chunk * per_chunk * size,
                                  per_chunk * size, self->data_writable, error);
      if (address == NULL)
        return NULL;
      if (!atomic_compare_exchange_strong_explicit (&chunks[chunk], &expected, address, memory_order_acq_rel,
                                                    memory_order_acquire))
        {
          self->klass->unmap (self->transport, address, per_chunk * size);
          address = expected;
        }
    }
  return (guint8 *) address + (guint64) (index % per_chunk) * size;
}

/* Makes a block ours when it is free. */
static inline gboolean
ferry_arena_claim_word (FerrySegment *self, guint32 block)
{
  FerryBlock *descriptor = ferry_arena_block (self, block);
  guint64 w = atomic_load_explicit (&descriptor->word, memory_order_seq_cst);

  if (ferry_word_state (w) != FERRY_BLOCK_FREE
      || !atomic_compare_exchange_strong_explicit (&descriptor->word, &w,
                                                   ferry_word (ferry_word_lap (w) + 1, self->id, FERRY_BLOCK_OWNED),
                                                   memory_order_seq_cst, memory_order_relaxed))
    return FALSE;
  FERRY_TSAN_ACQUIRE (descriptor);
  FERRY_STEP ("alloc-owned");
  return TRUE;
}

/* Takes the block that was allocated before the last one, when it is free again: the last one the receiver has just got.
 * Its bit stays set, so that neither we nor the receiver, who frees it, writes the bitmap. */
static gboolean
ferry_arena_claim_recent (FerrySegment *self, guint klass, guint32 *block)
{
  guint32 recent = atomic_load_explicit (&self->recent[1], memory_order_relaxed);

  if (recent == FERRY_NO_BLOCK || FERRY_BLOCK_CLASS (recent) != klass
      || FERRY_BLOCK_INDEX (recent) >= ferry_arena_n_used (self, klass) || !ferry_arena_claim_word (self, recent))
    return FALSE;
  *block = recent;
  return TRUE;
}

static inline void
ferry_arena_remember (FerrySegment *self, guint32 block)
{
  /* only hints: threads that get in each other's way lose one */
  atomic_store_explicit (&self->recent[1], atomic_load_explicit (&self->recent[0], memory_order_relaxed),
                         memory_order_relaxed);
  atomic_store_explicit (&self->recent[0], block, memory_order_relaxed);
}

/* Takes the free block of lowest index: it is the most likely to be warm, and the high ones can be given back. */
static gboolean
ferry_arena_claim_free (FerrySegment *self, guint klass, guint32 *block)
{
  guint n_used = ferry_arena_n_used (self, klass);

  for (guint i = 0; i < (n_used + 63) / 64; i++)
    {
      _Atomic guint64 *word = &self->classes[klass].bitmap[i];
      guint64 bits = atomic_load_explicit (word, memory_order_acquire);

      while (bits != 0)
        {
          guint index = i * 64 + __builtin_ctzll (bits);
          guint64 bit = bits & -bits;

          bits &= bits - 1;
          if (index >= n_used)
            break;
          if (!(atomic_fetch_and_explicit (word, ~bit, memory_order_seq_cst) & bit))
            continue;
          FERRY_STEP ("alloc-bit");
          *block = FERRY_BLOCK_REF (klass, index);
          if (ferry_arena_claim_word (self, *block))
            return TRUE;
        }
    }
  return FALSE;
}

/* Raises the committed sum within the bound. Under the lock. */
static gboolean
ferry_arena_reserve_bytes (FerrySegment *self, guint64 delta)
{
  guint64 sum = atomic_load_explicit (&self->shared->bytes_committed, memory_order_relaxed);

  if (sum + delta > self->max_bytes)
    {
      ferry_arena_trim (self, G_MAXINT64, sum + delta - self->max_bytes);
      sum = atomic_load_explicit (&self->shared->bytes_committed, memory_order_relaxed);
      if (sum + delta > self->max_bytes)
        return FALSE;
    }
  sum += delta;
  atomic_store_explicit (&self->shared->bytes_committed, sum, memory_order_relaxed);
  if (sum > atomic_load_explicit (&self->shared->bytes_committed_peak, memory_order_relaxed))
    atomic_store_explicit (&self->shared->bytes_committed_peak, sum, memory_order_relaxed);
  return TRUE;
}

/* Makes the first @size bytes of a block that we own real (B5). Who dies between reserving and committing leaves
 * committed as it was, so the next owner commits again. */
static FerryArenaResult
ferry_arena_ensure_committed (FerrySegment *self, guint32 block, guint64 size, gint64 patience, GError **error)
{
  FerryBlock *descriptor = ferry_arena_block (self, block);
  guint64 have = atomic_load_explicit (&descriptor->committed, memory_order_acquire);
  guint64 want = ferry_arena_round (size);
  guint64 offset = self->classes[FERRY_BLOCK_CLASS (block)].data_offset
                   + FERRY_BLOCK_INDEX (block) * ferry_arena_class_size (FERRY_BLOCK_CLASS (block));

  if (G_LIKELY (have >= want))
    return FERRY_ARENA_OK;
  if (have > ferry_arena_class_size (FERRY_BLOCK_CLASS (block)))
    have = 0;

  for (guint attempt = 0;; attempt++)
    {
      g_autoptr (GError) local = NULL;

      guint64 reserved;

      if (!ferry_segment_lock_within (self, patience, error))
        return FERRY_ARENA_ERROR;
      reserved = atomic_load_explicit (&descriptor->reserved, memory_order_relaxed);
      if (reserved < want && !ferry_arena_reserve_bytes (self, want - reserved))
        {
          ferry_segment_unlock (self);
          return FERRY_ARENA_FULL;
        }
      FERRY_STEP ("grow-summed");
      atomic_store_explicit (&descriptor->reserved, MAX (reserved, want), memory_order_release);
      ferry_segment_unlock (self);
      FERRY_STEP ("grow-reserved");

      if (self->klass->commit_pages (self->transport, FERRY_SEGMENT_AREA_DATA, offset + have, want - have, &local))
        {
          FERRY_STEP ("grow-real");
          atomic_store_explicit (&descriptor->committed, want, memory_order_release);
          FERRY_STEP ("grow-committed");
          return FERRY_ARENA_OK;
        }

      /* Take the reservation back, and before failing try with what idle blocks hold. Who may not wait leaves it to the
       * block's next owner (B5). */
      if (patience == 0 ? !ferry_segment_lock_within (self, 0, error) : !ferry_segment_lock (self, error))
        return FERRY_ARENA_ERROR;
      self->klass->decommit_pages (self->transport, FERRY_SEGMENT_AREA_DATA, offset + have,
                                   ferry_arena_class_size (FERRY_BLOCK_CLASS (block)) - have, NULL);
      reserved = atomic_load_explicit (&descriptor->reserved, memory_order_relaxed);
      atomic_store_explicit (&descriptor->reserved, have, memory_order_release);
      atomic_fetch_sub_explicit (&self->shared->bytes_committed, reserved - MIN (have, reserved), memory_order_relaxed);
      guint64 got = attempt == 0 ? ferry_arena_trim (self, G_MAXINT64, want - have) : 0;
      ferry_segment_unlock (self);
      if (got == 0)
        {
          g_propagate_error (error, g_steal_pointer (&local));
          return FERRY_ARENA_ERROR;
        }
    }
}

/* Adds a block to the class, owned by us. Under no lock yet. */
static FerryArenaResult
ferry_arena_grow (FerrySegment *self, guint klass, gint64 patience, guint32 *block, GError **error)
{
  guint index;
  FerryBlock *descriptor;
  guint64 w;
  gsize page = ferry_arena_round (1);

  if (!ferry_segment_lock_within (self, patience, error))
    return FERRY_ARENA_ERROR;
  index = ferry_arena_n_used (self, klass);
  if (index >= self->classes[klass].n_blocks)
    {
      ferry_segment_unlock (self);
      return FERRY_ARENA_FULL;
    }
  /* The page of descriptors and the word of the bitmap must be real before they are touched. */
  if (index % (page / sizeof (FerryBlock)) == 0)
    {
      guint64 bitmap_offset = (self->classes[klass].control_offset + index / 8) & ~(guint64) (page - 1);
      guint64 blocks_offset = (guint64) ((guint8 *) &self->classes[klass].blocks[index] - self->control);

      if (!self->klass->commit_pages (self->transport, FERRY_SEGMENT_AREA_CONTROL, bitmap_offset, page, error)
          || !self->klass->commit_pages (self->transport, FERRY_SEGMENT_AREA_CONTROL, blocks_offset, page, error))
        {
          ferry_segment_unlock (self);
          return FERRY_ARENA_ERROR;
        }
    }
  FERRY_STEP ("grow-locked");
  descriptor = &self->classes[klass].blocks[index];
  w = atomic_load_explicit (&descriptor->word, memory_order_relaxed);
  atomic_store_explicit (&descriptor->word, ferry_word (ferry_word_lap (w) + 1, self->id, FERRY_BLOCK_OWNED),
                         memory_order_release);
  FERRY_STEP ("grow-owned");
  atomic_store_explicit (&self->class_used[klass], index + 1, memory_order_release);
  FERRY_STEP ("grow-used");
  ferry_segment_unlock (self);
  *block = FERRY_BLOCK_REF (klass, index);
  return FERRY_ARENA_OK;
}

/* Whether messages come fast enough for more blocks to be made warm for them, and it is time for one. */
static gboolean
ferry_arena_may_warm_up (FerrySegment *self)
{
  gint64 now;
  gint64 before;

  if (atomic_fetch_add_explicit (&self->n_cold, 1, memory_order_relaxed) % STREAM_MESSAGES != 0)
    return FALSE;
  now = ferry_waiter_now ();
  before = atomic_exchange_explicit (&self->cold_since, now, memory_order_relaxed);
  return now - before < STREAM_NS && now >= atomic_load_explicit (&self->no_warm_up_until, memory_order_relaxed)
         && atomic_load_explicit (&self->shared->bytes_committed, memory_order_relaxed) < self->max_bytes / 2;
}

/* Makes one more block of a rotation warm. Nothing depends on it, so it waits for nobody. */
static gboolean
ferry_arena_warm_up (FerrySegment *self, guint klass, guint index, guint64 size, guint32 *block)
{
  *block = FERRY_BLOCK_REF (klass, index);
  if (index < ferry_arena_n_used (self, klass) ? !ferry_arena_claim_word (self, *block)
                                               : ferry_arena_grow (self, klass, 0, block, NULL) != FERRY_ARENA_OK)
    return FALSE;
  if (ferry_arena_ensure_committed (self, *block, size, 0, NULL) == FERRY_ARENA_OK)
    return TRUE;
  ferry_arena_free (self, *block);
  atomic_store_explicit (&self->no_warm_up_until, ferry_waiter_now () + WARM_UP_PAUSE_NS, memory_order_relaxed);
  return FALSE;
}

/* Takes the next one of the small blocks in turn, if it is free and its pages are there. What a receiver has just read is in the
 * cache of its processor, and each line of it costs the sender a question to that one; what was read some messages ago has
 * gone on to the cache that they share, and is written, and read, almost twice as fast. A stream makes one block after
 * the other warm; where messages are few, those that are warm are used. The bit stays set, as above. */
static gboolean
ferry_arena_claim_next (FerrySegment *self, guint klass, guint64 size, guint32 *block)
{
  guint window = (guint) MIN (ROTATION_BLOCKS, ROTATION_BYTES / ferry_arena_class_size (klass));
  guint n_used = ferry_arena_n_used (self, klass);
  guint index = atomic_load_explicit (&self->next_index[klass], memory_order_relaxed);
  gboolean found = FALSE;

  for (guint i = 0; i < ROTATION_LOOKS && !found; i++, index++)
    {
      if (index >= MIN (window, n_used + 1))
        index = 0;
      *block = FERRY_BLOCK_REF (klass, index);
      if (index < n_used
          && atomic_load_explicit (&ferry_arena_block (self, *block)->committed, memory_order_relaxed) >= size)
        found = ferry_arena_claim_word (self, *block);
      else if (ferry_arena_may_warm_up (self))
        found = ferry_arena_warm_up (self, klass, index, size, block);
      else
        index = G_MAXUINT; /* goes on with the first one */
    }
  atomic_store_explicit (&self->next_index[klass], index, memory_order_relaxed);
  return found;
}

/* Whether a block of the class could be had whose pages are there already. The first few tell enough. */
static gboolean
ferry_arena_has_warm (FerrySegment *self, guint klass, guint64 size)
{
  guint n = MIN (ferry_arena_n_used (self, klass), WARM_LOOKS);

  for (guint i = 0; i < n; i++)
    {
      FerryBlock *block = &self->classes[klass].blocks[i];

      if (ferry_word_state (atomic_load_explicit (&block->word, memory_order_acquire)) == FERRY_BLOCK_FREE
          && atomic_load_explicit (&block->committed, memory_order_relaxed) >= size)
        return TRUE;
    }
  return FALSE;
}

/* Large blocks: a receiver that keeps up gives the last one back within a microsecond, still hot in the cache; taking
 * another one instead costs more than waiting for it. And pages that are touched for the first time cost several times
 * the copy: before a work queue grows, it waits for what it has for as long as a copy takes. Where that turns out vain
 * (views are held), it is tried ever less often. @longest: what the caller's time-out leaves, microseconds. */
static void
ferry_arena_wait_for_hot_block (FerrySegment *self, guint klass, guint64 size, gint64 longest)
{
  FerryBlock *first = &self->classes[klass].blocks[0];
  gint64 patience = REUSE_PATIENCE_NS;
  gboolean grows = FALSE;
  gint64 started;
  gint64 waited;
  guint skip;

  if (ferry_arena_class_size (klass) < REUSE_MIN_SIZE || ferry_arena_n_used (self, klass) == 0
      || ferry_word_state (atomic_load_explicit (&first->word, memory_order_acquire)) == FERRY_BLOCK_FREE)
    return;
  skip = atomic_load_explicit (&self->no_reuse, memory_order_relaxed);
  if (skip > 0)
    {
      atomic_store_explicit (&self->no_reuse, skip - 1, memory_order_relaxed);
      return;
    }
  if (self->mode == FERRY_MODE_WORK_QUEUE && !ferry_arena_has_warm (self, klass, size)
      && ferry_segment_count_role (self, FERRY_ROLE_RECEIVER) > 0)
    {
      grows = TRUE;
      patience = MIN ((gint64) (size / COPY_BYTES_PER_NS), MIN (longest * 1000, GROW_PATIENCE_MAX_NS));
    }
  started = ferry_waiter_now ();
  do
    {
      for (guint i = 0; i < REUSE_LOOKS; i++)
        {
          if (ferry_word_state (atomic_load_explicit (&first->word, memory_order_acquire)) == FERRY_BLOCK_FREE
              || (grows && ferry_arena_has_warm (self, klass, size)))
            {
              atomic_store_explicit (&self->no_reuse_next, 0, memory_order_relaxed);
              return;
            }
          ferry_waiter_relax ();
        }
      waited = ferry_waiter_now () - started;
      if (waited > NAP_AFTER_NS)
        g_usleep (NAP_US);
    }
  while (waited < patience);
  skip = atomic_load_explicit (&self->no_reuse_next, memory_order_relaxed);
  skip = MIN (2 * skip + 1, REUSE_SKIP_MAX);
  atomic_store_explicit (&self->no_reuse_next, skip, memory_order_relaxed);
  atomic_store_explicit (&self->no_reuse, skip, memory_order_relaxed);
}

/* A class without blocks takes a small warm one of a larger class if there is any: the first message of a channel. */
static gboolean
ferry_arena_claim_warm (FerrySegment *self, guint klass, guint64 size, guint32 *block)
{
  for (guint larger = klass + 1; larger < FERRY_N_CLASSES && ferry_arena_class_size (larger) <= FERRY_WARM_MAX;
       larger++)
    {
      *block = FERRY_BLOCK_REF (larger, 0);
      if (ferry_arena_n_used (self, larger) > 0
          && atomic_load_explicit (&ferry_arena_block (self, *block)->committed, memory_order_relaxed) >= size
          && ferry_arena_claim_word (self, *block))
        return TRUE;
    }
  return FALSE;
}

/* Any block of the class: the most recent one, the first one that is free, or a new one. */
static FerryArenaResult
ferry_arena_claim (FerrySegment *self, guint klass, guint64 size, gint64 patience, guint32 *block, GError **error)
{
  if (ferry_arena_class_size (klass) < REUSE_MIN_SIZE && ferry_arena_claim_recent (self, klass, block))
    return FERRY_ARENA_OK;
  ferry_arena_wait_for_hot_block (self, klass, size, patience);
  if (G_LIKELY (ferry_arena_claim_free (self, klass, block)))
    return FERRY_ARENA_OK;
  if (ferry_arena_n_used (self, klass) == 0 && ferry_arena_claim_warm (self, klass, size, block))
    return FERRY_ARENA_OK;
  return ferry_arena_grow (self, klass, patience, block, error);
}

/* Private: a block of at least that size, owned by us, its pages real. @patience: for the lock, and for memory that is
 * warm, microseconds. */
FerryArenaResult
ferry_arena_alloc (FerrySegment *self, guint64 size, gint64 patience, guint32 *block, guint8 **data, GError **error)
{
  guint klass = ferry_arena_class_for (size);
  FerryArenaResult result;

  if (klass >= FERRY_N_CLASSES || ferry_arena_round (size) > self->max_bytes)
    {
      g_set_error (error, FERRY_ERROR, FERRY_ERROR_TOO_BIG,
                   "%s: a message of %" G_GUINT64_FORMAT " bytes does not fit into the bound of %" G_GUINT64_FORMAT
                   " bytes; create the channel with a larger max-bytes, or send it in parts",
                   self->label, size,
                   klass >= FERRY_N_CLASSES ? ferry_arena_class_size (FERRY_N_CLASSES - 1) : self->max_bytes);
      return FERRY_ARENA_ERROR;
    }

  if (klass >= FERRY_N_ROTATED || !ferry_arena_claim_next (self, klass, size, block))
    {
      result = ferry_arena_claim (self, klass, size, patience, block, error);
      if (G_UNLIKELY (result != FERRY_ARENA_OK))
        return result;
    }
  ferry_arena_remember (self, *block);
  result = ferry_arena_ensure_committed (self, *block, size, patience, error);
  if (G_UNLIKELY (result != FERRY_ARENA_OK))
    {
      ferry_arena_free (self, *block);
      return result;
    }
  *data = ferry_arena_map_block (self, *block, error);
  if (G_UNLIKELY (*data == NULL))
    {
      ferry_arena_free (self, *block);
      return FERRY_ARENA_ERROR;
    }
  return FERRY_ARENA_OK;
}

/* Private: makes a block real for the first messages, unless there is one. Without memory for that, or where the bound
 * leaves too little, they have to wait for theirs. */
void
ferry_arena_make_warm (FerrySegment *self, guint64 warm_bytes)
{
  guint64 size = MIN (warm_bytes, MIN (self->max_bytes / FERRY_WARM_SHARE, FERRY_WARM_MAX));
  guint klass = ferry_arena_class_for (size);
  FerryBlock *first = &self->classes[klass].blocks[0];
  guint32 block;
  guint8 *data;

  if (size < ferry_arena_class_size (0))
    return;
  /* One that is in use was warm and will be again. */
  if (ferry_arena_n_used (self, klass) > 0
      && (ferry_word_state (atomic_load_explicit (&first->word, memory_order_acquire)) != FERRY_BLOCK_FREE
          || atomic_load_explicit (&first->committed, memory_order_relaxed) >= size))
    return;
  if (ferry_arena_alloc (self, size, 0, &block, &data, NULL) != FERRY_ARENA_OK)
    return;
  ferry_arena_free (self, block);
  /* Not idle before it was used, however long that takes. Should somebody have been as quick as to use it already, it is not
   * given back before it was used again, or is needed elsewhere. */
  atomic_store_explicit (&ferry_arena_block (self, block)->idle_since, G_MAXINT64 - 1, memory_order_relaxed);
}

/* Private: maps where the small blocks lie that are warm. */
void
ferry_arena_map_warm (FerrySegment *self)
{
  for (guint klass = 0; ferry_arena_class_size (klass) <= FERRY_WARM_MAX; klass++)
    if (ferry_arena_n_used (self, klass) > 0)
      ferry_arena_map_block (self, FERRY_BLOCK_REF (klass, 0), NULL);
}

/* Private: puts the first small blocks that are warm and mapped into the page table. Under the lock. */
void
ferry_arena_populate (FerrySegment *self)
{
  guint64 rest = FERRY_WARM_MAX;

  for (guint klass = 0; ferry_arena_class_size (klass) <= FERRY_WARM_MAX; klass++)
    {
      gpointer *chunks = atomic_load_explicit (&self->classes[klass].chunks, memory_order_acquire);
      FerryBlock *block = &self->classes[klass].blocks[0];
      guint64 size;

      if (chunks == NULL || chunks[0] == NULL || ferry_arena_n_used (self, klass) == 0)
        continue;
      ferry_segment_populate (self->classes[klass].bitmap, sizeof (guint64));
      ferry_segment_populate (block, sizeof *block);
      size = MIN (atomic_load_explicit (&block->committed, memory_order_relaxed), ferry_arena_class_size (klass));
      if (size == 0 || size > rest)
        continue;
      ferry_segment_populate (chunks[0], size);
      rest -= size;
    }
}

/* Private: what the next ferry_arena_claim_recent() will write, to ask for its cache line; NULL when it is not known. */
gconstpointer
ferry_arena_next_recent (FerrySegment *self)
{
  guint32 block = atomic_load_explicit (&self->recent[1], memory_order_relaxed);

  return block != FERRY_NO_BLOCK ? ferry_arena_block (self, block) : NULL;
}

/* Private: a taker makes the block of a slot that it has TAKEN its own (B3). */
gboolean
ferry_arena_own (FerrySegment *self, guint32 block, guint64 generation)
{
  FerryBlock *descriptor = ferry_arena_block (self, block);
  guint64 w = atomic_load_explicit (&descriptor->word, memory_order_acquire);

  /* Nobody else may change the word of a block that a TAKEN slot names, so a failure is corruption. */
  return ferry_word_state (w) == FERRY_BLOCK_OWNED && ferry_word_lap (w) == generation
         && atomic_compare_exchange_strong_explicit (&descriptor->word, &w,
                                                     ferry_word (ferry_word_lap (w), self->id, FERRY_BLOCK_OWNED),
                                                     memory_order_acq_rel, memory_order_relaxed);
}

/* Objects of stores that travelled in the message may go. The block becomes ours before, whatever it was: nobody else may put
 * another message there meanwhile. Of another generation, as when it is allocated: whoever finishes what a dead reclaimer began
 * must not take it for the one that the slot names still (B4). If we die in between, it is a block of ours that no slot names. */
static gboolean
ferry_arena_unbind (FerrySegment *self, guint32 block, guint64 *w)
{
  guint64 ours = ferry_word (ferry_word_lap (*w) + 1, self->id, FERRY_BLOCK_OWNED);

  if (!atomic_compare_exchange_strong_explicit (&ferry_arena_block (self, block)->word, w, ours, memory_order_seq_cst,
                                                memory_order_relaxed))
    return FALSE;
  *w = ours;
  ferry_store_ticket_unbind (self, block);
  return TRUE;
}

static void
ferry_arena_set_free (FerrySegment *self, guint32 block, guint64 w)
{
  FerryBlock *descriptor = ferry_arena_block (self, block);

  if (G_UNLIKELY (atomic_load_explicit (&self->couriers, memory_order_acquire) != NULL) && self->me != NULL
      && !ferry_arena_unbind (self, block, &w))
    return;
  atomic_store_explicit (&descriptor->idle_since, g_get_monotonic_time (), memory_order_relaxed);
  if (!atomic_compare_exchange_strong_explicit (&descriptor->word, &w,
                                                ferry_word (ferry_word_lap (w), 0, FERRY_BLOCK_FREE),
                                                memory_order_seq_cst, memory_order_relaxed))
    return;
  FERRY_STEP ("free-word");
  ferry_arena_set_bit (self, FERRY_BLOCK_CLASS (block), FERRY_BLOCK_INDEX (block));
  FERRY_STEP ("free-bit");
}

/* Private: gives a block of ours back. Who waits for room is told by the caller's
 * ferry_waiter_notify_senders(). */
void
ferry_arena_free (FerrySegment *self, guint32 block)
{
  guint64 w = atomic_load_explicit (&ferry_arena_block (self, block)->word, memory_order_acquire);

  FERRY_STEP ("free-before");
  if (ferry_word_state (w) == FERRY_BLOCK_OWNED && ferry_word_owner (w) == self->id)
    ferry_arena_set_free (self, block, w);
}

/* Private: takes a block that nobody uses, without its memory. FALSE: somebody uses it. Ends with
 * ferry_arena_free_claimed_block(). */
gboolean
ferry_arena_claim_free_block (FerrySegment *self, guint32 block)
{
  FerryBlock *descriptor = ferry_arena_block (self, block);
  guint64 w = atomic_load_explicit (&descriptor->word, memory_order_acquire);

  return ferry_word_state (w) == FERRY_BLOCK_FREE
         && atomic_compare_exchange_strong_explicit (&descriptor->word, &w,
                                                     ferry_word (ferry_word_lap (w) + 1, self->id, FERRY_BLOCK_OWNED),
                                                     memory_order_seq_cst, memory_order_relaxed);
}

void
ferry_arena_free_claimed_block (FerrySegment *self, guint32 block)
{
  FerryBlock *descriptor = ferry_arena_block (self, block);
  guint64 w = atomic_load_explicit (&descriptor->word, memory_order_acquire);

  if (ferry_word_state (w) == FERRY_BLOCK_OWNED && ferry_word_owner (w) == self->id
      && atomic_compare_exchange_strong_explicit (&descriptor->word, &w,
                                                  ferry_word (ferry_word_lap (w), 0, FERRY_BLOCK_FREE),
                                                  memory_order_seq_cst, memory_order_relaxed))
    ferry_arena_set_bit (self, FERRY_BLOCK_CLASS (block), FERRY_BLOCK_INDEX (block));
}

/* Private: frees a block whose word is @w, whoever owned it: repair. */
void
ferry_arena_force_free (FerrySegment *self, guint32 block, guint64 word)
{
  ferry_arena_set_free (self, block, word);
}

/* Private: frees a retired block that nobody holds (B4). */
void
ferry_arena_free_if_unheld (FerrySegment *self, guint32 block)
{
  FerryBlock *descriptor = ferry_arena_block (self, block);
  guint64 w;

  atomic_thread_fence (memory_order_seq_cst);
  w = atomic_load_explicit (&descriptor->word, memory_order_seq_cst);
  if (ferry_word_state (w) != FERRY_BLOCK_RETIRED)
    return;
  for (guint i = 0; i < FERRY_BITMAP_WORDS; i++)
    if (atomic_load_explicit (&descriptor->holders[i], memory_order_seq_cst) != 0)
      return;
  ferry_arena_set_free (self, block, w);
}

/* Private: a broadcast reader is about to use the block; it looks at the slot again
 * afterwards. */
void
ferry_arena_hold (FerrySegment *self, guint32 block)
{
  atomic_fetch_or_explicit (&ferry_arena_block (self, block)->holders[self->id / 64],
                            G_GUINT64_CONSTANT (1) << (self->id % 64), memory_order_seq_cst);
}

/* Private: participant @id uses the block no more. */
void
ferry_arena_unhold (FerrySegment *self, guint32 block, guint id)
{
  FERRY_STEP ("unhold-before");
  atomic_fetch_and_explicit (&ferry_arena_block (self, block)->holders[id / 64], ~(G_GUINT64_CONSTANT (1) << (id % 64)),
                             memory_order_seq_cst);
  FERRY_STEP ("unhold-cleared");
  ferry_arena_free_if_unheld (self, block);
}

/* Private: the generation of a block of ours; the slot carries it. */
guint64
ferry_arena_generation (FerrySegment *self, guint32 block)
{
  return ferry_word_lap (atomic_load_explicit (&ferry_arena_block (self, block)->word, memory_order_relaxed));
}

/* Private: the ring has given the block up. The generation is the slot's: whoever finishes what a dead reclaimer
 * began must not retire what has been freed and allocated again. */
void
ferry_arena_retire (FerrySegment *self, guint32 block, guint64 generation)
{
  FerryBlock *descriptor = ferry_arena_block (self, block);
  guint64 w = atomic_load_explicit (&descriptor->word, memory_order_acquire);

  if (ferry_word_state (w) == FERRY_BLOCK_OWNED && ferry_word_lap (w) == generation)
    atomic_compare_exchange_strong_explicit (&descriptor->word, &w, ferry_word (generation, 0, FERRY_BLOCK_RETIRED),
                                             memory_order_seq_cst, memory_order_relaxed);
  FERRY_STEP ("retired");
  ferry_arena_free_if_unheld (self, block);
}

/* Private: gives the pages of free blocks back that are idle since before @idle_before, at
 * least @wanted bytes if there are, the largest blocks first. Under the lock. Returns the bytes given back. */
guint64
ferry_arena_trim (FerrySegment *self, gint64 idle_before, guint64 wanted)
{
  guint64 got = 0;

  if (!self->data_writable)
    return 0;
  for (guint klass = FERRY_N_CLASSES; klass-- > 0 && got < wanted;)
    {
      guint n_used = ferry_arena_n_used (self, klass);

      for (guint index = n_used; index-- > 0 && got < wanted;)
        {
          FerryBlock *descriptor = &self->classes[klass].blocks[index];
          guint64 w = atomic_load_explicit (&descriptor->word, memory_order_acquire);
          guint64 reserved = atomic_load_explicit (&descriptor->reserved, memory_order_relaxed);
          guint64 mine = ferry_word (ferry_word_lap (w), self->id, FERRY_BLOCK_TRIMMING);

          if (ferry_word_state (w) != FERRY_BLOCK_FREE || reserved == 0)
            continue;
          if (atomic_load_explicit (&descriptor->idle_since, memory_order_relaxed) >= idle_before)
            continue;
          if (!atomic_compare_exchange_strong_explicit (&descriptor->word, &w, mine, memory_order_acq_rel,
                                                        memory_order_relaxed))
            continue;
          FERRY_STEP ("trim-claimed");
          reserved = MIN (reserved, ferry_arena_class_size (klass));
          atomic_store_explicit (&descriptor->committed, 0, memory_order_release);
          FERRY_STEP ("trim-uncommitted");
          if (self->klass->decommit_pages (self->transport, FERRY_SEGMENT_AREA_DATA,
                                           self->classes[klass].data_offset + index * ferry_arena_class_size (klass),
                                           reserved, NULL))
            {
              FERRY_STEP ("trim-punched");
              atomic_store_explicit (&descriptor->reserved, 0, memory_order_release);
              FERRY_STEP ("trim-zeroed");
              guint64 sum = atomic_load_explicit (&self->shared->bytes_committed, memory_order_relaxed);
              atomic_store_explicit (&self->shared->bytes_committed, sum - MIN (sum, reserved), memory_order_relaxed);
              got += reserved;
            }
          /* seq_cst: before the bit is looked at (B2) */
          atomic_store_explicit (&descriptor->word, ferry_word (ferry_word_lap (mine), 0, FERRY_BLOCK_FREE),
                                 memory_order_seq_cst);
          ferry_arena_set_bit (self, klass, index);
          FERRY_STEP ("trim-freed");
        }
    }
  return got;
}

/* Private: part of a repair: bits for all free blocks, the committed sum anew. Under the lock. */
void
ferry_arena_recount (FerrySegment *self)
{
  guint64 sum = 0;

  for (guint klass = 0; klass < FERRY_N_CLASSES; klass++)
    {
      guint n_used = ferry_arena_n_used (self, klass);

      for (guint index = 0; index < n_used; index++)
        {
          FerryBlock *descriptor = &self->classes[klass].blocks[index];
          guint64 reserved = atomic_load_explicit (&descriptor->reserved, memory_order_relaxed);

          sum += MIN (reserved, ferry_arena_class_size (klass));
          if (ferry_word_state (atomic_load_explicit (&descriptor->word, memory_order_acquire)) == FERRY_BLOCK_FREE)
            ferry_arena_set_bit (self, klass, index);
        }
    }
  atomic_store_explicit (&self->shared->bytes_committed, sum, memory_order_relaxed);
}

/* Private: part of a repair: a trimmer died at work. Under the lock. */
void
ferry_arena_finish_trim (FerrySegment *self, guint32 block, guint64 word)
{
  FerryBlock *descriptor = ferry_arena_block (self, block);
  guint klass = FERRY_BLOCK_CLASS (block);

  atomic_store_explicit (&descriptor->committed, 0, memory_order_release);
  /* Who may not write the data area can't punch holes either; then the pages stay, and stay counted. */
  if (self->data_writable
      && self->klass->decommit_pages (self->transport, FERRY_SEGMENT_AREA_DATA,
                                      self->classes[klass].data_offset
                                          + FERRY_BLOCK_INDEX (block) * ferry_arena_class_size (klass),
                                      ferry_arena_class_size (klass), NULL))
    atomic_store_explicit (&descriptor->reserved, 0, memory_order_release);
  ferry_arena_set_free (self, block, word);
}
