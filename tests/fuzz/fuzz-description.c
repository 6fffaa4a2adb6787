/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fuzz.h"

#include <ferry.h>

#include "ferry-description-private.h"
#include "ferry-gvariant-codec-private.h"

/* Any text gives a description or an error; a description is written and read as the same again. */
int
LLVMFuzzerTestOneInput (const guint8 *data, gsize size)
{
  static GObject *object;
  g_autofree char *text = g_strndup ((const char *) data, size);
  g_autofree char *written = NULL;
  g_autofree char *written_again = NULL;
  g_autoptr (FerryDescription) description = NULL;
  g_autoptr (FerryDescription) again = NULL;
  g_autoptr (GError) error = NULL;

  if (object == NULL)
    object = g_object_new (FERRY_TYPE_GVARIANT_CODEC, NULL);

  description = ferry_description_parse (text, &error);
  if (description == NULL)
    {
      g_assert_error (error, FERRY_ERROR, FERRY_ERROR_PARSE);
      g_assert_true (g_utf8_validate (error->message, -1, NULL));
      return 0;
    }

  written = ferry_description_to_string (description);
  again = ferry_description_parse (written, &error);
  g_assert_no_error (error);
  written_again = ferry_description_to_string (again);
  g_assert_cmpstr (written, ==, written_again);

  for (guint i = 0; i < description->channel_properties->len; i++)
    {
      const FerryDescriptionProperty *property = description->channel_properties->pdata[i];
      g_autoptr (GError) set_error = NULL;

      if (!ferry_description_set_property (object, property->key, property->value, &set_error))
        g_assert_error (set_error, FERRY_ERROR, FERRY_ERROR_INVALID_ARGUMENT);
    }
  return 0;
}
