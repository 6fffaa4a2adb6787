/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "ferry-codec.h"

G_BEGIN_DECLS

#define FERRY_TYPE_RAW_CODEC (ferry_raw_codec_get_type ())

G_DECLARE_FINAL_TYPE (FerryRawCodec, ferry_raw_codec, FERRY, RAW_CODEC, GObject)

G_END_DECLS
