/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The shared hint of the head is more than a lap old, as a receiver was stopped between taking a message and storing it;
 * then a sender is stopped between claim and commit. What others send must pass all the same. */

#include "ferry-segment-private.h"
#include "kill-common.h"

#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>

#define CAPACITY (8)
/* More than a lap, however many slots there are for that capacity. */
#define MANY (8 * CAPACITY)
#define PATIENCE (20 * FERRY_PEERS_S)
/* A receiver that is not woken looks every 400 ms. */
#define PROMPT (2 * FERRY_PEERS_S)

static const char *const transports[] = { "posix-shm", "memfd" };

typedef enum
{
  PHASE_READY = 1,
  PHASE_CLAIM, /* the sender shall send once more */
  PHASE_END,
} Phase;

typedef struct
{
  const char *transport;
  _Atomic guint32 *phase; /* of one child */
} Child;

static FerryChannel *
join (const char *transport, FerryRole role)
{
  g_autoptr (GError) error = NULL;
  FerryChannel *channel
      = ferry_peers_open (transport, "stop-hint", role, &error, "codec", "raw", "capacity", CAPACITY, NULL);

  if (channel == NULL)
    g_printerr ("stop-hint: open: %s\n", error->message);
  return channel;
}

static void
wait_for (_Atomic guint32 *phase, guint32 value)
{
  for (gint64 end = g_get_monotonic_time () + PATIENCE; atomic_load (phase) < value && g_get_monotonic_time () < end;)
    g_usleep (500);
}

static gboolean
send_one (FerryChannel *channel, guint32 number)
{
  g_autoptr (GError) error = NULL;

  if (ferry_channel_send (channel, (const guint8 *) &number, sizeof number, PATIENCE, NULL, &error))
    return TRUE;
  g_printerr ("stop-hint: send: %s\n", error->message);
  return FALSE;
}

static gboolean
receive_one (FerryChannel *channel, guint32 number, gint64 timeout)
{
  g_autoptr (GError) error = NULL;
  g_autoptr (FerryBuffer) buffer = ferry_channel_receive (channel, timeout, NULL, &error);
  gsize size;

  if (buffer == NULL)
    {
      g_printerr ("stop-hint: receive: %s\n", error->message);
      return FALSE;
    }
  return *(const guint32 *) (gconstpointer) ferry_buffer_get_data (buffer, &size) == number && size == sizeof number;
}

/* Has taken its only message when it stops, and stores the hint of the head when it goes on. */
static int
receiver_cb (gpointer data)
{
  Child *self = data;
  g_autoptr (FerryChannel) channel = join (self->transport, FERRY_ROLE_RECEIVER);

  if (channel == NULL)
    return EXIT_FAILURE;
  ferry_step_arm ("take-emptied", 1, SIGSTOP);
  if (!receive_one (channel, 0, PATIENCE))
    return EXIT_FAILURE;
  atomic_store (self->phase, PHASE_READY);
  wait_for (self->phase, PHASE_END);
  return ferry_channel_close (channel, NULL) ? EXIT_SUCCESS : EXIT_FAILURE;
}

/* Sends two messages and stops at the second. */
static int
sender_cb (gpointer data)
{
  Child *self = data;
  g_autoptr (FerryChannel) channel = join (self->transport, FERRY_ROLE_SENDER);

  if (channel == NULL || !send_one (channel, 1))
    return EXIT_FAILURE;
  atomic_store (self->phase, PHASE_READY);
  wait_for (self->phase, PHASE_CLAIM);
  ferry_step_arm ("send-claimed", 1, SIGSTOP);
  if (!send_one (channel, 2))
    return EXIT_FAILURE;
  wait_for (self->phase, PHASE_END);
  return ferry_channel_close (channel, NULL) ? EXIT_SUCCESS : EXIT_FAILURE;
}

static gboolean
wait_stopped (pid_t pid)
{
  int status = 0;

  if (waitpid (pid, &status, WUNTRACED) == pid && WIFSTOPPED (status))
    return TRUE;
  g_printerr ("stop-hint: did not stop: %s\n", ferry_peers_tell_end (status));
  return FALSE;
}

static gboolean
pass_many (FerryChannel *sender, FerryChannel *receiver, guint at_a_time, guint n)
{
  for (guint32 i = 0; i < n; i += at_a_time)
    {
      for (guint32 j = i; j < i + at_a_time; j++)
        if (!send_one (sender, j))
          return FALSE;
      for (guint32 j = i; j < i + at_a_time; j++)
        if (!receive_one (receiver, j, PATIENCE))
          return FALSE;
    }
  return TRUE;
}

static gboolean
run (const char *transport, pid_t *pids)
{
  Child receiving = { transport, ferry_peers_share (4096, NULL) };
  Child sending = { transport, ferry_peers_share (4096, NULL) };
  g_autoptr (FerryChannel) sender = join (transport, FERRY_ROLE_SENDER);
  g_autoptr (FerryChannel) receiver = join (transport, FERRY_ROLE_RECEIVER);
  gboolean passed;

  /* A full ring first: a sender moves the hint itself when more messages wait than ever before. */
  if (sender == NULL || receiver == NULL || !pass_many (sender, receiver, CAPACITY, CAPACITY))
    return FALSE;
  pids[0] = ferry_peers_fork (receiver_cb, &receiving);
  if (!send_one (sender, 0) || !wait_stopped (pids[0]) || !pass_many (sender, receiver, 1, MANY))
    return FALSE;
  /* Both senders know a head of late, so that they have no need to look for it. */
  pids[1] = ferry_peers_fork (sender_cb, &sending);
  if (!receive_one (receiver, 1, PATIENCE))
    return FALSE;
  wait_for (sending.phase, PHASE_READY);
  kill (pids[0], SIGCONT);
  wait_for (receiving.phase, PHASE_READY);
  atomic_store (sending.phase, PHASE_CLAIM);
  if (!wait_stopped (pids[1]) || !send_one (sender, 3))
    return FALSE;
  passed = receive_one (receiver, 3, PROMPT);
  kill (pids[1], SIGCONT);
  passed = passed && receive_one (receiver, 2, PATIENCE);
  atomic_store (sending.phase, PHASE_END);
  atomic_store (receiving.phase, PHASE_END);
  for (guint i = 0; i < 2; i++)
    {
      int status = 0;
      gboolean ended = ferry_peers_wait (pids[i], PATIENCE, &status);

      passed = passed && ended && ferry_peers_ended_well (status);
      if (ended)
        pids[i] = 0;
    }
  return passed;
}

int
main (int argc, char **argv)
{
  ferry_peers_setup (argc, argv);
  for (guint i = 0; i < G_N_ELEMENTS (transports); i++)
    {
      pid_t pids[2] = { 0 };

      ferry_peers_enter (i);
      ferry_peers_report (run (transports[i], pids), "%s: a message passes a stopped sender though the hint is old",
                          transports[i]);
      for (guint k = 0; k < G_N_ELEMENTS (pids); k++)
        if (pids[k] > 0)
          {
            kill (pids[k], SIGKILL);
            kill (pids[k], SIGCONT);
            waitpid (pids[k], NULL, 0);
          }
    }
  return ferry_peers_finish ();
}
