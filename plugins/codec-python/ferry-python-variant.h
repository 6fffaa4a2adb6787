/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* Messages without Python: GVariants and tensors. */

#include "ferry-python-stream.h"

G_BEGIN_DECLS

/* Writes tag and header of an array with what the tensor has; a part of *size bytes is to follow. */
gboolean ferry_python_tensor_write_header (FerryPythonOutput *output, FerryTensor *tensor, gsize *size, GError **error);

/* Copies its elements as the header says. */
gboolean ferry_python_tensor_write_data (FerryTensor *tensor, guint8 *to, gsize size, GError **error);

/* What a GVariant or a tensor becomes; @value stays as long as the output. */
gboolean ferry_python_variant_encode (const GValue *value, FerryPythonOutput *output, GError **error);

/* A tensor for an array, else a GVariant. */
gboolean ferry_python_variant_decode (FerryBuffer *buffer, GValue *value, GError **error);

G_END_DECLS
