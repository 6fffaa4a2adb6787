/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ferry-description-private.h"

#include "ferry-error.h"
#include "ferry-nearest-private.h"

#include <gio/gio.h>

#include <math.h>
#include <string.h>

/*
 * Channel descriptions, as a line
 *
 *   TRANSPORT [KEY=VALUE...] [! CODEC [KEY=VALUE...]]
 *   posix-shm name=frames capacity=16 mode=broadcast ! numpy level=3
 *
 * where values are quoted as in a shell, or as a URI
 *
 *   ferry+TRANSPORT:[NAME][?KEY=VALUE[&KEY=VALUE...]]
 *   ferry+memfd:frames?capacity=16&codec=numpy&codec.level=3
 *
 * where they are percent-encoded.
 */

#define URI_PREFIX "ferry+"
#define CODEC_KEY "codec"
#define CODEC_PREFIX "codec."

/* In bytes; a command line has not more. */
#define TEXT_MAX (131072)

static void
property_free (gpointer data)
{
  FerryDescriptionProperty *property = data;

  g_free (property->key);
  g_free (property->value);
  g_free (property);
}

/*
 * ferry_description_new: a description without properties. The codec may be NULL.
 */
FerryDescription *
ferry_description_new (const char *transport, const char *codec)
{
  FerryDescription *self = g_new0 (FerryDescription, 1);

  self->transport = g_strdup (transport);
  self->codec = g_strdup (codec);
  self->channel_properties = g_ptr_array_new_with_free_func (property_free);
  self->codec_properties = g_ptr_array_new_with_free_func (property_free);
  return self;
}

void
ferry_description_free (FerryDescription *self)
{
  if (self == NULL)
    return;
  g_free (self->transport);
  g_free (self->codec);
  g_ptr_array_unref (self->channel_properties);
  g_ptr_array_unref (self->codec_properties);
  g_free (self);
}

static void
append_property (GPtrArray *properties, const char *key, const char *value)
{
  FerryDescriptionProperty *property = g_new0 (FerryDescriptionProperty, 1);

  property->key = g_strdelimit (g_strdup (key), "_", '-');
  property->value = g_strdup (value);
  g_ptr_array_add (properties, property);
}

static gboolean
has_property (GPtrArray *properties, const char *key)
{
  g_autofree char *canonical = g_strdelimit (g_strdup (key), "_", '-');

  for (guint i = 0; i < properties->len; i++)
    if (strcmp (((FerryDescriptionProperty *) properties->pdata[i])->key, canonical) == 0)
      return TRUE;
  return FALSE;
}

/*
 * ferry_description_add: appends a property of channel or transport.
 */
void
ferry_description_add (FerryDescription *self, const char *key, const char *value)
{
  append_property (self->channel_properties, key, value);
}

/*
 * ferry_description_add_codec_property: appends a property of the codec.
 */
void
ferry_description_add_codec_property (FerryDescription *self, const char *key, const char *value)
{
  append_property (self->codec_properties, key, value);
}

/* Names of features and of properties. */
static gboolean
is_name (const char *text)
{
  if (!g_ascii_isalpha (text[0]))
    return FALSE;
  for (const char *p = text; *p != '\0'; p++)
    if (!g_ascii_isalnum (*p) && *p != '-' && *p != '_')
      return FALSE;
  return TRUE;
}

/*
 * Reading
 */

typedef struct
{
  const char *text;
  const char *p;
} Lexer;

/* One word, the quotes taken off. */
typedef struct
{
  gsize column; /* where it begins, counted from 1, in characters */
  GString *text;
  gssize equals;  /* the first '=' that is not quoted, in bytes of text; or -1 */
  gboolean plain; /* nothing in it is quoted */
} Word;

static gsize
column_of (const char *text, const char *p)
{
  return (gsize) g_utf8_strlen (text, p - text) + 1;
}

/* In bytes; error messages show that much of a description. */
#define SHOWN_MAX (200)

/* The column where it is, then what was expected, found, and to be done. */
static gboolean G_GNUC_PRINTF (4, 5)
    parse_error (const char *text, gsize column, GError **error, const char *message, ...)
{
  g_autofree char *detail = NULL;
  gsize shown = strlen (text);
  va_list args;

  if (shown > SHOWN_MAX)
    {
      /* Not in the middle of a character. */
      for (shown = SHOWN_MAX; shown > 0 && ((guint8) text[shown] & 0xc0) == 0x80;)
        shown--;
    }
  va_start (args, message);
  detail = g_strdup_vprintf (message, args);
  va_end (args);
  g_set_error (error, FERRY_ERROR, FERRY_ERROR_PARSE, "description \"%.*s%s\", column %" G_GSIZE_FORMAT ": %s",
               (int) shown, text, text[shown] != '\0' ? "..." : "", column, detail);
  return FALSE;
}

/* Reads a word. Without one left the text of the word is NULL. */
static gboolean
lexer_next (Lexer *lexer, Word *word, GError **error)
{
  char quote = '\0';
  const char *quote_start = NULL;

  while (g_ascii_isspace (*lexer->p))
    lexer->p++;

  word->column = column_of (lexer->text, lexer->p);
  word->equals = -1;
  word->plain = TRUE;
  word->text = NULL;
  if (*lexer->p == '\0')
    return TRUE;

  word->text = g_string_new (NULL);
  for (; *lexer->p != '\0'; lexer->p++)
    {
      char c = *lexer->p;

      if (quote == '\0' && g_ascii_isspace (c))
        break;
      if (quote == '\0' && (c == '\'' || c == '"'))
        {
          quote = c;
          quote_start = lexer->p;
          word->plain = FALSE;
        }
      else if (quote != '\0' && c == quote)
        {
          quote = '\0';
        }
      else if (c == '\\' && (quote == '\0' || (quote == '"' && (lexer->p[1] == '"' || lexer->p[1] == '\\'))))
        {
          word->plain = FALSE;
          lexer->p++;
          if (*lexer->p == '\0')
            return parse_error (lexer->text, column_of (lexer->text, lexer->p - 1), error,
                                "expected a character after the backslash, found the end; write \\\\ for a backslash");
          g_string_append_c (word->text, *lexer->p);
        }
      else
        {
          if (c == '=' && quote == '\0' && word->equals < 0)
            word->equals = (gssize) word->text->len;
          g_string_append_c (word->text, c);
        }
    }
  if (quote != '\0')
    return parse_error (
        lexer->text, column_of (lexer->text, quote_start), error,
        "expected a closing %c for this quote, found the end; close it, or write \\%c for the character", quote, quote);
  return TRUE;
}

static void
word_clear (Word *word)
{
  if (word->text != NULL)
    g_string_free (word->text, TRUE);
  word->text = NULL;
}

G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC (Word, word_clear)

/* The name of a transport or codec, as the next word. */
static char *
parse_feature_name (Lexer *lexer, const char *what, const char *example, GError **error)
{
  g_auto (Word) word = { 0 };

  if (!lexer_next (lexer, &word, error))
    return NULL;
  if (word.text == NULL)
    {
      parse_error (lexer->text, word.column, error,
                   "expected the name of a %s, found the end; write for instance \"%s\"", what, example);
      return NULL;
    }
  if (!is_name (word.text->str))
    {
      const char *hint = word.equals > 0                        ? "; put it before the properties"
                         : strchr (word.text->str, '!') != NULL ? "; put spaces around the '!'"
                                                                : "; names have letters, digits, '-' and '_'";

      parse_error (lexer->text, word.column, error, "expected the name of a %s, found \"%s\"%s", what, word.text->str,
                   hint);
      return NULL;
    }
  return g_string_free (g_steal_pointer (&word.text), FALSE);
}

/* Properties up to the end, or to a '!' if one may come. */
static gboolean
parse_properties (Lexer *lexer, GPtrArray *properties, gboolean codec_may_follow, gboolean *codec_follows,
                  GError **error)
{
  *codec_follows = FALSE;
  for (;;)
    {
      g_auto (Word) word = { 0 };

      if (!lexer_next (lexer, &word, error))
        return FALSE;
      if (word.text == NULL)
        return TRUE;

      if (word.plain && strcmp (word.text->str, "!") == 0)
        {
          if (!codec_may_follow)
            return parse_error (lexer->text, word.column, error,
                                "expected key=value or the end, found a second '!'; a channel has one codec");
          *codec_follows = TRUE;
          return TRUE;
        }
      if (word.equals < 0)
        {
          if (strchr (word.text->str, '!') != NULL)
            return parse_error (lexer->text, word.column, error,
                                "expected key=value, found \"%s\"; put spaces around the '!'", word.text->str);
          if (codec_may_follow)
            return parse_error (
                lexer->text, word.column, error,
                "expected key=value, found \"%s\"; write name=%s for the channel's name, or ! %s for the "
                "codec",
                word.text->str, word.text->str, word.text->str);
          return parse_error (lexer->text, word.column, error, "expected key=value, found \"%s\"", word.text->str);
        }

      word.text->str[word.equals] = '\0';
      if (!is_name (word.text->str))
        return parse_error (lexer->text, word.column, error,
                            "expected key=value, found the key \"%s\"; keys have letters, digits and '-', and no space "
                            "before the '='",
                            word.text->str);
      if (has_property (properties, word.text->str))
        return parse_error (lexer->text, word.column, error,
                            "expected another key, found \"%s\" a second time; give it once", word.text->str);
      append_property (properties, word.text->str, word.text->str + word.equals + 1);
    }
}

static FerryDescription *
parse_line (const char *text, GError **error)
{
  g_autoptr (FerryDescription) self = ferry_description_new (NULL, NULL);
  Lexer lexer = { text, text };
  gboolean codec_follows;

  self->transport = parse_feature_name (&lexer, "transport", "memfd name=frames", error);
  if (self->transport == NULL || !parse_properties (&lexer, self->channel_properties, TRUE, &codec_follows, error))
    return NULL;
  if (codec_follows)
    {
      self->codec = parse_feature_name (&lexer, "codec", "memfd name=frames ! raw", error);
      if (self->codec == NULL || !parse_properties (&lexer, self->codec_properties, FALSE, &codec_follows, error))
        return NULL;
    }
  return g_steal_pointer (&self);
}

static FerryDescription *
parse_uri (const char *text, GError **error)
{
  g_autoptr (FerryDescription) self = NULL;
  g_autoptr (GUri) uri = NULL;
  g_autoptr (GError) uri_error = NULL;
  const char *colon = strchr (text, ':');
  const char *transport;
  const char *query;
  GUriParamsIter iterator;
  char *key;
  char *value;

  if (colon == NULL)
    {
      parse_error (text, column_of (text, text + strlen (text)), error,
                   "expected ':' after the transport, found the end; write for instance \"" URI_PREFIX
                   "memfd:frames?capacity=16\"");
      return NULL;
    }
  uri = g_uri_parse (text, G_URI_FLAGS_ENCODED_QUERY, &uri_error);
  if (uri == NULL)
    {
      parse_error (text, 1, error, "expected a URI like \"" URI_PREFIX "memfd:frames?capacity=16\", but %s",
                   uri_error->message);
      return NULL;
    }
  if (g_uri_get_host (uri) != NULL)
    {
      parse_error (text, column_of (text, colon) + 1, error,
                   "expected the channel's name, found \"//\"; write " URI_PREFIX "TRANSPORT:NAME, without slashes");
      return NULL;
    }
  if (g_uri_get_fragment (uri) != NULL)
    {
      parse_error (text, column_of (text, strchr (text, '#')), error,
                   "expected the end, found '#'; write %%23 for the character");
      return NULL;
    }

  transport = g_uri_get_scheme (uri) + strlen (URI_PREFIX);
  if (!is_name (transport))
    {
      parse_error (text, strlen (URI_PREFIX) + 1, error, "expected the name of a transport, found \"%s\"", transport);
      return NULL;
    }
  self = ferry_description_new (transport, NULL);
  if (g_uri_get_path (uri)[0] != '\0')
    ferry_description_add (self, "name", g_uri_get_path (uri));

  query = g_uri_get_query (uri);
  if (query == NULL)
    return g_steal_pointer (&self);

  g_uri_params_iter_init (&iterator, query, -1, "&", G_URI_PARAMS_NONE);
  while (g_uri_params_iter_next (&iterator, &key, &value, &uri_error))
    {
      G_GNUC_UNUSED g_autofree char *own_key = key;
      G_GNUC_UNUSED g_autofree char *own_value = value;
      gsize column = column_of (text, strchr (text, '?')) + 1;

      if (strcmp (key, CODEC_KEY) == 0)
        {
          if (self->codec != NULL)
            {
              parse_error (text, column, error, "expected one codec, found \"%s\" and \"%s\"; a channel has one codec",
                           self->codec, value);
              return NULL;
            }
          if (!is_name (value))
            {
              parse_error (text, column, error,
                           "expected the name of a codec, found \"%s\"; names have letters, digits, '-' and '_'",
                           value);
              return NULL;
            }
          self->codec = g_strdup (value);
        }
      else
        {
          gboolean for_codec = g_str_has_prefix (key, CODEC_PREFIX);
          GPtrArray *properties = for_codec ? self->codec_properties : self->channel_properties;
          const char *name = for_codec ? key + strlen (CODEC_PREFIX) : key;

          if (!is_name (name))
            {
              parse_error (text, column, error,
                           "expected key=value, found the key \"%s\"; keys have letters, digits and '-'", key);
              return NULL;
            }
          if (has_property (properties, name))
            {
              parse_error (text, column, error, "expected another key, found \"%s\" a second time; give it once", key);
              return NULL;
            }
          append_property (properties, name, value);
        }
    }
  if (uri_error != NULL)
    {
      parse_error (text, column_of (text, strchr (text, '?')) + 1, error,
                   "expected KEY=VALUE&KEY=VALUE..., but %s in \"%s\"; write %%25 for a percent sign",
                   uri_error->message, query);
      return NULL;
    }
  if (self->codec == NULL && self->codec_properties->len > 0)
    {
      FerryDescriptionProperty *property = self->codec_properties->pdata[0];

      parse_error (text, column_of (text, strchr (text, '?')) + 1, error,
                   "expected codec=NAME beside \"" CODEC_PREFIX "%s\", found none; name the codec", property->key);
      return NULL;
    }
  return g_steal_pointer (&self);
}

/*
 * ferry_description_parse: takes a description apart. Whether there are such features
 * and properties is not looked at. Errors: FERRY_ERROR_PARSE.
 */
FerryDescription *
ferry_description_parse (const char *text, GError **error)
{
  const char *invalid;

  g_return_val_if_fail (text != NULL, NULL);

  if (strnlen (text, TEXT_MAX + 1) > TEXT_MAX)
    {
      g_set_error (error, FERRY_ERROR, FERRY_ERROR_PARSE, "the description has more than %d bytes", TEXT_MAX);
      return NULL;
    }
  if (!g_utf8_validate (text, -1, &invalid))
    {
      g_autofree char *valid = g_utf8_make_valid (text, -1);

      parse_error (valid, column_of (text, invalid), error,
                   "expected UTF-8, found the byte 0x%02x; write the description in UTF-8", (guint8) *invalid);
      return NULL;
    }

  while (g_ascii_isspace (*text))
    text++;
  if (g_ascii_strncasecmp (text, URI_PREFIX, strlen (URI_PREFIX)) == 0)
    return parse_uri (text, error);
  return parse_line (text, error);
}

/*
 * Writing
 */

static void
write_properties (GString *text, GPtrArray *properties)
{
  for (guint i = 0; i < properties->len; i++)
    {
      const FerryDescriptionProperty *property = properties->pdata[i];
      gboolean plain = property->value[0] != '\0';

      for (const char *p = property->value; *p != '\0'; p++)
        if (!g_ascii_isalnum (*p) && strchr ("-_./:@%+,=", *p) == NULL && (guint8) *p < 0x80)
          plain = FALSE;
      g_string_append_printf (text, " %s=", property->key);
      if (plain)
        {
          g_string_append (text, property->value);
        }
      else
        {
          g_autofree char *quoted = g_shell_quote (property->value);

          g_string_append (text, quoted);
        }
    }
}

/*
 * ferry_description_to_string: the line that ferry_description_parse() makes the same
 * of; also good in a shell when it is quoted as a whole.
 */
char *
ferry_description_to_string (const FerryDescription *self)
{
  GString *text = g_string_new (self->transport);

  write_properties (text, self->channel_properties);
  if (self->codec != NULL)
    {
      g_string_append_printf (text, " ! %s", self->codec);
      write_properties (text, self->codec_properties);
    }
  return g_string_free (text, FALSE);
}

/*
 * Properties of objects
 */

static gboolean
is_settable (const GParamSpec *pspec)
{
  return (pspec->flags & G_PARAM_WRITABLE) != 0 && (pspec->flags & G_PARAM_CONSTRUCT_ONLY) == 0;
}

/* What an enumeration or set of flags may be: "a, b, c". */
static char *
list_nicks (GType type)
{
  g_autoptr (GTypeClass) klass = g_type_class_ref (type);
  GString *text = g_string_new (NULL);

  if (G_IS_ENUM_CLASS (klass))
    for (guint i = 0; i < G_ENUM_CLASS (klass)->n_values; i++)
      g_string_append_printf (text, "%s%s", i > 0 ? ", " : "", G_ENUM_CLASS (klass)->values[i].value_nick);
  else
    for (guint i = 0; i < G_FLAGS_CLASS (klass)->n_values; i++)
      g_string_append_printf (text, "%s%s", i > 0 ? ", " : "", G_FLAGS_CLASS (klass)->values[i].value_nick);
  return g_string_free (text, FALSE);
}

static const char *
nearest_nick (GType type, const char *text)
{
  g_autoptr (GTypeClass) klass = g_type_class_ref (type);
  g_autoptr (GPtrArray) nicks = g_ptr_array_new ();

  if (G_IS_ENUM_CLASS (klass))
    for (guint i = 0; i < G_ENUM_CLASS (klass)->n_values; i++)
      g_ptr_array_add (nicks, (gpointer) G_ENUM_CLASS (klass)->values[i].value_nick);
  else
    for (guint i = 0; i < G_FLAGS_CLASS (klass)->n_values; i++)
      g_ptr_array_add (nicks, (gpointer) G_FLAGS_CLASS (klass)->values[i].value_nick);
  g_ptr_array_add (nicks, NULL);
  return ferry_nearest_name (text, (const char *const *) nicks->pdata);
}

/* What may be written for a property, for error messages. */
static char *
describe_allowed (GParamSpec *pspec)
{
  if (G_IS_PARAM_SPEC_BOOLEAN (pspec))
    return g_strdup ("yes or no");
  if (G_IS_PARAM_SPEC_ENUM (pspec))
    {
      g_autofree char *nicks = list_nicks (pspec->value_type);

      return g_strdup_printf ("one of %s", nicks);
    }
  if (G_IS_PARAM_SPEC_FLAGS (pspec))
    {
      g_autofree char *nicks = list_nicks (pspec->value_type);

      return g_strdup_printf ("any of %s, joined with '+'", nicks);
    }
  if (G_IS_PARAM_SPEC_CHAR (pspec))
    return g_strdup_printf ("%d to %d", G_PARAM_SPEC_CHAR (pspec)->minimum, G_PARAM_SPEC_CHAR (pspec)->maximum);
  if (G_IS_PARAM_SPEC_UCHAR (pspec))
    return g_strdup_printf ("%u to %u", G_PARAM_SPEC_UCHAR (pspec)->minimum, G_PARAM_SPEC_UCHAR (pspec)->maximum);
  if (G_IS_PARAM_SPEC_INT (pspec))
    return g_strdup_printf ("%d to %d", G_PARAM_SPEC_INT (pspec)->minimum, G_PARAM_SPEC_INT (pspec)->maximum);
  if (G_IS_PARAM_SPEC_UINT (pspec))
    return g_strdup_printf ("%u to %u", G_PARAM_SPEC_UINT (pspec)->minimum, G_PARAM_SPEC_UINT (pspec)->maximum);
  if (G_IS_PARAM_SPEC_LONG (pspec))
    return g_strdup_printf ("%ld to %ld", G_PARAM_SPEC_LONG (pspec)->minimum, G_PARAM_SPEC_LONG (pspec)->maximum);
  if (G_IS_PARAM_SPEC_ULONG (pspec))
    return g_strdup_printf ("%lu to %lu", G_PARAM_SPEC_ULONG (pspec)->minimum, G_PARAM_SPEC_ULONG (pspec)->maximum);
  if (G_IS_PARAM_SPEC_INT64 (pspec))
    return g_strdup_printf ("%" G_GINT64_FORMAT " to %" G_GINT64_FORMAT, G_PARAM_SPEC_INT64 (pspec)->minimum,
                            G_PARAM_SPEC_INT64 (pspec)->maximum);
  if (G_IS_PARAM_SPEC_UINT64 (pspec))
    return g_strdup_printf ("%" G_GUINT64_FORMAT " to %" G_GUINT64_FORMAT ", also with a unit: 64k, 16MiB, 10GB",
                            G_PARAM_SPEC_UINT64 (pspec)->minimum, G_PARAM_SPEC_UINT64 (pspec)->maximum);
  if (G_IS_PARAM_SPEC_FLOAT (pspec))
    return g_strdup_printf ("%g to %g", (double) G_PARAM_SPEC_FLOAT (pspec)->minimum,
                            (double) G_PARAM_SPEC_FLOAT (pspec)->maximum);
  if (G_IS_PARAM_SPEC_DOUBLE (pspec))
    return g_strdup_printf ("%g to %g", G_PARAM_SPEC_DOUBLE (pspec)->minimum, G_PARAM_SPEC_DOUBLE (pspec)->maximum);
  return g_strdup_printf ("a %s", g_type_name (pspec->value_type));
}

static gboolean
parse_boolean (const char *text, gboolean *result)
{
  static const char *const words[2][5] = { { "no", "false", "off", "0", NULL }, { "yes", "true", "on", "1", NULL } };

  for (guint truth = 0; truth < 2; truth++)
    for (guint i = 0; words[truth][i] != NULL; i++)
      if (g_ascii_strcasecmp (text, words[truth][i]) == 0)
        {
          *result = truth == 1;
          return TRUE;
        }
  return FALSE;
}

/* A whole number, decimal or with 0x, and where it ends. */
static gboolean
parse_unsigned (const char *text, const char **end, guint64 *result)
{
  guint base = 10;
  const char *digits = text;
  guint64 value = 0;

  if (text[0] == '0' && (text[1] == 'x' || text[1] == 'X'))
    {
      base = 16;
      digits += 2;
    }
  *end = digits;
  for (; base == 16 ? g_ascii_isxdigit (**end) : g_ascii_isdigit (**end); (*end)++)
    if (__builtin_mul_overflow (value, (guint64) base, &value)
        || __builtin_add_overflow (value, (guint64) g_ascii_xdigit_value (**end), &value))
      return FALSE;
  *result = value;
  return *end > digits;
}

static gboolean
parse_signed (const char *text, gint64 *result)
{
  gboolean negative = text[0] == '-';
  const char *end;
  guint64 magnitude;

  if (text[0] == '-' || text[0] == '+')
    text++;
  if (!parse_unsigned (text, &end, &magnitude) || *end != '\0' || magnitude > (guint64) G_MAXINT64 + (negative ? 1 : 0))
    return FALSE;
  *result = negative ? (gint64) (0 - magnitude) : (gint64) magnitude;
  return TRUE;
}

/* The factor of a unit as GNU coreutils know them: K and KiB are 1024, KB is 1000. */
static gboolean
parse_unit (const char *unit, guint64 *factor)
{
  static const char prefixes[] = "KMGTPE";
  const char *prefix;
  guint64 base;

  *factor = 1;
  if (unit[0] == '\0' || strcmp (unit, "B") == 0)
    return TRUE;
  prefix = strchr (prefixes, g_ascii_toupper (unit[0]));
  if (prefix == NULL)
    return FALSE;
  if (unit[1] == '\0' || strcmp (unit + 1, "i") == 0 || strcmp (unit + 1, "iB") == 0)
    base = 1024;
  else if (strcmp (unit + 1, "B") == 0)
    base = 1000;
  else
    return FALSE;
  for (const char *p = prefixes; p <= prefix; p++)
    *factor *= base;
  return TRUE;
}

/* A number that may have a unit, and then also a fraction: "64k", "1.5GiB". */
static gboolean
parse_size (const char *text, guint64 *result)
{
  const char *end;
  guint64 number;
  guint64 factor;

  if (!parse_unsigned (text, &end, &number))
    return FALSE;
  if (*end == '.')
    {
      char *fraction_end;
      double scaled = g_ascii_strtod (text, &fraction_end);

      if (fraction_end == end || fraction_end[0] == '\0' || !parse_unit (fraction_end, &factor))
        return FALSE;
      scaled = round (scaled * (double) factor);
      if (!(scaled >= 0 && scaled < 18446744073709551616.0))
        return FALSE;
      *result = (guint64) scaled;
      return TRUE;
    }
  return parse_unit (end, &factor) && !__builtin_mul_overflow (number, factor, result);
}

static gboolean
parse_double (const char *text, double *result)
{
  char *end;

  if (text[0] == '\0' || g_ascii_isspace (text[0]))
    return FALSE;
  *result = g_ascii_strtod (text, &end);
  return *end == '\0' && !isnan (*result);
}

static gboolean
parse_enum (GType type, const char *text, int *result)
{
  g_autoptr (GEnumClass) klass = g_type_class_ref (type);

  for (guint i = 0; i < klass->n_values; i++)
    if (g_ascii_strcasecmp (klass->values[i].value_nick, text) == 0 || strcmp (klass->values[i].value_name, text) == 0)
      {
        *result = klass->values[i].value;
        return TRUE;
      }
  return FALSE;
}

/* On failure the flag that is not known. */
static gboolean
parse_flags (GType type, const char *text, guint *result, char **unknown)
{
  g_autoptr (GFlagsClass) klass = g_type_class_ref (type);
  g_auto (GStrv) words = g_strsplit_set (text, "+|,", -1);

  *result = 0;
  for (guint w = 0; words[w] != NULL; w++)
    {
      gboolean found = FALSE;

      for (guint i = 0; i < klass->n_values && !found; i++)
        if (g_ascii_strcasecmp (klass->values[i].value_nick, words[w]) == 0
            || strcmp (klass->values[i].value_name, words[w]) == 0)
          {
            *result |= klass->values[i].value;
            found = TRUE;
          }
      if (!found)
        {
          *unknown = g_strdup (words[w]);
          return FALSE;
        }
    }
  return TRUE;
}

/* Fills in the value; FALSE when the text is no such value. *what is what it should be, and
 * *suspect the part of the text that is wrong, when that can be told. */
static gboolean
parse_value (GParamSpec *pspec, const char *text, GValue *value, const char **what, char **suspect)
{
  gboolean truth;
  gint64 number;
  guint64 size;
  double real;
  int choice;
  guint flags;

  switch (G_TYPE_FUNDAMENTAL (pspec->value_type))
    {
    case G_TYPE_BOOLEAN:
      *what = "neither yes nor no";
      if (!parse_boolean (text, &truth))
        return FALSE;
      g_value_set_boolean (value, truth);
      return TRUE;

    case G_TYPE_CHAR:
    case G_TYPE_INT:
    case G_TYPE_LONG:
    case G_TYPE_INT64:
      *what = "not a whole number in range";
      if (!parse_signed (text, &number))
        return FALSE;
      if (pspec->value_type == G_TYPE_CHAR && number >= G_MININT8 && number <= G_MAXINT8)
        g_value_set_schar (value, (gint8) number);
      else if (pspec->value_type == G_TYPE_INT && number >= G_MININT && number <= G_MAXINT)
        g_value_set_int (value, (int) number);
      else if (pspec->value_type == G_TYPE_LONG && number >= G_MINLONG && number <= G_MAXLONG)
        g_value_set_long (value, (long) number);
      else if (pspec->value_type == G_TYPE_INT64)
        g_value_set_int64 (value, number);
      else
        return FALSE;
      return TRUE;

    case G_TYPE_UCHAR:
    case G_TYPE_UINT:
    case G_TYPE_ULONG:
      {
        const char *end;

        *what = "not a whole number in range";
        if (!parse_unsigned (text, &end, &size) || *end != '\0')
          return FALSE;
        if (pspec->value_type == G_TYPE_UCHAR && size <= G_MAXUINT8)
          g_value_set_uchar (value, (guint8) size);
        else if (pspec->value_type == G_TYPE_UINT && size <= G_MAXUINT)
          g_value_set_uint (value, (guint) size);
        else if (pspec->value_type == G_TYPE_ULONG && size <= G_MAXULONG)
          g_value_set_ulong (value, (gulong) size);
        else
          return FALSE;
        return TRUE;
      }

    case G_TYPE_UINT64:
      *what = "not a whole number or size in range";
      if (!parse_size (text, &size))
        return FALSE;
      g_value_set_uint64 (value, size);
      return TRUE;

    case G_TYPE_FLOAT:
    case G_TYPE_DOUBLE:
      *what = "not a number in range";
      if (!parse_double (text, &real))
        return FALSE;
      if (pspec->value_type == G_TYPE_FLOAT)
        g_value_set_float (value, (float) real);
      else
        g_value_set_double (value, real);
      return TRUE;

    case G_TYPE_STRING:
      *what = "not allowed";
      g_value_set_string (value, text);
      return TRUE;

    case G_TYPE_ENUM:
      *what = "not known";
      if (!parse_enum (pspec->value_type, text, &choice))
        {
          *suspect = g_strdup (text);
          return FALSE;
        }
      g_value_set_enum (value, choice);
      return TRUE;

    case G_TYPE_FLAGS:
      *what = "not known";
      if (!parse_flags (pspec->value_type, text, &flags, suspect))
        return FALSE;
      g_value_set_flags (value, flags);
      return TRUE;

    default:
      *what = "text, which this property can't be set from";
      return FALSE;
    }
}

static gboolean
set_unknown_property (GObject *object, const char *key, GError **error)
{
  g_autofree GParamSpec **pspecs = NULL;
  g_autoptr (GPtrArray) names = g_ptr_array_new ();
  g_autofree char *list = NULL;
  const char *nearest;
  guint n_pspecs;

  pspecs = g_object_class_list_properties (G_OBJECT_GET_CLASS (object), &n_pspecs);
  for (guint i = 0; i < n_pspecs; i++)
    if (is_settable (pspecs[i]))
      g_ptr_array_add (names, (gpointer) pspecs[i]->name);
  g_ptr_array_add (names, NULL);

  nearest = ferry_nearest_name (key, (const char *const *) names->pdata);
  if (nearest != NULL)
    {
      g_set_error (error, FERRY_ERROR, FERRY_ERROR_INVALID_ARGUMENT, "%s has no property '%s'; did you mean '%s'?",
                   G_OBJECT_TYPE_NAME (object), key, nearest);
      return FALSE;
    }
  list = g_strjoinv (", ", (char **) names->pdata);
  g_set_error (error, FERRY_ERROR, FERRY_ERROR_INVALID_ARGUMENT, "%s has no property '%s'; it has %s",
               G_OBJECT_TYPE_NAME (object), key, names->len > 1 ? list : "none that can be set");
  return FALSE;
}

/*
 * ferry_description_parse_value: the value of a property from text, into @value, which is not initialised. @owner: the name of the type
 * that has the property, for messages.
 *
 * Booleans are yes, no, true, false, on, off, 1, 0; enumerations and flags are written by
 * nick, flags joined with '+'; unsigned 64-bit numbers may have a unit (K, KiB: 1024;
 * KB: 1000; and so on up to E).
 *
 * Errors: FERRY_ERROR_INVALID_ARGUMENT, with the nearest value or the allowed ones.
 */
gboolean
ferry_description_parse_value (const char *owner, GParamSpec *pspec, const char *text, GValue *value, GError **error)
{
  g_autofree char *allowed = NULL;
  g_autofree char *suspect = NULL;
  const char *what = NULL;
  const char *nearest = NULL;

  g_return_val_if_fail (G_IS_PARAM_SPEC (pspec), FALSE);
  g_return_val_if_fail (text != NULL, FALSE);

  g_value_init (value, pspec->value_type);
  if (parse_value (pspec, text, value, &what, &suspect))
    {
      /* TRUE means that the value had to be changed. */
      if (!g_param_value_validate (pspec, value))
        return TRUE;
      what = "out of range";
    }

  allowed = describe_allowed (pspec);
  if (suspect != NULL)
    nearest = nearest_nick (pspec->value_type, suspect);
  g_set_error (error, FERRY_ERROR, FERRY_ERROR_INVALID_ARGUMENT, "%s: property '%s': \"%s\" is %s; %s%s%s%s is allowed",
               owner, pspec->name, suspect != NULL ? suspect : text, what, nearest != NULL ? "did you mean '" : "",
               nearest != NULL ? nearest : "", nearest != NULL ? "'? " : "", allowed);
  return FALSE;
}

/*
 * ferry_description_set_property: sets a property from text, as ferry_description_parse_value() reads it. '_' in the key is read as
 * '-'.
 *
 * Errors: FERRY_ERROR_INVALID_ARGUMENT, with the nearest name or the allowed values.
 */
gboolean
ferry_description_set_property (GObject *object, const char *key, const char *value, GError **error)
{
  g_autofree char *canonical = NULL;
  g_auto (GValue) parsed = G_VALUE_INIT;
  GParamSpec *pspec;

  g_return_val_if_fail (G_IS_OBJECT (object), FALSE);
  g_return_val_if_fail (key != NULL, FALSE);
  g_return_val_if_fail (value != NULL, FALSE);

  canonical = g_strdelimit (g_strdup (key), "_", '-');
  pspec = is_name (canonical) ? g_object_class_find_property (G_OBJECT_GET_CLASS (object), canonical) : NULL;
  if (pspec == NULL)
    return set_unknown_property (object, key, error);
  if (!is_settable (pspec))
    {
      g_set_error (error, FERRY_ERROR, FERRY_ERROR_INVALID_ARGUMENT, "%s: property '%s' can only be read; leave it out",
                   G_OBJECT_TYPE_NAME (object), pspec->name);
      return FALSE;
    }

  if (!ferry_description_parse_value (G_OBJECT_TYPE_NAME (object), pspec, value, &parsed, error))
    return FALSE;
  g_object_set_property (object, pspec->name, &parsed);
  return TRUE;
}

/*
 * ferry_description_get_property: a property as text that
 * ferry_description_set_property() reads; NULL when it has no such form, or is not set.
 */
char *
ferry_description_get_property (GObject *object, GParamSpec *pspec)
{
  g_auto (GValue) value = G_VALUE_INIT;
  char number[G_ASCII_DTOSTR_BUF_SIZE];

  g_return_val_if_fail (G_IS_OBJECT (object), NULL);
  g_return_val_if_fail (G_IS_PARAM_SPEC (pspec), NULL);

  if ((pspec->flags & G_PARAM_READABLE) == 0)
    return NULL;
  g_value_init (&value, pspec->value_type);
  g_object_get_property (object, pspec->name, &value);

  switch (G_TYPE_FUNDAMENTAL (pspec->value_type))
    {
    case G_TYPE_BOOLEAN:
      return g_strdup (g_value_get_boolean (&value) ? "yes" : "no");
    case G_TYPE_CHAR:
      return g_strdup_printf ("%d", g_value_get_schar (&value));
    case G_TYPE_UCHAR:
      return g_strdup_printf ("%u", g_value_get_uchar (&value));
    case G_TYPE_INT:
      return g_strdup_printf ("%d", g_value_get_int (&value));
    case G_TYPE_UINT:
      return g_strdup_printf ("%u", g_value_get_uint (&value));
    case G_TYPE_LONG:
      return g_strdup_printf ("%ld", g_value_get_long (&value));
    case G_TYPE_ULONG:
      return g_strdup_printf ("%lu", g_value_get_ulong (&value));
    case G_TYPE_INT64:
      return g_strdup_printf ("%" G_GINT64_FORMAT, g_value_get_int64 (&value));
    case G_TYPE_UINT64:
      return g_strdup_printf ("%" G_GUINT64_FORMAT, g_value_get_uint64 (&value));
    case G_TYPE_FLOAT:
      return g_strdup (g_ascii_dtostr (number, sizeof number, (double) g_value_get_float (&value)));
    case G_TYPE_DOUBLE:
      return g_strdup (g_ascii_dtostr (number, sizeof number, g_value_get_double (&value)));
    case G_TYPE_STRING:
      return g_value_dup_string (&value);
    case G_TYPE_ENUM:
      {
        g_autoptr (GEnumClass) klass = g_type_class_ref (pspec->value_type);
        GEnumValue *choice = g_enum_get_value (klass, g_value_get_enum (&value));

        return choice != NULL ? g_strdup (choice->value_nick) : NULL;
      }
    case G_TYPE_FLAGS:
      {
        g_autoptr (GFlagsClass) klass = g_type_class_ref (pspec->value_type);
        g_autoptr (GString) text = g_string_new (NULL);
        guint rest = g_value_get_flags (&value);

        for (guint i = 0; i < klass->n_values; i++)
          {
            guint flag = klass->values[i].value;

            if (flag == 0 ? rest == 0 && text->len == 0 : (rest & flag) == flag)
              {
                g_string_append_printf (text, "%s%s", text->len > 0 ? "+" : "", klass->values[i].value_nick);
                rest &= ~flag;
              }
          }
        return rest == 0 ? g_strdup (text->str) : NULL;
      }
    default:
      return NULL;
    }
}
