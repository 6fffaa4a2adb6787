/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ferry-test.h"

/*
 * The half of codec python that needs no interpreter. What any codec must do is in test-codec-conformance.c, and what
 * needs Python in tests/python/test_codec_python.py; messages that Python wrote are copied from there.
 */

#define HEADER_SIZE (16)
#define ALIGNMENT (64)

static FerryCodec *
create (void)
{
  g_autoptr (GError) error = NULL;
  FerryCodec *codec = ferry_registry_create_codec (ferry_registry_get_default (), "python", &error);

  ferry_assert_no_error (error);
  return codec;
}

/* A message with this stream, and no parts. */
static FerryBuffer *
make_message (gconstpointer stream, gsize size)
{
  g_autofree guint8 *data = g_malloc0 (HEADER_SIZE + size);
  g_autoptr (GBytes) bytes = NULL;
  guint64 wire_size = size;

  data[0] = G_BYTE_ORDER == G_LITTLE_ENDIAN ? 'l' : 'B';
  memcpy (data + 8, &wire_size, sizeof wire_size);
  memcpy (data + HEADER_SIZE, stream, size);
  bytes = g_bytes_new (data, HEADER_SIZE + size);
  return ferry_buffer_new_bytes (bytes);
}

/* What the stream is, as text. */
static char *
print_stream (gconstpointer stream, gsize size)
{
  g_autoptr (FerryCodec) codec = create ();
  g_autoptr (FerryBuffer) buffer = make_message (stream, size);
  g_autoptr (GError) error = NULL;
  g_auto (GValue) value = G_VALUE_INIT;

  if (!ferry_codec_decode (codec, buffer, 1, &value, &error))
    {
      ferry_assert_error (error, FERRY_ERROR, FERRY_ERROR_CODEC);
      return g_strdup (error->message);
    }
  ck_assert (G_VALUE_HOLDS_VARIANT (&value));
  return g_variant_print (g_value_get_variant (&value), TRUE);
}

#define assert_reads(stream, expected)                                                                                 \
  G_STMT_START                                                                                                         \
  {                                                                                                                    \
    g_autofree char *text = print_stream (stream, sizeof stream - 1);                                                  \
                                                                                                                       \
    ck_assert_str_eq (text, expected);                                                                                 \
  }                                                                                                                    \
  G_STMT_END

#define assert_refused(stream, part)                                                                                   \
  G_STMT_START                                                                                                         \
  {                                                                                                                    \
    g_autofree char *text = print_stream (stream, sizeof stream - 1);                                                  \
                                                                                                                       \
    ferry_assert_contains (text, part);                                                                                \
  }                                                                                                                    \
  G_STMT_END

/* Encodes a value given as text, and says what arrives. */
static char *
send_text (const char *text)
{
  g_autoptr (FerryCodec) codec = create ();
  g_autoptr (FerryBuffer) buffer = NULL;
  g_autoptr (GBytes) bytes = NULL;
  g_autoptr (GError) error = NULL;
  g_auto (GValue) sent = G_VALUE_INIT;
  g_auto (GValue) received = G_VALUE_INIT;

  g_value_init (&sent, G_TYPE_VARIANT);
  g_value_take_variant (&sent, g_variant_parse (NULL, text, NULL, NULL, &error));
  ferry_assert_no_error (error);
  bytes = ferry_codec_encode_bytes (codec, &sent, &error);
  ferry_assert_no_error (error);
  buffer = ferry_buffer_new_bytes (bytes);
  ck_assert (ferry_codec_decode (codec, buffer, 1, &received, &error));
  return g_variant_print (g_value_get_variant (&received), TRUE);
}

#define assert_arrives(sent, expected)                                                                                 \
  G_STMT_START                                                                                                         \
  {                                                                                                                    \
    g_autofree char *text = send_text (sent);                                                                          \
                                                                                                                       \
    ck_assert_str_eq (text, expected);                                                                                 \
  }                                                                                                                    \
  G_STMT_END

START_TEST (test_read)
{
  assert_reads ("\x01", "@mv nothing");
  assert_reads ("\x40", "int64 0");
  assert_reads ("\x7f", "int64 63");
  assert_reads ("\x06\xff", "int64 -1");
  assert_reads ("\x07\x00\x00\x00\x80", "int64 -2147483648");
  assert_reads ("\x09\x09\x00\x00\x00\x00\x00\x00\x00\x80\x00", "uint64 9223372036854775808");
  assert_reads ("\x09\x0a\x00\x00\x00\x00\x00\x00\x00\x00\x01\x00",
                "('int', <[byte 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x01, 0x00]>)");
  assert_reads ("\x0c\x02hi", "'hi'");
  assert_reads ("\x0d\x01\xe4", "'\xc3\xa4'");
  assert_reads ("\x0e\x01\xac\x20", "'\xe2\x82\xac'");
  assert_reads ("\x0f\x01\x00\xf6\x01\x00", "'\xf0\x9f\x98\x80'");
  assert_reads ("\x10\x02\x00\x01", "[byte 0x00, 0x01]");
  assert_reads ("\x1a\x02\x41\x42", "(int64 1, int64 2)");
  assert_reads ("\x1b\x02\x41\x03", "[<int64 1>, <true>]");
  assert_reads ("\x1c\x01\x0c\x01"
                "a\x41",
                "{'a': <int64 1>}");
  assert_reads ("\x1c\x01\x41\x42", "[(<int64 1>, <int64 2>)]");
  assert_reads ("\x1d\x01\x41", "[<int64 1>]");

  /* A NUL, and half a surrogate pair: text in Python, none in GLib. */
  assert_reads ("\x0c\x01\x00", "('str', <b''>)");
  assert_reads ("\x0e\x01\x00\xd8", "('str', <[byte 0xed, 0xa0, 0x80]>)");
}
END_TEST

START_TEST (test_references)
{
  assert_reads ("\x1b\x02\x9b\x01\x41\x1f\x02", "[<[<int64 1>]>, <[<int64 1>]>]");
  assert_refused ("\x9b\x01\x1f\x00", "contains itself");
  assert_refused ("\x1b\x02\x1b\x00\x1f\x02", "no value is");
  assert_refused ("\x1b\x02\x9b\x00\x1f\x03", "no value is");
}
END_TEST

/* Few bytes that stand for more than fits into any memory. */
START_TEST (test_repeated)
{
  GByteArray *stream = g_byte_array_new ();
  g_autofree char *text = NULL;
  guint8 head[] = { 0x1b, 41, 0x9b, 0x00 };
  guint at = 2;

  g_byte_array_append (stream, head, sizeof head);
  for (guint i = 0; i < 40; i++)
    {
      guint8 list[] = { 0x9b, 2, 0x1f, (guint8) (at | (at > 127 ? 0x80 : 0)), (guint8) (at >> 7) };
      guint n = at > 127 ? 2 : 1;
      guint next = stream->len;

      g_byte_array_append (stream, list, 3 + n);
      g_byte_array_append (stream, list + 2, 1 + n);
      at = next;
    }
  text = print_stream (stream->data, stream->len);
  ferry_assert_contains (text, "repeated too often");
  g_byte_array_unref (stream);
}
END_TEST

START_TEST (test_refuse)
{
  assert_refused ("\x00", "no tag");
  assert_refused ("\x3f", "no tag");
  assert_refused ("\x06", "ends within");
  assert_refused ("\x0c\x05"
                  "abc",
                  "ends within");
  assert_refused ("\x0c\x01\xff", "not of its kind");
  assert_refused ("\x0d\x01\x61", "not of its kind");
  assert_refused ("\x0f\x01\x00\x00\x11\x00", "not of its kind");
  assert_refused ("\x16\x01", "beyond the end");
  assert_refused ("\x1b\xff\xff\xff\xff\x0f", "ends within");
  assert_refused ("\x10\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", "ends within");
  assert_refused ("\x01\x01", "follow the value");
  assert_refused ("\x34\x0c\x01"
                  "a\x0c\x01"
                  "b",
                  "only a Python program");
}
END_TEST

/* One that is deeper than GVariant can be. */
START_TEST (test_deep)
{
  g_autofree guint8 *stream = g_malloc (200001);
  g_autofree char *text = NULL;

  for (gsize i = 0; i < 100000; i++)
    {
      stream[2 * i] = 0x1b;
      stream[2 * i + 1] = 1;
    }
  stream[200000] = 0x01;
  text = print_stream (stream, 200001);
  ferry_assert_contains (text, "levels");
}
END_TEST

START_TEST (test_send)
{
  assert_arrives ("byte 5", "int64 5");
  assert_arrives ("int16 -300", "int64 -300");
  assert_arrives ("uint16 65535", "int64 65535");
  assert_arrives ("uint32 4294967295", "int64 4294967295");
  assert_arrives ("uint64 9223372036854775807", "int64 9223372036854775807");
  assert_arrives ("handle 3", "int64 3");
  assert_arrives ("objectpath '/a'", "'/a'");
  assert_arrives ("<<'deep'>>", "'deep'");
  assert_arrives ("just 5", "int64 5");
  assert_arrives ("@mi nothing", "@mv nothing");
  assert_arrives ("[1, 2]", "[<int64 1>, <int64 2>]");
  assert_arrives ("{1: 'one'}", "[(<int64 1>, <'one'>)]");
  assert_arrives ("({1: 'one'}, {'a', 2})", "([(<int64 1>, <'one'>)], ('a', int64 2))");
  assert_arrives ("<{'a', 2}>", "('a', int64 2)");
}
END_TEST

/* Where the data of a message lies that is nothing else: a receiver may turn it into an object where it is. */
START_TEST (test_layout)
{
  g_autoptr (FerryCodec) codec = create ();
  g_autoptr (GBytes) bytes = NULL;
  g_autoptr (GError) error = NULL;
  g_auto (GValue) value = G_VALUE_INIT;
  guint8 data[3000];
  const guint8 *message;
  gsize size;

  for (gsize i = 0; i < sizeof data; i++)
    data[i] = (guint8) (i | 1);
  g_value_init (&value, G_TYPE_VARIANT);
  g_value_set_variant (&value, g_variant_new_fixed_array (G_VARIANT_TYPE_BYTE, data, sizeof data, 1));
  bytes = ferry_codec_encode_bytes (codec, &value, &error);
  ferry_assert_no_error (error);
  message = g_bytes_get_data (bytes, &size);
  ck_assert_uint_eq (size, 2 * ALIGNMENT + sizeof data + 1);
  ck_assert_mem_eq (message + 2 * ALIGNMENT, data, sizeof data);
  for (gsize i = 0; i < ALIGNMENT; i++)
    ck_assert_uint_eq (message[ALIGNMENT + i], 0);
  ck_assert_uint_eq (message[size - 1], 0);
}
END_TEST

START_TEST (test_array_inside)
{
  static const gint64 shape[] = { 2, 3 };
  static const float numbers[] = { 1, 2, 3, 4, 5, 6 };
  g_autoptr (FerryCodec) codec = create ();
  g_autoptr (FerryTensor) tensor = NULL;
  g_autoptr (FerryBuffer) buffer = NULL;
  g_autoptr (GBytes) bytes = NULL;
  g_autoptr (GError) error = NULL;
  g_auto (GValue) value = G_VALUE_INIT;
  g_auto (GValue) decoded = G_VALUE_INIT;
  g_autofree guint8 *longer = NULL;
  g_autofree char *text = NULL;
  const guint8 *message;
  gsize size;
  guint64 stream_size;

  tensor = ferry_tensor_new_copy ("<f4", shape, 2, (const guint8 *) numbers, sizeof numbers, &error);
  ferry_assert_no_error (error);
  g_value_init (&value, FERRY_TYPE_TENSOR);
  g_value_set_boxed (&value, tensor);
  bytes = ferry_codec_encode_bytes (codec, &value, &error);
  ferry_assert_no_error (error);
  message = g_bytes_get_data (bytes, &size);
  ck_assert_uint_eq (size, 2 * ALIGNMENT - ALIGNMENT + sizeof numbers
                               + (HEADER_SIZE + message[8] > ALIGNMENT ? ALIGNMENT : 0));

  /* The same within a list of one. */
  memcpy (&stream_size, message + 8, sizeof stream_size);
  longer = g_malloc0 (size);
  memcpy (longer, message, size);
  memcpy (longer + HEADER_SIZE + 2, message + HEADER_SIZE, stream_size);
  longer[HEADER_SIZE] = 0x1b;
  longer[HEADER_SIZE + 1] = 1;
  stream_size += 2;
  memcpy (longer + 8, &stream_size, sizeof stream_size);
  ck_assert_uint_le (HEADER_SIZE + stream_size, size - sizeof numbers);
  buffer = ferry_buffer_new_take (g_steal_pointer (&longer), size, FALSE, NULL, NULL);
  longer = (guint8 *) ferry_buffer_get_data (buffer, NULL);
  ck_assert (ferry_codec_decode (codec, buffer, 1, &decoded, &error));
  ferry_assert_no_error (error);
  text = g_variant_print (g_value_get_variant (&decoded), TRUE);
  ferry_assert_contains (text, "[<('<f4', [int64 2, 3], [int64 12, 4], [byte 0x00, 0x00, 0x80, 0x3f");
}
END_TEST

START_TEST (test_properties)
{
  g_autoptr (FerryCodec) codec = create ();
  g_autoptr (FerryBuffer) buffer = make_message ("\x01", 1);
  g_autoptr (GError) error = NULL;
  g_auto (GValue) value = G_VALUE_INIT;
  gboolean pickle = TRUE;

  g_object_get (codec, "pickle", &pickle, NULL);
  ck_assert (!pickle);

  /* No interpreter is in this process. */
  g_object_set (codec, "decode-to", 2, "pickle", TRUE, NULL);
  ck_assert (!ferry_codec_decode (codec, buffer, 1, &value, &error));
  ferry_assert_error (error, FERRY_ERROR, FERRY_ERROR_UNSUPPORTED);
  ferry_assert_contains (error->message, "Python");
}
END_TEST

static void
add (Suite *suite)
{
  const struct
  {
    const char *name;
    const TTest *test;
  } tests[] = {
    { "read", test_read },
    { "references", test_references },
    { "repeated", test_repeated },
    { "refuse", test_refuse },
    { "deep", test_deep },
    { "send", test_send },
    { "layout", test_layout },
    { "array-inside", test_array_inside },
    { "properties", test_properties },
  };

  for (guint i = 0; i < G_N_ELEMENTS (tests); i++)
    {
      TCase *tcase = tcase_create (tests[i].name);

      tcase_add_test (tcase, tests[i].test);
      suite_add_tcase (suite, tcase);
    }
}

int
main (void)
{
  return ferry_test_run ("python-codec", add);
}
