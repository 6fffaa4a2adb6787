/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Sends text through a channel with the codec zlib, and receives it with whatever codec
 * the message names. Prints how many bytes travelled.
 *
 *   ./use-zlib 'memfd name=squeezed'
 */
#include <ferry.h>
#include <string.h>

#define N_LINES 1000

static FerryChannel *
open_channel (const char *transport, const char *codec, FerryRole role, GError **error)
{
  g_autofree char *description = g_strdup_printf ("%s ! %s", transport, codec);
  g_autoptr (FerryChannel) channel = ferry_channel_new_from_description (description, role, error);

  if (channel == NULL || !ferry_channel_open (channel, NULL, error))
    return NULL;
  return g_steal_pointer (&channel);
}

static GBytes *
make_text (void)
{
  GString *text = g_string_new (NULL);

  for (int i = 0; i < N_LINES; i++)
    g_string_append_printf (text, "line %d: the ferry goes to and fro\n", i);

  return g_string_free_to_bytes (text);
}

static gboolean
send_and_receive (const char *transport, GError **error)
{
  g_autoptr (FerryChannel) sender = open_channel (transport, "zlib level=9", FERRY_ROLE_SENDER, error);
  g_autoptr (FerryChannel) receiver
      = sender != NULL ? open_channel (transport, "auto", FERRY_ROLE_RECEIVER, error) : NULL;
  g_autoptr (GBytes) text = make_text ();
  g_autoptr (FerryBuffer) message = NULL;
  g_auto (GValue) sent = G_VALUE_INIT;
  g_auto (GValue) received = G_VALUE_INIT;

  if (receiver == NULL)
    return FALSE;

  g_value_init (&sent, G_TYPE_BYTES);
  g_value_set_boxed (&sent, text);
  if (!ferry_channel_send_value (sender, &sent, FERRY_WAIT_FOREVER, NULL, error))
    return FALSE;

  message = ferry_channel_receive (receiver, FERRY_WAIT_FOREVER, NULL, error);
  if (message == NULL || !ferry_channel_decode (receiver, message, &received, error))
    return FALSE;

  if (!G_VALUE_HOLDS (&received, G_TYPE_BYTES) || !g_bytes_equal (g_value_get_boxed (&received), text))
    {
      g_set_error (error, FERRY_ERROR, FERRY_ERROR_FAILED, "something else came out");
      return FALSE;
    }
  g_print ("%" G_GSIZE_FORMAT " bytes travelled as %" G_GSIZE_FORMAT "\n", g_bytes_get_size (text),
           ferry_buffer_get_size (message));

  return TRUE;
}

int
main (int argc, char **argv)
{
  g_autoptr (GError) error = NULL;

  if (argc != 2)
    {
      g_printerr ("Usage: %s DESCRIPTION\n", argv[0]);
      return 2;
    }
  if (!send_and_receive (argv[1], &error))
    {
      g_printerr ("%s: %s\n", argv[0], error->message);
      return 1;
    }

  return 0;
}
