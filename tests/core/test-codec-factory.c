/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ferry-test.h"

static FerryCodecFactory *
get_factory (void)
{
  g_autofree char *path = ferry_test_fixture ("libferry-good.so");
  g_autoptr (FerryPlugin) plugin = ferry_plugin_new_from_file (path);
  g_autoptr (GPtrArray) features = ferry_plugin_list_features (plugin);

  return g_object_ref (g_ptr_array_index (features, 1));
}

START_TEST (wire_name)
{
  g_autoptr (FerryCodecFactory) factory = get_factory ();
  g_autofree char *name = NULL;
  guint version;

  ck_assert_str_eq (ferry_codec_factory_get_wire_name (factory), "fixture");
  ck_assert_uint_eq (ferry_codec_factory_get_wire_version (factory), 3);
  g_object_get (factory, "wire-name", &name, "wire-version", &version, NULL);
  ck_assert_str_eq (name, "fixture");
  ck_assert_uint_eq (version, 3);
}
END_TEST

START_TEST (can_decode)
{
  g_autoptr (FerryCodecFactory) factory = get_factory ();

  ck_assert (ferry_codec_factory_can_decode (factory, "fixture", 3));
  ck_assert (ferry_codec_factory_can_decode (factory, "fixture", 0));
  ck_assert (!ferry_codec_factory_can_decode (factory, "fixture", 4));
  ck_assert (!ferry_codec_factory_can_decode (factory, "fixture-echo", 3));
}
END_TEST

START_TEST (create)
{
  g_autoptr (FerryCodecFactory) factory = get_factory ();
  g_autoptr (GError) error = NULL;
  FerryCodec *codec = ferry_codec_factory_create (factory, &error);

  ferry_assert_no_error (error);
  ck_assert_str_eq (ferry_codec_get_wire_name (codec), "fixture");
  ferry_assert_last_unref (codec);
}
END_TEST

/* A factory must not promise what its codec doesn't keep. */
START_TEST (core_codecs_agree)
{
  const char *paths[] = { NULL };
  g_autoptr (FerryRegistry) registry = ferry_registry_new (paths, NULL);
  g_autoptr (GPtrArray) factories = ferry_registry_list_features (registry, FERRY_TYPE_CODEC_FACTORY);

  ck_assert_uint_ge (factories->len, 2);
  for (guint i = 0; i < factories->len; i++)
    {
      FerryCodecFactory *factory = g_ptr_array_index (factories, i);
      g_autoptr (GError) error = NULL;
      g_autoptr (FerryCodec) codec = ferry_codec_factory_create (factory, &error);

      ferry_assert_no_error (error);
      ck_assert_str_eq (ferry_codec_get_wire_name (codec), ferry_codec_factory_get_wire_name (factory));
      ck_assert_uint_eq (ferry_codec_get_wire_version (codec), ferry_codec_factory_get_wire_version (factory));
    }
}
END_TEST

START_TEST (final) { ck_assert (G_TYPE_IS_FINAL (FERRY_TYPE_CODEC_FACTORY)); }
END_TEST

static void
add (Suite *suite)
{
  const TTest *tests[] = { wire_name, can_decode, create, core_codecs_agree, final, NULL };

  ferry_test_add_case (suite, "codec-factory", 10, tests);
}

int
main (void)
{
  return ferry_test_run ("codec-factory", add);
}
