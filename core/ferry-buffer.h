/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#if !defined(FERRY_INSIDE) && !defined(FERRY_COMPILATION)
#error "Only <ferry.h> can be included directly."
#endif

#include "ferry-types.h"

G_BEGIN_DECLS

#define FERRY_TYPE_BUFFER (ferry_buffer_get_type ())

FERRY_AVAILABLE_IN_1_0
GType ferry_buffer_get_type (void) G_GNUC_CONST;

FERRY_AVAILABLE_IN_1_0
FerryBuffer *ferry_buffer_new (gsize size);

FERRY_AVAILABLE_IN_1_0
FerryBuffer *ferry_buffer_new_bytes (GBytes *bytes);

FERRY_AVAILABLE_IN_1_0
FerryBuffer *ferry_buffer_new_take (gpointer data, gsize size, gboolean writable, GDestroyNotify release,
                                    gpointer release_data);

FERRY_AVAILABLE_IN_1_0
FerryBuffer *ferry_buffer_ref (FerryBuffer *self);

FERRY_AVAILABLE_IN_1_0
void ferry_buffer_unref (FerryBuffer *self);

FERRY_AVAILABLE_IN_1_0
const guint8 *ferry_buffer_get_data (FerryBuffer *self, gsize *size);

FERRY_AVAILABLE_IN_1_0
guint8 *ferry_buffer_get_writable_data (FerryBuffer *self, gsize *size);

FERRY_AVAILABLE_IN_1_0
gsize ferry_buffer_get_address (FerryBuffer *self);

FERRY_AVAILABLE_IN_1_0
gsize ferry_buffer_get_size (FerryBuffer *self);

FERRY_AVAILABLE_IN_1_0
gboolean ferry_buffer_set_size (FerryBuffer *self, gsize size);

FERRY_AVAILABLE_IN_1_0
gboolean ferry_buffer_fill (FerryBuffer *self, gsize offset, const guint8 *data, gsize size);

FERRY_AVAILABLE_IN_1_0
gboolean ferry_buffer_is_writable (FerryBuffer *self);

FERRY_AVAILABLE_IN_1_0
guint64 ferry_buffer_get_sequence (FerryBuffer *self);

FERRY_AVAILABLE_IN_1_0
void ferry_buffer_set_sequence (FerryBuffer *self, guint64 sequence);

FERRY_AVAILABLE_IN_1_0
gint64 ferry_buffer_get_timestamp (FerryBuffer *self);

FERRY_AVAILABLE_IN_1_0
void ferry_buffer_set_timestamp (FerryBuffer *self, gint64 timestamp);

FERRY_AVAILABLE_IN_1_0
guint ferry_buffer_get_sender (FerryBuffer *self);

FERRY_AVAILABLE_IN_1_0
void ferry_buffer_set_sender (FerryBuffer *self, guint sender);

FERRY_AVAILABLE_IN_1_0
char *ferry_buffer_dup_wire_name (FerryBuffer *self, guint *version);

FERRY_AVAILABLE_IN_1_0
gboolean ferry_buffer_set_wire_name (FerryBuffer *self, const char *wire_name, guint version);

FERRY_AVAILABLE_IN_1_0
GBytes *ferry_buffer_to_bytes (FerryBuffer *self);

FERRY_AVAILABLE_IN_1_0
GBytes *ferry_buffer_as_bytes (FerryBuffer *self);

FERRY_AVAILABLE_IN_1_0
GBytes *ferry_buffer_spend (FerryBuffer *self, GError **error);
FERRY_AVAILABLE_IN_1_0
gboolean ferry_buffer_privatize (FerryBuffer *self, gsize offset, gsize size);

G_DEFINE_AUTOPTR_CLEANUP_FUNC (FerryBuffer, ferry_buffer_unref)

G_END_DECLS
