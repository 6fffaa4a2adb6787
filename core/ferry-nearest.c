/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ferry-nearest-private.h"

#include <string.h>

/* Longer names are not compared: nobody types them by hand. */
#define NAME_MAX_BYTES (64)

/*
 * Optimal string alignment distance: insertions, deletions, substitutions and swaps of
 * neighbours, without regard to case (Damerau 1964, in the restricted form of three
 * rows). Both names have at most NAME_MAX_BYTES bytes.
 */
static guint
edit_distance (const char *a, const char *b)
{
  guint rows[3][NAME_MAX_BYTES + 1];
  guint *before = rows[0], *previous = rows[1], *current = rows[2];
  gsize length_a = strlen (a);
  gsize length_b = strlen (b);

  for (gsize j = 0; j <= length_b; j++)
    previous[j] = (guint) j;

  for (gsize i = 1; i <= length_a; i++)
    {
      guint *recycled = before;

      current[0] = (guint) i;
      for (gsize j = 1; j <= length_b; j++)
        {
          char from = g_ascii_tolower (a[i - 1]);
          char to = g_ascii_tolower (b[j - 1]);
          guint cost = from == to ? 0 : 1;
          guint best = MIN (MIN (previous[j] + 1, current[j - 1] + 1), previous[j - 1] + cost);

          if (i > 1 && j > 1 && from == g_ascii_tolower (b[j - 2]) && g_ascii_tolower (a[i - 2]) == to)
            best = MIN (best, before[j - 2] + 1);
          current[j] = best;
        }
      before = previous;
      previous = current;
      current = recycled;
    }

  return previous[length_b];
}

/*
 * ferry_nearest_name: which name was probably meant.
 *
 * The candidate with the smallest edit distance, when that is small enough for a
 * mistyped name: at most a third of the name's length, at least one; failing that, the
 * only candidate that begins with the name or is its beginning. NULL when nothing is near.
 * The candidates end with NULL.
 */
const char *
ferry_nearest_name (const char *name, const char *const *candidates)
{
  const char *nearest = NULL;
  const char *completed = NULL;
  guint n_completed = 0;
  guint smallest;
  gsize length;

  g_return_val_if_fail (name != NULL, NULL);

  length = strlen (name);
  if (length == 0 || length > NAME_MAX_BYTES || candidates == NULL)
    return NULL;

  smallest = MAX (1, (guint) length / 3) + 1;
  for (gsize i = 0; candidates[i] != NULL; i++)
    {
      gsize candidate_length = strlen (candidates[i]);
      guint distance;

      if (candidate_length == 0 || candidate_length > NAME_MAX_BYTES)
        continue;
      distance = edit_distance (name, candidates[i]);
      if (distance < smallest)
        {
          smallest = distance;
          nearest = candidates[i];
        }
      if (g_ascii_strncasecmp (name, candidates[i], MIN (length, candidate_length)) == 0)
        {
          completed = candidates[i];
          n_completed++;
        }
    }

  if (nearest != NULL)
    return nearest;
  return n_completed == 1 ? completed : NULL;
}
