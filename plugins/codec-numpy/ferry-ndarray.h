/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* Arrays of NumPy as bytes and back, for codec-numpy and, within larger objects, for codec-python. Everything here
 * needs the GIL, and ferry_ndarray_load() first. Failures set a GError; no Python exception is left behind. */

#include "ferry-python.h" /* Python.h, every symbol weak */

#include <ferry.h>

G_BEGIN_DECLS

/* What the header says, and where the elements are. On the stack of the caller. */
typedef struct
{
  PyObject *array;   /* borrowed */
  gsize header_size; /* bytes */
  gsize data_size;   /* bytes; 0 for arrays without elements */
  gpointer format;   /* owned: what the header will contain */
  guint n_dimensions;
  gboolean fortran; /* in which order the elements go */
} FerryNdarrayPlan;

/* Loads NumPy's C API; imports numpy only when @import. FALSE without an error: numpy is not imported yet. */
gboolean ferry_ndarray_load (gboolean import, GError **error);

/* Whether the object is an ndarray or of a subclass of it; never imports numpy. */
gboolean ferry_ndarray_check (PyObject *object);

/* The same without subclasses. */
gboolean ferry_ndarray_check_exact (PyObject *object);

/* Whether its elements are plain memory: FALSE for dtypes that contain objects, and the few others that can't be written
 * down, like those of other packages, or with metadata that are no plain values. */
gboolean ferry_ndarray_is_plain (PyObject *array);

gboolean ferry_ndarray_plan (PyObject *array, FerryNdarrayPlan *plan, GError **error);

/* Not needed after a failure, nor twice. The array may be gone by then. */
void ferry_ndarray_plan_clear (FerryNdarrayPlan *plan);
void ferry_ndarray_write_header (const FerryNdarrayPlan *plan, guint8 *to);

/* Copies the elements, in C or in Fortran order as the header says, to an address aligned to 64 bytes. Releases the GIL
 * meanwhile when there are many. */
gboolean ferry_ndarray_write_data (const FerryNdarrayPlan *plan, guint8 *to, GError **error);

/* An exact ndarray of what NumPy takes for an array without going through its items: NumPy's scalars, the buffer
 * protocol, __array_interface__. A new reference; NULL without an error: it is something else. */
PyObject *ferry_ndarray_from_object (PyObject *object, GError **error);

/* A view on @data. @base: what keeps it alive; a reference of its own is taken. @writable: whether the array is when its
 * sender's was. Bytes from elsewhere: every number is checked. ferry_python_new_message() makes bases. */
PyObject *ferry_ndarray_read (const guint8 *header, gsize header_size, guint8 *data, gsize data_size, PyObject *base,
                              gboolean writable, GError **error);

G_END_DECLS
