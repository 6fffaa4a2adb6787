/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ferry-test.h"

#include <string.h>

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

/* What a language binding implements: int as text. 0 can't be encoded, and does not say why; -1 changes. */
#define TEST_TYPE_TWIN_CODEC (test_twin_codec_get_type ())
G_DECLARE_FINAL_TYPE (TestTwinCodec, test_twin_codec, TEST, TWIN_CODEC, GObject)

struct _TestTwinCodec
{
  GObject parent_instance;
  guint n_encoded;
};

static char *
test_twin_codec_dup_wire_name (FerryCodec *codec)
{
  return g_strdup ("twin");
}

static gboolean
test_twin_codec_accepts_type_name (FerryCodec *codec, const char *type_name)
{
  return strcmp (type_name, "gint") == 0;
}

static GBytes *
test_twin_codec_encode_bytes (FerryCodec *codec, const GValue *value, GError **error)
{
  guint n_encoded = TEST_TWIN_CODEC (codec)->n_encoded++;
  g_autofree char *text = g_strdup_printf ("%d", g_value_get_int (value));

  if (g_value_get_int (value) == 0)
    return NULL;
  return g_bytes_new (text, strlen (text) + (g_value_get_int (value) == -1 ? n_encoded % 2 : 0));
}

static gboolean
test_twin_codec_decode_value (FerryCodec *codec, FerryBuffer *buffer, guint version, GError **error)
{
  g_autoptr (GBytes) bytes = ferry_buffer_to_bytes (buffer);
  g_autofree char *text = g_strndup (g_bytes_get_data (bytes, NULL), g_bytes_get_size (bytes));
  g_auto (GValue) value = G_VALUE_INIT;
  g_auto (GValue) first = G_VALUE_INIT;

  if (strcmp (text, "nothing") == 0)
    return TRUE;
  g_value_init (&first, G_TYPE_STRING);
  g_value_set_string (&first, "replaced");
  ck_assert (ferry_codec_set_decoded (codec, &first));
  if (strcmp (text, "half") == 0)
    return FALSE;
  g_value_init (&value, G_TYPE_INT);
  g_value_set_int (&value, (int) g_ascii_strtoll (text, NULL, 10));
  return ferry_codec_set_decoded (codec, &value);
}

static void
test_twin_codec_codec_init (FerryCodecInterface *iface)
{
  iface->dup_wire_name = test_twin_codec_dup_wire_name;
  iface->accepts_type_name = test_twin_codec_accepts_type_name;
  iface->encode_bytes = test_twin_codec_encode_bytes;
  iface->decode_value = test_twin_codec_decode_value;
}

G_DEFINE_FINAL_TYPE_WITH_CODE (TestTwinCodec, test_twin_codec, G_TYPE_OBJECT,
                               G_IMPLEMENT_INTERFACE (FERRY_TYPE_CODEC, test_twin_codec_codec_init))

static void
test_twin_codec_class_init (TestTwinCodecClass *klass)
{
}

static void
test_twin_codec_init (TestTwinCodec *self)
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

START_TEST (test_twins)
{
  g_autoptr (FerryCodec) codec = g_object_new (TEST_TYPE_TWIN_CODEC, NULL);
  FerryCodecInterface *iface = FERRY_CODEC_GET_IFACE (codec);
  g_autofree char *wire_name = ferry_codec_dup_wire_name (codec);
  g_autoptr (GError) error = NULL;
  g_auto (GValue) value = G_VALUE_INIT;
  g_autoptr (GBytes) bytes = NULL;
  g_autoptr (FerryBuffer) buffer = NULL;
  GValue decoded = G_VALUE_INIT;
  gpointer state = NULL;
  guint8 data[4];
  gsize size;

  ck_assert_str_eq (wire_name, "twin");
  ck_assert_ptr_eq (ferry_codec_get_wire_name (codec), ferry_codec_get_wire_name (codec)); /* kept once */
  ck_assert_uint_eq (ferry_codec_get_wire_version (codec), 1);
  ck_assert (ferry_codec_accepts (codec, G_TYPE_INT));
  ck_assert (ferry_codec_accepts_type_name (codec, "gint"));
  ck_assert (!ferry_codec_accepts (codec, G_TYPE_STRING));
  ck_assert (!ferry_codec_accepts_type_name (codec, "NoSuchType"));

  /* The two steps of the C API; what was measured is not encoded again. */
  g_value_init (&value, G_TYPE_INT);
  g_value_set_int (&value, -123);
  ck_assert (iface->measure (codec, &value, &size, &state, &error));
  ck_assert_uint_eq (size, 4);
  ck_assert (iface->encode (codec, &value, data, size, state, &error));
  ck_assert_mem_eq (data, "-123", 4);
  iface->free_state (codec, state);
  ck_assert_uint_eq (TEST_TWIN_CODEC (codec)->n_encoded, 1);
  memset (data, 0, sizeof data);
  ck_assert (ferry_codec_encode (codec, &value, data, size, NULL, &error));
  ck_assert_mem_eq (data, "-123", 4);
  ck_assert (!ferry_codec_encode (codec, &value, data, 3, NULL, &error));
  ferry_assert_error (error, FERRY_ERROR, FERRY_ERROR_CODEC);
  g_clear_error (&error);

  bytes = ferry_codec_encode_bytes (codec, &value, &error);
  ferry_assert_no_error (error);
  buffer = ferry_buffer_new_bytes (bytes);
  ck_assert (ferry_codec_decode (codec, buffer, 1, &decoded, &error));
  ck_assert (G_VALUE_HOLDS_INT (&decoded));
  ck_assert_int_eq (g_value_get_int (&decoded), -123);
  g_value_unset (&decoded);
  ck_assert (!ferry_codec_set_decoded (codec, &value)); /* only while it decodes */
}
END_TEST

/* Who fails without an error is given one; a value that is not there is a failure. */
START_TEST (test_twins_that_fail)
{
  static const char *const messages[] = { "nothing", "half" };
  g_autoptr (FerryCodec) codec = g_object_new (TEST_TYPE_TWIN_CODEC, NULL);
  g_auto (GValue) value = G_VALUE_INIT;

  g_value_init (&value, G_TYPE_INT);
  for (guint i = 0; i < 2; i++)
    {
      g_autoptr (GError) error = NULL;

      g_value_set_int (&value, -(int) i);
      if (i == 0)
        ck_assert_ptr_null (ferry_codec_encode_bytes (codec, &value, &error));
      else
        ck_assert (!ferry_codec_encode (codec, &value, (guint8 *) "", 0, NULL, &error));
      ferry_assert_error (error, FERRY_ERROR, FERRY_ERROR_CODEC);
      ferry_assert_contains (error->message, "twin");
    }
  for (guint i = 0; i < G_N_ELEMENTS (messages); i++)
    {
      g_autoptr (GBytes) bytes = g_bytes_new_static (messages[i], strlen (messages[i]));
      g_autoptr (FerryBuffer) buffer = ferry_buffer_new_bytes (bytes);
      g_autoptr (GError) error = NULL;
      GValue decoded = G_VALUE_INIT;

      ck_assert (!ferry_codec_decode (codec, buffer, 1, &decoded, &error));
      ferry_assert_error (error, FERRY_ERROR, FERRY_ERROR_CODEC);
      ferry_assert_contains (error->message, "decode_value() of TestTwinCodec failed without an error");
      ck_assert (!G_IS_VALUE (&decoded));
    }
}
END_TEST

static void
add (Suite *suite)
{
  const TTest *const tests[] = {
    test_round_trip,
    test_state,
    test_failed_decode_leaves_value_unset,
    test_newer_version,
    test_unsupported,
    test_twins,
    test_twins_that_fail,
    NULL,
  };

  ferry_test_add_case (suite, "codec", 10, tests);
}

int
main (void)
{
  return ferry_test_run ("codec", add);
}
