/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* References in messages of codec `store`: docs/store.md, section 7. The message lies in a block of its own, and its ticket is
 * an entry of the store's dict of tickets under {channel, block}. */

#include "ferry-store-ticket-private.h"

#include "ferry-buffer-private.h"
#include "ferry-channel.h"
#include "ferry-description-private.h"
#include "ferry-error.h"
#include "ferry-registry.h"
#include "ferry-transport-private.h"

#include <sys/stat.h>
#include <unistd.h>

/* Keys of the dict of tickets: positive integers are those that travel in pickles; bytes are channels, with {hash of where names are
 * looked up:22, number of the channel:25} as values; a negative integer is {channel:25, class of the block:5, its index:16}, all inverted. */
#define INDEX_BITS (16)
#define PLACE_BITS (21)
#define PLACE_MASK ((1u << PLACE_BITS) - 1)
#define CHANNEL_BITS (25)
#define CHANNEL_MAX ((1u << CHANNEL_BITS) - 1)
#define WHERE_BITS (22)
/* Longer names of transports are none. */
#define TRANSPORT_MAX (64)
#define NAME_MAX_BYTES (200)
/* Time to tell a store that a channel is gone, in microseconds; else a collection finds out. */
#define LEAVE_PATIENCE_US (100 * 1000)
/* A send that does not wait waits as long for who is in the middle of putting or removing a ticket. Microseconds. */
#define MOMENT_US (5 * 1000)
/* Waiting is done in slices, so as to notice a cancellation. Microseconds. */
#define SLICE_US (50 * 1000)

G_STATIC_ASSERT (FERRY_MAX_BLOCKS <= 1 << INDEX_BITS);
G_STATIC_ASSERT (FERRY_N_CLASSES <= 1 << (PLACE_BITS - INDEX_BITS));
G_STATIC_ASSERT (FERRY_STORE_REFERENCE_SIZE > FERRY_MAX_INLINE);
G_STATIC_ASSERT (FERRY_STORE_REFERENCE_SIZE <= 1 << FERRY_MIN_BLOCK_SHIFT);

/* The head of a message, little-endian; behind it the names of the transport and of the store. */
typedef struct
{
  guint8 identity[16];
  guint64 object;
  guint16 generation;
  guint8 kind;
  guint8 flags;
  guint16 transport_length;
  guint16 name_length;
} MessageHead;

G_STATIC_ASSERT (sizeof (MessageHead) == 32);

typedef struct
{
  MessageHead head; /* of this machine's byte order */
  char transport[TRANSPORT_MAX + 1];
  char name[NAME_MAX_BYTES + 1];
} Message;

/* What a segment knows of one store that objects of travel in it. A list that only grows, but who needs an entry takes one whose
 * store is gone, if there is any: then nobody has got a reference to the store out of it, and what is in it is free to change. */
typedef struct _FerryCourier FerryCourier;
struct _FerryCourier
{
  FerryCourier *next;
  GWeakRef store;
  _Atomic guint32 channel; /* 0: to be looked up */
  GMutex mutex;
  guint8 identity[16]; /* of the store */
  GHashTable *late;    /* set of blocks that were freed while the store was not to be had */
};

/* ---- messages ---- */

static gboolean G_GNUC_PRINTF (2, 3) malformed (GError **error, const char *format, ...)
{
  g_autofree char *message = NULL;
  va_list args;

  va_start (args, format);
  message = g_strdup_vprintf (format, args);
  va_end (args);
  g_set_error (error, FERRY_ERROR, FERRY_ERROR_CODEC, "codec 'store': %s", message);
  return FALSE;
}

/* Everything is copied once and checked then: the sender may change it meanwhile. */
static gboolean
message_read (Message *self, const guint8 *data, gsize size, GError **error)
{
  gsize transport_length;
  gsize name_length;

  if (size != FERRY_STORE_REFERENCE_SIZE)
    return malformed (error, "a message has %d bytes, this one has %" G_GSIZE_FORMAT "; did another codec make it?",
                      FERRY_STORE_REFERENCE_SIZE, size);
  memcpy (&self->head, data, sizeof self->head);
  self->head.object = GUINT64_FROM_LE (self->head.object);
  self->head.generation = GUINT16_FROM_LE (self->head.generation);
  transport_length = GUINT16_FROM_LE (self->head.transport_length);
  name_length = GUINT16_FROM_LE (self->head.name_length);
  if (self->head.flags != 0)
    return malformed (error, "the message has flags 0x%x, which are not known here; update the receiver",
                      self->head.flags);
  if (self->head.kind < FERRY_OBJECT_LIST || self->head.kind > FERRY_OBJECT_ARRAY
      || self->head.kind == FERRY_OBJECT_SHAPE)
    return malformed (error, "%u is no kind of an object", self->head.kind);
  if (self->head.object == 0 || self->head.object % FERRY_STORE_OBJECT_SIZE != 0)
    return malformed (error, "no object can be at %" G_GUINT64_FORMAT, self->head.object);
  if (transport_length > TRANSPORT_MAX || name_length > NAME_MAX_BYTES)
    return malformed (error,
                      "the names of transport and store have %" G_GSIZE_FORMAT " and %" G_GSIZE_FORMAT
                      " bytes; they have at most %d and %d",
                      transport_length, name_length, TRANSPORT_MAX, NAME_MAX_BYTES);
  memcpy (self->transport, data + sizeof self->head, transport_length);
  self->transport[transport_length] = '\0';
  memcpy (self->name, data + sizeof self->head + transport_length, name_length);
  self->name[name_length] = '\0';
  for (gsize i = 0; i < transport_length; i++)
    if (!g_ascii_islower (self->transport[i]) && !g_ascii_isdigit (self->transport[i]) && self->transport[i] != '-')
      return malformed (error, "the name of the transport has a character that none has");
  if (strlen (self->name) != name_length || !g_utf8_validate (self->name, -1, NULL) || strchr (self->name, '/') != NULL)
    return malformed (error, "the name of the store has a character that none has");
  if ((transport_length == 0) != (name_length == 0))
    return malformed (error, "the message names a transport or a store, not both");
  return TRUE;
}

static gboolean
set_in_transaction (FerryStore *store, GError **error)
{
  g_set_error (
      error, FERRY_ERROR, FERRY_ERROR_INVALID_ARGUMENT,
      "%s: no object of it can be sent within a transaction, for a message can't be rolled back; send it after "
      "the commit",
      store->label);
  return FALSE;
}

/**
 * ferry_store_reference_encode: (skip)
 * @self: a reference
 * @data: (out caller-allocates) (array length=size): where to
 * @size: room there in bytes: %FERRY_STORE_REFERENCE_SIZE, neither less nor more
 * @error: return location for an error
 *
 * Makes a message of codec `store`. The caller keeps the reference until the message is sent.
 *
 * Errors: %FERRY_ERROR_CLOSED, %FERRY_ERROR_INVALID_ARGUMENT (within a transaction), %FERRY_ERROR_CORRUPT, %FERRY_ERROR_CODEC (of another
 * size).
 *
 * Returns: %TRUE on success
 *
 * Since: 1.0
 */
gboolean
ferry_store_reference_encode (FerryStoreReference *self, guint8 *data, gsize size, GError **error)
{
  FerryStore *store;
  FerryRef ref;
  const char *transport;
  gsize transport_length;
  gsize name_length;
  FerryObject *object;
  MessageHead head = { 0 };

  g_return_val_if_fail (self != NULL, FALSE);
  g_return_val_if_fail (data != NULL, FALSE);
  g_return_val_if_fail (error == NULL || *error == NULL, FALSE);

  store = ferry_store_reference_get_store (self);
  ref = ferry_store_reference_get_object_id (self);
  if (size != FERRY_STORE_REFERENCE_SIZE)
    return malformed (error, "a message has %d bytes, there are %" G_GSIZE_FORMAT, FERRY_STORE_REFERENCE_SIZE, size);
  if (store->closed)
    {
      g_set_error (error, FERRY_ERROR, FERRY_ERROR_CLOSED,
                   "%s is closed in this process; open it anew, and send what is found in it", store->label);
      return FALSE;
    }
  if (ferry_store_in_transaction (store))
    return set_in_transaction (store, error);
  object = ferry_store_object (store, ref);
  if (object == NULL)
    return ferry_store_set_corrupt (store, "a reference leads nowhere", error);
  transport = ferry_segment_get_transport_name (store->segment);
  transport_length = transport != NULL && store->name != NULL ? strlen (transport) : 0;
  name_length = transport_length > 0 ? strlen (store->name) : 0;
  memcpy (head.identity, store->segment->identity, sizeof head.identity);
  head.object = GUINT64_TO_LE (ref);
  head.generation = GUINT16_TO_LE ((guint16) atomic_load_explicit (&object->generation, memory_order_relaxed));
  head.kind = (guint8) ferry_object_kind (object);
  if (transport_length > TRANSPORT_MAX || name_length > NAME_MAX_BYTES)
    transport_length = name_length = 0; /* can't be opened by name, then */
  head.transport_length = GUINT16_TO_LE ((guint16) transport_length);
  head.name_length = GUINT16_TO_LE ((guint16) name_length);
  memset (data, 0, size);
  memcpy (data, &head, sizeof head);
  memcpy (data + sizeof head, transport, transport_length);
  if (name_length > 0)
    memcpy (data + sizeof head + transport_length, store->name, name_length);
  return TRUE;
}

/**
 * ferry_store_reference_peek: (skip)
 * @buffer: a message
 * @identity: (out caller-allocates) (array fixed-size=16): of the store that it refers to, 16 bytes
 * @transport: (out) (transfer full): the transport of the store, at most 64 bytes; "": it has no name
 * @name: (out) (transfer full): its name, UTF-8 of at most 200 bytes
 *
 * Tells, for a message of codec `store`, which store has to be open for it.
 *
 * Returns: %TRUE if so; %FALSE for other messages, and for those that can't be decoded: then nothing is set
 *
 * Since: 1.0
 */
gboolean
ferry_store_reference_peek (FerryBuffer *buffer, guint8 identity[16], char **transport, char **name)
{
  Message message;

  g_return_val_if_fail (buffer != NULL, FALSE);
  g_return_val_if_fail (identity != NULL, FALSE);
  g_return_val_if_fail (transport != NULL, FALSE);
  g_return_val_if_fail (name != NULL, FALSE);

  if (buffer->wire_name != FERRY_STORE_WIRE_NAME_PACKED || !message_read (&message, buffer->data, buffer->size, NULL))
    return FALSE;
  memcpy (identity, message.head.identity, sizeof message.head.identity);
  *transport = g_strdup (message.transport);
  *name = g_strdup (message.name);
  return TRUE;
}

/* ---- channels ---- */

/* {identity, 1 byte: anonymous, transport, 0, name} */
static GByteArray *
channel_key (FerrySegment *segment, FerryKey *key)
{
  GByteArray *bytes = g_byte_array_new ();
  const char *transport = ferry_segment_get_transport_name (segment);
  const char *name = segment->anonymous || transport == NULL || segment->name == NULL ? "" : segment->name;
  guint8 is_anonymous = *name == '\0';

  g_byte_array_append (bytes, segment->identity, sizeof segment->identity);
  g_byte_array_append (bytes, &is_anonymous, 1);
  if (!is_anonymous)
    {
      g_byte_array_append (bytes, (const guint8 *) transport, (guint) strlen (transport) + 1);
      g_byte_array_append (bytes, (const guint8 *) name, (guint) strlen (name));
    }
  *key = (FerryKey){ .cell = FERRY_CELL (FERRY_CELL_LEAF, 0),
                     .hash = ferry_key_hash_data (FERRY_LEAF_BYTES, bytes->data, bytes->len),
                     .kind = FERRY_LEAF_BYTES,
                     .data = bytes->data,
                     .size = bytes->len };
  return bytes;
}

guint
ferry_store_tickets_runtime_directory (void)
{
  const char *directory = g_getenv ("XDG_RUNTIME_DIR");

  return directory != NULL ? g_str_hash (directory) : 0;
}

static void
append_file (GString *where, const char *path)
{
  struct stat st;

  if (stat (path, &st) == 0)
    g_string_append_printf (where, " %" G_GUINT64_FORMAT ":%" G_GUINT64_FORMAT, (guint64) st.st_dev,
                            (guint64) st.st_ino);
}

/* Where a transport looks names up, as a hash that is not 0: whoever has another one need not find what is there. Names may
 * mean something else for another user, in another mount name space, with other environment variables. */
static guint
where_of (FerrySegmentTransport *transport)
{
  static const char *const names[] = { "directory", "listing-group" };
  g_autoptr (GString) where = g_string_new (NULL);
  g_autofree char *sum = NULL;

  for (guint i = 0; i < G_N_ELEMENTS (names); i++)
    {
      GParamSpec *pspec = g_object_class_find_property (G_OBJECT_GET_CLASS (transport), names[i]);
      g_auto (GValue) value = G_VALUE_INIT;
      g_autofree char *text = NULL;

      if (pspec == NULL)
        continue;
      g_value_init (&value, pspec->value_type);
      g_object_get_property (G_OBJECT (transport), names[i], &value);
      text = g_strdup_value_contents (&value);
      g_string_append_printf (where, "%s=%s ", names[i], text);
    }
  g_string_append_printf (where, "%u %u", (guint) geteuid (), ferry_store_tickets_runtime_directory ());
  append_file (where, "/proc/self/ns/mnt");
  append_file (where, "/");
  sum = g_compute_checksum_for_string (G_CHECKSUM_SHA256, where->str, (gssize) where->len);
  sum[8] = '\0';
  return MAX ((guint) (g_ascii_strtoull (sum, NULL, 16) & ((1u << WHERE_BITS) - 1)), 1);
}

static guint
place_of_block (guint32 block)
{
  return FERRY_BLOCK_CLASS (block) << INDEX_BITS | FERRY_BLOCK_INDEX (block);
}

static guint32
block_of_place (guint place)
{
  return FERRY_BLOCK_REF (place >> INDEX_BITS, place & ((1u << INDEX_BITS) - 1));
}

static FerryKey
ticket_key (guint32 channel, guint32 block)
{
  gint64 number = -1 - (gint64) ((guint64) channel << PLACE_BITS | place_of_block (block));
  FerryKey key = { FERRY_CELL (FERRY_CELL_INT, number), ferry_key_hash_int (number) };

  return key;
}

static FerryRef
get_tickets (FerryStore *store)
{
  return atomic_load_explicit (&store->header->tickets, memory_order_acquire);
}

/* 0: it has none. */
static guint32
channel_of_cell (FerryCell cell)
{
  return ferry_cell_tag (cell) == FERRY_CELL_INT && ferry_cell_int (cell) > 0 ? ferry_cell_int (cell) & CHANNEL_MAX : 0;
}

static guint
where_of_cell (FerryCell cell)
{
  return (guint) (ferry_cell_int (cell) >> CHANNEL_BITS);
}

/* 1; 0: no object of the store travelled in the channel; -1: error. */
static int
find_channel (FerryStore *store, FerrySegment *segment, gboolean create, guint32 *channel, GError **error)
{
  FerryReading reading = FERRY_READING_INIT;
  FerryKey key;
  g_autoptr (GByteArray) bytes = channel_key (segment, &key);
  int found = ferry_store_dict_get (store, get_tickets (store), &key, &reading, error);

  if (found == 0 && create)
    {
      FerryCell cell;
      guint where = 0;
      guint32 number = atomic_fetch_add (&store->header->next_channel, 1) + 1;

      if (number == 0 || number > CHANNEL_MAX)
        {
          g_set_error (error, FERRY_ERROR, FERRY_ERROR_TOO_MANY,
                       "%s: its objects have been sent through %u channels, more than it can number; use another store",
                       store->label, CHANNEL_MAX);
          return -1;
        }
      /* 0: not known, for the variable has changed since */
      if (segment->runtime_directory == ferry_store_tickets_runtime_directory ())
        where = where_of (segment->transport);
      cell = FERRY_CELL (FERRY_CELL_INT, (gint64) where << CHANNEL_BITS | number);
      found = ferry_store_dict_set (store, get_tickets (store), &key, 0, cell, TRUE, &reading, error);
      if (found == 0)
        {
          reading.cell = cell;
          found = 1;
        }
    }
  if (found > 0 && channel_of_cell (reading.cell) == 0)
    {
      ferry_store_unhold_reading (store, &reading);
      ferry_store_set_corrupt (store, "a channel that objects travel in has no number", error);
      found = -1;
    }
  if (found > 0)
    *channel = channel_of_cell (reading.cell);
  ferry_reading_clear (&reading);
  return found;
}

/* 0: none, and not to be made, or an error. */
static guint32
courier_channel (FerryCourier *self, FerryStore *store, FerrySegment *segment, gboolean create, GError **error)
{
  guint32 channel = atomic_load_explicit (&self->channel, memory_order_relaxed);

  if (G_UNLIKELY (channel == 0) && find_channel (store, segment, create, &channel, error) > 0)
    atomic_store_explicit (&self->channel, channel, memory_order_relaxed);
  return channel;
}

/* Takes an entry whose store is gone over for another one. */
static gboolean
courier_reuse (FerryCourier *self, FerryStore *store, guint32 channel, gboolean same)
{
  g_autoptr (FerryStore) other = NULL;
  gboolean is_known;
  gboolean ok;

  g_mutex_lock (&self->mutex);
  other = g_weak_ref_get (&self->store);
  is_known = memcmp (self->identity, store->segment->identity, sizeof self->identity) == 0;
  ok = other == NULL && (is_known || !same);
  if (ok)
    {
      /* Opened anew, it has the tickets of what was late before. */
      if (!is_known)
        g_hash_table_remove_all (self->late);
      memcpy (self->identity, store->segment->identity, sizeof self->identity);
      atomic_store_explicit (&self->channel, channel, memory_order_relaxed);
      g_weak_ref_set (&self->store, store);
    }
  g_mutex_unlock (&self->mutex);
  return ok;
}

/* NULL without an error: none, and not to be made. */
static FerryCourier *
get_courier (FerryStore *store, FerrySegment *segment, gboolean create, GError **error)
{
  FerryCourier *first = atomic_load_explicit (&segment->couriers, memory_order_acquire);
  FerryCourier *self;
  guint32 channel;

  for (self = first; self != NULL; self = self->next)
    {
      g_autoptr (FerryStore) alive = g_weak_ref_get (&self->store);

      if (alive == store)
        return courier_channel (self, store, segment, create, error) != 0 ? self : NULL;
    }
  if (find_channel (store, segment, create, &channel, error) <= 0)
    return NULL;
  for (gint same = TRUE; same >= FALSE; same--)
    for (self = first; self != NULL; self = self->next)
      if (courier_reuse (self, store, channel, same))
        return self;
  self = g_new0 (FerryCourier, 1);
  g_weak_ref_init (&self->store, store);
  atomic_init (&self->channel, channel);
  memcpy (self->identity, store->segment->identity, sizeof self->identity);
  g_mutex_init (&self->mutex);
  self->late = g_hash_table_new (NULL, NULL);
  do
    self->next = first;
  /* release: whoever finds it finds what is in it */
  while (!atomic_compare_exchange_weak_explicit (&segment->couriers, &first, self, memory_order_acq_rel,
                                                 memory_order_acquire));
  return self;
}

void
ferry_store_tickets_clear (FerrySegment *segment)
{
  FerryCourier *self = atomic_exchange_explicit (&segment->couriers, NULL, memory_order_acq_rel);

  while (self != NULL)
    {
      FerryCourier *next = self->next;

      g_weak_ref_clear (&self->store);
      g_mutex_clear (&self->mutex);
      g_hash_table_unref (self->late);
      g_free (self);
      self = next;
    }
}

/* In a fork child, before it joins. What its parent freed late its parent removes; other threads of that one may have had
 * mutexes and sets in their hands. Numbers of channels may have changed before a child joins: see ferry_store_tickets_leave(). */
void
ferry_store_tickets_refork (FerrySegment *segment)
{
  for (FerryCourier *self = atomic_load_explicit (&segment->couriers, memory_order_acquire); self != NULL;
       self = self->next)
    {
      g_mutex_init (&self->mutex);
      self->late = g_hash_table_new (NULL, NULL);
      atomic_store_explicit (&self->channel, 0, memory_order_relaxed);
    }
}

/* ---- sending ---- */

static gboolean
begin_within (FerryStore *store, gint64 timeout, GCancellable *cancellable, GError **error)
{
  gint64 started = g_get_monotonic_time ();

  while (!ferry_store_try_begin (store))
    {
      g_autoptr (GError) local = NULL;
      gint64 left = timeout < 0 ? SLICE_US : MAX (timeout - (g_get_monotonic_time () - started), 0);

      if (ferry_store_begin_within (store, MIN (left, SLICE_US), &local))
        return TRUE;
      if (!g_error_matches (local, FERRY_ERROR, FERRY_ERROR_TIMED_OUT))
        {
          g_propagate_error (error, g_steal_pointer (&local));
          return FALSE;
        }
      if (g_cancellable_set_error_if_cancelled (cancellable, error))
        return FALSE;
      if (left == 0)
        {
          g_set_error (
              error, FERRY_ERROR, timeout == 0 ? FERRY_ERROR_FULL : FERRY_ERROR_TIMED_OUT,
              "%s: somebody's transaction holds it, so that none of its objects can be sent now; give the call "
              "more time",
              store->label);
          return FALSE;
        }
    }
  return TRUE;
}

gboolean
ferry_store_ticket_bind (FerrySegment *segment, guint32 block, const guint8 *data, gsize size, gint64 timeout,
                         GCancellable *cancellable, GError **error)
{
  g_autoptr (FerryStore) store = NULL;
  FerryCourier *courier;
  Message message;
  FerryObject *object;
  FerryKey key;
  g_autoptr (GError) local = NULL;
  gint64 started;
  int alive;
  gboolean ok = FALSE;

  if (!message_read (&message, data, size, error))
    return FALSE;
  store = ferry_store_find_open (message.head.identity);
  if (store == NULL)
    {
      g_set_error (
          error, FERRY_ERROR, FERRY_ERROR_NOT_FOUND,
          "%s: the message refers to an object of store '%s', which is not open in this process; open it to pass "
          "the message on",
          segment->label, message.name);
      return FALSE;
    }
  if (ferry_store_in_transaction (store))
    return set_in_transaction (store, error);
  FERRY_STEP ("ticket-begin");
  started = g_get_monotonic_time ();
  if (!begin_within (store, timeout, cancellable, error))
    return FALSE;
  if (timeout >= 0)
    ferry_store_hurry (store, CLAMP (timeout - (g_get_monotonic_time () - started), MOMENT_US, FERRY_LOCK_PATIENCE));
  alive = ferry_store_hold_alive (store, message.head.object, error);
  if (alive > 0)
    {
      object = ferry_store_at (store, message.head.object);
      if (atomic_load_explicit (&object->generation, memory_order_relaxed) != message.head.generation
          || ferry_object_kind (object) != message.head.kind)
        {
          ferry_store_unhold (store, message.head.object);
          alive = 0;
        }
    }
  if (alive == 0)
    g_set_error (error, FERRY_ERROR, FERRY_ERROR_NOT_FOUND,
                 "%s: the object that the message refers to is gone; keep a reference until the message is sent",
                 store->label);
  if (alive <= 0)
    {
      ferry_store_hurry (store, -1);
      ferry_store_end_briefly (store);
      return FALSE;
    }
  courier = get_courier (store, segment, TRUE, &local);
  if (courier != NULL)
    {
      FerryCell cell = ferry_store_new_reference (store, message.head.object);

      FERRY_STEP ("ticket-counted");
      key = ticket_key (atomic_load_explicit (&courier->channel, memory_order_relaxed), block);
      /* In place of one that is left of an earlier message in the block, if any. */
      ok = ferry_store_dict_set (store, get_tickets (store), &key, 0, cell, FALSE, NULL, &local) >= 0;
      if (!ok)
        ferry_store_release_cell (store, cell);
    }
  ferry_store_unhold (store, message.head.object);
  ferry_store_hurry (store, -1);
  ferry_store_end_briefly (store); /* a send keeps to its time-out */
  if (timeout == 0 && g_error_matches (local, FERRY_ERROR, FERRY_ERROR_TIMED_OUT))
    local->code = FERRY_ERROR_FULL;
  if (local != NULL)
    g_propagate_error (error, g_steal_pointer (&local));
  FERRY_STEP ("ticket-bound");
  return ok;
}

/* ---- the end of messages ---- */

/* Inside a stretch of work. */
static gboolean
remove_ticket (FerryStore *store, guint32 channel, guint32 block)
{
  FerryKey key = ticket_key (channel, block);
  int removed;

  FERRY_STEP ("ticket-unbind");
  removed = ferry_store_dict_remove (store, get_tickets (store), &key, NULL, NULL);
  FERRY_STEP ("ticket-unbound");
  return removed >= 0;
}

static void
add_late (FerryCourier *self, guint32 block)
{
  g_mutex_lock (&self->mutex);
  g_hash_table_add (self->late, GUINT_TO_POINTER (block));
  g_mutex_unlock (&self->mutex);
}

/* Inside a stretch of work: those for which there was none. Whose block is in use again has been replaced, or is found by who
 * frees the block. */
static void
remove_late (FerryCourier *self, FerryStore *store, FerrySegment *segment, guint32 channel)
{
  g_autoptr (GHashTable) late = NULL;
  GHashTableIter iter;
  gpointer block;
  gboolean ok = TRUE;

  g_mutex_lock (&self->mutex);
  if (g_hash_table_size (self->late) > 0)
    {
      late = self->late;
      self->late = g_hash_table_new (NULL, NULL);
    }
  g_mutex_unlock (&self->mutex);
  if (late == NULL)
    return;
  g_hash_table_iter_init (&iter, late);
  while (g_hash_table_iter_next (&iter, &block, NULL))
    {
      if (ok && !ferry_arena_claim_free_block (segment, GPOINTER_TO_UINT (block)))
        continue;
      if (ok)
        {
          ok = remove_ticket (store, channel, GPOINTER_TO_UINT (block));
          ferry_arena_free_claimed_block (segment, GPOINTER_TO_UINT (block));
        }
      if (!ok)
        add_late (self, GPOINTER_TO_UINT (block));
    }
}

void
ferry_store_ticket_unbind (FerrySegment *segment, guint32 block)
{
  for (FerryCourier *self = atomic_load_explicit (&segment->couriers, memory_order_acquire); self != NULL;
       self = self->next)
    {
      g_autoptr (FerryStore) store = g_weak_ref_get (&self->store);
      g_autoptr (GError) error = NULL;
      gboolean ok = FALSE;

      if (store == NULL || store->closed)
        continue;
      if (ferry_store_try_begin (store))
        {
          guint32 channel;

          ferry_store_hurry (store, 0);
          channel = courier_channel (self, store, segment, FALSE, &error);
          ok = channel != 0 ? remove_ticket (store, channel, block) : error == NULL;
          if (ok && channel != 0)
            remove_late (self, store, segment, channel);
          ferry_store_hurry (store, -1);
          ferry_store_end_briefly (store);
        }
      if (!ok)
        add_late (self, block);
    }
}

/* Whether no message is left that a ticket would be for. */
static gboolean
remove_tickets (FerryStore *store, FerrySegment *segment, guint32 channel, gboolean is_last)
{
  gboolean all = TRUE;

  for (guint c = 0; all && c < FERRY_N_CLASSES; c++)
    {
      guint n
          = MIN (atomic_load_explicit (&segment->class_used[c], memory_order_acquire), segment->classes[c].n_blocks);

      for (guint i = 0; all && i < n; i++)
        {
          guint32 block = FERRY_BLOCK_REF (c, i);
          FerryKey key = ticket_key (channel, block);
          FerryReading reading = FERRY_READING_INIT;

          if (is_last)
            {
              all = remove_ticket (store, channel, block);
              continue;
            }
          all = ferry_store_dict_get (store, get_tickets (store), &key, &reading, NULL) == 0;
          ferry_store_unhold_reading (store, &reading);
          ferry_reading_clear (&reading);
        }
    }
  return all;
}

/* The number of a channel goes when nothing is numbered with it, and nobody is in it who might remember it: whoever joins looks
 * for it anew. */
void
ferry_store_tickets_leave (FerrySegment *segment, gboolean is_alone, gboolean is_last)
{
  for (FerryCourier *self = atomic_load_explicit (&segment->couriers, memory_order_acquire); self != NULL;
       self = self->next)
    {
      g_autoptr (FerryStore) store = g_weak_ref_get (&self->store);
      guint32 channel;

      if (store == NULL || store->closed || !ferry_store_begin_within (store, LEAVE_PATIENCE_US, NULL))
        continue;
      ferry_store_hurry (store, LEAVE_PATIENCE_US);
      channel = courier_channel (self, store, segment, FALSE, NULL);
      if (channel != 0)
        remove_late (self, store, segment, channel);
      if (channel != 0 && is_alone && remove_tickets (store, segment, channel, is_last))
        {
          FerryKey key;
          g_autoptr (GByteArray) bytes = channel_key (segment, &key);

          ferry_store_dict_remove (store, get_tickets (store), &key, NULL, NULL);
        }
      ferry_store_hurry (store, -1);
      ferry_store_end_briefly (store);
    }
}

/* ---- receiving ---- */

/* The object of a received message, held for the caller; 0: error. */
static FerryRef
take_ticket (FerryStore *store, FerryBuffer *buffer, const Message *message, GError **error)
{
  FerryReading reading = FERRY_READING_INIT;
  FerrySegment *segment = NULL;
  FerryCourier *courier;
  FerryKey key;
  g_autoptr (GError) local = NULL;
  int found = 0;

  if (buffer->transport != NULL && FERRY_IS_SEGMENT_TRANSPORT (buffer->transport))
    segment = ferry_segment_transport_get_segment (FERRY_SEGMENT_TRANSPORT (buffer->transport));
  if ((buffer->flags & FERRY_BUFFER_RECEIVED) == 0 || segment == NULL)
    {
      /* It came through no channel, so nothing but this process keeps the object. */
      if ((buffer->flags & FERRY_BUFFER_RECEIVED) == 0
          && ferry_store_hold_known (store, message->head.object, message->head.generation))
        return message->head.object;
      g_set_error (error, FERRY_ERROR, FERRY_ERROR_NOT_FOUND,
                   "%s: the bytes refer to an object, and nothing keeps it; send them through a channel over shared "
                   "memory, and decode what is received there",
                   store->label);
      return 0;
    }
  FERRY_STEP ("ticket-look");
  courier = get_courier (store, segment, FALSE, &local);
  if (courier != NULL)
    {
      key = ticket_key (atomic_load_explicit (&courier->channel, memory_order_relaxed), (guint32) buffer->token);
      found = ferry_store_dict_get (store, get_tickets (store), &key, &reading, &local);
    }
  FERRY_STEP ("ticket-held");
  if (found > 0)
    {
      FerryRef ref = ferry_cell_tag (reading.cell) == FERRY_CELL_OBJECT ? ferry_cell_payload (reading.cell) : 0;

      if (ref != 0 && ref == message->head.object && (guint) ferry_store_object_kind (store, ref) == message->head.kind)
        {
          ferry_reading_clear (&reading);
          return ref;
        }
      ferry_store_unhold_reading (store, &reading);
      malformed (error, "the message refers to another object than was sent in it");
    }
  else if (local != NULL)
    {
      g_propagate_error (error, g_steal_pointer (&local));
    }
  else
    {
      g_set_error (error, FERRY_ERROR, FERRY_ERROR_NOT_FOUND,
                   "%s: the message refers to an object that was not sent in it; %s", store->label,
                   "was the message made by something else than codec 'store'?");
    }
  ferry_reading_clear (&reading);
  return 0;
}

/* The store that the message names. */
static FerryStore *
open_store (const Message *message, GError **error)
{
  g_autoptr (FerryDescription) description = NULL;
  g_autofree char *text = NULL;
  g_autoptr (FerryStore) store = NULL;
  guint8 identity[16];

  if (message->name[0] == '\0')
    {
      g_set_error (
          error, FERRY_ERROR, FERRY_ERROR_NOT_FOUND,
          "codec 'store': the object lives in a store without a name, which is only for the process that made it and "
          "its fork children; give the store a name");
      return NULL;
    }
  description = ferry_description_new (message->transport, NULL);
  ferry_description_add (description, "name", message->name);
  ferry_description_add (description, "open-mode", "join");
  text = ferry_description_to_string (description);
  store = ferry_store_open (text, NULL, error);
  if (store == NULL)
    {
      g_prefix_error (error,
                      "codec 'store': the store of the object is not open here, and can't be opened by its name alone; "
                      "open it before receiving, if it has a directory= or group=: ");
      return NULL;
    }
  ferry_store_get_identity (store, identity);
  if (memcmp (identity, message->head.identity, sizeof identity) == 0)
    return g_steal_pointer (&store);
  g_set_error (
      error, FERRY_ERROR, FERRY_ERROR_NOT_FOUND,
      "codec 'store': store '%s' is not the one that the object lives in; everybody may have left that one, or it has "
      "another directory= or group= and must be open before its objects are received",
      message->name);
  return NULL;
}

static FerryStoreReference *
decode (FerryBuffer *buffer, gboolean may_open, const char *accept, gboolean *was_opened, GError **error)
{
  g_autoptr (FerryStore) store = NULL;
  Message message;
  FerryRef ref;

  if (!message_read (&message, buffer->data, buffer->size, error))
    return NULL;
  if (accept != NULL && strcmp (accept, message.name) != 0)
    {
      malformed (error, "the object lives in store '%s', accepted are those of '%s' only", message.name, accept);
      return NULL;
    }
  store = ferry_store_find_open (message.head.identity);
  if (store == NULL && !may_open)
    {
      malformed (error, "the object lives in store '%s', which is not open here, and open-stores is off; open it",
                 message.name);
      return NULL;
    }
  if (store == NULL)
    {
      store = open_store (&message, error);
      if (store == NULL)
        return NULL;
      *was_opened = TRUE;
    }
  ref = take_ticket (store, buffer, &message, error);
  return ref != 0 ? ferry_store_reference_new_held (store, ref) : NULL;
}

/**
 * ferry_store_reference_decode: (skip)
 * @buffer: a message
 * @may_open: whether a store that is not open in this process may be opened
 * @accept: (nullable): the only name of a store that is accepted; %NULL: any
 * @was_opened: (out): whether the store was opened by this call; set on errors, too
 * @error: return location for an error
 *
 * Reads a message of codec `store`.
 *
 * Errors: %FERRY_ERROR_CODEC, with a message that says whether the bytes are malformed, the store is not accepted or can't be opened, or
 * it or the object is gone.
 *
 * Returns: (transfer full): the object, or %NULL
 *
 * Since: 1.0
 */
FerryStoreReference *
ferry_store_reference_decode (FerryBuffer *buffer, gboolean may_open, const char *accept, gboolean *was_opened,
                              GError **error)
{
  g_autoptr (GError) local = NULL;
  FerryStoreReference *reference;

  g_return_val_if_fail (buffer != NULL, NULL);
  g_return_val_if_fail (was_opened != NULL, NULL);
  g_return_val_if_fail (error == NULL || *error == NULL, NULL);

  *was_opened = FALSE;
  reference = decode (buffer, may_open, accept, was_opened, &local);
  if (local != NULL && g_str_has_prefix (local->message, "codec 'store'"))
    g_set_error_literal (error, FERRY_ERROR, FERRY_ERROR_CODEC, local->message);
  else if (local != NULL)
    g_set_error (error, FERRY_ERROR, FERRY_ERROR_CODEC, "codec 'store': %s", local->message);
  return reference;
}

/* ---- collections ---- */

/* One channel that objects travel in. */
typedef struct
{
  GBytes *key;
  guint32 channel;
  gboolean is_gone;
  GObject *holder;       /* of the segment */
  FerrySegment *segment; /* NULL: it can't be looked at */
} Surveyed;

static void
surveyed_free (gpointer data)
{
  Surveyed *self = data;

  g_clear_pointer (&self->key, g_bytes_unref);
  g_clear_object (&self->holder);
  g_free (self);
}

/* @where: where the name was looked up by who made it known. That there is no such name, or that it is another channel's, tells
 * something only there. */
static void
look_by_name (Surveyed *self, const guint8 *identity, guint where, const char *transport_name, const char *name)
{
  g_autoptr (FerryTransport) transport
      = ferry_registry_create_transport (ferry_registry_get_default (), transport_name, NULL);
  g_autoptr (FerryChannel) channel = NULL;
  g_autoptr (GError) error = NULL;
  FerrySegment *segment;
  gboolean is_alive = TRUE;

  if (transport == NULL || !FERRY_IS_SEGMENT_TRANSPORT (transport)
      || where_of (FERRY_SEGMENT_TRANSPORT (transport)) != where
      || !ferry_transport_probe_channel (transport, name, &is_alive, NULL))
    return;
  self->is_gone = !is_alive;
  if (!is_alive)
    return;
  channel = ferry_channel_new_with_transport (transport, NULL, FERRY_ROLE_OBSERVER);
  g_object_set (channel, "name", name, "open-mode", FERRY_OPEN_MODE_JOIN, NULL);
  if (!ferry_channel_open (channel, NULL, &error))
    {
      self->is_gone = g_error_matches (error, FERRY_ERROR, FERRY_ERROR_NOT_FOUND);
      return;
    }
  segment = ferry_segment_transport_get_segment (FERRY_SEGMENT_TRANSPORT (transport));
  self->is_gone = memcmp (segment->identity, identity, sizeof segment->identity) != 0;
  if (!self->is_gone)
    {
      self->segment = segment;
      self->holder = G_OBJECT (g_steal_pointer (&channel));
    }
}

/* The cells of the dict of tickets are in @snapshot: calls for each channel, or each ticket. */
static const FerryLeaf *
channel_leaf (const FerrySnapshot *snapshot, gsize i)
{
  const FerryLeaf *leaf;

  if (ferry_cell_tag (snapshot->cells[i]) != FERRY_CELL_LEAF
      || ferry_cell_tag (snapshot->cells[i + 1]) != FERRY_CELL_INT)
    return NULL;
  leaf = (const FerryLeaf *) (const void *) (snapshot->memory + ferry_cell_payload (snapshot->cells[i]));
  return leaf->kind == FERRY_LEAF_BYTES && leaf->n_refs == 0 && leaf->size > sizeof ((FerrySegment *) NULL)->identity
             ? leaf
             : NULL;
}

GPtrArray *
ferry_store_tickets_survey (FerryStore *self)
{
  GPtrArray *survey = g_ptr_array_new_with_free_func (surveyed_free);
  FerrySnapshot snapshot = { 0 };

  /* What can't be read is left as it is. */
  if (!ferry_store_snapshot (self, get_tickets (self), &snapshot, NULL))
    snapshot.n = 0;
  for (gsize i = 0; i + 1 < snapshot.n; i += 2)
    {
      const FerryLeaf *leaf = channel_leaf (&snapshot, i);
      Surveyed *surveyed;
      FerrySegmentTransport *transport;
      g_autofree char *rest = NULL;
      gsize identity_size = sizeof self->segment->identity;

      if (leaf == NULL)
        continue;
      surveyed = g_new0 (Surveyed, 1);
      surveyed->key = g_bytes_new (leaf->data, leaf->size);
      surveyed->channel = channel_of_cell (snapshot.cells[i + 1]);
      g_ptr_array_add (survey, surveyed);
      transport = ferry_segment_transport_find (leaf->data);
      if (transport != NULL)
        {
          surveyed->holder = G_OBJECT (transport);
          surveyed->segment = ferry_segment_transport_get_segment (transport);
          continue;
        }
      /* ends with a zero, and has another one within */
      rest = g_strndup ((const char *) leaf->data + identity_size + 1, leaf->size - identity_size - 1);
      if (leaf->data[identity_size] == 0 && strlen (rest) + 1 < leaf->size - identity_size - 1)
        {
          g_autofree char *name = g_strndup ((const char *) leaf->data + identity_size + 1 + strlen (rest) + 1,
                                             leaf->size - identity_size - 1 - strlen (rest) - 1);

          look_by_name (surveyed, leaf->data, where_of_cell (snapshot.cells[i + 1]), rest, name);
        }
    }
  ferry_store_snapshot_clear (self, &snapshot);
  return survey;
}

/* Whether the message of a ticket is gone. Nobody makes tickets meanwhile, and who did had the block before; so a block that is
 * free now became so after its message had been there. */
static gboolean
is_stale (const Surveyed *surveyed, guint32 block)
{
  guint64 word;

  if (surveyed->is_gone)
    return TRUE;
  if (surveyed->segment == NULL || surveyed->segment->control == NULL || FERRY_BLOCK_CLASS (block) >= FERRY_N_CLASSES
      || FERRY_BLOCK_INDEX (block) >= surveyed->segment->classes[FERRY_BLOCK_CLASS (block)].n_blocks)
    return FALSE;
  word = atomic_load_explicit (&ferry_arena_block (surveyed->segment, block)->word, memory_order_acquire);
  return ferry_word_state (word) == FERRY_BLOCK_FREE || ferry_word_state (word) == FERRY_BLOCK_TRIMMING;
}

/* With the gate closed. */
gboolean
ferry_store_tickets_sweep (FerryStore *self, GPtrArray *survey, GError **error)
{
  FerrySnapshot snapshot = { 0 };
  g_autoptr (GHashTable) by_channel = g_hash_table_new (NULL, NULL);
  g_autoptr (GArray) stale = g_array_new (FALSE, FALSE, sizeof (gint64));
  gboolean ok = ferry_store_snapshot (self, get_tickets (self), &snapshot, error);

  for (guint i = 0; i < survey->len; i++)
    {
      Surveyed *surveyed = g_ptr_array_index (survey, i);

      g_hash_table_insert (by_channel, GUINT_TO_POINTER (surveyed->channel), surveyed);
    }
  for (gsize i = 0; ok && i + 1 < snapshot.n; i += 2)
    {
      gint64 number = ferry_cell_tag (snapshot.cells[i]) == FERRY_CELL_INT ? ferry_cell_int (snapshot.cells[i]) : 0;
      guint64 place = (guint64) (-1 - number);
      Surveyed *surveyed;

      if (number >= 0)
        continue;
      surveyed = g_hash_table_lookup (by_channel, GUINT_TO_POINTER ((guint) (place >> PLACE_BITS)));
      /* others began to travel since the survey */
      if (surveyed != NULL && is_stale (surveyed, block_of_place ((guint) (place & PLACE_MASK))))
        g_array_append_val (stale, number);
    }
  ferry_store_snapshot_clear (self, &snapshot);
  for (guint i = 0; ok && i < stale->len; i++)
    {
      gint64 number = g_array_index (stale, gint64, i);
      FerryKey key = { FERRY_CELL (FERRY_CELL_INT, number), ferry_key_hash_int (number) };

      ok = ferry_store_dict_remove (self, get_tickets (self), &key, NULL, error) >= 0;
      FERRY_STEP ("ticket-swept");
    }
  for (guint i = 0; ok && i < survey->len; i++)
    {
      Surveyed *surveyed = g_ptr_array_index (survey, i);
      gsize size;
      gconstpointer data = g_bytes_get_data (surveyed->key, &size);
      FerryKey key = { .cell = FERRY_CELL (FERRY_CELL_LEAF, 0),
                       .hash = ferry_key_hash_data (FERRY_LEAF_BYTES, data, size),
                       .kind = FERRY_LEAF_BYTES,
                       .data = data,
                       .size = size };

      if (surveyed->is_gone)
        ok = ferry_store_dict_remove (self, get_tickets (self), &key, NULL, error) >= 0;
    }
  return ok;
}
