/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#if !defined(FERRY_INSIDE) && !defined(FERRY_COMPILATION)
#error "Only <ferry.h> can be included directly."
#endif

#include "ferry-buffer.h"
#include "ferry-types.h"

G_BEGIN_DECLS

/**
 * FerryDataType:
 * @FERRY_DATA_TYPE_VOID: opaque or structured elements; the format tells more
 * @FERRY_DATA_TYPE_BOOL: one byte, 0 or 1
 * @FERRY_DATA_TYPE_INT8: signed, 8 bits
 * @FERRY_DATA_TYPE_INT16: signed, 16 bits
 * @FERRY_DATA_TYPE_INT32: signed, 32 bits
 * @FERRY_DATA_TYPE_INT64: signed, 64 bits
 * @FERRY_DATA_TYPE_UINT8: unsigned, 8 bits
 * @FERRY_DATA_TYPE_UINT16: unsigned, 16 bits
 * @FERRY_DATA_TYPE_UINT32: unsigned, 32 bits
 * @FERRY_DATA_TYPE_UINT64: unsigned, 64 bits
 * @FERRY_DATA_TYPE_FLOAT16: IEEE 754 binary16
 * @FERRY_DATA_TYPE_FLOAT32: IEEE 754 binary32
 * @FERRY_DATA_TYPE_FLOAT64: IEEE 754 binary64
 * @FERRY_DATA_TYPE_BFLOAT16: the upper half of an IEEE 754 binary32
 * @FERRY_DATA_TYPE_COMPLEX64: two FLOAT32, real part first
 * @FERRY_DATA_TYPE_COMPLEX128: two FLOAT64, real part first
 * @FERRY_DATA_TYPE_DATETIME64: a point in time as an INT64 count; the format has the unit
 * @FERRY_DATA_TYPE_TIMEDELTA64: a duration as an INT64 count; the format has the unit
 * @FERRY_DATA_TYPE_BYTES: byte strings of a fixed length, padded with zero bytes
 * @FERRY_DATA_TYPE_UNICODE: strings of a fixed number of UCS-4 characters, padded with zeros
 *
 * What the elements of a tensor are.
 *
 * Since: 1.0
 */
typedef enum
{
  FERRY_DATA_TYPE_VOID,
  FERRY_DATA_TYPE_BOOL,
  FERRY_DATA_TYPE_INT8,
  FERRY_DATA_TYPE_INT16,
  FERRY_DATA_TYPE_INT32,
  FERRY_DATA_TYPE_INT64,
  FERRY_DATA_TYPE_UINT8,
  FERRY_DATA_TYPE_UINT16,
  FERRY_DATA_TYPE_UINT32,
  FERRY_DATA_TYPE_UINT64,
  FERRY_DATA_TYPE_FLOAT16,
  FERRY_DATA_TYPE_FLOAT32,
  FERRY_DATA_TYPE_FLOAT64,
  FERRY_DATA_TYPE_BFLOAT16,
  FERRY_DATA_TYPE_COMPLEX64,
  FERRY_DATA_TYPE_COMPLEX128,
  FERRY_DATA_TYPE_DATETIME64,
  FERRY_DATA_TYPE_TIMEDELTA64,
  FERRY_DATA_TYPE_BYTES,
  FERRY_DATA_TYPE_UNICODE,
} FerryDataType;

/**
 * FERRY_TENSOR_MAX_DIMENSIONS:
 *
 * The most dimensions that a tensor may have: 64, as in NumPy 2.
 *
 * Since: 1.0
 */
#define FERRY_TENSOR_MAX_DIMENSIONS (64)

FERRY_AVAILABLE_IN_1_0
const char *ferry_data_type_get_format (FerryDataType data_type);

#define FERRY_TYPE_TENSOR (ferry_tensor_get_type ())

FERRY_AVAILABLE_IN_1_0
GType ferry_tensor_get_type (void) G_GNUC_CONST;

/* Making */

FERRY_AVAILABLE_IN_1_0
FerryTensor *ferry_tensor_new (const char *format, const gint64 *shape, guint n_dimensions, GError **error);

FERRY_AVAILABLE_IN_1_0
FerryTensor *ferry_tensor_new_copy (const char *format, const gint64 *shape, guint n_dimensions, const guint8 *data,
                                    gsize size, GError **error);

FERRY_AVAILABLE_IN_1_0
FerryTensor *ferry_tensor_new_for_bytes (const char *format, const gint64 *shape, guint n_dimensions,
                                         const gint64 *strides, guint n_strides, GBytes *bytes, gsize offset,
                                         GError **error);

FERRY_AVAILABLE_IN_1_0
FerryTensor *ferry_tensor_new_for_buffer (const char *format, const gint64 *shape, guint n_dimensions,
                                          const gint64 *strides, guint n_strides, FerryBuffer *buffer, gsize offset,
                                          GError **error);

FERRY_AVAILABLE_IN_1_0
FerryTensor *ferry_tensor_new_take (const char *format, const gint64 *shape, guint n_dimensions, const gint64 *strides,
                                    gpointer data, gsize size, gsize offset, gboolean writable, GDestroyNotify release,
                                    gpointer release_data, GError **error);

FERRY_AVAILABLE_IN_1_0
FerryTensor *ferry_tensor_copy_contiguous (FerryTensor *self, GError **error);

FERRY_AVAILABLE_IN_1_0
FerryTensor *ferry_tensor_ref (FerryTensor *self);

FERRY_AVAILABLE_IN_1_0
void ferry_tensor_unref (FerryTensor *self);

/* Looking */

FERRY_AVAILABLE_IN_1_0
FerryDataType ferry_tensor_get_data_type (FerryTensor *self);

FERRY_AVAILABLE_IN_1_0
const char *ferry_tensor_get_format (FerryTensor *self);

FERRY_AVAILABLE_IN_1_0
gsize ferry_tensor_get_item_size (FerryTensor *self);

FERRY_AVAILABLE_IN_1_0
int ferry_tensor_get_byte_order (FerryTensor *self);

FERRY_AVAILABLE_IN_1_0
guint ferry_tensor_get_n_dimensions (FerryTensor *self);

FERRY_AVAILABLE_IN_1_0
const gint64 *ferry_tensor_get_shape (FerryTensor *self, guint *n_dimensions);

FERRY_AVAILABLE_IN_1_0
const gint64 *ferry_tensor_get_strides (FerryTensor *self, guint *n_dimensions);

FERRY_AVAILABLE_IN_1_0
gint64 ferry_tensor_get_n_elements (FerryTensor *self);

FERRY_AVAILABLE_IN_1_0
gsize ferry_tensor_get_size_bytes (FerryTensor *self);

FERRY_AVAILABLE_IN_1_0
gboolean ferry_tensor_is_c_contiguous (FerryTensor *self);

FERRY_AVAILABLE_IN_1_0
gboolean ferry_tensor_is_f_contiguous (FerryTensor *self);

FERRY_AVAILABLE_IN_1_0
gboolean ferry_tensor_is_aligned (FerryTensor *self);

FERRY_AVAILABLE_IN_1_0
gboolean ferry_tensor_is_writable (FerryTensor *self);

FERRY_AVAILABLE_IN_1_0
gboolean ferry_tensor_equal (FerryTensor *self, FerryTensor *other);

/* The elements */

FERRY_AVAILABLE_IN_1_0
gconstpointer ferry_tensor_get_data (FerryTensor *self);

FERRY_AVAILABLE_IN_1_0
gpointer ferry_tensor_get_writable_data (FerryTensor *self);

FERRY_AVAILABLE_IN_1_0
gsize ferry_tensor_get_address (FerryTensor *self);

FERRY_AVAILABLE_IN_1_0
GBytes *ferry_tensor_as_bytes (FerryTensor *self);

FERRY_AVAILABLE_IN_1_0
GBytes *ferry_tensor_to_bytes (FerryTensor *self, GError **error);

FERRY_AVAILABLE_IN_1_0
gboolean ferry_tensor_store (FerryTensor *self, guint8 *data, gsize size);

FERRY_AVAILABLE_IN_1_0
gboolean ferry_tensor_fill (FerryTensor *self, gsize offset, const guint8 *data, gsize size);

FERRY_AVAILABLE_IN_1_0
double ferry_tensor_get_element_double (FerryTensor *self, const gint64 *indices, guint n_indices, GError **error);

/* Exchange with other libraries in this process */

FERRY_AVAILABLE_IN_1_0
gpointer ferry_tensor_to_dlpack (FerryTensor *self, gboolean versioned, GError **error);

FERRY_AVAILABLE_IN_1_0
gsize ferry_tensor_to_dlpack_address (FerryTensor *self, gboolean versioned, GError **error);

FERRY_AVAILABLE_IN_1_0
FerryTensor *ferry_tensor_new_from_dlpack (gpointer managed, gboolean versioned, GError **error);

FERRY_AVAILABLE_IN_1_0
FerryTensor *ferry_tensor_new_from_dlpack_address (gsize address, gboolean versioned, GError **error);

G_DEFINE_AUTOPTR_CLEANUP_FUNC (FerryTensor, ferry_tensor_unref)

G_END_DECLS
