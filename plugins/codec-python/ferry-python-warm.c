/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Large objects in warm memory.
 *
 * bytes, bytearray and str own their memory, so a large one that is received is copied. The C library maps memory of that size
 * anew each time and unmaps it when it is freed, and touching fresh pages costs several times the copy. So the memory of
 * large objects that were decoded is kept when they are freed, and used again for the next one.
 *
 * That is done in the interpreter's allocator of raw memory, where objects of more than 512 bytes come from
 * (PyMem_SetAllocator(), Python/C API, "Customize Memory Allocators"). Only pointers that malloc() gave are kept, so that
 * nothing goes wrong when somebody takes our functions out again (as tracemalloc does that began before us): then free()
 * gets them. The kernel may take the pages of what is kept when it needs them (MADV_FREE).
 *
 * bytes that are a message of their own are not copied at all: when Python asks for the memory of the object, it gets
 * that in front of where they lie (docs/wire-formats.md), and when it is freed the message is released. The page with the
 * object's head is private, so that no other process can reach into it. That is done only while our functions are the
 * interpreter's own and asked for exactly that much: not with tracemalloc, PYTHONMALLOC or `-X dev`. */

#include "ferry-python-warm.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* What is smaller the C library keeps warm by itself: its threshold for mapping grows up to 32 MiB. Bytes. */
#define WARM_MIN (16 * 1024 * 1024)
/* What is kept, all together: that part of the machine's memory, but no more than so many bytes. */
#define KEEP_SHARE (8)
#define KEEP_MAX (G_GUINT64_CONSTANT (4) << 30)
/* Memory of which less than 7 / 8 would be used is left for others. */
#define WASTE_SHARE (8)
#define N_CHUNKS (32)
#define HUGE_PAGE ((gsize) 2 * 1024 * 1024)
/* From this size on bytes are not copied: to change a mapping and back, and two page faults, take as long as it takes to
 * copy so much. Bytes. */
#define LEND_MIN (512 * 1024)
/* Of objects, as obmalloc.c aligns them. Bytes. */
#define OBJECT_ALIGNMENT (16)

typedef struct
{
  gpointer data;
  gsize size;
  gboolean kept; /* nobody uses it */
  guint64 since; /* counts what was kept */
} Chunk;

/* An object in a message. */
typedef struct
{
  gpointer object;
  gsize size; /* of the object, bytes */
  FerryBuffer *buffer;
} Lent;

static PyMemAllocatorEx previous;
static gboolean installed;
static GArray *lent; /* of Lent */
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static Chunk chunks[N_CHUNKS];
static guint n_chunks;
static gsize n_kept_bytes;
static guint64 n_kept_ever;
static gsize keep_max;
/* Nothing of ours lies outside: every other free() in the process looks at these two only. */
static _Atomic uintptr_t lowest = UINTPTR_MAX;
static _Atomic uintptr_t highest = 0;

static __thread gsize wanted;
static __thread Lent offered;

static gboolean
may_be_ours (gpointer data)
{
  uintptr_t address = (uintptr_t) data;

  return address >= atomic_load_explicit (&lowest, memory_order_relaxed)
         && address <= atomic_load_explicit (&highest, memory_order_relaxed);
}

static Chunk *
find (gpointer data)
{
  for (guint i = 0; i < n_chunks; i++)
    if (chunks[i].data == data)
      return &chunks[i];
  return NULL;
}

/* Under the mutex: whether the object lies in a message; it is no longer lent then. */
static gboolean
take_back (gpointer object, Lent *one)
{
  for (guint i = 0; lent != NULL && i < lent->len; i++)
    {
      *one = g_array_index (lent, Lent, i);
      if (one->object != object)
        continue;
      g_array_remove_index_fast (lent, i);
      return TRUE;
    }
  return FALSE;
}

/* Gives the message back. Who frees memory does not expect that to change errno. */
static void
release (const Lent *one)
{
  int saved_errno = errno;

  ferry_buffer_unref (one->buffer);
  errno = saved_errno;
}

static void
widen_range (gpointer data)
{
  uintptr_t address = (uintptr_t) data;

  atomic_store_explicit (&lowest, MIN (atomic_load_explicit (&lowest, memory_order_relaxed), address),
                         memory_order_relaxed);
  atomic_store_explicit (&highest, MAX (atomic_load_explicit (&highest, memory_order_relaxed), address),
                         memory_order_relaxed);
}

static void
forget (Chunk *chunk)
{
  if (chunk->kept)
    n_kept_bytes -= chunk->size;
  *chunk = chunks[--n_chunks];
}

/* Lets the kernel have whole pages, huge ones at first and any when memory is short. */
static void
advise (const Chunk *chunk, int advice, gsize alignment)
{
  uintptr_t begin = ((uintptr_t) chunk->data + alignment - 1) & ~(uintptr_t) (alignment - 1);
  uintptr_t end = ((uintptr_t) chunk->data + chunk->size) & ~(uintptr_t) (alignment - 1);

  if (end > begin)
    madvise ((gpointer) begin, end - begin, advice);
}

static gpointer
take (gsize size)
{
  Chunk *best = NULL;
  gpointer data = NULL;

  pthread_mutex_lock (&mutex);
  for (guint i = 0; i < n_chunks; i++)
    if (chunks[i].kept && chunks[i].size >= size && chunks[i].size - size <= size / WASTE_SHARE
        && (best == NULL || chunks[i].since > best->since))
      best = &chunks[i];
  if (best != NULL)
    {
      best->kept = FALSE;
      n_kept_bytes -= best->size;
      data = best->data;
    }
  pthread_mutex_unlock (&mutex);
  return data;
}

static void
remember (gpointer data, gsize size)
{
  pthread_mutex_lock (&mutex);
  if (n_chunks < N_CHUNKS)
    {
      chunks[n_chunks] = (Chunk){ data, size, FALSE, 0 };
      advise (&chunks[n_chunks], MADV_HUGEPAGE, HUGE_PAGE);
      n_chunks++;
      widen_range (data);
    }
  pthread_mutex_unlock (&mutex);
}

/* The oldest of what is kept, no longer to be kept. */
static gpointer
drop_oldest (void)
{
  Chunk *oldest = NULL;
  gpointer data;

  for (guint i = 0; i < n_chunks; i++)
    if (chunks[i].kept && (oldest == NULL || chunks[i].since < oldest->since))
      oldest = &chunks[i];
  if (oldest == NULL)
    return NULL;
  data = oldest->data;
  forget (oldest);
  return data;
}

static void
lend (const Lent *one)
{
  pthread_mutex_lock (&mutex);
  g_array_append_val (lent, *one);
  widen_range (one->object);
  pthread_mutex_unlock (&mutex);
}

static void *
warm_malloc (void *context, size_t size)
{
  gpointer data;

  if (G_LIKELY (wanted == 0 || size < wanted))
    return previous.malloc (previous.ctx, size);
  wanted = 0;
  if (offered.object != NULL && size == offered.size)
    {
      data = offered.object;
      ferry_buffer_ref (offered.buffer);
      lend (&offered);
      return data;
    }
  data = take (size);
  if (data != NULL)
    return data;
  data = previous.malloc (previous.ctx, size);
  if (data != NULL)
    remember (data, size);
  return data;
}

static void *
warm_calloc (void *context, size_t n, size_t size)
{
  return previous.calloc (previous.ctx, n, size);
}

static void *
warm_realloc (void *context, void *data, size_t size)
{
  if (G_UNLIKELY (data != NULL && may_be_ours (data)))
    {
      Lent one;
      Chunk *chunk;
      gboolean is_lent;

      pthread_mutex_lock (&mutex);
      chunk = find (data);
      if (chunk != NULL)
        forget (chunk);
      is_lent = take_back (data, &one);
      pthread_mutex_unlock (&mutex);
      if (is_lent)
        {
          gpointer moved = previous.malloc (previous.ctx, size);

          if (moved != NULL)
            {
              ferry_copy_memory (moved, data, MIN (size, one.size));
              release (&one);
            }
          else
            {
              lend (&one);
            }
          return moved;
        }
    }
  return previous.realloc (previous.ctx, data, size);
}

static void
warm_free (void *context, void *data)
{
  gpointer dropped[N_CHUNKS];
  guint n_dropped = 0;
  gboolean keep = FALSE;
  Lent one;
  Chunk *chunk;

  if (G_LIKELY (data == NULL || !may_be_ours (data)))
    {
      previous.free (previous.ctx, data);
      return;
    }

  pthread_mutex_lock (&mutex);
  if (take_back (data, &one))
    {
      pthread_mutex_unlock (&mutex);
      release (&one);
      return;
    }
  chunk = find (data);
  if (chunk != NULL && chunk->size > keep_max)
    {
      forget (chunk);
    }
  else if (chunk != NULL)
    {
      gsize size = chunk->size;

      keep = TRUE;
      while (n_kept_bytes + size > keep_max && (dropped[n_dropped] = drop_oldest ()) != NULL)
        n_dropped++;
      chunk = find (data); /* the table has moved */
      chunk->kept = TRUE;
      chunk->since = ++n_kept_ever;
      n_kept_bytes += size;
      advise (chunk, MADV_FREE, (gsize) sysconf (_SC_PAGESIZE));
    }
  pthread_mutex_unlock (&mutex);

  for (guint i = 0; i < n_dropped; i++)
    previous.free (previous.ctx, dropped[i]);
  if (!keep)
    previous.free (previous.ctx, data);
}

static void
lock_cb (void)
{
  pthread_mutex_lock (&mutex);
}

static void
unlock_cb (void)
{
  pthread_mutex_unlock (&mutex);
}

static void
install (void)
{
  PyMemAllocatorEx ours = { NULL, warm_malloc, warm_calloc, warm_realloc, warm_free };
  guint64 memory = (guint64) sysconf (_SC_PHYS_PAGES) * (guint64) sysconf (_SC_PAGESIZE);

  installed = TRUE;
  keep_max = (gsize) MIN (memory / KEEP_SHARE, KEEP_MAX);
  pthread_atfork (lock_cb, unlock_cb, unlock_cb);
  lent = g_array_new (FALSE, FALSE, sizeof (Lent));
  PyMem_GetAllocator (PYMEM_DOMAIN_RAW, &previous);
  PyMem_SetAllocator (PYMEM_DOMAIN_RAW, &ours);
}

/* Whether objects may be put into messages. Hooks that were there before us have a context (tracemalloc, the debug hooks);
 * their end would take our functions out, and free() would get the objects. */
static gboolean
may_lend (void)
{
  PyMemAllocatorEx raw;

  if (!installed)
    install ();
  PyMem_GetAllocator (PYMEM_DOMAIN_RAW, &raw);
  return previous.ctx == NULL && raw.free == warm_free;
}

PyObject *
ferry_python_warm_bytes (FerryBuffer *buffer, gsize used, const guint8 *data, gsize size)
{
  const gsize head = offsetof (PyBytesObject, ob_sval);
  gsize message_size;
  const guint8 *message = ferry_buffer_get_data (buffer, &message_size);
  gsize offset = (gsize) (data - message);
  gpointer object = (gpointer) (data - head);
  PyObject *bytes;

  if (size < LEND_MIN || offset < used + head || (uintptr_t) object % OBJECT_ALIGNMENT != 0 || offset > message_size
      || size >= message_size - offset || *(const volatile guint8 *) (data + size) != '\0' || !may_lend ()
      || !ferry_buffer_privatize (buffer, offset - head, head))
    return NULL;
  wanted = head + size + 1;
  offered = (Lent){ object, wanted, buffer };
  bytes = PyBytes_FromStringAndSize (NULL, (Py_ssize_t) size);
  wanted = 0;
  offered.object = NULL;
  if (G_UNLIKELY (bytes != object))
    {
      Py_CLEAR (bytes); /* an allocator that does not ask ours */
      PyErr_Clear ();
    }
  return bytes;
}

void
ferry_python_warm_begin (gsize size)
{
  if (size < WARM_MIN)
    return;
  if (!installed)
    install ();
  wanted = size;
}

void
ferry_python_warm_end (void)
{
  wanted = 0;
}
