/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <json-glib/json-glib.h>

#include "ferry-bench-harness.h"

G_BEGIN_DECLS

/* Repeated measurements of one quantity. */
typedef struct
{
  GArray *values;
  const char *unit; /* "1/s", "ns", "B/s", "%", "" */
} BenchSamples;

void bench_samples_init (BenchSamples *self, const char *unit);
void bench_samples_clear (BenchSamples *self);
void bench_samples_add (BenchSamples *self, double value);
double bench_samples_get_median (const BenchSamples *self);
gboolean bench_samples_is_empty (const BenchSamples *self);
char *bench_format (double value, const char *unit);
char *bench_format_size (guint64 size);

typedef struct
{
  char *series;
  gboolean baseline;
  gsize size;        /* bytes a message */
  BenchSamples rate; /* messages a second */
  char *error;       /* why there is no figure */
} BenchThroughput;

typedef struct
{
  char *series;
  char *wait; /* NULL for baselines */
  gboolean baseline;
  BenchSamples values[4]; /* as BenchTripValue up to BENCH_TRIP_MAX */
  char *error;
} BenchLatency;

typedef enum
{
  BENCH_AT_MOST,
  BENCH_AT_LEAST,
} BenchRelation;

typedef struct
{
  char *what;
  char *transport;
  char *measured_name;  /* what the two sides are */
  char *reference_name; /* NULL: the measured value itself is compared with the limit */
  BenchSamples measured;
  BenchSamples reference;
  BenchRelation relation;
  double limit;
  char *error;
} BenchClaim;

/* Everything one call of the program found. */
typedef struct
{
  GPtrArray *throughput; /* of BenchThroughput */
  GPtrArray *latency;    /* of BenchLatency */
  GPtrArray *claims;     /* of BenchClaim */
  JsonBuilder *settings; /* an open object, to which members may be added */
  char *throughput_title;
  char *latency_title;
} BenchReport;

BenchReport *bench_report_new (void);
void bench_report_free (BenchReport *self);
BenchThroughput *bench_report_add_throughput (BenchReport *self, const char *series, gboolean baseline, gsize size);
BenchLatency *bench_report_add_latency (BenchReport *self, const char *series, const char *wait, gboolean baseline);
BenchClaim *bench_report_add_claim (BenchReport *self, const char *what, const char *transport, const char *unit);
double bench_claim_get_ratio (const BenchClaim *self);
gboolean bench_claim_is_met (const BenchClaim *self);
void bench_claim_print (const BenchClaim *self);
void bench_report_print (BenchReport *self);
void bench_report_print_errors (BenchReport *self);
char *bench_report_to_json (BenchReport *self);
gboolean bench_report_has_errors (BenchReport *self);
gboolean bench_report_has_unmet_claims (BenchReport *self);

G_DEFINE_AUTOPTR_CLEANUP_FUNC (BenchReport, bench_report_free)

G_END_DECLS
