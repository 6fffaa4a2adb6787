/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A camera that needs no hardware: sends moving pictures of 1280 x 720 pixels, red, green and blue, each computed where
 * the receiver will see it.
 *
 *   cc camera.c $(pkg-config --cflags --libs ferry-1.0) -lm -o camera
 *   ./camera 'memfd name=camera capacity=4 ! numpy'
 */
#include <math.h>

#include <ferry.h>

#define WIDTH (1280)
#define HEIGHT (720)
#define COLOURS (3)
#define FORMAT "|u1"

/* The ball, in pixels and frames; watch.py knows this path too. */
#define BALL_RADIUS (60)
#define BALL_SWING_X (480)
#define BALL_SWING_Y (240)
#define BALL_PERIOD_X (240)
#define BALL_PERIOD_Y (160)

static const gint64 shape[] = { HEIGHT, WIDTH, COLOURS };

/* The rings, of which only the phase changes from picture to picture. */
static guint8 phases[HEIGHT][WIDTH];
static guint8 wave[256];

static void
prepare_scene (void)
{
  for (int y = 0; y < HEIGHT; y++)
    for (int x = 0; x < WIDTH; x++)
      phases[y][x] = ((x - WIDTH / 2) * (x - WIDTH / 2) + (y - HEIGHT / 2) * (y - HEIGHT / 2)) >> 6;
  for (int i = 0; i < 256; i++)
    wave[i] = (guint8) lround (60 + 60 * sin (i * G_PI / 128));
}

static void
draw (guint8 *pixels, guint frame)
{
  int ball_x = WIDTH / 2 + (int) lround (BALL_SWING_X * sin (2 * G_PI * frame / BALL_PERIOD_X));
  int ball_y = HEIGHT / 2 + (int) lround (BALL_SWING_Y * sin (2 * G_PI * frame / BALL_PERIOD_Y));
  guint8 *pixel = pixels;

  for (int y = 0; y < HEIGHT; y++)
    for (int x = 0; x < WIDTH; x++, pixel += COLOURS)
      {
        guint8 level = wave[(guint8) (phases[y][x] - 3 * frame)];

        pixel[0] = level / 2;
        pixel[1] = level;
        pixel[2] = 140 - level;
      }

  for (int y = -BALL_RADIUS; y <= BALL_RADIUS; y++)
    for (int x = -BALL_RADIUS; x <= BALL_RADIUS; x++)
      if (x * x + y * y <= BALL_RADIUS * BALL_RADIUS)
        {
          pixel = pixels + ((gsize) (ball_y + y) * WIDTH + ball_x + x) * COLOURS;
          pixel[0] = 255;
          pixel[1] = pixel[2] = 80 - (x + y) / 2;
        }
}

static gboolean
send_picture (FerryChannel *channel, guint frame, GError **error)
{
  g_autoptr (FerryTensor) picture = NULL;
  g_autoptr (FerryBuffer) buffer = ferry_channel_loan_tensor (channel, FORMAT, shape, G_N_ELEMENTS (shape),
                                                              FERRY_WAIT_FOREVER, NULL, &picture, error);

  if (buffer == NULL)
    return FALSE;

  ferry_buffer_set_timestamp (buffer, g_get_monotonic_time ());
  draw (ferry_tensor_get_writable_data (picture), frame);
  /* The memory is the receiver's as soon as it is sent: no view of it may be left. */
  g_clear_pointer (&picture, ferry_tensor_unref);
  return ferry_channel_send_buffer (channel, buffer, FERRY_WAIT_FOREVER, NULL, error);
}

static gboolean
run (const char *description, guint n_frames, guint frames_per_second, GError **error)
{
  g_autoptr (FerryChannel) channel = NULL;
  gint64 began;

  channel = ferry_channel_new_from_description (description, FERRY_ROLE_SENDER, error);
  if (channel == NULL || !ferry_channel_open (channel, NULL, error))
    return FALSE;

  prepare_scene ();
  began = g_get_monotonic_time ();
  for (guint frame = 0; frame < n_frames; frame++)
    {
      if (frames_per_second > 0)
        {
          gint64 wait = began + (gint64) frame * G_USEC_PER_SEC / frames_per_second - g_get_monotonic_time ();

          if (wait > 0)
            g_usleep ((gulong) wait);
        }
      if (!send_picture (channel, frame, error))
        return FALSE;
    }

  return ferry_channel_end_of_stream (channel, error) && ferry_channel_flush (channel, FERRY_WAIT_FOREVER, NULL, error)
         && ferry_channel_close (channel, error);
}

int
main (int argc, char **argv)
{
  g_autoptr (GError) error = NULL;
  guint64 n_frames = 300;
  guint64 frames_per_second = 30;

  if (argc < 2 || argc > 4 || (argc > 2 && !g_ascii_string_to_unsigned (argv[2], 10, 1, G_MAXINT32, &n_frames, &error))
      || (argc > 3 && !g_ascii_string_to_unsigned (argv[3], 10, 0, G_USEC_PER_SEC, &frames_per_second, &error)))
    {
      g_printerr ("Usage: %s DESCRIPTION [PICTURES [PER-SECOND, 0: as fast as they are taken]]\n", argv[0]);
      return 2;
    }

  if (!run (argv[1], (guint) n_frames, (guint) frames_per_second, &error))
    {
      g_printerr ("%s: %s\n", argv[0], error->message);
      return 1;
    }
  return 0;
}
