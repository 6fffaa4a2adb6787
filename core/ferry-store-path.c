/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ferry-store-path-private.h"

#include "ferry-error.h"

#include <string.h>

/* So many steps lead through as many objects; deeper than GVariant is (128 levels), for lists of lists go deeper. */
#define STEPS_MAX (10000)

static void
step_clear (gpointer data)
{
  FerryPathStep *self = data;

  g_clear_pointer (&self->key, g_variant_unref);
}

typedef struct
{
  const char *label;
  const char *text;
  const char *at;
  GArray *steps;
} Parser;

/* Always FALSE. */
static gboolean G_GNUC_PRINTF (3, 4) fail (const Parser *self, GError **error, const char *format, ...)
{
  g_autofree char *message = NULL;
  va_list args;

  va_start (args, format);
  message = g_strdup_vprintf (format, args);
  va_end (args);
  g_set_error (error, FERRY_ERROR, FERRY_ERROR_PARSE, "%s: path '%s', at character %ld: %s", self->label, self->text,
               g_utf8_pointer_to_offset (self->text, self->at) + 1, message);
  return FALSE;
}

/* What may stand in a path without quotes. */
static gboolean
is_plain (gunichar character)
{
  return character > ' ' && character != '.' && character != '[' && character != ']' && character != '"'
         && character != '\'' && g_unichar_isprint (character);
}

static void
add (Parser *self, FerryPathKind kind, GVariant *key, gint64 index)
{
  FerryPathStep step = { kind, key != NULL ? g_variant_take_ref (key) : NULL, index, (gsize) (self->at - self->text) };

  g_array_append_val (self->steps, step);
}

static gboolean
parse_name (Parser *self, GError **error)
{
  const char *start = self->at;

  while (*self->at != '\0' && is_plain (g_utf8_get_char (self->at)))
    self->at = g_utf8_next_char (self->at);
  if (self->at == start)
    return *self->at == '\0'
               ? fail (self, error, "expected a name, found the end")
               : fail (self, error, "expected a name, found '%.*s'; other keys are written [\"in quotes\"]",
                       (int) (g_utf8_next_char (self->at) - self->at), self->at);
  add (self, FERRY_PATH_NAME, g_variant_new_take_string (g_strndup (start, (gsize) (self->at - start))), 0);
  return TRUE;
}

static void
skip_space (Parser *self)
{
  while (g_ascii_isspace (*self->at))
    self->at++;
}

/* An integer that is all there is up to the bracket. */
static gboolean
parse_index (Parser *self, gint64 *index)
{
  char *end;

  if (*self->at != '-' && !g_ascii_isdigit (*self->at))
    return FALSE;
  errno = 0;
  *index = g_ascii_strtoll (self->at, &end, 10);
  if (errno != 0 || end == self->at || (end == self->at + 1 && *self->at == '-'))
    return FALSE;
  while (g_ascii_isspace (*end))
    end++;
  if (*end != ']')
    return FALSE;
  self->at = end;
  return TRUE;
}

static gboolean
parse_bracket (Parser *self, GError **error)
{
  g_autoptr (GVariant) key = NULL;
  g_autoptr (GError) local = NULL;
  FerryPathKind kind = FERRY_PATH_KEY;
  gint64 index = 0;

  self->at++;
  skip_space (self);
  if (*self->at == '\0')
    return fail (self, error, "expected an index or a key, found the end");
  if (*self->at == ']')
    return fail (self, error, "expected an index, a key, or + for the place behind the last element, found ']'");
  if (*self->at == '+')
    {
      kind = FERRY_PATH_END;
      self->at++;
    }
  else if (parse_index (self, &index))
    {
      kind = FERRY_PATH_INDEX;
      key = g_variant_ref_sink (g_variant_new_int64 (index));
    }
  else
    {
      const char *end;

      key = g_variant_parse (NULL, self->at, NULL, &end, &local);
      if (key == NULL)
        return fail (self, error,
                     "expected an integer, a quoted string, or another key in the text format of GVariant: %s",
                     local->message);
      self->at = end;
      if (g_variant_is_of_type (key, G_VARIANT_TYPE_STRING))
        kind = FERRY_PATH_NAME;
    }
  skip_space (self);
  if (*self->at != ']')
    return *self->at == '\0' ? fail (self, error, "expected ']', found the end")
                             : fail (self, error, "expected ']', found '%.*s'",
                                     (int) (g_utf8_next_char (self->at) - self->at), self->at);
  self->at++;
  add (self, kind, g_steal_pointer (&key), index);
  return TRUE;
}

GArray *
ferry_store_path_parse (const char *label, const char *path, gboolean is_relative, GError **error)
{
  g_autoptr (GArray) steps = g_array_new (FALSE, FALSE, sizeof (FerryPathStep));
  Parser self = { label, path, path, steps };

  g_array_set_clear_func (steps, step_clear);
  if (!g_utf8_validate (path, -1, NULL))
    {
      g_autofree char *valid = g_utf8_make_valid (path, -1);

      g_set_error (error, FERRY_ERROR, FERRY_ERROR_PARSE, "%s: path '%s' is not UTF-8", label, valid);
      return NULL;
    }
  while (*self.at != '\0')
    {
      gboolean ok;

      if (steps->len >= STEPS_MAX)
        {
          g_set_error (error, FERRY_ERROR, FERRY_ERROR_PARSE, "%s: a path has at most %d steps", label, STEPS_MAX);
          return NULL;
        }
      if (*self.at == '[')
        {
          ok = parse_bracket (&self, error);
        }
      else if (steps->len == 0)
        {
          ok = parse_name (&self, error);
        }
      else if (*self.at == '.')
        {
          self.at++;
          ok = parse_name (&self, error);
        }
      else
        {
          ok = fail (&self, error, "expected '.', '[' or the end, found '%.*s'",
                     (int) (g_utf8_next_char (self.at) - self.at), self.at);
        }
      if (!ok)
        return NULL;
      if (!is_relative && steps->len == 1 && g_array_index (steps, FerryPathStep, 0).kind != FERRY_PATH_NAME)
        {
          self.at = path;
          fail (&self, error, "a path begins with a name of the store, such as cfg or [\"a name\"]");
          return NULL;
        }
    }
  return g_steal_pointer (&steps);
}

void
ferry_store_path_append (GString *path, GVariant *key)
{
  g_autofree char *text = NULL;

  if (g_variant_is_of_type (key, G_VARIANT_TYPE_STRING))
    {
      const char *name = g_variant_get_string (key, NULL);
      const char *p = name;

      while (*p != '\0' && is_plain (g_utf8_get_char (p)))
        p = g_utf8_next_char (p);
      if (*name != '\0' && *p == '\0')
        {
          if (path->len > 0)
            g_string_append_c (path, '.');
          g_string_append (path, name);
          return;
        }
    }
  if (g_variant_is_of_type (key, G_VARIANT_TYPE_INT64))
    text = g_strdup_printf ("%" G_GINT64_FORMAT, g_variant_get_int64 (key));
  else
    text = g_variant_print (key, TRUE);
  g_string_append_c (path, '[');
  g_string_append (path, text);
  g_string_append_c (path, ']');
}
