/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "ferry-store-private.h"

G_BEGIN_DECLS

/* Paths that start from an object which the caller holds, @base; 0: from the root. Otherwise as the functions of the same
 * names without `_at`. */
GVariant *ferry_store_get_at (FerryStore *self, FerryRef base, const char *path, GError **error);
char *ferry_store_get_type_name_at (FerryStore *self, FerryRef base, const char *path, GError **error);
gint64 ferry_store_get_length_at (FerryStore *self, FerryRef base, const char *path, GError **error);
char **ferry_store_list_children_at (FerryStore *self, FerryRef base, const char *path, GError **error);
FerryTensor *ferry_store_get_tensor_at (FerryStore *self, FerryRef base, const char *path, GError **error);
gboolean ferry_store_set_at (FerryStore *self, FerryRef base, const char *path, GVariant *value, GError **error);
gboolean ferry_store_set_tensor_at (FerryStore *self, FerryRef base, const char *path, FerryTensor *tensor,
                                    GError **error);
gboolean ferry_store_remove_at (FerryStore *self, FerryRef base, const char *path, GError **error);
gboolean ferry_store_add_int_at (FerryStore *self, FerryRef base, const char *path, gint64 delta, gint64 *sum,
                                 GError **error);
gboolean ferry_store_add_double_at (FerryStore *self, FerryRef base, const char *path, double delta, double *sum,
                                    GError **error);

/* Held for the caller; 0: error. */
FerryRef ferry_store_find_object_at (FerryStore *self, FerryRef base, const char *path, GError **error);
gboolean ferry_store_put_object_at (FerryStore *self, FerryRef base, const char *path, FerryRef ref, GError **error);

G_END_DECLS
