/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "ferry-plugin.h"

G_BEGIN_DECLS

/* A process that looks at modules, so that one that crashes or hangs harms nobody. */
typedef struct _FerryScanHelper FerryScanHelper;

FerryScanHelper *ferry_scan_helper_new (void);

void ferry_scan_helper_free (FerryScanHelper *self);

G_DEFINE_AUTOPTR_CLEANUP_FUNC (FerryScanHelper, ferry_scan_helper_free)

FerryPlugin *ferry_scan_helper_scan (FerryScanHelper *self, const char *filename, GError **error);

G_END_DECLS
