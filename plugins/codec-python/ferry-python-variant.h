/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* Messages without Python: GVariants and tensors. */

#include "ferry-python-stream.h"

G_BEGIN_DECLS

/* What a GVariant or a tensor becomes; @value stays as long as the output. */
gboolean ferry_python_variant_encode (const GValue *value, FerryPythonOutput *output, GError **error);

/* A tensor for an array, else a GVariant. */
gboolean ferry_python_variant_decode (FerryBuffer *buffer, GValue *value, GError **error);

G_END_DECLS
