/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ferry-test.h"

#include <glib/gstdio.h>

/*
 * ferry_test_run: runs a suite; what main() returns.
 *
 * Each test runs in a process of its own, unless CK_FORK=no (for a debugger).
 * CK_RUN_CASE, CK_VERBOSITY and the other variables of Check do as documented there.
 */
int
ferry_test_run (const char *name, void (*add) (Suite *suite))
{
  Suite *suite;
  SRunner *runner;
  int n_failed;

  suite = suite_create (name);
  add (suite);
  runner = srunner_create (suite);
  srunner_run_all (runner, CK_ENV);
  n_failed = srunner_ntests_failed (runner);
  srunner_free (runner);

  return n_failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

/*
 * ferry_test_add_case: a case of the NULL-terminated list of tests; the time-out in
 * seconds is for each of them.
 */
TCase *
ferry_test_add_case (Suite *suite, const char *name, double timeout, const TTest *const *tests)
{
  TCase *tcase = tcase_create (name);

  tcase_set_timeout (tcase, timeout);
  for (guint i = 0; tests[i] != NULL; i++)
    tcase_add_test (tcase, tests[i]);
  suite_add_tcase (suite, tcase);

  return tcase;
}

/* Whether the test may take its time (meson test --setup thorough). */
gboolean
ferry_test_is_thorough (void)
{
  return g_getenv ("FERRY_TEST_THOROUGH") != NULL;
}

/* Whether the test runs under valgrind (meson test --setup valgrind). */
gboolean
ferry_test_is_valgrind (void)
{
  return g_getenv ("FERRY_TEST_VALGRIND") != NULL;
}

/* A new folder of mode 0700, to be removed with ferry_test_remove_folder(). */
char *
ferry_test_make_folder (void)
{
  g_autoptr (GError) error = NULL;
  char *path = g_dir_make_tmp ("ferry-test-XXXXXX", &error);

  ferry_assert_no_error (error);
  return path;
}

/* Removes a folder and all in it. */
void
ferry_test_remove_folder (const char *path)
{
  if (!g_file_test (path, G_FILE_TEST_IS_SYMLINK))
    {
      g_autoptr (GDir) dir = g_dir_open (path, 0, NULL);
      const char *name;

      while (dir != NULL && (name = g_dir_read_name (dir)) != NULL)
        {
          g_autofree char *child = g_build_filename (path, name, NULL);

          ferry_test_remove_folder (child);
        }
    }
  g_remove (path);
}

/* The path of a thing in the build tree's tests/fixtures. */
char *
ferry_test_fixture (const char *name)
{
  const char *fixtures = g_getenv ("FERRY_TEST_FIXTURES");

  ck_assert_msg (fixtures != NULL, "FERRY_TEST_FIXTURES is not set: run this by meson test");
  return g_build_filename (fixtures, name, NULL);
}

void
ferry_test_assert_last_unref (gpointer object, const char *file, int line)
{
  gpointer weak = object;

  g_object_add_weak_pointer (object, &weak);
  g_object_unref (object);
  ck_assert_msg (weak == NULL, "%s:%d: somebody still holds the object", file, line);
}

/* Copies a plugin from the build tree's tests/fixtures into a folder; gives its path. */
char *
ferry_test_install_plugin (const char *name, const char *folder)
{
  g_autofree char *file = g_strdup_printf ("libferry-%s.so", name);
  g_autofree char *from_path = ferry_test_fixture (file);
  char *to_path = g_build_filename (folder, file, NULL);
  g_autoptr (GFile) from = g_file_new_for_path (from_path);
  g_autoptr (GFile) to = g_file_new_for_path (to_path);
  g_autoptr (GError) error = NULL;

  g_file_copy (from, to, G_FILE_COPY_OVERWRITE, NULL, NULL, NULL, &error);
  ferry_assert_no_error (error);
  ck_assert_int_eq (g_chmod (to_path, 0644), 0);

  return to_path;
}
