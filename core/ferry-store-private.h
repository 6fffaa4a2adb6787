/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* The shared structures of docs/store.md, and one process's private view of them. */

#include "ferry-store-live.h"

#include "ferry-segment-private.h"

#include <stdatomic.h>
#include <string.h>

G_BEGIN_DECLS

#define FERRY_STORE_MAGIC (G_GUINT64_CONSTANT (0x314f545359525246)) /* "FRRYSTO1" */
#define FERRY_STORE_MAJOR (1)
#define FERRY_STORE_MINOR (0)

#define FERRY_STORE_OFFSET_SLOTS (4096)
#define FERRY_STORE_SLOT_SIZE (4096)
#define FERRY_STORE_OFFSET_SPANS (G_GUINT64_CONSTANT (2) << 20)
#define FERRY_STORE_SPAN_SHIFT (14)
#define FERRY_STORE_SPAN_SIZE (1 << FERRY_STORE_SPAN_SHIFT)
#define FERRY_STORE_OBJECT_SIZE (64)
#define FERRY_STORE_UNDO_MAX (64) /* words that one operation may change */
#define FERRY_STORE_HANDLE_CHUNKS (24)
#define FERRY_STORE_FIRST_CHUNK (64) /* handles; each further chunk has twice as many */

/* The lock of an object: {version:40, incarnation:14, owner:8, transaction:1, locked:1}. Unlocked: version << 24. */
#define FERRY_LOCK_LOCKED (G_GUINT64_CONSTANT (1))
#define FERRY_LOCK_TRANSACTION (G_GUINT64_CONSTANT (2))
#define FERRY_LOCK_OWNER_SHIFT (2)
#define FERRY_LOCK_INCARNATION_SHIFT (10)
#define FERRY_LOCK_INCARNATION_MASK ((1 << 14) - 1)
#define FERRY_LOCK_VERSION_SHIFT (24)
#define FERRY_LOCK_VERSION_ONE (G_GUINT64_CONSTANT (1) << FERRY_LOCK_VERSION_SHIFT)
#define FERRY_LOCK_VERSION_MASK (~(FERRY_LOCK_VERSION_ONE - 1))

/* The gate: 0 when open, else who holds the store: {sequence:40, incarnation:14, owner:8, purpose:1, held:1}. */
#define FERRY_GATE_COLLECTING (G_GUINT64_CONSTANT (2)) /* not a transaction but a collection */

typedef enum
{
  FERRY_TX_IDLE = 0,
  FERRY_TX_ACTIVE = 1,    /* undone by who finds its owner dead */
  FERRY_TX_COMMITTED = 2, /* only its locks are left to be opened */
} FerryTxState;

/* What one word of shared memory held before it was changed. An entry with bit 0 of @offset set names an object that is
 * locked instead. */
typedef struct
{
  _Atomic guint64 offset;
  _Atomic guint64 old;
} FerryUndo;

/* The undo log of a transaction lies in chunks: blocks of the heap. Chunk i has room for FERRY_TX_FIRST_CHUNK << i. */
#define FERRY_TX_CHUNKS (24)
#define FERRY_TX_FIRST_CHUNK (256)

typedef struct
{
  guint64 magic;
  guint32 major;
  guint32 minor;
  guint64 data_size;
  guint64 max_bytes;
  guint64 heap_offset; /* of span 0 */
  guint64 n_spans;     /* address space */
  _Atomic guint32 ready;
  guint32 _reserved;
  guint8 _pad0[128 - 56];

  /* read by every writer, written by transactions */
  _Atomic guint64 gate;
  _Atomic guint64 root;     /* FerryRef of a dict: str -> SLOT */
  _Atomic guint64 shapes;   /* FerryRef of a dict: description -> SHAPE */
  _Atomic guint64 tickets;  /* FerryRef of a dict: int -> object */
  _Atomic guint64 heap_end; /* offset: everything between heap_offset and here was committed at some time */
  _Atomic guint32 gate_waiters;
  _Atomic guint32 n_unregistered;                  /* participants for whom membarrier(2) does nothing */
  _Atomic guint64 slots_ready[FERRY_BITMAP_WORDS]; /* participants whose page is there */
  guint8 _pad1[128 - 80];

  _Atomic guint64 tx_state;
  _Atomic guint64 tx_sequence;
  _Atomic guint64 tx_entries;
  _Atomic guint64 tx_chunks[FERRY_TX_CHUNKS]; /* offsets of blocks */
  _Atomic guint64 next_ticket;
  _Atomic guint32 needs_collect; /* somebody died and may have left blocks that nobody refers to */
  _Atomic guint32 next_channel;  /* counts the channels that objects travel in */
  guint8 _pad2[256 - 27 * 8 - 16];

  /* the heap, see ferry-store-heap.c */
  guint8 heap[1024];
} FerryStoreHeader;

G_STATIC_ASSERT (sizeof (FerryStoreHeader) <= FERRY_STORE_OFFSET_SLOTS);

/* What a participant does, for those who may have to finish it. */
typedef struct
{
  _Atomic guint32 busy;      /* a thread of it is inside a stretch of work */
  _Atomic guint32 n_undo;    /* entries of @undo that count */
  _Atomic guint64 op_object; /* the object it is about to lock or has locked; 0: none */
  _Atomic guint64 changes;   /* operations that changed something; goes on with the next participant of the slot */
  _Atomic guint32 unregistered;
  guint32 _reserved;
  guint8 _pad0[64 - 32];
  FerryUndo undo[FERRY_STORE_UNDO_MAX];
  _Atomic guint64 handle_chunks[FERRY_STORE_HANDLE_CHUNKS]; /* offsets of blocks of guint64: FerryRefs that it holds */
  guint8 heap[1024];                                        /* see ferry-store-heap.c */
  guint8 _pad1[FERRY_STORE_SLOT_SIZE - 64 - FERRY_STORE_UNDO_MAX * 16 - FERRY_STORE_HANDLE_CHUNKS * 8 - 1024];
} FerryStoreSlot;

G_STATIC_ASSERT (sizeof (FerryStoreSlot) == FERRY_STORE_SLOT_SIZE);

/* The head of an object. Memory of heads is never used for anything else, so that who follows a stale reference finds a
 * head, whatever object's. */
typedef struct
{
  _Atomic guint64 lock;
  _Atomic guint32 count; /* references by cells, handles of processes, tickets */
  _Atomic guint8 kind;
  guint8 flags;
  _Atomic guint16 generation; /* of the objects that had this head */
  _Atomic guint64 body;       /* list, dict, set, record, bytearray, array: offset of a block; SLOT: the cell */
  _Atomic guint64
      size; /* list, bytearray: {start:32, length:32}; dict, set: live entries; record: fields; array: bytes */
  _Atomic guint64 used;  /* dict, set: entries including dead ones */
  _Atomic guint64 shape; /* record: OBJECT cell; SHAPE, array: LEAF cell; SLOT: LEAF or inline cell of the key */
  _Atomic guint64 extra; /* record: OBJECT cell of a dict, or EMPTY */
  _Atomic guint64 link;  /* of free heads */
} FerryObject;

G_STATIC_ASSERT (sizeof (FerryObject) == FERRY_STORE_OBJECT_SIZE);

typedef struct _FerryHeap FerryHeap; /* private to the process, see ferry-store-heap.c */

/* Where an inner transaction began: entries of the log, lengths of arrays. */
typedef struct
{
  guint64 entries;
  guint marks[4];
} FerrySavepoint;

struct _FerryStore
{
  GObject parent_instance;

  FerrySegmentTransport *transport;
  FerrySegment *segment;
  char *description; /* that it was opened with */
  char *name;
  char *label; /* "store 'lab'", for messages */

  guint8 *base; /* of the data area, mapped whole */
  guint64 data_size;
  guint64 heap_offset;
  guint64 max_bytes;
  FerryStoreHeader *header;
  FerryStoreSlot *slots; /* of all participants */
  FerryStoreSlot *me;
  guint64 owner_bits;            /* incarnation and owner as locks carry them, with FERRY_LOCK_LOCKED */
  _Atomic guint fork_generation; /* of the process that has it; release: what joining wrote comes before */
  _Atomic guint slot_generation; /* of the process that @me is the slot of; it may hold nothing yet */
  _Atomic gboolean closed;       /* set within the last stretch of work: none begins after it */

  /* threads of this process: who is inside a stretch of work, and how deep */
  gpointer busy_thread;
  guint depth;
  gint64 patience; /* how long the stretch waits for locks, in microseconds, plus 1; 0: FERRY_LOCK_PATIENCE ... */
  guint patience_generation; /* ... as in a process other than that of this fork generation */

  /* the operation under way */
  guint64 op_mark;   /* entries in the log of the transaction when it began */
  guint op_marks[4]; /* lengths of the arrays below, likewise */
  gboolean op_taken; /* the object was locked by it, not by the transaction before */

  /* a transaction of ours */
  gpointer tx_thread;
  guint tx_depth;
  guint64 tx_gate;
  _Atomic guint32 n_at_gate; /* threads that are about to take the gate, or to open it */
  GArray *tx_savepoints;     /* of FerrySavepoint */
  GArray *tx_retired;        /* of FerryCell: to be released when it commits */
  GArray *tx_blocks;         /* of guint64: blocks to be freed when it commits */
  GArray *tx_added;          /* of FerryCell: stored into objects by it; to be released when it is rolled back */
  GArray *tx_made;           /* of guint64: blocks made by it for bodies, to be freed when it is rolled back */
  GArray *tx_dropped;        /* of FerryCell, and ... */
  GArray *tx_dropped_blocks; /* ... of guint64: to be released in either case */
  GArray *retired;           /* of FerryCell: of the operation under way */
  GArray *retired_blocks;

  /* objects that this process holds */
  GHashTable *held; /* FerryRef -> FerryHeld */
  GArray *free_handles;
  guint n_handles;
  GMutex unhold_mutex;
  GArray *unholds; /* of FerryRef: to be given back at the next stretch of work */
  _Atomic guint32 n_unholds;
  _Atomic gboolean collect_wanted; /* looked at outside of stretches of work, too */
  _Atomic gint64 collect_after;    /* not before; monotonic microseconds */

  FerryHeap *heap;
};

/* ---- where things are ---- */

static inline gpointer
ferry_store_at (FerryStore *self, guint64 offset)
{
  return self->base + offset;
}

static inline gboolean
ferry_store_slot_ready (FerryStore *self, guint id)
{
  return (atomic_load_explicit (&self->header->slots_ready[id / 64], memory_order_acquire) >> (id % 64)) & 1;
}

/* Whether [offset, offset + size) lies in memory of the heap that can be touched. For every offset that comes out of
 * shared memory. */
static inline gboolean
ferry_store_in_heap (FerryStore *self, guint64 offset, guint64 size)
{
  guint64 end = atomic_load_explicit (&self->header->heap_end, memory_order_acquire);

  end = MIN (end, self->data_size);
  return offset >= self->heap_offset && offset <= end && size <= end - offset;
}

/* The head, or NULL when that can't be one. */
static inline FerryObject *
ferry_store_object (FerryStore *self, FerryRef ref)
{
  if (G_UNLIKELY (ref % FERRY_STORE_OBJECT_SIZE != 0 || !ferry_store_in_heap (self, ref, FERRY_STORE_OBJECT_SIZE)))
    return NULL;
  return ferry_store_at (self, ref);
}

static inline FerryObjectKind
ferry_object_kind (FerryObject *object)
{
  return (FerryObjectKind) atomic_load_explicit (&object->kind, memory_order_relaxed);
}

/* Sets FERRY_ERROR_CORRUPT; always FALSE. */
gboolean ferry_store_set_corrupt (FerryStore *self, const char *what, GError **error);

/* Where there is no object: FERRY_ERROR_CORRUPT with @what, or of FERRY_REF_LOST that it is gone; always FALSE. */
gboolean ferry_store_set_no_object (FerryStore *self, FerryRef ref, const char *what, GError **error);

/* ---- reading an object, ferry-store-object.c ---- */

/* A look at an object. Optimistic: what was read counts only when ferry_store_read_end() says TRUE; until then nothing of it
 * may be trusted, only copied, within bounds. When a transaction of somebody else has locked the object, words are read as they were before it. */
typedef struct
{
  FerryStore *store;
  FerryObject *object;
  guint64 lock;
  guint64 gate;
  gboolean old;
  guint tries;
  gsize lacking; /* bytes that this process had no memory for, so that the look failed */
} FerryLook;

/* A lock word that no object has. */
#define FERRY_LOOK_FAILED (G_MAXUINT64)

/* Slow path: somebody has it locked. Waits for short operations, repairs what the dead left. FALSE: error. */
gboolean ferry_store_look_wait (FerryLook *look, GError **error);
guint64 ferry_store_old_value (FerryLook *look, _Atomic guint64 *word, guint64 now);

/* Use as:
 *   FerryLook look = { self, object };
 *   do
 *     {
 *       if (!ferry_store_read_begin (&look, error))
 *         return FALSE;
 *       ... ferry_store_load (&look, &object->body) ...
 *     }
 *   while (!ferry_store_read_end (&look));
 */
static inline gboolean
ferry_store_read_begin (FerryLook *look, GError **error)
{
  /* pairs with the release store in ferry_store_unlock_object() */
  look->lock = atomic_load_explicit (&look->object->lock, memory_order_acquire);
  look->old = FALSE;
  if (G_UNLIKELY ((look->lock & FERRY_LOCK_LOCKED) != 0 || look->tries > 0))
    return ferry_store_look_wait (look, error);
  return TRUE;
}

gboolean ferry_store_read_end_slow (FerryLook *look);

static inline gboolean
ferry_store_read_end (FerryLook *look)
{
  atomic_thread_fence (memory_order_acquire); /* the loads before come before this one */
  if (G_LIKELY (!look->old && atomic_load_explicit (&look->object->lock, memory_order_relaxed) == look->lock))
    return TRUE;
  return ferry_store_read_end_slow (look);
}

static inline guint64
ferry_store_load (FerryLook *look, _Atomic guint64 *word)
{
  guint64 value = atomic_load_explicit (word, memory_order_acquire);

  return G_UNLIKELY (look->old) ? ferry_store_old_value (look, word, value) : value;
}

/* Copies what @cell says into @reading, inside a look: FALSE: what was found can't be right, which is the end of it only when
 * read_end() says TRUE; otherwise try again. Takes no references: see finish. */
gboolean ferry_store_copy_cell (FerryLook *look, FerryCell cell, FerryReading *reading);

gboolean ferry_store_hold_readings (FerryLook *look, FerryReading *first, FerryReading *second);

/* The end of a look that filled one reading or two (@second may be NULL) with ferry_store_copy_cell(): TRUE: what was read
 * counts, and what it refers to is held for the caller. FALSE: look again. In place of ferry_store_read_end(). */
static inline gboolean
ferry_store_finish_readings (FerryLook *look, FerryReading *first, FerryReading *second)
{
  if (G_LIKELY (ferry_cell_tag (first->cell) != FERRY_CELL_OBJECT
                && (ferry_cell_tag (first->cell) != FERRY_CELL_LEAF || first->leaf->n_refs == 0)
                && (second == NULL
                    || (ferry_cell_tag (second->cell) != FERRY_CELL_OBJECT
                        && (ferry_cell_tag (second->cell) != FERRY_CELL_LEAF || second->leaf->n_refs == 0)))))
    return ferry_store_read_end (look);
  return ferry_store_hold_readings (look, first, second);
}

/* Holds what @reading refers to, of an object that the caller has locked. FALSE: CORRUPT, or no memory for handles. */
gboolean ferry_store_hold_reading (FerryStore *self, FerryReading *reading, GError **error);
void ferry_store_unhold_reading (FerryStore *self, const FerryReading *reading);

/* 1: held; 0: it is gone; -1: error. Inside a stretch of work, or of ferry_store_begin_holding(). */
int ferry_store_hold_alive (FerryStore *self, FerryRef ref, GError **error);

/* Whether this process holds the object, of that generation; then once more. */
gboolean ferry_store_hold_known (FerryStore *self, FerryRef ref, guint16 generation);

/* A stretch in which only references are taken and given back: also while somebody else is in a transaction. Ends with
 * ferry_store_end(). Never waits for long. */
gboolean ferry_store_begin_holding (FerryStore *self, GError **error);

/* ---- changing an object, ferry-store-object.c ---- */

/* Locks the object for one operation: waits for others, for transactions, repairs. Begins a stretch of work, too. */
FerryObject *ferry_store_lock_object (FerryStore *self, FerryRef ref, FerryObjectKind kind, GError **error);

/* Ends the operation: what it changed counts; unlocks (in a transaction: at its end); releases what was retired; wakes who waits for
 * changes; ends the stretch of work. @changed: whether anything was. */
void ferry_store_unlock_object (FerryStore *self, FerryObject *object, gboolean changed);

/* Undoes what the operation stored, then as above. */
void ferry_store_abandon_object (FerryStore *self, FerryObject *object);

/* Changes a word that readers and repair rely on: notes what it was first, then stores. For an operation that changes a single word outside
 * of transactions the note isn't needed: ferry_store_put_single(). FALSE never happens outside of transactions as long as an operation
 * changes at most FERRY_STORE_UNDO_MAX words; in one: no memory for its log, nothing was stored. */
gboolean ferry_store_put (FerryStore *self, _Atomic guint64 *word, guint64 value, GError **error);

gboolean ferry_store_put_in_transaction (FerryStore *self, _Atomic guint64 *word, guint64 value, GError **error);

static inline gboolean
ferry_store_put_single (FerryStore *self, _Atomic guint64 *word, guint64 value, GError **error)
{
  if (G_UNLIKELY (self->tx_depth > 0))
    return ferry_store_put_in_transaction (self, word, value, error);
  atomic_store_explicit (word, value, memory_order_release);
  return TRUE;
}

gboolean ferry_store_open_stale (FerryStore *self, FerryObject *object);
void ferry_store_tell_watchers (FerryStore *self);

static inline void
ferry_store_count_change (FerryStore *self)
{
  FerryStoreSlot *me = self->me;

  atomic_store_explicit (&me->changes, atomic_load_explicit (&me->changes, memory_order_relaxed) + 1,
                         memory_order_release);
  /* No fence: who is about to sleep makes everybody pass one, see ferry_store_wait_change(). */
  atomic_signal_fence (memory_order_seq_cst);
  if (G_UNLIKELY (ferry_waiter_any (self->segment->rx_sleeping)))
    ferry_store_tell_watchers (self);
}

/* Whether this process has joined: the child of a fork does so with its first use. */
static inline gboolean
ferry_store_has_joined (FerryStore *self)
{
  return atomic_load_explicit (&self->fork_generation, memory_order_acquire) == ferry_fork_generation;
}

/* The short way to replace one word by another, neither of which owns anything: without a stretch of work, with one atomic
 * operation. The exchange of the lock and the look at the gate pair with the exchange of the gate in ferry_store_take_gate(): either its
 * owner finds the object locked, and waits, or we find the gate closed. FALSE: not this way. */
static inline gboolean
ferry_store_lock_fast (FerryStore *self, FerryObject *object, guint64 *lock)
{
  *lock = atomic_load_explicit (&object->lock, memory_order_relaxed);
  if (G_UNLIKELY ((*lock & FERRY_LOCK_LOCKED) != 0 || self->tx_gate != 0
                  || atomic_load_explicit (&self->closed, memory_order_relaxed) || !ferry_store_has_joined (self)))
    return FALSE;
  if (G_UNLIKELY (!atomic_compare_exchange_strong_explicit (&object->lock, lock,
                                                            *lock | self->owner_bits | FERRY_LOCK_LOCKED,
                                                            memory_order_seq_cst, memory_order_relaxed)))
    return FALSE;
  FERRY_STEP ("store-fast-locked");
  if (G_LIKELY (atomic_load_explicit (&self->header->gate, memory_order_seq_cst) == 0))
    return TRUE;
  atomic_store_explicit (&object->lock, *lock, memory_order_release);
  return FALSE;
}

static inline void
ferry_store_unlock_fast (FerryStore *self, FerryObject *object, guint64 lock, gboolean changed)
{
  FERRY_STEP ("store-fast-done");
  atomic_store_explicit (&object->lock, changed ? lock + FERRY_LOCK_VERSION_ONE : lock, memory_order_release);
  if (changed)
    ferry_store_count_change (self);
}

/* The cell was taken out of the locked object: it is released when the operation, or the transaction, is over. */
void ferry_store_retire (FerryStore *self, FerryCell cell);

/* Likewise a block that was a body. */
void ferry_store_retire_block (FerryStore *self, guint64 block);

/* A cell was stored, a block became a body: undone if the transaction is. No-ops outside of transactions. */
void ferry_store_note_added (FerryStore *self, FerryCell cell);
void ferry_store_note_made (FerryStore *self, guint64 block);

static inline gboolean
ferry_cell_owns (FerryCell cell)
{
  FerryCellTag tag = ferry_cell_tag (cell);

  return tag == FERRY_CELL_LEAF || tag == FERRY_CELL_OBJECT;
}

/* Whether two cells whose owner has them locked hold equal numbers; adds. FALSE: not numbers, or the sum needs more than 64 bits. */
gboolean ferry_store_add_cells (FerryStore *self, FerryCell cell, FerryCell delta, FerryCell *sum, GError **error);

/* A new object with one reference (the caller's cell). Inside a stretch of work. 0: error. */
FerryRef ferry_store_new_object (FerryStore *self, FerryObjectKind kind, GError **error);

/* The inside of an object goes, when nobody refers to it any more: calls @release for every cell it owns, and @block for every block. By kind; also what a collection
 * walks. The cells of the object, through @look rules when not NULL. */
typedef void (*FerryCellFunc) (FerryStore *self, FerryCell cell, gpointer data);
typedef void (*FerryBlockFunc) (FerryStore *self, guint64 block, gpointer data);
void ferry_store_visit (FerryStore *self, FerryObject *object, FerryCellFunc cell_func, FerryBlockFunc block_func,
                        gpointer data);

/* by kind, each in its own file; bounds-checked against a hostile body */
void ferry_store_list_visit (FerryStore *self, FerryObject *object, FerryCellFunc cell_func, FerryBlockFunc block_func,
                             gpointer data);
void ferry_store_dict_visit (FerryStore *self, FerryObject *object, FerryCellFunc cell_func, FerryBlockFunc block_func,
                             gpointer data);
void ferry_store_record_visit (FerryStore *self, FerryObject *object, FerryCellFunc cell_func,
                               FerryBlockFunc block_func, gpointer data);
/* Invariants of one object whose owner is still; for verify(). */
gboolean ferry_store_list_verify (FerryStore *self, FerryObject *object, GError **error);
gboolean ferry_store_dict_verify (FerryStore *self, FerryObject *object, GError **error);
gboolean ferry_store_record_verify (FerryStore *self, FerryObject *object, GError **error);

void ferry_store_count_up (FerryObject *object);

/* ---- the heap, ferry-store-heap.c. All but attach and verify: inside a stretch of work ---- */

gboolean ferry_store_heap_format (FerryStore *self, GError **error); /* creator, memory is zero */
gboolean ferry_store_heap_attach (FerryStore *self, GError **error); /* each process; again in a fork child */
void ferry_store_heap_detach (FerryStore *self);                     /* frees what is private to the process */

/* A block of at least @size bytes, 16-byte aligned, 64-byte aligned from 64 bytes on, not initialized. 0: error, NO_SPACE. */
guint64 ferry_store_heap_alloc (FerryStore *self, gsize size, GError **error);
void ferry_store_heap_free (FerryStore *self, guint64 block);

/* Usable bytes; 0 when no block can begin there. */
gsize ferry_store_heap_block_size (FerryStore *self, guint64 block);

/* A head of an object, 64 bytes, kind FREE. */
guint64 ferry_store_heap_alloc_object (FerryStore *self, GError **error);
void ferry_store_heap_free_object (FerryStore *self, guint64 object);
gboolean ferry_store_heap_is_object (FerryStore *self, guint64 offset);

/* Under the lock of the segment: the spans of a participant that left or died are anybody's. */
void ferry_store_heap_abandon (FerryStore *self, guint owner);

guint64 ferry_store_heap_bytes_used (FerryStore *self);      /* in blocks and heads */
guint64 ferry_store_heap_bytes_committed (FerryStore *self); /* in spans */
guint64 ferry_store_heap_trim (FerryStore *self,
                               guint64 keep); /* gives free spans back but @keep bytes; returns bytes */

/* While the store is held still: everything that was not marked is free. */
typedef struct _FerryMarks FerryMarks;
FerryMarks *ferry_store_heap_marks_new (FerryStore *self);
gboolean ferry_store_heap_mark (FerryStore *self, FerryMarks *marks, guint64 block); /* TRUE: for the first time */
gboolean ferry_store_heap_sweep (FerryStore *self, FerryMarks *marks, guint64 *freed, GError **error); /* in bytes */
void ferry_store_heap_marks_free (FerryMarks *marks);
gboolean ferry_store_heap_verify (FerryStore *self, FerryMarks *marks, gboolean leaks, GError **error);

/* ---- collection, ferry-store-collect.c ---- */

/* With the gate closed and everybody still. */
gboolean ferry_store_collect_held (FerryStore *self, GError **error);
/* As ferry_store_collect(), but tickets stay as they are: no channel is looked at, nor its locks asked for. */
gboolean ferry_store_collect_heap (FerryStore *self, gint64 patience, GError **error);
/* How long the stretch of work that we are in waits for who is in the middle of a change, in microseconds; -1: as ever. */
void ferry_store_hurry (FerryStore *self, gint64 patience);
gint64 ferry_store_patience (FerryStore *self);
/* As ferry_store_end(), and never collects: for those who hold the lock of a channel. TRUE: it was the outermost stretch. */
gboolean ferry_store_end_briefly (FerryStore *self);
gboolean ferry_store_verify_held (FerryStore *self, GError **error);

/* ---- participants, ferry-store-object.c; called by ferry-segment.c under the lock of the segment ---- */

void ferry_store_repair_participant (FerryStore *self, guint dead);
gboolean ferry_store_enter_slot (FerryStore *self, GError **error);
void ferry_store_leave_slot (FerryStore *self);
gboolean ferry_store_take_gate (FerryStore *self, guint64 purpose, gint64 timeout, GCancellable *cancellable,
                                GError **error);
void ferry_store_leave_gate (FerryStore *self);

G_END_DECLS
