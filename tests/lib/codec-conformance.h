/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "ferry-test.h"

/*
 * What every codec must do, whoever wrote it. A test program describes the codec and gives
 * it some values; see tests/plugins/test-codec-conformance.c.
 */
typedef struct
{
  /* The name that the registry knows it by. */
  const char *name;

  /* Makes one; NULL: the default registry does. */
  FerryCodec *(*create) (void);

  /* Sample values to be sent: sample i is put into the unset value. */
  guint n_samples;
  void (*get_sample) (guint i, GValue *value);

  /* Whether a decoded value is what was sent, and makes the test fail if not. */
  void (*assert_equal) (const GValue *sent, const GValue *decoded);

  /* Looks at every part of a decoded value: this must not crash for what hostile bytes gave. */
  void (*walk) (const GValue *decoded);

  /* Where the payload of a decoded value is, when it is meant to lie in the message; NULL: the
   * codec copies, and a decoded value holds no message. */
  const guint8 *(*get_payload) (const GValue *decoded, gsize *size);

  /* Whether every message can be decoded. */
  gboolean total;
} CodecConformance;

int codec_conformance_run (const CodecConformance *codecs, guint n_codecs);
