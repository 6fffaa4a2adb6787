/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* Python.h for modules that must also load where no interpreter is: include it instead of Python.h, and before
 * everything else. What a module uses of the API and is not in the list of ferry-python-weak.h must be added there. */

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "ferry-python-weak.h"

#include <ferry.h>

G_BEGIN_DECLS

/* Whether Python's API may be called: an interpreter is in this process, initialised, and of the minor version that the
 * module was compiled for. FERRY_ERROR_UNSUPPORTED tells which of these is missing. Cheap; needs no GIL. */
gboolean ferry_python_available (GError **error);

/* PyGObject's boxed type for Python objects, or G_TYPE_INVALID as long as nobody in this process imported gi. Cheap. */
GType ferry_python_get_object_type (void);

/* Takes the GIL unless this thread has it: calls through GObject-Introspection come without. What it returns goes to
 * ferry_python_leave(). ferry_python_available() must have been true. */
int ferry_python_enter (void);
void ferry_python_leave (int entered);

/* Turns the current Python exception into a GError "@prefix: TypeError: ...", and clears it. Needs the GIL. */
void ferry_python_take_exception (GError **error, FerryError code, const char *prefix);

/* The object to be the base of views on a message: holds a reference on it, and offers its bytes by the buffer protocol,
 * writable if the message is. Returns a new reference. Needs the GIL. */
PyObject *ferry_python_new_message (FerryBuffer *buffer, GError **error);

G_END_DECLS
