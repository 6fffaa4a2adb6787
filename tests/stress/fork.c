/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Forks of a process whose threads allocate all the time: the child can allocate, too. With sanitizers that does not go
 * without saying, see lib/asan-fork.c; other tests would hang there once in a hundred runs. */

#include "ferry-peers.h"

#include <stdlib.h>
#include <string.h>

#define THREADS (2)
#define FORKS (300)
#define BLOCKS (64)
#define SIZE_MAX_BYTES (200000)
#define CHILD_TIMEOUT (10 * FERRY_PEERS_S)
#define TIME (10 * FERRY_PEERS_S) /* a fork with ThreadSanitizer's shadow takes long */

static _Atomic gboolean over;

static gpointer
allocate (gpointer data)
{
  gpointer blocks[BLOCKS] = { NULL };
  FerryRandom random;

  ferry_random_init (&random, ferry_peers_seed () + GPOINTER_TO_UINT (data));
  for (guint i = 0; !over; i = (i + 1) % BLOCKS)
    {
      g_free (blocks[i]);
      blocks[i] = g_malloc (1 + ferry_random_below (&random, SIZE_MAX_BYTES));
    }
  for (guint i = 0; i < BLOCKS; i++)
    g_free (blocks[i]);
  return NULL;
}

static int
child_cb (gpointer data)
{
  for (gsize size = 1; size < SIZE_MAX_BYTES; size += 997)
    {
      guint8 *memory = g_malloc (size);

      memory[size - 1] = 1;
      memory = g_realloc (memory, 2 * size);
      g_free (memory);
    }
  free (strdup ("text"));
  return EXIT_SUCCESS;
}

int
main (int argc, char **argv)
{
  GThread *threads[THREADS];
  gint64 end = g_get_monotonic_time () + TIME;
  guint n_forks = 0;
  guint n_hung = 0;
  guint n_failed = 0;

  ferry_peers_setup (argc, argv);
  for (guint i = 0; i < THREADS; i++)
    threads[i] = g_thread_new ("allocate", allocate, GUINT_TO_POINTER (i));
  for (; n_forks < FORKS && g_get_monotonic_time () < end; n_forks++)
    {
      int status;

      if (!ferry_peers_wait (ferry_peers_fork (child_cb, NULL), CHILD_TIMEOUT, &status))
        n_hung++;
      else if (!ferry_peers_ended_well (status))
        n_failed++;
    }
  over = TRUE;
  for (guint i = 0; i < THREADS; i++)
    g_thread_join (threads[i]);
  ferry_peers_report (n_hung == 0 && n_failed == 0, "%u forks while threads allocate: %u hung, %u failed", n_forks,
                      n_hung, n_failed);
  return ferry_peers_finish ();
}
