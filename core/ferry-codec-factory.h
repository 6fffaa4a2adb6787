/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#if !defined(FERRY_INSIDE) && !defined(FERRY_COMPILATION)
#error "Only <ferry.h> can be included directly."
#endif

#include "ferry-codec.h"
#include "ferry-feature.h"
#include "ferry-types.h"

G_BEGIN_DECLS

#define FERRY_TYPE_CODEC_FACTORY (ferry_codec_factory_get_type ())

FERRY_AVAILABLE_IN_1_0
G_DECLARE_FINAL_TYPE (FerryCodecFactory, ferry_codec_factory, FERRY, CODEC_FACTORY, FerryFeature)

FERRY_AVAILABLE_IN_1_0
const char *ferry_codec_factory_get_wire_name (FerryCodecFactory *self);

FERRY_AVAILABLE_IN_1_0
guint ferry_codec_factory_get_wire_version (FerryCodecFactory *self);

FERRY_AVAILABLE_IN_1_0
gboolean ferry_codec_factory_can_decode (FerryCodecFactory *self, const char *wire_name, guint wire_version);

FERRY_AVAILABLE_IN_1_0
FerryCodec *ferry_codec_factory_create (FerryCodecFactory *self, GError **error);

G_END_DECLS
