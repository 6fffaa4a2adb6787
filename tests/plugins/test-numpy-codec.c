/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ferry-test.h"

/* What any codec must do is in test-codec-conformance.c, and what needs Python in tests/python/test_codec_numpy.py. */

#define HEADER_FIXED (16)
#define ALIGNMENT (64)

static FerryCodec *
create (void)
{
  g_autoptr (GError) error = NULL;
  FerryCodec *codec = ferry_registry_create_codec (ferry_registry_get_default (), "numpy", &error);

  ferry_assert_no_error (error);
  return codec;
}

static void
take_tensor (GValue *value, FerryTensor *tensor)
{
  ck_assert_ptr_nonnull (tensor);
  g_value_init (value, FERRY_TYPE_TENSOR);
  g_value_take_boxed (value, tensor);
}

/* A message by hand. The data are 1, 2, 3, ... */
static FerryBuffer *
make_message (guint8 flags, const char *format, guint32 item_size, guint32 extension_length, guint8 n,
              const gint64 *shape, gsize data_size)
{
  gsize header_size = HEADER_FIXED + n * sizeof (gint64) + strlen (format) + extension_length;
  gsize offset = (header_size + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
  g_autofree guint8 *data = g_malloc0 (offset + data_size);
  g_autoptr (GBytes) bytes = NULL;
  guint16 format_length = GUINT16_TO_LE ((guint16) strlen (format));

  data[0] = flags;
  data[1] = n;
  memcpy (data + 2, &format_length, 2);
  item_size = GUINT32_TO_LE (item_size);
  memcpy (data + 4, &item_size, 4);
  extension_length = GUINT32_TO_LE (extension_length);
  memcpy (data + 8, &extension_length, 4);
  for (guint i = 0; i < n; i++)
    {
      gint64 length = GINT64_TO_LE (shape[i]);

      memcpy (data + HEADER_FIXED + i * sizeof length, &length, sizeof length);
    }
  memcpy (data + HEADER_FIXED + n * sizeof (gint64), format, strlen (format));
  for (gsize i = 0; i < data_size; i++)
    data[offset + i] = (guint8) (i + 1);
  bytes = g_bytes_new (data, offset + data_size);
  return ferry_buffer_new_bytes (bytes);
}

static void
assert_refused (FerryBuffer *message, const char *part)
{
  g_autoptr (FerryCodec) codec = create ();
  g_autoptr (FerryBuffer) buffer = message;
  g_autoptr (GError) error = NULL;
  GValue value = G_VALUE_INIT;

  ck_assert (!ferry_codec_decode (codec, buffer, 1, &value, &error));
  ferry_assert_error (error, FERRY_ERROR, FERRY_ERROR_CODEC);
  ferry_assert_contains (error->message, "codec 'numpy'");
  ferry_assert_contains (error->message, part);
}

/* docs/wire-formats.md, byte by byte. */
START_TEST (test_layout)
{
  static const guint8 expected[] = {
    0,   2,   3,   0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, /* flags, dimensions, lengths, item size */
    2,   0,   0,   0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, /* shape */
    '>', 'u', '2',                                        /* format */
  };
  static const gint64 shape[] = { 2, 3 };
  static const guint8 data[] = { 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12 };
  g_autoptr (FerryCodec) codec = create ();
  g_autoptr (GError) error = NULL;
  g_autoptr (GBytes) bytes = NULL;
  g_auto (GValue) value = G_VALUE_INIT;
  const guint8 *found;
  gsize size;

  take_tensor (&value, ferry_tensor_new_copy (">u2", shape, 2, data, sizeof data, &error));
  bytes = ferry_codec_encode_bytes (codec, &value, &error);
  ferry_assert_no_error (error);
  found = g_bytes_get_data (bytes, &size);
  ck_assert_uint_eq (size, ALIGNMENT + sizeof data);
  ck_assert_mem_eq (found, expected, sizeof expected);
  for (gsize i = sizeof expected; i < ALIGNMENT; i++)
    ck_assert_uint_eq (found[i], 0);
  ck_assert_mem_eq (found + ALIGNMENT, data, sizeof data);
}
END_TEST

/* What lies in Fortran order stays so and is copied in one piece; what lies in neither arrives in C order. */
START_TEST (test_orders)
{
  static const gint64 shape[] = { 2, 3 };
  static const gint64 fortran[] = { 1, 2 };
  static const gint64 gaps[] = { 8, 2 };
  static const guint8 data[16] = { 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16 };

  for (guint i = 0; i < 2; i++)
    {
      g_autoptr (FerryCodec) codec = create ();
      g_autoptr (GBytes) memory = g_bytes_new_static (data, sizeof data);
      g_autoptr (GBytes) bytes = NULL;
      g_autoptr (FerryBuffer) buffer = NULL;
      g_autoptr (GError) error = NULL;
      g_auto (GValue) value = G_VALUE_INIT;
      g_auto (GValue) decoded = G_VALUE_INIT;

      take_tensor (&value, ferry_tensor_new_for_bytes ("|u1", shape, 2, i == 0 ? fortran : gaps, 2, memory, 0, &error));
      bytes = ferry_codec_encode_bytes (codec, &value, &error);
      ferry_assert_no_error (error);
      ck_assert_uint_eq (g_bytes_get_size (bytes), ALIGNMENT + 6);
      buffer = ferry_buffer_new_bytes (bytes);
      ck_assert (ferry_codec_decode (codec, buffer, 1, &decoded, &error));
      ferry_assert_no_error (error);
      ck_assert (ferry_tensor_equal (g_value_get_boxed (&value), g_value_get_boxed (&decoded)));
      ck_assert_int_eq (ferry_tensor_is_f_contiguous (g_value_get_boxed (&decoded)), i == 0);
      ck_assert_int_eq (ferry_tensor_is_c_contiguous (g_value_get_boxed (&decoded)), i == 1);
    }
}
END_TEST

/* A view of a message that may be written may be written too, unless the sender's array might not. */
START_TEST (test_writable)
{
  static const gint64 shape[] = { 4 };
  g_autoptr (FerryCodec) codec = create ();

  for (guint8 flags = 0; flags <= 2; flags += 2)
    for (gboolean writable = FALSE; writable <= TRUE; writable++)
      {
        g_autoptr (FerryBuffer) message = make_message (flags, "|u1", 1, 0, 1, shape, 4);
        g_autoptr (FerryBuffer) buffer = NULL;
        g_autoptr (GError) error = NULL;
        g_auto (GValue) value = G_VALUE_INIT;
        gsize size;
        const guint8 *data = ferry_buffer_get_data (message, &size);
        FerryTensor *tensor;

        buffer = ferry_buffer_new_take ((gpointer) data, size, writable, NULL, NULL);
        ck_assert (ferry_codec_decode (codec, buffer, 1, &value, &error));
        ferry_assert_no_error (error);
        tensor = g_value_get_boxed (&value);
        ck_assert_int_eq (ferry_tensor_is_writable (tensor), writable && flags == 0);
        ck_assert_ptr_eq (ferry_tensor_get_data (tensor), data + ALIGNMENT);
      }
}
END_TEST

/* What only Python understands is opaque here, with the right sizes. */
START_TEST (test_extension_ignored)
{
  static const gint64 shape[] = { 2 };
  g_autoptr (FerryCodec) codec = create ();
  g_autoptr (FerryBuffer) buffer = make_message (0, "|V16", 16, 21, 1, shape, 32);
  g_autoptr (GError) error = NULL;
  g_auto (GValue) value = G_VALUE_INIT;

  ck_assert (ferry_codec_decode (codec, buffer, 1, &value, &error));
  ferry_assert_no_error (error);
  ck_assert_str_eq (ferry_tensor_get_format (g_value_get_boxed (&value)), "|V16");
  ck_assert_uint_eq (ferry_tensor_get_size_bytes (g_value_get_boxed (&value)), 32);
}
END_TEST

START_TEST (test_hostile)
{
  static const gint64 four[] = { 4 };
  static const gint64 negative[] = { -4 };
  static const gint64 huge[] = { G_MAXINT64, 8 };
  static const gint64 huge_and_none[] = { 0, G_MAXINT64, 8 };
  static const gint64 wraps[] = { G_GINT64_CONSTANT (1) << 33, G_GINT64_CONSTANT (1) << 33 };
  gint64 many[65];

  for (guint i = 0; i < G_N_ELEMENTS (many); i++)
    many[i] = 1;
  assert_refused (make_message (4, "|u1", 1, 0, 1, four, 4), "flags");
  assert_refused (make_message (0, "|u1", 1, 0, 65, many, 1), "65 dimensions");
  assert_refused (make_message (0, "", 1, 0, 1, four, 4), "header");
  assert_refused (make_message (0, "|u1", 1, 0, 1, negative, 4), "dimension 0");
  assert_refused (make_message (0, "|u1", 1, 0, 2, huge, 4), "no memory");
  assert_refused (make_message (0, "|u1", 1, 0, 2, wraps, 0), "no memory");
  assert_refused (make_message (0, "|u1", 1, 0, 3, huge_and_none, 0), "no memory");
  assert_refused (make_message (0, "|u1", 1, 0, 1, four, 3), "cut");
  assert_refused (make_message (0, "|u1", 1, 0, 1, four, 5), "cut");
  assert_refused (make_message (0, "|u1", 2, 0, 1, four, 8), "elements");
  assert_refused (make_message (0, "|O8", 8, 0, 1, four, 32), "objects");
  assert_refused (make_message (0, "bad", 1, 0, 1, four, 4), "format");
}
END_TEST

/* Objects of Python: there are none here, and who insists is told why. */
START_TEST (test_no_interpreter)
{
  static const gint64 shape[] = { 4 };
  g_autoptr (FerryCodec) codec = create ();
  g_autoptr (FerryBuffer) buffer = make_message (0, "|u1", 1, 0, 1, shape, 4);
  g_autoptr (GError) error = NULL;
  GValue value = G_VALUE_INIT;
  GEnumClass *enum_class;
  GParamSpec *pspec = g_object_class_find_property (G_OBJECT_GET_CLASS (codec), "decode-to");

  ck_assert (G_IS_PARAM_SPEC_ENUM (pspec));
  enum_class = G_PARAM_SPEC_ENUM (pspec)->enum_class;
  ck_assert_ptr_nonnull (g_enum_get_value_by_nick (enum_class, "auto"));
  ck_assert_ptr_nonnull (g_enum_get_value_by_nick (enum_class, "tensor"));

  g_object_set (codec, "decode-to", g_enum_get_value_by_nick (enum_class, "object")->value, NULL);
  ck_assert (!ferry_codec_decode (codec, buffer, 1, &value, &error));
  ferry_assert_error (error, FERRY_ERROR, FERRY_ERROR_UNSUPPORTED);
  ferry_assert_contains (error->message, "no Python interpreter in this process");
  ck_assert (!ferry_codec_accepts (codec, g_type_from_name ("PyObject")));
}
END_TEST

/* With codec `auto` the type of the value finds it, and the name in the message the decoder. */
START_TEST (test_channel)
{
  static const gint64 shape[] = { 100, 100 };
  g_autoptr (FerryChannel) sender = NULL;
  g_autoptr (FerryChannel) receiver = NULL;
  g_autoptr (GError) error = NULL;
  g_auto (GValue) value = G_VALUE_INIT;
  g_auto (GValue) decoded = G_VALUE_INIT;
  g_autofree char *line = g_strdup_printf ("memfd name=numpy-codec-%d", (int) getpid ());

  receiver = ferry_channel_new_from_description (line, FERRY_ROLE_RECEIVER, &error);
  ferry_assert_no_error (error);
  sender = ferry_channel_new_from_description (line, FERRY_ROLE_SENDER, &error);
  ferry_assert_no_error (error);
  ck_assert (ferry_channel_open (receiver, NULL, &error));
  ck_assert (ferry_channel_open (sender, NULL, &error));

  take_tensor (&value, ferry_tensor_new ("<f4", shape, 2, &error));
  ck_assert (ferry_channel_send_value (sender, &value, 5 * G_USEC_PER_SEC, NULL, &error));
  ferry_assert_no_error (error);
  ck_assert (ferry_channel_receive_value (receiver, &decoded, 5 * G_USEC_PER_SEC, NULL, &error));
  ferry_assert_no_error (error);
  ck_assert (G_VALUE_HOLDS (&decoded, FERRY_TYPE_TENSOR));
  ck_assert (ferry_tensor_equal (g_value_get_boxed (&value), g_value_get_boxed (&decoded)));
  ck_assert_uint_eq (GPOINTER_TO_SIZE (ferry_tensor_get_data (g_value_get_boxed (&decoded))) % ALIGNMENT, 0);
  ck_assert (ferry_tensor_is_writable (g_value_get_boxed (&decoded)));
}
END_TEST

static FerryChannel *
open_channel (const char *codec, FerryRole role)
{
  g_autoptr (GError) error = NULL;
  g_autofree char *line = g_strdup_printf ("memfd name=numpy-codec-loan-%d max-bytes=16777216%s%s", (int) getpid (),
                                           codec != NULL ? " ! " : "", codec != NULL ? codec : "");
  FerryChannel *channel = ferry_channel_new_from_description (line, role, &error);

  ferry_assert_no_error (error);
  ck_assert (ferry_channel_open (channel, NULL, &error));
  ferry_assert_no_error (error);
  return channel;
}

/* What is filled in place is what an encoded tensor is, byte by byte. */
START_TEST (test_loan_tensor)
{
  static const struct
  {
    const char *format;
    guint n_dimensions;
    gint64 shape[3];
  } layouts[] = {
    { "<f4", 2, { 100, 100 } }, { "|u1", 3, { 72, 128, 3 } }, { "[('x', '<f4'), ('rgb', '|u1', (3,))]", 1, { 1000 } },
    { ">i8", 0, { 0 } },        { "<c16", 1, { 1 } },         { "<i2", 2, { 0, 7 } },
  };

  for (guint i = 0; i < 2 * G_N_ELEMENTS (layouts); i++)
    {
      const guint n = i / 2;
      const char *name = i % 2 == 0 ? "numpy" : NULL;
      g_autoptr (FerryChannel) receiver = open_channel (NULL, FERRY_ROLE_RECEIVER);
      g_autoptr (FerryChannel) sender = open_channel (name, FERRY_ROLE_SENDER);
      g_autoptr (FerryCodec) codec = create ();
      g_autoptr (FerryTensor) elements = NULL;
      g_autoptr (FerryTensor) expected = NULL;
      g_autoptr (FerryBuffer) buffer = NULL;
      g_autoptr (FerryBuffer) message = NULL;
      g_autoptr (GBytes) encoded = NULL;
      g_autoptr (GBytes) received = NULL;
      g_autoptr (GError) error = NULL;
      g_autofree char *wire_name = NULL;
      g_auto (GValue) value = G_VALUE_INIT;
      g_auto (GValue) decoded = G_VALUE_INIT;
      gsize size;

      buffer = ferry_channel_loan_tensor (sender, layouts[n].format, layouts[n].shape, layouts[n].n_dimensions,
                                          5 * G_USEC_PER_SEC, NULL, &elements, &error);
      ferry_assert_no_error (error);
      size = ferry_tensor_get_size_bytes (elements);
      ck_assert (ferry_tensor_is_writable (elements) && ferry_tensor_is_c_contiguous (elements));
      ck_assert_ptr_eq ((const guint8 *) ferry_tensor_get_data (elements) + size,
                        ferry_buffer_get_data (buffer, NULL) + ferry_buffer_get_size (buffer));
      ck_assert_uint_eq (ferry_tensor_get_address (elements) % ALIGNMENT, 0);
      expected = ferry_tensor_new (layouts[n].format, layouts[n].shape, layouts[n].n_dimensions, &error);
      for (gsize k = 0; k < size; k++)
        {
          ((guint8 *) ferry_tensor_get_writable_data (expected))[k] = (guint8) (k * 7);
          ((guint8 *) ferry_tensor_get_writable_data (elements))[k] = (guint8) (k * 7);
        }
      g_clear_pointer (&elements, ferry_tensor_unref);
      ck_assert (ferry_channel_send_buffer (sender, buffer, 5 * G_USEC_PER_SEC, NULL, &error));
      ferry_assert_no_error (error);

      message = ferry_channel_receive (receiver, 5 * G_USEC_PER_SEC, NULL, &error);
      ferry_assert_no_error (error);
      wire_name = ferry_buffer_dup_wire_name (message, NULL);
      ck_assert_str_eq (wire_name, "numpy");
      take_tensor (&value, ferry_tensor_ref (expected));
      encoded = ferry_codec_encode_bytes (codec, &value, &error);
      received = ferry_buffer_to_bytes (message);
      ck_assert (g_bytes_equal (received, encoded));
      ck_assert (ferry_channel_decode (receiver, message, &decoded, &error));
      ferry_assert_no_error (error);
      ck_assert (ferry_tensor_equal (expected, g_value_get_boxed (&decoded)));
    }
}
END_TEST

/* It is one block, and it goes back when it is not sent. */
START_TEST (test_loan_tensor_not_sent)
{
  static const gint64 shape[] = { 1024, 1024, 3 };
  g_autoptr (FerryChannel) sender = open_channel ("numpy", FERRY_ROLE_SENDER);
  g_autoptr (GError) error = NULL;

  for (guint i = 0; i < 20; i++)
    {
      g_autoptr (FerryTensor) elements = NULL;
      g_autoptr (FerryBuffer) buffer
          = ferry_channel_loan_tensor (sender, "|u1", shape, 3, FERRY_NO_WAIT, NULL, &elements, &error);

      ferry_assert_no_error (error);
      ck_assert_ptr_nonnull (buffer);
      /* Either of them holds the memory. */
      if (i % 2 == 0)
        g_clear_pointer (&buffer, ferry_buffer_unref);
      else
        g_clear_pointer (&elements, ferry_tensor_unref);
    }
}
END_TEST

START_TEST (test_loan_tensor_refused)
{
  static const gint64 shape[] = { 10, 10 };
  static const gint64 negative[] = { 10, -1 };
  static const gint64 huge[] = { G_MAXINT32, G_MAXINT32 };
  static const struct
  {
    const char *codec;
    const char *format;
    const gint64 *shape;
    FerryError code;
  } cases[] = {
    { "numpy", "<f3", shape, FERRY_ERROR_INVALID_ARGUMENT }, { "numpy", "<f4", negative, FERRY_ERROR_INVALID_ARGUMENT },
    { "numpy", "<f8", huge, FERRY_ERROR_INVALID_ARGUMENT },  { "numpy", "|u1", huge, FERRY_ERROR_TOO_BIG },
    { "raw", "<f4", shape, FERRY_ERROR_UNSUPPORTED },        { "gvariant", "<f4", shape, FERRY_ERROR_UNSUPPORTED },
    { "python", "<f4", shape, FERRY_ERROR_UNSUPPORTED },
  };

  for (guint i = 0; i < G_N_ELEMENTS (cases); i++)
    {
      g_autoptr (FerryChannel) sender = open_channel (cases[i].codec, FERRY_ROLE_SENDER);
      g_autoptr (GError) error = NULL;
      FerryTensor *elements;

      ck_assert_ptr_null (ferry_channel_loan_tensor (sender, cases[i].format, cases[i].shape, 2, FERRY_NO_WAIT, NULL,
                                                     &elements, &error));
      ferry_assert_error (error, FERRY_ERROR, cases[i].code);
      ck_assert_ptr_null (elements);
      g_clear_error (&error);
      ck_assert (ferry_channel_close (sender, NULL));
      ck_assert_ptr_null (ferry_channel_loan_tensor (sender, "<f4", shape, 2, FERRY_NO_WAIT, NULL, &elements, &error));
      ferry_assert_error (error, FERRY_ERROR, FERRY_ERROR_CLOSED);
    }
}
END_TEST

static void
add (Suite *suite)
{
  const TTest *const tests[] = { test_layout,
                                 test_orders,
                                 test_writable,
                                 test_extension_ignored,
                                 test_hostile,
                                 test_no_interpreter,
                                 test_channel,
                                 test_loan_tensor,
                                 test_loan_tensor_not_sent,
                                 test_loan_tensor_refused,
                                 NULL };

  ferry_test_add_case (suite, "numpy-codec", 30, tests);
}

int
main (void)
{
  return ferry_test_run ("numpy-codec", add);
}
