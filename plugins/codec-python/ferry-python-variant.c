/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ferry-python-variant.h"

#include "ferry-numpy-header.h"

/* GLib reads 128 levels of serialised data (G_VARIANT_MAX_RECURSION_DEPTH). A list has two: the array, and the `v` of
 * what is in it; a dict in a list one more. */
#define LEVELS_MAX (128)
#define LEVELS_OF_CONTAINER (2)
#define LEVELS_OF_PAIRS (3)

/* Values that are mentioned again count again: a few bytes could else stand for more than fits into any memory. Besides
 * the bytes of the message, each of which can make one. */
#define REPEATED_MAX (1 << 20)

/* What tuples with many items make of type strings. */
#define TUPLE_MAX (1024)
#define TYPE_STRING_MAX (16384)

/*
 * Encoding
 */

static gboolean
variant_part_write (const FerryPythonPart *part, guint8 *to, GError **error)
{
  memcpy (to, part->data, part->data_size);
  return TRUE;
}

static void
variant_part_clear (FerryPythonPart *part)
{
  g_clear_pointer ((GVariant **) &part->owner, g_variant_unref);
}

static const FerryPythonPartClass variant_part = { variant_part_write, variant_part_clear };

/* Data that was made for the message. */
static void
owned_part_clear (FerryPythonPart *part)
{
  g_clear_pointer (&part->owner, g_free);
}

static const FerryPythonPartClass owned_part = { variant_part_write, owned_part_clear };

static gboolean
goes_by_columns (FerryTensor *tensor)
{
  return !ferry_tensor_is_c_contiguous (tensor) && ferry_tensor_is_f_contiguous (tensor);
}

gboolean
ferry_python_tensor_write_data (FerryTensor *tensor, guint8 *to, gsize size, GError **error)
{
  if (goes_by_columns (tensor) && ferry_tensor_get_size_bytes (tensor) == size)
    {
      ferry_copy_memory (to, ferry_tensor_get_data (tensor), size);
      return TRUE;
    }
  if (ferry_tensor_store (tensor, to, size))
    return TRUE;
  g_set_error (error, FERRY_ERROR, FERRY_ERROR_CODEC, "codec 'python': the tensor does not fit where it was measured");
  return FALSE;
}

static gboolean
tensor_part_write (const FerryPythonPart *part, guint8 *to, GError **error)
{
  return ferry_python_tensor_write_data (part->owner, to, part->data_size, error);
}

static void
tensor_part_clear (FerryPythonPart *part)
{
  g_clear_pointer ((FerryTensor **) &part->owner, ferry_tensor_unref);
}

static const FerryPythonPartClass tensor_part = { tensor_part_write, tensor_part_clear };

/* As Python keeps it: with the smallest size that all characters have room in. */
static void
encode_text (FerryPythonOutput *output, const char *text, gsize size)
{
  gsize length = (gsize) g_utf8_strlen (text, (gssize) size);
  gunichar max = 0;
  g_autofree guint8 *characters = NULL;
  gconstpointer data = text;
  gsize item_size;
  guint8 tag;

  if (length == size)
    {
      tag = FERRY_PYTHON_TAG_STR;
      item_size = 1;
    }
  else
    {
      const char *p = text;

      for (gsize i = 0; i < length; i++, p = g_utf8_next_char (p))
        max = MAX (max, g_utf8_get_char (p));
      tag = max > 0xffff ? FERRY_PYTHON_TAG_STR4 : max > 0xff ? FERRY_PYTHON_TAG_STR2 : FERRY_PYTHON_TAG_STR1;
      item_size = max > 0xffff ? 4 : max > 0xff ? 2 : 1;
      data = characters = g_malloc (length * item_size);
      p = text;
      for (gsize i = 0; i < length; i++, p = g_utf8_next_char (p))
        {
          gunichar character = g_utf8_get_char (p);

          if (item_size == 1)
            characters[i] = (guint8) character;
          else if (item_size == 2)
            ((guint16 *) characters)[i] = (guint16) character;
          else
            ((guint32 *) characters)[i] = character;
        }
    }

  if (length * item_size < FERRY_PYTHON_PART_MIN)
    {
      ferry_python_output_tag_bytes (output, tag, length, data, length * item_size);
    }
  else
    {
      FerryPythonPart *part;

      ferry_python_output_tag_number (output, (guint8) (tag - FERRY_PYTHON_TAG_STR + FERRY_PYTHON_TAG_STR_PART),
                                      length);
      if (characters == NULL)
        data = characters = g_memdup2 (text, size);
      part = ferry_python_output_add_part (output, &owned_part, data, length * item_size, length * item_size);
      part->owner = g_steal_pointer (&characters);
    }
}

static void
encode_float (FerryPythonOutput *output, double number)
{
  ferry_python_output_tag (output, FERRY_PYTHON_TAG_FLOAT);
  ferry_python_output_bytes (output, &number, sizeof number);
}

static void
encode_unsigned (FerryPythonOutput *output, guint64 number)
{
  guint8 bytes[sizeof number + 1] = { 0 };

  if (number <= G_MAXINT64)
    {
      ferry_python_output_int (output, (gint64) number);
      return;
    }
  for (gsize i = 0; i < sizeof number; i++)
    bytes[i] = (guint8) (number >> (8 * i));
  ferry_python_output_tag_bytes (output, FERRY_PYTHON_TAG_INT_BIG, sizeof bytes, bytes, sizeof bytes);
}

static void
encode_data (FerryPythonOutput *output, GVariant *variant)
{
  gsize size;
  gconstpointer data = g_variant_get_fixed_array (variant, &size, 1);
  FerryPythonPart *part;

  if (size < FERRY_PYTHON_PART_MIN)
    {
      ferry_python_output_tag_bytes (output, FERRY_PYTHON_TAG_BYTES, size, data, size);
      return;
    }
  if (output->at == output->start)
    output->gap = 1;
  ferry_python_output_tag_number (output, FERRY_PYTHON_TAG_BYTES_PART, size);
  part = ferry_python_output_add_part (output, &variant_part, data, size, size + 1);
  part->owner = g_variant_ref (variant);
}

/* GLib lets programs build what is deeper than it can read, but not deeper than this program's stack. */
static gboolean
encode_variant (FerryPythonOutput *output, GVariant *variant, guint levels, gboolean in_dictionary, GError **error)
{
  GVariantClass class = g_variant_classify (variant);
  gboolean is_dictionary = FALSE;
  gsize n;

  if (levels > LEVELS_MAX)
    {
      g_set_error (error, FERRY_ERROR, FERRY_ERROR_CODEC,
                   "codec 'python': the value has more than %d levels; make it flatter", LEVELS_MAX);
      return FALSE;
    }

  switch (class)
    {
    case G_VARIANT_CLASS_BOOLEAN:
      ferry_python_output_tag (output,
                               g_variant_get_boolean (variant) ? FERRY_PYTHON_TAG_TRUE : FERRY_PYTHON_TAG_FALSE);
      return TRUE;

    case G_VARIANT_CLASS_BYTE:
      ferry_python_output_int (output, g_variant_get_byte (variant));
      return TRUE;

    case G_VARIANT_CLASS_INT16:
      ferry_python_output_int (output, g_variant_get_int16 (variant));
      return TRUE;

    case G_VARIANT_CLASS_UINT16:
      ferry_python_output_int (output, g_variant_get_uint16 (variant));
      return TRUE;

    case G_VARIANT_CLASS_INT32:
      ferry_python_output_int (output, g_variant_get_int32 (variant));
      return TRUE;

    case G_VARIANT_CLASS_UINT32:
      ferry_python_output_int (output, g_variant_get_uint32 (variant));
      return TRUE;

    case G_VARIANT_CLASS_HANDLE:
      ferry_python_output_int (output, g_variant_get_handle (variant));
      return TRUE;

    case G_VARIANT_CLASS_INT64:
      ferry_python_output_int (output, g_variant_get_int64 (variant));
      return TRUE;

    case G_VARIANT_CLASS_UINT64:
      encode_unsigned (output, g_variant_get_uint64 (variant));
      return TRUE;

    case G_VARIANT_CLASS_DOUBLE:
      encode_float (output, g_variant_get_double (variant));
      return TRUE;

    case G_VARIANT_CLASS_STRING:
    case G_VARIANT_CLASS_OBJECT_PATH:
    case G_VARIANT_CLASS_SIGNATURE:
      {
        gsize size;
        const char *text = g_variant_get_string (variant, &size);

        encode_text (output, text, size);
        return TRUE;
      }

    case G_VARIANT_CLASS_VARIANT:
    case G_VARIANT_CLASS_MAYBE:
      {
        g_autoptr (GVariant) child = NULL;

        if (g_variant_n_children (variant) > 0)
          child = g_variant_get_child_value (variant, 0);
        if (child != NULL)
          return encode_variant (output, child, levels + 1, FALSE, error);
        ferry_python_output_tag (output, FERRY_PYTHON_TAG_NONE);
        return TRUE;
      }

    case G_VARIANT_CLASS_ARRAY:
      if (g_variant_is_of_type (variant, G_VARIANT_TYPE_BYTESTRING))
        {
          encode_data (output, variant);
          return TRUE;
        }
      n = g_variant_n_children (variant);
      is_dictionary = g_variant_is_of_type (variant, G_VARIANT_TYPE_DICTIONARY);
      ferry_python_output_tag_number (output, is_dictionary ? FERRY_PYTHON_TAG_DICT : FERRY_PYTHON_TAG_LIST, n);
      break;

    case G_VARIANT_CLASS_TUPLE:
      n = g_variant_n_children (variant);
      ferry_python_output_tag_number (output, FERRY_PYTHON_TAG_TUPLE, n);
      break;

    case G_VARIANT_CLASS_DICT_ENTRY:
    default:
      /* Within a dictionary that is two values; elsewhere it is like a tuple. */
      n = 2;
      if (!in_dictionary)
        ferry_python_output_tag_number (output, FERRY_PYTHON_TAG_TUPLE, n);
      break;
    }

  for (gsize i = 0; i < n; i++)
    {
      g_autoptr (GVariant) child = g_variant_get_child_value (variant, i);

      if (!encode_variant (output, child, levels + 1, is_dictionary, error))
        return FALSE;
    }
  return TRUE;
}

gboolean
ferry_python_tensor_write_header (FerryPythonOutput *output, FerryTensor *tensor, gsize *size, GError **error)
{
  FerryNumpyHeader header = { 0 };
  const char *format = ferry_tensor_get_format (tensor);
  const gint64 *shape = ferry_tensor_get_shape (tensor, &header.n_dimensions);
  guint8 *to;

  header.flags = goes_by_columns (tensor) ? FERRY_NUMPY_FORTRAN : 0;
  header.item_size = ferry_tensor_get_item_size (tensor);
  header.format_length = strlen (format);
  if (header.format_length > FERRY_NUMPY_FORMAT_MAX)
    {
      g_set_error (error, FERRY_ERROR, FERRY_ERROR_CODEC,
                   "codec 'python': the format of the tensor has %" G_GSIZE_FORMAT " bytes, at most %d are allowed",
                   header.format_length, FERRY_NUMPY_FORMAT_MAX);
      return FALSE;
    }
  if (header.n_dimensions > 0)
    memcpy (header.shape, shape, header.n_dimensions * sizeof *shape);

  ferry_python_output_tag_number (output, FERRY_PYTHON_TAG_NDARRAY, ferry_numpy_header_size (&header));
  to = ferry_python_output_reserve (output, ferry_numpy_header_size (&header));
  memcpy (ferry_numpy_header_write (&header, to), format, header.format_length);
  output->at += ferry_numpy_header_size (&header);
  *size = ferry_tensor_get_size_bytes (tensor);
  ferry_python_output_number (output, *size);
  return TRUE;
}

static gboolean
encode_tensor (FerryPythonOutput *output, FerryTensor *tensor, GError **error)
{
  FerryPythonPart *part;
  gsize size;

  if (!ferry_python_tensor_write_header (output, tensor, &size, error))
    return FALSE;
  part = ferry_python_output_add_part (output, &tensor_part, NULL, size, size);
  part->owner = ferry_tensor_ref (tensor);
  return TRUE;
}

gboolean
ferry_python_variant_encode (const GValue *value, FerryPythonOutput *output, GError **error)
{
  if (G_VALUE_HOLDS_VARIANT (value))
    {
      GVariant *variant = g_value_get_variant (value);

      if (variant != NULL)
        return encode_variant (output, variant, 0, FALSE, error);
    }
  else if (G_VALUE_HOLDS (value, FERRY_TYPE_TENSOR))
    {
      FerryTensor *tensor = g_value_get_boxed (value);

      if (tensor != NULL)
        return encode_tensor (output, tensor, error);
    }
  g_set_error (error, FERRY_ERROR, FERRY_ERROR_CODEC, "codec 'python': the %s is NULL", G_VALUE_TYPE_NAME (value));
  return FALSE;
}

/*
 * Decoding
 */

typedef struct
{
  gsize offset;
  GVariant *variant; /* NULL: not complete yet */
  gsize n_values;    /* with all that is in it */
} Shared;

typedef struct
{
  FerryPythonInput input;
  FerryBuffer *buffer;
  GArray *shared; /* NULL: none yet */
  gsize n_values; /* so far, those counted again that were referred to */
  gsize n_values_max;
  GError **error;
} Decoder;

/* A reference that is not floating. The functions for each tag may return either kind. */
static GVariant *decode (Decoder *self, guint levels);

static GVariant *G_GNUC_PRINTF (2, 3) malformed (Decoder *self, const char *format, ...)
{
  g_autofree char *text = NULL;
  va_list args;

  va_start (args, format);
  text = g_strdup_vprintf (format, args);
  va_end (args);
  g_set_error (self->error, FERRY_ERROR, FERRY_ERROR_CODEC,
               "codec 'python': at byte %" G_GSIZE_FORMAT " of the message: %s; was it cut or changed?",
               (gsize) (self->input.at - self->input.message), text);
  return NULL;
}

static GVariant *
cut (Decoder *self)
{
  return malformed (self, "the stream ends within a value");
}

static GVariant *
needs_python (Decoder *self, const char *what)
{
  g_set_error (self->error, FERRY_ERROR, FERRY_ERROR_CODEC,
               "codec 'python': the message contains a %s, which only a Python program can read; let its sender send "
               "plain values",
               what);
  return NULL;
}

/* What GVariant has no type for: its name and a value that tells it, as `(sv)`. */
static GVariant *
named (const char *name, GVariant *variant)
{
  return g_variant_new ("(sv)", name, variant);
}

static const guint8 *
take_data (Decoder *self, gboolean in_part, gsize item_size, gsize terminator, gsize *count)
{
  const guint8 *data;
  guint64 number;

  if (!ferry_python_input_number (&self->input, &number)
      || number > (in_part ? self->input.message_size : ferry_python_input_left (&self->input)) / item_size)
    {
      cut (self);
      return NULL;
    }
  *count = (gsize) number;
  if (!in_part)
    {
      data = self->input.at;
      self->input.at += number * item_size;
    }
  else if (!ferry_python_input_take_part (&self->input, number * item_size + terminator, &data))
    {
      malformed (self, "a part of %" G_GUINT64_FORMAT " bytes is beyond the end", number * item_size);
      return NULL;
    }
  return data;
}

static GVariant *
decode_text (Decoder *self, guint tag, gboolean in_part)
{
  static const struct
  {
    gunichar min;
    gunichar max;
    guint8 size;
  } kinds[] = { { 0, 0x7f, 1 }, { 0x80, 0xff, 1 }, { 0x100, 0xffff, 2 }, { 0x10000, 0x10ffff, 4 } };
  guint kind = tag - FERRY_PYTHON_TAG_STR;
  gsize length;
  const guint8 *data = take_data (self, in_part, kinds[kind].size, 0, &length);
  gunichar max = 0;
  gboolean is_text = TRUE;
  GString *text;
  GVariant *variant;

  if (data == NULL)
    return NULL;
  text = g_string_sized_new (length);
  for (gsize i = 0; i < length; i++)
    {
      gunichar character;

      if (kinds[kind].size == 1)
        {
          character = ((const volatile guint8 *) data)[i];
        }
      else if (kinds[kind].size == 2)
        {
          guint16 two;

          memcpy (&two, data + i * sizeof two, sizeof two);
          character = two;
        }
      else
        {
          memcpy (&character, data + i * sizeof character, sizeof character);
        }
      if (character > kinds[kind].max)
        {
          g_string_free (text, TRUE);
          return malformed (self, "a str has characters that are not of its kind");
        }
      max = MAX (max, character);

      /* Python has strings with halves of surrogate pairs, and with zeros. */
      if (character == 0 || (character >= 0xd800 && character <= 0xdfff))
        is_text = FALSE;
      g_string_append_unichar (text, character);
    }
  if (length > 0 && max < kinds[kind].min)
    {
      g_string_free (text, TRUE);
      return malformed (self, "a str has characters that are not of its kind");
    }
  if (is_text)
    return g_variant_new_take_string (g_string_free (text, FALSE));
  variant = g_variant_new_from_data (G_VARIANT_TYPE_BYTESTRING, text->str, text->len, TRUE, g_free, text->str);
  g_string_free (text, FALSE);
  return named ("str", variant);
}

/* In a part it is not copied. */
static GVariant *
decode_data (Decoder *self, gboolean in_part, gsize terminator)
{
  gsize size;
  const guint8 *data = take_data (self, in_part, 1, terminator, &size);

  if (data == NULL)
    return NULL;
  if (!in_part)
    return g_variant_new_fixed_array (G_VARIANT_TYPE_BYTE, data, size, 1);
  return g_variant_new_from_data (G_VARIANT_TYPE_BYTESTRING, data, size, TRUE, (GDestroyNotify) ferry_buffer_unref,
                                  ferry_buffer_ref (self->buffer));
}

static GVariant *
decode_big_int (Decoder *self)
{
  gsize size;
  const guint8 *data = take_data (self, FALSE, 1, 0, &size);
  guint8 bytes[sizeof (guint64) + 1];

  if (data == NULL)
    return NULL;
  if (size == sizeof bytes)
    {
      guint64 number = 0;

      memcpy (bytes, data, sizeof bytes);
      for (gsize i = 0; i < sizeof number; i++)
        number |= (guint64) bytes[i] << (8 * i);
      if (bytes[sizeof number] == 0)
        return g_variant_new_uint64 (number);
    }
  return named ("int", g_variant_new_fixed_array (G_VARIANT_TYPE_BYTE, data, size, 1));
}

/* Whether a tuple of these stays small enough as a type. */
static gboolean
fits_tuple (GVariant **items, gsize n)
{
  gsize length = 2;

  if (n > TUPLE_MAX)
    return FALSE;
  for (gsize i = 0; i < n; i++)
    length += strlen (g_variant_get_type_string (items[i]));
  return length <= TYPE_STRING_MAX;
}

static GVariant *
decode_tuple (Decoder *self, guint levels)
{
  g_autoptr (GPtrArray) items = g_ptr_array_new_with_free_func ((GDestroyNotify) g_variant_unref);
  gsize n;
  GVariantBuilder builder;

  if (!ferry_python_input_count (&self->input, 1, &n))
    return cut (self);
  for (gsize i = 0; i < n; i++)
    {
      GVariant *item = decode (self, levels + LEVELS_OF_CONTAINER);

      if (item == NULL)
        return NULL;
      g_ptr_array_add (items, item);
    }
  if (fits_tuple ((GVariant **) items->pdata, n))
    return g_variant_new_tuple ((GVariant **) items->pdata, n);

  /* As if it were a list. */
  g_variant_builder_init (&builder, G_VARIANT_TYPE ("av"));
  for (gsize i = 0; i < n; i++)
    g_variant_builder_add (&builder, "v", items->pdata[i]);
  return g_variant_builder_end (&builder);
}

static GVariant *
decode_list (Decoder *self, guint levels)
{
  g_auto (GVariantBuilder) builder = G_VARIANT_BUILDER_INIT (G_VARIANT_TYPE ("av"));
  gsize n;

  if (!ferry_python_input_count (&self->input, 1, &n))
    return cut (self);
  for (gsize i = 0; i < n; i++)
    {
      g_autoptr (GVariant) item = decode (self, levels + LEVELS_OF_CONTAINER);

      if (item == NULL)
        return NULL;
      g_variant_builder_add_value (&builder, g_variant_new_variant (item));
    }
  return g_variant_builder_end (&builder);
}

static GVariant *
decode_dict (Decoder *self, guint levels)
{
  g_autoptr (GPtrArray) items = g_ptr_array_new_with_free_func ((GDestroyNotify) g_variant_unref);
  gboolean has_names = TRUE;
  gsize n;
  GVariantBuilder builder;

  if (!ferry_python_input_count (&self->input, 2, &n))
    return cut (self);
  for (gsize i = 0; i < 2 * n; i++)
    {
      GVariant *item = decode (self, levels + LEVELS_OF_PAIRS);

      if (item == NULL)
        return NULL;
      g_ptr_array_add (items, item);
      if (i % 2 == 0 && !g_variant_is_of_type (item, G_VARIANT_TYPE_STRING))
        has_names = FALSE;
    }

  g_variant_builder_init (&builder, has_names ? G_VARIANT_TYPE_VARDICT : G_VARIANT_TYPE ("a(vv)"));
  for (gsize i = 0; i < n; i++)
    {
      GVariant *key = items->pdata[2 * i];
      GVariant *value = items->pdata[2 * i + 1];

      if (has_names)
        g_variant_builder_add (&builder, "{sv}", g_variant_get_string (key, NULL), value);
      else
        g_variant_builder_add (&builder, "(vv)", key, value);
    }
  return g_variant_builder_end (&builder);
}

static GVariant *
decode_reference (Decoder *self)
{
  guint64 offset;
  guint low = 0;
  guint high = self->shared != NULL ? self->shared->len : 0;
  guint n = high;
  const Shared *found;

  if (!ferry_python_input_number (&self->input, &offset))
    return cut (self);
  while (low < high)
    {
      guint middle = low + (high - low) / 2;

      if (g_array_index (self->shared, Shared, middle).offset < offset)
        low = middle + 1;
      else
        high = middle;
    }
  found = low < n ? &g_array_index (self->shared, Shared, low) : NULL;
  if (found == NULL || found->offset != offset)
    return malformed (self, "a reference to %" G_GUINT64_FORMAT ", where no value is", offset);
  if (found->variant == NULL)
    return needs_python (self, "value that contains itself");
  self->n_values += found->n_values;
  return g_variant_ref (found->variant);
}

static gboolean
read_array (Decoder *self, FerryNumpyHeader *header, char **format, const guint8 **data, gsize *data_size)
{
  static const gint64 nothing = 0;
  gsize header_size;
  g_autofree guint8 *bytes = NULL;
  g_autoptr (GError) error = NULL;
  g_autoptr (FerryTensor) tensor = NULL;
  gsize expected;

  if (!ferry_python_input_count (&self->input, 1, &header_size))
    {
      cut (self);
      return FALSE;
    }
  bytes = g_malloc (MAX (header_size, 1));
  memcpy (bytes, self->input.at, header_size);
  self->input.at += header_size;
  *data = take_data (self, TRUE, 1, 0, data_size);
  if (*data == NULL)
    return FALSE;
  if (!ferry_numpy_header_read (header, bytes, header_size, &expected, &error))
    {
      g_set_error (self->error, FERRY_ERROR, FERRY_ERROR_CODEC, "codec 'python': %s", error->message);
      return FALSE;
    }
  if (expected != *data_size || ferry_numpy_header_size (header) != header_size)
    {
      malformed (self, "an array of %" G_GSIZE_FORMAT " bytes has a part of %" G_GSIZE_FORMAT, expected, *data_size);
      return FALSE;
    }
  *format = g_strndup ((const char *) bytes + FERRY_NUMPY_FIXED_SIZE + header->n_dimensions * sizeof (gint64),
                       header->format_length);
  if (strlen (*format) != header->format_length)
    {
      malformed (self, "the format of an array has a zero byte in it");
      return FALSE;
    }

  /* One without elements tells how large they are. */
  tensor = ferry_tensor_new_take (*format, &nothing, 1, NULL, NULL, 0, 0, FALSE, NULL, NULL, &error);
  if (tensor == NULL)
    {
      g_set_error (self->error, FERRY_ERROR, FERRY_ERROR_CODEC, "codec 'python': %s", error->message);
      return FALSE;
    }
  if (ferry_tensor_get_item_size (tensor) != header->item_size)
    {
      malformed (self, "elements of an array have %" G_GSIZE_FORMAT " bytes, and those of its format %" G_GSIZE_FORMAT,
                 header->item_size, ferry_tensor_get_item_size (tensor));
      return FALSE;
    }
  return TRUE;
}

static void
get_strides (const FerryNumpyHeader *header, gint64 *strides)
{
  gint64 stride = (gint64) header->item_size;

  for (guint i = 0; i < header->n_dimensions; i++)
    {
      guint at = (header->flags & FERRY_NUMPY_FORTRAN) != 0 ? i : header->n_dimensions - 1 - i;

      strides[at] = stride;
      stride *= MAX (header->shape[at], 1);
    }
}

static FerryTensor *
decode_tensor (Decoder *self)
{
  FerryNumpyHeader header;
  gint64 strides[FERRY_TENSOR_MAX_DIMENSIONS];
  g_autofree char *format = NULL;
  g_autoptr (GError) error = NULL;
  const guint8 *data;
  gsize size;
  FerryTensor *tensor;

  if (!read_array (self, &header, &format, &data, &size))
    return NULL;
  get_strides (&header, strides);
  tensor = ferry_tensor_new_for_buffer (format, header.shape, header.n_dimensions, strides, header.n_dimensions,
                                        self->buffer, (gsize) (data - self->input.message), &error);
  if (tensor == NULL)
    g_set_error (self->error, FERRY_ERROR, FERRY_ERROR_CODEC, "codec 'python': %s", error->message);
  return tensor;
}

/* Within others: format, shape, strides, data. */
static GVariant *
decode_array (Decoder *self)
{
  FerryNumpyHeader header;
  gint64 strides[FERRY_TENSOR_MAX_DIMENSIONS];
  g_autofree char *format = NULL;
  const guint8 *data;
  gsize size;

  if (!read_array (self, &header, &format, &data, &size))
    return NULL;
  if (!g_utf8_validate (format, -1, NULL))
    return malformed (self, "the format of an array is no text");
  get_strides (&header, strides);
  return g_variant_new (
      "(s@ax@ax@ay)", format,
      g_variant_new_fixed_array (G_VARIANT_TYPE_INT64, header.shape, header.n_dimensions, sizeof (gint64)),
      g_variant_new_fixed_array (G_VARIANT_TYPE_INT64, strides, header.n_dimensions, sizeof (gint64)),
      g_variant_new_from_data (G_VARIANT_TYPE_BYTESTRING, data, size, TRUE, (GDestroyNotify) ferry_buffer_unref,
                               ferry_buffer_ref (self->buffer)));
}

/* The numbers of NumPy's scalar types that C has, by their number there. */
static GVariant *
decode_numpy_scalar (Decoder *self)
{
  static const char kinds[] = { 'b', 'i', 'u', 'i', 'u', 'i', 'u', 'i', 'u', 'i', 'u', 'f', 'f' };
  guint8 head[2];
  union
  {
    guint8 bytes[8];
    gint8 i1;
    gint16 i2;
    gint32 i4;
    gint64 i8;
    guint8 u1;
    guint16 u2;
    guint32 u4;
    guint64 u8;
    float f4;
    double f8;
  } value;
  char kind;

  if (!ferry_python_input_copy (&self->input, head, sizeof head))
    return cut (self);
  if (head[0] >= sizeof kinds || head[1] > sizeof value.bytes)
    return needs_python (self, ferry_python_tag_get_name (FERRY_PYTHON_TAG_NUMPY_SCALAR));
  if (!ferry_python_input_copy (&self->input, value.bytes, head[1]))
    return cut (self);
  kind = kinds[head[0]];
  switch (head[1])
    {
    case 1:
      if (kind == 'b')
        return g_variant_new_boolean (value.u1 != 0);
      if (kind == 'i' || kind == 'u')
        return g_variant_new_int64 (kind == 'i' ? value.i1 : value.u1);
      break;

    case 2:
      if (kind == 'i' || kind == 'u')
        return g_variant_new_int64 (kind == 'i' ? value.i2 : value.u2);
      break;

    case 4:
      if (kind == 'i' || kind == 'u')
        return g_variant_new_int64 (kind == 'i' ? value.i4 : (gint64) value.u4);
      if (kind == 'f')
        return g_variant_new_double ((double) value.f4);
      break;

    case 8:
      if (kind == 'i')
        return g_variant_new_int64 (value.i8);
      if (kind == 'u')
        return value.u8 <= G_MAXINT64 ? g_variant_new_int64 ((gint64) value.u8) : g_variant_new_uint64 (value.u8);
      if (kind == 'f')
        return g_variant_new_double (value.f8);
      break;

    default:
      break;
    }
  return malformed (self, "no scalar type of NumPy has number %u and %u bytes", head[0], head[1]);
}

/* A memoryview that is plain bytes is `ay`; with items that are not, a tuple like that of an array. */
static GVariant *
decode_buffer (Decoder *self)
{
  guint8 readonly;

  if (!ferry_python_input_copy (&self->input, &readonly, 1))
    return cut (self);
  return decode_data (self, TRUE, 0);
}

static GVariant *
decode_memoryview (Decoder *self)
{
  guint8 readonly;
  guint64 item_size;
  guint64 length;
  gsize format_length;
  gsize n_dimensions;
  gsize size;
  const guint8 *data;

  if (!ferry_python_input_copy (&self->input, &readonly, 1) || !ferry_python_input_number (&self->input, &item_size)
      || !ferry_python_input_count (&self->input, 1, &format_length))
    return cut (self);
  self->input.at += format_length;
  if (!ferry_python_input_count (&self->input, 1, &n_dimensions))
    return cut (self);
  size = item_size;
  for (gsize i = 0; i < n_dimensions; i++)
    if (!ferry_python_input_number (&self->input, &length) || __builtin_mul_overflow (size, length, &size))
      return malformed (self, "the shape of a memoryview makes no sense");
  if (!ferry_python_input_take_part (&self->input, size, &data))
    return malformed (self, "a part of %" G_GSIZE_FORMAT " bytes is beyond the end", size);
  return g_variant_new_from_data (G_VARIANT_TYPE_BYTESTRING, data, size, TRUE, (GDestroyNotify) ferry_buffer_unref,
                                  ferry_buffer_ref (self->buffer));
}

static GVariant *
decode_named_values (Decoder *self, const char *name, guint n, guint levels)
{
  g_autoptr (GVariant) first = decode (self, levels + LEVELS_OF_PAIRS);
  g_autoptr (GVariant) second = NULL;

  if (first == NULL)
    return NULL;
  if (n == 1)
    return named (name, first);
  second = decode (self, levels + LEVELS_OF_PAIRS);
  return second != NULL ? named (name, g_variant_new ("(@*@*)", first, second)) : NULL;
}

typedef struct
{
  guint16 year;
  guint8 month;
  guint8 day;
} Date;

typedef struct
{
  guint8 hour;
  guint8 minute;
  guint8 second;
  guint8 fold;
  guint32 microsecond;
} Time;

/* Numbers in the order in which Python's constructors take them, and the zone. */
static GVariant *
decode_datetime (Decoder *self, guint tag, guint levels)
{
  Date date = { 0 };
  Time time = { 0 };
  g_autoptr (GVariant) zone = NULL;

  if ((tag != FERRY_PYTHON_TAG_TIME && !ferry_python_input_copy (&self->input, &date, sizeof date))
      || (tag != FERRY_PYTHON_TAG_DATE && !ferry_python_input_copy (&self->input, &time, sizeof time)))
    return cut (self);
  if (tag == FERRY_PYTHON_TAG_DATE)
    return named ("date", g_variant_new ("(iii)", date.year, date.month, date.day));
  zone = decode (self, levels + LEVELS_OF_PAIRS);
  if (zone == NULL)
    return NULL;
  if (tag == FERRY_PYTHON_TAG_TIME)
    return named ("time", g_variant_new ("(iiiiv)", time.hour, time.minute, time.second, time.microsecond, zone));
  return named ("datetime", g_variant_new ("(iiiiiiiv)", date.year, date.month, date.day, time.hour, time.minute,
                                           time.second, time.microsecond, zone));
}

static GVariant *
decode_tagged (Decoder *self, guint8 tag, guint levels)
{
  FerryPythonInput *input = &self->input;

  switch ((FerryPythonTag) tag)
    {
    case FERRY_PYTHON_TAG_NONE:
      return g_variant_new_maybe (G_VARIANT_TYPE_VARIANT, NULL);

    case FERRY_PYTHON_TAG_FALSE:
      return g_variant_new_boolean (FALSE);

    case FERRY_PYTHON_TAG_TRUE:
      return g_variant_new_boolean (TRUE);

    case FERRY_PYTHON_TAG_INT8:
      {
        gint8 number;

        return ferry_python_input_copy (input, &number, sizeof number) ? g_variant_new_int64 (number) : cut (self);
      }

    case FERRY_PYTHON_TAG_INT32:
      {
        gint32 number;

        return ferry_python_input_copy (input, &number, sizeof number) ? g_variant_new_int64 (number) : cut (self);
      }

    case FERRY_PYTHON_TAG_INT64:
      {
        gint64 number;

        return ferry_python_input_copy (input, &number, sizeof number) ? g_variant_new_int64 (number) : cut (self);
      }

    case FERRY_PYTHON_TAG_INT_BIG:
      return decode_big_int (self);

    case FERRY_PYTHON_TAG_FLOAT:
      {
        double number;

        return ferry_python_input_copy (input, &number, sizeof number) ? g_variant_new_double (number) : cut (self);
      }

    case FERRY_PYTHON_TAG_COMPLEX:
      {
        double parts[2];

        return ferry_python_input_copy (input, parts, sizeof parts) ? g_variant_new ("(dd)", parts[0], parts[1])
                                                                    : cut (self);
      }

    case FERRY_PYTHON_TAG_STR:
    case FERRY_PYTHON_TAG_STR1:
    case FERRY_PYTHON_TAG_STR2:
    case FERRY_PYTHON_TAG_STR4:
      return decode_text (self, tag, FALSE);

    case FERRY_PYTHON_TAG_STR_PART:
    case FERRY_PYTHON_TAG_STR1_PART:
    case FERRY_PYTHON_TAG_STR2_PART:
    case FERRY_PYTHON_TAG_STR4_PART:
      return decode_text (self, tag - FERRY_PYTHON_TAG_STR_PART + FERRY_PYTHON_TAG_STR, TRUE);

    case FERRY_PYTHON_TAG_BYTES:
    case FERRY_PYTHON_TAG_BYTEARRAY:
      return decode_data (self, FALSE, 0);

    case FERRY_PYTHON_TAG_BYTES_PART:
      return decode_data (self, TRUE, 1);

    case FERRY_PYTHON_TAG_BYTEARRAY_PART:
      return decode_data (self, TRUE, 0);

    case FERRY_PYTHON_TAG_MEMORYVIEW:
      return decode_memoryview (self);

    case FERRY_PYTHON_TAG_BUFFER:
      return decode_buffer (self);

    case FERRY_PYTHON_TAG_TUPLE:
      return decode_tuple (self, levels);

    case FERRY_PYTHON_TAG_LIST:
    case FERRY_PYTHON_TAG_SET:
    case FERRY_PYTHON_TAG_FROZENSET:
      return decode_list (self, levels);

    case FERRY_PYTHON_TAG_DICT:
      return decode_dict (self, levels);

    case FERRY_PYTHON_TAG_REF:
      return decode_reference (self);

    case FERRY_PYTHON_TAG_NDARRAY:
      return decode_array (self);

    case FERRY_PYTHON_TAG_NUMPY_SCALAR:
      return decode_numpy_scalar (self);

    case FERRY_PYTHON_TAG_TENSOR:
      {
        guint8 head[2];

        if (!ferry_python_input_copy (input, head, sizeof head))
          return cut (self);
        return head[1] == FERRY_PYTHON_TAG_NDARRAY ? decode_array (self)
                                                   : malformed (self, "a tensor has tag %u", head[1]);
      }

    case FERRY_PYTHON_TAG_DECIMAL:
      return decode_named_values (self, "Decimal", 1, levels);

    case FERRY_PYTHON_TAG_FRACTION:
      return decode_named_values (self, "Fraction", 2, levels);

    case FERRY_PYTHON_TAG_DTYPE:
      return decode_named_values (self, "dtype", 1, levels);

    case FERRY_PYTHON_TAG_TIMEZONE:
      return decode_named_values (self, "timezone", 2, levels);

    case FERRY_PYTHON_TAG_ZONEINFO:
      return decode_named_values (self, "ZoneInfo", 1, levels);

    case FERRY_PYTHON_TAG_UUID:
      {
        guint8 bytes[17];

        if (!ferry_python_input_copy (input, bytes, sizeof bytes))
          return cut (self);
        return named ("UUID", g_variant_new_fixed_array (G_VARIANT_TYPE_BYTE, bytes, sizeof bytes - 1, 1));
      }

    case FERRY_PYTHON_TAG_DATE:
    case FERRY_PYTHON_TAG_TIME:
    case FERRY_PYTHON_TAG_DATETIME:
      return decode_datetime (self, tag, levels);

    case FERRY_PYTHON_TAG_TIMEDELTA:
      {
        gint32 numbers[3];

        if (!ferry_python_input_copy (input, numbers, sizeof numbers))
          return cut (self);
        return named ("timedelta", g_variant_new ("(iii)", numbers[0], numbers[1], numbers[2]));
      }

    case FERRY_PYTHON_TAG_ELLIPSIS:
    case FERRY_PYTHON_TAG_NOT_IMPLEMENTED:
    case FERRY_PYTHON_TAG_RANGE:
    case FERRY_PYTHON_TAG_SLICE:
    case FERRY_PYTHON_TAG_NDARRAY_OBJECTS:
    case FERRY_PYTHON_TAG_NUMPY_SCALAR_ARRAY:
    case FERRY_PYTHON_TAG_DTYPE_ARRAY:
    case FERRY_PYTHON_TAG_GLOBAL:
    case FERRY_PYTHON_TAG_NAMEDTUPLE:
    case FERRY_PYTHON_TAG_NAMEDTUPLE_RECURSIVE:
    case FERRY_PYTHON_TAG_OBJECT:
    case FERRY_PYTHON_TAG_OBJECT_RECURSIVE:
      return needs_python (self, ferry_python_tag_get_name (tag));

    case FERRY_PYTHON_TAG_TUPLE_RECURSIVE:
    case FERRY_PYTHON_TAG_FROZENSET_RECURSIVE:
      return needs_python (self, "value that contains itself");

    case FERRY_PYTHON_TAG_END:
    case FERRY_PYTHON_N_TAGS:
    default:
      return malformed (self, "%u is no tag of a value", tag);
    }
}

static GVariant *
decode (Decoder *self, guint levels)
{
  FerryPythonInput *input = &self->input;
  gsize n_before = self->n_values++;
  guint number = 0;
  GVariant *variant;
  guint8 tag;

  if (levels + LEVELS_OF_PAIRS > LEVELS_MAX)
    return needs_python (self, "value with more levels than GVariant has");
  if (self->n_values > self->n_values_max)
    return needs_python (self, "value that is repeated too often");
  if (!ferry_python_input_copy (input, &tag, 1))
    return cut (self);
  if (tag >= FERRY_PYTHON_TAG_SMALL_INT && tag < FERRY_PYTHON_SHARED)
    return g_variant_take_ref (g_variant_new_int64 (tag - FERRY_PYTHON_TAG_SMALL_INT));

  if (tag >= FERRY_PYTHON_SHARED)
    {
      Shared shared = { .offset = (gsize) (input->at - 1 - input->start) };

      if (self->shared == NULL)
        self->shared = g_array_new (FALSE, FALSE, sizeof (Shared));
      number = self->shared->len;
      g_array_append_val (self->shared, shared);
    }
  variant = decode_tagged (self, tag & (FERRY_PYTHON_SHARED - 1), levels);
  if (variant == NULL)
    return NULL;
  variant = g_variant_take_ref (variant);
  if (tag >= FERRY_PYTHON_SHARED)
    {
      Shared *shared = &g_array_index (self->shared, Shared, number);

      shared->variant = g_variant_ref (variant);
      shared->n_values = self->n_values - n_before;
    }
  return variant;
}

gboolean
ferry_python_variant_decode (FerryBuffer *buffer, GValue *value, GError **error)
{
  Decoder self = { .buffer = buffer, .error = error };
  const guint8 *message;
  gsize size;
  guint8 tag;
  GVariant *variant = NULL;
  FerryTensor *tensor = NULL;

  message = ferry_buffer_get_data (buffer, &size);
  if (!ferry_python_input_open (&self.input, message, size, error))
    return FALSE;
  self.n_values_max = REPEATED_MAX + size;

  tag = *(const volatile guint8 *) self.input.at & (FERRY_PYTHON_SHARED - 1);
  if (tag == FERRY_PYTHON_TAG_NDARRAY)
    {
      self.input.at++;
      tensor = decode_tensor (&self);
    }
  else
    {
      variant = decode (&self, 0);
    }
  for (guint i = 0; self.shared != NULL && i < self.shared->len; i++)
    g_clear_pointer (&g_array_index (self.shared, Shared, i).variant, g_variant_unref);
  g_clear_pointer (&self.shared, g_array_unref);
  if (variant == NULL && tensor == NULL)
    return FALSE;

  if (!ferry_python_input_is_at_end (&self.input))
    {
      malformed (&self, "%" G_GSIZE_FORMAT " bytes follow the value",
                 ferry_python_input_left (&self.input) + self.input.message_size - self.input.next_part);
      g_clear_pointer (&variant, g_variant_unref);
      g_clear_pointer (&tensor, ferry_tensor_unref);
      return FALSE;
    }
  if (tensor != NULL)
    {
      g_value_init (value, FERRY_TYPE_TENSOR);
      g_value_take_boxed (value, tensor);
    }
  else
    {
      g_value_init (value, G_TYPE_VARIANT);
      g_value_take_variant (value, variant);
    }
  return TRUE;
}
