/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* ferry-store: shows what is in a store, and changes it. */

#include <json-glib/json-glib.h>
#include <math.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "ferry-tool-util.h"

#define DEFAULT_LIMIT 100       /* children of one value */
#define TEXT_MAX 60             /* characters of one value */
#define DEPTH_MAX 1000          /* levels of a tree */
#define INDENT 2                /* characters a level */
#define EXIT_NOT_FOUND 3        /* there is no such value */
#define WATCH_PAUSE (20 * 1000) /* microseconds between two looks at what keeps changing */

static char *opt_transport;
static gint64 opt_group = -1;
static gboolean opt_json;
static gboolean opt_create;
static gboolean opt_version;
static int opt_limit = DEFAULT_LIMIT;
static char **opt_arguments;

static const GOptionEntry entries[] = {
  { "transport", 't', 0, G_OPTION_ARG_STRING, &opt_transport, "Look for the store on this transport", "NAME" },
  { "group", 'g', 0, G_OPTION_ARG_INT64, &opt_group, "The store is open to this group", "GID" },
  { "json", 'j', 0, G_OPTION_ARG_NONE, &opt_json, "Print JSON", NULL },
  { "limit", 'n', 0, G_OPTION_ARG_INT, &opt_limit, "Print so many elements of each value, 0: all (default: 100)", "N" },
  { "create", 'c', 0, G_OPTION_ARG_NONE, &opt_create, "With set and watch: make the store if there is none", NULL },
  { "version", 0, 0, G_OPTION_ARG_NONE, &opt_version, "Print the version", NULL },
  { G_OPTION_REMAINING, 0, 0, G_OPTION_ARG_STRING_ARRAY, &opt_arguments, NULL, "STORE [COMMAND [ARGUMENT...]]" },
  { NULL },
};

/* ---- one value as text ---- */

static char *
shorten (const char *text)
{
  g_autofree char *printable = tool_make_printable (text);
  char *cut;

  if (g_utf8_strlen (printable, -1) <= TEXT_MAX)
    return g_steal_pointer (&printable);
  cut = g_utf8_substring (printable, 0, TEXT_MAX - 1);
  g_free (printable);
  printable = g_strconcat (cut, "…", NULL);
  g_free (cut);
  return g_steal_pointer (&printable);
}

static gboolean
is_container (const char *type, gint64 length)
{
  static const char *const plain[]
      = { "NoneType",           "bool", "int", "float", "complex", "str", "bytes", "bytearray", "ndarray", "ellipsis",
          "NotImplementedType", NULL };

  return length >= 0 && !g_strv_contains (plain, type);
}

static char *
describe_array (FerryStore *store, const char *path)
{
  g_autoptr (FerryTensor) tensor = ferry_store_get_tensor (store, path, NULL);
  g_autoptr (GString) text = NULL;
  g_autofree char *bytes = NULL;
  const gint64 *shape;
  guint n;

  if (tensor == NULL)
    return g_strdup ("ndarray");
  text = g_string_new ("ndarray ");
  g_string_append (text, ferry_tensor_get_format (tensor));
  g_string_append (text, " [");
  shape = ferry_tensor_get_shape (tensor, &n);
  for (guint i = 0; i < n; i++)
    g_string_append_printf (text, "%s%" G_GINT64_FORMAT, i > 0 ? ", " : "", shape[i]);
  bytes = tool_format_bytes (ferry_tensor_get_size_bytes (tensor));
  g_string_append_printf (text, "], %s", bytes);
  return g_string_free (g_steal_pointer (&text), FALSE);
}

/* What a value without children is, in one line. */
static char *
describe_plain (FerryStore *store, const char *path, const char *type)
{
  g_autoptr (GError) error = NULL;
  g_autoptr (GVariant) value = NULL;
  g_autofree char *text = NULL;
  g_autofree char *shown = NULL;

  if (g_str_equal (type, "ndarray"))
    return describe_array (store, path);
  if (g_str_equal (type, "bytes") || g_str_equal (type, "bytearray"))
    {
      gint64 length = ferry_store_get_length (store, path, NULL);

      return g_strdup_printf ("%s of %" G_GINT64_FORMAT " bytes", type, MAX (length, 0));
    }
  value = ferry_store_get (store, path, &error);
  if (value == NULL)
    return g_strdup_printf ("%s: %s", type, error->message);
  if (g_str_equal (type, "NoneType"))
    return g_strdup ("None");
  text = g_variant_print (value, FALSE);
  shown = shorten (text);
  if (g_str_equal (type, "str"))
    {
      gint64 length = ferry_store_get_length (store, path, NULL);

      if (length > TEXT_MAX)
        return g_strdup_printf ("%s  (str of %" G_GINT64_FORMAT " characters)", shown, length);
      return g_steal_pointer (&shown);
    }
  if (g_str_equal (type, "int") || g_str_equal (type, "float") || g_str_equal (type, "bool"))
    return g_steal_pointer (&shown);
  return g_strdup_printf ("%s  (%s)", shown, type);
}

/* ---- the tree ---- */

typedef struct
{
  FerryStore *store;
  GHashTable *open; /* ids of the objects that we are within, with their paths */
  GHashTable *seen; /* of those that were printed */
  gboolean complete;
} Tree;

static Tree *
tree_new (FerryStore *store)
{
  Tree *self = g_new0 (Tree, 1);

  self->store = store;
  self->open = g_hash_table_new_full (g_int64_hash, g_int64_equal, g_free, g_free);
  self->seen = g_hash_table_new_full (g_int64_hash, g_int64_equal, g_free, g_free);
  self->complete = TRUE;
  return self;
}

static void
tree_free (Tree *self)
{
  g_hash_table_unref (self->open);
  g_hash_table_unref (self->seen);
  g_free (self);
}

G_DEFINE_AUTOPTR_CLEANUP_FUNC (Tree, tree_free)

/* Somebody may take things out while we look. */
static gboolean
tree_went (Tree *self, const GError *error)
{
  if (g_error_matches (error, FERRY_ERROR, FERRY_ERROR_NOT_FOUND))
    return TRUE;
  tool_printerr ("%s", error->message);
  self->complete = FALSE;
  return FALSE;
}

static void
tree_print (Tree *self, const char *path, const char *parent, guint level)
{
  g_autoptr (GError) error = NULL;
  g_autofree char *type = ferry_store_get_type_name (self->store, path, &error);
  const char *label = path + strlen (parent);
  g_autofree char *printable = tool_make_printable (*label == '.' ? label + 1 : label);
  g_auto (GStrv) children = NULL;
  gint64 length;
  guint64 id;
  guint n = 0;
  const char *other;

  if (type == NULL)
    {
      tree_went (self, error);
      return;
    }
  length = ferry_store_get_length (self->store, path, NULL);
  if (!is_container (type, length))
    {
      g_autofree char *text = describe_plain (self->store, path, type);

      g_print ("%*s%s: %s\n", (int) level * INDENT, "", printable, text);
      return;
    }

  id = ferry_store_get_object_id (self->store, path, NULL);
  g_print ("%*s%s: %s of %" G_GINT64_FORMAT, (int) level * INDENT, "", printable, type, length);
  other = id != 0 ? g_hash_table_lookup (self->open, &id) : NULL;
  if (other != NULL)
    {
      g_print ("  (a cycle: this is %s)\n", other);
      return;
    }
  other = id != 0 ? g_hash_table_lookup (self->seen, &id) : NULL;
  if (other != NULL)
    {
      g_print ("  (the same as %s)\n", other);
      return;
    }
  if (level >= DEPTH_MAX)
    {
      g_print ("  (deeper than %d levels)\n", DEPTH_MAX);
      return;
    }
  g_print ("\n");
  children = ferry_store_list_children (self->store, path, &error);
  if (children == NULL)
    {
      tree_went (self, error);
      return;
    }
  if (id != 0)
    g_hash_table_insert (self->open, g_memdup2 (&id, sizeof id), g_strdup (path));
  for (; children[n] != NULL && (opt_limit == 0 || n < (guint) opt_limit); n++)
    tree_print (self, children[n], path, level + 1);
  if (children[n] != NULL)
    g_print ("%*s… %u more\n", (int) (level + 1) * INDENT, "", g_strv_length (children + n));
  if (id != 0)
    {
      g_hash_table_remove (self->open, &id);
      g_hash_table_insert (self->seen, g_memdup2 (&id, sizeof id), g_strdup (path));
    }
}

static gboolean
print_tree (FerryStore *store, const char *path)
{
  g_autoptr (Tree) tree = tree_new (store);
  g_autoptr (GError) error = NULL;

  if (*path != '\0')
    {
      tree_print (tree, path, "", 0);
    }
  else
    {
      g_auto (GStrv) children = ferry_store_list_children (store, "", &error);

      if (children == NULL)
        {
          tool_printerr ("%s", error->message);
          return FALSE;
        }
      for (guint i = 0; children[i] != NULL; i++)
        tree_print (tree, children[i], "", 0);
      if (children[0] == NULL)
        g_printerr ("the store is empty\n");
    }
  return tree->complete;
}

/* ---- JSON ---- */

static JsonNode *
node_of_string (const char *text)
{
  JsonNode *node = json_node_alloc ();

  return json_node_init_string (node, text);
}

static JsonNode *variant_to_json (GVariant *value);

static JsonNode *
children_to_json (GVariant *value)
{
  g_autoptr (JsonArray) array = json_array_new ();

  for (gsize i = 0; i < g_variant_n_children (value); i++)
    {
      g_autoptr (GVariant) child = g_variant_get_child_value (value, i);

      json_array_add_element (array, variant_to_json (child));
    }
  return json_node_init_array (json_node_alloc (), array);
}

/* Of what ferry_store_get() gives. JSON has no bytes: they become Base64; what is neither number nor text is text. */
static JsonNode *
variant_to_json (GVariant *value)
{
  double number;

  switch (g_variant_classify (value))
    {
    case G_VARIANT_CLASS_BOOLEAN:
      return json_node_init_boolean (json_node_alloc (), g_variant_get_boolean (value));
    case G_VARIANT_CLASS_INT64:
      return json_node_init_int (json_node_alloc (), g_variant_get_int64 (value));
    case G_VARIANT_CLASS_DOUBLE:
      number = g_variant_get_double (value);
      if (isfinite (number))
        return json_node_init_double (json_node_alloc (), number);
      return node_of_string (isnan (number) ? "nan" : number > 0 ? "inf" : "-inf");
    case G_VARIANT_CLASS_STRING:
      return node_of_string (g_variant_get_string (value, NULL));
    case G_VARIANT_CLASS_MAYBE:
      return json_node_init_null (json_node_alloc ());
    case G_VARIANT_CLASS_VARIANT:
      {
        g_autoptr (GVariant) inner = g_variant_get_variant (value);

        return variant_to_json (inner);
      }
    case G_VARIANT_CLASS_ARRAY:
      if (g_variant_is_of_type (value, G_VARIANT_TYPE_BYTESTRING))
        {
          gsize size;
          const guint8 *data = g_variant_get_fixed_array (value, &size, 1);
          g_autofree char *text = g_base64_encode (data, size);

          return node_of_string (text);
        }
      if (g_variant_is_of_type (value, G_VARIANT_TYPE_VARDICT))
        {
          g_autoptr (JsonObject) object = json_object_new ();
          GVariantIter iter;
          const char *name;
          GVariant *member;

          g_variant_iter_init (&iter, value);
          while (g_variant_iter_loop (&iter, "{&sv}", &name, &member))
            json_object_set_member (object, name, variant_to_json (member));
          return json_node_init_object (json_node_alloc (), object);
        }
      return children_to_json (value);
    case G_VARIANT_CLASS_TUPLE:
      if (!g_variant_is_of_type (value, G_VARIANT_TYPE ("(sv)")))
        return children_to_json (value);
      /* a name and what tells the value */
      G_GNUC_FALLTHROUGH;
    default:
      {
        g_autofree char *text = g_variant_print (value, FALSE);

        return node_of_string (text);
      }
    }
}

static JsonNode *
array_to_json (FerryStore *store, const char *path)
{
  g_autoptr (FerryTensor) tensor = ferry_store_get_tensor (store, path, NULL);
  g_autoptr (JsonObject) object = json_object_new ();
  g_autoptr (JsonArray) shape = json_array_new ();
  const gint64 *dimensions;
  guint n;

  if (tensor == NULL)
    return NULL;
  dimensions = ferry_tensor_get_shape (tensor, &n);
  for (guint i = 0; i < n; i++)
    json_array_add_int_element (shape, dimensions[i]);
  json_object_set_string_member (object, "$type", "ndarray");
  json_object_set_string_member (object, "format", ferry_tensor_get_format (tensor));
  json_object_set_array_member (object, "shape", g_steal_pointer (&shape));
  json_object_set_int_member (object, "bytes", (gint64) ferry_tensor_get_size_bytes (tensor));
  return json_node_init_object (json_node_alloc (), object);
}

static JsonNode *
reference_to_json (const char *path)
{
  g_autoptr (JsonObject) object = json_object_new ();

  json_object_set_string_member (object, "$ref", path);
  return json_node_init_object (json_node_alloc (), object);
}

/* The key that a path ends with; NULL: it is no str. */
static char *
get_name (const char *path, const char *parent)
{
  const char *label = path + strlen (parent);
  g_autoptr (GVariant) key = NULL;

  if (*label == '.')
    return g_strdup (label + 1);
  if (*label != '[')
    return g_strdup (label);
  if (label[1] == '\0')
    return NULL;
  key = g_variant_parse (NULL, label + 1, NULL, &label, NULL);
  return key != NULL && g_variant_is_of_type (key, G_VARIANT_TYPE_STRING) ? g_variant_dup_string (key, NULL) : NULL;
}

static JsonNode *tree_to_json (Tree *self, const char *path, guint level);

static JsonNode *
list_to_json (Tree *self, char **children, guint level)
{
  g_autoptr (JsonArray) array = json_array_new ();

  for (guint i = 0; children[i] != NULL; i++)
    {
      JsonNode *node = tree_to_json (self, children[i], level);

      if (node != NULL)
        json_array_add_element (array, node);
    }
  return json_node_init_array (json_node_alloc (), array);
}

static JsonNode *
dict_to_json (Tree *self, const char *path, const char *type, char **children, guint level)
{
  g_autoptr (JsonObject) object = json_object_new ();

  if (!g_str_equal (type, "dict"))
    json_object_set_string_member (object, "$type", type);
  for (guint i = 0; children[i] != NULL; i++)
    {
      g_autofree char *name = get_name (children[i], path);
      JsonNode *node = tree_to_json (self, children[i], level);

      /* keys that are no str by what stands in the brackets */
      if (name == NULL)
        name = g_strndup (children[i] + strlen (path) + 1, strlen (children[i] + strlen (path)) - 2);
      if (node != NULL)
        json_object_set_member (object, name, node);
    }
  return json_node_init_object (json_node_alloc (), object);
}

/* NULL: it went, or can't be read. */
static JsonNode *
tree_to_json (Tree *self, const char *path, guint level)
{
  g_autoptr (GError) error = NULL;
  g_autofree char *type = ferry_store_get_type_name (self->store, path, &error);
  g_auto (GStrv) children = NULL;
  JsonNode *node;
  guint64 id;
  const char *other;

  if (type == NULL)
    {
      tree_went (self, error);
      return NULL;
    }
  if (g_str_equal (type, "ndarray"))
    return array_to_json (self->store, path);
  if (!is_container (type, ferry_store_get_length (self->store, path, NULL)))
    {
      g_autoptr (GVariant) value = ferry_store_get (self->store, path, &error);

      if (value == NULL)
        {
          tree_went (self, error);
          return NULL;
        }
      return variant_to_json (value);
    }

  id = ferry_store_get_object_id (self->store, path, NULL);
  other = id != 0 ? g_hash_table_lookup (self->open, &id) : NULL;
  if (other != NULL)
    return reference_to_json (other);
  if (level >= DEPTH_MAX)
    {
      tool_printerr ("%s is deeper than %d levels", path, DEPTH_MAX);
      self->complete = FALSE;
      return NULL;
    }
  children = ferry_store_list_children (self->store, path, &error);
  if (children == NULL)
    {
      tree_went (self, error);
      return NULL;
    }
  if (id != 0)
    g_hash_table_insert (self->open, g_memdup2 (&id, sizeof id), g_strdup (path));
  if (g_str_equal (type, "list") || g_str_equal (type, "set") || g_str_equal (type, "frozenset") || id == 0)
    node = list_to_json (self, children, level + 1);
  else
    node = dict_to_json (self, path, type, children, level + 1);
  if (id != 0)
    g_hash_table_remove (self->open, &id);
  return node;
}

static gboolean
print_json (FerryStore *store, const char *path)
{
  g_autoptr (Tree) tree = tree_new (store);
  g_autoptr (JsonNode) root = tree_to_json (tree, path, 0);
  g_autofree char *text = NULL;

  if (root == NULL)
    return FALSE;
  text = json_to_string (root, TRUE);
  g_print ("%s\n", text);
  return tree->complete;
}

/* ---- commands ---- */

static int
fail (const GError *error)
{
  tool_printerr ("%s", error->message);
  return g_error_matches (error, FERRY_ERROR, FERRY_ERROR_NOT_FOUND) ? EXIT_NOT_FOUND : EXIT_FAILURE;
}

static int
show (FerryStore *store, const char *path)
{
  g_autoptr (GError) error = NULL;

  if (!ferry_store_contains (store, path, &error))
    {
      g_autoptr (GVariant) value = error == NULL ? ferry_store_get (store, path, &error) : NULL;

      if (error != NULL)
        return fail (error);
    }
  return (opt_json ? print_json (store, path) : print_tree (store, path)) ? EXIT_SUCCESS : EXIT_FAILURE;
}

static int
get (FerryStore *store, const char *path)
{
  g_autoptr (GError) error = NULL;
  g_autoptr (GVariant) value = NULL;
  g_autofree char *text = NULL;

  if (opt_json)
    return show (store, path);
  value = ferry_store_get (store, path, &error);
  if (value == NULL)
    return fail (error);
  text = g_variant_print (value, FALSE);
  g_print ("%s\n", text);
  return EXIT_SUCCESS;
}

static int
set (FerryStore *store, const char *path, GVariant *value)
{
  g_autoptr (GError) error = NULL;

  return ferry_store_set (store, path, value, &error) ? EXIT_SUCCESS : fail (error);
}

static int
remove_path (FerryStore *store, const char *path)
{
  g_autoptr (GError) error = NULL;

  return ferry_store_remove (store, path, &error) ? EXIT_SUCCESS : fail (error);
}

/* What is at a path now, in one line. */
static char *
look (FerryStore *store, const char *path, GError **error)
{
  g_autoptr (GError) local = NULL;
  g_autoptr (GVariant) value = ferry_store_get (store, path, &local);

  if (value != NULL && opt_json)
    {
      g_autoptr (JsonNode) node = variant_to_json (value);

      return json_to_string (node, FALSE);
    }
  if (value != NULL)
    return g_variant_print (value, FALSE);
  if (g_error_matches (local, FERRY_ERROR, FERRY_ERROR_NOT_FOUND))
    return NULL;
  g_propagate_error (error, g_steal_pointer (&local));
  return NULL;
}

/* The paths to look at: that one, or all that the root has. */
static char **
list_watched (FerryStore *store, const char *path, GError **error)
{
  if (path == NULL)
    return ferry_store_list_children (store, "", error);
  return g_strdupv ((char *[]){ (char *) path, NULL });
}

/* Tells what differs from @known, and keeps it there. */
static gboolean
tell_changes (FerryStore *store, const char *path, GHashTable *known, GError **error)
{
  g_auto (GStrv) paths = list_watched (store, path, error);
  GHashTableIter iter;
  gpointer key;

  if (paths == NULL)
    return FALSE;
  for (guint i = 0; paths[i] != NULL; i++)
    {
      g_autoptr (GError) local = NULL;
      g_autofree char *text = look (store, paths[i], &local);
      const char *before = g_hash_table_lookup (known, paths[i]);
      g_autofree char *printable = tool_make_printable (paths[i]);

      if (local != NULL && path != NULL)
        {
          g_propagate_error (error, g_steal_pointer (&local));
          return FALSE;
        }
      if (local != NULL)
        text = g_strdup_printf ("(%s)", local->message);
      if (text == NULL)
        {
          if (before != NULL)
            g_print ("%s is gone\n", printable);
          g_hash_table_remove (known, paths[i]);
        }
      else if (g_strcmp0 (text, before) != 0)
        {
          g_print ("%s: %s\n", printable, text);
          g_hash_table_replace (known, g_strdup (paths[i]), g_steal_pointer (&text));
        }
    }
  g_hash_table_iter_init (&iter, known);
  while (path == NULL && g_hash_table_iter_next (&iter, &key, NULL))
    if (!g_strv_contains ((const char *const *) paths, key))
      {
        g_autofree char *printable = tool_make_printable (key);

        g_print ("%s is gone\n", printable);
        g_hash_table_iter_remove (&iter);
      }
  return TRUE;
}

static int
watch (FerryStore *store, const char *path)
{
  g_autoptr (GCancellable) cancellable = g_cancellable_new ();
  g_autoptr (ToolSignals) signals = tool_signals_new (cancellable);
  g_autoptr (GHashTable) known = g_hash_table_new_full (g_str_hash, g_str_equal, g_free, g_free);
  g_autoptr (GError) error = NULL;
  guint64 seen;

  tool_signals_watch_output (signals, STDOUT_FILENO);
  do
    {
      seen = ferry_store_watch (store);
      if (!tell_changes (store, path, known, &error))
        break;
      /* what changes all the time is told now and then */
      g_usleep (WATCH_PAUSE);
    }
  while (ferry_store_wait_change (store, &seen, -1, cancellable, &error));

  if (!g_error_matches (error, G_IO_ERROR, G_IO_ERROR_CANCELLED))
    return fail (error);
  /* Ctrl-C is how watching ends. */
  if (tool_signals_get (signals) == 0 || tool_signals_get (signals) == SIGINT)
    return EXIT_SUCCESS;
  return TOOL_EXIT_SIGNAL_BASE + tool_signals_get (signals);
}

/* Objects that paths lead to, each once. */
static gsize
count_objects (FerryStore *store, const char *path, GHashTable *seen, guint level)
{
  guint64 id = ferry_store_get_object_id (store, path, NULL);
  g_auto (GStrv) children = NULL;
  gsize n = id != 0;

  if (id != 0 && !g_hash_table_add (seen, g_memdup2 (&id, sizeof id)))
    return 0;
  children = level < DEPTH_MAX ? ferry_store_list_children (store, path, NULL) : NULL;
  for (guint i = 0; children != NULL && children[i] != NULL; i++)
    n += count_objects (store, children[i], seen, level + 1);
  return n;
}

static int
print_stat (FerryStore *store, int n_participants)
{
  g_autoptr (GHashTable) seen = g_hash_table_new_full (g_int64_hash, g_int64_equal, g_free, NULL);
  g_autoptr (JsonObject) object = NULL;
  g_autoptr (JsonNode) node = NULL;
  g_autofree char *text = NULL;
  g_autofree char *used = tool_format_bytes (ferry_store_get_bytes_used (store));
  g_autofree char *committed = tool_format_bytes (ferry_store_get_bytes_committed (store));
  g_autofree char *bound = tool_format_bytes (ferry_store_get_max_bytes (store));
  gint64 names = ferry_store_get_length (store, "", NULL);
  gsize objects = count_objects (store, "", seen, 0);

  objects -= objects > 0; /* the root itself */
  if (!opt_json)
    {
      g_print ("used          %s\ncommitted     %s\nbound         %s\nnames         %" G_GINT64_FORMAT
               "\nobjects       %" G_GSIZE_FORMAT "\nchanges       %" G_GUINT64_FORMAT "\n",
               used, committed, bound, names, objects, ferry_store_watch (store));
      if (n_participants >= 0)
        g_print ("participants  %d\n", n_participants);
      return EXIT_SUCCESS;
    }
  object = json_object_new ();
  json_object_set_int_member (object, "bytes-used", (gint64) ferry_store_get_bytes_used (store));
  json_object_set_int_member (object, "bytes-committed", (gint64) ferry_store_get_bytes_committed (store));
  json_object_set_int_member (object, "max-bytes", (gint64) ferry_store_get_max_bytes (store));
  json_object_set_int_member (object, "names", names);
  json_object_set_int_member (object, "objects", (gint64) objects);
  if (n_participants >= 0)
    json_object_set_int_member (object, "participants", n_participants);
  json_object_set_int_member (object, "changes", (gint64) MIN (ferry_store_watch (store), (guint64) G_MAXINT64));
  node = json_node_init_object (json_node_alloc (), object);
  text = json_to_string (node, TRUE);
  g_print ("%s\n", text);
  return EXIT_SUCCESS;
}

static int
collect (FerryStore *store)
{
  g_autoptr (GError) error = NULL;
  guint64 before = ferry_store_get_bytes_used (store);
  guint64 after;
  g_autofree char *freed = NULL;
  g_autofree char *trimmed = NULL;

  if (!ferry_store_collect (store, &error))
    return fail (error);
  after = ferry_store_get_bytes_used (store);
  freed = tool_format_bytes (before > after ? before - after : 0);
  trimmed = tool_format_bytes (ferry_store_trim (store));
  g_print ("freed %s, gave %s back to the system\n", freed, trimmed);
  return EXIT_SUCCESS;
}

static int
verify (FerryStore *store)
{
  g_autoptr (GError) error = NULL;

  if (!ferry_store_verify (store, &error))
    return fail (error);
  g_print ("the store is sound\n");
  return EXIT_SUCCESS;
}

/* ---- which store, and what ---- */

typedef struct
{
  const char *name;
  guint min_arguments;
  guint max_arguments;
  const char *usage;
} Command;

static const Command commands[] = {
  { "tree", 0, 1, "tree [PATH]" },   { "get", 1, 1, "get PATH" },       { "set", 2, 2, "set PATH VALUE" },
  { "remove", 1, 1, "remove PATH" }, { "watch", 0, 1, "watch [PATH]" }, { "stat", 0, 0, "stat" },
  { "collect", 0, 0, "collect" },    { "verify", 0, 0, "verify" },
};

static const Command *
find_command (const char *name)
{
  for (guint i = 0; i < G_N_ELEMENTS (commands); i++)
    if (g_str_equal (commands[i].name, name))
      return &commands[i];
  return NULL;
}

/* Where a store of that name is alive, unless the user says it; the first transport that has one. */
static void
find_store (const char *name)
{
  g_autoptr (GPtrArray) transports = tool_list_transports (NULL, FERRY_TRANSPORT_CAPABILITIES_NAMED, NULL);

  for (guint i = 0; transports != NULL && i < transports->len; i++)
    {
      const char *transport = g_ptr_array_index (transports, i);
      g_autoptr (GPtrArray) listings = tool_list_channels (transport, NULL);

      for (guint j = 0; listings != NULL && j < listings->len; j++)
        {
          ToolListing *listing = g_ptr_array_index (listings, j);
          gboolean alive = FALSE;

          if ((opt_group >= 0 && listing->group != opt_group)
              || !g_strv_contains ((const char *const *) listing->names, name)
              || !ferry_transport_probe_channel (listing->transport, name, &alive, NULL) || !alive)
            continue;
          opt_transport = g_strdup (transport);
          opt_group = listing->group;
          return;
        }
    }
}

/* A name, or a description with whatever properties are needed. */
static char *
make_description (const char *store, gboolean create)
{
  const char *mode = create ? "" : " open-mode=join";
  g_autofree char *quoted = NULL;
  g_autofree char *group = NULL;

  if (strchr (store, '=') != NULL)
    return g_strdup_printf ("%s%s", store, mode);
  if (opt_transport == NULL)
    find_store (store);
  quoted = g_shell_quote (store);
  if (opt_group >= 0)
    group = g_strdup_printf (" group=%" G_GINT64_FORMAT, opt_group);
  return g_strdup_printf ("%s name=%s%s%s", opt_transport != NULL ? opt_transport : "auto", quoted,
                          group != NULL ? group : "", mode);
}

/* Besides us; -1: can't be told. */
static int
count_participants (const char *store)
{
  g_autofree char *description = NULL;
  g_autoptr (FerryChannel) channel = NULL;
  g_autoptr (FerryStatistics) statistics = NULL;

  if (strchr (store, '=') != NULL)
    return -1;
  channel = ferry_channel_new (opt_transport, store, FERRY_ROLE_OBSERVER);
  g_object_set (channel, "open-mode", FERRY_OPEN_MODE_JOIN, "group", opt_group, NULL);
  if (!ferry_channel_open (channel, NULL, NULL))
    return -1;
  statistics = ferry_channel_get_statistics (channel, NULL);
  ferry_channel_close (channel, NULL);
  return statistics != NULL ? (int) statistics->senders : -1;
}

static int
run (FerryStore *store, const Command *command, char **arguments, GVariant *value, int n_participants)
{
  if (g_str_equal (command->name, "get"))
    return get (store, arguments[0]);
  if (g_str_equal (command->name, "set"))
    return set (store, arguments[0], value);
  if (g_str_equal (command->name, "remove"))
    return remove_path (store, arguments[0]);
  if (g_str_equal (command->name, "watch"))
    return watch (store, arguments[0]);
  if (g_str_equal (command->name, "stat"))
    return print_stat (store, n_participants);
  if (g_str_equal (command->name, "collect"))
    return collect (store);
  if (g_str_equal (command->name, "verify"))
    return verify (store);
  return show (store, arguments[0] != NULL ? arguments[0] : "");
}

int
main (int argc, char **argv)
{
  g_autoptr (GOptionContext) context = g_option_context_new (NULL);
  g_autoptr (FerryStore) store = NULL;
  g_autoptr (GVariant) value = NULL;
  g_autoptr (GError) error = NULL;
  g_autofree char *description = NULL;
  const Command *command = &commands[0];
  char **arguments;
  guint n_arguments;
  int n_participants = -1;
  gboolean create;
  int status;

  tool_init ("ferry-store");
  g_option_context_set_summary (context, "Shows what is in a store: as a tree, as JSON or one value; changes it, and\n"
                                         "watches it change.");
  g_option_context_set_description (
      context, "Commands:\n"
               "  tree [PATH]                    all of it, or what is at PATH; what happens without a command\n"
               "  get PATH                       one value, in the text format of GVariant\n"
               "  set PATH VALUE                 set a value, written likewise\n"
               "  remove PATH                    remove it\n"
               "  watch [PATH]                   print what changes until Ctrl-C\n"
               "  stat                           memory, objects, participants\n"
               "  collect                        free cycles and what programs that died left\n"
               "  verify                         check that everything is in order; holds the store meanwhile\n"
               "\n"
               "Examples:\n"
               "  ferry-store lab\n"
               "  ferry-store lab get 'cfg.servers[2].port'\n"
               "  ferry-store lab set cfg.title '\"new title\"'\n"
               "  ferry-store lab set 'log[+]' '(\"started\", 1.5)'\n"
               "  ferry-store --json lab tree cfg | jq .servers\n"
               "\n"
               "A store goes with the last program that has it open; with --create, watch keeps one.\n"
               "STORE is a name, or a description such as 'memfd name=lab'. VALUE is a GVariant: 5, 1.5, true,\n"
               "\"text\", b\"bytes\", [1, 2], (1, \"x\"), {\"a\": 1}, {\"a\": <1>, \"b\": <\"x\">}.\n"
               "Exit status: 0, 1 on errors, 2 wrong usage, 3 when there is no such store or value.\n");
  g_option_context_add_main_entries (context, entries, NULL);
  /* so that negative numbers are values */
  g_option_context_set_strict_posix (context, FALSE);

  if (!g_option_context_parse (context, &argc, &argv, &error))
    return tool_fail_usage ("%s", error->message);
  if (opt_version)
    {
      g_print ("ferry-store " FERRY_VERSION_STRING "\n");
      return EXIT_SUCCESS;
    }
  if (opt_arguments == NULL)
    return tool_fail_usage ("which store? ferry-ls lists them");
  if (opt_limit < 0)
    return tool_fail_usage ("--limit must be 0 or more");
  arguments = opt_arguments + 1;
  if (arguments[0] != NULL)
    {
      command = find_command (arguments[0]);
      if (command == NULL)
        return tool_fail_usage (
            "there is no command '%s'; there are tree, get, set, remove, watch, stat, collect, verify", arguments[0]);
      arguments++;
    }
  n_arguments = g_strv_length (arguments);
  if (n_arguments < command->min_arguments || n_arguments > command->max_arguments)
    return tool_fail_usage ("usage: ferry-store STORE %s", command->usage);
  create = opt_create && (g_str_equal (command->name, "set") || g_str_equal (command->name, "watch"));
  if (opt_create && !create)
    return tool_fail_usage ("--create goes with set and watch only");
  if (g_str_equal (command->name, "set"))
    {
      value = g_variant_parse (NULL, arguments[1], NULL, NULL, &error);
      if (value == NULL)
        {
          g_autofree char *shown = g_variant_parse_error_print_context (error, arguments[1]);

          return tool_fail_usage ("the value is no GVariant (text stands in quotes, such as '\"text\"'):\n%s", shown);
        }
    }

  description = make_description (opt_arguments[0], create);
  if (g_str_equal (command->name, "stat"))
    n_participants = count_participants (opt_arguments[0]);
  store = ferry_store_open (description, NULL, &error);
  if (store == NULL)
    return fail (error);
  status = run (store, command, arguments, value, n_participants);
  ferry_store_close (store);
  return status;
}
