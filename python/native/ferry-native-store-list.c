/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ferry-native-store.h"

/* Lists. What changes one element or the end is one operation of the store. What needs to know the list first looks at it,
 * and then changes it in a transaction if it still is as it was. */

#define SELF(object) ((FerryNativeProxy *) (object))

/* ---- elements ---- */

static PyObject *
raise_index (const char *what)
{
  PyErr_SetString (PyExc_IndexError, what);
  return NULL;
}

static Py_ssize_t
list_length (PyObject *object)
{
  FerryStore *store = ferry_native_store_get (SELF (object)->owner);
  gssize length;

  if (G_UNLIKELY (store == NULL))
    return -1;
  length = ferry_store_list_length (store, SELF (object)->ref);
  if (G_UNLIKELY (length < 0))
    return ferry_native_raise_length (SELF (object), "list");
  return length;
}

static inline PyObject *
list_get (FerryNativeProxy *self, Py_ssize_t index)
{
  FerryStore *store = ferry_native_store_get (self->owner);
  GError *error = NULL;
  FerryReading reading;
  FerryCell cell;
  int found;

  if (G_UNLIKELY (store == NULL))
    return NULL;
  if (G_LIKELY (ferry_store_list_peek (store, self->ref, index, &cell)))
    return ferry_native_inline_object (self->owner, cell);
  ferry_native_reading_init (&reading);
  found = ferry_store_list_get (store, self->ref, index, &reading, &error);
  if (G_LIKELY (found > 0))
    return ferry_native_reading_take (self->owner, &reading);
  Py_XDECREF ((PyObject *) reading.user_data);
  return found == 0 ? raise_index ("list index out of range") : ferry_native_raise (&error);
}

static PyObject *
list_item (PyObject *object, Py_ssize_t index)
{
  /* The interpreter has added the length to a negative one already. */
  return index < 0 ? raise_index ("list index out of range") : list_get (SELF (object), index);
}

static gboolean
list_set (FerryNativeProxy *self, Py_ssize_t index, PyObject *object)
{
  GError *error = NULL;
  FerryNativeValue value;
  int done = -1;

  if (G_LIKELY (ferry_native_inline_cell (object, &value.cell) && self->owner->live != NULL
                && ferry_store_list_replace (self->owner->live, self->ref, index, value.cell)))
    return TRUE;
  if (G_UNLIKELY (!ferry_native_value_prepare (&value, self->owner, object)))
    return FALSE;
  if (G_LIKELY (ferry_native_store_begin (self->owner)))
    {
      FerryStore *store = self->owner->live;

      if (G_LIKELY (ferry_native_value_make (&value, self->owner)))
        {
          done = ferry_store_list_set (store, self->ref, index, value.cell, &error);
          if (G_UNLIKELY (done <= 0))
            ferry_native_value_release (&value, self->owner);
        }
      ferry_store_end (store);
    }
  ferry_native_value_clear (&value);
  if (G_LIKELY (done > 0))
    return TRUE;
  if (done == 0)
    raise_index ("list assignment index out of range");
  else if (!PyErr_Occurred ())
    ferry_native_raise (&error);
  return FALSE;
}

static PyObject *
list_pop_at (FerryNativeProxy *self, Py_ssize_t index, const char *missing)
{
  GError *error = NULL;
  FerryReading reading;
  FerryStore *store;
  int found;

  if (!ferry_native_store_begin (self->owner))
    return NULL;
  store = self->owner->live;
  ferry_native_reading_init (&reading);
  found = ferry_store_list_pop (store, self->ref, index, &reading, &error);
  ferry_store_end (store);
  if (found > 0)
    return ferry_native_reading_take (self->owner, &reading);
  return found == 0 ? raise_index (missing) : ferry_native_raise (&error);
}

static gboolean
list_splice (FerryNativeProxy *self, gsize start, gsize n_removed, FerryNativePlan *plan)
{
  gsize n = plan != NULL ? ferry_native_plan_get_n (plan) : 0;
  GError *error = NULL;
  FerryCell *cells = NULL;
  gboolean done = FALSE;
  FerryStore *store;

  if (!ferry_native_store_begin (self->owner))
    return FALSE;
  store = self->owner->live;
  if (n > 0)
    cells = ferry_native_plan_make (plan);
  if (n == 0 || cells != NULL)
    {
      done = ferry_store_list_splice (store, self->ref, start, n_removed, cells, n, &error);
      if (!done && n > 0)
        ferry_native_plan_release (plan, 0, n);
    }
  ferry_store_end (store);
  if (!done && !PyErr_Occurred ())
    ferry_native_raise (&error);
  return done;
}

/* ---- slices ---- */

/* A slice of a long list, without all the others; an instant of it. NULL without an exception: not that easily. */
static PyObject *
list_get_part (FerryNativeProxy *self, Py_ssize_t start, Py_ssize_t step, Py_ssize_t n)
{
  FerryStore *store = self->owner->live;
  PyObject *result;
  guint64 version;

  if (store == NULL)
    return NULL;
  version = ferry_store_object_version (store, self->ref);
  result = PyList_New (n);
  for (Py_ssize_t i = 0; result != NULL && i < n; i++)
    {
      PyObject *item = list_get (self, start + i * step);

      if (item == NULL)
        {
          Py_CLEAR (result);
          if (PyErr_ExceptionMatches (PyExc_IndexError))
            PyErr_Clear ();
        }
      else
        {
          PyList_SET_ITEM (result, i, item);
        }
    }
  if (result != NULL && (self->owner->live == NULL || ferry_store_object_version (store, self->ref) != version))
    Py_CLEAR (result);
  return result;
}

/* How many elements a list has at least for each that is wanted, for a part to be read alone. */
#define PART_FACTOR (8)

static PyObject *
list_get_slice (PyObject *object, PyObject *slice)
{
  Py_ssize_t start;
  Py_ssize_t stop;
  Py_ssize_t step;
  Py_ssize_t length;
  Py_ssize_t n;
  PyObject *plain;
  PyObject *result;

  if (PySlice_Unpack (slice, &start, &stop, &step) < 0)
    return NULL;
  length = list_length (object);
  if (length < 0)
    return NULL;
  n = PySlice_AdjustIndices (length, &start, &stop, step);
  if (n < length / PART_FACTOR)
    {
      result = list_get_part (SELF (object), start, step, n);
      if (result != NULL || PyErr_Occurred ())
        return result;
    }
  plain = ferry_native_plain (object, NULL);
  if (plain == NULL)
    return NULL;
  result = PyObject_GetItem (plain, slice);
  Py_DECREF (plain);
  return result;
}

/* With others kept out. */
static gboolean
list_assign_slice_held (FerryNativeProxy *self, PyObject *slice, FerryNativePlan *plan)
{
  FerryStore *store = self->owner->live;
  Py_ssize_t start;
  Py_ssize_t stop;
  Py_ssize_t step;
  Py_ssize_t length = list_length ((PyObject *) self);
  gsize n_new = plan != NULL ? ferry_native_plan_get_n (plan) : 0;
  GError *error = NULL;
  FerryCell *cells = NULL;
  gsize n;
  int done;

  if (length < 0 || PySlice_Unpack (slice, &start, &stop, &step) < 0)
    return FALSE;
  n = (gsize) PySlice_AdjustIndices (length, &start, &stop, step);
  if (step == 1)
    return list_splice (self, (gsize) start, n, plan);
  if (plan != NULL && n != n_new)
    {
      PyErr_Format (PyExc_ValueError, "attempt to assign sequence of size %zu to extended slice of size %zu", n_new, n);
      return FALSE;
    }
  if (n == 0)
    return TRUE;
  if (!ferry_native_store_begin (self->owner))
    return FALSE;
  if (plan != NULL)
    cells = ferry_native_plan_make (plan);
  if (plan != NULL && cells == NULL)
    {
      ferry_store_end (store);
      return FALSE;
    }
  done = ferry_store_list_assign_strided (store, self->ref, start, step, n, cells, &error);
  if (done <= 0 && cells != NULL)
    ferry_native_plan_release (plan, 0, n);
  ferry_store_end (store);
  if (done > 0)
    return TRUE;
  if (error != NULL)
    ferry_native_raise (&error);
  else
    PyErr_SetString (PyExc_RuntimeError, "the list changed size");
  return FALSE;
}

/* A bound of a slice that needs no length; FALSE: it does. */
static gboolean
get_simple_bound (PyObject *bound, gsize missing, gsize *result)
{
  Py_ssize_t number;

  if (bound == Py_None)
    {
      *result = missing;
      return TRUE;
    }
  if (!PyLong_CheckExact (bound))
    return FALSE;
  number = PyLong_AsSsize_t (bound);
  if (number == -1 && PyErr_Occurred ())
    PyErr_Clear ();
  *result = (gsize) MAX (number, 0);
  return number >= 0;
}

static gboolean
list_assign_slice (FerryNativeProxy *self, PyObject *object, PyObject *value)
{
  PySliceObject *slice = (PySliceObject *) object;
  g_autoptr (FerryNativePlan) plan = NULL;
  gboolean done;
  gsize start;
  gsize stop;

  if (value != NULL)
    {
      if (!ferry_native_is_proxy (value))
        {
          PyObject *iterator = PyObject_GetIter (value);

          if (iterator == NULL)
            {
              if (PyErr_ExceptionMatches (PyExc_TypeError))
                PyErr_SetString (PyExc_TypeError, "can only assign an iterable");
              return FALSE;
            }
          if (iterator == value)
            {
              /* It is used up once. */
              PyObject *list = PySequence_List (iterator);

              Py_DECREF (iterator);
              if (list == NULL)
                return FALSE;
              plan = ferry_native_plan_for_iterable (self->owner, list);
              Py_DECREF (list);
            }
          else
            {
              Py_DECREF (iterator);
              plan = ferry_native_plan_for_iterable (self->owner, value);
            }
        }
      else
        {
          plan = ferry_native_plan_for_iterable (self->owner, value);
        }
      if (plan == NULL)
        return FALSE;
    }
  if ((slice->step == Py_None || (PyLong_CheckExact (slice->step) && PyLong_AsLong (slice->step) == 1))
      && get_simple_bound (slice->start, 0, &start) && get_simple_bound (slice->stop, G_MAXSSIZE, &stop))
    return list_splice (self, start, stop > start ? stop - start : 0, plan);
  PyErr_Clear ();
  if (!ferry_native_store_begin_transaction (self->owner, FERRY_WAIT_FOREVER))
    return FALSE;
  done = list_assign_slice_held (self, object, plan);
  return ferry_native_store_end_transaction (self->owner, done) && done;
}

static PyObject *
list_subscript_slow (PyObject *object, PyObject *key)
{
  if (PyIndex_Check (key))
    {
      Py_ssize_t index = PyNumber_AsSsize_t (key, PyExc_IndexError);

      if (index == -1 && PyErr_Occurred ())
        return NULL;
      return list_get (SELF (object), index);
    }
  if (PySlice_Check (key))
    return list_get_slice (object, key);
  PyErr_Format (PyExc_TypeError, "list indices must be integers or slices, not %.200s", Py_TYPE (key)->tp_name);
  return NULL;
}

/* An index that is an int of one digit of the interpreter's. */
static inline gboolean
get_small_index (PyObject *key, Py_ssize_t *index)
{
  if (G_UNLIKELY (!PyLong_CheckExact (key)))
    return FALSE;
#if PY_VERSION_HEX >= 0x030c0000
  if (!PyUnstable_Long_IsCompact ((PyLongObject *) key))
    return FALSE;
  *index = PyUnstable_Long_CompactValue ((PyLongObject *) key);
#else
  if (Py_SIZE (key) < -1 || Py_SIZE (key) > 1)
    return FALSE;
  *index = Py_SIZE (key) == 0 ? 0 : Py_SIZE (key) * (Py_ssize_t) ((PyLongObject *) key)->ob_digit[0];
#endif
  return TRUE;
}

static PyObject *
list_subscript (PyObject *object, PyObject *key)
{
  Py_ssize_t index;

  if (G_LIKELY (get_small_index (key, &index)))
    return list_get (SELF (object), index);
  return list_subscript_slow (object, key);
}

static int
list_delete_at (FerryNativeProxy *self, Py_ssize_t index)
{
  PyObject *gone = list_pop_at (self, index, "list assignment index out of range");

  Py_XDECREF (gone);
  return gone != NULL ? 0 : -1;
}

static int
list_assign_subscript (PyObject *object, PyObject *key, PyObject *value)
{
  Py_ssize_t index;

  if (G_LIKELY (get_small_index (key, &index)))
    {
      if (G_UNLIKELY (value == NULL))
        return list_delete_at (SELF (object), index);
      return list_set (SELF (object), index, value) ? 0 : -1;
    }
  if (PyIndex_Check (key))
    {
      index = PyNumber_AsSsize_t (key, PyExc_IndexError);
      if (index == -1 && PyErr_Occurred ())
        return -1;
      if (value == NULL)
        return list_delete_at (SELF (object), index);
      return list_set (SELF (object), index, value) ? 0 : -1;
    }
  if (PySlice_Check (key))
    return list_assign_slice (SELF (object), key, value) ? 0 : -1;
  PyErr_Format (PyExc_TypeError, "list indices must be integers or slices, not %.200s", Py_TYPE (key)->tp_name);
  return -1;
}

static int
list_assign_item (PyObject *object, Py_ssize_t index, PyObject *value)
{
  if (index < 0)
    {
      raise_index ("list assignment index out of range");
      return -1;
    }
  if (value == NULL)
    return list_delete_at (SELF (object), index);
  return list_set (SELF (object), index, value) ? 0 : -1;
}

/* ---- methods ---- */

static PyObject *
list_append (PyObject *object, PyObject *item)
{
  FerryNativeProxy *self = SELF (object);
  GError *error = NULL;
  gboolean done = FALSE;
  FerryNativeValue value;

  if (!ferry_native_value_prepare (&value, self->owner, item))
    return NULL;
  if (ferry_native_store_begin (self->owner))
    {
      FerryStore *store = self->owner->live;

      if (ferry_native_value_make (&value, self->owner))
        {
          done = ferry_store_list_append (store, self->ref, value.cell, &error);
          if (!done)
            ferry_native_value_release (&value, self->owner);
        }
      ferry_store_end (store);
    }
  ferry_native_value_clear (&value);
  if (done)
    Py_RETURN_NONE;
  return PyErr_Occurred () ? NULL : ferry_native_raise (&error);
}

static PyObject *
list_extend (PyObject *object, PyObject *iterable)
{
  g_autoptr (FerryNativePlan) plan = NULL;
  PyObject *list;

  if (ferry_native_is_proxy (iterable))
    {
      list = Py_NewRef (iterable);
    }
  else
    {
      list = PySequence_List (iterable);
      if (list == NULL)
        return NULL;
    }
  plan = ferry_native_plan_for_iterable (SELF (object)->owner, list);
  Py_DECREF (list);
  if (plan == NULL)
    return NULL;
  if (ferry_native_plan_get_n (plan) > 0 && !list_splice (SELF (object), G_MAXSSIZE, 0, plan))
    return NULL;
  Py_RETURN_NONE;
}

static PyObject *
list_insert (PyObject *object, PyObject *args)
{
  FerryNativeProxy *self = SELF (object);
  g_autoptr (FerryNativePlan) plan = NULL;
  Py_ssize_t index;
  PyObject *item;
  gboolean done;

  if (!PyArg_ParseTuple (args, "nO:insert", &index, &item))
    return NULL;
  plan = ferry_native_plan_new (self->owner);
  if (!ferry_native_plan_add (plan, item) || !ferry_native_plan_finish (plan))
    return NULL;
  if (index >= 0)
    {
      done = list_splice (self, (gsize) index, 0, plan);
    }
  else
    {
      Py_ssize_t length;

      if (!ferry_native_store_begin_transaction (self->owner, FERRY_WAIT_FOREVER))
        return NULL;
      length = list_length (object);
      done = length >= 0 && list_splice (self, (gsize) MAX (length + index, 0), 0, plan);
      done = ferry_native_store_end_transaction (self->owner, done) && done;
    }
  if (!done)
    return NULL;
  Py_RETURN_NONE;
}

static PyObject *
list_pop (PyObject *object, PyObject *const *args, Py_ssize_t n_args)
{
  Py_ssize_t index = -1;
  PyObject *result;

  if (n_args > 1)
    {
      PyErr_Format (PyExc_TypeError, "pop expected at most 1 argument, got %zd", n_args);
      return NULL;
    }
  if (n_args == 1)
    {
      index = PyNumber_AsSsize_t (args[0], PyExc_IndexError);
      if (index == -1 && PyErr_Occurred ())
        return NULL;
    }
  result = list_pop_at (SELF (object), index, "pop index out of range");
  if (result == NULL && PyErr_ExceptionMatches (PyExc_IndexError) && list_length (object) == 0)
    {
      PyErr_Clear ();
      raise_index ("pop from empty list");
    }
  return result;
}

/* Looks at the list with @find, which gives what is to be done; does it if the list is as it was. */
static PyObject *
list_remove (PyObject *object, PyObject *value)
{
  FerryNativeProxy *self = SELF (object);

  for (guint tries = 0;; tries++)
    {
      gboolean held = tries >= FERRY_NATIVE_STORE_TRIES_MAX;
      gboolean done = FALSE;
      gboolean ok = TRUE;
      guint64 version;
      PyObject *plain;
      Py_ssize_t index;

      if (held && !ferry_native_store_begin_transaction (self->owner, FERRY_WAIT_FOREVER))
        return NULL;
      plain = ferry_native_plain (object, &version);
      index = -1;
      for (Py_ssize_t i = 0; plain != NULL && i < PyList_GET_SIZE (plain) && index < 0 && ok; i++)
        {
          int equal = PyObject_RichCompareBool (PyList_GET_ITEM (plain, i), value, Py_EQ);

          if (equal < 0)
            ok = FALSE;
          else if (equal > 0)
            index = i;
        }
      ok = ok && plain != NULL;
      Py_XDECREF (plain);
      if (ok && index < 0)
        {
          PyErr_SetString (PyExc_ValueError, "list.remove(x): x not in list");
          ok = FALSE;
        }
      if (ok && !held)
        {
          if (!ferry_native_store_begin_transaction (self->owner, FERRY_WAIT_FOREVER))
            return NULL;
          held = TRUE;
        }
      if (ok && ferry_store_object_version (self->owner->live, self->ref) == version)
        ok = done = list_delete_at (self, index) == 0;
      if (held && !ferry_native_store_end_transaction (self->owner, ok))
        return NULL;
      if (!ok)
        return NULL;
      if (done)
        Py_RETURN_NONE;
      if (tries > FERRY_NATIVE_STORE_TRIES_MAX)
        {
          PyErr_SetString (PyExc_RuntimeError, "the list was changed by comparing its elements");
          return NULL;
        }
    }
}

static PyObject *
list_clear (PyObject *object, PyObject *unused)
{
  if (!list_splice (SELF (object), 0, G_MAXSSIZE, NULL))
    return NULL;
  Py_RETURN_NONE;
}

/* Puts the elements into the order that @make_order says: a list of their indices before. */
static PyObject *
list_reorder (PyObject *object, PyObject *(*make_order) (PyObject *plain, gpointer data), gpointer data)
{
  FerryNativeProxy *self = SELF (object);

  for (guint tries = 0;; tries++)
    {
      gboolean held = tries >= FERRY_NATIVE_STORE_TRIES_MAX;
      GError *error = NULL;
      guint64 version = 0;
      PyObject *plain;
      PyObject *order = NULL;
      int done = -1;

      if (held && !ferry_native_store_begin_transaction (self->owner, FERRY_WAIT_FOREVER))
        return NULL;
      plain = ferry_native_plain (object, &version);
      if (plain != NULL && PyList_GET_SIZE (plain) > G_MAXUINT32)
        PyErr_SetString (PyExc_OverflowError, "the list is too long");
      else if (plain != NULL)
        order = make_order (plain, data);
      if (order != NULL)
        {
          gsize n = (gsize) PyList_GET_SIZE (order);
          g_autofree guint32 *numbers = g_new (guint32, n + 1);

          for (gsize i = 0; i < n; i++)
            numbers[i] = (guint32) PyLong_AsUnsignedLong (PyList_GET_ITEM (order, i));
          if (ferry_native_store_begin (self->owner))
            {
              FerryStore *store = self->owner->live;

              done = n < 2 ? ferry_store_object_version (store, self->ref) == version
                           : ferry_store_list_permute (store, self->ref, version, numbers, n, &error);
              ferry_store_end (store);
              if (done < 0)
                ferry_native_raise (&error);
            }
        }
      Py_XDECREF (order);
      Py_XDECREF (plain);
      if (held && !ferry_native_store_end_transaction (self->owner, done > 0))
        return NULL;
      if (done < 0)
        return NULL;
      if (done > 0)
        Py_RETURN_NONE;
      if (tries > FERRY_NATIVE_STORE_TRIES_MAX)
        {
          PyErr_SetString (PyExc_ValueError, "list modified during sort");
          return NULL;
        }
    }
}

typedef struct
{
  PyObject *key;
  int reverse;
} SortOptions;

static PyObject *
make_range_list (Py_ssize_t n)
{
  PyObject *order = PyList_New (n);

  for (Py_ssize_t i = 0; order != NULL && i < n; i++)
    {
      PyObject *number = PyLong_FromSsize_t (i);

      if (number == NULL)
        Py_CLEAR (order);
      else
        PyList_SET_ITEM (order, i, number);
    }
  return order;
}

static PyObject *
make_sorted_order (PyObject *plain, gpointer data)
{
  SortOptions *options = data;
  PyObject *keys = Py_NewRef (plain);
  PyObject *get = NULL;
  PyObject *order = NULL;
  PyObject *sort = NULL;
  PyObject *arguments = NULL;
  PyObject *no_arguments = PyTuple_New (0);
  PyObject *done = NULL;

  if (options->key != NULL && options->key != Py_None)
    {
      Py_SETREF (keys, PyList_New (0));
      for (Py_ssize_t i = 0; keys != NULL && i < PyList_GET_SIZE (plain); i++)
        {
          PyObject *key = PyObject_CallOneArg (options->key, PyList_GET_ITEM (plain, i));

          if (key == NULL || PyList_Append (keys, key) < 0)
            Py_CLEAR (keys);
          Py_XDECREF (key);
        }
    }
  if (keys != NULL)
    get = PyObject_GetAttrString (keys, "__getitem__");
  if (get != NULL)
    order = make_range_list (PyList_GET_SIZE (plain));
  if (order != NULL)
    sort = PyObject_GetAttrString (order, "sort");
  if (sort != NULL)
    arguments = Py_BuildValue ("{sOsO}", "key", get, "reverse", options->reverse ? Py_True : Py_False);
  if (arguments != NULL && no_arguments != NULL)
    done = PyObject_Call (sort, no_arguments, arguments);
  Py_XDECREF (keys);
  Py_XDECREF (get);
  Py_XDECREF (sort);
  Py_XDECREF (arguments);
  Py_XDECREF (no_arguments);
  if (done == NULL)
    Py_CLEAR (order);
  Py_XDECREF (done);
  return order;
}

static PyObject *
list_sort (PyObject *object, PyObject *args, PyObject *keywords)
{
  static char *names[] = { "key", "reverse", NULL };
  SortOptions options = { NULL, FALSE };

  if (!PyArg_ParseTupleAndKeywords (args, keywords, "|$Op:sort", names, &options.key, &options.reverse))
    return NULL;
  return list_reorder (object, make_sorted_order, &options);
}

static PyObject *
make_reversed_order (PyObject *plain, gpointer data)
{
  PyObject *order = make_range_list (PyList_GET_SIZE (plain));

  if (order != NULL && PyList_Reverse (order) < 0)
    Py_CLEAR (order);
  return order;
}

static PyObject *
list_reverse (PyObject *object, PyObject *unused)
{
  return list_reorder (object, make_reversed_order, NULL);
}

/* A method of the plain list that changes nothing. */
static PyObject *
call_plain (PyObject *object, const char *name, PyObject *args)
{
  PyObject *plain = ferry_native_plain (object, NULL);
  PyObject *method = plain != NULL ? PyObject_GetAttrString (plain, name) : NULL;
  PyObject *result = method != NULL ? PyObject_CallObject (method, args) : NULL;

  Py_XDECREF (method);
  Py_XDECREF (plain);
  return result;
}

static PyObject *
list_index (PyObject *object, PyObject *args)
{
  return call_plain (object, "index", args);
}

static PyObject *
list_count (PyObject *object, PyObject *args)
{
  return call_plain (object, "count", args);
}

static int
list_contains (PyObject *object, PyObject *item)
{
  PyObject *plain = ferry_native_plain (object, NULL);
  int found = plain != NULL ? PySequence_Contains (plain, item) : -1;

  Py_XDECREF (plain);
  return found;
}

/* ---- operators ---- */

static PyObject *
get_plain_list (PyObject *object)
{
  return Py_IS_TYPE (object, &FerryNativeList_Type) ? ferry_native_plain (object, NULL) : Py_NewRef (object);
}

/* Either side may be a proxy: this is nb_add, so that list + List works. */
static PyObject *
list_add (PyObject *left, PyObject *right)
{
  PyObject *one;
  PyObject *other;
  PyObject *result = NULL;

  if (!Py_IS_TYPE (left, &FerryNativeList_Type) && !PyList_Check (left))
    Py_RETURN_NOTIMPLEMENTED;
  if (!Py_IS_TYPE (right, &FerryNativeList_Type) && !PyList_Check (right))
    {
      if (Py_TYPE (right)->tp_as_number != NULL && Py_TYPE (right)->tp_as_number->nb_add != NULL)
        Py_RETURN_NOTIMPLEMENTED;
      PyErr_Format (PyExc_TypeError, "can only concatenate list (not \"%.200s\") to list", Py_TYPE (right)->tp_name);
      return NULL;
    }
  one = get_plain_list (left);
  other = get_plain_list (right);
  if (one != NULL && other != NULL)
    result = PySequence_Concat (one, other);
  Py_XDECREF (one);
  Py_XDECREF (other);
  return result;
}

static PyObject *
list_inplace_add (PyObject *object, PyObject *other)
{
  PyObject *done = list_extend (object, other);

  if (done == NULL)
    return NULL;
  Py_DECREF (done);
  return Py_NewRef (object);
}

static PyObject *
list_repeat (PyObject *object, Py_ssize_t n)
{
  PyObject *plain = ferry_native_plain (object, NULL);
  PyObject *result = plain != NULL ? PySequence_Repeat (plain, n) : NULL;

  Py_XDECREF (plain);
  return result;
}

static PyObject *
list_inplace_repeat (PyObject *object, Py_ssize_t n)
{
  FerryNativeProxy *self = SELF (object);
  gboolean done = FALSE;

  if (n <= 0)
    {
      if (!list_splice (self, 0, G_MAXSSIZE, NULL))
        return NULL;
      return Py_NewRef (object);
    }
  if (!ferry_native_store_begin_transaction (self->owner, FERRY_WAIT_FOREVER))
    return NULL;
  {
    PyObject *more = list_repeat (object, n - 1);

    if (more != NULL)
      {
        PyObject *extended = PyList_GET_SIZE (more) > 0 ? list_extend (object, more) : Py_NewRef (Py_None);

        done = extended != NULL;
        Py_XDECREF (extended);
        Py_DECREF (more);
      }
  }
  if (!ferry_native_store_end_transaction (self->owner, done) || !done)
    return NULL;
  return Py_NewRef (object);
}

static PyObject *
list_repr (PyObject *object)
{
  return ferry_native_repr_nested (object, ferry_native_get_plain, "[...]");
}

/* Adds to an element in one step; None: not both are numbers that fit. */
static PyObject *
list_add_to (PyObject *object, PyObject *args)
{
  FerryNativeProxy *self = SELF (object);
  GError *error = NULL;
  FerryReading reading;
  FerryCell delta;
  FerryStore *store;
  Py_ssize_t index;
  PyObject *number;
  int done;

  if (!PyArg_ParseTuple (args, "nO", &index, &number))
    return NULL;
  if (!ferry_native_inline_number (number, &delta))
    return Py_NewRef (Py_NotImplemented);
  if (!ferry_native_store_begin (self->owner))
    return NULL;
  store = self->owner->live;
  ferry_native_reading_init (&reading);
  done = ferry_store_list_add (store, self->ref, index, delta, &reading, &error);
  ferry_store_end (store);
  return done == 0 ? raise_index ("list index out of range")
                   : ferry_native_sum_take (self->owner, done, &reading, &error);
}

/* ---- iteration ---- */

typedef struct
{
  PyObject_HEAD FerryNativeProxy *list; /* NULL: at the end */
  Py_ssize_t index;
  gboolean backwards;
} Iterator;

static PyObject *
iterator_new (PyObject *object, gboolean backwards)
{
  Py_ssize_t length = backwards ? list_length (object) : 0;
  Iterator *self;

  if (length < 0)
    return NULL;
  self = PyObject_New (Iterator, &FerryNativeListIterator_Type);
  if (self == NULL)
    return NULL;
  self->list = SELF (Py_NewRef (object));
  self->index = backwards ? length - 1 : 0;
  self->backwards = backwards;
  return (PyObject *) self;
}

static PyObject *
list_iterate (PyObject *object)
{
  return iterator_new (object, FALSE);
}

static PyObject *
list_reversed (PyObject *object, PyObject *unused)
{
  return iterator_new (object, TRUE);
}

static void
iterator_dealloc (PyObject *object)
{
  Py_XDECREF ((PyObject *) ((Iterator *) object)->list);
  PyObject_Free (object);
}

static PyObject *
iterator_next (PyObject *object)
{
  Iterator *self = (Iterator *) object;
  FerryReading reading;
  GError *error = NULL;
  FerryStore *store;
  int found = 0;

  if (self->list == NULL)
    return NULL;
  store = ferry_native_store_get (self->list->owner);
  if (store == NULL)
    return NULL;
  if (self->index >= 0)
    {
      ferry_native_reading_init (&reading);
      found = ferry_store_list_get (store, self->list->ref, self->index, &reading, &error);
    }
  if (G_LIKELY (found > 0))
    {
      self->index += self->backwards ? -1 : 1;
      return ferry_native_reading_take (self->list->owner, &reading);
    }
  Py_CLEAR (self->list);
  return found < 0 ? ferry_native_raise (&error) : NULL;
}

static PyObject *
iterator_length_hint (PyObject *object, PyObject *unused)
{
  Iterator *self = (Iterator *) object;
  Py_ssize_t length;

  if (self->list == NULL)
    return PyLong_FromLong (0);
  length = list_length ((PyObject *) self->list);
  if (length < 0)
    return NULL;
  return PyLong_FromSsize_t (self->backwards ? MIN (self->index + 1, length) : MAX (length - self->index, 0));
}

static PyMethodDef iterator_methods[] = {
  { "__length_hint__", iterator_length_hint, METH_NOARGS, NULL },
  { NULL },
};

PyTypeObject FerryNativeListIterator_Type = {
  PyVarObject_HEAD_INIT (NULL, 0).tp_name = "ferry.store.ListIterator",
  .tp_basicsize = sizeof (Iterator),
  .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
  .tp_dealloc = iterator_dealloc,
  .tp_iter = PyObject_SelfIter,
  .tp_iternext = iterator_next,
  .tp_methods = iterator_methods,
};

static PyMethodDef list_methods[] = {
  { "append", list_append, METH_O, "append($self, object, /)\n--\n\nAppend an object to the end." },
  { "extend", list_extend, METH_O, "extend($self, iterable, /)\n--\n\nAppend all of an iterable, in one step." },
  { "insert", list_insert, METH_VARARGS, "insert($self, index, object, /)\n--\n\nInsert an object before an index." },
  { "pop", FERRY_NATIVE_FAST (list_pop), METH_FASTCALL,
    "pop($self, index=-1, /)\n--\n\nRemove and return an element; of two who do it each gets another one." },
  { "remove", list_remove, METH_O, "remove($self, value, /)\n--\n\nRemove the first element that is equal to it." },
  { "clear", list_clear, METH_NOARGS, "clear($self, /)\n--\n\nRemove all elements." },
  { "index", list_index, METH_VARARGS,
    "index($self, value, start=0, stop=9223372036854775807, /)\n--\n\nThe first index of an equal element." },
  { "count", list_count, METH_VARARGS, "count($self, value, /)\n--\n\nHow many elements are equal to it." },
  { "sort", FERRY_NATIVE_FAST (list_sort), METH_VARARGS | METH_KEYWORDS,
    "sort($self, /, *, key=None, reverse=False)\n--\n\nSort in place, in one step; stable." },
  { "reverse", list_reverse, METH_NOARGS, "reverse($self, /)\n--\n\nReverse in place, in one step." },
  { "copy", ferry_native_proxy_copy, METH_NOARGS,
    "copy($self, /)\n--\n\nA list of the elements; those that are containers stay live." },
  { "snapshot", ferry_native_proxy_snapshot, METH_NOARGS,
    "snapshot($self, /)\n--\n\nA list of its own, with copies of everything in it." },
  { "__copy__", ferry_native_proxy_copy, METH_NOARGS, NULL },
  { "__deepcopy__", ferry_native_proxy_deepcopy, METH_O, NULL },
  { "__reduce_ex__", ferry_native_proxy_reduce, METH_O, NULL },
  { "__reversed__", list_reversed, METH_NOARGS, NULL },
  { "__class_getitem__", Py_GenericAlias, METH_O | METH_CLASS, NULL },
  { "_add", list_add_to, METH_VARARGS, NULL },
  { NULL },
};

static PySequenceMethods list_as_sequence = {
  .sq_length = list_length,
  .sq_item = list_item,
  .sq_ass_item = list_assign_item,
  .sq_contains = list_contains,
  .sq_repeat = list_repeat,
  .sq_inplace_repeat = list_inplace_repeat,
};

static PyMappingMethods list_as_mapping = {
  .mp_length = list_length,
  .mp_subscript = list_subscript,
  .mp_ass_subscript = list_assign_subscript,
};

static PyNumberMethods list_as_number = {
  .nb_add = list_add,
  .nb_inplace_add = list_inplace_add,
};

PyTypeObject FerryNativeList_Type = {
  PyVarObject_HEAD_INIT (NULL, 0).tp_name = "ferry.store.List",
  .tp_doc = "A list that lives in a store.\n\nIt has all that a list has. Each call is one step that other processes "
            "see whole or not\n"
            "at all.",
  .tp_basicsize = sizeof (FerryNativeProxy),
  .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION | Py_TPFLAGS_SEQUENCE,
  .tp_dealloc = ferry_native_proxy_dealloc,
  .tp_repr = list_repr,
  .tp_hash = PyObject_HashNotImplemented,
  .tp_richcompare = ferry_native_proxy_compare,
  .tp_as_sequence = &list_as_sequence,
  .tp_as_mapping = &list_as_mapping,
  .tp_as_number = &list_as_number,
  .tp_iter = list_iterate,
  .tp_methods = list_methods,
  .tp_weaklistoffset = offsetof (FerryNativeProxy, weakrefs),
};
