/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* What the channels are compared with: the same messages by other means, between
 * processes that are laid out, pinned and warmed up in the same way. */

#include "ferry-bench-baseline.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#define RUN_TIME_LIMIT (120 * G_TIME_SPAN_SECOND)
#define WARM_UP_MESSAGES 4
#define SIZE_IS_LARGE (64 * 1024 * 1024) /* bytes; such messages take a while to warm up */

/* The part of a run that all measurements of a load have in common. */
void
bench_load_init_run (const BenchLoad *self, BenchRun *run)
{
  memset (run, 0, sizeof *run);
  run->n_processes = self->senders + self->receivers;
  run->metered = TRUE;
  run->pin = self->pin;
  run->duration = self->duration;
  run->warm_up = self->duration / BENCH_WARM_UP_SHARE;
  run->warm_up_messages = WARM_UP_MESSAGES * self->receivers;
  run->messages = self->messages;
  run->time_limit = RUN_TIME_LIMIT + 4 * self->duration;
}

static gboolean
write_all (int fd, const guint8 *data, gsize size, GError **error)
{
  while (size > 0)
    {
      gssize n = write (fd, data, size);

      if (n < 0 && errno == EINTR)
        continue;
      if (n < 0)
        return bench_fail (error, "write");
      data += n;
      size -= (gsize) n;
    }
  return TRUE;
}

/* Returns FALSE without an error at the end of the stream. */
static gboolean
read_all (int fd, guint8 *data, gsize size, GError **error)
{
  while (size > 0)
    {
      gssize n = read (fd, data, size);

      if (n < 0 && errno == EINTR)
        continue;
      if (n < 0)
        return bench_fail (error, "read");
      if (n == 0)
        return FALSE;
      data += n;
      size -= (gsize) n;
    }
  return TRUE;
}

/* Throughput of a pair of descriptors: one for all receivers, as a work queue has it,
 * or one for each, to which every sender writes everything, as in broadcast. */

typedef gboolean (*MakePairFunc) (int pair[2]);

typedef struct
{
  const BenchLoad *load;
  guint n_pairs;
  int pairs[BENCH_MAX_PROCESSES][2]; /* reading end, writing end */
} Pairs;

static gboolean
make_pipe (int pair[2])
{
  return pipe2 (pair, O_CLOEXEC) == 0;
}

static gboolean
make_socket_pair (int pair[2])
{
  return socketpair (AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) == 0;
}

static void
pairs_close (Pairs *self, gboolean readers, gboolean writers)
{
  for (guint i = 0; i < self->n_pairs; i++)
    {
      if (readers)
        close (self->pairs[i][0]);
      if (writers)
        close (self->pairs[i][1]);
    }
}

static void
pairs_forked (gpointer data)
{
  /* With the parent's copies open, no reader would see an end. */
  pairs_close (data, TRUE, TRUE);
}

static gboolean
pairs_send (Pairs *self, BenchArena *arena, GError **error)
{
  gsize size = self->load->size;
  guint8 *data = bench_alloc_warm (size);

  if (data == NULL)
    return bench_fail (error, "mmap");
  pairs_close (self, TRUE, FALSE);
  bench_ready (arena);
  while (bench_arena_get_phase (arena) < BENCH_PHASE_STOP)
    {
      for (guint i = 0; i < self->n_pairs; i++)
        {
          if (!write_all (self->pairs[i][1], data, size, error))
            return FALSE;
        }
    }
  pairs_close (self, FALSE, TRUE);
  return TRUE;
}

static gboolean
pairs_receive (Pairs *self, BenchArena *arena, guint index, GError **error)
{
  gsize size = self->load->size;
  guint pair = self->n_pairs == 1 ? 0 : index - self->load->senders;
  guint8 *data = bench_alloc_warm (size);
  GError *local_error = NULL;
  BenchMeter meter;

  if (data == NULL)
    return bench_fail (error, "mmap");
  bench_meter_init (&meter, arena, index, self->load->messages);
  pairs_close (self, FALSE, TRUE);
  bench_ready (arena);
  while (read_all (self->pairs[pair][0], data, size, &local_error))
    bench_meter_tick (&meter);
  if (local_error != NULL)
    {
      g_propagate_error (error, local_error);
      return FALSE;
    }
  return TRUE;
}

static gboolean
pairs_work (BenchArena *arena, guint index, gpointer data, GError **error)
{
  Pairs *self = data;

  if (index < self->load->senders)
    return pairs_send (self, arena, error);
  return pairs_receive (self, arena, index, error);
}

static gboolean
pairs_throughput (const BenchLoad *load, MakePairFunc make_pair, double *rate, GError **error)
{
  g_autoptr (BenchArena) arena = NULL;
  Pairs pairs = { .load = load };
  BenchRun run;

  if (load->size == 0)
    {
      g_set_error (error, G_IO_ERROR, G_IO_ERROR_NOT_SUPPORTED, "a byte stream has no empty messages");
      return FALSE;
    }

  for (guint i = 0; i < (load->broadcast ? load->receivers : 1); i++)
    {
      if (!make_pair (pairs.pairs[i]))
        {
          bench_fail (error, "can't make a pair of descriptors");
          pairs_close (&pairs, TRUE, TRUE);
          return FALSE;
        }
      pairs.n_pairs++;
    }

  bench_load_init_run (load, &run);
  run.func = pairs_work;
  run.forked = pairs_forked;
  run.data = &pairs;
  arena = bench_run (&run, error);
  if (arena == NULL)
    return FALSE;
  *rate = bench_arena_get_rate (arena);
  return TRUE;
}

static gboolean
pipe_throughput (const BenchLoad *load, double *rate, GError **error)
{
  return pairs_throughput (load, make_pipe, rate, error);
}

static gboolean
unix_throughput (const BenchLoad *load, double *rate, GError **error)
{
  return pairs_throughput (load, make_socket_pair, rate, error);
}

/* memcpy() into warm shared memory: the least that a copying send can cost. */

static gboolean
memcpy_work (BenchArena *arena, guint index, gpointer data, GError **error)
{
  const BenchLoad *load = data;
  guint8 *source = bench_alloc_warm (load->size);
  guint8 *target = bench_map_shared (MAX (load->size, 1));
  BenchMeter meter;

  if (source == NULL || target == NULL)
    return bench_fail (error, "mmap");
  memset (target, 0, load->size);

  bench_meter_init (&meter, arena, index, load->messages);
  bench_ready (arena);
  while (bench_arena_get_phase (arena) < BENCH_PHASE_STOP)
    {
      memcpy (target, source, load->size);
      /* The copy is wanted, though nobody reads it. */
      __asm__ volatile("" : : "r"(target), "r"(source) : "memory");
      bench_meter_tick (&meter);
    }
  return TRUE;
}

static gboolean
memcpy_throughput (const BenchLoad *load, double *rate, GError **error)
{
  g_autoptr (BenchArena) arena = NULL;
  BenchLoad alone = *load;
  BenchRun run;

  alone.senders = 1;
  alone.receivers = 0;
  bench_load_init_run (&alone, &run);
  run.warm_up_messages = WARM_UP_MESSAGES;
  run.func = memcpy_work;
  run.data = &alone;
  arena = bench_run (&run, error);
  if (arena == NULL)
    return FALSE;
  *rate = bench_arena_get_rate (arena);
  return TRUE;
}

/* Round trips between two processes. Side 0 asks and measures, side 1 answers. */

typedef struct
{
  guint32 word __attribute__ ((aligned (BENCH_CACHE_LINE)));
} Line;

#define PLACES 64

typedef struct
{
  Line lines[2]; /* written by the side of that index */
  guint32 sequence __attribute__ ((aligned (BENCH_CACHE_LINE)));
} Lines;

typedef struct
{
  const BenchLoad *load;
  gboolean (*ask) (BenchArena *arena, gpointer data, GError **error);
  gboolean (*answer) (BenchArena *arena, gpointer data, GError **error);
  Lines *lines;
  int pairs[2][2]; /* to the answering side, and back */
  guint8 *message;
} Game;

static gboolean
game_work (BenchArena *arena, guint index, gpointer data, GError **error)
{
  Game *self = data;

  self->message = bench_alloc_warm (MAX (self->load->size, sizeof (guint64)));
  if (self->message == NULL)
    return bench_fail (error, "mmap");
  bench_ready (arena);
  return index == 0 ? self->ask (arena, self, error) : self->answer (arena, self, error);
}

static gboolean
game_run (Game *self, BenchForkedFunc forked, double values[BENCH_MAX_VALUES], GError **error)
{
  g_autoptr (BenchArena) arena = NULL;
  BenchRun run;

  bench_load_init_run (self->load, &run);
  run.n_processes = 2;
  run.metered = FALSE;
  run.func = game_work;
  run.forked = forked;
  run.data = self;
  arena = bench_run (&run, error);
  if (arena == NULL)
    return FALSE;
  memcpy (values, arena->slots[0].values, sizeof arena->slots[0].values);
  return TRUE;
}

static gboolean
game_run_lines (Game *self, double values[BENCH_MAX_VALUES], GError **error)
{
  gboolean done;

  self->lines = bench_map_shared (PLACES * sizeof *self->lines);
  if (self->lines == NULL)
    return bench_fail (error, "mmap");
  done = game_run (self, NULL, values, error);
  munmap (self->lines, PLACES * sizeof *self->lines);
  return done;
}

#define LAST_WORD G_MAXUINT32 /* no more questions */

/* A raw cache line: the least time that any news takes from one CPU to the other.
 * No pause instruction in the loops: it would make the figure easier to reach.
 * Where in a shared cache a line is kept follows from its address, and with it how far it is from either CPU: from line to
 * line up to a third more. So this goes through many lines, as a channel does. */
#define TRIPS_A_PLACE 64

static inline Line *
raw_lines (Lines *places, guint32 sequence)
{
  return places[sequence / TRIPS_A_PLACE % PLACES].lines;
}

static inline gboolean
raw_trip (gpointer data, GError **error)
{
  Lines *places = data;
  guint32 sequence = ++places->sequence;
  Line *lines = raw_lines (places, sequence);

  __atomic_store_n (&lines[0].word, sequence, __ATOMIC_RELEASE);
  while (__atomic_load_n (&lines[1].word, __ATOMIC_ACQUIRE) != sequence)
    ;
  return TRUE;
}

static gboolean
raw_ask (BenchArena *arena, gpointer data, GError **error)
{
  Game *self = data;
  gboolean done
      = bench_trips_measure (&arena->slots[0], self->load->duration, self->load->pause, raw_trip, self->lines, error);

  __atomic_store_n (&raw_lines (self->lines, self->lines->sequence + 1)[0].word, LAST_WORD, __ATOMIC_RELEASE);
  return done;
}

static gboolean
raw_answer (BenchArena *arena, gpointer data, GError **error)
{
  Game *self = data;

  for (guint32 sequence = 1;; sequence++)
    {
      Line *lines = raw_lines (self->lines, sequence);
      guint32 word;

      do
        word = __atomic_load_n (&lines[0].word, __ATOMIC_ACQUIRE);
      while (word != sequence && word != LAST_WORD);
      if (word == LAST_WORD)
        return TRUE;
      __atomic_store_n (&lines[1].word, word, __ATOMIC_RELEASE);
    }
}

static gboolean
raw_latency (const BenchLoad *load, double values[BENCH_MAX_VALUES], GError **error)
{
  Game game = { .load = load, .ask = raw_ask, .answer = raw_answer };

  if (bench_count_cpus () < 2)
    {
      g_set_error (error, G_IO_ERROR, G_IO_ERROR_NOT_SUPPORTED, "two CPUs are needed");
      return FALSE;
    }
  return game_run_lines (&game, values, error);
}

/* A futex: the least time between two processes that sleep. */

static inline void
futex_wait (guint32 *word, guint32 expected)
{
  syscall (SYS_futex, word, FUTEX_WAIT, expected, NULL, NULL, 0);
}

static inline void
futex_wake (guint32 *word)
{
  syscall (SYS_futex, word, FUTEX_WAKE, 1, NULL, NULL, 0);
}

static inline gboolean
futex_trip (gpointer data, GError **error)
{
  Lines *lines = data;
  guint32 sequence = ++lines->sequence;
  guint32 word;

  __atomic_store_n (&lines->lines[0].word, sequence, __ATOMIC_SEQ_CST);
  futex_wake (&lines->lines[0].word);
  while ((word = __atomic_load_n (&lines->lines[1].word, __ATOMIC_ACQUIRE)) != sequence)
    futex_wait (&lines->lines[1].word, word);
  return TRUE;
}

static gboolean
futex_ask (BenchArena *arena, gpointer data, GError **error)
{
  Game *self = data;
  gboolean done
      = bench_trips_measure (&arena->slots[0], self->load->duration, self->load->pause, futex_trip, self->lines, error);

  __atomic_store_n (&self->lines->lines[0].word, LAST_WORD, __ATOMIC_SEQ_CST);
  futex_wake (&self->lines->lines[0].word);
  return done;
}

static gboolean
futex_answer (BenchArena *arena, gpointer data, GError **error)
{
  Game *self = data;
  guint32 seen = 0;

  while (seen != LAST_WORD)
    {
      guint32 word = __atomic_load_n (&self->lines->lines[0].word, __ATOMIC_ACQUIRE);

      if (word == seen)
        {
          futex_wait (&self->lines->lines[0].word, seen);
          continue;
        }
      seen = word;
      __atomic_store_n (&self->lines->lines[1].word, word, __ATOMIC_SEQ_CST);
      futex_wake (&self->lines->lines[1].word);
    }
  return TRUE;
}

static gboolean
futex_latency (const BenchLoad *load, double values[BENCH_MAX_VALUES], GError **error)
{
  Game game = { .load = load, .ask = futex_ask, .answer = futex_answer };

  return game_run_lines (&game, values, error);
}

/* Descriptors. The two of a pair are the same one for eventfd. */

static void
game_forked (gpointer data)
{
  Game *self = data;

  for (guint i = 0; i < 2; i++)
    {
      close (self->pairs[i][0]);
      if (self->pairs[i][1] != self->pairs[i][0])
        close (self->pairs[i][1]);
    }
}

static gboolean
game_run_pairs (Game *self, MakePairFunc make_pair, double values[BENCH_MAX_VALUES], GError **error)
{
  for (guint i = 0; i < 2; i++)
    {
      if (!make_pair (self->pairs[i]))
        return bench_fail (error, "can't make a pair of descriptors");
    }
  return game_run (self, game_forked, values, error);
}

static gboolean
make_eventfd (int pair[2])
{
  pair[0] = pair[1] = eventfd (0, EFD_CLOEXEC);
  return pair[0] >= 0;
}

static inline gboolean
eventfd_trip (gpointer data, GError **error)
{
  Game *self = data;
  guint64 count = 1;

  if (write (self->pairs[0][1], &count, sizeof count) != sizeof count)
    return bench_fail (error, "write");
  if (read (self->pairs[1][0], &count, sizeof count) != sizeof count)
    return bench_fail (error, "read");
  return TRUE;
}

static gboolean
eventfd_ask (BenchArena *arena, gpointer data, GError **error)
{
  Game *self = data;
  guint64 last = LAST_WORD;

  if (!bench_trips_measure (&arena->slots[0], self->load->duration, self->load->pause, eventfd_trip, self, error))
    return FALSE;
  return write (self->pairs[0][1], &last, sizeof last) == sizeof last || bench_fail (error, "write");
}

static gboolean
eventfd_answer (BenchArena *arena, gpointer data, GError **error)
{
  Game *self = data;
  guint64 count;

  while (read (self->pairs[0][0], &count, sizeof count) == sizeof count)
    {
      if (count >= LAST_WORD)
        return TRUE;
      if (write (self->pairs[1][1], &count, sizeof count) != sizeof count)
        return bench_fail (error, "write");
    }
  return bench_fail (error, "read");
}

static gboolean
eventfd_latency (const BenchLoad *load, double values[BENCH_MAX_VALUES], GError **error)
{
  Game game = { .load = load, .ask = eventfd_ask, .answer = eventfd_answer };

  return game_run_pairs (&game, make_eventfd, values, error);
}

/* Byte streams, with messages of the wanted size */

static inline gboolean
stream_trip (gpointer data, GError **error)
{
  Game *self = data;

  if (!write_all (self->pairs[0][1], self->message, self->load->size, error))
    return FALSE;
  if (read_all (self->pairs[1][0], self->message, self->load->size, error))
    return TRUE;
  if (error != NULL && *error == NULL)
    g_set_error (error, G_IO_ERROR, G_IO_ERROR_CLOSED, "the other side closed");
  return FALSE;
}

static gboolean
stream_ask (BenchArena *arena, gpointer data, GError **error)
{
  Game *self = data;

  close (self->pairs[0][0]);
  close (self->pairs[1][1]);
  if (!bench_trips_measure (&arena->slots[0], self->load->duration, self->load->pause, stream_trip, self, error))
    return FALSE;
  close (self->pairs[0][1]);
  return TRUE;
}

static gboolean
stream_answer (BenchArena *arena, gpointer data, GError **error)
{
  Game *self = data;
  GError *local_error = NULL;

  close (self->pairs[0][1]);
  close (self->pairs[1][0]);
  while (read_all (self->pairs[0][0], self->message, self->load->size, &local_error))
    {
      if (!write_all (self->pairs[1][1], self->message, self->load->size, error))
        return FALSE;
    }
  if (local_error != NULL)
    {
      g_propagate_error (error, local_error);
      return FALSE;
    }
  return TRUE;
}

static gboolean
pipe_latency (const BenchLoad *load, double values[BENCH_MAX_VALUES], GError **error)
{
  Game game = { .load = load, .ask = stream_ask, .answer = stream_answer };

  return game_run_pairs (&game, make_pipe, values, error);
}

static gboolean
unix_latency (const BenchLoad *load, double values[BENCH_MAX_VALUES], GError **error)
{
  Game game = { .load = load, .ask = stream_ask, .answer = stream_answer };

  return game_run_pairs (&game, make_socket_pair, values, error);
}

static const BenchBaseline baselines[] = {
  { "pipe", "a pipe, one write() and one read() a message", pipe_throughput, pipe_latency },
  { "unix", "a UNIX stream socket, one write() and one read() a message", unix_throughput, unix_latency },
  { "memcpy", "memcpy() into one warm block of shared memory", memcpy_throughput, NULL },
  { "cache-line", "a raw cache line to and fro, both sides spinning", NULL, raw_latency },
  { "futex", "a futex to and fro, both sides sleeping", NULL, futex_latency },
  { "eventfd", "an eventfd to and fro, both sides sleeping", NULL, eventfd_latency },
};

const BenchBaseline *
bench_baseline_get_all (guint *n_baselines)
{
  *n_baselines = G_N_ELEMENTS (baselines);
  return baselines;
}

const BenchBaseline *
bench_baseline_find (const char *name)
{
  for (guint i = 0; i < G_N_ELEMENTS (baselines); i++)
    {
      if (g_str_equal (baselines[i].name, name))
        return &baselines[i];
    }
  return NULL;
}

/* Opening: both ends of a named UNIX socket in one process, one message, close. */

#define CONNECT_MESSAGE_SIZE 64 /* bytes */

static gboolean
connect_once (const char *path, GError **error)
{
  struct sockaddr_un address = { .sun_family = AF_UNIX };
  guint8 message[CONNECT_MESSAGE_SIZE] = { 0 };
  int listener;
  int client;
  int server;

  g_strlcpy (address.sun_path, path, sizeof address.sun_path);
  listener = socket (AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  client = socket (AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (listener < 0 || client < 0)
    return bench_fail (error, "socket");
  if (bind (listener, (struct sockaddr *) &address, sizeof address) != 0)
    return bench_fail (error, "bind");
  if (listen (listener, 1) != 0)
    return bench_fail (error, "listen");
  if (connect (client, (struct sockaddr *) &address, sizeof address) != 0)
    return bench_fail (error, "connect");
  server = accept4 (listener, NULL, NULL, SOCK_CLOEXEC);
  if (server < 0)
    return bench_fail (error, "accept");
  if (!write_all (client, message, sizeof message, error))
    return FALSE;
  if (!read_all (server, message, sizeof message, error))
    return FALSE;
  close (client);
  close (server);
  close (listener);
  return unlink (path) == 0 || bench_fail (error, "unlink");
}

typedef struct
{
  guint n_rounds;
  char *path;
} Connect;

static gboolean
connect_work (BenchArena *arena, guint index, gpointer data, GError **error)
{
  Connect *self = data;
  g_autoptr (GArray) times = g_array_new (FALSE, FALSE, sizeof (double));

  if (!bench_ready (arena))
    return TRUE;
  for (guint i = 0; i <= self->n_rounds; i++)
    {
      gint64 start = bench_now ();
      double elapsed;

      if (!connect_once (self->path, error))
        return FALSE;
      elapsed = (double) (bench_now () - start);
      if (i > 0)
        g_array_append_val (times, elapsed);
    }
  arena->slots[index].values[0] = bench_median ((double *) times->data, times->len);
  return TRUE;
}

/* The median time in nanoseconds, without the first round. */
gboolean
bench_baseline_connect (guint n_rounds, double *ns, GError **error)
{
  g_autofree char *name = g_strdup_printf ("ferry-bench-%d.socket", getpid ());
  g_autofree char *path = g_build_filename (g_get_user_runtime_dir (), name, NULL);
  g_autoptr (BenchArena) arena = NULL;
  Connect baseline = { .n_rounds = n_rounds, .path = path };
  BenchRun run = { .n_processes = 1, .func = connect_work, .data = &baseline, .time_limit = RUN_TIME_LIMIT };

  unlink (path);
  arena = bench_run (&run, error);
  unlink (path);
  if (arena == NULL)
    return FALSE;
  *ns = arena->slots[0].values[0];
  return TRUE;
}
