/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ferry-test.h"

#include "ferry-nearest-private.h"

START_TEST (test_nearest)
{
  static const char *const candidates[] = { "posix-shm", "memfd", "capacity", "mode", "name", NULL };
  static const struct
  {
    const char *name;
    const char *nearest;
  } cases[] = {
    { "posix-smh", "posix-shm" }, /* swapped neighbours are one step */
    { "posixshm", "posix-shm" },
    { "memdf", "memfd" },
    { "MEMFD", "memfd" },
    { "capcity", "capacity" },
    { "cap", "capacity" }, /* the beginning of only one */
    { "moed", "mode" },
    { "memfd2", "memfd" },
    { "zeromq", NULL },
    { "xyz", NULL },
    { "", NULL },
  };

  for (guint i = 0; i < G_N_ELEMENTS (cases); i++)
    {
      const char *nearest = ferry_nearest_name (cases[i].name, candidates);

      ck_assert_msg (g_strcmp0 (nearest, cases[i].nearest) == 0, "\"%s\": %s instead of %s", cases[i].name,
                     nearest != NULL ? nearest : "(none)", cases[i].nearest != NULL ? cases[i].nearest : "(none)");
    }
}
END_TEST

START_TEST (test_no_candidates)
{
  static const char *const none[] = { NULL };
  static const char *const empty[] = { "", NULL };
  g_autofree char *long_name = g_strnfill (100000, 'x');
  const char *const long_names[] = { long_name, NULL };

  ck_assert_ptr_null (ferry_nearest_name ("a", none));
  ck_assert_ptr_null (ferry_nearest_name ("a", NULL));
  ck_assert_ptr_null (ferry_nearest_name ("a", empty));
  ck_assert_ptr_null (ferry_nearest_name (long_name, none));
  ck_assert_ptr_null (ferry_nearest_name ("x", long_names));
}
END_TEST

/* Of two that it may be the beginning of neither is named. */
START_TEST (test_ambiguous_beginning)
{
  static const char *const candidates[] = { "max-bytes", "max-messages", NULL };

  ck_assert_ptr_null (ferry_nearest_name ("max", candidates));
}
END_TEST

static void
add (Suite *suite)
{
  const TTest *const tests[] = { test_nearest, test_no_candidates, test_ambiguous_beginning, NULL };

  ferry_test_add_case (suite, "nearest", 10, tests);
}

int
main (void)
{
  return ferry_test_run ("nearest", add);
}
