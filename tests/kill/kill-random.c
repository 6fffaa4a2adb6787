/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Kills participants at random times: one or several at once, the creator, those who repair. */

#include "kill-common.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

/* Channels at a time: most of a round is waiting. */
#define AT_ONCE (4)
#define VICTIMS_MAX (4)
#define KILLS_DEFAULT (1500)
#define KILLS_THOROUGH (20000)
#define KILLS_A_CHANNEL (25)
/* A victim lives at most that long, microseconds. */
#define LIFE_MAX (15 * FERRY_PEERS_MS)
#define CHANNEL_TIMEOUT (120 * FERRY_PEERS_S)

typedef struct
{
  char trouble[KILL_TROUBLE_MAX];
  guint n_kills;
  guint n_repairers; /* of them those that were sent to repair */
  gint64 slowest;
} Result;

typedef struct
{
  KillLedger *ledger;
  const KillChannel *channel;
  guint64 seed;
} Victim;

/* Joins and leaves, sends and receives, until it is killed. */
static int
victim_cb (gpointer data)
{
  Victim *self = data;
  FerryRandom random;
  gboolean receives;
  FerryBuffer *held[6] = { NULL };
  guint key = 0;

  ferry_random_init (&random, self->seed);
  receives = ferry_random_below (&random, 2);
  for (;;)
    {
      g_autoptr (GError) error = NULL;
      g_autoptr (FerryChannel) channel = NULL;

      if (receives)
        {
          channel = kill_open (self->channel, FERRY_ROLE_RECEIVER, FERRY_OVERFLOW_BLOCK, &error);
          for (guint i = ferry_random_below (&random, 60); channel != NULL && i > 0; i--)
            {
              guint place = ferry_random_below (&random, G_N_ELEMENTS (held));

              g_clear_pointer (&held[place], ferry_buffer_unref);
              held[place] = kill_receive (self->ledger, channel, KILL_BY_VICTIM, 5 * FERRY_PEERS_MS, NULL);
            }
          if (channel != NULL)
            ferry_channel_close (channel, NULL);
          for (guint i = 0; i < G_N_ELEMENTS (held); i++)
            g_clear_pointer (&held[i], ferry_buffer_unref);
        }
      else
        {
          g_autoptr (FerryBuffer) loan = NULL;

          if (key == 0)
            key = kill_new_key (self->ledger);
          channel = kill_open (self->channel, FERRY_ROLE_SENDER, FERRY_OVERFLOW_BLOCK, &error);
          if (channel != NULL)
            loan = ferry_channel_loan (channel, 3000, FERRY_NO_WAIT, NULL, NULL);
          for (guint i = ferry_random_below (&random, 60); channel != NULL && i > 0; i--)
            {
              if (!kill_send (self->ledger, channel, key, kill_random_size (&random, FALSE), i % 2, FERRY_PEERS_S,
                              &error))
                break;
              if (ferry_random_below (&random, 10) == 0)
                ferry_channel_trim (channel);
            }
          if (channel != NULL)
            ferry_channel_close (channel, NULL);
        }
      if (error != NULL)
        {
          g_printerr ("kill-random: victim: %s\n", error->message);
          return EXIT_FAILURE;
        }
    }
}

/* Creates the channel and is killed when others have joined. */
static int
creator_cb (gpointer data)
{
  Victim *self = data;
  g_autoptr (FerryChannel) channel = kill_open (self->channel, FERRY_ROLE_SENDER, FERRY_OVERFLOW_BLOCK, NULL);
  guint key = kill_new_key (self->ledger);

  if (channel == NULL)
    return EXIT_FAILURE;
  /* In broadcast the survivors shall hear of all that is sent. */
  for (guint i = 0; i < self->channel->n_receivers; i++)
    while (!atomic_load (&self->ledger->survivors[self->channel->n_senders + i].ready))
      g_usleep (1000);
  for (guint i = 0; i < 2000; i++)
    if (!kill_send (self->ledger, channel, key, 100 + i, FALSE, 3 * FERRY_PEERS_S, NULL))
      break;
  for (;;)
    pause ();
}

static gboolean
kill_one (pid_t pid, Result *result, GString *trouble)
{
  int status;

  kill (pid, SIGKILL);
  if (waitpid (pid, &status, 0) == pid && WIFSIGNALED (status) && WTERMSIG (status) == SIGKILL)
    {
      result->n_kills++;
      return TRUE;
    }
  g_string_append_printf (trouble, "; a victim ended before: %s", ferry_peers_tell_end (status));
  return FALSE;
}

static void
run_channel (gconstpointer seed, guint number, gpointer result_data)
{
  Result *result = result_data;
  FerryRandom random;
  KillChannel channel = { .overflow = FERRY_OVERFLOW_BLOCK, .n_senders = 2, .n_receivers = 2, .pace = 300 };
  KillLedger *ledger = kill_ledger_new ();
  g_autoptr (GString) trouble = g_string_new (NULL);
  pid_t pids[KILL_SURVIVORS_MAX] = { 0 };
  pid_t creator;
  guint n_may_be_lost = 0;
  Victim first;

  ferry_random_init (&random, *(const guint64 *) seed);
  channel.transport = ferry_random_below (&random, 2) ? "memfd" : "posix-shm";
  channel.mode = ferry_random_below (&random, 2) ? FERRY_MODE_BROADCAST : FERRY_MODE_WORK_QUEUE;
  channel.capacity = 1 + ferry_random_below (&random, 12);
  channel.max_bytes = ferry_random_below (&random, 3) == 0 ? 4 << 20 : 0;
  if (channel.mode == FERRY_MODE_BROADCAST)
    channel.history = ferry_random_below (&random, 3) * 2;
  ferry_peers_enter (number);
  g_snprintf (channel.name, sizeof channel.name, "random-%u", number);

  first = (Victim){ ledger, &channel, 0 };
  creator = ferry_peers_fork (creator_cb, &first);
  g_usleep (5000);
  if (kill_start (ledger, &channel, pids, trouble))
    {
      g_usleep (ferry_random_below (&random, 10000));
      kill_one (creator, result, trouble);
      creator = 0;
      result->slowest = kill_check_prompt (ledger, &channel, trouble);
    }
  while (trouble->len == 0 && result->n_kills < KILLS_A_CHANNEL)
    {
      pid_t victims[VICTIMS_MAX];
      guint n = 1 + ferry_random_below (&random, VICTIMS_MAX);
      gint64 prompt;

      for (guint i = 0; i < n; i++)
        {
          Victim victim = { ledger, &channel, ferry_random_next (&random) };

          victims[i] = ferry_peers_fork (victim_cb, &victim);
        }
      g_usleep (2000 + ferry_random_below (&random, LIFE_MAX));
      for (guint i = 0; i < n; i++)
        kill_one (victims[i], result, trouble);
      /* Each may have had a message in hand that it did not tell of. */
      n_may_be_lost += n;

      /* Who joins now repairs first: kill it at that. */
      for (guint i = ferry_random_below (&random, 3); i > 0; i--)
        {
          Victim victim = { ledger, &channel, ferry_random_next (&random) };
          pid_t repairer = ferry_peers_fork (victim_cb, &victim);

          g_usleep (ferry_random_below (&random, 6000));
          kill_one (repairer, result, trouble);
          result->n_repairers++;
          n_may_be_lost++;
        }
      prompt = kill_check_prompt (ledger, &channel, trouble);
      result->slowest = MAX (result->slowest, prompt);
    }
  if (pids[0] > 0)
    kill_end (ledger, &channel, pids, channel.mode == FERRY_MODE_BROADCAST ? 0 : n_may_be_lost, trouble);
  if (creator > 0)
    kill (creator, SIGKILL);
  if (trouble->len > 0)
    g_string_append_printf (trouble, " (%s, %s, capacity %u, history %u, max-bytes %" G_GUINT64_FORMAT ")",
                            channel.transport, channel.mode == FERRY_MODE_BROADCAST ? "broadcast" : "work queue",
                            channel.capacity, channel.history, channel.max_bytes);
  kill_abandon (pids);
  g_strlcpy (result->trouble, trouble->str, sizeof result->trouble);
}

typedef struct
{
  guint n_kills;
  guint n_repairers;
  gint64 slowest;
} Sum;

static void
ended_cb (guint index, gconstpointer seed, gconstpointer result_data, gpointer data)
{
  const Result *result = result_data;
  Sum *sum = data;

  ferry_peers_report (result->trouble[0] == '\0', "channel %u: %u kills, slowest reaction %.1f ms%s", index,
                      result->n_kills, (double) result->slowest / 1000, result->trouble);
  sum->n_kills += result->n_kills;
  sum->n_repairers += result->n_repairers;
  sum->slowest = MAX (sum->slowest, result->slowest);
}

int
main (int argc, char **argv)
{
  guint n_channels = (ferry_peers_is_thorough () ? KILLS_THOROUGH : KILLS_DEFAULT) / KILLS_A_CHANNEL;
  g_autofree guint64 *seeds = g_new (guint64, n_channels);
  Sum sum = { 0 };
  FerryRandom random;

  ferry_peers_setup (argc, argv);
  ferry_random_init (&random, ferry_peers_seed ());
  for (guint i = 0; i < n_channels; i++)
    seeds[i] = ferry_random_next (&random);
  kill_run_cases (&(KillCases){ .n_cases = n_channels,
                                .cases = seeds,
                                .case_size = sizeof *seeds,
                                .results = ferry_peers_share (sizeof (Result) * n_channels, NULL),
                                .result_size = sizeof (Result),
                                .at_once = AT_ONCE,
                                .timeout = CHANNEL_TIMEOUT,
                                .run = run_channel,
                                .ended = ended_cb,
                                .data = &sum });
  ferry_peers_note ("%u kills, %u of them of participants that had come to repair; slowest reaction %.1f ms",
                    sum.n_kills, sum.n_repairers, (double) sum.slowest / 1000);
  return ferry_peers_finish ();
}
