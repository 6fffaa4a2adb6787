/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ferry-python-codec.h"
#include "ferry-python-stream.h"

/* Behind the codecs that know their values better: this one takes every Python object. */
static gboolean
init (FerryPlugin *plugin, GError **error)
{
  return ferry_plugin_register_codec (plugin, "python", FERRY_RANK_MARGINAL, FERRY_PYTHON_WIRE_NAME,
                                      FERRY_PYTHON_WIRE_VERSION, "Any object of Python, GVariant and tensors in C",
                                      FERRY_TYPE_PYTHON_CODEC, error);
}

FERRY_PLUGIN_DEFINE (1, 0, codec_python, "Objects of Python", init, "1.0.0", "LGPL-2.1-or-later", "Ferry")
