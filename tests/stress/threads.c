/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Threads: several on one endpoint, several endpoints in one process, and close() while others are inside. */

#include "ferry-peers.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define THREADS (3)
#define MESSAGES (3000)
#define KEYS (2 * THREADS + 1)
#define ROUND_TIMEOUT (60 * FERRY_PEERS_S)
#define CALL_TIMEOUT (20 * FERRY_PEERS_S)

typedef struct
{
  const char *transport;
  FerryMode mode;
  gboolean share; /* one endpoint a role for all threads, or one each */
  guint n_messages;
  gboolean polls;
  FerryChannel *senders[THREADS];
  FerryChannel *receivers[THREADS];
  _Atomic guint8 *times; /* KEYS x n_messages */
  _Atomic guint64 n_received;
  _Atomic guint32 n_failed;
  _Atomic guint32 senders_left;
  char error[400];
} Round;

typedef struct
{
  Round *round;
  guint index;
} Task;

static void
fail (Round *self, const char *what, const GError *error)
{
  if (atomic_fetch_add (&self->n_failed, 1) == 0)
    g_snprintf (self->error, sizeof self->error, "%s: %s", what, error != NULL ? error->message : "");
}

static FerryChannel *
open_channel (Round *self, FerryRole role)
{
  g_autoptr (GError) error = NULL;
  FerryChannel *channel = ferry_peers_open (self->transport, "threads", role, &error, "mode", self->mode, "capacity", 8,
                                            "codec", "raw", NULL);

  if (channel == NULL)
    fail (self, "open", error);
  return channel;
}

static gpointer
send_thread (gpointer data)
{
  Task *task = data;
  Round *self = task->round;
  FerryChannel *channel = self->senders[self->share ? 0 : task->index];
  FerryRandom random;

  ferry_random_init (&random, ferry_peers_seed () + task->index);
  for (guint32 sequence = 0; sequence < self->n_messages && !atomic_load (&self->n_failed); sequence++)
    {
      gsize size = ferry_random_below (&random, 4) ? 16 + ferry_random_below (&random, 150)
                                                   : 201 + ferry_random_below (&random, 9000);
      g_autoptr (GError) error = NULL;
      gboolean ok;

      if (ferry_random_below (&random, 2))
        {
          g_autoptr (FerryBuffer) loan = ferry_channel_loan (channel, size, CALL_TIMEOUT, NULL, &error);

          ok = loan != NULL;
          if (ok)
            {
              ferry_payload_fill (ferry_buffer_get_writable_data (loan, NULL), size, (guint16) (task->index + 1),
                                  sequence, 0);
              ok = ferry_channel_send_buffer (channel, loan, CALL_TIMEOUT, NULL, &error);
            }
        }
      else
        {
          g_autofree guint8 *memory = g_malloc (size);

          ferry_payload_fill (memory, size, (guint16) (task->index + 1), sequence, 0);
          ok = ferry_channel_send (channel, memory, size, CALL_TIMEOUT, NULL, &error);
        }
      if (!ok)
        fail (self, "send", error);
    }
  if (atomic_fetch_sub (&self->senders_left, 1) == 1)
    for (guint i = 0; i < THREADS; i++)
      if (self->senders[i] != NULL)
        ferry_channel_end_of_stream (self->senders[i], NULL);
  return NULL;
}

static gpointer
receive_thread (gpointer data)
{
  Task *task = data;
  Round *self = task->round;
  FerryChannel *channel = self->receivers[self->share ? 0 : task->index];
  gint64 last[KEYS];
  FerryBuffer *held[4] = { NULL };
  FerryRandom random;

  memset (last, 0xff, sizeof last);
  ferry_random_init (&random, ferry_peers_seed () + 100 + task->index);
  while (!atomic_load (&self->n_failed))
    {
      g_autoptr (GError) error = NULL;
      FerryBuffer *buffer = NULL;
      guint place = ferry_random_below (&random, G_N_ELEMENTS (held));
      guint16 key;
      guint16 tag;
      guint32 sequence;
      gsize size;
      const guint8 *bytes;

      if (self->polls && !ferry_channel_wait (channel, G_IO_IN, 100 * FERRY_PEERS_MS, NULL, &error)
          && !g_error_matches (error, FERRY_ERROR, FERRY_ERROR_TIMED_OUT))
        fail (self, "wait", error);
      g_clear_error (&error);
      buffer = ferry_channel_receive (channel, self->polls ? FERRY_NO_WAIT : CALL_TIMEOUT, NULL, &error);
      if (buffer == NULL && self->polls && g_error_matches (error, FERRY_ERROR, FERRY_ERROR_EMPTY))
        continue;
      if (buffer == NULL)
        {
          if (!g_error_matches (error, FERRY_ERROR, FERRY_ERROR_END_OF_STREAM))
            fail (self, "receive", error);
          break;
        }
      bytes = ferry_buffer_get_data (buffer, &size);
      if (!ferry_payload_check (bytes, size, &key, &sequence, &tag) || key == 0 || key >= KEYS
          || sequence >= self->n_messages)
        {
          fail (self, "a message is not what was sent", NULL);
          break;
        }
      /* Between two threads of one endpoint the order is theirs to lose. */
      if ((gint64) sequence <= last[key])
        fail (self, "messages out of order", NULL);
      last[key] = sequence;
      atomic_fetch_add (&self->times[key * self->n_messages + sequence], 1);
      atomic_fetch_add (&self->n_received, 1);
      g_clear_pointer (&held[place], ferry_buffer_unref);
      if (ferry_random_below (&random, 2))
        held[place] = buffer;
      else
        ferry_buffer_unref (buffer);
    }
  for (guint i = 0; i < G_N_ELEMENTS (held); i++)
    g_clear_pointer (&held[i], ferry_buffer_unref);
  return NULL;
}

/* What a user's other threads may do any time. */
static gpointer
look_thread (gpointer data)
{
  Round *self = data;

  while (atomic_load (&self->senders_left) > 0 && !atomic_load (&self->n_failed))
    {
      g_autoptr (FerryStatistics) statistics = ferry_channel_get_statistics (self->receivers[0], NULL);
      g_autoptr (GPtrArray) list = ferry_channel_list_participants (self->senders[0], NULL);

      ferry_channel_trim (self->senders[0]);
      g_usleep (2000);
    }
  return NULL;
}

static void
run_round (Round *self)
{
  GThread *threads[2 * THREADS + 1];
  Task tasks[2 * THREADS];
  g_autoptr (GError) error = NULL;
  guint n_wrong = 0;
  guint want = self->mode == FERRY_MODE_BROADCAST && !self->share ? THREADS : 1;

  self->n_messages = MESSAGES / (ferry_peers_is_sanitized () ? 5 : 1);
  self->times = g_malloc0 (KEYS * self->n_messages);
  self->senders_left = THREADS;
  for (guint i = 0; i < (self->share ? 1 : THREADS); i++)
    {
      self->receivers[i] = open_channel (self, FERRY_ROLE_RECEIVER);
      self->senders[i] = open_channel (self, FERRY_ROLE_SENDER);
    }
  if (self->n_failed == 0)
    {
      for (guint i = 0; i < 2 * THREADS; i++)
        {
          tasks[i] = (Task){ self, i % THREADS };
          threads[i] = g_thread_new ("worker", i < THREADS ? receive_thread : send_thread, &tasks[i]);
        }
      threads[2 * THREADS] = g_thread_new ("look", look_thread, self);
      for (guint i = 0; i < G_N_ELEMENTS (threads); i++)
        g_thread_join (threads[i]);
      if (self->n_failed == 0 && !ferry_channel_verify (self->receivers[0], &error))
        fail (self, "verify", error);
      for (guint i = 1; i <= THREADS && self->n_failed == 0; i++)
        for (guint sequence = 0; sequence < self->n_messages; sequence++)
          n_wrong += self->times[i * self->n_messages + sequence] != want;
      if (n_wrong > 0)
        fail (self, "messages lost or doubled", NULL);
    }
  for (guint i = 0; i < THREADS; i++)
    {
      g_clear_object (&self->receivers[i]);
      g_clear_object (&self->senders[i]);
    }
  g_free ((gpointer) self->times);
}

static int
round_cb (gpointer data)
{
  Round *self = data;

  run_round (self);
  return self->n_failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

/* ---- close() while others are inside ---- */

typedef struct
{
  FerryChannel *channel;
  Round *round;
  gboolean sends;
  _Atomic guint32 started;
} Closing;

static gpointer
call_thread (gpointer data)
{
  Closing *self = data;
  guint8 payload[1000] = { 0 };

  atomic_fetch_add (&self->started, 1);
  for (guint i = 0;; i++)
    {
      g_autoptr (GError) error = NULL;
      g_autoptr (FerryBuffer) buffer = NULL;
      gboolean ok;

      if (self->sends)
        {
          ok = ferry_channel_send (self->channel, payload, i % 2 ? 10 : sizeof payload, FERRY_WAIT_FOREVER, NULL,
                                   &error);
        }
      else
        {
          buffer = ferry_channel_receive (self->channel, FERRY_WAIT_FOREVER, NULL, &error);
          ok = buffer != NULL;
        }
      if (ok)
        continue;
      if (!g_error_matches (error, FERRY_ERROR, FERRY_ERROR_CLOSED))
        fail (self->round, "a call during close()", error);
      return NULL;
    }
}

static int
close_cb (gpointer data)
{
  Round *self = data;
  FerryRandom random;
  guint n = ferry_peers_is_sanitized () ? 30 : 150;

  ferry_random_init (&random, ferry_peers_seed ());
  for (guint i = 0; i < n && self->n_failed == 0; i++)
    {
      g_autoptr (FerryChannel) sender = open_channel (self, FERRY_ROLE_SENDER);
      g_autoptr (FerryChannel) receiver = open_channel (self, FERRY_ROLE_RECEIVER);
      Closing closings[2] = { { sender, self, TRUE, 0 }, { receiver, self, FALSE, 0 } };
      GThread *threads[4];
      guint first = ferry_random_below (&random, 2);

      if (sender == NULL || receiver == NULL)
        break;
      for (guint j = 0; j < G_N_ELEMENTS (threads); j++)
        threads[j] = g_thread_new ("call", call_thread, &closings[j % 2]);
      while (atomic_load (&closings[0].started) + atomic_load (&closings[1].started) < G_N_ELEMENTS (threads))
        g_usleep (100);
      g_usleep (ferry_random_below (&random, 3000));
      /* The other end then waits for ever, if it is not closed either. */
      ferry_channel_close (closings[first].channel, NULL);
      g_usleep (ferry_random_below (&random, 1000));
      ferry_channel_close (closings[!first].channel, NULL);
      for (guint j = 0; j < G_N_ELEMENTS (threads); j++)
        g_thread_join (threads[j]);
    }
  return self->n_failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

int
main (int argc, char **argv)
{
  static const char *const transports[] = { "posix-shm", "memfd" };
  Round *round;

  ferry_peers_setup (argc, argv);
  round = ferry_peers_share (sizeof *round, NULL);
  for (guint i = 0; i < 18; i++)
    {
      g_autoptr (GString) names = g_string_new (NULL);
      gboolean closes = i >= 16;
      gboolean in_time;
      pid_t pid;
      int status;

      memset (round, 0, sizeof *round);
      round->transport = transports[i & 1];
      round->mode = i >> 1 & 1 ? FERRY_MODE_BROADCAST : FERRY_MODE_WORK_QUEUE;
      round->share = i >> 2 & 1;
      round->polls = i >> 3 & 1;
      if (closes)
        round->mode = FERRY_MODE_WORK_QUEUE;
      pid = ferry_peers_fork (closes ? close_cb : round_cb, round);
      in_time = ferry_peers_wait (pid, ROUND_TIMEOUT, &status);
      if (ferry_peers_count_names (names) > 0 && round->error[0] == '\0')
        g_snprintf (round->error, sizeof round->error, "names are left:%.300s", names->str);
      ferry_peers_sweep_names ();
      ferry_peers_report (in_time && ferry_peers_ended_well (status) && round->error[0] == '\0', "%s, %s, %s%s: %s %s",
                          round->transport, round->mode == FERRY_MODE_BROADCAST ? "broadcast" : "work queue",
                          closes         ? "close() during calls"
                          : round->share ? "threads share an endpoint"
                                         : "an endpoint a thread",
                          round->polls ? ", wait() first" : "", in_time ? ferry_peers_tell_end (status) : "hung",
                          round->error);
    }
  return ferry_peers_finish ();
}
