/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <glib/gstdio.h>

#include "ferry-codec-factory.h"
#include "ferry-plugin.h"
#include "ferry-transport-factory.h"

G_BEGIN_DECLS

/* The code of a plugin. Shared by the plugin and its features, which outlive a
 * registry that applications still hold features of. */
typedef struct _FerryPluginModule FerryPluginModule;

FerryPluginModule *ferry_plugin_module_ref (FerryPluginModule *self);

void ferry_plugin_module_unref (FerryPluginModule *self);

G_DEFINE_AUTOPTR_CLEANUP_FUNC (FerryPluginModule, ferry_plugin_module_unref)

const char *ferry_plugin_module_get_plugin_name (FerryPluginModule *self);

gboolean ferry_plugin_module_is_loaded (FerryPluginModule *self);

gboolean ferry_plugin_module_load (FerryPluginModule *self, GError **error);

GType ferry_plugin_module_get_element_type (FerryPluginModule *self, GType feature_type, const char *name);

FerryPlugin *ferry_plugin_new_static (const FerryPluginDescriptor *descriptor);

FerryPlugin *ferry_plugin_begin_program (const char *name, const char *description);

void ferry_plugin_end_program (FerryPlugin *self);

FerryPlugin *ferry_plugin_new_known (const char *filename, FerryPluginState state, const char *reason,
                                     const char *version, const char *license, const char *description,
                                     const char *origin);

gboolean ferry_plugin_add_transport (FerryPlugin *self, const char *name, int rank,
                                     FerryTransportCapabilities capabilities, const char *description, GError **error);

gboolean ferry_plugin_add_codec (FerryPlugin *self, const char *name, int rank, const char *wire_name,
                                 guint wire_version, const char *description, GError **error);

void ferry_plugin_set_state (FerryPlugin *self, FerryPluginState state, const char *reason);

char *ferry_plugin_name_from_filename (const char *filename);

char *ferry_plugin_check_safety (const char *path, const GStatBuf *info);

const char *ferry_plugin_getenv (const char *name);

G_END_DECLS
