/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ferry-store-container-private.h"

#include "ferry-error.h"

#define RECORD_MAX_FIELDS (65536)
#define ARRAY_ALIGNMENT (64) /* blocks from so many bytes on have it */

/* ---- shapes ---- */

/* @head: a copy of the head of @leaf, which was checked: only that is believed. */
static FerryKey
shape_key (const FerryLeaf *head, const FerryLeaf *leaf)
{
  const guint8 *data = leaf->data + head->n_refs * sizeof (FerryRef);
  FerryKey key = { FERRY_CELL (FERRY_CELL_LEAF, 0), 0, FERRY_LEAF_BYTES, 0, data, head->size };

  key.hash = ferry_key_hash_data (FERRY_LEAF_BYTES, data, head->size);
  if (head->size <= FERRY_CELL_INLINE_MAX)
    {
      guint64 payload = (guint64) head->size << 40;

      for (gsize i = 0; i < head->size; i++)
        payload |= (guint64) data[i] << (8 * i);
      key.cell = FERRY_CELL (FERRY_CELL_BYTES, payload);
    }
  return key;
}

/**
 * ferry_store_shape: (skip)
 * @self: a store
 * @shape: the description of a class, a leaf of kind %FERRY_LEAF_SHAPE; taken over on success
 * @error: return location for an error
 *
 * Finds or makes what all records of a class have in common. A store has one for each description.
 *
 * Returns: the shape, held for the caller, or 0
 *
 * Since: 1.0
 */
FerryRef
ferry_store_shape (FerryStore *self, FerryCell shape, GError **error)
{
  FerryReading reading = FERRY_READING_INIT;
  FerryRef shapes = atomic_load_explicit (&self->header->shapes, memory_order_acquire);
  FerryLeaf head;
  FerryKey key;
  FerryRef ref = 0;
  int found;

  if (!ferry_store_begin (self, error))
    return 0;
  if (ferry_cell_tag (shape) != FERRY_CELL_LEAF || !ferry_store_leaf_head (self, ferry_cell_payload (shape), &head))
    {
      ferry_store_end (self);
      ferry_store_set_corrupt (self, "the description of a class is no leaf", error);
      return 0;
    }
  key = shape_key (&head, ferry_store_at (self, ferry_cell_payload (shape)));
  found = ferry_store_dict_get (self, shapes, &key, &reading, error);
  if (found == 0)
    {
      FerryRef made = ferry_store_new_object (self, FERRY_OBJECT_SHAPE, error);

      if (made == 0 || !ferry_store_hold (self, made, error))
        {
          if (made != 0)
            ferry_store_release_cell (self, FERRY_CELL (FERRY_CELL_OBJECT, made));
          ferry_store_end (self);
          return 0;
        }
      ferry_word_set (&((FerryObject *) ferry_store_at (self, made))->shape, shape);
      FERRY_STEP ("store-shape-made");
      found = ferry_store_dict_set (self, shapes, &key, 0, FERRY_CELL (FERRY_CELL_OBJECT, made), TRUE, &reading, error);
      if (found == 0)
        {
          ferry_store_end (self);
          return made;
        }
      /* Not stored. Where it was there already, that has released the new one's first reference. */
      ferry_word_set (&((FerryObject *) ferry_store_at (self, made))->shape, FERRY_CELL_EMPTY);
      if (found < 0)
        ferry_store_release_cell (self, FERRY_CELL (FERRY_CELL_OBJECT, made));
      ferry_store_unhold (self, made);
    }
  if (found == 1)
    {
      if (ferry_cell_tag (reading.cell) == FERRY_CELL_OBJECT)
        {
          ref = ferry_cell_payload (reading.cell);
          ferry_store_release_cell (self, shape);
        }
      else
        {
          ferry_reader_unhold (self, &reading);
          ferry_store_set_corrupt (self, "the shape of a class is no object", error);
        }
    }
  ferry_store_end (self);
  ferry_reading_clear (&reading);
  return ref;
}

/* Reads a leaf that never changes. */
static gboolean
read_shape_word (FerryStore *self, FerryRef ref, FerryObjectKind kind, FerryReading *reading, GError **error)
{
  FerryObject *object = ferry_store_expect_object (self, ref, error);
  FerryReader reader = { { self, object } };
  int done;

  if (object == NULL)
    return FALSE;
  do
    {
      gboolean fine;

      if (!ferry_reader_begin (&reader, error))
        return FALSE;
      fine = ferry_object_kind (object) == kind
             && ferry_reader_copy (&reader, ferry_store_load (&reader.look, &object->shape), reading);
      done = ferry_reader_end (&reader, fine, reading, error);
    }
  while (done == 0);
  return done > 0;
}

/**
 * ferry_store_shape_read: (skip)
 * @self: a store
 * @shape: a shape
 * @reading: (inout): its description
 * @error: return location for an error
 *
 * Reads the description of a class.
 *
 * Returns: whether it succeeded
 *
 * Since: 1.0
 */
gboolean
ferry_store_shape_read (FerryStore *self, FerryRef shape, FerryReading *reading, GError **error)
{
  return read_shape_word (self, shape, FERRY_OBJECT_SHAPE, reading, error);
}

/* ---- records: the body is a block of cells, one a field ---- */

static inline _Atomic guint64 *
record_word (FerryStore *self, guint64 body, guint64 n, guint field)
{
  if (G_UNLIKELY (n > RECORD_MAX_FIELDS || body % 16 != 0 || !ferry_store_in_heap (self, body, n * sizeof (FerryCell))))
    return NULL;
  return (_Atomic guint64 *) ferry_store_at (self, body) + field;
}

static int
record_no_field (FerryStore *self, guint field, guint64 n, GError **error)
{
  g_set_error (error, FERRY_ERROR, FERRY_ERROR_INVALID_ARGUMENT,
               "%s: a record of %" G_GUINT64_FORMAT " fields has no field %u", self->label, n, field);
  return -1;
}

/**
 * ferry_store_record_new: (skip)
 * @self: a store
 * @shape: what records of its class have in common
 * @cells: (array length=n) (nullable): the fields, EMPTY: not set; taken over on success; %NULL: none is set
 * @n: how many
 * @error: return location for an error
 *
 * Makes a record.
 *
 * Returns: the only reference to it, for the caller to store or to release, or 0
 *
 * Since: 1.0
 */
FerryCell
ferry_store_record_new (FerryStore *self, FerryRef shape, const FerryCell *cells, guint n, GError **error)
{
  FerryObject *object;
  FerryRef ref = 0;
  guint64 body = 0;

  if (n > RECORD_MAX_FIELDS)
    {
      g_set_error (error, FERRY_ERROR, FERRY_ERROR_TOO_BIG, "%s: a record can't have more than %d fields, not %u",
                   self->label, RECORD_MAX_FIELDS, n);
      return 0;
    }
  if (!ferry_store_begin (self, error))
    return 0;
  if (n > 0)
    body = ferry_store_heap_alloc (self, n * sizeof (FerryCell), error);
  if (n == 0 || body != 0)
    {
      for (guint i = 0; i < n; i++)
        ferry_word_set ((_Atomic guint64 *) ferry_store_at (self, body) + i,
                        cells != NULL ? cells[i] : FERRY_CELL_EMPTY);
      ref = ferry_store_new_object (self, FERRY_OBJECT_RECORD, error);
      if (ref == 0 && body != 0)
        ferry_store_heap_free (self, body);
    }
  if (ref != 0)
    {
      object = ferry_store_at (self, ref);
      ferry_word_set (&object->extra, FERRY_CELL_EMPTY);
      ferry_word_set (&object->shape, ferry_store_new_reference (self, shape));
      ferry_word_set (&object->body, body);
      ferry_word_set (&object->size, n);
    }
  ferry_store_end (self);
  return ref != 0 ? FERRY_CELL (FERRY_CELL_OBJECT, ref) : 0;
}

/**
 * ferry_store_record_shape: (skip)
 * @self: a store
 * @record: a record that the caller holds
 *
 * Tells what records of its class have in common; it lives as long as the record.
 *
 * Returns: the shape, not held, or 0 when the store is damaged
 *
 * Since: 1.0
 */
FerryRef
ferry_store_record_shape (FerryStore *self, FerryRef record)
{
  FerryObject *object = ferry_store_object (self, record);
  FerryCell shape;

  if (object == NULL || ferry_object_kind (object) != FERRY_OBJECT_RECORD)
    return 0;
  shape = atomic_load_explicit (&object->shape, memory_order_relaxed); /* never changes */
  if (ferry_cell_tag (shape) != FERRY_CELL_OBJECT || ferry_store_object (self, ferry_cell_payload (shape)) == NULL)
    return 0;
  return ferry_cell_payload (shape);
}

/**
 * ferry_store_record_get: (skip)
 * @self: a store
 * @record: a record that the caller holds
 * @field: number of the field
 * @reading: (inout): its value
 * @error: return location for an error
 *
 * Reads a field.
 *
 * Raises %FERRY_ERROR_INVALID_ARGUMENT when the record has no such field.
 *
 * Returns: 1; 0 when the field isn't set; -1 on error
 *
 * Since: 1.0
 */
int
ferry_store_record_get (FerryStore *self, FerryRef record, guint field, FerryReading *reading, GError **error)
{
  FerryObject *object = ferry_store_expect_object (self, record, error);
  FerryReader reader = { { self, object } };
  FerryCell cell = FERRY_CELL_EMPTY;
  guint64 n;
  int done;

  if (G_UNLIKELY (object == NULL))
    return -1;
  do
    {
      gboolean fine;

      if (G_UNLIKELY (!ferry_reader_begin (&reader, error)))
        return -1;
      fine = ferry_object_kind (object) == FERRY_OBJECT_RECORD;
      n = ferry_store_load (&reader.look, &object->size);
      cell = FERRY_CELL_EMPTY;
      if (G_LIKELY (field < n))
        {
          _Atomic guint64 *word = record_word (self, ferry_store_load (&reader.look, &object->body), n, field);

          fine = fine && word != NULL;
          if (fine)
            cell = ferry_store_load (&reader.look, word);
          if (cell != FERRY_CELL_EMPTY)
            fine = ferry_reader_copy (&reader, cell, reading);
        }
      done = ferry_reader_end (&reader, fine, cell != FERRY_CELL_EMPTY ? reading : NULL, error);
    }
  while (G_UNLIKELY (done == 0));
  if (G_UNLIKELY (done < 0))
    return -1;
  if (G_UNLIKELY (field >= n))
    return record_no_field (self, field, n, error);
  return cell != FERRY_CELL_EMPTY;
}

/**
 * ferry_store_record_peek: (skip)
 * @self: a store
 * @record: a record that the caller holds
 * @field: number of the field
 * @cell: (out): its value, which is inline
 *
 * Reads a field in the shortest way, which never waits: when it is set and inline, and nobody is at the record.
 *
 * Returns: whether it did; otherwise ferry_store_record_get() does, or tells why not
 *
 * Since: 1.0
 */
gboolean
ferry_store_record_peek (FerryStore *self, FerryRef record, guint field, FerryCell *cell)
{
  FerryObject *object = ferry_store_object (self, record);
  _Atomic guint64 *word;
  guint64 lock;
  guint64 n;

  if (G_UNLIKELY (object == NULL))
    return FALSE;
  /* pairs with the release store in ferry_store_unlock_object() */
  lock = atomic_load_explicit (&object->lock, memory_order_acquire);
  if (G_UNLIKELY ((lock & FERRY_LOCK_LOCKED) != 0 || ferry_object_kind (object) != FERRY_OBJECT_RECORD))
    return FALSE;
  n = atomic_load_explicit (&object->size, memory_order_acquire);
  if (G_UNLIKELY (field >= n))
    return FALSE;
  word = record_word (self, atomic_load_explicit (&object->body, memory_order_acquire), n, field);
  if (G_UNLIKELY (word == NULL))
    return FALSE;
  *cell = atomic_load_explicit (word, memory_order_acquire);
  return !ferry_cell_owns (*cell) && *cell != FERRY_CELL_EMPTY
         && atomic_load_explicit (&object->lock, memory_order_relaxed) == lock;
}

/* Locks a record; the word of @field, or NULL: error. */
static inline _Atomic guint64 *
record_lock (FerryStore *self, FerryRef record, guint field, FerryObject **object, GError **error)
{
  _Atomic guint64 *word = NULL;
  guint64 n;

  *object = ferry_store_lock_object (self, record, FERRY_OBJECT_RECORD, error);
  if (G_UNLIKELY (*object == NULL))
    return NULL;
  n = ferry_word_get (&(*object)->size);
  if (G_LIKELY (field < n))
    word = record_word (self, ferry_word_get (&(*object)->body), n, field);
  if (G_UNLIKELY (word == NULL))
    {
      ferry_store_unlock_object (self, *object, FALSE);
      if (field >= n)
        record_no_field (self, field, n, error);
      else
        ferry_store_set_corrupt (self, "a record has a body that can't be right", error);
    }
  return word;
}

/**
 * ferry_store_record_set: (skip)
 * @self: a store
 * @record: a record that the caller holds
 * @field: number of the field
 * @value: its value, EMPTY: none; taken over when 0 or 1 is returned
 * @error: return location for an error
 *
 * Sets or deletes a field.
 *
 * Raises %FERRY_ERROR_INVALID_ARGUMENT when the record has no such field.
 *
 * Returns: 1 when the field was set before, 0 when not; -1 on error
 *
 * Since: 1.0
 */
int
ferry_store_record_set (FerryStore *self, FerryRef record, guint field, FerryCell value, GError **error)
{
  FerryObject *object;
  _Atomic guint64 *word = record_lock (self, record, field, &object, error);
  FerryCell old;

  if (G_UNLIKELY (word == NULL))
    return -1;
  old = ferry_word_get (word);
  if (G_UNLIKELY (!ferry_store_put_single (self, word, value, error)))
    {
      ferry_store_abandon_object (self, object);
      return -1;
    }
  FERRY_STEP ("store-record-put");
  ferry_store_put_in (self, value);
  ferry_store_taken_out (self, old);
  ferry_store_unlock_object (self, object, TRUE);
  return old != FERRY_CELL_EMPTY;
}

/**
 * ferry_store_record_add: (skip)
 * @self: a store
 * @record: a record that the caller holds
 * @field: number of the field
 * @delta: the number to add; stays the caller's
 * @reading: (inout) (nullable): the sum
 * @error: return location for an error
 *
 * Adds a number to a field in one step.
 *
 * Raises %FERRY_ERROR_UNSUPPORTED when one of the two isn't a number, or the sum needs more than 64 bits, and
 * %FERRY_ERROR_INVALID_ARGUMENT when the record has no such field.
 *
 * Returns: 1; 0 when the field isn't set; -1 on error
 *
 * Since: 1.0
 */
int
ferry_store_record_add (FerryStore *self, FerryRef record, guint field, FerryCell delta, FerryReading *reading,
                        GError **error)
{
  FerryObject *object;
  _Atomic guint64 *word = record_lock (self, record, field, &object, error);

  if (G_UNLIKELY (word == NULL))
    return -1;
  if (ferry_word_get (word) == FERRY_CELL_EMPTY)
    {
      ferry_store_unlock_object (self, object, FALSE);
      return 0;
    }
  return ferry_store_add_locked (self, object, word, delta, reading, error);
}

/**
 * ferry_store_record_extra: (skip)
 * @self: a store
 * @record: a record that the caller holds
 * @create: make the dict if there is none
 * @error: return location for an error
 *
 * Finds the dict of attributes that are no fields.
 *
 * Returns: the dict, held for the caller; 0 with no error set when there is none, or on error
 *
 * Since: 1.0
 */
FerryRef
ferry_store_record_extra (FerryStore *self, FerryRef record, gboolean create, GError **error)
{
  FerryObject *object = ferry_store_expect_object (self, record, error);
  FerryReading reading = FERRY_READING_INIT;
  FerryReader reader = { { self, object } };
  FerryCell cell;
  FerryCell extra;
  FerryRef ref;
  int done;

  if (object == NULL)
    return 0;
  while (TRUE)
    {
      gboolean fine;

      if (!ferry_reader_begin (&reader, error))
        return 0;
      cell = ferry_store_load (&reader.look, &object->extra);
      fine = ferry_object_kind (object) == FERRY_OBJECT_RECORD
             && (cell == FERRY_CELL_EMPTY || ferry_cell_tag (cell) == FERRY_CELL_OBJECT)
             && ferry_reader_copy (&reader, cell, &reading);
      done = ferry_reader_end (&reader, fine, &reading, error);
      if (done < 0)
        return 0;
      if (done == 0)
        continue;
      if (cell != FERRY_CELL_EMPTY)
        return ferry_cell_payload (cell);
      if (!create)
        return 0;

      if (!ferry_store_begin (self, error))
        return 0;
      extra = ferry_store_dict_new (self, FERRY_OBJECT_DICT, 0, error);
      if (extra == 0)
        {
          ferry_store_end (self);
          return 0;
        }
      ref = ferry_cell_payload (extra);
      if (!ferry_store_hold (self, ref, error))
        {
          ferry_store_release_cell (self, extra);
          ferry_store_end (self);
          return 0;
        }
      if (ferry_store_lock_object (self, record, FERRY_OBJECT_RECORD, error) == NULL)
        {
          ferry_store_unhold (self, ref);
          ferry_store_release_cell (self, extra);
          ferry_store_end (self);
          return 0;
        }
      if (ferry_word_get (&object->extra) == FERRY_CELL_EMPTY
          && ferry_store_put_single (self, &object->extra, extra, error))
        {
          FERRY_STEP ("store-record-extra-put");
          ferry_store_put_in (self, extra);
          ferry_store_unlock_object (self, object, TRUE);
          ferry_store_end (self);
          return ref;
        }
      done = ferry_word_get (&object->extra) == FERRY_CELL_EMPTY ? -1 : 0;
      if (done < 0)
        ferry_store_abandon_object (self, object);
      else
        ferry_store_unlock_object (self, object, FALSE);
      ferry_store_unhold (self, ref);
      ferry_store_release_cell (self, extra);
      ferry_store_end (self);
      if (done < 0)
        return 0;
    }
}

/* ---- arrays ---- */

/**
 * ferry_store_array_new: (skip)
 * @self: a store
 * @description: what it is, a leaf of kind %FERRY_LEAF_ARRAY; taken over on success
 * @data: (nullable): its data; %NULL: it is not initialized
 * @size: bytes of data
 * @error: return location for an error
 *
 * Makes an array. Its data begins at a multiple of 64 bytes.
 *
 * Returns: the only reference to it, for the caller to store or to release, or 0
 *
 * Since: 1.0
 */
FerryCell
ferry_store_array_new (FerryStore *self, FerryCell description, gconstpointer data, gsize size, GError **error)
{
  guint64 body;
  FerryRef ref = 0;

  if (!ferry_store_begin (self, error))
    return 0;
  body = ferry_store_heap_alloc (self, MAX (size, ARRAY_ALIGNMENT), error);
  if (body != 0)
    {
      if (data != NULL && size > 0)
        memcpy (ferry_store_at (self, body), data, size);
      ref = ferry_store_new_object (self, FERRY_OBJECT_ARRAY, error);
      if (ref == 0)
        ferry_store_heap_free (self, body);
    }
  if (ref != 0)
    {
      FerryObject *object = ferry_store_at (self, ref);

      ferry_word_set (&object->shape, description);
      ferry_word_set (&object->size, size);
      ferry_word_set (&object->body, body);
    }
  ferry_store_end (self);
  return ref != 0 ? FERRY_CELL (FERRY_CELL_OBJECT, ref) : 0;
}

/**
 * ferry_store_array_data: (skip)
 * @self: a store
 * @array: an array that the caller holds
 * @size: (out): bytes of data
 * @description: (inout) (nullable): what it is
 * @error: return location for an error
 *
 * Finds the data of an array, which is good as long as the array is held.
 *
 * Returns: its address, or %NULL
 *
 * Since: 1.0
 */
gpointer
ferry_store_array_data (FerryStore *self, FerryRef array, gsize *size, FerryReading *description, GError **error)
{
  FerryObject *object = ferry_store_expect_object (self, array, error);
  guint64 body;
  guint64 n;

  if (object == NULL)
    return NULL;
  if (description != NULL && !read_shape_word (self, array, FERRY_OBJECT_ARRAY, description, error))
    return NULL;
  /* neither ever changes */
  body = atomic_load_explicit (&object->body, memory_order_relaxed);
  n = atomic_load_explicit (&object->size, memory_order_relaxed);
  if (ferry_object_kind (object) != FERRY_OBJECT_ARRAY || body % ARRAY_ALIGNMENT != 0
      || !ferry_store_in_heap (self, body, n))
    {
      if (description != NULL)
        ferry_reader_unhold (self, description);
      ferry_store_set_corrupt (self, "an array has data that can't be right", error);
      return NULL;
    }
  *size = n;
  return ferry_store_at (self, body);
}

/* ---- references in transit ---- */

static FerryKey
ticket_key (guint64 ticket)
{
  gint64 number = (gint64) (ticket & (guint64) FERRY_CELL_INT_MAX);
  FerryKey key = { FERRY_CELL (FERRY_CELL_INT, number), ferry_key_hash_int (number) };

  return key;
}

/**
 * ferry_store_ticket_new: (skip)
 * @self: a store
 * @ref: an object that the caller holds
 * @error: return location for an error
 *
 * Makes a ticket: the object lives until somebody has taken it with this number.
 *
 * Returns: the ticket, or 0
 *
 * Since: 1.0
 */
guint64
ferry_store_ticket_new (FerryStore *self, FerryRef ref, GError **error)
{
  FerryRef tickets = atomic_load_explicit (&self->header->tickets, memory_order_acquire);
  guint64 ticket;
  int done;

  if (!ferry_store_begin (self, error))
    return 0;
  do
    {
      FerryKey key;
      FerryCell cell;

      ticket = (atomic_fetch_add (&self->header->next_ticket, 1) + 1) & (guint64) FERRY_CELL_INT_MAX;
      key = ticket_key (ticket);
      cell = ferry_store_new_reference (self, ref);
      done = ticket != 0 ? ferry_store_dict_set (self, tickets, &key, 0, cell, TRUE, NULL, error) : 1;
      if (done < 0 || ticket == 0)
        ferry_store_release_cell (self, cell);
    }
  while (done == 1); /* after 2^47 of them */
  ferry_store_end (self);
  return done == 0 ? ticket : 0;
}

/**
 * ferry_store_ticket_take: (skip)
 * @self: a store
 * @ticket: a ticket
 * @error: return location for an error
 *
 * Takes the object that a ticket stands for; the ticket is used up.
 *
 * Raises %FERRY_ERROR_NOT_FOUND when there is no such ticket (any more).
 *
 * Returns: the object, held for the caller, or 0
 *
 * Since: 1.0
 */
FerryRef
ferry_store_ticket_take (FerryStore *self, guint64 ticket, GError **error)
{
  FerryReading reading = FERRY_READING_INIT;
  FerryKey key = ticket_key (ticket);
  int found = 0;

  if (ticket <= (guint64) FERRY_CELL_INT_MAX)
    found = ferry_store_dict_remove (self, atomic_load_explicit (&self->header->tickets, memory_order_acquire), &key,
                                     &reading, error);
  if (found < 0)
    return 0;
  if (found == 0)
    {
      g_set_error (error, FERRY_ERROR, FERRY_ERROR_NOT_FOUND,
                   "%s: there is no ticket %" G_GUINT64_FORMAT "; was its message received before?", self->label,
                   ticket);
      return 0;
    }
  if (ferry_cell_tag (reading.cell) != FERRY_CELL_OBJECT)
    {
      ferry_reader_unhold (self, &reading);
      ferry_reading_clear (&reading);
      ferry_store_set_corrupt (self, "a ticket stands for no object", error);
      return 0;
    }
  return ferry_cell_payload (reading.cell);
}

/* ---- for snapshots, freeing, collections and verify ---- */

gboolean
ferry_store_record_copy (FerryLook *look, FerryCopyFunc add, gpointer data)
{
  FerryStore *self = look->store;
  guint64 n = ferry_store_load (look, &look->object->size);
  _Atomic guint64 *words;

  if (ferry_object_kind (look->object) != FERRY_OBJECT_RECORD)
    return FALSE;
  if (n > 0)
    {
      words = record_word (self, ferry_store_load (look, &look->object->body), n, 0);
      if (words == NULL)
        return FALSE;
      for (guint64 i = 0; i < n; i++)
        if (!add (ferry_store_load (look, words + i), data))
          return FALSE;
    }
  return add (ferry_store_load (look, &look->object->extra), data);
}

static void
visit_word (FerryStore *self, _Atomic guint64 *word, FerryCellFunc cell_func, gpointer data)
{
  FerryCell cell = ferry_word_get (word);

  if (cell_func != NULL && ferry_cell_owns (cell))
    cell_func (self, cell, data);
}

void
ferry_store_record_visit (FerryStore *self, FerryObject *object, FerryCellFunc cell_func, FerryBlockFunc block_func,
                          gpointer data)
{
  guint64 body = ferry_word_get (&object->body);
  guint64 n = ferry_word_get (&object->size);

  if (n > 0 && record_word (self, body, n, 0) != NULL)
    {
      for (guint64 i = 0; i < n; i++)
        visit_word (self, record_word (self, body, n, (guint) i), cell_func, data);
      if (block_func != NULL)
        block_func (self, body, data);
    }
  visit_word (self, &object->shape, cell_func, data);
  visit_word (self, &object->extra, cell_func, data);
}

/* Records, and all others that aren't lists, dicts or sets. */
gboolean
ferry_store_record_verify (FerryStore *self, FerryObject *object, GError **error)
{
  guint64 body = ferry_word_get (&object->body);
  guint64 n = ferry_word_get (&object->size);
  FerryCell shape = ferry_word_get (&object->shape);
  FerryCell extra = ferry_word_get (&object->extra);

  switch (ferry_object_kind (object))
    {
    case FERRY_OBJECT_RECORD:
      if (n > 0
          && (record_word (self, body, n, 0) == NULL
              || ferry_store_heap_block_size (self, body) < n * sizeof (FerryCell)))
        return ferry_store_set_corrupt (self, "a record has a body that can't be right", error);
      for (guint64 i = 0; i < n; i++)
        if (!ferry_store_verify_cell (self, ferry_word_get (record_word (self, body, n, (guint) i))))
          return ferry_store_set_corrupt (self, "a record has a field that can't be right", error);
      if (ferry_cell_tag (shape) != FERRY_CELL_OBJECT || !ferry_store_verify_cell (self, shape)
          || (extra != FERRY_CELL_EMPTY
              && (ferry_cell_tag (extra) != FERRY_CELL_OBJECT || !ferry_store_verify_cell (self, extra))))
        return ferry_store_set_corrupt (self, "a record has a class or a dict that can't be right", error);
      return TRUE;
    case FERRY_OBJECT_SLOT:
      if (!ferry_store_verify_cell (self, body) || !ferry_store_verify_cell (self, shape))
        return ferry_store_set_corrupt (self, "a key of the root has a value that can't be right", error);
      return TRUE;
    case FERRY_OBJECT_SHAPE:
      if (!ferry_store_verify_cell (self, shape))
        return ferry_store_set_corrupt (self, "a class has a description that can't be right", error);
      return TRUE;
    case FERRY_OBJECT_ARRAY:
      if (body % ARRAY_ALIGNMENT != 0 || ferry_store_heap_block_size (self, body) < n
          || !ferry_store_verify_cell (self, shape))
        return ferry_store_set_corrupt (self, "an array has data that can't be right", error);
      return TRUE;
    case FERRY_OBJECT_BYTEARRAY:
      return ferry_store_bytearray_verify (self, object, error);
    default:
      return TRUE;
    }
}
