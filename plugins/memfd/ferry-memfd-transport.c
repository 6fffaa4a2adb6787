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
 * A named channel has in the run-time directory a lock file, and a socket for each
 * process in it; who joins asks any of them for the descriptors. An anonymous one is
 * joined with inherited or passed descriptors.
 */

/* Where memory is a file system. */
#define FALLBACK_IN_MEMORY "/dev/shm"
#define ENTER_TRIES (100)
#define SUBDIRECTORY "ferry-1.0"
#define LOCK_SUFFIX ".lock"
#define MODE_LOCK (0600)
#define MODE_OWNER (0700)
#define MODE_GROUP (02770)
/* How long one process may take to answer before the next one is asked. */
#define ANSWER_TIMEOUT_MS (250)
/* The same when nobody has answered at first: they may be slow, and not stopped. */
#define ANSWER_LONG_TIMEOUT_MS (2000)
/* Processes of one channel that can be asked: as many as it has participants, and some that are about to leave. */
#define SOCKETS_MAX (1024)
/* The place is locked for microseconds at a time. */
#define LOCK_PAUSE_US (200)
#define LOCK_PATIENCE_US (5 * G_USEC_PER_SEC)
#define REQUIRED_SEALS (F_SEAL_SHRINK | F_SEAL_GROW)

struct _FerryMemfdTransport
{
  FerrySegmentTransport parent_instance;

  char *directory; /* NULL: the default */
  int given_control_fd;
  int given_data_fd;
  gint64 group; /* whose channels are looked at; once we are in a channel, the group that meets there */
  char *folder; /* directory and name of the channel that we are in */
  FerryMemfdExport *export;
};

enum
{
  PROP_DIRECTORY = 1,
  PROP_CONTROL_FD,
  PROP_DATA_FD,
  PROP_LISTING_GROUP,
  N_PROPERTIES,
};

static GParamSpec *properties[N_PROPERTIES];

G_DEFINE_FINAL_TYPE (FerryMemfdTransport, ferry_memfd_transport, FERRY_TYPE_SEGMENT_TRANSPORT)

/* ---- places ---- */

/* Without a run-time directory: in memory if possible, as that is, and not to stay when the last channel is gone. */
static const char *
fallback_parent (void)
{
  static gsize parent = 0;

  if (g_once_init_enter (&parent))
    g_once_init_leave (&parent, (gsize) (access (FALLBACK_IN_MEMORY, W_OK | X_OK) == 0 ? FALLBACK_IN_MEMORY : "/tmp"));
  return (const char *) parent;
}

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
  return g_strdup_printf ("%s/" SUBDIRECTORY "-%u", fallback_parent (), (guint) geteuid ());
}

static gboolean
set_error (const char *place, const char *what, int saved_errno, GError **error)
{
  FerryError code = saved_errno == ENOENT                            ? FERRY_ERROR_NOT_FOUND
                    : saved_errno == EACCES || saved_errno == EPERM  ? FERRY_ERROR_PERMISSION
                    : saved_errno == ENOSPC || saved_errno == ENOMEM ? FERRY_ERROR_NO_SPACE
                                                                     : FERRY_ERROR_FAILED;

  g_set_error (error, FERRY_ERROR, code, "%s: %s: %s", place, what, g_strerror (saved_errno));
  return FALSE;
}

static gboolean
make_directory (const char *path, GError **error)
{
  return mkdir (path, MODE_OWNER) == 0 || errno == EEXIST
         || set_error (path, "can't make the run-time directory; set XDG_RUNTIME_DIR to a directory of yours", errno,
                       error);
}

/* In /tmp somebody else may have been there first. */
static gboolean
check_directory (const char *path, int fd, gint64 group, GError **error)
{
  struct stat st;

  if (fstat (fd, &st) == 0 && (st.st_uid == geteuid () || st.st_uid == 0 || (group >= 0 && (gint64) st.st_gid == group))
      && (st.st_mode & S_IWOTH) == 0)
    return TRUE;
  g_set_error (error, FERRY_ERROR, FERRY_ERROR_PERMISSION,
               "%s is not a directory of ours (owner %u, mode %o); set XDG_RUNTIME_DIR to a directory of yours", path,
               (guint) st.st_uid, (guint) st.st_mode & 07777);
  return FALSE;
}

/* Not only when it is made: whoever made it may have been killed before this step. */
static gboolean
give_directory_to_group (const char *path, int fd, gint64 group, GError **error)
{
  struct stat st;

  if (fstat (fd, &st) != 0 || st.st_uid != geteuid ()
      || ((gint64) st.st_gid == group && (st.st_mode & 07777) == MODE_GROUP))
    return TRUE;
  return (fchown (fd, (uid_t) -1, (gid_t) group) == 0 && fchmod (fd, MODE_GROUP) == 0)
         || set_error (path, "can't give the run-time directory to the group", errno, error);
}

/* A place in the run-time directory, locked: meeting and leaving happen one at a time. */
typedef struct
{
  int directory_fd;
  int lock_fd; /* of NAME.lock; its size is the number of socket indices in use */
  guint n_sockets;
  char temporary[64];                   /* the directory, when it shall not outlive its channels; else empty */
  const char *name;                     /* of the channel */
  char key[FERRY_MEMFD_KEY_LENGTH + 1]; /* socket I is KEY.I.sock; empty: not needed yet */
} Place;

static void
place_leave (Place *place)
{
  if (place->lock_fd >= 0)
    close (place->lock_fd); /* unlocks */
  if (place->directory_fd >= 0)
    close (place->directory_fd);
  place->lock_fd = place->directory_fd = -1;
}

static gboolean
place_enter (Place *place, const char *directory, const char *name, gint64 group, gboolean create,
             GCancellable *cancellable, GError **error)
{
  gint64 started = g_get_monotonic_time ();
  g_autofree char *lock_name = g_strconcat (name, LOCK_SUFFIX, NULL);

  place->lock_fd = -1;
  place->directory_fd = open (directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (place->directory_fd < 0)
    {
      int saved_errno = errno;
      g_autofree char *place_name = g_build_filename (directory, name, NULL);

      return set_error (place_name,
                        saved_errno == ENOENT ? "no channel of that name" : "can't open the run-time directory",
                        saved_errno, error);
    }
  if (!check_directory (directory, place->directory_fd, group, error)
      || (create && group >= 0 && !give_directory_to_group (directory, place->directory_fd, group, error)))
    {
      place_leave (place);
      return FALSE;
    }
  place->name = name;
  place->key[0] = '\0';
  place->temporary[0] = '\0';
  if (g_str_has_prefix (directory, FALLBACK_IN_MEMORY "/" SUBDIRECTORY "-"))
    g_strlcpy (place->temporary, directory, sizeof place->temporary);

  for (;;)
    {
      struct stat here;

      place->lock_fd = openat (place->directory_fd, lock_name, O_RDWR | O_NOFOLLOW | O_CLOEXEC | (create ? O_CREAT : 0),
                               MODE_LOCK);
      if (place->lock_fd < 0)
        {
          int saved_errno = errno;
          g_autofree char *place_name = g_build_filename (directory, name, NULL);

          set_error (place_name,
                     create                  ? "can't make the lock of the channel; give another directory"
                     : saved_errno == ENOENT ? "no channel of that name"
                                             : "can't open the lock of the channel",
                     saved_errno, error);
          place_leave (place);
          return FALSE;
        }
      while (flock (place->lock_fd, LOCK_EX | LOCK_NB) != 0)
        {
          if ((errno != EWOULDBLOCK && errno != EINTR) || g_get_monotonic_time () - started > LOCK_PATIENCE_US)
            {
              g_set_error (error, FERRY_ERROR, FERRY_ERROR_TIMED_OUT,
                           "channel '%s': another process has held %s/%s for too long; is it stopped?", name, directory,
                           lock_name);
              place_leave (place);
              return FALSE;
            }
          if (g_cancellable_set_error_if_cancelled (cancellable, error))
            {
              place_leave (place);
              return FALSE;
            }
          g_usleep (LOCK_PAUSE_US);
        }
      /* The last one to leave may have removed it meanwhile. */
      if (fstat (place->lock_fd, &here) == 0 && here.st_nlink > 0)
        {
          place->n_sockets = (guint) MIN (here.st_size, SOCKETS_MAX);
          return TRUE;
        }
      close (place->lock_fd);
    }
}

/* Names may be longer than a socket's path, so sockets are named by a digest. */
static void
place_socket_path (Place *place, guint index, char path[FERRY_MEMFD_PATH_MAX])
{
  if (place->key[0] == '\0')
    {
      g_autofree char *digest = g_compute_checksum_for_string (G_CHECKSUM_SHA256, place->name, -1);

      g_strlcpy (place->key, digest, sizeof place->key);
    }
  g_snprintf (path, FERRY_MEMFD_PATH_MAX, "/proc/self/fd/%d/%s.%u" FERRY_MEMFD_SOCKET_SUFFIX, place->directory_fd,
              place->key, index);
}

/* The place is given up: nobody serves here. */
static void
place_remove (Place *place)
{
  g_autofree char *lock_name = g_strconcat (place->name, LOCK_SUFFIX, NULL);

  unlinkat (place->directory_fd, lock_name, 0);
  /* Fails as long as there are others. Who is about to enter it makes it again. */
  if (place->temporary[0] != '\0')
    rmdir (place->temporary);
}

/* ---- meeting ---- */

static gboolean
check_seals (const char *place, int fd, GError **error)
{
  int seals = fcntl (fd, F_GET_SEALS);

  if (seals >= 0 && (seals & REQUIRED_SEALS) == REQUIRED_SEALS)
    return TRUE;
  g_set_error (
      error, FERRY_ERROR, FERRY_ERROR_CORRUPT,
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
ask (Place *place, guint index, FerryRole role, int timeout_ms, GCancellable *cancellable, int *control_fd,
     int *data_fd, int *status)
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
  struct msghdr message
      = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.buffer, .msg_controllen = sizeof control.buffer };
  struct pollfd poll_fds[] = { { .fd = -1, .events = POLLIN }, { .fd = -1, .events = POLLIN } };
  struct cmsghdr *header;
  int fds[2] = { -1, -1 };
  int fd = socket (AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  AskResult result = ASK_SILENT;
  gssize n;

  if (fd < 0)
    return ASK_SILENT;
  place_socket_path (place, index, address.sun_path);
  if (connect (fd, (struct sockaddr *) &address, sizeof address) != 0)
    {
      result = errno == ECONNREFUSED || errno == ENOENT ? ASK_DEAD : ASK_SILENT;
      close (fd);
      return result;
    }
  poll_fds[0].fd = fd;
  poll_fds[1].fd = g_cancellable_get_fd (cancellable); /* -1, which poll() passes over, when there is none */
  if (send (fd, &request, sizeof request, MSG_NOSIGNAL) != (gssize) sizeof request)
    {
      if (errno == EPIPE || errno == ECONNRESET)
        result = ASK_DEAD; /* it left, or died, while we asked */
    }
  else if (poll (poll_fds, G_N_ELEMENTS (poll_fds), timeout_ms) > 0 && poll_fds[0].revents != 0)
    {
      n = recvmsg (fd, &message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
      for (header = n > 0 ? CMSG_FIRSTHDR (&message) : NULL; header != NULL; header = CMSG_NXTHDR (&message, header))
        if (header->cmsg_level == SOL_SOCKET && header->cmsg_type == SCM_RIGHTS
            && header->cmsg_len == CMSG_LEN (sizeof fds))
          memcpy (fds, CMSG_DATA (header), sizeof fds);
      if (n == 0 || (n < 0 && errno == ECONNRESET))
        {
          result = ASK_DEAD; /* likewise */
        }
      else if (n == (gssize) sizeof reply && reply.magic == FERRY_MEMFD_MAGIC && reply.status == 0 && fds[0] >= 0
               && fds[1] >= 0)
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
  if (poll_fds[1].fd >= 0)
    g_cancellable_release_fd (cancellable);
  if (result != ASK_OK)
    for (guint i = 0; i < 2; i++)
      if (fds[i] >= 0)
        close (fds[i]);
  close (fd);
  return result;
}

static void
place_unlink (Place *place, guint index)
{
  char path[FERRY_MEMFD_PATH_MAX];

  place_socket_path (place, index, path);
  unlink (path);
}

/* Asks whoever serves here. ASK_DEAD: nobody is left. Sockets of the dead are removed, except for observers, who only
 * look. */
static AskResult
ask_anybody (Place *place, FerryRole role, GCancellable *cancellable, int *control_fd, int *data_fd, int *status)
{
  const int timeouts_ms[]
      = { ANSWER_TIMEOUT_MS, MAX (ANSWER_LONG_TIMEOUT_MS / (int) MAX (place->n_sockets, 1), ANSWER_TIMEOUT_MS) };
  AskResult result = ASK_DEAD;

  for (guint round = 0; round < G_N_ELEMENTS (timeouts_ms); round++)
    {
      result = ASK_DEAD;
      for (guint i = 0; i < place->n_sockets && result != ASK_OK; i++)
        {
          AskResult one;

          if (g_cancellable_is_cancelled (cancellable))
            return ASK_SILENT;
          one = ask (place, i, role, timeouts_ms[round], cancellable, control_fd, data_fd, status);

          if (one == ASK_DEAD && role != FERRY_ROLE_OBSERVER)
            place_unlink (place, i);
          else if (one == ASK_OK || (one != ASK_DEAD && result == ASK_DEAD))
            result = one;
        }
      if (result != ASK_SILENT)
        break;
    }
  return result;
}

/* That is the channel that we are in. */
static void
settle (FerryMemfdTransport *self, const char *folder, gint64 group)
{
  if (self->folder != folder)
    {
      g_free (self->folder);
      self->folder = g_strdup (folder);
    }
  self->group = group;
}

/* From now on joiners find us. The place is locked. */
static gboolean
serve_at (FerryMemfdTransport *self, Place *place, const char *folder, int control_fd, int data_fd, gint64 group,
          GError **error)
{
  FerryMemfdExport *export = ferry_memfd_service_export (folder, control_fd, data_fd, group, error);
  char path[FERRY_MEMFD_PATH_MAX];

  if (export == NULL)
    return FALSE;
  for (guint i = 0; i < SOCKETS_MAX && !ferry_memfd_service_is_listening (export); i++)
    {
      g_autoptr (GError) local = NULL;

      /* The size of the lock file is the number of indices, and takes no block on the disk. Noted first: who is killed
       * in between leaves nothing that the last one to leave does not look for. */
      if (i >= place->n_sockets && ftruncate (place->lock_fd, (off_t) i + 1) != 0)
        {
          set_error (folder, "can't note the socket", errno, error);
          ferry_memfd_service_unexport (export);
          return FALSE;
        }
      place_socket_path (place, i, path);
      if (ferry_memfd_service_listen (export, path, i, &local))
        break;
      if (!g_error_matches (local, FERRY_ERROR, FERRY_ERROR_EXISTS) || i + 1 == SOCKETS_MAX)
        {
          g_propagate_error (error, g_steal_pointer (&local));
          ferry_memfd_service_unexport (export);
          return FALSE;
        }
      /* somebody's, maybe a dead one's */
      if (i < place->n_sockets)
        {
          int theirs = -1;
          int theirs_data = -1;
          int status;

          if (ask (place, i, FERRY_ROLE_OBSERVER, ANSWER_TIMEOUT_MS, NULL, &theirs, &theirs_data, &status) == ASK_DEAD)
            {
              place_unlink (place, i);
              i--;
            }
          else if (theirs >= 0)
            {
              close (theirs);
              close (theirs_data);
            }
        }
      else
        {
          /* left by a killed process before it noted the index */
          place_unlink (place, i);
          i--;
        }
    }
  if (self->export != NULL)
    ferry_memfd_service_unexport (self->export);
  self->export = export;
  settle (self, folder, group);
  return TRUE;
}

/* ---- class functions ---- */

static int
make_memfd (const char *name, guint64 size, gint64 group, GError **error)
{
  int fd = memfd_create (name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
  int saved_errno;

  if (fd >= 0 && ftruncate (fd, (off_t) size) == 0 && fchmod (fd, group >= 0 ? 0660 : 0600) == 0
      && (group < 0 || fchown (fd, (uid_t) -1, (gid_t) group) == 0)
      && fcntl (fd, F_ADD_SEALS, REQUIRED_SEALS | F_SEAL_SEAL) == 0)
    return fd;
  saved_errno = errno;
  if (fd >= 0)
    close (fd);
  set_error (name, "can't make a memfd", saved_errno, error);
  return -1;
}

static gboolean
ferry_memfd_transport_reserve (FerrySegmentTransport *transport, const FerryChannelConfig *config, guint64 control_size,
                               guint64 data_size, GError **error)
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
  g_autofree char *folder = g_build_filename (base, config->name, NULL);
  g_autoptr (GError) local = NULL;
  Place place;
  int control_fd = -1;
  int data_fd = -1;
  int status = 0;
  AskResult result;
  gboolean ok = FALSE;

  /* The first channel makes the directory; the last one of others may remove it meanwhile. */
  for (guint i = 0; !place_enter (&place, base, config->name, config->group, TRUE, NULL, &local); i++)
    {
      if (i == ENTER_TRIES || !g_error_matches (local, FERRY_ERROR, FERRY_ERROR_NOT_FOUND))
        {
          g_propagate_error (error, g_steal_pointer (&local));
          return FALSE;
        }
      g_clear_error (&local);
      if (!make_directory (base, error))
        return FALSE;
    }
  result = ask_anybody (&place, config->role, NULL, &control_fd, &data_fd, &status);
  if (result == ASK_DEAD)
    {
      if (config->group >= 0
          && (fchown (place.lock_fd, (uid_t) -1, (gid_t) config->group) != 0 || fchmod (place.lock_fd, 0660) != 0))
        set_error (folder, "can't give the channel to the group", errno, error);
      else
        ok = serve_at (self, &place, folder, ferry_segment_transport_get_control_fd (transport),
                       ferry_segment_transport_get_data_fd (transport), config->group, error);
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
  place_leave (&place);
  return ok;
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

/* Whom we asked may be a broadcast receiver, which reads only, and we a sender; or an endpoint of this process the other
 * way round. The mode of the memfd says who may write, so it is opened anew as our role needs it. */
static void
suit_role (int control_fd, FerryRole role, int *data_fd)
{
  int wanted = ferry_segment_transport_wants_writable_data (control_fd, role) ? O_RDWR : O_RDONLY;
  char path[64];
  int fd;

  if ((fcntl (*data_fd, F_GETFL) & O_ACCMODE) == wanted)
    return;
  g_snprintf (path, sizeof path, "/proc/self/fd/%d", *data_fd);
  fd = open (path, wanted | O_CLOEXEC);
  if (fd < 0)
    return; /* the base says so if it matters */
  close (*data_fd);
  *data_fd = fd;
}

static gboolean
ferry_memfd_transport_attach (FerrySegmentTransport *transport, const FerryChannelConfig *config,
                              GCancellable *cancellable, GError **error)
{
  FerryMemfdTransport *self = FERRY_MEMFD_TRANSPORT (transport);
  g_autofree char *base = NULL;
  g_autofree char *folder = NULL;
  FerryMemfdExport *known;
  Place place;
  int control_fd = -1;
  int data_fd = -1;
  int status = 0;
  gint64 group = config->group;
  gboolean ok;

  if (config->name == NULL)
    return ferry_memfd_transport_attach_given (self, error);

  if (group < 0 && config->role == FERRY_ROLE_OBSERVER)
    group = self->group; /* of what was listed */
  base = base_directory (self, group);
  folder = g_build_filename (base, config->name, NULL);

  /* An endpoint of this process knows them already. The place need not be locked: if its last participant is just
   * withdrawing the channel, joining the segment will tell. */
  known = ferry_memfd_service_find (folder, config->role != FERRY_ROLE_OBSERVER, &control_fd, &data_fd);
  if (known != NULL)
    {
      suit_role (control_fd, config->role, &data_fd);
      ferry_segment_transport_take_fds (transport, control_fd, data_fd);
      if (config->role != FERRY_ROLE_OBSERVER)
        {
          ferry_memfd_service_renew (known, data_fd);
          self->export = known;
        }
      settle (self, folder, group);
      return TRUE;
    }

  if (!place_enter (&place, base, config->name, group, FALSE, cancellable, error))
    return FALSE;
  switch (ask_anybody (&place, config->role, cancellable, &control_fd, &data_fd, &status))
    {
    case ASK_OK:
      suit_role (control_fd, config->role, &data_fd);
      ferry_segment_transport_take_fds (transport, control_fd, data_fd);
      ok = check_seals (config->name, control_fd, error) && check_seals (config->name, data_fd, error);
      break;
    case ASK_DEAD:
      /* only the dead were here */
      if (config->role != FERRY_ROLE_OBSERVER)
        place_remove (&place);
      g_set_error (error, FERRY_ERROR, FERRY_ERROR_NOT_FOUND,
                   "no channel '%s' in %s; create it first, or open without open-mode=join", config->name, folder);
      ok = FALSE;
      break;
    case ASK_REFUSED:
      set_error (folder,
                 status == EACCES ? "the channel belongs to somebody else; open it with group=... on all sides"
                                  : "a participant refused us",
                 status, error);
      ok = FALSE;
      break;
    case ASK_SILENT:
    default:
      if (!g_cancellable_set_error_if_cancelled (cancellable, error))
        g_set_error (
            error, FERRY_ERROR, FERRY_ERROR_TIMED_OUT,
            "channel '%s' exists, but no participant answers: all that could hand its memory over are stopped; "
            "continue or end them",
            config->name);
      ok = FALSE;
      break;
    }
  if (ok && config->role != FERRY_ROLE_OBSERVER)
    {
      ok = serve_at (self, &place, folder, control_fd, data_fd, group, error);
    }
  else if (ok)
    {
      settle (self, folder, group);
    }
  place_leave (&place);
  return ok;
}

/* Removes the sockets of the dead and, when @control_fd is given, of those who serve that segment; then the place
 * itself if nobody is left. A new channel of that name may live there already. */
static void
clean_place (Place *place, int control_fd)
{
  gboolean any_left = FALSE;

  for (guint i = 0; i < place->n_sockets; i++)
    {
      int theirs = -1;
      int data_fd = -1;
      int status = 0;
      AskResult result = ask (place, i, FERRY_ROLE_OBSERVER, ANSWER_TIMEOUT_MS, NULL, &theirs, &data_fd, &status);

      if (result == ASK_DEAD || (result == ASK_OK && control_fd >= 0 && ferry_memfd_same_file (theirs, control_fd)))
        place_unlink (place, i);
      else
        any_left = TRUE;
      if (result == ASK_OK)
        {
          close (theirs);
          close (data_fd);
        }
    }
  if (!any_left)
    place_remove (place);
}

static gboolean
enter_own_place (FerryMemfdTransport *self, Place *place, char **name)
{
  g_autofree char *base = g_path_get_dirname (self->folder);

  *name = g_path_get_basename (self->folder);
  return place_enter (place, base, *name, self->group, FALSE, NULL, NULL);
}

static void
ferry_memfd_transport_withdraw (FerrySegmentTransport *transport)
{
  FerryMemfdTransport *self = FERRY_MEMFD_TRANSPORT (transport);
  g_autofree char *name = NULL;
  Place place;
  int control_fd = ferry_segment_transport_get_control_fd (transport);

  if (self->folder == NULL || !enter_own_place (self, &place, &name))
    return;
  /* The usual case: ours is the only socket. */
  if (self->export != NULL && place.n_sockets == ferry_memfd_service_get_index (self->export) + 1)
    place.n_sockets--;
  g_clear_pointer (&self->export, ferry_memfd_service_unexport);
  clean_place (&place, control_fd);
  place_leave (&place);
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
  g_autofree char *name = NULL;
  g_autoptr (GError) error = NULL;
  Place place;

  if (self->folder == NULL || self->export == NULL || !enter_own_place (self, &place, &name))
    return;
  if (!serve_at (self, &place, self->folder, ferry_segment_transport_get_control_fd (transport),
                 ferry_segment_transport_get_data_fd (transport), self->group, &error))
    g_warning ("channel '%s': a fork child can't be found by others: %s", name, error->message);
  place_leave (&place);
}

static char **
ferry_memfd_transport_list_names (FerrySegmentTransport *transport, GError **error)
{
  FerryMemfdTransport *self = FERRY_MEMFD_TRANSPORT (transport);
  g_autoptr (GStrvBuilder) names = g_strv_builder_new ();
  g_autofree char *base = base_directory (self, self->group);
  int fd = open (base, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  DIR *dir;
  struct dirent *entry;

  if (fd < 0)
    return g_strv_builder_end (names); /* nobody has met there */
  if (!check_directory (base, fd, self->group, error))
    {
      close (fd);
      return NULL;
    }
  dir = fdopendir (fd);
  if (dir == NULL)
    {
      set_error (base, "can't list the run-time directory", errno, error);
      close (fd);
      return NULL;
    }
  while ((entry = readdir (dir)) != NULL)
    if (g_str_has_suffix (entry->d_name, LOCK_SUFFIX))
      {
        g_autofree char *name = g_strndup (entry->d_name, strlen (entry->d_name) - strlen (LOCK_SUFFIX));

        g_strv_builder_add (names, name);
      }
  closedir (dir);
  return g_strv_builder_end (names);
}

/* A place in which nobody listens. */
static gboolean
ferry_memfd_transport_sweep (FerrySegmentTransport *transport, const char *name, GError **error)
{
  FerryMemfdTransport *self = FERRY_MEMFD_TRANSPORT (transport);
  g_autofree char *base = base_directory (self, self->group);
  g_autoptr (GError) local = NULL;
  Place place;

  if (!place_enter (&place, base, name, self->group, FALSE, NULL, &local))
    {
      if (g_error_matches (local, FERRY_ERROR, FERRY_ERROR_NOT_FOUND))
        return TRUE;
      g_propagate_error (error, g_steal_pointer (&local));
      return FALSE;
    }
  clean_place (&place, -1);
  place_leave (&place);
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
    case PROP_LISTING_GROUP:
      g_value_set_int64 (value, self->group);
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
    case PROP_LISTING_GROUP:
      /* in a channel it tells whose that is */
      if (self->folder == NULL && self->group != g_value_get_int64 (value))
        {
          self->group = g_value_get_int64 (value);
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
   * /dev/shm (or /tmp) a folder of the user's own, for a group in /tmp one of the group's.
   */
  properties[PROP_DIRECTORY] = g_param_spec_string (
      "directory", NULL, NULL, NULL, G_PARAM_READWRITE | G_PARAM_STATIC_STRINGS | G_PARAM_EXPLICIT_NOTIFY);

  /**
   * FerryMemfdTransport:control-fd:
   *
   * To join an anonymous channel: the descriptor of its control area; it stays the
   * caller's. When open: the descriptor to hand on. -1: none.
   */
  properties[PROP_CONTROL_FD] = g_param_spec_int ("control-fd", NULL, NULL, -1, G_MAXINT, -1,
                                                  G_PARAM_READWRITE | G_PARAM_STATIC_STRINGS | G_PARAM_EXPLICIT_NOTIFY);

  /**
   * FerryMemfdTransport:data-fd:
   *
   * Likewise for the data area.
   */
  properties[PROP_DATA_FD] = g_param_spec_int ("data-fd", NULL, NULL, -1, G_MAXINT, -1,
                                               G_PARAM_READWRITE | G_PARAM_STATIC_STRINGS | G_PARAM_EXPLICIT_NOTIFY);

  /**
   * FerryMemfdTransport:listing-group:
   *
   * Whose channels are listed, probed and swept: those that are open to the group of that id, which
   * meet in a directory of their own, or with -1 those of the user alone. Who is in a channel looks where that
   * one meets. Which channel a sender or receiver opens is up to [property@Channel:group] alone.
   */
  properties[PROP_LISTING_GROUP]
      = g_param_spec_int64 ("listing-group", NULL, NULL, -1, (gint64) G_MAXUINT32 - 1, -1,
                            G_PARAM_READWRITE | G_PARAM_STATIC_STRINGS | G_PARAM_EXPLICIT_NOTIFY);

  g_object_class_install_properties (object_class, N_PROPERTIES, properties);
}
