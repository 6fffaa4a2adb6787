/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ferry-copy.h"

#include "ferry-copy-private.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#ifdef __SSE2__
#include <immintrin.h>
#endif

/*
 * One core does not use up what memory can carry: its own loads and stores that miss the caches are limited by its
 * line-fill buffers. Two threads copy 10 MB and more twice as fast, so large copies are shared among a few.
 *
 * The threads belong to the process, not to a channel; they come with the first large copy, take pieces of it
 * beside its caller, and go when there was nothing to do for a while. The caller never waits for a thread to begin,
 * only for pieces that were begun.
 */

#define KIB ((gsize) 1024)
#define MIB ((gsize) 1024 * KIB)

/* Below this, waking a thread takes longer than it saves. */
#define SHARED_MIN (4 * MIB)
/* The pieces become smaller towards the end, so that nobody has much to wait for. */
#define PIECE_MIN (128 * KIB)
#define PIECE_MAX (4 * MIB)
/*
 * From here on what is written does not stay in a cache until it is read, so it goes past them, which saves reading what
 * is overwritten. The C library does so as well, but from three quarters of the last cache's size on, which is far too late
 * where many processors, or other machines, share that cache.
 */
#define STREAM_MIN (16 * MIB)
/*
 * Between these the copy goes from the second-level cache to the second-level cache, and what limits it is the way to the
 * first one and back. A loop of plain moves is 2 % faster there than the string instruction that C libraries take, 5 %
 * where the source is not aligned, and it begins and ends without delay. Moves of 32 bytes are not faster than those of 16
 * while the core is ours alone, and 7 % where its other thread is busy, for they are half as many instructions. Where
 * another processor has read the target since, its lines must be had back from there; asked for so many bytes ahead,
 * the loop is as fast as the string instruction. Below, where all is in the first-level cache, and above the C library is faster.
 */
#define LOOP_MIN (40 * KIB)
#define LOOP_MAX (512 * KIB)
#define LOOP_AHEAD (1 * KIB)

/* As memory is what limits, more threads gain little. */
#define N_THREADS_DEFAULT 4
#define N_THREADS_MAX 64
#define IDLE_S 2
/* How long a caller looks for the end of the others' pieces before it sleeps, and a helper for the next copy: in a stream
 * of large messages that comes within microseconds, and waking up takes tens of them. In pauses of some 50 ns. */
#define N_LOOKS 2000
#define N_HELPER_LOOKS 600

typedef struct
{
  guint8 *to;
  const guint8 *from;
  gsize size;
  guint n_threads;
  _Atomic gsize next;
} Job;

/* Taken last, and with nothing held that is taken before a fork. */
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t work_cond, done_cond;
static Job *job; /* the one that may be joined */
static _Atomic guint64 job_number;
static guint n_helpers;
static _Atomic guint n_inside;

/* ---- one piece ---- */

#ifdef __SSE2__
#define LINE 64
#define PAGE 4096
#define N_STREAMS 4

static inline void
stream_line (guint8 *to, const guint8 *from)
{
  for (guint i = 0; i < LINE; i += 16)
    _mm_stream_si128 ((__m128i *) (to + i), _mm_loadu_si128 ((const __m128i *) (from + i)));
}

static inline void
copy_line (guint8 *to, const guint8 *from)
{
  __m128i a = _mm_loadu_si128 ((const __m128i *) from);
  __m128i b = _mm_loadu_si128 ((const __m128i *) (from + 16));
  __m128i c = _mm_loadu_si128 ((const __m128i *) (from + 32));
  __m128i d = _mm_loadu_si128 ((const __m128i *) (from + 48));

  /* The compiler must not see a memcpy() in this. */
  __asm__ volatile("" ::: "memory");
  _mm_store_si128 ((__m128i *) to, a);
  _mm_store_si128 ((__m128i *) (to + 16), b);
  _mm_store_si128 ((__m128i *) (to + 32), c);
  _mm_store_si128 ((__m128i *) (to + 48), d);
}

__attribute__ ((target ("avx"))) static inline void
copy_two_lines (guint8 *to, const guint8 *from)
{
  __m256i a = _mm256_loadu_si256 ((const __m256i *) from);
  __m256i b = _mm256_loadu_si256 ((const __m256i *) (from + 32));
  __m256i c = _mm256_loadu_si256 ((const __m256i *) (from + 64));
  __m256i d = _mm256_loadu_si256 ((const __m256i *) (from + 96));

  __asm__ volatile("" ::: "memory");
  _mm256_store_si256 ((__m256i *) to, a);
  _mm256_store_si256 ((__m256i *) (to + 32), b);
  _mm256_store_si256 ((__m256i *) (to + 64), c);
  _mm256_store_si256 ((__m256i *) (to + 96), d);
}

/* Returns how much it copied: whole lines. */
__attribute__ ((target ("avx"))) static gsize
copy_wide (guint8 *to, const guint8 *from, gsize size)
{
  gsize at = 0;

  for (; size - at >= LOOP_AHEAD + 2 * LINE; at += 2 * LINE)
    {
      ferry_prefetch_for_writing (to + at + LOOP_AHEAD);
      ferry_prefetch_for_writing (to + at + LOOP_AHEAD + LINE);
      copy_two_lines (to + at, from + at);
    }
  return at;
}

/* Private: copies in that loop, whatever the size. */
void
ferry_copy_loop (guint8 *to, const guint8 *from, gsize size)
{
  gsize head = MIN (-(guintptr) to & (LINE - 1), size);

  if (head > 0)
    {
      memcpy (to, from, head);
      to += head;
      from += head;
      size -= head;
    }
  if (size >= LOOP_AHEAD + 2 * LINE && __builtin_cpu_supports ("avx"))
    {
      head = copy_wide (to, from, size);
      to += head;
      from += head;
      size -= head;
    }
  /* Not beyond the end: that may be somebody else's. */
  for (; size >= LOOP_AHEAD + LINE; size -= LINE, to += LINE, from += LINE)
    {
      ferry_prefetch_for_writing (to + LOOP_AHEAD);
      copy_line (to, from);
    }
  for (; size >= LINE; size -= LINE, to += LINE, from += LINE)
    copy_line (to, from);
  if (size > 0)
    memcpy (to, from, size);
}

/* Four pages at once, so that the prefetchers and the memory's banks have more to do. */
static void
copy_streaming (guint8 *to, const guint8 *from, gsize size)
{
  gsize head = -(guintptr) to & (LINE - 1);

  memcpy (to, from, MIN (head, size));
  if (head >= size)
    return;
  to += head;
  from += head;
  size -= head;

  for (; size >= N_STREAMS * PAGE; size -= N_STREAMS * PAGE, to += N_STREAMS * PAGE, from += N_STREAMS * PAGE)
    for (gsize line = 0; line < PAGE; line += 2 * LINE)
      for (gsize stream = 0; stream < N_STREAMS * PAGE; stream += PAGE)
        {
          stream_line (to + stream + line, from + stream + line);
          stream_line (to + stream + line + LINE, from + stream + line + LINE);
        }
  /* The lines written so far come before whatever tells others that they are there. */
  _mm_sfence ();
  memcpy (to, from, size);
}
#else
void
ferry_copy_loop (guint8 *to, const guint8 *from, gsize size)
{
  memcpy (to, from, size);
}

#define copy_streaming memcpy
#endif

/* From how many bytes on the C library's own copy goes past the caches: the default of its tunable x86_non_temporal_threshold. */
static gsize
library_streams_from (void)
{
#ifdef _SC_LEVEL3_CACHE_SIZE
  long size = sysconf (_SC_LEVEL3_CACHE_SIZE);

  if (size > 0)
    return (gsize) size / 4 * 3;
#endif
  return G_MAXSIZE;
}

/* A piece of so many bytes, or all of them. */
static void
copy_piece (guint8 *to, const guint8 *from, gsize size, gsize whole)
{
  if (whole >= STREAM_MIN && size < library_streams_from ())
    copy_streaming (to, from, size);
  else
    memcpy (to, from, size);
}

/* ---- sharing ---- */

static void
copy_pieces (Job *self)
{
  gsize at = atomic_load_explicit (&self->next, memory_order_relaxed);

  while (at < self->size)
    {
      gsize size = CLAMP ((self->size - at) / (2 * self->n_threads), PIECE_MIN, PIECE_MAX) & ~(PIECE_MIN - 1);

      size = MIN (size, self->size - at);
      if (!atomic_compare_exchange_weak_explicit (&self->next, &at, at + size, memory_order_relaxed,
                                                  memory_order_relaxed))
        continue;
      copy_piece (self->to + at, self->from + at, size, self->size);
      at = atomic_load_explicit (&self->next, memory_order_relaxed);
    }
}

static inline void
relax (void)
{
#ifdef __SSE2__
  _mm_pause ();
#endif
}

static void *
help (gpointer unused)
{
  guint64 seen = 0;

  /* Not by who started it: a process that was stopped meanwhile may find it gone. */
  pthread_setname_np (pthread_self (), "ferry-copy");
  pthread_mutex_lock (&mutex);
  for (;;)
    {
      struct timespec until;
      gboolean idle = FALSE;
      Job *mine;

      clock_gettime (CLOCK_MONOTONIC, &until);
      until.tv_sec += IDLE_S;
      while (!idle && (job == NULL || job_number == seen))
        idle = pthread_cond_timedwait (&work_cond, &mutex, &until) == ETIMEDOUT;
      if (job == NULL || job_number == seen)
        break;

      mine = job;
      seen = job_number;
      atomic_fetch_add (&n_inside, 1);
      pthread_mutex_unlock (&mutex);
      copy_pieces (mine);
      pthread_mutex_lock (&mutex);
      /* From here on the job is its caller's to end: this is what it waits for. */
      if (atomic_fetch_sub (&n_inside, 1) == 1)
        pthread_cond_signal (&done_cond);
      pthread_mutex_unlock (&mutex);
      for (guint i = 0; i < N_HELPER_LOOKS && atomic_load_explicit (&job_number, memory_order_relaxed) == seen; i++)
        relax ();
      pthread_mutex_lock (&mutex);
    }
  n_helpers--;
  pthread_mutex_unlock (&mutex);
  return NULL;
}

static void
start_helpers (guint n)
{
  sigset_t all, before;
  pthread_attr_t attributes;

  /* Signals are for the program's own threads. */
  sigfillset (&all);
  pthread_sigmask (SIG_SETMASK, &all, &before);
  pthread_attr_init (&attributes);
  pthread_attr_setdetachstate (&attributes, PTHREAD_CREATE_DETACHED);
  for (; n > 0; n--)
    {
      pthread_t thread;

      if (pthread_create (&thread, &attributes, help, NULL) == 0)
        continue;
      /* A limit of the user's threads: the copy goes on with those that are there. */
      pthread_mutex_lock (&mutex);
      n_helpers -= n;
      pthread_mutex_unlock (&mutex);
      break;
    }
  pthread_attr_destroy (&attributes);
  pthread_sigmask (SIG_SETMASK, &before, NULL);
}

static void
init_conds (void)
{
  pthread_condattr_t attributes;

  pthread_condattr_init (&attributes);
  pthread_condattr_setclock (&attributes, CLOCK_MONOTONIC);
  pthread_cond_init (&work_cond, &attributes);
  pthread_cond_init (&done_cond, NULL);
  pthread_condattr_destroy (&attributes);
}

static void
atfork_prepare (void)
{
  pthread_mutex_lock (&mutex);
}

static void
atfork_parent (void)
{
  pthread_mutex_unlock (&mutex);
}

/* The child has none of the threads, and not the one either whose copy they may have been at. */
static void
atfork_child (void)
{
  job = NULL;
  n_helpers = 0;
  atomic_store (&n_inside, 0);
  init_conds ();
  pthread_mutex_unlock (&mutex);
}

static guint
limit_from_environment (void)
{
  const char *text = g_getenv ("FERRY_COPY_THREADS");
  guint64 limit;
  g_autoptr (GError) error = NULL;

  if (text == NULL || *text == '\0')
    return N_THREADS_DEFAULT;
  if (!g_ascii_string_to_unsigned (text, 10, 1, N_THREADS_MAX, &limit, &error))
    {
      g_warning ("FERRY_COPY_THREADS: expected a number of threads from 1 to %d: %s; %d is taken", N_THREADS_MAX,
                 error->message, N_THREADS_DEFAULT);
      return N_THREADS_DEFAULT;
    }
  return (guint) limit;
}

static guint
get_n_threads (void)
{
  static gsize limit = 0;

  if (g_once_init_enter (&limit))
    {
      init_conds ();
      pthread_atfork (atfork_prepare, atfork_parent, atfork_child);
      g_once_init_leave (&limit, limit_from_environment ());
    }
  return MIN ((guint) limit, g_get_num_processors ()); /* those that the calling thread may use */
}

/**
 * ferry_copy_memory: (skip)
 * @to: where @size bytes are written; must not overlap @from
 * @from: what is read
 * @size: bytes
 *
 * Copies memory as fast as the machine does it, for codecs.
 *
 * Small copies are `memcpy()`. Copies of 4 MiB and more are shared with up to three helper threads of the process, and no
 * more than it may use processors; they are started by the first such copy and end after two idle seconds. `FERRY_COPY_THREADS`
 * sets another number of threads, 1 for none but the caller. Copies of 16 MiB and more are written past the caches.
 *
 * When it returns all bytes are written, in the order of a plain store: a release store of the caller publishes them.
 * It may be called from several threads; while one shares a copy, the others copy alone. It never fails.
 *
 * Since: 1.0
 */
void
ferry_copy_memory (gpointer to, gconstpointer from, gsize size)
{
  Job mine = { .to = to, .from = from, .size = size };
  guint n_new = 0;

  if (size < SHARED_MIN)
    {
      if (size >= LOOP_MIN && size < LOOP_MAX)
        ferry_copy_loop (to, from, size);
      else if (size > 0)
        memcpy (to, from, size);
      return;
    }

  mine.n_threads = get_n_threads ();
  if (mine.n_threads > 1)
    pthread_mutex_lock (&mutex);
  if (mine.n_threads == 1 || job != NULL || atomic_load (&n_inside) > 0)
    {
      if (mine.n_threads > 1)
        pthread_mutex_unlock (&mutex);
      copy_piece (to, from, size, size);
      return;
    }

  job = &mine;
  job_number++;
  if (n_helpers < mine.n_threads - 1)
    {
      n_new = mine.n_threads - 1 - n_helpers;
      n_helpers += n_new;
    }
  pthread_cond_broadcast (&work_cond);
  pthread_mutex_unlock (&mutex);
  if (n_new > 0)
    start_helpers (n_new);

  copy_pieces (&mine);

  for (guint i = 0; i < N_LOOKS && atomic_load (&n_inside) > 0; i++)
    relax ();
  pthread_mutex_lock (&mutex);
  job = NULL;
  while (atomic_load (&n_inside) > 0)
    pthread_cond_wait (&done_cond, &mutex);
  pthread_mutex_unlock (&mutex);
}
