/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ferry-store-to-variant-private.h"

#include "ferry-description-private.h"
#include "ferry-error.h"
#include "ferry-registry.h"
#include "ferry-store-tensor-private.h"

/* Values of a store to GVariants. */

/* Of FERRY_VARIANT_LEVELS_MAX, what containers take. */
#define LEVELS_OF_CONTAINER (2)
#define LEVELS_OF_PAIRS (3)

/* What is referred to from several places counts again: a few objects could else stand for more than fits into any
 * memory. Besides the cells of the store, each of which can be one. */
#define REPEATED_MAX (1 << 20)

/* What tuples with many items make of type strings. */
#define TUPLE_MAX (1024)
#define TYPE_STRING_MAX (16384)

typedef struct
{
  FerryStore *store;
  GHashTable *open; /* FerryRefs of the objects that we are within */
  guint64 n_values;
  FerryCodec *codec;
  GError **error;
} Reader;

/* A reference that is not floating. The functions for each kind may return either. */
static GVariant *read_value (Reader *self, const FerryView *value, guint levels);

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
read_text (Reader *self, const FerryView *value)
{
  gboolean is_text;
  GString *text = ferry_view_get_text (value, &is_text);
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
read_int (Reader *self, const FerryView *value)
{
  const guint8 *data = ferry_view_data (value);
  gsize size = value->head.size;
  gint64 number;

  if (ferry_view_get_int (value, &number))
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

GVariant *
ferry_variant_make_dict (const GPtrArray *items)
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
read_items (Reader *self, const FerryView *value, gsize first, guint levels)
{
  g_autoptr (GPtrArray) items = g_ptr_array_new_with_free_func ((GDestroyNotify) g_variant_unref);
  gsize n;

  if (!ferry_view_count (value, &n) || n < first)
    {
      corrupt (self, "an immutable value has parts that can't be");
      return NULL;
    }
  for (gsize i = first; i < n; i++)
    {
      FerryView item;
      GVariant *variant;

      if (!ferry_view_item (value, i, &item))
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
read_message (Reader *self, const FerryView *value)
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
  memcpy (ferry_buffer_get_writable_data (buffer, NULL), ferry_view_data (value), value->head.size);
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
read_leaf (Reader *self, const FerryView *value, guint levels)
{
  const guint8 *data = ferry_view_data (value);
  g_autoptr (GPtrArray) items = NULL;
  double numbers[2];

  switch (value->head.kind)
    {
    case FERRY_LEAF_FLOAT:
      if (!ferry_view_get_double (value, numbers))
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
      items = read_items (self, value, (value->head.flags & FERRY_LEAF_NAMED) != 0 ? FERRY_NAMED_FIRST_ITEM : 0,
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
      FerryView value;
      GVariant *variant;

      ferry_view_init (&value, cell,
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
  FerryView shape;
  gsize n;
  gboolean ok = ferry_view_read_shape (store, ref, &reading, &shape, &n, self->error);

  /* The last cell is the dict of further attributes. */
  if (ok && snapshot->n != n - FERRY_SHAPE_FIRST_FIELD + 1)
    ok = ferry_store_set_corrupt (store, "an object has other attributes than its class", self->error);
  for (gsize i = 0; ok && i < snapshot->n - 1; i++)
    {
      FerryCell cell = snapshot->cells[i];
      FerryView name;
      FerryView value;
      GVariant *key = NULL;
      GVariant *variant;

      if (cell == FERRY_CELL_EMPTY)
        continue;
      ferry_view_init (&value, cell,
                       ferry_cell_tag (cell) == FERRY_CELL_LEAF ? snapshot->memory + ferry_cell_payload (cell) : NULL);
      variant = read_value (self, &value, levels);
      if (variant != NULL && ferry_view_item (&shape, FERRY_SHAPE_FIRST_FIELD + i, &name))
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
  return ok ? ferry_variant_make_dict (items) : NULL;
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
  FerryArray array = { 0 };
  g_autoptr (FerryTensor) tensor = NULL;
  g_autoptr (FerryTensor) copy = NULL;
  g_autofree char *format = NULL;
  gconstpointer data;
  const gint64 *shape;
  const gint64 *strides;
  guint n;

  if (!ferry_array_read (self->store, ref, &array, self->error))
    return NULL;
  format = array.format;
  tensor = ferry_array_to_tensor (&array, NULL, NULL, self->error);
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
        variant = items->len % 2 == 0 ? ferry_variant_make_dict (items)
                                      : corrupt (self, "a dict has a key without a value");
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
read_plain (Reader *self, const FerryView *value, guint levels)
{
  guint8 data[FERRY_CELL_INLINE_MAX];
  double number;

  switch (ferry_view_tag (value))
    {
    case FERRY_CELL_FLOAT:
      memcpy (&number, &value->cell, sizeof number);
      return g_variant_new_double (number);

    case FERRY_CELL_INT:
      return g_variant_new_int64 (ferry_cell_int (value->cell));

    case FERRY_CELL_STR:
      return read_text (self, value);

    case FERRY_CELL_BYTES:
      return bytes_to_variant (data, ferry_view_inline_data (value->cell, data));

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
read_value (Reader *self, const FerryView *value, guint levels)
{
  GVariant *variant;

  if (levels + LEVELS_OF_PAIRS > FERRY_VARIANT_LEVELS_MAX)
    return unsupported (self, "more levels than 128");
  if (!spend (self, ferry_view_tag (value) == FERRY_CELL_LEAF ? value->head.size : 0))
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

GVariant *
ferry_view_to_variant (FerryStore *store, const FerryView *value, GError **error)
{
  Reader reader;
  GVariant *variant;

  reader_init (&reader, store, error);
  variant = read_value (&reader, value, 0);
  reader_clear (&reader);
  return variant;
}

GVariant *
ferry_variant_normalize (GVariant *variant)
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

          return ferry_variant_normalize (child);
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
              g_ptr_array_add (items, ferry_variant_normalize (key));
              g_ptr_array_add (items, ferry_variant_normalize (value));
            }
          else
            {
              g_ptr_array_add (items, ferry_variant_normalize (child));
            }
        }
      made = is_dict                          ? ferry_variant_make_dict (items)
             : class == G_VARIANT_CLASS_ARRAY ? make_list (items)
                                              : make_tuple (items);
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

GPtrArray *
ferry_store_attributes (FerryStore *self, FerryRef ref, GError **error)
{
  Reader reader;
  FerrySnapshot snapshot = { 0 };
  FerryReading reading = FERRY_READING_INIT;
  g_autoptr (GPtrArray) names = g_ptr_array_new_with_free_func ((GDestroyNotify) g_variant_unref);
  FerryView shape;
  gsize n;
  gboolean ok;

  reader_init (&reader, self, error);
  ok = ferry_store_snapshot (self, ref, &snapshot, error)
       && ferry_view_read_shape (self, ref, &reading, &shape, &n, error);
  if (ok && (snapshot.n == 0 || snapshot.n != n - FERRY_SHAPE_FIRST_FIELD + 1))
    ok = ferry_store_set_corrupt (self, "an object has other attributes than its class", error);
  for (gsize i = 0; ok && i < snapshot.n - 1; i++)
    {
      FerryView name;
      GVariant *variant = NULL;

      if (snapshot.cells[i] == FERRY_CELL_EMPTY)
        continue;
      if (ferry_view_item (&shape, FERRY_SHAPE_FIRST_FIELD + i, &name))
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
          FerryView value;
          GVariant *variant;
          FerryCell cell = further.cells[i];

          ferry_view_init (&value, cell,
                           ferry_cell_tag (cell) == FERRY_CELL_LEAF ? further.memory + ferry_cell_payload (cell)
                                                                    : NULL);
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
