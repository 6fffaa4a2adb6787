/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "ferry-codec.h"
#include "ferry-transport.h"

G_BEGIN_DECLS

void ferry_transport_unpack_wire_name (guint64 packed_name, guint64 packed_version, char name[FERRY_WIRE_NAME_MAX + 1],
                                       guint *version);

/* By which feature it was made. */
GQuark ferry_transport_feature_quark (void);

/* NULL: by none. */
const char *ferry_transport_get_feature_name (FerryTransport *self);

gboolean ferry_transport_send (FerryTransport *self, const guint8 *data, gsize size, guint64 wire_name,
                               guint64 wire_version, gint64 timeout, GCancellable *cancellable, GError **error);

int ferry_transport_get_fd (FerryTransport *self, GError **error);

GIOCondition ferry_transport_check (FerryTransport *self, GIOCondition condition);

gboolean ferry_transport_flush (FerryTransport *self, gint64 timeout, GCancellable *cancellable, GError **error);

gboolean ferry_transport_mark (FerryTransport *self, guint64 *mark, GError **error);

gboolean ferry_transport_flush_mark (FerryTransport *self, guint64 mark, gint64 timeout, GCancellable *cancellable,
                                     GError **error);

gboolean ferry_transport_end_of_stream (FerryTransport *self, GError **error);

gboolean ferry_transport_shut_down (FerryTransport *self, GError **error);

GPtrArray *ferry_transport_list_participants (FerryTransport *self, GError **error);

FerryTransportEvent ferry_transport_poll_events (FerryTransport *self, FerryParticipant *participant);

gsize ferry_transport_trim (FerryTransport *self);

gboolean ferry_transport_privatize (FerryTransport *self, FerryBuffer *buffer, gsize offset, gsize size);

G_END_DECLS
