/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ferry-store-plan-private.h"

#include "ferry-error.h"

/* GVariants to values of a store. */

void
ferry_plan_clear (FerryPlan *self, FerryStore *store)
{
  for (guint i = 0; self->refs != NULL && i < self->refs->len; i++)
    ferry_store_release_cell (store, FERRY_CELL (FERRY_CELL_OBJECT, g_array_index (self->refs, FerryRef, i)));
  g_clear_pointer (&self->refs, g_array_unref);
  g_clear_pointer (&self->moved, g_array_unref);
  g_clear_pointer (&self->bytes, g_byte_array_unref);
}

GVariant *
ferry_variant_unwrap (GVariant *variant)
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

gboolean
ferry_variant_get_int (GVariant *variant, gint64 *number)
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
  if (ferry_variant_get_int (variant, &number))
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
              FerryView value;
              FerryLeaf leaf = { .kind = FERRY_LEAF_INT, .size = size };
              guint8 memory[sizeof leaf + sizeof number];

              memcpy (memory, &leaf, sizeof leaf);
              memcpy (memory + sizeof leaf, text, size);
              ferry_view_init (&value, FERRY_CELL (FERRY_CELL_LEAF, 0), memory);
              if (ferry_view_get_int (&value, &number) && number >= FERRY_CELL_INT_MIN && number <= FERRY_CELL_INT_MAX)
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
               "%s: the value has more than %d levels; make it flatter", store->label, FERRY_VARIANT_LEVELS_MAX);
  return FALSE;
}

/* Appends the cells of a tuple, then the leaves that they refer to. */
static gboolean
plan_items (FerryPlan *self, FerryStore *store, GVariant *variant, guint32 *hash, guint levels, GError **error)
{
  gsize n = g_variant_n_children (variant);
  gsize at = self->bytes->len;
  g_autofree guint32 *hashes = g_new0 (guint32, n + 1);

  if (levels > FERRY_VARIANT_LEVELS_MAX)
    return too_deep (store, error);
  g_byte_array_set_size (self->bytes, (guint) (at + n * sizeof (FerryCell)));
  for (gsize i = 0; i < n; i++)
    {
      g_autoptr (GVariant) child = g_variant_get_child_value (variant, i);
      g_autoptr (GVariant) item = ferry_variant_unwrap (child);
      gsize place = at + i * sizeof (FerryCell);
      FerryCell cell;

      if (item != NULL && is_mutable (item))
        {
          FerryRef ref;

          if (!ferry_plan_make_cell (store, item, &cell, levels + 1, error))
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

gboolean
ferry_plan_init (FerryPlan *self, FerryStore *store, GVariant *variant, guint levels, GError **error)
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
gboolean
ferry_plan_make (FerryPlan *self, FerryStore *store, FerryCell *cell, GError **error)
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
  const FerryPlan *plan = key->user_data;
  FerryView a;
  FerryView b;

  ferry_view_init (&a, plan->cell, plan->bytes->data);
  ferry_view_init (&b, candidate->cell, candidate->leaf);
  return ferry_views_equal (&a, &b, 0);
}

static FerryKey
plan_key (FerryPlan *self)
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

gboolean
ferry_plan_make_key (FerryStore *store, GVariant *variant, FerryPlan *plan, FerryKey *key, GError **error)
{
  g_autoptr (GVariant) inner = ferry_variant_unwrap (variant);

  if (inner != NULL && is_mutable (inner))
    {
      memset (plan, 0, sizeof *plan);
      plan->hashable = FALSE;
    }
  else if (!ferry_plan_init (plan, store, inner, 0, error))
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
      FerryPlan plan;
      gboolean ok = ferry_plan_make_key (store, key_variant, &plan, &key, error)
                    && ferry_plan_make_cell (store, value_variant, &value, levels + 1, error);

      if (ok && ferry_store_dict_set (store, dict, &key, 0, value, FALSE, NULL, error) < 0)
        {
          ferry_store_release_cell (store, value);
          ok = FALSE;
        }
      ferry_plan_clear (&plan, store);
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

      if (!ferry_plan_make_cell (store, child, &item, levels + 1, error))
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

gboolean
ferry_plan_make_cell (FerryStore *store, GVariant *variant, FerryCell *cell, guint levels, GError **error)
{
  g_autoptr (GVariant) inner = ferry_variant_unwrap (variant);
  FerryPlan plan;
  gboolean ok;

  if (levels > FERRY_VARIANT_LEVELS_MAX)
    return too_deep (store, error);
  if (inner != NULL && g_variant_is_of_type (inner, G_VARIANT_TYPE_DICTIONARY))
    return make_dict_cell (store, inner, cell, levels, error);
  if (inner != NULL && is_mutable (inner))
    return make_list_cell (store, inner, cell, levels, error);
  ok = ferry_plan_init (&plan, store, inner, levels, error) && ferry_plan_make (&plan, store, cell, error);
  ferry_plan_clear (&plan, store);
  return ok;
}
