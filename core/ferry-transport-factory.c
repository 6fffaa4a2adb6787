/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ferry-config.h"

#include "ferry-transport-factory.h"
#include "ferry-transport-private.h"

#include "ferry-enum-types.h"
#include "ferry-feature-private.h"

/**
 * FerryTransportFactory:
 *
 * A transport that some plugin offers; makes objects of it.
 *
 * Since: 1.0
 */
struct _FerryTransportFactory
{
  FerryFeature parent_instance;

  FerryTransportCapabilities capabilities;
};

enum
{
  PROP_CAPABILITIES = 1,
  N_PROPERTIES,
};

static GParamSpec *properties[N_PROPERTIES];

G_DEFINE_FINAL_TYPE (FerryTransportFactory, ferry_transport_factory, FERRY_TYPE_FEATURE)

static void
ferry_transport_factory_get_property (GObject *object, guint prop_id, GValue *value, GParamSpec *pspec)
{
  FerryTransportFactory *self = FERRY_TRANSPORT_FACTORY (object);

  switch (prop_id)
    {
    case PROP_CAPABILITIES:
      g_value_set_flags (value, self->capabilities);
      break;
    default:
      G_OBJECT_WARN_INVALID_PROPERTY_ID (object, prop_id, pspec);
      break;
    }
}

static void
ferry_transport_factory_class_init (FerryTransportFactoryClass *klass)
{
  GObjectClass *object_class = G_OBJECT_CLASS (klass);

  object_class->get_property = ferry_transport_factory_get_property;

  /**
   * FerryTransportFactory:capabilities:
   *
   * What the transport can do.
   *
   * Since: 1.0
   */
  properties[PROP_CAPABILITIES]
      = g_param_spec_flags ("capabilities", NULL, NULL, FERRY_TYPE_TRANSPORT_CAPABILITIES,
                            FERRY_TRANSPORT_CAPABILITIES_NONE, G_PARAM_READABLE | G_PARAM_STATIC_STRINGS);

  g_object_class_install_properties (object_class, N_PROPERTIES, properties);
}

static void
ferry_transport_factory_init (FerryTransportFactory *self)
{
}

FerryTransportFactory *
ferry_transport_factory_new (FerryPluginModule *module, const char *name, int rank,
                             FerryTransportCapabilities capabilities, const char *description)
{
  FerryTransportFactory *self = g_object_new (FERRY_TYPE_TRANSPORT_FACTORY, NULL);

  ferry_feature_setup (FERRY_FEATURE (self), module, name, rank, description);
  self->capabilities = capabilities;

  return self;
}

/**
 * ferry_transport_factory_get_capabilities:
 * @self: a factory
 *
 * Gets what the transport can do.
 *
 * Returns: the capabilities
 *
 * Since: 1.0
 */
FerryTransportCapabilities
ferry_transport_factory_get_capabilities (FerryTransportFactory *self)
{
  g_return_val_if_fail (FERRY_IS_TRANSPORT_FACTORY (self), FERRY_TRANSPORT_CAPABILITIES_NONE);

  return self->capabilities;
}

/**
 * ferry_transport_factory_has_capabilities:
 * @self: a factory
 * @capabilities: what is asked for
 *
 * Tells whether the transport can do all of that.
 *
 * Returns: whether it can
 *
 * Since: 1.0
 */
gboolean
ferry_transport_factory_has_capabilities (FerryTransportFactory *self, FerryTransportCapabilities capabilities)
{
  g_return_val_if_fail (FERRY_IS_TRANSPORT_FACTORY (self), FALSE);

  return (self->capabilities & capabilities) == capabilities;
}

/**
 * ferry_transport_factory_create:
 * @self: a factory
 * @error: return location for an error
 *
 * Makes a transport, and loads the code of its plugin if that was not done yet. May be
 * called from any thread.
 *
 * Returns: (transfer full): a new transport, not yet opened; %NULL with
 *   %FERRY_ERROR_PLUGIN if the plugin can't be loaded
 *
 * Since: 1.0
 */
FerryTransport *
ferry_transport_factory_create (FerryTransportFactory *self, GError **error)
{
  GObject *element;

  g_return_val_if_fail (FERRY_IS_TRANSPORT_FACTORY (self), NULL);
  g_return_val_if_fail (error == NULL || *error == NULL, NULL);

  element = ferry_feature_create_element (FERRY_FEATURE (self), error);
  if (element != NULL)
    g_object_set_qdata (element, ferry_transport_feature_quark (),
                        (gpointer) g_intern_string (ferry_feature_get_name (FERRY_FEATURE (self))));

  return element != NULL ? FERRY_TRANSPORT (element) : NULL;
}
