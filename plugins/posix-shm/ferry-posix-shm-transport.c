/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ferry-posix-shm-transport.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/**
 * FerryPosixShmTransport:
 *
 * Channels whose memory is a file in a tmpfs, by default in `/dev/shm`.
 *
 * Both areas lie in one file, `ferry-NAME`. It is made without a name (O_TMPFILE) and
 * linked when it is complete, so nobody ever finds half a segment and a creator that dies early leaves nothing.
 */

#define NAME_PREFIX "ferry-"
#define DEFAULT_DIRECTORY "/dev/shm"
#define DATA_ALIGNMENT (G_GUINT64_CONSTANT (2) * 1024 * 1024) /* bytes */
#define MODE_OWNER (0600)
#define MODE_GROUP (0660)

struct _FerryPosixShmTransport
{
  FerrySegmentTransport parent_instance;

  char *directory;
  char *path; /* of the segment we are in */
};

enum
{
  PROP_DIRECTORY = 1,
  N_PROPERTIES,
};

static GParamSpec *properties[N_PROPERTIES];

G_DEFINE_FINAL_TYPE (FerryPosixShmTransport, ferry_posix_shm_transport, FERRY_TYPE_SEGMENT_TRANSPORT)

static char *
path_for (FerryPosixShmTransport *self, const char *name)
{
  return g_strconcat (self->directory, "/" NAME_PREFIX, name, NULL);
}

static gboolean
set_error (FerryPosixShmTransport *self, const char *name, const char *what, int saved_errno, GError **error)
{
  FerryError code = FERRY_ERROR_FAILED;
  const char *hint = "";

  switch (saved_errno)
    {
    case EACCES:
    case EPERM:
      code = FERRY_ERROR_PERMISSION;
      hint = "; it belongs to somebody else: choose another name, or have it opened to a group";
      break;
    case ENOSPC:
    case ENOMEM:
      code = FERRY_ERROR_NO_SPACE;
      hint = "; remove files there, mount a larger tmpfs, or use transport memfd";
      break;
    case EEXIST:
      code = FERRY_ERROR_EXISTS;
      break;
    case ENOENT:
      code = FERRY_ERROR_NOT_FOUND;
      break;
    case EOPNOTSUPP:
      code = FERRY_ERROR_UNSUPPORTED;
      hint = "; the directory must lie in a tmpfs";
      break;
    default:
      break;
    }
  g_set_error (error, FERRY_ERROR, code, "channel '%s': %s in %s: %s%s", name, what, self->directory,
               g_strerror (saved_errno), hint);
  return FALSE;
}

/* The data area begins behind the control area, at a multiple of what a huge page takes, and never right behind it:
 * valgrind 3.19 loses count of a file's names when mappings of it that were made under two names touch each other, and the
 * file of a channel has its name only when it is shared. */
static guint64
data_offset_for (guint64 control_size)
{
  return (control_size / DATA_ALIGNMENT + 1) * DATA_ALIGNMENT;
}

static gboolean
ferry_posix_shm_transport_reserve (FerrySegmentTransport *transport, const FerryChannelConfig *config,
                                   guint64 control_size, guint64 data_size, GError **error)
{
  FerryPosixShmTransport *self = FERRY_POSIX_SHM_TRANSPORT (transport);
  int fd;
  int data_fd;

  if (config->name == NULL)
    {
      g_set_error (error, FERRY_ERROR, FERRY_ERROR_INVALID_ARGUMENT,
                   "transport posix-shm needs a name; give name=..., or use transport memfd for an anonymous channel");
      return FALSE;
    }
  fd = open (self->directory, O_TMPFILE | O_RDWR | O_CLOEXEC, MODE_OWNER);
  if (fd < 0)
    return set_error (self, config->name, "can't make a segment", errno, error);
  data_fd = fcntl (fd, F_DUPFD_CLOEXEC, 0);
  ferry_segment_transport_take_fds (transport, fd, data_fd);
  ferry_segment_transport_set_data_offset (transport, data_offset_for (control_size));
  if (data_fd < 0 || ftruncate (fd, (off_t) (data_offset_for (control_size) + data_size)) != 0)
    return set_error (self, config->name, "can't size a segment", errno, error);
  if (config->group >= 0 && (fchown (fd, (uid_t) -1, (gid_t) config->group) != 0 || fchmod (fd, MODE_GROUP) != 0))
    return set_error (self, config->name, "can't give the segment to the group", errno, error);
  return TRUE;
}

static gboolean
ferry_posix_shm_transport_share (FerrySegmentTransport *transport, const FerryChannelConfig *config, GError **error)
{
  FerryPosixShmTransport *self = FERRY_POSIX_SHM_TRANSPORT (transport);
  g_autofree char *path = path_for (self, config->name);
  g_autofree char *self_path = g_strdup_printf ("/proc/self/fd/%d", ferry_segment_transport_get_control_fd (transport));

  if (linkat (AT_FDCWD, self_path, AT_FDCWD, path, AT_SYMLINK_FOLLOW) != 0)
    return set_error (self, config->name, "can't name a segment", errno, error);
  g_free (self->path);
  self->path = g_steal_pointer (&path);
  return TRUE;
}

/* Segments of other users are refused, unless both sides said which group may meet there. */
static gboolean
check_owner (FerryPosixShmTransport *self, const FerryChannelConfig *config, const struct stat *st, GError **error)
{
  if (!S_ISREG (st->st_mode))
    {
      g_set_error (error, FERRY_ERROR, FERRY_ERROR_CORRUPT, "channel '%s': %s/" NAME_PREFIX "%s is no regular file",
                   config->name, self->directory, config->name);
      return FALSE;
    }
  if (st->st_uid == geteuid () || (config->group >= 0 && st->st_gid == (gid_t) config->group)
      || (geteuid () == 0 && config->role == FERRY_ROLE_OBSERVER))
    return TRUE;
  g_set_error (error, FERRY_ERROR, FERRY_ERROR_PERMISSION,
               "channel '%s' belongs to user %u, we are user %u; choose another name, or open it with group=%u on all "
               "sides",
               config->name, (guint) st->st_uid, (guint) geteuid (), (guint) st->st_gid);
  return FALSE;
}

static gboolean
ferry_posix_shm_transport_attach (FerrySegmentTransport *transport, const FerryChannelConfig *config,
                                  GCancellable *cancellable, GError **error)
{
  FerryPosixShmTransport *self = FERRY_POSIX_SHM_TRANSPORT (transport);
  g_autofree char *path = NULL;
  struct stat st;
  int fd;
  int data_fd;
  guint64 control_size = 0;

  if (config->name == NULL)
    {
      g_set_error (error, FERRY_ERROR, FERRY_ERROR_NOT_FOUND, "an anonymous channel can't be found by name");
      return FALSE;
    }
  path = path_for (self, config->name);
  fd = open (path, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
  if (fd < 0)
    return set_error (self, config->name, "no channel of that name", errno, error);
  if (fstat (fd, &st) != 0 || !check_owner (self, config, &st, error))
    {
      close (fd);
      return FALSE;
    }
  if (ferry_segment_transport_wants_writable_data (fd, config->role))
    {
      data_fd = fcntl (fd, F_DUPFD_CLOEXEC, 0);
    }
  else
    {
      g_autofree char *self_path = g_strdup_printf ("/proc/self/fd/%d", fd);

      data_fd = open (self_path, O_RDONLY | O_CLOEXEC);
    }
  if (data_fd < 0)
    {
      int saved_errno = errno;

      close (fd);
      return set_error (self, config->name, "can't open the data area", saved_errno, error);
    }
  ferry_segment_transport_take_fds (transport, fd, data_fd);
  /* Without a header the base says so when it checks. */
  if (!ferry_segment_transport_read_control_size (fd, &control_size))
    ferry_segment_transport_set_data_offset (transport, 1);
  else
    ferry_segment_transport_set_data_offset (transport, data_offset_for (control_size));
  g_free (self->path);
  self->path = g_steal_pointer (&path);
  return TRUE;
}

static void
ferry_posix_shm_transport_withdraw (FerrySegmentTransport *transport)
{
  FerryPosixShmTransport *self = FERRY_POSIX_SHM_TRANSPORT (transport);
  struct stat named;
  struct stat ours;

  /* The name may be another segment's by now. */
  if (self->path != NULL && lstat (self->path, &named) == 0
      && fstat (ferry_segment_transport_get_control_fd (transport), &ours) == 0 && named.st_dev == ours.st_dev
      && named.st_ino == ours.st_ino)
    unlink (self->path);
}

static char **
ferry_posix_shm_transport_list_names (FerrySegmentTransport *transport, GError **error)
{
  FerryPosixShmTransport *self = FERRY_POSIX_SHM_TRANSPORT (transport);
  g_autoptr (GStrvBuilder) names = g_strv_builder_new ();
  g_autoptr (GDir) dir = g_dir_open (self->directory, 0, NULL);
  const char *entry;

  while (dir != NULL && (entry = g_dir_read_name (dir)) != NULL)
    {
      g_autofree char *path = g_build_filename (self->directory, entry, NULL);

      if (g_str_has_prefix (entry, NAME_PREFIX) && g_file_test (path, G_FILE_TEST_IS_REGULAR))
        g_strv_builder_add (names, entry + strlen (NAME_PREFIX));
    }
  return g_strv_builder_end (names);
}

static void
ferry_posix_shm_transport_get_property (GObject *object, guint property_id, GValue *value, GParamSpec *pspec)
{
  FerryPosixShmTransport *self = FERRY_POSIX_SHM_TRANSPORT (object);

  switch (property_id)
    {
    case PROP_DIRECTORY:
      g_value_set_string (value, self->directory);
      break;
    default:
      G_OBJECT_WARN_INVALID_PROPERTY_ID (object, property_id, pspec);
      break;
    }
}

static void
ferry_posix_shm_transport_set_property (GObject *object, guint property_id, const GValue *value, GParamSpec *pspec)
{
  FerryPosixShmTransport *self = FERRY_POSIX_SHM_TRANSPORT (object);
  const char *text;

  switch (property_id)
    {
    case PROP_DIRECTORY:
      text = g_value_get_string (value);
      if (g_strcmp0 (self->directory, text) == 0 || text == NULL)
        break;
      g_free (self->directory);
      self->directory = g_strdup (text);
      g_object_notify_by_pspec (object, pspec);
      break;
    default:
      G_OBJECT_WARN_INVALID_PROPERTY_ID (object, property_id, pspec);
      break;
    }
}

static void
ferry_posix_shm_transport_finalize (GObject *object)
{
  FerryPosixShmTransport *self = FERRY_POSIX_SHM_TRANSPORT (object);

  /* The base still needs the path while it leaves: it does so in dispose. */
  g_clear_pointer (&self->directory, g_free);
  g_clear_pointer (&self->path, g_free);
  G_OBJECT_CLASS (ferry_posix_shm_transport_parent_class)->finalize (object);
}

static void
ferry_posix_shm_transport_init (FerryPosixShmTransport *self)
{
  const char *directory = g_getenv ("FERRY_SHM_DIR");

  self->directory = g_strdup (directory != NULL && *directory != '\0' ? directory : DEFAULT_DIRECTORY);
}

static void
ferry_posix_shm_transport_class_init (FerryPosixShmTransportClass *klass)
{
  GObjectClass *object_class = G_OBJECT_CLASS (klass);
  FerrySegmentTransportClass *segment_class = FERRY_SEGMENT_TRANSPORT_CLASS (klass);

  object_class->get_property = ferry_posix_shm_transport_get_property;
  object_class->set_property = ferry_posix_shm_transport_set_property;
  object_class->finalize = ferry_posix_shm_transport_finalize;
  segment_class->reserve = ferry_posix_shm_transport_reserve;
  segment_class->share = ferry_posix_shm_transport_share;
  segment_class->attach = ferry_posix_shm_transport_attach;
  segment_class->withdraw = ferry_posix_shm_transport_withdraw;
  segment_class->list_names = ferry_posix_shm_transport_list_names;

  /**
   * FerryPosixShmTransport:directory:
   *
   * The directory of the segments; it must lie in a tmpfs. The environment variable
   * `FERRY_SHM_DIR` sets the default.
   */
  properties[PROP_DIRECTORY] = g_param_spec_string (
      "directory", NULL, NULL, DEFAULT_DIRECTORY, G_PARAM_READWRITE | G_PARAM_STATIC_STRINGS | G_PARAM_EXPLICIT_NOTIFY);
  g_object_class_install_properties (object_class, N_PROPERTIES, properties);
}
