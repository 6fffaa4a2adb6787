/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ferry-test.h"

/* Every byte must survive a copy: also of fields that come later. */
static void
fill (guint8 *bytes, gsize size)
{
  for (gsize i = 0; i < size; i++)
    bytes[i] = (guint8) (i * 31 + 7);
}

START_TEST (test_statistics)
{
  static const FerryStatistics zero = { 0 };
  g_autoptr (FerryStatistics) statistics = ferry_statistics_new ();
  g_autoptr (FerryStatistics) copy = NULL;

  ck_assert_mem_eq (statistics, &zero, sizeof zero);
  fill ((guint8 *) statistics, sizeof *statistics);
  copy = ferry_statistics_copy (statistics);
  ck_assert_ptr_ne (copy, statistics);
  ck_assert_mem_eq (copy, statistics, sizeof zero);
}
END_TEST

START_TEST (test_participant)
{
  static const FerryParticipant zero = { 0 };
  g_autoptr (FerryParticipant) participant = ferry_participant_new ();
  g_autoptr (FerryParticipant) copy = NULL;

  ck_assert_mem_eq (participant, &zero, sizeof zero);
  fill ((guint8 *) participant, sizeof *participant);
  copy = ferry_participant_copy (participant);
  ck_assert_ptr_ne (copy, participant);
  ck_assert_mem_eq (copy, participant, sizeof zero);
}
END_TEST

START_TEST (test_boxed)
{
  g_auto (GValue) value = G_VALUE_INIT;
  g_auto (GValue) copy = G_VALUE_INIT;
  FerryStatistics *statistics = ferry_statistics_new ();

  statistics->messages_sent = 5;
  g_value_init (&value, FERRY_TYPE_STATISTICS);
  g_value_take_boxed (&value, statistics);
  g_value_init (&copy, FERRY_TYPE_STATISTICS);
  g_value_copy (&value, &copy);
  ck_assert_uint_eq (((FerryStatistics *) g_value_get_boxed (&copy))->messages_sent, 5);
  ck_assert_str_eq (g_type_name (FERRY_TYPE_PARTICIPANT), "FerryParticipant");
}
END_TEST

/* Public structures may not change their size within an API version. */
START_TEST (test_sizes)
{
  ck_assert_uint_eq (sizeof (FerryStatistics), 23 * 8);
#if GLIB_SIZEOF_VOID_P == 8
  ck_assert_uint_eq (sizeof (FerryParticipant), 2 * 4 + 4 + 4 + 8 + 2 * 4 + 4 * 8 + 8 + 4 * 8);
#endif
}
END_TEST

static void
add (Suite *suite)
{
  const TTest *const tests[] = { test_statistics, test_participant, test_boxed, test_sizes, NULL };

  ferry_test_add_case (suite, "statistics", 10, tests);
}

int
main (void)
{
  return ferry_test_run ("statistics", add);
}
