/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ferry-config.h"

#include "ferry-codec-factory.h"

#include "ferry-feature-private.h"

/**
 * FerryCodecFactory:
 *
 * A codec that some plugin offers; makes objects of it.
 *
 * Since: 1.0
 */
struct _FerryCodecFactory
{
  FerryFeature parent_instance;

  char *wire_name;
  guint wire_version;
};

enum
{
  PROP_WIRE_NAME = 1,
  PROP_WIRE_VERSION,
  N_PROPERTIES,
};

static GParamSpec *properties[N_PROPERTIES];

G_DEFINE_FINAL_TYPE (FerryCodecFactory, ferry_codec_factory, FERRY_TYPE_FEATURE)

static void
ferry_codec_factory_finalize (GObject *object)
{
  FerryCodecFactory *self = FERRY_CODEC_FACTORY (object);

  g_clear_pointer (&self->wire_name, g_free);

  G_OBJECT_CLASS (ferry_codec_factory_parent_class)->finalize (object);
}

static void
ferry_codec_factory_get_property (GObject *object, guint prop_id, GValue *value, GParamSpec *pspec)
{
  FerryCodecFactory *self = FERRY_CODEC_FACTORY (object);

  switch (prop_id)
    {
    case PROP_WIRE_NAME:
      g_value_set_string (value, self->wire_name);
      break;
    case PROP_WIRE_VERSION:
      g_value_set_uint (value, self->wire_version);
      break;
    default:
      G_OBJECT_WARN_INVALID_PROPERTY_ID (object, prop_id, pspec);
      break;
    }
}

static void
ferry_codec_factory_class_init (FerryCodecFactoryClass *klass)
{
  GObjectClass *object_class = G_OBJECT_CLASS (klass);

  object_class->finalize = ferry_codec_factory_finalize;
  object_class->get_property = ferry_codec_factory_get_property;

  /**
   * FerryCodecFactory:wire-name:
   *
   * The name that messages of this codec carry.
   *
   * Since: 1.0
   */
  properties[PROP_WIRE_NAME]
      = g_param_spec_string ("wire-name", NULL, NULL, NULL, G_PARAM_READABLE | G_PARAM_STATIC_STRINGS);

  /**
   * FerryCodecFactory:wire-version:
   *
   * The version that messages of this codec carry; it decodes this one and older ones.
   *
   * Since: 1.0
   */
  properties[PROP_WIRE_VERSION]
      = g_param_spec_uint ("wire-version", NULL, NULL, 0, G_MAXUINT, 0, G_PARAM_READABLE | G_PARAM_STATIC_STRINGS);

  g_object_class_install_properties (object_class, N_PROPERTIES, properties);
}

static void
ferry_codec_factory_init (FerryCodecFactory *self)
{
}

FerryCodecFactory *
ferry_codec_factory_new (FerryPluginModule *module, const char *name, int rank, const char *wire_name,
                         guint wire_version, const char *description)
{
  FerryCodecFactory *self = g_object_new (FERRY_TYPE_CODEC_FACTORY, NULL);

  ferry_feature_setup (FERRY_FEATURE (self), module, name, rank, description);
  self->wire_name = g_strdup (wire_name);
  self->wire_version = wire_version;

  return self;
}

/**
 * ferry_codec_factory_get_wire_name:
 * @self: a factory
 *
 * Gets the name that messages of this codec carry.
 *
 * Returns: (transfer none): the wire name, 1 to %FERRY_WIRE_NAME_MAX bytes
 *
 * Since: 1.0
 */
const char *
ferry_codec_factory_get_wire_name (FerryCodecFactory *self)
{
  g_return_val_if_fail (FERRY_IS_CODEC_FACTORY (self), NULL);

  return self->wire_name;
}

/**
 * ferry_codec_factory_get_wire_version:
 * @self: a factory
 *
 * Gets the version that messages of this codec carry.
 *
 * Returns: the wire version
 *
 * Since: 1.0
 */
guint
ferry_codec_factory_get_wire_version (FerryCodecFactory *self)
{
  g_return_val_if_fail (FERRY_IS_CODEC_FACTORY (self), 0);

  return self->wire_version;
}

/**
 * ferry_codec_factory_can_decode:
 * @self: a factory
 * @wire_name: a wire name
 * @wire_version: a wire version
 *
 * Tells whether the codec decodes messages that carry this name and version: its own
 * version and older ones.
 *
 * Returns: whether it does
 *
 * Since: 1.0
 */
gboolean
ferry_codec_factory_can_decode (FerryCodecFactory *self, const char *wire_name, guint wire_version)
{
  g_return_val_if_fail (FERRY_IS_CODEC_FACTORY (self), FALSE);
  g_return_val_if_fail (wire_name != NULL, FALSE);

  return strcmp (self->wire_name, wire_name) == 0 && wire_version <= self->wire_version;
}

/**
 * ferry_codec_factory_create:
 * @self: a factory
 * @error: return location for an error
 *
 * Makes a codec, and loads the code of its plugin if that was not done yet. May be
 * called from any thread.
 *
 * Returns: (transfer full): a new codec; %NULL with %FERRY_ERROR_PLUGIN if the plugin
 *   can't be loaded
 *
 * Since: 1.0
 */
FerryCodec *
ferry_codec_factory_create (FerryCodecFactory *self, GError **error)
{
  GObject *element;

  g_return_val_if_fail (FERRY_IS_CODEC_FACTORY (self), NULL);
  g_return_val_if_fail (error == NULL || *error == NULL, NULL);

  element = ferry_feature_create_element (FERRY_FEATURE (self), error);

  return element != NULL ? FERRY_CODEC (element) : NULL;
}
