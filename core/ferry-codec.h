/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#if !defined(FERRY_INSIDE) && !defined(FERRY_COMPILATION)
#error "Only <ferry.h> can be included directly."
#endif

#include "ferry-buffer.h"
#include "ferry-types.h"

G_BEGIN_DECLS

/**
 * FERRY_WIRE_NAME_MAX:
 *
 * The longest wire name of a codec, in bytes: 12.
 *
 * Since: 1.0
 */
#define FERRY_WIRE_NAME_MAX (12)

#define FERRY_TYPE_CODEC (ferry_codec_get_type ())

FERRY_AVAILABLE_IN_1_0
G_DECLARE_INTERFACE (FerryCodec, ferry_codec, FERRY, CODEC, GObject)

/**
 * FerryCodecInterface:
 * @get_wire_name: the name that messages of this codec carry, 1 to
 *   %FERRY_WIRE_NAME_MAX bytes of `a-z`, `0-9` and `-`
 * @get_wire_version: the version that messages carry; a decoder refuses newer ones
 * @accepts: whether a value of that type may be encoded
 * @measure: how many bytes the encoded value takes; @state may carry work over to
 *   @encode
 * @encode: writes exactly that many bytes
 * @free_state: frees what @measure put into @state
 * @decode: reads a value out of a message; @value is unset on entry. What it makes
 *   may refer to the buffer, and then holds a reference on it
 * @dup_wire_name: twin of @get_wire_name for language bindings, asked when that is
 *   missing
 * @accepts_type_name: twin of @accepts for language bindings, asked when that is missing
 * @encode_bytes: twin of @measure and @encode for language bindings, called when
 *   @measure is missing: encodes into private memory, which is then copied
 * @decode_value: twin of @decode for language bindings, called when that is missing: hands
 *   what it has read to [method@Codec.set_decoded]
 * @measure_tensor: how many bytes the message of a tensor has before its elements, which follow in
 *   C order and are its end; optional, and only with @begin_tensor. The tensor has no memory yet:
 *   nothing but its format and its shape may be looked at
 * @begin_tensor: writes exactly that many bytes
 *
 * How values become bytes.
 *
 * A class in C implements @get_wire_name, @accepts, @measure, @encode and @decode; one in
 * another language the twins.
 *
 * Decoders get bytes from elsewhere: any input gives a value or
 * %FERRY_ERROR_CODEC, never a crash. All functions may be called by several threads
 * at once.
 *
 * Since: 1.0
 */
struct _FerryCodecInterface
{
  GTypeInterface g_iface;

  const char *(*get_wire_name) (FerryCodec *self);
  guint (*get_wire_version) (FerryCodec *self);
  gboolean (*accepts) (FerryCodec *self, GType type);
  gboolean (*measure) (FerryCodec *self, const GValue *value, gsize *size, gpointer *state, GError **error);
  gboolean (*encode) (FerryCodec *self, const GValue *value, guint8 *data, gsize size, gpointer state, GError **error);
  void (*free_state) (FerryCodec *self, gpointer state);
  gboolean (*decode) (FerryCodec *self, FerryBuffer *buffer, guint version, GValue *value, GError **error);
  char *(*dup_wire_name) (FerryCodec *self);
  gboolean (*accepts_type_name) (FerryCodec *self, const char *type_name);
  GBytes *(*encode_bytes) (FerryCodec *self, const GValue *value, GError **error);
  gboolean (*decode_value) (FerryCodec *self, FerryBuffer *buffer, guint version, GError **error);
  gboolean (*measure_tensor) (FerryCodec *self, FerryTensor *tensor, gsize *offset, GError **error);
  gboolean (*begin_tensor) (FerryCodec *self, FerryTensor *tensor, guint8 *data, gsize offset, GError **error);

  /*< private >*/
  gpointer _reserved[2];
};

FERRY_AVAILABLE_IN_1_0
const char *ferry_codec_get_wire_name (FerryCodec *self);

FERRY_AVAILABLE_IN_1_0
char *ferry_codec_dup_wire_name (FerryCodec *self);

FERRY_AVAILABLE_IN_1_0
guint ferry_codec_get_wire_version (FerryCodec *self);

FERRY_AVAILABLE_IN_1_0
gboolean ferry_codec_accepts (FerryCodec *self, GType type);

FERRY_AVAILABLE_IN_1_0
gboolean ferry_codec_accepts_type_name (FerryCodec *self, const char *type_name);

FERRY_AVAILABLE_IN_1_0
gboolean ferry_codec_measure (FerryCodec *self, const GValue *value, gsize *size, gpointer *state, GError **error);

FERRY_AVAILABLE_IN_1_0
gboolean ferry_codec_encode (FerryCodec *self, const GValue *value, guint8 *data, gsize size, gpointer state,
                             GError **error);

FERRY_AVAILABLE_IN_1_0
void ferry_codec_free_state (FerryCodec *self, gpointer state);

FERRY_AVAILABLE_IN_1_0
GBytes *ferry_codec_encode_bytes (FerryCodec *self, const GValue *value, GError **error);

FERRY_AVAILABLE_IN_1_0
gboolean ferry_codec_decode (FerryCodec *self, FerryBuffer *buffer, guint version, GValue *value, GError **error);

FERRY_AVAILABLE_IN_1_0
gboolean ferry_codec_set_decoded (FerryCodec *self, const GValue *value);

G_END_DECLS
