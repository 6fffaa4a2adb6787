/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* What the containers of a store have in common. */

#include "ferry-store-private.h"

G_BEGIN_DECLS

/* An operation that changes up to so many words does it in place; more are worth a new body. At most FERRY_STORE_UNDO_MAX less
 * the words of the head. */
#define FERRY_STORE_IN_PLACE_MAX (24)

/* So many times a reader looks without a lock before it takes it. */
#define FERRY_READER_MAX_TRIES (12)

/* A FerryLook that can't starve, and whose result is held. Use as:
 *   FerryReader reader = { { self, object } };
 *   do
 *     {
 *       if (!ferry_reader_begin (&reader, error))
 *         return FALSE;
 *       ... copy through &reader.look; nothing here may return ...
 *       done = ferry_reader_end (&reader, fine, reading, error);
 *     }
 *   while (done == 0);
 */
typedef struct
{
  FerryLook look;
  guint tries;
  gboolean locked;
} FerryReader;

gboolean ferry_reader_begin_locked (FerryReader *reader, GError **error);
int ferry_reader_end_slowly (FerryReader *reader, gboolean fine, FerryReading *first, FerryReading *second,
                             GError **error);

static inline gboolean
ferry_reader_begin (FerryReader *reader, GError **error)
{
  if (G_UNLIKELY (reader->tries >= FERRY_READER_MAX_TRIES))
    return ferry_reader_begin_locked (reader, error);
  return ferry_store_read_begin (&reader->look, error);
}

/* @fine: what was found can be right. 1: @first and @second (each nullable) are held for the caller; 0: begin again; -1: error. */
static inline int
ferry_reader_end_two (FerryReader *reader, gboolean fine, FerryReading *first, FerryReading *second, GError **error)
{
  if (G_LIKELY (fine && !reader->locked && (first == NULL || !ferry_cell_owns (first->cell))
                && (second == NULL || !ferry_cell_owns (second->cell))))
    {
      if (G_LIKELY (ferry_store_read_end (&reader->look)))
        return 1;
      reader->tries++;
      return 0;
    }
  return ferry_reader_end_slowly (reader, fine, first, second, error);
}

static inline int
ferry_reader_end (FerryReader *reader, gboolean fine, FerryReading *reading, GError **error)
{
  return ferry_reader_end_two (reader, fine, reading, NULL, error);
}

/* Inside a look. */
static inline gboolean
ferry_reader_copy (FerryReader *reader, FerryCell cell, FerryReading *reading)
{
  if (G_UNLIKELY (ferry_cell_owns (cell)))
    return ferry_store_copy_cell (&reader->look, cell, reading);
  reading->cell = cell;
  return TRUE;
}

/* What @cell says, which belongs to an object that this thread has locked; @reading: nullable. */
gboolean ferry_store_read_locked (FerryStore *self, FerryObject *object, FerryCell cell, FerryReading *reading,
                                  GError **error);

/* Adds @delta to the number in @word of the locked object, unlocks it. 1, or -1: error. */
int ferry_store_add_locked (FerryStore *self, FerryObject *object, _Atomic guint64 *word, FerryCell delta,
                            FerryReading *reading, GError **error);

/* Whether a cell of an object can be right. */
gboolean ferry_store_verify_cell (FerryStore *self, FerryCell cell);

gboolean ferry_store_bytearray_verify (FerryStore *self, FerryObject *object, GError **error);

/* Gives back what @reading holds; also outside of a stretch of work. */
void ferry_reader_unhold (FerryStore *self, const FerryReading *reading);

/* The head of @ref, or NULL and FERRY_ERROR_CORRUPT. */
FerryObject *ferry_store_expect_object (FerryStore *self, FerryRef ref, GError **error);

static inline FerryRef
ferry_store_ref (FerryStore *self, FerryObject *object)
{
  return (FerryRef) ((guint8 *) object - self->base);
}

static inline guint64
ferry_object_version (FerryObject *object)
{
  return atomic_load_explicit (&object->lock, memory_order_relaxed) >> FERRY_LOCK_VERSION_SHIFT;
}

/* Words of an object that this thread has locked, or that nobody else can see. */
static inline guint64
ferry_word_get (_Atomic guint64 *word)
{
  return atomic_load_explicit (word, memory_order_relaxed);
}

static inline void
ferry_word_set (_Atomic guint64 *word, guint64 value)
{
  atomic_store_explicit (word, value, memory_order_relaxed);
}

/* A word that no reader looks at before another one is changed: needs no note, unless the view that others have during a
 * transaction may show it. */
static inline gboolean
ferry_store_put_hidden (FerryStore *self, _Atomic guint64 *word, guint64 value, GError **error)
{
  if (G_UNLIKELY (self->tx_depth > 0))
    return ferry_store_put_in_transaction (self, word, value, error);
  atomic_store_explicit (word, value, memory_order_relaxed);
  return TRUE;
}

static inline void
ferry_store_taken_out (FerryStore *self, FerryCell cell)
{
  if (G_UNLIKELY (ferry_cell_owns (cell)))
    ferry_store_retire (self, cell);
}

static inline void
ferry_store_put_in (FerryStore *self, FerryCell cell)
{
  if (G_UNLIKELY (self->tx_depth > 0 && ferry_cell_owns (cell)))
    ferry_store_note_added (self, cell);
}

/* A copy of the head of the leaf at @offset. FALSE: there can't be one. */
static inline gboolean
ferry_store_leaf_head (FerryStore *self, guint64 offset, FerryLeaf *head)
{
  guint64 words[2];
  _Atomic guint64 *at;

  if (G_UNLIKELY (offset % 16 != 0 || !ferry_store_in_heap (self, offset, sizeof words)))
    return FALSE;
  at = ferry_store_at (self, offset);
  words[0] = ferry_word_get (at);
  words[1] = ferry_word_get (at + 1);
  memcpy (head, words, sizeof words);
  return head->size <= self->data_size
         && ferry_store_in_heap (self, offset, sizeof *head + head->n_refs * sizeof (FerryRef) + head->size);
}

static inline gboolean
ferry_cell_is_number (FerryCell cell, double *number)
{
  switch (ferry_cell_tag (cell))
    {
    case FERRY_CELL_FLOAT:
      memcpy (number, &cell, sizeof *number);
      return TRUE;
    case FERRY_CELL_INT:
      *number = (double) ferry_cell_int (cell); /* exact: 48 bits */
      return TRUE;
    case FERRY_CELL_CONSTANT:
      *number = ferry_cell_payload (cell) == FERRY_CONSTANT_TRUE ? 1 : 0;
      return ferry_cell_payload (cell) == FERRY_CONSTANT_TRUE || ferry_cell_payload (cell) == FERRY_CONSTANT_FALSE;
    default:
      return FALSE;
    }
}

/* The hash, as a key, of a cell that isn't a leaf. */
static inline guint32
ferry_cell_hash (FerryCell cell)
{
  guint8 characters[8];
  guint64 payload = ferry_cell_payload (cell);
  double number;
  gsize n;

  switch (ferry_cell_tag (cell))
    {
    case FERRY_CELL_INT:
      return ferry_key_hash_int (ferry_cell_int (cell));
    case FERRY_CELL_FLOAT:
      memcpy (&number, &cell, sizeof number);
      return ferry_key_hash_float (number);
    case FERRY_CELL_STR:
    case FERRY_CELL_BYTES:
      n = MIN (payload >> 40, FERRY_CELL_INLINE_MAX);
      for (gsize i = 0; i < n; i++)
        characters[i] = (guint8) (payload >> (8 * i));
      return ferry_key_hash_data (ferry_cell_tag (cell) == FERRY_CELL_STR ? FERRY_LEAF_STR : FERRY_LEAF_BYTES,
                                  characters, n);
    case FERRY_CELL_CONSTANT:
      if (payload == FERRY_CONSTANT_FALSE || payload == FERRY_CONSTANT_TRUE)
        return ferry_key_hash_int (payload == FERRY_CONSTANT_TRUE);
      return ferry_key_hash_data ((FerryLeafKind) 0, &cell, sizeof cell);
    default:
      return ferry_key_hash_int ((gint64) payload);
    }
}

/* ---- shared with ferry-store-snapshot.c ---- */

/* Copies the cells of an object, inside a look, to @add. FALSE: nonsense, or @add said so. */
typedef gboolean (*FerryCopyFunc) (FerryCell cell, gpointer data);
gboolean ferry_store_list_copy (FerryLook *look, FerryCopyFunc add, gpointer data);
gboolean ferry_store_dict_copy (FerryLook *look, FerryCopyFunc add, gpointer data);
gboolean ferry_store_record_copy (FerryLook *look, FerryCopyFunc add, gpointer data);

G_END_DECLS
