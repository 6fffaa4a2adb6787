/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "ferry-python.h"

#include <ferry.h>

G_BEGIN_DECLS

/* Between the two, with the GIL, what the interpreter allocates for one large object (bytes, bytearray, str) of @size
 * bytes is taken from memory of an earlier one, if there is some, and comes back when the object is freed. */
void ferry_python_warm_begin (gsize size);
void ferry_python_warm_end (void);

/* bytes whose data lie in a received message, @data in @buffer, with room for the object in front of them, beyond the
 * first @used bytes, and a zero behind; NULL, without an exception, when there can't be such. With the GIL. */
PyObject *ferry_python_warm_bytes (FerryBuffer *buffer, gsize used, const guint8 *data, gsize size);

G_END_DECLS
