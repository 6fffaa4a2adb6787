/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fuzz.h"

#include <ferry.h>

#include "ferry-python-variant.h"

/* What can be printed within the time of a test. */
#define PRINT_MAX (1 << 20)

/* Any message gives a value or an error; a value can be looked at, and be encoded again. */
int
LLVMFuzzerTestOneInput (const guint8 *data, gsize size)
{
  g_autoptr (FerryBuffer) buffer = ferry_buffer_new_take ((gpointer) data, size, FALSE, NULL, NULL);
  g_auto (GValue) value = G_VALUE_INIT;
  g_autoptr (GError) error = NULL;
  FerryPythonOutput output = { 0 };

  if (!ferry_python_variant_decode (buffer, &value, &error))
    {
      g_assert_error (error, FERRY_ERROR, FERRY_ERROR_CODEC);
      g_assert_false (G_IS_VALUE (&value));
      return 0;
    }

  if (G_VALUE_HOLDS_VARIANT (&value) && g_variant_get_size (g_value_get_variant (&value)) < PRINT_MAX)
    {
      g_autofree char *text = g_variant_print (g_value_get_variant (&value), TRUE);

      g_assert_true (g_variant_is_normal_form (g_value_get_variant (&value)));
      g_assert_nonnull (text);
    }
  if (ferry_python_variant_encode (&value, &output, &error))
    {
      gsize needed = 0;
      g_autofree guint8 *message = NULL;
      g_auto (GValue) again = G_VALUE_INIT;
      g_autoptr (FerryBuffer) buffer_again = NULL;

      g_assert_true (ferry_python_output_get_size (&output, &needed, &error));
      message = g_malloc (needed);
      g_assert_true (ferry_python_output_write (&output, message, needed, &error));
      buffer_again = ferry_buffer_new_take (message, needed, FALSE, NULL, NULL);

      /* What was at the limits of levels may be beyond them now: a `(sv)` is one more. */
      if (!ferry_python_variant_decode (buffer_again, &again, &error))
        g_assert_error (error, FERRY_ERROR, FERRY_ERROR_CODEC);
    }
  ferry_python_output_clear (&output);
  return 0;
}
