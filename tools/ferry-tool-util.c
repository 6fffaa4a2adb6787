/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* What the command-line tools have in common. */

#include "ferry-tool-util.h"

#include <errno.h>
#include <locale.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#define NUDGE_INTERVAL 50   /* ms between attempts to get a thread out of a system call */
#define NUDGE_SIGNAL SIGURG /* ignored by default, so that a late one does no harm */
#define OUTPUT_INTERVAL 50  /* ms between looks at whether the stream has ended after its reader left */
#define OUTPUT_PATIENCE (1 * G_TIME_SPAN_SECOND) /* from its reader's leaving to giving up */
#define LISTING_GROUP "listing-group"            /* the property of transports whose group channels meet elsewhere */
#define IMPATIENCE 500 /* ms from which on a second signal is a second one: timeout(1) sends each twice */

static const char *tool_name = "ferry";

void
tool_init (const char *name)
{
  setlocale (LC_ALL, "");
  g_set_prgname (name);
  tool_name = name;
}

void
tool_printerr (const char *format, ...)
{
  g_autofree char *message = NULL;
  va_list args;

  va_start (args, format);
  message = g_strdup_vprintf (format, args);
  va_end (args);
  g_printerr ("%s: %s\n", tool_name, message);
}

/* Returns the exit status for wrong usage. */
int
tool_fail_usage (const char *format, ...)
{
  g_autofree char *message = NULL;
  va_list args;

  va_start (args, format);
  message = g_strdup_vprintf (format, args);
  va_end (args);
  g_printerr ("%s: %s\nTry '%s --help'.\n", tool_name, message, tool_name);
  return TOOL_EXIT_USAGE;
}

/* Names come from other people's files: what a terminal would obey becomes `?`. */
char *
tool_make_printable (const char *text)
{
  g_autofree char *valid = g_utf8_make_valid (text, -1);
  GString *result = g_string_new (NULL);

  for (const char *p = valid; *p != '\0'; p = g_utf8_next_char (p))
    {
      gunichar c = g_utf8_get_char (p);

      g_string_append_unichar (result, g_unichar_isprint (c) ? c : '?');
    }
  return g_string_free (result, FALSE);
}

char *
tool_format_bytes (guint64 bytes)
{
  static const char *const suffixes[] = { "B", "KiB", "MiB", "GiB", "TiB", "PiB" };
  double value = (double) bytes;
  guint i = 0;

  while (value >= 1024 && i + 1 < G_N_ELEMENTS (suffixes))
    {
      value /= 1024;
      i++;
    }
  if (i == 0)
    return g_strdup_printf ("%" G_GUINT64_FORMAT " B", bytes);
  return g_strdup_printf ("%.*f %s", value < 10 ? 2 : value < 100 ? 1 : 0, value, suffixes[i]);
}

/* Parses a number of bytes with an optional binary suffix: 64, 4K, 1MiB, 2G. */
gboolean
tool_parse_size (const char *text, guint64 max, guint64 *size, GError **error)
{
  static const char suffixes[] = "KMGT";
  const char *suffix;
  char *end;
  guint64 value;
  guint shift = 0;

  errno = 0;
  value = g_ascii_strtoull (text, &end, 10);
  if (end == text || !g_ascii_isdigit (*text) || errno != 0)
    end = (char *) "?";

  suffix = *end != '\0' ? strchr (suffixes, g_ascii_toupper (*end)) : NULL;
  if (suffix != NULL)
    {
      shift = 10 * (guint) (suffix - suffixes + 1);
      end++;
      if (g_ascii_strncasecmp (end, "iB", 2) == 0)
        end++;
    }
  if (g_ascii_toupper (*end) == 'B')
    end++;
  if (*end != '\0')
    {
      g_set_error (error, G_OPTION_ERROR, G_OPTION_ERROR_BAD_VALUE,
                   "'%s' is not a size; sizes are numbers of bytes such as 64, 4K, 1M or 2G", text);
      return FALSE;
    }
  if (value > max >> shift)
    {
      g_autofree char *limit = tool_format_bytes (max);

      g_set_error (error, G_OPTION_ERROR, G_OPTION_ERROR_BAD_VALUE, "size '%s' is too large; the largest is %s", text,
                   limit);
      return FALSE;
    }
  *size = value << shift;
  return TRUE;
}

/* The names of the transports that can be used and have the capabilities, or of the
 * wanted ones; fails when a wanted one does not exist. */
GPtrArray *
tool_list_transports (const char *const *wanted, FerryTransportCapabilities capabilities, GError **error)
{
  FerryRegistry *registry = ferry_registry_get_default ();
  g_autoptr (GPtrArray) names = g_ptr_array_new_with_free_func (g_free);
  g_autoptr (GPtrArray) features = NULL;

  if (wanted != NULL)
    {
      for (guint i = 0; wanted[i] != NULL; i++)
        {
          g_autoptr (FerryTransport) transport = ferry_registry_create_transport (registry, wanted[i], error);

          if (transport == NULL)
            return NULL;
          g_ptr_array_add (names, g_strdup (wanted[i]));
        }
      return g_steal_pointer (&names);
    }

  features = ferry_registry_list_features (registry, FERRY_TYPE_TRANSPORT_FACTORY);
  for (guint i = 0; i < features->len; i++)
    {
      FerryFeature *feature = g_ptr_array_index (features, i);

      if (ferry_feature_get_reason (feature) == NULL
          && ferry_transport_factory_has_capabilities (FERRY_TRANSPORT_FACTORY (feature), capabilities))
        g_ptr_array_add (names, g_strdup (ferry_feature_get_name (feature)));
    }
  return g_steal_pointer (&names);
}

/* Whether one of the patterns matches; without patterns every name does. */
gboolean
tool_matches (const char *const *patterns, const char *name)
{
  for (guint i = 0; patterns != NULL && patterns[i] != NULL; i++)
    {
      if (g_pattern_match_simple (patterns[i], name))
        return TRUE;
    }
  return patterns == NULL;
}

static void
listing_free (gpointer data)
{
  ToolListing *self = data;

  g_clear_object (&self->transport);
  g_strfreev (self->names);
  g_free (self);
}

static gboolean
add_listing (GPtrArray *listings, const char *transport_name, gint64 group, gboolean *has_groups, GError **error)
{
  ToolListing *listing = g_new0 (ToolListing, 1);

  g_ptr_array_add (listings, listing);
  listing->group = group;
  listing->transport = ferry_registry_create_transport (ferry_registry_get_default (), transport_name, error);
  if (listing->transport == NULL)
    return FALSE;
  *has_groups = g_object_class_find_property (G_OBJECT_GET_CLASS (listing->transport), LISTING_GROUP) != NULL;
  if (group >= 0)
    g_object_set (listing->transport, LISTING_GROUP, group, NULL);
  listing->names = ferry_transport_list_channels (listing->transport, error);
  return listing->names != NULL;
}

/* The channels of a transport, as an array of ToolListing: for one whose group channels meet elsewhere
 * also those of every group of the user. */
GPtrArray *
tool_list_channels (const char *transport_name, GError **error)
{
  g_autoptr (GPtrArray) listings = g_ptr_array_new_with_free_func (listing_free);
  int room = MAX (getgroups (0, NULL), 0);
  g_autofree gid_t *groups = g_new (gid_t, (gsize) room + 1);
  int n_groups = room > 0 ? getgroups (room, groups) : 0;
  gboolean has_groups;

  if (!add_listing (listings, transport_name, -1, &has_groups, error))
    return NULL;
  if (!has_groups)
    return g_steal_pointer (&listings);

  /* getegid() may be among them or not: see getgroups(2). */
  n_groups = MAX (n_groups, 0);
  groups[n_groups++] = getegid ();
  for (int i = 0; i < n_groups; i++)
    {
      g_autoptr (GError) local = NULL;
      gboolean known = FALSE;

      for (int j = 0; j < i; j++)
        known |= groups[j] == groups[i];
      if (known || add_listing (listings, transport_name, groups[i], &has_groups, &local))
        continue;
      g_ptr_array_remove_index (listings, listings->len - 1);
      /* Anybody may have made a directory of that name: then no channel of the group is there. */
      if (!g_error_matches (local, FERRY_ERROR, FERRY_ERROR_PERMISSION))
        {
          g_propagate_error (error, g_steal_pointer (&local));
          return NULL;
        }
    }
  return g_steal_pointer (&listings);
}

struct _ToolSignals
{
  GCancellable *cancellable;
  GThread *thread;
  pthread_t main_thread;
  int wake_fd;
  int output_fd; /* watched for its reader's leaving, or -1 */
  int number;    /* atomic: the first signal that came */
  int broken;    /* atomic: the reader of the output left */
  int in_io;     /* atomic: the main thread may be in a system call that must be interrupted */
  int finished;  /* atomic */
};

/* Of the handler, which may run in any thread. Lock-free atomics are async-signal-safe. */
static int signal_fd = -1;
static atomic_int signal_number; /* the first one */
static atomic_llong signal_time; /* ms, when it came; 0: not yet known */

static void
signal_cb (int number)
{
  guint64 one = 1;
  int saved = errno;
  int none = 0;
  struct timespec now;
  long long now_ms;
  long long first_ms;

  clock_gettime (CLOCK_MONOTONIC, &now);
  now_ms = now.tv_sec * 1000LL + now.tv_nsec / 1000000;
  if (atomic_compare_exchange_strong (&signal_number, &none, number))
    atomic_store (&signal_time, now_ms);
  first_ms = atomic_load (&signal_time);
  if (first_ms != 0 && now_ms - first_ms > IMPATIENCE)
    _exit (TOOL_EXIT_SIGNAL_BASE + number);
  /* write() is async-signal-safe; an eventfd takes it without blocking. */
  if (write (signal_fd, &one, sizeof one) < 0)
    _exit (TOOL_EXIT_SIGNAL_BASE + number);
  errno = saved;
}

static void
nudge_cb (int number)
{
}

static void
cancel (ToolSignals *self)
{
  g_cancellable_cancel (self->cancellable);

  /* The main thread may have entered read() or write() just before. */
  while (!g_atomic_int_get (&self->finished) && g_atomic_int_get (&self->in_io))
    {
      pthread_kill (self->main_thread, NUDGE_SIGNAL);
      g_usleep (NUDGE_INTERVAL * G_TIME_SPAN_MILLISECOND);
    }
}

static gpointer
signals_main (gpointer data)
{
  ToolSignals *self = data;
  gint64 reader_left = 0;

  while (!g_atomic_int_get (&self->finished))
    {
      struct pollfd fds[] = { { self->wake_fd, POLLIN, 0 }, { g_atomic_int_get (&self->output_fd), 0, 0 } };
      gboolean awaited = reader_left != 0 && !g_atomic_int_get (&self->broken);
      guint64 count;

      if (poll (fds, G_N_ELEMENTS (fds), awaited ? OUTPUT_INTERVAL : -1) < 0)
        continue;

      if ((fds[0].revents & POLLIN) != 0 && read (self->wake_fd, &count, sizeof count) == sizeof count
          && atomic_load (&signal_number) != 0 && g_atomic_int_get (&self->number) == 0)
        {
          g_atomic_int_set (&self->number, atomic_load (&signal_number));
          cancel (self);
        }
      /* A reader such as tar leaves when it has all it wants, a moment before the end of
       * the stream comes. */
      if ((fds[1].revents & (POLLERR | POLLHUP)) != 0 && reader_left == 0)
        {
          reader_left = g_get_monotonic_time ();
          g_atomic_int_set (&self->output_fd, -1);
        }
      if (awaited && g_get_monotonic_time () - reader_left > OUTPUT_PATIENCE)
        {
          g_atomic_int_set (&self->broken, TRUE);
          cancel (self);
        }
    }
  return NULL;
}

static void
catch_signal (int number, void (*handler) (int))
{
  struct sigaction action = { .sa_handler = handler };
  struct sigaction old;

  /* All three block each other. */
  sigaddset (&action.sa_mask, SIGINT);
  sigaddset (&action.sa_mask, SIGTERM);
  sigaddset (&action.sa_mask, SIGHUP);

  /* A shell starts background jobs with SIGINT ignored, nohup with SIGHUP; they stay so. */
  if (handler == signal_cb && sigaction (number, NULL, &old) == 0 && old.sa_handler == SIG_IGN)
    return;
  sigaction (number, &action, NULL);
}

/* To be called from the main thread, once. */
ToolSignals *
tool_signals_new (GCancellable *cancellable)
{
  ToolSignals *self = g_new0 (ToolSignals, 1);

  self->cancellable = g_object_ref (cancellable);
  self->main_thread = pthread_self ();
  self->output_fd = -1;
  self->wake_fd = signal_fd = eventfd (0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (self->wake_fd < 0)
    g_error ("can't make an eventfd: %s", g_strerror (errno));
  self->thread = g_thread_new ("signals", signals_main, self);

  catch_signal (SIGINT, signal_cb);
  catch_signal (SIGTERM, signal_cb);
  catch_signal (SIGHUP, signal_cb);
  catch_signal (NUDGE_SIGNAL, nudge_cb);
  signal (SIGPIPE, SIG_IGN);
  return self;
}

static void
wake (ToolSignals *self)
{
  guint64 one = 1;

  /* It fails only when the count is at its end, and then the thread is awake. */
  if (write (self->wake_fd, &one, sizeof one) < 0)
    return;
}

void
tool_signals_free (ToolSignals *self)
{
  g_atomic_int_set (&self->finished, TRUE);
  wake (self);
  g_thread_join (self->thread);
  signal (SIGINT, SIG_DFL);
  signal (SIGTERM, SIG_DFL);
  signal (SIGHUP, SIG_DFL);
  close (self->wake_fd);
  g_object_unref (self->cancellable);
  g_free (self);
}

/* The number of the signal that came, or 0. */
int
tool_signals_get (ToolSignals *self)
{
  return g_atomic_int_get (&self->number);
}

/* Cancels also when nobody can read from that descriptor any more, which a process
 * that has nothing to write would learn only later. */
void
tool_signals_watch_output (ToolSignals *self, int fd)
{
  g_atomic_int_set (&self->output_fd, fd);
  wake (self);
}

gboolean
tool_signals_is_broken (ToolSignals *self)
{
  return g_atomic_int_get (&self->broken);
}

/* Between these the main thread's system calls are interrupted when it is cancelled. */
void
tool_signals_enter_io (ToolSignals *self)
{
  g_atomic_int_set (&self->in_io, TRUE);
}

void
tool_signals_leave_io (ToolSignals *self)
{
  g_atomic_int_set (&self->in_io, FALSE);
}
