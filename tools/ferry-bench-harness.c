/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The processes of a measurement: forked before they open anything, led through
 * the phases by the parent, each with a slot of shared memory for what it found. */

#include "ferry-bench-harness.h"

#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#define POLL_INTERVAL 1000                       /* µs between looks of the parent */
#define READY_INTERVAL 50                        /* µs between looks of a process that waits for the others */
#define CONCLUDE_LIMIT (10 * G_TIME_SPAN_SECOND) /* for a meter to see one more message */
#define TRIP_BATCH_TIME 200000                   /* ns that a batch of round trips shall take */
#define MAX_TRIP_BATCH 4096

static volatile sig_atomic_t caught_signal;

static void
signal_cb (int number)
{
  caught_signal = number;
}

/* Tells of errno. Always FALSE. */
gboolean
bench_fail (GError **error, const char *what)
{
  int saved = errno;

  g_set_error (error, G_IO_ERROR, g_io_error_from_errno (saved), "%s: %s", what, g_strerror (saved));
  return FALSE;
}

void
bench_catch_signals (void)
{
  struct sigaction action = { .sa_handler = signal_cb };

  sigaction (SIGINT, &action, NULL);
  sigaction (SIGTERM, &action, NULL);
  sigaction (SIGHUP, &action, NULL);
}

int
bench_get_signal (void)
{
  return caught_signal;
}

/* Memory in bytes that can be had without swapping. */
guint64
bench_get_available_memory (void)
{
  g_autofree char *text = NULL;
  const char *line;

  if (!g_file_get_contents ("/proc/meminfo", &text, NULL, NULL))
    return 0;
  line = strstr (text, "MemAvailable:");
  return line != NULL ? g_ascii_strtoull (line + strlen ("MemAvailable:"), NULL, 10) * 1024 : 0;
}

static gboolean
get_cpus (cpu_set_t *cpus)
{
  return sched_getaffinity (0, sizeof *cpus, cpus) == 0;
}

guint
bench_count_cpus (void)
{
  cpu_set_t cpus;

  return get_cpus (&cpus) ? (guint) CPU_COUNT (&cpus) : 1;
}

static void
pin_to_cpu (guint index)
{
  cpu_set_t cpus;
  cpu_set_t one;
  guint wanted;

  if (!get_cpus (&cpus) || CPU_COUNT (&cpus) == 0)
    return;

  wanted = index % (guint) CPU_COUNT (&cpus);
  for (guint cpu = 0; cpu < CPU_SETSIZE; cpu++)
    {
      if (!CPU_ISSET (cpu, &cpus) || wanted-- > 0)
        continue;
      CPU_ZERO (&one);
      CPU_SET (cpu, &one);
      sched_setaffinity (0, sizeof one, &one);
      return;
    }
}

gpointer
bench_map_shared (gsize size)
{
  gpointer memory = mmap (NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

  return memory == MAP_FAILED ? NULL : memory;
}

/* Private memory, every page touched. */
gpointer
bench_alloc_warm (gsize size)
{
  gpointer memory = mmap (NULL, MAX (size, 1), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

  if (memory == MAP_FAILED)
    return NULL;
  memset (memory, 1, size);
  return memory;
}

/* User and system time of a process (0: this one) with all its threads, in microseconds; negative when it can't be had. */
gint64
bench_process_cpu_time (pid_t pid)
{
  struct timespec time;
  clockid_t clock;

  if (clock_getcpuclockid (pid, &clock) != 0 || clock_gettime (clock, &time) != 0)
    return -1;
  return time.tv_sec * G_USEC_PER_SEC + time.tv_nsec / 1000;
}

int
bench_compare_doubles (gconstpointer a, gconstpointer b)
{
  double x = *(const double *) a;
  double y = *(const double *) b;

  return (x > y) - (x < y);
}

double
bench_median (const double *values, guint n_values)
{
  g_autofree double *sorted = g_memdup2 (values, n_values * sizeof *values);

  if (n_values == 0)
    return 0;
  qsort (sorted, n_values, sizeof *sorted, bench_compare_doubles);
  if (n_values % 2 == 1)
    return sorted[n_values / 2];
  return (sorted[n_values / 2 - 1] + sorted[n_values / 2]) / 2;
}

/* Tells the parent that this process has opened what it needs, and waits until all
 * have. Returns FALSE when the run was given up. */
gboolean
bench_ready (BenchArena *arena)
{
  __atomic_add_fetch (&arena->ready, 1, __ATOMIC_RELEASE);
  while (__atomic_load_n (&arena->phase, __ATOMIC_ACQUIRE) == BENCH_PHASE_PREPARE)
    g_usleep (READY_INTERVAL);
  return bench_arena_get_phase (arena) < BENCH_PHASE_STOP;
}

void
bench_meter_init (BenchMeter *self, BenchArena *arena, guint index, guint64 messages)
{
  self->arena = arena;
  self->slot = &arena->slots[index];
  self->count = 0;
  self->limit = 0;
  self->messages = messages;
  self->phase = BENCH_PHASE_WARM_UP;
  __atomic_store_n (&self->slot->metered, TRUE, __ATOMIC_RELEASE);
}

void
bench_meter_step (BenchMeter *self)
{
  BenchSlot *slot = self->slot;
  int phase = bench_arena_get_phase (self->arena);
  gint64 now = bench_now ();

  self->phase = phase;
  if (phase < BENCH_PHASE_MEASURE || slot->concluded)
    return;

  if (slot->started == 0)
    {
      slot->started = now;
      slot->base = self->count;
      if (self->messages > 0)
        self->limit = self->count + self->messages;
      /* A message that took all of the measuring: the next one ends it. */
      if (phase >= BENCH_PHASE_CONCLUDE)
        self->phase = BENCH_PHASE_MEASURE;
      return;
    }

  if (phase >= BENCH_PHASE_CONCLUDE || self->count == self->limit)
    {
      slot->ended = now;
      slot->messages = self->count - slot->base;
      __atomic_store_n (&slot->concluded, TRUE, __ATOMIC_RELEASE);
    }
}

typedef struct
{
  const BenchRun *run;
  BenchArena *arena;
  pid_t pids[BENCH_MAX_PROCESSES];
  guint n_alive;
  gint64 deadline;
} Runner;

static void
kill_all (Runner *self)
{
  for (guint i = 0; i < self->run->n_processes; i++)
    {
      if (self->pids[i] <= 0)
        continue;
      kill (self->pids[i], SIGKILL);
      while (waitpid (self->pids[i], NULL, 0) < 0 && errno == EINTR)
        ;
      self->pids[i] = 0;
    }
  self->n_alive = 0;
}

/* Takes note of processes that ended. */
static gboolean
reap (Runner *self, GError **error)
{
  for (guint i = 0; i < self->run->n_processes; i++)
    {
      int status;
      pid_t pid;

      if (self->pids[i] <= 0)
        continue;
      pid = waitpid (self->pids[i], &status, WNOHANG);
      if (pid != self->pids[i])
        continue;

      self->pids[i] = 0;
      self->n_alive--;
      if (WIFEXITED (status) && WEXITSTATUS (status) == EXIT_SUCCESS)
        continue;
      if (WIFEXITED (status) && self->arena->slots[i].error[0] != '\0')
        g_set_error_literal (error, G_IO_ERROR, G_IO_ERROR_FAILED, self->arena->slots[i].error);
      else if (WIFSIGNALED (status))
        g_set_error (error, G_IO_ERROR, G_IO_ERROR_FAILED, "measuring process %u was killed by signal %d (%s)", i,
                     WTERMSIG (status), g_strsignal (WTERMSIG (status)));
      else
        g_set_error (error, G_IO_ERROR, G_IO_ERROR_FAILED, "measuring process %u ended with status %d", i,
                     WEXITSTATUS (status));
      return FALSE;
    }

  if (caught_signal != 0 && !self->run->ignore_signals)
    {
      g_set_error (error, G_IO_ERROR, G_IO_ERROR_CANCELLED, "interrupted");
      return FALSE;
    }
  if (bench_now () > self->deadline)
    {
      g_set_error (error, G_IO_ERROR, G_IO_ERROR_TIMED_OUT, "not done within %.0f s",
                   (double) self->run->time_limit / G_USEC_PER_SEC);
      return FALSE;
    }
  return TRUE;
}

static gboolean
nap (Runner *self, gint64 duration, GError **error)
{
  gint64 end = bench_now () + duration * BENCH_NSEC_PER_USEC;

  while (bench_now () < end)
    {
      gint64 left = (end - bench_now ()) / BENCH_NSEC_PER_USEC;

      /* Rare looks: the parent shares the CPUs with what it measures. */
      g_usleep (CLAMP (left, 1, 20 * POLL_INTERVAL));
      if (!reap (self, error))
        return FALSE;
    }
  return TRUE;
}

static void
set_phase (Runner *self, BenchPhase phase)
{
  __atomic_store_n (&self->arena->phase, phase, __ATOMIC_RELEASE);
}

static guint64
sum_progress (Runner *self)
{
  guint64 sum = 0;

  for (guint i = 0; i < self->run->n_processes; i++)
    sum += __atomic_load_n (&self->arena->slots[i].progress, __ATOMIC_RELAXED);
  return sum;
}

static gboolean
all_concluded (Runner *self)
{
  for (guint i = 0; i < self->run->n_processes; i++)
    {
      BenchSlot *slot = &self->arena->slots[i];

      if (__atomic_load_n (&slot->metered, __ATOMIC_ACQUIRE) && !__atomic_load_n (&slot->concluded, __ATOMIC_ACQUIRE))
        return FALSE;
    }
  return TRUE;
}

static gboolean
lead (Runner *self, GError **error)
{
  const BenchRun *run = self->run;
  gint64 limit;

  while (__atomic_load_n (&self->arena->ready, __ATOMIC_ACQUIRE) < (gint) run->n_processes)
    {
      g_usleep (POLL_INTERVAL);
      if (!reap (self, error))
        return FALSE;
    }

  set_phase (self, BENCH_PHASE_WARM_UP);
  if (run->metered)
    {
      if (!nap (self, run->warm_up, error))
        return FALSE;
      while (sum_progress (self) < run->warm_up_messages)
        {
          if (!nap (self, POLL_INTERVAL, error))
            return FALSE;
        }

      set_phase (self, BENCH_PHASE_MEASURE);
      if (run->messages == 0)
        {
          if (!nap (self, run->duration, error))
            return FALSE;
          set_phase (self, BENCH_PHASE_CONCLUDE);
        }

      /* With a number of messages only the time limit of the run counts. A receiver that
       * others starve is left out of the sum after a while. */
      limit = bench_now () + CONCLUDE_LIMIT * BENCH_NSEC_PER_USEC;
      while (!all_concluded (self) && (run->messages > 0 || bench_now () < limit))
        {
          if (!nap (self, POLL_INTERVAL, error))
            return FALSE;
        }
      set_phase (self, BENCH_PHASE_STOP);
    }

  while (self->n_alive > 0)
    {
      g_usleep (2 * POLL_INTERVAL);
      if (!reap (self, error))
        return FALSE;
    }
  return TRUE;
}

static G_NORETURN void
run_process (const BenchRun *run, BenchArena *arena, guint index, pid_t parent)
{
  g_autoptr (GError) error = NULL;

  /* Nobody is left behind: not when the parent is killed, nor when it was already. A
   * signal from the terminal is the parent's to handle. */
  prctl (PR_SET_PDEATHSIG, SIGKILL);
  if (getppid () != parent)
    _exit (EXIT_FAILURE);
  signal (SIGINT, SIG_IGN);
  signal (SIGTERM, SIG_DFL);
  signal (SIGHUP, SIG_DFL);
  signal (SIGPIPE, SIG_IGN);

  if (run->pin)
    pin_to_cpu (index);

  if (!run->func (arena, index, run->data, &error))
    {
      g_strlcpy (arena->slots[index].error, error != NULL ? error->message : "failed", BENCH_ERROR_LENGTH);
      _exit (EXIT_FAILURE);
    }
  _exit (EXIT_SUCCESS);
}

/* Runs the processes of one measurement to their end and returns what they found. */
BenchArena *
bench_run (const BenchRun *run, GError **error)
{
  g_autoptr (BenchArena) arena = NULL;
  Runner runner = { 0 };
  pid_t parent = getpid ();
  gboolean done;

  g_return_val_if_fail (run->n_processes > 0 && run->n_processes <= BENCH_MAX_PROCESSES, NULL);

  arena = bench_map_shared (sizeof *arena);
  if (arena == NULL)
    {
      g_set_error (error, G_IO_ERROR, G_IO_ERROR_NO_SPACE, "can't map %" G_GSIZE_FORMAT " bytes: %s", sizeof *arena,
                   g_strerror (errno));
      return NULL;
    }

  runner.run = run;
  runner.arena = arena;
  runner.deadline = bench_now () + run->time_limit * BENCH_NSEC_PER_USEC;

  for (guint i = 0; i < run->n_processes; i++)
    {
      pid_t pid = fork ();

      if (pid == 0)
        run_process (run, arena, i, parent);
      if (pid < 0)
        {
          g_set_error (error, G_IO_ERROR, G_IO_ERROR_FAILED, "can't fork: %s", g_strerror (errno));
          kill_all (&runner);
          return NULL;
        }
      runner.pids[i] = pid;
      runner.n_alive++;
    }
  if (run->forked != NULL)
    run->forked (run->data);

  done = lead (&runner, error);
  kill_all (&runner);
  return done ? g_steal_pointer (&arena) : NULL;
}

void
bench_arena_free (BenchArena *self)
{
  if (self != NULL)
    munmap (self, sizeof *self);
}

/* Messages a second that all meters saw together. */
double
bench_arena_get_rate (BenchArena *self)
{
  double rate = 0;

  for (guint i = 0; i < BENCH_MAX_PROCESSES; i++)
    {
      BenchSlot *slot = &self->slots[i];

      if (slot->concluded && slot->ended > slot->started)
        rate += (double) slot->messages * BENCH_NSEC_PER_SEC / (double) (slot->ended - slot->started);
    }
  return rate;
}

void
bench_trips_init (BenchTrips *self)
{
  self->batches = g_array_new (FALSE, FALSE, sizeof (double));
  self->trips = g_array_new (FALSE, FALSE, sizeof (double));
  self->count = 0;
  self->batch = 1;
  /* Growing while trips are timed would show in them. */
  g_array_set_size (self->trips, BENCH_MAX_TRIPS / 4);
  memset (self->trips->data, 0, self->trips->len * sizeof (double));
  g_array_set_size (self->trips, 0);
}

guint
bench_trips_choose_batch (gint64 elapsed, guint64 n_trips)
{
  gint64 trip = MAX (elapsed / (gint64) MAX (n_trips, 1), 1);

  return (guint) CLAMP (TRIP_BATCH_TIME / trip, 1, MAX_TRIP_BATCH);
}

void
bench_trips_finish (BenchTrips *self, BenchSlot *slot)
{
  guint n = self->trips->len;

  slot->values[BENCH_TRIP_COUNT] = (double) self->count + n;
  if (n > 0)
    {
      g_array_sort (self->trips, bench_compare_doubles);
      slot->values[BENCH_TRIP_P50] = g_array_index (self->trips, double, n / 2);
      slot->values[BENCH_TRIP_P99] = g_array_index (self->trips, double, (guint) (n * 0.99));
      slot->values[BENCH_TRIP_MAX] = g_array_index (self->trips, double, n - 1);
    }
  if (self->batches->len > 0)
    slot->values[BENCH_TRIP_MEDIAN] = bench_median ((double *) self->batches->data, self->batches->len);
  else
    slot->values[BENCH_TRIP_MEDIAN] = slot->values[BENCH_TRIP_P50];
  g_array_unref (self->batches);
  g_array_unref (self->trips);
}
