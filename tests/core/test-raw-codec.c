/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ferry-test.h"

#include "ferry-raw-codec-private.h"

#include <string.h>

static FerryCodec *
make_codec (void)
{
  return g_object_new (FERRY_TYPE_RAW_CODEC, NULL);
}

static void
on_release (gpointer data)
{
  (*(int *) data)++;
}

START_TEST (test_name)
{
  FerryCodec *codec = make_codec ();

  ck_assert_str_eq (ferry_codec_get_wire_name (codec), "raw");
  ck_assert_uint_eq (ferry_codec_get_wire_version (codec), 1);
  ck_assert (ferry_codec_accepts (codec, G_TYPE_BYTES));
  ck_assert (ferry_codec_accepts (codec, FERRY_TYPE_BUFFER));
  ck_assert (!ferry_codec_accepts (codec, G_TYPE_STRING));
  ck_assert (!ferry_codec_accepts (codec, G_TYPE_VARIANT));
  ferry_assert_last_unref (codec);
}
END_TEST

/* The message is the bytes, and nothing more. */
START_TEST (test_as_it_is)
{
  g_autoptr (FerryCodec) codec = make_codec ();
  g_autoptr (GBytes) bytes = g_bytes_new_static ("abc", 3);
  g_autoptr (GBytes) encoded = NULL;
  g_autoptr (GError) error = NULL;
  g_auto (GValue) value = G_VALUE_INIT;

  g_value_init (&value, G_TYPE_BYTES);
  g_value_set_boxed (&value, bytes);
  encoded = ferry_codec_encode_bytes (codec, &value, &error);
  ferry_assert_no_error (error);
  ck_assert (g_bytes_equal (bytes, encoded));
}
END_TEST

START_TEST (test_zero_copy)
{
  g_autoptr (FerryCodec) codec = make_codec ();
  g_autoptr (GError) error = NULL;
  guint8 memory[100] = { 1, 2, 3 };
  int n_released = 0;
  FerryBuffer *buffer = ferry_buffer_new_take (memory, sizeof memory, FALSE, on_release, &n_released);
  GValue value = G_VALUE_INIT;
  gsize size;

  ck_assert (ferry_codec_decode (codec, buffer, 1, &value, &error));
  ferry_assert_no_error (error);
  ck_assert (G_VALUE_HOLDS (&value, G_TYPE_BYTES));
  ck_assert_ptr_eq (g_bytes_get_data (g_value_get_boxed (&value), &size), memory);
  ck_assert_uint_eq (size, sizeof memory);

  ferry_buffer_unref (buffer);
  ck_assert_int_eq (n_released, 0);
  g_value_unset (&value);
  ck_assert_int_eq (n_released, 1);
}
END_TEST

static void
assert_refused (GValue *value, const char *part)
{
  g_autoptr (FerryCodec) codec = make_codec ();
  g_autoptr (GError) error = NULL;

  ck_assert_ptr_null (ferry_codec_encode_bytes (codec, value, &error));
  ferry_assert_error (error, FERRY_ERROR, FERRY_ERROR_CODEC);
  ferry_assert_contains (error->message, "codec 'raw'");
  ferry_assert_contains (error->message, part);
  g_value_unset (value);
}

START_TEST (test_refused)
{
  GValue value = G_VALUE_INIT;

  g_value_init (&value, G_TYPE_STRING);
  g_value_set_string (&value, "text");
  assert_refused (&value, "wrap the text with g_bytes_new()");

  g_value_init (&value, G_TYPE_VARIANT);
  g_value_set_variant (&value, g_variant_new_int32 (1));
  assert_refused (&value, "use codec gvariant");

  g_value_init (&value, G_TYPE_INT);
  assert_refused (&value, "gint");

  g_value_init (&value, G_TYPE_BYTES);
  assert_refused (&value, "NULL");
}
END_TEST

START_TEST (test_changed_size)
{
  g_autoptr (FerryCodec) codec = make_codec ();
  g_autoptr (FerryBuffer) buffer = ferry_buffer_new (10);
  g_autoptr (GError) error = NULL;
  g_auto (GValue) value = G_VALUE_INIT;
  guint8 data[10];
  gsize size;

  g_value_init (&value, FERRY_TYPE_BUFFER);
  g_value_set_boxed (&value, buffer);
  ck_assert (ferry_codec_measure (codec, &value, &size, NULL, &error));
  ck_assert_uint_eq (size, 10);
  ck_assert (ferry_buffer_set_size (buffer, 9));
  ck_assert (!ferry_codec_encode (codec, &value, data, size, NULL, &error));
  ferry_assert_error (error, FERRY_ERROR, FERRY_ERROR_CODEC);
}
END_TEST

static void
add (Suite *suite)
{
  const TTest *const tests[] = { test_name, test_as_it_is, test_zero_copy, test_refused, test_changed_size, NULL };

  ferry_test_add_case (suite, "raw-codec", 10, tests);
}

int
main (void)
{
  return ferry_test_run ("raw-codec", add);
}
