/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Part of the library and of the scanner, so only public functions are called here. */

#include "ferry-plugin-json-private.h"

#include "ferry-codec-factory.h"
#include "ferry-enum-types.h"
#include "ferry-transport-factory.h"

static void
set_string (JsonObject *object, const char *member, const char *value)
{
  g_autofree char *valid = NULL;

  if (value == NULL)
    return;

  /* A reason may quote a file's name, which is bytes. */
  valid = g_utf8_make_valid (value, -1);
  json_object_set_string_member (object, member, valid);
}

static JsonObject *
feature_to_json (FerryFeature *feature)
{
  JsonObject *object = json_object_new ();

  set_string (object, "name", ferry_feature_get_name (feature));
  set_string (object, "description", ferry_feature_get_description (feature));
  json_object_set_int_member (object, "rank", ferry_feature_get_rank (feature));
  if (FERRY_IS_TRANSPORT_FACTORY (feature))
    {
      FerryTransportFactory *factory = FERRY_TRANSPORT_FACTORY (feature);

      set_string (object, "kind", "transport");
      json_object_set_int_member (object, "capabilities", ferry_transport_factory_get_capabilities (factory));
    }
  else
    {
      FerryCodecFactory *factory = FERRY_CODEC_FACTORY (feature);

      set_string (object, "kind", "codec");
      set_string (object, "wire-name", ferry_codec_factory_get_wire_name (factory));
      json_object_set_int_member (object, "wire-version", ferry_codec_factory_get_wire_version (factory));
    }

  return object;
}

/* What the cache keeps of a plugin and the scanner tells of it. The file's name is not
 * part of it: it is bytes, and who asked knows it. */
JsonObject *
ferry_plugin_to_json (FerryPlugin *plugin)
{
  JsonObject *object = json_object_new ();
  g_autoptr (GPtrArray) features = ferry_plugin_list_features (plugin);
  JsonArray *array = json_array_new ();
  g_autoptr (GEnumClass) states = g_type_class_ref (FERRY_TYPE_PLUGIN_STATE);

  set_string (object, "state", g_enum_get_value (states, ferry_plugin_get_state (plugin))->value_nick);
  set_string (object, "reason", ferry_plugin_get_reason (plugin));
  set_string (object, "version", ferry_plugin_get_version (plugin));
  set_string (object, "license", ferry_plugin_get_license (plugin));
  set_string (object, "description", ferry_plugin_get_description (plugin));
  set_string (object, "origin", ferry_plugin_get_origin (plugin));

  for (guint i = 0; i < features->len; i++)
    json_array_add_object_element (array, feature_to_json (g_ptr_array_index (features, i)));
  json_object_set_array_member (object, "features", array);

  return object;
}
