/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "example-zlib-codec.h"

static gboolean
zlib_init (FerryPlugin *plugin, GError **error)
{
  return ferry_plugin_register_codec (plugin, "zlib", FERRY_RANK_MARGINAL, "zlib", 1, "Bytes, compressed by zlib",
                                      EXAMPLE_TYPE_ZLIB_CODEC, error);
}

FERRY_PLUGIN_DEFINE (1, 0, zlib, "A codec that compresses", zlib_init, "1.0", "LGPL-2.1-or-later",
                     "the examples of Ferry")
