/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* Python objects to messages. All of it needs the GIL. */

#include "ferry-python.h"

#include "ferry-python-stream.h"

G_BEGIN_DECLS

/* Where the tags of objects are that may be met again. */
typedef struct
{
  PyObject *object; /* NULL: free */
  gsize offset;
} FerryPythonMemoSlot;

typedef struct _FerryPythonEncoder FerryPythonEncoder;

struct _FerryPythonEncoder
{
  FerryPythonOutput output;

  FerryPythonMemoSlot *slots; /* a power of two of them */
  gsize n_slots;
  PyObject **objects; /* what is in the slots; a reference each, so that no other object gets its address */
  gsize n_objects;
  gsize n_objects_allocated;

  PyObject *outermost; /* if it may be met again; it begins the stream, and is not in the slots */

  gboolean pickle;
  PyObject *array_reducer; /* borrowed from the codec; NULL: arrays are encoded here */
  guint depth;
  GError *error;            /* set instead of a Python exception by what is not allowed */
  FerryPythonEncoder *next; /* while unused */
};

/* Writes the stream and notes the parts. NULL with an error. */
FerryPythonEncoder *ferry_python_encoder_encode (PyObject *object, gboolean pickle, PyObject *array_reducer,
                                                 GError **error);
void ferry_python_encoder_free (FerryPythonEncoder *self);

G_END_DECLS
