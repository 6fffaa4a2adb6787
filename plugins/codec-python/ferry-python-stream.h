/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* The wire format of codec-python, for the half that needs an interpreter and the one that needs none.
 * docs/wire-formats.md describes it. */

#include <ferry.h>
#include <string.h>

G_BEGIN_DECLS

#define FERRY_PYTHON_WIRE_NAME "python"
#define FERRY_PYTHON_WIRE_VERSION (1)

/* A message begins with: the byte order, the gap, six zeros, the size of the stream in 8 bytes. */
#define FERRY_PYTHON_HEADER_SIZE (16)

/* Parts begin at multiples of this many bytes. */
#define FERRY_PYTHON_PART_ALIGNMENT (64)

/* Data of at least this many bytes is a part of its own instead of lying in the stream. Below it a second copy costs
 * less than the alignment. */
#define FERRY_PYTHON_PART_MIN (2048)

/* Levels of containers. The interpreter's own limit, which comes first, can be raised by programs. */
#define FERRY_PYTHON_NESTING_MAX (10000)

#if G_BYTE_ORDER == G_LITTLE_ENDIAN
#define FERRY_PYTHON_BYTE_ORDER 'l'
#else
#define FERRY_PYTHON_BYTE_ORDER 'B'
#endif

/* Set in the tag of a value that a later FERRY_PYTHON_TAG_REF refers to. */
#define FERRY_PYTHON_SHARED (0x80)

/* Tags from here to 0x7f are the integers 0 to 63. */
#define FERRY_PYTHON_TAG_SMALL_INT (0x40)
#define FERRY_PYTHON_SMALL_INT_MAX (0x3f)

/* N: an unsigned number of variable size; V: a value. The numbers are on the wire: never change one without another
 * FERRY_PYTHON_WIRE_VERSION. */
typedef enum
{
  FERRY_PYTHON_TAG_END, /* of values whose number is not known before */
  FERRY_PYTHON_TAG_NONE,
  FERRY_PYTHON_TAG_FALSE,
  FERRY_PYTHON_TAG_TRUE,
  FERRY_PYTHON_TAG_ELLIPSIS,
  FERRY_PYTHON_TAG_NOT_IMPLEMENTED,
  FERRY_PYTHON_TAG_INT8,    /* 1 byte */
  FERRY_PYTHON_TAG_INT32,   /* 4 bytes */
  FERRY_PYTHON_TAG_INT64,   /* 8 bytes */
  FERRY_PYTHON_TAG_INT_BIG, /* N bytes: two's complement, little endian */
  FERRY_PYTHON_TAG_FLOAT,   /* 8 bytes */
  FERRY_PYTHON_TAG_COMPLEX, /* 16 bytes */
  FERRY_PYTHON_TAG_STR,     /* N ASCII characters */
  FERRY_PYTHON_TAG_STR1,    /* N characters of 1 byte, one at least not ASCII */
  FERRY_PYTHON_TAG_STR2,    /* N characters of 2 bytes, one at least needs them */
  FERRY_PYTHON_TAG_STR4,    /* N characters of 4 bytes, one at least needs them */
  FERRY_PYTHON_TAG_BYTES,   /* N bytes */
  FERRY_PYTHON_TAG_BYTEARRAY,
  FERRY_PYTHON_TAG_STR_PART, /* the same with the data in a part */
  FERRY_PYTHON_TAG_STR1_PART,
  FERRY_PYTHON_TAG_STR2_PART,
  FERRY_PYTHON_TAG_STR4_PART,
  FERRY_PYTHON_TAG_BYTES_PART, /* a zero byte follows the data */
  FERRY_PYTHON_TAG_BYTEARRAY_PART,
  FERRY_PYTHON_TAG_MEMORYVIEW, /* 1 byte: 1 if read-only; N: item size, format as N bytes, N dimensions, shape as N each */
  FERRY_PYTHON_TAG_BUFFER,     /* 1 byte: 1 if read-only; N bytes in a part: a PickleBuffer, arrives as memoryview */
  FERRY_PYTHON_TAG_TUPLE,      /* N, N * V */
  FERRY_PYTHON_TAG_LIST,
  FERRY_PYTHON_TAG_DICT, /* N, N * (V, V) */
  FERRY_PYTHON_TAG_SET,
  FERRY_PYTHON_TAG_FROZENSET,
  FERRY_PYTHON_TAG_REF,                 /* N: where in the stream the tag of the value is */
  FERRY_PYTHON_TAG_TUPLE_RECURSIVE,     /* as TUPLE, to be thrown away, then V is the value itself */
  FERRY_PYTHON_TAG_FROZENSET_RECURSIVE, /* as FROZENSET, likewise */
  FERRY_PYTHON_TAG_NDARRAY,             /* N: size of its header; the header; N: size of its part */
  FERRY_PYTHON_TAG_NDARRAY_OBJECTS,     /* 1 byte: 1 if in Fortran order; N dimensions, shape as N each, V for each */
  FERRY_PYTHON_TAG_NUMPY_SCALAR,        /* 1 byte: type number; 1 byte: size; as many bytes */
  FERRY_PYTHON_TAG_NUMPY_SCALAR_ARRAY,  /* N: size of its header; the header; N bytes: an array with one element */
  FERRY_PYTHON_TAG_DTYPE,               /* V: a str */
  FERRY_PYTHON_TAG_DTYPE_ARRAY,         /* N: size of its header; the header: that of an empty array */
  FERRY_PYTHON_TAG_TENSOR,              /* 1 byte: 1 if it wants gradients; V: an NDARRAY */
  FERRY_PYTHON_TAG_RANGE,               /* 3 * V */
  FERRY_PYTHON_TAG_SLICE,               /* 3 * V */
  FERRY_PYTHON_TAG_DECIMAL,             /* V: a str */
  FERRY_PYTHON_TAG_FRACTION,            /* 2 * V */
  FERRY_PYTHON_TAG_UUID,                /* 16 bytes: big endian; 1 byte: 0 safe, 1 unsafe, 2 unknown */
  FERRY_PYTHON_TAG_DATE,                /* 2 bytes: year; 1 byte each: month, day */
  FERRY_PYTHON_TAG_TIME,                /* 1 byte each: hour, minute, second, fold; 4 bytes: microsecond; V: zone */
  FERRY_PYTHON_TAG_DATETIME,            /* as DATE, then as TIME */
  FERRY_PYTHON_TAG_TIMEDELTA,           /* 4 bytes each: days, seconds, microseconds */
  FERRY_PYTHON_TAG_TIMEZONE,            /* V: a timedelta; V: its name, or None */
  FERRY_PYTHON_TAG_ZONEINFO,            /* V: a str */

  /* From here on: what runs code of the program that decodes it. Needs the property `pickle`. */
  FERRY_PYTHON_TAG_GLOBAL,               /* V: name of a module; V: qualified name */
  FERRY_PYTHON_TAG_NAMEDTUPLE,           /* V: class; N, N * V */
  FERRY_PYTHON_TAG_NAMEDTUPLE_RECURSIVE, /* as NAMEDTUPLE, to be thrown away, then V is the value itself */
  FERRY_PYTHON_TAG_OBJECT,               /* 1 byte: FerryPythonObjectFlags; then as they say */
  FERRY_PYTHON_TAG_OBJECT_RECURSIVE,     /* as OBJECT, but after the arguments V is the object itself */
  FERRY_PYTHON_N_TAGS,
} FerryPythonTag;

/* All before have no values within. */
#define FERRY_PYTHON_TAG_FIRST_WITH_VALUES FERRY_PYTHON_TAG_TUPLE

#define FERRY_PYTHON_TAG_FIRST_PICKLE FERRY_PYTHON_TAG_GLOBAL

/* What a pickle of protocol 5 would do with an object, in this order. */
typedef enum
{
  FERRY_PYTHON_OBJECT_NEW = 1 << 0, /* V: class; V: arguments of its __new__. Otherwise V: callable, V: arguments */
  FERRY_PYTHON_OBJECT_KEYWORDS = 1 << 1,   /* with NEW: V: a dict of keyword arguments */
  FERRY_PYTHON_OBJECT_LIST_ITEMS = 1 << 2, /* V..., END */
  FERRY_PYTHON_OBJECT_DICT_ITEMS = 1 << 3, /* (V, V)..., END */
  FERRY_PYTHON_OBJECT_STATE = 1 << 4,      /* V */
  FERRY_PYTHON_OBJECT_SETTER = 1 << 5,     /* V: callable that sets the state; comes before it */
  FERRY_PYTHON_OBJECT_ALL_FLAGS = (1 << 6) - 1,
} FerryPythonObjectFlags;

/* Writing */

typedef struct _FerryPythonPart FerryPythonPart;

/* What a part is copied from. */
typedef struct
{
  gboolean (*write) (const FerryPythonPart *part, guint8 *to, GError **error);
  void (*clear) (FerryPythonPart *part);
} FerryPythonPartClass;

struct _FerryPythonPart
{
  const FerryPythonPartClass *klass;
  gconstpointer data;
  gsize data_size; /* bytes; what is missing to @size is zero */
  gsize size;      /* bytes in the message */
  gpointer owner;
};

/* A message that is being written: its stream, and what its parts will be copied from. */
typedef struct
{
  guint8 *start;
  guint8 *at;
  guint8 *end;
  FerryPythonPart *parts;
  guint n_parts;
  guint n_parts_allocated;
  guint8 gap; /* in PART_ALIGNMENT, between the stream and the first part */

  /* The encoder that it is part of; NULL: it is on its own, and no GIL is needed. */
  struct _FerryPythonEncoder *encoder;
} FerryPythonOutput;

void ferry_python_output_clear (FerryPythonOutput *self);
void ferry_python_output_reset (FerryPythonOutput *self);
void ferry_python_output_grow (FerryPythonOutput *self, gsize size);
FerryPythonPart *ferry_python_output_add_part (FerryPythonOutput *self, const FerryPythonPartClass *klass,
                                               gconstpointer data, gsize data_size, gsize size);
gboolean ferry_python_output_get_size (const FerryPythonOutput *self, gsize *size, GError **error);
gboolean ferry_python_output_write (const FerryPythonOutput *self, guint8 *data, gsize size, GError **error);

/* Room for @size bytes at @at, without moving it. */
static inline guint8 *
ferry_python_output_reserve (FerryPythonOutput *self, gsize size)
{
  if (G_UNLIKELY ((gsize) (self->end - self->at) < size))
    ferry_python_output_grow (self, size);
  return self->at;
}

static inline void
ferry_python_output_tag (FerryPythonOutput *self, guint8 tag)
{
  *ferry_python_output_reserve (self, 1) = tag;
  self->at++;
}

/* The most bytes that a number takes. */
#define FERRY_PYTHON_NUMBER_MAX (10)

/* Seven bits a byte, the lowest first, and the high bit in all but the last. */
static inline guint8 *
ferry_python_put_number (guint8 *to, guint64 number)
{
  while (G_UNLIKELY (number >= 0x80))
    {
      *to++ = (guint8) (number | 0x80);
      number >>= 7;
    }
  *to++ = (guint8) number;
  return to;
}

static inline void
ferry_python_output_tag_number (FerryPythonOutput *self, guint8 tag, guint64 number)
{
  guint8 *to = ferry_python_output_reserve (self, 1 + FERRY_PYTHON_NUMBER_MAX);

  *to++ = tag;
  self->at = ferry_python_put_number (to, number);
}

static inline void
ferry_python_output_number (FerryPythonOutput *self, guint64 number)
{
  self->at = ferry_python_put_number (ferry_python_output_reserve (self, FERRY_PYTHON_NUMBER_MAX), number);
}

static inline void
ferry_python_output_bytes (FerryPythonOutput *self, gconstpointer data, gsize size)
{
  guint8 *to = ferry_python_output_reserve (self, size);

  if (size > 0)
    memcpy (to, data, size);
  self->at += size;
}

static inline void
ferry_python_output_tag_bytes (FerryPythonOutput *self, guint8 tag, guint64 number, gconstpointer data, gsize size)
{
  guint8 *to = ferry_python_output_reserve (self, 1 + FERRY_PYTHON_NUMBER_MAX + size);

  *to++ = tag;
  to = ferry_python_put_number (to, number);
  if (size > 0)
    memcpy (to, data, size);
  self->at = to + size;
}

/* An integer that fits, and whatever a C program calls one. */
static inline void
ferry_python_output_int (FerryPythonOutput *self, gint64 number)
{
  guint8 *to = ferry_python_output_reserve (self, 1 + sizeof number);

  if (number >= 0 && number <= FERRY_PYTHON_SMALL_INT_MAX)
    {
      *to++ = (guint8) (FERRY_PYTHON_TAG_SMALL_INT + number);
    }
  else if (number >= G_MININT8 && number <= G_MAXINT8)
    {
      *to++ = FERRY_PYTHON_TAG_INT8;
      *to++ = (guint8) number;
    }
  else if (number >= G_MININT32 && number <= G_MAXINT32)
    {
      gint32 small = (gint32) number;

      *to++ = FERRY_PYTHON_TAG_INT32;
      memcpy (to, &small, sizeof small);
      to += sizeof small;
    }
  else
    {
      *to++ = FERRY_PYTHON_TAG_INT64;
      memcpy (to, &number, sizeof number);
      to += sizeof number;
    }
  self->at = to;
}

/* Reading. Nothing of it is trusted, and the sender may still be able to write there: each byte of the stream is read
 * once, into where nobody else writes, and judged there. */

typedef struct
{
  const guint8 *start;
  const guint8 *at;
  const guint8 *end;
  const guint8 *message;
  gsize message_size;
  gsize next_part; /* where the next part begins, before its alignment; at most message_size */
} FerryPythonInput;

gboolean ferry_python_input_open (FerryPythonInput *self, const guint8 *message, gsize size, GError **error);
gboolean ferry_python_input_take_part (FerryPythonInput *self, guint64 size, const guint8 **part);
gboolean ferry_python_input_is_at_end (const FerryPythonInput *self);
const char *ferry_python_tag_get_name (guint8 tag);

static inline gsize
ferry_python_input_left (const FerryPythonInput *self)
{
  return (gsize) (self->end - self->at);
}

static inline gboolean
ferry_python_input_number (FerryPythonInput *self, guint64 *number)
{
  guint64 result = 0;
  const guint8 *at = self->at;

  for (guint shift = 0; shift < 64; shift += 7)
    {
      guint8 byte;

      if (G_UNLIKELY (at == self->end))
        return FALSE;
      byte = *(const volatile guint8 *) at++;
      result |= (guint64) (byte & 0x7f) << shift;
      if (G_LIKELY (byte < 0x80))
        {
          self->at = at;
          *number = result;
          return TRUE;
        }
    }
  return FALSE;
}

/* How many of something follow, each of which takes at least @at_least bytes of the stream. */
static inline gboolean
ferry_python_input_count (FerryPythonInput *self, gsize at_least, gsize *count)
{
  guint64 number;

  if (G_UNLIKELY (!ferry_python_input_number (self, &number) || number > ferry_python_input_left (self) / at_least))
    return FALSE;
  *count = (gsize) number;
  return TRUE;
}

static inline gboolean
ferry_python_input_copy (FerryPythonInput *self, gpointer to, gsize size)
{
  if (G_UNLIKELY (ferry_python_input_left (self) < size))
    return FALSE;
  memcpy (to, self->at, size);
  self->at += size;
  return TRUE;
}

G_END_DECLS
