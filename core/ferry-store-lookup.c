/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ferry-store-lookup-private.h"

#include "ferry-error.h"
#include "ferry-store-to-variant-private.h"

/* Finds values by their path, and changes what the last step leads to. */

static void
lookup_release (FerryLookup *self)
{
  if (self->holds)
    ferry_store_unhold_reading (self->store, &self->readings[self->current]);
  self->holds = FALSE;
}

static void
lookup_forget_key (FerryLookup *self)
{
  ferry_plan_clear (&self->plan, self->store);
  ferry_store_snapshot_clear (self->store, &self->keys);
}

void
ferry_lookup_clear (FerryLookup *self)
{
  lookup_release (self);
  lookup_forget_key (self);
  ferry_reading_clear (&self->readings[0]);
  ferry_reading_clear (&self->readings[1]);
  g_clear_pointer (&self->steps, g_array_unref);
}

/* @base: an object that the caller holds, from which the path starts; 0: the root. */
static gboolean
lookup_init (FerryLookup *self, FerryStore *store, FerryRef base, const char *path, GError **error)
{
  memset (self, 0, sizeof *self);
  self->store = store;
  self->path = path;
  self->at_root = base == 0;
  self->is_relative = base != 0;
  if (base != 0)
    ferry_view_init (&self->value, FERRY_CELL (FERRY_CELL_OBJECT, base), NULL);
  if (store->closed || !ferry_store_has_joined (store))
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
lookup_step_at (const FerryLookup *self, guint i)
{
  return &g_array_index (self->steps, FerryPathStep, i);
}

/* What the first @n steps lead to, for messages. */
static char *
lookup_describe (const FerryLookup *self, guint n)
{
  if (n == 0)
    return g_strdup (self->is_relative ? "the object" : "the root");
  return g_strdup_printf ("'%.*s'", (int) MIN (lookup_step_at (self, n - 1)->end, G_MAXINT / 2), self->path);
}

static int
lookup_no_elements (const FerryLookup *self, guint n, const char *hint, GError **error)
{
  g_autofree char *where = lookup_describe (self, n);
  g_autofree char *type = ferry_view_describe_type (self->store, &self->value);

  g_set_error (error, FERRY_ERROR, FERRY_ERROR_NOT_FOUND, "%s: path '%s': %s is %s, which has no such elements%s%s",
               self->store->label, self->path, where, type, hint != NULL ? "; " : "", hint != NULL ? hint : "");
  return -1;
}

gboolean
ferry_lookup_not_there (const FerryLookup *self, guint n, GError **error)
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
  FerryView shape;
  gsize n;
  int found = ferry_view_read_shape (store, record, &reading, &shape, &n, error) ? 0 : -1;

  for (gsize i = FERRY_SHAPE_FIRST_FIELD; found == 0 && i < n; i++)
    {
      FerryView item;

      if (ferry_view_item (&shape, i, &item) && ferry_view_is_text (&item, name))
        {
          *field = (guint) (i - FERRY_SHAPE_FIRST_FIELD);
          found = 1;
        }
    }
  ferry_reading_clear (&reading);
  return found;
}

/* The key of a step into the dict or set @ref. 1, also when it is not there; 0: it is not there, and can't be made of a
 * GVariant; -1: error. */
static int
lookup_key (FerryLookup *self, FerryRef ref, const FerryPathStep *step, FerryKey *key, GError **error)
{
  g_autoptr (GVariant) wanted = NULL;
  gboolean is_key;
  int found = 0;

  lookup_forget_key (self);
  is_key = ferry_plan_make_key (self->store, step->key, &self->plan, key, NULL);
  if (step->kind != FERRY_PATH_KEY)
    return is_key ? 1 : ferry_plan_make_key (self->store, step->key, &self->plan, key, error) ? 1 : -1;
  if (is_key)
    found = ferry_store_dict_get (self->store, ref, key, NULL, error);
  if (found != 0)
    return found;

  /* Something that GVariant has no type for, a date for instance. */
  wanted = ferry_variant_normalize (step->key);
  if (!ferry_store_snapshot (self->store, ref, &self->keys, error))
    return -1;
  for (gsize i = 0; found == 0 && i < self->keys.n;
       i += ferry_store_object_kind (self->store, ref) == FERRY_OBJECT_DICT ? 2 : 1)
    {
      FerryCell cell = self->keys.cells[i];
      const FerryLeaf *leaf;
      g_autoptr (GVariant) variant = NULL;
      FerryView value;

      if (ferry_cell_tag (cell) != FERRY_CELL_LEAF)
        continue;
      leaf = (const FerryLeaf *) (const void *) (self->keys.memory + ferry_cell_payload (cell));
      ferry_view_init (&value, cell, leaf);
      variant = ferry_view_to_variant (self->store, &value, NULL);
      if (variant == NULL || !g_variant_equal (variant, wanted))
        continue;
      *key = (FerryKey){ .cell = cell,
                         .hash = leaf->hash,
                         .kind = leaf->kind,
                         .flags = leaf->flags,
                         .data = ferry_view_data (&value),
                         .size = leaf->size };
      found = 1;
    }
  return found == 1 || is_key;
}

/* Step @n from the object @ref. 1; 0: there is none; -1: error. */
static int
lookup_step_object (FerryLookup *self, FerryRef ref, guint n, FerryReading *reading, GError **error)
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
        ferry_view_init (&self->value, self->plan.cell, self->plan.bytes->data);
      else
        ferry_view_init (&self->value, key.cell, self->keys.memory + ferry_cell_payload (key.cell));
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
      ferry_view_init (&self->value, FERRY_CELL (FERRY_CELL_INT, byte), NULL);
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
lookup_step_leaf (FerryLookup *self, guint n, GError **error)
{
  const FerryPathStep *step = lookup_step_at (self, n);
  gsize first = 0;
  gint64 index = step->index;
  gsize count;
  FerryView item;

  if (!ferry_view_is_leaf (&self->value, FERRY_LEAF_TUPLE) && !ferry_view_is_leaf (&self->value, FERRY_LEAF_FROZENSET))
    return lookup_no_elements (self, n, NULL, error);
  if (!ferry_view_count (&self->value, &count))
    {
      ferry_store_set_corrupt (self->store, "an immutable value has parts that can't be", error);
      return -1;
    }
  if (self->value.head.kind == FERRY_LEAF_FROZENSET)
    {
      g_autoptr (GVariant) wanted = step->key != NULL ? ferry_variant_normalize (step->key) : NULL;

      for (gsize i = 0; wanted != NULL && i < count; i++)
        {
          g_autoptr (GVariant) variant = NULL;

          if (!ferry_view_item (&self->value, i, &item))
            continue;
          variant = ferry_view_to_variant (self->store, &item, NULL);
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
    first = MIN (count, FERRY_NAMED_FIRST_ITEM);
  count -= first;
  if (index < 0)
    index += (gint64) count;
  if (index < 0 || (guint64) index >= count)
    return 0;
  if (!ferry_view_item (&self->value, first + (gsize) index, &item))
    {
      ferry_store_set_corrupt (self->store, "an immutable value has a part that can't be", error);
      return -1;
    }
  self->value = item;
  return 2;
}

/* Goes the first @n steps. */
static gboolean
lookup_walk (FerryLookup *self, guint n, GError **error)
{
  for (guint i = 0; i < n; i++)
    {
      FerryReading *reading = &self->readings[1 - self->current];
      int found; /* 1: in @reading; 2: in private memory, or in what is held already */

      if (self->at_root)
        {
          FerryKey key;

          lookup_forget_key (self);
          if (!ferry_plan_make_key (self->store, lookup_step_at (self, i)->key, &self->plan, &key, error))
            return FALSE;
          found = ferry_store_root_get (self->store, &key, reading, error);
        }
      else if (ferry_view_tag (&self->value) == FERRY_CELL_OBJECT)
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
        return ferry_lookup_not_there (self, i, error);
      self->at_root = FALSE;
      if (found == 1)
        {
          lookup_release (self);
          self->current = 1 - self->current;
          self->holds = TRUE;
          ferry_view_init (&self->value, reading->cell, reading->leaf);
        }
    }
  return TRUE;
}

gboolean
ferry_lookup_all (FerryLookup *self, FerryStore *store, FerryRef base, const char *path, GError **error)
{
  return lookup_init (self, store, base, path, error) && lookup_walk (self, self->steps->len, error);
}

const FerryPathStep *
ferry_lookup_parent (FerryLookup *self, FerryStore *store, FerryRef base, const char *path, GError **error)
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

static int
cant_change (const FerryLookup *self, GError **error)
{
  g_autofree char *where = lookup_describe (self, self->steps->len - 1);
  g_autofree char *type = ferry_view_describe_type (self->store, &self->value);

  g_set_error (error, FERRY_ERROR, FERRY_ERROR_UNSUPPORTED,
               "%s: path '%s': %s is %s, whose elements can't be changed so; set it as a whole", self->store->label,
               self->path, where, type);
  return -1;
}

static int
change_key (FerryLookup *self, FerryRef dict, const FerryPathStep *last, FerryChange change, FerryCell cell,
            FerryReading *reading, GError **error)
{
  FerryKey key;
  int found = lookup_key (self, dict, last, &key, error);

  if (found == 0 && change == FERRY_CHANGE_SET)
    return ferry_plan_make_key (self->store, last->key, &self->plan, &key, error) ? 0 : -1;
  if (found != 1)
    return found;
  switch (change)
    {
    case FERRY_CHANGE_SET:
      return ferry_store_dict_set (self->store, dict, &key, 0, cell, FALSE, NULL, error) < 0 ? -1 : 1;
    case FERRY_CHANGE_REMOVE:
      return ferry_store_dict_remove (self->store, dict, &key, NULL, error);
    case FERRY_CHANGE_ADD:
    default:
      return ferry_store_dict_add (self->store, dict, &key, cell, reading, error);
    }
}

static int
change_list (FerryLookup *self, FerryRef list, const FerryPathStep *last, FerryChange change, FerryCell cell,
             FerryReading *reading, GError **error)
{
  if (last->kind == FERRY_PATH_END && change == FERRY_CHANGE_SET)
    return ferry_store_list_append (self->store, list, cell, error) ? 1 : -1;
  if (last->kind != FERRY_PATH_INDEX)
    return lookup_no_elements (self, self->steps->len - 1, "those of a list have an [index], a new one is [+]", error);
  switch (change)
    {
    case FERRY_CHANGE_SET:
      return ferry_store_list_set (self->store, list, (gssize) last->index, cell, error);
    case FERRY_CHANGE_REMOVE:
      {
        FerryReading removed = FERRY_READING_INIT;
        int found = ferry_store_list_pop (self->store, list, (gssize) last->index, &removed, error);

        if (found == 1)
          ferry_store_unhold_reading (self->store, &removed);
        ferry_reading_clear (&removed);
        return found;
      }
    case FERRY_CHANGE_ADD:
    default:
      return ferry_store_list_add (self->store, list, (gssize) last->index, cell, reading, error);
    }
}

static int
change_record (FerryLookup *self, FerryRef record, const FerryPathStep *last, FerryChange change, FerryCell cell,
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
  if (found == 1 && change == FERRY_CHANGE_SET)
    return ferry_store_record_set (store, record, field, cell, error) < 0 ? -1 : 1;
  if (found == 1 && change == FERRY_CHANGE_REMOVE)
    return ferry_store_record_set (store, record, field, FERRY_CELL_EMPTY, error);
  if (found == 1)
    return ferry_store_record_add (store, record, field, cell, reading, error);

  extra = ferry_store_record_extra (store, record, change == FERRY_CHANGE_SET, &local);
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
change_byte (FerryLookup *self, FerryRef bytearray, const FerryPathStep *last, FerryChange change, FerryCell cell,
             GError **error)
{
  guint8 byte = (guint8) ferry_cell_int (cell);
  gint64 index = last->index;
  gssize length = ferry_store_bytearray_length (self->store, bytearray);

  if (last->kind == FERRY_PATH_END && change == FERRY_CHANGE_SET)
    index = length;
  else if (last->kind != FERRY_PATH_INDEX || change == FERRY_CHANGE_ADD)
    return cant_change (self, error);
  if (change == FERRY_CHANGE_SET
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
                                       &byte, change == FERRY_CHANGE_SET ? 1 : 0, error)
             ? 1
             : -1;
}

int
ferry_lookup_change (FerryLookup *self, const FerryPathStep *last, FerryChange change, FerryCell cell,
                     FerryReading *reading, GError **error)
{
  FerryStore *store = self->store;
  FerryRef ref;

  if (self->at_root)
    {
      FerryKey key;

      lookup_forget_key (self);
      if (!ferry_plan_make_key (store, last->key, &self->plan, &key, error))
        return -1;
      switch (change)
        {
        case FERRY_CHANGE_SET:
          return ferry_store_root_set (store, &key, cell, error) ? 1 : -1;
        case FERRY_CHANGE_REMOVE:
          return ferry_store_root_remove (store, &key, NULL, error);
        case FERRY_CHANGE_ADD:
        default:
          return ferry_store_root_add (store, &key, cell, reading, error);
        }
    }
  if (ferry_view_tag (&self->value) != FERRY_CELL_OBJECT)
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
      if (change != FERRY_CHANGE_REMOVE || last->kind == FERRY_PATH_END)
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

gboolean
ferry_lookup_put (FerryLookup *self, const FerryPathStep *last, FerryCell cell, GError **error)
{
  int found = ferry_lookup_change (self, last, FERRY_CHANGE_SET, cell, NULL, error);

  if (found != 1)
    ferry_store_release_cell (self->store, cell);
  ferry_store_end (self->store);
  return found == 0 ? ferry_lookup_not_there (self, self->steps->len - 1, error) : found > 0;
}
