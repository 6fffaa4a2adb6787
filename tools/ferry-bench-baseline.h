/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "ferry-bench-harness.h"

G_BEGIN_DECLS

/* What is sent, by whom, and for how long. */
typedef struct
{
  gsize size; /* bytes a message */
  guint senders;
  guint receivers;
  gboolean broadcast;
  gboolean pin;
  gint64 duration;  /* µs */
  gint64 pause;     /* µs before each round trip */
  guint64 messages; /* 0: by the duration */
} BenchLoad;

/* A thing to compare with. Either function may be NULL. */
typedef struct
{
  const char *name;
  const char *description;
  gboolean (*throughput) (const BenchLoad *load, double *rate, GError **error);
  gboolean (*latency) (const BenchLoad *load, double values[BENCH_MAX_VALUES], GError **error);
} BenchBaseline;

const BenchBaseline *bench_baseline_get_all (guint *n_baselines);
const BenchBaseline *bench_baseline_find (const char *name);
gboolean bench_baseline_connect (guint n_rounds, double *ns, GError **error);

void bench_load_init_run (const BenchLoad *self, BenchRun *run);

G_END_DECLS
