/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "ferry-store-private.h"

G_BEGIN_DECLS

/* Values as they are read out of a store. */

/* GLib reads 128 levels of serialised data (G_VARIANT_MAX_RECURSION_DEPTH). A list has two: the array, and the `v` of
 * what is in it; a dict in a list one more. As codec python does it. */
#define FERRY_VARIANT_LEVELS_MAX (128)

/* Cells of leaves that say what an object is. */
enum
{
  FERRY_SHAPE_MODULE,
  FERRY_SHAPE_NAME,
  FERRY_SHAPE_FLAGS,
  FERRY_SHAPE_FIRST_FIELD,
};

/* Of the leaf of a named tuple: its class comes before. */
#define FERRY_NAMED_FIRST_ITEM (2)

/* A cell whose leaf is in private memory. */
typedef struct
{
  FerryCell cell;      /* OBJECT: a FerryRef */
  const guint8 *outer; /* the outermost leaf, a FerryLeaf */
  guint n_refs;        /* of it */
  FerryLeaf head;      /* of this leaf */
  gsize data;          /* offset in @outer of its data */
} FerryView;

static inline FerryCellTag
ferry_view_tag (const FerryView *self)
{
  return ferry_cell_tag (self->cell);
}

static inline gboolean
ferry_view_is_leaf (const FerryView *self, FerryLeafKind kind)
{
  return ferry_view_tag (self) == FERRY_CELL_LEAF && self->head.kind == kind;
}

static inline const guint8 *
ferry_view_data (const FerryView *self)
{
  return self->outer + self->data;
}

/* @leaf: (nullable): of @cell, if it has one. */
void ferry_view_init (FerryView *self, FerryCell cell, gconstpointer leaf);

/* How many cells a leaf of cells has: they end where the first leaf begins. FALSE: nonsense. */
gboolean ferry_view_count (const FerryView *self, gsize *n);

/* Cell @i of a leaf that has more. FALSE: nonsense. */
gboolean ferry_view_item (const FerryView *self, gsize i, FerryView *item);

/* An integer of up to 64 bits, or a bool. */
gboolean ferry_view_get_int (const FerryView *self, gint64 *number);
gboolean ferry_view_get_double (const FerryView *self, double *number);

/* The bytes of a short str or bytes. */
gsize ferry_view_inline_data (FerryCell cell, guint8 data[FERRY_CELL_INLINE_MAX]);

/* Of a str: UTF-8, surrogates included. NULL: it is none. */
GString *ferry_view_get_text (const FerryView *self, gboolean *is_text);

/* Whether it is this str. */
gboolean ferry_view_is_text (const FerryView *self, const char *other);

/* Whether two keys are equal as in Python. */
gboolean ferry_views_equal (const FerryView *a, const FerryView *b, guint depth);

/* The name that Python has for it; NULL: of no known kind. */
const char *ferry_object_type_name (FerryObjectKind kind);
const char *ferry_view_type_name (const FerryView *value);

/* The description of a record's class, and how many cells it has. */
gboolean ferry_view_read_shape (FerryStore *self, FerryRef record, FerryReading *reading, FerryView *shape, gsize *n,
                                GError **error);

/* With its article, for messages. */
char *ferry_view_describe_type (FerryStore *store, const FerryView *value);

G_END_DECLS
