/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Sends its arguments, one message each, and waits until they have been received.
 *
 *   cc sender.c $(pkg-config --cflags --libs ferry-1.0) -o sender
 *   ./sender 'memfd name=greetings' hello world
 */
#include <ferry.h>

static gboolean
send_all (FerryChannel *channel, char **messages, GError **error)
{
  if (!ferry_channel_open (channel, NULL, error))
    return FALSE;

  for (guint i = 0; messages[i] != NULL; i++)
    {
      g_autoptr (GBytes) bytes = g_bytes_new (messages[i], strlen (messages[i]));

      if (!ferry_channel_send_bytes (channel, bytes, FERRY_WAIT_FOREVER, NULL, error))
        return FALSE;
    }

  /* The channel lives as long as somebody has it open, and its messages with it: so
   * the sender stays until everything has been taken. */
  return ferry_channel_end_of_stream (channel, error) && ferry_channel_flush (channel, FERRY_WAIT_FOREVER, NULL, error)
         && ferry_channel_close (channel, error);
}

int
main (int argc, char **argv)
{
  g_autoptr (GError) error = NULL;
  g_autoptr (FerryChannel) channel = NULL;

  if (argc < 2)
    {
      g_printerr ("Usage: %s DESCRIPTION [MESSAGE...]\n", argv[0]);
      return 2;
    }

  channel = ferry_channel_new_from_description (argv[1], FERRY_ROLE_SENDER, &error);
  if (channel == NULL || !send_all (channel, argv + 2, &error))
    {
      g_printerr ("%s: %s\n", argv[0], error->message);
      return 1;
    }

  return 0;
}
