/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Who frees the block of a message with a live object is stopped or killed in the midst of it, or others are.
 *
 * 1. A sender dies between retiring a block and emptying its slot, so that a repair finishes that. Meanwhile the last reader
 *    of the block frees it, and is stopped before it removes the ticket, or killed there. The block must not become free in
 *    the repair as well: a message that is put there would lose its ticket when the reader goes on.
 * 2. A death has asked for a collection, which has to wait for somebody who is stopped in the middle of a change. Neither who
 *    frees a block nor who leaves the channel makes it: the next change does. */

#include "ferry-segment-private.h"
#include "kill-common.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#define CAPACITY (8)
/* Messages that are sent while the reader is stopped: as many as wait in the ring. */
#define MANY (CAPACITY - 2)
#define PATIENCE (20 * FERRY_PEERS_S)
#define PROMPT (1 * FERRY_PEERS_S)
/* Of a store; in each object beside the number; and of dicts of a few entries. Bytes. */
#define STORE_BYTES "67108864"
#define LARGE (20000)
#define SLACK (8192)

static const char *const transports[] = { "posix-shm", "memfd" };

/* Between them the slot is TAKEN and its block RETIRED. */
static const char *const reclaim_steps[] = { "retired", "reclaim-before-empty" };

typedef struct
{
  const char *transport;
  FerryMode mode;
  const char *step;
  int signal;
} Child;

static guint n_repairs;
static guint n_collections;

static void
observe_cb (const char *name)
{
  n_repairs += strcmp (name, "store-repair-end") == 0;
  n_collections += strcmp (name, "store-collect-marked") == 0;
}

static FerryStore *
open_store (const char *transport)
{
  g_autofree char *description = g_strdup_printf ("%s name=stop-ticket-store max-bytes=" STORE_BYTES, transport);
  g_autoptr (GError) error = NULL;
  FerryStore *store = ferry_store_open (description, NULL, &error);

  if (store == NULL)
    g_printerr ("stop-ticket: open: %s\n", error->message);
  return store;
}

/* What is read of a broadcast stays until there is one message more: who sends that reclaims it. */
static FerryChannel *
join (const char *transport, FerryMode mode, FerryRole role)
{
  g_autoptr (GError) error = NULL;
  FerryChannel *channel = ferry_peers_open (transport, "stop-ticket", role, &error, "capacity", CAPACITY, "mode", mode,
                                            "history", mode == FERRY_MODE_BROADCAST ? 1 : 0, NULL);

  if (channel == NULL)
    g_printerr ("stop-ticket: join: %s\n", error->message);
  return channel;
}

static gboolean
send_reference (FerryChannel *channel, FerryStoreReference *reference, gint64 timeout)
{
  g_autoptr (GError) error = NULL;
  g_auto (GValue) value = G_VALUE_INIT;

  g_value_init (&value, FERRY_TYPE_STORE_REFERENCE);
  g_value_set_boxed (&value, reference);
  if (ferry_channel_send_value (channel, &value, timeout, NULL, &error))
    return TRUE;
  g_printerr ("stop-ticket: send: %s\n", error->message);
  return FALSE;
}

/* An object that nothing but the message keeps. */
static gboolean
send_one (FerryStore *store, FerryChannel *channel, gint64 number)
{
  static const guint8 data[LARGE];
  g_autoptr (FerryStoreReference) reference = NULL;
  GVariantBuilder builder;

  g_variant_builder_init (&builder, G_VARIANT_TYPE ("av"));
  g_variant_builder_add (&builder, "v", g_variant_new_int64 (number));
  g_variant_builder_add (&builder, "v", g_variant_new_fixed_array (G_VARIANT_TYPE_BYTE, data, LARGE, 1));
  if (!ferry_store_set (store, "sent", g_variant_builder_end (&builder), NULL))
    return FALSE;
  reference = ferry_store_get_reference (store, "sent", NULL);
  return reference != NULL && ferry_store_remove (store, "sent", NULL) && send_reference (channel, reference, PATIENCE);
}

/* The message stays the caller's. */
static FerryBuffer *
receive_one (FerryChannel *channel, gint64 number)
{
  g_autoptr (GError) error = NULL;
  g_autoptr (FerryBuffer) buffer = ferry_channel_receive (channel, PATIENCE, NULL, &error);
  g_autoptr (FerryStoreReference) reference = NULL;
  g_autoptr (GVariant) found = NULL;
  gboolean was_opened;

  if (buffer != NULL)
    reference = ferry_store_reference_decode (buffer, FALSE, NULL, &was_opened, &error);
  if (reference != NULL)
    found = ferry_store_reference_get (reference, "[0]", &error);
  if (found != NULL && g_variant_get_int64 (found) == number)
    return g_steal_pointer (&buffer);
  g_printerr ("stop-ticket: message %d: %s\n", (int) number, error != NULL ? error->message : "another object");
  return NULL;
}

static gboolean
receive_and_free (FerryChannel *channel, gint64 number)
{
  g_autoptr (FerryBuffer) buffer = receive_one (channel, number);

  return buffer != NULL;
}

static guint64
bytes_used (FerryStore *store)
{
  g_autoptr (GError) error = NULL;

  if (ferry_store_collect (store, &error) && ferry_store_verify (store, &error))
    return ferry_store_get_bytes_used (store);
  g_printerr ("stop-ticket: collect: %s\n", error->message);
  return G_MAXUINT64;
}

/* Lets a child go on to where it stops next. */
static gboolean
go_on (pid_t pid)
{
  kill (pid, SIGCONT);
  return kill_wait_stopped (pid);
}

static gboolean
wait_killed (pid_t *pid)
{
  int status = 0;
  gboolean ended = ferry_peers_wait (*pid, PATIENCE, &status);

  *pid = 0;
  if (ended && WIFSIGNALED (status) && WTERMSIG (status) == SIGKILL)
    return TRUE;
  g_printerr ("stop-ticket: was not killed at its step: %s\n", ferry_peers_tell_end (status));
  return FALSE;
}

static gboolean
wait_ended (pid_t *pid)
{
  int status = 0;
  gboolean ended = ferry_peers_wait (*pid, PATIENCE, &status);

  *pid = 0;
  if (ended && ferry_peers_ended_well (status))
    return TRUE;
  g_printerr ("stop-ticket: a child ended with %s\n", ferry_peers_tell_end (status));
  return FALSE;
}

/* ---- a block is freed once ---- */

/* In a child: opens both when it is told to, and goes on when it is told to again. */
static gboolean
take_part (const Child *self, FerryRole role, FerryStore **store, FerryChannel **channel)
{
  raise (SIGSTOP);
  *store = open_store (self->transport);
  *channel = join (self->transport, self->mode, role);
  raise (SIGSTOP);
  return *store != NULL && *channel != NULL;
}

/* Holds the message when its sender reclaims the slot, and frees the block then. */
static int
reader_cb (gpointer data)
{
  Child *self = data;
  g_autoptr (FerryStore) store = NULL;
  g_autoptr (FerryChannel) channel = NULL;
  FerryBuffer *buffer;

  if (!take_part (self, FERRY_ROLE_RECEIVER, &store, &channel) || (buffer = receive_one (channel, 0)) == NULL)
    return EXIT_FAILURE;
  raise (SIGSTOP);
  ferry_step_arm ("ticket-unbind", 1, self->signal);
  ferry_buffer_unref (buffer);
  return ferry_channel_close (channel, NULL) ? EXIT_SUCCESS : EXIT_FAILURE;
}

/* With its message the one before is history, and reclaimed. */
static int
reclaimer_cb (gpointer data)
{
  Child *self = data;
  g_autoptr (FerryStore) store = NULL;
  g_autoptr (FerryChannel) channel = NULL;

  if (!take_part (self, FERRY_ROLE_SENDER, &store, &channel))
    return EXIT_FAILURE;
  ferry_step_arm (self->step, 1, SIGKILL);
  send_one (store, channel, 1);
  return EXIT_FAILURE;
}

static gboolean
run_freed (const char *transport, const char *step, int signal, pid_t *pids)
{
  Child child = { transport, FERRY_MODE_BROADCAST, step, signal };
  g_autoptr (FerryStore) store = NULL;
  g_autoptr (FerryChannel) sender = NULL;
  g_autoptr (FerryChannel) receiver = NULL;
  g_autoptr (GError) error = NULL;
  guint64 before;

  /* The first to join has the lower number, and is the first to be repaired. */
  pids[0] = ferry_peers_fork (reader_cb, &child);
  pids[1] = ferry_peers_fork (reclaimer_cb, &child);
  if (!kill_wait_stopped (pids[0]) || !kill_wait_stopped (pids[1]))
    return FALSE;
  store = open_store (transport);
  sender = join (transport, FERRY_MODE_BROADCAST, FERRY_ROLE_SENDER);
  receiver = join (transport, FERRY_MODE_BROADCAST, FERRY_ROLE_RECEIVER);
  if (store == NULL || sender == NULL || receiver == NULL || !go_on (pids[0]) || !go_on (pids[1]))
    return FALSE;
  before = bytes_used (store);
  if (!send_one (store, sender, 0) || !receive_and_free (receiver, 0) || !go_on (pids[0]))
    return FALSE;
  kill (pids[1], SIGCONT);
  if (!wait_killed (&pids[1]))
    return FALSE;
  kill (pids[0], SIGCONT);
  if (!(signal == SIGKILL ? wait_killed (&pids[0]) : kill_wait_stopped (pids[0])))
    return FALSE;
  /* This repairs, and all that fits together does so as well while somebody is stopped. */
  if (!ferry_channel_verify (sender, &error))
    {
      g_printerr ("stop-ticket: %s\n", error->message);
      return FALSE;
    }
  for (gint64 i = 2; i < 2 + MANY; i++)
    if (!send_one (store, sender, i))
      return FALSE;
  if (signal != SIGKILL)
    {
      kill (pids[0], SIGCONT);
      if (!wait_ended (&pids[0]))
        return FALSE;
    }
  for (gint64 i = 1; i < 2 + MANY; i++)
    if (!receive_and_free (receiver, i))
      return FALSE;
  if (!ferry_channel_verify (sender, &error) || !ferry_channel_close (receiver, &error)
      || !ferry_channel_close (sender, &error))
    {
      g_printerr ("stop-ticket: %s\n", error->message);
      return FALSE;
    }
  return bytes_used (store) <= before + SLACK;
}

/* ---- a collection is made elsewhere ---- */

static int
dying_cb (gpointer data)
{
  Child *self = data;
  g_autoptr (FerryStore) store = NULL;

  raise (SIGSTOP);
  store = open_store (self->transport);
  if (store == NULL)
    return EXIT_FAILURE;
  ferry_step_arm ("store-locked", 1, SIGKILL);
  ferry_store_set (store, "x", g_variant_new_int64 (1), NULL);
  return EXIT_FAILURE;
}

/* In the middle of a change, but with nothing locked. */
static int
busy_cb (gpointer data)
{
  Child *self = data;
  g_autoptr (FerryStore) store = NULL;
  g_autoptr (FerryChannel) channel = NULL;

  if (!take_part (self, FERRY_ROLE_SENDER, &store, &channel))
    return EXIT_FAILURE;
  ferry_step_arm ("ticket-counted", 1, SIGSTOP);
  return send_one (store, channel, 2) && ferry_channel_close (channel, NULL) ? EXIT_SUCCESS : EXIT_FAILURE;
}

static gboolean
is_prompt (gint64 began, const char *what)
{
  gint64 took = g_get_monotonic_time () - began;

  if (took < PROMPT * (ferry_peers_is_sanitized () ? 4 : 1) && n_collections == 0)
    return TRUE;
  g_printerr ("stop-ticket: %s took %.2f s, with %u collections\n", what, (double) took / FERRY_PEERS_S, n_collections);
  return FALSE;
}

static gboolean
run_collection (const char *transport, pid_t *pids)
{
  Child child = { transport, FERRY_MODE_WORK_QUEUE, NULL, 0 };
  g_autoptr (FerryStore) store = NULL;
  g_autoptr (FerryChannel) sender = NULL;
  g_autoptr (FerryChannel) receiver = NULL;
  g_autoptr (FerryStoreReference) reference = NULL;
  g_autoptr (GError) error = NULL;
  FerryBuffer *buffer;
  guint64 seen;
  gint64 began;
  gboolean prompt;

  pids[0] = ferry_peers_fork (dying_cb, &child);
  pids[1] = ferry_peers_fork (busy_cb, &child);
  if (!kill_wait_stopped (pids[0]) || !kill_wait_stopped (pids[1]))
    return FALSE;
  store = open_store (transport);
  sender = join (transport, FERRY_MODE_WORK_QUEUE, FERRY_ROLE_SENDER);
  receiver = join (transport, FERRY_MODE_WORK_QUEUE, FERRY_ROLE_RECEIVER);
  if (store == NULL || sender == NULL || receiver == NULL || !go_on (pids[1]) || !send_one (store, sender, 0)
      || !send_one (store, sender, 1) || (buffer = receive_one (receiver, 0)) == NULL)
    return FALSE;
  if (!ferry_store_set (store, "again", g_variant_new_strv (NULL, 0), NULL)
      || (reference = ferry_store_get_reference (store, "again", NULL)) == NULL)
    return FALSE;
  /* In this order: who meets what the dead left repairs it. */
  if (!go_on (pids[1]))
    return FALSE;
  kill (pids[0], SIGCONT);
  if (!wait_killed (&pids[0]))
    return FALSE;
  /* Who waits for changes repairs what the dead left, and changes nothing itself. */
  n_repairs = n_collections = 0;
  ferry_step_observe (observe_cb);
  seen = ferry_store_watch (store);
  for (began = g_get_monotonic_time (); n_repairs == 0 && g_get_monotonic_time () - began < PATIENCE;)
    ferry_store_wait_change (store, &seen, FERRY_PEERS_MS, NULL, NULL);
  if (n_repairs == 0)
    {
      g_printerr ("stop-ticket: what the dead left is not repaired\n");
      return FALSE;
    }
  began = g_get_monotonic_time ();
  ferry_buffer_unref (buffer);
  prompt = is_prompt (began, "freeing a block");
  began = g_get_monotonic_time ();
  prompt = send_reference (sender, reference, FERRY_NO_WAIT) && is_prompt (began, "sending without waiting") && prompt;
  began = g_get_monotonic_time ();
  prompt = ferry_channel_close (receiver, NULL) && is_prompt (began, "leaving") && prompt;
  /* Tries, finds somebody in the middle of a change, and goes on. */
  began = g_get_monotonic_time ();
  prompt = ferry_store_set (store, "x", g_variant_new_int64 (1), NULL) && is_prompt (began, "a change") && prompt;
  began = g_get_monotonic_time ();
  prompt = !ferry_store_begin_transaction (store, 200 * FERRY_PEERS_MS, NULL, &error)
           && g_error_matches (error, FERRY_ERROR, FERRY_ERROR_TIMED_OUT) && is_prompt (began, "a transaction")
           && prompt;
  kill (pids[1], SIGCONT);
  if (!wait_ended (&pids[1]) || !prompt)
    return FALSE;
  for (began = g_get_monotonic_time (); n_collections == 0 && g_get_monotonic_time () - began < PATIENCE;)
    {
      if (!ferry_store_set (store, "x", g_variant_new_int64 (2), NULL))
        return FALSE;
      g_usleep (10 * FERRY_PEERS_MS);
    }
  if (n_collections != 1)
    g_printerr ("stop-ticket: the changes after it made %u collections\n", n_collections);
  return n_collections == 1;
}

int
main (int argc, char **argv)
{
  static const int signals[] = { SIGSTOP, SIGKILL };
  guint number = 0;

  ferry_peers_setup (argc, argv);
  for (guint i = 0; i < G_N_ELEMENTS (transports); i++)
    {
      pid_t pids[2] = { 0 };

      for (guint k = 0; k < 2 * G_N_ELEMENTS (reclaim_steps); k++)
        {
          const char *step = reclaim_steps[k / 2];
          int signal = signals[k % 2];

          ferry_peers_enter (number++);
          ferry_peers_report (run_freed (transports[i], step, signal, pids),
                              "%s: a block is freed once, though its reclaimer was killed at %s and who frees it is %s",
                              transports[i], step, signal == SIGKILL ? "killed as well" : "stopped");
          kill_end_all (pids, G_N_ELEMENTS (pids));
          memset (pids, 0, sizeof pids);
        }
      ferry_peers_enter (number++);
      ferry_peers_report (run_collection (transports[i], pids),
                          "%s: nothing waits for the collection that a death asked for, and it is made when it can be",
                          transports[i]);
      ferry_step_observe (NULL);
      kill_end_all (pids, G_N_ELEMENTS (pids));
    }
  return ferry_peers_finish ();
}
