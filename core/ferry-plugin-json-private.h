/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <json-glib/json-glib.h>

#include "ferry-plugin.h"

G_BEGIN_DECLS

/* What the scanner says first, with its version. */
#define FERRY_SCANNER_GREETING "ferry-plugin-scanner "

JsonObject *ferry_plugin_to_json (FerryPlugin *plugin);

G_END_DECLS
