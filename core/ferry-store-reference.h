/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#if !defined(FERRY_INSIDE) && !defined(FERRY_COMPILATION)
#error "Only <ferry.h> can be included directly."
#endif

#include "ferry-store.h"
#include "ferry-tensor.h"
#include "ferry-types.h"

G_BEGIN_DECLS

#define FERRY_TYPE_STORE_REFERENCE (ferry_store_reference_get_type ())

typedef struct _FerryStoreReference FerryStoreReference;

FERRY_AVAILABLE_IN_1_0
GType ferry_store_reference_get_type (void);

/* In a store */

FERRY_AVAILABLE_IN_1_0
FerryStoreReference *ferry_store_get_reference (FerryStore *self, const char *path, GError **error);

FERRY_AVAILABLE_IN_1_0
gboolean ferry_store_set_reference (FerryStore *self, const char *path, FerryStoreReference *reference, GError **error);

/* Life and identity */

FERRY_AVAILABLE_IN_1_0
FerryStoreReference *ferry_store_reference_ref (FerryStoreReference *self);

FERRY_AVAILABLE_IN_1_0
void ferry_store_reference_unref (FerryStoreReference *self);

FERRY_AVAILABLE_IN_1_0
FerryStore *ferry_store_reference_get_store (FerryStoreReference *self);

FERRY_AVAILABLE_IN_1_0
guint64 ferry_store_reference_get_object_id (FerryStoreReference *self);

FERRY_AVAILABLE_IN_1_0
gboolean ferry_store_reference_equal (FerryStoreReference *self, FerryStoreReference *other);

FERRY_AVAILABLE_IN_1_0
guint ferry_store_reference_hash (FerryStoreReference *self);

/* Looking */

FERRY_AVAILABLE_IN_1_0
GVariant *ferry_store_reference_get (FerryStoreReference *self, const char *path, GError **error);

FERRY_AVAILABLE_IN_1_0
char *ferry_store_reference_get_type_name (FerryStoreReference *self, const char *path, GError **error);

FERRY_AVAILABLE_IN_1_0
gint64 ferry_store_reference_get_length (FerryStoreReference *self, const char *path, GError **error);

FERRY_AVAILABLE_IN_1_0
char **ferry_store_reference_list_children (FerryStoreReference *self, const char *path, GError **error);

FERRY_AVAILABLE_IN_1_0
FerryTensor *ferry_store_reference_get_tensor (FerryStoreReference *self, const char *path, GError **error);

FERRY_AVAILABLE_IN_1_0
FerryStoreReference *ferry_store_reference_get_reference (FerryStoreReference *self, const char *path, GError **error);

/* Changing */

FERRY_AVAILABLE_IN_1_0
gboolean ferry_store_reference_set (FerryStoreReference *self, const char *path, GVariant *value, GError **error);

FERRY_AVAILABLE_IN_1_0
gboolean ferry_store_reference_set_tensor (FerryStoreReference *self, const char *path, FerryTensor *tensor,
                                           GError **error);

FERRY_AVAILABLE_IN_1_0
gboolean ferry_store_reference_set_reference (FerryStoreReference *self, const char *path,
                                              FerryStoreReference *reference, GError **error);

FERRY_AVAILABLE_IN_1_0
gboolean ferry_store_reference_remove (FerryStoreReference *self, const char *path, GError **error);

FERRY_AVAILABLE_IN_1_0
gboolean ferry_store_reference_add_int (FerryStoreReference *self, const char *path, gint64 delta, gint64 *sum,
                                        GError **error);

FERRY_AVAILABLE_IN_1_0
gboolean ferry_store_reference_add_double (FerryStoreReference *self, const char *path, double delta, double *sum,
                                           GError **error);

G_DEFINE_AUTOPTR_CLEANUP_FUNC (FerryStoreReference, ferry_store_reference_unref)

G_END_DECLS
