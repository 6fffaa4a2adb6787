/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fuzz.h"

#include <ferry.h>

#include "ferry-gvariant-codec-private.h"

/* Any message gives a value or an error; a value can be printed, and encoded to the same again. */
int
LLVMFuzzerTestOneInput (const guint8 *data, gsize size)
{
  static FerryCodec *codec;
  g_autoptr (FerryBuffer) buffer = NULL;
  g_autoptr (FerryBuffer) buffer_again = NULL;
  g_autoptr (GBytes) encoded = NULL;
  g_autofree char *text = NULL;
  g_auto (GValue) value = G_VALUE_INIT;
  g_auto (GValue) again = G_VALUE_INIT;
  g_autoptr (GError) error = NULL;

  if (codec == NULL)
    codec = g_object_new (FERRY_TYPE_GVARIANT_CODEC, NULL);

  buffer = ferry_buffer_new_take ((gpointer) data, size, FALSE, NULL, NULL);
  if (!ferry_codec_decode (codec, buffer, 1, &value, &error))
    {
      g_assert_error (error, FERRY_ERROR, FERRY_ERROR_CODEC);
      g_assert_false (G_IS_VALUE (&value));
      return 0;
    }

  text = g_variant_print (g_value_get_variant (&value), TRUE);
  encoded = ferry_codec_encode_bytes (codec, &value, &error);
  if (encoded == NULL)
    {
      /* Deeper than what is sent, though not than what GLib reads. */
      g_assert_error (error, FERRY_ERROR, FERRY_ERROR_CODEC);
      return 0;
    }
  buffer_again = ferry_buffer_new_bytes (encoded);
  g_assert_true (ferry_codec_decode (codec, buffer_again, 1, &again, &error));
  g_assert_no_error (error);
  g_assert_true (g_variant_equal (g_value_get_variant (&value), g_value_get_variant (&again)));
  return 0;
}
