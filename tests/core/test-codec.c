/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ferry-test.h"

/*
 * A codec for ints that counts what it is asked; and one that does nothing at all.
 */

#define TEST_TYPE_INT_CODEC (test_int_codec_get_type ())
G_DECLARE_FINAL_TYPE (TestIntCodec, test_int_codec, TEST, INT_CODEC, GObject)

struct _TestIntCodec
{
  GObject parent_instance;

  gboolean encode_fails;
  int n_states;
};

static void test_int_codec_codec_init (FerryCodecInterface *iface);

G_DEFINE_FINAL_TYPE_WITH_CODE (TestIntCodec, test_int_codec, G_TYPE_OBJECT,
                               G_IMPLEMENT_INTERFACE (FERRY_TYPE_CODEC, test_int_codec_codec_init))

static const char *
test_int_codec_get_wire_name (FerryCodec *codec)
{
  return "test-int";
}

static guint
test_int_codec_get_wire_version (FerryCodec *codec)
{
  return 3;
}

static gboolean
test_int_codec_accepts (FerryCodec *codec, GType type)
{
  return type == G_TYPE_INT;
}

static gboolean
test_int_codec_measure (FerryCodec *codec, const GValue *value, gsize *size, gpointer *state, GError **error)
{
  *size = sizeof (int);
  *state = g_strdup ("state");
  TEST_INT_CODEC (codec)->n_states++;
  return TRUE;
}

static gboolean
test_int_codec_encode (FerryCodec *codec, const GValue *value, guint8 *data, gsize size, gpointer state, GError **error)
{
  int number = g_value_get_int (value);

  if (TEST_INT_CODEC (codec)->encode_fails)
    {
      g_set_error (error, FERRY_ERROR, FERRY_ERROR_CODEC, "asked to fail");
      return FALSE;
    }
  memcpy (data, &number, sizeof number);
  return TRUE;
}

static void
test_int_codec_free_state (FerryCodec *codec, gpointer state)
{
  ck_assert_str_eq (state, "state");
  TEST_INT_CODEC (codec)->n_states--;
  g_free (state);
}

/* Leaves the value set even when it fails, which the wrapper has to clean up. */
static gboolean
test_int_codec_decode (FerryCodec *codec, FerryBuffer *buffer, guint version, GValue *value, GError **error)
{
  gsize size;
  const guint8 *data = ferry_buffer_get_data (buffer, &size);
  int number;

  g_value_init (value, G_TYPE_INT);
  if (size != sizeof number)
    {
      g_set_error (error, FERRY_ERROR, FERRY_ERROR_CODEC, "no int");
      return FALSE;
    }
  memcpy (&number, data, sizeof number);
  g_value_set_int (value, number);
  return TRUE;
}

static void
test_int_codec_codec_init (FerryCodecInterface *iface)
{
  iface->get_wire_name = test_int_codec_get_wire_name;
  iface->get_wire_version = test_int_codec_get_wire_version;
  iface->accepts = test_int_codec_accepts;
  iface->measure = test_int_codec_measure;
  iface->encode = test_int_codec_encode;
  iface->free_state = test_int_codec_free_state;
  iface->decode = test_int_codec_decode;
}

static void
test_int_codec_class_init (TestIntCodecClass *klass)
{
}

static void
test_int_codec_init (TestIntCodec *self)
{
}

#define TEST_TYPE_IDLE_CODEC (test_idle_codec_get_type ())
G_DECLARE_FINAL_TYPE (TestIdleCodec, test_idle_codec, TEST, IDLE_CODEC, GObject)

struct _TestIdleCodec
{
  GObject parent_instance;
};

static void
test_idle_codec_codec_init (FerryCodecInterface *iface)
{
}

G_DEFINE_FINAL_TYPE_WITH_CODE (TestIdleCodec, test_idle_codec, G_TYPE_OBJECT,
                               G_IMPLEMENT_INTERFACE (FERRY_TYPE_CODEC, test_idle_codec_codec_init))

static void
test_idle_codec_class_init (TestIdleCodecClass *klass)
{
}

static void
test_idle_codec_init (TestIdleCodec *self)
{
}

START_TEST (test_round_trip)
{
  FerryCodec *codec = g_object_new (TEST_TYPE_INT_CODEC, NULL);
  g_autoptr (GError) error = NULL;
  g_autoptr (GBytes) bytes = NULL;
  g_autoptr (FerryBuffer) buffer = NULL;
  g_auto (GValue) value = G_VALUE_INIT;
  g_auto (GValue) decoded = G_VALUE_INIT;

  ck_assert_str_eq (ferry_codec_get_wire_name (codec), "test-int");
  ck_assert_uint_eq (ferry_codec_get_wire_version (codec), 3);
  ck_assert (ferry_codec_accepts (codec, G_TYPE_INT));
  ck_assert (!ferry_codec_accepts (codec, G_TYPE_UINT));

  g_value_init (&value, G_TYPE_INT);
  g_value_set_int (&value, -42);
  bytes = ferry_codec_encode_bytes (codec, &value, &error);
  ferry_assert_no_error (error);
  ck_assert_uint_eq (GPOINTER_TO_SIZE (g_bytes_get_data (bytes, NULL)) % 64, 0);
  ck_assert_int_eq (TEST_INT_CODEC (codec)->n_states, 0);

  buffer = ferry_buffer_new_bytes (bytes);
  ck_assert (ferry_codec_decode (codec, buffer, 3, &decoded, &error));
  ferry_assert_no_error (error);
  ck_assert_int_eq (g_value_get_int (&decoded), -42);
  ferry_assert_last_unref (codec);
}
END_TEST

START_TEST (test_state)
{
  g_autoptr (FerryCodec) codec = g_object_new (TEST_TYPE_INT_CODEC, NULL);
  g_autoptr (GError) error = NULL;
  g_auto (GValue) value = G_VALUE_INIT;
  gpointer state = NULL;
  gsize size;

  g_value_init (&value, G_TYPE_INT);
  ck_assert (ferry_codec_measure (codec, &value, &size, &state, &error));
  ck_assert_int_eq (TEST_INT_CODEC (codec)->n_states, 1);
  ferry_codec_free_state (codec, state);
  ck_assert_int_eq (TEST_INT_CODEC (codec)->n_states, 0);

  /* Nobody wants it. */
  ck_assert (ferry_codec_measure (codec, &value, &size, NULL, &error));
  ck_assert_int_eq (TEST_INT_CODEC (codec)->n_states, 0);

  TEST_INT_CODEC (codec)->encode_fails = TRUE;
  ck_assert_ptr_null (ferry_codec_encode_bytes (codec, &value, &error));
  ferry_assert_error (error, FERRY_ERROR, FERRY_ERROR_CODEC);
  ck_assert_int_eq (TEST_INT_CODEC (codec)->n_states, 0);
}
END_TEST

START_TEST (test_failed_decode_leaves_value_unset)
{
  g_autoptr (FerryCodec) codec = g_object_new (TEST_TYPE_INT_CODEC, NULL);
  g_autoptr (FerryBuffer) buffer = ferry_buffer_new (1);
  g_autoptr (GError) error = NULL;
  GValue value = G_VALUE_INIT;

  ck_assert (!ferry_codec_decode (codec, buffer, 3, &value, &error));
  ferry_assert_error (error, FERRY_ERROR, FERRY_ERROR_CODEC);
  ck_assert (!G_IS_VALUE (&value));
}
END_TEST

START_TEST (test_newer_version)
{
  g_autoptr (FerryCodec) codec = g_object_new (TEST_TYPE_INT_CODEC, NULL);
  g_autoptr (FerryBuffer) buffer = ferry_buffer_new (sizeof (int));
  g_autoptr (GError) error = NULL;
  GValue value = G_VALUE_INIT;

  memset (ferry_buffer_get_writable_data (buffer, NULL), 0, sizeof (int));
  ck_assert (ferry_codec_decode (codec, buffer, 1, &value, &error));
  g_value_unset (&value);
  ck_assert (!ferry_codec_decode (codec, buffer, 4, &value, &error));
  ferry_assert_error (error, FERRY_ERROR, FERRY_ERROR_CODEC);
  ferry_assert_contains (error->message, "codec 'test-int'");
  ferry_assert_contains (error->message, "version 4");
  ferry_assert_contains (error->message, "up to 3");
}
END_TEST

START_TEST (test_unsupported)
{
  g_autoptr (FerryCodec) codec = g_object_new (TEST_TYPE_IDLE_CODEC, NULL);
  g_autoptr (FerryBuffer) buffer = ferry_buffer_new (1);
  g_autoptr (GError) error = NULL;
  g_auto (GValue) value = G_VALUE_INIT;
  GValue decoded = G_VALUE_INIT;
  gsize size;
  guint8 byte;

  ck_assert_str_eq (ferry_codec_get_wire_name (codec), "");
  ck_assert (!ferry_codec_accepts (codec, G_TYPE_INT));
  ferry_codec_free_state (codec, NULL);

  g_value_init (&value, G_TYPE_INT);
  ck_assert (!ferry_codec_measure (codec, &value, &size, NULL, &error));
  ferry_assert_error (error, FERRY_ERROR, FERRY_ERROR_UNSUPPORTED);
  ferry_assert_contains (error->message, "TestIdleCodec does not implement measure()");
  g_clear_error (&error);
  ck_assert (!ferry_codec_encode (codec, &value, &byte, 1, NULL, &error));
  ferry_assert_error (error, FERRY_ERROR, FERRY_ERROR_UNSUPPORTED);
  g_clear_error (&error);
  ck_assert (!ferry_codec_decode (codec, buffer, 1, &decoded, &error));
  ferry_assert_error (error, FERRY_ERROR, FERRY_ERROR_UNSUPPORTED);
}
END_TEST

static void
add (Suite *suite)
{
  const TTest *const tests[] = {
    test_round_trip, test_state, test_failed_decode_leaves_value_unset, test_newer_version, test_unsupported, NULL,
  };

  ferry_test_add_case (suite, "codec", 10, tests);
}

int
main (void)
{
  return ferry_test_run ("codec", add);
}
