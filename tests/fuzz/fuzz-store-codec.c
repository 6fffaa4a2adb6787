/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fuzz.h"

#include <ferry.h>
#include <string.h>
#include <unistd.h>

/* Any message gives the one object that this process has, or an error. In an input the identity of the store and the object are
 * those of this run where it has zeros. */
int
LLVMFuzzerTestOneInput (const guint8 *data, gsize size)
{
  static const guint8 zeros[16];
  static FerryStore *store;
  static FerryStoreReference *reference;
  static FerryCodec *codec;
  g_autoptr (FerryBuffer) buffer = NULL;
  g_autofree guint8 *message = g_malloc (size + 1);
  g_auto (GValue) value = G_VALUE_INIT;
  g_autoptr (GError) error = NULL;

  if (store == NULL)
    {
      g_autofree char *description = g_strdup_printf ("memfd name=fuzz-%d max-bytes=16777216", (int) getpid ());

      store = ferry_store_open (description, NULL, &error);
      g_assert_no_error (error);
      g_assert_true (ferry_store_set (store, "x", g_variant_new_parsed ("[<1>]"), &error));
      reference = ferry_store_get_reference (store, "x", &error);
      g_assert_no_error (error);
      codec = ferry_registry_create_codec (ferry_registry_get_default (), "store", &error);
      g_assert_no_error (error);
      g_object_set (codec, "open-stores", FALSE, NULL);
    }

  memcpy (message, data, size);
  if (size >= 24 && memcmp (message, zeros, 16) == 0)
    ferry_store_get_identity (store, message);
  if (size >= 24 && memcmp (message + 16, zeros, 8) == 0)
    {
      guint64 id = GUINT64_TO_LE (ferry_store_reference_get_object_id (reference));

      memcpy (message + 16, &id, sizeof id);
    }
  buffer = ferry_buffer_new_take (message, size, FALSE, NULL, NULL);
  if (!ferry_codec_decode (codec, buffer, 1, &value, &error))
    {
      g_assert_error (error, FERRY_ERROR, FERRY_ERROR_CODEC);
      g_assert_false (G_IS_VALUE (&value));
      return 0;
    }
  g_assert_true (ferry_store_reference_equal (g_value_get_boxed (&value), reference));
  return 0;
}
