/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "channel-test.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define KIB ((gsize) 1024)
#define MIB (KIB * KIB)
#define PAGE (4096)

/* Where docs/memory-model.md says they are: magic, then major and minor version. */
#define OFFSET_MAGIC (0)
#define OFFSET_VERSION (8)

#define NOBODY (65534)

static const char *const transports[] = { "memfd", "posix-shm" };

/* ---- a transport of our own: the smallest subclass, which counts and can refuse ---- */

#define TEST_TYPE_TRANSPORT (test_transport_get_type ())
G_DECLARE_FINAL_TYPE (TestTransport, test_transport, TEST, TRANSPORT, FerrySegmentTransport)

struct _TestTransport
{
  FerrySegmentTransport parent_instance;

  char *shared_as;
};

static FerrySegmentTransportClass *parent_class;

/* Of all of them. */
static struct
{
  int control_fd; /* of the one segment there is; -1: none */
  int data_fd;
  guint n_reserved;
  guint n_shared;
  guint n_withdrawn;
  guint n_left;
  guint n_commits;
  guint64 bytes_committed;
  guint n_decommits;
  guint n_maps;
  guint n_unmaps;
  guint n_writable_data_maps;
  gboolean refuse_commit;
  gboolean refuse_map;
  GHashTable *real[2]; /* by area, the numbers of the committed pages; NULL: nobody watches */
} world = { .control_fd = -1, .data_fd = -1 };

G_DEFINE_FINAL_TYPE (TestTransport, test_transport, FERRY_TYPE_SEGMENT_TRANSPORT)

static gboolean
test_transport_reserve (FerrySegmentTransport *self, const FerryChannelConfig *config, guint64 control_size,
                        guint64 data_size, GError **error)
{
  int control_fd = memfd_create ("test-control", MFD_CLOEXEC);
  int data_fd = memfd_create ("test-data", MFD_CLOEXEC);

  world.n_reserved++;
  ck_assert_int_eq (ftruncate (control_fd, (off_t) control_size), 0);
  ck_assert_int_eq (ftruncate (data_fd, (off_t) data_size), 0);
  ferry_segment_transport_take_fds (self, control_fd, data_fd);
  ck_assert_int_eq (ferry_segment_transport_get_control_fd (self), control_fd);
  ck_assert_int_eq (ferry_segment_transport_get_data_fd (self), data_fd);
  return TRUE;
}

static gboolean
test_transport_share (FerrySegmentTransport *self, const FerryChannelConfig *config, GError **error)
{
  if (world.control_fd >= 0)
    {
      g_set_error (error, FERRY_ERROR, FERRY_ERROR_EXISTS, "there is one");
      return FALSE;
    }
  world.n_shared++;
  world.control_fd = fcntl (ferry_segment_transport_get_control_fd (self), F_DUPFD_CLOEXEC, 0);
  world.data_fd = fcntl (ferry_segment_transport_get_data_fd (self), F_DUPFD_CLOEXEC, 0);
  return TRUE;
}

static gboolean
test_transport_attach (FerrySegmentTransport *self, const FerryChannelConfig *config, GCancellable *cancellable,
                       GError **error)
{
  guint64 control_size;

  if (world.control_fd < 0)
    {
      g_set_error (error, FERRY_ERROR, FERRY_ERROR_NOT_FOUND, "no channel '%s'", config->name);
      return FALSE;
    }
  ck_assert (ferry_segment_transport_read_control_size (world.control_fd, &control_size));
  ck_assert_uint_gt (control_size, 0);
  ferry_segment_transport_take_fds (self, fcntl (world.control_fd, F_DUPFD_CLOEXEC, 0),
                                    fcntl (world.data_fd, F_DUPFD_CLOEXEC, 0));
  return TRUE;
}

static void
test_transport_withdraw (FerrySegmentTransport *self)
{
  world.n_withdrawn++;
  if (world.control_fd >= 0)
    {
      close (world.control_fd);
      close (world.data_fd);
      world.control_fd = world.data_fd = -1;
    }
}

static void
test_transport_left (FerrySegmentTransport *self)
{
  world.n_left++;
}

/* Reading a hole through a mapping makes it a page too, so this tells whether anybody has touched one. */
static void
assert_only_real_pages_touched (FerrySegmentTransport *self, FerrySegmentArea area, guint64 offset, guint64 size)
{
  int fd = area == FERRY_SEGMENT_AREA_CONTROL ? ferry_segment_transport_get_control_fd (self)
                                              : ferry_segment_transport_get_data_fd (self);
  off_t end = (off_t) (offset + size);

  for (off_t at = lseek (fd, (off_t) offset, SEEK_DATA); at >= 0 && at < end; at = lseek (fd, at, SEEK_DATA))
    for (off_t hole = lseek (fd, at, SEEK_HOLE); at < MIN (hole, end); at += PAGE)
      ck_assert_msg (g_hash_table_contains (world.real[area], GSIZE_TO_POINTER ((gsize) at / PAGE)),
                     "page %" G_GUINT64_FORMAT " of area %d was touched before it was committed", (guint64) at / PAGE,
                     area);
}

static gboolean
lies_within (gpointer key, gpointer value, gpointer data)
{
  const guint64 *range = data;
  guint64 offset = (guint64) GPOINTER_TO_SIZE (key) * PAGE;

  return offset >= range[0] && offset < range[1];
}

static gboolean
test_transport_commit_pages (FerrySegmentTransport *self, FerrySegmentArea area, guint64 offset, guint64 size,
                             GError **error)
{
  if (area == FERRY_SEGMENT_AREA_DATA)
    {
      if (world.refuse_commit)
        {
          g_set_error (error, FERRY_ERROR, FERRY_ERROR_NO_SPACE, "the test refuses");
          return FALSE;
        }
      world.n_commits++;
      world.bytes_committed += size;
    }
  if (world.real[area] != NULL)
    {
      assert_only_real_pages_touched (self, area, offset, size);
      for (guint64 page = offset / PAGE; page <= (offset + size - 1) / PAGE; page++)
        g_hash_table_add (world.real[area], GSIZE_TO_POINTER ((gsize) page));
    }
  return parent_class->commit_pages (self, area, offset, size, error);
}

static gboolean
test_transport_decommit_pages (FerrySegmentTransport *self, FerrySegmentArea area, guint64 offset, guint64 size,
                               GError **error)
{
  if (world.real[area] != NULL)
    g_hash_table_foreach_remove (world.real[area], lies_within, (guint64[]){ offset, offset + size });
  world.n_decommits++;
  world.bytes_committed -= size;
  return parent_class->decommit_pages (self, area, offset, size, error);
}

static gpointer
test_transport_map (FerrySegmentTransport *self, FerrySegmentArea area, guint64 offset, gsize size, gboolean writable,
                    GError **error)
{
  if (world.refuse_map && area == FERRY_SEGMENT_AREA_DATA)
    {
      g_set_error (error, FERRY_ERROR, FERRY_ERROR_NO_SPACE, "the test refuses");
      return NULL;
    }
  world.n_maps++;
  if (area == FERRY_SEGMENT_AREA_DATA && writable)
    world.n_writable_data_maps++;
  return parent_class->map (self, area, offset, size, writable, error);
}

static void
test_transport_unmap (FerrySegmentTransport *self, gpointer address, gsize size)
{
  world.n_unmaps++;
  parent_class->unmap (self, address, size);
}

static void
test_transport_init (TestTransport *self)
{
}

static void
test_transport_class_init (TestTransportClass *klass)
{
  FerrySegmentTransportClass *segment_class = FERRY_SEGMENT_TRANSPORT_CLASS (klass);

  parent_class = FERRY_SEGMENT_TRANSPORT_CLASS (test_transport_parent_class);
  segment_class->reserve = test_transport_reserve;
  segment_class->share = test_transport_share;
  segment_class->attach = test_transport_attach;
  segment_class->withdraw = test_transport_withdraw;
  segment_class->left = test_transport_left;
  segment_class->commit_pages = test_transport_commit_pages;
  segment_class->decommit_pages = test_transport_decommit_pages;
  segment_class->map = test_transport_map;
  segment_class->unmap = test_transport_unmap;
}

static FerryChannel *
open_own (FerryRole role, FerryMode mode, guint64 max_bytes)
{
  g_autoptr (FerryTransport) transport = g_object_new (TEST_TYPE_TRANSPORT, NULL);
  FerryChannel *channel = ferry_channel_new_with_transport (transport, NULL, role);
  g_autoptr (GError) error = NULL;

  g_object_set (channel, "name", "own", "mode", mode, NULL);
  if (max_bytes > 0)
    g_object_set (channel, "max-bytes", max_bytes, NULL);
  ck_assert (ferry_channel_open (channel, NULL, &error));
  ferry_assert_no_error (error);
  return channel;
}

/* Reserved and shared once; committed once a block, not once a message; all undone at the end. */
START_TEST (test_subclass)
{
  FerryChannel *sender = open_own (FERRY_ROLE_SENDER, FERRY_MODE_WORK_QUEUE, 0);
  FerryChannel *receiver = open_own (FERRY_ROLE_RECEIVER, FERRY_MODE_WORK_QUEUE, 0);

  ck_assert_uint_eq (world.n_reserved, 1);
  ck_assert_uint_eq (world.n_shared, 1);
  for (guint i = 0; i < 500; i++)
    {
      channel_test_send (sender, i, 100);
      channel_test_expect (receiver, i, 100);
    }
  ck_assert_uint_eq (world.n_commits, 0);
  for (guint i = 0; i < 500; i++)
    {
      channel_test_send (sender, i, 300000);
      channel_test_expect (receiver, i, 300000);
    }
  ck_assert_uint_eq (world.n_commits, 1);
  channel_test_assert_statistic (sender, bytes_committed, world.bytes_committed);
  ck_assert_uint_lt (world.bytes_committed, 304096);
  ck_assert_uint_ge (ferry_channel_trim (sender), 300000);
  ck_assert_uint_eq (world.n_decommits, 1);
  ck_assert_uint_eq (world.bytes_committed, 0);
  channel_test_verify (sender);
  world.n_left = 0; /* also called for each attempt at opening */
  channel_test_close (sender);
  ck_assert_uint_eq (world.n_left, 1);
  ck_assert_uint_eq (world.n_withdrawn, 0);
  channel_test_close (receiver);
  ck_assert_uint_eq (world.n_left, 2);
  ck_assert_uint_eq (world.n_withdrawn, 1);
  ck_assert_int_eq (world.control_fd, -1);
  ck_assert_uint_eq (world.n_maps, world.n_unmaps);
}
END_TEST

/* Broadcast receivers never ask for a writable mapping of the data. */
START_TEST (test_subclass_broadcast)
{
  FerryChannel *sender = open_own (FERRY_ROLE_SENDER, FERRY_MODE_BROADCAST, 0);
  FerryChannel *receiver = open_own (FERRY_ROLE_RECEIVER, FERRY_MODE_BROADCAST, 0);
  guint n;

  channel_test_send (sender, 0, 10 * MIB);
  n = world.n_writable_data_maps;
  ck_assert_uint_gt (n, 0);
  channel_test_expect (receiver, 0, 10 * MIB);
  ck_assert_uint_eq (world.n_writable_data_maps, n);
  channel_test_close (sender);
  channel_test_close (receiver);
  ck_assert_uint_eq (world.n_maps, world.n_unmaps);
}
END_TEST

/* No memory is an error of the call; nothing is lost, nothing leaks, and it goes on afterwards. */
START_TEST (test_subclass_refuses)
{
  FerryChannel *sender = open_own (FERRY_ROLE_SENDER, FERRY_MODE_WORK_QUEUE, 0);
  FerryChannel *receiver = open_own (FERRY_ROLE_RECEIVER, FERRY_MODE_WORK_QUEUE, 0);
  g_autoptr (GError) error = NULL;

  channel_test_send (sender, 1, 5000);
  for (guint i = 0; i < 4; i++)
    {
      world.refuse_map = i % 2 == 0;
      world.refuse_commit = i % 2 == 1;
      ck_assert (!channel_test_try_send (sender, 2, 8 * MIB << i, i < 2 ? FERRY_NO_WAIT : 100000, &error));
      ferry_assert_error (error, FERRY_ERROR, FERRY_ERROR_NO_SPACE);
      g_clear_error (&error);
      ck_assert_ptr_null (ferry_channel_loan (sender, 8 * MIB << i, FERRY_NO_WAIT, NULL, &error));
      ferry_assert_error (error, FERRY_ERROR, FERRY_ERROR_NO_SPACE);
      g_clear_error (&error);
      channel_test_verify (sender);
    }
  world.refuse_commit = world.refuse_map = FALSE;
  channel_test_expect (receiver, 1, 5000);
  channel_test_send (sender, 2, 8 * MIB);
  channel_test_expect (receiver, 2, 8 * MIB);
  channel_test_verify (sender);
  channel_test_close (sender);
  channel_test_close (receiver);
  ck_assert_uint_eq (world.n_maps, world.n_unmaps);
}
END_TEST

/* A full tmpfs must be an error of a call and never SIGBUS: so nobody, whatever he does, touches a page that was not
 * committed before. */
START_TEST (test_subclass_touches_real_pages_only)
{
  FerryMode mode = _i == 0 ? FERRY_MODE_WORK_QUEUE : FERRY_MODE_BROADCAST;
  FerryChannel *sender;
  FerryChannel *observer;
  FerryChannel *receivers[40]; /* the records of 16 participants are a page */
  FerrySegmentTransport *transport;
  g_autoptr (GPtrArray) participants = NULL;
  guint n_sent = 0;

  for (guint i = 0; i < 2; i++)
    world.real[i] = g_hash_table_new (NULL, NULL);
  sender = open_own (FERRY_ROLE_SENDER, mode, 0);
  transport = FERRY_SEGMENT_TRANSPORT (ferry_channel_get_transport_object (sender));
  for (guint i = 0; i < G_N_ELEMENTS (receivers); i++)
    receivers[i] = open_own (FERRY_ROLE_RECEIVER, mode, 0);
  observer = open_own (FERRY_ROLE_OBSERVER, mode, 0);

  /* the descriptors of 64 blocks of a class are a page */
  for (; n_sent < 150; n_sent++)
    channel_test_send (sender, n_sent, 300 + n_sent);
  for (gsize size = 5000; size <= 9 * MIB; size = size * 3 / 2)
    channel_test_send (sender, n_sent++, size);
  channel_test_verify (sender);
  for (guint i = 0; i < n_sent; i++)
    for (guint r = 0; r < (mode == FERRY_MODE_BROADCAST ? G_N_ELEMENTS (receivers) : 1); r++)
      {
        g_autoptr (FerryBuffer) buffer = channel_test_take (receivers[mode == FERRY_MODE_BROADCAST ? r : i % 40]);
        gsize size;
        const guint8 *data = ferry_buffer_get_data (buffer, &size);

        /* one of the forty looks at every byte; with a sanitizer that takes long enough */
        ck_assert (r > 0 || channel_test_is_filled (data, size, i));
      }
  participants = ferry_channel_list_participants (observer, NULL);
  ck_assert_uint_eq (participants->len, 1 + G_N_ELEMENTS (receivers));
  channel_test_assert_statistic (observer, in_flight, 0);
  ck_assert_uint_gt (ferry_channel_trim (sender), 0);
  channel_test_send (sender, 0, 3 * MIB);
  channel_test_expect (receivers[1], 0, 3 * MIB);
  channel_test_verify (sender);
  for (guint area = 0; area < 2; area++)
    assert_only_real_pages_touched (transport, (FerrySegmentArea) area, 0, G_MAXINT64);
  channel_test_close (observer);
  for (guint i = 0; i < G_N_ELEMENTS (receivers); i++)
    channel_test_close (receivers[i]);
  assert_only_real_pages_touched (transport, FERRY_SEGMENT_AREA_CONTROL, 0, G_MAXINT64);
  channel_test_close (sender);
  for (guint i = 0; i < 2; i++)
    g_clear_pointer (&world.real[i], g_hash_table_unref);
}
END_TEST

/* A transport object is opened once, and disposed as often as one likes. */
START_TEST (test_transport_object)
{
  g_autoptr (FerryChannelConfig) config = ferry_channel_config_new ();
  FerryTransport *transport = g_object_new (TEST_TYPE_TRANSPORT, NULL);
  g_autoptr (GError) error = NULL;

  config->name = g_strdup ("own");
  ck_assert (ferry_transport_open (transport, config, NULL, &error));
  ferry_assert_no_error (error);
  world.n_left = 0;
  ck_assert (!ferry_transport_open (transport, config, NULL, &error));
  ferry_assert_error (error, FERRY_ERROR, FERRY_ERROR_INVALID_ARGUMENT);
  g_clear_error (&error);
  ck_assert (ferry_transport_close (transport, &error));
  ck_assert (ferry_transport_close (transport, &error));
  ck_assert_ptr_null (ferry_transport_take (transport, FERRY_NO_WAIT, NULL, &error));
  ferry_assert_error (error, FERRY_ERROR, FERRY_ERROR_CLOSED);
  g_object_run_dispose (G_OBJECT (transport));
  g_object_run_dispose (G_OBJECT (transport));
  ferry_assert_last_unref (transport);
  ck_assert_uint_eq (world.n_withdrawn, 1);
  ck_assert_uint_eq (world.n_left, 1);

  transport = g_object_new (TEST_TYPE_TRANSPORT, NULL);
  g_object_run_dispose (G_OBJECT (transport));
  ferry_assert_last_unref (transport);
}
END_TEST

/* ---- what other programs left in /dev/shm ---- */

static ChannelTest test;
static char *path;

static void
set_up_shm (void)
{
  channel_test_begin (&test, "posix-shm", NULL, CHANNEL_TEST_BY_NAME);
  path = g_strconcat ("/dev/shm/ferry-", test.name, NULL);
}

static void
tear_down_shm (void)
{
  unlink (path);
  g_clear_pointer (&path, g_free);
  channel_test_end (&test);
}

static void
patch (guint64 offset, gconstpointer data, gsize size)
{
  int fd = open (path, O_RDWR | O_CLOEXEC);

  ck_assert_int_ge (fd, 0);
  ck_assert_int_eq (pwrite (fd, data, size, (off_t) offset), (gssize) size);
  close (fd);
}

START_TEST (test_other_version)
{
  FerryChannel *sender = channel_test_open (&test, FERRY_ROLE_SENDER, NULL);
  guint32 header[4];
  int fd = open (path, O_RDONLY | O_CLOEXEC);
  guint offset;

  ck_assert_int_eq (pread (fd, header, sizeof header, 0), sizeof header);
  close (fd);
  /* {magic:64, major, minor}: both parts of 16 or 32 bits */
  offset = OFFSET_VERSION;
  ck_assert_uint_eq (header[2] & 0xffff, 1);
  for (guint16 major = 0; major < 4; major++)
    {
      g_autoptr (GError) error = NULL;
      FerryChannel *receiver;

      patch (offset, &major, sizeof major);
      receiver = channel_test_try_open (&test, FERRY_ROLE_RECEIVER, NULL, &error);
      if (major == 1)
        {
          ferry_assert_no_error (error);
          channel_test_close (receiver);
          continue;
        }
      ck_assert_ptr_null (receiver);
      channel_test_assert_error (&test, error, FERRY_ERROR_VERSION);
      /* what is found, and what is known here */
      {
        g_autofree char *found = g_strdup_printf ("%u.", major);

        ferry_assert_contains (error->message, found);
        ferry_assert_contains (error->message, "1.");
      }
      /* It may be in use by who knows it: nobody removes it. */
      ck_assert (g_file_test (path, G_FILE_TEST_EXISTS));
      major = major == 3 ? 3 : major;
    }
  {
    guint16 major = 1;

    patch (offset, &major, sizeof major);
  }
  channel_test_close (sender);
}
END_TEST

/* A segment that is none: an error, or it is taken out of the way; never a crash, a hang or a half-alive channel. */
static void
expect_corrupt_or_swept (FerryRole role, const char *properties)
{
  g_autoptr (GError) error = NULL;
  FerryChannel *channel = channel_test_try_open (&test, role, properties, &error);

  if (channel == NULL)
    {
      ck_assert_msg (g_error_matches (error, FERRY_ERROR, FERRY_ERROR_CORRUPT)
                         || g_error_matches (error, FERRY_ERROR, FERRY_ERROR_VERSION)
                         || g_error_matches (error, FERRY_ERROR, FERRY_ERROR_NOT_FOUND),
                     "%s", error->message);
      ferry_assert_contains (error->message, test.name);
      return;
    }
  /* It may have got as far as being taken for one without a name, which a newcomer revives. */
  if (!ferry_channel_verify (channel, &error))
    ferry_assert_error (error, FERRY_ERROR, FERRY_ERROR_CORRUPT);
  channel_test_close (channel);
}

START_TEST (test_garbage)
{
  static const gsize sizes[] = { 0, 1, 8, 100, 4096, 69632, 1 << 20 };
  g_autoptr (GRand) rand = g_rand_new_with_seed (20240229);

  for (guint i = 0; i < G_N_ELEMENTS (sizes); i++)
    for (guint kind = 0; kind < 3; kind++)
      for (FerryRole role = FERRY_ROLE_SENDER; role <= FERRY_ROLE_OBSERVER; role++)
        {
          g_autofree guint8 *data = g_malloc0 (sizes[i] + 1);

          for (gsize at = 0; at < sizes[i] && kind == 1; at++)
            data[at] = (guint8) g_rand_int (rand);
          if (kind == 2)
            memset (data, 0xff, sizes[i]);
          ck_assert (g_file_set_contents (path, (char *) data, (gssize) sizes[i], NULL));
          expect_corrupt_or_swept (role, i % 2 ? "open-mode=join" : NULL);
          unlink (path);
        }
}
END_TEST

typedef struct
{
  guint8 *contents;
  gsize size;
} Snapshot;

/* Copies the beginning of a good segment, sparse as it is. */
static void
snapshot_take (Snapshot *snapshot, guint64 *full_size)
{
  FerryChannel *sender = channel_test_open (&test, FERRY_ROLE_SENDER, NULL);
  struct stat st;
  int fd = open (path, O_RDONLY | O_CLOEXEC);

  channel_test_send (sender, 0, 10);
  channel_test_send (sender, 1, 10000);
  ck_assert_int_eq (fstat (fd, &st), 0);
  *full_size = (guint64) st.st_size;
  snapshot->size = 100 * KIB;
  snapshot->contents = g_malloc (snapshot->size);
  ck_assert_int_eq (pread (fd, snapshot->contents, snapshot->size, 0), (gssize) snapshot->size);
  close (fd);
  channel_test_close (sender);
}

static void
snapshot_put (const Snapshot *snapshot, guint64 size)
{
  int fd = open (path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

  ck_assert_int_ge (fd, 0);
  ck_assert_int_eq (pwrite (fd, snapshot->contents, MIN (snapshot->size, size), 0),
                    (gssize) MIN (snapshot->size, size));
  ck_assert_int_eq (ftruncate (fd, (off_t) size), 0);
  close (fd);
}

START_TEST (test_truncated)
{
  Snapshot snapshot;
  guint64 full;

  snapshot_take (&snapshot, &full);
  for (guint i = 0; i < 8; i++)
    {
      const guint64 sizes[] = { 0, 16, 1000, 4096, 60000, 90000, full / 2, full - 4096 };

      snapshot_put (&snapshot, sizes[i]);
      expect_corrupt_or_swept (i % 2 ? FERRY_ROLE_SENDER : FERRY_ROLE_RECEIVER, i < 4 ? NULL : "open-mode=join");
      unlink (path);
    }
  /* Longer than it says is no segment of ours either. */
  snapshot_put (&snapshot, full + 4096);
  expect_corrupt_or_swept (FERRY_ROLE_SENDER, NULL);
  unlink (path);
  g_free (snapshot.contents);
}
END_TEST

/* Each byte of the header set to something else, in a segment without anybody. */
START_TEST (test_scribbled_header)
{
  Snapshot snapshot;
  guint64 full;

  snapshot_take (&snapshot, &full);
  for (guint at = 0; at < 256; at++)
    {
      guint8 was = snapshot.contents[at];

      snapshot.contents[at] = (guint8) ~was;
      snapshot_put (&snapshot, full);
      expect_corrupt_or_swept (at % 2 ? FERRY_ROLE_SENDER : FERRY_ROLE_RECEIVER, NULL);
      snapshot.contents[at] = was;
      unlink (path);
    }
  g_free (snapshot.contents);
}
END_TEST

/* Something else has the name. */
START_TEST (test_no_regular_file)
{
  g_autoptr (GError) error = NULL;

  ck_assert_int_eq (mkdir (path, 0700), 0);
  ck_assert_ptr_null (channel_test_try_open (&test, FERRY_ROLE_SENDER, NULL, &error));
  ck_assert_uint_eq (error->domain, FERRY_ERROR);
  ferry_assert_contains (error->message, test.name);
  ck_assert_int_eq (rmdir (path), 0);
  g_clear_error (&error);

  /* A symbolic link is not followed: it could lead to anything. */
  ck_assert_int_eq (symlink ("/dev/null", path), 0);
  ck_assert_ptr_null (channel_test_try_open (&test, FERRY_ROLE_SENDER, NULL, &error));
  ck_assert_uint_eq (error->domain, FERRY_ERROR);
  ferry_assert_contains (error->message, test.name);
  ck_assert_int_eq (unlink (path), 0);
}
END_TEST

START_TEST (test_anonymous_posix_shm)
{
  FerryChannel *channel = ferry_channel_new ("posix-shm", NULL, FERRY_ROLE_SENDER);
  g_autoptr (GError) error = NULL;

  ck_assert (!ferry_channel_open (channel, NULL, &error));
  ferry_assert_error (error, FERRY_ERROR, FERRY_ERROR_INVALID_ARGUMENT);
  ferry_assert_contains (error->message, "name=");
  ferry_assert_contains (error->message, "memfd");
  ferry_assert_last_unref (channel);
}
END_TEST

/* Who joins names what is missing, also where there never was a channel. */
START_TEST (test_empty_directory)
{
  g_autofree char *folder = ferry_test_make_folder ();

  for (guint i = 0; i < 2; i++)
    {
      g_autofree char *description = g_strdup_printf ("%s directory=%s/%s name=sought open-mode=join",
                                                      i ? "posix-shm" : "memfd", folder, i ? "" : "deeper");
      g_autoptr (GError) error = NULL;
      FerryChannel *channel = ferry_channel_new_from_description (description, FERRY_ROLE_SENDER, &error);

      ferry_assert_no_error (error);
      ck_assert (!ferry_channel_open (channel, NULL, &error));
      ferry_assert_error (error, FERRY_ERROR, FERRY_ERROR_NOT_FOUND);
      ferry_assert_contains (error->message, "sought");
      ferry_assert_contains (error->message, folder);
      ferry_assert_last_unref (channel);
    }
  ferry_test_remove_folder (folder);
}
END_TEST

START_TEST (test_bad_directory)
{
  static const struct
  {
    const char *description;
    FerryError code;
  } cases[] = {
    { "posix-shm directory=/nonexistent name=x", FERRY_ERROR_NOT_FOUND },
    { "posix-shm directory=/proc name=x", FERRY_ERROR_FAILED },
    { "memfd directory=/nonexistent/at/all name=x", FERRY_ERROR_NOT_FOUND },
    { "memfd directory=/proc name=x", FERRY_ERROR_FAILED },
  };

  for (guint i = 0; i < G_N_ELEMENTS (cases); i++)
    {
      g_autoptr (GError) error = NULL;
      FerryChannel *channel = ferry_channel_new_from_description (cases[i].description, FERRY_ROLE_SENDER, &error);

      ferry_assert_no_error (error);
      ck_assert_msg (!ferry_channel_open (channel, NULL, &error), "%s", cases[i].description);
      ck_assert_msg (error->domain == FERRY_ERROR
                         && (error->code == (int) cases[i].code || cases[i].code == FERRY_ERROR_FAILED),
                     "%s: %d: %s", cases[i].description, error->code, error->message);
      ferry_assert_contains (error->message, i % 2 ? "/proc" : "/nonexistent");
      ferry_assert_last_unref (channel);
    }
}
END_TEST

/* ---- a full file system ---- */

START_TEST (test_full_tmpfs)
{
  g_autofree char *folder = NULL;
  g_autofree char *directory = NULL;
  FerryChannel *sender;
  FerryChannel *receiver;
  g_autoptr (GError) error = NULL;
  guint64 sent = 0;
  guint64 received = 0;

  if (geteuid () != 0)
    {
      g_printerr ("skipped: only root can mount a small tmpfs\n");
      return;
    }
  folder = ferry_test_make_folder ();
  if (mount ("ferry-test", folder, "tmpfs", MS_NOSUID | MS_NODEV, "size=2m,mode=0700") != 0)
    {
      g_printerr ("skipped: can't mount a tmpfs here: %s\n", g_strerror (errno));
      ferry_test_remove_folder (folder);
      return;
    }
  channel_test_begin (&test, "posix-shm", NULL, CHANNEL_TEST_BY_NAME);
  directory = g_strdup_printf ("directory=%s", folder);
  sender = channel_test_open (&test, FERRY_ROLE_SENDER, directory);
  receiver = channel_test_open (&test, FERRY_ROLE_RECEIVER, directory);
  for (guint round = 0; round < 3; round++)
    {
      while (channel_test_try_send (sender, sent, 256 * KIB, FERRY_NO_WAIT, &error))
        {
          sent++;
          ck_assert_uint_lt (sent - received, 9);
        }
      ck_assert_uint_gt (sent - received, 3);
      channel_test_assert_error (&test, error, FERRY_ERROR_NO_SPACE);
      ferry_assert_contains (error->message, "tmpfs");
      ferry_assert_contains (error->message, "memfd");
      g_clear_error (&error);
      ck_assert_ptr_null (ferry_channel_loan (sender, MIB, FERRY_NO_WAIT, NULL, &error));
      channel_test_assert_error (&test, error, FERRY_ERROR_NO_SPACE);
      g_clear_error (&error);
      /* What needs no memory still goes, and nothing is lost. */
      channel_test_send (sender, sent, 20);
      channel_test_verify (sender);
      for (; received < sent; received++)
        channel_test_expect (receiver, received, 256 * KIB);
      channel_test_expect (receiver, received, 20);
      sent = ++received;
      /* A message of another size gets what warm blocks hold. */
      channel_test_send (sender, sent, MIB + 1);
      channel_test_expect (receiver, sent, MIB + 1);
      received = ++sent;
    }
  channel_test_verify (sender);
  channel_test_close (sender);
  channel_test_close (receiver);
  ck_assert_int_eq (umount (folder), 0);
  ferry_test_remove_folder (folder);
  channel_test_end (&test);
}
END_TEST

/* Not even room for the control area. */
START_TEST (test_tiny_tmpfs)
{
  g_autofree char *folder = NULL;
  g_autofree char *directory = NULL;
  g_autoptr (GError) error = NULL;

  if (geteuid () != 0)
    {
      g_printerr ("skipped: only root can mount a small tmpfs\n");
      return;
    }
  folder = ferry_test_make_folder ();
  if (mount ("ferry-test", folder, "tmpfs", MS_NOSUID | MS_NODEV, "size=64k,mode=0700") != 0)
    {
      g_printerr ("skipped: can't mount a tmpfs here: %s\n", g_strerror (errno));
      ferry_test_remove_folder (folder);
      return;
    }
  channel_test_begin (&test, "posix-shm", NULL, CHANNEL_TEST_BY_NAME);
  directory = g_strdup_printf ("directory=%s capacity=1000000", folder);
  for (guint i = 0; i < 3; i++)
    {
      ck_assert_ptr_null (channel_test_try_open (&test, FERRY_ROLE_SENDER, directory, &error));
      channel_test_assert_error (&test, error, FERRY_ERROR_NO_SPACE);
      g_clear_error (&error);
    }
  ck_assert_int_eq (umount (folder), 0); /* nothing is open there */
  ferry_test_remove_folder (folder);
  channel_test_end (&test);
}
END_TEST

/* ---- other users ---- */

static void
become_nobody (gid_t group, gboolean in_group)
{
  gid_t groups[1] = { group };

  ck_assert_int_eq (setgroups (in_group ? 1 : 0, groups), 0);
  ck_assert_int_eq (setresgid (NOBODY, NOBODY, NOBODY), 0);
  ck_assert_int_eq (setresuid (NOBODY, NOBODY, NOBODY), 0);
}

static void
child_is_refused (ChannelTest *self, gpointer data)
{
  FerryChannel *channel;

  become_nobody (0, FALSE);
  for (FerryRole role = FERRY_ROLE_SENDER; role <= FERRY_ROLE_OBSERVER; role++)
    {
      g_autoptr (GError) error = NULL;

      channel = channel_test_make (self, role, data);
      ck_assert_msg (!ferry_channel_open (channel, NULL, &error), "another user's channel was opened");
      ferry_assert_error (error, FERRY_ERROR, FERRY_ERROR_PERMISSION);
      ferry_assert_contains (error->message, self->name);
      ck_assert_uint_gt (strlen (error->message), strlen (self->name) + 30);
      g_object_unref (channel);
    }
}

START_TEST (test_other_user)
{
  g_autofree char *folder = NULL;
  FerryChannel *sender;
  FerryChannel *receiver;
  g_autofree char *directory = NULL;

  if (geteuid () != 0)
    {
      g_printerr ("skipped: only root can become another user\n");
      return;
    }
  /* A place where everybody may look, so that it is the channel that refuses. */
  folder = ferry_test_make_folder ();
  ck_assert_int_eq (chmod (folder, 0755), 0);
  directory = g_strdup_printf ("directory=%s", _i == 0 ? folder : "/dev/shm");
  channel_test_begin (&test, transports[_i], NULL, CHANNEL_TEST_BY_NAME);
  sender = channel_test_open (&test, FERRY_ROLE_SENDER, directory);
  receiver = channel_test_open (&test, FERRY_ROLE_RECEIVER, directory);
  channel_test_wait_child (channel_test_fork (child_is_refused, &test, directory));
  /* Nobody was disturbed. */
  channel_test_send (sender, 1, 5000);
  channel_test_expect (receiver, 1, 5000);
  channel_test_assert_statistic (sender, repairs, 0);
  channel_test_verify (sender);
  channel_test_close (sender);
  channel_test_close (receiver);
  ferry_test_remove_folder (folder);
  channel_test_end (&test);
}
END_TEST

typedef struct
{
  const char *properties;
  ChannelTestGate ready;
} Member;

static void
child_joins_by_group (ChannelTest *self, gpointer data)
{
  Member *member = data;
  FerryChannel *receiver;
  g_autoptr (GError) error = NULL;

  become_nobody (12345, TRUE);
  receiver = channel_test_try_open (self, FERRY_ROLE_RECEIVER, member->properties, &error);
  ferry_assert_no_error (error);
  channel_test_gate_open (&member->ready);
  channel_test_expect (receiver, 1, 5000);
  channel_test_expect (receiver, 2, 10);
  channel_test_close (receiver);
}

static void
child_outside_the_group (ChannelTest *self, gpointer data)
{
  Member *member = data;
  g_autoptr (GError) error = NULL;

  become_nobody (0, FALSE);
  ck_assert_ptr_null (channel_test_try_open (self, FERRY_ROLE_RECEIVER, member->properties, &error));
  ferry_assert_error (error, FERRY_ERROR, FERRY_ERROR_PERMISSION);
}

START_TEST (test_group)
{
  FerryChannel *sender;
  Member member = { .properties = "group=12345" };
  pid_t pid;

  if (geteuid () != 0)
    {
      g_printerr ("skipped: only root can become another user\n");
      return;
    }
  channel_test_begin (&test, transports[_i], NULL, CHANNEL_TEST_BY_NAME);
  channel_test_gate_init (&member.ready);
  sender = channel_test_open (&test, FERRY_ROLE_SENDER, member.properties);
  channel_test_wait_child (channel_test_fork (child_outside_the_group, &test, &member));
  pid = channel_test_fork (child_joins_by_group, &test, &member);
  channel_test_gate_wait (&member.ready);
  channel_test_send (sender, 1, 5000);
  channel_test_send (sender, 2, 10);
  channel_test_wait_child (pid);
  channel_test_assert_statistic (sender, repairs, 0);
  channel_test_assert_statistic (sender, receivers, 0);
  channel_test_verify (sender);
  channel_test_close (sender);
  channel_test_gate_clear (&member.ready);
  /* The place where the group meets is empty again. */
  if (_i == 0)
    ck_assert_int_eq (rmdir ("/tmp/ferry-1.0-group-12345"), 0);
  channel_test_end (&test);
}
END_TEST

#define LEFTOVER_GROUP 12346

static const struct
{
  uid_t uid;
  gid_t gid;
  mode_t mode;
} bad_directories[] = {
  { NOBODY, LEFTOVER_GROUP, 02777 }, /* where anybody may put things */
  { NOBODY, NOBODY, 02770 },         /* another group's */
  { NOBODY, NOBODY, 0700 },          /* somebody's own */
};

/* What the dead left of a group's channel is found by its members, and only where the directory can be trusted. */
START_TEST (test_group_leftovers)
{
  g_autofree char *folder = g_strdup_printf ("/tmp/ferry-1.0-group-%d", LEFTOVER_GROUP);
  g_autofree char *lock = g_strconcat (folder, "/left.lock", NULL);
  FerryTransport *transport;
  g_autoptr (GError) error = NULL;
  gboolean alive = TRUE;
  g_auto (GStrv) names = NULL;

  if (geteuid () != 0)
    {
      g_printerr ("skipped: only root can give a directory to any group\n");
      return;
    }
  transport = ferry_registry_create_transport (ferry_registry_get_default (), "memfd", &error);
  ferry_assert_no_error (error);
  g_object_set (transport, "listing-group", (gint64) LEFTOVER_GROUP, NULL);

  /* nobody has met there */
  names = ferry_transport_list_channels (transport, &error);
  ferry_assert_no_error (error);
  ck_assert_ptr_null (names[0]);
  g_clear_pointer (&names, g_strfreev);

  ck_assert_int_eq (mkdir (folder, 0770), 0);
  ck_assert (g_file_set_contents (lock, "", 0, NULL));
  for (guint i = 0; i < G_N_ELEMENTS (bad_directories); i++)
    {
      ck_assert_int_eq (chown (folder, bad_directories[i].uid, bad_directories[i].gid), 0);
      ck_assert_int_eq (chmod (folder, bad_directories[i].mode), 0);
      ck_assert_ptr_null (ferry_transport_list_channels (transport, &error));
      ferry_assert_error (error, FERRY_ERROR, FERRY_ERROR_PERMISSION);
      ferry_assert_contains (error->message, folder);
      g_clear_error (&error);
      ck_assert (!ferry_transport_probe_channel (transport, "left", &alive, &error));
      ferry_assert_error (error, FERRY_ERROR, FERRY_ERROR_PERMISSION);
      g_clear_error (&error);
      ck_assert (!ferry_transport_sweep_channel (transport, "left", &error));
      ferry_assert_error (error, FERRY_ERROR, FERRY_ERROR_PERMISSION);
      g_clear_error (&error);
      ck_assert (g_file_test (lock, G_FILE_TEST_EXISTS));
    }

  ck_assert_int_eq (chown (folder, NOBODY, LEFTOVER_GROUP), 0);
  ck_assert_int_eq (chmod (folder, 02770), 0);
  names = ferry_transport_list_channels (transport, &error);
  ferry_assert_no_error (error);
  ck_assert_str_eq (names[0], "left");
  ck_assert_ptr_null (names[1]);
  ck_assert (ferry_transport_probe_channel (transport, "left", &alive, &error));
  ferry_assert_no_error (error);
  ck_assert (!alive);
  ck_assert (ferry_transport_sweep_channel (transport, "left", &error));
  ferry_assert_no_error (error);
  ck_assert (!g_file_test (lock, G_FILE_TEST_EXISTS));
  ferry_assert_last_unref (transport);

  /* Whoever made the directory was killed before it was the group's. */
  ck_assert_int_eq (chown (folder, 0, 0), 0);
  ck_assert_int_eq (chmod (folder, 0700), 0);
  {
    struct stat st;
    FerryChannel *sender;

    channel_test_begin (&test, "memfd", NULL, CHANNEL_TEST_BY_NAME);
    sender = channel_test_open (&test, FERRY_ROLE_SENDER, "group=" G_STRINGIFY (LEFTOVER_GROUP));
    ck_assert_int_eq (stat (folder, &st), 0);
    ck_assert_int_eq (st.st_gid, LEFTOVER_GROUP);
    ck_assert_int_eq (st.st_mode & 07777, 02770);
    channel_test_close (sender);
    channel_test_end (&test);
  }
  ck_assert_int_eq (rmdir (folder), 0);
}
END_TEST

/* ---- descriptors handed over ---- */

static FerryChannel *
open_given (int control_fd, int data_fd, FerryRole role, GError **error)
{
  FerryChannel *channel;
  g_autofree char *description = g_strdup_printf ("memfd control-fd=%d data-fd=%d", control_fd, data_fd);

  /* No assertions of Check: this runs in a program of its own as well. */
  channel = ferry_channel_new_from_description (description, role, error);
  if (channel == NULL || ferry_channel_open (channel, NULL, error))
    return channel;
  g_object_unref (channel);
  return NULL;
}

/* Descriptors that are none of ours are refused: memory that can shrink would be a trap. */
START_TEST (test_bad_descriptors)
{
  int plain = memfd_create ("plain", MFD_CLOEXEC | MFD_ALLOW_SEALING);
  int sealed = memfd_create ("sealed", MFD_CLOEXEC | MFD_ALLOW_SEALING);
  int null = open ("/dev/null", O_RDWR | O_CLOEXEC);
  g_autoptr (GError) error = NULL;
  const struct
  {
    int control_fd;
    int data_fd;
    FerryError code;
  } cases[] = {
    { plain, plain, FERRY_ERROR_CORRUPT },         { sealed, sealed, FERRY_ERROR_CORRUPT },
    { null, null, FERRY_ERROR_CORRUPT },           { 987, 988, FERRY_ERROR_INVALID_ARGUMENT },
    { sealed, 988, FERRY_ERROR_INVALID_ARGUMENT },
  };

  ck_assert_int_eq (ftruncate (plain, 1 << 20), 0);
  ck_assert_int_eq (ftruncate (sealed, 1 << 20), 0);
  ck_assert_int_eq (fcntl (sealed, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW), 0);
  for (guint i = 0; i < G_N_ELEMENTS (cases); i++)
    {
      guint before = channel_test_count_fds ();

      ck_assert_ptr_null (open_given (cases[i].control_fd, cases[i].data_fd, FERRY_ROLE_RECEIVER, &error));
      ck_assert_msg (g_error_matches (error, FERRY_ERROR, (int) cases[i].code), "case %u: %d: %s", i, error->code,
                     error->message);
      g_clear_error (&error);
      ck_assert_uint_eq (channel_test_count_fds (), before);
    }
  close (plain);
  close (sealed);
  close (null);
}
END_TEST

/* Its memory can neither shrink nor grow, and its seals can't be changed. */
START_TEST (test_seals)
{
  FerryChannel *channel;
  int fds[2];

  channel_test_begin (&test, "memfd", NULL, CHANNEL_TEST_BY_INHERITED_FDS);
  channel = channel_test_open (&test, FERRY_ROLE_SENDER, NULL);
  fds[0] = test.control_fd;
  fds[1] = test.data_fd;
  for (guint i = 0; i < 2; i++)
    {
      int seals = fcntl (fds[i], F_GET_SEALS);

      ck_assert_int_eq (seals & (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL), F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL);
      ck_assert_int_ne (ftruncate (fds[i], 0), 0);
    }
  channel_test_close (channel);
  channel_test_end (&test);
}
END_TEST

static int program_receives (int argc, char **argv);

/* Another program, with the descriptors that it inherited through exec. */
START_TEST (test_inherited_through_exec)
{
  FerryChannel *sender;
  g_autofree char *control = NULL;
  g_autofree char *data = NULL;
  g_autofree char *program = g_file_read_link ("/proc/self/exe", NULL);
  pid_t pid;

  channel_test_begin (&test, "memfd", NULL, CHANNEL_TEST_BY_INHERITED_FDS);
  sender = channel_test_open (&test, FERRY_ROLE_SENDER, NULL);
  control = g_strdup_printf ("%d", test.control_fd);
  data = g_strdup_printf ("%d", test.data_fd);
  ck_assert_int_eq (fcntl (test.control_fd, F_SETFD, 0), 0);
  ck_assert_int_eq (fcntl (test.data_fd, F_SETFD, 0), 0);
  pid = fork ();
  ck_assert_int_ge (pid, 0);
  if (pid == 0)
    {
      execl (program, "test", "receive", control, data, NULL);
      _exit (99);
    }
  for (guint i = 0; i < 10; i++)
    channel_test_send (sender, i, i * 1000);
  ck_assert (ferry_channel_end_of_stream (sender, NULL));
  channel_test_wait_child (pid);
  channel_test_assert_statistic (sender, messages_received, 10);
  channel_test_verify (sender);
  channel_test_close (sender);
  channel_test_end (&test);
}
END_TEST

static int
program_receives (int argc, char **argv)
{
  g_autoptr (GError) error = NULL;
  FerryChannel *receiver = open_given (atoi (argv[2]), atoi (argv[3]), FERRY_ROLE_RECEIVER, &error);

  if (receiver == NULL)
    {
      g_printerr ("%s\n", error->message);
      return 1;
    }
  for (guint i = 0;; i++)
    {
      g_autoptr (FerryBuffer) buffer = ferry_channel_receive (receiver, 10 * G_USEC_PER_SEC, NULL, &error);

      if (buffer == NULL)
        {
          g_object_unref (receiver);
          return i == 10 && g_error_matches (error, FERRY_ERROR, FERRY_ERROR_END_OF_STREAM) ? 0 : 2;
        }
      if (ferry_buffer_get_size (buffer) != i * 1000
          || !channel_test_is_filled (ferry_buffer_get_data (buffer, NULL), i * 1000, i))
        return 3;
    }
}

/* ---- a lock that somebody keeps ---- */

static void
child_dies_open (ChannelTest *self, gpointer data)
{
  FerryChannel *sender = channel_test_open (self, FERRY_ROLE_SENDER, NULL);

  channel_test_send (sender, 0, 100000);
  channel_test_gate_open (data);
  g_usleep (20 * G_USEC_PER_SEC);
}

#define CANCEL_AFTER (100 * 1000) /* microseconds */

static gpointer
cancel_later (gpointer cancellable)
{
  g_usleep (CANCEL_AFTER);
  g_cancellable_cancel (cancellable);
  return NULL;
}

static void
assert_open_is_cancelled (ChannelTest *self, FerryRole role, const char *properties)
{
  g_autoptr (GCancellable) cancellable = g_cancellable_new ();
  g_autoptr (GError) error = NULL;
  FerryChannel *channel = channel_test_make (self, role, properties);
  GThread *thread = g_thread_new ("cancel", cancel_later, cancellable);
  gint64 began = g_get_monotonic_time ();

  ck_assert (!ferry_channel_open (channel, cancellable, &error));
  ferry_assert_error (error, G_IO_ERROR, G_IO_ERROR_CANCELLED);
  ck_assert_int_ge (g_get_monotonic_time () - began, CANCEL_AFTER / 2);
  ck_assert_int_lt (g_get_monotonic_time () - began, 2 * G_USEC_PER_SEC);
  g_thread_join (thread);
  ferry_assert_last_unref (channel);
}

/* As when its holder is stopped, or sits in a debugger. */
START_TEST (test_open_cancelled_at_the_lock)
{
  g_autofree char *control = NULL;
  FerryChannel *sender;
  FerryChannel *receiver;
  int control_fd;
  int fd;

  channel_test_begin (&test, transports[_i], NULL, CHANNEL_TEST_BY_NAME);
  sender = channel_test_open (&test, FERRY_ROLE_SENDER, NULL);
  control_fd
      = ferry_segment_transport_get_control_fd (FERRY_SEGMENT_TRANSPORT (ferry_channel_get_transport_object (sender)));
  control = g_strdup_printf ("/proc/self/fd/%d", control_fd);
  fd = open (control, O_RDWR | O_CLOEXEC);
  ck_assert_int_ge (fd, 0);
  ck_assert_int_eq (flock (fd, LOCK_EX), 0);
  assert_open_is_cancelled (&test, FERRY_ROLE_RECEIVER, NULL);
  assert_open_is_cancelled (&test, FERRY_ROLE_SENDER, "open-mode=create");
  channel_test_send (sender, 0, 10);
  close (fd);
  receiver = channel_test_open (&test, FERRY_ROLE_RECEIVER, NULL);
  channel_test_expect (receiver, 0, 10);
  channel_test_verify (sender);
  channel_test_close (sender);
  channel_test_close (receiver);
  channel_test_end (&test);
}
END_TEST

/* The only one that could hand the memory over is stopped. */
START_TEST (test_open_cancelled_while_asking)
{
  ChannelTestGate gate;
  FerryChannel *receiver;
  pid_t pid;
  int status;

  channel_test_begin (&test, "memfd", NULL, CHANNEL_TEST_BY_NAME);
  channel_test_gate_init (&gate);
  pid = channel_test_fork (child_dies_open, &test, &gate);
  channel_test_gate_wait (&gate);
  ck_assert_int_eq (kill (pid, SIGSTOP), 0);
  /* kill() returns before each thread has stopped */
  ck_assert_int_eq (waitpid (pid, &status, WUNTRACED), pid);
  ck_assert (WIFSTOPPED (status));
  assert_open_is_cancelled (&test, FERRY_ROLE_RECEIVER, NULL);
  ck_assert_int_eq (kill (pid, SIGCONT), 0);
  receiver = channel_test_open (&test, FERRY_ROLE_RECEIVER, NULL);
  channel_test_expect (receiver, 0, 100000);
  channel_test_kill_child (pid);
  channel_test_close (receiver);
  channel_test_gate_clear (&gate);
  channel_test_end (&test);
}
END_TEST

/* ---- no run-time directory ---- */

#define FALLBACK_ROUNDS (200)

static void
open_and_close (const char *description)
{
  for (guint i = 0; i < FALLBACK_ROUNDS; i++)
    {
      g_autoptr (GError) error = NULL;
      FerryChannel *sender = ferry_channel_new_from_description (description, FERRY_ROLE_SENDER, &error);
      FerryChannel *receiver = ferry_channel_new_from_description (description, FERRY_ROLE_RECEIVER, &error);

      ck_assert_msg (ferry_channel_open (sender, NULL, &error), "round %u: %s", i, error != NULL ? error->message : "");
      ck_assert_msg (ferry_channel_open (receiver, NULL, &error), "round %u: %s", i,
                     error != NULL ? error->message : "");
      channel_test_send (sender, i, 10);
      channel_test_expect (receiver, i, 10);
      channel_test_close (sender);
      channel_test_close (receiver);
    }
}

/* Then they meet in memory, in a directory that goes with the last channel, while others make it anew. */
START_TEST (test_fallback_directory)
{
  g_autofree char *directory = g_strdup_printf ("/dev/shm/ferry-1.0-%u", (guint) geteuid ());
  pid_t pids[3];

  g_unsetenv ("XDG_RUNTIME_DIR");
  for (guint i = 0; i < G_N_ELEMENTS (pids); i++)
    {
      pids[i] = fork ();
      ck_assert_int_ge (pids[i], 0);
      if (pids[i] == 0)
        {
          g_autofree char *description = g_strdup_printf ("memfd name=fallback-%d", (int) getpid ());

          open_and_close (description);
          g_clear_pointer (&description, g_free);
          g_clear_pointer (&directory, g_free);
          _exit (0);
        }
    }
  for (guint i = 0; i < G_N_ELEMENTS (pids); i++)
    channel_test_wait_child (pids[i]);
  /* Unless somebody else on this machine has channels there. */
  if (g_file_test (directory, G_FILE_TEST_EXISTS))
    {
      g_autoptr (GDir) dir = g_dir_open (directory, 0, NULL);
      const char *name;

      while (dir != NULL && (name = g_dir_read_name (dir)) != NULL)
        ck_assert_msg (!g_str_has_prefix (name, "fallback-"), "%s/%s was left", directory, name);
    }
}
END_TEST

/* ---- another network namespace ---- */

/* The timer of the descriptor, see section 6 of docs/memory-model.md, and what a busy machine adds. Microseconds. */
#define POLL_AT_LATEST ((500 + 400) * 1000)
/* Sooner than the longest sleep between two looks. */
#define WOKEN_AT_LATEST (150 * 1000)
#define ROUNDS (5)
#define NO_NAMESPACE (77)

typedef struct
{
  ChannelTestGate gates[ROUNDS + 1];
} Elsewhere;

static void
child_sends_from_elsewhere (ChannelTest *self, gpointer data)
{
  Elsewhere *elsewhere = data;
  FerryChannel *sender;

  if (unshare (CLONE_NEWNET) != 0)
    _exit (NO_NAMESPACE);
  sender = channel_test_open (self, FERRY_ROLE_SENDER, NULL);
  for (guint i = 0; i <= ROUNDS; i++)
    {
      channel_test_gate_wait (&elsewhere->gates[i]);
      g_usleep (10 * 1000);
      channel_test_send (sender, i, 10);
    }
  ck_assert (ferry_channel_flush (sender, 10 * G_USEC_PER_SEC, NULL, NULL));
  channel_test_close (sender);
}

/* As in a container: blocking calls are woken as ever, and a poll is late but never stuck. */
START_TEST (test_other_network_namespace)
{
  Elsewhere elsewhere;
  FerryChannel *receiver;
  struct pollfd poll_fd = { .events = POLLIN };
  gint64 soonest = G_MAXINT64;
  gint64 began;
  pid_t pid;
  int status;

  channel_test_begin (&test, transports[_i], NULL, CHANNEL_TEST_BY_NAME);
  for (guint i = 0; i <= ROUNDS; i++)
    channel_test_gate_init (&elsewhere.gates[i]);
  receiver = channel_test_open (&test, FERRY_ROLE_RECEIVER, "wait-strategy=sleep");
  pid = channel_test_fork (child_sends_from_elsewhere, &test, &elsewhere);
  for (guint i = 0; i < ROUNDS; i++)
    {
      channel_test_gate_open (&elsewhere.gates[i]);
      began = g_get_monotonic_time ();
      if (!ferry_channel_wait (receiver, G_IO_IN, 2 * G_USEC_PER_SEC, NULL, NULL))
        {
          ck_assert_int_eq (waitpid (pid, &status, 0), pid);
          ck_assert (WIFEXITED (status) && WEXITSTATUS (status) == NO_NAMESPACE);
          g_printerr ("skipped: may not make a network namespace\n");
          goto out;
        }
      soonest = MIN (soonest, g_get_monotonic_time () - began);
      channel_test_expect (receiver, i, 10);
    }
  ck_assert_int_lt (soonest, WOKEN_AT_LATEST);

  poll_fd.fd = ferry_channel_get_fd (receiver, NULL);
  ck_assert_int_ge (poll_fd.fd, 0);
  ck_assert_uint_eq (ferry_channel_check (receiver, G_IO_IN), 0);
  channel_test_gate_open (&elsewhere.gates[ROUNDS]);
  began = g_get_monotonic_time ();
  ck_assert_int_eq (poll (&poll_fd, 1, 5000), 1);
  ck_assert_int_lt (g_get_monotonic_time () - began, POLL_AT_LATEST);
  ck_assert_uint_eq (ferry_channel_check (receiver, G_IO_IN), G_IO_IN);
  channel_test_expect (receiver, ROUNDS, 10);
  channel_test_wait_child (pid);

out:
  for (guint i = 0; i <= ROUNDS; i++)
    channel_test_gate_clear (&elsewhere.gates[i]);
  channel_test_close (receiver);
  channel_test_end (&test);
}
END_TEST

/* ---- looking without joining ---- */

START_TEST (test_probe_and_sweep)
{
  FerryChannel *sender;
  FerryTransport *transport;
  g_autoptr (GError) error = NULL;
  g_auto (GStrv) names = NULL;
  gboolean alive = FALSE;

  channel_test_begin (&test, transports[_i], NULL, CHANNEL_TEST_BY_NAME);
  transport = ferry_registry_create_transport (ferry_registry_get_default (), transports[_i], &error);
  sender = channel_test_open (&test, FERRY_ROLE_SENDER, NULL);
  names = ferry_transport_list_channels (transport, &error);
  ferry_assert_no_error (error);
  ck_assert (g_strv_contains ((const char *const *) names, test.name));
  ck_assert (ferry_transport_probe_channel (transport, test.name, &alive, &error));
  ck_assert (alive);
  /* What is alive is not swept. */
  ck_assert (!ferry_transport_sweep_channel (transport, test.name, &error));
  channel_test_assert_error (&test, error, FERRY_ERROR_EXISTS);
  g_clear_error (&error);
  channel_test_send (sender, 1, 10);
  channel_test_verify (sender);
  channel_test_close (sender);
  ck_assert (ferry_transport_probe_channel (transport, test.name, &alive, &error));
  ferry_assert_no_error (error);
  ck_assert (!alive);
  ferry_assert_last_unref (transport);
  channel_test_end (&test);
}
END_TEST

START_TEST (test_sweep_what_died)
{
  FerryTransport *transport;
  ChannelTestGate gate;
  g_autoptr (GError) error = NULL;
  gboolean alive = TRUE;
  pid_t pid;

  channel_test_begin (&test, transports[_i], NULL, CHANNEL_TEST_BY_NAME);
  channel_test_gate_init (&gate);
  transport = ferry_registry_create_transport (ferry_registry_get_default (), transports[_i], &error);
  pid = channel_test_fork (child_dies_open, &test, &gate);
  channel_test_gate_wait (&gate);
  channel_test_kill_child (pid);
  ck_assert (ferry_transport_probe_channel (transport, test.name, &alive, &error));
  ferry_assert_no_error (error);
  ck_assert (!alive);
  ck_assert (ferry_transport_sweep_channel (transport, test.name, &error));
  ferry_assert_no_error (error);
  channel_test_assert_gone (&test);
  /* once more finds nothing to do */
  ck_assert (ferry_transport_sweep_channel (transport, test.name, &error));
  ferry_assert_last_unref (transport);
  channel_test_gate_clear (&gate);
  channel_test_end (&test);
}
END_TEST

/* ---- messages that are private in part ---- */

/* Over 70 pages of 4 KiB, the last one in part. Bytes. */
#define PRIVATE_SIZE (300000)
#define PRIVATE_OFFSET (5000)
#define PRIVATE_LENGTH (100)
#define MARK (0xee)

static FerryBuffer *
take_private (FerryChannel *receiver)
{
  FerryBuffer *view = channel_test_take (receiver);

  /* three pages, one of them written */
  ck_assert (ferry_buffer_privatize (view, PRIVATE_OFFSET, 2 * PAGE));
  memset (ferry_buffer_get_writable_data (view, NULL) + PRIVATE_OFFSET, MARK, PRIVATE_LENGTH);
  return view;
}

/* Message @number, with our mark in it. */
static gboolean
is_marked (FerryBuffer *view, guint64 number)
{
  g_autofree guint8 *expected = g_malloc (PRIVATE_SIZE);
  gsize size;
  const guint8 *data = ferry_buffer_get_data (view, &size);

  channel_test_fill (expected, PRIVATE_SIZE, number);
  memset (expected + PRIVATE_OFFSET, MARK, PRIVATE_LENGTH);
  return size == PRIVATE_SIZE && memcmp (data, expected, PRIVATE_SIZE) == 0;
}

/* What the sender sees where a message of that size will go; it becomes message @number and is sent. */
static const guint8 *
send_by_loan (FerryChannel *sender, guint64 seen, guint64 number)
{
  g_autoptr (GError) error = NULL;
  g_autoptr (FerryBuffer) loan = ferry_channel_loan (sender, PRIVATE_SIZE, 10 * G_USEC_PER_SEC, NULL, &error);
  guint8 *data;

  ferry_assert_no_error (error);
  data = ferry_buffer_get_writable_data (loan, NULL);
  if (seen > 0)
    ck_assert_msg (channel_test_is_filled (data, PRIVATE_SIZE, seen), "the sender sees what the receiver wrote");
  channel_test_fill (data, PRIVATE_SIZE, number);
  ck_assert (ferry_channel_send_buffer (sender, loan, 10 * G_USEC_PER_SEC, NULL, &error));
  ferry_assert_no_error (error);
  return data;
}

static guint
count_mappings (void)
{
  g_autofree char *maps = NULL;
  guint n = 0;

  ck_assert (g_file_get_contents ("/proc/self/maps", &maps, NULL, NULL));
  for (const char *p = maps; *p != '\0'; p++)
    n += *p == '\n';
  return n;
}

/* Nobody else sees what is written, not even our next message in the same block; that one is seen whole. */
START_TEST (test_private_pages)
{
  static const struct
  {
    gsize offset;
    gsize size;
  } parts[] = {
    { PRIVATE_OFFSET, PRIVATE_LENGTH },
    { 0, 1 },
    { 0, PRIVATE_SIZE },
    { PRIVATE_SIZE - 1, 1 },
    { 4096, 4096 },
    { 4095, 2 },
  };
  FerryChannel *sender;
  FerryChannel *receiver;
  const guint8 *block;
  const guint8 *seen;

  channel_test_begin (&test, transports[_i], NULL, CHANNEL_TEST_BY_NAME);
  sender = channel_test_open (&test, FERRY_ROLE_SENDER, NULL);
  receiver = channel_test_open (&test, FERRY_ROLE_RECEIVER, NULL);
  block = send_by_loan (sender, 0, 1);
  for (guint i = 0; i < G_N_ELEMENTS (parts); i++)
    {
      FerryBuffer *view = channel_test_take (receiver);
      guint8 *data = ferry_buffer_get_writable_data (view, NULL);

      seen = data;
      ck_assert (channel_test_is_filled (data, PRIVATE_SIZE, i + 1));
      ck_assert (ferry_buffer_privatize (view, parts[i].offset, parts[i].size));
      ck_assert_msg (channel_test_is_filled (data, PRIVATE_SIZE, i + 1), "making it private changed it");
      memset (data + parts[i].offset, MARK, parts[i].size);
      for (gsize k = 0; k < parts[i].size; k++)
        ck_assert_uint_eq (data[parts[i].offset + k], MARK);
      ferry_buffer_unref (view);
      ck_assert_ptr_eq (send_by_loan (sender, i + 1, i + 2), block);
    }
  {
    g_autoptr (FerryBuffer) view = channel_test_take (receiver);

    ck_assert_ptr_eq (ferry_buffer_get_data (view, NULL), seen);
    ck_assert (channel_test_is_filled (seen, PRIVATE_SIZE, G_N_ELEMENTS (parts) + 1));
    /* What is not private is still the other's to see. */
    memset (ferry_buffer_get_writable_data (view, NULL), MARK, PRIVATE_SIZE);
    for (gsize k = 0; k < PRIVATE_SIZE; k++)
      ck_assert_uint_eq (block[k], MARK);
  }
  channel_test_verify (sender);
  channel_test_close (sender);
  channel_test_close (receiver);
  channel_test_end (&test);
}
END_TEST

START_TEST (test_private_pages_refused)
{
  FerryChannel *sender;
  FerryChannel *receiver;
  g_autoptr (GError) error = NULL;
  FerryBuffer *buffer;

  channel_test_begin (&test, transports[_i], NULL, CHANNEL_TEST_BY_NAME);
  sender = channel_test_open (&test, FERRY_ROLE_SENDER, NULL);
  receiver = channel_test_open (&test, FERRY_ROLE_RECEIVER, NULL);

  channel_test_send (sender, 1, 100); /* in the slot */
  buffer = channel_test_take (receiver);
  ck_assert (!ferry_buffer_privatize (buffer, 0, 1));
  ferry_buffer_unref (buffer);

  channel_test_send (sender, 2, PRIVATE_SIZE);
  buffer = channel_test_take (receiver);
  ck_assert (!ferry_buffer_privatize (buffer, 0, 0));
  ck_assert (!ferry_buffer_privatize (buffer, 0, PRIVATE_SIZE + 1));
  ck_assert (!ferry_buffer_privatize (buffer, PRIVATE_SIZE, 1));
  ck_assert (!ferry_buffer_privatize (buffer, PRIVATE_SIZE - 1, 2));
  ck_assert (!ferry_buffer_privatize (buffer, 1, G_MAXSIZE));
  ck_assert (!ferry_buffer_privatize (buffer, G_MAXSIZE, 1));
  ck_assert (ferry_buffer_privatize (buffer, PRIVATE_SIZE - 1, 1));
  ck_assert (!ferry_buffer_privatize (buffer, PRIVATE_SIZE - 1, 1));
  ck_assert (!ferry_buffer_privatize (buffer, 0, 1));
  ck_assert (channel_test_is_filled (ferry_buffer_get_data (buffer, NULL), PRIVATE_SIZE, 2));
  ferry_buffer_unref (buffer);

  buffer = ferry_channel_loan (sender, PRIVATE_SIZE, 10 * G_USEC_PER_SEC, NULL, &error);
  ck_assert (!ferry_buffer_privatize (buffer, 0, 1));
  ferry_buffer_unref (buffer);
  buffer = ferry_buffer_new (PRIVATE_SIZE);
  ck_assert (!ferry_buffer_privatize (buffer, 0, 1));
  ferry_buffer_unref (buffer);

  /* Received, then closed: its memory is about to be given back. */
  channel_test_send (sender, 3, PRIVATE_SIZE);
  buffer = channel_test_take (receiver);
  channel_test_close (receiver);
  ck_assert (!ferry_buffer_privatize (buffer, 0, 1));
  ferry_buffer_unref (buffer);
  channel_test_close (sender);

  sender = channel_test_open (&test, FERRY_ROLE_SENDER, "mode=broadcast");
  receiver = channel_test_open (&test, FERRY_ROLE_RECEIVER, NULL);
  channel_test_send (sender, 4, PRIVATE_SIZE);
  buffer = channel_test_take (receiver);
  ck_assert (!ferry_buffer_privatize (buffer, 0, 1));
  ferry_buffer_unref (buffer);
  channel_test_close (sender);
  channel_test_close (receiver);
  channel_test_end (&test);
}
END_TEST

/* A transport that maps by functions of its own. */
START_TEST (test_private_pages_subclass)
{
  FerryChannel *sender = open_own (FERRY_ROLE_SENDER, FERRY_MODE_WORK_QUEUE, 0);
  FerryChannel *receiver = open_own (FERRY_ROLE_RECEIVER, FERRY_MODE_WORK_QUEUE, 0);
  FerryBuffer *buffer;

  channel_test_send (sender, 1, PRIVATE_SIZE);
  buffer = channel_test_take (receiver);
  ck_assert (!ferry_buffer_privatize (buffer, 0, 1));
  ferry_buffer_unref (buffer);
  channel_test_close (sender);
  channel_test_close (receiver);
}
END_TEST

/* Who collects messages does not stop the sender: there is a bound. */
START_TEST (test_private_pages_bounded)
{
  const guint max = 8 * MIB / 4 / PRIVATE_SIZE;
  FerryChannel *sender;
  FerryChannel *receiver;
  FerryBuffer *held[20];
  FerryBuffer *view;
  guint n;

  channel_test_begin (&test, transports[_i], NULL, CHANNEL_TEST_BY_NAME);
  sender = channel_test_open (&test, FERRY_ROLE_SENDER, "max-bytes=8388608");
  receiver = channel_test_open (&test, FERRY_ROLE_RECEIVER, NULL);
  for (n = 0; n < G_N_ELEMENTS (held); n++)
    {
      channel_test_send (sender, n + 1, PRIVATE_SIZE);
      held[n] = channel_test_take (receiver);
      if (!ferry_buffer_privatize (held[n], PRIVATE_OFFSET, PRIVATE_LENGTH))
        break;
      memset (ferry_buffer_get_writable_data (held[n], NULL) + PRIVATE_OFFSET, MARK, PRIVATE_LENGTH);
    }
  ck_assert_uint_eq (n, max);
  ferry_buffer_unref (held[n]);
  for (guint i = 0; i < 100; i++)
    {
      channel_test_send (sender, i, PRIVATE_SIZE);
      channel_test_expect (receiver, i, PRIVATE_SIZE);
    }
  for (guint i = 0; i < n; i++)
    ck_assert (is_marked (held[i], i + 1));
  ferry_buffer_unref (held[2]);
  channel_test_send (sender, 1, PRIVATE_SIZE);
  held[2] = take_private (receiver);
  channel_test_send (sender, 1, PRIVATE_SIZE);
  view = channel_test_take (receiver);
  ck_assert (!ferry_buffer_privatize (view, 0, 1));
  ferry_buffer_unref (view);
  for (guint i = 0; i < n; i++)
    ferry_buffer_unref (held[i]);
  channel_test_verify (sender);
  channel_test_close (sender);
  channel_test_close (receiver);
  channel_test_end (&test);
}
END_TEST

/* A tmpfs that is smaller than the channel may become, as in containers. */
START_TEST (test_private_pages_small_tmpfs)
{
  g_autofree char *folder = NULL;
  g_autofree char *directory = NULL;
  FerryChannel *sender;
  FerryChannel *receiver;
  FerryBuffer *held[100];
  guint n = 0;

  if (geteuid () != 0)
    {
      g_printerr ("skipped: only root can mount a small tmpfs\n");
      return;
    }
  folder = ferry_test_make_folder ();
  if (mount ("ferry-test", folder, "tmpfs", MS_NOSUID | MS_NODEV, "size=4m,mode=0700") != 0)
    {
      g_printerr ("skipped: can't mount a tmpfs here: %s\n", g_strerror (errno));
      ferry_test_remove_folder (folder);
      return;
    }
  channel_test_begin (&test, "posix-shm", NULL, CHANNEL_TEST_BY_NAME);
  directory = g_strdup_printf ("directory=%s", folder);
  sender = channel_test_open (&test, FERRY_ROLE_SENDER, directory);
  receiver = channel_test_open (&test, FERRY_ROLE_RECEIVER, directory);
  for (guint i = 0; i < G_N_ELEMENTS (held); i++)
    {
      FerryBuffer *view;

      channel_test_send (sender, i, PRIVATE_SIZE);
      view = channel_test_take (receiver);
      if (ferry_buffer_privatize (view, PRIVATE_OFFSET, PRIVATE_LENGTH))
        held[n++] = view;
      else
        ferry_buffer_unref (view);
    }
  ck_assert_uint_eq (n, 4 * MIB / 4 / PRIVATE_SIZE);
  for (guint i = 0; i < n; i++)
    ferry_buffer_unref (held[i]);
  channel_test_close (sender);
  channel_test_close (receiver);
  ck_assert_int_eq (umount (folder), 0);
  ferry_test_remove_folder (folder);
  channel_test_end (&test);
}
END_TEST

static void
child_does_nothing (ChannelTest *self, gpointer data)
{
}

/* By how many mappings the heap may grow meanwhile; of which valgrind has its own. */
#ifdef __SANITIZE_ADDRESS__
#define HEAP_MAPPINGS 40
#else
#define HEAP_MAPPINGS (ferry_test_is_valgrind () ? 400 : 4)
#endif

/* A process has 65530 mappings. */
START_TEST (test_private_pages_leave_no_mappings)
{
  const guint n_cycles = ferry_test_is_valgrind () ? 50 : 1000;
  FerryChannel *sender;
  FerryChannel *receiver;
  guint before;

  channel_test_begin (&test, transports[_i], NULL, CHANNEL_TEST_BY_NAME);
  sender = channel_test_open (&test, FERRY_ROLE_SENDER, NULL);
  receiver = channel_test_open (&test, FERRY_ROLE_RECEIVER, NULL);
  channel_test_send (sender, 0, PRIVATE_SIZE);
  channel_test_expect (receiver, 0, PRIVATE_SIZE);
  before = count_mappings ();
  for (guint i = 0; i < n_cycles; i++)
    {
      FerryBuffer *views[2];

      for (guint k = 0; k < 2; k++)
        channel_test_send (sender, i, PRIVATE_SIZE);
      for (guint k = 0; k < 2; k++)
        {
          views[k] = channel_test_take (receiver);
          ck_assert (ferry_buffer_privatize (views[k], (i * 997) % PRIVATE_SIZE, 1));
          ferry_buffer_get_writable_data (views[k], NULL)[(i * 997) % PRIVATE_SIZE] = MARK;
        }
      if (i % 100 == 0)
        channel_test_wait_child (channel_test_fork (child_does_nothing, &test, NULL));
      for (guint k = 0; k < 2; k++)
        ferry_buffer_unref (views[(i + k) % 2]);
    }
  ck_assert_uint_le (count_mappings (), before + HEAP_MAPPINGS);
  channel_test_close (sender);
  channel_test_close (receiver);
  channel_test_end (&test);
}
END_TEST

typedef struct
{
  FerryChannel *receiver;
  FerryBuffer *view;
  ChannelTestGate overwritten;
  ChannelTestGate taken;
} PrivateFork;

static void
child_keeps_private (ChannelTest *self, gpointer data)
{
  PrivateFork *shared = data;
  FerryBuffer *own;

  channel_test_gate_wait (&shared->overwritten);
  ck_assert_msg (is_marked (shared->view, 1), "the parent's block shows through");
  /* The next message comes in that very block. */
  own = take_private (shared->receiver);
  ck_assert (is_marked (own, 3));
  ck_assert (is_marked (shared->view, 1));
  ferry_buffer_get_writable_data (shared->view, NULL)[0] ^= 1;
  ferry_buffer_unref (shared->view);
  ck_assert_msg (is_marked (own, 3), "what the child inherited was the message's memory");
  channel_test_gate_open (&shared->taken);
  ferry_buffer_unref (own);
  channel_test_expect (shared->receiver, 4, PRIVATE_SIZE);
  ck_assert (ferry_channel_close (shared->receiver, NULL));
}

START_TEST (test_private_pages_and_fork)
{
  PrivateFork shared;
  FerryChannel *sender;
  const guint8 *block;
  pid_t pid;

  channel_test_begin (&test, transports[_i], NULL, CHANNEL_TEST_BY_NAME);
  channel_test_gate_init (&shared.overwritten);
  channel_test_gate_init (&shared.taken);
  sender = channel_test_open (&test, FERRY_ROLE_SENDER, NULL);
  shared.receiver = channel_test_open (&test, FERRY_ROLE_RECEIVER, NULL);
  block = send_by_loan (sender, 0, 1);
  shared.view = take_private (shared.receiver);
  pid = channel_test_fork (child_keeps_private, &test, &shared);
  ck_assert (is_marked (shared.view, 1));
  ferry_buffer_unref (shared.view);
  ck_assert_ptr_eq (send_by_loan (sender, 1, 2), block);
  channel_test_expect (shared.receiver, 2, PRIVATE_SIZE);
  ck_assert_ptr_eq (send_by_loan (sender, 2, 3), block);
  channel_test_gate_open (&shared.overwritten);
  channel_test_gate_wait (&shared.taken);
  send_by_loan (sender, 0, 4);
  channel_test_wait_child (pid);
  /* Ours, which was copied for the fork, is shared again. */
  send_by_loan (sender, 0, 5);
  channel_test_expect (shared.receiver, 5, PRIVATE_SIZE);
  channel_test_assert_statistic (sender, repairs, 0);
  channel_test_verify (sender);
  channel_test_close (sender);
  channel_test_close (shared.receiver);
  channel_test_gate_clear (&shared.overwritten);
  channel_test_gate_clear (&shared.taken);
  channel_test_end (&test);
}
END_TEST

typedef struct
{
  _Atomic guint64 *number; /* in private pages */
  _Atomic gboolean stop;
  guint64 n;
} Counting;

static gpointer
count_thread (gpointer data)
{
  Counting *counting = data;

  while (!atomic_load (&counting->stop))
    {
      atomic_fetch_add (counting->number, 1);
      counting->n++;
    }
  return NULL;
}

/* Other threads go on while a process forks, and write in their private pages. */
START_TEST (test_private_pages_lose_nothing_in_forks)
{
  const guint n_forks = ferry_test_is_valgrind () ? 2 : 60;
  FerryChannel *sender;
  FerryChannel *receiver;

  channel_test_begin (&test, transports[_i], NULL, CHANNEL_TEST_BY_NAME);
  sender = channel_test_open (&test, FERRY_ROLE_SENDER, NULL);
  receiver = channel_test_open (&test, FERRY_ROLE_RECEIVER, NULL);
  for (guint i = 0; i < n_forks; i++)
    {
      Counting counting = { NULL, FALSE, 0 };
      FerryBuffer *view;
      GThread *thread;

      channel_test_send (sender, i, 4 * MIB);
      view = channel_test_take (receiver);
      ck_assert (ferry_buffer_privatize (view, 8192, sizeof *counting.number));
      counting.number = (_Atomic guint64 *) (void *) (ferry_buffer_get_writable_data (view, NULL) + 8192);
      atomic_store (counting.number, 0);
      thread = g_thread_new ("counts", count_thread, &counting);
      while (atomic_load (counting.number) == 0)
        g_thread_yield ();
      channel_test_wait_child (channel_test_fork (child_does_nothing, &test, NULL));
      atomic_store (&counting.stop, TRUE);
      g_thread_join (thread);
      ck_assert_uint_eq (atomic_load (counting.number), counting.n);
      ferry_buffer_unref (view);
    }
  channel_test_close (sender);
  channel_test_close (receiver);
  channel_test_end (&test);
}
END_TEST

/* Closing gives the memory back at once; what is held stays as it is. */
START_TEST (test_private_pages_outlive_close)
{
  FerryChannel *sender;
  FerryChannel *receiver;
  FerryBuffer *views[2];
  const guint8 *block;
  g_autoptr (FerryTransport) transport = NULL;

  channel_test_begin (&test, transports[_i], NULL, CHANNEL_TEST_BY_NAME);
  sender = channel_test_open (&test, FERRY_ROLE_SENDER, NULL);
  receiver = channel_test_open (&test, FERRY_ROLE_RECEIVER, NULL);
  block = send_by_loan (sender, 0, 1);
  views[0] = take_private (receiver);
  channel_test_close (receiver);
  channel_test_assert_statistic (sender, receivers, 0);
  {
    g_autoptr (GPtrArray) participants = ferry_channel_list_participants (sender, NULL);

    ck_assert_uint_eq (participants->len, 1);
  }
  ck_assert_ptr_eq (send_by_loan (sender, 1, 2), block);
  ck_assert_msg (is_marked (views[0], 1), "the closed endpoint's block shows through");

  receiver = channel_test_open (&test, FERRY_ROLE_RECEIVER, NULL);
  views[1] = take_private (receiver);
  channel_test_close (sender);
  channel_test_close (receiver);
  channel_test_assert_gone (&test); /* although something is held */
  ck_assert (is_marked (views[0], 1));
  ck_assert (is_marked (views[1], 2));
  /* A fork child has them as any other memory. */
  {
    pid_t pid = fork ();

    if (pid == 0)
      {
        gboolean ok = is_marked (views[0], 1) && is_marked (views[1], 2);

        ferry_buffer_unref (views[1]);
        execl (ok && is_marked (views[0], 1) ? "/bin/true" : "/bin/false", "child", NULL);
        _exit (2);
      }
    ferry_buffer_unref (views[0]);
    channel_test_wait_child (pid);
  }
  ck_assert (is_marked (views[1], 2));
  ferry_buffer_unref (views[1]);
  channel_test_end (&test);
}
END_TEST

static void
child_dies_with_private (ChannelTest *self, gpointer data)
{
  ChannelTestGate *gate = data;
  FerryChannel *receiver = channel_test_open (&test, FERRY_ROLE_RECEIVER, NULL);

  take_private (receiver);
  channel_test_gate_open (gate);
  pause ();
}

START_TEST (test_private_pages_and_death)
{
  FerryChannel *sender;
  FerryChannel *receiver;
  ChannelTestGate gate;
  const guint8 *block;
  pid_t pid;

  channel_test_begin (&test, transports[_i], NULL, CHANNEL_TEST_BY_NAME);
  channel_test_gate_init (&gate);
  sender = channel_test_open (&test, FERRY_ROLE_SENDER, NULL);
  block = send_by_loan (sender, 0, 1);
  pid = channel_test_fork (child_dies_with_private, &test, &gate);
  channel_test_gate_wait (&gate);
  channel_test_kill_child (pid);
  receiver = channel_test_open (&test, FERRY_ROLE_RECEIVER, NULL); /* repairs */
  ck_assert_ptr_eq (send_by_loan (sender, 1, 2), block);
  channel_test_expect (receiver, 2, PRIVATE_SIZE);
  channel_test_assert_statistic (sender, repairs, 1);
  channel_test_verify (sender);
  channel_test_close (sender);
  channel_test_close (receiver);
  channel_test_gate_clear (&gate);
  channel_test_end (&test);
}
END_TEST

/* ---- ends that are prepared before they are used ---- */

#define WARM (128 * 1024)
#define LATE_SIZE (100 * 1000) /* a message that fits there, and is no inline one */

static FerryChannel *
open_warm_receiver (const char *properties)
{
  g_autofree char *all = g_strconcat ("warm-bytes=" G_STRINGIFY (131072) " ", properties, NULL);

  channel_test_begin (&test, "memfd", NULL, CHANNEL_TEST_BY_INHERITED_FDS);
  return channel_test_open (&test, FERRY_ROLE_RECEIVER, all);
}

/* Of channels' memory. */
static guint
count_memfd_mappings (void)
{
  g_autofree char *text = NULL;
  guint n = 0;

  ck_assert (g_file_get_contents ("/proc/self/maps", &text, NULL, NULL));
  for (const char *p = strstr (text, "/memfd:"); p != NULL; p = strstr (p + 1, "/memfd:"))
    n++;
  return n;
}

static FerrySegmentTransport *
segment_of (FerryChannel *channel)
{
  return FERRY_SEGMENT_TRANSPORT (ferry_channel_get_transport_object (channel));
}

/* What is open becomes a participant with its first call, and that call has nothing to open and nothing to map. */
START_TEST (test_late)
{
  FerryChannel *receiver = open_warm_receiver (NULL);
  FerryChannel *sender;
  guint fds;
  guint mappings;

  ferry_segment_transport_warm_up (segment_of (receiver));
  sender = channel_test_open (&test, FERRY_ROLE_SENDER, "join-late=true");
  ck_assert (ferry_channel_is_open (sender));
  channel_test_assert_statistic (receiver, senders, 0);
  channel_test_assert_statistic (sender, receivers, 1);
  fds = channel_test_count_fds ();
  mappings = count_memfd_mappings ();
  channel_test_send (sender, 1, LATE_SIZE);
  ck_assert_uint_eq (channel_test_count_fds (), fds);
  ck_assert_uint_gt (mappings, 0);
  ck_assert_uint_eq (count_memfd_mappings (), mappings);
  channel_test_assert_statistic (receiver, senders, 1);
  channel_test_assert_statistic (receiver, bytes_committed, WARM);
  channel_test_expect (receiver, 1, LATE_SIZE);
  channel_test_verify (receiver);
  channel_test_close (sender);
  channel_test_assert_statistic (receiver, senders, 0);
  channel_test_assert_statistic (receiver, repairs, 0);
  channel_test_close (receiver);
  channel_test_end (&test);
}
END_TEST

/* Who never makes a call never was there; closed in time or not. */
START_TEST (test_late_unused)
{
  FerryChannel *receiver = open_warm_receiver (NULL);
  FerryChannel *used = channel_test_open (&test, FERRY_ROLE_SENDER, NULL);
  FerryChannel *unused;
  g_autoptr (GError) error = NULL;

  unused = channel_test_open (&test, FERRY_ROLE_SENDER, "join-late=true");
  channel_test_send (used, 1, 10);
  ck_assert (ferry_channel_end_of_stream (used, &error));
  ferry_assert_no_error (error);
  channel_test_expect (receiver, 1, 10);
  /* one that had joined would be waited for */
  channel_test_expect_error (&test, receiver, 10 * G_USEC_PER_SEC, FERRY_ERROR_END_OF_STREAM);
  channel_test_close (unused);
  channel_test_assert_statistic (receiver, senders, 1);
  channel_test_close (used);
  channel_test_verify (receiver);
  channel_test_close (receiver);
  channel_test_end (&test);
}
END_TEST

typedef struct
{
  FerryChannel *sender;
  FerryChannel *receiver;
  ChannelTestGate used;
} Inherited;

static void
child_uses_nothing (ChannelTest *self, gpointer data)
{
}

static void
child_sends_and_waits (ChannelTest *self, gpointer data)
{
  Inherited *inherited = data;
  guint fds = channel_test_count_fds ();
  guint mappings = count_memfd_mappings ();

  channel_test_send (inherited->sender, 1, LATE_SIZE);
  ck_assert_uint_eq (channel_test_count_fds (), fds);
  ck_assert_uint_eq (count_memfd_mappings (), mappings);
  channel_test_gate_open (&inherited->used);
  g_usleep (60 * G_USEC_PER_SEC);
}

static void
child_receives (ChannelTest *self, gpointer data)
{
  Inherited *inherited = data;
  guint fds = channel_test_count_fds ();
  guint mappings = count_memfd_mappings ();

  channel_test_expect (inherited->receiver, 2, LATE_SIZE);
  ck_assert_uint_eq (channel_test_count_fds (), fds);
  ck_assert_uint_eq (count_memfd_mappings (), mappings);
}

START_TEST (test_late_in_fork_children)
{
  Inherited inherited = { NULL };
  pid_t pid;

  inherited.receiver = open_warm_receiver (NULL);
  inherited.sender = channel_test_open (&test, FERRY_ROLE_SENDER, "join-late=true");
  channel_test_gate_init (&inherited.used);
  channel_test_assert_statistic (inherited.receiver, bytes_committed, 0);

  channel_test_wait_child (channel_test_fork (child_uses_nothing, &test, NULL));
  channel_test_assert_statistic (inherited.receiver, bytes_committed, WARM);
  channel_test_assert_statistic (inherited.receiver, senders, 0);
  channel_test_assert_statistic (inherited.receiver, receivers, 1);
  channel_test_assert_statistic (inherited.receiver, repairs, 0);

  pid = channel_test_fork (child_sends_and_waits, &test, &inherited);
  channel_test_gate_wait (&inherited.used);
  channel_test_assert_statistic (inherited.receiver, senders, 1);
  channel_test_kill_child (pid);
  channel_test_expect (inherited.receiver, 1, LATE_SIZE);
  channel_test_verify (inherited.receiver); /* repairs */
  channel_test_assert_statistic (inherited.receiver, senders, 0);
  channel_test_assert_statistic (inherited.receiver, repairs, 1);

  channel_test_send (inherited.sender, 2, LATE_SIZE);
  channel_test_wait_child (channel_test_fork (child_receives, &test, &inherited));
  channel_test_assert_statistic (inherited.receiver, bytes_committed, WARM);
  channel_test_verify (inherited.receiver); /* the child left without a word */

  channel_test_close (inherited.sender);
  channel_test_close (inherited.receiver);
  channel_test_gate_clear (&inherited.used);
  channel_test_end (&test);
}
END_TEST

/* Each message finds the same block, whatever its size; given back like any other. */
START_TEST (test_warm_memory)
{
  FerryChannel *receiver = open_warm_receiver (NULL);
  FerryChannel *sender = channel_test_open (&test, FERRY_ROLE_SENDER, NULL);

  for (guint round = 0; round < 2; round++)
    {
      ferry_segment_transport_warm_up (segment_of (receiver));
      ferry_segment_transport_warm_up (segment_of (receiver));
      channel_test_assert_statistic (receiver, bytes_committed, WARM);
      /* more in a row would be a stream, for which blocks are made warm */
      for (guint size = 1000; size < WARM; size *= 10)
        {
          channel_test_send (sender, size, size);
          channel_test_expect (receiver, size, size);
        }
      if (round == 0)
        channel_test_assert_statistic (receiver, bytes_committed, WARM);
      /* while it is in use there is other memory */
      channel_test_send (sender, 1, 1000);
      channel_test_send (sender, 2, 1000);
      channel_test_expect (receiver, 1, 1000);
      channel_test_expect (receiver, 2, 1000);
      channel_test_verify (receiver);
      ck_assert_uint_gt (ferry_channel_trim (receiver), 0);
      channel_test_assert_statistic (receiver, bytes_committed, 0);
      channel_test_verify (receiver);
    }
  channel_test_close (sender);
  channel_test_close (receiver);
  channel_test_end (&test);
}
END_TEST

/* The bound in bytes is the messages'. */
START_TEST (test_warm_memory_bounded)
{
  FerryChannel *receiver = open_warm_receiver ("max-bytes=1048576");

  ferry_segment_transport_warm_up (segment_of (receiver));
  channel_test_assert_statistic (receiver, bytes_committed, 16384);
  channel_test_close (receiver);
  channel_test_end (&test);

  receiver = open_warm_receiver ("max-bytes=65536");
  ferry_segment_transport_warm_up (segment_of (receiver));
  channel_test_assert_statistic (receiver, bytes_committed, 0);
  channel_test_close (receiver);
  channel_test_end (&test);
}
END_TEST

/* Ends beyond those that are prepared work as well, and none of them keeps descriptors. */
START_TEST (test_late_many)
{
  FerryChannel *channels[40];
  Inherited inherited = { NULL };
  guint before = channel_test_count_fds ();
  guint n_prepared;

  for (guint i = 0; i < G_N_ELEMENTS (channels); i++)
    {
      g_autoptr (GError) error = NULL;

      channels[i] = ferry_channel_new_from_description ("memfd warm-bytes=4096", FERRY_ROLE_RECEIVER, &error);
      ferry_assert_no_error (error);
      ck_assert (ferry_channel_open (channels[i], NULL, &error));
    }
  channel_test_wait_child (channel_test_fork (child_uses_nothing, &test, &inherited));
  n_prepared = 0;
  for (guint i = 0; i < G_N_ELEMENTS (channels); i++)
    {
      g_autoptr (FerryStatistics) statistics = channel_test_statistics (channels[i]);

      n_prepared += statistics->bytes_committed > 0;
      ck_assert_uint_eq (statistics->receivers, 1);
      channel_test_close (channels[i]);
    }
  ck_assert_uint_gt (n_prepared, 0);
  ck_assert_uint_lt (n_prepared, G_N_ELEMENTS (channels));
  ck_assert_uint_eq (channel_test_count_fds (), before);
}
END_TEST

/* The descriptors of a channel with a name don't keep it alive. */
START_TEST (test_late_withdrawn)
{
  g_autoptr (GError) error = NULL;
  g_autofree char *description = NULL;
  FerryChannel *receiver;
  FerryChannel *late;
  int control_fd;
  int data_fd;

  channel_test_begin (&test, "memfd", NULL, CHANNEL_TEST_BY_NAME);
  receiver = channel_test_open (&test, FERRY_ROLE_RECEIVER, NULL);
  g_object_get (ferry_channel_get_transport_object (receiver), "control-fd", &control_fd, "data-fd", &data_fd, NULL);
  description = g_strdup_printf ("memfd control-fd=%d data-fd=%d join-late=true", control_fd, data_fd);
  late = ferry_channel_new_from_description (description, FERRY_ROLE_SENDER, &error);
  ferry_assert_no_error (error);
  ck_assert (ferry_channel_open (late, NULL, &error));
  channel_test_close (receiver);
  ck_assert (!channel_test_try_send (late, 1, 10, FERRY_NO_WAIT, &error));
  ferry_assert_error (error, FERRY_ERROR, FERRY_ERROR_CLOSED);
  ferry_assert_contains (error->message, "left before");
  channel_test_close (late);
  channel_test_end (&test);
}
END_TEST

static void
add (Suite *suite)
{
  const TTest *const subclass[]
      = { test_subclass, test_subclass_broadcast, test_subclass_refuses, test_transport_object, NULL };
  const TTest *const shm[] = {
    test_other_version, test_garbage, test_truncated, test_scribbled_header, test_no_regular_file, NULL,
  };
  const TTest *const space[] = { test_full_tmpfs, test_tiny_tmpfs, NULL };
  const TTest *const places[] = { test_anonymous_posix_shm,
                                  test_empty_directory,
                                  test_bad_directory,
                                  test_group_leftovers,
                                  test_fallback_directory,
                                  test_open_cancelled_while_asking,
                                  NULL };
  const TTest *const descriptors[] = { test_bad_descriptors, test_seals, test_inherited_through_exec, NULL };
  const TTest *const late[] = {
    test_late,        test_late_unused,         test_late_in_fork_children, test_late_many,
    test_warm_memory, test_warm_memory_bounded, test_late_withdrawn,        NULL,
  };
  const TTest *const users[] = { test_other_user,
                                 test_group,
                                 test_open_cancelled_at_the_lock,
                                 test_other_network_namespace,
                                 test_probe_and_sweep,
                                 test_sweep_what_died,
                                 NULL };
  const TTest *const private_pages[] = { test_private_pages,
                                         test_private_pages_refused,
                                         test_private_pages_bounded,
                                         test_private_pages_leave_no_mappings,
                                         test_private_pages_and_fork,
                                         test_private_pages_lose_nothing_in_forks,
                                         test_private_pages_outlive_close,
                                         test_private_pages_and_death,
                                         NULL };
  const TTest *const private_pages_once[] = { test_private_pages_subclass, test_private_pages_small_tmpfs, NULL };
  TCase *tcase;

  tcase = ferry_test_add_case (suite, "subclass", 20, subclass);
  tcase_add_loop_test (tcase, test_subclass_touches_real_pages_only, 0, 2);
  tcase = ferry_test_add_case (suite, "leftovers", 30, shm);
  tcase_add_checked_fixture (tcase, set_up_shm, tear_down_shm);
  ferry_test_add_case (suite, "space", 20, space);
  ferry_test_add_case (suite, "places", 20, places);
  ferry_test_add_case (suite, "descriptors", 30, descriptors);
  ferry_test_add_case (suite, "late", 30, late);
  tcase = tcase_create ("each");
  tcase_set_timeout (tcase, 30);
  for (guint i = 0; users[i] != NULL; i++)
    tcase_add_loop_test (tcase, users[i], 0, G_N_ELEMENTS (transports));
  suite_add_tcase (suite, tcase);
  tcase = ferry_test_add_case (suite, "private-pages", 30, private_pages_once);
  for (guint i = 0; private_pages[i] != NULL; i++)
    tcase_add_loop_test (tcase, private_pages[i], 0, G_N_ELEMENTS (transports));
}

int
main (int argc, char **argv)
{
  if (argc == 4 && strcmp (argv[1], "receive") == 0)
    return program_receives (argc, argv);
  return ferry_test_run ("segment-transport", add);
}
