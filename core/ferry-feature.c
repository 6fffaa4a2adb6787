/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ferry-config.h"

#include "ferry-feature-private.h"

#include "ferry-error.h"

/**
 * FerryFeature:
 *
 * Something that a plugin offers: a transport or a codec.
 *
 * A feature is known, with its name, rank and abilities, before any code of its
 * plugin is loaded. It is loaded when the first object is made of it.
 *
 * Features don't change once the registry has given them out, so all functions may be
 * called from any thread.
 *
 * Since: 1.0
 */

typedef struct
{
  FerryPluginModule *module;
  char *name;
  char *description;
  char *reason;
  int rank;
} FerryFeaturePrivate;

enum
{
  PROP_NAME = 1,
  PROP_RANK,
  PROP_PLUGIN_NAME,
  PROP_DESCRIPTION,
  N_PROPERTIES,
};

static GParamSpec *properties[N_PROPERTIES];

G_DEFINE_ABSTRACT_TYPE_WITH_PRIVATE (FerryFeature, ferry_feature, G_TYPE_OBJECT)

static void
ferry_feature_finalize (GObject *object)
{
  FerryFeature *self = FERRY_FEATURE (object);
  FerryFeaturePrivate *priv = ferry_feature_get_instance_private (self);

  g_clear_pointer (&priv->module, ferry_plugin_module_unref);
  g_clear_pointer (&priv->name, g_free);
  g_clear_pointer (&priv->description, g_free);
  g_clear_pointer (&priv->reason, g_free);

  G_OBJECT_CLASS (ferry_feature_parent_class)->finalize (object);
}

static void
ferry_feature_get_property (GObject *object, guint prop_id, GValue *value, GParamSpec *pspec)
{
  FerryFeature *self = FERRY_FEATURE (object);

  switch (prop_id)
    {
    case PROP_NAME:
      g_value_set_string (value, ferry_feature_get_name (self));
      break;
    case PROP_RANK:
      g_value_set_int (value, ferry_feature_get_rank (self));
      break;
    case PROP_PLUGIN_NAME:
      g_value_set_string (value, ferry_feature_get_plugin_name (self));
      break;
    case PROP_DESCRIPTION:
      g_value_set_string (value, ferry_feature_get_description (self));
      break;
    default:
      G_OBJECT_WARN_INVALID_PROPERTY_ID (object, prop_id, pspec);
      break;
    }
}

static void
ferry_feature_class_init (FerryFeatureClass *klass)
{
  GObjectClass *object_class = G_OBJECT_CLASS (klass);

  object_class->finalize = ferry_feature_finalize;
  object_class->get_property = ferry_feature_get_property;

  /**
   * FerryFeature:name:
   *
   * The name that descriptions use, such as `posix-shm`.
   *
   * Since: 1.0
   */
  properties[PROP_NAME] = g_param_spec_string ("name", NULL, NULL, NULL, G_PARAM_READABLE | G_PARAM_STATIC_STRINGS);

  /**
   * FerryFeature:rank:
   *
   * How much the feature is preferred to others; see [enum@Rank].
   *
   * Since: 1.0
   */
  properties[PROP_RANK]
      = g_param_spec_int ("rank", NULL, NULL, 0, G_MAXINT, 0, G_PARAM_READABLE | G_PARAM_STATIC_STRINGS);

  /**
   * FerryFeature:plugin-name:
   *
   * The name of the plugin that offers it.
   *
   * Since: 1.0
   */
  properties[PROP_PLUGIN_NAME]
      = g_param_spec_string ("plugin-name", NULL, NULL, NULL, G_PARAM_READABLE | G_PARAM_STATIC_STRINGS);

  /**
   * FerryFeature:description:
   *
   * What it is, in one line.
   *
   * Since: 1.0
   */
  properties[PROP_DESCRIPTION]
      = g_param_spec_string ("description", NULL, NULL, NULL, G_PARAM_READABLE | G_PARAM_STATIC_STRINGS);

  g_object_class_install_properties (object_class, N_PROPERTIES, properties);
}

static void
ferry_feature_init (FerryFeature *self)
{
}

void
ferry_feature_setup (FerryFeature *self, FerryPluginModule *module, const char *name, int rank, const char *description)
{
  FerryFeaturePrivate *priv = ferry_feature_get_instance_private (self);

  priv->module = ferry_plugin_module_ref (module);
  priv->name = g_strdup (name);
  priv->rank = rank;
  priv->description = g_strdup (description);
}

/* Only before the registry gives the feature out. */
void
ferry_feature_set_rank (FerryFeature *self, int rank)
{
  FerryFeaturePrivate *priv = ferry_feature_get_instance_private (self);

  priv->rank = rank;
}

/* Only before the registry gives the feature out. */
void
ferry_feature_set_reason (FerryFeature *self, const char *reason)
{
  FerryFeaturePrivate *priv = ferry_feature_get_instance_private (self);

  g_free (priv->reason);
  priv->reason = g_strdup (reason);
}

GObject *
ferry_feature_create_element (FerryFeature *self, GError **error)
{
  if (!ferry_feature_load (self, error))
    return NULL;

  return g_object_new (ferry_feature_get_element_type (self), NULL);
}

/**
 * ferry_feature_get_name:
 * @self: a feature
 *
 * Gets the name that descriptions use, such as `posix-shm`.
 *
 * Returns: (transfer none): the name
 *
 * Since: 1.0
 */
const char *
ferry_feature_get_name (FerryFeature *self)
{
  FerryFeaturePrivate *priv = ferry_feature_get_instance_private (self);

  g_return_val_if_fail (FERRY_IS_FEATURE (self), NULL);

  return priv->name;
}

/**
 * ferry_feature_get_rank:
 * @self: a feature
 *
 * Gets how much the feature is preferred to others. The environment variable
 * `FERRY_FEATURE_RANK` overrides what its plugin says.
 *
 * Returns: the rank, 0 or more; see [enum@Rank]
 *
 * Since: 1.0
 */
int
ferry_feature_get_rank (FerryFeature *self)
{
  FerryFeaturePrivate *priv = ferry_feature_get_instance_private (self);

  g_return_val_if_fail (FERRY_IS_FEATURE (self), 0);

  return priv->rank;
}

/**
 * ferry_feature_get_plugin_name:
 * @self: a feature
 *
 * Gets the name of the plugin that offers the feature; `core` for what the library
 * itself offers.
 *
 * Returns: (transfer none): the plugin's name
 *
 * Since: 1.0
 */
const char *
ferry_feature_get_plugin_name (FerryFeature *self)
{
  FerryFeaturePrivate *priv = ferry_feature_get_instance_private (self);

  g_return_val_if_fail (FERRY_IS_FEATURE (self), NULL);

  return ferry_plugin_module_get_plugin_name (priv->module);
}

/**
 * ferry_feature_get_description:
 * @self: a feature
 *
 * Gets what the feature is, in one line.
 *
 * Returns: (transfer none): the description
 *
 * Since: 1.0
 */
const char *
ferry_feature_get_description (FerryFeature *self)
{
  FerryFeaturePrivate *priv = ferry_feature_get_instance_private (self);

  g_return_val_if_fail (FERRY_IS_FEATURE (self), NULL);

  return priv->description;
}

/**
 * ferry_feature_get_reason:
 * @self: a feature
 *
 * Gets why the registry does not use this feature, although its plugin offers it:
 * another plugin offers one of the same name that has a higher rank or comes first.
 *
 * Returns: (transfer none) (nullable): the reason, or %NULL if the feature is used
 *
 * Since: 1.0
 */
const char *
ferry_feature_get_reason (FerryFeature *self)
{
  FerryFeaturePrivate *priv = ferry_feature_get_instance_private (self);

  g_return_val_if_fail (FERRY_IS_FEATURE (self), NULL);

  return priv->reason;
}

/**
 * ferry_feature_load:
 * @self: a feature
 * @error: return location for an error
 *
 * Loads the code of the feature's plugin, if that was not done yet. It stays loaded
 * until the process ends. Making an object of the feature does this by itself.
 *
 * Returns: %TRUE on success; %FALSE with %FERRY_ERROR_PLUGIN if the plugin can't be
 *   loaded or no longer offers the feature
 *
 * Since: 1.0
 */
gboolean
ferry_feature_load (FerryFeature *self, GError **error)
{
  FerryFeaturePrivate *priv = ferry_feature_get_instance_private (self);

  g_return_val_if_fail (FERRY_IS_FEATURE (self), FALSE);
  g_return_val_if_fail (error == NULL || *error == NULL, FALSE);

  if (!ferry_plugin_module_load (priv->module, error))
    return FALSE;

  if (ferry_feature_get_element_type (self) == G_TYPE_INVALID)
    {
      g_set_error (
          error, FERRY_ERROR, FERRY_ERROR_PLUGIN,
          "plugin '%s' no longer offers '%s': it was replaced while this program runs; start the program again",
          ferry_plugin_module_get_plugin_name (priv->module), priv->name);
      return FALSE;
    }

  return TRUE;
}

/**
 * ferry_feature_is_loaded:
 * @self: a feature
 *
 * Tells whether the code of the feature's plugin is loaded.
 *
 * Returns: whether it is loaded
 *
 * Since: 1.0
 */
gboolean
ferry_feature_is_loaded (FerryFeature *self)
{
  FerryFeaturePrivate *priv = ferry_feature_get_instance_private (self);

  g_return_val_if_fail (FERRY_IS_FEATURE (self), FALSE);

  return ferry_plugin_module_is_loaded (priv->module);
}

/**
 * ferry_feature_get_element_type:
 * @self: a feature
 *
 * Gets the type of the objects that the feature makes. It is not known before the
 * feature is loaded, see [method@Feature.load].
 *
 * Returns: the type, or %G_TYPE_INVALID
 *
 * Since: 1.0
 */
GType
ferry_feature_get_element_type (FerryFeature *self)
{
  FerryFeaturePrivate *priv = ferry_feature_get_instance_private (self);

  g_return_val_if_fail (FERRY_IS_FEATURE (self), G_TYPE_INVALID);

  return ferry_plugin_module_get_element_type (priv->module, G_OBJECT_TYPE (self), priv->name);
}
