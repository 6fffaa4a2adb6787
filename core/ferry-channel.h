/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#if !defined(FERRY_INSIDE) && !defined(FERRY_COMPILATION)
#error "Only <ferry.h> can be included directly."
#endif

#include "ferry-buffer.h"
#include "ferry-codec.h"
#include "ferry-enums.h"
#include "ferry-statistics.h"
#include "ferry-tensor.h"
#include "ferry-transport.h"
#include "ferry-types.h"

G_BEGIN_DECLS

#define FERRY_TYPE_CHANNEL (ferry_channel_get_type ())

FERRY_AVAILABLE_IN_1_0
G_DECLARE_FINAL_TYPE (FerryChannel, ferry_channel, FERRY, CHANNEL, GObject)

/* Making and opening */

FERRY_AVAILABLE_IN_1_0
FerryChannel *ferry_channel_new (const char *transport, const char *name, FerryRole role);

FERRY_AVAILABLE_IN_1_0
FerryChannel *ferry_channel_new_from_description (const char *description, FerryRole role, GError **error);

FERRY_AVAILABLE_IN_1_0
FerryChannel *ferry_channel_new_with_transport (FerryTransport *transport, FerryCodec *codec, FerryRole role);

FERRY_AVAILABLE_IN_1_0
gboolean ferry_channel_open (FerryChannel *self, GCancellable *cancellable, GError **error);

FERRY_AVAILABLE_IN_1_0
void ferry_channel_open_async (FerryChannel *self, int io_priority, GCancellable *cancellable,
                               GAsyncReadyCallback callback, gpointer user_data);

FERRY_AVAILABLE_IN_1_0
gboolean ferry_channel_open_finish (FerryChannel *self, GAsyncResult *result, GError **error);

FERRY_AVAILABLE_IN_1_0
gboolean ferry_channel_close (FerryChannel *self, GError **error);

FERRY_AVAILABLE_IN_1_0
gboolean ferry_channel_is_open (FerryChannel *self);

FERRY_AVAILABLE_IN_1_0
char *ferry_channel_to_description (FerryChannel *self);

FERRY_AVAILABLE_IN_1_0
FerryTransport *ferry_channel_get_transport_object (FerryChannel *self);

FERRY_AVAILABLE_IN_1_0
FerryCodec *ferry_channel_get_codec_object (FerryChannel *self);

/* Sending */

FERRY_AVAILABLE_IN_1_0
gboolean ferry_channel_send (FerryChannel *self, const guint8 *data, gsize size, gint64 timeout,
                             GCancellable *cancellable, GError **error);

FERRY_AVAILABLE_IN_1_0
gboolean ferry_channel_send_bytes (FerryChannel *self, GBytes *bytes, gint64 timeout, GCancellable *cancellable,
                                   GError **error);

FERRY_AVAILABLE_IN_1_0
void ferry_channel_send_bytes_async (FerryChannel *self, GBytes *bytes, int io_priority, GCancellable *cancellable,
                                     GAsyncReadyCallback callback, gpointer user_data);

FERRY_AVAILABLE_IN_1_0
gboolean ferry_channel_send_bytes_finish (FerryChannel *self, GAsyncResult *result, GError **error);

FERRY_AVAILABLE_IN_1_0
FerryBuffer *ferry_channel_loan (FerryChannel *self, gsize size, gint64 timeout, GCancellable *cancellable,
                                 GError **error);

FERRY_AVAILABLE_IN_1_0
FerryBuffer *ferry_channel_loan_tensor (FerryChannel *self, const char *format, const gint64 *shape, guint n_dimensions,
                                        gint64 timeout, GCancellable *cancellable, FerryTensor **tensor,
                                        GError **error);

FERRY_AVAILABLE_IN_1_0
gboolean ferry_channel_send_buffer (FerryChannel *self, FerryBuffer *buffer, gint64 timeout, GCancellable *cancellable,
                                    GError **error);

FERRY_AVAILABLE_IN_1_0
gboolean ferry_channel_send_value (FerryChannel *self, const GValue *value, gint64 timeout, GCancellable *cancellable,
                                   GError **error);

FERRY_AVAILABLE_IN_1_0
gboolean ferry_channel_send_value_with_codec (FerryChannel *self, FerryCodec *codec, const GValue *value,
                                              gint64 timeout, GCancellable *cancellable, GError **error);

FERRY_AVAILABLE_IN_1_0
gboolean ferry_channel_send_encoded (FerryChannel *self, FerryCodec *codec, const guint8 *data, gsize size,
                                     gint64 timeout, GCancellable *cancellable, GError **error);

FERRY_AVAILABLE_IN_1_0
gboolean ferry_channel_send_variant (FerryChannel *self, GVariant *variant, gint64 timeout, GCancellable *cancellable,
                                     GError **error);

FERRY_AVAILABLE_IN_1_0
gboolean ferry_channel_end_of_stream (FerryChannel *self, GError **error);

FERRY_AVAILABLE_IN_1_0
gboolean ferry_channel_flush (FerryChannel *self, gint64 timeout, GCancellable *cancellable, GError **error);

FERRY_AVAILABLE_IN_1_0
gboolean ferry_channel_mark (FerryChannel *self, guint64 *mark, GError **error);

FERRY_AVAILABLE_IN_1_0
gboolean ferry_channel_flush_mark (FerryChannel *self, guint64 mark, gint64 timeout, GCancellable *cancellable,
                                   GError **error);

FERRY_AVAILABLE_IN_1_0
void ferry_channel_flush_async (FerryChannel *self, int io_priority, GCancellable *cancellable,
                                GAsyncReadyCallback callback, gpointer user_data);

FERRY_AVAILABLE_IN_1_0
gboolean ferry_channel_flush_finish (FerryChannel *self, GAsyncResult *result, GError **error);

FERRY_AVAILABLE_IN_1_0
gboolean ferry_channel_shut_down (FerryChannel *self, GError **error);

/* Receiving */

FERRY_AVAILABLE_IN_1_0
FerryBuffer *ferry_channel_receive (FerryChannel *self, gint64 timeout, GCancellable *cancellable, GError **error);

FERRY_AVAILABLE_IN_1_0
void ferry_channel_receive_async (FerryChannel *self, int io_priority, GCancellable *cancellable,
                                  GAsyncReadyCallback callback, gpointer user_data);

FERRY_AVAILABLE_IN_1_0
FerryBuffer *ferry_channel_receive_finish (FerryChannel *self, GAsyncResult *result, GError **error);

FERRY_AVAILABLE_IN_1_0
GBytes *ferry_channel_receive_bytes (FerryChannel *self, gint64 timeout, GCancellable *cancellable, GError **error);

FERRY_AVAILABLE_IN_1_0
gboolean ferry_channel_receive_value (FerryChannel *self, GValue *value, gint64 timeout, GCancellable *cancellable,
                                      GError **error);

FERRY_AVAILABLE_IN_1_0
GVariant *ferry_channel_receive_variant (FerryChannel *self, gint64 timeout, GCancellable *cancellable, GError **error);

FERRY_AVAILABLE_IN_1_0
void ferry_channel_add_codec (FerryChannel *self, FerryCodec *codec);

FERRY_AVAILABLE_IN_1_0
gboolean ferry_channel_decode (FerryChannel *self, FerryBuffer *buffer, GValue *value, GError **error);

/* Waiting */

FERRY_AVAILABLE_IN_1_0
gboolean ferry_channel_wait (FerryChannel *self, GIOCondition condition, gint64 timeout, GCancellable *cancellable,
                             GError **error);

FERRY_AVAILABLE_IN_1_0
int ferry_channel_get_fd (FerryChannel *self, GError **error);

FERRY_AVAILABLE_IN_1_0
GIOCondition ferry_channel_check (FerryChannel *self, GIOCondition condition);

FERRY_AVAILABLE_IN_1_0
GSource *ferry_channel_create_source (FerryChannel *self, GIOCondition condition, GCancellable *cancellable,
                                      GError **error);

/**
 * FerryChannelSourceFunc:
 * @channel: the channel
 * @condition: the condition that holds
 * @user_data: user data
 *
 * The callback of [method@Channel.create_source].
 *
 * Returns: %G_SOURCE_CONTINUE or %G_SOURCE_REMOVE
 *
 * Since: 1.0
 */
typedef gboolean (*FerryChannelSourceFunc) (FerryChannel *channel, GIOCondition condition, gpointer user_data);

FERRY_AVAILABLE_IN_1_0
void ferry_channel_dispatch_events (FerryChannel *self);

/* Looking */

FERRY_AVAILABLE_IN_1_0
FerryStatistics *ferry_channel_get_statistics (FerryChannel *self, GError **error);

FERRY_AVAILABLE_IN_1_0
GPtrArray *ferry_channel_list_participants (FerryChannel *self, GError **error);

FERRY_AVAILABLE_IN_1_0
gsize ferry_channel_trim (FerryChannel *self);

FERRY_AVAILABLE_IN_1_0
gboolean ferry_channel_verify (FerryChannel *self, GError **error);

G_END_DECLS
