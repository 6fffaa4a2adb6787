/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* A participant is stopped with the segment's lock in hand. Messages pass; who needs the lock can give up, and does in
 * the end; once the holder goes on, so does everybody. */

#include "ferry-segment-private.h"
#include "kill-common.h"

#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>

#define CANCEL_AFTER (200 * FERRY_PEERS_MS)
/* From the cancelling, or from the end of a time-out, to the return of the call. */
#define PROMPT (1 * FERRY_PEERS_S)
#define VICTIM_TIMEOUT (20 * FERRY_PEERS_S)

static const char *const transports[] = { "posix-shm", "memfd" };

static FerryChannel *
join (const char *transport, FerryRole role, GError **error)
{
  return ferry_peers_open (transport, "stop-lock", role, error, "codec", "raw", NULL);
}

static int
victim_cb (gpointer data)
{
  g_autoptr (FerryChannel) channel = NULL;

  ferry_step_arm ("join-record", 1, SIGSTOP);
  channel = join (data, FERRY_ROLE_SENDER, NULL);
  return channel != NULL && ferry_channel_close (channel, NULL) ? EXIT_SUCCESS : EXIT_FAILURE;
}

static gint64
limit (gint64 time)
{
  return time + PROMPT * (ferry_peers_is_sanitized () ? 8 : 1);
}

static gpointer
cancel_thread (gpointer cancellable)
{
  g_usleep (CANCEL_AFTER);
  g_cancellable_cancel (cancellable);
  return NULL;
}

static void
check_open_cancelled (const char *transport)
{
  g_autoptr (FerryChannel) channel = ferry_channel_new (transport, "stop-lock", FERRY_ROLE_RECEIVER);
  g_autoptr (GCancellable) cancellable = g_cancellable_new ();
  g_autoptr (GError) error = NULL;
  GThread *thread = g_thread_new ("cancel", cancel_thread, cancellable);
  gint64 began = g_get_monotonic_time ();
  gboolean opened = ferry_channel_open (channel, cancellable, &error);
  gint64 took = g_get_monotonic_time () - began;

  g_thread_join (thread);
  ferry_peers_report (!opened && g_error_matches (error, G_IO_ERROR, G_IO_ERROR_CANCELLED)
                          && took < limit (CANCEL_AFTER),
                      "%s: opening can be cancelled: %s after %.2f s", transport, opened ? "opened" : error->message,
                      (double) took / FERRY_PEERS_S);
}

static void
check_messages (const char *transport, FerryChannel *sender, FerryChannel *receiver)
{
  g_autofree guint8 *big = g_malloc0 (1 << 20);
  g_autoptr (FerryBuffer) buffer = NULL;
  g_autoptr (GError) error = NULL;
  gint64 began = g_get_monotonic_time ();
  gboolean passed = ferry_channel_send (sender, big, 100, FERRY_PEERS_S, NULL, NULL)
                    && (buffer = ferry_channel_receive (receiver, FERRY_PEERS_S, NULL, NULL)) != NULL;
  gint64 took = g_get_monotonic_time () - began;
  gboolean sent;

  ferry_peers_report (passed && took < limit (0), "%s: a small message passes, in %.3f s", transport,
                      (double) took / FERRY_PEERS_S);
  began = g_get_monotonic_time ();
  sent = ferry_channel_send (sender, big, 1 << 20, CANCEL_AFTER, NULL, &error);
  took = g_get_monotonic_time () - began;
  ferry_peers_report (!sent && g_error_matches (error, FERRY_ERROR, FERRY_ERROR_TIMED_OUT)
                          && took < limit (CANCEL_AFTER),
                      "%s: one that needs new memory keeps to its time-out: %s after %.2f s", transport,
                      sent ? "sent" : error->message, (double) took / FERRY_PEERS_S);
}

/* Without a cancellable: they take the patience of the lock, and no longer. */
static int
open_cb (gpointer data)
{
  g_autoptr (GError) error = NULL;
  g_autoptr (FerryChannel) channel = join (data, FERRY_ROLE_RECEIVER, &error);

  return channel == NULL && g_error_matches (error, FERRY_ERROR, FERRY_ERROR_TIMED_OUT) ? EXIT_SUCCESS : EXIT_FAILURE;
}

typedef struct
{
  const char *transport;
  _Atomic guint32 *phase; /* 1: open, 2: to be closed */
} Closer;

static int
close_cb (gpointer data)
{
  Closer *self = data;
  g_autoptr (FerryChannel) channel = join (self->transport, FERRY_ROLE_RECEIVER, NULL);

  if (channel == NULL)
    return EXIT_FAILURE;
  atomic_store (self->phase, 1);
  while (atomic_load (self->phase) != 2)
    g_usleep (1000);
  return ferry_channel_close (channel, NULL) ? EXIT_SUCCESS : EXIT_FAILURE;
}

static void
check_patience (const char *transport, pid_t closer)
{
  pid_t opener = ferry_peers_fork (open_cb, (gpointer) transport);
  gint64 began = g_get_monotonic_time ();
  gint64 timeout = limit (FERRY_LOCK_PATIENCE);
  int status;
  gboolean ended = ferry_peers_wait (opener, timeout, &status);

  ferry_peers_report (ended && ferry_peers_ended_well (status), "%s: opening gives up in the end: %s", transport,
                      ended ? ferry_peers_tell_end (status) : "it hangs");
  timeout -= g_get_monotonic_time () - began;
  ended = ferry_peers_wait (closer, MAX (timeout, FERRY_PEERS_S), &status);
  ferry_peers_report (ended && ferry_peers_ended_well (status), "%s: closing comes to an end: %s", transport,
                      ended ? ferry_peers_tell_end (status) : "it hangs");
}

static void
check_after (const char *transport, FerryChannel *sender, FerryChannel *receiver, pid_t victim)
{
  g_autoptr (GError) error = NULL;
  g_autoptr (FerryChannel) other = NULL;
  g_autoptr (FerryStatistics) statistics = NULL;
  int status;
  gboolean ended;

  kill (victim, SIGCONT);
  ended = ferry_peers_wait (victim, VICTIM_TIMEOUT, &status);
  ferry_peers_report (ended && ferry_peers_ended_well (status), "%s: the holder goes on: %s", transport,
                      ended ? ferry_peers_tell_end (status) : "it hangs");
  other = join (transport, FERRY_ROLE_RECEIVER, &error);
  if (other != NULL && ferry_channel_verify (other, &error))
    statistics = ferry_channel_get_statistics (sender, &error);
  ferry_peers_report (statistics != NULL && statistics->senders == 1 && statistics->receivers == 2,
                      "%s: others join again, and who left meanwhile is gone: %s", transport,
                      error != NULL ? error->message : "yes");
}

int
main (int argc, char **argv)
{
  ferry_peers_setup (argc, argv);
  for (guint i = 0; i < G_N_ELEMENTS (transports); i++)
    {
      const char *transport = transports[i];
      g_autoptr (FerryChannel) sender = NULL;
      g_autoptr (FerryChannel) receiver = NULL;
      Closer closer = { transport, ferry_peers_share (4096, NULL) };
      pid_t closer_pid;
      pid_t victim;
      int status = 0;

      ferry_peers_enter (i);
      sender = join (transport, FERRY_ROLE_SENDER, NULL);
      receiver = join (transport, FERRY_ROLE_RECEIVER, NULL);
      closer_pid = ferry_peers_fork (close_cb, &closer);
      while (atomic_load (closer.phase) != 1)
        g_usleep (1000);
      victim = ferry_peers_fork (victim_cb, (gpointer) transport);
      if (waitpid (victim, &status, WUNTRACED) != victim || !WIFSTOPPED (status))
        {
          ferry_peers_report (FALSE, "%s: the victim did not stop: %s", transport, ferry_peers_tell_end (status));
          continue;
        }
      check_open_cancelled (transport);
      check_messages (transport, sender, receiver);
      atomic_store (closer.phase, 2);
      check_patience (transport, closer_pid);
      check_after (transport, sender, receiver, victim);
    }
  return ferry_peers_finish ();
}
