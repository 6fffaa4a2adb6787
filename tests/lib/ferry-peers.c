/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ferry-peers.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <glib/gstdio.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

/* Where the parent tells a spawned child the directories that it made. */
#define ENV_SHM_DIR "FERRY_SHM_DIR"
#define ENV_RUNTIME_DIR "XDG_RUNTIME_DIR"
#define ENV_SEED "FERRY_TEST_SEED"
#define ENV_IN_CHILD "FERRY_TEST_PEER"
/* Between two looks at a child, in microseconds. */
#define WAIT_PAUSE (300)

static char *shm_dir;
static char *runtime_dir;
static guint64 seed;
static guint n_reported;
static guint n_failed;
static pid_t main_pid;

/* ---- the test program ---- */

/*
 * ferry_peers_setup: the first call of main().
 *
 * Gives the test a directory for segments and one for sockets that no other test uses, so that whatever is in them at
 * the end was left behind by it. The seed is random unless FERRY_TEST_SEED says it.
 */
void
ferry_peers_setup (int argc, char **argv)
{
  const char *text = g_getenv (ENV_SEED);

  main_pid = getpid ();
  if (g_getenv (ENV_IN_CHILD) != NULL)
    {
      seed = g_ascii_strtoull (text, NULL, 0);
      prctl (PR_SET_PDEATHSIG, SIGKILL);
      return;
    }

  setvbuf (stdout, NULL, _IOLBF, 0);
  if (text != NULL && *text != '\0')
    seed = g_ascii_strtoull (text, NULL, 0);
  else
    seed = (guint64) g_get_real_time () ^ ((guint64) getpid () << 40);

  shm_dir = g_strdup ("/dev/shm/ferry-peers-XXXXXX");
  if (g_mkdtemp (shm_dir) == NULL)
    g_error ("can't make %s: %s", shm_dir, g_strerror (errno));
  runtime_dir = g_strdup ("/tmp/ferry-peers-XXXXXX"); /* short: sockets lie in it */
  if (g_mkdtemp (runtime_dir) == NULL)
    g_error ("can't make %s: %s", runtime_dir, g_strerror (errno));
  g_setenv (ENV_SHM_DIR, shm_dir, TRUE);
  g_setenv (ENV_RUNTIME_DIR, runtime_dir, TRUE);
  ferry_peers_note ("seed: " ENV_SEED "=%" G_GUINT64_FORMAT, seed);
}

static void
remove_all (const char *path)
{
  g_autoptr (GDir) dir = NULL;
  const char *entry;

  if (!g_file_test (path, G_FILE_TEST_IS_SYMLINK) && (dir = g_dir_open (path, 0, NULL)) != NULL)
    while ((entry = g_dir_read_name (dir)) != NULL)
      {
        g_autofree char *child = g_build_filename (path, entry, NULL);

        remove_all (child);
      }
  g_remove (path);
}

/* The last call: the plan of TAP; what main() returns. */
int
ferry_peers_finish (void)
{
  ferry_peers_sweep_names ();
  remove_all (shm_dir);
  remove_all (runtime_dir);
  g_clear_pointer (&shm_dir, g_free);
  g_clear_pointer (&runtime_dir, g_free);
  if (n_failed > 0)
    ferry_peers_note ("%u failed; to see the same again: " ENV_SEED "=%" G_GUINT64_FORMAT, n_failed, seed);
  printf ("1..%u\n", n_reported);
  return n_failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

gboolean
ferry_peers_is_thorough (void)
{
  return g_getenv ("FERRY_TEST_THOROUGH") != NULL;
}

/* Whether everything takes several times as long. */
gboolean
ferry_peers_is_sanitized (void)
{
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  return TRUE;
#else
  return g_getenv ("FERRY_TEST_VALGRIND") != NULL;
#endif
}

/* A line "ok" or "not ok" of TAP. */
void
ferry_peers_report (gboolean ok, const char *format, ...)
{
  va_list args;
  g_autofree char *text = NULL;

  va_start (args, format);
  text = g_strdup_vprintf (format, args);
  va_end (args);
  for (char *c = text; *c != '\0'; c++)
    if (*c == '#' || *c == '\n')
      *c = ' ';
  n_reported++;
  n_failed += !ok;
  printf ("%sok %u - %s\n", ok ? "" : "not ", n_reported, text);
}

/* A line that says something. */
void
ferry_peers_note (const char *format, ...)
{
  va_list args;
  g_autofree char *text = NULL;
  g_auto (GStrv) lines = NULL;

  va_start (args, format);
  text = g_strdup_vprintf (format, args);
  va_end (args);
  lines = g_strsplit (text, "\n", -1);
  for (guint i = 0; lines[i] != NULL; i++)
    printf ("# %s\n", lines[i]);
}

static guint
count_in (const char *path, const char *top, GString *list)
{
  g_autoptr (GDir) dir = g_dir_open (path, 0, NULL);
  const char *entry;
  guint n = 0;

  while (dir != NULL && (entry = g_dir_read_name (dir)) != NULL)
    {
      g_autofree char *child = g_build_filename (path, entry, NULL);
      gboolean is_folder = g_file_test (child, G_FILE_TEST_IS_DIR) && !g_file_test (child, G_FILE_TEST_IS_SYMLINK);

      /* The folder in which all channels of a user meet stays, as /dev/shm does. */
      if (!(is_folder && strcmp (path, top) == 0))
        {
          n++;
          if (list != NULL)
            g_string_append_printf (list, " %s", child);
        }
      if (is_folder)
        n += count_in (child, top, list);
    }
  return n;
}

/* Gives this process and its children directories apart, so that several can look for left names at a time. */
void
ferry_peers_enter (guint number)
{
  const char *names[] = { ENV_SHM_DIR, ENV_RUNTIME_DIR };

  for (guint i = 0; i < G_N_ELEMENTS (names); i++)
    {
      g_autofree char *path = g_strdup_printf ("%s/%u", g_getenv (names[i]), number);

      remove_all (path);
      if (g_mkdir (path, 0700) != 0)
        g_error ("mkdir %s: %s", path, g_strerror (errno));
      g_setenv (names[i], path, TRUE);
    }
}

/* How many names channels have left behind; @list: which. */
guint
ferry_peers_count_names (GString *list)
{
  const char *shm = g_getenv (ENV_SHM_DIR);
  const char *runtime = g_getenv (ENV_RUNTIME_DIR);

  return count_in (shm, shm, list) + count_in (runtime, runtime, list);
}

/* Removes all names, so that one test's are not taken for another's. */
void
ferry_peers_sweep_names (void)
{
  const char *places[] = { g_getenv (ENV_SHM_DIR), g_getenv (ENV_RUNTIME_DIR) };

  for (guint i = 0; i < G_N_ELEMENTS (places); i++)
    {
      g_autoptr (GDir) dir = g_dir_open (places[i], 0, NULL);
      const char *entry;

      while (dir != NULL && (entry = g_dir_read_name (dir)) != NULL)
        {
          g_autofree char *child = g_build_filename (places[i], entry, NULL);

          remove_all (child);
        }
    }
}

/* Open descriptors of this process. */
guint
ferry_peers_count_fds (void)
{
  DIR *dir = opendir ("/proc/self/fd");
  guint n = 0;

  while (dir != NULL && readdir (dir) != NULL)
    n++;
  if (dir != NULL)
    closedir (dir);
  return n > 3 ? n - 3 : 0; /* ".", ".." and the directory's own */
}

/* ---- processes ---- */

/* A child dies with this process. */
static pid_t
fork_bound (void)
{
  pid_t parent = getpid ();
  pid_t pid;

  fflush (stdout);
  pid = fork ();
  if (pid < 0)
    g_error ("fork: %s", g_strerror (errno));
  if (pid == 0)
    {
      prctl (PR_SET_PDEATHSIG, SIGKILL);
      if (getppid () != parent)
        _exit (EXIT_FAILURE);
    }
  return pid;
}

/* Runs the function in a child that dies with this process; its result is the exit status. */
pid_t
ferry_peers_fork (FerryPeerFunc func, gpointer data)
{
  pid_t pid = fork_bound ();

  if (pid > 0)
    return pid;
  exit (func (data));
}

/* Runs this program anew with those arguments; descriptors without close-on-exec come along. */
pid_t
ferry_peers_spawn (const char *const *arguments)
{
  g_autoptr (GPtrArray) argv = g_ptr_array_new ();
  g_autofree char *path = g_file_read_link ("/proc/self/exe", NULL);
  g_autofree char *seed_text = g_strdup_printf ("%" G_GUINT64_FORMAT, seed);
  pid_t pid;

  g_ptr_array_add (argv, path);
  for (guint i = 0; arguments[i] != NULL; i++)
    g_ptr_array_add (argv, (gpointer) arguments[i]);
  g_ptr_array_add (argv, NULL);

  pid = fork_bound ();
  if (pid > 0)
    return pid;
  g_setenv (ENV_IN_CHILD, "1", TRUE);
  g_setenv (ENV_SEED, seed_text, TRUE);
  execv (path, (char **) argv->pdata);
  _exit (127);
}

/* Waits for a child; after the time-out it is killed and the result is FALSE. */
gboolean
ferry_peers_wait (pid_t pid, gint64 timeout, int *status)
{
  gint64 end = g_get_monotonic_time () + timeout;

  for (;;)
    {
      pid_t got = waitpid (pid, status, WNOHANG);

      if (got == pid)
        return TRUE;
      if (got < 0 && errno != EINTR)
        {
          *status = 0;
          return FALSE;
        }
      if (g_get_monotonic_time () > end)
        break;
      g_usleep (WAIT_PAUSE);
    }
  kill (pid, SIGKILL);
  kill (pid, SIGCONT);
  waitpid (pid, status, 0);
  return FALSE;
}

gboolean
ferry_peers_ended_well (int status)
{
  return WIFEXITED (status) && WEXITSTATUS (status) == 0;
}

const char *
ferry_peers_tell_end (int status)
{
  static char text[64];

  if (WIFEXITED (status))
    g_snprintf (text, sizeof text, "exit status %d", WEXITSTATUS (status));
  else if (WIFSIGNALED (status))
    g_snprintf (text, sizeof text, "%s", g_strsignal (WTERMSIG (status)));
  else
    g_snprintf (text, sizeof text, "status 0x%x", status);
  return text;
}

/* Memory of zeroes that children share; @fd: what ferry_peers_map() takes in a spawned one. */
gpointer
ferry_peers_share (gsize size, int *fd)
{
  int own = memfd_create ("ferry-peers", 0);
  gpointer memory;

  if (own < 0 || ftruncate (own, (off_t) size) != 0)
    g_error ("memfd: %s", g_strerror (errno));
  memory = ferry_peers_map (own, size);
  if (fd != NULL)
    *fd = own;
  else
    close (own);
  return memory;
}

gpointer
ferry_peers_map (int fd, gsize size)
{
  gpointer memory = mmap (NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd, 0);

  if (memory == MAP_FAILED)
    g_error ("mmap: %s", g_strerror (errno));
  return memory;
}

/* ---- numbers ---- */

guint64
ferry_peers_seed (void)
{
  return seed;
}

void
ferry_random_init (FerryRandom *self, guint64 with)
{
  self->state = with;
}

/* SplitMix64 of Steele, Lea and Flood (2014). */
guint64
ferry_random_next (FerryRandom *self)
{
  guint64 z = self->state += G_GUINT64_CONSTANT (0x9e3779b97f4a7c15);

  z = (z ^ (z >> 30)) * G_GUINT64_CONSTANT (0xbf58476d1ce4e5b9);
  z = (z ^ (z >> 27)) * G_GUINT64_CONSTANT (0x94d049bb133111eb);
  return z ^ (z >> 31);
}

guint
ferry_random_below (FerryRandom *self, guint n)
{
  return (guint) (ferry_random_next (self) % n);
}

/* ---- payload ---- */

typedef struct
{
  guint32 sequence;
  guint16 key;
  guint16 tag;
  guint64 size_and_sum;
} Header;

G_STATIC_ASSERT (sizeof (Header) == FERRY_PAYLOAD_HEADER);

static guint64
header_sum (const Header *header, gsize size)
{
  FerryRandom random = { (guint64) header->sequence << 32 | (guint64) header->key << 16 | header->tag };

  return ferry_random_next (&random) ^ size;
}

/*
 * ferry_payload_fill: contents that follow from their header, every byte of them.
 *
 * A payload shorter than the header says nothing but its own length.
 */
void
ferry_payload_fill (guint8 *data, gsize size, guint16 key, guint32 sequence, guint16 tag)
{
  Header header = { .sequence = sequence, .key = key, .tag = tag };
  FerryRandom random;
  gsize at;

  if (size < sizeof header)
    {
      if (size > 0)
        memset (data, (int) (0xa0 | size), size);
      return;
    }
  header.size_and_sum = header_sum (&header, size);
  memcpy (data, &header, sizeof header);
  ferry_random_init (&random, header.size_and_sum);
  for (at = sizeof header; at + 8 <= size; at += 8)
    {
      guint64 word = ferry_random_next (&random);

      memcpy (data + at, &word, 8);
    }
  for (; at < size; at++)
    data[at] = (guint8) ferry_random_next (&random);
}

/* FALSE when any byte is not as it was sent. Of a short payload @sequence is 0. */
gboolean
ferry_payload_check (const guint8 *data, gsize size, guint16 *key, guint32 *sequence, guint16 *tag)
{
  Header header;
  FerryRandom random;
  gsize at;

  *key = *tag = 0;
  *sequence = 0;
  if (size < sizeof header)
    {
      for (at = 0; at < size; at++)
        if (data[at] != (guint8) (0xa0 | size))
          return FALSE;
      return TRUE;
    }
  memcpy (&header, data, sizeof header);
  if (header.size_and_sum != header_sum (&header, size))
    return FALSE;
  ferry_random_init (&random, header.size_and_sum);
  for (at = sizeof header; at + 8 <= size; at += 8)
    {
      guint64 word = ferry_random_next (&random);

      if (memcmp (data + at, &word, 8) != 0)
        return FALSE;
    }
  for (; at < size; at++)
    if (data[at] != (guint8) ferry_random_next (&random))
      return FALSE;
  *key = header.key;
  *sequence = header.sequence;
  *tag = header.tag;
  return TRUE;
}

/* ---- channels ---- */

/* An open channel with those properties, or NULL. */
FerryChannel *
ferry_peers_open (const char *transport, const char *name, FerryRole role, GError **error, const char *first_property,
                  ...)
{
  g_autoptr (FerryChannel) channel = ferry_channel_new (transport, name, role);

  if (first_property != NULL)
    {
      va_list args;

      va_start (args, first_property);
      g_object_set_valist (G_OBJECT (channel), first_property, args);
      va_end (args);
    }
  if (!ferry_channel_open (channel, NULL, error))
    return NULL;
  return g_steal_pointer (&channel);
}
