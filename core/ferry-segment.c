/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Layout, participants, the lock and repair of docs/memory-model.md, sections 1, 2 and 5. */

#include "ferry-segment-private.h"

#include "ferry-error.h"
#include "ferry-store-ticket-private.h"
#include "ferry-transport-private.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

/* Where the liveness bytes lie in the control file: far beyond its end. */
#define LIVENESS_OFFSET (G_GINT64_CONSTANT (1) << 62)
/* The lock: first and longest pause between two tries, in microseconds. */
#define LOCK_PAUSE_MIN_US (20)
#define LOCK_PAUSE_MAX_US (5000)
/* A repair takes microseconds. Many of them, or one in a segment that somebody scribbled over, must not make the call
 * that came upon them late. */
#define REPAIR_SLICE_US (50 * 1000)
/* So many ends are prepared in a fork child: some 25 us each. */
#define FORK_PREPARE_MAX (16)
#define PAGE (4096)
/* Of Linux 5.14; the C library may be older. */
#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE (23)
#endif

/* ---- fork ---- */

/* Counts the forks that led to this process. */
guint ferry_fork_generation;

__thread char ferry_thread_mark __attribute__ ((tls_model ("initial-exec")));

/* In this order. */
static pthread_mutex_t refork_mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_mutex_t segments_mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_mutex_t process_mutex = PTHREAD_MUTEX_INITIALIZER;
static GPtrArray *segments; /* unowned */

static void copy_all_private (FerrySegment *self);

/* Calls a function for the ends that are prepared in fork children; the youngest first: they are the most likely to be what
 * the child is made for. */
static guint
for_prepared (void (*func) (FerrySegment *self))
{
  guint n = 0;

  for (guint i = segments != NULL ? segments->len : 0; i-- > 0 && n < FORK_PREPARE_MAX;)
    {
      FerrySegment *self = g_ptr_array_index (segments, i);

      if (!self->is_prepared || atomic_load_explicit (&self->closed, memory_order_relaxed))
        continue;
      func (self);
      n++;
    }
  return n;
}

static void
warm_up (FerrySegment *self)
{
  ferry_segment_transport_warm_up (self->transport);
}

static void
atfork_prepare (void)
{
  pthread_mutex_lock (&refork_mutex);
  pthread_mutex_lock (&segments_mutex);
  /* What one end makes real the others map, for the child inherits mappings. */
  for_prepared (warm_up);
  for_prepared (ferry_arena_map_warm);
  pthread_mutex_lock (&process_mutex);
  for (guint i = 0; segments != NULL && i < segments->len; i++)
    copy_all_private (g_ptr_array_index (segments, i));
  ferry_store_lock_open ();
}

static void
atfork_parent (void)
{
  ferry_store_unlock_open ();
  pthread_mutex_unlock (&process_mutex);
  pthread_mutex_unlock (&segments_mutex);
  pthread_mutex_unlock (&refork_mutex);
}

static void
close_fd (int *fd)
{
  if (*fd >= 0)
    close (*fd);
  *fd = -1;
}

static void forget_private_chunks (FerrySegment *self);
static void look_at_own_process (void);

/* The child is nobody yet: the descriptions that prove its parent alive are not the child's to keep. */
static void
atfork_child (void)
{
  ferry_fork_generation++;
  for (guint i = 0; segments != NULL && i < segments->len; i++)
    {
      FerrySegment *self = g_ptr_array_index (segments, i);

      close_fd (&self->lock_fd);
      close_fd (&self->spare_fd);
      close_fd (&self->doorbell_fd);
      close_fd (&self->timer_fd);
      close_fd (&self->epoll_fd);
      forget_private_chunks (self);
    }
  /* A first call would wait for it. */
  if (for_prepared (ferry_segment_prepare) > 0)
    look_at_own_process ();
  atfork_parent ();
}

/* ---- private pages ---- */

static guint64
round_page (guint64 size)
{
  return (size + PAGE - 1) & ~(guint64) (PAGE - 1);
}

/* How much of a channel's memory, and of its blocks of a size, may be held so: who collects messages must not stop the
 * senders. */
#define PRIVATE_SHARE (4)
/* Each takes two more mappings, of which a process has 65530 (vm.max_map_count). */
#define PRIVATE_MAX (1024)

static guint64
block_offset (FerrySegment *self, guint32 block)
{
  guint klass = FERRY_BLOCK_CLASS (block);

  return self->data_offset + self->classes[klass].data_offset
         + (guint64) FERRY_BLOCK_INDEX (block) * ferry_arena_class_size (klass);
}

/* Puts the shared pages back. */
static gboolean
map_shared (FerrySegment *self, const FerryPrivatePages *pages, guint8 *begin, gsize length)
{
  return mmap (begin, length, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED | MAP_NORESERVE,
               ferry_segment_transport_get_data_fd (self->transport),
               (off_t) (block_offset (self, pages->block) + (guint64) (begin - pages->data)))
         != MAP_FAILED;
}

/* The most that may be held so, in bytes. A tmpfs may be smaller than the channel may become (in containers it usually
 * is), and is everybody's. */
static guint64
private_limit (FerrySegment *self)
{
  struct statvfs fs;
  guint64 limit = self->max_bytes / PRIVATE_SHARE;

  if (fstatvfs (ferry_segment_transport_get_data_fd (self->transport), &fs) == 0 && fs.f_blocks > 0)
    limit = MIN (limit, MIN ((guint64) fs.f_blocks / PRIVATE_SHARE, (guint64) fs.f_bavail) * fs.f_frsize);
  return limit;
}

/* Private: makes the pages of a received block that hold these bytes private to this process, copied when it first
 * writes there. FALSE when that can't be, or enough is held so already. */
gboolean
ferry_segment_privatize (FerrySegment *self, guint32 block, guint8 *data, gsize message_size, gsize offset, gsize size)
{
  guint8 *end = data + round_page (offset + size);
  FerryPrivatePages pages = { .data = data, .size = message_size, .block = block };
  guint64 held = message_size;
  guint64 limit;
  gboolean ok;

  if (!self->data_writable || !ferry_segment_transport_maps_by_descriptor (self->transport)
      || sysconf (_SC_PAGESIZE) != PAGE)
    return FALSE;
  pages.begin = data + (offset & ~(gsize) (PAGE - 1));
  pages.length = (gsize) (end - pages.begin);
  limit = private_limit (self);

  pthread_mutex_lock (&segments_mutex);
  if (self->private_pages == NULL)
    self->private_pages = g_array_new (FALSE, FALSE, sizeof (FerryPrivatePages));
  ok = self->private_pages->len < MIN (PRIVATE_MAX, self->classes[FERRY_BLOCK_CLASS (block)].n_blocks / PRIVATE_SHARE)
       && !atomic_load_explicit (&self->closed, memory_order_seq_cst);
  for (guint i = 0; i < self->private_pages->len && ok; i++)
    {
      const FerryPrivatePages *other = &g_array_index (self->private_pages, FerryPrivatePages, i);

      held += other->size;
      ok = other->block != block;
    }
  ok = ok && held <= limit;
  if (ok)
    {
      ok = mmap (pages.begin, pages.length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_FIXED | MAP_NORESERVE,
                 ferry_segment_transport_get_data_fd (self->transport),
                 (off_t) (block_offset (self, block) + (guint64) (pages.begin - data)))
           != MAP_FAILED;
      if (ok)
        g_array_append_val (self->private_pages, pages);
    }
  pthread_mutex_unlock (&segments_mutex);
  return ok;
}

/* Private: undoes ferry_segment_privatize(). */
FerryPublishResult
ferry_segment_publish (FerrySegment *self, guint32 block)
{
  FerryPublishResult result = FERRY_PUBLISH_DETACHED;

  pthread_mutex_lock (&segments_mutex);
  for (guint i = 0; self->private_pages != NULL && i < self->private_pages->len; i++)
    {
      FerryPrivatePages *pages = &g_array_index (self->private_pages, FerryPrivatePages, i);
      gboolean ok;

      if (pages->block != block)
        continue;
      ok = pages->moved ? map_shared (self, pages, pages->data, round_page (pages->size))
                        : map_shared (self, pages, pages->begin, pages->length);
      result = ok ? FERRY_PUBLISH_OK : FERRY_PUBLISH_FAILED;
      g_array_remove_index_fast (self->private_pages, i);
      break;
    }
  pthread_mutex_unlock (&segments_mutex);
  return result;
}

/* Private: nobody in this process needs the copy of a message any more. */
void
ferry_segment_forget_private (FerrySegment *self, guint8 *data, gsize size)
{
  madvise (data, round_page (size), MADV_DONTNEED);
}

/* Other threads may write there meanwhile, so nothing is moved: writing back what is there makes the page a copy. */
static void
own_pages (guint8 *begin, gsize length)
{
  for (guint8 *page = begin; page < begin + length; page += PAGE)
    {
      _Atomic guint8 *byte = (_Atomic guint8 *) page;
      guint8 value = atomic_load_explicit (byte, memory_order_relaxed);

      atomic_compare_exchange_strong_explicit (byte, &value, value, memory_order_relaxed, memory_order_relaxed);
    }
}

/* Puts private memory of the same contents in the place of shared pages. */
static gboolean
move_pages (guint8 *begin, gsize length, gboolean *moved)
{
  gpointer copy;

  if (length == 0)
    return TRUE;
  copy = mmap (NULL, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (copy == MAP_FAILED)
    return FALSE;
  memcpy (copy, begin, length);
  if (mremap (copy, length, length, MREMAP_MAYMOVE | MREMAP_FIXED, begin) == MAP_FAILED)
    {
      munmap (copy, length);
      return FALSE;
    }
  *moved = TRUE;
  return TRUE;
}

/* Makes a message what other memory is: this process's own, at the same address. FALSE when there is no memory for
 * that. Under the mutex of all segments. */
static gboolean
copy_private (FerryPrivatePages *pages)
{
  guint8 *behind = pages->begin + pages->length;

  if (pages->copied)
    return TRUE;
  own_pages (pages->begin, pages->length);
  pages->copied = move_pages (pages->data, (gsize) (pages->begin - pages->data), &pages->moved)
                  && move_pages (behind, (gsize) (pages->data + round_page (pages->size) - behind), &pages->moved);
  return pages->copied;
}

/* Before a fork. The child is to have the bytes, whatever becomes of the blocks. Without memory for a copy it sees what
 * its parent's block becomes. */
static void
copy_all_private (FerrySegment *self)
{
  for (guint i = 0; self->private_pages != NULL && i < self->private_pages->len; i++)
    copy_private (&g_array_index (self->private_pages, FerryPrivatePages, i));
}

/* Private: when the endpoint is closed: what is held so becomes this process's own memory, and the blocks are free.
 * Returns how many. */
guint
ferry_segment_detach_private (FerrySegment *self)
{
  guint32 blocks[PRIVATE_MAX];
  guint n_detached = 0;

  pthread_mutex_lock (&segments_mutex);
  for (guint i = self->private_pages != NULL ? self->private_pages->len : 0; i-- > 0 && n_detached < PRIVATE_MAX;)
    {
      FerryPrivatePages *pages = &g_array_index (self->private_pages, FerryPrivatePages, i);

      if (!copy_private (pages))
        continue;
      blocks[n_detached++] = pages->block;
      g_array_remove_index_fast (self->private_pages, i);
    }
  pthread_mutex_unlock (&segments_mutex);
  /* Not before: to free one may be the end of a store, which is a segment too. */
  for (guint i = 0; i < n_detached; i++)
    ferry_arena_free (self, blocks[i]);
  return n_detached;
}

/* In the child: where its parent's bytes are, the blocks are not to be seen any more. If the child joins, it maps them
 * anew elsewhere. */
static void
forget_private_chunks (FerrySegment *self)
{
  for (guint i = 0; self->private_pages != NULL && i < self->private_pages->len; i++)
    {
      const FerryPrivatePages *pages = &g_array_index (self->private_pages, FerryPrivatePages, i);
      guint klass = FERRY_BLOCK_CLASS (pages->block);
      gpointer *chunks = atomic_load_explicit (&self->classes[klass].chunks, memory_order_relaxed);

      if (chunks != NULL)
        chunks[FERRY_BLOCK_INDEX (pages->block) / self->classes[klass].blocks_per_chunk] = NULL;
    }
  if (self->private_pages != NULL)
    g_array_set_size (self->private_pages, 0);
}

/* ---- layout ---- */

#define STORE_DATA_FACTOR (4)
#define STORE_DATA_MIN (G_GUINT64_CONSTANT (64) << 20)
#define STORE_DATA_MAX (G_GUINT64_CONSTANT (1) << 40)

typedef struct
{
  guint64 bitmap_offset[FERRY_N_CLASSES];
  guint64 blocks_offset[FERRY_N_CLASSES];
  guint64 data_offset[FERRY_N_CLASSES];
  guint64 control_size;
  guint64 data_size;
} FerryLayout;

/* A store has no blocks: its data area is a heap of its own. */
static guint
class_blocks (guint32 mode, guint klass)
{
  return mode == FERRY_MODE_STORE ? 0 : ferry_arena_class_blocks (klass);
}

/* Address space for a store: room for fragments, within bounds. */
static guint64
store_data_size (guint64 max_bytes)
{
  return round_page (CLAMP (max_bytes, STORE_DATA_MIN / STORE_DATA_FACTOR, STORE_DATA_MAX / STORE_DATA_FACTOR)
                     * STORE_DATA_FACTOR);
}

static void
ferry_layout_compute (FerryLayout *layout, const FerrySegmentHeader *header)
{
  guint64 ring_slots = header->ring_slots;
  guint64 slot_stride = header->slot_stride;
  guint64 control = round_page (FERRY_OFFSET_RING + ring_slots * slot_stride);
  guint64 data = 0;

  for (guint c = 0; c < FERRY_N_CLASSES; c++)
    {
      guint n = class_blocks (header->mode, c);

      layout->bitmap_offset[c] = control;
      control += round_page ((n + 63) / 64 * sizeof (guint64));
      layout->blocks_offset[c] = control;
      control += round_page (n * sizeof (FerryBlock));
      layout->data_offset[c] = data;
      data += n * ferry_arena_class_size (c);
    }
  layout->control_size = control;
  layout->data_size = header->mode == FERRY_MODE_STORE ? store_data_size (header->max_bytes) : data;
}

static guint64
ring_slots_for (guint capacity, guint history)
{
  guint64 need = MAX ((guint64) capacity + history, 8);
  guint64 slots = 1;

  while (slots < need)
    slots <<= 1;
  return slots;
}

static guint64
slot_stride_for (guint inline_size)
{
  /* whole pairs of cache lines, which adjacent-line prefetchers fetch together */
  return (FERRY_SLOT_HEADER + (guint64) inline_size + 127) & ~G_GUINT64_CONSTANT (127);
}

static guint64
default_max_bytes (void)
{
  static _Atomic guint64 half_of_memory;
  guint64 bytes = atomic_load_explicit (&half_of_memory, memory_order_relaxed);

  if (bytes == 0)
    {
      bytes = (guint64) sysconf (_SC_PHYS_PAGES) * (guint64) sysconf (_SC_PAGESIZE) / 2;
      atomic_store_explicit (&half_of_memory, bytes, memory_order_relaxed);
    }
  return bytes;
}

static void
config_settings (const FerryChannelConfig *config, FerrySegmentHeader *header)
{
  FerryLayout layout;

  header->mode = config->mode;
  header->capacity = config->capacity > 0 ? config->capacity : FERRY_DEFAULT_CAPACITY;
  header->history = config->mode == FERRY_MODE_BROADCAST ? config->history : 0;
  header->slot_stride
      = (guint32) slot_stride_for (config->inline_size > 0 ? config->inline_size : FERRY_DEFAULT_INLINE);
  header->inline_size = header->slot_stride - FERRY_SLOT_HEADER;
  header->ring_slots = (guint32) ring_slots_for (header->capacity, header->history);
  header->max_bytes = config->max_bytes > 0 ? config->max_bytes : default_max_bytes ();
  header->n_participants = FERRY_MAX_PARTICIPANTS;
  header->n_classes = FERRY_N_CLASSES;
  ferry_layout_compute (&layout, header);
  header->control_size = layout.control_size;
  header->data_size = layout.data_size;
}

/* Private: what a new segment of these settings takes, sparse. */
gboolean
ferry_segment_measure (const FerryChannelConfig *config, guint64 *control_size, guint64 *data_size)
{
  FerrySegmentHeader header = { 0 };

  config_settings (config, &header);
  *control_size = header.control_size;
  *data_size = header.data_size;
  return TRUE;
}

/* Private: a broken segment. Always FALSE. */
gboolean
ferry_segment_set_corrupt (FerrySegment *self, GError **error, const char *what)
{
  g_set_error (error, FERRY_ERROR, FERRY_ERROR_CORRUPT,
               "%s: shared memory is corrupt: %s; no correct peer writes that. Close the channel in all programs and "
               "create it anew",
               self->label, what);
  return FALSE;
}

/* Private: the first thing to be called. */
void
ferry_segment_init (FerrySegment *self, FerrySegmentTransport *transport)
{
  static gsize once = 0;

  if (g_once_init_enter (&once))
    {
      pthread_atfork (atfork_prepare, atfork_parent, atfork_child);
      g_once_init_leave (&once, 1);
    }

  memset (self, 0, sizeof *self);
  self->transport = transport;
  g_weak_ref_init (&self->holder, transport);
  self->klass = FERRY_SEGMENT_TRANSPORT_GET_CLASS (transport);
  self->lock_fd = self->spare_fd = self->doorbell_fd = self->timer_fd = self->epoll_fd = -1;
  self->recent[0] = self->recent[1] = FERRY_NO_BLOCK;
  self->fork_generation = ferry_fork_generation;
  self->runtime_directory = ferry_store_tickets_runtime_directory ();
  g_mutex_init (&self->mutex);
  g_mutex_init (&self->cursor_mutex);
  g_mutex_init (&self->sleep_mutex);

  pthread_mutex_lock (&segments_mutex);
  if (segments == NULL)
    segments = g_ptr_array_new ();
  g_ptr_array_add (segments, self);
  pthread_mutex_unlock (&segments_mutex);
}

/* Private: unmaps and closes; does not leave. */
void
ferry_segment_clear (FerrySegment *self)
{
  pthread_mutex_lock (&segments_mutex);
  if (segments != NULL)
    g_ptr_array_remove_fast (segments, self);
  pthread_mutex_unlock (&segments_mutex);

  g_weak_ref_set (&self->holder, NULL); /* comes here more than once */
  ferry_store_tickets_clear (self);
  g_clear_pointer (&self->private_pages, g_array_unref);
  for (guint c = 0; c < FERRY_N_CLASSES; c++)
    {
      gpointer *chunks = atomic_load_explicit (&self->classes[c].chunks, memory_order_relaxed);

      for (guint i = 0; chunks != NULL && i < self->classes[c].n_chunks; i++)
        if (chunks[i] != NULL)
          self->klass->unmap (self->transport, chunks[i],
                              self->classes[c].blocks_per_chunk * ferry_arena_class_size (c));
      g_free (chunks);
      atomic_store_explicit (&self->classes[c].chunks, NULL, memory_order_relaxed);
    }
  if (self->control != NULL)
    self->klass->unmap (self->transport, self->control, self->control_size);
  self->control = NULL;
  self->me = NULL;
  close_fd (&self->lock_fd);
  close_fd (&self->spare_fd);
  close_fd (&self->doorbell_fd);
  close_fd (&self->timer_fd);
  close_fd (&self->epoll_fd);
  g_clear_pointer (&self->name, g_free);
  g_clear_pointer (&self->label, g_free);
}

/* Private: this process's end of a channel, or NULL; its memory stays mapped as long as the caller has the reference. */
FerrySegmentTransport *
ferry_segment_transport_find (const guint8 identity[16])
{
  FerrySegmentTransport *found = NULL;

  pthread_mutex_lock (&segments_mutex);
  for (guint i = 0; segments != NULL && found == NULL && i < segments->len; i++)
    {
      FerrySegment *self = g_ptr_array_index (segments, i);

      if (self->control != NULL && memcmp (self->identity, identity, sizeof self->identity) == 0)
        found = g_weak_ref_get (&self->holder);
    }
  pthread_mutex_unlock (&segments_mutex);
  return found;
}

const char *
ferry_segment_get_transport_name (FerrySegment *self)
{
  return ferry_transport_get_feature_name (FERRY_TRANSPORT (self->transport));
}

/* Maps the control area whose checked header is given. */
static gboolean
ferry_segment_map_control (FerrySegment *self, const FerrySegmentHeader *header, GError **error)
{
  FerryLayout layout;

  ferry_layout_compute (&layout, header);
  self->control = self->klass->map (self->transport, FERRY_SEGMENT_AREA_CONTROL, 0, header->control_size, TRUE, error);
  if (self->control == NULL)
    return FALSE;
  self->control_size = header->control_size;
  self->data_size = header->data_size;
  self->mode = (FerryMode) header->mode;
  self->capacity = header->capacity;
  self->ring_slots = header->ring_slots;
  self->ring_mask = header->ring_slots - 1;
  self->lap_shift = (guint) __builtin_ctzll (header->ring_slots);
  self->slot_stride = header->slot_stride;
  self->history = header->history;
  self->inline_max = header->inline_size;
  self->max_bytes = header->max_bytes;
  self->anonymous = header->anonymous != 0;
  memcpy (self->identity, header->identity, sizeof self->identity);

  self->tail = (_Atomic guint64 *) (void *) (self->control + FERRY_OFFSET_TAIL);
  self->head = (_Atomic guint64 *) (void *) (self->control + FERRY_OFFSET_HEAD);
  self->rx_sleeping = (_Atomic guint64 *) (void *) (self->control + FERRY_OFFSET_RX_SLEEPING);
  self->tx_sleeping = (_Atomic guint64 *) (void *) (self->control + FERRY_OFFSET_TX_SLEEPING);
  self->flush_sleeping = (_Atomic guint64 *) (void *) (self->control + FERRY_OFFSET_FLUSH_SLEEPING);
  self->shared = (FerrySegmentShared *) (void *) (self->control + FERRY_OFFSET_SHARED);
  self->class_used = (_Atomic guint32 *) (void *) (self->control + FERRY_OFFSET_CLASSES);
  self->records = (FerryParticipantRecord *) (void *) (self->control + FERRY_OFFSET_PARTICIPANTS);
  self->ring = self->control + FERRY_OFFSET_RING;
  for (guint c = 0; c < FERRY_N_CLASSES; c++)
    {
      guint64 size = ferry_arena_class_size (c);

      self->classes[c].bitmap = (_Atomic guint64 *) (void *) (self->control + layout.bitmap_offset[c]);
      self->classes[c].blocks = (FerryBlock *) (void *) (self->control + layout.blocks_offset[c]);
      self->classes[c].n_blocks = class_blocks (header->mode, c);
      self->classes[c].data_offset = layout.data_offset[c];
      self->classes[c].control_offset = layout.bitmap_offset[c];
      self->classes[c].blocks_per_chunk = (guint) MAX (FERRY_CHUNK_SIZE / size, 1);
      self->classes[c].n_chunks = self->classes[c].n_blocks / self->classes[c].blocks_per_chunk;
    }
  return TRUE;
}

/* Private: creator: writes the header into fresh memory and maps it. */
gboolean
ferry_segment_format (FerrySegment *self, const FerryChannelConfig *config, GError **error)
{
  FerrySegmentHeader header = { .magic = FERRY_SEGMENT_MAGIC,
                                .major = FERRY_SEGMENT_MAJOR,
                                .minor = FERRY_SEGMENT_MINOR,
                                .features = FERRY_SEGMENT_FEATURES,
                                .anonymous = config->name == NULL };

  config_settings (config, &header);
  if (getrandom (header.identity, sizeof header.identity, 0) != sizeof header.identity)
    {
      g_set_error (error, FERRY_ERROR, FERRY_ERROR_FAILED, "%s: getrandom: %s", self->label, g_strerror (errno));
      return FALSE;
    }
  /* the header, the first page of participants, and the ring */
  if (!self->klass->commit_pages (self->transport, FERRY_SEGMENT_AREA_CONTROL, 0, FERRY_OFFSET_PARTICIPANTS + PAGE,
                                  error)
      || !self->klass->commit_pages (self->transport, FERRY_SEGMENT_AREA_CONTROL, FERRY_OFFSET_RING,
                                     (guint64) header.ring_slots * header.slot_stride, error))
    return FALSE;
  if (!ferry_segment_map_control (self, &header, error))
    return FALSE;
  memcpy (self->control, &header, sizeof header);
  return TRUE;
}

static gboolean
header_is_sane (const FerrySegmentHeader *header)
{
  FerryLayout layout;

  if (header->mode != FERRY_MODE_WORK_QUEUE && header->mode != FERRY_MODE_BROADCAST && header->mode != FERRY_MODE_STORE)
    return FALSE;
  if (header->capacity < FERRY_MIN_CAPACITY || header->capacity > FERRY_MAX_CAPACITY
      || header->history > FERRY_MAX_HISTORY)
    return FALSE;
  if (header->ring_slots != ring_slots_for (header->capacity, header->history))
    return FALSE;
  if (header->inline_size < FERRY_MIN_INLINE || header->inline_size > FERRY_MAX_INLINE
      || header->slot_stride != header->inline_size + FERRY_SLOT_HEADER || header->slot_stride % 128 != 0)
    return FALSE;
  if (header->n_participants != FERRY_MAX_PARTICIPANTS || header->n_classes != FERRY_N_CLASSES
      || header->max_bytes == 0)
    return FALSE;
  ferry_layout_compute (&layout, header);
  return header->control_size == layout.control_size && header->data_size == layout.data_size;
}

/* Private: joiner: checks the header and maps the control area. */
gboolean
ferry_segment_map (FerrySegment *self, GError **error)
{
  FerrySegmentHeader header;
  int fd = ferry_segment_transport_get_control_fd (self->transport);
  struct stat control_stat;
  struct stat data_stat;
  gssize n;

  /* Read, not mapped: a truncated file must not raise SIGBUS. */
  n = pread (fd, &header, sizeof header, 0);
  if (n != (gssize) sizeof header || fstat (fd, &control_stat) != 0
      || fstat (ferry_segment_transport_get_data_fd (self->transport), &data_stat) != 0)
    return ferry_segment_set_corrupt (self, error, "the control area is too short for a header");
  if (header.magic != FERRY_SEGMENT_MAGIC)
    return ferry_segment_set_corrupt (self, error, "it does not begin with the mark of a segment");
  if (header.major != FERRY_SEGMENT_MAJOR || (header.features & ~FERRY_SEGMENT_FEATURES) != 0)
    {
      g_set_error (error, FERRY_ERROR, FERRY_ERROR_VERSION,
                   "%s: it has layout %u.%u with features 0x%" G_GINT64_MODIFIER
                   "x, this library knows layout %u.x with features 0x%" G_GINT64_MODIFIER
                   "x; use the same version of Ferry on all sides",
                   self->label, header.major, header.minor, header.features, FERRY_SEGMENT_MAJOR,
                   FERRY_SEGMENT_FEATURES);
      return FALSE;
    }
  if (!header_is_sane (&header))
    return ferry_segment_set_corrupt (self, error, "its settings contradict each other");
  /* Both areas may lie in one file, the data behind the control area. */
  if ((guint64) data_stat.st_size != self->data_offset + header.data_size
      || control_stat.st_size != (self->data_offset > 0 ? data_stat.st_size : (goffset) header.control_size)
      || (self->data_offset > 0 && self->data_offset < header.control_size))
    return ferry_segment_set_corrupt (self, error, "it was truncated or extended");
  return ferry_segment_map_control (self, &header, error);
}

/* ---- the lock ---- */

/* Private: takes the lock of slow operations, unless that takes longer than @patience microseconds or the caller gives
 * up. */
gboolean
ferry_segment_lock_cancellable (FerrySegment *self, gint64 patience, GCancellable *cancellable, GError **error)
{
  gint64 started = 0;
  gulong pause = LOCK_PAUSE_MIN_US;
  gboolean first = FALSE; /* of this endpoint's threads */

  for (;;)
    {
      first = first || g_mutex_trylock (&self->mutex);
      if (first && flock (self->lock_fd, LOCK_EX | LOCK_NB) == 0)
        break;
      if (first && errno != EWOULDBLOCK && errno != EINTR)
        {
          int saved_errno = errno;

          g_mutex_unlock (&self->mutex);
          g_set_error (error, FERRY_ERROR, FERRY_ERROR_FAILED, "%s: can't lock the segment: %s", self->label,
                       g_strerror (saved_errno));
          return FALSE;
        }
      if (started == 0)
        started = g_get_monotonic_time ();
      if (g_cancellable_set_error_if_cancelled (cancellable, error))
        {
          if (first)
            g_mutex_unlock (&self->mutex);
          return FALSE;
        }
      if (g_get_monotonic_time () - started >= patience)
        {
          if (first)
            g_mutex_unlock (&self->mutex);
          g_set_error (error, FERRY_ERROR, FERRY_ERROR_TIMED_OUT,
                       "%s: another participant has held the lock of the segment for %g s; it is probably stopped "
                       "(SIGSTOP or a debugger): continue it or end it",
                       self->label, (double) patience / G_USEC_PER_SEC);
          return FALSE;
        }
      g_usleep (pause);
      pause = MIN (pause * 2, LOCK_PAUSE_MAX_US);
    }
  FERRY_STEP ("locked");
  return TRUE;
}

/* Private: likewise. Calls with a time-out of their own must not wait for a stopped holder longer than that. */
gboolean
ferry_segment_lock_within (FerrySegment *self, gint64 patience, GError **error)
{
  return ferry_segment_lock_cancellable (self, patience, NULL, error);
}

/* Private: takes the lock of slow operations. */
gboolean
ferry_segment_lock (FerrySegment *self, GError **error)
{
  return ferry_segment_lock_within (self, FERRY_LOCK_PATIENCE, error);
}

/* Private: undoes ferry_segment_lock(). */
void
ferry_segment_unlock (FerrySegment *self)
{
  FERRY_STEP ("before-unlock");
  flock (self->lock_fd, LOCK_UN);
  g_mutex_unlock (&self->mutex);
}

/* ---- liveness ---- */

typedef struct
{
  gint64 pid;
  guint64 start;
  guint64 namespace;
} FerryProcess;

typedef enum
{
  PROCESS_UNKNOWN, /* could not be looked at, which proves nothing */
  PROCESS_GONE,
  PROCESS_RUNS,
} ProcessState;

/* @start: the start time of a process in clock ticks, field 22 of proc(5). */
static ProcessState
process_look (gint64 pid, guint64 *start)
{
  char path[64];
  char text[1024];
  const char *p;
  gssize n;
  int fd;
  gboolean zombie;
  guint64 n_threads = 0;

  *start = 0;
  if (kill ((pid_t) pid, 0) != 0 && errno == ESRCH)
    return PROCESS_GONE;
  g_snprintf (path, sizeof path, "/proc/%" G_GINT64_FORMAT "/stat", pid);
  fd = open (path, O_RDONLY | O_CLOEXEC);
  if (fd < 0)
    return PROCESS_UNKNOWN; /* out of descriptors, or hidepid */
  n = read (fd, text, sizeof text - 1);
  close (fd);
  if (n <= 0)
    return PROCESS_UNKNOWN;
  text[n] = '\0';
  p = strrchr (text, ')'); /* the name before it may contain anything */
  if (p == NULL || p[1] != ' ')
    return PROCESS_UNKNOWN;
  p += 2; /* at field 3 */
  zombie = *p == 'Z' || *p == 'X';
  for (guint field = 3; field < 22; field++)
    {
      p = strchr (p, ' ');
      if (p == NULL)
        return PROCESS_UNKNOWN;
      p++;
      if (field + 1 == 20)
        n_threads = g_ascii_strtoull (p, NULL, 10);
    }
  *start = g_ascii_strtoull (p, NULL, 10);
  /* A process whose first thread ended while others run looks like a zombie, and is none. */
  return zombie && n_threads <= 1 ? PROCESS_GONE : PROCESS_RUNS;
}

/* Times in proc(5) count from the boot of the time namespace, so both namespaces must be the same. */
static guint64
namespace_number (const char *path)
{
  struct stat st;

  return stat (path, &st) == 0 ? (guint64) st.st_ino : 0;
}

static FerryProcess own_process; /* under process_mutex, of the process with this fork generation */
static guint own_process_generation = G_MAXUINT;

/* The caller has process_mutex. */
static void
look_at_own_process (void)
{
  own_process.pid = getpid ();
  if (process_look (own_process.pid, &own_process.start) != PROCESS_RUNS)
    own_process.start = 0;
  own_process.namespace = namespace_number ("/proc/self/ns/pid") | namespace_number ("/proc/self/ns/time") << 32;
  own_process_generation = ferry_fork_generation;
}

static const FerryProcess *
process_self (void)
{
  pthread_mutex_lock (&process_mutex);
  if (own_process_generation != ferry_fork_generation)
    look_at_own_process ();
  pthread_mutex_unlock (&process_mutex);
  return &own_process;
}

/* Whether nobody has the liveness lock of a used record: a system call, where looking at the process takes five. */
static gboolean
is_unlocked (FerrySegment *self, guint id)
{
  struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = LIVENESS_OFFSET + id, .l_len = 1 };

  return !(self->joined && id == self->id) && fcntl (self->lock_fd, F_OFD_GETLK, &lock) == 0 && lock.l_type == F_UNLCK;
}

/* Private: whether the participant of a used record is known to be dead. */
gboolean
ferry_segment_is_dead (FerrySegment *self, guint id)
{
  FerryParticipantRecord *record = &self->records[id];
  const FerryProcess *here;
  gint64 pid;
  guint64 start;
  guint64 found;

  if (self->joined && id == self->id)
    return FALSE;
  if (is_unlocked (self, id))
    return TRUE;

  /* The lock may have outlived its process in a child made by a bare clone(). */
  here = process_self ();
  pid = record->pid;
  start = record->pid_start;
  if (here->namespace == 0 || record->pid_namespace != here->namespace || start == 0 || pid <= 0 || pid == here->pid)
    return FALSE;
  switch (process_look (pid, &found))
    {
    case PROCESS_GONE:
      return TRUE;
    case PROCESS_RUNS:
      return found != start;
    case PROCESS_UNKNOWN:
    default:
      return FALSE; /* the lock says that it lives */
    }
}

/* ---- join, leave ---- */

static gboolean
record_in_use (FerrySegment *self, guint id)
{
  return ferry_record_state (atomic_load_explicit (&self->records[id].word, memory_order_acquire)) != FERRY_RECORD_FREE;
}

static guint64
clear_bit (_Atomic guint64 *bitmap, guint id)
{
  return atomic_fetch_and_explicit (&bitmap[id / 64], ~(G_GUINT64_CONSTANT (1) << (id % 64)), memory_order_seq_cst);
}

/* The record becomes free; its counters go to the totals. Under the lock. */
static void
release_record (FerrySegment *self, guint id, gboolean died)
{
  FerryParticipantRecord *record = &self->records[id];
  FerrySegmentShared *shared = self->shared;
  guint64 word = atomic_load_explicit (&record->word, memory_order_acquire);
  gboolean sender = ferry_record_role (word) == FERRY_ROLE_SENDER;
  guint64 messages = atomic_load_explicit (&record->messages[0], memory_order_relaxed)
                     + atomic_load_explicit (&record->messages[1], memory_order_relaxed);
  guint64 bytes = atomic_load_explicit (&record->bytes[0], memory_order_relaxed)
                  + atomic_load_explicit (&record->bytes[1], memory_order_relaxed);

  atomic_fetch_add_explicit (sender ? &shared->messages_sent : &shared->messages_received, messages,
                             memory_order_relaxed);
  atomic_fetch_add_explicit (sender ? &shared->bytes_sent : &shared->bytes_received, bytes, memory_order_relaxed);
  atomic_fetch_add_explicit (sender ? &shared->send_waits : &shared->receive_waits,
                             atomic_load_explicit (&record->waits, memory_order_relaxed), memory_order_relaxed);
  if (sender) /* what a receiver missed is what a sender discarded: once is enough */
    atomic_fetch_add_explicit (&shared->messages_dropped, atomic_load_explicit (&record->dropped, memory_order_relaxed),
                               memory_order_relaxed);
  for (guint i = 0; i < 2; i++)
    {
      atomic_store_explicit (&record->messages[i], 0, memory_order_relaxed);
      atomic_store_explicit (&record->bytes[i], 0, memory_order_relaxed);
    }
  atomic_store_explicit (&record->waits, 0, memory_order_relaxed);
  atomic_store_explicit (&record->dropped, 0, memory_order_relaxed);
  clear_bit (self->rx_sleeping, id);
  clear_bit (self->tx_sleeping, id);
  clear_bit (self->flush_sleeping, id);
  atomic_store_explicit (&record->doorbell, 0, memory_order_relaxed);
  atomic_store_explicit (&record->exit_died, died, memory_order_relaxed);
  atomic_store_explicit (&record->exit_incarnation, ferry_record_incarnation (word), memory_order_relaxed);
  FERRY_STEP ("record-before-free");
  atomic_store_explicit (
      &record->word, ferry_record_word (ferry_record_incarnation (word), ferry_record_role (word), FERRY_RECORD_FREE),
      memory_order_seq_cst);
  atomic_fetch_add_explicit (&shared->epoch, 1, memory_order_seq_cst);
}

typedef struct
{
  guint32 block;
  guint64 word;
  gboolean is_named; /* by a slot, with its generation */
} FerryCandidate;

/* Section 5: undoes or finishes what a dead participant began. Under the lock. */
static void
repair (FerrySegment *self, guint dead)
{
  g_autoptr (GArray) candidates = g_array_new (FALSE, FALSE, sizeof (FerryCandidate));
  g_autoptr (GHashTable) by_block = g_hash_table_new (NULL, NULL); /* place among the candidates, plus 1 */

  FERRY_STEP ("repair-begin");
  if (self->mode == FERRY_MODE_STORE)
    ferry_store_repair_participant (self->store, dead);
  for (guint64 i = 0; i < self->ring_slots; i++)
    {
      FerrySlot *slot = ferry_segment_slot (self, i);
      guint64 w = atomic_load_explicit (&slot->word, memory_order_acquire);

      if (ferry_word_owner (w) != dead)
        continue;
      if (ferry_word_state (w) == FERRY_SLOT_WRITING)
        atomic_compare_exchange_strong_explicit (&slot->word, &w, ferry_word (ferry_word_lap (w), 0, FERRY_SLOT_VOID),
                                                 memory_order_seq_cst, memory_order_relaxed);
      else if (ferry_word_state (w) == FERRY_SLOT_TAKEN && self->mode == FERRY_MODE_WORK_QUEUE)
        atomic_compare_exchange_strong_explicit (&slot->word, &w,
                                                 ferry_word (ferry_word_lap (w), 0, FERRY_SLOT_COMMITTED),
                                                 memory_order_seq_cst, memory_order_relaxed);
      else if (ferry_word_state (w) == FERRY_SLOT_TAKEN)
        ferry_ring_finish_taken (self, slot, w);
      FERRY_STEP ("repair-slot");
    }

  /* First the blocks that carry its name, then the slots: see section 5 for why in this order. */
  for (guint c = 0; c < FERRY_N_CLASSES; c++)
    {
      guint n = MIN (atomic_load_explicit (&self->class_used[c], memory_order_acquire), self->classes[c].n_blocks);

      for (guint i = 0; i < n; i++)
        {
          FerryBlock *block = &self->classes[c].blocks[i];
          FerryCandidate candidate
              = { FERRY_BLOCK_REF (c, i), atomic_load_explicit (&block->word, memory_order_acquire), FALSE };

          if (ferry_word_owner (candidate.word) != dead)
            continue;
          if (ferry_word_state (candidate.word) == FERRY_BLOCK_OWNED)
            {
              g_array_append_val (candidates, candidate);
              g_hash_table_insert (by_block, GUINT_TO_POINTER (candidate.block), GUINT_TO_POINTER (candidates->len));
            }
          else if (ferry_word_state (candidate.word) == FERRY_BLOCK_TRIMMING)
            ferry_arena_finish_trim (self, candidate.block, candidate.word);
        }
    }
  for (guint64 i = 0; i < self->ring_slots; i++)
    {
      FerrySlot *slot = ferry_segment_slot (self, i);
      guint state = ferry_word_state (atomic_load_explicit (&slot->word, memory_order_acquire));
      guint at = 0;

      if (state == FERRY_SLOT_COMMITTED || state == FERRY_SLOT_TAKEN)
        at = GPOINTER_TO_UINT (g_hash_table_lookup (by_block, GUINT_TO_POINTER (ferry_slot_block (slot))));
      /* A slot of another reclaimer that died may name an earlier generation: what it named is gone. */
      if (at > 0)
        {
          FerryCandidate *candidate = &g_array_index (candidates, FerryCandidate, at - 1);

          if (ferry_word_lap (candidate->word) == __atomic_load_n (&slot->generation, __ATOMIC_RELAXED))
            candidate->is_named = TRUE;
        }
    }
  for (guint i = 0; i < candidates->len; i++)
    {
      FerryCandidate *candidate = &g_array_index (candidates, FerryCandidate, i);

      if (!candidate->is_named)
        ferry_arena_force_free (self, candidate->block, candidate->word);
      FERRY_STEP ("repair-block");
    }
  for (guint c = 0; c < FERRY_N_CLASSES; c++)
    {
      guint n = MIN (atomic_load_explicit (&self->class_used[c], memory_order_acquire), self->classes[c].n_blocks);

      for (guint i = 0; i < n; i++)
        {
          FerryBlock *block = &self->classes[c].blocks[i];

          clear_bit (block->holders, dead);
          ferry_arena_free_if_unheld (self, FERRY_BLOCK_REF (c, i));
        }
    }
  FERRY_STEP ("repair-holders");
  ferry_arena_recount (self);
  FERRY_STEP ("repair-recounted");
  atomic_fetch_add_explicit (&self->shared->repairs, 1, memory_order_relaxed);
  release_record (self, dead, TRUE);
  FERRY_STEP ("repair-released");
  ferry_waiter_wake_everybody (self);
  FERRY_STEP ("repair-woken");
}

/* What is in a store only those see who have mapped it. */
static gboolean
can_repair (FerrySegment *self)
{
  return self->mode != FERRY_MODE_STORE || self->store != NULL;
}

/* Returns how many were repaired, at least one if any is dead; after @patience microseconds the others are left for the
 * next time. Under the lock. */
static guint
repair_dead_locked (FerrySegment *self, gboolean (*is_dead) (FerrySegment *self, guint id), gint64 patience)
{
  gint64 end = g_get_monotonic_time () + patience;
  guint n_repaired = 0;

  for (guint id = 0; id < ferry_segment_n_records (self); id++)
    if (record_in_use (self, id) && can_repair (self) && is_dead (self, id))
      {
        repair (self, id);
        n_repaired++;
        if (g_get_monotonic_time () > end)
          break;
      }
  return n_repaired;
}

/* Private: looks for dead participants and repairs what they left. Returns their number. */
guint
ferry_segment_repair_dead (FerrySegment *self, gint64 patience)
{
  gboolean any = FALSE;
  guint n_repaired = 0;

  if (self->lock_fd < 0 || !can_repair (self))
    return 0;
  for (guint id = 0; id < ferry_segment_n_records (self) && !any; id++)
    any = record_in_use (self, id) && ferry_segment_is_dead (self, id);
  if (any && ferry_segment_lock_within (self, patience, NULL))
    {
      n_repaired = repair_dead_locked (self, ferry_segment_is_dead, MAX (patience, REPAIR_SLICE_US));
      ferry_segment_unlock (self);
    }
  return n_repaired;
}

/* Private: how many active participants have the role. */
guint
ferry_segment_count_role (FerrySegment *self, FerryRole role)
{
  guint n = 0;

  for (guint id = 0; id < ferry_segment_n_records (self); id++)
    {
      guint64 word = atomic_load_explicit (&self->records[id].word, memory_order_acquire);

      n += ferry_record_state (word) == FERRY_RECORD_ACTIVE && ferry_record_role (word) == role;
    }
  return n;
}

/* A description of our own: its locks are ours alone. Here and where this is called nothing may be that a fork child of
 * a process with threads must not do. */
static int
open_description (FerrySegment *self, char *path, gsize path_size)
{
  snprintf (path, path_size, "/proc/self/fd/%d", ferry_segment_transport_get_control_fd (self->transport));
  return open (path, O_RDWR | O_CLOEXEC);
}

static gboolean
open_lock_fd (FerrySegment *self, GError **error)
{
  char path[64];

  self->lock_fd = self->spare_fd;
  self->spare_fd = -1;
  if (self->lock_fd < 0)
    self->lock_fd = open_description (self, path, sizeof path);
  if (self->lock_fd < 0)
    {
      g_set_error (error, FERRY_ERROR, errno == EACCES || errno == EPERM ? FERRY_ERROR_PERMISSION : FERRY_ERROR_FAILED,
                   "%s: can't open %s: %s; Ferry needs /proc and the right to write the channel's memory", self->label,
                   path, g_strerror (errno));
      return FALSE;
    }
  return TRUE;
}

static void
unlock_and_close (FerrySegment *self)
{
  ferry_segment_unlock (self);
  close_fd (&self->lock_fd);
}

/* Private: becomes a participant. @withdrawn: the segment can't be joined any more, and the
 * name is free; no error is set then. */
gboolean
ferry_segment_join (FerrySegment *self, FerryRole role, gboolean *withdrawn, GCancellable *cancellable, GError **error)
{
  const FerryProcess *here = process_self ();
  FerryParticipantRecord *record = NULL;
  guint n_alive = 0;
  guint64 word;
  guint id;
  guint32 flags;

  *withdrawn = FALSE;
  self->role = role;
  if (!open_lock_fd (self, error))
    return FALSE;
  if (role == FERRY_ROLE_OBSERVER)
    return TRUE;
  if (!ferry_segment_lock_cancellable (self, FERRY_LOCK_PATIENCE, cancellable, error))
    {
      close_fd (&self->lock_fd);
      return FALSE;
    }

  flags = atomic_load_explicit (&self->shared->flags, memory_order_acquire);
  /* Whether anybody is alive at all decides about a name. Otherwise the first look finds nearly all, and upkeep the rest. */
  repair_dead_locked (self, self->anonymous ? is_unlocked : ferry_segment_is_dead, G_MAXINT32);
  for (id = 0; id < ferry_segment_n_records (self); id++)
    n_alive += record_in_use (self, id) && (can_repair (self) || !ferry_segment_is_dead (self, id));
  if (!self->anonymous
      && ((flags & FERRY_SHARED_WITHDRAWN)
          || (n_alive == 0 && atomic_load_explicit (&self->shared->data_ready, memory_order_acquire))))
    {
      /* Also when it is marked already: who marked it may have died before the next step. */
      atomic_fetch_or_explicit (&self->shared->flags, FERRY_SHARED_WITHDRAWN, memory_order_seq_cst);
      FERRY_STEP ("join-marked");
      self->klass->withdraw (self->transport);
      *withdrawn = TRUE;
      unlock_and_close (self);
      return FALSE;
    }

  for (id = 0; id < FERRY_MAX_PARTICIPANTS; id++)
    {
      struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = LIVENESS_OFFSET + id, .l_len = 1 };
      guint64 offset = FERRY_OFFSET_PARTICIPANTS + (guint64) id * FERRY_PARTICIPANT_STRIDE;

      /* The first page was committed with the header. */
      if (id > 0 && id >= ferry_segment_n_records (self) && offset % PAGE == 0
          && !self->klass->commit_pages (self->transport, FERRY_SEGMENT_AREA_CONTROL, offset, PAGE, error))
        {
          unlock_and_close (self);
          return FALSE;
        }
      if (record_in_use (self, id) || fcntl (self->lock_fd, F_OFD_SETLK, &lock) != 0)
        continue;
      record = &self->records[id];
      break;
    }
  if (record == NULL)
    {
      unlock_and_close (self);
      g_set_error (error, FERRY_ERROR, FERRY_ERROR_TOO_MANY,
                   "%s: it has %d participants, the most a channel can have; close some endpoints, or use a channel "
                   "for each group",
                   self->label, FERRY_MAX_PARTICIPANTS);
      return FALSE;
    }

  FERRY_STEP ("join-record");
  self->id = id;
  self->me = record;
  self->incarnation = ferry_record_incarnation (atomic_load_explicit (&record->word, memory_order_relaxed)) + 1;
  word = ferry_record_word (self->incarnation, role, FERRY_RECORD_JOINING);
  record->pid = here->pid;
  record->pid_start = here->start;
  record->pid_namespace = here->namespace;
  record->uid = getuid ();
  atomic_store_explicit (&record->ended, 0, memory_order_relaxed);
  atomic_store_explicit (&record->doorbell, 0, memory_order_relaxed);
  atomic_store_explicit (&record->word, word, memory_order_seq_cst);
  FERRY_STEP ("join-joining");
  if (id >= ferry_segment_n_records (self))
    atomic_store_explicit (&self->shared->n_records, id + 1, memory_order_release);
  FERRY_STEP ("join-counted");
  self->joined = TRUE;

  if (role == FERRY_ROLE_RECEIVER && self->mode == FERRY_MODE_BROADCAST)
    {
      /* Twice, see section 2: nobody overtakes us after the second reading. */
      for (guint i = 0; i < 2; i++)
        {
          guint64 tail = ferry_ring_find_tail (self);
          guint64 head = ferry_ring_advance_head (self);
          guint64 cursor = i == 0 ? 0 : atomic_load_explicit (&self->cursor, memory_order_relaxed);
          guint64 from = tail > self->history ? tail - self->history : 0;

          if (tail == G_MAXUINT64 || head == G_MAXUINT64)
            {
              release_record (self, id, FALSE);
              self->joined = FALSE;
              unlock_and_close (self);
              return ferry_segment_set_corrupt (self, error, "head and tail of the ring contradict its slots");
            }
          from = MAX (from, head);
          cursor = i == 0 ? from : MAX (cursor, MIN (from, tail));
          atomic_store_explicit (&self->cursor, cursor, memory_order_relaxed);
          atomic_store_explicit (&record->cursor, cursor, memory_order_seq_cst);
          if (i == 0)
            atomic_store_explicit (&record->word, ferry_record_word (self->incarnation, role, FERRY_RECORD_ACTIVE),
                                   memory_order_seq_cst);
          /* Pairs with the seq_cst load of the word in ferry_ring_min_cursor(). */
          atomic_thread_fence (memory_order_seq_cst);
        }
    }
  atomic_store_explicit (&record->word, ferry_record_word (self->incarnation, role, FERRY_RECORD_ACTIVE),
                         memory_order_seq_cst);
  atomic_store_explicit (&self->shared->data_ready, 1, memory_order_release);
  atomic_fetch_add_explicit (&self->shared->epoch, 1, memory_order_seq_cst);
  FERRY_STEP ("join-active");
  self->fork_generation = ferry_fork_generation;
  ferry_segment_unlock (self);
  ferry_waiter_wake_all (self, FERRY_SIDE_RX);
  ferry_waiter_wake_all (self, FERRY_SIDE_TX);
  return TRUE;
}

/* Private: stops being a participant; with views held, stays as a mere holder until called
 * again without. */
void
ferry_segment_leave (FerrySegment *self, gboolean views_held)
{
  guint n_others = 0;

  if (!self->joined || self->fork_generation != ferry_fork_generation)
    {
      self->joined = FALSE;
      close_fd (&self->lock_fd);
      close_fd (&self->spare_fd);
      return;
    }
  if (!ferry_segment_lock (self, NULL))
    {
      /* Somebody is stopped with the lock in hand. Closing ours tells the others that we are gone; but what we hold must
       * stay ours. */
      if (!views_held)
        {
          self->joined = FALSE;
          close_fd (&self->lock_fd);
        }
      return;
    }

  if (views_held)
    {
      ferry_store_tickets_leave (self, FALSE, FALSE);
      atomic_store_explicit (&self->me->word, ferry_record_word (self->incarnation, self->role, FERRY_RECORD_LEAVING),
                             memory_order_seq_cst);
      clear_bit (self->rx_sleeping, self->id);
      clear_bit (self->tx_sleeping, self->id);
      clear_bit (self->flush_sleeping, self->id);
      atomic_store_explicit (&self->me->doorbell, 0, memory_order_relaxed);
      atomic_fetch_add_explicit (&self->shared->epoch, 1, memory_order_seq_cst);
      ferry_segment_unlock (self);
    }
  else
    {
      repair_dead_locked (self, ferry_segment_is_dead, G_MAXINT32);
      for (guint id = 0; id < ferry_segment_n_records (self); id++)
        n_others
            += id != self->id && record_in_use (self, id) && (can_repair (self) || !ferry_segment_is_dead (self, id));
      FERRY_STEP ("leave-begin");
      ferry_store_tickets_leave (self, n_others == 0, n_others == 0 && !self->anonymous);
      if (n_others == 0 && !self->anonymous)
        {
          atomic_fetch_or_explicit (&self->shared->flags, FERRY_SHARED_WITHDRAWN, memory_order_seq_cst);
          FERRY_STEP ("leave-marked");
          self->klass->withdraw (self->transport);
          FERRY_STEP ("leave-withdrawn");
          /* This process may keep the mapping for a while; the pages need not stay. */
          if (self->data_writable && atomic_load_explicit (&self->shared->bytes_committed, memory_order_relaxed) > 0)
            self->klass->decommit_pages (self->transport, FERRY_SEGMENT_AREA_DATA, 0, self->data_size, NULL);
        }
      release_record (self, self->id, FALSE);
      FERRY_STEP ("leave-released");
      self->joined = FALSE;
      ferry_segment_unlock (self);
      close_fd (&self->lock_fd);
    }
  /* A broadcast receiver may have been the one that all waited for; receivers may be at the end now. */
  ferry_waiter_wake_all (self, FERRY_SIDE_RX);
  ferry_waiter_wake_all (self, FERRY_SIDE_TX);
  ferry_waiter_wake_all (self, FERRY_SIDE_FLUSH);
}

/* Private: memory that is real already, and is touched with the first call, is put into the page table: one page fault
 * takes longer than this does for many pages. A hint, for older kernels can't do that. */
void
ferry_segment_populate (gpointer address, gsize length)
{
  guint8 *begin = (guint8 *) address - (guintptr) address % PAGE;

  madvise (begin, round_page ((guint64) ((guint8 *) address + length - begin)), MADV_POPULATE_WRITE);
}

/* Private: does of joining what nobody else can see, before we join: a description for the lock, and the memory that the
 * first message needs in the page table. Done again in each fork child, for its first call would wait for it as well. Who
 * is killed here leaves nothing but a lock, which the kernel takes away. */
void
ferry_segment_prepare (FerrySegment *self)
{
  char path[64];

  /* Other memory is asked for in ways that may not go together with a fork. */
  self->is_prepared = ferry_segment_transport_maps_by_descriptor (self->transport);
  ferry_segment_populate (self->control, FERRY_OFFSET_PARTICIPANTS + PAGE);
  ferry_segment_populate (self->ring, 1);
  self->spare_fd = open_description (self, path, sizeof path);
  /* Under the lock nobody gives pages back, so that none is made real that is accounted for nowhere. */
  if (self->spare_fd >= 0 && flock (self->spare_fd, LOCK_EX | LOCK_NB) == 0)
    {
      FERRY_STEP ("prepare-locked");
      ferry_arena_populate (self);
      FERRY_STEP ("prepare-populated");
      flock (self->spare_fd, LOCK_UN);
    }
}

/* Private: an open end becomes a participant with its first call only. */
void
ferry_segment_postpone (FerrySegment *self, FerryRole role)
{
  self->role = role;
  self->is_late = TRUE;
  self->late_generation = ferry_fork_generation;
  self->fork_generation = ferry_fork_generation - 1; /* no process's */
}

/* Private: in a fork child, or where joining was put off, at the first use: joins as a participant of its own. */
gboolean
ferry_segment_refork (FerrySegment *self, GError **error)
{
  gboolean withdrawn = FALSE;
  gboolean ok = TRUE;

  pthread_mutex_lock (&refork_mutex);
  if (self->fork_generation != ferry_fork_generation)
    {
      /* Other threads of the parent may have held them at the fork. */
      if (!self->is_late || self->late_generation != ferry_fork_generation)
        {
          g_mutex_init (&self->mutex);
          g_mutex_init (&self->cursor_mutex);
          g_mutex_init (&self->sleep_mutex);
          ferry_store_tickets_refork (self);
          memset (self->n_sleepers, 0, sizeof self->n_sleepers);
          atomic_store_explicit (&self->inside_first, 0, memory_order_relaxed);
          atomic_store_explicit (&self->inside_others, 0, memory_order_relaxed);
        }
      self->joined = FALSE;
      self->me = NULL;
      self->first_thread = NULL;
      /* A sender's first call sends, and its receiver takes as long to wake up as we to join and send. */
      if (self->role == FERRY_ROLE_SENDER && self->mode == FERRY_MODE_WORK_QUEUE)
        ferry_waiter_wake_early (self);
      ok = ferry_segment_join (self, self->role, &withdrawn, NULL, error);
      if (ok)
        self->fork_generation = ferry_fork_generation;
      else if (withdrawn)
        g_set_error (error, FERRY_ERROR, FERRY_ERROR_CLOSED,
                     "%s: all its participants left before this end joined, which a fork child does at its first call; "
                     "open it where it is used",
                     self->label);
    }
  pthread_mutex_unlock (&refork_mutex);
  return ok;
}

/* Private: whether every live sender has ended, and at least one did. */
gboolean
ferry_segment_ended (FerrySegment *self)
{
  if (!(atomic_load_explicit (&self->shared->flags, memory_order_seq_cst) & FERRY_SHARED_ENDED))
    return FALSE;
  for (guint id = 0; id < ferry_segment_n_records (self); id++)
    {
      FerryParticipantRecord *record = &self->records[id];
      guint64 word = atomic_load_explicit (&record->word, memory_order_seq_cst);

      if ((ferry_record_state (word) == FERRY_RECORD_ACTIVE || ferry_record_state (word) == FERRY_RECORD_JOINING)
          && ferry_record_role (word) == FERRY_ROLE_SENDER
          && !atomic_load_explicit (&record->ended, memory_order_seq_cst))
        return FALSE;
    }
  return TRUE;
}

/* ---- verification ---- */

G_GNUC_PRINTF (3, 4)
static gboolean
violated (FerrySegment *self, GError **error, const char *format, ...)
{
  va_list args;
  g_autofree char *text = NULL;

  va_start (args, format);
  text = g_strdup_vprintf (format, args);
  va_end (args);
  return ferry_segment_set_corrupt (self, error, text);
}

static gboolean
id_in_use (FerrySegment *self, guint id)
{
  return id < ferry_segment_n_records (self) && record_in_use (self, id);
}

static gboolean
verify_locked (FerrySegment *self, GError **error)
{
  g_autoptr (GHashTable) named = g_hash_table_new (NULL, NULL);
  guint64 head = ferry_ring_advance_head (self);
  guint64 tail = ferry_ring_find_tail (self);
  guint64 sum = 0;
  struct stat st;

  if (head == G_MAXUINT64 || tail == G_MAXUINT64 || tail - head > self->ring_slots)
    return violated (self, error,
                     "head %" G_GUINT64_FORMAT " and tail %" G_GUINT64_FORMAT " contradict the %" G_GUINT64_FORMAT
                     " slots of the ring",
                     head, tail, self->ring_slots);

  for (guint64 position = head; position != head + self->ring_slots; position++)
    {
      FerrySlot *slot = ferry_segment_slot (self, position);
      guint64 w = atomic_load_explicit (&slot->word, memory_order_acquire);
      guint state = ferry_word_state (w);
      gint64 ahead = ferry_word_lap_ahead (w, position >> self->lap_shift);

      if (position >= tail ? (ahead != 0 || state != FERRY_SLOT_EMPTY)
                           : (ahead != 0 && !(ahead == 1 && state == FERRY_SLOT_EMPTY)))
        return violated (self, error, "slot of position %" G_GUINT64_FORMAT " has state %u, %d laps ahead", position,
                         state, (int) ahead);
      if (position >= tail || ahead != 0)
        continue;
      if ((state == FERRY_SLOT_WRITING || state == FERRY_SLOT_TAKEN) && !id_in_use (self, ferry_word_owner (w)))
        return violated (self, error, "slot of position %" G_GUINT64_FORMAT " is stuck in state %u of nobody", position,
                         state);
      if ((state == FERRY_SLOT_COMMITTED || state == FERRY_SLOT_TAKEN) && slot->block != FERRY_NO_BLOCK)
        {
          if (!ferry_arena_check_ref (self, slot->block, slot->size))
            return violated (self, error, "slot of position %" G_GUINT64_FORMAT " names no valid block", position);
          if (!g_hash_table_add (named, GUINT_TO_POINTER (slot->block)))
            return violated (self, error, "block 0x%x lies in two slots", slot->block);
        }
    }

  for (guint c = 0; c < FERRY_N_CLASSES; c++)
    {
      guint n = MIN (atomic_load_explicit (&self->class_used[c], memory_order_acquire), self->classes[c].n_blocks);

      for (guint i = 0; i < n; i++)
        {
          FerryBlock *block = &self->classes[c].blocks[i];
          guint32 ref = FERRY_BLOCK_REF (c, i);
          guint64 w = atomic_load_explicit (&block->word, memory_order_acquire);
          guint64 committed = atomic_load_explicit (&block->committed, memory_order_relaxed);
          guint64 reserved = atomic_load_explicit (&block->reserved, memory_order_relaxed);
          gboolean bit
              = (atomic_load_explicit (&self->classes[c].bitmap[i / 64], memory_order_acquire) >> (i % 64)) & 1;
          gboolean in_ring = g_hash_table_contains (named, GUINT_TO_POINTER (ref));
          gboolean held = FALSE;

          if (reserved > ferry_arena_class_size (c) || committed > reserved)
            return violated (self, error, "block 0x%x has %" G_GUINT64_FORMAT " of %" G_GUINT64_FORMAT " bytes", ref,
                             committed, reserved);
          sum += reserved;
          for (guint id = 0; id < FERRY_MAX_PARTICIPANTS; id++)
            if ((atomic_load_explicit (&block->holders[id / 64], memory_order_acquire) >> (id % 64)) & 1)
              {
                held = TRUE;
                if (!id_in_use (self, id))
                  return violated (self, error, "block 0x%x is held by participant %u, which does not exist", ref, id);
              }
          switch (ferry_word_state (w))
            {
            case FERRY_BLOCK_FREE:
              if (in_ring)
                return violated (self, error, "block 0x%x lies in the ring and is free", ref);
              if (!bit)
                return violated (self, error, "block 0x%x is free but not to be found: leaked", ref);
              break;
            case FERRY_BLOCK_OWNED:
              if (!in_ring && !id_in_use (self, ferry_word_owner (w)))
                return violated (self, error, "block 0x%x belongs to participant %u, which does not exist: leaked", ref,
                                 ferry_word_owner (w));
              break;
            case FERRY_BLOCK_RETIRED:
              if (!held)
                return violated (self, error, "block 0x%x is retired, held by nobody and not free: leaked", ref);
              break;
            default:
              return violated (self, error, "block 0x%x has state %u at rest", ref, ferry_word_state (w));
            }
        }
    }
  if (sum != atomic_load_explicit (&self->shared->bytes_committed, memory_order_relaxed))
    return violated (self, error, "blocks have %" G_GUINT64_FORMAT " bytes, the sum says %" G_GUINT64_FORMAT, sum,
                     (guint64) atomic_load_explicit (&self->shared->bytes_committed, memory_order_relaxed));
  if (self->data_offset == 0 && fstat (ferry_segment_transport_get_data_fd (self->transport), &st) == 0
      && self->mode != FERRY_MODE_STORE && (guint64) st.st_blocks * 512 > round_page (sum) && S_ISREG (st.st_mode))
    return violated (self, error,
                     "the data area takes %" G_GUINT64_FORMAT " bytes, blocks account for %" G_GUINT64_FORMAT,
                     (guint64) st.st_blocks * 512, sum);
  return TRUE;
}

/* Private: checks every invariant of a channel at rest: no slot stuck, no block leaked,
 * counters right. Dead participants are repaired first. */
gboolean
ferry_segment_verify (FerrySegment *self, GError **error)
{
  gboolean ok;

  ferry_segment_repair_dead (self, FERRY_LOCK_PATIENCE);
  if (!ferry_segment_lock (self, error))
    return FALSE;
  ok = verify_locked (self, error);
  ferry_segment_unlock (self);
  return ok;
}

/* ---- steps ---- */

#if FERRY_WITH_STEPS

extern const char *const __start_ferry_steps[];
extern const char *const __stop_ferry_steps[];

static char armed_name[64];
static void (*observer) (const char *name);
static _Atomic int armed_countdown;
static int armed_signal;

/* Tests only: at the @nth passing of the step this process gets the signal. */
void
ferry_step_arm (const char *name, guint nth, int signal)
{
  g_strlcpy (armed_name, name, sizeof armed_name);
  armed_signal = signal;
  atomic_store (&armed_countdown, (int) nth);
}

/* Tests only: from now on every passing of a step is told. */
void
ferry_step_observe (void (*func) (const char *name))
{
  observer = func;
}

/* Tests only: every step that was compiled in; a name may occur more than once. */
const char *const *
ferry_step_list (guint *n_steps)
{
  *n_steps = (guint) (__stop_ferry_steps - __start_ferry_steps);
  return __start_ferry_steps;
}

void
ferry_step (const char *name)
{
  static gsize once = 0;

  if (g_once_init_enter (&once))
    {
      const char *text = g_getenv ("FERRY_STEP_KILL"); /* NAME:NTH */
      const char *colon = text != NULL ? strchr (text, ':') : NULL;

      if (colon != NULL)
        {
          g_autofree char *step = g_strndup (text, (gsize) (colon - text));

          ferry_step_arm (step, (guint) atoi (colon + 1), SIGKILL);
        }
      g_once_init_leave (&once, 1);
    }
  if (G_UNLIKELY (observer != NULL))
    observer (name);
  if (G_LIKELY (atomic_load_explicit (&armed_countdown, memory_order_relaxed) <= 0) || strcmp (name, armed_name) != 0)
    return;
  if (atomic_fetch_sub (&armed_countdown, 1) == 1)
    raise (armed_signal);
}

#endif
