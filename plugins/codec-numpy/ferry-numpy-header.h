/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* What stands before the elements of an array, see docs/wire-formats.md. Without Python. */

#include <ferry.h>

G_BEGIN_DECLS

/* The data begin at a multiple of this many bytes: a cache line, and what SIMD code asks for. */
#define FERRY_NUMPY_ALIGNMENT (64)

/* Bytes before the shape. */
#define FERRY_NUMPY_FIXED_SIZE (16)

#define FERRY_NUMPY_FORMAT_MAX (65535)
#define FERRY_NUMPY_EXTENSION_MAX (4 * 1024 * 1024)

typedef enum
{
  FERRY_NUMPY_FORTRAN = 1 << 0,   /* the first index runs fastest */
  FERRY_NUMPY_READ_ONLY = 1 << 1, /* the sender's array was */
} FerryNumpyFlags;

typedef struct
{
  guint flags;
  guint n_dimensions;
  gsize item_size; /* bytes */
  gsize format_length;
  gsize extension_length;
  gint64 shape[FERRY_TENSOR_MAX_DIMENSIONS];
} FerryNumpyHeader;

static inline gsize
ferry_numpy_header_size (const FerryNumpyHeader *self)
{
  return FERRY_NUMPY_FIXED_SIZE + self->n_dimensions * sizeof (gint64) + self->format_length + self->extension_length;
}

static inline gsize
ferry_numpy_align (gsize size)
{
  return (size + FERRY_NUMPY_ALIGNMENT - 1) & ~(gsize) (FERRY_NUMPY_ALIGNMENT - 1);
}

/* Copies the numbers out of @data and checks that they go together. The format lies behind the shape, the extension
 * behind the format. @data_size: bytes of all elements. */
gboolean ferry_numpy_header_read (FerryNumpyHeader *self, const guint8 *data, gsize size, gsize *data_size,
                                  GError **error);

/* Writes all but format and extension, and returns where the format goes. */
guint8 *ferry_numpy_header_write (const FerryNumpyHeader *self, guint8 *to);

G_END_DECLS
