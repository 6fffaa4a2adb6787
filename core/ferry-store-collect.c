/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* A collection: what the roots and the handles of participants reach is kept, with the number of references that there
 * are; the rest is free. Nobody else is inside a stretch of work meanwhile. */

#include "ferry-store-private.h"

#include "ferry-error.h"

#define HEADS_OF_SPAN (FERRY_STORE_SPAN_SIZE / FERRY_STORE_OBJECT_SIZE)

typedef struct
{
  FerryMarks *marks;
  GArray *queue;    /* of FerryRef: reached, to be looked into; not the stack: a chain may be as long as it likes */
  guint32 **counts; /* by span: references to its heads; NULL: none */
  guint64 n_spans;
  guint64 n_lost; /* references that lead nowhere */
} Collection;

static void
reach_object (FerryStore *self, Collection *collection, FerryRef ref)
{
  guint64 span;
  guint32 *count;

  if (!ferry_store_heap_is_object (self, ref))
    {
      collection->n_lost++;
      return;
    }
  span = (ref - self->heap_offset) >> FERRY_STORE_SPAN_SHIFT;
  if (span >= collection->n_spans)
    {
      collection->n_lost++;
      return;
    }
  if (collection->counts[span] == NULL)
    collection->counts[span] = g_new0 (guint32, HEADS_OF_SPAN);
  count = &collection->counts[span][(ref - self->heap_offset) / FERRY_STORE_OBJECT_SIZE % HEADS_OF_SPAN];
  if (*count < G_MAXUINT32)
    (*count)++;
  if (ferry_store_heap_mark (self, collection->marks, ref))
    g_array_append_val (collection->queue, ref);
}

static void
reach_leaf (FerryStore *self, Collection *collection, guint64 offset)
{
  gsize room = ferry_store_heap_block_size (self, offset);
  const FerryLeaf *leaf;
  guint n_refs;

  if (room < sizeof (FerryLeaf))
    {
      collection->n_lost++;
      return;
    }
  /* One cell owns it; another one that says so too would be wrong, but must not count its references twice. */
  if (!ferry_store_heap_mark (self, collection->marks, offset))
    return;
  leaf = ferry_store_at (self, offset);
  n_refs = __atomic_load_n (&leaf->n_refs, __ATOMIC_RELAXED);
  if (sizeof (FerryLeaf) + n_refs * sizeof (FerryRef) > room)
    {
      collection->n_lost++;
      return;
    }
  for (guint i = 0; i < n_refs; i++)
    {
      FerryRef ref;

      memcpy (&ref, leaf->data + i * sizeof ref, sizeof ref);
      reach_object (self, collection, ref);
    }
}

static void
reach_cell_cb (FerryStore *self, FerryCell cell, gpointer data)
{
  FerryCellTag tag = ferry_cell_tag (cell);

  if (tag == FERRY_CELL_OBJECT)
    reach_object (self, data, ferry_cell_payload (cell));
  else if (tag == FERRY_CELL_LEAF)
    reach_leaf (self, data, ferry_cell_payload (cell));
}

static void
reach_block_cb (FerryStore *self, guint64 block, gpointer data)
{
  Collection *collection = data;

  if (block != 0 && !ferry_store_heap_mark (self, collection->marks, block)
      && ferry_store_heap_block_size (self, block) == 0)
    collection->n_lost++;
}

static void
reach_root (FerryStore *self, Collection *collection, _Atomic guint64 *root)
{
  FerryRef ref = atomic_load_explicit (root, memory_order_acquire);

  if (ref != 0)
    reach_object (self, collection, ref);
}

static void
reach_handles (FerryStore *self, Collection *collection, guint id)
{
  FerryStoreSlot *slot = ferry_store_at (self, FERRY_STORE_OFFSET_SLOTS + (guint64) id * FERRY_STORE_SLOT_SIZE);

  for (guint c = 0; c < FERRY_STORE_HANDLE_CHUNKS; c++)
    {
      guint64 block = atomic_load_explicit (&slot->handle_chunks[c], memory_order_acquire);
      gsize n = (gsize) FERRY_STORE_FIRST_CHUNK << c;

      if (block == 0)
        continue;
      if (ferry_store_heap_block_size (self, block) < n * sizeof (FerryRef))
        {
          collection->n_lost++;
          continue;
        }
      ferry_store_heap_mark (self, collection->marks, block);
      for (gsize i = 0; i < n; i++)
        {
          FerryRef ref
              = atomic_load_explicit ((_Atomic guint64 *) ferry_store_at (self, block) + i, memory_order_relaxed);

          if (ref != 0)
            reach_object (self, collection, ref);
        }
    }
}

static void
reach_all (FerryStore *self, Collection *collection)
{
  FerryStoreHeader *header = self->header;

  reach_root (self, collection, &header->root);
  reach_root (self, collection, &header->shapes);
  reach_root (self, collection, &header->tickets);
  for (guint c = 0; c < FERRY_TX_CHUNKS; c++)
    reach_block_cb (self, atomic_load_explicit (&header->tx_chunks[c], memory_order_acquire), collection);
  for (guint id = 0; id < ferry_segment_n_records (self->segment); id++)
    {
      guint64 word = atomic_load_explicit (&self->segment->records[id].word, memory_order_acquire);

      if (ferry_record_state (word) != FERRY_RECORD_FREE && ferry_store_slot_ready (self, id))
        reach_handles (self, collection, id);
    }
  while (collection->queue->len > 0)
    {
      FerryRef ref = g_array_index (collection->queue, FerryRef, collection->queue->len - 1);

      g_array_set_size (collection->queue, collection->queue->len - 1);
      ferry_store_visit (self, ferry_store_at (self, ref), reach_cell_cb, reach_block_cb, collection);
    }
}

/* Each count goes from one that may be too high to the one that is right: who dies in between leaves none that is too
 * low. */
static void
correct_counts (FerryStore *self, Collection *collection)
{
  for (guint64 span = 0; span < collection->n_spans; span++)
    for (guint i = 0; i < HEADS_OF_SPAN && collection->counts[span] != NULL; i++)
      {
        FerryObject *object = ferry_store_at (self, self->heap_offset + (span << FERRY_STORE_SPAN_SHIFT)
                                                        + (guint64) i * FERRY_STORE_OBJECT_SIZE);
        guint32 count = collection->counts[span][i];

        if (count != 0 && atomic_load_explicit (&object->count, memory_order_relaxed) != count)
          {
            atomic_store_explicit (&object->count, count, memory_order_relaxed);
            FERRY_STEP ("store-collect-counted");
          }
      }
}

gboolean
ferry_store_collect_held (FerryStore *self, GError **error)
{
  guint64 end = atomic_load_explicit (&self->header->heap_end, memory_order_acquire);
  Collection collection = { 0 };
  gboolean swept;

  end = CLAMP (end, self->heap_offset, self->data_size);
  collection.n_spans = (end - self->heap_offset) >> FERRY_STORE_SPAN_SHIFT;
  collection.marks = ferry_store_heap_marks_new (self);
  collection.counts = g_try_new0 (guint32 *, MAX (collection.n_spans, 1));
  if (collection.marks == NULL || collection.counts == NULL)
    {
      g_clear_pointer (&collection.marks, ferry_store_heap_marks_free);
      g_free (collection.counts);
      g_set_error (error, FERRY_ERROR, FERRY_ERROR_NO_SPACE,
                   "%s: this process has no memory for the marks of a collection, 1/128 of the store's", self->label);
      return FALSE;
    }
  collection.queue = g_array_new (FALSE, FALSE, sizeof (FerryRef));

  reach_all (self, &collection);
  FERRY_STEP ("store-collect-marked");
  correct_counts (self, &collection);
  FERRY_STEP ("store-collect-corrected");
  swept = ferry_store_heap_sweep (self, collection.marks, NULL, error);
  FERRY_STEP ("store-collect-swept");
  if (swept)
    atomic_store_explicit (&self->header->needs_collect, 0, memory_order_seq_cst);

  for (guint64 span = 0; span < collection.n_spans; span++)
    g_free (collection.counts[span]);
  g_free (collection.counts);
  g_array_unref (collection.queue);
  ferry_store_heap_marks_free (collection.marks);
  if (swept && collection.n_lost > 0)
    return ferry_store_set_corrupt (self, "there are references that lead to nothing", error);
  return swept;
}

/* ---- verification ---- */

static gboolean
verify_object (FerryStore *self, FerryRef ref, guint32 n_found, GError **error)
{
  FerryObject *object = ferry_store_at (self, ref);

  /* Nobody is inside a stretch of work. */
  if ((atomic_load_explicit (&object->lock, memory_order_acquire) & FERRY_LOCK_LOCKED)
      && !ferry_store_open_stale (self, object))
    return ferry_store_set_corrupt (self, "an object is locked by nobody", error);
  if (atomic_load_explicit (&object->count, memory_order_relaxed) < n_found)
    return ferry_store_set_corrupt (self, "an object has more references than it counts", error);
  switch (ferry_object_kind (object))
    {
    case FERRY_OBJECT_LIST:
      return ferry_store_list_verify (self, object, error);
    case FERRY_OBJECT_DICT:
    case FERRY_OBJECT_SET:
      return ferry_store_dict_verify (self, object, error);
    case FERRY_OBJECT_RECORD:
      return ferry_store_record_verify (self, object, error);
    case FERRY_OBJECT_SLOT:
    case FERRY_OBJECT_SHAPE:
    case FERRY_OBJECT_BYTEARRAY:
    case FERRY_OBJECT_ARRAY:
      return TRUE;
    case FERRY_OBJECT_FREE:
    default:
      return ferry_store_set_corrupt (self, "there is a reference to an object that is free", error);
    }
}

gboolean
ferry_store_verify_held (FerryStore *self, GError **error)
{
  guint64 end = atomic_load_explicit (&self->header->heap_end, memory_order_acquire);
  Collection collection = { 0 };
  gboolean ok = TRUE;

  end = CLAMP (end, self->heap_offset, self->data_size);
  collection.n_spans = (end - self->heap_offset) >> FERRY_STORE_SPAN_SHIFT;
  collection.marks = ferry_store_heap_marks_new (self);
  collection.counts = g_try_new0 (guint32 *, MAX (collection.n_spans, 1));
  if (collection.marks == NULL || collection.counts == NULL)
    {
      g_clear_pointer (&collection.marks, ferry_store_heap_marks_free);
      g_free (collection.counts);
      g_set_error (error, FERRY_ERROR, FERRY_ERROR_NO_SPACE, "%s: this process has no memory to check it", self->label);
      return FALSE;
    }
  collection.queue = g_array_new (FALSE, FALSE, sizeof (FerryRef));
  reach_all (self, &collection);
  if (collection.n_lost > 0)
    ok = ferry_store_set_corrupt (self, "there are references that lead to nothing", error);
  for (guint64 span = 0; ok && span < collection.n_spans; span++)
    for (guint i = 0; ok && collection.counts[span] != NULL && i < HEADS_OF_SPAN; i++)
      if (collection.counts[span][i] != 0)
        ok = verify_object (self,
                            self->heap_offset + (span << FERRY_STORE_SPAN_SHIFT) + (guint64) i * FERRY_STORE_OBJECT_SIZE,
                            collection.counts[span][i], error);
  ok = ok && ferry_store_heap_verify (self, collection.marks, FALSE, error);

  for (guint64 span = 0; span < collection.n_spans; span++)
    g_free (collection.counts[span]);
  g_free (collection.counts);
  g_array_unref (collection.queue);
  ferry_store_heap_marks_free (collection.marks);
  return ok;
}
