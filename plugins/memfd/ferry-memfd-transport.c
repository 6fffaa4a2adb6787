/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ferry-memfd-transport.h"

#include "ferry-memfd-service.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

/**
 * FerryMemfdTransport:
 *
 * Channels whose memory is a pair of sealed memfds: no name in any file system, no
 * tmpfs that bounds them, and gone with the last process that has them.
 *
 * A named channel is a folder of sockets in the run-time directory, one for each process
 * in it; who joins asks any of them for the descriptors. An anonymous one is joined with
 * inherited or passed descriptors.
 */

#define SUBDIRECTORY "ferry-1.0"
#define MODE_OWNER (0700)
#define MODE_GROUP (02770)
/* How long one process may take to answer before the next one is asked. */
#define ANSWER_TIMEOUT_MS (250)
/* The folder is locked for microseconds at a time. */
#define LOCK_PAUSE_US (200)
#define LOCK_PATIENCE_US (5 * G_USEC_PER_SEC)
#define REQUIRED_SEALS (F_SEAL_SHRINK | F_SEAL_GROW)

struct _FerryMemfdTransport
{
  FerrySegmentTransport parent_instance;

  char *directory; /* NULL: the default */
  int given_control_fd;
  int given_data_fd;
  gint64 group;
  char *folder; /* of the channel that we are in */
  FerryMemfdExport *export;
};

enum
{
  PROP_DIRECTORY = 1,
  PROP_CONTROL_FD,
  PROP_DATA_FD,
  N_PROPERTIES,
};

static GParamSpec *properties[N_PROPERTIES];

G_DEFINE_FINAL_TYPE (FerryMemfdTransport, ferry_memfd_transport, FERRY_TYPE_SEGMENT_TRANSPORT)

/* ---- places ---- */

static char *
base_directory (FerryMemfdTransport *self, gint64 group)
{
  const char *runtime = g_getenv ("XDG_RUNTIME_DIR");

  if (self->directory != NULL)
    return g_strdup (self->directory);
  if (group >= 0)
    return g_strdup_printf ("/tmp/" SUBDIRECTORY "-group-%" G_GINT64_FORMAT, group);
  if (runtime != NULL && *runtime == '/')
    return g_build_filename (runtime, SUBDIRECTORY, NULL);
  return g_strdup_printf ("/tmp/" SUBDIRECTORY "-%u", (guint) geteuid ());
}

static gboolean
set_error (const char *place, const char *what, int saved_errno, GError **error)
{
  FerryError code = saved_errno == ENOENT                             ? FERRY_ERROR_NOT_FOUND
                    : saved_errno == EACCES || saved_errno == EPERM   ? FERRY_ERROR_PERMISSION
                    : saved_errno == ENOSPC || saved_errno == ENOMEM  ? FERRY_ERROR_NO_SPACE
                                                                      : FERRY_ERROR_FAILED;

  g_set_error (error, FERRY_ERROR, code, "%s: %s: %s", place, what, g_strerror (saved_errno));
  return FALSE;
}

static gboolean
make_directory (const char *path, gint64 group, GError **error)
{
  struct stat st;

  if (mkdir (path, MODE_OWNER) == 0)
    {
      if (group >= 0 && (chown (path, (uid_t) -1, (gid_t) group) != 0 || chmod (path, MODE_GROUP) != 0))
        return set_error (path, "can't give the folder to the group", errno, error);
      return TRUE;
    }
  if (errno != EEXIST)
    return set_error (path, "can't make the folder of the channel; set XDG_RUNTIME_DIR to a directory of yours", errno,
                      error);
  /* In /tmp somebody else may have been there first. */
  if (lstat (path, &st) != 0 || !S_ISDIR (st.st_mode) ||
      (st.st_uid != geteuid () && st.st_uid != 0 && !(group >= 0 && (gint64) st.st_gid == group)) ||
      (st.st_mode & S_IWOTH) != 0)
    {
      g_set_error (error, FERRY_ERROR, FERRY_ERROR_PERMISSION,
                   "%s is not a folder of ours (owner %u, mode %o); set XDG_RUNTIME_DIR to a directory of yours", path,
                   (guint) st.st_uid, (guint) st.st_mode & 07777);
      return FALSE;
    }
  return TRUE;
}

/* Opens and locks the folder of a channel: meeting and leaving happen one at a time. -1: see @error. */
static int
lock_folder (const char *folder, GError **error)
{
  gint64 started = g_get_monotonic_time ();

  for (;;)
    {
      struct stat here;
      struct stat named;
      int fd = open (folder, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

      if (fd < 0)
        {
          set_error (folder, errno == ENOENT ? "no channel of that name" : "can't open the folder of the channel",
                     errno, error);
          return -1;
        }
      while (flock (fd, LOCK_EX | LOCK_NB) != 0)
        {
          if ((errno != EWOULDBLOCK && errno != EINTR) || g_get_monotonic_time () - started > LOCK_PATIENCE_US)
            {
              g_set_error (error, FERRY_ERROR, FERRY_ERROR_TIMED_OUT,
                           "%s: another process has held the folder for too long; is it stopped?", folder);
              close (fd);
              return -1;
            }
          g_usleep (LOCK_PAUSE_US);
        }
      /* The last one to leave may have removed it meanwhile. */
      if (fstat (fd, &here) == 0 && stat (folder, &named) == 0 && here.st_ino == named.st_ino &&
          here.st_dev == named.st_dev)
        return fd;
      close (fd);
    }
}

/* ---- meeting ---- */

static gboolean
check_seals (const char *place, int fd, GError **error)
{
  int seals = fcntl (fd, F_GET_SEALS);

  if (seals >= 0 && (seals & REQUIRED_SEALS) == REQUIRED_SEALS)
    return TRUE;
  g_set_error (error, FERRY_ERROR, FERRY_ERROR_CORRUPT,
               "%s: its memory is not sealed against shrinking and growing (%s), so it could vanish under us; it was not "
               "made by this transport",
               place, seals < 0 ? "no memfd" : "seals missing");
  return FALSE;
}

typedef enum
{
  ASK_OK,
  ASK_DEAD,   /* nobody listens any more */
  ASK_SILENT, /* somebody is there and does not answer */
  ASK_REFUSED,
} AskResult;

static AskResult
ask (int folder_fd, const char *socket_name, FerryRole role, int *control_fd, int *data_fd, int *status)
{
  struct sockaddr_un address = { .sun_family = AF_UNIX };
  FerryMemfdRequest request = { FERRY_MEMFD_MAGIC, FERRY_MEMFD_VERSION, role, 0 };
  FerryMemfdReply reply = { 0 };
  union
  {
    struct cmsghdr header;
    char buffer[CMSG_SPACE (2 * sizeof (int))];
  } control = { .buffer = { 0 } };
  struct iovec iov = { &reply, sizeof reply };
  struct msghdr message = {
    .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.buffer, .msg_controllen = sizeof control.buffer
  };
  struct pollfd poll_fd = { .events = POLLIN };
  struct cmsghdr *header;
  int fds[2] = { -1, -1 };
  int fd = socket (AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  AskResult result = ASK_SILENT;
  gssize n;

  if (fd < 0)
    return ASK_SILENT;
  g_snprintf (address.sun_path, sizeof address.sun_path, "/proc/self/fd/%d/%s", folder_fd, socket_name);
  if (connect (fd, (struct sockaddr *) &address, sizeof address) != 0)
    {
      result = errno == ECONNREFUSED || errno == ENOENT ? ASK_DEAD : ASK_SILENT;
      close (fd);
      return result;
    }
  poll_fd.fd = fd;
  if (send (fd, &request, sizeof request, MSG_NOSIGNAL) == (gssize) sizeof request &&
      poll (&poll_fd, 1, ANSWER_TIMEOUT_MS) == 1)
    {
      n = recvmsg (fd, &message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
      for (header = n > 0 ? CMSG_FIRSTHDR (&message) : NULL; header != NULL; header = CMSG_NXTHDR (&message, header))
        if (header->cmsg_level == SOL_SOCKET && header->cmsg_type == SCM_RIGHTS &&
            header->cmsg_len == CMSG_LEN (sizeof fds))
          memcpy (fds, CMSG_DATA (header), sizeof fds);
      if (n == 0)
        {
          result = ASK_DEAD; /* it left while we asked */
        }
      else if (n == (gssize) sizeof reply && reply.magic == FERRY_MEMFD_MAGIC && reply.status == 0 && fds[0] >= 0 &&
               fds[1] >= 0)
        {
          *control_fd = fds[0];
          *data_fd = fds[1];
          result = ASK_OK;
        }
      else if (n > 0)
        {
          *status = reply.magic == FERRY_MEMFD_MAGIC ? (int) reply.status : EPROTO;
          result = ASK_REFUSED;
        }
    }
  if (result != ASK_OK)
    for (guint i = 0; i < 2; i++)
      if (fds[i] >= 0)
        close (fds[i]);
  close (fd);
  return result;
}

/* Asks whoever lives in the locked folder; sockets of the dead are removed. ASK_DEAD: nobody is left. */
static AskResult
ask_anybody (int folder_fd, FerryRole role, int *control_fd, int *data_fd, int *status)
{
  AskResult result = ASK_DEAD;
  int dir_fd = openat (folder_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  DIR *dir = dir_fd >= 0 ? fdopendir (dir_fd) : NULL;
  struct dirent *entry;

  while (dir != NULL && result != ASK_OK && (entry = readdir (dir)) != NULL)
    {
      AskResult one;

      if (!g_str_has_suffix (entry->d_name, FERRY_MEMFD_SOCKET_SUFFIX))
        continue;
      one = ask (folder_fd, entry->d_name, role, control_fd, data_fd, status);
      if (one == ASK_DEAD)
        unlinkat (folder_fd, entry->d_name, 0);
      else if (one == ASK_OK || result == ASK_DEAD)
        result = one;
    }
  if (dir != NULL)
    closedir (dir);
  return result;
}

static char *
folder_for (FerryMemfdTransport *self, const FerryChannelConfig *config)
{
  g_autofree char *base = base_directory (self, config->group);

  return g_build_filename (base, config->name, NULL);
}

/* ---- class functions ---- */

static int
make_memfd (const char *name, guint64 size, gint64 group, GError **error)
{
  int fd = memfd_create (name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
  int saved_errno;

  if (fd >= 0 && ftruncate (fd, (off_t) size) == 0 &&
      fchmod (fd, group >= 0 ? 0660 : 0600) == 0 && (group < 0 || fchown (fd, (uid_t) -1, (gid_t) group) == 0) &&
      fcntl (fd, F_ADD_SEALS, REQUIRED_SEALS | F_SEAL_SEAL) == 0)
    return fd;
  saved_errno = errno;
  if (fd >= 0)
    close (fd);
  set_error (name, "can't make a memfd", saved_errno, error);
  return -1;
}

static gboolean
ferry_memfd_transport_reserve (FerrySegmentTransport *transport,
                               const FerryChannelConfig *config,
                               guint64 control_size,
                               guint64 data_size,
                               GError **error)
{
  int control_fd = make_memfd ("ferry-control", control_size, config->group, error);
  int data_fd = control_fd >= 0 ? make_memfd ("ferry-data", data_size, config->group, error) : -1;

  ferry_segment_transport_take_fds (transport, control_fd, data_fd);
  return data_fd >= 0;
}

static gboolean
ferry_memfd_transport_share (FerrySegmentTransport *transport, const FerryChannelConfig *config, GError **error)
{
  FerryMemfdTransport *self = FERRY_MEMFD_TRANSPORT (transport);
  g_autofree char *base = base_directory (self, config->group);
  g_autofree char *folder = folder_for (self, config);
  int folder_fd;
  int control_fd;
  int data_fd;
  int status = 0;
  AskResult result;

  if (mkdir (folder, MODE_OWNER) == 0)
    {
      if (config->group >= 0 &&
          (chown (folder, (uid_t) -1, (gid_t) config->group) != 0 || chmod (folder, MODE_GROUP) != 0))
        return set_error (folder, "can't give the folder to the group", errno, error);
    }
  else if (errno == EEXIST || errno == ENOENT)
    {
      if (!make_directory (base, config->group, error) || !make_directory (folder, config->group, error))
        return FALSE;
    }
  else
    {
      return set_error (folder, "can't make the folder of the channel; set XDG_RUNTIME_DIR to a directory of yours",
                        errno, error);
    }
  folder_fd = lock_folder (folder, error);
  if (folder_fd < 0)
    {
      if (error != NULL && *error != NULL && g_error_matches (*error, FERRY_ERROR, FERRY_ERROR_NOT_FOUND))
        (*error)->code = FERRY_ERROR_EXISTS; /* removed by a leaver just now: try again */
      return FALSE;
    }
  result = ask_anybody (folder_fd, FERRY_ROLE_OBSERVER, &control_fd, &data_fd, &status);
  if (result == ASK_DEAD)
    {
      self->export = ferry_memfd_service_export (folder, ferry_segment_transport_get_control_fd (transport),
                                                 ferry_segment_transport_get_data_fd (transport), config->group, error);
      if (self->export != NULL)
        {
          g_free (self->folder);
          self->folder = g_steal_pointer (&folder);
          self->group = config->group;
        }
    }
  else
    {
      if (result == ASK_OK)
        {
          close (control_fd);
          close (data_fd);
        }
      g_set_error (error, FERRY_ERROR, FERRY_ERROR_EXISTS, "channel '%s' exists already", config->name);
    }
  close (folder_fd);
  return self->export != NULL;
}

static gboolean
ferry_memfd_transport_attach_given (FerryMemfdTransport *self, GError **error)
{
  int control_fd;
  int data_fd;

  if (self->given_control_fd < 0 && self->given_data_fd < 0)
    {
      g_set_error (error, FERRY_ERROR, FERRY_ERROR_NOT_FOUND,
                   "an anonymous channel is joined with its descriptors: set control-fd and data-fd");
      return FALSE;
    }
  control_fd = fcntl (self->given_control_fd, F_DUPFD_CLOEXEC, 0);
  data_fd = fcntl (self->given_data_fd, F_DUPFD_CLOEXEC, 0);
  if (control_fd < 0 || data_fd < 0)
    {
      g_set_error (error, FERRY_ERROR, FERRY_ERROR_INVALID_ARGUMENT,
                   "control-fd=%d or data-fd=%d is no open descriptor: %s; both must be inherited or passed",
                   self->given_control_fd, self->given_data_fd, g_strerror (errno));
      if (control_fd >= 0)
        close (control_fd);
      if (data_fd >= 0)
        close (data_fd);
      return FALSE;
    }
  ferry_segment_transport_take_fds (FERRY_SEGMENT_TRANSPORT (self), control_fd, data_fd);
  return check_seals ("control-fd", control_fd, error) && check_seals ("data-fd", data_fd, error);
}

static gboolean
ferry_memfd_transport_attach (FerrySegmentTransport *transport,
                              const FerryChannelConfig *config,
                              GCancellable *cancellable,
                              GError **error)
{
  FerryMemfdTransport *self = FERRY_MEMFD_TRANSPORT (transport);
  g_autofree char *folder = NULL;
  int folder_fd;
  int control_fd = -1;
  int data_fd = -1;
  int status = 0;
  AskResult result;
  gboolean ok;

  if (config->name == NULL)
    return ferry_memfd_transport_attach_given (self, error);

  folder = folder_for (self, config);
  folder_fd = lock_folder (folder, error);
  if (folder_fd < 0)
    return FALSE;

  /* An endpoint of this process knows them already. */
  if (ferry_memfd_service_find (folder, &control_fd, &data_fd))
    result = ASK_OK;
  else
    result = ask_anybody (folder_fd, config->role, &control_fd, &data_fd, &status);

  switch (result)
    {
    case ASK_OK:
      ferry_segment_transport_take_fds (transport, control_fd, data_fd);
      ok = check_seals (config->name, control_fd, error) && check_seals (config->name, data_fd, error);
      break;
    case ASK_DEAD:
      /* only the dead were here; the folder goes too unless somebody makes the channel anew */
      if (config->open_mode == FERRY_OPEN_MODE_JOIN)
        rmdir (folder);
      g_set_error (error, FERRY_ERROR, FERRY_ERROR_NOT_FOUND,
                   "no channel '%s' in %s; create it first, or open without open-mode=join", config->name, folder);
      ok = FALSE;
      break;
    case ASK_REFUSED:
      set_error (folder, status == EACCES ? "the channel belongs to somebody else; open it with group=... on all sides"
                                          : "a participant refused us",
                 status, error);
      ok = FALSE;
      break;
    case ASK_SILENT:
    default:
      g_set_error (error, FERRY_ERROR, FERRY_ERROR_TIMED_OUT,
                   "channel '%s' exists, but no participant answers: all that could hand its memory over are stopped; "
                   "continue or end them",
                   config->name);
      ok = FALSE;
      break;
    }
  if (ok && config->role != FERRY_ROLE_OBSERVER)
    {
      self->export = ferry_memfd_service_export (folder, control_fd, data_fd, config->group, error);
      ok = self->export != NULL;
    }
  if (ok)
    {
      g_free (self->folder);
      self->folder = g_steal_pointer (&folder);
      self->group = config->group;
    }
  close (folder_fd);
  return ok;
}

static gboolean
same_file (int a, int b)
{
  struct stat stat_a;
  struct stat stat_b;

  return fstat (a, &stat_a) == 0 && fstat (b, &stat_b) == 0 && stat_a.st_dev == stat_b.st_dev &&
         stat_a.st_ino == stat_b.st_ino;
}

/* Removes from the locked folder the sockets of the dead and, when @control_fd is given, of those who serve that
 * segment; then the folder, if it is empty. A new channel of that name may live there already. */
static void
clean_folder (const char *folder, int folder_fd, int control_fd)
{
  int dir_fd = openat (folder_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  DIR *dir = dir_fd >= 0 ? fdopendir (dir_fd) : NULL;
  struct dirent *entry;

  while (dir != NULL && (entry = readdir (dir)) != NULL)
    {
      int theirs = -1;
      int data_fd = -1;
      int status = 0;
      AskResult result;

      if (!g_str_has_suffix (entry->d_name, FERRY_MEMFD_SOCKET_SUFFIX))
        continue;
      result = ask (folder_fd, entry->d_name, FERRY_ROLE_OBSERVER, &theirs, &data_fd, &status);
      if (result == ASK_DEAD || (result == ASK_OK && control_fd >= 0 && same_file (theirs, control_fd)))
        unlinkat (folder_fd, entry->d_name, 0);
      if (result == ASK_OK)
        {
          close (theirs);
          close (data_fd);
        }
    }
  if (dir != NULL)
    closedir (dir);
  rmdir (folder);
}

static void
ferry_memfd_transport_withdraw (FerrySegmentTransport *transport)
{
  FerryMemfdTransport *self = FERRY_MEMFD_TRANSPORT (transport);
  int folder_fd;

  if (self->folder == NULL)
    return;
  folder_fd = lock_folder (self->folder, NULL);
  if (folder_fd < 0)
    return;
  g_clear_pointer (&self->export, ferry_memfd_service_unexport);
  clean_folder (self->folder, folder_fd, ferry_segment_transport_get_control_fd (transport));
  close (folder_fd);
}

static void
ferry_memfd_transport_left (FerrySegmentTransport *transport)
{
  FerryMemfdTransport *self = FERRY_MEMFD_TRANSPORT (transport);

  g_clear_pointer (&self->export, ferry_memfd_service_unexport);
}

/* The parent's thread and sockets did not come along: serve by ourselves, so that the channel is found when the
 * parent is gone. */
static void
ferry_memfd_transport_forked (FerrySegmentTransport *transport)
{
  FerryMemfdTransport *self = FERRY_MEMFD_TRANSPORT (transport);
  FerryMemfdExport *inherited = self->export;
  g_autoptr (GError) error = NULL;
  int folder_fd;

  if (self->folder == NULL || inherited == NULL)
    return;
  folder_fd = lock_folder (self->folder, NULL);
  self->export = ferry_memfd_service_export (self->folder, ferry_segment_transport_get_control_fd (transport),
                                             ferry_segment_transport_get_data_fd (transport), self->group, &error);
  if (self->export == NULL)
    {
      g_warning ("channel in %s: a fork child can't be found by others: %s", self->folder, error->message);
      self->export = inherited;
    }
  else
    {
      ferry_memfd_service_unexport (inherited);
    }
  if (folder_fd >= 0)
    close (folder_fd);
}

static char **
ferry_memfd_transport_list_names (FerrySegmentTransport *transport, GError **error)
{
  FerryMemfdTransport *self = FERRY_MEMFD_TRANSPORT (transport);
  g_autoptr (GStrvBuilder) names = g_strv_builder_new ();
  g_autofree char *base = base_directory (self, -1);
  g_autoptr (GDir) dir = g_dir_open (base, 0, NULL);
  const char *entry;

  while (dir != NULL && (entry = g_dir_read_name (dir)) != NULL)
    {
      g_autofree char *path = g_build_filename (base, entry, NULL);

      if (g_file_test (path, G_FILE_TEST_IS_DIR))
        g_strv_builder_add (names, entry);
    }
  return g_strv_builder_end (names);
}

/* A folder in which nobody listens. */
static gboolean
ferry_memfd_transport_sweep (FerrySegmentTransport *transport, const char *name, GError **error)
{
  FerryMemfdTransport *self = FERRY_MEMFD_TRANSPORT (transport);
  g_autofree char *base = base_directory (self, -1);
  g_autofree char *folder = g_build_filename (base, name, NULL);
  g_autoptr (GError) local = NULL;
  int folder_fd = lock_folder (folder, &local);

  if (folder_fd < 0)
    {
      if (g_error_matches (local, FERRY_ERROR, FERRY_ERROR_NOT_FOUND))
        return TRUE;
      g_propagate_error (error, g_steal_pointer (&local));
      return FALSE;
    }
  clean_folder (folder, folder_fd, -1);
  close (folder_fd);
  return TRUE;
}

/* ---- object ---- */

static void
ferry_memfd_transport_get_property (GObject *object, guint property_id, GValue *value, GParamSpec *pspec)
{
  FerryMemfdTransport *self = FERRY_MEMFD_TRANSPORT (object);

  switch (property_id)
    {
    case PROP_DIRECTORY:
      g_value_set_string (value, self->directory);
      break;
    case PROP_CONTROL_FD:
      g_value_set_int (value, self->given_control_fd >= 0
                                  ? self->given_control_fd
                                  : ferry_segment_transport_get_control_fd (FERRY_SEGMENT_TRANSPORT (self)));
      break;
    case PROP_DATA_FD:
      g_value_set_int (value, self->given_data_fd >= 0
                                  ? self->given_data_fd
                                  : ferry_segment_transport_get_data_fd (FERRY_SEGMENT_TRANSPORT (self)));
      break;
    default:
      G_OBJECT_WARN_INVALID_PROPERTY_ID (object, property_id, pspec);
      break;
    }
}

static void
ferry_memfd_transport_set_property (GObject *object, guint property_id, const GValue *value, GParamSpec *pspec)
{
  FerryMemfdTransport *self = FERRY_MEMFD_TRANSPORT (object);

  switch (property_id)
    {
    case PROP_DIRECTORY:
      if (g_strcmp0 (self->directory, g_value_get_string (value)) != 0)
        {
          g_free (self->directory);
          self->directory = g_value_dup_string (value);
          g_object_notify_by_pspec (object, pspec);
        }
      break;
    case PROP_CONTROL_FD:
      if (self->given_control_fd != g_value_get_int (value))
        {
          self->given_control_fd = g_value_get_int (value);
          g_object_notify_by_pspec (object, pspec);
        }
      break;
    case PROP_DATA_FD:
      if (self->given_data_fd != g_value_get_int (value))
        {
          self->given_data_fd = g_value_get_int (value);
          g_object_notify_by_pspec (object, pspec);
        }
      break;
    default:
      G_OBJECT_WARN_INVALID_PROPERTY_ID (object, property_id, pspec);
      break;
    }
}

static void
ferry_memfd_transport_finalize (GObject *object)
{
  FerryMemfdTransport *self = FERRY_MEMFD_TRANSPORT (object);

  ferry_memfd_transport_left (FERRY_SEGMENT_TRANSPORT (self));
  g_clear_pointer (&self->directory, g_free);
  g_clear_pointer (&self->folder, g_free);
  G_OBJECT_CLASS (ferry_memfd_transport_parent_class)->finalize (object);
}

static void
ferry_memfd_transport_init (FerryMemfdTransport *self)
{
  self->given_control_fd = self->given_data_fd = -1;
  self->group = -1;
}

static void
ferry_memfd_transport_class_init (FerryMemfdTransportClass *klass)
{
  GObjectClass *object_class = G_OBJECT_CLASS (klass);
  FerrySegmentTransportClass *segment_class = FERRY_SEGMENT_TRANSPORT_CLASS (klass);

  object_class->get_property = ferry_memfd_transport_get_property;
  object_class->set_property = ferry_memfd_transport_set_property;
  object_class->finalize = ferry_memfd_transport_finalize;
  segment_class->reserve = ferry_memfd_transport_reserve;
  segment_class->share = ferry_memfd_transport_share;
  segment_class->attach = ferry_memfd_transport_attach;
  segment_class->withdraw = ferry_memfd_transport_withdraw;
  segment_class->left = ferry_memfd_transport_left;
  segment_class->forked = ferry_memfd_transport_forked;
  segment_class->list_names = ferry_memfd_transport_list_names;
  segment_class->sweep = ferry_memfd_transport_sweep;

  /**
   * FerryMemfdTransport:directory:
   *
   * The directory in which named channels meet. Unset: `ferry-1.0` in `XDG_RUNTIME_DIR`, or in
   * /tmp a folder of the user's or of the group's own.
   */
  properties[PROP_DIRECTORY] = g_param_spec_string (
      "directory", NULL, NULL, NULL, G_PARAM_READWRITE | G_PARAM_STATIC_STRINGS | G_PARAM_EXPLICIT_NOTIFY);

  /**
   * FerryMemfdTransport:control-fd:
   *
   * To join an anonymous channel: the descriptor of its control area; it stays the
   * caller's. When open: the descriptor to hand on. -1: none.
   */
  properties[PROP_CONTROL_FD] =
      g_param_spec_int ("control-fd", NULL, NULL, -1, G_MAXINT, -1,
                        G_PARAM_READWRITE | G_PARAM_STATIC_STRINGS | G_PARAM_EXPLICIT_NOTIFY);

  /**
   * FerryMemfdTransport:data-fd:
   *
   * Likewise for the data area.
   */
  properties[PROP_DATA_FD] =
      g_param_spec_int ("data-fd", NULL, NULL, -1, G_MAXINT, -1,
                        G_PARAM_READWRITE | G_PARAM_STATIC_STRINGS | G_PARAM_EXPLICIT_NOTIFY);

  g_object_class_install_properties (object_class, N_PROPERTIES, properties);
}
