/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "example-file-transport.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define SUFFIX ".ferry"
#define DEFAULT_DIRECTORY "/var/tmp"

struct _ExampleFileTransport
{
  FerrySegmentTransport parent_instance;

  char *directory;
  char *path;      /* under which the channel is found */
  char *temporary; /* while it is not complete */
};

enum
{
  PROP_DIRECTORY = 1,
  N_PROPERTIES,
};

static GParamSpec *properties[N_PROPERTIES];

G_DEFINE_FINAL_TYPE (ExampleFileTransport, example_file_transport, FERRY_TYPE_SEGMENT_TRANSPORT)

static gboolean
fail (ExampleFileTransport *self, const char *what, int saved_errno, GError **error)
{
  FerryError code = saved_errno == ENOENT                           ? FERRY_ERROR_NOT_FOUND
                    : saved_errno == EEXIST                         ? FERRY_ERROR_EXISTS
                    : saved_errno == EACCES || saved_errno == EPERM ? FERRY_ERROR_PERMISSION
                    : saved_errno == ENOSPC                         ? FERRY_ERROR_NO_SPACE
                                                                    : FERRY_ERROR_FAILED;

  g_set_error (error, FERRY_ERROR, code, "%s in %s: %s; name another directory=", what, self->directory,
               g_strerror (saved_errno));
  return FALSE;
}

/* Both areas lie in one file, the data behind the control area. */
static gboolean
take (ExampleFileTransport *self, int fd, guint64 control_size, gboolean writable, GError **error)
{
  char path[64];
  int data_fd;

  snprintf (path, sizeof path, "/proc/self/fd/%d", fd);
  data_fd = open (path, (writable ? O_RDWR : O_RDONLY) | O_CLOEXEC);
  if (data_fd < 0)
    {
      int saved_errno = errno;

      close (fd);
      return fail (self, "can't open the data area", saved_errno, error);
    }
  ferry_segment_transport_take_fds (FERRY_SEGMENT_TRANSPORT (self), fd, data_fd);
  ferry_segment_transport_set_data_offset (FERRY_SEGMENT_TRANSPORT (self), control_size);
  return TRUE;
}

static gboolean
example_file_transport_reserve (FerrySegmentTransport *transport, const FerryChannelConfig *config,
                                guint64 control_size, guint64 data_size, GError **error)
{
  ExampleFileTransport *self = EXAMPLE_FILE_TRANSPORT (transport);
  int fd;

  if (config->name == NULL)
    {
      g_set_error (error, FERRY_ERROR, FERRY_ERROR_INVALID_ARGUMENT, "transport file needs a name; give name=...");
      return FALSE;
    }
  g_free (self->temporary);
  self->temporary = g_strdup_printf ("%s/.ferry-XXXXXX", self->directory);
  fd = g_mkstemp_full (self->temporary, O_RDWR | O_CLOEXEC, 0600);
  if (fd < 0)
    return fail (self, "can't make a file", errno, error);
  if (ftruncate (fd, (off_t) (control_size + data_size)) != 0)
    {
      int saved_errno = errno;

      unlink (self->temporary);
      close (fd);
      return fail (self, "can't size the file", saved_errno, error);
    }
  return take (self, fd, control_size, TRUE, error);
}

/* A hard link appears at once or fails when the name is taken: nobody finds half a channel. */
static gboolean
example_file_transport_share (FerrySegmentTransport *transport, const FerryChannelConfig *config, GError **error)
{
  ExampleFileTransport *self = EXAMPLE_FILE_TRANSPORT (transport);
  int saved_errno;

  g_free (self->path);
  self->path = g_strconcat (self->directory, "/", config->name, SUFFIX, NULL);
  saved_errno = link (self->temporary, self->path) == 0 ? 0 : errno;
  unlink (self->temporary);
  return saved_errno == 0 || fail (self, "can't name the channel", saved_errno, error);
}

static gboolean
example_file_transport_attach (FerrySegmentTransport *transport, const FerryChannelConfig *config,
                               GCancellable *cancellable, GError **error)
{
  ExampleFileTransport *self = EXAMPLE_FILE_TRANSPORT (transport);
  guint64 control_size = 1; /* without a header: the base finds out and says so */
  struct stat st;
  int fd;

  if (config->name == NULL)
    return fail (self, "no name", ENOENT, error);
  g_free (self->path);
  self->path = g_strconcat (self->directory, "/", config->name, SUFFIX, NULL);
  fd = open (self->path, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
  if (fd < 0)
    return fail (self, "no such channel", errno, error);
  if (fstat (fd, &st) != 0 || !S_ISREG (st.st_mode) || st.st_uid != geteuid ())
    {
      close (fd);
      return fail (self, "the file is not ours", EACCES, error);
    }
  if (!ferry_segment_transport_read_control_size (fd, &control_size))
    control_size = 1;
  return take (self, fd, control_size, ferry_segment_transport_wants_writable_data (fd, config->role), error);
}

static void
example_file_transport_withdraw (FerrySegmentTransport *transport)
{
  ExampleFileTransport *self = EXAMPLE_FILE_TRANSPORT (transport);
  struct stat named;
  struct stat ours;

  /* The name may be another channel's by now. */
  if (self->path != NULL && lstat (self->path, &named) == 0
      && fstat (ferry_segment_transport_get_control_fd (transport), &ours) == 0 && named.st_dev == ours.st_dev
      && named.st_ino == ours.st_ino)
    unlink (self->path);
}

static char **
example_file_transport_list_names (FerrySegmentTransport *transport, GError **error)
{
  ExampleFileTransport *self = EXAMPLE_FILE_TRANSPORT (transport);
  g_autoptr (GStrvBuilder) names = g_strv_builder_new ();
  g_autoptr (GDir) dir = g_dir_open (self->directory, 0, NULL);
  const char *entry;

  while (dir != NULL && (entry = g_dir_read_name (dir)) != NULL)
    if (g_str_has_suffix (entry, SUFFIX))
      {
        g_autofree char *name = g_strndup (entry, strlen (entry) - strlen (SUFFIX));

        g_strv_builder_add (names, name);
      }
  return g_strv_builder_end (names);
}

static void
example_file_transport_get_property (GObject *object, guint property_id, GValue *value, GParamSpec *pspec)
{
  if (property_id == PROP_DIRECTORY)
    g_value_set_string (value, EXAMPLE_FILE_TRANSPORT (object)->directory);
  else
    G_OBJECT_WARN_INVALID_PROPERTY_ID (object, property_id, pspec);
}

static void
example_file_transport_set_property (GObject *object, guint property_id, const GValue *value, GParamSpec *pspec)
{
  ExampleFileTransport *self = EXAMPLE_FILE_TRANSPORT (object);

  if (property_id != PROP_DIRECTORY)
    {
      G_OBJECT_WARN_INVALID_PROPERTY_ID (object, property_id, pspec);
      return;
    }
  if (g_value_get_string (value) != NULL && strcmp (self->directory, g_value_get_string (value)) != 0)
    {
      g_free (self->directory);
      self->directory = g_value_dup_string (value);
      g_object_notify_by_pspec (object, pspec);
    }
}

static void
example_file_transport_finalize (GObject *object)
{
  ExampleFileTransport *self = EXAMPLE_FILE_TRANSPORT (object);

  g_free (self->directory);
  g_free (self->path);
  g_free (self->temporary);
  G_OBJECT_CLASS (example_file_transport_parent_class)->finalize (object);
}

static void
example_file_transport_init (ExampleFileTransport *self)
{
  self->directory = g_strdup (DEFAULT_DIRECTORY);
}

static void
example_file_transport_class_init (ExampleFileTransportClass *klass)
{
  GObjectClass *object_class = G_OBJECT_CLASS (klass);
  FerrySegmentTransportClass *segment_class = FERRY_SEGMENT_TRANSPORT_CLASS (klass);

  object_class->get_property = example_file_transport_get_property;
  object_class->set_property = example_file_transport_set_property;
  object_class->finalize = example_file_transport_finalize;
  segment_class->reserve = example_file_transport_reserve;
  segment_class->share = example_file_transport_share;
  segment_class->attach = example_file_transport_attach;
  segment_class->withdraw = example_file_transport_withdraw;
  segment_class->list_names = example_file_transport_list_names;

  properties[PROP_DIRECTORY] = g_param_spec_string (
      "directory", NULL, NULL, DEFAULT_DIRECTORY, G_PARAM_READWRITE | G_PARAM_STATIC_STRINGS | G_PARAM_EXPLICIT_NOTIFY);
  g_object_class_install_properties (object_class, N_PROPERTIES, properties);
}
