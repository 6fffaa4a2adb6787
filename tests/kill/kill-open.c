/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Kills a process at every system call that it makes while it opens and closes a channel: alone, and with others in the
 * channel. Steps compiled into the core know nothing of the transports; the system calls are all that others can see. */

#include "kill-common.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

#define AT_ONCE (4)
#define SYSCALLS_MAX (5000)
#define VICTIM_TIMEOUT (20 * FERRY_PEERS_S)
/* Thousands of kills, each with a channel that is opened after it. */
#define CASE_TIMEOUT (150 * FERRY_PEERS_S)

static const char *const transports[] = { "posix-shm", "memfd" };

typedef struct
{
  guint transport;
  FerryMode mode;
  gboolean alone;
  gboolean receives;
} Case;

typedef struct
{
  char trouble[KILL_TROUBLE_MAX];
  guint n_syscalls; /* a whole run of the victim */
  guint n_kills;
  gboolean no_ptrace;
} Result;

typedef struct
{
  const Case *test;
  const KillChannel *channel;
  KillLedger *ledger;
  guint key;
} Context;

/* Opens, sends or receives a little, closes. The stop is where the counting begins. */
static int
victim_cb (gpointer data)
{
  Context *context = data;
  g_autoptr (FerryChannel) channel = NULL;
  g_autoptr (FerryTransport) loaded
      = ferry_registry_create_transport (ferry_registry_get_default (), context->channel->transport, NULL);

  if (ptrace (PTRACE_TRACEME, 0, NULL, NULL) != 0)
    return 77;
  raise (SIGSTOP);
  channel = kill_open (context->channel, context->test->receives ? FERRY_ROLE_RECEIVER : FERRY_ROLE_SENDER,
                       FERRY_OVERFLOW_BLOCK, NULL);
  if (channel == NULL)
    return EXIT_FAILURE;
  for (guint i = 0; i < 2; i++)
    {
      if (context->test->receives)
        {
          g_autoptr (FerryBuffer) buffer = kill_receive (context->ledger, channel, KILL_BY_VICTIM, FERRY_NO_WAIT, NULL);
        }
      else
        {
          kill_send (context->ledger, channel, context->key, i == 0 ? 50 : 6000, FALSE, FERRY_PEERS_S, NULL);
        }
    }
  ferry_channel_close (channel, NULL);
  return EXIT_SUCCESS;
}

/* Lets the victim run up to its @nth stop at a system call and kills it there. The number of stops, when it ends before. */
static guint
run_victim (Context *context, guint nth, Result *result, GString *trouble)
{
  pid_t pid = ferry_peers_fork (victim_cb, context);
  guint n = 0;
  int status;

  if (waitpid (pid, &status, 0) != pid || !WIFSTOPPED (status))
    {
      result->no_ptrace = WIFEXITED (status) && WEXITSTATUS (status) == 77;
      if (!result->no_ptrace)
        g_string_append_printf (trouble, "; the victim: %s", ferry_peers_tell_end (status));
      return 0;
    }
  for (;;)
    {
      int signal_number = 0;

      if (n == nth)
        {
          kill (pid, SIGKILL);
          waitpid (pid, &status, 0);
          result->n_kills++;
          return n;
        }
      if (WIFSTOPPED (status) && WSTOPSIG (status) != SIGTRAP && WSTOPSIG (status) != SIGSTOP)
        signal_number = WSTOPSIG (status);
      if (ptrace (PTRACE_SYSCALL, pid, NULL, signal_number) != 0 && errno != ESRCH)
        break;
      if (waitpid (pid, &status, 0) != pid)
        break;
      if (WIFEXITED (status) || WIFSIGNALED (status))
        break;
      n++;
    }
  if (!ferry_peers_ended_well (status))
    g_string_append_printf (trouble, "; the victim: %s", ferry_peers_tell_end (status));
  return n;
}

/* Who comes next finds the channel as it should be, and leaves nothing. */
static int
next_cb (gpointer data)
{
  Context *context = data;
  g_autoptr (GError) error = NULL;
  gint64 began = g_get_monotonic_time ();
  g_autoptr (FerryChannel) receiver = kill_open (context->channel, FERRY_ROLE_RECEIVER, FERRY_OVERFLOW_BLOCK, &error);
  g_autoptr (FerryChannel) sender
      = receiver != NULL ? kill_open (context->channel, FERRY_ROLE_SENDER, FERRY_OVERFLOW_BLOCK, &error) : NULL;

  for (guint i = 0; i < 3 && sender != NULL && error == NULL; i++)
    {
      g_autoptr (FerryBuffer) buffer = NULL;

      if (kill_send (context->ledger, sender, context->key, 40 << (6 * i), FALSE, FERRY_PEERS_S, &error))
        buffer = kill_receive (context->ledger, receiver, 1, FERRY_PEERS_S, &error);
    }
  if (error == NULL && !ferry_channel_verify (receiver, &error))
    g_prefix_error (&error, "verify: ");
  if (error == NULL && g_get_monotonic_time () - began > KILL_PROMPT * (ferry_peers_is_sanitized () ? 8 : 1))
    g_set_error (&error, FERRY_ERROR, FERRY_ERROR_TIMED_OUT, "it took %.2f s",
                 (double) (g_get_monotonic_time () - began) / FERRY_PEERS_S);
  if (error == NULL)
    return EXIT_SUCCESS;
  g_printerr ("kill-open: %s\n", error->message);
  return EXIT_FAILURE;
}

static void
run_case (gconstpointer data, guint place, gpointer result_data)
{
  const Case *test = data;
  Result *result = result_data;
  g_autoptr (GString) trouble = g_string_new (NULL);
  g_autoptr (GString) names = g_string_new (NULL);
  pid_t pids[KILL_SURVIVORS_MAX] = { 0 };
  KillLedger *ledger = kill_ledger_new ();
  KillChannel channel = { .transport = transports[test->transport],
                          .mode = test->mode,
                          .capacity = 8,
                          .n_senders = 1,
                          .n_receivers = 1,
                          .pace = 3000 };
  Context context = { test, &channel, ledger, kill_new_key (ledger) };
  int status;

  ferry_peers_enter (place);
  g_snprintf (channel.name, sizeof channel.name, "open-%u", place);
  if (!test->alone && !kill_start (ledger, &channel, pids, trouble))
    goto out;

  result->n_syscalls = run_victim (&context, G_MAXUINT, result, trouble);
  for (guint nth = 1; nth < MIN (result->n_syscalls, SYSCALLS_MAX) && trouble->len == 0; nth++)
    {
      guint before = result->n_kills;

      /* A victim may have sent a message and died before it could note that: no two of them have one key. */
      if (!test->alone && !test->receives)
        context.key = kill_new_key (ledger);
      run_victim (&context, nth, result, trouble);
      if (result->n_kills == before)
        continue; /* it made fewer calls this time */
      if (test->alone)
        {
          pid_t next;

          /* Every channel is a new one here, and so are its ledger and its key. */
          context.key = kill_new_key (ledger) % (KILL_KEYS - 1) + 1;
          if (atomic_load (&ledger->n_keys) > KILL_KEYS - 8)
            {
              memset (ledger, 0, sizeof *ledger);
              ledger->n_keys = 1;
              context.key = kill_new_key (ledger);
            }
          next = ferry_peers_fork (next_cb, &context);
          if (!ferry_peers_wait (next, VICTIM_TIMEOUT, &status) || !ferry_peers_ended_well (status))
            g_string_append_printf (trouble, "; killed at call %u of %u: the next opener: %s", nth, result->n_syscalls,
                                    ferry_peers_tell_end (status));
          else if (ferry_peers_count_names (names) > 0)
            g_string_append_printf (trouble, "; killed at call %u of %u: names are left:%s", nth, result->n_syscalls,
                                    names->str);
        }
      else if (nth % 4 == 0 && kill_check_prompt (ledger, &channel, trouble) < 0)
        {
          g_string_append_printf (trouble, "; killed at call %u of %u", nth, result->n_syscalls);
        }
    }
  if (!test->alone)
    kill_end (ledger, &channel, pids, test->receives && test->mode == FERRY_MODE_WORK_QUEUE ? G_MAXUINT : 0, trouble);

out:
  kill_abandon (pids);
  g_strlcpy (result->trouble, trouble->str, sizeof result->trouble);
}

static void
ended_cb (guint index, gconstpointer case_data, gconstpointer result_data, gpointer n_kills)
{
  const Case *test = case_data;
  const Result *result = result_data;

  if (result->no_ptrace)
    {
      ferry_peers_report (TRUE, "may not trace # SKIP");
      return;
    }
  *(guint *) n_kills += result->n_kills;
  ferry_peers_report (result->trouble[0] == '\0' && result->n_kills > 0,
                      "%s, %s, %s %s: %u kills at %u stops at system calls%s", transports[test->transport],
                      test->mode == FERRY_MODE_BROADCAST ? "broadcast" : "work queue",
                      test->alone ? "alone," : "among others,", test->receives ? "receiver" : "sender", result->n_kills,
                      result->n_syscalls, result->trouble);
}

int
main (int argc, char **argv)
{
  Case cases[16];
  guint n_kills = 0;

  ferry_peers_setup (argc, argv);
  for (guint i = 0; i < G_N_ELEMENTS (cases); i++)
    cases[i] = (Case){ i & 1, i >> 1 & 1 ? FERRY_MODE_BROADCAST : FERRY_MODE_WORK_QUEUE, i >> 2 & 1, i >> 3 & 1 };
  kill_run_cases (&(KillCases){ .n_cases = G_N_ELEMENTS (cases),
                                .cases = cases,
                                .case_size = sizeof (Case),
                                .results = ferry_peers_share (sizeof (Result) * G_N_ELEMENTS (cases), NULL),
                                .result_size = sizeof (Result),
                                .at_once = AT_ONCE,
                                .timeout = CASE_TIMEOUT * (ferry_peers_is_sanitized () ? 8 : 1),
                                .run = run_case,
                                .ended = ended_cb,
                                .data = &n_kills });
  ferry_peers_note ("%u kills", n_kills);
  return ferry_peers_finish ();
}
