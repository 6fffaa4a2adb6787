/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ferry-store-view-private.h"

void
ferry_view_init (FerryView *self, FerryCell cell, gconstpointer leaf)
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

gboolean
ferry_view_count (const FerryView *self, gsize *n)
{
  *n = self->head.size / sizeof (FerryCell);
  for (gsize i = 0; i < *n; i++)
    {
      FerryCell cell;
      guint64 at;

      memcpy (&cell, ferry_view_data (self) + i * sizeof cell, sizeof cell);
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

gboolean
ferry_view_item (const FerryView *self, gsize i, FerryView *item)
{
  guint64 payload;

  *item = *self;
  memcpy (&item->cell, ferry_view_data (self) + i * sizeof item->cell, sizeof item->cell);
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

gboolean
ferry_view_get_int (const FerryView *self, gint64 *number)
{
  switch (ferry_view_tag (self))
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
      *number = (ferry_view_data (self)[self->head.size - 1] & 0x80) != 0 ? -1 : 0;
      for (gsize i = self->head.size; i-- > 0;)
        *number = (gint64) ((guint64) *number << 8 | ferry_view_data (self)[i]);
      return TRUE;

    default:
      return FALSE;
    }
}

gboolean
ferry_view_get_double (const FerryView *self, double *number)
{
  if (ferry_view_tag (self) == FERRY_CELL_FLOAT)
    {
      memcpy (number, &self->cell, sizeof *number);
      return TRUE;
    }
  if (!ferry_view_is_leaf (self, FERRY_LEAF_FLOAT) || self->head.size != sizeof *number)
    return FALSE;
  memcpy (number, ferry_view_data (self), sizeof *number);
  return TRUE;
}

gsize
ferry_view_inline_data (FerryCell cell, guint8 data[FERRY_CELL_INLINE_MAX])
{
  gsize n = MIN (ferry_cell_payload (cell) >> 40, FERRY_CELL_INLINE_MAX);

  for (gsize i = 0; i < n; i++)
    data[i] = (guint8) (ferry_cell_payload (cell) >> (8 * i));
  return n;
}

GString *
ferry_view_get_text (const FerryView *self, gboolean *is_text)
{
  guint8 short_data[FERRY_CELL_INLINE_MAX];
  const guint8 *data = short_data;
  gsize width = 1;
  gsize n;
  GString *text;

  *is_text = TRUE;
  if (ferry_view_tag (self) == FERRY_CELL_STR)
    {
      n = ferry_view_inline_data (self->cell, short_data);
    }
  else
    {
      if (!ferry_view_is_leaf (self, FERRY_LEAF_STR))
        return NULL;
      width = self->head.flags & FERRY_LEAF_WIDTH_MASK;
      if ((width != 1 && width != 2 && width != 4) || self->head.size % width != 0)
        return NULL;
      n = self->head.size / width;
      data = ferry_view_data (self);
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

gboolean
ferry_view_is_text (const FerryView *self, const char *other)
{
  gboolean is_text;
  GString *text = ferry_view_get_text (self, &is_text);
  gboolean equal = text != NULL && is_text && strcmp (text->str, other) == 0;

  if (text != NULL)
    g_string_free (text, TRUE);
  return equal;
}

gboolean
ferry_views_equal (const FerryView *a, const FerryView *b, guint depth)
{
  gint64 a_int;
  gint64 b_int;
  double a_double;
  double b_double;
  gboolean a_is_int = ferry_view_get_int (a, &a_int);
  gboolean b_is_int = ferry_view_get_int (b, &b_int);
  gboolean a_is_double = ferry_view_get_double (a, &a_double);
  gboolean b_is_double = ferry_view_get_double (b, &b_double);
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
    return ferry_views_equal (b, a, depth);
  if (ferry_view_tag (a) != FERRY_CELL_LEAF || ferry_view_tag (b) != FERRY_CELL_LEAF)
    return a->cell == b->cell;
  if (a->head.kind != b->head.kind)
    return FALSE;
  if (a->head.kind != FERRY_LEAF_TUPLE)
    return a->head.flags == b->head.flags && a->head.size == b->head.size
           && memcmp (ferry_view_data (a), ferry_view_data (b), a->head.size) == 0;
  if (depth > FERRY_VARIANT_LEVELS_MAX || !ferry_view_count (a, &n) || !ferry_view_count (b, &n_b))
    return FALSE;
  a_first = (a->head.flags & FERRY_LEAF_NAMED) != 0 ? MIN (n, FERRY_NAMED_FIRST_ITEM) : 0;
  b_first = (b->head.flags & FERRY_LEAF_NAMED) != 0 ? MIN (n_b, FERRY_NAMED_FIRST_ITEM) : 0;
  if (n - a_first != n_b - b_first)
    return FALSE;
  for (gsize i = 0; i < n - a_first; i++)
    {
      FerryView a_item;
      FerryView b_item;

      if (!ferry_view_item (a, a_first + i, &a_item) || !ferry_view_item (b, b_first + i, &b_item)
          || !ferry_views_equal (&a_item, &b_item, depth + 1))
        return FALSE;
    }
  return TRUE;
}

const char *
ferry_object_type_name (FerryObjectKind kind)
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

const char *
ferry_view_type_name (const FerryView *value)
{
  switch (ferry_view_tag (value))
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

gboolean
ferry_view_read_shape (FerryStore *self, FerryRef record, FerryReading *reading, FerryView *shape, gsize *n,
                       GError **error)
{
  FerryRef ref = ferry_store_record_shape (self, record);

  if (ref == 0)
    return ferry_store_set_corrupt (self, "an object has no class", error);
  if (!ferry_store_shape_read (self, ref, reading, error))
    return FALSE;
  ferry_view_init (shape, reading->cell, reading->leaf);
  ferry_store_unhold_reading (self, reading);
  if (!ferry_view_is_leaf (shape, FERRY_LEAF_SHAPE) || !ferry_view_count (shape, n) || *n < FERRY_SHAPE_FIRST_FIELD)
    return ferry_store_set_corrupt (self, "a class has no description", error);
  return TRUE;
}

char *
ferry_view_describe_type (FerryStore *store, const FerryView *value)
{
  const char *name = NULL;

  if (ferry_view_tag (value) == FERRY_CELL_OBJECT)
    name = ferry_object_type_name (ferry_store_object_kind (store, ferry_cell_payload (value->cell)));
  else
    name = ferry_view_type_name (value);
  return g_strdup_printf ("%s %s", name != NULL && strchr ("aeio", *name) != NULL ? "an" : "a",
                          name != NULL ? name : "value of no known kind");
}
