/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ferry-store-container-private.h"

#include "ferry-error.h"

/* ---- readers ---- */

FerryObject *
ferry_store_expect_object (FerryStore *self, FerryRef ref, GError **error)
{
  FerryObject *object = ferry_store_object (self, ref);

  if (G_UNLIKELY (object == NULL))
    ferry_store_set_no_object (self, ref, "a reference leads out of the heap", error);
  return object;
}

void
ferry_reader_unhold (FerryStore *self, const FerryReading *reading)
{
  FerryCellTag tag = ferry_cell_tag (reading->cell);

  if (tag == FERRY_CELL_OBJECT)
    {
      ferry_store_unhold (self, ferry_cell_payload (reading->cell));
    }
  else if (tag == FERRY_CELL_LEAF)
    {
      for (guint i = 0; i < reading->leaf->n_refs; i++)
        {
          FerryRef ref;

          memcpy (&ref, reading->leaf->data + i * sizeof ref, sizeof ref);
          ferry_store_unhold (self, ref);
        }
    }
}

gboolean
ferry_reader_begin_locked (FerryReader *reader, GError **error)
{
  FerryStore *self = reader->look.store;
  FerryObject *object = reader->look.object;

  if (ferry_store_lock_object (self, ferry_store_ref (self, object), FERRY_OBJECT_FREE, error) == NULL)
    return FALSE;
  reader->locked = TRUE;
  reader->look.old = FALSE;
  reader->look.lock = atomic_load_explicit (&object->lock, memory_order_relaxed);
  return TRUE;
}

/* Why what was looked at could not be copied. Always FALSE. */
static gboolean
set_not_copied (const FerryLook *look, const char *what, GError **error)
{
  if (look->lacking == 0)
    return ferry_store_set_corrupt (look->store, what, error);
  g_set_error (error, FERRY_ERROR, FERRY_ERROR_NO_SPACE,
               "%s: this process has no memory for a copy of a value of %" G_GSIZE_FORMAT
               " bytes; free some, or raise its limit (ulimit -v, the cgroup's memory.max)",
               look->store->label, look->lacking);
  return FALSE;
}

int
ferry_reader_end_slowly (FerryReader *reader, gboolean fine, FerryReading *first, FerryReading *second, GError **error)
{
  FerryStore *self = reader->look.store;

  if (first == NULL)
    {
      first = second;
      second = NULL;
    }
  if (reader->locked)
    {
      if (!fine)
        set_not_copied (&reader->look, "an object has a body or a value that can't be right", error);
      else if (first != NULL && !ferry_store_hold_reading (self, first, error))
        fine = FALSE;
      else if (second != NULL && !ferry_store_hold_reading (self, second, error))
        {
          fine = FALSE;
          ferry_store_unhold_reading (self, first);
        }
      ferry_store_unlock_object (self, reader->look.object, FALSE);
      reader->locked = FALSE;
      return fine ? 1 : -1;
    }

  if (fine && first != NULL ? ferry_store_finish_readings (&reader->look, first, second)
                            : ferry_store_read_end (&reader->look))
    {
      if (fine)
        return 1;
      set_not_copied (&reader->look, "an object has a body or a value that can't be right", error);
      return -1;
    }
  reader->look.lacking = 0; /* what it was that there was too little memory for may have been nothing */
  reader->tries++;
  return 0;
}

gboolean
ferry_store_read_locked (FerryStore *self, FerryObject *object, FerryCell cell, FerryReading *reading, GError **error)
{
  FerryLook look = { self, object, atomic_load_explicit (&object->lock, memory_order_relaxed) };

  if (reading == NULL)
    return TRUE;
  if (!ferry_cell_owns (cell))
    {
      reading->cell = cell;
      return TRUE;
    }
  if (!ferry_store_copy_cell (&look, cell, reading))
    return set_not_copied (&look, "an object has a value that can't be right", error);
  return ferry_store_hold_reading (self, reading, error);
}

int
ferry_store_add_locked (FerryStore *self, FerryObject *object, _Atomic guint64 *word, FerryCell delta,
                        FerryReading *reading, GError **error)
{
  FerryCell old = ferry_word_get (word);
  FerryCell sum;

  if (!ferry_store_add_cells (self, old, delta, &sum, error))
    {
      ferry_store_unlock_object (self, object, FALSE);
      return -1;
    }
  if (!ferry_store_read_locked (self, object, sum, reading, error) || !ferry_store_put_single (self, word, sum, error))
    {
      if (ferry_cell_owns (sum))
        ferry_store_release_cell (self, sum);
      ferry_store_abandon_object (self, object);
      return -1;
    }
  FERRY_STEP ("store-add-put");
  ferry_store_put_in (self, sum);
  ferry_store_taken_out (self, old);
  ferry_store_unlock_object (self, object, TRUE);
  return 1;
}

gboolean
ferry_store_verify_cell (FerryStore *self, FerryCell cell)
{
  FerryLeaf head;

  switch (ferry_cell_tag (cell))
    {
    case FERRY_CELL_FLOAT:
    case FERRY_CELL_INT:
      return TRUE;
    case FERRY_CELL_CONSTANT:
      return ferry_cell_payload (cell) <= FERRY_CONSTANT_NOT_IMPLEMENTED;
    case FERRY_CELL_STR:
    case FERRY_CELL_BYTES:
      return ferry_cell_payload (cell) >> 40 <= FERRY_CELL_INLINE_MAX;
    case FERRY_CELL_LEAF:
      return ferry_store_leaf_head (self, ferry_cell_payload (cell), &head)
             && ferry_store_heap_block_size (self, ferry_cell_payload (cell))
                    >= sizeof head + head.n_refs * sizeof (FerryRef) + head.size;
    case FERRY_CELL_OBJECT:
      return ferry_store_object (self, ferry_cell_payload (cell)) != NULL
             && ferry_store_heap_is_object (self, ferry_cell_payload (cell));
    default:
      return FALSE;
    }
}

/* ---- snapshots ---- */

typedef struct
{
  FerryLook *look;
  FerrySnapshot *snapshot;
  gboolean no_memory;
} Copy;

/* Room for @n more of @size bytes; what a torn read asks for is not given. */
static gboolean
make_room (Copy *copy, gpointer *memory, gsize *capacity, gsize needed, gsize size)
{
  gsize wanted;
  gpointer larger;

  if (G_LIKELY (needed <= *capacity))
    return TRUE;
  if (!copy->look->old
      && (atomic_load_explicit (&copy->look->object->lock, memory_order_relaxed) ^ copy->look->lock)
                 >> FERRY_LOCK_VERSION_SHIFT
             != 0)
    return FALSE;
  wanted = MAX (needed + needed / 2, 64);
  larger = wanted <= G_MAXSIZE / 2 / size ? g_try_realloc (*memory, wanted * size) : NULL;
  if (larger == NULL)
    {
      copy->no_memory = TRUE;
      return FALSE;
    }
  *memory = larger;
  *capacity = wanted;
  return TRUE;
}

static gboolean
add_cell_cb (FerryCell cell, gpointer data)
{
  Copy *copy = data;
  FerrySnapshot *snapshot = copy->snapshot;
  FerryStore *self = copy->look->store;
  FerryLeaf head;
  gsize at;
  gsize size;

  if (!make_room (copy, (gpointer *) &snapshot->cells, &snapshot->cells_capacity, snapshot->n + 1, sizeof cell))
    return FALSE;
  if (ferry_cell_tag (cell) == FERRY_CELL_LEAF)
    {
      if (!ferry_store_leaf_head (self, ferry_cell_payload (cell), &head))
        return FALSE;
      size = sizeof head + head.n_refs * sizeof (FerryRef) + head.size;
      at = (snapshot->memory_size + 15) & ~(gsize) 15;
      /* a leaf belongs to one cell: together they are no larger than the store */
      if (at + size > self->data_size)
        return FALSE;
      if (!make_room (copy, (gpointer *) &snapshot->memory, &snapshot->memory_capacity, at + size, 1))
        return FALSE;
      memcpy (snapshot->memory + at, &head, sizeof head);
      memcpy (snapshot->memory + at + sizeof head,
              (guint8 *) ferry_store_at (self, ferry_cell_payload (cell)) + sizeof head, size - sizeof head);
      snapshot->memory_size = at + size;
      cell = FERRY_CELL (FERRY_CELL_LEAF, at);
    }
  snapshot->cells[snapshot->n++] = cell;
  return TRUE;
}

/* Calls @func for the first @limit references, as long as it returns 1, which is what is returned otherwise. */
typedef int (*RefFunc) (FerryStore *self, FerryRef ref, GError **error);

static int
unhold (FerryStore *self, FerryRef ref, GError **error)
{
  ferry_store_unhold (self, ref);
  return 1;
}

static int
each_reference (FerryStore *self, FerrySnapshot *snapshot, RefFunc func, gsize limit, gsize *n, GError **error)
{
  *n = 0;
  for (gsize i = 0; i < snapshot->n; i++)
    {
      guint64 payload = ferry_cell_payload (snapshot->cells[i]);
      FerryCellTag tag = ferry_cell_tag (snapshot->cells[i]);
      const FerryLeaf *leaf = tag == FERRY_CELL_LEAF ? (FerryLeaf *) (snapshot->memory + payload) : NULL;
      guint n_refs = leaf != NULL ? leaf->n_refs : tag == FERRY_CELL_OBJECT;

      for (guint j = 0; j < n_refs; j++)
        {
          FerryRef ref = payload;
          int result;

          if (*n >= limit)
            return 1;
          if (leaf != NULL)
            memcpy (&ref, leaf->data + j * sizeof ref, sizeof ref);
          result = func (self, ref, error);
          if (result != 1)
            return result;
          (*n)++;
        }
    }
  return 1;
}

/**
 * ferry_store_snapshot: (skip)
 * @self: a store
 * @ref: a list, dict, set or record that the caller holds
 * @snapshot: (out caller-allocates): all zero, or cleared, or from a call before whose references were given back
 * @error: return location for an error
 *
 * Copies all cells of an object at one instant. Also after a failure @snapshot has memory that is to be cleared.
 *
 * Raises %FERRY_ERROR_INVALID_ARGUMENT when the object has no cells, and %FERRY_ERROR_NO_SPACE when this process
 * has no memory for the copy. May be called by any thread.
 *
 * Returns: whether it succeeded
 *
 * Since: 1.0
 */
gboolean
ferry_store_snapshot (FerryStore *self, FerryRef ref, FerrySnapshot *snapshot, GError **error)
{
  FerryObject *object = ferry_store_expect_object (self, ref, error);
  FerryReader reader = { { self, object } };
  int done;

  if (object == NULL)
    return FALSE;
  do
    {
      Copy copy = { &reader.look, snapshot };
      g_autoptr (GError) trouble = NULL;
      gboolean unsuitable = FALSE;
      gboolean fine = FALSE;
      gboolean locked;

      snapshot->n = 0;
      snapshot->memory_size = 0;
      if (!ferry_reader_begin (&reader, error))
        return FALSE;
      locked = reader.locked;
      switch (ferry_object_kind (object))
        {
        case FERRY_OBJECT_LIST:
          fine = ferry_store_list_copy (&reader.look, add_cell_cb, &copy);
          break;
        case FERRY_OBJECT_DICT:
        case FERRY_OBJECT_SET:
          fine = ferry_store_dict_copy (&reader.look, add_cell_cb, &copy);
          break;
        case FERRY_OBJECT_RECORD:
          fine = ferry_store_record_copy (&reader.look, add_cell_cb, &copy);
          break;
        default:
          unsuitable = TRUE;
          break;
        }
      snapshot->version = reader.look.lock >> FERRY_LOCK_VERSION_SHIFT;

      /* The values are held before it is certain that they were right; if they weren't, they are given back. */
      if (fine && (locked || ferry_store_read_end (&reader.look)))
        {
          gsize held = 0;
          int result = ferry_store_begin_holding (self, &trouble) ? 1 : -1;

          if (result == 1)
            {
              result = each_reference (self, snapshot, ferry_store_hold_alive, G_MAXSIZE, &held, &trouble);
              ferry_store_end (self);
            }
          if (result == 0)
            ferry_store_set_corrupt (self, "a reference leads to an object that is gone", &trouble);
          done = ferry_reader_end (&reader, TRUE, NULL, error);
          if (done != 1 || result != 1)
            each_reference (self, snapshot, unhold, held, &held, NULL);
          if (done == 1 && result != 1)
            {
              g_propagate_error (error, g_steal_pointer (&trouble));
              done = -1;
            }
        }
      else if (copy.no_memory || unsuitable)
        {
          done = ferry_reader_end (&reader, TRUE, NULL, error);
          if (done == 1)
            {
              if (unsuitable)
                g_set_error (error, FERRY_ERROR, FERRY_ERROR_INVALID_ARGUMENT,
                             "%s: an object of kind %d has no elements to copy", self->label,
                             (int) ferry_object_kind (object));
              else
                g_set_error (error, FERRY_ERROR, FERRY_ERROR_NO_SPACE,
                             "%s: this process has no memory for a copy of %" G_GSIZE_FORMAT " values", self->label,
                             snapshot->n);
              done = -1;
            }
        }
      else
        {
          done = ferry_reader_end (&reader, fine, NULL, error);
          if (done == 1)
            done = 0; /* it was right after all, but nothing is held */
        }
    }
  while (done == 0);

  if (done < 0)
    {
      snapshot->n = 0;
      return FALSE;
    }
  return TRUE;
}

/**
 * ferry_store_snapshot_clear: (skip)
 * @self: a store
 * @snapshot: what ferry_store_snapshot() gave
 *
 * Gives back the objects that a snapshot holds and frees its memory.
 *
 * Since: 1.0
 */
void
ferry_store_snapshot_clear (FerryStore *self, FerrySnapshot *snapshot)
{
  gsize n;

  each_reference (self, snapshot, unhold, G_MAXSIZE, &n, NULL);
  g_free (snapshot->cells);
  g_free (snapshot->memory);
  memset (snapshot, 0, sizeof *snapshot);
}
