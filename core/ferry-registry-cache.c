/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ferry-config.h"

#include "ferry-registry-cache-private.h"

#include "ferry-enum-types.h"
#include "ferry-plugin-private.h"

#include <string.h>
#ifdef __linux__
#include <sys/auxv.h>
#endif

/*
 * The cache is one JSON file:
 *
 *   { "format": 1, "library": "1.0.0",
 *     "files": { "/path/libferry-x.so":
 *                { "mtime": ns, "size": bytes, "inode": n, "plugin": { ... } } } }
 *
 * Nothing in it is trusted: a file of another format or library version, one that can't
 * be parsed and an entry that is not well-formed count as not being there, and what is
 * not there is scanned again.
 */

/* Raised when the meaning of a member changes. */
#define CACHE_FORMAT (1)

/* No cache comes near that; a bigger file is not ours. */
#define CACHE_MAX_BYTES (16 * 1024 * 1024)

#define NS_PER_S (G_GINT64_CONSTANT (1000000000))

static gint64
get_mtime (const GStatBuf *info)
{
#ifdef G_OS_UNIX
  return (gint64) info->st_mtim.tv_sec * NS_PER_S + info->st_mtim.tv_nsec;
#else
  return (gint64) info->st_mtime * NS_PER_S;
#endif
}

FerryCacheEntry *
ferry_cache_entry_new (const GStatBuf *info, FerryPlugin *plugin)
{
  FerryCacheEntry *self = g_new0 (FerryCacheEntry, 1);

  self->mtime = get_mtime (info);
  self->size = (gint64) info->st_size;
  self->inode = (gint64) info->st_ino;
  self->plugin = ferry_plugin_to_json (plugin);

  return self;
}

void
ferry_cache_entry_free (FerryCacheEntry *self)
{
  g_clear_pointer (&self->plugin, json_object_unref);
  g_free (self);
}

gboolean
ferry_cache_entry_is_valid (const FerryCacheEntry *self, const GStatBuf *info)
{
  return self->mtime == get_mtime (info) && self->size == (gint64) info->st_size
         && self->inode == (gint64) info->st_ino;
}

/* A member of another type than expected reads as missing. */

static JsonNode *
get_member (JsonObject *object, const char *member, JsonNodeType type)
{
  JsonNode *node = json_object_get_member (object, member);

  return node != NULL && json_node_get_node_type (node) == type ? node : NULL;
}

static const char *
get_string (JsonObject *object, const char *member)
{
  JsonNode *node = get_member (object, member, JSON_NODE_VALUE);

  return node != NULL && json_node_get_value_type (node) == G_TYPE_STRING ? json_node_get_string (node) : NULL;
}

static gint64
get_int (JsonObject *object, const char *member, gint64 min, gint64 max, gboolean *valid)
{
  JsonNode *node = get_member (object, member, JSON_NODE_VALUE);

  if (node == NULL || json_node_get_value_type (node) != G_TYPE_INT64 || json_node_get_int (node) < min
      || json_node_get_int (node) > max)
    {
      *valid = FALSE;
      return min;
    }

  return json_node_get_int (node);
}

static gboolean
feature_from_json (FerryPlugin *plugin, JsonObject *object)
{
  const char *kind = get_string (object, "kind");
  const char *name = get_string (object, "name");
  const char *description = get_string (object, "description");
  gboolean valid = TRUE;
  int rank = (int) get_int (object, "rank", 0, G_MAXINT, &valid);

  if (g_strcmp0 (kind, "transport") == 0)
    {
      guint capabilities = (guint) get_int (object, "capabilities", 0, G_MAXUINT, &valid);

      return valid && ferry_plugin_add_transport (plugin, name, rank, capabilities, description, NULL);
    }

  if (g_strcmp0 (kind, "codec") == 0)
    {
      guint version = (guint) get_int (object, "wire-version", 0, G_MAXUINT, &valid);
      const char *wire_name = get_string (object, "wire-name");

      return valid && ferry_plugin_add_codec (plugin, name, rank, wire_name, version, description, NULL);
    }

  return FALSE;
}

/* The plugin that ferry_plugin_to_json() described, or NULL if that is not well-formed. */
FerryPlugin *
ferry_plugin_from_json (const char *filename, JsonObject *object)
{
  g_autoptr (FerryPlugin) plugin = NULL;
  g_autoptr (GEnumClass) states = g_type_class_ref (FERRY_TYPE_PLUGIN_STATE);
  const char *nick = get_string (object, "state");
  const char *reason = get_string (object, "reason");
  GEnumValue *state = nick != NULL ? g_enum_get_value_by_nick (states, nick) : NULL;
  JsonNode *node = get_member (object, "features", JSON_NODE_ARRAY);
  JsonArray *features;

  if (state == NULL || node == NULL || (state->value != FERRY_PLUGIN_STATE_OK) != (reason != NULL))
    return NULL;

  plugin = ferry_plugin_new_known (filename, state->value, reason, get_string (object, "version"),
                                   get_string (object, "license"), get_string (object, "description"),
                                   get_string (object, "origin"));

  features = json_node_get_array (node);
  for (guint i = 0; i < json_array_get_length (features); i++)
    {
      JsonNode *feature = json_array_get_element (features, i);

      if (!JSON_NODE_HOLDS_OBJECT (feature) || !feature_from_json (plugin, json_node_get_object (feature)))
        return NULL;
    }

  return g_steal_pointer (&plugin);
}

GHashTable *
ferry_registry_cache_new (void)
{
  return g_hash_table_new_full (g_str_hash, g_str_equal, g_free, (GDestroyNotify) ferry_cache_entry_free);
}

static FerryCacheEntry *
entry_from_json (JsonNode *node)
{
  gboolean valid = TRUE;
  JsonObject *object;
  JsonNode *plugin;
  FerryCacheEntry entry = { 0 };

  if (!JSON_NODE_HOLDS_OBJECT (node))
    return NULL;

  object = json_node_get_object (node);
  entry.mtime = get_int (object, "mtime", G_MININT64, G_MAXINT64, &valid);
  entry.size = get_int (object, "size", G_MININT64, G_MAXINT64, &valid);
  entry.inode = get_int (object, "inode", G_MININT64, G_MAXINT64, &valid);
  plugin = get_member (object, "plugin", JSON_NODE_OBJECT);
  if (!valid || plugin == NULL)
    return NULL;

  entry.plugin = json_object_ref (json_node_get_object (plugin));
  return g_memdup2 (&entry, sizeof entry);
}

static JsonObject *
get_files (JsonNode *root)
{
  gboolean valid = TRUE;
  JsonObject *object;
  JsonNode *files;

  if (root == NULL || !JSON_NODE_HOLDS_OBJECT (root))
    return NULL;

  object = json_node_get_object (root);
  if (get_int (object, "format", 0, G_MAXINT64, &valid) != CACHE_FORMAT || !valid
      || g_strcmp0 (get_string (object, "library"), FERRY_PACKAGE_VERSION) != 0)
    return NULL;

  files = get_member (object, "files", JSON_NODE_OBJECT);
  return files != NULL ? json_node_get_object (files) : NULL;
}

/* The entries by path; none if there is no cache that can be used. */
GHashTable *
ferry_registry_cache_load (const char *filename)
{
  g_autoptr (GHashTable) cache = ferry_registry_cache_new ();
  g_autoptr (JsonParser) parser = NULL;
  g_autoptr (GError) error = NULL;
  g_autofree char *text = NULL;
  JsonObject *files;
  JsonObjectIter iter;
  const char *path;
  JsonNode *node;
  GStatBuf info;
  gsize length;

  if (g_stat (filename, &info) != 0 || !S_ISREG (info.st_mode) || info.st_size > CACHE_MAX_BYTES
      || !g_file_get_contents (filename, &text, &length, &error))
    {
      g_debug ("no plugin cache '%s'", filename);
      return g_steal_pointer (&cache);
    }

  parser = json_parser_new_immutable ();
  if (!json_parser_load_from_data (parser, text, (gssize) length, &error))
    {
      g_info ("the plugin cache '%s' is damaged and will be made anew: %s", filename, error->message);
      return g_steal_pointer (&cache);
    }

  files = get_files (json_parser_get_root (parser));
  if (files == NULL)
    {
      g_info ("the plugin cache '%s' is of another version and will be made anew", filename);
      return g_steal_pointer (&cache);
    }

  json_object_iter_init (&iter, files);
  while (json_object_iter_next (&iter, &path, &node))
    {
      FerryCacheEntry *entry = entry_from_json (node);
      char *unescaped;

      if (entry == NULL)
        continue;
      unescaped = g_uri_unescape_string (path, NULL);
      if (unescaped != NULL)
        g_hash_table_replace (cache, unescaped, entry);
      else
        ferry_cache_entry_free (entry);
    }

  return g_steal_pointer (&cache);
}

/* Writes all entries, atomically. */
gboolean
ferry_registry_cache_save (GHashTable *cache, const char *filename, GError **error)
{
  g_autoptr (JsonGenerator) generator = json_generator_new ();
  g_autoptr (JsonNode) root = json_node_new (JSON_NODE_OBJECT);
  g_autofree char *folder = g_path_get_dirname (filename);
  g_autofree char *text = NULL;
  JsonObject *top = json_object_new ();
  JsonObject *files = json_object_new ();
  GHashTableIter iter;
  gpointer path, value;
  gsize length;

  json_node_take_object (root, top);
  json_object_set_int_member (top, "format", CACHE_FORMAT);
  json_object_set_string_member (top, "library", FERRY_PACKAGE_VERSION);
  json_object_set_object_member (top, "files", files);

  g_hash_table_iter_init (&iter, cache);
  while (g_hash_table_iter_next (&iter, &path, &value))
    {
      const FerryCacheEntry *entry = value;
      JsonObject *object = json_object_new ();
      /* Paths are bytes, JSON is UTF-8. */
      g_autofree char *escaped = g_uri_escape_string (path, "/", TRUE);

      json_object_set_int_member (object, "mtime", entry->mtime);
      json_object_set_int_member (object, "size", entry->size);
      json_object_set_int_member (object, "inode", entry->inode);
      json_object_set_object_member (object, "plugin", json_object_ref (entry->plugin));
      json_object_set_object_member (files, escaped, object);
    }

  json_generator_set_root (generator, root);
  json_generator_set_pretty (generator, TRUE);
  text = json_generator_to_data (generator, &length);

  /* If this fails the next call says it. */
  (void) g_mkdir_with_parents (folder, 0700);
  return g_file_set_contents_full (filename, text, (gssize) length, G_FILE_SET_CONTENTS_CONSISTENT, 0600, error);
}

/* $FERRY_REGISTRY, or a file in the user's cache folder; NULL for a program that runs with
 * more rights than its user, who could have it overwrite any file. */
char *
ferry_registry_cache_default_filename (void)
{
  const char *variable = ferry_plugin_getenv ("FERRY_REGISTRY");

#ifdef __linux__
  if (getauxval (AT_SECURE) != 0)
    return NULL;
#endif

  if (variable != NULL && variable[0] != '\0')
    return g_canonicalize_filename (variable, NULL);

  /* One home folder may be shared by machines of several kinds. */
  return g_build_filename (g_get_user_cache_dir (), "ferry-1.0", "registry-" FERRY_HOST_CPU ".json", NULL);
}
