/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ferry-store-private.h"
#include "ferry-store-ticket-private.h"

#include "ferry-channel-config-private.h"
#include "ferry-description-private.h"
#include "ferry-enum-types.h"
#include "ferry-error.h"
#include "ferry-registry.h"

#include <linux/membarrier.h>
#include <sys/syscall.h>
#include <unistd.h>

/**
 * FerryStore:
 *
 * A named heap in shared memory whose objects any number of processes read and change in place.
 *
 * A store has a root mapping from names to values. Values are plain (numbers, strings, bytes, tuples) or objects with an identity
 * (lists, dicts, sets, records, byte arrays, n-dimensional arrays), which may refer to each other in any way. What nobody
 * refers to any more is freed. Every single operation is atomic; a transaction makes several of them so. Processes may die at any
 * instruction: the others go on, and what the dead one was about to change is as it was before.
 *
 * It lives as long as somebody has it open. docs/store.md describes what lies in memory.
 *
 * One object may be used by several threads.
 *
 * Since: 1.0
 */

G_DEFINE_FINAL_TYPE (FerryStore, ferry_store, G_TYPE_OBJECT)

typedef enum
{
  PROP_DESCRIPTION = 1,
  PROP_NAME,
  PROP_MAX_BYTES,
  PROP_CLOSED,
  N_PROPERTIES,
} FerryStoreProperty;

static GParamSpec *properties[N_PROPERTIES];

/* What a description may have beside the properties of the transport: as of FerryChannel. */
typedef enum
{
  OPTION_NAME,
  OPTION_MAX_BYTES,
  OPTION_OPEN_MODE,
  OPTION_GROUP,
  N_OPTIONS,
} Option;

static GParamSpec *options[N_OPTIONS];

/* Sleepers look by themselves as often, in nanoseconds, when not everybody can be made to pass a fence. */
#define BLIND_SLEEP_NS (5 * 1000 * 1000)

static void
ferry_store_get_property (GObject *object, guint property_id, GValue *value, GParamSpec *pspec)
{
  FerryStore *self = FERRY_STORE (object);

  switch ((FerryStoreProperty) property_id)
    {
    case PROP_DESCRIPTION:
      g_value_set_string (value, self->description);
      break;
    case PROP_NAME:
      g_value_set_string (value, self->name);
      break;
    case PROP_MAX_BYTES:
      g_value_set_uint64 (value, self->max_bytes);
      break;
    case PROP_CLOSED:
      g_value_set_boolean (value, self->closed);
      break;
    case N_PROPERTIES:
    default:
      G_OBJECT_WARN_INVALID_PROPERTY_ID (object, property_id, pspec);
      break;
    }
}

static void
ferry_store_dispose (GObject *object)
{
  ferry_store_close (FERRY_STORE (object));
  G_OBJECT_CLASS (ferry_store_parent_class)->dispose (object);
}

/* Of all stores that this process has open, in the order in which they were opened. */
typedef struct
{
  guint8 identity[16];
  gpointer address;
  GWeakRef store;
} OpenStore;

static GMutex open_mutex;
static GList *open_stores;

void
ferry_store_lock_open (void)
{
  g_mutex_lock (&open_mutex);
}

void
ferry_store_unlock_open (void)
{
  g_mutex_unlock (&open_mutex);
}

static void
list_open (FerryStore *self)
{
  OpenStore *entry = g_new0 (OpenStore, 1);

  memcpy (entry->identity, self->segment->identity, sizeof entry->identity);
  entry->address = self;
  g_weak_ref_init (&entry->store, self);
  g_mutex_lock (&open_mutex);
  open_stores = g_list_append (open_stores, entry);
  g_mutex_unlock (&open_mutex);
}

static void
unlist_open (FerryStore *self)
{
  g_mutex_lock (&open_mutex);
  for (GList *link = open_stores; link != NULL; link = link->next)
    {
      OpenStore *entry = link->data;

      if (entry->address != self)
        continue;
      open_stores = g_list_delete_link (open_stores, link);
      g_weak_ref_clear (&entry->store);
      g_free (entry);
      break;
    }
  g_mutex_unlock (&open_mutex);
}

/**
 * ferry_store_find_open: (skip)
 * @identity: see ferry_store_get_identity()
 *
 * Finds a store that this process has open.
 *
 * Returns: (transfer full) (nullable): the store
 *
 * Since: 1.0
 */
FerryStore *
ferry_store_find_open (const guint8 identity[16])
{
  FerryStore *found = NULL;

  g_mutex_lock (&open_mutex);
  for (GList *link = open_stores; link != NULL && found == NULL; link = link->next)
    {
      OpenStore *entry = link->data;

      if (memcmp (entry->identity, identity, sizeof entry->identity) == 0)
        found = g_weak_ref_get (&entry->store);
    }
  g_mutex_unlock (&open_mutex);
  return found;
}

static void
ferry_store_finalize (GObject *object)
{
  FerryStore *self = FERRY_STORE (object);

  ferry_store_heap_detach (self); /* not before: another thread may look at it while the store is closed */
  g_clear_pointer (&self->held, g_hash_table_unref);
  g_clear_pointer (&self->free_handles, g_array_unref);
  g_clear_pointer (&self->unholds, g_array_unref);
  g_clear_pointer (&self->tx_savepoints, g_array_unref);
  g_clear_pointer (&self->tx_retired, g_array_unref);
  g_clear_pointer (&self->tx_blocks, g_array_unref);
  g_clear_pointer (&self->tx_added, g_array_unref);
  g_clear_pointer (&self->tx_made, g_array_unref);
  g_clear_pointer (&self->tx_dropped, g_array_unref);
  g_clear_pointer (&self->tx_dropped_blocks, g_array_unref);
  g_clear_pointer (&self->retired, g_array_unref);
  g_clear_pointer (&self->retired_blocks, g_array_unref);
  g_mutex_clear (&self->unhold_mutex);
  if (self->base != NULL)
    self->segment->klass->unmap (self->transport, self->base, self->data_size);
  self->base = NULL;
  g_clear_object (&self->transport);
  g_clear_pointer (&self->description, g_free);
  g_clear_pointer (&self->name, g_free);
  g_clear_pointer (&self->label, g_free);
  G_OBJECT_CLASS (ferry_store_parent_class)->finalize (object);
}

#define FLAGS (G_PARAM_READABLE | G_PARAM_STATIC_STRINGS | G_PARAM_EXPLICIT_NOTIFY)

static void
ferry_store_class_init (FerryStoreClass *klass)
{
  GObjectClass *object_class = G_OBJECT_CLASS (klass);

  object_class->get_property = ferry_store_get_property;
  object_class->dispose = ferry_store_dispose;
  object_class->finalize = ferry_store_finalize;

  /**
   * FerryStore:description:
   *
   * What [func@Store.open] was given.
   *
   * Since: 1.0
   */
  properties[PROP_DESCRIPTION] = g_param_spec_string ("description", NULL, NULL, NULL, FLAGS);

  /**
   * FerryStore:name: (getter get_name)
   *
   * The store's name; %NULL: anonymous.
   *
   * Since: 1.0
   */
  properties[PROP_NAME] = g_param_spec_string ("name", NULL, NULL, NULL, FLAGS);

  /**
   * FerryStore:max-bytes: (getter get_max_bytes)
   *
   * The bound of its memory that the store was created with, in bytes.
   *
   * Since: 1.0
   */
  properties[PROP_MAX_BYTES] = g_param_spec_uint64 ("max-bytes", NULL, NULL, 0, G_MAXUINT64, 0, FLAGS);

  /**
   * FerryStore:closed:
   *
   * Whether this process has left the store. It changes once, and is notified by the thread that closes it.
   *
   * Since: 1.0
   */
  properties[PROP_CLOSED] = g_param_spec_boolean ("closed", NULL, NULL, TRUE, FLAGS);

  g_object_class_install_properties (object_class, N_PROPERTIES, properties);

  options[OPTION_NAME] = g_param_spec_string ("name", NULL, NULL, NULL, G_PARAM_READWRITE);
  options[OPTION_MAX_BYTES] = g_param_spec_uint64 ("max-bytes", NULL, NULL, 0, G_MAXUINT64, 0, G_PARAM_READWRITE);
  options[OPTION_OPEN_MODE] = g_param_spec_enum ("open-mode", NULL, NULL, FERRY_TYPE_OPEN_MODE,
                                                 FERRY_OPEN_MODE_CREATE_OR_JOIN, G_PARAM_READWRITE);
  options[OPTION_GROUP] = g_param_spec_int64 ("group", NULL, NULL, -1, FERRY_MAX_GROUP, -1, G_PARAM_READWRITE);
  for (guint i = 0; i < N_OPTIONS; i++)
    g_param_spec_ref_sink (options[i]);
}

static void
ferry_store_init (FerryStore *self)
{
  self->closed = TRUE;
  self->label = g_strdup ("a store that was not opened");
  self->held = g_hash_table_new_full (NULL, NULL, NULL, g_free);
  self->free_handles = g_array_new (FALSE, FALSE, sizeof (guint));
  self->unholds = g_array_new (FALSE, FALSE, sizeof (FerryRef));
  self->tx_savepoints = g_array_new (FALSE, FALSE, sizeof (FerrySavepoint));
  self->tx_retired = g_array_new (FALSE, FALSE, sizeof (FerryCell));
  self->tx_blocks = g_array_new (FALSE, FALSE, sizeof (guint64));
  self->tx_added = g_array_new (FALSE, FALSE, sizeof (FerryCell));
  self->tx_made = g_array_new (FALSE, FALSE, sizeof (guint64));
  self->tx_dropped = g_array_new (FALSE, FALSE, sizeof (FerryCell));
  self->tx_dropped_blocks = g_array_new (FALSE, FALSE, sizeof (guint64));
  self->retired = g_array_new (FALSE, FALSE, sizeof (FerryCell));
  self->retired_blocks = g_array_new (FALSE, FALSE, sizeof (guint64));
  g_mutex_init (&self->unhold_mutex);
}

static gboolean
commit (FerryStore *self, guint64 offset, guint64 size, GError **error)
{
  return self->segment->klass->commit_pages (self->transport, FERRY_SEGMENT_AREA_DATA, offset, size, error);
}

/* Our page of the table of participants; also in a fork child. */
gboolean
ferry_store_enter_slot (FerryStore *self, GError **error)
{
  guint id = self->segment->id;
  static gsize registered = 0;

  if (!commit (self, FERRY_STORE_OFFSET_SLOTS + (guint64) id * FERRY_STORE_SLOT_SIZE, FERRY_STORE_SLOT_SIZE, error))
    return FALSE;
  self->me = &self->slots[id];
  atomic_fetch_or_explicit (&self->header->slots_ready[id / 64], G_GUINT64_CONSTANT (1) << (id % 64),
                            memory_order_seq_cst);
  self->owner_bits = (guint64) id << FERRY_LOCK_OWNER_SHIFT
                     | (guint64) (self->segment->incarnation & FERRY_LOCK_INCARNATION_MASK)
                           << FERRY_LOCK_INCARNATION_SHIFT;
  atomic_store_explicit (&self->me->busy, 0, memory_order_relaxed);
  atomic_store_explicit (&self->me->n_undo, 0, memory_order_relaxed);
  atomic_store_explicit (&self->me->op_object, 0, memory_order_relaxed);
  for (guint c = 0; c < FERRY_STORE_HANDLE_CHUNKS; c++)
    atomic_store_explicit (&self->me->handle_chunks[c], 0, memory_order_relaxed);
  if (g_once_init_enter (&registered))
    g_once_init_leave (&registered,
                       syscall (SYS_membarrier, MEMBARRIER_CMD_REGISTER_GLOBAL_EXPEDITED, 0, 0) == 0 ? 1 : 2);
  if (registered != 1)
    {
      atomic_store_explicit (&self->me->unregistered, 1, memory_order_relaxed);
      atomic_fetch_add_explicit (&self->header->n_unregistered, 1, memory_order_seq_cst);
    }
  return ferry_store_heap_attach (self, error);
}

static FerryRef
new_root (FerryStore *self, GError **error)
{
  FerryCell cell = ferry_store_dict_new (self, FERRY_OBJECT_DICT, 0, error);

  return cell != 0 ? ferry_cell_payload (cell) : 0;
}

/* By the first one to come; the others wait for the lock of the segment. */
static gboolean
format (FerryStore *self, GError **error)
{
  FerryStoreHeader *header = self->header;
  FerryRef refs[3];

  header->magic = FERRY_STORE_MAGIC;
  header->major = FERRY_STORE_MAJOR;
  header->minor = FERRY_STORE_MINOR;
  header->data_size = self->data_size;
  header->max_bytes = self->max_bytes;
  header->n_spans = (self->data_size - 2 * FERRY_STORE_OFFSET_SPANS) / (FERRY_STORE_SPAN_SIZE + 64);
  header->heap_offset = (FERRY_STORE_OFFSET_SPANS + header->n_spans * 64 + FERRY_STORE_OFFSET_SPANS - 1)
                        & ~(FERRY_STORE_OFFSET_SPANS - 1);
  header->n_spans = MIN (header->n_spans, (self->data_size - header->heap_offset) >> FERRY_STORE_SPAN_SHIFT);
  atomic_store_explicit (&header->heap_end, header->heap_offset, memory_order_relaxed);
  self->heap_offset = header->heap_offset;
  if (!ferry_store_heap_format (self, error) || !ferry_store_enter_slot (self, error))
    return FALSE;
  self->closed = FALSE;
  if (!ferry_store_begin (self, error))
    return FALSE;
  for (guint i = 0; i < G_N_ELEMENTS (refs); i++)
    {
      refs[i] = new_root (self, error);
      if (refs[i] == 0)
        {
          ferry_store_end (self);
          return FALSE;
        }
    }
  atomic_store_explicit (&header->root, refs[0], memory_order_relaxed);
  atomic_store_explicit (&header->shapes, refs[1], memory_order_relaxed);
  atomic_store_explicit (&header->tickets, refs[2], memory_order_relaxed);
  ferry_store_end (self);
  atomic_store_explicit (&header->ready, 1, memory_order_release);
  return TRUE;
}

static gboolean
join (FerryStore *self, GError **error)
{
  FerryStoreHeader *header = self->header;

  if (header->magic != FERRY_STORE_MAGIC)
    return ferry_store_set_corrupt (self, "it does not begin with the mark of a store", error);
  if (header->major != FERRY_STORE_MAJOR)
    {
      g_set_error (
          error, FERRY_ERROR, FERRY_ERROR_VERSION,
          "%s: it has layout %u.%u, this library knows layout %u.x; use the same version of Ferry on all sides",
          self->label, header->major, header->minor, FERRY_STORE_MAJOR);
      return FALSE;
    }
  self->heap_offset = header->heap_offset;
  if (header->data_size != self->data_size || self->heap_offset % FERRY_STORE_SPAN_SIZE != 0
      || self->heap_offset < FERRY_STORE_OFFSET_SPANS || self->heap_offset >= self->data_size
      || header->n_spans > (self->data_size - self->heap_offset) >> FERRY_STORE_SPAN_SHIFT
      || header->n_spans > (self->heap_offset - FERRY_STORE_OFFSET_SPANS) / 64)
    return ferry_store_set_corrupt (self, "its sizes contradict each other", error);
  if (!ferry_store_enter_slot (self, error))
    return FALSE;
  self->closed = FALSE;
  return TRUE;
}

static gboolean
enter (FerryStore *self, GError **error)
{
  FerrySegment *segment = self->segment;
  gboolean ok;

  self->data_size = segment->data_size;
  self->max_bytes = segment->max_bytes;
  self->base = segment->klass->map (self->transport, FERRY_SEGMENT_AREA_DATA, 0, self->data_size, TRUE, error);
  if (self->base == NULL)
    return FALSE;
  self->header = (FerryStoreHeader *) (void *) self->base;
  self->slots = (FerryStoreSlot *) (void *) (self->base + FERRY_STORE_OFFSET_SLOTS);
  atomic_store_explicit (&self->fork_generation, ferry_fork_generation, memory_order_release);
  atomic_store_explicit (&self->slot_generation, ferry_fork_generation, memory_order_release);
  if (!ferry_segment_lock (segment, error))
    return FALSE;
  ok = commit (self, 0, FERRY_STORE_OFFSET_SLOTS, error);
  if (ok && atomic_load_explicit (&self->header->ready, memory_order_acquire))
    ok = join (self, error);
  else if (ok)
    ok = format (self, error);
  segment->store = self;
  ferry_segment_unlock (segment);
  if (ok)
    ferry_segment_repair_dead (segment, G_USEC_PER_SEC);
  else
    {
      /* nothing to be left in good order */
      self->closed = TRUE;
      segment->store = NULL;
    }
  return ok;
}

static gboolean
apply (FerryChannelConfig *config, FerryTransport *transport, const FerryDescriptionProperty *property, GError **error)
{
  g_auto (GValue) value = G_VALUE_INIT;
  guint option = 0;

  while (option < N_OPTIONS && !g_str_equal (property->key, options[option]->name))
    option++;
  if (option < N_OPTIONS
      && !ferry_description_parse_value (g_type_name (FERRY_TYPE_STORE), options[option], property->value, &value,
                                         error))
    return FALSE;
  switch ((Option) option)
    {
    case OPTION_NAME:
      g_free (config->name);
      config->name = g_value_dup_string (&value);
      return TRUE;
    case OPTION_MAX_BYTES:
      config->max_bytes = g_value_get_uint64 (&value);
      return TRUE;
    case OPTION_OPEN_MODE:
      config->open_mode = g_value_get_enum (&value);
      return TRUE;
    case OPTION_GROUP:
      config->group = g_value_get_int64 (&value);
      return TRUE;
    case N_OPTIONS:
    default:
      break;
    }
  if (g_object_class_find_property (G_OBJECT_GET_CLASS (transport), property->key) != NULL)
    return ferry_description_set_property (G_OBJECT (transport), property->key, property->value, error);
  g_set_error (error, FERRY_ERROR, FERRY_ERROR_PARSE,
               "a store has no property '%s'; there are name, max-bytes, open-mode, group and those of its transport",
               property->key);
  return FALSE;
}

/**
 * ferry_store_open:
 * @description: what to open, such as `memfd name=lab max-bytes=1073741824`, or `auto name=lab open-mode=join`: a transport
 *   over mapped memory, `name` (1 to 200 bytes without `/`), `max-bytes` (bound of its memory; the default is half of the machine's), `open-mode` and
 *   `group` as of [class@Channel]
 * @cancellable: (nullable): to give up
 * @error: return location for an error
 *
 * Opens the store of that name; it is created when there is none (see `open-mode`). Without a name it is this process's and its fork
 * children's alone.
 *
 * Errors: %FERRY_ERROR_PARSE, %FERRY_ERROR_NO_SUCH_FEATURE, %FERRY_ERROR_PLUGIN, %FERRY_ERROR_INVALID_ARGUMENT,
 * %FERRY_ERROR_UNSUPPORTED (the transport has no mapped memory), %FERRY_ERROR_NOT_FOUND, %FERRY_ERROR_EXISTS,
 * %FERRY_ERROR_MISMATCH (the name is a channel's, or another bound was asked for), %FERRY_ERROR_PERMISSION, %FERRY_ERROR_NO_SPACE,
 * %FERRY_ERROR_CORRUPT, %FERRY_ERROR_VERSION, %FERRY_ERROR_TOO_MANY, %G_IO_ERROR_CANCELLED.
 *
 * Returns: (transfer full): a store
 *
 * Since: 1.0
 */
FerryStore *
ferry_store_open (const char *description, GCancellable *cancellable, GError **error)
{
  g_autoptr (FerryDescription) parsed = NULL;
  g_autoptr (FerryTransport) transport = NULL;
  g_autoptr (FerryChannelConfig) config = ferry_channel_config_new ();
  g_autoptr (FerryStore) self = NULL;
  guint64 asked;

  g_return_val_if_fail (description != NULL, NULL);
  g_return_val_if_fail (error == NULL || *error == NULL, NULL);

  parsed = ferry_description_parse (description, error);
  if (parsed == NULL)
    return NULL;
  self = g_object_new (FERRY_TYPE_STORE, NULL);
  transport = ferry_registry_create_transport (
      ferry_registry_get_default (), strcmp (parsed->transport, "auto") != 0 ? parsed->transport : NULL, error);
  if (transport == NULL)
    return NULL;
  if (!FERRY_IS_SEGMENT_TRANSPORT (transport))
    {
      g_set_error (
          error, FERRY_ERROR, FERRY_ERROR_UNSUPPORTED,
          "transport '%s' has no memory that can be mapped; a store needs one of those that have, such as memfd",
          parsed->transport);
      return NULL;
    }
  for (guint i = 0; i < parsed->channel_properties->len; i++)
    if (!apply (config, transport, g_ptr_array_index (parsed->channel_properties, i), error))
      return NULL;
  config->mode = FERRY_MODE_STORE;
  config->role = FERRY_ROLE_SENDER;
  config->capacity = 1;
  asked = config->max_bytes;
  if (!ferry_transport_open (transport, config, cancellable, error))
    return NULL;

  self->transport = g_object_ref (FERRY_SEGMENT_TRANSPORT (transport));
  self->segment = ferry_segment_transport_get_segment (self->transport);
  self->description = g_strdup (description);
  self->name = g_strdup (config->name);
  g_free (self->label);
  self->label = self->name != NULL ? g_strdup_printf ("store '%s'", self->name) : g_strdup ("anonymous store");
  if (asked != 0 && asked != self->segment->max_bytes)
    {
      g_set_error (error, FERRY_ERROR, FERRY_ERROR_MISMATCH,
                   "%s exists with max-bytes=%" G_GUINT64_FORMAT ", asked for was %" G_GUINT64_FORMAT
                   "; leave it out to join with what the store has, or use another name",
                   self->label, self->segment->max_bytes, asked);
      ferry_transport_close (transport, NULL);
      return NULL;
    }
  if (!enter (self, error))
    {
      ferry_transport_close (transport, NULL);
      return NULL;
    }
  list_open (self);
  return g_steal_pointer (&self);
}

/**
 * ferry_store_close:
 * @self: a store
 *
 * Leaves the store: what this process holds is given back, an unfinished transaction is rolled back. Addresses of arrays stay good
 * until the object itself is gone. With the last one to leave, the store is gone. Calling it again does nothing.
 *
 * Since: 1.0
 */
void
ferry_store_close (FerryStore *self)
{
  g_return_if_fail (FERRY_IS_STORE (self));
  unlist_open (self);
  if (self->closed)
    return;
  ferry_store_leave_slot (self);
  ferry_waiter_wake_self (self->segment);
  ferry_transport_close (FERRY_TRANSPORT (self->transport), NULL);
  self->segment->store = NULL;
  g_object_notify_by_pspec (G_OBJECT (self), properties[PROP_CLOSED]);
}

/**
 * ferry_store_get_name: (get-property name)
 * @self: a store
 *
 * Tells the name of the store.
 *
 * Returns: (nullable): its name; %NULL: anonymous
 *
 * Since: 1.0
 */
const char *
ferry_store_get_name (FerryStore *self)
{
  g_return_val_if_fail (FERRY_IS_STORE (self), NULL);
  return self->name;
}

/**
 * ferry_store_get_max_bytes: (get-property max-bytes)
 * @self: a store
 *
 * Tells the bound that the store was created with.
 *
 * Returns: the bound of its memory in bytes
 *
 * Since: 1.0
 */
guint64
ferry_store_get_max_bytes (FerryStore *self)
{
  g_return_val_if_fail (FERRY_IS_STORE (self), 0);
  return self->max_bytes;
}

/**
 * ferry_store_get_identity:
 * @self: a store
 * @identity: (out caller-allocates) (array fixed-size=16): 16 bytes that no other store has
 *
 * Tells two stores of the same name apart.
 *
 * Since: 1.0
 */
void
ferry_store_get_identity (FerryStore *self, guint8 identity[16])
{
  g_return_if_fail (FERRY_IS_STORE (self));
  if (self->segment != NULL)
    memcpy (identity, self->segment->identity, sizeof self->segment->identity);
  else
    memset (identity, 0, sizeof self->segment->identity);
}

/**
 * ferry_store_get_root: (skip)
 * @self: a store
 *
 * Tells where the root mapping is.
 *
 * Returns: the root mapping, a dict of str to SLOT; held by the store
 *
 * Since: 1.0
 */
FerryRef
ferry_store_get_root (FerryStore *self)
{
  g_return_val_if_fail (FERRY_IS_STORE (self), 0);
  return self->header != NULL ? atomic_load_explicit (&self->header->root, memory_order_acquire) : 0;
}

/* ---- changes ---- */

/**
 * ferry_store_watch:
 * @self: a store
 *
 * Counts changes.
 *
 * Returns: a number that grows with every change of anything in the store, for ferry_store_wait_change() and
 *   ferry_store_check()
 *
 * Since: 1.0
 */
guint64
ferry_store_watch (FerryStore *self)
{
  guint64 sum = 0;

  g_return_val_if_fail (FERRY_IS_STORE (self), 0);
  if (self->header == NULL)
    return 0;
  for (guint id = 0; id < ferry_segment_n_records (self->segment); id++)
    if (ferry_store_slot_ready (self, id))
      sum += atomic_load_explicit (&self->slots[id].changes, memory_order_acquire);
  return sum;
}

static gboolean
check_open (FerryStore *self, GError **error)
{
  if (!self->closed && !ferry_store_has_joined (self))
    {
      if (!ferry_store_begin (self, error))
        return FALSE;
      ferry_store_end (self);
    }
  if (!self->closed)
    return TRUE;
  g_set_error (error, FERRY_ERROR, FERRY_ERROR_CLOSED, "%s is closed; open it anew", self->label);
  return FALSE;
}

/* Everybody who changed something before, without a fence, is seen from now on, or sees that we are about to sleep. */
static gboolean
pass_fences (FerryStore *self)
{
  return atomic_load_explicit (&self->header->n_unregistered, memory_order_seq_cst) == 0
         && syscall (SYS_membarrier, MEMBARRIER_CMD_GLOBAL_EXPEDITED, 0, 0) == 0;
}

static void
cancelled_cb (GCancellable *cancellable, gpointer user_data)
{
  ferry_waiter_wake_self (user_data);
}

/**
 * ferry_store_wait_change:
 * @self: a store
 * @seen: (inout): what ferry_store_watch() or an earlier call gave; the new number when this returns %TRUE
 * @timeout: how long to wait, in microseconds; negative: for ever
 * @cancellable: (nullable): to give up
 * @error: return location for an error
 *
 * Waits until anything in the store has changed since @seen. The caller looks whether it is what it waits for, and
 * comes again. May be called by several threads.
 *
 * Errors: %FERRY_ERROR_TIMED_OUT, %FERRY_ERROR_CLOSED, %G_IO_ERROR_CANCELLED.
 *
 * Returns: %TRUE: there was a change
 *
 * Since: 1.0
 */
gboolean
ferry_store_wait_change (FerryStore *self, guint64 *seen, gint64 timeout, GCancellable *cancellable, GError **error)
{
  gint64 started = ferry_waiter_now ();
  gint64 deadline = timeout < 0 || timeout > (G_MAXINT64 - started) / 1000 ? -1 : started + timeout * 1000;
  gulong handler = 0;
  gboolean changed = FALSE;

  g_return_val_if_fail (FERRY_IS_STORE (self), FALSE);
  g_return_val_if_fail (seen != NULL, FALSE);
  if (!check_open (self, error))
    return FALSE;
  if (cancellable != NULL)
    handler = g_cancellable_connect (cancellable, G_CALLBACK (cancelled_cb), self->segment, NULL);
  for (;;)
    {
      guint64 now = ferry_store_watch (self);
      gint64 until = deadline;
      guint32 wake;

      if (now != *seen)
        {
          *seen = now;
          changed = TRUE;
          break;
        }
      if (!check_open (self, error) || g_cancellable_set_error_if_cancelled (cancellable, error))
        break;
      if (deadline >= 0 && ferry_waiter_now () >= deadline)
        {
          g_set_error (error, FERRY_ERROR, FERRY_ERROR_TIMED_OUT, "%s: nothing changed within %g s", self->label,
                       (double) timeout / G_USEC_PER_SEC);
          break;
        }
      wake = ferry_waiter_prepare (self->segment, FERRY_SIDE_RX);
      if (!pass_fences (self))
        {
          gint64 blind = ferry_waiter_now () + BLIND_SLEEP_NS;

          until = deadline < 0 ? blind : MIN (deadline, blind);
        }
      if (ferry_store_watch (self) == *seen && !self->closed && !g_cancellable_is_cancelled (cancellable))
        ferry_waiter_sleep (self->segment, wake, until, TRUE);
      ferry_waiter_finish (self->segment, FERRY_SIDE_RX);
      ferry_waiter_upkeep (self->segment, FALSE);
    }
  if (handler != 0)
    g_cancellable_disconnect (cancellable, handler);
  return changed;
}

/**
 * ferry_store_get_fd:
 * @self: a store
 * @error: return location for an error
 *
 * Makes a descriptor for main loops.
 *
 * Returns: a descriptor to poll for reading: ready when something may have changed since ferry_store_check() was called last,
 *   which has to be called first, and after each time. The store's: not to be read or closed. -1 on error
 *
 * Since: 1.0
 */
int
ferry_store_get_fd (FerryStore *self, GError **error)
{
  g_return_val_if_fail (FERRY_IS_STORE (self), -1);
  if (!check_open (self, error))
    return -1;
  return ferry_waiter_get_fd (self->segment, error);
}

/**
 * ferry_store_check:
 * @self: a store whose descriptor is polled
 * @seen: (inout): as for ferry_store_wait_change()
 *
 * Whether anything has changed since @seen; if not, the descriptor becomes ready when it does.
 *
 * Returns: %TRUE: there was a change
 *
 * Since: 1.0
 */
gboolean
ferry_store_check (FerryStore *self, guint64 *seen)
{
  guint64 now;

  g_return_val_if_fail (FERRY_IS_STORE (self), FALSE);
  g_return_val_if_fail (seen != NULL, FALSE);
  if (!check_open (self, NULL))
    return FALSE;
  ferry_waiter_drain (self->segment);
  now = ferry_store_watch (self);
  if (now == *seen)
    {
      /* its timer makes up for whoever could not be made to pass a fence */
      ferry_waiter_arm (self->segment, FERRY_SIDE_RX);
      pass_fences (self);
      now = ferry_store_watch (self);
      if (now != *seen)
        ferry_waiter_disarm (self->segment, FERRY_SIDE_RX);
    }
  if (now == *seen)
    return FALSE;
  *seen = now;
  return TRUE;
}

/* ---- upkeep ---- */

static gboolean
hold_still (FerryStore *self, gboolean (*func) (FerryStore *self, GError **error), GPtrArray *survey, const char *what,
            gint64 patience, GError **error)
{
  gboolean ok;

  if (!check_open (self, error))
    return FALSE;
  if (ferry_store_in_transaction (self))
    {
      g_set_error (error, FERRY_ERROR, FERRY_ERROR_INVALID_ARGUMENT,
                   "%s: %s can't be made within a transaction; commit it first", self->label, what);
      return FALSE;
    }
  ferry_segment_repair_dead (self->segment, MIN (patience, G_USEC_PER_SEC));
  if (!ferry_store_take_gate (self, FERRY_GATE_COLLECTING, patience, NULL, error))
    return FALSE;
  ok = ferry_store_begin (self, error);
  if (ok)
    {
      ok = (survey == NULL || ferry_store_tickets_sweep (self, survey, error)) && func (self, error);
      ferry_store_end (self);
    }
  ferry_store_leave_gate (self);
  return ok;
}

/* Waits no longer than @patience, in microseconds, for those who are inside of a stretch of work. */
gboolean
ferry_store_collect_heap (FerryStore *self, gint64 patience, GError **error)
{
  return hold_still (self, ferry_store_collect_held, NULL, "a collection", patience, error);
}

/**
 * ferry_store_collect:
 * @self: a store, not in a transaction
 * @error: return location for an error
 *
 * Frees what only refers to itself (cycles), what processes that died left, and what travelled in channels that are gone or in messages
 * that were dropped. Holds the store meanwhile, some 50 ns for each
 * object.
 *
 * Errors: %FERRY_ERROR_TIMED_OUT (somebody is stopped in the middle of a change), %FERRY_ERROR_CLOSED, %FERRY_ERROR_INVALID_ARGUMENT, %FERRY_ERROR_CORRUPT.
 *
 * Returns: %TRUE on success
 *
 * Since: 1.0
 */
gboolean
ferry_store_collect (FerryStore *self, GError **error)
{
  g_autoptr (GPtrArray) survey = NULL;

  g_return_val_if_fail (FERRY_IS_STORE (self), FALSE);
  if (!self->closed && !ferry_store_in_transaction (self))
    survey = ferry_store_tickets_survey (self);
  return hold_still (self, ferry_store_collect_held, survey, "a collection", FERRY_LOCK_PATIENCE, error);
}

/**
 * ferry_store_verify:
 * @self: a store, not in a transaction
 * @error: return location for an error
 *
 * Checks that everything in the store fits together. Holds the store meanwhile.
 *
 * Errors: %FERRY_ERROR_CORRUPT says what does not; otherwise as of ferry_store_collect().
 *
 * Returns: %TRUE when all is well
 *
 * Since: 1.0
 */
gboolean
ferry_store_verify (FerryStore *self, GError **error)
{
  g_return_val_if_fail (FERRY_IS_STORE (self), FALSE);
  return hold_still (self, ferry_store_verify_held, NULL, "a check", FERRY_LOCK_PATIENCE, error);
}

/**
 * ferry_store_trim:
 * @self: a store
 *
 * Gives memory that is free back to the system.
 *
 * Returns: how many bytes
 *
 * Since: 1.0
 */
gsize
ferry_store_trim (FerryStore *self)
{
  gsize bytes = 0;

  g_return_val_if_fail (FERRY_IS_STORE (self), 0);
  if (ferry_store_begin (self, NULL))
    {
      bytes = ferry_store_heap_trim (self, 0);
      ferry_store_end (self);
    }
  return bytes;
}

/**
 * ferry_store_get_bytes_used:
 * @self: a store
 *
 * Tells how much memory values take.
 *
 * Returns: bytes in use by values, with the rounding up of blocks
 *
 * Since: 1.0
 */
guint64
ferry_store_get_bytes_used (FerryStore *self)
{
  g_return_val_if_fail (FERRY_IS_STORE (self), 0);
  return self->closed ? 0 : ferry_store_heap_bytes_used (self);
}

/**
 * ferry_store_get_bytes_committed:
 * @self: a store
 *
 * Tells how much memory the store takes.
 *
 * Returns: bytes of memory that its heap has taken from the system, at most max-bytes
 *
 * Since: 1.0
 */
guint64
ferry_store_get_bytes_committed (FerryStore *self)
{
  g_return_val_if_fail (FERRY_IS_STORE (self), 0);
  return self->closed ? 0 : ferry_store_heap_bytes_committed (self);
}
