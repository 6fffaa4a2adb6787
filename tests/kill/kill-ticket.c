/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Kills a process at every step of sending and receiving live objects of a store. What can still be received afterwards leads
 * to its object, nothing that can't be leaks, and the others go on. */

#include "ferry-segment-private.h"
#include "kill-common.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define STEPS_MAX (32)
#define ROUNDS (4)
#define ROUNDS_THOROUGH (20)
/* Messages of a victim, and bytes beside the number in each object. */
#define N_MESSAGES (40)
#define LARGE (20000)
/* Of dicts of a few entries, bytes. */
#define SLACK (8192)

static const char *steps[STEPS_MAX];
static guint n_steps;

static void
list_steps (void)
{
  guint n;
  const char *const *list = ferry_step_list (&n);

  for (guint i = 0; i < n; i++)
    {
      gboolean known = !g_str_has_prefix (list[i], "ticket-");

      for (guint k = 0; k < n_steps; k++)
        known = known || strcmp (steps[k], list[i]) == 0;
      if (known)
        continue;
      g_assert (n_steps < STEPS_MAX);
      steps[n_steps++] = list[i];
    }
}

static gboolean
send_one (FerryStore *store, FerryChannel *channel, const char *name, gint64 number)
{
  static const guint8 data[LARGE];
  GVariantBuilder builder;
  g_autoptr (FerryStoreReference) reference = NULL;
  g_auto (GValue) value = G_VALUE_INIT;

  g_variant_builder_init (&builder, G_VARIANT_TYPE ("av"));
  g_variant_builder_add (&builder, "v", g_variant_new_int64 (number));
  g_variant_builder_add (&builder, "v", g_variant_new_fixed_array (G_VARIANT_TYPE_BYTE, data, LARGE, 1));
  if (!ferry_store_set (store, name, g_variant_builder_end (&builder), NULL))
    return FALSE;
  reference = ferry_store_get_reference (store, name, NULL);
  if (reference == NULL || !ferry_store_remove (store, name, NULL))
    return FALSE;
  g_value_init (&value, FERRY_TYPE_STORE_REFERENCE);
  g_value_set_boxed (&value, reference);
  return ferry_channel_send_value (channel, &value, FERRY_NO_WAIT, NULL, NULL);
}

/* 1; 0: there is no message; -1: it leads nowhere. */
static int
receive_one (FerryChannel *channel, GString *trouble)
{
  g_auto (GValue) value = G_VALUE_INIT;
  g_autoptr (GError) error = NULL;
  g_autoptr (GVariant) number = NULL;

  if (!ferry_channel_receive_value (channel, &value, FERRY_NO_WAIT, NULL, &error))
    {
      if (g_error_matches (error, FERRY_ERROR, FERRY_ERROR_EMPTY))
        return 0;
      g_string_append_printf (trouble, "; a message can't be received: %s", error->message);
      return -1;
    }
  number = ferry_store_reference_get (g_value_get_boxed (&value), "[0]", &error);
  if (number != NULL && ferry_store_reference_get_length (g_value_get_boxed (&value), "[1]", &error) == LARGE)
    return 1;
  g_string_append_printf (trouble, "; an object is not what was sent: %s", error != NULL ? error->message : "");
  return -1;
}

static FerryChannel *
open_channel (const char *description, const char *properties, FerryRole role)
{
  g_autofree char *text = g_strdup_printf ("%s %s", description, properties);
  FerryChannel *channel = ferry_channel_new_from_description (text, role, NULL);

  if (channel == NULL || !ferry_channel_open (channel, NULL, NULL))
    g_clear_object (&channel);
  return channel;
}

static void
be_victim (const char *store_description, const char *description, const char *properties, const char *step, guint nth)
{
  FerryStore *store;
  FerryChannel *sender;
  FerryChannel *receiver;
  GString *trouble = g_string_new (NULL);

  store = ferry_store_open (store_description, NULL, NULL);
  sender = open_channel (description, properties, FERRY_ROLE_SENDER);
  receiver = open_channel (description, properties, FERRY_ROLE_RECEIVER);
  if (store == NULL || sender == NULL || receiver == NULL)
    _exit (2);
  ferry_step_arm (step, nth, SIGKILL);
  for (guint i = 0; i < N_MESSAGES; i++)
    {
      if (!send_one (store, sender, "victim", i))
        _exit (3);
      if (i % 3 != 0 && receive_one (receiver, trouble) < 0)
        _exit (4);
      if (i % 3 == 1 && receive_one (receiver, trouble) < 0)
        _exit (4);
      if (i % 10 == 9 && !ferry_store_collect (store, NULL))
        _exit (5);
    }
  _exit (0);
}

static guint64
bytes_used (FerryStore *store, GString *trouble)
{
  g_autoptr (GError) error = NULL;

  if (!ferry_store_collect (store, &error) || !ferry_store_verify (store, &error))
    g_string_append_printf (trouble, "; %s", error->message);
  return ferry_store_get_bytes_used (store);
}

/* Whether the step was reached. */
static gboolean
run (const char *transport, const char *mode, const char *step, guint nth, guint number, GString *trouble)
{
  g_autofree char *store_description
      = g_strdup_printf ("%s name=kill-ticket-%d-%u-s max-bytes=67108864", transport, (int) getpid (), number);
  g_autofree char *description = g_strdup_printf ("%s name=kill-ticket-%d-%u-c", transport, (int) getpid (), number);
  g_autofree char *properties = g_strdup_printf ("capacity=8 mode=%s overflow=drop-oldest", mode);
  pid_t victim = fork ();
  pid_t helper;
  g_autoptr (FerryStore) store = NULL;
  g_autoptr (FerryChannel) sender = NULL;
  g_autoptr (FerryChannel) receiver = NULL;
  gint64 died;
  guint64 before;
  guint64 after;
  int status;

  /* The victim is forked first, so that nothing of it is inherited; it waits until both are there. */
  if (victim == 0)
    {
      raise (SIGSTOP);
      be_victim (store_description, description, properties, step, nth);
    }
  store = ferry_store_open (store_description, NULL, NULL);
  sender = open_channel (description, properties, FERRY_ROLE_SENDER);
  receiver = open_channel (description, properties, FERRY_ROLE_RECEIVER);
  g_assert_true (store != NULL && sender != NULL && receiver != NULL);
  g_assert_true (send_one (store, sender, "mine", -1));
  g_assert_cmpint (receive_one (receiver, trouble), ==, 1);
  before = bytes_used (store, trouble);

  /* A channel that is gone, with an object in it: for the victim's collection. */
  helper = fork ();
  if (helper == 0)
    {
      g_autofree char *other = g_strdup_printf ("%s-gone", description);
      FerryChannel *gone = open_channel (other, properties, FERRY_ROLE_SENDER);

      _exit (gone == NULL || !send_one (store, gone, "helper", 0));
    }
  waitpid (helper, &status, 0);
  if (status != 0)
    g_string_append (trouble, "; the helper failed");

  waitpid (victim, &status, WUNTRACED);
  kill (victim, SIGCONT);
  waitpid (victim, &status, 0);
  died = g_get_monotonic_time ();
  if (WIFEXITED (status) && WEXITSTATUS (status) != 0)
    g_string_append_printf (trouble, "; the victim failed: %d", WEXITSTATUS (status));

  /* We go on, at once ... */
  if (!send_one (store, sender, "mine", 1))
    g_string_append (trouble, "; nothing can be sent");
  /* ... and what there is can be received, in spite of a collection. */
  bytes_used (store, trouble);
  if (receive_one (receiver, trouble) != 1)
    g_string_append (trouble, "; our own message is gone");
  if (g_get_monotonic_time () - died > KILL_PROMPT)
    g_string_append (trouble, "; it took more than a second");
  while (receive_one (receiver, trouble) > 0)
    ;
  /* The blocks that the dead held are free when it is repaired, and that is now. */
  ferry_channel_trim (sender);
  ferry_channel_close (receiver, NULL);
  ferry_channel_close (sender, NULL);
  after = bytes_used (store, trouble);
  if (after > before + SLACK)
    g_string_append_printf (trouble, "; %" G_GUINT64_FORMAT " bytes leak", after - before);
  return WIFSIGNALED (status);
}

/* Somebody is stopped while it has the tickets locked: what is read here is freed all the same, and a send that does not wait
 * does not. */
static void
run_stopped (const char *transport, const char *mode, GString *trouble)
{
  g_autofree char *store_description
      = g_strdup_printf ("%s name=kill-ticket-%d-stop-s max-bytes=67108864", transport, (int) getpid ());
  g_autofree char *description = g_strdup_printf ("%s name=kill-ticket-%d-stop-c", transport, (int) getpid ());
  g_autofree char *properties = g_strdup_printf ("capacity=8 mode=%s", mode);
  pid_t victim = fork ();
  g_autoptr (FerryStore) store = NULL;
  g_autoptr (FerryChannel) sender = NULL;
  g_autoptr (FerryChannel) receiver = NULL;
  gint64 begun;
  guint64 before;
  int status;

  if (victim == 0)
    {
      FerryChannel *other;

      raise (SIGSTOP);
      store = ferry_store_open (store_description, NULL, NULL);
      other = open_channel (description, properties, FERRY_ROLE_SENDER);
      if (store == NULL || other == NULL)
        _exit (2);
      {
        g_autoptr (FerryStoreReference) reference = ferry_store_get_reference (store, "x", NULL);
        g_auto (GValue) value = G_VALUE_INIT;

        g_value_init (&value, FERRY_TYPE_STORE_REFERENCE);
        g_value_set_boxed (&value, reference);
        ferry_step_arm ("store-locked", 1, SIGSTOP);
        ferry_channel_send_value (other, &value, FERRY_NO_WAIT, NULL, NULL);
      }
      _exit (0);
    }
  store = ferry_store_open (store_description, NULL, NULL);
  sender = open_channel (description, properties, FERRY_ROLE_SENDER);
  receiver = open_channel (description, properties, FERRY_ROLE_RECEIVER);
  g_assert_true (store != NULL && sender != NULL && receiver != NULL);
  g_assert_true (ferry_store_set (store, "x", g_variant_new_parsed ("[<1>]"), NULL));
  before = bytes_used (store, trouble);
  for (gint64 i = 0; i < 3; i++)
    g_assert_true (send_one (store, sender, "mine", i));
  waitpid (victim, &status, WUNTRACED);
  {
    g_autoptr (FerryBuffer) buffer = ferry_channel_receive (receiver, FERRY_NO_WAIT, NULL, NULL);

    g_assert_true (buffer != NULL);
    kill (victim, SIGCONT);
    waitpid (victim, &status, WUNTRACED);
    if (!WIFSTOPPED (status))
      g_string_append (trouble, "; the victim was not stopped");
    begun = g_get_monotonic_time ();
  }
  {
    g_autoptr (FerryStoreReference) reference = ferry_store_get_reference (store, "x", NULL);
    g_auto (GValue) value = G_VALUE_INIT;
    g_autoptr (GError) error = NULL;

    g_value_init (&value, FERRY_TYPE_STORE_REFERENCE);
    g_value_set_boxed (&value, reference);
    if (ferry_channel_send_value (sender, &value, FERRY_NO_WAIT, NULL, &error)
        || !g_error_matches (error, FERRY_ERROR, FERRY_ERROR_FULL))
      g_string_append_printf (trouble, "; a send did not find the store busy: %s", error != NULL ? error->message : "");
  }
  if (g_get_monotonic_time () - begun > KILL_PROMPT)
    g_string_append (trouble, "; it took more than a second");
  kill (victim, SIGKILL);
  waitpid (victim, &status, 0);
  while (receive_one (receiver, trouble) > 0)
    ;
  if (bytes_used (store, trouble) > before + SLACK)
    g_string_append (trouble, "; something is left");
}

int
main (int argc, char **argv)
{
  static const char *const transports[] = { "memfd", "posix-shm" };
  static const char *const modes[] = { "work-queue", "broadcast" };
  FerryRandom random;
  guint number = 0;
  guint rounds;

  ferry_peers_setup (argc, argv);
  list_steps ();
  ferry_random_init (&random, ferry_peers_seed ());
  rounds = ferry_peers_is_thorough () ? ROUNDS_THOROUGH : ROUNDS;
  for (guint s = 0; s < n_steps; s++)
    {
      guint n_reached = 0;

      for (guint round = 0; round < rounds; round++)
        for (guint i = 0; i < 4; i++)
          {
            g_autoptr (GString) trouble = g_string_new (NULL);
            guint nth = 1 + (guint) ferry_random_below (&random, 12);
            gboolean reached = run (transports[i / 2], modes[i % 2], steps[s], round == 0 ? 1 : nth, number++, trouble);

            n_reached += reached;
            ferry_peers_report (trouble->len == 0, "%s, %s, killed at %s: %s%s", transports[i / 2], modes[i % 2],
                                steps[s], reached ? "reached" : "not reached", trouble->str);
          }
      ferry_peers_report (n_reached > 0, "step %s has a scenario that reaches it", steps[s]);
    }
  for (guint i = 0; i < 4; i++)
    {
      g_autoptr (GString) trouble = g_string_new (NULL);

      run_stopped (transports[i / 2], modes[i % 2], trouble);
      ferry_peers_report (trouble->len == 0, "%s, %s, stopped with the tickets locked%s", transports[i / 2],
                          modes[i % 2], trouble->str);
    }
  return ferry_peers_finish ();
}
