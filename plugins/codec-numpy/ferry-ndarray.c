/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ferry-ndarray.h"

#include "ferry-dtype.h"
#include "ferry-numpy-header.h"

#include <string.h>

/* From this many bytes on a copy takes longer than giving the GIL away and getting it back. */
#define GIL_RELEASE_MIN (1024 * 1024)

/* Formats and extensions up to this many bytes are copied to the stack. */
#define DTYPE_ON_STACK (512)

static gboolean loaded;

static gboolean
is_numpy_imported (void)
{
  PyObject *name = PyUnicode_FromString ("numpy");
  PyObject *module = name != NULL ? PyImport_GetModule (name) : NULL;

  Py_XDECREF (name);
  Py_XDECREF (module);
  PyErr_Clear ();
  return module != NULL;
}

gboolean
ferry_ndarray_load (gboolean import, GError **error)
{
  if (G_LIKELY (loaded))
    return TRUE;
  if (!ferry_python_available (error) || (!import && !is_numpy_imported ()))
    return FALSE;

  /* Checks NumPy's ABI too. */
  if (_import_array () < 0)
    {
      ferry_python_take_exception (error, FERRY_ERROR_UNSUPPORTED, "can't load NumPy");
      return FALSE;
    }
  loaded = TRUE;
  return TRUE;
}

gboolean
ferry_ndarray_check (PyObject *object)
{
  return (loaded || ferry_ndarray_load (FALSE, NULL)) && PyArray_Check (object);
}

gboolean
ferry_ndarray_check_exact (PyObject *object)
{
  return (loaded || ferry_ndarray_load (FALSE, NULL)) && PyArray_CheckExact (object);
}

gboolean
ferry_ndarray_is_plain (PyObject *array)
{
  FerryDtype *dtype = ferry_dtype_new_for_descr (PyArray_DESCR ((PyArrayObject *) array), NULL);

  if (dtype == NULL)
    return FALSE;
  ferry_dtype_unref (dtype);
  return TRUE;
}

/*
 * Which order a copy gets: that of the array if it has one, otherwise the nearer one, as `order="K"` does. Dimensions
 * along which nothing moves have no say.
 */
static gboolean
prefers_fortran (PyArrayObject *array)
{
  npy_intp previous = 0;
  gboolean grows = FALSE;

  if (PyArray_IS_C_CONTIGUOUS (array))
    return FALSE;
  if (PyArray_IS_F_CONTIGUOUS (array))
    return TRUE;
  for (int i = 0; i < PyArray_NDIM (array); i++)
    {
      npy_intp stride = PyArray_STRIDE (array, i);

      if (PyArray_DIM (array, i) == 1 || stride == 0)
        continue;
      stride = stride < 0 ? -stride : stride;
      if (previous > stride)
        return FALSE;
      grows = grows || (previous != 0 && previous < stride);
      previous = stride;
    }
  return grows;
}

gboolean
ferry_ndarray_plan (PyObject *object, FerryNdarrayPlan *plan, GError **error)
{
  PyArrayObject *array = (PyArrayObject *) object;
  FerryDtype *dtype = ferry_dtype_new_for_descr (PyArray_DESCR (array), error);

  if (dtype == NULL)
    return FALSE;
  plan->array = object;
  plan->format = dtype;
  plan->n_dimensions = (guint) PyArray_NDIM (array);
  plan->fortran = prefers_fortran (array);
  plan->data_size = (gsize) PyArray_NBYTES (array);
  plan->header_size
      = FERRY_NUMPY_FIXED_SIZE + plan->n_dimensions * sizeof (gint64) + dtype->format_length + dtype->extension_length;
  return TRUE;
}

void
ferry_ndarray_plan_clear (FerryNdarrayPlan *plan)
{
  ferry_dtype_unref (plan->format);
}

void
ferry_ndarray_write_header (const FerryNdarrayPlan *plan, guint8 *to)
{
  PyArrayObject *array = (PyArrayObject *) plan->array;
  const FerryDtype *dtype = plan->format;
  FerryNumpyHeader header;

  header.flags = (plan->fortran ? FERRY_NUMPY_FORTRAN : 0) | (PyArray_ISWRITEABLE (array) ? 0 : FERRY_NUMPY_READ_ONLY);
  header.n_dimensions = plan->n_dimensions;
  header.item_size = dtype->item_size;
  header.format_length = dtype->format_length;
  header.extension_length = dtype->extension_length;

  /* Somebody may have reshaped it meanwhile; ferry_ndarray_write_data() finds that out. */
  for (guint i = 0; i < plan->n_dimensions; i++)
    header.shape[i] = (int) i < PyArray_NDIM (array) ? PyArray_DIM (array, (int) i) : 0;
  to = ferry_numpy_header_write (&header, to);
  memcpy (to, dtype->bytes, dtype->format_length + dtype->extension_length);
}

/* An array that views memory of others, which outlives it. */
static PyArrayObject *
make_view (PyArray_Descr *descr, PyArrayObject *like, const npy_intp *strides, gpointer data, int flags)
{
  return (PyArrayObject *) PyArray_NewFromDescr (&PyArray_Type, descr, PyArray_NDIM (like), PyArray_DIMS (like),
                                                 strides, data, flags, NULL);
}

/*
 * NumPy's copying, which goes through memory in the best order, and releases the GIL by itself. Structures are copied
 * as opaque bytes: field by field the padding would stay whatever the block contained before.
 */
static gboolean
copy_strided (PyArrayObject *from, guint8 *to, gboolean fortran)
{
  PyArray_Descr *descr = PyArray_DESCR (from);
  PyArrayObject *source = NULL;
  PyArrayObject *target = NULL;
  gboolean ok;

  if (PyDataType_HASFIELDS (descr) || descr->type_num >= NPY_USERDEF)
    {
      descr = PyArray_DescrNewFromType (NPY_VOID);
      if (descr == NULL)
        return FALSE;
#if NPY_ABI_VERSION < 0x02000000
      descr->elsize = (int) PyArray_ITEMSIZE (from);
#else
      PyDataType_SET_ELSIZE (descr, PyArray_ITEMSIZE (from));
#endif
      Py_INCREF ((PyObject *) descr);
      source = make_view (descr, from, PyArray_STRIDES (from), PyArray_DATA (from), 0);
    }
  else
    {
      Py_INCREF ((PyObject *) descr);
      Py_INCREF ((PyObject *) from);
      source = from;
    }

  if (source != NULL)
    target = make_view (descr, from, NULL, to, fortran ? NPY_ARRAY_FARRAY : NPY_ARRAY_CARRAY);
  else
    Py_DECREF ((PyObject *) descr);
  ok = target != NULL && PyArray_CopyInto (target, source) == 0;
  Py_XDECREF ((PyObject *) target);
  Py_XDECREF ((PyObject *) source);
  return ok;
}

gboolean
ferry_ndarray_write_data (const FerryNdarrayPlan *plan, guint8 *to, GError **error)
{
  PyArrayObject *array = (PyArrayObject *) plan->array;
  gboolean contiguous = plan->fortran ? PyArray_IS_F_CONTIGUOUS (array) : PyArray_IS_C_CONTIGUOUS (array);

  if ((guint) PyArray_NDIM (array) != plan->n_dimensions || (gsize) PyArray_NBYTES (array) != plan->data_size)
    {
      g_set_error (error, FERRY_ERROR, FERRY_ERROR_CODEC,
                   "the array had %" G_GSIZE_FORMAT " bytes and %u dimensions, and now has %" G_GSIZE_FORMAT
                   " and %d; don't change it while it is sent",
                   plan->data_size, plan->n_dimensions, (gsize) PyArray_NBYTES (array), PyArray_NDIM (array));
      return FALSE;
    }
  if (plan->data_size == 0)
    return TRUE;

  if (!contiguous)
    {
      if (!copy_strided (array, to, plan->fortran))
        {
          ferry_python_take_exception (error, FERRY_ERROR_CODEC, "can't copy the array");
          return FALSE;
        }
      return TRUE;
    }

  if (plan->data_size < GIL_RELEASE_MIN)
    {
      memcpy (to, PyArray_DATA (array), plan->data_size);
      return TRUE;
    }

  /* The reference keeps others from resizing it. */
  Py_INCREF ((PyObject *) array);
  Py_BEGIN_ALLOW_THREADS;
  ferry_copy_memory (to, PyArray_DATA (array), plan->data_size);
  Py_END_ALLOW_THREADS;
  Py_DECREF ((PyObject *) array);
  return TRUE;
}

/* What takes part in NumPy's array interface, in either of its forms. */
static gboolean
has_array_interface (PyObject *object)
{
  PyObject *type = (PyObject *) Py_TYPE (object);

  return PyObject_HasAttrString (type, "__array_interface__") || PyObject_HasAttrString (type, "__array_struct__")
         || PyObject_HasAttrString (object, "__array_interface__");
}

PyObject *
ferry_ndarray_from_object (PyObject *object, GError **error)
{
  PyObject *array = NULL;

  if (PyArray_IsScalar (object, Generic))
    {
      array = PyArray_FromScalar (object, NULL);
    }
  else if (PyObject_CheckBuffer (object))
    {
      /* NumPy itself would make bytes a string. */
      PyObject *view = PyMemoryView_FromObject (object);

      array = view != NULL ? PyArray_FromAny (view, NULL, 0, 0, 0, NULL) : NULL;
      Py_XDECREF (view);
    }
  else if (has_array_interface (object))
    {
      array = PyArray_FromAny (object, NULL, 0, 0, 0, NULL);
    }
  else
    {
      return NULL;
    }

  if (array == NULL)
    ferry_python_take_exception (error, FERRY_ERROR_CODEC, "NumPy can't make an array of the object");
  return array;
}

/* NumPy makes strings without characters one character long; only assigning the dtype keeps them. */
static PyObject *
make_array (PyArray_Descr *descr, const FerryNumpyHeader *header, const npy_intp *dims, guint8 *data, int flags)
{
  PyArray_Descr *opaque;
  PyObject *array;

  if (G_LIKELY (header->item_size > 0 || (descr->type_num != NPY_STRING && descr->type_num != NPY_UNICODE)))
    return PyArray_NewFromDescr (&PyArray_Type, descr, (int) header->n_dimensions, dims, NULL, data, flags, NULL);

  opaque = PyArray_DescrNewFromType (NPY_VOID);
  array = opaque != NULL
              ? PyArray_NewFromDescr (&PyArray_Type, opaque, (int) header->n_dimensions, dims, NULL, data, flags, NULL)
              : NULL;
  if (array != NULL && PyObject_SetAttrString (array, "dtype", (PyObject *) descr) < 0)
    Py_CLEAR (array);
  Py_DECREF ((PyObject *) descr);
  return array;
}

PyObject *
ferry_ndarray_read (const guint8 *header_data, gsize header_size, guint8 *data, gsize data_size, PyObject *base,
                    gboolean writable, GError **error)
{
  FerryNumpyHeader header;
  guint8 on_stack[DTYPE_ON_STACK];
  g_autofree guint8 *on_heap = NULL;
  guint8 *bytes = on_stack;
  npy_intp dims[FERRY_TENSOR_MAX_DIMENSIONS];
  PyArray_Descr *descr;
  PyObject *array;
  FerryDtype *dtype;
  gsize needed;
  gsize dtype_size;
  int flags;

  if (!ferry_numpy_header_read (&header, header_data, header_size, &needed, error))
    return NULL;
  if (ferry_numpy_header_size (&header) != header_size || needed != data_size)
    {
      g_set_error (error, FERRY_ERROR, FERRY_ERROR_CODEC,
                   "the array needs %" G_GSIZE_FORMAT " bytes of header and %" G_GSIZE_FORMAT
                   " of data, but has %" G_GSIZE_FORMAT " and %" G_GSIZE_FORMAT,
                   ferry_numpy_header_size (&header), needed, header_size, data_size);
      return NULL;
    }

  /* Again a copy is what is looked at. */
  dtype_size = header.format_length + header.extension_length;
  if (dtype_size > sizeof on_stack)
    bytes = on_heap = g_malloc (dtype_size);
  memcpy (bytes, header_data + header_size - dtype_size, dtype_size);
  dtype = ferry_dtype_new_for_bytes (bytes, header.format_length, header.extension_length, error);
  if (dtype == NULL)
    return NULL;
  if (dtype->item_size != header.item_size)
    {
      g_set_error (error, FERRY_ERROR, FERRY_ERROR_CODEC,
                   "elements of the array have %" G_GSIZE_FORMAT " bytes, and their dtype %" G_GSIZE_FORMAT,
                   header.item_size, dtype->item_size);
      ferry_dtype_unref (dtype);
      return NULL;
    }

  for (guint i = 0; i < header.n_dimensions; i++)
    dims[i] = (npy_intp) header.shape[i];
  flags = (header.flags & FERRY_NUMPY_FORTRAN) != 0 ? NPY_ARRAY_F_CONTIGUOUS : NPY_ARRAY_C_CONTIGUOUS;
  if (writable && (header.flags & FERRY_NUMPY_READ_ONLY) == 0)
    flags |= NPY_ARRAY_WRITEABLE;
  descr = ferry_dtype_get_descr (dtype);
  ferry_dtype_unref (dtype);
  array = descr != NULL ? make_array (descr, &header, dims, data, flags) : NULL;
  if (array == NULL)
    {
      ferry_python_take_exception (error, FERRY_ERROR_CODEC, "NumPy can't make the array");
      return NULL;
    }
  PyArray_UpdateFlags ((PyArrayObject *) array, NPY_ARRAY_UPDATE_ALL);

  Py_INCREF (base);
  if (PyArray_SetBaseObject ((PyArrayObject *) array, base) < 0) /* takes the reference in any case */
    {
      ferry_python_take_exception (error, FERRY_ERROR_CODEC, "NumPy can't make the array");
      Py_DECREF (array);
      return NULL;
    }
  return array;
}
