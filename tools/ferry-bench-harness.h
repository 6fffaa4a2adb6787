/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <gio/gio.h>
#include <sys/types.h>
#include <time.h>

G_BEGIN_DECLS

/* Two lines: adjacent-line prefetchers pull in pairs. */
#define BENCH_CACHE_LINE 128
#define BENCH_MAX_PROCESSES 64
#define BENCH_ERROR_LENGTH 512
#define BENCH_MAX_VALUES 8

#define BENCH_NSEC_PER_SEC G_GINT64_CONSTANT (1000000000)
#define BENCH_NSEC_PER_USEC G_GINT64_CONSTANT (1000)

/* The phases of a run, in their order; the parent moves them on. */
typedef enum
{
  BENCH_PHASE_PREPARE,  /* processes open what they need */
  BENCH_PHASE_WARM_UP,  /* messages flow, nothing counts */
  BENCH_PHASE_MEASURE,  /* messages count */
  BENCH_PHASE_CONCLUDE, /* every meter takes its end time at its next message */
  BENCH_PHASE_STOP,     /* senders end their streams, receivers drain */
} BenchPhase;

/* What one process tells the parent; written by that process only. */
typedef struct
{
  guint64 progress; /* messages so far */
  gint64 started;   /* ns */
  gint64 ended;     /* ns */
  guint64 base;     /* messages before the measuring */
  guint64 messages; /* messages from started to ended */
  gint metered;
  gint concluded;
  double values[BENCH_MAX_VALUES];
  char error[BENCH_ERROR_LENGTH];
} __attribute__ ((aligned (BENCH_CACHE_LINE))) BenchSlot;

/* Anonymous memory shared by the parent and the processes of one run. */
typedef struct
{
  gint phase __attribute__ ((aligned (BENCH_CACHE_LINE)));
  gint ready __attribute__ ((aligned (BENCH_CACHE_LINE)));
  BenchSlot slots[BENCH_MAX_PROCESSES];
} BenchArena;

typedef gboolean (*BenchFunc) (BenchArena *arena, guint index, gpointer data, GError **error);
typedef void (*BenchForkedFunc) (gpointer data);

typedef struct
{
  guint n_processes;
  BenchFunc func;         /* runs in each process */
  BenchForkedFunc forked; /* runs in the parent when all are forked, may be NULL */
  gpointer data;
  gboolean metered; /* the parent leads through the phases; otherwise the processes do */
  gboolean pin;
  gboolean ignore_signals;  /* run to the end though the program was interrupted */
  gint64 duration;          /* µs, of the measuring */
  gint64 warm_up;           /* µs, at least */
  guint64 warm_up_messages; /* at least, all meters together */
  guint64 messages;         /* per meter; 0: by the duration */
  gint64 time_limit;        /* µs, of the whole run */
} BenchRun;

BenchArena *bench_run (const BenchRun *run, GError **error);
void bench_arena_free (BenchArena *self);
double bench_arena_get_rate (BenchArena *self);

G_DEFINE_AUTOPTR_CLEANUP_FUNC (BenchArena, bench_arena_free)

gboolean bench_fail (GError **error, const char *what);
void bench_catch_signals (void);
int bench_get_signal (void);
guint bench_count_cpus (void);
gboolean bench_ready (BenchArena *arena);
gpointer bench_map_shared (gsize size);
gpointer bench_alloc_warm (gsize size);
gint64 bench_process_cpu_time (pid_t pid);
guint64 bench_get_available_memory (void);

int bench_compare_doubles (gconstpointer a, gconstpointer b);
double bench_median (const double *values, guint n_values);

static inline gint64
bench_now (void)
{
  struct timespec now;

  clock_gettime (CLOCK_MONOTONIC, &now);
  return now.tv_sec * BENCH_NSEC_PER_SEC + now.tv_nsec;
}

static inline int
bench_arena_get_phase (BenchArena *self)
{
  /* Relaxed: the phase guards no other data. */
  return __atomic_load_n (&self->phase, __ATOMIC_RELAXED);
}

/* Counts messages in the process that takes them, and notes when the counting
 * began and ended. Between the transitions a message costs two loads and a store
 * in lines that nobody else writes. */
typedef struct
{
  BenchArena *arena;
  BenchSlot *slot;
  guint64 count;
  guint64 limit;
  guint64 messages;
  int phase;
} BenchMeter;

void bench_meter_init (BenchMeter *self, BenchArena *arena, guint index, guint64 messages);
void bench_meter_step (BenchMeter *self);

static inline void
bench_meter_tick (BenchMeter *self)
{
  self->count++;
  __atomic_store_n (&self->slot->progress, self->count, __ATOMIC_RELAXED);
  if (G_UNLIKELY (bench_arena_get_phase (self->arena) != self->phase || self->count == self->limit))
    bench_meter_step (self);
}

/* Round trips */

typedef gboolean (*BenchTripFunc) (gpointer side, GError **error);

/* The indices of BenchSlot.values that a measurement of round trips fills in, in
 * nanoseconds one way: half a round trip. */
typedef enum
{
  BENCH_TRIP_MEDIAN, /* median of the means of batches: the clock costs nothing in it; with pauses as p50 */
  BENCH_TRIP_P50,    /* percentiles of single trips, with a clock reading each */
  BENCH_TRIP_P99,
  BENCH_TRIP_MAX,
  BENCH_TRIP_COUNT, /* round trips measured */
} BenchTripValue;

typedef struct
{
  GArray *batches;
  GArray *trips;
  guint64 count;
  guint batch;
} BenchTrips;

void bench_trips_init (BenchTrips *self);
void bench_trips_finish (BenchTrips *self, BenchSlot *slot);
guint bench_trips_choose_batch (gint64 elapsed, guint64 n_trips);

#define BENCH_WARM_UP_SHARE 4 /* a quarter of the duration */
#define BENCH_MAX_TRIPS (1 << 20)

/* Measures round trips for a while; with a pause before each, every trip finds both
 * sides at rest. Inlined into its callers, so that @trip costs no indirect call: a raw
 * cache line goes to and fro in the time of a few dozen of them. */
static G_ALWAYS_INLINE inline gboolean
bench_trips_measure (BenchSlot *slot, gint64 duration, gint64 pause, BenchTripFunc trip, gpointer side, GError **error)
{
  BenchTrips trips;
  gint64 start;
  gint64 end;
  gint64 now;
  guint64 n = 0;

  bench_trips_init (&trips);

  if (pause > 0)
    {
      end = bench_now () + duration * BENCH_NSEC_PER_USEC;
      do
        {
          double one_way;

          g_usleep ((gulong) pause);
          start = bench_now ();
          if (!trip (side, error))
            return FALSE;
          now = bench_now ();
          one_way = (double) (now - start) / 2;
          g_array_append_val (trips.trips, one_way);
        }
      while (now < end && trips.trips->len < BENCH_MAX_TRIPS);
      bench_trips_finish (&trips, slot);
      return TRUE;
    }

  start = bench_now ();
  end = start + duration * BENCH_NSEC_PER_USEC / BENCH_WARM_UP_SHARE;
  do
    {
      if (!trip (side, error))
        return FALSE;
      n++;
      now = bench_now ();
    }
  while (now < end);
  trips.batch = bench_trips_choose_batch (now - start, n);

  end = now + duration * BENCH_NSEC_PER_USEC;
  do
    {
      double mean;

      start = bench_now ();
      for (guint i = 0; i < trips.batch; i++)
        {
          if (!trip (side, error))
            return FALSE;
        }
      now = bench_now ();
      mean = (double) (now - start) / trips.batch / 2;
      g_array_append_val (trips.batches, mean);
      trips.count += trips.batch;
    }
  while (now < end);

  end = now + duration * BENCH_NSEC_PER_USEC / BENCH_WARM_UP_SHARE;
  do
    {
      double one_way;

      start = now;
      if (!trip (side, error))
        return FALSE;
      now = bench_now ();
      one_way = (double) (now - start) / 2;
      g_array_append_val (trips.trips, one_way);
    }
  while (now < end && trips.trips->len < BENCH_MAX_TRIPS);

  bench_trips_finish (&trips, slot);
  return TRUE;
}

G_END_DECLS
