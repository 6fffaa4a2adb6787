/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* ferry-inspect: shows plugins, their features, and what these can be told. */

#include <json-glib/json-glib.h>
#include <stdlib.h>
#include <string.h>

#include "ferry-nearest-private.h"
#include "ferry-tool-util.h"

/* All there is to tell is put into JSON objects; the text is made of those, so that both
 * say the same. */

#define LABEL_WIDTH 14 /* characters */

static gboolean opt_blacklist;
static gboolean opt_json;
static gboolean opt_names;
static gboolean opt_rescan;
static gboolean opt_version;
static char **opt_arguments;

static const GOptionEntry entries[]
    = { { "blacklist", 'b', 0, G_OPTION_ARG_NONE, &opt_blacklist, "List the plugins that can't be used, and why",
          NULL },
        { "rescan", 'r', 0, G_OPTION_ARG_NONE, &opt_rescan, "Look at every plugin anew first, also at blacklisted ones",
          NULL },
        { "json", 'j', 0, G_OPTION_ARG_NONE, &opt_json, "Print JSON", NULL },
        { "version", 0, 0, G_OPTION_ARG_NONE, &opt_version, "Print the version", NULL },
        { "names", 0, G_OPTION_FLAG_HIDDEN, G_OPTION_ARG_NONE, &opt_names, "Print all names, for completion", NULL },
        { G_OPTION_REMAINING, 0, 0, G_OPTION_ARG_STRING_ARRAY, &opt_arguments, NULL, "[NAME...]" },
        { NULL } };

/* Gathering */

static void
set_text (JsonObject *object, const char *member, const char *text)
{
  g_autofree char *printable = text != NULL ? tool_make_printable (text) : NULL;

  if (printable != NULL)
    json_object_set_string_member (object, member, printable);
  else
    json_object_set_null_member (object, member);
}

static const char *
get_nick (GType type, int value)
{
  g_autoptr (GEnumClass) klass = g_type_class_ref (type);
  const GEnumValue *enum_value = g_enum_get_value (klass, value);

  /* Registered types are never unloaded, nor are their strings. */
  return enum_value != NULL ? enum_value->value_nick : NULL;
}

static JsonArray *
make_flags_array (GType type, guint value)
{
  g_autoptr (GFlagsClass) klass = g_type_class_ref (type);
  JsonArray *array = json_array_new ();

  for (guint i = 0; i < klass->n_values; i++)
    if (klass->values[i].value != 0 && (value & klass->values[i].value) == klass->values[i].value)
      json_array_add_string_element (array, klass->values[i].value_nick);

  return array;
}

/* A GValue as JSON: numbers and booleans as such, all else as text. */
static JsonNode *
value_to_json (const GValue *value)
{
  GType type = G_VALUE_TYPE (value);
  GValue wide = G_VALUE_INIT;
  JsonNode *node = json_node_alloc ();
  g_autofree char *text = NULL;

  if (type == G_TYPE_BOOLEAN)
    return json_node_init_boolean (node, g_value_get_boolean (value));

  if (type == G_TYPE_FLOAT || type == G_TYPE_DOUBLE)
    {
      g_value_init (&wide, G_TYPE_DOUBLE);
      g_value_transform (value, &wide);
      return json_node_init_double (node, g_value_get_double (&wide));
    }

  if (G_TYPE_IS_ENUM (type))
    return json_node_init_string (node, get_nick (type, g_value_get_enum (value)));

  if (G_TYPE_IS_FLAGS (type))
    {
      g_autoptr (JsonArray) array = make_flags_array (type, g_value_get_flags (value));

      return json_node_init_array (node, array);
    }

  if (type == G_TYPE_STRING)
    return g_value_get_string (value) != NULL ? json_node_init_string (node, g_value_get_string (value))
                                              : json_node_init_null (node);

  /* JSON numbers are gint64 here; what doesn't fit is told as text. */
  if (type == G_TYPE_UINT64 && g_value_get_uint64 (value) > G_MAXINT64)
    {
      text = g_strdup_printf ("%" G_GUINT64_FORMAT, g_value_get_uint64 (value));
      return json_node_init_string (node, text);
    }
  g_value_init (&wide, G_TYPE_INT64);
  if (type != G_TYPE_INVALID && g_value_type_transformable (type, G_TYPE_INT64) && g_value_transform (value, &wide))
    return json_node_init_int (node, g_value_get_int64 (&wide));

  if (g_value_fits_pointer (value) && g_value_peek_pointer (value) == NULL)
    return json_node_init_null (node);
  text = g_strdup_value_contents (value);
  return json_node_init_string (node, text);
}

static void
set_range (JsonObject *object, GType type, const GValue *minimum, const GValue *maximum)
{
  json_object_set_member (object, "minimum", value_to_json (minimum));
  json_object_set_member (object, "maximum", value_to_json (maximum));
}

/* The kinds of GParamSpec that have a minimum and a maximum. */
#define RANGE(KIND, Kind, kind)                                                                                        \
  if (G_IS_PARAM_SPEC_##KIND (pspec))                                                                                  \
    {                                                                                                                  \
      g_value_set_##kind (&minimum, ((GParamSpec##Kind *) pspec)->minimum);                                            \
      g_value_set_##kind (&maximum, ((GParamSpec##Kind *) pspec)->maximum);                                            \
      set_range (object, G_PARAM_SPEC_VALUE_TYPE (pspec), &minimum, &maximum);                                         \
    }

static void
add_range (JsonObject *object, GParamSpec *pspec)
{
  GValue minimum = G_VALUE_INIT;
  GValue maximum = G_VALUE_INIT;

  g_value_init (&minimum, G_PARAM_SPEC_VALUE_TYPE (pspec));
  g_value_init (&maximum, G_PARAM_SPEC_VALUE_TYPE (pspec));
  RANGE (CHAR, Char, schar)
  RANGE (UCHAR, UChar, uchar)
  RANGE (INT, Int, int)
  RANGE (UINT, UInt, uint)
  RANGE (LONG, Long, long)
  RANGE (ULONG, ULong, ulong)
  RANGE (INT64, Int64, int64)
  RANGE (UINT64, UInt64, uint64)
  RANGE (FLOAT, Float, float)
  RANGE (DOUBLE, Double, double)
  g_value_unset (&minimum);
  g_value_unset (&maximum);
}

static void
add_values (JsonObject *object, GType type)
{
  JsonArray *array = json_array_new ();

  if (G_TYPE_IS_ENUM (type))
    {
      g_autoptr (GEnumClass) klass = g_type_class_ref (type);

      for (guint i = 0; i < klass->n_values; i++)
        {
          JsonObject *value = json_object_new ();

          json_object_set_string_member (value, "name", klass->values[i].value_nick);
          json_object_set_int_member (value, "value", klass->values[i].value);
          json_array_add_object_element (array, value);
        }
    }
  else
    {
      g_autoptr (GFlagsClass) klass = g_type_class_ref (type);

      for (guint i = 0; i < klass->n_values; i++)
        {
          JsonObject *value = json_object_new ();

          json_object_set_string_member (value, "name", klass->values[i].value_nick);
          json_object_set_int_member (value, "value", klass->values[i].value);
          json_array_add_object_element (array, value);
        }
    }

  json_object_set_array_member (object, "values", array);
}

static JsonObject *
property_to_json (GParamSpec *pspec)
{
  static const struct
  {
    GParamFlags flag;
    const char *name;
  } names[] = {
    { G_PARAM_READABLE, "readable" },     { G_PARAM_WRITABLE, "writable" },
    { G_PARAM_CONSTRUCT, "construct" },   { G_PARAM_CONSTRUCT_ONLY, "construct-only" },
    { G_PARAM_DEPRECATED, "deprecated" },
  };
  JsonObject *object = json_object_new ();
  JsonArray *flags = json_array_new ();
  GParamSpec *target = g_param_spec_get_redirect_target (pspec);
  GType type = G_PARAM_SPEC_VALUE_TYPE (pspec);

  if (target == NULL)
    target = pspec;

  set_text (object, "name", pspec->name);
  set_text (object, "type", g_type_name (type));
  set_text (object, "owner", g_type_name (pspec->owner_type));
  if (g_param_spec_get_blurb (pspec) != NULL)
    set_text (object, "description", g_param_spec_get_blurb (pspec));
  for (guint i = 0; i < G_N_ELEMENTS (names); i++)
    if ((pspec->flags & names[i].flag) != 0)
      json_array_add_string_element (flags, names[i].name);
  json_object_set_array_member (object, "flags", flags);
  json_object_set_member (object, "default", value_to_json (g_param_spec_get_default_value (pspec)));
  add_range (object, target);
  if (G_TYPE_IS_ENUM (type) || G_TYPE_IS_FLAGS (type))
    add_values (object, type);

  return object;
}

static void
add_signals (JsonArray *array, GType type)
{
  guint n_ids;
  g_autofree guint *ids = g_signal_list_ids (type, &n_ids);

  for (guint i = 0; i < n_ids; i++)
    {
      JsonObject *object = json_object_new ();
      JsonArray *arguments = json_array_new ();
      GSignalQuery query;

      g_signal_query (ids[i], &query);
      set_text (object, "name", query.signal_name);
      set_text (object, "owner", g_type_name (type));
      set_text (object, "returns", g_type_name (query.return_type & ~G_SIGNAL_TYPE_STATIC_SCOPE));
      for (guint j = 0; j < query.n_params; j++)
        json_array_add_string_element (arguments, g_type_name (query.param_types[j] & ~G_SIGNAL_TYPE_STATIC_SCOPE));
      json_object_set_array_member (object, "arguments", arguments);
      json_array_add_object_element (array, object);
    }
}

/* What GObject itself knows of a type. */
static JsonObject *
type_to_json (GType type)
{
  GObjectClass *klass = g_type_class_ref (type);
  JsonObject *object = json_object_new ();
  JsonArray *hierarchy = json_array_new ();
  JsonArray *interfaces = json_array_new ();
  JsonArray *properties = json_array_new ();
  JsonArray *signals = json_array_new ();
  guint n_interfaces, n_properties;
  g_autofree GType *interface_types = g_type_interfaces (type, &n_interfaces);
  g_autofree GParamSpec **pspecs = g_object_class_list_properties (klass, &n_properties);

  for (GType t = type; t != G_TYPE_INVALID; t = g_type_parent (t))
    {
      json_array_add_string_element (hierarchy, g_type_name (t));
      /* The signal that GObject has, notify, says nothing about this type. */
      if (t != G_TYPE_OBJECT && g_type_is_a (t, G_TYPE_OBJECT))
        add_signals (signals, t);
    }
  for (guint i = 0; i < n_interfaces; i++)
    {
      json_array_add_string_element (interfaces, g_type_name (interface_types[i]));
      add_signals (signals, interface_types[i]);
    }
  for (guint i = 0; i < n_properties; i++)
    json_array_add_object_element (properties, property_to_json (pspecs[i]));

  json_object_set_array_member (object, "hierarchy", hierarchy);
  json_object_set_array_member (object, "interfaces", interfaces);
  json_object_set_array_member (object, "properties", properties);
  json_object_set_array_member (object, "signals", signals);
  g_type_class_unref (klass);

  return object;
}

static JsonObject *
feature_to_json (FerryFeature *feature)
{
  JsonObject *object = json_object_new ();

  set_text (object, "kind", FERRY_IS_CODEC_FACTORY (feature) ? "codec" : "transport");
  set_text (object, "name", ferry_feature_get_name (feature));
  set_text (object, "description", ferry_feature_get_description (feature));
  set_text (object, "plugin", ferry_feature_get_plugin_name (feature));
  set_text (object, "reason", ferry_feature_get_reason (feature));
  json_object_set_int_member (object, "rank", ferry_feature_get_rank (feature));
  if (FERRY_IS_TRANSPORT_FACTORY (feature))
    {
      json_object_set_array_member (
          object, "capabilities",
          make_flags_array (FERRY_TYPE_TRANSPORT_CAPABILITIES,
                            ferry_transport_factory_get_capabilities (FERRY_TRANSPORT_FACTORY (feature))));
    }
  else
    {
      set_text (object, "wire-name", ferry_codec_factory_get_wire_name (FERRY_CODEC_FACTORY (feature)));
      json_object_set_int_member (object, "wire-version",
                                  ferry_codec_factory_get_wire_version (FERRY_CODEC_FACTORY (feature)));
    }

  return object;
}

static JsonObject *
plugin_to_json (FerryPlugin *plugin)
{
  JsonObject *object = json_object_new ();
  g_autoptr (GPtrArray) features = ferry_plugin_list_features (plugin);
  JsonArray *array = json_array_new ();

  set_text (object, "name", ferry_plugin_get_name (plugin));
  set_text (object, "description", ferry_plugin_get_description (plugin));
  set_text (object, "filename", ferry_plugin_get_filename (plugin));
  set_text (object, "version", ferry_plugin_get_version (plugin));
  set_text (object, "license", ferry_plugin_get_license (plugin));
  set_text (object, "origin", ferry_plugin_get_origin (plugin));
  set_text (object, "state", get_nick (FERRY_TYPE_PLUGIN_STATE, ferry_plugin_get_state (plugin)));
  set_text (object, "reason", ferry_plugin_get_reason (plugin));
  for (guint i = 0; i < features->len; i++)
    json_array_add_object_element (array, feature_to_json (g_ptr_array_index (features, i)));
  json_object_set_array_member (object, "features", array);

  return object;
}

/* Printing */

static const char *
get_text (JsonObject *object, const char *member)
{
  return json_object_get_string_member_with_default (object, member, NULL);
}

static void
print_field (const char *label, const char *text)
{
  if (text != NULL)
    g_print ("  %-*s%s\n", LABEL_WIDTH, label, text);
}

static char *
join (JsonArray *array, const char *separator)
{
  g_autoptr (GPtrArray) texts = g_ptr_array_new ();

  for (guint i = 0; i < json_array_get_length (array); i++)
    g_ptr_array_add (texts, (gpointer) json_array_get_string_element (array, i));
  g_ptr_array_add (texts, NULL);

  return g_strjoinv (separator, (char **) texts->pdata);
}

static char *
node_to_text (JsonNode *node)
{
  if (JSON_NODE_HOLDS_ARRAY (node))
    {
      g_autofree char *text = join (json_node_get_array (node), "|");

      return g_strdup (text[0] != '\0' ? text : "none");
    }
  if (json_node_get_value_type (node) == G_TYPE_STRING && !JSON_NODE_HOLDS_NULL (node))
    return tool_make_printable (json_node_get_string (node));

  return json_to_string (node, FALSE);
}

static void
print_property (JsonObject *property)
{
  g_autofree char *flags = join (json_object_get_array_member (property, "flags"), ", ");
  g_autofree char *value = node_to_text (json_object_get_member (property, "default"));
  JsonArray *values;

  g_print ("  %-20s %s", get_text (property, "name"), get_text (property, "type"));
  if (json_object_has_member (property, "minimum"))
    {
      g_autofree char *minimum = node_to_text (json_object_get_member (property, "minimum"));
      g_autofree char *maximum = node_to_text (json_object_get_member (property, "maximum"));

      g_print (", %s to %s", minimum, maximum);
    }
  g_print (", default %s; %s\n", value, flags);
  if (get_text (property, "description") != NULL)
    g_print ("  %20s %s\n", "", get_text (property, "description"));

  if (!json_object_has_member (property, "values"))
    return;
  values = json_object_get_array_member (property, "values");
  for (guint i = 0; i < json_array_get_length (values); i++)
    {
      JsonObject *item = json_array_get_object_element (values, i);

      g_print ("  %20s   %-16s %" G_GINT64_FORMAT "\n", "", get_text (item, "name"),
               json_object_get_int_member (item, "value"));
    }
}

static void
print_type (JsonObject *type)
{
  JsonArray *properties = json_object_get_array_member (type, "properties");
  JsonArray *signals = json_object_get_array_member (type, "signals");
  g_autofree char *hierarchy = join (json_object_get_array_member (type, "hierarchy"), " < ");
  g_autofree char *interfaces = join (json_object_get_array_member (type, "interfaces"), ", ");

  print_field ("Type", hierarchy);
  if (interfaces[0] != '\0')
    print_field ("Implements", interfaces);

  g_print ("\nProperties%s\n", json_array_get_length (properties) > 0 ? "" : ": none");
  for (guint i = 0; i < json_array_get_length (properties); i++)
    print_property (json_array_get_object_element (properties, i));

  g_print ("\nSignals%s\n", json_array_get_length (signals) > 0 ? "" : ": none");
  for (guint i = 0; i < json_array_get_length (signals); i++)
    {
      JsonObject *signal = json_array_get_object_element (signals, i);
      g_autofree char *arguments = join (json_object_get_array_member (signal, "arguments"), ", ");

      g_print ("  %s (%s) -> %s\n", get_text (signal, "name"), arguments, get_text (signal, "returns"));
    }
}

static void
print_feature (JsonObject *feature)
{
  g_autofree char *rank = g_strdup_printf ("%" G_GINT64_FORMAT, json_object_get_int_member (feature, "rank"));
  const char *nick = get_nick (FERRY_TYPE_RANK, (int) json_object_get_int_member (feature, "rank"));
  g_autofree char *rank_text = nick != NULL ? g_strdup_printf ("%s (%s)", rank, nick) : g_strdup (rank);

  g_print ("%s %s\n", strcmp (get_text (feature, "kind"), "codec") == 0 ? "Codec" : "Transport",
           get_text (feature, "name"));
  print_field ("Description", get_text (feature, "description"));
  print_field ("Plugin", get_text (feature, "plugin"));
  print_field ("Rank", rank_text);
  if (json_object_has_member (feature, "capabilities"))
    {
      g_autofree char *capabilities = join (json_object_get_array_member (feature, "capabilities"), ", ");

      print_field ("Can do", capabilities);
    }
  if (json_object_has_member (feature, "wire-name"))
    {
      g_autofree char *wire = g_strdup_printf ("%s, version %" G_GINT64_FORMAT, get_text (feature, "wire-name"),
                                               json_object_get_int_member (feature, "wire-version"));

      print_field ("Wire name", wire);
    }
  if (get_text (feature, "reason") != NULL)
    print_field ("Not used", get_text (feature, "reason"));
  if (json_object_has_member (feature, "element"))
    print_type (json_object_get_object_member (feature, "element"));
  if (get_text (feature, "error") != NULL)
    print_field ("Error", get_text (feature, "error"));
}

static void
print_feature_line (JsonObject *feature)
{
  g_print ("  %-10s %-18s %4" G_GINT64_FORMAT "  %s%s\n", get_text (feature, "kind"), get_text (feature, "name"),
           json_object_get_int_member (feature, "rank"), get_text (feature, "description"),
           get_text (feature, "reason") != NULL ? " (not used)" : "");
}

static void
print_plugin (JsonObject *plugin)
{
  JsonArray *features = json_object_get_array_member (plugin, "features");
  const char *filename = get_text (plugin, "filename");

  g_print ("Plugin %s\n", get_text (plugin, "name"));
  print_field ("Description", get_text (plugin, "description"));
  print_field ("State", get_text (plugin, "state"));
  print_field ("Reason", get_text (plugin, "reason"));
  print_field ("File", filename != NULL ? filename : "(part of the library)");
  print_field ("Version", get_text (plugin, "version"));
  print_field ("License", get_text (plugin, "license"));
  print_field ("Origin", get_text (plugin, "origin"));
  if (json_array_get_length (features) > 0)
    g_print ("\nFeatures\n");
  for (guint i = 0; i < json_array_get_length (features); i++)
    print_feature_line (json_array_get_object_element (features, i));
}

/* Commands */

static void
print_json (JsonObject *object)
{
  g_autoptr (JsonNode) node = json_node_new (JSON_NODE_OBJECT);
  g_autofree char *text = NULL;

  json_node_take_object (node, object);
  text = json_to_string (node, TRUE);
  g_print ("%s\n", text);
}

static gboolean
is_ok (FerryPlugin *plugin)
{
  return ferry_plugin_get_state (plugin) == FERRY_PLUGIN_STATE_OK;
}

static void
list_names (GPtrArray *plugins)
{
  g_print ("channel\n");
  for (guint i = 0; i < plugins->len; i++)
    {
      g_autoptr (GPtrArray) features = ferry_plugin_list_features (g_ptr_array_index (plugins, i));

      g_print ("%s\n", ferry_plugin_get_name (g_ptr_array_index (plugins, i)));
      for (guint j = 0; j < features->len; j++)
        g_print ("%s\n", ferry_feature_get_name (g_ptr_array_index (features, j)));
    }
}

/* All plugins, or only those that can't be used. */
static JsonObject *
plugins_to_json (GPtrArray *plugins)
{
  JsonObject *object = json_object_new ();
  JsonArray *array = json_array_new ();

  for (guint i = 0; i < plugins->len; i++)
    if (!opt_blacklist || !is_ok (g_ptr_array_index (plugins, i)))
      json_array_add_object_element (array, plugin_to_json (g_ptr_array_index (plugins, i)));
  json_object_set_array_member (object, "plugins", array);

  return object;
}

static void
list_plugins (GPtrArray *plugins)
{
  guint n_features = 0;
  guint n_unusable = 0;

  for (guint i = 0; i < plugins->len; i++)
    {
      FerryPlugin *plugin = g_ptr_array_index (plugins, i);
      g_autoptr (JsonObject) object = plugin_to_json (plugin);
      JsonArray *features = json_object_get_array_member (object, "features");

      if (!is_ok (plugin))
        {
          n_unusable++;
          continue;
        }
      g_print ("%s: %s\n", get_text (object, "name"), get_text (object, "description"));
      for (guint j = 0; j < json_array_get_length (features); j++, n_features++)
        print_feature_line (json_array_get_object_element (features, j));
    }

  g_print ("\n%u plugins with %u features", plugins->len - n_unusable, n_features);
  if (n_unusable > 0)
    g_print ("; %u can't be used, see ferry-inspect --blacklist", n_unusable);
  g_print ("\n");
}

static void
list_blacklist (GPtrArray *plugins)
{
  guint n_unusable = 0;

  for (guint i = 0; i < plugins->len; i++)
    {
      g_autoptr (JsonObject) object = plugin_to_json (g_ptr_array_index (plugins, i));

      if (is_ok (g_ptr_array_index (plugins, i)))
        continue;
      n_unusable++;
      g_print ("%s: %s\n  %s\n  %s\n", get_text (object, "name"), get_text (object, "state"),
               get_text (object, "filename"), get_text (object, "reason"));
    }

  if (n_unusable == 0)
    g_print ("All plugins can be used.\n");
}

/* Loads the feature's code, if its plugin can be used, and adds what it then knows. */
static gboolean
add_element (JsonObject *object, FerryPlugin *plugin, FerryFeature *feature)
{
  g_autoptr (GError) error = NULL;

  if (!is_ok (plugin))
    return TRUE;

  if (!ferry_feature_load (feature, &error))
    {
      set_text (object, "error", error->message);
      return FALSE;
    }
  json_object_set_object_member (object, "element", type_to_json (ferry_feature_get_element_type (feature)));

  return TRUE;
}

/* Adds what goes by the name: plugins, features, or all channels. */
static gboolean
inspect (GPtrArray *plugins, const char *name, JsonArray *found_plugins, JsonArray *found_features,
         JsonObject **channel)
{
  gboolean loaded = TRUE;

  /* Every channel has these properties and signals, whatever its plugins are. */
  if (strcmp (name, "channel") == 0 && *channel == NULL)
    *channel = type_to_json (FERRY_TYPE_CHANNEL);

  for (guint i = 0; i < plugins->len; i++)
    {
      FerryPlugin *plugin = g_ptr_array_index (plugins, i);
      g_autoptr (GPtrArray) features = ferry_plugin_list_features (plugin);

      if (strcmp (ferry_plugin_get_name (plugin), name) == 0)
        json_array_add_object_element (found_plugins, plugin_to_json (plugin));

      for (guint j = 0; j < features->len; j++)
        {
          FerryFeature *feature = g_ptr_array_index (features, j);
          JsonObject *object;

          if (strcmp (ferry_feature_get_name (feature), name) != 0)
            continue;
          object = feature_to_json (feature);
          loaded &= add_element (object, plugin, feature);
          json_array_add_object_element (found_features, object);
        }
    }

  return loaded;
}

static void
complain_of_name (GPtrArray *plugins, const char *name)
{
  g_autoptr (GPtrArray) names = g_ptr_array_new_with_free_func (g_free);
  g_autofree char *printable = tool_make_printable (name);
  const char *nearest;

  for (guint i = 0; i < plugins->len; i++)
    {
      g_autoptr (GPtrArray) features = ferry_plugin_list_features (g_ptr_array_index (plugins, i));

      g_ptr_array_add (names, g_strdup (ferry_plugin_get_name (g_ptr_array_index (plugins, i))));
      for (guint j = 0; j < features->len; j++)
        g_ptr_array_add (names, g_strdup (ferry_feature_get_name (g_ptr_array_index (features, j))));
    }
  g_ptr_array_add (names, NULL);

  nearest = ferry_nearest_name (name, (const char *const *) names->pdata);
  if (nearest != NULL)
    tool_printerr ("there is no plugin, transport or codec '%s'; did you mean '%s'?", printable, nearest);
  else
    tool_printerr ("there is no plugin, transport or codec '%s'; ferry-inspect without a name lists all", printable);
}

static int
inspect_all (GPtrArray *plugins, char **names)
{
  JsonObject *result = json_object_new ();
  JsonArray *found_plugins = json_array_new ();
  JsonArray *found_features = json_array_new ();
  JsonObject *channel = NULL;
  int status = EXIT_SUCCESS;

  json_object_set_array_member (result, "plugins", found_plugins);
  json_object_set_array_member (result, "features", found_features);

  for (guint i = 0; names[i] != NULL; i++)
    {
      guint n_before = json_array_get_length (found_plugins) + json_array_get_length (found_features);
      gboolean had_channel = channel != NULL;

      if (!inspect (plugins, names[i], found_plugins, found_features, &channel))
        status = EXIT_FAILURE;
      if (json_array_get_length (found_plugins) + json_array_get_length (found_features) == n_before
          && (channel != NULL) == had_channel)
        {
          complain_of_name (plugins, names[i]);
          status = EXIT_FAILURE;
        }
    }
  if (channel != NULL)
    json_object_set_object_member (result, "channel", channel);

  if (opt_json)
    {
      print_json (result);
      return status;
    }

  for (guint i = 0; i < json_array_get_length (found_plugins); i++)
    {
      print_plugin (json_array_get_object_element (found_plugins, i));
      g_print ("\n");
    }
  for (guint i = 0; i < json_array_get_length (found_features); i++)
    {
      print_feature (json_array_get_object_element (found_features, i));
      g_print ("\n");
    }
  if (channel != NULL)
    {
      g_print ("Every channel\n");
      print_type (channel);
    }
  json_object_unref (result);

  return status;
}

int
main (int argc, char **argv)
{
  g_autoptr (GOptionContext) context = g_option_context_new (NULL);
  g_autoptr (GPtrArray) plugins = NULL;
  g_autoptr (GError) error = NULL;
  FerryRegistry *registry;

  tool_init ("ferry-inspect");
  g_option_context_set_summary (
      context, "Shows the plugins of Ferry and what they offer: transports, which carry messages from\n"
               "one process to another, and codecs, which turn objects into bytes and back.\n"
               "With the NAME of a plugin, transport or codec, all about that; with the name\n"
               "\"channel\", the properties that every channel has.");
  g_option_context_set_description (
      context, "Examples:\n"
               "  ferry-inspect                  all that can be used\n"
               "  ferry-inspect memfd            properties of a transport, with ranges and defaults\n"
               "  ferry-inspect --blacklist      why a plugin is not there\n"
               "  ferry-inspect --json | jq '.plugins[].features[].name'\n"
               "\n"
               "The number before a description is the rank: of several features that could do a job\n"
               "the one with the highest rank is taken. Plugins are searched in the folders that\n"
               "FERRY_PLUGIN_PATH names, then where Ferry was installed.\n"
               "Exit status: 0, 1 when there is no such name or it can't be loaded, 2 wrong usage.\n");
  g_option_context_add_main_entries (context, entries, NULL);

  if (!g_option_context_parse (context, &argc, &argv, &error))
    return tool_fail_usage ("%s", error->message);
  if (opt_version)
    {
      g_print ("ferry-inspect " FERRY_VERSION_STRING "\n");
      return EXIT_SUCCESS;
    }
  if (opt_blacklist && opt_arguments != NULL)
    return tool_fail_usage ("--blacklist lists all plugins that can't be used; it takes no name");

  registry = ferry_registry_get_default ();
  if (!(opt_rescan ? ferry_registry_rescan (registry, &error) : ferry_registry_scan (registry, &error)))
    {
      tool_printerr ("%s", error->message);
      return EXIT_FAILURE;
    }

  plugins = ferry_registry_list_plugins (registry);
  if (opt_names)
    list_names (plugins);
  else if (opt_arguments != NULL)
    return inspect_all (plugins, opt_arguments);
  else if (opt_json)
    print_json (plugins_to_json (plugins));
  else if (opt_blacklist)
    list_blacklist (plugins);
  else
    list_plugins (plugins);

  return EXIT_SUCCESS;
}
