/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ferry-raw-codec-private.h"

#include "ferry-copy.h"
#include "ferry-error.h"

/*
 * FerryRawCodec: bytes as they are. Encodes GBytes and FerryBuffer; decodes to GBytes
 * that refer to the message.
 */

#define WIRE_VERSION (1)

struct _FerryRawCodec
{
  GObject parent_instance;
};

static void ferry_raw_codec_codec_init (FerryCodecInterface *iface);

G_DEFINE_FINAL_TYPE_WITH_CODE (FerryRawCodec, ferry_raw_codec, G_TYPE_OBJECT,
                               G_IMPLEMENT_INTERFACE (FERRY_TYPE_CODEC, ferry_raw_codec_codec_init))

static const char *
ferry_raw_codec_get_wire_name (FerryCodec *codec)
{
  return "raw";
}

static guint
ferry_raw_codec_get_wire_version (FerryCodec *codec)
{
  return WIRE_VERSION;
}

static gboolean
ferry_raw_codec_accepts (FerryCodec *codec, GType type)
{
  return type == G_TYPE_BYTES || type == FERRY_TYPE_BUFFER;
}

/* The bytes of an accepted value, or an error. */
static gboolean
get_contents (const GValue *value, gconstpointer *data, gsize *size, GError **error)
{
  gpointer boxed;

  if (!G_VALUE_HOLDS (value, G_TYPE_BYTES) && !G_VALUE_HOLDS (value, FERRY_TYPE_BUFFER))
    {
      const char *hint = G_VALUE_HOLDS_STRING (value)
                             ? "wrap the text with g_bytes_new() (in UTF-8, say), or use codec gvariant"
                         : G_VALUE_HOLDS_VARIANT (value) ? "use codec gvariant"
                                                         : "it encodes GBytes and FerryBuffer";

      g_set_error (error, FERRY_ERROR, FERRY_ERROR_CODEC, "codec 'raw': can't encode a value of type %s; %s",
                   G_VALUE_TYPE_NAME (value), hint);
      return FALSE;
    }

  boxed = g_value_get_boxed (value);
  if (boxed == NULL)
    {
      g_set_error (error, FERRY_ERROR, FERRY_ERROR_CODEC,
                   "codec 'raw': the %s is NULL; use an empty one for a message without content",
                   G_VALUE_TYPE_NAME (value));
      return FALSE;
    }

  if (G_VALUE_HOLDS (value, G_TYPE_BYTES))
    *data = g_bytes_get_data (boxed, size);
  else
    *data = ferry_buffer_get_data (boxed, size);
  return TRUE;
}

static gboolean
ferry_raw_codec_measure (FerryCodec *codec, const GValue *value, gsize *size, gpointer *state, GError **error)
{
  gconstpointer data;

  return get_contents (value, &data, size, error);
}

static gboolean
ferry_raw_codec_encode (FerryCodec *codec, const GValue *value, guint8 *data, gsize size, gpointer state,
                        GError **error)
{
  gconstpointer contents;
  gsize contents_size;

  if (!get_contents (value, &contents, &contents_size, error))
    return FALSE;
  if (contents_size != size)
    {
      g_set_error (error, FERRY_ERROR, FERRY_ERROR_CODEC,
                   "codec 'raw': the value has %" G_GSIZE_FORMAT " bytes, but %" G_GSIZE_FORMAT
                   " are to be written; don't change it while it is sent",
                   contents_size, size);
      return FALSE;
    }
  ferry_copy_memory (data, contents, size);
  return TRUE;
}

static gboolean
ferry_raw_codec_decode (FerryCodec *codec, FerryBuffer *buffer, guint version, GValue *value, GError **error)
{
  g_value_init (value, G_TYPE_BYTES);
  g_value_take_boxed (value, ferry_buffer_as_bytes (buffer));
  return TRUE;
}

static void
ferry_raw_codec_codec_init (FerryCodecInterface *iface)
{
  iface->get_wire_name = ferry_raw_codec_get_wire_name;
  iface->get_wire_version = ferry_raw_codec_get_wire_version;
  iface->accepts = ferry_raw_codec_accepts;
  iface->measure = ferry_raw_codec_measure;
  iface->encode = ferry_raw_codec_encode;
  iface->decode = ferry_raw_codec_decode;
}

static void
ferry_raw_codec_class_init (FerryRawCodecClass *klass)
{
}

static void
ferry_raw_codec_init (FerryRawCodec *self)
{
}
