/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <ferry.h>

G_BEGIN_DECLS

#define FERRY_STORE_WIRE_NAME "store"
#define FERRY_STORE_WIRE_VERSION (1)

#define FERRY_TYPE_STORE_CODEC (ferry_store_codec_get_type ())
G_DECLARE_FINAL_TYPE (FerryStoreCodec, ferry_store_codec, FERRY, STORE_CODEC, GObject)

G_END_DECLS
