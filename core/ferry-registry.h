/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#if !defined(FERRY_INSIDE) && !defined(FERRY_COMPILATION)
#error "Only <ferry.h> can be included directly."
#endif

#include "ferry-codec-factory.h"
#include "ferry-feature.h"
#include "ferry-plugin.h"
#include "ferry-transport-factory.h"
#include "ferry-types.h"

G_BEGIN_DECLS

#define FERRY_TYPE_REGISTRY (ferry_registry_get_type ())

FERRY_AVAILABLE_IN_1_0
G_DECLARE_FINAL_TYPE (FerryRegistry, ferry_registry, FERRY, REGISTRY, GObject)

FERRY_AVAILABLE_IN_1_0
FerryRegistry *ferry_registry_get_default (void);

FERRY_AVAILABLE_IN_1_0
FerryRegistry *ferry_registry_new (const char *const *paths, const char *cache_file);

FERRY_AVAILABLE_IN_1_0
const char *const *ferry_registry_get_paths (FerryRegistry *self);

FERRY_AVAILABLE_IN_1_0
const char *ferry_registry_get_cache_file (FerryRegistry *self);

FERRY_AVAILABLE_IN_1_0
gboolean ferry_registry_scan (FerryRegistry *self, GError **error);

FERRY_AVAILABLE_IN_1_0
gboolean ferry_registry_rescan (FerryRegistry *self, GError **error);

FERRY_AVAILABLE_IN_1_0
GPtrArray *ferry_registry_list_plugins (FerryRegistry *self);

FERRY_AVAILABLE_IN_1_0
GPtrArray *ferry_registry_list_features (FerryRegistry *self, GType type);

FERRY_AVAILABLE_IN_1_0
FerryPlugin *ferry_registry_find_plugin (FerryRegistry *self, const char *name);

FERRY_AVAILABLE_IN_1_0
FerryTransportFactory *ferry_registry_find_transport (FerryRegistry *self, const char *name);

FERRY_AVAILABLE_IN_1_0
FerryCodecFactory *ferry_registry_find_codec (FerryRegistry *self, const char *name);

FERRY_AVAILABLE_IN_1_0
FerryCodecFactory *ferry_registry_find_codec_by_wire_name (FerryRegistry *self, const char *wire_name,
                                                           guint wire_version);

FERRY_AVAILABLE_IN_1_0
FerryTransportFactory *ferry_registry_select_transport (FerryRegistry *self, FerryTransportCapabilities capabilities,
                                                        GError **error);

FERRY_AVAILABLE_IN_1_0
gboolean ferry_registry_register_transport (FerryRegistry *self, const char *name, int rank,
                                            FerryTransportCapabilities capabilities, const char *description,
                                            GType element_type, GError **error);

FERRY_AVAILABLE_IN_1_0
gboolean ferry_registry_register_codec (FerryRegistry *self, const char *name, int rank, const char *wire_name,
                                        guint wire_version, const char *description, GType element_type,
                                        GError **error);

FERRY_AVAILABLE_IN_1_0
FerryTransport *ferry_registry_create_transport (FerryRegistry *self, const char *name, GError **error);

FERRY_AVAILABLE_IN_1_0
FerryCodec *ferry_registry_create_codec (FerryRegistry *self, const char *name, GError **error);

G_END_DECLS
