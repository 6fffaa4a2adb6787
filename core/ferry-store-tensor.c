/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ferry-store-tensor-private.h"

#include "ferry-copy.h"
#include "ferry-error.h"
#include "ferry-store-lookup-private.h"
#include "ferry-store-variant-private.h"
#include "ferry-store-variant.h"

/* Arrays of a store as tensors. */

/* Cells of the leaf that says what an array is. */
enum
{
  ARRAY_FORMAT,
  ARRAY_FLAGS,
  ARRAY_RANK,
  ARRAY_FIRST_EXTENT,
};

gboolean
ferry_array_read (FerryStore *self, FerryRef ref, FerryArray *array, GError **error)
{
  FerryReading reading = FERRY_READING_INIT;
  FerryView description;
  FerryView item;
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
  ferry_view_init (&description, reading.cell, reading.leaf);
  ferry_store_unhold_reading (self, &reading);
  if (ferry_view_is_leaf (&description, FERRY_LEAF_ARRAY) && ferry_view_count (&description, &n)
      && n >= ARRAY_FIRST_EXTENT && ferry_view_item (&description, ARRAY_FORMAT, &item))
    format = ferry_view_get_text (&item, &is_text);
  if (format == NULL || !ferry_view_item (&description, ARRAY_RANK, &item) || !ferry_view_get_int (&item, &rank)
      || rank < 0 || rank > FERRY_TENSOR_MAX_DIMENSIONS || n != ARRAY_FIRST_EXTENT + 2 * (gsize) rank)
    rank = -1;
  for (guint i = 0; rank > 0 && i < 2 * (guint) rank; i++)
    {
      gint64 *number = i < (guint) rank ? &array->shape[i] : &array->strides[i - (guint) rank];

      if (!ferry_view_item (&description, ARRAY_FIRST_EXTENT + i, &item) || !ferry_view_get_int (&item, number))
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

FerryTensor *
ferry_array_to_tensor (const FerryArray *array, GDestroyNotify release, gpointer release_data, GError **error)
{
  return ferry_tensor_new_take (array->format, array->shape, array->n_dimensions, array->strides, array->data,
                                array->size, 0, TRUE, release, release_data, error);
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
  g_auto (FerryLookup) lookup = { 0 };
  FerryArray array = { 0 };
  HeldArray *held;
  FerryTensor *tensor;
  FerryRef ref;

  if (!ferry_lookup_all (&lookup, self, base, path, error))
    return NULL;
  ref = ferry_cell_payload (lookup.value.cell);
  if (lookup.at_root || ferry_view_tag (&lookup.value) != FERRY_CELL_OBJECT
      || ferry_store_object_kind (self, ref) != FERRY_OBJECT_ARRAY)
    {
      g_autofree char *type = lookup.at_root ? g_strdup ("the root") : ferry_view_describe_type (self, &lookup.value);

      g_set_error (error, FERRY_ERROR, FERRY_ERROR_UNSUPPORTED, "%s: '%s' is %s, expected an ndarray", self->label,
                   path, type);
      return NULL;
    }
  if (!ferry_array_read (self, ref, &array, error))
    return NULL;
  if (!ferry_store_hold (self, ref, error))
    {
      g_free (array.format);
      return NULL;
    }
  held = g_new0 (HeldArray, 1);
  held->store = g_object_ref (self);
  held->ref = ref;
  tensor = ferry_array_to_tensor (&array, held_array_free, held, error);
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

/* The leaf that says what an array is. */
static FerryCell
make_description (FerryStore *self, FerryTensor *tensor, const gint64 *strides, GError **error)
{
  GVariantBuilder builder;
  g_autoptr (GVariant) tuple = NULL;
  FerryPlan plan;
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
  if (ferry_plan_init (&plan, self, tuple, 0, error))
    {
      FerryLeaf *head = (FerryLeaf *) (void *) plan.bytes->data;

      head->kind = FERRY_LEAF_ARRAY;
      plan.hashable = FALSE;
      if (!ferry_plan_make (&plan, self, &cell, error))
        cell = 0;
    }
  ferry_plan_clear (&plan, self);
  return cell;
}

gboolean
ferry_store_set_tensor_at (FerryStore *self, FerryRef base, const char *path, FerryTensor *tensor, GError **error)
{
  g_auto (FerryLookup) lookup = { 0 };
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

  last = ferry_lookup_parent (&lookup, self, base, path, error);
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
  return ferry_lookup_put (&lookup, last, cell, error);
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
