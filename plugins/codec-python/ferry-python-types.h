/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* What codec-python knows about classes. All of it needs the GIL; failures leave a Python exception. */

#include "ferry-python.h"

G_BEGIN_DECLS

/* How objects of a class are encoded. */
typedef enum
{
  FERRY_PYTHON_KIND_REDUCE, /* as their __reduce_ex__() says */
  FERRY_PYTHON_KIND_PLAIN,  /* the same, but it is known to be a class and a dict of attributes */
  FERRY_PYTHON_KIND_NAMEDTUPLE,
  FERRY_PYTHON_KIND_GLOBAL, /* by name: classes and functions */
  FERRY_PYTHON_KIND_COMPLEX,
  FERRY_PYTHON_KIND_BYTEARRAY,
  FERRY_PYTHON_KIND_MEMORYVIEW,
  FERRY_PYTHON_KIND_PICKLE_BUFFER,
  FERRY_PYTHON_KIND_SET,
  FERRY_PYTHON_KIND_FROZENSET,
  FERRY_PYTHON_KIND_RANGE,
  FERRY_PYTHON_KIND_SLICE,
  FERRY_PYTHON_KIND_ELLIPSIS,
  FERRY_PYTHON_KIND_NOT_IMPLEMENTED,
  FERRY_PYTHON_KIND_NDARRAY,
  FERRY_PYTHON_KIND_NUMPY_SCALAR,
  FERRY_PYTHON_KIND_DTYPE,
  FERRY_PYTHON_KIND_TENSOR,
  FERRY_PYTHON_KIND_DLPACK, /* arrays of other libraries */
  FERRY_PYTHON_KIND_DECIMAL,
  FERRY_PYTHON_KIND_FRACTION,
  FERRY_PYTHON_KIND_UUID,
  FERRY_PYTHON_KIND_DATE,
  FERRY_PYTHON_KIND_TIME,
  FERRY_PYTHON_KIND_DATETIME,
  FERRY_PYTHON_KIND_TIMEDELTA,
  FERRY_PYTHON_KIND_TIMEZONE,
  FERRY_PYTHON_KIND_ZONEINFO,
} FerryPythonKind;

typedef enum
{
  FERRY_PYTHON_CLASS_DECIMAL,
  FERRY_PYTHON_CLASS_FRACTION,
  FERRY_PYTHON_CLASS_UUID,
  FERRY_PYTHON_CLASS_SAFE_UUID,
  FERRY_PYTHON_CLASS_ZONEINFO,
  FERRY_PYTHON_CLASS_DATE,
  FERRY_PYTHON_CLASS_TIME,
  FERRY_PYTHON_CLASS_DATETIME,
  FERRY_PYTHON_CLASS_TIMEDELTA,
  FERRY_PYTHON_CLASS_TIMEZONE,
  FERRY_PYTHON_CLASS_TENSOR,
  FERRY_PYTHON_CLASS_FORKING_PICKLER,
  FERRY_PYTHON_N_CLASSES,
} FerryPythonClass;

/* Names of attributes, as interned strings. */
#define FERRY_PYTHON_NAMES(NAME)                                                                                       \
  NAME (__dict__)                                                                                                      \
  NAME (__dlpack__)                                                                                                    \
  NAME (__getnewargs__)                                                                                                \
  NAME (__getnewargs_ex__)                                                                                             \
  NAME (__getstate__)                                                                                                  \
  NAME (__module__)                                                                                                    \
  NAME (__name__)                                                                                                      \
  NAME (__newobj__)                                                                                                    \
  NAME (__newobj_ex__)                                                                                                 \
  NAME (__qualname__)                                                                                                  \
  NAME (__reduce__)                                                                                                    \
  NAME (__reduce_ex__)                                                                                                 \
  NAME (__setstate__)                                                                                                  \
  NAME (_extra_reducers)                                                                                               \
  NAME (_fields)                                                                                                       \
  NAME (_make)                                                                                                         \
  NAME (_name)                                                                                                         \
  NAME (_offset)                                                                                                       \
  NAME (append)                                                                                                        \
  NAME (clone)                                                                                                         \
  NAME (copyreg)                                                                                                       \
  NAME (denominator)                                                                                                   \
  NAME (detach)                                                                                                        \
  NAME (device)                                                                                                        \
  NAME (dtype)                                                                                                         \
  NAME (dispatch_table)                                                                                                \
  NAME (extend)                                                                                                        \
  NAME (from_numpy)                                                                                                    \
  NAME (is_leaf)                                                                                                       \
  NAME (is_safe)                                                                                                       \
  NAME (key)                                                                                                           \
  NAME (numerator)                                                                                                     \
  NAME (numpy)                                                                                                         \
  NAME (requires_grad)                                                                                                 \
  NAME (requires_grad_)                                                                                                \
  NAME (start)                                                                                                         \
  NAME (step)                                                                                                          \
  NAME (stop)                                                                                                          \
  NAME (str)                                                                                                           \
  NAME (torch)                                                                                                         \
  NAME (type)                                                                                                          \
  NAME (value)

typedef struct
{
#define NAME(name) PyObject *name;
  FERRY_PYTHON_NAMES (NAME)
#undef NAME

  /* uuid.UUID calls it so, which C does not allow. */
  PyObject *name_int;
} FerryPythonNames;

extern FerryPythonNames ferry_python_names;

gboolean ferry_python_types_load (void);

FerryPythonKind ferry_python_type_get_kind (PyTypeObject *type);
gboolean ferry_python_type_is_namedtuple (PyTypeObject *type, Py_ssize_t *n_fields);

/* Both return borrowed references. Of a module that is not imported, find gives NULL without an exception. */
PyObject *ferry_python_class_find (FerryPythonClass id);
PyObject *ferry_python_class_import (FerryPythonClass id);

/* Finds an object by its name, importing the module; a new reference. */
PyObject *ferry_python_global_import (PyObject *module, PyObject *qualname);

/* The name of an object that can be found by it: two new references. */
gboolean ferry_python_global_get_name (PyObject *object, PyObject *name, PyObject **module, PyObject **qualname);

/* What copyreg or multiprocessing have registered for a class: a borrowed callable, or NULL. */
PyObject *ferry_python_type_find_reducer (PyTypeObject *type);

/* Whether the class says itself how its objects are pickled, or somebody registered it; never leaves an exception. */
gboolean ferry_python_type_has_reducer (PyTypeObject *type);

G_END_DECLS
