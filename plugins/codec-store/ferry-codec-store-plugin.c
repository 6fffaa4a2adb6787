/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ferry-store-codec.h"

static gboolean
init (FerryPlugin *plugin, GError **error)
{
  return ferry_plugin_register_codec (
      plugin, "store", FERRY_RANK_SECONDARY, FERRY_STORE_WIRE_NAME, FERRY_STORE_WIRE_VERSION,
      "Live objects of a store, by reference: FerryStoreReference", FERRY_TYPE_STORE_CODEC, error);
}

FERRY_PLUGIN_DEFINE (1, 0, codec_store, "References to live objects of stores", init, "1.0.0", "LGPL-2.1-or-later",
                     "Ferry")
