/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "ferry-store-view-private.h"
#include "ferry-tensor.h"

G_BEGIN_DECLS

/* A description of an array, taken apart. */
typedef struct
{
  char *format;
  gint64 shape[FERRY_TENSOR_MAX_DIMENSIONS];
  gint64 strides[FERRY_TENSOR_MAX_DIMENSIONS];
  guint n_dimensions;
  gpointer data;
  gsize size;
} FerryArray;

/* Free @array->format after it. */
gboolean ferry_array_read (FerryStore *self, FerryRef ref, FerryArray *array, GError **error);

/* Checked as every tensor is; the memory of it is used as long as the array is held. */
FerryTensor *ferry_array_to_tensor (const FerryArray *array, GDestroyNotify release, gpointer release_data,
                                    GError **error);

G_END_DECLS
