/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ferry-transport-private.h"

#include "ferry-buffer-private.h"
#include "ferry-error.h"

#include <string.h>

/**
 * FerryTransport:
 *
 * What moves messages between the participants of a channel.
 *
 * Applications hold a [class@Channel], which drives a transport. Transports come from
 * plugins; one over mapped memory derives from [class@SegmentTransport], any other
 * implements this interface. A function that an implementation leaves out fails with
 * %FERRY_ERROR_UNSUPPORTED.
 *
 * Since: 1.0
 */

/* More than any channel has, should an implementation count without end. */
#define PARTICIPANTS_MAX (1u << 20)

G_DEFINE_INTERFACE (FerryTransport, ferry_transport, G_TYPE_OBJECT)

/* FALSE, which is also NULL. */
static gboolean
set_unsupported (FerryTransport *self, const char *what, GError **error)
{
  g_set_error (error, FERRY_ERROR, FERRY_ERROR_UNSUPPORTED,
               "%s does not implement %s(); use another transport for this, or implement it there",
               G_OBJECT_TYPE_NAME (self), what);
  return FALSE;
}

/*
 * What an implementation leaves out. The channel calls the functions of the message path through the interface, so
 * those are never NULL.
 */

static FerryBuffer *
ferry_transport_default_loan (FerryTransport *self, gsize size, gint64 timeout, GCancellable *cancellable,
                              GError **error)
{
  set_unsupported (self, "loan", error);
  return NULL;
}

static gboolean
ferry_transport_default_commit (FerryTransport *self, FerryBuffer *buffer, gint64 timeout, GCancellable *cancellable,
                                GError **error)
{
  return set_unsupported (self, "commit", error);
}

static FerryBuffer *
ferry_transport_default_take (FerryTransport *self, gint64 timeout, GCancellable *cancellable, GError **error)
{
  set_unsupported (self, "take", error);
  return NULL;
}

static GPtrArray *
ferry_transport_default_list_participants (FerryTransport *self, GError **error)
{
  FerryTransportInterface *iface = FERRY_TRANSPORT_GET_IFACE (self);
  g_autoptr (GPtrArray) participants = NULL;

  if (iface->get_participant == NULL)
    {
      set_unsupported (self, "list_participants", error);
      return NULL;
    }
  participants = g_ptr_array_new_with_free_func ((GDestroyNotify) ferry_participant_free);
  for (guint i = 0; i < PARTICIPANTS_MAX; i++)
    {
      g_autoptr (FerryParticipant) participant = ferry_participant_new ();

      if (!iface->get_participant (self, i, participant))
        break;
      g_ptr_array_add (participants, g_steal_pointer (&participant));
    }
  return g_steal_pointer (&participants);
}

static void
ferry_transport_default_init (FerryTransportInterface *iface)
{
  iface->loan = ferry_transport_default_loan;
  iface->commit = ferry_transport_default_commit;
  iface->take = ferry_transport_default_take;
  iface->list_participants = ferry_transport_default_list_participants;
}

/**
 * FerryTransportInterface::send: (skip)
 * @self: a transport
 *
 * Optional, and only useful where the bytes need not be copied: `loan` and `commit` are the twins for
 * language bindings.
 *
 * Since: 1.0
 */

/**
 * FerryTransportInterface::mark:
 * @self: a transport
 * @mark: (out): how far has been sent, as the transport counts
 * @error: return location for an error
 *
 * What [method@Channel.mark] tells.
 *
 * Returns: whether there is a mark
 *
 * Since: 1.0
 */

/**
 * FerryTransportInterface::list_participants: (skip)
 * @self: a transport
 *
 * In a language binding the participants would belong to nobody: `get_participant` is the twin.
 *
 * Since: 1.0
 */

/**
 * FerryTransportInterface::release: (skip)
 * @self: a transport
 *
 * Only called for buffers that this library made: [ctor@Buffer.new_bytes] is what language bindings use.
 *
 * Since: 1.0
 */

/* An implementation that fails and does not say why, which happens in other languages: its caller relies on an
 * error. FALSE, which is also NULL. */
static gboolean
fail (FerryTransport *self, const char *what, GError *local, GError **error)
{
  if (local == NULL)
    local = g_error_new (FERRY_ERROR, FERRY_ERROR_FAILED, "%s() of %s failed without an error; mend it there", what,
                         G_OBJECT_TYPE_NAME (self));
  g_propagate_error (error, local);
  return FALSE;
}

/* clang-format off */
G_DEFINE_QUARK (ferry-transport-feature, ferry_transport_feature)
/* clang-format on */

const char *
ferry_transport_get_feature_name (FerryTransport *self)
{
  return g_object_get_qdata (G_OBJECT (self), ferry_transport_feature_quark ());
}

/**
 * ferry_transport_pack_wire_name:
 * @wire_name: the wire name of a codec, of which at most %FERRY_WIRE_NAME_MAX bytes are
 *   looked at
 * @version: the version of the encoding
 * @packed_name: (out): the first 8 bytes of the name, the first byte lowest
 * @packed_version: (out): the other 4 bytes of the name in the lower half, @version
 *   in the upper half
 *
 * Packs wire name and version into two numbers, so that the message path neither
 * copies nor compares strings. The numbers are the same on machines of either byte
 * order.
 *
 * Since: 1.0
 */
void
ferry_transport_pack_wire_name (const char *wire_name, guint version, guint64 *packed_name, guint64 *packed_version)
{
  guint64 parts[2] = { 0, 0 };

  g_return_if_fail (wire_name != NULL);
  g_return_if_fail (packed_name != NULL);
  g_return_if_fail (packed_version != NULL);

  for (guint i = 0; i < FERRY_WIRE_NAME_MAX && wire_name[i] != '\0'; i++)
    parts[i / 8] |= (guint64) (guint8) wire_name[i] << (8 * (i % 8));
  *packed_name = parts[0];
  *packed_version = parts[1] | (guint64) version << 32;
}

/*
 * Private: undoes ferry_transport_pack_wire_name(). The numbers may come from another
 * process: any are safe, but the name need not be a valid one.
 */
void
ferry_transport_unpack_wire_name (guint64 packed_name, guint64 packed_version, char name[FERRY_WIRE_NAME_MAX + 1],
                                  guint *version)
{
  for (guint i = 0; i < FERRY_WIRE_NAME_MAX; i++)
    {
      guint64 part = i < 8 ? packed_name : packed_version;

      name[i] = (char) (part >> (8 * (i % 8)) & 0xff);
    }
  name[FERRY_WIRE_NAME_MAX] = '\0';
  if (version != NULL)
    *version = (guint) (packed_version >> 32);
}

/**
 * ferry_transport_open:
 * @self: a transport
 * @config: what to open; its fields tell afterwards what the channel really has
 * @cancellable: (nullable): a cancellable
 * @error: return location for an error
 *
 * Creates or joins a channel, as one participant. A transport object is opened once.
 *
 * Errors: %FERRY_ERROR_INVALID_ARGUMENT as of [method@ChannelConfig.validate],
 * %FERRY_ERROR_EXISTS, %FERRY_ERROR_NOT_FOUND, %FERRY_ERROR_MISMATCH,
 * %FERRY_ERROR_PERMISSION, %FERRY_ERROR_NO_SPACE, %FERRY_ERROR_VERSION,
 * %FERRY_ERROR_CORRUPT, %FERRY_ERROR_TOO_MANY, %FERRY_ERROR_UNSUPPORTED.
 *
 * Returns: %TRUE on success
 *
 * Since: 1.0
 */
gboolean
ferry_transport_open (FerryTransport *self, FerryChannelConfig *config, GCancellable *cancellable, GError **error)
{
  FerryTransportInterface *iface;
  GError *local = NULL;

  g_return_val_if_fail (FERRY_IS_TRANSPORT (self), FALSE);
  g_return_val_if_fail (config != NULL, FALSE);
  g_return_val_if_fail (cancellable == NULL || G_IS_CANCELLABLE (cancellable), FALSE);
  g_return_val_if_fail (error == NULL || *error == NULL, FALSE);

  if (!ferry_channel_config_validate (config, error) || g_cancellable_set_error_if_cancelled (cancellable, error))
    return FALSE;

  iface = FERRY_TRANSPORT_GET_IFACE (self);
  if (iface->open == NULL)
    {
      set_unsupported (self, "open", error);
      return FALSE;
    }
  return iface->open (self, config, cancellable, &local) || fail (self, "open", local, error);
}

/**
 * ferry_transport_close:
 * @self: a transport
 * @error: return location for an error
 *
 * Leaves the channel. What waits in other threads fails with %FERRY_ERROR_CLOSED;
 * buffers that were received stay valid until they are dropped.
 *
 * Returns: %TRUE on success, also when it was closed before
 *
 * Since: 1.0
 */
gboolean
ferry_transport_close (FerryTransport *self, GError **error)
{
  FerryTransportInterface *iface;
  GError *local = NULL;

  g_return_val_if_fail (FERRY_IS_TRANSPORT (self), FALSE);
  g_return_val_if_fail (error == NULL || *error == NULL, FALSE);

  iface = FERRY_TRANSPORT_GET_IFACE (self);
  if (iface->close == NULL)
    {
      set_unsupported (self, "close", error);
      return FALSE;
    }
  return iface->close (self, &local) || fail (self, "close", local, error);
}

/**
 * ferry_transport_loan:
 * @self: an open transport
 * @size: bytes
 * @timeout: microseconds; negative: for ever, 0: not at all
 * @cancellable: (nullable): a cancellable
 * @error: return location for an error
 *
 * Gives a writable buffer, to be filled and handed to [method@Transport.commit], or
 * dropped. Thread-safe.
 *
 * Errors: %FERRY_ERROR_TOO_BIG, %FERRY_ERROR_NO_SPACE, %FERRY_ERROR_FULL,
 * %FERRY_ERROR_TIMED_OUT, %FERRY_ERROR_CLOSED, %FERRY_ERROR_UNSUPPORTED,
 * %G_IO_ERROR_CANCELLED.
 *
 * Returns: (transfer full): a buffer
 *
 * Since: 1.0
 */
FerryBuffer *
ferry_transport_loan (FerryTransport *self, gsize size, gint64 timeout, GCancellable *cancellable, GError **error)
{
  FerryBuffer *buffer;
  GError *local = NULL;

  g_return_val_if_fail (FERRY_IS_TRANSPORT (self), NULL);
  g_return_val_if_fail (error == NULL || *error == NULL, NULL);

  buffer = FERRY_TRANSPORT_GET_IFACE (self)->loan (self, size, timeout, cancellable, &local);
  if (buffer == NULL)
    fail (self, "loan", local, error);
  return buffer;
}

/**
 * ferry_transport_commit:
 * @self: an open transport
 * @buffer: a buffer that @self loaned
 * @timeout: microseconds; negative: for ever, 0: not at all
 * @cancellable: (nullable): a cancellable
 * @error: return location for an error
 *
 * Makes a loaned buffer a message. On failure the buffer stays what it was and may
 * be committed again. Thread-safe.
 *
 * Errors: %FERRY_ERROR_INVALID_ARGUMENT when @self did not loan the buffer,
 * %FERRY_ERROR_FULL, %FERRY_ERROR_TIMED_OUT, %FERRY_ERROR_CLOSED,
 * %FERRY_ERROR_CORRUPT, %FERRY_ERROR_UNSUPPORTED, %G_IO_ERROR_CANCELLED.
 *
 * Returns: %TRUE on success, also when the back-pressure policy dropped the message
 *
 * Since: 1.0
 */
gboolean
ferry_transport_commit (FerryTransport *self, FerryBuffer *buffer, gint64 timeout, GCancellable *cancellable,
                        GError **error)
{
  GError *local = NULL;

  g_return_val_if_fail (FERRY_IS_TRANSPORT (self), FALSE);
  g_return_val_if_fail (buffer != NULL, FALSE);
  g_return_val_if_fail (error == NULL || *error == NULL, FALSE);

  return FERRY_TRANSPORT_GET_IFACE (self)->commit (self, buffer, timeout, cancellable, &local)
         || fail (self, "commit", local, error);
}

/*
 * Private: what a time-out that began at that monotonic time leaves.
 */
static gint64
remaining_timeout (gint64 timeout, gint64 start)
{
  gint64 elapsed;

  if (timeout <= 0)
    return timeout;
  elapsed = g_get_monotonic_time () - start;
  return elapsed >= timeout ? 0 : timeout - elapsed;
}

/*
 * Private: copies bytes into a message; loans and commits when the transport has no
 * send() of its own.
 */
gboolean
ferry_transport_send (FerryTransport *self, const guint8 *data, gsize size, guint64 wire_name, guint64 wire_version,
                      gint64 timeout, GCancellable *cancellable, GError **error)
{
  FerryTransportInterface *iface = FERRY_TRANSPORT_GET_IFACE (self);
  g_autoptr (FerryBuffer) buffer = NULL;
  gint64 start;

  if (G_LIKELY (iface->send != NULL))
    return iface->send (self, data, size, wire_name, wire_version, timeout, cancellable, error);

  start = timeout > 0 ? g_get_monotonic_time () : 0;
  buffer = ferry_transport_loan (self, size, timeout, cancellable, error);
  if (buffer == NULL)
    return FALSE;
  if (!ferry_buffer_set_size (buffer, size) || !ferry_buffer_fill (buffer, 0, data, size))
    {
      g_set_error (error, FERRY_ERROR, FERRY_ERROR_FAILED,
                   "%s loaned a buffer of %" G_GSIZE_FORMAT " bytes that can't hold the %" G_GSIZE_FORMAT
                   " bytes asked for; this is a bug there",
                   G_OBJECT_TYPE_NAME (self), ferry_buffer_get_size (buffer), size);
      return FALSE;
    }
  buffer->wire_name = wire_name;
  buffer->wire_version = wire_version;
  return ferry_transport_commit (self, buffer, remaining_timeout (timeout, start), cancellable, error);
}

/**
 * ferry_transport_take:
 * @self: an open transport
 * @timeout: microseconds; negative: for ever, 0: not at all
 * @cancellable: (nullable): a cancellable
 * @error: return location for an error
 *
 * Takes the next message. Thread-safe.
 *
 * Errors: %FERRY_ERROR_EMPTY, %FERRY_ERROR_TIMED_OUT, %FERRY_ERROR_END_OF_STREAM,
 * %FERRY_ERROR_CLOSED, %FERRY_ERROR_CORRUPT, %FERRY_ERROR_UNSUPPORTED,
 * %G_IO_ERROR_CANCELLED.
 *
 * Returns: (transfer full): a buffer
 *
 * Since: 1.0
 */
FerryBuffer *
ferry_transport_take (FerryTransport *self, gint64 timeout, GCancellable *cancellable, GError **error)
{
  FerryBuffer *buffer;
  GError *local = NULL;

  g_return_val_if_fail (FERRY_IS_TRANSPORT (self), NULL);
  g_return_val_if_fail (error == NULL || *error == NULL, NULL);

  buffer = FERRY_TRANSPORT_GET_IFACE (self)->take (self, timeout, cancellable, &local);
  if (buffer == NULL)
    fail (self, "take", local, error);
  return buffer;
}

/**
 * ferry_transport_wait:
 * @self: an open transport
 * @condition: %G_IO_IN for a message or the end of the stream, %G_IO_OUT for room
 * @timeout: microseconds; negative: for ever, 0: not at all
 * @cancellable: (nullable): a cancellable
 * @error: return location for an error
 *
 * Waits until the condition may hold. Another participant can be faster, so that it
 * does not hold any more afterwards. Thread-safe.
 *
 * Errors: %FERRY_ERROR_TIMED_OUT, %FERRY_ERROR_CLOSED, %FERRY_ERROR_UNSUPPORTED,
 * %G_IO_ERROR_CANCELLED.
 *
 * Returns: %TRUE when it is worth while to try
 *
 * Since: 1.0
 */
gboolean
ferry_transport_wait (FerryTransport *self, GIOCondition condition, gint64 timeout, GCancellable *cancellable,
                      GError **error)
{
  FerryTransportInterface *iface;
  GError *local = NULL;

  g_return_val_if_fail (FERRY_IS_TRANSPORT (self), FALSE);
  g_return_val_if_fail (error == NULL || *error == NULL, FALSE);

  iface = FERRY_TRANSPORT_GET_IFACE (self);
  if (iface->wait == NULL)
    {
      set_unsupported (self, "wait", error);
      return FALSE;
    }
  return iface->wait (self, condition, timeout, cancellable, &local) || fail (self, "wait", local, error);
}

/**
 * ferry_transport_wait_quietly:
 * @self: an open transport
 * @condition: %G_IO_IN for a message or the end of the stream, %G_IO_OUT for room
 * @timeout: microseconds; negative: for ever, 0: not at all
 * @cancellable: (nullable): a cancellable
 *
 * [method@Transport.wait] that says nothing about why it returns, for language bindings: a signal handler of the
 * language that runs while an error is converted may be lost. Who tries afterwards gets the error.
 *
 * Returns: %TRUE when it is worth while to try, %FALSE when the time-out came first or an error
 *
 * Since: 1.0
 */
gboolean
ferry_transport_wait_quietly (FerryTransport *self, GIOCondition condition, gint64 timeout, GCancellable *cancellable)
{
  FerryTransportInterface *iface;
  g_autoptr (GError) error = NULL;

  g_return_val_if_fail (FERRY_IS_TRANSPORT (self), FALSE);

  iface = FERRY_TRANSPORT_GET_IFACE (self);
  return iface->wait != NULL && iface->wait (self, condition, timeout, cancellable, &error);
}

/**
 * ferry_transport_wake:
 * @self: a transport
 *
 * Lets every wait of this endpoint return and check again. Thread-safe, and safe in
 * the handler of [signal@Gio.Cancellable::cancelled].
 *
 * Since: 1.0
 */
void
ferry_transport_wake (FerryTransport *self)
{
  FerryTransportInterface *iface;

  g_return_if_fail (FERRY_IS_TRANSPORT (self));

  iface = FERRY_TRANSPORT_GET_IFACE (self);
  if (iface->wake != NULL)
    iface->wake (self);
}

/* Private: a descriptor to poll, or -1 with an error. */
int
ferry_transport_get_fd (FerryTransport *self, GError **error)
{
  FerryTransportInterface *iface = FERRY_TRANSPORT_GET_IFACE (self);
  GError *local = NULL;
  int fd;

  if (iface->get_fd == NULL)
    {
      set_unsupported (self, "get_fd", error);
      return -1;
    }
  fd = iface->get_fd (self, &local);
  /* A language binding may return 0 with an error. */
  if (fd >= 0 && local == NULL)
    return fd;
  fail (self, "get_fd", local, error);
  return -1;
}

/* Private: the conditions that hold. A transport that can't tell says that all may. */
GIOCondition
ferry_transport_check (FerryTransport *self, GIOCondition condition)
{
  FerryTransportInterface *iface = FERRY_TRANSPORT_GET_IFACE (self);

  return iface->check != NULL ? iface->check (self, condition) : condition;
}

/* Private: waits until everything that was sent so far is taken. */
gboolean
ferry_transport_flush (FerryTransport *self, gint64 timeout, GCancellable *cancellable, GError **error)
{
  FerryTransportInterface *iface = FERRY_TRANSPORT_GET_IFACE (self);
  GError *local = NULL;

  if (iface->flush == NULL)
    {
      set_unsupported (self, "flush", error);
      return FALSE;
    }
  return iface->flush (self, timeout, cancellable, &local) || fail (self, "flush", local, error);
}

/* Private: how far has been sent. A transport that has no marks is flushed as it is each time that one is waited for. */
gboolean
ferry_transport_mark (FerryTransport *self, guint64 *mark, GError **error)
{
  FerryTransportInterface *iface = FERRY_TRANSPORT_GET_IFACE (self);
  GError *local = NULL;

  *mark = 0;
  return iface->mark == NULL || iface->mark (self, mark, &local) || fail (self, "mark", local, error);
}

/* Private: waits until everything before the mark is taken. */
gboolean
ferry_transport_flush_mark (FerryTransport *self, guint64 mark, gint64 timeout, GCancellable *cancellable,
                            GError **error)
{
  FerryTransportInterface *iface = FERRY_TRANSPORT_GET_IFACE (self);
  GError *local = NULL;

  if (iface->flush_mark == NULL)
    return ferry_transport_flush (self, timeout, cancellable, error);
  return iface->flush_mark (self, mark, timeout, cancellable, &local) || fail (self, "flush_mark", local, error);
}

/* Private: this sender sends no more. */
gboolean
ferry_transport_end_of_stream (FerryTransport *self, GError **error)
{
  FerryTransportInterface *iface = FERRY_TRANSPORT_GET_IFACE (self);
  GError *local = NULL;

  if (iface->end_of_stream == NULL)
    {
      set_unsupported (self, "end_of_stream", error);
      return FALSE;
    }
  return iface->end_of_stream (self, &local) || fail (self, "end_of_stream", local, error);
}

/* Private: closes the channel for everybody. */
gboolean
ferry_transport_shut_down (FerryTransport *self, GError **error)
{
  FerryTransportInterface *iface = FERRY_TRANSPORT_GET_IFACE (self);
  GError *local = NULL;

  if (iface->shut_down == NULL)
    {
      set_unsupported (self, "shut_down", error);
      return FALSE;
    }
  return iface->shut_down (self, &local) || fail (self, "shut_down", local, error);
}

/**
 * ferry_transport_get_statistics:
 * @self: an open transport
 * @statistics: filled in
 * @error: return location for an error
 *
 * Takes a snapshot of the channel's counters. Thread-safe.
 *
 * Errors: %FERRY_ERROR_CLOSED, %FERRY_ERROR_UNSUPPORTED.
 *
 * Returns: %TRUE on success
 *
 * Since: 1.0
 */
gboolean
ferry_transport_get_statistics (FerryTransport *self, FerryStatistics *statistics, GError **error)
{
  FerryTransportInterface *iface;
  GError *local = NULL;

  g_return_val_if_fail (FERRY_IS_TRANSPORT (self), FALSE);
  g_return_val_if_fail (statistics != NULL, FALSE);
  g_return_val_if_fail (error == NULL || *error == NULL, FALSE);

  iface = FERRY_TRANSPORT_GET_IFACE (self);
  if (iface->get_statistics == NULL)
    {
      set_unsupported (self, "get_statistics", error);
      return FALSE;
    }
  return iface->get_statistics (self, statistics, &local) || fail (self, "get_statistics", local, error);
}

/* Private: who is in the channel, (element-type FerryParticipant). */
GPtrArray *
ferry_transport_list_participants (FerryTransport *self, GError **error)
{
  return FERRY_TRANSPORT_GET_IFACE (self)->list_participants (self, error);
}

/* Private: the next life-cycle change. */
FerryTransportEvent
ferry_transport_poll_events (FerryTransport *self, FerryParticipant *participant)
{
  FerryTransportInterface *iface = FERRY_TRANSPORT_GET_IFACE (self);

  return iface->poll_events != NULL ? iface->poll_events (self, participant) : FERRY_TRANSPORT_EVENT_NONE;
}

/* Private: gives idle memory back; tells how many bytes. */
gsize
ferry_transport_trim (FerryTransport *self)
{
  FerryTransportInterface *iface = FERRY_TRANSPORT_GET_IFACE (self);

  return iface->trim != NULL ? iface->trim (self) : 0;
}

/* Private: see ferry_buffer_privatize(). */
gboolean
ferry_transport_privatize (FerryTransport *self, FerryBuffer *buffer, gsize offset, gsize size)
{
  FerryTransportInterface *iface = FERRY_TRANSPORT_GET_IFACE (self);

  return iface->privatize != NULL && iface->privatize (self, buffer, offset, size);
}

/**
 * ferry_transport_verify:
 * @self: an open transport
 * @error: return location for an error
 *
 * Checks the invariants of a channel at rest: that no slot and no block is lost.
 * While participants are at work it may report what is only half done.
 *
 * Errors: %FERRY_ERROR_CORRUPT with the first violation, %FERRY_ERROR_CLOSED,
 * %FERRY_ERROR_UNSUPPORTED.
 *
 * Returns: %TRUE if all invariants hold
 *
 * Since: 1.0
 */
gboolean
ferry_transport_verify (FerryTransport *self, GError **error)
{
  FerryTransportInterface *iface;
  GError *local = NULL;

  g_return_val_if_fail (FERRY_IS_TRANSPORT (self), FALSE);
  g_return_val_if_fail (error == NULL || *error == NULL, FALSE);

  iface = FERRY_TRANSPORT_GET_IFACE (self);
  if (iface->verify == NULL)
    {
      set_unsupported (self, "verify", error);
      return FALSE;
    }
  return iface->verify (self, &local) || fail (self, "verify", local, error);
}

/**
 * ferry_transport_list_channels:
 * @self: a transport, open or not
 * @error: return location for an error
 *
 * Finds the named channels of this transport that this user may see, alive or left
 * behind.
 *
 * Errors: %FERRY_ERROR_UNSUPPORTED, %FERRY_ERROR_FAILED.
 *
 * Returns: (transfer full) (array zero-terminated=1): the names
 *
 * Since: 1.0
 */
char **
ferry_transport_list_channels (FerryTransport *self, GError **error)
{
  FerryTransportInterface *iface;
  GError *local = NULL;
  char **names;

  g_return_val_if_fail (FERRY_IS_TRANSPORT (self), NULL);
  g_return_val_if_fail (error == NULL || *error == NULL, NULL);

  iface = FERRY_TRANSPORT_GET_IFACE (self);
  if (iface->list_channels == NULL)
    {
      set_unsupported (self, "list_channels", error);
      return NULL;
    }
  names = iface->list_channels (self, &local);
  if (names == NULL)
    fail (self, "list_channels", local, error);
  return names;
}

/* Names that are no names reach no transport. */
static gboolean
check_name (const char *name, GError **error)
{
  g_autoptr (FerryChannelConfig) config = ferry_channel_config_new ();

  config->name = g_strdup (name);
  return ferry_channel_config_validate (config, error);
}

/**
 * ferry_transport_probe_channel:
 * @self: a transport, open or not
 * @name: the name of a channel
 * @alive: (out): whether it has a live participant
 * @error: return location for an error
 *
 * Tells whether the channel of that name is alive, without joining it.
 *
 * Errors: %FERRY_ERROR_INVALID_ARGUMENT, %FERRY_ERROR_NOT_FOUND,
 * %FERRY_ERROR_PERMISSION, %FERRY_ERROR_VERSION, %FERRY_ERROR_CORRUPT,
 * %FERRY_ERROR_UNSUPPORTED.
 *
 * Returns: %TRUE on success
 *
 * Since: 1.0
 */
gboolean
ferry_transport_probe_channel (FerryTransport *self, const char *name, gboolean *alive, GError **error)
{
  FerryTransportInterface *iface;
  GError *local = NULL;

  g_return_val_if_fail (FERRY_IS_TRANSPORT (self), FALSE);
  g_return_val_if_fail (name != NULL, FALSE);
  g_return_val_if_fail (alive != NULL, FALSE);
  g_return_val_if_fail (error == NULL || *error == NULL, FALSE);

  *alive = FALSE;
  if (!check_name (name, error))
    return FALSE;

  iface = FERRY_TRANSPORT_GET_IFACE (self);
  if (iface->probe_channel == NULL)
    {
      set_unsupported (self, "probe_channel", error);
      return FALSE;
    }
  return iface->probe_channel (self, name, alive, &local) || fail (self, "probe_channel", local, error);
}

/**
 * ferry_transport_sweep_channel:
 * @self: a transport, open or not
 * @name: the name of a channel
 * @error: return location for an error
 *
 * Removes what a channel without live participants left behind.
 *
 * Errors: %FERRY_ERROR_EXISTS when somebody alive uses the channel,
 * %FERRY_ERROR_INVALID_ARGUMENT, %FERRY_ERROR_NOT_FOUND, %FERRY_ERROR_PERMISSION,
 * %FERRY_ERROR_UNSUPPORTED.
 *
 * Returns: %TRUE if it was removed
 *
 * Since: 1.0
 */
gboolean
ferry_transport_sweep_channel (FerryTransport *self, const char *name, GError **error)
{
  FerryTransportInterface *iface;
  GError *local = NULL;

  g_return_val_if_fail (FERRY_IS_TRANSPORT (self), FALSE);
  g_return_val_if_fail (name != NULL, FALSE);
  g_return_val_if_fail (error == NULL || *error == NULL, FALSE);

  if (!check_name (name, error))
    return FALSE;

  iface = FERRY_TRANSPORT_GET_IFACE (self);
  if (iface->sweep_channel == NULL)
    {
      set_unsupported (self, "sweep_channel", error);
      return FALSE;
    }
  return iface->sweep_channel (self, name, &local) || fail (self, "sweep_channel", local, error);
}
