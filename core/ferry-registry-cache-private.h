/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <glib/gstdio.h>

#include "ferry-plugin-json-private.h"
#include "ferry-plugin.h"

G_BEGIN_DECLS

/* What is known of a file, and what the file was like when that was found out. */
typedef struct
{
  gint64 mtime; /* nanoseconds */
  gint64 size;
  gint64 inode;
  JsonObject *plugin;
} FerryCacheEntry;

FerryCacheEntry *ferry_cache_entry_new (const GStatBuf *info, FerryPlugin *plugin);

void ferry_cache_entry_free (FerryCacheEntry *self);

gboolean ferry_cache_entry_is_valid (const FerryCacheEntry *self, const GStatBuf *info);

FerryPlugin *ferry_plugin_from_json (const char *filename, JsonObject *object);

GHashTable *ferry_registry_cache_new (void);

GHashTable *ferry_registry_cache_load (const char *filename);

gboolean ferry_registry_cache_save (GHashTable *cache, const char *filename, GError **error);

char *ferry_registry_cache_default_filename (void);

G_END_DECLS
