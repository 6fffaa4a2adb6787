/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ferry-test.h"

#include "ferry-transport-private.h"

/*
 * A transport in one process and for one thread: a queue of buffers in private memory, with only
 * what a transport can't do without.
 */

#define TEST_TYPE_QUEUE_TRANSPORT (test_queue_transport_get_type ())
G_DECLARE_FINAL_TYPE (TestQueueTransport, test_queue_transport, TEST, QUEUE_TRANSPORT, GObject)

struct _TestQueueTransport
{
  GObject parent_instance;

  GQueue messages;
  guint capacity;
  gint64 commit_timeout;
  gboolean loans_too_little;
};

static void test_queue_transport_transport_init (FerryTransportInterface *iface);

G_DEFINE_FINAL_TYPE_WITH_CODE (TestQueueTransport, test_queue_transport, G_TYPE_OBJECT,
                               G_IMPLEMENT_INTERFACE (FERRY_TYPE_TRANSPORT, test_queue_transport_transport_init))

static gboolean
test_queue_transport_open (FerryTransport *transport, FerryChannelConfig *config, GCancellable *cancellable,
                           GError **error)
{
  if (config->capacity == 0)
    config->capacity = 2;
  TEST_QUEUE_TRANSPORT (transport)->capacity = config->capacity;
  return TRUE;
}

static gboolean
test_queue_transport_close (FerryTransport *transport, GError **error)
{
  TEST_QUEUE_TRANSPORT (transport)->capacity = 0;
  return TRUE;
}

static FerryBuffer *
test_queue_transport_loan (FerryTransport *transport, gsize size, gint64 timeout, GCancellable *cancellable,
                           GError **error)
{
  TestQueueTransport *self = TEST_QUEUE_TRANSPORT (transport);

  if (self->messages.length >= self->capacity)
    {
      g_set_error (error, FERRY_ERROR, FERRY_ERROR_FULL, "full");
      return NULL;
    }
  g_usleep (1000);
  return ferry_buffer_new (self->loans_too_little ? size - 1 : size);
}

static gboolean
test_queue_transport_commit (FerryTransport *transport, FerryBuffer *buffer, gint64 timeout, GCancellable *cancellable,
                             GError **error)
{
  TestQueueTransport *self = TEST_QUEUE_TRANSPORT (transport);

  self->commit_timeout = timeout;
  g_queue_push_tail (&self->messages, ferry_buffer_ref (buffer));
  return TRUE;
}

static FerryBuffer *
test_queue_transport_take (FerryTransport *transport, gint64 timeout, GCancellable *cancellable, GError **error)
{
  FerryBuffer *buffer = g_queue_pop_head (&TEST_QUEUE_TRANSPORT (transport)->messages);

  if (buffer == NULL)
    g_set_error (error, FERRY_ERROR, FERRY_ERROR_EMPTY, "empty");
  return buffer;
}

static gboolean
test_queue_transport_probe_channel (FerryTransport *transport, const char *name, gboolean *alive, GError **error)
{
  *alive = strcmp (name, "alive") == 0;
  return TRUE;
}

static void
test_queue_transport_transport_init (FerryTransportInterface *iface)
{
  iface->open = test_queue_transport_open;
  iface->close = test_queue_transport_close;
  iface->loan = test_queue_transport_loan;
  iface->commit = test_queue_transport_commit;
  iface->take = test_queue_transport_take;
  iface->probe_channel = test_queue_transport_probe_channel;
}

static void
test_queue_transport_dispose (GObject *object)
{
  g_queue_clear_full (&TEST_QUEUE_TRANSPORT (object)->messages, (GDestroyNotify) ferry_buffer_unref);
  G_OBJECT_CLASS (test_queue_transport_parent_class)->dispose (object);
}

static void
test_queue_transport_class_init (TestQueueTransportClass *klass)
{
  G_OBJECT_CLASS (klass)->dispose = test_queue_transport_dispose;
}

static void
test_queue_transport_init (TestQueueTransport *self)
{
  g_queue_init (&self->messages);
}

#define TEST_TYPE_IDLE_TRANSPORT (test_idle_transport_get_type ())
G_DECLARE_FINAL_TYPE (TestIdleTransport, test_idle_transport, TEST, IDLE_TRANSPORT, GObject)

struct _TestIdleTransport
{
  GObject parent_instance;
};

static void
test_idle_transport_transport_init (FerryTransportInterface *iface)
{
}

G_DEFINE_FINAL_TYPE_WITH_CODE (TestIdleTransport, test_idle_transport, G_TYPE_OBJECT,
                               G_IMPLEMENT_INTERFACE (FERRY_TYPE_TRANSPORT, test_idle_transport_transport_init))

static void
test_idle_transport_class_init (TestIdleTransportClass *klass)
{
}

static void
test_idle_transport_init (TestIdleTransport *self)
{
}

static FerryTransport *
open_queue (guint capacity)
{
  FerryTransport *transport = g_object_new (TEST_TYPE_QUEUE_TRANSPORT, NULL);
  g_autoptr (FerryChannelConfig) config = ferry_channel_config_new ();
  g_autoptr (GError) error = NULL;

  config->capacity = capacity;
  ck_assert (ferry_transport_open (transport, config, NULL, &error));
  ferry_assert_no_error (error);
  return transport;
}

START_TEST (test_wire_names)
{
  static const char *const names[] = { "raw", "gvariant", "a", "12345678", "123456789", "codec-python" };

  for (guint i = 0; i < G_N_ELEMENTS (names); i++)
    {
      guint64 packed_name, packed_version;
      char name[FERRY_WIRE_NAME_MAX + 1];
      guint version = 0;

      ferry_transport_pack_wire_name (names[i], 0xfedcba98u, &packed_name, &packed_version);
      ferry_transport_unpack_wire_name (packed_name, packed_version, name, &version);
      ck_assert_str_eq (name, names[i]);
      ck_assert_uint_eq (version, 0xfedcba98u);
    }
}
END_TEST

START_TEST (test_wire_name_layout)
{
  guint64 packed_name, packed_version;
  char name[FERRY_WIRE_NAME_MAX + 1];

  ferry_transport_pack_wire_name ("raw", 1, &packed_name, &packed_version);
  ck_assert_uint_eq (packed_name, 0x776172);
  ck_assert_uint_eq (packed_version, G_GUINT64_CONSTANT (1) << 32);

  ferry_transport_pack_wire_name ("abcdefghijkl", 2, &packed_name, &packed_version);
  ck_assert_uint_eq (packed_name, G_GUINT64_CONSTANT (0x6867666564636261));
  ck_assert_uint_eq (packed_version, G_GUINT64_CONSTANT (0x000000026c6b6a69));

  /* Longer names are cut; what other processes say is not trusted to have an end. */
  ferry_transport_pack_wire_name ("abcdefghijklmnop", 2, &packed_name, &packed_version);
  ferry_transport_unpack_wire_name (packed_name, packed_version, name, NULL);
  ck_assert_str_eq (name, "abcdefghijkl");
  ferry_transport_unpack_wire_name (G_MAXUINT64, G_MAXUINT64, name, NULL);
  ck_assert_uint_eq (strlen (name), 12);
}
END_TEST

START_TEST (test_open)
{
  g_autoptr (FerryTransport) transport = g_object_new (TEST_TYPE_QUEUE_TRANSPORT, NULL);
  g_autoptr (FerryChannelConfig) config = ferry_channel_config_new ();
  g_autoptr (GCancellable) cancellable = g_cancellable_new ();
  g_autoptr (GError) error = NULL;

  config->name = g_strdup ("a/b");
  ck_assert (!ferry_transport_open (transport, config, NULL, &error));
  ferry_assert_error (error, FERRY_ERROR, FERRY_ERROR_INVALID_ARGUMENT);
  g_clear_error (&error);

  g_free (config->name);
  config->name = g_strdup ("ab");
  g_cancellable_cancel (cancellable);
  ck_assert (!ferry_transport_open (transport, config, cancellable, &error));
  ferry_assert_error (error, G_IO_ERROR, G_IO_ERROR_CANCELLED);
  g_clear_error (&error);

  ck_assert (ferry_transport_open (transport, config, NULL, &error));
  ferry_assert_no_error (error);
  ck_assert_uint_eq (config->capacity, 2);
  ck_assert (ferry_transport_close (transport, &error));
}
END_TEST

/* Without a send() of its own: loan, fill, commit. */
/* What a language binding implements, and who fails without an error. */
static gboolean
twin_get_participant (FerryTransport *transport, guint index, FerryParticipant *participant)
{
  participant->id = 10 + index;
  return index < 3;
}

static gboolean
twin_fail (FerryTransport *transport, GError **error)
{
  return FALSE;
}

START_TEST (test_twins)
{
  g_autoptr (FerryTransport) transport = g_object_new (TEST_TYPE_IDLE_TRANSPORT, NULL);
  FerryTransportInterface *iface = FERRY_TRANSPORT_GET_IFACE (transport);
  g_autoptr (GPtrArray) participants = NULL;
  g_autoptr (GError) error = NULL;

  iface->get_participant = twin_get_participant;
  iface->verify = twin_fail;
  participants = ferry_transport_list_participants (transport, &error);
  ferry_assert_no_error (error);
  ck_assert_uint_eq (participants->len, 3);
  ck_assert_uint_eq (((FerryParticipant *) g_ptr_array_index (participants, 2))->id, 12);
  ck_assert (!ferry_transport_verify (transport, &error));
  ferry_assert_error (error, FERRY_ERROR, FERRY_ERROR_FAILED);
  ferry_assert_contains (error->message, "verify() of TestIdleTransport failed without an error");
}
END_TEST

/* A channel calls the interface itself: an unimplemented function is an error there, not a crash. */
START_TEST (test_message_path_is_never_null)
{
  FerryTransportInterface *iface;
  g_autoptr (FerryTransport) transport = g_object_new (TEST_TYPE_IDLE_TRANSPORT, NULL);

  iface = FERRY_TRANSPORT_GET_IFACE (transport);
  ck_assert_ptr_nonnull (iface->loan);
  ck_assert_ptr_nonnull (iface->commit);
  ck_assert_ptr_nonnull (iface->take);
  ck_assert_ptr_null (iface->send); /* that one says whether there is a quicker way */
}
END_TEST

START_TEST (test_send)
{
  FerryTransport *transport = open_queue (2);
  TestQueueTransport *queue = TEST_QUEUE_TRANSPORT (transport);
  g_autoptr (GError) error = NULL;
  guint64 name, version;
  FerryBuffer *buffer;
  const guint8 *data;
  g_autofree char *wire_name = NULL;
  guint wire_version;
  gsize size;

  ferry_transport_pack_wire_name ("raw", 1, &name, &version);
  ck_assert (
      ferry_transport_send (transport, (const guint8 *) "abc", 3, name, version, FERRY_WAIT_FOREVER, NULL, &error));
  ferry_assert_no_error (error);
  ck_assert_int_eq (queue->commit_timeout, FERRY_WAIT_FOREVER);

  /* The commit gets what the loan left of the time. */
  ck_assert (ferry_transport_send (transport, NULL, 0, name, version, 1000000, NULL, &error));
  ferry_assert_no_error (error);
  ck_assert_int_gt (queue->commit_timeout, 0);
  ck_assert_int_le (queue->commit_timeout, 999000);

  ck_assert (!ferry_transport_send (transport, NULL, 0, name, version, FERRY_NO_WAIT, NULL, &error));
  ferry_assert_error (error, FERRY_ERROR, FERRY_ERROR_FULL);
  g_clear_error (&error);

  buffer = ferry_transport_take (transport, FERRY_NO_WAIT, NULL, &error);
  ferry_assert_no_error (error);
  data = ferry_buffer_get_data (buffer, &size);
  ck_assert_uint_eq (size, 3);
  ck_assert_mem_eq (data, "abc", 3);
  wire_name = ferry_buffer_dup_wire_name (buffer, &wire_version);
  ck_assert_str_eq (wire_name, "raw");
  ck_assert_uint_eq (wire_version, 1);
  ferry_buffer_unref (buffer);
  ferry_assert_last_unref (transport);
}
END_TEST

START_TEST (test_send_through_small_loan)
{
  g_autoptr (FerryTransport) transport = open_queue (2);
  g_autoptr (GError) error = NULL;

  TEST_QUEUE_TRANSPORT (transport)->loans_too_little = TRUE;
  ck_assert (!ferry_transport_send (transport, (const guint8 *) "abc", 3, 0, 0, FERRY_NO_WAIT, NULL, &error));
  ferry_assert_error (error, FERRY_ERROR, FERRY_ERROR_FAILED);
  ferry_assert_contains (error->message, "TestQueueTransport loaned a buffer of 2 bytes");
  ck_assert_uint_eq (TEST_QUEUE_TRANSPORT (transport)->messages.length, 0);
}
END_TEST

START_TEST (test_names_are_checked)
{
  g_autoptr (FerryTransport) transport = g_object_new (TEST_TYPE_QUEUE_TRANSPORT, NULL);
  g_autoptr (GError) error = NULL;
  gboolean alive = FALSE;

  ck_assert (ferry_transport_probe_channel (transport, "alive", &alive, &error));
  ck_assert (alive);
  ck_assert (ferry_transport_probe_channel (transport, "dead", &alive, &error));
  ck_assert (!alive);

  ck_assert (!ferry_transport_probe_channel (transport, "../../etc/passwd", &alive, &error));
  ferry_assert_error (error, FERRY_ERROR, FERRY_ERROR_INVALID_ARGUMENT);
  g_clear_error (&error);
  ck_assert (!ferry_transport_sweep_channel (transport, "", &error));
  ferry_assert_error (error, FERRY_ERROR, FERRY_ERROR_INVALID_ARGUMENT);
}
END_TEST

#define assert_unsupported(call, function)                                                                             \
  do                                                                                                                   \
    {                                                                                                                  \
      g_autoptr (GError) error = NULL;                                                                                 \
                                                                                                                       \
      ck_assert (!(call));                                                                                             \
      ferry_assert_error (error, FERRY_ERROR, FERRY_ERROR_UNSUPPORTED);                                                \
      ferry_assert_contains (error->message, "TestIdleTransport does not implement " function "()");                   \
    }                                                                                                                  \
  while (0)

START_TEST (test_unsupported)
{
  g_autoptr (FerryTransport) t = g_object_new (TEST_TYPE_IDLE_TRANSPORT, NULL);
  g_autoptr (FerryChannelConfig) config = ferry_channel_config_new ();
  g_autoptr (FerryBuffer) buffer = ferry_buffer_new (1);
  g_autoptr (FerryStatistics) statistics = ferry_statistics_new ();
  g_autoptr (FerryParticipant) participant = ferry_participant_new ();
  gboolean alive;
  guint64 mark;

  assert_unsupported (ferry_transport_open (t, config, NULL, &error), "open");
  assert_unsupported (ferry_transport_close (t, &error), "close");
  assert_unsupported (ferry_transport_loan (t, 1, 0, NULL, &error), "loan");
  assert_unsupported (ferry_transport_commit (t, buffer, 0, NULL, &error), "commit");
  assert_unsupported (ferry_transport_send (t, NULL, 0, 0, 0, 0, NULL, &error), "loan");
  assert_unsupported (ferry_transport_take (t, 0, NULL, &error), "take");
  assert_unsupported (ferry_transport_wait (t, G_IO_IN, 0, NULL, &error), "wait");
  assert_unsupported (ferry_transport_get_fd (t, &error) != -1, "get_fd");
  assert_unsupported (ferry_transport_flush (t, 0, NULL, &error), "flush");
  assert_unsupported (ferry_transport_end_of_stream (t, &error), "end_of_stream");
  assert_unsupported (ferry_transport_shut_down (t, &error), "shut_down");
  assert_unsupported (ferry_transport_get_statistics (t, statistics, &error), "get_statistics");
  assert_unsupported (ferry_transport_list_participants (t, &error), "list_participants");
  assert_unsupported (ferry_transport_verify (t, &error), "verify");
  assert_unsupported (ferry_transport_list_channels (t, &error), "list_channels");
  assert_unsupported (ferry_transport_probe_channel (t, "x", &alive, &error), "probe_channel");
  assert_unsupported (ferry_transport_sweep_channel (t, "x", &error), "sweep_channel");

  /* These can do without. */
  ferry_transport_wake (t);
  ck_assert (!ferry_transport_wait_quietly (t, G_IO_IN, FERRY_WAIT_FOREVER, NULL));
  ck_assert_int_eq (ferry_transport_check (t, G_IO_IN), G_IO_IN);
  ck_assert_int_eq (ferry_transport_poll_events (t, participant), FERRY_TRANSPORT_EVENT_NONE);
  ck_assert_uint_eq (ferry_transport_trim (t), 0);
  ck_assert (ferry_transport_mark (t, &mark, NULL));
  assert_unsupported (ferry_transport_flush_mark (t, mark, 0, NULL, &error), "flush");
}
END_TEST

static void
add (Suite *suite)
{
  const TTest *const tests[] = {
    test_wire_names,
    test_wire_name_layout,
    test_open,
    test_send,
    test_send_through_small_loan,
    test_names_are_checked,
    test_unsupported,
    test_twins,
    test_message_path_is_never_null,
    NULL,
  };

  ferry_test_add_case (suite, "transport", 10, tests);
}

int
main (void)
{
  return ferry_test_run ("transport", add);
}
