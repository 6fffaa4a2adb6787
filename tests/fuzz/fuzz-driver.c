/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fuzz.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/*
 * Runs a fuzz target over the files of folders, and over every beginning of each file: the
 * corpus as a regression test, with any compiler.
 */

static void
run (const guint8 *data, gsize size)
{
  /* A block of exactly that size, so that reading beyond it is noticed. */
  guint8 *copy = malloc (MAX (size, 1));

  if (size > 0)
    memcpy (copy, data, size);
  LLVMFuzzerTestOneInput (copy, size);
  free (copy);
}

int
main (int argc, char **argv)
{
  guint n_files = 0;

  for (int i = 1; i < argc; i++)
    {
      g_autoptr (GError) error = NULL;
      g_autoptr (GDir) dir = g_dir_open (argv[i], 0, &error);
      const char *name;

      if (dir == NULL)
        {
          fprintf (stderr, "%s\n", error->message);
          return EXIT_FAILURE;
        }
      while ((name = g_dir_read_name (dir)) != NULL)
        {
          g_autofree char *path = g_build_filename (argv[i], name, NULL);
          g_autofree char *contents = NULL;
          gsize size;

          if (!g_file_get_contents (path, &contents, &size, &error))
            {
              fprintf (stderr, "%s\n", error->message);
              return EXIT_FAILURE;
            }
          for (gsize length = 0; length <= size; length++)
            run ((const guint8 *) contents, length);
          n_files++;
        }
    }

  printf ("%u files\n", n_files);
  return n_files > 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
