/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "ferry-buffer.h"
#include "ferry-transport.h"

#include <stdatomic.h>

G_BEGIN_DECLS

/* Payload up to these sizes, in bytes, is stored inside pooled buffers of two kinds. */
#define FERRY_BUFFER_INLINE_SMALL (256)
#define FERRY_BUFFER_INLINE_LARGE (4096)

/* Payload starts at this alignment, in bytes: a cache line, and what SIMD code asks for. */
#define FERRY_BUFFER_ALIGNMENT (64)

typedef enum
{
  FERRY_BUFFER_WRITABLE = 1 << 0,  /* the data may be written */
  FERRY_BUFFER_LOANED = 1 << 1,    /* may be committed to the transport that owns it */
  FERRY_BUFFER_RECEIVED = 1 << 2,  /* came out of a channel */
  FERRY_BUFFER_OWNS_DATA = 1 << 3, /* data was allocated with g_aligned_alloc() */
  FERRY_BUFFER_CONSUMED = 1 << 4,  /* was committed: the block is no longer ours */
  FERRY_BUFFER_LARGE = 1 << 5,     /* of the pool with much room inside */
  FERRY_BUFFER_PRIVATE = 1 << 6,   /* what this process writes into some of its pages is its own */
} FerryBufferFlags;

struct _FerryBuffer
{
  _Atomic int ref_count;
  guint flags;
  guint8 *data;
  gsize size;     /* bytes of the message */
  gsize capacity; /* bytes that may be filled */
  guint64 sequence;
  gint64 timestamp;
  guint64 wire_name;
  guint64 wire_version;
  guint sender;
  guint fork_generation;     /* of the process that owns the block */
  FerryTransport *transport; /* owned; its release function is called with the last reference */
  guint64 token;             /* the transport's own: which block */
  GDestroyNotify release;
  gpointer release_data;
  FerryBuffer *next_free;
  guint8 inline_data[] __attribute__ ((aligned (FERRY_BUFFER_ALIGNMENT)));
};

/* Buffers are pooled by thread, so the message path neither allocates nor locks. One pool for small messages and one
 * for channels whose slots hold more. */
#define FERRY_N_BUFFER_POOLS (2)

typedef struct
{
  FerryBuffer *head;
  gint room; /* how many more it takes */
} FerryBufferPool;

extern __thread FerryBufferPool ferry_buffer_pools[FERRY_N_BUFFER_POOLS] __attribute__ ((tls_model ("initial-exec")));

FerryBuffer *ferry_buffer_alloc_slowly (guint i);

/* Private: an empty buffer with one reference, and inside it at least @room bytes, at most
 * FERRY_BUFFER_INLINE_LARGE, for payload. */
static inline FerryBuffer *
ferry_buffer_alloc (gsize room)
{
  guint i = room > FERRY_BUFFER_INLINE_SMALL;
  FerryBufferPool *pool = &ferry_buffer_pools[i];
  FerryBuffer *self = pool->head;

  if (G_LIKELY (self != NULL))
    {
      pool->head = self->next_free;
      pool->room++;
    }
  else
    {
      self = ferry_buffer_alloc_slowly (i);
    }

  atomic_store_explicit (&self->ref_count, 1, memory_order_relaxed);
  self->flags = i > 0 ? FERRY_BUFFER_LARGE : 0;
  self->data = self->inline_data;
  self->size = 0;
  self->capacity = 0;
  self->sequence = 0;
  self->timestamp = 0;
  self->wire_name = 0;
  self->wire_version = 0;
  self->sender = 0;
  self->fork_generation = 0;
  self->transport = NULL;
  self->token = 0;
  self->release = NULL;
  self->release_data = NULL;
  return self;
}

G_END_DECLS
