/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * ThreadSanitizer sees what it has compiled, and GLib's locks are made of atomic
 * operations in a library that it has not: all that they protect would look like a race.
 * So in its builds the test programs have these functions in front of GLib's, which tell
 * it what happens before what.
 */

#include <dlfcn.h>
#include <glib-object.h>
#include <sanitizer/tsan_interface.h>

#define EXPORT __attribute__ ((visibility ("default")))

/* GLib's own function of that name. */
#define REAL(name) ((__typeof__ (&name)) dlsym (RTLD_NEXT, G_STRINGIFY (name)))

/* Defines functions of one pointer: what to tell before and after the real one. */
#define WRAP(name, Type, before, after)                                                                                \
  EXPORT void name (Type *lock)                                                                                        \
  {                                                                                                                    \
    static void (*real) (Type *);                                                                                      \
                                                                                                                       \
    if (__atomic_load_n (&real, __ATOMIC_RELAXED) == NULL)                                                             \
      __atomic_store_n (&real, REAL (name), __ATOMIC_RELAXED);                                                         \
    before;                                                                                                            \
    real (lock);                                                                                                       \
    after;                                                                                                             \
  }

#define NOTHING ((void) 0)

/* Some are macros too. */
#undef g_rec_mutex_lock
#undef g_mutex_trylock

WRAP (g_mutex_lock, GMutex, NOTHING, __tsan_acquire (lock))
WRAP (g_mutex_unlock, GMutex, __tsan_release (lock), NOTHING)
WRAP (g_rec_mutex_lock, GRecMutex, NOTHING, __tsan_acquire (lock))
WRAP (g_rec_mutex_unlock, GRecMutex, __tsan_release (lock), NOTHING)

EXPORT gboolean
g_mutex_trylock (GMutex *lock)
{
  gboolean locked = REAL (g_mutex_trylock) (lock);

  if (locked)
    __tsan_acquire (lock);
  return locked;
}

EXPORT void
g_cond_wait (GCond *cond, GMutex *lock)
{
  __tsan_release (lock);
  REAL (g_cond_wait) (cond, lock);
  __tsan_acquire (lock);
}

EXPORT gboolean
g_cond_wait_until (GCond *cond, GMutex *lock, gint64 end_time)
{
  gboolean signalled;

  __tsan_release (lock);
  signalled = REAL (g_cond_wait_until) (cond, lock, end_time);
  __tsan_acquire (lock);
  return signalled;
}

/* What a thread does comes after its making, and before its being joined. */

typedef struct
{
  GThreadFunc func;
  gpointer data;
} ThreadStart;

static gpointer
run_thread (gpointer data)
{
  ThreadStart start = *(ThreadStart *) data;
  gpointer result;

  __tsan_acquire (data);
  g_free (data);
  result = start.func (start.data);
  __tsan_release (g_thread_self ());
  return result;
}

EXPORT GThread *
g_thread_new (const char *name, GThreadFunc func, gpointer data)
{
  ThreadStart *start = g_new (ThreadStart, 1);

  start->func = func;
  start->data = data;
  __tsan_release (start);
  return REAL (g_thread_new) (name, run_thread, start);
}

EXPORT gpointer
g_thread_join (GThread *thread)
{
  gpointer result = REAL (g_thread_join) (thread);

  __tsan_acquire (thread);
  return result;
}

/* What was done with an object comes before its end, in whatever thread that is: who drops
 * a reference tells so, and who may be dropping the last one looks. */
EXPORT void (g_object_unref) (gpointer object)
{
  __tsan_release (object);
  __tsan_acquire (object);
  REAL (g_object_unref) (object);
}
