/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The heap of a store, see section 2 of docs/store.md: spans of blocks of one size, each owned by one participant, which
 * alone takes blocks out; what others give back waits in a list of its own (the idea is that of Leijen, Zorn, de Moura:
 * "Mimalloc: Free List Sharding in Action", 2019). What the descriptors say is the truth; lists of free spans, and what
 * a process remembers of its own, can be made anew from them. */

#include "ferry-store-private.h"

#include "ferry-error.h"

#define N_SMALL (28)
#define HEADS_CLASS (N_SMALL) /* heads are a class of their own, behind those of small blocks */
#define N_CLASSES (N_SMALL + 1)
#define SMALL_MAX (8192)
#define GRANULE (16)     /* bytes: the distance of possible blocks */
#define N_BINS (128)     /* of free runs by length: four for each power of two */
#define BIN_LOOKS (32)   /* runs of one bin that are tried before a longer one is taken */
#define GROWTH_MIN (16)  /* spans that are committed at once */
#define GROWTH_MAX (64)  /* likewise, of a large heap */
#define GROWTH_SHIFT (3) /* ... and in between this part of it */
#define PAGE (4096)      /* bytes: descriptors are committed by pages */
#define SPINS (200)      /* looks at the lock before its holder is looked at */
#define SLEEP_US (50)    /* between two looks at the holder */
#define ALL_SPANS (G_MAXUINT32)
#define REMOTE_LISTED (G_GUINT64_CONSTANT (1)) /* the span is on a stack of spans to look at, or about to be */

typedef enum
{
  SPAN_COLD = 0, /* free, without memory */
  SPAN_FREE = 1, /* free, with memory */
  SPAN_SMALL = 2,
  SPAN_HEADS = 3,
  SPAN_LARGE = 4,    /* the first span of a large block */
  SPAN_CONTINUED = 5 /* the others */
} SpanKind;

typedef struct
{
  _Atomic guint32 word;        /* {owner + 1 or 0:16, class:8, kind:8} */
  _Atomic guint32 n_used;      /* blocks that are taken; never too low but after the owner's death */
  _Atomic guint32 bump;        /* blocks from this one on were never used */
  _Atomic guint32 queued;      /* the owner has noted that it has room */
  _Atomic guint64 local;       /* the first free block, by offset; the owner's */
  _Atomic guint64 remote;      /* of those that others gave back; and REMOTE_LISTED */
  _Atomic guint32 next_listed; /* span + 1, on a stack of spans to look at */
  _Atomic guint32 run;         /* LARGE: its spans; first and last of a free run: those of the run */
  _Atomic guint32 next;        /* span + 1: the neighbours in a bin of the first of a free run */
  _Atomic guint32 previous;
  guint8 _pad[64 - 48];
} Span;

G_STATIC_ASSERT (sizeof (Span) == 64);

/* FerryStoreHeader.heap. But for the counters everything is changed under @lock only. */
typedef struct
{
  _Atomic guint64 lock;          /* 0, or who holds it as locks of objects say it */
  _Atomic guint64 used;          /* bytes in blocks: of those who left */
  _Atomic guint64 n_committed;   /* spans with memory */
  _Atomic guint64 n_free;        /* of them: free ones */
  _Atomic guint64 n_cold;        /* free spans without, below heap_end */
  _Atomic guint32 cold_max;      /* no run that has cold spans is longer than this */
  _Atomic guint32 n_slots;       /* participants' slots that were used at some time */
  _Atomic guint32 abandoned[32]; /* by class: there may be spans of nobody that have room */
  _Atomic guint64 bin_bits[N_BINS / 64];
  _Atomic guint32 bins[N_BINS]; /* span + 1 */
} HeapShared;

G_STATIC_ASSERT (sizeof (HeapShared) <= sizeof (((FerryStoreHeader *) NULL)->heap));
G_STATIC_ASSERT (G_STRUCT_OFFSET (FerryStoreHeader, heap) % 8 == 0);

/* FerryStoreSlot.heap */
typedef struct
{
  _Atomic guint64 used; /* bytes in blocks; signed: others' blocks that it freed count here */
  guint8 _pad0[64 - 8];
  _Atomic guint32 listed; /* span + 1: a stack of spans in which somebody else freed a block */
  guint8 _pad1[64 - 4];
} HeapSlot;

G_STATIC_ASSERT (sizeof (HeapSlot) <= sizeof (((FerryStoreSlot *) NULL)->heap));
G_STATIC_ASSERT (G_STRUCT_OFFSET (FerryStoreSlot, heap) % 8 == 0);

typedef struct
{
  Span *span;    /* the current one; its word tells whether it still is ours */
  guint64 begin; /* its memory */
  guint32 word;  /* of our spans of this class */
  guint32 size;
  guint32 capacity;
  guint32 reciprocal; /* 2^32 / size, rounded up: exact for offsets in a span */
  guint32 link;       /* where a free block has the next one's offset */
  guint32 cursor;     /* where to look for spans of nobody */
  GArray *room;       /* of guint32: spans of ours that had room when they were noted */
} HeapClass;

struct _FerryHeap
{
  HeapShared *shared;
  HeapSlot *mine;
  Span *spans;
  guint64 offset; /* of span 0 */
  guint32 n_spans;
  guint32 n_seen; /* spans below this are below heap_end */
  guint32 owner;  /* our number + 1 */
  Span none;      /* current where there is none */
  HeapClass classes[N_CLASSES];
};

struct _FerryMarks
{
  guint64 *bits; /* one a granule */
  guint32 n_spans;
};

#define GRANULES_OF_SPAN (FERRY_STORE_SPAN_SIZE / GRANULE)

/* As many as go into a span with less than 64 bytes a block to spare; from 64 bytes on multiples of 64. */
static const guint16 class_sizes[N_CLASSES] = {
  16,
  32,
  48,
  64,
  128,
  192,
  256,
  320,
  384,
  448,
  512,
  576,
  640,
  704, /* 14 */
  768,
  896,
  1024,
  1152,
  1344,
  1600,
  1792,
  2048,
  2304,
  2688,
  3264,
  4096,
  5440,
  SMALL_MAX, /* 28 */
  FERRY_STORE_OBJECT_SIZE,
};

static guint8 class_table[SMALL_MAX / GRANULE + 1]; /* class of a size in granules, rounded up */

#define get(word) atomic_load_explicit (&(word), memory_order_relaxed)
#define put(word, value) atomic_store_explicit (&(word), (value), memory_order_relaxed)

static inline SpanKind
word_kind (guint32 word)
{
  return (SpanKind) (word & 0xff);
}

static inline guint
word_class (guint32 word)
{
  return (word >> 8) & 0xff;
}

static inline guint
word_owner (guint32 word)
{
  return word >> 16;
}

static inline guint32
make_word (SpanKind kind, guint klass, guint owner)
{
  return (guint32) kind | klass << 8 | owner << 16;
}

static inline _Atomic guint64 *
link_of (FerryStore *self, const HeapClass *klass, guint64 block)
{
  return ferry_store_at (self, block + klass->link);
}

/* Whether a block begins @offset bytes from the start of a span. */
static inline gboolean
is_start (const HeapClass *klass, guint64 offset, guint32 *index)
{
  *index = offset * klass->reciprocal >> 32;
  return offset < FERRY_STORE_SPAN_SIZE && *index * klass->size == offset && *index < klass->capacity;
}

static inline void
count_used (HeapSlot *slot, guint64 change)
{
  put (slot->used, get (slot->used) + change);
}

/* Spans below heap_end. */
static guint32
n_spans_now (FerryStore *self)
{
  FerryHeap *heap = self->heap;
  guint64 end = atomic_load_explicit (&self->header->heap_end, memory_order_acquire);
  guint64 n = end > heap->offset ? (end - heap->offset) >> FERRY_STORE_SPAN_SHIFT : 0;

  heap->n_seen = MIN (n, heap->n_spans);
  return heap->n_seen;
}

static inline guint64
span_offset (const FerryHeap *heap, guint32 index)
{
  return heap->offset + ((guint64) index << FERRY_STORE_SPAN_SHIFT);
}

/* The span of an offset out of shared memory, or NULL. */
static inline Span *
find_span (FerryStore *self, guint64 block, guint64 *offset, guint32 *index)
{
  FerryHeap *heap = self->heap;
  guint64 i = (block - heap->offset) >> FERRY_STORE_SPAN_SHIFT;

  if (G_UNLIKELY (i >= heap->n_seen) && (block < heap->offset || i >= n_spans_now (self)))
    return NULL;
  *index = i;
  *offset = (block - heap->offset) & (FERRY_STORE_SPAN_SIZE - 1);
  return &heap->spans[i];
}

/* What others should not have written was found: somebody should make it right. */
static void
ask_for_collection (FerryStore *self)
{
  atomic_store_explicit (&self->header->needs_collect, 1, memory_order_relaxed);
}

static HeapSlot *
slot_of (FerryStore *self, guint id)
{
  FerryStoreSlot *slot = ferry_store_at (self, FERRY_STORE_OFFSET_SLOTS + (guint64) id * FERRY_STORE_SLOT_SIZE);

  return (HeapSlot *) (void *) slot->heap;
}

static guint
n_slots_used (FerryStore *self)
{
  return MIN (atomic_load_explicit (&self->heap->shared->n_slots, memory_order_acquire), FERRY_MAX_PARTICIPANTS);
}

/* Whether the number in a descriptor is that of somebody whose slot can be touched. */
static inline gboolean
is_participant (FerryStore *self, guint owner)
{
  return owner != 0 && owner <= FERRY_MAX_PARTICIPANTS && ferry_store_slot_ready (self, owner - 1);
}

/* ---- the lock of the heap ---- */

static inline guint64
own_word (FerryStore *self)
{
  return self->owner_bits | FERRY_LOCK_LOCKED;
}

static gboolean
is_holder_gone (FerryStore *self, guint64 word)
{
  guint id = (word >> FERRY_LOCK_OWNER_SHIFT) & 0xff;
  guint32 incarnation = (word >> FERRY_LOCK_INCARNATION_SHIFT) & FERRY_LOCK_INCARNATION_MASK;
  guint64 record;

  /* Threads of one participant don't meet here. */
  if (word == own_word (self) || id >= ferry_segment_n_records (self->segment))
    return TRUE;
  record = atomic_load_explicit (&self->segment->records[id].word, memory_order_acquire);
  return ferry_record_state (record) == FERRY_RECORD_FREE
         || (ferry_record_incarnation (record) & FERRY_LOCK_INCARNATION_MASK) != incarnation
         || ferry_segment_is_dead (self->segment, id);
}

static void rebuild (FerryStore *self);

/* Who is in a hurry waits as long, in microseconds: a large block that can't be given back stays until a collection, and who has
 * the lock for longer than that is stopped. */
#define HURRY_US (10 * 1000)

static gboolean G_GNUC_NO_INLINE
lock_heap_slow (FerryStore *self, GError **error)
{
  _Atomic guint64 *lock = &self->heap->shared->lock;
  gint64 begun = g_get_monotonic_time ();
  gint64 longest = MAX (ferry_store_patience (self), HURRY_US);

  for (;;)
    {
      guint64 word = 0;

      for (guint i = 0; i < SPINS; i++)
        {
          word = get (*lock);
          if (word == 0
              && atomic_compare_exchange_strong_explicit (lock, &word, own_word (self), memory_order_acquire,
                                                          memory_order_relaxed))
            return TRUE;
          ferry_waiter_relax ();
        }
      if (word != 0 && is_holder_gone (self, word)
          && atomic_compare_exchange_strong_explicit (lock, &word, own_word (self), memory_order_acquire,
                                                      memory_order_relaxed))
        {
          FERRY_STEP ("store-heap-lock-stolen");
          rebuild (self);
          return TRUE;
        }
      if (g_get_monotonic_time () - begun >= longest)
        {
          g_set_error (
              error, FERRY_ERROR, FERRY_ERROR_TIMED_OUT,
              "%s: participant %u has had the heap locked for %g s; its process seems to be stopped: let it go "
              "on or end it",
              self->label, (guint) (word >> FERRY_LOCK_OWNER_SHIFT) & 0xff, (double) longest / G_USEC_PER_SEC);
          return FALSE;
        }
      g_usleep (SLEEP_US);
    }
}

static inline gboolean
lock_heap (FerryStore *self, GError **error)
{
  guint64 word = 0;

  /* pairs with the release store in unlock_heap() */
  if (G_LIKELY (atomic_compare_exchange_strong_explicit (&self->heap->shared->lock, &word, own_word (self),
                                                         memory_order_acquire, memory_order_relaxed)))
    {
      FERRY_STEP ("store-heap-locked");
      return TRUE;
    }
  return lock_heap_slow (self, error);
}

static inline void
unlock_heap (FerryStore *self)
{
  FERRY_STEP ("store-heap-unlock");
  atomic_store_explicit (&self->heap->shared->lock, 0, memory_order_release);
}

/* ---- free runs of spans; all of it under the lock ---- */

static inline guint
bin_of (guint32 n)
{
  guint e;

  if (n < 4)
    return n;
  e = 31 - (guint) __builtin_clz (n);
  return 4 * (e - 1) + ((n >> (e - 2)) & 3);
}

static void
count_committed (FerryStore *self, guint64 change)
{
  HeapShared *shared = self->heap->shared;
  FerrySegmentShared *statistics = self->segment->shared;
  guint64 bytes;

  put (shared->n_committed, get (shared->n_committed) + change);
  bytes = get (shared->n_committed) << FERRY_STORE_SPAN_SHIFT;
  put (statistics->bytes_committed, bytes);
  if (bytes > get (statistics->bytes_committed_peak))
    put (statistics->bytes_committed_peak, bytes);
}

static void
insert_run (FerryStore *self, guint32 first, guint32 n)
{
  FerryHeap *heap = self->heap;
  HeapShared *shared = heap->shared;
  guint bin = bin_of (n);
  guint32 next = get (shared->bins[bin]);

  put (heap->spans[first].run, n);
  put (heap->spans[first + n - 1].run, n);
  put (heap->spans[first].next, next);
  put (heap->spans[first].previous, 0);
  if (next != 0 && next <= heap->n_seen)
    put (heap->spans[next - 1].previous, first + 1);
  put (shared->bins[bin], first + 1);
  put (shared->bin_bits[bin / 64], get (shared->bin_bits[bin / 64]) | G_GUINT64_CONSTANT (1) << bin % 64);
  put (shared->n_free, get (shared->n_free) + n);
}

/* FALSE: the bins aren't what they should be. */
static gboolean
remove_run (FerryStore *self, guint32 first, guint32 n)
{
  FerryHeap *heap = self->heap;
  HeapShared *shared = heap->shared;
  guint bin = bin_of (n);
  guint32 next = get (heap->spans[first].next);
  guint32 previous = get (heap->spans[first].previous);

  if (next > heap->n_seen || previous > heap->n_seen
      || (previous == 0 ? get (shared->bins[bin]) : get (heap->spans[previous - 1].next)) != first + 1
      || (next != 0 && get (heap->spans[next - 1].previous) != first + 1))
    return FALSE;
  if (previous != 0)
    put (heap->spans[previous - 1].next, next);
  else
    put (shared->bins[bin], next);
  if (next != 0)
    put (heap->spans[next - 1].previous, previous);
  if (get (shared->bins[bin]) == 0)
    put (shared->bin_bits[bin / 64], get (shared->bin_bits[bin / 64]) & ~(G_GUINT64_CONSTANT (1) << bin % 64));
  put (shared->n_free, get (shared->n_free) - n);
  return TRUE;
}

/* The length of the run that begins or ends at the free span @index; 0: it can't be right. */
static guint32
run_at (FerryHeap *heap, guint32 index, gboolean ends)
{
  guint32 n = get (heap->spans[index].run);
  guint32 other;

  if (n == 0 || index >= heap->n_seen || (ends ? n > index + 1 : n > heap->n_seen - index))
    return 0;
  other = ends ? index + 1 - n : index + n - 1;
  if (get (heap->spans[other].word) != SPAN_FREE || get (heap->spans[other].run) != n)
    return 0;
  return n;
}

/* Makes @n spans that are marked as FREE already a run, with their neighbours. */
static void
free_run (FerryStore *self, guint32 first, guint32 n)
{
  FerryHeap *heap = self->heap;
  guint32 other;

  if (first > 0 && get (heap->spans[first - 1].word) == SPAN_FREE)
    {
      other = run_at (heap, first - 1, TRUE);
      if (other == 0 || !remove_run (self, first - other, other))
        {
          rebuild (self);
          return;
        }
      first -= other;
      n += other;
    }
  if (first < heap->n_seen && n < heap->n_seen - first && get (heap->spans[first + n].word) == SPAN_FREE)
    {
      other = run_at (heap, first + n, FALSE);
      if (other == 0 || !remove_run (self, first + n, other))
        {
          rebuild (self);
          return;
        }
      n += other;
    }
  insert_run (self, first, n);
}

/* Makes the bins, and the counts of spans, of what the descriptors say. */
static void
rebuild (FerryStore *self)
{
  FerryHeap *heap = self->heap;
  HeapShared *shared = heap->shared;
  guint32 n_spans = n_spans_now (self);
  guint64 n_cold = 0;
  guint32 begin = 0;
  guint32 i = 0;

  for (guint bin = 0; bin < N_BINS; bin++)
    put (shared->bins[bin], 0);
  for (guint word = 0; word < G_N_ELEMENTS (shared->bin_bits); word++)
    put (shared->bin_bits[word], 0);
  put (shared->n_free, 0);
  FERRY_STEP ("store-heap-rebuild");
  while (i <= n_spans)
    {
      SpanKind kind = i < n_spans ? word_kind (get (heap->spans[i].word)) : SPAN_COLD;
      guint32 n = 1;

      switch (kind)
        {
        case SPAN_LARGE:
          {
            guint32 run = get (heap->spans[i].run);

            /* Who marked it had marked the others before. */
            while (n < run && i + n < n_spans && word_kind (get (heap->spans[i + n].word)) == SPAN_CONTINUED)
              n++;
            put (heap->spans[i].run, n);
            break;
          }
        case SPAN_SMALL:
        case SPAN_HEADS:
          break;
        case SPAN_COLD:
          n_cold += i < n_spans;
          break;
        case SPAN_FREE:
        case SPAN_CONTINUED: /* its first span is not marked: taken by halves, or given back by halves */
        default:
          put (heap->spans[i].word, SPAN_FREE);
          i++;
          continue;
        }
      if (begin < i)
        insert_run (self, begin, i - begin);
      i += n;
      begin = i;
    }
  put (shared->n_cold, n_cold);
  put (shared->cold_max, n_cold > 0 ? G_MAXUINT32 : 0);
  count_committed (self, n_spans - n_cold - get (shared->n_committed));
}

/* A run of at least @n, out of its bin: its first span and length. FALSE: there is none. */
static gboolean
find_run (FerryStore *self, guint32 n, guint32 *first, guint32 *length)
{
  FerryHeap *heap = self->heap;
  HeapShared *shared = heap->shared;

  for (guint try = 0; try < 2; try++)
    {
      guint bin = bin_of (n);
      guint32 at = get (shared->bins[bin]);
      gboolean good = TRUE;

      /* Of this length there may be shorter ones, too. */
      for (guint look = 0; look < BIN_LOOKS && at != 0 && good; look++)
        {
          good = at <= heap->n_seen && get (heap->spans[at - 1].word) == SPAN_FREE;
          if (good && get (heap->spans[at - 1].run) >= n)
            break;
          if (good)
            at = look + 1 < BIN_LOOKS ? get (heap->spans[at - 1].next) : 0;
        }
      if (good && at == 0)
        {
          guint64 bits = 0;

          bin++;
          for (guint word = bin / 64; word < G_N_ELEMENTS (shared->bin_bits) && bits == 0; word++)
            {
              bits = get (shared->bin_bits[word]);
              if (word == bin / 64)
                bits &= ~(guint64) 0 << bin % 64;
              if (bits != 0)
                at = get (shared->bins[word * 64 + (guint) __builtin_ctzll (bits)]);
            }
          if (bits == 0)
            return FALSE;
        }
      if (good && at >= 1 && at <= heap->n_seen && get (heap->spans[at - 1].word) == SPAN_FREE)
        {
          *first = at - 1;
          *length = run_at (heap, *first, FALSE);
          if (*length >= n && remove_run (self, *first, *length))
            return TRUE;
        }
      rebuild (self);
    }
  return FALSE;
}

/* Takes @n spans out of the free ones with memory. They stay marked as FREE until the caller has marked them. */
static gboolean
take_free (FerryStore *self, guint32 n, guint32 *first)
{
  FerryHeap *heap = self->heap;
  guint32 length;

  for (guint try = 0; try < 2; try++)
    {
      guint32 n_good = 0;

      if (!find_run (self, n, first, &length))
        return FALSE;
      while (n_good < n && get (heap->spans[*first + n_good].word) == SPAN_FREE)
        n_good++;
      if (G_LIKELY (n_good == n))
        {
          if (length > n)
            insert_run (self, *first + n, length - n);
          return TRUE;
        }
      rebuild (self);
    }
  return FALSE;
}

/* Gives the memory of up to @n free spans back; the longest runs first. Returns how many. */
static guint32
trim_free (FerryStore *self, guint32 n)
{
  FerryHeap *heap = self->heap;
  HeapShared *shared = heap->shared;
  guint32 n_trimmed = 0;

  for (guint bin = N_BINS; bin-- > 0 && n_trimmed < n;)
    for (guint32 guard = 0; guard <= heap->n_seen && n_trimmed < n; guard++)
      {
        guint32 at = get (shared->bins[bin]);
        guint32 length;
        guint32 part;
        guint32 begin;

        if (at == 0)
          break;
        length = at <= heap->n_seen && get (heap->spans[at - 1].word) == SPAN_FREE ? run_at (heap, at - 1, FALSE) : 0;
        if (length == 0 || !remove_run (self, at - 1, length))
          {
            rebuild (self);
            break;
          }
        part = MIN (length, n - n_trimmed);
        begin = at - 1 + length - part;
        if (part < length)
          insert_run (self, at - 1, length - part);
        for (guint32 i = begin; i < begin + part; i++)
          put (heap->spans[i].word, SPAN_COLD);
        FERRY_STEP ("store-heap-cold");
        /* Who dies here leaves memory that does not count; it counts when it is used again. */
        atomic_thread_fence (memory_order_release);
        if (!self->segment->klass->decommit_pages (self->segment->transport, FERRY_SEGMENT_AREA_DATA,
                                                   span_offset (heap, begin), (guint64) part << FERRY_STORE_SPAN_SHIFT,
                                                   NULL))
          {
            for (guint32 i = begin; i < begin + part; i++)
              put (heap->spans[i].word, SPAN_FREE);
            free_run (self, begin, part);
            return n_trimmed;
          }
        FERRY_STEP ("store-heap-decommitted");
        n_trimmed += part;
        put (shared->n_cold, get (shared->n_cold) + part);
        put (shared->cold_max, G_MAXUINT32);
        count_committed (self, -(guint64) part);
      }
  return n_trimmed;
}

static gboolean
commit_spans (FerryStore *self, guint32 first, guint32 n, GError **error)
{
  return self->segment->klass->commit_pages (self->segment->transport, FERRY_SEGMENT_AREA_DATA,
                                             span_offset (self->heap, first), (guint64) n << FERRY_STORE_SPAN_SHIFT,
                                             error);
}

static guint64
max_spans (FerryStore *self)
{
  return self->max_bytes >> FERRY_STORE_SPAN_SHIFT;
}

/* How many spans may be committed yet. */
static guint64
spans_left (FerryStore *self)
{
  guint64 n = get (self->heap->shared->n_committed);

  return max_spans (self) - MIN (n, max_spans (self));
}

/* Gives memory to free spans without, so that there is a run of @n. */
static gboolean
warm_run (FerryStore *self, guint32 n, GError **error)
{
  FerryHeap *heap = self->heap;
  HeapShared *shared = heap->shared;
  guint32 begin = 0;
  guint32 end = 0;
  guint32 n_cold = 0;
  guint32 longest = 0;

  if (get (shared->n_cold) == 0 || n > get (shared->cold_max))
    return FALSE;
  for (guint32 i = 0; i < heap->n_seen && end - begin < n; i++)
    {
      guint32 word = get (heap->spans[i].word);

      if (word == SPAN_COLD || word == SPAN_FREE)
        {
          n_cold = (begin == end ? 0 : n_cold) + (word == SPAN_COLD);
          begin = begin == end ? i : begin;
          end = i + 1;
          longest = MAX (longest, end - begin);
        }
      else
        begin = end = i + 1;
    }
  if (end - begin < n)
    {
      put (shared->cold_max, longest);
      return FALSE;
    }
  if (n_cold > spans_left (self))
    return FALSE;
  for (guint32 i = begin; i < end;)
    {
      guint32 part = 0;

      while (i + part < end && get (heap->spans[i + part].word) == SPAN_COLD)
        part++;
      if (part == 0)
        {
          i++;
          continue;
        }
      if (!commit_spans (self, i, part, error))
        return FALSE;
      FERRY_STEP ("store-heap-warm");
      for (guint32 j = i; j < i + part; j++)
        put (heap->spans[j].word, SPAN_FREE);
      put (shared->n_cold, get (shared->n_cold) - MIN (part, get (shared->n_cold)));
      count_committed (self, part);
      free_run (self, i, part);
      i += part;
    }
  return TRUE;
}

/* Lets the heap grow so that there is a run of @n at its end. */
static gboolean
grow (FerryStore *self, guint32 n, GError **error)
{
  FerryHeap *heap = self->heap;
  guint32 first = heap->n_seen;
  guint32 tail = 0;
  guint64 left = MIN (spans_left (self), heap->n_spans - first);
  guint64 table;
  guint64 table_end;
  guint32 step;

  if (first > 0 && get (heap->spans[first - 1].word) == SPAN_FREE)
    tail = run_at (heap, first - 1, TRUE);
  n -= MIN (tail, n);
  if (n > left)
    return FALSE;
  step = MIN (MAX (n, CLAMP (first >> GROWTH_SHIFT, GROWTH_MIN, GROWTH_MAX)), left);
  /* The page of a descriptor that is in use has memory. */
  table = FERRY_STORE_OFFSET_SPANS + ((guint64) first * sizeof (Span) + PAGE - 1) / PAGE * PAGE;
  table_end = FERRY_STORE_OFFSET_SPANS + (((guint64) first + step) * sizeof (Span) + PAGE - 1) / PAGE * PAGE;
  if (table < table_end
      && !self->segment->klass->commit_pages (self->segment->transport, FERRY_SEGMENT_AREA_DATA, table,
                                              table_end - table, error))
    return FALSE;
  if (!commit_spans (self, first, step, step > n ? NULL : error))
    {
      if (step == n || !commit_spans (self, first, n, error))
        return FALSE;
      step = n;
    }
  FERRY_STEP ("store-heap-grow");
  for (guint32 i = first; i < first + step; i++)
    put (heap->spans[i].word, SPAN_FREE);
  FERRY_STEP ("store-heap-grow-marked");
  atomic_store_explicit (&self->header->heap_end, span_offset (heap, first + step), memory_order_release);
  FERRY_STEP ("store-heap-grown");
  heap->n_seen = first + step;
  count_committed (self, step);
  free_run (self, first, step);
  return TRUE;
}

/* A run of @n by any means that leave what is in use alone. */
static gboolean
take_spans (FerryStore *self, guint32 n, guint32 *first, GError **error)
{
  n_spans_now (self);
  return take_free (self, n, first) || (warm_run (self, n, error) && take_free (self, n, first))
         || (*error == NULL && grow (self, n, error) && take_free (self, n, first));
}

/* ---- own spans ---- */

static inline HeapClass *
class_of_word (FerryHeap *heap, guint32 word)
{
  guint klass = word_class (word);

  if (word_kind (word) == SPAN_SMALL && klass < N_SMALL)
    return &heap->classes[klass];
  if (word_kind (word) == SPAN_HEADS && klass == HEADS_CLASS)
    return &heap->classes[klass];
  return NULL;
}

/* Follows a list of free blocks of the span that begins at @begin: how many there are, and the last. What can't be right is cut off. */
static guint32
walk_list (FerryStore *self, const HeapClass *klass, guint64 begin, guint64 block, guint64 *last)
{
  guint32 n = 0;
  guint32 index;

  *last = 0;
  while (block != 0)
    {
      if (!is_start (klass, block - begin, &index) || n >= klass->capacity)
        {
          ask_for_collection (self);
          if (*last != 0)
            put (*link_of (self, klass, *last), 0);
          break;
        }
      *last = block;
      n++;
      block = get (*link_of (self, klass, block));
    }
  return n;
}

/* Takes over what others gave back. @unlist: the span was taken off the stack. */
static void
take_remote (FerryStore *self, const HeapClass *klass, Span *span, guint64 begin, gboolean unlist)
{
  guint64 remote = get (span->remote);
  guint64 last;
  guint64 block;
  guint32 n;

  if (!unlist && (remote & ~REMOTE_LISTED) == 0)
    return;
  /* acquire: pairs with the release in give_to_owner() */
  while (!atomic_compare_exchange_weak_explicit (&span->remote, &remote, unlist ? 0 : remote & REMOTE_LISTED,
                                                 memory_order_acquire, memory_order_relaxed))
    ;
  FERRY_STEP ("store-heap-remote-taken");
  block = remote & ~REMOTE_LISTED;
  n = walk_list (self, klass, begin, block, &last);
  if (n == 0)
    return;
  put (*link_of (self, klass, last), get (span->local));
  FERRY_STEP ("store-heap-remote-linked");
  atomic_store_explicit (&span->local, block, memory_order_release);
  FERRY_STEP ("store-heap-remote-local");
  put (span->n_used, get (span->n_used) - MIN (n, get (span->n_used)));
}

static gboolean
has_room (const HeapClass *klass, Span *span)
{
  return get (span->local) != 0 || get (span->bump) < klass->capacity || (get (span->remote) & ~REMOTE_LISTED) != 0;
}

static void
note_room (FerryHeap *heap, HeapClass *klass, guint32 index)
{
  put (heap->spans[index].queued, 1);
  g_array_append_val (klass->room, index);
}

static void
list_span (FerryStore *self, guint id, guint32 index)
{
  HeapSlot *slot = slot_of (self, id);
  guint32 head = get (slot->listed);

  do
    put (self->heap->spans[index].next_listed, head);
  while (!atomic_compare_exchange_weak_explicit (&slot->listed, &head, index + 1, memory_order_release,
                                                 memory_order_relaxed));
}

/* A wholly free span of ours is anybody's. */
static void
return_span (FerryStore *self, Span *span, guint32 index)
{
  /* On a stack: not now. */
  if (get (span->remote) != 0 || !lock_heap (self, NULL))
    return;
  n_spans_now (self);
  atomic_store_explicit (&span->word, SPAN_FREE, memory_order_release);
  FERRY_STEP ("store-heap-span-returned");
  free_run (self, index, 1);
  unlock_heap (self);
}

/* A span was taken off the stack of one that is not its owner any more. */
static void
pass_on (FerryStore *self, Span *span, guint32 index, guint32 word)
{
  HeapShared *shared = self->heap->shared;

  if (is_participant (self, word_owner (word)))
    {
      list_span (self, word_owner (word) - 1, index);
      return;
    }
  atomic_fetch_and_explicit (&span->remote, ~REMOTE_LISTED, memory_order_relaxed);
  atomic_store_explicit (&shared->abandoned[word_class (word)], 1, memory_order_seq_cst);
}

/* Looks at the spans in which others have freed blocks. */
static void
look_at_listed (FerryStore *self)
{
  FerryHeap *heap = self->heap;
  guint32 at;

  if (get (heap->mine->listed) == 0)
    return;
  /* pairs with the release in list_span() */
  at = atomic_exchange_explicit (&heap->mine->listed, 0, memory_order_acquire);
  FERRY_STEP ("store-heap-listed-taken");
  n_spans_now (self);
  for (guint32 guard = 0; at != 0 && guard < heap->n_seen; guard++)
    {
      guint32 index = at - 1;
      Span *span;
      HeapClass *klass;
      guint32 word;

      if (index >= heap->n_seen)
        {
          ask_for_collection (self);
          return;
        }
      span = &heap->spans[index];
      at = get (span->next_listed);
      word = get (span->word);
      klass = class_of_word (heap, word);
      if (klass == NULL)
        continue;
      if (word_owner (word) != heap->owner)
        {
          pass_on (self, span, index, word);
          continue;
        }
      take_remote (self, klass, span, span_offset (heap, index), TRUE);
      if (get (span->n_used) == 0 && klass->span != span && word_kind (word) == SPAN_SMALL)
        return_span (self, span, index);
      if (get (span->word) == klass->word && get (span->queued) == 0 && has_room (klass, span))
        note_room (heap, klass, index);
    }
}

/* Makes a span of nobody ours. FALSE: somebody else was faster. */
static gboolean
adopt_span (FerryStore *self, HeapClass *klass, guint32 index)
{
  FerryHeap *heap = self->heap;
  Span *span = &heap->spans[index];
  guint32 word = klass->word & 0xffff;
  guint64 begin = span_offset (heap, index);
  guint64 last;
  guint64 block;
  guint32 bump;
  guint32 n;

  /* pairs with the release in ferry_store_heap_abandon() */
  if (!atomic_compare_exchange_strong_explicit (&span->word, &word, klass->word, memory_order_acquire,
                                                memory_order_relaxed))
    return FALSE;
  FERRY_STEP ("store-heap-adopted");
  put (span->queued, 0);
  bump = MIN (get (span->bump), klass->capacity);
  /* Who had it may have died between two stores. */
  block = get (span->local);
  n = walk_list (self, klass, begin, block, &last);
  if (n == 0)
    put (span->local, 0);
  put (span->n_used, bump - MIN (n, bump));
  take_remote (self, klass, span, begin, FALSE);
  return TRUE;
}

/* Adopts spans of the class until one has room. */
static gboolean
adopt (FerryStore *self, HeapClass *klass, guint32 *index)
{
  FerryHeap *heap = self->heap;
  _Atomic guint32 *hint = &heap->shared->abandoned[word_class (klass->word)];
  guint32 n_spans;

  if (get (*hint) == 0)
    return FALSE;
  atomic_store_explicit (hint, 0, memory_order_seq_cst);
  n_spans = n_spans_now (self);
  for (guint32 i = 0; i < n_spans; i++)
    {
      guint32 at = klass->cursor < n_spans ? klass->cursor : 0;

      klass->cursor = at + 1;
      if (get (heap->spans[at].word) == (klass->word & 0xffff) && adopt_span (self, klass, at)
          && has_room (klass, &heap->spans[at]))
        {
          atomic_store_explicit (hint, 1, memory_order_relaxed);
          *index = at;
          return TRUE;
        }
    }
  return FALSE;
}

/* Gives all free spans back that nobody but us can know to be free, and those of nobody. */
static void
return_free_spans (FerryStore *self)
{
  FerryHeap *heap = self->heap;
  guint32 n_spans;

  look_at_listed (self);
  for (guint i = 0; i < N_SMALL; i++)
    {
      HeapClass *klass = &heap->classes[i];
      Span *span = klass->span;

      if (span == &heap->none || get (span->word) != klass->word)
        continue;
      take_remote (self, klass, span, klass->begin, FALSE);
      if (get (span->n_used) == 0)
        {
          guint32 index = span - heap->spans;

          klass->span = &heap->none;
          /* When it can't be returned it is one of those with room. */
          note_room (heap, klass, index);
          return_span (self, span, index);
        }
    }
  n_spans = n_spans_now (self);
  for (guint32 i = 0; i < n_spans; i++)
    {
      guint32 word = get (heap->spans[i].word);
      HeapClass *klass = class_of_word (heap, word);

      if (klass == NULL || word_owner (word) != 0 || word_kind (word) != SPAN_SMALL || !adopt_span (self, klass, i))
        continue;
      if (get (heap->spans[i].n_used) == 0)
        return_span (self, &heap->spans[i], i);
      if (get (heap->spans[i].word) == klass->word && has_room (klass, &heap->spans[i]))
        note_room (heap, klass, i);
    }
}

static void
set_no_space (FerryStore *self, guint64 size, GError *cause, GError **error)
{
  g_autofree char *wanted = g_format_size_full (size, G_FORMAT_SIZE_IEC_UNITS);
  g_autofree char *bound = g_format_size_full (self->max_bytes, G_FORMAT_SIZE_IEC_UNITS);
  g_autofree char *used = g_format_size_full (ferry_store_heap_bytes_used (self), G_FORMAT_SIZE_IEC_UNITS);
  g_autofree char *committed = g_format_size_full (ferry_store_heap_bytes_committed (self), G_FORMAT_SIZE_IEC_UNITS);

  if (cause != NULL)
    g_set_error (error, FERRY_ERROR, FERRY_ERROR_NO_SPACE,
                 "%s: there is no memory for %s more (%s used, max-bytes=%" G_GUINT64_FORMAT "): %s", self->label,
                 wanted, used, self->max_bytes, cause->message);
  else
    g_set_error (
        error, FERRY_ERROR, FERRY_ERROR_NO_SPACE,
        "%s: no room for %s: %s of at most %s are used, and spread over %s of memory; delete something, let it "
        "collect what nobody refers to any more, or make it with a max-bytes larger than %" G_GUINT64_FORMAT,
        self->label, wanted, used, bound, committed, self->max_bytes);
}

/* @n spans, marked as nothing yet, with the heap locked; when it returns FALSE it is not. */
static gboolean
get_spans (FerryStore *self, guint64 n, guint64 size, guint32 *first, GError **error)
{
  g_autoptr (GError) cause = NULL;

  if (n <= MIN (max_spans (self), self->heap->n_spans))
    {
      if (!lock_heap (self, error))
        return FALSE;
      if (G_LIKELY (take_spans (self, n, first, &cause)))
        return TRUE;
      unlock_heap (self);

      g_clear_error (&cause);
      return_free_spans (self);
      if (!lock_heap (self, error))
        return FALSE;
      if (take_spans (self, n, first, &cause))
        return TRUE;
      /* Memory of free spans that lie apart is used for a run of others. */
      if (trim_free (self, cause != NULL ? n + 1 : n - MIN (n, spans_left (self))) > 0) /* + 1: for descriptors */
        {
          g_clear_error (&cause);
          if (take_spans (self, n, first, &cause))
            return TRUE;
        }
      unlock_heap (self);
    }
  set_no_space (self, size, cause, error);
  return FALSE;
}

static gboolean
new_span (FerryStore *self, HeapClass *klass, guint32 *index, GError **error)
{
  FerryHeap *heap = self->heap;
  Span *span;

  if (!get_spans (self, 1, klass->size, index, error))
    return FALSE;
  span = &heap->spans[*index];
  /* A head's version begins with 0; nobody may take for a head what was something else. */
  if (word_kind (klass->word) == SPAN_HEADS)
    memset (ferry_store_at (self, span_offset (heap, *index)), 0, FERRY_STORE_SPAN_SIZE);
  put (span->n_used, 0);
  put (span->bump, 0);
  put (span->queued, 0);
  put (span->local, 0);
  put (span->remote, 0);
  FERRY_STEP ("store-heap-span-clean");
  atomic_store_explicit (&span->word, klass->word, memory_order_release);
  FERRY_STEP ("store-heap-span-taken");
  unlock_heap (self);
  return TRUE;
}

static inline guint64
take_block (FerryStore *self, HeapClass *klass)
{
  HeapSlot *mine = self->heap->mine;
  Span *span = klass->span;
  guint64 block;
  guint32 index;

  if (G_UNLIKELY (get (span->word) != klass->word))
    return 0;
  block = get (span->local);
  if (G_LIKELY (block != 0))
    {
      if (G_UNLIKELY (!is_start (klass, block - klass->begin, &index)))
        {
          ask_for_collection (self);
          put (span->local, 0);
          return 0;
        }
      put (span->local, get (*link_of (self, klass, block)));
      FERRY_STEP ("store-heap-taken");
    }
  else
    {
      index = get (span->bump);
      if (index >= klass->capacity)
        return 0;
      put (span->bump, index + 1);
      FERRY_STEP ("store-heap-taken-new");
      block = klass->begin + (guint64) index * klass->size;
    }
  put (span->n_used, get (span->n_used) + 1);
  FERRY_STEP ("store-heap-taken-counted");
  count_used (mine, klass->size);
  return block;
}

static void
set_current (FerryHeap *heap, HeapClass *klass, guint32 index)
{
  klass->span = &heap->spans[index];
  klass->begin = span_offset (heap, index);
  put (klass->span->queued, 1); /* it need not be noted */
}

/* A block of a span of ours, or of nobody. 0: there is none. */
static guint64
take_from_own (FerryStore *self, HeapClass *klass)
{
  FerryHeap *heap = self->heap;
  guint64 block;
  guint32 index;

  look_at_listed (self);
  for (;;)
    {
      Span *span = klass->span;

      if (span != &heap->none && get (span->word) == klass->word)
        {
          if (get (span->local) == 0)
            take_remote (self, klass, span, klass->begin, FALSE);
          block = take_block (self, klass);
          if (block != 0)
            return block;
          /* Who gives a block of it back from now on lists it. */
          put (span->queued, 0);
        }
      klass->span = &heap->none;
      if (klass->room->len > 0)
        {
          index = g_array_index (klass->room, guint32, klass->room->len - 1);
          g_array_set_size (klass->room, klass->room->len - 1);
          /* It may have been returned meanwhile, and be somebody else's. */
          if (index >= heap->n_seen || get (heap->spans[index].word) != klass->word)
            continue;
        }
      else if (!adopt (self, klass, &index))
        return 0;
      set_current (heap, klass, index);
    }
}

static guint64 G_GNUC_NO_INLINE
take_block_slow (FerryStore *self, HeapClass *klass, GError **error)
{
  FerryHeap *heap = self->heap;
  g_autoptr (GError) cause = NULL;
  guint64 block = take_from_own (self, klass);
  guint32 index;

  if (block != 0)
    return block;
  if (new_span (self, klass, &index, &cause))
    {
      set_current (heap, klass, index);
      return take_block (self, klass);
    }
  /* A block that is too large is better than none. */
  if (word_kind (klass->word) == SPAN_SMALL)
    for (HeapClass *other = klass; other < &heap->classes[N_SMALL]; other++)
      {
        block = take_from_own (self, other);
        if (block != 0)
          return block;
      }
  g_propagate_error (error, g_steal_pointer (&cause));
  return 0;
}

static guint64 G_GNUC_NO_INLINE
alloc_large (FerryStore *self, guint64 size, GError **error)
{
  FerryHeap *heap = self->heap;
  guint64 n = (size >> FERRY_STORE_SPAN_SHIFT) + (size % FERRY_STORE_SPAN_SIZE != 0);
  guint32 first;

  if (!get_spans (self, n, size, &first, error))
    return 0;
  for (guint32 i = first + 1; i < first + n; i++)
    put (heap->spans[i].word, SPAN_CONTINUED);
  FERRY_STEP ("store-heap-large-marked");
  put (heap->spans[first].run, n);
  FERRY_STEP ("store-heap-large-sized");
  atomic_store_explicit (&heap->spans[first].word, SPAN_LARGE, memory_order_release);
  FERRY_STEP ("store-heap-large-taken");
  unlock_heap (self);
  count_used (heap->mine, n << FERRY_STORE_SPAN_SHIFT);
  return span_offset (heap, first);
}

guint64
ferry_store_heap_alloc (FerryStore *self, gsize size, GError **error)
{
  HeapClass *klass;
  guint64 block;

  if (G_UNLIKELY (size > SMALL_MAX))
    return alloc_large (self, size, error);
  klass = &self->heap->classes[class_table[(size + GRANULE - 1) / GRANULE]];
  block = take_block (self, klass);
  if (G_UNLIKELY (block == 0))
    return take_block_slow (self, klass, error);
  return block;
}

guint64
ferry_store_heap_alloc_object (FerryStore *self, GError **error)
{
  HeapClass *klass = &self->heap->classes[HEADS_CLASS];
  guint64 block = take_block (self, klass);

  if (G_UNLIKELY (block == 0))
    return take_block_slow (self, klass, error);
  return block;
}

/* ---- giving back ---- */

static void
give_to_owner (FerryStore *self, HeapClass *klass, Span *span, guint32 index, guint64 block)
{
  guint64 remote = get (span->remote);
  guint owner;
  guint64 listed;

  do
    {
      owner = word_owner (get (span->word));
      listed = owner != 0 ? REMOTE_LISTED : remote & REMOTE_LISTED;
      put (*link_of (self, klass, block), remote & ~REMOTE_LISTED);
    }
  /* pairs with the acquire in take_remote() */
  while (!atomic_compare_exchange_weak_explicit (&span->remote, &remote, block | listed, memory_order_release,
                                                 memory_order_relaxed));
  FERRY_STEP ("store-heap-remote-given");
  if (owner == 0)
    atomic_store_explicit (&self->heap->shared->abandoned[word_class (klass->word)], 1, memory_order_seq_cst);
  else if ((remote & REMOTE_LISTED) == 0 && is_participant (self, owner))
    list_span (self, owner - 1, index);
}

static void G_GNUC_NO_INLINE
given_back (FerryStore *self, HeapClass *klass, Span *span, guint32 index)
{
  if (get (span->n_used) == 0 && word_kind (klass->word) == SPAN_SMALL)
    return_span (self, span, index);
  if (get (span->word) == klass->word && get (span->queued) == 0)
    note_room (self->heap, klass, index);
}

static inline void
give_block (FerryStore *self, HeapClass *klass, Span *span, guint32 word, guint32 index, guint64 block)
{
  FerryHeap *heap = self->heap;
  guint32 n_used;

  count_used (heap->mine, -(guint64) klass->size);
  if (G_UNLIKELY (word_owner (word) != heap->owner))
    {
      give_to_owner (self, klass, span, index, block);
      return;
    }
  put (*link_of (self, klass, block), get (span->local));
  FERRY_STEP ("store-heap-given-linked");
  atomic_store_explicit (&span->local, block, memory_order_release);
  FERRY_STEP ("store-heap-given");
  n_used = get (span->n_used) - 1;
  put (span->n_used, n_used);
  if (G_LIKELY (span == klass->span))
    return;
  if (G_UNLIKELY (n_used == 0 || get (span->queued) == 0))
    given_back (self, klass, span, index);
}

static void G_GNUC_NO_INLINE
free_large (FerryStore *self, Span *span, guint32 first)
{
  FerryHeap *heap = self->heap;
  guint32 n;

  if (!lock_heap (self, NULL))
    {
      ask_for_collection (self);
      return;
    }
  n_spans_now (self);
  if (word_kind (get (span->word)) == SPAN_LARGE)
    {
      guint32 run = MIN (get (span->run), heap->n_seen > first ? heap->n_seen - first : 0);

      /* release: who finds it free finds what was done with it before */
      atomic_store_explicit (&span->word, SPAN_FREE, memory_order_release);
      FERRY_STEP ("store-heap-large-given");
      for (n = 1; n < run && word_kind (get (heap->spans[first + n].word)) == SPAN_CONTINUED; n++)
        put (heap->spans[first + n].word, SPAN_FREE);
      FERRY_STEP ("store-heap-large-given-all");
      free_run (self, first, n);
      count_used (heap->mine, -((guint64) n << FERRY_STORE_SPAN_SHIFT));
    }
  unlock_heap (self);
}

/* What is no block is left alone. */
void
ferry_store_heap_free (FerryStore *self, guint64 block)
{
  FerryHeap *heap = self->heap;
  guint64 offset = 0;
  guint32 index = 0;
  guint32 at;
  Span *span = find_span (self, block, &offset, &index);
  guint32 word;

  if (G_UNLIKELY (span == NULL))
    {
      ask_for_collection (self);
      return;
    }
  word = get (span->word);
  if (G_LIKELY (word_kind (word) == SPAN_SMALL && word_class (word) < N_SMALL))
    {
      HeapClass *klass = &heap->classes[word_class (word)];

      if (G_LIKELY (is_start (klass, offset, &at)))
        give_block (self, klass, span, word, index, block);
      else
        ask_for_collection (self);
    }
  else if (word_kind (word) == SPAN_LARGE && offset == 0)
    free_large (self, span, index);
  else
    ask_for_collection (self);
}

gboolean
ferry_store_heap_is_object (FerryStore *self, guint64 object)
{
  guint64 offset = 0;
  guint32 index = 0;
  Span *span = find_span (self, object, &offset, &index);

  return span != NULL && offset % FERRY_STORE_OBJECT_SIZE == 0 && word_kind (get (span->word)) == SPAN_HEADS
         && offset / FERRY_STORE_OBJECT_SIZE < get (span->bump);
}

void
ferry_store_heap_free_object (FerryStore *self, guint64 object)
{
  HeapClass *klass = &self->heap->classes[HEADS_CLASS];
  guint64 offset = 0;
  guint32 index = 0;
  Span *span;

  if (G_UNLIKELY (!ferry_store_heap_is_object (self, object)))
    {
      ask_for_collection (self);
      return;
    }
  span = find_span (self, object, &offset, &index);
  put (((FerryObject *) ferry_store_at (self, object))->kind, FERRY_OBJECT_FREE);
  give_block (self, klass, span, get (span->word), index, object);
}

gsize
ferry_store_heap_block_size (FerryStore *self, guint64 block)
{
  FerryHeap *heap = self->heap;
  guint64 offset = 0;
  guint32 index = 0;
  guint32 at;
  Span *span = find_span (self, block, &offset, &index);
  guint32 word;

  if (G_UNLIKELY (span == NULL))
    return 0;
  word = atomic_load_explicit (&span->word, memory_order_acquire);
  if (G_LIKELY (word_kind (word) == SPAN_SMALL && word_class (word) < N_SMALL))
    {
      HeapClass *klass = &heap->classes[word_class (word)];

      return is_start (klass, offset, &at) && at < get (span->bump) ? klass->size : 0;
    }
  if (word_kind (word) == SPAN_LARGE && offset == 0)
    {
      guint32 run = get (span->run);

      if (G_UNLIKELY (index >= heap->n_seen || run > heap->n_seen - index))
        {
          guint32 n_spans = n_spans_now (self);

          run = MIN (run, n_spans > index ? n_spans - index : 0);
        }
      return (gsize) run << FERRY_STORE_SPAN_SHIFT;
    }
  return 0;
}

/* ---- participants ---- */

gboolean
ferry_store_heap_format (FerryStore *self, GError **error)
{
  (void) error;
  atomic_store_explicit (&self->header->heap_end, self->header->heap_offset, memory_order_release);
  return TRUE;
}

static void
fill_class_table (void)
{
  static gsize done = 0;

  if (g_once_init_enter (&done))
    {
      guint klass = 0;

      for (guint i = 0; i < G_N_ELEMENTS (class_table); i++)
        {
          while (class_sizes[klass] < i * GRANULE)
            klass++;
          class_table[i] = klass;
        }
      g_once_init_leave (&done, 1);
    }
}

gboolean
ferry_store_heap_attach (FerryStore *self, GError **error)
{
  guint64 n_spans = self->header->n_spans;
  guint id = self->segment->id;
  HeapShared *shared = (HeapShared *) (void *) self->header->heap;
  guint32 n_slots = get (shared->n_slots);
  FerryHeap *heap;

  ferry_store_heap_detach (self);
  if (n_spans > G_MAXUINT32 / 2 || self->heap_offset % PAGE != 0 || self->heap_offset > self->data_size
      || self->heap_offset < FERRY_STORE_OFFSET_SPANS + n_spans * sizeof (Span)
      || n_spans > (self->data_size - self->heap_offset) >> FERRY_STORE_SPAN_SHIFT)
    return ferry_store_set_corrupt (self, "the heap is not where it can be", error);

  fill_class_table ();
  heap = g_new0 (FerryHeap, 1);
  heap->shared = shared;
  heap->mine = slot_of (self, id);
  heap->spans = ferry_store_at (self, FERRY_STORE_OFFSET_SPANS);
  heap->offset = self->heap_offset;
  heap->n_spans = n_spans;
  heap->owner = id + 1;
  for (guint i = 0; i < N_CLASSES; i++)
    {
      HeapClass *klass = &heap->classes[i];

      klass->span = &heap->none;
      klass->word = make_word (i == HEADS_CLASS ? SPAN_HEADS : SPAN_SMALL, i, heap->owner);
      klass->size = class_sizes[i];
      klass->capacity = FERRY_STORE_SPAN_SIZE / klass->size;
      klass->reciprocal = (guint32) ((G_GUINT64_CONSTANT (1) << 32) / klass->size + 1);
      klass->link = i == HEADS_CLASS ? G_STRUCT_OFFSET (FerryObject, link) : 0;
      klass->room = g_array_new (FALSE, FALSE, sizeof (guint32));
    }
  self->heap = heap;
  while (n_slots <= id
         && !atomic_compare_exchange_weak_explicit (&shared->n_slots, &n_slots, id + 1, memory_order_acq_rel,
                                                    memory_order_relaxed))
    ;
  n_spans_now (self);
  return TRUE;
}

void
ferry_store_heap_detach (FerryStore *self)
{
  if (self->heap == NULL)
    return;
  for (guint i = 0; i < N_CLASSES; i++)
    g_array_unref (self->heap->classes[i].room);
  g_clear_pointer (&self->heap, g_free);
}

/* Touches nothing that is private: a thread of ours may be inside a stretch of work. */
void
ferry_store_heap_abandon (FerryStore *self, guint owner)
{
  FerryHeap *heap = self->heap;
  guint64 end = atomic_load_explicit (&self->header->heap_end, memory_order_acquire);
  guint64 n_spans;
  HeapSlot *slot;
  guint32 at;

  if (heap == NULL || !is_participant (self, owner + 1))
    return;
  n_spans = end > heap->offset ? MIN ((end - heap->offset) >> FERRY_STORE_SPAN_SHIFT, heap->n_spans) : 0;
  for (guint64 i = 0; i < n_spans; i++)
    {
      Span *span = &heap->spans[i];
      guint32 word = get (span->word);

      if (word_owner (word) != owner + 1 || class_of_word (heap, word) == NULL)
        continue;
      /* pairs with the acquire in adopt_span() */
      atomic_store_explicit (&span->word, word & 0xffff, memory_order_release);
      FERRY_STEP ("store-heap-abandoned");
      atomic_store_explicit (&heap->shared->abandoned[word_class (word)], 1, memory_order_seq_cst);
    }
  slot = slot_of (self, owner);
  at = atomic_exchange_explicit (&slot->listed, 0, memory_order_acquire);
  for (guint64 i = 0; i < n_spans && at != 0 && at <= n_spans; i++)
    {
      Span *span = &heap->spans[at - 1];
      guint32 index = at - 1;
      guint32 word = get (span->word);

      at = get (span->next_listed);
      if (class_of_word (heap, word) != NULL)
        pass_on (self, span, index, word);
    }
  FERRY_STEP ("store-heap-abandoned-all");
  atomic_fetch_add_explicit (&heap->shared->used, atomic_exchange_explicit (&slot->used, 0, memory_order_relaxed),
                             memory_order_relaxed);
}

guint64
ferry_store_heap_bytes_used (FerryStore *self)
{
  guint64 used = get (self->heap->shared->used);
  guint n_slots = n_slots_used (self);

  for (guint i = 0; i < n_slots; i++)
    if (ferry_store_slot_ready (self, i))
      used += get (slot_of (self, i)->used);
  return (gint64) used < 0 ? 0 : used;
}

guint64
ferry_store_heap_bytes_committed (FerryStore *self)
{
  return get (self->heap->shared->n_committed) << FERRY_STORE_SPAN_SHIFT;
}

guint64
ferry_store_heap_trim (FerryStore *self, guint64 keep)
{
  guint64 n_keep = keep >> FERRY_STORE_SPAN_SHIFT;
  guint64 n_free;
  guint64 n_trimmed = 0;

  return_free_spans (self);
  if (!lock_heap (self, NULL))
    return 0;
  n_spans_now (self);
  n_free = get (self->heap->shared->n_free);
  if (n_free > n_keep)
    n_trimmed = trim_free (self, MIN (n_free - n_keep, ALL_SPANS));
  unlock_heap (self);
  return n_trimmed << FERRY_STORE_SPAN_SHIFT;
}

/* ---- marks ---- */

FerryMarks *
ferry_store_heap_marks_new (FerryStore *self)
{
  FerryMarks *marks = g_new0 (FerryMarks, 1);

  marks->n_spans = n_spans_now (self);
  marks->bits = g_try_malloc0_n (MAX (marks->n_spans, 1), GRANULES_OF_SPAN / 8);
  if (marks->bits == NULL)
    g_clear_pointer (&marks, g_free);
  return marks;
}

void
ferry_store_heap_marks_free (FerryMarks *marks)
{
  if (marks == NULL)
    return;
  g_free (marks->bits);
  g_free (marks);
}

static inline gboolean
is_marked (const FerryMarks *marks, guint64 granule)
{
  return (marks->bits[granule / 64] >> granule % 64 & 1) != 0;
}

static inline guint64
granule_of (const FerryHeap *heap, guint64 block)
{
  return (block - heap->offset) / GRANULE;
}

gboolean
ferry_store_heap_mark (FerryStore *self, FerryMarks *marks, guint64 block)
{
  guint64 granule;

  if (!ferry_store_heap_is_object (self, block) && ferry_store_heap_block_size (self, block) == 0)
    return FALSE;
  granule = granule_of (self->heap, block);
  if (granule >= (guint64) marks->n_spans * GRANULES_OF_SPAN || is_marked (marks, granule))
    return FALSE;
  marks->bits[granule / 64] |= G_GUINT64_CONSTANT (1) << granule % 64;
  return TRUE;
}

/* Makes the lists of a span anew. Whatever the instant of a death: no block in use is in a list, and the count of those
 * is not too low. Returns bytes that were in use and are not any more; *n_used: blocks that still are. */
static guint64
sweep_span (FerryStore *self, const FerryMarks *marks, HeapClass *klass, Span *span, guint32 index, guint32 *n_used)
{
  FerryHeap *heap = self->heap;
  guint64 begin = span_offset (heap, index);
  guint32 bump = MIN (get (span->bump), klass->capacity);
  gboolean heads = word_kind (klass->word) == SPAN_HEADS;
  guint64 list = 0;
  guint64 last;
  guint32 n_free;
  guint32 n_marked = 0;

  n_free = walk_list (self, klass, begin, get (span->local), &last)
           + walk_list (self, klass, begin, get (span->remote) & ~REMOTE_LISTED, &last);
  n_free = MIN (n_free, bump);
  put (span->n_used, bump);
  FERRY_STEP ("store-heap-sweep-counted");
  put (span->local, 0);
  FERRY_STEP ("store-heap-sweep-local");
  put (span->remote, 0);
  FERRY_STEP ("store-heap-sweep-remote");
  for (guint32 i = bump; i-- > 0;)
    {
      guint64 block = begin + (guint64) i * klass->size;

      if (is_marked (marks, granule_of (heap, block)))
        {
          n_marked++;
          continue;
        }
      if (heads)
        {
          FerryObject *object = ferry_store_at (self, block);
          guint64 lock = get (object->lock);

          if (get (object->kind) != FERRY_OBJECT_FREE)
            {
              put (object->kind, FERRY_OBJECT_FREE);
              put (object->generation, get (object->generation) + 1);
              /* release: who read it before looks at the version after what it read */
              atomic_store_explicit (&object->lock, (lock & FERRY_LOCK_VERSION_MASK) + FERRY_LOCK_VERSION_ONE,
                                     memory_order_release);
            }
          put (object->count, 0);
        }
      put (*link_of (self, klass, block), list);
      list = block;
    }
  FERRY_STEP ("store-heap-sweep-linked");
  atomic_store_explicit (&span->local, list, memory_order_release);
  FERRY_STEP ("store-heap-sweep-listed");
  put (span->n_used, n_marked);
  put (span->bump, bump);
  *n_used = n_marked;
  return (guint64) (bump - n_free - MIN (n_marked, bump - n_free)) * klass->size;
}

gboolean
ferry_store_heap_sweep (FerryStore *self, FerryMarks *marks, guint64 *freed_out, GError **error)
{
  FerryHeap *heap = self->heap;
  HeapShared *shared = heap->shared;
  guint n_slots = n_slots_used (self);
  guint64 freed = 0;
  guint64 used = 0;
  guint32 n_spans;
  guint32 n_used;

  if (!lock_heap (self, error))
    return FALSE;
  n_spans = MIN (n_spans_now (self), marks->n_spans);
  for (guint i = 0; i < n_slots; i++)
    if (ferry_store_slot_ready (self, i))
      put (slot_of (self, i)->listed, 0);
  FERRY_STEP ("store-heap-sweep-begin");
  for (guint32 i = 0; i < n_spans; i++)
    {
      Span *span = &heap->spans[i];
      guint32 word = get (span->word);
      HeapClass *klass = class_of_word (heap, word);
      guint owner = word_owner (word);

      if (word_kind (word) == SPAN_LARGE)
        {
          guint64 size = (guint64) MIN (get (span->run), n_spans - i) << FERRY_STORE_SPAN_SHIFT;

          if (is_marked (marks, (guint64) i * GRANULES_OF_SPAN))
            used += size;
          else
            {
              freed += size;
              atomic_store_explicit (&span->word, SPAN_FREE, memory_order_release); /* rebuild() does the others */
            }
          continue;
        }
      if (klass == NULL)
        continue;
      freed += sweep_span (self, marks, klass, span, i, &n_used);
      used += (guint64) n_used * klass->size;
      if (n_used == 0 && word_kind (word) == SPAN_SMALL)
        {
          atomic_store_explicit (&span->word, SPAN_FREE, memory_order_release);
          FERRY_STEP ("store-heap-sweep-free");
          continue;
        }
      if (owner != 0 && !is_participant (self, owner))
        {
          put (span->word, word & 0xffff);
          owner = 0;
        }
      if (!has_room (klass, span))
        continue;
      if (owner == 0)
        put (shared->abandoned[word_class (word)], 1);
      else if (get (span->queued) == 0)
        {
          put (span->remote, REMOTE_LISTED);
          list_span (self, owner - 1, i);
        }
    }
  rebuild (self);
  for (guint i = 0; i < n_slots; i++)
    if (ferry_store_slot_ready (self, i))
      put (slot_of (self, i)->used, 0);
  put (shared->used, used);
  unlock_heap (self);
  if (freed_out != NULL)
    *freed_out = freed;
  return TRUE;
}

/* ---- verification ---- */

static gboolean
verify_list (FerryStore *self, HeapClass *klass, FerryMarks *marks, FerryMarks *seen, Span *span, guint32 index,
             guint64 block, guint32 *n_free, GError **error)
{
  FerryHeap *heap = self->heap;
  guint64 begin = span_offset (heap, index);
  guint32 at;

  for (; block != 0; block = get (*link_of (self, klass, block)))
    {
      guint64 granule;

      if (!is_start (klass, block - begin, &at) || at >= get (span->bump))
        return ferry_store_set_corrupt (self, "a list of free blocks leads out of its span", error);
      granule = granule_of (heap, block);
      if (is_marked (seen, granule))
        return ferry_store_set_corrupt (self, "a block is free twice", error);
      if (marks != NULL && is_marked (marks, granule))
        return ferry_store_set_corrupt (self, "a block that is in use is free", error);
      seen->bits[granule / 64] |= G_GUINT64_CONSTANT (1) << granule % 64;
      (*n_free)++;
    }
  return TRUE;
}

static gboolean
verify_spans (FerryStore *self, FerryMarks *marks, FerryMarks *seen, gboolean leaks, GError **error)
{
  FerryHeap *heap = self->heap;
  HeapShared *shared = heap->shared;
  guint32 n_spans = heap->n_seen;
  guint64 n_cold = 0;
  guint64 n_free_spans = 0;
  guint64 n_in_bins = 0;

  for (guint32 i = 0; i < n_spans; i++)
    {
      Span *span = &heap->spans[i];
      guint32 word = get (span->word);
      HeapClass *klass = class_of_word (heap, word);
      guint32 n_free = 0;
      guint32 bump = get (span->bump);
      guint32 run;

      switch (word_kind (word))
        {
        case SPAN_COLD:
          n_cold++;
          break;
        case SPAN_FREE:
          n_free_spans++;
          break;
        case SPAN_LARGE:
          run = get (span->run);
          if (run == 0 || run > n_spans - i)
            return ferry_store_set_corrupt (self, "a large block leads out of the heap", error);
          for (guint32 j = 1; j < run; j++)
            if (get (heap->spans[i + j].word) != SPAN_CONTINUED)
              return ferry_store_set_corrupt (self, "a large block has somebody else's spans", error);
          if (leaks && !is_marked (marks, (guint64) i * GRANULES_OF_SPAN))
            return ferry_store_set_corrupt (self, "a large block belongs to nobody and is not free", error);
          i += run - 1;
          break;
        case SPAN_SMALL:
        case SPAN_HEADS:
          if (klass == NULL || bump > klass->capacity
              || (word_owner (word) != 0 && !is_participant (self, word_owner (word))))
            return ferry_store_set_corrupt (self, "a span's descriptor is wrong", error);
          if (!verify_list (self, klass, marks, seen, span, i, get (span->local), &n_free, error)
              || !verify_list (self, klass, marks, seen, span, i, get (span->remote) & ~REMOTE_LISTED, &n_free, error))
            return FALSE;
          for (guint32 j = 0; j < bump && leaks; j++)
            {
              guint64 granule = granule_of (heap, span_offset (heap, i) + (guint64) j * klass->size);

              if (!is_marked (marks, granule) && !is_marked (seen, granule))
                return ferry_store_set_corrupt (self, "a block belongs to nobody and is not free", error);
            }
          break;
        case SPAN_CONTINUED:
        default:
          return ferry_store_set_corrupt (self, "a span is of no kind", error);
        }
    }

  for (guint bin = 0; bin < N_BINS; bin++)
    for (guint32 at = get (shared->bins[bin]); at != 0; at = get (heap->spans[at - 1].next))
      {
        guint32 run;

        if (at > n_spans || get (heap->spans[at - 1].word) != SPAN_FREE)
          return ferry_store_set_corrupt (self, "a list of free spans has one that is not free", error);
        run = run_at (heap, at - 1, FALSE);
        n_in_bins += run;
        if (run == 0 || bin_of (run) != bin || n_in_bins > n_free_spans)
          return ferry_store_set_corrupt (self, "a list of free spans is wrong", error);
      }
  if (n_in_bins != n_free_spans || get (shared->n_free) != n_free_spans || get (shared->n_cold) != n_cold
      || get (shared->n_committed) != n_spans - n_cold)
    return ferry_store_set_corrupt (self, "spans are counted wrongly", error);
  return TRUE;
}

gboolean
ferry_store_heap_verify (FerryStore *self, FerryMarks *marks, gboolean leaks, GError **error)
{
  FerryMarks *seen;
  gboolean ok;

  if (!lock_heap (self, error))
    return FALSE;
  seen = ferry_store_heap_marks_new (self);
  if (seen == NULL)
    {
      unlock_heap (self);
      g_set_error (error, FERRY_ERROR, FERRY_ERROR_NO_SPACE, "%s: no memory to check its heap", self->label);
      return FALSE;
    }
  ok = (marks == NULL || marks->n_spans >= seen->n_spans
        || ferry_store_set_corrupt (self, "the heap grew while it was held", error))
       && verify_spans (self, marks, seen, leaks && marks != NULL, error);
  unlock_heap (self);
  ferry_store_heap_marks_free (seen);
  return ok;
}
