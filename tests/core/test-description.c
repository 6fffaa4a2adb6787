/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ferry-test.h"

#include "ferry-description-private.h"

/* transport|key=value|key=value!codec|key=value: what was understood. */
static char *
dump (const FerryDescription *description)
{
  GString *text = g_string_new (description->transport);

  for (guint i = 0; i < description->channel_properties->len; i++)
    {
      FerryDescriptionProperty *property = description->channel_properties->pdata[i];

      g_string_append_printf (text, "|%s=%s", property->key, property->value);
    }
  if (description->codec != NULL)
    g_string_append_printf (text, "!%s", description->codec);
  for (guint i = 0; i < description->codec_properties->len; i++)
    {
      FerryDescriptionProperty *property = description->codec_properties->pdata[i];

      g_string_append_printf (text, "|%s=%s", property->key, property->value);
    }
  return g_string_free (text, FALSE);
}

START_TEST (test_good)
{
  static const struct
  {
    const char *text;
    const char *dump;
  } cases[] = {
    { "memfd", "memfd" },
    { "  memfd\t\n", "memfd" },
    { "posix-shm name=frames capacity=16 mode=broadcast ! numpy level=3",
      "posix-shm|name=frames|capacity=16|mode=broadcast!numpy|level=3" },
    { "memfd ! raw", "memfd!raw" },
    { "memfd name=", "memfd|name=" },
    { "memfd name='two words'", "memfd|name=two words" },
    { "memfd name=\"two words\" b=1", "memfd|name=two words|b=1" },
    { "memfd name=two\\ words", "memfd|name=two words" },
    { "memfd name='it'\\''s'", "memfd|name=it's" },
    { "memfd name=\"a\\\"b\\\\c\\d\"", "memfd|name=a\"b\\c\\d" },
    { "memfd name='a\\b'", "memfd|name=a\\b" },
    { "memfd name=a=b=c", "memfd|name=a=b=c" },
    { "memfd name='!' x=! ! raw", "memfd|name=!|x=!!raw" },
    { "memfd max_bytes=1", "memfd|max-bytes=1" },
    { "memfd name=Bild\xc3\xa4r", "memfd|name=Bild\xc3\xa4r" },
    { "memfd name=''", "memfd|name=" },
    { "ferry+memfd:", "memfd" },
    { "ferry+memfd:frames", "memfd|name=frames" },
    { "ferry+memfd:frames?capacity=16&codec=numpy", "memfd|name=frames|capacity=16!numpy" },
    { "ferry+posix-shm:a%20b?mode=broadcast&codec=numpy&codec.level=3&wait_strategy=spin",
      "posix-shm|name=a b|mode=broadcast|wait-strategy=spin!numpy|level=3" },
    { "FERRY+memfd:Frames", "memfd|name=Frames" },
    { "ferry+memfd:?name=x", "memfd|name=x" },
    { "ferry+memfd:a%26b?x=%3D%26%2B+", "memfd|name=a&b|x==&++" },
  };

  for (guint i = 0; i < G_N_ELEMENTS (cases); i++)
    {
      g_autoptr (GError) error = NULL;
      g_autoptr (FerryDescription) description = NULL;
      g_autofree char *found = NULL;

      description = ferry_description_parse (cases[i].text, &error);
      ferry_assert_no_error (error);
      found = dump (description);
      ck_assert_str_eq (found, cases[i].dump);
    }
}
END_TEST

START_TEST (test_bad)
{
  static const struct
  {
    const char *text;
    const char *part;
  } cases[] = {
    { "", "column 1: expected the name of a transport, found the end" },
    { "   ", "expected the name of a transport" },
    { "! raw", "column 1: expected the name of a transport, found \"!\"" },
    { "name=x memfd", "put it before the properties" },
    { "mem/fd", "names have letters" },
    { "memfd!raw", "put spaces around the '!'" },
    { "memfd frames", "column 7: expected key=value, found \"frames\"; write name=frames" },
    { "memfd name=x !raw", "column 14: expected key=value, found \"!raw\"; put spaces around the '!'" },
    { "memfd name=x !", "expected the name of a codec, found the end" },
    { "memfd ! raw ! raw", "column 13: expected key=value or the end, found a second '!'" },
    { "memfd ! raw level", "expected key=value, found \"level\"" },
    { "memfd ! level=1", "expected the name of a codec, found \"level=1\"" },
    { "memfd =x", "found the key \"\"" },
    { "memfd name = x", "column 7: expected key=value, found \"name\"" },
    { "memfd na/me=x", "found the key \"na/me\"" },
    { "memfd a=1 a=2", "column 11: expected another key, found \"a\" a second time" },
    { "memfd a-b=1 a_b=2", "a second time" },
    { "memfd name='x", "column 12: expected a closing ' for this quote" },
    { "memfd name=\"x", "closing \" for this quote" },
    { "memfd name=x\\", "column 13: expected a character after the backslash" },
    { "memfd name=\xff", "column 12: expected UTF-8, found the byte 0xff" },
    { "memfd \xc3\xa4=1 b", "found the key" },
    { "ferry+memfd", "expected ':' after the transport" },
    { "ferry+:x", "expected the name of a transport" },
    { "ferry+memfd://host/x", "without slashes" },
    { "ferry+memfd:x#y", "write %23" },
    { "ferry+memfd:x?a", "expected KEY=VALUE" },
    { "ferry+memfd:x?a=1&a=2", "a second time" },
    { "ferry+memfd:x?name=y", "a second time" },
    { "ferry+memfd:x?codec=raw&codec=numpy", "a channel has one codec" },
    { "ferry+memfd:x?codec=", "expected the name of a codec" },
    { "ferry+memfd:x?codec.level=1", "expected codec=NAME beside \"codec.level\"" },
    { "ferry+memfd:x?a=%zz", "column" },
    { "ferry+memfd:x?a=%00", "column" },
    { "ferry+memfd:x?/=1", "found the key \"/\"" },
    { "ferry+memfd:x?codec.=1&codec=raw", "found the key \"codec.\"" },
  };

  for (guint i = 0; i < G_N_ELEMENTS (cases); i++)
    {
      g_autoptr (GError) error = NULL;
      g_autoptr (FerryDescription) description = ferry_description_parse (cases[i].text, &error);

      ck_assert_msg (description == NULL, "\"%s\" was accepted", cases[i].text);
      ferry_assert_error (error, FERRY_ERROR, FERRY_ERROR_PARSE);
      ferry_assert_contains (error->message, cases[i].part);
      ck_assert (g_utf8_validate (error->message, -1, NULL));
    }
}
END_TEST

START_TEST (test_very_long)
{
  g_autofree char *text = g_strnfill (1000000, 'x');
  g_autofree char *line = NULL;
  g_autoptr (GError) error = NULL;

  ck_assert_ptr_null (ferry_description_parse (text, &error));
  ferry_assert_error (error, FERRY_ERROR, FERRY_ERROR_PARSE);
  g_clear_error (&error);

  text[60000] = '\0';
  line = g_strconcat ("memfd ", text, NULL);
  ck_assert_ptr_null (ferry_description_parse (line, &error));
  ferry_assert_error (error, FERRY_ERROR, FERRY_ERROR_PARSE);
  ferry_assert_contains (error->message, "\"memfd xxxxx");
}
END_TEST

START_TEST (test_to_string)
{
  static const struct
  {
    const char *value;
    const char *text;
  } cases[] = {
    { "x", "memfd name=x ! raw level=x" },
    { "a b", "memfd name='a b' ! raw level='a b'" },
    { "", "memfd name='' ! raw level=''" },
    { "!", "memfd name='!' ! raw level='!'" },
    { "it's", "memfd name='it'\\''s' ! raw level='it'\\''s'" },
    { "1.5,a/b:c", "memfd name=1.5,a/b:c ! raw level=1.5,a/b:c" },
  };

  for (guint i = 0; i < G_N_ELEMENTS (cases); i++)
    {
      g_autoptr (FerryDescription) description = ferry_description_new ("memfd", "raw");
      g_autofree char *text = NULL;

      ferry_description_add (description, "name", cases[i].value);
      ferry_description_add_codec_property (description, "level", cases[i].value);
      text = ferry_description_to_string (description);
      ck_assert_str_eq (text, cases[i].text);
    }
}
END_TEST

/* What is written is read as the same again, whatever the value. */
START_TEST (test_round_trip)
{
  g_autoptr (GRand) rand = g_rand_new_with_seed (7);
  static const char alphabet[] = "ab '\"\\!=&%#\t\n+:?$`(){}[]~*";

  for (int round = 0; round < 2000; round++)
    {
      g_autoptr (FerryDescription) description = ferry_description_new ("memfd", round % 2 == 0 ? "raw" : NULL);
      g_autoptr (FerryDescription) again = NULL;
      g_autoptr (GString) value = g_string_new (NULL);
      g_autofree char *text = NULL;
      g_autofree char *expected = NULL;
      g_autofree char *found = NULL;
      g_autoptr (GError) error = NULL;
      int length = g_rand_int_range (rand, 0, 12);

      for (int i = 0; i < length; i++)
        g_string_append_c (value, alphabet[g_rand_int_range (rand, 0, sizeof alphabet - 1)]);
      ferry_description_add (description, "name", value->str);
      if (round % 2 == 0)
        ferry_description_add_codec_property (description, "x", value->str);
      text = ferry_description_to_string (description);
      again = ferry_description_parse (text, &error);
      ferry_assert_no_error (error);
      expected = dump (description);
      found = dump (again);
      ck_assert_str_eq (found, expected);
    }
}
END_TEST

/*
 * An object with a property of each kind.
 */

#define TEST_TYPE_THING (test_thing_get_type ())
G_DECLARE_FINAL_TYPE (TestThing, test_thing, TEST, THING, GObject)

enum
{
  PROP_TRUTH = 1,
  PROP_LEVEL,
  PROP_CAPACITY,
  PROP_MAX_BYTES,
  PROP_OFFSET,
  PROP_RATIO,
  PROP_NAME,
  PROP_MODE,
  PROP_CAPABILITIES,
  PROP_LETTER,
  PROP_OBJECT,
  PROP_READ_ONLY,
  PROP_MADE_WITH,
  N_PROPS,
};

static GParamSpec *properties[N_PROPS];

struct _TestThing
{
  GObject parent_instance;

  GValue values[N_PROPS];
};

G_DEFINE_FINAL_TYPE (TestThing, test_thing, G_TYPE_OBJECT)

static void
test_thing_get_property (GObject *object, guint prop_id, GValue *value, GParamSpec *pspec)
{
  g_value_copy (&TEST_THING (object)->values[prop_id], value);
}

static void
test_thing_set_property (GObject *object, guint prop_id, const GValue *value, GParamSpec *pspec)
{
  g_value_copy (value, &TEST_THING (object)->values[prop_id]);
}

static void
test_thing_finalize (GObject *object)
{
  for (guint i = 1; i < N_PROPS; i++)
    g_value_unset (&TEST_THING (object)->values[i]);
  G_OBJECT_CLASS (test_thing_parent_class)->finalize (object);
}

static void
test_thing_class_init (TestThingClass *klass)
{
  GObjectClass *object_class = G_OBJECT_CLASS (klass);
  const GParamFlags flags = G_PARAM_READWRITE | G_PARAM_STATIC_STRINGS;

  object_class->get_property = test_thing_get_property;
  object_class->set_property = test_thing_set_property;
  object_class->finalize = test_thing_finalize;
  properties[PROP_TRUTH] = g_param_spec_boolean ("truth", NULL, NULL, FALSE, flags);
  properties[PROP_LEVEL] = g_param_spec_int ("level", NULL, NULL, -5, 9, 0, flags);
  properties[PROP_CAPACITY] = g_param_spec_uint ("capacity", NULL, NULL, 1, 1000, 64, flags);
  properties[PROP_MAX_BYTES] = g_param_spec_uint64 ("max-bytes", NULL, NULL, 0, G_MAXUINT64, 0, flags);
  properties[PROP_OFFSET] = g_param_spec_int64 ("offset", NULL, NULL, G_MININT64, G_MAXINT64, 0, flags);
  properties[PROP_RATIO] = g_param_spec_double ("ratio", NULL, NULL, 0.0, 1.0, 0.0, flags);
  properties[PROP_NAME] = g_param_spec_string ("name", NULL, NULL, NULL, flags);
  properties[PROP_MODE] = g_param_spec_enum ("mode", NULL, NULL, FERRY_TYPE_MODE, FERRY_MODE_WORK_QUEUE, flags);
  properties[PROP_CAPABILITIES] = g_param_spec_flags ("capabilities", NULL, NULL, FERRY_TYPE_TRANSPORT_CAPABILITIES,
                                                      FERRY_TRANSPORT_CAPABILITIES_NONE, flags);
  properties[PROP_LETTER] = g_param_spec_uchar ("letter", NULL, NULL, 0, 255, 0, flags);
  properties[PROP_OBJECT] = g_param_spec_object ("object", NULL, NULL, G_TYPE_OBJECT, flags);
  properties[PROP_READ_ONLY]
      = g_param_spec_int ("read-only", NULL, NULL, 0, 1, 0, G_PARAM_READABLE | G_PARAM_STATIC_STRINGS);
  properties[PROP_MADE_WITH] = g_param_spec_int ("made-with", NULL, NULL, 0, 1, 0, flags | G_PARAM_CONSTRUCT_ONLY);
  g_object_class_install_properties (object_class, N_PROPS, properties);
}

static void
test_thing_init (TestThing *self)
{
  for (guint i = 1; i < N_PROPS; i++)
    {
      g_value_init (&self->values[i], properties[i]->value_type);
      g_param_value_set_default (properties[i], &self->values[i]);
    }
}

START_TEST (test_set_property)
{
  static const struct
  {
    const char *key;
    const char *value;
    const char *text; /* what it reads as afterwards; NULL: as it was written */
  } cases[] = {
    { "truth", "yes", NULL },
    { "truth", "FALSE", "no" },
    { "truth", "1", "yes" },
    { "truth", "0", "no" },
    { "truth", "on", "yes" },
    { "level", "-5", NULL },
    { "level", "+9", "9" },
    { "level", "0x7", "7" },
    { "level", "007", "7" },
    { "capacity", "1000", NULL },
    { "max-bytes", "18446744073709551615", NULL },
    { "max_bytes", "64k", "65536" },
    { "max-bytes", "64K", "65536" },
    { "max-bytes", "64KiB", "65536" },
    { "max-bytes", "64Ki", "65536" },
    { "max-bytes", "64KB", "64000" },
    { "max-bytes", "16M", "16777216" },
    { "max-bytes", "10GB", "10000000000" },
    { "max-bytes", "1.5GiB", "1610612736" },
    { "max-bytes", "0.5k", "512" },
    { "max-bytes", "12B", "12" },
    { "max-bytes", "15E", "17293822569102704640" },
    { "offset", "-9223372036854775808", NULL },
    { "offset", "9223372036854775807", NULL },
    { "ratio", "0.25", NULL },
    { "ratio", "1e-3", "0.001" },
    { "name", "any thing", NULL },
    { "name", "", NULL },
    { "mode", "broadcast", NULL },
    { "mode", "Work-Queue", "work-queue" },
    { "mode", "FERRY_MODE_BROADCAST", "broadcast" },
    { "capabilities", "named+zero-copy", NULL },
    { "capabilities", "zero-copy|named", "named+zero-copy" },
    { "capabilities", "none", NULL },
    { "letter", "255", NULL },
  };
  g_autoptr (TestThing) thing = g_object_new (TEST_TYPE_THING, NULL);

  for (guint i = 0; i < G_N_ELEMENTS (cases); i++)
    {
      g_autoptr (GError) error = NULL;
      g_autofree char *text = NULL;
      g_autofree char *canonical = g_strdelimit (g_strdup (cases[i].key), "_", '-');
      gboolean set = ferry_description_set_property (G_OBJECT (thing), cases[i].key, cases[i].value, &error);

      ferry_assert_no_error (error);
      ck_assert (set);
      text = ferry_description_get_property (G_OBJECT (thing),
                                             g_object_class_find_property (G_OBJECT_GET_CLASS (thing), canonical));
      ck_assert_str_eq (text, cases[i].text != NULL ? cases[i].text : cases[i].value);
    }
}
END_TEST

START_TEST (test_set_property_fails)
{
  static const struct
  {
    const char *key;
    const char *value;
    const char *part;
  } cases[] = {
    { "truht", "yes", "TestThing has no property 'truht'; did you mean 'truth'?" },
    { "xyzzy", "1", "TestThing has no property 'xyzzy'; it has " },
    { "no such", "1", "has no property 'no such'" },
    { "", "1", "has no property ''" },
    { "read-only", "1", "can only be read" },
    { "made-with", "1", "can only be read" },
    { "object", "x", "can't be set from" },
    { "truth", "maybe", "property 'truth': \"maybe\" is neither yes nor no; yes or no is allowed" },
    { "truth", "", "neither yes nor no" },
    { "level", "10", "property 'level': \"10\" is out of range; -5 to 9 is allowed" },
    { "level", "nine", "-5 to 9 is allowed" },
    { "level", "1 ", "-5 to 9 is allowed" },
    { "level", "1k", "-5 to 9 is allowed" },
    { "level", "99999999999999999999", "-5 to 9 is allowed" },
    { "level", "4294967297", "-5 to 9 is allowed" },
    { "level", "0x", "-5 to 9 is allowed" },
    { "capacity", "0", "1 to 1000 is allowed" },
    { "capacity", "-1", "1 to 1000 is allowed" },
    { "capacity", "4294967297", "1 to 1000 is allowed" },
    { "max-bytes", "18446744073709551616", "in range" },
    { "max-bytes", "16E", "in range" },
    { "max-bytes", "99999999.5E", "in range" },
    { "max-bytes", "-1", "in range" },
    { "max-bytes", "1.5", "also with a unit" },
    { "max-bytes", "1q", "also with a unit" },
    { "max-bytes", "1Kb", "also with a unit" },
    { "max-bytes", "k", "also with a unit" },
    { "offset", "9223372036854775808", "not a whole number in range" },
    { "ratio", "2", "0 to 1 is allowed" },
    { "ratio", "nan", "0 to 1 is allowed" },
    { "ratio", "", "0 to 1 is allowed" },
    { "ratio", "0,5", "0 to 1 is allowed" },
    { "mode", "brodcast", "did you mean 'broadcast'? one of work-queue, broadcast, store is allowed" },
    { "mode", "7", "one of work-queue, broadcast, store" },
    { "capabilities", "named+zerocopy", "\"zerocopy\" is not known; did you mean 'zero-copy'?" },
    { "letter", "256", "0 to 255 is allowed" },
  };
  g_autoptr (TestThing) thing = g_object_new (TEST_TYPE_THING, NULL);

  for (guint i = 0; i < G_N_ELEMENTS (cases); i++)
    {
      g_autoptr (GError) error = NULL;

      ck_assert_msg (!ferry_description_set_property (G_OBJECT (thing), cases[i].key, cases[i].value, &error),
                     "%s=%s was accepted", cases[i].key, cases[i].value);
      ferry_assert_error (error, FERRY_ERROR, FERRY_ERROR_INVALID_ARGUMENT);
      ferry_assert_contains (error->message, cases[i].part);
    }
}
END_TEST

static void
add (Suite *suite)
{
  const TTest *const parser[] = { test_good, test_bad, test_very_long, test_to_string, test_round_trip, NULL };
  const TTest *const setter[] = { test_set_property, test_set_property_fails, NULL };

  ferry_test_add_case (suite, "parser", 10, parser);
  ferry_test_add_case (suite, "properties", 10, setter);
}

int
main (void)
{
  return ferry_test_run ("description", add);
}
