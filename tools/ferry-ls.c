/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* ferry-ls: lists live channels and stores. */

#include <json-glib/json-glib.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "ferry-tool-util.h"

#define COLUMN_GAP 2               /* characters */
#define MAX_WATCH_INTERVAL 86400.0 /* seconds */
#define MIN_WATCH_INTERVAL 0.05    /* seconds */
#define CLEAR_SCREEN "\033[H\033[J"

static char **opt_transports;
static gboolean opt_all;
static gboolean opt_participants;
static gboolean opt_json;
static gboolean opt_version;
static double opt_watch;
static char **opt_names;

static const GOptionEntry entries[] = {
  { "all", 'a', 0, G_OPTION_ARG_NONE, &opt_all, "Also list what dead programs left, marked as dead", NULL },
  { "participants", 'p', 0, G_OPTION_ARG_NONE, &opt_participants, "List who is in each channel too", NULL },
  { "transport", 't', 0, G_OPTION_ARG_STRING_ARRAY, &opt_transports, "Only this transport; may be given again",
    "NAME" },
  { "watch", 'w', 0, G_OPTION_ARG_DOUBLE, &opt_watch, "List again every so many seconds until Ctrl-C", "SECONDS" },
  { "json", 'j', 0, G_OPTION_ARG_NONE, &opt_json, "Print JSON; one line a round with --watch", NULL },
  { "version", 0, 0, G_OPTION_ARG_NONE, &opt_version, "Print the version", NULL },
  { G_OPTION_REMAINING, 0, 0, G_OPTION_ARG_STRING_ARRAY, &opt_names, NULL, "[PATTERN...]" },
  { NULL },
};

/* What was found out about one channel. */
typedef struct
{
  char *transport;
  char *name;   /* printable */
  gint64 group; /* whose members may join; -1: the user alone, or the transport does not tell */
  gboolean alive;
  gboolean unknown; /* nobody can tell whether it is alive */
  FerryMode mode;
  FerryStatistics *statistics; /* NULL when it is dead, or could not be looked at */
  GPtrArray *participants;     /* (nullable): of FerryParticipant */
  char *error;                 /* why it could not be looked at */
} Entry;

static void
entry_free (gpointer data)
{
  Entry *self = data;

  g_free (self->transport);
  g_free (self->name);
  g_free (self->error);
  g_clear_pointer (&self->statistics, ferry_statistics_free);
  g_clear_pointer (&self->participants, g_ptr_array_unref);
  g_free (self);
}

static int
compare_entries (gconstpointer a, gconstpointer b)
{
  const Entry *x = *(Entry *const *) a;
  const Entry *y = *(Entry *const *) b;
  int order = strcmp (x->name, y->name);

  if (order == 0)
    order = strcmp (x->transport, y->transport);
  return order != 0 ? order : (x->group > y->group) - (x->group < y->group);
}

static const char *
get_nick (GType type, int value)
{
  g_autoptr (GEnumClass) klass = g_type_class_ref (type);
  GEnumValue *found = g_enum_get_value (klass, value);

  return found != NULL ? found->value_nick : "?";
}

/* Looks into a live channel. Returns FALSE when it vanished meanwhile. */
static gboolean
look (Entry *entry, const char *name)
{
  g_autoptr (FerryChannel) channel = ferry_channel_new (entry->transport, name, FERRY_ROLE_OBSERVER);
  g_autoptr (GError) error = NULL;

  g_object_set (channel, "open-mode", FERRY_OPEN_MODE_JOIN, "group", entry->group, NULL);
  if (!ferry_channel_open (channel, NULL, &error))
    {
      if (g_error_matches (error, FERRY_ERROR, FERRY_ERROR_NOT_FOUND))
        return FALSE;
      entry->error = g_strdup (error->message);
      return TRUE;
    }

  g_object_get (channel, "mode", &entry->mode, NULL);
  entry->statistics = ferry_channel_get_statistics (channel, &error);
  if (entry->statistics != NULL && opt_participants)
    entry->participants = ferry_channel_list_participants (channel, &error);
  if (error != NULL)
    entry->error = g_strdup (error->message);
  ferry_channel_close (channel, NULL);
  return TRUE;
}

static void
collect_from (const char *transport_name, const ToolListing *listing, GPtrArray *list)
{
  for (guint i = 0; listing->names[i] != NULL; i++)
    {
      const char *name = listing->names[i];
      g_autoptr (GError) error = NULL;
      gboolean alive = FALSE;
      Entry *entry;

      if (!tool_matches ((const char *const *) opt_names, name))
        continue;
      if (!ferry_transport_probe_channel (listing->transport, name, &alive, &error))
        {
          if (g_error_matches (error, FERRY_ERROR, FERRY_ERROR_NOT_FOUND))
            continue;
        }
      else if (!alive && !opt_all)
        continue;

      entry = g_new0 (Entry, 1);
      entry->transport = g_strdup (transport_name);
      entry->name = tool_make_printable (name);
      entry->group = listing->group;
      entry->alive = alive;
      if (error != NULL)
        {
          entry->unknown = TRUE;
          entry->error = g_strdup (error->message);
        }
      if (alive && !look (entry, name))
        entry_free (entry);
      else
        g_ptr_array_add (list, entry);
    }
}

/* A transport that can't be asked is told of and left out. */
static GPtrArray *
collect (GPtrArray *transports, gboolean *complete)
{
  GPtrArray *list = g_ptr_array_new_with_free_func (entry_free);

  for (guint i = 0; i < transports->len; i++)
    {
      const char *transport = g_ptr_array_index (transports, i);
      g_autoptr (GError) error = NULL;
      g_autoptr (GPtrArray) listings = tool_list_channels (transport, &error);

      for (guint j = 0; listings != NULL && j < listings->len; j++)
        collect_from (transport, g_ptr_array_index (listings, j), list);
      if (listings != NULL)
        continue;
      if (g_error_matches (error, FERRY_ERROR, FERRY_ERROR_UNSUPPORTED) && opt_transports == NULL)
        continue;
      tool_printerr ("%s: %s", transport, error->message);
      *complete = FALSE;
    }

  for (guint i = 0; i < list->len; i++)
    {
      Entry *entry = g_ptr_array_index (list, i);

      if (entry->error == NULL)
        continue;
      tool_printerr ("%s: %s", entry->name, entry->error);
      *complete = FALSE;
    }
  g_ptr_array_sort (list, compare_entries);
  return list;
}

/* Tables: rows of cells, the first three to the left, numbers to the right. */

#define N_CHANNEL_COLUMNS 9
#define N_LEFT_COLUMNS 3

static const char *const channel_titles[N_CHANNEL_COLUMNS]
    = { "NAME", "TRANSPORT", "MODE", "SENDERS", "RECEIVERS", "DEPTH", "MEMORY", "MESSAGES", "BYTES" };

static void
print_cell (const char *text, guint width, gboolean left, gboolean last)
{
  guint length = (guint) g_utf8_strlen (text, -1);
  int padding = width > length ? (int) (width - length) : 0;

  if (left)
    g_print ("%s%*s", text, last ? 0 : padding + COLUMN_GAP, "");
  else
    g_print ("%*s%s%*s", padding, "", text, last ? 0 : COLUMN_GAP, "");
}

static char **
make_channel_cells (Entry *entry)
{
  g_autoptr (GStrvBuilder) builder = g_strv_builder_new ();
  FerryStatistics *statistics = entry->statistics;
  g_autofree char *name = entry->group < 0 ? g_strdup (entry->name)
                                           : g_strdup_printf ("%s group=%" G_GINT64_FORMAT, entry->name, entry->group);

  g_strv_builder_add (builder, name);
  g_strv_builder_add (builder, entry->transport);
  if (statistics == NULL)
    {
      g_strv_builder_add (builder, entry->error != NULL ? "unknown" : "dead");
      for (guint i = N_LEFT_COLUMNS; i < N_CHANNEL_COLUMNS; i++)
        g_strv_builder_add (builder, "-");
    }
  else if (entry->mode == FERRY_MODE_STORE)
    {
      /* Nothing is sent; who has it open counts as a sender. What its heap has taken from the system is counted as payload is. */
      g_autofree char *participants = g_strdup_printf ("%u", statistics->senders);
      g_autofree char *memory = tool_format_bytes (statistics->bytes_committed);

      g_strv_builder_add (builder, get_nick (FERRY_TYPE_MODE, entry->mode));
      g_strv_builder_add_many (builder, participants, "-", "-", memory, "-", "-", NULL);
    }
  else
    {
      g_autofree char *senders = g_strdup_printf ("%u", statistics->senders);
      g_autofree char *receivers = g_strdup_printf ("%u", statistics->receivers);
      g_autofree char *depth
          = g_strdup_printf ("%" G_GUINT64_FORMAT "/%" G_GUINT64_FORMAT, statistics->in_flight, statistics->capacity);
      g_autofree char *memory = tool_format_bytes (statistics->bytes_committed);
      g_autofree char *messages = g_strdup_printf ("%" G_GUINT64_FORMAT, statistics->messages_sent);
      g_autofree char *bytes = tool_format_bytes (statistics->bytes_sent);

      g_strv_builder_add (builder, get_nick (FERRY_TYPE_MODE, entry->mode));
      g_strv_builder_add_many (builder, senders, receivers, depth, memory, messages, bytes, NULL);
    }
  return g_strv_builder_end (builder);
}

static void
print_store_participants (Entry *entry)
{
  for (guint i = 0; entry->participants != NULL && i < entry->participants->len; i++)
    {
      FerryParticipant *participant = g_ptr_array_index (entry->participants, i);

      g_print ("  participant %u, process %" G_GINT64_FORMAT ", user %u, %s\n", participant->id, participant->pid,
               participant->uid, participant->alive ? "alive" : "dead");
    }
}

static void
print_participants (Entry *entry)
{
  for (guint i = 0; entry->participants != NULL && i < entry->participants->len; i++)
    {
      FerryParticipant *participant = g_ptr_array_index (entry->participants, i);
      g_autofree char *bytes = tool_format_bytes (participant->bytes);

      g_print ("  %s %u, process %" G_GINT64_FORMAT ", user %u, %s: %" G_GUINT64_FORMAT
               " messages, %s, waited %" G_GUINT64_FORMAT " times, %" G_GUINT64_FORMAT " dropped, holds %u\n",
               get_nick (FERRY_TYPE_ROLE, participant->role), participant->id, participant->pid, participant->uid,
               participant->alive ? "alive" : "dead", participant->messages, bytes, participant->waits,
               participant->dropped, participant->held);
    }
}

static void
free_cells (gpointer cells)
{
  g_strfreev (cells);
}

static void
print_table (GPtrArray *list)
{
  g_autoptr (GPtrArray) rows = g_ptr_array_new_with_free_func (free_cells);
  guint widths[N_CHANNEL_COLUMNS];

  for (guint i = 0; i < list->len; i++)
    g_ptr_array_add (rows, make_channel_cells (g_ptr_array_index (list, i)));

  for (guint j = 0; j < N_CHANNEL_COLUMNS; j++)
    {
      widths[j] = (guint) strlen (channel_titles[j]);
      for (guint i = 0; i < rows->len; i++)
        {
          char **cells = g_ptr_array_index (rows, i);

          widths[j] = MAX (widths[j], (guint) g_utf8_strlen (cells[j], -1));
        }
    }

  for (guint j = 0; j < N_CHANNEL_COLUMNS; j++)
    print_cell (channel_titles[j], widths[j], j < N_LEFT_COLUMNS, j == N_CHANNEL_COLUMNS - 1);
  g_print ("\n");
  for (guint i = 0; i < rows->len; i++)
    {
      char **cells = g_ptr_array_index (rows, i);

      for (guint j = 0; j < N_CHANNEL_COLUMNS; j++)
        print_cell (cells[j], widths[j], j < N_LEFT_COLUMNS, j == N_CHANNEL_COLUMNS - 1);
      g_print ("\n");
      if (((Entry *) g_ptr_array_index (list, i))->mode == FERRY_MODE_STORE)
        print_store_participants (g_ptr_array_index (list, i));
      else
        print_participants (g_ptr_array_index (list, i));
    }
}

/* JSON */

static void
add_int (JsonBuilder *builder, const char *name, guint64 value)
{
  json_builder_set_member_name (builder, name);
  json_builder_add_int_value (builder, (gint64) MIN (value, (guint64) G_MAXINT64));
}

static void
add_string (JsonBuilder *builder, const char *name, const char *value)
{
  json_builder_set_member_name (builder, name);
  json_builder_add_string_value (builder, value);
}

static void
add_boolean (JsonBuilder *builder, const char *name, gboolean value)
{
  json_builder_set_member_name (builder, name);
  json_builder_add_boolean_value (builder, value);
}

static void
add_statistics (JsonBuilder *builder, FerryStatistics *statistics)
{
  add_int (builder, "senders", statistics->senders);
  add_int (builder, "receivers", statistics->receivers);
  add_int (builder, "in-flight", statistics->in_flight);
  add_int (builder, "in-flight-peak", statistics->in_flight_peak);
  add_int (builder, "capacity", statistics->capacity);
  add_int (builder, "bytes-committed", statistics->bytes_committed);
  add_int (builder, "bytes-committed-peak", statistics->bytes_committed_peak);
  add_int (builder, "max-bytes", statistics->max_bytes);
  add_int (builder, "messages-sent", statistics->messages_sent);
  add_int (builder, "bytes-sent", statistics->bytes_sent);
  add_int (builder, "messages-received", statistics->messages_received);
  add_int (builder, "bytes-received", statistics->bytes_received);
  add_int (builder, "messages-dropped", statistics->messages_dropped);
  add_int (builder, "send-waits", statistics->send_waits);
  add_int (builder, "receive-waits", statistics->receive_waits);
  add_int (builder, "repairs", statistics->repairs);
}

static void
add_store (JsonBuilder *builder, FerryStatistics *statistics)
{
  add_int (builder, "participants-alive", statistics->senders);
  add_int (builder, "bytes-committed", statistics->bytes_committed);
  add_int (builder, "bytes-committed-peak", statistics->bytes_committed_peak);
  add_int (builder, "max-bytes", statistics->max_bytes);
  add_int (builder, "repairs", statistics->repairs);
}

static void
add_participants (JsonBuilder *builder, GPtrArray *participants, gboolean of_store)
{
  json_builder_set_member_name (builder, "participants");
  json_builder_begin_array (builder);
  for (guint i = 0; i < participants->len; i++)
    {
      FerryParticipant *participant = g_ptr_array_index (participants, i);

      json_builder_begin_object (builder);
      add_int (builder, "id", participant->id);
      if (!of_store)
        add_string (builder, "role", get_nick (FERRY_TYPE_ROLE, participant->role));
      json_builder_set_member_name (builder, "pid");
      json_builder_add_int_value (builder, participant->pid);
      add_int (builder, "uid", participant->uid);
      add_boolean (builder, "alive", participant->alive);
      if (of_store)
        {
          json_builder_end_object (builder);
          continue;
        }
      add_int (builder, "messages", participant->messages);
      add_int (builder, "bytes", participant->bytes);
      add_int (builder, "waits", participant->waits);
      add_int (builder, "dropped", participant->dropped);
      add_int (builder, "held", participant->held);
      json_builder_end_object (builder);
    }
  json_builder_end_array (builder);
}

static void
print_json (GPtrArray *list, gboolean pretty)
{
  g_autoptr (JsonBuilder) builder = json_builder_new ();
  g_autoptr (JsonNode) root = NULL;
  g_autofree char *text = NULL;

  json_builder_begin_object (builder);
  json_builder_set_member_name (builder, "channels");
  json_builder_begin_array (builder);
  for (guint i = 0; i < list->len; i++)
    {
      Entry *entry = g_ptr_array_index (list, i);

      json_builder_begin_object (builder);
      add_string (builder, "name", entry->name);
      add_string (builder, "transport", entry->transport);
      if (entry->group >= 0)
        add_int (builder, "group", (guint64) entry->group);
      if (entry->unknown)
        {
          json_builder_set_member_name (builder, "alive");
          json_builder_add_null_value (builder);
        }
      else
        add_boolean (builder, "alive", entry->alive);
      if (entry->statistics != NULL)
        {
          add_string (builder, "mode", get_nick (FERRY_TYPE_MODE, entry->mode));
          if (entry->mode == FERRY_MODE_STORE)
            add_store (builder, entry->statistics);
          else
            add_statistics (builder, entry->statistics);
        }
      if (entry->participants != NULL)
        add_participants (builder, entry->participants, entry->mode == FERRY_MODE_STORE);
      if (entry->error != NULL)
        add_string (builder, "error", entry->error);
      json_builder_end_object (builder);
    }
  json_builder_end_array (builder);
  json_builder_end_object (builder);

  root = json_builder_get_root (builder);
  text = json_to_string (root, pretty);
  g_print ("%s\n", text);
}

static gboolean
list_once (GPtrArray *transports)
{
  g_autoptr (GPtrArray) list = NULL;
  gboolean complete = TRUE;

  if (opt_watch > 0 && !opt_json && isatty (STDOUT_FILENO))
    g_print (CLEAR_SCREEN);
  list = collect (transports, &complete);
  if (opt_json)
    print_json (list, opt_watch <= 0);
  else if (list->len > 0)
    print_table (list);
  else
    g_printerr ("no %schannels%s\n", opt_all ? "" : "live ", opt_names != NULL ? " of that name" : "");
  return complete;
}

static int
watch (GPtrArray *transports)
{
  g_autoptr (GCancellable) cancellable = g_cancellable_new ();
  g_autoptr (ToolSignals) signals = tool_signals_new (cancellable);
  struct pollfd fd = { g_cancellable_get_fd (cancellable), POLLIN, 0 };

  tool_signals_watch_output (signals, STDOUT_FILENO);
  do
    list_once (transports);
  while (poll (&fd, 1, (int) (opt_watch * 1000)) == 0);
  g_cancellable_release_fd (cancellable);

  /* Ctrl-C is how watching ends. */
  if (tool_signals_get (signals) == 0 || tool_signals_get (signals) == SIGINT)
    return EXIT_SUCCESS;
  return TOOL_EXIT_SIGNAL_BASE + tool_signals_get (signals);
}

int
main (int argc, char **argv)
{
  g_autoptr (GOptionContext) context = g_option_context_new (NULL);
  g_autoptr (GPtrArray) transports = NULL;
  g_autoptr (GError) error = NULL;

  tool_init ("ferry-ls");
  g_option_context_set_summary (context, "Lists the live channels of this machine: how they move messages, who is in\n"
                                         "them, how many messages wait and how much memory they have; and the stores.");
  g_option_context_set_description (
      context, "Examples:\n"
               "  ferry-ls                       every live channel\n"
               "  ferry-ls -p 'frames*'          who sends and who receives frames\n"
               "  ferry-ls -w 1                  watch them, once a second\n"
               "  ferry-ls --json | jq .channels\n"
               "\n"
               "DEPTH is messages in flight and the most there may be, MEMORY what backs payload\n"
               "now, MESSAGES and BYTES what was sent since the channel was made. Of a store MEMORY is\n"
               "what its heap has; its participants count as senders, and ferry-store tells more. Looking\n"
               "disturbs nobody. Exit status: 0, 1 when something could not be looked at, 2 wrong usage.\n");
  g_option_context_add_main_entries (context, entries, NULL);

  if (!g_option_context_parse (context, &argc, &argv, &error))
    return tool_fail_usage ("%s", error->message);
  if (opt_version)
    {
      g_print ("ferry-ls " FERRY_VERSION_STRING "\n");
      return EXIT_SUCCESS;
    }
  if (opt_watch != 0 && !(opt_watch >= MIN_WATCH_INTERVAL && opt_watch <= MAX_WATCH_INTERVAL))
    return tool_fail_usage ("--watch must be from %g to %g seconds", MIN_WATCH_INTERVAL, MAX_WATCH_INTERVAL);

  transports = tool_list_transports ((const char *const *) opt_transports, FERRY_TRANSPORT_CAPABILITIES_NAMED, &error);
  if (transports == NULL)
    {
      tool_printerr ("%s", error->message);
      return EXIT_FAILURE;
    }
  if (opt_watch > 0)
    return watch (transports);
  return list_once (transports) ? EXIT_SUCCESS : EXIT_FAILURE;
}
