/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "ferry-store-view-private.h"

G_BEGIN_DECLS

/* Something immutable on its way into the store: inline, or the bytes of a leaf with its head. */
typedef struct
{
  FerryCell cell;
  guint32 hash;
  gboolean hashable;
  GByteArray *bytes; /* NULL: inline */
  GArray *refs;      /* of FerryRef: references to objects that were made, ours */
  GArray *moved;     /* of gsize: where in @bytes cells with offsets of leaves are */
} FerryPlan;

void ferry_plan_clear (FerryPlan *self, FerryStore *store);

/* What is in variants and maybes: a full reference; NULL: nothing. */
GVariant *ferry_variant_unwrap (GVariant *variant);

/* Integers of whatever type. */
gboolean ferry_variant_get_int (GVariant *variant, gint64 *number);

/* @variant: (nullable): not wrapped, not mutable. Clear it in any case. */
gboolean ferry_plan_init (FerryPlan *self, FerryStore *store, GVariant *variant, guint levels, GError **error);

/* Inside a stretch of work. */
gboolean ferry_plan_make (FerryPlan *self, FerryStore *store, FerryCell *cell, GError **error);

/* The key for @variant; @plan is to be cleared in any case. */
gboolean ferry_plan_make_key (FerryStore *store, GVariant *variant, FerryPlan *plan, FerryKey *key, GError **error);

/* Inside a stretch of work. */
gboolean ferry_plan_make_cell (FerryStore *store, GVariant *variant, FerryCell *cell, guint levels, GError **error);

G_END_DECLS
