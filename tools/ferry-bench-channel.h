/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <ferry.h>

#include "ferry-bench-baseline.h"

G_BEGIN_DECLS

/* How a channel is measured. */
typedef struct
{
  const char *transport;
  BenchLoad load;
  FerryWaitStrategy wait;
  guint capacity; /* 0: chosen by the size */
  gboolean loan;  /* send without copying */
  gboolean touch; /* senders write, receivers read the whole payload */
} BenchChannel;

guint bench_channel_choose_capacity (gsize size);
gboolean bench_channel_throughput (const BenchChannel *self, double *rate, GError **error);
gboolean bench_channel_latency (const BenchChannel *self, double values[BENCH_MAX_VALUES], GError **error);
gboolean bench_channel_loan_cost (const BenchChannel *self, double *ns, GError **error);

/* What opening both ends of a new channel costs. */
typedef struct
{
  double ns;       /* median of open, one message, close */
  guint n_modules; /* plugin modules in the process afterwards */
  gboolean helper; /* a child process was started */
} BenchOpening;

gboolean bench_channel_opening (const BenchChannel *self, guint n_rounds, BenchOpening *opening, GError **error);
gboolean bench_channel_idle (const BenchChannel *self, gint64 duration, gint64 *cpu_time, GError **error);
gboolean bench_channel_huge (const BenchChannel *self, gsize size, double *ns, GError **error);

char **bench_channel_list_transports (const char *const *wanted, GError **error);

G_END_DECLS
