/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ferry-python-stream.h"

/* In bytes: the first stream fits, and a larger one is not kept from message to message. */
#define STREAM_MIN (1024)
#define STREAM_KEPT_MAX (1024 * 1024)

#define PARTS_KEPT_MAX (1024)

static inline gsize
align (gsize size)
{
  return (size + FERRY_PYTHON_PART_ALIGNMENT - 1) & ~(gsize) (FERRY_PYTHON_PART_ALIGNMENT - 1);
}

/*
 * ferry_python_output_reset: empties it for the next message, and keeps the memory for it.
 */
void
ferry_python_output_reset (FerryPythonOutput *self)
{
  for (guint i = 0; i < self->n_parts; i++)
    self->parts[i].klass->clear (&self->parts[i]);
  self->n_parts = 0;
  self->gap = 0;
  if (G_UNLIKELY (self->n_parts_allocated > PARTS_KEPT_MAX))
    {
      g_clear_pointer (&self->parts, g_free);
      self->n_parts_allocated = 0;
    }
  if (G_UNLIKELY (self->end - self->start > STREAM_KEPT_MAX))
    {
      g_free (self->start);
      self->start = self->end = NULL;
    }
  self->at = self->start;
}

void
ferry_python_output_clear (FerryPythonOutput *self)
{
  ferry_python_output_reset (self);
  g_clear_pointer (&self->parts, g_free);
  g_clear_pointer (&self->start, g_free);
  self->n_parts_allocated = 0;
  self->at = self->end = NULL;
}

void
ferry_python_output_grow (FerryPythonOutput *self, gsize size)
{
  gsize used = (gsize) (self->at - self->start);
  gsize allocated = (gsize) (self->end - self->start);

  allocated = MAX (MAX (allocated * 2, used + size), STREAM_MIN);
  self->start = g_realloc (self->start, allocated);
  self->at = self->start + used;
  self->end = self->start + allocated;
}

FerryPythonPart *
ferry_python_output_add_part (FerryPythonOutput *self, const FerryPythonPartClass *klass, gconstpointer data,
                              gsize data_size, gsize size)
{
  FerryPythonPart *part;

  if (self->n_parts == self->n_parts_allocated)
    {
      self->n_parts_allocated = MAX (16, self->n_parts_allocated * 2);
      self->parts = g_renew (FerryPythonPart, self->parts, self->n_parts_allocated);
    }
  part = &self->parts[self->n_parts++];
  part->klass = klass;
  part->data = data;
  part->data_size = data_size;
  part->size = size;
  part->owner = NULL;
  return part;
}

gboolean
ferry_python_output_get_size (const FerryPythonOutput *self, gsize *size, GError **error)
{
  gsize at = FERRY_PYTHON_HEADER_SIZE + (gsize) (self->at - self->start);

  if (self->n_parts > 0)
    at = align (at) + (gsize) self->gap * FERRY_PYTHON_PART_ALIGNMENT;
  for (guint i = 0; i < self->n_parts; i++)
    {
      at = align (at);
      if (self->parts[i].size > G_MAXSSIZE - FERRY_PYTHON_PART_ALIGNMENT - at)
        {
          g_set_error (error, FERRY_ERROR, FERRY_ERROR_TOO_BIG, "codec 'python': the value is too big to be encoded");
          return FALSE;
        }
      at += self->parts[i].size;
    }
  *size = at;
  return TRUE;
}

gboolean
ferry_python_output_write (const FerryPythonOutput *self, guint8 *data, gsize size, GError **error)
{
  guint64 stream_size = (guint64) (self->at - self->start);
  gsize at = FERRY_PYTHON_HEADER_SIZE + (gsize) stream_size;
  gsize expected;

  if (!ferry_python_output_get_size (self, &expected, error))
    return FALSE;
  if (size != expected)
    {
      g_set_error (error, FERRY_ERROR, FERRY_ERROR_CODEC,
                   "codec 'python': the value takes %" G_GSIZE_FORMAT " bytes, but %" G_GSIZE_FORMAT
                   " are to be written; don't change it while it is sent",
                   expected, size);
      return FALSE;
    }

  memset (data, 0, FERRY_PYTHON_HEADER_SIZE - sizeof stream_size);
  data[0] = FERRY_PYTHON_BYTE_ORDER;
  data[1] = self->gap;
  memcpy (data + FERRY_PYTHON_HEADER_SIZE - sizeof stream_size, &stream_size, sizeof stream_size);
  memcpy (data + FERRY_PYTHON_HEADER_SIZE, self->start, (gsize) stream_size);

  for (guint i = 0; i < self->n_parts; i++)
    {
      const FerryPythonPart *part = &self->parts[i];
      gsize begin = align (at) + (i == 0 ? (gsize) self->gap * FERRY_PYTHON_PART_ALIGNMENT : 0);

      memset (data + at, 0, begin - at);
      if (!part->klass->write (part, data + begin, error))
        return FALSE;
      memset (data + begin + part->data_size, 0, part->size - part->data_size);
      at = begin + part->size;
    }
  return TRUE;
}

gboolean
ferry_python_input_open (FerryPythonInput *self, const guint8 *message, gsize size, GError **error)
{
  static const guint8 zeros[6];
  guint8 header[FERRY_PYTHON_HEADER_SIZE];
  guint64 stream_size;
  gsize stream_end;

  if (size <= FERRY_PYTHON_HEADER_SIZE)
    {
      g_set_error (error, FERRY_ERROR, FERRY_ERROR_CODEC,
                   "codec 'python': the message has %" G_GSIZE_FORMAT " bytes, and needs more than %d", size,
                   FERRY_PYTHON_HEADER_SIZE);
      return FALSE;
    }

  memcpy (header, message, sizeof header);
  if (header[0] != FERRY_PYTHON_BYTE_ORDER || header[1] > 1 || memcmp (header + 2, zeros, sizeof zeros) != 0)
    {
      g_set_error (error, FERRY_ERROR, FERRY_ERROR_CODEC,
                   "codec 'python': the message starts with the bytes %02x %02x %02x %02x, which no sender with the "
                   "byte order of this machine writes; did another codec make it?",
                   header[0], header[1], header[2], header[3]);
      return FALSE;
    }
  memcpy (&stream_size, header + sizeof header - sizeof stream_size, sizeof stream_size);
  if (stream_size == 0 || stream_size > size - FERRY_PYTHON_HEADER_SIZE)
    {
      g_set_error (error, FERRY_ERROR, FERRY_ERROR_CODEC,
                   "codec 'python': a stream of %" G_GUINT64_FORMAT
                   " bytes does not fit into a message of %" G_GSIZE_FORMAT "; was it cut?",
                   stream_size, size);
      return FALSE;
    }

  self->message = message;
  self->message_size = size;
  self->start = self->at = message + FERRY_PYTHON_HEADER_SIZE;
  self->end = self->start + stream_size;
  stream_end = FERRY_PYTHON_HEADER_SIZE + (gsize) stream_size;
  self->next_part = stream_end;
  if (header[1] != 0)
    {
      if (align (stream_end) - stream_end + FERRY_PYTHON_PART_ALIGNMENT > size - stream_end)
        {
          g_set_error (error, FERRY_ERROR, FERRY_ERROR_CODEC,
                       "codec 'python': the message of %" G_GSIZE_FORMAT " bytes ends within its first gap", size);
          return FALSE;
        }
      self->next_part = align (stream_end) + (gsize) header[1] * FERRY_PYTHON_PART_ALIGNMENT;
    }
  return TRUE;
}

/*
 * ferry_python_input_take_part: where the next part is, if the message is large enough for it. Parts lie in the order in
 * which the stream mentions them.
 */
gboolean
ferry_python_input_take_part (FerryPythonInput *self, guint64 size, const guint8 **part)
{
  gsize skipped = align (self->next_part) - self->next_part;

  if (skipped > self->message_size - self->next_part || size > self->message_size - self->next_part - skipped)
    return FALSE;
  *part = self->message + self->next_part + skipped;
  self->next_part += skipped + (gsize) size;
  return TRUE;
}

/*
 * ferry_python_input_is_at_end: whether one value was all that the message had.
 */
gboolean
ferry_python_input_is_at_end (const FerryPythonInput *self)
{
  return self->at == self->end && self->next_part == self->message_size;
}

const char *
ferry_python_tag_get_name (guint8 tag)
{
  static const char *const names[FERRY_PYTHON_N_TAGS] = {
    [FERRY_PYTHON_TAG_ELLIPSIS] = "Ellipsis",
    [FERRY_PYTHON_TAG_NOT_IMPLEMENTED] = "NotImplemented",
    [FERRY_PYTHON_TAG_RANGE] = "range",
    [FERRY_PYTHON_TAG_SLICE] = "slice",
    [FERRY_PYTHON_TAG_DECIMAL] = "decimal.Decimal",
    [FERRY_PYTHON_TAG_FRACTION] = "fractions.Fraction",
    [FERRY_PYTHON_TAG_UUID] = "uuid.UUID",
    [FERRY_PYTHON_TAG_DATE] = "datetime.date",
    [FERRY_PYTHON_TAG_TIME] = "datetime.time",
    [FERRY_PYTHON_TAG_DATETIME] = "datetime.datetime",
    [FERRY_PYTHON_TAG_TIMEDELTA] = "datetime.timedelta",
    [FERRY_PYTHON_TAG_TIMEZONE] = "datetime.timezone",
    [FERRY_PYTHON_TAG_ZONEINFO] = "zoneinfo.ZoneInfo",
    [FERRY_PYTHON_TAG_DTYPE] = "numpy.dtype",
    [FERRY_PYTHON_TAG_DTYPE_ARRAY] = "numpy.dtype",
    [FERRY_PYTHON_TAG_NDARRAY_OBJECTS] = "numpy.ndarray of objects",
    [FERRY_PYTHON_TAG_NUMPY_SCALAR] = "numpy scalar",
    [FERRY_PYTHON_TAG_NUMPY_SCALAR_ARRAY] = "numpy scalar",
    [FERRY_PYTHON_TAG_GLOBAL] = "class or function",
    [FERRY_PYTHON_TAG_NAMEDTUPLE] = "namedtuple",
    [FERRY_PYTHON_TAG_OBJECT] = "object of a class",
    [FERRY_PYTHON_TAG_OBJECT_RECURSIVE] = "object of a class",
  };

  tag &= (guint8) ~FERRY_PYTHON_SHARED;
  return tag < FERRY_PYTHON_N_TAGS && names[tag] != NULL ? names[tag] : "value";
}
