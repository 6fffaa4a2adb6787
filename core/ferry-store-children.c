/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ferry-error.h"
#include "ferry-store-lookup-private.h"
#include "ferry-store-tensor-private.h"
#include "ferry-store-to-variant-private.h"
#include "ferry-store-variant-private.h"
#include "ferry-store-variant.h"

/* How many elements values have, and the paths of these. */

gint64
ferry_store_get_length_at (FerryStore *self, FerryRef base, const char *path, GError **error)
{
  g_auto (FerryLookup) lookup = { 0 };
  g_autofree char *where = NULL;
  g_autofree char *type = NULL;
  const FerryView *value = &lookup.value;
  guint width;
  gsize n;

  if (!ferry_lookup_all (&lookup, self, base, path, error))
    return -1;
  if (lookup.at_root)
    return ferry_store_dict_length (self, ferry_store_get_root (self));
  switch (ferry_view_tag (value))
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
          if (!ferry_view_count (value, &n))
            {
              ferry_store_set_corrupt (self, "an immutable value has parts that can't be", error);
              return -1;
            }
          if (value->head.kind == FERRY_LEAF_TUPLE && (value->head.flags & FERRY_LEAF_NAMED) != 0)
            n -= MIN (n, FERRY_NAMED_FIRST_ITEM);
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
              g_autoptr (GPtrArray) names = ferry_store_attributes (self, ref, error);

              return names != NULL ? (gint64) names->len : -1;
            }
          case FERRY_OBJECT_ARRAY:
            {
              FerryArray array = { 0 };

              if (!ferry_array_read (self, ref, &array, error))
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
  type = ferry_view_describe_type (self, value);
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
      FerryView value;

      ferry_view_init (&value, cell,
                       ferry_cell_tag (cell) == FERRY_CELL_LEAF ? snapshot.memory + ferry_cell_payload (cell) : NULL);
      key = ferry_view_to_variant (self, &value, NULL);
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
  g_auto (FerryLookup) lookup = { 0 };
  g_autoptr (GPtrArray) children = g_ptr_array_new_with_free_func (g_free);
  g_autoptr (GPtrArray) names = NULL;
  gboolean ok = TRUE;
  gsize n;

  if (!ferry_lookup_all (&lookup, self, base, path, error))
    return NULL;
  if (lookup.at_root)
    {
      ok = add_key_children (self, children, path, ferry_store_get_root (self), 2, error);
    }
  else if (ferry_view_tag (&lookup.value) == FERRY_CELL_OBJECT)
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
          names = ferry_store_attributes (self, ref, error);
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
  else if (ferry_view_is_leaf (&lookup.value, FERRY_LEAF_TUPLE) && ferry_view_count (&lookup.value, &n))
    {
      if ((lookup.value.head.flags & FERRY_LEAF_NAMED) != 0)
        n -= MIN (n, FERRY_NAMED_FIRST_ITEM);
      add_index_children (children, path, n);
    }
  else if (ferry_view_is_leaf (&lookup.value, FERRY_LEAF_FROZENSET) && ferry_view_count (&lookup.value, &n))
    {
      for (gsize i = 0; i < n; i++)
        {
          g_autoptr (GVariant) key = NULL;
          FerryView item;

          if (ferry_view_item (&lookup.value, i, &item))
            key = ferry_view_to_variant (self, &item, NULL);
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
