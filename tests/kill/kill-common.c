/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "kill-common.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>

/* No call of a survivor takes longer than that while the others live. */
#define CALL_TIMEOUT (4 * FERRY_PEERS_S)
#define START_TIMEOUT (10 * FERRY_PEERS_S)
#define END_TIMEOUT (10 * FERRY_PEERS_S)
#define PAUSE_US (300)
/* A pause that was so long shows that the machine is busy with other things; the survivors are given more by so much. */
#define STALL (20 * FERRY_PEERS_MS)
#define STALL_FACTOR (4)
/* Views that a survivor holds at a time. */
#define HELD_MAX (4)

KillLedger *
kill_ledger_new (void)
{
  KillLedger *self = ferry_peers_share (sizeof (KillLedger), NULL);

  self->n_keys = 1;
  return self;
}

void
kill_ledger_free (KillLedger *self)
{
  munmap (self, sizeof *self);
}

guint
kill_new_key (KillLedger *ledger)
{
  guint key = atomic_fetch_add (&ledger->n_keys, 1);

  g_assert (key < KILL_KEYS);
  return key;
}

FerryChannel *
kill_open (const KillChannel *channel, FerryRole role, FerryOverflow overflow, GError **error)
{
  return ferry_peers_open (channel->transport, channel->name, role, error, "mode", channel->mode, "overflow", overflow,
                           "capacity", channel->capacity, "max-bytes", channel->max_bytes, "history", channel->history,
                           "codec", "raw", NULL);
}

gsize
kill_random_size (FerryRandom *random, gboolean small_only)
{
  guint kind = ferry_random_below (random, 100);

  if (small_only || kind < 50)
    return FERRY_PAYLOAD_HEADER + ferry_random_below (random, 180);
  if (kind < 90)
    return 201 + ferry_random_below (random, 20000);
  return 20000 + ferry_random_below (random, 200000);
}

/* Sends the next message of the key and keeps the ledger. */
gboolean
kill_send (KillLedger *ledger, FerryChannel *channel, guint key, gsize size, gboolean loan, gint64 timeout,
           GError **error)
{
  guint32 sequence = atomic_load (&ledger->keys[key].sent) + 1;
  guint16 tag = (guint16) atomic_load (&ledger->epoch);
  gboolean ok;

  g_assert (sequence < KILL_SEQUENCES);
  atomic_store (&ledger->keys[key].trying, sequence);
  if (loan)
    {
      g_autoptr (FerryBuffer) buffer = ferry_channel_loan (channel, size, timeout, NULL, error);
      guint8 *data = buffer != NULL ? ferry_buffer_get_writable_data (buffer, NULL) : NULL;

      if (data == NULL)
        return FALSE;
      ferry_payload_fill (data, size, (guint16) key, sequence, tag);
      ok = ferry_channel_send_buffer (channel, buffer, timeout, NULL, error);
    }
  else
    {
      g_autofree guint8 *data = g_malloc (size);

      ferry_payload_fill (data, size, (guint16) key, sequence, tag);
      ok = ferry_channel_send (channel, data, size, timeout, NULL, error);
    }
  if (ok)
    atomic_store (&ledger->keys[key].sent, sequence);
  return ok;
}

/* Receives one message and keeps the ledger. A message that is wrong ends the process. */
static FerryBuffer *
receive (KillLedger *ledger, FerryChannel *channel, guint8 by, gint64 timeout, guint16 *key, guint32 *sequence,
         guint16 *tag, GError **error)
{
  FerryBuffer *buffer = ferry_channel_receive (channel, timeout, NULL, error);
  const guint8 *data;
  gsize size;

  if (buffer == NULL)
    return NULL;
  data = ferry_buffer_get_data (buffer, &size);
  if (!ferry_payload_check (data, size, key, sequence, tag) || *key == 0 || *key >= KILL_KEYS
      || *sequence >= KILL_SEQUENCES)
    {
      g_printerr ("kill: a message of %" G_GSIZE_FORMAT " bytes from sender %u is not what was sent\n", size,
                  ferry_buffer_get_sender (buffer));
      abort ();
    }
  if (atomic_fetch_or (&ledger->received[*key][*sequence], by) & by)
    atomic_fetch_add (by == KILL_BY_VICTIM ? &ledger->n_victim_duplicates : &ledger->n_duplicates, 1);
  return buffer;
}

FerryBuffer *
kill_receive (KillLedger *ledger, FerryChannel *channel, guint8 by, gint64 timeout, GError **error)
{
  guint16 key;
  guint16 tag;
  guint32 sequence;

  return receive (ledger, channel, by, timeout, &key, &sequence, &tag, error);
}

/* ---- survivors ---- */

typedef struct
{
  KillLedger *ledger;
  const KillChannel *channel;
  guint index;
} Survivor;

static void
note_epoch (KillSurvivor *record, guint32 epoch)
{
  atomic_fetch_add (&record->n_messages, 1);
  if (atomic_load (&record->epoch_done) >= epoch)
    return;
  atomic_store (&record->epoch_time, g_get_monotonic_time ());
  atomic_store (&record->epoch_done, epoch);
}

static int
give_up (KillSurvivor *record, const char *what, GError *error)
{
  g_snprintf (record->error, sizeof record->error, "%s: %s", what, error != NULL ? error->message : "");
  return EXIT_FAILURE;
}

static int
send_cb (gpointer data)
{
  Survivor *self = data;
  KillLedger *ledger = self->ledger;
  KillSurvivor *record = &ledger->survivors[self->index];
  g_autoptr (GError) error = NULL;
  g_autoptr (FerryChannel) channel = kill_open (self->channel, FERRY_ROLE_SENDER, self->channel->overflow, &error);
  FerryRandom random;
  guint key = kill_new_key (ledger);

  if (channel == NULL)
    return give_up (record, "a sender can't open", error);
  ferry_random_init (&random, ferry_peers_seed () ^ (key * 7919u) ^ (guint64) getpid ());
  while (atomic_load (&ledger->phase) == KILL_PHASE_RUN)
    {
      guint32 epoch = atomic_load (&ledger->epoch);

      if (atomic_load (&ledger->keys[key].sent) + 2 < KILL_SEQUENCES)
        {
          if (!kill_send (ledger, channel, key, kill_random_size (&random, self->channel->small_only),
                          ferry_random_below (&random, 2), CALL_TIMEOUT, &error))
            return give_up (record, "a sender can't send", error);
          note_epoch (record, epoch);
          atomic_store (&record->ready, 1);
        }
      if (self->channel->pace > 0)
        g_usleep (ferry_random_below (&random, self->channel->pace));
    }
  if (!ferry_channel_end_of_stream (channel, &error))
    return give_up (record, "a sender can't end its stream", error);
  atomic_store (&record->done, 1);
  while (atomic_load (&ledger->phase) != KILL_PHASE_CLOSE)
    g_usleep (PAUSE_US);
  return EXIT_SUCCESS;
}

static int
receive_cb (gpointer data)
{
  Survivor *self = data;
  KillLedger *ledger = self->ledger;
  KillSurvivor *record = &ledger->survivors[self->index];
  guint8 by = (guint8) (1 << (self->index - self->channel->n_senders));
  g_autoptr (GError) error = NULL;
  g_autoptr (FerryChannel) channel = kill_open (self->channel, FERRY_ROLE_RECEIVER, FERRY_OVERFLOW_BLOCK, &error);
  g_autofree guint32 *last = g_new0 (guint32, KILL_KEYS);
  FerryBuffer *held[HELD_MAX] = { NULL };
  gboolean broadcast = self->channel->mode == FERRY_MODE_BROADCAST;
  gboolean may_miss = self->channel->overflow == FERRY_OVERFLOW_DROP_OLDEST;
  FerryRandom random;
  guint64 next = G_MAXUINT64;
  gboolean verify = self->index == self->channel->n_senders;

  if (channel == NULL)
    return give_up (record, "a receiver can't open", error);
  ferry_random_init (&random, ferry_peers_seed () ^ (guint64) getpid ());
  atomic_store (&record->ready, 1);
  for (;;)
    {
      FerryBuffer *buffer;
      guint16 key;
      guint16 tag;
      guint32 sequence;
      guint place = ferry_random_below (&random, HELD_MAX);

      buffer = receive (ledger, channel, by, CALL_TIMEOUT, &key, &sequence, &tag, &error);
      if (buffer == NULL && g_error_matches (error, FERRY_ERROR, FERRY_ERROR_END_OF_STREAM))
        break;
      if (buffer == NULL)
        return give_up (record, "a receiver can't receive", error);
      /* A message whose first taker died with it in hand may come after later ones. */
      if (broadcast && sequence <= last[key])
        return give_up (record, "a receiver got messages out of order", NULL);
      if (broadcast && !may_miss && last[key] != 0 && sequence != last[key] + 1)
        return give_up (record, "a broadcast receiver missed a message", NULL);
      if (broadcast && next != G_MAXUINT64 && ferry_buffer_get_sequence (buffer) < next)
        return give_up (record, "positions go backwards", NULL);
      next = ferry_buffer_get_sequence (buffer) + 1;
      last[key] = sequence;
      note_epoch (record, tag);

      g_clear_pointer (&held[place], ferry_buffer_unref);
      if (ferry_random_below (&random, 2))
        held[place] = buffer;
      else
        ferry_buffer_unref (buffer);
      if (self->channel->pace > 0 && ferry_random_below (&random, 8) == 0)
        g_usleep (ferry_random_below (&random, self->channel->pace));
    }
  for (guint i = 0; i < HELD_MAX; i++)
    g_clear_pointer (&held[i], ferry_buffer_unref);
  atomic_store (&record->done, 1);

  /* The last thing before the end, when all others are at rest. */
  while (atomic_load (&ledger->phase) != KILL_PHASE_CLOSE)
    {
      gboolean rest = TRUE;

      for (guint i = 0; i < self->channel->n_senders + self->channel->n_receivers; i++)
        rest &= atomic_load (&ledger->survivors[i].done) != 0;
      if (rest && verify)
        {
          g_clear_error (&error);
          if (!ferry_channel_verify (channel, &error))
            return give_up (record, "verify", error);
          atomic_store (&record->done, 2);
          verify = FALSE;
        }
      g_usleep (PAUSE_US);
    }
  return EXIT_SUCCESS;
}

static gboolean
wait_for_all (KillLedger *ledger, const KillChannel *channel, size_t field, gint64 timeout, const pid_t *pids)
{
  gint64 end = g_get_monotonic_time () + timeout;

  for (;;)
    {
      gboolean all = TRUE;

      for (guint i = 0; i < channel->n_senders + channel->n_receivers; i++)
        {
          siginfo_t info = { 0 };

          all &= atomic_load ((_Atomic guint32 *) (void *) ((guint8 *) &ledger->survivors[i] + field)) != 0;
          if (waitid (P_PID, (id_t) pids[i], &info, WEXITED | WNOHANG | WNOWAIT) == 0 && info.si_pid != 0)
            return FALSE;
        }
      if (all)
        return TRUE;
      if (g_get_monotonic_time () > end)
        return FALSE;
      g_usleep (PAUSE_US);
    }
}

static void
tell_errors (KillLedger *ledger, const KillChannel *channel, GString *trouble)
{
  for (guint i = 0; i < channel->n_senders + channel->n_receivers; i++)
    if (ledger->survivors[i].error[0] != '\0')
      g_string_append_printf (trouble, "; survivor %u: %s", i, ledger->survivors[i].error);
}

/* Starts the survivors and waits until each is at work. */
gboolean
kill_start (KillLedger *ledger, const KillChannel *channel, pid_t *pids, GString *trouble)
{
  /* Receivers first: in broadcast they see everything then. */
  for (guint n = channel->n_senders + channel->n_receivers; n-- > 0;)
    {
      Survivor survivor = { ledger, channel, n };

      pids[n] = ferry_peers_fork (n < channel->n_senders ? send_cb : receive_cb, &survivor);
      atomic_store (&ledger->survivors[n].pid, pids[n]);
      if (n == channel->n_senders)
        for (gint64 end = g_get_monotonic_time () + START_TIMEOUT; g_get_monotonic_time () < end;)
          {
            gboolean all = TRUE;

            for (guint i = n; i < channel->n_senders + channel->n_receivers; i++)
              all &= atomic_load (&ledger->survivors[i].ready) != 0;
            if (all)
              break;
            g_usleep (PAUSE_US);
          }
    }
  if (wait_for_all (ledger, channel, G_STRUCT_OFFSET (KillSurvivor, ready), START_TIMEOUT, pids))
    return TRUE;
  g_string_append (trouble, "; the survivors did not start");
  tell_errors (ledger, channel, trouble);
  return FALSE;
}

/*
 * kill_check_prompt: after a death.
 *
 * Each survivor must send, or receive, a message whose sending began from now on within a second. How long the slowest took in
 * microseconds, or -1.
 */
gint64
kill_check_prompt (KillLedger *ledger, const KillChannel *channel, GString *trouble)
{
  guint32 epoch = atomic_fetch_add (&ledger->epoch, 1) + 1;
  gint64 began = g_get_monotonic_time ();
  gint64 limit = KILL_PROMPT * (ferry_peers_is_sanitized () ? 4 : 1);
  gint64 slowest = 0;
  gint64 last_look = began;

  for (guint i = 0; i < channel->n_senders + channel->n_receivers; i++)
    {
      KillSurvivor *record = &ledger->survivors[i];

      while (atomic_load (&record->epoch_done) < epoch && record->error[0] == '\0')
        {
          gint64 now = g_get_monotonic_time ();

          /* When this process waits for a processor, so do they. */
          if (now - last_look > STALL)
            limit += STALL_FACTOR * (now - last_look);
          last_look = now;
          if (now - began > limit)
            {
              g_string_append_printf (trouble, "; survivor %u (%s) did nothing new for %g s", i,
                                      i < channel->n_senders ? "sender" : "receiver", (double) limit / FERRY_PEERS_S);
              break;
            }
          g_usleep (PAUSE_US);
        }
      if (atomic_load (&record->epoch_done) < epoch)
        {
          tell_errors (ledger, channel, trouble);
          return -1;
        }
      slowest = MAX (slowest, atomic_load (&record->epoch_time) - began);
    }
  return slowest;
}

static void
check_ledger (KillLedger *ledger, const KillChannel *channel, guint n_may_be_lost, GString *trouble)
{
  gboolean broadcast = channel->mode == FERRY_MODE_BROADCAST;
  guint8 all = (guint8) ((1 << channel->n_receivers) - 1);
  guint n_lost = 0;
  /* Victims are many behind one bit; in broadcast, and with history, each may get everything. */
  guint n_twice = atomic_load (&ledger->n_duplicates) + (broadcast ? 0 : atomic_load (&ledger->n_victim_duplicates));
  guint n_invented = 0;

  for (guint key = 1; key < MIN (atomic_load (&ledger->n_keys), KILL_KEYS); key++)
    {
      guint32 sent = atomic_load (&ledger->keys[key].sent);
      guint32 trying = atomic_load (&ledger->keys[key].trying);

      for (guint32 sequence = 1; sequence <= trying + 1 && sequence < KILL_SEQUENCES; sequence++)
        {
          guint8 by = atomic_load (&ledger->received[key][sequence]);

          if (sequence <= sent && (broadcast ? (by & all) != all : by == 0))
            n_lost++;
          if (sequence > trying && by != 0)
            n_invented++;
          if (!broadcast && (by & (by - 1)) != 0)
            n_twice++;
          /* The message of a sender that died with it in hand arrives everywhere or nowhere. */
          if (broadcast && sequence > sent && (by & all) != 0 && (by & all) != all
              && channel->overflow != FERRY_OVERFLOW_DROP_OLDEST)
            n_lost++;
        }
    }
  if (channel->overflow == FERRY_OVERFLOW_BLOCK && n_lost > n_may_be_lost)
    g_string_append_printf (trouble, "; %u messages lost, at most %u may be", n_lost, n_may_be_lost);
  if (n_twice > 0)
    g_string_append_printf (trouble, "; %u messages received twice", n_twice);
  if (n_invented > 0)
    g_string_append_printf (trouble, "; %u messages received that nobody sent", n_invented);
}

/* Lets the survivors drain the channel, verify it and leave; then looks at the ledger and for names. The caller has called
 * ferry_peers_enter(). */
void
kill_end (KillLedger *ledger, const KillChannel *channel, const pid_t *pids, guint n_may_be_lost, GString *trouble)
{
  g_autoptr (GString) names = g_string_new (NULL);
  guint n = channel->n_senders + channel->n_receivers;
  gboolean drained;
  guint n_names = 0;

  atomic_store (&ledger->phase, KILL_PHASE_DRAIN);
  drained = wait_for_all (ledger, channel, G_STRUCT_OFFSET (KillSurvivor, done), END_TIMEOUT, pids);
  if (!drained)
    {
      g_string_append (trouble, "; the channel can't be drained:");
      for (guint i = 0; i < n; i++)
        if (!atomic_load (&ledger->survivors[i].done))
          g_string_append_printf (trouble, " survivor %u", i);
    }
  for (gint64 end = g_get_monotonic_time () + END_TIMEOUT;
       drained && atomic_load (&ledger->survivors[channel->n_senders].done) != 2
       && ledger->survivors[channel->n_senders].error[0] == '\0' && g_get_monotonic_time () < end;)
    g_usleep (PAUSE_US);
  if (drained && atomic_load (&ledger->survivors[channel->n_senders].done) != 2)
    g_string_append (trouble, "; not verified");
  atomic_store (&ledger->phase, KILL_PHASE_CLOSE);
  for (guint i = 0; i < n; i++)
    {
      int status;
      gboolean in_time = ferry_peers_wait (pids[i], END_TIMEOUT, &status);

      if (!in_time || !ferry_peers_ended_well (status))
        g_string_append_printf (trouble, "; survivor %u %s: %s", i, in_time ? "ended" : "hung",
                                ferry_peers_tell_end (status));
    }
  tell_errors (ledger, channel, trouble);
  if (trouble->len == 0)
    check_ledger (ledger, channel, n_may_be_lost, trouble);

  n_names = ferry_peers_count_names (names);
  if (n_names > 0)
    g_string_append_printf (trouble, "; names are left:%s", names->str);
}

/* Survivors that kill_end() has not seen off. */
void
kill_abandon (const pid_t *pids)
{
  for (guint i = 0; i < KILL_SURVIVORS_MAX; i++)
    if (pids[i] > 0)
      kill (pids[i], SIGKILL);
}

/* ---- cases ---- */

typedef struct
{
  const KillCases *cases;
  guint index;
  guint place;
} Job;

static gconstpointer
get_case (const KillCases *cases, guint index)
{
  return (const guint8 *) cases->cases + index * cases->case_size;
}

static gpointer
get_result (const KillCases *cases, guint index)
{
  return (guint8 *) cases->results + index * cases->result_size;
}

static int
case_cb (gpointer data)
{
  Job *job = data;

  job->cases->run (get_case (job->cases, job->index), job->place, get_result (job->cases, job->index));
  return EXIT_SUCCESS;
}

void
kill_run_cases (const KillCases *cases)
{
  g_autofree pid_t *pids = g_new0 (pid_t, cases->at_once);
  g_autofree guint *which = g_new0 (guint, cases->at_once);
  g_autofree gint64 *started = g_new0 (gint64, cases->at_once);
  guint next = 0;
  guint n_running = 0;

  while (next < cases->n_cases || n_running > 0)
    {
      for (guint i = 0; i < cases->at_once; i++)
        {
          char *trouble;
          int status;

          if (pids[i] == 0 && next < cases->n_cases)
            {
              Job job = { cases, next, i };

              which[i] = next++;
              started[i] = g_get_monotonic_time ();
              pids[i] = ferry_peers_fork (case_cb, &job);
              n_running++;
            }
          if (pids[i] == 0)
            continue;
          trouble = get_result (cases, which[i]);
          if (waitpid (pids[i], &status, WNOHANG) == 0)
            {
              if (g_get_monotonic_time () - started[i] < cases->timeout)
                continue;
              kill (pids[i], SIGKILL);
              waitpid (pids[i], &status, 0);
              g_strlcpy (trouble, "; it hung", KILL_TROUBLE_MAX);
            }
          else if (!ferry_peers_ended_well (status))
            {
              g_snprintf (trouble, KILL_TROUBLE_MAX, "; its process: %s", ferry_peers_tell_end (status));
            }
          if (cases->ended != NULL)
            cases->ended (which[i], get_case (cases, which[i]), get_result (cases, which[i]), cases->data);
          pids[i] = 0;
          n_running--;
        }
      g_usleep (1000);
    }
}

/* Ends those that are left, stopped ones too. 0: none. */
void
kill_end_all (pid_t *pids, guint n)
{
  for (guint i = 0; i < n; i++)
    if (pids[i] > 0)
      {
        kill (pids[i], SIGKILL);
        waitpid (pids[i], NULL, 0);
      }
}

gboolean
kill_wait_stopped (pid_t pid)
{
  int status = 0;

  if (waitpid (pid, &status, WUNTRACED) == pid && WIFSTOPPED (status))
    return TRUE;
  g_printerr ("kill: a process did not stop: %s\n", ferry_peers_tell_end (status));
  return FALSE;
}
