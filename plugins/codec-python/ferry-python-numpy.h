/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* The things of NumPy and torch that are no plain arrays. All of it needs the GIL; failures leave a Python exception. */

#include "ferry-python-encoder.h"
#include "ferry-python-types.h"

G_BEGIN_DECLS

gboolean ferry_python_numpy_classify (PyTypeObject *type, FerryPythonKind *kind);

/* Whether it is ndarray or a class derived from it; never imports numpy. */
gboolean ferry_python_numpy_is_subtype (PyTypeObject *type);

gboolean ferry_python_numpy_encode_scalar (FerryPythonEncoder *encoder, PyObject *scalar);
PyObject *ferry_python_numpy_make_scalar (guint type_number, const guint8 *data, gsize size);

/* The single element of an array; steals @array, which may be NULL. */
PyObject *ferry_python_numpy_array_to_scalar (PyObject *array);

/* A dtype as a str that names it, or NULL without an exception when no str does. */
PyObject *ferry_python_numpy_dtype_to_str (PyObject *dtype);
PyObject *ferry_python_numpy_dtype_from_str (PyObject *str);
PyObject *ferry_python_numpy_empty (PyObject *dtype);

/* Whether it is an array of exactly the dtype object, and then its elements in C order; borrowed, may be NULL. */
gboolean ferry_python_numpy_is_objects (PyObject *array);
gsize ferry_python_numpy_get_shape (PyObject *array, gboolean *fortran, const gssize **shape, gsize *n_dimensions);
PyObject *ferry_python_numpy_flatten (PyObject *array);
PyObject *ferry_python_numpy_new_objects (const gssize *shape, gsize n_dimensions, gboolean fortran);
gboolean ferry_python_numpy_fill_objects (PyObject *array, PyObject *elements);

/* The array of a torch tensor on the CPU, a new reference; NULL without an exception when it has to be pickled. */
PyObject *ferry_python_tensor_to_array (PyObject *tensor, gboolean *requires_grad);

/* A tensor on the array if torch is imported, else the array itself; steals @array, which may be NULL. */
PyObject *ferry_python_tensor_from_array (PyObject *array, gboolean requires_grad, gboolean writable);

G_END_DECLS
