/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ferry-test.h"

#include "ferry-dlpack-private.h"

#include <math.h>
#include <string.h>

#if G_BYTE_ORDER == G_LITTLE_ENDIAN
#define N "<"
#define OTHER ">"
#else
#define N ">"
#define OTHER "<"
#endif

static const gint64 shape_23[] = { 2, 3 };

static void
on_release (gpointer data)
{
  (*(int *) data)++;
}

static FerryTensor *
make_counting (int n)
{
  g_autoptr (GError) error = NULL;
  gint64 shape[] = { n };
  FerryTensor *tensor = ferry_tensor_new (N "i4", shape, 1, &error);
  gint32 *data = ferry_tensor_get_writable_data (tensor);

  ferry_assert_no_error (error);
  for (int i = 0; i < n; i++)
    data[i] = i;
  return tensor;
}

START_TEST (test_new)
{
  g_autoptr (GError) error = NULL;
  g_autoptr (FerryTensor) tensor = ferry_tensor_new ("<f4", shape_23, 2, &error);
  const gint64 *dimensions;
  guint n_dimensions;

  ferry_assert_no_error (error);
  ck_assert_int_eq (ferry_tensor_get_data_type (tensor), FERRY_DATA_TYPE_FLOAT32);
  ck_assert_str_eq (ferry_tensor_get_format (tensor), "<f4");
  ck_assert_int_eq (ferry_tensor_get_byte_order (tensor), G_LITTLE_ENDIAN);
  ck_assert_uint_eq (ferry_tensor_get_item_size (tensor), 4);
  ck_assert_uint_eq (ferry_tensor_get_n_dimensions (tensor), 2);
  ck_assert_int_eq (ferry_tensor_get_n_elements (tensor), 6);
  ck_assert_uint_eq (ferry_tensor_get_size_bytes (tensor), 24);
  dimensions = ferry_tensor_get_shape (tensor, &n_dimensions);
  ck_assert_uint_eq (n_dimensions, 2);
  ck_assert_int_eq (dimensions[0], 2);
  ck_assert_int_eq (dimensions[1], 3);
  dimensions = ferry_tensor_get_strides (tensor, NULL);
  ck_assert_int_eq (dimensions[0], 12);
  ck_assert_int_eq (dimensions[1], 4);
  ck_assert (ferry_tensor_is_c_contiguous (tensor));
  ck_assert (!ferry_tensor_is_f_contiguous (tensor));
  ck_assert (ferry_tensor_is_aligned (tensor));
  ck_assert (ferry_tensor_is_writable (tensor));
  ck_assert_uint_eq (GPOINTER_TO_SIZE (ferry_tensor_get_data (tensor)) % 64, 0);
  for (guint i = 0; i < 24; i++)
    ck_assert_int_eq (((const guint8 *) ferry_tensor_get_data (tensor))[i], 0);
}
END_TEST

START_TEST (test_data_types)
{
  static const struct
  {
    const char *format;
    FerryDataType data_type;
    gsize item_size;
    const char *canonical;
  } cases[] = {
    { "|b1", FERRY_DATA_TYPE_BOOL, 1, NULL },
    { "i1", FERRY_DATA_TYPE_INT8, 1, "|i1" },
    { "<i2", FERRY_DATA_TYPE_INT16, 2, NULL },
    { ">i4", FERRY_DATA_TYPE_INT32, 4, NULL },
    { "=i8", FERRY_DATA_TYPE_INT64, 8, N "i8" },
    { "i8", FERRY_DATA_TYPE_INT64, 8, N "i8" },
    { "<u1", FERRY_DATA_TYPE_UINT8, 1, "|u1" },
    { "<u2", FERRY_DATA_TYPE_UINT16, 2, NULL },
    { "<u4", FERRY_DATA_TYPE_UINT32, 4, NULL },
    { "<u8", FERRY_DATA_TYPE_UINT64, 8, NULL },
    { "<f2", FERRY_DATA_TYPE_FLOAT16, 2, NULL },
    { "<f4", FERRY_DATA_TYPE_FLOAT32, 4, NULL },
    { "<f8", FERRY_DATA_TYPE_FLOAT64, 8, NULL },
    { "<E2", FERRY_DATA_TYPE_BFLOAT16, 2, NULL },
    { "<c8", FERRY_DATA_TYPE_COMPLEX64, 8, NULL },
    { "<c16", FERRY_DATA_TYPE_COMPLEX128, 16, NULL },
    { "<M8[ns]", FERRY_DATA_TYPE_DATETIME64, 8, NULL },
    { "<M8", FERRY_DATA_TYPE_DATETIME64, 8, NULL },
    { "<m8[25us]", FERRY_DATA_TYPE_TIMEDELTA64, 8, NULL },
    { "|S5", FERRY_DATA_TYPE_BYTES, 5, NULL },
    { "|S0", FERRY_DATA_TYPE_BYTES, 0, NULL },
    { "<U7", FERRY_DATA_TYPE_UNICODE, 28, NULL },
    { "|V3", FERRY_DATA_TYPE_VOID, 3, NULL },
    { "[]", FERRY_DATA_TYPE_VOID, 0, NULL },
    { "[('x', '<f4'), ('rgb', '|u1', (3,))]", FERRY_DATA_TYPE_VOID, 7, NULL },
    { " [ ( 'x' , \"<f4\" ) , ('rgb','u1',3) , ] ", FERRY_DATA_TYPE_VOID, 7, "[('x', '<f4'), ('rgb', '|u1', (3,))]" },
    { "[(('title', 'name'), '<i4', (2, 3))]", FERRY_DATA_TYPE_VOID, 24, NULL },
    { "[('a', [('b', '<f8'), ('c', '|S3')], (2,)), ('', '|V4')]", FERRY_DATA_TYPE_VOID, 26, NULL },
    { "[('it\\'s', '<f8')]", FERRY_DATA_TYPE_VOID, 8, NULL },
    { "[('a', '<f8', (0,))]", FERRY_DATA_TYPE_VOID, 0, NULL },
    { "[('a', '<f8', ())]", FERRY_DATA_TYPE_VOID, 8, NULL },
  };

  for (guint i = 0; i < G_N_ELEMENTS (cases); i++)
    {
      g_autoptr (GError) error = NULL;
      g_autoptr (FerryTensor) tensor = ferry_tensor_new (cases[i].format, shape_23, 2, &error);

      ferry_assert_no_error (error);
      ck_assert_int_eq (ferry_tensor_get_data_type (tensor), cases[i].data_type);
      ck_assert_uint_eq (ferry_tensor_get_item_size (tensor), cases[i].item_size);
      ck_assert_str_eq (ferry_tensor_get_format (tensor),
                        cases[i].canonical != NULL ? cases[i].canonical : cases[i].format);
      ck_assert_uint_eq (ferry_tensor_get_size_bytes (tensor), 6 * cases[i].item_size);
    }
}
END_TEST

START_TEST (test_bad_formats)
{
  static const struct
  {
    const char *format;
    const char *part;
  } cases[] = {
    { "", "expected a type string" },
    { "<", "expected a type string" },
    { "f", "expected a number" },
    { "<f16", "no type 'f' of 16 bytes" },
    { "<c32", "no type 'c' of 32 bytes" },
    { "<i3", "no type 'i' of 3 bytes" },
    { "|i4", "'|' leaves the byte order open" },
    { "|O8", "pointers" },
    { "O", "pointers" },
    { "<x4", "unknown kind 'x'" },
    { "<f4 f4", "expected the end" },
    { "<f4\xff", "expected the end" },
    { "<M8[", "unit of time" },
    { "<M8[ns", "unit of time" },
    { "<M8[xs]", "unit of time" },
    { "<M8[99999999999ns]", "larger than" },
    { "|S2147483648", "larger than" },
    { "<U1000000000", "more than" },
    { "[", "expected '('" },
    { "[(", "quoted name" },
    { "[('a", "not closed" },
    { "[('a\\", "not closed" },
    { "[('a', ", "quoted type string" },
    { "[('a', '<f4'", "expected ')'" },
    { "[('a', '<f4')", "expected ',' or ']'" },
    { "[('a', '<f4x')]", "end of the type string" },
    { "[('a', '|O8')]", "pointers" },
    { "[('a', '<f4', (2, 3)]", "expected ')'" },
    { "[('a', '<f4', (-1,))]", "expected a number" },
    { "[('a', '<f4', (65536, 65536))]", "more than" },
    { "[('a', '|V2147483647'), ('b', '|V1')]", "more than" },
  };

  for (guint i = 0; i < G_N_ELEMENTS (cases); i++)
    {
      g_autoptr (GError) error = NULL;
      g_autoptr (FerryTensor) tensor = ferry_tensor_new (cases[i].format, shape_23, 2, &error);

      ck_assert_msg (tensor == NULL, "\"%s\" was accepted", cases[i].format);
      ferry_assert_error (error, FERRY_ERROR, FERRY_ERROR_INVALID_ARGUMENT);
      ferry_assert_contains (error->message, cases[i].part);
      ck_assert (g_utf8_validate (error->message, -1, NULL));
    }
}
END_TEST

/* A hostile format must not exhaust the stack. */
START_TEST (test_nested_format)
{
  g_autoptr (GString) format = g_string_new (NULL);
  g_autofree char *huge = g_strnfill (10000000, '[');
  g_autoptr (GError) error = NULL;

  for (guint i = 0; i < 10000; i++)
    g_string_append (format, "[('a',");
  ck_assert_ptr_null (ferry_tensor_new (format->str, NULL, 0, &error));
  ferry_assert_error (error, FERRY_ERROR, FERRY_ERROR_INVALID_ARGUMENT);
  ferry_assert_contains (error->message, "32 deep");
  g_clear_error (&error);
  ck_assert_ptr_null (ferry_tensor_new (huge, NULL, 0, &error));
  ferry_assert_error (error, FERRY_ERROR, FERRY_ERROR_INVALID_ARGUMENT);
}
END_TEST

START_TEST (test_get_format)
{
  for (int i = FERRY_DATA_TYPE_VOID; i <= FERRY_DATA_TYPE_UNICODE; i++)
    {
      const char *format = ferry_data_type_get_format (i);
      g_autoptr (FerryTensor) tensor = NULL;

      if (i == FERRY_DATA_TYPE_VOID || i == FERRY_DATA_TYPE_BYTES || i == FERRY_DATA_TYPE_UNICODE)
        {
          ck_assert_ptr_null (format);
          continue;
        }
      tensor = ferry_tensor_new (format, NULL, 0, NULL);
      ck_assert_ptr_nonnull (tensor);
      ck_assert_int_eq (ferry_tensor_get_data_type (tensor), i);
      ck_assert_int_eq (ferry_tensor_get_byte_order (tensor), G_BYTE_ORDER);
      ck_assert_str_eq (ferry_tensor_get_format (tensor), format);
    }
  ck_assert_ptr_null (ferry_data_type_get_format (1000));
  ck_assert_ptr_null (ferry_data_type_get_format (-1));
}
END_TEST

START_TEST (test_no_dimensions)
{
  g_autoptr (GError) error = NULL;
  double number = 2.5;
  g_autoptr (FerryTensor) tensor = ferry_tensor_new_copy (N "f8", NULL, 0, (guint8 *) &number, 8, &error);
  g_autoptr (GBytes) bytes = NULL;

  ferry_assert_no_error (error);
  ck_assert_int_eq (ferry_tensor_get_n_elements (tensor), 1);
  ck_assert (ferry_tensor_is_c_contiguous (tensor));
  ck_assert (ferry_tensor_is_f_contiguous (tensor));
  ck_assert_double_eq (ferry_tensor_get_element_double (tensor, NULL, 0, &error), 2.5);
  bytes = ferry_tensor_to_bytes (tensor, &error);
  ck_assert_uint_eq (g_bytes_get_size (bytes), 8);
}
END_TEST

START_TEST (test_empty)
{
  gint64 shape[] = { 3, 0, G_GINT64_CONSTANT (1) << 30 };
  gint64 wild[] = { G_MAXINT64, G_MININT64, 7 };
  g_autoptr (GError) error = NULL;
  g_autoptr (GBytes) none = g_bytes_new (NULL, 0);
  g_autoptr (FerryTensor) tensor = ferry_tensor_new (N "f8", shape, 3, &error);
  g_autoptr (FerryTensor) view = NULL;
  g_autoptr (FerryTensor) copy = NULL;
  g_autoptr (GBytes) bytes = NULL;

  ferry_assert_no_error (error);
  ck_assert_int_eq (ferry_tensor_get_n_elements (tensor), 0);
  ck_assert_uint_eq (ferry_tensor_get_size_bytes (tensor), 0);
  view = ferry_tensor_new_for_bytes (N "f8", shape, 3, wild, 3, none, 0, &error);
  ferry_assert_no_error (error);
  ck_assert (ferry_tensor_is_c_contiguous (view));
  ck_assert (ferry_tensor_is_f_contiguous (view));
  ck_assert (ferry_tensor_is_aligned (view));
  ck_assert (ferry_tensor_equal (tensor, view));
  copy = ferry_tensor_copy_contiguous (view, &error);
  ferry_assert_no_error (error);
  ck_assert (ferry_tensor_equal (copy, view));
  bytes = ferry_tensor_as_bytes (view);
  ck_assert_uint_eq (g_bytes_get_size (bytes), 0);
}
END_TEST

/* Shapes and strides from elsewhere: each is refused, or stays inside. */
START_TEST (test_bounds)
{
  static const struct
  {
    gint64 shape[3];
    gint64 strides[3];
    guint n_dimensions;
    gsize offset;
    gboolean good; /* for 100 bytes of i4 */
  } cases[] = {
    { { 25 }, { 4 }, 1, 0, TRUE },
    { { 26 }, { 4 }, 1, 0, FALSE },
    { { 25 }, { 4 }, 1, 1, FALSE },
    { { 24 }, { 4 }, 1, 4, TRUE },
    { { 97 }, { 1 }, 1, 0, TRUE },
    { { 98 }, { 1 }, 1, 0, FALSE },
    { { 25 }, { -4 }, 1, 96, TRUE },
    { { 25 }, { -4 }, 1, 95, FALSE },
    { { 25 }, { -4 }, 1, 97, FALSE },
    { { 26 }, { -4 }, 1, 96, FALSE },
    { { 1 }, { 4 }, 1, 96, TRUE },
    { { 1 }, { 4 }, 1, 97, FALSE },
    { { 1 }, { 4 }, 1, 100, FALSE },
    { { 1 }, { 4 }, 1, 101, FALSE },
    { { 0 }, { 4 }, 1, 100, TRUE },
    { { 0 }, { 4 }, 1, 101, FALSE },
    { { 1000000000 }, { 0 }, 1, 0, TRUE },
    { { 5, 5 }, { 20, 4 }, 2, 0, TRUE },
    { { 5, 5 }, { 4, 20 }, 2, 0, TRUE },
    { { 5, 5 }, { -20, 4 }, 2, 80, TRUE },
    { { 5, 5 }, { -20, -4 }, 2, 96, TRUE },
    { { 5, 5 }, { -20, 4 }, 2, 79, FALSE },
    { { 5, 6 }, { 20, 4 }, 2, 0, FALSE },
    { { 2 }, { G_MAXINT64 }, 1, 0, FALSE },
    { { 2 }, { G_MININT64 }, 1, 0, FALSE },
    { { 3 }, { G_MAXINT64 }, 1, 0, FALSE },
    { { 3 }, { G_MININT64 }, 1, 0, FALSE },
    { { 2, 2 }, { G_MAXINT64, G_MAXINT64 }, 2, 0, FALSE },
    { { 2, 2 }, { G_MININT64, G_MININT64 }, 2, 0, FALSE },
    { { 2, 2 }, { G_MAXINT64, G_MININT64 }, 2, 0, FALSE },
    { { 1, 1 }, { G_MAXINT64, G_MININT64 }, 2, 0, TRUE },
    { { -1 }, { 4 }, 1, 0, FALSE },
    { { G_MININT64 }, { 4 }, 1, 0, FALSE },
    { { G_MAXINT64 }, { 0 }, 1, 0, FALSE },
    { { G_MAXINT64, 0 }, { 0, 0 }, 2, 0, FALSE },
    { { G_GINT64_CONSTANT (1) << 32, G_GINT64_CONSTANT (1) << 32, 1 }, { 0, 0, 0 }, 3, 0, FALSE },
    { { G_GINT64_CONSTANT (1) << 31, G_GINT64_CONSTANT (1) << 31, 1 }, { 0, 0, 0 }, 3, 0, FALSE },
  };
  g_autofree guint8 *data = g_malloc0 (100);

  for (guint i = 0; i < G_N_ELEMENTS (cases); i++)
    {
      g_autoptr (GError) error = NULL;
      g_autoptr (GBytes) bytes = g_bytes_new (data, 100);
      g_autoptr (FerryTensor) tensor
          = ferry_tensor_new_for_bytes (N "i4", cases[i].shape, cases[i].n_dimensions, cases[i].strides,
                                        cases[i].n_dimensions, bytes, cases[i].offset, &error);

      if (cases[i].good)
        {
          g_autofree guint8 *out = NULL;

          ferry_assert_no_error (error);
          if (ferry_tensor_get_size_bytes (tensor) > 1000)
            continue;
          out = g_malloc (MAX (ferry_tensor_get_size_bytes (tensor), 1));
          ck_assert (ferry_tensor_store (tensor, out, ferry_tensor_get_size_bytes (tensor)));
        }
      else
        {
          ck_assert_msg (tensor == NULL, "case %u was accepted", i);
          ferry_assert_error (error, FERRY_ERROR, FERRY_ERROR_INVALID_ARGUMENT);
          ferry_assert_contains (error->message, "tensor of shape (");
        }
    }
}
END_TEST

START_TEST (test_random_layouts)
{
  g_autoptr (GRand) rand = g_rand_new_with_seed (11);
  guint n_accepted = 0;

  for (int round = 0; round < 20000; round++)
    {
      g_autofree guint8 *data = g_malloc0 (64);
      gint64 shape[4];
      gint64 strides[4];
      guint n = (guint) g_rand_int_range (rand, 0, 5);
      gsize offset = (gsize) g_rand_int_range (rand, 0, 70);
      g_autoptr (FerryTensor) tensor = NULL;

      for (guint i = 0; i < n; i++)
        {
          shape[i] = g_rand_int_range (rand, 0, 5);
          strides[i] = g_rand_int_range (rand, -12, 13);
        }
      /* Exactly 64 bytes: ASan and valgrind see every byte outside. */
      tensor = ferry_tensor_new_take ("<u2", shape, n, strides, data, 64, offset, FALSE, NULL, NULL, NULL);
      if (tensor != NULL)
        {
          gsize size = ferry_tensor_get_size_bytes (tensor);
          g_autofree guint8 *out = g_malloc (MAX (size, 1));

          n_accepted++;
          ck_assert (ferry_tensor_store (tensor, out, size));
          ck_assert (!ferry_tensor_store (tensor, out, size + 1));
        }
    }
  ck_assert_uint_gt (n_accepted, 1000);
}
END_TEST

START_TEST (test_too_many)
{
  gint64 shape[65];
  g_autoptr (GError) error = NULL;
  g_autoptr (FerryTensor) tensor = NULL;
  g_autoptr (GBytes) bytes = g_bytes_new_static ("12345678", 8);

  for (guint i = 0; i < 65; i++)
    shape[i] = 1;
  tensor = ferry_tensor_new ("|u1", shape, 64, &error);
  ferry_assert_no_error (error);
  ck_assert_ptr_null (ferry_tensor_new ("|u1", shape, 65, &error));
  ferry_assert_error (error, FERRY_ERROR, FERRY_ERROR_INVALID_ARGUMENT);
  g_clear_error (&error);
  ck_assert_ptr_null (ferry_tensor_new_for_bytes ("|u1", shape, 2, shape, 1, bytes, 0, &error));
  ferry_assert_error (error, FERRY_ERROR, FERRY_ERROR_INVALID_ARGUMENT);
  ferry_assert_contains (error->message, "1 strides for 2 dimensions");
}
END_TEST

/* AddressSanitizer ends programs that ask for too much, unless told not to. */
G_GNUC_UNUSED __attribute__ ((visibility ("default"))) const char *__asan_default_options (void);

const char *
__asan_default_options (void)
{
  return "allocator_may_return_null=1";
}

START_TEST (test_no_memory)
{
  gint64 shape[] = { G_GINT64_CONSTANT (1) << 60 };
  g_autoptr (GError) error = NULL;

  ck_assert_ptr_null (ferry_tensor_new ("|u1", shape, 1, &error));
  ferry_assert_error (error, FERRY_ERROR, FERRY_ERROR_NO_SPACE);
}
END_TEST

START_TEST (test_new_copy)
{
  static const guint8 data[6] = { 1, 2, 3, 4, 5, 6 };
  g_autoptr (GError) error = NULL;
  g_autoptr (FerryTensor) tensor = ferry_tensor_new_copy ("|u1", shape_23, 2, data, 6, &error);

  ferry_assert_no_error (error);
  ck_assert_mem_eq (ferry_tensor_get_data (tensor), data, 6);
  ck_assert (ferry_tensor_is_writable (tensor));

  ck_assert_ptr_null (ferry_tensor_new_copy ("|u1", shape_23, 2, data, 5, &error));
  ferry_assert_error (error, FERRY_ERROR, FERRY_ERROR_INVALID_ARGUMENT);
  ferry_assert_contains (error->message, "6 bytes are needed, 5 are given");
}
END_TEST

START_TEST (test_ownership)
{
  static guint8 memory[64];
  g_autoptr (GError) error = NULL;
  g_autoptr (GBytes) bytes = NULL;
  int n_released = 0;
  FerryBuffer *buffer = ferry_buffer_new_take (memory, sizeof memory, TRUE, on_release, &n_released);
  FerryTensor *tensor;

  /* A failure takes nothing. */
  ck_assert_ptr_null (ferry_tensor_new_for_buffer (N "f8", shape_23, 2, NULL, 0, buffer, 60, &error));
  ferry_assert_error (error, FERRY_ERROR, FERRY_ERROR_INVALID_ARGUMENT);
  g_clear_error (&error);
  ck_assert_ptr_null (
      ferry_tensor_new_take (N "f8", shape_23, 2, NULL, memory, 1, 0, TRUE, on_release, &n_released, &error));
  g_clear_error (&error);
  ck_assert_int_eq (n_released, 0);

  tensor = ferry_tensor_new_for_buffer (N "f4", shape_23, 2, NULL, 0, buffer, 8, &error);
  ferry_assert_no_error (error);
  ck_assert_ptr_eq (ferry_tensor_get_data (tensor), memory + 8);
  ck_assert_ptr_eq (ferry_tensor_get_writable_data (tensor), memory + 8);
  ferry_buffer_unref (buffer);
  ck_assert_int_eq (n_released, 0);

  bytes = ferry_tensor_as_bytes (tensor);
  ck_assert_ptr_eq (g_bytes_get_data (bytes, NULL), memory + 8);
  ck_assert_ptr_eq (ferry_tensor_ref (tensor), tensor);
  ferry_tensor_unref (tensor);
  ferry_tensor_unref (tensor);
  ck_assert_int_eq (n_released, 0);
  g_clear_pointer (&bytes, g_bytes_unref);
  ck_assert_int_eq (n_released, 1);

  tensor = ferry_tensor_new_take ("|u1", shape_23, 2, NULL, memory, 6, 0, FALSE, on_release, &n_released, &error);
  ck_assert (!ferry_tensor_is_writable (tensor));
  ck_assert_ptr_null (ferry_tensor_get_writable_data (tensor));
  ck_assert (!ferry_tensor_fill (tensor, 0, memory, 1));
  ferry_tensor_unref (tensor);
  ck_assert_int_eq (n_released, 2);
}
END_TEST

START_TEST (test_boxed)
{
  g_auto (GValue) value = G_VALUE_INIT;
  FerryTensor *tensor = make_counting (3);

  g_value_init (&value, FERRY_TYPE_TENSOR);
  g_value_set_boxed (&value, tensor);
  ck_assert_ptr_eq (g_value_get_boxed (&value), tensor);
  ferry_tensor_unref (tensor);
}
END_TEST

/* All views of 0 ... 23, compared with counting the indices by hand. */
START_TEST (test_copy_contiguous)
{
  static const struct
  {
    gint64 shape[3];
    gint64 strides[3];
    gsize offset;
  } views[] = {
    { { 2, 3, 4 }, { 48, 16, 4 }, 0 },     { { 4, 3, 2 }, { 4, 16, 48 }, 0 }, { { 3, 2, 4 }, { 16, 48, 4 }, 0 },
    { { 2, 3, 4 }, { -48, -16, -4 }, 92 }, { { 2, 3, 2 }, { 48, 16, 8 }, 4 }, { { 1, 6, 4 }, { 999, 16, 4 }, 0 },
    { { 5, 1, 3 }, { 0, 7, 4 }, 8 },       { { 2, 2, 2 }, { 4, 4, 4 }, 0 },   { { 24, 1, 1 }, { 4, 0, 0 }, 0 },
    { { 2, 3, 4 }, { 48, 16, -4 }, 12 },
  };
  g_autoptr (FerryTensor) base = make_counting (24);
  g_autoptr (GBytes) bytes = ferry_tensor_as_bytes (base);

  for (guint v = 0; v < G_N_ELEMENTS (views); v++)
    {
      g_autoptr (GError) error = NULL;
      g_autoptr (FerryTensor) view
          = ferry_tensor_new_for_bytes (N "i4", views[v].shape, 3, views[v].strides, 3, bytes, views[v].offset, &error);
      g_autoptr (FerryTensor) copy = NULL;
      const gint32 *data;
      guint n = 0;

      ferry_assert_no_error (error);
      copy = ferry_tensor_copy_contiguous (view, &error);
      ferry_assert_no_error (error);
      ck_assert (ferry_tensor_is_c_contiguous (copy));
      ck_assert (ferry_tensor_equal (view, copy));
      ck_assert (ferry_tensor_equal (copy, view));
      data = ferry_tensor_get_data (copy);
      for (gint64 i = 0; i < views[v].shape[0]; i++)
        for (gint64 j = 0; j < views[v].shape[1]; j++)
          for (gint64 k = 0; k < views[v].shape[2]; k++)
            {
              gint64 indices[] = { i, j, k };
              gint64 expected = ((gint64) views[v].offset + i * views[v].strides[0] + j * views[v].strides[1]
                                 + k * views[v].strides[2])
                                / 4;

              ck_assert_int_eq (data[n++], expected);
              ck_assert_double_eq (ferry_tensor_get_element_double (view, indices, 3, &error), (double) expected);
            }
      ((gint32 *) ferry_tensor_get_writable_data (copy))[n - 1]++;
      ck_assert (!ferry_tensor_equal (view, copy));
    }
}
END_TEST

START_TEST (test_contiguous)
{
  static const struct
  {
    gint64 shape[2];
    gint64 strides[2];
    gboolean c;
    gboolean f;
  } cases[] = {
    { { 2, 3 }, { 12, 4 }, TRUE, FALSE }, { { 2, 3 }, { 4, 8 }, FALSE, TRUE },   { { 1, 3 }, { 99, 4 }, TRUE, TRUE },
    { { 3, 1 }, { 4, 99 }, TRUE, TRUE },  { { 2, 3 }, { 16, 4 }, FALSE, FALSE }, { { 2, 3 }, { 0, 4 }, FALSE, FALSE },
    { { 1, 1 }, { -1, 5 }, TRUE, TRUE },
  };
  g_autoptr (GBytes) bytes = g_bytes_new_take (g_malloc0 (64), 64);

  for (guint i = 0; i < G_N_ELEMENTS (cases); i++)
    {
      g_autoptr (FerryTensor) tensor
          = ferry_tensor_new_for_bytes (N "i4", cases[i].shape, 2, cases[i].strides, 2, bytes, 0, NULL);
      g_autoptr (GBytes) direct = ferry_tensor_as_bytes (tensor);

      ck_assert_int_eq (ferry_tensor_is_c_contiguous (tensor), cases[i].c);
      ck_assert_int_eq (ferry_tensor_is_f_contiguous (tensor), cases[i].f);
      ck_assert_int_eq (direct != NULL, cases[i].c || cases[i].f);
    }
}
END_TEST

START_TEST (test_aligned)
{
  gint64 shape[] = { 2 };
  gint64 odd[] = { 5 };
  g_autoptr (FerryTensor) base = make_counting (8);
  g_autoptr (GBytes) bytes = ferry_tensor_as_bytes (base);
  g_autoptr (FerryTensor) shifted = ferry_tensor_new_for_bytes (N "i4", shape, 1, NULL, 0, bytes, 2, NULL);
  g_autoptr (FerryTensor) strided = ferry_tensor_new_for_bytes (N "i4", shape, 1, odd, 1, bytes, 0, NULL);
  g_autoptr (FerryTensor) complex = ferry_tensor_new_for_bytes (N "c8", shape, 1, NULL, 0, bytes, 4, NULL);
  g_autoptr (FerryTensor) wide = ferry_tensor_new_for_bytes (N "f8", shape, 1, NULL, 0, bytes, 4, NULL);

  ck_assert (!ferry_tensor_is_aligned (shifted));
  ck_assert (!ferry_tensor_is_aligned (strided));
  ck_assert (ferry_tensor_is_aligned (complex));
  ck_assert (!ferry_tensor_is_aligned (wide));
}
END_TEST

START_TEST (test_equal)
{
  static const guint8 big[] = { 0, 1, 0, 2 };
  static const guint8 little[] = { 1, 0, 2, 0 };
  static const guint8 nans[] = { 0, 0, 0xc0, 0x7f };
  gint64 shape[] = { 2 };
  gint64 one[] = { 1 };
  g_autoptr (FerryTensor) a = ferry_tensor_new_copy (">i2", shape, 1, big, 4, NULL);
  g_autoptr (FerryTensor) b = ferry_tensor_new_copy ("<i2", shape, 1, little, 4, NULL);
  g_autoptr (FerryTensor) c = ferry_tensor_new_copy ("<u2", shape, 1, little, 4, NULL);
  g_autoptr (FerryTensor) d = ferry_tensor_new_copy ("<i4", one, 1, little, 4, NULL);
  g_autoptr (FerryTensor) e = ferry_tensor_new_copy ("<f4", one, 1, nans, 4, NULL);
  g_autoptr (FerryTensor) f = ferry_tensor_new_copy ("<f4", one, 1, nans, 4, NULL);
  g_autoptr (FerryTensor) g = ferry_tensor_new_copy ("|V4", one, 1, nans, 4, NULL);
  g_autoptr (FerryTensor) h = ferry_tensor_new_copy ("[('a', '<f4')]", one, 1, nans, 4, NULL);
  g_autoptr (FerryTensor) i = ferry_tensor_new_copy ("<M8[s]", one, 1, (const guint8 *) "12345678", 8, NULL);
  g_autoptr (FerryTensor) j = ferry_tensor_new_copy ("<M8[ms]", one, 1, (const guint8 *) "12345678", 8, NULL);
  g_autoptr (FerryTensor) k = ferry_tensor_new_copy ("<c8", one, 1, (const guint8 *) "12345678", 8, NULL);
  g_autoptr (FerryTensor) l = ferry_tensor_new_copy (">c8", one, 1, (const guint8 *) "43218765", 8, NULL);

  ck_assert (ferry_tensor_equal (a, b));
  ck_assert (!ferry_tensor_equal (b, c));
  ck_assert (!ferry_tensor_equal (b, d));
  ck_assert (ferry_tensor_equal (e, f));
  ck_assert (!ferry_tensor_equal (g, e));
  ck_assert (!ferry_tensor_equal (g, h));
  ck_assert (ferry_tensor_equal (h, h));
  ck_assert (!ferry_tensor_equal (i, j));
  ck_assert (ferry_tensor_equal (k, l));
}
END_TEST

START_TEST (test_elements)
{
  static const struct
  {
    const char *format;
    guint8 bytes[8];
    double value;
  } cases[] = {
    { "|b1", { 1 }, 1 },
    { "|b1", { 0 }, 0 },
    { "|i1", { 0xff }, -1 },
    { "|u1", { 0xff }, 255 },
    { "<i2", { 0xfe, 0xff }, -2 },
    { ">i2", { 0xff, 0xfe }, -2 },
    { ">u4", { 0, 0, 1, 0 }, 256 },
    { "<i8", { 0, 0, 0, 0, 0, 0, 0, 0x80 }, -9223372036854775808.0 },
    { "<u8", { 0, 0, 0, 0, 0, 0, 0, 0x80 }, 9223372036854775808.0 },
    { "<f4", { 0, 0, 0x20, 0xc0 }, -2.5 },
    { ">f8", { 0x3f, 0xf0, 0, 0, 0, 0, 0, 0 }, 1.0 },
    { "<f2", { 0x00, 0x3c }, 1.0 },
    { "<f2", { 0x00, 0xc0 }, -2.0 },
    { "<f2", { 0xff, 0x7b }, 65504.0 },
    { "<f2", { 0x01, 0x00 }, 5.9604644775390625e-08 },
    { "<f2", { 0x00, 0x04 }, 6.103515625e-05 },
    { "<f2", { 0x00, 0x7c }, (double) INFINITY },
    { "<f2", { 0x00, 0xfc }, -(double) INFINITY },
    { "<E2", { 0x80, 0x3f }, 1.0 },
    { ">E2", { 0xc0, 0x20 }, -2.5 },
    { "<M8[s]", { 10 }, 10 },
  };
  static const struct
  {
    const char *format;
    guint8 bytes[8];
  } nans[] = {
    { "<f2", { 0x01, 0x7c } },
    { "<f4", { 0, 0, 0xc0, 0x7f } },
    { "<m8[s]", { 0, 0, 0, 0, 0, 0, 0, 0x80 } },
  };
  static const char *const others[] = { "<c8", "|S8", "<U2", "|V8", "[('a', '<f8')]" };
  g_autoptr (GError) error = NULL;

  for (guint i = 0; i < G_N_ELEMENTS (cases); i++)
    {
      g_autoptr (GBytes) bytes = g_bytes_new_static (cases[i].bytes, 8);
      g_autoptr (FerryTensor) tensor = ferry_tensor_new_for_bytes (cases[i].format, NULL, 0, NULL, 0, bytes, 0, &error);

      ferry_assert_no_error (error);
      ck_assert_double_eq (ferry_tensor_get_element_double (tensor, NULL, 0, &error), cases[i].value);
      ferry_assert_no_error (error);
    }
  for (guint i = 0; i < G_N_ELEMENTS (nans); i++)
    {
      g_autoptr (GBytes) bytes = g_bytes_new_static (nans[i].bytes, 8);
      g_autoptr (FerryTensor) tensor = ferry_tensor_new_for_bytes (nans[i].format, NULL, 0, NULL, 0, bytes, 0, &error);

      ck_assert_double_nan (ferry_tensor_get_element_double (tensor, NULL, 0, &error));
      ferry_assert_no_error (error);
    }
  for (guint i = 0; i < G_N_ELEMENTS (others); i++)
    {
      g_autoptr (FerryTensor) tensor = ferry_tensor_new (others[i], NULL, 0, NULL);

      ck_assert_double_nan (ferry_tensor_get_element_double (tensor, NULL, 0, &error));
      ferry_assert_error (error, FERRY_ERROR, FERRY_ERROR_UNSUPPORTED);
      g_clear_error (&error);
    }
}
END_TEST

START_TEST (test_indices)
{
  static const gint64 bad[][2] = { { 2, 0 }, { 0, 3 }, { -1, 0 }, { 0, G_MAXINT64 }, { G_MININT64, 0 } };
  g_autoptr (FerryTensor) tensor = ferry_tensor_new ("|u1", shape_23, 2, NULL);
  g_autoptr (GError) error = NULL;

  for (guint i = 0; i < G_N_ELEMENTS (bad); i++)
    {
      ck_assert_double_nan (ferry_tensor_get_element_double (tensor, bad[i], 2, &error));
      ferry_assert_error (error, FERRY_ERROR, FERRY_ERROR_INVALID_ARGUMENT);
      ferry_assert_contains (error->message, "there is no index");
      g_clear_error (&error);
    }
  ck_assert_double_nan (ferry_tensor_get_element_double (tensor, bad[0], 1, &error));
  ferry_assert_error (error, FERRY_ERROR, FERRY_ERROR_INVALID_ARGUMENT);
}
END_TEST

START_TEST (test_fill)
{
  g_autoptr (FerryTensor) tensor = ferry_tensor_new ("|u1", shape_23, 2, NULL);
  static const guint8 data[6] = { 1, 2, 3, 4, 5, 6 };

  ck_assert (ferry_tensor_fill (tensor, 1, data, 5));
  ck_assert_int_eq (((const guint8 *) ferry_tensor_get_data (tensor))[5], 5);
  ck_assert (ferry_tensor_fill (tensor, 6, data, 0));
  ck_assert (!ferry_tensor_fill (tensor, 1, data, 6));
  ck_assert (!ferry_tensor_fill (tensor, 7, data, 0));
  ck_assert (!ferry_tensor_fill (tensor, G_MAXSIZE, data, 2));
}
END_TEST

START_TEST (test_dlpack_round_trip)
{
  static const char *const formats[]
      = { "|b1", N "i8", N "u2", N "f2", N "f4", N "f8", N "E2", N "c8", N "c16", "|i1" };

  for (guint i = 0; i < G_N_ELEMENTS (formats); i++)
    for (int versioned = 0; versioned < 2; versioned++)
      {
        g_autoptr (GError) error = NULL;
        FerryTensor *tensor = ferry_tensor_new (formats[i], shape_23, 2, &error);
        FerryTensor *again;
        gpointer managed;

        ferry_assert_no_error (error);
        managed = ferry_tensor_to_dlpack (tensor, versioned, &error);
        ferry_assert_no_error (error);
        again = ferry_tensor_new_from_dlpack (managed, versioned, &error);
        ferry_assert_no_error (error);
        ck_assert_ptr_eq (ferry_tensor_get_data (again), ferry_tensor_get_data (tensor));
        ck_assert (ferry_tensor_equal (tensor, again));
        ck_assert (ferry_tensor_is_writable (again));
        ck_assert_str_eq (ferry_tensor_get_format (tensor), ferry_tensor_get_format (again));
        ferry_tensor_unref (tensor);
        ck_assert_int_eq (((const guint8 *) ferry_tensor_get_data (again))[0], 0);
        ferry_tensor_unref (again);
      }
}
END_TEST

START_TEST (test_addresses)
{
  const gint64 shape[] = { 2, 3 };
  g_autoptr (GError) error = NULL;
  g_autoptr (FerryTensor) tensor = ferry_tensor_new ("<i4", shape, 2, &error);
  g_autoptr (FerryTensor) text = ferry_tensor_new ("|S4", shape, 2, &error);
  g_autoptr (FerryTensor) again = NULL;
  gsize managed;

  ck_assert_uint_eq (ferry_tensor_get_address (tensor), GPOINTER_TO_SIZE (ferry_tensor_get_data (tensor)));
  managed = ferry_tensor_to_dlpack_address (tensor, FALSE, &error);
  ferry_assert_no_error (error);
  again = ferry_tensor_new_from_dlpack_address (managed, FALSE, &error);
  ferry_assert_no_error (error);
  ck_assert_uint_eq (ferry_tensor_get_address (again), ferry_tensor_get_address (tensor));
  ck_assert_uint_eq (ferry_tensor_to_dlpack_address (text, FALSE, &error), 0);
  ferry_assert_error (error, FERRY_ERROR, FERRY_ERROR_UNSUPPORTED);
}
END_TEST

START_TEST (test_dlpack_layout)
{
  gint64 shape[] = { 2, 3 };
  gint64 strides[] = { -12, 4 };
  g_autoptr (FerryTensor) base = make_counting (6);
  g_autoptr (GBytes) bytes = ferry_tensor_as_bytes (base);
  g_autoptr (GError) error = NULL;
  g_autoptr (FerryTensor) view = ferry_tensor_new_for_bytes (N "i4", shape, 2, strides, 2, bytes, 12, &error);
  FerryDLManagedTensorVersioned *managed = ferry_tensor_to_dlpack (view, TRUE, &error);

  ferry_assert_no_error (error);
  ck_assert_uint_eq (managed->version.major, 1);
  ck_assert_uint_eq (managed->flags, FERRY_DL_FLAG_READ_ONLY);
  ck_assert_ptr_eq (managed->dl_tensor.data, ferry_tensor_get_data (view));
  ck_assert_int_eq (managed->dl_tensor.device.device_type, 1);
  ck_assert_int_eq (managed->dl_tensor.ndim, 2);
  ck_assert_int_eq (managed->dl_tensor.dtype.code, 0);
  ck_assert_int_eq (managed->dl_tensor.dtype.bits, 32);
  ck_assert_int_eq (managed->dl_tensor.dtype.lanes, 1);
  ck_assert_int_eq (managed->dl_tensor.strides[0], -3);
  ck_assert_int_eq (managed->dl_tensor.strides[1], 1);
  managed->deleter (managed);

  /* The ABI itself: what other libraries were compiled with. */
#if GLIB_SIZEOF_VOID_P == 8
  ck_assert_uint_eq (sizeof (FerryDLTensor), 48);
  ck_assert_uint_eq (G_STRUCT_OFFSET (FerryDLTensor, shape), 24);
  ck_assert_uint_eq (sizeof (FerryDLManagedTensor), 64);
  ck_assert_uint_eq (sizeof (FerryDLManagedTensorVersioned), 80);
  ck_assert_uint_eq (G_STRUCT_OFFSET (FerryDLManagedTensorVersioned, dl_tensor), 32);
#endif
}
END_TEST

START_TEST (test_dlpack_refused)
{
  gint64 shape[] = { 3 };
  gint64 strides[] = { 6 };
  g_autoptr (FerryTensor) base = make_counting (6);
  g_autoptr (GBytes) bytes = ferry_tensor_as_bytes (base);
  g_autoptr (FerryTensor) read_only = ferry_tensor_new_for_bytes (N "i4", shape, 1, NULL, 0, bytes, 0, NULL);
  g_autoptr (FerryTensor) skewed = ferry_tensor_new_for_bytes (N "i4", shape, 1, strides, 1, bytes, 0, NULL);
  g_autoptr (FerryTensor) swapped = ferry_tensor_new (OTHER "i4", shape, 1, NULL);
  g_autoptr (FerryTensor) text = ferry_tensor_new ("<U3", shape, 1, NULL);
  FerryTensor *refused[] = { read_only, skewed, swapped, text };

  for (guint i = 0; i < G_N_ELEMENTS (refused); i++)
    {
      g_autoptr (GError) error = NULL;

      ck_assert_ptr_null (ferry_tensor_to_dlpack (refused[i], i != 0, &error));
      ferry_assert_error (error, FERRY_ERROR, FERRY_ERROR_UNSUPPORTED);
    }
}
END_TEST

static int n_deleted;

static void
delete_managed (FerryDLManagedTensor *self)
{
  n_deleted++;
}

START_TEST (test_dlpack_import)
{
  gint16 data[] = { 1, 2, 3, 4, 5, 6, 7 };
  gint64 shape[] = { 2, 3 };
  gint64 strides[] = { 1, 2 };
  gint64 index[] = { 1, 2 };
  FerryDLManagedTensor managed = {
    .dl_tensor = {
      .data = data,
      .device = { 1, 0 },
      .ndim = 2,
      .dtype = { 0, 16, 1 },
      .shape = shape,
      .byte_offset = 2,
    },
    .deleter = delete_managed,
  };
  g_autoptr (GError) error = NULL;
  FerryTensor *tensor = ferry_tensor_new_from_dlpack (&managed, FALSE, &error);

  ferry_assert_no_error (error);
  ck_assert_ptr_eq (ferry_tensor_get_data (tensor), data + 1);
  ck_assert_double_eq (ferry_tensor_get_element_double (tensor, index, 2, &error), 7);
  ck_assert_int_eq (n_deleted, 0);
  ferry_tensor_unref (tensor);
  ck_assert_int_eq (n_deleted, 1);

  managed.dl_tensor.strides = strides;
  tensor = ferry_tensor_new_from_dlpack (&managed, FALSE, &error);
  ferry_assert_no_error (error);
  ck_assert (ferry_tensor_is_f_contiguous (tensor));
  ferry_tensor_unref (tensor);

  managed.deleter = NULL;
  tensor = ferry_tensor_new_from_dlpack (&managed, FALSE, &error);
  ferry_assert_no_error (error);
  ferry_tensor_unref (tensor);
}
END_TEST

START_TEST (test_dlpack_import_refused)
{
  gint16 data[] = { 1, 2, 3, 4, 5, 6 };
  gint64 good[] = { 2, 3 };
  gint64 negative[] = { 2, -3 };
  gint64 huge[] = { G_MAXINT64, 2 };
  const FerryDLTensor tensor = {
    .data = data,
    .device = { 1, 0 },
    .ndim = 2,
    .dtype = { 0, 16, 1 },
    .shape = good,
  };
  FerryDLManagedTensor cases[10];
  FerryDLManagedTensorVersioned versioned = { .version = { 2, 0 }, .dl_tensor = tensor };
  g_autoptr (GError) error = NULL;

  for (guint i = 0; i < G_N_ELEMENTS (cases); i++)
    cases[i] = (FerryDLManagedTensor){ .dl_tensor = tensor, .deleter = delete_managed };
  cases[0].dl_tensor.device.device_type = 2;
  cases[1].dl_tensor.dtype.lanes = 4;
  cases[2].dl_tensor.dtype.bits = 12;
  cases[3].dl_tensor.dtype.code = 99;
  cases[4].dl_tensor.ndim = -1;
  cases[5].dl_tensor.ndim = 65;
  cases[6].dl_tensor.shape = NULL;
  cases[7].dl_tensor.shape = negative;
  cases[8].dl_tensor.strides = huge;
  cases[9].dl_tensor.data = NULL;

  for (guint i = 0; i < G_N_ELEMENTS (cases); i++)
    {
      ck_assert_msg (ferry_tensor_new_from_dlpack (&cases[i], FALSE, &error) == NULL, "case %u", i);
      ferry_assert_error (error, FERRY_ERROR, i < 4 ? FERRY_ERROR_UNSUPPORTED : FERRY_ERROR_INVALID_ARGUMENT);
      g_clear_error (&error);
    }
  ck_assert_ptr_null (ferry_tensor_new_from_dlpack (&versioned, TRUE, &error));
  ferry_assert_error (error, FERRY_ERROR, FERRY_ERROR_UNSUPPORTED);
  ferry_assert_contains (error->message, "DLPack 2.0");

  /* They stay the caller's. */
  ck_assert_int_eq (n_deleted, 0);
}
END_TEST

static void
add (Suite *suite)
{
  const TTest *const making[] = {
    test_new,
    test_data_types,
    test_bad_formats,
    test_nested_format,
    test_get_format,
    test_no_dimensions,
    test_empty,
    test_bounds,
    test_random_layouts,
    test_too_many,
    test_new_copy,
    test_ownership,
    test_boxed,
    NULL,
  };
  const TTest *const elements[] = {
    test_copy_contiguous, test_contiguous, test_aligned, test_equal, test_elements, test_indices, test_fill, NULL,
  };
  const TTest *const dlpack[] = {
    test_dlpack_round_trip,
    test_dlpack_layout,
    test_dlpack_refused,
    test_dlpack_import,
    test_dlpack_import_refused,
    test_addresses,
    NULL,
  };
  const TTest *const memory[] = { test_no_memory, NULL };

  ferry_test_add_case (suite, "making", 20, making);
  ferry_test_add_case (suite, "elements", 10, elements);
  ferry_test_add_case (suite, "dlpack", 10, dlpack);
  ferry_test_add_case (suite, "memory", 10, memory);
}

int
main (void)
{
  return ferry_test_run ("tensor", add);
}
