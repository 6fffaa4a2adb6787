/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The other process of test_plain_peer.py: a C program in which there is no Python.
 *
 *   plain-peer receive DESCRIPTION
 *   plain-peer send DESCRIPTION VARIANT...
 *   plain-peer send-tensor DESCRIPTION
 *
 * Receiving, it prints a line for each message: `variant`, and its text with types; or `tensor`, its format, its shape,
 * and its elements as numbers.
 */
#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

#include <ferry.h>

#define TIMEOUT (30 * G_USEC_PER_SEC)

static void
print_tensor (FerryTensor *tensor)
{
  guint n_dimensions;
  const gint64 *shape = ferry_tensor_get_shape (tensor, &n_dimensions);
  gint64 indices[FERRY_TENSOR_MAX_DIMENSIONS] = { 0 };

  printf ("tensor %s", ferry_tensor_get_format (tensor));
  for (guint i = 0; i < n_dimensions; i++)
    printf ("%c%" G_GINT64_FORMAT, i == 0 ? ' ' : 'x', shape[i]);
  printf (":");
  for (gint64 n = ferry_tensor_get_n_elements (tensor); n > 0; n--)
    {
      printf (" %g", ferry_tensor_get_element_double (tensor, indices, n_dimensions, NULL));
      for (guint i = n_dimensions; i-- > 0 && ++indices[i] == shape[i];)
        indices[i] = 0;
    }
  printf ("\n");
}

static gboolean
receive (FerryChannel *channel, GError **error)
{
  for (;;)
    {
      g_auto (GValue) value = G_VALUE_INIT;

      if (!ferry_channel_receive_value (channel, &value, TIMEOUT, NULL, error))
        break;
      if (G_VALUE_HOLDS_VARIANT (&value))
        {
          g_autofree char *text = g_variant_print (g_value_get_variant (&value), TRUE);

          printf ("variant %s\n", text);
        }
      else if (G_VALUE_HOLDS (&value, FERRY_TYPE_TENSOR))
        {
          print_tensor (g_value_get_boxed (&value));
        }
      else
        {
          printf ("a %s\n", G_VALUE_TYPE_NAME (&value));
        }
    }
  if (!g_error_matches (*error, FERRY_ERROR, FERRY_ERROR_END_OF_STREAM))
    return FALSE;
  g_clear_error (error);
  return TRUE;
}

static gboolean
finish_sending (FerryChannel *channel, GError **error)
{
  return ferry_channel_end_of_stream (channel, error) && ferry_channel_flush (channel, TIMEOUT, NULL, error);
}

static gboolean
send_variants (FerryChannel *channel, char **texts, GError **error)
{
  for (guint i = 0; texts[i] != NULL; i++)
    {
      g_autoptr (GVariant) variant = g_variant_parse (NULL, texts[i], NULL, NULL, error);
      g_auto (GValue) value = G_VALUE_INIT;

      if (variant == NULL)
        return FALSE;
      g_value_init (&value, G_TYPE_VARIANT);
      g_value_set_variant (&value, variant);
      if (!ferry_channel_send_value (channel, &value, TIMEOUT, NULL, error))
        return FALSE;
    }
  return finish_sending (channel, error);
}

static gboolean
send_tensor (FerryChannel *channel, GError **error)
{
  const gint64 shape[] = { 2, 3 };
  const gint32 elements[] = { 0, 1, 2, 3, 4, 5 };
  g_autoptr (FerryTensor) tensor = NULL;
  g_auto (GValue) value = G_VALUE_INIT;

  tensor = ferry_tensor_new_copy (ferry_data_type_get_format (FERRY_DATA_TYPE_INT32), shape, G_N_ELEMENTS (shape),
                                  (const guint8 *) elements, sizeof elements, error);
  if (tensor == NULL)
    return FALSE;
  g_value_init (&value, FERRY_TYPE_TENSOR);
  g_value_set_boxed (&value, tensor);
  return ferry_channel_send_value (channel, &value, TIMEOUT, NULL, error) && finish_sending (channel, error);
}

int
main (int argc, char **argv)
{
  g_autoptr (GError) error = NULL;
  g_autoptr (FerryChannel) channel = NULL;
  gboolean receives = argc == 3 && strcmp (argv[1], "receive") == 0;
  gboolean ok;

  if (!receives && (argc < 3 || !g_str_has_prefix (argv[1], "send")))
    {
      g_printerr ("Usage: %s receive|send|send-tensor DESCRIPTION [VARIANT...]\n", argv[0]);
      return 2;
    }

  channel = ferry_channel_new_from_description (argv[2], receives ? FERRY_ROLE_RECEIVER : FERRY_ROLE_SENDER, &error);
  ok = channel != NULL && ferry_channel_open (channel, NULL, &error);
  if (ok && receives)
    ok = receive (channel, &error);
  else if (ok)
    ok = strcmp (argv[1], "send-tensor") == 0 ? send_tensor (channel, &error)
                                              : send_variants (channel, argv + 3, &error);
  if (!ok)
    {
      g_printerr ("%s: %s\n", argv[0], error->message);
      return 1;
    }
  /* Else the test would be none. */
  if (dlsym (RTLD_DEFAULT, "Py_IsInitialized") != NULL)
    {
      g_printerr ("%s: there is a Python in this process\n", argv[0]);
      return 1;
    }
  return 0;
}
