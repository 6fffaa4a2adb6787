/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Prints every message of a channel on a line of its own, until the stream ends.
 *
 *   cc receiver.c $(pkg-config --cflags --libs ferry-1.0) -o receiver
 *   ./receiver 'memfd name=greetings'
 */
#include <stdio.h>

#include <ferry.h>

/* Returns only when there is nothing more to receive; @error tells why. */
static void
receive_all (FerryChannel *channel, GError **error)
{
  if (!ferry_channel_open (channel, NULL, error))
    return;

  while (TRUE)
    {
      const char *text;
      gsize size;
      /* The bytes stay where the sender put them, in shared memory; dropping the
       * last reference gives the memory back. */
      g_autoptr (GBytes) bytes = ferry_channel_receive_bytes (channel, FERRY_WAIT_FOREVER, NULL, error);

      if (bytes == NULL)
        return;

      text = g_bytes_get_data (bytes, &size);
      printf ("%.*s\n", (int) size, size > 0 ? text : "");
      fflush (stdout);
    }
}

int
main (int argc, char **argv)
{
  g_autoptr (GError) error = NULL;
  g_autoptr (FerryChannel) channel = NULL;

  if (argc != 2)
    {
      g_printerr ("Usage: %s DESCRIPTION\n", argv[0]);
      return 2;
    }

  channel = ferry_channel_new_from_description (argv[1], FERRY_ROLE_RECEIVER, &error);
  if (channel != NULL)
    receive_all (channel, &error);

  if (!g_error_matches (error, FERRY_ERROR, FERRY_ERROR_END_OF_STREAM))
    {
      g_printerr ("%s: %s\n", argv[0], error->message);
      return 1;
    }

  return 0;
}
