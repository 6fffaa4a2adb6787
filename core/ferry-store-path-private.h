/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <gio/gio.h>

G_BEGIN_DECLS

/* Paths to values of a store: `cfg.servers[2]["a key"]`. */

typedef enum
{
  FERRY_PATH_NAME,  /* `.name`, or `["name"]`: a key that is a str, or an attribute */
  FERRY_PATH_INDEX, /* `[3]`: an index, or a key that is an integer */
  FERRY_PATH_KEY,   /* `[1.5]`, `[(1, "x")]`: any other key, as text of a GVariant */
  FERRY_PATH_END,   /* `[+]`: behind the last element */
} FerryPathKind;

typedef struct
{
  FerryPathKind kind;
  GVariant *key; /* NULL: FERRY_PATH_END */
  gint64 index;
  gsize end; /* where the step ends in the text, in bytes */
} FerryPathStep;

/* @label: of the store, for messages. @is_relative: it starts from an object, otherwise from the root. An empty path is no step. */
GArray *ferry_store_path_parse (const char *label, const char *path, gboolean is_relative, GError **error);

/* Appends the step that leads to @key. At the beginning of a path @key is a name of the root. */
void ferry_store_path_append (GString *path, GVariant *key);

G_END_DECLS
