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

FerryBuffer *ferry_buffer_alloc (gsize room);

G_END_DECLS
