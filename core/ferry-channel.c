/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ferry-channel.h"

#include "ferry-buffer-private.h"
#include "ferry-channel-config.h"
#include "ferry-description-private.h"
#include "ferry-enum-types.h"
#include "ferry-error.h"
#include "ferry-registry.h"
#include "ferry-segment-private.h"
#include "ferry-tensor-private.h"
#include "ferry-transport-private.h"

#include <string.h>

/**
 * FerryChannel:
 *
 * One end of a channel: a transport, a codec, a role.
 *
 * Make one with a description, set what the description leaves out, open it, then
 * send or receive:
 *
 * ```c
 * g_autoptr (FerryChannel) channel =
 *     ferry_channel_new_from_description ("memfd name=frames capacity=16", FERRY_ROLE_SENDER, &error);
 * if (channel == NULL || !ferry_channel_open (channel, NULL, &error) ||
 *     !ferry_channel_send (channel, data, size, FERRY_WAIT_FOREVER, NULL, &error))
 *   g_error ("%s", error->message);
 * ```
 *
 * The first to open a name creates the channel, and its settings hold for all; it
 * vanishes with its last participant. Settings that a later one gives explicitly and that differ are
 * %FERRY_ERROR_MISMATCH.
 *
 * Sending and receiving may be done by several threads at once on one endpoint. Properties are set before
 * [method@Channel.open], by one thread. Time-outs are in microseconds, see
 * [const@WAIT_FOREVER] and [const@NO_WAIT].
 *
 * Signals are emitted by the thread that is inside a sending or receiving call of this endpoint
 * (after every 700 ms of waiting, and with every sixteenth call that succeeds),
 * that dispatches its [method@Channel.create_source], or that calls
 * [method@Channel.dispatch_events].
 *
 * Since: 1.0
 */

/* Blocking calls come up for life-cycle events this often, when somebody listens. Microseconds. */
#define EVENT_SLICE_US (700 * 1000)
/* Calls that need not wait so long do after so many. */
#define EVENT_CALLS (16)
/* A caller may use one codec after the other: so many are remembered. */
#define MAX_ENCODERS (8)
/* Encodings up to this size, in bytes, are made on the stack: copying them is less work than a loan. */
#define STACK_ENCODING (4096)
/* An asynchronous operation that no descriptor can announce looks this often. Milliseconds. */
#define POLL_INTERVAL_MS (2)

/* g_set_str() is newer than GLib 2.74. */
static gboolean
set_string (char **to, const char *from)
{
  if (g_strcmp0 (*to, from) == 0)
    return FALSE;
  g_free (*to);
  *to = g_strdup (from);
  return TRUE;
}

/* A codec, and what the message path needs of it: looked up and packed once. Constant once it is in a list, and freed
 * with the channel, so that readers need no lock. */
typedef struct _Known Known;

struct _Known
{
  Known *next;
  FerryCodec *codec;
  FerryCodecInterface *iface;
  guint64 name; /* packed as messages carry them */
  guint64 version;
};

struct _FerryChannel
{
  GObject parent_instance;

  FerryTransport *transport;
  FerryTransportInterface *iface; /* of the transport: looked up once */
  gboolean (*send) (FerryTransport *, const guint8 *, gsize, guint64, guint64, gint64, GCancellable *, GError **);
  FerryCodec *codec; /* NULL: automatic */
  char *transport_name;
  char *codec_name;
  FerryDescription *origin; /* what it was made from; NULL: not from text */
  FerryChannelConfig *config;
  guint explicit_set; /* a bit for each property that was set */
  _Atomic gboolean is_open;
  _Atomic guint n_calls; /* successful ones */
  guint64 raw_name;
  guint64 raw_version;
  GMutex codecs_mutex;        /* of those who add to the lists */
  _Atomic (Known *) encoders; /* codecs that values were sent with */
  _Atomic (Known *) decoders; /* codecs and versions that arrived, or were added */
};

enum
{
  PROP_TRANSPORT = 1,
  PROP_NAME,
  PROP_CODEC,
  PROP_ROLE,
  PROP_MODE,
  PROP_OVERFLOW,
  PROP_WAIT_STRATEGY,
  PROP_OPEN_MODE,
  PROP_CAPACITY,
  PROP_MAX_BYTES,
  PROP_HISTORY,
  PROP_INLINE_SIZE,
  PROP_TIMESTAMPS,
  PROP_GROUP,
  N_PROPERTIES,
};

static GParamSpec *properties[N_PROPERTIES];

enum
{
  SIGNAL_PEER_JOINED,
  SIGNAL_PEER_GONE,
  SIGNAL_CLOSED,
  N_SIGNALS,
};

static guint signals[N_SIGNALS];

G_DEFINE_FINAL_TYPE (FerryChannel, ferry_channel, G_TYPE_OBJECT)

/* ---- making ---- */

/**
 * ferry_channel_new:
 * @transport: (nullable): name of a transport, or %NULL for the best ranked
 * @name: (nullable): name of the channel, or %NULL for an anonymous one
 * @role: what this end does
 *
 * Makes an endpoint; it is not open yet.
 *
 * Returns: (transfer full): a channel
 *
 * Since: 1.0
 */
FerryChannel *
ferry_channel_new (const char *transport, const char *name, FerryRole role)
{
  return g_object_new (FERRY_TYPE_CHANNEL, "transport", transport, "name", name, "role", role, NULL);
}

static gboolean
ferry_channel_ensure_transport (FerryChannel *self, GError **error)
{
  if (self->transport == NULL)
    self->transport = ferry_registry_create_transport (ferry_registry_get_default (), self->transport_name, error);
  if (self->transport == NULL)
    return FALSE;
  self->iface = FERRY_TRANSPORT_GET_IFACE (self->transport);
  return TRUE;
}

static gboolean
ferry_channel_ensure_codec (FerryChannel *self, GError **error)
{
  if (self->codec == NULL && self->codec_name != NULL && strcmp (self->codec_name, "auto") != 0)
    {
      self->codec = ferry_registry_create_codec (ferry_registry_get_default (), self->codec_name, error);
      return self->codec != NULL;
    }
  return TRUE;
}

static gboolean
ferry_channel_apply (FerryChannel *self, const FerryDescriptionProperty *property, GError **error)
{
  GParamSpec *own = g_object_class_find_property (G_OBJECT_GET_CLASS (self), property->key);

  if (own == properties[PROP_TRANSPORT] || own == properties[PROP_CODEC])
    {
      g_set_error (error, FERRY_ERROR, FERRY_ERROR_PARSE,
                   "'%s=' does not belong into a description: the transport is its first word, the codec follows a '!'",
                   property->key);
      return FALSE;
    }
  if (own == properties[PROP_ROLE])
    {
      g_set_error (error, FERRY_ERROR, FERRY_ERROR_PARSE,
                   "'role=' does not belong into a description: the program that opens the channel says it");
      return FALSE;
    }
  if (own == NULL && g_object_class_find_property (G_OBJECT_GET_CLASS (self->transport), property->key) != NULL)
    return ferry_description_set_property (G_OBJECT (self->transport), property->key, property->value, error);
  return ferry_description_set_property (G_OBJECT (self), property->key, property->value, error);
}

/**
 * ferry_channel_new_from_description:
 * @description: a line such as `memfd name=frames capacity=16 ! gvariant`, or a URI such
 *   as `ferry+memfd:frames?capacity=16&codec=gvariant`
 * @role: what this end does
 * @error: return location for an error
 *
 * Makes an endpoint from text; it is not open yet. What may be set are the
 * properties of [class@Channel], of the transport, and behind the `!` those of the codec.
 *
 * Errors: %FERRY_ERROR_PARSE, %FERRY_ERROR_NO_SUCH_FEATURE, %FERRY_ERROR_PLUGIN,
 * %FERRY_ERROR_INVALID_ARGUMENT.
 *
 * Returns: (transfer full): a channel
 *
 * Since: 1.0
 */
FerryChannel *
ferry_channel_new_from_description (const char *description, FerryRole role, GError **error)
{
  g_autoptr (FerryDescription) parsed = NULL;
  g_autoptr (FerryChannel) self = NULL;

  g_return_val_if_fail (description != NULL, NULL);
  g_return_val_if_fail (error == NULL || *error == NULL, NULL);

  parsed = ferry_description_parse (description, error);
  if (parsed == NULL)
    return NULL;
  self = ferry_channel_new (strcmp (parsed->transport, "auto") != 0 ? parsed->transport : NULL, NULL, role);
  set_string (&self->codec_name, parsed->codec);
  if (!ferry_channel_ensure_transport (self, error) || !ferry_channel_ensure_codec (self, error))
    return NULL;
  for (guint i = 0; i < parsed->channel_properties->len; i++)
    if (!ferry_channel_apply (self, g_ptr_array_index (parsed->channel_properties, i), error))
      return NULL;
  for (guint i = 0; i < parsed->codec_properties->len; i++)
    {
      FerryDescriptionProperty *property = g_ptr_array_index (parsed->codec_properties, i);

      if (self->codec == NULL)
        {
          g_set_error (error, FERRY_ERROR, FERRY_ERROR_PARSE,
                       "codec 'auto' has no properties; '%s=' needs a codec's name", property->key);
          return NULL;
        }
      if (!ferry_description_set_property (G_OBJECT (self->codec), property->key, property->value, error))
        return NULL;
    }
  self->origin = g_steal_pointer (&parsed);
  return g_steal_pointer (&self);
}

/**
 * ferry_channel_new_with_transport:
 * @transport: an unopened transport object of its own
 * @codec: (nullable): a codec, or %NULL for automatic choice
 * @role: what this end does
 *
 * Makes an endpoint from objects, for instance of classes that no plugin offers.
 *
 * Returns: (transfer full): a channel
 *
 * Since: 1.0
 */
FerryChannel *
ferry_channel_new_with_transport (FerryTransport *transport, FerryCodec *codec, FerryRole role)
{
  FerryChannel *self;

  g_return_val_if_fail (FERRY_IS_TRANSPORT (transport), NULL);
  g_return_val_if_fail (codec == NULL || FERRY_IS_CODEC (codec), NULL);

  self = ferry_channel_new (NULL, NULL, role);
  self->transport = g_object_ref (transport);
  self->iface = FERRY_TRANSPORT_GET_IFACE (transport);
  if (codec != NULL)
    self->codec = g_object_ref (codec);
  return self;
}

/* A setting that was given explicitly must be the one the channel has. */
static gboolean
ferry_channel_check_setting (FerryChannel *self, guint property_id, guint64 asked, guint64 found, GError **error)
{
  if (!(self->explicit_set & (1u << property_id)) || asked == 0 || asked == found)
    return TRUE;
  g_set_error (error, FERRY_ERROR, FERRY_ERROR_MISMATCH,
               "channel '%s' exists with %s=%" G_GUINT64_FORMAT ", asked for was %" G_GUINT64_FORMAT
               "; leave it out to join with what the channel has, or use another name",
               self->config->name != NULL ? self->config->name : "(anonymous)", properties[property_id]->name, found,
               asked);
  return FALSE;
}

static gboolean
ferry_channel_check_settings (FerryChannel *self, const FerryChannelConfig *asked, GError **error)
{
  const FerryChannelConfig *found = self->config;

  if ((self->explicit_set & (1u << PROP_MODE)) && asked->mode != found->mode)
    {
      g_set_error (
          error, FERRY_ERROR, FERRY_ERROR_MISMATCH,
          "channel '%s' exists with mode=%s, asked for was mode=%s; leave it out to join with what the channel "
          "has, or use another name",
          found->name != NULL ? found->name : "(anonymous)",
          found->mode == FERRY_MODE_BROADCAST ? "broadcast" : "work-queue",
          asked->mode == FERRY_MODE_BROADCAST ? "broadcast" : "work-queue");
      return FALSE;
    }
  return ferry_channel_check_setting (self, PROP_CAPACITY, asked->capacity, found->capacity, error)
         && ferry_channel_check_setting (self, PROP_MAX_BYTES, asked->max_bytes, found->max_bytes, error)
         && (asked->mode == FERRY_MODE_WORK_QUEUE
             || ferry_channel_check_setting (self, PROP_HISTORY, asked->history, found->history, error))
         && (asked->inline_size <= found->inline_size
             || ferry_channel_check_setting (self, PROP_INLINE_SIZE, asked->inline_size, found->inline_size, error));
}

/* A transport object is opened once: for another try there is a new one with the same properties. */
static void
ferry_channel_renew_transport (FerryChannel *self)
{
  g_autoptr (FerryTransport) used = g_steal_pointer (&self->transport);
  guint n_properties;
  g_autofree GParamSpec **specs = g_object_class_list_properties (G_OBJECT_GET_CLASS (used), &n_properties);

  self->transport = g_object_new (G_OBJECT_TYPE (used), NULL);
  for (guint i = 0; i < n_properties; i++)
    {
      g_auto (GValue) value = G_VALUE_INIT;

      if ((specs[i]->flags & G_PARAM_READWRITE) != G_PARAM_READWRITE || (specs[i]->flags & G_PARAM_CONSTRUCT_ONLY))
        continue;
      g_value_init (&value, specs[i]->value_type);
      g_object_get_property (G_OBJECT (used), specs[i]->name, &value);
      g_object_set_property (G_OBJECT (self->transport), specs[i]->name, &value);
    }
}

/**
 * ferry_channel_open:
 * @self: a channel
 * @cancellable: (nullable): to give up
 * @error: return location for an error
 *
 * Joins the channel, or creates it, as the property `open-mode` says. Blocks only as long
 * as other participants take to answer: microseconds, or up to ten seconds when one of them was stopped while it
 * joined, left or made the memory grow. Cancelling ends that at once, with %G_IO_ERROR_CANCELLED.
 *
 * Errors: %FERRY_ERROR_NOT_FOUND, %FERRY_ERROR_EXISTS, %FERRY_ERROR_MISMATCH,
 * %FERRY_ERROR_PERMISSION, %FERRY_ERROR_NO_SPACE, %FERRY_ERROR_VERSION,
 * %FERRY_ERROR_CORRUPT, %FERRY_ERROR_TOO_MANY, %FERRY_ERROR_INVALID_ARGUMENT,
 * %FERRY_ERROR_TIMED_OUT when participants are stopped.
 *
 * Returns: whether it is open now
 *
 * Since: 1.0
 */
gboolean
ferry_channel_open (FerryChannel *self, GCancellable *cancellable, GError **error)
{
  g_autoptr (FerryChannelConfig) asked = NULL;

  g_return_val_if_fail (FERRY_IS_CHANNEL (self), FALSE);
  g_return_val_if_fail (error == NULL || *error == NULL, FALSE);

  if (self->is_open)
    {
      g_set_error (error, FERRY_ERROR, FERRY_ERROR_INVALID_ARGUMENT, "channel '%s' is open already; close it first",
                   self->config->name != NULL ? self->config->name : "(anonymous)");
      return FALSE;
    }
  if (self->config->mode == FERRY_MODE_STORE)
    {
      g_set_error (error, FERRY_ERROR, FERRY_ERROR_UNSUPPORTED,
                   "channel '%s': mode=store is not a channel; open it with ferry_store_open() (Python: ferry.Store)",
                   self->config->name != NULL ? self->config->name : "(anonymous)");
      return FALSE;
    }
  if (!ferry_channel_config_validate (self->config, error) || !ferry_channel_ensure_transport (self, error)
      || !ferry_channel_ensure_codec (self, error))
    return FALSE;
  self->send = self->iface->send != NULL ? self->iface->send : ferry_transport_send;
  asked = ferry_channel_config_copy (self->config);
  if (!ferry_transport_open (self->transport, self->config, cancellable, error))
    return FALSE;
  if (!ferry_channel_check_settings (self, asked, error))
    {
      ferry_transport_close (self->transport, NULL);
      ferry_channel_renew_transport (self);
      ferry_channel_config_free (self->config);
      self->config = g_steal_pointer (&asked);
      return FALSE;
    }
  self->is_open = TRUE;
  return TRUE;
}

static void
open_thread (GTask *task, gpointer source_object, gpointer task_data, GCancellable *cancellable)
{
  GError *error = NULL;

  if (ferry_channel_open (source_object, cancellable, &error))
    g_task_return_boolean (task, TRUE);
  else
    g_task_return_error (task, error);
}

/**
 * ferry_channel_open_async:
 * @self: a channel
 * @io_priority: the priority of the callback
 * @cancellable: (nullable): to give up
 * @callback: (scope async) (closure user_data) (nullable): called when it is done
 * @user_data: data for @callback
 *
 * [method@Channel.open] without blocking the caller.
 *
 * Since: 1.0
 */
void
ferry_channel_open_async (FerryChannel *self, int io_priority, GCancellable *cancellable, GAsyncReadyCallback callback,
                          gpointer user_data)
{
  g_autoptr (GTask) task = NULL;

  g_return_if_fail (FERRY_IS_CHANNEL (self));

  task = g_task_new (self, cancellable, callback, user_data);
  g_task_set_source_tag (task, ferry_channel_open_async);
  g_task_set_priority (task, io_priority);
  g_task_run_in_thread (task, open_thread);
}

/**
 * ferry_channel_open_finish:
 * @self: a channel
 * @result: what the callback got
 * @error: return location for an error
 *
 * Ends [method@Channel.open_async].
 *
 * Returns: whether it is open now
 *
 * Since: 1.0
 */
gboolean
ferry_channel_open_finish (FerryChannel *self, GAsyncResult *result, GError **error)
{
  g_return_val_if_fail (g_task_is_valid (result, self), FALSE);

  return g_task_propagate_boolean (G_TASK (result), error);
}

/**
 * ferry_channel_close:
 * @self: a channel
 * @error: return location for an error
 *
 * Leaves the channel. Calls that wait in other threads fail with
 * %FERRY_ERROR_CLOSED. Buffers that are still held stay valid; their memory goes back when they
 * are released. Closing twice is fine. Dropping the last reference closes too.
 *
 * Closing takes microseconds, or up to ten seconds when a participant was stopped while it joined, left or made
 * the memory grow; then this endpoint leaves as if it had died: the others clean up after it.
 *
 * Returns: %TRUE
 *
 * Since: 1.0
 */
gboolean
ferry_channel_close (FerryChannel *self, GError **error)
{
  g_return_val_if_fail (FERRY_IS_CHANNEL (self), FALSE);

  if (!self->is_open)
    return TRUE;
  self->is_open = FALSE;
  return ferry_transport_close (self->transport, error);
}

/**
 * ferry_channel_is_open:
 * @self: a channel
 *
 * Whether this end is open.
 *
 * Returns: %TRUE between a successful open and close
 *
 * Since: 1.0
 */
gboolean
ferry_channel_is_open (FerryChannel *self)
{
  g_return_val_if_fail (FERRY_IS_CHANNEL (self), FALSE);

  return self->is_open;
}

/**
 * ferry_channel_to_description:
 * @self: a channel
 *
 * The description that [ctor@Channel.new_from_description] makes such a channel from. Properties of
 * the transport and the codec are in it if they were set by a description.
 *
 * Returns: (transfer full): a line of text
 *
 * Since: 1.0
 */
char *
ferry_channel_to_description (FerryChannel *self)
{
  g_autoptr (FerryDescription) description = NULL;

  g_return_val_if_fail (FERRY_IS_CHANNEL (self), NULL);

  description = ferry_description_new (
      self->transport_name != NULL ? self->transport_name : "auto",
      self->codec_name != NULL && strcmp (self->codec_name, "auto") != 0 ? self->codec_name : NULL);
  for (guint i = 1; i < N_PROPERTIES; i++)
    {
      g_autofree char *value = NULL;

      if (i == PROP_TRANSPORT || i == PROP_CODEC || i == PROP_ROLE || i == PROP_OPEN_MODE)
        continue;
      if (!(self->explicit_set & (1u << i)))
        continue;
      value = ferry_description_get_property (G_OBJECT (self), properties[i]);
      if (value != NULL)
        ferry_description_add (description, properties[i]->name, value);
    }
  if (self->origin != NULL && strcmp (description->transport, self->origin->transport) == 0)
    for (guint i = 0; i < self->origin->channel_properties->len; i++)
      {
        FerryDescriptionProperty *property = g_ptr_array_index (self->origin->channel_properties, i);

        if (g_object_class_find_property (G_OBJECT_GET_CLASS (self), property->key) == NULL)
          ferry_description_add (description, property->key, property->value);
      }
  if (self->origin != NULL && description->codec != NULL && g_strcmp0 (description->codec, self->origin->codec) == 0)
    for (guint i = 0; i < self->origin->codec_properties->len; i++)
      {
        FerryDescriptionProperty *property = g_ptr_array_index (self->origin->codec_properties, i);

        ferry_description_add_codec_property (description, property->key, property->value);
      }
  return ferry_description_to_string (description);
}

/**
 * ferry_channel_get_transport_object:
 * @self: a channel
 *
 * The transport object; it exists from opening on, or from the description on.
 *
 * Returns: (transfer none) (nullable): the transport
 *
 * Since: 1.0
 */
FerryTransport *
ferry_channel_get_transport_object (FerryChannel *self)
{
  g_return_val_if_fail (FERRY_IS_CHANNEL (self), NULL);

  return self->transport;
}

/**
 * ferry_channel_get_codec_object:
 * @self: a channel
 *
 * The codec object.
 *
 * Returns: (transfer none) (nullable): the codec; %NULL when it is chosen for each message
 *
 * Since: 1.0
 */
FerryCodec *
ferry_channel_get_codec_object (FerryChannel *self)
{
  g_return_val_if_fail (FERRY_IS_CHANNEL (self), NULL);

  return self->codec;
}

/* ---- life-cycle ---- */

static gboolean
ferry_channel_fail_closed (FerryChannel *self, GError **error)
{
  g_set_error (error, FERRY_ERROR, FERRY_ERROR_CLOSED, "channel '%s' is not open; call open first",
               self->config->name != NULL ? self->config->name : "(anonymous)");
  return FALSE;
}

/**
 * ferry_channel_dispatch_events:
 * @self: a channel
 *
 * Emits `peer-joined`, `peer-gone` and `closed` for what happened since the last time.
 * Only needed by programs that use neither blocking calls nor a GSource.
 *
 * Since: 1.0
 */
void
ferry_channel_dispatch_events (FerryChannel *self)
{
  g_return_if_fail (FERRY_IS_CHANNEL (self));

  while (self->is_open)
    {
      FerryParticipant peer = { 0 };
      FerryParticipant *participant = &peer;
      FerryTransportEvent event = ferry_transport_poll_events (self->transport, participant);

      switch (event)
        {
        case FERRY_TRANSPORT_EVENT_PEER_JOINED:
          g_signal_emit (self, signals[SIGNAL_PEER_JOINED], 0, participant);
          break;
        case FERRY_TRANSPORT_EVENT_PEER_LEFT:
          g_signal_emit (self, signals[SIGNAL_PEER_GONE], 0, participant, FALSE);
          break;
        case FERRY_TRANSPORT_EVENT_PEER_DIED:
          g_signal_emit (self, signals[SIGNAL_PEER_GONE], 0, participant, TRUE);
          break;
        case FERRY_TRANSPORT_EVENT_CLOSED:
          g_signal_emit (self, signals[SIGNAL_CLOSED], 0);
          break;
        case FERRY_TRANSPORT_EVENT_NONE:
        default:
          return;
        }
    }
}

/* A call that succeeded: busy endpoints never see the end of a slice, so now and then they look as well. */
static inline void
ferry_channel_count_call (FerryChannel *self)
{
  guint n_calls = atomic_load_explicit (&self->n_calls, memory_order_relaxed) + 1;

  atomic_store_explicit (&self->n_calls, n_calls, memory_order_relaxed);
  if (G_UNLIKELY (n_calls % EVENT_CALLS == 0))
    ferry_channel_dispatch_events (self);
}

/* A blocking call is made of slices, between which events are told. */
typedef struct
{
  gint64 timeout;
  gint64 deadline; /* g_get_monotonic_time(); negative: none */
} Slices;

/* Called after the first slice. */
static Slices
slices_begin (gint64 timeout)
{
  gint64 now = g_get_monotonic_time ();

  if (timeout < 0 || timeout > G_MAXINT64 - now)
    return (Slices){ timeout, -1 };
  return (Slices){ timeout, timeout > EVENT_SLICE_US ? now + timeout - EVENT_SLICE_US : now };
}

static gint64
slices_next (const Slices *slices)
{
  return slices->deadline < 0 ? EVENT_SLICE_US : CLAMP (slices->deadline - g_get_monotonic_time (), 1, EVENT_SLICE_US);
}

/* TRUE: that was only the end of a slice; go on. */
static gboolean
slices_go_on (FerryChannel *self, const Slices *slices, GError **local, GError **error)
{
  gboolean timed_out = g_error_matches (*local, FERRY_ERROR, FERRY_ERROR_TIMED_OUT);

  /* Also when it ends otherwise: why it does may be one of the events. */
  if (timed_out || slices->timeout != FERRY_NO_WAIT)
    ferry_channel_dispatch_events (self);
  if (!timed_out)
    {
      g_propagate_error (error, g_steal_pointer (local));
      return FALSE;
    }
  if (slices->timeout == FERRY_NO_WAIT || (slices->deadline >= 0 && g_get_monotonic_time () >= slices->deadline))
    {
      /* the time-out that the caller knows of, not the slice's */
      if (slices->timeout > EVENT_SLICE_US)
        {
          g_clear_error (local);
          g_set_error (local, FERRY_ERROR, FERRY_ERROR_TIMED_OUT, "channel '%s': nothing came of it within %g s",
                       self->config->name != NULL ? self->config->name : "(anonymous)",
                       (double) slices->timeout / G_USEC_PER_SEC);
        }
      g_propagate_error (error, g_steal_pointer (local));
      return FALSE;
    }
  g_clear_error (local);
  return self->is_open || ferry_channel_fail_closed (self, error);
}

/* ---- sending ---- */

/* The first slice of a blocking call; only what takes longer has events to tell in between. */
static inline gint64
first_slice (gint64 timeout)
{
  return timeout < 0 || timeout > EVENT_SLICE_US ? EVENT_SLICE_US : timeout;
}

static inline gboolean
ferry_channel_send_packed (FerryChannel *self, const guint8 *data, gsize size, guint64 name, guint64 version,
                           gint64 timeout, GCancellable *cancellable, GError **error)
{
  GError *local = NULL;
  Slices slices;

  /* Who polls need not pay for an error that nobody reads. */
  if (G_LIKELY (self->send (self->transport, data, size, name, version, first_slice (timeout), cancellable,
                            timeout == FERRY_NO_WAIT ? error : &local)))
    {
      ferry_channel_count_call (self);
      return TRUE;
    }
  if (timeout == FERRY_NO_WAIT)
    {
      ferry_channel_count_call (self);
      return FALSE;
    }
  slices = slices_begin (timeout);
  while (slices_go_on (self, &slices, &local, error))
    if (self->send (self->transport, data, size, name, version, slices_next (&slices), cancellable, &local))
      return TRUE;
  return FALSE;
}

/**
 * ferry_channel_send:
 * @self: a channel opened as sender
 * @data: (array length=size) (nullable): what to send
 * @size: its size in bytes, 0 and more
 * @timeout: how long to wait for room, in microseconds
 * @cancellable: (nullable): to give up
 * @error: return location for an error
 *
 * Sends bytes (codec `raw`). They are copied once, into shared memory.
 *
 * Returns %TRUE also when the policy dropped a message; the statistics count those.
 *
 * Errors: %FERRY_ERROR_FULL, %FERRY_ERROR_TIMED_OUT, %FERRY_ERROR_CLOSED,
 * %FERRY_ERROR_TOO_BIG, %FERRY_ERROR_NO_SPACE, %FERRY_ERROR_CORRUPT, %G_IO_ERROR_CANCELLED. The
 * message was not sent then.
 *
 * Returns: whether it was sent
 *
 * Since: 1.0
 */
gboolean
ferry_channel_send (FerryChannel *self, const guint8 *data, gsize size, gint64 timeout, GCancellable *cancellable,
                    GError **error)
{
  g_return_val_if_fail (FERRY_IS_CHANNEL (self), FALSE);
  g_return_val_if_fail (data != NULL || size == 0, FALSE);

  if (G_UNLIKELY (!self->is_open))
    return ferry_channel_fail_closed (self, error);
  if (G_UNLIKELY (cancellable != NULL && g_cancellable_set_error_if_cancelled (cancellable, error)))
    return FALSE;
  return ferry_channel_send_packed (self, data, size, self->raw_name, self->raw_version, timeout, cancellable, error);
}

/**
 * ferry_channel_send_bytes:
 * @self: a channel opened as sender
 * @bytes: what to send
 * @timeout: how long to wait for room, in microseconds
 * @cancellable: (nullable): to give up
 * @error: return location for an error
 *
 * [method@Channel.send] for bytes.
 *
 * Returns: whether it was sent
 *
 * Since: 1.0
 */
gboolean
ferry_channel_send_bytes (FerryChannel *self, GBytes *bytes, gint64 timeout, GCancellable *cancellable, GError **error)
{
  gsize size;
  const guint8 *data;

  g_return_val_if_fail (bytes != NULL, FALSE);

  data = g_bytes_get_data (bytes, &size);
  return ferry_channel_send (self, data, size, timeout, cancellable, error);
}

/**
 * ferry_channel_loan:
 * @self: a channel opened as sender
 * @size: bytes
 * @timeout: how long to wait for memory, in microseconds
 * @cancellable: (nullable): to give up
 * @error: return location for an error
 *
 * Borrows shared memory, to be filled in place and sent with
 * [method@Channel.send_buffer] without copying. Dropping the buffer instead gives the memory
 * back. Its contents are undefined.
 *
 * Errors: as [method@Channel.send].
 *
 * Returns: (transfer full): a writable buffer of @size bytes
 *
 * Since: 1.0
 */
FerryBuffer *
ferry_channel_loan (FerryChannel *self, gsize size, gint64 timeout, GCancellable *cancellable, GError **error)
{
  GError *local = NULL;
  FerryBuffer *buffer;
  Slices slices;

  g_return_val_if_fail (FERRY_IS_CHANNEL (self), NULL);

  if (G_UNLIKELY (!self->is_open))
    {
      ferry_channel_fail_closed (self, error);
      return NULL;
    }
  if (G_UNLIKELY (cancellable != NULL && g_cancellable_set_error_if_cancelled (cancellable, error)))
    return NULL;
  buffer = self->iface->loan (self->transport, size, first_slice (timeout), cancellable, &local);
  if (G_UNLIKELY (buffer == NULL))
    {
      slices = slices_begin (timeout);
      while (buffer == NULL && slices_go_on (self, &slices, &local, error))
        buffer = self->iface->loan (self->transport, size, slices_next (&slices), cancellable, &local);
      if (buffer == NULL)
        return NULL;
    }
  buffer->wire_name = self->raw_name;
  buffer->wire_version = self->raw_version;
  return buffer;
}

/**
 * ferry_channel_send_buffer:
 * @self: a channel opened as sender
 * @buffer: a buffer of [method@Channel.loan], or any other, which is then copied
 * @timeout: how long to wait for room, in microseconds
 * @cancellable: (nullable): to give up
 * @error: return location for an error
 *
 * Sends a buffer. A loaned one is spent afterwards: empty and read only; its
 * reference is still to be dropped. On failure it is as before and can be sent again.
 *
 * Errors: as [method@Channel.send].
 *
 * Returns: whether it was sent
 *
 * Since: 1.0
 */
gboolean
ferry_channel_send_buffer (FerryChannel *self, FerryBuffer *buffer, gint64 timeout, GCancellable *cancellable,
                           GError **error)
{
  GError *local = NULL;
  Slices slices;

  g_return_val_if_fail (FERRY_IS_CHANNEL (self), FALSE);
  g_return_val_if_fail (buffer != NULL, FALSE);

  if (G_UNLIKELY (!self->is_open))
    return ferry_channel_fail_closed (self, error);
  if (G_UNLIKELY (cancellable != NULL && g_cancellable_set_error_if_cancelled (cancellable, error)))
    return FALSE;
  if (buffer->wire_name == 0)
    {
      buffer->wire_name = self->raw_name;
      buffer->wire_version = self->raw_version;
    }
  if (G_LIKELY (self->iface->commit (self->transport, buffer, first_slice (timeout), cancellable, &local)))
    {
      ferry_channel_count_call (self);
      return TRUE;
    }
  slices = slices_begin (timeout);
  while (slices_go_on (self, &slices, &local, error))
    if (self->iface->commit (self->transport, buffer, slices_next (&slices), cancellable, &local))
      return TRUE;
  return FALSE;
}

/* The best-ranked codec that accepts the type. */
static FerryCodec *
ferry_channel_codec_for (FerryChannel *self, GType type, GError **error)
{
  static const char *const core_codecs[] = { "raw", "gvariant" };
  g_autoptr (GPtrArray) features = NULL;

  for (guint i = 0; i < G_N_ELEMENTS (core_codecs); i++)
    {
      g_autoptr (FerryCodec) codec = ferry_registry_create_codec (ferry_registry_get_default (), core_codecs[i], NULL);

      if (codec != NULL && ferry_codec_accepts (codec, type))
        return g_steal_pointer (&codec);
    }
  features = ferry_registry_list_features (ferry_registry_get_default (), FERRY_TYPE_CODEC_FACTORY);
  for (guint i = 0; features != NULL && i < features->len; i++)
    {
      g_autoptr (FerryCodec) codec
          = ferry_codec_factory_create (FERRY_CODEC_FACTORY (g_ptr_array_index (features, i)), NULL);

      if (codec != NULL && ferry_codec_accepts (codec, type))
        return g_steal_pointer (&codec);
    }
  g_set_error (error, FERRY_ERROR, FERRY_ERROR_CODEC,
               "no codec knows values of type %s; ferry-inspect lists the codecs and what they accept",
               g_type_name (type));
  return NULL;
}

static Known *
known_new (FerryCodec *codec, guint version)
{
  Known *known = g_new0 (Known, 1);

  known->codec = g_object_ref (codec);
  known->iface = FERRY_CODEC_GET_IFACE (codec);
  ferry_transport_pack_wire_name (ferry_codec_get_wire_name (codec), version, &known->name, &known->version);
  return known;
}

static void
known_free_all (Known *known)
{
  while (known != NULL)
    {
      Known *next = known->next;

      g_object_unref (known->codec);
      g_free (known);
      known = next;
    }
}

/* Under the mutex. The release pairs with the acquire loads of those who look without it. */
static void
known_add (_Atomic (Known *) *list, Known *known)
{
  known->next = atomic_load_explicit (list, memory_order_relaxed);
  atomic_store_explicit (list, known, memory_order_release);
}

/* What is known of a codec to send with. @scratch: filled in when it is not in the list and no longer fits into it. */
static const Known *
ferry_channel_known_encoder (FerryChannel *self, FerryCodec *codec, Known *scratch)
{
  const Known *known = atomic_load_explicit (&self->encoders, memory_order_acquire);
  guint n_known = 0;

  for (; known != NULL; known = known->next)
    {
      if (G_LIKELY (known->codec == codec))
        return known;
      n_known++;
    }
  if (n_known < MAX_ENCODERS)
    {
      Known *added = known_new (codec, ferry_codec_get_wire_version (codec));

      g_mutex_lock (&self->codecs_mutex);
      known_add (&self->encoders, added);
      g_mutex_unlock (&self->codecs_mutex);
      return added;
    }
  scratch->iface = FERRY_CODEC_GET_IFACE (codec);
  ferry_transport_pack_wire_name (ferry_codec_get_wire_name (codec), ferry_codec_get_wire_version (codec),
                                  &scratch->name, &scratch->version);
  return scratch;
}

/**
 * ferry_channel_loan_tensor:
 * @self: a channel opened as sender
 * @format: what the elements are, see [struct@Tensor]; for instance
 *   what [func@DataType.get_format] returns
 * @shape: (array length=n_dimensions) (nullable): elements along each dimension
 * @n_dimensions: 0 to %FERRY_TENSOR_MAX_DIMENSIONS
 * @timeout: how long to wait for memory, in microseconds
 * @cancellable: (nullable): to give up
 * @tensor: (out) (transfer full): the elements in it: writable, in C order, and undefined
 * @error: return location for an error
 *
 * [method@Channel.loan] for an array: the message is complete but for the elements, which are filled
 * in place. It is sent with [method@Channel.send_buffer], without a copy; receivers get the
 * array, in Python for instance a NumPy array.
 *
 * The elements are the receiver's as soon as the buffer is sent: drop @tensor before. It is the
 * channel's codec that must have a form for arrays, with codec `auto` the best-ranked one that accepts
 * tensors; `numpy` does.
 *
 * Errors: %FERRY_ERROR_INVALID_ARGUMENT when format or shape make no sense,
 * %FERRY_ERROR_UNSUPPORTED when the codec has no such form, %FERRY_ERROR_CODEC when it can't do it for
 * this array, and as [method@Channel.send].
 *
 * Returns: (transfer full): a writable buffer, the whole message
 *
 * Since: 1.0
 */
FerryBuffer *
ferry_channel_loan_tensor (FerryChannel *self, const char *format, const gint64 *shape, guint n_dimensions,
                           gint64 timeout, GCancellable *cancellable, FerryTensor **tensor, GError **error)
{
  g_autoptr (FerryCodec) chosen = NULL;
  g_autoptr (FerryTensor) elements = NULL;
  g_autoptr (FerryBuffer) buffer = NULL;
  FerryCodec *codec = NULL;
  FerryCodecInterface *iface;
  const Known *known;
  Known scratch;
  gsize offset = 0;
  gsize size;

  g_return_val_if_fail (FERRY_IS_CHANNEL (self), NULL);
  g_return_val_if_fail (format != NULL, NULL);
  g_return_val_if_fail (shape != NULL || n_dimensions == 0, NULL);
  g_return_val_if_fail (tensor != NULL, NULL);

  *tensor = NULL;
  if (G_UNLIKELY (!self->is_open))
    {
      ferry_channel_fail_closed (self, error);
      return NULL;
    }
  elements = ferry_tensor_new_layout (format, shape, n_dimensions, error);
  if (elements == NULL)
    return NULL;
  codec = self->codec;
  if (codec == NULL)
    codec = chosen = ferry_channel_codec_for (self, FERRY_TYPE_TENSOR, error);
  if (codec == NULL)
    return NULL;
  iface = FERRY_CODEC_GET_IFACE (codec);
  if (!iface->measure_tensor (codec, elements, &offset, error))
    return NULL;
  if (!g_size_checked_add (&size, offset, ferry_tensor_get_size_bytes (elements)))
    {
      g_set_error (error, FERRY_ERROR, FERRY_ERROR_TOO_BIG, "channel '%s': the array is too big for any memory",
                   self->config->name != NULL ? self->config->name : "(anonymous)");
      return NULL;
    }
  buffer = ferry_channel_loan (self, size, timeout, cancellable, error);
  if (buffer == NULL || !iface->begin_tensor (codec, elements, buffer->data, offset, error))
    return NULL;
  known = ferry_channel_known_encoder (self, codec, &scratch);
  buffer->wire_name = known->name;
  buffer->wire_version = known->version;
  ferry_tensor_place (elements, buffer, offset);
  *tensor = g_steal_pointer (&elements);
  return g_steal_pointer (&buffer);
}

/**
 * ferry_channel_send_encoded:
 * @self: a channel opened as sender
 * @codec: the codec that made the bytes, or whose encoding they are
 * @data: (array length=size) (nullable): what to send
 * @size: its size in bytes, 0 and more
 * @timeout: how long to wait for room, in microseconds
 * @cancellable: (nullable): to give up
 * @error: return location for an error
 *
 * [method@Channel.send] for bytes that are a message of @codec, for instance those of
 * [method@Codec.encode_bytes]: they carry its wire name. They are copied once, into shared memory.
 *
 * Errors: as [method@Channel.send].
 *
 * Returns: whether it was sent
 *
 * Since: 1.0
 */
gboolean
ferry_channel_send_encoded (FerryChannel *self, FerryCodec *codec, const guint8 *data, gsize size, gint64 timeout,
                            GCancellable *cancellable, GError **error)
{
  const Known *known;
  Known scratch;

  g_return_val_if_fail (FERRY_IS_CHANNEL (self), FALSE);
  g_return_val_if_fail (codec != NULL, FALSE);
  g_return_val_if_fail (data != NULL || size == 0, FALSE);

  if (G_UNLIKELY (!self->is_open))
    return ferry_channel_fail_closed (self, error);
  if (G_UNLIKELY (cancellable != NULL && g_cancellable_set_error_if_cancelled (cancellable, error)))
    return FALSE;
  known = ferry_channel_known_encoder (self, codec, &scratch);
  return ferry_channel_send_packed (self, data, size, known->name, known->version, timeout, cancellable, error);
}

/**
 * ferry_channel_send_value:
 * @self: a channel opened as sender
 * @value: what to send
 * @timeout: how long to wait for room, in microseconds
 * @cancellable: (nullable): to give up
 * @error: return location for an error
 *
 * Encodes a value with the channel's codec straight into shared memory and sends it. With codec
 * `auto` the best-ranked one that accepts the value's type is taken.
 *
 * Errors: %FERRY_ERROR_CODEC when it can't be encoded, and as [method@Channel.send].
 *
 * Returns: whether it was sent
 *
 * Since: 1.0
 */
gboolean
ferry_channel_send_value (FerryChannel *self, const GValue *value, gint64 timeout, GCancellable *cancellable,
                          GError **error)
{
  return ferry_channel_send_value_with_codec (self, NULL, value, timeout, cancellable, error);
}

/**
 * ferry_channel_send_value_with_codec:
 * @self: a channel opened as sender
 * @codec: (nullable): what to encode this message with; %NULL: as [method@Channel.send_value]
 * @value: what to send
 * @timeout: how long to wait for room, in microseconds
 * @cancellable: (nullable): to give up
 * @error: return location for an error
 *
 * [method@Channel.send_value] with the codec chosen for each message: receivers with
 * codec `auto` go by the wire name that it carries.
 *
 * Returns: whether it was sent
 *
 * Since: 1.0
 */
gboolean
ferry_channel_send_value_with_codec (FerryChannel *self, FerryCodec *codec, const GValue *value, gint64 timeout,
                                     GCancellable *cancellable, GError **error)
{
  g_autoptr (FerryCodec) chosen = NULL;
  g_autoptr (FerryBuffer) buffer = NULL;
  guint8 small[STACK_ENCODING] __attribute__ ((aligned (FERRY_BUFFER_ALIGNMENT)));
  const Known *known;
  Known scratch;
  gpointer state = NULL;
  gsize size = 0;
  gboolean ok;

  g_return_val_if_fail (FERRY_IS_CHANNEL (self), FALSE);
  g_return_val_if_fail (codec == NULL || FERRY_IS_CODEC (codec), FALSE);
  g_return_val_if_fail (G_IS_VALUE (value), FALSE);

  if (codec == NULL)
    codec = self->codec;
  if (codec == NULL)
    codec = chosen = ferry_channel_codec_for (self, G_VALUE_TYPE (value), error);
  if (codec == NULL || !ferry_codec_measure (codec, value, &size, &state, error))
    return FALSE;

  if (size <= sizeof small && self->iface->send != NULL)
    {
      ok = ferry_codec_encode (codec, value, small, size, state, error);
      ferry_codec_free_state (codec, state);
      return ok && ferry_channel_send_encoded (self, codec, small, size, timeout, cancellable, error);
    }
  buffer = ferry_channel_loan (self, size, timeout, cancellable, error);
  ok = buffer != NULL && ferry_codec_encode (codec, value, buffer->data, size, state, error);
  ferry_codec_free_state (codec, state);
  if (!ok)
    return FALSE;
  known = ferry_channel_known_encoder (self, codec, &scratch);
  buffer->wire_name = known->name;
  buffer->wire_version = known->version;
  return ferry_channel_send_buffer (self, buffer, timeout, cancellable, error);
}

/**
 * ferry_channel_send_variant:
 * @self: a channel opened as sender
 * @variant: what to send; a floating reference is taken
 * @timeout: how long to wait for room, in microseconds
 * @cancellable: (nullable): to give up
 * @error: return location for an error
 *
 * [method@Channel.send_value] for a variant.
 *
 * Returns: whether it was sent
 *
 * Since: 1.0
 */
gboolean
ferry_channel_send_variant (FerryChannel *self, GVariant *variant, gint64 timeout, GCancellable *cancellable,
                            GError **error)
{
  g_auto (GValue) value = G_VALUE_INIT;

  g_return_val_if_fail (variant != NULL, FALSE);

  g_value_init (&value, G_TYPE_VARIANT);
  g_value_set_variant (&value, variant); /* sinks it */
  return ferry_channel_send_value (self, &value, timeout, cancellable, error);
}

/**
 * ferry_channel_end_of_stream:
 * @self: a channel opened as sender
 * @error: return location for an error
 *
 * Declares that this sender sends no more. When all live senders have, and all messages are taken,
 * receivers get %FERRY_ERROR_END_OF_STREAM. A sender that merely leaves or dies ends nothing.
 *
 * Returns: whether it is declared
 *
 * Since: 1.0
 */
gboolean
ferry_channel_end_of_stream (FerryChannel *self, GError **error)
{
  g_return_val_if_fail (FERRY_IS_CHANNEL (self), FALSE);

  if (!self->is_open)
    return ferry_channel_fail_closed (self, error);
  return ferry_transport_end_of_stream (self->transport, error);
}

/**
 * ferry_channel_flush:
 * @self: a channel opened as sender
 * @timeout: how long to wait, in microseconds
 * @cancellable: (nullable): to give up
 * @error: return location for an error
 *
 * Waits until everything that was sent so far, by whatever sender, is taken by a receiver, in
 * broadcast by every receiver. What is sent while it waits does not count.
 *
 * Errors: %FERRY_ERROR_TIMED_OUT, %FERRY_ERROR_CLOSED, %FERRY_ERROR_CORRUPT,
 * %G_IO_ERROR_CANCELLED.
 *
 * Returns: whether everything is taken
 *
 * Since: 1.0
 */
gboolean
ferry_channel_flush (FerryChannel *self, gint64 timeout, GCancellable *cancellable, GError **error)
{
  guint64 mark;

  g_return_val_if_fail (FERRY_IS_CHANNEL (self), FALSE);

  return ferry_channel_mark (self, &mark, error) && ferry_channel_flush_mark (self, mark, timeout, cancellable, error);
}

/**
 * ferry_channel_mark:
 * @self: a channel opened as sender
 * @mark: (out): where to put the mark
 * @error: return location for an error
 *
 * Tells how far has been sent: everything that this thread sent before is before the mark, and
 * everything that anybody sends afterwards is not. [method@Channel.flush_mark] waits for a mark;
 * a program that wants to do something else in between calls it again with the same one.
 *
 * Errors: %FERRY_ERROR_CLOSED, %FERRY_ERROR_CORRUPT.
 *
 * Returns: whether there is a mark
 *
 * Since: 1.0
 */
gboolean
ferry_channel_mark (FerryChannel *self, guint64 *mark, GError **error)
{
  g_return_val_if_fail (FERRY_IS_CHANNEL (self), FALSE);
  g_return_val_if_fail (mark != NULL, FALSE);

  *mark = 0;
  if (!self->is_open)
    return ferry_channel_fail_closed (self, error);
  return ferry_transport_mark (self->transport, mark, error);
}

/**
 * ferry_channel_flush_mark:
 * @self: a channel opened as sender
 * @mark: what [method@Channel.mark] of the same channel told
 * @timeout: how long to wait, in microseconds
 * @cancellable: (nullable): to give up
 * @error: return location for an error
 *
 * Waits until everything before the mark is taken by a receiver, in broadcast by every receiver.
 *
 * With a transport that has no marks, which those in shared memory all have, what is sent between
 * the calls is waited for as well.
 *
 * Errors: as [method@Channel.flush].
 *
 * Returns: whether everything before the mark is taken
 *
 * Since: 1.0
 */
gboolean
ferry_channel_flush_mark (FerryChannel *self, guint64 mark, gint64 timeout, GCancellable *cancellable, GError **error)
{
  GError *local = NULL;
  Slices slices;

  g_return_val_if_fail (FERRY_IS_CHANNEL (self), FALSE);

  if (!self->is_open)
    return ferry_channel_fail_closed (self, error);
  if (ferry_transport_flush_mark (self->transport, mark, first_slice (timeout), cancellable, &local))
    return TRUE;
  slices = slices_begin (timeout);
  while (slices_go_on (self, &slices, &local, error))
    if (ferry_transport_flush_mark (self->transport, mark, slices_next (&slices), cancellable, &local))
      return TRUE;
  return FALSE;
}

/**
 * ferry_channel_shut_down:
 * @self: a channel
 * @error: return location for an error
 *
 * Closes the channel for everybody: senders fail with %FERRY_ERROR_CLOSED at once,
 * receivers when they have taken what is there. Any role may do that.
 *
 * Returns: whether it is shut down
 *
 * Since: 1.0
 */
gboolean
ferry_channel_shut_down (FerryChannel *self, GError **error)
{
  g_return_val_if_fail (FERRY_IS_CHANNEL (self), FALSE);

  if (!self->is_open)
    return ferry_channel_fail_closed (self, error);
  return ferry_transport_shut_down (self->transport, error);
}

/* ---- receiving ---- */

/**
 * ferry_channel_receive:
 * @self: a channel opened as receiver
 * @timeout: how long to wait, in microseconds
 * @cancellable: (nullable): to give up
 * @error: return location for an error
 *
 * Takes the next message. Where it lies in a block the buffer is a view on shared memory.
 *
 * Errors: %FERRY_ERROR_EMPTY (only with %FERRY_NO_WAIT), %FERRY_ERROR_TIMED_OUT,
 * %FERRY_ERROR_END_OF_STREAM, %FERRY_ERROR_CLOSED, %FERRY_ERROR_CORRUPT,
 * %G_IO_ERROR_CANCELLED.
 *
 * Returns: (transfer full): the message
 *
 * Since: 1.0
 */
FerryBuffer *
ferry_channel_receive (FerryChannel *self, gint64 timeout, GCancellable *cancellable, GError **error)
{
  GError *local = NULL;
  FerryBuffer *buffer;
  Slices slices;

  g_return_val_if_fail (FERRY_IS_CHANNEL (self), NULL);

  if (G_UNLIKELY (!self->is_open))
    {
      ferry_channel_fail_closed (self, error);
      return NULL;
    }
  if (G_UNLIKELY (cancellable != NULL && g_cancellable_set_error_if_cancelled (cancellable, error)))
    return NULL;
  /* Who polls need not pay for an error that nobody reads. */
  buffer = self->iface->take (self->transport, first_slice (timeout), cancellable,
                              timeout == FERRY_NO_WAIT ? error : &local);
  if (G_LIKELY (buffer != NULL))
    {
      ferry_channel_count_call (self);
      return buffer;
    }
  if (timeout == FERRY_NO_WAIT)
    {
      ferry_channel_count_call (self);
      return NULL;
    }
  slices = slices_begin (timeout);
  while (slices_go_on (self, &slices, &local, error))
    {
      buffer = self->iface->take (self->transport, slices_next (&slices), cancellable, &local);
      if (buffer != NULL)
        return buffer;
    }
  return NULL;
}

/**
 * ferry_channel_receive_bytes:
 * @self: a channel opened as receiver
 * @timeout: how long to wait, in microseconds
 * @cancellable: (nullable): to give up
 * @error: return location for an error
 *
 * [method@Channel.receive], the contents as bytes, without a copy: they hold the message.
 *
 * Returns: (transfer full): the message
 *
 * Since: 1.0
 */
GBytes *
ferry_channel_receive_bytes (FerryChannel *self, gint64 timeout, GCancellable *cancellable, GError **error)
{
  g_autoptr (FerryBuffer) buffer = ferry_channel_receive (self, timeout, cancellable, error);

  return buffer != NULL ? ferry_buffer_as_bytes (buffer) : NULL;
}

/* The codec of a wire name among those that arrived, of any version. Under the mutex. */
static FerryCodec *
ferry_channel_known_codec (FerryChannel *self, guint64 name, guint64 version)
{
  for (Known *known = atomic_load_explicit (&self->decoders, memory_order_relaxed); known != NULL; known = known->next)
    if (known->name == name && (guint32) known->version == (guint32) version)
      return known->codec;
  return NULL;
}

/* Another thread may have added the same meanwhile: that one stays. */
static const Known *
ferry_channel_add_decoder (FerryChannel *self, FerryCodec *codec, guint version)
{
  Known *added = known_new (codec, version);
  Known *known;

  g_mutex_lock (&self->codecs_mutex);
  for (known = atomic_load_explicit (&self->decoders, memory_order_relaxed); known != NULL; known = known->next)
    if (known->name == added->name && known->version == added->version)
      break;
  if (known == NULL)
    known_add (&self->decoders, known = g_steal_pointer (&added));
  g_mutex_unlock (&self->codecs_mutex);
  known_free_all (added);
  return known;
}

/* For the first message of a codec and version. */
static const Known *
ferry_channel_find_decoder (FerryChannel *self, FerryBuffer *buffer, GError **error)
{
  g_autoptr (FerryCodec) codec = NULL;
  g_autofree char *wire_name = NULL;
  FerryCodec *known;
  guint64 packed_name;
  guint64 packed_version;
  guint version;
  guint newest;

  wire_name = ferry_buffer_dup_wire_name (buffer, &version);

  /* Else each message with other bytes behind the end of the name would count as another codec. */
  ferry_transport_pack_wire_name (wire_name, version, &packed_name, &packed_version);
  if (packed_name != buffer->wire_name || packed_version != buffer->wire_version)
    {
      g_set_error (error, FERRY_ERROR, FERRY_ERROR_CODEC,
                   "the name of the message's codec has bytes behind its end, as no sender writes it");
      return NULL;
    }
  if (self->codec != NULL)
    {
      if (strcmp (ferry_codec_get_wire_name (self->codec), wire_name) != 0)
        {
          g_set_error (error, FERRY_ERROR, FERRY_ERROR_CODEC,
                       "the message was encoded by codec '%s', this end has codec '%s'; use the same on both sides, or "
                       "codec auto here",
                       wire_name, ferry_codec_get_wire_name (self->codec));
          return NULL;
        }
      codec = g_object_ref (self->codec);
    }

  g_mutex_lock (&self->codecs_mutex);
  known = ferry_channel_known_codec (self, buffer->wire_name, buffer->wire_version);
  if (codec == NULL && known != NULL)
    codec = g_object_ref (known);
  g_mutex_unlock (&self->codecs_mutex);

  /* Without the mutex: making one may load a plugin, which may do anything. */
  if (codec == NULL)
    {
      g_autoptr (FerryCodecFactory) factory
          = ferry_registry_find_codec_by_wire_name (ferry_registry_get_default (), wire_name, version);

      if (factory == NULL)
        g_set_error (error, FERRY_ERROR, FERRY_ERROR_CODEC,
                     "no codec here knows messages of '%s' version %u; install the plugin that the sender uses "
                     "(ferry-inspect lists codecs)",
                     wire_name, version);
      else
        codec = ferry_codec_factory_create (factory, error);
    }
  if (codec == NULL)
    return NULL;
  newest = ferry_codec_get_wire_version (codec);
  if (version > newest)
    {
      g_set_error (error, FERRY_ERROR, FERRY_ERROR_CODEC,
                   "codec '%s': the message has version %u of the encoding, this codec knows versions up to %u; "
                   "update the receiver",
                   wire_name, version, newest);
      return NULL;
    }
  return ferry_channel_add_decoder (self, codec, version);
}

/**
 * ferry_channel_decode:
 * @self: a channel
 * @buffer: a message
 * @value: (out caller-allocates): what it says; unset before
 * @error: return location for an error
 *
 * Decodes a received message with the channel's codec, or with codec `auto` with the
 * best-ranked one that knows the message's wire name.
 *
 * Errors: %FERRY_ERROR_CODEC, %FERRY_ERROR_NO_SUCH_FEATURE, %FERRY_ERROR_PLUGIN.
 *
 * Returns: whether @value is set
 *
 * Since: 1.0
 */
gboolean
ferry_channel_decode (FerryChannel *self, FerryBuffer *buffer, GValue *value, GError **error)
{
  const Known *known = NULL;

  g_return_val_if_fail (FERRY_IS_CHANNEL (self), FALSE);
  g_return_val_if_fail (buffer != NULL, FALSE);
  g_return_val_if_fail (value != NULL && G_VALUE_TYPE (value) == G_TYPE_INVALID, FALSE);

  for (known = atomic_load_explicit (&self->decoders, memory_order_acquire); known != NULL; known = known->next)
    if (known->name == buffer->wire_name && known->version == buffer->wire_version)
      break;
  if (G_UNLIKELY (known == NULL))
    known = ferry_channel_find_decoder (self, buffer, error);
  if (known == NULL)
    return FALSE;
  if (G_UNLIKELY (!known->iface->decode (known->codec, buffer, (guint) (buffer->wire_version >> 32), value, error)))
    {
      if (G_VALUE_TYPE (value) != G_TYPE_INVALID)
        g_value_unset (value);
      return FALSE;
    }
  return TRUE;
}

/**
 * ferry_channel_add_codec:
 * @self: a channel
 * @codec: a codec
 *
 * Messages that carry the wire name of @codec are decoded by it, and not by a new object with the
 * defaults of its class, when this end's codec is `auto`. To be called before messages of it are
 * decoded; the first codec of a wire name stays.
 *
 * Since: 1.0
 */
void
ferry_channel_add_codec (FerryChannel *self, FerryCodec *codec)
{
  Known scratch;
  Known *known;
  gboolean added;

  g_return_if_fail (FERRY_IS_CHANNEL (self));
  g_return_if_fail (FERRY_IS_CODEC (codec));

  known = known_new (codec, ferry_codec_get_wire_version (codec));
  g_mutex_lock (&self->codecs_mutex);
  if (self->codec == NULL && ferry_channel_known_codec (self, known->name, known->version) == NULL)
    known_add (&self->decoders, g_steal_pointer (&known));
  g_mutex_unlock (&self->codecs_mutex);
  added = known == NULL;
  known_free_all (known);
  /* Likely what values are sent with; so the first one need not wait for it. */
  if (added)
    ferry_channel_known_encoder (self, codec, &scratch);
}

/**
 * ferry_channel_receive_value:
 * @self: a channel opened as receiver
 * @value: (out caller-allocates): the message; unset before
 * @timeout: how long to wait, in microseconds
 * @cancellable: (nullable): to give up
 * @error: return location for an error
 *
 * Takes the next message and decodes it. A message that can't be decoded is taken and lost; who
 * wants to look at it uses [method@Channel.receive] and [method@Channel.decode].
 *
 * Returns: whether @value is set
 *
 * Since: 1.0
 */
gboolean
ferry_channel_receive_value (FerryChannel *self, GValue *value, gint64 timeout, GCancellable *cancellable,
                             GError **error)
{
  g_autoptr (FerryBuffer) buffer = ferry_channel_receive (self, timeout, cancellable, error);

  return buffer != NULL && ferry_channel_decode (self, buffer, value, error);
}

/**
 * ferry_channel_receive_variant:
 * @self: a channel opened as receiver
 * @timeout: how long to wait, in microseconds
 * @cancellable: (nullable): to give up
 * @error: return location for an error
 *
 * [method@Channel.receive_value] for messages of codec `gvariant`.
 *
 * Returns: (transfer full): the message
 *
 * Since: 1.0
 */
GVariant *
ferry_channel_receive_variant (FerryChannel *self, gint64 timeout, GCancellable *cancellable, GError **error)
{
  g_auto (GValue) value = G_VALUE_INIT;

  if (!ferry_channel_receive_value (self, &value, timeout, cancellable, error))
    return NULL;
  if (!G_VALUE_HOLDS_VARIANT (&value))
    {
      g_set_error (error, FERRY_ERROR, FERRY_ERROR_CODEC,
                   "the message is a %s, not a variant; receive it with ferry_channel_receive_value()",
                   G_VALUE_TYPE_NAME (&value));
      return NULL;
    }
  return g_value_dup_variant (&value);
}

/* ---- waiting ---- */

/**
 * ferry_channel_wait:
 * @self: a channel
 * @condition: %G_IO_IN for a receiver, %G_IO_OUT for a sender
 * @timeout: how long to wait, in microseconds
 * @cancellable: (nullable): to give up
 * @error: return location for an error
 *
 * Waits until the next receive or send has something to tell: a message, the end of the
 * stream, room, the closing. Another endpoint may be quicker all the same.
 *
 * Returns: %FALSE when the time-out came first or it was cancelled
 *
 * Since: 1.0
 */
gboolean
ferry_channel_wait (FerryChannel *self, GIOCondition condition, gint64 timeout, GCancellable *cancellable,
                    GError **error)
{
  g_return_val_if_fail (FERRY_IS_CHANNEL (self), FALSE);

  if (!self->is_open)
    return ferry_channel_fail_closed (self, error);
  return ferry_transport_wait (self->transport, condition, timeout, cancellable, error);
}

/**
 * ferry_channel_get_fd:
 * @self: a channel
 * @error: return location for an error
 *
 * A descriptor for poll(), select(), epoll or asyncio. Before each poll call
 * [method@Channel.check]: it says what is ready already and arms the descriptor for the rest. When
 * the descriptor is readable, check again; it may be a false alarm (at most two a second). Between
 * participants in different network namespaces it becomes readable up to half a second late.
 *
 * Returns: a descriptor that belongs to @self, or -1
 *
 * Since: 1.0
 */
int
ferry_channel_get_fd (FerryChannel *self, GError **error)
{
  g_return_val_if_fail (FERRY_IS_CHANNEL (self), -1);

  if (!self->is_open)
    {
      ferry_channel_fail_closed (self, error);
      return -1;
    }
  return ferry_transport_get_fd (self->transport, error);
}

/**
 * ferry_channel_check:
 * @self: a channel
 * @condition: %G_IO_IN for a receiver, %G_IO_OUT for a sender
 *
 * What is ready now. What is not is announced by [method@Channel.get_fd].
 *
 * Returns: the conditions that hold, and %G_IO_HUP when the channel is closed
 *
 * Since: 1.0
 */
GIOCondition
ferry_channel_check (FerryChannel *self, GIOCondition condition)
{
  g_return_val_if_fail (FERRY_IS_CHANNEL (self), 0);

  return self->is_open ? ferry_transport_check (self->transport, condition) : G_IO_HUP;
}

typedef struct
{
  GSource source;
  FerryChannel *channel;
  GIOCondition condition;
  gpointer tag;
  GCancellable *cancellable;
  gint64 next_events; /* g_source_get_time() at which to look for events at the latest */
} ChannelSource;

static gboolean
channel_source_ready (ChannelSource *source)
{
  return ferry_channel_check (source->channel, source->condition) != 0;
}

static gboolean
channel_source_prepare (GSource *source, int *timeout)
{
  *timeout = -1;
  /* In a loop that other sources keep busy the descriptor's timer is set anew all the time and never goes off. */
  return channel_source_ready ((ChannelSource *) source)
         || g_source_get_time (source) >= ((ChannelSource *) source)->next_events;
}

static gboolean
channel_source_check (GSource *source)
{
  ChannelSource *self = (ChannelSource *) source;

  /* also when only the timer ran: there may be events to tell */
  return g_source_query_unix_fd (source, self->tag) != 0 || channel_source_ready (self);
}

static gboolean
channel_source_dispatch (GSource *source, GSourceFunc callback, gpointer user_data)
{
  ChannelSource *self = (ChannelSource *) source;
  FerryChannelSourceFunc func = (FerryChannelSourceFunc) (void (*) (void)) callback;
  GIOCondition ready;

  self->next_events = g_source_get_time (source) + 2 * EVENT_SLICE_US;
  ferry_channel_dispatch_events (self->channel);
  ready = ferry_channel_check (self->channel, self->condition);
  if (ready == 0 && !g_cancellable_is_cancelled (self->cancellable))
    return G_SOURCE_CONTINUE;
  if (func == NULL)
    return G_SOURCE_REMOVE;
  return func (self->channel, ready, user_data);
}

static void
channel_source_finalize (GSource *source)
{
  g_clear_object (&((ChannelSource *) source)->channel);
  g_clear_object (&((ChannelSource *) source)->cancellable);
}

static gboolean
channel_source_closure_cb (FerryChannel *channel, GIOCondition condition, gpointer data)
{
  GClosure *closure = data;
  GValue params[2] = { G_VALUE_INIT, G_VALUE_INIT };
  g_auto (GValue) result = G_VALUE_INIT;
  gboolean go_on;

  g_value_init (&result, G_TYPE_BOOLEAN);
  g_value_init (&params[0], FERRY_TYPE_CHANNEL);
  g_value_set_object (&params[0], channel);
  g_value_init (&params[1], G_TYPE_IO_CONDITION);
  g_value_set_flags (&params[1], condition);
  g_closure_invoke (closure, &result, 2, params, NULL);
  go_on = g_value_get_boolean (&result);
  g_value_unset (&params[0]);
  g_value_unset (&params[1]);
  return go_on;
}

static GSourceFuncs channel_source_funcs = {
  channel_source_prepare,
  channel_source_check,
  channel_source_dispatch,
  channel_source_finalize,
  (GSourceFunc) (void (*) (void)) channel_source_closure_cb,
  NULL,
};

/**
 * ferry_channel_create_source:
 * @self: an open channel
 * @condition: %G_IO_IN for a receiver, %G_IO_OUT for a sender
 * @cancellable: (nullable): makes the source ready when cancelled; its callback gets
 *   no condition then
 * @error: return location for an error
 *
 * A source for a main loop, whose callback is a [callback@ChannelSourceFunc]. It also
 * emits the life-cycle signals. It costs no CPU time while nothing happens, but two looks a second for dead peers.
 *
 * Returns: (transfer full): a source
 *
 * Since: 1.0
 */
GSource *
ferry_channel_create_source (FerryChannel *self, GIOCondition condition, GCancellable *cancellable, GError **error)
{
  GSource *source;
  int fd = ferry_channel_get_fd (self, error);

  if (fd < 0)
    return NULL;
  source = g_source_new (&channel_source_funcs, sizeof (ChannelSource));
  g_source_set_static_name (source, "FerryChannel");
  ((ChannelSource *) source)->channel = g_object_ref (self);
  ((ChannelSource *) source)->condition = condition;
  ((ChannelSource *) source)->tag = g_source_add_unix_fd (source, fd, G_IO_IN);
  if (cancellable != NULL)
    {
      g_autoptr (GSource) child = g_cancellable_source_new (cancellable);

      ((ChannelSource *) source)->cancellable = g_object_ref (cancellable);
      g_source_set_dummy_callback (child);
      g_source_add_child_source (source, child);
    }
  return source;
}

/* ---- asynchronous operations: no threads, the descriptor tells ---- */

typedef gboolean (*TryFunc) (GTask *task, GError **error);

typedef struct
{
  TryFunc try;
  GIOCondition condition; /* 0: nothing announces it, look now and then */
  gpointer data;          /* of the operation */
  GDestroyNotify free_data;
  GSource *source;
} AsyncOperation;

static void
async_operation_free (gpointer data)
{
  AsyncOperation *operation = data;

  if (operation->source != NULL)
    {
      g_source_destroy (operation->source);
      g_source_unref (operation->source);
    }
  if (operation->free_data != NULL && operation->data != NULL)
    operation->free_data (operation->data);
  g_free (operation);
}

static void async_wait (GTask *task);

/* Tries once. TRUE: the task is finished. */
static gboolean
async_try (GTask *task)
{
  AsyncOperation *operation = g_task_get_task_data (task);
  g_autoptr (GError) error = NULL;

  if (g_task_return_error_if_cancelled (task))
    return TRUE;
  if (operation->try (task, &error))
    return TRUE;
  if (g_error_matches (error, FERRY_ERROR, FERRY_ERROR_EMPTY) || g_error_matches (error, FERRY_ERROR, FERRY_ERROR_FULL)
      || g_error_matches (error, FERRY_ERROR, FERRY_ERROR_TIMED_OUT))
    return FALSE;
  g_task_return_error (task, g_steal_pointer (&error));
  return TRUE;
}

static gboolean
async_source_cb (FerryChannel *channel, GIOCondition condition, gpointer user_data)
{
  GTask *task = user_data;

  if (!async_try (task))
    async_wait (task);
  return G_SOURCE_REMOVE;
}

static gboolean
async_timer_cb (gpointer user_data)
{
  return async_source_cb (NULL, 0, user_data);
}

static void
async_wait (GTask *task)
{
  AsyncOperation *operation = g_task_get_task_data (task);
  FerryChannel *self = g_task_get_source_object (task);
  GSource *source = NULL;

  if (operation->source != NULL)
    {
      g_source_destroy (operation->source);
      g_clear_pointer (&operation->source, g_source_unref);
    }
  /* When it is said to be ready and yet did not succeed (memory is full), no descriptor will tell. */
  if (operation->condition != 0 && ferry_channel_check (self, operation->condition) == 0)
    source = ferry_channel_create_source (self, operation->condition, g_task_get_cancellable (task), NULL);
  if (source != NULL)
    {
      g_source_set_callback (source, (GSourceFunc) (void (*) (void)) async_source_cb, g_object_ref (task),
                             g_object_unref);
    }
  else
    {
      source = g_timeout_source_new (POLL_INTERVAL_MS);
      g_source_set_callback (source, async_timer_cb, g_object_ref (task), g_object_unref);
    }
  g_source_set_priority (source, g_task_get_priority (task));
  operation->source = source;
  g_source_attach (source, g_task_get_context (task));
}

static void
async_start (FerryChannel *self, gpointer source_tag, TryFunc try, GIOCondition condition, gpointer data,
             GDestroyNotify free_data, int io_priority, GCancellable *cancellable, GAsyncReadyCallback callback,
             gpointer user_data)
{
  g_autoptr (GTask) task = g_task_new (self, cancellable, callback, user_data);
  AsyncOperation *operation = g_new0 (AsyncOperation, 1);

  g_task_set_source_tag (task, source_tag);
  g_task_set_priority (task, io_priority);
  operation->try = try;
  operation->condition = condition;
  operation->data = data;
  operation->free_data = free_data;
  g_task_set_task_data (task, operation, async_operation_free);
  if (!async_try (task))
    async_wait (task);
}

static gboolean
try_send (GTask *task, GError **error)
{
  AsyncOperation *operation = g_task_get_task_data (task);

  if (!ferry_channel_send_bytes (g_task_get_source_object (task), operation->data, FERRY_NO_WAIT, NULL, error))
    {
      FerryChannel *self = g_task_get_source_object (task);

      /* With this policy a full channel is the answer, not a reason to wait. */
      if (self->config->overflow == FERRY_OVERFLOW_ERROR && g_error_matches (*error, FERRY_ERROR, FERRY_ERROR_FULL))
        {
          g_task_return_error (task, g_steal_pointer (error));
          return TRUE;
        }
      return FALSE;
    }
  g_task_return_boolean (task, TRUE);
  return TRUE;
}

static gboolean
try_receive (GTask *task, GError **error)
{
  FerryBuffer *buffer = ferry_channel_receive (g_task_get_source_object (task), FERRY_NO_WAIT, NULL, error);

  if (buffer == NULL)
    return FALSE;
  g_task_return_pointer (task, buffer, (GDestroyNotify) ferry_buffer_unref);
  return TRUE;
}

static gboolean
try_flush (GTask *task, GError **error)
{
  AsyncOperation *operation = g_task_get_task_data (task);
  const guint64 *mark = operation->data;

  if (!ferry_channel_flush_mark (g_task_get_source_object (task), *mark, FERRY_NO_WAIT, NULL, error))
    return FALSE;
  g_task_return_boolean (task, TRUE);
  return TRUE;
}

/**
 * ferry_channel_send_bytes_async:
 * @self: a channel opened as sender
 * @bytes: what to send
 * @io_priority: the priority of the callback
 * @cancellable: (nullable): to give up
 * @callback: (scope async) (closure user_data) (nullable): called when it is sent
 * @user_data: data for @callback
 *
 * Sends bytes without blocking the caller; waits for room in the caller's main context, without a
 * thread. Several at once are not ordered between themselves.
 *
 * Since: 1.0
 */
void
ferry_channel_send_bytes_async (FerryChannel *self, GBytes *bytes, int io_priority, GCancellable *cancellable,
                                GAsyncReadyCallback callback, gpointer user_data)
{
  g_return_if_fail (FERRY_IS_CHANNEL (self));
  g_return_if_fail (bytes != NULL);

  async_start (self, ferry_channel_send_bytes_async, try_send, G_IO_OUT, g_bytes_ref (bytes),
               (GDestroyNotify) g_bytes_unref, io_priority, cancellable, callback, user_data);
}

/**
 * ferry_channel_send_bytes_finish:
 * @self: a channel
 * @result: what the callback got
 * @error: return location for an error
 *
 * Ends [method@Channel.send_bytes_async].
 *
 * Returns: whether it was sent
 *
 * Since: 1.0
 */
gboolean
ferry_channel_send_bytes_finish (FerryChannel *self, GAsyncResult *result, GError **error)
{
  g_return_val_if_fail (g_task_is_valid (result, self), FALSE);

  return g_task_propagate_boolean (G_TASK (result), error);
}

/**
 * ferry_channel_receive_async:
 * @self: a channel opened as receiver
 * @io_priority: the priority of the callback
 * @cancellable: (nullable): to give up
 * @callback: (scope async) (closure user_data) (nullable): called when there is a message
 * @user_data: data for @callback
 *
 * Receives without blocking the caller; waits in the caller's main context, without a thread.
 *
 * Since: 1.0
 */
void
ferry_channel_receive_async (FerryChannel *self, int io_priority, GCancellable *cancellable,
                             GAsyncReadyCallback callback, gpointer user_data)
{
  g_return_if_fail (FERRY_IS_CHANNEL (self));

  async_start (self, ferry_channel_receive_async, try_receive, G_IO_IN, NULL, NULL, io_priority, cancellable, callback,
               user_data);
}

/**
 * ferry_channel_receive_finish:
 * @self: a channel
 * @result: what the callback got
 * @error: return location for an error
 *
 * Ends [method@Channel.receive_async].
 *
 * Returns: (transfer full): the message
 *
 * Since: 1.0
 */
FerryBuffer *
ferry_channel_receive_finish (FerryChannel *self, GAsyncResult *result, GError **error)
{
  g_return_val_if_fail (g_task_is_valid (result, self), NULL);

  return g_task_propagate_pointer (G_TASK (result), error);
}

/**
 * ferry_channel_flush_async:
 * @self: a channel opened as sender
 * @io_priority: the priority of the callback
 * @cancellable: (nullable): to give up
 * @callback: (scope async) (closure user_data) (nullable): called when all is taken
 * @user_data: data for @callback
 *
 * [method@Channel.flush] without blocking the caller.
 *
 * Since: 1.0
 */
void
ferry_channel_flush_async (FerryChannel *self, int io_priority, GCancellable *cancellable, GAsyncReadyCallback callback,
                           gpointer user_data)
{
  g_autofree guint64 *mark = g_new (guint64, 1);
  GError *error = NULL;

  g_return_if_fail (FERRY_IS_CHANNEL (self));

  if (!ferry_channel_mark (self, mark, &error))
    {
      g_task_report_error (self, callback, user_data, ferry_channel_flush_async, error);
      return;
    }
  async_start (self, ferry_channel_flush_async, try_flush, 0, g_steal_pointer (&mark), g_free, io_priority, cancellable,
               callback, user_data);
}

/**
 * ferry_channel_flush_finish:
 * @self: a channel
 * @result: what the callback got
 * @error: return location for an error
 *
 * Ends [method@Channel.flush_async].
 *
 * Returns: whether all is taken
 *
 * Since: 1.0
 */
gboolean
ferry_channel_flush_finish (FerryChannel *self, GAsyncResult *result, GError **error)
{
  g_return_val_if_fail (g_task_is_valid (result, self), FALSE);

  return g_task_propagate_boolean (G_TASK (result), error);
}

/* ---- looking ---- */

/**
 * ferry_channel_get_statistics:
 * @self: an open channel
 * @error: return location for an error
 *
 * A snapshot of the channel's counters.
 *
 * Returns: (transfer full): the counters
 *
 * Since: 1.0
 */
FerryStatistics *
ferry_channel_get_statistics (FerryChannel *self, GError **error)
{
  g_autoptr (FerryStatistics) statistics = ferry_statistics_new ();

  g_return_val_if_fail (FERRY_IS_CHANNEL (self), NULL);

  if (!self->is_open)
    {
      ferry_channel_fail_closed (self, error);
      return NULL;
    }
  return ferry_transport_get_statistics (self->transport, statistics, error) ? g_steal_pointer (&statistics) : NULL;
}

/**
 * ferry_channel_list_participants:
 * @self: an open channel
 * @error: return location for an error
 *
 * Who is in the channel, this end included.
 *
 * Returns: (transfer container) (element-type FerryParticipant): participants; the array frees them
 *
 * Since: 1.0
 */
GPtrArray *
ferry_channel_list_participants (FerryChannel *self, GError **error)
{
  g_return_val_if_fail (FERRY_IS_CHANNEL (self), NULL);

  if (!self->is_open)
    {
      ferry_channel_fail_closed (self, error);
      return NULL;
    }
  return ferry_transport_list_participants (self->transport, error);
}

/**
 * ferry_channel_trim:
 * @self: an open channel
 *
 * Gives idle memory back now. Otherwise that is done for blocks that were idle for five seconds, by
 * whoever waits or sends.
 *
 * Returns: bytes given back
 *
 * Since: 1.0
 */
gsize
ferry_channel_trim (FerryChannel *self)
{
  g_return_val_if_fail (FERRY_IS_CHANNEL (self), 0);

  return self->is_open ? ferry_transport_trim (self->transport) : 0;
}

/**
 * ferry_channel_verify:
 * @self: an open channel
 * @error: return location for an error
 *
 * Checks the invariants of the shared memory: no slot stuck, no block leaked, sums
 * right. Only meaningful while nobody sends or receives; for tests and for bug reports.
 *
 * Errors: %FERRY_ERROR_CORRUPT says which invariant is violated.
 *
 * Returns: whether all is well
 *
 * Since: 1.0
 */
gboolean
ferry_channel_verify (FerryChannel *self, GError **error)
{
  g_return_val_if_fail (FERRY_IS_CHANNEL (self), FALSE);

  if (!self->is_open)
    return ferry_channel_fail_closed (self, error);
  return ferry_transport_verify (self->transport, error);
}

/* ---- object ---- */

static void
ferry_channel_get_property (GObject *object, guint property_id, GValue *value, GParamSpec *pspec)
{
  FerryChannel *self = FERRY_CHANNEL (object);

  switch (property_id)
    {
    case PROP_TRANSPORT:
      g_value_set_string (value, self->transport_name);
      break;
    case PROP_NAME:
      g_value_set_string (value, self->config->name);
      break;
    case PROP_CODEC:
      g_value_set_string (value, self->codec_name);
      break;
    case PROP_ROLE:
      g_value_set_enum (value, self->config->role);
      break;
    case PROP_MODE:
      g_value_set_enum (value, self->config->mode);
      break;
    case PROP_OVERFLOW:
      g_value_set_enum (value, self->config->overflow);
      break;
    case PROP_WAIT_STRATEGY:
      g_value_set_enum (value, self->config->wait_strategy);
      break;
    case PROP_OPEN_MODE:
      g_value_set_enum (value, self->config->open_mode);
      break;
    case PROP_CAPACITY:
      g_value_set_uint (value, self->config->capacity);
      break;
    case PROP_MAX_BYTES:
      g_value_set_uint64 (value, self->config->max_bytes);
      break;
    case PROP_HISTORY:
      g_value_set_uint (value, self->config->history);
      break;
    case PROP_INLINE_SIZE:
      g_value_set_uint (value, self->config->inline_size);
      break;
    case PROP_TIMESTAMPS:
      g_value_set_boolean (value, self->config->timestamps);
      break;
    case PROP_GROUP:
      g_value_set_int64 (value, self->config->group);
      break;
    default:
      G_OBJECT_WARN_INVALID_PROPERTY_ID (object, property_id, pspec);
      break;
    }
}

#define SET(field, getter)                                                                                             \
  do                                                                                                                   \
    {                                                                                                                  \
      self->explicit_set |= 1u << property_id;                                                                         \
      if ((gint64) self->config->field != (gint64) getter (value))                                                     \
        {                                                                                                              \
          self->config->field = getter (value);                                                                        \
          g_object_notify_by_pspec (object, pspec);                                                                    \
        }                                                                                                              \
    }                                                                                                                  \
  while (0)

static void
ferry_channel_set_property (GObject *object, guint property_id, const GValue *value, GParamSpec *pspec)
{
  FerryChannel *self = FERRY_CHANNEL (object);

  if (self->is_open)
    {
      g_warning ("channel '%s' is open: its property '%s' can't be changed any more",
                 self->config->name != NULL ? self->config->name : "(anonymous)", pspec->name);
      return;
    }
  switch (property_id)
    {
    case PROP_TRANSPORT:
      if (set_string (&self->transport_name, g_value_get_string (value)))
        g_object_notify_by_pspec (object, pspec);
      break;
    case PROP_NAME:
      self->explicit_set |= 1u << property_id;
      if (set_string (&self->config->name, g_value_get_string (value)))
        g_object_notify_by_pspec (object, pspec);
      break;
    case PROP_CODEC:
      if (set_string (&self->codec_name, g_value_get_string (value)))
        {
          g_clear_object (&self->codec);
          known_free_all (atomic_exchange_explicit (&self->decoders, NULL, memory_order_acq_rel));
          g_object_notify_by_pspec (object, pspec);
        }
      break;
    case PROP_ROLE:
      SET (role, g_value_get_enum);
      break;
    case PROP_MODE:
      SET (mode, g_value_get_enum);
      break;
    case PROP_OVERFLOW:
      SET (overflow, g_value_get_enum);
      break;
    case PROP_WAIT_STRATEGY:
      SET (wait_strategy, g_value_get_enum);
      break;
    case PROP_OPEN_MODE:
      SET (open_mode, g_value_get_enum);
      break;
    case PROP_CAPACITY:
      SET (capacity, g_value_get_uint);
      break;
    case PROP_MAX_BYTES:
      SET (max_bytes, g_value_get_uint64);
      break;
    case PROP_HISTORY:
      SET (history, g_value_get_uint);
      break;
    case PROP_INLINE_SIZE:
      SET (inline_size, g_value_get_uint);
      break;
    case PROP_TIMESTAMPS:
      SET (timestamps, g_value_get_boolean);
      break;
    case PROP_GROUP:
      SET (group, g_value_get_int64);
      break;
    default:
      G_OBJECT_WARN_INVALID_PROPERTY_ID (object, property_id, pspec);
      break;
    }
}

static void
ferry_channel_dispose (GObject *object)
{
  FerryChannel *self = FERRY_CHANNEL (object);

  ferry_channel_close (self, NULL);
  g_clear_object (&self->transport);
  g_clear_object (&self->codec);
  known_free_all (atomic_exchange_explicit (&self->encoders, NULL, memory_order_acq_rel));
  known_free_all (atomic_exchange_explicit (&self->decoders, NULL, memory_order_acq_rel));
  G_OBJECT_CLASS (ferry_channel_parent_class)->dispose (object);
}

static void
ferry_channel_finalize (GObject *object)
{
  FerryChannel *self = FERRY_CHANNEL (object);

  g_free (self->transport_name);
  g_free (self->codec_name);
  g_clear_pointer (&self->origin, ferry_description_free);
  ferry_channel_config_free (self->config);
  g_mutex_clear (&self->codecs_mutex);
  G_OBJECT_CLASS (ferry_channel_parent_class)->finalize (object);
}

static void
ferry_channel_init (FerryChannel *self)
{
  self->config = ferry_channel_config_new ();
  g_mutex_init (&self->codecs_mutex);
  ferry_transport_pack_wire_name ("raw", 1, &self->raw_name, &self->raw_version);
}

#define FLAGS (G_PARAM_READWRITE | G_PARAM_STATIC_STRINGS | G_PARAM_EXPLICIT_NOTIFY)

static void
ferry_channel_class_init (FerryChannelClass *klass)
{
  GObjectClass *object_class = G_OBJECT_CLASS (klass);

  object_class->get_property = ferry_channel_get_property;
  object_class->set_property = ferry_channel_set_property;
  object_class->dispose = ferry_channel_dispose;
  object_class->finalize = ferry_channel_finalize;

  /**
   * FerryChannel:transport:
   *
   * The transport's name; %NULL: the best ranked.
   *
   * Since: 1.0
   */
  properties[PROP_TRANSPORT] = g_param_spec_string ("transport", NULL, NULL, NULL, FLAGS);

  /**
   * FerryChannel:name:
   *
   * The channel's name, 1 to 200 bytes without `/`; %NULL: anonymous.
   *
   * Since: 1.0
   */
  properties[PROP_NAME] = g_param_spec_string ("name", NULL, NULL, NULL, FLAGS);

  /**
   * FerryChannel:codec:
   *
   * The codec's name; %NULL or `auto`: chosen by the value to send, or by the message received.
   *
   * Since: 1.0
   */
  properties[PROP_CODEC] = g_param_spec_string ("codec", NULL, NULL, NULL, FLAGS);

  /**
   * FerryChannel:role:
   *
   * What this end does.
   *
   * Since: 1.0
   */
  properties[PROP_ROLE] = g_param_spec_enum ("role", NULL, NULL, FERRY_TYPE_ROLE, FERRY_ROLE_SENDER, FLAGS);

  /**
   * FerryChannel:mode:
   *
   * Work queue or broadcast.
   *
   * Since: 1.0
   */
  properties[PROP_MODE] = g_param_spec_enum ("mode", NULL, NULL, FERRY_TYPE_MODE, FERRY_MODE_WORK_QUEUE, FLAGS);

  /**
   * FerryChannel:overflow:
   *
   * What this sender does when the channel is full.
   *
   * Since: 1.0
   */
  properties[PROP_OVERFLOW]
      = g_param_spec_enum ("overflow", NULL, NULL, FERRY_TYPE_OVERFLOW, FERRY_OVERFLOW_BLOCK, FLAGS);

  /**
   * FerryChannel:wait-strategy:
   *
   * How this end waits.
   *
   * Since: 1.0
   */
  properties[PROP_WAIT_STRATEGY]
      = g_param_spec_enum ("wait-strategy", NULL, NULL, FERRY_TYPE_WAIT_STRATEGY, FERRY_WAIT_STRATEGY_ADAPTIVE, FLAGS);

  /**
   * FerryChannel:open-mode:
   *
   * Whether to create the channel, to join it, or either.
   *
   * Since: 1.0
   */
  properties[PROP_OPEN_MODE]
      = g_param_spec_enum ("open-mode", NULL, NULL, FERRY_TYPE_OPEN_MODE, FERRY_OPEN_MODE_CREATE_OR_JOIN, FLAGS);

  /**
   * FerryChannel:capacity:
   *
   * How many messages may be in flight; 0: the default, 256. After opening: what the channel has.
   *
   * Since: 1.0
   */
  properties[PROP_CAPACITY] = g_param_spec_uint ("capacity", NULL, NULL, 0, FERRY_MAX_CAPACITY, 0, FLAGS);

  /**
   * FerryChannel:max-bytes:
   *
   * How much shared memory payload may take, in bytes, messages in flight, held views
   * and warm blocks together; 0: half of the machine's memory.
   *
   * Since: 1.0
   */
  properties[PROP_MAX_BYTES] = g_param_spec_uint64 ("max-bytes", NULL, NULL, 0, G_MAXUINT64, 0, FLAGS);

  /**
   * FerryChannel:history:
   *
   * How many messages a broadcast channel keeps for receivers that join later; fewer when
   * `max-bytes` is reached.
   *
   * Since: 1.0
   */
  properties[PROP_HISTORY] = g_param_spec_uint ("history", NULL, NULL, 0, FERRY_MAX_HISTORY, 0, FLAGS);

  /**
   * FerryChannel:inline-size:
   *
   * Payload of up to that many bytes travels inside the slot; 0: the default, 200. It is rounded
   * up to fill cache lines.
   *
   * Since: 1.0
   */
  properties[PROP_INLINE_SIZE] = g_param_spec_uint ("inline-size", NULL, NULL, 0, FERRY_MAX_INLINE, 0, FLAGS);

  /**
   * FerryChannel:timestamps:
   *
   * Whether this sender stamps messages with the monotonic time, in microseconds.
   *
   * Since: 1.0
   */
  properties[PROP_TIMESTAMPS] = g_param_spec_boolean ("timestamps", NULL, NULL, FALSE, FLAGS);

  /**
   * FerryChannel:group:
   *
   * The group id whose members may join too; -1: only the same user.
   *
   * Since: 1.0
   */
  properties[PROP_GROUP] = g_param_spec_int64 ("group", NULL, NULL, -1, FERRY_MAX_GROUP, -1, FLAGS);

  g_object_class_install_properties (object_class, N_PROPERTIES, properties);

  /**
   * FerryChannel::peer-joined:
   * @self: the channel
   * @participant: who joined
   *
   * Another participant is in the channel. Those who were there before are told first.
   *
   * Since: 1.0
   */
  signals[SIGNAL_PEER_JOINED] = g_signal_new ("peer-joined", FERRY_TYPE_CHANNEL, G_SIGNAL_RUN_LAST, 0, NULL, NULL, NULL,
                                              G_TYPE_NONE, 1, FERRY_TYPE_PARTICIPANT | G_SIGNAL_TYPE_STATIC_SCOPE);

  /**
   * FerryChannel::peer-gone:
   * @self: the channel
   * @participant: who was it
   * @died: whether it died instead of leaving
   *
   * A participant is no longer in the channel.
   *
   * Since: 1.0
   */
  signals[SIGNAL_PEER_GONE]
      = g_signal_new ("peer-gone", FERRY_TYPE_CHANNEL, G_SIGNAL_RUN_LAST, 0, NULL, NULL, NULL, G_TYPE_NONE, 2,
                      FERRY_TYPE_PARTICIPANT | G_SIGNAL_TYPE_STATIC_SCOPE, G_TYPE_BOOLEAN);

  /**
   * FerryChannel::closed:
   * @self: the channel
   *
   * Somebody shut the channel down.
   *
   * Since: 1.0
   */
  signals[SIGNAL_CLOSED]
      = g_signal_new ("closed", FERRY_TYPE_CHANNEL, G_SIGNAL_RUN_LAST, 0, NULL, NULL, NULL, G_TYPE_NONE, 0);
}
