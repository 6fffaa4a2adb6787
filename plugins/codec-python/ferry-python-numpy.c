/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ferry-python-numpy.h"

#include "ferry-ndarray.h"

#define NO_IMPORT_ARRAY
#include "ferry-numpy-api.h"
#include <float.h>
#include <numpy/arrayscalars.h>

/* complex256: the largest number that NumPy has. */
#define SCALAR_SIZE_MAX (32)

/* Imports it only if asked to. */
static gboolean
load (gboolean import)
{
  g_autoptr (GError) error = NULL;

  if (ferry_ndarray_load (import, &error))
    return TRUE;
  if (import)
    PyErr_SetString (PyExc_ImportError, error != NULL ? error->message : "can't load NumPy");
  return FALSE;
}

static gboolean
is_number (int type_number)
{
  return (type_number >= NPY_BOOL && type_number <= NPY_CLONGDOUBLE) || type_number == NPY_HALF;
}

gboolean
ferry_python_numpy_classify (PyTypeObject *type, FerryPythonKind *kind)
{
  if (!load (FALSE))
    return FALSE;
  if (type == &PyArray_Type)
    *kind = FERRY_PYTHON_KIND_NDARRAY;
  else if (PyType_IsSubtype (type, &PyGenericArrType_Type) && !(type->tp_flags & Py_TPFLAGS_HEAPTYPE))
    *kind = FERRY_PYTHON_KIND_NUMPY_SCALAR;
  else if (PyType_IsSubtype (type, &PyArrayDescr_Type))
    *kind = FERRY_PYTHON_KIND_DTYPE;
  else
    return FALSE;
  return TRUE;
}

gboolean
ferry_python_numpy_is_subtype (PyTypeObject *type)
{
  return load (FALSE) && PyType_IsSubtype (type, &PyArray_Type);
}

/* Of the x87 format, whose padding is what was in memory before. */
static void
clear_padding (guint8 *value, gsize size)
{
#if LDBL_MANT_DIG == 64 && G_BYTE_ORDER == G_LITTLE_ENDIAN
  enum
  {
    USED = 10,
  };

  for (gsize at = 0; at + sizeof (long double) <= size; at += sizeof (long double))
    memset (value + at + USED, 0, sizeof (long double) - USED);
#endif
}

gboolean
ferry_python_numpy_encode_scalar (FerryPythonEncoder *encoder, PyObject *scalar)
{
  FerryPythonOutput *output = &encoder->output;
  PyArray_Descr *descr = PyArray_DescrFromScalar (scalar);
  PyObject *array;
  FerryNdarrayPlan plan;
  g_autoptr (GError) error = NULL;
  g_autofree guint8 *data = NULL;

  if (descr == NULL)
    return FALSE;
  if (is_number (descr->type_num) && PyDataType_ELSIZE (descr) <= SCALAR_SIZE_MAX)
    {
      gsize size = (gsize) PyDataType_ELSIZE (descr);
      guint8 *to = ferry_python_output_reserve (output, 3 + SCALAR_SIZE_MAX);
      _Alignas(16) guint8 value[SCALAR_SIZE_MAX] = { 0 };

      PyArray_ScalarAsCtype (scalar, value);
      if (descr->type_num == NPY_LONGDOUBLE || descr->type_num == NPY_CLONGDOUBLE)
        clear_padding (value, size);
      *to++ = FERRY_PYTHON_TAG_NUMPY_SCALAR;
      *to++ = (guint8) descr->type_num;
      *to++ = (guint8) size;
      memcpy (to, value, size);
      output->at = to + size;
      Py_DECREF (descr);
      return TRUE;
    }
  Py_DECREF (descr);

  array = PyArray_FromScalar (scalar, NULL);
  if (array == NULL)
    return FALSE;
  if (!ferry_ndarray_is_plain (array))
    {
      Py_DECREF (array);
      PyErr_Format (PyExc_TypeError, "can't encode a %s that contains objects", Py_TYPE (scalar)->tp_name);
      return FALSE;
    }
  if (!ferry_ndarray_plan (array, &plan, &error))
    {
      Py_DECREF (array);
      PyErr_SetString (PyExc_ValueError, error->message);
      return FALSE;
    }

  ferry_python_output_tag_number (output, FERRY_PYTHON_TAG_NUMPY_SCALAR_ARRAY, plan.header_size);
  ferry_python_output_reserve (output, plan.header_size);
  ferry_ndarray_write_header (&plan, output->at);
  output->at += plan.header_size;
  ferry_python_output_number (output, plan.data_size);

  /* The data is written aligned, and the stream is not. */
  data = g_malloc (MAX (plan.data_size, 1));
  if (!ferry_ndarray_write_data (&plan, data, &error))
    PyErr_SetString (PyExc_ValueError, error->message);
  else
    ferry_python_output_bytes (output, data, plan.data_size);
  ferry_ndarray_plan_clear (&plan);
  Py_DECREF (array);
  return error == NULL;
}

PyObject *
ferry_python_numpy_make_scalar (guint type_number, const guint8 *data, gsize size)
{
  _Alignas(16) guint8 value[SCALAR_SIZE_MAX];
  PyArray_Descr *descr;
  PyObject *scalar;

  if (!load (TRUE))
    return NULL;
  descr = is_number ((int) type_number) ? PyArray_DescrFromType ((int) type_number) : NULL;
  if (descr == NULL || size > sizeof value || size != (gsize) PyDataType_ELSIZE (descr))
    {
      Py_XDECREF (descr);
      if (!PyErr_Occurred ())
        PyErr_Format (PyExc_ValueError, "no scalar type of NumPy has number %u and %zu bytes", type_number, size);
      return NULL;
    }
  memcpy (value, data, size);
  if (type_number == NPY_BOOL)
    value[0] = value[0] != 0;
  scalar = PyArray_Scalar (value, descr, NULL);
  Py_DECREF (descr);
  return scalar;
}

/* NumPy makes a str of any characters, and Python has none behind the last one of Unicode. */
static gboolean
check_characters (PyArrayObject *array)
{
  const char *data = PyArray_DATA (array);
  gsize size = (gsize) PyArray_ITEMSIZE (array);

  if (PyArray_TYPE (array) != NPY_UNICODE)
    return TRUE;
  for (gsize at = 0; at + sizeof (Py_UCS4) <= size; at += sizeof (Py_UCS4))
    {
      Py_UCS4 character;

      memcpy (&character, data + at, sizeof character);
      if (PyArray_ISBYTESWAPPED (array))
        character = GUINT32_SWAP_LE_BE (character);
      if (character > 0x10ffff)
        {
          PyErr_Format (PyExc_ValueError, "a str_ has a character of number %u", character);
          return FALSE;
        }
    }
  return TRUE;
}

PyObject *
ferry_python_numpy_array_to_scalar (PyObject *array)
{
  PyObject *scalar;

  if (array == NULL)
    return NULL;
  if (!load (TRUE) || !PyArray_Check (array) || PyArray_NDIM ((PyArrayObject *) array) != 0)
    {
      if (!PyErr_Occurred ())
        PyErr_SetString (PyExc_ValueError, "an array that should be a scalar has dimensions");
      Py_DECREF (array);
      return NULL;
    }
  scalar = check_characters ((PyArrayObject *) array)
               ? PyArray_ToScalar (PyArray_DATA ((PyArrayObject *) array), (PyArrayObject *) array)
               : NULL;
  Py_DECREF (array);
  return scalar;
}

PyObject *
ferry_python_numpy_dtype_to_str (PyObject *dtype)
{
  PyArray_Descr *descr = (PyArray_Descr *) dtype;

  if (descr->type_num < 0 || descr->type_num >= NPY_NTYPES || PyDataType_NAMES (descr) != NULL
      || PyDataType_SUBARRAY (descr) != NULL || PyDataType_METADATA (descr) != NULL)
    return NULL;

  /* Two types of C have 64 bits here, and only the character tells which. */
  if (descr->type_num == NPY_LONGLONG || descr->type_num == NPY_ULONGLONG)
    return PyUnicode_FromFormat ("%c%c", descr->byteorder, descr->type);
  return PyObject_GetAttr (dtype, ferry_python_names.str);
}

PyObject *
ferry_python_numpy_dtype_from_str (PyObject *str)
{
  PyArray_Descr *descr = NULL;

  if (!load (TRUE) || !PyArray_DescrConverter (str, &descr))
    return NULL;

  /* Only simple ones are sent so, and NumPy lets sizes overflow. */
  if ((gssize) PyDataType_ELSIZE (descr) < 0 || PyDataType_NAMES (descr) != NULL || PyDataType_SUBARRAY (descr) != NULL)
    {
      PyErr_Format (PyExc_ValueError, "%R is no name of a simple dtype", str);
      Py_CLEAR (descr);
    }
  return (PyObject *) descr;
}

PyObject *
ferry_python_numpy_empty (PyObject *dtype)
{
  npy_intp shape = 0;

  Py_INCREF (dtype);
  return PyArray_Empty (1, &shape, (PyArray_Descr *) dtype, 0);
}

gboolean
ferry_python_numpy_is_objects (PyObject *array)
{
  return PyArray_TYPE ((PyArrayObject *) array) == NPY_OBJECT;
}

gsize
ferry_python_numpy_get_shape (PyObject *array, gboolean *fortran, const gssize **shape, gsize *n_dimensions)
{
  PyArrayObject *self = (PyArrayObject *) array;

  G_STATIC_ASSERT (sizeof (npy_intp) == sizeof (gssize));
  *fortran = PyArray_IS_F_CONTIGUOUS (self) && !PyArray_IS_C_CONTIGUOUS (self);
  *shape = (const gssize *) PyArray_SHAPE (self);
  *n_dimensions = (gsize) PyArray_NDIM (self);
  return (gsize) PyArray_SIZE (self);
}

PyObject *
ferry_python_numpy_flatten (PyObject *array)
{
  PyObject *flat = PyArray_Ravel ((PyArrayObject *) array, NPY_CORDER);
  PyObject *list;

  if (flat == NULL)
    return NULL;
  list = PyArray_ToList ((PyArrayObject *) flat);
  Py_DECREF (flat);
  return list;
}

PyObject *
ferry_python_numpy_new_objects (const gssize *shape, gsize n_dimensions, gboolean fortran)
{
  PyArray_Descr *descr;

  if (!load (TRUE))
    return NULL;
  if (n_dimensions > NPY_MAXDIMS)
    {
      PyErr_Format (PyExc_ValueError, "an array has %zu dimensions, this NumPy knows %d", n_dimensions, NPY_MAXDIMS);
      return NULL;
    }
  descr = PyArray_DescrFromType (NPY_OBJECT);
  return descr == NULL ? NULL : PyArray_Empty ((int) n_dimensions, (npy_intp *) shape, descr, fortran);
}

gboolean
ferry_python_numpy_fill_objects (PyObject *array, PyObject *elements)
{
  PyArrayObject *self = (PyArrayObject *) array;
  PyArrayIterObject *iter = (PyArrayIterObject *) PyArray_IterNew (array);

  if (iter == NULL)
    return FALSE;
  for (Py_ssize_t i = 0; i < PyList_GET_SIZE (elements) && PyArray_ITER_NOTDONE (iter); i++)
    {
      PyObject **at = (PyObject **) PyArray_ITER_DATA (iter);

      if (at == NULL || PyArray_TYPE (self) != NPY_OBJECT)
        break;
      Py_XSETREF (*at, Py_NewRef (PyList_GET_ITEM (elements, i)));
      PyArray_ITER_NEXT (iter);
    }
  Py_DECREF (iter);
  return TRUE;
}

static gboolean
is_true (PyObject *object, PyObject *attribute, gboolean *result)
{
  PyObject *value = PyObject_GetAttr (object, attribute);
  int truth = value != NULL ? PyObject_IsTrue (value) : -1;

  Py_XDECREF (value);
  *result = truth == 1;
  return truth >= 0;
}

PyObject *
ferry_python_tensor_to_array (PyObject *tensor, gboolean *requires_grad)
{
  PyObject *device = PyObject_GetAttr (tensor, ferry_python_names.device);
  PyObject *type = device != NULL ? PyObject_GetAttr (device, ferry_python_names.type) : NULL;
  gboolean on_cpu = type != NULL && PyUnicode_Check (type) && PyUnicode_CompareWithASCIIString (type, "cpu") == 0;
  gboolean is_leaf;
  PyObject *detached;
  PyObject *array;

  Py_XDECREF (device);
  Py_XDECREF (type);
  if (type == NULL || !on_cpu || !is_true (tensor, ferry_python_names.requires_grad, requires_grad)
      || !is_true (tensor, ferry_python_names.is_leaf, &is_leaf) || (*requires_grad && !is_leaf))
    {
      PyErr_Clear ();
      return NULL;
    }

  /* What NumPy can't express (bfloat16, sparse, quantised) raises, and is pickled. */
  detached = PyObject_CallMethodNoArgs (tensor, ferry_python_names.detach);
  array = detached != NULL ? PyObject_CallMethodNoArgs (detached, ferry_python_names.numpy) : NULL;
  Py_XDECREF (detached);
  if (array != NULL && !(ferry_ndarray_check (array) && ferry_ndarray_is_plain (array)))
    Py_CLEAR (array);
  PyErr_Clear ();
  return array;
}

PyObject *
ferry_python_tensor_from_array (PyObject *array, gboolean requires_grad, gboolean writable)
{
  PyObject *torch;
  PyObject *tensor;

  if (array == NULL)
    return NULL;
  torch = PyImport_GetModule (ferry_python_names.torch);
  if (torch == NULL)
    {
      if (PyErr_Occurred ())
        Py_CLEAR (array);
      return array;
    }

  /* A tensor is always writable: on memory that is not it would crash. */
  if (!writable)
    Py_SETREF (array, PyArray_NewCopy ((PyArrayObject *) array, NPY_KEEPORDER));
  tensor = array != NULL ? PyObject_CallMethodOneArg (torch, ferry_python_names.from_numpy, array) : NULL;
  Py_DECREF (torch);
  Py_XDECREF (array);
  if (tensor != NULL && requires_grad)
    Py_SETREF (tensor, PyObject_CallMethodNoArgs (tensor, ferry_python_names.requires_grad_));
  return tensor;
}
