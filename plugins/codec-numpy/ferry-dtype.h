/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* A dtype of NumPy together with what describes it in a message: the format, which C programs understand, and where
 * that tells less than everything the extension. Everything here needs the GIL. */

#include "ferry-numpy-api.h"

G_BEGIN_DECLS

typedef struct _FerryDtype FerryDtype;

struct _FerryDtype
{
  gsize ref_count; /* the GIL guards it */
  PyArray_Descr *descr;
  gsize item_size; /* bytes */
  gsize format_length;
  gsize extension_length;
  GPtrArray *structures; /* each structure in it, its names and its fields; NULL when there is none */
  guint8 bytes[];        /* the format, then the extension */
};

/* New references. Both look into a cache first. */
FerryDtype *ferry_dtype_new_for_descr (PyArray_Descr *descr, GError **error);
FerryDtype *ferry_dtype_new_for_bytes (const guint8 *bytes, gsize format_length, gsize extension_length,
                                       GError **error);

void ferry_dtype_unref (FerryDtype *self);

/* The descr for an array: a new reference, which the user of the array may change without changing ours. */
PyArray_Descr *ferry_dtype_get_descr (FerryDtype *self);

G_END_DECLS
