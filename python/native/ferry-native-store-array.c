/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ferry-native-store.h"

#define NO_IMPORT_ARRAY
#define NPY_NO_DEPRECATED_API NPY_1_20_API_VERSION
#define PY_ARRAY_UNIQUE_SYMBOL ferry_native_numpy_api
#include <numpy/arrayobject.h>

/* Arrays: views on memory of a store. What they are a view on, their base, holds the object. */

#define SELF(object) ((Base *) (object))
/* Flags of a description. */
#define IS_TENSOR (1)

typedef struct
{
  FerryNativeProxy proxy;
  PyArray_Descr *dtype;
  gpointer data;
  int flags;
  int rank;
  npy_intp shape[NPY_MAXDIMS];
  npy_intp strides[NPY_MAXDIMS];
} Base;

static PyTypeObject *
get_array_type (void)
{
  return PyArray_API != NULL ? &PyArray_Type : NULL;
}

/* NumPy is loaded as soon as somebody else has done so, or there is an array to be read. */
gboolean
ferry_native_is_array (PyObject *object)
{
  PyTypeObject *type = Py_TYPE (object);

  if (G_UNLIKELY (PyArray_API == NULL))
    {
      if (strcmp (type->tp_name, "numpy.ndarray") != 0 || !ferry_native_numpy_load ())
        {
          PyErr_Clear ();
          return FALSE;
        }
    }
  return type == get_array_type () && !PyDataType_REFCHK (PyArray_DESCR ((PyArrayObject *) object));
}

static void
base_dealloc (PyObject *object)
{
  Base *self = SELF (object);

  Py_XDECREF ((PyObject *) self->dtype);
  ferry_native_proxy_dealloc (object);
}

PyTypeObject FerryNativeArray_Type = {
  PyVarObject_HEAD_INIT (NULL, 0).tp_name = "ferry.store.ArrayBase",
  .tp_doc = "What arrays in a store are a view on.",
  .tp_basicsize = sizeof (Base),
  .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
  .tp_dealloc = base_dealloc,
  .tp_weaklistoffset = offsetof (Base, proxy.weakrefs),
};

FerryNativeProxy *
ferry_native_array_get_proxy (PyObject *object)
{
  PyArrayObject *array = (PyArrayObject *) object;
  PyObject *base;

  if (!ferry_native_is_array (object))
    return NULL;
  base = PyArray_BASE (array);
  if (base == NULL || !Py_IS_TYPE (base, &FerryNativeArray_Type) || PyArray_DATA (array) != SELF (base)->data
      || PyArray_NDIM (array) != SELF (base)->rank || PyArray_DESCR (array) != SELF (base)->dtype)
    return NULL;
  for (int i = 0; i < SELF (base)->rank; i++)
    if (PyArray_DIM (array, i) != SELF (base)->shape[i] || PyArray_STRIDE (array, i) != SELF (base)->strides[i])
      return NULL;
  return &SELF (base)->proxy;
}

/* ---- storing ---- */

gboolean
ferry_native_array_source (PyObject *object, int flags, FerryNativeArraySource *source)
{
  PyArrayObject *array = (PyArrayObject *) object;
  PyArrayObject *whole;
  PyObject *dtype;
  int rank;

  /* As it lies, or in C order. */
  if (PyArray_IS_C_CONTIGUOUS (array) || PyArray_IS_F_CONTIGUOUS (array))
    whole = (PyArrayObject *) Py_NewRef (object);
  else
    whole = (PyArrayObject *) PyArray_NewCopy (array, NPY_CORDER);
  if (whole == NULL)
    return FALSE;
  source->keep = (PyObject *) whole;
  rank = PyArray_NDIM (whole);
  dtype = ferry_native_store_call ("_describe_dtype", "(O)", (PyObject *) PyArray_DESCR (whole));
  if (dtype == NULL)
    return FALSE;
  source->description = PyTuple_New (3 + 2 * rank);
  if (source->description == NULL)
    {
      Py_DECREF (dtype);
      return FALSE;
    }
  PyTuple_SET_ITEM (source->description, 0, dtype);
  PyTuple_SET_ITEM (source->description, 1, PyLong_FromLong (flags));
  PyTuple_SET_ITEM (source->description, 2, PyLong_FromLong (rank));
  for (int i = 0; i < rank; i++)
    {
      PyTuple_SET_ITEM (source->description, 3 + i, PyLong_FromSsize_t (PyArray_DIM (whole, i)));
      PyTuple_SET_ITEM (source->description, 3 + rank + i, PyLong_FromSsize_t (PyArray_STRIDE (whole, i)));
    }
  if (PyErr_Occurred ())
    return FALSE;
  source->data = PyArray_DATA (whole);
  source->size = (gsize) PyArray_NBYTES (whole);
  return TRUE;
}

/* ---- reading ---- */

static PyObject *
raise_corrupt (void)
{
  return ferry_native_raise_code (FERRY_ERROR_CORRUPT,
                                  "an array of a store is described as what it can't be; it was written by a program "
                                  "that has an error, or is hostile");
}

/* The numbers of a description: what they say lies within the data. */
static gboolean
check_layout (Base *self, gsize size)
{
  gsize item_size = (gsize) self->dtype->elsize;
  gsize reach = item_size;
  gboolean empty = FALSE;

  for (int i = 0; i < self->rank; i++)
    empty = empty || self->shape[i] == 0;
  for (int i = 0; i < self->rank; i++)
    {
      gsize step;

      if (self->shape[i] < 0 || (!empty && self->shape[i] > 1 && self->strides[i] < 0))
        return FALSE;
      if (empty || self->shape[i] <= 1)
        continue;
      if (__builtin_mul_overflow ((gsize) (self->shape[i] - 1), (gsize) self->strides[i], &step)
          || __builtin_add_overflow (reach, step, &reach))
        return FALSE;
    }
  return empty || reach <= size;
}

static gboolean
parse_description (Base *self, PyObject *description, gsize size)
{
  PyObject *dtype;
  long rank;

  if (!PyTuple_Check (description) || PyTuple_GET_SIZE (description) < 3
      || !PyUnicode_Check (PyTuple_GET_ITEM (description, 0)) || !PyLong_Check (PyTuple_GET_ITEM (description, 1))
      || !PyLong_Check (PyTuple_GET_ITEM (description, 2)))
    return FALSE;
  rank = PyLong_AsLong (PyTuple_GET_ITEM (description, 2));
  if (rank < 0 || rank > NPY_MAXDIMS || PyTuple_GET_SIZE (description) != 3 + 2 * rank)
    return FALSE;
  self->rank = (int) rank;
  self->flags = (int) PyLong_AsLong (PyTuple_GET_ITEM (description, 1));
  for (int i = 0; i < rank; i++)
    {
      self->shape[i] = PyLong_AsSsize_t (PyTuple_GET_ITEM (description, 3 + i));
      self->strides[i] = PyLong_AsSsize_t (PyTuple_GET_ITEM (description, 3 + rank + i));
    }
  if (PyErr_Occurred ())
    return FALSE;
  dtype = ferry_native_store_call ("_read_dtype", "(O)", PyTuple_GET_ITEM (description, 0));
  if (dtype == NULL)
    return FALSE;
  if (!PyArray_DescrCheck (dtype) || PyDataType_REFCHK ((PyArray_Descr *) dtype))
    {
      Py_DECREF (dtype);
      return FALSE;
    }
  self->dtype = (PyArray_Descr *) dtype;
  return check_layout (self, size);
}

static PyObject *
make_view (Base *base)
{
  PyObject *array;

  Py_INCREF (base->dtype);
  array = PyArray_NewFromDescr (&PyArray_Type, base->dtype, base->rank, base->shape, base->strides, base->data,
                                NPY_ARRAY_WRITEABLE, NULL);
  if (array == NULL)
    return NULL;
  PyArray_UpdateFlags ((PyArrayObject *) array, NPY_ARRAY_ALIGNED | NPY_ARRAY_C_CONTIGUOUS | NPY_ARRAY_F_CONTIGUOUS);
  if (PyArray_SetBaseObject ((PyArrayObject *) array, Py_NewRef ((PyObject *) base)) < 0)
    {
      Py_DECREF (array);
      return NULL;
    }
  if ((base->flags & IS_TENSOR) != 0)
    {
      PyObject *tensor = ferry_native_store_call ("_array_to_tensor", "(O)", array);

      Py_DECREF (array);
      return tensor;
    }
  return array;
}

PyObject *
ferry_native_array_view (FerryNativeStore *owner, FerryRef ref)
{
  FerryStore *store = owner->live;
  PyObject *bound = ferry_store_get_binding (store, ref);
  g_autoptr (GError) error = NULL;
  FerryReading reading;
  PyObject *description;
  PyObject *result = NULL;
  gpointer data;
  gsize size;
  Base *self;

  if (!ferry_native_numpy_load ())
    {
      ferry_store_unhold (store, ref);
      return NULL;
    }
  if (bound != NULL && Py_REFCNT (bound) > 0)
    {
      Py_INCREF (bound);
      ferry_store_unhold (store, ref);
      result = make_view (SELF (bound));
      Py_DECREF (bound);
      return result;
    }
  ferry_native_reading_init (&reading);
  data = ferry_store_array_data (store, ref, &size, &reading, &error);
  if (data == NULL)
    {
      ferry_store_unhold (store, ref);
      return ferry_native_raise (&error);
    }
  description = ferry_native_reading_take (owner, &reading);
  self = description != NULL ? PyObject_New (Base, &FerryNativeArray_Type) : NULL;
  if (self == NULL)
    {
      Py_XDECREF (description);
      ferry_store_unhold (store, ref);
      return NULL;
    }
  self->proxy.owner = (FerryNativeStore *) Py_NewRef ((PyObject *) owner);
  self->proxy.ref = ref;
  self->proxy.weakrefs = NULL;
  self->dtype = NULL;
  self->data = data;
  ferry_store_set_binding (store, ref, self);
  if (parse_description (self, description, size))
    result = make_view (self);
  else if (!PyErr_Occurred ())
    raise_corrupt ();
  Py_DECREF (description);
  Py_DECREF (self);
  return result;
}
