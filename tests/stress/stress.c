/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Senders and receivers by fork and spawn, joining and leaving, with messages of all sizes: nothing is lost, doubled,
 * altered or out of order, and drops are accounted for. Each round has other settings, which follow from the seed. */

#include "ferry-peers.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define SENDERS_MAX (5)
#define RECEIVERS_MAX (5)
#define SESSIONS_MAX (3)
/* A key is a session of a sender. */
#define KEYS_MAX (SENDERS_MAX * SESSIONS_MAX + 1)
#define MESSAGES_MAX (1 << 15) /* of a key */
#define HELD_MAX (8)

#define TIME_DEFAULT (14 * FERRY_PEERS_S)
#define TIME_THOROUGH (600 * FERRY_PEERS_S)
#define ROUND_TIMEOUT (60 * FERRY_PEERS_S)
#define CALL_TIMEOUT (30 * FERRY_PEERS_S)
#define RECEIVE_TIMEOUT (50 * FERRY_PEERS_MS)
#define PAUSE_US (500)

typedef enum
{
  BY_FORK,
  BY_SPAWN,   /* an unrelated process that knows the name */
  BY_INHERIT, /* a fork child that goes on with its parent's channel */
  N_WAYS,
} Way;

typedef struct
{
  Way way;
  guint n_sessions;
  gboolean permanent; /* a receiver that is there from before the first message until after the last */
  gboolean polls;     /* receives by descriptor */
  guint64 seed;

  _Atomic guint32 ready;
  _Atomic guint32 done;
  _Atomic guint64 n_received;
  _Atomic guint64 n_dropped; /* what Ferry says a broadcast receiver missed */
  char error[500];
} Peer;

typedef struct
{
  _Atomic guint64 n_sent; /* those with a header: the last sequence */
  _Atomic guint64 n_tiny;
} Key;

typedef struct
{
  char transport[16];
  char name[64];
  FerryMode mode;
  FerryOverflow overflow;
  FerryWaitStrategy wait_strategy;
  guint capacity;
  guint64 max_bytes;
  guint history;
  guint inline_size;
  guint n_messages; /* of a session */
  gsize size_max;
  guint n_senders;
  guint n_receivers;
  Peer senders[SENDERS_MAX];
  Peer receivers[RECEIVERS_MAX];
  _Atomic guint32 senders_done;
  _Atomic guint32 over;
  _Atomic guint32 keeper_ready;
  char keeper_error[600];
  guint64 statistics_dropped;
  Key keys[KEYS_MAX];
  _Atomic guint64 n_tiny_received;
  _Atomic guint8 times[KEYS_MAX][MESSAGES_MAX]; /* a work queue's messages: how often received */
} Round;

static int round_fd;

static FerryChannel *
open_channel (Round *self, FerryRole role, GError **error)
{
  return ferry_peers_open (self->transport, self->name, role, error, "mode", self->mode, "overflow", self->overflow,
                           "wait-strategy", self->wait_strategy, "capacity", self->capacity, "max-bytes",
                           self->max_bytes, "history", self->history, "inline-size", self->inline_size, "codec", "raw",
                           NULL);
}

G_GNUC_PRINTF (2, 3)
static void
fail (Peer *peer, const char *format, ...)
{
  va_list args;

  va_start (args, format);
  g_vsnprintf (peer->error, sizeof peer->error, format, args);
  va_end (args);
  exit (EXIT_FAILURE);
}

static gsize
random_size (Round *self, FerryRandom *random)
{
  guint kind = ferry_random_below (random, 1000);
  gsize size;

  if (kind < 100)
    size = ferry_random_below (random, FERRY_PAYLOAD_HEADER);
  else if (kind < 650)
    size = FERRY_PAYLOAD_HEADER + ferry_random_below (random, 200);
  else if (kind < 930)
    size = ferry_random_below (random, 20000);
  else if (kind < 995)
    size = ferry_random_below (random, 400000);
  else
    size = ferry_random_below (random, (4 << 20) + 1);
  return MIN (size, self->size_max);
}

/* ---- senders ---- */

static gboolean
send_one (Round *self, FerryChannel *channel, guint key, guint32 sequence, gsize size, FerryRandom *random,
          GError **error)
{
  static guint8 *memory;

  switch (ferry_random_below (random, 3))
    {
    case 0:
      {
        g_autoptr (FerryBuffer) loan = ferry_channel_loan (channel, size, CALL_TIMEOUT, NULL, error);

        if (loan == NULL)
          return FALSE;
        /* A loan may also be given back, and another taken. */
        if (ferry_random_below (random, 8) == 0)
          {
            g_clear_pointer (&loan, ferry_buffer_unref);
            loan = ferry_channel_loan (channel, size, CALL_TIMEOUT, NULL, error);
            if (loan == NULL)
              return FALSE;
          }
        ferry_payload_fill (ferry_buffer_get_writable_data (loan, NULL), size, (guint16) key, sequence, 0);
        return ferry_channel_send_buffer (channel, loan, CALL_TIMEOUT, NULL, error);
      }
    case 1:
      {
        /* A loan of more than is needed in the end. */
        g_autoptr (FerryBuffer) loan = ferry_channel_loan (channel, size + 100, CALL_TIMEOUT, NULL, error);

        if (loan == NULL)
          return FALSE;
        ferry_payload_fill (ferry_buffer_get_writable_data (loan, NULL), size, (guint16) key, sequence, 0);
        ferry_buffer_set_size (loan, size);
        return ferry_channel_send_buffer (channel, loan, CALL_TIMEOUT, NULL, error);
      }
    default:
      if (memory == NULL)
        memory = g_malloc (self->size_max + 1);
      ferry_payload_fill (memory, size, (guint16) key, sequence, 0);
      return ferry_channel_send (channel, memory, size, CALL_TIMEOUT, NULL, error);
    }
}

static void
send_session (Round *self, Peer *peer, FerryChannel *channel, guint key, FerryRandom *random)
{
  guint32 sequence = 0;

  for (guint i = 0; i < self->n_messages; i++)
    {
      gsize size = random_size (self, random);
      gboolean tiny = size < FERRY_PAYLOAD_HEADER;
      g_autoptr (GError) error = NULL;

      while (!send_one (self, channel, key, sequence + !tiny, size, random, &error))
        {
          if (self->overflow != FERRY_OVERFLOW_ERROR || !g_error_matches (error, FERRY_ERROR, FERRY_ERROR_FULL))
            fail (peer, "send: %s", error->message);
          g_clear_error (&error);
          if (!ferry_channel_wait (channel, G_IO_OUT, 20 * FERRY_PEERS_MS, NULL, &error)
              && !g_error_matches (error, FERRY_ERROR, FERRY_ERROR_TIMED_OUT))
            fail (peer, "wait: %s", error->message);
          g_clear_error (&error);
        }
      sequence += !tiny;
      if (tiny)
        atomic_fetch_add (&self->keys[key].n_tiny, 1);
      atomic_store (&self->keys[key].n_sent, sequence);
      if (ferry_random_below (random, 50) == 0)
        g_usleep (ferry_random_below (random, 2000));
      if (ferry_random_below (random, 400) == 0)
        ferry_channel_trim (channel);
    }
}

static void
run_sender (Round *self, guint index, FerryChannel *inherited)
{
  Peer *peer = &self->senders[index];
  FerryRandom random;

  ferry_random_init (&random, peer->seed);
  for (guint session = 0; session < peer->n_sessions; session++)
    {
      g_autoptr (GError) error = NULL;
      FerryChannel *channel = inherited != NULL ? inherited : open_channel (self, FERRY_ROLE_SENDER, &error);

      inherited = NULL;
      if (channel == NULL)
        fail (peer, "open: %s", error->message);
      send_session (self, peer, channel, 1 + index * SESSIONS_MAX + session, &random);
      if (ferry_random_below (&random, 2) && !ferry_channel_close (channel, &error))
        fail (peer, "close: %s", error->message);
      g_object_unref (channel);
    }
  atomic_store (&peer->done, 1);
}

/* ---- receivers ---- */

typedef struct
{
  guint32 last[KEYS_MAX];
  guint64 next; /* position */
  guint64 n_received;
  guint64 n_gaps; /* positions missed */
  FerryBuffer *held[HELD_MAX];
} Session;

static FerryBuffer *
receive_by_descriptor (Peer *peer, FerryChannel *channel, GError **error)
{
  struct pollfd poll_fd = { .events = POLLIN };
  FerryBuffer *buffer = ferry_channel_receive (channel, FERRY_NO_WAIT, NULL, NULL);

  if (buffer != NULL)
    return buffer;
  poll_fd.fd = ferry_channel_get_fd (channel, error);
  if (poll_fd.fd < 0)
    return NULL;
  if (!(ferry_channel_check (channel, G_IO_IN) & G_IO_IN) && poll (&poll_fd, 1, RECEIVE_TIMEOUT / 1000) < 0
      && errno != EINTR)
    fail (peer, "poll: %s", g_strerror (errno));
  return ferry_channel_receive (channel, FERRY_NO_WAIT, NULL, error);
}

static void
take_in (Round *self, Peer *peer, Session *session, FerryBuffer *buffer, FerryRandom *random)
{
  gboolean broadcast = self->mode == FERRY_MODE_BROADCAST;
  guint64 position = ferry_buffer_get_sequence (buffer);
  guint place = ferry_random_below (random, HELD_MAX);
  guint16 key;
  guint16 tag;
  guint32 sequence;
  gsize size;
  const guint8 *data = ferry_buffer_get_data (buffer, &size);

  if (!ferry_payload_check (data, size, &key, &sequence, &tag) || key >= KEYS_MAX || sequence >= MESSAGES_MAX)
    fail (peer, "a message of %" G_GSIZE_FORMAT " bytes at position %" G_GUINT64_FORMAT " is not what was sent", size,
          position);
  session->n_received++;
  if (broadcast && session->next != G_MAXUINT64)
    {
      if (position < session->next)
        fail (peer, "position %" G_GUINT64_FORMAT " after %" G_GUINT64_FORMAT, position, session->next - 1);
      session->n_gaps += position - session->next;
      if (position != session->next && self->overflow != FERRY_OVERFLOW_DROP_OLDEST)
        fail (peer, "position %" G_GUINT64_FORMAT " is followed by %" G_GUINT64_FORMAT, session->next - 1, position);
    }
  session->next = position + 1;
  if (key != 0)
    {
      if (sequence <= session->last[key])
        fail (peer, "message %u of sender %u after its message %u", sequence, key, session->last[key]);
      if (broadcast && self->overflow <= FERRY_OVERFLOW_ERROR && sequence != session->last[key] + 1
          && (session->last[key] != 0 || peer->permanent))
        fail (peer, "message %u of sender %u after its message %u", sequence, key, session->last[key]);
      session->last[key] = sequence;
      if (!broadcast && atomic_fetch_add (&self->times[key][sequence], 1) != 0)
        fail (peer, "message %u of sender %u was received twice", sequence, key);
    }
  else if (!broadcast)
    {
      atomic_fetch_add (&self->n_tiny_received, 1);
    }
  /* A view is writable in a work queue, and nobody minds. */
  if (!broadcast && ferry_random_below (random, 16) == 0 && size > 0)
    {
      guint8 *writable = ferry_buffer_get_writable_data (buffer, NULL);

      if (writable == NULL)
        fail (peer, "the view of a work queue is not writable");
      memset (writable, 0xff, size);
    }

  g_clear_pointer (&session->held[place], ferry_buffer_unref);
  if (ferry_random_below (random, 2))
    session->held[place] = buffer;
  else
    ferry_buffer_unref (buffer);
}

static void
release_all (Session *session)
{
  for (guint i = 0; i < HELD_MAX; i++)
    g_clear_pointer (&session->held[i], ferry_buffer_unref);
}

/* What Ferry says that this receiver missed. */
static guint64
own_dropped (Peer *peer, FerryChannel *channel)
{
  g_autoptr (GError) error = NULL;
  g_autoptr (GPtrArray) list = ferry_channel_list_participants (channel, &error);

  if (list == NULL)
    fail (peer, "list: %s", error->message);
  for (guint i = 0; i < list->len; i++)
    {
      FerryParticipant *participant = g_ptr_array_index (list, i);

      if (participant->pid == getpid () && participant->role == FERRY_ROLE_RECEIVER)
        return participant->dropped;
    }
  fail (peer, "not among the participants");
  return 0;
}

static void
run_receiver (Round *self, guint index, FerryChannel *inherited)
{
  Peer *peer = &self->receivers[index];
  FerryRandom random;

  ferry_random_init (&random, peer->seed);
  for (guint i = 0; i < peer->n_sessions; i++)
    {
      g_autoptr (GError) error = NULL;
      FerryChannel *channel = inherited != NULL ? inherited : open_channel (self, FERRY_ROLE_RECEIVER, &error);
      Session session = { .next = G_MAXUINT64 };
      gboolean last = i + 1 == peer->n_sessions;
      guint n = last ? G_MAXUINT : 1 + ferry_random_below (&random, self->n_messages);

      inherited = NULL;
      if (channel == NULL)
        fail (peer, "open: %s", error->message);
      atomic_store (&peer->ready, 1);
      while (n > 0)
        {
          gboolean may_end = atomic_load (&self->senders_done) != 0;
          FerryBuffer *buffer = peer->polls ? receive_by_descriptor (peer, channel, &error)
                                            : ferry_channel_receive (channel, RECEIVE_TIMEOUT, NULL, &error);

          if (buffer == NULL)
            {
              if (!g_error_matches (error, FERRY_ERROR, FERRY_ERROR_TIMED_OUT)
                  && !g_error_matches (error, FERRY_ERROR, FERRY_ERROR_EMPTY))
                fail (peer, "receive: %s", error->message);
              g_clear_error (&error);
              /* Senders may wait for the memory that is held here. */
              release_all (&session);
              if (may_end)
                break;
              continue;
            }
          take_in (self, peer, &session, buffer, &random);
          n--;
        }
      atomic_fetch_add (&peer->n_received, session.n_received);
      if (self->mode == FERRY_MODE_BROADCAST)
        {
          guint64 dropped = own_dropped (peer, channel);

          /* What was missed before the first message is counted too, so this holds only one way. */
          if (dropped < session.n_gaps)
            fail (peer, "%" G_GUINT64_FORMAT " messages missed, %" G_GUINT64_FORMAT " accounted for", session.n_gaps,
                  dropped);
          atomic_fetch_add (&peer->n_dropped, dropped);
          if (peer->permanent && self->overflow <= FERRY_OVERFLOW_ERROR)
            for (guint key = 1; key < KEYS_MAX; key++)
              if (session.last[key] != atomic_load (&self->keys[key].n_sent))
                fail (peer, "of sender %u message %u was the last, not %u", key, session.last[key],
                      (guint) atomic_load (&self->keys[key].n_sent));
        }
      if (ferry_random_below (&random, 2))
        release_all (&session);
      if (!ferry_channel_close (channel, &error))
        fail (peer, "close: %s", error->message);
      release_all (&session);
      g_object_unref (channel);
    }
  atomic_store (&peer->done, 1);
}

/* ---- the keeper: makes the channel, and looks at it when all others have left ---- */

static int
keeper_cb (gpointer data)
{
  Round *self = data;
  g_autoptr (GError) error = NULL;
  g_autoptr (FerryChannel) channel = open_channel (self, FERRY_ROLE_SENDER, &error);
  g_autoptr (FerryStatistics) statistics = NULL;
  guint64 n_sent = 0;
  guint64 n_received = 0;

  if (channel == NULL)
    {
      g_snprintf (self->keeper_error, sizeof self->keeper_error, "open: %s", error->message);
      return EXIT_FAILURE;
    }
  atomic_store (&self->keeper_ready, 1);
  while (!atomic_load (&self->over))
    g_usleep (PAUSE_US);
  statistics = ferry_channel_get_statistics (channel, &error);
  if (statistics == NULL || !ferry_channel_verify (channel, &error))
    {
      g_snprintf (self->keeper_error, sizeof self->keeper_error, "%s", error->message);
      return EXIT_FAILURE;
    }
  for (guint key = 0; key < KEYS_MAX; key++)
    n_sent += atomic_load (&self->keys[key].n_sent) + atomic_load (&self->keys[key].n_tiny);
  for (guint i = 0; i < self->n_receivers; i++)
    n_received += atomic_load (&self->receivers[i].n_received);
  self->statistics_dropped = statistics->messages_dropped;

  if (statistics->messages_sent + (self->overflow == FERRY_OVERFLOW_DROP_NEWEST ? statistics->messages_dropped : 0)
      != n_sent)
    g_snprintf (self->keeper_error, sizeof self->keeper_error,
                "statistics say %" G_GUINT64_FORMAT " messages sent, %" G_GUINT64_FORMAT
                " dropped; it were %" G_GUINT64_FORMAT,
                statistics->messages_sent, statistics->messages_dropped, n_sent);
  else if (statistics->messages_received != n_received)
    g_snprintf (self->keeper_error, sizeof self->keeper_error,
                "statistics say %" G_GUINT64_FORMAT " messages received, it were %" G_GUINT64_FORMAT,
                statistics->messages_received, n_received);
  else if (self->mode == FERRY_MODE_WORK_QUEUE && n_sent != n_received + statistics->messages_dropped)
    g_snprintf (self->keeper_error, sizeof self->keeper_error,
                "%" G_GUINT64_FORMAT " messages sent, %" G_GUINT64_FORMAT " received, %" G_GUINT64_FORMAT " dropped",
                n_sent, n_received, statistics->messages_dropped);
  else if (statistics->in_flight != 0)
    g_snprintf (self->keeper_error, sizeof self->keeper_error, "%" G_GUINT64_FORMAT " messages in flight at the end",
                statistics->in_flight);
  else if (self->overflow <= FERRY_OVERFLOW_ERROR && statistics->messages_dropped != 0)
    g_snprintf (self->keeper_error, sizeof self->keeper_error,
                "%" G_GUINT64_FORMAT " messages dropped by nobody's wish", statistics->messages_dropped);
  for (guint i = 0; i < self->n_receivers && self->mode == FERRY_MODE_BROADCAST; i++)
    {
      Peer *peer = &self->receivers[i];
      guint64 got = peer->n_received;

      if (!peer->permanent)
        continue;
      if (self->overflow == FERRY_OVERFLOW_DROP_OLDEST)
        got += peer->n_dropped;
      if (self->overflow == FERRY_OVERFLOW_DROP_NEWEST)
        got += statistics->messages_dropped;
      if (got != n_sent)
        g_snprintf (self->keeper_error, sizeof self->keeper_error,
                    "receiver %u: %" G_GUINT64_FORMAT " of %" G_GUINT64_FORMAT " messages accounted for", i, got,
                    n_sent);
    }
  return self->keeper_error[0] == '\0' ? EXIT_SUCCESS : EXIT_FAILURE;
}

/* ---- processes ---- */

typedef struct
{
  Round *round;
  guint index;
  gboolean sends;
} PeerTask;

static int
peer_cb (gpointer data)
{
  PeerTask *task = data;
  Peer *peer = task->sends ? &task->round->senders[task->index] : &task->round->receivers[task->index];
  FerryChannel *inherited = NULL;
  guint n_fds;

  if (peer->way == BY_INHERIT)
    {
      g_autoptr (GError) error = NULL;
      pid_t pid;
      int status;

      inherited = open_channel (task->round, task->sends ? FERRY_ROLE_SENDER : FERRY_ROLE_RECEIVER, &error);
      if (inherited == NULL)
        fail (peer, "open: %s", error->message);
      fflush (NULL);
      pid = fork ();
      if (pid != 0)
        {
          ferry_channel_close (inherited, NULL);
          while (waitpid (pid, &status, 0) < 0 && errno == EINTR)
            ;
          g_object_unref (inherited);
          return ferry_peers_ended_well (status) ? EXIT_SUCCESS : EXIT_FAILURE;
        }
    }
  else
    {
      /* What a process opens once and keeps is open now. */
      g_autoptr (FerryChannel) channel = task->sends ? open_channel (task->round, FERRY_ROLE_SENDER, NULL) : NULL;
    }
  n_fds = ferry_peers_count_fds ();
  if (task->sends)
    run_sender (task->round, task->index, inherited);
  else
    run_receiver (task->round, task->index, inherited);
  /* Receivers and inheritors open some things for the first time above. */
  if (task->sends && inherited == NULL && ferry_peers_count_fds () > n_fds)
    fail (peer, "%u descriptors are open, %u were before", ferry_peers_count_fds (), n_fds);
  return EXIT_SUCCESS;
}

static pid_t
start (Round *self, gboolean sends, guint index)
{
  PeerTask task = { self, index, sends };
  Peer *peer = sends ? &self->senders[index] : &self->receivers[index];

  if (peer->way == BY_SPAWN)
    {
      g_autofree char *fd = g_strdup_printf ("%d", round_fd);
      g_autofree char *number = g_strdup_printf ("%u", index);

      return ferry_peers_spawn ((const char *[]){ fd, sends ? "send" : "receive", number, NULL });
    }
  return ferry_peers_fork (peer_cb, &task);
}

static gboolean
await (_Atomic guint32 *flag, gint64 end)
{
  while (!atomic_load (flag))
    {
      if (g_get_monotonic_time () > end)
        return FALSE;
      g_usleep (PAUSE_US);
    }
  return TRUE;
}

static void
plan_round (Round *self, guint number, FerryRandom *random, guint scale)
{
  static const guint capacities[] = { 1, 2, 3, 8, 64, 500 };
  static const FerryOverflow overflows[]
      = { FERRY_OVERFLOW_BLOCK, FERRY_OVERFLOW_BLOCK,       FERRY_OVERFLOW_BLOCK,
          FERRY_OVERFLOW_ERROR, FERRY_OVERFLOW_DROP_OLDEST, FERRY_OVERFLOW_DROP_NEWEST };

  memset (self, 0, sizeof *self);
  g_strlcpy (self->transport, number % 2 ? "memfd" : "posix-shm", sizeof self->transport);
  g_snprintf (self->name, sizeof self->name, "stress-%u", number);
  self->mode = number / 2 % 2 ? FERRY_MODE_BROADCAST : FERRY_MODE_WORK_QUEUE;
  self->overflow = overflows[ferry_random_below (random, G_N_ELEMENTS (overflows))];
  self->wait_strategy = ferry_random_below (random, 3) ? FERRY_WAIT_STRATEGY_ADAPTIVE : FERRY_WAIT_STRATEGY_SLEEP;
  self->capacity = capacities[ferry_random_below (random, G_N_ELEMENTS (capacities))];
  self->inline_size = ferry_random_below (random, 3) == 0 ? 64 + ferry_random_below (random, 3900) : 0;
  self->size_max = 4 << 20;
  if (ferry_random_below (random, 3) == 0)
    {
      self->max_bytes = (1 + ferry_random_below (random, 16)) << 20;
      /* What receivers hold and senders loan must leave room for one more. */
      self->size_max = self->max_bytes / 16;
    }
  if (self->mode == FERRY_MODE_BROADCAST && ferry_random_below (random, 2))
    self->history = ferry_random_below (random, 20);
  /* The history keeps its blocks: with the bound that is no room for ever. */
  if (self->max_bytes > 0)
    self->history = 0;
  self->n_senders = 1 + ferry_random_below (random, SENDERS_MAX);
  self->n_receivers = 1 + ferry_random_below (random, RECEIVERS_MAX);
  self->n_messages = (50 + ferry_random_below (random, 3000)) / scale / self->n_senders + 1;
  if (self->mode == FERRY_MODE_WORK_QUEUE)
    self->n_messages *= 3;
  for (guint i = 0; i < self->n_senders + self->n_receivers; i++)
    {
      Peer *peer = i < self->n_senders ? &self->senders[i] : &self->receivers[i - self->n_senders];

      peer->way = (Way) ferry_random_below (random, N_WAYS);
      peer->n_sessions = 1 + ferry_random_below (random, SESSIONS_MAX);
      peer->polls = ferry_random_below (random, 4) == 0;
      peer->seed = ferry_random_next (random);
    }
  /* One that hears everything. */
  self->receivers[0].way = ferry_random_below (random, 2) ? BY_FORK : BY_SPAWN;
  self->receivers[0].n_sessions = 1;
  self->receivers[0].permanent = TRUE;
}

static void
run_round (Round *self, guint number)
{
  pid_t keeper = ferry_peers_fork (keeper_cb, self);
  pid_t pids[SENDERS_MAX + RECEIVERS_MAX];
  gint64 end = g_get_monotonic_time () + ROUND_TIMEOUT;
  gint64 began = g_get_monotonic_time ();
  g_autoptr (GString) trouble = g_string_new (NULL);
  g_autoptr (GString) names = g_string_new (NULL);
  guint n = self->n_senders + self->n_receivers;
  guint64 n_sent = 0;
  int status;

  await (&self->keeper_ready, end);
  for (guint i = 0; i < self->n_receivers; i++)
    {
      pids[self->n_senders + i] = start (self, FALSE, i);
      if (self->receivers[i].permanent)
        await (&self->receivers[i].ready, g_get_monotonic_time () + 20 * FERRY_PEERS_S);
    }
  for (guint i = 0; i < self->n_senders; i++)
    pids[i] = start (self, TRUE, i);
  for (guint i = 0; i < n; i++)
    {
      Peer *peer = i < self->n_senders ? &self->senders[i] : &self->receivers[i - self->n_senders];
      gboolean in_time;

      if (i == self->n_senders)
        atomic_store (&self->senders_done, 1);
      in_time = ferry_peers_wait (pids[i], MAX (end - g_get_monotonic_time (), 0), &status);
      if (!in_time || !ferry_peers_ended_well (status) || !atomic_load (&peer->done))
        g_string_append_printf (trouble, "; %s %u: %s %s", i < self->n_senders ? "sender" : "receiver",
                                i < self->n_senders ? i : i - self->n_senders,
                                in_time ? ferry_peers_tell_end (status) : "hung", peer->error);
    }
  atomic_store (&self->over, 1);
  if (!ferry_peers_wait (keeper, 20 * FERRY_PEERS_S, &status) || !ferry_peers_ended_well (status))
    g_string_append_printf (trouble, "; %s %s", ferry_peers_tell_end (status), self->keeper_error);
  for (guint key = 1; key < KEYS_MAX; key++)
    {
      n_sent += self->keys[key].n_sent + self->keys[key].n_tiny;
      if (self->mode == FERRY_MODE_WORK_QUEUE && self->overflow <= FERRY_OVERFLOW_ERROR)
        for (guint32 sequence = 1; sequence <= self->keys[key].n_sent; sequence++)
          if (self->times[key][sequence] != 1)
            {
              g_string_append_printf (trouble, "; message %u of sender %u was received %u times", sequence, key,
                                      self->times[key][sequence]);
              break;
            }
    }
  if (ferry_peers_count_names (names) > 0)
    g_string_append_printf (trouble, "; names are left:%s", names->str);
  ferry_peers_report (
      trouble->len == 0,
      "%s, %s, overflow %d, capacity %u, history %u, max-bytes %" G_GUINT64_FORMAT
      ", %u senders, %u receivers: %" G_GUINT64_FORMAT " messages, %" G_GUINT64_FORMAT " dropped, %.2f s%s",
      self->transport, self->mode == FERRY_MODE_BROADCAST ? "broadcast" : "work queue", self->overflow, self->capacity,
      self->history, self->max_bytes, self->n_senders, self->n_receivers, n_sent, self->statistics_dropped,
      (double) (g_get_monotonic_time () - began) / FERRY_PEERS_S, trouble->str);
  ferry_peers_sweep_names ();
}

int
main (int argc, char **argv)
{
  FerryRandom random;
  Round *round;
  gint64 end;
  const char *only = g_getenv ("FERRY_STRESS_ROUND");

  ferry_peers_setup (argc, argv);
  if (argc == 4)
    {
      PeerTask task
          = { ferry_peers_map (atoi (argv[1]), sizeof (Round)), (guint) atoi (argv[3]), strcmp (argv[2], "send") == 0 };

      return peer_cb (&task);
    }

  ferry_random_init (&random, ferry_peers_seed ());
  round = ferry_peers_share (sizeof *round, &round_fd);
  end = g_get_monotonic_time () + (ferry_peers_is_thorough () ? TIME_THOROUGH : TIME_DEFAULT);
  for (guint number = 0; g_get_monotonic_time () < end; number++)
    {
      plan_round (round, number, &random, ferry_peers_is_sanitized () ? 4 : 1);
      if (only == NULL || atoi (only) == (int) number)
        run_round (round, number);
      if (only != NULL && (int) number > atoi (only))
        break;
    }
  return ferry_peers_finish ();
}
