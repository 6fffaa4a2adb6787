/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ferry-native-store.h"

/* What proxies of all kinds do in the same way. */

PyObject *
ferry_native_raise_key (PyObject *key)
{
  PyObject *arguments = PyTuple_Pack (1, key); /* a tuple would be taken for several arguments */

  if (arguments != NULL)
    PyErr_SetObject (PyExc_KeyError, arguments);
  Py_XDECREF (arguments);
  return NULL;
}

gboolean
ferry_native_check_there (FerryNativeStore *owner, const FerryRef *ref)
{
  GError *error = NULL;

  if (ferry_native_store_get (owner) == NULL)
    return FALSE;
  if (G_LIKELY (*ref != FERRY_REF_LOST))
    return TRUE;
  if (ferry_store_hold (owner->live, *ref, &error)) /* it never does, and says why */
    return TRUE;
  ferry_native_raise (&error);
  return FALSE;
}

Py_ssize_t
ferry_native_raise_length (FerryNativeProxy *self, const char *kind)
{
  g_autofree char *what = g_strdup_printf ("a %s of a store has no length", kind);
  GError *error = NULL;

  /* says what there is of it */
  if (!ferry_store_hold (self->owner->live, self->ref, &error))
    ferry_native_raise (&error);
  else
    {
      ferry_store_unhold (self->owner->live, self->ref);
      ferry_native_raise_code (FERRY_ERROR_CORRUPT, what);
    }
  return -1;
}

PyObject *
ferry_native_get_plain (PyObject *object)
{
  return ferry_native_is_proxy (object) ? ferry_native_plain (object, NULL) : Py_NewRef (object);
}

PyObject *
ferry_native_operate (PyObject *left, PyObject *right, PyObject *(*operate) (PyObject *, PyObject *) )
{
  PyObject *result = left != NULL && right != NULL ? operate (left, right) : NULL;

  Py_XDECREF (left);
  Py_XDECREF (right);
  return result;
}

PyObject *
ferry_native_proxy_copy (PyObject *self, PyObject *unused)
{
  return ferry_native_plain (self, NULL);
}

PyObject *
ferry_native_repr_nested (PyObject *object, PyObject *(*get_plain) (PyObject *), const char *within)
{
  PyObject *plain;
  PyObject *result;
  int entered = Py_ReprEnter (object);

  if (entered != 0)
    return entered > 0 ? PyUnicode_FromString (within) : NULL;
  plain = get_plain (object);
  result = plain != NULL ? PyObject_Repr (plain) : NULL;
  Py_XDECREF (plain);
  Py_ReprLeave (object);
  return result;
}

PyObject *
ferry_native_proxy_repr (PyObject *self)
{
  PyObject *plain = ferry_native_plain (self, NULL);
  PyObject *result = plain != NULL ? PyObject_Repr (plain) : NULL;

  Py_XDECREF (plain);
  return result;
}

PyObject *
ferry_native_dict_clear (PyObject *object, PyObject *unused)
{
  FerryNativeProxy *self = FERRY_NATIVE_PROXY (object);
  GError *error = NULL;
  FerryStore *store;
  gboolean done;

  if (!ferry_native_store_begin (self->owner))
    return NULL;
  store = self->owner->live;
  done = ferry_store_dict_clear (store, self->ref, &error);
  ferry_store_end (store);
  if (!done)
    return ferry_native_raise (&error);
  Py_RETURN_NONE;
}

PyObject *
ferry_native_sum_take (FerryNativeStore *owner, int done, FerryReading *reading, GError **error)
{
  if (done > 0)
    return ferry_native_reading_take (owner, reading);
  if (PyErr_Occurred ())
    {
      g_clear_error (error);
      return NULL;
    }
  if (!g_error_matches (*error, FERRY_ERROR, FERRY_ERROR_UNSUPPORTED))
    return ferry_native_raise (error);
  g_clear_error (error);
  return Py_NewRef (Py_NotImplemented);
}
