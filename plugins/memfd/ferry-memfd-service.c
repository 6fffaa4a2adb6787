/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Hands the descriptors of this process's named segments to joiners. One thread serves
 * the whole process; it sleeps in epoll_wait() and costs nothing when nobody joins.
 * Every process in a channel serves, so a channel goes on when its creator is gone. */

#include "ferry-memfd-service.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define BACKLOG (64)
#define EVENTS_AT_ONCE (16)
/* Joiners that connected and have not asked yet. Beyond that the oldest is sent away. */
#define CLIENTS_MAX (64)

struct _FerryMemfdExport
{
  guint ref_count;
  char *directory;
  char *socket_path;
  int control_fd;
  dev_t device; /* of the control area's memfd, with its inode */
  ino_t inode;
  int data_fd;
  gboolean writable; /* data_fd */
  int listen_fd;
  dev_t socket_device; /* of the socket in the file system, with its inode */
  ino_t socket_inode;
  guint index;
  gint64 group;
};

typedef struct
{
  int fd;
  FerryMemfdExport *export; /* unowned: clients go before their export */
} Client;

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static GPtrArray *exports; /* of FerryMemfdExport */
static GArray *clients;    /* of Client, oldest first */
static int epoll_fd = -1;
static gboolean running;

/* Private: whether the process at the other end is of our user, or in the group. */
gboolean
ferry_memfd_uid_is_welcome (int socket_fd, gint64 group)
{
  struct ucred peer;
  socklen_t length = sizeof peer;
  gid_t groups[256];

  if (getsockopt (socket_fd, SOL_SOCKET, SO_PEERCRED, &peer, &length) != 0)
    return FALSE;
  if (peer.uid == geteuid () || peer.uid == 0)
    return TRUE;
  if (group < 0)
    return FALSE;
  if ((gint64) peer.gid == group)
    return TRUE;
  length = sizeof groups;
  if (getsockopt (socket_fd, SOL_SOCKET, SO_PEERGROUPS, groups, &length) != 0)
    return FALSE;
  for (guint i = 0; i < length / sizeof (gid_t); i++)
    if ((gint64) groups[i] == group)
      return TRUE;
  return FALSE;
}

static void
drop_client (guint index)
{
  close (g_array_index (clients, Client, index).fd);
  g_array_remove_index (clients, index);
}

static void
answer (int fd, FerryMemfdExport *export, const FerryMemfdRequest *request)
{
  FerryMemfdReply reply = { FERRY_MEMFD_MAGIC, FERRY_MEMFD_VERSION, 0, 0 };
  union
  {
    struct cmsghdr header;
    char buffer[CMSG_SPACE (2 * sizeof (int))];
  } control = { .buffer = { 0 } };
  struct iovec iov = { &reply, sizeof reply };
  struct msghdr message = { .msg_iov = &iov, .msg_iovlen = 1 };
  int data_fd = -1;

  if (request->magic != FERRY_MEMFD_MAGIC || request->version != FERRY_MEMFD_VERSION)
    {
      reply.status = EPROTO;
    }
  else
    {
      gboolean writable = ferry_segment_transport_wants_writable_data (export->control_fd, (FerryRole) request->role);
      g_autofree char *path = g_strdup_printf ("/proc/self/fd/%d", export->data_fd);

      /* Who only reads gets a description that can't be mapped for writing. */
      data_fd = writable ? fcntl (export->data_fd, F_DUPFD_CLOEXEC, 0) : open (path, O_RDONLY | O_CLOEXEC);
      if (data_fd < 0)
        {
          reply.status = (guint32) errno;
        }
      else
        {
          struct cmsghdr *header;

          message.msg_control = control.buffer;
          message.msg_controllen = sizeof control.buffer;
          header = CMSG_FIRSTHDR (&message);
          header->cmsg_level = SOL_SOCKET;
          header->cmsg_type = SCM_RIGHTS;
          header->cmsg_len = CMSG_LEN (2 * sizeof (int));
          memcpy (CMSG_DATA (header), (int[2]){ export->control_fd, data_fd }, 2 * sizeof (int));
        }
    }
  while (sendmsg (fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT) < 0 && errno == EINTR)
    ;
  if (data_fd >= 0)
    close (data_fd);
}

static void
welcome (FerryMemfdExport *export)
{
  int fd = accept4 (export->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
  Client client = { fd, export };
  struct epoll_event event = { .events = EPOLLIN, .data.fd = fd };

  if (fd < 0)
    return;
  if (!ferry_memfd_uid_is_welcome (fd, export->group))
    {
      FerryMemfdReply reply = { FERRY_MEMFD_MAGIC, FERRY_MEMFD_VERSION, EACCES, 0 };

      if (send (fd, &reply, sizeof reply, MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
        g_debug ("can't refuse a joiner: %s", g_strerror (errno));
      close (fd);
      return;
    }
  if (clients->len >= CLIENTS_MAX)
    drop_client (0);
  if (epoll_ctl (epoll_fd, EPOLL_CTL_ADD, fd, &event) != 0)
    {
      close (fd);
      return;
    }
  g_array_append_val (clients, client);
}

static gpointer
serve (gpointer data)
{
  struct epoll_event events[EVENTS_AT_ONCE];
  int own_epoll_fd = GPOINTER_TO_INT (data);

  for (;;)
    {
      int n = epoll_wait (own_epoll_fd, events, EVENTS_AT_ONCE, -1);

      if (n < 0 && errno != EINTR)
        return NULL;
      pthread_mutex_lock (&mutex);
      for (int i = 0; i < n; i++)
        {
          int fd = events[i].data.fd;
          gboolean done = FALSE;

          /* what an earlier event of this round closed is not found any more */
          for (guint j = 0; j < exports->len && !done; j++)
            {
              FerryMemfdExport *export = g_ptr_array_index (exports, j);

              if (export->listen_fd == fd)
                {
                  welcome (export);
                  done = TRUE;
                }
            }
          for (guint j = 0; j < clients->len && !done; j++)
            {
              Client *client = &g_array_index (clients, Client, j);
              FerryMemfdRequest request;

              if (client->fd != fd)
                continue;
              if (recv (fd, &request, sizeof request, MSG_DONTWAIT) == (gssize) sizeof request)
                answer (fd, client->export, &request);
              drop_client (j);
              done = TRUE;
            }
        }
      pthread_mutex_unlock (&mutex);
    }
}

static void
close_export (FerryMemfdExport *export)
{
  for (guint i = clients->len; i-- > 0;)
    if (g_array_index (clients, Client, i).export == export)
      drop_client (i);
  if (export->listen_fd >= 0)
    close (export->listen_fd);
  if (export->control_fd >= 0)
    close (export->control_fd);
  if (export->data_fd >= 0)
    close (export->data_fd);
  g_free (export->directory);
  g_free (export->socket_path);
  g_free (export);
}

static void
atfork_prepare (void)
{
  pthread_mutex_lock (&mutex);
}

static void
atfork_parent (void)
{
  pthread_mutex_unlock (&mutex);
}

/* The thread and the sockets are the parent's. */
static void
atfork_child (void)
{
  running = FALSE;
  if (epoll_fd >= 0)
    close (epoll_fd);
  epoll_fd = -1;
  for (guint i = 0; clients != NULL && i < clients->len; i++)
    close (g_array_index (clients, Client, i).fd);
  if (clients != NULL)
    g_array_set_size (clients, 0);
  for (guint i = 0; exports != NULL && i < exports->len; i++)
    {
      FerryMemfdExport *export = g_ptr_array_index (exports, i);

      if (export->listen_fd >= 0)
        close (export->listen_fd);
      export->listen_fd = -1;
    }
  pthread_mutex_unlock (&mutex);
}

/* Under the mutex. */
static gboolean
ensure_running (GError **error)
{
  static gboolean prepared;
  sigset_t all;
  sigset_t before;
  g_autoptr (GThread) thread = NULL;

  if (!prepared)
    {
      pthread_atfork (atfork_prepare, atfork_parent, atfork_child);
      exports = g_ptr_array_new ();
      clients = g_array_new (FALSE, FALSE, sizeof (Client));
      prepared = TRUE;
    }
  if (running)
    return TRUE;
  epoll_fd = epoll_create1 (EPOLL_CLOEXEC);
  if (epoll_fd < 0)
    {
      g_set_error (error, FERRY_ERROR, FERRY_ERROR_FAILED, "can't serve joiners: epoll_create1: %s",
                   g_strerror (errno));
      return FALSE;
    }
  /* The application's signals are not this thread's business. */
  sigfillset (&all);
  pthread_sigmask (SIG_SETMASK, &all, &before);
  thread = g_thread_try_new ("ferry-memfd", serve, GINT_TO_POINTER (epoll_fd), error);
  pthread_sigmask (SIG_SETMASK, &before, NULL);
  if (thread == NULL)
    {
      close (epoll_fd);
      epoll_fd = -1;
      return FALSE;
    }
  running = TRUE;
  return TRUE;
}

/* Private: listens at that path. %FERRY_ERROR_EXISTS: there is a socket already. */
gboolean
ferry_memfd_service_listen (FerryMemfdExport *export, const char *path, guint index, GError **error)
{
  struct sockaddr_un address = { .sun_family = AF_UNIX };
  struct epoll_event event = { .events = EPOLLIN };
  struct stat socket_stat;
  int fd = socket (AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  gboolean bound = FALSE;
  gboolean ok = FALSE;
  int saved_errno;

  g_strlcpy (address.sun_path, path, sizeof address.sun_path);
  if (fd >= 0)
    bound = bind (fd, (struct sockaddr *) &address, sizeof address) == 0;
  if (bound && (export->group < 0 || (chmod (path, 0660) == 0 && chown (path, (uid_t) -1, (gid_t) export->group) == 0))
      && listen (fd, BACKLOG) == 0)
    {
      pthread_mutex_lock (&mutex);
      event.data.fd = fd;
      ok = lstat (path, &socket_stat) == 0 && epoll_ctl (epoll_fd, EPOLL_CTL_ADD, fd, &event) == 0;
      if (ok)
        {
          export->socket_device = socket_stat.st_dev;
          export->socket_inode = socket_stat.st_ino;
          g_autofree char *parent = g_path_get_dirname (export->directory);
          g_autofree char *name = g_path_get_basename (path);

          export->listen_fd = fd;
          export->index = index;
          g_free (export->socket_path);
          export->socket_path = g_build_filename (parent, name, NULL);
        }
      pthread_mutex_unlock (&mutex);
    }
  if (ok)
    return TRUE;
  saved_errno = errno;
  if (bound)
    unlink (path);
  if (fd >= 0)
    close (fd);
  g_set_error (error, FERRY_ERROR,
               saved_errno == EADDRINUSE && !bound             ? FERRY_ERROR_EXISTS
               : saved_errno == EACCES || saved_errno == EPERM ? FERRY_ERROR_PERMISSION
                                                               : FERRY_ERROR_FAILED,
               "can't serve joiners of %s: %s", export->directory, g_strerror (saved_errno));
  return FALSE;
}

/* Private: */
gboolean
ferry_memfd_service_is_listening (FerryMemfdExport *export)
{
  return export->listen_fd >= 0;
}

/* Private: the index of its socket. */
guint
ferry_memfd_service_get_index (FerryMemfdExport *export)
{
  return export->index;
}

static FerryMemfdExport *
find_export (const char *directory)
{
  for (guint i = 0; exports != NULL && i < exports->len; i++)
    {
      FerryMemfdExport *export = g_ptr_array_index (exports, i);

      if (strcmp (export->directory, directory) == 0)
        return export;
    }
  return NULL;
}

static gboolean
fd_is_writable (int fd)
{
  int flags = fcntl (fd, F_GETFL);

  return flags >= 0 && (flags & O_ACCMODE) == O_RDWR;
}

/* Private: */
gboolean
ferry_memfd_same_file (int a, int b)
{
  struct stat stat_a;
  struct stat stat_b;

  return fstat (a, &stat_a) == 0 && fstat (b, &stat_b) == 0 && stat_a.st_dev == stat_b.st_dev
         && stat_a.st_ino == stat_b.st_ino;
}

/* Private: another endpoint of the same segment has this descriptor. The first one may have been one that only reads. */
void
ferry_memfd_service_renew (FerryMemfdExport *export, int data_fd)
{
  pthread_mutex_lock (&mutex);
  if (!export->writable && fd_is_writable (data_fd))
    {
      int fd = fcntl (data_fd, F_DUPFD_CLOEXEC, 0);

      if (fd >= 0)
        {
          close (export->data_fd);
          export->data_fd = fd;
          export->writable = TRUE;
        }
    }
  pthread_mutex_unlock (&mutex);
}

/* Private: the segment of the channel at @directory (the run-time directory and the name) is to be
 * served; the caller then lets it listen, unless it does already. */
FerryMemfdExport *
ferry_memfd_service_export (const char *directory, int control_fd, int data_fd, gint64 group, GError **error)
{
  FerryMemfdExport *export;
  struct stat control_stat = { 0 };

  fstat (control_fd, &control_stat);
  pthread_mutex_lock (&mutex);
  if (!ensure_running (error))
    {
      pthread_mutex_unlock (&mutex);
      return NULL;
    }
  export = find_export (directory);
  if (export != NULL && export->device == control_stat.st_dev && export->inode == control_stat.st_ino)
    {
      export->ref_count++;
      pthread_mutex_unlock (&mutex);
      ferry_memfd_service_renew (export, data_fd);
      return export;
    }
  export = g_new0 (FerryMemfdExport, 1);
  export->ref_count = 1;
  export->directory = g_strdup (directory);
  export->group = group;
  export->control_fd = fcntl (control_fd, F_DUPFD_CLOEXEC, 0);
  export->data_fd = fcntl (data_fd, F_DUPFD_CLOEXEC, 0);
  export->device = control_stat.st_dev;
  export->inode = control_stat.st_ino;
  export->writable = fd_is_writable (data_fd);
  export->listen_fd = -1;
  if (export->control_fd < 0 || export->data_fd < 0)
    {
      g_set_error (error, FERRY_ERROR, FERRY_ERROR_FAILED, "can't serve joiners: %s; raise the limit of open files",
                   g_strerror (errno));
      close_export (export);
      export = NULL;
    }
  else
    {
      g_ptr_array_add (exports, export);
    }
  pthread_mutex_unlock (&mutex);
  return export;
}

/* Who withdrew the channel has removed our socket already; what is there now may be that of the next channel of this
 * name. */
static void
remove_socket (const FerryMemfdExport *export)
{
  struct stat st;

  if (export->listen_fd >= 0 && lstat (export->socket_path, &st) == 0 && st.st_dev == export->socket_device
      && st.st_ino == export->socket_inode)
    unlink (export->socket_path);
}

/* Private: undoes one ferry_memfd_service_export(). */
void
ferry_memfd_service_unexport (FerryMemfdExport *export)
{
  pthread_mutex_lock (&mutex);
  if (--export->ref_count == 0)
    {
      remove_socket (export);
      g_ptr_array_remove_fast (exports, export);
      close_export (export);
    }
  pthread_mutex_unlock (&mutex);
}

/* Private: what this process serves at that directory, if it is in that channel already and listens; with
 * duplicates of its descriptors. The data descriptor may be writable. @reference: the caller serves it too, and undoes that
 * with ferry_memfd_service_unexport(). */
FerryMemfdExport *
ferry_memfd_service_find (const char *directory, gboolean reference, int *control_fd, int *data_fd)
{
  FerryMemfdExport *export;

  pthread_mutex_lock (&mutex);
  export = find_export (directory);
  if (export != NULL && export->listen_fd >= 0)
    {
      *control_fd = fcntl (export->control_fd, F_DUPFD_CLOEXEC, 0);
      *data_fd = fcntl (export->data_fd, F_DUPFD_CLOEXEC, 0);
      if (*control_fd < 0 || *data_fd < 0)
        {
          if (*control_fd >= 0)
            close (*control_fd);
          if (*data_fd >= 0)
            close (*data_fd);
          *control_fd = *data_fd = -1;
          export = NULL;
        }
      else if (reference)
        {
          export->ref_count++;
        }
    }
  else
    {
      export = NULL;
    }
  pthread_mutex_unlock (&mutex);
  return export;
}
