/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * What asan-fork.c puts in front of ThreadSanitizer's allocator is in the test program, and the sanitizer takes the program
 * for the caller, whose malloc() and free() are writes that may race. What GLib allocates in one thread and frees in another,
 * after something that the sanitizer can't see, would be such a race. This is a library that is not instrumented, as GLib:
 * what calls from there is ignored. It must return here, so nothing of this may be a jump.
 */

#include <stddef.h>

#define EXPORT __attribute__ ((visibility ("default")))

#define PASS(Type, name, parameters, arguments)                                                                        \
  Type __interceptor_##name parameters;                                                                                \
  EXPORT Type ferry_test_##name parameters;                                                                            \
                                                                                                                       \
  Type ferry_test_##name parameters { return __interceptor_##name arguments; }

PASS (void *, malloc, (size_t size), (size))
PASS (void *, calloc, (size_t n, size_t size), (n, size))
PASS (void *, realloc, (void *memory, size_t size), (memory, size))
PASS (void *, reallocarray, (void *memory, size_t n, size_t size), (memory, n, size))
PASS (void *, memalign, (size_t alignment, size_t size), (alignment, size))
PASS (void *, aligned_alloc, (size_t alignment, size_t size), (alignment, size))
PASS (int, posix_memalign, (void **memory, size_t alignment, size_t size), (memory, alignment, size))

void __interceptor_free (void *memory);
EXPORT void ferry_test_free (void *memory);

void
ferry_test_free (void *memory)
{
  __interceptor_free (memory);
}
