/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ferry-store-private.h"

#include "ferry-error.h"

#include <sched.h>

/* Stretches of work, looks, locks, undo, transactions, what a process holds, and what is done about the dead: sections 3 to 5
 * of docs/store.md. */

/* How often a lock is looked at before its holder's health is. */
#define SPINS (200)
/* Then every so often, in microseconds, twice as long each time. */
#define PAUSE_MIN_US (20)
#define PAUSE_MAX_US (2000)
/* From which pause on it is asked whether the holder is alive. */
#define LIVENESS_PAUSE_US (320)
/* A look that fails so often, some 100 ms without a break, never succeeds. */
#define LOOKS_MAX (1000 * 1000)
/* Blocks of a transaction's log that are kept for the next. */
#define LOG_CHUNKS_KEPT (4)
/* A death asks for a collection, which is made at once in stores up to this size, in bytes. */
#define COLLECT_AT_ONCE (G_GUINT64_CONSTANT (64) << 20)
/* Whoever finds that it is to be made did not ask for it, so it waits for others so long, and if somebody is in the middle of a change for
 * longer, it is tried again after the pause. Microseconds. */
#define COLLECT_PATIENCE_US (100 * 1000)
#define COLLECT_PAUSE_US (G_USEC_PER_SEC)

typedef struct
{
  guint64 count;
  guint handle;
  guint16 generation;
  gboolean lost; /* nothing was left of it when a fork child came to hold it */
  gpointer binding;
} FerryHeld;

static inline gpointer
thread_mark (void)
{
  return &ferry_thread_mark;
}

static inline gboolean
busy_is_mine (FerryStore *self)
{
  return __atomic_load_n (&self->busy_thread, __ATOMIC_RELAXED) == thread_mark ();
}

static inline gboolean
in_own_transaction (FerryStore *self)
{
  return __atomic_load_n (&self->tx_thread, __ATOMIC_RELAXED) == thread_mark ();
}

static inline guint
lock_owner (guint64 lock)
{
  return (lock >> FERRY_LOCK_OWNER_SHIFT) & 0xff;
}

#define OWNER_MASK                                                                                                     \
  ((G_GUINT64_CONSTANT (0xff) << FERRY_LOCK_OWNER_SHIFT)                                                               \
   | ((guint64) FERRY_LOCK_INCARNATION_MASK << FERRY_LOCK_INCARNATION_SHIFT))

static guint64
owner_bits_of (guint id, guint32 incarnation)
{
  return (guint64) id << FERRY_LOCK_OWNER_SHIFT
         | (guint64) (incarnation & FERRY_LOCK_INCARNATION_MASK) << FERRY_LOCK_INCARNATION_SHIFT;
}

gboolean
ferry_store_set_corrupt (FerryStore *self, const char *what, GError **error)
{
  g_set_error (error, FERRY_ERROR, FERRY_ERROR_CORRUPT,
               "%s: shared memory is corrupt: %s; no correct peer writes that. Close the store in all programs and "
               "create it anew",
               self->label, what);
  return FALSE;
}

gboolean
ferry_store_set_no_object (FerryStore *self, FerryRef ref, const char *what, GError **error)
{
  if (ref != FERRY_REF_LOST)
    return ferry_store_set_corrupt (self, what, error);
  g_set_error (
      error, FERRY_ERROR, FERRY_ERROR_CLOSED,
      "%s: the object is gone: the parent of this process gave it up before the first use of the store here; get it "
      "from the store anew, or keep it in the parent until the child has used the store",
      self->label);
  return FALSE;
}

/* ---- waiting for others ---- */

typedef struct
{
  guint spins;
  gint64 pause;
  gint64 started;
} FerryPatience;

void
ferry_store_hurry (FerryStore *self, gint64 patience)
{
  self->patience = patience >= 0 ? patience + 1 : 0;
  self->patience_generation = ferry_fork_generation;
}

gint64
ferry_store_patience (FerryStore *self)
{
  if (!busy_is_mine (self) || self->patience == 0 || self->patience_generation != ferry_fork_generation)
    return FERRY_LOCK_PATIENCE;
  return self->patience - 1;
}

/* One more wait for somebody who is in our way; participant @owner, or -1: any. FALSE: for too long. */
static gboolean
wait_for (FerryStore *self, FerryPatience *patience, gint64 limit, int owner, GError **error)
{
  if (patience->spins < SPINS)
    {
      patience->spins++;
      ferry_waiter_relax ();
      return TRUE;
    }
  if (patience->started == 0)
    {
      patience->started = g_get_monotonic_time ();
      patience->pause = PAUSE_MIN_US;
    }
  if (limit >= 0 && g_get_monotonic_time () - patience->started >= limit)
    {
      g_set_error (
          error, FERRY_ERROR, FERRY_ERROR_TIMED_OUT,
          "%s: another participant has been in the middle of a change for %g s; it is in a long transaction, or "
          "stopped (SIGSTOP or a debugger): continue it or end it",
          self->label, (double) limit / G_USEC_PER_SEC);
      return FALSE;
    }
  if (patience->pause >= LIVENESS_PAUSE_US
      && (owner < 0 ? ferry_segment_repair_dead (self->segment, PAUSE_MAX_US) > 0
                    : ferry_segment_is_dead (self->segment, (guint) owner)
                          && ferry_segment_repair_dead (self->segment, PAUSE_MAX_US) > 0))
    return TRUE;
  if (patience->pause == PAUSE_MIN_US)
    sched_yield ();
  else
    g_usleep ((gulong) patience->pause);
  patience->pause = MIN (patience->pause * 2, PAUSE_MAX_US);
  return TRUE;
}

/* Whether the owner that a lock or the gate names is there. */
static gboolean
owner_takes_part (FerryStore *self, guint64 lock)
{
  guint id = lock_owner (lock);
  guint64 word;

  if (id >= ferry_segment_n_records (self->segment))
    return FALSE;
  word = atomic_load_explicit (&self->segment->records[id].word, memory_order_acquire);
  return ferry_record_state (word) != FERRY_RECORD_FREE
         && owner_bits_of (id, ferry_record_incarnation (word)) == (lock & OWNER_MASK);
}

/* A gate that nobody holds, neither alive nor dead: what is written there no correct peer wrote. Who leaves opens it first,
 * and who died has it opened before its record becomes free. */
static gboolean
open_stale_gate (FerryStore *self, guint64 gate)
{
  if (gate == 0)
    return FALSE;
  if ((gate & FERRY_LOCK_LOCKED) && owner_takes_part (self, gate)
      && ((gate & OWNER_MASK) != (self->owner_bits & OWNER_MASK)
          || atomic_load_explicit (&self->n_at_gate, memory_order_seq_cst) != 0
          || __atomic_load_n (&self->tx_gate, __ATOMIC_SEQ_CST) == gate))
    return FALSE;
  return atomic_compare_exchange_strong_explicit (&self->header->gate, &gate, 0, memory_order_seq_cst,
                                                  memory_order_relaxed);
}

/* Who dies while it replaces a single word (ferry_store_lock_fast()) leaves its lock, and nothing that says so but the lock
 * itself: its owner is no participant any more. What else it left was repaired before its record became free. */
gboolean
ferry_store_open_stale (FerryStore *self, FerryObject *object)
{
  guint64 lock = atomic_load_explicit (&object->lock, memory_order_acquire);
  guint64 gate;

  if (!(lock & FERRY_LOCK_LOCKED))
    return FALSE;
  gate = atomic_load_explicit (&self->header->gate, memory_order_seq_cst);
  /* A transaction opens its locks before it leaves the gate. */
  if (lock & FERRY_LOCK_TRANSACTION ? (gate & OWNER_MASK) == (lock & OWNER_MASK) && gate != 0
                                    : owner_takes_part (self, lock))
    return FALSE;
  FERRY_STEP ("store-stale-found");
  return atomic_compare_exchange_strong_explicit (&object->lock, &lock,
                                                  (lock & FERRY_LOCK_VERSION_MASK) + FERRY_LOCK_VERSION_ONE,
                                                  memory_order_seq_cst, memory_order_relaxed);
}

/* ---- stretches of work ---- */

static gboolean begin_joining (FerryStore *self, GError **error);
static gboolean hold_again (FerryStore *self, GError **error);
static void give_back_deferred (FerryStore *self);

/* @holding: only to take and give back references, which is no matter of transactions, only of collections. */
static inline gboolean
try_begin (FerryStore *self, gboolean holding)
{
  guint64 gate;

  if (busy_is_mine (self))
    {
      self->depth++;
      return TRUE;
    }
  if (G_UNLIKELY (atomic_load_explicit (&self->closed, memory_order_relaxed) || !ferry_store_has_joined (self)))
    return FALSE;
  /* A full fence: pairs with the exchange of the gate in take_gate(), so that either its owner sees us busy, or we see
   * the gate closed. */
  if (G_UNLIKELY (atomic_exchange_explicit (&self->me->busy, 1, memory_order_seq_cst) != 0))
    return FALSE;
  gate = atomic_load_explicit (&self->header->gate, memory_order_seq_cst);
  /* Who holds the store goes on even when somebody overwrote the gate. Another thread may have closed it since: it did so
   * while it was busy, or waits until we see it. */
  if (G_UNLIKELY (atomic_load_explicit (&self->closed, memory_order_seq_cst)
                  || (gate != 0 && !in_own_transaction (self) && !(holding && (gate & FERRY_GATE_COLLECTING) == 0))))
    {
      atomic_store_explicit (&self->me->busy, 0, memory_order_release);
      return FALSE;
    }
  __atomic_store_n (&self->busy_thread, thread_mark (), __ATOMIC_RELAXED);
  self->depth = 1;
  if (G_UNLIKELY (atomic_load_explicit (&self->n_unholds, memory_order_relaxed) > 0))
    give_back_deferred (self);
  return TRUE;
}

/**
 * ferry_store_try_begin: (skip)
 * @self: a store
 *
 * Begins a stretch of work if that can be done at once: nobody else holds the store, and no other thread of this process
 * is inside one. May be nested. Everything that makes or changes values happens in one; the functions that change a
 * single object begin their own. Who makes several values that belong together (a list and its elements) encloses that with one.
 *
 * Returns: whether it began; otherwise ferry_store_begin() waits, or tells why it can't
 *
 * Since: 1.0
 */
gboolean
ferry_store_try_begin (FerryStore *self)
{
  return try_begin (self, FALSE);
}

/* In a fork child: what its parent had under way, and was to give back, is the parent's. */
static void
forget_unfinished (FerryStore *self)
{
  GArray *const arrays[]
      = { self->tx_savepoints, self->tx_retired, self->tx_blocks,         self->tx_added,      self->tx_made,
          self->tx_dropped,    self->retired,    self->tx_dropped_blocks, self->retired_blocks };

  for (guint i = 0; i < G_N_ELEMENTS (arrays); i++)
    g_array_set_size (arrays[i], 0);
  /* What is to be given back has not been taken here: it is not counted a second time. */
  for (guint i = 0; i < self->unholds->len; i++)
    {
      FerryRef ref = g_array_index (self->unholds, FerryRef, i);
      FerryHeld *held = g_hash_table_lookup (self->held, GSIZE_TO_POINTER (ref));

      if (held != NULL && --held->count == 0)
        g_hash_table_remove (self->held, GSIZE_TO_POINTER (ref));
    }
  g_array_set_size (self->unholds, 0);
  atomic_store_explicit (&self->n_unholds, 0, memory_order_relaxed);
}

/* In a fork child: a slot of its own, with which it may repair others, and holds nothing yet. */
static gboolean
enter_again (FerryStore *self, GError **error)
{
  gboolean ok;

  g_mutex_init (&self->unhold_mutex);
  __atomic_store_n (&self->busy_thread, NULL, __ATOMIC_RELAXED);
  self->depth = 0;
  __atomic_store_n (&self->tx_thread, NULL, __ATOMIC_RELAXED);
  self->tx_gate = 0;
  self->tx_depth = 0;
  atomic_store_explicit (&self->n_at_gate, 0, memory_order_relaxed);
  forget_unfinished (self);
  if (self->segment->klass->forked != NULL)
    self->segment->klass->forked (self->transport);
  /* As in a process that opens it: repairs nobody as long as it can't repair what is in the store. */
  self->segment->store = NULL;
  ok = ferry_segment_refork (self->segment, error) && ferry_store_enter_slot (self, error);
  if (ok)
    atomic_store_explicit (&self->slot_generation, ferry_fork_generation, memory_order_release);
  self->segment->store = self;
  return ok;
}

/* In a fork child, at its first use: a participant of its own. */
static gboolean
refork (FerryStore *self, GError **error)
{
  static GMutex mutex;
  gboolean ok = TRUE;

  g_mutex_lock (&mutex);
  if (!ferry_store_has_joined (self))
    {
      /* not again when it was a collection that took too long */
      if (atomic_load_explicit (&self->slot_generation, memory_order_acquire) != ferry_fork_generation)
        ok = enter_again (self, error);
      ok = ok && begin_joining (self, error);
      if (ok)
        {
          /* Other threads find us busy until the child holds what it should. What can't be held is lost, for good. */
          atomic_store_explicit (&self->fork_generation, ferry_fork_generation, memory_order_release);
          ok = hold_again (self, error);
          ferry_store_end (self);
        }
      if (ok)
        ferry_segment_repair_dead (self->segment, G_USEC_PER_SEC);
    }
  g_mutex_unlock (&mutex);
  return ok;
}

static gboolean
begin_slowly (FerryStore *self, gboolean holding, gint64 timeout, GError **error)
{
  FerryPatience patience = { 0 };
  gint64 idle_since = 0;

  while (!try_begin (self, holding))
    {
      guint64 gate;

      if (self->closed)
        {
          g_set_error (error, FERRY_ERROR, FERRY_ERROR_CLOSED, "%s is closed; open it anew", self->label);
          return FALSE;
        }
      if (!ferry_store_has_joined (self))
        {
          if (!refork (self, error))
            return FALSE;
          continue;
        }
      gate = atomic_load_explicit (&self->header->gate, memory_order_seq_cst);
      if (patience.pause >= LIVENESS_PAUSE_US && open_stale_gate (self, gate))
        continue;
      /* busy, and none of our threads is: somebody else wrote that */
      if (patience.pause < LIVENESS_PAUSE_US || __atomic_load_n (&self->busy_thread, __ATOMIC_RELAXED) != NULL
          || atomic_load_explicit (&self->me->busy, memory_order_relaxed) == 0)
        idle_since = 0;
      else if (idle_since == 0)
        idle_since = g_get_monotonic_time ();
      else if (g_get_monotonic_time () - idle_since > FERRY_LOCK_PATIENCE / 2)
        {
          idle_since = 0;
          atomic_store_explicit (&self->me->busy, 0, memory_order_seq_cst);
          continue;
        }
      if (gate != 0 && patience.pause >= LIVENESS_PAUSE_US && !ferry_segment_is_dead (self->segment, lock_owner (gate)))
        {
          /* a transaction that takes its time */
          atomic_fetch_add_explicit (&self->header->gate_waiters, 1, memory_order_seq_cst);
          if (atomic_load_explicit (&self->header->gate, memory_order_seq_cst) == gate)
            self->segment->klass->wait_word (self->transport, (guint32 *) (void *) &self->header->gate, (guint32) gate,
                                             50 * PAUSE_MAX_US);
          atomic_fetch_sub_explicit (&self->header->gate_waiters, 1, memory_order_seq_cst);
        }
      if (!wait_for (self, &patience, timeout, gate != 0 ? (int) lock_owner (gate) : -1, error))
        return FALSE;
    }
  return TRUE;
}

/**
 * ferry_store_begin_within: (skip)
 * @self: a store
 * @timeout: how long to wait, in microseconds; negative: as long as it takes
 * @error: return location for an error
 *
 * Begins a stretch of work as ferry_store_try_begin(), and waits for others.
 *
 * Errors: %FERRY_ERROR_TIMED_OUT, %FERRY_ERROR_CLOSED; in a fork child whatever joining may fail with.
 *
 * Returns: %TRUE on success
 *
 * Since: 1.0
 */
gboolean
ferry_store_begin_within (FerryStore *self, gint64 timeout, GError **error)
{
  return begin_slowly (self, FALSE, timeout, error);
}

gboolean
ferry_store_begin_holding (FerryStore *self, GError **error)
{
  return try_begin (self, TRUE) || begin_slowly (self, TRUE, FERRY_LOCK_PATIENCE, error);
}

/**
 * ferry_store_begin: (skip)
 * @self: a store
 * @error: return location for an error
 *
 * Begins a stretch of work as ferry_store_try_begin(), and waits for others as long as it takes.
 *
 * Errors: %FERRY_ERROR_CLOSED; in a fork child whatever joining may fail with.
 *
 * Returns: %TRUE on success
 *
 * Since: 1.0
 */
gboolean
ferry_store_begin (FerryStore *self, GError **error)
{
  return ferry_store_begin_within (self, -1, error);
}

/* A collection that is wanted is made by the next stretch of work. */
gboolean
ferry_store_end_briefly (FerryStore *self)
{
  if (--self->depth > 0)
    return FALSE;
  __atomic_store_n (&self->busy_thread, NULL, __ATOMIC_RELAXED);
  atomic_store_explicit (&self->me->busy, 0, memory_order_release);
  return TRUE;
}

static G_GNUC_NO_INLINE void
collect_by_itself (FerryStore *self)
{
  if (g_get_monotonic_time () < self->collect_after)
    return;
  self->collect_wanted = FALSE;
  if (ferry_store_heap_bytes_used (self) > COLLECT_AT_ONCE
      || ferry_store_collect_heap (self, COLLECT_PATIENCE_US, NULL))
    return;
  self->collect_after = g_get_monotonic_time () + COLLECT_PAUSE_US;
  self->collect_wanted = TRUE;
}

/**
 * ferry_store_end: (skip)
 * @self: a store
 *
 * Ends what ferry_store_begin() or ferry_store_try_begin() began.
 *
 * Since: 1.0
 */
void
ferry_store_end (FerryStore *self)
{
  if (ferry_store_end_briefly (self) && G_UNLIKELY (atomic_load_explicit (&self->collect_wanted, memory_order_relaxed))
      && self->tx_gate == 0)
    collect_by_itself (self);
}

/* ---- looks ---- */

gboolean
ferry_store_look_wait (FerryLook *look, GError **error)
{
  FerryStore *self = look->store;
  FerryPatience patience = { 0 };

  if (look->tries > 0)
    ferry_waiter_relax ();
  if (G_UNLIKELY (look->tries > LOOKS_MAX))
    return ferry_store_set_corrupt (self, "an object is never found in one state", error);
  for (;;)
    {
      guint64 lock = atomic_load_explicit (&look->object->lock, memory_order_acquire);
      guint64 gate;
      guint64 state;

      look->lock = lock;
      look->old = FALSE;
      if (!(lock & FERRY_LOCK_LOCKED))
        return TRUE;
      if (lock & FERRY_LOCK_TRANSACTION)
        {
          gate = atomic_load_explicit (&self->header->gate, memory_order_acquire);
          if (gate != 0 && gate == self->tx_gate && in_own_transaction (self))
            return TRUE;
          state = atomic_load_explicit (&self->header->tx_state, memory_order_acquire);
          if (gate != 0 && (gate & OWNER_MASK) == (lock & OWNER_MASK) && state == FERRY_TX_ACTIVE)
            {
              look->gate = gate;
              look->old = TRUE;
              return TRUE;
            }
          /* It changes nothing more. */
          if (state == FERRY_TX_COMMITTED)
            return TRUE;
        }
      if (patience.pause >= LIVENESS_PAUSE_US && ferry_store_open_stale (self, look->object))
        continue;
      if (!wait_for (self, &patience, ferry_store_patience (self), (int) lock_owner (lock), error))
        return FALSE;
    }
}

gboolean
ferry_store_read_end_slow (FerryLook *look)
{
  FerryStore *self = look->store;

  if (atomic_load_explicit (&look->object->lock, memory_order_relaxed) == look->lock
      && (!look->old
          || (atomic_load_explicit (&self->header->tx_state, memory_order_relaxed) == FERRY_TX_ACTIVE
              && atomic_load_explicit (&self->header->gate, memory_order_relaxed) == look->gate)))
    return TRUE;
  look->tries++;
  return FALSE;
}

static FerryUndo *
log_entry (FerryStore *self, guint64 i)
{
  guint64 first = 0;

  for (guint c = 0; c < FERRY_TX_CHUNKS; c++)
    {
      guint64 n = (guint64) FERRY_TX_FIRST_CHUNK << c;
      guint64 chunk;

      if (i - first < n)
        {
          chunk = atomic_load_explicit (&self->header->tx_chunks[c], memory_order_acquire);
          if (chunk % sizeof (guint64) != 0 || !ferry_store_in_heap (self, chunk, n * sizeof (FerryUndo)))
            return NULL;
          return (FerryUndo *) ferry_store_at (self, chunk) + (i - first);
        }
      first += n;
    }
  return NULL;
}

/* How many entries the log has; no more than its chunks have room for. */
static guint64
log_length (FerryStore *self)
{
  guint64 n = atomic_load_explicit (&self->header->tx_entries, memory_order_acquire);
  guint64 first = 0;

  for (guint c = 0; c < FERRY_TX_CHUNKS && first < n; c++)
    {
      if (log_entry (self, first) == NULL)
        return first;
      first += (guint64) FERRY_TX_FIRST_CHUNK << c;
    }
  return MIN (n, first);
}

/* What the word was before the transaction that is under way; @now: what it is. */
guint64
ferry_store_old_value (FerryLook *look, _Atomic guint64 *word, guint64 now)
{
  FerryStore *self = look->store;
  guint64 offset = (guint64) ((guint8 *) word - self->base);
  /* pairs with the release store in append_log() */
  guint64 n = atomic_load_explicit (&self->header->tx_entries, memory_order_acquire);
  guint64 first = 0;

  for (guint c = 0; c < FERRY_TX_CHUNKS && first < n; c++)
    {
      guint64 size = (guint64) FERRY_TX_FIRST_CHUNK << c;
      FerryUndo *entry = log_entry (self, first);

      if (entry == NULL)
        break;
      for (guint64 i = 0; i < MIN (size, n - first); i++)
        if (atomic_load_explicit (&entry[i].offset, memory_order_relaxed) == offset)
          return atomic_load_explicit (&entry[i].old, memory_order_relaxed);
      first += size;
    }
  return now;
}

/* ---- the log of a transaction ---- */

static gboolean
append_log (FerryStore *self, guint64 offset, guint64 old, GError **error)
{
  FerryStoreHeader *header = self->header;
  guint64 n = atomic_load_explicit (&header->tx_entries, memory_order_relaxed);
  guint64 first = 0;
  guint c = 0;
  FerryUndo *entry;

  while (c < FERRY_TX_CHUNKS && n - first >= (guint64) FERRY_TX_FIRST_CHUNK << c)
    first += (guint64) FERRY_TX_FIRST_CHUNK << c++;
  if (c < FERRY_TX_CHUNKS && n == first && atomic_load_explicit (&header->tx_chunks[c], memory_order_relaxed) == 0)
    {
      guint64 block = ferry_store_heap_alloc (self, ((gsize) FERRY_TX_FIRST_CHUNK << c) * sizeof (FerryUndo), error);

      if (block == 0)
        return FALSE;
      atomic_store_explicit (&header->tx_chunks[c], block, memory_order_release);
    }
  entry = log_entry (self, n);
  if (entry == NULL)
    return ferry_store_set_corrupt (self, "the log of a transaction lies outside of the heap", error);
  atomic_store_explicit (&entry->offset, offset, memory_order_relaxed);
  atomic_store_explicit (&entry->old, old, memory_order_relaxed);
  FERRY_STEP ("store-log-written");
  atomic_store_explicit (&header->tx_entries, n + 1, memory_order_release);
  FERRY_STEP ("store-log-counted");
  return TRUE;
}

static _Atomic guint64 *
undo_word (FerryStore *self, guint64 offset)
{
  if (offset % sizeof (guint64) != 0 || !ferry_store_in_heap (self, offset, sizeof (guint64)))
    return NULL;
  return ferry_store_at (self, offset);
}

/* Plays the log back to @mark; locks stay. */
static void
play_back (FerryStore *self, guint64 mark)
{
  for (guint64 i = log_length (self); i > mark; i--)
    {
      FerryUndo *entry = log_entry (self, i - 1);
      guint64 offset;
      _Atomic guint64 *word;

      if (entry == NULL)
        continue;
      offset = atomic_load_explicit (&entry->offset, memory_order_relaxed);
      word = offset & 1 ? NULL : undo_word (self, offset);
      if (word != NULL)
        atomic_store_explicit (word, atomic_load_explicit (&entry->old, memory_order_relaxed), memory_order_release);
      FERRY_STEP ("store-undo");
    }
}

static void
unlock_word (FerryObject *object, guint64 lock)
{
  /* pairs with the acquire load in ferry_store_read_begin() */
  atomic_store_explicit (&object->lock, (lock & FERRY_LOCK_VERSION_MASK) + FERRY_LOCK_VERSION_ONE,
                         memory_order_release);
}

/* Opens all locks that the log names and that @owner has. */
static void
unlock_logged (FerryStore *self, guint64 owner)
{
  guint64 n = log_length (self);

  for (guint64 i = 0; i < n; i++)
    {
      FerryUndo *entry = log_entry (self, i);
      guint64 offset = entry != NULL ? atomic_load_explicit (&entry->offset, memory_order_relaxed) : 0;
      FerryObject *object = offset & 1 ? ferry_store_object (self, offset & ~G_GUINT64_CONSTANT (1)) : NULL;
      guint64 lock;

      if (object == NULL)
        continue;
      lock = atomic_load_explicit (&object->lock, memory_order_acquire);
      if ((lock & FERRY_LOCK_LOCKED) && (lock & FERRY_LOCK_TRANSACTION) && (lock & OWNER_MASK) == owner)
        unlock_word (object, lock);
      FERRY_STEP ("store-unlocked");
    }
}

/* ---- changing an object ---- */

static GArray *
transaction_array (FerryStore *self, guint i)
{
  GArray *arrays[4] = { self->tx_retired, self->tx_blocks, self->tx_added, self->tx_made };

  return arrays[i];
}

static void
take_marks (FerryStore *self, guint marks[4])
{
  for (guint i = 0; i < 4; i++)
    marks[i] = transaction_array (self, i)->len;
}

FerryObject *
ferry_store_lock_object (FerryStore *self, FerryRef ref, FerryObjectKind kind, GError **error)
{
  FerryObject *object;
  FerryPatience patience = { 0 };
  guint64 mine = self->owner_bits | FERRY_LOCK_LOCKED;
  guint64 lock;

  if (G_UNLIKELY (!ferry_store_try_begin (self)) && !ferry_store_begin (self, error))
    return NULL;
  object = ferry_store_object (self, ref);
  if (G_UNLIKELY (object == NULL))
    {
      ferry_store_set_no_object (self, ref, "a reference leads to no object", error);
      ferry_store_end (self);
      return NULL;
    }
  self->op_taken = TRUE;
  if (G_UNLIKELY (self->tx_depth > 0))
    {
      self->op_mark = atomic_load_explicit (&self->header->tx_entries, memory_order_relaxed);
      take_marks (self, self->op_marks);
      mine |= FERRY_LOCK_TRANSACTION;
      lock = atomic_load_explicit (&object->lock, memory_order_relaxed);
      if ((lock & (OWNER_MASK | FERRY_LOCK_LOCKED | FERRY_LOCK_TRANSACTION)) == mine)
        self->op_taken = FALSE;
      else if (!append_log (self, ref | 1, 0, error))
        {
          ferry_store_end (self);
          return NULL;
        }
    }
  else
    {
      atomic_store_explicit (&self->me->op_object, ref, memory_order_release);
      FERRY_STEP ("store-named");
    }
  while (self->op_taken)
    {
      lock = atomic_load_explicit (&object->lock, memory_order_relaxed);
      if (G_LIKELY (!(lock & FERRY_LOCK_LOCKED)))
        {
          if (atomic_compare_exchange_weak_explicit (&object->lock, &lock, (lock & FERRY_LOCK_VERSION_MASK) | mine,
                                                     memory_order_seq_cst, memory_order_relaxed))
            break;
          continue;
        }
      if (patience.pause >= LIVENESS_PAUSE_US && ferry_store_open_stale (self, object))
        continue;
      if (!wait_for (self, &patience, ferry_store_patience (self), (int) lock_owner (lock), error))
        {
          atomic_store_explicit (&self->me->op_object, 0, memory_order_relaxed);
          ferry_store_end (self);
          return NULL;
        }
    }
  FERRY_STEP ("store-locked");
  if (G_UNLIKELY (ferry_object_kind (object) != kind && kind != FERRY_OBJECT_FREE))
    {
      ferry_store_unlock_object (self, object, FALSE);
      ferry_store_set_corrupt (self, "a reference leads to an object of another kind", error);
      return NULL;
    }
  return object;
}

/* Cells and blocks that nothing refers to any more. */
G_GNUC_NO_INLINE static void
release_all (FerryStore *self, GArray *cells, GArray *blocks)
{
  for (guint i = 0; i < cells->len; i++)
    ferry_store_release_cell (self, g_array_index (cells, FerryCell, i));
  g_array_set_size (cells, 0);
  for (guint i = 0; i < blocks->len; i++)
    ferry_store_heap_free (self, g_array_index (blocks, guint64, i));
  g_array_set_size (blocks, 0);
}

G_GNUC_NO_INLINE void
ferry_store_tell_watchers (FerryStore *self)
{
  ferry_waiter_wake_all (self->segment, FERRY_SIDE_RX);
}

void
ferry_store_unlock_object (FerryStore *self, FerryObject *object, gboolean changed)
{
  guint64 lock;

  if (G_UNLIKELY (self->tx_depth > 0))
    {
      /* stays locked until the transaction ends */
      ferry_store_end (self);
      return;
    }
  lock = atomic_load_explicit (&object->lock, memory_order_relaxed);
  atomic_store_explicit (&self->me->n_undo, 0, memory_order_release);
  FERRY_STEP ("store-done");
  if (changed)
    unlock_word (object, lock);
  else
    atomic_store_explicit (&object->lock, lock & FERRY_LOCK_VERSION_MASK, memory_order_release);
  FERRY_STEP ("store-unlocked");
  atomic_store_explicit (&self->me->op_object, 0, memory_order_relaxed);
  if (changed)
    ferry_store_count_change (self);
  if (G_UNLIKELY (self->retired->len + self->retired_blocks->len > 0))
    release_all (self, self->retired, self->retired_blocks);
  ferry_store_end (self);
}

static void
roll_back_to (FerryStore *self, guint64 entries, const guint marks[4])
{
  play_back (self, entries);
  g_array_set_size (self->tx_retired, marks[0]);
  g_array_set_size (self->tx_blocks, marks[1]);
  /* Entries of the log stay: played back once more they give the same, and readers go on finding the oldest note of each
   * word. So what they name must not become anything else before the end. */
  g_array_append_vals (self->tx_dropped, &g_array_index (self->tx_added, FerryCell, marks[2]),
                       self->tx_added->len - marks[2]);
  g_array_set_size (self->tx_added, marks[2]);
  g_array_append_vals (self->tx_dropped_blocks, &g_array_index (self->tx_made, guint64, marks[3]),
                       self->tx_made->len - marks[3]);
  g_array_set_size (self->tx_made, marks[3]);
}

void
ferry_store_abandon_object (FerryStore *self, FerryObject *object)
{
  FerryStoreSlot *me = self->me;

  if (self->tx_depth > 0)
    {
      /* cells that the operation noted as added are still the caller's */
      g_array_set_size (self->tx_added, self->op_marks[2]);
      roll_back_to (self, self->op_mark, self->op_marks);
      ferry_store_end (self);
      return;
    }
  for (guint i = MIN (atomic_load_explicit (&me->n_undo, memory_order_relaxed), FERRY_STORE_UNDO_MAX); i > 0; i--)
    {
      _Atomic guint64 *word = undo_word (self, atomic_load_explicit (&me->undo[i - 1].offset, memory_order_relaxed));

      if (word != NULL)
        atomic_store_explicit (word, atomic_load_explicit (&me->undo[i - 1].old, memory_order_relaxed),
                               memory_order_release);
    }
  g_array_set_size (self->retired, 0);
  g_array_set_size (self->retired_blocks, 0);
  ferry_store_unlock_object (self, object, TRUE);
}

gboolean
ferry_store_put_in_transaction (FerryStore *self, _Atomic guint64 *word, guint64 value, GError **error)
{
  if (!append_log (self, (guint64) ((guint8 *) word - self->base), atomic_load_explicit (word, memory_order_relaxed),
                   error))
    return FALSE;
  atomic_store_explicit (word, value, memory_order_release);
  FERRY_STEP ("store-put");
  return TRUE;
}

gboolean
ferry_store_put (FerryStore *self, _Atomic guint64 *word, guint64 value, GError **error)
{
  FerryStoreSlot *me = self->me;
  guint n;

  if (G_UNLIKELY (self->tx_depth > 0))
    return ferry_store_put_in_transaction (self, word, value, error);
  n = atomic_load_explicit (&me->n_undo, memory_order_relaxed);
  if (G_UNLIKELY (n >= FERRY_STORE_UNDO_MAX))
    return ferry_store_set_corrupt (self, "an operation changes more words than its log has room for", error);
  atomic_store_explicit (&me->undo[n].offset, (guint64) ((guint8 *) word - self->base), memory_order_relaxed);
  atomic_store_explicit (&me->undo[n].old, atomic_load_explicit (word, memory_order_relaxed), memory_order_relaxed);
  atomic_store_explicit (&me->n_undo, n + 1, memory_order_release);
  FERRY_STEP ("store-noted");
  atomic_store_explicit (word, value, memory_order_release);
  FERRY_STEP ("store-put");
  return TRUE;
}

void
ferry_store_retire (FerryStore *self, FerryCell cell)
{
  if (ferry_cell_owns (cell))
    g_array_append_val (self->tx_depth > 0 ? self->tx_retired : self->retired, cell);
}

void
ferry_store_retire_block (FerryStore *self, guint64 block)
{
  if (block != 0)
    g_array_append_val (self->tx_depth > 0 ? self->tx_blocks : self->retired_blocks, block);
}

void
ferry_store_note_added (FerryStore *self, FerryCell cell)
{
  if (G_UNLIKELY (self->tx_depth > 0) && ferry_cell_owns (cell))
    g_array_append_val (self->tx_added, cell);
}

void
ferry_store_note_made (FerryStore *self, guint64 block)
{
  if (G_UNLIKELY (self->tx_depth > 0))
    g_array_append_val (self->tx_made, block);
}

/* ---- counting references ---- */

void
ferry_store_count_up (FerryObject *object)
{
  atomic_fetch_add_explicit (&object->count, 1, memory_order_relaxed);
}

/* Unless nobody refers to it any more. */
static gboolean
count_up_if_alive (FerryObject *object)
{
  guint32 count = atomic_load_explicit (&object->count, memory_order_relaxed);

  do
    if (count == 0 || count == G_MAXUINT32)
      return FALSE;
  while (!atomic_compare_exchange_weak_explicit (&object->count, &count, count + 1, memory_order_acquire,
                                                 memory_order_relaxed));
  return TRUE;
}

FerryRef
ferry_store_new_object (FerryStore *self, FerryObjectKind kind, GError **error)
{
  FerryRef ref = ferry_store_heap_alloc_object (self, error);
  FerryObject *object = ref != 0 ? ferry_store_object (self, ref) : NULL;

  if (object == NULL)
    return 0;
  object->flags = 0;
  atomic_store_explicit (&object->body, 0, memory_order_relaxed);
  atomic_store_explicit (&object->size, 0, memory_order_relaxed);
  atomic_store_explicit (&object->used, 0, memory_order_relaxed);
  atomic_store_explicit (&object->shape, FERRY_CELL_EMPTY, memory_order_relaxed);
  atomic_store_explicit (&object->extra, FERRY_CELL_EMPTY, memory_order_relaxed);
  atomic_store_explicit (&object->kind, (guint8) kind, memory_order_relaxed);
  atomic_store_explicit (&object->count, 1, memory_order_release);
  return ref;
}

void
ferry_store_visit (FerryStore *self, FerryObject *object, FerryCellFunc cell_func, FerryBlockFunc block_func,
                   gpointer data)
{
  switch (ferry_object_kind (object))
    {
    case FERRY_OBJECT_SLOT:
      cell_func (self, atomic_load_explicit (&object->body, memory_order_relaxed), data);
      cell_func (self, atomic_load_explicit (&object->shape, memory_order_relaxed), data);
      break;
    case FERRY_OBJECT_LIST:
      ferry_store_list_visit (self, object, cell_func, block_func, data);
      break;
    case FERRY_OBJECT_DICT:
    case FERRY_OBJECT_SET:
      ferry_store_dict_visit (self, object, cell_func, block_func, data);
      break;
    case FERRY_OBJECT_RECORD:
      ferry_store_record_visit (self, object, cell_func, block_func, data);
      break;
    case FERRY_OBJECT_SHAPE:
      cell_func (self, atomic_load_explicit (&object->shape, memory_order_relaxed), data);
      break;
    case FERRY_OBJECT_BYTEARRAY:
    case FERRY_OBJECT_ARRAY:
      cell_func (self, atomic_load_explicit (&object->shape, memory_order_relaxed), data);
      if (atomic_load_explicit (&object->body, memory_order_relaxed) != 0)
        block_func (self, atomic_load_explicit (&object->body, memory_order_relaxed), data);
      break;
    case FERRY_OBJECT_FREE:
    default:
      break;
    }
}

/* ---- releasing ---- */

typedef struct
{
  GArray *queue; /* of FerryRef: objects that nobody refers to any more */
} FerryRelease;

static void
count_down (FerryStore *self, FerryRef ref, FerryRelease *release)
{
  FerryObject *object = ferry_store_object (self, ref);
  guint32 count;

  if (object == NULL)
    return;
  count = atomic_load_explicit (&object->count, memory_order_relaxed);
  do
    if (count == 0)
      return;
  while (!atomic_compare_exchange_weak_explicit (&object->count, &count, count - 1, memory_order_acq_rel,
                                                 memory_order_relaxed));
  if (count == 1)
    {
      if (release->queue == NULL)
        release->queue = g_array_new (FALSE, FALSE, sizeof (FerryRef));
      g_array_append_val (release->queue, ref);
    }
}

static void
release_cell_cb (FerryStore *self, FerryCell cell, gpointer data)
{
  FerryRelease *release = data;

  switch (ferry_cell_tag (cell))
    {
    case FERRY_CELL_OBJECT:
      count_down (self, ferry_cell_payload (cell), release);
      break;
    case FERRY_CELL_LEAF:
      {
        guint64 offset = ferry_cell_payload (cell);
        gsize room = ferry_store_heap_block_size (self, offset);
        FerryLeaf *leaf = room >= sizeof (FerryLeaf) ? ferry_store_at (self, offset) : NULL;
        guint n_refs = leaf != NULL ? leaf->n_refs : 0;

        if (leaf == NULL)
          break;
        if (sizeof (FerryLeaf) + n_refs * sizeof (FerryRef) <= room)
          for (guint i = 0; i < n_refs; i++)
            {
              FerryRef ref;

              memcpy (&ref, leaf->data + i * sizeof ref, sizeof ref);
              count_down (self, ref, release);
            }
        ferry_store_heap_free (self, offset);
        break;
      }
    case FERRY_CELL_CONSTANT:
    case FERRY_CELL_INT:
    case FERRY_CELL_STR:
    case FERRY_CELL_BYTES:
    case FERRY_CELL_FLOAT:
    default:
      break;
    }
}

static void
release_block_cb (FerryStore *self, guint64 block, gpointer data)
{
  ferry_store_heap_free (self, block);
}

/* Frees the objects that are queued, and what only they referred to. */
static void
release_run (FerryStore *self, FerryRelease *release)
{
  if (release->queue == NULL)
    return;
  while (release->queue->len > 0)
    {
      FerryRef ref = g_array_index (release->queue, FerryRef, release->queue->len - 1);
      FerryObject *object = ferry_store_object (self, ref);
      guint64 lock;

      g_array_set_size (release->queue, release->queue->len - 1);
      if (object == NULL)
        continue;
      /* Who still looks at it, by a reference that is no more, shall notice. */
      lock = atomic_load_explicit (&object->lock, memory_order_relaxed);
      atomic_store_explicit (&object->lock, (lock & FERRY_LOCK_VERSION_MASK) + FERRY_LOCK_VERSION_ONE,
                             memory_order_seq_cst);
      ferry_store_visit (self, object, release_cell_cb, release_block_cb, release);
      atomic_fetch_add_explicit (&object->generation, 1, memory_order_relaxed);
      atomic_store_explicit (&object->kind, FERRY_OBJECT_FREE, memory_order_release);
      ferry_store_heap_free_object (self, ref);
    }
  g_array_unref (release->queue);
  release->queue = NULL;
}

/**
 * ferry_store_release_cell: (skip)
 * @self: a store
 * @cell: a cell that is not stored anywhere (any more)
 *
 * Frees the leaf that it owns, or gives up its reference. Inside a stretch of work.
 *
 * Since: 1.0
 */
void
ferry_store_release_cell (FerryStore *self, FerryCell cell)
{
  FerryRelease release = { 0 };

  if (!ferry_cell_owns (cell))
    return;
  if (G_UNLIKELY (self->tx_depth > 0))
    {
      /* its log may name words of it */
      g_array_append_val (self->tx_dropped, cell);
      return;
    }
  release_cell_cb (self, cell, &release);
  if (G_UNLIKELY (release.queue != NULL))
    release_run (self, &release);
}

/**
 * ferry_store_new_reference: (skip)
 * @self: a store
 * @ref: an object that the caller holds
 *
 * Counts one more reference to an object.
 *
 * Returns: a cell that refers to it, to be stored once or released
 *
 * Since: 1.0
 */
FerryCell
ferry_store_new_reference (FerryStore *self, FerryRef ref)
{
  FerryObject *object = ferry_store_object (self, ref);

  /* the heap ends before it, as somebody wrote that should not */
  if (G_UNLIKELY (object == NULL))
    return FERRY_CELL_NONE;
  ferry_store_count_up (object);
  return FERRY_CELL (FERRY_CELL_OBJECT, ref);
}

/* ---- what this process holds ---- */

static void
handle_place (guint index, guint *chunk, guint *place)
{
  guint first = 0;
  guint c = 0;

  while (index - first >= (guint) FERRY_STORE_FIRST_CHUNK << c)
    first += (guint) FERRY_STORE_FIRST_CHUNK << c++;
  *chunk = c;
  *place = index - first;
}

static _Atomic guint64 *
handle_word (FerryStore *self, guint index, GError **error)
{
  guint chunk;
  guint place;
  guint64 block;
  gsize size;

  handle_place (index, &chunk, &place);
  if (chunk >= FERRY_STORE_HANDLE_CHUNKS)
    {
      g_set_error (error, FERRY_ERROR, FERRY_ERROR_TOO_MANY, "%s: this process holds too many objects", self->label);
      return NULL;
    }
  size = ((gsize) FERRY_STORE_FIRST_CHUNK << chunk) * sizeof (guint64);
  block = atomic_load_explicit (&self->me->handle_chunks[chunk], memory_order_relaxed);
  if (block == 0)
    {
      block = ferry_store_heap_alloc (self, size, error);
      if (block == 0)
        return NULL;
      memset (ferry_store_at (self, block), 0, size);
      atomic_store_explicit (&self->me->handle_chunks[chunk], block, memory_order_release);
    }
  else if (G_UNLIKELY (block % sizeof (guint64) != 0 || !ferry_store_in_heap (self, block, size)))
    {
      ferry_store_set_corrupt (self, "the table of what this process holds lies outside of the heap", error);
      return NULL;
    }
  return (_Atomic guint64 *) ferry_store_at (self, block) + place;
}

static gboolean
new_handle (FerryStore *self, FerryRef ref, guint *index, GError **error)
{
  _Atomic guint64 *word;
  gboolean reused = self->free_handles->len > 0;

  *index = reused ? g_array_index (self->free_handles, guint, self->free_handles->len - 1) : self->n_handles;
  word = handle_word (self, *index, error);
  if (word == NULL)
    return FALSE;
  if (reused)
    g_array_set_size (self->free_handles, self->free_handles->len - 1);
  else
    self->n_handles++;
  FERRY_STEP ("store-hold-counted");
  atomic_store_explicit (word, ref, memory_order_release);
  return TRUE;
}

int
ferry_store_hold_alive (FerryStore *self, FerryRef ref, GError **error)
{
  FerryHeld *held = g_hash_table_lookup (self->held, GSIZE_TO_POINTER (ref));
  FerryObject *object;
  guint handle;

  if (G_LIKELY (held != NULL && !held->lost))
    {
      held->count++;
      return 1;
    }
  object = ferry_store_heap_is_object (self, ref) ? ferry_store_object (self, ref) : NULL;
  if (object == NULL || !count_up_if_alive (object))
    return 0;
  if (!new_handle (self, ref, &handle, error))
    {
      ferry_store_release_cell (self, FERRY_CELL (FERRY_CELL_OBJECT, ref));
      return -1;
    }
  if (held == NULL)
    {
      held = g_new0 (FerryHeld, 1);
      g_hash_table_insert (self->held, GSIZE_TO_POINTER (ref), held);
    }
  /* else another one has the place of an object that was lost */
  held->lost = FALSE;
  held->count++;
  held->handle = handle;
  held->generation = atomic_load_explicit (&object->generation, memory_order_relaxed);
  return 1;
}

gboolean
ferry_store_hold_known (FerryStore *self, FerryRef ref, guint16 generation)
{
  FerryHeld *held;
  gboolean known = FALSE;

  if (!ferry_store_begin_holding (self, NULL))
    return FALSE;
  held = g_hash_table_lookup (self->held, GSIZE_TO_POINTER (ref));
  if (held != NULL && held->generation == generation)
    known = ferry_store_hold_alive (self, ref, NULL) > 0;
  ferry_store_end (self);
  return known;
}

/**
 * ferry_store_hold: (skip)
 * @self: a store
 * @ref: an object that is known to be alive: a cell of the caller's refers to it, or it is held already
 * @error: return location for an error
 *
 * Keeps the object alive until as many calls of ferry_store_unhold(), or until this process ends in whatever way.
 *
 * Returns: %TRUE on success
 *
 * Since: 1.0
 */
gboolean
ferry_store_hold (FerryStore *self, FerryRef ref, GError **error)
{
  int result;

  if (!ferry_store_begin_holding (self, error))
    return FALSE;
  result = ferry_store_hold_alive (self, ref, error);
  ferry_store_end (self);
  if (result == 0)
    ferry_store_set_no_object (self, ref, "a reference leads to an object that is gone", error);
  return result > 0;
}

static void
unhold (FerryStore *self, FerryRef ref)
{
  FerryHeld *held = g_hash_table_lookup (self->held, GSIZE_TO_POINTER (ref));
  _Atomic guint64 *word;

  if (held == NULL || --held->count > 0)
    return;
  if (!held->lost)
    {
      word = handle_word (self, held->handle, NULL);
      if (word != NULL)
        atomic_store_explicit (word, 0, memory_order_release);
      FERRY_STEP ("store-unhold-cleared");
      g_array_append_val (self->free_handles, held->handle);
    }
  if (!held->lost)
    ferry_store_release_cell (self, FERRY_CELL (FERRY_CELL_OBJECT, ref));
  g_hash_table_remove (self->held, GSIZE_TO_POINTER (ref));
}

/* Under a stretch of work that just began. */
static void
give_back_deferred (FerryStore *self)
{
  g_autoptr (GArray) refs = NULL;

  g_mutex_lock (&self->unhold_mutex);
  refs = self->unholds;
  self->unholds = g_array_new (FALSE, FALSE, sizeof (FerryRef));
  atomic_store_explicit (&self->n_unholds, 0, memory_order_relaxed);
  g_mutex_unlock (&self->unhold_mutex);
  for (guint i = 0; i < refs->len; i++)
    unhold (self, g_array_index (refs, FerryRef, i));
}

/**
 * ferry_store_unhold: (skip)
 * @self: a store
 * @ref: an object that is held
 *
 * Gives up what ferry_store_hold() or a reading took. Never waits: when somebody else holds the store it is done
 * later. May be called for a closed store.
 *
 * Since: 1.0
 */
void
ferry_store_unhold (FerryStore *self, FerryRef ref)
{
  if (self->closed)
    return;
  if (ferry_store_has_joined (self) && try_begin (self, TRUE))
    {
      unhold (self, ref);
      ferry_store_end (self);
      return;
    }
  g_mutex_lock (&self->unhold_mutex);
  g_array_append_val (self->unholds, ref);
  atomic_store_explicit (&self->n_unholds, self->unholds->len, memory_order_relaxed);
  g_mutex_unlock (&self->unhold_mutex);
}

/* Begins the first stretch of work of a fork child, before it has joined as other threads see it. Waits for no transaction: the
 * parent may be in one, and wait for us. */
static gboolean
begin_joining (FerryStore *self, GError **error)
{
  FerryPatience patience = { 0 };

  for (;;)
    {
      guint64 gate;

      atomic_store_explicit (&self->me->busy, 1, memory_order_seq_cst);
      gate = atomic_load_explicit (&self->header->gate, memory_order_seq_cst);
      if ((gate & FERRY_GATE_COLLECTING) == 0)
        break;
      atomic_store_explicit (&self->me->busy, 0, memory_order_release);
      if (patience.pause >= LIVENESS_PAUSE_US && open_stale_gate (self, gate))
        continue;
      if (!wait_for (self, &patience, FERRY_LOCK_PATIENCE, (int) lock_owner (gate), error))
        return FALSE;
    }
  __atomic_store_n (&self->busy_thread, thread_mark (), __ATOMIC_RELAXED);
  self->depth = 1;
  return TRUE;
}

/* In a fork child, within its first stretch of work: what its parent held is held by the child, too, if it is there still. */
static gboolean
hold_again (FerryStore *self, GError **error)
{
  GHashTableIter iter;
  gpointer key;
  gpointer value;
  gboolean ok = TRUE;

  g_array_set_size (self->free_handles, 0);
  self->n_handles = 0;
  g_hash_table_iter_init (&iter, self->held);
  while (g_hash_table_iter_next (&iter, &key, &value))
    {
      FerryHeld *held = value;
      FerryRef ref = GPOINTER_TO_SIZE (key);
      FerryObject *object = ferry_store_object (self, ref);

      held->lost = object == NULL || !count_up_if_alive (object);
      if (held->lost)
        continue;
      if (atomic_load_explicit (&object->generation, memory_order_relaxed) == held->generation)
        ok = ok && new_handle (self, ref, &held->handle, error);
      else
        held->lost = TRUE;
      held->lost = held->lost || !ok;
      if (held->lost)
        ferry_store_release_cell (self, FERRY_CELL (FERRY_CELL_OBJECT, ref));
    }
  return ok;
}

/**
 * ferry_store_rejoin: (skip)
 * @self: a store
 * @lost: (out) (optional) (element-type FerryRef) (transfer full): what ferry_store_is_lost() says %TRUE of, once for each
 * @error: return location for an error
 *
 * In a fork child: becomes a participant of its own, if it is none yet, as the first stretch of work does, too. Waits for no
 * transaction.
 *
 * Errors: %FERRY_ERROR_CLOSED, %FERRY_ERROR_NO_SPACE, and whatever joining may fail with.
 *
 * Returns: %TRUE on success
 *
 * Since: 1.0
 */
gboolean
ferry_store_rejoin (FerryStore *self, GArray **lost, GError **error)
{
  GHashTableIter iter;
  gpointer key;
  gpointer value;

  if (!ferry_store_begin_holding (self, error))
    return FALSE;
  if (lost != NULL)
    {
      *lost = g_array_new (FALSE, FALSE, sizeof (FerryRef));
      g_hash_table_iter_init (&iter, self->held);
      while (g_hash_table_iter_next (&iter, &key, &value))
        {
          FerryRef ref = GPOINTER_TO_SIZE (key);

          if (((FerryHeld *) value)->lost)
            g_array_append_val (*lost, ref);
        }
    }
  ferry_store_end (self);
  return TRUE;
}

/**
 * ferry_store_is_lost: (skip)
 * @self: a store
 * @ref: an object that is held
 *
 * A fork child holds what its parent held from its first use of the store on; what the parent gave up before that,
 * as the last one, is lost.
 *
 * Returns: whether the object is gone all the same
 *
 * Since: 1.0
 */
gboolean
ferry_store_is_lost (FerryStore *self, FerryRef ref)
{
  FerryHeld *held = g_hash_table_lookup (self->held, GSIZE_TO_POINTER (ref));

  return held == NULL || held->lost;
}

/**
 * ferry_store_get_binding: (skip)
 * @self: a store
 * @ref: an object
 *
 * Finds what represents the object in this process.
 *
 * Returns: (transfer none) (nullable): what ferry_store_set_binding() set, while the object is held by this process
 *
 * Since: 1.0
 */
gpointer
ferry_store_get_binding (FerryStore *self, FerryRef ref)
{
  FerryHeld *held = g_hash_table_lookup (self->held, GSIZE_TO_POINTER (ref));

  return held != NULL ? held->binding : NULL;
}

/**
 * ferry_store_set_binding: (skip)
 * @self: a store
 * @ref: an object that this process holds
 * @binding: (nullable): a language binding's object for it
 *
 * Notes what represents the object in this process. Like all calls that hold or give back, only from one thread at a time (in Python:
 * with the interpreter's lock) where bindings are used.
 *
 * Since: 1.0
 */
void
ferry_store_set_binding (FerryStore *self, FerryRef ref, gpointer binding)
{
  FerryHeld *held = g_hash_table_lookup (self->held, GSIZE_TO_POINTER (ref));

  if (held != NULL)
    held->binding = binding;
}

/**
 * ferry_store_object_kind: (skip)
 * @self: a store
 * @ref: an object that is held
 *
 * Tells what an object is.
 *
 * Returns: its kind
 *
 * Since: 1.0
 */
FerryObjectKind
ferry_store_object_kind (FerryStore *self, FerryRef ref)
{
  FerryObject *object = ferry_store_object (self, ref);

  return object != NULL ? ferry_object_kind (object) : FERRY_OBJECT_FREE;
}

/**
 * ferry_store_object_version: (skip)
 * @self: a store
 * @ref: an object that is held
 *
 * Tells one state of an object from another.
 *
 * Returns: a number that changes with every change of the object (not of what it refers to)
 *
 * Since: 1.0
 */
guint64
ferry_store_object_version (FerryStore *self, FerryRef ref)
{
  FerryObject *object = ferry_store_object (self, ref);

  return object != NULL ? atomic_load_explicit (&object->lock, memory_order_acquire) >> FERRY_LOCK_VERSION_SHIFT : 0;
}

static guint
reading_n_refs (const FerryReading *reading)
{
  if (ferry_cell_tag (reading->cell) == FERRY_CELL_OBJECT)
    return 1;
  return ferry_cell_tag (reading->cell) == FERRY_CELL_LEAF ? reading->leaf->n_refs : 0;
}

static FerryRef
reading_ref (const FerryReading *reading, guint i)
{
  FerryRef ref;

  if (ferry_cell_tag (reading->cell) == FERRY_CELL_OBJECT)
    return ferry_cell_payload (reading->cell);
  memcpy (&ref, reading->leaf->data + i * sizeof ref, sizeof ref);
  return ref;
}

static gboolean
hold_all (FerryStore *self, const FerryReading *reading, GError **error)
{
  guint n = reading_n_refs (reading);

  for (guint i = 0; i < n; i++)
    if (ferry_store_hold_alive (self, reading_ref (reading, i), error) <= 0)
      {
        while (i-- > 0)
          unhold (self, reading_ref (reading, i));
        return FALSE;
      }
  return TRUE;
}

/* In a stretch of work or outside of one. */
void
ferry_store_unhold_reading (FerryStore *self, const FerryReading *reading)
{
  guint n = reading_n_refs (reading);

  for (guint i = 0; i < n; i++)
    ferry_store_unhold (self, reading_ref (reading, i));
}

gboolean
ferry_store_hold_reading (FerryStore *self, FerryReading *reading, GError **error)
{
  GError *local = NULL;

  if (hold_all (self, reading, &local))
    return TRUE;
  if (local == NULL)
    ferry_store_set_corrupt (self, "a reference leads to an object that is gone", &local);
  g_propagate_error (error, local);
  return FALSE;
}

/* First the counts go up, if they are not 0, then it turns out whether what was read is still so: an object that a valid cell
 * refers to can't be gone meanwhile. */
G_GNUC_NO_INLINE gboolean
ferry_store_hold_readings (FerryLook *look, FerryReading *first, FerryReading *second)
{
  FerryStore *self = look->store;
  gboolean ok = FALSE;

  if (!ferry_store_begin_holding (self, NULL))
    {
      look->tries++;
      return FALSE;
    }
  if (!hold_all (self, first, NULL))
    look->tries++;
  else if (second != NULL && !hold_all (self, second, NULL))
    {
      ferry_store_unhold_reading (self, first);
      look->tries++;
    }
  else if (ferry_store_read_end (look))
    {
      ok = TRUE;
    }
  else
    {
      ferry_store_unhold_reading (self, first);
      if (second != NULL)
        ferry_store_unhold_reading (self, second);
    }
  ferry_store_end (self);
  return ok;
}

/* ---- the gate ---- */

static gboolean
others_are_still (FerryStore *self, gint64 timeout, GError **error)
{
  FerryPatience patience = { 0 };

  for (guint id = 0; id < ferry_segment_n_records (self->segment); id++)
    {
      if (id == self->segment->id || !ferry_store_slot_ready (self, id))
        continue;
      patience.spins = 0;
      /* A record that is free was left in order, or repaired. */
      while (atomic_load_explicit (&self->slots[id].busy, memory_order_seq_cst) != 0
             && ferry_record_state (atomic_load_explicit (&self->segment->records[id].word, memory_order_acquire))
                    != FERRY_RECORD_FREE)
        if (!wait_for (self, &patience, timeout, (int) id, error))
          return FALSE;
    }
  return TRUE;
}

static void
open_gate (FerryStore *self, guint64 gate)
{
  /* unless somebody opened it that should not, and another one holds it now */
  atomic_compare_exchange_strong_explicit (&self->header->gate, &gate, 0, memory_order_seq_cst, memory_order_relaxed);
  if (atomic_load_explicit (&self->header->gate_waiters, memory_order_seq_cst) > 0)
    self->segment->klass->wake_word (self->transport, (guint32 *) (void *) &self->header->gate, G_MAXINT);
}

/* Holds the store: afterwards this thread alone may begin stretches of work. */
gboolean
ferry_store_take_gate (FerryStore *self, guint64 purpose, gint64 timeout, GCancellable *cancellable, GError **error)
{
  FerryStoreHeader *header = self->header;
  FerryPatience patience = { 0 };
  gint64 began = g_get_monotonic_time ();
  gint64 left = FERRY_LOCK_PATIENCE;
  guint64 mine;

  if (self->closed)
    {
      g_set_error (error, FERRY_ERROR, FERRY_ERROR_CLOSED, "%s is closed; open it anew", self->label);
      return FALSE;
    }
  if (!ferry_store_has_joined (self) && !refork (self, error))
    return FALSE;
  if (busy_is_mine (self))
    {
      g_set_error (error, FERRY_ERROR, FERRY_ERROR_INVALID_ARGUMENT,
                   "%s: this thread is in the middle of a change; a transaction or a collection begins before it",
                   self->label);
      return FALSE;
    }
  mine = (atomic_fetch_add_explicit (&header->tx_sequence, 1, memory_order_relaxed) << FERRY_LOCK_VERSION_SHIFT)
         | self->owner_bits | FERRY_LOCK_LOCKED | purpose;
  for (;;)
    {
      guint64 gate = 0;
      gboolean taken;

      if (self->closed)
        {
          g_set_error (error, FERRY_ERROR, FERRY_ERROR_CLOSED, "%s is closed; open it anew", self->label);
          return FALSE;
        }
      if (g_cancellable_set_error_if_cancelled (cancellable, error))
        return FALSE;
      atomic_fetch_add_explicit (&self->n_at_gate, 1, memory_order_seq_cst);
      taken = atomic_compare_exchange_strong_explicit (&header->gate, &gate, mine, memory_order_seq_cst,
                                                       memory_order_relaxed);
      if (taken)
        __atomic_store_n (&self->tx_gate, mine, __ATOMIC_SEQ_CST);
      atomic_fetch_sub_explicit (&self->n_at_gate, 1, memory_order_seq_cst);
      if (taken)
        break;
      if (patience.pause >= LIVENESS_PAUSE_US && open_stale_gate (self, gate))
        continue;
      if (patience.pause >= LIVENESS_PAUSE_US && !ferry_segment_is_dead (self->segment, lock_owner (gate)))
        {
          atomic_fetch_add_explicit (&header->gate_waiters, 1, memory_order_seq_cst);
          if (atomic_load_explicit (&header->gate, memory_order_seq_cst) == gate)
            self->segment->klass->wait_word (self->transport, (guint32 *) (void *) &header->gate, (guint32) gate,
                                             5 * PAUSE_MAX_US);
          atomic_fetch_sub_explicit (&header->gate_waiters, 1, memory_order_seq_cst);
        }
      if (!wait_for (self, &patience, timeout, (int) lock_owner (gate), error))
        return FALSE;
    }
  FERRY_STEP ("store-gate-taken");
  __atomic_store_n (&self->tx_thread, thread_mark (), __ATOMIC_RELAXED);
  /* Nobody else can begin a change meanwhile, so this does not wait for ever. */
  if (timeout >= 0)
    left = CLAMP (timeout - (g_get_monotonic_time () - began), FERRY_LOCK_PATIENCE_MIN, FERRY_LOCK_PATIENCE);
  if (!others_are_still (self, left, error))
    {
      ferry_store_leave_gate (self);
      return FALSE;
    }
  FERRY_STEP ("store-gate-still");
  return TRUE;
}

void
ferry_store_leave_gate (FerryStore *self)
{
  guint64 mine = self->tx_gate;

  atomic_fetch_add_explicit (&self->n_at_gate, 1, memory_order_seq_cst);
  __atomic_store_n (&self->tx_gate, 0, __ATOMIC_SEQ_CST);
  __atomic_store_n (&self->tx_thread, NULL, __ATOMIC_RELAXED);
  open_gate (self, mine);
  atomic_fetch_sub_explicit (&self->n_at_gate, 1, memory_order_seq_cst);
}

/* ---- transactions ---- */

/**
 * ferry_store_begin_transaction:
 * @self: a store
 * @timeout: how long to wait for other transactions, in microseconds; negative: as long as it takes. For those who are in
 *   the middle of a change it waits 20 ms at least and 10 s at most.
 * @cancellable: (nullable): to give up
 * @error: return location for an error
 *
 * Holds the store: until ferry_store_commit() or ferry_store_roll_back() in the same thread, nobody else changes
 * anything in it. Others read what was before. If this process dies meanwhile everything is as it was. May be nested: an inner
 * transaction can be rolled back by itself, and counts when the outermost one is committed. What is written
 * through the address of an array is not part of a transaction.
 *
 * Errors: %FERRY_ERROR_TIMED_OUT, %FERRY_ERROR_CLOSED, %G_IO_ERROR_CANCELLED.
 *
 * Returns: %TRUE on success
 *
 * Since: 1.0
 */
gboolean
ferry_store_begin_transaction (FerryStore *self, gint64 timeout, GCancellable *cancellable, GError **error)
{
  FerrySavepoint savepoint = { 0 };

  g_return_val_if_fail (FERRY_IS_STORE (self), FALSE);
  if (!ferry_store_in_transaction (self))
    {
      if (!ferry_store_take_gate (self, 0, timeout, cancellable, error))
        return FALSE;
      atomic_store_explicit (&self->header->tx_entries, 0, memory_order_relaxed);
      atomic_store_explicit (&self->header->tx_state, FERRY_TX_ACTIVE, memory_order_seq_cst);
      FERRY_STEP ("store-tx-active");
      /* Another thread of this process may be about to leave its stretch. */
      if (!ferry_store_begin (self, error))
        {
          atomic_store_explicit (&self->header->tx_state, FERRY_TX_IDLE, memory_order_seq_cst);
          ferry_store_leave_gate (self);
          return FALSE;
        }
      self->tx_depth = 1;
      ferry_store_end (self);
      return TRUE;
    }
  savepoint.entries = atomic_load_explicit (&self->header->tx_entries, memory_order_relaxed);
  take_marks (self, savepoint.marks);
  g_array_append_val (self->tx_savepoints, savepoint);
  self->tx_depth++;
  return TRUE;
}

/* In a transaction. Nobody but another thread of ours that is about to see the gate can be in the way, or somebody who
 * writes what it should not: the end of a transaction does not wait for that one. */
static void
begin_surely (FerryStore *self)
{
  if (G_LIKELY (ferry_store_try_begin (self)) || ferry_store_begin_within (self, FERRY_LOCK_PATIENCE, NULL))
    return;
  atomic_store_explicit (&self->me->busy, 1, memory_order_seq_cst);
  __atomic_store_n (&self->busy_thread, thread_mark (), __ATOMIC_RELAXED);
  self->depth = 1;
}

static void
end_transaction (FerryStore *self, gboolean committed)
{
  FerryStoreHeader *header = self->header;

  begin_surely (self);
  if (committed)
    {
      atomic_store_explicit (&header->tx_state, FERRY_TX_COMMITTED, memory_order_seq_cst);
      FERRY_STEP ("store-tx-committed");
    }
  else
    {
      play_back (self, 0);
      FERRY_STEP ("store-tx-undone");
    }
  unlock_logged (self, self->owner_bits);
  atomic_store_explicit (&header->tx_state, FERRY_TX_IDLE, memory_order_seq_cst);
  atomic_store_explicit (&header->tx_entries, 0, memory_order_seq_cst);
  FERRY_STEP ("store-tx-idle");
  self->tx_depth = 0;
  release_all (self, committed ? self->tx_retired : self->tx_added, committed ? self->tx_blocks : self->tx_made);
  release_all (self, self->tx_dropped, self->tx_dropped_blocks);
  for (guint i = 0; i < 4; i++)
    g_array_set_size (transaction_array (self, i), 0);
  g_array_set_size (self->tx_savepoints, 0);
  for (guint c = LOG_CHUNKS_KEPT; c < FERRY_TX_CHUNKS; c++)
    {
      guint64 chunk = atomic_exchange_explicit (&header->tx_chunks[c], 0, memory_order_relaxed);

      if (chunk != 0)
        ferry_store_heap_free (self, chunk);
    }
  ferry_store_count_change (self);
  ferry_store_end (self);
  ferry_store_leave_gate (self);
}

static gboolean
check_in_transaction (FerryStore *self, const char *what, GError **error)
{
  if (ferry_store_in_transaction (self))
    return TRUE;
  g_set_error (error, FERRY_ERROR, FERRY_ERROR_INVALID_ARGUMENT, "%s: %s: this thread is in no transaction of it",
               self->label, what);
  return FALSE;
}

/**
 * ferry_store_commit:
 * @self: a store in a transaction of this thread
 * @error: return location for an error
 *
 * Makes everything that the transaction changed count, at one instant; an inner transaction becomes part of the
 * outer one.
 *
 * Errors: %FERRY_ERROR_INVALID_ARGUMENT.
 *
 * Returns: %TRUE on success
 *
 * Since: 1.0
 */
gboolean
ferry_store_commit (FerryStore *self, GError **error)
{
  g_return_val_if_fail (FERRY_IS_STORE (self), FALSE);
  if (!check_in_transaction (self, "commit", error))
    return FALSE;
  if (self->tx_depth > 1)
    {
      self->tx_depth--;
      g_array_set_size (self->tx_savepoints, self->tx_savepoints->len - 1);
      return TRUE;
    }
  end_transaction (self, TRUE);
  return TRUE;
}

/**
 * ferry_store_roll_back:
 * @self: a store in a transaction of this thread
 * @error: return location for an error
 *
 * Undoes everything that the (inner) transaction changed.
 *
 * Errors: %FERRY_ERROR_INVALID_ARGUMENT.
 *
 * Returns: %TRUE on success
 *
 * Since: 1.0
 */
gboolean
ferry_store_roll_back (FerryStore *self, GError **error)
{
  g_return_val_if_fail (FERRY_IS_STORE (self), FALSE);
  if (!check_in_transaction (self, "roll back", error))
    return FALSE;
  if (self->tx_depth > 1)
    {
      FerrySavepoint savepoint = g_array_index (self->tx_savepoints, FerrySavepoint, self->tx_savepoints->len - 1);

      g_array_set_size (self->tx_savepoints, self->tx_savepoints->len - 1);
      begin_surely (self);
      roll_back_to (self, savepoint.entries, savepoint.marks);
      ferry_store_end (self);
      self->tx_depth--;
      return TRUE;
    }
  end_transaction (self, FALSE);
  return TRUE;
}

/**
 * ferry_store_in_transaction:
 * @self: a store
 *
 * Asks for a transaction of this thread.
 *
 * Returns: whether this thread is in a transaction of the store
 *
 * Since: 1.0
 */
gboolean
ferry_store_in_transaction (FerryStore *self)
{
  g_return_val_if_fail (FERRY_IS_STORE (self), FALSE);
  return self->tx_depth > 0 && in_own_transaction (self) && ferry_store_has_joined (self);
}

/* ---- the dead ---- */

static void
give_back_handles (FerryStore *self, FerryStoreSlot *slot)
{
  for (guint c = 0; c < FERRY_STORE_HANDLE_CHUNKS; c++)
    {
      guint64 block = atomic_load_explicit (&slot->handle_chunks[c], memory_order_acquire);
      gsize n = (gsize) FERRY_STORE_FIRST_CHUNK << c;

      if (block == 0 || ferry_store_heap_block_size (self, block) < n * sizeof (guint64))
        continue;
      for (gsize i = 0; i < n; i++)
        {
          FerryRef ref = atomic_exchange_explicit ((_Atomic guint64 *) ferry_store_at (self, block) + i, 0,
                                                   memory_order_relaxed);

          if (ref != 0 && ferry_store_heap_is_object (self, ref))
            ferry_store_release_cell (self, FERRY_CELL (FERRY_CELL_OBJECT, ref));
        }
      FERRY_STEP ("store-handles");
      atomic_store_explicit (&slot->handle_chunks[c], 0, memory_order_release);
      ferry_store_heap_free (self, block);
    }
}

/* Called under the lock of the segment, by whoever finds the participant dead, before its record is used again. May
 * be done twice: who does it may die, too. */
void
ferry_store_repair_participant (FerryStore *self, guint dead)
{
  FerryStoreHeader *header = self->header;
  FerryStoreSlot *slot = &self->slots[dead];
  FerryParticipantRecord *record = &self->segment->records[dead];
  guint64 owner
      = owner_bits_of (dead, ferry_record_incarnation (atomic_load_explicit (&record->word, memory_order_acquire)));
  guint64 gate = atomic_load_explicit (&header->gate, memory_order_acquire);
  FerryObject *object;
  guint64 ref;
  gboolean held_gate = gate != 0 && (gate & OWNER_MASK) == owner;

  if (atomic_load_explicit (&self->slot_generation, memory_order_acquire) != ferry_fork_generation
      || !ferry_store_slot_ready (self, dead))
    return;
  if (held_gate || atomic_load_explicit (&slot->busy, memory_order_acquire) != 0)
    atomic_store_explicit (&header->needs_collect, 1, memory_order_seq_cst);
  FERRY_STEP ("store-repair-flagged");
  if (held_gate)
    {
      if (atomic_load_explicit (&header->tx_state, memory_order_acquire) == FERRY_TX_ACTIVE)
        play_back (self, 0);
      unlock_logged (self, owner);
      FERRY_STEP ("store-repair-tx");
      atomic_store_explicit (&header->tx_state, FERRY_TX_IDLE, memory_order_seq_cst);
      atomic_store_explicit (&header->tx_entries, 0, memory_order_seq_cst);
    }

  for (guint i = MIN (atomic_load_explicit (&slot->n_undo, memory_order_acquire), FERRY_STORE_UNDO_MAX); i > 0; i--)
    {
      _Atomic guint64 *word = undo_word (self, atomic_load_explicit (&slot->undo[i - 1].offset, memory_order_relaxed));

      if (word != NULL)
        atomic_store_explicit (word, atomic_load_explicit (&slot->undo[i - 1].old, memory_order_relaxed),
                               memory_order_release);
    }
  atomic_store_explicit (&slot->n_undo, 0, memory_order_release);
  FERRY_STEP ("store-repair-undone");
  ref = atomic_load_explicit (&slot->op_object, memory_order_acquire);
  object = ref != 0 ? ferry_store_object (self, ref) : NULL;
  if (object != NULL)
    {
      guint64 lock = atomic_load_explicit (&object->lock, memory_order_acquire);

      if ((lock & FERRY_LOCK_LOCKED) && (lock & OWNER_MASK) == owner)
        unlock_word (object, lock);
    }
  atomic_store_explicit (&slot->op_object, 0, memory_order_release);
  FERRY_STEP ("store-repair-unlocked");
  ferry_store_heap_abandon (self, dead);
  FERRY_STEP ("store-repair-abandoned");
  atomic_store_explicit (&slot->busy, 0, memory_order_seq_cst);
  if (held_gate)
    open_gate (self, gate);
  if (atomic_exchange_explicit (&slot->unregistered, 0, memory_order_relaxed))
    atomic_fetch_sub_explicit (&header->n_unregistered, 1, memory_order_relaxed);

  /* What it held: at once when that can be done here, else it is found by a collection. */
  self->collect_wanted = FALSE; /* not here, under the lock of the segment */
  if (!busy_is_mine (self) && self->tx_depth == 0 && ferry_store_try_begin (self))
    {
      give_back_handles (self, slot);
      ferry_store_end (self);
    }
  else
    {
      for (guint c = 0; c < FERRY_STORE_HANDLE_CHUNKS; c++)
        atomic_store_explicit (&slot->handle_chunks[c], 0, memory_order_release);
      atomic_store_explicit (&header->needs_collect, 1, memory_order_seq_cst);
    }
  self->collect_wanted = atomic_load_explicit (&header->needs_collect, memory_order_relaxed) != 0;
  FERRY_STEP ("store-repair-end");
  ferry_store_tell_watchers (self);
}

/* Another thread of ours was in the way for too long to let us have the last stretch of work: nobody begins one any more,
 * but who is inside of one should come to its end before the slot is somebody else's. */
static void
wait_for_own_threads (FerryStore *self)
{
  gint64 end = g_get_monotonic_time () + FERRY_LOCK_PATIENCE;

  while (atomic_load_explicit (&self->me->busy, memory_order_seq_cst) != 0 && g_get_monotonic_time () < end)
    g_usleep (PAUSE_MAX_US);
}

/* Closing in good order: nothing of ours stays behind, and no other thread begins anything afterwards. */
void
ferry_store_leave_slot (FerryStore *self)
{
  if (!ferry_store_has_joined (self))
    {
      atomic_store_explicit (&self->closed, TRUE, memory_order_seq_cst);
      return;
    }
  while (ferry_store_in_transaction (self))
    ferry_store_roll_back (self, NULL);
  /* a collection that a death asked for: the end of the last stretch can't make it any more */
  self->collect_after = 0;
  if (self->collect_wanted && ferry_store_begin_within (self, FERRY_LOCK_PATIENCE, NULL))
    ferry_store_end (self);
  if (ferry_store_begin_within (self, FERRY_LOCK_PATIENCE, NULL))
    {
      give_back_handles (self, self->me);
      /* before busy is 0 again: pairs with the second look in try_begin() */
      atomic_store_explicit (&self->closed, TRUE, memory_order_seq_cst);
      FERRY_STEP ("store-closed");
      ferry_store_end (self);
      if (ferry_segment_lock (self->segment, NULL))
        {
          ferry_store_heap_abandon (self, self->segment->id);
          ferry_segment_unlock (self->segment);
        }
    }
  else
    {
      atomic_store_explicit (&self->closed, TRUE, memory_order_seq_cst);
      atomic_store_explicit (&self->header->needs_collect, 1, memory_order_seq_cst);
      wait_for_own_threads (self);
    }
  if (atomic_exchange_explicit (&self->me->unregistered, 0, memory_order_relaxed))
    atomic_fetch_sub_explicit (&self->header->n_unregistered, 1, memory_order_relaxed);
}
