/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ferry-test.h"

#include <signal.h>

static FerryPlugin *
load (const char *name)
{
  g_autofree char *file = g_strdup_printf ("libferry-%s.so", name);
  g_autofree char *path = ferry_test_fixture (file);

  return ferry_plugin_new_from_file (path);
}

START_TEST (good)
{
  g_autofree char *path = ferry_test_fixture ("libferry-good.so");
  g_autoptr (FerryPlugin) plugin = load ("good");
  g_autoptr (GPtrArray) features = ferry_plugin_list_features (plugin);

  ck_assert_int_eq (ferry_plugin_get_state (plugin), FERRY_PLUGIN_STATE_OK);
  ck_assert_ptr_null (ferry_plugin_get_reason (plugin));
  ck_assert_str_eq (ferry_plugin_get_name (plugin), "good");
  ck_assert_str_eq (ferry_plugin_get_filename (plugin), path);
  ck_assert (ferry_plugin_is_loaded (plugin));
  ck_assert_uint_eq (features->len, 2);
}
END_TEST

START_TEST (properties)
{
  g_autoptr (FerryPlugin) plugin = load ("good");
  const char *const names[] = { "name", "filename", "version", "license", "description", "origin" };
  FerryPluginState state;
  g_autofree char *reason = NULL;

  for (guint i = 0; i < G_N_ELEMENTS (names); i++)
    {
      g_autofree char *value = NULL;

      g_object_get (plugin, names[i], &value, NULL);
      ck_assert_msg (value != NULL && value[0] != '\0', "%s", names[i]);
    }
  g_object_get (plugin, "state", &state, "reason", &reason, NULL);
  ck_assert_int_eq (state, FERRY_PLUGIN_STATE_OK);
  ck_assert_ptr_null (reason);
}
END_TEST

START_TEST (wrong_file_name)
{
  g_autoptr (FerryPlugin) plugin = ferry_plugin_new_from_file ("/tmp/good.so");

  ck_assert_int_eq (ferry_plugin_get_state (plugin), FERRY_PLUGIN_STATE_BLACKLISTED);
  ferry_assert_contains (ferry_plugin_get_reason (plugin), "libferry-NAME.so");
}
END_TEST

START_TEST (no_file)
{
  g_autoptr (FerryPlugin) plugin = ferry_plugin_new_from_file ("/nonexistent/libferry-x.so");

  ck_assert_int_eq (ferry_plugin_get_state (plugin), FERRY_PLUGIN_STATE_UNAVAILABLE);
  ferry_assert_contains (ferry_plugin_get_reason (plugin), "/nonexistent");
}
END_TEST

START_TEST (declines)
{
  g_autoptr (FerryPlugin) plugin = load ("decline");

  ck_assert_int_eq (ferry_plugin_get_state (plugin), FERRY_PLUGIN_STATE_UNAVAILABLE);
  ck_assert_str_eq (ferry_plugin_get_reason (plugin), "the device /dev/fixture is not plugged in");
  /* What could be read is told. */
  ck_assert_str_eq (ferry_plugin_get_version (plugin), "0.1");
  ck_assert (!ferry_plugin_is_loaded (plugin));
}
END_TEST

/* The types of a module can't be registered twice, so a second look gets the same ones. */
START_TEST (loaded_twice)
{
  g_autoptr (FerryPlugin) first = load ("good");
  g_autoptr (FerryPlugin) second = load ("good");
  g_autoptr (GPtrArray) first_features = ferry_plugin_list_features (first);
  g_autoptr (GPtrArray) second_features = ferry_plugin_list_features (second);

  ck_assert_int_eq (ferry_plugin_get_state (second), FERRY_PLUGIN_STATE_OK);
  ck_assert_uint_eq (ferry_feature_get_element_type (g_ptr_array_index (first_features, 0)),
                     ferry_feature_get_element_type (g_ptr_array_index (second_features, 0)));
}
END_TEST

START_TEST (resident)
{
  GType type;
  gpointer klass;

  {
    g_autoptr (FerryPlugin) plugin = load ("good");
    g_autoptr (GPtrArray) features = ferry_plugin_list_features (plugin);

    type = ferry_feature_get_element_type (g_ptr_array_index (features, 0));
  }

  /* The code is still there when the plugin object is gone. */
  klass = g_type_class_ref (type);
  ck_assert_ptr_nonnull (g_object_class_find_property (klass, "level"));
  g_type_class_unref (klass);
}
END_TEST

START_TEST (dispose_twice)
{
  FerryPlugin *plugin = load ("good");

  g_object_run_dispose (G_OBJECT (plugin));
  g_object_run_dispose (G_OBJECT (plugin));
  ferry_assert_last_unref (plugin);
}
END_TEST

START_TEST (descriptor_size)
{
  /* Compiled into every plugin; it changes with FERRY_PLUGIN_ABI_VERSION only. */
  ck_assert_int_eq (FERRY_PLUGIN_ABI_VERSION, 1);
  ck_assert_uint_eq (G_STRUCT_OFFSET (FerryPluginDescriptor, magic), 0);
  ck_assert_uint_eq (G_STRUCT_OFFSET (FerryPluginDescriptor, struct_size), 4);
  ck_assert_uint_eq (G_STRUCT_OFFSET (FerryPluginDescriptor, abi_version), 8);
  ck_assert_uint_eq (sizeof (FerryPluginDescriptor), 16 + 10 * sizeof (gpointer));
}
END_TEST

START_TEST (register_outside_of_init)
{
  g_autoptr (FerryPlugin) plugin = load ("good");
  g_autoptr (GError) error = NULL;

  /* A programming error: the critical warning is fatal here. */
  ferry_plugin_register_codec (plugin, "late", FERRY_RANK_PRIMARY, "late", 1, "Too late", G_TYPE_OBJECT, &error);
}
END_TEST

static void
add (Suite *suite)
{
  const TTest *tests[] = { good,         properties, wrong_file_name, no_file,         declines,
                           loaded_twice, resident,   dispose_twice,   descriptor_size, NULL };
  TCase *tcase = ferry_test_add_case (suite, "plugin", 10, tests);

  tcase_add_test_raise_signal (tcase, register_outside_of_init, SIGTRAP);
}

int
main (void)
{
  return ferry_test_run ("plugin", add);
}
