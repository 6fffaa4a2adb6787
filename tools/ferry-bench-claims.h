/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "ferry-bench-report.h"

G_BEGIN_DECLS

typedef struct
{
  char **transports;
  guint repeats;
  gint64 duration; /* µs of each single measurement */
  gboolean huge;   /* pass a 10 GB message too */
} BenchClaimSettings;

/* Called before each measurement, with what it is. */
typedef void (*BenchProgressFunc) (const char *what);

gboolean bench_claims_run (const BenchClaimSettings *settings, BenchReport *report, gboolean print,
                           BenchProgressFunc progress);

G_END_DECLS
