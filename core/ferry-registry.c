/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ferry-config.h"

#include "ferry-registry.h"

#include "ferry-enum-types.h"
#include "ferry-error.h"
#include "ferry-feature-private.h"
#include "ferry-gvariant-codec-private.h"
#include "ferry-nearest-private.h"
#include "ferry-plugin-private.h"
#include "ferry-raw-codec-private.h"
#include "ferry-registry-cache-private.h"
#include "ferry-scan-helper-private.h"

#include <dirent.h>
#include <string.h>

/**
 * FerryRegistry:
 *
 * Knows all plugins, and their features.
 *
 * Plugins are searched in the folders that the environment variable
 * `FERRY_PLUGIN_PATH` names and then in the one where Ferry was installed, each with
 * its direct subfolders. A new file is looked at in a helper process, which may crash
 * or hang without harm; what was found is kept in a cache. No code of a plugin is loaded
 * before one of its features is used.
 *
 * Programs use the one of [func@Registry.get_default]. It looks for plugins when it is
 * first asked for something.
 *
 * All functions may be called from any thread.
 *
 * Since: 1.0
 */

struct _FerryRegistry
{
  GObject parent_instance;

  char **paths;
  char *cache_file;

  GMutex lock;
  gboolean is_loaded;
  gboolean has_retried;
  GHashTable *cache;
  GPtrArray *plugins;
  GPtrArray *features; /* the ones in use, best rank first */
  GHashTable *warned;  /* paths */
  GPtrArray *registrations;
};

/* What the program itself offers. Kept, as each refresh makes new plugins. */
typedef struct
{
  GType feature_type;
  char *name;
  int rank;
  FerryTransportCapabilities capabilities; /* of a transport */
  char *wire_name;                         /* of a codec */
  guint wire_version;
  char *description;
  GType element_type;
} Registration;

typedef enum
{
  REFRESH_CHANGED,     /* scan new and changed files */
  REFRESH_UNAVAILABLE, /* scan plugins that were unavailable too */
  REFRESH_ALL,         /* scan all files */
} Refresh;

typedef struct
{
  char *path;
  char *danger;
  GStatBuf info;
} ModuleFile;

typedef struct
{
  FerryRegistry *registry;
  Refresh refresh;
  FerryScanHelper *helper;
  GHashTable *names; /* plugin name -> plugin that is ok */
  GPtrArray *plugins;
  gboolean cache_changed;
  GError *error;
} Scan;

G_DEFINE_FINAL_TYPE (FerryRegistry, ferry_registry, G_TYPE_OBJECT)

/* The codecs of the library itself */

static gboolean
core_init (FerryPlugin *plugin, GError **error)
{
  return ferry_plugin_register_codec (plugin, "raw", FERRY_RANK_SECONDARY, "raw", 1, "Bytes as they are",
                                      FERRY_TYPE_RAW_CODEC, error)
         && ferry_plugin_register_codec (plugin, "gvariant", FERRY_RANK_PRIMARY, "gvariant", 1,
                                         "GVariant, and basic types as GVariant", FERRY_TYPE_GVARIANT_CODEC, error);
}

static const FerryPluginDescriptor core_descriptor = {
  .magic = FERRY_PLUGIN_MAGIC,
  .struct_size = sizeof (FerryPluginDescriptor),
  .abi_version = FERRY_PLUGIN_ABI_VERSION,
  .major = FERRY_MAJOR_VERSION,
  .minor = FERRY_MINOR_VERSION,
  .name = "core",
  .description = "What needs no plugin",
  .init = core_init,
  .version = FERRY_PACKAGE_VERSION,
  .license = "LGPL-2.1-or-later",
  .origin = "Ferry",
};

static void
registration_free (Registration *self)
{
  g_free (self->name);
  g_free (self->wire_name);
  g_free (self->description);
  g_free (self);
}

static FerryPlugin *
registration_make_plugin (const Registration *self, GError **error)
{
  g_autoptr (FerryPlugin) plugin = ferry_plugin_begin_program (self->name, self->description);
  gboolean ok;

  if (self->feature_type == FERRY_TYPE_CODEC_FACTORY)
    ok = ferry_plugin_register_codec (plugin, self->name, self->rank, self->wire_name, self->wire_version,
                                      self->description, self->element_type, error);
  else
    ok = ferry_plugin_register_transport (plugin, self->name, self->rank, self->capabilities, self->description,
                                          self->element_type, error);
  if (!ok)
    return NULL;
  ferry_plugin_end_program (plugin);
  return g_steal_pointer (&plugin);
}

static void
module_file_free (ModuleFile *self)
{
  g_free (self->path);
  g_free (self->danger);
  g_free (self);
}

static void
ferry_registry_finalize (GObject *object)
{
  FerryRegistry *self = FERRY_REGISTRY (object);

  g_clear_pointer (&self->paths, g_strfreev);
  g_clear_pointer (&self->cache_file, g_free);
  g_clear_pointer (&self->cache, g_hash_table_unref);
  g_clear_pointer (&self->plugins, g_ptr_array_unref);
  g_clear_pointer (&self->features, g_ptr_array_unref);
  g_clear_pointer (&self->warned, g_hash_table_unref);
  g_clear_pointer (&self->registrations, g_ptr_array_unref);
  g_mutex_clear (&self->lock);

  G_OBJECT_CLASS (ferry_registry_parent_class)->finalize (object);
}

static void
ferry_registry_class_init (FerryRegistryClass *klass)
{
  GObjectClass *object_class = G_OBJECT_CLASS (klass);

  object_class->finalize = ferry_registry_finalize;
}

static void
ferry_registry_init (FerryRegistry *self)
{
  g_mutex_init (&self->lock);
  self->plugins = g_ptr_array_new_with_free_func (g_object_unref);
  self->features = g_ptr_array_new_with_free_func (g_object_unref);
  self->warned = g_hash_table_new_full (g_str_hash, g_str_equal, g_free, NULL);
  self->registrations = g_ptr_array_new_with_free_func ((GDestroyNotify) registration_free);
}

/* Finding files */

static void
warn_once (FerryRegistry *self, const char *path, const char *danger)
{
  if (g_hash_table_add (self->warned, g_strdup (path)))
    g_warning ("plugins not loaded: %s", danger);
}

static int
compare_strings (gconstpointer a, gconstpointer b)
{
  return strcmp (*(const char *const *) a, *(const char *const *) b);
}

/* Adds the modules in a folder, sorted by name, and if wanted those of its subfolders. */
static void
list_folder (FerryRegistry *self, const char *folder, gboolean with_subfolders, GPtrArray *files)
{
  g_autoptr (GPtrArray) names = g_ptr_array_new_with_free_func (g_free);
  g_autoptr (GPtrArray) subfolders = g_ptr_array_new_with_free_func (g_free);
  g_autofree char *danger = NULL;
  struct dirent *dirent;
  GStatBuf info;
  DIR *dir;

  if (g_stat (folder, &info) != 0 || !S_ISDIR (info.st_mode) || (dir = opendir (folder)) == NULL)
    {
      g_debug ("no plugin folder '%s'", folder);
      return;
    }
  danger = ferry_plugin_check_safety (folder, &info);

  while ((dirent = readdir (dir)) != NULL)
    {
      g_autofree char *plugin_name = NULL;

      if (dirent->d_name[0] == '.')
        continue;
      plugin_name = ferry_plugin_name_from_filename (dirent->d_name);
      if (plugin_name != NULL)
        g_ptr_array_add (names, g_strdup (dirent->d_name));
#ifdef DT_DIR
      else if (dirent->d_type != DT_DIR && dirent->d_type != DT_LNK && dirent->d_type != DT_UNKNOWN)
        continue;
#endif
      else if (with_subfolders)
        g_ptr_array_add (subfolders, g_strdup (dirent->d_name));
    }
  closedir (dir);

  g_ptr_array_sort (names, compare_strings);
  for (guint i = 0; i < names->len; i++)
    {
      g_autofree char *path = g_build_filename (folder, g_ptr_array_index (names, i), NULL);
      ModuleFile *file;

      if (g_stat (path, &info) != 0 || !S_ISREG (info.st_mode))
        continue;
      file = g_new0 (ModuleFile, 1);
      file->info = info;
      file->danger = danger != NULL ? g_strdup (danger) : ferry_plugin_check_safety (path, &info);
      if (file->danger != NULL)
        warn_once (self, danger != NULL ? folder : path, file->danger);
      file->path = g_steal_pointer (&path);
      g_ptr_array_add (files, file);
    }

  g_ptr_array_sort (subfolders, compare_strings);
  for (guint i = 0; i < subfolders->len; i++)
    {
      g_autofree char *path = g_build_filename (folder, g_ptr_array_index (subfolders, i), NULL);

      list_folder (self, path, FALSE, files);
    }
}

/* Whether a file of that path would be found in a folder of the search path. */
static gboolean
is_in_folder (const char *path, const char *folder)
{
  g_autofree char *parent = g_path_get_dirname (path);
  g_autofree char *grandparent = g_path_get_dirname (parent);

  return strcmp (parent, folder) == 0 || strcmp (grandparent, folder) == 0;
}

/* The files that the cache knows of, without a look at any folder. */
static void
list_cached (FerryRegistry *self, const char *folder, GPtrArray *files)
{
  g_autoptr (GList) paths = g_list_sort (g_hash_table_get_keys (self->cache), (GCompareFunc) strcmp);

  for (GList *l = paths; l != NULL; l = l->next)
    {
      const char *path = l->data;

      if (is_in_folder (path, folder))
        {
          ModuleFile *file = g_new0 (ModuleFile, 1);

          file->path = g_strdup (path);
          g_ptr_array_add (files, file);
        }
    }
}

/* Scanning */

static FerryPlugin *
take_from_cache (Scan *scan, const ModuleFile *file, gboolean trusted)
{
  const FerryCacheEntry *entry = g_hash_table_lookup (scan->registry->cache, file->path);
  g_autoptr (FerryPlugin) plugin = NULL;

  if (entry == NULL || (!trusted && !ferry_cache_entry_is_valid (entry, &file->info)))
    return NULL;

  plugin = ferry_plugin_from_json (file->path, entry->plugin);
  if (plugin == NULL || scan->refresh == REFRESH_ALL
      || (scan->refresh == REFRESH_UNAVAILABLE && ferry_plugin_get_state (plugin) == FERRY_PLUGIN_STATE_UNAVAILABLE))
    return NULL;

  return g_steal_pointer (&plugin);
}

static FerryPlugin *
scan_file (Scan *scan, const ModuleFile *file)
{
  g_autoptr (GError) error = NULL;
  FerryPlugin *plugin;

  /* Once without the helper is enough: each file would be the same disappointment. */
  if (scan->error == NULL)
    {
      g_debug ("scanning '%s'", file->path);
      if (scan->helper == NULL)
        scan->helper = ferry_scan_helper_new ();
      plugin = ferry_scan_helper_scan (scan->helper, file->path, &scan->error);
      if (plugin != NULL)
        {
          g_hash_table_replace (scan->registry->cache, g_strdup (file->path),
                                ferry_cache_entry_new (&file->info, plugin));
          scan->cache_changed = TRUE;
          return plugin;
        }
    }

  return ferry_plugin_new_known (file->path, FERRY_PLUGIN_STATE_UNAVAILABLE, scan->error->message, NULL, NULL, NULL,
                                 NULL);
}

static void
look_at_file (Scan *scan, const ModuleFile *file, gboolean trusted)
{
  g_autofree char *name = ferry_plugin_name_from_filename (file->path);
  FerryPlugin *same_name = g_hash_table_lookup (scan->names, name);
  FerryPlugin *plugin;

  if (same_name != NULL)
    {
      /* Two modules of one plugin would register the same types. */
      const char *other = ferry_plugin_get_filename (same_name);
      g_autofree char *reason = g_strdup_printf ("duplicate: there is a plugin '%s' already, %s, which comes first",
                                                 name, other != NULL ? other : "built in");

      plugin = ferry_plugin_new_known (file->path, FERRY_PLUGIN_STATE_UNAVAILABLE, reason, NULL, NULL, NULL, NULL);
    }
  else if (file->danger != NULL)
    {
      plugin
          = ferry_plugin_new_known (file->path, FERRY_PLUGIN_STATE_UNAVAILABLE, file->danger, NULL, NULL, NULL, NULL);
    }
  else
    {
      plugin = take_from_cache (scan, file, trusted);
      if (plugin == NULL)
        plugin = scan_file (scan, file);
      if (ferry_plugin_get_state (plugin) == FERRY_PLUGIN_STATE_OK)
        g_hash_table_insert (scan->names, g_strdup (name), plugin);
    }

  g_ptr_array_add (scan->plugins, plugin);
}

/* Forgets files that are gone; those of folders that are not searched now stay. */
static void
prune_cache (GHashTable *cache)
{
  GHashTableIter iter;
  gpointer path;

  g_hash_table_iter_init (&iter, cache);
  while (g_hash_table_iter_next (&iter, &path, NULL))
    if (!g_file_test (path, G_FILE_TEST_EXISTS))
      g_hash_table_iter_remove (&iter);
}

/* Choosing */

static gboolean
parse_rank (const char *text, int *rank)
{
  g_autoptr (GEnumClass) ranks = g_type_class_ref (FERRY_TYPE_RANK);
  const GEnumValue *value = g_enum_get_value_by_nick (ranks, text);
  guint64 number;

  if (value != NULL)
    {
      *rank = value->value;
      return TRUE;
    }
  if (!g_ascii_string_to_unsigned (text, 10, 0, G_MAXINT, &number, NULL))
    return FALSE;

  *rank = (int) number;
  return TRUE;
}

/* Feature names and their ranks, from FERRY_FEATURE_RANK=name:rank,... */
static GHashTable *
parse_rank_overrides (void)
{
  const char *variable = g_getenv ("FERRY_FEATURE_RANK");
  GHashTable *overrides = g_hash_table_new_full (g_str_hash, g_str_equal, g_free, NULL);
  g_auto (GStrv) items = g_strsplit (variable != NULL ? variable : "", ",", -1);

  for (guint i = 0; items[i] != NULL; i++)
    {
      char *rank_text;
      int rank;

      if (g_strstrip (items[i])[0] == '\0')
        continue;

      rank_text = strchr (items[i], ':');
      if (rank_text != NULL)
        *rank_text++ = '\0';
      if (rank_text != NULL && items[i][0] != '\0' && parse_rank (rank_text, &rank))
        g_hash_table_replace (overrides, g_strdup (items[i]), GINT_TO_POINTER (rank));
      else
        g_warning ("FERRY_FEATURE_RANK: '%s%s%s' is not NAME:RANK with a number or one of none, marginal, secondary, "
                   "primary; it is ignored",
                   items[i], rank_text != NULL ? ":" : "", rank_text != NULL ? rank_text : "");
    }

  return overrides;
}

static const char *
get_kind (GType feature_type)
{
  return feature_type == FERRY_TYPE_CODEC_FACTORY ? "codec" : "transport";
}

static FerryFeature *
find_in (GPtrArray *features, GType type, const char *name)
{
  for (guint i = 0; i < features->len; i++)
    {
      FerryFeature *feature = g_ptr_array_index (features, i);

      if (G_OBJECT_TYPE (feature) == type && strcmp (ferry_feature_get_name (feature), name) == 0)
        return feature;
    }

  return NULL;
}

static void
set_loser (FerryFeature *loser, FerryFeature *winner)
{
  int rank = ferry_feature_get_rank (winner);
  g_autofree char *reason = NULL;

  if (rank > ferry_feature_get_rank (loser))
    reason = g_strdup_printf ("duplicate: plugin '%s' offers the %s '%s' too and has the higher rank, %d",
                              ferry_feature_get_plugin_name (winner), get_kind (G_OBJECT_TYPE (winner)),
                              ferry_feature_get_name (winner), rank);
  else
    reason = g_strdup_printf ("duplicate: plugin '%s' offers the %s '%s' too and comes first",
                              ferry_feature_get_plugin_name (winner), get_kind (G_OBJECT_TYPE (winner)),
                              ferry_feature_get_name (winner));
  ferry_feature_set_reason (loser, reason);
}

/* Of features with one name only the best is used. */
static void
add_in_use (GPtrArray *features, FerryFeature *feature)
{
  FerryFeature *other = find_in (features, G_OBJECT_TYPE (feature), ferry_feature_get_name (feature));

  if (other == NULL)
    {
      g_ptr_array_add (features, g_object_ref (feature));
    }
  else if (ferry_feature_get_rank (feature) > ferry_feature_get_rank (other))
    {
      set_loser (other, feature);
      g_ptr_array_remove (features, other);
      g_ptr_array_add (features, g_object_ref (feature));
    }
  else
    {
      set_loser (feature, other);
    }
}

/* A plugin none of whose features is in use is of no use itself. */
static void
mark_useless (FerryPlugin *plugin)
{
  g_autoptr (GPtrArray) features = ferry_plugin_list_features (plugin);
  const char *reason = NULL;

  for (guint i = 0; i < features->len; i++)
    {
      reason = ferry_feature_get_reason (g_ptr_array_index (features, i));
      if (reason == NULL)
        return;
    }

  if (reason != NULL)
    ferry_plugin_set_state (plugin, FERRY_PLUGIN_STATE_UNAVAILABLE, reason);
}

static int
compare_ranks (gconstpointer a, gconstpointer b)
{
  int rank_a = ferry_feature_get_rank (*(FerryFeature *const *) a);
  int rank_b = ferry_feature_get_rank (*(FerryFeature *const *) b);

  return (rank_a < rank_b) - (rank_a > rank_b);
}

static GPtrArray *
choose_features (GPtrArray *plugins)
{
  GPtrArray *in_use = g_ptr_array_new_with_free_func (g_object_unref);
  g_autoptr (GHashTable) overrides = parse_rank_overrides ();

  for (guint i = 0; i < plugins->len; i++)
    {
      FerryPlugin *plugin = g_ptr_array_index (plugins, i);
      g_autoptr (GPtrArray) features = ferry_plugin_list_features (plugin);

      if (ferry_plugin_get_state (plugin) != FERRY_PLUGIN_STATE_OK)
        continue;

      for (guint j = 0; j < features->len; j++)
        {
          FerryFeature *feature = g_ptr_array_index (features, j);
          gpointer rank;

          if (g_hash_table_lookup_extended (overrides, ferry_feature_get_name (feature), NULL, &rank))
            ferry_feature_set_rank (feature, GPOINTER_TO_INT (rank));
          add_in_use (in_use, feature);
        }
    }

  for (guint i = 0; i < plugins->len; i++)
    if (ferry_plugin_get_state (g_ptr_array_index (plugins, i)) == FERRY_PLUGIN_STATE_OK)
      mark_useless (g_ptr_array_index (plugins, i));

  /* It is stable: of equals the one that was found first stays first. */
  g_ptr_array_sort (in_use, compare_ranks);

  return in_use;
}

/* Loading */

static void
save_cache (FerryRegistry *self)
{
  g_autoptr (GError) error = NULL;

  prune_cache (self->cache);
  if (self->cache_file != NULL && !ferry_registry_cache_save (self->cache, self->cache_file, &error))
    g_info ("the plugin cache is not kept, so that each program looks at all plugins: %s", error->message);
}

/* With the lock. The plugins are complete even if this fails, then some are unavailable. */
static gboolean
refresh (FerryRegistry *self, Refresh what, GError **error)
{
  const char *update = ferry_plugin_getenv ("FERRY_REGISTRY_UPDATE");
  gboolean cached_only = FALSE;
  Scan scan = { .registry = self, .refresh = what };

  if (self->cache == NULL)
    self->cache = self->cache_file != NULL ? ferry_registry_cache_load (self->cache_file) : ferry_registry_cache_new ();

  if (what == REFRESH_CHANGED && g_strcmp0 (update, "force") == 0 && !self->is_loaded)
    scan.refresh = REFRESH_ALL;
  else if (what == REFRESH_CHANGED && g_strcmp0 (update, "no") == 0)
    cached_only = g_hash_table_size (self->cache) > 0;

  scan.names = g_hash_table_new_full (g_str_hash, g_str_equal, g_free, NULL);
  scan.plugins = g_ptr_array_new_with_free_func (g_object_unref);
  g_ptr_array_add (scan.plugins, ferry_plugin_new_static (&core_descriptor));
  g_hash_table_insert (scan.names, g_strdup (core_descriptor.name), g_ptr_array_index (scan.plugins, 0));

  /* They were made once, so nothing is wrong with them. */
  for (guint i = 0; i < self->registrations->len; i++)
    g_ptr_array_add (scan.plugins, registration_make_plugin (g_ptr_array_index (self->registrations, i), NULL));

  for (guint i = 0; self->paths[i] != NULL; i++)
    {
      g_autoptr (GPtrArray) files = g_ptr_array_new_with_free_func ((GDestroyNotify) module_file_free);

      if (cached_only)
        list_cached (self, self->paths[i], files);
      else
        list_folder (self, self->paths[i], TRUE, files);
      for (guint j = 0; j < files->len; j++)
        look_at_file (&scan, g_ptr_array_index (files, j), cached_only);
    }

  g_clear_pointer (&scan.helper, ferry_scan_helper_free);
  g_clear_pointer (&scan.names, g_hash_table_unref);
  if (scan.cache_changed)
    save_cache (self);

  g_ptr_array_unref (self->plugins);
  self->plugins = scan.plugins;
  g_ptr_array_unref (self->features);
  self->features = choose_features (self->plugins);
  self->is_loaded = TRUE;

  if (scan.error != NULL)
    {
      g_propagate_error (error, scan.error);
      return FALSE;
    }
  return TRUE;
}

/* With the lock. */
static void
ensure_loaded (FerryRegistry *self)
{
  g_autoptr (GError) error = NULL;

  if (!self->is_loaded && !refresh (self, REFRESH_CHANGED, &error))
    g_warning ("%s", error->message);
}

static char **
make_default_paths (void)
{
  const char *variable = ferry_plugin_getenv ("FERRY_PLUGIN_PATH");
  g_auto (GStrv) folders = g_strsplit (variable != NULL ? variable : "", G_SEARCHPATH_SEPARATOR_S, -1);
  g_autoptr (GStrvBuilder) paths = g_strv_builder_new ();

  for (guint i = 0; folders[i] != NULL; i++)
    if (folders[i][0] != '\0')
      g_strv_builder_add (paths, folders[i]);
  g_strv_builder_add (paths, FERRY_PLUGINSDIR);

  return g_strv_builder_end (paths);
}

static char **
canonicalize_paths (const char *const *paths)
{
  g_autoptr (GPtrArray) canonical = g_ptr_array_new_null_terminated (g_strv_length ((char **) paths) + 1, g_free, TRUE);

  for (guint i = 0; paths[i] != NULL; i++)
    {
      g_autofree char *path = g_canonicalize_filename (paths[i], NULL);

      /* A folder named twice would find each of its plugins to be a duplicate. */
      if (!g_ptr_array_find_with_equal_func (canonical, path, g_str_equal, NULL))
        g_ptr_array_add (canonical, g_steal_pointer (&path));
    }

  return (char **) g_ptr_array_steal (canonical, NULL);
}

/**
 * ferry_registry_get_default:
 *
 * Gets the registry of the process, which follows the environment variables
 * `FERRY_PLUGIN_PATH` and `FERRY_REGISTRY`.
 *
 * Returns: (transfer none): the registry
 *
 * Since: 1.0
 */
FerryRegistry *
ferry_registry_get_default (void)
{
  static FerryRegistry *registry;

  if (g_once_init_enter (&registry))
    {
      g_auto (GStrv) paths = make_default_paths ();
      g_autofree char *cache_file = ferry_registry_cache_default_filename ();

      g_once_init_leave (&registry, ferry_registry_new ((const char *const *) paths, cache_file));
    }

  return registry;
}

/**
 * ferry_registry_new:
 * @paths: (array zero-terminated=1): folders to search, with their direct subfolders
 * @cache_file: (nullable) (type filename): where to keep what was found; %NULL: nowhere
 *
 * Makes a registry of its own, for tests and tools. Channels use the one of
 * [func@Registry.get_default].
 *
 * Returns: (transfer full): a new registry, not yet scanned
 *
 * Since: 1.0
 */
FerryRegistry *
ferry_registry_new (const char *const *paths, const char *cache_file)
{
  FerryRegistry *self;

  g_return_val_if_fail (paths != NULL, NULL);

  self = g_object_new (FERRY_TYPE_REGISTRY, NULL);
  self->paths = canonicalize_paths (paths);
  self->cache_file = cache_file != NULL ? g_canonicalize_filename (cache_file, NULL) : NULL;

  return self;
}

/**
 * ferry_registry_get_paths:
 * @self: a registry
 *
 * Gets the folders that are searched, first to last.
 *
 * Returns: (transfer none) (array zero-terminated=1): the folders
 *
 * Since: 1.0
 */
const char *const *
ferry_registry_get_paths (FerryRegistry *self)
{
  g_return_val_if_fail (FERRY_IS_REGISTRY (self), NULL);

  return (const char *const *) self->paths;
}

/**
 * ferry_registry_get_cache_file:
 * @self: a registry
 *
 * Gets the path of the cache. It may be deleted at any time.
 *
 * Returns: (transfer none) (nullable) (type filename): the path, or %NULL if no cache is
 *   kept
 *
 * Since: 1.0
 */
const char *
ferry_registry_get_cache_file (FerryRegistry *self)
{
  g_return_val_if_fail (FERRY_IS_REGISTRY (self), NULL);

  return self->cache_file;
}

/**
 * ferry_registry_scan:
 * @self: a registry
 * @error: return location for an error
 *
 * Searches the folders again and scans the files that are new or have changed since they
 * were last scanned. Features that were got before stay as they were.
 *
 * Returns: %TRUE on success, whatever state the plugins are in; %FALSE with
 *   %FERRY_ERROR_PLUGIN if a file had to be scanned and the scanner can't be started
 *
 * Since: 1.0
 */
gboolean
ferry_registry_scan (FerryRegistry *self, GError **error)
{
  g_autoptr (GMutexLocker) locker = NULL;

  g_return_val_if_fail (FERRY_IS_REGISTRY (self), FALSE);
  g_return_val_if_fail (error == NULL || *error == NULL, FALSE);

  locker = g_mutex_locker_new (&self->lock);
  return refresh (self, REFRESH_CHANGED, error);
}

/**
 * ferry_registry_rescan:
 * @self: a registry
 * @error: return location for an error
 *
 * Searches the folders again and scans all files, also those that are known or
 * blacklisted. Features that were got before stay as they were.
 *
 * Returns: %TRUE on success, whatever state the plugins are in; %FALSE with
 *   %FERRY_ERROR_PLUGIN if a file had to be scanned and the scanner can't be started
 *
 * Since: 1.0
 */
gboolean
ferry_registry_rescan (FerryRegistry *self, GError **error)
{
  g_autoptr (GMutexLocker) locker = NULL;

  g_return_val_if_fail (FERRY_IS_REGISTRY (self), FALSE);
  g_return_val_if_fail (error == NULL || *error == NULL, FALSE);

  locker = g_mutex_locker_new (&self->lock);
  return refresh (self, REFRESH_ALL, error);
}

static gpointer
copy_ref (gconstpointer object, gpointer user_data)
{
  return g_object_ref ((gpointer) object);
}

/**
 * ferry_registry_list_plugins:
 * @self: a registry
 *
 * Lists all plugins that were found, in whatever state, in the order of the search; what
 * the library itself offers comes first, as plugin `core`.
 *
 * Returns: (transfer container) (element-type FerryPlugin): the plugins
 *
 * Since: 1.0
 */
GPtrArray *
ferry_registry_list_plugins (FerryRegistry *self)
{
  g_autoptr (GMutexLocker) locker = NULL;

  g_return_val_if_fail (FERRY_IS_REGISTRY (self), NULL);

  locker = g_mutex_locker_new (&self->lock);
  ensure_loaded (self);
  return g_ptr_array_copy (self->plugins, copy_ref, NULL);
}

/**
 * ferry_registry_list_features:
 * @self: a registry
 * @type: the type of the features: %FERRY_TYPE_TRANSPORT_FACTORY,
 *   %FERRY_TYPE_CODEC_FACTORY, or %FERRY_TYPE_FEATURE for all
 *
 * Lists the features that can be used, best rank first.
 *
 * Returns: (transfer container) (element-type FerryFeature): the features
 *
 * Since: 1.0
 */
GPtrArray *
ferry_registry_list_features (FerryRegistry *self, GType type)
{
  g_autoptr (GMutexLocker) locker = NULL;
  GPtrArray *features;

  g_return_val_if_fail (FERRY_IS_REGISTRY (self), NULL);
  g_return_val_if_fail (g_type_is_a (type, FERRY_TYPE_FEATURE), NULL);

  locker = g_mutex_locker_new (&self->lock);
  ensure_loaded (self);
  features = g_ptr_array_new_with_free_func (g_object_unref);
  for (guint i = 0; i < self->features->len; i++)
    {
      FerryFeature *feature = g_ptr_array_index (self->features, i);

      if (g_type_is_a (G_OBJECT_TYPE (feature), type))
        g_ptr_array_add (features, g_object_ref (feature));
    }

  return features;
}

/**
 * ferry_registry_find_plugin:
 * @self: a registry
 * @name: a plugin's name
 *
 * Finds the plugin of that name. If there are several, this is the one that is ok, or
 * else the first one.
 *
 * Returns: (transfer full) (nullable): the plugin, or %NULL if there is none
 *
 * Since: 1.0
 */
FerryPlugin *
ferry_registry_find_plugin (FerryRegistry *self, const char *name)
{
  g_autoptr (GMutexLocker) locker = NULL;
  FerryPlugin *found = NULL;

  g_return_val_if_fail (FERRY_IS_REGISTRY (self), NULL);
  g_return_val_if_fail (name != NULL, NULL);

  locker = g_mutex_locker_new (&self->lock);
  ensure_loaded (self);
  for (guint i = 0; i < self->plugins->len; i++)
    {
      FerryPlugin *plugin = g_ptr_array_index (self->plugins, i);

      if (strcmp (ferry_plugin_get_name (plugin), name) == 0
          && (found == NULL
              || (ferry_plugin_get_state (found) != FERRY_PLUGIN_STATE_OK
                  && ferry_plugin_get_state (plugin) == FERRY_PLUGIN_STATE_OK)))
        found = plugin;
    }

  return found != NULL ? g_object_ref (found) : NULL;
}

static FerryFeature *
find_feature (FerryRegistry *self, GType type, const char *name)
{
  g_autoptr (GMutexLocker) locker = g_mutex_locker_new (&self->lock);
  FerryFeature *feature;

  ensure_loaded (self);
  feature = find_in (self->features, type, name);

  return feature != NULL ? g_object_ref (feature) : NULL;
}

/**
 * ferry_registry_find_transport:
 * @self: a registry
 * @name: a transport's name, such as `memfd`
 *
 * Finds the transport of that name.
 *
 * Returns: (transfer full) (nullable): its factory, or %NULL if there is none that can
 *   be used
 *
 * Since: 1.0
 */
FerryTransportFactory *
ferry_registry_find_transport (FerryRegistry *self, const char *name)
{
  FerryFeature *feature;

  g_return_val_if_fail (FERRY_IS_REGISTRY (self), NULL);
  g_return_val_if_fail (name != NULL, NULL);

  feature = find_feature (self, FERRY_TYPE_TRANSPORT_FACTORY, name);
  return feature != NULL ? FERRY_TRANSPORT_FACTORY (feature) : NULL;
}

/**
 * ferry_registry_find_codec:
 * @self: a registry
 * @name: a codec's name, such as `gvariant`
 *
 * Finds the codec of that name.
 *
 * Returns: (transfer full) (nullable): its factory, or %NULL if there is none that can
 *   be used
 *
 * Since: 1.0
 */
FerryCodecFactory *
ferry_registry_find_codec (FerryRegistry *self, const char *name)
{
  FerryFeature *feature;

  g_return_val_if_fail (FERRY_IS_REGISTRY (self), NULL);
  g_return_val_if_fail (name != NULL, NULL);

  feature = find_feature (self, FERRY_TYPE_CODEC_FACTORY, name);
  return feature != NULL ? FERRY_CODEC_FACTORY (feature) : NULL;
}

/**
 * ferry_registry_find_codec_by_wire_name:
 * @self: a registry
 * @wire_name: the name that a message carries
 * @wire_version: the version that it carries
 *
 * Finds the codec that decodes such messages: of several the one with the highest rank.
 * Codecs of rank 0 are not considered, as those are only used when asked for by name.
 *
 * Returns: (transfer full) (nullable): its factory, or %NULL if there is none that can
 *   be used
 *
 * Since: 1.0
 */
FerryCodecFactory *
ferry_registry_find_codec_by_wire_name (FerryRegistry *self, const char *wire_name, guint wire_version)
{
  g_autoptr (GMutexLocker) locker = NULL;

  g_return_val_if_fail (FERRY_IS_REGISTRY (self), NULL);
  g_return_val_if_fail (wire_name != NULL, NULL);

  locker = g_mutex_locker_new (&self->lock);
  ensure_loaded (self);
  for (guint i = 0; i < self->features->len; i++)
    {
      FerryFeature *feature = g_ptr_array_index (self->features, i);

      if (FERRY_IS_CODEC_FACTORY (feature) && ferry_feature_get_rank (feature) > FERRY_RANK_NONE
          && ferry_codec_factory_can_decode (FERRY_CODEC_FACTORY (feature), wire_name, wire_version))
        return g_object_ref (FERRY_CODEC_FACTORY (feature));
    }

  return NULL;
}

static GPtrArray *
list_capable (FerryRegistry *self, FerryTransportCapabilities capabilities, GError **error)
{
  g_autoptr (GPtrArray) factories = ferry_registry_list_features (self, FERRY_TYPE_TRANSPORT_FACTORY);
  g_autofree char *wanted = NULL;

  for (guint i = factories->len; i > 0; i--)
    {
      FerryFeature *factory = g_ptr_array_index (factories, i - 1);

      if (ferry_feature_get_rank (factory) == FERRY_RANK_NONE
          || !ferry_transport_factory_has_capabilities (FERRY_TRANSPORT_FACTORY (factory), capabilities))
        g_ptr_array_remove_index (factories, i - 1);
    }
  if (factories->len > 0)
    return g_steal_pointer (&factories);

  wanted = g_flags_to_string (FERRY_TYPE_TRANSPORT_CAPABILITIES, capabilities);
  g_set_error (error, FERRY_ERROR, FERRY_ERROR_NO_SUCH_FEATURE,
               "there is no transport that can do what is asked for (%s); ferry-inspect tells which there are", wanted);
  return NULL;
}

/**
 * ferry_registry_select_transport:
 * @self: a registry
 * @capabilities: what it must be able to do
 * @error: return location for an error
 *
 * Finds the transport with the highest rank that can do all of that. Transports of rank 0
 * are not considered, as those are only used when asked for by name.
 *
 * Returns: (transfer full): its factory; %NULL with %FERRY_ERROR_NO_SUCH_FEATURE if
 *   there is none
 *
 * Since: 1.0
 */
FerryTransportFactory *
ferry_registry_select_transport (FerryRegistry *self, FerryTransportCapabilities capabilities, GError **error)
{
  g_autoptr (GPtrArray) factories = NULL;

  g_return_val_if_fail (FERRY_IS_REGISTRY (self), NULL);
  g_return_val_if_fail (error == NULL || *error == NULL, NULL);

  factories = list_capable (self, capabilities, error);
  return factories != NULL ? g_object_ref (g_ptr_array_index (factories, 0)) : NULL;
}

/* Errors that help */

static gboolean
offers (FerryPlugin *plugin, GType type, const char *name)
{
  g_autoptr (GPtrArray) features = NULL;

  if (strcmp (ferry_plugin_get_name (plugin), name) == 0)
    return TRUE;

  features = ferry_plugin_list_features (plugin);
  return find_in (features, type, name) != NULL;
}

/* With the lock: a plugin that can't be used and would offer the feature. */
static FerryPlugin *
find_culprit (FerryRegistry *self, GType type, const char *name)
{
  for (guint i = 0; i < self->plugins->len; i++)
    {
      FerryPlugin *plugin = g_ptr_array_index (self->plugins, i);

      if (ferry_plugin_get_state (plugin) != FERRY_PLUGIN_STATE_OK && offers (plugin, type, name))
        return plugin;
    }

  return NULL;
}

/* With the lock. */
static void
set_missing_error (FerryRegistry *self, GType type, const char *name, GError **error)
{
  const char *kind = get_kind (type);
  FerryPlugin *culprit = find_culprit (self, type, name);
  g_autofree char *printable = g_utf8_make_valid (name, -1);
  g_autoptr (GPtrArray) known = g_ptr_array_new ();
  g_autofree char *list = NULL;
  const char *nearest;

  if (culprit != NULL)
    {
      gboolean is_blacklisted = ferry_plugin_get_state (culprit) == FERRY_PLUGIN_STATE_BLACKLISTED;

      g_set_error (error, FERRY_ERROR, FERRY_ERROR_PLUGIN, "%s '%s': plugin '%s' is %s: %s: %s; %s", kind, printable,
                   ferry_plugin_get_name (culprit), is_blacklisted ? "blacklisted" : "unavailable",
                   ferry_plugin_get_filename (culprit), ferry_plugin_get_reason (culprit),
                   is_blacklisted ? "replace the file, or have it tried again with 'ferry-inspect --rescan'"
                                  : "mend that and try again");
      return;
    }

  for (guint i = 0; i < self->features->len; i++)
    if (G_OBJECT_TYPE (g_ptr_array_index (self->features, i)) == type)
      g_ptr_array_add (known, (gpointer) ferry_feature_get_name (g_ptr_array_index (self->features, i)));
  g_ptr_array_add (known, NULL);

  nearest = ferry_nearest_name (name, (const char *const *) known->pdata);
  list = g_strjoinv (", ", (char **) known->pdata);
  if (known->len == 1)
    g_set_error (error, FERRY_ERROR, FERRY_ERROR_NO_SUCH_FEATURE,
                 "there is no %s '%s', and no other either; FERRY_PLUGIN_PATH tells where plugins are", kind,
                 printable);
  else if (nearest != NULL)
    g_set_error (error, FERRY_ERROR, FERRY_ERROR_NO_SUCH_FEATURE,
                 "there is no %s '%s'; did you mean '%s'? (There are: %s)", kind, printable, nearest, list);
  else
    g_set_error (error, FERRY_ERROR, FERRY_ERROR_NO_SUCH_FEATURE, "there is no %s '%s'; there are: %s", kind, printable,
                 list);
}

static FerryFeature *
require_feature (FerryRegistry *self, GType type, const char *name, GError **error)
{
  g_autoptr (GMutexLocker) locker = g_mutex_locker_new (&self->lock);
  FerryFeature *feature;

  ensure_loaded (self);
  feature = find_in (self->features, type, name);

  /* What was missing when a plugin was scanned may have been installed since; that does not
   * show on the plugin's file. */
  if (feature == NULL && !self->has_retried)
    {
      self->has_retried = TRUE;
      refresh (self, REFRESH_UNAVAILABLE, NULL);
      feature = find_in (self->features, type, name);
    }

  if (feature == NULL)
    {
      set_missing_error (self, type, name, error);
      return NULL;
    }
  return g_object_ref (feature);
}

/* Takes the registration. */
static gboolean
add_registration (FerryRegistry *self, Registration *registration, GError **error)
{
  g_autoptr (GMutexLocker) locker = g_mutex_locker_new (&self->lock);
  g_autoptr (FerryPlugin) plugin = NULL;
  g_autoptr (GPtrArray) features = NULL;
  g_autoptr (GHashTable) overrides = NULL;
  FerryFeature *other;
  gpointer rank;

  ensure_loaded (self);
  plugin = registration_make_plugin (registration, error);
  if (plugin == NULL)
    {
      registration_free (registration);
      return FALSE;
    }
  other = find_in (self->features, registration->feature_type, registration->name);
  if (other != NULL)
    {
      g_set_error (error, FERRY_ERROR, FERRY_ERROR_INVALID_ARGUMENT,
                   "there is a %s '%s' already, of plugin '%s'; register yours under another name",
                   get_kind (registration->feature_type), registration->name, ferry_feature_get_plugin_name (other));
      registration_free (registration);
      return FALSE;
    }

  features = ferry_plugin_list_features (plugin);
  overrides = parse_rank_overrides ();
  if (g_hash_table_lookup_extended (overrides, registration->name, NULL, &rank))
    ferry_feature_set_rank (g_ptr_array_index (features, 0), GPOINTER_TO_INT (rank));
  g_ptr_array_add (self->registrations, registration);
  g_ptr_array_add (self->plugins, g_object_ref (plugin));
  g_ptr_array_add (self->features, g_object_ref (g_ptr_array_index (features, 0)));
  g_ptr_array_sort (self->features, compare_ranks);
  return TRUE;
}

/**
 * ferry_registry_register_transport:
 * @self: a registry
 * @name: the name that descriptions use: up to 64 bytes of `a-z`, `0-9` and `-`
 * @rank: how much it is preferred to others: 0 or more, see [enum@Rank]
 * @capabilities: what it can do
 * @description: what it is, in one line
 * @element_type: a type that implements [iface@Transport]
 * @error: return location for an error
 *
 * Registers a transport of the program itself, which is in no plugin's module: a class in another language for
 * example. It holds for this process and this registry, until the end.
 *
 * Returns: %TRUE on success; %FALSE with %FERRY_ERROR_INVALID_ARGUMENT if an argument is wrong or there is a
 *   transport of that name
 *
 * Since: 1.0
 */
gboolean
ferry_registry_register_transport (FerryRegistry *self, const char *name, int rank,
                                   FerryTransportCapabilities capabilities, const char *description, GType element_type,
                                   GError **error)
{
  Registration *registration;

  g_return_val_if_fail (FERRY_IS_REGISTRY (self), FALSE);
  g_return_val_if_fail (name != NULL, FALSE);
  g_return_val_if_fail (error == NULL || *error == NULL, FALSE);

  registration = g_new0 (Registration, 1);
  registration->feature_type = FERRY_TYPE_TRANSPORT_FACTORY;
  registration->name = g_strdup (name);
  registration->rank = rank;
  registration->capabilities = capabilities;
  registration->description = g_strdup (description);
  registration->element_type = element_type;
  return add_registration (self, registration, error);
}

/**
 * ferry_registry_register_codec:
 * @self: a registry
 * @name: the name that descriptions use: up to 64 bytes of `a-z`, `0-9` and `-`
 * @rank: how much it is preferred to others: 0 or more, see [enum@Rank]. One of rank 0
 *   decodes nothing unless it was asked for by name
 * @wire_name: the name that its messages carry: up to %FERRY_WIRE_NAME_MAX bytes of
 *   `a-z`, `0-9` and `-`
 * @wire_version: the version that its messages carry; it decodes this one and older
 *   ones
 * @description: what it is, in one line
 * @element_type: a type that implements [iface@Codec]
 * @error: return location for an error
 *
 * Registers a codec of the program itself, which is in no plugin's module: a class in another language for
 * example. It holds for this process and this registry, until the end.
 *
 * Returns: %TRUE on success; %FALSE with %FERRY_ERROR_INVALID_ARGUMENT if an argument is wrong or there is a
 *   codec of that name
 *
 * Since: 1.0
 */
gboolean
ferry_registry_register_codec (FerryRegistry *self, const char *name, int rank, const char *wire_name,
                               guint wire_version, const char *description, GType element_type, GError **error)
{
  Registration *registration;

  g_return_val_if_fail (FERRY_IS_REGISTRY (self), FALSE);
  g_return_val_if_fail (name != NULL, FALSE);
  g_return_val_if_fail (error == NULL || *error == NULL, FALSE);

  registration = g_new0 (Registration, 1);
  registration->feature_type = FERRY_TYPE_CODEC_FACTORY;
  registration->name = g_strdup (name);
  registration->rank = rank;
  registration->wire_name = g_strdup (wire_name);
  registration->wire_version = wire_version;
  registration->description = g_strdup (description);
  registration->element_type = element_type;
  return add_registration (self, registration, error);
}

/**
 * ferry_registry_create_transport:
 * @self: a registry
 * @name: (nullable): a transport's name, or %NULL for the one with the highest rank
 * @error: return location for an error
 *
 * Makes a transport. Without a name, one whose plugin can't be loaded is passed over.
 *
 * Returns: (transfer full): a new transport, not yet opened; %NULL with
 *   %FERRY_ERROR_NO_SUCH_FEATURE if there is none of that name, and with
 *   %FERRY_ERROR_PLUGIN if there is but its plugin can't be used
 *
 * Since: 1.0
 */
FerryTransport *
ferry_registry_create_transport (FerryRegistry *self, const char *name, GError **error)
{
  g_autoptr (FerryFeature) feature = NULL;
  g_autoptr (GPtrArray) factories = NULL;
  g_autoptr (GError) first_error = NULL;

  g_return_val_if_fail (FERRY_IS_REGISTRY (self), NULL);
  g_return_val_if_fail (error == NULL || *error == NULL, NULL);

  if (name != NULL)
    {
      feature = require_feature (self, FERRY_TYPE_TRANSPORT_FACTORY, name, error);
      return feature != NULL ? ferry_transport_factory_create (FERRY_TRANSPORT_FACTORY (feature), error) : NULL;
    }

  factories = list_capable (self, FERRY_TRANSPORT_CAPABILITIES_NONE, error);
  if (factories == NULL)
    return NULL;

  for (guint i = 0; i < factories->len; i++)
    {
      FerryTransport *transport = ferry_transport_factory_create (g_ptr_array_index (factories, i),
                                                                  first_error == NULL ? &first_error : NULL);

      if (transport != NULL)
        return transport;
    }

  g_propagate_error (error, g_steal_pointer (&first_error));
  return NULL;
}

/**
 * ferry_registry_create_codec:
 * @self: a registry
 * @name: a codec's name
 * @error: return location for an error
 *
 * Makes a codec.
 *
 * Returns: (transfer full): a new codec; %NULL with %FERRY_ERROR_NO_SUCH_FEATURE if
 *   there is none of that name, and with %FERRY_ERROR_PLUGIN if there is but its plugin
 *   can't be used
 *
 * Since: 1.0
 */
FerryCodec *
ferry_registry_create_codec (FerryRegistry *self, const char *name, GError **error)
{
  g_autoptr (FerryFeature) feature = NULL;

  g_return_val_if_fail (FERRY_IS_REGISTRY (self), NULL);
  g_return_val_if_fail (name != NULL, NULL);
  g_return_val_if_fail (error == NULL || *error == NULL, NULL);

  feature = require_feature (self, FERRY_TYPE_CODEC_FACTORY, name, error);
  return feature != NULL ? ferry_codec_factory_create (FERRY_CODEC_FACTORY (feature), error) : NULL;
}
