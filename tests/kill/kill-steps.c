/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Kills a participant at every numbered step of the protocol, in every scenario that passes the step. */

#include "ferry-segment-private.h"
#include "kill-common.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

/* Cases at a time: most of each is waiting. */
#define AT_ONCE (8)
#define STEPS_MAX (256)
#define CASE_TIMEOUT (60 * FERRY_PEERS_S)
#define VICTIM_TIMEOUT (15 * FERRY_PEERS_S)
/* The victim passes a step up to that many times before it is killed there. */
#define NTH_MAX (6)
/* Tries before a step counts as not reached: another process may be quicker with a repair, for example. */
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
  Victim victim;
  guint transport;
  FerryMode mode;
  guint step; /* G_MAXUINT: only look which are passed */
  guint nth;
} Case;

typedef struct
{
  char trouble[KILL_TROUBLE_MAX];
  gboolean reached;
  gint64 prompt;
  guint counts[STEPS_MAX]; /* of a look */
} Result;

static const char *steps[STEPS_MAX];
static guint n_steps;
static guint *observed;

static guint
find_step (const char *name)
{
  for (guint i = 0; i < n_steps; i++)
    if (strcmp (steps[i], name) == 0)
      return i;
  return G_MAXUINT;
}

static void
list_steps (void)
{
  guint n;
  const char *const *list = ferry_step_list (&n);

  for (guint i = 0; i < n; i++)
    /* those: kill-store.c, kill-ticket.c */
    if (!g_str_has_prefix (list[i], "store-") && !g_str_has_prefix (list[i], "ticket-")
        && find_step (list[i]) == G_MAXUINT)
      {
        g_assert (n_steps < STEPS_MAX);
        steps[n_steps++] = list[i];
      }
}

static void
observe_cb (const char *name)
{
  guint i = find_step (name);

  if (i != G_MAXUINT)
    observed[i]++;
}

/* ---- victims ---- */

typedef struct
{
  const Case *test;
  const KillChannel *channel;
  KillLedger *ledger;
  Result *result;
} Context;

static void
arm (const Context *context)
{
  if (context->test->step == G_MAXUINT)
    {
      observed = context->result->counts;
      ferry_step_observe (observe_cb);
    }
  else
    {
      ferry_step_arm (steps[context->test->step], context->test->nth, SIGKILL);
    }
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
  FerryRandom random;

  ferry_random_init (&random, ferry_peers_seed () ^ (guint64) getpid ());
  do
    test.step = find_step (places[ferry_random_below (&random, G_N_ELEMENTS (places))]);
  while (test.step == G_MAXUINT);
  if (context->test->step == G_MAXUINT) /* a look: what leaves most */
    test.step = find_step ("send-written");
  test.nth = 4 + ferry_random_below (&random, 3);
  own.test = &test;
  if (g_str_has_prefix (steps[test.step], "take-") || g_str_has_prefix (steps[test.step], "read-"))
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
  const char *step = test->step < n_steps ? steps[test->step] : "";

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
run_case (gconstpointer data, guint number, gpointer result_data)
{
  const Case *test = data;
  Result *result = result_data;
  KillChannel channel = { .transport = transports[test->transport],
                          .mode = test->mode,
                          .overflow = FERRY_OVERFLOW_BLOCK,
                          .capacity = 4,
                          .n_senders = 1,
                          .n_receivers = 2,
                          .pace = 400 };
  KillLedger *ledger = kill_ledger_new ();
  Context context = { test, &channel, ledger, result };
  g_autoptr (GString) trouble = g_string_new (NULL);
  pid_t pids[KILL_SURVIVORS_MAX] = { 0 };
  gboolean alone = test->victim == VICTIM_ALONE || test->victim == VICTIM_FINDS;
  int status;

  ferry_peers_enter (number);
  g_snprintf (channel.name, sizeof channel.name, "steps-%u", number);
  result->prompt = 0;
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
    else if (WIFSIGNALED (status) && WTERMSIG (status) == SIGKILL && test->step != G_MAXUINT)
      result->reached = TRUE;
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
  result->prompt = kill_check_prompt (ledger, &channel, trouble);
  kill_end (ledger, &channel, pids, may_be_lost (test, result->reached), trouble);

out:
  kill_abandon (pids);
  kill_ledger_free (ledger);
  g_strlcpy (result->trouble, trouble->str, sizeof result->trouble);
}

static void
run_cases (const GArray *cases, Result *results)
{
  kill_run_cases (&(KillCases){ .n_cases = cases->len,
                                .cases = cases->data,
                                .case_size = sizeof (Case),
                                .results = results,
                                .result_size = sizeof (Result),
                                .at_once = AT_ONCE,
                                .timeout = CASE_TIMEOUT,
                                .run = run_case });
}

static char *
describe (const Case *test)
{
  return g_strdup_printf ("%s, %s, victim %s, at %s (passing %u)", transports[test->transport],
                          test->mode == FERRY_MODE_BROADCAST ? "broadcast" : "work queue", victim_names[test->victim],
                          test->step < n_steps ? steps[test->step] : "no step", test->nth);
}

/* These pass few steps, and those matter most. */
static guint
rounds_of (Victim victim)
{
  return (victim == VICTIM_RECEIVES || victim == VICTIM_REPAIRS ? 4 : 1) * (ferry_peers_is_thorough () ? 10 : 1);
}

int
main (int argc, char **argv)
{
  g_autoptr (GArray) looks = g_array_new (FALSE, TRUE, sizeof (Case));
  g_autoptr (GArray) cases = g_array_new (FALSE, TRUE, sizeof (Case));
  const char *only = g_getenv ("FERRY_KILL_STEP");          /* a step */
  const char *only_victim = g_getenv ("FERRY_KILL_VICTIM"); /* the beginning of a victim's name */
  guint n_kills = 0;
  guint n_scenarios[STEPS_MAX] = { 0 };
  guint n_reached[STEPS_MAX] = { 0 };
  gint64 slowest[STEPS_MAX] = { 0 };
  guint n_bad[STEPS_MAX] = { 0 };
  FerryRandom random;
  Result *results;

  ferry_peers_setup (argc, argv);
  list_steps ();
  ferry_random_init (&random, ferry_peers_seed ());

  /* First: who passes what? */
  for (guint victim = 0; victim < N_VICTIMS; victim++)
    for (guint transport = 0; transport < G_N_ELEMENTS (transports); transport++)
      for (guint mode = 0; mode < 2; mode++)
        {
          Case look = { (Victim) victim, transport, mode ? FERRY_MODE_BROADCAST : FERRY_MODE_WORK_QUEUE, G_MAXUINT, 0 };

          if (only_victim == NULL || g_str_has_prefix (victim_names[victim], only_victim))
            g_array_append_val (looks, look);
        }
  results = ferry_peers_share (sizeof (Result) * looks->len, NULL);
  run_cases (looks, results);
  for (guint i = 0; i < looks->len; i++)
    {
      const Case *look = &g_array_index (looks, Case, i);
      g_autofree char *text = describe (look);

      ferry_peers_report (results[i].trouble[0] == '\0', "%s: nobody killed%s", text, results[i].trouble);
      for (guint step = 0; step < n_steps; step++)
        {
          if (only != NULL && strcmp (steps[step], only) != 0)
            continue;
          /* A repair is a matter of luck: it is tried in any case. */
          if (results[i].counts[step] == 0
              && !(look->victim == VICTIM_REPAIRS && g_str_has_prefix (steps[step], "repair-")))
            continue;
          for (guint round = rounds_of (look->victim); round > 0; round--)
            {
              Case test = *look;

              test.step = step;
              test.nth = 1 + ferry_random_below (&random, CLAMP (results[i].counts[step], 1, NTH_MAX));
              g_array_append_val (cases, test);
            }
        }
    }

  /* Then: kill them there. What was not reached is tried again. */
  for (guint try = 0; try < TRIES && cases->len > 0; try++)
    {
      g_autoptr (GArray) again = g_array_new (FALSE, TRUE, sizeof (Case));

      results = ferry_peers_share (sizeof (Result) * cases->len, NULL);
      run_cases (cases, results);
      for (guint i = 0; i < cases->len; i++)
        {
          Case test = g_array_index (cases, Case, i);
          g_autofree char *text = describe (&test);

          if (!results[i].reached && results[i].trouble[0] == '\0')
            {
              test.nth = 1;
              g_array_append_val (again, test);
              continue;
            }
          n_kills += results[i].reached;
          n_scenarios[test.step] += results[i].reached;
          n_reached[test.step] += results[i].reached;
          n_bad[test.step] += results[i].trouble[0] != '\0';
          slowest[test.step] = MAX (slowest[test.step], results[i].prompt);
          ferry_peers_report (results[i].trouble[0] == '\0', "%s%s", text, results[i].trouble);
        }
      g_array_set_size (cases, 0);
      g_array_append_vals (cases, again->data, again->len);
    }

  ferry_peers_note ("%-22s %6s %7s %12s", "step", "kills", "trouble", "slowest, ms");
  for (guint step = 0; step < n_steps; step++)
    {
      if (only != NULL && strcmp (steps[step], only) != 0)
        continue;
      ferry_peers_note ("%-22s %6u %7u %12.1f", steps[step], n_reached[step], n_bad[step],
                        (double) slowest[step] / 1000);
      if (only_victim == NULL)
        ferry_peers_report (n_reached[step] > 0, "step %s has a scenario that reaches it", steps[step]);
    }
  ferry_peers_note ("%u kills at %u steps", n_kills, n_steps);
  return ferry_peers_finish ();
}
