/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* NumPy's C API for the two files that call it. ferry-ndarray.c has the table of its functions. */

#include "ferry-python.h"

#define NPY_NO_DEPRECATED_API NPY_1_20_API_VERSION
#define PY_ARRAY_UNIQUE_SYMBOL ferry_numpy_api
#include <numpy/arrayobject.h>

/* What NumPy 2 has instead of fields, whose place is another there. */
#if NPY_ABI_VERSION < 0x02000000
#define PyDataType_ELSIZE(descr) ((gsize) (descr)->elsize)
#define PyDataType_FIELDS(descr) ((descr)->fields)
#define PyDataType_METADATA(descr) ((descr)->metadata)
#define PyDataType_NAMES(descr) ((descr)->names)
#define PyDataType_SUBARRAY(descr) ((descr)->subarray)
#endif
