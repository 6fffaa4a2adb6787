/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "ferry-python.h"

#include <glib.h>

G_BEGIN_DECLS

/* Between the two, with the GIL, what the interpreter allocates for one large object (bytes, bytearray, str) of @size
 * bytes is taken from memory of an earlier one, if there is some, and comes back when the object is freed. */
void ferry_python_warm_begin (gsize size);
void ferry_python_warm_end (void);

G_END_DECLS
