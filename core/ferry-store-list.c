/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ferry-store-body-private.h"

#include "ferry-error.h"

#define LIST_SLACK (6)       /* cells that a new body has more than an eighth */
#define LIST_SHRINK_MIN (32) /* smaller bodies stay */
#define LIST_FEW (64)

/* Inside a look, or locked by us. FALSE: nonsense. */
static gboolean
list_view (FerryLook *look, FerryBody *view)
{
  return ferry_body_view (look, FERRY_OBJECT_LIST, sizeof (FerryCell), view);
}

/* The number of the element that @index names, or @length when none. */
static inline guint64
list_position (gssize index, guint64 length)
{
  if (index < 0)
    index += (gssize) length;
  return index < 0 || (guint64) index > length ? length : (guint64) index;
}

/* The word of element @at of a list with @size, when it can be right; NULL: nonsense. */
static inline _Atomic guint64 *
list_word (FerryStore *self, guint64 body, guint64 size, guint64 at)
{
  guint64 offset = body + FERRY_BODY_HEAD + (FERRY_BODY_START (size) + at) * sizeof (FerryCell);

  if (G_UNLIKELY (body % 16 != 0 || body > self->data_size || !ferry_store_in_heap (self, offset, sizeof (FerryCell))))
    return NULL;
  return ferry_store_at (self, offset);
}

static guint64
list_new_body (FerryStore *self, guint64 wanted, guint64 *capacity, GError **error)
{
  return ferry_body_new (self, sizeof (FerryCell), 1, wanted, capacity, error);
}

static gboolean
list_too_long (FerryStore *self, GError **error)
{
  g_set_error (error, FERRY_ERROR, FERRY_ERROR_TOO_BIG, "%s: a list can't have more than %u elements", self->label,
               G_MAXUINT32);
  return FALSE;
}

static gboolean
list_rebuild (FerryStore *self, FerryObject *object, const FerryBody *view, guint64 at, guint64 n_removed,
              const FerryCell *cells, guint64 n, GError **error)
{
  guint64 length = view->length - n_removed + n;
  guint64 body = 0;
  guint64 start = 0;
  guint64 capacity;
  _Atomic guint64 *to;

  if (length > 0)
    {
      body = list_new_body (self, length + length / 8 + LIST_SLACK, &capacity, error);
      if (body == 0)
        return FALSE;
      if (at == 0 && n > n_removed && view->length > 0)
        start = (capacity - length) - (capacity - length) / 4; /* who inserts at the front will do so again */
      to = (_Atomic guint64 *) ferry_store_at (self, body + FERRY_BODY_HEAD) + start;
      if (at > 0)
        memcpy ((gpointer) to, (gpointer) (view->cells + view->start), at * sizeof (FerryCell));
      if (n > 0)
        memcpy ((gpointer) (to + at), cells, n * sizeof (FerryCell));
      if (at + n_removed < view->length)
        memcpy ((gpointer) (to + at + n), (gpointer) (view->cells + view->start + at + n_removed),
                (view->length - at - n_removed) * sizeof (FerryCell));
    }
  return ferry_body_exchange (self, object, view, body, start, length, error);
}

/* Changes the locked list in place; what can't be done by few notes is left to list_rebuild(). */
static int
list_edit (FerryStore *self, FerryObject *object, const FerryBody *view, guint64 at, guint64 n_removed,
           const FerryCell *cells, guint64 n, GError **error)
{
  guint64 tail = view->length - at - n_removed;
  guint64 moved = 0;
  guint64 start = view->start;
  gboolean move_tail = FALSE;
  gboolean move_head = FALSE;
  gboolean hidden;

  if (n != n_removed)
    {
      gboolean tail_fits = n < n_removed || start + view->length + (n - n_removed) <= view->capacity;
      gboolean head_fits = n < n_removed || start >= n - n_removed;

      move_tail = tail_fits && (tail <= at || !head_fits);
      move_head = !move_tail && head_fits;
      if (!move_tail && !move_head)
        return 0;
      moved = move_tail ? tail : at;
    }
  hidden = n_removed == 0 && moved == 0 && n > 0;
  if (moved + n > FERRY_STORE_IN_PLACE_MAX && !hidden)
    return 0;

  if (moved > 0 && move_tail)
    {
      _Atomic guint64 *from = view->cells + start + at + n_removed;
      _Atomic guint64 *to = view->cells + start + at + n;

      for (guint64 i = 0; i < tail; i++)
        {
          guint64 j = to > from ? tail - 1 - i : i;

          if (!ferry_store_put (self, to + j, ferry_word_get (from + j), error))
            return -1;
          FERRY_STEP ("store-list-tail-moved");
        }
    }
  if (move_head)
    {
      _Atomic guint64 *from = view->cells + start;
      _Atomic guint64 *to = from + n_removed - n;

      for (guint64 i = 0; i < at; i++)
        {
          guint64 j = to > from ? at - 1 - i : i;

          if (!ferry_store_put (self, to + j, ferry_word_get (from + j), error))
            return -1;
          FERRY_STEP ("store-list-head-moved");
        }
      start = start + n_removed - n;
    }
  for (guint64 i = 0; i < n; i++)
    {
      _Atomic guint64 *word = view->cells + start + at + i;

      if (!(hidden ? ferry_store_put_hidden (self, word, cells[i], error)
                   : ferry_store_put (self, word, cells[i], error)))
        return -1;
      FERRY_STEP ("store-list-cell-put");
    }
  if (n != n_removed)
    {
      guint64 length = view->length - n_removed + n;
      guint64 size = length > 0 ? FERRY_BODY_SIZE (start, length) : 0;

      if (!(hidden || moved + n == 0 ? ferry_store_put_single (self, &object->size, size, error)
                                     : ferry_store_put (self, &object->size, size, error)))
        return -1;
      FERRY_STEP ("store-list-length-put");
    }
  return 1;
}

/* Replaces elements of the list that this thread has locked. FALSE: error; what was stored is to be undone. */
static gboolean
list_replace (FerryStore *self, FerryObject *object, const FerryBody *view, guint64 at, guint64 n_removed,
              const FerryCell *cells, guint64 n, GError **error)
{
  FerryCell few[LIST_FEW];
  g_autofree FerryCell *many = NULL;
  FerryCell *removed = few;
  guint64 length = view->length - n_removed + n;
  gboolean shrink = view->capacity >= LIST_SHRINK_MIN && length < view->capacity / 4;
  int done = 0;

  if (n == 0 && n_removed == 0)
    return TRUE;
  if (n > G_MAXUINT32 || length > G_MAXUINT32)
    return list_too_long (self, error);
  if (n_removed > LIST_FEW)
    {
      removed = many = g_try_new (FerryCell, n_removed);
      if (removed == NULL)
        {
          g_set_error (error, FERRY_ERROR, FERRY_ERROR_NO_SPACE,
                       "%s: this process has no memory to remove %" G_GUINT64_FORMAT " elements", self->label,
                       n_removed);
          return FALSE;
        }
    }
  if (n_removed > 0)
    memcpy (removed, (gpointer) (view->cells + view->start + at), n_removed * sizeof (FerryCell));

  if (shrink && self->tx_depth == 0)
    done = list_rebuild (self, object, view, at, n_removed, cells, n, NULL); /* no memory: it stays as large as it is */
  if (done == 0)
    done = list_edit (self, object, view, at, n_removed, cells, n, error);
  if (done == 0)
    done = list_rebuild (self, object, view, at, n_removed, cells, n, error) ? 1 : -1;
  if (done < 0)
    return FALSE;

  for (guint64 i = 0; i < n; i++)
    ferry_store_put_in (self, cells[i]);
  for (guint64 i = 0; i < n_removed; i++)
    ferry_store_taken_out (self, removed[i]);
  return TRUE;
}

/* Locks a list and looks at its body. NULL: error. */
static FerryObject *
list_lock (FerryStore *self, FerryRef list, FerryBody *view, GError **error)
{
  FerryObject *object = ferry_store_lock_object (self, list, FERRY_OBJECT_LIST, error);
  FerryLook look = { self, object };

  if (object == NULL)
    return NULL;
  if (G_UNLIKELY (!list_view (&look, view)))
    {
      ferry_store_unlock_object (self, object, FALSE);
      ferry_store_set_corrupt (self, "a list has a body that can't be right", error);
      return NULL;
    }
  return object;
}

/**
 * ferry_store_list_new: (skip)
 * @self: a store
 * @cells: (array length=n) (nullable): the elements; taken over on success
 * @n: how many
 * @error: return location for an error
 *
 * Makes a list.
 *
 * Returns: the only reference to it, for the caller to store or to release, or 0
 *
 * Since: 1.0
 */
FerryCell
ferry_store_list_new (FerryStore *self, const FerryCell *cells, gsize n, GError **error)
{
  guint64 body = 0;
  guint64 capacity;
  FerryObject *object;
  FerryRef ref;

  if (n > G_MAXUINT32)
    {
      list_too_long (self, error);
      return 0;
    }
  if (!ferry_store_begin (self, error))
    return 0;
  if (n > 0)
    {
      body = list_new_body (self, n, &capacity, error);
      if (body == 0)
        {
          ferry_store_end (self);
          return 0;
        }
      memcpy ((guint8 *) ferry_store_at (self, body) + FERRY_BODY_HEAD, cells, n * sizeof (FerryCell));
    }
  ref = ferry_store_new_object (self, FERRY_OBJECT_LIST, error);
  if (ref == 0)
    {
      if (body != 0)
        ferry_store_heap_free (self, body);
      ferry_store_end (self);
      return 0;
    }
  object = ferry_store_at (self, ref);
  ferry_word_set (&object->body, body);
  ferry_word_set (&object->size, FERRY_BODY_SIZE (0, n));
  ferry_store_end (self);
  return FERRY_CELL (FERRY_CELL_OBJECT, ref);
}

/**
 * ferry_store_list_length: (skip)
 * @self: a store
 * @list: a list that the caller holds
 *
 * Tells how many elements a list has.
 *
 * Returns: the length, or -1 when the store is closed or damaged
 *
 * Since: 1.0
 */
gssize
ferry_store_list_length (FerryStore *self, FerryRef list)
{
  FerryObject *object = ferry_store_object (self, list);
  FerryReader reader = { { self, object } };
  guint64 size;
  int done;

  if (object == NULL || ferry_object_kind (object) != FERRY_OBJECT_LIST)
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

/**
 * ferry_store_list_get: (skip)
 * @self: a store
 * @list: a list that the caller holds
 * @index: which element; negative: from the end
 * @reading: (inout): the element
 * @error: return location for an error
 *
 * Reads an element.
 *
 * Returns: 1; 0 when there is no such element; -1 on error
 *
 * Since: 1.0
 */
int
ferry_store_list_get (FerryStore *self, FerryRef list, gssize index, FerryReading *reading, GError **error)
{
  FerryObject *object = ferry_store_expect_object (self, list, error);
  FerryReader reader = { { self, object } };
  int found;
  int done;

  if (G_UNLIKELY (object == NULL))
    return -1;
  do
    {
      gboolean fine;
      guint64 size;
      guint64 at;

      if (G_UNLIKELY (!ferry_reader_begin (&reader, error)))
        return -1;
      fine = ferry_object_kind (object) == FERRY_OBJECT_LIST;
      size = ferry_store_load (&reader.look, &object->size);
      at = list_position (index, FERRY_BODY_LENGTH (size));
      found = at < FERRY_BODY_LENGTH (size);
      if (G_LIKELY (found))
        {
          _Atomic guint64 *word = list_word (self, ferry_store_load (&reader.look, &object->body), size, at);

          fine = fine && word != NULL && ferry_reader_copy (&reader, ferry_store_load (&reader.look, word), reading);
        }
      done = ferry_reader_end (&reader, fine, found ? reading : NULL, error);
    }
  while (G_UNLIKELY (done == 0));
  return G_UNLIKELY (done < 0) ? -1 : found;
}

/* The word of element @index of the locked list; NULL: none, or nonsense, as *found says. */
static inline _Atomic guint64 *
list_locked_word (FerryStore *self, FerryObject *object, gssize index, gboolean *found)
{
  guint64 size = ferry_word_get (&object->size);
  guint64 at = list_position (index, FERRY_BODY_LENGTH (size));

  *found = at < FERRY_BODY_LENGTH (size);
  return *found ? list_word (self, ferry_word_get (&object->body), size, at) : NULL;
}

static int
list_no_word (FerryStore *self, FerryObject *object, gboolean found, GError **error)
{
  ferry_store_unlock_object (self, object, FALSE);
  if (!found)
    return 0;
  ferry_store_set_corrupt (self, "a list has a body that can't be right", error);
  return -1;
}

/**
 * ferry_store_list_peek: (skip)
 * @self: a store
 * @list: a list that the caller holds
 * @index: which element; negative: from the end
 * @cell: (out): the element, which is inline
 *
 * Reads an element in the shortest way, which never waits: when it is inline, and nobody is at the list.
 *
 * Returns: whether it did; otherwise ferry_store_list_get() does, or tells why not
 *
 * Since: 1.0
 */
gboolean
ferry_store_list_peek (FerryStore *self, FerryRef list, gssize index, FerryCell *cell)
{
  FerryObject *object = ferry_store_object (self, list);
  _Atomic guint64 *word;
  guint64 lock;
  guint64 size;
  guint64 at;

  if (G_UNLIKELY (object == NULL))
    return FALSE;
  /* pairs with the release store in ferry_store_unlock_object() */
  lock = atomic_load_explicit (&object->lock, memory_order_acquire);
  if (G_UNLIKELY ((lock & FERRY_LOCK_LOCKED) != 0 || ferry_object_kind (object) != FERRY_OBJECT_LIST))
    return FALSE;
  size = atomic_load_explicit (&object->size, memory_order_acquire);
  at = list_position (index, FERRY_BODY_LENGTH (size));
  if (G_UNLIKELY (at >= FERRY_BODY_LENGTH (size)))
    return FALSE;
  word = list_word (self, atomic_load_explicit (&object->body, memory_order_acquire), size, at);
  if (G_UNLIKELY (word == NULL))
    return FALSE;
  *cell = atomic_load_explicit (word, memory_order_acquire);
  return !ferry_cell_owns (*cell) && *cell != FERRY_CELL_EMPTY
         && atomic_load_explicit (&object->lock, memory_order_relaxed) == lock;
}

/**
 * ferry_store_list_replace: (skip)
 * @self: a store
 * @list: a list that the caller holds
 * @index: which element; negative: from the end
 * @value: what it shall be
 *
 * Replaces an element in the shortest way, which needs no stretch of work and never waits: when both the old and the new value are
 * inline, nobody is at the list, and nobody holds the store.
 *
 * Returns: whether it did; otherwise ferry_store_list_set() does, or tells why not
 *
 * Since: 1.0
 */
gboolean
ferry_store_list_replace (FerryStore *self, FerryRef list, gssize index, FerryCell value)
{
  FerryObject *object = ferry_store_object (self, list);
  _Atomic guint64 *word;
  gboolean done = FALSE;
  gboolean found;
  guint64 lock;

  if (G_UNLIKELY (object == NULL || ferry_cell_owns (value) || !ferry_store_lock_fast (self, object, &lock)))
    return FALSE;
  word = list_locked_word (self, object, index, &found);
  if (G_LIKELY (word != NULL && ferry_object_kind (object) == FERRY_OBJECT_LIST
                && !ferry_cell_owns (ferry_word_get (word))))
    {
      atomic_store_explicit (word, value, memory_order_release);
      done = TRUE;
    }
  ferry_store_unlock_fast (self, object, lock, done);
  return done;
}

/**
 * ferry_store_list_set: (skip)
 * @self: a store
 * @list: a list that the caller holds
 * @index: which element; negative: from the end
 * @value: what it shall be; taken over when 1 is returned
 * @error: return location for an error
 *
 * Replaces an element.
 *
 * Returns: 1; 0 when there is no such element; -1 on error
 *
 * Since: 1.0
 */
int
ferry_store_list_set (FerryStore *self, FerryRef list, gssize index, FerryCell value, GError **error)
{
  FerryObject *object;
  _Atomic guint64 *word;
  gboolean found;
  FerryCell old;

  if (G_LIKELY (ferry_store_list_replace (self, list, index, value)))
    return 1;
  object = ferry_store_lock_object (self, list, FERRY_OBJECT_LIST, error);
  if (G_UNLIKELY (object == NULL))
    return -1;
  word = list_locked_word (self, object, index, &found);
  if (G_UNLIKELY (word == NULL))
    return list_no_word (self, object, found, error);
  old = ferry_word_get (word);
  if (G_UNLIKELY (!ferry_store_put_single (self, word, value, error)))
    {
      ferry_store_abandon_object (self, object);
      return -1;
    }
  FERRY_STEP ("store-list-set-put");
  ferry_store_put_in (self, value);
  ferry_store_taken_out (self, old);
  ferry_store_unlock_object (self, object, TRUE);
  return 1;
}

/**
 * ferry_store_list_add: (skip)
 * @self: a store
 * @list: a list that the caller holds
 * @index: which element; negative: from the end
 * @delta: the number to add; stays the caller's
 * @reading: (inout) (nullable): the sum
 * @error: return location for an error
 *
 * Adds a number to an element in one step.
 *
 * Raises %FERRY_ERROR_UNSUPPORTED when one of the two isn't a number, or the sum needs more than 64 bits.
 *
 * Returns: 1; 0 when there is no such element; -1 on error
 *
 * Since: 1.0
 */
int
ferry_store_list_add (FerryStore *self, FerryRef list, gssize index, FerryCell delta, FerryReading *reading,
                      GError **error)
{
  FerryObject *object = ferry_store_lock_object (self, list, FERRY_OBJECT_LIST, error);
  _Atomic guint64 *word;
  gboolean found;

  if (G_UNLIKELY (object == NULL))
    return -1;
  word = list_locked_word (self, object, index, &found);
  if (G_UNLIKELY (word == NULL))
    return list_no_word (self, object, found, error);
  return ferry_store_add_locked (self, object, word, delta, reading, error);
}

/**
 * ferry_store_list_append: (skip)
 * @self: a store
 * @list: a list that the caller holds
 * @value: the new last element; taken over on success
 * @error: return location for an error
 *
 * Appends an element.
 *
 * Returns: whether it succeeded
 *
 * Since: 1.0
 */
gboolean
ferry_store_list_append (FerryStore *self, FerryRef list, FerryCell value, GError **error)
{
  FerryObject *object = ferry_store_lock_object (self, list, FERRY_OBJECT_LIST, error);
  FerryLook look = { self, object };
  FerryBody view;

  if (G_UNLIKELY (object == NULL))
    return FALSE;
  if (G_UNLIKELY (!list_view (&look, &view)))
    {
      list_no_word (self, object, TRUE, error);
      return FALSE;
    }
  if (G_LIKELY (view.start + view.length < view.capacity && self->tx_depth == 0))
    {
      ferry_word_set (view.cells + view.start + view.length, value);
      FERRY_STEP ("store-list-append-cell");
      atomic_store_explicit (&object->size, FERRY_BODY_SIZE (view.start, view.length + 1), memory_order_release);
      FERRY_STEP ("store-list-append-size");
    }
  else if (!list_replace (self, object, &view, view.length, 0, &value, 1, error))
    {
      ferry_store_abandon_object (self, object);
      return FALSE;
    }
  ferry_store_unlock_object (self, object, TRUE);
  return TRUE;
}

/**
 * ferry_store_list_pop: (skip)
 * @self: a store
 * @list: a list that the caller holds
 * @index: which element; negative: from the end
 * @reading: (inout) (nullable): the element
 * @error: return location for an error
 *
 * Takes an element out.
 *
 * Returns: 1; 0 when there is no such element; -1 on error
 *
 * Since: 1.0
 */
int
ferry_store_list_pop (FerryStore *self, FerryRef list, gssize index, FerryReading *reading, GError **error)
{
  FerryBody view;
  FerryObject *object = list_lock (self, list, &view, error);
  guint64 at;

  if (object == NULL)
    return -1;
  at = list_position (index, view.length);
  if (at >= view.length)
    {
      ferry_store_unlock_object (self, object, FALSE);
      return 0;
    }
  if (!ferry_store_read_locked (self, object, ferry_word_get (view.cells + view.start + at), reading, error))
    {
      ferry_store_unlock_object (self, object, FALSE);
      return -1;
    }
  if (!list_replace (self, object, &view, at, 1, NULL, 0, error))
    {
      if (reading != NULL)
        ferry_reader_unhold (self, reading);
      ferry_store_abandon_object (self, object);
      return -1;
    }
  ferry_store_unlock_object (self, object, TRUE);
  return 1;
}

/**
 * ferry_store_list_splice: (skip)
 * @self: a store
 * @list: a list that the caller holds
 * @start: the first element to replace; the length when it is larger
 * @n_removed: how many to replace; those that there are when it is larger
 * @cells: (array length=n) (nullable): what comes in their place; taken over on success
 * @n: how many
 * @error: return location for an error
 *
 * Replaces a part of a list in one step.
 *
 * Returns: whether it succeeded
 *
 * Since: 1.0
 */
gboolean
ferry_store_list_splice (FerryStore *self, FerryRef list, gsize start, gsize n_removed, const FerryCell *cells, gsize n,
                         GError **error)
{
  FerryBody view;
  FerryObject *object = list_lock (self, list, &view, error);

  if (object == NULL)
    return FALSE;
  start = MIN (start, view.length);
  n_removed = MIN (n_removed, view.length - start);
  if (!list_replace (self, object, &view, start, n_removed, cells, n, error))
    {
      ferry_store_abandon_object (self, object);
      return FALSE;
    }
  ferry_store_unlock_object (self, object, n + n_removed > 0);
  return TRUE;
}

/**
 * ferry_store_list_assign_strided: (skip)
 * @self: a store
 * @list: a list that the caller holds
 * @start: the first element to replace
 * @step: distance to the next; negative: backwards
 * @n: how many
 * @cells: (array length=n) (nullable): what comes in their place, taken over when 1 is returned; %NULL: they are deleted
 * @error: return location for an error
 *
 * Replaces or deletes every @step'th element in one step.
 *
 * Returns: 1; 0 when the list has not so many; -1 on error
 *
 * Since: 1.0
 */
int
ferry_store_list_assign_strided (FerryStore *self, FerryRef list, gssize start, gssize step, gsize n,
                                 const FerryCell *cells, GError **error)
{
  FerryBody view;
  FerryObject *object;
  g_autofree FerryCell *removed = NULL;
  _Atomic guint64 *elements;
  gboolean fine = TRUE;
  gsize first;
  gsize stride;
  gint64 capacity;

  if (step == 0)
    {
      g_set_error (error, FERRY_ERROR, FERRY_ERROR_INVALID_ARGUMENT, "%s: a slice can't have a step of 0", self->label);
      return -1;
    }
  object = list_lock (self, list, &view, error);
  if (object == NULL)
    return -1;
  capacity = (gint64) view.length;
  stride = step < 0 ? -(gsize) step : (gsize) step;
  if (n > 0
      && (start < 0 || start >= capacity || n > view.length
          || (n > 1 && (step > 0 ? (gsize) (capacity - 1 - start) : (gsize) start) / (n - 1) < stride)))
    {
      ferry_store_unlock_object (self, object, FALSE);
      return 0;
    }
  removed = g_try_new (FerryCell, MAX (n, 1));
  if (n == 0 || removed == NULL)
    {
      ferry_store_unlock_object (self, object, FALSE);
      if (n == 0)
        return 1;
      g_set_error (error, FERRY_ERROR, FERRY_ERROR_NO_SPACE,
                   "%s: this process has no memory to replace %" G_GSIZE_FORMAT " elements", self->label, n);
      return -1;
    }
  elements = view.cells + view.start;
  for (gsize i = 0; i < n; i++)
    removed[i] = ferry_word_get (elements + (start + (gssize) i * step));

  if (cells != NULL && n <= FERRY_STORE_IN_PLACE_MAX)
    {
      for (gsize i = 0; i < n && fine; i++)
        {
          fine = ferry_store_put (self, elements + (start + (gssize) i * step), cells[i], error);
          FERRY_STEP ("store-list-strided-put");
        }
    }
  else
    {
      guint64 length = cells != NULL ? view.length : view.length - n;
      guint64 body = 0;
      guint64 new_capacity;

      if (length > 0)
        {
          body = list_new_body (self, length + (cells != NULL ? 0 : length / 8 + LIST_SLACK), &new_capacity, error);
          fine = body != 0;
        }
      if (fine && length > 0)
        {
          _Atomic guint64 *to = ferry_store_at (self, body + FERRY_BODY_HEAD);

          if (cells != NULL)
            {
              memcpy ((gpointer) to, (gpointer) elements, length * sizeof (FerryCell));
              for (gsize i = 0; i < n; i++)
                ferry_word_set (to + (start + (gssize) i * step), cells[i]);
            }
          else
            {
              gsize done = 0;

              first = step > 0 ? (gsize) start : (gsize) start - (n - 1) * stride;
              for (gsize i = 0; i < view.length; i++)
                if (i < first || (i - first) % stride != 0 || (i - first) / stride >= n)
                  ferry_word_set (to + done++, ferry_word_get (elements + i));
            }
        }
      fine = fine && ferry_body_exchange (self, object, &view, body, 0, length, error);
    }
  if (!fine)
    {
      ferry_store_abandon_object (self, object);
      return -1;
    }
  for (gsize i = 0; i < n; i++)
    {
      if (cells != NULL)
        ferry_store_put_in (self, cells[i]);
      ferry_store_taken_out (self, removed[i]);
    }
  ferry_store_unlock_object (self, object, TRUE);
  return 1;
}

/**
 * ferry_store_list_permute: (skip)
 * @self: a store
 * @list: a list that the caller holds
 * @version: of the list, as a snapshot has it
 * @order: (array length=n): element i of the new order was element order[i]
 * @n: the length of the list
 * @error: return location for an error
 *
 * Puts the elements into another order, in one step, if the list is still what it was.
 *
 * Raises %FERRY_ERROR_INVALID_ARGUMENT when @order names an element twice.
 *
 * Returns: 1; 0 when the list has changed; -1 on error
 *
 * Since: 1.0
 */
int
ferry_store_list_permute (FerryStore *self, FerryRef list, guint64 version, const guint32 *order, gsize n,
                          GError **error)
{
  FerryBody view;
  FerryObject *object;
  g_autofree guint8 *seen = g_try_malloc0 (n / 8 + 1);
  guint64 body;
  guint64 capacity;
  _Atomic guint64 *to;

  for (gsize i = 0; seen != NULL && i < n; i++)
    {
      if (order[i] >= n || (seen[order[i] / 8] & (1 << (order[i] % 8))) != 0)
        {
          g_set_error (error, FERRY_ERROR, FERRY_ERROR_INVALID_ARGUMENT,
                       "%s: the new order of %" G_GSIZE_FORMAT " elements has number %u twice or too large",
                       self->label, n, order[i]);
          return -1;
        }
      seen[order[i] / 8] |= 1 << (order[i] % 8);
    }
  if (seen == NULL)
    {
      g_set_error (error, FERRY_ERROR, FERRY_ERROR_NO_SPACE,
                   "%s: this process has no memory to order %" G_GSIZE_FORMAT " elements", self->label, n);
      return -1;
    }
  object = list_lock (self, list, &view, error);
  if (object == NULL)
    return -1;
  if (ferry_object_version (object) != version || view.length != n || n == 0)
    {
      gboolean same = ferry_object_version (object) == version && view.length == n;

      ferry_store_unlock_object (self, object, FALSE);
      return same;
    }
  body = list_new_body (self, n, &capacity, error);
  if (body == 0)
    {
      ferry_store_unlock_object (self, object, FALSE);
      return -1;
    }
  to = ferry_store_at (self, body + FERRY_BODY_HEAD);
  for (gsize i = 0; i < n; i++)
    ferry_word_set (to + i, ferry_word_get (view.cells + view.start + order[i]));
  if (!ferry_body_exchange (self, object, &view, body, 0, n, error))
    {
      ferry_store_abandon_object (self, object);
      return -1;
    }
  ferry_store_unlock_object (self, object, TRUE);
  return 1;
}

/* ---- for snapshots, freeing, collections and verify ---- */

gboolean
ferry_store_list_copy (FerryLook *look, FerryCopyFunc add, gpointer data)
{
  FerryBody view;

  if (!list_view (look, &view))
    return FALSE;
  for (guint64 i = 0; i < view.length; i++)
    if (!add (ferry_store_load (look, view.cells + view.start + i), data))
      return FALSE;
  return TRUE;
}

void
ferry_store_list_visit (FerryStore *self, FerryObject *object, FerryCellFunc cell_func, FerryBlockFunc block_func,
                        gpointer data)
{
  FerryLook look = { self, object };
  FerryBody view;

  if (!list_view (&look, &view))
    return;
  for (guint64 i = 0; cell_func != NULL && i < view.length; i++)
    {
      FerryCell cell = ferry_word_get (view.cells + view.start + i);

      if (ferry_cell_owns (cell))
        cell_func (self, cell, data);
    }
  if (block_func != NULL && view.body != 0)
    block_func (self, view.body, data);
}

gboolean
ferry_store_list_verify (FerryStore *self, FerryObject *object, GError **error)
{
  FerryLook look = { self, object };
  FerryBody view;

  if (!list_view (&look, &view))
    return ferry_store_set_corrupt (self, "a list has a body that can't be right", error);
  if (view.body != 0
      && ferry_store_heap_block_size (self, view.body) < FERRY_BODY_HEAD + view.capacity * sizeof (FerryCell))
    return ferry_store_set_corrupt (self, "a list has more room than its block", error);
  for (guint64 i = 0; i < view.length; i++)
    if (!ferry_store_verify_cell (self, ferry_word_get (view.cells + view.start + i)))
      return ferry_store_set_corrupt (self, "a list has an element that can't be right", error);
  return TRUE;
}
