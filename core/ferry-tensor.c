/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ferry-tensor-private.h"

#include "ferry-copy.h"
#include "ferry-dlpack-private.h"
#include "ferry-error.h"
#include "ferry-memory-private.h"

#include <math.h>
#include <string.h>

/**
 * FerryTensor:
 *
 * An n-dimensional array: a view on memory with a data type, a shape and strides.
 *
 * What the elements are is given by a *format*, which is a type string of NumPy's array
 * interface: byte order (`<` little, `>` big, `|` not applicable), kind and size in
 * bytes. `<f4` is a little-endian FLOAT32, `|b1` a BOOL, `<c16` a COMPLEX128, `|S5` five
 * bytes, `<U7` seven characters, `<M8[ns]` a DATETIME64 in nanoseconds, `|V3` three
 * opaque bytes. `<E2`, which NumPy does not have, is a BFLOAT16. Structured elements are
 * written like NumPy's `dtype.descr`: `[('x', '<f4'), ('rgb', '|u1', (3,))]`.
 *
 * The shape counts elements, the strides are in bytes and may be negative or zero.
 * Everything is checked when a tensor is made: no index within the shape leads
 * outside of the memory, so that a shape received from elsewhere can be used as it is.
 *
 * Tensors do not change, apart from the elements of writable ones. References are atomic;
 * the elements are the user's to synchronise.
 *
 * Since: 1.0
 */

/* In bytes; what codecs put on the wire is far shorter. */
#define FORMAT_MAX (65536)

/* Structures within structures; the parser goes down by recursion. */
#define FORMAT_NESTING_MAX (32)

/* As in NumPy before 2.0, where an int holds it. */
#define ITEM_SIZE_MAX (G_MAXINT32)

struct _FerryTensor
{
  gatomicrefcount ref_count;
  FerryDataType data_type;
  int byte_order;
  guint n_dimensions;
  gsize item_size;
  gint64 n_elements;
  gboolean writable;
  guint8 *data; /* the element whose indices are all 0 */
  GDestroyNotify release;
  gpointer release_data;
  char *format;        /* within this block, behind the dimensions */
  gint64 dimensions[]; /* the shape, then the strides */
};

G_DEFINE_BOXED_TYPE (FerryTensor, ferry_tensor, ferry_tensor_ref, ferry_tensor_unref)

static inline const gint64 *
tensor_shape (const FerryTensor *self)
{
  return self->dimensions;
}

static inline const gint64 *
tensor_strides (const FerryTensor *self)
{
  return self->dimensions + self->n_dimensions;
}

/*
 * Formats
 */

static const struct
{
  FerryDataType data_type;
  char kind;
  guint8 size;      /* in bytes; of a character or byte for BYTES, UNICODE and VOID */
  guint8 component; /* what byte order and alignment are about, in bytes */
} data_types[] = {
  { FERRY_DATA_TYPE_VOID, 'V', 1, 1 },       { FERRY_DATA_TYPE_BOOL, 'b', 1, 1 },
  { FERRY_DATA_TYPE_INT8, 'i', 1, 1 },       { FERRY_DATA_TYPE_INT16, 'i', 2, 2 },
  { FERRY_DATA_TYPE_INT32, 'i', 4, 4 },      { FERRY_DATA_TYPE_INT64, 'i', 8, 8 },
  { FERRY_DATA_TYPE_UINT8, 'u', 1, 1 },      { FERRY_DATA_TYPE_UINT16, 'u', 2, 2 },
  { FERRY_DATA_TYPE_UINT32, 'u', 4, 4 },     { FERRY_DATA_TYPE_UINT64, 'u', 8, 8 },
  { FERRY_DATA_TYPE_FLOAT16, 'f', 2, 2 },    { FERRY_DATA_TYPE_FLOAT32, 'f', 4, 4 },
  { FERRY_DATA_TYPE_FLOAT64, 'f', 8, 8 },    { FERRY_DATA_TYPE_BFLOAT16, 'E', 2, 2 },
  { FERRY_DATA_TYPE_COMPLEX64, 'c', 8, 4 },  { FERRY_DATA_TYPE_COMPLEX128, 'c', 16, 8 },
  { FERRY_DATA_TYPE_DATETIME64, 'M', 8, 8 }, { FERRY_DATA_TYPE_TIMEDELTA64, 'm', 8, 8 },
  { FERRY_DATA_TYPE_BYTES, 'S', 1, 1 },      { FERRY_DATA_TYPE_UNICODE, 'U', 4, 4 },
};

static inline gboolean
has_any_length (FerryDataType data_type)
{
  return data_type == FERRY_DATA_TYPE_VOID || data_type == FERRY_DATA_TYPE_BYTES
         || data_type == FERRY_DATA_TYPE_UNICODE;
}

typedef struct
{
  const char *text;
  const char *p;
  GString *canonical;
  guint nesting;
} FormatParser;

typedef struct
{
  FerryDataType data_type;
  int byte_order;
  gsize item_size;
} FormatResult;

static gboolean G_GNUC_PRINTF (3, 4) format_error (FormatParser *parser, GError **error, const char *message, ...)
{
  g_autofree char *detail = NULL;
  g_autofree char *text = NULL;
  g_autofree char *shown = NULL;
  va_list args;

  va_start (args, message);
  detail = g_strdup_vprintf (message, args);
  va_end (args);
  text = g_strndup (parser->text, 80);
  shown = g_strescape (text, NULL);
  g_set_error (error, FERRY_ERROR, FERRY_ERROR_INVALID_ARGUMENT, "tensor format \"%s\", at byte %d: %s", shown,
               (int) (parser->p - parser->text), detail);
  return FALSE;
}

static void
skip_spaces (FormatParser *parser)
{
  while (*parser->p == ' ' || *parser->p == '\t' || *parser->p == '\n')
    parser->p++;
}

/* A number without sign, up to the largest item size. */
static gboolean
parse_number (FormatParser *parser, guint64 *number, GError **error)
{
  guint64 value = 0;

  if (!g_ascii_isdigit (*parser->p))
    return format_error (parser, error, "expected a number");
  while (g_ascii_isdigit (*parser->p))
    {
      value = value * 10 + (guint64) (*parser->p - '0');
      if (value > ITEM_SIZE_MAX)
        return format_error (parser, error, "the number is larger than %d", ITEM_SIZE_MAX);
      parser->p++;
    }
  *number = value;
  return TRUE;
}

/* The unit of DATETIME64 and TIMEDELTA64: "[ns]", "[25us]", or nothing. */
static gboolean
parse_unit (FormatParser *parser, GError **error)
{
  static const char *const units[] = { "Y", "M", "W", "D", "h", "m", "s", "ms", "us", "ns", "ps", "fs", "as" };
  const char *start = parser->p;
  guint64 multiple;

  if (*parser->p != '[')
    return TRUE;
  parser->p++;
  if (g_ascii_isdigit (*parser->p) && !parse_number (parser, &multiple, error))
    return FALSE;
  for (guint i = 0; i < G_N_ELEMENTS (units); i++)
    {
      gsize length = strlen (units[i]);

      if (strncmp (parser->p, units[i], length) == 0 && parser->p[length] == ']')
        {
          parser->p += length + 1;
          g_string_append_len (parser->canonical, start, parser->p - start);
          return TRUE;
        }
    }
  return format_error (parser, error, "expected a unit of time and \"]\": Y M W D h m s ms us ns ps fs as");
}

static gboolean
parse_simple (FormatParser *parser, FormatResult *result, GError **error)
{
  char order = '=';
  char kind;
  guint64 number;
  gboolean kind_known = FALSE;

  if (*parser->p != '\0' && strchr ("<>|=", *parser->p) != NULL)
    order = *parser->p++;

  kind = *parser->p;
  if (kind == 'O')
    return format_error (parser, error, "objects are pointers, which mean nothing to another process");
  if (!g_ascii_isalpha (kind))
    return format_error (parser, error, "expected a type string like \"<f4\"");
  parser->p++;
  if (!parse_number (parser, &number, error))
    return FALSE;

  for (guint i = 0; i < G_N_ELEMENTS (data_types); i++)
    {
      if (data_types[i].kind != kind)
        continue;
      kind_known = TRUE;
      if (!has_any_length (data_types[i].data_type) && data_types[i].size != number)
        continue;

      if (data_types[i].component == 1)
        order = '|';
      else if (order == '|')
        return format_error (parser, error, "'|' leaves the byte order open; use '<' or '>'");
      else if (order == '=')
        order = G_BYTE_ORDER == G_LITTLE_ENDIAN ? '<' : '>';

      result->data_type = data_types[i].data_type;
      result->byte_order = order == '<' ? G_LITTLE_ENDIAN : order == '>' ? G_BIG_ENDIAN : G_BYTE_ORDER;
      result->item_size = data_types[i].size;
      if (has_any_length (data_types[i].data_type))
        {
          if (number > ITEM_SIZE_MAX / data_types[i].size)
            return format_error (parser, error, "elements have more than %d bytes", ITEM_SIZE_MAX);
          result->item_size = (gsize) number * data_types[i].size;
        }
      g_string_append_printf (parser->canonical, "%c%c%" G_GUINT64_FORMAT, order, kind, number);
      if (kind == 'M' || kind == 'm')
        return parse_unit (parser, error);
      return TRUE;
    }

  if (kind_known)
    return format_error (parser, error, "there is no type '%c' of %" G_GUINT64_FORMAT " bytes", kind, number);
  return format_error (parser, error, "unknown kind '%c'; known are b i u f c E M m S U V", kind);
}

/* A Python string literal; the canonical form keeps it as it is. */
static gboolean
parse_quoted (FormatParser *parser, GError **error)
{
  const char *start = parser->p;
  char quote = *parser->p;

  if (quote != '\'' && quote != '"')
    return format_error (parser, error, "expected a quoted name");
  parser->p++;
  while (*parser->p != quote)
    {
      if (*parser->p == '\\')
        parser->p++;
      if (*parser->p == '\0')
        return format_error (parser, error, "the quote is not closed");
      parser->p++;
    }
  parser->p++;
  g_string_append_len (parser->canonical, start, parser->p - start);
  return TRUE;
}

static gboolean
parse_literal (FormatParser *parser, char c, GError **error)
{
  skip_spaces (parser);
  if (*parser->p != c)
    return format_error (parser, error, "expected '%c'", c);
  parser->p++;
  skip_spaces (parser);
  return TRUE;
}

/* The shape of a field: "3", "(3,)" or "(2, 3)". */
static gboolean
parse_field_shape (FormatParser *parser, gsize *size, GError **error)
{
  gboolean parenthesized = *parser->p == '(';
  guint n = 0;

  if (parenthesized)
    parser->p++;
  g_string_append_c (parser->canonical, '(');
  for (;;)
    {
      guint64 number;

      skip_spaces (parser);
      if (parenthesized && *parser->p == ')')
        break;
      if (n == FERRY_TENSOR_MAX_DIMENSIONS)
        return format_error (parser, error, "a field has at most %d dimensions", FERRY_TENSOR_MAX_DIMENSIONS);
      if (!parse_number (parser, &number, error))
        return FALSE;
      if (__builtin_mul_overflow (*size, (gsize) number, size) || *size > ITEM_SIZE_MAX)
        return format_error (parser, error, "elements have more than %d bytes", ITEM_SIZE_MAX);
      g_string_append_printf (parser->canonical, "%s%" G_GUINT64_FORMAT, n > 0 ? ", " : "", number);
      n++;
      if (!parenthesized)
        break;
      skip_spaces (parser);
      if (*parser->p == ',')
        parser->p++;
      else if (*parser->p != ')')
        return format_error (parser, error, "expected ',' or ')'");
    }
  if (parenthesized)
    parser->p++;
  g_string_append (parser->canonical, n == 1 ? ",)" : ")");
  return TRUE;
}

static gboolean parse_structure (FormatParser *parser, gsize *size, GError **error);

/* ('name', type), ('name', type, shape) or (('title', 'name'), type, ...) */
static gboolean
parse_field (FormatParser *parser, gsize *size, GError **error)
{
  if (!parse_literal (parser, '(', error))
    return FALSE;
  g_string_append_c (parser->canonical, '(');
  if (*parser->p == '(')
    {
      parser->p++;
      skip_spaces (parser);
      g_string_append_c (parser->canonical, '(');
      if (!parse_quoted (parser, error) || !parse_literal (parser, ',', error))
        return FALSE;
      g_string_append (parser->canonical, ", ");
      if (!parse_quoted (parser, error) || !parse_literal (parser, ')', error))
        return FALSE;
      g_string_append_c (parser->canonical, ')');
    }
  else if (!parse_quoted (parser, error))
    {
      return FALSE;
    }

  if (!parse_literal (parser, ',', error))
    return FALSE;
  g_string_append (parser->canonical, ", ");
  if (*parser->p == '[')
    {
      if (!parse_structure (parser, size, error))
        return FALSE;
    }
  else
    {
      FormatResult field;
      char quote = *parser->p;

      if (quote != '\'' && quote != '"')
        return format_error (parser, error, "expected a quoted type string or '['");
      parser->p++;
      g_string_append_c (parser->canonical, '\'');
      if (!parse_simple (parser, &field, error))
        return FALSE;
      if (*parser->p != quote)
        return format_error (parser, error, "expected the end of the type string");
      parser->p++;
      g_string_append_c (parser->canonical, '\'');
      *size = field.item_size;
    }

  skip_spaces (parser);
  if (*parser->p == ',')
    {
      parser->p++;
      skip_spaces (parser);
      if (*parser->p != ')')
        {
          g_string_append (parser->canonical, ", ");
          if (!parse_field_shape (parser, size, error))
            return FALSE;
        }
    }
  if (!parse_literal (parser, ')', error))
    return FALSE;
  g_string_append_c (parser->canonical, ')');
  return TRUE;
}

/* [field, field, ...] */
static gboolean
parse_structure (FormatParser *parser, gsize *size, GError **error)
{
  gsize sum = 0;
  guint n = 0;

  if (parser->nesting == FORMAT_NESTING_MAX)
    return format_error (parser, error, "structures nest more than %d deep", FORMAT_NESTING_MAX);
  parser->nesting++;
  parser->p++;
  g_string_append_c (parser->canonical, '[');
  for (;;)
    {
      gsize field = 0;

      skip_spaces (parser);
      if (*parser->p == ']')
        break;
      if (n++ > 0)
        g_string_append (parser->canonical, ", ");
      if (!parse_field (parser, &field, error))
        return FALSE;
      if (field > ITEM_SIZE_MAX - sum)
        return format_error (parser, error, "elements have more than %d bytes", ITEM_SIZE_MAX);
      sum += field;
      skip_spaces (parser);
      if (*parser->p == ',')
        parser->p++;
      else if (*parser->p != ']')
        return format_error (parser, error, "expected ',' or ']'");
    }
  parser->p++;
  parser->nesting--;
  g_string_append_c (parser->canonical, ']');
  *size = sum;
  return TRUE;
}

/* What a format means, and its canonical form. */
static char *
parse_format (const char *format, FormatResult *result, GError **error)
{
  g_autoptr (GString) canonical = g_string_new (NULL);
  FormatParser parser = { format, format, canonical, 0 };

  if (strnlen (format, FORMAT_MAX + 1) > FORMAT_MAX)
    {
      format_error (&parser, error, "the format has more than %d bytes", FORMAT_MAX);
      return NULL;
    }
  skip_spaces (&parser);
  if (*parser.p == '[')
    {
      result->data_type = FERRY_DATA_TYPE_VOID;
      result->byte_order = G_BYTE_ORDER;
      if (!parse_structure (&parser, &result->item_size, error))
        return NULL;
    }
  else if (!parse_simple (&parser, result, error))
    {
      return NULL;
    }
  skip_spaces (&parser);
  if (*parser.p != '\0')
    {
      format_error (&parser, error, "expected the end of the format");
      return NULL;
    }
  return g_string_free (g_steal_pointer (&canonical), FALSE);
}

/**
 * ferry_data_type_get_format:
 * @data_type: a data type
 *
 * The format of a data type in the byte order of this machine, as [struct@Tensor]
 * explains; for DATETIME64 and TIMEDELTA64 without a unit.
 *
 * Returns: (transfer none) (nullable): the format; %NULL for the types whose size is
 *   not fixed: VOID, BYTES, UNICODE
 *
 * Since: 1.0
 */
const char *
ferry_data_type_get_format (FerryDataType data_type)
{
#if G_BYTE_ORDER == G_LITTLE_ENDIAN
#define NATIVE "<"
#else
#define NATIVE ">"
#endif
  static const char *const formats[] = {
    [FERRY_DATA_TYPE_BOOL] = "|b1",
    [FERRY_DATA_TYPE_INT8] = "|i1",
    [FERRY_DATA_TYPE_INT16] = NATIVE "i2",
    [FERRY_DATA_TYPE_INT32] = NATIVE "i4",
    [FERRY_DATA_TYPE_INT64] = NATIVE "i8",
    [FERRY_DATA_TYPE_UINT8] = "|u1",
    [FERRY_DATA_TYPE_UINT16] = NATIVE "u2",
    [FERRY_DATA_TYPE_UINT32] = NATIVE "u4",
    [FERRY_DATA_TYPE_UINT64] = NATIVE "u8",
    [FERRY_DATA_TYPE_FLOAT16] = NATIVE "f2",
    [FERRY_DATA_TYPE_FLOAT32] = NATIVE "f4",
    [FERRY_DATA_TYPE_FLOAT64] = NATIVE "f8",
    [FERRY_DATA_TYPE_BFLOAT16] = NATIVE "E2",
    [FERRY_DATA_TYPE_COMPLEX64] = NATIVE "c8",
    [FERRY_DATA_TYPE_COMPLEX128] = NATIVE "c16",
    [FERRY_DATA_TYPE_DATETIME64] = NATIVE "M8",
    [FERRY_DATA_TYPE_TIMEDELTA64] = NATIVE "m8",
  };
#undef NATIVE

  return (guint) data_type < G_N_ELEMENTS (formats) ? formats[data_type] : NULL;
}

/*
 * Layouts
 */

static void
append_shape (GString *text, const gint64 *shape, guint n_dimensions)
{
  g_string_append_c (text, '(');
  for (guint i = 0; i < n_dimensions; i++)
    g_string_append_printf (text, "%s%" G_GINT64_FORMAT, i > 0 ? ", " : "", shape[i]);
  g_string_append_c (text, ')');
}

static gboolean G_GNUC_PRINTF (4, 5)
    layout_error (GError **error, const gint64 *shape, guint n_dimensions, const char *message, ...)
{
  g_autoptr (GString) text = g_string_new ("tensor of shape ");
  va_list args;

  append_shape (text, shape, n_dimensions);
  g_string_append (text, ": ");
  va_start (args, message);
  g_string_append_vprintf (text, message, args);
  va_end (args);
  g_set_error_literal (error, FERRY_ERROR, FERRY_ERROR_INVALID_ARGUMENT, text->str);
  return FALSE;
}

/*
 * How many elements there are. As in NumPy, the product must not overflow even when
 * another dimension is 0: strides are computed from it.
 */
static gboolean
count_elements (const gint64 *shape, guint n_dimensions, gsize item_size, gint64 *n_elements, GError **error)
{
  gint64 product = (gint64) MAX (item_size, 1);
  gint64 count = 1;

  for (guint i = 0; i < n_dimensions; i++)
    {
      if (shape[i] < 0)
        return layout_error (error, shape, n_dimensions, "dimension %u is negative", i);
      if (__builtin_mul_overflow (product, MAX (shape[i], 1), &product) || product > G_MAXSSIZE)
        return layout_error (error, shape, n_dimensions,
                             "elements of %" G_GSIZE_FORMAT " bytes are more than memory can hold", item_size);
      count *= shape[i]; /* <= product */
    }
  *n_elements = count;
  return TRUE;
}

static void
fill_c_strides (gint64 *strides, const gint64 *shape, guint n_dimensions, gsize item_size)
{
  gint64 stride = (gint64) item_size;

  for (guint i = n_dimensions; i-- > 0;)
    {
      strides[i] = stride;
      stride *= MAX (shape[i], 1); /* count_elements() has checked it */
    }
}

/*
 * The bytes before and behind the first element that the others take. FALSE when they
 * can't be counted.
 */
static gboolean
find_extent (const gint64 *shape, const gint64 *strides, guint n_dimensions, gsize item_size, gint64 *before,
             gint64 *behind)
{
  *before = 0;
  *behind = (gint64) item_size;
  for (guint i = 0; i < n_dimensions; i++)
    {
      gint64 reach;

      if (__builtin_mul_overflow (shape[i] - 1, strides[i], &reach))
        return FALSE;
      if (reach < 0 ? __builtin_sub_overflow (*before, reach, before) : __builtin_add_overflow (*behind, reach, behind))
        return FALSE;
    }
  return TRUE;
}

/* Memory of unknown size: an array of this process that DLPack describes. */
#define SIZE_UNKNOWN (G_MAXSIZE)

/*
 * The one place where tensors are made: checks everything, and takes the memory over
 * when it succeeds.
 */
static FerryTensor *
tensor_make (const char *format, const gint64 *shape, guint n_dimensions, const gint64 *strides, gpointer data,
             gsize size, gsize offset, gboolean writable, GDestroyNotify release, gpointer release_data, GError **error)
{
  FerryTensor *self;
  FormatResult parsed = { 0 };
  g_autofree char *canonical = NULL;
  gsize format_size;
  gsize dimensions_size;
  gint64 n_elements = 0;

  canonical = parse_format (format, &parsed, error);
  if (canonical == NULL)
    return NULL;
  if (n_dimensions > FERRY_TENSOR_MAX_DIMENSIONS)
    {
      g_set_error (error, FERRY_ERROR, FERRY_ERROR_INVALID_ARGUMENT,
                   "tensor: %u dimensions are asked for, at most %d are possible", n_dimensions,
                   FERRY_TENSOR_MAX_DIMENSIONS);
      return NULL;
    }
  if (!count_elements (shape, n_dimensions, parsed.item_size, &n_elements, error))
    return NULL;

  if (size != SIZE_UNKNOWN && offset > size)
    {
      layout_error (error, shape, n_dimensions,
                    "the offset %" G_GSIZE_FORMAT " is outside of the %" G_GSIZE_FORMAT " bytes of memory", offset,
                    size);
      return NULL;
    }
  if (strides == NULL)
    {
      gsize needed = (gsize) n_elements * parsed.item_size;

      if (size != SIZE_UNKNOWN && needed > size - offset)
        {
          layout_error (error, shape, n_dimensions,
                        "%" G_GSIZE_FORMAT " bytes are needed, but behind offset %" G_GSIZE_FORMAT
                        " there are only %" G_GSIZE_FORMAT,
                        needed, offset, size - offset);
          return NULL;
        }
    }
  else if (n_elements > 0)
    {
      gint64 before, behind;

      if (!find_extent (shape, strides, n_dimensions, parsed.item_size, &before, &behind)
          || (size != SIZE_UNKNOWN && ((guint64) before > offset || (guint64) behind > size - offset)))
        {
          g_autoptr (GString) text = g_string_new (NULL);

          append_shape (text, strides, n_dimensions);
          layout_error (error, shape, n_dimensions,
                        "with strides %s and offset %" G_GSIZE_FORMAT
                        " it reaches out of its memory of %" G_GSIZE_FORMAT " bytes",
                        text->str, offset, size);
          return NULL;
        }
    }

  dimensions_size = 2 * n_dimensions * sizeof (gint64);
  format_size = strlen (canonical) + 1;
  self = g_malloc (sizeof *self + dimensions_size + format_size);
  g_atomic_ref_count_init (&self->ref_count);
  self->data_type = parsed.data_type;
  self->byte_order = parsed.byte_order;
  self->n_dimensions = n_dimensions;
  self->item_size = parsed.item_size;
  self->n_elements = n_elements;
  self->writable = writable;
  self->data = offset > 0 ? (guint8 *) data + offset : data;
  self->release = release;
  self->release_data = release_data;
  self->format = (char *) self->dimensions + dimensions_size;
  memcpy (self->format, canonical, format_size);
  if (n_dimensions > 0)
    {
      memcpy (self->dimensions, shape, n_dimensions * sizeof (gint64));
      if (strides != NULL)
        memcpy (self->dimensions + n_dimensions, strides, n_dimensions * sizeof (gint64));
      else
        fill_c_strides (self->dimensions + n_dimensions, shape, n_dimensions, self->item_size);
    }
  return self;
}

/* A tensor in memory of its own, whose contents are undefined. */
static FerryTensor *
tensor_alloc (const char *format, const gint64 *shape, guint n_dimensions, gsize *size, GError **error)
{
  FerryTensor *self = tensor_make (format, shape, n_dimensions, NULL, NULL, SIZE_UNKNOWN, 0, TRUE, NULL, NULL, error);

  if (self == NULL)
    return NULL;
  *size = (gsize) self->n_elements * self->item_size;
  self->data = ferry_aligned_try_alloc (*size);
  if (self->data == NULL)
    {
      g_set_error (error, FERRY_ERROR, FERRY_ERROR_NO_SPACE, "tensor: there is no memory for %" G_GSIZE_FORMAT " bytes",
                   *size);
      ferry_tensor_unref (self);
      return NULL;
    }
  self->release = ferry_aligned_free;
  self->release_data = self->data;
  return self;
}

/* Private: a tensor in C order that has no memory yet: of its elements nothing may be looked at. */
FerryTensor *
ferry_tensor_new_layout (const char *format, const gint64 *shape, guint n_dimensions, GError **error)
{
  return tensor_make (format, shape, n_dimensions, NULL, NULL, SIZE_UNKNOWN, 0, TRUE, NULL, NULL, error);
}

/* Private: the memory of a layout, from @offset in bytes on; there is as much of it. */
void
ferry_tensor_place (FerryTensor *self, FerryBuffer *buffer, gsize offset)
{
  g_assert (self->data == NULL && self->release == NULL);

  self->data = ferry_buffer_get_writable_data (buffer, NULL) + offset;
  self->release = (GDestroyNotify) ferry_buffer_unref;
  self->release_data = ferry_buffer_ref (buffer);
}

/**
 * ferry_tensor_new:
 * @format: what the elements are, see [struct@Tensor]; for instance
 *   what [func@DataType.get_format] returns
 * @shape: (array length=n_dimensions) (nullable): elements along each dimension
 * @n_dimensions: 0 to %FERRY_TENSOR_MAX_DIMENSIONS
 * @error: return location for an error
 *
 * A writable tensor in memory of its own: in C order, aligned to 64 bytes, every byte zero.
 *
 * Errors: %FERRY_ERROR_INVALID_ARGUMENT, %FERRY_ERROR_NO_SPACE.
 *
 * Returns: (transfer full): a tensor
 *
 * Since: 1.0
 */
FerryTensor *
ferry_tensor_new (const char *format, const gint64 *shape, guint n_dimensions, GError **error)
{
  FerryTensor *self;
  gsize size;

  g_return_val_if_fail (format != NULL, NULL);
  g_return_val_if_fail (shape != NULL || n_dimensions == 0, NULL);
  g_return_val_if_fail (error == NULL || *error == NULL, NULL);

  self = tensor_alloc (format, shape, n_dimensions, &size, error);
  if (self != NULL)
    memset (self->data, 0, size);
  return self;
}

/**
 * ferry_tensor_new_copy:
 * @format: what the elements are, see [struct@Tensor]
 * @shape: (array length=n_dimensions) (nullable): elements along each dimension
 * @n_dimensions: 0 to %FERRY_TENSOR_MAX_DIMENSIONS
 * @data: (array length=size) (nullable): the elements in C order
 * @size: the size of @data in bytes: exactly that of all elements
 * @error: return location for an error
 *
 * A writable tensor in memory of its own, with a copy of the elements.
 *
 * Errors: %FERRY_ERROR_INVALID_ARGUMENT, %FERRY_ERROR_NO_SPACE.
 *
 * Returns: (transfer full): a tensor
 *
 * Since: 1.0
 */
FerryTensor *
ferry_tensor_new_copy (const char *format, const gint64 *shape, guint n_dimensions, const guint8 *data, gsize size,
                       GError **error)
{
  g_autoptr (FerryTensor) described = NULL;
  FerryTensor *self;
  gsize needed;

  g_return_val_if_fail (format != NULL, NULL);
  g_return_val_if_fail (shape != NULL || n_dimensions == 0, NULL);
  g_return_val_if_fail (data != NULL || size == 0, NULL);
  g_return_val_if_fail (error == NULL || *error == NULL, NULL);

  /* Before memory is asked for. */
  described = tensor_make (format, shape, n_dimensions, NULL, NULL, SIZE_UNKNOWN, 0, FALSE, NULL, NULL, error);
  if (described == NULL)
    return NULL;
  if (ferry_tensor_get_size_bytes (described) != size)
    {
      layout_error (error, shape, n_dimensions, "%" G_GSIZE_FORMAT " bytes are needed, %" G_GSIZE_FORMAT " are given",
                    ferry_tensor_get_size_bytes (described), size);
      return NULL;
    }

  self = tensor_alloc (format, shape, n_dimensions, &needed, error);
  if (self != NULL)
    ferry_copy_memory (self->data, data, size);
  return self;
}

static gboolean
check_n_strides (guint n_strides, const gint64 *shape, guint n_dimensions, GError **error)
{
  if (n_strides == 0 || n_strides == n_dimensions)
    return TRUE;
  g_set_error (error, FERRY_ERROR, FERRY_ERROR_INVALID_ARGUMENT,
               "tensor: there are %u strides for %u dimensions; give as many, or none for C order", n_strides,
               n_dimensions);
  return FALSE;
}

/**
 * ferry_tensor_new_for_bytes:
 * @format: what the elements are, see [struct@Tensor]
 * @shape: (array length=n_dimensions) (nullable): elements along each dimension
 * @n_dimensions: 0 to %FERRY_TENSOR_MAX_DIMENSIONS
 * @strides: (array length=n_strides) (nullable): bytes from one element to the next along
 *   each dimension; %NULL for C order
 * @n_strides: 0 or @n_dimensions
 * @bytes: the memory
 * @offset: where the element is whose indices are all 0, in bytes
 * @error: return location for an error
 *
 * A read-only tensor that refers to @bytes without copying.
 *
 * Errors: %FERRY_ERROR_INVALID_ARGUMENT, also when an element lies outside of @bytes.
 *
 * Returns: (transfer full): a tensor
 *
 * Since: 1.0
 */
FerryTensor *
ferry_tensor_new_for_bytes (const char *format, const gint64 *shape, guint n_dimensions, const gint64 *strides,
                            guint n_strides, GBytes *bytes, gsize offset, GError **error)
{
  FerryTensor *self;
  gconstpointer data;
  gsize size;

  g_return_val_if_fail (format != NULL, NULL);
  g_return_val_if_fail (shape != NULL || n_dimensions == 0, NULL);
  g_return_val_if_fail (strides != NULL || n_strides == 0, NULL);
  g_return_val_if_fail (bytes != NULL, NULL);
  g_return_val_if_fail (error == NULL || *error == NULL, NULL);

  if (!check_n_strides (n_strides, shape, n_dimensions, error))
    return NULL;
  data = g_bytes_get_data (bytes, &size);
  self = tensor_make (format, shape, n_dimensions, n_strides > 0 ? strides : NULL, (gpointer) data, size, offset, FALSE,
                      (GDestroyNotify) g_bytes_unref, bytes, error);
  if (self != NULL)
    g_bytes_ref (bytes);
  return self;
}

/**
 * ferry_tensor_new_for_buffer:
 * @format: what the elements are, see [struct@Tensor]
 * @shape: (array length=n_dimensions) (nullable): elements along each dimension
 * @n_dimensions: 0 to %FERRY_TENSOR_MAX_DIMENSIONS
 * @strides: (array length=n_strides) (nullable): bytes from one element to the next along
 *   each dimension; %NULL for C order
 * @n_strides: 0 or @n_dimensions
 * @buffer: the memory
 * @offset: where the element is whose indices are all 0, in bytes
 * @error: return location for an error
 *
 * A tensor that refers to a message without copying, and holds a reference on it. It
 * is writable if the buffer is.
 *
 * Errors: %FERRY_ERROR_INVALID_ARGUMENT, also when an element lies outside of @buffer.
 *
 * Returns: (transfer full): a tensor
 *
 * Since: 1.0
 */
FerryTensor *
ferry_tensor_new_for_buffer (const char *format, const gint64 *shape, guint n_dimensions, const gint64 *strides,
                             guint n_strides, FerryBuffer *buffer, gsize offset, GError **error)
{
  FerryTensor *self;
  const guint8 *data;
  gsize size;

  g_return_val_if_fail (format != NULL, NULL);
  g_return_val_if_fail (shape != NULL || n_dimensions == 0, NULL);
  g_return_val_if_fail (strides != NULL || n_strides == 0, NULL);
  g_return_val_if_fail (buffer != NULL, NULL);
  g_return_val_if_fail (error == NULL || *error == NULL, NULL);

  if (!check_n_strides (n_strides, shape, n_dimensions, error))
    return NULL;
  data = ferry_buffer_get_data (buffer, &size);
  self = tensor_make (format, shape, n_dimensions, n_strides > 0 ? strides : NULL, (gpointer) data, size, offset,
                      ferry_buffer_is_writable (buffer), (GDestroyNotify) ferry_buffer_unref, buffer, error);
  if (self != NULL)
    ferry_buffer_ref (buffer);
  return self;
}

/**
 * ferry_tensor_new_take: (skip)
 * @format: what the elements are, see [struct@Tensor]
 * @shape: (array length=n_dimensions) (nullable): elements along each dimension
 * @n_dimensions: 0 to %FERRY_TENSOR_MAX_DIMENSIONS
 * @strides: (array length=n_dimensions) (nullable): bytes from one element to the next
 *   along each dimension; %NULL for C order
 * @data: (nullable): the memory
 * @size: its size in bytes
 * @offset: where the element is whose indices are all 0, in bytes
 * @writable: whether the elements may be written
 * @release: (nullable): called with @release_data when the last reference is dropped;
 *   not when this function fails
 * @release_data: data for @release
 * @error: return location for an error
 *
 * A tensor that refers to the caller's memory. [ctor@Tensor.new_for_bytes] is the twin
 * for language bindings.
 *
 * Errors: %FERRY_ERROR_INVALID_ARGUMENT, also when an element lies outside of @data.
 *
 * Returns: (transfer full): a tensor
 *
 * Since: 1.0
 */
FerryTensor *
ferry_tensor_new_take (const char *format, const gint64 *shape, guint n_dimensions, const gint64 *strides,
                       gpointer data, gsize size, gsize offset, gboolean writable, GDestroyNotify release,
                       gpointer release_data, GError **error)
{
  g_return_val_if_fail (format != NULL, NULL);
  g_return_val_if_fail (shape != NULL || n_dimensions == 0, NULL);
  g_return_val_if_fail (data != NULL || size == 0, NULL);
  g_return_val_if_fail (size != SIZE_UNKNOWN, NULL);
  g_return_val_if_fail (error == NULL || *error == NULL, NULL);

  return tensor_make (format, shape, n_dimensions, strides, data, size, offset, writable, release, release_data, error);
}

/**
 * ferry_tensor_ref:
 * @self: a tensor
 *
 * Adds a reference. Thread-safe.
 *
 * Returns: (transfer full): @self
 *
 * Since: 1.0
 */
FerryTensor *
ferry_tensor_ref (FerryTensor *self)
{
  g_return_val_if_fail (self != NULL, NULL);

  g_atomic_ref_count_inc (&self->ref_count);
  return self;
}

/**
 * ferry_tensor_unref:
 * @self: (transfer full): a tensor
 *
 * Drops a reference; the last one lets the memory go. Thread-safe.
 *
 * Since: 1.0
 */
void
ferry_tensor_unref (FerryTensor *self)
{
  g_return_if_fail (self != NULL);

  if (!g_atomic_ref_count_dec (&self->ref_count))
    return;
  if (self->release != NULL)
    self->release (self->release_data);
  g_free (self);
}

/*
 * Looking
 */

/**
 * ferry_tensor_get_data_type:
 * @self: a tensor
 *
 * What the elements are. [method@Tensor.get_format] tells more.
 *
 * Returns: the data type
 *
 * Since: 1.0
 */
FerryDataType
ferry_tensor_get_data_type (FerryTensor *self)
{
  g_return_val_if_fail (self != NULL, FERRY_DATA_TYPE_VOID);

  return self->data_type;
}

/**
 * ferry_tensor_get_format:
 * @self: a tensor
 *
 * What the elements are, as [struct@Tensor] explains, in canonical form: the byte order
 * is always given and two equal data types have equal formats.
 *
 * Returns: (transfer none): the format
 *
 * Since: 1.0
 */
const char *
ferry_tensor_get_format (FerryTensor *self)
{
  g_return_val_if_fail (self != NULL, NULL);

  return self->format;
}

/**
 * ferry_tensor_get_item_size:
 * @self: a tensor
 *
 * The size of one element.
 *
 * Returns: bytes; may be 0 for BYTES, UNICODE and VOID
 *
 * Since: 1.0
 */
gsize
ferry_tensor_get_item_size (FerryTensor *self)
{
  g_return_val_if_fail (self != NULL, 0);

  return self->item_size;
}

/**
 * ferry_tensor_get_byte_order:
 * @self: a tensor
 *
 * The byte order of the elements.
 *
 * Returns: %G_LITTLE_ENDIAN or %G_BIG_ENDIAN; that of the machine for elements which
 *   have none and for structured ones, whose fields have one each
 *
 * Since: 1.0
 */
int
ferry_tensor_get_byte_order (FerryTensor *self)
{
  g_return_val_if_fail (self != NULL, G_BYTE_ORDER);

  return self->byte_order;
}

/**
 * ferry_tensor_get_n_dimensions:
 * @self: a tensor
 *
 * The number of dimensions.
 *
 * Returns: 0 to %FERRY_TENSOR_MAX_DIMENSIONS; a tensor without dimensions has one element
 *
 * Since: 1.0
 */
guint
ferry_tensor_get_n_dimensions (FerryTensor *self)
{
  g_return_val_if_fail (self != NULL, 0);

  return self->n_dimensions;
}

/**
 * ferry_tensor_get_shape:
 * @self: a tensor
 * @n_dimensions: (out) (optional): how many there are
 *
 * The number of elements along each dimension.
 *
 * Returns: (transfer none) (array length=n_dimensions): the shape
 *
 * Since: 1.0
 */
const gint64 *
ferry_tensor_get_shape (FerryTensor *self, guint *n_dimensions)
{
  g_return_val_if_fail (self != NULL, NULL);

  if (n_dimensions != NULL)
    *n_dimensions = self->n_dimensions;
  return tensor_shape (self);
}

/**
 * ferry_tensor_get_strides:
 * @self: a tensor
 * @n_dimensions: (out) (optional): how many there are
 *
 * How far it is from one element to the next along each dimension.
 *
 * Returns: (transfer none) (array length=n_dimensions): the strides in bytes
 *
 * Since: 1.0
 */
const gint64 *
ferry_tensor_get_strides (FerryTensor *self, guint *n_dimensions)
{
  g_return_val_if_fail (self != NULL, NULL);

  if (n_dimensions != NULL)
    *n_dimensions = self->n_dimensions;
  return tensor_strides (self);
}

/**
 * ferry_tensor_get_n_elements:
 * @self: a tensor
 *
 * The number of elements: the product of the shape.
 *
 * Returns: elements
 *
 * Since: 1.0
 */
gint64
ferry_tensor_get_n_elements (FerryTensor *self)
{
  g_return_val_if_fail (self != NULL, 0);

  return self->n_elements;
}

/**
 * ferry_tensor_get_size_bytes:
 * @self: a tensor
 *
 * The size of all elements without gaps, as [method@Tensor.store] writes them.
 *
 * Returns: bytes
 *
 * Since: 1.0
 */
gsize
ferry_tensor_get_size_bytes (FerryTensor *self)
{
  g_return_val_if_fail (self != NULL, 0);

  return (gsize) self->n_elements * self->item_size;
}

/* Strides of dimensions of length 1 and of empty tensors do not matter, as in NumPy. */
static gboolean
is_contiguous (const FerryTensor *self, gboolean fortran)
{
  const gint64 *shape = tensor_shape (self);
  const gint64 *strides = tensor_strides (self);
  gint64 expected = (gint64) self->item_size;

  if (self->n_elements == 0)
    return TRUE;
  for (guint n = 0; n < self->n_dimensions; n++)
    {
      guint i = fortran ? n : self->n_dimensions - 1 - n;

      if (shape[i] == 1)
        continue;
      if (strides[i] != expected)
        return FALSE;
      expected *= shape[i];
    }
  return TRUE;
}

/**
 * ferry_tensor_is_c_contiguous:
 * @self: a tensor
 *
 * Whether the elements lie one after the other, the last index running fastest.
 *
 * Returns: %TRUE if so
 *
 * Since: 1.0
 */
gboolean
ferry_tensor_is_c_contiguous (FerryTensor *self)
{
  g_return_val_if_fail (self != NULL, FALSE);

  return is_contiguous (self, FALSE);
}

/**
 * ferry_tensor_is_f_contiguous:
 * @self: a tensor
 *
 * Whether the elements lie one after the other, the first index running fastest.
 *
 * Returns: %TRUE if so
 *
 * Since: 1.0
 */
gboolean
ferry_tensor_is_f_contiguous (FerryTensor *self)
{
  g_return_val_if_fail (self != NULL, FALSE);

  return is_contiguous (self, TRUE);
}

/**
 * ferry_tensor_is_aligned:
 * @self: a tensor
 *
 * Whether every element lies where C programs may read its data type through a pointer.
 *
 * Returns: %TRUE if so
 *
 * Since: 1.0
 */
gboolean
ferry_tensor_is_aligned (FerryTensor *self)
{
  gsize alignment;
  const gint64 *strides;

  g_return_val_if_fail (self != NULL, FALSE);

  if (self->n_elements == 0)
    return TRUE;
  alignment = data_types[self->data_type].component;
  if (GPOINTER_TO_SIZE (self->data) % alignment != 0)
    return FALSE;
  strides = tensor_strides (self);
  for (guint i = 0; i < self->n_dimensions; i++)
    if (tensor_shape (self)[i] > 1 && strides[i] % (gint64) alignment != 0)
      return FALSE;
  return TRUE;
}

/**
 * ferry_tensor_is_writable:
 * @self: a tensor
 *
 * Whether the elements may be written.
 *
 * Returns: %TRUE if so
 *
 * Since: 1.0
 */
gboolean
ferry_tensor_is_writable (FerryTensor *self)
{
  g_return_val_if_fail (self != NULL, FALSE);

  return self->writable;
}

/*
 * Going through the elements in C order, row by row. A row is what lies along the last
 * dimension; where more than that is without gaps, rows are joined.
 */
typedef struct
{
  const guint8 *row;
  gint64 length; /* elements of a row */
  gint64 stride; /* bytes between them */
  guint n_outer;
  gint64 index[FERRY_TENSOR_MAX_DIMENSIONS];
  gint64 shape[FERRY_TENSOR_MAX_DIMENSIONS];
  gint64 strides[FERRY_TENSOR_MAX_DIMENSIONS];
} RowIterator;

/* With joining off two tensors of one shape have the same rows. */
static void
row_iterator_init (RowIterator *iterator, const FerryTensor *tensor, gboolean join)
{
  const gint64 *shape = tensor_shape (tensor);
  const gint64 *strides = tensor_strides (tensor);
  guint n = 0;

  for (guint i = 0; i < tensor->n_dimensions; i++)
    {
      if (shape[i] == 1 && join)
        continue;
      /* Unsigned: of what lies in memory it can't overflow, of what DLPack tells it may. */
      if (join && n > 0 && (guint64) iterator->strides[n - 1] == (guint64) strides[i] * (guint64) shape[i])
        {
          iterator->shape[n - 1] *= shape[i];
          iterator->strides[n - 1] = strides[i];
        }
      else
        {
          iterator->shape[n] = shape[i];
          iterator->strides[n] = strides[i];
          n++;
        }
    }

  iterator->row = tensor->data;
  iterator->n_outer = n > 0 ? n - 1 : 0;
  iterator->length = n > 0 ? iterator->shape[n - 1] : 1;
  iterator->stride = n > 0 ? iterator->strides[n - 1] : (gint64) tensor->item_size;
  memset (iterator->index, 0, sizeof iterator->index);
}

static gboolean
row_iterator_next (RowIterator *iterator)
{
  for (guint i = iterator->n_outer; i-- > 0;)
    {
      if (++iterator->index[i] < iterator->shape[i])
        {
          iterator->row += iterator->strides[i];
          return TRUE;
        }
      iterator->row -= iterator->strides[i] * (iterator->shape[i] - 1);
      iterator->index[i] = 0;
    }
  return FALSE;
}

#define COPY_ROW(item_size)                                                                                            \
  for (gint64 i = 0; i < length; i++, from += stride, to += (item_size))                                               \
  memcpy (to, from, (item_size))

/* The compiler makes single moves of copies whose size it knows. */
static void
copy_row (guint8 *to, const guint8 *from, gint64 length, gint64 stride, gsize item_size)
{
  if (stride == (gint64) item_size)
    {
      ferry_copy_memory (to, from, (gsize) length * item_size);
      return;
    }
  switch (item_size)
    {
    case 1:
      COPY_ROW (1);
      break;
    case 2:
      COPY_ROW (2);
      break;
    case 4:
      COPY_ROW (4);
      break;
    case 8:
      COPY_ROW (8);
      break;
    case 16:
      COPY_ROW (16);
      break;
    default:
      COPY_ROW (item_size);
    }
}

static void
store (const FerryTensor *self, guint8 *data)
{
  RowIterator iterator;

  if (self->n_elements == 0 || self->item_size == 0)
    return;
  row_iterator_init (&iterator, self, TRUE);
  do
    {
      copy_row (data, iterator.row, iterator.length, iterator.stride, self->item_size);
      data += (gsize) iterator.length * self->item_size;
    }
  while (row_iterator_next (&iterator));
}

/* Whether two elements are the same, component by component in opposite byte orders. */
static gboolean
equal_swapped (const guint8 *a, const guint8 *b, gsize item_size, gsize component)
{
  for (gsize i = 0; i < item_size; i += component)
    for (gsize j = 0; j < component; j++)
      if (a[i + j] != b[i + component - 1 - j])
        return FALSE;
  return TRUE;
}

/**
 * ferry_tensor_equal:
 * @self: a tensor
 * @other: another tensor
 *
 * Whether data type, shape and all elements are the same, whatever their strides and
 * byte orders. Elements are compared by their bits: a NaN is equal to itself, and 0.0 is
 * not -0.0. Structured elements must have the same format, byte orders included.
 *
 * Returns: %TRUE if so
 *
 * Since: 1.0
 */
gboolean
ferry_tensor_equal (FerryTensor *self, FerryTensor *other)
{
  RowIterator a, b;
  gboolean swapped;

  g_return_val_if_fail (self != NULL, FALSE);
  g_return_val_if_fail (other != NULL, FALSE);

  /* Formats of simple types begin with the byte order. */
  if (self->data_type != other->data_type || self->item_size != other->item_size
      || self->n_dimensions != other->n_dimensions || strcmp (self->format + 1, other->format + 1) != 0
      || memcmp (tensor_shape (self), tensor_shape (other), self->n_dimensions * sizeof (gint64)) != 0)
    return FALSE;
  if (self == other || self->n_elements == 0 || self->item_size == 0)
    return TRUE;

  swapped = self->byte_order != other->byte_order;
  if (!swapped && is_contiguous (self, FALSE) && is_contiguous (other, FALSE))
    return memcmp (self->data, other->data, (gsize) self->n_elements * self->item_size) == 0;

  row_iterator_init (&a, self, FALSE);
  row_iterator_init (&b, other, FALSE);
  do
    {
      for (gint64 i = 0; i < a.length; i++)
        {
          const guint8 *p = a.row + i * a.stride;
          const guint8 *q = b.row + i * b.stride;

          if (swapped ? !equal_swapped (p, q, self->item_size, data_types[self->data_type].component)
                      : memcmp (p, q, self->item_size) != 0)
            return FALSE;
        }
      row_iterator_next (&b);
    }
  while (row_iterator_next (&a));
  return TRUE;
}

/*
 * The elements
 */

/**
 * ferry_tensor_copy_contiguous:
 * @self: a tensor
 * @error: return location for an error
 *
 * A writable copy in memory of its own, in C order and aligned to 64 bytes. The byte
 * order stays.
 *
 * Errors: %FERRY_ERROR_NO_SPACE.
 *
 * Returns: (transfer full): a tensor
 *
 * Since: 1.0
 */
FerryTensor *
ferry_tensor_copy_contiguous (FerryTensor *self, GError **error)
{
  FerryTensor *copy;
  gsize size;

  g_return_val_if_fail (self != NULL, NULL);
  g_return_val_if_fail (error == NULL || *error == NULL, NULL);

  copy = tensor_alloc (self->format, tensor_shape (self), self->n_dimensions, &size, error);
  if (copy != NULL)
    store (self, copy->data);
  return copy;
}

/**
 * ferry_tensor_get_data: (skip)
 * @self: a tensor
 *
 * The element whose indices are all 0. With negative strides others lie before it.
 * [method@Tensor.as_bytes] is the twin for language bindings.
 *
 * Returns: (transfer none) (nullable): memory that is valid as long as a reference is
 *   held; may be %NULL when the tensor is empty
 *
 * Since: 1.0
 */
gconstpointer
ferry_tensor_get_data (FerryTensor *self)
{
  g_return_val_if_fail (self != NULL, NULL);

  return self->data;
}

/**
 * ferry_tensor_get_writable_data: (skip)
 * @self: a tensor
 *
 * The element whose indices are all 0, for writing. [method@Tensor.fill] is the twin for
 * language bindings.
 *
 * Returns: (transfer none) (nullable): memory that is valid as long as a reference is
 *   held, or %NULL when the tensor is read only
 *
 * Since: 1.0
 */
gpointer
ferry_tensor_get_writable_data (FerryTensor *self)
{
  g_return_val_if_fail (self != NULL, NULL);

  return self->writable ? self->data : NULL;
}

/**
 * ferry_tensor_get_address:
 * @self: a tensor
 *
 * Where the first element is in this process, for language bindings that can make a view on memory: strides may
 * lead to both sides of it. Valid as long as a reference is held; to be written only when
 * [method@Tensor.is_writable].
 *
 * Returns: the address as a number
 *
 * Since: 1.0
 */
gsize
ferry_tensor_get_address (FerryTensor *self)
{
  return GPOINTER_TO_SIZE (ferry_tensor_get_data (self));
}

/**
 * ferry_tensor_as_bytes:
 * @self: a tensor
 *
 * The elements as they lie in memory, without copying; the bytes hold a reference on
 * the tensor.
 *
 * Returns: (transfer full) (nullable): bytes that refer to @self; %NULL when the tensor
 *   is contiguous neither in C nor in Fortran order. [method@Tensor.to_bytes] copies
 *
 * Since: 1.0
 */
GBytes *
ferry_tensor_as_bytes (FerryTensor *self)
{
  g_return_val_if_fail (self != NULL, NULL);

  if (!is_contiguous (self, FALSE) && !is_contiguous (self, TRUE))
    return NULL;
  return g_bytes_new_with_free_func (self->data, ferry_tensor_get_size_bytes (self),
                                     (GDestroyNotify) ferry_tensor_unref, ferry_tensor_ref (self));
}

/**
 * ferry_tensor_to_bytes:
 * @self: a tensor
 * @error: return location for an error
 *
 * Copies the elements in C order.
 *
 * Errors: %FERRY_ERROR_NO_SPACE.
 *
 * Returns: (transfer full): a copy
 *
 * Since: 1.0
 */
GBytes *
ferry_tensor_to_bytes (FerryTensor *self, GError **error)
{
  g_autoptr (FerryTensor) copy = NULL;

  g_return_val_if_fail (self != NULL, NULL);
  g_return_val_if_fail (error == NULL || *error == NULL, NULL);

  copy = ferry_tensor_copy_contiguous (self, error);
  return copy != NULL ? ferry_tensor_as_bytes (copy) : NULL;
}

/**
 * ferry_tensor_store: (skip)
 * @self: a tensor
 * @data: (array length=size): where to write; must not overlap with the tensor
 * @size: exactly what [method@Tensor.get_size_bytes] returns
 *
 * Copies the elements in C order to where the caller wants them, for instance into a
 * loaned block. [method@Tensor.to_bytes] is the twin for language bindings.
 *
 * Returns: %FALSE when @size is another one; nothing is written then
 *
 * Since: 1.0
 */
gboolean
ferry_tensor_store (FerryTensor *self, guint8 *data, gsize size)
{
  g_return_val_if_fail (self != NULL, FALSE);
  g_return_val_if_fail (data != NULL || size == 0, FALSE);

  if (size != ferry_tensor_get_size_bytes (self))
    return FALSE;
  store (self, data);
  return TRUE;
}

/**
 * ferry_tensor_fill:
 * @self: a writable tensor in C order
 * @offset: where to begin, in bytes
 * @data: (array length=size): what to write
 * @size: bytes
 *
 * Copies bytes into a tensor.
 *
 * Returns: %FALSE when the tensor is read only, not in C order, or too small; nothing is
 *   written then
 *
 * Since: 1.0
 */
gboolean
ferry_tensor_fill (FerryTensor *self, gsize offset, const guint8 *data, gsize size)
{
  gsize total;

  g_return_val_if_fail (self != NULL, FALSE);
  g_return_val_if_fail (data != NULL || size == 0, FALSE);

  total = ferry_tensor_get_size_bytes (self);
  if (!self->writable || !is_contiguous (self, FALSE) || offset > total || size > total - offset)
    return FALSE;
  ferry_copy_memory (self->data + offset, data, size);
  return TRUE;
}

/* IEEE 754-2019, 3.4: binary16 has 5 bits of exponent and 10 of fraction. */
static double
half_to_double (guint16 bits)
{
  int exponent = bits >> 10 & 0x1f;
  int fraction = bits & 0x3ff;
  double magnitude;

  if (exponent == 0x1f)
    magnitude = fraction != 0 ? (double) NAN : (double) INFINITY;
  else if (exponent == 0)
    magnitude = ldexp (fraction, -24);
  else
    magnitude = ldexp (fraction | 0x400, exponent - 25);
  return bits & 0x8000 ? -magnitude : magnitude;
}

/* What a point in time or duration is that is not known, as in NumPy. */
#define NOT_A_TIME (G_MININT64)

/**
 * ferry_tensor_get_element_double:
 * @self: a tensor
 * @indices: (array length=n_indices) (nullable): an index for each dimension, from 0
 * @n_indices: the number of dimensions
 * @error: return location for an error
 *
 * One element as a number. BOOL gives 0 or 1; DATETIME64 and TIMEDELTA64 give their
 * count, or NaN when there is no time; INT64 and UINT64 are rounded beyond 2^53. This is
 * for a look at a few elements: in loops use [method@Tensor.get_data].
 *
 * Errors: %FERRY_ERROR_INVALID_ARGUMENT when an index is outside of the shape,
 * %FERRY_ERROR_UNSUPPORTED when elements are no real numbers.
 *
 * Returns: the element; NaN with @error set on failure
 *
 * Since: 1.0
 */
double
ferry_tensor_get_element_double (FerryTensor *self, const gint64 *indices, guint n_indices, GError **error)
{
  const guint8 *element;
  guint64 bits = 0;

  g_return_val_if_fail (self != NULL, (double) NAN);
  g_return_val_if_fail (indices != NULL || n_indices == 0, (double) NAN);
  g_return_val_if_fail (error == NULL || *error == NULL, (double) NAN);

  if (n_indices != self->n_dimensions)
    {
      layout_error (error, tensor_shape (self), self->n_dimensions, "%u indices are given for %u dimensions", n_indices,
                    self->n_dimensions);
      return (double) NAN;
    }
  element = self->data;
  for (guint i = 0; i < n_indices; i++)
    {
      if (indices[i] < 0 || indices[i] >= tensor_shape (self)[i])
        {
          layout_error (error, tensor_shape (self), self->n_dimensions,
                        "there is no index %" G_GINT64_FORMAT " along dimension %u", indices[i], i);
          return (double) NAN;
        }
      element += indices[i] * tensor_strides (self)[i];
    }

  if (self->item_size <= sizeof bits)
    for (gsize i = 0; i < self->item_size; i++)
      bits |= (guint64) element[i] << 8 * (self->byte_order == G_LITTLE_ENDIAN ? i : self->item_size - 1 - i);

  switch (self->data_type)
    {
    case FERRY_DATA_TYPE_BOOL:
      return bits != 0 ? 1.0 : 0.0;
    case FERRY_DATA_TYPE_INT8:
      return (gint8) bits;
    case FERRY_DATA_TYPE_INT16:
      return (gint16) bits;
    case FERRY_DATA_TYPE_INT32:
      return (gint32) bits;
    case FERRY_DATA_TYPE_INT64:
      return (double) (gint64) bits;
    case FERRY_DATA_TYPE_UINT8:
    case FERRY_DATA_TYPE_UINT16:
    case FERRY_DATA_TYPE_UINT32:
    case FERRY_DATA_TYPE_UINT64:
      return (double) bits;
    case FERRY_DATA_TYPE_DATETIME64:
    case FERRY_DATA_TYPE_TIMEDELTA64:
      return (gint64) bits == NOT_A_TIME ? (double) NAN : (double) (gint64) bits;
    case FERRY_DATA_TYPE_FLOAT16:
      return half_to_double ((guint16) bits);
    case FERRY_DATA_TYPE_BFLOAT16:
      bits <<= 16;
      G_GNUC_FALLTHROUGH;
    case FERRY_DATA_TYPE_FLOAT32:
      {
        guint32 narrow = (guint32) bits;
        float number;

        memcpy (&number, &narrow, sizeof number);
        return (double) number;
      }
    case FERRY_DATA_TYPE_FLOAT64:
      {
        double number;

        memcpy (&number, &bits, sizeof number);
        return number;
      }
    case FERRY_DATA_TYPE_VOID:
    case FERRY_DATA_TYPE_COMPLEX64:
    case FERRY_DATA_TYPE_COMPLEX128:
    case FERRY_DATA_TYPE_BYTES:
    case FERRY_DATA_TYPE_UNICODE:
    default:
      g_set_error (error, FERRY_ERROR, FERRY_ERROR_UNSUPPORTED,
                   "tensor: elements of format \"%s\" are no real numbers; read them through the data pointer",
                   self->format);
      return (double) NAN;
    }
}

/*
 * DLPack
 */

static const struct
{
  FerryDataType data_type;
  guint8 code;
  guint8 bits;
} dl_types[] = {
  { FERRY_DATA_TYPE_BOOL, FERRY_DL_BOOL, 8 },
  { FERRY_DATA_TYPE_INT8, FERRY_DL_INT, 8 },
  { FERRY_DATA_TYPE_INT16, FERRY_DL_INT, 16 },
  { FERRY_DATA_TYPE_INT32, FERRY_DL_INT, 32 },
  { FERRY_DATA_TYPE_INT64, FERRY_DL_INT, 64 },
  { FERRY_DATA_TYPE_UINT8, FERRY_DL_UINT, 8 },
  { FERRY_DATA_TYPE_UINT16, FERRY_DL_UINT, 16 },
  { FERRY_DATA_TYPE_UINT32, FERRY_DL_UINT, 32 },
  { FERRY_DATA_TYPE_UINT64, FERRY_DL_UINT, 64 },
  { FERRY_DATA_TYPE_FLOAT16, FERRY_DL_FLOAT, 16 },
  { FERRY_DATA_TYPE_FLOAT32, FERRY_DL_FLOAT, 32 },
  { FERRY_DATA_TYPE_FLOAT64, FERRY_DL_FLOAT, 64 },
  { FERRY_DATA_TYPE_BFLOAT16, FERRY_DL_BFLOAT, 16 },
  { FERRY_DATA_TYPE_COMPLEX64, FERRY_DL_COMPLEX, 64 },
  { FERRY_DATA_TYPE_COMPLEX128, FERRY_DL_COMPLEX, 128 },
};

/* Shape and strides lie behind it: consumers may keep pointers to them. */
typedef struct
{
  union
  {
    FerryDLManagedTensor managed;
    FerryDLManagedTensorVersioned versioned;
  } as;
  gint64 dimensions[];
} DLExport;

static void
dl_export_delete (FerryDLManagedTensor *managed)
{
  ferry_tensor_unref (managed->manager_ctx);
  g_free (managed);
}

static void
dl_export_delete_versioned (FerryDLManagedTensorVersioned *managed)
{
  ferry_tensor_unref (managed->manager_ctx);
  g_free (managed);
}

/**
 * ferry_tensor_to_dlpack: (skip)
 * @self: a tensor
 * @versioned: whether to make a `DLManagedTensorVersioned` of DLPack 1.0 instead of the
 *   older `DLManagedTensor`
 * @error: return location for an error
 *
 * Describes a tensor to another array library in this process, without copying. The
 * description holds a reference on the tensor until its `deleter` is called.
 *
 * DLPack knows numbers in the byte order of the machine and with strides in whole
 * elements; the older form has no way to say that a tensor is read only. For language
 * bindings [method@Tensor.to_dlpack_address] is the twin.
 *
 * Errors: %FERRY_ERROR_UNSUPPORTED.
 *
 * Returns: (transfer full): the description
 *
 * Since: 1.0
 */
gpointer
ferry_tensor_to_dlpack (FerryTensor *self, gboolean versioned, GError **error)
{
  FerryDLTensor tensor = { 0 };
  DLExport *exported;
  guint type = 0;

  g_return_val_if_fail (self != NULL, NULL);
  g_return_val_if_fail (error == NULL || *error == NULL, NULL);

  while (type < G_N_ELEMENTS (dl_types) && dl_types[type].data_type != self->data_type)
    type++;
  if (type == G_N_ELEMENTS (dl_types))
    {
      g_set_error (error, FERRY_ERROR, FERRY_ERROR_UNSUPPORTED,
                   "tensor: DLPack has no data type for the format \"%s\"; use as_bytes", self->format);
      return NULL;
    }
  if (self->byte_order != G_BYTE_ORDER)
    {
      g_set_error (error, FERRY_ERROR, FERRY_ERROR_UNSUPPORTED,
                   "tensor: DLPack knows only the byte order of the machine, the format is \"%s\"", self->format);
      return NULL;
    }
  if (!self->writable && !versioned)
    {
      g_set_error (
          error, FERRY_ERROR, FERRY_ERROR_UNSUPPORTED,
          "tensor: it is read only, which DLPack can tell since 1.0 only; ask for the versioned form, or copy");
      return NULL;
    }

  exported = g_malloc0 (sizeof *exported + 2 * self->n_dimensions * sizeof (gint64));
  tensor.data = self->data;
  tensor.device.device_type = FERRY_DL_CPU;
  tensor.ndim = (gint32) self->n_dimensions;
  tensor.dtype.code = dl_types[type].code;
  tensor.dtype.bits = dl_types[type].bits;
  tensor.dtype.lanes = 1;
  tensor.shape = exported->dimensions;
  tensor.strides = exported->dimensions + self->n_dimensions;
  for (guint i = 0; i < self->n_dimensions; i++)
    {
      gint64 stride = tensor_strides (self)[i];

      /* What no element depends on need not be refused. */
      if (stride % (gint64) self->item_size != 0 && tensor_shape (self)[i] > 1 && self->n_elements > 0)
        {
          g_set_error (error, FERRY_ERROR, FERRY_ERROR_UNSUPPORTED,
                       "tensor: the stride of %" G_GINT64_FORMAT " bytes along dimension %u is not a multiple of the "
                       "element's %" G_GSIZE_FORMAT " bytes, as DLPack wants; copy it",
                       stride, i, self->item_size);
          g_free (exported);
          return NULL;
        }
      tensor.shape[i] = tensor_shape (self)[i];
      tensor.strides[i] = stride / (gint64) self->item_size;
    }

  if (versioned)
    {
      exported->as.versioned.version.major = FERRY_DLPACK_MAJOR;
      exported->as.versioned.version.minor = FERRY_DLPACK_MINOR;
      exported->as.versioned.manager_ctx = ferry_tensor_ref (self);
      exported->as.versioned.deleter = dl_export_delete_versioned;
      exported->as.versioned.flags = self->writable ? 0 : FERRY_DL_FLAG_READ_ONLY;
      exported->as.versioned.dl_tensor = tensor;
    }
  else
    {
      exported->as.managed.dl_tensor = tensor;
      exported->as.managed.manager_ctx = ferry_tensor_ref (self);
      exported->as.managed.deleter = dl_export_delete;
    }
  return exported;
}

static void
dl_import_release (gpointer data)
{
  FerryDLManagedTensor *managed = data;

  if (managed->deleter != NULL)
    managed->deleter (managed);
}

static void
dl_import_release_versioned (gpointer data)
{
  FerryDLManagedTensorVersioned *managed = data;

  if (managed->deleter != NULL)
    managed->deleter (managed);
}

/**
 * ferry_tensor_to_dlpack_address:
 * @self: a tensor
 * @versioned: whether to make a `DLManagedTensorVersioned` of DLPack 1.0
 * @error: return location for an error
 *
 * Twin of [method@Tensor.to_dlpack] for language bindings. Who gets the number calls the `deleter` of what is there.
 *
 * Errors: %FERRY_ERROR_UNSUPPORTED.
 *
 * Returns: the address of the description as a number; 0 on error
 *
 * Since: 1.0
 */
gsize
ferry_tensor_to_dlpack_address (FerryTensor *self, gboolean versioned, GError **error)
{
  return GPOINTER_TO_SIZE (ferry_tensor_to_dlpack (self, versioned, error));
}

/**
 * ferry_tensor_new_from_dlpack: (skip)
 * @managed: a `DLManagedTensor`, or a `DLManagedTensorVersioned` of DLPack 1
 * @versioned: which of them it is
 * @error: return location for an error
 *
 * A tensor that refers to the array of another library in this process, without
 * copying. On success it owns @managed, and calls its `deleter` with the last reference; on
 * failure @managed stays the caller's. [ctor@Tensor.new_from_dlpack_address] is the twin for
 * language bindings.
 *
 * The description is trusted to be true: DLPack does not tell how large the memory is.
 *
 * Errors: %FERRY_ERROR_UNSUPPORTED when the array is on another device than the CPU,
 * or its data type or version is not known here; %FERRY_ERROR_INVALID_ARGUMENT when it
 * makes no sense.
 *
 * Returns: (transfer full): a tensor
 *
 * Since: 1.0
 */
FerryTensor *
ferry_tensor_new_from_dlpack (gpointer managed, gboolean versioned, GError **error)
{
  const FerryDLTensor *tensor;
  gint64 strides[FERRY_TENSOR_MAX_DIMENSIONS];
  gboolean writable = TRUE;
  guint type = 0;

  g_return_val_if_fail (managed != NULL, NULL);
  g_return_val_if_fail (error == NULL || *error == NULL, NULL);

  if (versioned)
    {
      const FerryDLManagedTensorVersioned *described = managed;

      if (described->version.major != FERRY_DLPACK_MAJOR)
        {
          g_set_error (error, FERRY_ERROR, FERRY_ERROR_UNSUPPORTED,
                       "tensor: the array is described by DLPack %u.%u, known is %d; ask its library for that",
                       described->version.major, described->version.minor, FERRY_DLPACK_MAJOR);
          return NULL;
        }
      writable = (described->flags & FERRY_DL_FLAG_READ_ONLY) == 0;
      tensor = &described->dl_tensor;
    }
  else
    {
      tensor = &((const FerryDLManagedTensor *) managed)->dl_tensor;
    }

  if (tensor->device.device_type != FERRY_DL_CPU && tensor->device.device_type != FERRY_DL_CUDA_HOST
      && tensor->device.device_type != FERRY_DL_ROCM_HOST)
    {
      g_set_error (error, FERRY_ERROR, FERRY_ERROR_UNSUPPORTED,
                   "tensor: the array is on the DLPack device %d:%d; move it to the CPU first",
                   tensor->device.device_type, tensor->device.device_id);
      return NULL;
    }
  while (type < G_N_ELEMENTS (dl_types)
         && (dl_types[type].code != tensor->dtype.code || dl_types[type].bits != tensor->dtype.bits))
    type++;
  if (type == G_N_ELEMENTS (dl_types) || tensor->dtype.lanes != 1)
    {
      g_set_error (error, FERRY_ERROR, FERRY_ERROR_UNSUPPORTED,
                   "tensor: there is no data type for DLPack code %u of %u bits and %u lanes; convert the array first",
                   tensor->dtype.code, tensor->dtype.bits, tensor->dtype.lanes);
      return NULL;
    }
  if (tensor->ndim < 0 || tensor->ndim > FERRY_TENSOR_MAX_DIMENSIONS || (tensor->ndim > 0 && tensor->shape == NULL)
      || tensor->byte_offset > G_MAXSSIZE)
    {
      g_set_error (error, FERRY_ERROR, FERRY_ERROR_INVALID_ARGUMENT,
                   "tensor: a DLPack array of %d dimensions (shape at %p, offset %" G_GUINT64_FORMAT
                   ") makes no sense; at most %d are possible",
                   tensor->ndim, (gpointer) tensor->shape, tensor->byte_offset, FERRY_TENSOR_MAX_DIMENSIONS);
      return NULL;
    }
  if (tensor->strides != NULL)
    {
      for (gint32 i = 0; i < tensor->ndim; i++)
        {
          if (__builtin_mul_overflow (tensor->strides[i], (gint64) dl_types[type].bits / 8, &strides[i]))
            {
              layout_error (error, tensor->shape, (guint) tensor->ndim,
                            "the stride of %" G_GINT64_FORMAT " elements is larger than memory", tensor->strides[i]);
              return NULL;
            }
        }
    }
  if (tensor->data == NULL)
    {
      for (gint32 i = 0; i < tensor->ndim; i++)
        if (tensor->shape[i] == 0)
          return tensor_make (ferry_data_type_get_format (dl_types[type].data_type), tensor->shape,
                              (guint) tensor->ndim, tensor->strides != NULL ? strides : NULL, NULL, SIZE_UNKNOWN, 0,
                              writable, versioned ? dl_import_release_versioned : dl_import_release, managed, error);
      layout_error (error, tensor->shape, (guint) tensor->ndim, "the DLPack array has no data");
      return NULL;
    }

  return tensor_make (ferry_data_type_get_format (dl_types[type].data_type), tensor->shape, (guint) tensor->ndim,
                      tensor->strides != NULL ? strides : NULL, tensor->data, SIZE_UNKNOWN, (gsize) tensor->byte_offset,
                      writable, versioned ? dl_import_release_versioned : dl_import_release, managed, error);
}

/**
 * ferry_tensor_new_from_dlpack_address:
 * @address: the address of a `DLManagedTensor`, or a `DLManagedTensorVersioned` of DLPack 1
 * @versioned: which of them it is
 * @error: return location for an error
 *
 * Twin of [ctor@Tensor.new_from_dlpack] for language bindings; owns what is there on success.
 *
 * Errors: as of [ctor@Tensor.new_from_dlpack].
 *
 * Returns: (transfer full): a tensor
 *
 * Since: 1.0
 */
FerryTensor *
ferry_tensor_new_from_dlpack_address (gsize address, gboolean versioned, GError **error)
{
  return ferry_tensor_new_from_dlpack (GSIZE_TO_POINTER (address), versioned, error);
}
