/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ferry-native-store.h"

/* Dicts, their views and their iterators. */

#define SELF(object) ((FerryNativeProxy *) (object))

typedef enum
{
  KEYS,
  VALUES,
  ITEMS,
} Part;

static Py_ssize_t
dict_length (PyObject *object)
{
  FerryStore *store = ferry_native_store_get (SELF (object)->owner);
  gssize length;

  if (G_UNLIKELY (store == NULL))
    return -1;
  length = ferry_store_dict_length (store, SELF (object)->ref);
  if (G_UNLIKELY (length < 0))
    return ferry_native_raise_length (SELF (object), "dict");
  return length;
}

/* ---- single keys ---- */

/* 1: found, and what is not wanted may be left out; 0: it is not there; -1: an exception. */
static inline int
dict_find (FerryNativeProxy *self, PyObject *key, FerryReading *reading)
{
  FerryStore *store = ferry_native_store_get (self->owner);
  GError *error = NULL;
  FerryNativeKey wanted;
  int found;

  if (G_UNLIKELY (store == NULL))
    return -1;
  if (G_UNLIKELY (!ferry_native_key_init (&wanted, self->owner, key)))
    return -1;
  found = ferry_store_dict_get (store, self->ref, &wanted.key, reading, &error);
  if (G_UNLIKELY (found == -2) && ferry_native_key_resolve (&wanted, self->ref))
    found = ferry_store_dict_get (store, self->ref, &wanted.key, reading, &error);
  ferry_native_key_clear (&wanted);
  if (G_UNLIKELY (found < 0 && !PyErr_Occurred ()))
    ferry_native_raise (&error);
  return MAX (found, -1);
}

static PyObject *
dict_subscript (PyObject *object, PyObject *key)
{
  FerryReading reading;
  int found;

  ferry_native_reading_init (&reading);
  found = dict_find (SELF (object), key, &reading);
  if (G_LIKELY (found > 0))
    return ferry_native_reading_take (SELF (object)->owner, &reading);
  Py_XDECREF ((PyObject *) reading.user_data);
  return found == 0 ? ferry_native_raise_key (key) : NULL;
}

static int
dict_contains (PyObject *object, PyObject *key)
{
  return dict_find (SELF (object), key, NULL);
}

/* 1: it was there; 0: it was not; -1: an exception. */
static int
dict_store (FerryNativeProxy *self, PyObject *object, PyObject *item, gboolean only_new, FerryReading *reading)
{
  FerryNativeKey key;
  int done = -2;

  if (G_UNLIKELY (!ferry_native_key_init (&key, self->owner, object)))
    return -1;
  do
    {
      GError *error = NULL;
      FerryNativeValue value;

      if (G_UNLIKELY (!ferry_native_value_prepare (&value, self->owner, item)))
        break;
      if (G_LIKELY (ferry_native_store_begin (self->owner)))
        {
          FerryStore *store = self->owner->live;

          done = -1;
          if (G_LIKELY (ferry_native_value_make (&value, self->owner)))
            {
              FerryCell cell = value.cell;
              gboolean is_held = only_new && ferry_cell_tag (cell) == FERRY_CELL_OBJECT;

              if (!is_held || ferry_store_hold (store, ferry_cell_payload (cell), &error))
                done = ferry_store_dict_set (store, self->ref, &key.key, 0, cell, only_new, reading, &error);
              else
                is_held = FALSE;
              if (is_held && done == 0)
                reading->cell = cell;
              else if (is_held)
                ferry_store_unhold (store, ferry_cell_payload (cell));
              if (G_UNLIKELY (done < 0))
                ferry_native_value_release (&value, self->owner);
            }
          ferry_store_end (store);
        }
      else
        {
          done = -1;
        }
      ferry_native_value_clear (&value);
      if (G_UNLIKELY (done == -1 && !PyErr_Occurred ()))
        ferry_native_raise (&error);
    }
  while (G_UNLIKELY (done == -2) && ferry_native_key_resolve (&key, self->ref));
  ferry_native_key_clear (&key);
  return MAX (done, -1);
}

static int
dict_take (FerryNativeProxy *self, PyObject *object, FerryReading *reading)
{
  FerryNativeKey key;
  int done = -2;

  if (G_UNLIKELY (!ferry_native_key_init (&key, self->owner, object)))
    return -1;
  do
    {
      GError *error = NULL;

      if (!ferry_native_store_begin (self->owner))
        {
          done = -1;
          break;
        }
      else
        {
          FerryStore *store = self->owner->live;

          done = ferry_store_dict_remove (store, self->ref, &key.key, reading, &error);
          ferry_store_end (store);
        }
      if (done == -1)
        ferry_native_raise (&error);
    }
  while (G_UNLIKELY (done == -2) && ferry_native_key_resolve (&key, self->ref));
  ferry_native_key_clear (&key);
  return MAX (done, -1);
}

static int
dict_assign_subscript (PyObject *object, PyObject *key, PyObject *value)
{
  FerryReading reading;
  int done;

  if (G_LIKELY (value != NULL))
    return dict_store (SELF (object), key, value, FALSE, NULL) >= 0 ? 0 : -1;
  ferry_native_reading_init (&reading);
  done = dict_take (SELF (object), key, &reading);
  if (done > 0)
    {
      ferry_native_reading_drop (SELF (object)->owner, &reading);
      return 0;
    }
  if (done == 0)
    ferry_native_raise_key (key);
  return -1;
}

static PyObject *
dict_get (PyObject *object, PyObject *const *args, Py_ssize_t n_args)
{
  FerryReading reading;
  int found;

  if (n_args < 1 || n_args > 2)
    return PyErr_Format (PyExc_TypeError, "get expected 1 or 2 arguments, got %zd", n_args);
  ferry_native_reading_init (&reading);
  found = dict_find (SELF (object), args[0], &reading);
  if (found > 0)
    return ferry_native_reading_take (SELF (object)->owner, &reading);
  Py_XDECREF ((PyObject *) reading.user_data);
  return found < 0 ? NULL : Py_NewRef (n_args > 1 ? args[1] : Py_None);
}

/* Whether what is read is the same as what was stored, or an object, which dict_store() holds. */
static gboolean
is_known_when_stored (PyObject *value, gboolean *is_object)
{
  FerryCell cell;

  *is_object = PyList_CheckExact (value) || PyDict_CheckExact (value) || PySet_CheckExact (value)
               || PyByteArray_CheckExact (value) || ferry_native_is_proxy (value);
  return *is_object || PyUnicode_CheckExact (value) || PyBytes_CheckExact (value) || PyLong_CheckExact (value)
         || ferry_native_inline_cell (value, &cell);
}

/* Others may take out at once what this has stored: it isn't looked for again. */
static PyObject *
dict_setdefault (PyObject *object, PyObject *const *args, Py_ssize_t n_args)
{
  FerryNativeProxy *self = SELF (object);
  PyObject *value = n_args > 1 ? args[1] : Py_None;
  PyObject *result = NULL;
  FerryReading reading;
  gboolean is_known;
  gboolean is_object;
  int done;

  if (n_args < 1 || n_args > 2)
    return PyErr_Format (PyExc_TypeError, "setdefault expected 1 or 2 arguments, got %zd", n_args);
  ferry_native_reading_init (&reading);
  is_known = is_known_when_stored (value, &is_object);
  if (!is_known)
    {
      done = dict_find (self, args[0], &reading);
      if (done > 0)
        return ferry_native_reading_take (self->owner, &reading);
      Py_CLEAR (reading.user_data);
      if (done < 0 || !ferry_native_store_begin_transaction (self->owner, FERRY_WAIT_FOREVER))
        return NULL;
    }
  done = dict_store (self, args[0], value, TRUE, &reading);
  if (done > 0 || (done == 0 && is_object))
    result = ferry_native_reading_take (self->owner, &reading);
  else if (done == 0)
    result = is_known ? Py_NewRef (value) : dict_subscript (object, args[0]);
  if (!is_known && !ferry_native_store_end_transaction (self->owner, done >= 0))
    Py_CLEAR (result);
  return result;
}

static PyObject *
dict_pop (PyObject *object, PyObject *const *args, Py_ssize_t n_args)
{
  FerryReading reading;
  int done;

  if (n_args < 1 || n_args > 2)
    return PyErr_Format (PyExc_TypeError, "pop expected 1 or 2 arguments, got %zd", n_args);
  ferry_native_reading_init (&reading);
  done = dict_take (SELF (object), args[0], &reading);
  if (done > 0)
    return ferry_native_reading_take (SELF (object)->owner, &reading);
  if (done < 0)
    return NULL;
  return n_args > 1 ? Py_NewRef (args[1]) : ferry_native_raise_key (args[0]);
}

static PyObject *
dict_popitem (PyObject *object, PyObject *unused)
{
  FerryNativeProxy *self = SELF (object);
  GError *error = NULL;
  FerryReading key;
  FerryReading value;
  FerryStore *store;
  PyObject *pair[2];
  int done;

  if (!ferry_native_store_begin (self->owner))
    return NULL;
  store = self->owner->live;
  ferry_native_reading_init (&key);
  ferry_native_reading_init (&value);
  done = ferry_store_dict_pop (store, self->ref, TRUE, &key, &value, &error);
  ferry_store_end (store);
  if (done < 0)
    return ferry_native_raise (&error);
  if (done == 0)
    {
      PyErr_SetString (PyExc_KeyError, "popitem(): dictionary is empty");
      return NULL;
    }
  pair[0] = ferry_native_reading_take (self->owner, &key);
  pair[1] = ferry_native_reading_take (self->owner, &value);
  if (pair[0] != NULL && pair[1] != NULL)
    return Py_BuildValue ("(NN)", pair[0], pair[1]);
  Py_XDECREF (pair[0]);
  Py_XDECREF (pair[1]);
  return NULL;
}

/* ---- several keys ---- */

/* Stores all of a plain dict, all or none, seen by others at once. */
static gboolean
dict_merge (FerryNativeProxy *self, PyObject *plain)
{
  gsize n = (gsize) PyDict_GET_SIZE (plain);
  g_autoptr (FerryNativePlan) plan = NULL;
  g_autofree FerryNativeKey *keys = NULL;
  FerryCell *cells = NULL;
  PyObject *key;
  PyObject *value;
  Py_ssize_t position = 0;
  gsize n_keys = 0;
  gsize n_stored = 0;
  gboolean ok = TRUE;

  if (n == 0)
    return TRUE;
  if (n == 1)
    {
      int done;

      PyDict_Next (plain, &position, &key, &value);
      Py_INCREF (key);
      Py_INCREF (value);
      done = dict_store (self, key, value, FALSE, NULL);
      Py_DECREF (key);
      Py_DECREF (value);
      return done >= 0;
    }
  plan = ferry_native_plan_new (self->owner);
  keys = g_new (FerryNativeKey, n);
  while (ok && PyDict_Next (plain, &position, &key, &value) && n_keys < n)
    {
      ok = ferry_native_plan_add (plan, value);
      if (ok)
        {
          ok = ferry_native_key_init (&keys[n_keys], self->owner, key);
          n_keys += ok;
        }
    }
  ok = ok && ferry_native_plan_finish (plan) && ferry_native_store_begin_transaction (self->owner, FERRY_WAIT_FOREVER);
  if (ok)
    {
      if (ferry_native_store_begin (self->owner))
        {
          cells = ferry_native_plan_make (plan);
          ferry_store_end (self->owner->live);
        }
      ok = cells != NULL;
      while (ok && n_stored < n_keys)
        {
          FerryNativeKey *one = &keys[n_stored];
          GError *error = NULL;
          int done = -1;

          if (ferry_native_store_begin (self->owner))
            {
              done = ferry_store_dict_set (self->owner->live, self->ref, &one->key, 0, cells[n_stored], FALSE, NULL,
                                           &error);
              ferry_store_end (self->owner->live);
              if (done == -1)
                ferry_native_raise (&error);
            }
          if (done >= 0)
            n_stored++;
          else
            ok = done == -2 && ferry_native_key_resolve (one, self->ref);
        }
      if (cells != NULL && n_stored < n_keys && ferry_native_store_begin (self->owner))
        {
          ferry_native_plan_release (plan, n_stored, n_keys - n_stored);
          ferry_store_end (self->owner->live);
        }
      ok = ferry_native_store_end_transaction (self->owner, ok) && ok;
    }
  for (gsize i = 0; i < n_keys; i++)
    ferry_native_key_clear (&keys[i]);
  return ok;
}

static PyObject *
dict_update (PyObject *object, PyObject *args, PyObject *keywords)
{
  PyObject *other = NULL;
  PyObject *plain;
  gboolean ok = TRUE;

  if (!PyArg_UnpackTuple (args, "update", 0, 1, &other))
    return NULL;
  plain = PyDict_New ();
  if (plain == NULL)
    return NULL;
  if (other != NULL)
    {
      PyObject *source = ferry_native_get_plain (other);
      PyObject *method = PyObject_GetAttrString (plain, "update");
      PyObject *done = source != NULL && method != NULL ? PyObject_CallOneArg (method, source) : NULL;

      ok = done != NULL;
      Py_XDECREF (source);
      Py_XDECREF (method);
      Py_XDECREF (done);
    }
  if (ok && keywords != NULL)
    ok = PyDict_Update (plain, keywords) == 0;
  ok = ok && dict_merge (SELF (object), plain);
  Py_DECREF (plain);
  if (!ok)
    return NULL;
  Py_RETURN_NONE;
}

static PyObject *
dict_fromkeys (PyObject *type, PyObject *args)
{
  PyObject *method = PyObject_GetAttrString ((PyObject *) &PyDict_Type, "fromkeys");
  PyObject *result = method != NULL ? PyObject_Call (method, args, NULL) : NULL;

  Py_XDECREF (method);
  return result;
}

/* Either side may be a proxy. */
static PyObject *
dict_or (PyObject *left, PyObject *right)
{
  if ((!Py_IS_TYPE (left, &FerryNativeDict_Type) && !PyDict_Check (left))
      || (!Py_IS_TYPE (right, &FerryNativeDict_Type) && !PyDict_Check (right)))
    Py_RETURN_NOTIMPLEMENTED;
  return ferry_native_operate (ferry_native_get_plain (left), ferry_native_get_plain (right), PyNumber_Or);
}

static PyObject *
dict_inplace_or (PyObject *object, PyObject *other)
{
  PyObject *args = PyTuple_Pack (1, other);
  PyObject *done = args != NULL ? dict_update (object, args, NULL) : NULL;

  Py_XDECREF (args);
  if (done == NULL)
    return NULL;
  Py_DECREF (done);
  return Py_NewRef (object);
}

static PyObject *
dict_repr (PyObject *object)
{
  return ferry_native_repr_nested (object, ferry_native_get_plain, "{...}");
}

static PyObject *
dict_compare (PyObject *object, PyObject *other, int op)
{
  if (op != Py_EQ && op != Py_NE)
    Py_RETURN_NOTIMPLEMENTED;
  return ferry_native_proxy_compare (object, other, op);
}

/* Adds to a value in one step; NotImplemented: not both are numbers that fit. */
static PyObject *
dict_add (PyObject *object, PyObject *args)
{
  FerryNativeProxy *self = SELF (object);
  GError *error = NULL;
  FerryNativeKey key;
  FerryReading reading;
  FerryCell delta;
  PyObject *name;
  PyObject *number;
  int done = -2;

  if (!PyArg_ParseTuple (args, "OO", &name, &number))
    return NULL;
  if (!ferry_native_inline_number (number, &delta))
    return Py_NewRef (Py_NotImplemented);
  if (!ferry_native_key_init (&key, self->owner, name))
    return NULL;
  ferry_native_reading_init (&reading);
  do
    {
      if (!ferry_native_store_begin (self->owner))
        break;
      done = ferry_store_dict_add (self->owner->live, self->ref, &key.key, delta, &reading, &error);
      ferry_store_end (self->owner->live);
    }
  while (done == -2 && ferry_native_key_resolve (&key, self->ref));
  ferry_native_key_clear (&key);
  return done == 0 ? ferry_native_raise_key (name) : ferry_native_sum_take (self->owner, done, &reading, &error);
}

/* ---- iteration ---- */

typedef struct
{
  PyObject_HEAD FerryNativeProxy *dict; /* NULL: at the end */
  Part part;
  gboolean backwards;
  gboolean is_set;
  gssize length;
  guint64 position;
} Iterator;

static PyObject *
iterator_new (FerryNativeProxy *dict, Part part, gboolean backwards)
{
  gssize length = dict_length ((PyObject *) dict);
  Iterator *self;

  if (length < 0)
    return NULL;
  self = PyObject_New (Iterator, &FerryNativeDictIterator_Type);
  if (self == NULL)
    return NULL;
  self->dict = SELF (Py_NewRef ((PyObject *) dict));
  self->part = part;
  self->backwards = backwards;
  self->is_set = Py_IS_TYPE ((PyObject *) dict, &FerryNativeSet_Type);
  self->length = length;
  self->position = backwards ? G_MAXUINT64 : 0;
  return (PyObject *) self;
}

PyObject *
ferry_native_dict_iterate (PyObject *dict)
{
  return iterator_new (SELF (dict), KEYS, FALSE);
}

static void
iterator_dealloc (PyObject *object)
{
  Py_XDECREF ((PyObject *) ((Iterator *) object)->dict);
  PyObject_Free (object);
}

static PyObject *
iterator_next (PyObject *object)
{
  Iterator *self = (Iterator *) object;
  FerryNativeStore *owner;
  GError *error = NULL;
  FerryReading key;
  FerryReading value;
  PyObject *items[2] = { NULL, NULL };
  FerryStore *store;
  int found;

  if (self->dict == NULL)
    return NULL;
  owner = self->dict->owner;
  store = ferry_native_store_get (owner);
  if (store == NULL)
    return NULL;
  if (ferry_store_dict_length (store, self->dict->ref) != self->length)
    {
      PyErr_SetString (PyExc_RuntimeError,
                       self->is_set ? "Set changed size during iteration" : "dictionary changed size during iteration");
      self->length = -1; /* and so it stays */
      return NULL;
    }
  ferry_native_reading_init (&key);
  ferry_native_reading_init (&value);
  found = ferry_store_dict_next (store, self->dict->ref, &self->position, self->backwards,
                                 self->part != VALUES ? &key : NULL, self->part != KEYS ? &value : NULL, &error);
  if (found <= 0)
    {
      Py_CLEAR (self->dict);
      return found < 0 ? ferry_native_raise (&error) : NULL;
    }
  if (self->part != VALUES)
    items[0] = ferry_native_reading_take (owner, &key);
  if (self->part != KEYS)
    items[1] = ferry_native_reading_take (owner, &value);
  if (self->part != ITEMS)
    return items[self->part];
  if (items[0] != NULL && items[1] != NULL)
    {
      PyObject *pair = PyTuple_New (2);

      if (pair != NULL)
        {
          PyTuple_SET_ITEM (pair, 0, items[0]);
          PyTuple_SET_ITEM (pair, 1, items[1]);
          return pair;
        }
    }
  Py_XDECREF (items[0]);
  Py_XDECREF (items[1]);
  return NULL;
}

static PyObject *
iterator_length_hint (PyObject *object, PyObject *unused)
{
  Iterator *self = (Iterator *) object;

  return PyLong_FromSsize_t (self->dict != NULL ? MAX (self->length, 0) : 0);
}

static PyMethodDef iterator_methods[] = {
  { "__length_hint__", iterator_length_hint, METH_NOARGS, NULL },
  { NULL },
};

PyTypeObject FerryNativeDictIterator_Type = {
  PyVarObject_HEAD_INIT (NULL, 0).tp_name = "ferry.store.DictIterator",
  .tp_basicsize = sizeof (Iterator),
  .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
  .tp_dealloc = iterator_dealloc,
  .tp_iter = PyObject_SelfIter,
  .tp_iternext = iterator_next,
  .tp_methods = iterator_methods,
};

static PyObject *
dict_reversed (PyObject *object, PyObject *unused)
{
  return iterator_new (SELF (object), KEYS, TRUE);
}

/* ---- views ---- */

typedef struct
{
  PyObject_HEAD FerryNativeProxy *dict;
  Part part;
} View;

static const char *const part_names[] = { "keys", "values", "items" };

static PyObject *
view_new (PyObject *dict, Part part)
{
  View *self = PyObject_New (View, &FerryNativeDictView_Type);

  if (self != NULL)
    {
      self->dict = SELF (Py_NewRef (dict));
      self->part = part;
    }
  return (PyObject *) self;
}

static PyObject *
dict_keys (PyObject *object, PyObject *unused)
{
  return view_new (object, KEYS);
}

static PyObject *
dict_values (PyObject *object, PyObject *unused)
{
  return view_new (object, VALUES);
}

static PyObject *
dict_items (PyObject *object, PyObject *unused)
{
  return view_new (object, ITEMS);
}

static void
view_dealloc (PyObject *object)
{
  Py_DECREF ((PyObject *) ((View *) object)->dict);
  PyObject_Free (object);
}

/* The same view of a plain dict; what is no view of ours as it is, but proxies as plain. */
static PyObject *
get_plain (PyObject *object)
{
  View *self = (View *) object;
  PyObject *plain;
  PyObject *view;

  if (!Py_IS_TYPE (object, &FerryNativeDictView_Type))
    return ferry_native_get_plain (object);
  plain = ferry_native_plain ((PyObject *) self->dict, NULL);
  view = plain != NULL ? PyObject_CallMethod (plain, part_names[self->part], NULL) : NULL;
  Py_XDECREF (plain);
  return view;
}

static PyObject *
view_operate (PyObject *left, PyObject *right, PyObject *(*operate) (PyObject *, PyObject *) )
{
  if ((Py_IS_TYPE (left, &FerryNativeDictView_Type) && ((View *) left)->part == VALUES)
      || (Py_IS_TYPE (right, &FerryNativeDictView_Type) && ((View *) right)->part == VALUES))
    Py_RETURN_NOTIMPLEMENTED;
  return ferry_native_operate (get_plain (left), get_plain (right), operate);
}

static PyObject *
view_and (PyObject *left, PyObject *right)
{
  return view_operate (left, right, PyNumber_And);
}

static PyObject *
view_or (PyObject *left, PyObject *right)
{
  return view_operate (left, right, PyNumber_Or);
}

static PyObject *
view_xor (PyObject *left, PyObject *right)
{
  return view_operate (left, right, PyNumber_Xor);
}

static PyObject *
view_subtract (PyObject *left, PyObject *right)
{
  return view_operate (left, right, PyNumber_Subtract);
}

static PyObject *
view_compare (PyObject *object, PyObject *other, int op)
{
  PyObject *one;
  PyObject *two;
  PyObject *result = NULL;

  if (((View *) object)->part == VALUES)
    Py_RETURN_NOTIMPLEMENTED;
  one = get_plain (object);
  two = get_plain (other);
  if (one != NULL && two != NULL)
    result = Py_TYPE (one)->tp_richcompare (one, two, op);
  Py_XDECREF (one);
  Py_XDECREF (two);
  return result;
}

static PyObject *
view_isdisjoint (PyObject *object, PyObject *other)
{
  PyObject *one = get_plain (object);
  PyObject *two = get_plain (other);
  PyObject *result = NULL;

  if (one != NULL && two != NULL)
    result = PyObject_CallMethod (one, "isdisjoint", "O", two);
  Py_XDECREF (one);
  Py_XDECREF (two);
  return result;
}

static Py_ssize_t
view_length (PyObject *object)
{
  return dict_length ((PyObject *) ((View *) object)->dict);
}

static int
view_contains (PyObject *object, PyObject *item)
{
  View *self = (View *) object;
  PyObject *plain;
  PyObject *value;
  FerryReading reading;
  int found;

  switch (self->part)
    {
    case KEYS:
      return dict_contains ((PyObject *) self->dict, item);

    case ITEMS:
      if (!PyTuple_Check (item) || PyTuple_GET_SIZE (item) != 2)
        return FALSE;
      ferry_native_reading_init (&reading);
      found = dict_find (self->dict, PyTuple_GET_ITEM (item, 0), &reading);
      if (found <= 0)
        return found;
      value = ferry_native_reading_take (self->dict->owner, &reading);
      if (value == NULL)
        return -1;
      found = PyObject_RichCompareBool (value, PyTuple_GET_ITEM (item, 1), Py_EQ);
      Py_DECREF (value);
      return found;

    case VALUES:
    default:
      plain = get_plain (object);
      found = plain != NULL ? PySequence_Contains (plain, item) : -1;
      Py_XDECREF (plain);
      return found;
    }
}

static PyObject *
view_iterate (PyObject *object)
{
  return iterator_new (((View *) object)->dict, ((View *) object)->part, FALSE);
}

static PyObject *
view_reversed (PyObject *object, PyObject *unused)
{
  return iterator_new (((View *) object)->dict, ((View *) object)->part, TRUE);
}

static PyObject *
view_repr (PyObject *object)
{
  return ferry_native_repr_nested (object, get_plain, "...");
}

static PyObject *
view_get_mapping (PyObject *object, void *closure)
{
  return PyDictProxy_New ((PyObject *) ((View *) object)->dict);
}

static PyMethodDef view_methods[] = {
  { "isdisjoint", view_isdisjoint, METH_O, "isdisjoint($self, other, /)\n--\n\nWhether nothing is in both." },
  { "__reversed__", view_reversed, METH_NOARGS, NULL },
  { NULL },
};

static PyGetSetDef view_getset[] = {
  { "mapping", view_get_mapping, NULL, "mappingproxy: the dict", NULL },
  { NULL },
};

static PySequenceMethods view_as_sequence = { .sq_length = view_length, .sq_contains = view_contains };

static PyNumberMethods view_as_number
    = { .nb_and = view_and, .nb_or = view_or, .nb_xor = view_xor, .nb_subtract = view_subtract };

PyTypeObject FerryNativeDictView_Type = {
  PyVarObject_HEAD_INIT (NULL, 0).tp_name = "ferry.store.DictView",
  .tp_doc = "Keys, values or items of a dict in a store.",
  .tp_basicsize = sizeof (View),
  .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
  .tp_dealloc = view_dealloc,
  .tp_repr = view_repr,
  .tp_hash = PyObject_HashNotImplemented,
  .tp_richcompare = view_compare,
  .tp_as_sequence = &view_as_sequence,
  .tp_as_number = &view_as_number,
  .tp_iter = view_iterate,
  .tp_methods = view_methods,
  .tp_getset = view_getset,
};

/* ---- type ---- */

static PyMethodDef dict_methods[] = {
  { "get", FERRY_NATIVE_FAST (dict_get), METH_FASTCALL,
    "get($self, key, default=None, /)\n--\n\nThe value of a key, or the default." },
  { "setdefault", FERRY_NATIVE_FAST (dict_setdefault), METH_FASTCALL,
    "setdefault($self, key, default=None, /)\n--\n\nThe value of a key, which is set to the default if it is not "
    "there, in one step." },
  { "pop", FERRY_NATIVE_FAST (dict_pop), METH_FASTCALL,
    "pop($self, key, default=..., /)\n--\n\nRemove a key and return its value, or the default." },
  { "popitem", dict_popitem, METH_NOARGS, "popitem($self, /)\n--\n\nRemove and return the item that was added last." },
  { "clear", ferry_native_dict_clear, METH_NOARGS, "clear($self, /)\n--\n\nRemove all items." },
  { "update", FERRY_NATIVE_FAST (dict_update), METH_VARARGS | METH_KEYWORDS,
    "update($self, other=(), /, **kwargs)\n--\n\nSet all items of a mapping or of pairs, all or none." },
  { "keys", dict_keys, METH_NOARGS, "keys($self, /)\n--\n\nA view of the keys." },
  { "values", dict_values, METH_NOARGS, "values($self, /)\n--\n\nA view of the values." },
  { "items", dict_items, METH_NOARGS, "items($self, /)\n--\n\nA view of the items." },
  { "copy", ferry_native_proxy_copy, METH_NOARGS,
    "copy($self, /)\n--\n\nA dict of the items; values that are containers stay live." },
  { "fromkeys", dict_fromkeys, METH_VARARGS | METH_CLASS,
    "fromkeys($type, iterable, value=None, /)\n--\n\nA plain dict, as dict.fromkeys()." },
  { "snapshot", ferry_native_proxy_snapshot, METH_NOARGS,
    "snapshot($self, /)\n--\n\nA dict of its own, with copies of everything in it." },
  { "__copy__", ferry_native_proxy_copy, METH_NOARGS, NULL },
  { "__deepcopy__", ferry_native_proxy_deepcopy, METH_O, NULL },
  { "__reduce_ex__", ferry_native_proxy_reduce, METH_O, NULL },
  { "__reversed__", dict_reversed, METH_NOARGS, NULL },
  { "__class_getitem__", Py_GenericAlias, METH_O | METH_CLASS, NULL },
  { "_add", dict_add, METH_VARARGS, NULL },
  { NULL },
};

static PySequenceMethods dict_as_sequence = { .sq_length = dict_length, .sq_contains = dict_contains };

static PyMappingMethods dict_as_mapping
    = { .mp_length = dict_length, .mp_subscript = dict_subscript, .mp_ass_subscript = dict_assign_subscript };

static PyNumberMethods dict_as_number = { .nb_or = dict_or, .nb_inplace_or = dict_inplace_or };

PyTypeObject FerryNativeDict_Type = {
  PyVarObject_HEAD_INIT (NULL, 0).tp_name = "ferry.store.Dict",
  .tp_doc = "A dict that lives in a store.\n\nIt has all that a dict has, in the order of insertion. Keys are equal as "
            "in Python, whatever\n"
            "PYTHONHASHSEED is in each process.",
  .tp_basicsize = sizeof (FerryNativeProxy),
  .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION | Py_TPFLAGS_MAPPING,
  .tp_dealloc = ferry_native_proxy_dealloc,
  .tp_repr = dict_repr,
  .tp_hash = PyObject_HashNotImplemented,
  .tp_richcompare = dict_compare,
  .tp_as_sequence = &dict_as_sequence,
  .tp_as_mapping = &dict_as_mapping,
  .tp_as_number = &dict_as_number,
  .tp_iter = ferry_native_dict_iterate,
  .tp_methods = dict_methods,
  .tp_weaklistoffset = offsetof (FerryNativeProxy, weakrefs),
};
