/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ferry-test.h"

#include <math.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

static FerryStore *
open_anonymous (void)
{
  g_autoptr (GError) error = NULL;
  FerryStore *store = ferry_store_open ("memfd max-bytes=67108864", NULL, &error);

  ferry_assert_no_error (error);
  return store;
}

static FerryStore *
open_named (const char *name)
{
  g_autofree char *description = g_strdup_printf ("memfd name=%s-%d max-bytes=67108864", name, (int) getpid ());
  g_autoptr (GError) error = NULL;
  FerryStore *store = ferry_store_open (description, NULL, &error);

  ferry_assert_no_error (error);
  return store;
}

static void
set_text (FerryStore *store, const char *path, const char *text)
{
  g_autoptr (GError) error = NULL;
  g_autoptr (GVariant) value = g_variant_parse (NULL, text, NULL, NULL, &error);

  ferry_assert_no_error (error);
  ck_assert_msg (ferry_store_set (store, path, value, &error), "%s: %s", path, error != NULL ? error->message : "");
}

static void
assert_text (FerryStore *store, const char *path, const char *expected)
{
  g_autoptr (GError) error = NULL;
  g_autoptr (GVariant) value = ferry_store_get (store, path, &error);
  g_autofree char *text = NULL;

  ck_assert_msg (value != NULL, "%s: %s", path, error != NULL ? error->message : "");
  ck_assert (!g_variant_is_floating (value));
  text = g_variant_print (value, TRUE);
  ck_assert_str_eq (text, expected);
}

static void
assert_fails (FerryStore *store, const char *path, int code, const char *part)
{
  g_autoptr (GError) error = NULL;
  g_autoptr (GVariant) value = ferry_store_get (store, path, &error);

  ck_assert_msg (value == NULL, "%s is there", path);
  ferry_assert_error (error, FERRY_ERROR, code);
  ferry_assert_contains (error->message, part);
}

static void
assert_children (FerryStore *store, const char *path, const char *expected)
{
  g_autoptr (GError) error = NULL;
  g_auto (GStrv) children = ferry_store_list_children (store, path, &error);
  g_autofree char *joined = NULL;

  ferry_assert_no_error (error);
  joined = g_strjoinv (" ", children);
  ck_assert_str_eq (joined, expected);
  for (guint i = 0; children[i] != NULL; i++)
    {
      ck_assert_msg (ferry_store_contains (store, children[i], &error), "%s is a child and not there", children[i]);
      ferry_assert_no_error (error);
    }
}

static void
assert_type (FerryStore *store, const char *path, const char *expected)
{
  g_autoptr (GError) error = NULL;
  g_autofree char *name = ferry_store_get_type_name (store, path, &error);

  ferry_assert_no_error (error);
  ck_assert_str_eq (name, expected);
}

static void
assert_at_rest (FerryStore *store)
{
  g_autoptr (GError) error = NULL;

  ck_assert_msg (ferry_store_verify (store, &error), "%s", error != NULL ? error->message : "");
}

/* ---- values ---- */

START_TEST (test_round_trip)
{
  /* What is set, and how it comes back. */
  static const struct
  {
    const char *set;
    const char *get;
    const char *type;
  } cases[] = {
    { "true", "true", "bool" },
    { "false", "false", "bool" },
    { "0", "int64 0", "int" },
    { "-1", "int64 -1", "int" },
    { "byte 0xff", "int64 255", "int" },
    { "int16 -300", "int64 -300", "int" },
    { "uint16 65535", "int64 65535", "int" },
    { "uint32 4294967295", "int64 4294967295", "int" },
    { "handle 7", "int64 7", "int" },
    { "int64 140737488355327", "int64 140737488355327", "int" },
    { "int64 140737488355328", "int64 140737488355328", "int" },
    { "int64 -140737488355328", "int64 -140737488355328", "int" },
    { "int64 -140737488355329", "int64 -140737488355329", "int" },
    { "int64 9223372036854775807", "int64 9223372036854775807", "int" },
    { "int64 -9223372036854775808", "int64 -9223372036854775808", "int" },
    { "uint64 9223372036854775808", "uint64 9223372036854775808", "int" },
    { "uint64 18446744073709551615", "uint64 18446744073709551615", "int" },
    { "uint64 5", "int64 5", "int" },
    { "1.5", "1.5", "float" },
    { "-0.0", "-0.0", "float" },
    { "inf", "inf", "float" },
    { "''", "''", "str" },
    { "'abcde'", "'abcde'", "str" },
    { "'abcdef'", "'abcdef'", "str" },
    { "'\\u00e9t\\u00e9'", "'été'", "str" },
    { "'\\u20acuro'", "'€uro'", "str" },
    { "'\\U0001f600'", "'😀'", "str" },
    { "objectpath '/a/b'", "'/a/b'", "str" },
    { "b''", "b''", "bytes" },
    { "b'abc'", "b'abc'", "bytes" },
    { "@ay []", "@ay []", "bytes" },
    { "b'abcdefgh'", "b'abcdefgh'", "bytes" },
    { "@mv nothing", "@mv nothing", "NoneType" },
    { "just 5", "int64 5", "int" },
    { "<5>", "int64 5", "int" },
    { "<<'x'>>", "'x'", "str" },
    { "()", "()", "tuple" },
    { "(1,)", "(int64 1,)", "tuple" },
    { "(1, 'a', (2.5, b'bytes here'))", "(int64 1, 'a', (2.5, b'bytes here'))", "tuple" },
    { "('a longer text', 'another text', 1)", "('a longer text', 'another text', int64 1)", "tuple" },
    { "(1, [2, 3], {'a': <[4]>})", "(int64 1, [<int64 2>, <int64 3>], {'a': <[<int64 4>]>})", "tuple" },
    { "('text before', [2], 'a text behind')", "('text before', [<int64 2>], 'a text behind')", "tuple" },
    { "@ai []", "@av []", "list" },
    { "[1, 2, 3]", "[<int64 1>, <int64 2>, <int64 3>]", "list" },
    { "[<1>, <'a'>, <[<2>]>]", "[<int64 1>, <'a'>, <[<int64 2>]>]", "list" },
    { "@a{sv} {}", "@a{sv} {}", "dict" },
    { "{'a': <1>, 'a longer key': <'b'>}", "{'a': <int64 1>, 'a longer key': <'b'>}", "dict" },
    { "{'a': 1, 'b': 2}", "{'a': <int64 1>, 'b': <int64 2>}", "dict" },
    { "{1: 'one', 2: 'two'}", "[(<int64 1>, <'one'>), (<int64 2>, <'two'>)]", "dict" },
    { "{int64 140737488355328: 'big'}", "[(<int64 140737488355328>, <'big'>)]", "dict" },
    { "('int', <[byte 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0]>)",
      "('int', <[byte 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x01]>)", "int" },
    { "('str', <[byte 0x61, 0x00, 0x62]>)", "('str', <[byte 0x61, 0x00, 0x62]>)", "str" },
    { "('str', <[byte 0xed, 0xa0, 0x80]>)", "('str', <[byte 0xed, 0xa0, 0x80]>)", "str" },
    { "('str', <[byte 0x61, 0x62]>)", "'ab'", "str" },
    { "('int', <[byte 0xff]>)", "int64 -1", "int" },
  };
  g_autoptr (FerryStore) store = open_anonymous ();
  g_autoptr (GError) error = NULL;
  guint64 before;

  set_text (store, "x", "0");
  set_text (store, "in", "@a{sv} {}");
  assert_text (store, "in", "@a{sv} {}"); /* and holds something for the first time */
  ck_assert (ferry_store_collect (store, &error));
  before = ferry_store_get_bytes_used (store);
  for (guint i = 0; i < G_N_ELEMENTS (cases); i++)
    {
      set_text (store, "x", cases[i].set);
      assert_text (store, "x", cases[i].get);
      assert_type (store, "x", cases[i].type);
      set_text (store, "in.y", cases[i].set);
      assert_text (store, "in.y", cases[i].get);
    }
  assert_at_rest (store);
  set_text (store, "x", "0");
  ck_assert (ferry_store_remove (store, "in.y", &error));
  set_text (store, "in", "@a{sv} {}");
  ck_assert (ferry_store_collect (store, &error));
  ck_assert_uint_eq (ferry_store_get_bytes_used (store), before);
}
END_TEST

START_TEST (test_nan)
{
  g_autoptr (FerryStore) store = open_anonymous ();
  g_autoptr (GError) error = NULL;
  static const guint64 patterns[]
      = { G_GUINT64_CONSTANT (0x7ff8000000000000), G_GUINT64_CONSTANT (0xfff8000000000000),
          G_GUINT64_CONSTANT (0xfff9123456789abc), G_GUINT64_CONSTANT (0x7ff4000000000001) };

  for (guint i = 0; i < G_N_ELEMENTS (patterns); i++)
    {
      g_autoptr (GVariant) value = NULL;
      double number;
      guint64 bits;

      memcpy (&number, &patterns[i], sizeof number);
      ck_assert (ferry_store_set (store, "x", g_variant_new_double (number), &error));
      value = ferry_store_get (store, "x", &error);
      ferry_assert_no_error (error);
      number = g_variant_get_double (value);
      memcpy (&bits, &number, sizeof bits);
      ck_assert_uint_eq (bits, patterns[i]);
    }
}
END_TEST

START_TEST (test_floating)
{
  g_autoptr (FerryStore) store = open_anonymous ();
  g_autoptr (GError) error = NULL;
  g_autoptr (GVariant) kept = g_variant_ref_sink (g_variant_new_string ("kept by the caller"));

  ck_assert (ferry_store_set (store, "a", g_variant_new_int32 (5), &error));
  ck_assert (ferry_store_set (store, "b", kept, &error));
  assert_text (store, "b", "'kept by the caller'");
  /* also when it fails */
  ck_assert (!ferry_store_set (store, "a.b.c", g_variant_new_int32 (5), &error));
  ferry_assert_error (error, FERRY_ERROR, FERRY_ERROR_NOT_FOUND);
}
END_TEST

START_TEST (test_large)
{
  g_autoptr (FerryStore) store = open_anonymous ();
  g_autoptr (GError) error = NULL;
  g_autofree char *text = g_malloc (1000001);
  g_autoptr (GVariant) value = NULL;
  g_autoptr (GVariant) list = NULL;
  GVariantBuilder builder;

  memset (text, 'x', 1000000);
  text[1000000] = '\0';
  ck_assert (ferry_store_set (store, "text", g_variant_new_string (text), &error));
  value = ferry_store_get (store, "text", &error);
  ck_assert_str_eq (g_variant_get_string (value, NULL), text);
  ck_assert_int_eq (ferry_store_get_length (store, "text", &error), 1000000);

  g_variant_builder_init (&builder, G_VARIANT_TYPE ("ai"));
  for (int i = 0; i < 100000; i++)
    g_variant_builder_add (&builder, "i", i);
  ck_assert (ferry_store_set (store, "list", g_variant_builder_end (&builder), &error));
  list = ferry_store_get (store, "list", &error);
  ck_assert_uint_eq (g_variant_n_children (list), 100000);
  ck_assert_int_eq (ferry_store_get_length (store, "list", &error), 100000);
  assert_text (store, "list[99999]", "int64 99999");

  /* more than the store may have leaves what was there */
  {
    g_autofree guint8 *much = g_malloc0 (100 << 20);

    ck_assert (
        !ferry_store_set (store, "list", g_variant_new_fixed_array (G_VARIANT_TYPE_BYTE, much, 100 << 20, 1), &error));
    ferry_assert_error (error, FERRY_ERROR, FERRY_ERROR_NO_SPACE);
    g_clear_error (&error);
  }
  assert_text (store, "list[99999]", "int64 99999");
  assert_at_rest (store);
}
END_TEST

START_TEST (test_deep)
{
  g_autoptr (FerryStore) store = open_anonymous ();
  g_autoptr (GError) error = NULL;
  g_autoptr (GString) path = g_string_new ("deep");
  g_autoptr (GVariant) nested = g_variant_ref_sink (g_variant_new_int32 (1));

  /* deeper than GVariant reads, step by step */
  set_text (store, "deep", "@av []");
  for (guint i = 0; i < 200; i++)
    {
      g_autofree char *end = g_strdup_printf ("%s[+]", path->str);

      set_text (store, end, "@av []");
      g_string_append (path, "[0]");
    }
  assert_text (store, path->str, "@av []");
  assert_fails (store, "deep", FERRY_ERROR_UNSUPPORTED, "more levels");

  for (guint i = 0; i < 200; i++)
    {
      GVariant *outer = g_variant_ref_sink (g_variant_new_tuple (&nested, 1));

      g_variant_unref (nested);
      nested = outer;
    }
  ck_assert (!ferry_store_set (store, "x", nested, &error));
  ferry_assert_error (error, FERRY_ERROR, FERRY_ERROR_INVALID_ARGUMENT);
  assert_at_rest (store);
}
END_TEST

/* ---- paths ---- */

START_TEST (test_paths)
{
  g_autoptr (FerryStore) store = open_anonymous ();
  g_autoptr (GError) error = NULL;

  set_text (store, "cfg", "{'servers': <[<{'port': <80>}>, <{'port': <81>}>]>, 'a.b': <1>, 'it\\'s': <2>, '': <3>}");
  set_text (store, "['odd name']", "5");
  set_text (store, "keys", "{1: 'one'}");
  set_text (store, "keys[-7]", "'minus seven'");
  set_text (store, "keys[1.5]", "'float'");
  set_text (store, "keys[true]", "'also one'");
  set_text (store, "keys[(1, 'a')]", "'tuple'");
  set_text (store, "keys[(2, (3, 'a longer text'))]", "'nested'");
  set_text (store, "keys[@mv nothing]", "'none'");
  set_text (store, "keys[b'bytes']", "'bytes'");
  set_text (store, "keys[uint64 18446744073709551615]", "'huge'");
  set_text (store, "keys['text']", "'text'");

  assert_text (store, "cfg.servers[1].port", "int64 81");
  assert_text (store, "cfg.servers[-1].port", "int64 81");
  assert_text (store, "cfg['servers'][ 0 ][\"port\"]", "int64 80");
  assert_text (store, "[\"cfg\"]['a.b']", "int64 1");
  assert_text (store, "cfg[\"it's\"]", "int64 2");
  assert_text (store, "cfg['']", "int64 3");
  assert_text (store, "['odd name']", "int64 5");
  /* keys are equal as in Python */
  assert_text (store, "keys[1]", "'also one'");
  assert_text (store, "keys[1.0]", "'also one'");
  assert_text (store, "keys[(1.0, 'a')]", "'tuple'");
  assert_text (store, "keys[(true, 'a')]", "'tuple'");
  assert_text (store, "keys[(2.0, (3, 'a longer text'))]", "'nested'");
  assert_text (store, "keys[-7]", "'minus seven'");
  assert_text (store, "keys[-7.0]", "'minus seven'");
  assert_text (store, "keys[@mv nothing]", "'none'");
  assert_text (store, "keys[b'bytes']", "'bytes'");
  assert_text (store, "keys[uint64 18446744073709551615]", "'huge'");
  assert_text (store, "keys.text", "'text'");
  ck_assert (!ferry_store_contains (store, "keys[1.25]", &error));
  ck_assert (!ferry_store_contains (store, "keys['bytes']", &error));
  ck_assert (!ferry_store_contains (store, "keys[(1, 'b')]", &error));
  ferry_assert_no_error (error);

  assert_children (store, "", "cfg ['odd name'] keys");
  assert_children (store, "cfg", "cfg.servers cfg['a.b'] cfg[\"it's\"] cfg['']");
  assert_children (store, "cfg.servers", "cfg.servers[0] cfg.servers[1]");
  assert_children (store, "cfg.servers[0].port", "");
  assert_children (store, "keys",
                   "keys[1] keys[-7] keys[1.5] keys[(int64 1, 'a')] keys[(int64 2, (int64 3, 'a longer text'))] "
                   "keys[@mv nothing] keys[b'bytes'] keys[uint64 18446744073709551615] keys.text");
  set_text (store, "t", "(1, 'two', [3])");
  assert_children (store, "t", "t[0] t[1] t[2]");
  assert_text (store, "t[-1][0]", "int64 3");
  ck_assert_int_eq (ferry_store_get_length (store, "", &error), 4);
  ck_assert_int_eq (ferry_store_get_length (store, "t", &error), 3);
  ck_assert_int_eq (ferry_store_get_length (store, "t[1]", &error), 3);
  ck_assert_int_eq (ferry_store_get_length (store, "keys", &error), 9);
  ck_assert_int_eq (ferry_store_get_length (store, "t[0]", &error), -1);
  ferry_assert_error (error, FERRY_ERROR, FERRY_ERROR_UNSUPPORTED);
  ferry_assert_contains (error->message, "an int, which has no length");
}
END_TEST

START_TEST (test_path_errors)
{
  static const struct
  {
    const char *path;
    const char *part;
  } cases[] = {
    { ".a", "at character 1: expected a name, found '.'" },
    { "a.", "at character 3: expected a name, found the end" },
    { "a..b", "at character 3: expected a name, found '.'" },
    { "a b", "at character 2: expected '.', '[' or the end, found ' '" },
    { "a[", "at character 3: expected an index or a key, found the end" },
    { "a[]", "at character 3: expected an index, a key, or +" },
    { "a[1", "at character 4: expected ']', found the end" },
    { "a[1}", "at character 4: expected ']', found '}'" },
    { "a['x'", "at character 6: expected ']', found the end" },
    { "a['x", "at character 3: expected an integer, a quoted string" },
    { "a[x]", "at character 3: expected an integer, a quoted string" },
    { "a]b", "expected '.', '[' or the end, found ']'" },
    { "é.a b", "at character 4: expected '.'" },
    { "[1]", "a path begins with a name" },
    { "a[99999999999999999999]", "at character 3" },
    { "a\xff", "is not UTF-8" },
  };
  g_autoptr (FerryStore) store = open_anonymous ();
  g_autoptr (GError) error = NULL;

  set_text (store, "a", "[1, 2]");
  for (guint i = 0; i < G_N_ELEMENTS (cases); i++)
    {
      g_autoptr (GVariant) value = ferry_store_get (store, cases[i].path, &error);

      ck_assert_msg (value == NULL, "%s parses", cases[i].path);
      ferry_assert_error (error, FERRY_ERROR, FERRY_ERROR_PARSE);
      ferry_assert_contains (error->message, cases[i].part);
      g_clear_error (&error);
      ck_assert (!ferry_store_contains (store, cases[i].path, &error));
      ferry_assert_error (error, FERRY_ERROR, FERRY_ERROR_PARSE);
      g_clear_error (&error);
    }
}
END_TEST

START_TEST (test_not_there)
{
  g_autoptr (FerryStore) store = open_anonymous ();
  g_autoptr (GError) error = NULL;

  set_text (store, "a", "{'list': <[1, 2]>, 'n': <5>, 't': <(1, 2)>}");
  assert_fails (store, "b", FERRY_ERROR_NOT_FOUND, "there is no 'b'");
  assert_fails (store, "b.c.d", FERRY_ERROR_NOT_FOUND, "there is no 'b'");
  assert_fails (store, "a.c", FERRY_ERROR_NOT_FOUND, "there is no 'a.c'");
  assert_fails (store, "a.list[2]", FERRY_ERROR_NOT_FOUND, "there is no 'a.list[2]'");
  assert_fails (store, "a.list[-3]", FERRY_ERROR_NOT_FOUND, "there is no 'a.list[-3]'");
  assert_fails (store, "a.list[+]", FERRY_ERROR_NOT_FOUND, "there is no 'a.list[+]'");
  assert_fails (store, "a.list.x", FERRY_ERROR_NOT_FOUND, "'a.list' is a list");
  assert_fails (store, "a.n.x", FERRY_ERROR_NOT_FOUND, "'a.n' is an int");
  assert_fails (store, "a.n[0]", FERRY_ERROR_NOT_FOUND, "'a.n' is an int");
  assert_fails (store, "a.t[2]", FERRY_ERROR_NOT_FOUND, "there is no 'a.t[2]'");

  ck_assert (!ferry_store_set (store, "a.list[2]", g_variant_new_int32 (1), &error));
  ferry_assert_error (error, FERRY_ERROR, FERRY_ERROR_NOT_FOUND);
  g_clear_error (&error);
  ck_assert (!ferry_store_set (store, "a.t[0]", g_variant_new_int32 (1), &error));
  ferry_assert_error (error, FERRY_ERROR, FERRY_ERROR_UNSUPPORTED);
  ferry_assert_contains (error->message, "'a.t' is a tuple");
  g_clear_error (&error);
  ck_assert (!ferry_store_set (store, "", g_variant_new_int32 (1), &error));
  ferry_assert_error (error, FERRY_ERROR, FERRY_ERROR_INVALID_ARGUMENT);
  g_clear_error (&error);
  ck_assert (!ferry_store_remove (store, "a.x", &error));
  ferry_assert_error (error, FERRY_ERROR, FERRY_ERROR_NOT_FOUND);
  g_clear_error (&error);
  ck_assert (!ferry_store_remove (store, "x", &error));
  ferry_assert_error (error, FERRY_ERROR, FERRY_ERROR_NOT_FOUND);
  g_clear_error (&error);
  ck_assert (ferry_store_get_tensor (store, "a.n", &error) == NULL);
  ferry_assert_error (error, FERRY_ERROR, FERRY_ERROR_UNSUPPORTED);
}
END_TEST

START_TEST (test_changes)
{
  g_autoptr (FerryStore) store = open_anonymous ();
  g_autoptr (GError) error = NULL;

  set_text (store, "l", "[1, 2, 3]");
  set_text (store, "l[+]", "'a new last element'");
  assert_text (store, "l", "[<int64 1>, <int64 2>, <int64 3>, <'a new last element'>]");
  set_text (store, "l[-1]", "[4]");
  set_text (store, "l[-1][0]", "5");
  ck_assert (ferry_store_remove (store, "l[0]", &error));
  ck_assert (ferry_store_remove (store, "l[-2]", &error));
  assert_text (store, "l", "[<int64 2>, <[<int64 5>]>]");
  set_text (store, "d", "{'a': 1}");
  set_text (store, "d.b", "2");
  set_text (store, "d['c c']", "3");
  ck_assert (ferry_store_remove (store, "d.a", &error));
  assert_text (store, "d", "{'b': <int64 2>, 'c c': <int64 3>}");
  assert_text (store, "", "{'l': <[<int64 2>, <[<int64 5>]>]>, 'd': <{'b': <int64 2>, 'c c': <int64 3>}>}");
  ck_assert (ferry_store_remove (store, "d", &error));
  assert_text (store, "", "{'l': <[<int64 2>, <[<int64 5>]>]>}");
  assert_at_rest (store);
}
END_TEST

/* ---- what only other languages make: sets, objects, named tuples, bytearrays, cycles ---- */

static FerryCell
inline_text (const char *text)
{
  guint64 payload = (guint64) strlen (text) << 40;

  ck_assert_uint_le (strlen (text), FERRY_CELL_INLINE_MAX);
  for (gsize i = 0; text[i] != '\0'; i++)
    payload |= (guint64) (guint8) text[i] << (8 * i);
  return FERRY_CELL (FERRY_CELL_STR, payload);
}

static void
put_root (FerryStore *store, const char *name, FerryCell cell)
{
  g_autoptr (GError) error = NULL;
  FerryKey key = { .cell = inline_text (name), .hash = ferry_key_hash_data (FERRY_LEAF_STR, name, strlen (name)) };

  ferry_assert_no_error (error);
  ck_assert (ferry_store_root_set (store, &key, cell, &error));
}

START_TEST (test_objects)
{
  g_autoptr (FerryStore) store = open_anonymous ();
  g_autoptr (GError) error = NULL;
  FerryCell description[] = { inline_text ("mod"), inline_text ("Point"), FERRY_CELL (FERRY_CELL_INT, 0),
                              inline_text ("x"),   inline_text ("y"),     inline_text ("z") };
  FerryCell fields[] = { FERRY_CELL (FERRY_CELL_INT, 1), inline_text ("why"), FERRY_CELL_EMPTY };
  FerryCell named[] = { inline_text ("mod"), inline_text ("Pair"), FERRY_CELL (FERRY_CELL_INT, 7), inline_text ("b") };
  FerryCell set;
  FerryCell frozen[] = { FERRY_CELL (FERRY_CELL_INT, 3) };
  FerryCell bytes;
  FerryRef shape;
  gint64 sum;

  ck_assert (ferry_store_begin (store, &error));
  shape = ferry_store_shape (
      store, ferry_store_new_leaf (store, FERRY_LEAF_SHAPE, 0, 0, description, sizeof description, NULL, 0, &error),
      &error);
  ferry_assert_no_error (error);
  put_root (store, "obj", ferry_store_record_new (store, shape, fields, 3, &error));
  put_root (store, "pair",
            ferry_store_new_leaf (store, FERRY_LEAF_TUPLE, FERRY_LEAF_NAMED, 0, named, sizeof named, NULL, 0, &error));
  put_root (store, "fs",
            ferry_store_new_leaf (store, FERRY_LEAF_FROZENSET, 0, 0, frozen, sizeof frozen, NULL, 0, &error));
  bytes = ferry_store_bytearray_new (store, "abc", 3, &error);
  put_root (store, "ba", bytes);
  set = ferry_store_dict_new (store, FERRY_OBJECT_SET, 0, &error);
  for (int i = 1; i <= 2; i++)
    {
      FerryKey key = { .cell = FERRY_CELL (FERRY_CELL_INT, i), .hash = ferry_key_hash_int (i) };

      ck_assert_int_eq (
          ferry_store_dict_set (store, ferry_cell_payload (set), &key, 0, FERRY_CELL_NONE, FALSE, NULL, &error), 0);
    }
  put_root (store, "set", set);
  ferry_store_end (store);
  ferry_store_unhold (store, shape);

  assert_type (store, "obj", "Point");
  assert_text (store, "obj", "{'x': <int64 1>, 'y': <'why'>}");
  assert_text (store, "obj.x", "int64 1");
  assert_text (store, "obj['y']", "'why'");
  assert_fails (store, "obj.z", FERRY_ERROR_NOT_FOUND, "there is no 'obj.z'");
  assert_fails (store, "obj.w", FERRY_ERROR_NOT_FOUND, "there is no 'obj.w'");
  assert_fails (store, "obj[0]", FERRY_ERROR_NOT_FOUND, "it has attributes");
  set_text (store, "obj.z", "[1, 2]");
  set_text (store, "obj.w", "'further'");
  assert_text (store, "obj", "{'x': <int64 1>, 'y': <'why'>, 'z': <[<int64 1>, <int64 2>]>, 'w': <'further'>}");
  assert_children (store, "obj", "obj.x obj.y obj.z obj.w");
  ck_assert_int_eq (ferry_store_get_length (store, "obj", &error), 4);
  ck_assert (ferry_store_add_int (store, "obj.x", 41, &sum, &error));
  ck_assert_int_eq (sum, 42);
  ck_assert (ferry_store_remove (store, "obj.y", &error));
  ck_assert (ferry_store_remove (store, "obj.w", &error));
  ck_assert (!ferry_store_remove (store, "obj.w", &error));
  ferry_assert_error (error, FERRY_ERROR, FERRY_ERROR_NOT_FOUND);
  g_clear_error (&error);
  assert_text (store, "obj", "{'x': <int64 42>, 'z': <[<int64 1>, <int64 2>]>}");

  assert_type (store, "pair", "Pair");
  assert_text (store, "pair", "(int64 7, 'b')");
  assert_text (store, "pair[1]", "'b'");
  assert_children (store, "pair", "pair[0] pair[1]");
  ck_assert_int_eq (ferry_store_get_length (store, "pair", &error), 2);

  assert_type (store, "set", "set");
  assert_text (store, "set", "[<int64 1>, <int64 2>]");
  assert_children (store, "set", "set[1] set[2]");
  assert_text (store, "set[2.0]", "2.0");
  ck_assert (!ferry_store_contains (store, "set[3]", &error));
  ck_assert (ferry_store_remove (store, "set[1]", &error));
  assert_text (store, "set", "[<int64 2>]");
  ck_assert (!ferry_store_set (store, "set[5]", g_variant_new_int32 (5), &error));
  ferry_assert_error (error, FERRY_ERROR, FERRY_ERROR_UNSUPPORTED);
  g_clear_error (&error);
  assert_type (store, "fs", "frozenset");
  assert_text (store, "fs", "[<int64 3>]");
  assert_children (store, "fs", "fs[3]");

  assert_type (store, "ba", "bytearray");
  assert_text (store, "ba", "[byte 0x61, 0x62, 0x63]");
  assert_text (store, "ba[-1]", "int64 99");
  set_text (store, "ba[0]", "65");
  set_text (store, "ba[+]", "66");
  ck_assert (ferry_store_remove (store, "ba[1]", &error));
  assert_text (store, "ba", "[byte 0x41, 0x63, 0x42]");
  ck_assert (!ferry_store_set (store, "ba[0]", g_variant_new_int32 (256), &error));
  ferry_assert_error (error, FERRY_ERROR, FERRY_ERROR_INVALID_ARGUMENT);
  g_clear_error (&error);
  assert_fails (store, "ba[3]", FERRY_ERROR_NOT_FOUND, "there is no");
  ck_assert_int_eq (ferry_store_get_length (store, "ba", &error), 3);
  assert_at_rest (store);
}
END_TEST

/* What codec python made: dates, enumerations and the like. */
START_TEST (test_messages)
{
  g_autoptr (FerryStore) store = open_anonymous ();
  g_autoptr (GError) error = NULL;
  g_autoptr (FerryCodec) codec = ferry_registry_create_codec (ferry_registry_get_default (), "python", &error);
  static const char *const values[] = { "('mod', 'Color', 'RED')", "'a str that is long enough for a leaf'" };
  FerryCell dict;

  if (codec == NULL)
    return; /* this build has none */
  ck_assert (ferry_store_begin (store, &error));
  dict = ferry_store_dict_new (store, FERRY_OBJECT_DICT, 0, &error);
  put_root (store, "d", dict);
  for (guint i = 0; i < G_N_ELEMENTS (values); i++)
    {
      g_auto (GValue) value = G_VALUE_INIT;
      g_autoptr (GBytes) bytes = NULL;
      gconstpointer data;
      gsize size;
      FerryKey key = { .cell = FERRY_CELL (FERRY_CELL_LEAF, 0), .hash = 7 + i, .kind = FERRY_LEAF_CODEC };
      guint flags = i == 0 ? FERRY_LEAF_MEMBER : 0;

      g_value_init (&value, G_TYPE_VARIANT);
      g_value_take_variant (&value, g_variant_ref_sink (g_variant_new_parsed (values[i])));
      bytes = ferry_codec_encode_bytes (codec, &value, &error);
      ferry_assert_no_error (error);
      data = g_bytes_get_data (bytes, &size);
      key.data = data;
      key.size = size;
      key.flags = (guint8) flags;
      put_root (store, i == 0 ? "enum" : "text",
                ferry_store_new_leaf (store, FERRY_LEAF_CODEC, flags, 0, data, size, NULL, 0, &error));
      ck_assert_int_eq (ferry_store_dict_set (store, ferry_cell_payload (dict), &key, 0, FERRY_CELL (FERRY_CELL_INT, i),
                                              FALSE, NULL, &error),
                        0);
    }
  ferry_store_end (store);
  assert_text (store, "enum", "('Color', <'RED'>)");
  assert_type (store, "enum", "Color");
  assert_text (store, "text", "'a str that is long enough for a leaf'");
  assert_text (store, "d[('Color', <'RED'>)]", "int64 0");
  set_text (store, "d[('Color', <'RED'>)]", "'in place'");
  assert_text (store, "d[('Color', <'RED'>)]", "'in place'");
  ck_assert_int_eq (ferry_store_get_length (store, "d", &error), 2);
  ck_assert (ferry_store_remove (store, "d[('Color', <'RED'>)]", &error));
  ck_assert_int_eq (ferry_store_get_length (store, "d", &error), 1);

  /* and what it did not */
  ck_assert (ferry_store_begin (store, &error));
  put_root (store, "bad", ferry_store_new_leaf (store, FERRY_LEAF_CODEC, 0, 0, "nonsense", 8, NULL, 0, &error));
  ferry_store_end (store);
  assert_fails (store, "bad", FERRY_ERROR_CODEC, "");
  assert_type (store, "bad", "object");
}
END_TEST

/* Leaves that no correct peer makes are told, whatever is in them. */
START_TEST (test_repeated)
{
  g_autoptr (FerryStore) store = open_anonymous ();
  g_autoptr (GError) error = NULL;
  FerryCell inner;

  if (ferry_test_is_valgrind ())
    return; /* a million values take too long */
  /* 24 lists stand for 2^24 values */
  ck_assert (ferry_store_begin (store, &error));
  inner = ferry_store_list_new (store, NULL, 0, &error);
  for (int i = 0; i < 24; i++)
    {
      FerryCell cells[] = { inner, ferry_store_new_reference (store, ferry_cell_payload (inner)) };

      inner = ferry_store_list_new (store, cells, 2, &error);
      ferry_assert_no_error (error);
    }
  put_root (store, "x", inner);
  ferry_store_end (store);
  assert_fails (store, "x", FERRY_ERROR_UNSUPPORTED, "repeated too often");
  assert_text (store, "x[0][1][0][1][0][1][0][1][0][1][0][1][0][1][0][1][0][1][0][1][0][1][0]", "[<@av []>, <@av []>]");
}
END_TEST

START_TEST (test_nonsense)
{
  g_autoptr (FerryStore) store = open_anonymous ();
  g_autoptr (GRand) rand = g_rand_new_with_seed (4711);
  guint n_read = 0;
  guint n = ferry_test_is_valgrind () ? 500 : 20000;

  for (guint i = 0; i < n; i++)
    {
      static const guint8 tags[] = { FERRY_CELL_CONSTANT, FERRY_CELL_INT,  FERRY_CELL_STR,   FERRY_CELL_BYTES,
                                     FERRY_CELL_LEAF,     FERRY_CELL_LEAF, FERRY_CELL_OBJECT };
      g_autoptr (GError) error = NULL;
      g_autoptr (GVariant) value = NULL;
      g_auto (GStrv) children = NULL;
      guint64 words[16];
      gsize n_words = (gsize) g_rand_int_range (rand, 0, G_N_ELEMENTS (words) + 1);
      gsize cut = g_rand_int_range (rand, 0, 10) == 0 && n_words > 0 ? 3 : 0;

      for (gsize j = 0; j < n_words; j++)
        {
          guint64 payload = (guint64) g_rand_int_range (rand, 0, 8 * (int) n_words + 64);
          FerryLeaf head
              = { .kind = (guint8) g_rand_int_range (rand, 0, 12), .flags = (guint8) g_rand_int_range (rand, 0, 32) };

          if (g_rand_int_range (rand, 0, 4) == 0)
            memcpy (&words[j], &head, sizeof words[j]);
          else if (g_rand_int_range (rand, 0, 4) == 0)
            words[j] = payload;
          else
            words[j] = FERRY_CELL (tags[g_rand_int_range (rand, 0, G_N_ELEMENTS (tags))], payload & ~(guint64) 7);
        }
      ck_assert (ferry_store_begin (store, &error));
      put_root (store, "x",
                ferry_store_new_leaf (store, (FerryLeafKind) g_rand_int_range (rand, 0, 14),
                                      (guint) g_rand_int_range (rand, 0, 32), 0, words, n_words * sizeof *words - cut,
                                      NULL, 0, &error));
      ferry_store_end (store);
      value = ferry_store_get (store, "x", &error);
      n_read += value != NULL;
      if (value == NULL)
        ck_assert_msg (g_error_matches (error, FERRY_ERROR, FERRY_ERROR_CORRUPT)
                           || g_error_matches (error, FERRY_ERROR, FERRY_ERROR_UNSUPPORTED)
                           || g_error_matches (error, FERRY_ERROR, FERRY_ERROR_NO_SUCH_FEATURE) /* without Python */
                           || g_error_matches (error, FERRY_ERROR, FERRY_ERROR_CODEC),
                       "%s", error->message);
      children = ferry_store_list_children (store, "x", NULL);
      for (guint j = 0; children != NULL && children[j] != NULL; j++)
        {
          g_clear_pointer (&value, g_variant_unref);
          value = ferry_store_get (store, children[j], NULL);
        }
      ferry_store_get_length (store, "x", NULL);
      g_free (ferry_store_get_type_name (store, "x", NULL));
    }
  ck_assert_uint_gt (n_read, n / 20);
  ck_assert_uint_lt (n_read, n - n / 20);
}
END_TEST

START_TEST (test_cycle)
{
  g_autoptr (FerryStore) store = open_anonymous ();
  g_autoptr (GError) error = NULL;
  FerryCell list;

  set_text (store, "shared", "[1]");
  ck_assert (ferry_store_begin (store, &error));
  list = ferry_store_list_new (store, NULL, 0, &error);
  put_root (store, "l", list);
  ck_assert (ferry_store_list_append (store, ferry_cell_payload (list),
                                      ferry_store_new_reference (store, ferry_cell_payload (list)), &error));
  ferry_store_end (store);
  assert_fails (store, "l", FERRY_ERROR_UNSUPPORTED, "contains itself");
  assert_fails (store, "", FERRY_ERROR_UNSUPPORTED, "contains itself");
  assert_children (store, "l", "l[0]");
  ck_assert_uint_ne (ferry_store_get_object_id (store, "l", &error), 0);
  ck_assert_uint_eq (ferry_store_get_object_id (store, "l", &error),
                     ferry_store_get_object_id (store, "l[0][0][0]", &error));
  ck_assert_uint_ne (ferry_store_get_object_id (store, "l", &error),
                     ferry_store_get_object_id (store, "shared", &error));
  ck_assert_uint_eq (ferry_store_get_object_id (store, "shared[0]", &error), 0);
  ferry_assert_no_error (error);
  ck_assert (ferry_store_remove (store, "l", &error));
  ck_assert (ferry_store_collect (store, &error));
  assert_at_rest (store);
}
END_TEST

/* ---- numbers ---- */

START_TEST (test_add)
{
  g_autoptr (FerryStore) store = open_anonymous ();
  g_autoptr (GError) error = NULL;
  g_autoptr (GVariant) sum = NULL;
  gint64 integer;
  double real;

  set_text (store, "n", "5");
  set_text (store, "d", "{'f': <1.5>, 'l': <[<1>, <2>]>, 's': <'x'>, 't': <(1, 2)>}");
  ck_assert (ferry_store_add_int (store, "n", -7, &integer, &error));
  ck_assert_int_eq (integer, -2);
  ck_assert (ferry_store_add_int (store, "n", 1, NULL, &error));
  assert_text (store, "n", "int64 -1");
  ck_assert (ferry_store_add_double (store, "d.f", 0.25, &real, &error));
  ck_assert (real == 1.75);
  ck_assert (ferry_store_add_int (store, "d.f", 1, &integer, &error));
  ck_assert_int_eq (integer, 2);
  assert_text (store, "d.f", "2.75");
  ck_assert (ferry_store_add_int (store, "d.l[-1]", G_GINT64_CONSTANT (1) << 60, &integer, &error));
  ck_assert_int_eq (integer, (G_GINT64_CONSTANT (1) << 60) + 2);
  sum = ferry_store_add (store, "d.l[0]", g_variant_new_double (0.5), &error);
  ck_assert (g_variant_get_double (sum) == 1.5);
  g_clear_pointer (&sum, g_variant_unref);
  sum = ferry_store_add (store, "n", g_variant_new_byte (11), &error);
  ck_assert_int_eq (g_variant_get_int64 (sum), 10);

  ck_assert (ferry_store_add (store, "n", g_variant_new_string ("x"), &error) == NULL);
  ferry_assert_error (error, FERRY_ERROR, FERRY_ERROR_INVALID_ARGUMENT);
  g_clear_error (&error);
  ck_assert (!ferry_store_add_int (store, "d.s", 1, NULL, &error));
  ferry_assert_error (error, FERRY_ERROR, FERRY_ERROR_UNSUPPORTED);
  g_clear_error (&error);
  ck_assert (!ferry_store_add_int (store, "d.t[0]", 1, NULL, &error));
  ferry_assert_error (error, FERRY_ERROR, FERRY_ERROR_UNSUPPORTED);
  g_clear_error (&error);
  set_text (store, "n", "int64 9223372036854775807");
  ck_assert (!ferry_store_add_int (store, "n", 1, NULL, &error));
  ferry_assert_error (error, FERRY_ERROR, FERRY_ERROR_UNSUPPORTED);
  g_clear_error (&error);
  assert_text (store, "n", "int64 9223372036854775807");
  ck_assert (!ferry_store_add_int (store, "x", 1, NULL, &error));
  ferry_assert_error (error, FERRY_ERROR, FERRY_ERROR_NOT_FOUND);
  g_clear_error (&error);
  ck_assert (!ferry_store_add_int (store, "d.l[2]", 1, NULL, &error));
  ferry_assert_error (error, FERRY_ERROR, FERRY_ERROR_NOT_FOUND);
  assert_at_rest (store);
}
END_TEST

#define N_PROCESSES (4)
#define N_ADDITIONS (2000)

START_TEST (test_add_from_everywhere)
{
  g_autoptr (FerryStore) store = open_named ("add");
  g_autoptr (GError) error = NULL;
  pid_t pids[N_PROCESSES];

  set_text (store, "n", "0");
  set_text (store, "d", "{'n': 0}");
  for (guint i = 0; i < N_PROCESSES; i++)
    {
      pids[i] = fork ();
      if (pids[i] == 0)
        {
          for (guint j = 0; j < N_ADDITIONS; j++)
            if (!ferry_store_add_int (store, "n", 1, NULL, NULL) || !ferry_store_add_int (store, "d.n", 2, NULL, NULL))
              _exit (1);
          _exit (0);
        }
    }
  for (guint i = 0; i < N_PROCESSES; i++)
    {
      int status;

      ck_assert_int_eq (waitpid (pids[i], &status, 0), pids[i]);
      ck_assert_int_eq (status, 0);
    }
  assert_text (store, "n", G_STRINGIFY (int64 8000));
  assert_text (store, "d.n", G_STRINGIFY (int64 16000));
}
END_TEST

START_TEST (test_transaction)
{
  g_autoptr (FerryStore) store = open_anonymous ();
  g_autoptr (GError) error = NULL;

  set_text (store, "a", "{'x': <1>, 'l': <[1, 2, 3]>}");
  ck_assert (ferry_store_begin_transaction (store, -1, NULL, &error));
  set_text (store, "a.x", "'a longer text than inline'");
  set_text (store, "a.l[1]", "[5, 6]");
  ck_assert (ferry_store_add_int (store, "a.l[0]", 5, NULL, &error));
  set_text (store, "b", "'new'");
  assert_text (store, "a.l[1][1]", "int64 6");
  ck_assert (ferry_store_roll_back (store, &error));
  assert_text (store, "", "{'a': <{'x': <int64 1>, 'l': <[<int64 1>, <int64 2>, <int64 3>]>}>}");
  ck_assert (ferry_store_begin_transaction (store, -1, NULL, &error));
  ck_assert (ferry_store_remove (store, "a.l[0]", &error));
  set_text (store, "b", "'new'");
  ck_assert (ferry_store_commit (store, &error));
  assert_text (store, "", "{'a': <{'x': <int64 1>, 'l': <[<int64 2>, <int64 3>]>}>, 'b': <'new'>}");
  assert_at_rest (store);
}
END_TEST

/* ---- arrays ---- */

START_TEST (test_tensor)
{
  g_autoptr (FerryStore) store = open_anonymous ();
  g_autoptr (GError) error = NULL;
  gint64 shape[] = { 2, 3 };
  gint64 by_columns[] = { 8, 16 };
  gint32 numbers[] = { 0, 1, 2, 3, 4, 5 };
  double columns[] = { 0, 1, 2, 3, 4, 5 };
  g_autoptr (FerryTensor) tensor
      = ferry_tensor_new_copy ("<i4", shape, 2, (const guint8 *) numbers, sizeof numbers, &error);
  g_autoptr (FerryTensor) fortran
      = ferry_tensor_new_take ("<f8", shape, 2, by_columns, columns, sizeof columns, 0, FALSE, NULL, NULL, &error);
  g_autoptr (FerryTensor) scalar = ferry_tensor_new ("<f4", NULL, 0, &error);
  g_autoptr (FerryTensor) empty = ferry_tensor_new ("|u1", (gint64[]){ 0, 5 }, 2, &error);
  g_autoptr (FerryTensor) record = ferry_tensor_new ("[('x', '<f4'), ('rgb', '|u1', (3,))]", shape, 1, &error);
  g_autoptr (FerryTensor) back = NULL;
  g_autoptr (FerryTensor) again = NULL;
  guint64 used;

  ferry_assert_no_error (error);
  set_text (store, "d", "{'a': 1}");
  ck_assert (ferry_store_remove (store, "d.a", &error));
  ck_assert (ferry_store_collect (store, &error));
  used = ferry_store_get_bytes_used (store);
  ck_assert (ferry_store_set_tensor (store, "d.a", tensor, &error));
  back = ferry_store_get_tensor (store, "d.a", &error);
  ferry_assert_no_error (error);
  ck_assert (ferry_tensor_equal (tensor, back));
  ck_assert_uint_eq (ferry_tensor_get_address (back) % 64, 0);
  ck_assert (ferry_tensor_is_writable (back));

  /* it is one memory */
  again = ferry_store_get_tensor (store, "d.a", &error);
  ck_assert_uint_eq (ferry_tensor_get_address (back), ferry_tensor_get_address (again));
  ((gint32 *) ferry_tensor_get_writable_data (back))[5] = 77;
  assert_text (
      store, "d.a",
      "('<i4', [int64 2, 3], [int64 12, 4], [byte 0x00, 0x00, 0x00, 0x00, 0x01, 0x00, 0x00, 0x00, 0x02, 0x00, 0x00, "
      "0x00, 0x03, 0x00, 0x00, 0x00, 0x04, 0x00, 0x00, 0x00, 0x4d, 0x00, 0x00, 0x00])");
  assert_type (store, "d.a", "ndarray");
  ck_assert_int_eq (ferry_store_get_length (store, "d.a", &error), 2);
  assert_fails (store, "d.a[0]", FERRY_ERROR_NOT_FOUND, "ferry_store_get_tensor");

  /* and stays as long as somebody has it */
  ck_assert (ferry_store_remove (store, "d.a", &error));
  ck_assert_int_eq (((const gint32 *) ferry_tensor_get_data (again))[5], 77);
  ck_assert_uint_gt (ferry_store_get_bytes_used (store), used);
  g_clear_pointer (&again, ferry_tensor_unref);
  g_clear_pointer (&back, ferry_tensor_unref);
  ck_assert (ferry_store_collect (store, &error));
  ck_assert_uint_eq (ferry_store_get_bytes_used (store), used);

  ck_assert (ferry_store_set_tensor (store, "d.f", fortran, &error));
  back = ferry_store_get_tensor (store, "d.f", &error);
  ferry_assert_no_error (error);
  ck_assert (ferry_tensor_equal (fortran, back));
  ck_assert (ferry_tensor_is_f_contiguous (back));
  g_clear_pointer (&back, ferry_tensor_unref);

  ck_assert (ferry_store_set_tensor (store, "d.s", scalar, &error));
  back = ferry_store_get_tensor (store, "d.s", &error);
  ferry_assert_no_error (error);
  ck_assert_uint_eq (ferry_tensor_get_n_dimensions (back), 0);
  g_clear_pointer (&back, ferry_tensor_unref);
  ck_assert_int_eq (ferry_store_get_length (store, "d.s", &error), -1);
  ferry_assert_error (error, FERRY_ERROR, FERRY_ERROR_UNSUPPORTED);
  g_clear_error (&error);

  ck_assert (ferry_store_set_tensor (store, "d.e", empty, &error));
  back = ferry_store_get_tensor (store, "d.e", &error);
  ferry_assert_no_error (error);
  ck_assert (ferry_tensor_equal (empty, back));
  g_clear_pointer (&back, ferry_tensor_unref);

  ck_assert (ferry_store_set_tensor (store, "d.r", record, &error));
  back = ferry_store_get_tensor (store, "d.r", &error);
  ferry_assert_no_error (error);
  ck_assert_str_eq (ferry_tensor_get_format (back), ferry_tensor_get_format (record));
  assert_at_rest (store);

  /* also after the store is closed */
  ferry_store_close (store);
  ck_assert_int_eq (((const guint8 *) ferry_tensor_get_data (back))[0], 0);
  g_clear_pointer (&back, ferry_tensor_unref);
  ferry_assert_last_unref (g_steal_pointer (&store));
}
END_TEST

/* ---- threads ---- */

#define THREADS (4)
#define LOOKUPS (3000)

static gpointer
lookups_thread (gpointer data)
{
  FerryStore *store = data;

  for (guint i = 0; i < LOOKUPS; i++)
    {
      g_autoptr (GError) error = NULL;
      g_autoptr (FerryStoreReference) list = ferry_store_get_reference (store, "d.list", &error);
      g_autoptr (GVariant) value = list != NULL ? ferry_store_get (store, "d.list[1]", &error) : NULL;
      g_autoptr (FerryTensor) array = value != NULL ? ferry_store_get_tensor (store, "d.array", &error) : NULL;

      if (array == NULL || g_variant_get_int64 (value) != 2)
        return g_strdup (error != NULL ? error->message : "another value");
    }
  return NULL;
}

/* What a look-up holds on its way is counted for the whole process. */
START_TEST (test_lookups_of_threads)
{
  g_autoptr (FerryStore) store = open_anonymous ();
  g_autoptr (FerryTensor) tensor = NULL;
  g_autoptr (GError) error = NULL;
  GThread *threads[THREADS];
  const gint32 numbers[] = { 1, 2, 3 };
  const gint64 shape[] = { G_N_ELEMENTS (numbers) };

  set_text (store, "d", "{'list': <[int64 1, 2, 3]>}");
  tensor = ferry_tensor_new_copy ("<i4", shape, 1, (const guint8 *) numbers, sizeof numbers, &error);
  ferry_assert_no_error (error);
  ck_assert (ferry_store_set_tensor (store, "d.array", tensor, &error));
  for (guint i = 0; i < THREADS; i++)
    threads[i] = g_thread_new ("look up", lookups_thread, store);
  for (guint i = 0; i < THREADS; i++)
    {
      g_autofree char *trouble = g_thread_join (threads[i]);

      ck_assert_msg (trouble == NULL, "%s", trouble);
    }
  ck_assert (ferry_store_remove (store, "d", &error));
  assert_at_rest (store);
  ferry_assert_last_unref (g_steal_pointer (&store));
}
END_TEST

/* ---- waiting ---- */

static gpointer
set_later_thread (gpointer data)
{
  g_usleep (100 * 1000);
  set_text (data, "x", "5");
  g_usleep (100 * 1000);
  set_text (data, "x", "6");
  return NULL;
}

START_TEST (test_wait)
{
  g_autoptr (FerryStore) store = open_anonymous ();
  g_autoptr (GError) error = NULL;
  g_autoptr (GVariant) first = NULL;
  g_autoptr (GVariant) second = NULL;
  g_autoptr (GVariant) third = NULL;
  g_autoptr (GCancellable) cancellable = g_cancellable_new ();
  GThread *thread = g_thread_new ("set", set_later_thread, store);
  gint64 started;

  first = ferry_store_wait (store, "x", NULL, 10 * G_USEC_PER_SEC, NULL, &error);
  ferry_assert_no_error (error);
  ck_assert_int_eq (g_variant_get_int64 (first), 5);
  second = ferry_store_wait (store, "x", g_variant_new_int32 (5), 10 * G_USEC_PER_SEC, NULL, &error);
  ferry_assert_no_error (error);
  ck_assert_int_eq (g_variant_get_int64 (second), 6);
  g_thread_join (thread);

  started = g_get_monotonic_time ();
  ck_assert (ferry_store_wait (store, "x", g_variant_new_byte (6), 50 * 1000, NULL, &error) == NULL);
  ferry_assert_error (error, FERRY_ERROR, FERRY_ERROR_TIMED_OUT);
  ferry_assert_contains (error->message, "no other value at x");
  ck_assert_int_ge (g_get_monotonic_time () - started, 50 * 1000);
  g_clear_error (&error);
  ck_assert (ferry_store_wait (store, "y", NULL, 0, NULL, &error) == NULL);
  ferry_assert_error (error, FERRY_ERROR, FERRY_ERROR_TIMED_OUT);
  g_clear_error (&error);
  g_cancellable_cancel (cancellable);
  ck_assert (ferry_store_wait (store, "y", NULL, -1, cancellable, &error) == NULL);
  ferry_assert_error (error, G_IO_ERROR, G_IO_ERROR_CANCELLED);
  g_clear_error (&error);
  ck_assert (ferry_store_wait (store, "y.", NULL, -1, NULL, &error) == NULL);
  ferry_assert_error (error, FERRY_ERROR, FERRY_ERROR_PARSE);
  g_clear_error (&error);

  /* containers, whatever types they are made of */
  set_text (store, "x", "{'a': [1, 2]}");
  third = ferry_store_wait (store, "x", g_variant_new_parsed ("{'a': <[uint16 1, 3]>}"), 0, NULL, &error);
  ferry_assert_no_error (error);
  ck_assert (third != NULL);
  ck_assert (ferry_store_wait (store, "x", g_variant_new_parsed ("{'a': <[uint16 1, 2]>}"), 0, NULL, &error) == NULL);
  ferry_assert_error (error, FERRY_ERROR, FERRY_ERROR_TIMED_OUT);
}
END_TEST

typedef struct
{
  GMainLoop *loop;
  guint n_calls;
  guint n_wanted;
} Watch;

static gboolean
on_change (FerryStore *store, gpointer data)
{
  Watch *watch = data;

  watch->n_calls++;
  if (ferry_store_contains (store, "done", NULL) || watch->n_calls == watch->n_wanted)
    g_main_loop_quit (watch->loop);
  return G_SOURCE_CONTINUE;
}

START_TEST (test_source)
{
  g_autoptr (FerryStore) store = open_named ("source");
  g_autoptr (GMainContext) context = g_main_context_new ();
  g_autoptr (GMainLoop) loop = g_main_loop_new (context, FALSE);
  g_autoptr (GError) error = NULL;
  g_autoptr (GSource) source = NULL;
  Watch watch = { loop, 0, 0 };
  pid_t pid;

  source = ferry_store_create_source (store, NULL, &error);
  ferry_assert_no_error (error);
  g_source_set_callback (source, (GSourceFunc) (void (*) (void)) on_change, &watch, NULL);
  g_source_attach (source, context);
  ck_assert (!g_main_context_iteration (context, FALSE));

  /* from this process */
  set_text (store, "x", "1");
  ck_assert (g_main_context_iteration (context, TRUE));
  ck_assert_uint_eq (watch.n_calls, 1);
  ck_assert (!g_main_context_iteration (context, FALSE));

  /* and from another one */
  pid = fork ();
  if (pid == 0)
    {
      g_usleep (50 * 1000);
      for (int i = 0; i < 10; i++)
        ferry_store_set (store, "x", g_variant_new_int32 (i), NULL);
      g_usleep (50 * 1000);
      ferry_store_set (store, "done", g_variant_new_boolean (TRUE), NULL);
      _exit (0);
    }
  g_main_loop_run (loop);
  ck_assert_uint_ge (watch.n_calls, 2);
  ck_assert_int_eq (waitpid (pid, NULL, 0), pid);

  /* a last call when it is closed */
  while (g_main_context_iteration (context, FALSE))
    ;
  watch.n_calls = 0;
  ferry_store_close (store);
  ck_assert (g_main_context_iteration (context, TRUE));
  ck_assert_uint_eq (watch.n_calls, 1);
  ck_assert (g_source_is_destroyed (source));
  ck_assert (ferry_store_create_source (store, NULL, &error) == NULL);
  ferry_assert_error (error, FERRY_ERROR, FERRY_ERROR_CLOSED);
}
END_TEST

static void
on_waited (GObject *object, GAsyncResult *result, gpointer data)
{
  *(GAsyncResult **) data = g_object_ref (result);
}

START_TEST (test_async)
{
  g_autoptr (FerryStore) store = open_anonymous ();
  g_autoptr (GCancellable) cancellable = g_cancellable_new ();
  g_autoptr (GError) error = NULL;
  GAsyncResult *result = NULL;
  guint64 seen = ferry_store_watch (store);
  guint64 before = seen;

  /* there was a change already */
  set_text (store, "x", "1");
  ferry_store_wait_change_async (store, seen, G_PRIORITY_DEFAULT, NULL, on_waited, &result);
  while (result == NULL)
    g_main_context_iteration (NULL, TRUE);
  ck_assert (ferry_store_wait_change_finish (store, result, &seen, &error));
  ck_assert_uint_gt (seen, before);
  g_clear_object (&result);

  /* there will be one */
  ferry_store_wait_change_async (store, seen, G_PRIORITY_DEFAULT, cancellable, on_waited, &result);
  for (int i = 0; i < 3; i++)
    g_main_context_iteration (NULL, FALSE);
  ck_assert (result == NULL);
  set_text (store, "x", "2");
  while (result == NULL)
    g_main_context_iteration (NULL, TRUE);
  ck_assert (ferry_store_wait_change_finish (store, result, &seen, &error));
  g_clear_object (&result);

  /* there is none */
  ferry_store_wait_change_async (store, seen, G_PRIORITY_DEFAULT, cancellable, on_waited, &result);
  g_main_context_iteration (NULL, FALSE);
  g_cancellable_cancel (cancellable);
  while (result == NULL)
    g_main_context_iteration (NULL, TRUE);
  ck_assert (!ferry_store_wait_change_finish (store, result, NULL, &error));
  ferry_assert_error (error, G_IO_ERROR, G_IO_ERROR_CANCELLED);
  g_clear_error (&error);
  g_clear_object (&result);

  /* nobody will tell any more */
  ferry_store_wait_change_async (store, seen, G_PRIORITY_DEFAULT, NULL, on_waited, &result);
  g_main_context_iteration (NULL, FALSE);
  ferry_store_close (store);
  while (result == NULL)
    g_main_context_iteration (NULL, TRUE);
  ck_assert (!ferry_store_wait_change_finish (store, result, NULL, &error));
  ferry_assert_error (error, FERRY_ERROR, FERRY_ERROR_CLOSED);
  g_clear_object (&result);
}
END_TEST

START_TEST (test_closed)
{
  g_autoptr (FerryStore) store = open_anonymous ();
  g_autoptr (GError) error = NULL;

  set_text (store, "x", "1");
  ferry_store_close (store);
  assert_fails (store, "x", FERRY_ERROR_CLOSED, "is closed");
  ck_assert (!ferry_store_set (store, "x", g_variant_new_int32 (1), &error));
  ferry_assert_error (error, FERRY_ERROR, FERRY_ERROR_CLOSED);
  g_clear_error (&error);
  ck_assert (!ferry_store_contains (store, "x", &error));
  ferry_assert_error (error, FERRY_ERROR, FERRY_ERROR_CLOSED);
  g_clear_error (&error);
  ck_assert (!ferry_store_add_int (store, "x", 1, NULL, &error));
  ferry_assert_error (error, FERRY_ERROR, FERRY_ERROR_CLOSED);
}
END_TEST

static void
add_tests (Suite *suite)
{
  const TTest *const values[] = { test_round_trip, test_nan, test_floating, test_large, test_deep, NULL };
  const TTest *const paths[] = { test_paths, test_path_errors, test_not_there, test_changes,  test_objects,
                                 test_cycle, test_messages,    test_repeated,  test_nonsense, NULL };
  const TTest *const numbers[] = { test_add, test_add_from_everywhere, test_transaction, test_tensor, NULL };
  const TTest *const waiting[] = { test_lookups_of_threads, test_wait, test_source, test_async, test_closed, NULL };

  ferry_test_add_case (suite, "values", 20, values);
  ferry_test_add_case (suite, "paths", 60, paths);
  ferry_test_add_case (suite, "numbers", 30, numbers);
  ferry_test_add_case (suite, "waiting", 20, waiting);
}

int
main (void)
{
  return ferry_test_run ("store-variant", add_tests);
}
