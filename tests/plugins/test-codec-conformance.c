/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "codec-conformance.h"

#include <string.h>

/*
 * raw
 */

static void
raw_get_sample (guint i, GValue *value)
{
  static const gsize sizes[] = { 0, 1, 7, 64, 208, 4096, 1000003 };
  gsize size = sizes[i / 2];
  guint8 *data = g_malloc (size);

  for (gsize n = 0; n < size; n++)
    data[n] = (guint8) (n * 7 + i);
  if (i % 2 == 0)
    {
      g_value_init (value, G_TYPE_BYTES);
      g_value_take_boxed (value, g_bytes_new_take (data, size));
    }
  else
    {
      g_value_init (value, FERRY_TYPE_BUFFER);
      g_value_take_boxed (value, ferry_buffer_new_take (data, size, FALSE, g_free, data));
    }
}

static void
raw_assert_equal (const GValue *sent, const GValue *decoded)
{
  g_autoptr (GBytes) expected = NULL;

  if (G_VALUE_HOLDS (sent, G_TYPE_BYTES))
    expected = g_bytes_ref (g_value_get_boxed (sent));
  else
    expected = ferry_buffer_as_bytes (g_value_get_boxed (sent));
  ck_assert (G_VALUE_HOLDS (decoded, G_TYPE_BYTES));
  ck_assert (g_bytes_equal (expected, g_value_get_boxed (decoded)));
}

static void
raw_walk (const GValue *decoded)
{
  g_bytes_hash (g_value_get_boxed (decoded));
}

static const guint8 *
raw_get_payload (const GValue *decoded, gsize *size)
{
  return g_bytes_get_data (g_value_get_boxed (decoded), size);
}

/*
 * gvariant
 */

static const char *const gvariant_samples[] = {
  "true",
  "byte 0xff",
  "int16 -7",
  "uint64 18446744073709551615",
  "3.25",
  "'text'",
  "''",
  "objectpath '/a/b'",
  "signature 'a{sv}'",
  "()",
  "@mi nothing",
  "@ms nothing",
  "just 'x'",
  "@as []",
  "['a', 'bc', '', 'def']",
  "[[1, 2], [], [3]]",
  "(1, 'two', 3.0, (byte 4, [5]), <6>)",
  "{'width': <640>, 'name': <'frames'>, 'nested': <{'a': <(1, true)>}>}",
  "{1: 'one', 2: 'two'}",
  "[true, false, true]",
  "[(byte 1, int64 2), (byte 3, int64 4)]",
  "<<<<'deep'>>>>",
  "b'bytes\\001\\377'",
  "[just byte 1, nothing]",
  "(uint16 1, @a(yv) [(byte 9, <'z'>)], 'end')",
};

/* Behind the written samples come computed ones. */
enum
{
  GVARIANT_DOUBLES = G_N_ELEMENTS (gvariant_samples),
  GVARIANT_BYTES,
  GVARIANT_FLOATING,
  GVARIANT_NOT_NORMAL,
  GVARIANT_LONG_TYPE,
  N_GVARIANT_SAMPLES,
};

static void
gvariant_get_sample (guint i, GValue *value)
{
  GVariant *variant;

  g_value_init (value, G_TYPE_VARIANT);
  switch (i)
    {
    case GVARIANT_DOUBLES:
      {
        g_autofree double *numbers = g_new (double, 100000);

        for (guint n = 0; n < 100000; n++)
          numbers[n] = n * 0.5;
        variant = g_variant_new_fixed_array (G_VARIANT_TYPE_DOUBLE, numbers, 100000, sizeof (double));
        break;
      }

    case GVARIANT_BYTES:
      variant = g_variant_new_fixed_array (G_VARIANT_TYPE_BYTE, "0123456789", 10, 1);
      break;

    case GVARIANT_FLOATING:
      g_value_take_variant (value, g_variant_new ("(is)", 1, "floating"));
      return;

    case GVARIANT_NOT_NORMAL:
      {
        /* The frame of the array points outside: reads as no strings. */
        static const guint8 data[] = { 'a', 0, 'b', 0, 200 };

        variant = g_variant_new_from_data (G_VARIANT_TYPE_STRING_ARRAY, data, sizeof data, FALSE, NULL, NULL);
        break;
      }

    case GVARIANT_LONG_TYPE:
      {
        GVariantBuilder builder;

        g_variant_builder_init (&builder, G_VARIANT_TYPE_TUPLE);
        for (guint n = 0; n < 400; n++)
          g_variant_builder_add (&builder, "y", n & 0xff);
        variant = g_variant_builder_end (&builder);
        break;
      }

    default:
      {
        g_autoptr (GError) error = NULL;

        variant = g_variant_parse (NULL, gvariant_samples[i], NULL, NULL, &error);
        ferry_assert_no_error (error);
      }
    }
  g_value_take_variant (value, g_variant_take_ref (variant));
}

static void
gvariant_assert_equal (const GValue *sent, const GValue *decoded)
{
  GVariant *expected = g_value_get_variant (sent);
  GVariant *found;

  ck_assert (G_VALUE_HOLDS_VARIANT (decoded));
  found = g_value_get_variant (decoded);
  ck_assert_str_eq (g_variant_get_type_string (expected), g_variant_get_type_string (found));

  /* Of values that it has not checked GLib compares the text, which takes long. */
  g_variant_is_normal_form (expected);
  ck_assert (g_variant_equal (expected, found));
  ck_assert (!g_variant_is_floating (found));
}

static void
gvariant_walk (const GValue *decoded)
{
  GVariant *variant = g_value_get_variant (decoded);

  /* Text of large arrays of numbers takes long, and they have no inside. */
  ck_assert (g_variant_is_normal_form (variant));
  if (g_variant_get_size (variant) < 65536)
    g_free (g_variant_print (variant, TRUE));
}

static const guint8 *
gvariant_get_payload (const GValue *decoded, gsize *size)
{
  GVariant *variant = g_value_get_variant (decoded);

  *size = g_variant_get_size (variant);
  return g_variant_get_data (variant);
}

static FerryCodec *
gvariant_create_viewing (void)
{
  g_autoptr (GError) error = NULL;
  FerryCodec *codec = ferry_registry_create_codec (ferry_registry_get_default (), "gvariant", &error);

  ferry_assert_no_error (error);
  g_object_set (codec, "copy", FALSE, NULL);
  return codec;
}

int
main (void)
{
  static const CodecConformance codecs[] = {
    {
        .name = "raw",
        .n_samples = 14,
        .get_sample = raw_get_sample,
        .assert_equal = raw_assert_equal,
        .walk = raw_walk,
        .get_payload = raw_get_payload,
        .total = TRUE,
    },
    {
        .name = "gvariant",
        .n_samples = N_GVARIANT_SAMPLES,
        .get_sample = gvariant_get_sample,
        .assert_equal = gvariant_assert_equal,
        .walk = gvariant_walk,
    },
    {
        .name = "gvariant copy=no",
        .create = gvariant_create_viewing,
        .n_samples = N_GVARIANT_SAMPLES,
        .get_sample = gvariant_get_sample,
        .assert_equal = gvariant_assert_equal,
        .walk = gvariant_walk,
        .get_payload = gvariant_get_payload,
    },
  };

  return codec_conformance_run (codecs, G_N_ELEMENTS (codecs));
}
