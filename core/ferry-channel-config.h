/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#if !defined(FERRY_INSIDE) && !defined(FERRY_COMPILATION)
#error "Only <ferry.h> can be included directly."
#endif

#include "ferry-enums.h"
#include "ferry-types.h"

G_BEGIN_DECLS

/**
 * FerryChannelConfig:
 * @name: (nullable): the channel's name, 1 to 200 bytes without `/`, not starting
 *   with a dot; %NULL for an anonymous channel
 * @role: sender or receiver
 * @mode: work queue or broadcast
 * @overflow: what a sender does when the channel is full
 * @wait_strategy: how to wait
 * @open_mode: create, join or either
 * @capacity: bound of messages in flight, 1 to 1048576; 0: the default, 256
 * @max_bytes: bound of the shared memory for payload in bytes; 0: half of the
 *   machine's memory
 * @history: messages that a broadcast channel keeps for receivers that join later, 0 to 65536
 * @inline_size: payload up to that many bytes travels inside the slot, 64 to 4040;
 *   0: the default, 200
 * @timestamps: whether senders stamp messages with the monotonic time
 * @join_settings: when joining, take mode, capacity, bounds and history from the
 *   channel instead of failing on a difference
 * @group: group id whose members may join too, or -1 for the owner only
 *
 * What a transport is asked to open. When it has been opened the fields tell what
 * the channel really has.
 *
 * Since: 1.0
 */
struct _FerryChannelConfig
{
  char *name;
  FerryRole role;
  FerryMode mode;
  FerryOverflow overflow;
  FerryWaitStrategy wait_strategy;
  FerryOpenMode open_mode;
  guint capacity;
  guint64 max_bytes;
  guint history;
  guint inline_size;
  gboolean timestamps;
  gboolean join_settings;
  gint64 group;

  /*< private >*/
  guint64 _reserved[8];
};

#define FERRY_TYPE_CHANNEL_CONFIG (ferry_channel_config_get_type ())

FERRY_AVAILABLE_IN_1_0
GType ferry_channel_config_get_type (void) G_GNUC_CONST;

FERRY_AVAILABLE_IN_1_0
FerryChannelConfig *ferry_channel_config_new (void);

FERRY_AVAILABLE_IN_1_0
FerryChannelConfig *ferry_channel_config_copy (const FerryChannelConfig *self);

FERRY_AVAILABLE_IN_1_0
void ferry_channel_config_free (FerryChannelConfig *self);

FERRY_AVAILABLE_IN_1_0
gboolean ferry_channel_config_validate (const FerryChannelConfig *self, GError **error);

G_DEFINE_AUTOPTR_CLEANUP_FUNC (FerryChannelConfig, ferry_channel_config_free)

G_END_DECLS
