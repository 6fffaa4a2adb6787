/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* What was found: collected, printed as aligned tables, written as JSON. */

#include "ferry-bench-report.h"

#include <math.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

#define COLUMN_WIDTH 13       /* characters */
#define NAME_WIDTH 24         /* characters */
#define CLAIM_WIDTH 62        /* characters */
#define JSON_FORMAT_VERSION 1 /* raised when a member changes its meaning */

void
bench_samples_init (BenchSamples *self, const char *unit)
{
  self->values = g_array_new (FALSE, FALSE, sizeof (double));
  self->unit = unit;
}

void
bench_samples_clear (BenchSamples *self)
{
  g_clear_pointer (&self->values, g_array_unref);
}

void
bench_samples_add (BenchSamples *self, double value)
{
  g_array_append_val (self->values, value);
}

gboolean
bench_samples_is_empty (const BenchSamples *self)
{
  return self->values->len == 0;
}

double
bench_samples_get_median (const BenchSamples *self)
{
  return bench_median ((double *) self->values->data, self->values->len);
}

/* Three significant digits. */
static char *
format_number (double value, const char *suffix)
{
  int digits = value < 10 ? 2 : value < 100 ? 1 : 0;

  return g_strdup_printf ("%.*f %s", digits, value, suffix);
}

static char *
format_steps (double value, const char *const *suffixes, double step)
{
  guint i = 0;

  while (value >= step && suffixes[i + 1] != NULL)
    {
      value /= step;
      i++;
    }
  return format_number (value, suffixes[i]);
}

char *
bench_format (double value, const char *unit)
{
  static const char *const times[] = { "ns", "µs", "ms", "s", NULL };
  static const char *const ascii_times[] = { "ns", "us", "ms", "s", NULL };
  static const char *const rates[] = { "/s", "k/s", "M/s", "G/s", NULL };
  static const char *const byte_rates[] = { "B/s", "kB/s", "MB/s", "GB/s", "TB/s", NULL };

  if (g_str_equal (unit, "ns"))
    return format_steps (value, g_get_charset (NULL) ? times : ascii_times, 1000);
  if (g_str_equal (unit, "1/s"))
    return format_steps (value, rates, 1000);
  if (g_str_equal (unit, "B/s"))
    return format_steps (value, byte_rates, 1000);
  return g_strdup_printf ("%.3g%s%s", value, *unit != '\0' ? " " : "", unit);
}

char *
bench_format_size (guint64 size)
{
  static const char *const suffixes[] = { "B", "KiB", "MiB", "GiB", "TiB", NULL };
  guint i = 0;

  while (size >= 1024 && size % 1024 == 0 && suffixes[i + 1] != NULL)
    {
      size /= 1024;
      i++;
    }
  return g_strdup_printf ("%" G_GUINT64_FORMAT " %s", size, suffixes[i]);
}

static void
throughput_free (gpointer data)
{
  BenchThroughput *self = data;

  bench_samples_clear (&self->rate);
  g_free (self->series);
  g_free (self->error);
  g_free (self);
}

static void
latency_free (gpointer data)
{
  BenchLatency *self = data;

  for (guint i = 0; i < G_N_ELEMENTS (self->values); i++)
    bench_samples_clear (&self->values[i]);
  g_free (self->series);
  g_free (self->wait);
  g_free (self->error);
  g_free (self);
}

static void
claim_free (gpointer data)
{
  BenchClaim *self = data;

  bench_samples_clear (&self->measured);
  bench_samples_clear (&self->reference);
  g_free (self->what);
  g_free (self->transport);
  g_free (self->measured_name);
  g_free (self->reference_name);
  g_free (self->error);
  g_free (self);
}

BenchReport *
bench_report_new (void)
{
  BenchReport *self = g_new0 (BenchReport, 1);

  self->throughput = g_ptr_array_new_with_free_func (throughput_free);
  self->latency = g_ptr_array_new_with_free_func (latency_free);
  self->claims = g_ptr_array_new_with_free_func (claim_free);
  self->settings = json_builder_new ();
  json_builder_begin_object (self->settings);
  return self;
}

void
bench_report_free (BenchReport *self)
{
  g_ptr_array_unref (self->throughput);
  g_ptr_array_unref (self->latency);
  g_ptr_array_unref (self->claims);
  g_object_unref (self->settings);
  g_free (self->throughput_title);
  g_free (self->latency_title);
  g_free (self);
}

BenchThroughput *
bench_report_add_throughput (BenchReport *self, const char *series, gboolean baseline, gsize size)
{
  BenchThroughput *figure = g_new0 (BenchThroughput, 1);

  figure->series = g_strdup (series);
  figure->baseline = baseline;
  figure->size = size;
  bench_samples_init (&figure->rate, "1/s");
  g_ptr_array_add (self->throughput, figure);
  return figure;
}

BenchLatency *
bench_report_add_latency (BenchReport *self, const char *series, const char *wait, gboolean baseline)
{
  BenchLatency *figure = g_new0 (BenchLatency, 1);

  figure->series = g_strdup (series);
  figure->wait = g_strdup (wait);
  figure->baseline = baseline;
  for (guint i = 0; i < G_N_ELEMENTS (figure->values); i++)
    bench_samples_init (&figure->values[i], "ns");
  g_ptr_array_add (self->latency, figure);
  return figure;
}

BenchClaim *
bench_report_add_claim (BenchReport *self, const char *what, const char *transport, const char *unit)
{
  BenchClaim *claim = g_new0 (BenchClaim, 1);

  claim->what = g_strdup (what);
  claim->transport = g_strdup (transport);
  bench_samples_init (&claim->measured, unit);
  bench_samples_init (&claim->reference, unit);
  g_ptr_array_add (self->claims, claim);
  return claim;
}

/* The measured side over the other; without another side the measured value itself. */
double
bench_claim_get_ratio (const BenchClaim *self)
{
  double measured = bench_samples_get_median (&self->measured);

  if (self->reference_name == NULL)
    return measured;
  return measured / bench_samples_get_median (&self->reference);
}

gboolean
bench_claim_is_met (const BenchClaim *self)
{
  double ratio = bench_claim_get_ratio (self);

  if (self->error != NULL || !isfinite (ratio))
    return FALSE;
  return self->relation == BENCH_AT_MOST ? ratio <= self->limit : ratio >= self->limit;
}

/* Pads by characters, not bytes. */
static void
print_padded (const char *text, guint width, gboolean right)
{
  guint length = (guint) g_utf8_strlen (text, -1);
  guint padding = width > length ? width - length : 0;

  if (right)
    g_print ("%*s%s", padding, "", text);
  else
    g_print ("%s%*s", text, padding, "");
}

void
bench_claim_print (const BenchClaim *self)
{
  g_autofree char *measured = NULL;
  g_autofree char *what = g_strdup_printf ("%s: %s", self->transport, self->what);

  print_padded (what, CLAIM_WIDTH, FALSE);
  if (self->error != NULL)
    {
      g_print ("  not measured: %s\n", self->error);
      return;
    }
  measured = bench_format (bench_samples_get_median (&self->measured), self->measured.unit);
  if (self->reference_name != NULL)
    {
      g_autofree char *reference = bench_format (bench_samples_get_median (&self->reference), self->reference.unit);

      print_padded (measured, COLUMN_WIDTH, TRUE);
      g_print (" : ");
      print_padded (reference, COLUMN_WIDTH, FALSE);
      g_print ("%8.2f  %s %g  ", bench_claim_get_ratio (self),
               self->relation == BENCH_AT_MOST ? "<=" : ">=", self->limit);
    }
  else
    {
      g_autofree char *limit = bench_format (self->limit, self->measured.unit);

      print_padded (measured, COLUMN_WIDTH, TRUE);
      g_print ("   %*s%8s  %s %s  ", COLUMN_WIDTH, "", "", self->relation == BENCH_AT_MOST ? "<=" : ">=", limit);
    }
  g_print ("%s\n", bench_claim_is_met (self) ? "ok" : "FAIL");
}

/* Tables */

static gint
find_string (GPtrArray *array, const char *string)
{
  for (guint i = 0; i < array->len; i++)
    {
      if (g_str_equal (g_ptr_array_index (array, i), string))
        return (gint) i;
    }
  return -1;
}

static void
print_throughput_table (BenchReport *self, const char *title, gboolean in_bytes)
{
  g_autoptr (GPtrArray) columns = g_ptr_array_new ();
  gsize last_size = G_MAXSIZE;

  for (guint i = 0; i < self->throughput->len; i++)
    {
      BenchThroughput *figure = g_ptr_array_index (self->throughput, i);

      if (find_string (columns, figure->series) < 0)
        g_ptr_array_add (columns, figure->series);
    }

  g_print ("  %s\n", title);
  print_padded ("size", COLUMN_WIDTH, TRUE);
  for (guint i = 0; i < columns->len; i++)
    print_padded (g_ptr_array_index (columns, i), COLUMN_WIDTH, TRUE);
  g_print ("\n");

  /* Figures come size by size, within a size in the order of the columns. */
  for (guint i = 0; i < self->throughput->len; i++)
    {
      BenchThroughput *figure = g_ptr_array_index (self->throughput, i);
      g_autofree char *cell = NULL;
      double rate = bench_samples_get_median (&figure->rate);

      if (figure->size != last_size)
        {
          g_autofree char *size = bench_format_size (figure->size);

          if (i > 0)
            g_print ("\n");
          print_padded (size, COLUMN_WIDTH, TRUE);
          last_size = figure->size;
        }
      if (bench_samples_is_empty (&figure->rate))
        cell = g_strdup ("-");
      else if (in_bytes)
        cell = bench_format (rate * (double) figure->size, "B/s");
      else
        cell = bench_format (rate, "1/s");
      print_padded (cell, COLUMN_WIDTH, TRUE);
    }
  g_print ("\n\n");
}

static void
print_latency_table (BenchReport *self)
{
  static const char *const titles[] = { "typical", "p50", "p99", "max" };

  print_padded ("", NAME_WIDTH, FALSE);
  for (guint i = 0; i < G_N_ELEMENTS (titles); i++)
    print_padded (titles[i], COLUMN_WIDTH, TRUE);
  g_print ("\n");

  for (guint i = 0; i < self->latency->len; i++)
    {
      BenchLatency *figure = g_ptr_array_index (self->latency, i);
      g_autofree char *name = figure->wait != NULL ? g_strdup_printf ("  %s, %s", figure->series, figure->wait)
                                                   : g_strdup_printf ("  %s", figure->series);

      print_padded (name, NAME_WIDTH, FALSE);
      for (guint j = 0; j < G_N_ELEMENTS (titles); j++)
        {
          g_autofree char *cell = bench_samples_is_empty (&figure->values[j])
                                      ? g_strdup ("-")
                                      : bench_format (bench_samples_get_median (&figure->values[j]), "ns");

          print_padded (cell, COLUMN_WIDTH, TRUE);
        }
      g_print ("\n");
    }
  g_print ("\n");
}

void
bench_report_print_errors (BenchReport *self)
{
  for (guint i = 0; i < self->throughput->len; i++)
    {
      BenchThroughput *figure = g_ptr_array_index (self->throughput, i);
      g_autofree char *size = bench_format_size (figure->size);

      if (figure->error != NULL)
        g_printerr ("ferry-bench: %s, %s: not measured: %s\n", figure->series, size, figure->error);
    }
  for (guint i = 0; i < self->latency->len; i++)
    {
      BenchLatency *figure = g_ptr_array_index (self->latency, i);

      if (figure->error != NULL)
        g_printerr ("ferry-bench: %s%s%s: not measured: %s\n", figure->series, figure->wait != NULL ? ", " : "",
                    figure->wait != NULL ? figure->wait : "", figure->error);
    }
}

/* Claims are printed one by one, as they come: they take minutes. */
void
bench_report_print (BenchReport *self)
{
  if (self->throughput->len > 0)
    {
      g_print ("%s\n\n", self->throughput_title);
      print_throughput_table (self, "messages per second", FALSE);
      print_throughput_table (self, "bytes per second", TRUE);
    }
  if (self->latency->len > 0)
    {
      g_print ("%s\n\n", self->latency_title);
      print_latency_table (self);
    }
}

gboolean
bench_report_has_errors (BenchReport *self)
{
  for (guint i = 0; i < self->throughput->len; i++)
    {
      BenchThroughput *figure = g_ptr_array_index (self->throughput, i);

      /* A baseline that can't do the thing (empty messages in a pipe) is no failure. */
      if (figure->error != NULL && !figure->baseline)
        return TRUE;
    }
  for (guint i = 0; i < self->latency->len; i++)
    {
      BenchLatency *figure = g_ptr_array_index (self->latency, i);

      if (figure->error != NULL && !figure->baseline)
        return TRUE;
    }
  for (guint i = 0; i < self->claims->len; i++)
    {
      BenchClaim *claim = g_ptr_array_index (self->claims, i);

      if (claim->error != NULL)
        return TRUE;
    }
  return FALSE;
}

gboolean
bench_report_has_unmet_claims (BenchReport *self)
{
  for (guint i = 0; i < self->claims->len; i++)
    {
      if (!bench_claim_is_met (g_ptr_array_index (self->claims, i)))
        return TRUE;
    }
  return FALSE;
}

/* JSON */

static void
add_string (JsonBuilder *builder, const char *name, const char *value)
{
  json_builder_set_member_name (builder, name);
  if (value != NULL)
    json_builder_add_string_value (builder, value);
  else
    json_builder_add_null_value (builder);
}

static void
add_int (JsonBuilder *builder, const char *name, gint64 value)
{
  json_builder_set_member_name (builder, name);
  json_builder_add_int_value (builder, value);
}

static void
add_boolean (JsonBuilder *builder, const char *name, gboolean value)
{
  json_builder_set_member_name (builder, name);
  json_builder_add_boolean_value (builder, value);
}

/* JSON knows no infinity. */
static void
add_double_value (JsonBuilder *builder, double value)
{
  if (isfinite (value))
    json_builder_add_double_value (builder, value);
  else
    json_builder_add_null_value (builder);
}

static void
add_double (JsonBuilder *builder, const char *name, double value)
{
  json_builder_set_member_name (builder, name);
  add_double_value (builder, value);
}

static void
add_samples (JsonBuilder *builder, const char *name, const BenchSamples *samples, double factor, const char *unit)
{
  json_builder_set_member_name (builder, name);
  if (bench_samples_is_empty (samples))
    {
      json_builder_add_null_value (builder);
      return;
    }
  json_builder_begin_object (builder);
  add_double (builder, "median", bench_samples_get_median (samples) * factor);
  add_string (builder, "unit", unit);
  json_builder_set_member_name (builder, "samples");
  json_builder_begin_array (builder);
  for (guint i = 0; i < samples->values->len; i++)
    add_double_value (builder, g_array_index (samples->values, double, i) * factor);
  json_builder_end_array (builder);
  json_builder_end_object (builder);
}

static char *
read_cpu_model (void)
{
  g_autofree char *text = NULL;
  g_auto (GStrv) lines = NULL;

  if (!g_file_get_contents ("/proc/cpuinfo", &text, NULL, NULL))
    return NULL;
  lines = g_strsplit (text, "\n", -1);
  for (guint i = 0; lines[i] != NULL; i++)
    {
      const char *colon = strchr (lines[i], ':');

      if (colon != NULL && (g_str_has_prefix (lines[i], "model name") || g_str_has_prefix (lines[i], "Model")))
        return g_strstrip (g_strdup (colon + 1));
    }
  return NULL;
}

static void
add_machine (JsonBuilder *builder)
{
  g_autofree char *cpu = read_cpu_model ();
  struct utsname name;

  json_builder_set_member_name (builder, "machine");
  json_builder_begin_object (builder);
  add_string (builder, "cpu", cpu);
  add_int (builder, "cpus", sysconf (_SC_NPROCESSORS_ONLN));
  add_int (builder, "cpus-usable", bench_count_cpus ());
  add_int (builder, "memory-bytes", (gint64) sysconf (_SC_PHYS_PAGES) * sysconf (_SC_PAGESIZE));
  if (uname (&name) == 0)
    {
      add_string (builder, "system", name.sysname);
      add_string (builder, "kernel", name.release);
      add_string (builder, "architecture", name.machine);
    }
  json_builder_end_object (builder);
}

static void
add_throughput (JsonBuilder *builder, BenchReport *self)
{
  json_builder_set_member_name (builder, "throughput");
  json_builder_begin_array (builder);
  for (guint i = 0; i < self->throughput->len; i++)
    {
      BenchThroughput *figure = g_ptr_array_index (self->throughput, i);

      json_builder_begin_object (builder);
      add_string (builder, "series", figure->series);
      add_boolean (builder, "baseline", figure->baseline);
      add_int (builder, "size-bytes", (gint64) figure->size);
      add_samples (builder, "messages", &figure->rate, 1, "1/s");
      add_samples (builder, "bytes", &figure->rate, (double) figure->size, "B/s");
      add_string (builder, "error", figure->error);
      json_builder_end_object (builder);
    }
  json_builder_end_array (builder);
}

static void
add_latency (JsonBuilder *builder, BenchReport *self)
{
  static const char *const names[] = { "typical", "p50", "p99", "max" };

  json_builder_set_member_name (builder, "latency");
  json_builder_begin_array (builder);
  for (guint i = 0; i < self->latency->len; i++)
    {
      BenchLatency *figure = g_ptr_array_index (self->latency, i);

      json_builder_begin_object (builder);
      add_string (builder, "series", figure->series);
      add_boolean (builder, "baseline", figure->baseline);
      add_string (builder, "wait", figure->wait);
      for (guint j = 0; j < G_N_ELEMENTS (names); j++)
        add_samples (builder, names[j], &figure->values[j], 1, "ns");
      add_string (builder, "error", figure->error);
      json_builder_end_object (builder);
    }
  json_builder_end_array (builder);
}

static void
add_claims (JsonBuilder *builder, BenchReport *self)
{
  json_builder_set_member_name (builder, "claims");
  json_builder_begin_array (builder);
  for (guint i = 0; i < self->claims->len; i++)
    {
      BenchClaim *claim = g_ptr_array_index (self->claims, i);

      json_builder_begin_object (builder);
      add_string (builder, "what", claim->what);
      add_string (builder, "transport", claim->transport);
      add_string (builder, "measured-name", claim->measured_name);
      add_samples (builder, "measured", &claim->measured, 1, claim->measured.unit);
      add_string (builder, "reference-name", claim->reference_name);
      add_samples (builder, "reference", &claim->reference, 1, claim->reference.unit);
      add_double (builder, "ratio",
                  claim->error == NULL && claim->reference_name != NULL ? bench_claim_get_ratio (claim) : NAN);
      add_string (builder, "relation", claim->relation == BENCH_AT_MOST ? "at most" : "at least");
      add_double (builder, "limit", claim->limit);
      json_builder_set_member_name (builder, "met");
      if (claim->error == NULL)
        json_builder_add_boolean_value (builder, bench_claim_is_met (claim));
      else
        json_builder_add_null_value (builder);
      add_string (builder, "error", claim->error);
      json_builder_end_object (builder);
    }
  json_builder_end_array (builder);
}

char *
bench_report_to_json (BenchReport *self)
{
  g_autoptr (JsonBuilder) builder = json_builder_new ();
  g_autoptr (GDateTime) now = g_date_time_new_now_utc ();
  g_autofree char *date = g_date_time_format_iso8601 (now);
  g_autoptr (JsonNode) root = NULL;

  json_builder_begin_object (builder);
  add_string (builder, "program", "ferry-bench");
  add_int (builder, "format", JSON_FORMAT_VERSION);
  add_string (builder, "date", date);
  add_machine (builder);
  json_builder_end_object (self->settings);
  json_builder_set_member_name (builder, "settings");
  json_builder_add_value (builder, json_builder_get_root (self->settings));
  add_throughput (builder, self);
  add_latency (builder, self);
  add_claims (builder, self);
  json_builder_end_object (builder);

  root = json_builder_get_root (builder);
  return json_to_string (root, TRUE);
}
