/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "ferry-feature.h"
#include "ferry-plugin-private.h"

G_BEGIN_DECLS

void ferry_feature_setup (FerryFeature *self, FerryPluginModule *module, const char *name, int rank,
                          const char *description);

void ferry_feature_set_rank (FerryFeature *self, int rank);

void ferry_feature_set_reason (FerryFeature *self, const char *reason);

GObject *ferry_feature_create_element (FerryFeature *self, GError **error);

FerryTransportFactory *ferry_transport_factory_new (FerryPluginModule *module, const char *name, int rank,
                                                    FerryTransportCapabilities capabilities, const char *description);

FerryCodecFactory *ferry_codec_factory_new (FerryPluginModule *module, const char *name, int rank,
                                            const char *wire_name, guint wire_version, const char *description);

G_END_DECLS
