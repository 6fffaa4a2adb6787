/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ferry-native-store.h"

/* Byte arrays. What looks at one looks at a copy of an instant. */

#define SELF(object) ((FerryNativeProxy *) (object))

static Py_ssize_t
bytearray_length (PyObject *object)
{
  FerryStore *store = ferry_native_store_get (SELF (object)->owner);
  gssize length;

  if (store == NULL)
    return -1;
  length = ferry_store_bytearray_length (store, SELF (object)->ref);
  if (length < 0)
    return ferry_native_raise_length (SELF (object), "bytearray");
  return length;
}

static gboolean
bytearray_splice (FerryNativeProxy *self, gsize offset, gsize n_removed, gconstpointer data, gsize size)
{
  GError *error = NULL;
  gboolean done;
  FerryStore *store;

  if (!ferry_native_store_begin (self->owner))
    return FALSE;
  store = self->owner->live;
  done = ferry_store_bytearray_splice (store, self->ref, offset, n_removed, data, size, &error);
  ferry_store_end (store);
  if (!done)
    ferry_native_raise (&error);
  return done;
}

/* Changes it as a function changes a plain one. @change: 0, -1: an exception. */
static gboolean
bytearray_change (FerryNativeProxy *self, int (*change) (PyObject *plain, gpointer data), gpointer data)
{
  gboolean done = FALSE;
  PyObject *plain;

  if (!ferry_native_store_begin_transaction (self->owner, FERRY_WAIT_FOREVER))
    return FALSE;
  plain = ferry_native_plain ((PyObject *) self, NULL);
  if (plain != NULL && change (plain, data) == 0)
    done = bytearray_splice (self, 0, G_MAXSSIZE, PyByteArray_AS_STRING (plain), (gsize) PyByteArray_GET_SIZE (plain));
  Py_XDECREF (plain);
  return ferry_native_store_end_transaction (self->owner, done) && done;
}

typedef struct
{
  const char *name;
  PyObject *args;
  PyObject *keywords;
  PyObject *result;
} Call;

static int
call_change (PyObject *plain, gpointer data)
{
  Call *call = data;
  PyObject *method = PyObject_GetAttrString (plain, call->name);

  call->result = method != NULL ? PyObject_Call (method, call->args, call->keywords) : NULL;
  Py_XDECREF (method);
  return call->result != NULL ? 0 : -1;
}

/* ---- elements ---- */

static PyObject *
bytearray_get (FerryNativeProxy *self, Py_ssize_t index)
{
  FerryStore *store = ferry_native_store_get (self->owner);
  g_autoptr (GError) error = NULL;
  gssize n = 0;
  guint8 byte;

  if (store == NULL)
    return NULL;
  if (index < 0)
    {
      /* From the end, which has to be the end of the same. */
      PyObject *plain = ferry_native_plain ((PyObject *) self, NULL);
      PyObject *result = NULL;

      if (plain != NULL && index + PyByteArray_GET_SIZE (plain) >= 0)
        result = PyLong_FromLong ((guint8) PyByteArray_AS_STRING (plain)[index + PyByteArray_GET_SIZE (plain)]);
      else if (plain != NULL)
        PyErr_SetString (PyExc_IndexError, "bytearray index out of range");
      Py_XDECREF (plain);
      return result;
    }
  n = ferry_store_bytearray_read (store, self->ref, (gsize) index, &byte, 1, &error);
  if (n < 0)
    return ferry_native_raise (&error);
  if (n == 0)
    {
      PyErr_SetString (PyExc_IndexError, "bytearray index out of range");
      return NULL;
    }
  return PyLong_FromLong (byte);
}

static PyObject *
bytearray_item (PyObject *object, Py_ssize_t index)
{
  if (index < 0)
    {
      PyErr_SetString (PyExc_IndexError, "bytearray index out of range");
      return NULL;
    }
  return bytearray_get (SELF (object), index);
}

static PyObject *
bytearray_subscript (PyObject *object, PyObject *key)
{
  PyObject *plain;
  PyObject *result;

  if (PyIndex_Check (key))
    {
      Py_ssize_t index = PyNumber_AsSsize_t (key, PyExc_IndexError);

      if (index == -1 && PyErr_Occurred ())
        return NULL;
      return bytearray_get (SELF (object), index);
    }
  plain = ferry_native_plain (object, NULL);
  result = plain != NULL ? PyObject_GetItem (plain, key) : NULL;
  Py_XDECREF (plain);
  return result;
}

typedef struct
{
  PyObject *key;
  PyObject *value;
} Assignment;

static int
assign_change (PyObject *plain, gpointer data)
{
  Assignment *assignment = data;

  return assignment->value != NULL ? PyObject_SetItem (plain, assignment->key, assignment->value)
                                   : PyObject_DelItem (plain, assignment->key);
}

static int
bytearray_assign_subscript (PyObject *object, PyObject *key, PyObject *value)
{
  Assignment assignment = { key, value };
  PyObject *plain = NULL;
  gboolean done;

  if (value != NULL && ferry_native_is_proxy (value))
    {
      plain = ferry_native_plain (value, NULL);
      if (plain == NULL)
        return -1;
      assignment.value = plain;
    }
  done = bytearray_change (SELF (object), assign_change, &assignment);
  Py_XDECREF (plain);
  return done ? 0 : -1;
}

/* ---- methods ---- */

static PyObject *
bytearray_append (PyObject *object, PyObject *item)
{
  Py_ssize_t value = PyNumber_AsSsize_t (item, NULL);
  guint8 byte;

  if (value == -1 && PyErr_Occurred ())
    return NULL;
  if (value < 0 || value > 255)
    {
      PyErr_SetString (PyExc_ValueError, "byte must be in range(0, 256)");
      return NULL;
    }
  byte = (guint8) value;
  if (!bytearray_splice (SELF (object), G_MAXSSIZE, 0, &byte, 1))
    return NULL;
  Py_RETURN_NONE;
}

static gboolean
extend (PyObject *object, PyObject *iterable)
{
  PyObject *more;
  gboolean done;

  if (ferry_native_is_proxy (iterable))
    iterable = ferry_native_plain (iterable, NULL);
  else
    Py_INCREF (iterable);
  if (iterable == NULL)
    return FALSE;
  if (PyUnicode_Check (iterable) || PyLong_Check (iterable))
    {
      PyErr_Format (PyExc_TypeError, "can't extend bytearray with %.100s", Py_TYPE (iterable)->tp_name);
      Py_DECREF (iterable);
      return FALSE;
    }
  more = PyByteArray_FromObject (iterable);
  Py_DECREF (iterable);
  if (more == NULL)
    return FALSE;
  done = bytearray_splice (SELF (object), G_MAXSSIZE, 0, PyByteArray_AS_STRING (more),
                           (gsize) PyByteArray_GET_SIZE (more));
  Py_DECREF (more);
  return done;
}

static PyObject *
bytearray_extend (PyObject *object, PyObject *iterable)
{
  if (!extend (object, iterable))
    return NULL;
  Py_RETURN_NONE;
}

static PyObject *
bytearray_clear (PyObject *object, PyObject *unused)
{
  if (!bytearray_splice (SELF (object), 0, G_MAXSSIZE, NULL, 0))
    return NULL;
  Py_RETURN_NONE;
}

static PyObject *
bytearray_to_bytes (PyObject *object, PyObject *unused)
{
  PyObject *plain = ferry_native_plain (object, NULL);
  PyObject *result = plain != NULL ? PyBytes_FromObject (plain) : NULL;

  Py_XDECREF (plain);
  return result;
}

/* Arguments in which proxies are plain. */
static PyObject *
get_plain_arguments (PyObject *args)
{
  PyObject *result = PyTuple_New (PyTuple_GET_SIZE (args));

  for (Py_ssize_t i = 0; result != NULL && i < PyTuple_GET_SIZE (args); i++)
    {
      PyObject *item = PyTuple_GET_ITEM (args, i);

      item = ferry_native_get_plain (item);
      if (item == NULL)
        Py_CLEAR (result);
      else
        PyTuple_SET_ITEM (result, i, item);
    }
  return result;
}

static PyObject *
bytearray_call (PyObject *object, const char *name, PyObject *args, PyObject *keywords, gboolean changes)
{
  Call call = { name, get_plain_arguments (args), keywords, NULL };

  if (call.args == NULL)
    return NULL;
  if (changes)
    {
      if (!bytearray_change (SELF (object), call_change, &call))
        Py_CLEAR (call.result);
    }
  else
    {
      PyObject *plain = ferry_native_plain (object, NULL);

      if (plain != NULL)
        call_change (plain, &call);
      Py_XDECREF (plain);
    }
  Py_DECREF (call.args);
  return call.result;
}

#define METHOD(name, changes)                                                                                          \
  static PyObject *bytearray_##name (PyObject *object, PyObject *args, PyObject *keywords)                             \
  {                                                                                                                    \
    return bytearray_call (object, #name, args, keywords, changes);                                                    \
  }

#define LOOKING(apply)                                                                                                 \
  apply (capitalize) apply (center) apply (count) apply (decode) apply (endswith) apply (expandtabs) apply (find)      \
      apply (hex) apply (index) apply (isalnum) apply (isalpha) apply (isascii) apply (isdigit) apply (islower)        \
          apply (isspace) apply (istitle) apply (isupper) apply (join) apply (ljust) apply (lower) apply (lstrip)      \
              apply (partition) apply (removeprefix) apply (removesuffix) apply (replace) apply (rfind) apply (rindex) \
                  apply (rjust) apply (rpartition) apply (rsplit) apply (rstrip) apply (split) apply (splitlines)      \
                      apply (startswith) apply (strip) apply (swapcase) apply (title) apply (translate) apply (upper)  \
                          apply (zfill)
#define CHANGING(apply) apply (insert) apply (pop) apply (remove) apply (reverse)

#define LOOKING_METHOD(name) METHOD (name, FALSE)
#define CHANGING_METHOD(name) METHOD (name, TRUE)
#define ENTRY(name)                                                                                                    \
  { #name, FERRY_NATIVE_FAST (bytearray_##name), METH_VARARGS | METH_KEYWORDS,                                         \
    #name "($self, /, *args, **kwargs)\n--\n\nAs of bytearray." },

/* clang-format off */
LOOKING (LOOKING_METHOD)
CHANGING (CHANGING_METHOD)
/* clang-format on */

static PyObject *
bytearray_add (PyObject *left, PyObject *right)
{
  if (!PyObject_CheckBuffer (left) || !PyObject_CheckBuffer (right))
    Py_RETURN_NOTIMPLEMENTED;
  return ferry_native_operate (ferry_native_get_plain (left), ferry_native_get_plain (right), PySequence_Concat);
}

static PyObject *
bytearray_remainder (PyObject *left, PyObject *right)
{
  if (!Py_IS_TYPE (left, &FerryNativeByteArray_Type))
    Py_RETURN_NOTIMPLEMENTED;
  return ferry_native_operate (ferry_native_get_plain (left), ferry_native_get_plain (right), PyNumber_Remainder);
}

static PyObject *
bytearray_inplace_add (PyObject *object, PyObject *other)
{
  if (!PyObject_CheckBuffer (other))
    {
      PyErr_Format (PyExc_TypeError, "can't concat %.100s to bytearray", Py_TYPE (other)->tp_name);
      return NULL;
    }
  return extend (object, other) ? Py_NewRef (object) : NULL;
}

static PyObject *
bytearray_repeat (PyObject *object, Py_ssize_t n)
{
  PyObject *plain = ferry_native_plain (object, NULL);
  PyObject *result = plain != NULL ? PySequence_Repeat (plain, n) : NULL;

  Py_XDECREF (plain);
  return result;
}

static int
repeat_change (PyObject *plain, gpointer data)
{
  PyObject *same = PySequence_InPlaceRepeat (plain, *(Py_ssize_t *) data);

  Py_XDECREF (same);
  return same != NULL ? 0 : -1;
}

static PyObject *
bytearray_inplace_repeat (PyObject *object, Py_ssize_t n)
{
  return bytearray_change (SELF (object), repeat_change, &n) ? Py_NewRef (object) : NULL;
}

static int
bytearray_contains (PyObject *object, PyObject *item)
{
  PyObject *plain = ferry_native_plain (object, NULL);
  PyObject *wanted = ferry_native_get_plain (item);
  int found = plain != NULL && wanted != NULL ? PySequence_Contains (plain, wanted) : -1;

  Py_XDECREF (plain);
  Py_XDECREF (wanted);
  return found;
}

static PyObject *
bytearray_compare (PyObject *object, PyObject *other, int op)
{
  if (!PyObject_CheckBuffer (other))
    Py_RETURN_NOTIMPLEMENTED;
  return ferry_native_proxy_compare (object, other, op);
}

static PyObject *
bytearray_iterate (PyObject *object)
{
  return PySeqIter_New (object);
}

/* What asks for the memory gets that of a copy, which can't be written. */
static int
bytearray_getbuffer (PyObject *object, Py_buffer *view, int flags)
{
  PyObject *bytes = bytearray_to_bytes (object, NULL);
  int result;

  view->obj = NULL;
  if (bytes == NULL)
    return -1;
  result = PyObject_GetBuffer (bytes, view, flags);
  Py_DECREF (bytes);
  return result;
}

static PyObject *
bytearray_fromhex (PyObject *type, PyObject *string)
{
  return PyObject_CallMethod ((PyObject *) &PyByteArray_Type, "fromhex", "O", string);
}

static PyMethodDef bytearray_methods[] = {
  { "append", bytearray_append, METH_O, "append($self, item, /)\n--\n\nAppend a byte." },
  { "extend", bytearray_extend, METH_O, "extend($self, iterable_of_ints, /)\n--\n\nAppend all bytes, in one step." },
  { "clear", bytearray_clear, METH_NOARGS, "clear($self, /)\n--\n\nRemove all bytes." },
  { "copy", ferry_native_proxy_copy, METH_NOARGS, "copy($self, /)\n--\n\nA bytearray of its own." },
  { "snapshot", ferry_native_proxy_snapshot, METH_NOARGS, "snapshot($self, /)\n--\n\nA bytearray of its own." },
  { "fromhex", bytearray_fromhex, METH_O | METH_CLASS, "fromhex($type, string, /)\n--\n\nA plain bytearray." },
  /* clang-format off */
  LOOKING (ENTRY)
  CHANGING (ENTRY)
  /* clang-format on */
  { "__bytes__", bytearray_to_bytes, METH_NOARGS, NULL },
  { "__copy__", ferry_native_proxy_copy, METH_NOARGS, NULL },
  { "__deepcopy__", ferry_native_proxy_deepcopy, METH_O, NULL },
  { "__reduce_ex__", ferry_native_proxy_reduce, METH_O, NULL },
  { NULL },
};

static PySequenceMethods bytearray_as_sequence = {
  .sq_length = bytearray_length,
  .sq_item = bytearray_item,
  .sq_repeat = bytearray_repeat,
  .sq_inplace_repeat = bytearray_inplace_repeat,
  .sq_contains = bytearray_contains,
};

static PyMappingMethods bytearray_as_mapping = {
  .mp_length = bytearray_length,
  .mp_subscript = bytearray_subscript,
  .mp_ass_subscript = bytearray_assign_subscript,
};

static PyNumberMethods bytearray_as_number = {
  .nb_add = bytearray_add,
  .nb_remainder = bytearray_remainder,
  .nb_inplace_add = bytearray_inplace_add,
};

static PyBufferProcs bytearray_as_buffer = { bytearray_getbuffer, NULL };

PyTypeObject FerryNativeByteArray_Type = {
  PyVarObject_HEAD_INIT (NULL, 0).tp_name = "ferry.store.ByteArray",
  .tp_doc = "A bytearray that lives in a store.\n\nIts buffer is that of a copy: `memoryview(array)` sees one instant, "
            "and can't be "
            "written.",
  .tp_basicsize = sizeof (FerryNativeProxy),
  .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
  .tp_dealloc = ferry_native_proxy_dealloc,
  .tp_repr = ferry_native_proxy_repr,
  .tp_str = ferry_native_proxy_repr,
  .tp_hash = PyObject_HashNotImplemented,
  .tp_richcompare = bytearray_compare,
  .tp_as_sequence = &bytearray_as_sequence,
  .tp_as_mapping = &bytearray_as_mapping,
  .tp_as_number = &bytearray_as_number,
  .tp_as_buffer = &bytearray_as_buffer,
  .tp_iter = bytearray_iterate,
  .tp_methods = bytearray_methods,
  .tp_weaklistoffset = offsetof (FerryNativeProxy, weakrefs),
};
