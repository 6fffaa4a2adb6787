/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <ferry.h>

G_BEGIN_DECLS

#define FERRY_NUMPY_WIRE_NAME "numpy"
#define FERRY_NUMPY_WIRE_VERSION (1)

typedef enum
{
  FERRY_NUMPY_DECODE_TO_AUTO,   /* an ndarray where the caller holds the GIL, otherwise a tensor */
  FERRY_NUMPY_DECODE_TO_TENSOR, /* a FerryTensor */
  FERRY_NUMPY_DECODE_TO_OBJECT, /* a numpy.ndarray */
} FerryNumpyDecodeTo;

#define FERRY_TYPE_NUMPY_DECODE_TO (ferry_numpy_decode_to_get_type ())
GType ferry_numpy_decode_to_get_type (void);

#define FERRY_TYPE_NUMPY_CODEC (ferry_numpy_codec_get_type ())
G_DECLARE_FINAL_TYPE (FerryNumpyCodec, ferry_numpy_codec, FERRY, NUMPY_CODEC, GObject)

G_END_DECLS
