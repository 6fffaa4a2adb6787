/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#if !defined(FERRY_INSIDE) && !defined(FERRY_COMPILATION)
#error "Only <ferry.h> can be included directly."
#endif

#include "ferry-version-macros.h"

#include <glib.h>

G_BEGIN_DECLS

FERRY_AVAILABLE_IN_1_0
void ferry_copy_memory (gpointer to, gconstpointer from, gsize size);

G_END_DECLS
