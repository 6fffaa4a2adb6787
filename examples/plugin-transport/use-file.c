/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Sends numbered messages of growing size through a channel and receives them in a child process.
 *
 *   ./use-file 'file name=crate directory=/var/tmp'
 */
#include <ferry.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define N_MESSAGES 20

static gboolean
receive_all (const char *description, GError **error)
{
  g_autoptr (FerryChannel) channel = ferry_channel_new_from_description (description, FERRY_ROLE_RECEIVER, error);

  if (channel == NULL || !ferry_channel_open (channel, NULL, error))
    return FALSE;
  for (guint i = 0;; i++)
    {
      g_autoptr (GError) local = NULL;
      g_autoptr (FerryBuffer) message = ferry_channel_receive (channel, FERRY_WAIT_FOREVER, NULL, &local);

      if (message == NULL && g_error_matches (local, FERRY_ERROR, FERRY_ERROR_END_OF_STREAM))
        return i == N_MESSAGES;
      if (message == NULL)
        {
          g_propagate_error (error, g_steal_pointer (&local));
          return FALSE;
        }
      if (ferry_buffer_get_size (message) != (gsize) 1 << i || ferry_buffer_get_data (message, NULL)[0] != i)
        {
          g_set_error (error, FERRY_ERROR, FERRY_ERROR_FAILED, "message %u is another", i);
          return FALSE;
        }
    }
}

static gboolean
send_all (const char *description, GError **error)
{
  g_autoptr (FerryChannel) channel = ferry_channel_new_from_description (description, FERRY_ROLE_SENDER, error);

  if (channel == NULL || !ferry_channel_open (channel, NULL, error))
    return FALSE;
  for (guint i = 0; i < N_MESSAGES; i++)
    {
      g_autoptr (FerryBuffer) buffer = ferry_channel_loan (channel, (gsize) 1 << i, FERRY_WAIT_FOREVER, NULL, error);

      if (buffer == NULL)
        return FALSE;
      memset (ferry_buffer_get_writable_data (buffer, NULL), (int) i, (gsize) 1 << i);
      if (!ferry_channel_send_buffer (channel, buffer, FERRY_WAIT_FOREVER, NULL, error))
        return FALSE;
    }
  return ferry_channel_end_of_stream (channel, error)
         && ferry_channel_flush (channel, 20 * G_USEC_PER_SEC, NULL, error);
}

int
main (int argc, char **argv)
{
  g_autoptr (GError) error = NULL;
  gboolean ok;
  pid_t child;
  int status = 0;

  if (argc != 2)
    {
      g_printerr ("Usage: %s DESCRIPTION\n", argv[0]);
      return 2;
    }
  child = fork ();
  ok = child == 0 ? receive_all (argv[1], &error) : send_all (argv[1], &error);
  if (!ok)
    g_printerr ("%s: %s\n", argv[0], error != NULL ? error->message : "too few messages");
  if (child == 0)
    _exit (ok ? 0 : 1);
  if (child < 0 || waitpid (child, &status, 0) < 0 || !WIFEXITED (status) || WEXITSTATUS (status) != 0)
    return 1;
  if (ok)
    g_print ("%d messages, %d bytes the largest\n", N_MESSAGES, 1 << (N_MESSAGES - 1));
  return ok ? 0 : 1;
}
