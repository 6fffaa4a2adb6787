/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ferry-test.h"

#include <sys/wait.h>
#include <unistd.h>

/* Live objects through channels. What any codec must do is in test-codec-conformance.c, what a death leaves in
 * tests/kill/kill-ticket.c. */

#define MANY (10000)
/* Bytes. */
#define LARGE (20000)
/* Of dicts of a few entries. */
#define SLACK (4096)
#define TIMEOUT (10 * G_USEC_PER_SEC)

static FerryStore *
open_store (const char *name)
{
  g_autoptr (GError) error = NULL;
  g_autofree char *description = g_strdup_printf ("memfd name=%s-%d max-bytes=67108864", name, (int) getpid ());
  FerryStore *store = ferry_store_open (description, NULL, &error);

  ferry_assert_no_error (error);
  return store;
}

static FerryChannel *
open_channel (const char *properties, FerryRole role)
{
  g_autoptr (GError) error = NULL;
  g_autofree char *description = g_strdup_printf ("memfd name=test-store-codec-%d %s", (int) getpid (), properties);
  FerryChannel *channel = ferry_channel_new_from_description (description, role, &error);

  ferry_assert_no_error (error);
  ck_assert (ferry_channel_open (channel, NULL, &error));
  ferry_assert_no_error (error);
  return channel;
}

static void
set (FerryStore *store, const char *path, const char *text)
{
  g_autoptr (GError) error = NULL;

  ck_assert (ferry_store_set (store, path, g_variant_new_parsed (text), &error));
  ferry_assert_no_error (error);
}

/* A list with a number, and so much beside it that it can't go unnoticed. */
static void
set_large (FerryStore *store, const char *path, gint64 number)
{
  g_autoptr (GError) error = NULL;
  g_autofree guint8 *data = g_malloc0 (LARGE);
  GVariantBuilder builder;

  g_variant_builder_init (&builder, G_VARIANT_TYPE ("av"));
  g_variant_builder_add (&builder, "v", g_variant_new_int64 (number));
  g_variant_builder_add (&builder, "v", g_variant_new_fixed_array (G_VARIANT_TYPE_BYTE, data, LARGE, 1));
  ck_assert (ferry_store_set (store, path, g_variant_builder_end (&builder), &error));
  ferry_assert_no_error (error);
}

static FerryStoreReference *
get (FerryStore *store, const char *path)
{
  g_autoptr (GError) error = NULL;
  FerryStoreReference *reference = ferry_store_get_reference (store, path, &error);

  ferry_assert_no_error (error);
  return reference;
}

static gboolean
send (FerryChannel *channel, FerryStoreReference *reference, GError **error)
{
  g_auto (GValue) value = G_VALUE_INIT;

  g_value_init (&value, FERRY_TYPE_STORE_REFERENCE);
  g_value_set_boxed (&value, reference);
  return ferry_channel_send_value (channel, &value, TIMEOUT, NULL, error);
}

static void
send_path (FerryChannel *channel, FerryStore *store, const char *path)
{
  g_autoptr (FerryStoreReference) reference = get (store, path);
  g_autoptr (GError) error = NULL;

  ck_assert (send (channel, reference, &error));
  ferry_assert_no_error (error);
}

static FerryStoreReference *
receive (FerryChannel *channel, GError **error)
{
  g_auto (GValue) value = G_VALUE_INIT;

  if (!ferry_channel_receive_value (channel, &value, TIMEOUT, NULL, error))
    return NULL;
  ck_assert (G_VALUE_HOLDS (&value, FERRY_TYPE_STORE_REFERENCE));
  return g_value_dup_boxed (&value);
}

static FerryStoreReference *
must_receive (FerryChannel *channel)
{
  g_autoptr (GError) error = NULL;
  FerryStoreReference *reference = receive (channel, &error);

  ferry_assert_no_error (error);
  return reference;
}

static void
assert_number (FerryStoreReference *reference, const char *path, gint64 expected)
{
  g_autoptr (GError) error = NULL;
  g_autoptr (GVariant) value = ferry_store_reference_get (reference, path, &error);

  ferry_assert_no_error (error);
  ck_assert_int_eq (g_variant_get_int64 (value), expected);
}

static guint64
used (FerryStore *store)
{
  g_autoptr (GError) error = NULL;

  ck_assert (ferry_store_collect (store, &error));
  ferry_assert_no_error (error);
  ck_assert (ferry_store_verify (store, &error));
  ferry_assert_no_error (error);
  return ferry_store_get_bytes_used (store);
}

static void
close_channel (FerryChannel *channel)
{
  g_autoptr (GError) error = NULL;

  ck_assert (ferry_channel_close (channel, &error));
  ferry_assert_no_error (error);
  g_object_unref (channel);
}

/* ---- references, without a channel ---- */

START_TEST (test_reference)
{
  static const double numbers[] = { 1, 2, 3 };
  static const gint64 shape[] = { 3 };
  g_autoptr (FerryStore) store = open_store ("reference");
  g_autoptr (FerryStore) other = open_store ("reference-other");
  g_autoptr (FerryStoreReference) cfg = NULL;
  g_autoptr (FerryStoreReference) hosts = NULL;
  g_autoptr (FerryStoreReference) again = NULL;
  g_autoptr (FerryTensor) tensor = NULL;
  g_autoptr (FerryTensor) found = NULL;
  g_autoptr (GError) error = NULL;
  g_auto (GStrv) children = NULL;
  g_autofree char *type = NULL;
  gint64 sum;
  double real;

  set (store, "cfg", "{'rate': <10>, 'hosts': <[<{'n': <1>}>, <2>]>}");
  cfg = get (store, "cfg");
  ck_assert_ptr_eq (ferry_store_reference_get_store (cfg), store);
  ck_assert_uint_eq (ferry_store_reference_get_object_id (cfg), ferry_store_get_object_id (store, "cfg", &error));
  assert_number (cfg, "rate", 10);
  assert_number (cfg, "hosts[0].n", 1);
  hosts = ferry_store_reference_get_reference (cfg, "hosts", &error);
  ferry_assert_no_error (error);
  assert_number (hosts, "[0].n", 1);
  assert_number (hosts, "[-1]", 2);
  ck_assert_int_eq (ferry_store_reference_get_length (hosts, "", &error), 2);
  type = ferry_store_reference_get_type_name (hosts, "", &error);
  ck_assert_str_eq (type, "list");
  children = ferry_store_reference_list_children (hosts, "", &error);
  ck_assert_uint_eq (g_strv_length (children), 2);
  ck_assert_str_eq (children[0], "[0]");
  again = ferry_store_reference_get_reference (cfg, "", &error);
  ck_assert (ferry_store_reference_equal (again, cfg));
  ck_assert (!ferry_store_reference_equal (hosts, cfg));
  ck_assert_uint_eq (ferry_store_reference_hash (again), ferry_store_reference_hash (cfg));

  ck_assert (ferry_store_reference_set (hosts, "[+]", g_variant_new_int64 (7), &error));
  ck_assert (ferry_store_reference_add_int (hosts, "[2]", 5, &sum, &error));
  ck_assert_int_eq (sum, 12);
  ck_assert (ferry_store_reference_add_double (cfg, "rate", 0.5, &real, &error));
  ck_assert (real == 10.5);
  ck_assert (ferry_store_reference_remove (hosts, "[1]", &error));
  ferry_assert_no_error (error);
  assert_number (cfg, "hosts[1]", 12);
  tensor = ferry_tensor_new_copy ("<f8", shape, 1, (const guint8 *) numbers, sizeof numbers, &error);
  ck_assert (ferry_store_reference_set_tensor (cfg, "array", tensor, &error));
  found = ferry_store_reference_get_tensor (cfg, "array", &error);
  ferry_assert_no_error (error);
  ck_assert (ferry_tensor_equal (tensor, found));

  /* the object itself, in several places; and it outlives all of them */
  ck_assert (ferry_store_set_reference (store, "also", hosts, &error));
  ck_assert (ferry_store_reference_set_reference (hosts, "[0]", cfg, &error));
  ferry_assert_no_error (error);
  ck_assert_uint_eq (ferry_store_get_object_id (store, "also[0].hosts", &error),
                     ferry_store_reference_get_object_id (hosts));
  ck_assert (ferry_store_remove (store, "cfg", &error));
  ck_assert (ferry_store_remove (store, "also", &error));
  used (store);
  assert_number (hosts, "[0].hosts[1]", 12);

  /* errors */
  ck_assert (!ferry_store_reference_set (hosts, "", g_variant_new_int64 (1), &error));
  ferry_assert_error (error, FERRY_ERROR, FERRY_ERROR_INVALID_ARGUMENT);
  g_clear_error (&error);
  ck_assert_ptr_null (ferry_store_reference_get (hosts, "[9]", &error));
  ferry_assert_error (error, FERRY_ERROR, FERRY_ERROR_NOT_FOUND);
  g_clear_error (&error);
  ck_assert_ptr_null (ferry_store_reference_get_reference (hosts, "[1]", &error));
  ferry_assert_error (error, FERRY_ERROR, FERRY_ERROR_UNSUPPORTED);
  g_clear_error (&error);
  ck_assert_ptr_null (ferry_store_get_reference (store, "", &error));
  ferry_assert_error (error, FERRY_ERROR, FERRY_ERROR_UNSUPPORTED);
  g_clear_error (&error);
  ck_assert (!ferry_store_set_reference (other, "here", hosts, &error));
  ferry_assert_error (error, FERRY_ERROR, FERRY_ERROR_INVALID_ARGUMENT);
  g_clear_error (&error);
  ferry_store_close (store);
  ck_assert_ptr_null (ferry_store_reference_get (hosts, "", &error));
  ferry_assert_error (error, FERRY_ERROR, FERRY_ERROR_CLOSED);
}
END_TEST

/* ---- work queues ---- */

START_TEST (test_work_queue)
{
  g_autoptr (FerryStore) store = open_store ("work");
  FerryChannel *sender = open_channel ("capacity=8", FERRY_ROLE_SENDER);
  FerryChannel *receiver = open_channel ("", FERRY_ROLE_RECEIVER);
  g_autoptr (FerryStoreReference) reference = NULL;
  g_autoptr (FerryStoreReference) received = NULL;
  g_autoptr (GError) error = NULL;
  guint64 before;

  set (store, "jobs", "[<1>, <2>]");
  reference = get (store, "jobs");
  ck_assert (send (sender, reference, &error));
  ferry_assert_no_error (error);
  received = must_receive (receiver);
  ck_assert (ferry_store_reference_equal (received, reference));
  ck_assert_ptr_eq (ferry_store_reference_get_store (received), store);
  g_clear_pointer (&received, ferry_store_reference_unref);
  g_clear_pointer (&reference, ferry_store_reference_unref);

  /* The message alone keeps it. */
  send_path (sender, store, "jobs");
  ck_assert (ferry_store_remove (store, "jobs", &error));
  used (store);
  received = must_receive (receiver);
  assert_number (received, "[1]", 2);
  g_clear_pointer (&received, ferry_store_reference_unref);

  before = used (store);
  for (guint i = 0; i < MANY; i++)
    {
      set (store, "job", "{'n': <[<1>, <2>, <3>]>}");
      send_path (sender, store, "job");
      ck_assert (ferry_store_remove (store, "job", &error));
      if (i % 4 != 3)
        continue;
      for (guint j = 0; j < 4; j++)
        {
          g_autoptr (FerryStoreReference) one = must_receive (receiver);

          assert_number (one, "n[2]", 3);
        }
    }
  /* without a collection; the dict of tickets has had some more at a time */
  ck_assert_uint_le (ferry_store_get_bytes_used (store), before + SLACK);
  close_channel (receiver);
  close_channel (sender);
  ck_assert_uint_le (used (store), before + SLACK);
}
END_TEST

/* A message may be decoded again as long as it is held. */
START_TEST (test_twice)
{
  g_autoptr (FerryStore) store = open_store ("twice");
  FerryChannel *sender = open_channel ("", FERRY_ROLE_SENDER);
  FerryChannel *receiver = open_channel ("", FERRY_ROLE_RECEIVER);
  g_autoptr (FerryBuffer) buffer = NULL;
  g_autoptr (GError) error = NULL;
  guint64 before = used (store);

  set_large (store, "x", 1);
  send_path (sender, store, "x");
  ck_assert (ferry_store_remove (store, "x", &error));
  buffer = ferry_channel_receive (receiver, TIMEOUT, NULL, &error);
  ferry_assert_no_error (error);
  for (guint i = 0; i < 2; i++)
    {
      g_auto (GValue) value = G_VALUE_INIT;

      ck_assert (ferry_channel_decode (receiver, buffer, &value, &error));
      ferry_assert_no_error (error);
      assert_number (g_value_get_boxed (&value), "[0]", 1);
    }
  g_clear_pointer (&buffer, ferry_buffer_unref);
  close_channel (receiver);
  close_channel (sender);
  ck_assert_uint_le (ferry_store_get_bytes_used (store), before + SLACK);
}
END_TEST

/* What is dropped, and what is left unread, is freed. */
START_TEST (test_dropped)
{
  static const char *const policies[] = { "overflow=drop-oldest", "overflow=drop-newest" };
  static const char *const modes[] = { "mode=work-queue", "mode=broadcast" };

  for (guint i = 0; i < 4; i++)
    {
      g_autofree char *properties = g_strdup_printf ("capacity=4 %s %s", policies[i / 2], modes[i % 2]);
      g_autoptr (FerryStore) store = open_store ("dropped");
      FerryChannel *receiver = open_channel (properties, FERRY_ROLE_RECEIVER);
      FerryChannel *sender = open_channel (properties, FERRY_ROLE_SENDER);
      g_autoptr (GError) error = NULL;
      guint64 before = used (store);

      for (guint n = 0; n < 100; n++)
        {
          set_large (store, "x", n);
          send_path (sender, store, "x");
        }
      ck_assert (ferry_store_remove (store, "x", &error));
      used (store);
      for (guint n = 0; n < 4; n++)
        {
          g_autoptr (FerryStoreReference) received = must_receive (receiver);

          assert_number (received, "[0]", i / 2 == 0 ? 96 + n : n);
        }
      for (guint n = 0; n < 3; n++)
        {
          set_large (store, "x", n);
          send_path (sender, store, "x");
        }
      ck_assert (ferry_store_remove (store, "x", &error));
      close_channel (receiver);
      close_channel (sender);
      ck_assert_uint_le (ferry_store_get_bytes_used (store), before + SLACK);
      ck_assert_uint_le (used (store), before + SLACK);
    }
}
END_TEST

/* The transaction of somebody is no obstacle to receive, and one of ours is to send. */
START_TEST (test_transaction)
{
  g_autoptr (FerryStore) store = open_store ("transaction");
  FerryChannel *sender = open_channel ("", FERRY_ROLE_SENDER);
  FerryChannel *receiver = open_channel ("", FERRY_ROLE_RECEIVER);
  g_autoptr (FerryStoreReference) reference = NULL;
  g_autoptr (FerryStoreReference) received = NULL;
  g_autoptr (GError) error = NULL;

  set (store, "x", "[<1>]");
  reference = get (store, "x");
  ck_assert (send (sender, reference, &error));
  ck_assert (ferry_store_begin_transaction (store, TIMEOUT, NULL, &error));
  ck_assert (!send (sender, reference, &error));
  ferry_assert_error (error, FERRY_ERROR, FERRY_ERROR_INVALID_ARGUMENT);
  g_clear_error (&error);
  received = must_receive (receiver);
  ck_assert (ferry_store_reference_equal (received, reference));
  ck_assert (ferry_store_roll_back (store, &error));
  ck_assert (send (sender, reference, &error));
  ferry_assert_no_error (error);
  g_clear_pointer (&received, ferry_store_reference_unref);
  received = must_receive (receiver);
  close_channel (receiver);
  close_channel (sender);
  used (store);
}
END_TEST

/* ---- broadcast ---- */

START_TEST (test_broadcast)
{
  g_autoptr (FerryStore) store = open_store ("broadcast");
  FerryChannel *sender = open_channel ("mode=broadcast capacity=8 history=2", FERRY_ROLE_SENDER);
  FerryChannel *receivers[3];
  g_autoptr (GError) error = NULL;
  guint64 before = used (store);

  receivers[0] = open_channel ("mode=broadcast", FERRY_ROLE_RECEIVER);
  receivers[1] = open_channel ("mode=broadcast", FERRY_ROLE_RECEIVER);
  for (guint i = 0; i < 4; i++)
    {
      set_large (store, "x", i);
      send_path (sender, store, "x");
    }
  ck_assert (ferry_store_remove (store, "x", &error));
  for (guint r = 0; r < 2; r++)
    for (guint i = 0; i < 4; i++)
      {
        g_autoptr (FerryStoreReference) received = must_receive (receivers[r]);

        used (store);
        assert_number (received, "[0]", i);
      }
  /* Late, and everybody else has read them. */
  receivers[2] = open_channel ("mode=broadcast", FERRY_ROLE_RECEIVER);
  for (guint i = 2; i < 4; i++)
    {
      g_autoptr (FerryStoreReference) received = must_receive (receivers[2]);

      assert_number (received, "[0]", i);
    }
  for (guint i = 0; i < MANY; i++)
    {
      set (store, "x", "[<[<5>, <6>]>]");
      send_path (sender, store, "x");
      ck_assert (ferry_store_remove (store, "x", &error));
      for (guint r = 0; r < 3; r++)
        {
          g_autoptr (FerryStoreReference) received = must_receive (receivers[r]);

          assert_number (received, "[0][1]", 6);
        }
    }
  /* What the history has is all there is, also without a collection. */
  ck_assert_uint_le (ferry_store_get_bytes_used (store), before + SLACK);
  for (guint r = 0; r < 3; r++)
    close_channel (receivers[r]);
  close_channel (sender);
  ck_assert_uint_le (ferry_store_get_bytes_used (store), before + SLACK);
}
END_TEST

/* ---- other processes ---- */

static void
wait_for (pid_t pid)
{
  int status;

  ck_assert_int_eq (waitpid (pid, &status, 0), pid);
  ck_assert_msg (WIFEXITED (status) && WEXITSTATUS (status) == 0, "the child failed: %d", status);
}

/* A process that knows nothing of the store, and another one that inherited it; and the sender is gone before. */
START_TEST (test_processes)
{
  FerryChannel *keeper = open_channel ("", FERRY_ROLE_RECEIVER);
  g_autofree char *name = g_strdup_printf ("processes-%d", (int) getpid ());
  g_autofree char *description = g_strdup_printf ("memfd name=%s", name);
  g_autoptr (FerryStore) store = NULL;
  g_autoptr (FerryStoreReference) received = NULL;
  g_autoptr (GError) error = NULL;
  int go[2];
  char byte;
  pid_t stranger;
  pid_t sender;
  pid_t heir;

  ck_assert_int_eq (pipe (go), 0);
  stranger = fork ();
  if (stranger == 0)
    {
      FerryStoreReference *mine;

      if (read (go[0], &byte, 1) != 1)
        _exit (1);
      mine = receive (keeper, NULL);
      if (mine == NULL || !ferry_store_reference_add_int (mine, "n", 1, NULL, NULL))
        _exit (2);
      ferry_store_reference_unref (mine);
      _exit (strcmp (name, "x") == 0);
    }
  store = ferry_store_open (description, NULL, &error);
  ferry_assert_no_error (error);
  sender = fork ();
  if (sender == 0)
    {
      FerryChannel *channel = ferry_channel_new_from_description (description, FERRY_ROLE_SENDER, NULL);
      g_autofree char *channel_description = ferry_channel_to_description (keeper);

      g_object_unref (channel);
      channel = ferry_channel_new_from_description (channel_description, FERRY_ROLE_SENDER, NULL);
      if (!ferry_channel_open (channel, NULL, NULL)
          || !ferry_store_set (store, "x", g_variant_new_parsed ("{'n': <1>}"), NULL))
        _exit (1);
      for (guint i = 0; i < 3; i++)
        {
          FerryStoreReference *reference = ferry_store_get_reference (store, "x", NULL);

          if (reference == NULL || !send (channel, reference, NULL))
            _exit (2);
          ferry_store_reference_unref (reference);
        }
      /* nothing is closed */
      _exit (ferry_store_remove (store, "x", NULL) ? 0 : 3);
    }
  wait_for (sender);
  used (store);
  ck_assert_int_eq (write (go[1], "x", 1), 1);
  wait_for (stranger);
  heir = fork ();
  if (heir == 0)
    {
      FerryStoreReference *mine = receive (keeper, NULL);

      _exit (mine == NULL || ferry_store_reference_get_store (mine) != store
             || !ferry_store_reference_add_int (mine, "n", 1, NULL, NULL));
    }
  wait_for (heir);
  used (store);
  received = must_receive (keeper);
  assert_number (received, "n", 3);
  close_channel (keeper);
  close (go[0]);
  close (go[1]);
}
END_TEST

/* A channel that is gone with what was in it: a collection finds out, whoever has the store. */
START_TEST (test_channel_gone)
{
  g_autoptr (FerryStore) store = open_store ("gone");
  g_autoptr (GError) error = NULL;
  guint64 before = used (store);
  pid_t child = fork ();

  if (child == 0)
    {
      FerryChannel *channel = open_channel ("", FERRY_ROLE_SENDER);

      set_large (store, "x", 1);
      send_path (channel, store, "x");
      send_path (channel, store, "x");
      _exit (ferry_store_remove (store, "x", NULL) ? 0 : 1);
    }
  wait_for (child);
  ck_assert_uint_le (used (store), before + SLACK);
}
END_TEST

/* ---- hostile messages, and what a receiver does not want ---- */

static void
assert_refused (const char *codec_description, gconstpointer data, gsize size, const char *part)
{
  g_autofree char *properties = g_strdup_printf ("capacity=4 ! %s", codec_description);
  FerryChannel *sender = open_channel ("capacity=4", FERRY_ROLE_SENDER);
  FerryChannel *receiver = open_channel (properties, FERRY_ROLE_RECEIVER);
  g_autoptr (FerryBuffer) buffer = ferry_buffer_new (size);
  g_autoptr (FerryStoreReference) received = NULL;
  g_autoptr (GError) error = NULL;

  ferry_buffer_fill (buffer, 0, data, size);
  ferry_buffer_set_wire_name (buffer, "store", 1);
  if (ferry_channel_send_buffer (sender, buffer, TIMEOUT, NULL, &error))
    received = receive (receiver, &error);
  ck_assert_ptr_null (received);
  ck_assert_ptr_nonnull (error);
  ferry_assert_contains (error->message, part);
  close_channel (receiver);
  close_channel (sender);
}

START_TEST (test_hostile)
{
  g_autoptr (FerryStore) store = open_store ("hostile");
  g_autoptr (FerryStoreReference) reference = NULL;
  g_autoptr (GError) error = NULL;
  g_autoptr (FerryCodec) codec = ferry_registry_create_codec (ferry_registry_get_default (), "store", &error);
  g_auto (GValue) value = G_VALUE_INIT;
  g_autoptr (GBytes) bytes = NULL;
  g_autofree guint8 *data = NULL;
  guint8 identity[16];
  gsize size;

  ferry_assert_no_error (error);
  set (store, "x", "[<1>]");
  reference = get (store, "x");
  g_value_init (&value, FERRY_TYPE_STORE_REFERENCE);
  g_value_set_boxed (&value, reference);
  bytes = ferry_codec_encode_bytes (codec, &value, &error);
  ferry_assert_no_error (error);
  size = g_bytes_get_size (bytes);
  ck_assert_uint_eq (size, 4096);
  data = g_memdup2 (g_bytes_get_data (bytes, NULL), size);

  /* docs/wire-formats.md, byte by byte */
  ferry_store_get_identity (store, identity);
  ck_assert_mem_eq (data, identity, sizeof identity);
  ck_assert_uint_eq (data[26], FERRY_OBJECT_LIST);
  ck_assert_uint_eq (data[27], 0);
  ck_assert_uint_eq (data[28], strlen ("memfd"));
  ck_assert_uint_eq (data[30], strlen (ferry_store_get_name (store)));
  ck_assert_mem_eq (data + 32, "memfd", 5);
  ck_assert_mem_eq (data + 37, ferry_store_get_name (store), strlen (ferry_store_get_name (store)));

  /* what fits into a slot has no ticket, and is malformed */
  assert_refused ("store", data, 64, "has 64");
  assert_refused ("store accept=other", data, size, "accepted are those of 'other' only");
  /* another object than it says, another kind, an object that is none */
  data[24] ^= 1;
  assert_refused ("store", data, size, "gone");
  data[24] ^= 1;
  data[26] = FERRY_OBJECT_SHAPE;
  assert_refused ("store", data, size, "no kind");
  data[26] = FERRY_OBJECT_DICT;
  assert_refused ("store", data, size, "gone");
  data[26] = FERRY_OBJECT_LIST;
  data[27] = 1;
  assert_refused ("store", data, size, "flags");
  data[27] = 0;
  data[16] ^= 1;
  assert_refused ("store", data, size, "no object can be at");
  data[16] ^= 1;
  data[20] ^= 0x7f;
  assert_refused ("store", data, size, "gone");
  data[20] ^= 0x7f;
  data[31] = 0xff;
  assert_refused ("store", data, size, "bytes; they have at most");
  data[31] = 0;
  data[32] = '!';
  assert_refused ("store", data, size, "the transport");
  data[32] = 'm';
  data[37] = '/';
  assert_refused ("store", data, size, "the store");
  data[37] = ferry_store_get_name (store)[0];
  data[0] ^= 0xff;
  assert_refused ("store", data, size, "not open in this process");
  data[0] ^= 0xff;
  used (store);
}
END_TEST

/* Whoever writes into a message that is on its way gets no other object out of it. */
START_TEST (test_forged)
{
  g_autoptr (FerryStore) store = open_store ("forged");
  FerryChannel *sender = open_channel ("", FERRY_ROLE_SENDER);
  FerryChannel *receiver = open_channel ("", FERRY_ROLE_RECEIVER);
  g_autoptr (FerryStoreReference) secret = NULL;
  g_autoptr (FerryBuffer) buffer = NULL;
  g_autoptr (GError) error = NULL;
  guint64 id;
  GValue value = G_VALUE_INIT;

  set (store, "x", "[<1>]");
  set (store, "secret", "[<2>]");
  secret = get (store, "secret");
  send_path (sender, store, "x");
  buffer = ferry_channel_receive (receiver, TIMEOUT, NULL, &error);
  ferry_assert_no_error (error);
  id = GUINT64_TO_LE (ferry_store_reference_get_object_id (secret));
  memcpy (ferry_buffer_get_writable_data (buffer, NULL) + 16, &id, sizeof id);
  ck_assert (!ferry_channel_decode (receiver, buffer, &value, &error));
  ferry_assert_error (error, FERRY_ERROR, FERRY_ERROR_CODEC);
  ferry_assert_contains (error->message, "another object");
  g_clear_pointer (&buffer, ferry_buffer_unref);
  close_channel (receiver);
  close_channel (sender);
}
END_TEST

/* ---- messages without the codec, as bindings make and read them ---- */

static FerryBuffer *
new_message (const guint8 *data, gsize size, const char *wire_name)
{
  FerryBuffer *buffer = ferry_buffer_new (size);

  ferry_buffer_fill (buffer, 0, data, size);
  ferry_buffer_set_wire_name (buffer, wire_name, 1);
  return buffer;
}

START_TEST (test_message)
{
  g_autoptr (FerryStore) store = open_store ("message");
  g_autoptr (FerryStoreReference) reference = NULL;
  g_autoptr (FerryStoreReference) found = NULL;
  g_autoptr (FerryBuffer) message = NULL;
  g_autoptr (FerryBuffer) other = NULL;
  g_autoptr (FerryBuffer) broken = NULL;
  g_autofree char *transport = NULL;
  g_autofree char *name = NULL;
  g_autoptr (GError) error = NULL;
  guint8 data[FERRY_STORE_REFERENCE_SIZE + 1];
  guint8 expected[16];
  guint8 identity[16] = { 0 };
  gboolean was_opened = TRUE;

  set (store, "x", "[<1>]");
  reference = get (store, "x");
  for (gsize i = 0; i <= 2; i++)
    {
      gsize size = FERRY_STORE_REFERENCE_SIZE - 1 + i;
      gboolean ok = ferry_store_reference_encode (reference, data, size, &error);

      ck_assert_int_eq (ok, size == FERRY_STORE_REFERENCE_SIZE);
      if (!ok)
        ferry_assert_error (error, FERRY_ERROR, FERRY_ERROR_CODEC);
      g_clear_error (&error);
    }
  ck_assert (ferry_store_reference_encode (reference, data, FERRY_STORE_REFERENCE_SIZE, NULL));

  /* what says nothing sets nothing */
  other = new_message (data, FERRY_STORE_REFERENCE_SIZE, "raw");
  ck_assert (!ferry_store_reference_peek (other, identity, &transport, &name));
  broken = new_message (data, FERRY_STORE_REFERENCE_SIZE - 1, "store");
  ck_assert (!ferry_store_reference_peek (broken, identity, &transport, &name));
  ck_assert (transport == NULL && name == NULL && identity[0] == 0);
  ck_assert_ptr_null (ferry_store_reference_decode (broken, FALSE, NULL, &was_opened, &error));
  ferry_assert_error (error, FERRY_ERROR, FERRY_ERROR_CODEC);
  ck_assert (!was_opened);
  g_clear_error (&error);

  message = new_message (data, FERRY_STORE_REFERENCE_SIZE, "store");
  ck_assert (ferry_store_reference_peek (message, identity, &transport, &name));
  ferry_store_get_identity (store, expected);
  ck_assert_mem_eq (identity, expected, sizeof expected);
  ck_assert_str_eq (transport, "memfd");
  ck_assert_str_eq (name, ferry_store_get_name (store));
  /* it came through no channel, but the object is held here */
  found = ferry_store_reference_decode (message, FALSE, name, &was_opened, &error);
  ferry_assert_no_error (error);
  ck_assert (!was_opened);
  ck_assert (ferry_store_reference_equal (found, reference));
  g_clear_pointer (&found, ferry_store_reference_unref);
  ck_assert_ptr_null (ferry_store_reference_decode (message, FALSE, "other", &was_opened, &error));
  ferry_assert_error (error, FERRY_ERROR, FERRY_ERROR_CODEC);
  g_clear_error (&error);

  ferry_store_close (store);
  ck_assert (!ferry_store_reference_encode (reference, data, FERRY_STORE_REFERENCE_SIZE, &error));
  ferry_assert_error (error, FERRY_ERROR, FERRY_ERROR_CLOSED);
}
END_TEST

#define expect_refused(condition)                                                                                      \
  g_test_expect_message ("Ferry", G_LOG_LEVEL_CRITICAL, "*assertion '" condition "' failed*")

/* Mistakes of the caller are told, and change nothing. */
START_TEST (test_arguments)
{
  g_autoptr (FerryStore) store = open_store ("arguments");
  g_autoptr (FerryStoreReference) reference = NULL;
  g_autoptr (FerryBuffer) message = NULL;
  g_autoptr (GError) error = NULL;
  g_autoptr (GError) earlier = g_error_new_literal (FERRY_ERROR, FERRY_ERROR_FULL, "earlier");
  GError *const kept = earlier;
  char *transport = NULL;
  char *name = NULL;
  guint8 data[FERRY_STORE_REFERENCE_SIZE];
  guint8 identity[16];
  gboolean was_opened = TRUE;

  set (store, "x", "[<1>]");
  reference = get (store, "x");
  expect_refused ("self != NULL");
  ck_assert (!ferry_store_reference_encode (NULL, data, sizeof data, &error));
  expect_refused ("data != NULL");
  ck_assert (!ferry_store_reference_encode (reference, NULL, sizeof data, &error));
  expect_refused ("error == NULL || *error == NULL");
  ck_assert (!ferry_store_reference_encode (reference, data, 1, &earlier));
  g_test_assert_expected_messages ();
  ck_assert (ferry_store_reference_encode (reference, data, sizeof data, &error));
  message = new_message (data, sizeof data, "store");

  expect_refused ("buffer != NULL");
  ck_assert (!ferry_store_reference_peek (NULL, identity, &transport, &name));
  expect_refused ("identity != NULL");
  ck_assert (!ferry_store_reference_peek (message, NULL, &transport, &name));
  expect_refused ("transport != NULL");
  ck_assert (!ferry_store_reference_peek (message, identity, NULL, &name));
  expect_refused ("name != NULL");
  ck_assert (!ferry_store_reference_peek (message, identity, &transport, NULL));
  g_test_assert_expected_messages ();
  ck_assert (transport == NULL && name == NULL);

  expect_refused ("buffer != NULL");
  ck_assert_ptr_null (ferry_store_reference_decode (NULL, FALSE, NULL, &was_opened, &error));
  expect_refused ("was_opened != NULL");
  ck_assert_ptr_null (ferry_store_reference_decode (message, FALSE, NULL, NULL, &error));
  expect_refused ("error == NULL || *error == NULL");
  ck_assert_ptr_null (ferry_store_reference_decode (message, FALSE, "other", &was_opened, &earlier));
  g_test_assert_expected_messages ();
  ck_assert (was_opened);
  ferry_assert_no_error (error);
  ck_assert_ptr_eq (earlier, kept);
}
END_TEST

/* No store is opened where that is not wanted. */
START_TEST (test_open_stores)
{
  g_autofree char *properties = g_strdup ("capacity=4 ! store open-stores=false");
  FerryChannel *receiver = open_channel (properties, FERRY_ROLE_RECEIVER);
  g_autofree char *description = g_strdup_printf ("memfd name=test-store-codec-%d", (int) getpid ());
  g_autoptr (FerryStoreReference) received = NULL;
  g_autoptr (GError) error = NULL;
  pid_t child = fork ();
  int status;

  if (child == 0)
    {
      FerryStore *store = open_store ("not-opened");
      FerryChannel *sender = ferry_channel_new_from_description (description, FERRY_ROLE_SENDER, NULL);

      if (!ferry_channel_open (sender, NULL, NULL))
        _exit (1);
      set (store, "x", "[<1>]");
      send_path (sender, store, "x");
      pause ();
      _exit (0);
    }
  received = receive (receiver, &error);
  ck_assert_ptr_null (received);
  ferry_assert_error (error, FERRY_ERROR, FERRY_ERROR_CODEC);
  ferry_assert_contains (error->message, "open-stores");
  kill (child, SIGKILL);
  waitpid (child, &status, 0);
  close_channel (receiver);
}
END_TEST

static void
add (Suite *suite)
{
  const TTest *const tests[] = { test_reference, test_work_queue, test_twice,        test_dropped, test_transaction,
                                 test_broadcast, test_processes,  test_channel_gone, test_hostile, test_forged,
                                 test_message,   test_arguments,  test_open_stores,  NULL };

  ferry_test_add_case (suite, "store-codec", 30, tests);
}

int
main (void)
{
  return ferry_test_run ("store-codec", add);
}
