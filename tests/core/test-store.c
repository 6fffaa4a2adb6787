/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ferry-test.h"

#include <stdatomic.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#define MAX_BYTES (67108864)

static FerryStore *
open_text (const char *description)
{
  g_autoptr (GError) error = NULL;
  FerryStore *store = ferry_store_open (description, NULL, &error);

  ferry_assert_no_error (error);
  return store;
}

static void
count_cb (GObject *object, GParamSpec *pspec, gpointer data)
{
  gboolean closed;

  g_object_get (object, "closed", &closed, NULL);
  ck_assert (closed);
  ck_assert_str_eq (pspec->name, "closed");
  ++*(guint *) data;
}

START_TEST (test_properties)
{
  g_autofree char *wanted = g_strdup_printf ("store-%d", (int) getpid ());
  g_autofree char *text = g_strdup_printf ("memfd name=%s max-bytes=64MiB", wanted);
  g_autofree char *name = NULL;
  g_autofree char *description = NULL;
  guint64 max_bytes = 0;
  gboolean closed = TRUE;
  guint n_notified = 0;
  FerryStore *store = open_text (text);

  g_object_get (store, "name", &name, "description", &description, "max-bytes", &max_bytes, "closed", &closed, NULL);
  ck_assert_str_eq (name, wanted);
  ck_assert_str_eq (name, ferry_store_get_name (store));
  ck_assert_str_eq (description, text);
  ck_assert_uint_eq (max_bytes, MAX_BYTES);
  ck_assert_uint_eq (max_bytes, ferry_store_get_max_bytes (store));
  ck_assert (!closed);

  g_signal_connect (store, "notify", G_CALLBACK (count_cb), &n_notified);
  ferry_store_close (store);
  ck_assert_uint_eq (n_notified, 1);
  ferry_store_close (store); /* nothing changes */
  ck_assert_uint_eq (n_notified, 1);
  g_clear_pointer (&name, g_free);
  g_object_get (store, "name", &name, NULL);
  ck_assert_str_eq (name, wanted);
  ferry_assert_last_unref (store);
}
END_TEST

START_TEST (test_properties_of_anonymous)
{
  g_autoptr (FerryStore) store = open_text ("memfd");
  g_autofree char *name = NULL;
  guint64 max_bytes;

  g_object_get (store, "name", &name, "max-bytes", &max_bytes, NULL);
  ck_assert_ptr_null (name);
  ck_assert_uint_gt (max_bytes, 0);
}
END_TEST

START_TEST (test_dispose)
{
  FerryStore *store = open_text ("memfd max-bytes=64MiB");
  guint n_notified = 0;

  g_signal_connect (store, "notify::closed", G_CALLBACK (count_cb), &n_notified);
  g_object_run_dispose (G_OBJECT (store));
  g_object_run_dispose (G_OBJECT (store));
  ck_assert_uint_eq (n_notified, 1);
  ferry_assert_last_unref (store);
}
END_TEST

/* What can be set is told by the pspecs: nothing. */
START_TEST (test_read_only)
{
  g_autoptr (GTypeClass) klass = g_type_class_ref (FERRY_TYPE_STORE);
  guint n;
  g_autofree GParamSpec **pspecs = g_object_class_list_properties (G_OBJECT_CLASS (klass), &n);

  ck_assert_uint_eq (n, 4);
  for (guint i = 0; i < n; i++)
    ck_assert_msg ((pspecs[i]->flags & (G_PARAM_READABLE | G_PARAM_WRITABLE)) == G_PARAM_READABLE, "%s can be set",
                   pspecs[i]->name);
}
END_TEST

static void
assert_closed (gboolean ok, GError **error)
{
  ck_assert (!ok);
  ferry_assert_error (*error, FERRY_ERROR, FERRY_ERROR_CLOSED);
  g_clear_error (error);
}

static void
assert_never_opened (FerryStore *store)
{
  g_autoptr (GError) error = NULL;
  guint8 identity[16];
  guint64 seen = 0;

  ck_assert_ptr_null (ferry_store_get_name (store));
  ck_assert_uint_eq (ferry_store_get_max_bytes (store), 0);
  ck_assert_uint_eq (ferry_store_get_bytes_used (store), 0);
  ck_assert_uint_eq (ferry_store_get_bytes_committed (store), 0);
  ck_assert_uint_eq (ferry_store_watch (store), 0);
  ck_assert (!ferry_store_check (store, &seen));
  ck_assert (!ferry_store_in_transaction (store));
  ck_assert_uint_eq (ferry_store_trim (store), 0);
  ferry_store_get_identity (store, identity);
  assert_closed (ferry_store_begin_transaction (store, 0, NULL, &error), &error);
  assert_closed (ferry_store_collect (store, &error), &error);
  assert_closed (ferry_store_verify (store, &error), &error);
  assert_closed (ferry_store_wait_change (store, &seen, 0, NULL, &error), &error);
  assert_closed (ferry_store_get_fd (store, &error) >= 0, &error);
  assert_closed (ferry_store_get (store, "", &error) != NULL, &error);
  assert_closed (ferry_store_set (store, "x", g_variant_new_int64 (1), &error), &error);
  assert_closed (ferry_store_get_length (store, "", &error) >= 0, &error);
  ck_assert (!ferry_store_commit (store, &error));
  ferry_assert_error (error, FERRY_ERROR, FERRY_ERROR_INVALID_ARGUMENT);
  ferry_store_close (store);
}

/* Bindings can make one: it is closed for ever, also in a fork child. */
START_TEST (test_never_opened)
{
  FerryStore *store = g_object_new (FERRY_TYPE_STORE, NULL);
  int status;
  pid_t pid;

  assert_never_opened (store);
  pid = fork ();
  ck_assert_int_ge (pid, 0);
  if (pid == 0)
    {
      assert_never_opened (store);
      g_object_unref (store);
      _exit (0);
    }
  ck_assert_int_eq (waitpid (pid, &status, 0), pid);
  ck_assert (WIFEXITED (status) && WEXITSTATUS (status) == 0);
  ferry_assert_last_unref (store);
}
END_TEST

START_TEST (test_descriptions)
{
  static const struct
  {
    const char *text;
    int code;
    const char *part;
  } bad[] = {
    { "memfd max-bytes=much", FERRY_ERROR_INVALID_ARGUMENT, "FerryStore: property 'max-bytes': \"much\"" },
    { "memfd max-bytes=16YB", FERRY_ERROR_INVALID_ARGUMENT, "64k, 16MiB, 10GB" },
    { "memfd open-mode=joyn", FERRY_ERROR_INVALID_ARGUMENT, "did you mean 'join'?" },
    { "memfd group=-2", FERRY_ERROR_INVALID_ARGUMENT, "out of range" },
    { "memfd group=wheel", FERRY_ERROR_INVALID_ARGUMENT, "not a whole number" },
    { "memfd name=a/b", FERRY_ERROR_INVALID_ARGUMENT, "a/b" },
    { "memfd capacity=3", FERRY_ERROR_PARSE, "a store has no property 'capacity'" },
    { "memfd nam=a", FERRY_ERROR_PARSE, "name, max-bytes, open-mode, group" },
    { "memfd name=a name=b", FERRY_ERROR_PARSE, "a second time" },
    { "memfd open-mode=join name=ferry-nobody-has-it", FERRY_ERROR_NOT_FOUND, "ferry-nobody-has-it" },
  };

  for (gsize i = 0; i < G_N_ELEMENTS (bad); i++)
    {
      g_autoptr (GError) error = NULL;
      g_autoptr (FerryStore) store = ferry_store_open (bad[i].text, NULL, &error);

      ck_assert_msg (store == NULL, "%s was opened", bad[i].text);
      ferry_assert_error (error, FERRY_ERROR, bad[i].code);
      ferry_assert_contains (error->message, bad[i].part);
    }
}
END_TEST

/* As properties of a channel are written: with units, by nick, with '_'. */
START_TEST (test_descriptions_read)
{
  g_autofree char *text
      = g_strdup_printf ("memfd name='a store %d' max_bytes=0.0625GiB open-mode=CREATE group=-1", (int) getpid ());
  g_autofree char *name = g_strdup_printf ("a store %d", (int) getpid ());
  g_autoptr (FerryStore) store = open_text (text);
  g_autoptr (GError) error = NULL;

  ck_assert_str_eq (ferry_store_get_name (store), name);
  ck_assert_uint_eq (ferry_store_get_max_bytes (store), MAX_BYTES);
  ck_assert_ptr_null (ferry_store_open (text, NULL, &error));
  ferry_assert_error (error, FERRY_ERROR, FERRY_ERROR_EXISTS);
}
END_TEST

#define LARGE (48 * 1024 * 1024)

/* From now on this process gets no memory of that size. */
static void
limit_memory (void)
{
  g_autofree char *text = NULL;
  struct rlimit limit;
  guint64 pages;

  ck_assert (g_file_get_contents ("/proc/self/statm", &text, NULL, NULL));
  pages = g_ascii_strtoull (text, NULL, 10);
  ck_assert_int_eq (getrlimit (RLIMIT_AS, &limit), 0);
  limit.rlim_cur = pages * (guint64) sysconf (_SC_PAGESIZE) + LARGE / 2;
  ck_assert_int_eq (setrlimit (RLIMIT_AS, &limit), 0);
}

static void
assert_lacking (FerryStore *store, const char *path)
{
  g_autoptr (GError) error = NULL;

  ck_assert_ptr_null (ferry_store_get (store, path, &error));
  ferry_assert_error (error, FERRY_ERROR, FERRY_ERROR_NO_SPACE);
  ferry_assert_contains (error->message, "no memory for a copy of");
}

/* That this process has no memory for a copy is no fault of the store. */
START_TEST (test_no_memory_for_a_copy)
{
  g_autoptr (FerryStore) store = open_text ("memfd max-bytes=1GiB");
  g_autoptr (GError) error = NULL;
  g_autofree guint8 *bytes = g_malloc0 (LARGE);
  const char *const paths[] = { "x", "list[0]", "dict.x", "record[0][1]" };

  for (guint i = 0; i < G_N_ELEMENTS (paths); i++)
    {
      GVariant *value = g_variant_new_from_data (G_VARIANT_TYPE_BYTESTRING, bytes, LARGE, TRUE, NULL, NULL);

      if (i == 1)
        value = g_variant_new_array (G_VARIANT_TYPE_BYTESTRING, &value, 1);
      else if (i == 2)
        value = g_variant_new_parsed ("{'x': <%@ay>}", value);
      else if (i == 3)
        value = g_variant_new_parsed ("[<(1, %@ay)>]", value);
      ck_assert (ferry_store_set (store, (const char *const[]){ "x", "list", "dict", "record" }[i], value, &error));
      ferry_assert_no_error (error);
    }
  ck_assert (ferry_store_set (store, "small", g_variant_new_int64 (5), &error));
  limit_memory ();
  for (guint i = 0; i < G_N_ELEMENTS (paths); i++)
    assert_lacking (store, paths[i]);
  assert_lacking (store, "list");

  /* the store is as good as before */
  {
    g_autoptr (GVariant) small = ferry_store_get (store, "small", &error);

    ferry_assert_no_error (error);
    ck_assert_int_eq (g_variant_get_int64 (small), 5);
  }
  ck_assert (ferry_store_remove (store, "list", &error));
  ck_assert (ferry_store_verify (store, &error));
}
END_TEST

/* ---- closing while other threads use it ---- */

typedef struct
{
  FerryStore *store;
  _Atomic gboolean started;
  GError *error;
} User;

static gpointer
use_thread (gpointer data)
{
  User *user = data;
  g_autofree char *text = g_strnfill (300, 'x');

  while (user->error == NULL)
    {
      g_autoptr (GVariant) value = g_variant_ref_sink (g_variant_new_string (text));

      if (ferry_store_set (user->store, "place", value, &user->error))
        ferry_store_remove (user->store, "place", &user->error);
      /* the other one may have removed it */
      if (g_error_matches (user->error, FERRY_ERROR, FERRY_ERROR_NOT_FOUND))
        g_clear_error (&user->error);
      atomic_store_explicit (&user->started, TRUE, memory_order_relaxed);
    }
  return NULL;
}

/* Nothing of it happens after the store was closed: somebody else may have the slot by then. */
START_TEST (test_close_in_use)
{
  g_autofree char *text = g_strdup_printf ("memfd name=close-%d max-bytes=64MiB", (int) getpid ());
  g_autoptr (FerryStore) other = open_text (text);
  g_autoptr (GError) error = NULL;

  for (guint i = 0; i < (ferry_test_is_valgrind () ? 3 : 60); i++)
    {
      FerryStore *store = open_text (text);
      User users[2] = { { .store = store }, { .store = store } };
      GThread *threads[2];

      for (guint t = 0; t < 2; t++)
        threads[t] = g_thread_new ("user", use_thread, &users[t]);
      for (guint t = 0; t < 2; t++)
        while (!atomic_load_explicit (&users[t].started, memory_order_relaxed))
          g_usleep (10);
      g_usleep (g_random_int_range (0, 200));
      ferry_store_close (store);
      for (guint t = 0; t < 2; t++)
        {
          g_thread_join (threads[t]);
          ferry_assert_error (users[t].error, FERRY_ERROR, FERRY_ERROR_CLOSED);
          g_clear_error (&users[t].error);
        }
      ferry_assert_last_unref (store);
      /* who left in good order leaves nothing to be found */
      ck_assert_msg (ferry_store_verify (other, &error), "%s", error != NULL ? error->message : "");
    }
}
END_TEST

static void
add_tests (Suite *suite)
{
  ferry_test_add_case (suite, "properties", 10,
                       (const TTest *const[]){ test_properties, test_properties_of_anonymous, test_dispose,
                                               test_read_only, test_never_opened, NULL });
  ferry_test_add_case (suite, "descriptions", 10,
                       (const TTest *const[]){ test_descriptions, test_descriptions_read, NULL });
  ferry_test_add_case (suite, "closing", 30, (const TTest *const[]){ test_close_in_use, NULL });
  /* they need all address space themselves */
#ifndef __SANITIZE_ADDRESS__
  if (!ferry_test_is_valgrind ())
    ferry_test_add_case (suite, "memory", 30, (const TTest *const[]){ test_no_memory_for_a_copy, NULL });
#endif
}

int
main (void)
{
  return ferry_test_run ("store", add_tests);
}
