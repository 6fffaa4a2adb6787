/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#if !defined(FERRY_INSIDE) && !defined(FERRY_COMPILATION)
#error "Only <ferry.h> can be included directly."
#endif

#include "ferry-enums.h"
#include "ferry-tensor.h"
#include "ferry-types.h"

G_BEGIN_DECLS

#define FERRY_TYPE_STORE (ferry_store_get_type ())

FERRY_AVAILABLE_IN_1_0
G_DECLARE_FINAL_TYPE (FerryStore, ferry_store, FERRY, STORE, GObject)

FERRY_AVAILABLE_IN_1_0
FerryStore *ferry_store_open (const char *description, GCancellable *cancellable, GError **error);

FERRY_AVAILABLE_IN_1_0
void ferry_store_close (FerryStore *self);

FERRY_AVAILABLE_IN_1_0
const char *ferry_store_get_name (FerryStore *self);

FERRY_AVAILABLE_IN_1_0
guint64 ferry_store_get_max_bytes (FerryStore *self);

FERRY_AVAILABLE_IN_1_0
void ferry_store_get_identity (FerryStore *self, guint8 identity[16]);

FERRY_AVAILABLE_IN_1_0
gboolean ferry_store_begin_transaction (FerryStore *self, gint64 timeout, GCancellable *cancellable, GError **error);

FERRY_AVAILABLE_IN_1_0
gboolean ferry_store_commit (FerryStore *self, GError **error);

FERRY_AVAILABLE_IN_1_0
gboolean ferry_store_roll_back (FerryStore *self, GError **error);

FERRY_AVAILABLE_IN_1_0
gboolean ferry_store_in_transaction (FerryStore *self);

FERRY_AVAILABLE_IN_1_0
guint64 ferry_store_watch (FerryStore *self);

FERRY_AVAILABLE_IN_1_0
gboolean ferry_store_wait_change (FerryStore *self, guint64 *seen, gint64 timeout, GCancellable *cancellable,
                                  GError **error);

FERRY_AVAILABLE_IN_1_0
int ferry_store_get_fd (FerryStore *self, GError **error);

FERRY_AVAILABLE_IN_1_0
gboolean ferry_store_check (FerryStore *self, guint64 *seen);

FERRY_AVAILABLE_IN_1_0
gboolean ferry_store_collect (FerryStore *self, GError **error);

FERRY_AVAILABLE_IN_1_0
gsize ferry_store_trim (FerryStore *self);

FERRY_AVAILABLE_IN_1_0
gboolean ferry_store_verify (FerryStore *self, GError **error);

FERRY_AVAILABLE_IN_1_0
guint64 ferry_store_get_bytes_used (FerryStore *self);

FERRY_AVAILABLE_IN_1_0
guint64 ferry_store_get_bytes_committed (FerryStore *self);

G_END_DECLS
