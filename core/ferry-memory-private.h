/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <glib.h>
#include <stdlib.h>

#ifdef G_OS_WIN32
#include <malloc.h>
#endif

G_BEGIN_DECLS

/* Where payload starts, in bytes: a cache line, and what SIMD code asks for. */
#define FERRY_PAYLOAD_ALIGNMENT (64)

/*
 * Memory for payload, or NULL when there is none: a message may have many gigabytes, and
 * g_aligned_alloc() ends the program. To be freed with ferry_aligned_free().
 */
static inline gpointer
ferry_aligned_try_alloc (gsize size)
{
#ifdef G_OS_WIN32
  return _aligned_malloc (MAX (size, 1), FERRY_PAYLOAD_ALIGNMENT);
#else
  gpointer memory = NULL;

  return posix_memalign (&memory, FERRY_PAYLOAD_ALIGNMENT, MAX (size, 1)) == 0 ? memory : NULL;
#endif
}

static inline void
ferry_aligned_free (gpointer memory)
{
#ifdef G_OS_WIN32
  _aligned_free (memory);
#else
  free (memory);
#endif
}

G_END_DECLS
