/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#if !defined(FERRY_INSIDE) && !defined(FERRY_COMPILATION)
#error "Only <ferry.h> can be included directly."
#endif

#include "ferry-types.h"

G_BEGIN_DECLS

/**
 * FerryRank:
 * @FERRY_RANK_NONE: never chosen by itself, only when asked for by name
 * @FERRY_RANK_MARGINAL: works, but anything else is better
 * @FERRY_RANK_SECONDARY: good, not the first choice
 * @FERRY_RANK_PRIMARY: the first choice
 *
 * Named ranks. A rank is any number from 0 to %G_MAXINT; of several features that
 * could do a job the one with the highest rank is chosen.
 *
 * Since: 1.0
 */
typedef enum
{
  FERRY_RANK_NONE = 0,
  FERRY_RANK_MARGINAL = 64,
  FERRY_RANK_SECONDARY = 128,
  FERRY_RANK_PRIMARY = 256,
} FerryRank;

#define FERRY_TYPE_FEATURE (ferry_feature_get_type ())

FERRY_AVAILABLE_IN_1_0
G_DECLARE_DERIVABLE_TYPE (FerryFeature, ferry_feature, FERRY, FEATURE, GObject)

/**
 * FerryFeatureClass:
 * @parent_class: the parent class
 *
 * The class of features. Applications do not derive from it.
 *
 * Since: 1.0
 */
struct _FerryFeatureClass
{
  GObjectClass parent_class;

  /*< private >*/
  gpointer _reserved[4];
};

FERRY_AVAILABLE_IN_1_0
const char *ferry_feature_get_name (FerryFeature *self);

FERRY_AVAILABLE_IN_1_0
int ferry_feature_get_rank (FerryFeature *self);

FERRY_AVAILABLE_IN_1_0
const char *ferry_feature_get_plugin_name (FerryFeature *self);

FERRY_AVAILABLE_IN_1_0
const char *ferry_feature_get_description (FerryFeature *self);

FERRY_AVAILABLE_IN_1_0
const char *ferry_feature_get_reason (FerryFeature *self);

FERRY_AVAILABLE_IN_1_0
gboolean ferry_feature_load (FerryFeature *self, GError **error);

FERRY_AVAILABLE_IN_1_0
gboolean ferry_feature_is_loaded (FerryFeature *self);

FERRY_AVAILABLE_IN_1_0
GType ferry_feature_get_element_type (FerryFeature *self);

G_END_DECLS
