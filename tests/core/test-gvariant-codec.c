/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ferry-test.h"

#include "ferry-gvariant-codec-private.h"

#include <string.h>

#if G_BYTE_ORDER == G_LITTLE_ENDIAN
#define NATIVE_ORDER 'l'
#define OTHER_ORDER 'B'
#else
#define NATIVE_ORDER 'B'
#define OTHER_ORDER 'l'
#endif

static FerryCodec *
make_codec (void)
{
  return g_object_new (FERRY_TYPE_GVARIANT_CODEC, NULL);
}

/* A message as the codec's comment describes it, made here from nothing. */
static GBytes *
make_message (char order, const char *type, gconstpointer data, gsize size)
{
  GByteArray *array = g_byte_array_new ();
  guint32 length = GUINT32_TO_LE ((guint32) strlen (type));
  const guint8 head[4] = { (guint8) order, 0, 0, 0 };

  g_byte_array_append (array, head, sizeof head);
  g_byte_array_append (array, (const guint8 *) &length, sizeof length);
  g_byte_array_append (array, (const guint8 *) type, (guint) strlen (type));
  while (array->len % 8 != 0)
    g_byte_array_append (array, (const guint8 *) "", 1);
  if (size > 0)
    g_byte_array_append (array, data, (guint) size);
  g_byte_array_append (array, (const guint8 *) "", 1);
  return g_byte_array_free_to_bytes (array);
}

static GVariant *
decode (GBytes *message, GError **error)
{
  g_autoptr (FerryCodec) codec = make_codec ();
  g_autoptr (FerryBuffer) buffer = ferry_buffer_new_bytes (message);
  g_auto (GValue) value = G_VALUE_INIT;

  if (!ferry_codec_decode (codec, buffer, 1, &value, error))
    return NULL;
  ck_assert (G_VALUE_HOLDS_VARIANT (&value));
  return g_value_dup_variant (&value);
}

static GBytes *
encode (GVariant *variant, GError **error)
{
  g_autoptr (FerryCodec) codec = make_codec ();
  g_auto (GValue) value = G_VALUE_INIT;

  g_value_init (&value, G_TYPE_VARIANT);
  g_value_set_variant (&value, variant);
  return ferry_codec_encode_bytes (codec, &value, error);
}

static void
assert_decode_fails (GBytes *message, const char *part)
{
  g_autoptr (GError) error = NULL;

  ck_assert_ptr_null (decode (message, &error));
  ferry_assert_error (error, FERRY_ERROR, FERRY_ERROR_CODEC);
  ferry_assert_contains (error->message, part);
}

START_TEST (test_layout)
{
  g_autoptr (GError) error = NULL;
  g_autoptr (GBytes) encoded = encode (g_variant_new ("(uy)", 0x01020304, 5), &error);
  guint32 data[2];
  g_autoptr (GBytes) expected = NULL;

  ferry_assert_no_error (error);
  memset (data, 0, sizeof data);
  data[0] = 0x01020304;
  ((guint8 *) data)[4] = 5;
  expected = make_message (NATIVE_ORDER, "(uy)", data, sizeof data);
  ck_assert_uint_eq (g_bytes_get_size (encoded), 25);
  ck_assert (g_bytes_equal (encoded, expected));
}
END_TEST

START_TEST (test_byte_order)
{
  static const char *const texts[]
      = { "uint32 1", "(int64 2, 'x', 3.5)", "[uint16 1, 2]", "{'a': <int32 5>, 'b': <[1.5]>}", "'same'" };

  for (guint i = 0; i < G_N_ELEMENTS (texts); i++)
    {
      g_autoptr (GError) error = NULL;
      g_autoptr (GVariant) sent = g_variant_parse (NULL, texts[i], NULL, NULL, &error);
      g_autoptr (GVariant) foreign = g_variant_byteswap (sent);
      g_autoptr (GBytes) message = make_message (OTHER_ORDER, g_variant_get_type_string (sent),
                                                 g_variant_get_data (foreign), g_variant_get_size (foreign));
      g_autoptr (GVariant) received = decode (message, &error);

      ferry_assert_no_error (error);
      ck_assert_msg (g_variant_equal (sent, received), "%s", texts[i]);
      ck_assert (!g_variant_is_floating (received));
    }
}
END_TEST

START_TEST (test_headers)
{
  g_autoptr (GBytes) order = make_message ('x', "s", "a", 2);
  g_autoptr (GBytes) no_type = make_message (NATIVE_ORDER, "", "a", 2);
  g_autoptr (GBytes) indefinite = make_message (NATIVE_ORDER, "a*", "a", 2);
  g_autoptr (GBytes) two_types = make_message (NATIVE_ORDER, "ss", "a", 2);
  g_autoptr (GBytes) unbalanced = make_message (NATIVE_ORDER, "((((((", "a", 2);
  g_autoptr (GBytes) not_a_type = make_message (NATIVE_ORDER, "\xff\n~", "a", 2);
  g_autoptr (GBytes) short_message = g_bytes_new_static ("l\0\0\0", 4);
  g_autoptr (GBytes) long_type = g_bytes_new_static ("l\0\0\0\xff\xff\xff\xffs", 9);
  g_autoptr (GBytes) beyond = g_bytes_new_static ("l\0\0\0\x09\0\0\0ssssssss", 17);
  g_autoptr (GBytes) no_trailer = g_bytes_new_static ("l\0\0\0\1\0\0\0y\0\0\0\0\0\0\0", 16);
  g_autoptr (GBytes) cut = g_bytes_new_static ("l\0\0\0\2\0\0\0ay\0\0\0\0\0\0abc", 19);
  g_autoptr (GBytes) reserved = g_bytes_new_static ("l\1\0\0\1\0\0\0s\0\0\0\0\0\0\0a", 18);

  assert_decode_fails (order, "did another codec make it?");
  assert_decode_fails (reserved, "did another codec make it?");
  assert_decode_fails (no_type, "type string");
  assert_decode_fails (indefinite, "\"a*\" is not the type string of a value");
  assert_decode_fails (two_types, "type string");
  assert_decode_fails (unbalanced, "type string");
  assert_decode_fails (not_a_type, "\\377\\n~");
  assert_decode_fails (short_message, "4 bytes");
  assert_decode_fails (long_type, "4294967295");
  assert_decode_fails (beyond, "does not fit");
  assert_decode_fails (no_trailer, "does not fit");
  assert_decode_fails (cut, "does not end with a zero; was it cut?");
}
END_TEST

/* GVariant would read all of these as default values. */
START_TEST (test_not_normal)
{
  static const struct
  {
    const char *type;
    const char *data;
    gsize size;
  } cases[] = {
    { "s", "no end", 6 },
    { "s", "", 0 },
    { "s", "\xff\xfe\0", 3 },
    { "b", "\2", 1 },
    { "ab", "\1\0\2", 3 },
    { "u", "123", 3 },
    { "u", "12345678", 8 },
    { "au", "12345", 5 },
    { "ad", "1234567", 7 },
    { "an", "123", 3 },
    { "()", "\1", 1 },
    { "as", "a\0b\0\x09", 5 },
    { "v", "", 0 },
    { "v", "abc", 3 },
    { "v", "\1\0\0\0u\0", 6 },
    { "o", "no path\0", 8 },
    { "g", "(((\0", 4 },
    { "mi", "12", 2 },
    { "(yu)", "\1\1\1\1\1\1\1\1", 8 }, /* padding is zero in the normal form */
  };

  for (guint i = 0; i < G_N_ELEMENTS (cases); i++)
    {
      g_autoptr (GBytes) message = make_message (NATIVE_ORDER, cases[i].type, cases[i].data, cases[i].size);
      g_autofree char *part = g_strdup_printf ("well-formed value of type '%s'", cases[i].type);

      assert_decode_fails (message, part);
    }
}
END_TEST

START_TEST (test_numbers_are_trusted)
{
  static const char *const types[] = { "ay", "an", "aq", "ai", "au", "ah", "ax", "at", "ad" };
  static const gsize sizes[] = { 1, 2, 2, 4, 4, 4, 8, 8, 8 };
  guint8 data[64];

  memset (data, 0xff, sizeof data);
  for (guint i = 0; i < G_N_ELEMENTS (types); i++)
    {
      g_autoptr (GError) error = NULL;
      g_autoptr (GBytes) message = make_message (NATIVE_ORDER, types[i], data, sizeof data);
      g_autoptr (GBytes) none = make_message (NATIVE_ORDER, types[i], data, 0);
      g_autoptr (GVariant) received = decode (message, &error);
      g_autoptr (GVariant) empty = NULL;

      ferry_assert_no_error (error);
      ck_assert_uint_eq (g_variant_n_children (received), sizeof data / sizes[i]);
      empty = decode (none, &error);
      ferry_assert_no_error (error);
      ck_assert_uint_eq (g_variant_n_children (empty), 0);
    }
}
END_TEST

static GVariant *
nest_variants (guint levels)
{
  GVariant *variant = g_variant_new_byte (1);

  for (guint i = 1; i < levels; i++)
    variant = g_variant_new_variant (variant);
  return variant;
}

static GVariant *
nest_arrays (guint levels)
{
  GVariant *variant = g_variant_new_byte (1);

  for (guint i = 1; i < levels; i++)
    variant = g_variant_new_array (NULL, &variant, 1);
  return variant;
}

START_TEST (test_nesting)
{
  GVariant *(*const nest[]) (guint) = { nest_variants, nest_arrays };

  for (guint i = 0; i < G_N_ELEMENTS (nest); i++)
    {
      g_autoptr (GError) error = NULL;
      g_autoptr (GVariant) deep = g_variant_ref_sink (nest[i](64));
      g_autoptr (GBytes) message = encode (deep, &error);
      g_autoptr (GVariant) received = NULL;

      ferry_assert_no_error (error);
      received = decode (message, &error);
      ferry_assert_no_error (error);
      ck_assert (g_variant_equal (deep, received));

      ck_assert_ptr_null (encode (nest[i](65), &error));
      ferry_assert_error (error, FERRY_ERROR, FERRY_ERROR_CODEC);
      ferry_assert_contains (error->message, "64 levels");
    }
}
END_TEST

/* Where GLib's check looks behind its data, the byte must be in the message: valgrind sees it. */
START_TEST (test_cut_before_padding)
{
  guint8 data[8] = { 1 };

  for (gsize size = 0; size < sizeof data; size++)
    {
      g_autoptr (GBytes) message = make_message (NATIVE_ORDER, "(ys(x))", data, size);
      gsize message_size;
      const guint8 *bytes = g_bytes_get_data (message, &message_size);
      g_autofree guint8 *exact = g_memdup2 (bytes, message_size);
      g_autoptr (GBytes) exact_message = g_bytes_new_static (exact, message_size);

      assert_decode_fails (exact_message, "well-formed");
    }
}
END_TEST

/* Variants in variants, deeper than GLib reads, made by hand: 'v' inside 'v'. */
START_TEST (test_hostile_nesting)
{
  g_autoptr (GByteArray) data = g_byte_array_new ();
  g_autoptr (GBytes) message = NULL;

  g_byte_array_append (data, (const guint8 *) "\1\0y", 3);
  for (guint i = 0; i < 100000; i++)
    g_byte_array_append (data, (const guint8 *) "\0v", 2);
  message = make_message (NATIVE_ORDER, "v", data->data, data->len);
  assert_decode_fails (message, "well-formed");
}
END_TEST

START_TEST (test_long_type)
{
  g_autoptr (GString) type = g_string_new ("(");
  GVariantBuilder builder;
  g_autoptr (GVariant) variant = NULL;
  g_autoptr (GError) error = NULL;

  g_variant_builder_init (&builder, G_VARIANT_TYPE_TUPLE);
  for (guint i = 0; i < 70000; i++)
    g_variant_builder_add (&builder, "y", 1);
  variant = g_variant_ref_sink (g_variant_builder_end (&builder));
  ck_assert_ptr_null (encode (variant, &error));
  ferry_assert_error (error, FERRY_ERROR, FERRY_ERROR_CODEC);
  ferry_assert_contains (error->message, "type string");
}
END_TEST

START_TEST (test_not_normal_is_normalised)
{
  static const guint8 data[] = { 2 };
  g_autoptr (GVariant) odd
      = g_variant_ref_sink (g_variant_new_from_data (G_VARIANT_TYPE_BOOLEAN, data, sizeof data, FALSE, NULL, NULL));
  g_autoptr (GError) error = NULL;
  g_autoptr (GBytes) message = encode (odd, &error);
  g_autoptr (GVariant) received = NULL;

  ferry_assert_no_error (error);
  received = decode (message, &error);
  ferry_assert_no_error (error);
  ck_assert (g_variant_is_of_type (received, G_VARIANT_TYPE_BOOLEAN));
}
END_TEST

START_TEST (test_refused)
{
  g_autoptr (FerryCodec) codec = make_codec ();
  g_autoptr (GError) error = NULL;
  g_auto (GValue) text = G_VALUE_INIT;
  g_auto (GValue) nothing = G_VALUE_INIT;

  ck_assert (ferry_codec_accepts (codec, G_TYPE_VARIANT));
  ck_assert (!ferry_codec_accepts (codec, G_TYPE_STRING));

  g_value_init (&text, G_TYPE_STRING);
  ck_assert_ptr_null (ferry_codec_encode_bytes (codec, &text, &error));
  ferry_assert_error (error, FERRY_ERROR, FERRY_ERROR_CODEC);
  ferry_assert_contains (error->message, "g_variant_new_string()");
  g_clear_error (&error);

  g_value_init (&nothing, G_TYPE_VARIANT);
  ck_assert_ptr_null (ferry_codec_encode_bytes (codec, &nothing, &error));
  ferry_assert_error (error, FERRY_ERROR, FERRY_ERROR_CODEC);
  ferry_assert_contains (error->message, "NULL");
}
END_TEST

/* A value that somebody may still have floating is not taken over. */
START_TEST (test_floating)
{
  g_autoptr (FerryCodec) codec = make_codec ();
  g_autoptr (GError) error = NULL;
  g_autoptr (GBytes) bytes = NULL;
  g_auto (GValue) value = G_VALUE_INIT;
  GVariant *variant = g_variant_new_string ("floating");

  g_value_init (&value, G_TYPE_VARIANT);
  g_value_set_variant (&value, variant);
  bytes = ferry_codec_encode_bytes (codec, &value, &error);
  ferry_assert_no_error (error);
  ck_assert_str_eq (g_variant_get_string (g_value_get_variant (&value), NULL), "floating");
  g_value_unset (&value);
}
END_TEST

START_TEST (test_copy)
{
  FerryCodec *codec = make_codec ();
  g_autoptr (GError) error = NULL;
  guint8 message[19] = { NATIVE_ORDER, 0, 0, 0, 1, 0, 0, 0, 's', 0, 0, 0, 0, 0, 0, 0, 'a', 0, 0 };
  gboolean copy = FALSE;

  g_object_get (codec, "copy", &copy, NULL);
  ck_assert (copy);

  for (int round = 0; round < 2; round++)
    {
      FerryBuffer *buffer = ferry_buffer_new_take (message, sizeof message, FALSE, NULL, NULL);
      g_auto (GValue) value = G_VALUE_INIT;

      message[16] = 'a';
      g_object_set (codec, "copy", round == 1, NULL);
      ck_assert (ferry_codec_decode (codec, buffer, 1, &value, &error));
      ferry_assert_no_error (error);
      ferry_buffer_unref (buffer);
      message[16] = 'b';
      ck_assert_str_eq (g_variant_get_string (g_value_get_variant (&value), NULL), round == 1 ? "a" : "b");
    }
  ferry_assert_last_unref (codec);
}
END_TEST

static void
add (Suite *suite)
{
  const TTest *const tests[] = {
    test_layout,
    test_byte_order,
    test_headers,
    test_not_normal,
    test_numbers_are_trusted,
    test_nesting,
    test_cut_before_padding,
    test_hostile_nesting,
    test_long_type,
    test_not_normal_is_normalised,
    test_refused,
    test_floating,
    test_copy,
    NULL,
  };

  ferry_test_add_case (suite, "gvariant-codec", 20, tests);
}

int
main (void)
{
  return ferry_test_run ("gvariant-codec", add);
}
