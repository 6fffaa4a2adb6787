/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fuzz.h"

#include <ferry.h>

#include "ferry-numpy-codec.h"

/* Any message gives a tensor within it or an error; a tensor is encoded to the same again. */
int
LLVMFuzzerTestOneInput (const guint8 *data, gsize size)
{
  static FerryCodec *codec;
  g_autoptr (FerryBuffer) buffer = NULL;
  g_autoptr (FerryBuffer) buffer_again = NULL;
  g_autoptr (GBytes) encoded = NULL;
  g_auto (GValue) value = G_VALUE_INIT;
  g_auto (GValue) again = G_VALUE_INIT;
  g_autoptr (GError) error = NULL;
  FerryTensor *tensor;

  if (codec == NULL)
    codec = g_object_new (FERRY_TYPE_NUMPY_CODEC, NULL);

  buffer = ferry_buffer_new_take ((gpointer) data, size, FALSE, NULL, NULL);
  if (!ferry_codec_decode (codec, buffer, 1, &value, &error))
    {
      g_assert_error (error, FERRY_ERROR, FERRY_ERROR_CODEC);
      g_assert_false (G_IS_VALUE (&value));
      return 0;
    }

  tensor = g_value_get_boxed (&value);
  g_assert_cmpuint (ferry_tensor_get_size_bytes (tensor), <=, size);
  encoded = ferry_codec_encode_bytes (codec, &value, &error);
  g_assert_no_error (error);
  buffer_again = ferry_buffer_new_bytes (encoded);
  g_assert_true (ferry_codec_decode (codec, buffer_again, 1, &again, &error));
  g_assert_no_error (error);
  g_assert_true (ferry_tensor_equal (tensor, g_value_get_boxed (&again)));
  return 0;
}
