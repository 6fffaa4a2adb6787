/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "channel-test.h"

#include "ferry-buffer-private.h"

#include <stdlib.h>

#define TRANSPORT "memfd"

/* What every channel does over every transport is in tests/lib/transport-conformance.c; here is what does not
 * depend on the transport. */

static ChannelTest test;

static void
set_up (void)
{
  channel_test_begin (&test, TRANSPORT, NULL, CHANNEL_TEST_BY_NAME);
}

static void
tear_down (void)
{
  channel_test_end (&test);
}

/* ---- the object ---- */

static const struct
{
  const char *name;
  GType fundamental;
  gint64 min;
  guint64 max;
} properties[] = {
  { "transport", G_TYPE_STRING, 0, 0 },    { "name", G_TYPE_STRING, 0, 0 },
  { "codec", G_TYPE_STRING, 0, 0 },        { "role", G_TYPE_ENUM, 0, 2 },
  { "mode", G_TYPE_ENUM, 0, 1 },           { "overflow", G_TYPE_ENUM, 0, 3 },
  { "wait-strategy", G_TYPE_ENUM, 0, 2 },  { "open-mode", G_TYPE_ENUM, 0, 2 },
  { "capacity", G_TYPE_UINT, 0, 1048576 }, { "max-bytes", G_TYPE_UINT64, 0, G_MAXUINT64 },
  { "history", G_TYPE_UINT, 0, 65536 },    { "inline-size", G_TYPE_UINT, 0, 4040 },
  { "timestamps", G_TYPE_BOOLEAN, 0, 1 },  { "group", G_TYPE_INT64, -1, G_MAXUINT32 - 1 },
};

START_TEST (test_properties)
{
  GObjectClass *klass = g_type_class_ref (FERRY_TYPE_CHANNEL);
  guint n;

  g_free (g_object_class_list_properties (klass, &n));
  ck_assert_uint_eq (n, G_N_ELEMENTS (properties));
  for (guint i = 0; i < G_N_ELEMENTS (properties); i++)
    {
      GParamSpec *spec = g_object_class_find_property (klass, properties[i].name);

      ck_assert_msg (spec != NULL, "no property '%s'", properties[i].name);
      ck_assert_uint_eq (G_TYPE_FUNDAMENTAL (spec->value_type), properties[i].fundamental);
      ck_assert_uint_eq (spec->flags & G_PARAM_READWRITE, G_PARAM_READWRITE);
      if (G_IS_PARAM_SPEC_UINT (spec))
        {
          ck_assert_uint_eq (G_PARAM_SPEC_UINT (spec)->minimum, properties[i].min);
          ck_assert_uint_eq (G_PARAM_SPEC_UINT (spec)->maximum, properties[i].max);
        }
      else if (G_IS_PARAM_SPEC_INT64 (spec))
        {
          ck_assert_int_eq (G_PARAM_SPEC_INT64 (spec)->minimum, properties[i].min);
          ck_assert_int_eq (G_PARAM_SPEC_INT64 (spec)->maximum, (gint64) properties[i].max);
        }
    }
  g_type_class_unref (klass);
}
END_TEST

static void
notify_cb (GObject *object, GParamSpec *spec, gpointer user_data)
{
  ++*(guint *) user_data;
}

/* Exactly when the value changes. */
START_TEST (test_notify)
{
  FerryChannel *channel = ferry_channel_new (TRANSPORT, "a", FERRY_ROLE_SENDER);
  guint n = 0;

  g_signal_connect (channel, "notify", G_CALLBACK (notify_cb), &n);
  g_object_set (channel, "name", "a", "role", FERRY_ROLE_SENDER, "capacity", 0, "group", (gint64) -1, NULL);
  ck_assert_uint_eq (n, 0);
  g_object_set (channel, "name", "b", NULL);
  g_object_set (channel, "capacity", 5, NULL);
  g_object_set (channel, "max-bytes", G_GUINT64_CONSTANT (1) << 40, NULL);
  g_object_set (channel, "mode", FERRY_MODE_BROADCAST, NULL);
  g_object_set (channel, "group", (gint64) 7, NULL);
  g_object_set (channel, "codec", "raw", NULL);
  g_object_set (channel, "transport", "posix-shm", NULL);
  g_object_set (channel, "timestamps", TRUE, NULL);
  ck_assert_uint_eq (n, 8);
  g_object_set (channel, "name", "b", "capacity", 5, "max-bytes", G_GUINT64_CONSTANT (1) << 40, "codec", "raw",
                "timestamps", TRUE, NULL);
  ck_assert_uint_eq (n, 8);
  ferry_assert_last_unref (channel);
}
END_TEST

START_TEST (test_defaults)
{
  FerryChannel *channel = ferry_channel_new (NULL, NULL, FERRY_ROLE_RECEIVER);
  g_autofree char *transport = NULL;
  g_autofree char *name = NULL;
  guint capacity, history, inline_size;
  guint64 max_bytes;
  gint64 group;
  FerryRole role;
  FerryOpenMode open_mode;

  g_object_get (channel, "transport", &transport, "name", &name, "capacity", &capacity, "history", &history,
                "inline-size", &inline_size, "max-bytes", &max_bytes, "group", &group, "role", &role, "open-mode",
                &open_mode, NULL);
  ck_assert_ptr_null (transport);
  ck_assert_ptr_null (name);
  ck_assert_uint_eq (capacity + history + inline_size, 0);
  ck_assert_uint_eq (max_bytes, 0);
  ck_assert_int_eq (group, -1);
  ck_assert_uint_eq (role, FERRY_ROLE_RECEIVER);
  ck_assert_uint_eq (open_mode, FERRY_OPEN_MODE_CREATE_OR_JOIN);
  ck_assert (!ferry_channel_is_open (channel));
  ck_assert_ptr_null (ferry_channel_get_transport_object (channel));
  ck_assert_ptr_null (ferry_channel_get_codec_object (channel));
  ferry_assert_last_unref (channel);

  /* After opening: what the channel has. */
  channel = channel_test_open (&test, FERRY_ROLE_SENDER, NULL);
  g_object_get (channel, "capacity", &capacity, "max-bytes", &max_bytes, "inline-size", &inline_size, NULL);
  ck_assert_uint_eq (capacity, 256);
  ck_assert_uint_ge (inline_size, 200);
  ck_assert_uint_lt (inline_size, 264);
  ck_assert_uint_gt (max_bytes, 1 << 20);
  ck_assert (FERRY_IS_TRANSPORT (ferry_channel_get_transport_object (channel)));
  channel_test_close (channel);
}
END_TEST

/* An open channel's properties can't be changed. */
START_TEST (test_properties_when_open)
{
  FerryChannel *channel = channel_test_open (&test, FERRY_ROLE_SENDER, "capacity=8");
  guint capacity;

  g_log_set_always_fatal (G_LOG_LEVEL_ERROR);
  g_object_set (channel, "capacity", 9, NULL);
  g_object_get (channel, "capacity", &capacity, NULL);
  ck_assert_uint_eq (capacity, 8);
  channel_test_close (channel);
}
END_TEST

START_TEST (test_dispose_twice)
{
  FerryChannel *sender = channel_test_open (&test, FERRY_ROLE_SENDER, NULL);
  FerryChannel *receiver = channel_test_open (&test, FERRY_ROLE_RECEIVER, NULL);
  g_autoptr (GError) error = NULL;

  channel_test_send (sender, 0, 10);
  g_object_run_dispose (G_OBJECT (sender));
  g_object_run_dispose (G_OBJECT (sender));
  ck_assert (!ferry_channel_is_open (sender));
  ck_assert (!channel_test_try_send (sender, 0, 10, FERRY_NO_WAIT, &error));
  channel_test_assert_error (&test, error, FERRY_ERROR_CLOSED);
  ck_assert (ferry_channel_close (sender, NULL));
  ferry_assert_last_unref (sender);
  channel_test_assert_statistic (receiver, senders, 0);
  channel_test_expect (receiver, 0, 10);
  g_object_run_dispose (G_OBJECT (receiver));
  ferry_assert_last_unref (receiver);

  /* unopened */
  sender = ferry_channel_new (NULL, NULL, FERRY_ROLE_SENDER);
  g_object_run_dispose (G_OBJECT (sender));
  g_object_run_dispose (G_OBJECT (sender));
  ferry_assert_last_unref (sender);
}
END_TEST

/* Dropping the last reference closes, and a source or an operation holds one. */
START_TEST (test_references)
{
  FerryChannel *sender = channel_test_open (&test, FERRY_ROLE_SENDER, NULL);
  FerryChannel *receiver = channel_test_open (&test, FERRY_ROLE_RECEIVER, NULL);
  FerryTransport *transport = g_object_ref (ferry_channel_get_transport_object (receiver));
  FerryBuffer *view;
  GSource *source = ferry_channel_create_source (receiver, G_IO_IN, NULL, NULL);

  channel_test_send (sender, 0, 5000);
  view = channel_test_take (receiver);
  ck_assert_uint_eq (G_OBJECT (receiver)->ref_count, 2);
  g_source_unref (source);
  ferry_assert_last_unref (receiver);
  channel_test_assert_statistic (sender, receivers, 0);
  /* The view is what holds the transport now, besides us. */
  ck_assert_uint_eq (G_OBJECT (transport)->ref_count, 2);
  ferry_buffer_unref (view);
  ferry_assert_last_unref (transport);
  channel_test_verify (sender);
  channel_test_close (sender);
}
END_TEST

START_TEST (test_open_twice)
{
  FerryChannel *channel = channel_test_open (&test, FERRY_ROLE_SENDER, NULL);
  g_autoptr (GError) error = NULL;

  ck_assert (!ferry_channel_open (channel, NULL, &error));
  channel_test_assert_error (&test, error, FERRY_ERROR_INVALID_ARGUMENT);
  ck_assert (ferry_channel_is_open (channel));
  channel_test_send (channel, 1, 10);
  channel_test_close (channel);
}
END_TEST

/* What was closed can be opened once more, as a new participant, or says why it can't. */
START_TEST (test_open_after_close)
{
  FerryChannel *channel = channel_test_open (&test, FERRY_ROLE_SENDER, NULL);
  g_autoptr (GError) error = NULL;

  ck_assert (ferry_channel_close (channel, NULL));
  if (ferry_channel_open (channel, NULL, &error))
    channel_test_send (channel, 1, 10);
  else
    channel_test_assert_error (&test, error, FERRY_ERROR_INVALID_ARGUMENT);
  channel_test_close (channel);
}
END_TEST

START_TEST (test_with_transport)
{
  g_autoptr (GError) error = NULL;
  FerryTransport *transport = ferry_registry_create_transport (ferry_registry_get_default (), TRANSPORT, &error);
  FerryCodec *codec = ferry_registry_create_codec (ferry_registry_get_default (), "gvariant", &error);
  FerryChannel *channel = ferry_channel_new_with_transport (transport, codec, FERRY_ROLE_SENDER);
  FerryChannel *receiver;
  g_autoptr (GVariant) variant = NULL;

  ferry_assert_no_error (error);
  ck_assert_ptr_eq (ferry_channel_get_transport_object (channel), transport);
  ck_assert_ptr_eq (ferry_channel_get_codec_object (channel), codec);
  g_object_set (channel, "name", test.name, NULL);
  ck_assert (ferry_channel_open (channel, NULL, &error));
  ferry_assert_no_error (error);
  receiver = channel_test_open (&test, FERRY_ROLE_RECEIVER, NULL);
  ck_assert (ferry_channel_send_variant (channel, g_variant_new_int32 (5), FERRY_NO_WAIT, NULL, &error));
  variant = ferry_channel_receive_variant (receiver, FERRY_NO_WAIT, NULL, &error);
  ferry_assert_no_error (error);
  ck_assert_int_eq (g_variant_get_int32 (variant), 5);
  channel_test_close (channel);
  channel_test_close (receiver);
  ferry_assert_last_unref (transport);
  ferry_assert_last_unref (codec);
}
END_TEST

/* A hundred channels in one process do not get in each other's way. */
START_TEST (test_many_channels)
{
  FerryChannel *senders[100];
  FerryChannel *receivers[100];

  for (guint i = 0; i < 100; i++)
    {
      g_autofree char *description = g_strdup_printf ("%s name=%s-%u", i % 2 ? "posix-shm" : "memfd", test.name, i);
      g_autoptr (GError) error = NULL;

      senders[i] = ferry_channel_new_from_description (description, FERRY_ROLE_SENDER, &error);
      receivers[i] = ferry_channel_new_from_description (description, FERRY_ROLE_RECEIVER, &error);
      ferry_assert_no_error (error);
      ck_assert (ferry_channel_open (senders[i], NULL, &error));
      ck_assert (ferry_channel_open (receivers[i], NULL, &error));
      ferry_assert_no_error (error);
    }
  for (guint round = 0; round < 3; round++)
    {
      for (guint i = 0; i < 100; i++)
        channel_test_send (senders[i], i * 3 + round, 1000 * round);
      for (guint i = 0; i < 100; i++)
        channel_test_expect (receivers[99 - i], (99 - i) * 3 + round, 1000 * round);
    }
  for (guint i = 0; i < 100; i++)
    {
      channel_test_verify (senders[i]);
      channel_test_close (senders[i]);
      channel_test_close (receivers[i]);
    }
  for (guint i = 0; i < 100; i++)
    {
      g_autofree char *shm = g_strdup_printf ("/dev/shm/ferry-%s-%u", test.name, i);

      ck_assert (!g_file_test (shm, G_FILE_TEST_EXISTS));
    }
}
END_TEST

/* ---- descriptions ---- */

static const struct
{
  const char *description;
  FerryError code;
  const char *hints[3]; /* what the message must tell */
} bad_descriptions[] = {
  { "", FERRY_ERROR_PARSE, { NULL } },
  { "   ", FERRY_ERROR_PARSE, { NULL } },
  { "memfdd name=x", FERRY_ERROR_NO_SUCH_FEATURE, { "memfdd", "memfd" } },
  { "posix-sm name=x", FERRY_ERROR_NO_SUCH_FEATURE, { "posix-sm", "posix-shm" } },
  { "memfd name=x ! gvarient", FERRY_ERROR_NO_SUCH_FEATURE, { "gvarient", "gvariant" } },
  { "memfd nam=x", FERRY_ERROR_PARSE, { "nam", "name" } },
  { "memfd name=x capasity=5", FERRY_ERROR_PARSE, { "capasity", "capacity" } },
  { "memfd name=x directry=/tmp", FERRY_ERROR_PARSE, { "directry" } },
  { "memfd name=x capacity=many", FERRY_ERROR_PARSE, { "capacity", "many" } },
  { "memfd name=x capacity=-1", FERRY_ERROR_PARSE, { "capacity", "-1" } },
  { "memfd name=x capacity=1048577", FERRY_ERROR_PARSE, { "capacity", "1048577", "1048576" } },
  { "memfd name=x capacity=", FERRY_ERROR_PARSE, { "capacity" } },
  { "memfd name=x mode=broadcst", FERRY_ERROR_PARSE, { "broadcst", "broadcast" } },
  { "memfd name=x overflow=drop", FERRY_ERROR_PARSE, { "overflow", "drop-oldest" } },
  { "memfd name=x timestamps=maybe", FERRY_ERROR_PARSE, { "timestamps", "maybe" } },
  { "memfd name=x max-bytes=99999999999999999999", FERRY_ERROR_PARSE, { "max-bytes" } },
  { "memfd name=x role=sender", FERRY_ERROR_PARSE, { "role" } },
  { "memfd name=x transport=memfd", FERRY_ERROR_PARSE, { "transport", "first word" } },
  { "memfd name=x codec=raw", FERRY_ERROR_PARSE, { "codec", "!" } },
  { "memfd name", FERRY_ERROR_PARSE, { "name" } },
  { "memfd =x", FERRY_ERROR_PARSE, { NULL } },
  { "memfd name='x", FERRY_ERROR_PARSE, { NULL } },
  { "memfd name=x !", FERRY_ERROR_PARSE, { NULL } },
  { "memfd name=x ! raw ! raw", FERRY_ERROR_PARSE, { NULL } },
  { "memfd name=x ! gvariant copi=yes", FERRY_ERROR_PARSE, { "copi", "copy" } },
  { "memfd name=x ! auto copy=yes", FERRY_ERROR_PARSE, { "auto" } },
  { "ferry+memfdd:x", FERRY_ERROR_NO_SUCH_FEATURE, { "memfdd", "memfd" } },
  { "ferry+memfd:x?capasity=5", FERRY_ERROR_PARSE, { "capasity", "capacity" } },
  { "ferry+memfd:x?capacity=zz", FERRY_ERROR_PARSE, { "capacity", "zz" } },
  { "ferry+memfd:x?codec=gvarient", FERRY_ERROR_NO_SUCH_FEATURE, { "gvarient", "gvariant" } },
  { "ferry+memfd:%zz", FERRY_ERROR_PARSE, { NULL } },
};

START_TEST (test_bad_descriptions)
{
  g_autoptr (GError) error = NULL;
  FerryChannel *channel
      = ferry_channel_new_from_description (bad_descriptions[_i].description, FERRY_ROLE_SENDER, &error);

  ck_assert_msg (channel == NULL, "\"%s\" was accepted", bad_descriptions[_i].description);
  ck_assert_msg (
      error->domain == FERRY_ERROR
          && (error->code == (int) bad_descriptions[_i].code
              || (bad_descriptions[_i].code == FERRY_ERROR_PARSE && error->code == FERRY_ERROR_INVALID_ARGUMENT)),
      "\"%s\" gave %d: %s", bad_descriptions[_i].description, error->code, error->message);
  for (guint i = 0; i < 3 && bad_descriptions[_i].hints[i] != NULL; i++)
    ferry_assert_contains (error->message, bad_descriptions[_i].hints[i]);
  ck_assert_uint_gt (strlen (error->message), 10);
}
END_TEST

static const struct
{
  const char *description;
  const char *name;
  guint capacity;
  FerryMode mode;
  const char *codec;
} good_descriptions[] = {
  { "memfd", NULL, 0, FERRY_MODE_WORK_QUEUE, NULL },
  { "auto name=frames", "frames", 0, FERRY_MODE_WORK_QUEUE, NULL },
  { "memfd name=frames capacity=16", "frames", 16, FERRY_MODE_WORK_QUEUE, NULL },
  { "  memfd   name=frames\tcapacity=16  ", "frames", 16, FERRY_MODE_WORK_QUEUE, NULL },
  { "posix-shm name=\"two words\" mode=broadcast ! gvariant", "two words", 0, FERRY_MODE_BROADCAST, "gvariant" },
  { "memfd name=x ! gvariant copy=yes", "x", 0, FERRY_MODE_WORK_QUEUE, "gvariant" },
  { "memfd name=x directory=/tmp/elsewhere", "x", 0, FERRY_MODE_WORK_QUEUE, NULL },
  { "memfd name=x ! auto", "x", 0, FERRY_MODE_WORK_QUEUE, NULL },
  { "ferry+memfd:frames?capacity=16&codec=gvariant", "frames", 16, FERRY_MODE_WORK_QUEUE, "gvariant" },
  { "ferry+posix-shm:two%20words?mode=broadcast", "two words", 0, FERRY_MODE_BROADCAST, NULL },
};

static void
assert_is_described (FerryChannel *channel, guint i)
{
  g_autofree char *name = NULL;
  guint capacity;
  FerryMode mode;
  FerryCodec *codec = ferry_channel_get_codec_object (channel);

  g_object_get (channel, "name", &name, "capacity", &capacity, "mode", &mode, NULL);
  ck_assert_pstr_eq (name, good_descriptions[i].name);
  ck_assert_uint_eq (capacity, good_descriptions[i].capacity);
  ck_assert_uint_eq (mode, good_descriptions[i].mode);
  ck_assert_pstr_eq (codec != NULL ? ferry_codec_get_wire_name (codec) : NULL, good_descriptions[i].codec);
}

/* A description makes a channel, whose description makes such a channel. */
START_TEST (test_good_descriptions)
{
  g_autoptr (GError) error = NULL;
  FerryChannel *channel
      = ferry_channel_new_from_description (good_descriptions[_i].description, FERRY_ROLE_SENDER, &error);
  FerryChannel *again;
  g_autofree char *description = NULL;
  g_autofree char *same = NULL;

  ferry_assert_no_error (error);
  assert_is_described (channel, (guint) _i);
  description = ferry_channel_to_description (channel);
  again = ferry_channel_new_from_description (description, FERRY_ROLE_SENDER, &error);
  ferry_assert_no_error (error);
  assert_is_described (again, (guint) _i);
  same = ferry_channel_to_description (again);
  ck_assert_str_eq (description, same);
  ferry_assert_last_unref (channel);
  ferry_assert_last_unref (again);
}
END_TEST

/* Properties of transport and codec belong to it as well. */
START_TEST (test_description_of_all)
{
  g_autoptr (GError) error = NULL;
  FerryChannel *channel = ferry_channel_new_from_description (
      "memfd directory=/tmp/else name=x capacity=5 overflow=drop-oldest ! gvariant copy=yes", FERRY_ROLE_SENDER,
      &error);
  g_autofree char *description = NULL;
  FerryChannel *again;
  g_autofree char *directory = NULL;
  gboolean copy = FALSE;
  FerryOverflow overflow;

  ferry_assert_no_error (error);
  description = ferry_channel_to_description (channel);
  again = ferry_channel_new_from_description (description, FERRY_ROLE_SENDER, &error);
  ferry_assert_no_error (error);
  g_object_get (again, "overflow", &overflow, NULL);
  ck_assert_uint_eq (overflow, FERRY_OVERFLOW_DROP_OLDEST);
  g_object_get (ferry_channel_get_transport_object (again), "directory", &directory, NULL);
  ck_assert_pstr_eq (directory, "/tmp/else");
  g_object_get (ferry_channel_get_codec_object (again), "copy", &copy, NULL);
  ck_assert (copy);
  ferry_assert_last_unref (channel);
  ferry_assert_last_unref (again);
}
END_TEST

/* ---- names ---- */

START_TEST (test_bad_names)
{
  static const struct
  {
    const char *name;
    const char *hint;
  } names[] = {
    { "", "empty" },         { "a/b", "a-b" },     { "/", "slash" },       { "../x", "slash" },
    { ".hidden", "dot" },    { ".", "dot" },       { "..", "dot" },        { "new\nline", "control" },
    { "\xff\xfe", "UTF-8" }, { "a\x80", "UTF-8" }, { "tab\t", "control" },
  };
  static const char *const transports[] = { "memfd", "posix-shm", NULL };

  for (guint t = 0; t < G_N_ELEMENTS (transports); t++)
    {
      for (guint i = 0; i < G_N_ELEMENTS (names); i++)
        {
          FerryChannel *channel = ferry_channel_new (transports[t], names[i].name, FERRY_ROLE_SENDER);
          g_autoptr (GError) error = NULL;

          ck_assert_msg (!ferry_channel_open (channel, NULL, &error), "name \"%s\" was accepted", names[i].name);
          ferry_assert_error (error, FERRY_ERROR, FERRY_ERROR_INVALID_ARGUMENT);
          ferry_assert_contains (error->message, names[i].hint);
          ck_assert (g_utf8_validate (error->message, -1, NULL));
          ferry_assert_last_unref (channel);
        }
      for (guint length = 201; length <= 301; length += 50)
        {
          g_autofree char *name = g_strnfill (length, 'n');
          FerryChannel *channel = ferry_channel_new (transports[t], name, FERRY_ROLE_SENDER);
          g_autofree char *number = g_strdup_printf ("%u", length);
          g_autoptr (GError) error = NULL;

          ck_assert (!ferry_channel_open (channel, NULL, &error));
          ferry_assert_error (error, FERRY_ERROR, FERRY_ERROR_INVALID_ARGUMENT);
          ferry_assert_contains (error->message, number);
          ferry_assert_contains (error->message, "200");
          ferry_assert_last_unref (channel);
        }
    }
}
END_TEST

START_TEST (test_good_names)
{
  static const char *const transports[] = { "memfd", "posix-shm" };
  g_autofree char *long_name = g_strnfill (200, 'n');
  g_autofree char *middle = g_strnfill (60, 'm');
  const char *const names[]
      = { "-", "a b", "\xc3\xa4\xe2\x82\xac", "x.y", "~", "100%", "a=b!c", "'", long_name, middle };

  for (guint t = 0; t < G_N_ELEMENTS (transports); t++)
    for (guint i = 0; i < G_N_ELEMENTS (names); i++)
      {
        g_autofree char *name = g_strconcat (names[i], strlen (names[i]) > 100 ? "" : test.name, NULL);
        FerryChannel *sender = ferry_channel_new (transports[t], name, FERRY_ROLE_SENDER);
        FerryChannel *receiver = NULL;
        g_autofree char *description = NULL;
        g_autoptr (GError) error = NULL;

        if (strlen (name) == 200) /* alone in the world, also when somebody runs this twice at a time */
          memcpy (name, test.name, strlen (test.name));
        g_object_set (sender, "name", name, NULL);
        ck_assert_msg (ferry_channel_open (sender, NULL, &error), "%s name=%s: %s", transports[t], name,
                       error != NULL ? error->message : "");
        g_object_set_data (G_OBJECT (sender), "unused", NULL);
        receiver = ferry_channel_new (transports[t], name, FERRY_ROLE_RECEIVER);
        description = ferry_channel_to_description (receiver);
        g_object_unref (receiver);
        receiver = ferry_channel_new_from_description (description, FERRY_ROLE_RECEIVER, &error);
        ferry_assert_no_error (error);
        ck_assert (ferry_channel_open (receiver, NULL, &error));
        channel_test_send (sender, 1, 10);
        channel_test_expect (receiver, 1, 10);
        channel_test_close (sender);
        channel_test_close (receiver);
      }
}
END_TEST

/* ---- codecs ---- */

START_TEST (test_values_auto)
{
  FerryChannel *sender = channel_test_open (&test, FERRY_ROLE_SENDER, NULL);
  FerryChannel *receiver = channel_test_open (&test, FERRY_ROLE_RECEIVER, NULL);
  g_autoptr (GError) error = NULL;

  for (guint i = 0; i < 4; i++)
    {
      g_auto (GValue) value = G_VALUE_INIT;
      g_auto (GValue) found = G_VALUE_INIT;
      gsize size = i < 2 ? 20 : 5000;
      g_autofree guint8 *data = g_malloc (size);
      g_autoptr (GBytes) bytes = NULL;

      channel_test_fill (data, size, i);
      bytes = g_bytes_new (data, size);
      if (i % 2)
        {
          g_value_init (&value, G_TYPE_BYTES);
          g_value_set_boxed (&value, bytes);
        }
      else
        {
          g_value_init (&value, G_TYPE_VARIANT);
          g_value_set_variant (&value, g_variant_new_from_bytes (G_VARIANT_TYPE_BYTESTRING, bytes, TRUE));
        }
      ck_assert (ferry_channel_send_value (sender, &value, FERRY_NO_WAIT, NULL, &error));
      ferry_assert_no_error (error);
      ck_assert (ferry_channel_receive_value (receiver, &found, FERRY_NO_WAIT, NULL, &error));
      ferry_assert_no_error (error);
      if (i % 2)
        {
          ck_assert (G_VALUE_HOLDS (&found, G_TYPE_BYTES));
          ck_assert (g_bytes_equal (g_value_get_boxed (&found), bytes));
        }
      else
        {
          ck_assert (G_VALUE_HOLDS_VARIANT (&found));
          ck_assert (g_variant_equal (g_value_get_variant (&found), g_value_get_variant (&value)));
        }
    }
  channel_test_verify (sender);
  channel_test_close (sender);
  channel_test_close (receiver);
}
END_TEST

START_TEST (test_variants)
{
  FerryChannel *sender = channel_test_open (&test, FERRY_ROLE_SENDER, "! gvariant");
  FerryChannel *receiver = channel_test_open (&test, FERRY_ROLE_RECEIVER, "! gvariant");
  g_autoptr (GError) error = NULL;
  g_autoptr (GVariant) found = NULL;
  GVariant *mine = g_variant_ref_sink (g_variant_new ("(sat)", "text", NULL));

  ck_assert (ferry_channel_send_variant (sender, mine, FERRY_NO_WAIT, NULL, &error));
  /* a floating one is taken */
  ck_assert (ferry_channel_send_variant (sender, g_variant_new_string ("floating"), FERRY_NO_WAIT, NULL, &error));
  found = ferry_channel_receive_variant (receiver, FERRY_NO_WAIT, NULL, &error);
  ferry_assert_no_error (error);
  ck_assert (g_variant_equal (found, mine));
  g_variant_unref (found);
  found = ferry_channel_receive_variant (receiver, FERRY_NO_WAIT, NULL, &error);
  ferry_assert_no_error (error);
  ck_assert_str_eq (g_variant_get_string (found, NULL), "floating");
  g_variant_unref (mine);

  /* nothing there */
  g_clear_pointer (&found, g_variant_unref);
  ck_assert_ptr_null (ferry_channel_receive_variant (receiver, FERRY_NO_WAIT, NULL, &error));
  channel_test_assert_error (&test, error, FERRY_ERROR_EMPTY);
  channel_test_close (sender);
  channel_test_close (receiver);
}
END_TEST

/* The view of a variant on a large message holds it after the endpoint is closed. */
START_TEST (test_variant_outlives_channel)
{
  FerryChannel *sender = channel_test_open (&test, FERRY_ROLE_SENDER, NULL);
  FerryChannel *receiver = channel_test_open (&test, FERRY_ROLE_RECEIVER, NULL);
  g_autofree double *numbers = g_new (double, 10000);
  GVariant *found;
  gsize n;

  for (guint i = 0; i < 10000; i++)
    numbers[i] = i;
  ck_assert (ferry_channel_send_variant (
      sender, g_variant_new_fixed_array (G_VARIANT_TYPE_DOUBLE, numbers, 10000, sizeof (double)), FERRY_NO_WAIT, NULL,
      NULL));
  found = ferry_channel_receive_variant (receiver, FERRY_NO_WAIT, NULL, NULL);
  ck_assert_ptr_nonnull (found);
  channel_test_close (sender);
  channel_test_close (receiver);
  ck_assert_int_eq (memcmp (g_variant_get_fixed_array (found, &n, sizeof (double)), numbers, 80000), 0);
  ck_assert_uint_eq (n, 10000);
  g_variant_unref (found);
}
END_TEST

START_TEST (test_codec_mismatch)
{
  FerryChannel *sender = channel_test_open (&test, FERRY_ROLE_SENDER, NULL);
  FerryChannel *receiver = channel_test_open (&test, FERRY_ROLE_RECEIVER, "! gvariant");
  g_auto (GValue) value = G_VALUE_INIT;
  g_autoptr (FerryBuffer) buffer = NULL;
  g_autoptr (FerryBuffer) loan = NULL;
  g_autoptr (GError) error = NULL;

  channel_test_send (sender, 0, 10);
  channel_test_send (sender, 1, 10);
  ck_assert (!ferry_channel_receive_value (receiver, &value, FERRY_NO_WAIT, NULL, &error));
  ferry_assert_error (error, FERRY_ERROR, FERRY_ERROR_CODEC);
  ferry_assert_contains (error->message, "'raw'");
  ferry_assert_contains (error->message, "'gvariant'");
  ferry_assert_contains (error->message, "auto");
  ck_assert (!G_IS_VALUE (&value));
  g_clear_error (&error);

  /* It was taken; who wants to look first decodes by himself. */
  buffer = channel_test_take (receiver);
  ck_assert (!ferry_channel_decode (receiver, buffer, &value, &error));
  ferry_assert_error (error, FERRY_ERROR, FERRY_ERROR_CODEC);
  g_clear_error (&error);
  ck_assert (channel_test_is_filled (ferry_buffer_get_data (buffer, NULL), 10, 1));
  channel_test_close (receiver);

  /* A codec that nobody has here. */
  receiver = channel_test_open (&test, FERRY_ROLE_RECEIVER, NULL);
  loan = ferry_channel_loan (sender, 10, FERRY_NO_WAIT, NULL, &error);
  ck_assert (ferry_buffer_set_wire_name (loan, "unheard-of", 3));
  ck_assert (ferry_channel_send_buffer (sender, loan, FERRY_NO_WAIT, NULL, &error));
  ck_assert (!ferry_channel_receive_value (receiver, &value, FERRY_NO_WAIT, NULL, &error));
  ck_assert (g_error_matches (error, FERRY_ERROR, FERRY_ERROR_CODEC)
             || g_error_matches (error, FERRY_ERROR, FERRY_ERROR_NO_SUCH_FEATURE));
  ferry_assert_contains (error->message, "unheard-of");
  ferry_assert_contains (error->message, "3");
  g_clear_error (&error);

  /* Names end with the first zero byte: what is behind would make another codec of each. */
  channel_test_send (sender, 2, 10);
  g_clear_pointer (&buffer, ferry_buffer_unref);
  buffer = channel_test_take (receiver);
  buffer->wire_version |= 0x1000000;
  ck_assert (!ferry_channel_decode (receiver, buffer, &value, &error));
  ferry_assert_error (error, FERRY_ERROR, FERRY_ERROR_CODEC);
  ferry_assert_contains (error->message, "behind its end");
  g_clear_error (&error);
  buffer->wire_version &= ~(guint64) 0x1000000;
  ck_assert (ferry_channel_decode (receiver, buffer, &value, &error));
  g_value_unset (&value);

  /* No variant where one is asked for. */
  channel_test_send (sender, 2, 10);
  ck_assert_ptr_null (ferry_channel_receive_variant (receiver, FERRY_NO_WAIT, NULL, &error));
  ferry_assert_error (error, FERRY_ERROR, FERRY_ERROR_CODEC);
  ferry_assert_contains (error->message, "GBytes");
  channel_test_close (sender);
  channel_test_close (receiver);
}
END_TEST

/* The codec of each message is the caller's choice; the receiver goes by its wire name. Small ones go by way of the
 * stack, large ones by a loan. */
START_TEST (test_codec_for_each_message)
{
  static const gsize sizes[] = { 0, 1, 200, 4000, 5000, 300000 };
  FerryChannel *sender = channel_test_open (&test, FERRY_ROLE_SENDER, "capacity=4");
  FerryChannel *receiver = channel_test_open (&test, FERRY_ROLE_RECEIVER, NULL);
  FerryRegistry *registry = ferry_registry_get_default ();
  g_autoptr (GError) error = NULL;

  for (guint i = 0; i < 12 * G_N_ELEMENTS (sizes); i++)
    {
      gsize size = sizes[i % G_N_ELEMENTS (sizes)];
      g_autofree guint8 *data = g_malloc (size + 1);
      /* a new one each time: more than are remembered */
      g_autoptr (FerryCodec) raw = ferry_registry_create_codec (registry, "raw", &error);
      g_autoptr (FerryCodec) gvariant = ferry_registry_create_codec (registry, "gvariant", &error);
      g_autoptr (GBytes) bytes = NULL;
      g_autoptr (GBytes) encoded = NULL;
      g_auto (GValue) value = G_VALUE_INIT;
      g_auto (GValue) variant = G_VALUE_INIT;
      g_auto (GValue) found = G_VALUE_INIT;

      ferry_assert_no_error (error);
      channel_test_fill (data, size, i);
      bytes = g_bytes_new (data, size);
      g_value_init (&value, G_TYPE_BYTES);
      g_value_set_boxed (&value, bytes);
      g_value_init (&variant, G_TYPE_VARIANT);
      g_value_set_variant (&variant, g_variant_new_from_bytes (G_VARIANT_TYPE_BYTESTRING, bytes, TRUE));

      ck_assert (ferry_channel_send_value_with_codec (sender, raw, &value, FERRY_NO_WAIT, NULL, &error));
      ck_assert (ferry_channel_send_value_with_codec (sender, gvariant, &variant, FERRY_NO_WAIT, NULL, &error));
      encoded = ferry_codec_encode_bytes (gvariant, &variant, &error);
      ferry_assert_no_error (error);
      ck_assert (ferry_channel_send_encoded (sender, gvariant, g_bytes_get_data (encoded, NULL),
                                             g_bytes_get_size (encoded), FERRY_NO_WAIT, NULL, &error));
      ferry_assert_no_error (error);
      /* not what this codec encodes */
      ck_assert (!ferry_channel_send_value_with_codec (sender, raw, &variant, FERRY_NO_WAIT, NULL, &error));
      ferry_assert_error (error, FERRY_ERROR, FERRY_ERROR_CODEC);
      g_clear_error (&error);

      ck_assert (ferry_channel_receive_value (receiver, &found, FERRY_NO_WAIT, NULL, &error));
      ck_assert (g_bytes_equal (g_value_get_boxed (&found), bytes));
      for (guint j = 0; j < 2; j++)
        {
          g_value_unset (&found);
          ck_assert (ferry_channel_receive_value (receiver, &found, FERRY_NO_WAIT, NULL, &error));
          ck_assert (g_variant_equal (g_value_get_variant (&found), g_value_get_variant (&variant)));
        }
      ferry_assert_no_error (error);
    }
  channel_test_verify (sender);
  channel_test_close (sender);
  channel_test_close (receiver);
}
END_TEST

/* Channels come and go; the factories of their codecs are the registry's. */
START_TEST (test_decoding_holds_no_factory)
{
  g_autoptr (FerryCodecFactory) factory
      = ferry_registry_find_codec_by_wire_name (ferry_registry_get_default (), "raw", 1);
  FerryChannel *sender = channel_test_open (&test, FERRY_ROLE_SENDER, NULL);
  FerryChannel *receiver = channel_test_open (&test, FERRY_ROLE_RECEIVER, NULL);
  guint n_references = G_OBJECT (factory)->ref_count;
  g_auto (GValue) value = G_VALUE_INIT;

  channel_test_send (sender, 0, 10);
  ck_assert (ferry_channel_receive_value (receiver, &value, FERRY_NO_WAIT, NULL, NULL));
  channel_test_close (sender);
  channel_test_close (receiver);
  ck_assert_uint_eq (G_OBJECT (factory)->ref_count, n_references);
}
END_TEST

/* A codec object that the receiver gave is the one that decodes, and it is held. */
START_TEST (test_add_codec)
{
  FerryChannel *sender = channel_test_open (&test, FERRY_ROLE_SENDER, NULL);
  FerryChannel *receiver = channel_test_open (&test, FERRY_ROLE_RECEIVER, NULL);
  FerryChannel *fixed = channel_test_open (&test, FERRY_ROLE_RECEIVER, "! gvariant");
  FerryCodec *raw = ferry_registry_create_codec (ferry_registry_get_default (), "raw", NULL);
  FerryCodec *second = ferry_registry_create_codec (ferry_registry_get_default (), "raw", NULL);
  gpointer weak_raw = raw;
  gpointer weak_second = second;
  g_auto (GValue) value = G_VALUE_INIT;
  g_autoptr (GError) error = NULL;

  g_object_add_weak_pointer (G_OBJECT (raw), &weak_raw);
  g_object_add_weak_pointer (G_OBJECT (second), &weak_second);
  ferry_channel_add_codec (receiver, raw);
  ferry_channel_add_codec (receiver, second); /* the first stays */
  ferry_channel_add_codec (fixed, raw);       /* has its own already */
  g_object_unref (raw);
  g_object_unref (second);
  ck_assert_ptr_nonnull (weak_raw);
  ck_assert_ptr_null (weak_second);

  channel_test_send (sender, 0, 10);
  ck_assert (ferry_channel_receive_value (receiver, &value, FERRY_NO_WAIT, NULL, &error));
  ck_assert (G_VALUE_HOLDS (&value, G_TYPE_BYTES));
  g_value_unset (&value);
  channel_test_send (sender, 0, 10);
  ck_assert (!ferry_channel_receive_value (fixed, &value, FERRY_NO_WAIT, NULL, &error));
  ferry_assert_error (error, FERRY_ERROR, FERRY_ERROR_CODEC);

  channel_test_close (sender);
  channel_test_close (receiver);
  channel_test_close (fixed);
  ck_assert_ptr_null (weak_raw);
}
END_TEST

/* Who polls and wants no error gets none. */
START_TEST (test_polling_without_error)
{
  FerryChannel *sender = channel_test_open (&test, FERRY_ROLE_SENDER, "capacity=1");
  FerryChannel *receiver = channel_test_open (&test, FERRY_ROLE_RECEIVER, NULL);
  const guint8 byte = 1;

  ck_assert_ptr_null (ferry_channel_receive (receiver, FERRY_NO_WAIT, NULL, NULL));
  ck_assert (ferry_channel_send (sender, &byte, 1, FERRY_NO_WAIT, NULL, NULL));
  ck_assert (!ferry_channel_send (sender, &byte, 1, FERRY_NO_WAIT, NULL, NULL));
  channel_test_close (sender);
  channel_test_close (receiver);
}
END_TEST

/* What can't be encoded is not sent, and nothing leaks. */
START_TEST (test_values_refused)
{
  FerryChannel *sender = channel_test_open (&test, FERRY_ROLE_SENDER, NULL);
  FerryChannel *receiver = channel_test_open (&test, FERRY_ROLE_RECEIVER, NULL);
  FerryChannel *typed = channel_test_open (&test, FERRY_ROLE_SENDER, "! gvariant");
  g_auto (GValue) value = G_VALUE_INIT;
  g_autoptr (GError) error = NULL;

  g_value_init (&value, G_TYPE_OBJECT);
  ck_assert (!ferry_channel_send_value (sender, &value, FERRY_NO_WAIT, NULL, &error));
  ferry_assert_error (error, FERRY_ERROR, FERRY_ERROR_CODEC);
  ferry_assert_contains (error->message, "GObject");
  g_clear_error (&error);
  g_value_unset (&value);
  g_value_init (&value, G_TYPE_OBJECT);
  ck_assert (!ferry_channel_send_value (typed, &value, FERRY_NO_WAIT, NULL, &error));
  ferry_assert_error (error, FERRY_ERROR, FERRY_ERROR_CODEC);
  channel_test_expect_nothing (&test, receiver);
  channel_test_verify (sender);
  channel_test_close (sender);
  channel_test_close (typed);
  channel_test_close (receiver);
}
END_TEST

START_TEST (test_unknown_codec_property)
{
  FerryChannel *channel = ferry_channel_new (TRANSPORT, test.name, FERRY_ROLE_SENDER);
  g_autoptr (GError) error = NULL;

  g_object_set (channel, "codec", "gvarient", NULL);
  ck_assert (!ferry_channel_open (channel, NULL, &error));
  ferry_assert_error (error, FERRY_ERROR, FERRY_ERROR_NO_SUCH_FEATURE);
  ferry_assert_contains (error->message, "gvariant");
  g_clear_error (&error);
  g_object_set (channel, "codec", "auto", "transport", "memdf", NULL);
  ck_assert (!ferry_channel_is_open (channel));
  ferry_assert_last_unref (channel);

  channel = ferry_channel_new ("memdf", test.name, FERRY_ROLE_SENDER);
  ck_assert (!ferry_channel_open (channel, NULL, &error));
  ferry_assert_error (error, FERRY_ERROR, FERRY_ERROR_NO_SUCH_FEATURE);
  ferry_assert_contains (error->message, "memfd");
  ferry_assert_last_unref (channel);
}
END_TEST

/* Threads that share one endpoint. */
enum
{
  N_SHARED = 4000,
};

static gpointer
send_thread (gpointer data)
{
  for (guint i = 0; i < N_SHARED / 2; i++)
    {
      guint number = i;

      ck_assert (ferry_channel_send (data, (const guint8 *) &number, i % 3 ? sizeof number : sizeof number, 10000000,
                                     NULL, NULL));
    }
  return NULL;
}

static gpointer
count_thread (gpointer data)
{
  guint n = 0;

  for (;;)
    {
      g_autoptr (FerryBuffer) buffer = ferry_channel_receive (data, 10000000, NULL, NULL);

      if (buffer == NULL)
        return GUINT_TO_POINTER (n);
      n++;
    }
}

START_TEST (test_threads_share_endpoints)
{
  FerryChannel *sender = channel_test_open (&test, FERRY_ROLE_SENDER, "capacity=16");
  FerryChannel *receiver = channel_test_open (&test, FERRY_ROLE_RECEIVER, NULL);
  GThread *senders[2];
  GThread *receivers[2];
  guint n = 0;

  for (guint i = 0; i < 2; i++)
    {
      receivers[i] = g_thread_new ("receiver", count_thread, receiver);
      senders[i] = g_thread_new ("sender", send_thread, sender);
    }
  for (guint i = 0; i < 2; i++)
    g_thread_join (senders[i]);
  ck_assert (ferry_channel_end_of_stream (sender, NULL));
  for (guint i = 0; i < 2; i++)
    n += GPOINTER_TO_UINT (g_thread_join (receivers[i]));
  ck_assert_uint_eq (n, N_SHARED);
  channel_test_assert_statistic (sender, messages_sent, N_SHARED);
  channel_test_assert_statistic (sender, messages_received, N_SHARED);
  channel_test_verify (sender);
  channel_test_close (sender);
  channel_test_close (receiver);
}
END_TEST

static void
add_with_fixture (Suite *suite, const char *name, const TTest *const *tests)
{
  TCase *tcase = ferry_test_add_case (suite, name, 30, tests);

  tcase_add_checked_fixture (tcase, set_up, tear_down);
}

static void
add (Suite *suite)
{
  const TTest *const object[] = {
    test_properties,
    test_notify,
    test_defaults,
    test_properties_when_open,
    test_dispose_twice,
    test_references,
    test_open_twice,
    test_open_after_close,
    test_with_transport,
    test_many_channels,
    test_threads_share_endpoints,
    NULL,
  };
  const TTest *const names[] = { test_bad_names, test_good_names, NULL };
  const TTest *const codecs[] = {
    test_values_auto,
    test_variants,
    test_variant_outlives_channel,
    test_codec_mismatch,
    test_values_refused,
    test_codec_for_each_message,
    test_decoding_holds_no_factory,
    test_add_codec,
    test_polling_without_error,
    test_unknown_codec_property,
    NULL,
  };
  const TTest *const descriptions[] = { test_description_of_all, NULL };
  TCase *tcase;

  add_with_fixture (suite, "object", object);
  add_with_fixture (suite, "names", names);
  add_with_fixture (suite, "codecs", codecs);
  tcase = ferry_test_add_case (suite, "descriptions", 20, descriptions);
  tcase_add_loop_test (tcase, test_bad_descriptions, 0, G_N_ELEMENTS (bad_descriptions));
  tcase_add_loop_test (tcase, test_good_descriptions, 0, G_N_ELEMENTS (good_descriptions));
}

int
main (void)
{
  return ferry_test_run ("channel", add);
}
