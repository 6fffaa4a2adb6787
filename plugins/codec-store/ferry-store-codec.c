/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ferry-store-codec.h"

/*
 * FerryStoreCodec: live objects of stores. What is encoded is which object it is; what is decoded is that object. The core
 * keeps the object until its message is gone: docs/store.md, section 7.
 */

/* Stores that were opened to decode messages stay open for the next ones; so many. */
#define OPENED_MAX (16)

struct _FerryStoreCodec
{
  GObject parent_instance;

  gint open_stores;
  GMutex mutex; /* of what follows */
  char *accept;
  GQueue opened; /* of FerryStore, the last one first */
};

typedef enum
{
  PROP_OPEN_STORES = 1,
  PROP_ACCEPT,
} FerryStoreCodecProperty;

static GParamSpec *properties[PROP_ACCEPT + 1];

static void ferry_store_codec_codec_init (FerryCodecInterface *iface);

G_DEFINE_FINAL_TYPE_WITH_CODE (FerryStoreCodec, ferry_store_codec, G_TYPE_OBJECT,
                               G_IMPLEMENT_INTERFACE (FERRY_TYPE_CODEC, ferry_store_codec_codec_init))

static const char *
ferry_store_codec_get_wire_name (FerryCodec *codec)
{
  return FERRY_STORE_WIRE_NAME;
}

static guint
ferry_store_codec_get_wire_version (FerryCodec *codec)
{
  return FERRY_STORE_WIRE_VERSION;
}

static gboolean
ferry_store_codec_accepts (FerryCodec *codec, GType type)
{
  return type == FERRY_TYPE_STORE_REFERENCE;
}

static FerryStoreReference *
get_reference (const GValue *value, GError **error)
{
  FerryStoreReference *reference = NULL;

  if (G_VALUE_HOLDS (value, FERRY_TYPE_STORE_REFERENCE))
    reference = g_value_get_boxed (value);
  if (reference == NULL)
    g_set_error (
        error, FERRY_ERROR, FERRY_ERROR_CODEC,
        "codec 'store' encodes FerryStoreReference, not %s%s; use ferry_store_get_reference(), or another codec",
        G_VALUE_HOLDS (value, FERRY_TYPE_STORE_REFERENCE) ? "NULL of type " : "", G_VALUE_TYPE_NAME (value));
  return reference;
}

static gboolean
ferry_store_codec_measure (FerryCodec *codec, const GValue *value, gsize *size, gpointer *state, GError **error)
{
  *size = FERRY_STORE_REFERENCE_SIZE;
  return get_reference (value, error) != NULL;
}

static gboolean
ferry_store_codec_encode (FerryCodec *codec, const GValue *value, guint8 *data, gsize size, gpointer state,
                          GError **error)
{
  FerryStoreReference *reference = get_reference (value, error);

  return reference != NULL && ferry_store_reference_encode (reference, data, size, error);
}

static void
keep_open (FerryStoreCodec *self, FerryStore *store)
{
  FerryStore *dropped = NULL;

  g_mutex_lock (&self->mutex);
  g_queue_push_head (&self->opened, g_object_ref (store));
  if (self->opened.length > OPENED_MAX)
    dropped = g_queue_pop_tail (&self->opened);
  g_mutex_unlock (&self->mutex);
  g_clear_object (&dropped);
}

static gboolean
ferry_store_codec_decode (FerryCodec *codec, FerryBuffer *buffer, guint version, GValue *value, GError **error)
{
  FerryStoreCodec *self = FERRY_STORE_CODEC (codec);
  g_autofree char *accept = NULL;
  FerryStoreReference *reference;
  gboolean was_opened;

  g_mutex_lock (&self->mutex);
  accept = g_strdup (self->accept);
  g_mutex_unlock (&self->mutex);
  reference = ferry_store_reference_decode (buffer, g_atomic_int_get (&self->open_stores), accept, &was_opened, error);
  if (reference == NULL)
    return FALSE;
  if (was_opened)
    keep_open (self, ferry_store_reference_get_store (reference));
  g_value_init (value, FERRY_TYPE_STORE_REFERENCE);
  g_value_take_boxed (value, reference);
  return TRUE;
}

static void
ferry_store_codec_codec_init (FerryCodecInterface *iface)
{
  iface->get_wire_name = ferry_store_codec_get_wire_name;
  iface->get_wire_version = ferry_store_codec_get_wire_version;
  iface->accepts = ferry_store_codec_accepts;
  iface->measure = ferry_store_codec_measure;
  iface->encode = ferry_store_codec_encode;
  iface->decode = ferry_store_codec_decode;
}

static void
ferry_store_codec_get_property (GObject *object, guint prop_id, GValue *value, GParamSpec *pspec)
{
  FerryStoreCodec *self = FERRY_STORE_CODEC (object);

  switch ((FerryStoreCodecProperty) prop_id)
    {
    case PROP_OPEN_STORES:
      g_value_set_boolean (value, g_atomic_int_get (&self->open_stores));
      break;

    case PROP_ACCEPT:
      g_mutex_lock (&self->mutex);
      g_value_set_string (value, self->accept);
      g_mutex_unlock (&self->mutex);
      break;

    default:
      G_OBJECT_WARN_INVALID_PROPERTY_ID (object, prop_id, pspec);
    }
}

static void
ferry_store_codec_set_property (GObject *object, guint prop_id, const GValue *value, GParamSpec *pspec)
{
  FerryStoreCodec *self = FERRY_STORE_CODEC (object);
  gboolean changed;

  switch ((FerryStoreCodecProperty) prop_id)
    {
    case PROP_OPEN_STORES:
      if (g_atomic_int_exchange (&self->open_stores, g_value_get_boolean (value)) != g_value_get_boolean (value))
        g_object_notify_by_pspec (object, pspec);
      break;

    case PROP_ACCEPT:
      g_mutex_lock (&self->mutex);
      changed = g_strcmp0 (self->accept, g_value_get_string (value)) != 0;
      if (changed)
        {
          g_free (self->accept);
          self->accept = g_value_dup_string (value);
        }
      g_mutex_unlock (&self->mutex);
      if (changed)
        g_object_notify_by_pspec (object, pspec);
      break;

    default:
      G_OBJECT_WARN_INVALID_PROPERTY_ID (object, prop_id, pspec);
    }
}

static void
ferry_store_codec_dispose (GObject *object)
{
  g_queue_clear_full (&FERRY_STORE_CODEC (object)->opened, g_object_unref);
  G_OBJECT_CLASS (ferry_store_codec_parent_class)->dispose (object);
}

static void
ferry_store_codec_finalize (GObject *object)
{
  FerryStoreCodec *self = FERRY_STORE_CODEC (object);

  g_free (self->accept);
  g_mutex_clear (&self->mutex);
  G_OBJECT_CLASS (ferry_store_codec_parent_class)->finalize (object);
}

static void
ferry_store_codec_class_init (FerryStoreCodecClass *klass)
{
  GObjectClass *object_class = G_OBJECT_CLASS (klass);

  object_class->get_property = ferry_store_codec_get_property;
  object_class->set_property = ferry_store_codec_set_property;
  object_class->dispose = ferry_store_codec_dispose;
  object_class->finalize = ferry_store_codec_finalize;

  /*
   * FerryStoreCodec:open-stores: whether a message may have a store opened by its name that is not open in this
   * process. Otherwise such a message is an error.
   */
  properties[PROP_OPEN_STORES] = g_param_spec_boolean (
      "open-stores", NULL, NULL, TRUE, G_PARAM_READWRITE | G_PARAM_STATIC_STRINGS | G_PARAM_EXPLICIT_NOTIFY);

  /*
   * FerryStoreCodec:accept: the name of the only store whose objects are accepted; NULL: any.
   */
  properties[PROP_ACCEPT] = g_param_spec_string ("accept", NULL, NULL, NULL,
                                                 G_PARAM_READWRITE | G_PARAM_STATIC_STRINGS | G_PARAM_EXPLICIT_NOTIFY);
  g_object_class_install_properties (object_class, G_N_ELEMENTS (properties), properties);
}

static void
ferry_store_codec_init (FerryStoreCodec *self)
{
  self->open_stores = TRUE;
  g_mutex_init (&self->mutex);
  g_queue_init (&self->opened);
}
