/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ferry-native.h"

PyTypeObject FerryNativeConnection_Type = {
  PyVarObject_HEAD_INIT (NULL, 0).tp_name = "ferry._native.Connection",
  .tp_basicsize = sizeof (PyObject),
  .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE,
};
