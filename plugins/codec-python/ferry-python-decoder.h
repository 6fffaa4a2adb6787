/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* Messages to Python objects. Needs the GIL. */

#include "ferry-python.h"

G_BEGIN_DECLS

/* A new reference; NULL with an error. Arrays and memoryviews in it refer to the message and hold a reference on it. */
PyObject *ferry_python_decode (FerryBuffer *buffer, gboolean pickle, GError **error);

G_END_DECLS
