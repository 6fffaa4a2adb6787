/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* What ferry-bench measures of channels. The parent never touches the library: it
 * forks, and each process opens its end of the channel by itself. */

#include "ferry-bench-channel.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#define MIN_CAPACITY 2    /* messages */
#define MAX_CAPACITY 1024 /* messages; the 64 KiB of a pipe hold as many of 64 bytes */
#define IN_FLIGHT_TARGET                                                                                               \
  (4 * 1024 * 1024) /* bytes; more would leave the caches, and the memory when messages are large */
#define SWEEP_TIME_LIMIT (20 * G_TIME_SPAN_SECOND)
#define OPENING_TIME_LIMIT (120 * G_TIME_SPAN_SECOND)
#define HUGE_TIME_LIMIT (600 * G_TIME_SPAN_SECOND)
#define IDLE_SETTLE_TIME (500 * G_TIME_SPAN_MILLISECOND)
#define LOAN_BATCH 64    /* messages between readings of the clock */
#define SMALL_MESSAGE 64 /* bytes */
#define MAX_TRANSPORTS 32
#define MAX_TRANSPORT_NAME 64 /* bytes */

guint
bench_channel_choose_capacity (gsize size)
{
  return (guint) CLAMP (IN_FLIGHT_TARGET / MAX (size, 1), MIN_CAPACITY, MAX_CAPACITY);
}

static char *
make_name (void)
{
  static guint counter;

  return g_strdup_printf ("ferry-bench-%d-%u", getpid (), counter++);
}

static FerryChannel *
open_channel (const BenchChannel *self, const char *name, FerryRole role, GError **error)
{
  g_autoptr (FerryChannel) channel = ferry_channel_new (self->transport, name, role);

  g_object_set (channel, "mode", self->load.broadcast ? FERRY_MODE_BROADCAST : FERRY_MODE_WORK_QUEUE, "capacity",
                self->capacity > 0 ? self->capacity : bench_channel_choose_capacity (self->load.size), "wait-strategy",
                self->wait, NULL);
  if (!ferry_channel_open (channel, NULL, error))
    return NULL;
  return g_steal_pointer (&channel);
}

static gboolean
is_end_of_stream (GError *error)
{
  return g_error_matches (error, FERRY_ERROR, FERRY_ERROR_END_OF_STREAM);
}

/* Removing what killed processes left, in a process of its own */

typedef struct
{
  const char *transport;
  char **names;
} Sweep;

static gboolean
sweep_work (BenchArena *arena, guint index, gpointer data, GError **error)
{
  Sweep *self = data;
  g_autoptr (FerryTransport) transport
      = ferry_registry_create_transport (ferry_registry_get_default (), self->transport, error);

  bench_ready (arena);
  if (transport == NULL)
    return FALSE;
  for (guint i = 0; self->names[i] != NULL; i++)
    ferry_transport_sweep_channel (transport, self->names[i], NULL);
  return TRUE;
}

static BenchArena *
run_channel (const BenchChannel *self, const BenchRun *run, char **names, GError **error)
{
  BenchArena *arena = bench_run (run, error);

  if (arena == NULL)
    {
      Sweep sweep = { .transport = self->transport, .names = names };
      BenchRun sweep_run = {
        .n_processes = 1,
        .func = sweep_work,
        .data = &sweep,
        .ignore_signals = TRUE,
        .time_limit = SWEEP_TIME_LIMIT,
      };

      bench_arena_free (bench_run (&sweep_run, NULL));
    }
  return arena;
}

/* Throughput */

typedef struct
{
  const BenchChannel *channel;
  const char *name;
} Stream;

static void
write_payload (guint8 *data, gsize size)
{
  memset (data, (int) size, size);
}

static guint64
read_payload (const guint8 *data, gsize size)
{
  guint64 sum = 0;
  guint64 word;

  for (gsize i = 0; i + sizeof word <= size; i += sizeof word)
    {
      memcpy (&word, data + i, sizeof word);
      sum += word;
    }
  return sum;
}

static gboolean
send_loan (Stream *self, FerryChannel *channel, GError **error)
{
  gsize size = self->channel->load.size;
  g_autoptr (FerryBuffer) buffer = ferry_channel_loan (channel, size, FERRY_WAIT_FOREVER, NULL, error);

  if (buffer == NULL)
    return FALSE;
  if (self->channel->touch)
    write_payload (ferry_buffer_get_writable_data (buffer, NULL), size);
  return ferry_channel_send_buffer (channel, buffer, FERRY_WAIT_FOREVER, NULL, error);
}

static gboolean
stream_send (Stream *self, BenchArena *arena, GError **error)
{
  g_autoptr (FerryChannel) channel = NULL;
  const BenchLoad *load = &self->channel->load;
  guint8 *data = bench_alloc_warm (load->size);

  if (data == NULL)
    return bench_fail (error, "mmap");
  channel = open_channel (self->channel, self->name, FERRY_ROLE_SENDER, error);
  if (channel == NULL)
    return FALSE;

  bench_ready (arena);
  while (bench_arena_get_phase (arena) < BENCH_PHASE_STOP)
    {
      if (self->channel->loan)
        {
          if (!send_loan (self, channel, error))
            return FALSE;
          continue;
        }
      if (self->channel->touch)
        write_payload (data, load->size);
      if (!ferry_channel_send (channel, data, load->size, FERRY_WAIT_FOREVER, NULL, error))
        return FALSE;
    }
  return ferry_channel_end_of_stream (channel, error) && ferry_channel_close (channel, error);
}

static gboolean
stream_receive (Stream *self, BenchArena *arena, guint index, GError **error)
{
  g_autoptr (FerryChannel) channel = open_channel (self->channel, self->name, FERRY_ROLE_RECEIVER, error);
  g_autoptr (GError) local_error = NULL;
  FerryBuffer *buffer;
  BenchMeter meter;
  guint64 sum = 0;

  if (channel == NULL)
    return FALSE;

  bench_meter_init (&meter, arena, index, self->channel->load.messages);
  bench_ready (arena);
  while ((buffer = ferry_channel_receive (channel, FERRY_WAIT_FOREVER, NULL, &local_error)) != NULL)
    {
      if (self->channel->touch)
        {
          gsize size;
          const guint8 *data = ferry_buffer_get_data (buffer, &size);

          sum += read_payload (data, size);
        }
      ferry_buffer_unref (buffer);
      bench_meter_tick (&meter);
    }
  /* The sum is wanted, though nobody reads it. */
  __asm__ volatile("" : : "r"(sum));
  if (!is_end_of_stream (local_error))
    {
      g_propagate_error (error, g_steal_pointer (&local_error));
      return FALSE;
    }
  return ferry_channel_close (channel, error);
}

static gboolean
stream_work (BenchArena *arena, guint index, gpointer data, GError **error)
{
  Stream *self = data;

  if (index < self->channel->load.senders)
    return stream_send (self, arena, error);
  return stream_receive (self, arena, index, error);
}

/* Messages a second that the receivers take together. */
gboolean
bench_channel_throughput (const BenchChannel *self, double *rate, GError **error)
{
  g_autoptr (BenchArena) arena = NULL;
  g_autofree char *name = make_name ();
  Stream stream = { .channel = self, .name = name };
  char *names[] = { name, NULL };
  BenchRun run;

  bench_load_init_run (&self->load, &run);
  run.func = stream_work;
  run.data = &stream;
  /* Every block that may be in flight shall have been touched once. */
  run.warm_up_messages
      += 2 * (guint64) (self->capacity > 0 ? self->capacity : bench_channel_choose_capacity (self->load.size));
  arena = run_channel (self, &run, names, error);
  if (arena == NULL)
    return FALSE;
  *rate = bench_arena_get_rate (arena);
  return TRUE;
}

/* Latency */

typedef struct
{
  const BenchChannel *channel;
  const char *ask_name;
  const char *answer_name;
  FerryChannel *ask;
  FerryChannel *answer;
  guint8 *message;
} Talk;

static inline gboolean
talk_trip (gpointer data, GError **error)
{
  Talk *self = data;
  FerryBuffer *buffer;

  if (!ferry_channel_send (self->ask, self->message, self->channel->load.size, FERRY_WAIT_FOREVER, NULL, error))
    return FALSE;
  buffer = ferry_channel_receive (self->answer, FERRY_WAIT_FOREVER, NULL, error);
  if (buffer == NULL)
    return FALSE;
  ferry_buffer_unref (buffer);
  return TRUE;
}

static gboolean
talk_answer (Talk *self, GError **error)
{
  g_autoptr (GError) local_error = NULL;
  FerryBuffer *buffer;

  while ((buffer = ferry_channel_receive (self->ask, FERRY_WAIT_FOREVER, NULL, &local_error)) != NULL)
    {
      gboolean sent
          = ferry_channel_send (self->answer, self->message, self->channel->load.size, FERRY_WAIT_FOREVER, NULL, error);

      ferry_buffer_unref (buffer);
      if (!sent)
        return FALSE;
    }
  if (!is_end_of_stream (local_error))
    {
      g_propagate_error (error, g_steal_pointer (&local_error));
      return FALSE;
    }
  return TRUE;
}

static gboolean
talk_work (BenchArena *arena, guint index, gpointer data, GError **error)
{
  Talk *self = data;
  gboolean asks = index == 0;
  gboolean done;

  self->message = bench_alloc_warm (self->channel->load.size);
  if (self->message == NULL)
    return bench_fail (error, "mmap");
  self->ask = open_channel (self->channel, self->ask_name, asks ? FERRY_ROLE_SENDER : FERRY_ROLE_RECEIVER, error);
  if (self->ask == NULL)
    return FALSE;
  self->answer = open_channel (self->channel, self->answer_name, asks ? FERRY_ROLE_RECEIVER : FERRY_ROLE_SENDER, error);
  if (self->answer == NULL)
    return FALSE;

  bench_ready (arena);
  if (asks)
    done = bench_trips_measure (&arena->slots[0], self->channel->load.duration, self->channel->load.pause, talk_trip,
                                self, error)
           && ferry_channel_end_of_stream (self->ask, error);
  else
    done = talk_answer (self, error);
  if (!done)
    return FALSE;

  done = ferry_channel_close (self->ask, error) && ferry_channel_close (self->answer, error);
  g_clear_object (&self->ask);
  g_clear_object (&self->answer);
  return done;
}

/* Round trips over a pair of channels, one each way. */
gboolean
bench_channel_latency (const BenchChannel *self, double values[BENCH_MAX_VALUES], GError **error)
{
  g_autoptr (BenchArena) arena = NULL;
  g_autofree char *ask_name = make_name ();
  g_autofree char *answer_name = make_name ();
  Talk talk = { .channel = self, .ask_name = ask_name, .answer_name = answer_name };
  char *names[] = { ask_name, answer_name, NULL };
  BenchRun run;

  bench_load_init_run (&self->load, &run);
  run.n_processes = 2;
  run.metered = FALSE;
  run.func = talk_work;
  run.data = &talk;
  arena = run_channel (self, &run, names, error);
  if (arena == NULL)
    return FALSE;
  memcpy (values, arena->slots[0].values, sizeof arena->slots[0].values);
  return TRUE;
}

/* Both ends in one process */

static gboolean
pass_one (FerryChannel *sender, FerryChannel *receiver, gsize size, GError **error)
{
  g_autoptr (FerryBuffer) loaned = ferry_channel_loan (sender, size, FERRY_WAIT_FOREVER, NULL, error);
  g_autoptr (FerryBuffer) received = NULL;

  if (loaned == NULL || !ferry_channel_send_buffer (sender, loaned, FERRY_WAIT_FOREVER, NULL, error))
    return FALSE;
  received = ferry_channel_receive (receiver, FERRY_WAIT_FOREVER, NULL, error);
  if (received == NULL)
    return FALSE;
  if (ferry_buffer_get_size (received) != size)
    {
      g_set_error (error, FERRY_ERROR, FERRY_ERROR_FAILED, "sent %" G_GSIZE_FORMAT " bytes, received %" G_GSIZE_FORMAT,
                   size, ferry_buffer_get_size (received));
      return FALSE;
    }
  return TRUE;
}

static gboolean
loan_work (BenchArena *arena, guint index, gpointer data, GError **error)
{
  Stream *self = data;
  const BenchLoad *load = &self->channel->load;
  g_autoptr (FerryChannel) sender = open_channel (self->channel, self->name, FERRY_ROLE_SENDER, error);
  g_autoptr (FerryChannel) receiver = NULL;
  g_autoptr (GArray) costs = g_array_new (FALSE, FALSE, sizeof (double));
  gint64 end;
  gint64 now;

  if (sender == NULL)
    return FALSE;
  receiver = open_channel (self->channel, self->name, FERRY_ROLE_RECEIVER, error);
  if (receiver == NULL)
    return FALSE;

  bench_ready (arena);
  now = bench_now ();
  end = now + load->duration * BENCH_NSEC_PER_USEC / BENCH_WARM_UP_SHARE;
  do
    {
      if (!pass_one (sender, receiver, load->size, error))
        return FALSE;
    }
  while (bench_now () < end);

  end = bench_now () + load->duration * BENCH_NSEC_PER_USEC;
  do
    {
      gint64 start = bench_now ();
      double cost;

      for (guint i = 0; i < LOAN_BATCH; i++)
        {
          if (!pass_one (sender, receiver, load->size, error))
            return FALSE;
        }
      now = bench_now ();
      cost = (double) (now - start) / LOAN_BATCH;
      g_array_append_val (costs, cost);
    }
  while (now < end);
  arena->slots[index].values[0] = bench_median ((double *) costs->data, costs->len);
  return ferry_channel_close (sender, error) && ferry_channel_close (receiver, error);
}

/* Nanoseconds for loan, send, receive and release of a warm block that nobody touches. */
gboolean
bench_channel_loan_cost (const BenchChannel *self, double *ns, GError **error)
{
  g_autoptr (BenchArena) arena = NULL;
  g_autofree char *name = make_name ();
  Stream stream = { .channel = self, .name = name };
  char *names[] = { name, NULL };
  BenchRun run;

  bench_load_init_run (&self->load, &run);
  run.n_processes = 1;
  run.metered = FALSE;
  run.func = loan_work;
  run.data = &stream;
  arena = run_channel (self, &run, names, error);
  if (arena == NULL)
    return FALSE;
  *ns = arena->slots[0].values[0];
  return TRUE;
}

/* Opening */

typedef struct
{
  const BenchChannel *channel;
  const char *name;
  guint n_rounds;
} Rounds;

/* A channel as it is when nothing is said about it. */
static gboolean
open_once (const BenchChannel *channel, const char *name, GError **error)
{
  static const guint8 message[SMALL_MESSAGE];
  g_autoptr (FerryChannel) receiver = ferry_channel_new (channel->transport, name, FERRY_ROLE_RECEIVER);
  g_autoptr (FerryChannel) sender = ferry_channel_new (channel->transport, name, FERRY_ROLE_SENDER);
  g_autoptr (FerryBuffer) buffer = NULL;

  if (!ferry_channel_open (receiver, NULL, error) || !ferry_channel_open (sender, NULL, error)
      || !ferry_channel_send (sender, message, sizeof message, FERRY_WAIT_FOREVER, NULL, error))
    return FALSE;
  buffer = ferry_channel_receive (receiver, FERRY_WAIT_FOREVER, NULL, error);
  if (buffer == NULL)
    return FALSE;
  g_clear_pointer (&buffer, ferry_buffer_unref);
  return ferry_channel_close (sender, error) && ferry_channel_close (receiver, error);
}

/* Plugin modules mapped into this process: shared objects called libferry-something,
 * other than the library itself. */
static guint
count_modules (void)
{
  g_autoptr (GHashTable) seen = g_hash_table_new_full (g_str_hash, g_str_equal, g_free, NULL);
  g_autofree char *maps = NULL;
  g_auto (GStrv) lines = NULL;

  if (!g_file_get_contents ("/proc/self/maps", &maps, NULL, NULL))
    return 0;
  lines = g_strsplit (maps, "\n", -1);
  for (guint i = 0; lines[i] != NULL; i++)
    {
      const char *file = strrchr (lines[i], '/');

      if (file == NULL || !g_str_has_prefix (file, "/libferry-") || strstr (file, ".so") == NULL
          || g_str_has_prefix (file, "/libferry-1."))
        continue;
      g_hash_table_add (seen, g_strdup (file));
    }
  return g_hash_table_size (seen);
}

static gboolean
had_children (void)
{
  struct rusage usage;

  return getrusage (RUSAGE_CHILDREN, &usage) == 0 && (usage.ru_minflt > 0 || usage.ru_maxrss > 0);
}

static gboolean
opening_work (BenchArena *arena, guint index, gpointer data, GError **error)
{
  Rounds *self = data;
  g_autoptr (GArray) times = g_array_new (FALSE, FALSE, sizeof (double));

  bench_ready (arena);
  for (guint i = 0; i <= self->n_rounds; i++)
    {
      gint64 start = bench_now ();
      double elapsed;

      if (!open_once (self->channel, self->name, error))
        return FALSE;
      elapsed = (double) (bench_now () - start);
      if (i > 0)
        g_array_append_val (times, elapsed);
    }
  arena->slots[index].values[0] = bench_median ((double *) times->data, times->len);
  arena->slots[index].values[1] = count_modules ();
  arena->slots[index].values[2] = had_children ();
  return TRUE;
}

/* The first round, which loads the plugin, does not count. */
gboolean
bench_channel_opening (const BenchChannel *self, guint n_rounds, BenchOpening *opening, GError **error)
{
  g_autoptr (BenchArena) arena = NULL;
  g_autofree char *name = make_name ();
  Rounds rounds = { .channel = self, .name = name, .n_rounds = n_rounds };
  char *names[] = { name, NULL };
  BenchRun run = { .n_processes = 1, .func = opening_work, .data = &rounds, .time_limit = OPENING_TIME_LIMIT };

  arena = run_channel (self, &run, names, error);
  if (arena == NULL)
    return FALSE;
  opening->ns = arena->slots[0].values[0];
  opening->n_modules = (guint) arena->slots[0].values[1];
  opening->helper = arena->slots[0].values[2] > 0;
  return TRUE;
}

/* Idleness */

typedef struct
{
  const BenchChannel *channel;
  const char *name;
  gint64 duration;
} Idle;

static gboolean
idle_work (BenchArena *arena, guint index, gpointer data, GError **error)
{
  Idle *self = data;
  FerryRole role = index == 0 ? FERRY_ROLE_RECEIVER : FERRY_ROLE_SENDER;
  g_autoptr (FerryChannel) channel = open_channel (self->channel, self->name, role, error);
  g_autoptr (FerryBuffer) buffer = NULL;
  g_autoptr (GError) local_error = NULL;

  if (channel == NULL)
    return FALSE;
  if (role == FERRY_ROLE_RECEIVER)
    arena->slots[0].values[1] = (double) getpid ();
  bench_ready (arena);

  /* One long wait. The sender, which has nothing to do, looks what it takes, but for its beginning with the adaptive spin,
   * and its end. */
  if (role == FERRY_ROLE_RECEIVER)
    {
      buffer = ferry_channel_receive (channel, self->duration + 2 * IDLE_SETTLE_TIME, NULL, &local_error);
    }
  else
    {
      pid_t receiver = (pid_t) arena->slots[0].values[1];
      gint64 own_before;
      gint64 before;
      gint64 after;

      g_usleep (IDLE_SETTLE_TIME);
      own_before = bench_process_cpu_time (0);
      before = bench_process_cpu_time (receiver);
      g_usleep ((gulong) self->duration);
      after = bench_process_cpu_time (receiver);
      if (before < 0 || after < 0)
        {
          g_set_error (error, FERRY_ERROR, FERRY_ERROR_FAILED, "can't tell what process %d takes: %s", (int) receiver,
                       g_strerror (errno));
          return FALSE;
        }
      arena->slots[0].values[0] = (double) (after - before);
      arena->slots[1].values[0] = (double) (bench_process_cpu_time (0) - own_before);
    }

  if (role == FERRY_ROLE_RECEIVER && !g_error_matches (local_error, FERRY_ERROR, FERRY_ERROR_TIMED_OUT)
      && !g_error_matches (local_error, FERRY_ERROR, FERRY_ERROR_CLOSED))
    {
      g_set_error (error, FERRY_ERROR, FERRY_ERROR_FAILED, "waiting on an empty channel did not time out: %s",
                   local_error != NULL ? local_error->message : "it received something");
      return FALSE;
    }
  return ferry_channel_close (channel, error);
}

/* The CPU time in microseconds that an open channel takes: a receiver waits, a sender
 * has nothing to send. */
gboolean
bench_channel_idle (const BenchChannel *self, gint64 duration, gint64 *cpu_time, GError **error)
{
  g_autoptr (BenchArena) arena = NULL;
  g_autofree char *name = make_name ();
  Idle idle = { .channel = self, .name = name, .duration = duration };
  char *names[] = { name, NULL };
  BenchRun run = { .n_processes = 2, .func = idle_work, .data = &idle, .time_limit = OPENING_TIME_LIMIT + duration };

  arena = run_channel (self, &run, names, error);
  if (arena == NULL)
    return FALSE;
  *cpu_time = (gint64) (arena->slots[0].values[0] + arena->slots[1].values[0]);
  return TRUE;
}

/* One huge message */

static guint64
huge_word (gsize index)
{
  /* Knuth's multiplicative hash: no two neighbours alike. */
  return (guint64) index * G_GUINT64_CONSTANT (11400714819323198485);
}

static gboolean
huge_work (BenchArena *arena, guint index, gpointer data, GError **error)
{
  Stream *self = data;
  gboolean sends = index == 0;
  gsize size = self->channel->load.size;
  g_autoptr (FerryChannel) channel
      = open_channel (self->channel, self->name, sends ? FERRY_ROLE_SENDER : FERRY_ROLE_RECEIVER, error);
  g_autoptr (FerryBuffer) buffer = NULL;
  gint64 start;

  if (channel == NULL)
    return FALSE;
  bench_ready (arena);
  start = bench_now ();

  if (sends)
    {
      guint64 *words;

      buffer = ferry_channel_loan (channel, size, FERRY_WAIT_FOREVER, NULL, error);
      if (buffer == NULL)
        return FALSE;
      words = (guint64 *) (gpointer) ferry_buffer_get_writable_data (buffer, NULL);
      for (gsize i = 0; i < size / sizeof *words; i++)
        words[i] = huge_word (i);
      if (!ferry_channel_send_buffer (channel, buffer, FERRY_WAIT_FOREVER, NULL, error)
          || !ferry_channel_flush (channel, FERRY_WAIT_FOREVER, NULL, error))
        return FALSE;
    }
  else
    {
      gsize received;
      const guint64 *words;

      buffer = ferry_channel_receive (channel, FERRY_WAIT_FOREVER, NULL, error);
      if (buffer == NULL)
        return FALSE;
      words = (const guint64 *) (gconstpointer) ferry_buffer_get_data (buffer, &received);
      if (received != size)
        {
          g_set_error (error, FERRY_ERROR, FERRY_ERROR_FAILED,
                       "sent %" G_GSIZE_FORMAT " bytes, received %" G_GSIZE_FORMAT, size, received);
          return FALSE;
        }
      for (gsize i = 0; i < size / sizeof *words; i++)
        {
          if (words[i] == huge_word (i))
            continue;
          g_set_error (error, FERRY_ERROR, FERRY_ERROR_FAILED, "byte %" G_GSIZE_FORMAT " differs", i * sizeof *words);
          return FALSE;
        }
    }
  arena->slots[index].values[0] = (double) (bench_now () - start);
  g_clear_pointer (&buffer, ferry_buffer_unref);
  return ferry_channel_close (channel, error);
}

/* Passes one message of that size, filled in place and compared word by word. */
gboolean
bench_channel_huge (const BenchChannel *self, gsize size, double *ns, GError **error)
{
  g_autoptr (BenchArena) arena = NULL;
  g_autofree char *name = make_name ();
  BenchChannel channel = *self;
  Stream stream = { .channel = &channel, .name = name };
  char *names[] = { name, NULL };
  BenchRun run = { .n_processes = 2, .func = huge_work, .data = &stream, .time_limit = HUGE_TIME_LIMIT };

  channel.load.size = size;
  channel.capacity = MIN_CAPACITY;
  arena = run_channel (self, &run, names, error);
  if (arena == NULL)
    return FALSE;
  *ns = arena->slots[1].values[0];
  return TRUE;
}

/* Transports */

typedef struct
{
  char names[MAX_TRANSPORTS][MAX_TRANSPORT_NAME];
  guint n_names;
} TransportList;

static gboolean
list_work (BenchArena *arena, guint index, gpointer data, GError **error)
{
  TransportList *list = data;
  g_autoptr (GPtrArray) features
      = ferry_registry_list_features (ferry_registry_get_default (), FERRY_TYPE_TRANSPORT_FACTORY);

  for (guint i = 0; i < features->len && list->n_names < MAX_TRANSPORTS; i++)
    {
      FerryFeature *feature = g_ptr_array_index (features, i);

      if (ferry_feature_get_reason (feature) != NULL
          || !ferry_transport_factory_has_capabilities (FERRY_TRANSPORT_FACTORY (feature),
                                                        FERRY_TRANSPORT_CAPABILITIES_NAMED
                                                            | FERRY_TRANSPORT_CAPABILITIES_ZERO_COPY))
        continue;
      g_strlcpy (list->names[list->n_names++], ferry_feature_get_name (feature), MAX_TRANSPORT_NAME);
    }
  bench_ready (arena);
  return TRUE;
}

static gboolean
check_work (BenchArena *arena, guint index, gpointer data, GError **error)
{
  TransportList *list = data;

  for (guint i = 0; i < list->n_names; i++)
    {
      g_autoptr (FerryTransport) transport
          = ferry_registry_create_transport (ferry_registry_get_default (), list->names[i], error);

      if (transport == NULL)
        return FALSE;
    }
  bench_ready (arena);
  return TRUE;
}

/* The transports of these names, or all named shared-memory transports that the registry offers. Asked in a process of
 * its own, which also leaves the registry's cache warm. */
char **
bench_channel_list_transports (const char *const *wanted, GError **error)
{
  g_autoptr (BenchArena) arena = NULL;
  g_autoptr (GStrvBuilder) builder = g_strv_builder_new ();
  TransportList *list = bench_map_shared (sizeof *list);
  BenchRun run = {
    .n_processes = 1, .func = wanted != NULL ? check_work : list_work, .data = list, .time_limit = OPENING_TIME_LIMIT
  };

  if (list == NULL)
    {
      bench_fail (error, "mmap");
      return NULL;
    }
  if (wanted != NULL && g_strv_length ((char **) wanted) > MAX_TRANSPORTS)
    {
      g_set_error (error, FERRY_ERROR, FERRY_ERROR_INVALID_ARGUMENT,
                   "%u transports are asked for, at most %d can be measured in one run",
                   g_strv_length ((char **) wanted), MAX_TRANSPORTS);
      munmap (list, sizeof *list);
      return NULL;
    }
  for (guint i = 0; wanted != NULL && wanted[i] != NULL; i++)
    g_strlcpy (list->names[list->n_names++], wanted[i], MAX_TRANSPORT_NAME);
  arena = bench_run (&run, error);
  for (guint i = 0; arena != NULL && i < list->n_names; i++)
    g_strv_builder_add (builder, list->names[i]);
  munmap (list, sizeof *list);
  return arena != NULL ? g_strv_builder_end (builder) : NULL;
}
