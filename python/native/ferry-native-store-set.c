/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ferry-native-store.h"

/* Sets. What adds or removes one element is one operation of the store; what combines sets makes the new one of a look at the
 * old, and replaces it in one step if it still is as it was. */

#define SELF(object) ((FerryNativeProxy *) (object))

static Py_ssize_t
set_length (PyObject *object)
{
  FerryStore *store = ferry_native_store_get (SELF (object)->owner);
  gssize length;

  if (store == NULL)
    return -1;
  length = ferry_store_dict_length (store, SELF (object)->ref);
  if (length < 0)
    return ferry_native_raise_length (SELF (object), "set");
  return length;
}

/* ---- single elements ---- */

typedef enum
{
  FIND,
  ADD,
  REMOVE,
} Operation;

/* 1: it is, or was, in it; 0: it is not; -1: an exception. */
static int
set_operate (FerryNativeProxy *self, PyObject *element, Operation operation)
{
  FerryNativeKey key;
  FerryStore *store;
  int done = -2;

  store = ferry_native_store_get (self->owner);
  if (store == NULL || !ferry_native_key_init (&key, self->owner, element))
    return -1;
  do
    {
      GError *error = NULL;

      if (operation == FIND)
        {
          done = ferry_store_dict_get (store, self->ref, &key.key, NULL, &error);
        }
      else if (ferry_native_store_begin (self->owner))
        {
          done = operation == ADD
                     ? ferry_store_dict_set (store, self->ref, &key.key, 0, FERRY_CELL_NONE, TRUE, NULL, &error)
                     : ferry_store_dict_remove (store, self->ref, &key.key, NULL, &error);
          ferry_store_end (store);
        }
      else
        {
          done = -1;
        }
      if (done == -1 && !PyErr_Occurred ())
        ferry_native_raise (&error);
    }
  while (done == -2 && ferry_native_key_resolve (&key, self->ref));
  ferry_native_key_clear (&key);
  return MAX (done, -1);
}

/* A set that is looked for in a set is meant as a frozenset. */
static int
set_operate_lenient (FerryNativeProxy *self, PyObject *element, Operation operation)
{
  int done = set_operate (self, element, operation);

  if (done < 0 && (PySet_Check (element) || Py_IS_TYPE (element, &FerryNativeSet_Type))
      && PyErr_ExceptionMatches (PyExc_TypeError))
    {
      PyObject *plain;
      PyObject *frozen;

      PyErr_Clear ();
      plain = ferry_native_get_plain (element);
      frozen = plain != NULL ? PyFrozenSet_New (plain) : NULL;
      Py_XDECREF (plain);
      if (frozen == NULL)
        return -1;
      done = set_operate (self, frozen, operation);
      Py_DECREF (frozen);
    }
  return done;
}

static int
set_contains (PyObject *object, PyObject *element)
{
  return set_operate_lenient (SELF (object), element, FIND);
}

static PyObject *
set_add (PyObject *object, PyObject *element)
{
  if (set_operate (SELF (object), element, ADD) < 0)
    return NULL;
  Py_RETURN_NONE;
}

static PyObject *
set_discard (PyObject *object, PyObject *element)
{
  if (set_operate_lenient (SELF (object), element, REMOVE) < 0)
    return NULL;
  Py_RETURN_NONE;
}

static PyObject *
set_remove (PyObject *object, PyObject *element)
{
  int done = set_operate_lenient (SELF (object), element, REMOVE);

  if (done > 0)
    Py_RETURN_NONE;
  return done == 0 ? ferry_native_raise_key (element) : NULL;
}

static PyObject *
set_pop (PyObject *object, PyObject *unused)
{
  FerryNativeProxy *self = SELF (object);
  GError *error = NULL;
  FerryReading key;
  FerryStore *store;
  int done;

  if (!ferry_native_store_begin (self->owner))
    return NULL;
  store = self->owner->live;
  ferry_native_reading_init (&key);
  done = ferry_store_dict_pop (store, self->ref, FALSE, &key, NULL, &error);
  ferry_store_end (store);
  if (done > 0)
    return ferry_native_reading_take (self->owner, &key);
  if (done < 0)
    return ferry_native_raise (&error);
  PyErr_SetString (PyExc_KeyError, "pop from an empty set");
  return NULL;
}

/* ---- whole sets ---- */

/* Arguments whose proxies are plain; those that can be used up only once are sets then. */
static PyObject *
get_plain_arguments (PyObject *args)
{
  PyObject *result = PyTuple_New (PyTuple_GET_SIZE (args));

  for (Py_ssize_t i = 0; result != NULL && i < PyTuple_GET_SIZE (args); i++)
    {
      PyObject *object = PyTuple_GET_ITEM (args, i);
      PyObject *item = PyIter_Check (object) ? PySequence_List (object) : ferry_native_get_plain (object);

      if (item == NULL)
        Py_CLEAR (result);
      else
        PyTuple_SET_ITEM (result, i, item);
    }
  return result;
}

static PyObject *
set_call_plain (PyObject *object, const char *name, PyObject *args)
{
  PyObject *plain = ferry_native_plain (object, NULL);
  PyObject *arguments = get_plain_arguments (args);
  PyObject *method = plain != NULL ? PyObject_GetAttrString (plain, name) : NULL;
  PyObject *result = method != NULL && arguments != NULL ? PyObject_Call (method, arguments, NULL) : NULL;

  Py_XDECREF (plain);
  Py_XDECREF (arguments);
  Py_XDECREF (method);
  return result;
}

/* Replaces all elements, if it still has the version. 1; 0: it changed; -1: an exception. */
static int
set_replace (FerryNativeProxy *self, PyObject *plain, guint64 version)
{
  g_autoptr (FerryNativePlan) plan = ferry_native_plan_new (self->owner);
  PyObject *elements = PySequence_List (plain);
  gsize n = elements != NULL ? (gsize) PyList_GET_SIZE (elements) : 0;
  FerryCell *cells = NULL;
  GError *error = NULL;
  FerryStore *store;
  gboolean ok = elements != NULL;
  int done = -1;

  for (gsize i = 0; ok && i < n; i++)
    ok = ferry_native_plan_add_key (plan, PyList_GET_ITEM (elements, i));
  ok = ok && ferry_native_plan_finish (plan) && ferry_native_store_begin (self->owner);
  if (ok)
    {
      store = self->owner->live;
      if (n == 0 && version == 0)
        {
          done = ferry_store_dict_clear (store, self->ref, &error) ? 1 : -1;
        }
      else
        {
          cells = ferry_native_plan_make (plan);
          if (cells != NULL)
            {
              done = ferry_store_dict_assign (store, self->ref, version, cells, ferry_native_plan_get_hashes (plan), n,
                                              &error);
              if (done <= 0)
                ferry_native_plan_release (plan, 0, n);
            }
        }
      ferry_store_end (store);
      if (done < 0 && !PyErr_Occurred ())
        ferry_native_raise (&error);
    }
  Py_XDECREF (elements);
  return done;
}

/* Changes the set as a method of the plain one does. */
static gboolean
set_change (PyObject *object, const char *name, PyObject *args)
{
  FerryNativeProxy *self = SELF (object);
  PyObject *arguments = get_plain_arguments (args);
  int done = -1;

  if (arguments == NULL)
    return FALSE;
  for (guint tries = 0;; tries++)
    {
      gboolean held = tries >= FERRY_NATIVE_STORE_TRIES_MAX;
      guint64 version = 0;
      PyObject *plain;
      PyObject *method = NULL;
      PyObject *result = NULL;

      done = -1;
      if (held && !ferry_native_store_begin_transaction (self->owner, FERRY_WAIT_FOREVER))
        break;
      plain = ferry_native_plain (object, &version);
      if (plain != NULL)
        method = PyObject_GetAttrString (plain, name);
      if (method != NULL)
        result = PyObject_Call (method, arguments, NULL);
      if (result != NULL)
        done = version == 0 && !held ? 0 : set_replace (self, plain, held ? 0 : version);
      if (version == 0 && done == 0)
        tries = FERRY_NATIVE_STORE_TRIES_MAX - 1; /* it can't be asked for */
      Py_XDECREF (plain);
      Py_XDECREF (method);
      Py_XDECREF (result);
      if (held && !ferry_native_store_end_transaction (self->owner, done > 0))
        done = -1;
      if (done != 0)
        break;
    }
  Py_DECREF (arguments);
  return done > 0;
}

static PyObject *
set_update (PyObject *object, PyObject *args)
{
  PyObject *all;
  PyObject *elements;
  gboolean ok = TRUE;
  gboolean several;

  all = PySet_New (NULL);
  for (Py_ssize_t i = 0; all != NULL && i < PyTuple_GET_SIZE (args); i++)
    {
      PyObject *plain = ferry_native_get_plain (PyTuple_GET_ITEM (args, i));

      PyObject *updated = plain != NULL ? PyObject_CallMethod (all, "update", "(O)", plain) : NULL;

      if (updated == NULL)
        Py_CLEAR (all);
      Py_XDECREF (updated);
      Py_XDECREF (plain);
    }
  if (all == NULL)
    return NULL;
  elements = PySequence_List (all);
  Py_DECREF (all);
  if (elements == NULL)
    return NULL;
  several = PyList_GET_SIZE (elements) > 1;
  if (several && !ferry_native_store_begin_transaction (SELF (object)->owner, FERRY_WAIT_FOREVER))
    {
      Py_DECREF (elements);
      return NULL;
    }
  for (Py_ssize_t i = 0; ok && i < PyList_GET_SIZE (elements); i++)
    ok = set_operate (SELF (object), PyList_GET_ITEM (elements, i), ADD) >= 0;
  if (several)
    ok = ferry_native_store_end_transaction (SELF (object)->owner, ok) && ok;
  Py_DECREF (elements);
  if (!ok)
    return NULL;
  Py_RETURN_NONE;
}

#define CHANGING(name)                                                                                                 \
  static PyObject *set_##name (PyObject *object, PyObject *args)                                                       \
  {                                                                                                                    \
    if (!set_change (object, #name, args))                                                                             \
      return NULL;                                                                                                     \
    Py_RETURN_NONE;                                                                                                    \
  }

CHANGING (intersection_update)
CHANGING (difference_update)
CHANGING (symmetric_difference_update)

#define LOOKING(name)                                                                                                  \
  static PyObject *set_##name (PyObject *object, PyObject *args) { return set_call_plain (object, #name, args); }

LOOKING (union)
LOOKING (intersection)
LOOKING (difference)
LOOKING (symmetric_difference)
LOOKING (issubset)
LOOKING (issuperset)
LOOKING (isdisjoint)

/* ---- operators ---- */

static gboolean
is_any_set (PyObject *object)
{
  return Py_IS_TYPE (object, &FerryNativeSet_Type) || PyAnySet_Check (object) || PyDictViewSet_Check (object);
}

static PyObject *
set_combine (PyObject *left, PyObject *right, PyObject *(*operate) (PyObject *, PyObject *) )
{
  PyObject *one;
  PyObject *other;

  if (Py_IS_TYPE (left, &FerryNativeDictView_Type) || Py_IS_TYPE (right, &FerryNativeDictView_Type))
    {
      /* a view of a dict makes sets of itself */
      one = Py_IS_TYPE (left, &FerryNativeDictView_Type) ? PySet_New (left) : ferry_native_get_plain (left);
      other = Py_IS_TYPE (right, &FerryNativeDictView_Type) ? PySet_New (right) : ferry_native_get_plain (right);
    }
  else
    {
      if (!is_any_set (left) || !is_any_set (right))
        Py_RETURN_NOTIMPLEMENTED;
      one = ferry_native_get_plain (left);
      other = ferry_native_get_plain (right);
    }
  return ferry_native_operate (one, other, operate);
}

static PyObject *
set_and (PyObject *left, PyObject *right)
{
  return set_combine (left, right, PyNumber_And);
}

static PyObject *
set_or (PyObject *left, PyObject *right)
{
  return set_combine (left, right, PyNumber_Or);
}

static PyObject *
set_xor (PyObject *left, PyObject *right)
{
  return set_combine (left, right, PyNumber_Xor);
}

static PyObject *
set_subtract (PyObject *left, PyObject *right)
{
  return set_combine (left, right, PyNumber_Subtract);
}

static PyObject *
set_combine_in_place (PyObject *object, PyObject *other, const char *name)
{
  PyObject *args;
  gboolean done;

  if (!PyAnySet_Check (other) && !Py_IS_TYPE (other, &FerryNativeSet_Type))
    Py_RETURN_NOTIMPLEMENTED;
  args = PyTuple_Pack (1, other);
  if (args == NULL)
    return NULL;
  if (name == NULL)
    {
      PyObject *updated = set_update (object, args);

      done = updated != NULL;
      Py_XDECREF (updated);
    }
  else
    {
      done = set_change (object, name, args);
    }
  Py_DECREF (args);
  return done ? Py_NewRef (object) : NULL;
}

static PyObject *
set_inplace_and (PyObject *object, PyObject *other)
{
  return set_combine_in_place (object, other, "intersection_update");
}

static PyObject *
set_inplace_or (PyObject *object, PyObject *other)
{
  return set_combine_in_place (object, other, NULL);
}

static PyObject *
set_inplace_xor (PyObject *object, PyObject *other)
{
  return set_combine_in_place (object, other, "symmetric_difference_update");
}

static PyObject *
set_inplace_subtract (PyObject *object, PyObject *other)
{
  return set_combine_in_place (object, other, "difference_update");
}

static PyObject *
set_compare (PyObject *object, PyObject *other, int op)
{
  if (!is_any_set (other))
    Py_RETURN_NOTIMPLEMENTED;
  return ferry_native_proxy_compare (object, other, op);
}

static PyMethodDef set_methods[] = {
  { "add", set_add, METH_O, "add($self, element, /)\n--\n\nAdd an element." },
  { "discard", set_discard, METH_O, "discard($self, element, /)\n--\n\nRemove an element if it is there." },
  { "remove", set_remove, METH_O, "remove($self, element, /)\n--\n\nRemove an element." },
  { "pop", set_pop, METH_NOARGS,
    "pop($self, /)\n--\n\nRemove and return some element; of two who do it each gets another one." },
  { "clear", ferry_native_dict_clear, METH_NOARGS, "clear($self, /)\n--\n\nRemove all elements." },
  { "update", set_update, METH_VARARGS,
    "update($self, /, *others)\n--\n\nAdd all elements of the others, all or none." },
  { "intersection_update", set_intersection_update, METH_VARARGS,
    "intersection_update($self, /, *others)\n--\n\nKeep what is in all others, too." },
  { "difference_update", set_difference_update, METH_VARARGS,
    "difference_update($self, /, *others)\n--\n\nRemove what is in one of the others." },
  { "symmetric_difference_update", set_symmetric_difference_update, METH_VARARGS,
    "symmetric_difference_update($self, other, /)\n--\n\nKeep what is in one of both only." },
  { "union", set_union, METH_VARARGS, "union($self, /, *others)\n--\n\nA set of what is in any of them." },
  { "intersection", set_intersection, METH_VARARGS,
    "intersection($self, /, *others)\n--\n\nA set of what is in all of them." },
  { "difference", set_difference, METH_VARARGS,
    "difference($self, /, *others)\n--\n\nA set of what is in none of the others." },
  { "symmetric_difference", set_symmetric_difference, METH_VARARGS,
    "symmetric_difference($self, other, /)\n--\n\nA set of what is in one of both only." },
  { "issubset", set_issubset, METH_VARARGS, "issubset($self, other, /)\n--\n\nWhether the other has all elements." },
  { "issuperset", set_issuperset, METH_VARARGS,
    "issuperset($self, other, /)\n--\n\nWhether it has all elements of the other." },
  { "isdisjoint", set_isdisjoint, METH_VARARGS, "isdisjoint($self, other, /)\n--\n\nWhether nothing is in both." },
  { "copy", ferry_native_proxy_copy, METH_NOARGS, "copy($self, /)\n--\n\nA set of the elements." },
  { "snapshot", ferry_native_proxy_snapshot, METH_NOARGS, "snapshot($self, /)\n--\n\nA set of the elements." },
  { "__copy__", ferry_native_proxy_copy, METH_NOARGS, NULL },
  { "__deepcopy__", ferry_native_proxy_deepcopy, METH_O, NULL },
  { "__reduce_ex__", ferry_native_proxy_reduce, METH_O, NULL },
  { "__class_getitem__", Py_GenericAlias, METH_O | METH_CLASS, NULL },
  { NULL },
};

static PySequenceMethods set_as_sequence = { .sq_length = set_length, .sq_contains = set_contains };

static PyNumberMethods set_as_number = {
  .nb_and = set_and,
  .nb_or = set_or,
  .nb_xor = set_xor,
  .nb_subtract = set_subtract,
  .nb_inplace_and = set_inplace_and,
  .nb_inplace_or = set_inplace_or,
  .nb_inplace_xor = set_inplace_xor,
  .nb_inplace_subtract = set_inplace_subtract,
};

PyTypeObject FerryNativeSet_Type = {
  PyVarObject_HEAD_INIT (NULL, 0).tp_name = "ferry.store.Set",
  .tp_doc = "A set that lives in a store.\n\nIt has all that a set has; results of operators are plain sets.",
  .tp_basicsize = sizeof (FerryNativeProxy),
  .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
  .tp_dealloc = ferry_native_proxy_dealloc,
  .tp_repr = ferry_native_proxy_repr,
  .tp_hash = PyObject_HashNotImplemented,
  .tp_richcompare = set_compare,
  .tp_as_sequence = &set_as_sequence,
  .tp_as_number = &set_as_number,
  .tp_iter = ferry_native_dict_iterate,
  .tp_methods = set_methods,
  .tp_weaklistoffset = offsetof (FerryNativeProxy, weakrefs),
};
