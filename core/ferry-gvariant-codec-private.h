/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "ferry-codec.h"

G_BEGIN_DECLS

#define FERRY_TYPE_GVARIANT_CODEC (ferry_gvariant_codec_get_type ())

G_DECLARE_FINAL_TYPE (FerryGVariantCodec, ferry_gvariant_codec, FERRY, GVARIANT_CODEC, GObject)

G_END_DECLS
