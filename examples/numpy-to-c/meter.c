/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Measures arrays of floats: prints shape, lowest, highest and mean value of each, until the stream ends, and the last
 * one as a picture. The arrays are read where NumPy computed them.
 *
 *   cc meter.c $(pkg-config --cflags --libs ferry-1.0) -o meter
 *   ./meter 'memfd name=waves capacity=4 ! numpy'
 */
#include <stdio.h>
#include <string.h>

#include <ferry.h>

#define PICTURE_COLUMNS (64)
#define PICTURE_ROWS (24)

static const char shades[] = " .:-=+*#%@";

static gboolean
check_tensor (FerryTensor *tensor, GError **error)
{
  if (ferry_tensor_get_data_type (tensor) == FERRY_DATA_TYPE_FLOAT32
      && ferry_tensor_get_byte_order (tensor) == G_BYTE_ORDER && ferry_tensor_get_n_dimensions (tensor) == 2
      && ferry_tensor_get_n_elements (tensor) > 0 && ferry_tensor_is_c_contiguous (tensor))
    return TRUE;

  g_set_error (error, FERRY_ERROR, FERRY_ERROR_UNSUPPORTED,
               "this program measures arrays of float32 with two dimensions, and one of format %s with %u arrived",
               ferry_tensor_get_format (tensor), ferry_tensor_get_n_dimensions (tensor));
  return FALSE;
}

static void
measure (FerryTensor *tensor, guint64 number, float *lowest, float *highest)
{
  const gint64 *shape = ferry_tensor_get_shape (tensor, NULL);
  const float *elements = ferry_tensor_get_data (tensor);
  gint64 n_elements = ferry_tensor_get_n_elements (tensor);
  double sum = 0;

  *lowest = *highest = elements[0];
  for (gint64 i = 0; i < n_elements; i++)
    {
      *lowest = MIN (*lowest, elements[i]);
      *highest = MAX (*highest, elements[i]);
      sum += elements[i];
    }
  printf ("array %" G_GUINT64_FORMAT ", %" G_GINT64_FORMAT " x %" G_GINT64_FORMAT ": %.4f to %.4f, mean %.6f\n", number,
          shape[0], shape[1], (double) *lowest, (double) *highest, sum / n_elements);
}

/* Tells the mapping that the elements lie in: the channel's memory, for nobody copied them. */
static void
print_memory (gconstpointer data)
{
  g_autofree char *maps = NULL;
  g_auto (GStrv) lines = NULL;

  if (!g_file_get_contents ("/proc/self/maps", &maps, NULL, NULL))
    return;
  lines = g_strsplit (maps, "\n", -1);
  for (gsize i = 0; lines[i] != NULL; i++)
    {
      guint64 begin, end;
      const char *path = strchr (lines[i], '/');

      if (sscanf (lines[i], "%" G_GINT64_MODIFIER "x-%" G_GINT64_MODIFIER "x", &begin, &end) == 2
          && GPOINTER_TO_SIZE (data) >= begin && GPOINTER_TO_SIZE (data) < end)
        printf ("in %s\n", path != NULL ? path : "memory of this process");
    }
}

static void
print_picture (FerryTensor *tensor, float lowest, float highest)
{
  const gint64 *shape = ferry_tensor_get_shape (tensor, NULL);
  const float *elements = ferry_tensor_get_data (tensor);
  float scale = highest > lowest ? (sizeof shades - 2) / (highest - lowest) : 0;

  for (gint64 row = 0; row < PICTURE_ROWS; row++)
    {
      for (gint64 column = 0; column < PICTURE_COLUMNS; column++)
        {
          float element = elements[row * shape[0] / PICTURE_ROWS * shape[1] + column * shape[1] / PICTURE_COLUMNS];

          putchar (shades[(int) ((element - lowest) * scale)]);
        }
      putchar ('\n');
    }
}

/* Returns only when there is nothing more to receive; @error tells why. */
static void
measure_all (FerryChannel *channel, GError **error)
{
  g_autoptr (FerryTensor) last = NULL;
  g_autoptr (GError) local = NULL;
  float lowest = 0;
  float highest = 0;

  if (!ferry_channel_open (channel, NULL, error))
    return;

  for (guint64 number = 0;; number++)
    {
      g_auto (GValue) value = G_VALUE_INIT;

      if (!ferry_channel_receive_value (channel, &value, FERRY_WAIT_FOREVER, NULL, &local))
        break;
      if (!G_VALUE_HOLDS (&value, FERRY_TYPE_TENSOR))
        {
          g_set_error (&local, FERRY_ERROR, FERRY_ERROR_UNSUPPORTED, "a %s arrived, which is no array",
                       G_VALUE_TYPE_NAME (&value));
          break;
        }
      /* The tensor keeps its message, and that its memory. One is held until the next is there. */
      g_clear_pointer (&last, ferry_tensor_unref);
      last = g_value_dup_boxed (&value);
      if (!check_tensor (last, &local))
        break;
      if (number == 0)
        print_memory (ferry_tensor_get_data (last));
      measure (last, number, &lowest, &highest);
    }

  if (last != NULL && g_error_matches (local, FERRY_ERROR, FERRY_ERROR_END_OF_STREAM))
    print_picture (last, lowest, highest);
  g_propagate_error (error, g_steal_pointer (&local));
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
    measure_all (channel, &error);

  if (!g_error_matches (error, FERRY_ERROR, FERRY_ERROR_END_OF_STREAM))
    {
      g_printerr ("%s: %s\n", argv[0], error->message);
      return 1;
    }
  return 0;
}
