/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ferry-store-variant.h"
#include "ferry-store-private.h"

#include "ferry-copy.h"
#include "ferry-description-private.h"
#include "ferry-error.h"
#include "ferry-registry.h"
#include "ferry-store-path-private.h"
#include "ferry-store-variant-private.h"

#include <math.h>

/* Values of a store as GVariants, and the functions that find them by path. */

/* GLib reads 128 levels of serialised data (G_VARIANT_MAX_RECURSION_DEPTH). A list has two: the array, and the `v` of
 * what is in it; a dict in a list one more. As codec python does it. */
#define LEVELS_MAX (128)
#define LEVELS_OF_CONTAINER (2)
#define LEVELS_OF_PAIRS (3)

/* What is referred to from several places counts again: a few objects could else stand for more than fits into any
 * memory. Besides the cells of the store, each of which can be one. */
#define REPEATED_MAX (1 << 20)

/* What tuples with many items make of type strings. */
#define TUPLE_MAX (1024)
#define TYPE_STRING_MAX (16384)

/* Cells of leaves that say what an object is. */
enum
{
  SHAPE_MODULE,
  SHAPE_NAME,
  SHAPE_FLAGS,
  SHAPE_FIRST_FIELD,
};
enum
{
  ARRAY_FORMAT,
  ARRAY_FLAGS,
  ARRAY_RANK,
  ARRAY_FIRST_EXTENT,
};
#define NAMED_FIRST_ITEM (2)

/* ---- values, read out of a store ---- */

/* A cell whose leaf is in private memory. */
typedef struct
{
  FerryCell cell;      /* OBJECT: a FerryRef */
  const guint8 *outer; /* the outermost leaf, a FerryLeaf */
  guint n_refs;        /* of it */
  FerryLeaf head;      /* of this leaf */
  gsize data;          /* offset in @outer of its data */
} Value;

static FerryCellTag
value_tag (const Value *self)
{
  return ferry_cell_tag (self->cell);
}

static gboolean
value_is_leaf (const Value *self, FerryLeafKind kind)
{
  return value_tag (self) == FERRY_CELL_LEAF && self->head.kind == kind;
}

static const guint8 *
value_data (const Value *self)
{
  return self->outer + self->data;
}

static void
value_init (Value *self, FerryCell cell, gconstpointer leaf)
{
  memset (self, 0, sizeof *self);
  self->cell = cell;
  if (ferry_cell_tag (cell) != FERRY_CELL_LEAF)
    return;
  self->outer = leaf;
  memcpy (&self->head, leaf, sizeof self->head);
  self->n_refs = self->head.n_refs;
  self->data = sizeof self->head + self->n_refs * sizeof (FerryRef);
}

/* How many cells a leaf of cells has: they end where the first leaf begins. FALSE: nonsense. */
static gboolean
value_count (const Value *self, gsize *n)
{
  *n = self->head.size / sizeof (FerryCell);
  for (gsize i = 0; i < *n; i++)
    {
      FerryCell cell;
      guint64 at;

      memcpy (&cell, value_data (self) + i * sizeof cell, sizeof cell);
      if (ferry_cell_tag (cell) != FERRY_CELL_LEAF)
        continue;
      at = ferry_cell_payload (cell);
      if (at < self->data + (i + 1) * sizeof cell || (at - self->data) % sizeof cell != 0
          || at - self->data > self->head.size)
        return FALSE;
      *n = (at - self->data) / sizeof cell;
      return TRUE;
    }
  return self->head.size % sizeof (FerryCell) == 0;
}

/* Cell @i of a leaf that has more. FALSE: nonsense. */
static gboolean
value_item (const Value *self, gsize i, Value *item)
{
  guint64 payload;

  *item = *self;
  memcpy (&item->cell, value_data (self) + i * sizeof item->cell, sizeof item->cell);
  payload = ferry_cell_payload (item->cell);
  switch (ferry_cell_tag (item->cell))
    {
    case FERRY_CELL_OBJECT:
      {
        FerryRef ref;

        if (payload >= self->n_refs)
          return FALSE;
        memcpy (&ref, self->outer + sizeof (FerryLeaf) + payload * sizeof ref, sizeof ref);
        item->cell = FERRY_CELL (FERRY_CELL_OBJECT, ref);
        return TRUE;
      }

    case FERRY_CELL_LEAF:
      {
        gsize end = self->data + self->head.size;

        if (payload < self->data + (i + 1) * sizeof item->cell || payload > end || end - payload < sizeof item->head)
          return FALSE;
        memcpy (&item->head, self->outer + payload, sizeof item->head);
        item->data = payload + sizeof item->head;
        return item->head.n_refs == 0 && item->head.size <= end - item->data;
      }

    default:
      return TRUE;
    }
}

/* An integer of up to 64 bits, or a bool. */
static gboolean
value_get_int (const Value *self, gint64 *number)
{
  switch (value_tag (self))
    {
    case FERRY_CELL_INT:
      *number = ferry_cell_int (self->cell);
      return TRUE;

    case FERRY_CELL_CONSTANT:
      *number = ferry_cell_payload (self->cell) == FERRY_CONSTANT_TRUE;
      return *number != 0 || ferry_cell_payload (self->cell) == FERRY_CONSTANT_FALSE;

    case FERRY_CELL_LEAF:
      if (self->head.kind != FERRY_LEAF_INT || self->head.size == 0 || self->head.size > sizeof *number)
        return FALSE;
      *number = (value_data (self)[self->head.size - 1] & 0x80) != 0 ? -1 : 0;
      for (gsize i = self->head.size; i-- > 0;)
        *number = (gint64) ((guint64) *number << 8 | value_data (self)[i]);
      return TRUE;

    default:
      return FALSE;
    }
}

static gboolean
value_get_double (const Value *self, double *number)
{
  if (value_tag (self) == FERRY_CELL_FLOAT)
    {
      memcpy (number, &self->cell, sizeof *number);
      return TRUE;
    }
  if (!value_is_leaf (self, FERRY_LEAF_FLOAT) || self->head.size != sizeof *number)
    return FALSE;
  memcpy (number, value_data (self), sizeof *number);
  return TRUE;
}

/* The bytes of a short str or bytes. */
static gsize
inline_data (FerryCell cell, guint8 data[FERRY_CELL_INLINE_MAX])
{
  gsize n = MIN (ferry_cell_payload (cell) >> 40, FERRY_CELL_INLINE_MAX);

  for (gsize i = 0; i < n; i++)
    data[i] = (guint8) (ferry_cell_payload (cell) >> (8 * i));
  return n;
}

/* Of a str: UTF-8, surrogates included. NULL: it is none. */
static GString *
value_get_text (const Value *self, gboolean *is_text)
{
  guint8 short_data[FERRY_CELL_INLINE_MAX];
  const guint8 *data = short_data;
  gsize width = 1;
  gsize n;
  GString *text;

  *is_text = TRUE;
  if (value_tag (self) == FERRY_CELL_STR)
    {
      n = inline_data (self->cell, short_data);
    }
  else
    {
      if (!value_is_leaf (self, FERRY_LEAF_STR))
        return NULL;
      width = self->head.flags & FERRY_LEAF_WIDTH_MASK;
      if ((width != 1 && width != 2 && width != 4) || self->head.size % width != 0)
        return NULL;
      n = self->head.size / width;
      data = value_data (self);
    }

  text = g_string_sized_new (n);
  for (gsize i = 0; i < n; i++)
    {
      guint16 two;
      gunichar character;

      if (width == 1)
        {
          character = data[i];
        }
      else if (width == 2)
        {
          memcpy (&two, data + i * sizeof two, sizeof two);
          character = two;
        }
      else
        {
          memcpy (&character, data + i * sizeof character, sizeof character);
        }
      if (character > 0x10ffff)
        {
          g_string_free (text, TRUE);
          return NULL;
        }
      /* Python has strings with halves of surrogate pairs, and with zeros. */
      if (character == 0 || (character >= 0xd800 && character <= 0xdfff))
        *is_text = FALSE;
      g_string_append_unichar (text, character);
    }
  return text;
}

/* Whether it is this str. */
static gboolean
value_is_text (const Value *self, const char *other)
{
  gboolean is_text;
  GString *text = value_get_text (self, &is_text);
  gboolean equal = text != NULL && is_text && strcmp (text->str, other) == 0;

  if (text != NULL)
    g_string_free (text, TRUE);
  return equal;
}

/* Whether two keys are equal as in Python. */
static gboolean
values_equal (const Value *a, const Value *b, guint depth)
{
  gint64 a_int;
  gint64 b_int;
  double a_double;
  double b_double;
  gboolean a_is_int = value_get_int (a, &a_int);
  gboolean b_is_int = value_get_int (b, &b_int);
  gboolean a_is_double = value_get_double (a, &a_double);
  gboolean b_is_double = value_get_double (b, &b_double);
  gsize n;
  gsize n_b;
  gsize a_first;
  gsize b_first;

  if (a_is_int && b_is_int)
    return a_int == b_int;
  if (a_is_double && b_is_double)
    return a_double == b_double;
  if (a_is_int && b_is_double)
    return b_double >= -0x1p63 && b_double < 0x1p63 && (gint64) b_double == a_int && (double) a_int == b_double;
  if (a_is_double && b_is_int)
    return values_equal (b, a, depth);
  if (value_tag (a) != FERRY_CELL_LEAF || value_tag (b) != FERRY_CELL_LEAF)
    return a->cell == b->cell;
  if (a->head.kind != b->head.kind)
    return FALSE;
  if (a->head.kind != FERRY_LEAF_TUPLE)
    return a->head.flags == b->head.flags && a->head.size == b->head.size
           && memcmp (value_data (a), value_data (b), a->head.size) == 0;
  if (depth > LEVELS_MAX || !value_count (a, &n) || !value_count (b, &n_b))
    return FALSE;
  a_first = (a->head.flags & FERRY_LEAF_NAMED) != 0 ? MIN (n, NAMED_FIRST_ITEM) : 0;
  b_first = (b->head.flags & FERRY_LEAF_NAMED) != 0 ? MIN (n_b, NAMED_FIRST_ITEM) : 0;
  if (n - a_first != n_b - b_first)
    return FALSE;
  for (gsize i = 0; i < n - a_first; i++)
    {
      Value a_item;
      Value b_item;

      if (!value_item (a, a_first + i, &a_item) || !value_item (b, b_first + i, &b_item)
          || !values_equal (&a_item, &b_item, depth + 1))
        return FALSE;
    }
  return TRUE;
}

static const char *
object_type_name (FerryObjectKind kind)
{
  switch (kind)
    {
    case FERRY_OBJECT_LIST:
      return "list";
    case FERRY_OBJECT_DICT:
      return "dict";
    case FERRY_OBJECT_SET:
      return "set";
    case FERRY_OBJECT_RECORD:
      return "object";
    case FERRY_OBJECT_BYTEARRAY:
      return "bytearray";
    case FERRY_OBJECT_ARRAY:
      return "ndarray";
    case FERRY_OBJECT_SLOT:
    case FERRY_OBJECT_SHAPE:
    case FERRY_OBJECT_FREE:
    default:
      return NULL;
    }
}

static const char *
plain_type_name (const Value *value)
{
  switch (value_tag (value))
    {
    case FERRY_CELL_FLOAT:
      return "float";
    case FERRY_CELL_INT:
      return "int";
    case FERRY_CELL_STR:
      return "str";
    case FERRY_CELL_BYTES:
      return "bytes";
    case FERRY_CELL_CONSTANT:
      switch (ferry_cell_payload (value->cell))
        {
        case FERRY_CONSTANT_NONE:
          return "NoneType";
        case FERRY_CONSTANT_FALSE:
        case FERRY_CONSTANT_TRUE:
          return "bool";
        case FERRY_CONSTANT_ELLIPSIS:
          return "ellipsis";
        case FERRY_CONSTANT_NOT_IMPLEMENTED:
          return "NotImplementedType";
        default:
          return NULL;
        }
    case FERRY_CELL_LEAF:
      switch (value->head.kind)
        {
        case FERRY_LEAF_FLOAT:
          return "float";
        case FERRY_LEAF_INT:
          return "int";
        case FERRY_LEAF_COMPLEX:
          return "complex";
        case FERRY_LEAF_STR:
          return "str";
        case FERRY_LEAF_BYTES:
          return "bytes";
        case FERRY_LEAF_TUPLE:
          return "tuple";
        case FERRY_LEAF_FROZENSET:
          return "frozenset";
        case FERRY_LEAF_SLICE:
          return "slice";
        case FERRY_LEAF_CODEC:
          return "object";
        default:
          return NULL;
        }
    case FERRY_CELL_OBJECT:
    default:
      return NULL;
    }
}

/* The description of a record's class, and how many cells it has. */
static gboolean
read_shape (FerryStore *self, FerryRef record, FerryReading *reading, Value *shape, gsize *n, GError **error)
{
  FerryRef ref = ferry_store_record_shape (self, record);

  if (ref == 0)
    return ferry_store_set_corrupt (self, "an object has no class", error);
  if (!ferry_store_shape_read (self, ref, reading, error))
    return FALSE;
  value_init (shape, reading->cell, reading->leaf);
  ferry_store_unhold_reading (self, reading);
  if (!value_is_leaf (shape, FERRY_LEAF_SHAPE) || !value_count (shape, n) || *n < SHAPE_FIRST_FIELD)
    return ferry_store_set_corrupt (self, "a class has no description", error);
  return TRUE;
}

/* ---- values to GVariant ---- */

typedef struct
{
  FerryStore *store;
  GHashTable *open; /* FerryRefs of the objects that we are within */
  guint64 n_values;
  FerryCodec *codec;
  GError **error;
} Reader;

/* A reference that is not floating. The functions for each kind may return either. */
static GVariant *read_value (Reader *self, const Value *value, guint levels);

static GVariant *
corrupt (Reader *self, const char *what)
{
  ferry_store_set_corrupt (self->store, what, self->error);
  return NULL;
}

static GVariant *
unsupported (Reader *self, const char *what)
{
  g_set_error (self->error, FERRY_ERROR, FERRY_ERROR_UNSUPPORTED,
               "%s: the value contains %s, which GVariant can't express; get the parts of it", self->store->label,
               what);
  return NULL;
}

/* What GVariant has no type for: its name and a value that tells it, as `(sv)`. */
static GVariant *
named (const char *name, GVariant *variant)
{
  return g_variant_new ("(sv)", name, variant);
}

static GVariant *
bytes_to_variant (gconstpointer data, gsize size)
{
  return g_variant_new_fixed_array (G_VARIANT_TYPE_BYTE, data, size, 1);
}

static GVariant *
read_text (Reader *self, const Value *value)
{
  gboolean is_text;
  GString *text = value_get_text (value, &is_text);
  GVariant *variant;

  if (text == NULL)
    return corrupt (self, "a str has characters that can't be");
  if (is_text)
    return g_variant_new_take_string (g_string_free (text, FALSE));
  variant = named ("str", bytes_to_variant (text->str, text->len));
  g_string_free (text, TRUE);
  return variant;
}

static GVariant *
read_int (Reader *self, const Value *value)
{
  const guint8 *data = value_data (value);
  gsize size = value->head.size;
  gint64 number;

  if (value_get_int (value, &number))
    return g_variant_new_int64 (number);
  if (size == sizeof (guint64) + 1 && data[size - 1] == 0)
    {
      guint64 positive = 0;

      for (gsize i = 0; i < sizeof positive; i++)
        positive |= (guint64) data[i] << (8 * i);
      return g_variant_new_uint64 (positive);
    }
  return named ("int", bytes_to_variant (data, size));
}

/* Whether a tuple of these stays small enough as a type. */
static gboolean
fits_tuple (const GPtrArray *items)
{
  gsize length = 2;

  if (items->len > TUPLE_MAX)
    return FALSE;
  for (guint i = 0; i < items->len; i++)
    length += strlen (g_variant_get_type_string (items->pdata[i]));
  return length <= TYPE_STRING_MAX;
}

static GVariant *
make_list (const GPtrArray *items)
{
  GVariantBuilder builder;

  g_variant_builder_init (&builder, G_VARIANT_TYPE ("av"));
  for (guint i = 0; i < items->len; i++)
    g_variant_builder_add (&builder, "v", items->pdata[i]);
  return g_variant_builder_end (&builder);
}

static GVariant *
make_tuple (const GPtrArray *items)
{
  return fits_tuple (items) ? g_variant_new_tuple ((GVariant **) items->pdata, items->len) : make_list (items);
}

/* Of keys and values in turn. */
static GVariant *
make_dict (const GPtrArray *items)
{
  gboolean has_names = TRUE;
  GVariantBuilder builder;

  for (guint i = 0; i < items->len; i += 2)
    has_names = has_names && g_variant_is_of_type (items->pdata[i], G_VARIANT_TYPE_STRING);
  g_variant_builder_init (&builder, has_names ? G_VARIANT_TYPE_VARDICT : G_VARIANT_TYPE ("a(vv)"));
  for (guint i = 0; i < items->len; i += 2)
    {
      if (has_names)
        g_variant_builder_add (&builder, "{sv}", g_variant_get_string (items->pdata[i], NULL), items->pdata[i + 1]);
      else
        g_variant_builder_add (&builder, "(vv)", items->pdata[i], items->pdata[i + 1]);
    }
  return g_variant_builder_end (&builder);
}

static GPtrArray *
read_items (Reader *self, const Value *value, gsize first, guint levels)
{
  g_autoptr (GPtrArray) items = g_ptr_array_new_with_free_func ((GDestroyNotify) g_variant_unref);
  gsize n;

  if (!value_count (value, &n) || n < first)
    {
      corrupt (self, "an immutable value has parts that can't be");
      return NULL;
    }
  for (gsize i = first; i < n; i++)
    {
      Value item;
      GVariant *variant;

      if (!value_item (value, i, &item))
        {
          corrupt (self, "an immutable value has a part that can't be");
          return NULL;
        }
      variant = read_value (self, &item, levels);
      if (variant == NULL)
        return NULL;
      g_ptr_array_add (items, variant);
    }
  return g_steal_pointer (&items);
}

static FerryCodec *
get_codec (Reader *self)
{
  g_autoptr (FerryCodec) codec = NULL;
  g_autoptr (GError) local = NULL;

  if (self->codec != NULL)
    return self->codec;
  codec = ferry_registry_create_codec (ferry_registry_get_default (), "python", &local);
  if (codec == NULL || !ferry_description_set_property (G_OBJECT (codec), "decode-to", "variant", &local))
    {
      g_set_error (self->error, FERRY_ERROR, local->code,
                   "%s: the value contains an object that only codec 'python' can read: %s", self->store->label,
                   local->message);
      return NULL;
    }
  self->codec = g_steal_pointer (&codec);
  return self->codec;
}

/* A message of codec python. */
static GVariant *
read_message (Reader *self, const Value *value)
{
  FerryCodec *codec = get_codec (self);
  g_autoptr (FerryBuffer) buffer = NULL;
  g_auto (GValue) decoded = G_VALUE_INIT;
  g_autoptr (GVariant) variant = NULL;
  g_autoptr (GVariant) module = NULL;
  g_autoptr (GVariant) class = NULL;
  g_autoptr (GVariant) member = NULL;

  if (codec == NULL)
    return NULL;
  /* where its parts are aligned as in a channel */
  buffer = ferry_buffer_new (value->head.size);
  memcpy (ferry_buffer_get_writable_data (buffer, NULL), value_data (value), value->head.size);
  if (!ferry_codec_decode (codec, buffer, ferry_codec_get_wire_version (codec), &decoded, self->error))
    return NULL;
  if (!G_VALUE_HOLDS_VARIANT (&decoded))
    return unsupported (self, "an array within an immutable value");
  variant = g_value_dup_variant (&decoded);
  if ((value->head.flags & FERRY_LEAF_MEMBER) == 0)
    return g_steal_pointer (&variant);
  /* its name, or nothing and its value (of flags that are combined) */
  if (!g_variant_is_of_type (variant, G_VARIANT_TYPE ("(ss*)"))
      && !g_variant_is_of_type (variant, G_VARIANT_TYPE ("(ss**)")))
    return corrupt (self, "a member of an enumeration has no name");
  class = g_variant_get_child_value (variant, 1);
  member = g_variant_get_child_value (variant, g_variant_n_children (variant) - 1);
  return named (g_variant_get_string (class, NULL), member);
}

static GVariant *
read_leaf (Reader *self, const Value *value, guint levels)
{
  const guint8 *data = value_data (value);
  g_autoptr (GPtrArray) items = NULL;
  double numbers[2];

  switch (value->head.kind)
    {
    case FERRY_LEAF_FLOAT:
      if (!value_get_double (value, numbers))
        return corrupt (self, "a float has another size");
      return g_variant_new_double (numbers[0]);

    case FERRY_LEAF_INT:
      return read_int (self, value);

    case FERRY_LEAF_COMPLEX:
      if (value->head.size != sizeof numbers)
        return corrupt (self, "a complex number has another size");
      memcpy (numbers, data, sizeof numbers);
      return g_variant_new ("(dd)", numbers[0], numbers[1]);

    case FERRY_LEAF_STR:
      return read_text (self, value);

    case FERRY_LEAF_BYTES:
      return bytes_to_variant (data, value->head.size);

    case FERRY_LEAF_TUPLE:
      items = read_items (self, value, (value->head.flags & FERRY_LEAF_NAMED) != 0 ? NAMED_FIRST_ITEM : 0,
                          levels + LEVELS_OF_CONTAINER);
      return items != NULL ? make_tuple (items) : NULL;

    case FERRY_LEAF_FROZENSET:
      items = read_items (self, value, 0, levels + LEVELS_OF_CONTAINER);
      return items != NULL ? make_list (items) : NULL;

    case FERRY_LEAF_SLICE:
      return unsupported (self, "a slice");

    case FERRY_LEAF_CODEC:
      return read_message (self, value);

    default:
      return corrupt (self, "an immutable value is of no known kind");
    }
}

static GPtrArray *
read_cells (Reader *self, const FerrySnapshot *snapshot, guint levels)
{
  g_autoptr (GPtrArray) items
      = g_ptr_array_new_full ((guint) MIN (snapshot->n, G_MAXINT32), (GDestroyNotify) g_variant_unref);

  for (gsize i = 0; i < snapshot->n; i++)
    {
      FerryCell cell = snapshot->cells[i];
      Value value;
      GVariant *variant;

      value_init (&value, cell,
                  ferry_cell_tag (cell) == FERRY_CELL_LEAF ? snapshot->memory + ferry_cell_payload (cell) : NULL);
      variant = read_value (self, &value, levels);
      if (variant == NULL)
        return NULL;
      g_ptr_array_add (items, variant);
    }
  return g_steal_pointer (&items);
}

static GVariant *
read_record (Reader *self, FerryRef ref, FerrySnapshot *snapshot, guint levels)
{
  FerryStore *store = self->store;
  FerryReading reading = FERRY_READING_INIT;
  g_autoptr (GPtrArray) items = g_ptr_array_new_with_free_func ((GDestroyNotify) g_variant_unref);
  Value shape;
  gsize n;
  gboolean ok = read_shape (store, ref, &reading, &shape, &n, self->error);

  /* The last cell is the dict of further attributes. */
  if (ok && snapshot->n != n - SHAPE_FIRST_FIELD + 1)
    ok = ferry_store_set_corrupt (store, "an object has other attributes than its class", self->error);
  for (gsize i = 0; ok && i < snapshot->n - 1; i++)
    {
      FerryCell cell = snapshot->cells[i];
      Value name;
      Value value;
      GVariant *key = NULL;
      GVariant *variant;

      if (cell == FERRY_CELL_EMPTY)
        continue;
      value_init (&value, cell,
                  ferry_cell_tag (cell) == FERRY_CELL_LEAF ? snapshot->memory + ferry_cell_payload (cell) : NULL);
      variant = read_value (self, &value, levels);
      if (variant != NULL && value_item (&shape, SHAPE_FIRST_FIELD + i, &name))
        key = read_text (self, &name);
      else if (variant != NULL)
        corrupt (self, "an attribute of a class has no name");
      ok = variant != NULL && key != NULL;
      if (key != NULL)
        g_ptr_array_add (items, g_variant_take_ref (key));
      if (variant != NULL)
        g_ptr_array_add (items, variant);
    }
  ferry_reading_clear (&reading);

  if (ok && ferry_cell_tag (snapshot->cells[snapshot->n - 1]) == FERRY_CELL_OBJECT)
    {
      FerrySnapshot further = { 0 };

      ok = ferry_store_snapshot (store, ferry_cell_payload (snapshot->cells[snapshot->n - 1]), &further, self->error);
      if (ok)
        {
          g_autoptr (GPtrArray) rest = read_cells (self, &further, levels);

          ok = rest != NULL;
          for (guint i = 0; ok && i < rest->len; i++)
            g_ptr_array_add (items, g_variant_ref (rest->pdata[i]));
        }
      ferry_store_snapshot_clear (store, &further);
    }
  return ok ? make_dict (items) : NULL;
}

/* A description of an array, taken apart. */
typedef struct
{
  char *format;
  gint64 shape[FERRY_TENSOR_MAX_DIMENSIONS];
  gint64 strides[FERRY_TENSOR_MAX_DIMENSIONS];
  guint n_dimensions;
  gpointer data;
  gsize size;
} Array;

static gboolean
read_array_head (FerryStore *self, FerryRef ref, Array *array, GError **error)
{
  FerryReading reading = FERRY_READING_INIT;
  Value description;
  Value item;
  gsize n;
  gint64 rank = -1;
  gboolean is_text;
  GString *format = NULL;

  array->data = ferry_store_array_data (self, ref, &array->size, &reading, error);
  if (array->data == NULL)
    {
      ferry_reading_clear (&reading);
      return FALSE;
    }
  value_init (&description, reading.cell, reading.leaf);
  ferry_store_unhold_reading (self, &reading);
  if (value_is_leaf (&description, FERRY_LEAF_ARRAY) && value_count (&description, &n) && n >= ARRAY_FIRST_EXTENT
      && value_item (&description, ARRAY_FORMAT, &item))
    format = value_get_text (&item, &is_text);
  if (format == NULL || !value_item (&description, ARRAY_RANK, &item) || !value_get_int (&item, &rank) || rank < 0
      || rank > FERRY_TENSOR_MAX_DIMENSIONS || n != ARRAY_FIRST_EXTENT + 2 * (gsize) rank)
    rank = -1;
  for (guint i = 0; rank > 0 && i < 2 * (guint) rank; i++)
    {
      gint64 *number = i < (guint) rank ? &array->shape[i] : &array->strides[i - (guint) rank];

      if (!value_item (&description, ARRAY_FIRST_EXTENT + i, &item) || !value_get_int (&item, number))
        rank = -1;
    }
  ferry_reading_clear (&reading);
  if (rank < 0)
    {
      if (format != NULL)
        g_string_free (format, TRUE);
      return ferry_store_set_corrupt (self, "an array has no description", error);
    }
  array->format = g_string_free (format, FALSE);
  array->n_dimensions = (guint) rank;
  return TRUE;
}

/* Checked as every tensor is; the memory of it is used as long as the array is held. */
static FerryTensor *
array_to_tensor (const Array *array, GDestroyNotify release, gpointer release_data, GError **error)
{
  return ferry_tensor_new_take (array->format, array->shape, array->n_dimensions, array->strides, array->data,
                                array->size, 0, TRUE, release, release_data, error);
}

/* One more value, of @size bytes beside its cell. FALSE: all together they are many more than the store can have. */
static gboolean
spend (Reader *self, guint64 size)
{
  self->n_values += 1 + MIN (size, G_MAXINT64) / sizeof (FerryCell);
  if (self->n_values <= REPEATED_MAX
      || self->n_values - REPEATED_MAX
             <= MIN (ferry_store_get_bytes_used (self->store), self->store->max_bytes) / sizeof (FerryCell))
    return TRUE;
  unsupported (self, "objects that are repeated too often");
  return FALSE;
}

/* Within others: format, shape, strides, data; a copy, for it may change at any time. */
static GVariant *
read_array (Reader *self, FerryRef ref)
{
  Array array = { 0 };
  g_autoptr (FerryTensor) tensor = NULL;
  g_autoptr (FerryTensor) copy = NULL;
  g_autofree char *format = NULL;
  gconstpointer data;
  const gint64 *shape;
  const gint64 *strides;
  guint n;

  if (!read_array_head (self->store, ref, &array, self->error))
    return NULL;
  format = array.format;
  tensor = array_to_tensor (&array, NULL, NULL, self->error);
  if (tensor == NULL || !spend (self, ferry_tensor_get_size_bytes (tensor)))
    return NULL;
  if (!ferry_tensor_is_c_contiguous (tensor) && ferry_tensor_is_f_contiguous (tensor))
    copy = ferry_tensor_ref (tensor);
  else
    copy = ferry_tensor_copy_contiguous (tensor, self->error);
  if (copy == NULL)
    return NULL;
  data = ferry_tensor_get_data (copy);
  shape = ferry_tensor_get_shape (copy, &n);
  strides = ferry_tensor_get_strides (copy, NULL);
  return g_variant_new ("(s@ax@ax@ay)", ferry_tensor_get_format (copy),
                        g_variant_new_fixed_array (G_VARIANT_TYPE_INT64, shape, n, sizeof *shape),
                        g_variant_new_fixed_array (G_VARIANT_TYPE_INT64, strides, n, sizeof *strides),
                        bytes_to_variant (data, ferry_tensor_get_size_bytes (copy)));
}

static GVariant *
read_bytearray (Reader *self, FerryRef ref)
{
  gssize length = ferry_store_bytearray_length (self->store, ref);

  for (;;)
    {
      g_autofree guint8 *data = NULL;
      gssize n;

      if (length < 0)
        return corrupt (self, "a bytearray has no length");
      if (!spend (self, (guint64) length))
        return NULL;
      data = g_try_malloc ((gsize) length + 1);
      if (data == NULL)
        {
          g_set_error (self->error, FERRY_ERROR, FERRY_ERROR_NO_SPACE,
                       "%s: there is no memory for a copy of %" G_GSSIZE_FORMAT " bytes", self->store->label, length);
          return NULL;
        }
      /* one more than it has: then it has not grown */
      n = ferry_store_bytearray_read (self->store, ref, 0, data, (gsize) length + 1, self->error);
      if (n < 0)
        return NULL;
      if (n <= length)
        return bytes_to_variant (data, (gsize) n);
      length = MAX (2 * length, ferry_store_bytearray_length (self->store, ref));
    }
}

static GVariant *
read_container (Reader *self, FerryRef ref, FerryObjectKind kind, guint levels)
{
  FerrySnapshot snapshot = { 0 };
  g_autoptr (GPtrArray) items = NULL;
  GVariant *variant = NULL;

  if (!g_hash_table_add (self->open, GSIZE_TO_POINTER (ref)))
    return unsupported (self, "an object that contains itself");
  if (!ferry_store_snapshot (self->store, ref, &snapshot, self->error))
    {
      ferry_store_snapshot_clear (self->store, &snapshot);
      return NULL;
    }
  if (kind == FERRY_OBJECT_RECORD)
    {
      variant = snapshot.n > 0 ? read_record (self, ref, &snapshot, levels + LEVELS_OF_PAIRS)
                               : corrupt (self, "an object has no attributes");
    }
  else if (kind == FERRY_OBJECT_DICT)
    {
      items = read_cells (self, &snapshot, levels + LEVELS_OF_PAIRS);
      if (items != NULL)
        variant = items->len % 2 == 0 ? make_dict (items) : corrupt (self, "a dict has a key without a value");
    }
  else
    {
      items = read_cells (self, &snapshot, levels + LEVELS_OF_CONTAINER);
      if (items != NULL)
        variant = make_list (items);
    }
  ferry_store_snapshot_clear (self->store, &snapshot);
  g_hash_table_remove (self->open, GSIZE_TO_POINTER (ref));
  return variant;
}

static GVariant *
read_plain (Reader *self, const Value *value, guint levels)
{
  guint8 data[FERRY_CELL_INLINE_MAX];
  double number;

  switch (value_tag (value))
    {
    case FERRY_CELL_FLOAT:
      memcpy (&number, &value->cell, sizeof number);
      return g_variant_new_double (number);

    case FERRY_CELL_INT:
      return g_variant_new_int64 (ferry_cell_int (value->cell));

    case FERRY_CELL_STR:
      return read_text (self, value);

    case FERRY_CELL_BYTES:
      return bytes_to_variant (data, inline_data (value->cell, data));

    case FERRY_CELL_CONSTANT:
      switch (ferry_cell_payload (value->cell))
        {
        case FERRY_CONSTANT_NONE:
          return g_variant_new_maybe (G_VARIANT_TYPE_VARIANT, NULL);
        case FERRY_CONSTANT_FALSE:
        case FERRY_CONSTANT_TRUE:
          return g_variant_new_boolean (ferry_cell_payload (value->cell) == FERRY_CONSTANT_TRUE);
        case FERRY_CONSTANT_ELLIPSIS:
          return unsupported (self, "an Ellipsis");
        case FERRY_CONSTANT_NOT_IMPLEMENTED:
          return unsupported (self, "a NotImplemented");
        default:
          return corrupt (self, "a value is none");
        }

    case FERRY_CELL_LEAF:
      return read_leaf (self, value, levels);

    case FERRY_CELL_OBJECT:
      {
        FerryRef ref = ferry_cell_payload (value->cell);
        FerryObjectKind kind = ferry_store_object_kind (self->store, ref);

        switch (kind)
          {
          case FERRY_OBJECT_LIST:
          case FERRY_OBJECT_DICT:
          case FERRY_OBJECT_SET:
          case FERRY_OBJECT_RECORD:
            return read_container (self, ref, kind, levels);
          case FERRY_OBJECT_BYTEARRAY:
            return read_bytearray (self, ref);
          case FERRY_OBJECT_ARRAY:
            return read_array (self, ref);
          case FERRY_OBJECT_SLOT:
          case FERRY_OBJECT_SHAPE:
          case FERRY_OBJECT_FREE:
          default:
            return corrupt (self, "a value refers to what is no value");
          }
      }

    default:
      return corrupt (self, "a value has no known tag");
    }
}

static GVariant *
read_value (Reader *self, const Value *value, guint levels)
{
  GVariant *variant;

  if (levels + LEVELS_OF_PAIRS > LEVELS_MAX)
    return unsupported (self, "more levels than 128");
  if (!spend (self, value_tag (value) == FERRY_CELL_LEAF ? value->head.size : 0))
    return NULL;
  variant = read_plain (self, value, levels);
  return variant != NULL ? g_variant_take_ref (variant) : NULL;
}

static void
reader_init (Reader *self, FerryStore *store, GError **error)
{
  memset (self, 0, sizeof *self);
  self->store = store;
  self->open = g_hash_table_new (NULL, NULL);
  self->error = error;
}

static void
reader_clear (Reader *self)
{
  g_clear_pointer (&self->open, g_hash_table_unref);
  g_clear_object (&self->codec);
}

static GVariant *
value_to_variant (FerryStore *store, const Value *value, GError **error)
{
  Reader reader;
  GVariant *variant;

  reader_init (&reader, store, error);
  variant = read_value (&reader, value, 0);
  reader_clear (&reader);
  return variant;
}

/* As this library gives it: whatever integers, strings and containers it is made of. A full reference. */
static GVariant *
normalize (GVariant *variant)
{
  GVariantClass class = g_variant_classify (variant);
  g_autoptr (GPtrArray) items = g_ptr_array_new_with_free_func ((GDestroyNotify) g_variant_unref);
  gboolean is_dict = FALSE;
  GVariant *made;

  switch (class)
    {
    case G_VARIANT_CLASS_BYTE:
      made = g_variant_new_int64 (g_variant_get_byte (variant));
      break;
    case G_VARIANT_CLASS_INT16:
      made = g_variant_new_int64 (g_variant_get_int16 (variant));
      break;
    case G_VARIANT_CLASS_UINT16:
      made = g_variant_new_int64 (g_variant_get_uint16 (variant));
      break;
    case G_VARIANT_CLASS_INT32:
      made = g_variant_new_int64 (g_variant_get_int32 (variant));
      break;
    case G_VARIANT_CLASS_UINT32:
      made = g_variant_new_int64 (g_variant_get_uint32 (variant));
      break;
    case G_VARIANT_CLASS_HANDLE:
      made = g_variant_new_int64 (g_variant_get_handle (variant));
      break;
    case G_VARIANT_CLASS_UINT64:
      if (g_variant_get_uint64 (variant) > G_MAXINT64)
        return g_variant_ref (variant);
      made = g_variant_new_int64 ((gint64) g_variant_get_uint64 (variant));
      break;
    case G_VARIANT_CLASS_OBJECT_PATH:
    case G_VARIANT_CLASS_SIGNATURE:
      made = g_variant_new_string (g_variant_get_string (variant, NULL));
      break;

    case G_VARIANT_CLASS_VARIANT:
    case G_VARIANT_CLASS_MAYBE:
      if (g_variant_n_children (variant) > 0)
        {
          g_autoptr (GVariant) child = g_variant_get_child_value (variant, 0);

          return normalize (child);
        }
      made = g_variant_new_maybe (G_VARIANT_TYPE_VARIANT, NULL);
      break;

    case G_VARIANT_CLASS_ARRAY:
    case G_VARIANT_CLASS_TUPLE:
    case G_VARIANT_CLASS_DICT_ENTRY:
      if (g_variant_is_of_type (variant, G_VARIANT_TYPE_BYTESTRING)
          || g_variant_is_of_type (variant, G_VARIANT_TYPE ("(sv)")))
        return g_variant_ref (variant);
      is_dict = g_variant_is_of_type (variant, G_VARIANT_TYPE_DICTIONARY);
      for (gsize i = 0; i < g_variant_n_children (variant); i++)
        {
          g_autoptr (GVariant) child = g_variant_get_child_value (variant, i);

          if (is_dict || g_variant_is_of_type (variant, G_VARIANT_TYPE ("a(vv)")))
            {
              g_autoptr (GVariant) key = g_variant_get_child_value (child, 0);
              g_autoptr (GVariant) value = g_variant_get_child_value (child, 1);

              is_dict = TRUE;
              g_ptr_array_add (items, normalize (key));
              g_ptr_array_add (items, normalize (value));
            }
          else
            {
              g_ptr_array_add (items, normalize (child));
            }
        }
      made = is_dict ? make_dict (items) : class == G_VARIANT_CLASS_ARRAY ? make_list (items) : make_tuple (items);
      break;

    case G_VARIANT_CLASS_BOOLEAN:
    case G_VARIANT_CLASS_INT64:
    case G_VARIANT_CLASS_DOUBLE:
    case G_VARIANT_CLASS_STRING:
    default:
      return g_variant_ref (variant);
    }
  return g_variant_take_ref (made);
}

/* ---- GVariant to values ---- */

/* Something immutable on its way into the store: inline, or the bytes of a leaf with its head. */
typedef struct
{
  FerryCell cell;
  guint32 hash;
  gboolean hashable;
  GByteArray *bytes; /* NULL: inline */
  GArray *refs;      /* of FerryRef: references to objects that were made, ours */
  GArray *moved;     /* of gsize: where in @bytes cells with offsets of leaves are */
} Plan;

static void
plan_clear (Plan *self, FerryStore *store)
{
  for (guint i = 0; self->refs != NULL && i < self->refs->len; i++)
    ferry_store_release_cell (store, FERRY_CELL (FERRY_CELL_OBJECT, g_array_index (self->refs, FerryRef, i)));
  g_clear_pointer (&self->refs, g_array_unref);
  g_clear_pointer (&self->moved, g_array_unref);
  g_clear_pointer (&self->bytes, g_byte_array_unref);
}

/* Inside a stretch of work. */
static gboolean make_cell (FerryStore *store, GVariant *variant, FerryCell *cell, guint levels, GError **error);

/* What is in variants and maybes: a full reference; NULL: nothing. */
static GVariant *
unwrap (GVariant *variant)
{
  g_variant_ref (variant);
  while (g_variant_is_of_type (variant, G_VARIANT_TYPE_VARIANT) || g_variant_is_of_type (variant, G_VARIANT_TYPE_MAYBE))
    {
      GVariant *child = g_variant_n_children (variant) > 0 ? g_variant_get_child_value (variant, 0) : NULL;

      g_variant_unref (variant);
      if (child == NULL)
        return NULL;
      variant = child;
    }
  return variant;
}

static gboolean
is_mutable (GVariant *variant)
{
  return g_variant_is_of_type (variant, G_VARIANT_TYPE_ARRAY)
         && !g_variant_is_of_type (variant, G_VARIANT_TYPE_BYTESTRING);
}

/* Integers of whatever type. */
static gboolean
get_int (GVariant *variant, gint64 *number)
{
  switch (g_variant_classify (variant))
    {
    case G_VARIANT_CLASS_BYTE:
      *number = g_variant_get_byte (variant);
      return TRUE;
    case G_VARIANT_CLASS_INT16:
      *number = g_variant_get_int16 (variant);
      return TRUE;
    case G_VARIANT_CLASS_UINT16:
      *number = g_variant_get_uint16 (variant);
      return TRUE;
    case G_VARIANT_CLASS_INT32:
      *number = g_variant_get_int32 (variant);
      return TRUE;
    case G_VARIANT_CLASS_UINT32:
      *number = g_variant_get_uint32 (variant);
      return TRUE;
    case G_VARIANT_CLASS_HANDLE:
      *number = g_variant_get_handle (variant);
      return TRUE;
    case G_VARIANT_CLASS_INT64:
      *number = g_variant_get_int64 (variant);
      return TRUE;
    case G_VARIANT_CLASS_UINT64:
      *number = (gint64) MIN (g_variant_get_uint64 (variant), (guint64) G_MAXINT64);
      return g_variant_get_uint64 (variant) <= G_MAXINT64;
    default:
      return FALSE;
    }
}

/* hash() of an integer as CPython computes it: modulo 2**61 - 1. */
static guint32
hash_big_int (const guint8 *data, gsize size)
{
  const guint64 modulus = (G_GUINT64_CONSTANT (1) << 61) - 1;
  gboolean negative = (data[size - 1] & 0x80) != 0;
  guint64 hash = 0;
  gboolean borrow = TRUE; /* the magnitude of a negative is the complement plus one */
  g_autofree guint8 *magnitude = g_memdup2 (data, size);

  for (gsize i = 0; negative && i < size; i++)
    {
      magnitude[i] = (guint8) (~magnitude[i] + borrow);
      borrow = borrow && magnitude[i] == 0;
    }
  for (gsize i = size; i-- > 0;)
    {
      hash = (hash << 8 & modulus) | hash >> (61 - 8);
      hash += magnitude[i];
      hash = hash >= modulus ? hash - modulus : hash;
    }
  return ferry_key_hash_int (negative ? -(gint64) hash : (gint64) hash);
}

static gsize
shorten_int (const guint8 *data, gsize size)
{
  while (size > 1
         && ((data[size - 1] == 0 && data[size - 2] < 0x80) || (data[size - 1] == 0xff && data[size - 2] >= 0x80)))
    size--;
  return size;
}

/* Of UTF-8 with surrogates: code units of the least width. FALSE: it is none. */
static gboolean
decode_text (const char *text, gsize size, GByteArray *units, guint *width, gboolean *is_ascii)
{
  g_autofree gunichar *characters = g_new (gunichar, size + 1);
  gsize n = 0;
  gunichar max = 0;

  for (gsize i = 0; i < size;)
    {
      guint8 c = (guint8) text[i];
      guint length = c < 0x80 ? 1 : c >= 0xf0 && c < 0xf8 ? 4 : c >= 0xe0 ? 3 : c >= 0xc0 ? 2 : 0;
      gunichar character = length == 1 ? c : c & (0xffu >> (length + 1));

      if (length == 0 || c >= 0xf8 || size - i < length)
        return FALSE;
      for (guint j = 1; j < length; j++)
        {
          if ((text[i + j] & 0xc0) != 0x80)
            return FALSE;
          character = character << 6 | (text[i + j] & 0x3f);
        }
      if (character > 0x10ffff)
        return FALSE;
      characters[n++] = character;
      max = MAX (max, character);
      i += length;
    }
  *width = max > 0xffff ? 4 : max > 0xff ? 2 : 1;
  *is_ascii = max < 0x80;
  for (gsize i = 0; i < n; i++)
    {
      guint8 one = (guint8) characters[i];
      guint16 two = (guint16) characters[i];

      g_byte_array_append (units,
                           *width == 1   ? &one
                           : *width == 2 ? (const guint8 *) &two
                                         : (const guint8 *) &characters[i],
                           *width);
    }
  return TRUE;
}

static FerryCell
inline_cell (FerryCellTag tag, const guint8 *data, gsize size)
{
  guint64 payload = (guint64) size << 40;

  for (gsize i = 0; i < size; i++)
    payload |= (guint64) data[i] << (8 * i);
  return FERRY_CELL (tag, payload);
}

/* Takes the data of something that is no container apart: inline in @cell, or appended to @bytes with @head saying what it is.
 * @hash: as a key. */
static gboolean
plan_scalar (FerryStore *store, GVariant *variant, FerryCell *cell, FerryLeaf *head, GByteArray *bytes, guint32 *hash,
             GError **error)
{
  gsize at = bytes->len;
  gint64 number;

  *cell = FERRY_CELL (FERRY_CELL_LEAF, 0);
  if (variant == NULL)
    {
      *cell = FERRY_CELL_NONE;
      *hash = ferry_key_hash_data ((FerryLeafKind) 0, cell, sizeof *cell);
      return TRUE;
    }
  if (g_variant_is_of_type (variant, G_VARIANT_TYPE_BOOLEAN))
    {
      gboolean is_true = g_variant_get_boolean (variant);

      *cell = FERRY_CELL (FERRY_CELL_CONSTANT, is_true ? FERRY_CONSTANT_TRUE : FERRY_CONSTANT_FALSE);
      *hash = ferry_key_hash_int (is_true);
      return TRUE;
    }
  if (get_int (variant, &number))
    {
      *hash = ferry_key_hash_int (number);
      if (number >= FERRY_CELL_INT_MIN && number <= FERRY_CELL_INT_MAX)
        {
          *cell = FERRY_CELL (FERRY_CELL_INT, number);
          return TRUE;
        }
      number = GINT64_TO_LE (number);
      g_byte_array_append (bytes, (const guint8 *) &number,
                           (guint) shorten_int ((const guint8 *) &number, sizeof number));
      head->kind = FERRY_LEAF_INT;
    }
  else if (g_variant_is_of_type (variant, G_VARIANT_TYPE_UINT64))
    {
      guint64 positive = GUINT64_TO_LE (g_variant_get_uint64 (variant));
      guint8 zero = 0;

      g_byte_array_append (bytes, (const guint8 *) &positive, sizeof positive);
      g_byte_array_append (bytes, &zero, 1);
      head->kind = FERRY_LEAF_INT;
      *hash = hash_big_int (bytes->data + at, bytes->len - at);
    }
  else if (g_variant_is_of_type (variant, G_VARIANT_TYPE_DOUBLE))
    {
      double real = g_variant_get_double (variant);
      FerryCell bits;

      *hash = ferry_key_hash_float (real);
      memcpy (&bits, &real, sizeof bits);
      if (ferry_cell_tag (bits) == FERRY_CELL_FLOAT)
        {
          *cell = bits;
          return TRUE;
        }
      g_byte_array_append (bytes, (const guint8 *) &real, sizeof real);
      head->kind = FERRY_LEAF_FLOAT;
    }
  else if (g_variant_is_of_type (variant, G_VARIANT_TYPE_BYTESTRING))
    {
      gsize size;
      const guint8 *data = g_variant_get_fixed_array (variant, &size, 1);

      *hash = ferry_key_hash_data (FERRY_LEAF_BYTES, data, size);
      if (size <= FERRY_CELL_INLINE_MAX)
        {
          *cell = inline_cell (FERRY_CELL_BYTES, data, size);
          return TRUE;
        }
      if (size > G_MAXUINT / 2)
        {
          g_set_error (error, FERRY_ERROR, FERRY_ERROR_TOO_BIG,
                       "%s: bytes of %" G_GSIZE_FORMAT " bytes; from C values of up to 2 GB can be set; set a tensor",
                       store->label, size);
          return FALSE;
        }
      g_byte_array_append (bytes, data, (guint) size);
      head->kind = FERRY_LEAF_BYTES;
    }
  else
    {
      /* s, o, g; or ("str", ay), ("int", ay) */
      g_autoptr (GVariant) boxed = NULL;
      g_autoptr (GVariant) inner = NULL;
      const char *name = "str";
      const char *text;
      gsize size;
      guint width;
      gboolean is_ascii;

      if (g_variant_is_of_type (variant, G_VARIANT_TYPE ("(sv)")))
        {
          g_variant_get (variant, "(&sv)", &name, &boxed);
          inner = g_variant_ref (boxed);
          text = g_variant_get_fixed_array (inner, &size, 1);
        }
      else
        {
          text = g_variant_get_string (variant, &size);
        }
      if (*name == 'i')
        {
          size = shorten_int ((const guint8 *) text, size);
          g_byte_array_append (bytes, (const guint8 *) text, (guint) size);
          *hash = hash_big_int (bytes->data + at, size);
          head->kind = FERRY_LEAF_INT;
          if (size <= sizeof number)
            {
              Value value;
              FerryLeaf leaf = { .kind = FERRY_LEAF_INT, .size = size };
              guint8 memory[sizeof leaf + sizeof number];

              memcpy (memory, &leaf, sizeof leaf);
              memcpy (memory + sizeof leaf, text, size);
              value_init (&value, FERRY_CELL (FERRY_CELL_LEAF, 0), memory);
              if (value_get_int (&value, &number) && number >= FERRY_CELL_INT_MIN && number <= FERRY_CELL_INT_MAX)
                {
                  *cell = FERRY_CELL (FERRY_CELL_INT, number);
                  g_byte_array_set_size (bytes, (guint) at);
                }
            }
          return TRUE;
        }
      if (size > G_MAXUINT / 8)
        {
          g_set_error (error, FERRY_ERROR, FERRY_ERROR_TOO_BIG,
                       "%s: a str of %" G_GSIZE_FORMAT " bytes; from C up to 512 MB can be set", store->label, size);
          return FALSE;
        }
      if (!decode_text (text, size, bytes, &width, &is_ascii))
        {
          g_set_error (error, FERRY_ERROR, FERRY_ERROR_INVALID_ARGUMENT, "%s: (\"str\", ...) is not UTF-8",
                       store->label);
          return FALSE;
        }
      *hash = ferry_key_hash_data (FERRY_LEAF_STR, bytes->data + at, bytes->len - at);
      if (width == 1 && bytes->len - at <= FERRY_CELL_INLINE_MAX)
        {
          *cell = inline_cell (FERRY_CELL_STR, bytes->data + at, bytes->len - at);
          g_byte_array_set_size (bytes, (guint) at);
          return TRUE;
        }
      head->kind = FERRY_LEAF_STR;
      head->flags = (guint8) (width | (is_ascii ? FERRY_LEAF_ASCII : 0));
    }
  return TRUE;
}

/* What ferry_store_get() makes of a str or int that GVariant has no type for. */
static gboolean
is_named_scalar (GVariant *variant)
{
  g_autoptr (GVariant) inner = NULL;
  const char *name;

  if (!g_variant_is_of_type (variant, G_VARIANT_TYPE ("(sv)")))
    return FALSE;
  g_variant_get (variant, "(&sv)", &name, &inner);
  return g_variant_is_of_type (inner, G_VARIANT_TYPE_BYTESTRING)
         && (strcmp (name, "str") == 0 || (strcmp (name, "int") == 0 && g_variant_n_children (inner) > 0));
}

static gboolean
is_tuple (GVariant *variant)
{
  return (g_variant_is_of_type (variant, G_VARIANT_TYPE_TUPLE)
          || g_variant_is_of_type (variant, G_VARIANT_TYPE_DICT_ENTRY))
         && !is_named_scalar (variant);
}

static gboolean
too_deep (FerryStore *store, GError **error)
{
  g_set_error (error, FERRY_ERROR, FERRY_ERROR_INVALID_ARGUMENT,
               "%s: the value has more than %d levels; make it flatter", store->label, LEVELS_MAX);
  return FALSE;
}

/* Appends the cells of a tuple, then the leaves that they refer to. */
static gboolean
plan_items (Plan *self, FerryStore *store, GVariant *variant, guint32 *hash, guint levels, GError **error)
{
  gsize n = g_variant_n_children (variant);
  gsize at = self->bytes->len;
  g_autofree guint32 *hashes = g_new0 (guint32, n + 1);

  if (levels > LEVELS_MAX)
    return too_deep (store, error);
  g_byte_array_set_size (self->bytes, (guint) (at + n * sizeof (FerryCell)));
  for (gsize i = 0; i < n; i++)
    {
      g_autoptr (GVariant) child = g_variant_get_child_value (variant, i);
      g_autoptr (GVariant) item = unwrap (child);
      gsize place = at + i * sizeof (FerryCell);
      FerryCell cell;

      if (item != NULL && is_mutable (item))
        {
          FerryRef ref;

          if (!make_cell (store, item, &cell, levels + 1, error))
            return FALSE;
          ref = ferry_cell_payload (cell);
          cell = FERRY_CELL (FERRY_CELL_OBJECT, self->refs->len);
          g_array_append_val (self->refs, ref);
          self->hashable = FALSE;
        }
      else
        {
          static const guint8 zeros[sizeof (FerryLeaf)];
          FerryLeaf head = { 0 };
          gsize before = self->bytes->len;
          gsize start = before + (sizeof cell - before % sizeof cell) % sizeof cell;

          g_byte_array_append (self->bytes, zeros, (guint) (start - before));
          g_byte_array_append (self->bytes, zeros, sizeof head);
          if (item != NULL && is_tuple (item))
            {
              cell = FERRY_CELL (FERRY_CELL_LEAF, 0);
              head.kind = FERRY_LEAF_TUPLE;
              if (!plan_items (self, store, item, &hashes[i], levels + 1, error))
                return FALSE;
            }
          else if (!plan_scalar (store, item, &cell, &head, self->bytes, &hashes[i], error))
            {
              return FALSE;
            }
          if (ferry_cell_tag (cell) == FERRY_CELL_LEAF)
            {
              head.size = self->bytes->len - start - sizeof head;
              memcpy (self->bytes->data + start, &head, sizeof head);
              cell = FERRY_CELL (FERRY_CELL_LEAF, start);
              g_array_append_val (self->moved, place);
            }
          else
            {
              g_byte_array_set_size (self->bytes, (guint) before);
            }
        }
      memcpy (self->bytes->data + place, &cell, sizeof cell);
      if (self->bytes->len > G_MAXUINT / 4)
        {
          g_set_error (error, FERRY_ERROR, FERRY_ERROR_TOO_BIG, "%s: a tuple of more than 1 GB; use a list",
                       store->label);
          return FALSE;
        }
    }
  *hash = ferry_key_hash_data (FERRY_LEAF_TUPLE, hashes, n * sizeof *hashes);
  return TRUE;
}

/* @variant: (nullable): not wrapped, not mutable. Clear it in any case. */
static gboolean
plan_init (Plan *self, FerryStore *store, GVariant *variant, guint levels, GError **error)
{
  FerryLeaf head = { 0 };

  memset (self, 0, sizeof *self);
  self->hashable = TRUE;
  self->cell = FERRY_CELL (FERRY_CELL_LEAF, 0);
  self->bytes = g_byte_array_new ();
  g_byte_array_append (self->bytes, (const guint8 *) &head, sizeof head);
  if (variant != NULL && is_tuple (variant))
    {
      self->refs = g_array_new (FALSE, FALSE, sizeof (FerryRef));
      self->moved = g_array_new (FALSE, FALSE, sizeof (gsize));
      head.kind = FERRY_LEAF_TUPLE;
      if (!plan_items (self, store, variant, &self->hash, levels + 1, error))
        return FALSE;
      if (self->refs->len > FERRY_LEAF_MAX_REFS)
        {
          g_set_error (error, FERRY_ERROR, FERRY_ERROR_TOO_BIG,
                       "%s: a tuple contains %u lists and dicts, at most %d can be; use a list", store->label,
                       self->refs->len, FERRY_LEAF_MAX_REFS);
          return FALSE;
        }
      for (guint i = 0; self->refs->len > 0 && i < self->moved->len; i++)
        {
          /* The references come before the data. */
          guint8 *place = self->bytes->data + g_array_index (self->moved, gsize, i);
          FerryCell cell;

          memcpy (&cell, place, sizeof cell);
          cell += self->refs->len * sizeof (FerryRef);
          memcpy (place, &cell, sizeof cell);
        }
    }
  else if (!plan_scalar (store, variant, &self->cell, &head, self->bytes, &self->hash, error))
    {
      return FALSE;
    }
  head.size = self->bytes->len - sizeof head;
  memcpy (self->bytes->data, &head, sizeof head);
  return TRUE;
}

/* Inside a stretch of work. */
static gboolean
plan_make (Plan *self, FerryStore *store, FerryCell *cell, GError **error)
{
  const FerryLeaf *head = (const FerryLeaf *) (const void *) self->bytes->data;

  *cell = self->cell;
  if (ferry_cell_tag (self->cell) != FERRY_CELL_LEAF)
    return TRUE;
  *cell = ferry_store_new_leaf (store, (FerryLeafKind) head->kind, head->flags, self->hashable ? self->hash : 0,
                                head->data, head->size,
                                self->refs != NULL ? (const FerryRef *) (const void *) self->refs->data : NULL,
                                self->refs != NULL ? self->refs->len : 0, error);
  if (*cell == 0)
    return FALSE;
  if (self->refs != NULL)
    g_array_set_size (self->refs, 0);
  return TRUE;
}

static int
key_equal_cb (const FerryKey *key, const FerryReading *candidate)
{
  const Plan *plan = key->user_data;
  Value a;
  Value b;

  value_init (&a, plan->cell, plan->bytes->data);
  value_init (&b, candidate->cell, candidate->leaf);
  return values_equal (&a, &b, 0);
}

static FerryKey
plan_key (Plan *self)
{
  const FerryLeaf *head = (const FerryLeaf *) (const void *) self->bytes->data;
  FerryKey key = { .cell = self->cell, .hash = self->hash, .equal = key_equal_cb, .user_data = self };

  if (ferry_cell_tag (self->cell) == FERRY_CELL_LEAF)
    {
      key.kind = head->kind;
      key.flags = head->flags;
      key.data = head->data;
      key.size = head->size;
    }
  return key;
}

/* The key for @variant; @plan is to be cleared in any case. */
static gboolean
make_key (FerryStore *store, GVariant *variant, Plan *plan, FerryKey *key, GError **error)
{
  g_autoptr (GVariant) inner = unwrap (variant);

  if (inner != NULL && is_mutable (inner))
    {
      memset (plan, 0, sizeof *plan);
      plan->hashable = FALSE;
    }
  else if (!plan_init (plan, store, inner, 0, error))
    {
      return FALSE;
    }
  if (!plan->hashable)
    {
      g_set_error (error, FERRY_ERROR, FERRY_ERROR_INVALID_ARGUMENT,
                   "%s: a key of type '%s' contains a list or dict, which can't be a key", store->label,
                   g_variant_get_type_string (variant));
      return FALSE;
    }
  *key = plan_key (plan);
  return TRUE;
}

static void
release_cells (FerryStore *store, GArray *cells)
{
  for (guint i = 0; i < cells->len; i++)
    ferry_store_release_cell (store, g_array_index (cells, FerryCell, i));
}

static gboolean
make_dict_cell (FerryStore *store, GVariant *variant, FerryCell *cell, guint levels, GError **error)
{
  gsize n = g_variant_n_children (variant);
  FerryRef dict;

  *cell = ferry_store_dict_new (store, FERRY_OBJECT_DICT, n, error);
  if (*cell == 0)
    return FALSE;
  dict = ferry_cell_payload (*cell);
  for (gsize i = 0; i < n; i++)
    {
      g_autoptr (GVariant) entry = g_variant_get_child_value (variant, i);
      g_autoptr (GVariant) key_variant = g_variant_get_child_value (entry, 0);
      g_autoptr (GVariant) value_variant = g_variant_get_child_value (entry, 1);
      FerryCell value = FERRY_CELL_EMPTY;
      FerryKey key;
      Plan plan;
      gboolean ok = make_key (store, key_variant, &plan, &key, error)
                    && make_cell (store, value_variant, &value, levels + 1, error);

      if (ok && ferry_store_dict_set (store, dict, &key, 0, value, FALSE, NULL, error) < 0)
        {
          ferry_store_release_cell (store, value);
          ok = FALSE;
        }
      plan_clear (&plan, store);
      if (!ok)
        {
          ferry_store_release_cell (store, *cell);
          return FALSE;
        }
    }
  return TRUE;
}

static gboolean
make_list_cell (FerryStore *store, GVariant *variant, FerryCell *cell, guint levels, GError **error)
{
  gsize n = g_variant_n_children (variant);
  g_autoptr (GArray) cells = g_array_sized_new (FALSE, FALSE, sizeof (FerryCell), (guint) MIN (n, 1 << 20));

  for (gsize i = 0; i < n; i++)
    {
      g_autoptr (GVariant) child = g_variant_get_child_value (variant, i);
      FerryCell item;

      if (!make_cell (store, child, &item, levels + 1, error))
        {
          release_cells (store, cells);
          return FALSE;
        }
      g_array_append_val (cells, item);
    }
  *cell = ferry_store_list_new (store, (const FerryCell *) (const void *) cells->data, cells->len, error);
  if (*cell == 0)
    release_cells (store, cells);
  return *cell != 0;
}

static gboolean
make_cell (FerryStore *store, GVariant *variant, FerryCell *cell, guint levels, GError **error)
{
  g_autoptr (GVariant) inner = unwrap (variant);
  Plan plan;
  gboolean ok;

  if (levels > LEVELS_MAX)
    return too_deep (store, error);
  if (inner != NULL && g_variant_is_of_type (inner, G_VARIANT_TYPE_DICTIONARY))
    return make_dict_cell (store, inner, cell, levels, error);
  if (inner != NULL && is_mutable (inner))
    return make_list_cell (store, inner, cell, levels, error);
  ok = plan_init (&plan, store, inner, levels, error) && plan_make (&plan, store, cell, error);
  plan_clear (&plan, store);
  return ok;
}

/* ---- finding a value by its path ---- */

typedef struct
{
  FerryStore *store;
  const char *path;
  GArray *steps; /* of FerryPathStep */
  gboolean at_root;
  gboolean is_relative; /* to an object, not to the root */
  Value value;
  FerryReading readings[2]; /* the current one has what @value is in, and holds what that refers to */
  guint current;
  gboolean holds;
  Plan plan;          /* of the key looked for last */
  FerrySnapshot keys; /* where it was found among others */
} Lookup;

static void
lookup_release (Lookup *self)
{
  if (self->holds)
    ferry_store_unhold_reading (self->store, &self->readings[self->current]);
  self->holds = FALSE;
}

static void
lookup_forget_key (Lookup *self)
{
  plan_clear (&self->plan, self->store);
  ferry_store_snapshot_clear (self->store, &self->keys);
}

static void
lookup_clear (Lookup *self)
{
  lookup_release (self);
  lookup_forget_key (self);
  ferry_reading_clear (&self->readings[0]);
  ferry_reading_clear (&self->readings[1]);
  g_clear_pointer (&self->steps, g_array_unref);
}

G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC (Lookup, lookup_clear)

/* @base: an object that the caller holds, from which the path starts; 0: the root. */
static gboolean
lookup_init (Lookup *self, FerryStore *store, FerryRef base, const char *path, GError **error)
{
  memset (self, 0, sizeof *self);
  self->store = store;
  self->path = path;
  self->at_root = base == 0;
  self->is_relative = base != 0;
  if (base != 0)
    value_init (&self->value, FERRY_CELL (FERRY_CELL_OBJECT, base), NULL);
  if (store->closed || store->fork_generation != ferry_fork_generation)
    {
      /* says that it is closed, or joins anew */
      if (!ferry_store_begin (store, error))
        return FALSE;
      ferry_store_end (store);
    }
  self->steps = ferry_store_path_parse (store->label, path, base != 0, error);
  return self->steps != NULL;
}

static const FerryPathStep *
lookup_step_at (const Lookup *self, guint i)
{
  return &g_array_index (self->steps, FerryPathStep, i);
}

/* What the first @n steps lead to, for messages. */
static char *
lookup_describe (const Lookup *self, guint n)
{
  if (n == 0)
    return g_strdup (self->is_relative ? "the object" : "the root");
  return g_strdup_printf ("'%.*s'", (int) MIN (lookup_step_at (self, n - 1)->end, G_MAXINT / 2), self->path);
}

static char *
describe_type (FerryStore *store, const Value *value)
{
  const char *name = NULL;

  if (value_tag (value) == FERRY_CELL_OBJECT)
    name = object_type_name (ferry_store_object_kind (store, ferry_cell_payload (value->cell)));
  else
    name = plain_type_name (value);
  return g_strdup_printf ("%s %s", name != NULL && strchr ("aeio", *name) != NULL ? "an" : "a",
                          name != NULL ? name : "value of no known kind");
}

/* The step @n leads nowhere, for what it starts from has no such elements. Always -1. */
static int
lookup_no_elements (const Lookup *self, guint n, const char *hint, GError **error)
{
  g_autofree char *where = lookup_describe (self, n);
  g_autofree char *type = describe_type (self->store, &self->value);

  g_set_error (error, FERRY_ERROR, FERRY_ERROR_NOT_FOUND, "%s: path '%s': %s is %s, which has no such elements%s%s",
               self->store->label, self->path, where, type, hint != NULL ? "; " : "", hint != NULL ? hint : "");
  return -1;
}

static gboolean
lookup_not_there (const Lookup *self, guint n, GError **error)
{
  g_autofree char *where = lookup_describe (self, n + 1);

  g_set_error (error, FERRY_ERROR, FERRY_ERROR_NOT_FOUND, "%s: there is no %s", self->store->label, where);
  return FALSE;
}

/* The number of a record's attribute. 1; 0: it has no field of that name; -1: error. */
static int
find_field (FerryStore *store, FerryRef record, const char *name, guint *field, GError **error)
{
  FerryReading reading = FERRY_READING_INIT;
  Value shape;
  gsize n;
  int found = read_shape (store, record, &reading, &shape, &n, error) ? 0 : -1;

  for (gsize i = SHAPE_FIRST_FIELD; found == 0 && i < n; i++)
    {
      Value item;

      if (value_item (&shape, i, &item) && value_is_text (&item, name))
        {
          *field = (guint) (i - SHAPE_FIRST_FIELD);
          found = 1;
        }
    }
  ferry_reading_clear (&reading);
  return found;
}

/* The key of a step into the dict or set @ref. 1, also when it is not there; 0: it is not there, and can't be made of a
 * GVariant; -1: error. */
static int
lookup_key (Lookup *self, FerryRef ref, const FerryPathStep *step, FerryKey *key, GError **error)
{
  g_autoptr (GVariant) wanted = NULL;
  gboolean is_key;
  int found = 0;

  lookup_forget_key (self);
  is_key = make_key (self->store, step->key, &self->plan, key, NULL);
  if (step->kind != FERRY_PATH_KEY)
    return is_key ? 1 : make_key (self->store, step->key, &self->plan, key, error) ? 1 : -1;
  if (is_key)
    found = ferry_store_dict_get (self->store, ref, key, NULL, error);
  if (found != 0)
    return found;

  /* Something that GVariant has no type for, a date for instance. */
  wanted = normalize (step->key);
  if (!ferry_store_snapshot (self->store, ref, &self->keys, error))
    return -1;
  for (gsize i = 0; found == 0 && i < self->keys.n;
       i += ferry_store_object_kind (self->store, ref) == FERRY_OBJECT_DICT ? 2 : 1)
    {
      FerryCell cell = self->keys.cells[i];
      const FerryLeaf *leaf;
      g_autoptr (GVariant) variant = NULL;
      Value value;

      if (ferry_cell_tag (cell) != FERRY_CELL_LEAF)
        continue;
      leaf = (const FerryLeaf *) (const void *) (self->keys.memory + ferry_cell_payload (cell));
      value_init (&value, cell, leaf);
      variant = value_to_variant (self->store, &value, NULL);
      if (variant == NULL || !g_variant_equal (variant, wanted))
        continue;
      *key = (FerryKey){ .cell = cell,
                         .hash = leaf->hash,
                         .kind = leaf->kind,
                         .flags = leaf->flags,
                         .data = value_data (&value),
                         .size = leaf->size };
      found = 1;
    }
  return found == 1 || is_key;
}

/* Step @n from the object @ref. 1; 0: there is none; -1: error. */
static int
lookup_step_object (Lookup *self, FerryRef ref, guint n, FerryReading *reading, GError **error)
{
  FerryStore *store = self->store;
  const FerryPathStep *step = lookup_step_at (self, n);
  FerryKey key;
  guint field;
  guint8 byte;
  gssize length;
  int found;

  if (step->kind == FERRY_PATH_END)
    return 0;
  switch (ferry_store_object_kind (store, ref))
    {
    case FERRY_OBJECT_LIST:
      if (step->kind != FERRY_PATH_INDEX)
        return lookup_no_elements (self, n, "those of a list have an [index]", error);
      return ferry_store_list_get (store, ref, (gssize) step->index, reading, error);

    case FERRY_OBJECT_DICT:
      found = lookup_key (self, ref, step, &key, error);
      if (found != 1)
        return found;
      return ferry_store_dict_get (store, ref, &key, reading, error);

    case FERRY_OBJECT_SET:
      found = lookup_key (self, ref, step, &key, error);
      if (found != 1)
        return found;
      found = ferry_store_dict_get (store, ref, &key, NULL, error);
      if (found != 1)
        return found;
      /* the key itself, which is in private memory */
      if (self->plan.bytes != NULL)
        value_init (&self->value, self->plan.cell, self->plan.bytes->data);
      else
        value_init (&self->value, key.cell, self->keys.memory + ferry_cell_payload (key.cell));
      return 2;

    case FERRY_OBJECT_RECORD:
      if (step->kind != FERRY_PATH_NAME)
        return lookup_no_elements (self, n, "it has attributes, .name", error);
      found = find_field (store, ref, g_variant_get_string (step->key, NULL), &field, error);
      if (found == 1)
        return ferry_store_record_get (store, ref, field, reading, error);
      if (found == 0)
        {
          g_autoptr (GError) local = NULL;
          FerryRef extra = ferry_store_record_extra (store, ref, FALSE, &local);

          if (extra != 0)
            {
              found = lookup_key (self, extra, step, &key, error);
              if (found == 1)
                found = ferry_store_dict_get (store, extra, &key, reading, error);
              ferry_store_unhold (store, extra);
            }
          else if (local != NULL)
            {
              g_propagate_error (error, g_steal_pointer (&local));
              found = -1;
            }
        }
      return found;

    case FERRY_OBJECT_BYTEARRAY:
      if (step->kind != FERRY_PATH_INDEX)
        return lookup_no_elements (self, n, "those of a bytearray have an [index]", error);
      length = ferry_store_bytearray_length (store, ref);
      if (length < 0 || step->index < -length || step->index >= length)
        return length < 0 ? -1 + 0 * ferry_store_set_corrupt (store, "a bytearray has no length", error) : 0;
      length = ferry_store_bytearray_read (store, ref, (gsize) (step->index < 0 ? step->index + length : step->index),
                                           &byte, 1, error);
      if (length <= 0)
        return (int) length;
      value_init (&self->value, FERRY_CELL (FERRY_CELL_INT, byte), NULL);
      return 2;

    case FERRY_OBJECT_ARRAY:
      return lookup_no_elements (self, n, "get the whole array with ferry_store_get_tensor()", error);

    case FERRY_OBJECT_SLOT:
    case FERRY_OBJECT_SHAPE:
    case FERRY_OBJECT_FREE:
    default:
      ferry_store_set_corrupt (store, "a value refers to what is no value", error);
      return -1;
    }
}

/* Step @n from something immutable. */
static int
lookup_step_leaf (Lookup *self, guint n, GError **error)
{
  const FerryPathStep *step = lookup_step_at (self, n);
  gsize first = 0;
  gint64 index = step->index;
  gsize count;
  Value item;

  if (!value_is_leaf (&self->value, FERRY_LEAF_TUPLE) && !value_is_leaf (&self->value, FERRY_LEAF_FROZENSET))
    return lookup_no_elements (self, n, NULL, error);
  if (!value_count (&self->value, &count))
    {
      ferry_store_set_corrupt (self->store, "an immutable value has parts that can't be", error);
      return -1;
    }
  if (self->value.head.kind == FERRY_LEAF_FROZENSET)
    {
      g_autoptr (GVariant) wanted = step->key != NULL ? normalize (step->key) : NULL;

      for (gsize i = 0; wanted != NULL && i < count; i++)
        {
          g_autoptr (GVariant) variant = NULL;

          if (!value_item (&self->value, i, &item))
            continue;
          variant = value_to_variant (self->store, &item, NULL);
          if (variant == NULL || !g_variant_equal (variant, wanted))
            continue;
          self->value = item;
          return 2;
        }
      return 0;
    }

  if (step->kind != FERRY_PATH_INDEX)
    return step->kind == FERRY_PATH_END ? 0 : lookup_no_elements (self, n, "those of a tuple have an [index]", error);
  if ((self->value.head.flags & FERRY_LEAF_NAMED) != 0)
    first = MIN (count, NAMED_FIRST_ITEM);
  count -= first;
  if (index < 0)
    index += (gint64) count;
  if (index < 0 || (guint64) index >= count)
    return 0;
  if (!value_item (&self->value, first + (gsize) index, &item))
    {
      ferry_store_set_corrupt (self->store, "an immutable value has a part that can't be", error);
      return -1;
    }
  self->value = item;
  return 2;
}

/* Goes the first @n steps. */
static gboolean
lookup_walk (Lookup *self, guint n, GError **error)
{
  for (guint i = 0; i < n; i++)
    {
      FerryReading *reading = &self->readings[1 - self->current];
      int found; /* 1: in @reading; 2: in private memory, or in what is held already */

      if (self->at_root)
        {
          FerryKey key;

          lookup_forget_key (self);
          if (!make_key (self->store, lookup_step_at (self, i)->key, &self->plan, &key, error))
            return FALSE;
          found = ferry_store_root_get (self->store, &key, reading, error);
        }
      else if (value_tag (&self->value) == FERRY_CELL_OBJECT)
        {
          found = lookup_step_object (self, ferry_cell_payload (self->value.cell), i, reading, error);
        }
      else
        {
          found = lookup_step_leaf (self, i, error);
        }
      if (found < 0)
        return FALSE;
      if (found == 0)
        return lookup_not_there (self, i, error);
      self->at_root = FALSE;
      if (found == 1)
        {
          lookup_release (self);
          self->current = 1 - self->current;
          self->holds = TRUE;
          value_init (&self->value, reading->cell, reading->leaf);
        }
    }
  return TRUE;
}

/* All of the path; the value is then in @self. */
static gboolean
lookup_all (Lookup *self, FerryStore *store, FerryRef base, const char *path, GError **error)
{
  return lookup_init (self, store, base, path, error) && lookup_walk (self, self->steps->len, error);
}

/* All but the last step, of which there must be one. */
static const FerryPathStep *
lookup_parent (Lookup *self, FerryStore *store, FerryRef base, const char *path, GError **error)
{
  if (!lookup_init (self, store, base, path, error))
    return NULL;
  if (self->steps->len == 0)
    {
      g_set_error (error, FERRY_ERROR, FERRY_ERROR_INVALID_ARGUMENT,
                   "%s: %s can't be changed as a whole; name a value in it", store->label,
                   base != 0 ? "an object" : "the root");
      return NULL;
    }
  return lookup_walk (self, self->steps->len - 1, error) ? lookup_step_at (self, self->steps->len - 1) : NULL;
}

/* ---- changing what the last step leads to ---- */

typedef enum
{
  CHANGE_SET,
  CHANGE_REMOVE,
  CHANGE_ADD,
} Change;

static int
cant_change (const Lookup *self, GError **error)
{
  g_autofree char *where = lookup_describe (self, self->steps->len - 1);
  g_autofree char *type = describe_type (self->store, &self->value);

  g_set_error (error, FERRY_ERROR, FERRY_ERROR_UNSUPPORTED,
               "%s: path '%s': %s is %s, whose elements can't be changed so; set it as a whole", self->store->label,
               self->path, where, type);
  return -1;
}

static int
change_key (Lookup *self, FerryRef dict, const FerryPathStep *last, Change change, FerryCell cell,
            FerryReading *reading, GError **error)
{
  FerryKey key;
  int found = lookup_key (self, dict, last, &key, error);

  if (found == 0 && change == CHANGE_SET)
    return make_key (self->store, last->key, &self->plan, &key, error) ? 0 : -1;
  if (found != 1)
    return found;
  switch (change)
    {
    case CHANGE_SET:
      return ferry_store_dict_set (self->store, dict, &key, 0, cell, FALSE, NULL, error) < 0 ? -1 : 1;
    case CHANGE_REMOVE:
      return ferry_store_dict_remove (self->store, dict, &key, NULL, error);
    case CHANGE_ADD:
    default:
      return ferry_store_dict_add (self->store, dict, &key, cell, reading, error);
    }
}

static int
change_list (Lookup *self, FerryRef list, const FerryPathStep *last, Change change, FerryCell cell,
             FerryReading *reading, GError **error)
{
  if (last->kind == FERRY_PATH_END && change == CHANGE_SET)
    return ferry_store_list_append (self->store, list, cell, error) ? 1 : -1;
  if (last->kind != FERRY_PATH_INDEX)
    return lookup_no_elements (self, self->steps->len - 1, "those of a list have an [index], a new one is [+]", error);
  switch (change)
    {
    case CHANGE_SET:
      return ferry_store_list_set (self->store, list, (gssize) last->index, cell, error);
    case CHANGE_REMOVE:
      {
        FerryReading removed = FERRY_READING_INIT;
        int found = ferry_store_list_pop (self->store, list, (gssize) last->index, &removed, error);

        if (found == 1)
          ferry_store_unhold_reading (self->store, &removed);
        ferry_reading_clear (&removed);
        return found;
      }
    case CHANGE_ADD:
    default:
      return ferry_store_list_add (self->store, list, (gssize) last->index, cell, reading, error);
    }
}

static int
change_record (Lookup *self, FerryRef record, const FerryPathStep *last, Change change, FerryCell cell,
               FerryReading *reading, GError **error)
{
  FerryStore *store = self->store;
  g_autoptr (GError) local = NULL;
  FerryRef extra;
  guint field;
  int found;

  if (last->kind != FERRY_PATH_NAME)
    return lookup_no_elements (self, self->steps->len - 1, "it has attributes, .name", error);
  found = find_field (store, record, g_variant_get_string (last->key, NULL), &field, error);
  if (found < 0)
    return -1;
  if (found == 1 && change == CHANGE_SET)
    return ferry_store_record_set (store, record, field, cell, error) < 0 ? -1 : 1;
  if (found == 1 && change == CHANGE_REMOVE)
    return ferry_store_record_set (store, record, field, FERRY_CELL_EMPTY, error);
  if (found == 1)
    return ferry_store_record_add (store, record, field, cell, reading, error);

  extra = ferry_store_record_extra (store, record, change == CHANGE_SET, &local);
  if (extra == 0)
    {
      if (local == NULL)
        return 0;
      g_propagate_error (error, g_steal_pointer (&local));
      return -1;
    }
  found = change_key (self, extra, last, change, cell, reading, error);
  ferry_store_unhold (store, extra);
  return found;
}

static int
change_byte (Lookup *self, FerryRef bytearray, const FerryPathStep *last, Change change, FerryCell cell, GError **error)
{
  guint8 byte = (guint8) ferry_cell_int (cell);
  gint64 index = last->index;
  gssize length = ferry_store_bytearray_length (self->store, bytearray);

  if (last->kind == FERRY_PATH_END && change == CHANGE_SET)
    index = length;
  else if (last->kind != FERRY_PATH_INDEX || change == CHANGE_ADD)
    return cant_change (self, error);
  if (change == CHANGE_SET
      && (ferry_cell_tag (cell) != FERRY_CELL_INT || ferry_cell_int (cell) < 0 || ferry_cell_int (cell) > G_MAXUINT8))
    {
      g_set_error (error, FERRY_ERROR, FERRY_ERROR_INVALID_ARGUMENT,
                   "%s: path '%s': an element of a bytearray is an integer from 0 to 255", self->store->label,
                   self->path);
      return -1;
    }
  if (index < 0)
    index += length;
  if (length < 0 || index < 0 || index > length || (index == length && last->kind != FERRY_PATH_END))
    return 0;
  return ferry_store_bytearray_splice (self->store, bytearray, (gsize) index, last->kind == FERRY_PATH_END ? 0 : 1,
                                       &byte, change == CHANGE_SET ? 1 : 0, error)
             ? 1
             : -1;
}

/* Changes the last step in what was found. 1: done; what was set is taken over; 0: there is none; -1: error. */
static int
lookup_change (Lookup *self, const FerryPathStep *last, Change change, FerryCell cell, FerryReading *reading,
               GError **error)
{
  FerryStore *store = self->store;
  FerryRef ref;

  if (self->at_root)
    {
      FerryKey key;

      lookup_forget_key (self);
      if (!make_key (store, last->key, &self->plan, &key, error))
        return -1;
      switch (change)
        {
        case CHANGE_SET:
          return ferry_store_root_set (store, &key, cell, error) ? 1 : -1;
        case CHANGE_REMOVE:
          return ferry_store_root_remove (store, &key, NULL, error);
        case CHANGE_ADD:
        default:
          return ferry_store_root_add (store, &key, cell, reading, error);
        }
    }
  if (value_tag (&self->value) != FERRY_CELL_OBJECT)
    return cant_change (self, error);
  ref = ferry_cell_payload (self->value.cell);
  switch (ferry_store_object_kind (store, ref))
    {
    case FERRY_OBJECT_LIST:
      return change_list (self, ref, last, change, cell, reading, error);

    case FERRY_OBJECT_DICT:
      if (last->kind == FERRY_PATH_END)
        return lookup_no_elements (self, self->steps->len - 1, "[+] is for lists", error);
      return change_key (self, ref, last, change, cell, reading, error);

    case FERRY_OBJECT_SET:
      if (change != CHANGE_REMOVE || last->kind == FERRY_PATH_END)
        return cant_change (self, error);
      return change_key (self, ref, last, change, cell, reading, error);

    case FERRY_OBJECT_RECORD:
      return change_record (self, ref, last, change, cell, reading, error);

    case FERRY_OBJECT_BYTEARRAY:
      return change_byte (self, ref, last, change, cell, error);

    case FERRY_OBJECT_ARRAY:
    case FERRY_OBJECT_SLOT:
    case FERRY_OBJECT_SHAPE:
    case FERRY_OBJECT_FREE:
    default:
      return cant_change (self, error);
    }
}

/* As above, of a cell that is ours; inside a stretch of work, which it ends. */
static gboolean
lookup_put (Lookup *self, const FerryPathStep *last, FerryCell cell, GError **error)
{
  int found = lookup_change (self, last, CHANGE_SET, cell, NULL, error);

  if (found != 1)
    ferry_store_release_cell (self->store, cell);
  ferry_store_end (self->store);
  return found == 0 ? lookup_not_there (self, self->steps->len - 1, error) : found > 0;
}

/* ---- the interface ---- */

GVariant *
ferry_store_get_at (FerryStore *self, FerryRef base, const char *path, GError **error)
{
  g_auto (Lookup) lookup = { 0 };
  g_autoptr (GPtrArray) items = NULL;
  FerrySnapshot names = { 0 };
  GVariant *made;

  if (!lookup_all (&lookup, self, base, path, error))
    return NULL;
  if (!lookup.at_root)
    return value_to_variant (self, &lookup.value, error);

  if (!ferry_store_snapshot (self, ferry_store_get_root (self), &names, error))
    {
      ferry_store_snapshot_clear (self, &names);
      return NULL;
    }
  items = g_ptr_array_new_with_free_func ((GDestroyNotify) g_variant_unref);
  for (gsize i = 0; i + 1 < names.n; i += 2)
    {
      g_autoptr (GError) local = NULL;
      g_autoptr (GVariant) name = NULL;
      g_autoptr (GString) name_path = g_string_new (NULL);
      GVariant *variant;
      Value value;

      value_init (&value, names.cells[i],
                  ferry_cell_tag (names.cells[i]) == FERRY_CELL_LEAF
                      ? names.memory + ferry_cell_payload (names.cells[i])
                      : NULL);
      name = value_to_variant (self, &value, &local);
      if (name != NULL)
        {
          ferry_store_path_append (name_path, name);
          variant = ferry_store_get (self, name_path->str, &local);
          if (variant != NULL)
            {
              g_ptr_array_add (items, g_steal_pointer (&name));
              g_ptr_array_add (items, variant);
            }
        }
      /* Somebody may have removed it meanwhile. */
      if (local != NULL && !g_error_matches (local, FERRY_ERROR, FERRY_ERROR_NOT_FOUND))
        {
          g_propagate_error (error, g_steal_pointer (&local));
          ferry_store_snapshot_clear (self, &names);
          return NULL;
        }
    }
  ferry_store_snapshot_clear (self, &names);
  made = make_dict (items);
  return g_variant_take_ref (made);
}

/**
 * ferry_store_get:
 * @self: a store
 * @path: where the value is
 * @error: return location for an error
 *
 * Reads a value with all that is in it.
 *
 * A *path* begins with a name of the root; `.name` is a key of a dict that is a str, or an attribute of an object; `[3]`
 * is an element of a list or tuple (negative: from the end), or a key of a dict that is an integer; `["a key with . in it"]` any str;
 * other keys stand in brackets in the text format of GVariant, such as `[1.5]`, `[true]`, `[(1, "x")]`. `[+]` is the place
 * behind the last element of a list, for ferry_store_set(). Examples: `cfg.servers[2].port`, `["my cfg"].limits["a.b"]`.
 * The empty path is the root itself.
 *
 * What values become: None is nothing, `mv`; bool, float, str are `b`, `d`, `s`; int is `x`, from 2^63 to 2^64-1 `t`, others
 * are `("int", ay)`, two's complement, little-endian; complex is `(dd)`; bytes and bytearray `ay`; a tuple a tuple of what its items are, or
 * `av` where that would be long; list, set and frozenset `av`; a dict `a{sv}` if all keys are str, else `a(vv)`; an object a dict of its
 * attributes; an ndarray `(saxaxay)`: format, shape, strides, elements ([method@Store.get_tensor] copies nothing). A str with zeros or lone surrogates is `("str", ay)`, a member
 * of an enumeration `(sv)`: its class, its name or value. Other immutable values are what codec `python` makes of them without an interpreter.
 *
 * Each list, dict and object is read at one instant; a value that contains several of them only in a transaction
 * ([method@Store.begin_transaction]).
 *
 * Errors: %FERRY_ERROR_NOT_FOUND, %FERRY_ERROR_PARSE (of the path), %FERRY_ERROR_UNSUPPORTED (values that contain themselves, more
 * than 128 levels, values that GVariant can't express), %FERRY_ERROR_CLOSED, %FERRY_ERROR_CORRUPT.
 *
 * Returns: (transfer full): the value; not floating
 *
 * Since: 1.0
 */
GVariant *
ferry_store_get (FerryStore *self, const char *path, GError **error)
{
  g_return_val_if_fail (FERRY_IS_STORE (self), NULL);
  g_return_val_if_fail (path != NULL, NULL);
  g_return_val_if_fail (error == NULL || *error == NULL, NULL);
  return ferry_store_get_at (self, 0, path, error);
}

/**
 * ferry_store_contains:
 * @self: a store
 * @path: see ferry_store_get()
 * @error: return location for an error
 *
 * Whether there is a value. Looks only; use ferry_store_wait() to wait for one.
 *
 * Errors: %FERRY_ERROR_PARSE, %FERRY_ERROR_CLOSED, %FERRY_ERROR_CORRUPT.
 *
 * Returns: %TRUE: there is; %FALSE without an error: there is none
 *
 * Since: 1.0
 */
gboolean
ferry_store_contains (FerryStore *self, const char *path, GError **error)
{
  g_auto (Lookup) lookup = { 0 };
  g_autoptr (GError) local = NULL;

  g_return_val_if_fail (FERRY_IS_STORE (self), FALSE);
  g_return_val_if_fail (path != NULL, FALSE);
  g_return_val_if_fail (error == NULL || *error == NULL, FALSE);

  if (lookup_all (&lookup, self, 0, path, &local))
    return TRUE;
  if (!g_error_matches (local, FERRY_ERROR, FERRY_ERROR_NOT_FOUND))
    g_propagate_error (error, g_steal_pointer (&local));
  return FALSE;
}

/* Cell @i of a class's or named tuple's description, a str. */
static char *
dup_item_text (const Value *value, gsize i)
{
  Value item;
  gboolean is_text;
  gsize n;
  GString *text;

  if (!value_count (value, &n) || i >= n || !value_item (value, i, &item))
    return NULL;
  text = value_get_text (&item, &is_text);
  if (text == NULL)
    return NULL;
  return is_text ? g_string_free (text, FALSE) : (g_string_free (text, TRUE), NULL);
}

char *
ferry_store_get_type_name_at (FerryStore *self, FerryRef base, const char *path, GError **error)
{
  g_auto (Lookup) lookup = { 0 };
  const char *name;
  char *class_name = NULL;

  if (!lookup_all (&lookup, self, base, path, error))
    return NULL;
  if (lookup.at_root)
    return g_strdup ("dict");
  if (value_tag (&lookup.value) == FERRY_CELL_OBJECT)
    {
      FerryRef ref = ferry_cell_payload (lookup.value.cell);
      FerryObjectKind kind = ferry_store_object_kind (self, ref);

      name = object_type_name (kind);
      if (kind == FERRY_OBJECT_RECORD)
        {
          FerryReading reading = FERRY_READING_INIT;
          Value shape;
          gsize n;
          gboolean ok = read_shape (self, ref, &reading, &shape, &n, error);

          if (ok)
            class_name = dup_item_text (&shape, SHAPE_NAME);
          ferry_reading_clear (&reading);
          if (!ok)
            return NULL;
        }
    }
  else
    {
      name = plain_type_name (&lookup.value);
      if (value_is_leaf (&lookup.value, FERRY_LEAF_TUPLE) && (lookup.value.head.flags & FERRY_LEAF_NAMED) != 0)
        {
          class_name = dup_item_text (&lookup.value, 1);
        }
      else if (value_is_leaf (&lookup.value, FERRY_LEAF_CODEC))
        {
          g_autoptr (GVariant) variant = value_to_variant (self, &lookup.value, NULL);

          if (variant != NULL && g_variant_is_of_type (variant, G_VARIANT_TYPE ("(sv)")))
            g_variant_get_child (variant, 0, "s", &class_name);
        }
    }
  if (class_name != NULL)
    return class_name;
  if (name == NULL)
    ferry_store_set_corrupt (self, "a value is of no known kind", error);
  return g_strdup (name);
}

/**
 * ferry_store_get_type_name:
 * @self: a store
 * @path: see ferry_store_get()
 * @error: return location for an error
 *
 * What a value is, by the name that Python has for it: `NoneType`, `bool`, `int`, `float`, `complex`, `str`, `bytes`, `bytearray`,
 * `tuple`, `list`, `dict`, `set`, `frozenset`, `ndarray`, or the qualified name of its class.
 *
 * Errors: as of ferry_store_get().
 *
 * Returns: (transfer full): the name of its type
 *
 * Since: 1.0
 */
char *
ferry_store_get_type_name (FerryStore *self, const char *path, GError **error)
{
  g_return_val_if_fail (FERRY_IS_STORE (self), NULL);
  g_return_val_if_fail (path != NULL, NULL);
  g_return_val_if_fail (error == NULL || *error == NULL, NULL);
  return ferry_store_get_type_name_at (self, 0, path, error);
}

/**
 * ferry_store_get_object_id:
 * @self: a store
 * @path: see ferry_store_get()
 * @error: return location for an error
 *
 * Tells whether two paths lead to the same list, dict, set, object, bytearray or ndarray.
 *
 * Errors: as of ferry_store_get().
 *
 * Returns: a number that no other object has as long as this one is there; 0 for immutable values, and on error
 *
 * Since: 1.0
 */
guint64
ferry_store_get_object_id (FerryStore *self, const char *path, GError **error)
{
  g_auto (Lookup) lookup = { 0 };

  g_return_val_if_fail (FERRY_IS_STORE (self), 0);
  g_return_val_if_fail (path != NULL, 0);
  g_return_val_if_fail (error == NULL || *error == NULL, 0);

  if (!lookup_all (&lookup, self, 0, path, error))
    return 0;
  if (lookup.at_root)
    return ferry_store_get_root (self);
  return value_tag (&lookup.value) == FERRY_CELL_OBJECT ? ferry_cell_payload (lookup.value.cell) : 0;
}

/* The object, held for the caller; 0: error. */
FerryRef
ferry_store_find_object_at (FerryStore *self, FerryRef base, const char *path, GError **error)
{
  g_auto (Lookup) lookup = { 0 };
  FerryRef ref;

  if (!lookup_all (&lookup, self, base, path, error))
    return 0;
  if (lookup.at_root || value_tag (&lookup.value) != FERRY_CELL_OBJECT)
    {
      g_autofree char *type = lookup.at_root ? g_strdup ("the root") : describe_type (self, &lookup.value);

      g_set_error (error, FERRY_ERROR, FERRY_ERROR_UNSUPPORTED,
                   "%s: '%s' is %s; only a list, dict, set, object, bytearray or ndarray can be referred to",
                   self->label, path, type);
      return 0;
    }
  ref = ferry_cell_payload (lookup.value.cell);
  return ferry_store_hold (self, ref, error) ? ref : 0;
}

/* @ref: an object that the caller holds. */
gboolean
ferry_store_put_object_at (FerryStore *self, FerryRef base, const char *path, FerryRef ref, GError **error)
{
  g_auto (Lookup) lookup = { 0 };
  const FerryPathStep *last = lookup_parent (&lookup, self, base, path, error);

  if (last == NULL || !ferry_store_begin (self, error))
    return FALSE;
  return lookup_put (&lookup, last, ferry_store_new_reference (self, ref), error);
}

/* The attributes of a record that are set, by name; NULL: error. */
static GPtrArray *
list_attributes (FerryStore *self, FerryRef ref, GError **error)
{
  Reader reader;
  FerrySnapshot snapshot = { 0 };
  FerryReading reading = FERRY_READING_INIT;
  g_autoptr (GPtrArray) names = g_ptr_array_new_with_free_func ((GDestroyNotify) g_variant_unref);
  Value shape;
  gsize n;
  gboolean ok;

  reader_init (&reader, self, error);
  ok = ferry_store_snapshot (self, ref, &snapshot, error) && read_shape (self, ref, &reading, &shape, &n, error);
  if (ok && (snapshot.n == 0 || snapshot.n != n - SHAPE_FIRST_FIELD + 1))
    ok = ferry_store_set_corrupt (self, "an object has other attributes than its class", error);
  for (gsize i = 0; ok && i < snapshot.n - 1; i++)
    {
      Value name;
      GVariant *variant = NULL;

      if (snapshot.cells[i] == FERRY_CELL_EMPTY)
        continue;
      if (value_item (&shape, SHAPE_FIRST_FIELD + i, &name))
        variant = read_text (&reader, &name);
      ok = variant != NULL;
      if (ok)
        g_ptr_array_add (names, g_variant_take_ref (variant));
    }
  ferry_reading_clear (&reading);
  if (ok && ferry_cell_tag (snapshot.cells[snapshot.n - 1]) == FERRY_CELL_OBJECT)
    {
      FerrySnapshot further = { 0 };

      ok = ferry_store_snapshot (self, ferry_cell_payload (snapshot.cells[snapshot.n - 1]), &further, error);
      for (gsize i = 0; ok && i < further.n; i += 2)
        {
          Value value;
          GVariant *variant;
          FerryCell cell = further.cells[i];

          value_init (&value, cell,
                      ferry_cell_tag (cell) == FERRY_CELL_LEAF ? further.memory + ferry_cell_payload (cell) : NULL);
          variant = read_value (&reader, &value, 0);
          ok = variant != NULL;
          if (ok)
            g_ptr_array_add (names, variant);
        }
      ferry_store_snapshot_clear (self, &further);
    }
  ferry_store_snapshot_clear (self, &snapshot);
  reader_clear (&reader);
  return ok ? g_steal_pointer (&names) : NULL;
}

gint64
ferry_store_get_length_at (FerryStore *self, FerryRef base, const char *path, GError **error)
{
  g_auto (Lookup) lookup = { 0 };
  g_autofree char *where = NULL;
  g_autofree char *type = NULL;
  const Value *value = &lookup.value;
  guint width;
  gsize n;

  if (!lookup_all (&lookup, self, base, path, error))
    return -1;
  if (lookup.at_root)
    return ferry_store_dict_length (self, ferry_store_get_root (self));
  switch (value_tag (value))
    {
    case FERRY_CELL_STR:
    case FERRY_CELL_BYTES:
      return (gint64) MIN (ferry_cell_payload (value->cell) >> 40, FERRY_CELL_INLINE_MAX);

    case FERRY_CELL_LEAF:
      switch (value->head.kind)
        {
        case FERRY_LEAF_STR:
          width = value->head.flags & FERRY_LEAF_WIDTH_MASK;
          return (gint64) (value->head.size / MAX (width, 1));
        case FERRY_LEAF_BYTES:
          return (gint64) value->head.size;
        case FERRY_LEAF_TUPLE:
        case FERRY_LEAF_FROZENSET:
          if (!value_count (value, &n))
            {
              ferry_store_set_corrupt (self, "an immutable value has parts that can't be", error);
              return -1;
            }
          if (value->head.kind == FERRY_LEAF_TUPLE && (value->head.flags & FERRY_LEAF_NAMED) != 0)
            n -= MIN (n, NAMED_FIRST_ITEM);
          return (gint64) n;
        default:
          break;
        }
      break;

    case FERRY_CELL_OBJECT:
      {
        FerryRef ref = ferry_cell_payload (value->cell);
        gssize length = -1;

        switch (ferry_store_object_kind (self, ref))
          {
          case FERRY_OBJECT_LIST:
            length = ferry_store_list_length (self, ref);
            break;
          case FERRY_OBJECT_DICT:
          case FERRY_OBJECT_SET:
            length = ferry_store_dict_length (self, ref);
            break;
          case FERRY_OBJECT_BYTEARRAY:
            length = ferry_store_bytearray_length (self, ref);
            break;
          case FERRY_OBJECT_RECORD:
            {
              g_autoptr (GPtrArray) names = list_attributes (self, ref, error);

              return names != NULL ? (gint64) names->len : -1;
            }
          case FERRY_OBJECT_ARRAY:
            {
              Array array = { 0 };

              if (!read_array_head (self, ref, &array, error))
                return -1;
              g_free (array.format);
              if (array.n_dimensions > 0)
                return array.shape[0];
              g_set_error (error, FERRY_ERROR, FERRY_ERROR_UNSUPPORTED,
                           "%s: '%s' is an ndarray without dimensions, which has no length", self->label, path);
              return -1;
            }
          case FERRY_OBJECT_SLOT:
          case FERRY_OBJECT_SHAPE:
          case FERRY_OBJECT_FREE:
          default:
            break;
          }
        if (length < 0)
          ferry_store_set_corrupt (self, "a container has no length", error);
        return length;
      }

    default:
      break;
    }
  type = describe_type (self, value);
  g_set_error (error, FERRY_ERROR, FERRY_ERROR_UNSUPPORTED, "%s: '%s' is %s, which has no length", self->label, path,
               type);
  return -1;
}

/**
 * ferry_store_get_length:
 * @self: a store
 * @path: see ferry_store_get()
 * @error: return location for an error
 *
 * How many elements a value has: characters of a str, bytes of a bytes or bytearray, elements along the first dimension of an ndarray,
 * attributes of an object.
 *
 * Errors: as of ferry_store_get(); %FERRY_ERROR_UNSUPPORTED (the value has no length).
 *
 * Returns: the length; -1 on error
 *
 * Since: 1.0
 */
gint64
ferry_store_get_length (FerryStore *self, const char *path, GError **error)
{
  g_return_val_if_fail (FERRY_IS_STORE (self), -1);
  g_return_val_if_fail (path != NULL, -1);
  g_return_val_if_fail (error == NULL || *error == NULL, -1);
  return ferry_store_get_length_at (self, 0, path, error);
}

static void
add_child (GPtrArray *children, const char *path, GVariant *key)
{
  GString *child = g_string_new (path);

  ferry_store_path_append (child, key);
  g_ptr_array_add (children, g_string_free (child, FALSE));
}

static void
add_index_children (GPtrArray *children, const char *path, gsize n)
{
  for (gsize i = 0; i < n; i++)
    g_ptr_array_add (children, g_strdup_printf ("%s[%" G_GSIZE_FORMAT "]", path, i));
}

/* Of a dict, set or the root. */
static gboolean
add_key_children (FerryStore *self, GPtrArray *children, const char *path, FerryRef ref, gsize width, GError **error)
{
  FerrySnapshot snapshot = { 0 };
  gboolean ok = ferry_store_snapshot (self, ref, &snapshot, error);

  for (gsize i = 0; ok && i < snapshot.n; i += width)
    {
      FerryCell cell = snapshot.cells[i];
      g_autoptr (GVariant) key = NULL;
      Value value;

      value_init (&value, cell,
                  ferry_cell_tag (cell) == FERRY_CELL_LEAF ? snapshot.memory + ferry_cell_payload (cell) : NULL);
      key = value_to_variant (self, &value, NULL);
      /* no path leads to keys that only Python can read */
      if (key != NULL)
        add_child (children, path, key);
    }
  ferry_store_snapshot_clear (self, &snapshot);
  return ok;
}

char **
ferry_store_list_children_at (FerryStore *self, FerryRef base, const char *path, GError **error)
{
  g_auto (Lookup) lookup = { 0 };
  g_autoptr (GPtrArray) children = g_ptr_array_new_with_free_func (g_free);
  g_autoptr (GPtrArray) names = NULL;
  gboolean ok = TRUE;
  gsize n;

  if (!lookup_all (&lookup, self, base, path, error))
    return NULL;
  if (lookup.at_root)
    {
      ok = add_key_children (self, children, path, ferry_store_get_root (self), 2, error);
    }
  else if (value_tag (&lookup.value) == FERRY_CELL_OBJECT)
    {
      FerryRef ref = ferry_cell_payload (lookup.value.cell);
      FerryObjectKind kind = ferry_store_object_kind (self, ref);
      gssize length;

      switch (kind)
        {
        case FERRY_OBJECT_LIST:
          length = ferry_store_list_length (self, ref);
          add_index_children (children, path, (gsize) MAX (length, 0));
          break;
        case FERRY_OBJECT_DICT:
        case FERRY_OBJECT_SET:
          ok = add_key_children (self, children, path, ref, kind == FERRY_OBJECT_DICT ? 2 : 1, error);
          break;
        case FERRY_OBJECT_RECORD:
          names = list_attributes (self, ref, error);
          ok = names != NULL;
          for (guint i = 0; ok && i < names->len; i++)
            add_child (children, path, names->pdata[i]);
          break;
        case FERRY_OBJECT_BYTEARRAY:
        case FERRY_OBJECT_ARRAY:
        case FERRY_OBJECT_SLOT:
        case FERRY_OBJECT_SHAPE:
        case FERRY_OBJECT_FREE:
        default:
          break;
        }
    }
  else if (value_is_leaf (&lookup.value, FERRY_LEAF_TUPLE) && value_count (&lookup.value, &n))
    {
      if ((lookup.value.head.flags & FERRY_LEAF_NAMED) != 0)
        n -= MIN (n, NAMED_FIRST_ITEM);
      add_index_children (children, path, n);
    }
  else if (value_is_leaf (&lookup.value, FERRY_LEAF_FROZENSET) && value_count (&lookup.value, &n))
    {
      for (gsize i = 0; i < n; i++)
        {
          g_autoptr (GVariant) key = NULL;
          Value item;

          if (value_item (&lookup.value, i, &item))
            key = value_to_variant (self, &item, NULL);
          if (key != NULL)
            add_child (children, path, key);
        }
    }
  if (!ok)
    return NULL;
  g_ptr_array_add (children, NULL);
  return (char **) g_ptr_array_free (g_steal_pointer (&children), FALSE);
}

/**
 * ferry_store_list_children:
 * @self: a store
 * @path: see ferry_store_get(); empty: the root
 * @error: return location for an error
 *
 * The paths of what is in a list, dict, set, tuple or object, at one instant; nothing for other values. Keys that only Python can
 * read are left out.
 *
 * Errors: as of ferry_store_get().
 *
 * Returns: (transfer full) (array zero-terminated=1): paths, each with @path at its beginning
 *
 * Since: 1.0
 */
char **
ferry_store_list_children (FerryStore *self, const char *path, GError **error)
{
  g_return_val_if_fail (FERRY_IS_STORE (self), NULL);
  g_return_val_if_fail (path != NULL, NULL);
  g_return_val_if_fail (error == NULL || *error == NULL, NULL);
  return ferry_store_list_children_at (self, 0, path, error);
}

typedef struct
{
  FerryStore *store;
  FerryRef ref;
} HeldArray;

static void
held_array_free (gpointer data)
{
  HeldArray *self = data;

  ferry_store_unhold (self->store, self->ref);
  g_object_unref (self->store);
  g_free (self);
}

FerryTensor *
ferry_store_get_tensor_at (FerryStore *self, FerryRef base, const char *path, GError **error)
{
  g_auto (Lookup) lookup = { 0 };
  Array array = { 0 };
  HeldArray *held;
  FerryTensor *tensor;
  FerryRef ref;

  if (!lookup_all (&lookup, self, base, path, error))
    return NULL;
  ref = ferry_cell_payload (lookup.value.cell);
  if (lookup.at_root || value_tag (&lookup.value) != FERRY_CELL_OBJECT
      || ferry_store_object_kind (self, ref) != FERRY_OBJECT_ARRAY)
    {
      g_autofree char *type = lookup.at_root ? g_strdup ("the root") : describe_type (self, &lookup.value);

      g_set_error (error, FERRY_ERROR, FERRY_ERROR_UNSUPPORTED, "%s: '%s' is %s, expected an ndarray", self->label,
                   path, type);
      return NULL;
    }
  if (!read_array_head (self, ref, &array, error))
    return NULL;
  if (!ferry_store_hold (self, ref, error))
    {
      g_free (array.format);
      return NULL;
    }
  held = g_new0 (HeldArray, 1);
  held->store = g_object_ref (self);
  held->ref = ref;
  tensor = array_to_tensor (&array, held_array_free, held, error);
  if (tensor == NULL)
    held_array_free (held);
  g_free (array.format);
  return tensor;
}

/**
 * ferry_store_get_tensor:
 * @self: a store
 * @path: where an ndarray is
 * @error: return location for an error
 *
 * An array where it lies: nothing is copied, and what is written to the elements is what others read. They are the users' to
 * synchronise. The array stays there as long as the tensor does, also when it is removed from the store or the store is
 * closed.
 *
 * Errors: as of ferry_store_get(); %FERRY_ERROR_UNSUPPORTED (the value is no ndarray), %FERRY_ERROR_CORRUPT,
 * %FERRY_ERROR_INVALID_ARGUMENT (its elements are of no kind that [struct@Tensor] knows).
 *
 * Returns: (transfer full): a tensor on the memory of the store
 *
 * Since: 1.0
 */
FerryTensor *
ferry_store_get_tensor (FerryStore *self, const char *path, GError **error)
{
  g_return_val_if_fail (FERRY_IS_STORE (self), NULL);
  g_return_val_if_fail (path != NULL, NULL);
  g_return_val_if_fail (error == NULL || *error == NULL, NULL);
  return ferry_store_get_tensor_at (self, 0, path, error);
}

gboolean
ferry_store_set_at (FerryStore *self, FerryRef base, const char *path, GVariant *value, GError **error)
{
  g_auto (Lookup) lookup = { 0 };
  g_autoptr (GVariant) sunk = NULL;
  const FerryPathStep *last;
  FerryCell cell;

  sunk = g_variant_ref_sink (value);
  last = lookup_parent (&lookup, self, base, path, error);
  if (last == NULL || !ferry_store_begin (self, error))
    return FALSE;
  if (!make_cell (self, sunk, &cell, 0, error))
    {
      ferry_store_end (self);
      return FALSE;
    }
  return lookup_put (&lookup, last, cell, error);
}

/**
 * ferry_store_set:
 * @self: a store
 * @path: where the value is to be; see ferry_store_get()
 * @value: the value; if it is floating, it is taken over
 * @error: return location for an error
 *
 * Sets a value, in one step: others see the one before or all of this one. The last step of the path is made if it is not there yet, the steps before
 * it must be there.
 *
 * What a GVariant becomes: integers int, `d` float, `b` bool; `s`, `o`, `g` str; `ay` bytes; dictionaries dict, other
 * arrays list, tuples tuple; `v` and `m` what is in them, or None. `("int", <ay>)` and `("str", <ay>)`, boxed as ferry_store_get() gives
 * them, become what they stand for.
 *
 * Errors: %FERRY_ERROR_NOT_FOUND (a step before the last, an index beyond the end), %FERRY_ERROR_PARSE, %FERRY_ERROR_UNSUPPORTED (what is in a
 * tuple, set or ndarray can't be set), %FERRY_ERROR_INVALID_ARGUMENT (more than 128 levels), %FERRY_ERROR_NO_SPACE,
 * %FERRY_ERROR_TOO_BIG, %FERRY_ERROR_TIMED_OUT (somebody is stopped in the middle of a change), %FERRY_ERROR_CLOSED, %FERRY_ERROR_CORRUPT.
 *
 * Returns: %TRUE on success
 *
 * Since: 1.0
 */
gboolean
ferry_store_set (FerryStore *self, const char *path, GVariant *value, GError **error)
{
  g_return_val_if_fail (FERRY_IS_STORE (self), FALSE);
  g_return_val_if_fail (path != NULL, FALSE);
  g_return_val_if_fail (value != NULL, FALSE);
  g_return_val_if_fail (error == NULL || *error == NULL, FALSE);
  return ferry_store_set_at (self, 0, path, value, error);
}

/* The leaf that says what an array is. */
static FerryCell
make_description (FerryStore *self, FerryTensor *tensor, const gint64 *strides, GError **error)
{
  GVariantBuilder builder;
  g_autoptr (GVariant) tuple = NULL;
  Plan plan;
  FerryCell cell = 0;
  guint n;
  const gint64 *shape = ferry_tensor_get_shape (tensor, &n);

  g_variant_builder_init (&builder, G_VARIANT_TYPE_TUPLE);
  g_variant_builder_add (&builder, "s", ferry_tensor_get_format (tensor));
  g_variant_builder_add (&builder, "x", G_GINT64_CONSTANT (0));
  g_variant_builder_add (&builder, "x", (gint64) n);
  for (guint i = 0; i < n; i++)
    g_variant_builder_add (&builder, "x", shape[i]);
  for (guint i = 0; i < n; i++)
    g_variant_builder_add (&builder, "x", strides[i]);
  tuple = g_variant_ref_sink (g_variant_builder_end (&builder));
  if (plan_init (&plan, self, tuple, 0, error))
    {
      FerryLeaf *head = (FerryLeaf *) (void *) plan.bytes->data;

      head->kind = FERRY_LEAF_ARRAY;
      plan.hashable = FALSE;
      if (!plan_make (&plan, self, &cell, error))
        cell = 0;
    }
  plan_clear (&plan, self);
  return cell;
}

gboolean
ferry_store_set_tensor_at (FerryStore *self, FerryRef base, const char *path, FerryTensor *tensor, GError **error)
{
  g_auto (Lookup) lookup = { 0 };
  const FerryPathStep *last;
  gint64 strides[FERRY_TENSOR_MAX_DIMENSIONS];
  const gint64 *shape;
  const gint64 *given;
  gint64 stride;
  gsize size;
  guint n;
  gboolean by_columns;
  FerryCell description;
  FerryCell cell = 0;

  size = ferry_tensor_get_size_bytes (tensor);
  shape = ferry_tensor_get_shape (tensor, &n);
  given = ferry_tensor_get_strides (tensor, NULL);
  by_columns = !ferry_tensor_is_c_contiguous (tensor) && ferry_tensor_is_f_contiguous (tensor);
  stride = (gint64) ferry_tensor_get_item_size (tensor);
  for (guint i = n; i-- > 0; stride *= MAX (shape[i], 1))
    strides[i] = by_columns ? given[i] : stride;

  last = lookup_parent (&lookup, self, base, path, error);
  if (last == NULL || !ferry_store_begin (self, error))
    return FALSE;
  description = make_description (self, tensor, strides, error);
  if (description != 0)
    {
      cell = ferry_store_array_new (self, description, NULL, size, error);
      if (cell == 0)
        ferry_store_release_cell (self, description);
    }
  if (cell != 0 && size > 0)
    {
      /* nobody else knows it yet */
      gsize room = 0;
      guint8 *data = ferry_store_array_data (self, ferry_cell_payload (cell), &room, NULL, error);

      if (data == NULL || room != size)
        {
          if (data != NULL)
            ferry_store_set_corrupt (self, "a new array has another size", error);
          ferry_store_release_cell (self, cell);
          ferry_store_end (self);
          return FALSE;
        }
      if (by_columns)
        ferry_copy_memory (data, ferry_tensor_get_data (tensor), size);
      else
        ferry_tensor_store (tensor, data, size);
    }
  if (cell == 0)
    {
      ferry_store_end (self);
      return FALSE;
    }
  return lookup_put (&lookup, last, cell, error);
}

/**
 * ferry_store_set_tensor:
 * @self: a store
 * @path: where the array is to be; see ferry_store_get()
 * @tensor: an array
 * @error: return location for an error
 *
 * Sets a copy of an array, an ndarray in Python, as ferry_store_set() sets other values. Arrays in Fortran order stay so.
 *
 * Errors: as of ferry_store_set().
 *
 * Returns: %TRUE on success
 *
 * Since: 1.0
 */
gboolean
ferry_store_set_tensor (FerryStore *self, const char *path, FerryTensor *tensor, GError **error)
{
  g_return_val_if_fail (FERRY_IS_STORE (self), FALSE);
  g_return_val_if_fail (path != NULL, FALSE);
  g_return_val_if_fail (tensor != NULL, FALSE);
  g_return_val_if_fail (error == NULL || *error == NULL, FALSE);
  return ferry_store_set_tensor_at (self, 0, path, tensor, error);
}

gboolean
ferry_store_remove_at (FerryStore *self, FerryRef base, const char *path, GError **error)
{
  g_auto (Lookup) lookup = { 0 };
  const FerryPathStep *last;
  int found;

  last = lookup_parent (&lookup, self, base, path, error);
  if (last == NULL)
    return FALSE;
  found = lookup_change (&lookup, last, CHANGE_REMOVE, FERRY_CELL_EMPTY, NULL, error);
  return found == 0 ? lookup_not_there (&lookup, lookup.steps->len - 1, error) : found > 0;
}

/**
 * ferry_store_remove:
 * @self: a store
 * @path: see ferry_store_get()
 * @error: return location for an error
 *
 * Removes a name of the root, a key of a dict, an element of a list (those behind it move up), of a bytearray or a set, an
 * attribute of an object.
 *
 * Errors: %FERRY_ERROR_NOT_FOUND, and as of ferry_store_set().
 *
 * Returns: %TRUE on success
 *
 * Since: 1.0
 */
gboolean
ferry_store_remove (FerryStore *self, const char *path, GError **error)
{
  g_return_val_if_fail (FERRY_IS_STORE (self), FALSE);
  g_return_val_if_fail (path != NULL, FALSE);
  g_return_val_if_fail (error == NULL || *error == NULL, FALSE);
  return ferry_store_remove_at (self, 0, path, error);
}

/* Takes @delta over, a number. Inside a stretch of work, which it ends. */
static gboolean
add_number (FerryStore *self, FerryRef base, const char *path, FerryCell delta, gint64 *sum_int, double *sum_double, gboolean *is_int,
            GError **error)
{
  g_auto (Lookup) lookup = { 0 };
  FerryReading reading = FERRY_READING_INIT;
  const FerryPathStep *last = lookup_parent (&lookup, self, base, path, error);
  int found = -1;

  if (last != NULL)
    found = lookup_change (&lookup, last, CHANGE_ADD, delta, &reading, error);
  ferry_store_release_cell (self, delta);
  ferry_store_end (self);
  if (found == 1)
    {
      Value value;

      value_init (&value, reading.cell, reading.leaf);
      *is_int = value_get_int (&value, sum_int);
      if (*is_int)
        *sum_double = (double) *sum_int;
      else if (value_get_double (&value, sum_double))
        *sum_int = *sum_double >= 0x1p63 ? G_MAXINT64 : *sum_double >= -0x1p63 ? (gint64) *sum_double : G_MININT64;
    }
  ferry_reading_clear (&reading);
  return found == 0 ? lookup_not_there (&lookup, lookup.steps->len - 1, error) : found > 0;
}

gboolean
ferry_store_add_int_at (FerryStore *self, FerryRef base, const char *path, gint64 delta, gint64 *sum, GError **error)
{
  gint64 sum_int = 0;
  double sum_double = 0;
  gboolean is_int;
  FerryCell cell;

  if (!ferry_store_begin (self, error))
    return FALSE;
  cell = ferry_store_new_int (self, delta, error);
  if (cell == 0)
    {
      ferry_store_end (self);
      return FALSE;
    }
  if (!add_number (self, base, path, cell, &sum_int, &sum_double, &is_int, error))
    return FALSE;
  if (sum != NULL)
    *sum = sum_int;
  return TRUE;
}

/**
 * ferry_store_add_int:
 * @self: a store
 * @path: where a number is; see ferry_store_get()
 * @delta: what to add to it
 * @sum: (out) (optional): what it is then; of a float rounded toward zero
 * @error: return location for an error
 *
 * Adds to a number in one step, whatever others do to it at the same time.
 *
 * Errors: %FERRY_ERROR_NOT_FOUND, %FERRY_ERROR_UNSUPPORTED (no number, or the sum needs more than 64 bits), and as of
 * ferry_store_set().
 *
 * Returns: %TRUE on success
 *
 * Since: 1.0
 */
gboolean
ferry_store_add_int (FerryStore *self, const char *path, gint64 delta, gint64 *sum, GError **error)
{
  g_return_val_if_fail (FERRY_IS_STORE (self), FALSE);
  g_return_val_if_fail (path != NULL, FALSE);
  g_return_val_if_fail (error == NULL || *error == NULL, FALSE);
  return ferry_store_add_int_at (self, 0, path, delta, sum, error);
}

static gboolean
add_double (FerryStore *self, FerryRef base, const char *path, double delta, gint64 *sum_int, double *sum_double, gboolean *is_int,
            GError **error)
{
  g_autoptr (GError) local = NULL;
  FerryCell cell;

  if (!ferry_store_begin (self, error))
    return FALSE;
  cell = ferry_store_new_float (self, delta, &local);
  if (local != NULL)
    {
      ferry_store_end (self);
      g_propagate_error (error, g_steal_pointer (&local));
      return FALSE;
    }
  return add_number (self, base, path, cell, sum_int, sum_double, is_int, error);
}

gboolean
ferry_store_add_double_at (FerryStore *self, FerryRef base, const char *path, double delta, double *sum, GError **error)
{
  gint64 sum_int = 0;
  double sum_double = 0;
  gboolean is_int;

  if (!add_double (self, base, path, delta, &sum_int, &sum_double, &is_int, error))
    return FALSE;
  if (sum != NULL)
    *sum = sum_double;
  return TRUE;
}

/**
 * ferry_store_add_double:
 * @self: a store
 * @path: where a number is; see ferry_store_get()
 * @delta: what to add to it
 * @sum: (out) (optional): what it is then
 * @error: return location for an error
 *
 * Adds to a number in one step, as ferry_store_add_int(); the sum is a float.
 *
 * Errors: as of ferry_store_add_int().
 *
 * Returns: %TRUE on success
 *
 * Since: 1.0
 */
gboolean
ferry_store_add_double (FerryStore *self, const char *path, double delta, double *sum, GError **error)
{
  g_return_val_if_fail (FERRY_IS_STORE (self), FALSE);
  g_return_val_if_fail (path != NULL, FALSE);
  g_return_val_if_fail (error == NULL || *error == NULL, FALSE);
  return ferry_store_add_double_at (self, 0, path, delta, sum, error);
}

/**
 * ferry_store_add:
 * @self: a store
 * @path: where a number is; see ferry_store_get()
 * @delta: what to add to it: `d` or an integer; if it is floating, it is taken over
 * @error: return location for an error
 *
 * Adds to a number in one step, whatever others do to it at the same time.
 *
 * Errors: as of ferry_store_add_int(); %FERRY_ERROR_INVALID_ARGUMENT (@delta is no number).
 *
 * Returns: (transfer full): what it is then, `x` or `d`
 *
 * Since: 1.0
 */
GVariant *
ferry_store_add (FerryStore *self, const char *path, GVariant *delta, GError **error)
{
  g_autoptr (GVariant) sunk = NULL;
  g_autoptr (GVariant) inner = NULL;
  gint64 sum_int = 0;
  double sum_double = 0;
  gboolean is_int = TRUE;
  GVariant *sum;

  g_return_val_if_fail (FERRY_IS_STORE (self), NULL);
  g_return_val_if_fail (path != NULL, NULL);
  g_return_val_if_fail (delta != NULL, NULL);
  g_return_val_if_fail (error == NULL || *error == NULL, NULL);

  sunk = g_variant_ref_sink (delta);
  inner = unwrap (sunk);
  if (inner != NULL && get_int (inner, &sum_int))
    {
      FerryCell cell;

      if (!ferry_store_begin (self, error))
        return NULL;
      cell = ferry_store_new_int (self, sum_int, error);
      if (cell == 0)
        {
          ferry_store_end (self);
          return NULL;
        }
      if (!add_number (self, 0, path, cell, &sum_int, &sum_double, &is_int, error))
        return NULL;
    }
  else if (inner != NULL && g_variant_is_of_type (inner, G_VARIANT_TYPE_DOUBLE))
    {
      if (!add_double (self, 0, path, g_variant_get_double (inner), &sum_int, &sum_double, &is_int, error))
        return NULL;
    }
  else
    {
      g_set_error (error, FERRY_ERROR, FERRY_ERROR_INVALID_ARGUMENT,
                   "%s: expected a number of up to 64 bits to add, found one of type '%s'", self->label,
                   g_variant_get_type_string (sunk));
      return NULL;
    }
  sum = is_int ? g_variant_new_int64 (sum_int) : g_variant_new_double (sum_double);
  return g_variant_take_ref (sum);
}

/**
 * ferry_store_wait:
 * @self: a store
 * @path: see ferry_store_get()
 * @not_this: (nullable): a value to wait for the end of; %NULL: waits until there is any; if it is floating, it is taken over
 * @timeout: how long to wait, in microseconds; negative: for ever
 * @cancellable: (nullable): to give up
 * @error: return location for an error
 *
 * Waits until there is a value that differs from @not_this. Numbers are equal whatever type they have in a GVariant. Values that come and
 * go in between may be missed.
 *
 * Errors: %FERRY_ERROR_TIMED_OUT, %G_IO_ERROR_CANCELLED, and as of ferry_store_get() but %FERRY_ERROR_NOT_FOUND.
 *
 * Returns: (transfer full): the value
 *
 * Since: 1.0
 */
GVariant *
ferry_store_wait (FerryStore *self, const char *path, GVariant *not_this, gint64 timeout, GCancellable *cancellable,
                  GError **error)
{
  g_autoptr (GVariant) sunk = NULL;
  g_autoptr (GVariant) unwanted = NULL;
  gint64 started = g_get_monotonic_time ();

  g_return_val_if_fail (FERRY_IS_STORE (self), NULL);
  g_return_val_if_fail (path != NULL, NULL);
  g_return_val_if_fail (cancellable == NULL || G_IS_CANCELLABLE (cancellable), NULL);
  g_return_val_if_fail (error == NULL || *error == NULL, NULL);

  if (not_this != NULL)
    {
      sunk = g_variant_ref_sink (not_this);
      unwanted = normalize (sunk);
    }
  for (;;)
    {
      guint64 seen = ferry_store_watch (self);
      g_autoptr (GError) local = NULL;
      g_autoptr (GVariant) value = ferry_store_get (self, path, &local);
      gint64 left = timeout < 0 ? -1 : MAX (timeout - (g_get_monotonic_time () - started), 0);

      if (value != NULL && (unwanted == NULL || !g_variant_equal (value, unwanted)))
        return g_steal_pointer (&value);
      if (value == NULL && !g_error_matches (local, FERRY_ERROR, FERRY_ERROR_NOT_FOUND))
        {
          g_propagate_error (error, g_steal_pointer (&local));
          return NULL;
        }
      g_clear_error (&local);
      if (!ferry_store_wait_change (self, &seen, left, cancellable, &local))
        {
          if (!g_error_matches (local, FERRY_ERROR, FERRY_ERROR_TIMED_OUT))
            g_propagate_error (error, g_steal_pointer (&local));
          else
            g_set_error (error, FERRY_ERROR, FERRY_ERROR_TIMED_OUT, "%s: %s%s within %g s", self->label,
                         value != NULL ? "no other value at " : "there was no ", path,
                         (double) timeout / G_USEC_PER_SEC);
          return NULL;
        }
    }
}
