/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ferry-config.h"

#include "ferry-plugin-private.h"

#include "ferry-enum-types.h"
#include "ferry-error.h"
#include "ferry-feature-private.h"
#include "ferry-transport.h"

#include <dlfcn.h>
#include <gmodule.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/**
 * FerryPlugin:
 *
 * A module that offers features, or tried to.
 *
 * The plugin NAME is the file `libferry-NAME.so` (other platforms: their own suffix),
 * which exports one symbol, made by FERRY_PLUGIN_DEFINE(). A plugin is *ok*,
 * *unavailable* or *blacklisted*, and if it is not ok it says why.
 *
 * Plugins don't change once the registry has given them out, so all functions but the
 * ones that register features may be called from any thread.
 *
 * Since: 1.0
 */

/* The longest name of a plugin or feature, in bytes. */
#define NAME_MAX_BYTES (64)

/* How each module file's name begins. */
#define FILE_PREFIX "libferry-"

struct _FerryPluginModule
{
  gatomicrefcount ref_count;
  char *plugin_name;
  char *filename;                          /* NULL for what the library itself offers */
  const FerryPluginDescriptor *descriptor; /* NULL until loaded */

  GMutex lock;
  GError *load_error; /* under the lock */
  int loaded;         /* written under the lock, after element_types is complete */
  GHashTable *element_types;
};

struct _FerryPlugin
{
  GObject parent_instance;

  FerryPluginModule *module;
  char *version;
  char *license;
  char *description;
  char *origin;
  char *reason;
  FerryPluginState state;
  GPtrArray *features;

  /* While the module's init function runs */
  gboolean registering;
  GError *register_error;
};

enum
{
  PROP_NAME = 1,
  PROP_FILENAME,
  PROP_VERSION,
  PROP_LICENSE,
  PROP_DESCRIPTION,
  PROP_ORIGIN,
  PROP_STATE,
  PROP_REASON,
  N_PROPERTIES,
};

static GParamSpec *properties[N_PROPERTIES];

G_DEFINE_FINAL_TYPE (FerryPlugin, ferry_plugin, G_TYPE_OBJECT)

/* Module */

static FerryPluginModule *
ferry_plugin_module_new (const char *plugin_name, const char *filename, const FerryPluginDescriptor *descriptor)
{
  FerryPluginModule *self = g_new0 (FerryPluginModule, 1);

  g_atomic_ref_count_init (&self->ref_count);
  g_mutex_init (&self->lock);
  self->plugin_name = g_strdup (plugin_name);
  self->filename = g_strdup (filename);
  self->descriptor = descriptor;
  self->element_types = g_hash_table_new_full (g_str_hash, g_str_equal, g_free, NULL);

  return self;
}

FerryPluginModule *
ferry_plugin_module_ref (FerryPluginModule *self)
{
  g_atomic_ref_count_inc (&self->ref_count);
  return self;
}

void
ferry_plugin_module_unref (FerryPluginModule *self)
{
  if (!g_atomic_ref_count_dec (&self->ref_count))
    return;

  g_clear_error (&self->load_error);
  g_hash_table_unref (self->element_types);
  g_mutex_clear (&self->lock);
  g_free (self->plugin_name);
  g_free (self->filename);
  g_free (self);
}

const char *
ferry_plugin_module_get_plugin_name (FerryPluginModule *self)
{
  return self->plugin_name;
}

gboolean
ferry_plugin_module_is_loaded (FerryPluginModule *self)
{
  /* Pairs with the release store in ferry_plugin_module_load_as(). */
  return g_atomic_int_get (&self->loaded);
}

static char *
element_key (GType feature_type, const char *name)
{
  return g_strdup_printf ("%s:%s", g_type_name (feature_type), name);
}

GType
ferry_plugin_module_get_element_type (FerryPluginModule *self, GType feature_type, const char *name)
{
  g_autofree char *key = NULL;

  if (!ferry_plugin_module_is_loaded (self))
    return G_TYPE_INVALID;

  /* Nobody writes the table any more. */
  key = element_key (feature_type, name);
  return (GType) GPOINTER_TO_SIZE (g_hash_table_lookup (self->element_types, key));
}

static gboolean fail (FerryPluginState *state, FerryPluginState value, GError **error, const char *format, ...)
    G_GNUC_PRINTF (4, 5);

static gboolean
fail (FerryPluginState *state, FerryPluginState value, GError **error, const char *format, ...)
{
  va_list args;

  va_start (args, format);
  *state = value;
  if (error != NULL)
    *error = g_error_new_valist (FERRY_ERROR, FERRY_ERROR_PLUGIN, format, args);
  va_end (args);

  return FALSE;
}

static gboolean
is_text (const char *string)
{
  return string != NULL && string[0] != '\0' && g_utf8_validate (string, -1, NULL);
}

/* Whether the name is 1 to NAME_MAX_BYTES bytes of a-z, 0-9 and -, and begins with a
 * letter or digit. */
static gboolean
is_name (const char *name)
{
  gsize length;

  if (name == NULL || name[0] == '-')
    return FALSE;

  length = strspn (name, "abcdefghijklmnopqrstuvwxyz0123456789-");
  return length > 0 && length <= NAME_MAX_BYTES && name[length] == '\0';
}

/* Checks every field; what is wrong is the reason that users see. */
static gboolean
check_descriptor (const FerryPluginDescriptor *descriptor, const char *plugin_name, FerryPluginState *state,
                  GError **error)
{
  const struct
  {
    const char *field;
    const char *value;
  } texts[] = {
    { "name", descriptor->name },       { "description", descriptor->description }, { "version", descriptor->version },
    { "license", descriptor->license }, { "origin", descriptor->origin },
  };
  g_autofree char *name = NULL;

  for (guint i = 0; i < G_N_ELEMENTS (texts); i++)
    if (!is_text (texts[i].value))
      return fail (state, FERRY_PLUGIN_STATE_BLACKLISTED, error, "its descriptor has no %s, or one that is not UTF-8",
                   texts[i].field);

  name = g_strdelimit (g_strdup (descriptor->name), "_", '-');
  if (strcmp (name, plugin_name) != 0)
    return fail (state, FERRY_PLUGIN_STATE_BLACKLISTED, error,
                 "wrong name: the plugin calls itself '%s', its file's name says '%s'", name, plugin_name);

  if (descriptor->init == NULL)
    return fail (state, FERRY_PLUGIN_STATE_BLACKLISTED, error, "its descriptor has no init function");

  if (descriptor->major != FERRY_MAJOR_VERSION || descriptor->minor > FERRY_MINOR_VERSION)
    return fail (state, FERRY_PLUGIN_STATE_UNAVAILABLE, error, "it is made for Ferry %u.%u, this is %d.%d",
                 descriptor->major, descriptor->minor, FERRY_MAJOR_VERSION, FERRY_MINOR_VERSION);

  return TRUE;
}

/* The fields that tell whether the others can be read. */
static gboolean
check_descriptor_layout (const FerryPluginDescriptor *descriptor, FerryPluginState *state, GError **error)
{
  if (descriptor->magic != FERRY_PLUGIN_MAGIC)
    return fail (state, FERRY_PLUGIN_STATE_BLACKLISTED, error,
                 "its descriptor begins with 0x%08x instead of 0x%08x; use FERRY_PLUGIN_DEFINE()", descriptor->magic,
                 FERRY_PLUGIN_MAGIC);

  if (descriptor->abi_version != FERRY_PLUGIN_ABI_VERSION)
    return fail (state, FERRY_PLUGIN_STATE_BLACKLISTED, error,
                 "wrong ABI version: it was built for plugin ABI %u, this library has %d; build it again",
                 descriptor->abi_version, FERRY_PLUGIN_ABI_VERSION);

  if (descriptor->struct_size != sizeof (FerryPluginDescriptor))
    return fail (state, FERRY_PLUGIN_STATE_BLACKLISTED, error,
                 "its descriptor has %u bytes instead of %" G_GSIZE_FORMAT "; build it again", descriptor->struct_size,
                 sizeof (FerryPluginDescriptor));

  return TRUE;
}

/* dlopen() says the same of a text file and of a library that it can't find; only one of
 * them is the file's own fault. */
static gboolean
check_is_shared_object (const char *filename, FerryPluginState *state, GError **error)
{
#ifdef __ELF__
  static const char magic[] = { 0x7f, 'E', 'L', 'F' };
  char begin[sizeof magic];
  FILE *file = g_fopen (filename, "rbe");
  gsize n_read;
  int saved_errno = errno;

  if (file == NULL)
    return fail (state, FERRY_PLUGIN_STATE_UNAVAILABLE, error, "it can't be opened: %s", g_strerror (saved_errno));

  n_read = fread (begin, 1, sizeof begin, file);
  fclose (file);
  if (n_read != sizeof begin || memcmp (begin, magic, sizeof magic) != 0)
    return fail (state, FERRY_PLUGIN_STATE_BLACKLISTED, error, "the file is not a shared object (no ELF header)");
#endif

  return TRUE;
}

static const FerryPluginDescriptor *
open_module_file (FerryPluginModule *self, FerryPluginState *state, GError **error)
{
  g_autofree char *folder = g_path_get_dirname (self->filename);
  g_autofree char *identifier = NULL;
  g_autofree char *symbol = NULL;
  g_autoptr (GError) module_error = NULL;
  const char *places[] = { folder, self->filename };
  GModule *module;
  gpointer address;

  if (!is_name (self->plugin_name))
    {
      fail (state, FERRY_PLUGIN_STATE_BLACKLISTED, error,
            "'%s' can't be a plugin's name: those are up to %d bytes of a-z, 0-9 and -", self->plugin_name,
            NAME_MAX_BYTES);
      return NULL;
    }

  for (guint i = 0; i < G_N_ELEMENTS (places); i++)
    {
      g_autofree char *danger = NULL;
      GStatBuf info;

      if (g_stat (places[i], &info) != 0)
        {
          int saved_errno = errno;

          fail (state, FERRY_PLUGIN_STATE_UNAVAILABLE, error, "'%s' can't be looked at: %s", places[i],
                g_strerror (saved_errno));
          return NULL;
        }
      danger = ferry_plugin_check_safety (places[i], &info);
      if (danger != NULL)
        {
          fail (state, FERRY_PLUGIN_STATE_UNAVAILABLE, error, "%s", danger);
          return NULL;
        }
    }

  if (!check_is_shared_object (self->filename, state, error))
    return NULL;

  /* Not lazily: a symbol that is missing is better found now than in the middle of a call. */
  module = g_module_open_full (self->filename, G_MODULE_BIND_LOCAL, &module_error);
  if (module == NULL)
    {
      fail (state, FERRY_PLUGIN_STATE_UNAVAILABLE, error, "it can't be loaded: %s", module_error->message);
      return NULL;
    }
  /* The types that it registers can't be taken back. */
  g_module_make_resident (module);

  identifier = g_strdelimit (g_strdup (self->plugin_name), "-", '_');
  symbol = g_strdup_printf ("ferry_plugin_%s_desc", identifier);
  if (!g_module_symbol (module, symbol, &address) || address == NULL)
    {
      fail (state, FERRY_PLUGIN_STATE_BLACKLISTED, error,
            "it has no symbol '%s': it is not a plugin of Ferry, or its file was renamed", symbol);
      return NULL;
    }
  if (!check_descriptor_layout (address, state, error) || !check_descriptor (address, self->plugin_name, state, error))
    return NULL;

  return address;
}

static gboolean
open_and_init (FerryPluginModule *self, FerryPlugin *plugin, FerryPluginState *state, GError **error)
{
  g_autoptr (GError) init_error = NULL;
  gboolean initialized;

  if (self->descriptor == NULL)
    {
      self->descriptor = open_module_file (self, state, error);
      if (self->descriptor == NULL)
        return FALSE;
    }

  plugin->registering = TRUE;
  initialized = self->descriptor->init (plugin, &init_error);
  plugin->registering = FALSE;

  /* A plugin that registers nonsense is broken, whether it looked at the result or not. */
  if (plugin->register_error != NULL)
    return fail (state, FERRY_PLUGIN_STATE_BLACKLISTED, error, "%s", plugin->register_error->message);

  if (!initialized)
    return fail (state, FERRY_PLUGIN_STATE_UNAVAILABLE, error, "%s",
                 init_error != NULL ? init_error->message : "its init function failed and did not say why");

  if (plugin->features->len == 0)
    return fail (state, FERRY_PLUGIN_STATE_BLACKLISTED, error, "it registers no feature");

  return TRUE;
}

/* Loads the module and lets it register its features with the plugin. */
static gboolean
ferry_plugin_module_load_as (FerryPluginModule *self, FerryPlugin *plugin, FerryPluginState *state, GError **error)
{
  g_autoptr (GMutexLocker) locker = g_mutex_locker_new (&self->lock);

  *state = FERRY_PLUGIN_STATE_OK;
  if (self->loaded)
    return TRUE;

  /* What went wrong once goes wrong again, and was perhaps left half done. */
  if (self->load_error == NULL && open_and_init (self, plugin, state, &self->load_error))
    {
      /* Pairs with the acquire load in ferry_plugin_module_is_loaded(). */
      g_atomic_int_set (&self->loaded, TRUE);
      return TRUE;
    }

  g_propagate_error (error, g_error_copy (self->load_error));
  return FALSE;
}

static FerryPlugin *
ferry_plugin_new (FerryPluginModule *module)
{
  FerryPlugin *self = g_object_new (FERRY_TYPE_PLUGIN, NULL);

  self->module = ferry_plugin_module_ref (module);
  return self;
}

gboolean
ferry_plugin_module_load (FerryPluginModule *self, GError **error)
{
  g_autoptr (FerryPlugin) plugin = NULL;
  FerryPluginState state;

  if (ferry_plugin_module_is_loaded (self))
    return TRUE;

  plugin = ferry_plugin_new (self);
  if (ferry_plugin_module_load_as (self, plugin, &state, error))
    return TRUE;

  g_prefix_error (error, "plugin '%s' (%s): ", self->plugin_name, self->filename != NULL ? self->filename : "built in");
  return FALSE;
}

/* Plugin */

static void
ferry_plugin_finalize (GObject *object)
{
  FerryPlugin *self = FERRY_PLUGIN (object);

  g_clear_pointer (&self->module, ferry_plugin_module_unref);
  g_clear_pointer (&self->version, g_free);
  g_clear_pointer (&self->license, g_free);
  g_clear_pointer (&self->description, g_free);
  g_clear_pointer (&self->origin, g_free);
  g_clear_pointer (&self->reason, g_free);
  g_clear_pointer (&self->features, g_ptr_array_unref);
  g_clear_error (&self->register_error);

  G_OBJECT_CLASS (ferry_plugin_parent_class)->finalize (object);
}

static void
ferry_plugin_get_property (GObject *object, guint prop_id, GValue *value, GParamSpec *pspec)
{
  FerryPlugin *self = FERRY_PLUGIN (object);

  switch (prop_id)
    {
    case PROP_NAME:
      g_value_set_string (value, self->module->plugin_name);
      break;
    case PROP_FILENAME:
      g_value_set_string (value, self->module->filename);
      break;
    case PROP_VERSION:
      g_value_set_string (value, self->version);
      break;
    case PROP_LICENSE:
      g_value_set_string (value, self->license);
      break;
    case PROP_DESCRIPTION:
      g_value_set_string (value, self->description);
      break;
    case PROP_ORIGIN:
      g_value_set_string (value, self->origin);
      break;
    case PROP_STATE:
      g_value_set_enum (value, self->state);
      break;
    case PROP_REASON:
      g_value_set_string (value, self->reason);
      break;
    default:
      G_OBJECT_WARN_INVALID_PROPERTY_ID (object, prop_id, pspec);
      break;
    }
}

static void
ferry_plugin_class_init (FerryPluginClass *klass)
{
  GObjectClass *object_class = G_OBJECT_CLASS (klass);

  object_class->finalize = ferry_plugin_finalize;
  object_class->get_property = ferry_plugin_get_property;

  /**
   * FerryPlugin:name:
   *
   * The plugin's name, as its file's name tells it.
   *
   * Since: 1.0
   */
  properties[PROP_NAME] = g_param_spec_string ("name", NULL, NULL, NULL, G_PARAM_READABLE | G_PARAM_STATIC_STRINGS);

  /**
   * FerryPlugin:filename:
   *
   * The path of the module, or %NULL for what the library itself offers.
   *
   * Since: 1.0
   */
  properties[PROP_FILENAME]
      = g_param_spec_string ("filename", NULL, NULL, NULL, G_PARAM_READABLE | G_PARAM_STATIC_STRINGS);

  /**
   * FerryPlugin:version:
   *
   * The plugin's own version, %NULL if it could not be read.
   *
   * Since: 1.0
   */
  properties[PROP_VERSION]
      = g_param_spec_string ("version", NULL, NULL, NULL, G_PARAM_READABLE | G_PARAM_STATIC_STRINGS);

  /**
   * FerryPlugin:license:
   *
   * The plugin's license, %NULL if it could not be read.
   *
   * Since: 1.0
   */
  properties[PROP_LICENSE]
      = g_param_spec_string ("license", NULL, NULL, NULL, G_PARAM_READABLE | G_PARAM_STATIC_STRINGS);

  /**
   * FerryPlugin:description:
   *
   * What the plugin offers, in one line, %NULL if it could not be read.
   *
   * Since: 1.0
   */
  properties[PROP_DESCRIPTION]
      = g_param_spec_string ("description", NULL, NULL, NULL, G_PARAM_READABLE | G_PARAM_STATIC_STRINGS);

  /**
   * FerryPlugin:origin:
   *
   * Where the plugin comes from, %NULL if it could not be read.
   *
   * Since: 1.0
   */
  properties[PROP_ORIGIN] = g_param_spec_string ("origin", NULL, NULL, NULL, G_PARAM_READABLE | G_PARAM_STATIC_STRINGS);

  /**
   * FerryPlugin:state:
   *
   * Whether the plugin can be used.
   *
   * Since: 1.0
   */
  properties[PROP_STATE] = g_param_spec_enum ("state", NULL, NULL, FERRY_TYPE_PLUGIN_STATE, FERRY_PLUGIN_STATE_OK,
                                              G_PARAM_READABLE | G_PARAM_STATIC_STRINGS);

  /**
   * FerryPlugin:reason:
   *
   * Why the plugin can't be used, %NULL if it can.
   *
   * Since: 1.0
   */
  properties[PROP_REASON] = g_param_spec_string ("reason", NULL, NULL, NULL, G_PARAM_READABLE | G_PARAM_STATIC_STRINGS);

  g_object_class_install_properties (object_class, N_PROPERTIES, properties);
}

static void
ferry_plugin_init (FerryPlugin *self)
{
  self->features = g_ptr_array_new_with_free_func (g_object_unref);
}

static void
take_descriptor (FerryPlugin *self)
{
  const FerryPluginDescriptor *descriptor = self->module->descriptor;

  if (descriptor == NULL)
    return;

  self->version = g_strdup (descriptor->version);
  self->license = g_strdup (descriptor->license);
  self->description = g_strdup (descriptor->description);
  self->origin = g_strdup (descriptor->origin);
}

static void
load_now (FerryPlugin *self)
{
  g_autoptr (GError) error = NULL;
  FerryPluginState state;

  if (!ferry_plugin_module_load_as (self->module, self, &state, &error))
    ferry_plugin_set_state (self, state, error->message);
  take_descriptor (self);
}

/* The library's own features: no module, and loaded at once. */
FerryPlugin *
ferry_plugin_new_static (const FerryPluginDescriptor *descriptor)
{
  g_autofree char *name = g_strdelimit (g_strdup (descriptor->name), "_", '-');
  g_autoptr (FerryPluginModule) module = ferry_plugin_module_new (name, NULL, descriptor);
  FerryPlugin *self = ferry_plugin_new (module);

  load_now (self);
  return self;
}

/* What a program registers itself: no module. Features are registered before ferry_plugin_end_program(). */
FerryPlugin *
ferry_plugin_begin_program (const char *name, const char *description)
{
  g_autoptr (FerryPluginModule) module = ferry_plugin_module_new (name, NULL, NULL);
  FerryPlugin *self = ferry_plugin_new (module);

  self->description = g_strdup (description);
  self->origin = g_strdup (g_get_prgname ());
  self->registering = TRUE;
  return self;
}

void
ferry_plugin_end_program (FerryPlugin *self)
{
  self->registering = FALSE;
  /* Pairs with the acquire load in ferry_plugin_module_is_loaded(). */
  g_atomic_int_set (&self->module->loaded, TRUE);
}

/* A plugin of which only the cache knows; its features are added next. */
FerryPlugin *
ferry_plugin_new_known (const char *filename, FerryPluginState state, const char *reason, const char *version,
                        const char *license, const char *description, const char *origin)
{
  g_autofree char *name = ferry_plugin_name_from_filename (filename);
  g_autoptr (FerryPluginModule) module = ferry_plugin_module_new (name, filename, NULL);
  FerryPlugin *self = ferry_plugin_new (module);

  ferry_plugin_set_state (self, state, reason);
  self->version = g_strdup (version);
  self->license = g_strdup (license);
  self->description = g_strdup (description);
  self->origin = g_strdup (origin);

  return self;
}

/* Only before the registry gives the plugin out. */
void
ferry_plugin_set_state (FerryPlugin *self, FerryPluginState state, const char *reason)
{
  char *copy = g_strdup (reason);

  self->state = state;
  g_free (self->reason);
  self->reason = copy;
}

/* The plugin's name that the name of its file tells, or NULL if it is no plugin's file. */
char *
ferry_plugin_name_from_filename (const char *filename)
{
  g_autofree char *base = g_path_get_basename (filename);
  const char *suffix = "." G_MODULE_SUFFIX;
  gsize length = strlen (base);

  if (!g_str_has_prefix (base, FILE_PREFIX) || !g_str_has_suffix (base, suffix)
      || length <= strlen (FILE_PREFIX) + strlen (suffix))
    return NULL;

  base[length - strlen (suffix)] = '\0';
  return g_strdelimit (g_strdup (base + strlen (FILE_PREFIX)), "_", '-');
}

/* getenv(), but nothing for a program that runs with more rights than its user. */
const char *
ferry_plugin_getenv (const char *name)
{
#ifdef __GLIBC__
  return secure_getenv (name);
#else
  return g_getenv (name);
#endif
}

#ifdef G_OS_UNIX
static gboolean
is_trusted_owner (uid_t owner)
{
  static gsize library_owner_plus_one;

  if (owner == 0 || owner == geteuid ())
    return TRUE;

  /* Who owns this library runs code in this process anyway: the build tree of somebody
   * else, as in a container. */
  if (g_once_init_enter (&library_owner_plus_one))
    {
      gsize value = 1;
      Dl_info library;
      GStatBuf info;

      if (dladdr ((gpointer) ferry_plugin_check_safety, &library) != 0 && g_stat (library.dli_fname, &info) == 0
          && (info.st_mode & S_IWOTH) == 0)
        value = (gsize) info.st_uid + 1;
      g_once_init_leave (&library_owner_plus_one, value);
    }
  return owner == (uid_t) (library_owner_plus_one - 1);
}
#endif

/* Why code must not be loaded from a folder or file, or NULL. */
char *
ferry_plugin_check_safety (const char *path, const GStatBuf *info)
{
#ifdef G_OS_UNIX
  const char *what = S_ISDIR (info->st_mode) ? "folder" : "file";

  if (g_strcmp0 (ferry_plugin_getenv ("FERRY_PLUGIN_ALLOW_UNSAFE"), "1") == 0)
    return NULL;

  if ((info->st_mode & S_IWOTH) != 0)
    return g_strdup_printf ("unsafe: everybody may write to the %s '%s' (mode %04o); take that permission away "
                            "(chmod o-w), or set FERRY_PLUGIN_ALLOW_UNSAFE=1",
                            what, path, (guint) info->st_mode & 07777);

  if (!is_trusted_owner (info->st_uid))
    return g_strdup_printf ("unsafe: the %s '%s' belongs to user %u, who is neither root, nor you, nor the owner of "
                            "libferry; change the owner, or set FERRY_PLUGIN_ALLOW_UNSAFE=1",
                            what, path, (guint) info->st_uid);
#endif

  return NULL;
}

/**
 * ferry_plugin_new_from_file: (constructor)
 * @filename: (type filename): path of a module
 *
 * Loads a module into this process and lets it register its features; a test of a
 * plugin may want to do that. A module that crashes takes the process with it.
 * Applications use a [class@Registry], which looks at modules in a helper process.
 *
 * Returns: (transfer full): the plugin; its state tells whether it can be used
 *
 * Since: 1.0
 */
FerryPlugin *
ferry_plugin_new_from_file (const char *filename)
{
  g_autofree char *path = NULL;
  g_autofree char *name = NULL;
  g_autoptr (FerryPluginModule) module = NULL;
  FerryPlugin *self;

  g_return_val_if_fail (filename != NULL, NULL);

  path = g_canonicalize_filename (filename, NULL);
  name = ferry_plugin_name_from_filename (path);
  module = ferry_plugin_module_new (name != NULL ? name : "", path, NULL);
  self = ferry_plugin_new (module);
  if (name != NULL)
    load_now (self);
  else
    ferry_plugin_set_state (self, FERRY_PLUGIN_STATE_BLACKLISTED,
                            "wrong name: the file of the plugin NAME is called " FILE_PREFIX "NAME." G_MODULE_SUFFIX);

  return self;
}

/**
 * ferry_plugin_get_name:
 * @self: a plugin
 *
 * Gets the plugin's name, as its file's name tells it.
 *
 * Returns: (transfer none): the name
 *
 * Since: 1.0
 */
const char *
ferry_plugin_get_name (FerryPlugin *self)
{
  g_return_val_if_fail (FERRY_IS_PLUGIN (self), NULL);

  return self->module->plugin_name;
}

/**
 * ferry_plugin_get_filename:
 * @self: a plugin
 *
 * Gets the path of the module.
 *
 * Returns: (transfer none) (nullable) (type filename): the path, or %NULL for what the
 *   library itself offers
 *
 * Since: 1.0
 */
const char *
ferry_plugin_get_filename (FerryPlugin *self)
{
  g_return_val_if_fail (FERRY_IS_PLUGIN (self), NULL);

  return self->module->filename;
}

/**
 * ferry_plugin_get_version:
 * @self: a plugin
 *
 * Gets the plugin's own version.
 *
 * Returns: (transfer none) (nullable): the version, or %NULL if it could not be read
 *
 * Since: 1.0
 */
const char *
ferry_plugin_get_version (FerryPlugin *self)
{
  g_return_val_if_fail (FERRY_IS_PLUGIN (self), NULL);

  return self->version;
}

/**
 * ferry_plugin_get_license:
 * @self: a plugin
 *
 * Gets the plugin's license, as an SPDX expression.
 *
 * Returns: (transfer none) (nullable): the license, or %NULL if it could not be read
 *
 * Since: 1.0
 */
const char *
ferry_plugin_get_license (FerryPlugin *self)
{
  g_return_val_if_fail (FERRY_IS_PLUGIN (self), NULL);

  return self->license;
}

/**
 * ferry_plugin_get_description:
 * @self: a plugin
 *
 * Gets what the plugin offers, in one line.
 *
 * Returns: (transfer none) (nullable): the description, or %NULL if it could not be
 *   read
 *
 * Since: 1.0
 */
const char *
ferry_plugin_get_description (FerryPlugin *self)
{
  g_return_val_if_fail (FERRY_IS_PLUGIN (self), NULL);

  return self->description;
}

/**
 * ferry_plugin_get_origin:
 * @self: a plugin
 *
 * Gets where the plugin comes from: a URL or a name.
 *
 * Returns: (transfer none) (nullable): the origin, or %NULL if it could not be read
 *
 * Since: 1.0
 */
const char *
ferry_plugin_get_origin (FerryPlugin *self)
{
  g_return_val_if_fail (FERRY_IS_PLUGIN (self), NULL);

  return self->origin;
}

/**
 * ferry_plugin_get_state:
 * @self: a plugin
 *
 * Gets whether the plugin can be used.
 *
 * Returns: the state
 *
 * Since: 1.0
 */
FerryPluginState
ferry_plugin_get_state (FerryPlugin *self)
{
  g_return_val_if_fail (FERRY_IS_PLUGIN (self), FERRY_PLUGIN_STATE_BLACKLISTED);

  return self->state;
}

/**
 * ferry_plugin_get_reason:
 * @self: a plugin
 *
 * Gets why the plugin can't be used.
 *
 * Returns: (transfer none) (nullable): the reason, or %NULL if the plugin is ok
 *
 * Since: 1.0
 */
const char *
ferry_plugin_get_reason (FerryPlugin *self)
{
  g_return_val_if_fail (FERRY_IS_PLUGIN (self), NULL);

  return self->reason;
}

/**
 * ferry_plugin_is_loaded:
 * @self: a plugin
 *
 * Tells whether the plugin's code is loaded into this process. That happens when the
 * first of its features is used.
 *
 * Returns: whether it is loaded
 *
 * Since: 1.0
 */
gboolean
ferry_plugin_is_loaded (FerryPlugin *self)
{
  g_return_val_if_fail (FERRY_IS_PLUGIN (self), FALSE);

  return ferry_plugin_module_is_loaded (self->module);
}

/**
 * ferry_plugin_list_features:
 * @self: a plugin
 *
 * Lists what the plugin offers, also the features that the registry does not use; see
 * [method@Feature.get_reason].
 *
 * Returns: (transfer container) (element-type FerryFeature): the features
 *
 * Since: 1.0
 */
GPtrArray *
ferry_plugin_list_features (FerryPlugin *self)
{
  g_return_val_if_fail (FERRY_IS_PLUGIN (self), NULL);

  return g_ptr_array_copy (self->features, (GCopyFunc) (void (*) (void)) g_object_ref, NULL);
}

/* Registering */

static gboolean refuse (GError **error, const char *format, ...) G_GNUC_PRINTF (2, 3);

static gboolean
refuse (GError **error, const char *format, ...)
{
  va_list args;

  va_start (args, format);
  if (error != NULL)
    *error = g_error_new_valist (FERRY_ERROR, FERRY_ERROR_INVALID_ARGUMENT, format, args);
  va_end (args);

  return FALSE;
}

/* Takes the feature. */
static gboolean
add_feature (FerryPlugin *self, FerryFeature *feature, GError **error)
{
  g_autoptr (FerryFeature) owned = feature;
  const char *name = ferry_feature_get_name (feature);
  const char *kind = FERRY_IS_CODEC_FACTORY (feature) ? "codec" : "transport";

  if (!is_name (name))
    return refuse (error, "'%s' can't be a %s's name: those are up to %d bytes of a-z, 0-9 and -",
                   name != NULL ? name : "(null)", kind, NAME_MAX_BYTES);
  if (ferry_feature_get_rank (feature) < 0)
    return refuse (error, "%s '%s' has the rank %d; ranks are 0 or more", kind, name, ferry_feature_get_rank (feature));
  if (!is_text (ferry_feature_get_description (feature)))
    return refuse (error, "%s '%s' has no description", kind, name);

  for (guint i = 0; i < self->features->len; i++)
    {
      FerryFeature *other = g_ptr_array_index (self->features, i);

      if (G_OBJECT_TYPE (other) == G_OBJECT_TYPE (feature) && strcmp (ferry_feature_get_name (other), name) == 0)
        return refuse (error, "%s '%s' is registered twice", kind, name);
    }

  g_ptr_array_add (self->features, g_steal_pointer (&owned));
  return TRUE;
}

/* Adds a feature without its type, which is known when the plugin is loaded. */
gboolean
ferry_plugin_add_transport (FerryPlugin *self, const char *name, int rank, FerryTransportCapabilities capabilities,
                            const char *description, GError **error)
{
  FerryTransportFactory *factory = ferry_transport_factory_new (self->module, name, rank, capabilities, description);

  return add_feature (self, FERRY_FEATURE (factory), error);
}

/* Adds a feature without its type, which is known when the plugin is loaded. */
gboolean
ferry_plugin_add_codec (FerryPlugin *self, const char *name, int rank, const char *wire_name, guint wire_version,
                        const char *description, GError **error)
{
  FerryCodecFactory *factory;

  if (!is_name (wire_name) || strlen (wire_name) > FERRY_WIRE_NAME_MAX)
    return refuse (error, "codec '%s': '%s' can't be a wire name: those are up to %d bytes of a-z, 0-9 and -",
                   name != NULL ? name : "(null)", wire_name != NULL ? wire_name : "(null)", FERRY_WIRE_NAME_MAX);

  factory = ferry_codec_factory_new (self->module, name, rank, wire_name, wire_version, description);
  return add_feature (self, FERRY_FEATURE (factory), error);
}

static gboolean
check_element_type (const char *name, GType element_type, GType interface_type, GError **error)
{
  if (element_type == G_TYPE_INVALID || !g_type_is_a (element_type, G_TYPE_OBJECT)
      || !g_type_is_a (element_type, interface_type) || G_TYPE_IS_ABSTRACT (element_type))
    return refuse (error, "'%s': its type %s is not a GObject that can be made and implements %s", name,
                   element_type != G_TYPE_INVALID ? g_type_name (element_type) : "(invalid)",
                   g_type_name (interface_type));

  return TRUE;
}

static gboolean
finish_registering (FerryPlugin *self, gboolean added, GType feature_type, const char *name, GType element_type,
                    GError *failure, GError **error)
{
  if (added)
    {
      g_hash_table_replace (self->module->element_types, element_key (feature_type, name),
                            GSIZE_TO_POINTER (element_type));
      return TRUE;
    }

  if (self->register_error == NULL)
    self->register_error = g_error_copy (failure);
  g_propagate_error (error, failure);
  return FALSE;
}

/**
 * ferry_plugin_register_transport:
 * @self: the plugin that the init function got
 * @name: the name that descriptions use: up to 64 bytes of `a-z`, `0-9` and `-`
 * @rank: how much it is preferred to others: 0 or more, see [enum@Rank]
 * @capabilities: what it can do
 * @description: what it is, in one line
 * @element_type: a type that implements [iface@Transport]
 * @error: return location for an error
 *
 * Registers a transport. Called by a plugin's init function and nowhere else.
 *
 * Returns: %TRUE on success; %FALSE with %FERRY_ERROR_INVALID_ARGUMENT if an argument
 *   is wrong, which makes the plugin blacklisted
 *
 * Since: 1.0
 */
gboolean
ferry_plugin_register_transport (FerryPlugin *self, const char *name, int rank, FerryTransportCapabilities capabilities,
                                 const char *description, GType element_type, GError **error)
{
  GError *failure = NULL;
  gboolean added;

  g_return_val_if_fail (FERRY_IS_PLUGIN (self), FALSE);
  g_return_val_if_fail (self->registering, FALSE);
  g_return_val_if_fail (error == NULL || *error == NULL, FALSE);

  added = check_element_type (name, element_type, FERRY_TYPE_TRANSPORT, &failure)
          && ferry_plugin_add_transport (self, name, rank, capabilities, description, &failure);
  return finish_registering (self, added, FERRY_TYPE_TRANSPORT_FACTORY, name, element_type, failure, error);
}

/**
 * ferry_plugin_register_codec:
 * @self: the plugin that the init function got
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
 * Registers a codec. Called by a plugin's init function and nowhere else.
 *
 * Returns: %TRUE on success; %FALSE with %FERRY_ERROR_INVALID_ARGUMENT if an argument
 *   is wrong, which makes the plugin blacklisted
 *
 * Since: 1.0
 */
gboolean
ferry_plugin_register_codec (FerryPlugin *self, const char *name, int rank, const char *wire_name, guint wire_version,
                             const char *description, GType element_type, GError **error)
{
  GError *failure = NULL;
  gboolean added;

  g_return_val_if_fail (FERRY_IS_PLUGIN (self), FALSE);
  g_return_val_if_fail (self->registering, FALSE);
  g_return_val_if_fail (error == NULL || *error == NULL, FALSE);

  added = check_element_type (name, element_type, FERRY_TYPE_CODEC, &failure)
          && ferry_plugin_add_codec (self, name, rank, wire_name, wire_version, description, &failure);
  return finish_registering (self, added, FERRY_TYPE_CODEC_FACTORY, name, element_type, failure, error);
}
