/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <ferry.h>

G_BEGIN_DECLS

#define EXAMPLE_TYPE_ZLIB_CODEC (example_zlib_codec_get_type ())

G_DECLARE_FINAL_TYPE (ExampleZlibCodec, example_zlib_codec, EXAMPLE, ZLIB_CODEC, GObject)

G_END_DECLS
