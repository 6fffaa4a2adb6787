/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ferry-store-body-private.h"

#include "ferry-error.h"

/* Bytes that are noted are noted by words. */
#define BYTES_WORD (sizeof (guint64))
#define BYTES_IN_PLACE_MAX (16)        /* words */
#define BYTES_IN_TRANSACTION_MAX (512) /* words that a transaction notes rather than copy all */
#define BYTES_SHRINK_MIN (512)         /* bytes; smaller bodies stay */
#define BYTES_SLACK (24)

/* Inside a look, or locked by us. FALSE: nonsense. */
static gboolean
bytes_view (FerryLook *look, FerryBody *view)
{
  return ferry_body_view (look, FERRY_OBJECT_BYTEARRAY, 1, view) && view->capacity % BYTES_WORD == 0;
}

static guint64
bytes_new_body (FerryStore *self, guint64 wanted, guint64 *capacity, GError **error)
{
  return ferry_body_new (self, 1, BYTES_WORD, wanted, capacity, error);
}

static gboolean
bytes_too_long (FerryStore *self, GError **error)
{
  g_set_error (error, FERRY_ERROR, FERRY_ERROR_TOO_BIG, "%s: a bytearray can't have more than %u bytes", self->label,
               G_MAXUINT32);
  return FALSE;
}

/**
 * ferry_store_bytearray_new: (skip)
 * @self: a store
 * @data: (array length=size) (nullable): its bytes; %NULL: zeros
 * @size: how many
 * @error: return location for an error
 *
 * Makes a bytearray.
 *
 * Returns: the only reference to it, for the caller to store or to release, or 0
 *
 * Since: 1.0
 */
FerryCell
ferry_store_bytearray_new (FerryStore *self, gconstpointer data, gsize size, GError **error)
{
  guint64 body = 0;
  guint64 capacity;
  FerryRef ref = 0;

  if (size > G_MAXUINT32)
    {
      bytes_too_long (self, error);
      return 0;
    }
  if (!ferry_store_begin (self, error))
    return 0;
  if (size > 0)
    body = bytes_new_body (self, size, &capacity, error);
  if (size == 0 || body != 0)
    {
      if (size > 0 && data != NULL)
        memcpy ((guint8 *) ferry_store_at (self, body) + FERRY_BODY_HEAD, data, size);
      else if (size > 0)
        memset ((guint8 *) ferry_store_at (self, body) + FERRY_BODY_HEAD, 0, size);
      ref = ferry_store_new_object (self, FERRY_OBJECT_BYTEARRAY, error);
      if (ref == 0 && body != 0)
        ferry_store_heap_free (self, body);
    }
  if (ref != 0)
    {
      FerryObject *object = ferry_store_at (self, ref);

      ferry_word_set (&object->body, body);
      ferry_word_set (&object->size, FERRY_BODY_SIZE (0, size));
    }
  ferry_store_end (self);
  return ref != 0 ? FERRY_CELL (FERRY_CELL_OBJECT, ref) : 0;
}

/**
 * ferry_store_bytearray_length: (skip)
 * @self: a store
 * @bytearray: a bytearray that the caller holds
 *
 * Tells how many bytes there are.
 *
 * Returns: the length, or -1 when the store is closed or damaged
 *
 * Since: 1.0
 */
gssize
ferry_store_bytearray_length (FerryStore *self, FerryRef bytearray)
{
  FerryObject *object = ferry_store_object (self, bytearray);
  FerryReader reader = { { self, object } };
  guint64 size;
  int done;

  if (object == NULL || ferry_object_kind (object) != FERRY_OBJECT_BYTEARRAY)
    return -1;
  do
    {
      if (!ferry_reader_begin (&reader, NULL))
        return -1;
      size = ferry_store_load (&reader.look, &object->size);
      done = ferry_reader_end (&reader, TRUE, NULL, NULL);
    }
  while (done == 0);
  return done < 0 ? -1 : (gssize) FERRY_BODY_LENGTH (size);
}

/* Bytes as they were before the transaction of somebody else. */
static void
bytes_copy_old (FerryLook *look, const FerryBody *view, guint64 from, guint8 *to, gsize size)
{
  while (size > 0)
    {
      guint64 at = from % BYTES_WORD;
      gsize n = MIN (size, BYTES_WORD - at);
      guint64 word = ferry_store_load (look, (_Atomic guint64 *) (gpointer) (view->bytes + from - at));

      memcpy (to, (guint8 *) &word + at, n);
      from += n;
      to += n;
      size -= n;
    }
}

/**
 * ferry_store_bytearray_read: (skip)
 * @self: a store
 * @bytearray: a bytearray that the caller holds
 * @offset: the first byte to read
 * @data: (out caller-allocates) (array length=size): where to
 * @size: how many at most
 * @error: return location for an error
 *
 * Copies bytes, as they were at one instant.
 *
 * Returns: how many, or -1
 *
 * Since: 1.0
 */
gssize
ferry_store_bytearray_read (FerryStore *self, FerryRef bytearray, gsize offset, gpointer data, gsize size,
                            GError **error)
{
  FerryObject *object = ferry_store_expect_object (self, bytearray, error);
  FerryReader reader = { { self, object } };
  gsize n;
  int done;

  if (object == NULL)
    return -1;
  do
    {
      FerryBody view;
      gboolean fine;

      if (!ferry_reader_begin (&reader, error))
        return -1;
      n = 0;
      fine = bytes_view (&reader.look, &view);
      if (fine && offset < view.length)
        {
          n = MIN (size, view.length - offset);
          if (G_UNLIKELY (reader.look.old))
            bytes_copy_old (&reader.look, &view, view.start + offset, data, n);
          else if (n > 0)
            memcpy (data, view.bytes + view.start + offset, n);
        }
      done = ferry_reader_end (&reader, fine, NULL, error);
    }
  while (done == 0);
  return done < 0 ? -1 : (gssize) n;
}

/* Puts @size bytes at byte @at of the body, noted. */
static gboolean
bytes_put (FerryStore *self, const FerryBody *view, guint64 at, const guint8 *data, gsize size, GError **error)
{
  while (size > 0)
    {
      guint64 within = at % BYTES_WORD;
      gsize n = MIN (size, BYTES_WORD - within);
      _Atomic guint64 *word = (_Atomic guint64 *) (gpointer) (view->bytes + at - within);
      guint64 value = ferry_word_get (word);

      memcpy ((guint8 *) &value + within, data, n);
      if (!ferry_store_put (self, word, value, error))
        return FALSE;
      FERRY_STEP ("store-bytearray-word-put");
      at += n;
      data += n;
      size -= n;
    }
  return TRUE;
}

static gboolean
bytes_rebuild (FerryStore *self, FerryObject *object, const FerryBody *view, guint64 offset, guint64 n_removed,
               const guint8 *data, guint64 size, GError **error)
{
  guint64 length = view->length - n_removed + size;
  guint64 wanted = length == view->length ? length : length + length / 8 + BYTES_SLACK;
  guint64 body = 0;
  guint64 capacity;

  if (length > 0)
    {
      guint8 *to;

      body = bytes_new_body (self, wanted, &capacity, error);
      if (body == 0)
        return FALSE;
      to = (guint8 *) ferry_store_at (self, body) + FERRY_BODY_HEAD;
      if (offset > 0)
        memcpy (to, view->bytes + view->start, offset);
      if (size > 0)
        memcpy (to + offset, data, size);
      if (offset + n_removed < view->length)
        memcpy (to + offset + size, view->bytes + view->start + offset + n_removed, view->length - offset - n_removed);
    }
  return ferry_body_exchange (self, object, view, body, 0, length, error);
}

/* 1; 0: it is to be rebuilt; -1: error, what was stored is to be undone. */
static int
bytes_edit (FerryStore *self, FerryObject *object, const FerryBody *view, guint64 offset, guint64 n_removed,
            const guint8 *data, guint64 size, GError **error)
{
  guint64 most = (self->tx_depth > 0 ? BYTES_IN_TRANSACTION_MAX : BYTES_IN_PLACE_MAX - 1) * BYTES_WORD;
  guint64 at = view->start + offset;
  gboolean at_end = offset + n_removed == view->length;
  guint64 length = view->length - n_removed + size;

  if (size == n_removed)
    return size > most ? 0 : bytes_put (self, view, at, data, size, error) ? 1 : -1;
  if (at_end && n_removed == 0)
    {
      /* nobody sees what is behind the end, unless a transaction has shortened it */
      if (at + size > view->capacity || (self->tx_depth > 0 && size > most))
        return 0;
      if (self->tx_depth == 0)
        memcpy (view->bytes + at, data, size);
      else if (!bytes_put (self, view, at, data, size, error))
        return -1;
      FERRY_STEP ("store-bytearray-appended");
    }
  else if (size == 0 && at_end)
    {
    }
  else if (size == 0 && offset == 0)
    {
      at += n_removed; /* where it starts now */
    }
  else
    {
      return 0;
    }
  if (!ferry_store_put_single (self, &object->size, length > 0 ? FERRY_BODY_SIZE (at - offset, length) : 0, error))
    return -1;
  FERRY_STEP ("store-bytearray-length-put");
  return 1;
}

/**
 * ferry_store_bytearray_splice: (skip)
 * @self: a store
 * @bytearray: a bytearray that the caller holds
 * @offset: the first byte to replace; the length when it is larger
 * @n_removed: how many to replace; those that there are when it is larger
 * @data: (array length=size) (nullable): what comes in their place
 * @size: how many bytes
 * @error: return location for an error
 *
 * Replaces a part of a bytearray in one step.
 *
 * Returns: whether it succeeded
 *
 * Since: 1.0
 */
gboolean
ferry_store_bytearray_splice (FerryStore *self, FerryRef bytearray, gsize offset, gsize n_removed, gconstpointer data,
                              gsize size, GError **error)
{
  FerryObject *object = ferry_store_lock_object (self, bytearray, FERRY_OBJECT_BYTEARRAY, error);
  FerryLook look = { self, object };
  FerryBody view;
  guint64 length;
  int done = 0;

  if (object == NULL)
    return FALSE;
  if (!bytes_view (&look, &view))
    {
      ferry_store_unlock_object (self, object, FALSE);
      return ferry_store_set_corrupt (self, "a bytearray has a body that can't be right", error);
    }
  offset = MIN (offset, view.length);
  n_removed = MIN (n_removed, view.length - offset);
  length = view.length - n_removed + size;
  if (size > G_MAXUINT32 || length > G_MAXUINT32)
    {
      ferry_store_unlock_object (self, object, FALSE);
      return bytes_too_long (self, error);
    }
  if (size == 0 && n_removed == 0)
    {
      ferry_store_unlock_object (self, object, FALSE);
      return TRUE;
    }
  if (view.capacity >= BYTES_SHRINK_MIN && length < view.capacity / 4 && self->tx_depth == 0)
    done = bytes_rebuild (self, object, &view, offset, n_removed, data, size, NULL); /* no memory: it stays as large */
  if (done == 0)
    done = bytes_edit (self, object, &view, offset, n_removed, data, size, error);
  if (done == 0)
    done = bytes_rebuild (self, object, &view, offset, n_removed, data, size, error) ? 1 : -1;
  if (done < 0)
    {
      ferry_store_abandon_object (self, object);
      return FALSE;
    }
  ferry_store_unlock_object (self, object, TRUE);
  return TRUE;
}

gboolean
ferry_store_bytearray_verify (FerryStore *self, FerryObject *object, GError **error)
{
  FerryLook look = { self, object };
  FerryBody view;

  if (!bytes_view (&look, &view)
      || (view.body != 0 && ferry_store_heap_block_size (self, view.body) < FERRY_BODY_HEAD + view.capacity))
    return ferry_store_set_corrupt (self, "a bytearray has a body that can't be right", error);
  return TRUE;
}
