/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ferry-python-decoder.h"

#include "ferry-ndarray.h"
#include "ferry-python-numpy.h"
#include "ferry-python-stream.h"
#include "ferry-python-types.h"
#include "ferry-python-view.h"
#include "ferry-python-warm.h"

#include <datetime.h>

/* In bytes: from here on other threads run meanwhile. Letting them costs a microsecond. */
#define UNLOCKED_COPY_MIN (1024 * 1024)

/* Keys of dicts repeat, from message to message: a power of two of them are kept. Their hashes are known already. */
#define KEYS_CACHED_BITS (10)
#define KEYS_CACHED (1 << KEYS_CACHED_BITS)
#define KEY_SIZE_MAX (32)

/* Bytes of integers that are judged on the stack. */
#define INT_ON_STACK (256)

/* Values that hashing keys and items of sets meets again by references: a few bytes could else take it forever. Besides
 * the bytes of the message, each of which can make one. */
#define HASHED_AGAIN_MAX (1 << 24)

#define DTYPE_NAME_MAX (1024)
#define VIEW_FORMAT_MAX (4096)
#define SHARED_ON_STACK (32)

typedef struct
{
  gsize offset;
  PyObject *object; /* a reference; NULL: not complete yet */
  gsize n_values;   /* with all that is in it, as often as it is; 0: not complete yet */
} Shared;

typedef struct
{
  FerryPythonInput input;
  FerryBuffer *buffer;
  PyObject *base; /* what views refer to; made when needed */
  gboolean writable;
  gboolean pickle;
  gboolean intern; /* keys that are names of attributes, which are found faster so */
  guint depth;
  gsize n_claimed;      /* items of all containers so far: each takes a byte at least */
  gsize n_repeated;     /* values that references stand for, within the shared value or the key that is being decoded */
  gsize n_hashed_again; /* of these, those in keys and items of sets */
  GError *error;        /* set instead of a Python exception by what is malformed or not allowed */

  /* What is met again, in the order in which it begins in the stream. */
  Shared *shared;
  gsize n_shared;
  gsize n_shared_allocated;
  Shared on_stack[SHARED_ON_STACK];
} Decoder;

/* The number of a value among the shared ones. */
#define NOT_SHARED ((gsize) -1)

/* Two words tell all of a key of up to 16 bytes. */
typedef struct
{
  guint64 first;
  guint64 last;
  gsize size;
  PyObject *key; /* an ASCII str */
} CachedKey;

static CachedKey keys[KEYS_CACHED];

static PyObject *decode (Decoder *self);

/*
 * Failing
 */

static PyObject *G_GNUC_NO_INLINE G_GNUC_PRINTF (2, 3) malformed (Decoder *self, const char *format, ...)
{
  g_autofree char *text = NULL;
  va_list args;

  if (self->error != NULL)
    return NULL;
  va_start (args, format);
  text = g_strdup_vprintf (format, args);
  va_end (args);
  g_set_error (&self->error, FERRY_ERROR, FERRY_ERROR_CODEC,
               "codec 'python': at byte %" G_GSIZE_FORMAT " of the message: %s; was it cut or changed?",
               (gsize) (self->input.at - self->input.message), text);
  return NULL;
}

static PyObject *G_GNUC_NO_INLINE
cut (Decoder *self)
{
  return malformed (self, "the stream ends within a value");
}

static PyObject *
fail (Decoder *self, GError *error)
{
  if (self->error == NULL)
    {
      self->error = g_error_new (FERRY_ERROR, FERRY_ERROR_CODEC, "codec 'python': %s", error->message);
      g_error_free (error);
    }
  else
    {
      g_error_free (error);
    }
  return NULL;
}

static PyObject *
refuse_pickle (Decoder *self, const char *what)
{
  if (self->error == NULL)
    g_set_error (&self->error, FERRY_ERROR, FERRY_ERROR_CODEC,
                 "codec 'python': the message contains %s pickled, which can run code here; open the channel with "
                 "pickle=yes if you trust all who take part",
                 what);
  return NULL;
}

static gboolean
enter (Decoder *self)
{
  if (G_UNLIKELY (self->depth >= FERRY_PYTHON_NESTING_MAX))
    {
      malformed (self, "more than %d levels of containers", FERRY_PYTHON_NESTING_MAX);
      return FALSE;
    }
  if (G_UNLIKELY (Py_EnterRecursiveCall (" while receiving an object") != 0))
    return FALSE;
  self->depth++;
  return TRUE;
}

static inline void
leave (Decoder *self)
{
  self->depth--;
  Py_LeaveRecursiveCall ();
}

/*
 * Shared values
 */

static gsize G_GNUC_NO_INLINE
shared_begin (Decoder *self, gsize offset)
{
  if (self->n_shared == self->n_shared_allocated)
    {
      self->n_shared_allocated *= 4;
      if (self->shared == self->on_stack)
        {
          self->shared = g_new (Shared, self->n_shared_allocated);
          memcpy (self->shared, self->on_stack, sizeof self->on_stack);
        }
      else
        {
          self->shared = g_renew (Shared, self->shared, self->n_shared_allocated);
        }
    }
  self->shared[self->n_shared].offset = offset;
  self->shared[self->n_shared].object = NULL;
  self->shared[self->n_shared].n_values = 0;
  return self->n_shared++;
}

static inline void
shared_set (Decoder *self, gsize number, PyObject *object)
{
  if (number != NOT_SHARED && self->shared[number].object == NULL)
    self->shared[number].object = Py_NewRef (object);
}

static inline gsize
add_saturated (gsize a, gsize b)
{
  return a > G_MAXSIZE - b ? G_MAXSIZE : a + b;
}

static PyObject *
decode_reference (Decoder *self)
{
  guint64 offset;
  gsize low = 0;
  gsize high = self->n_shared;

  if (!ferry_python_input_number (&self->input, &offset))
    return cut (self);
  while (low < high)
    {
      gsize middle = low + (high - low) / 2;

      if (self->shared[middle].offset < offset)
        low = middle + 1;
      else
        high = middle;
    }
  if (low == self->n_shared || self->shared[low].offset != offset || self->shared[low].object == NULL)
    return malformed (self, "a reference to %" G_GUINT64_FORMAT ", where no complete value is", offset);
  self->n_repeated = add_saturated (self->n_repeated, MAX (self->shared[low].n_values, 1));
  return Py_NewRef (self->shared[low].object);
}

/*
 * Data
 */

static void
copy (gpointer to, gconstpointer from, gsize size)
{
  if (size < UNLOCKED_COPY_MIN)
    {
      memcpy (to, from, size);
    }
  else
    {
      Py_BEGIN_ALLOW_THREADS;
      ferry_copy_memory (to, from, size);
      Py_END_ALLOW_THREADS;
    }
}

/* Where the data of a value is, in the stream or in a part. @terminator: bytes that follow it in a part. */
static const guint8 *
take_data (Decoder *self, gboolean in_part, gsize item_size, gsize terminator, gsize *count)
{
  const guint8 *data;
  guint64 number;

  if (!ferry_python_input_number (&self->input, &number)
      || number > (in_part ? self->input.message_size : ferry_python_input_left (&self->input)) / item_size)
    {
      cut (self);
      return NULL;
    }
  *count = (gsize) number;
  if (!in_part)
    {
      data = self->input.at;
      self->input.at += number * item_size;
    }
  else if (!ferry_python_input_take_part (&self->input, number * item_size + terminator, &data))
    {
      malformed (self, "a part of %" G_GUINT64_FORMAT " bytes is beyond the end", number * item_size);
      return NULL;
    }
  return data;
}

static gboolean
is_ascii (const guint8 *data, gsize size)
{
  guint64 seen = 0;
  guint8 seen_behind = 0;
  gsize i = 0;

  for (; i + sizeof seen <= size; i += sizeof seen)
    {
      guint64 word;

      memcpy (&word, data + i, sizeof word);
      seen |= word;
    }
  for (; i < size; i++)
    seen_behind |= data[i];
  return ((seen | seen_behind) & G_GUINT64_CONSTANT (0x8080808080808080)) == 0;
}

/* Strings have the smallest kind that they need, else Python would not find them equal to others. What is judged is our
 * copy. */
static PyObject *G_GNUC_NO_INLINE
decode_str (Decoder *self, guint tag, gboolean in_part)
{
  static const struct
  {
    Py_UCS4 max;
    guint8 size;
  } kinds[] = { { 0x7f, 1 }, { 0xff, 1 }, { 0xffff, 2 }, { 0x10ffff, 4 } };
  guint kind = tag - FERRY_PYTHON_TAG_STR;
  gsize length;
  const guint8 *data = take_data (self, in_part, kinds[kind].size, 0, &length);
  PyObject *str;
  gboolean is_right;

  if (data == NULL)
    return NULL;
  if (in_part)
    ferry_python_warm_begin (length * kinds[kind].size);
  str = PyUnicode_New ((Py_ssize_t) length, length > 0 ? kinds[kind].max : 0);
  ferry_python_warm_end ();
  if (str == NULL || length == 0)
    return str;
  copy (PyUnicode_DATA (str), data, length * kinds[kind].size);

  switch (kind)
    {
    case 0:
      is_right = is_ascii (PyUnicode_DATA (str), length);
      break;

    case 1:
      is_right = !is_ascii (PyUnicode_DATA (str), length);
      break;

    case 2:
      {
        const Py_UCS2 *characters = PyUnicode_2BYTE_DATA (str);
        Py_UCS2 seen = 0;

        for (gsize i = 0; i < length; i++)
          seen |= characters[i];
        is_right = seen > 0xff;
        break;
      }

    default:
      {
        const Py_UCS4 *characters = PyUnicode_4BYTE_DATA (str);
        Py_UCS4 max = 0;

        for (gsize i = 0; i < length; i++)
          max = MAX (max, characters[i]);
        is_right = max > 0xffff && max <= 0x10ffff;
        break;
      }
    }
  if (G_UNLIKELY (!is_right))
    {
      /* Empty, so that nothing ever looks at what is in there. */
      memset (PyUnicode_DATA (str), 0, length * kinds[kind].size);
      Py_DECREF (str);
      return malformed (self, "a str has characters that are not of its kind");
    }
  return str;
}

/* The first and the last bytes of a key, overlapping; the same words only for the same bytes if they are 16 or less. */
static inline void
key_get_words (const guint8 *data, gsize size, guint64 *first, guint64 *last)
{
  if (size >= sizeof *first)
    {
      memcpy (first, data, sizeof *first);
      memcpy (last, data + size - sizeof *last, sizeof *last);
    }
  else if (size >= sizeof (guint32))
    {
      guint32 halves[2];

      memcpy (&halves[0], data, sizeof halves[0]);
      memcpy (&halves[1], data + size - sizeof halves[1], sizeof halves[1]);
      *first = halves[0];
      *last = halves[1];
    }
  else
    {
      *first = data[0];
      *last = (guint64) data[size / 2] << 8 | data[size - 1];
    }
}

static PyObject *G_GNUC_NO_INLINE
cache_key (Decoder *self, CachedKey *cached, const guint8 *data, gsize size)
{
  PyObject *key;

  if (!is_ascii (data, size))
    return malformed (self, "a str has characters that are not of its kind");
  key = PyUnicode_New ((Py_ssize_t) size, 0x7f);
  if (key == NULL)
    return NULL;
  memcpy (PyUnicode_DATA (key), data, size);
  if (self->intern)
    PyUnicode_InternInPlace (&key);

  key_get_words (data, size, &cached->first, &cached->last);
  cached->size = size;
  Py_XSETREF (cached->key, Py_NewRef (key));
  return key;
}

/* The next value, which is probably a short str that was here before. */
static PyObject *
decode_key (Decoder *self)
{
  guint8 data[KEY_SIZE_MAX];
  guint64 first;
  guint64 last;
  gsize size;
  CachedKey *cached;

  if (G_UNLIKELY (ferry_python_input_left (&self->input) < 3
                  || *(const volatile guint8 *) self->input.at != FERRY_PYTHON_TAG_STR))
    return decode (self);
  size = ((const volatile guint8 *) self->input.at)[1];
  if (G_UNLIKELY (size > KEY_SIZE_MAX || size == 0 || ferry_python_input_left (&self->input) < 2 + size))
    return decode (self);
  memcpy (data, self->input.at + 2, size);
  self->input.at += 2 + size;

  key_get_words (data, size, &first, &last);
  cached = &keys[((first ^ (last << 32 | last >> 32) ^ size) * G_GUINT64_CONSTANT (0x9e3779b97f4a7c15))
                 >> (64 - KEYS_CACHED_BITS)];
  if (G_UNLIKELY (cached->size != size || cached->first != first || cached->last != last
                  || (size > 2 * sizeof first && memcmp (PyUnicode_DATA (cached->key), data, size) != 0)))
    return cache_key (self, cached, data, size);
  if (self->intern && !PyUnicode_CHECK_INTERNED (cached->key))
    PyUnicode_InternInPlace (&cached->key);
  return Py_NewRef (cached->key);
}

static PyObject *
decode_bytes (Decoder *self, gboolean in_part)
{
  gsize size;
  const guint8 *data = take_data (self, in_part, 1, 1, &size);
  PyObject *bytes;

  if (data == NULL)
    return NULL;
  if (!in_part)
    return PyBytes_FromStringAndSize ((const char *) data, (Py_ssize_t) size);
  /* Only where code from the peer would be run too: it could change the bytes while somebody relies on them. */
  if (self->pickle && ferry_python_input_is_at_end (&self->input))
    {
      bytes = ferry_python_warm_bytes (self->buffer, (gsize) (self->input.end - self->input.message), data, size);
      if (bytes != NULL)
        return bytes;
    }
  ferry_python_warm_begin (size);
  bytes = PyBytes_FromStringAndSize (NULL, (Py_ssize_t) size);
  ferry_python_warm_end ();
  if (bytes != NULL)
    copy (PyBytes_AS_STRING (bytes), data, size);
  return bytes;
}

static PyObject *
decode_bytearray (Decoder *self, gboolean in_part)
{
  gsize size;
  const guint8 *data = take_data (self, in_part, 1, 0, &size);
  PyObject *bytearray;

  if (data == NULL)
    return NULL;
  if (!in_part)
    return PyByteArray_FromStringAndSize ((const char *) data, (Py_ssize_t) size);
  ferry_python_warm_begin (size);
  bytearray = PyByteArray_FromStringAndSize (NULL, (Py_ssize_t) size);
  ferry_python_warm_end ();
  if (bytearray != NULL && size > 0)
    copy (PyByteArray_AS_STRING (bytearray), data, size);
  return bytearray;
}

static PyObject *G_GNUC_NO_INLINE
decode_big_int (Decoder *self)
{
  guint8 on_stack[INT_ON_STACK];
  g_autofree guint8 *on_heap = NULL;
  gsize size;
  const guint8 *data = take_data (self, FALSE, 1, 0, &size);
  guint8 *bytes = on_stack;

  if (data == NULL)
    return NULL;
  if (size > sizeof on_stack)
    bytes = on_heap = g_malloc (size);
  memcpy (bytes, data, size);
  return _PyLong_FromByteArray (bytes, size, TRUE, TRUE);
}

/* What views refer to; borrowed. */
static PyObject *
get_base (Decoder *self)
{
  GError *error = NULL;

  if (self->base == NULL)
    {
      self->base = ferry_python_new_message (self->buffer, &error);
      if (self->base == NULL)
        fail (self, error);
    }
  return self->base;
}

static gboolean
take_byte (Decoder *self, guint8 max, guint8 *byte)
{
  if (!ferry_python_input_copy (&self->input, byte, 1))
    {
      cut (self);
      return FALSE;
    }
  if (*byte > max)
    {
      malformed (self, "a byte is %u, at most %u is known", *byte, max);
      return FALSE;
    }
  return TRUE;
}

/* At most @max lengths. */
static gboolean
take_shape (Decoder *self, gssize *shape, gsize max, gsize *n_dimensions)
{
  guint64 number;

  if (!ferry_python_input_count (&self->input, 1, n_dimensions) || *n_dimensions > max)
    {
      malformed (self, "an array has too many dimensions");
      return FALSE;
    }
  for (gsize i = 0; i < *n_dimensions; i++)
    {
      if (!ferry_python_input_number (&self->input, &number) || number > G_MAXSSIZE)
        {
          malformed (self, "a dimension of an array makes no sense");
          return FALSE;
        }
      shape[i] = (gssize) number;
    }
  return TRUE;
}

static PyObject *G_GNUC_NO_INLINE
decode_memoryview (Decoder *self)
{
  char format[VIEW_FORMAT_MAX + 1];
  gssize shape[PyBUF_MAX_NDIM];
  gsize n_dimensions;
  gsize format_length;
  guint64 item_size;
  gsize size;
  guint8 readonly;
  const guint8 *part;

  if (!take_byte (self, 1, &readonly))
    return NULL;
  if (!ferry_python_input_number (&self->input, &item_size)
      || !ferry_python_input_count (&self->input, 1, &format_length) || format_length > VIEW_FORMAT_MAX
      || !ferry_python_input_copy (&self->input, format, format_length))
    return cut (self);
  format[format_length] = '\0';
  if (!take_shape (self, shape, PyBUF_MAX_NDIM, &n_dimensions))
    return NULL;

  size = (gsize) item_size;
  for (gsize i = 0; i < n_dimensions; i++)
    if (__builtin_mul_overflow (size, (gsize) shape[i], &size))
      return malformed (self, "the shape of a memoryview makes no sense");
  if (!ferry_python_input_take_part (&self->input, size, &part))
    return malformed (self, "a part of %" G_GSIZE_FORMAT " bytes is beyond the end", size);
  if (get_base (self) == NULL)
    return NULL;
  return ferry_python_view_new (self->base, (guint8 *) part, size, readonly || !self->writable, format,
                                (gsize) item_size, shape, (guint) n_dimensions);
}

static PyObject *
decode_buffer (Decoder *self)
{
  guint8 readonly;
  gsize size;
  gssize length;
  const guint8 *part;

  if (!take_byte (self, 1, &readonly))
    return NULL;
  part = take_data (self, TRUE, 1, 0, &size);
  if (part == NULL || get_base (self) == NULL)
    return NULL;
  length = (gssize) size;
  return ferry_python_view_new (self->base, (guint8 *) part, size, readonly || !self->writable, "B", 1, &length, 1);
}

/*
 * Containers
 */

/* A number of values that take a byte at least. Containers within others can't have the bytes of these again. */
static inline gboolean
claim (Decoder *self, gsize n)
{
  self->n_claimed += n;
  if (G_LIKELY (self->n_claimed <= (gsize) (self->input.end - self->input.start)))
    return TRUE;
  cut (self);
  return FALSE;
}

static inline gboolean
take_count (Decoder *self, gsize at_least, gsize *n)
{
  if (G_LIKELY (ferry_python_input_count (&self->input, at_least, n)))
    return claim (self, *n * at_least);
  cut (self);
  return FALSE;
}

/* What is going to be hashed, which may take as long as it has values. @n_before: from before it was decoded, when
 * n_repeated was set to 0. */
static inline gboolean
may_hash (Decoder *self, gsize n_before)
{
  gsize n = self->n_repeated;

  self->n_repeated = n_before;
  if (G_LIKELY (n == 0))
    return TRUE;
  self->n_repeated = add_saturated (n_before, n);
  self->n_hashed_again = add_saturated (self->n_hashed_again, n);
  if (self->n_hashed_again <= HASHED_AGAIN_MAX + self->input.message_size)
    return TRUE;
  malformed (self, "keys and items of sets repeat values too often");
  return FALSE;
}

static PyObject *
decode_list (Decoder *self, gsize number)
{
  gsize n;
  PyObject *list;

  if (!take_count (self, 1, &n))
    return NULL;

  /* One that others can see while it is filled must have no holes. */
  list = PyList_New (number == NOT_SHARED ? (Py_ssize_t) n : 0);
  if (list == NULL)
    return NULL;
  shared_set (self, number, list);
  for (gsize i = 0; i < n; i++)
    {
      PyObject *item = decode (self);

      if (G_UNLIKELY (item == NULL))
        {
          Py_CLEAR (list);
          break;
        }
      if (number == NOT_SHARED)
        {
          PyList_SET_ITEM (list, (Py_ssize_t) i, item);
        }
      else
        {
          int appended = PyList_Append (list, item);

          Py_DECREF (item);
          if (appended < 0)
            {
              Py_CLEAR (list);
              break;
            }
        }
    }
  return list;
}

static PyObject *
decode_tuple (Decoder *self)
{
  gsize n;
  PyObject *tuple;

  if (!take_count (self, 1, &n))
    return NULL;
  tuple = PyTuple_New ((Py_ssize_t) n);
  if (tuple == NULL)
    return NULL;
  for (gsize i = 0; i < n; i++)
    {
      PyObject *item = decode (self);

      if (G_UNLIKELY (item == NULL))
        {
          Py_CLEAR (tuple);
          break;
        }
      PyTuple_SET_ITEM (tuple, (Py_ssize_t) i, item);
    }
  return tuple;
}

static PyObject *
decode_dict (Decoder *self, gsize number)
{
  gboolean intern = self->intern;
  gsize n;
  PyObject *dict;

  if (!take_count (self, 2, &n))
    return NULL;
  dict = n > 5 ? _PyDict_NewPresized ((Py_ssize_t) n) : PyDict_New ();
  if (dict == NULL)
    return NULL;
  shared_set (self, number, dict);
  for (gsize i = 0; i < n; i++)
    {
      PyObject *key;
      PyObject *value;
      int set;
      gsize n_before = self->n_repeated;

      self->intern = intern;
      self->n_repeated = 0;
      key = decode_key (self);
      self->intern = FALSE;
      value = may_hash (self, n_before) && key != NULL ? decode (self) : NULL;
      set = value != NULL ? PyDict_SetItem (dict, key, value) : -1;

      Py_XDECREF (key);
      Py_XDECREF (value);
      if (G_UNLIKELY (set < 0))
        {
          Py_CLEAR (dict);
          break;
        }
    }
  return dict;
}

static PyObject *
decode_set (Decoder *self, gboolean frozen, gsize number)
{
  gsize n;
  PyObject *set;

  if (!take_count (self, 1, &n))
    return NULL;
  set = frozen ? PyFrozenSet_New (NULL) : PySet_New (NULL);
  if (set == NULL)
    return NULL;
  if (!frozen)
    shared_set (self, number, set);
  for (gsize i = 0; i < n; i++)
    {
      gsize n_before = self->n_repeated;
      PyObject *item;
      int added;

      self->n_repeated = 0;
      item = decode (self);
      added = may_hash (self, n_before) && item != NULL ? PySet_Add (set, item) : -1;
      Py_XDECREF (item);
      if (G_UNLIKELY (added < 0))
        {
          Py_CLEAR (set);
          break;
        }
    }
  return set;
}

/* What was written within itself: the first is thrown away. Steals @value, which may be NULL. */
static PyObject *
decode_recursive (Decoder *self, PyObject *value)
{
  if (value == NULL)
    return NULL;
  Py_DECREF (value);
  return decode (self);
}

/* A value of exactly one type. */
static PyObject *
decode_exact (Decoder *self, PyTypeObject *type)
{
  PyObject *value = decode (self);

  if (value != NULL && !Py_IS_TYPE (value, type))
    {
      malformed (self, "a %s stands where a %s should", Py_TYPE (value)->tp_name, type->tp_name);
      Py_CLEAR (value);
    }
  return value;
}

/* Calls with arguments that may be NULL because making them failed, and steals those. */
static PyObject *
call (PyObject *callable, PyObject **arguments, guint n)
{
  PyObject *result = NULL;
  gboolean complete = callable != NULL;

  for (guint i = 0; i < n; i++)
    complete = complete && arguments[i] != NULL;
  if (complete)
    result = PyObject_Vectorcall (callable, arguments, n, NULL);
  for (guint i = 0; i < n; i++)
    Py_XDECREF (arguments[i]);
  return result;
}

/* Calls a class of the standard library with a str. */
static PyObject *
decode_from_str (Decoder *self, FerryPythonClass id)
{
  PyObject *str = decode_exact (self, &PyUnicode_Type);

  return str != NULL ? call (ferry_python_class_import (id), &str, 1) : NULL;
}

static PyObject *
decode_from_ints (Decoder *self, PyObject *callable, guint n)
{
  PyObject *arguments[3] = { NULL, NULL, NULL };

  if (callable == NULL)
    return NULL;
  for (guint i = 0; i < n && (i == 0 || arguments[i - 1] != NULL); i++)
    arguments[i] = decode_exact (self, &PyLong_Type);
  return call (callable, arguments, n);
}

static PyObject *
decode_slice (Decoder *self)
{
  PyObject *start = decode (self);
  PyObject *stop = start != NULL ? decode (self) : NULL;
  PyObject *step = stop != NULL ? decode (self) : NULL;
  PyObject *slice = step != NULL ? PySlice_New (start, stop, step) : NULL;

  Py_XDECREF (start);
  Py_XDECREF (stop);
  Py_XDECREF (step);
  return slice;
}

/*
 * Values of the standard library
 */

static gboolean
load_datetime (void)
{
  if (G_LIKELY (PyDateTimeAPI != NULL))
    return TRUE;
  PyDateTime_IMPORT;
  return PyDateTimeAPI != NULL;
}

typedef struct
{
  guint16 year;
  guint8 month;
  guint8 day;
} Date;

typedef struct
{
  guint8 hour;
  guint8 minute;
  guint8 second;
  guint8 fold;
  guint32 microsecond;
} Time;

/* The API checks the ranges of all of this. */
static PyObject *G_GNUC_NO_INLINE
decode_datetime (Decoder *self, guint tag)
{
  Date date = { 0 };
  Time time = { 0 };
  PyObject *zone;
  PyObject *result;

  if (!load_datetime ())
    return NULL;
  if ((tag != FERRY_PYTHON_TAG_TIME && !ferry_python_input_copy (&self->input, &date, sizeof date))
      || (tag != FERRY_PYTHON_TAG_DATE && !ferry_python_input_copy (&self->input, &time, sizeof time)))
    return cut (self);
  if (tag == FERRY_PYTHON_TAG_DATE)
    return PyDate_FromDate (date.year, date.month, date.day);
  if (time.microsecond > 999999 || time.fold > 1)
    return malformed (self, "a time of %u microseconds makes no sense", time.microsecond);

  zone = decode (self);
  if (zone == NULL)
    return NULL;
  if (tag == FERRY_PYTHON_TAG_TIME)
    result = PyDateTimeAPI->Time_FromTimeAndFold (time.hour, time.minute, time.second, (int) time.microsecond, zone,
                                                  time.fold, PyDateTimeAPI->TimeType);
  else
    result = PyDateTimeAPI->DateTime_FromDateAndTimeAndFold (date.year, date.month, date.day, time.hour, time.minute,
                                                             time.second, (int) time.microsecond, zone, time.fold,
                                                             PyDateTimeAPI->DateTimeType);
  Py_DECREF (zone);
  return result;
}

static PyObject *
decode_timedelta (Decoder *self)
{
  enum
  {
    DAYS_MAX = 999999999,
    SECONDS = 24 * 60 * 60,
    MICROSECONDS = 1000000,
  };
  gint32 numbers[3];

  if (!load_datetime ())
    return NULL;
  if (!ferry_python_input_copy (&self->input, numbers, sizeof numbers))
    return cut (self);
  if (numbers[0] < -DAYS_MAX || numbers[0] > DAYS_MAX || numbers[1] < 0 || numbers[1] >= SECONDS || numbers[2] < 0
      || numbers[2] >= MICROSECONDS)
    return malformed (self, "a timedelta of %d days, %d seconds, %d microseconds makes no sense", numbers[0],
                      numbers[1], numbers[2]);
  return PyDelta_FromDSU (numbers[0], numbers[1], numbers[2]);
}

static PyObject *
decode_timezone (Decoder *self)
{
  PyObject *offset = decode (self);
  PyObject *name = offset != NULL ? decode (self) : NULL;
  PyObject *zone = NULL;

  if (name != NULL && load_datetime ())
    {
      if (!PyDelta_CheckExact (offset) || (name != Py_None && !PyUnicode_CheckExact (name)))
        malformed (self, "a timezone is made of a %s and a %s", Py_TYPE (offset)->tp_name, Py_TYPE (name)->tp_name);
      else
        zone = PyDateTimeAPI->TimeZone_FromTimeZone (offset, name == Py_None ? NULL : name);
    }
  Py_XDECREF (offset);
  Py_XDECREF (name);
  return zone;
}

static PyObject *G_GNUC_NO_INLINE
decode_uuid (Decoder *self)
{
  enum
  {
    UUID_SIZE = 16,
    UNKNOWN = 2,
  };
  guint8 bytes[UUID_SIZE];
  guint8 safety;
  PyTypeObject *type = (PyTypeObject *) ferry_python_class_import (FERRY_PYTHON_CLASS_UUID);
  PyObject *enumeration = ferry_python_class_import (FERRY_PYTHON_CLASS_SAFE_UUID);
  PyObject *number = NULL;
  PyObject *is_safe = NULL;
  PyObject *no_arguments = NULL;
  PyObject *uuid = NULL;

  if (type == NULL || enumeration == NULL)
    return NULL;
  if (!ferry_python_input_copy (&self->input, bytes, sizeof bytes))
    return cut (self);
  if (!take_byte (self, UNKNOWN, &safety))
    return NULL;

  /* What its __init__() would do, in a tenth of the time. */
  number = _PyLong_FromByteArray (bytes, sizeof bytes, FALSE, FALSE);
  is_safe = PyObject_GetAttrString (enumeration, safety == 0 ? "safe" : safety == 1 ? "unsafe" : "unknown");
  no_arguments = PyTuple_New (0);
  if (number != NULL && is_safe != NULL && no_arguments != NULL)
    uuid = type->tp_new (type, no_arguments, NULL);
  if (uuid != NULL
      && (PyObject_GenericSetAttr (uuid, ferry_python_names.name_int, number) < 0
          || PyObject_GenericSetAttr (uuid, ferry_python_names.is_safe, is_safe) < 0))
    Py_CLEAR (uuid);
  Py_XDECREF (number);
  Py_XDECREF (is_safe);
  Py_XDECREF (no_arguments);
  return uuid;
}

/*
 * Arrays
 */

/* The header of an array, copied: it lies anywhere in the stream. */
static guint8 *
take_header (Decoder *self, gsize *size)
{
  guint8 *header;

  if (!ferry_python_input_count (&self->input, 1, size))
    {
      cut (self);
      return NULL;
    }
  header = g_malloc (MAX (*size, 1));
  memcpy (header, self->input.at, *size);
  self->input.at += *size;
  return header;
}

static PyObject *G_GNUC_NO_INLINE
decode_ndarray (Decoder *self)
{
  GError *error = NULL;
  gsize header_size;
  const guint8 *header;
  const guint8 *part;
  gsize size;
  PyObject *array;

  if (!ferry_ndarray_load (TRUE, &error))
    return fail (self, error);
  if (!ferry_python_input_count (&self->input, 1, &header_size))
    return cut (self);
  header = self->input.at;
  self->input.at += header_size;
  part = take_data (self, TRUE, 1, 0, &size);
  if (part == NULL || get_base (self) == NULL)
    return NULL;
  array = ferry_ndarray_read (header, header_size, (guint8 *) part, size, self->base, self->writable, &error);
  return array != NULL ? array : fail (self, error);
}

static PyObject *G_GNUC_NO_INLINE
decode_object_array (Decoder *self, gsize number)
{
  gssize shape[PyBUF_MAX_NDIM];
  gsize n_dimensions;
  gsize n_elements = 1;
  guint8 fortran;
  PyObject *array;
  PyObject *elements;
  gboolean complete = TRUE;

  if (!take_byte (self, 1, &fortran) || !take_shape (self, shape, PyBUF_MAX_NDIM, &n_dimensions))
    return NULL;
  for (gsize i = 0; i < n_dimensions; i++)
    if (__builtin_mul_overflow (n_elements, (gsize) shape[i], &n_elements))
      return malformed (self, "the shape of an array makes no sense");
  if (n_elements > ferry_python_input_left (&self->input))
    return cut (self);
  if (!claim (self, n_elements))
    return NULL;

  array = ferry_python_numpy_new_objects (shape, n_dimensions, fortran);
  if (array == NULL)
    return NULL;
  shared_set (self, number, array);
  elements = PyList_New (0);
  if (elements == NULL)
    {
      Py_DECREF (array);
      return NULL;
    }
  for (gsize i = 0; complete && i < n_elements; i++)
    {
      PyObject *element = decode (self);

      complete = element != NULL && PyList_Append (elements, element) == 0;
      Py_XDECREF (element);
    }
  if (!complete || !ferry_python_numpy_fill_objects (array, elements))
    Py_CLEAR (array);
  Py_DECREF (elements);
  return array;
}

static PyObject *
decode_numpy_scalar (Decoder *self)
{
  guint8 head[2];
  const guint8 *data;

  if (!ferry_python_input_copy (&self->input, head, sizeof head) || ferry_python_input_left (&self->input) < head[1])
    return cut (self);
  data = self->input.at;
  self->input.at += head[1];
  return ferry_python_numpy_make_scalar (head[0], data, head[1]);
}

static PyObject *G_GNUC_NO_INLINE
decode_numpy_scalar_array (Decoder *self)
{
  GError *error = NULL;
  gsize header_size;
  g_autofree guint8 *header = NULL;
  gsize size;
  const guint8 *data;
  PyObject *bytes;
  PyObject *array;

  if (!ferry_ndarray_load (TRUE, &error))
    return fail (self, error);
  header = take_header (self, &header_size);
  data = header != NULL ? take_data (self, FALSE, 1, 0, &size) : NULL;
  if (data == NULL)
    return NULL;

  /* Their data is aligned to 16 bytes, which is enough for all elements. */
  bytes = PyBytes_FromStringAndSize ((const char *) data, (Py_ssize_t) size);
  if (bytes == NULL)
    return NULL;
  array = ferry_ndarray_read (header, header_size, (guint8 *) PyBytes_AS_STRING (bytes), size, bytes, FALSE, &error);
  Py_DECREF (bytes);
  return array != NULL ? ferry_python_numpy_array_to_scalar (array) : fail (self, error);
}

static PyObject *
decode_dtype (Decoder *self)
{
  PyObject *str = decode_exact (self, &PyUnicode_Type);
  PyObject *dtype = NULL;

  if (str == NULL)
    return NULL;
  if (PyUnicode_GET_LENGTH (str) > DTYPE_NAME_MAX)
    malformed (self, "the name of a dtype has %zd characters", PyUnicode_GET_LENGTH (str));
  else
    dtype = ferry_python_numpy_dtype_from_str (str);
  Py_DECREF (str);
  return dtype;
}

static PyObject *G_GNUC_NO_INLINE
decode_dtype_array (Decoder *self)
{
  GError *error = NULL;
  gsize header_size;
  g_autofree guint8 *header = NULL;
  PyObject *array;
  PyObject *dtype;

  if (!ferry_ndarray_load (TRUE, &error))
    return fail (self, error);
  header = take_header (self, &header_size);
  if (header == NULL || get_base (self) == NULL)
    return NULL;
  array = ferry_ndarray_read (header, header_size, (guint8 *) self->input.message, 0, self->base, FALSE, &error);
  if (array == NULL)
    return fail (self, error);
  dtype = PyObject_GetAttr (array, ferry_python_names.dtype);
  Py_DECREF (array);
  return dtype;
}

static PyObject *
decode_tensor (Decoder *self)
{
  guint8 requires_grad;
  guint8 tag;

  if (!take_byte (self, 1, &requires_grad) || !take_byte (self, FERRY_PYTHON_N_TAGS, &tag))
    return NULL;
  if (tag != FERRY_PYTHON_TAG_NDARRAY)
    return malformed (self, "a tensor has tag %u instead of an array", tag);
  return ferry_python_tensor_from_array (decode_ndarray (self), requires_grad, self->writable);
}

/*
 * Objects of classes, as a pickle of protocol 5 has them
 */

static PyObject *G_GNUC_NO_INLINE
decode_global (Decoder *self)
{
  PyObject *module = decode_exact (self, &PyUnicode_Type);
  PyObject *qualname = module != NULL ? decode_exact (self, &PyUnicode_Type) : NULL;
  PyObject *global = NULL;

  if (qualname != NULL && self->pickle)
    {
      global = ferry_python_global_import (module, qualname);
    }
  else if (qualname != NULL)
    {
      PyObject *name = PyUnicode_FromFormat ("%A.%A", module, qualname);
      const char *text = name != NULL ? PyUnicode_AsUTF8 (name) : NULL;

      refuse_pickle (self, text != NULL ? text : "something");
      Py_XDECREF (name);
    }
  Py_XDECREF (module);
  Py_XDECREF (qualname);
  return global;
}

static PyObject *
decode_namedtuple (Decoder *self)
{
  PyObject *class = decode (self);
  PyTypeObject *type;
  gsize n = 0;
  Py_ssize_t n_fields;
  PyObject *tuple;

  if (class == NULL)
    return NULL;
  type = (PyTypeObject *) class;
  if (!PyType_Check (class) || !ferry_python_type_is_namedtuple (type, &n_fields))
    {
      malformed (self, "the class of a namedtuple is none");
      Py_DECREF (class);
      return NULL;
    }
  if (!ferry_python_input_count (&self->input, 1, &n) || n != (gsize) n_fields)
    {
      PyErr_Format (PyExc_TypeError, "the class %s of a namedtuple has %zd fields here, and %zu where it comes from",
                    type->tp_name, n_fields, n);
      Py_DECREF (class);
      return NULL;
    }
  tuple = claim (self, n) ? type->tp_alloc (type, n_fields) : NULL;
  Py_DECREF (class);
  if (tuple == NULL)
    return NULL;
  for (Py_ssize_t i = 0; i < n_fields; i++)
    {
      PyObject *item = decode (self);

      if (item == NULL)
        {
          Py_CLEAR (tuple);
          break;
        }
      PyTuple_SET_ITEM (tuple, i, item);
    }
  return tuple;
}

/* Whether the next is the end of values without number, and then it is behind it. */
static gboolean
take_end (Decoder *self)
{
  if (self->input.at == self->input.end || *(const volatile guint8 *) self->input.at != FERRY_PYTHON_TAG_END)
    return FALSE;
  self->input.at++;
  return TRUE;
}

static gboolean
add_list_items (Decoder *self, PyObject *object)
{
  PyObject *items = PyList_New (0);
  PyObject *extend = NULL;
  PyObject *result = NULL;
  gboolean added = items != NULL;

  while (added && !take_end (self))
    {
      PyObject *item = decode (self);

      added = item != NULL && PyList_Append (items, item) == 0;
      Py_XDECREF (item);
    }
  if (added && PyList_GET_SIZE (items) > 0)
    {
      added = _PyObject_LookupAttr (object, ferry_python_names.extend, &extend) >= 0;
      if (added && extend != NULL)
        {
          result = PyObject_CallOneArg (extend, items);
          added = result != NULL;
          Py_XDECREF (result);
        }
      for (Py_ssize_t i = 0; added && extend == NULL && i < PyList_GET_SIZE (items); i++)
        {
          result = PyObject_CallMethodOneArg (object, ferry_python_names.append, PyList_GET_ITEM (items, i));
          added = result != NULL;
          Py_XDECREF (result);
        }
      Py_XDECREF (extend);
    }
  Py_XDECREF (items);
  return added;
}

static gboolean
add_dict_items (Decoder *self, PyObject *object)
{
  gboolean added = TRUE;

  while (added && !take_end (self))
    {
      PyObject *key = decode_key (self);
      PyObject *value = key != NULL ? decode (self) : NULL;

      added = value != NULL && PyObject_SetItem (object, key, value) == 0;
      Py_XDECREF (key);
      Py_XDECREF (value);
    }
  return added;
}

static gboolean
set_attributes (PyObject *object, PyObject *state, gboolean slots)
{
  PyObject *dict = NULL;
  PyObject *key;
  PyObject *value;
  Py_ssize_t at = 0;
  int set = 0;

  if (!PyDict_Check (state))
    {
      PyErr_Format (PyExc_TypeError, "the state of a %s is a %s instead of a dict", Py_TYPE (object)->tp_name,
                    Py_TYPE (state)->tp_name);
      return FALSE;
    }
  if (!slots)
    {
      dict = PyObject_GetAttr (object, ferry_python_names.__dict__);
      if (dict == NULL)
        return FALSE;
    }
  while (set == 0 && PyDict_Next (state, &at, &key, &value))
    {
      /* Attributes are found faster by interned names. */
      Py_INCREF (key);
      Py_INCREF (value);
      if (PyUnicode_CheckExact (key))
        PyUnicode_InternInPlace (&key);
      set = slots                      ? PyObject_SetAttr (object, key, value)
            : PyDict_CheckExact (dict) ? PyDict_SetItem (dict, key, value)
                                       : PyObject_SetItem (dict, key, value);
      Py_DECREF (key);
      Py_DECREF (value);
    }
  Py_XDECREF (dict);
  return set == 0;
}

/* Steals @state. */
static gboolean
set_state (PyObject *object, PyObject *state_setter, PyObject *state)
{
  PyObject *method = NULL;
  PyObject *result;
  gboolean set;

  if (state_setter != NULL)
    {
      result = PyObject_CallFunctionObjArgs (state_setter, object, state, NULL);
      set = result != NULL;
      Py_XDECREF (result);
    }
  else if (_PyObject_LookupAttr (object, ferry_python_names.__setstate__, &method) < 0)
    {
      set = FALSE;
    }
  else if (method != NULL)
    {
      result = PyObject_CallOneArg (method, state);
      set = result != NULL;
      Py_XDECREF (result);
      Py_DECREF (method);
    }
  else if (PyDict_CheckExact (state) && Py_REFCNT (state) == 1 && Py_TYPE (object)->tp_dictoffset != 0
           && Py_TYPE (object)->tp_new == PyBaseObject_Type.tp_new)
    {
      /* An object() has no attributes yet, and nobody else has the dict: it need not be copied. */
      set = PyObject_GenericSetDict (object, state, NULL) == 0;
    }
  else if (PyTuple_CheckExact (state) && PyTuple_GET_SIZE (state) == 2)
    {
      PyObject *attributes = PyTuple_GET_ITEM (state, 0);
      PyObject *slots = PyTuple_GET_ITEM (state, 1);

      set = (attributes == Py_None || set_attributes (object, attributes, FALSE))
            && (slots == Py_None || set_attributes (object, slots, TRUE));
    }
  else
    {
      set = set_attributes (object, state, FALSE);
    }
  Py_DECREF (state);
  return set;
}

static PyObject *
make_object (Decoder *self, guint8 flags)
{
  PyObject *callable = decode (self);
  PyObject *arguments = callable != NULL ? decode_exact (self, &PyTuple_Type) : NULL;
  PyObject *keywords = NULL;
  PyObject *object = NULL;

  if (arguments != NULL && (flags & FERRY_PYTHON_OBJECT_KEYWORDS) != 0)
    keywords = decode_exact (self, &PyDict_Type);
  if (arguments == NULL || ((flags & FERRY_PYTHON_OBJECT_KEYWORDS) != 0 && keywords == NULL))
    {
      /* An error is set. */
    }
  else if (!self->pickle)
    {
      refuse_pickle (self, "an object");
    }
  else if ((flags & FERRY_PYTHON_OBJECT_NEW) == 0)
    {
      object = PyObject_Call (callable, arguments, NULL);
    }
  else if (!PyType_Check (callable) || ((PyTypeObject *) callable)->tp_new == NULL)
    {
      malformed (self, "an object is to be made by a %s", Py_TYPE (callable)->tp_name);
    }
  else
    {
      PyTypeObject *type = (PyTypeObject *) callable;

      object = type->tp_new (type, arguments, keywords);
    }
  Py_XDECREF (callable);
  Py_XDECREF (arguments);
  Py_XDECREF (keywords);
  return object;
}

static PyObject *
decode_object (Decoder *self, gboolean recursive, gsize number)
{
  guint8 flags;
  PyObject *object;
  PyObject *state_setter = NULL;
  PyObject *state;
  gboolean complete;

  if (!take_byte (self, FERRY_PYTHON_OBJECT_ALL_FLAGS, &flags))
    return NULL;
  object = make_object (self, flags);
  if (recursive)
    object = decode_recursive (self, object);
  if (object != NULL)
    {
      shared_set (self, number, object);
      complete = ((flags & FERRY_PYTHON_OBJECT_LIST_ITEMS) == 0 || add_list_items (self, object))
                 && ((flags & FERRY_PYTHON_OBJECT_DICT_ITEMS) == 0 || add_dict_items (self, object));
      if (complete && (flags & FERRY_PYTHON_OBJECT_SETTER) != 0)
        {
          state_setter = decode (self);
          complete = state_setter != NULL;
        }
      if (complete && (flags & FERRY_PYTHON_OBJECT_STATE) != 0)
        {
          self->intern = TRUE;
          state = decode (self);
          self->intern = FALSE;
          complete = state != NULL && set_state (object, state_setter, state);
        }
      Py_XDECREF (state_setter);
      if (!complete)
        Py_CLEAR (object);
    }
  return object;
}

static PyObject *
decode_tagged (Decoder *self, guint8 tag, gsize number)
{
  FerryPythonInput *input = &self->input;

  switch ((FerryPythonTag) tag)
    {
    case FERRY_PYTHON_TAG_NONE:
      return Py_NewRef (Py_None);

    case FERRY_PYTHON_TAG_FALSE:
      return Py_NewRef (Py_False);

    case FERRY_PYTHON_TAG_TRUE:
      return Py_NewRef (Py_True);

    case FERRY_PYTHON_TAG_ELLIPSIS:
      return Py_NewRef (Py_Ellipsis);

    case FERRY_PYTHON_TAG_NOT_IMPLEMENTED:
      return Py_NewRef (Py_NotImplemented);

    case FERRY_PYTHON_TAG_INT8:
      {
        gint8 value;

        return ferry_python_input_copy (input, &value, sizeof value) ? PyLong_FromLong (value) : cut (self);
      }

    case FERRY_PYTHON_TAG_INT32:
      {
        gint32 value;

        return ferry_python_input_copy (input, &value, sizeof value) ? PyLong_FromLong (value) : cut (self);
      }

    case FERRY_PYTHON_TAG_INT64:
      {
        gint64 value;

        return ferry_python_input_copy (input, &value, sizeof value) ? PyLong_FromLongLong (value) : cut (self);
      }

    case FERRY_PYTHON_TAG_INT_BIG:
      return decode_big_int (self);

    case FERRY_PYTHON_TAG_FLOAT:
      {
        double value;

        return ferry_python_input_copy (input, &value, sizeof value) ? PyFloat_FromDouble (value) : cut (self);
      }

    case FERRY_PYTHON_TAG_COMPLEX:
      {
        double value[2];

        return ferry_python_input_copy (input, value, sizeof value) ? PyComplex_FromDoubles (value[0], value[1])
                                                                    : cut (self);
      }

    case FERRY_PYTHON_TAG_STR:
    case FERRY_PYTHON_TAG_STR1:
    case FERRY_PYTHON_TAG_STR2:
    case FERRY_PYTHON_TAG_STR4:
      return decode_str (self, tag, FALSE);

    case FERRY_PYTHON_TAG_STR_PART:
    case FERRY_PYTHON_TAG_STR1_PART:
    case FERRY_PYTHON_TAG_STR2_PART:
    case FERRY_PYTHON_TAG_STR4_PART:
      return decode_str (self, tag - FERRY_PYTHON_TAG_STR_PART + FERRY_PYTHON_TAG_STR, TRUE);

    case FERRY_PYTHON_TAG_BYTES:
      return decode_bytes (self, FALSE);

    case FERRY_PYTHON_TAG_BYTES_PART:
      return decode_bytes (self, TRUE);

    case FERRY_PYTHON_TAG_BYTEARRAY:
      return decode_bytearray (self, FALSE);

    case FERRY_PYTHON_TAG_BYTEARRAY_PART:
      return decode_bytearray (self, TRUE);

    case FERRY_PYTHON_TAG_MEMORYVIEW:
      return decode_memoryview (self);

    case FERRY_PYTHON_TAG_BUFFER:
      return decode_buffer (self);

    case FERRY_PYTHON_TAG_TUPLE:
      return decode_tuple (self);

    case FERRY_PYTHON_TAG_LIST:
      return decode_list (self, number);

    case FERRY_PYTHON_TAG_DICT:
      return decode_dict (self, number);

    case FERRY_PYTHON_TAG_SET:
      return decode_set (self, FALSE, number);

    case FERRY_PYTHON_TAG_FROZENSET:
      return decode_set (self, TRUE, number);

    case FERRY_PYTHON_TAG_REF:
      return decode_reference (self);

    case FERRY_PYTHON_TAG_TUPLE_RECURSIVE:
      return decode_recursive (self, decode_tuple (self));

    case FERRY_PYTHON_TAG_FROZENSET_RECURSIVE:
      return decode_recursive (self, decode_set (self, TRUE, NOT_SHARED));

    case FERRY_PYTHON_TAG_NAMEDTUPLE_RECURSIVE:
      return decode_recursive (self, decode_namedtuple (self));

    case FERRY_PYTHON_TAG_NDARRAY:
      return decode_ndarray (self);

    case FERRY_PYTHON_TAG_NDARRAY_OBJECTS:
      return decode_object_array (self, number);

    case FERRY_PYTHON_TAG_NUMPY_SCALAR:
      return decode_numpy_scalar (self);

    case FERRY_PYTHON_TAG_NUMPY_SCALAR_ARRAY:
      return decode_numpy_scalar_array (self);

    case FERRY_PYTHON_TAG_DTYPE:
      return decode_dtype (self);

    case FERRY_PYTHON_TAG_DTYPE_ARRAY:
      return decode_dtype_array (self);

    case FERRY_PYTHON_TAG_TENSOR:
      return decode_tensor (self);

    case FERRY_PYTHON_TAG_RANGE:
      return decode_from_ints (self, (PyObject *) &PyRange_Type, 3);

    case FERRY_PYTHON_TAG_SLICE:
      return decode_slice (self);

    case FERRY_PYTHON_TAG_DECIMAL:
      return decode_from_str (self, FERRY_PYTHON_CLASS_DECIMAL);

    case FERRY_PYTHON_TAG_FRACTION:
      return decode_from_ints (self, ferry_python_class_import (FERRY_PYTHON_CLASS_FRACTION), 2);

    case FERRY_PYTHON_TAG_UUID:
      return decode_uuid (self);

    case FERRY_PYTHON_TAG_DATE:
    case FERRY_PYTHON_TAG_TIME:
    case FERRY_PYTHON_TAG_DATETIME:
      return decode_datetime (self, tag);

    case FERRY_PYTHON_TAG_TIMEDELTA:
      return decode_timedelta (self);

    case FERRY_PYTHON_TAG_TIMEZONE:
      return decode_timezone (self);

    case FERRY_PYTHON_TAG_ZONEINFO:
      return decode_from_str (self, FERRY_PYTHON_CLASS_ZONEINFO);

    case FERRY_PYTHON_TAG_GLOBAL:
      return decode_global (self);

    case FERRY_PYTHON_TAG_NAMEDTUPLE:
      return decode_namedtuple (self);

    case FERRY_PYTHON_TAG_OBJECT:
      return decode_object (self, FALSE, number);

    case FERRY_PYTHON_TAG_OBJECT_RECURSIVE:
      return decode_object (self, TRUE, number);

    case FERRY_PYTHON_TAG_END:
    case FERRY_PYTHON_N_TAGS:
    default:
      return malformed (self, "%u is no tag of a value", tag);
    }
}

static PyObject *
decode (Decoder *self)
{
  FerryPythonInput *input = &self->input;
  guint8 tag;
  gsize number = NOT_SHARED;
  gsize n_claimed = self->n_claimed;
  gsize n_repeated = self->n_repeated;
  PyObject *object;

  if (G_UNLIKELY (input->at == input->end))
    return cut (self);
  tag = *(const volatile guint8 *) input->at++;
  if (tag >= FERRY_PYTHON_TAG_SMALL_INT && tag < FERRY_PYTHON_SHARED)
    return PyLong_FromLong (tag - FERRY_PYTHON_TAG_SMALL_INT);
  if (tag < FERRY_PYTHON_TAG_FIRST_WITH_VALUES)
    return decode_tagged (self, tag, NOT_SHARED);

  if (tag >= FERRY_PYTHON_SHARED)
    {
      number = shared_begin (self, (gsize) (input->at - 1 - input->start));
      self->n_repeated = 0;
      tag &= FERRY_PYTHON_SHARED - 1;
    }
  if (!enter (self))
    return NULL;
  object = decode_tagged (self, tag, number);
  leave (self);

  /* Some are known before they are complete, the others now. */
  if (object != NULL)
    shared_set (self, number, object);
  if (number != NOT_SHARED)
    {
      self->shared[number].n_values = add_saturated (self->n_repeated, 1 + self->n_claimed - n_claimed);
      self->n_repeated = add_saturated (self->n_repeated, n_repeated);
    }
  return object;
}

/* The values without which most of the fields need not be set up; else NULL. */
static PyObject *
decode_short (FerryPythonInput *input)
{
  guint8 stream[1 + sizeof (gint64)];
  gsize size = ferry_python_input_left (input);

  if (size > sizeof stream || input->next_part != input->message_size)
    return NULL;
  memcpy (stream, input->at, size);
  if (size == 1 && stream[0] >= FERRY_PYTHON_TAG_SMALL_INT && stream[0] < FERRY_PYTHON_SHARED)
    return PyLong_FromLong (stream[0] - FERRY_PYTHON_TAG_SMALL_INT);
  if (size == 1 && stream[0] == FERRY_PYTHON_TAG_NONE)
    return Py_NewRef (Py_None);
  return NULL;
}

PyObject *
ferry_python_decode (FerryBuffer *buffer, gboolean pickle, GError **error)
{
  Decoder self;
  const guint8 *message;
  gsize size;
  PyObject *object;

  message = ferry_buffer_get_data (buffer, &size);
  if (!ferry_python_input_open (&self.input, message, size, error))
    return NULL;
  object = decode_short (&self.input);
  if (object != NULL)
    return object;

  self.buffer = buffer;
  self.base = NULL;
  self.writable = ferry_buffer_is_writable (buffer);
  self.pickle = pickle;
  self.intern = FALSE;
  self.depth = 0;
  self.n_claimed = 0;
  self.n_repeated = 0;
  self.n_hashed_again = 0;
  self.error = NULL;
  self.shared = self.on_stack;
  self.n_shared = 0;
  self.n_shared_allocated = SHARED_ON_STACK;

  object = ferry_python_types_load () ? decode (&self) : NULL;
  if (object != NULL && !ferry_python_input_is_at_end (&self.input))
    {
      malformed (&self, "%" G_GSIZE_FORMAT " bytes follow the value",
                 ferry_python_input_left (&self.input) + self.input.message_size - self.input.next_part);
      Py_CLEAR (object);
    }

  for (gsize i = 0; i < self.n_shared; i++)
    Py_XDECREF (self.shared[i].object);
  if (self.shared != self.on_stack)
    g_free (self.shared);
  Py_XDECREF (self.base);

  if (G_UNLIKELY (object == NULL))
    {
      if (self.error != NULL)
        {
          PyErr_Clear ();
          g_propagate_error (error, self.error);
        }
      else
        {
          ferry_python_take_exception (error, FERRY_ERROR_CODEC, "codec 'python': can't decode the message");
        }
    }
  return object;
}
