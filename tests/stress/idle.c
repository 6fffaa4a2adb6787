/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* An idle channel costs no CPU: open ends, a receiver that waits, and one in a main loop. */

#include "ferry-peers.h"

#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

#define IDLE_FOR (3 * FERRY_PEERS_S)
/* Of the wall time. */
#define CPU_SHARE_MAX (0.01)
#define SWITCHES_MAX_PER_S (10)
/* ThreadSanitizer has a thread that wakes ten times a second. */
#define SWITCHES_MAX_SANITIZED_PER_S (30)

typedef enum
{
  IDLE_OPEN,    /* nobody waits */
  IDLE_WAITS,   /* in receive() */
  IDLE_SOURCE,  /* in a main loop */
  IDLE_FULL,    /* a sender that waits for room */
  IDLE_THREADS, /* several threads of one endpoint */
  N_IDLES,
} Idle;

static const char *const idle_names[N_IDLES]
    = { "open", "receiving", "in a main loop", "sending, the channel is full", "receiving in four threads" };

typedef struct
{
  const char *transport;
  FerryMode mode;
  Idle idle;
} Case;

typedef struct
{
  double cpu;
  double switches;
  _Atomic guint32 ready;
  _Atomic guint32 over;
  char error[300];
} Result;

static Result *result;

static FerryChannel *
open_channel (const Case *test, FerryRole role)
{
  g_autoptr (GError) error = NULL;
  FerryChannel *channel = ferry_peers_open (test->transport, "idle", role, &error, "mode", test->mode, "capacity", 4,
                                            "codec", "raw", NULL);

  if (channel == NULL)
    {
      g_snprintf (result->error, sizeof result->error, "%s", error->message);
      exit (EXIT_FAILURE);
    }
  return channel;
}

/* The other end. In a case of its own process, so that only one end is measured. */
static int
other_cb (gpointer data)
{
  const Case *test = data;
  g_autoptr (FerryChannel) channel
      = open_channel (test, test->idle == IDLE_FULL ? FERRY_ROLE_RECEIVER : FERRY_ROLE_SENDER);

  atomic_store (&result->ready, 1);
  while (!atomic_load (&result->over))
    g_usleep (5000);
  return EXIT_SUCCESS;
}

static double
cpu_time (const struct rusage *usage)
{
  return (double) usage->ru_utime.tv_sec + (double) usage->ru_stime.tv_sec
         + (double) (usage->ru_utime.tv_usec + usage->ru_stime.tv_usec) / FERRY_PEERS_S;
}

static gpointer
receive_thread (gpointer data)
{
  g_autoptr (FerryBuffer) buffer = ferry_channel_receive (data, IDLE_FOR, NULL, NULL);

  return NULL;
}

static gboolean
message_cb (FerryChannel *channel, GIOCondition condition, gpointer user_data)
{
  return G_SOURCE_CONTINUE;
}

static gboolean
quit_cb (gpointer data)
{
  g_main_loop_quit (data);
  return G_SOURCE_REMOVE;
}

static int
case_cb (gpointer data)
{
  const Case *test = data;
  g_autoptr (FerryChannel) channel
      = open_channel (test, test->idle == IDLE_FULL ? FERRY_ROLE_SENDER : FERRY_ROLE_RECEIVER);
  struct rusage before;
  struct rusage after;
  gint64 began;
  double took;

  while (!atomic_load (&result->ready))
    g_usleep (1000);
  while (test->idle == IDLE_FULL && ferry_channel_send (channel, (const guint8 *) "x", 1, FERRY_NO_WAIT, NULL, NULL))
    ;
  getrusage (RUSAGE_SELF, &before);
  began = g_get_monotonic_time ();
  switch (test->idle)
    {
    case IDLE_WAITS:
      receive_thread (channel);
      break;
    case IDLE_FULL:
      if (ferry_channel_send (channel, (const guint8 *) "x", 1, IDLE_FOR, NULL, NULL))
        g_snprintf (result->error, sizeof result->error, "the channel was not full");
      break;
    case IDLE_SOURCE:
      {
        g_autoptr (GMainLoop) loop = g_main_loop_new (NULL, FALSE);
        g_autoptr (GSource) source = ferry_channel_create_source (channel, G_IO_IN, NULL, NULL);

        g_source_set_callback (source, G_SOURCE_FUNC (message_cb), NULL, NULL);
        g_source_attach (source, NULL);
        g_timeout_add ((guint) (IDLE_FOR / 1000), quit_cb, loop);
        g_main_loop_run (loop);
        g_source_destroy (source);
        break;
      }
    case IDLE_THREADS:
      {
        GThread *threads[4];

        for (guint i = 0; i < G_N_ELEMENTS (threads); i++)
          threads[i] = g_thread_new ("receive", receive_thread, channel);
        for (guint i = 0; i < G_N_ELEMENTS (threads); i++)
          g_thread_join (threads[i]);
        break;
      }
    case IDLE_OPEN:
    default:
      g_usleep ((gulong) IDLE_FOR);
      break;
    }
  took = (double) (g_get_monotonic_time () - began) / FERRY_PEERS_S;
  getrusage (RUSAGE_SELF, &after);
  result->cpu = (cpu_time (&after) - cpu_time (&before)) / took;
  result->switches = (double) (after.ru_nvcsw - before.ru_nvcsw) / took;
  if (took < (double) IDLE_FOR / FERRY_PEERS_S * 0.9)
    g_snprintf (result->error, sizeof result->error, "it was idle for %.2f s only", took);
  return EXIT_SUCCESS;
}

typedef struct
{
  Case test;
  guint number;
  Result *result;
} Job;

static int
job_cb (gpointer data)
{
  Job *job = data;
  pid_t other;
  pid_t pid;
  int status;

  ferry_peers_enter (job->number);
  result = job->result;
  other = ferry_peers_fork (other_cb, &job->test);
  while (!atomic_load (&result->ready) && result->error[0] == '\0')
    g_usleep (1000);
  pid = ferry_peers_fork (case_cb, &job->test);
  if (!ferry_peers_wait (pid, 30 * FERRY_PEERS_S, &status) || !ferry_peers_ended_well (status))
    g_snprintf (result->error, sizeof result->error, "%s", ferry_peers_tell_end (status));
  atomic_store (&result->over, 1);
  ferry_peers_wait (other, 10 * FERRY_PEERS_S, &status);
  return EXIT_SUCCESS;
}

int
main (int argc, char **argv)
{
  const char *const transports[] = { "posix-shm", "memfd" };
  Job jobs[2 * 2 * N_IDLES];
  pid_t pids[G_N_ELEMENTS (jobs)];
  Result *results;
  guint n = 0;

  ferry_peers_setup (argc, argv);
  results = ferry_peers_share (sizeof (Result) * G_N_ELEMENTS (jobs), NULL);
  /* All at a time: they are idle. */
  for (guint transport = 0; transport < G_N_ELEMENTS (transports); transport++)
    for (guint mode = 0; mode < 2; mode++)
      for (guint idle = 0; idle < N_IDLES; idle++, n++)
        {
          jobs[n] = (Job){ { transports[transport], mode ? FERRY_MODE_BROADCAST : FERRY_MODE_WORK_QUEUE, (Idle) idle },
                           n,
                           &results[n] };
          pids[n] = ferry_peers_fork (job_cb, &jobs[n]);
        }
  for (guint i = 0; i < n; i++)
    {
      const Case *test = &jobs[i].test;
      /* A sleeper looks around now and then, and each thread does. */
      double switches = (ferry_peers_is_sanitized () ? SWITCHES_MAX_SANITIZED_PER_S : SWITCHES_MAX_PER_S)
                        * (test->idle == IDLE_THREADS ? 4 : 1);
      int status;

      ferry_peers_wait (pids[i], 60 * FERRY_PEERS_S, &status);
      ferry_peers_report (results[i].error[0] == '\0' && (results[i].cpu < CPU_SHARE_MAX || ferry_peers_is_sanitized ())
                              && results[i].switches < switches,
                          "%s, %s, %s: %.2f %% CPU, %.1f context switches a second %s", test->transport,
                          test->mode == FERRY_MODE_BROADCAST ? "broadcast" : "work queue", idle_names[test->idle],
                          results[i].cpu * 100, results[i].switches, results[i].error);
    }
  return ferry_peers_finish ();
}
