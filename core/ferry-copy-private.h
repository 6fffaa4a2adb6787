/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <glib.h>

G_BEGIN_DECLS

void ferry_copy_loop (guint8 *to, const guint8 *from, gsize size);

/* Fetches a cache line in order to write it. For x86 the compiler's builtin would only fetch it for reading unless
 * told of a newer CPU; PREFETCHW is a no-operation where it is not implemented (Intel SDM, vol. 2). */
static inline void
ferry_prefetch_for_writing (gconstpointer address)
{
#if defined(__x86_64__)
  __asm__ volatile("prefetchw %0" ::"m"(*(const char *) address));
#else
  __builtin_prefetch (address, 1);
#endif
}

G_END_DECLS
