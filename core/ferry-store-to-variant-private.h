/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "ferry-store-view-private.h"

G_BEGIN_DECLS

/* Of keys and values in turn; floating. */
GVariant *ferry_variant_make_dict (const GPtrArray *items);

/* A full reference. */
GVariant *ferry_view_to_variant (FerryStore *store, const FerryView *value, GError **error);

/* As this library gives it: whatever integers, strings and containers it is made of. A full reference. */
GVariant *ferry_variant_normalize (GVariant *variant);

/* The attributes of a record that are set, by name; NULL: error. */
GPtrArray *ferry_store_attributes (FerryStore *self, FerryRef ref, GError **error);

G_END_DECLS
