/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The figures that Ferry promises, each with the thing it is compared with, measured
 * in turns: on a shared machine only what ran in the same minutes can be compared. */

#include "ferry-bench-claims.h"

#include "ferry-bench-channel.h"

#define SMALL_SIZE 64 /* bytes */
#define KIB ((gsize) 1024)
#define MIB (1024 * KIB)
#define GIB (1024 * MIB)
#define HUGE_SIZE ((gsize) 10 * 1000 * 1000 * 1000) /* bytes */
#define MEMORY_FACTOR 5                             /* source, target and blocks in flight of one size */

/* As many messages as fit into the 64 KiB of a pipe. */
#define PIPE_CAPACITY 1024
#define LOAN_CAPACITY 4
#define OPENING_ROUNDS 100
#define IDLE_DURATION (3 * G_TIME_SPAN_SECOND)
#define REST_PAUSE (2 * G_TIME_SPAN_MILLISECOND) /* longer than any spin */
#define MAX_REFERENCES 2

#define SPIN_LATENCY_LIMIT 3.0   /* times a cache line */
#define SLEEP_LATENCY_LIMIT 1.15 /* times the better of futex and eventfd */
#define BUSY_LATENCY_LIMIT 2.0   /* times spinning */
#define ONE_SENDER_LIMIT 10.0    /* times a pipe */
#define TWO_SENDERS_LIMIT 5.0    /* times a pipe */
#define COPY_LIMIT 0.9           /* times memcpy() */
#define LOAN_LIMIT 1.5           /* 1 GiB against 4 KiB */
#define OPENING_LIMIT 10.0       /* times a UNIX socket */
#define MODULES_LIMIT 1.0        /* plugin modules loaded */
#define HELPERS_LIMIT 0.0        /* helper processes started */
#define IDLE_LIMIT 0.1           /* per cent of one CPU */

/* One of the two things that are compared. */
typedef struct _Side Side;

struct _Side
{
  const char *name;
  gboolean (*measure) (const Side *self, double *value, GError **error);
  const BenchBaseline *baseline;
  BenchChannel channel; /* its load also serves the baselines */
};

typedef struct
{
  const BenchClaimSettings *settings;
  BenchReport *report;
  gboolean print;
  BenchProgressFunc progress;
} Claims;

static gboolean
measure_baseline_latency (const Side *self, double *value, GError **error)
{
  double values[BENCH_MAX_VALUES];

  if (!self->baseline->latency (&self->channel.load, values, error))
    return FALSE;
  *value = values[BENCH_TRIP_MEDIAN];
  return TRUE;
}

static gboolean
measure_baseline_throughput (const Side *self, double *value, GError **error)
{
  return self->baseline->throughput (&self->channel.load, value, error);
}

static gboolean
measure_baseline_bytes (const Side *self, double *value, GError **error)
{
  if (!self->baseline->throughput (&self->channel.load, value, error))
    return FALSE;
  *value *= (double) self->channel.load.size;
  return TRUE;
}

static gboolean
measure_latency (const Side *self, double *value, GError **error)
{
  double values[BENCH_MAX_VALUES];

  if (!bench_channel_latency (&self->channel, values, error))
    return FALSE;
  *value = values[BENCH_TRIP_MEDIAN];
  return TRUE;
}

static gboolean
measure_throughput (const Side *self, double *value, GError **error)
{
  return bench_channel_throughput (&self->channel, value, error);
}

static gboolean
measure_bytes (const Side *self, double *value, GError **error)
{
  if (!bench_channel_throughput (&self->channel, value, error))
    return FALSE;
  *value *= (double) self->channel.load.size;
  return TRUE;
}

static gboolean
measure_loan (const Side *self, double *value, GError **error)
{
  return bench_channel_loan_cost (&self->channel, value, error);
}

static gboolean
measure_opening (const Side *self, double *value, GError **error)
{
  BenchOpening opening;

  if (!bench_channel_opening (&self->channel, OPENING_ROUNDS, &opening, error))
    return FALSE;
  *value = opening.ns;
  return TRUE;
}

static gboolean
measure_modules (const Side *self, double *value, GError **error)
{
  BenchOpening opening;

  if (!bench_channel_opening (&self->channel, 1, &opening, error))
    return FALSE;
  *value = opening.n_modules;
  return TRUE;
}

static gboolean
measure_helpers (const Side *self, double *value, GError **error)
{
  BenchOpening opening;

  if (!bench_channel_opening (&self->channel, 1, &opening, error))
    return FALSE;
  *value = opening.helper;
  return TRUE;
}

static gboolean
measure_connect (const Side *self, double *value, GError **error)
{
  return bench_baseline_connect (OPENING_ROUNDS, value, error);
}

static gboolean
measure_idle (const Side *self, double *value, GError **error)
{
  gint64 cpu_time;

  if (!bench_channel_idle (&self->channel, IDLE_DURATION, &cpu_time, error))
    return FALSE;
  *value = 100.0 * (double) cpu_time / IDLE_DURATION;
  return TRUE;
}

static gboolean
measure_huge (const Side *self, double *value, GError **error)
{
  double ns;

  if (!bench_channel_huge (&self->channel, self->channel.load.size, &ns, error))
    return FALSE;
  *value = (double) self->channel.load.size * BENCH_NSEC_PER_SEC / ns;
  return TRUE;
}

static Side
make_side (Claims *self, const char *name, const char *transport, gsize size)
{
  Side side = { 0 };

  side.name = name;
  side.channel.transport = transport;
  side.channel.wait = FERRY_WAIT_STRATEGY_ADAPTIVE;
  side.channel.load.size = size;
  side.channel.load.senders = 1;
  side.channel.load.receivers = 1;
  side.channel.load.duration = self->settings->duration;
  /* With fewer CPUs than processes the scheduler places them better. */
  side.channel.load.pin = bench_count_cpus () >= 2;
  return side;
}

/* Measures all sides in turns. Of several references the best one counts. */
static gboolean
compare (Claims *self, const char *what, const char *unit, const Side *measured, const Side *references,
         guint n_references, BenchRelation relation, double limit)
{
  BenchClaim *claim = bench_report_add_claim (self->report, what, measured->channel.transport, unit);
  g_autoptr (GError) error = NULL;
  BenchSamples samples[MAX_REFERENCES];
  guint best = 0;
  double value;

  g_assert (n_references <= MAX_REFERENCES);
  claim->relation = relation;
  claim->limit = limit;
  claim->measured_name = g_strdup (measured->name);
  for (guint i = 0; i < n_references; i++)
    bench_samples_init (&samples[i], unit);

  if (measured->channel.load.size * MEMORY_FACTOR > bench_get_available_memory () && measured->measure != measure_huge)
    g_set_error (&error, G_IO_ERROR, G_IO_ERROR_NO_SPACE, "not enough memory is free");

  for (guint repeat = 0; repeat < self->settings->repeats && error == NULL; repeat++)
    {
      if (self->progress != NULL)
        self->progress (what);
      if (!measured->measure (measured, &value, &error))
        break;
      bench_samples_add (&claim->measured, value);
      for (guint i = 0; i < n_references && error == NULL; i++)
        {
          if (references[i].measure (&references[i], &value, &error))
            bench_samples_add (&samples[i], value);
        }
    }

  if (error != NULL)
    claim->error = g_strdup (error->message);
  for (guint i = 1; i < n_references && error == NULL; i++)
    {
      double median = bench_samples_get_median (&samples[i]);
      double best_median = bench_samples_get_median (&samples[best]);

      if (relation == BENCH_AT_MOST ? median < best_median : median > best_median)
        best = i;
    }
  if (n_references > 0)
    {
      claim->reference_name = g_strdup (references[best].name);
      g_array_append_vals (claim->reference.values, samples[best].values->data, samples[best].values->len);
    }
  for (guint i = 0; i < n_references; i++)
    bench_samples_clear (&samples[i]);

  if (self->progress != NULL)
    self->progress (NULL);
  if (self->print)
    bench_claim_print (claim);
  return !g_error_matches (error, G_IO_ERROR, G_IO_ERROR_CANCELLED);
}

static Side
make_baseline_side (Claims *self, const char *name, const char *transport, gsize size,
                    gboolean (*measure) (const Side *self, double *value, GError **error))
{
  Side side = make_side (self, name, transport, size);

  side.baseline = bench_baseline_find (name);
  side.measure = measure;
  return side;
}

static gboolean
claim_latency (Claims *self, const char *transport)
{
  Side line = make_baseline_side (self, "cache-line", transport, SMALL_SIZE, measure_baseline_latency);
  Side sleeping[] = {
    make_baseline_side (self, "futex", transport, SMALL_SIZE, measure_baseline_latency),
    make_baseline_side (self, "eventfd", transport, SMALL_SIZE, measure_baseline_latency),
  };
  Side spin = make_side (self, "spin", transport, SMALL_SIZE);
  Side sleep = make_side (self, "sleep", transport, SMALL_SIZE);
  Side adaptive = make_side (self, "adaptive", transport, SMALL_SIZE);

  spin.measure = sleep.measure = adaptive.measure = measure_latency;
  spin.channel.wait = FERRY_WAIT_STRATEGY_SPIN;
  sleep.channel.wait = FERRY_WAIT_STRATEGY_SLEEP;

  if (!compare (self, "64 B one way, spinning : cache line", "ns", &spin, &line, 1, BENCH_AT_MOST, SPIN_LATENCY_LIMIT)
      || !compare (self, "64 B one way, sleeping : futex or eventfd", "ns", &sleep, sleeping, G_N_ELEMENTS (sleeping),
                   BENCH_AT_MOST, SLEEP_LATENCY_LIMIT)
      || !compare (self, "64 B one way, adaptive : spinning, both busy", "ns", &adaptive, &spin, 1, BENCH_AT_MOST,
                   BUSY_LATENCY_LIMIT))
    return FALSE;

  /* The default strategy when both sides had gone to sleep in the pause. */
  adaptive.channel.load.pause = REST_PAUSE;
  for (guint i = 0; i < G_N_ELEMENTS (sleeping); i++)
    sleeping[i].channel.load.pause = REST_PAUSE;
  return compare (self, "64 B one way, adaptive after a rest : futex or eventfd", "ns", &adaptive, sleeping,
                  G_N_ELEMENTS (sleeping), BENCH_AT_MOST, SLEEP_LATENCY_LIMIT);
}

static gboolean
claim_small_throughput (Claims *self, const char *transport)
{
  Side channel = make_side (self, "channel", transport, SMALL_SIZE);
  Side pipe = make_baseline_side (self, "pipe", transport, SMALL_SIZE, measure_baseline_throughput);

  channel.measure = measure_throughput;
  channel.channel.capacity = PIPE_CAPACITY;
  if (!compare (self, "64 B messages, 1 sender, 1 receiver : pipe", "1/s", &channel, &pipe, 1, BENCH_AT_LEAST,
                ONE_SENDER_LIMIT))
    return FALSE;

  channel.channel.load.senders = pipe.channel.load.senders = 2;
  channel.channel.load.pin = pipe.channel.load.pin = FALSE;
  return compare (self, "64 B messages, 2 senders, 1 receiver : pipe", "1/s", &channel, &pipe, 1, BENCH_AT_LEAST,
                  TWO_SENDERS_LIMIT);
}

static gboolean
claim_copies (Claims *self, const char *transport)
{
  static const gsize sizes[] = { 64 * KIB, MIB, 16 * MIB, 256 * MIB, GIB };

  for (guint i = 0; i < G_N_ELEMENTS (sizes); i++)
    {
      g_autofree char *size = bench_format_size (sizes[i]);
      g_autofree char *what = g_strdup_printf ("copying send of %s : memcpy", size);
      Side channel = make_side (self, "channel", transport, sizes[i]);
      Side copy = make_baseline_side (self, "memcpy", transport, sizes[i], measure_baseline_bytes);

      channel.measure = measure_bytes;
      if (!compare (self, what, "B/s", &channel, &copy, 1, BENCH_AT_LEAST, COPY_LIMIT))
        return FALSE;
    }
  return TRUE;
}

static gboolean
claim_loans (Claims *self, const char *transport)
{
  Side large = make_side (self, "1 GiB", transport, GIB);
  Side small = make_side (self, "4 KiB", transport, 4 * KIB);

  large.measure = small.measure = measure_loan;
  large.channel.capacity = small.channel.capacity = LOAN_CAPACITY;
  return compare (self, "loan, send, receive, release of 1 GiB : 4 KiB", "ns", &large, &small, 1, BENCH_AT_MOST,
                  LOAN_LIMIT);
}

static gboolean
claim_opening (Claims *self, const char *transport)
{
  Side channel = make_side (self, "channel", transport, SMALL_SIZE);
  Side socket = make_side (self, "unix", transport, SMALL_SIZE);

  channel.measure = measure_opening;
  socket.measure = measure_connect;
  if (!compare (self, "open both ends, one message, close : UNIX socket", "ns", &channel, &socket, 1, BENCH_AT_MOST,
                OPENING_LIMIT))
    return FALSE;
  channel.measure = measure_modules;
  if (!compare (self, "plugin modules loaded to open a channel", "", &channel, NULL, 0, BENCH_AT_MOST, MODULES_LIMIT))
    return FALSE;
  channel.measure = measure_helpers;
  return compare (self, "helper processes started to open a channel", "", &channel, NULL, 0, BENCH_AT_MOST,
                  HELPERS_LIMIT);
}

static gboolean
claim_idle (Claims *self, const char *transport)
{
  Side channel = make_side (self, "channel", transport, SMALL_SIZE);

  channel.measure = measure_idle;
  return compare (self, "CPU of an idle channel", "%", &channel, NULL, 0, BENCH_AT_MOST, IDLE_LIMIT);
}

static gboolean
claim_huge (Claims *self, const char *transport)
{
  BenchClaimSettings once = *self->settings;
  Claims claims = *self;
  Side channel = make_side (self, "channel", transport, HUGE_SIZE);

  once.repeats = 1;
  claims.settings = &once;
  channel.measure = measure_huge;
  /* That it passes, whole, is the claim. */
  return compare (&claims, "a 10 GB message passes", "B/s", &channel, NULL, 0, BENCH_AT_LEAST, 0);
}

/* Returns FALSE when it was interrupted. */
gboolean
bench_claims_run (const BenchClaimSettings *settings, BenchReport *report, gboolean print, BenchProgressFunc progress)
{
  Claims claims = { .settings = settings, .report = report, .print = print, .progress = progress };

  /* What large messages leave, gigabytes of memory for the kernel to clear and give back, would slow what is small, of
   * the next transport too. */
  for (guint i = 0; settings->transports[i] != NULL; i++)
    {
      const char *transport = settings->transports[i];

      if (!claim_latency (&claims, transport) || !claim_small_throughput (&claims, transport)
          || !claim_opening (&claims, transport) || !claim_idle (&claims, transport))
        return FALSE;
    }
  for (guint i = 0; settings->transports[i] != NULL; i++)
    {
      const char *transport = settings->transports[i];

      if (!claim_copies (&claims, transport) || !claim_loans (&claims, transport)
          || (settings->huge && !claim_huge (&claims, transport)))
        return FALSE;
    }
  return TRUE;
}
