/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Kills a participant at every numbered step of the protocol, in every scenario that passes the step. */

#include "ferry-segment-private.h"
#include "kill-sweep.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

/* Cases at a time: most of each is waiting. */
#define AT_ONCE (8)
#define CASE_TIMEOUT (60 * FERRY_PEERS_S)
#define VICTIM_TIMEOUT (15 * FERRY_PEERS_S)
#define NTH_MAX (6)
#define TRIES (6)

typedef enum
{
  VICTIM_SENDS,
  VICTIM_SENDS_TIGHT,  /* memory is short: trims, waits for memory */
  VICTIM_SENDS_OLDEST, /* drops the oldest */
  VICTIM_RECEIVES,
  VICTIM_ALONE, /* creates the channel, sends, leaves as the last one */
  VICTIM_FINDS, /* finds a channel of the dead */
  VICTIM_REPAIRS,
  VICTIM_LATE, /* has descriptors, and joins with its first call */
  N_VICTIMS,
} Victim;

static const char *const victim_names[N_VICTIMS] = {
  "sends", "sends, memory is short", "sends, drops the oldest", "receives", "alone", "finds the dead", "repairs",
  "late",
};

static const char *const transports[] = { "posix-shm", "memfd" };

typedef struct
{
  KillPoint point;
  Victim victim;
  guint transport;
  FerryMode mode;
} Case;

/* ---- victims ---- */

typedef struct
{
  const Case *test;
  const KillChannel *channel;
  KillLedger *ledger;
  KillOutcome *outcome;
} Context;

static void
arm (const Context *context)
{
  kill_sweep_arm (&context->test->point, context->outcome);
}

/* A sender that is prepared and not yet a participant, of the channel of a name: the descriptors are another end's. Where a
 * channel is not joined so, one like any other. */
static FerryChannel *
open_late (const Context *context, GError **error)
{
  g_autoptr (FerryChannel) named = kill_open (context->channel, FERRY_ROLE_SENDER, FERRY_OVERFLOW_BLOCK, error);
  g_autoptr (FerryChannel) late = NULL;
  g_autofree char *description = NULL;
  int control_fd = -1;
  int data_fd = -1;

  if (named == NULL || strcmp (context->channel->transport, "memfd") != 0)
    {
      arm (context);
      return g_steal_pointer (&named);
    }
  g_object_get (ferry_channel_get_transport_object (named), "control-fd", &control_fd, "data-fd", &data_fd, NULL);
  description = g_strdup_printf ("memfd control-fd=%d data-fd=%d join-late=true ! raw", control_fd, data_fd);
  late = ferry_channel_new_from_description (description, FERRY_ROLE_SENDER, error);
  if (late == NULL)
    return NULL;
  arm (context);
  if (!ferry_channel_open (late, NULL, error))
    return NULL;
  ferry_channel_close (named, NULL);
  return g_steal_pointer (&late);
}

static int
sender_victim (const Context *context, FerryOverflow overflow)
{
  g_autoptr (GError) error = NULL;
  g_autoptr (FerryChannel) channel = NULL;
  FerryBuffer *loans[3] = { NULL };
  gboolean tight = context->test->victim == VICTIM_SENDS_TIGHT;
  guint key = kill_new_key (context->ledger);
  FerryRandom random;

  ferry_random_init (&random, ferry_peers_seed () ^ (guint64) getpid ());
  if (context->test->victim == VICTIM_LATE)
    {
      channel = open_late (context, &error);
    }
  else
    {
      arm (context);
      channel = kill_open (context->channel, FERRY_ROLE_SENDER, overflow, &error);
    }
  if (channel == NULL)
    {
      g_printerr ("kill-steps: victim: %s\n", error->message);
      return EXIT_FAILURE;
    }
  for (guint i = 0; i < 36; i++)
    {
      gsize size = kill_random_size (&random, FALSE);

      if (i % 12 == 3)
        size = (gsize) (300 << (i / 4)); /* a class of blocks that was not there */
      else if (i % 3 == 0)
        size = FERRY_PAYLOAD_HEADER + i;
      if (tight)
        size = MIN (size, 60000);
      if (i < G_N_ELEMENTS (loans))
        loans[i] = ferry_channel_loan (channel, 5000, FERRY_NO_WAIT, NULL, NULL);
      /* In a tight channel it may well end without: it need not be sent. */
      if (!kill_send (context->ledger, channel, key, size, i % 2, tight ? 20 * FERRY_PEERS_MS : 3 * FERRY_PEERS_S,
                      &error)
          && !tight)
        {
          g_printerr ("kill-steps: victim: %s\n", error->message);
          return EXIT_FAILURE;
        }
      if (error != NULL)
        atomic_fetch_sub (&context->ledger->keys[key].trying, 1);
      g_clear_error (&error);
      if (i % 12 == 11)
        ferry_channel_trim (channel);
    }
  for (guint i = 0; i < G_N_ELEMENTS (loans); i++)
    g_clear_pointer (&loans[i], ferry_buffer_unref);
  ferry_channel_trim (channel);
  g_usleep (200 * FERRY_PEERS_MS);
  kill_send (context->ledger, channel, key, 100, FALSE, 3 * FERRY_PEERS_S, NULL);
  ferry_channel_end_of_stream (channel, NULL);
  ferry_channel_close (channel, NULL);
  return EXIT_SUCCESS;
}

static int
receiver_victim (const Context *context)
{
  g_autoptr (GError) error = NULL;
  g_autoptr (FerryChannel) channel = NULL;
  FerryBuffer *held[5] = { NULL };
  FerryRandom random;

  ferry_random_init (&random, ferry_peers_seed () ^ (guint64) getpid ());
  arm (context);
  channel = kill_open (context->channel, FERRY_ROLE_RECEIVER, FERRY_OVERFLOW_BLOCK, &error);
  if (channel == NULL)
    {
      g_printerr ("kill-steps: victim: %s\n", error->message);
      return EXIT_FAILURE;
    }
  for (guint i = 0; i < 40; i++)
    {
      guint place = ferry_random_below (&random, G_N_ELEMENTS (held));
      FerryBuffer *buffer = kill_receive (context->ledger, channel, KILL_BY_VICTIM,
                                          i % 4 == 0 ? FERRY_NO_WAIT : 300 * FERRY_PEERS_MS, NULL);

      g_clear_pointer (&held[place], ferry_buffer_unref);
      held[place] = buffer;
    }
  ferry_channel_close (channel, NULL); /* while views are held */
  for (guint i = 0; i < G_N_ELEMENTS (held); i++)
    g_clear_pointer (&held[i], ferry_buffer_unref);
  return EXIT_SUCCESS;
}

static int
alone_victim (const Context *context)
{
  g_autoptr (GError) error = NULL;
  g_autoptr (FerryChannel) channel = NULL;
  guint key = kill_new_key (context->ledger);

  arm (context);
  channel = kill_open (context->channel, FERRY_ROLE_SENDER, FERRY_OVERFLOW_BLOCK, &error);
  if (channel == NULL)
    {
      g_printerr ("kill-steps: victim: %s\n", error->message);
      return EXIT_FAILURE;
    }
  for (guint i = 0; i < 3; i++)
    kill_send (context->ledger, channel, key, 100 << (4 * i), FALSE, FERRY_NO_WAIT, NULL);
  ferry_channel_close (channel, NULL);
  return EXIT_SUCCESS;
}

/* Leaves a mess: dies at a step at which much is in hand. */
static int
mess_cb (gpointer data)
{
  static const char *const places[] = {
    "send-claimed",  "send-written",  "take-taken",  "take-owned",   "read-held",     "trim-claimed",
    "trim-punched",  "free-word",     "alloc-bit",   "grow-summed",  "reclaim-taken", "retired",
    "take-released", "grow-reserved", "send-copied", "join-joining",
  };
  const Context *context = data;
  Context own = *context;
  Case test = *context->test;
  const char *step;
  FerryRandom random;

  ferry_random_init (&random, ferry_peers_seed () ^ (guint64) getpid ());
  do
    test.point.step = kill_sweep_find_step (places[ferry_random_below (&random, G_N_ELEMENTS (places))]);
  while (test.point.step == KILL_LOOK);
  if (context->test->point.step == KILL_LOOK) /* a look: what leaves most */
    test.point.step = kill_sweep_find_step ("send-written");
  test.point.nth = 4 + ferry_random_below (&random, 3);
  own.test = &test;
  step = kill_sweep_step_name (&test.point);
  if (g_str_has_prefix (step, "take-") || g_str_has_prefix (step, "read-"))
    return receiver_victim (&own);
  return sender_victim (&own, FERRY_OVERFLOW_BLOCK);
}

/* Dies with a new channel of its own. */
static int
die_alone_cb (gpointer data)
{
  const Context *context = data;
  g_autoptr (FerryChannel) channel = kill_open (context->channel, FERRY_ROLE_SENDER, FERRY_OVERFLOW_BLOCK, NULL);

  if (channel != NULL)
    ferry_channel_send (channel, (const guint8 *) "abc", 3, FERRY_NO_WAIT, NULL, NULL);
  raise (SIGKILL);
  return EXIT_FAILURE;
}

static int
victim_cb (gpointer data)
{
  const Context *context = data;

  switch (context->test->victim)
    {
    case VICTIM_SENDS:
    case VICTIM_SENDS_TIGHT:
      return sender_victim (context, FERRY_OVERFLOW_BLOCK);
    case VICTIM_SENDS_OLDEST:
      return sender_victim (context, FERRY_OVERFLOW_DROP_OLDEST);
    case VICTIM_RECEIVES:
      return receiver_victim (context);
    case VICTIM_ALONE:
    case VICTIM_FINDS:
      return alone_victim (context);
    case VICTIM_REPAIRS:
    case VICTIM_LATE:
    default:
      return sender_victim (context, FERRY_OVERFLOW_BLOCK);
    }
}

/* ---- a case ---- */

static guint
may_be_lost (const Case *test, gboolean killed)
{
  const char *step = kill_sweep_step_name (&test->point);

  if (test->mode == FERRY_MODE_BROADCAST || !killed)
    return test->victim == VICTIM_SENDS_OLDEST ? G_MAXUINT : test->victim == VICTIM_REPAIRS ? 1 : 0;
  switch (test->victim)
    {
    case VICTIM_SENDS_OLDEST:
      return G_MAXUINT;
    case VICTIM_RECEIVES:
      /* up to there it is still in the ring, or goes back; from there on it was the dead one's */
      return strcmp (step, "take-copied") != 0 && strcmp (step, "take-taken") != 0 && strcmp (step, "take-owned") != 0;
    case VICTIM_REPAIRS:
      return 1; /* the mess */
    default:
      return 0;
    }
}

static void
run_case (gconstpointer data, guint number, gpointer outcome_data)
{
  const Case *test = data;
  KillOutcome *outcome = outcome_data;
  KillChannel channel = { .transport = transports[test->transport],
                          .mode = test->mode,
                          .overflow = FERRY_OVERFLOW_BLOCK,
                          .capacity = 4,
                          .n_senders = 1,
                          .n_receivers = 2,
                          .pace = 400 };
  KillLedger *ledger = kill_ledger_new ();
  Context context = { test, &channel, ledger, outcome };
  g_autoptr (GString) trouble = g_string_new (NULL);
  pid_t pids[KILL_SURVIVORS_MAX] = { 0 };
  gboolean alone = test->victim == VICTIM_ALONE || test->victim == VICTIM_FINDS;
  int status;

  ferry_peers_enter (number);
  g_snprintf (channel.name, sizeof channel.name, "steps-%u", number);
  outcome->prompt = 0;
  if (test->victim == VICTIM_SENDS_TIGHT)
    {
      channel.max_bytes = 512 * 1024;
      channel.small_only = TRUE;
    }
  /* Broadcast with drop-oldest victims: what they overtake is missed. */
  if (test->victim == VICTIM_SENDS_OLDEST)
    channel.overflow = FERRY_OVERFLOW_DROP_OLDEST;

  if (!alone && !kill_start (ledger, &channel, pids, trouble))
    goto out;
  if (test->victim == VICTIM_FINDS || test->victim == VICTIM_REPAIRS)
    {
      pid_t first = ferry_peers_fork (test->victim == VICTIM_FINDS ? die_alone_cb : mess_cb, &context);

      ferry_peers_wait (first, VICTIM_TIMEOUT, &status);
    }

  {
    pid_t victim = ferry_peers_fork (victim_cb, &context);

    if (!ferry_peers_wait (victim, VICTIM_TIMEOUT, &status))
      g_string_append (trouble, "; the victim hung");
    else if (WIFSIGNALED (status) && WTERMSIG (status) == SIGKILL && test->point.step != KILL_LOOK)
      outcome->reached = TRUE;
    else if (!ferry_peers_ended_well (status))
      g_string_append_printf (trouble, "; the victim: %s", ferry_peers_tell_end (status));
  }

  /* The channel of the dead is no hindrance: who comes next has a new one. */
  if (alone)
    {
      memset (ledger, 0, sizeof *ledger);
      ledger->n_keys = 1;
      if (!kill_start (ledger, &channel, pids, trouble))
        goto out;
    }
  outcome->prompt = kill_check_prompt (ledger, &channel, trouble);
  kill_end (ledger, &channel, pids, may_be_lost (test, outcome->reached), trouble);

out:
  kill_abandon (pids);
  kill_ledger_free (ledger);
  g_strlcpy (outcome->trouble, trouble->str, sizeof outcome->trouble);
}

static char *
describe (gconstpointer data)
{
  const Case *test = data;

  return g_strdup_printf ("%s, %s, victim %s, at %s (passing %u)", transports[test->transport],
                          test->mode == FERRY_MODE_BROADCAST ? "broadcast" : "work queue", victim_names[test->victim],
                          kill_sweep_step_name (&test->point), test->point.nth);
}

static guint
rounds (gconstpointer data, const char *step, guint count)
{
  const Case *look = data;
  guint n = ferry_peers_is_thorough () ? 10 : 1;

  /* A repair is a matter of luck: it is tried in any case. */
  if (count == 0 && !(look->victim == VICTIM_REPAIRS && g_str_has_prefix (step, "repair-")))
    return 0;
  /* These pass few steps, and those matter most. */
  return look->victim == VICTIM_RECEIVES || look->victim == VICTIM_REPAIRS ? 4 * n : n;
}

int
main (int argc, char **argv)
{
  g_autoptr (GArray) looks = g_array_new (FALSE, TRUE, sizeof (Case));
  const char *only_victim = g_getenv ("FERRY_KILL_VICTIM"); /* the beginning of a victim's name */
  FerryRandom random;

  ferry_peers_setup (argc, argv);
  kill_sweep_list_steps (FALSE);
  ferry_random_init (&random, ferry_peers_seed ());

  for (guint victim = 0; victim < N_VICTIMS; victim++)
    for (guint transport = 0; transport < G_N_ELEMENTS (transports); transport++)
      for (guint mode = 0; mode < 2; mode++)
        {
          Case look = { .point.step = KILL_LOOK,
                        .victim = (Victim) victim,
                        .transport = transport,
                        .mode = mode ? FERRY_MODE_BROADCAST : FERRY_MODE_WORK_QUEUE };

          if (only_victim == NULL || g_str_has_prefix (victim_names[victim], only_victim))
            g_array_append_val (looks, look);
        }
  kill_sweep_run (&(KillSweep){ .looks = looks,
                                .case_size = sizeof (Case),
                                .at_once = AT_ONCE,
                                .timeout = CASE_TIMEOUT,
                                .nth_max = NTH_MAX,
                                .tries = TRIES,
                                .some = only_victim != NULL,
                                .random = &random,
                                .run = run_case,
                                .describe = describe,
                                .rounds = rounds });
  return ferry_peers_finish ();
}
