/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "example-zlib-codec.h"

#include <string.h>

/*
 * Bytes, compressed by zlib. A message is
 *
 *   8 bytes   size of what was compressed, little endian
 *   the rest  zlib stream
 */

#define WIRE_NAME "zlib"
#define WIRE_VERSION (1)

/* zlib counts in 32 bits. */
#define CHUNK_BYTES ((gsize) 1 << 30)

#define HEADER_BYTES (sizeof (guint64))

/* What zlib needs more than the input, at worst, is far below this share of it. */
#define GROWTH_SHARE (100)
#define GROWTH_BYTES (64)

/* A small message can claim to become a huge one. */
#define DEFAULT_MAX_BYTES (G_GUINT64_CONSTANT (1) << 30)

struct _ExampleZlibCodec
{
  GObject parent_instance;

  int level;
  guint64 max_bytes;
};

enum
{
  PROP_LEVEL = 1,
  PROP_MAX_BYTES,
  N_PROPERTIES,
};

static GParamSpec *properties[N_PROPERTIES];

static void example_zlib_codec_iface_init (FerryCodecInterface *iface);

G_DEFINE_FINAL_TYPE_WITH_CODE (ExampleZlibCodec, example_zlib_codec, G_TYPE_OBJECT,
                               G_IMPLEMENT_INTERFACE (FERRY_TYPE_CODEC, example_zlib_codec_iface_init))

/* Converts all of the input. Returns how many bytes came out, at most the size of the
 * output; FALSE if there is more, or the input is not what it should be. */
static gboolean
convert (GConverter *converter, const guint8 *input, gsize input_size, guint8 *output, gsize output_size,
         gsize *written, GError **error)
{
  gsize n_read = 0;
  gsize n_written = 0;

  for (;;)
    {
      gsize just_read, just_written;
      gsize chunk = MIN (input_size - n_read, CHUNK_BYTES);
      gsize room = MIN (output_size - n_written, CHUNK_BYTES);
      GConverterFlags flags = chunk == input_size - n_read ? G_CONVERTER_INPUT_AT_END : G_CONVERTER_NO_FLAGS;
      guint8 none;

      /* With all of the output filled there is still the end of the stream to be read. */
      switch (g_converter_convert (converter, input + n_read, chunk, room > 0 ? output + n_written : &none,
                                   room > 0 ? room : sizeof none, flags, &just_read, &just_written, error))
        {
        case G_CONVERTER_ERROR:
          return FALSE;

        case G_CONVERTER_FINISHED:
          n_read += just_read;
          n_written += just_written;
          if (n_read < input_size || n_written > output_size)
            {
              g_set_error (error, FERRY_ERROR, FERRY_ERROR_CODEC, "the stream has another length than it says");
              return FALSE;
            }
          *written = n_written;
          return TRUE;

        default:
          n_read += just_read;
          n_written += just_written;
          if (n_written > output_size)
            {
              g_set_error (error, FERRY_ERROR, FERRY_ERROR_CODEC, "more than %" G_GSIZE_FORMAT " bytes come out",
                           output_size);
              return FALSE;
            }
          break;
        }
    }
}

static const char *
example_zlib_codec_get_wire_name (FerryCodec *codec)
{
  return WIRE_NAME;
}

static guint
example_zlib_codec_get_wire_version (FerryCodec *codec)
{
  return WIRE_VERSION;
}

static gboolean
example_zlib_codec_accepts (FerryCodec *codec, GType type)
{
  return type == G_TYPE_BYTES;
}

/* The size is not known before the work is done, so it is done here, and kept. */
static gboolean
example_zlib_codec_measure (FerryCodec *codec, const GValue *value, gsize *size, gpointer *state, GError **error)
{
  ExampleZlibCodec *self = EXAMPLE_ZLIB_CODEC (codec);
  GBytes *bytes = g_value_get_boxed (value);
  g_autoptr (GZlibCompressor) compressor = g_zlib_compressor_new (G_ZLIB_COMPRESSOR_FORMAT_ZLIB, self->level);
  g_autofree guint8 *output = NULL;
  gsize input_size, output_size, written;
  const guint8 *input;
  guint64 header;

  if (bytes == NULL)
    {
      g_set_error (error, FERRY_ERROR, FERRY_ERROR_CODEC, "zlib codec: the value is NULL");
      return FALSE;
    }

  input = g_bytes_get_data (bytes, &input_size);
  output_size = input_size + input_size / GROWTH_SHARE + GROWTH_BYTES;
  output = g_try_malloc (HEADER_BYTES + output_size);
  if (output == NULL)
    {
      g_set_error (error, FERRY_ERROR, FERRY_ERROR_CODEC, "zlib codec: no memory for %" G_GSIZE_FORMAT " bytes",
                   output_size);
      return FALSE;
    }
  if (!convert (G_CONVERTER (compressor), input, input_size, output + HEADER_BYTES, output_size, &written, error))
    return FALSE;

  header = GUINT64_TO_LE ((guint64) input_size);
  memcpy (output, &header, sizeof header);
  *size = HEADER_BYTES + written;
  *state = g_steal_pointer (&output);

  return TRUE;
}

static gboolean
example_zlib_codec_encode (FerryCodec *codec, const GValue *value, guint8 *data, gsize size, gpointer state,
                           GError **error)
{
  memcpy (data, state, size);
  return TRUE;
}

static void
example_zlib_codec_free_state (FerryCodec *codec, gpointer state)
{
  g_free (state);
}

static gboolean
example_zlib_codec_decode (FerryCodec *codec, FerryBuffer *buffer, guint version, GValue *value, GError **error)
{
  ExampleZlibCodec *self = EXAMPLE_ZLIB_CODEC (codec);
  g_autoptr (GZlibDecompressor) decompressor = g_zlib_decompressor_new (G_ZLIB_COMPRESSOR_FORMAT_ZLIB);
  g_autoptr (GError) convert_error = NULL;
  g_autofree guint8 *output = NULL;
  gsize input_size, written;
  const guint8 *input = ferry_buffer_get_data (buffer, &input_size);
  guint64 header;

  if (input_size < HEADER_BYTES)
    {
      g_set_error (error, FERRY_ERROR, FERRY_ERROR_CODEC,
                   "zlib codec: the message has %" G_GSIZE_FORMAT " bytes, too few for its header", input_size);
      return FALSE;
    }

  /* Copied once: the sender might change it while it is being looked at. */
  memcpy (&header, input, sizeof header);
  header = GUINT64_FROM_LE (header);
  if (header > self->max_bytes)
    {
      g_set_error (error, FERRY_ERROR, FERRY_ERROR_CODEC,
                   "zlib codec: the message would become %" G_GUINT64_FORMAT
                   " bytes, more than max-bytes=%" G_GUINT64_FORMAT,
                   header, self->max_bytes);
      return FALSE;
    }

  output = g_try_malloc (MAX (header, 1));
  if (output == NULL)
    {
      g_set_error (error, FERRY_ERROR, FERRY_ERROR_CODEC, "zlib codec: no memory for %" G_GUINT64_FORMAT " bytes",
                   header);
      return FALSE;
    }
  if (!convert (G_CONVERTER (decompressor), input + HEADER_BYTES, input_size - HEADER_BYTES, output, (gsize) header,
                &written, &convert_error)
      || written != header)
    {
      g_set_error (error, FERRY_ERROR, FERRY_ERROR_CODEC, "zlib codec: the message is damaged: %s",
                   convert_error != NULL ? convert_error->message : "it is shorter than it says");
      return FALSE;
    }

  g_value_init (value, G_TYPE_BYTES);
  g_value_take_boxed (value, g_bytes_new_take (g_steal_pointer (&output), (gsize) header));

  return TRUE;
}

static void
example_zlib_codec_iface_init (FerryCodecInterface *iface)
{
  iface->get_wire_name = example_zlib_codec_get_wire_name;
  iface->get_wire_version = example_zlib_codec_get_wire_version;
  iface->accepts = example_zlib_codec_accepts;
  iface->measure = example_zlib_codec_measure;
  iface->encode = example_zlib_codec_encode;
  iface->free_state = example_zlib_codec_free_state;
  iface->decode = example_zlib_codec_decode;
}

static void
example_zlib_codec_set_property (GObject *object, guint prop_id, const GValue *value, GParamSpec *pspec)
{
  ExampleZlibCodec *self = EXAMPLE_ZLIB_CODEC (object);

  switch (prop_id)
    {
    case PROP_LEVEL:
      self->level = g_value_get_int (value);
      break;
    case PROP_MAX_BYTES:
      self->max_bytes = g_value_get_uint64 (value);
      break;
    default:
      G_OBJECT_WARN_INVALID_PROPERTY_ID (object, prop_id, pspec);
      break;
    }
}

static void
example_zlib_codec_get_property (GObject *object, guint prop_id, GValue *value, GParamSpec *pspec)
{
  ExampleZlibCodec *self = EXAMPLE_ZLIB_CODEC (object);

  switch (prop_id)
    {
    case PROP_LEVEL:
      g_value_set_int (value, self->level);
      break;
    case PROP_MAX_BYTES:
      g_value_set_uint64 (value, self->max_bytes);
      break;
    default:
      G_OBJECT_WARN_INVALID_PROPERTY_ID (object, prop_id, pspec);
      break;
    }
}

static void
example_zlib_codec_class_init (ExampleZlibCodecClass *klass)
{
  GObjectClass *object_class = G_OBJECT_CLASS (klass);

  object_class->set_property = example_zlib_codec_set_property;
  object_class->get_property = example_zlib_codec_get_property;

  /* How hard to try: 0 not at all, 9 as well as can be, -1 zlib's own choice. */
  properties[PROP_LEVEL] = g_param_spec_int ("level", NULL, NULL, -1, 9, -1,
                                             G_PARAM_READWRITE | G_PARAM_CONSTRUCT | G_PARAM_STATIC_STRINGS);

  /* The most that a message may become when it is decoded, in bytes. */
  properties[PROP_MAX_BYTES] = g_param_spec_uint64 ("max-bytes", NULL, NULL, 0, G_MAXSIZE, DEFAULT_MAX_BYTES,
                                                    G_PARAM_READWRITE | G_PARAM_CONSTRUCT | G_PARAM_STATIC_STRINGS);

  g_object_class_install_properties (object_class, N_PROPERTIES, properties);
}

static void
example_zlib_codec_init (ExampleZlibCodec *self)
{
}
