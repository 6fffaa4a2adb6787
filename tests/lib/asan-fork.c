/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * A fork copies the locks of an allocator as they are, and of the threads only the one that forks: what another thread
 * held stays locked in the child for ever. glibc's allocator is locked by the thread that forks; AddressSanitizer's
 * is not before LLVM 18 and GCC 15 (llvm/llvm-project, pull request 75290), and ThreadSanitizer's is not in GCC 12, so
 * that now and then the child of a process with threads hangs in its first malloc(). So in builds with them test programs
 * have these functions in front of the sanitizer's, which a fork closes to all other threads and waits until none is
 * inside. A thread that just begins or ends at that moment is not waited for.
 */

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stddef.h>

#define EXPORT __attribute__ ((visibility ("default")))

static atomic_long n_inside;
static atomic_bool closed;
static pthread_t forker; /* valid while closed */

static void
enter (void)
{
  for (;;)
    {
      /* Both sequentially consistent, as in close_cb(): one of the two sees the other. */
      atomic_fetch_add (&n_inside, 1);
      if (!atomic_load (&closed) || pthread_equal (forker, pthread_self ()))
        return;
      atomic_fetch_sub (&n_inside, 1);
      sched_yield ();
    }
}

static void
leave (void)
{
  atomic_fetch_sub (&n_inside, 1);
}

/* glibc lets one thread fork at a time. */
static void
close_cb (void)
{
  forker = pthread_self ();
  atomic_store (&closed, 1);
  while (atomic_load (&n_inside) != 0)
    sched_yield ();
}

static void
open_cb (void)
{
  atomic_store (&closed, 0);
}

/* Others may have been about to find it closed. */
static void
open_in_child_cb (void)
{
  atomic_store (&n_inside, 0);
  atomic_store (&closed, 0);
}

/* Before all others: then it is closed when all have taken their locks, whose holders may be inside. */
static void
init (void)
{
  pthread_atfork (close_cb, open_cb, open_in_child_cb);
}

#ifdef FERRY_TEST_PRELOADED
__attribute__ ((constructor)) static void /* linked with -z initfirst */
init_library (void)
{
  init ();
}
#else
__attribute__ ((section (".preinit_array"), used)) static void (*init_program) (void) = init;
#endif

/* The sanitizer's function of that name; ThreadSanitizer's by way of tsan-allocator.c. */
#ifdef FERRY_TEST_TSAN
#define REAL(name) ferry_test_##name
#else
#define REAL(name) __interceptor_##name
#endif

#define WRAP(Type, name, parameters, arguments)                                                                        \
  Type REAL (name) parameters;                                                                                         \
  EXPORT Type name parameters;                                                                                         \
                                                                                                                       \
  EXPORT Type name parameters                                                                                          \
  {                                                                                                                    \
    Type result;                                                                                                       \
                                                                                                                       \
    enter ();                                                                                                          \
    result = REAL (name) arguments;                                                                                    \
    leave ();                                                                                                          \
    return result;                                                                                                     \
  }

WRAP (void *, malloc, (size_t size), (size))
WRAP (void *, calloc, (size_t n, size_t size), (n, size))
WRAP (void *, realloc, (void *memory, size_t size), (memory, size))
WRAP (void *, reallocarray, (void *memory, size_t n, size_t size), (memory, n, size))
WRAP (void *, memalign, (size_t alignment, size_t size), (alignment, size))
WRAP (void *, aligned_alloc, (size_t alignment, size_t size), (alignment, size))
WRAP (int, posix_memalign, (void **memory, size_t alignment, size_t size), (memory, alignment, size))

#ifndef FERRY_TEST_TSAN
/* ThreadSanitizer has glibc's, which call the functions above. */
WRAP (char *, strdup, (const char *text), (text))
WRAP (char *, strndup, (const char *text, size_t n), (text, n))

/* The leak checker knows the dynamic linker by the caller of malloc(), which is we now. What the linker allocates for a
 * library that is loaded later hangs on memory that it got by itself before there was a malloc(), where nobody looks. */
EXPORT const char *__lsan_default_suppressions (void);

EXPORT const char *
__lsan_default_suppressions (void)
{
  return "leak:dl_open_worker_begin\n";
}
#endif

void REAL (free) (void *memory);
EXPORT void free (void *memory);

EXPORT void
free (void *memory)
{
  enter ();
  REAL (free) (memory);
  leave ();
}
