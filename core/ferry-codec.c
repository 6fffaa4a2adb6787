/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ferry-codec.h"

#include "ferry-error.h"
#include "ferry-memory-private.h"

/**
 * FerryCodec:
 *
 * What makes bytes of values, and values of bytes.
 *
 * Applications hold a [class@Channel], which drives a codec. `raw` and `gvariant` are
 * in the library, others come from plugins.
 *
 * The application binary interface has two steps, so that the bytes can be written
 * right where the receiver finds them: measure, then encode into a block of that
 * size. [method@Codec.encode_bytes] does both into private memory.
 *
 * A codec is thread-safe.
 *
 * Since: 1.0
 */

G_DEFINE_INTERFACE (FerryCodec, ferry_codec, G_TYPE_OBJECT)

static void
ferry_codec_default_init (FerryCodecInterface *iface)
{
}

static void
set_unsupported (FerryCodec *self, const char *what, GError **error)
{
  g_set_error (error, FERRY_ERROR, FERRY_ERROR_UNSUPPORTED,
               "%s does not implement %s(); use another codec for this, or implement it there",
               G_OBJECT_TYPE_NAME (self), what);
}

/**
 * ferry_codec_get_wire_name:
 * @self: a codec
 *
 * The name that messages of this codec carry: 1 to %FERRY_WIRE_NAME_MAX bytes of
 * `a-z`, `0-9` and `-`.
 *
 * Returns: (transfer none): the wire name
 *
 * Since: 1.0
 */
const char *
ferry_codec_get_wire_name (FerryCodec *self)
{
  FerryCodecInterface *iface;

  g_return_val_if_fail (FERRY_IS_CODEC (self), "");

  iface = FERRY_CODEC_GET_IFACE (self);
  return iface->get_wire_name != NULL ? iface->get_wire_name (self) : "";
}

/**
 * ferry_codec_get_wire_version:
 * @self: a codec
 *
 * The version that messages of this codec carry, and the newest that it decodes.
 *
 * Returns: the version, counted from 1
 *
 * Since: 1.0
 */
guint
ferry_codec_get_wire_version (FerryCodec *self)
{
  FerryCodecInterface *iface;

  g_return_val_if_fail (FERRY_IS_CODEC (self), 0);

  iface = FERRY_CODEC_GET_IFACE (self);
  return iface->get_wire_version != NULL ? iface->get_wire_version (self) : 1;
}

/**
 * ferry_codec_accepts:
 * @self: a codec
 * @type: the type of a value
 *
 * Whether values of that type may be encoded. One value or another may still be
 * refused, because of what it contains.
 *
 * Returns: %TRUE if so
 *
 * Since: 1.0
 */
gboolean
ferry_codec_accepts (FerryCodec *self, GType type)
{
  FerryCodecInterface *iface;

  g_return_val_if_fail (FERRY_IS_CODEC (self), FALSE);

  iface = FERRY_CODEC_GET_IFACE (self);
  return iface->accepts != NULL && iface->accepts (self, type);
}

/**
 * ferry_codec_measure: (skip)
 * @self: a codec
 * @value: what is to be encoded
 * @size: (out): how many bytes it takes
 * @state: (out) (optional) (nullable): what [method@Codec.encode] can use again; to be
 *   freed with [method@Codec.free_state] after a success
 * @error: return location for an error
 *
 * The first half of encoding. [method@Codec.encode_bytes] is the twin for language
 * bindings.
 *
 * Errors: %FERRY_ERROR_CODEC.
 *
 * Returns: %TRUE on success
 *
 * Since: 1.0
 */
gboolean
ferry_codec_measure (FerryCodec *self, const GValue *value, gsize *size, gpointer *state, GError **error)
{
  FerryCodecInterface *iface;
  gpointer own_state = NULL;

  g_return_val_if_fail (FERRY_IS_CODEC (self), FALSE);
  g_return_val_if_fail (G_IS_VALUE (value), FALSE);
  g_return_val_if_fail (size != NULL, FALSE);
  g_return_val_if_fail (error == NULL || *error == NULL, FALSE);

  *size = 0;
  if (state != NULL)
    *state = NULL;

  iface = FERRY_CODEC_GET_IFACE (self);
  if (iface->measure == NULL)
    {
      set_unsupported (self, "measure", error);
      return FALSE;
    }
  if (!iface->measure (self, value, size, &own_state, error))
    return FALSE;
  if (state != NULL)
    *state = own_state;
  else
    ferry_codec_free_state (self, own_state);
  return TRUE;
}

/**
 * ferry_codec_encode: (skip)
 * @self: a codec
 * @value: what was measured
 * @data: (array length=size): where to write
 * @size: exactly what [method@Codec.measure] told
 * @state: (nullable): what [method@Codec.measure] gave; stays the caller's. May be %NULL
 * @error: return location for an error
 *
 * The second half of encoding. [method@Codec.encode_bytes] is the twin for language
 * bindings. When it fails part of @data may have been written.
 *
 * Errors: %FERRY_ERROR_CODEC.
 *
 * Returns: %TRUE on success
 *
 * Since: 1.0
 */
gboolean
ferry_codec_encode (FerryCodec *self, const GValue *value, guint8 *data, gsize size, gpointer state, GError **error)
{
  FerryCodecInterface *iface;

  g_return_val_if_fail (FERRY_IS_CODEC (self), FALSE);
  g_return_val_if_fail (G_IS_VALUE (value), FALSE);
  g_return_val_if_fail (data != NULL || size == 0, FALSE);
  g_return_val_if_fail (error == NULL || *error == NULL, FALSE);

  iface = FERRY_CODEC_GET_IFACE (self);
  if (iface->encode == NULL)
    {
      set_unsupported (self, "encode", error);
      return FALSE;
    }
  return iface->encode (self, value, data, size, state, error);
}

/**
 * ferry_codec_free_state: (skip)
 * @self: a codec
 * @state: (nullable) (transfer full): what [method@Codec.measure] gave
 *
 * Frees what a measurement carried over. [method@Codec.encode_bytes] is the twin for
 * language bindings.
 *
 * Since: 1.0
 */
void
ferry_codec_free_state (FerryCodec *self, gpointer state)
{
  FerryCodecInterface *iface;

  g_return_if_fail (FERRY_IS_CODEC (self));

  iface = FERRY_CODEC_GET_IFACE (self);
  if (state != NULL && iface->free_state != NULL)
    iface->free_state (self, state);
}

/**
 * ferry_codec_encode_bytes:
 * @self: a codec
 * @value: what is to be encoded
 * @error: return location for an error
 *
 * Encodes a value into private memory, aligned to 64 bytes.
 *
 * Errors: %FERRY_ERROR_CODEC when the codec does not accept the value,
 * %FERRY_ERROR_NO_SPACE when there is no memory for it.
 *
 * Returns: (transfer full): the encoded value
 *
 * Since: 1.0
 */
GBytes *
ferry_codec_encode_bytes (FerryCodec *self, const GValue *value, GError **error)
{
  gpointer state = NULL;
  gpointer data;
  gsize size = 0;
  gboolean encoded;

  g_return_val_if_fail (FERRY_IS_CODEC (self), NULL);
  g_return_val_if_fail (G_IS_VALUE (value), NULL);
  g_return_val_if_fail (error == NULL || *error == NULL, NULL);

  if (!ferry_codec_measure (self, value, &size, &state, error))
    return NULL;

  /* Codecs align what they write to the start of the message, and here as in shared
   * memory that is a cache line. */
  data = ferry_aligned_try_alloc (size);
  if (data == NULL)
    {
      ferry_codec_free_state (self, state);
      g_set_error (error, FERRY_ERROR, FERRY_ERROR_NO_SPACE,
                   "codec '%s': no memory for a message of %" G_GSIZE_FORMAT " bytes; encode into a loaned buffer",
                   ferry_codec_get_wire_name (self), size);
      return NULL;
    }

  encoded = ferry_codec_encode (self, value, data, size, state, error);
  ferry_codec_free_state (self, state);
  if (!encoded)
    {
      ferry_aligned_free (data);
      return NULL;
    }
  return g_bytes_new_with_free_func (data, size, ferry_aligned_free, data);
}

/**
 * ferry_codec_decode:
 * @self: a codec
 * @buffer: a message
 * @version: the version that it carries, as of [method@Buffer.dup_wire_name]
 * @value: (out caller-allocates): an unset value, which is set on success and stays
 *   unset on failure
 * @error: return location for an error
 *
 * Reads a value out of a message. The value may refer to the message, and then
 * holds a reference on @buffer.
 *
 * Errors: %FERRY_ERROR_CODEC when the message is malformed or newer than the codec.
 *
 * Returns: %TRUE on success
 *
 * Since: 1.0
 */
gboolean
ferry_codec_decode (FerryCodec *self, FerryBuffer *buffer, guint version, GValue *value, GError **error)
{
  FerryCodecInterface *iface;
  guint known;

  g_return_val_if_fail (FERRY_IS_CODEC (self), FALSE);
  g_return_val_if_fail (buffer != NULL, FALSE);
  g_return_val_if_fail (value != NULL && G_VALUE_TYPE (value) == G_TYPE_INVALID, FALSE);
  g_return_val_if_fail (error == NULL || *error == NULL, FALSE);

  iface = FERRY_CODEC_GET_IFACE (self);
  if (iface->decode == NULL)
    {
      set_unsupported (self, "decode", error);
      return FALSE;
    }

  known = ferry_codec_get_wire_version (self);
  if (version > known)
    {
      g_set_error (error, FERRY_ERROR, FERRY_ERROR_CODEC,
                   "codec '%s': the message has version %u of the encoding, this codec knows versions up to %u; "
                   "update the receiver",
                   ferry_codec_get_wire_name (self), version, known);
      return FALSE;
    }

  if (!iface->decode (self, buffer, version, value, error))
    {
      if (G_VALUE_TYPE (value) != G_TYPE_INVALID)
        g_value_unset (value);
      return FALSE;
    }
  return TRUE;
}
