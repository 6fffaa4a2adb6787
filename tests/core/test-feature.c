/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ferry-test.h"

static FerryPlugin *
load_good (void)
{
  g_autofree char *path = ferry_test_fixture ("libferry-good.so");
  FerryPlugin *plugin = ferry_plugin_new_from_file (path);

  ck_assert_int_eq (ferry_plugin_get_state (plugin), FERRY_PLUGIN_STATE_OK);
  return plugin;
}

START_TEST (abstract)
{
  ck_assert (G_TYPE_IS_ABSTRACT (FERRY_TYPE_FEATURE));
  ck_assert (G_TYPE_IS_DERIVABLE (FERRY_TYPE_FEATURE));
  ck_assert (g_type_is_a (FERRY_TYPE_TRANSPORT_FACTORY, FERRY_TYPE_FEATURE));
  ck_assert (g_type_is_a (FERRY_TYPE_CODEC_FACTORY, FERRY_TYPE_FEATURE));
}
END_TEST

/* Plugins and bindings were compiled with this size. */
START_TEST (class_size)
{
  ck_assert_uint_eq (sizeof (FerryFeatureClass), sizeof (GObjectClass) + 4 * sizeof (gpointer));
}
END_TEST

START_TEST (ranks)
{
  ck_assert_int_eq (FERRY_RANK_NONE, 0);
  ck_assert_int_lt (FERRY_RANK_NONE, FERRY_RANK_MARGINAL);
  ck_assert_int_lt (FERRY_RANK_MARGINAL, FERRY_RANK_SECONDARY);
  ck_assert_int_lt (FERRY_RANK_SECONDARY, FERRY_RANK_PRIMARY);
}
END_TEST

START_TEST (getters_and_properties)
{
  g_autoptr (FerryPlugin) plugin = load_good ();
  g_autoptr (GPtrArray) features = ferry_plugin_list_features (plugin);
  FerryFeature *feature = g_ptr_array_index (features, 1);
  g_autofree char *name = NULL;
  g_autofree char *plugin_name = NULL;
  g_autofree char *description = NULL;
  int rank;

  ck_assert_str_eq (ferry_feature_get_name (feature), "fixture-echo");
  ck_assert_str_eq (ferry_feature_get_plugin_name (feature), "good");
  ck_assert_str_eq (ferry_feature_get_description (feature), "A codec of tests that encodes nothing");
  ck_assert_int_eq (ferry_feature_get_rank (feature), FERRY_RANK_SECONDARY);
  ck_assert_ptr_null (ferry_feature_get_reason (feature));

  g_object_get (feature, "name", &name, "plugin-name", &plugin_name, "description", &description, "rank", &rank, NULL);
  ck_assert_str_eq (name, "fixture-echo");
  ck_assert_str_eq (plugin_name, "good");
  ck_assert_str_eq (description, "A codec of tests that encodes nothing");
  ck_assert_int_eq (rank, FERRY_RANK_SECONDARY);
}
END_TEST

START_TEST (element_type)
{
  g_autoptr (FerryPlugin) plugin = load_good ();
  g_autoptr (GPtrArray) features = ferry_plugin_list_features (plugin);
  g_autoptr (GError) error = NULL;

  for (guint i = 0; i < features->len; i++)
    {
      FerryFeature *feature = g_ptr_array_index (features, i);

      ck_assert (ferry_feature_load (feature, &error));
      ferry_assert_no_error (error);
      ck_assert (ferry_feature_is_loaded (feature));
      ck_assert (g_type_is_a (ferry_feature_get_element_type (feature),
                              FERRY_IS_CODEC_FACTORY (feature) ? FERRY_TYPE_CODEC : FERRY_TYPE_TRANSPORT));
    }
}
END_TEST

/* A feature holds what it needs of its plugin, not the other way round. */
START_TEST (ownership)
{
  FerryPlugin *plugin = load_good ();
  g_autoptr (GPtrArray) features = ferry_plugin_list_features (plugin);
  FerryFeature *feature = g_object_ref (g_ptr_array_index (features, 0));

  g_clear_pointer (&features, g_ptr_array_unref);
  ferry_assert_last_unref (plugin);
  ck_assert_str_eq (ferry_feature_get_plugin_name (feature), "good");
  g_object_run_dispose (G_OBJECT (feature));
  ferry_assert_last_unref (feature);
}
END_TEST

static void
add (Suite *suite)
{
  const TTest *tests[] = { abstract, class_size, ranks, getters_and_properties, element_type, ownership, NULL };

  ferry_test_add_case (suite, "feature", 10, tests);
}

int
main (void)
{
  return ferry_test_run ("feature", add);
}
