/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ferry-gvariant-codec-private.h"

#include "ferry-copy.h"
#include "ferry-error.h"

#include <string.h>

/*
 * FerryGVariantCodec: GVariant, the plain data of GLib programs.
 *
 * A message is
 *
 *   byte 0      the byte order of the data: 'l' or 'B', as in D-Bus
 *   bytes 1-3   zero
 *   bytes 4-7   length of the type string, little endian
 *   bytes 8...  the type string, without a terminator
 *               zeros up to a multiple of 8
 *   ...         the serialised data
 *   last byte   zero
 *
 * No GVariant type asks for a larger alignment than 8, and messages start at
 * multiples of 64, so the value that is decoded refers to the message itself.
 *
 * Only the normal form is accepted: GVariant would read anything else as default
 * values, and broken data should not look like good data. The check takes time in
 * proportion to the size, except for arrays of numbers, where every content is
 * normal; see is_always_normal().
 *
 * The last byte is for GLib's check of tuples, which at padding looks one byte beyond the
 * data that it was given (gvs_tuple_is_normal() in gvariant-serialiser.c of 2.74 lets the
 * offset be equal to the size): with it that byte lies in the message, and not behind the
 * end of the mapping.
 */

#define WIRE_VERSION (1)

#define HEADER_SIZE (8)
#define DATA_ALIGNMENT (8)
#define TRAILER_SIZE (1)

/* In bytes. Larger ones are no work of man, and take GLib much memory to analyse. */
#define TYPE_STRING_MAX (65535)

/* GLib reads at most 128 levels of containers (G_VARIANT_MAX_RECURSION_DEPTH) of
 * serialised data, but lets programs build deeper values, that no receiver could read.
 * D-Bus stops at 64 (32 arrays and 32 structures). */
#define NESTING_MAX (64)

#define TYPE_STRING_ON_STACK (256)

#if G_BYTE_ORDER == G_LITTLE_ENDIAN
#define NATIVE_ORDER 'l'
#define OTHER_ORDER 'B'
#else
#define NATIVE_ORDER 'B'
#define OTHER_ORDER 'l'
#endif

struct _FerryGVariantCodec
{
  GObject parent_instance;

  gboolean copy;
};

typedef enum
{
  PROP_COPY = 1,
} FerryGVariantCodecProperty;

static GParamSpec *properties[PROP_COPY + 1];

static void ferry_gvariant_codec_codec_init (FerryCodecInterface *iface);

G_DEFINE_FINAL_TYPE_WITH_CODE (FerryGVariantCodec, ferry_gvariant_codec, G_TYPE_OBJECT,
                               G_IMPLEMENT_INTERFACE (FERRY_TYPE_CODEC, ferry_gvariant_codec_codec_init))

static const char *
ferry_gvariant_codec_get_wire_name (FerryCodec *codec)
{
  return "gvariant";
}

static guint
ferry_gvariant_codec_get_wire_version (FerryCodec *codec)
{
  return WIRE_VERSION;
}

static gboolean
ferry_gvariant_codec_accepts (FerryCodec *codec, GType type)
{
  return type == G_TYPE_VARIANT;
}

/* Levels of a type, a basic one being the first. Valid types have at most 128. */
static guint
type_levels (const GVariantType *type)
{
  guint deepest = 0;

  if (g_variant_type_is_array (type) || g_variant_type_is_maybe (type))
    return 1 + type_levels (g_variant_type_element (type));
  if (g_variant_type_is_tuple (type) || g_variant_type_is_dict_entry (type))
    for (const GVariantType *item = g_variant_type_first (type); item != NULL; item = g_variant_type_next (item))
      deepest = MAX (deepest, type_levels (item));
  return 1 + deepest;
}

/* Only below a `v` can values be deeper than their type says, so only there they are
 * walked through. */
static gboolean
nesting_fits (GVariant *variant, guint levels_above)
{
  gsize n_children;

  if (levels_above + type_levels (g_variant_get_type (variant)) > NESTING_MAX)
    return FALSE;
  if (strchr (g_variant_get_type_string (variant), 'v') == NULL)
    return TRUE;

  n_children = g_variant_n_children (variant);
  for (gsize i = 0; i < n_children; i++)
    {
      g_autoptr (GVariant) child = g_variant_get_child_value (variant, i);

      if (!nesting_fits (child, levels_above + 1))
        return FALSE;
    }
  return TRUE;
}

static gsize
data_offset (gsize type_length)
{
  return (HEADER_SIZE + type_length + DATA_ALIGNMENT - 1) & ~(gsize) (DATA_ALIGNMENT - 1);
}

static GVariant *
get_variant (const GValue *value, GError **error)
{
  GVariant *variant;

  if (!G_VALUE_HOLDS_VARIANT (value))
    {
      const char *hint = G_VALUE_HOLDS (value, G_TYPE_BYTES)
                             ? "use codec raw, or wrap it with g_variant_new_from_bytes()"
                         : G_VALUE_HOLDS_STRING (value) ? "wrap it with g_variant_new_string()"
                                                        : "it encodes GVariant";

      g_set_error (error, FERRY_ERROR, FERRY_ERROR_CODEC, "codec 'gvariant': can't encode a value of type %s; %s",
                   G_VALUE_TYPE_NAME (value), hint);
      return NULL;
    }
  variant = g_value_get_variant (value);
  if (variant == NULL)
    g_set_error (error, FERRY_ERROR, FERRY_ERROR_CODEC,
                 "codec 'gvariant': the GVariant is NULL; use a maybe type for nothing");
  return variant;
}

/* Arrays of numbers are in normal form whatever they contain, if only the size is right.
 * (Not of booleans: those are 0 or 1.) GLib would look at each element. */
static gboolean
is_always_normal (const char *type_string, gsize size)
{
  static const struct
  {
    char type;
    guint8 size;
  } numbers[] = {
    { 'y', 1 }, { 'n', 2 }, { 'q', 2 }, { 'i', 4 }, { 'u', 4 }, { 'h', 4 }, { 'x', 8 }, { 't', 8 }, { 'd', 8 },
  };

  if (type_string[0] != 'a' || type_string[1] == '\0' || type_string[2] != '\0')
    return FALSE;
  for (guint i = 0; i < G_N_ELEMENTS (numbers); i++)
    if (numbers[i].type == type_string[1])
      return size % numbers[i].size == 0;
  return FALSE;
}

/* Values that g_variant_new_fixed_array() made are not trusted by GLib. */
static gboolean
is_normal (GVariant *variant)
{
  return is_always_normal (g_variant_get_type_string (variant), g_variant_get_size (variant))
         || g_variant_is_normal_form (variant);
}

/* The state is the normal form of a value that was not in it. */
static gboolean
ferry_gvariant_codec_measure (FerryCodec *codec, const GValue *value, gsize *size, gpointer *state, GError **error)
{
  GVariant *variant = get_variant (value, error);
  g_autoptr (GVariant) normal = NULL;
  gsize type_length;
  gsize data_size;

  if (variant == NULL)
    return FALSE;

  type_length = strlen (g_variant_get_type_string (variant));
  if (type_length > TYPE_STRING_MAX)
    {
      g_set_error (error, FERRY_ERROR, FERRY_ERROR_CODEC,
                   "codec 'gvariant': the type string of the value has %" G_GSIZE_FORMAT
                   " bytes, at most %d are allowed; use an array instead of a large tuple",
                   type_length, TYPE_STRING_MAX);
      return FALSE;
    }
  if (!nesting_fits (variant, 0))
    {
      g_set_error (
          error, FERRY_ERROR, FERRY_ERROR_CODEC,
          "codec 'gvariant': the value has more than %d levels, and no receiver could read it; make it flatter",
          NESTING_MAX);
      return FALSE;
    }

  if (!is_normal (variant))
    variant = normal = g_variant_get_normal_form (variant);

  data_size = g_variant_get_size (variant);
  if (data_size > G_MAXSSIZE - data_offset (type_length) - TRAILER_SIZE)
    {
      g_set_error (error, FERRY_ERROR, FERRY_ERROR_TOO_BIG, "codec 'gvariant': the value is too big to be encoded");
      return FALSE;
    }
  *size = data_offset (type_length) + data_size + TRAILER_SIZE;
  *state = g_steal_pointer (&normal);
  return TRUE;
}

static gboolean
ferry_gvariant_codec_encode (FerryCodec *codec, const GValue *value, guint8 *data, gsize size, gpointer state,
                             GError **error)
{
  GVariant *variant = state != NULL ? state : get_variant (value, error);
  g_autoptr (GVariant) normal = NULL;
  const char *type_string;
  gsize type_length;
  gsize offset;
  gsize data_size;
  guint32 wire_length;

  if (variant == NULL)
    return FALSE;
  if (!is_normal (variant))
    variant = normal = g_variant_get_normal_form (variant);

  type_string = g_variant_get_type_string (variant);
  type_length = strlen (type_string);
  offset = data_offset (type_length);
  data_size = g_variant_get_size (variant);
  if (type_length > TYPE_STRING_MAX || size < offset + TRAILER_SIZE || size - offset - TRAILER_SIZE != data_size)
    {
      g_set_error (error, FERRY_ERROR, FERRY_ERROR_CODEC,
                   "codec 'gvariant': the value takes %" G_GSIZE_FORMAT " bytes, but %" G_GSIZE_FORMAT
                   " are to be written; don't change it while it is sent",
                   offset + data_size + TRAILER_SIZE, size);
      return FALSE;
    }

  memset (data, 0, HEADER_SIZE);
  data[0] = NATIVE_ORDER;
  wire_length = GUINT32_TO_LE ((guint32) type_length);
  memcpy (data + 4, &wire_length, sizeof wire_length);
  memcpy (data + HEADER_SIZE, type_string, type_length);
  memset (data + HEADER_SIZE + type_length, 0, offset - HEADER_SIZE - type_length);

  /* g_variant_store() wants the alignment of the type; whoever encodes into the middle
   * of a message of their own pays with a copy. */
  if (G_LIKELY (GPOINTER_TO_SIZE (data + offset) % DATA_ALIGNMENT == 0))
    {
      g_variant_store (variant, data + offset);
    }
  else if (data_size > 0)
    {
      ferry_copy_memory (data + offset, g_variant_get_data (variant), data_size);
    }
  data[size - TRAILER_SIZE] = 0;
  return TRUE;
}

static void
ferry_gvariant_codec_free_state (FerryCodec *codec, gpointer state)
{
  g_variant_unref (state);
}

static gboolean
ferry_gvariant_codec_decode (FerryCodec *codec, FerryBuffer *buffer, guint version, GValue *value, GError **error)
{
  FerryGVariantCodec *self = FERRY_GVARIANT_CODEC (codec);
  char on_stack[TYPE_STRING_ON_STACK];
  g_autofree char *on_heap = NULL;
  char *type_string = on_stack;
  const char *end;
  const guint8 *data;
  guint8 header[HEADER_SIZE];
  gsize size;
  gsize offset;
  gsize data_size;
  guint32 type_length;
  gboolean trusted;
  g_autoptr (GBytes) bytes = NULL;
  g_autoptr (GVariant) variant = NULL;

  data = ferry_buffer_get_data (buffer, &size);
  if (size < HEADER_SIZE)
    {
      g_set_error (error, FERRY_ERROR, FERRY_ERROR_CODEC,
                   "codec 'gvariant': the message has %" G_GSIZE_FORMAT " bytes, less than the %d of the header", size,
                   HEADER_SIZE);
      return FALSE;
    }

  /* The sender may still be able to write here: what is checked is a copy. */
  memcpy (header, data, HEADER_SIZE);
  if ((header[0] != NATIVE_ORDER && header[0] != OTHER_ORDER) || header[1] != 0 || header[2] != 0 || header[3] != 0)
    {
      g_set_error (error, FERRY_ERROR, FERRY_ERROR_CODEC,
                   "codec 'gvariant': the message starts with the bytes %02x %02x %02x %02x instead of a byte order "
                   "('l' or 'B') and zeros; did another codec make it?",
                   header[0], header[1], header[2], header[3]);
      return FALSE;
    }

  memcpy (&type_length, header + 4, sizeof type_length);
  type_length = GUINT32_FROM_LE (type_length);
  if (type_length > TYPE_STRING_MAX || data_offset (type_length) + TRAILER_SIZE > size)
    {
      g_set_error (error, FERRY_ERROR, FERRY_ERROR_CODEC,
                   "codec 'gvariant': a type string of %u bytes does not fit into a message of %" G_GSIZE_FORMAT
                   " bytes (the longest allowed is %d)",
                   type_length, size, TYPE_STRING_MAX);
      return FALSE;
    }

  if (type_length >= sizeof on_stack)
    type_string = on_heap = g_malloc ((gsize) type_length + 1);
  memcpy (type_string, data + HEADER_SIZE, type_length);
  type_string[type_length] = '\0';
  if (!g_variant_type_string_scan (type_string, type_string + type_length, &end) || *end != '\0'
      || (gsize) (end - type_string) != type_length || !g_variant_type_is_definite ((const GVariantType *) type_string))
    {
      g_autofree char *escaped = NULL;

      type_string[MIN (type_length, 40)] = '\0';
      escaped = g_strescape (type_string, NULL);
      g_set_error (error, FERRY_ERROR, FERRY_ERROR_CODEC,
                   "codec 'gvariant': \"%s\"%s is not the type string of a value", escaped,
                   type_length > 40 ? "..." : "");
      return FALSE;
    }

  offset = data_offset (type_length);
  data_size = size - offset - TRAILER_SIZE;
  if (data[offset + data_size] != 0)
    {
      g_set_error (error, FERRY_ERROR, FERRY_ERROR_CODEC,
                   "codec 'gvariant': the message of %" G_GSIZE_FORMAT " bytes does not end with a zero; was it cut?",
                   size);
      return FALSE;
    }

  /* GLib copies what is not aligned, but without a byte behind it. */
  if (g_atomic_int_get (&self->copy) || GPOINTER_TO_SIZE (data + offset) % DATA_ALIGNMENT != 0)
    {
      g_autoptr (GBytes) with_trailer = g_bytes_new (data + offset, data_size + TRAILER_SIZE);

      bytes = g_bytes_new_from_bytes (with_trailer, 0, data_size);
    }
  else
    {
      bytes = g_bytes_new_with_free_func (data + offset, data_size, (GDestroyNotify) ferry_buffer_unref,
                                          ferry_buffer_ref (buffer));
    }

  trusted = is_always_normal (type_string, data_size);
  variant = g_variant_ref_sink (g_variant_new_from_bytes ((const GVariantType *) type_string, bytes, trusted));
  if (g_variant_get_size (variant) != data_size || !g_variant_is_normal_form (variant))
    {
      g_set_error (error, FERRY_ERROR, FERRY_ERROR_CODEC,
                   "codec 'gvariant': %" G_GSIZE_FORMAT " bytes of data are not a well-formed value of type '%.40s'%s",
                   data_size, type_string, type_length > 40 ? "..." : "");
      return FALSE;
    }

  if (header[0] == OTHER_ORDER)
    {
      GVariant *swapped = g_variant_byteswap (variant);

      g_variant_unref (variant);
      variant = g_variant_take_ref (swapped);
    }

  g_value_init (value, G_TYPE_VARIANT);
  g_value_take_variant (value, g_steal_pointer (&variant));
  return TRUE;
}

static void
ferry_gvariant_codec_get_property (GObject *object, guint prop_id, GValue *value, GParamSpec *pspec)
{
  FerryGVariantCodec *self = FERRY_GVARIANT_CODEC (object);

  switch ((FerryGVariantCodecProperty) prop_id)
    {
    case PROP_COPY:
      g_value_set_boolean (value, g_atomic_int_get (&self->copy));
      break;

    default:
      G_OBJECT_WARN_INVALID_PROPERTY_ID (object, prop_id, pspec);
    }
}

static void
ferry_gvariant_codec_set_property (GObject *object, guint prop_id, const GValue *value, GParamSpec *pspec)
{
  FerryGVariantCodec *self = FERRY_GVARIANT_CODEC (object);

  switch ((FerryGVariantCodecProperty) prop_id)
    {
    case PROP_COPY:
      if (g_atomic_int_exchange (&self->copy, g_value_get_boolean (value)) != g_value_get_boolean (value))
        g_object_notify_by_pspec (object, properties[PROP_COPY]);
      break;

    default:
      G_OBJECT_WARN_INVALID_PROPERTY_ID (object, prop_id, pspec);
    }
}

static void
ferry_gvariant_codec_codec_init (FerryCodecInterface *iface)
{
  iface->get_wire_name = ferry_gvariant_codec_get_wire_name;
  iface->get_wire_version = ferry_gvariant_codec_get_wire_version;
  iface->accepts = ferry_gvariant_codec_accepts;
  iface->measure = ferry_gvariant_codec_measure;
  iface->encode = ferry_gvariant_codec_encode;
  iface->free_state = ferry_gvariant_codec_free_state;
  iface->decode = ferry_gvariant_codec_decode;
}

static void
ferry_gvariant_codec_class_init (FerryGVariantCodecClass *klass)
{
  GObjectClass *object_class = G_OBJECT_CLASS (klass);

  object_class->get_property = ferry_gvariant_codec_get_property;
  object_class->set_property = ferry_gvariant_codec_set_property;

  /*
   * FerryGVariantCodec:copy: whether decoded values are copies. Without, they are views on the
   * message, which is right only when every sender is trusted not to write into what it has sent:
   * GLib checks a variant once and then believes the lengths in it.
   */
  properties[PROP_COPY] = g_param_spec_boolean ("copy", NULL, NULL, TRUE,
                                                G_PARAM_READWRITE | G_PARAM_STATIC_STRINGS | G_PARAM_EXPLICIT_NOTIFY);
  g_object_class_install_properties (object_class, G_N_ELEMENTS (properties), properties);
}

static void
ferry_gvariant_codec_init (FerryGVariantCodec *self)
{
  self->copy = TRUE;
}
