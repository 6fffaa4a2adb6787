/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ferry-segment-transport.h"

#include "ferry-buffer-private.h"
#include "ferry-channel-config.h"
#include "ferry-copy-private.h"
#include "ferry-copy.h"
#include "ferry-error.h"
#include "ferry-ring-private.h"
#include "ferry-segment-private.h"
#include "ferry-store-ticket-private.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/futex.h>
#include <linux/membarrier.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/**
 * FerrySegmentTransport:
 *
 * The base of transports over mapped memory.
 *
 * It implements [iface@Transport]: rings, blocks, waiting, liveness and repair, as
 * `docs/memory-model.md` lays them down. A subclass says where the memory comes from:
 * [vfunc@SegmentTransport.reserve], [vfunc@SegmentTransport.share],
 * [vfunc@SegmentTransport.attach], [vfunc@SegmentTransport.withdraw]; the other
 * functions have defaults that work on file descriptors.
 *
 * Since: 1.0
 */

/* How often an opening tries again when the channel vanishes between finding and joining it. */
#define OPEN_TRIES (64)
/* After so many fruitless tries the name is taken by something that is not ours to wait for. */
#define OPEN_PAUSE_US (500)
/* Who creates a channel looks after the leftovers of killed programs no more often than this, and at so many channels. */
#define SWEEP_INTERVAL_US (5 * G_USEC_PER_SEC)
#define SWEEP_AT_ONCE (16)
/* A flush is told when the ring is empty; this often it looks by itself. */
#define FLUSH_SLICE_NS (5 * 1000 * 1000)
/* Copies from this size on ask, so many bytes before their end, for what comes next. That is 100 ns with what the hand-over does
 * first, as a cache miss takes. Bytes. */
#define COPY_PREFETCH_MIN (32 * 1024)
#define COPY_PREFETCH_BEFORE (2 * 1024)
/* A full ring has room again one slot at a time, and each look for it takes cache lines away from the receiver that makes the
 * room. So a sender first lets a part of the ring be taken: it pauses (some 50 ns each) once for so many slots, at most
 * so often, which is 10 us. Receivers take 40 ns for a message or longer, so they find most of the ring still full. */
#define ROOM_PAUSE_SHARE (5)
#define ROOM_PAUSES_MAX (200)
/* A sender that drops the oldest gives up after so many tries in a row without room. */
#define DROP_TRIES (1000)

typedef struct
{
  FerrySegment segment;
  FerryChannelConfig *config;
  int control_fd;
  int data_fd;
  guint64 data_offset; /* of the data area in its file */
  guint64 warm_bytes;
  gboolean join_late;
  gboolean opened;
  _Atomic guint64 sent_position; /* one past the last message sent */
  _Atomic guint32 outstanding;   /* buffers with blocks of ours */
  GMutex leave_mutex;
  gboolean left;

  /* what poll_events() has told */
  GMutex events_mutex;
  _Atomic guint32 seen_epoch;
  _Atomic gboolean seen_closed;
  guint64 seen_words[FERRY_MAX_PARTICIPANTS];
  gint64 seen_pids[FERRY_MAX_PARTICIPANTS];
} FerrySegmentTransportPrivate;

enum
{
  PROP_WARM_BYTES = 1,
  PROP_JOIN_LATE,
  N_PROPERTIES,
};

static GParamSpec *properties[N_PROPERTIES];

static void ferry_segment_transport_iface_init (FerryTransportInterface *iface);

G_DEFINE_ABSTRACT_TYPE_WITH_CODE (FerrySegmentTransport, ferry_segment_transport, G_TYPE_OBJECT,
                                  G_ADD_PRIVATE (FerrySegmentTransport)
                                      G_IMPLEMENT_INTERFACE (FERRY_TYPE_TRANSPORT, ferry_segment_transport_iface_init))

#define PRIVATE(self) ((FerrySegmentTransportPrivate *) ferry_segment_transport_get_instance_private (self))

/* The instance of an interface call; not checked again: the call came through its vtable. */
#define SELF(transport) ((FerrySegmentTransport *) (void *) (transport))

/* ---- defaults of the class: memory and futexes by descriptor ---- */

static int
area_fd (FerrySegmentTransport *self, FerrySegmentArea area)
{
  FerrySegmentTransportPrivate *priv = PRIVATE (self);

  return area == FERRY_SEGMENT_AREA_CONTROL ? priv->control_fd : priv->data_fd;
}

static off_t
area_offset (FerrySegmentTransport *self, FerrySegmentArea area, guint64 offset)
{
  return (off_t) (offset + (area == FERRY_SEGMENT_AREA_DATA ? PRIVATE (self)->data_offset : 0));
}

static gboolean
ferry_segment_transport_default_commit (FerrySegmentTransport *self, FerrySegmentArea area, guint64 offset,
                                        guint64 size, GError **error)
{
  int result;

  do
    result = fallocate (area_fd (self, area), 0, area_offset (self, area, offset), (off_t) size);
  while (result != 0 && errno == EINTR);
  if (result != 0)
    {
      g_set_error (error, FERRY_ERROR, errno == ENOSPC || errno == ENOMEM ? FERRY_ERROR_NO_SPACE : FERRY_ERROR_FAILED,
                   "%s: can't get %" G_GUINT64_FORMAT
                   " more bytes of shared memory: %s; receive or release messages, set max-bytes lower, mount a larger "
                   "tmpfs, or use transport memfd, which no tmpfs bounds",
                   PRIVATE (self)->segment.label, size, g_strerror (errno));
      return FALSE;
    }
  return TRUE;
}

static gboolean
ferry_segment_transport_default_decommit (FerrySegmentTransport *self, FerrySegmentArea area, guint64 offset,
                                          guint64 size, GError **error)
{
  if (fallocate (area_fd (self, area), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, area_offset (self, area, offset),
                 (off_t) size)
      != 0)
    {
      g_set_error (error, FERRY_ERROR, FERRY_ERROR_FAILED, "%s: can't give memory back: %s",
                   PRIVATE (self)->segment.label, g_strerror (errno));
      return FALSE;
    }
  return TRUE;
}

static gpointer
ferry_segment_transport_default_map (FerrySegmentTransport *self, FerrySegmentArea area, guint64 offset, gsize size,
                                     gboolean writable, GError **error)
{
  gpointer address = mmap (NULL, size, PROT_READ | (writable ? PROT_WRITE : 0), MAP_SHARED | MAP_NORESERVE,
                           area_fd (self, area), area_offset (self, area, offset));

  if (address == MAP_FAILED)
    {
      g_set_error (error, FERRY_ERROR,
                   errno == EACCES || errno == EPERM ? FERRY_ERROR_PERMISSION : FERRY_ERROR_NO_SPACE,
                   "%s: can't map %" G_GSIZE_FORMAT
                   " bytes: %s; is the address space limited (ulimit -v), or are there too many mappings "
                   "(vm.max_map_count)?",
                   PRIVATE (self)->segment.label, size, g_strerror (errno));
      return NULL;
    }
  return address;
}

static void
ferry_segment_transport_default_unmap (FerrySegmentTransport *self, gpointer address, gsize size)
{
  munmap (address, size);
}

static gboolean
ferry_segment_transport_default_wait (FerrySegmentTransport *self, guint32 *word, guint32 expected, gint64 timeout)
{
  struct timespec span = { .tv_sec = timeout / G_USEC_PER_SEC, .tv_nsec = timeout % G_USEC_PER_SEC * 1000 };

  return syscall (SYS_futex, word, FUTEX_WAIT, expected, timeout < 0 ? NULL : &span, NULL, 0) == 0
         || errno != ETIMEDOUT;
}

static void
ferry_segment_transport_default_wake (FerrySegmentTransport *self, guint32 *word, guint n_waiters)
{
  syscall (SYS_futex, word, FUTEX_WAKE, (int) MIN (n_waiters, (guint) G_MAXINT), NULL, NULL, 0);
}

/* Private: whether its areas are mapped from descriptors, by the functions above. */
gboolean
ferry_segment_transport_maps_by_descriptor (FerrySegmentTransport *self)
{
  FerrySegmentTransportClass *klass = FERRY_SEGMENT_TRANSPORT_GET_CLASS (self);

  return klass->map == ferry_segment_transport_default_map && klass->unmap == ferry_segment_transport_default_unmap;
}

/* ---- for subclasses ---- */

/**
 * ferry_segment_transport_take_fds: (skip)
 * @self: a transport
 * @control_fd: descriptor of the control area, open for reading and writing
 * @data_fd: descriptor of the data area
 *
 * For subclasses, in [vfunc@SegmentTransport.reserve] and
 * [vfunc@SegmentTransport.attach]: the descriptors that the default functions work on. The base closes
 * them.
 *
 * Since: 1.0
 */
void
ferry_segment_transport_take_fds (FerrySegmentTransport *self, int control_fd, int data_fd)
{
  FerrySegmentTransportPrivate *priv;

  g_return_if_fail (FERRY_IS_SEGMENT_TRANSPORT (self));

  priv = PRIVATE (self);
  if (priv->control_fd >= 0 && priv->control_fd != control_fd)
    close (priv->control_fd);
  if (priv->data_fd >= 0 && priv->data_fd != data_fd)
    close (priv->data_fd);
  priv->control_fd = control_fd;
  priv->data_fd = data_fd;
}

/**
 * ferry_segment_transport_set_data_offset: (skip)
 * @self: a transport
 * @offset: bytes, a multiple of the page size
 *
 * For subclasses that keep both areas in one file: where the data area begins in the
 * file of the data descriptor. Called in [vfunc@SegmentTransport.reserve] and
 * [vfunc@SegmentTransport.attach].
 *
 * Since: 1.0
 */
void
ferry_segment_transport_set_data_offset (FerrySegmentTransport *self, guint64 offset)
{
  g_return_if_fail (FERRY_IS_SEGMENT_TRANSPORT (self));

  PRIVATE (self)->data_offset = offset;
  PRIVATE (self)->segment.data_offset = offset;
}

/**
 * ferry_segment_transport_get_control_fd:
 * @self: a transport
 *
 * The descriptor of the control area, for instance to hand an anonymous channel to
 * another process.
 *
 * Returns: a descriptor that belongs to @self, or -1
 *
 * Since: 1.0
 */
int
ferry_segment_transport_get_control_fd (FerrySegmentTransport *self)
{
  g_return_val_if_fail (FERRY_IS_SEGMENT_TRANSPORT (self), -1);

  return PRIVATE (self)->control_fd;
}

/**
 * ferry_segment_transport_get_data_fd:
 * @self: a transport
 *
 * The descriptor of the data area.
 *
 * Returns: a descriptor that belongs to @self, or -1
 *
 * Since: 1.0
 */
int
ferry_segment_transport_get_data_fd (FerrySegmentTransport *self)
{
  g_return_val_if_fail (FERRY_IS_SEGMENT_TRANSPORT (self), -1);

  return PRIVATE (self)->data_fd;
}

/**
 * ferry_segment_transport_read_control_size:
 * @control_fd: descriptor of a control area
 * @control_size: (out): bytes
 *
 * For subclasses that keep both areas in one file: what the header there says of the
 * size of the control area. It is not checked yet; the base does that afterwards.
 *
 * Returns: %FALSE when there is no header, or the size is no multiple of a page
 *
 * Since: 1.0
 */
gboolean
ferry_segment_transport_read_control_size (int control_fd, guint64 *control_size)
{
  FerrySegmentHeader header;

  if (pread (control_fd, &header, sizeof header, 0) != (gssize) sizeof header || header.control_size == 0
      || header.control_size % FERRY_OFFSET_PARTICIPANTS != 0 || header.control_size > G_MAXINT64)
    return FALSE;
  *control_size = header.control_size;
  return TRUE;
}

/**
 * ferry_segment_transport_wants_writable_data:
 * @control_fd: descriptor of a control area
 * @role: what the endpoint will be
 *
 * For subclasses, in [vfunc@SegmentTransport.attach] and where they hand
 * descriptors to peers: senders and work-queue receivers write the data area, nobody else does.
 *
 * Returns: whether the data area shall be open for writing
 *
 * Since: 1.0
 */
gboolean
ferry_segment_transport_wants_writable_data (int control_fd, FerryRole role)
{
  FerrySegmentHeader header;

  if (role != FERRY_ROLE_RECEIVER)
    return role == FERRY_ROLE_SENDER;
  return pread (control_fd, &header, sizeof header, 0) != (gssize) sizeof header || header.mode != FERRY_MODE_BROADCAST;
}

/* ---- opening ---- */

static void
ferry_segment_transport_reset (FerrySegmentTransport *self)
{
  FerrySegmentTransportPrivate *priv = PRIVATE (self);

  if (priv->segment.klass != NULL && priv->segment.klass->left != NULL && !priv->left)
    priv->segment.klass->left (self);
  ferry_segment_clear (&priv->segment);
  if (priv->control_fd >= 0)
    close (priv->control_fd);
  if (priv->data_fd >= 0)
    close (priv->data_fd);
  priv->control_fd = priv->data_fd = -1;
}

static void
ferry_segment_transport_begin (FerrySegmentTransport *self, const FerryChannelConfig *config)
{
  FerrySegmentTransportPrivate *priv = PRIVATE (self);

  ferry_segment_init (&priv->segment, self);
  priv->segment.name = g_strdup (config->name);
  if (config->name != NULL)
    priv->segment.label
        = g_strdup_printf ("%s '%s'", config->mode == FERRY_MODE_STORE ? "store" : "channel", config->name);
  else
    priv->segment.label = g_strdup (config->mode == FERRY_MODE_STORE ? "anonymous store" : "anonymous channel");
  priv->segment.wait_strategy = config->wait_strategy;
}

static gboolean
fd_is_writable (int fd)
{
  int flags = fcntl (fd, F_GETFL);

  return flags >= 0 && (flags & O_ACCMODE) == O_RDWR;
}

static gboolean
ferry_segment_transport_set_data_access (FerrySegmentTransport *self, FerryRole role, GError **error)
{
  FerrySegmentTransportPrivate *priv = PRIVATE (self);
  FerrySegment *segment = &priv->segment;
  gboolean wanted
      = role == FERRY_ROLE_SENDER || (role == FERRY_ROLE_RECEIVER && segment->mode == FERRY_MODE_WORK_QUEUE);

  segment->data_writable = wanted;
  if (wanted && !fd_is_writable (priv->data_fd))
    {
      g_set_error (
          error, FERRY_ERROR, FERRY_ERROR_PERMISSION,
          "%s: its memory may only be read here, and a %s writes; open it as a broadcast receiver or observer, "
          "or get a writable descriptor",
          segment->label, role == FERRY_ROLE_SENDER ? "sender" : "work-queue receiver");
      return FALSE;
    }
  return TRUE;
}

/* What a channel whose participants all died left is taken out of the way. TRUE when it was dead. */
static gboolean
ferry_segment_transport_withdraw_dead (FerrySegmentTransport *self, GCancellable *cancellable)
{
  FerrySegmentTransportPrivate *priv = PRIVATE (self);
  FerrySegment *segment = &priv->segment;
  gboolean dead = TRUE;
  gboolean withdrawn;

  if (!ferry_segment_join (segment, FERRY_ROLE_OBSERVER, &withdrawn, cancellable, NULL))
    return FALSE;
  if (!ferry_segment_lock_cancellable (segment, FERRY_LOCK_PATIENCE, cancellable, NULL))
    return FALSE;
  for (guint id = 0; id < ferry_segment_n_records (segment) && dead; id++)
    {
      guint64 word = atomic_load_explicit (&segment->records[id].word, memory_order_acquire);

      dead = ferry_record_state (word) == FERRY_RECORD_FREE || ferry_segment_is_dead (segment, id);
    }
  /* Also when it is marked already: who marked it may have died before the next step. */
  if (dead)
    {
      atomic_fetch_or_explicit (&segment->shared->flags, FERRY_SHARED_WITHDRAWN, memory_order_seq_cst);
      segment->klass->withdraw (self);
    }
  ferry_segment_unlock (segment);
  return dead;
}

static gboolean
ferry_segment_transport_create (FerrySegmentTransport *self, const FerryChannelConfig *config, GError **error)
{
  FerrySegmentTransportPrivate *priv = PRIVATE (self);
  FerrySegment *segment = &priv->segment;
  gboolean withdrawn;
  guint64 control_size;
  guint64 data_size;

  ferry_segment_measure (config, &control_size, &data_size);
  ferry_segment_transport_begin (self, config);
  if (!segment->klass->reserve (self, config, control_size, data_size, error)
      || !ferry_segment_format (segment, config, error)
      || !ferry_segment_transport_set_data_access (self, config->role, error)
      || !ferry_segment_join (segment, config->role, &withdrawn, NULL, error))
    return FALSE;
  /* Only anonymous channels: those that have a name are found by it. */
  segment->is_prepared
      = priv->warm_bytes > 0 && config->name == NULL && ferry_segment_transport_maps_by_descriptor (self);
  FERRY_STEP ("create-joined");
  if (config->name != NULL && !segment->klass->share (self, config, error))
    {
      /* not to be found by anybody: nothing to withdraw */
      segment->joined = FALSE;
      return FALSE;
    }
  FERRY_STEP ("create-shared");
  return TRUE;
}

/* @gone: it vanished between finding and joining. */
static gboolean
ferry_segment_transport_attach (FerrySegmentTransport *self, const FerryChannelConfig *config,
                                GCancellable *cancellable, gboolean *gone, GError **error)
{
  FerrySegmentTransportPrivate *priv = PRIVATE (self);
  FerrySegment *segment = &priv->segment;

  *gone = FALSE;
  ferry_segment_transport_begin (self, config);
  if (!segment->klass->attach (self, config, cancellable, error) || !ferry_segment_map (segment, error)
      || !ferry_segment_transport_set_data_access (self, config->role, error))
    return FALSE;
  if (config->role != FERRY_ROLE_OBSERVER && (segment->mode == FERRY_MODE_STORE) != (config->mode == FERRY_MODE_STORE))
    {
      g_set_error (
          error, FERRY_ERROR, FERRY_ERROR_MISMATCH, "'%s' is the name of a %s, asked for was a %s; choose another name",
          config->name != NULL ? config->name : "(anonymous)", segment->mode == FERRY_MODE_STORE ? "store" : "channel",
          segment->mode == FERRY_MODE_STORE ? "channel" : "store");
      return FALSE;
    }
  if (config->open_mode == FERRY_OPEN_MODE_CREATE)
    {
      *gone = ferry_segment_transport_withdraw_dead (self, cancellable);
      if (!*gone && !g_cancellable_set_error_if_cancelled (cancellable, error))
        g_set_error (error, FERRY_ERROR, FERRY_ERROR_EXISTS,
                     "%s exists already; choose another name, or join it with open-mode=join", segment->label);
      return FALSE;
    }
  if (priv->join_late && config->name == NULL && config->role != FERRY_ROLE_OBSERVER)
    {
      /* Nobody can take such a channel away meanwhile. */
      ferry_segment_postpone (segment, config->role);
      ferry_arena_map_warm (segment);
      ferry_segment_prepare (segment);
      return TRUE;
    }
  return ferry_segment_join (segment, config->role, gone, cancellable, error);
}

static void ferry_segment_transport_sweep_others (FerrySegmentTransport *self, const char *own_name);

static gboolean
ferry_segment_transport_open (FerryTransport *transport, FerryChannelConfig *config, GCancellable *cancellable,
                              GError **error)
{
  FerrySegmentTransport *self = SELF (transport);
  FerrySegmentTransportPrivate *priv = PRIVATE (self);
  FerrySegment *segment = &priv->segment;
  gboolean may_create = config->open_mode != FERRY_OPEN_MODE_JOIN && config->role != FERRY_ROLE_OBSERVER;

  if (priv->opened)
    {
      g_set_error (error, FERRY_ERROR, FERRY_ERROR_INVALID_ARGUMENT,
                   "%s is open already; one transport object is one "
                   "endpoint",
                   segment->label);
      return FALSE;
    }
  if (!ferry_channel_config_validate (config, error))
    return FALSE;

  for (guint i = 0; i < OPEN_TRIES; i++)
    {
      g_autoptr (GError) local = NULL;
      gboolean gone;

      if (g_cancellable_set_error_if_cancelled (cancellable, error))
        return FALSE;
      if (ferry_segment_transport_attach (self, config, cancellable, &gone, &local))
        {
          priv->opened = TRUE;
          break;
        }
      ferry_segment_transport_reset (self);
      if (gone)
        {
          if (i > 0)
            g_usleep (OPEN_PAUSE_US);
          continue;
        }
      if (!g_error_matches (local, FERRY_ERROR, FERRY_ERROR_NOT_FOUND) || !may_create)
        {
          g_propagate_error (error, g_steal_pointer (&local));
          return FALSE;
        }
      g_clear_error (&local);
      if (ferry_segment_transport_create (self, config, &local))
        {
          priv->opened = TRUE;
          ferry_segment_transport_sweep_others (self, config->name);
          break;
        }
      ferry_segment_transport_reset (self);
      /* somebody else was first: join that one */
      if (!g_error_matches (local, FERRY_ERROR, FERRY_ERROR_EXISTS))
        {
          g_propagate_error (error, g_steal_pointer (&local));
          return FALSE;
        }
      g_usleep (OPEN_PAUSE_US);
    }
  if (!priv->opened)
    {
      g_set_error (
          error, FERRY_ERROR, FERRY_ERROR_NOT_FOUND,
          "channel '%s' comes and goes, or something that is no channel has its name; ferry-clean removes what "
          "dead programs left",
          config->name != NULL ? config->name : "(anonymous)");
      return FALSE;
    }

  config->mode = segment->mode;
  config->capacity = segment->capacity;
  config->max_bytes = segment->max_bytes;
  config->history = segment->history;
  config->inline_size = (guint) segment->inline_max;
  priv->config = ferry_channel_config_copy (config);
  priv->seen_epoch = atomic_load_explicit (&segment->shared->epoch, memory_order_acquire) - 1;
  for (guint id = 0; id < ferry_segment_n_records (segment); id++)
    {
      guint64 word = atomic_load_explicit (&segment->records[id].word, memory_order_acquire);
      guint32 incarnation = ferry_record_incarnation (word);

      /* Those who are here already are told as joined, those who were here before not. */
      priv->seen_words[id] = ferry_record_word (
          ferry_record_state (word) == FERRY_RECORD_FREE ? incarnation : incarnation - 1, 0, FERRY_RECORD_FREE);
      priv->seen_pids[id] = 0;
    }
  return TRUE;
}

/* ---- state checks ---- */

static inline gboolean
ferry_segment_transport_usable (FerrySegmentTransport *self, FerryRole role, GError **error)
{
  FerrySegmentTransportPrivate *priv = PRIVATE (self);
  FerrySegment *segment = &priv->segment;

  if (G_LIKELY (priv->opened && segment->role == role && segment->fork_generation == ferry_fork_generation
                && !atomic_load_explicit (&segment->closed, memory_order_relaxed)))
    return TRUE;

  if (!priv->opened || atomic_load_explicit (&segment->closed, memory_order_relaxed))
    {
      g_set_error (error, FERRY_ERROR, FERRY_ERROR_CLOSED, "%s: this endpoint is closed; open a new one",
                   segment->label != NULL ? segment->label : "channel");
      return FALSE;
    }
  if (segment->role != role)
    {
      g_set_error (error, FERRY_ERROR, FERRY_ERROR_UNSUPPORTED, "%s: only a %s can do that; open another endpoint",
                   segment->label, role == FERRY_ROLE_SENDER ? "sender" : "receiver");
      return FALSE;
    }
  /* a fork child, at its first use */
  if (segment->klass->forked != NULL)
    segment->klass->forked (self);
  atomic_store_explicit (&priv->outstanding, 0, memory_order_relaxed); /* the parent's views are the parent's */
  return ferry_segment_refork (segment, error);
}

static void ferry_segment_transport_leave_if_done (FerrySegmentTransport *self);

/* The end of a call by the thread that came first. */
static inline void
ferry_segment_transport_exit_first (FerrySegmentTransport *self, FerrySegment *segment)
{
  atomic_store_explicit (&segment->inside_first,
                         atomic_load_explicit (&segment->inside_first, memory_order_relaxed) - 1, memory_order_release);
  atomic_signal_fence (memory_order_seq_cst);
  if (G_UNLIKELY (atomic_load_explicit (&segment->closed, memory_order_acquire)))
    ferry_segment_transport_leave_if_done (self);
}

/* The end of what ferry_segment_transport_enter() began. */
static inline void
ferry_segment_transport_exit (FerrySegmentTransport *self)
{
  FerrySegment *segment = &PRIVATE (self)->segment;

  if (G_LIKELY (segment->first_thread == &ferry_thread_mark))
    {
      ferry_segment_transport_exit_first (self, segment);
      return;
    }
  atomic_fetch_sub_explicit (&segment->inside_others, 1, memory_order_seq_cst);
  if (G_UNLIKELY (atomic_load_explicit (&segment->closed, memory_order_acquire)))
    ferry_segment_transport_leave_if_done (self);
}

/* A call in progress: the endpoint does not leave meanwhile, whoever closes it. The thread that came first counts
 * with plain stores; who closes in another thread makes them visible with membarrier(2). */
static inline gboolean
ferry_segment_transport_enter (FerrySegmentTransport *self, FerryRole role, GError **error)
{
  FerrySegment *segment = &PRIVATE (self)->segment;
  gboolean ok;

  /* before it is counted: it may begin to count anew in a fork child */
  if (G_UNLIKELY (!ferry_segment_transport_usable (self, role, error)))
    return FALSE;
  if (G_UNLIKELY (segment->first_thread == NULL))
    g_atomic_pointer_compare_and_exchange (&segment->first_thread, NULL, (gpointer) &ferry_thread_mark);
  if (G_LIKELY (segment->first_thread == &ferry_thread_mark))
    atomic_store_explicit (&segment->inside_first,
                           atomic_load_explicit (&segment->inside_first, memory_order_relaxed) + 1,
                           memory_order_relaxed);
  else
    atomic_fetch_add_explicit (&segment->inside_others, 1, memory_order_seq_cst);
  atomic_signal_fence (memory_order_seq_cst);

  ok = !atomic_load_explicit (&segment->closed, memory_order_acquire);
  if (G_UNLIKELY (!ok))
    {
      g_set_error (error, FERRY_ERROR, FERRY_ERROR_CLOSED, "%s: this endpoint is closed; open a new one",
                   segment->label);
      ferry_segment_transport_exit (self);
    }
  return ok;
}

/* The same as ferry_segment_transport_enter() for the thread that came first, in the usual case. FALSE: nothing was done. */
static inline gboolean
ferry_segment_transport_enter_first (FerrySegmentTransport *self, FerryRole role)
{
  FerrySegmentTransportPrivate *priv = PRIVATE (self);
  FerrySegment *segment = &priv->segment;

  if (!priv->opened || segment->role != role || segment->fork_generation != ferry_fork_generation
      || segment->first_thread != &ferry_thread_mark)
    return FALSE;
  atomic_store_explicit (&segment->inside_first,
                         atomic_load_explicit (&segment->inside_first, memory_order_relaxed) + 1, memory_order_relaxed);
  atomic_signal_fence (memory_order_seq_cst);
  if (G_LIKELY (!atomic_load_explicit (&segment->closed, memory_order_acquire)))
    return TRUE;
  ferry_segment_transport_exit_first (self, segment);
  return FALSE;
}

static gboolean
set_error_closed (FerrySegment *segment, GError **error)
{
  g_set_error (error, FERRY_ERROR, FERRY_ERROR_CLOSED, "%s was %s", segment->label,
               atomic_load_explicit (&segment->closed, memory_order_relaxed) ? "closed while waiting"
                                                                             : "shut down by a participant");
  return FALSE;
}

static inline gboolean
is_shut_down (FerrySegment *segment)
{
  return (atomic_load_explicit (&segment->shared->flags, memory_order_seq_cst) & FERRY_SHARED_CLOSED) != 0;
}

static void
cancelled_cb (GCancellable *cancellable, gpointer user_data)
{
  ferry_waiter_wake_self (user_data);
}

static gint64
deadline_for (gint64 started, gint64 timeout)
{
  if (timeout < 0 || timeout > (G_MAXINT64 - started) / 1000)
    return -1;
  return started + timeout * 1000;
}

static gboolean
set_error_timed_out (FerrySegment *segment, gint64 timeout, const char *what, GError **error)
{
  g_set_error (error, FERRY_ERROR, FERRY_ERROR_TIMED_OUT, "%s: %s within %g s", segment->label, what,
               (double) timeout / G_USEC_PER_SEC);
  return FALSE;
}

/* ---- taking ---- */

static inline FerryBuffer *
ferry_segment_transport_wrap (FerrySegmentTransport *self, FerryBuffer *buffer, const FerryMessage *message,
                              GError **error)
{
  FerrySegmentTransportPrivate *priv = PRIVATE (self);
  FerrySegment *segment = &priv->segment;

  buffer->sequence = message->sequence;
  buffer->timestamp = message->timestamp;
  buffer->sender = message->sender;
  buffer->wire_name = message->wire_name;
  buffer->wire_version = message->wire_version;
  if (message->block == FERRY_NO_BLOCK)
    {
      buffer->flags |= FERRY_BUFFER_RECEIVED | (segment->mode == FERRY_MODE_WORK_QUEUE ? FERRY_BUFFER_WRITABLE : 0);
    }
  else
    {
      guint8 *data = ferry_arena_map_block (segment, message->block, error);

      if (data == NULL)
        {
          if (segment->mode == FERRY_MODE_BROADCAST)
            ferry_arena_unhold (segment, message->block, segment->id);
          else
            ferry_arena_free (segment, message->block);
          ferry_buffer_unref (buffer);
          return NULL;
        }
      buffer->data = data;
      buffer->flags |= FERRY_BUFFER_RECEIVED | (segment->data_writable ? FERRY_BUFFER_WRITABLE : 0);
      buffer->token = message->block;
      buffer->fork_generation = ferry_fork_generation;
      buffer->transport = FERRY_TRANSPORT (g_object_ref (self));
      atomic_fetch_add_explicit (&priv->outstanding, 1, memory_order_relaxed);
    }
  buffer->size = buffer->capacity = message->size;
  ferry_segment_count (segment, message->size);
  return buffer;
}

static inline gboolean
nothing (FerryRingResult result)
{
  return result == FERRY_RING_EMPTY || result == FERRY_RING_PENDING;
}

static inline FerryRingResult
ferry_segment_transport_try_take (FerrySegment *segment, FerryBuffer *buffer, FerryMessage *message)
{
  guint64 dropped = 0;
  FerryRingResult result = ferry_ring_take (segment, message, buffer->data, &dropped);

  if (G_UNLIKELY (dropped > 0))
    atomic_fetch_add_explicit (&segment->me->dropped, dropped, memory_order_relaxed);
  return result;
}

/* Waits for a message. The result is OK or CORRUPT; EMPTY: @error says why there will be none. */
static FerryRingResult
ferry_segment_transport_wait_take (FerrySegmentTransport *self, FerryBuffer *buffer, FerryMessage *message,
                                   gint64 timeout, GCancellable *cancellable, GError **error)
{
  FerrySegment *segment = &PRIVATE (self)->segment;
  gint64 started = ferry_waiter_now ();
  gint64 deadline = deadline_for (started, timeout);
  gulong cancel_id = 0;
  FerryRingResult result = FERRY_RING_EMPTY;
  gboolean slept = FALSE;
  gboolean first = TRUE;
  guint looks = 0;

  if (timeout != FERRY_NO_WAIT)
    atomic_fetch_add_explicit (&segment->me->waits, 1, memory_order_relaxed);

  for (;;)
    {
      gboolean over = FALSE;

      /* What makes the waiting pointless is looked at before the ring, so that what was sent before it is still
       * received. */
      if (atomic_load_explicit (&segment->closed, memory_order_acquire))
        {
          set_error_closed (segment, error);
          break;
        }
      if (is_shut_down (segment) || ferry_segment_ended (segment))
        over = TRUE;

      /* The caller has just looked. */
      if (!first || over)
        result = ferry_segment_transport_try_take (segment, buffer, message);
      first = FALSE;
      if (!nothing (result))
        break;
      /* Who never sleeps must still find out who died, and get what that one had in hand. */
      if (timeout == FERRY_NO_WAIT)
        {
          ferry_waiter_upkeep (segment, FALSE);
          result = ferry_segment_transport_try_take (segment, buffer, message);
          if (!nothing (result))
            break;
        }
      /* What is in somebody's hands may come back: that is not the end yet. */
      if (over && result == FERRY_RING_EMPTY)
        {
          if (is_shut_down (segment))
            set_error_closed (segment, error);
          else
            g_set_error (error, FERRY_ERROR, FERRY_ERROR_END_OF_STREAM,
                         "%s: every sender has ended its stream and all messages are taken", segment->label);
          break;
        }
      if (timeout == FERRY_NO_WAIT)
        {
          g_set_error (error, FERRY_ERROR, FERRY_ERROR_EMPTY, "%s: no message waits", segment->label);
          break;
        }
      if (deadline >= 0 && ferry_waiter_now () >= deadline)
        {
          set_error_timed_out (segment, timeout, "no message came", error);
          break;
        }
      if (g_cancellable_set_error_if_cancelled (cancellable, error))
        break;

      if (ferry_waiter_spin (segment, ferry_ring_spin_ready, &looks, slept ? ferry_waiter_now () : started, deadline))
        {
          /* Who waits for an answer is in haste; at the heels of a stream it is better to be slow. */
          if (segment->mode == FERRY_MODE_WORK_QUEUE
              && atomic_load_explicit (&segment->backoff, memory_order_relaxed) == 0
              && ferry_ring_try_take (segment, buffer, message) != NULL)
            result = FERRY_RING_OK;
          else
            result = ferry_segment_transport_try_take (segment, buffer, message);
          if (!nothing (result))
            break;
        }
      if (segment->wait_strategy == FERRY_WAIT_STRATEGY_SPIN)
        {
          ferry_waiter_upkeep (segment, FALSE);
          continue;
        }

      if (cancellable != NULL && cancel_id == 0)
        {
          cancel_id = g_cancellable_connect (cancellable, G_CALLBACK (cancelled_cb), segment, NULL);
          if (g_cancellable_set_error_if_cancelled (cancellable, error))
            break;
        }
      guint32 seen = ferry_waiter_prepare (segment, FERRY_SIDE_RX);
      result = ferry_segment_transport_try_take (segment, buffer, message);
      if (nothing (result) && !atomic_load_explicit (&segment->closed, memory_order_seq_cst) && !is_shut_down (segment)
          && !ferry_segment_ended (segment) && !g_cancellable_is_cancelled (cancellable))
        {
          ferry_waiter_sleep (segment, seen, deadline, result == FERRY_RING_EMPTY);
          atomic_store_explicit (&segment->answer_delay, 0, memory_order_relaxed);
          slept = TRUE;
        }
      ferry_waiter_finish (segment, FERRY_SIDE_RX);
      if (!nothing (result))
        break;
      result = ferry_segment_transport_try_take (segment, buffer, message);
      if (!nothing (result))
        break;
      ferry_waiter_upkeep (segment, FALSE);
    }

  if (cancel_id != 0)
    g_cancellable_disconnect (cancellable, cancel_id);
  ferry_waiter_learn_since (segment, started, slept);
  /* The wake-up that was ours may have been meant for another message as well: pass it on. */
  if (segment->mode == FERRY_MODE_WORK_QUEUE && ferry_waiter_any (segment->rx_sleeping)
      && ferry_ring_maybe_ready (segment))
    ferry_waiter_wake_one (segment, FERRY_SIDE_RX);
  return result;
}

static FerryBuffer *
do_take (FerryTransport *transport, gint64 timeout, GCancellable *cancellable, GError **error)
{
  FerrySegmentTransport *self = SELF (transport);
  FerrySegment *segment = &PRIVATE (self)->segment;
  FerryBuffer *buffer;
  FerryMessage message;
  FerryRingResult result;


  buffer = ferry_buffer_alloc (segment->inline_max);
  result = ferry_segment_transport_try_take (segment, buffer, &message);
  if (G_UNLIKELY (nothing (result)))
    result = ferry_segment_transport_wait_take (self, buffer, &message, timeout, cancellable, error);
  if (G_LIKELY (result == FERRY_RING_OK))
    return ferry_segment_transport_wrap (self, buffer, &message, error);

  ferry_buffer_unref (buffer);
  if (result == FERRY_RING_CORRUPT)
    ferry_segment_set_corrupt (segment, error, "a slot of the ring or a block has an impossible value");
  return NULL;
}

static void
ferry_segment_transport_leave_if_done (FerrySegmentTransport *self)
{
  FerrySegmentTransportPrivate *priv = PRIVATE (self);
  FerrySegment *segment = &priv->segment;

  g_mutex_lock (&priv->leave_mutex);
  if (priv->opened && !priv->left && atomic_load_explicit (&segment->closed, memory_order_seq_cst)
      && atomic_load_explicit (&segment->inside_first, memory_order_seq_cst) == 0
      && atomic_load_explicit (&segment->inside_others, memory_order_seq_cst) == 0
      && atomic_load_explicit (&priv->outstanding, memory_order_seq_cst) == 0)
    {
      priv->left = TRUE;
      ferry_segment_leave (segment, FALSE);
      if (segment->klass->left != NULL)
        segment->klass->left (self);
    }
  g_mutex_unlock (&priv->leave_mutex);
}

static gboolean
ferry_segment_transport_privatize (FerryTransport *transport, FerryBuffer *buffer, gsize offset, gsize size)
{
  if (buffer->fork_generation != ferry_fork_generation
      || !ferry_segment_privatize (&PRIVATE (SELF (transport))->segment, (guint32) buffer->token, buffer->data,
                                   buffer->size, offset, size))
    return FALSE;
  buffer->flags |= FERRY_BUFFER_PRIVATE;
  return TRUE;
}

static void
ferry_segment_transport_release (FerryTransport *transport, FerryBuffer *buffer)
{
  FerrySegmentTransport *self = SELF (transport);
  FerrySegmentTransportPrivate *priv = PRIVATE (self);
  FerrySegment *segment = &priv->segment;
  FerryPublishResult published = FERRY_PUBLISH_OK;

  if (G_UNLIKELY (buffer->flags & FERRY_BUFFER_PRIVATE))
    published = buffer->fork_generation == ferry_fork_generation
                    ? ferry_segment_publish (segment, (guint32) buffer->token)
                    : FERRY_PUBLISH_DETACHED;
  if (G_UNLIKELY (published == FERRY_PUBLISH_DETACHED))
    ferry_segment_forget_private (segment, buffer->data, buffer->size);
  /* a fork child's copy of its parent's view: not the child's to return */
  if (buffer->fork_generation != ferry_fork_generation || published == FERRY_PUBLISH_DETACHED)
    return;
  if (G_UNLIKELY (published == FERRY_PUBLISH_FAILED))
    g_warning ("%s: %" G_GSIZE_FORMAT " bytes of its memory stay with this process until the endpoint is closed: %s",
               segment->label, buffer->size, g_strerror (errno));
  else if (!(buffer->flags & FERRY_BUFFER_CONSUMED))
    {
      if ((buffer->flags & FERRY_BUFFER_RECEIVED) && segment->mode == FERRY_MODE_BROADCAST)
        ferry_arena_unhold (segment, (guint32) buffer->token, segment->id);
      else
        ferry_arena_free (segment, (guint32) buffer->token);
      ferry_waiter_notify_senders (segment);
    }
  if (atomic_fetch_sub_explicit (&priv->outstanding, 1, memory_order_seq_cst) == 1
      && G_UNLIKELY (atomic_load_explicit (&segment->closed, memory_order_seq_cst)))
    ferry_segment_transport_leave_if_done (self);
}

/**
 * ferry_segment_transport_warm_up:
 * @self: a transport
 *
 * Makes what [property@SegmentTransport:warm-bytes] asks for real now. Before a fork that is done by
 * itself; it is for those who pass the descriptors on in another way. Without memory for it, or when the endpoint is not open
 * or no participant yet, nothing happens.
 *
 * May be called in any thread.
 *
 * Since: 1.0
 */
void
ferry_segment_transport_warm_up (FerrySegmentTransport *self)
{
  FerrySegmentTransportPrivate *priv;
  FerrySegment *segment;

  g_return_if_fail (FERRY_IS_SEGMENT_TRANSPORT (self));

  priv = PRIVATE (self);
  segment = &priv->segment;
  if (priv->warm_bytes == 0 || !priv->opened || !segment->joined || segment->fork_generation != ferry_fork_generation
      || !segment->data_writable)
    return;
  /* A call in progress, of a thread that need not be the one that sends or receives. */
  atomic_fetch_add_explicit (&segment->inside_others, 1, memory_order_seq_cst);
  if (!atomic_load_explicit (&segment->closed, memory_order_seq_cst))
    {
      ferry_arena_make_warm (segment, priv->warm_bytes);
      ferry_waiter_notify_senders (segment);
    }
  atomic_fetch_sub_explicit (&segment->inside_others, 1, memory_order_seq_cst);
  if (atomic_load_explicit (&segment->closed, memory_order_seq_cst))
    ferry_segment_transport_leave_if_done (self);
}

/* ---- sending ---- */

typedef enum
{
  ROOM_RETRY,   /* there may be room now */
  ROOM_DROPPED, /* the message is to be forgotten */
  ROOM_NONE,    /* @error says why */
} FerryRoom;

typedef struct
{
  gint64 started; /* ns; 0: not waiting yet */
  gint64 deadline;
  gint64 timeout;
  GCancellable *cancellable;
  gulong cancel_id;
  guint n_drops;
  guint n_upkeeps;
} FerryRoomWait;

static void
room_wait_end (FerrySegment *segment, FerryRoomWait *wait)
{
  if (wait->cancel_id != 0)
    g_cancellable_disconnect (wait->cancellable, wait->cancel_id);
  wait->cancel_id = 0;
  if (wait->started != 0)
    {
      ferry_waiter_learn (segment, ferry_waiter_now () - wait->started);
      /* Room for one may be room for more, and the wake-up was ours alone, taken or not. */
      if (ferry_waiter_any (segment->tx_sleeping))
        ferry_waiter_wake_one (segment, FERRY_SIDE_TX);
    }
}

static gboolean
ring_has_room (FerrySegment *segment, gpointer data)
{
  return ferry_ring_has_room (segment);
}

/* Memory has no cheap look-ahead: sleep until somebody frees a block. */
static gboolean
never (FerrySegment *segment, gpointer data)
{
  return FALSE;
}

/* The channel is full: applies the policy, once. The caller tries again after ROOM_RETRY. @in_ring: the ring is full;
 * else memory is. */
static FerryRoom
ferry_segment_transport_make_room (FerrySegmentTransport *self, gboolean in_ring, FerryRoomWait *wait, GError **error)
{
  FerrySegmentTransportPrivate *priv = PRIVATE (self);
  FerrySegment *segment = &priv->segment;
  FerryReadyFunc ready = in_ring ? ring_has_room : never;
  FerryOverflow overflow = priv->config->overflow;
  guint32 seen;

  /* A dead participant may be what fills the channel. Who never sleeps finds out here. */
  if (wait->n_upkeeps++ == 0)
    {
      gint64 before = atomic_load_explicit (&segment->last_upkeep, memory_order_relaxed);

      ferry_waiter_upkeep (segment, FALSE);
      if (atomic_load_explicit (&segment->last_upkeep, memory_order_relaxed) != before)
        return ROOM_RETRY;
    }
  if (overflow == FERRY_OVERFLOW_DROP_NEWEST)
    {
      atomic_fetch_add_explicit (&segment->me->dropped, 1, memory_order_relaxed);
      return ROOM_DROPPED;
    }
  if (overflow == FERRY_OVERFLOW_DROP_OLDEST && wait->n_drops < DROP_TRIES)
    {
      FerryRingResult result = ferry_ring_drop_oldest (segment);

      wait->n_drops++;
      if (result == FERRY_RING_CORRUPT)
        {
          ferry_segment_set_corrupt (segment, error, "the oldest message can't be discarded");
          return ROOM_NONE;
        }
      if (result == FERRY_RING_OK)
        atomic_fetch_add_explicit (&segment->me->dropped, 1, memory_order_relaxed);
      /* Nothing to drop, and yet no room: views hold the memory. Then wait like the others. */
      if (result == FERRY_RING_OK || in_ring)
        return ROOM_RETRY;
    }
  if (overflow == FERRY_OVERFLOW_ERROR || wait->timeout == FERRY_NO_WAIT)
    {
      if (in_ring)
        g_set_error (error, FERRY_ERROR, FERRY_ERROR_FULL, "%s is full: %u messages wait", segment->label,
                     segment->capacity);
      else
        g_set_error (error, FERRY_ERROR, FERRY_ERROR_FULL,
                     "%s is full: messages and held views take %" G_GUINT64_FORMAT " of %" G_GUINT64_FORMAT " bytes",
                     segment->label,
                     (guint64) atomic_load_explicit (&segment->shared->bytes_committed, memory_order_relaxed),
                     segment->max_bytes);
      return ROOM_NONE;
    }

  if (wait->started == 0)
    {
      wait->started = ferry_waiter_now ();
      wait->deadline = deadline_for (wait->started, wait->timeout);
      atomic_fetch_add_explicit (&segment->me->waits, 1, memory_order_relaxed);
    }
  if (atomic_load_explicit (&segment->closed, memory_order_acquire) || is_shut_down (segment))
    {
      set_error_closed (segment, error);
      return ROOM_NONE;
    }
  if (wait->deadline >= 0 && ferry_waiter_now () >= wait->deadline)
    {
      set_error_timed_out (segment, wait->timeout, "no room came", error);
      return ROOM_NONE;
    }
  if (g_cancellable_set_error_if_cancelled (wait->cancellable, error))
    return ROOM_NONE;
  if (in_ring && ferry_waiter_may_spin (segment))
    for (guint i = MIN (segment->capacity / ROOM_PAUSE_SHARE, ROOM_PAUSES_MAX); i > 0; i--)
      ferry_waiter_relax ();
  if (in_ring && ferry_waiter_spin (segment, ready, NULL, ferry_waiter_now (), wait->deadline))
    return ROOM_RETRY;
  if (segment->wait_strategy == FERRY_WAIT_STRATEGY_SPIN)
    {
      ferry_waiter_upkeep (segment, FALSE);
      return ROOM_RETRY;
    }

  if (wait->cancellable != NULL && wait->cancel_id == 0)
    {
      wait->cancel_id = g_cancellable_connect (wait->cancellable, G_CALLBACK (cancelled_cb), segment, NULL);
      if (g_cancellable_set_error_if_cancelled (wait->cancellable, error))
        return ROOM_NONE;
    }
  seen = ferry_waiter_prepare (segment, FERRY_SIDE_TX);
  if (!ready (segment, NULL) && !atomic_load_explicit (&segment->closed, memory_order_seq_cst)
      && !is_shut_down (segment) && !g_cancellable_is_cancelled (wait->cancellable))
    {
      gint64 deadline = wait->deadline;

      /* A block freed between our failed try and the announcement woke nobody: look again soon. */
      if (!in_ring)
        {
          gint64 soon = ferry_waiter_now () + FLUSH_SLICE_NS;

          deadline = deadline < 0 ? soon : MIN (deadline, soon);
        }
      ferry_waiter_sleep (segment, seen, deadline, FALSE);
    }
  ferry_waiter_finish (segment, FERRY_SIDE_TX);
  ferry_waiter_upkeep (segment, FALSE);
  return ROOM_RETRY;
}

/* Puts a message whose block, if any, we own into the ring. On failure the block is still ours. @dropped: so is it,
 * and the caller gives it back. */
static gboolean
ferry_segment_transport_enqueue (FerrySegmentTransport *self, FerryMessage *message, const guint8 *payload,
                                 gint64 timeout, GCancellable *cancellable, gboolean *dropped, GError **error)
{
  FerrySegmentTransportPrivate *priv = PRIVATE (self);
  FerrySegment *segment = &priv->segment;
  FerryRoomWait wait = { .timeout = timeout, .cancellable = cancellable };
  FerryRingResult result;

  if (G_UNLIKELY (is_shut_down (segment)))
    return set_error_closed (segment, error);
  if (G_UNLIKELY (priv->config->timestamps && message->timestamp == 0))
    message->timestamp = g_get_monotonic_time ();

  result = ferry_ring_send (segment, message, payload);
  if (G_UNLIKELY (result == FERRY_RING_FULL))
    {
      FerryRoom room = ROOM_RETRY;

      while (result == FERRY_RING_FULL && room == ROOM_RETRY)
        {
          room = ferry_segment_transport_make_room (self, TRUE, &wait, error);
          if (room == ROOM_RETRY)
            result = ferry_ring_send (segment, message, payload);
        }
      room_wait_end (segment, &wait);
      if (room == ROOM_DROPPED)
        {
          *dropped = TRUE;
          return TRUE;
        }
      if (room == ROOM_NONE)
        return FALSE;
    }
  if (G_UNLIKELY (result == FERRY_RING_CORRUPT))
    return ferry_segment_set_corrupt (segment, error, "head, tail and slots of the ring contradict each other");
  ferry_segment_count (segment, message->size);
  return TRUE;
}

/* How long the lock may be waited for. */
static gint64
lock_patience (const FerryRoomWait *wait)
{
  gint64 left = wait->timeout;

  if (wait->started != 0 && wait->deadline >= 0)
    left = (wait->deadline - ferry_waiter_now ()) / 1000;
  return wait->timeout < 0 ? FERRY_LOCK_PATIENCE : CLAMP (left, FERRY_LOCK_PATIENCE_MIN, FERRY_LOCK_PATIENCE);
}

static gboolean
ferry_segment_transport_alloc (FerrySegmentTransport *self, gsize size, gint64 timeout, GCancellable *cancellable,
                               guint32 *block, guint8 **data, gboolean *dropped, GError **error)
{
  FerrySegmentTransportPrivate *priv = PRIVATE (self);
  FerrySegment *segment = &priv->segment;
  FerryRoomWait wait = { .timeout = timeout, .cancellable = cancellable };
  FerryArenaResult result = ferry_arena_alloc (segment, size, lock_patience (&wait), block, data, error);
  FerryRoom room = ROOM_RETRY;

  while (G_UNLIKELY (result == FERRY_ARENA_FULL) && room == ROOM_RETRY)
    {
      if (segment->mode == FERRY_MODE_BROADCAST)
        ferry_ring_reclaim (segment);
      result = ferry_arena_alloc (segment, size, lock_patience (&wait), block, data, error);
      /* Nobody will free what only later receivers might ask for: the history yields to the bound. */
      while (result == FERRY_ARENA_FULL && segment->mode == FERRY_MODE_BROADCAST && ferry_ring_forget_one (segment))
        result = ferry_arena_alloc (segment, size, lock_patience (&wait), block, data, error);
      if (result != FERRY_ARENA_FULL)
        break;
      room = ferry_segment_transport_make_room (self, FALSE, &wait, error);
      if (room == ROOM_RETRY)
        result = ferry_arena_alloc (segment, size, lock_patience (&wait), block, data, error);
    }
  room_wait_end (segment, &wait);
  *dropped = room == ROOM_DROPPED;
  return result == FERRY_ARENA_OK;
}

/* Copies a payload. Shortly before the end it asks for the cache lines that the hand-over and the next allocation will
 * write: others wrote them last, and the misses, some 80 ns each, pass while the rest is copied. Where they are is found out before the
 * copy, which leaves nothing else in the first-level cache. The tail comes last: it is what a waiting receiver looks at, and it would
 * take the line away again. */
static void
ferry_segment_transport_copy (FerrySegment *segment, guint8 *to, const guint8 *data, gsize size)
{
  gsize first = size - COPY_PREFETCH_BEFORE;
  gconstpointer slot;
  gconstpointer block;
  gconstpointer tail;

  if (size < COPY_PREFETCH_MIN)
    {
      memcpy (to, data, size);
      return;
    }

  slot = ferry_ring_next_slot (segment);
  block = ferry_arena_next_recent (segment);
  tail = segment->tail;
  ferry_copy_memory (to, data, first);
  ferry_prefetch_for_writing (slot);
  if (block != NULL)
    ferry_prefetch_for_writing (block);
  ferry_copy_loop (to + first, data + first, size - first);
  ferry_prefetch_for_writing (tail);
}

/* A block of ours that went into no message: who waits for memory may have it. */
static void
give_back (FerrySegment *segment, guint32 block)
{
  ferry_arena_free (segment, block);
  ferry_waiter_notify_senders (segment);
}

static gboolean
do_send (FerryTransport *transport, const guint8 *data, gsize size, guint64 wire_name, guint64 wire_version,
         gint64 timeout, GCancellable *cancellable, GError **error)
{
  FerrySegmentTransport *self = SELF (transport);
  FerrySegmentTransportPrivate *priv = PRIVATE (self);
  FerrySegment *segment = &priv->segment;
  FerryMessage message;
  gboolean dropped = FALSE;
  guint8 *to;


  message.size = size;
  message.timestamp = 0;
  message.block = FERRY_NO_BLOCK;
  message.generation = 0;
  message.wire_name = wire_name;
  message.wire_version = wire_version;
  if (size <= segment->inline_max)
    return ferry_segment_transport_enqueue (self, &message, data, timeout, cancellable, &dropped, error);

  if (is_shut_down (segment))
    return set_error_closed (segment, error);
  /* Do not copy gigabytes only to find the ring full. */
  if (priv->config->overflow < FERRY_OVERFLOW_DROP_OLDEST && !ferry_ring_has_room (segment))
    {
      FerryRoomWait wait = { .timeout = timeout, .cancellable = cancellable };
      FerryRoom room = ROOM_RETRY;

      while (room == ROOM_RETRY && !ferry_ring_has_room (segment))
        room = ferry_segment_transport_make_room (self, TRUE, &wait, error);
      room_wait_end (segment, &wait);
      if (room != ROOM_RETRY)
        return FALSE;
    }
  if (!ferry_segment_transport_alloc (self, size, timeout, cancellable, &message.block, &to, &dropped, error))
    return dropped;
  ferry_segment_transport_copy (segment, to, data, size);
  message.generation = ferry_arena_generation (segment, message.block);
  FERRY_STEP ("send-copied");
  if (G_UNLIKELY (wire_name == FERRY_STORE_WIRE_NAME_PACKED)
      && !ferry_store_ticket_bind (segment, message.block, data, size, timeout, cancellable, error))
    {
      give_back (segment, message.block);
      return FALSE;
    }
  if (!ferry_segment_transport_enqueue (self, &message, NULL, timeout, cancellable, &dropped, error))
    {
      give_back (segment, message.block);
      return FALSE;
    }
  if (dropped)
    give_back (segment, message.block);
  else if (segment->mode == FERRY_MODE_BROADCAST)
    ferry_ring_reclaim (segment);
  return TRUE;
}

static FerryBuffer *
do_loan (FerryTransport *transport, gsize size, gint64 timeout, GCancellable *cancellable, GError **error)
{
  FerrySegmentTransport *self = SELF (transport);
  FerrySegmentTransportPrivate *priv = PRIVATE (self);
  FerrySegment *segment = &priv->segment;
  FerryBuffer *buffer;
  gboolean dropped = FALSE;
  guint32 block;
  guint8 *data;

  if (is_shut_down (segment))
    {
      set_error_closed (segment, error);
      return NULL;
    }
  /* What fits into a slot is filled in private memory and copied with the commit. */
  if (size <= segment->inline_max)
    return ferry_buffer_new (size);

  if (!ferry_segment_transport_alloc (self, size, timeout, cancellable, &block, &data, &dropped, error))
    {
      if (!dropped)
        return NULL;
      /* A loan is not yet a message that could be dropped: give private memory to fill. Whether there is room is seen,
       * and counted, when it is sent. */
      atomic_fetch_sub_explicit (&segment->me->dropped, 1, memory_order_relaxed);
      return ferry_buffer_new (size);
    }
  buffer = ferry_buffer_alloc (0);
  buffer->data = data;
  buffer->size = buffer->capacity = size;
  buffer->flags |= FERRY_BUFFER_WRITABLE | FERRY_BUFFER_LOANED;
  buffer->token = block;
  buffer->fork_generation = ferry_fork_generation;
  buffer->transport = FERRY_TRANSPORT (g_object_ref (self));
  atomic_fetch_add_explicit (&priv->outstanding, 1, memory_order_relaxed);
  return buffer;
}

static gboolean
do_commit (FerryTransport *transport, FerryBuffer *buffer, gint64 timeout, GCancellable *cancellable, GError **error)
{
  FerrySegmentTransport *self = SELF (transport);
  FerrySegmentTransportPrivate *priv = PRIVATE (self);
  FerrySegment *segment = &priv->segment;
  FerryMessage message;
  gboolean dropped = FALSE;

  if (buffer->flags & FERRY_BUFFER_CONSUMED)
    {
      g_set_error (error, FERRY_ERROR, FERRY_ERROR_INVALID_ARGUMENT, "%s: this buffer was sent already; loan another",
                   segment->label);
      return FALSE;
    }
  /* Somebody else's memory, or a loan that fits into a slot: copied. */
  if (buffer->transport != transport || !(buffer->flags & FERRY_BUFFER_LOANED)
      || buffer->fork_generation != ferry_fork_generation || buffer->size <= segment->inline_max)
    {
      if (buffer->size <= segment->inline_max)
        {
          message.size = buffer->size;
          message.timestamp = buffer->timestamp;
          message.block = FERRY_NO_BLOCK;
          message.generation = 0;
          message.wire_name = buffer->wire_name;
          message.wire_version = buffer->wire_version;
          if (!ferry_segment_transport_enqueue (self, &message, buffer->data, timeout, cancellable, &dropped, error))
            return FALSE;
        }
      else
        {
          g_autoptr (FerryBuffer) copy = do_loan (transport, buffer->size, timeout, cancellable, error);
          if (copy == NULL)
            return FALSE;
          if (copy->transport == NULL)
            {
              /* drop-newest, and no room: that was it */
              atomic_fetch_add_explicit (&segment->me->dropped, 1, memory_order_relaxed);
            }
          else
            {
              ferry_copy_memory (copy->data, buffer->data, buffer->size);
              copy->timestamp = buffer->timestamp;
              copy->wire_name = buffer->wire_name;
              copy->wire_version = buffer->wire_version;
              if (!do_commit (transport, copy, timeout, cancellable, error))
                return FALSE;
            }
        }
      if ((buffer->flags & FERRY_BUFFER_LOANED) && (buffer->transport == transport || buffer->transport == NULL))
        {
          /* spent, as every loan is after its commit */
          if (buffer->transport == transport && buffer->fork_generation == ferry_fork_generation)
            give_back (segment, (guint32) buffer->token);
          buffer->flags |= FERRY_BUFFER_CONSUMED;
          buffer->flags &= ~(guint) FERRY_BUFFER_WRITABLE;
          buffer->size = buffer->capacity = 0;
        }
      return TRUE;
    }

  message.size = buffer->size;
  message.timestamp = buffer->timestamp;
  message.block = (guint32) buffer->token;
  message.generation = ferry_arena_generation (segment, message.block);
  message.wire_name = buffer->wire_name;
  message.wire_version = buffer->wire_version;
  if (G_UNLIKELY (message.wire_name == FERRY_STORE_WIRE_NAME_PACKED)
      && !ferry_store_ticket_bind (segment, message.block, buffer->data, buffer->size, timeout, cancellable, error))
    return FALSE;
  if (!ferry_segment_transport_enqueue (self, &message, NULL, timeout, cancellable, &dropped, error))
    return FALSE;
  if (dropped)
    give_back (segment, (guint32) buffer->token);
  else if (segment->mode == FERRY_MODE_BROADCAST)
    ferry_ring_reclaim (segment);
  buffer->flags |= FERRY_BUFFER_CONSUMED;
  buffer->flags &= ~(guint) FERRY_BUFFER_WRITABLE;
  buffer->size = buffer->capacity = 0;
  return TRUE;
}

/* ---- waiting ---- */

static gboolean
condition_holds (FerrySegment *segment, GIOCondition condition)
{
  if (atomic_load_explicit (&segment->closed, memory_order_seq_cst) || is_shut_down (segment))
    return TRUE;
  if ((condition & G_IO_IN) && (ferry_ring_has_message (segment) || ferry_segment_ended (segment)))
    return TRUE;
  return (condition & G_IO_OUT) && ferry_ring_has_room (segment);
}

typedef struct
{
  GIOCondition condition;
} FerryWaitFor;

static gboolean
condition_ready (FerrySegment *segment, gpointer data)
{
  return condition_holds (segment, ((FerryWaitFor *) data)->condition);
}

static gboolean
flush_ready (FerrySegment *segment, gpointer data)
{
  guint64 target = *(guint64 *) data;
  guint64 done = segment->mode == FERRY_MODE_BROADCAST ? ferry_ring_min_cursor (segment, target)
                                                       : ferry_ring_advance_head (segment);

  return done == G_MAXUINT64 || (gint64) (done - target) >= 0;
}

/* Waits until ready() holds, the channel is closed, or it is time to give up. */
static gboolean
ferry_segment_transport_wait_until (FerrySegmentTransport *self, FerrySide side, FerryReadyFunc ready, gpointer data,
                                    gint64 timeout, const char *what, GCancellable *cancellable, GError **error)
{
  FerrySegment *segment = &PRIVATE (self)->segment;
  gint64 started = ferry_waiter_now ();
  gint64 deadline = deadline_for (started, timeout);
  gulong cancel_id = 0;
  gboolean ok = FALSE;

  for (;;)
    {
      gint64 until = deadline;
      guint32 seen;

      if (ready (segment, data))
        {
          ok = TRUE;
          break;
        }
      if (atomic_load_explicit (&segment->closed, memory_order_seq_cst) || is_shut_down (segment))
        {
          set_error_closed (segment, error);
          break;
        }
      if (timeout == FERRY_NO_WAIT || (deadline >= 0 && ferry_waiter_now () >= deadline))
        {
          set_error_timed_out (segment, timeout, what, error);
          break;
        }
      if (g_cancellable_set_error_if_cancelled (cancellable, error))
        break;
      if (cancellable != NULL && cancel_id == 0)
        cancel_id = g_cancellable_connect (cancellable, G_CALLBACK (cancelled_cb), segment, NULL);
      if (ferry_waiter_spin (segment, ready, data, ferry_waiter_now (), deadline))
        continue;
      if (segment->wait_strategy == FERRY_WAIT_STRATEGY_SPIN)
        {
          ferry_waiter_upkeep (segment, FALSE);
          continue;
        }
      if (side == FERRY_SIDE_FLUSH)
        {
          gint64 slice = ferry_waiter_now () + FLUSH_SLICE_NS;

          until = until < 0 ? slice : MIN (until, slice);
        }
      seen = ferry_waiter_prepare (segment, side);
      if (!ready (segment, data) && !is_shut_down (segment)
          && !atomic_load_explicit (&segment->closed, memory_order_seq_cst)
          && !g_cancellable_is_cancelled (cancellable))
        ferry_waiter_sleep (segment, seen, until, FALSE);
      ferry_waiter_finish (segment, side);
      ferry_waiter_upkeep (segment, FALSE);
    }
  if (cancel_id != 0)
    g_cancellable_disconnect (cancellable, cancel_id);
  /* Nothing was consumed: a wake-up that we got serves another as well. */
  if (side == FERRY_SIDE_RX && segment->mode == FERRY_MODE_WORK_QUEUE && ferry_waiter_any (segment->rx_sleeping)
      && ferry_ring_maybe_ready (segment))
    ferry_waiter_wake_one (segment, FERRY_SIDE_RX);
  return ok;
}

static gboolean
do_wait (FerryTransport *transport, GIOCondition condition, gint64 timeout, GCancellable *cancellable, GError **error)
{
  FerrySegmentTransport *self = SELF (transport);
  FerrySegment *segment = &PRIVATE (self)->segment;
  FerryWaitFor wait_for = { condition };

  if (segment->role == FERRY_ROLE_OBSERVER || !(condition & (segment->role == FERRY_ROLE_SENDER ? G_IO_OUT : G_IO_IN)))
    {
      g_set_error (error, FERRY_ERROR, FERRY_ERROR_INVALID_ARGUMENT,
                   "%s: a sender waits for G_IO_OUT, a receiver for G_IO_IN", segment->label);
      return FALSE;
    }
  return ferry_segment_transport_wait_until (
      self, segment->role == FERRY_ROLE_SENDER ? FERRY_SIDE_TX : FERRY_SIDE_RX, condition_ready, &wait_for, timeout,
      segment->role == FERRY_ROLE_SENDER ? "no room came" : "no message came", cancellable, error);
}

/* A mark is the position in the ring that is claimed next: what this thread has sent lies before it. */
static gboolean
do_mark (FerryTransport *transport, guint64 *mark, GError **error)
{
  FerrySegment *segment = &PRIVATE (SELF (transport))->segment;

  *mark = ferry_ring_find_tail (segment);
  return *mark != G_MAXUINT64 || ferry_segment_set_corrupt (segment, error, "the ring has no end");
}

static gboolean
do_flush_mark (FerryTransport *transport, guint64 mark, gint64 timeout, GCancellable *cancellable, GError **error)
{
  return ferry_segment_transport_wait_until (SELF (transport), FERRY_SIDE_FLUSH, flush_ready, &mark, timeout,
                                             "not everything was taken", cancellable, error);
}

static void
ferry_segment_transport_wake (FerryTransport *transport)
{
  FerrySegmentTransport *self = SELF (transport);

  if (PRIVATE (self)->opened && PRIVATE (self)->segment.joined)
    ferry_waiter_wake_self (&PRIVATE (self)->segment);
}

static int
do_get_fd (FerryTransport *transport, GError **error)
{
  FerrySegmentTransport *self = SELF (transport);
  FerrySegment *segment = &PRIVATE (self)->segment;

  if (segment->role == FERRY_ROLE_OBSERVER)
    {
      g_set_error (error, FERRY_ERROR, FERRY_ERROR_UNSUPPORTED, "%s: an observer has nothing to wait for",
                   segment->label);
      return -1;
    }
  return ferry_waiter_get_fd (segment, error);
}

static GIOCondition
do_check (FerryTransport *transport, GIOCondition condition)
{
  FerrySegmentTransport *self = SELF (transport);
  FerrySegment *segment = &PRIVATE (self)->segment;
  GIOCondition ready = 0;

  if (segment->role == FERRY_ROLE_OBSERVER)
    return 0;
  condition &= segment->role == FERRY_ROLE_SENDER ? G_IO_OUT : G_IO_IN;
  if (condition == 0)
    return 0;
  ferry_waiter_drain (segment);
  ferry_waiter_upkeep (segment, FALSE);
  for (guint i = 0; i < 2; i++)
    {
      if (condition_holds (segment, condition))
        {
          ready = condition;
          if (i > 0)
            ferry_waiter_disarm (segment, segment->role == FERRY_ROLE_SENDER ? FERRY_SIDE_TX : FERRY_SIDE_RX);
          break;
        }
      if (i == 0)
        ferry_waiter_arm (segment, segment->role == FERRY_ROLE_SENDER ? FERRY_SIDE_TX : FERRY_SIDE_RX);
    }
  if (is_shut_down (segment))
    ready |= G_IO_HUP;
  return ready;
}

/* ---- life-cycle ---- */

static void
wake_everybody (FerrySegment *segment)
{
  ferry_waiter_wake_all (segment, FERRY_SIDE_RX);
  ferry_waiter_wake_all (segment, FERRY_SIDE_TX);
  ferry_waiter_wake_all (segment, FERRY_SIDE_FLUSH);
}

static gboolean
do_end_of_stream (FerryTransport *transport, GError **error)
{
  FerrySegmentTransport *self = SELF (transport);
  FerrySegment *segment = &PRIVATE (self)->segment;

  atomic_store_explicit (&segment->me->ended, 1, memory_order_seq_cst);
  FERRY_STEP ("end-record");
  atomic_fetch_or_explicit (&segment->shared->flags, FERRY_SHARED_ENDED, memory_order_seq_cst);
  ferry_waiter_wake_all (segment, FERRY_SIDE_RX);
  return TRUE;
}

static gboolean
do_shut_down (FerryTransport *transport, GError **error)
{
  FerrySegmentTransport *self = SELF (transport);
  FerrySegment *segment = &PRIVATE (self)->segment;

  atomic_fetch_or_explicit (&segment->shared->flags, FERRY_SHARED_CLOSED, memory_order_seq_cst);
  wake_everybody (segment);
  return TRUE;
}

/* A full barrier in every thread of this process. The form that concerns no other process takes microseconds, the one
 * for which nothing has to be registered 10 ms and more. */
static void
see_other_threads (void)
{
  if (syscall (SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0) == 0)
    return;
  if (errno == EPERM && syscall (SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, 0, 0) == 0
      && syscall (SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0) == 0)
    return;
  syscall (SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0);
}

static gboolean
ferry_segment_transport_close (FerryTransport *transport, GError **error)
{
  FerrySegmentTransport *self = SELF (transport);
  FerrySegmentTransportPrivate *priv = PRIVATE (self);
  FerrySegment *segment = &priv->segment;

  if (!priv->opened || atomic_exchange_explicit (&segment->closed, 1, memory_order_seq_cst))
    return TRUE;
  /* A call of the first thread may be in progress that we do not see yet: see ferry_segment_transport_enter(). */
  if (segment->first_thread != NULL && segment->first_thread != &ferry_thread_mark
      && segment->fork_generation == ferry_fork_generation) /* else that thread is the parent's */
    see_other_threads ();
  if (segment->joined && segment->fork_generation == ferry_fork_generation
      && (segment->doorbell_fd >= 0 || atomic_load_explicit (&segment->inside_first, memory_order_seq_cst) > 0
          || atomic_load_explicit (&segment->inside_others, memory_order_seq_cst) > 0))
    ferry_waiter_wake_self (segment);
  if (segment->joined && segment->fork_generation == ferry_fork_generation)
    atomic_fetch_sub_explicit (&priv->outstanding, ferry_segment_detach_private (segment), memory_order_seq_cst);
  g_mutex_lock (&priv->leave_mutex);
  if (!priv->left)
    {
      gboolean held = atomic_load_explicit (&priv->outstanding, memory_order_seq_cst) > 0
                      || atomic_load_explicit (&segment->inside_first, memory_order_seq_cst) > 0
                      || atomic_load_explicit (&segment->inside_others, memory_order_seq_cst) > 0;

      priv->left = !held;
      ferry_segment_leave (segment, held);
      if (!held && segment->klass->left != NULL)
        segment->klass->left (self);
    }
  g_mutex_unlock (&priv->leave_mutex);
  ferry_segment_transport_leave_if_done (self);
  return TRUE;
}

/* ---- looking ---- */

/* Private: what a store stands on. */
FerrySegment *
ferry_segment_transport_get_segment (FerrySegmentTransport *self)
{
  return &PRIVATE (self)->segment;
}

static gboolean
ferry_segment_transport_opened (FerrySegmentTransport *self, GError **error)
{
  if (PRIVATE (self)->opened && PRIVATE (self)->segment.control != NULL)
    return TRUE;
  g_set_error (error, FERRY_ERROR, FERRY_ERROR_CLOSED, "the channel is not open; call open first");
  return FALSE;
}

static gboolean
ferry_segment_transport_get_statistics (FerryTransport *transport, FerryStatistics *statistics, GError **error)
{
  FerrySegmentTransport *self = SELF (transport);
  FerrySegment *segment = &PRIVATE (self)->segment;
  FerrySegmentShared *shared = segment->shared;
  guint64 tail;
  guint64 head;

  if (!ferry_segment_transport_opened (self, error))
    return FALSE;

  memset (statistics, 0, sizeof *statistics);
  statistics->messages_sent = atomic_load_explicit (&shared->messages_sent, memory_order_relaxed);
  statistics->bytes_sent = atomic_load_explicit (&shared->bytes_sent, memory_order_relaxed);
  statistics->messages_received = atomic_load_explicit (&shared->messages_received, memory_order_relaxed);
  statistics->bytes_received = atomic_load_explicit (&shared->bytes_received, memory_order_relaxed);
  statistics->messages_dropped = atomic_load_explicit (&shared->messages_dropped, memory_order_relaxed);
  statistics->send_waits = atomic_load_explicit (&shared->send_waits, memory_order_relaxed);
  statistics->receive_waits = atomic_load_explicit (&shared->receive_waits, memory_order_relaxed);
  for (guint id = 0; id < ferry_segment_n_records (segment); id++)
    {
      FerryParticipantRecord *record = &segment->records[id];
      guint64 word = atomic_load_explicit (&record->word, memory_order_acquire);
      gboolean sender = ferry_record_role (word) == FERRY_ROLE_SENDER;
      guint64 messages;
      guint64 bytes;

      if (ferry_record_state (word) == FERRY_RECORD_FREE)
        continue;
      messages = atomic_load_explicit (&record->messages[0], memory_order_relaxed)
                 + atomic_load_explicit (&record->messages[1], memory_order_relaxed);
      bytes = atomic_load_explicit (&record->bytes[0], memory_order_relaxed)
              + atomic_load_explicit (&record->bytes[1], memory_order_relaxed);
      *(sender ? &statistics->messages_sent : &statistics->messages_received) += messages;
      *(sender ? &statistics->bytes_sent : &statistics->bytes_received) += bytes;
      *(sender ? &statistics->send_waits : &statistics->receive_waits)
          += atomic_load_explicit (&record->waits, memory_order_relaxed);
      if (sender) /* what a receiver missed is what a sender discarded: once is enough */
        statistics->messages_dropped += atomic_load_explicit (&record->dropped, memory_order_relaxed);
    }
  tail = ferry_ring_find_tail (segment);
  head = ferry_ring_advance_head (segment);
  if (segment->mode == FERRY_MODE_BROADCAST)
    {
      guint64 oldest = ferry_ring_min_cursor (segment, tail);

      /* What was discarded is not in flight, although its receiver does not know yet. */
      if ((gint64) (oldest - head) > 0)
        head = oldest;
    }
  if (tail != G_MAXUINT64 && head != G_MAXUINT64 && (gint64) (tail - head) > 0)
    statistics->in_flight = MIN (tail - head, segment->ring_slots);
  statistics->in_flight_peak
      = MAX (atomic_load_explicit (&shared->in_flight_peak, memory_order_relaxed), statistics->in_flight);
  statistics->capacity = segment->capacity;
  statistics->bytes_committed = atomic_load_explicit (&shared->bytes_committed, memory_order_relaxed);
  statistics->bytes_committed_peak = atomic_load_explicit (&shared->bytes_committed_peak, memory_order_relaxed);
  statistics->max_bytes = segment->max_bytes;
  statistics->senders = ferry_segment_count_role (segment, FERRY_ROLE_SENDER);
  statistics->receivers = ferry_segment_count_role (segment, FERRY_ROLE_RECEIVER);
  statistics->repairs = atomic_load_explicit (&shared->repairs, memory_order_relaxed);
  return TRUE;
}

static guint
count_held (FerrySegment *segment, guint id)
{
  guint n_held = 0;
  guint n_in_ring = 0;

  for (guint c = 0; c < FERRY_N_CLASSES; c++)
    {
      guint n
          = MIN (atomic_load_explicit (&segment->class_used[c], memory_order_acquire), segment->classes[c].n_blocks);

      for (guint i = 0; i < n; i++)
        {
          FerryBlock *block = &segment->classes[c].blocks[i];
          guint64 w = atomic_load_explicit (&block->word, memory_order_acquire);

          n_held += (ferry_word_state (w) == FERRY_BLOCK_OWNED && ferry_word_owner (w) == id)
                    || ((atomic_load_explicit (&block->holders[id / 64], memory_order_relaxed) >> (id % 64)) & 1);
        }
    }
  for (guint64 i = 0; i < segment->ring_slots; i++)
    {
      FerrySlot *slot = ferry_segment_slot (segment, i);
      guint64 w = atomic_load_explicit (&slot->word, memory_order_acquire);
      guint32 block = ferry_slot_block (slot);

      if (ferry_word_state (w) != FERRY_SLOT_COMMITTED || block == FERRY_NO_BLOCK
          || !ferry_arena_check_ref (segment, block, 0))
        continue;
      w = atomic_load_explicit (&ferry_arena_block (segment, block)->word, memory_order_acquire);
      n_in_ring += ferry_word_state (w) == FERRY_BLOCK_OWNED && ferry_word_owner (w) == id;
    }
  return n_held > n_in_ring ? n_held - n_in_ring : 0;
}

static void
fill_participant (FerrySegment *segment, guint id, guint64 word, FerryParticipant *participant)
{
  FerryParticipantRecord *record = &segment->records[id];

  participant->id = id;
  participant->incarnation = ferry_record_incarnation (word);
  participant->role = ferry_record_role (word);
  participant->pid = record->pid;
  participant->uid = record->uid;
  participant->messages = atomic_load_explicit (&record->messages[0], memory_order_relaxed)
                          + atomic_load_explicit (&record->messages[1], memory_order_relaxed);
  participant->bytes = atomic_load_explicit (&record->bytes[0], memory_order_relaxed)
                       + atomic_load_explicit (&record->bytes[1], memory_order_relaxed);
  participant->waits = atomic_load_explicit (&record->waits, memory_order_relaxed);
  participant->dropped = atomic_load_explicit (&record->dropped, memory_order_relaxed);
}

static GPtrArray *
ferry_segment_transport_list_participants (FerryTransport *transport, GError **error)
{
  FerrySegmentTransport *self = SELF (transport);
  FerrySegment *segment = &PRIVATE (self)->segment;
  GPtrArray *list;

  if (!ferry_segment_transport_opened (self, error))
    return NULL;
  list = g_ptr_array_new_with_free_func ((GDestroyNotify) ferry_participant_free);
  for (guint id = 0; id < ferry_segment_n_records (segment); id++)
    {
      guint64 word = atomic_load_explicit (&segment->records[id].word, memory_order_acquire);
      FerryParticipant *participant;

      if (ferry_record_state (word) == FERRY_RECORD_FREE)
        continue;
      participant = ferry_participant_new ();
      fill_participant (segment, id, word, participant);
      participant->alive = segment->lock_fd < 0 || !ferry_segment_is_dead (segment, id);
      participant->held = count_held (segment, id);
      g_ptr_array_add (list, participant);
    }
  return list;
}

static FerryTransportEvent
ferry_segment_transport_poll_events (FerryTransport *transport, FerryParticipant *participant)
{
  FerrySegmentTransport *self = SELF (transport);
  FerrySegmentTransportPrivate *priv = PRIVATE (self);
  FerrySegment *segment = &priv->segment;
  FerryTransportEvent event = FERRY_TRANSPORT_EVENT_NONE;
  guint32 epoch;

  if (!priv->opened || segment->shared == NULL)
    return FERRY_TRANSPORT_EVENT_NONE;
  /* Who only asks must find out who died, too. */
  if (segment->role != FERRY_ROLE_OBSERVER && segment->fork_generation == ferry_fork_generation
      && ferry_segment_transport_enter (self, segment->role, NULL))
    {
      ferry_waiter_upkeep (segment, FALSE);
      ferry_segment_transport_exit (self);
    }
  epoch = atomic_load_explicit (&segment->shared->epoch, memory_order_seq_cst);
  if (G_LIKELY (epoch == priv->seen_epoch && (priv->seen_closed || !is_shut_down (segment))))
    return FERRY_TRANSPORT_EVENT_NONE;

  g_mutex_lock (&priv->events_mutex);
  for (guint id = 0; id < ferry_segment_n_records (segment) && event == FERRY_TRANSPORT_EVENT_NONE; id++)
    {
      FerryParticipantRecord *record = &segment->records[id];
      guint64 now = atomic_load_explicit (&record->word, memory_order_acquire);
      guint64 seen = priv->seen_words[id];
      gboolean is_here = ferry_record_state (now) == FERRY_RECORD_ACTIVE;
      gboolean was_here = ferry_record_state (seen) == FERRY_RECORD_ACTIVE;

      if ((segment->joined && id == segment->id)
          || (is_here == was_here && ferry_record_incarnation (now) == ferry_record_incarnation (seen)))
        continue;
      if (was_here && (!is_here || ferry_record_incarnation (now) != ferry_record_incarnation (seen)))
        {
          gboolean died = atomic_load_explicit (&record->exit_incarnation, memory_order_acquire)
                              == ferry_record_incarnation (seen)
                          && atomic_load_explicit (&record->exit_died, memory_order_acquire);

          fill_participant (segment, id, seen, participant);
          participant->pid = priv->seen_pids[id];
          participant->alive = FALSE;
          priv->seen_words[id] = ferry_record_word (ferry_record_incarnation (seen), 0, FERRY_RECORD_FREE);
          event = died ? FERRY_TRANSPORT_EVENT_PEER_DIED : FERRY_TRANSPORT_EVENT_PEER_LEFT;
        }
      else if (is_here)
        {
          fill_participant (segment, id, now, participant);
          participant->alive = TRUE;
          priv->seen_words[id] = now;
          priv->seen_pids[id] = participant->pid;
          event = FERRY_TRANSPORT_EVENT_PEER_JOINED;
        }
      else if (ferry_record_state (now) == FERRY_RECORD_FREE)
        {
          /* It came and went between two looks: told as joined now, and as gone with the next look. */
          fill_participant (segment, id, now, participant);
          participant->alive = FALSE;
          priv->seen_words[id]
              = ferry_record_word (ferry_record_incarnation (now), ferry_record_role (now), FERRY_RECORD_ACTIVE);
          priv->seen_pids[id] = participant->pid;
          event = FERRY_TRANSPORT_EVENT_PEER_JOINED;
        }
    }
  if (event == FERRY_TRANSPORT_EVENT_NONE && !priv->seen_closed && is_shut_down (segment))
    {
      priv->seen_closed = TRUE;
      event = FERRY_TRANSPORT_EVENT_CLOSED;
    }
  if (event == FERRY_TRANSPORT_EVENT_NONE)
    priv->seen_epoch = epoch;
  g_mutex_unlock (&priv->events_mutex);
  return event;
}

static gsize
do_trim (FerryTransport *transport)
{
  FerrySegmentTransport *self = SELF (transport);
  FerrySegment *segment = &PRIVATE (self)->segment;
  gsize got = 0;

  if (segment->role == FERRY_ROLE_OBSERVER)
    return 0;
  if (segment->mode == FERRY_MODE_BROADCAST)
    ferry_ring_reclaim (segment);
  if (ferry_segment_lock (segment, NULL))
    {
      got = ferry_arena_trim (segment, G_MAXINT64, G_MAXUINT64);
      ferry_segment_unlock (segment);
    }
  return got;
}

static gboolean
ferry_segment_transport_verify (FerryTransport *transport, GError **error)
{
  FerrySegmentTransport *self = SELF (transport);

  if (!ferry_segment_transport_opened (self, error))
    return FALSE;
  return ferry_segment_verify (&PRIVATE (self)->segment, error);
}

static char **
ferry_segment_transport_list_channels (FerryTransport *transport, GError **error)
{
  FerrySegmentTransportClass *klass = FERRY_SEGMENT_TRANSPORT_GET_CLASS (SELF (transport));

  if (klass->list_names == NULL)
    return g_new0 (char *, 1);
  return klass->list_names (SELF (transport), error);
}

/* Opens another object of the same kind as an observer, maps it, and tells. */
static gboolean
ferry_segment_transport_look (FerryTransport *transport, const char *name, gboolean sweep, gboolean *alive,
                              GError **error)
{
  g_autoptr (FerryChannelConfig) config = ferry_channel_config_new ();
  g_autoptr (FerrySegmentTransport) other = g_object_new (G_OBJECT_TYPE (transport), NULL);
  FerrySegmentTransportPrivate *priv = PRIVATE (other);
  guint n_properties;
  g_autofree GParamSpec **specs = g_object_class_list_properties (G_OBJECT_GET_CLASS (transport), &n_properties);
  g_autoptr (GError) local = NULL;
  gboolean ok;

  for (guint i = 0; i < n_properties; i++)
    {
      g_auto (GValue) value = G_VALUE_INIT;

      if ((specs[i]->flags & G_PARAM_READWRITE) != G_PARAM_READWRITE || (specs[i]->flags & G_PARAM_CONSTRUCT_ONLY))
        continue;
      g_value_init (&value, specs[i]->value_type);
      g_object_get_property (G_OBJECT (transport), specs[i]->name, &value);
      g_object_set_property (G_OBJECT (other), specs[i]->name, &value);
    }
  config->name = g_strdup (name);
  config->role = FERRY_ROLE_OBSERVER;
  config->open_mode = FERRY_OPEN_MODE_JOIN;
  if (!ferry_channel_config_validate (config, error))
    return FALSE;

  *alive = FALSE;
  ferry_segment_transport_begin (other, config);
  ok = priv->segment.klass->attach (other, config, NULL, &local) && ferry_segment_map (&priv->segment, &local);
  if (ok)
    {
      gboolean withdrawn;

      ok = ferry_segment_join (&priv->segment, FERRY_ROLE_OBSERVER, &withdrawn, NULL, &local);
      for (guint id = 0; ok && !*alive && id < ferry_segment_n_records (&priv->segment); id++)
        *alive = ferry_record_state (atomic_load_explicit (&priv->segment.records[id].word, memory_order_acquire))
                     != FERRY_RECORD_FREE
                 && !ferry_segment_is_dead (&priv->segment, id);
      if (ok && sweep && !*alive)
        {
          close (priv->segment.lock_fd);
          priv->segment.lock_fd = -1;
          *alive = !ferry_segment_transport_withdraw_dead (other, NULL);
        }
    }
  else if (g_error_matches (local, FERRY_ERROR, FERRY_ERROR_TIMED_OUT))
    {
      /* Somebody is there and stopped: that is alive. */
      *alive = TRUE;
      g_clear_error (&local);
      ok = TRUE;
    }
  else if (g_error_matches (local, FERRY_ERROR, FERRY_ERROR_CORRUPT) && sweep)
    {
      /* Nobody can be using it as a channel. */
      priv->segment.klass->withdraw (other);
      g_clear_error (&local);
      ok = TRUE;
    }
  else if (g_error_matches (local, FERRY_ERROR, FERRY_ERROR_NOT_FOUND)
           || g_error_matches (local, FERRY_ERROR, FERRY_ERROR_CORRUPT))
    {
      g_clear_error (&local);
      ok = TRUE;
      if (sweep && priv->segment.klass->sweep != NULL)
        ok = priv->segment.klass->sweep (other, name, &local);
    }
  ferry_segment_transport_reset (other);
  if (!ok)
    g_propagate_error (error, g_steal_pointer (&local));
  return ok;
}

/* Whoever creates a channel removes what programs left that were killed: now and then, and a few at a time, so that
 * opening stays quick. */
static void
ferry_segment_transport_sweep_others (FerrySegmentTransport *self, const char *own_name)
{
  static _Atomic gint64 last_sweep;
  gint64 now = g_get_monotonic_time ();
  gint64 last = atomic_load_explicit (&last_sweep, memory_order_relaxed);
  g_auto (GStrv) names = NULL;
  guint n_looked = 0;

  if ((last != 0 && now - last < SWEEP_INTERVAL_US)
      || !atomic_compare_exchange_strong_explicit (&last_sweep, &last, now, memory_order_relaxed, memory_order_relaxed))
    return;
  names = ferry_segment_transport_list_channels (FERRY_TRANSPORT (self), NULL);
  for (guint i = 0; names != NULL && names[i] != NULL && n_looked < SWEEP_AT_ONCE; i++)
    {
      gboolean alive;

      if (g_strcmp0 (names[i], own_name) == 0)
        continue;
      ferry_segment_transport_look (FERRY_TRANSPORT (self), names[i], TRUE, &alive, NULL);
      n_looked++;
    }
}

static gboolean
ferry_segment_transport_probe_channel (FerryTransport *transport, const char *name, gboolean *alive, GError **error)
{
  return ferry_segment_transport_look (transport, name, FALSE, alive, error);
}

static gboolean
ferry_segment_transport_sweep_channel (FerryTransport *transport, const char *name, GError **error)
{
  gboolean alive = FALSE;

  if (!ferry_segment_transport_look (transport, name, TRUE, &alive, error))
    return FALSE;
  if (alive)
    {
      g_set_error (error, FERRY_ERROR, FERRY_ERROR_EXISTS, "channel '%s' is alive; it is left as it is", name);
      return FALSE;
    }
  return TRUE;
}

/* ---- the calls of the interface: each in progress from enter to exit ---- */

static G_GNUC_NO_INLINE FerryBuffer *
take_any (FerryTransport *transport, gint64 timeout, GCancellable *cancellable, GError **error)
{
  FerryBuffer *buffer;

  if (G_UNLIKELY (!ferry_segment_transport_enter (SELF (transport), FERRY_ROLE_RECEIVER, error)))
    return NULL;
  buffer = do_take (transport, timeout, cancellable, error);
  ferry_segment_transport_exit (SELF (transport));
  return buffer;
}

/* A small message of a work queue that waits takes the short way. */
static FerryBuffer *
ferry_segment_transport_take (FerryTransport *transport, gint64 timeout, GCancellable *cancellable, GError **error)
{
  FerrySegment *segment = &PRIVATE (SELF (transport))->segment;
  FerryMessage message;
  FerryBuffer *buffer;
  guint delay;

  if (G_UNLIKELY (segment->mode != FERRY_MODE_WORK_QUEUE
                  || !ferry_segment_transport_enter_first (SELF (transport), FERRY_ROLE_RECEIVER)))
    return take_any (transport, timeout, cancellable, error);
  delay = atomic_load_explicit (&segment->answer_delay, memory_order_relaxed);
  if (G_UNLIKELY (delay > 0) && timeout != FERRY_NO_WAIT)
    ferry_waiter_expect_answer (delay);
  buffer = ferry_ring_try_take (segment, NULL, &message);
  if (G_UNLIKELY (delay > 0) && buffer != NULL)
    ferry_waiter_answer_came (segment, delay);
  if (G_LIKELY (buffer != NULL))
    buffer = ferry_segment_transport_wrap (SELF (transport), buffer, &message, NULL); /* it has no block to map */
  ferry_segment_transport_exit_first (SELF (transport), segment);
  return G_LIKELY (buffer != NULL) ? buffer : take_any (transport, timeout, cancellable, error);
}

static G_GNUC_NO_INLINE gboolean
send_any (FerryTransport *transport, const guint8 *data, gsize size, guint64 wire_name, guint64 wire_version,
          gint64 timeout, GCancellable *cancellable, GError **error)
{
  gboolean ok;

  if (G_UNLIKELY (!ferry_segment_transport_enter (SELF (transport), FERRY_ROLE_SENDER, error)))
    return FALSE;
  ok = do_send (transport, data, size, wire_name, wire_version, timeout, cancellable, error);
  ferry_segment_transport_exit (SELF (transport));
  return ok;
}

/* A small message takes the short way when there is room. */
static gboolean
ferry_segment_transport_send (FerryTransport *transport, const guint8 *data, gsize size, guint64 wire_name,
                              guint64 wire_version, gint64 timeout, GCancellable *cancellable, GError **error)
{
  FerrySegmentTransportPrivate *priv = PRIVATE (SELF (transport));
  FerrySegment *segment = &priv->segment;
  FerryMessage message = { .size = size,
                           .timestamp = 0,
                           .block = FERRY_NO_BLOCK,
                           .generation = 0,
                           .wire_name = wire_name,
                           .wire_version = wire_version };
  gboolean done;

  if (size > segment->inline_max
      || G_UNLIKELY (!ferry_segment_transport_enter_first (SELF (transport), FERRY_ROLE_SENDER)))
    return send_any (transport, data, size, wire_name, wire_version, timeout, cancellable, error);
  done = !priv->config->timestamps && !is_shut_down (segment) && ferry_ring_try_send (segment, &message, data);
  if (G_LIKELY (done))
    ferry_segment_count (segment, size);
  ferry_segment_transport_exit_first (SELF (transport), segment);
  return done || send_any (transport, data, size, wire_name, wire_version, timeout, cancellable, error);
}

static FerryBuffer *
ferry_segment_transport_loan (FerryTransport *transport, gsize size, gint64 timeout, GCancellable *cancellable,
                              GError **error)
{
  FerryBuffer *buffer;

  if (G_UNLIKELY (!ferry_segment_transport_enter (SELF (transport), FERRY_ROLE_SENDER, error)))
    return NULL;
  buffer = do_loan (transport, size, timeout, cancellable, error);
  ferry_segment_transport_exit (SELF (transport));
  return buffer;
}

static gboolean
ferry_segment_transport_commit (FerryTransport *transport, FerryBuffer *buffer, gint64 timeout,
                                GCancellable *cancellable, GError **error)
{
  gboolean ok;

  if (G_UNLIKELY (!ferry_segment_transport_enter (SELF (transport), FERRY_ROLE_SENDER, error)))
    return FALSE;
  ok = do_commit (transport, buffer, timeout, cancellable, error);
  ferry_segment_transport_exit (SELF (transport));
  return ok;
}

static gboolean
ferry_segment_transport_wait (FerryTransport *transport, GIOCondition condition, gint64 timeout,
                              GCancellable *cancellable, GError **error)
{
  gboolean ok;

  if (!ferry_segment_transport_enter (SELF (transport), PRIVATE (SELF (transport))->segment.role, error))
    return FALSE;
  ok = do_wait (transport, condition, timeout, cancellable, error);
  ferry_segment_transport_exit (SELF (transport));
  return ok;
}

static gboolean
ferry_segment_transport_mark (FerryTransport *transport, guint64 *mark, GError **error)
{
  gboolean ok;

  if (!ferry_segment_transport_enter (SELF (transport), FERRY_ROLE_SENDER, error))
    return FALSE;
  ok = do_mark (transport, mark, error);
  ferry_segment_transport_exit (SELF (transport));
  return ok;
}

static gboolean
ferry_segment_transport_flush_mark (FerryTransport *transport, guint64 mark, gint64 timeout, GCancellable *cancellable,
                                    GError **error)
{
  gboolean ok;

  if (!ferry_segment_transport_enter (SELF (transport), FERRY_ROLE_SENDER, error))
    return FALSE;
  ok = do_flush_mark (transport, mark, timeout, cancellable, error);
  ferry_segment_transport_exit (SELF (transport));
  return ok;
}

static gboolean
ferry_segment_transport_flush (FerryTransport *transport, gint64 timeout, GCancellable *cancellable, GError **error)
{
  guint64 mark;

  return ferry_segment_transport_mark (transport, &mark, error)
         && ferry_segment_transport_flush_mark (transport, mark, timeout, cancellable, error);
}

static int
ferry_segment_transport_get_fd (FerryTransport *transport, GError **error)
{
  int fd;

  if (!ferry_segment_transport_enter (SELF (transport), PRIVATE (SELF (transport))->segment.role, error))
    return -1;
  fd = do_get_fd (transport, error);
  ferry_segment_transport_exit (SELF (transport));
  return fd;
}

static GIOCondition
ferry_segment_transport_check (FerryTransport *transport, GIOCondition condition)
{
  GIOCondition ready;

  if (!ferry_segment_transport_enter (SELF (transport), PRIVATE (SELF (transport))->segment.role, NULL))
    return G_IO_HUP;
  ready = do_check (transport, condition);
  ferry_segment_transport_exit (SELF (transport));
  return ready;
}

static gboolean
ferry_segment_transport_end_of_stream (FerryTransport *transport, GError **error)
{
  gboolean ok;

  if (!ferry_segment_transport_enter (SELF (transport), FERRY_ROLE_SENDER, error))
    return FALSE;
  ok = do_end_of_stream (transport, error);
  ferry_segment_transport_exit (SELF (transport));
  return ok;
}

static gboolean
ferry_segment_transport_shut_down (FerryTransport *transport, GError **error)
{
  gboolean ok;

  if (!ferry_segment_transport_enter (SELF (transport), PRIVATE (SELF (transport))->segment.role, error))
    return FALSE;
  ok = do_shut_down (transport, error);
  ferry_segment_transport_exit (SELF (transport));
  return ok;
}

static gsize
ferry_segment_transport_trim (FerryTransport *transport)
{
  gsize got;

  if (!ferry_segment_transport_enter (SELF (transport), PRIVATE (SELF (transport))->segment.role, NULL))
    return 0;
  got = do_trim (transport);
  ferry_segment_transport_exit (SELF (transport));
  return got;
}

/* ---- object ---- */

static void
ferry_segment_transport_dispose (GObject *object)
{
  ferry_segment_transport_close (FERRY_TRANSPORT (object), NULL);
  G_OBJECT_CLASS (ferry_segment_transport_parent_class)->dispose (object);
}

static void
ferry_segment_transport_finalize (GObject *object)
{
  FerrySegmentTransport *self = FERRY_SEGMENT_TRANSPORT (object);
  FerrySegmentTransportPrivate *priv = PRIVATE (self);

  ferry_segment_transport_reset (self);
  g_clear_pointer (&priv->config, ferry_channel_config_free);
  g_mutex_clear (&priv->leave_mutex);
  g_mutex_clear (&priv->events_mutex);
  G_OBJECT_CLASS (ferry_segment_transport_parent_class)->finalize (object);
}

static void
ferry_segment_transport_get_property (GObject *object, guint property_id, GValue *value, GParamSpec *pspec)
{
  FerrySegmentTransportPrivate *priv = PRIVATE (FERRY_SEGMENT_TRANSPORT (object));

  switch (property_id)
    {
    case PROP_WARM_BYTES:
      g_value_set_uint64 (value, priv->warm_bytes);
      break;
    case PROP_JOIN_LATE:
      g_value_set_boolean (value, priv->join_late);
      break;
    default:
      G_OBJECT_WARN_INVALID_PROPERTY_ID (object, property_id, pspec);
      break;
    }
}

static void
ferry_segment_transport_set_property (GObject *object, guint property_id, const GValue *value, GParamSpec *pspec)
{
  FerrySegmentTransportPrivate *priv = PRIVATE (FERRY_SEGMENT_TRANSPORT (object));

  switch (property_id)
    {
    case PROP_WARM_BYTES:
      if (priv->warm_bytes != g_value_get_uint64 (value))
        {
          priv->warm_bytes = g_value_get_uint64 (value);
          g_object_notify_by_pspec (object, pspec);
        }
      break;
    case PROP_JOIN_LATE:
      if (priv->join_late != g_value_get_boolean (value))
        {
          priv->join_late = g_value_get_boolean (value);
          g_object_notify_by_pspec (object, pspec);
        }
      break;
    default:
      G_OBJECT_WARN_INVALID_PROPERTY_ID (object, property_id, pspec);
      break;
    }
}

static void
ferry_segment_transport_init (FerrySegmentTransport *self)
{
  FerrySegmentTransportPrivate *priv = PRIVATE (self);

  priv->control_fd = priv->data_fd = -1;
  priv->segment.lock_fd = priv->segment.spare_fd = priv->segment.doorbell_fd = priv->segment.timer_fd
      = priv->segment.epoll_fd = -1;
  g_mutex_init (&priv->leave_mutex);
  g_mutex_init (&priv->events_mutex);
}

static void
ferry_segment_transport_class_init (FerrySegmentTransportClass *klass)
{
  GObjectClass *object_class = G_OBJECT_CLASS (klass);

  object_class->get_property = ferry_segment_transport_get_property;
  object_class->set_property = ferry_segment_transport_set_property;
  object_class->dispose = ferry_segment_transport_dispose;
  object_class->finalize = ferry_segment_transport_finalize;
  klass->commit_pages = ferry_segment_transport_default_commit;
  klass->decommit_pages = ferry_segment_transport_default_decommit;
  klass->map = ferry_segment_transport_default_map;
  klass->unmap = ferry_segment_transport_default_unmap;
  klass->wait_word = ferry_segment_transport_default_wait;
  klass->wake_word = ferry_segment_transport_default_wake;

  /**
   * FerrySegmentTransport:warm-bytes:
   *
   * How much memory, in bytes, the creator's end of an anonymous channel has ready for the first messages that fork children
   * send, which else wait until the kernel has found theirs: it is made real before a fork, or by
   * [method@SegmentTransport.warm_up], and children have it mapped when they begin. It counts against
   * [property@Channel:max-bytes], and is left out where it would be more than a small part of that. Given
   * back like other memory once it was used and lies idle. At most 256 KiB; 0: none.
   *
   * Since: 1.0
   */
  properties[PROP_WARM_BYTES]
      = g_param_spec_uint64 ("warm-bytes", NULL, NULL, 0, FERRY_WARM_MAX, 0,
                             G_PARAM_READWRITE | G_PARAM_STATIC_STRINGS | G_PARAM_EXPLICIT_NOTIFY);

  /**
   * FerrySegmentTransport:join-late:
   *
   * Whether an end that joins an anonymous channel is no participant yet when it is open, but becomes one
   * with its first call. Until then others notice nothing of it; all that takes longer is done by then. Channels are
   * joined at once when they are opened by name.
   *
   * Since: 1.0
   */
  properties[PROP_JOIN_LATE] = g_param_spec_boolean (
      "join-late", NULL, NULL, FALSE, G_PARAM_READWRITE | G_PARAM_STATIC_STRINGS | G_PARAM_EXPLICIT_NOTIFY);

  g_object_class_install_properties (object_class, N_PROPERTIES, properties);
}

static void
ferry_segment_transport_iface_init (FerryTransportInterface *iface)
{
  iface->open = ferry_segment_transport_open;
  iface->close = ferry_segment_transport_close;
  iface->loan = ferry_segment_transport_loan;
  iface->commit = ferry_segment_transport_commit;
  iface->send = ferry_segment_transport_send;
  iface->take = ferry_segment_transport_take;
  iface->release = ferry_segment_transport_release;
  iface->privatize = ferry_segment_transport_privatize;
  iface->wait = ferry_segment_transport_wait;
  iface->wake = ferry_segment_transport_wake;
  iface->get_fd = ferry_segment_transport_get_fd;
  iface->check = ferry_segment_transport_check;
  iface->flush = ferry_segment_transport_flush;
  iface->mark = ferry_segment_transport_mark;
  iface->flush_mark = ferry_segment_transport_flush_mark;
  iface->end_of_stream = ferry_segment_transport_end_of_stream;
  iface->shut_down = ferry_segment_transport_shut_down;
  iface->get_statistics = ferry_segment_transport_get_statistics;
  iface->list_participants = ferry_segment_transport_list_participants;
  iface->poll_events = ferry_segment_transport_poll_events;
  iface->trim = ferry_segment_transport_trim;
  iface->verify = ferry_segment_transport_verify;
  iface->list_channels = ferry_segment_transport_list_channels;
  iface->probe_channel = ferry_segment_transport_probe_channel;
  iface->sweep_channel = ferry_segment_transport_sweep_channel;
}
