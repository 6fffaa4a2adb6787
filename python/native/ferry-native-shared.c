/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ferry-native.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

#define NPY_NO_DEPRECATED_API NPY_1_20_API_VERSION
#define PY_ARRAY_UNIQUE_SYMBOL ferry_native_numpy_api
#include <numpy/arrayobject.h>

/*
 * Blocks of shared memory in which arrays live, for as long as somebody has a view on them: docs/executor.md.
 *
 * A block is a memfd, which its owner keeps when nobody uses it, for touching fresh pages costs more than copying. Others
 * open it by the owner's descriptor in /proc, and hold a flock() on an open file description of their own as long as they
 * use it: the kernel drops it when they are gone, however that was. Nothing has a name, so nothing can be left behind.
 */

/* In each block's last page. */
typedef struct
{
  guint64 cookie;             /* descriptors and inodes are used again; this is not */
  _Atomic guint64 n_sent;     /* how often the owner gave it away with a result */
  _Atomic guint64 n_received; /* how often that was taken */
  _Atomic guint32 is_retired; /* the owner will not use it again: whoever has it mapped for later may let it go */
} Trailer;

typedef enum
{
  KIND_OWN,
  KIND_FOREIGN,
  KIND_PRIVATE,   /* somebody's contents; what is written is only here */
  KIND_ANONYMOUS, /* contents that were copied, at the address where a block was */
  KIND_INHERITED, /* of the process that forked this one */
} Kind;

static const char *const kind_names[] = { "own", "foreign", "private", "anonymous", "inherited" };

typedef struct _Block Block;

struct _Block
{
  guint8 *base; /* NULL: only the trailer is mapped, until somebody has taken it */
  gsize capacity;
  gsize mapped; /* bytes from base on */
  Trailer *trailer;
  Kind kind;
  int fd;
  dev_t device;
  ino_t inode;
  guint64 cookie;
  pid_t owner;
  guint n_users;       /* arrays and handles of this process */
  guint n_sent_now;    /* with the message that is being made */
  gboolean is_shared;  /* by its user's will, and not only for passing it on */
  gboolean was_forked; /* in use, so that a child may go on looking at it */
  Block *origin;       /* whose contents a private one has, in this process; NULL: fd */
  gint64 idle_since;
};

/* From this size on, in bytes, memory of arrays is shared memory where ferry_native_shared_use() was called. */
#define ARRAY_MIN (1024 * 1024)
#define PAGE ((gsize) 4096)
/* How many blocks a process owns, and how many of others it keeps mapped although it does not use them. */
#define OWN_MAX (64)
#define FOREIGN_IDLE_MAX (32)
#define PRIVATE_IDLE_MAX (4)
/* A block is used for something smaller if at most a third of it stays empty. */
#define FITS(capacity, size) ((capacity) >= (size) && (capacity) - (size) <= (capacity) / 3)

static GMutex lock;       /* of everything here; the GIL may be taken before it, not after it */
static GPtrArray *blocks; /* Block, by address */
static GPtrArray *ghosts; /* Block with only a trailer */
static gsize idle_max;    /* bytes that are kept for later */

/* ---- finding ---- */

/* How many blocks begin at or before the address. */
static guint
count_up_to (const guint8 *address)
{
  guint low = 0;
  guint high = blocks != NULL ? blocks->len : 0;

  while (low < high)
    {
      guint middle = (low + high) / 2;

      if (((Block *) blocks->pdata[middle])->base <= address)
        low = middle + 1;
      else
        high = middle;
    }
  return low;
}

static Block *
find_block (const guint8 *address)
{
  guint n = count_up_to (address);
  Block *block = n > 0 ? blocks->pdata[n - 1] : NULL;

  return block != NULL && address < block->base + block->capacity ? block : NULL;
}

static void
add_block (Block *block)
{
  if (blocks == NULL)
    {
      blocks = g_ptr_array_new ();
      ghosts = g_ptr_array_new ();
      idle_max = (gsize) sysconf (_SC_PHYS_PAGES) * (gsize) sysconf (_SC_PAGE_SIZE) / 8;
    }
  g_ptr_array_insert (blocks, (gint) count_up_to (block->base), block);
}

/* Takes it out of the table and gives back what it has. Pages that others map stay theirs. */
static void
drop_block (Block *block)
{
  g_ptr_array_remove (blocks, block);
  munmap (block->base, block->mapped);
  if (block->fd >= 0)
    close (block->fd);
  g_free (block);
}

/* ---- owning ---- */

/* Classes of sizes, eight for each power of two, so that similar arrays use the same blocks. */
static gsize
round_up_size (gsize size)
{
  gsize step = MAX (PAGE, ((gsize) 1 << (g_bit_storage (size) - 1)) / 8);

  return (size + step - 1) / step * step;
}

static gboolean
is_received (const Block *block)
{
  /* Pairs with the increment in attach_block(), which comes after the lock there was taken. */
  return atomic_load_explicit (&block->trailer->n_received, memory_order_acquire)
         == atomic_load_explicit (&block->trailer->n_sent, memory_order_relaxed);
}

static gboolean
is_free_of_others (const Block *block)
{
  if (block->kind != KIND_OWN || !is_received (block) || flock (block->fd, LOCK_EX | LOCK_NB) < 0)
    return FALSE;
  flock (block->fd, LOCK_UN);
  return TRUE;
}

static gboolean
is_free (const Block *block)
{
  return block->n_users == 0 && is_free_of_others (block);
}

/* Gives up a block of ours that nobody here uses. */
static void
retire_block (Block *block)
{
  gboolean free_now = !block->was_forked && is_free (block);

  atomic_store_explicit (&block->trailer->is_retired, 1, memory_order_release);
  /* Somebody may keep it mapped for later. */
  if (free_now)
    fallocate (block->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, (off_t) block->capacity);
  drop_block (block);
}

/* Lets ghosts go whose memory was taken. */
static void
reap_ghosts (void)
{
  for (guint i = 0; ghosts != NULL && i < ghosts->len;)
    {
      Block *ghost = ghosts->pdata[i];

      if (!is_received (ghost))
        {
          i++;
          continue;
        }
      munmap (ghost->trailer, PAGE);
      close (ghost->fd);
      g_free (ghost);
      g_ptr_array_remove_index_fast (ghosts, i);
    }
}

/* Retires idle blocks, the oldest first, until at most so much is kept. */
static void
trim_own (guint n_max, gsize bytes_max)
{
  for (;;)
    {
      Block *oldest = NULL;
      gsize bytes = 0;
      guint n = 0;

      for (guint i = 0; blocks != NULL && i < blocks->len; i++)
        {
          Block *block = blocks->pdata[i];

          n += block->kind == KIND_OWN;
          if (block->kind != KIND_OWN || block->n_users > 0 || !is_received (block))
            continue;
          bytes += block->capacity;
          if (oldest == NULL || block->idle_since < oldest->idle_since)
            oldest = block;
        }
      if (oldest == NULL || (n <= n_max && bytes <= bytes_max))
        return;
      retire_block (oldest);
    }
}

static guint64
make_cookie (void)
{
  return (guint64) g_random_int () << 32 | g_random_int ();
}

static Block *
create_block (gsize size)
{
  gsize capacity = round_up_size (size);
  struct stat status;
  guint8 *base = MAP_FAILED;
  Block *block;
  int fd = memfd_create ("ferry-array", MFD_CLOEXEC | MFD_ALLOW_SEALING);

  if (fd < 0 || ftruncate (fd, (off_t) (capacity + PAGE)) < 0
      || fcntl (fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0 || fstat (fd, &status) < 0
      || (base = mmap (NULL, capacity + PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0)) == MAP_FAILED)
    {
      if (fd >= 0)
        close (fd);
      return NULL;
    }
  block = g_new0 (Block, 1);
  block->base = base;
  block->capacity = capacity;
  block->mapped = capacity + PAGE;
  block->trailer = (Trailer *) (base + capacity);
  block->trailer->cookie = block->cookie = make_cookie ();
  block->kind = KIND_OWN;
  block->fd = fd;
  block->device = status.st_dev;
  block->inode = status.st_ino;
  block->owner = getpid ();
  add_block (block);
  return block;
}

/* A block with one user. @fresh: it is all zero. NULL: there is no memory, or there are too many. */
static Block *
allocate_block (gsize size, guint n_max, gboolean *fresh)
{
  Block *best = NULL;
  guint n = 0;

  *fresh = FALSE;
  reap_ghosts ();
  for (guint i = 0; blocks != NULL && i < blocks->len; i++)
    {
      Block *block = blocks->pdata[i];

      if (block->kind != KIND_OWN)
        continue;
      n++;
      if (!block->was_forked && FITS (block->capacity, size) && (best == NULL || block->capacity < best->capacity)
          && is_free (block))
        best = block;
    }
  if (best == NULL)
    {
      if (n >= n_max)
        {
          trim_own (n_max - 1, G_MAXSIZE);
          n = 0;
          for (guint i = 0; i < blocks->len; i++)
            n += ((Block *) blocks->pdata[i])->kind == KIND_OWN;
          if (n >= n_max)
            return NULL;
        }
      best = create_block (size);
      *fresh = TRUE;
    }
  if (best != NULL)
    {
      best->n_users = 1;
      best->is_shared = FALSE;
    }
  return best;
}

/* Whether some of the memory of a private block is as it was: pages that were written to are anonymous ones, see pagemap in
 * the kernel's documentation. */
#define PAGEMAP_IS_FILE ((guint64) 1 << 61)
#define PAGEMAP_IS_SWAPPED ((guint64) 1 << 62)
#define PAGEMAP_IS_PRESENT ((guint64) 1 << 63)

static gboolean
is_unchanged (const guint8 *start, gsize size)
{
  guint64 entries[4096];
  gsize first = GPOINTER_TO_SIZE (start) / PAGE;
  gsize last = (GPOINTER_TO_SIZE (start) + size - 1) / PAGE;
  gboolean unchanged = TRUE;
  int fd = open ("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);

  if (fd < 0)
    return FALSE;
  while (unchanged && first <= last)
    {
      gsize n = MIN (last - first + 1, G_N_ELEMENTS (entries));

      if (pread (fd, entries, n * sizeof *entries, (off_t) (first * sizeof *entries)) != (gssize) (n * sizeof *entries))
        unchanged = FALSE;
      for (gsize i = 0; unchanged && i < n; i++)
        unchanged
            = (entries[i] & (PAGEMAP_IS_PRESENT | PAGEMAP_IS_SWAPPED)) == 0 || (entries[i] & PAGEMAP_IS_FILE) != 0;
      first += n;
    }
  close (fd);
  return unchanged;
}

/* Keeps a private block that nobody uses mapped, for the same is likely to come again and each page costs a fault. What
 * its owner writes meanwhile is seen, for none of its pages was written here. */
static gboolean
keep_private (Block *block)
{
  Block *oldest = NULL;
  guint n = 0;

  if (block->fd < 0 || !is_unchanged (block->base, block->capacity))
    return FALSE;
  flock (block->fd, LOCK_UN);
  block->idle_since = g_get_monotonic_time ();
  for (guint i = 0; i < blocks->len; i++)
    {
      Block *other = blocks->pdata[i];

      if (other->kind != KIND_PRIVATE || other->n_users > 0)
        continue;
      n++;
      if (oldest == NULL || other->idle_since < oldest->idle_since)
        oldest = other;
    }
  if (n > PRIVATE_IDLE_MAX)
    drop_block (oldest);
  return TRUE;
}

static void
release_block (Block *block)
{
  guint n_idle = 0;

  if (--block->n_users > 0)
    return;
  switch (block->kind)
    {
    case KIND_OWN:
      block->idle_since = g_get_monotonic_time ();
      if (block->was_forked)
        retire_block (block);
      else
        trim_own (OWN_MAX, idle_max);
      return;

    case KIND_FOREIGN:
      flock (block->fd, LOCK_UN);
      for (guint i = 0; i < blocks->len; i++)
        n_idle += ((Block *) blocks->pdata[i])->kind == KIND_FOREIGN && ((Block *) blocks->pdata[i])->n_users == 0;
      if (n_idle > FOREIGN_IDLE_MAX || block->owner == 0
          || atomic_load_explicit (&block->trailer->is_retired, memory_order_acquire))
        drop_block (block);
      return;

    case KIND_PRIVATE:
      {
        Block *origin = block->origin;

        if (keep_private (block))
          return;
        drop_block (block);
        if (origin != NULL)
          release_block (origin);
        return;
      }

    case KIND_ANONYMOUS:
    case KIND_INHERITED:
    default:
      drop_block (block);
      return;
    }
}

/* ---- others' blocks ---- */

static int
open_foreign (pid_t pid, int number, dev_t device, ino_t inode, gsize size)
{
  g_autofree char *path = g_strdup_printf ("/proc/%ld/fd/%d", (long) pid, number);
  int fd = open (path, O_RDWR | O_CLOEXEC);
  struct stat status;

  if (fd >= 0 && fstat (fd, &status) == 0 && status.st_dev == device && status.st_ino == inode
      && (gsize) status.st_size == size && (fcntl (fd, F_GET_SEALS) & F_SEAL_SHRINK) != 0)
    return fd;
  if (fd >= 0)
    {
      close (fd);
      errno = ENOENT;
    }
  return -1;
}

static Block *
find_idle_private (dev_t device, ino_t inode, guint64 cookie)
{
  for (guint i = 0; blocks != NULL && i < blocks->len; i++)
    {
      Block *block = blocks->pdata[i];

      if (block->kind == KIND_PRIVATE && block->n_users == 0 && block->inode == inode && block->device == device
          && block->cookie == cookie)
        return block;
    }
  return NULL;
}

static Block *
find_inode (dev_t device, ino_t inode, guint64 cookie)
{
  for (guint i = 0; blocks != NULL && i < blocks->len; i++)
    {
      Block *block = blocks->pdata[i];

      if ((block->kind == KIND_OWN || block->kind == KIND_FOREIGN) && block->inode == inode && block->device == device
          && block->cookie == cookie)
        return block;
    }
  return NULL;
}

/* A mapping of what another process, or this one, has; NULL with errno. */
static Block *
attach_block (pid_t pid, int number, dev_t device, ino_t inode, guint64 cookie, gsize capacity, gboolean is_private)
{
  Block *found = find_inode (device, inode, cookie);
  Block *block;
  guint8 *base;
  Trailer *trailer;
  int fd = -1;

  if (found != NULL && !is_private)
    {
      if (found->kind == KIND_FOREIGN && found->n_users == 0 && flock (found->fd, LOCK_SH) < 0)
        return NULL;
      found->n_users++;
      return found;
    }
  block = is_private ? find_idle_private (device, inode, cookie) : NULL;
  if (block != NULL && flock (block->fd, LOCK_SH) == 0)
    {
      block->n_users = 1;
      return block;
    }
  if (found == NULL || found->kind != KIND_OWN)
    {
      fd = open_foreign (pid, number, device, inode, capacity + PAGE);
      if (fd < 0)
        return NULL;
      if (flock (fd, LOCK_SH) < 0)
        {
          close (fd);
          return NULL;
        }
      found = NULL;
    }
  base = mmap (NULL, is_private ? capacity : capacity + PAGE, PROT_READ | PROT_WRITE,
               is_private ? MAP_PRIVATE | MAP_NORESERVE : MAP_SHARED, fd >= 0 ? fd : found->fd, 0);
  if (base == MAP_FAILED)
    {
      if (fd >= 0)
        close (fd);
      return NULL;
    }
  trailer = is_private ? NULL : (Trailer *) (base + capacity);
  if (trailer != NULL && trailer->cookie != cookie)
    {
      munmap (base, capacity + PAGE);
      close (fd);
      errno = ENOENT;
      return NULL;
    }
  block = g_new0 (Block, 1);
  block->base = base;
  block->capacity = capacity;
  block->mapped = is_private ? capacity : capacity + PAGE;
  block->trailer = trailer;
  block->kind = is_private ? KIND_PRIVATE : KIND_FOREIGN;
  block->fd = fd;
  block->device = device;
  block->inode = inode;
  block->cookie = cookie;
  block->owner = pid;
  block->n_users = 1;
  block->origin = found;
  if (found != NULL)
    found->n_users++;
  add_block (block);
  return block;
}

/* ---- giving away ---- */

/* Copies what this process still uses of a block that it gives away: from now on there are two. */
static gboolean
isolate_block (Block *block)
{
  guint8 *copy
      = mmap (NULL, block->capacity, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  Trailer *trailer;
  Block *ghost;

  if (copy == MAP_FAILED)
    return FALSE;
  trailer = mmap (NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, block->fd, (off_t) block->capacity);
  if (trailer == MAP_FAILED)
    {
      munmap (copy, block->capacity);
      return FALSE;
    }
  memcpy (copy, block->base, block->capacity);
  if (mremap (copy, block->capacity, block->capacity, MREMAP_MAYMOVE | MREMAP_FIXED, block->base) == MAP_FAILED)
    {
      munmap (copy, block->capacity);
      munmap (trailer, PAGE);
      return FALSE;
    }
  munmap (block->base + block->capacity, PAGE);
  ghost = g_memdup2 (block, sizeof *block);
  ghost->base = NULL;
  ghost->trailer = trailer;
  ghost->n_users = 0;
  g_ptr_array_add (ghosts, ghost);
  block->kind = KIND_ANONYMOUS;
  block->mapped = block->capacity;
  block->trailer = NULL;
  block->fd = -1;
  return TRUE;
}

/* ---- fork ---- */

/* A child may go on looking at what is in use now. The lock is not held meanwhile: whoever takes it has the GIL, as who
 * forks has, and other code that is called around a fork may free arrays. */
void
ferry_native_shared_before_fork (void)
{
  g_mutex_lock (&lock);
  for (guint i = 0; blocks != NULL && i < blocks->len; i++)
    {
      Block *block = blocks->pdata[i];

      if (block->kind == KIND_OWN && block->n_users > 0)
        block->was_forked = TRUE;
    }
  g_mutex_unlock (&lock);
}

static void
forked_block (Block *block)
{
  int fd = block->fd;

  block->fd = -1;
  block->was_forked = FALSE;
  block->n_sent_now = 0;
  block->origin = NULL;
  if (block->kind == KIND_PRIVATE)
    block->kind = KIND_ANONYMOUS;
  if (block->kind == KIND_OWN || block->kind == KIND_FOREIGN)
    {
      block->kind = KIND_INHERITED;
      block->trailer = NULL;
      /* As with other memory what the child writes is its own. */
      if (block->n_users > 0 && !block->is_shared)
        mmap (block->base, block->mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_FIXED | MAP_NORESERVE, fd, 0);
    }
  if (fd >= 0)
    close (fd);
  if (block->n_users == 0)
    drop_block (block);
}

void
ferry_native_shared_forked (void)
{
  g_mutex_lock (&lock);
  for (guint i = blocks != NULL ? blocks->len : 0; i > 0; i--)
    forked_block (blocks->pdata[i - 1]);
  for (guint i = 0; ghosts != NULL && i < ghosts->len; i++)
    {
      Block *ghost = ghosts->pdata[i];

      munmap (ghost->trailer, PAGE);
      close (ghost->fd);
      g_free (ghost);
    }
  if (ghosts != NULL)
    g_ptr_array_set_size (ghosts, 0);
  g_mutex_unlock (&lock);
}

/* ---- memory of arrays ---- */

static Block *
find_start (void *address)
{
  Block *block;

  if ((GPOINTER_TO_SIZE (address) & (PAGE - 1)) != 0)
    return NULL;
  block = find_block (address);
  return block != NULL && block->base == address ? block : NULL;
}

static void *
array_allocate (gsize size, gboolean zero)
{
  Block *block;
  gboolean fresh;

  if (size < ARRAY_MIN || size > idle_max)
    return zero ? calloc (1, size) : malloc (size);
  g_mutex_lock (&lock);
  block = allocate_block (size, OWN_MAX, &fresh);
  g_mutex_unlock (&lock);
  if (block == NULL)
    return zero ? calloc (1, size) : malloc (size);
  if (zero && !fresh)
    memset (block->base, 0, size);
  return block->base;
}

static void *
array_malloc (void *context, size_t size)
{
  return array_allocate (size, FALSE);
}

static void *
array_calloc (void *context, size_t n, size_t size)
{
  gsize total;

  return g_size_checked_mul (&total, n, size) ? array_allocate (total, TRUE) : NULL;
}

static gboolean
array_release (void *address)
{
  Block *block;

  if ((GPOINTER_TO_SIZE (address) & (PAGE - 1)) != 0)
    return FALSE;
  g_mutex_lock (&lock);
  block = find_start (address);
  if (block != NULL)
    release_block (block);
  g_mutex_unlock (&lock);
  return block != NULL;
}

static void
array_free (void *context, void *address, size_t size)
{
  if (!array_release (address))
    free (address);
}

static void *
array_realloc (void *context, void *address, size_t size)
{
  gsize capacity = 0;
  void *moved;

  if ((GPOINTER_TO_SIZE (address) & (PAGE - 1)) == 0 && address != NULL)
    {
      Block *block;

      g_mutex_lock (&lock);
      block = find_start (address);
      capacity = block != NULL ? block->capacity : 0;
      g_mutex_unlock (&lock);
    }
  if (capacity == 0)
    return realloc (address, size);
  if (size <= capacity && size >= ARRAY_MIN)
    return address;
  moved = array_allocate (size, FALSE);
  if (moved == NULL)
    return NULL;
  memcpy (moved, address, MIN (size, capacity));
  array_release (address);
  return moved;
}

static PyDataMem_Handler array_handler
    = { "ferry", 1, { NULL, array_malloc, array_calloc, array_realloc, array_free } };

/* ---- handles ---- */

typedef struct
{
  PyObject_HEAD Block *block;
  PyObject *weakrefs;
} Handle;

#define HANDLE(object) ((Handle *) (object))

/* Takes over a user. */
static PyObject *
handle_new (Block *block)
{
  Handle *self = PyObject_New (Handle, &FerryNativeSharedBlock_Type);

  if (self == NULL)
    {
      g_mutex_lock (&lock);
      release_block (block);
      g_mutex_unlock (&lock);
      return NULL;
    }
  self->block = block;
  self->weakrefs = NULL;
  return (PyObject *) self;
}

static void
handle_dealloc (PyObject *object)
{
  if (HANDLE (object)->weakrefs != NULL)
    PyObject_ClearWeakRefs (object);
  g_mutex_lock (&lock);
  release_block (HANDLE (object)->block);
  g_mutex_unlock (&lock);
  PyObject_Free (object);
}

static int
handle_getbuffer (PyObject *object, Py_buffer *view, int flags)
{
  Block *block = HANDLE (object)->block;

  return PyBuffer_FillInfo (view, object, block->base, (Py_ssize_t) block->capacity, FALSE, flags);
}

static PyBufferProcs handle_buffer = { .bf_getbuffer = handle_getbuffer };

static PyObject *
handle_get_size (PyObject *object, void *closure)
{
  return PyLong_FromSize_t (HANDLE (object)->block->capacity);
}

static PyObject *
handle_get_kind (PyObject *object, void *closure)
{
  return PyUnicode_FromString (kind_names[HANDLE (object)->block->kind]);
}

/* Where it is, for others: what shared_attach() takes. */
static PyObject *
describe_block (const Block *block)
{
  const Block *named = block->fd < 0 && block->origin != NULL ? block->origin : block;

  return Py_BuildValue ("(liKKKK)", (long) getpid (), named->fd, (unsigned long long) named->device,
                        (unsigned long long) named->inode, (unsigned long long) named->cookie,
                        (unsigned long long) named->capacity);
}

static PyObject *
handle_get_address (PyObject *object, void *closure)
{
  return describe_block (HANDLE (object)->block);
}

static PyGetSetDef handle_getset[] = {
  { "size", handle_get_size, NULL, "int: how many bytes there is room for", NULL },
  { "kind", handle_get_kind, NULL, "str: own, foreign, private, anonymous or inherited", NULL },
  { "address", handle_get_address, NULL, "tuple: where other processes find it", NULL },
  { NULL },
};

PyTypeObject FerryNativeSharedBlock_Type = {
  PyVarObject_HEAD_INIT (NULL, 0).tp_name = "ferry._native.SharedBlock",
  .tp_doc = "Shared memory that arrays are views on. It is used as long as one of them exists.",
  .tp_basicsize = sizeof (Handle),
  .tp_flags = Py_TPFLAGS_DEFAULT,
  .tp_dealloc = handle_dealloc,
  .tp_as_buffer = &handle_buffer,
  .tp_getset = handle_getset,
  .tp_weaklistoffset = offsetof (Handle, weakrefs),
};

/* ---- functions ---- */

static PyObject *
shared_allocate (PyObject *unused, PyObject *args)
{
  Py_ssize_t size;
  int zero = FALSE;
  int is_shared = FALSE;
  gboolean fresh;
  Block *block;

  if (!PyArg_ParseTuple (args, "n|pp", &size, &zero, &is_shared))
    return NULL;
  if (size <= 0)
    {
      PyErr_SetString (PyExc_ValueError, "a block has at least one byte");
      return NULL;
    }
  g_mutex_lock (&lock);
  /* Whoever asks for shared memory gets as much as there are descriptors. */
  block = allocate_block ((gsize) size, is_shared ? G_MAXUINT : OWN_MAX, &fresh);
  if (block != NULL)
    block->is_shared = is_shared != 0;
  g_mutex_unlock (&lock);
  if (block == NULL)
    {
      int number = errno;

      return PyErr_Format (PyExc_MemoryError, "can't make a block of %zd bytes of shared memory: %s", size,
                           is_shared ? g_strerror (number) : "the memory ended, or too many are in use");
    }
  if (zero && !fresh)
    {
      Py_BEGIN_ALLOW_THREADS
      memset (block->base, 0, (gsize) size);
      Py_END_ALLOW_THREADS
    }
  return handle_new (block);
}

static PyObject *
shared_attach (PyObject *unused, PyObject *args)
{
  long pid;
  int number;
  unsigned long long device;
  unsigned long long inode;
  unsigned long long cookie;
  unsigned long long capacity;
  int is_private;
  int is_shared;
  int is_given;
  Block *block;

  if (!PyArg_ParseTuple (args, "(liKKKK)ppp", &pid, &number, &device, &inode, &cookie, &capacity, &is_private,
                         &is_shared, &is_given))
    return NULL;
  if (capacity == 0 || capacity > G_MAXINT64 / 2 || capacity % PAGE != 0)
    {
      PyErr_SetString (PyExc_ValueError, "that is no block of shared memory");
      return NULL;
    }
  g_mutex_lock (&lock);
  block = attach_block ((pid_t) pid, number, (dev_t) device, (ino_t) inode, cookie, (gsize) capacity, is_private != 0);
  if (block != NULL && is_shared)
    block->is_shared = TRUE;
  /* Pairs with is_received(): the lock is held by now. */
  if (block != NULL && is_given && block->trailer != NULL)
    atomic_fetch_add_explicit (&block->trailer->n_received, 1, memory_order_release);
  g_mutex_unlock (&lock);
  if (block == NULL)
    {
      int number_of_error = errno;

      return PyErr_Format (PyExc_RuntimeError,
                           "the shared memory of an array is not there: process %ld, which has it, is gone, or has "
                           "given it up, or can't be looked into (%s)",
                           pid, g_strerror (number_of_error));
    }
  return handle_new (block);
}

/* The bytes between the first and the last element, relative to the first one. */
static void
get_extent (PyArrayObject *array, gssize *low, gssize *high)
{
  *low = 0;
  *high = PyArray_ITEMSIZE (array);
  for (int i = 0; i < PyArray_NDIM (array); i++)
    {
      gssize reach = PyArray_STRIDE (array, i) * (PyArray_DIM (array, i) - 1);

      *low += MIN (reach, 0);
      *high += MAX (reach, 0);
    }
}

static gboolean
has_elements (PyArrayObject *array)
{
  for (int i = 0; i < PyArray_NDIM (array); i++)
    if (PyArray_DIM (array, i) == 0)
      return FALSE;
  return PyArray_ITEMSIZE (array) > 0;
}

/* A copy of the block in which an array lies whole, taken while it can't change; FALSE: in none that others can have. */
static gboolean
find_array (PyArrayObject *array, Block *copy)
{
  Block *block;
  gboolean found;
  gssize low;
  gssize high;

  if (blocks == NULL || !has_elements (array))
    return FALSE;
  get_extent (array, &low, &high);
  g_mutex_lock (&lock);
  block = find_block ((guint8 *) PyArray_BYTES (array));
  found = block != NULL && block->kind <= KIND_PRIVATE && (guint8 *) PyArray_BYTES (array) + low >= block->base
          && (guint8 *) PyArray_BYTES (array) + high <= block->base + block->capacity;
  if (found)
    *copy = *block;
  g_mutex_unlock (&lock);
  return found;
}

/* (kind, is shared, address, offset) of an array, or None. */
static PyObject *
describe_array (PyArrayObject *array)
{
  Block block;

  if (!find_array (array, &block))
    Py_RETURN_NONE;
  return Py_BuildValue ("(sNNn)", kind_names[block.kind], PyBool_FromLong (block.is_shared), describe_block (&block),
                        (Py_ssize_t) ((guint8 *) PyArray_BYTES (array) - block.base));
}

static PyObject *
shared_find (PyObject *unused, PyObject *array)
{
  /* Only the layout of the structure is used, so NumPy's functions need not be loaded. */
  return describe_array ((PyArrayObject *) array);
}

/* self is (callback, bytes): the callback is asked about arrays that lie in shared memory, or are at least that large. */
static PyObject *
reduce_array (PyObject *self, PyObject *object)
{
  PyArrayObject *array = (PyArrayObject *) object;
  gsize least = PyLong_AsSize_t (PyTuple_GET_ITEM (self, 1));
  gsize size = (gsize) PyArray_ITEMSIZE (array);
  PyObject *description;
  PyObject *result;

  for (int i = 0; i < PyArray_NDIM (array); i++)
    size *= (gsize) PyArray_DIM (array, i);
  description = describe_array (array);
  if (description == NULL || (description == Py_None && size < least))
    return description;
  /* Descriptors of a process that gives nothing away about itself can't be opened by others. What is shared by its user's
   * will is no copy, and fails there. */
  if ((description == Py_None || PyTuple_GET_ITEM (description, 1) != Py_True) && prctl (PR_GET_DUMPABLE) != 1)
    {
      Py_DECREF (description);
      Py_RETURN_NONE;
    }
  result = PyObject_CallFunctionObjArgs (PyTuple_GET_ITEM (self, 0), object, description, NULL);
  Py_DECREF (description);
  return result;
}

static PyMethodDef reduce_array_method = { "reduce_array", reduce_array, METH_O, NULL };

static PyObject *
shared_make_reducer (PyObject *unused, PyObject *args)
{
  PyObject *callback;
  Py_ssize_t least;
  PyObject *self;
  PyObject *result;

  if (!PyArg_ParseTuple (args, "On", &callback, &least))
    return NULL;
  self = Py_BuildValue ("(On)", callback, least);
  result = self != NULL ? PyCFunction_New (&reduce_array_method, self) : NULL;
  Py_XDECREF (self);
  return result;
}

/* Whether nobody but this handle uses its block. */
static PyObject *
shared_is_idle (PyObject *unused, PyObject *handle)
{
  Block *block;
  gboolean idle;

  if (!Py_IS_TYPE (handle, &FerryNativeSharedBlock_Type))
    {
      PyErr_SetString (PyExc_TypeError, "shared_is_idle() takes a SharedBlock");
      return NULL;
    }
  g_mutex_lock (&lock);
  block = HANDLE (handle)->block;
  idle = block->n_users == 1 && !block->was_forked && is_free_of_others (block);
  g_mutex_unlock (&lock);
  return PyBool_FromLong (idle);
}

/* Counts a block as given away with the message that is being made. */
static PyObject *
shared_give (PyObject *unused, PyObject *object)
{
  Block *block;

  g_mutex_lock (&lock);
  block = find_block ((guint8 *) PyArray_BYTES ((PyArrayObject *) object));
  if (block != NULL && block->kind == KIND_OWN)
    {
      atomic_fetch_add_explicit (&block->trailer->n_sent, 1, memory_order_relaxed);
      block->n_sent_now++;
    }
  g_mutex_unlock (&lock);
  Py_RETURN_NONE;
}

/* The message is made, and this process has let go of what it could: what it still uses is copied. Or, with False, there
 * is no message. */
static PyObject *
shared_finish_giving (PyObject *unused, PyObject *given)
{
  gboolean ok = TRUE;

  g_mutex_lock (&lock);
  for (guint i = 0; blocks != NULL && i < blocks->len; i++)
    {
      Block *block = blocks->pdata[i];

      if (block->n_sent_now == 0)
        continue;
      if (given != Py_True)
        atomic_fetch_sub_explicit (&block->trailer->n_sent, block->n_sent_now, memory_order_relaxed);
      else if (block->n_users > 0 && !block->is_shared)
        ok = isolate_block (block) && ok;
      block->n_sent_now = 0;
    }
  g_mutex_unlock (&lock);
  if (!ok)
    return PyErr_NoMemory ();
  Py_RETURN_NONE;
}

/* Whether all that was given away is taken. */
static PyObject *
shared_is_taken (PyObject *unused, PyObject *unused_either)
{
  gboolean taken = TRUE;

  g_mutex_lock (&lock);
  reap_ghosts ();
  taken = ghosts == NULL || ghosts->len == 0;
  for (guint i = 0; taken && blocks != NULL && i < blocks->len; i++)
    {
      const Block *block = blocks->pdata[i];

      taken = block->kind != KIND_OWN || is_received (block);
    }
  g_mutex_unlock (&lock);
  return PyBool_FromLong (taken);
}

/* What a process had that is gone. */
static PyObject *
shared_forget (PyObject *unused, PyObject *number)
{
  long pid = PyLong_AsLong (number);

  if (pid == -1 && PyErr_Occurred ())
    return NULL;
  g_mutex_lock (&lock);
  for (guint i = blocks != NULL ? blocks->len : 0; i > 0; i--)
    {
      Block *block = blocks->pdata[i - 1];

      if (block->kind != KIND_FOREIGN || block->owner != (pid_t) pid)
        continue;
      block->owner = 0;
      if (block->n_users == 0)
        drop_block (block);
    }
  g_mutex_unlock (&lock);
  Py_RETURN_NONE;
}

static PyObject *
shared_is_unchanged (PyObject *unused, PyObject *object)
{
  PyArrayObject *array = (PyArrayObject *) object;
  gssize low;
  gssize high;

  get_extent (array, &low, &high);
  return PyBool_FromLong (is_unchanged ((const guint8 *) PyArray_BYTES (array) + low, (gsize) (high - low)));
}

/* Whether two contiguous pieces of memory are the same, bit by bit. */
static PyObject *
shared_is_equal (PyObject *unused, PyObject *args)
{
  Py_buffer one;
  Py_buffer other;
  gboolean equal = FALSE;

  if (!PyArg_ParseTuple (args, "y*y*", &one, &other))
    return NULL;
  if (one.len <= other.len)
    {
      Py_BEGIN_ALLOW_THREADS
      equal = memcmp (one.buf, other.buf, (gsize) one.len) == 0;
      Py_END_ALLOW_THREADS
    }
  PyBuffer_Release (&one);
  PyBuffer_Release (&other);
  return PyBool_FromLong (equal);
}

gboolean
ferry_native_numpy_load (void)
{
  return PyArray_API != NULL || _import_array () == 0;
}

/* From now on what this thread makes of large arrays lies in shared memory. Once a thread. */
static PyObject *
shared_use_for_arrays (PyObject *unused, PyObject *part)
{
  static PyObject *capsule;
  PyObject *before;
  long n = PyLong_AsLong (part);

  if (n == -1 && PyErr_Occurred ())
    return NULL;
  if (!ferry_native_numpy_load ())
    return NULL;
  if (capsule == NULL)
    capsule = PyCapsule_New (&array_handler, "mem_handler", NULL);
  if (capsule == NULL)
    return NULL;
  g_mutex_lock (&lock);
  if (blocks == NULL)
    {
      blocks = g_ptr_array_new ();
      ghosts = g_ptr_array_new ();
    }
  idle_max = (gsize) sysconf (_SC_PHYS_PAGES) * (gsize) sysconf (_SC_PAGE_SIZE) / 8 / (gsize) MAX (n, 1);
  g_mutex_unlock (&lock);
  before = PyDataMem_SetHandler (capsule);
  if (before == NULL)
    return NULL;
  Py_DECREF (before);
  Py_RETURN_NONE;
}

static PyObject *
shared_trim (PyObject *unused, PyObject *unused_either)
{
  g_mutex_lock (&lock);
  trim_own (0, 0);
  g_mutex_unlock (&lock);
  Py_RETURN_NONE;
}

/* How many blocks there are of each kind, and the bytes of those that are in use and that are not. */
static PyObject *
shared_statistics (PyObject *unused, PyObject *unused_either)
{
  unsigned long long n[G_N_ELEMENTS (kind_names)] = { 0 };
  unsigned long long used = 0;
  unsigned long long idle = 0;

  g_mutex_lock (&lock);
  for (guint i = 0; blocks != NULL && i < blocks->len; i++)
    {
      const Block *block = blocks->pdata[i];

      n[block->kind]++;
      if (block->n_users > 0)
        used += block->capacity;
      else
        idle += block->capacity;
    }
  g_mutex_unlock (&lock);
  return Py_BuildValue ("{sKsKsKsKsKsKsK}", "own", n[KIND_OWN], "foreign", n[KIND_FOREIGN], "private", n[KIND_PRIVATE],
                        "anonymous", n[KIND_ANONYMOUS], "inherited", n[KIND_INHERITED], "bytes_used", used,
                        "bytes_idle", idle);
}

PyMethodDef ferry_native_shared_functions[] = {
  { "shared_allocate", shared_allocate, METH_VARARGS, NULL },
  { "shared_attach", shared_attach, METH_VARARGS, NULL },
  { "shared_find", shared_find, METH_O, NULL },
  { "shared_make_reducer", shared_make_reducer, METH_VARARGS, NULL },
  { "shared_is_idle", shared_is_idle, METH_O, NULL },
  { "shared_give", shared_give, METH_O, NULL },
  { "shared_finish_giving", shared_finish_giving, METH_O, NULL },
  { "shared_is_taken", shared_is_taken, METH_NOARGS, NULL },
  { "shared_forget", shared_forget, METH_O, NULL },
  { "shared_is_unchanged", shared_is_unchanged, METH_O, NULL },
  { "shared_is_equal", shared_is_equal, METH_VARARGS, NULL },
  { "shared_use_for_arrays", shared_use_for_arrays, METH_O, NULL },
  { "shared_trim", shared_trim, METH_NOARGS, NULL },
  { "shared_statistics", shared_statistics, METH_NOARGS, NULL },
  { NULL },
};
