/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "channel-test.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

/* How long one process of a test waits for another. Milliseconds. */
#define GATE_TIMEOUT_MS (20 * 1000)

guint
channel_test_count_fds (void)
{
  guint n = 0;
  DIR *dir = opendir ("/proc/self/fd");

  ck_assert_ptr_nonnull (dir);
  while (readdir (dir) != NULL)
    n++;
  closedir (dir);
  return n;
}

static char *
unique_name (void)
{
  static guint counter;

  return g_strdup_printf ("test-%d-%u-%08x", (int) getpid (), counter++, g_random_int ());
}

/* What the process opens only once, such as the plugin cache, is no leak. */
static void
warm_up (ChannelTest *self)
{
  char *name = self->name;
  FerryChannel *channel;

  self->name = unique_name ();
  channel = channel_test_open (self, FERRY_ROLE_SENDER, NULL);
  channel_test_close (channel);
  g_free (self->name);
  self->name = name;
  channel_test_forget (self);
}

/* The next endpoint begins an anonymous channel anew: one ends with its participants. */
void
channel_test_forget (ChannelTest *self)
{
  if (self->control_fd >= 0)
    close (self->control_fd);
  if (self->data_fd >= 0)
    close (self->data_fd);
  self->control_fd = self->data_fd = -1;
}

void
channel_test_begin (ChannelTest *self, const char *transport, const char *properties, ChannelTestMeeting meeting)
{
  self->transport = transport;
  self->properties = properties;
  self->meeting = meeting;
  self->control_fd = self->data_fd = -1;
  self->name = unique_name ();
  /* GLib itself opens some at first use. */
  g_main_context_default ();
  g_type_class_unref (g_type_class_ref (G_TYPE_TASK));
  warm_up (self);
  self->n_fds = channel_test_count_fds ();
}

/* No name of the channel is left, wherever its transport says it keeps names, or we know it does. */
void
channel_test_assert_gone (const ChannelTest *self)
{
  g_autofree char *shm = g_strconcat ("/dev/shm/ferry-", self->name, NULL);
  g_autofree char *folder = g_build_filename (g_get_user_runtime_dir (), "ferry-1.0", NULL);
  g_autoptr (GDir) dir = g_dir_open (folder, 0, NULL);
  const char *entry;
  g_autoptr (FerryChannel) probe = NULL;
  g_auto (GStrv) names = NULL;
  g_autoptr (GError) error = NULL;

  ck_assert_msg (!g_file_test (shm, G_FILE_TEST_EXISTS), "%s is left", shm);
  while (dir != NULL && (entry = g_dir_read_name (dir)) != NULL)
    ck_assert_msg (!g_str_has_prefix (entry, self->name), "%s/%s is left", folder, entry);

  probe = channel_test_make ((ChannelTest *) self, FERRY_ROLE_OBSERVER, NULL);
  names = ferry_transport_list_channels (ferry_channel_get_transport_object (probe), &error);
  if (names != NULL)
    ck_assert_msg (!g_strv_contains ((const char *const *) names, self->name), "channel '%s' is left", self->name);
  else
    ferry_assert_error (error, FERRY_ERROR, FERRY_ERROR_UNSUPPORTED);
}

void
channel_test_end (ChannelTest *self)
{
  guint n_fds;

  channel_test_forget (self);
  channel_test_assert_gone (self);
  /* A thread that serves or cancels may be about to close its own. */
  for (guint i = 0; i < 100 && channel_test_count_fds () > self->n_fds; i++)
    g_usleep (10 * 1000);
  n_fds = channel_test_count_fds ();
  if (n_fds > self->n_fds)
    {
      g_autofree char *command = g_strdup_printf ("ls -l /proc/%d/fd >&2", (int) getpid ());

      if (system (command) != 0)
        g_printerr ("no ls\n");
    }
  ck_assert_msg (n_fds <= self->n_fds, "%u descriptors leaked", n_fds - self->n_fds);
  g_clear_pointer (&self->name, g_free);
}

/* What error messages call the channel. */
const char *
channel_test_label (const ChannelTest *self)
{
  return self->meeting == CHANNEL_TEST_BY_NAME ? self->name : "anonymous";
}

/* Sends two descriptors to ourselves, as to another process: what comes out has other numbers. */
static void
pass_fds (const int fds[2], int passed[2])
{
  int pair[2];
  char byte = 0;
  struct iovec iov = { &byte, 1 };
  union
  {
    struct cmsghdr header;
    char buffer[CMSG_SPACE (2 * sizeof (int))];
  } control = { .buffer = { 0 } };
  struct msghdr message
      = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.buffer, .msg_controllen = sizeof control.buffer };
  struct cmsghdr *header = CMSG_FIRSTHDR (&message);

  ck_assert_int_eq (socketpair (AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
  header->cmsg_level = SOL_SOCKET;
  header->cmsg_type = SCM_RIGHTS;
  header->cmsg_len = CMSG_LEN (2 * sizeof (int));
  memcpy (CMSG_DATA (header), fds, 2 * sizeof (int));
  ck_assert_int_eq (sendmsg (pair[0], &message, 0), 1);
  ck_assert_int_eq (recvmsg (pair[1], &message, MSG_CMSG_CLOEXEC), 1);
  memcpy (passed, CMSG_DATA (CMSG_FIRSTHDR (&message)), 2 * sizeof (int));
  close (pair[0]);
  close (pair[1]);
}

static FerryChannel *
make_with (ChannelTest *self, FerryRole role, const char *properties, const int fds[2])
{
  g_autoptr (GString) description = g_string_new (self->transport);
  g_autoptr (GError) error = NULL;
  FerryChannel *channel;

  if (self->meeting == CHANNEL_TEST_BY_NAME)
    g_string_append_printf (description, " name=%s", self->name);
  else if (fds != NULL)
    g_string_append_printf (description, " control-fd=%d data-fd=%d", fds[0], fds[1]);
  if (self->properties != NULL)
    g_string_append_printf (description, " %s", self->properties);
  if (properties != NULL)
    g_string_append_printf (description, " %s", properties);
  channel = ferry_channel_new_from_description (description->str, role, &error);
  ferry_assert_no_error (error);
  ck_assert_ptr_nonnull (channel);
  return channel;
}

/* An endpoint that is not open yet. */
FerryChannel *
channel_test_make (ChannelTest *self, FerryRole role, const char *properties)
{
  const int fds[2] = { self->control_fd, self->data_fd };

  return make_with (self, role, properties, self->control_fd >= 0 ? fds : NULL);
}

FerryChannel *
channel_test_try_open (ChannelTest *self, FerryRole role, const char *properties, GError **error)
{
  int fds[2] = { self->control_fd, self->data_fd };
  gboolean passed = self->control_fd >= 0 && self->meeting == CHANNEL_TEST_BY_PASSED_FDS;
  g_autoptr (FerryChannel) channel = NULL;
  gboolean opened;

  if (passed)
    pass_fds (fds, fds);
  channel = make_with (self, role, properties, self->control_fd >= 0 ? fds : NULL);
  opened = ferry_channel_open (channel, NULL, error);
  if (passed)
    {
      close (fds[0]);
      close (fds[1]);
    }
  ck_assert_int_eq (opened, ferry_channel_is_open (channel));
  if (!opened)
    {
      ck_assert_msg (error == NULL || *error != NULL, "failed without an error");
      return NULL;
    }
  if (self->meeting != CHANNEL_TEST_BY_NAME && self->control_fd < 0)
    {
      int control_fd;
      int data_fd;

      g_object_get (ferry_channel_get_transport_object (channel), "control-fd", &control_fd, "data-fd", &data_fd, NULL);
      self->control_fd = fcntl (control_fd, F_DUPFD_CLOEXEC, 0);
      self->data_fd = fcntl (data_fd, F_DUPFD_CLOEXEC, 0);
      ck_assert_int_ge (self->control_fd, 0);
      ck_assert_int_ge (self->data_fd, 0);
    }
  return g_steal_pointer (&channel);
}

FerryChannel *
channel_test_open (ChannelTest *self, FerryRole role, const char *properties)
{
  g_autoptr (GError) error = NULL;
  FerryChannel *channel = channel_test_try_open (self, role, properties, &error);

  ferry_assert_no_error (error);
  ck_assert_ptr_nonnull (channel);
  return channel;
}

void
channel_test_close (FerryChannel *channel)
{
  g_autoptr (GError) error = NULL;

  ck_assert (ferry_channel_close (channel, &error));
  ferry_assert_no_error (error);
  ck_assert (!ferry_channel_is_open (channel));
  ferry_assert_last_unref (channel);
}

/* ---- messages ---- */

void
channel_test_fill (guint8 *data, gsize size, guint64 number)
{
  guint64 x = number * G_GUINT64_CONSTANT (0x9e3779b97f4a7c15) + size + 1;

  for (gsize i = 0; i < size; i++)
    {
      if (i % 8 == 0)
        x = x * G_GUINT64_CONSTANT (6364136223846793005) + G_GUINT64_CONSTANT (1442695040888963407);
      data[i] = (guint8) (x >> (8 * (i % 8)));
    }
}

gboolean
channel_test_is_filled (const guint8 *data, gsize size, guint64 number)
{
  guint64 x = number * G_GUINT64_CONSTANT (0x9e3779b97f4a7c15) + size + 1;

  for (gsize i = 0; i < size; i++)
    {
      if (i % 8 == 0)
        x = x * G_GUINT64_CONSTANT (6364136223846793005) + G_GUINT64_CONSTANT (1442695040888963407);
      if (data[i] != (guint8) (x >> (8 * (i % 8))))
        return FALSE;
    }
  return TRUE;
}

gboolean
channel_test_try_send (FerryChannel *channel, guint64 number, gsize size, gint64 timeout, GError **error)
{
  g_autofree guint8 *data = g_malloc (MAX (size, 1));

  channel_test_fill (data, size, number);
  return ferry_channel_send (channel, data, size, timeout, NULL, error);
}

FerryBuffer *
channel_test_take (FerryChannel *channel)
{
  g_autoptr (GError) error = NULL;
  FerryBuffer *buffer = ferry_channel_receive (channel, 10 * G_USEC_PER_SEC, NULL, &error);

  ferry_assert_no_error (error);
  ck_assert_ptr_nonnull (buffer);
  return buffer;
}

FerryStatistics *
channel_test_statistics (FerryChannel *channel)
{
  g_autoptr (GError) error = NULL;
  FerryStatistics *statistics = ferry_channel_get_statistics (channel, &error);

  ferry_assert_no_error (error);
  ck_assert_ptr_nonnull (statistics);
  return statistics;
}

/* ---- processes ---- */

pid_t
channel_test_fork (void (*func) (ChannelTest *self, gpointer data), ChannelTest *self, gpointer data)
{
  pid_t pid = fork ();

  ck_assert_int_ge (pid, 0);
  if (pid == 0)
    {
      func (self, data);
      /* What the parent's frames hold looks lost to valgrind here: leave before it looks. */
      if (ferry_test_is_valgrind ())
        execl ("/bin/true", "true", NULL);
      _exit (0);
    }
  return pid;
}

void
channel_test_wait_child (pid_t pid)
{
  int status = 0;

  ck_assert_int_eq (waitpid (pid, &status, 0), pid);
  ck_assert_msg (WIFEXITED (status) && WEXITSTATUS (status) == 0, "the child ended with status 0x%x", status);
}

void
channel_test_kill_child (pid_t pid)
{
  int status = 0;

  ck_assert_int_eq (kill (pid, SIGKILL), 0);
  ck_assert_int_eq (waitpid (pid, &status, 0), pid);
  ck_assert_msg (WIFSIGNALED (status), "the child was to be killed, but ended with status 0x%x", status);
}

void
channel_test_gate_init (ChannelTestGate *gate)
{
  ck_assert_int_eq (pipe2 (gate->fds, O_CLOEXEC), 0);
}

void
channel_test_gate_open (ChannelTestGate *gate)
{
  ck_assert_int_eq (write (gate->fds[1], "", 1), 1);
}

void
channel_test_gate_wait (ChannelTestGate *gate)
{
  struct pollfd poll_fd = { .fd = gate->fds[0], .events = POLLIN };
  char byte;
  int n;

  do
    n = poll (&poll_fd, 1, GATE_TIMEOUT_MS);
  while (n < 0 && errno == EINTR);
  ck_assert_msg (n == 1 && read (gate->fds[0], &byte, 1) == 1, "the other process did not come that far");
}

void
channel_test_gate_clear (ChannelTestGate *gate)
{
  close (gate->fds[0]);
  close (gate->fds[1]);
}

/* ---- main loop and time ---- */

static gboolean
set_true_cb (gpointer user_data)
{
  *(gboolean *) user_data = TRUE;
  return G_SOURCE_REMOVE;
}

gboolean
channel_test_iterate (gboolean *done, double seconds)
{
  gboolean expired = FALSE;
  guint id = g_timeout_add ((guint) (seconds * 1000), set_true_cb, &expired);

  while (!*done && !expired)
    g_main_context_iteration (NULL, TRUE);
  if (!expired)
    g_source_remove (id);
  return *done;
}

void
channel_test_iterate_for (double seconds)
{
  gboolean expired = FALSE;

  g_timeout_add ((guint) (seconds * 1000), set_true_cb, &expired);
  while (!expired)
    g_main_context_iteration (NULL, TRUE);
}

gint64
channel_test_cpu_time (void)
{
  struct rusage usage;

  getrusage (RUSAGE_SELF, &usage);
  return (gint64) (usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * G_USEC_PER_SEC + usage.ru_utime.tv_usec
         + usage.ru_stime.tv_usec;
}
