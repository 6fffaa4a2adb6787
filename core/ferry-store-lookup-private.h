/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "ferry-store-path-private.h"
#include "ferry-store-plan-private.h"

G_BEGIN_DECLS

/* A walk along a path; clear it in any case. */
typedef struct
{
  FerryStore *store;
  const char *path;
  GArray *steps; /* of FerryPathStep */
  gboolean at_root;
  gboolean is_relative; /* to an object, not to the root */
  FerryView value;
  FerryReading readings[2]; /* the current one has what @value is in, and holds what that refers to */
  guint current;
  gboolean holds;
  FerryPlan plan;     /* of the key looked for last */
  FerrySnapshot keys; /* where it was found among others */
} FerryLookup;

typedef enum
{
  FERRY_CHANGE_SET,
  FERRY_CHANGE_REMOVE,
  FERRY_CHANGE_ADD,
} FerryChange;

void ferry_lookup_clear (FerryLookup *self);
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC (FerryLookup, ferry_lookup_clear)

/* Says that there is nothing at step @n; always FALSE. */
gboolean ferry_lookup_not_there (const FerryLookup *self, guint n, GError **error);

/* All of the path; the value is then in @self. */
gboolean ferry_lookup_all (FerryLookup *self, FerryStore *store, FerryRef base, const char *path, GError **error);

/* All but the last step, of which there must be one. */
const FerryPathStep *ferry_lookup_parent (FerryLookup *self, FerryStore *store, FerryRef base, const char *path,
                                          GError **error);

/* Changes the last step in what was found. 1: done; what was set is taken over; 0: there is none; -1: error. */
int ferry_lookup_change (FerryLookup *self, const FerryPathStep *last, FerryChange change, FerryCell cell,
                         FerryReading *reading, GError **error);

/* Sets the last step, as above, to a cell that is ours; inside a stretch of work, which it ends. */
gboolean ferry_lookup_put (FerryLookup *self, const FerryPathStep *last, FerryCell cell, GError **error);

G_END_DECLS
