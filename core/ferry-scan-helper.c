/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ferry-config.h"

#include "ferry-scan-helper-private.h"

#include "ferry-error.h"
#include "ferry-plugin-private.h"
#include "ferry-registry-cache-private.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

/*
 * The helper gets the path of a file, ended by a NUL byte, and answers with one line of
 * JSON; then it gets the next one. It first says which version it is. Its standard input
 * and output are the two directions of one socket.
 *
 * One process looks at many files, because starting it takes longer than looking. When
 * it crashes or hangs the file that it was looking at is to blame, and the next file
 * gets a new process. A file that failed after others had been loaded into the same
 * process is tried once more in a new one: it may have been their doing.
 */

/* Milliseconds */
#define DEFAULT_TIMEOUT_MS (10 * 1000)

/* Microseconds; how long a process that closed its socket may take to end by itself, and
 * how often to look whether it has. */
#define END_TIMEOUT_US (G_USEC_PER_SEC)
#define END_POLL_US (500)

/* No honest answer is longer. */
#define ANSWER_MAX_BYTES (1024 * 1024)

struct _FerryScanHelper
{
  GPid pid; /* 0: not running */
  int fd;
  guint n_scanned;
  GByteArray *input; /* received and not yet used */
  gint64 timeout;    /* microseconds */
};

typedef enum
{
  ANSWER_OK,
  ANSWER_ENDED,
  ANSWER_LATE,
} Answer;

FerryScanHelper *
ferry_scan_helper_new (void)
{
  FerryScanHelper *self = g_new0 (FerryScanHelper, 1);
  const char *variable = ferry_plugin_getenv ("FERRY_PLUGIN_SCAN_TIMEOUT");
  guint64 milliseconds = DEFAULT_TIMEOUT_MS;

  if (variable != NULL && !g_ascii_string_to_unsigned (variable, 10, 1, G_MAXINT, &milliseconds, NULL))
    {
      g_warning ("FERRY_PLUGIN_SCAN_TIMEOUT is '%s', which is not a number of milliseconds; it is ignored", variable);
      milliseconds = DEFAULT_TIMEOUT_MS;
    }
  self->timeout = (gint64) milliseconds * 1000;
  self->input = g_byte_array_new ();
  self->fd = -1;

  return self;
}

/* Ends the process, in whatever state it is; returns its wait status, or -1 when it did
 * not end by itself or somebody else has collected it. */
static int
stop (FerryScanHelper *self, gboolean is_ending)
{
  gint64 deadline = g_get_monotonic_time () + (is_ending ? END_TIMEOUT_US : 0);
  gboolean is_killed = FALSE;
  int status = -1;
  pid_t result;

  if (self->pid == 0)
    return -1;

  while ((result = waitpid (self->pid, &status, WNOHANG)) == 0 || (result < 0 && errno == EINTR))
    {
      /* It has answered or it never will: nothing is lost. */
      if (!is_killed && g_get_monotonic_time () >= deadline)
        {
          kill (self->pid, SIGKILL);
          is_killed = TRUE;
        }
      g_usleep (END_POLL_US);
    }
  if (result < 0 || is_killed)
    status = -1;

  g_spawn_close_pid (self->pid);
  self->pid = 0;
  close (self->fd);
  self->fd = -1;
  self->n_scanned = 0;
  g_byte_array_set_size (self->input, 0);

  return status;
}

void
ferry_scan_helper_free (FerryScanHelper *self)
{
  stop (self, FALSE);
  g_byte_array_unref (self->input);
  g_free (self);
}

/* Reads one line, without its end. */
static Answer
read_line (FerryScanHelper *self, char **line)
{
  gint64 deadline = g_get_monotonic_time () + self->timeout;

  for (;;)
    {
      guint8 chunk[4096];
      guint8 *end = self->input->len > 0 ? memchr (self->input->data, '\n', self->input->len) : NULL;
      gint64 left;
      gssize n_read;
      struct pollfd pollfd = { .fd = self->fd, .events = POLLIN };

      if (end != NULL)
        {
          gsize length = (gsize) (end - self->input->data);

          *line = g_strndup ((const char *) self->input->data, length);
          g_byte_array_remove_range (self->input, 0, (guint) length + 1);
          return ANSWER_OK;
        }
      if (self->input->len > ANSWER_MAX_BYTES)
        return ANSWER_LATE;

      left = deadline - g_get_monotonic_time ();
      if (left <= 0)
        return ANSWER_LATE;
      if (poll (&pollfd, 1, (int) MIN (left / 1000 + 1, G_MAXINT)) <= 0)
        continue;

      n_read = read (self->fd, chunk, sizeof chunk);
      if (n_read > 0)
        g_byte_array_append (self->input, chunk, (guint) n_read);
      else if (n_read == 0 || (errno != EINTR && errno != EAGAIN))
        return ANSWER_ENDED;
    }
}

static char **
make_environment (void)
{
  /* The results are kept for other processes, so what a developer sets for this one must
   * not change them: with G_DEBUG=fatal-warnings a plugin that warns would be blacklisted. */
  return g_environ_unsetenv (g_get_environ (), "G_DEBUG");
}

static gboolean
start (FerryScanHelper *self, GError **error)
{
  const char *program = ferry_plugin_getenv ("FERRY_PLUGIN_SCANNER");
  g_auto (GStrv) environment = make_environment ();
  g_autoptr (GError) spawn_error = NULL;
  g_autofree char *line = NULL;
  const char *argv[] = { NULL, NULL };
  int fds[2];
  gboolean spawned;

  if (program == NULL || program[0] == '\0')
    program = FERRY_LIBEXECDIR "/ferry-plugin-scanner";
  argv[0] = program;

  if (socketpair (AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) != 0)
    {
      int saved_errno = errno;

      g_set_error (error, FERRY_ERROR, FERRY_ERROR_PLUGIN, "the plugin scanner can't be started: socketpair: %s",
                   g_strerror (saved_errno));
      return FALSE;
    }

  spawned = g_spawn_async_with_pipes_and_fds (NULL, argv, (const char *const *) environment, G_SPAWN_DO_NOT_REAP_CHILD,
                                              NULL, NULL, fds[1], fds[1], -1, NULL, NULL, 0, &self->pid, NULL, NULL,
                                              NULL, &spawn_error);
  close (fds[1]);
  if (!spawned)
    {
      close (fds[0]);
      self->pid = 0;
      g_set_error (error, FERRY_ERROR, FERRY_ERROR_PLUGIN,
                   "the plugin scanner '%s' can't be started: %s; FERRY_PLUGIN_SCANNER tells where it is", program,
                   spawn_error->message);
      return FALSE;
    }
  self->fd = fds[0];

  if (read_line (self, &line) != ANSWER_OK || strcmp (line, FERRY_SCANNER_GREETING FERRY_PACKAGE_VERSION) != 0)
    {
      stop (self, FALSE);
      g_set_error (error, FERRY_ERROR, FERRY_ERROR_PLUGIN,
                   "the plugin scanner '%s' does not work or is not of version " FERRY_PACKAGE_VERSION
                   "; FERRY_PLUGIN_SCANNER tells where it is",
                   program);
      return FALSE;
    }

  return TRUE;
}

static Answer
ask (FerryScanHelper *self, const char *filename, char **line)
{
  gsize size = strlen (filename) + 1;

  self->n_scanned++;
  for (gsize sent = 0; sent < size;)
    {
      /* A path fits into the socket's buffer, and the helper takes it at once. */
      gssize n = send (self->fd, filename + sent, size - sent, MSG_NOSIGNAL);

      if (n >= 0)
        sent += (gsize) n;
      else if (errno != EINTR)
        return ANSWER_ENDED;
    }

  return read_line (self, line);
}

static FerryPlugin *
parse_answer (const char *filename, const char *line)
{
  g_autoptr (JsonParser) parser = json_parser_new_immutable ();
  JsonNode *root;
  FerryPlugin *plugin = NULL;

  if (json_parser_load_from_data (parser, line, -1, NULL) && (root = json_parser_get_root (parser)) != NULL
      && JSON_NODE_HOLDS_OBJECT (root))
    plugin = ferry_plugin_from_json (filename, json_node_get_object (root));

  if (plugin == NULL)
    plugin = ferry_plugin_new_known (filename, FERRY_PLUGIN_STATE_BLACKLISTED,
                                     "it disturbed the scanner: the answer makes no sense", NULL, NULL, NULL, NULL);
  return plugin;
}

static char *
describe_end (int status)
{
  if (status >= 0 && WIFSIGNALED (status))
    return g_strdup_printf ("it crashed with signal %d (%s) while loading", WTERMSIG (status),
                            g_strsignal (WTERMSIG (status)));
  if (status >= 0 && WIFEXITED (status))
    return g_strdup_printf ("it ended the process, with exit status %d, while loading", WEXITSTATUS (status));
  return g_strdup ("it ended the process while loading");
}

static FerryPlugin *
scan_once (FerryScanHelper *self, const char *filename, GError **error)
{
  g_autofree char *line = NULL;
  g_autofree char *reason = NULL;

  if (self->pid == 0 && !start (self, error))
    return NULL;

  switch (ask (self, filename, &line))
    {
    case ANSWER_OK:
      return parse_answer (filename, line);
    case ANSWER_ENDED:
      reason = describe_end (stop (self, TRUE));
      break;
    case ANSWER_LATE:
    default:
      stop (self, FALSE);
      reason = g_strdup_printf ("loading it did not finish within %g s", (double) self->timeout / G_USEC_PER_SEC);
      break;
    }

  return ferry_plugin_new_known (filename, FERRY_PLUGIN_STATE_BLACKLISTED, reason, NULL, NULL, NULL, NULL);
}

/* Looks at a file. NULL only if there is no helper; whatever the file does is told by the
 * plugin's state. */
FerryPlugin *
ferry_scan_helper_scan (FerryScanHelper *self, const char *filename, GError **error)
{
  gboolean is_first = self->n_scanned == 0;
  FerryPlugin *plugin = scan_once (self, filename, error);

  if (plugin == NULL || is_first || ferry_plugin_get_state (plugin) == FERRY_PLUGIN_STATE_OK)
    return plugin;

  g_object_unref (plugin);
  stop (self, FALSE);
  return scan_once (self, filename, error);
}
