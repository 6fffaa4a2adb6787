/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ferry-numpy-codec.h"

/* Codec python takes every Python object, this one only arrays: what `auto` asks first is that. */
static gboolean
init (FerryPlugin *plugin, GError **error)
{
  return ferry_plugin_register_codec (plugin, "numpy", FERRY_RANK_SECONDARY, FERRY_NUMPY_WIRE_NAME,
                                      FERRY_NUMPY_WIRE_VERSION, "Arrays: FerryTensor in C, numpy.ndarray in Python",
                                      FERRY_TYPE_NUMPY_CODEC, error);
}

FERRY_PLUGIN_DEFINE (1, 0, codec_numpy, "Arrays of numbers, for C and NumPy", init, "1.0.0", "LGPL-2.1-or-later",
                     "Ferry")
