/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* post: hands live objects to other programs, which change them.
 *
 *   post STORE JOBS DONE N
 *
 * Makes N jobs in the store, sends each one itself, not a copy, through the channel JOBS, and receives it again from DONE. Prints
 * what has become of it. work.py is the other side:
 *
 *   post 'memfd name=lab' 'memfd name=jobs' 'memfd name=done' 3 & work.py jobs done
 */

#include <ferry.h>
#include <stdlib.h>

static FerryChannel *
open_channel (const char *description, FerryRole role, GError **error)
{
  g_autoptr (FerryChannel) channel = ferry_channel_new_from_description (description, role, error);

  return channel != NULL && ferry_channel_open (channel, NULL, error) ? g_steal_pointer (&channel) : NULL;
}

/* Only the message keeps the job, once it is on its way. */
static gboolean
send_job (FerryStore *store, FerryChannel *jobs, guint number, guint64 *id, GError **error)
{
  g_autoptr (FerryStoreReference) job = NULL;
  g_auto (GValue) value = G_VALUE_INIT;

  if (!ferry_store_set (store, "job", g_variant_new_parsed ("{'number': <%u>, 'log': <@av []>}", number), error))
    return FALSE;
  job = ferry_store_get_reference (store, "job", error);
  if (job == NULL || !ferry_store_remove (store, "job", error))
    return FALSE;
  *id = ferry_store_reference_get_object_id (job);
  g_value_init (&value, FERRY_TYPE_STORE_REFERENCE);
  g_value_set_boxed (&value, job);
  return ferry_channel_send_value (jobs, &value, FERRY_WAIT_FOREVER, NULL, error);
}

static gboolean
run (char **argv, GError **error)
{
  g_autoptr (FerryStore) store = ferry_store_open (argv[1], NULL, error);
  g_autoptr (FerryChannel) jobs = store != NULL ? open_channel (argv[2], FERRY_ROLE_SENDER, error) : NULL;
  g_autoptr (FerryChannel) done = jobs != NULL ? open_channel (argv[3], FERRY_ROLE_RECEIVER, error) : NULL;
  guint n = (guint) atoi (argv[4]);

  if (done == NULL)
    return FALSE;
  for (guint i = 0; i < n; i++)
    {
      g_auto (GValue) value = G_VALUE_INIT;
      g_autoptr (GVariant) log = NULL;
      g_autofree char *text = NULL;
      guint64 id;

      if (!send_job (store, jobs, i, &id, error)
          || !ferry_channel_receive_value (done, &value, FERRY_WAIT_FOREVER, NULL, error))
        return FALSE;
      log = ferry_store_reference_get (g_value_get_boxed (&value), "log", error);
      if (log == NULL)
        return FALSE;
      text = g_variant_print (log, FALSE);
      g_print ("job %u, %s: %s\n", i,
               ferry_store_reference_get_object_id (g_value_get_boxed (&value)) == id ? "the same object" : "another",
               text);
    }
  return ferry_channel_close (jobs, error) && ferry_channel_close (done, error);
}

int
main (int argc, char **argv)
{
  g_autoptr (GError) error = NULL;

  if (argc != 5)
    {
      g_printerr ("usage: post STORE JOBS DONE N\n");
      return 2;
    }
  if (!run (argv, &error))
    {
      g_printerr ("post: %s\n", error->message);
      return EXIT_FAILURE;
    }
  return EXIT_SUCCESS;
}
