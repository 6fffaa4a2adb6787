/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "codec-conformance.h"

#include <pthread.h>
#include <string.h>
#include <unistd.h>

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

#ifdef FERRY_TEST_NUMPY

/*
 * store
 */

static const char *const store_samples[] = { "list", "dict", "dict.inner", "array" };

static FerryStore *sample_store;

static void
store_make_samples (void)
{
  static const double numbers[] = { 1, 2, 3 };
  static const gint64 shape[] = { 3 };
  g_autoptr (GError) error = NULL;
  g_autoptr (FerryTensor) tensor
      = ferry_tensor_new_copy ("<f8", shape, 1, (const guint8 *) numbers, sizeof numbers, &error);
  g_autofree char *description = g_strdup_printf ("memfd name=conformance-%d", (int) getpid ());
  FerryStore *store = ferry_store_open (description, NULL, &error);

  ferry_assert_no_error (error);
  ck_assert (ferry_store_set (store, "list", g_variant_new_parsed ("[<1>, <2>]"), &error));
  ck_assert (ferry_store_set (store, "dict", g_variant_new_parsed ("{'inner': <[<3>]>}"), &error));
  ck_assert (ferry_store_set_tensor (store, "array", tensor, &error));
  sample_store = store;
}

static void
store_get_sample (guint i, GValue *value)
{
  static pthread_once_t once = PTHREAD_ONCE_INIT; /* ThreadSanitizer doesn't know g_once() */
  g_autoptr (GError) error = NULL;
  FerryStoreReference *reference;

  pthread_once (&once, store_make_samples);
  reference = ferry_store_get_reference (sample_store, store_samples[i], &error);
  ferry_assert_no_error (error);
  g_value_init (value, FERRY_TYPE_STORE_REFERENCE);
  g_value_take_boxed (value, reference);
}

static void
store_assert_equal (const GValue *sent, const GValue *decoded)
{
  ck_assert (G_VALUE_HOLDS (decoded, FERRY_TYPE_STORE_REFERENCE));
  ck_assert (ferry_store_reference_equal (g_value_get_boxed (sent), g_value_get_boxed (decoded)));
}

static void
store_walk (const GValue *decoded)
{
  g_autoptr (GError) error = NULL;
  g_autoptr (GVariant) all = ferry_store_reference_get (g_value_get_boxed (decoded), "", &error);

  ferry_assert_no_error (error);
}

/*
 * numpy
 */

/* The format, the shape up to the first -1, and how it lies in memory: strides in elements. */
static const struct
{
  const char *format;
  gint64 shape[4];
  gint64 strides[3];
  gsize offset; /* elements */
} numpy_samples[] = {
  { "<f8", { 10, -1 }, { 1 }, 0 },
  { "<f4", { -1 }, { 0 }, 0 },
  { ">i2", { 3, 5, -1 }, { 5, 1 }, 0 },
  { "|b1", { 0, 7, -1 }, { 7, 1 }, 0 },
  { "<u8", { 4, 3, -1 }, { 1, 4 }, 0 },
  { "<c16", { 2, 3, 4, -1 }, { 12, 4, 1 }, 0 },
  { "|u1", { 6, -1 }, { -1 }, 5 },
  { "<i4", { 3, 4, -1 }, { 0, 2 }, 0 },
  { "<M8[ns]", { 5, -1 }, { 1 }, 0 },
  { "|S5", { 3, -1 }, { 1 }, 0 },
  { "<U3", { 2, 2, -1 }, { 2, 1 }, 0 },
  { "<E2", { 9, -1 }, { 1 }, 0 },
  { "|V0", { 4, -1 }, { 1 }, 0 },
  { "|V7", { 1, 1, 1, -1 }, { 1, 1, 1 }, 0 },
  { "[('x', '<f4'), ('rgb', '|u1', (3,)), ('', '|V1')]", { 3, -1 }, { 1 }, 0 },
  { "<f8", { 500, 200, -1 }, { 1, 500 }, 0 },
};

/* Bytes; only the last one needs many. */
#define NUMPY_MEMORY(i) ((gsize) ((i) == G_N_ELEMENTS (numpy_samples) - 1 ? 500 * 200 * 8 : 1024))

static void
numpy_get_sample (guint i, GValue *value)
{
  g_autoptr (FerryTensor) plain = NULL;
  g_autoptr (GError) error = NULL;
  gint64 strides[3];
  gint64 item_size;
  guint n = 0;
  guint8 *memory = g_malloc (NUMPY_MEMORY (i));
  FerryTensor *tensor;

  for (gsize b = 0; b < NUMPY_MEMORY (i); b++)
    memory[b] = (guint8) (b * 11 + i);
  plain = ferry_tensor_new (numpy_samples[i].format, NULL, 0, &error);
  ferry_assert_no_error (error);
  item_size = (gint64) ferry_tensor_get_item_size (plain);
  for (; numpy_samples[i].shape[n] >= 0; n++)
    strides[n] = numpy_samples[i].strides[n] * item_size;
  tensor = ferry_tensor_new_take (numpy_samples[i].format, numpy_samples[i].shape, n, strides, memory, NUMPY_MEMORY (i),
                                  numpy_samples[i].offset * (gsize) item_size, TRUE, g_free, memory, &error);
  ferry_assert_no_error (error);
  g_value_init (value, FERRY_TYPE_TENSOR);
  g_value_take_boxed (value, tensor);
}

static void
numpy_assert_equal (const GValue *sent, const GValue *decoded)
{
  ck_assert (G_VALUE_HOLDS (decoded, FERRY_TYPE_TENSOR));
  ck_assert_str_eq (ferry_tensor_get_format (g_value_get_boxed (sent)),
                    ferry_tensor_get_format (g_value_get_boxed (decoded)));
  ck_assert (ferry_tensor_equal (g_value_get_boxed (sent), g_value_get_boxed (decoded)));
}

static void
numpy_walk (const GValue *decoded)
{
  FerryTensor *tensor = g_value_get_boxed (decoded);
  g_autoptr (GError) error = NULL;
  g_autoptr (GBytes) bytes = ferry_tensor_to_bytes (tensor, &error);

  ferry_assert_no_error (error);
  g_bytes_hash (bytes);
  ck_assert_ptr_nonnull (ferry_tensor_get_format (tensor));
}

static const guint8 *
numpy_get_payload (const GValue *decoded, gsize *size)
{
  *size = ferry_tensor_get_size_bytes (g_value_get_boxed (decoded));
  return ferry_tensor_get_data (g_value_get_boxed (decoded));
}

/*
 * python, the half that needs no interpreter
 */

/* Of the types that messages are decoded to, so that they arrive as they were. */
static const char *const python_samples[] = {
  "true",
  "int64 5",
  "int64 -5",
  "int64 70000",
  "int64 -9223372036854775808",
  "uint64 18446744073709551615",
  "3.25",
  "'text'",
  "''",
  "'\xc3\xa4\xc3\xb6'",
  "'\xe2\x82\xac'",
  "'\xf0\x9f\x98\x80'",
  "b'bytes\\001\\377'",
  "@mv nothing",
  "@av []",
  "@a{sv} {}",
  "()",
  "[<int64 1>, <'a'>, <[<true>]>]",
  "(int64 1, 'two', 3.0, @mv nothing, (b'', false))",
  "{'width': <int64 640>, 'name': <'frames'>, 'nested': <{'a': <(int64 1, true)>}>}",
};

/* Behind them one whose data are no part, but many. */
#define N_PYTHON_SAMPLES (G_N_ELEMENTS (python_samples) + 1)

static void
python_get_sample (guint i, GValue *value)
{
  g_autoptr (GError) error = NULL;
  GVariant *variant;

  if (i < G_N_ELEMENTS (python_samples))
    {
      variant = g_variant_parse (NULL, python_samples[i], NULL, NULL, &error);
      ferry_assert_no_error (error);
    }
  else
    {
      GVariantBuilder builder;

      g_variant_builder_init (&builder, G_VARIANT_TYPE ("av"));
      for (gint64 n = 0; n < 300; n++)
        g_variant_builder_add (&builder, "v", g_variant_new_int64 (n * n * n));
      variant = g_variant_builder_end (&builder);
    }
  g_value_init (value, G_TYPE_VARIANT);
  g_value_take_variant (value, g_variant_take_ref (variant));
}

/* Large data lies in the message, in a part of its own. */
static void
python_data_get_sample (guint i, GValue *value)
{
  static const gsize sizes[] = { 2048, 5000, 100000 };
  gsize size = sizes[i % G_N_ELEMENTS (sizes)];
  guint8 *data = g_malloc (size);
  GVariant *variant;

  for (gsize n = 0; n < size; n++)
    data[n] = (guint8) (n * 13 + i);
  variant = g_variant_new_from_data (G_VARIANT_TYPE_BYTESTRING, data, size, TRUE, g_free, data);
  g_value_init (value, G_TYPE_VARIANT);
  g_value_take_variant (value, g_variant_take_ref (variant));
}

static void
python_walk (const GValue *decoded)
{
  if (G_VALUE_HOLDS (decoded, FERRY_TYPE_TENSOR))
    numpy_walk (decoded);
  else
    gvariant_walk (decoded);
}

#endif

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
    {
        .name = "store",
        .n_samples = G_N_ELEMENTS (store_samples),
        .get_sample = store_get_sample,
        .assert_equal = store_assert_equal,
        .walk = store_walk,
    },
#ifdef FERRY_TEST_NUMPY
    {
        .name = "numpy",
        .n_samples = G_N_ELEMENTS (numpy_samples),
        .get_sample = numpy_get_sample,
        .assert_equal = numpy_assert_equal,
        .walk = numpy_walk,
        .get_payload = numpy_get_payload,
    },
    {
        .name = "python",
        .n_samples = N_PYTHON_SAMPLES,
        .get_sample = python_get_sample,
        .assert_equal = gvariant_assert_equal,
        .walk = python_walk,
    },
    {
        .name = "python",
        .n_samples = 3,
        .get_sample = python_data_get_sample,
        .assert_equal = gvariant_assert_equal,
        .walk = python_walk,
        .get_payload = gvariant_get_payload,
    },
    {
        .name = "python",
        .n_samples = G_N_ELEMENTS (numpy_samples),
        .get_sample = numpy_get_sample,
        .assert_equal = numpy_assert_equal,
        .walk = python_walk,
        .get_payload = numpy_get_payload,
    },
#endif
  };

  return codec_conformance_run (codecs, G_N_ELEMENTS (codecs));
}
