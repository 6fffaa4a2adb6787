/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* ferry-cat: joins standard input or output to a channel. */

#include "ferry-tool-util.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define DEFAULT_BLOCK_SIZE (256 * 1024)               /* bytes; a few of them fit into a second-level cache */
#define MAX_BLOCK_SIZE (G_GUINT64_CONSTANT (1) << 30) /* bytes */
#define PIPE_SIZE (1024 * 1024)                       /* bytes that a pipe on standard input shall hold, if it may */
#define MAX_PEERS 1024
#define PROGRESS_INTERVAL (200 * G_TIME_SPAN_MILLISECOND)
#define LOOK_INTERVAL (500 * G_TIME_SPAN_MILLISECOND)
#define INPUT_INTERVAL (250 * G_TIME_SPAN_MILLISECOND) /* between looks at the peers while input is awaited */
#define PEER_INTERVAL (10 * G_TIME_SPAN_MILLISECOND)   /* between looks at the peers while they are awaited */
#define FAREWELL_LIMIT (2 * G_TIME_SPAN_SECOND)        /* for receivers to leave after the end of the stream */
#define MAX_TIMEOUT 1e9                                /* seconds */

#define BROKEN_OUTPUT "nobody reads standard output any more; the stream ends here"

static char *opt_send;
static char *opt_receive;
static char *opt_block_size;
static int opt_wait_receivers = -1;
static double opt_timeout;
static gboolean opt_progress;
static gboolean opt_quiet;
static gboolean opt_version;
static char **opt_rest;

static const GOptionEntry entries[] = {
  { "send", 's', 0, G_OPTION_ARG_STRING, &opt_send, "Send standard input into the channel", "DESCRIPTION" },
  { "receive", 'r', 0, G_OPTION_ARG_STRING, &opt_receive, "Write what comes out of the channel to standard output",
    "DESCRIPTION" },
  { "block-size", 'b', 0, G_OPTION_ARG_STRING, &opt_block_size, "Bytes of a message at most (default: 256K)", "SIZE" },
  { "wait-receivers", 'w', 0, G_OPTION_ARG_INT, &opt_wait_receivers,
    "Send when that many receivers have joined (default: 0, 1 in broadcast)", "N" },
  { "timeout", 't', 0, G_OPTION_ARG_DOUBLE, &opt_timeout, "Give up when nothing moves for that long (default: never)",
    "SECONDS" },
  { "progress", 'p', 0, G_OPTION_ARG_NONE, &opt_progress,
    "Show progress; only its end when standard error is no terminal", NULL },
  { "quiet", 'q', 0, G_OPTION_ARG_NONE, &opt_quiet, "No progress, and no word but of errors", NULL },
  { "version", 0, 0, G_OPTION_ARG_NONE, &opt_version, "Print the version", NULL },
  { G_OPTION_REMAINING, 0, 0, G_OPTION_ARG_STRING_ARRAY, &opt_rest, NULL, NULL },
  { NULL },
};

typedef struct
{
  FerryChannel *channel;
  FerryRole role;
  GCancellable *cancellable;
  int cancel_fd;
  ToolSignals *signals;
  guint64 block_size; /* bytes */
  gint64 timeout;     /* µs without movement; 0: none */
  gboolean progress;
  gboolean terminal; /* progress is drawn over itself */

  /* What the signals of the channel told. */
  gboolean had_peer;     /* somebody of the other role was there */
  gboolean peer_gone;    /* somebody of the other role went since the last look */
  guint64 seen_messages; /* that the other side had sent or taken before we came */
  guint64 seen_repairs;  /* deaths in the channel that are no news: before we came, or of our own role */
  gboolean peer_died;    /* one of those that went was killed or crashed */
  gint64 dead_pid;
  gboolean closed;
  gboolean ended;     /* as a sender, we ended our stream */
  gboolean delivered; /* and all of it was taken */

  guint64 bytes;
  guint64 messages;
  gint64 started; /* µs */
  gint64 moved;   /* µs, when the last message went or came */
  gint64 shown;   /* µs, when progress was shown */
} Cat;

static const char *
get_peer_noun (Cat *self)
{
  return self->role == FERRY_ROLE_SENDER ? "receiver" : "sender";
}

static FerryRole
get_peer_role (Cat *self)
{
  return self->role == FERRY_ROLE_SENDER ? FERRY_ROLE_RECEIVER : FERRY_ROLE_SENDER;
}

/* The signals of a channel are emitted inside blocking calls. Cancelling makes such a
 * call return; what to do about it is decided there. */

static void
peer_joined_cb (FerryChannel *channel, FerryParticipant *participant, gpointer user_data)
{
  Cat *self = user_data;

  if (participant->role == get_peer_role (self))
    self->had_peer = TRUE;
}

static void
peer_gone_cb (FerryChannel *channel, FerryParticipant *participant, gboolean died, gpointer user_data)
{
  Cat *self = user_data;

  if (participant->role != get_peer_role (self))
    {
      if (died)
        self->seen_repairs++;
      return;
    }

  self->had_peer = TRUE;
  self->peer_gone = TRUE;
  if (died)
    {
      self->peer_died = TRUE;
      self->dead_pid = participant->pid;
    }
  g_cancellable_cancel (self->cancellable);
}

static void
closed_cb (FerryChannel *channel, gpointer user_data)
{
  Cat *self = user_data;

  self->closed = TRUE;
}

/* Live participants of a role; G_MAXUINT when that can't be told. */
static guint
count_participants (Cat *self, FerryRole role)
{
  g_autoptr (FerryStatistics) statistics = ferry_channel_get_statistics (self->channel, NULL);

  if (statistics == NULL)
    return G_MAXUINT;
  return role == FERRY_ROLE_SENDER ? statistics->senders : statistics->receivers;
}

/* Looks at the counters: of a peer that came and went between two looks no signal
 * tells. Returns NULL when the channel can't be looked at any more. */
static FerryStatistics *
look_at_counters (Cat *self)
{
  FerryStatistics *statistics = ferry_channel_get_statistics (self->channel, NULL);

  /* A death that the events tell by now is not counted twice. */
  ferry_channel_dispatch_events (self->channel);
  if (statistics != NULL && statistics->repairs > self->seen_repairs)
    self->peer_died = TRUE;
  return statistics;
}

/* Whether the other side was there and is gone. */
static gboolean
is_deserted (Cat *self)
{
  g_autoptr (FerryStatistics) statistics = look_at_counters (self);
  gboolean sends = self->role == FERRY_ROLE_SENDER;
  guint n_peers;

  if (statistics == NULL)
    return FALSE;
  n_peers = sends ? statistics->receivers : statistics->senders;
  if (n_peers > 0 || (sends ? statistics->messages_received : statistics->messages_sent) > self->seen_messages)
    self->had_peer = TRUE;
  return n_peers == 0 && self->had_peer;
}

/* Notes how things are at the start. */
static void
look_first (Cat *self)
{
  g_autoptr (FerryStatistics) statistics = ferry_channel_get_statistics (self->channel, NULL);

  if (statistics != NULL)
    {
      self->seen_messages = self->role == FERRY_ROLE_SENDER ? statistics->messages_received : statistics->messages_sent;
      self->seen_repairs = statistics->repairs;
    }
  /* Who is there already is told as having joined. */
  ferry_channel_dispatch_events (self->channel);
}

/* Learns who came, went or died while no call of ours blocks in the channel. */
static void
look_around (Cat *self)
{
  ferry_channel_check (self->channel, self->role == FERRY_ROLE_SENDER ? G_IO_OUT : G_IO_IN);
  ferry_channel_dispatch_events (self->channel);
}

static void
show_progress (Cat *self, gboolean last)
{
  gint64 now = g_get_monotonic_time ();
  gint64 elapsed = now - self->started;
  g_autofree char *bytes = NULL;
  g_autofree char *rate = NULL;

  if (!self->progress || (!last && (now - self->shown < PROGRESS_INTERVAL || !self->terminal)))
    return;
  self->shown = now;
  bytes = tool_format_bytes (self->bytes);
  rate = tool_format_bytes (elapsed > 0 ? (guint64) ((double) self->bytes * G_USEC_PER_SEC / (double) elapsed) : 0);
  g_printerr ("%s%s %s, %s/s, %" G_GUINT64_FORMAT " messages, %" G_GINT64_FORMAT ".%" G_GINT64_FORMAT " s%s%s",
              self->terminal ? "\r" : "", self->role == FERRY_ROLE_SENDER ? "sent" : "received", bytes, rate,
              self->messages, elapsed / G_TIME_SPAN_SECOND, elapsed % G_TIME_SPAN_SECOND / (G_TIME_SPAN_SECOND / 10),
              self->terminal ? "\033[K" : "", last ? "\n" : "");
}

static void
note_message (Cat *self, gsize size)
{
  self->bytes += size;
  self->messages++;
  if (self->progress || self->timeout > 0)
    {
      self->moved = g_get_monotonic_time ();
      show_progress (self, FALSE);
    }
}

/* How long a call may block until we look around. */
static gint64
get_slice (Cat *self)
{
  return self->progress || self->timeout > 0 ? PROGRESS_INTERVAL : LOOK_INTERVAL;
}

static gboolean
check_timeout (Cat *self, GError **error)
{
  show_progress (self, FALSE);
  if (self->timeout == 0 || g_get_monotonic_time () - self->moved < self->timeout)
    return TRUE;
  g_set_error (error, FERRY_ERROR, FERRY_ERROR_TIMED_OUT, "nothing moved for %g s%s%s%s", opt_timeout,
               self->had_peer ? "" : "; no ", self->had_peer ? "" : get_peer_noun (self),
               self->had_peer ? "" : " came");
  return FALSE;
}

static gboolean
is_interrupted (Cat *self)
{
  return tool_signals_get (self->signals) != 0 || tool_signals_is_broken (self->signals);
}

/* Makes the cancellable fit for use again after a peer's leaving cancelled it. Returns
 * FALSE when the user or the end of the output did, which stays so. */
static gboolean
rearm (Cat *self, GError **error)
{
  g_cancellable_reset (self->cancellable);
  if (!is_interrupted (self))
    return TRUE;
  /* The signal may have come before the reset. */
  g_cancellable_cancel (self->cancellable);
  g_cancellable_set_error_if_cancelled (self->cancellable, error);
  return FALSE;
}

/* Whether receivers took everything there was, so that the last one may go. */
static gboolean
is_all_taken (Cat *self)
{
  g_autoptr (FerryStatistics) statistics = NULL;

  if (!self->ended || self->peer_died)
    return FALSE;
  statistics = ferry_channel_get_statistics (self->channel, NULL);
  return statistics != NULL && statistics->in_flight == 0;
}

static void
set_died_error (Cat *self, const char *who, GError **error)
{
  g_autofree char *process
      = self->dead_pid > 0 ? g_strdup_printf (" (process %" G_GINT64_FORMAT ")", self->dead_pid) : g_strdup ("");

  g_set_error (error, FERRY_ERROR, FERRY_ERROR_CLOSED, "%s died before the end of the stream%s", who, process);
}

/* Whether a sender still has somebody to send to, or may have one day. */
static gboolean
check_receivers (Cat *self, GError **error)
{
  if (self->closed)
    {
      g_set_error (error, FERRY_ERROR, FERRY_ERROR_CLOSED, "the channel was closed by a receiver");
      return FALSE;
    }
  if (!is_deserted (self) || is_all_taken (self))
    return TRUE;
  if (self->peer_died)
    set_died_error (self, "the last receiver", error);
  else
    g_set_error (error, FERRY_ERROR, FERRY_ERROR_CLOSED, "the last receiver left before the end of the stream");
  return FALSE;
}

/* Whether a call that failed is to be made again. If not, @error is set. */
static gboolean
try_again (Cat *self, GError *failure, GError **error)
{
  if (g_error_matches (failure, FERRY_ERROR, FERRY_ERROR_TIMED_OUT))
    {
      g_error_free (failure);
      if (self->role == FERRY_ROLE_RECEIVER)
        self->peer_gone = self->peer_gone || is_deserted (self);
      else if (!check_receivers (self, error))
        return FALSE;
      return check_timeout (self, error);
    }
  if (g_error_matches (failure, G_IO_ERROR, G_IO_ERROR_CANCELLED))
    {
      g_error_free (failure);
      return rearm (self, error) && (self->role == FERRY_ROLE_RECEIVER || check_receivers (self, error));
    }
  if (self->role == FERRY_ROLE_SENDER && g_error_matches (failure, FERRY_ERROR, FERRY_ERROR_CLOSED))
    {
      g_error_free (failure);
      g_set_error (error, FERRY_ERROR, FERRY_ERROR_CLOSED, "the channel was closed by a receiver");
      return FALSE;
    }
  g_propagate_error (error, failure);
  return FALSE;
}

/* Waits a moment, or until a descriptor is ready or the user has enough. */
static gboolean
wait_for_fd (Cat *self, int fd, short events, gint64 duration, gboolean *ready, GError **error)
{
  struct pollfd fds[] = { { fd, events, 0 }, { self->cancel_fd, POLLIN, 0 } };

  *ready = poll (fds, G_N_ELEMENTS (fds), (int) (duration / G_TIME_SPAN_MILLISECOND)) > 0 && fds[0].revents != 0;
  if (g_cancellable_is_cancelled (self->cancellable))
    return rearm (self, error);
  return TRUE;
}

/* Sending */

/* Waits until there is input or its end, with an eye on the receivers. */
static gboolean
wait_for_input (Cat *self, GError **error)
{
  gboolean ready;

  /* The usual case costs no more than this. */
  if (!wait_for_fd (self, STDIN_FILENO, POLLIN, 0, &ready, error))
    return FALSE;
  while (!ready)
    {
      if (!check_timeout (self, error) || !wait_for_fd (self, STDIN_FILENO, POLLIN, INPUT_INTERVAL, &ready, error))
        return FALSE;
      look_around (self);
      if (!check_receivers (self, error))
        return FALSE;
    }
  return TRUE;
}

/* Reads what there is, at least a byte: a full block when input is fast, without
 * delay when it trickles. @size 0 is the end. */
static gboolean
read_block (Cat *self, guint8 *data, gsize capacity, gsize *size, GError **error)
{
  *size = 0;
  while (*size < capacity)
    {
      struct pollfd fd = { STDIN_FILENO, POLLIN, 0 };
      gssize n;
      int saved;

      if (*size > 0 && poll (&fd, 1, 0) <= 0)
        return TRUE;

      tool_signals_enter_io (self->signals);
      errno = EINTR;
      n = is_interrupted (self) ? -1 : read (STDIN_FILENO, data + *size, capacity - *size);
      saved = errno;
      tool_signals_leave_io (self->signals);

      if (n < 0 && is_interrupted (self))
        {
          g_set_error (error, G_IO_ERROR, G_IO_ERROR_CANCELLED, "interrupted");
          return FALSE;
        }
      if (n < 0 && (saved == EINTR || saved == EAGAIN))
        {
          if (saved == EAGAIN && *size == 0 && !wait_for_input (self, error))
            return FALSE;
          continue;
        }
      if (n < 0)
        {
          g_set_error (error, G_IO_ERROR, g_io_error_from_errno (saved), "can't read standard input: %s",
                       g_strerror (saved));
          return FALSE;
        }
      if (n == 0)
        return TRUE;
      *size += (gsize) n;
    }
  return TRUE;
}

static FerryBuffer *
loan (Cat *self, GError **error)
{
  for (;;)
    {
      GError *failure = NULL;
      FerryBuffer *buffer
          = ferry_channel_loan (self->channel, self->block_size, get_slice (self), self->cancellable, &failure);

      if (buffer != NULL)
        return buffer;
      if (!try_again (self, failure, error))
        return NULL;
    }
}

static gboolean
send_buffer (Cat *self, FerryBuffer *buffer, GError **error)
{
  for (;;)
    {
      GError *failure = NULL;

      if (ferry_channel_send_buffer (self->channel, buffer, get_slice (self), self->cancellable, &failure))
        return TRUE;
      if (!try_again (self, failure, error))
        return FALSE;
    }
}

static gboolean
flush (Cat *self, GError **error)
{
  for (;;)
    {
      GError *failure = NULL;

      if (ferry_channel_flush (self->channel, get_slice (self), self->cancellable, &failure))
        return TRUE;
      if (!try_again (self, failure, error))
        return FALSE;
    }
}

static gboolean
wait_for_receivers (Cat *self, guint n_receivers, GError **error)
{
  gboolean ready;

  while (count_participants (self, FERRY_ROLE_RECEIVER) < n_receivers)
    {
      if (!wait_for_fd (self, -1, 0, PEER_INTERVAL, &ready, error) || !check_timeout (self, error))
        return FALSE;
      look_around (self);
      if (!check_receivers (self, error))
        return FALSE;
    }
  self->had_peer = self->had_peer || n_receivers > 0;
  return TRUE;
}

/* All is taken, but not yet written: receivers leave when it is. What they say in going
 * is the last that can be heard of the stream. */
static gboolean
wait_for_farewell (Cat *self, GError **error)
{
  gint64 end = g_get_monotonic_time () + FAREWELL_LIMIT;
  g_autoptr (FerryStatistics) statistics = NULL;
  gboolean ready;

  do
    {
      look_around (self);
      if (self->closed)
        {
          g_set_error (error, FERRY_ERROR, FERRY_ERROR_CLOSED,
                       "a receiver closed the channel before it had written everything");
          return FALSE;
        }
      /* Receivers stay on for the other senders, and other programs for reasons of their own. */
      if (count_participants (self, FERRY_ROLE_RECEIVER) == 0 || count_participants (self, FERRY_ROLE_SENDER) > 1)
        break;
      if (!wait_for_fd (self, -1, 0, PEER_INTERVAL, &ready, error))
        return FALSE;
    }
  while (g_get_monotonic_time () < end);

  statistics = look_at_counters (self);
  if (self->peer_died)
    g_set_error (error, FERRY_ERROR, FERRY_ERROR_CLOSED, "a participant died; what it had taken may be lost");
  return !self->peer_died;
}

static gboolean
send_all (Cat *self, GError **error)
{
  FerryMode mode;

  g_object_get (self->channel, "mode", &mode, NULL);
  if (opt_wait_receivers < 0)
    opt_wait_receivers = mode == FERRY_MODE_BROADCAST ? 1 : 0;
  if (!wait_for_receivers (self, (guint) opt_wait_receivers, error))
    return FALSE;

  /* Bigger pipes mean fewer turns; it is no error when that may not be. */
  (void) fcntl (STDIN_FILENO, F_SETPIPE_SZ, PIPE_SIZE);

  self->started = g_get_monotonic_time ();
  for (;;)
    {
      g_autoptr (FerryBuffer) buffer = NULL;
      gsize size;

      if (!wait_for_input (self, error))
        return FALSE;
      buffer = loan (self, error);
      if (buffer == NULL)
        return FALSE;
      if (!read_block (self, ferry_buffer_get_writable_data (buffer, NULL), self->block_size, &size, error))
        return FALSE;
      /* Without input an empty message goes: the flush then waits until somebody took it,
       * and with it came to know of the end. */
      if (size == 0 && self->messages > 0)
        break;
      ferry_buffer_set_size (buffer, size);
      if (!send_buffer (self, buffer, error))
        return FALSE;
      if (size == 0)
        break;
      note_message (self, size);
    }

  if (!ferry_channel_end_of_stream (self->channel, error))
    return FALSE;
  self->ended = TRUE;
  self->delivered = flush (self, error);
  return self->delivered && wait_for_farewell (self, error);
}

/* Receiving */

static gboolean
write_block (Cat *self, const guint8 *data, gsize size, GError **error)
{
  while (size > 0)
    {
      gssize n;
      int saved;

      tool_signals_enter_io (self->signals);
      errno = EINTR;
      n = is_interrupted (self) ? -1 : write (STDOUT_FILENO, data, size);
      saved = errno;
      tool_signals_leave_io (self->signals);

      if (n >= 0)
        {
          data += n;
          size -= (gsize) n;
          continue;
        }
      if (is_interrupted (self))
        {
          g_set_error (error, G_IO_ERROR, G_IO_ERROR_CANCELLED, "interrupted within a message");
          return FALSE;
        }
      if (saved == EAGAIN)
        {
          gboolean ready;

          if (!wait_for_fd (self, STDOUT_FILENO, POLLOUT, PROGRESS_INTERVAL, &ready, error))
            return FALSE;
        }
      else if (saved == EPIPE)
        {
          g_set_error (error, G_IO_ERROR, G_IO_ERROR_BROKEN_PIPE, BROKEN_OUTPUT);
          return FALSE;
        }
      else if (saved != EINTR)
        {
          g_set_error (error, G_IO_ERROR, g_io_error_from_errno (saved), "can't write to standard output: %s",
                       g_strerror (saved));
          return FALSE;
        }
    }
  return TRUE;
}

/* Takes the next message. Returns NULL without an error at the end of the stream. */
static FerryBuffer *
receive (Cat *self, GError **error)
{
  for (;;)
    {
      /* When senders went, what they left behind comes first. */
      gint64 timeout = self->peer_gone ? FERRY_NO_WAIT : get_slice (self);
      GError *failure = NULL;
      FerryBuffer *buffer = ferry_channel_receive (self->channel, timeout, self->cancellable, &failure);

      if (buffer != NULL)
        return buffer;
      if (g_error_matches (failure, FERRY_ERROR, FERRY_ERROR_END_OF_STREAM))
        {
          g_error_free (failure);
          return NULL;
        }
      if (g_error_matches (failure, FERRY_ERROR, FERRY_ERROR_CLOSED))
        {
          g_error_free (failure);
          g_set_error (error, FERRY_ERROR, FERRY_ERROR_CLOSED, "the channel was closed before the end of the stream");
          return NULL;
        }
      if (self->peer_gone && g_error_matches (failure, FERRY_ERROR, FERRY_ERROR_EMPTY))
        {
          g_error_free (failure);
          self->peer_gone = FALSE;
          if (!is_deserted (self))
            continue;
          if (self->peer_died)
            set_died_error (self, "sender", error);
          else
            g_set_error (error, FERRY_ERROR, FERRY_ERROR_CLOSED, "the last sender left before the end of the stream");
          return NULL;
        }
      if (!try_again (self, failure, error))
        return NULL;
    }
}

static gboolean
receive_all (Cat *self, gboolean *within_message, GError **error)
{
  struct stat info;
  FerryBuffer *buffer;

  if (fstat (STDOUT_FILENO, &info) == 0 && (S_ISFIFO (info.st_mode) || S_ISSOCK (info.st_mode)))
    tool_signals_watch_output (self->signals, STDOUT_FILENO);

  *within_message = FALSE;
  while ((buffer = receive (self, error)) != NULL)
    {
      gsize size;
      const guint8 *data = ferry_buffer_get_data (buffer, &size);
      gboolean written = write_block (self, data, size, error);

      ferry_buffer_unref (buffer);
      *within_message = !written;
      if (!written)
        return FALSE;
      if (self->messages == 0)
        self->started = g_get_monotonic_time ();
      note_message (self, size);
    }
  /* What a dead sender had not yet sent is missing, though others went on to the end. */
  if (*error == NULL && self->peer_died)
    set_died_error (self, "one of the senders", error);
  return *error == NULL;
}

/* After a stream that did not end well: closes the channel when nobody could go on
 * with it in our place. */
static void
give_up (Cat *self, gboolean within_message)
{
  FerryMode mode;

  g_object_get (self->channel, "mode", &mode, NULL);
  /* What was written to a broken pipe is lost as well. */
  within_message = within_message || tool_signals_is_broken (self->signals);
  if (count_participants (self, self->role) <= 1 || (within_message && mode == FERRY_MODE_WORK_QUEUE))
    ferry_channel_shut_down (self->channel, NULL);
}

static int
run (Cat *self, const char *description)
{
  g_autoptr (GError) error = NULL;
  gboolean within_message = FALSE;
  gboolean done;
  int number;

  self->channel = ferry_channel_new_from_description (description, self->role, &error);
  if (self->channel == NULL)
    {
      tool_printerr ("%s", error->message);
      return EXIT_FAILURE;
    }
  g_signal_connect (self->channel, "peer-joined", G_CALLBACK (peer_joined_cb), self);
  g_signal_connect (self->channel, "peer-gone", G_CALLBACK (peer_gone_cb), self);
  g_signal_connect (self->channel, "closed", G_CALLBACK (closed_cb), self);

  self->started = self->moved = g_get_monotonic_time ();
  self->cancel_fd = g_cancellable_get_fd (self->cancellable);
  done = ferry_channel_open (self->channel, self->cancellable, &error);
  if (done)
    {
      look_first (self);
      if (self->role == FERRY_ROLE_SENDER)
        done = send_all (self, &error);
      else
        done = receive_all (self, &within_message, &error);
      show_progress (self, TRUE);
      if (!done && !self->delivered)
        give_up (self, within_message);
    }

  number = tool_signals_get (self->signals);
  if (number != 0)
    {
      g_autofree char *bytes = tool_format_bytes (self->bytes);

      if (!opt_quiet)
        tool_printerr ("interrupted after %s", bytes);
    }
  else if (tool_signals_is_broken (self->signals))
    tool_printerr (BROKEN_OUTPUT);
  else if (!done)
    tool_printerr ("%s", error->message);

  g_clear_error (&error);
  if (!ferry_channel_close (self->channel, &error) && done)
    {
      tool_printerr ("%s", error->message);
      done = FALSE;
    }
  g_clear_object (&self->channel);
  if (self->cancel_fd >= 0)
    g_cancellable_release_fd (self->cancellable);

  if (number != 0)
    return TOOL_EXIT_SIGNAL_BASE + number;
  return done ? EXIT_SUCCESS : EXIT_FAILURE;
}

/* A description may be one argument or, as in gst-launch, several. */
static char *
join_description (const char *first)
{
  g_autofree char *rest = opt_rest != NULL ? g_strjoinv (" ", opt_rest) : NULL;

  return rest != NULL ? g_strdup_printf ("%s %s", first, rest) : g_strdup (first);
}

int
main (int argc, char **argv)
{
  g_autoptr (GOptionContext) context = g_option_context_new (NULL);
  g_autoptr (GCancellable) cancellable = g_cancellable_new ();
  g_autoptr (ToolSignals) signals = NULL;
  g_autoptr (GError) error = NULL;
  g_autofree char *description = NULL;
  Cat self = { .block_size = DEFAULT_BLOCK_SIZE, .cancellable = cancellable };
  int fd;

  tool_init ("ferry-cat");
  g_option_context_set_summary (context,
                                "Joins standard input or output to a channel: a pipe between programs that do\n"
                                "not know each other, through shared memory.");
  g_option_context_set_description (
      context, "Examples, in two terminals, in any order:\n"
               "  tar c dir | ferry-cat --send 'memfd name=x'\n"
               "  ferry-cat --receive 'memfd name=x' | tar x\n"
               "\n"
               "The channel is made by whoever comes first. Several senders are merged message by\n"
               "message; several receivers share the stream, or get all of it with mode=broadcast.\n"
               "ferry-inspect lists the transports and their properties, ferry-ls the live channels.\n"
               "\n"
               "Exit status: 0 everything came through, 1 it did not, 2 wrong usage, 128 plus the\n"
               "signal when interrupted (130 for Ctrl-C).\n");
  g_option_context_add_main_entries (context, entries, NULL);

  if (!g_option_context_parse (context, &argc, &argv, &error))
    return tool_fail_usage ("%s", error->message);
  if (opt_version)
    {
      g_print ("ferry-cat " FERRY_VERSION_STRING "\n");
      return EXIT_SUCCESS;
    }
  if ((opt_send == NULL) == (opt_receive == NULL))
    return tool_fail_usage ("say either --send or --receive, with the description of a channel such as 'memfd name=x'");
  if (opt_block_size != NULL && !tool_parse_size (opt_block_size, MAX_BLOCK_SIZE, &self.block_size, &error))
    return tool_fail_usage ("--block-size: %s", error->message);
  if (self.block_size == 0)
    return tool_fail_usage ("--block-size must be at least 1");
  if (opt_wait_receivers < -1 || opt_wait_receivers > MAX_PEERS)
    return tool_fail_usage ("--wait-receivers must be from 0 to %d", MAX_PEERS);
  if (opt_wait_receivers >= 0 && opt_receive != NULL)
    return tool_fail_usage ("--wait-receivers goes with --send");
  if (!(opt_timeout >= 0 && opt_timeout <= MAX_TIMEOUT))
    return tool_fail_usage ("--timeout must be from 0 to %g seconds", MAX_TIMEOUT);

  self.role = opt_send != NULL ? FERRY_ROLE_SENDER : FERRY_ROLE_RECEIVER;
  self.timeout = (gint64) (opt_timeout * G_USEC_PER_SEC);
  description = join_description (opt_send != NULL ? opt_send : opt_receive);

  /* Were the descriptor free, the next file opened would be taken for our input. */
  fd = self.role == FERRY_ROLE_SENDER ? STDIN_FILENO : STDOUT_FILENO;
  if (fcntl (fd, F_GETFD) < 0)
    {
      tool_printerr ("standard %s is closed", fd == STDIN_FILENO ? "input" : "output");
      return EXIT_FAILURE;
    }
  self.terminal = isatty (STDERR_FILENO);
  self.progress = !opt_quiet && (opt_progress || (self.terminal && !isatty (fd)));

  signals = tool_signals_new (cancellable);
  self.signals = signals;
  return run (&self, description);
}
