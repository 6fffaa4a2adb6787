/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* SIGSTOP is not death: a participant that is stopped, at each step and at random, stays, keeps what it has, and goes on
 * after SIGCONT. A table tells whom it holds up meanwhile. */

#include "ferry-segment-private.h"
#include "kill-common.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define AT_ONCE (16)
#define LOOK_ABSENT (6)
#define STEPS_MAX (256)
#define STOPPED_FOR (2 * FERRY_PEERS_S)
/* While it is stopped the survivors are asked for something new within that time: a receiver that is not woken sleeps for 700 ms. */
#define PROGRESS (950 * FERRY_PEERS_MS)
#define CASE_TIMEOUT (90 * FERRY_PEERS_S)
#define VICTIM_TIMEOUT (20 * FERRY_PEERS_S)
/* Every so many steps one, unless thorough. */
#define SAMPLE (4)
#define RANDOM_DEFAULT (16)
#define RANDOM_THOROUGH (200)

static const char *const transports[] = { "posix-shm", "memfd" };

typedef struct
{
  gboolean receives;
  guint transport;
  FerryMode mode;
  const char *step; /* NULL: at a random time */
  guint64 seed;
} Case;

typedef struct
{
  char trouble[KILL_TROUBLE_MAX];
  gboolean reached;
  gboolean held_up; /* the survivors */
} Result;

/* Where the lock is held; who needs it for growth or for joining has to wait there. */
static const char *const locked_steps[] = {
  "locked",      "before-unlock",  "join-record",        "join-joining", "join-counted", "join-active",
  "leave-begin", "leave-released", "record-before-free", "grow-summed",  "grow-locked",  "grow-owned",
  "grow-used",   "trim-claimed",   "trim-uncommitted",   "trim-punched", "trim-zeroed",  "trim-freed",
};

/* Where a slot is in the stopped one's hands: others pass it, until the ring comes round to it. How many messages that are
 * here, depends on where the ring was; stop-ring.c counts them. */
static const char *const slot_steps[] = { "send-claimed", "send-written", "take-taken", "take-owned" };

typedef struct
{
  const Case *test;
  const KillChannel *channel;
  KillLedger *ledger;
  _Atomic guint32 *at_work;
} Context;

static gboolean
is_among (const char *step, const char *const *steps, guint n)
{
  for (guint i = 0; step != NULL && i < n; i++)
    if (strcmp (steps[i], step) == 0)
      return TRUE;
  return FALSE;
}

static gboolean
is_locked_step (const char *step)
{
  return is_among (step, locked_steps, G_N_ELEMENTS (locked_steps));
}

static int
victim_cb (gpointer data)
{
  Context *context = data;
  g_autoptr (GError) error = NULL;
  g_autoptr (FerryChannel) channel = NULL;
  FerryBuffer *held[3] = { NULL };
  FerryRandom random;
  guint key = context->test->receives ? 0 : kill_new_key (context->ledger);

  ferry_random_init (&random, context->test->seed);
  if (context->test->step != NULL)
    ferry_step_arm (context->test->step, 1 + ferry_random_below (&random, 2), SIGSTOP);
  channel = kill_open (context->channel, context->test->receives ? FERRY_ROLE_RECEIVER : FERRY_ROLE_SENDER,
                       FERRY_OVERFLOW_BLOCK, &error);
  if (channel == NULL)
    {
      g_printerr ("stop: open: %s\n", error->message);
      return EXIT_FAILURE;
    }
  atomic_store (context->at_work, 1);
  for (guint i = 0; i < 60; i++)
    {
      guint place = ferry_random_below (&random, G_N_ELEMENTS (held));

      if (context->test->receives)
        {
          FerryBuffer *buffer = kill_receive (context->ledger, channel, KILL_BY_VICTIM, 300 * FERRY_PEERS_MS, &error);

          if (buffer == NULL && !g_error_matches (error, FERRY_ERROR, FERRY_ERROR_TIMED_OUT))
            {
              g_printerr ("stop: receive: %s\n", error->message);
              return EXIT_FAILURE;
            }
          g_clear_error (&error);
          /* What is held stays what it was, however long its holder is stopped. */
          if (held[place] != NULL)
            {
              gsize size;
              const guint8 *bytes = ferry_buffer_get_data (held[place], &size);
              guint16 other_key;
              guint16 tag;
              guint32 sequence;

              if (!ferry_payload_check (bytes, size, &other_key, &sequence, &tag))
                {
                  g_printerr ("stop: a view that was held has changed\n");
                  return EXIT_FAILURE;
                }
            }
          g_clear_pointer (&held[place], ferry_buffer_unref);
          held[place] = buffer;
        }
      else
        {
          if (!kill_send (context->ledger, channel, key, kill_random_size (&random, FALSE), i % 2, 15 * FERRY_PEERS_S,
                          &error))
            {
              g_printerr ("stop: send: %s\n", error->message);
              return EXIT_FAILURE;
            }
          if (i % 10 == 9)
            ferry_channel_trim (channel);
        }
      g_usleep (ferry_random_below (&random, 500));
    }
  for (guint i = 0; i < G_N_ELEMENTS (held); i++)
    g_clear_pointer (&held[i], ferry_buffer_unref);
  ferry_channel_close (channel, NULL);
  return EXIT_SUCCESS;
}

/* What others see of the stopped one. */
static int
look_cb (gpointer data)
{
  Context *context = data;
  pid_t victim = (pid_t) context->test->seed;
  g_autoptr (FerryChannel) channel
      = ferry_channel_new (context->channel->transport, context->channel->name, FERRY_ROLE_OBSERVER);
  g_autoptr (GPtrArray) list = NULL;
  g_autoptr (FerryStatistics) statistics = NULL;

  g_object_set (channel, "open-mode", FERRY_OPEN_MODE_JOIN, NULL);
  if (!ferry_channel_open (channel, NULL, NULL))
    return 2;
  statistics = ferry_channel_get_statistics (channel, NULL);
  list = ferry_channel_list_participants (channel, NULL);
  if (list == NULL || statistics == NULL)
    return 3;
  if (statistics->repairs != 0)
    return 4;
  for (guint i = 0; i < list->len; i++)
    {
      FerryParticipant *participant = g_ptr_array_index (list, i);

      if (participant->pid == victim)
        return participant->alive ? 0 : 5;
    }
  return LOOK_ABSENT;
}

static void
run_case (gconstpointer data, guint number, gpointer result_data)
{
  const Case *test = data;
  Result *result = result_data;
  KillChannel channel = { .transport = transports[test->transport],
                          .mode = test->mode,
                          .overflow = FERRY_OVERFLOW_BLOCK,
                          .capacity = 6,
                          .n_senders = 1,
                          .n_receivers = 1,
                          .pace = 2000 };
  KillLedger *ledger = kill_ledger_new ();
  _Atomic guint32 *at_work = ferry_peers_share (4096, NULL);
  Context context = { test, &channel, ledger, at_work };
  g_autoptr (GString) trouble = g_string_new (NULL);
  g_autoptr (GString) ignored = g_string_new (NULL);
  pid_t pids[KILL_SURVIVORS_MAX] = { 0 };
  pid_t victim = 0;
  FerryRandom random;
  int status = 0;
  gboolean gone = FALSE;

  ferry_peers_enter (number);
  ferry_random_init (&random, test->seed);
  g_snprintf (channel.name, sizeof channel.name, "stop-%u", number);
  if (!kill_start (ledger, &channel, pids, trouble))
    goto out;
  victim = ferry_peers_fork (victim_cb, &context);
  if (test->step == NULL)
    {
      while (!atomic_load (at_work))
        g_usleep (500);
      g_usleep (ferry_random_below (&random, 20000));
      kill (victim, SIGSTOP);
    }
  for (gint64 end = g_get_monotonic_time () + VICTIM_TIMEOUT;
       !gone && !result->reached && g_get_monotonic_time () < end;)
    {
      if (waitpid (victim, &status, WUNTRACED | WNOHANG) == victim)
        {
          result->reached = WIFSTOPPED (status);
          gone = !result->reached;
        }
      g_usleep (500);
    }
  if (result->reached)
    {
      gint64 began = g_get_monotonic_time ();
      guint32 epoch = atomic_fetch_add (&ledger->epoch, 1) + 1;
      gboolean all = FALSE;

      while (!all && g_get_monotonic_time () - began < PROGRESS)
        {
          all = TRUE;
          for (guint i = 0; i < channel.n_senders + channel.n_receivers; i++)
            all &= atomic_load (&ledger->survivors[i].epoch_done) >= epoch;
          g_usleep (500);
        }
      result->held_up = !all;
      g_usleep ((gulong) MAX (STOPPED_FOR - (g_get_monotonic_time () - began), 0));

      /* In the joining and leaving the record comes and goes. */
      if (test->step == NULL
          || !(g_str_has_prefix (test->step, "join-") || g_str_has_prefix (test->step, "leave-")
               || g_str_has_prefix (test->step, "record-") || is_locked_step (test->step)))
        {
          Case look = *test;
          Context look_context = { &look, &channel, ledger, at_work };
          pid_t looker;

          look.seed = (guint64) victim;
          looker = ferry_peers_fork (look_cb, &look_context);
          if (!ferry_peers_wait (looker, 10 * FERRY_PEERS_S, &status))
            g_string_append (trouble, "; looking at the channel hung");
          /* A leaver wakes others after its record is free. */
          else if (WEXITSTATUS (status) != 0
                   && !(WEXITSTATUS (status) == LOOK_ABSENT && test->step != NULL
                        && g_str_has_prefix (test->step, "wake-")))
            g_string_append_printf (trouble, "; the stopped participant is not seen as it should be (%d)",
                                    WEXITSTATUS (status));
        }
      kill (victim, SIGCONT);
    }
  if (!gone && !ferry_peers_wait (victim, VICTIM_TIMEOUT, &status))
    g_string_append (trouble, "; the stopped one hung when it was continued");
  else if (!ferry_peers_ended_well (status))
    g_string_append_printf (trouble, "; the stopped one did not go on: %s", ferry_peers_tell_end (status));
  victim = 0;
  kill_check_prompt (ledger, &channel, trouble);
  kill_end (ledger, &channel, pids, 0, trouble);

out:
  if (victim > 0)
    kill (victim, SIGKILL);
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

static int
compare_cb (gconstpointer a, gconstpointer b)
{
  return strcmp (*(const char *const *) a, *(const char *const *) b);
}

int
main (int argc, char **argv)
{
  g_autoptr (GArray) cases = g_array_new (FALSE, TRUE, sizeof (Case));
  g_autoptr (GPtrArray) steps = g_ptr_array_new ();
  FerryRandom random;
  Result *results;
  guint n_steps;
  const char *const *list = ferry_step_list (&n_steps);
  const char *only = g_getenv ("FERRY_KILL_STEP");
  guint n_stopped = 0;

  ferry_peers_setup (argc, argv);
  ferry_random_init (&random, ferry_peers_seed ());
  for (guint i = 0; i < n_steps; i++)
    if (!g_ptr_array_find_with_equal_func (steps, list[i], g_str_equal, NULL))
      g_ptr_array_add (steps, (gpointer) list[i]);
  g_ptr_array_sort (steps, compare_cb);

  for (guint i = 0; i < steps->len; i++)
    for (guint kind = 0; kind < 8; kind++)
      {
        Case test = { kind & 1, kind >> 1 & 1, kind >> 2 & 1 ? FERRY_MODE_BROADCAST : FERRY_MODE_WORK_QUEUE,
                      g_ptr_array_index (steps, i), ferry_random_next (&random) };

        if (only != NULL ? strcmp (only, test.step) == 0
                         : ferry_peers_is_thorough () || ferry_random_below (&random, SAMPLE) == 0)
          g_array_append_val (cases, test);
      }
  for (guint i = ferry_peers_is_thorough () ? RANDOM_THOROUGH : RANDOM_DEFAULT; i > 0 && only == NULL; i--)
    {
      Case test = { ferry_random_below (&random, 2), ferry_random_below (&random, 2),
                    ferry_random_below (&random, 2) ? FERRY_MODE_BROADCAST : FERRY_MODE_WORK_QUEUE, NULL,
                    ferry_random_next (&random) };

      g_array_append_val (cases, test);
    }

  results = ferry_peers_share (sizeof (Result) * MAX (cases->len, 1), NULL);
  run_cases (cases, results);
  ferry_peers_note ("Stopped where it holds others up:");
  for (guint i = 0; i < cases->len; i++)
    {
      const Case *test = &g_array_index (cases, Case, i);
      g_autofree char *text
          = g_strdup_printf ("%s, %s, %s stopped at %s", transports[test->transport],
                             test->mode == FERRY_MODE_BROADCAST ? "broadcast" : "work queue",
                             test->receives ? "receiver" : "sender", test->step != NULL ? test->step : "a random time");
      Result *result = &results[i];

      if (!result->reached && result->trouble[0] == '\0')
        continue;
      n_stopped++;
      if (result->held_up)
        ferry_peers_note ("  %s", text);
      /* Only the lock, and a slot when the ring comes round to it, may hold up a work queue. */
      if (result->held_up && test->step != NULL && test->mode == FERRY_MODE_WORK_QUEUE && !is_locked_step (test->step)
          && !is_among (test->step, slot_steps, G_N_ELEMENTS (slot_steps)))
        g_strlcat (result->trouble, "; others were held up", sizeof result->trouble);
      ferry_peers_report (result->trouble[0] == '\0', "%s%s", text, result->trouble);
    }
  ferry_peers_note ("%u participants stopped", n_stopped);
  return ferry_peers_finish ();
}
