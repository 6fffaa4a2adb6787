/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <ferry.h>

G_BEGIN_DECLS

/*
 * FerryPythonDecodeTo:
 * @FERRY_PYTHON_DECODE_TO_AUTO: objects when the thread that decodes holds Python's GIL, else variants
 * @FERRY_PYTHON_DECODE_TO_VARIANT: a GVariant, or a FerryTensor for a message that is one array
 * @FERRY_PYTHON_DECODE_TO_OBJECT: Python objects
 */
typedef enum
{
  FERRY_PYTHON_DECODE_TO_AUTO,
  FERRY_PYTHON_DECODE_TO_VARIANT,
  FERRY_PYTHON_DECODE_TO_OBJECT,
} FerryPythonDecodeTo;

#define FERRY_TYPE_PYTHON_DECODE_TO (ferry_python_decode_to_get_type ())

GType ferry_python_decode_to_get_type (void) G_GNUC_CONST;

#define FERRY_TYPE_PYTHON_CODEC (ferry_python_codec_get_type ())

G_DECLARE_FINAL_TYPE (FerryPythonCodec, ferry_python_codec, FERRY, PYTHON_CODEC, GObject)

G_END_DECLS
