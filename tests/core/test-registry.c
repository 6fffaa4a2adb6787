/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ferry-test.h"

#include <glib/gstdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

/* Each test has folders and a cache of its own, and runs in a process of its own. */
static char *top;
static char *folder;
static char *cache_file;
static GPtrArray *warnings;

static GLogWriterOutput
log_writer (GLogLevelFlags level, const GLogField *fields, gsize n_fields, gpointer user_data)
{
  for (gsize i = 0; i < n_fields; i++)
    if (level <= G_LOG_LEVEL_WARNING && strcmp (fields[i].key, "MESSAGE") == 0)
      g_ptr_array_add (warnings, g_strdup (fields[i].value));

  return G_LOG_WRITER_HANDLED;
}

static void
setup (void)
{
  top = ferry_test_make_folder ();
  folder = g_build_filename (top, "plugins", NULL);
  cache_file = g_build_filename (top, "cache", "registry.json", NULL);
  ck_assert_int_eq (g_mkdir (folder, 0755), 0);
  warnings = g_ptr_array_new_with_free_func (g_free);
  g_log_set_writer_func (log_writer, NULL, NULL);
  g_unsetenv ("FERRY_FEATURE_RANK");
  g_unsetenv ("FERRY_REGISTRY_UPDATE");
  g_unsetenv ("FERRY_PLUGIN_ALLOW_UNSAFE");
}

static void
teardown (void)
{
  ferry_test_remove_folder (top);
  g_clear_pointer (&top, g_free);
  g_clear_pointer (&folder, g_free);
  g_clear_pointer (&cache_file, g_free);
  g_clear_pointer (&warnings, g_ptr_array_unref);
}

static void
install (const char *name)
{
  g_free (ferry_test_install_plugin (name, folder));
}

static FerryRegistry *
make_registry (void)
{
  const char *paths[] = { folder, NULL };

  return ferry_registry_new (paths, cache_file);
}

/* The scanner is a script that counts how often it is started. */
static char *
count_scanner_starts (void)
{
  const char *scanner = g_getenv ("FERRY_PLUGIN_SCANNER");
  g_autofree char *script = g_build_filename (top, "scanner", NULL);
  char *counter = g_build_filename (top, "count", NULL);
  g_autofree char *text = g_strdup_printf ("#!/bin/sh\necho x >>'%s'\nexec '%s'\n", counter, scanner);

  ck_assert_msg (scanner != NULL, "FERRY_PLUGIN_SCANNER is not set: run this by meson test");
  ck_assert (g_file_set_contents (script, text, -1, NULL));
  ck_assert_int_eq (g_chmod (script, 0755), 0);
  g_setenv ("FERRY_PLUGIN_SCANNER", script, TRUE);

  return counter;
}

static int
read_count (const char *counter)
{
  g_autofree char *text = NULL;

  return g_file_get_contents (counter, &text, NULL, NULL) ? (int) strlen (text) / 2 : 0;
}

static void
assert_state (FerryRegistry *registry, const char *name, FerryPluginState state, const char *reason)
{
  g_autoptr (FerryPlugin) plugin = ferry_registry_find_plugin (registry, name);

  ck_assert_msg (plugin != NULL, "plugin %s was not found", name);
  ck_assert_msg (ferry_plugin_get_state (plugin) == state, "%s is in state %d: %s", name,
                 ferry_plugin_get_state (plugin), ferry_plugin_get_reason (plugin));
  if (reason != NULL)
    ferry_assert_contains (ferry_plugin_get_reason (plugin), reason);
  else
    ck_assert_ptr_null (ferry_plugin_get_reason (plugin));
}

START_TEST (empty)
{
  g_autoptr (FerryRegistry) registry = make_registry ();
  g_autoptr (GError) error = NULL;
  g_autoptr (GPtrArray) plugins = NULL;
  g_autoptr (FerryCodecFactory) raw = NULL;
  g_autoptr (FerryCodecFactory) gvariant = NULL;

  ck_assert (ferry_registry_scan (registry, &error));
  ferry_assert_no_error (error);
  plugins = ferry_registry_list_plugins (registry);
  ck_assert_uint_eq (plugins->len, 1);
  ck_assert_str_eq (ferry_plugin_get_name (g_ptr_array_index (plugins, 0)), "core");

  raw = ferry_registry_find_codec (registry, "raw");
  ck_assert_ptr_nonnull (raw);
  ck_assert_str_eq (ferry_feature_get_plugin_name (FERRY_FEATURE (raw)), "core");
  gvariant = ferry_registry_find_codec_by_wire_name (registry, "gvariant", 1);
  ck_assert_ptr_nonnull (gvariant);

  /* Nothing was scanned, so there is nothing to remember. */
  ck_assert (!g_file_test (cache_file, G_FILE_TEST_EXISTS));
}
END_TEST

START_TEST (missing_folder)
{
  const char *paths[] = { "/nonexistent/folder", NULL };
  g_autoptr (FerryRegistry) registry = ferry_registry_new (paths, cache_file);
  g_autoptr (GPtrArray) features = NULL;
  g_autoptr (GError) error = NULL;

  ck_assert (ferry_registry_scan (registry, &error));
  features = ferry_registry_list_features (registry, FERRY_TYPE_TRANSPORT_FACTORY);
  ck_assert_uint_eq (features->len, 0);
  ck_assert_ptr_null (ferry_registry_create_transport (registry, NULL, &error));
  ferry_assert_error (error, FERRY_ERROR, FERRY_ERROR_NO_SUCH_FEATURE);
}
END_TEST

START_TEST (good)
{
  g_autoptr (FerryRegistry) registry = NULL;
  g_autoptr (FerryPlugin) plugin = NULL;
  g_autoptr (GPtrArray) features = NULL;
  g_autoptr (GPtrArray) transports = NULL;

  install ("good");
  registry = make_registry ();
  plugin = ferry_registry_find_plugin (registry, "good");
  ck_assert_ptr_nonnull (plugin);
  ck_assert_int_eq (ferry_plugin_get_state (plugin), FERRY_PLUGIN_STATE_OK);
  ck_assert_str_eq (ferry_plugin_get_version (plugin), "0.1");
  ck_assert_str_eq (ferry_plugin_get_license (plugin), "LGPL-2.1-or-later");
  ck_assert_str_eq (ferry_plugin_get_origin (plugin), "the tests of Ferry");
  ck_assert_str_eq (ferry_plugin_get_description (plugin), "A good plugin of the tests");
  ck_assert (!ferry_plugin_is_loaded (plugin));

  features = ferry_plugin_list_features (plugin);
  ck_assert_uint_eq (features->len, 2);
  transports = ferry_registry_list_features (registry, FERRY_TYPE_TRANSPORT_FACTORY);
  ck_assert_uint_eq (transports->len, 1);
  ck_assert_str_eq (ferry_feature_get_name (g_ptr_array_index (transports, 0)), "fixture-null");
}
END_TEST

START_TEST (subfolder)
{
  g_autofree char *sub = g_build_filename (folder, "sub", NULL);
  g_autofree char *deep = g_build_filename (sub, "deep", NULL);
  g_autoptr (FerryRegistry) registry = make_registry ();
  g_autoptr (FerryPlugin) too_deep = NULL;

  ck_assert_int_eq (g_mkdir_with_parents (deep, 0755), 0);
  g_free (ferry_test_install_plugin ("good", sub));
  g_free (ferry_test_install_plugin ("decline", deep));
  assert_state (registry, "good", FERRY_PLUGIN_STATE_OK, NULL);
  too_deep = ferry_registry_find_plugin (registry, "decline");
  ck_assert_ptr_null (too_deep);
}
END_TEST

START_TEST (no_code_before_use)
{
  g_autoptr (FerryRegistry) registry = NULL;
  g_autoptr (FerryTransportFactory) factory = NULL;
  g_autoptr (FerryTransport) transport = NULL;
  g_autoptr (GError) error = NULL;

  install ("good");
  registry = make_registry ();
  factory = ferry_registry_find_transport (registry, "fixture-null");
  ck_assert_ptr_nonnull (factory);
  ck_assert_ptr_null (g_getenv ("FERRY_FIXTURE_LOADED"));
  ck_assert_uint_eq (g_type_from_name ("GoodTransport"), 0);

  transport = ferry_registry_create_transport (registry, "fixture-null", &error);
  ferry_assert_no_error (error);
  ck_assert_ptr_nonnull (transport);
  ck_assert_ptr_nonnull (g_getenv ("FERRY_FIXTURE_LOADED"));
  ck_assert (ferry_feature_is_loaded (FERRY_FEATURE (factory)));
}
END_TEST

START_TEST (warm_cache)
{
  g_autofree char *counter = count_scanner_starts ();

  install ("good");
  install ("wrong-abi");
  install ("decline");
  for (int i = 0; i < 3; i++)
    {
      g_autoptr (FerryRegistry) registry = make_registry ();
      g_autoptr (FerryCodecFactory) factory = ferry_registry_find_codec (registry, "fixture-echo");

      ck_assert_ptr_nonnull (factory);
      ck_assert_int_eq (ferry_codec_factory_get_wire_version (factory), 3);
      assert_state (registry, "wrong-abi", FERRY_PLUGIN_STATE_BLACKLISTED, "ABI");
      assert_state (registry, "decline", FERRY_PLUGIN_STATE_UNAVAILABLE, "/dev/fixture");
      if (i == 0)
        {
          ck_assert_int_ge (read_count (counter), 1);
          g_remove (counter);
        }
      else
        {
          ck_assert_int_eq (read_count (counter), 0);
        }
    }
}
END_TEST

START_TEST (one_helper_for_many)
{
  g_autofree char *counter = count_scanner_starts ();
  g_autoptr (FerryRegistry) registry = make_registry ();

  install ("better");
  install ("good");
  assert_state (registry, "better", FERRY_PLUGIN_STATE_OK, NULL);
  assert_state (registry, "good", FERRY_PLUGIN_STATE_OK, NULL);
  ck_assert_int_eq (read_count (counter), 1);
}
END_TEST

START_TEST (changed_file)
{
  g_autoptr (FerryRegistry) registry = make_registry ();
  g_autofree char *path = ferry_test_install_plugin ("good", folder);
  g_autofree char *counter = count_scanner_starts ();
  g_autoptr (FerryPlugin) gone = NULL;
  g_autoptr (GError) error = NULL;

  assert_state (registry, "good", FERRY_PLUGIN_STATE_OK, NULL);
  ck_assert_int_eq (read_count (counter), 1);

  /* Unchanged: not scanned */
  ck_assert (ferry_registry_scan (registry, &error));
  ck_assert_int_eq (read_count (counter), 1);

  ck_assert (g_file_set_contents (path, "no longer a library", -1, NULL));
  ck_assert (ferry_registry_scan (registry, &error));
  ck_assert_int_eq (read_count (counter), 2);
  assert_state (registry, "good", FERRY_PLUGIN_STATE_BLACKLISTED, "not a shared object");

  g_free (ferry_test_install_plugin ("good", folder));
  ck_assert (ferry_registry_scan (registry, &error));
  assert_state (registry, "good", FERRY_PLUGIN_STATE_OK, NULL);

  g_remove (path);
  ck_assert (ferry_registry_scan (registry, &error));
  gone = ferry_registry_find_plugin (registry, "good");
  ck_assert_ptr_null (gone);
}
END_TEST

START_TEST (rescan)
{
  g_autofree char *counter = count_scanner_starts ();
  g_autoptr (FerryRegistry) registry = make_registry ();
  g_autoptr (GError) error = NULL;

  install ("good");
  assert_state (registry, "good", FERRY_PLUGIN_STATE_OK, NULL);
  ck_assert (ferry_registry_rescan (registry, &error));
  ck_assert_int_eq (read_count (counter), 2);
}
END_TEST

/* The cache may hold anything at all. */
static const char *const bad_caches[] = {
  "",
  "\0\1\2",
  "not json",
  "{",
  "[]",
  "null",
  "7",
  "{\"format\": 1}",
  "{\"format\": \"1\", \"library\": 1.0, \"files\": {}}",
  "{\"format\": 2, \"library\": \"1.0.0\", \"files\": {}}",
  "{\"format\": 1, \"library\": \"0.9.0\", \"files\": {}}",
  "{\"format\": 1, \"library\": \"1.0.0\", \"files\": []}",
  "{\"format\": 1, \"library\": \"1.0.0\", \"files\": {\"%zz\": {}, \"x\": 3, \"y\": []}}",
};

START_TEST (bad_cache)
{
  g_autoptr (FerryRegistry) registry = make_registry ();
  g_autofree char *cache_folder = g_path_get_dirname (cache_file);
  g_autofree char *after = NULL;

  install ("good");
  ck_assert_int_eq (g_mkdir (cache_folder, 0700), 0);
  ck_assert (g_file_set_contents (cache_file, bad_caches[_i], -1, NULL));

  assert_state (registry, "good", FERRY_PLUGIN_STATE_OK, NULL);
  ck_assert_uint_eq (warnings->len, 0);
  ck_assert (g_file_get_contents (cache_file, &after, NULL, NULL));
  ferry_assert_contains (after, "fixture-echo");
}
END_TEST

/* Replacements in a good cache, each of which makes the entry useless. */
static const char *const bad_entries[][2] = {
  { "\"mtime\"", "\"time\"" },
  { "\"size\" : ", "\"size\" : 1" },
  { "\"inode\" : ", "\"inode\" : 1.5e" },
  { "\"ok\"", "\"perfect\"" },
  { "\"ok\"", "\"blacklisted\"" },
  { "\"ok\"", "null" },
  { "\"features\"", "\"creatures\"" },
  { "\"kind\" : \"codec\"", "\"kind\" : \"kodek\"" },
  { "\"kind\" : \"codec\"", "\"kind\" : 1" },
  { "\"fixture-echo\"", "\"../fixture\"" },
  { "\"fixture-echo\"", "{}" },
  { "\"rank\" : 128", "\"rank\" : -128" },
  { "\"rank\" : 128", "\"rank\" : 12800000000" },
  { "\"wire-name\"", "\"name-of-wire\"" },
  { "\"wire-version\" : 3", "\"wire-version\" : true" },
  { "\"capabilities\" : ", "\"capabilities\" : -" },
};

START_TEST (bad_entry)
{
  g_autofree char *counter = count_scanner_starts ();
  g_autofree char *text = NULL;
  g_autoptr (GString) damaged = NULL;
  g_autoptr (FerryRegistry) again = NULL;

  install ("good");
  {
    g_autoptr (FerryRegistry) registry = make_registry ();

    assert_state (registry, "good", FERRY_PLUGIN_STATE_OK, NULL);
  }
  ck_assert (g_file_get_contents (cache_file, &text, NULL, NULL));
  damaged = g_string_new (text);
  ck_assert_uint_gt (g_string_replace (damaged, bad_entries[_i][0], bad_entries[_i][1], 1), 0);
  ck_assert (g_file_set_contents (cache_file, damaged->str, -1, NULL));

  again = make_registry ();
  assert_state (again, "good", FERRY_PLUGIN_STATE_OK, NULL);
  ck_assert_int_eq (read_count (counter), 2);
  ck_assert_uint_eq (warnings->len, 0);
}
END_TEST

START_TEST (cache_deleted)
{
  g_autoptr (FerryRegistry) registry = make_registry ();
  g_autoptr (FerryRegistry) again = make_registry ();
  struct stat info;

  install ("good");
  assert_state (registry, "good", FERRY_PLUGIN_STATE_OK, NULL);
  ck_assert_int_eq (stat (cache_file, &info), 0);
  ck_assert_uint_eq (info.st_mode & 0777, 0600);
  g_remove (cache_file);
  assert_state (again, "good", FERRY_PLUGIN_STATE_OK, NULL);
  ck_assert (g_file_test (cache_file, G_FILE_TEST_EXISTS));
}
END_TEST

START_TEST (cache_not_writable)
{
  g_autoptr (FerryRegistry) registry = NULL;
  const char *paths[] = { folder, NULL };

  install ("good");
  /* Not even root makes folders in a file. */
  registry = ferry_registry_new (paths, "/dev/null/cache/registry.json");
  assert_state (registry, "good", FERRY_PLUGIN_STATE_OK, NULL);
  ck_assert_uint_eq (warnings->len, 0);
}
END_TEST

START_TEST (no_cache)
{
  const char *paths[] = { folder, NULL };
  g_autoptr (FerryRegistry) registry = ferry_registry_new (paths, NULL);

  install ("good");
  assert_state (registry, "good", FERRY_PLUGIN_STATE_OK, NULL);
  ck_assert_ptr_null (ferry_registry_get_cache_file (registry));
}
END_TEST

START_TEST (cache_keeps_other_folders)
{
  g_autofree char *other = g_build_filename (top, "other", NULL);
  const char *other_paths[] = { other, NULL };
  g_autofree char *counter = count_scanner_starts ();

  install ("good");
  ck_assert_int_eq (g_mkdir (other, 0755), 0);
  g_free (ferry_test_install_plugin ("better", other));
  for (int i = 0; i < 2; i++)
    {
      g_autoptr (FerryRegistry) registry = make_registry ();
      g_autoptr (FerryRegistry) registry_of_other = ferry_registry_new (other_paths, cache_file);

      assert_state (registry, "good", FERRY_PLUGIN_STATE_OK, NULL);
      assert_state (registry_of_other, "better", FERRY_PLUGIN_STATE_OK, NULL);
    }
  ck_assert_int_eq (read_count (counter), 2);
}
END_TEST

START_TEST (update_no)
{
  g_autofree char *counter = count_scanner_starts ();
  g_autoptr (FerryRegistry) first = make_registry ();
  g_autoptr (FerryRegistry) second = make_registry ();
  g_autoptr (FerryPlugin) unseen = NULL;

  install ("good");
  g_setenv ("FERRY_REGISTRY_UPDATE", "no", TRUE);
  /* Without a cache there is nothing to go by, so it looks. */
  assert_state (first, "good", FERRY_PLUGIN_STATE_OK, NULL);
  ck_assert_int_eq (read_count (counter), 1);

  install ("decline");
  assert_state (second, "good", FERRY_PLUGIN_STATE_OK, NULL);
  unseen = ferry_registry_find_plugin (second, "decline");
  ck_assert_ptr_null (unseen);
  ck_assert_int_eq (read_count (counter), 1);
}
END_TEST

START_TEST (update_force)
{
  g_autofree char *counter = count_scanner_starts ();
  g_autoptr (FerryRegistry) first = make_registry ();
  g_autoptr (FerryRegistry) second = make_registry ();

  install ("good");
  assert_state (first, "good", FERRY_PLUGIN_STATE_OK, NULL);
  g_setenv ("FERRY_REGISTRY_UPDATE", "force", TRUE);
  assert_state (second, "good", FERRY_PLUGIN_STATE_OK, NULL);
  ck_assert_int_eq (read_count (counter), 2);
}
END_TEST

/* Fixture, state, what the reason says */
static const struct
{
  const char *fixture;
  FerryPluginState state;
  const char *reason;
} bad_plugins[] = {
  { "crash", FERRY_PLUGIN_STATE_BLACKLISTED, "crashed with signal 11 (Segmentation fault) while loading" },
  { "crash-in-init", FERRY_PLUGIN_STATE_BLACKLISTED, "crashed with signal 6" },
  { "exit", FERRY_PLUGIN_STATE_BLACKLISTED, "ended the process, with exit status 3" },
  { "wrong-abi", FERRY_PLUGIN_STATE_BLACKLISTED, "built for plugin ABI 99, this library has 1" },
  { "wrong-name", FERRY_PLUGIN_STATE_BLACKLISTED, "calls itself 'other', its file's name says 'wrong-name'" },
  { "wrong-magic", FERRY_PLUGIN_STATE_BLACKLISTED, "0x12345678" },
  { "wrong-size", FERRY_PLUGIN_STATE_BLACKLISTED, "40 bytes" },
  { "wrong-major", FERRY_PLUGIN_STATE_UNAVAILABLE, "made for Ferry 2.0" },
  { "newer-minor", FERRY_PLUGIN_STATE_UNAVAILABLE, "made for Ferry 1.99" },
  { "no-name", FERRY_PLUGIN_STATE_BLACKLISTED, "no name" },
  { "no-description", FERRY_PLUGIN_STATE_BLACKLISTED, "no description" },
  { "no-version", FERRY_PLUGIN_STATE_BLACKLISTED, "no version" },
  { "no-license", FERRY_PLUGIN_STATE_BLACKLISTED, "no license" },
  { "no-origin", FERRY_PLUGIN_STATE_BLACKLISTED, "no origin" },
  { "no-init", FERRY_PLUGIN_STATE_BLACKLISTED, "no init function" },
  { "missing-symbol", FERRY_PLUGIN_STATE_BLACKLISTED, "no symbol 'ferry_plugin_missing_symbol_desc'" },
  { "unresolved", FERRY_PLUGIN_STATE_UNAVAILABLE, "ferry_fixture_nowhere" },
  { "text", FERRY_PLUGIN_STATE_BLACKLISTED, "not a shared object" },
  { "decline", FERRY_PLUGIN_STATE_UNAVAILABLE, "the device /dev/fixture is not plugged in" },
  { "decline-silently", FERRY_PLUGIN_STATE_UNAVAILABLE, "did not say why" },
  { "nothing", FERRY_PLUGIN_STATE_BLACKLISTED, "registers no feature" },
  { "bad-type", FERRY_PLUGIN_STATE_BLACKLISTED, "GInitiallyUnowned" },
  { "bad-name", FERRY_PLUGIN_STATE_BLACKLISTED, "Fixture/Bad" },
  { "bad-wire-name", FERRY_PLUGIN_STATE_BLACKLISTED, "a-name-too-long" },
};

START_TEST (bad_plugin)
{
  g_autoptr (FerryRegistry) registry = make_registry ();
  g_autoptr (GPtrArray) features = NULL;
  g_autoptr (GError) error = NULL;

  install (bad_plugins[_i].fixture);
  assert_state (registry, bad_plugins[_i].fixture, bad_plugins[_i].state, bad_plugins[_i].reason);

  features = ferry_registry_list_features (registry, FERRY_TYPE_TRANSPORT_FACTORY);
  ck_assert_uint_eq (features->len, 0);
  ck_assert_ptr_null (ferry_registry_create_codec (registry, bad_plugins[_i].fixture, &error));
  ferry_assert_error (error, FERRY_ERROR, FERRY_ERROR_PLUGIN);
  ferry_assert_contains (error->message, bad_plugins[_i].reason);
}
END_TEST

/* All at once: each is blamed for what it did, and the good ones work. */
START_TEST (bad_among_good)
{
  g_autoptr (FerryRegistry) registry = make_registry ();
  g_autoptr (FerryCodecFactory) factory = NULL;

  for (guint i = 0; i < G_N_ELEMENTS (bad_plugins); i++)
    install (bad_plugins[i].fixture);
  install ("good");
  install ("print");

  for (guint i = 0; i < G_N_ELEMENTS (bad_plugins); i++)
    assert_state (registry, bad_plugins[i].fixture, bad_plugins[i].state, bad_plugins[i].reason);
  assert_state (registry, "good", FERRY_PLUGIN_STATE_OK, NULL);
  assert_state (registry, "print", FERRY_PLUGIN_STATE_OK, NULL);
  factory = ferry_registry_find_codec (registry, "fixture-echo");
  ck_assert_ptr_nonnull (factory);
}
END_TEST

static void
check_hang (const char *fixture, const char *reason)
{
  g_autoptr (FerryRegistry) registry = make_registry ();
  g_autoptr (FerryRegistry) again = make_registry ();
  gint64 began = g_get_monotonic_time ();

  g_setenv ("FERRY_PLUGIN_SCAN_TIMEOUT", "500", TRUE);
  install (fixture);
  install ("good");
  assert_state (registry, fixture, FERRY_PLUGIN_STATE_BLACKLISTED, reason);
  assert_state (registry, "good", FERRY_PLUGIN_STATE_OK, NULL);
  ck_assert_int_ge (g_get_monotonic_time () - began, G_USEC_PER_SEC / 2);

  /* Once is enough. */
  began = g_get_monotonic_time ();
  assert_state (again, fixture, FERRY_PLUGIN_STATE_BLACKLISTED, reason);
  ck_assert_int_lt (g_get_monotonic_time () - began, G_USEC_PER_SEC / 2);
}

START_TEST (hang) { check_hang ("hang", "did not finish within 0.5 s"); }
END_TEST

START_TEST (close_all) { check_hang ("close-all", "ended the process"); }
END_TEST

START_TEST (bad_timeout)
{
  g_autoptr (FerryRegistry) registry = make_registry ();

  g_setenv ("FERRY_PLUGIN_SCAN_TIMEOUT", "soon", TRUE);
  install ("good");
  assert_state (registry, "good", FERRY_PLUGIN_STATE_OK, NULL);
  ck_assert_uint_eq (warnings->len, 1);
  ferry_assert_contains (g_ptr_array_index (warnings, 0), "'soon'");
}
END_TEST

START_TEST (no_scanner)
{
  g_autofree char *scanner = g_strdup (g_getenv ("FERRY_PLUGIN_SCANNER"));
  g_autoptr (FerryRegistry) registry = make_registry ();
  g_autoptr (GError) error = NULL;

  install ("good");
  g_setenv ("FERRY_PLUGIN_SCANNER", "/nonexistent/scanner", TRUE);
  ck_assert (!ferry_registry_scan (registry, &error));
  ferry_assert_error (error, FERRY_ERROR, FERRY_ERROR_PLUGIN);
  ferry_assert_contains (error->message, "/nonexistent/scanner");
  assert_state (registry, "good", FERRY_PLUGIN_STATE_UNAVAILABLE, "/nonexistent/scanner");

  /* It was not the plugin's fault, so it is not remembered. */
  g_clear_error (&error);
  g_setenv ("FERRY_PLUGIN_SCANNER", scanner, TRUE);
  ck_assert (ferry_registry_scan (registry, &error));
  assert_state (registry, "good", FERRY_PLUGIN_STATE_OK, NULL);
}
END_TEST

START_TEST (wrong_scanner)
{
  g_autoptr (FerryRegistry) registry = make_registry ();
  g_autoptr (GError) error = NULL;

  install ("good");
  g_setenv ("FERRY_PLUGIN_SCANNER", "/bin/true", TRUE);
  ck_assert (!ferry_registry_scan (registry, &error));
  ferry_assert_error (error, FERRY_ERROR, FERRY_ERROR_PLUGIN);
}
END_TEST

START_TEST (became_available)
{
  g_autofree char *device = g_build_filename (top, "device", NULL);
  g_autoptr (FerryRegistry) registry = make_registry ();
  g_autoptr (FerryRegistry) again = make_registry ();
  g_autoptr (FerryCodec) codec = NULL;
  g_autoptr (GError) error = NULL;

  install ("need-device");
  g_setenv ("FERRY_FIXTURE_DEVICE", device, TRUE);
  assert_state (registry, "need-device", FERRY_PLUGIN_STATE_UNAVAILABLE, "not plugged in");

  /* The plugin's file does not change, but asking for it makes the registry look. */
  ck_assert (g_file_set_contents (device, "", 0, NULL));
  codec = ferry_registry_create_codec (again, "fixture-device", &error);
  ferry_assert_no_error (error);
  ck_assert_ptr_nonnull (codec);
}
END_TEST

START_TEST (broke_after_scan)
{
  g_autofree char *device = g_build_filename (top, "device", NULL);
  g_autoptr (FerryRegistry) registry = make_registry ();
  g_autoptr (GError) error = NULL;

  install ("need-device");
  g_setenv ("FERRY_FIXTURE_DEVICE", device, TRUE);
  ck_assert (g_file_set_contents (device, "", 0, NULL));
  assert_state (registry, "need-device", FERRY_PLUGIN_STATE_OK, NULL);

  g_remove (device);
  ck_assert_ptr_null (ferry_registry_create_codec (registry, "fixture-device", &error));
  ferry_assert_error (error, FERRY_ERROR, FERRY_ERROR_PLUGIN);
  ferry_assert_contains (error->message, "need-device");
  ferry_assert_contains (error->message, "not plugged in");
}
END_TEST

START_TEST (vanished_after_scan)
{
  g_autofree char *path = ferry_test_install_plugin ("good", folder);
  g_autoptr (FerryRegistry) registry = make_registry ();
  g_autoptr (GError) error = NULL;

  assert_state (registry, "good", FERRY_PLUGIN_STATE_OK, NULL);
  g_remove (path);
  ck_assert_ptr_null (ferry_registry_create_codec (registry, "fixture-echo", &error));
  ferry_assert_error (error, FERRY_ERROR, FERRY_ERROR_PLUGIN);
  ferry_assert_contains (error->message, path);
}
END_TEST

START_TEST (duplicate_same_rank)
{
  g_autofree char *second = g_build_filename (top, "second", NULL);
  const char *paths[] = { folder, second, NULL };
  g_autoptr (FerryRegistry) registry = ferry_registry_new (paths, cache_file);
  g_autoptr (FerryCodecFactory) factory = NULL;

  install ("good");
  ck_assert_int_eq (g_mkdir (second, 0755), 0);
  g_free (ferry_test_install_plugin ("duplicate", second));

  factory = ferry_registry_find_codec (registry, "fixture-echo");
  ck_assert_str_eq (ferry_feature_get_plugin_name (FERRY_FEATURE (factory)), "good");
  ck_assert_ptr_null (ferry_feature_get_reason (FERRY_FEATURE (factory)));
  assert_state (registry, "good", FERRY_PLUGIN_STATE_OK, NULL);
  assert_state (registry, "duplicate", FERRY_PLUGIN_STATE_UNAVAILABLE,
                "plugin 'good' offers the codec 'fixture-echo' too and comes first");
}
END_TEST

START_TEST (duplicate_higher_rank)
{
  g_autofree char *second = g_build_filename (top, "second", NULL);
  const char *paths[] = { folder, second, NULL };
  g_autoptr (FerryRegistry) registry = ferry_registry_new (paths, cache_file);
  g_autoptr (FerryCodecFactory) factory = NULL;
  g_autoptr (FerryPlugin) good_plugin = NULL;
  g_autoptr (GPtrArray) features = NULL;

  install ("good");
  ck_assert_int_eq (g_mkdir (second, 0755), 0);
  g_free (ferry_test_install_plugin ("better", second));

  factory = ferry_registry_find_codec (registry, "fixture-echo");
  ck_assert_str_eq (ferry_feature_get_plugin_name (FERRY_FEATURE (factory)), "better");

  /* The other plugin still offers its transport. */
  assert_state (registry, "good", FERRY_PLUGIN_STATE_OK, NULL);
  good_plugin = ferry_registry_find_plugin (registry, "good");
  features = ferry_plugin_list_features (good_plugin);
  ck_assert_ptr_null (ferry_feature_get_reason (g_ptr_array_index (features, 0)));
  ferry_assert_contains (ferry_feature_get_reason (g_ptr_array_index (features, 1)), "higher rank, 256");
}
END_TEST

START_TEST (duplicate_plugin)
{
  g_autofree char *second = g_build_filename (top, "second", NULL);
  const char *paths[] = { folder, second, NULL };
  g_autoptr (FerryRegistry) registry = ferry_registry_new (paths, cache_file);
  g_autofree char *first_path = ferry_test_install_plugin ("good", folder);
  g_autoptr (GPtrArray) plugins = NULL;
  FerryPlugin *loser;

  ck_assert_int_eq (g_mkdir (second, 0755), 0);
  g_free (ferry_test_install_plugin ("good", second));
  plugins = ferry_registry_list_plugins (registry);
  ck_assert_uint_eq (plugins->len, 3);
  loser = g_ptr_array_index (plugins, 2);
  ck_assert_int_eq (ferry_plugin_get_state (loser), FERRY_PLUGIN_STATE_UNAVAILABLE);
  ferry_assert_contains (ferry_plugin_get_reason (loser), first_path);

  /* Without the first one the second is used. */
  g_remove (first_path);
  ck_assert (ferry_registry_scan (registry, NULL));
  assert_state (registry, "good", FERRY_PLUGIN_STATE_OK, NULL);
}
END_TEST

START_TEST (folder_named_twice)
{
  const char *paths[] = { folder, folder, NULL };
  g_autoptr (FerryRegistry) registry = ferry_registry_new (paths, cache_file);
  g_autoptr (GPtrArray) plugins = NULL;

  install ("good");
  plugins = ferry_registry_list_plugins (registry);
  ck_assert_uint_eq (plugins->len, 2);
}
END_TEST

START_TEST (rank_overridden)
{
  g_autoptr (FerryRegistry) registry = make_registry ();
  g_autoptr (FerryCodecFactory) factory = NULL;
  g_autoptr (FerryCodecFactory) raw = NULL;
  g_autoptr (FerryCodecFactory) by_wire_name = NULL;
  g_autoptr (FerryTransportFactory) transport = NULL;

  install ("good");
  g_setenv ("FERRY_FEATURE_RANK", " fixture-null:none, fixture-echo:primary,,raw:7,nobody:secondary", TRUE);
  factory = ferry_registry_find_codec (registry, "fixture-echo");
  ck_assert_int_eq (ferry_feature_get_rank (FERRY_FEATURE (factory)), FERRY_RANK_PRIMARY);
  raw = ferry_registry_find_codec (registry, "raw");
  ck_assert_int_eq (ferry_feature_get_rank (FERRY_FEATURE (raw)), 7);
  transport = ferry_registry_select_transport (registry, FERRY_TRANSPORT_CAPABILITIES_NONE, NULL);
  ck_assert_ptr_null (transport);
  by_wire_name = ferry_registry_find_codec_by_wire_name (registry, "fixture", 3);
  ck_assert_ptr_eq (by_wire_name, factory);
  ck_assert_uint_eq (warnings->len, 0);
}
END_TEST

START_TEST (rank_not_understood)
{
  g_autoptr (FerryRegistry) registry = make_registry ();
  g_autoptr (FerryCodecFactory) raw = NULL;

  g_setenv ("FERRY_FEATURE_RANK", "raw,raw:,raw:best,:3,raw:-1,raw:99999999999", TRUE);
  raw = ferry_registry_find_codec (registry, "raw");
  ck_assert_int_eq (ferry_feature_get_rank (FERRY_FEATURE (raw)), FERRY_RANK_SECONDARY);
  ck_assert_uint_eq (warnings->len, 6);
  ferry_assert_contains (g_ptr_array_index (warnings, 2), "raw:best");
}
END_TEST

START_TEST (find_by_wire_name)
{
  g_autoptr (FerryRegistry) registry = make_registry ();
  g_autoptr (FerryCodecFactory) older = NULL;
  g_autoptr (FerryCodecFactory) newer = NULL;
  g_autoptr (FerryCodecFactory) unknown = NULL;

  install ("good");
  older = ferry_registry_find_codec_by_wire_name (registry, "fixture", 1);
  ck_assert_ptr_nonnull (older);
  newer = ferry_registry_find_codec_by_wire_name (registry, "fixture", 4);
  ck_assert_ptr_null (newer);
  unknown = ferry_registry_find_codec_by_wire_name (registry, "fixtur", 1);
  ck_assert_ptr_null (unknown);
}
END_TEST

START_TEST (rank_none_decodes_nothing)
{
  g_autoptr (FerryRegistry) registry = make_registry ();
  g_autoptr (FerryCodecFactory) named = NULL;
  g_autoptr (FerryCodecFactory) by_wire_name = NULL;

  install ("good");
  g_setenv ("FERRY_FEATURE_RANK", "fixture-echo:none", TRUE);
  named = ferry_registry_find_codec (registry, "fixture-echo");
  ck_assert_ptr_nonnull (named);
  by_wire_name = ferry_registry_find_codec_by_wire_name (registry, "fixture", 1);
  ck_assert_ptr_null (by_wire_name);
}
END_TEST

START_TEST (select_by_capability)
{
  g_autoptr (FerryRegistry) registry = make_registry ();
  g_autoptr (FerryTransportFactory) found = NULL;
  g_autoptr (FerryTransport) best = NULL;
  g_autoptr (GError) error = NULL;

  install ("good");
  found = ferry_registry_select_transport (registry, FERRY_TRANSPORT_CAPABILITIES_BROADCAST, &error);
  ferry_assert_no_error (error);
  ck_assert_str_eq (ferry_feature_get_name (FERRY_FEATURE (found)), "fixture-null");

  ck_assert_ptr_null (ferry_registry_select_transport (
      registry, FERRY_TRANSPORT_CAPABILITIES_BROADCAST | FERRY_TRANSPORT_CAPABILITIES_CROSS_HOST, &error));
  ferry_assert_error (error, FERRY_ERROR, FERRY_ERROR_NO_SUCH_FEATURE);
  ferry_assert_contains (error->message, "CROSS_HOST");
  g_clear_error (&error);

  best = ferry_registry_create_transport (registry, NULL, &error);
  ferry_assert_no_error (error);
  ck_assert_ptr_nonnull (best);
}
END_TEST

START_TEST (unknown_names)
{
  g_autoptr (FerryRegistry) registry = make_registry ();
  g_autoptr (GError) error = NULL;

  install ("good");
  ck_assert_ptr_null (ferry_registry_create_transport (registry, "fixture-nul", &error));
  ferry_assert_error (error, FERRY_ERROR, FERRY_ERROR_NO_SUCH_FEATURE);
  ferry_assert_contains (error->message, "did you mean 'fixture-null'?");
  g_clear_error (&error);

  ck_assert_ptr_null (ferry_registry_create_codec (registry, "gvairant", &error));
  ferry_assert_error (error, FERRY_ERROR, FERRY_ERROR_NO_SUCH_FEATURE);
  ferry_assert_contains (error->message, "did you mean 'gvariant'?");
  g_clear_error (&error);

  ck_assert_ptr_null (ferry_registry_create_codec (registry, "something-else", &error));
  ferry_assert_error (error, FERRY_ERROR, FERRY_ERROR_NO_SUCH_FEATURE);
  ferry_assert_contains (error->message, "raw");
  g_clear_error (&error);

  ck_assert_ptr_null (ferry_registry_create_codec (registry, "\377\376", &error));
  ferry_assert_error (error, FERRY_ERROR, FERRY_ERROR_NO_SUCH_FEATURE);
  ck_assert (g_utf8_validate (error->message, -1, NULL));
}
END_TEST

static void
check_unsafe (FerryRegistry *registry)
{
  g_autoptr (FerryCodecFactory) factory = NULL;

  assert_state (registry, "good", FERRY_PLUGIN_STATE_UNAVAILABLE, "unsafe");
  factory = ferry_registry_find_codec (registry, "fixture-echo");
  ck_assert_ptr_null (factory);
  ck_assert_uint_eq (warnings->len, 1);
  ferry_assert_contains (g_ptr_array_index (warnings, 0), "FERRY_PLUGIN_ALLOW_UNSAFE");
}

START_TEST (unsafe_folder)
{
  g_autofree char *counter = count_scanner_starts ();
  g_autoptr (FerryRegistry) registry = make_registry ();

  install ("good");
  ck_assert_int_eq (g_chmod (folder, 0777), 0);
  check_unsafe (registry);
  ck_assert_int_eq (read_count (counter), 0);

  /* Made safe */
  ck_assert_int_eq (g_chmod (folder, 0755), 0);
  ck_assert (ferry_registry_scan (registry, NULL));
  assert_state (registry, "good", FERRY_PLUGIN_STATE_OK, NULL);
}
END_TEST

START_TEST (unsafe_file)
{
  g_autofree char *path = ferry_test_install_plugin ("good", folder);
  g_autoptr (FerryRegistry) registry = make_registry ();

  ck_assert_int_eq (g_chmod (path, 0666), 0);
  check_unsafe (registry);
}
END_TEST

START_TEST (unsafe_owner)
{
  g_autofree char *path = ferry_test_install_plugin ("good", folder);
  g_autoptr (FerryRegistry) registry = make_registry ();

  /* Only root can give files away. */
  if (chown (path, 54321, (gid_t) -1) != 0)
    return;
  check_unsafe (registry);
  ferry_assert_contains (g_ptr_array_index (warnings, 0), "54321");
}
END_TEST

START_TEST (unsafe_after_scan)
{
  g_autofree char *path = ferry_test_install_plugin ("good", folder);
  g_autoptr (FerryRegistry) registry = make_registry ();
  g_autoptr (GError) error = NULL;

  assert_state (registry, "good", FERRY_PLUGIN_STATE_OK, NULL);
  ck_assert_int_eq (g_chmod (path, 0666), 0);
  ck_assert_ptr_null (ferry_registry_create_codec (registry, "fixture-echo", &error));
  ferry_assert_error (error, FERRY_ERROR, FERRY_ERROR_PLUGIN);
  ferry_assert_contains (error->message, "unsafe");
}
END_TEST

START_TEST (unsafe_allowed)
{
  g_autoptr (FerryRegistry) registry = make_registry ();

  install ("good");
  ck_assert_int_eq (g_chmod (folder, 0777), 0);
  g_setenv ("FERRY_PLUGIN_ALLOW_UNSAFE", "1", TRUE);
  assert_state (registry, "good", FERRY_PLUGIN_STATE_OK, NULL);
  ck_assert_uint_eq (warnings->len, 0);
}
END_TEST

/* The environment of a developer must not decide what is remembered for all. */
START_TEST (fatal_warnings_in_helper)
{
  g_autoptr (FerryRegistry) registry = make_registry ();

  g_setenv ("G_DEBUG", "fatal-criticals", TRUE);
  install ("bad-type");
  install ("bad-name");
  assert_state (registry, "bad-type", FERRY_PLUGIN_STATE_BLACKLISTED, "GInitiallyUnowned");
  assert_state (registry, "bad-name", FERRY_PLUGIN_STATE_BLACKLISTED, "Fixture/Bad");
}
END_TEST

START_TEST (strange_file_names)
{
  const char *names[]
      = { "libferry-.so", "libferry-Upper.so", "libferry-a.b.so", "other.so", "libferry-\377.so", NULL };
  g_autoptr (FerryRegistry) registry = make_registry ();
  g_autoptr (FerryRegistry) again = make_registry ();
  g_autoptr (GPtrArray) plugins = NULL;
  g_autoptr (GPtrArray) plugins_again = NULL;

  for (guint i = 0; names[i] != NULL; i++)
    {
      g_autofree char *path = g_build_filename (folder, names[i], NULL);

      ck_assert (g_file_set_contents (path, "x", -1, NULL));
    }

  plugins = ferry_registry_list_plugins (registry);
  ck_assert_uint_eq (plugins->len, 1 + 3);
  for (guint i = 1; i < plugins->len; i++)
    {
      FerryPlugin *plugin = g_ptr_array_index (plugins, i);

      ck_assert_int_eq (ferry_plugin_get_state (plugin), FERRY_PLUGIN_STATE_BLACKLISTED);
      ferry_assert_contains (ferry_plugin_get_reason (plugin), "can't be a plugin's name");
    }

  /* From the cache they are the same. */
  plugins_again = ferry_registry_list_plugins (again);
  ck_assert_uint_eq (plugins_again->len, plugins->len);
}
END_TEST

START_TEST (features_outlive_registry)
{
  g_autoptr (FerryRegistry) registry = make_registry ();
  g_autoptr (FerryCodecFactory) factory = NULL;
  g_autoptr (FerryCodec) codec = NULL;
  g_autoptr (GError) error = NULL;

  install ("good");
  factory = ferry_registry_find_codec (registry, "fixture-echo");
  ferry_assert_last_unref (g_steal_pointer (&registry));
  codec = ferry_codec_factory_create (factory, &error);
  ferry_assert_no_error (error);
  ck_assert_str_eq (G_OBJECT_TYPE_NAME (codec), "GoodCodec");
}
END_TEST

#define N_THREADS (4)

static gpointer
use_registry (gpointer data)
{
  FerryRegistry *registry = data;

  for (int i = 0; i < 20; i++)
    {
      g_autoptr (FerryCodec) codec = ferry_registry_create_codec (registry, "fixture-echo", NULL);
      g_autoptr (GPtrArray) plugins = ferry_registry_list_plugins (registry);

      if (codec == NULL || plugins->len != 2 || !ferry_registry_scan (registry, NULL))
        return NULL;
    }

  return registry;
}

START_TEST (many_threads)
{
  g_autoptr (FerryRegistry) registry = make_registry ();
  GThread *threads[N_THREADS];

  install ("good");
  for (int i = 0; i < N_THREADS; i++)
    threads[i] = g_thread_new ("registry", use_registry, registry);
  for (int i = 0; i < N_THREADS; i++)
    ck_assert_ptr_eq (g_thread_join (threads[i]), registry);
}
END_TEST

START_TEST (default_registry)
{
  g_autofree char *second = g_build_filename (top, "second", NULL);
  g_autofree char *path = g_strdup_printf ("%s:%s", folder, second);
  const char *const *paths;
  FerryRegistry *registry;

  install ("good");
  g_setenv ("FERRY_PLUGIN_PATH", path, TRUE);
  g_setenv ("FERRY_REGISTRY", cache_file, TRUE);
  registry = ferry_registry_get_default ();
  ck_assert_ptr_eq (registry, ferry_registry_get_default ());
  ck_assert_str_eq (ferry_registry_get_cache_file (registry), cache_file);
  paths = ferry_registry_get_paths (registry);
  ck_assert_str_eq (paths[0], folder);
  ck_assert_str_eq (paths[1], second);
  ck_assert (g_str_has_suffix (paths[2], "/ferry-1.0"));
  ck_assert_ptr_null (paths[3]);
  assert_state (registry, "good", FERRY_PLUGIN_STATE_OK, NULL);
}
END_TEST

/* A codec that is in no module: the one of the core under another name. */
static gboolean
register_program_codec (FerryRegistry *registry, const char *name, int rank, GType type, GError **error)
{
  return ferry_registry_register_codec (registry, name, rank, "mine", 2, "A codec of this program", type, error);
}

static GType
codec_type (FerryRegistry *registry)
{
  g_autoptr (FerryCodecFactory) factory = ferry_registry_find_codec (registry, "raw");

  return ferry_feature_get_element_type (FERRY_FEATURE (factory));
}

START_TEST (registered_by_program)
{
  g_autoptr (FerryRegistry) registry = make_registry ();
  g_autoptr (GError) error = NULL;
  GType type = codec_type (registry);

  g_setenv ("FERRY_FEATURE_RANK", "mine:7", TRUE);
  install ("good");
  ck_assert (register_program_codec (registry, "mine", FERRY_RANK_PRIMARY, type, &error));
  ferry_assert_no_error (error);

  /* the second time after the plugins were searched again */
  for (guint i = 0; i < 2; i++)
    {
      g_autoptr (FerryCodecFactory) factory = ferry_registry_find_codec (registry, "mine");
      g_autoptr (FerryCodecFactory) decoder = ferry_registry_find_codec_by_wire_name (registry, "mine", 2);
      g_autoptr (FerryCodec) codec = ferry_registry_create_codec (registry, "mine", &error);
      g_autoptr (FerryPlugin) plugin = ferry_registry_find_plugin (registry, "mine");

      ferry_assert_no_error (error);
      ck_assert (G_OBJECT_TYPE (codec) == type);
      ck_assert_ptr_eq (factory, decoder);
      ck_assert_int_eq (ferry_feature_get_rank (FERRY_FEATURE (factory)), 7);
      ck_assert_ptr_null (ferry_plugin_get_filename (plugin));
      ck_assert_int_eq (ferry_plugin_get_state (plugin), FERRY_PLUGIN_STATE_OK);
      ck_assert (ferry_plugin_is_loaded (plugin));
      ck_assert (ferry_registry_rescan (registry, &error));
    }
  ck_assert_uint_eq (warnings->len, 0);
}
END_TEST

START_TEST (registered_wrongly)
{
  g_autoptr (FerryRegistry) registry = make_registry ();
  GType type = codec_type (registry);
  const struct
  {
    const char *name;
    int rank;
    GType type;
    const char *message;
  } wrong[] = {
    { "raw", 0, type, "there is a codec 'raw' already, of plugin 'core'" },
    { "No Name", 0, type, "can't be a codec's name" },
    { "mine", -1, type, "ranks are 0 or more" },
    { "mine", 0, G_TYPE_OBJECT, "its type GObject" },
  };
  g_autoptr (GError) error = NULL;

  for (guint i = 0; i < G_N_ELEMENTS (wrong); i++)
    {
      ck_assert (!register_program_codec (registry, wrong[i].name, wrong[i].rank, wrong[i].type, &error));
      ferry_assert_error (error, FERRY_ERROR, FERRY_ERROR_INVALID_ARGUMENT);
      ferry_assert_contains (error->message, wrong[i].message);
      g_clear_error (&error);
    }
  ck_assert (!ferry_registry_register_transport (registry, "mine", 0, FERRY_TRANSPORT_CAPABILITIES_NONE,
                                                 "A transport of this program", type, &error));
  ferry_assert_error (error, FERRY_ERROR, FERRY_ERROR_INVALID_ARGUMENT);
  g_clear_error (&error);

  /* What failed left nothing behind. */
  ck_assert (register_program_codec (registry, "mine", 0, type, &error));
  ck_assert (!register_program_codec (registry, "mine", 0, type, &error));
  ferry_assert_error (error, FERRY_ERROR, FERRY_ERROR_INVALID_ARGUMENT);
}
END_TEST

/* The whole cost of plugins in a process that uses none: reading the cache. */
#define WARM_LOAD_US (5000)

START_TEST (warm_load_is_fast)
{
  gint64 best = G_MAXINT64;

  if (ferry_test_is_valgrind ())
    return;

  install ("good");
  install ("decline");
  install ("wrong-abi");
  for (int i = 0; i < 5; i++)
    {
      g_autoptr (FerryRegistry) registry = make_registry ();
      gint64 began = g_get_monotonic_time ();
      g_autoptr (FerryCodecFactory) factory = ferry_registry_find_codec (registry, "fixture-echo");

      best = MIN (best, g_get_monotonic_time () - began);
      ck_assert_ptr_nonnull (factory);
    }
  ck_assert_int_lt (best, WARM_LOAD_US);
}
END_TEST

#define TIMEOUT_S (30)

static TCase *
add_case (Suite *suite, const char *name, const TTest *const *tests)
{
  TCase *tcase = ferry_test_add_case (suite, name, TIMEOUT_S, tests);

  tcase_add_checked_fixture (tcase, setup, teardown);
  return tcase;
}

static void
add (Suite *suite)
{
  const TTest *search[] = { empty,
                            missing_folder,
                            good,
                            subfolder,
                            no_code_before_use,
                            one_helper_for_many,
                            default_registry,
                            folder_named_twice,
                            strange_file_names,
                            features_outlive_registry,
                            many_threads,
                            registered_by_program,
                            registered_wrongly,
                            NULL };
  const TTest *caches[] = { warm_cache,
                            changed_file,
                            rescan,
                            cache_deleted,
                            cache_not_writable,
                            no_cache,
                            cache_keeps_other_folders,
                            update_no,
                            update_force,
                            warm_load_is_fast,
                            NULL };
  const TTest *scans[] = { bad_among_good,
                           hang,
                           close_all,
                           bad_timeout,
                           no_scanner,
                           wrong_scanner,
                           became_available,
                           broke_after_scan,
                           vanished_after_scan,
                           fatal_warnings_in_helper,
                           NULL };
  const TTest *choices[]
      = { duplicate_same_rank, duplicate_higher_rank,     duplicate_plugin,     rank_overridden, rank_not_understood,
          find_by_wire_name,   rank_none_decodes_nothing, select_by_capability, unknown_names,   NULL };
  const TTest *safety[] = { unsafe_folder, unsafe_file, unsafe_owner, unsafe_after_scan, unsafe_allowed, NULL };
  TCase *tcase;

  add_case (suite, "search", search);
  tcase = add_case (suite, "cache", caches);
  tcase_add_loop_test (tcase, bad_cache, 0, G_N_ELEMENTS (bad_caches));
  tcase_add_loop_test (tcase, bad_entry, 0, G_N_ELEMENTS (bad_entries));
  tcase = add_case (suite, "scan", scans);
  tcase_add_loop_test (tcase, bad_plugin, 0, G_N_ELEMENTS (bad_plugins));
  add_case (suite, "choice", choices);
  add_case (suite, "safety", safety);
}

int
main (void)
{
  return ferry_test_run ("registry", add);
}
