/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#if !defined(FERRY_INSIDE) && !defined(FERRY_COMPILATION)
#error "Only <ferry.h> can be included directly."
#endif

#include "ferry-store.h"
#include "ferry-tensor.h"
#include "ferry-types.h"

G_BEGIN_DECLS

/* A store by path, with values as GVariant and FerryTensor: see ferry_store_get(). */

/* Looking */

FERRY_AVAILABLE_IN_1_0
GVariant *ferry_store_get (FerryStore *self, const char *path, GError **error);

FERRY_AVAILABLE_IN_1_0
gboolean ferry_store_contains (FerryStore *self, const char *path, GError **error);

FERRY_AVAILABLE_IN_1_0
char *ferry_store_get_type_name (FerryStore *self, const char *path, GError **error);

FERRY_AVAILABLE_IN_1_0
guint64 ferry_store_get_object_id (FerryStore *self, const char *path, GError **error);

FERRY_AVAILABLE_IN_1_0
gint64 ferry_store_get_length (FerryStore *self, const char *path, GError **error);

FERRY_AVAILABLE_IN_1_0
char **ferry_store_list_children (FerryStore *self, const char *path, GError **error);

FERRY_AVAILABLE_IN_1_0
FerryTensor *ferry_store_get_tensor (FerryStore *self, const char *path, GError **error);

/* Changing */

FERRY_AVAILABLE_IN_1_0
gboolean ferry_store_set (FerryStore *self, const char *path, GVariant *value, GError **error);

FERRY_AVAILABLE_IN_1_0
gboolean ferry_store_set_tensor (FerryStore *self, const char *path, FerryTensor *tensor, GError **error);

FERRY_AVAILABLE_IN_1_0
gboolean ferry_store_remove (FerryStore *self, const char *path, GError **error);

FERRY_AVAILABLE_IN_1_0
GVariant *ferry_store_add (FerryStore *self, const char *path, GVariant *delta, GError **error);

FERRY_AVAILABLE_IN_1_0
gboolean ferry_store_add_int (FerryStore *self, const char *path, gint64 delta, gint64 *sum, GError **error);

FERRY_AVAILABLE_IN_1_0
gboolean ferry_store_add_double (FerryStore *self, const char *path, double delta, double *sum, GError **error);

/* Waiting */

FERRY_AVAILABLE_IN_1_0
GVariant *ferry_store_wait (FerryStore *self, const char *path, GVariant *not_this, gint64 timeout,
                            GCancellable *cancellable, GError **error);

/**
 * FerryStoreSourceFunc:
 * @store: the store
 * @user_data: user data
 *
 * The callback of [method@Store.create_source].
 *
 * Returns: %G_SOURCE_CONTINUE or %G_SOURCE_REMOVE
 *
 * Since: 1.0
 */
typedef gboolean (*FerryStoreSourceFunc) (FerryStore *store, gpointer user_data);

FERRY_AVAILABLE_IN_1_0
GSource *ferry_store_create_source (FerryStore *self, GCancellable *cancellable, GError **error);

FERRY_AVAILABLE_IN_1_0
void ferry_store_wait_change_async (FerryStore *self, guint64 seen, int io_priority, GCancellable *cancellable,
                                    GAsyncReadyCallback callback, gpointer user_data);

FERRY_AVAILABLE_IN_1_0
gboolean ferry_store_wait_change_finish (FerryStore *self, GAsyncResult *result, guint64 *seen, GError **error);

G_END_DECLS
