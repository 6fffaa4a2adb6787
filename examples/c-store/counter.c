/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* counter: processes that share a configuration and a counter.
 *
 *   counter STORE N
 *
 * Opens the store, waits for its configuration (the first one to come makes it), and adds `step` N times to the counter.
 * Prints what the counter was at the end. Any number of these programs, and of Python programs, may run at once:
 *
 *   counter 'memfd name=lab' 1000 & counter 'memfd name=lab' 1000
 *
 *   store = ferry.Store("lab"); store["cfg"]["step"] = 5; print(store["counter"])
 */

#include <ferry.h>
#include <stdlib.h>

/* Only one of those who come at the same time makes it: a transaction holds the store. */
static gboolean
make_config (FerryStore *store, GError **error)
{
  gboolean ok = TRUE;

  if (!ferry_store_begin_transaction (store, FERRY_WAIT_FOREVER, NULL, error))
    return FALSE;
  if (!ferry_store_contains (store, "cfg", NULL))
    ok = ferry_store_set (store, "cfg", g_variant_new_parsed ("{'step': <1>, 'label': <'items'>, 'users': <@av []>}"),
                          error)
         && ferry_store_set (store, "counter", g_variant_new_int64 (0), error);
  if (!ok)
    {
      ferry_store_roll_back (store, NULL);
      return FALSE;
    }
  return ferry_store_commit (store, error);
}

static gboolean
run (const char *description, guint n, GError **error)
{
  g_autoptr (FerryStore) store = ferry_store_open (description, NULL, error);
  g_autoptr (GVariant) step = NULL;
  g_autoptr (GVariant) label = NULL;
  gint64 sum = 0;

  if (store == NULL || !make_config (store, error))
    return FALSE;
  if (!ferry_store_set (store, "cfg.users[+]", g_variant_new_string (g_get_prgname ()), error))
    return FALSE;
  step = ferry_store_get (store, "cfg.step", error);
  label = step != NULL ? ferry_store_get (store, "cfg.label", error) : NULL;
  if (label == NULL)
    return FALSE;
  for (guint i = 0; i < n; i++)
    if (!ferry_store_add_int (store, "counter", g_variant_get_int64 (step), &sum, error))
      return FALSE;
  g_print ("%" G_GINT64_FORMAT " %s\n", sum, g_variant_get_string (label, NULL));
  return TRUE;
}

int
main (int argc, char **argv)
{
  g_autoptr (GError) error = NULL;

  if (argc != 3)
    {
      g_printerr ("usage: counter STORE N\n");
      return 2;
    }
  g_set_prgname ("counter");
  if (!run (argv[1], (guint) atoi (argv[2]), &error))
    {
      g_printerr ("counter: %s\n", error->message);
      return EXIT_FAILURE;
    }
  return EXIT_SUCCESS;
}
