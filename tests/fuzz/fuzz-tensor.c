/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fuzz.h"

#include <ferry.h>

#include <string.h>

#define MEMORY_SIZE (96)
#define STORE_MAX (65536)
#define DIMENSIONS_MAX (8)

/*
 * Any format, shape and strides give an error, or a tensor that stays in its memory. The
 * input is: number of dimensions, offset (a byte each), then shape and strides (8 bytes for
 * each dimension and each of both), then the format.
 */
int
LLVMFuzzerTestOneInput (const guint8 *data, gsize size)
{
  gint64 dimensions[2 * DIMENSIONS_MAX];
  g_autofree guint8 *memory = NULL;
  g_autofree char *format = NULL;
  g_autoptr (FerryTensor) tensor = NULL;
  g_autoptr (GError) error = NULL;
  guint n;
  gsize header;

  if (size < 2)
    return 0;
  n = data[0] % (DIMENSIONS_MAX + 1);
  header = 2 + 2 * n * sizeof (gint64);
  if (size < header)
    return 0;
  memcpy (dimensions, data + 2, 2 * n * sizeof (gint64));
  format = g_strndup ((const char *) data + header, size - header);
  memory = g_malloc0 (MEMORY_SIZE);

  tensor = ferry_tensor_new_take (format, dimensions, n, dimensions + n, memory, MEMORY_SIZE, data[1], FALSE, NULL,
                                  NULL, &error);
  if (tensor == NULL)
    {
      g_assert_error (error, FERRY_ERROR, FERRY_ERROR_INVALID_ARGUMENT);
      return 0;
    }
  if (ferry_tensor_get_size_bytes (tensor) <= STORE_MAX)
    {
      g_autoptr (FerryTensor) copy = ferry_tensor_copy_contiguous (tensor, &error);

      g_assert_no_error (error);
      g_assert_true (ferry_tensor_equal (tensor, copy));
      g_assert_cmpstr (ferry_tensor_get_format (tensor), ==, ferry_tensor_get_format (copy));
      g_assert_true (ferry_tensor_is_c_contiguous (copy));
    }
  return 0;
}
