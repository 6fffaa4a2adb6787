/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* What somebody who is stopped in the midst of a message holds up in a work queue.
 *
 * 1. The shared hint of the head is more than a lap old, as a receiver was stopped between taking a message and storing it;
 *    then a sender is stopped between claim and commit. What others send must pass all the same.
 * 2. A slot is in the hands of a stopped one. The others pass it, until the ring comes round to it: the rest of the
 *    capacity is theirs, then senders wait for room as in a full ring, and go on when it does. */

#include "ferry-segment-private.h"
#include "kill-common.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#define CAPACITY (8)
/* More than a lap, however many slots there are for that capacity. */
#define MANY (8 * CAPACITY)
#define PATIENCE (20 * FERRY_PEERS_S)
/* A receiver that is not woken looks every 400 ms. */
#define PROMPT (2 * FERRY_PEERS_S)
/* Time enough to see that a full ring is full. */
#define FULL (100 * FERRY_PEERS_MS)
/* Too large to be inline: its taker has the slot TAKEN for a while. */
#define LARGE (8192)

static const char *const transports[] = { "posix-shm", "memfd" };

typedef enum
{
  PHASE_READY = 1,
  PHASE_CLAIM, /* the sender shall send once more */
  PHASE_END,
} Phase;

/* Where a slot is WRITING or TAKEN. */
static const char *const slot_steps[] = { "send-claimed", "send-written", "take-taken", "take-owned" };

typedef struct
{
  const char *transport;
  const char *step;
  _Atomic guint32 *phase; /* of one child */
} Child;

static FerryChannel *
join (const char *transport, FerryRole role)
{
  g_autoptr (GError) error = NULL;
  FerryChannel *channel
      = ferry_peers_open (transport, "stop-ring", role, &error, "codec", "raw", "capacity", CAPACITY, NULL);

  if (channel == NULL)
    g_printerr ("stop-ring: open: %s\n", error->message);
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
  g_printerr ("stop-ring: send: %s\n", error->message);
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
      g_printerr ("stop-ring: receive: %s\n", error->message);
      return FALSE;
    }
  return *(const guint32 *) (gconstpointer) ferry_buffer_get_data (buffer, &size) == number && size == sizeof number;
}

static gboolean
send_large (FerryChannel *channel, guint8 number, gint64 timeout, GError **error)
{
  g_autofree guint8 *bytes = g_malloc (LARGE);

  memset (bytes, number, LARGE);
  return ferry_channel_send (channel, bytes, LARGE, timeout, NULL, error);
}

static gboolean
receive_large (FerryChannel *channel, guint8 number)
{
  g_autoptr (GError) error = NULL;
  g_autoptr (FerryBuffer) buffer = ferry_channel_receive (channel, PATIENCE, NULL, &error);
  const guint8 *bytes;
  gsize size;

  if (buffer == NULL)
    {
      g_printerr ("stop-ring: receive: %s\n", error->message);
      return FALSE;
    }
  bytes = ferry_buffer_get_data (buffer, &size);
  return size == LARGE && bytes[0] == number && bytes[LARGE - 1] == number;
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

/* One message of some size, in the midst of which it stops. */
static int
slot_cb (gpointer data)
{
  Child *self = data;
  gboolean sends = g_str_has_prefix (self->step, "send-");
  g_autoptr (FerryChannel) channel = join (self->transport, sends ? FERRY_ROLE_SENDER : FERRY_ROLE_RECEIVER);

  if (channel == NULL)
    return EXIT_FAILURE;
  ferry_step_arm (self->step, 1, SIGSTOP);
  if (!(sends ? send_large (channel, 0, PATIENCE, NULL) : receive_large (channel, 0)))
    return EXIT_FAILURE;
  return ferry_channel_close (channel, NULL) ? EXIT_SUCCESS : EXIT_FAILURE;
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
  Child receiving = { transport, NULL, ferry_peers_share (4096, NULL) };
  Child sending = { transport, NULL, ferry_peers_share (4096, NULL) };
  g_autoptr (FerryChannel) sender = join (transport, FERRY_ROLE_SENDER);
  g_autoptr (FerryChannel) receiver = join (transport, FERRY_ROLE_RECEIVER);
  gboolean passed;

  /* A full ring first: a sender moves the hint itself when more messages wait than ever before. */
  if (sender == NULL || receiver == NULL || !pass_many (sender, receiver, CAPACITY, CAPACITY))
    return FALSE;
  pids[0] = ferry_peers_fork (receiver_cb, &receiving);
  if (!send_one (sender, 0) || !kill_wait_stopped (pids[0]) || !pass_many (sender, receiver, 1, MANY))
    return FALSE;
  /* Both senders know a head of late, so that they have no need to look for it. */
  pids[1] = ferry_peers_fork (sender_cb, &sending);
  if (!receive_one (receiver, 1, PATIENCE))
    return FALSE;
  wait_for (sending.phase, PHASE_READY);
  kill (pids[0], SIGCONT);
  wait_for (receiving.phase, PHASE_READY);
  atomic_store (sending.phase, PHASE_CLAIM);
  if (!kill_wait_stopped (pids[1]) || !send_one (sender, 3))
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

static gboolean
run_slot (const char *transport, const char *step, pid_t *pid)
{
  Child child = { transport, step, NULL };
  g_autoptr (FerryChannel) sender = join (transport, FERRY_ROLE_SENDER);
  g_autoptr (FerryChannel) receiver = join (transport, FERRY_ROLE_RECEIVER);
  g_autoptr (GError) error = NULL;
  gboolean takes = g_str_has_prefix (step, "take-");
  int status = 0;

  if (sender == NULL || receiver == NULL)
    return FALSE;
  *pid = ferry_peers_fork (slot_cb, &child);
  if ((takes && !send_large (sender, 0, PATIENCE, NULL)) || !kill_wait_stopped (*pid))
    return FALSE;
  for (guint8 i = 1; i < CAPACITY; i++)
    if (!send_large (sender, i, PROMPT, NULL) || !receive_large (receiver, i))
      {
        g_printerr ("stop-ring: message %u of %d does not pass\n", i, CAPACITY - 1);
        return FALSE;
      }
  if (send_large (sender, CAPACITY, FULL, &error) || !g_error_matches (error, FERRY_ERROR, FERRY_ERROR_TIMED_OUT))
    {
      g_printerr ("stop-ring: the ring should be full: %s\n", error != NULL ? error->message : "message sent");
      return FALSE;
    }
  kill (*pid, SIGCONT);
  if (!takes && !receive_large (receiver, 0))
    return FALSE;
  if (!send_large (sender, CAPACITY, PATIENCE, NULL) || !receive_large (receiver, CAPACITY))
    return FALSE;
  if (!ferry_peers_wait (*pid, PATIENCE, &status))
    return FALSE;
  *pid = 0;
  return ferry_peers_ended_well (status);
}

int
main (int argc, char **argv)
{
  guint number = 0;

  ferry_peers_setup (argc, argv);
  for (guint i = 0; i < G_N_ELEMENTS (transports); i++)
    {
      pid_t pids[2] = { 0 };

      ferry_peers_enter (number++);
      ferry_peers_report (run (transports[i], pids), "%s: a message passes a stopped sender though the hint is old",
                          transports[i]);
      kill_end_all (pids, G_N_ELEMENTS (pids));
      for (guint k = 0; k < G_N_ELEMENTS (slot_steps); k++)
        {
          pid_t pid = 0;

          ferry_peers_enter (number++);
          ferry_peers_report (run_slot (transports[i], slot_steps[k], &pid),
                              "%s: others pass one that is stopped at %s, until the ring has come round to it",
                              transports[i], slot_steps[k]);
          kill_end_all (&pid, 1);
        }
    }
  return ferry_peers_finish ();
}
