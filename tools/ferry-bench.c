/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* ferry-bench: how fast channels are, beside what else a machine can do. */

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "ferry-bench-channel.h"
#include "ferry-bench-claims.h"
#include "ferry-bench-report.h"
#include "ferry-tool-util.h"

#define DEFAULT_SIZES "64,4K,64K,1M,16M"
#define DEFAULT_DURATION 0.3 /* seconds */
#define DEFAULT_REPEATS 3
#define QUICK_DURATION 0.05 /* seconds */
#define QUICK_REPEATS 1
#define QUICK_SIZES "64,64K,1M"
#define MAX_DURATION 3600.0 /* seconds */
#define MAX_REPEATS 1000
#define DEFAULT_LATENCY_SIZE "64"
#define MAX_LATENCY_SIZE (G_GUINT64_CONSTANT (1) << 30) /* bytes */
#define MAX_SIZE (G_GUINT64_CONSTANT (1) << 40)         /* bytes */
#define MEMORY_FACTOR 4                                 /* source, target and two blocks in flight of one size */

static char **opt_transports;
static char *opt_sizes;
static char *opt_latency_size;
static char *opt_mode;
static char *opt_wait;
static char *opt_only;
static char *opt_output;
static int opt_senders = 1;
static int opt_receivers = 1;
static int opt_capacity;
static int opt_repeats;
static gint64 opt_messages;
static double opt_duration;
static gboolean opt_pin;
static gboolean opt_no_pin;
static gboolean opt_loan;
static gboolean opt_touch;
static gboolean opt_no_baselines;
static gboolean opt_json;
static gboolean opt_quick;
static gboolean opt_quiet;
static gboolean opt_claims;
static gboolean opt_huge;
static gboolean opt_strict;
static gboolean opt_version;

static const GOptionEntry entries[] = {
  { "transport", 't', 0, G_OPTION_ARG_STRING_ARRAY, &opt_transports,
    "Measure these transports, with commas between them (default: every shared-memory transport found)", "LIST" },
  { "sizes", 's', 0, G_OPTION_ARG_STRING, &opt_sizes,
    "Message sizes in bytes, with K, M or G (default: " DEFAULT_SIZES ")", "LIST" },
  { "latency-size", 0, 0, G_OPTION_ARG_STRING, &opt_latency_size,
    "Message size for latency (default: " DEFAULT_LATENCY_SIZE ")", "SIZE" },
  { "mode", 'm', 0, G_OPTION_ARG_STRING, &opt_mode, "work-queue (default) or broadcast", "MODE" },
  { "senders", 'n', 0, G_OPTION_ARG_INT, &opt_senders, "Sending processes (default: 1)", "N" },
  { "receivers", 'r', 0, G_OPTION_ARG_INT, &opt_receivers, "Receiving processes (default: 1)", "N" },
  { "wait", 'w', 0, G_OPTION_ARG_STRING, &opt_wait,
    "spin, sleep or adaptive (default: adaptive for throughput, each for latency)", "STRATEGY" },
  { "capacity", 'c', 0, G_OPTION_ARG_INT, &opt_capacity,
    "Messages in flight (default: as many as make 4 MiB, from 2 to 1024)", "N" },
  { "loan", 'l', 0, G_OPTION_ARG_NONE, &opt_loan, "Send loaned blocks instead of copying", NULL },
  { "touch", 0, 0, G_OPTION_ARG_NONE, &opt_touch, "Senders write and receivers read every byte", NULL },
  { "pin", 'p', 0, G_OPTION_ARG_NONE, &opt_pin,
    "Bind processes to CPUs in turns even when there are more processes than CPUs", NULL },
  { "no-pin", 0, 0, G_OPTION_ARG_NONE, &opt_no_pin, "Bind no process to a CPU", NULL },
  { "only", 0, 0, G_OPTION_ARG_STRING, &opt_only, "Only throughput or only latency", "WHAT" },
  { "no-baselines", 0, 0, G_OPTION_ARG_NONE, &opt_no_baselines, "Leave pipe, socket, memcpy and the like out", NULL },
  { "duration", 'd', 0, G_OPTION_ARG_DOUBLE, &opt_duration, "Seconds of each measurement (default: 0.3)", "SECONDS" },
  { "messages", 0, 0, G_OPTION_ARG_INT64, &opt_messages, "Messages to each receiver instead of a duration", "N" },
  { "repeat", 'R', 0, G_OPTION_ARG_INT, &opt_repeats, "Measure everything N times in turns, show medians (default: 3)",
    "N" },
  { "quick", 'q', 0, G_OPTION_ARG_NONE, &opt_quick, "A rough figure in seconds: few sizes, short, once", NULL },
  { "claims", 0, 0, G_OPTION_ARG_NONE, &opt_claims, "Measure what Ferry promises, each against its limit", NULL },
  { "huge", 0, 0, G_OPTION_ARG_NONE, &opt_huge, "With --claims: pass a 10 GB message too", NULL },
  { "strict", 0, 0, G_OPTION_ARG_NONE, &opt_strict, "With --claims: exit with 1 when a limit is missed", NULL },
  { "json", 'j', 0, G_OPTION_ARG_NONE, &opt_json, "Print JSON instead of tables", NULL },
  { "output", 'o', 0, G_OPTION_ARG_FILENAME, &opt_output, "Write JSON to a file besides", "FILE" },
  { "quiet", 0, 0, G_OPTION_ARG_NONE, &opt_quiet, "No progress on the terminal", NULL },
  { "version", 0, 0, G_OPTION_ARG_NONE, &opt_version, "Print the version", NULL },
  { NULL },
};

typedef struct
{
  GArray *sizes; /* of gsize */
  guint64 latency_size;
  gboolean broadcast;
  gboolean throughput;
  gboolean latency;
  int wait;        /* FerryWaitStrategy, or -1: each */
  gint64 duration; /* µs */
  guint repeats;
} Settings;

static const char *const wait_names[] = {
  [FERRY_WAIT_STRATEGY_ADAPTIVE] = "adaptive",
  [FERRY_WAIT_STRATEGY_SPIN] = "spin",
  [FERRY_WAIT_STRATEGY_SLEEP] = "sleep",
};

static void
show_progress (const char *what)
{
  static gboolean shown;

  if (opt_quiet || !isatty (STDERR_FILENO))
    return;
  if (what != NULL)
    g_printerr ("\r\033[Kmeasuring %s ...", what);
  else if (shown)
    g_printerr ("\r\033[K");
  shown = what != NULL;
}

static gboolean usage_error (GError **error, const char *format, ...) G_GNUC_PRINTF (2, 3);

static gboolean
usage_error (GError **error, const char *format, ...)
{
  g_autofree char *message = NULL;
  va_list args;

  va_start (args, format);
  message = g_strdup_vprintf (format, args);
  va_end (args);
  g_set_error_literal (error, G_OPTION_ERROR, G_OPTION_ERROR_BAD_VALUE, message);
  return FALSE;
}

static gboolean
parse_sizes (const char *list, GArray *sizes, GError **error)
{
  g_auto (GStrv) parts = g_strsplit (list, ",", -1);

  for (guint i = 0; parts[i] != NULL; i++)
    {
      guint64 parsed;
      gsize size;

      if (!tool_parse_size (g_strstrip (parts[i]), MAX_SIZE, &parsed, error))
        return FALSE;
      size = parsed;
      if (size > bench_get_available_memory () / MEMORY_FACTOR)
        return usage_error (
            error, "messages of %s need about %u times their size; %" G_GUINT64_FORMAT " MiB of memory are free",
            parts[i], MEMORY_FACTOR, bench_get_available_memory () >> 20);
      g_array_append_val (sizes, size);
    }
  return sizes->len > 0 || usage_error (error, "--sizes is empty");
}

/* What the library says, so that there is one number. */
static guint
max_capacity (void)
{
  g_autoptr (FerryChannelClass) klass = g_type_class_ref (FERRY_TYPE_CHANNEL);

  return G_PARAM_SPEC_UINT (g_object_class_find_property (G_OBJECT_CLASS (klass), "capacity"))->maximum;
}

static gboolean
parse_settings (Settings *settings, GError **error)
{
  double duration = opt_duration > 0 ? opt_duration : opt_quick ? QUICK_DURATION : DEFAULT_DURATION;
  int repeats = opt_repeats > 0 ? opt_repeats : opt_quick ? QUICK_REPEATS : DEFAULT_REPEATS;

  if (opt_duration < 0 || !(duration <= MAX_DURATION))
    return usage_error (error, "--duration must be more than 0 and at most %g seconds", MAX_DURATION);
  if (opt_repeats < 0 || repeats > MAX_REPEATS)
    return usage_error (error, "--repeat must be from 1 to %d", MAX_REPEATS);
  if (opt_senders < 1 || opt_receivers < 1 || opt_senders > BENCH_MAX_PROCESSES || opt_receivers > BENCH_MAX_PROCESSES
      || opt_senders + opt_receivers > BENCH_MAX_PROCESSES)
    return usage_error (error, "--senders and --receivers must be at least 1 each and at most %d together",
                        BENCH_MAX_PROCESSES);
  if (opt_capacity < 0 || (guint) opt_capacity > max_capacity ())
    return usage_error (error, "--capacity must be from 1 to %u messages", max_capacity ());
  if (opt_messages < 0)
    return usage_error (error, "--messages must not be negative");
  if (opt_pin && opt_no_pin)
    return usage_error (error, "--pin and --no-pin exclude each other");
  if (opt_huge && !opt_claims)
    return usage_error (error, "--huge goes with --claims");
  if (opt_strict && !opt_claims)
    return usage_error (error, "--strict goes with --claims");

  for (guint i = 0; opt_transports != NULL && opt_transports[i] != NULL; i++)
    if (*opt_transports[i] == '\0')
      return usage_error (error, "--transport is empty; ferry-inspect lists the transports");

  settings->duration = (gint64) (duration * G_USEC_PER_SEC);
  settings->repeats = (guint) repeats;

  if (!parse_sizes (opt_sizes != NULL ? opt_sizes
                    : opt_quick       ? QUICK_SIZES
                                      : DEFAULT_SIZES,
                    settings->sizes, error)
      || !tool_parse_size (opt_latency_size != NULL ? opt_latency_size : DEFAULT_LATENCY_SIZE, MAX_LATENCY_SIZE,
                           &settings->latency_size, error))
    return FALSE;
  if (settings->latency_size == 0)
    return usage_error (error, "--latency-size must be at least 1");

  settings->broadcast = g_strcmp0 (opt_mode, "broadcast") == 0;
  if (opt_mode != NULL && !settings->broadcast && !g_str_equal (opt_mode, "work-queue"))
    return usage_error (error, "'%s' is not a mode; there are work-queue and broadcast", opt_mode);

  settings->wait = -1;
  for (guint i = 0; i < G_N_ELEMENTS (wait_names) && opt_wait != NULL; i++)
    {
      if (g_str_equal (opt_wait, wait_names[i]))
        settings->wait = (int) i;
    }
  if (opt_wait != NULL && settings->wait < 0)
    return usage_error (error, "'%s' is not a waiting strategy; there are spin, sleep and adaptive", opt_wait);

  settings->throughput = opt_only == NULL || g_str_equal (opt_only, "throughput");
  settings->latency = opt_only == NULL || g_str_equal (opt_only, "latency");
  if (!settings->throughput && !settings->latency)
    return usage_error (error, "--only takes throughput or latency, not '%s'", opt_only);
  return TRUE;
}

/* With a CPU for each process they are bound to them: the scheduler would put two that
 * talk to each other on one CPU now and then, and figures would jump. */
static gboolean
choose_pin (guint n_processes)
{
  return opt_pin || (!opt_no_pin && n_processes <= bench_count_cpus ());
}

static void
init_load (const Settings *settings, BenchLoad *load)
{
  memset (load, 0, sizeof *load);
  load->senders = (guint) opt_senders;
  load->receivers = (guint) opt_receivers;
  load->broadcast = settings->broadcast;
  load->pin = choose_pin (load->senders + load->receivers);
  load->duration = settings->duration;
  load->messages = (guint64) opt_messages;
}

static void
take_error (char **text, GError **error)
{
  if (*text == NULL)
    *text = g_strdup ((*error)->message);
  g_clear_error (error);
}

/* One measurement of every size and series. The first repeat makes the figures, the
 * later ones add to them in the same order. */
static void
measure_throughput (const Settings *settings, char **transports, BenchReport *report, guint repeat)
{
  const BenchBaseline *baselines;
  guint n_baselines;
  guint index = 0;

  baselines = bench_baseline_get_all (&n_baselines);
  for (guint i = 0; i < settings->sizes->len && bench_get_signal () == 0; i++)
    {
      gsize size = g_array_index (settings->sizes, gsize, i);
      g_autofree char *size_text = bench_format_size (size);
      BenchChannel channel = { 0 };
      BenchLoad load;

      init_load (settings, &load);
      load.size = size;
      channel.load = load;
      channel.wait = settings->wait >= 0 ? (FerryWaitStrategy) settings->wait : FERRY_WAIT_STRATEGY_ADAPTIVE;
      channel.capacity = (guint) opt_capacity;
      channel.loan = opt_loan;
      channel.touch = opt_touch;

      for (guint j = 0; transports[j] != NULL; j++, index++)
        {
          g_autofree char *what = g_strdup_printf ("throughput of %s, %s", transports[j], size_text);
          g_autoptr (GError) error = NULL;
          BenchThroughput *figure = repeat == 0 ? bench_report_add_throughput (report, transports[j], FALSE, size)
                                                : g_ptr_array_index (report->throughput, index);
          double rate;

          show_progress (what);
          channel.transport = transports[j];
          if (bench_channel_throughput (&channel, &rate, &error))
            bench_samples_add (&figure->rate, rate);
          else
            take_error (&figure->error, &error);
        }
      for (guint j = 0; j < n_baselines && !opt_no_baselines; j++)
        {
          g_autofree char *what = g_strdup_printf ("throughput of %s, %s", baselines[j].name, size_text);
          g_autoptr (GError) error = NULL;
          BenchThroughput *figure;
          double rate;

          if (baselines[j].throughput == NULL)
            continue;
          figure = repeat == 0 ? bench_report_add_throughput (report, baselines[j].name, TRUE, size)
                               : g_ptr_array_index (report->throughput, index);
          index++;
          show_progress (what);
          if (baselines[j].throughput (&load, &rate, &error))
            bench_samples_add (&figure->rate, rate);
          else
            take_error (&figure->error, &error);
        }
    }
}

static void
add_latency (BenchLatency *figure, const double values[BENCH_MAX_VALUES])
{
  for (guint i = 0; i < G_N_ELEMENTS (figure->values); i++)
    bench_samples_add (&figure->values[i], values[i]);
}

static void
measure_latency (const Settings *settings, char **transports, BenchReport *report, guint repeat)
{
  const BenchBaseline *baselines;
  guint n_baselines;
  guint index = 0;
  double values[BENCH_MAX_VALUES];
  BenchLoad load;

  init_load (settings, &load);
  load.size = settings->latency_size;
  load.senders = load.receivers = 1;
  load.broadcast = FALSE;
  load.pin = choose_pin (load.senders + load.receivers);

  baselines = bench_baseline_get_all (&n_baselines);
  for (guint i = 0; i < n_baselines && !opt_no_baselines && bench_get_signal () == 0; i++)
    {
      g_autofree char *what = g_strdup_printf ("latency of %s", baselines[i].name);
      g_autoptr (GError) error = NULL;
      BenchLatency *figure;

      if (baselines[i].latency == NULL)
        continue;
      figure = repeat == 0 ? bench_report_add_latency (report, baselines[i].name, NULL, TRUE)
                           : g_ptr_array_index (report->latency, index);
      index++;
      show_progress (what);
      if (baselines[i].latency (&load, values, &error))
        add_latency (figure, values);
      else
        take_error (&figure->error, &error);
    }

  for (guint i = 0; transports[i] != NULL; i++)
    {
      for (guint wait = 0; wait < G_N_ELEMENTS (wait_names) && bench_get_signal () == 0; wait++)
        {
          g_autofree char *what = g_strdup_printf ("latency of %s, %s", transports[i], wait_names[wait]);
          g_autoptr (GError) error = NULL;
          BenchChannel channel = { .transport = transports[i], .load = load, .wait = (FerryWaitStrategy) wait };
          BenchLatency *figure;

          if (settings->wait >= 0 && settings->wait != (int) wait)
            continue;
          figure = repeat == 0 ? bench_report_add_latency (report, transports[i], wait_names[wait], FALSE)
                               : g_ptr_array_index (report->latency, index);
          index++;
          show_progress (what);
          channel.capacity = (guint) opt_capacity;
          if (bench_channel_latency (&channel, values, &error))
            add_latency (figure, values);
          else
            take_error (&figure->error, &error);
        }
    }
}

static void
set_int (JsonBuilder *builder, const char *name, gint64 value)
{
  json_builder_set_member_name (builder, name);
  json_builder_add_int_value (builder, value);
}

static void
set_string (JsonBuilder *builder, const char *name, const char *value)
{
  json_builder_set_member_name (builder, name);
  json_builder_add_string_value (builder, value);
}

static void
set_boolean (JsonBuilder *builder, const char *name, gboolean value)
{
  json_builder_set_member_name (builder, name);
  json_builder_add_boolean_value (builder, value);
}

static void
describe_settings (const Settings *settings, char **transports, BenchReport *report)
{
  JsonBuilder *builder = report->settings;
  const char *mode = settings->broadcast ? "broadcast" : "work-queue";
  g_autofree char *latency_size = bench_format_size (settings->latency_size);

  set_string (builder, "ferry-version", FERRY_VERSION_STRING);
  set_string (builder, "mode", mode);
  set_int (builder, "senders", opt_senders);
  set_int (builder, "receivers", opt_receivers);
  set_string (builder, "wait", settings->wait >= 0 ? wait_names[settings->wait] : "default");
  /* 0: chosen by the size */
  set_int (builder, "capacity", opt_capacity);
  set_boolean (builder, "loan", opt_loan);
  set_boolean (builder, "touch", opt_touch);
  set_boolean (builder, "pin", choose_pin ((guint) (opt_senders + opt_receivers)));
  set_int (builder, "duration-us", settings->duration);
  set_int (builder, "messages", opt_messages);
  set_int (builder, "repeats", settings->repeats);
  set_int (builder, "latency-size-bytes", (gint64) settings->latency_size);
  json_builder_set_member_name (builder, "transports");
  json_builder_begin_array (builder);
  for (guint i = 0; transports[i] != NULL; i++)
    json_builder_add_string_value (builder, transports[i]);
  json_builder_end_array (builder);

  report->throughput_title = g_strdup_printf (
      "Throughput: %s, %d %s, %d %s, %s%s, waiting %s; median of %u", mode, opt_senders,
      opt_senders == 1 ? "sender" : "senders", opt_receivers, opt_receivers == 1 ? "receiver" : "receivers",
      opt_loan ? "loaned" : "copied", opt_touch ? " and touched" : "",
      wait_names[settings->wait >= 0 ? settings->wait : FERRY_WAIT_STRATEGY_ADAPTIVE], settings->repeats);
  report->latency_title
      = g_strdup_printf ("Latency one way (half a round trip), %s; median of %u", latency_size, settings->repeats);
}

/* Names given in one list or in several; NULL when none are given. */
static char **
split_transports (void)
{
  g_autofree char *joined = opt_transports != NULL ? g_strjoinv (",", opt_transports) : NULL;
  char **names = joined != NULL ? g_strsplit (joined, ",", -1) : NULL;

  for (guint i = 0; names != NULL && names[i] != NULL; i++)
    g_strstrip (names[i]);
  return names;
}

static int
run (const Settings *settings)
{
  g_autoptr (BenchReport) report = bench_report_new ();
  g_autoptr (GError) error = NULL;
  g_auto (GStrv) wanted = NULL;
  g_auto (GStrv) transports = NULL;
  g_autofree char *json = NULL;

  wanted = split_transports ();
  transports = bench_channel_list_transports ((const char *const *) wanted, &error);
  if (transports == NULL)
    {
      tool_printerr ("%s", error->message);
      return EXIT_FAILURE;
    }
  if (transports[0] == NULL)
    {
      tool_printerr ("no shared-memory transport found; ferry-inspect tells which plugins there are and why one can't "
                     "be used");
      return EXIT_FAILURE;
    }

  describe_settings (settings, transports, report);
  if (opt_claims)
    {
      BenchClaimSettings claims = {
        .transports = transports,
        .repeats = settings->repeats,
        .duration = settings->duration,
        .huge = opt_huge,
      };

      bench_claims_run (&claims, report, !opt_json, show_progress);
    }
  else
    {
      for (guint repeat = 0; repeat < settings->repeats && bench_get_signal () == 0; repeat++)
        {
          if (settings->throughput)
            measure_throughput (settings, transports, report, repeat);
          if (settings->latency)
            measure_latency (settings, transports, report, repeat);
        }
    }
  show_progress (NULL);

  if (bench_get_signal () != 0)
    {
      tool_printerr ("interrupted");
      return TOOL_EXIT_SIGNAL_BASE + bench_get_signal ();
    }

  json = bench_report_to_json (report);
  if (opt_json)
    g_print ("%s\n", json);
  else
    bench_report_print (report);
  bench_report_print_errors (report);
  if (opt_output != NULL && !g_file_set_contents (opt_output, json, -1, &error))
    {
      tool_printerr ("%s", error->message);
      return EXIT_FAILURE;
    }
  if (bench_report_has_errors (report) || (opt_strict && bench_report_has_unmet_claims (report)))
    return EXIT_FAILURE;
  return EXIT_SUCCESS;
}

int
main (int argc, char **argv)
{
  g_autoptr (GOptionContext) context = g_option_context_new (NULL);
  g_autoptr (GError) error = NULL;
  Settings settings = { 0 };
  int status;

  tool_init ("ferry-bench");

  g_option_context_set_summary (context,
                                "Measures throughput and latency of Ferry channels between processes, beside\n"
                                "a pipe, a UNIX socket, memcpy, a futex and a raw cache line in the same run.");
  g_option_context_set_description (
      context, "Examples:\n"
               "  ferry-bench --quick                      a first impression\n"
               "  ferry-bench -t memfd -s 64,1M            one transport, two sizes\n"
               "  ferry-bench -n 2 -r 2 -m broadcast       two senders, two receivers\n"
               "  ferry-bench --claims --output out.json   the promised figures against their limits\n"
               "\n"
               "Exit status: 0 measured, 1 something could not be measured (with --strict also when\n"
               "a claim is missed), 2 wrong usage, 128 plus the signal when interrupted.\n"
               "benchmarks/plot-bench.py draws plots of the JSON.\n");
  g_option_context_add_main_entries (context, entries, NULL);

  settings.sizes = g_array_new (FALSE, FALSE, sizeof (gsize));
  if (!g_option_context_parse (context, &argc, &argv, &error)
      || (argc > 1 && !usage_error (&error, "unexpected argument '%s'", argv[1]))
      || !parse_settings (&settings, &error))
    {
      g_array_unref (settings.sizes);
      return tool_fail_usage ("%s", error->message);
    }
  if (opt_version)
    {
      g_print ("ferry-bench " FERRY_VERSION_STRING "\n");
      g_array_unref (settings.sizes);
      return EXIT_SUCCESS;
    }

  bench_catch_signals ();
  status = run (&settings);
  g_array_unref (settings.sizes);
  return status;
}
