/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#if !defined(FERRY_INSIDE) && !defined(FERRY_COMPILATION)
#error "Only <ferry.h> can be included directly."
#endif

#include "ferry-feature.h"
#include "ferry-transport-factory.h"
#include "ferry-types.h"

G_BEGIN_DECLS

/**
 * FerryPluginState:
 * @FERRY_PLUGIN_STATE_OK: its features may be used
 * @FERRY_PLUGIN_STATE_UNAVAILABLE: a good plugin that can't work here: what it needs
 *   is missing, it declined, it lies in an unsafe place, or another one is used
 *   instead
 * @FERRY_PLUGIN_STATE_BLACKLISTED: a broken file: it crashed, hung, or is not a
 *   plugin that this library can load; not looked at again until the file changes
 *
 * Whether a plugin can be used.
 *
 * Since: 1.0
 */
typedef enum
{
  FERRY_PLUGIN_STATE_OK,
  FERRY_PLUGIN_STATE_UNAVAILABLE,
  FERRY_PLUGIN_STATE_BLACKLISTED,
} FerryPluginState;

#define FERRY_TYPE_PLUGIN (ferry_plugin_get_type ())

FERRY_AVAILABLE_IN_1_0
G_DECLARE_FINAL_TYPE (FerryPlugin, ferry_plugin, FERRY, PLUGIN, GObject)

/**
 * FERRY_PLUGIN_MAGIC:
 *
 * What the first word of a plugin's descriptor is: `FERY`.
 *
 * Since: 1.0
 */
#define FERRY_PLUGIN_MAGIC (0x46455259)

/**
 * FERRY_PLUGIN_ABI_VERSION:
 *
 * The version of the agreement between library and plugins: the descriptor, and the
 * class structures that plugins fill in. A plugin with another one is not loaded.
 *
 * Since: 1.0
 */
#define FERRY_PLUGIN_ABI_VERSION (1)

/**
 * FerryPluginInitFunc:
 * @plugin: the plugin, to register features with; it is valid during the call
 * @error: set when the plugin can't work here, for example because a device or a
 *   library is missing. The message becomes the reason that users see
 *
 * Registers the features of a plugin. Called when the plugin is scanned, in a helper
 * process, and when the first of its features is used. It does nothing else: no
 * threads, no files, no devices.
 *
 * Returns: whether the plugin can work
 *
 * Since: 1.0
 */
typedef gboolean (*FerryPluginInitFunc) (FerryPlugin *plugin, GError **error);

/**
 * FerryPluginDescriptor: (skip)
 * @magic: %FERRY_PLUGIN_MAGIC
 * @struct_size: size of this structure, in bytes
 * @abi_version: %FERRY_PLUGIN_ABI_VERSION
 * @major: the major API version of Ferry that the plugin was written for
 * @minor: the oldest minor version that it works with
 * @name: the plugin's name, with `_` for `-`; the one that its file's name tells
 * @description: what it offers, in one line
 * @init: registers the features
 * @version: the plugin's own version
 * @license: its license, as an SPDX expression
 * @origin: where it comes from, as a URL or a name
 *
 * What a plugin's module exports. Made by FERRY_PLUGIN_DEFINE().
 *
 * Since: 1.0
 */
typedef struct
{
  guint32 magic;
  guint32 struct_size;
  guint32 abi_version;
  guint16 major;
  guint16 minor;
  const char *name;
  const char *description;
  FerryPluginInitFunc init;
  const char *version;
  const char *license;
  const char *origin;

  /*< private >*/
  gpointer _reserved[4];
} FerryPluginDescriptor;

/**
 * FERRY_PLUGIN_DEFINE: (skip)
 * @ferry_major: the major API version of Ferry that the plugin is written for: 1
 * @ferry_minor: the oldest minor version that it works with
 * @plugin_name: the name as an identifier, `_` standing for `-`: the module
 *   `libferry-posix-shm.so` holds the plugin `posix_shm`
 * @plugin_description: what it offers, in one line
 * @init_func: a #FerryPluginInitFunc
 * @plugin_version: the plugin's own version
 * @plugin_license: its license, as an SPDX expression
 * @plugin_origin: where it comes from, as a URL or a name
 *
 * Defines the descriptor of a plugin: the one symbol that its module exports,
 * `ferry_plugin_<name>_desc`. Used once a plugin, at file scope.
 *
 * Since: 1.0
 */
#define FERRY_PLUGIN_DEFINE(ferry_major, ferry_minor, plugin_name, plugin_description, init_func, plugin_version,      \
                            plugin_license, plugin_origin)                                                             \
  _FERRY_PLUGIN_EXPORT const FerryPluginDescriptor ferry_plugin_##plugin_name##_desc;                                  \
  const FerryPluginDescriptor ferry_plugin_##plugin_name##_desc = {                                                    \
    FERRY_PLUGIN_MAGIC,                                                                                                \
    sizeof (FerryPluginDescriptor),                                                                                    \
    FERRY_PLUGIN_ABI_VERSION,                                                                                          \
    (ferry_major),                                                                                                     \
    (ferry_minor),                                                                                                     \
    #plugin_name,                                                                                                      \
    (plugin_description),                                                                                              \
    (init_func),                                                                                                       \
    (plugin_version),                                                                                                  \
    (plugin_license),                                                                                                  \
    (plugin_origin),                                                                                                   \
    { NULL, NULL, NULL, NULL },                                                                                        \
  };

#ifdef __cplusplus
#define _FERRY_PLUGIN_LINKAGE extern "C"
#else
#define _FERRY_PLUGIN_LINKAGE extern
#endif
#ifdef G_OS_WIN32
#define _FERRY_PLUGIN_EXPORT _FERRY_PLUGIN_LINKAGE __declspec(dllexport)
#else
#define _FERRY_PLUGIN_EXPORT _FERRY_PLUGIN_LINKAGE __attribute__ ((visibility ("default")))
#endif

FERRY_AVAILABLE_IN_1_0
FerryPlugin *ferry_plugin_new_from_file (const char *filename);

FERRY_AVAILABLE_IN_1_0
const char *ferry_plugin_get_name (FerryPlugin *self);

FERRY_AVAILABLE_IN_1_0
const char *ferry_plugin_get_filename (FerryPlugin *self);

FERRY_AVAILABLE_IN_1_0
const char *ferry_plugin_get_version (FerryPlugin *self);

FERRY_AVAILABLE_IN_1_0
const char *ferry_plugin_get_license (FerryPlugin *self);

FERRY_AVAILABLE_IN_1_0
const char *ferry_plugin_get_description (FerryPlugin *self);

FERRY_AVAILABLE_IN_1_0
const char *ferry_plugin_get_origin (FerryPlugin *self);

FERRY_AVAILABLE_IN_1_0
FerryPluginState ferry_plugin_get_state (FerryPlugin *self);

FERRY_AVAILABLE_IN_1_0
const char *ferry_plugin_get_reason (FerryPlugin *self);

FERRY_AVAILABLE_IN_1_0
gboolean ferry_plugin_is_loaded (FerryPlugin *self);

FERRY_AVAILABLE_IN_1_0
GPtrArray *ferry_plugin_list_features (FerryPlugin *self);

FERRY_AVAILABLE_IN_1_0
gboolean ferry_plugin_register_transport (FerryPlugin *self, const char *name, int rank,
                                          FerryTransportCapabilities capabilities, const char *description,
                                          GType element_type, GError **error);

FERRY_AVAILABLE_IN_1_0
gboolean ferry_plugin_register_codec (FerryPlugin *self, const char *name, int rank, const char *wire_name,
                                      guint wire_version, const char *description, GType element_type, GError **error);

G_END_DECLS
