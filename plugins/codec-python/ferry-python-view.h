/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "ferry-python.h"

G_BEGIN_DECLS

/* A memoryview on C-contiguous memory that @base keeps alive. @shape: one length for each dimension. Checks that item
 * size, format and shape go together and make @size bytes. A new reference; NULL with a Python exception. */
PyObject *ferry_python_view_new (PyObject *base, guint8 *data, gsize size, gboolean readonly, const char *format,
                                 gsize item_size, const gssize *shape, guint n_dimensions);

G_END_DECLS
