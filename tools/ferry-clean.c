/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* ferry-clean: removes what dead programs left of their channels. */

#include <stdlib.h>
#include <string.h>

#include "ferry-tool-util.h"

#define EXIT_FOUND 3 /* with --check: there is something to remove */

static char **opt_transports;
static gboolean opt_remove;
static gboolean opt_check;
static gboolean opt_quiet;
static gboolean opt_version;
static char **opt_names;

static const GOptionEntry entries[] = {
  { "remove", 'f', 0, G_OPTION_ARG_NONE, &opt_remove, "Remove it; without this option only tell what would be removed",
    NULL },
  { "transport", 't', 0, G_OPTION_ARG_STRING_ARRAY, &opt_transports, "Only this transport; may be given again",
    "NAME" },
  { "check", 'c', 0, G_OPTION_ARG_NONE, &opt_check, "Exit with 3 when there is something to remove", NULL },
  { "quiet", 'q', 0, G_OPTION_ARG_NONE, &opt_quiet, "Print errors only", NULL },
  { "version", 0, 0, G_OPTION_ARG_NONE, &opt_version, "Print the version", NULL },
  { G_OPTION_REMAINING, 0, 0, G_OPTION_ARG_STRING_ARRAY, &opt_names, NULL, "[PATTERN...]" },
  { NULL },
};

typedef struct
{
  guint n_dead;
  guint n_removed;
  guint n_failed;
} Tally;

static void
clean_channel (const ToolListing *listing, const char *transport_name, const char *name, Tally *tally)
{
  FerryTransport *transport = listing->transport;
  g_autofree char *name_only = tool_make_printable (name);
  g_autofree char *printable = listing->group >= 0
                                   ? g_strdup_printf ("%s group=%" G_GINT64_FORMAT, name_only, listing->group)
                                   : g_steal_pointer (&name_only);
  g_autoptr (GError) error = NULL;
  gboolean alive = TRUE;

  if (!ferry_transport_probe_channel (transport, name, &alive, &error))
    {
      /* It went by itself, or nobody can tell: then it is not ours to remove. */
      if (g_error_matches (error, FERRY_ERROR, FERRY_ERROR_NOT_FOUND))
        return;
      tool_printerr ("%s name=%s: left alone: %s", transport_name, printable, error->message);
      tally->n_failed++;
      return;
    }
  if (alive)
    return;

  tally->n_dead++;
  if (!opt_remove)
    {
      if (!opt_quiet)
        g_print ("would remove %s name=%s\n", transport_name, printable);
      return;
    }

  /* The sweep looks again, under the channel's own lock. */
  if (ferry_transport_sweep_channel (transport, name, &error))
    {
      tally->n_removed++;
      if (!opt_quiet)
        g_print ("removed %s name=%s\n", transport_name, printable);
    }
  else if (g_error_matches (error, FERRY_ERROR, FERRY_ERROR_EXISTS))
    {
      tally->n_dead--;
      if (!opt_quiet)
        g_print ("left alone %s name=%s: it is alive again\n", transport_name, printable);
    }
  else if (g_error_matches (error, FERRY_ERROR, FERRY_ERROR_NOT_FOUND))
    {
      /* Somebody else swept it. */
      tally->n_dead--;
    }
  else
    {
      tool_printerr ("%s name=%s: %s", transport_name, printable, error->message);
      tally->n_failed++;
    }
}

static void
clean_transport (const char *transport_name, Tally *tally)
{
  g_autoptr (GError) error = NULL;
  g_autoptr (GPtrArray) listings = tool_list_channels (transport_name, &error);

  if (listings == NULL)
    {
      if (g_error_matches (error, FERRY_ERROR, FERRY_ERROR_UNSUPPORTED) && opt_transports == NULL)
        return;
      tool_printerr ("%s: %s", transport_name, error->message);
      tally->n_failed++;
      return;
    }
  for (guint i = 0; i < listings->len; i++)
    {
      const ToolListing *listing = g_ptr_array_index (listings, i);

      for (guint j = 0; listing->names[j] != NULL; j++)
        {
          if (tool_matches ((const char *const *) opt_names, listing->names[j]))
            clean_channel (listing, transport_name, listing->names[j], tally);
        }
    }
}

int
main (int argc, char **argv)
{
  g_autoptr (GOptionContext) context = g_option_context_new (NULL);
  g_autoptr (GPtrArray) transports = NULL;
  g_autoptr (GError) error = NULL;
  Tally tally = { 0 };

  tool_init ("ferry-clean");
  g_option_context_set_summary (context,
                                "Removes what programs that were killed left of their channels. Tells only what\n"
                                "it would do unless --remove is given, and never touches a channel that is alive.");
  g_option_context_set_description (
      context, "Examples:\n"
               "  ferry-clean                    what would be removed\n"
               "  ferry-clean --remove           remove it\n"
               "  ferry-clean -f 'test-*'        only channels of these names\n"
               "\n"
               "Exit status: 0 done, 1 something could not be looked at or removed, 2 wrong usage,\n"
               "3 with --check when there is something left to remove.\n");
  g_option_context_add_main_entries (context, entries, NULL);

  if (!g_option_context_parse (context, &argc, &argv, &error))
    return tool_fail_usage ("%s", error->message);
  if (opt_version)
    {
      g_print ("ferry-clean " FERRY_VERSION_STRING "\n");
      return EXIT_SUCCESS;
    }

  transports = tool_list_transports ((const char *const *) opt_transports, FERRY_TRANSPORT_CAPABILITIES_NAMED, &error);
  if (transports == NULL)
    {
      tool_printerr ("%s", error->message);
      return EXIT_FAILURE;
    }
  for (guint i = 0; i < transports->len; i++)
    clean_transport (g_ptr_array_index (transports, i), &tally);

  if (!opt_quiet && tally.n_dead == 0 && tally.n_failed == 0)
    g_printerr ("nothing to remove\n");
  else if (!opt_quiet && tally.n_dead > 0 && !opt_remove)
    g_printerr ("run again with --remove to do it\n");

  if (tally.n_failed > 0)
    return EXIT_FAILURE;
  return opt_check && tally.n_dead > tally.n_removed ? EXIT_FOUND : EXIT_SUCCESS;
}
