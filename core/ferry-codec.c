/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ferry-codec.h"

#include "ferry-copy.h"
#include "ferry-error.h"
#include "ferry-memory-private.h"

#include <string.h>

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

static gboolean
set_unsupported (FerryCodec *self, const char *what, GError **error)
{
  g_set_error (error, FERRY_ERROR, FERRY_ERROR_UNSUPPORTED,
               "%s does not implement %s(); use another codec for this, or implement it there",
               G_OBJECT_TYPE_NAME (self), what);
  return FALSE;
}

/* An implementation that fails and does not say why, which happens in other languages: its caller relies on an
 * error. FALSE. */
static gboolean
fail (FerryCodec *self, const char *what, GError *local, GError **error)
{
  if (local == NULL)
    local
        = g_error_new (FERRY_ERROR, FERRY_ERROR_CODEC, "codec '%s': %s() of %s failed without an error; mend it there",
                       ferry_codec_get_wire_name (self), what, G_OBJECT_TYPE_NAME (self));
  g_propagate_error (error, local);
  return FALSE;
}

/*
 * What an implementation leaves out. The channel calls through the interface, so nothing in it is NULL. Those that
 * language bindings can't implement, because of whom memory belongs to, are put together from their twins.
 */

static const char *
ferry_codec_default_get_wire_name (FerryCodec *self)
{
  FerryCodecInterface *iface = FERRY_CODEC_GET_IFACE (self);
  g_autofree char *name = iface->dup_wire_name != NULL ? iface->dup_wire_name (self) : NULL;

  /* Nobody could own it. There are as many wire names as codecs, so that few are kept. */
  return name != NULL ? g_intern_string (name) : "";
}

static guint
ferry_codec_default_get_wire_version (FerryCodec *self)
{
  return 1;
}

static gboolean
ferry_codec_default_accepts (FerryCodec *self, GType type)
{
  FerryCodecInterface *iface = FERRY_CODEC_GET_IFACE (self);

  return iface->accepts_type_name != NULL && iface->accepts_type_name (self, g_type_name (type));
}

static gboolean
ferry_codec_default_measure (FerryCodec *self, const GValue *value, gsize *size, gpointer *state, GError **error)
{
  FerryCodecInterface *iface = FERRY_CODEC_GET_IFACE (self);
  GError *local = NULL;
  GBytes *bytes;

  if (iface->encode_bytes == NULL)
    return set_unsupported (self, "measure", error);
  bytes = iface->encode_bytes (self, value, &local);
  if (bytes == NULL || local != NULL)
    {
      g_clear_pointer (&bytes, g_bytes_unref);
      return fail (self, "encode_bytes", local, error);
    }
  *size = g_bytes_get_size (bytes);
  *state = bytes;
  return TRUE;
}

static gboolean
ferry_codec_default_encode (FerryCodec *self, const GValue *value, guint8 *data, gsize size, gpointer state,
                            GError **error)
{
  FerryCodecInterface *iface = FERRY_CODEC_GET_IFACE (self);
  g_autoptr (GBytes) bytes = NULL;
  gpointer again = NULL;
  gsize found;

  if (iface->measure != ferry_codec_default_measure || iface->encode_bytes == NULL)
    return set_unsupported (self, "encode", error);
  if (state != NULL)
    bytes = g_bytes_ref (state);
  else if (ferry_codec_default_measure (self, value, &found, &again, error))
    bytes = again;
  else
    return FALSE;

  if (g_bytes_get_size (bytes) != size)
    {
      g_set_error (error, FERRY_ERROR, FERRY_ERROR_CODEC,
                   "codec '%s': the value takes %" G_GSIZE_FORMAT " bytes, there are %" G_GSIZE_FORMAT
                   "; don't change it while it is sent",
                   ferry_codec_get_wire_name (self), g_bytes_get_size (bytes), size);
      return FALSE;
    }
  ferry_copy_memory (data, g_bytes_get_data (bytes, NULL), size);
  return TRUE;
}

static void
ferry_codec_default_free_state (FerryCodec *self, gpointer state)
{
  if (state != NULL && FERRY_CODEC_GET_IFACE (self)->measure == ferry_codec_default_measure)
    g_bytes_unref (state);
}

/* Where ferry_codec_set_decoded() puts the value: a codec may use another, so there can be several in a thread. */
typedef struct _Decoding Decoding;

struct _Decoding
{
  FerryCodec *codec;
  GValue *value;
  Decoding *outer;
};

static __thread Decoding *innermost;

static gboolean
ferry_codec_default_decode (FerryCodec *self, FerryBuffer *buffer, guint version, GValue *value, GError **error)
{
  FerryCodecInterface *iface = FERRY_CODEC_GET_IFACE (self);
  Decoding decoding = { self, value, NULL };
  GError *local = NULL;
  gboolean ok;

  if (iface->decode_value == NULL)
    return set_unsupported (self, "decode", error);
  decoding.outer = innermost;
  innermost = &decoding;
  ok = iface->decode_value (self, buffer, version, &local);
  innermost = decoding.outer;
  if (ok && local == NULL && G_VALUE_TYPE (value) != G_TYPE_INVALID)
    return TRUE;
  if (G_VALUE_TYPE (value) != G_TYPE_INVALID)
    g_value_unset (value);
  return fail (self, "decode_value", local, error);
}

static gboolean
ferry_codec_default_measure_tensor (FerryCodec *self, FerryTensor *tensor, gsize *offset, GError **error)
{
  return set_unsupported (self, "measure_tensor", error);
}

static gboolean
ferry_codec_default_begin_tensor (FerryCodec *self, FerryTensor *tensor, guint8 *data, gsize offset, GError **error)
{
  return set_unsupported (self, "begin_tensor", error);
}

static void
ferry_codec_default_init (FerryCodecInterface *iface)
{
  iface->get_wire_name = ferry_codec_default_get_wire_name;
  iface->get_wire_version = ferry_codec_default_get_wire_version;
  iface->accepts = ferry_codec_default_accepts;
  iface->measure = ferry_codec_default_measure;
  iface->encode = ferry_codec_default_encode;
  iface->free_state = ferry_codec_default_free_state;
  iface->decode = ferry_codec_default_decode;
  iface->measure_tensor = ferry_codec_default_measure_tensor;
  iface->begin_tensor = ferry_codec_default_begin_tensor;
}

/**
 * FerryCodecInterface::get_wire_name: (skip)
 * @self: a codec
 *
 * In a language binding the string would belong to nobody: `dup_wire_name` is the twin.
 *
 * Since: 1.0
 */

/**
 * FerryCodecInterface::decode: (skip)
 * @self: a codec
 *
 * In a language binding it is not certain who unsets the value: `decode_value` is the twin.
 *
 * Since: 1.0
 */

/**
 * FerryCodecInterface::measure: (skip)
 * @self: a codec
 *
 * `encode_bytes` is the twin for language bindings.
 *
 * Since: 1.0
 */

/**
 * FerryCodecInterface::accepts: (skip)
 * @self: a codec
 * @type: the type of a value
 *
 * Not all language bindings can pass a type to what they implement: `accepts_type_name` is the twin.
 *
 * Since: 1.0
 */

/**
 * FerryCodecInterface::measure_tensor: (skip)
 * @self: a codec
 * @tensor: a tensor without memory
 *
 * For codecs in C.
 *
 * Since: 1.0
 */

/**
 * FerryCodecInterface::begin_tensor: (skip)
 * @self: a codec
 * @tensor: a tensor without memory
 *
 * For codecs in C.
 *
 * Since: 1.0
 */

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
  g_return_val_if_fail (FERRY_IS_CODEC (self), "");

  return FERRY_CODEC_GET_IFACE (self)->get_wire_name (self);
}

/**
 * ferry_codec_dup_wire_name:
 * @self: a codec
 *
 * [method@Codec.get_wire_name], as a copy.
 *
 * Returns: (transfer full): the wire name
 *
 * Since: 1.0
 */
char *
ferry_codec_dup_wire_name (FerryCodec *self)
{
  return g_strdup (ferry_codec_get_wire_name (self));
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
  g_return_val_if_fail (FERRY_IS_CODEC (self), 0);

  return FERRY_CODEC_GET_IFACE (self)->get_wire_version (self);
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
  g_return_val_if_fail (FERRY_IS_CODEC (self), FALSE);

  return FERRY_CODEC_GET_IFACE (self)->accepts (self, type);
}

/**
 * ferry_codec_accepts_type_name:
 * @self: a codec
 * @type_name: the name of the type of a value
 *
 * [method@Codec.accepts] by the name of the type.
 *
 * Returns: %TRUE if so; %FALSE also when there is no type of that name
 *
 * Since: 1.0
 */
gboolean
ferry_codec_accepts_type_name (FerryCodec *self, const char *type_name)
{
  GType type;

  g_return_val_if_fail (FERRY_IS_CODEC (self), FALSE);
  g_return_val_if_fail (type_name != NULL, FALSE);

  type = g_type_from_name (type_name);
  return type != G_TYPE_INVALID && ferry_codec_accepts (self, type);
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
  gpointer own_state = NULL;
  GError *local = NULL;

  g_return_val_if_fail (FERRY_IS_CODEC (self), FALSE);
  g_return_val_if_fail (G_IS_VALUE (value), FALSE);
  g_return_val_if_fail (size != NULL, FALSE);
  g_return_val_if_fail (error == NULL || *error == NULL, FALSE);

  *size = 0;
  if (state != NULL)
    *state = NULL;

  if (!FERRY_CODEC_GET_IFACE (self)->measure (self, value, size, &own_state, &local))
    return fail (self, "measure", local, error);
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
  GError *local = NULL;

  g_return_val_if_fail (FERRY_IS_CODEC (self), FALSE);
  g_return_val_if_fail (G_IS_VALUE (value), FALSE);
  g_return_val_if_fail (data != NULL || size == 0, FALSE);
  g_return_val_if_fail (error == NULL || *error == NULL, FALSE);

  return FERRY_CODEC_GET_IFACE (self)->encode (self, value, data, size, state, &local)
         || fail (self, "encode", local, error);
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
  g_return_if_fail (FERRY_IS_CODEC (self));

  if (state != NULL)
    FERRY_CODEC_GET_IFACE (self)->free_state (self, state);
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
  GError *local = NULL;
  guint known;

  g_return_val_if_fail (FERRY_IS_CODEC (self), FALSE);
  g_return_val_if_fail (buffer != NULL, FALSE);
  g_return_val_if_fail (value != NULL && G_VALUE_TYPE (value) == G_TYPE_INVALID, FALSE);
  g_return_val_if_fail (error == NULL || *error == NULL, FALSE);

  known = ferry_codec_get_wire_version (self);
  if (version > known)
    {
      g_set_error (error, FERRY_ERROR, FERRY_ERROR_CODEC,
                   "codec '%s': the message has version %u of the encoding, this codec knows versions up to %u; "
                   "update the receiver",
                   ferry_codec_get_wire_name (self), version, known);
      return FALSE;
    }

  if (!FERRY_CODEC_GET_IFACE (self)->decode (self, buffer, version, value, &local)
      || G_VALUE_TYPE (value) == G_TYPE_INVALID)
    {
      if (G_VALUE_TYPE (value) != G_TYPE_INVALID)
        g_value_unset (value);
      return fail (self, "decode", local, error);
    }
  return TRUE;
}

/**
 * ferry_codec_set_decoded:
 * @self: a codec
 * @value: what it has read
 *
 * For the vfunc `decode_value` of a codec in another language than C: the result, which is copied. Only valid in that function, in
 * the thread that called it.
 *
 * Returns: %FALSE when that is not so; nothing happens then
 *
 * Since: 1.0
 */
gboolean
ferry_codec_set_decoded (FerryCodec *self, const GValue *value)
{
  g_return_val_if_fail (FERRY_IS_CODEC (self), FALSE);
  g_return_val_if_fail (G_IS_VALUE (value), FALSE);

  if (innermost == NULL || innermost->codec != self)
    return FALSE;
  if (G_VALUE_TYPE (innermost->value) != G_TYPE_INVALID)
    g_value_unset (innermost->value);
  g_value_init (innermost->value, G_VALUE_TYPE (value));
  g_value_copy (value, innermost->value);
  return TRUE;
}
