/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ferry-buffer-private.h"

#include "ferry-codec.h"
#include "ferry-copy.h"
#include "ferry-error.h"
#include "ferry-transport-private.h"

#include <string.h>

/**
 * FerryBuffer:
 *
 * One message: loaned memory that is to be sent, or what was received.
 *
 * A received buffer is a view on shared memory wherever the message lies in a block;
 * holding it pins that block and nothing else, and dropping the last reference gives
 * it back. In a work queue the receiver owns the block and may write it; in broadcast
 * the view is read only, and so is the mapping.
 *
 * References are atomic: a buffer may be passed between threads. Its contents are the
 * user's to synchronise. In a fork child the views of the parent do not hold
 * anything: the parent's copy does.
 *
 * Since: 1.0
 */

G_DEFINE_BOXED_TYPE (FerryBuffer, ferry_buffer, ferry_buffer_ref, ferry_buffer_unref)

static const guint pool_max[FERRY_N_BUFFER_POOLS] = { 64, 16 };
static const gsize pool_room[FERRY_N_BUFFER_POOLS] = { FERRY_BUFFER_INLINE_SMALL, FERRY_BUFFER_INLINE_LARGE };

__thread FerryBufferPool ferry_buffer_pools[FERRY_N_BUFFER_POOLS] __attribute__ ((tls_model ("initial-exec")));
static __thread gboolean pool_has_cleanup __attribute__ ((tls_model ("initial-exec")));

static void
pool_clear (gpointer data)
{
  for (guint i = 0; i < FERRY_N_BUFFER_POOLS; i++)
    {
      FerryBufferPool *pool = &ferry_buffer_pools[i];

      while (pool->head != NULL)
        {
          FerryBuffer *buffer = pool->head;

          pool->head = buffer->next_free;
          g_aligned_free (buffer);
        }
      pool->room = 0; /* what is freed later in the thread's exit goes straight back */
    }
}

static GPrivate pool_cleanup = G_PRIVATE_INIT (pool_clear);

/* Private: a new one for pool @i. */
FerryBuffer *
ferry_buffer_alloc_slowly (guint i)
{
  return g_aligned_alloc (1, sizeof (FerryBuffer) + pool_room[i], FERRY_BUFFER_ALIGNMENT);
}

static inline void
pool_push (FerryBufferPool *pool, FerryBuffer *buffer)
{
  buffer->next_free = pool->head;
  pool->head = buffer;
  pool->room--;
}

static G_GNUC_NO_INLINE void
ferry_buffer_recycle_slowly (FerryBuffer *self, guint i)
{
  if (!pool_has_cleanup)
    {
      pool_has_cleanup = TRUE;
      g_private_set (&pool_cleanup, GINT_TO_POINTER (1));
      for (guint k = 0; k < FERRY_N_BUFFER_POOLS; k++)
        ferry_buffer_pools[k].room += (gint) pool_max[k];
    }
  if (ferry_buffer_pools[i].room > 0)
    pool_push (&ferry_buffer_pools[i], self);
  else
    g_aligned_free (self);
}

static inline void
ferry_buffer_recycle (FerryBuffer *self)
{
  guint i = (self->flags & FERRY_BUFFER_LARGE) != 0;

  if (G_UNLIKELY (self->flags & FERRY_BUFFER_OWNS_DATA))
    g_aligned_free (self->data);
  if (G_LIKELY (ferry_buffer_pools[i].room > 0))
    pool_push (&ferry_buffer_pools[i], self);
  else
    ferry_buffer_recycle_slowly (self, i);
}

/**
 * ferry_buffer_new:
 * @size: bytes
 *
 * A buffer in private memory, for instance for a transport that has no shared
 * memory to loan. Its contents are undefined.
 *
 * Returns: (transfer full): a writable buffer
 *
 * Since: 1.0
 */
FerryBuffer *
ferry_buffer_new (gsize size)
{
  FerryBuffer *self = ferry_buffer_alloc (MIN (size, FERRY_BUFFER_INLINE_LARGE));

  if (size > FERRY_BUFFER_INLINE_LARGE)
    {
      self->data = g_aligned_alloc (1, size, FERRY_BUFFER_ALIGNMENT);
      self->flags |= FERRY_BUFFER_OWNS_DATA;
    }
  self->size = self->capacity = size;
  self->flags |= FERRY_BUFFER_WRITABLE | FERRY_BUFFER_LOANED;
  return self;
}

/**
 * ferry_buffer_new_bytes:
 * @bytes: the contents
 *
 * A read-only buffer that refers to @bytes without copying.
 *
 * Returns: (transfer full): a buffer
 *
 * Since: 1.0
 */
FerryBuffer *
ferry_buffer_new_bytes (GBytes *bytes)
{
  gsize size;
  gconstpointer data = g_bytes_get_data (bytes, &size);

  return ferry_buffer_new_take ((gpointer) data, size, FALSE, (GDestroyNotify) g_bytes_unref, g_bytes_ref (bytes));
}

/**
 * ferry_buffer_new_take: (skip)
 * @data: (nullable): memory
 * @size: its size in bytes
 * @writable: whether it may be written
 * @release: (nullable): called with @release_data when the last reference is dropped
 * @release_data: data for @release
 *
 * A buffer on the caller's memory. [ctor@Buffer.new_bytes] is the twin for language
 * bindings.
 *
 * Returns: (transfer full): a buffer
 *
 * Since: 1.0
 */
FerryBuffer *
ferry_buffer_new_take (gpointer data, gsize size, gboolean writable, GDestroyNotify release, gpointer release_data)
{
  FerryBuffer *self = ferry_buffer_alloc (0);

  self->data = data;
  self->size = self->capacity = size;
  self->flags |= writable ? FERRY_BUFFER_WRITABLE : 0;
  self->release = release;
  self->release_data = release_data;
  return self;
}

/**
 * ferry_buffer_ref:
 * @self: a buffer
 *
 * Adds a reference. Thread-safe.
 *
 * Returns: (transfer full): @self
 *
 * Since: 1.0
 */
FerryBuffer *
ferry_buffer_ref (FerryBuffer *self)
{
  g_return_val_if_fail (self != NULL, NULL);

  atomic_fetch_add_explicit (&self->ref_count, 1, memory_order_relaxed);
  return self;
}

/**
 * ferry_buffer_unref:
 * @self: (transfer full): a buffer
 *
 * Drops a reference; the last one gives the block back. Thread-safe.
 *
 * Since: 1.0
 */
void
ferry_buffer_unref (FerryBuffer *self)
{
  g_return_if_fail (self != NULL);

  /* Who sees that its reference is the only one needs no atomic subtraction: nobody else is left to add one. */
  if (atomic_load_explicit (&self->ref_count, memory_order_acquire) != 1
      && atomic_fetch_sub_explicit (&self->ref_count, 1, memory_order_acq_rel) != 1)
    return;

  if (self->transport != NULL)
    {
      FerryTransport *transport = self->transport;

      FERRY_TRANSPORT_GET_IFACE (transport)->release (transport, self);
      g_object_unref (transport);
    }
  if (self->release != NULL)
    self->release (self->release_data);
  ferry_buffer_recycle (self);
}

/**
 * ferry_buffer_get_data:
 * @self: a buffer
 * @size: (out): its size in bytes
 *
 * The contents, for reading. Valid as long as a reference is held.
 *
 * Returns: (transfer none) (array length=size) (nullable): the bytes
 *
 * Since: 1.0
 */
const guint8 *
ferry_buffer_get_data (FerryBuffer *self, gsize *size)
{
  g_return_val_if_fail (self != NULL, NULL);

  if (size != NULL)
    *size = self->size;
  return self->data;
}

/**
 * ferry_buffer_get_writable_data: (skip)
 * @self: a buffer
 * @size: (out) (optional): its size in bytes
 *
 * The contents, for writing. [method@Buffer.fill] is the twin for language bindings.
 *
 * Returns: (transfer none) (nullable): the bytes, or %NULL when the buffer is read only
 *
 * Since: 1.0
 */
guint8 *
ferry_buffer_get_writable_data (FerryBuffer *self, gsize *size)
{
  g_return_val_if_fail (self != NULL, NULL);

  if (!(self->flags & FERRY_BUFFER_WRITABLE))
    return NULL;
  if (size != NULL)
    *size = self->size;
  return self->data;
}

/**
 * ferry_buffer_get_address:
 * @self: a buffer
 *
 * Where the contents are in this process, for language bindings that can make a view on memory. Valid
 * as long as a reference is held; to be written only when [method@Buffer.is_writable].
 *
 * Returns: the address as a number
 *
 * Since: 1.0
 */
gsize
ferry_buffer_get_address (FerryBuffer *self)
{
  g_return_val_if_fail (self != NULL, 0);

  return GPOINTER_TO_SIZE (self->data);
}

/**
 * ferry_buffer_get_size:
 * @self: a buffer
 *
 * The size of the contents.
 *
 * Returns: bytes
 *
 * Since: 1.0
 */
gsize
ferry_buffer_get_size (FerryBuffer *self)
{
  g_return_val_if_fail (self != NULL, 0);

  return self->size;
}

/**
 * ferry_buffer_set_size:
 * @self: a loaned buffer
 * @size: bytes, at most what was loaned
 *
 * Makes a loaned buffer shorter before it is sent (or longer again).
 *
 * Returns: %FALSE when @size is more than was loaned; nothing changes then
 *
 * Since: 1.0
 */
gboolean
ferry_buffer_set_size (FerryBuffer *self, gsize size)
{
  g_return_val_if_fail (self != NULL, FALSE);

  if (size > self->capacity || !(self->flags & FERRY_BUFFER_WRITABLE))
    return FALSE;
  self->size = size;
  return TRUE;
}

/**
 * ferry_buffer_fill:
 * @self: a writable buffer
 * @offset: where to begin, in bytes
 * @data: (array length=size): what to write
 * @size: bytes
 *
 * Copies bytes into a buffer.
 *
 * Returns: %FALSE when the buffer is read only or too small; nothing is written then
 *
 * Since: 1.0
 */
gboolean
ferry_buffer_fill (FerryBuffer *self, gsize offset, const guint8 *data, gsize size)
{
  g_return_val_if_fail (self != NULL, FALSE);
  g_return_val_if_fail (data != NULL || size == 0, FALSE);

  if (!(self->flags & FERRY_BUFFER_WRITABLE) || offset > self->size || size > self->size - offset)
    return FALSE;
  ferry_copy_memory (self->data + offset, data, size);
  return TRUE;
}

/**
 * ferry_buffer_is_writable:
 * @self: a buffer
 *
 * Whether the contents may be written: loans and what a work queue delivers.
 *
 * Returns: %TRUE if so
 *
 * Since: 1.0
 */
gboolean
ferry_buffer_is_writable (FerryBuffer *self)
{
  g_return_val_if_fail (self != NULL, FALSE);

  return (self->flags & FERRY_BUFFER_WRITABLE) != 0;
}

/**
 * ferry_buffer_get_sequence:
 * @self: a received buffer
 *
 * The position of the message in the channel, counted from 0 over all senders.
 *
 * Returns: the sequence number
 *
 * Since: 1.0
 */
guint64
ferry_buffer_get_sequence (FerryBuffer *self)
{
  g_return_val_if_fail (self != NULL, 0);

  return self->sequence;
}

/**
 * ferry_buffer_set_sequence:
 * @self: a buffer
 * @sequence: what [method@Buffer.get_sequence] shall return
 *
 * For transports: numbers a message that they are about to give to a receiver.
 *
 * Since: 1.0
 */
void
ferry_buffer_set_sequence (FerryBuffer *self, guint64 sequence)
{
  g_return_if_fail (self != NULL);

  self->sequence = sequence;
}

/**
 * ferry_buffer_get_timestamp:
 * @self: a buffer
 *
 * The time stamp: set by the sender with [method@Buffer.set_timestamp], or by the
 * channel when its property `timestamps` is set (monotonic time in microseconds, as
 * of g_get_monotonic_time(), at the commit).
 *
 * Returns: the time stamp; 0 when there is none
 *
 * Since: 1.0
 */
gint64
ferry_buffer_get_timestamp (FerryBuffer *self)
{
  g_return_val_if_fail (self != NULL, 0);

  return self->timestamp;
}

/**
 * ferry_buffer_set_timestamp:
 * @self: a loaned buffer
 * @timestamp: any number that sender and receiver agree on
 *
 * Sets the time stamp that travels with the message.
 *
 * Since: 1.0
 */
void
ferry_buffer_set_timestamp (FerryBuffer *self, gint64 timestamp)
{
  g_return_if_fail (self != NULL);

  self->timestamp = timestamp;
}

/**
 * ferry_buffer_get_sender:
 * @self: a received buffer
 *
 * The number of the participant that sent it, see [struct@Participant].
 *
 * Returns: the id
 *
 * Since: 1.0
 */
guint
ferry_buffer_get_sender (FerryBuffer *self)
{
  g_return_val_if_fail (self != NULL, 0);

  return self->sender;
}

/**
 * ferry_buffer_set_sender:
 * @self: a buffer
 * @sender: what [method@Buffer.get_sender] shall return
 *
 * For transports: says who sent a message that they are about to give to a receiver.
 *
 * Since: 1.0
 */
void
ferry_buffer_set_sender (FerryBuffer *self, guint sender)
{
  g_return_if_fail (self != NULL);

  self->sender = sender;
}

/**
 * ferry_buffer_dup_wire_name:
 * @self: a buffer
 * @version: (out) (optional): the version of the encoding
 *
 * The wire name of the codec that made the message.
 *
 * Returns: (transfer full): the name; empty when none was set
 *
 * Since: 1.0
 */
char *
ferry_buffer_dup_wire_name (FerryBuffer *self, guint *version)
{
  char name[FERRY_WIRE_NAME_MAX + 1];
  guint v;

  g_return_val_if_fail (self != NULL, NULL);

  ferry_transport_unpack_wire_name (self->wire_name, self->wire_version, name, &v);
  if (version != NULL)
    *version = v;
  return g_utf8_make_valid (name, -1);
}

/**
 * ferry_buffer_set_wire_name:
 * @self: a loaned buffer
 * @wire_name: 1 to %FERRY_WIRE_NAME_MAX bytes of `a-z`, `0-9` and `-`
 * @version: the version of the encoding
 *
 * Says which codec can decode the message. [method@Channel.loan] presets `raw`.
 *
 * Returns: %FALSE when @wire_name is not well-formed; nothing changes then
 *
 * Since: 1.0
 */
gboolean
ferry_buffer_set_wire_name (FerryBuffer *self, const char *wire_name, guint version)
{
  gsize length;

  g_return_val_if_fail (self != NULL, FALSE);
  g_return_val_if_fail (wire_name != NULL, FALSE);

  length = strlen (wire_name);
  if (length < 1 || length > FERRY_WIRE_NAME_MAX)
    return FALSE;
  for (gsize i = 0; i < length; i++)
    if (!g_ascii_islower (wire_name[i]) && !g_ascii_isdigit (wire_name[i]) && wire_name[i] != '-')
      return FALSE;
  ferry_transport_pack_wire_name (wire_name, version, &self->wire_name, &self->wire_version);
  return TRUE;
}

/**
 * ferry_buffer_privatize:
 * @self: a received buffer
 * @offset: where it begins, in bytes
 * @size: bytes, at least 1
 *
 * Makes a part of a received message private to this process, by whole pages: what it writes there no other process
 * sees, and from then on nobody changes it but this process. For language bindings that make an object of theirs
 * in the message itself, around data that stay where they are. It ends with the last reference on @self; nothing may use
 * the pages then.
 *
 * If the process forks meanwhile, the whole message is copied first, so that parent and child each keep what they
 * have. When the channel is closed it is copied, too, and the block given back: the copy is this process's own. What is
 * written outside of the private pages during a copy may be lost.
 *
 * Of one channel a process can have a quarter of its [property@Channel:max-bytes] so, and of the tmpfs that it is in, in
 * at most 1024 messages: it is for what is used soon.
 *
 * Thread-safety: as for the contents.
 *
 * Returns: %FALSE when it can't be done: @self lies in no block, may not be written (in broadcast), has a private part
 *   already, @offset and @size are not within it, the transport does not map files, or enough is held so. Copy
 *   then.
 *
 * Since: 1.0
 */
gboolean
ferry_buffer_privatize (FerryBuffer *self, gsize offset, gsize size)
{
  const guint needed = FERRY_BUFFER_RECEIVED | FERRY_BUFFER_WRITABLE;

  g_return_val_if_fail (self != NULL, FALSE);

  return (self->flags & (needed | FERRY_BUFFER_PRIVATE)) == needed && self->transport != NULL && size > 0
         && offset <= self->size && size <= self->size - offset
         && ferry_transport_privatize (self->transport, self, offset, size);
}

/**
 * ferry_buffer_to_bytes:
 * @self: a buffer
 *
 * Copies the contents, so that the block can be given back.
 *
 * Returns: (transfer full): a copy
 *
 * Since: 1.0
 */
GBytes *
ferry_buffer_to_bytes (FerryBuffer *self)
{
  g_return_val_if_fail (self != NULL, NULL);

  return g_bytes_new (self->data, self->size);
}

/**
 * ferry_buffer_as_bytes:
 * @self: a buffer
 *
 * The contents without copying; the bytes hold a reference on the buffer.
 *
 * Returns: (transfer full): bytes that refer to @self
 *
 * Since: 1.0
 */
GBytes *
ferry_buffer_as_bytes (FerryBuffer *self)
{
  g_return_val_if_fail (self != NULL, NULL);

  return g_bytes_new_with_free_func (self->data, self->size, (GDestroyNotify) ferry_buffer_unref,
                                     ferry_buffer_ref (self));
}

/**
 * ferry_buffer_spend:
 * @self: a loaned buffer
 * @error: return location for an error
 *
 * For transports that loan [ctor@Buffer.new]: takes the contents out of a buffer that is being
 * committed, which is empty and read only afterwards, as every loan is after it was sent.
 * Large contents are not copied.
 *
 * Errors: %FERRY_ERROR_INVALID_ARGUMENT when the buffer was sent already.
 *
 * Returns: (transfer full): the contents
 *
 * Since: 1.0
 */
GBytes *
ferry_buffer_spend (FerryBuffer *self, GError **error)
{
  GBytes *bytes;

  g_return_val_if_fail (self != NULL, NULL);
  g_return_val_if_fail (error == NULL || *error == NULL, NULL);

  if (self->flags & FERRY_BUFFER_CONSUMED)
    {
      g_set_error (error, FERRY_ERROR, FERRY_ERROR_INVALID_ARGUMENT, "this buffer was sent already; loan another");
      return NULL;
    }
  /* What is somebody else's, or belongs to this structure, has to be copied. */
  if ((self->flags & FERRY_BUFFER_OWNS_DATA) && (self->flags & FERRY_BUFFER_LOANED))
    bytes = g_bytes_new_with_free_func (self->data, self->size, (GDestroyNotify) g_aligned_free, self->data);
  else
    bytes = g_bytes_new (self->data, self->size);

  if (self->flags & FERRY_BUFFER_LOANED)
    {
      if (self->flags & FERRY_BUFFER_OWNS_DATA)
        self->data = self->inline_data;
      self->flags |= FERRY_BUFFER_CONSUMED;
      self->flags &= ~(guint) (FERRY_BUFFER_WRITABLE | FERRY_BUFFER_OWNS_DATA);
      self->size = self->capacity = 0;
    }
  return bytes;
}
