/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* The shared structures of docs/memory-model.md, and one participant's private view of
 * them. */

#include "ferry-segment-transport.h"

#include "ferry-channel-config-private.h"
#include "ferry-config.h"
#include "ferry-copy-private.h"

#include <stdatomic.h>

G_BEGIN_DECLS

#define FERRY_SEGMENT_MAGIC (G_GUINT64_CONSTANT (0x3147455359525246)) /* "FRRYSEG1" */
#define FERRY_SEGMENT_MAJOR (1)
#define FERRY_SEGMENT_MINOR (0)
#define FERRY_SEGMENT_FEATURES (G_GUINT64_CONSTANT (0)) /* the feature bits known here */

#define FERRY_MAX_PARTICIPANTS (256)
#define FERRY_BITMAP_WORDS (FERRY_MAX_PARTICIPANTS / 64)
#define FERRY_N_CLASSES (27)
/* Classes below 64 KiB, whose blocks are used in turns. */
#define FERRY_N_ROTATED (4)
#define FERRY_MIN_BLOCK_SHIFT (12) /* the smallest block is a page of 4 KiB */
#define FERRY_MAX_BLOCK_SHIFT (FERRY_MIN_BLOCK_SHIFT + FERRY_N_CLASSES - 1)
#define FERRY_MAX_BLOCKS (65536) /* of one class */
#define FERRY_MIN_BLOCKS (16)
#define FERRY_CLASS_RANGE_SHIFT (36)                    /* a class has blocks for 64 GiB, within those two bounds */
#define FERRY_CHUNK_SIZE (G_GUINT64_CONSTANT (4) << 20) /* small blocks are mapped by 4 MiB */
/* Blocks up to this size, in bytes, may be warm for a channel's first messages. */
#define FERRY_WARM_MAX (256 * 1024)
/* That must leave most of a channel's memory to its messages. */
#define FERRY_WARM_SHARE (64)
/* When to give up waiting for the lock, in microseconds. The holder works for microseconds; who holds it for seconds is
 * stopped. */
#define FERRY_LOCK_PATIENCE (10 * G_USEC_PER_SEC)
/* Of calls whose own time-out is shorter than that. */
#define FERRY_LOCK_PATIENCE_MIN (20 * 1000)

#define FERRY_OFFSET_TAIL (1024)
#define FERRY_OFFSET_HEAD (1152)
#define FERRY_OFFSET_RX_SLEEPING (1280)
#define FERRY_OFFSET_TX_SLEEPING (1408)
#define FERRY_OFFSET_FLUSH_SLEEPING (1408 + FERRY_BITMAP_WORDS * 8) /* the same cache line */
#define FERRY_OFFSET_SHARED (1536)
#define FERRY_OFFSET_CLASSES (2048)
/* Neighbouring positions lie so many slots apart (odd: every slot has its turn), at the usual stride more than a page:
 * a receiver on the heels of a sender must not let its processor's prefetcher fetch the lines that the sender is about to
 * write. */
#define FERRY_SLOT_STEP (17)
#define FERRY_OFFSET_PARTICIPANTS (4096)
#define FERRY_PARTICIPANT_STRIDE (256)
#define FERRY_OFFSET_RING (FERRY_OFFSET_PARTICIPANTS + FERRY_MAX_PARTICIPANTS * FERRY_PARTICIPANT_STRIDE)

/* Words: {lap or generation:48, owner:12, state:4} */
#define FERRY_WORD_STATE_BITS (4)
#define FERRY_WORD_OWNER_BITS (12)
#define FERRY_WORD_LAP_SHIFT (FERRY_WORD_STATE_BITS + FERRY_WORD_OWNER_BITS)
#define FERRY_WORD_LAP_MASK ((G_GUINT64_CONSTANT (1) << 48) - 1)

static inline guint64
ferry_word (guint64 lap, guint owner, guint state)
{
  return (lap & FERRY_WORD_LAP_MASK) << FERRY_WORD_LAP_SHIFT | (guint64) owner << FERRY_WORD_STATE_BITS | state;
}

static inline guint
ferry_word_state (guint64 word)
{
  return word & ((1 << FERRY_WORD_STATE_BITS) - 1);
}

static inline guint
ferry_word_owner (guint64 word)
{
  return (word >> FERRY_WORD_STATE_BITS) & ((1 << FERRY_WORD_OWNER_BITS) - 1);
}

static inline guint64
ferry_word_lap (guint64 word)
{
  return word >> FERRY_WORD_LAP_SHIFT;
}

/* How many laps the word is ahead of @lap; negative: behind. */
static inline gint64
ferry_word_lap_ahead (guint64 word, guint64 lap)
{
  return (gint64) ((ferry_word_lap (word) - lap) << 16) >> 16;
}

typedef enum
{
  FERRY_SLOT_EMPTY = 0,
  FERRY_SLOT_WRITING = 1,
  FERRY_SLOT_COMMITTED = 2,
  FERRY_SLOT_TAKEN = 3,
  FERRY_SLOT_VOID = 4,
} FerrySlotState;

typedef enum
{
  FERRY_BLOCK_FREE = 0,
  FERRY_BLOCK_OWNED = 1,
  FERRY_BLOCK_RETIRED = 2,
  FERRY_BLOCK_TRIMMING = 3,
} FerryBlockState;

typedef enum
{
  FERRY_RECORD_FREE = 0,
  FERRY_RECORD_JOINING = 1,
  FERRY_RECORD_ACTIVE = 2,
  FERRY_RECORD_LEAVING = 3,
} FerryRecordState;

typedef enum
{
  FERRY_SHARED_WITHDRAWN = 1 << 0, /* nobody joins any more */
  FERRY_SHARED_CLOSED = 1 << 1,    /* shut down for everybody */
  FERRY_SHARED_ENDED = 1 << 2,     /* a sender ended its stream since the last one joined */
} FerrySharedFlags;

/* A block reference: {class:8, index:24}; no block has this one. */
#define FERRY_NO_BLOCK (G_MAXUINT32)
#define FERRY_BLOCK_REF(klass, index) ((guint32) (klass) << 24 | (index))
#define FERRY_BLOCK_CLASS(ref) ((ref) >> 24)
#define FERRY_BLOCK_INDEX(ref) ((ref) &0xffffff)

typedef struct
{
  guint64 magic;
  guint32 major;
  guint32 minor;
  guint64 features;
  guint64 control_size;
  guint64 data_size;
  guint64 max_bytes;
  guint32 mode;
  guint32 capacity;
  guint32 ring_slots;
  guint32 slot_stride;
  guint32 history;
  guint32 inline_size;
  guint32 n_participants;
  guint32 n_classes;
  guint32 anonymous; /* lives as long as somebody has its descriptors, not as its participants */
  guint32 reserved;
  guint8 identity[16];
} FerrySegmentHeader;

typedef struct
{
  _Atomic guint32 flags;
  _Atomic guint32 epoch;     /* changes with every join, leave and death */
  _Atomic guint32 n_records; /* records below this one were used at some time */
  _Atomic guint32 data_ready;
  _Atomic guint64 repairs;
  _Atomic guint64 bytes_committed;
  _Atomic guint64 bytes_committed_peak;
  _Atomic guint64 in_flight_peak;
  /* of those who left: */
  _Atomic guint64 messages_sent;
  _Atomic guint64 bytes_sent;
  _Atomic guint64 messages_received;
  _Atomic guint64 bytes_received;
  _Atomic guint64 messages_dropped;
  _Atomic guint64 send_waits;
  _Atomic guint64 receive_waits;
} FerrySegmentShared;

typedef struct
{
  /* line 0 */
  _Atomic guint64 word; /* {incarnation:32, unused:16, role:8, state:8} */
  gint64 pid;
  guint64 pid_start;
  guint64 pid_namespace;
  guint32 uid;
  _Atomic guint32 ended;
  _Atomic guint32 exit_incarnation; /* the one that used this record last ... */
  _Atomic guint32 exit_died;        /* ... and whether it died */
  guint8 _pad0[64 - 48];
  /* line 1 */
  _Atomic guint64 cursor;
  guint8 _pad1[64 - 8];
  /* line 2 */
  _Atomic guint32 wake;
  _Atomic guint32 doorbell; /* the pollable descriptor is armed */
  guint8 _pad2[64 - 8];
  /* line 3: counters; [0] by the endpoint's first thread with plain stores, [1] by others, atomically */
  _Atomic guint64 messages[2];
  _Atomic guint64 bytes[2];
  _Atomic guint64 waits;
  _Atomic guint64 dropped;
  guint8 _pad3[64 - 48];
} FerryParticipantRecord;

G_STATIC_ASSERT (sizeof (FerryParticipantRecord) == FERRY_PARTICIPANT_STRIDE);

typedef struct
{
  _Atomic guint64 word;
  guint64 size;
  gint64 timestamp;
  guint32 block;
  guint16 sender;
  guint16 flags;
  guint64 generation; /* of the block */
  guint64 wire_name;
  guint64 wire_version;
  guint8 payload[];
} FerrySlot;

#define FERRY_SLOT_HEADER (56)
G_STATIC_ASSERT (sizeof (FerrySlot) == FERRY_SLOT_HEADER);
G_STATIC_ASSERT (FERRY_SLOT_HEADER + FERRY_MAX_INLINE == 4096);

typedef struct
{
  _Atomic guint64 word;
  _Atomic guint64 committed; /* bytes that are real */
  _Atomic guint64 reserved;  /* bytes that count against the bound: those, and those about to be */
  _Atomic gint64 idle_since; /* monotonic microseconds */
  _Atomic guint64 holders[FERRY_BITMAP_WORDS];
} FerryBlock;

G_STATIC_ASSERT (sizeof (FerryBlock) == 64);

/* What a slot says of its message, copied once. */
typedef struct
{
  guint64 sequence;
  guint64 size;
  gint64 timestamp;
  guint32 block; /* or FERRY_NO_BLOCK */
  guint sender;
  guint64 generation;
  guint64 wire_name;
  guint64 wire_version;
} FerryMessage;

/* A received block in which this process writes for itself alone. */
typedef struct
{
  guint8 *data;  /* the block */
  gsize size;    /* of the message */
  guint8 *begin; /* whole pages: a private mapping */
  gsize length;
  guint32 block;
  gboolean moved;  /* pages outside of these are private, too */
  gboolean copied; /* all of the message is */
} FerryPrivatePages;

typedef enum
{
  FERRY_PUBLISH_OK,
  FERRY_PUBLISH_FAILED,   /* errno says why; the block must not be used by us any more */
  FERRY_PUBLISH_DETACHED, /* was given back before */
} FerryPublishResult;

/* How far the ring had got when a receiver looked at its pace last. */
typedef struct
{
  _Atomic gint64 time; /* ns */
  _Atomic guint64 position;
} FerryPace;

/* One participant's private view. */
typedef struct
{
  FerrySegmentTransport *transport;          /* unowned: it owns us */
  GWeakRef holder;                           /* the same, for those who find us in the list of all segments */
  struct _FerryStore *store;                 /* unowned: of a store that has mapped its memory */
  _Atomic (struct _FerryCourier *) couriers; /* stores whose objects travel here, see ferry-store-ticket.c */
  guint runtime_directory;                   /* a hash of XDG_RUNTIME_DIR as it was when we opened */
  FerrySegmentTransportClass *klass;
  char *name;  /* NULL: it has none */
  char *label; /* "channel 'frames'", for messages */

  guint8 *control;
  gsize control_size;
  guint64 data_size;
  guint64 data_offset; /* of the data area in its file */
  gboolean data_writable;

  /* settings, checked and copied from the header */
  FerryMode mode;
  guint capacity;
  guint64 ring_slots;
  guint64 ring_mask;
  guint lap_shift;
  gsize slot_stride;
  guint history;
  gsize inline_max;
  guint64 max_bytes;
  gboolean anonymous;
  guint8 identity[16];

  /* pointers into the control area */
  _Atomic guint64 *tail;
  _Atomic guint64 *head;
  _Atomic guint64 *rx_sleeping;
  _Atomic guint64 *tx_sleeping;
  _Atomic guint64 *flush_sleeping;
  FerrySegmentShared *shared;
  _Atomic guint32 *class_used;
  FerryParticipantRecord *records;
  guint8 *ring;

  /* blocks: per class */
  struct
  {
    _Atomic guint64 *bitmap;
    FerryBlock *blocks;
    guint n_blocks;
    guint64 data_offset;
    guint64 control_offset;
    guint blocks_per_chunk;
    guint n_chunks;
    _Atomic (gpointer *) chunks; /* n_chunks addresses; NULL: none is mapped */
  } classes[FERRY_N_CLASSES];

  /* who we are */
  FerryRole role;
  guint id;
  guint32 incarnation;
  FerryParticipantRecord *me;
  _Atomic gboolean joined;
  guint fork_generation;
  gpointer first_thread;         /* its mark; its calls need no atomic operations for what follows */
  _Atomic guint32 inside_first;  /* calls in progress by that thread ... */
  _Atomic guint32 inside_others; /* ... and by others */

  /* the lock, see section 2 of the memory model */
  GMutex mutex;
  int lock_fd;
  int spare_fd; /* opened for it before we join */
  guint lock_depth;

  /* what is done before the first call, see ferry_segment_prepare() */
  _Atomic gboolean is_prepared; /* and in fork children likewise */
  gboolean is_late;             /* opened and not joined yet ... */
  guint late_generation;        /* ... in this process */

  /* private hints */
  _Atomic guint64 cached_head; /* senders: head, or the smallest cursor in broadcast */
  _Atomic guint64 own_tail;    /* senders: positions below this are known to be claimed */
  _Atomic guint64 own_head;    /* work queue: positions below this are known to be resolved */
  _Atomic guint64 cached_tail; /* receivers: positions below this are known to be claimed */
  _Atomic gboolean too_close;  /* receivers: senders shall get ahead before the next message is taken */
  FerryPace pace;
  _Atomic guint64 cursor; /* broadcast receivers: the truth of which the record has a copy */
  GMutex cursor_mutex;    /* threads of one broadcast receiver take turns */

  /* sleeping */
  GMutex sleep_mutex;
  guint n_sleepers[3]; /* by FerrySide */
  FerryWaitStrategy wait_strategy;
  _Atomic gint64 mean_wait; /* ns, moving average */
  _Atomic guint32 backoff;  /* pauses before the first look while spinning */
  _Atomic guint32 probe;    /* counts waits that were too long to spin for */
  _Atomic guint32 n_quick_waits;
  _Atomic guint32 answer_delay;                /* before the first look; parts of a pause */
  _Atomic guint32 n_answers;                   /* that were there at the first look, in turn */
  _Atomic guint32 next_index[FERRY_N_ROTATED]; /* senders: where the next block of a small class is looked for */
  _Atomic guint32 n_cold;                      /* how often that was at a block that is not there yet */
  _Atomic gint64 cold_since;                   /* ns, when that number was a multiple last */
  _Atomic gint64 no_warm_up_until;             /* ns: there was no memory for it */
  _Atomic guint32 recent[2];                   /* senders: the blocks allocated last and before; FERRY_NO_BLOCK: none */
  _Atomic guint32 no_reuse;                    /* allocations that shall not wait for a hot block */
  _Atomic guint32 no_reuse_next;
  _Atomic gint64 last_upkeep;
  _Atomic guint32 closed; /* this endpoint was closed */
  int doorbell_fd;
  int timer_fd;
  int epoll_fd;
  GArray *private_pages; /* of FerryPrivatePages, under the mutex of all segments */
} FerrySegment;

typedef enum
{
  FERRY_RING_OK,
  FERRY_RING_FULL,
  FERRY_RING_EMPTY,
  FERRY_RING_PENDING, /* nothing to take now, but a slot is in somebody's hands */
  FERRY_RING_CORRUPT,
} FerryRingResult;

/* ---- ferry-segment.c: layout, participants, lock, repair ---- */

extern guint ferry_fork_generation;

/* Its address tells threads apart. */
extern __thread char ferry_thread_mark __attribute__ ((tls_model ("initial-exec")));

void ferry_segment_init (FerrySegment *self, FerrySegmentTransport *transport);
void ferry_segment_clear (FerrySegment *self);
gboolean ferry_segment_measure (const FerryChannelConfig *config, guint64 *control_size, guint64 *data_size);
gboolean ferry_segment_format (FerrySegment *self, const FerryChannelConfig *config, GError **error);
gboolean ferry_segment_map (FerrySegment *self, GError **error);
gboolean ferry_segment_join (FerrySegment *self, FerryRole role, gboolean *withdrawn, GCancellable *cancellable,
                             GError **error);
void ferry_segment_leave (FerrySegment *self, gboolean views_held);
gboolean ferry_segment_lock (FerrySegment *self, GError **error);
gboolean ferry_segment_lock_within (FerrySegment *self, gint64 patience, GError **error);
gboolean ferry_segment_lock_cancellable (FerrySegment *self, gint64 patience, GCancellable *cancellable,
                                         GError **error);
void ferry_segment_unlock (FerrySegment *self);
gboolean ferry_segment_is_dead (FerrySegment *self, guint id);
guint ferry_segment_repair_dead (FerrySegment *self, gint64 patience);
gboolean ferry_segment_verify (FerrySegment *self, GError **error);
gboolean ferry_segment_set_corrupt (FerrySegment *self, GError **error, const char *what);
gboolean ferry_segment_ended (FerrySegment *self);
gboolean ferry_segment_refork (FerrySegment *self, GError **error);
void ferry_segment_populate (gpointer address, gsize length);
void ferry_segment_prepare (FerrySegment *self);
void ferry_segment_postpone (FerrySegment *self, FerryRole role);
guint ferry_segment_count_role (FerrySegment *self, FerryRole role);

static inline guint
ferry_record_state (guint64 word)
{
  return word & 0xff;
}

static inline FerryRole
ferry_record_role (guint64 word)
{
  return (FerryRole) ((word >> 8) & 0xff);
}

static inline guint32
ferry_record_incarnation (guint64 word)
{
  return word >> 32;
}

static inline guint64
ferry_record_word (guint32 incarnation, FerryRole role, guint state)
{
  return (guint64) incarnation << 32 | (guint64) role << 8 | state;
}

static inline guint
ferry_segment_n_records (FerrySegment *self)
{
  return MIN (atomic_load_explicit (&self->shared->n_records, memory_order_acquire), FERRY_MAX_PARTICIPANTS);
}

/* Counts a message sent or received. The first thread that does pays no atomic
 * operation. */
static inline void
ferry_segment_count (FerrySegment *self, guint64 bytes)
{
  FerryParticipantRecord *me = self->me;

  if (G_LIKELY (self->first_thread == &ferry_thread_mark))
    {
      atomic_store_explicit (&me->messages[0], atomic_load_explicit (&me->messages[0], memory_order_relaxed) + 1,
                             memory_order_relaxed);
      atomic_store_explicit (&me->bytes[0], atomic_load_explicit (&me->bytes[0], memory_order_relaxed) + bytes,
                             memory_order_relaxed);
    }
  else
    {
      atomic_fetch_add_explicit (&me->messages[1], 1, memory_order_relaxed);
      atomic_fetch_add_explicit (&me->bytes[1], bytes, memory_order_relaxed);
    }
}

static inline FerrySlot *
ferry_segment_slot (FerrySegment *self, guint64 position)
{
  return (FerrySlot *) (void *) (self->ring + (position * FERRY_SLOT_STEP & self->ring_mask) * self->slot_stride);
}

/* A block goes from one sender to the next by way of a receiver, which lies in another process or at least has another
 * mapping: ThreadSanitizer has to be told that what the first one wrote came before. */
#ifdef __SANITIZE_THREAD__
void __tsan_acquire (void *address);
void __tsan_release (void *address);
#define FERRY_TSAN_ACQUIRE(address) __tsan_acquire (address)
#define FERRY_TSAN_RELEASE(address) __tsan_release (address)
#else
#define FERRY_TSAN_ACQUIRE(address) ((void) 0)
#define FERRY_TSAN_RELEASE(address) ((void) 0)
#endif

/* The block a slot names; also for those who look at slots that others write. Read once, whatever the compiler thinks: a
 * hostile peer may change it between a check and its use. */
static inline guint32
ferry_slot_block (const FerrySlot *slot)
{
  return __atomic_load_n (&slot->block, __ATOMIC_RELAXED);
}

/* ---- ferry-ring.c ---- */

FerryRingResult ferry_ring_send (FerrySegment *self, const FerryMessage *message, const guint8 *payload);
gconstpointer ferry_ring_next_slot (FerrySegment *self);
FerryRingResult ferry_ring_take (FerrySegment *self, FerryMessage *message, guint8 *payload, guint64 *dropped);
FerryRingResult ferry_ring_drop_oldest (FerrySegment *self);
gboolean ferry_ring_maybe_ready (FerrySegment *self);
gboolean ferry_ring_has_message (FerrySegment *self);
gboolean ferry_ring_spin_ready (FerrySegment *self, gpointer looks);
gboolean ferry_ring_has_room (FerrySegment *self);
guint64 ferry_ring_advance_head (FerrySegment *self);
guint64 ferry_ring_min_cursor (FerrySegment *self, guint64 tail);
guint64 ferry_ring_find_tail (FerrySegment *self);
void ferry_ring_reclaim (FerrySegment *self);
gboolean ferry_ring_forget_one (FerrySegment *self);
gboolean ferry_ring_finish_taken (FerrySegment *self, FerrySlot *slot, guint64 word);

/* ---- ferry-arena.c ---- */

typedef enum
{
  FERRY_ARENA_OK,
  FERRY_ARENA_FULL, /* the bound in bytes, or no free block: wait for one to be freed */
  FERRY_ARENA_ERROR,
} FerryArenaResult;

guint64 ferry_arena_class_size (guint klass);
guint ferry_arena_class_blocks (guint klass);
void ferry_arena_make_warm (FerrySegment *self, guint64 warm_bytes);
void ferry_arena_map_warm (FerrySegment *self);
void ferry_arena_populate (FerrySegment *self);
FerryArenaResult ferry_arena_alloc (FerrySegment *self, guint64 size, gint64 patience, guint32 *block, guint8 **data,
                                    GError **error);
gconstpointer ferry_arena_next_recent (FerrySegment *self);
guint64 ferry_arena_generation (FerrySegment *self, guint32 block);
gboolean ferry_arena_check_ref (FerrySegment *self, guint32 block, guint64 size);
guint8 *ferry_arena_map_block (FerrySegment *self, guint32 block, GError **error);
gboolean ferry_arena_own (FerrySegment *self, guint32 block, guint64 generation);
void ferry_arena_free (FerrySegment *self, guint32 block);
void ferry_arena_hold (FerrySegment *self, guint32 block);
void ferry_arena_unhold (FerrySegment *self, guint32 block, guint id);
void ferry_arena_retire (FerrySegment *self, guint32 block, guint64 generation);
guint64 ferry_arena_trim (FerrySegment *self, gint64 idle_before, guint64 wanted);
void ferry_arena_recount (FerrySegment *self);
void ferry_arena_force_free (FerrySegment *self, guint32 block, guint64 word);
void ferry_arena_free_if_unheld (FerrySegment *self, guint32 block);
void ferry_arena_finish_trim (FerrySegment *self, guint32 block, guint64 word);
gboolean ferry_arena_claim_free_block (FerrySegment *self, guint32 block);
void ferry_arena_free_claimed_block (FerrySegment *self, guint32 block);

static inline FerryBlock *
ferry_arena_block (FerrySegment *self, guint32 block)
{
  return &self->classes[FERRY_BLOCK_CLASS (block)].blocks[FERRY_BLOCK_INDEX (block)];
}

/* ---- ferry-waiter.c ---- */

typedef enum
{
  FERRY_SIDE_RX,    /* waits for messages */
  FERRY_SIDE_TX,    /* waits for room */
  FERRY_SIDE_FLUSH, /* waits for everything to be taken */
} FerrySide;

typedef gboolean (*FerryReadyFunc) (FerrySegment *self, gpointer data);

FerrySegment *ferry_segment_transport_get_segment (FerrySegmentTransport *self);
FerrySegmentTransport *ferry_segment_transport_find (const guint8 identity[16]);
void ferry_store_repair_participant (struct _FerryStore *self, guint dead);

gboolean ferry_segment_transport_maps_by_descriptor (FerrySegmentTransport *self);
gboolean ferry_segment_privatize (FerrySegment *self, guint32 block, guint8 *data, gsize message_size, gsize offset,
                                  gsize size);
FerryPublishResult ferry_segment_publish (FerrySegment *self, guint32 block);
guint ferry_segment_detach_private (FerrySegment *self);
void ferry_segment_forget_private (FerrySegment *self, guint8 *data, gsize size);

gboolean ferry_waiter_spin (FerrySegment *self, FerryReadyFunc ready, gpointer data, gint64 started, gint64 deadline);
gboolean ferry_waiter_may_spin (FerrySegment *self);
void ferry_waiter_learn (FerrySegment *self, gint64 waited);
void ferry_waiter_expect_answer (guint delay);
void ferry_waiter_answer_came (FerrySegment *self, guint delay);
void ferry_waiter_learn_since (FerrySegment *self, gint64 started, gboolean slept);
gint64 ferry_waiter_now (void);
guint32 ferry_waiter_prepare (FerrySegment *self, FerrySide side);
void ferry_waiter_sleep (FerrySegment *self, guint32 seen, gint64 deadline, gboolean idle);
gboolean ferry_waiter_finish (FerrySegment *self, FerrySide side);
void ferry_waiter_wake_one (FerrySegment *self, FerrySide side);
void ferry_waiter_wake_early (FerrySegment *self);
void ferry_waiter_wake_all (FerrySegment *self, FerrySide side);
void ferry_waiter_wake_self (FerrySegment *self);
void ferry_waiter_upkeep (FerrySegment *self, gboolean now);
int ferry_waiter_get_fd (FerrySegment *self, GError **error);
void ferry_waiter_arm (FerrySegment *self, FerrySide side);
void ferry_waiter_disarm (FerrySegment *self, FerrySide side);
void ferry_waiter_drain (FerrySegment *self);
void ferry_waiter_wake_everybody (FerrySegment *self);

/* A pause between two looks: tens of nanoseconds that leave a sibling thread the core. */
static inline void
ferry_waiter_relax (void)
{
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause ();
#elif defined(__aarch64__)
  __asm__ volatile("isb" ::: "memory");
#else
  __asm__ volatile("" ::: "memory");
#endif
}

static inline gboolean
ferry_waiter_any (_Atomic guint64 *bitmap)
{
  return (atomic_load_explicit (&bitmap[0], memory_order_seq_cst)
          | atomic_load_explicit (&bitmap[1], memory_order_seq_cst)
          | atomic_load_explicit (&bitmap[2], memory_order_seq_cst)
          | atomic_load_explicit (&bitmap[3], memory_order_seq_cst))
         != 0;
}

/* Whoever made a message available calls this after a seq_cst operation (store-buffering
 * pattern with ferry_waiter_prepare()). */
static inline void
ferry_waiter_notify_receivers (FerrySegment *self)
{
  if (G_LIKELY (!ferry_waiter_any (self->rx_sleeping)))
    return;
  if (self->mode == FERRY_MODE_BROADCAST)
    ferry_waiter_wake_all (self, FERRY_SIDE_RX);
  else
    ferry_waiter_wake_one (self, FERRY_SIDE_RX);
}

/* Likewise whoever made room, in the ring or in memory. */
static inline void
ferry_waiter_notify_senders (FerrySegment *self)
{
  if (G_UNLIKELY (ferry_waiter_any (self->tx_sleeping)))
    ferry_waiter_wake_one (self, FERRY_SIDE_TX);
  if (G_UNLIKELY (ferry_waiter_any (self->flush_sleeping)) && !ferry_ring_maybe_ready (self))
    ferry_waiter_wake_all (self, FERRY_SIDE_FLUSH);
}

/* ---- protocol steps, at which the kill suite stops a process ---- */

#if FERRY_WITH_STEPS
/* Exported from such builds only: the kill suite lists the steps and arms one of them. */
__attribute__ ((visibility ("default"))) void ferry_step (const char *name);
__attribute__ ((visibility ("default"))) void ferry_step_arm (const char *name, guint nth, int signal);
__attribute__ ((visibility ("default"))) void ferry_step_observe (void (*func) (const char *name));
__attribute__ ((visibility ("default"))) const char *const *ferry_step_list (guint *n_steps);
#define FERRY_STEP(name)                                                                                               \
  do                                                                                                                   \
    {                                                                                                                  \
      static const char *const step_name __attribute__ ((section ("ferry_steps"), used)) = name;                       \
      ferry_step (step_name);                                                                                          \
    }                                                                                                                  \
  while (0)
#else
#define FERRY_STEP(name)                                                                                               \
  do                                                                                                                   \
    {                                                                                                                  \
    }                                                                                                                  \
  while (0)
#endif

G_END_DECLS
