/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ferry-test.h"

#include <pthread.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#define KIB ((gsize) 1024)
#define MIB (1024 * KIB)
#define GUARD 64
#define GUARD_BYTE 0xa5

/* No two pages are alike, nor are neighbouring bytes. */
static guint8 *
make_pattern (gsize size)
{
  guint8 *data = g_malloc (size);
  guint32 state = 1;

  for (gsize i = 0; i < size; i++)
    {
      state = state * 1664525 + 1013904223; /* Numerical Recipes, 7.1 */
      data[i] = (guint8) (state >> 24);
    }
  return data;
}

static void
assert_copies (const guint8 *from, guint8 *area, gsize to_offset, gsize size)
{
  guint8 *to = area + GUARD + to_offset;

  memset (area, GUARD_BYTE, GUARD + to_offset);
  memset (to, GUARD_BYTE, size + GUARD);
  ferry_copy_memory (to, from, size);
  ck_assert_msg (memcmp (to, from, size) == 0, "%" G_GSIZE_FORMAT " bytes to offset %" G_GSIZE_FORMAT " differ", size,
                 to_offset);
  for (gsize i = 0; i < GUARD; i++)
    {
      ck_assert_uint_eq (to[size + i], GUARD_BYTE);
      ck_assert_uint_eq (area[to_offset + i], GUARD_BYTE);
    }
}

/* Around every size from which on something is done in another way, at all kinds of alignment. */
START_TEST (test_sizes)
{
  static const gsize sizes[] = {
    0,        1,        63, 64, 4 * KIB, 40 * KIB, 40 * KIB + 64, 64 * KIB + 77, 512 * KIB, MIB, 4 * MIB, 5 * MIB + 123,
    16 * MIB, 64 * MIB,
  };
  static const gsize offsets[] = { 0, 1, 15, 63 };
  const gsize max = 64 * MIB + 16 * KIB;
  g_autofree guint8 *from = make_pattern (max + 64);
  g_autofree guint8 *area = g_malloc (max + 64 + 2 * GUARD);

  for (guint i = 0; i < G_N_ELEMENTS (sizes); i++)
    for (guint j = 0; j < G_N_ELEMENTS (offsets); j++)
      {
        assert_copies (from + offsets[j], area, offsets[(j + i) % G_N_ELEMENTS (offsets)], sizes[i]);
        if (sizes[i] > 0 && j == 1)
          assert_copies (from, area, 0, sizes[i] - 1);
        if (j == 2)
          assert_copies (from, area, 7, sizes[i] + 1);
      }
  assert_copies (from + 3, area, 5, max);
}
END_TEST

typedef struct
{
  const guint8 *from;
  gsize size;
  guint n;
  gint *stop;
} Copier;

static gpointer
copy_again_and_again (gpointer data)
{
  Copier *self = data;
  g_autofree guint8 *to = g_malloc (self->size);

  for (guint i = 0; self->stop != NULL ? !g_atomic_int_get (self->stop) : i < self->n; i++)
    {
      memset (to, (int) i, self->size);
      ferry_copy_memory (to, self->from, self->size);
      if (memcmp (to, self->from, self->size) != 0)
        return GUINT_TO_POINTER (i + 1);
    }
  return NULL;
}

/* Only one of them has the helpers; the others get their bytes as well. */
START_TEST (test_threads)
{
  enum
  {
    N = 4
  };
  const gsize size = 5 * MIB;
  g_autofree guint8 *from = make_pattern (size);
  Copier copier = { from, size, 20, NULL };
  GThread *threads[N];

  for (guint i = 0; i < N; i++)
    threads[i] = g_thread_new ("copier", copy_again_and_again, &copier);
  for (guint i = 0; i < N; i++)
    ck_assert_uint_eq (GPOINTER_TO_UINT (g_thread_join (threads[i])), 0);
}
END_TEST

/* The numbers of this process's threads of that name. */
static guint
count_helpers (const char *field, guint64 *value)
{
  g_autoptr (GDir) tasks = g_dir_open ("/proc/self/task", 0, NULL);
  const char *task;
  guint n = 0;

  ck_assert_ptr_nonnull (tasks);
  while ((task = g_dir_read_name (tasks)) != NULL)
    {
      g_autofree char *path = g_strdup_printf ("/proc/self/task/%s/status", task);
      g_autofree char *status = NULL;
      const char *at;

      if (!g_file_get_contents (path, &status, NULL, NULL) || strstr (status, "ferry-copy") == NULL)
        continue;
      n++;
      at = field != NULL ? strstr (status, field) : NULL;
      if (at != NULL)
        *value = g_ascii_strtoull (at + strlen (field), NULL, 16);
    }
  return n;
}

/* A fork in the middle of another thread's copy: the child has neither that thread nor the helpers, and copies well. */
START_TEST (test_fork)
{
  const gsize size = 8 * MIB;
  g_autofree guint8 *from = make_pattern (size);
  gint stop = 0;
  Copier forever = { from, size, 0, &stop };
  GThread *thread = g_thread_new ("copier", copy_again_and_again, &forever);

  for (guint i = 0; i < 20; i++)
    {
      int status;
      pid_t child = fork ();

      ck_assert_int_ge (child, 0);
      if (child == 0)
        {
          Copier twice = { from, size, 2, NULL };

          gboolean ok;

          alarm (ferry_test_is_valgrind () ? 200 : 20);
          ok = copy_again_and_again (&twice) == NULL;
          /* What GLib had for the other thread is lost here, which valgrind would say. */
          if (ok && ferry_test_is_valgrind ())
            execl ("/bin/true", "true", NULL);
          _exit (ok ? 0 : 1);
        }
      ck_assert_int_eq (waitpid (child, &status, 0), child);
      ck_assert_msg (WIFEXITED (status) && WEXITSTATUS (status) == 0, "child %u ended with status %d", i, status);
    }
  g_atomic_int_set (&stop, 1);
  ck_assert_ptr_null (g_thread_join (thread));
}
END_TEST

/* They give themselves their name when they begin. */
static void
await_helpers (guint expected, guint64 *blocked)
{
  gint64 end = g_get_monotonic_time () + G_USEC_PER_SEC;

  while (count_helpers ("SigBlk:", blocked) < expected && g_get_monotonic_time () < end)
    g_usleep (1000);
  ck_assert_uint_eq (count_helpers ("SigBlk:", blocked), expected);
}

START_TEST (test_helpers)
{
  const gsize size = 32 * MIB;
  g_autofree guint8 *from = make_pattern (size);
  g_autofree guint8 *to = g_malloc0 (size);
  guint expected = MIN (g_get_num_processors (), 4) - 1;
  guint64 blocked = 0;
  gint64 end;

  ferry_copy_memory (to, from, MIB);
  ck_assert_uint_eq (count_helpers (NULL, NULL), 0);
  ferry_copy_memory (to, from, size);
  ferry_copy_memory (to, from, size);
  await_helpers (expected, &blocked);
  if (expected > 0)
    {
      ck_assert_msg (blocked & (1 << (SIGINT - 1)), "blocked signals: %" G_GINT64_MODIFIER "x", blocked);
      ck_assert_msg (blocked & (1 << (SIGUSR1 - 1)), "blocked signals: %" G_GINT64_MODIFIER "x", blocked);
    }

  /* Two idle seconds later they are gone, and come again. */
  end = g_get_monotonic_time () + 20 * G_USEC_PER_SEC;
  while (count_helpers (NULL, NULL) > 0 && g_get_monotonic_time () < end)
    g_usleep (50 * 1000);
  ck_assert_uint_eq (count_helpers (NULL, NULL), 0);
  memset (to, 0, size);
  ferry_copy_memory (to, from, size);
  ck_assert_mem_eq (to, from, size);
  await_helpers (expected, &blocked);
}
END_TEST

START_TEST (test_alone)
{
  const gsize size = 32 * MIB;
  g_autofree guint8 *from = make_pattern (size);
  g_autofree guint8 *to = g_malloc0 (size);

  g_setenv ("FERRY_COPY_THREADS", "1", TRUE);
  ferry_copy_memory (to, from, size);
  ck_assert_mem_eq (to, from, size);
  ck_assert_uint_eq (count_helpers (NULL, NULL), 0);
}
END_TEST

static GLogWriterOutput
keep_message (GLogLevelFlags level, const GLogField *fields, gsize n_fields, gpointer data)
{
  char **message = data;

  for (gsize i = 0; i < n_fields; i++)
    if (strcmp (fields[i].key, "MESSAGE") == 0 && *message == NULL)
      *message = g_strdup (fields[i].value);
  return G_LOG_WRITER_HANDLED;
}

START_TEST (test_wrong_number)
{
  static const char *const wrong[] = { "0", "65", "-1", "two", "2x" };
  const gsize size = 5 * MIB;
  g_autofree guint8 *from = make_pattern (size);
  g_autofree guint8 *to = g_malloc0 (size);
  char *message = NULL;

  g_setenv ("FERRY_COPY_THREADS", wrong[_i], TRUE);
  g_log_set_always_fatal (G_LOG_FATAL_MASK);
  g_log_set_writer_func (keep_message, &message, NULL);
  ferry_copy_memory (to, from, size);
  ck_assert_mem_eq (to, from, size);
  ck_assert_ptr_nonnull (message);
  ck_assert_ptr_nonnull (strstr (message, "FERRY_COPY_THREADS: expected a number of threads from 1 to 64"));
  g_free (message);
}
END_TEST

static void
add (Suite *suite)
{
  const TTest *const tests[] = { test_sizes, test_threads, test_fork, test_helpers, test_alone, NULL };
  TCase *numbers = tcase_create ("wrong numbers");

  ferry_test_add_case (suite, "copy", 60, tests);
  tcase_add_loop_test (numbers, test_wrong_number, 0, 5);
  suite_add_tcase (suite, numbers);
}

int
main (void)
{
  return ferry_test_run ("copy", add);
}
