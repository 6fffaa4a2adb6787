/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "ferry-tensor.h"

G_BEGIN_DECLS

FerryTensor *ferry_tensor_new_layout (const char *format, const gint64 *shape, guint n_dimensions, GError **error);

void ferry_tensor_place (FerryTensor *self, FerryBuffer *buffer, gsize offset);

G_END_DECLS
