/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ferry-test.h"

START_TEST (test_defaults)
{
  g_autoptr (FerryChannelConfig) config = ferry_channel_config_new ();
  g_autoptr (GError) error = NULL;

  ck_assert_ptr_null (config->name);
  ck_assert_int_eq (config->mode, FERRY_MODE_WORK_QUEUE);
  ck_assert_int_eq (config->overflow, FERRY_OVERFLOW_BLOCK);
  ck_assert_int_eq (config->wait_strategy, FERRY_WAIT_STRATEGY_ADAPTIVE);
  ck_assert_int_eq (config->open_mode, FERRY_OPEN_MODE_CREATE_OR_JOIN);
  ck_assert_uint_eq (config->capacity, 0);
  ck_assert_uint_eq (config->max_bytes, 0);
  ck_assert_uint_eq (config->history, 0);
  ck_assert_uint_eq (config->inline_size, 0);
  ck_assert (!config->timestamps);
  ck_assert (config->join_settings);
  ck_assert_int_eq (config->group, -1);
  ck_assert (ferry_channel_config_validate (config, &error));
  ferry_assert_no_error (error);
}
END_TEST

START_TEST (test_copy)
{
  g_autoptr (FerryChannelConfig) config = ferry_channel_config_new ();
  g_autoptr (FerryChannelConfig) copy = NULL;

  config->name = g_strdup ("frames");
  config->capacity = 7;
  config->group = 100;
  copy = ferry_channel_config_copy (config);
  ck_assert_str_eq (copy->name, "frames");
  ck_assert_ptr_ne (copy->name, config->name);
  ck_assert_uint_eq (copy->capacity, 7);
  ck_assert_int_eq (copy->group, 100);
  ferry_channel_config_free (NULL);
}
END_TEST

static void
assert_refused (FerryChannelConfig *config, const char *part)
{
  g_autoptr (GError) error = NULL;

  ck_assert_msg (!ferry_channel_config_validate (config, &error), "accepted, instead of: %s", part);
  ferry_assert_error (error, FERRY_ERROR, FERRY_ERROR_INVALID_ARGUMENT);
  ferry_assert_contains (error->message, part);
  ck_assert (g_utf8_validate (error->message, -1, NULL));
}

static void
assert_accepted (FerryChannelConfig *config)
{
  g_autoptr (GError) error = NULL;

  ck_assert (ferry_channel_config_validate (config, &error) || error != NULL);
  ferry_assert_no_error (error);
}

START_TEST (test_names)
{
  static const char *const good[] = { "f", "frames", "camera 1", "a.b", "Bild\xc3\xa4r", "-", "a=b", "name!", "\\" };
  static const struct
  {
    const char *name;
    const char *part;
  } bad[] = {
    { "", "is empty" },
    { "a/b", "use for instance \"a-b\"" },
    { "/", "slash" },
    { ".", "dot" },
    { "..", "dot" },
    { ".hidden", "dot" },
    { "a\nb", "control character (at byte 1)" },
    { "a\x7f", "control character" },
    { "a\xc2\x85", "control character" },
    { "\xff\xfe", "not valid UTF-8" },
    { "a\xc3", "not valid UTF-8" },
  };
  g_autofree char *longest = g_strnfill (200, 'x');
  g_autofree char *too_long = g_strnfill (300, 'x');
  g_autoptr (FerryChannelConfig) config = ferry_channel_config_new ();

  for (guint i = 0; i < G_N_ELEMENTS (good); i++)
    {
      g_free (config->name);
      config->name = g_strdup (good[i]);
      assert_accepted (config);
    }
  for (guint i = 0; i < G_N_ELEMENTS (bad); i++)
    {
      g_free (config->name);
      config->name = g_strdup (bad[i].name);
      assert_refused (config, bad[i].part);
    }

  g_free (config->name);
  config->name = g_strdup (longest);
  assert_accepted (config);
  g_free (config->name);
  config->name = g_strdup (too_long);
  assert_refused (config, "has 300 bytes; at most 200 are allowed");
}
END_TEST

START_TEST (test_ranges)
{
  g_autoptr (FerryChannelConfig) config = ferry_channel_config_new ();

  config->name = g_strdup ("frames");

  config->capacity = 1;
  assert_accepted (config);
  config->capacity = 1048576;
  assert_accepted (config);
  config->capacity = 1048577;
  assert_refused (config, "channel 'frames': capacity is 1048577; it must be 1 to 1048576, or 0 for 256");
  config->capacity = 0;

  config->inline_size = 63;
  assert_refused (config, "inline-size is 63; it must be 64 to 4040");
  config->inline_size = 64;
  assert_accepted (config);
  config->inline_size = 4040;
  assert_accepted (config);
  config->inline_size = 4041;
  assert_refused (config, "inline-size is 4041");
  config->inline_size = 0;

  config->mode = FERRY_MODE_BROADCAST;
  config->history = 65536;
  assert_accepted (config);
  config->history = 65537;
  assert_refused (config, "history is 65537; it must be 0 to 65536");
  config->history = 1;
  config->mode = FERRY_MODE_WORK_QUEUE;
  assert_refused (config, "a work queue keeps no history");
  config->open_mode = FERRY_OPEN_MODE_JOIN;
  assert_accepted (config);
  config->join_settings = FALSE;
  assert_refused (config, "a work queue keeps no history");
  config->history = 0;

  config->group = 4294967294;
  assert_accepted (config);
  config->group = 4294967295;
  assert_refused (config, "group is 4294967295");
  config->group = -2;
  assert_refused (config, "group is -2");
  config->group = -1;

  config->max_bytes = G_MAXUINT64;
  assert_accepted (config);
}
END_TEST

START_TEST (test_enums)
{
  g_autoptr (FerryChannelConfig) config = ferry_channel_config_new ();

  config->mode = 3;
  assert_refused (config, "channel '(anonymous)': mode is 3");
  config->mode = -1;
  assert_refused (config, "mode is -1");
  config->mode = FERRY_MODE_BROADCAST;
  config->role = 3;
  assert_refused (config, "role is 3");
  config->role = FERRY_ROLE_OBSERVER;
  config->overflow = 4;
  assert_refused (config, "overflow is 4");
  config->overflow = FERRY_OVERFLOW_DROP_NEWEST;
  config->wait_strategy = 3;
  assert_refused (config, "wait-strategy is 3");
  config->wait_strategy = FERRY_WAIT_STRATEGY_SLEEP;
  config->open_mode = 3;
  assert_refused (config, "open-mode is 3");
  config->open_mode = FERRY_OPEN_MODE_JOIN;
  assert_accepted (config);
}
END_TEST

static void
add (Suite *suite)
{
  const TTest *const tests[] = { test_defaults, test_copy, test_names, test_ranges, test_enums, NULL };

  ferry_test_add_case (suite, "channel-config", 10, tests);
}

int
main (void)
{
  return ferry_test_run ("channel-config", add);
}
