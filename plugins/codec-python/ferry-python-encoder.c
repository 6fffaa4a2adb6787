/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ferry-python-encoder.h"

#include "ferry-dlpack.h"
#include "ferry-ndarray.h"
#include "ferry-python-numpy.h"
#include "ferry-python-types.h"
#include "ferry-python-variant.h"

#include <datetime.h>

/* Objects whose copies cost less than finding out whether they were met before. */
#define SHARED_DATA_MIN (64)

/* A power of two. Emptying that many slots takes some nanoseconds. */
#define SLOTS_MIN (64)
#define SLOTS_KEPT_MAX (4096)

/* In bytes: from here on other threads run meanwhile. Letting them costs a microsecond. */
#define UNLOCKED_COPY_MIN (1024 * 1024)

/* Encoders that wait for the next message. More than one is in use when threads give up the GIL within a message, or
 * when encoding an object sends another. */
#define POOL_MAX (8)

#define PICKLE_PROTOCOL (5)

#define MEMO_SHIFT (4) /* objects are aligned to 16 bytes */

static FerryPythonEncoder *pool;
static guint n_pooled;

static gboolean encode (FerryPythonEncoder *self, PyObject *object);

/*
 * The memo
 */

static inline gsize
memo_hash (PyObject *object)
{
  gsize hash = GPOINTER_TO_SIZE (object) >> MEMO_SHIFT;

  return hash ^ hash >> 9 ^ hash >> 20;
}

/* Where the object is, or would be. */
static inline FerryPythonMemoSlot *
memo_find (FerryPythonEncoder *self, PyObject *object)
{
  gsize i = memo_hash (object) & (self->n_slots - 1);

  while (self->slots[i].object != NULL && self->slots[i].object != object)
    i = (i + 1) & (self->n_slots - 1);
  return &self->slots[i];
}

static void G_GNUC_NO_INLINE
memo_grow (FerryPythonEncoder *self)
{
  gsize n_old = self->n_slots;
  g_autofree FerryPythonMemoSlot *old = self->slots;

  self->n_slots *= 4;
  self->slots = g_new0 (FerryPythonMemoSlot, self->n_slots);
  for (gsize i = 0; i < n_old; i++)
    if (old[i].object != NULL)
      *memo_find (self, old[i].object) = old[i];
}

static inline void
memo_add (FerryPythonEncoder *self, FerryPythonMemoSlot *slot, PyObject *object, gsize offset)
{
  slot->object = Py_NewRef (object);
  slot->offset = offset;
  if (G_UNLIKELY (self->n_objects == self->n_objects_allocated))
    {
      self->n_objects_allocated = MAX (SLOTS_MIN, self->n_objects_allocated * 2);
      self->objects = g_renew (PyObject *, self->objects, self->n_objects_allocated);
    }
  self->objects[self->n_objects++] = object;
  if (G_UNLIKELY (self->n_objects * 2 > self->n_slots))
    memo_grow (self);
}

static void
memo_reset (FerryPythonEncoder *self)
{
  gsize n = self->n_objects;

  if (n == 0)
    return;
  if (self->n_slots > SLOTS_KEPT_MAX)
    {
      g_free (self->slots);
      self->n_slots = SLOTS_MIN;
      self->slots = g_new0 (FerryPythonMemoSlot, SLOTS_MIN);
    }
  else if (n * 4 < self->n_slots)
    {
      /* Emptied as a whole, though one after the other: what comes behind in a chain is emptied too. */
      for (gsize i = 0; i < n; i++)
        {
          gsize at = memo_hash (self->objects[i]) & (self->n_slots - 1);

          for (; self->slots[at].object != NULL; at = (at + 1) & (self->n_slots - 1))
            self->slots[at].object = NULL;
        }
    }
  else
    {
      memset (self->slots, 0, self->n_slots * sizeof *self->slots);
    }

  self->n_objects = 0;
  for (gsize i = 0; i < n; i++)
    Py_DECREF (self->objects[i]);
  if (self->n_objects_allocated > SLOTS_KEPT_MAX)
    {
      g_clear_pointer (&self->objects, g_free);
      self->n_objects_allocated = 0;
    }
}

static inline gsize
tell (const FerryPythonEncoder *self)
{
  return (gsize) (self->output.at - self->output.start);
}

static void
write_reference (FerryPythonEncoder *self, gsize offset)
{
  self->output.start[offset] |= FERRY_PYTHON_SHARED;
  ferry_python_output_tag_number (&self->output, FERRY_PYTHON_TAG_REF, offset);
}

/*
 * Whether the object was met before, and then a reference to it is all that is written. Else it is remembered as what
 * comes next. An object that only its container refers to can't be met again.
 */
static inline gboolean
write_known (FerryPythonEncoder *self, PyObject *object)
{
  FerryPythonMemoSlot *slot;

  if (Py_REFCNT (object) == 1)
    return FALSE;

  /* Most messages have nothing in them that is shared but the outermost object, which its sender still has. */
  if (tell (self) == 0)
    {
      self->outermost = object;
      return FALSE;
    }
  if (object == self->outermost)
    {
      write_reference (self, 0);
      return TRUE;
    }
  slot = memo_find (self, object);
  if (slot->object != NULL)
    {
      write_reference (self, slot->offset);
      return TRUE;
    }
  memo_add (self, slot, object, tell (self));
  return FALSE;
}

/*
 * Failing
 */

/* The name that a user knows the class of the object by; free with g_free(). */
static char *
dup_type_name (PyTypeObject *type)
{
  PyObject *module = NULL;
  PyObject *name = PyObject_GetAttr ((PyObject *) type, ferry_python_names.__qualname__);
  PyObject *text = NULL;
  char *result;

  if (name != NULL)
    module = PyObject_GetAttr ((PyObject *) type, ferry_python_names.__module__);
  if (module != NULL && PyUnicode_Check (module) && PyUnicode_CompareWithASCIIString (module, "builtins") != 0)
    text = PyUnicode_FromFormat ("%U.%S", module, name);
  else if (name != NULL)
    text = PyObject_Str (name);
  result = g_strdup (text != NULL && PyUnicode_AsUTF8 (text) != NULL ? PyUnicode_AsUTF8 (text) : type->tp_name);
  Py_XDECREF (module);
  Py_XDECREF (name);
  Py_XDECREF (text);
  PyErr_Clear ();
  return result;
}

static gboolean
check_pickle (FerryPythonEncoder *self, PyObject *object)
{
  g_autofree char *name = NULL;

  if (G_LIKELY (self->pickle))
    return TRUE;
  if (self->error == NULL)
    {
      name = dup_type_name (Py_TYPE (object));
      g_set_error (
          &self->error, FERRY_ERROR, FERRY_ERROR_CODEC,
          "codec 'python': an object of type %s has to be pickled, which lets a sender run code in the receiver; "
          "open the channel with pickle=yes if you trust all who take part",
          name);
    }
  return FALSE;
}

static gboolean
fail (FerryPythonEncoder *self, GError *error)
{
  g_clear_error (&self->error);
  self->error = error;
  return FALSE;
}

static gboolean
fail_changed (FerryPythonEncoder *self, const char *what)
{
  PyErr_Format (PyExc_RuntimeError, "%s changed its size while it was sent", what);
  return FALSE;
}

static gboolean
enter (FerryPythonEncoder *self)
{
  if (G_UNLIKELY (self->depth >= FERRY_PYTHON_NESTING_MAX))
    {
      PyErr_Format (PyExc_RecursionError, "more than %d levels of containers", FERRY_PYTHON_NESTING_MAX);
      return FALSE;
    }
  if (G_UNLIKELY (Py_EnterRecursiveCall (" while sending an object") != 0))
    return FALSE;
  self->depth++;
  return TRUE;
}

static inline void
leave (FerryPythonEncoder *self)
{
  self->depth--;
  Py_LeaveRecursiveCall ();
}

/*
 * Parts
 */

static void
copy (guint8 *to, gconstpointer from, gsize size)
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

static gboolean
dlpack_part_write (const FerryPythonPart *part, guint8 *to, GError **error)
{
  gboolean written;

  if (part->data_size < UNLOCKED_COPY_MIN)
    return ferry_python_tensor_write_data (part->owner, to, part->data_size, error);
  Py_BEGIN_ALLOW_THREADS;
  written = ferry_python_tensor_write_data (part->owner, to, part->data_size, error);
  Py_END_ALLOW_THREADS;
  return written;
}

static void
dlpack_part_clear (FerryPythonPart *part)
{
  g_clear_pointer ((FerryTensor **) &part->owner, ferry_tensor_unref);
}

static const FerryPythonPartClass dlpack_part = { dlpack_part_write, dlpack_part_clear };

static gboolean
object_part_write (const FerryPythonPart *part, guint8 *to, GError **error)
{
  copy (to, part->data, part->data_size);
  return TRUE;
}

static void
object_part_clear (FerryPythonPart *part)
{
  Py_CLEAR (part->owner);
}

/* Immutable objects. */
static const FerryPythonPartClass object_part = { object_part_write, object_part_clear };

static gboolean
view_part_write (const FerryPythonPart *part, guint8 *to, GError **error)
{
  Py_buffer *view = part->owner;

  if (part->data != NULL)
    {
      copy (to, part->data, part->data_size);
    }
  else if (PyBuffer_ToContiguous (to, view, view->len, 'C') < 0)
    {
      ferry_python_take_exception (error, FERRY_ERROR_CODEC, "codec 'python'");
      return FALSE;
    }
  return TRUE;
}

static void
view_part_clear (FerryPythonPart *part)
{
  PyBuffer_Release (part->owner);
  g_clear_pointer (&part->owner, g_free);
}

/* What offers the buffer protocol, which keeps its memory where it is. */
static const FerryPythonPartClass view_part = { view_part_write, view_part_clear };

typedef struct
{
  FerryNdarrayPlan plan;
  PyObject *array;
} ArrayPart;

static gboolean
array_part_write (const FerryPythonPart *part, guint8 *to, GError **error)
{
  const ArrayPart *array = part->owner;

  return ferry_ndarray_write_data (&array->plan, to, error);
}

static void
array_part_clear (FerryPythonPart *part)
{
  ArrayPart *array = part->owner;

  ferry_ndarray_plan_clear (&array->plan);
  Py_DECREF (array->array);
  g_clear_pointer (&part->owner, g_free);
}

static const FerryPythonPartClass array_part = { array_part_write, array_part_clear };

static void
add_object_part (FerryPythonEncoder *self, PyObject *object, gconstpointer data, gsize size, gsize terminator)
{
  ferry_python_output_add_part (&self->output, &object_part, data, size, size + terminator)->owner = Py_NewRef (object);
}

/*
 * Values without others inside
 */

/* An integer of one digit of Python's, which has 30 bits: almost all are. */
static inline gboolean
get_compact_int (PyObject *object, gint32 *number)
{
#if PY_VERSION_HEX >= 0x030c0000
  if (!PyUnstable_Long_IsCompact ((PyLongObject *) object))
    return FALSE;
  *number = (gint32) PyUnstable_Long_CompactValue ((PyLongObject *) object);
  return TRUE;
#else
  Py_ssize_t n_digits = Py_SIZE (object);

  if (n_digits < -1 || n_digits > 1)
    return FALSE;
  *number = n_digits == 0 ? 0 : (gint32) n_digits * (gint32) ((PyLongObject *) object)->ob_digit[0];
  return TRUE;
#endif
}

static inline void
put_compact_int (FerryPythonEncoder *self, gint32 number)
{
  guint8 *to = ferry_python_output_reserve (&self->output, 1 + sizeof number);

  if (number >= 0 && number <= FERRY_PYTHON_SMALL_INT_MAX)
    {
      *to = (guint8) (FERRY_PYTHON_TAG_SMALL_INT + number);
      self->output.at = to + 1;
    }
  else if (number == (gint8) number)
    {
      to[0] = FERRY_PYTHON_TAG_INT8;
      to[1] = (guint8) number;
      self->output.at = to + 2;
    }
  else
    {
      to[0] = FERRY_PYTHON_TAG_INT32;
      memcpy (to + 1, &number, sizeof number);
      self->output.at = to + 1 + sizeof number;
    }
}

static gboolean G_GNUC_NO_INLINE
encode_int (FerryPythonEncoder *self, PyObject *object)
{
  int overflow;
  gint64 number = PyLong_AsLongLongAndOverflow (object, &overflow);
  gsize n_bits;
  gsize n_bytes;
  guint8 *to;

  if (G_LIKELY (overflow == 0))
    {
      ferry_python_output_int (&self->output, number);
      return TRUE;
    }

  n_bits = _PyLong_NumBits (object);
  if (n_bits == (gsize) -1 && PyErr_Occurred ())
    return FALSE;
  n_bytes = n_bits / 8 + 1; /* with the sign */
  ferry_python_output_tag_number (&self->output, FERRY_PYTHON_TAG_INT_BIG, n_bytes);
  to = ferry_python_output_reserve (&self->output, n_bytes);
  self->output.at += n_bytes;
#if PY_VERSION_HEX >= 0x030d0000
  return _PyLong_AsByteArray ((PyLongObject *) object, to, n_bytes, TRUE, TRUE, TRUE) == 0;
#else
  return _PyLong_AsByteArray ((PyLongObject *) object, to, n_bytes, TRUE, TRUE) == 0;
#endif
}

static inline void
encode_float (FerryPythonEncoder *self, double number)
{
  guint8 *to = ferry_python_output_reserve (&self->output, 1 + sizeof number);

  *to++ = FERRY_PYTHON_TAG_FLOAT;
  memcpy (to, &number, sizeof number);
  self->output.at = to + sizeof number;
}

/* Names, most of the time. */
static inline gboolean
put_short_str (FerryPythonEncoder *self, PyObject *object)
{
  gsize length;
  guint8 *to;

  if (!PyUnicode_IS_COMPACT_ASCII (object))
    return FALSE;
  length = (gsize) PyUnicode_GET_LENGTH (object);
  if (length >= SHARED_DATA_MIN)
    return FALSE;
  to = ferry_python_output_reserve (&self->output, 2 + SHARED_DATA_MIN);
  to[0] = FERRY_PYTHON_TAG_STR;
  to[1] = (guint8) length;
  memcpy (to + 2, PyUnicode_DATA (object), length);
  self->output.at = to + 2 + length;
  return TRUE;
}

static gboolean G_GNUC_NO_INLINE
encode_str (FerryPythonEncoder *self, PyObject *object)
{
  gsize length;
  gsize size;
  guint8 tag;

  if (PyUnicode_READY (object) < 0)
    return FALSE;
  length = (gsize) PyUnicode_GET_LENGTH (object);
  size = length * PyUnicode_KIND (object);
  if (G_LIKELY (PyUnicode_IS_ASCII (object)))
    tag = FERRY_PYTHON_TAG_STR;
  else if (PyUnicode_KIND (object) == PyUnicode_1BYTE_KIND)
    tag = FERRY_PYTHON_TAG_STR1;
  else if (PyUnicode_KIND (object) == PyUnicode_2BYTE_KIND)
    tag = FERRY_PYTHON_TAG_STR2;
  else
    tag = FERRY_PYTHON_TAG_STR4;

  if (size >= SHARED_DATA_MIN && self->depth > 0 && write_known (self, object))
    return TRUE;
  if (G_LIKELY (size < FERRY_PYTHON_PART_MIN))
    {
      ferry_python_output_tag_bytes (&self->output, tag, length, PyUnicode_DATA (object), size);
    }
  else
    {
      tag = (guint8) (tag - FERRY_PYTHON_TAG_STR + FERRY_PYTHON_TAG_STR_PART);
      ferry_python_output_tag_number (&self->output, tag, length);
      add_object_part (self, object, PyUnicode_DATA (object), size, 0);
    }
  return TRUE;
}

static gboolean
encode_bytes (FerryPythonEncoder *self, PyObject *object)
{
  gsize size = (gsize) PyBytes_GET_SIZE (object);

  if (size >= SHARED_DATA_MIN && self->depth > 0 && write_known (self, object))
    return TRUE;
  if (G_LIKELY (size < FERRY_PYTHON_PART_MIN))
    {
      ferry_python_output_tag_bytes (&self->output, FERRY_PYTHON_TAG_BYTES, size, PyBytes_AS_STRING (object), size);
      return TRUE;
    }

  /* Before bytes that are the whole message there is room for the head of a bytes object, and behind all there is the
   * zero that Python has there: a receiver may make one where they lie. */
  if (tell (self) == 0)
    self->output.gap = 1;
  ferry_python_output_tag_number (&self->output, FERRY_PYTHON_TAG_BYTES_PART, size);
  add_object_part (self, object, PyBytes_AS_STRING (object), size, 1);
  return TRUE;
}

static gboolean
add_view_part (FerryPythonEncoder *self, Py_buffer *view)
{
  gconstpointer data = PyBuffer_IsContiguous (view, 'C') ? view->buf : NULL;

  ferry_python_output_add_part (&self->output, &view_part, data, (gsize) view->len, (gsize) view->len)->owner
      = g_memdup2 (view, sizeof *view);
  return TRUE;
}

static gboolean
encode_bytearray (FerryPythonEncoder *self, PyObject *object)
{
  gsize size = (gsize) PyByteArray_GET_SIZE (object);
  Py_buffer view;

  if (write_known (self, object))
    return TRUE;
  if (size < FERRY_PYTHON_PART_MIN)
    {
      ferry_python_output_tag_bytes (&self->output, FERRY_PYTHON_TAG_BYTEARRAY, size, PyByteArray_AS_STRING (object),
                                     size);
      return TRUE;
    }
  if (PyObject_GetBuffer (object, &view, PyBUF_SIMPLE) < 0)
    return FALSE;
  ferry_python_output_tag_number (&self->output, FERRY_PYTHON_TAG_BYTEARRAY_PART, size);

  /* Py_buffer of simple kind points into itself nowhere, so it can be moved. */
  return add_view_part (self, &view);
}

static gboolean
encode_memoryview (FerryPythonEncoder *self, PyObject *object)
{
  Py_buffer *view;
  const char *format;
  FerryPythonPart *part;

  if (write_known (self, object))
    return TRUE;

  view = g_new (Py_buffer, 1);
  if (PyObject_GetBuffer (object, view, PyBUF_FULL_RO) < 0)
    {
      g_free (view);
      return FALSE;
    }
  format = view->format != NULL ? view->format : "B";
  ferry_python_output_tag (&self->output, FERRY_PYTHON_TAG_MEMORYVIEW);
  ferry_python_output_tag (&self->output, view->readonly != 0);
  ferry_python_output_number (&self->output, (guint64) view->itemsize);
  ferry_python_output_number (&self->output, strlen (format));
  ferry_python_output_bytes (&self->output, format, strlen (format));
  ferry_python_output_number (&self->output, (guint64) view->ndim);
  for (int i = 0; i < view->ndim; i++)
    ferry_python_output_number (&self->output, (guint64) view->shape[i]);
  part = ferry_python_output_add_part (&self->output, &view_part, PyBuffer_IsContiguous (view, 'C') ? view->buf : NULL,
                                       (gsize) view->len, (gsize) view->len);
  part->owner = view;
  return TRUE;
}

/* Pickles get their large data as these. They may be released meanwhile, so the export is our own. */
static gboolean
encode_pickle_buffer (FerryPythonEncoder *self, PyObject *object)
{
  Py_buffer *view;
  FerryPythonPart *part;

  if (write_known (self, object))
    return TRUE;

  view = g_new (Py_buffer, 1);
  if (PyObject_GetBuffer (object, view, PyBUF_FULL_RO) < 0)
    {
      g_free (view);
      return FALSE;
    }
  if (!PyBuffer_IsContiguous (view, 'A'))
    {
      PyBuffer_Release (view);
      g_free (view);
      PyErr_SetString (PyExc_BufferError, "can't send a PickleBuffer that is not contiguous");
      return FALSE;
    }

  /* As it lies in memory, like PickleBuffer.raw(). */
  ferry_python_output_tag (&self->output, FERRY_PYTHON_TAG_BUFFER);
  ferry_python_output_tag (&self->output, view->readonly != 0);
  ferry_python_output_number (&self->output, (guint64) view->len);
  part = ferry_python_output_add_part (&self->output, &view_part, view->buf, (gsize) view->len, (gsize) view->len);
  part->owner = view;
  return TRUE;
}

/*
 * Containers
 */

static gboolean
encode_list (FerryPythonEncoder *self, PyObject *object)
{
  Py_ssize_t n = PyList_GET_SIZE (object);
  gboolean encoded = TRUE;

  if (write_known (self, object))
    return TRUE;
  if (!enter (self))
    return FALSE;
  ferry_python_output_tag_number (&self->output, FERRY_PYTHON_TAG_LIST, (guint64) n);
  Py_INCREF (object);
  for (Py_ssize_t i = 0; i < n && encoded; i++)
    encoded = i < PyList_GET_SIZE (object) ? encode (self, PyList_GET_ITEM (object, i)) : fail_changed (self, "a list");
  if (encoded && n != PyList_GET_SIZE (object))
    encoded = fail_changed (self, "a list");
  Py_DECREF (object);
  leave (self);
  return encoded;
}

static gboolean
encode_items (FerryPythonEncoder *self, PyObject *tuple)
{
  Py_ssize_t n = PyTuple_GET_SIZE (tuple);

  ferry_python_output_number (&self->output, (guint64) n);
  for (Py_ssize_t i = 0; i < n; i++)
    if (!encode (self, PyTuple_GET_ITEM (tuple, i)))
      return FALSE;
  return TRUE;
}

/* What can't exist before its contents is remembered behind them. Met again meanwhile, it was written once more within
 * itself, and that one is taken. */
static gboolean
remember_complete (FerryPythonEncoder *self, PyObject *object, gsize offset, guint8 recursive_tag)
{
  FerryPythonMemoSlot *slot;

  slot = memo_find (self, object);
  if (G_LIKELY (slot->object == NULL))
    {
      memo_add (self, slot, object, offset);
    }
  else
    {
      self->output.start[offset] = recursive_tag;
      write_reference (self, slot->offset);
    }
  return TRUE;
}

static gboolean
encode_tuple (FerryPythonEncoder *self, PyObject *object)
{
  gsize offset = tell (self);
  gboolean is_shared = Py_REFCNT (object) > 1 && PyTuple_GET_SIZE (object) > 0;
  gboolean encoded;

  if (is_shared)
    {
      FerryPythonMemoSlot *slot = memo_find (self, object);

      if (slot->object != NULL)
        {
          write_reference (self, slot->offset);
          return TRUE;
        }
    }
  if (!enter (self))
    return FALSE;
  ferry_python_output_tag (&self->output, FERRY_PYTHON_TAG_TUPLE);
  Py_INCREF (object);
  encoded = encode_items (self, object)
            && (!is_shared || remember_complete (self, object, offset, FERRY_PYTHON_TAG_TUPLE_RECURSIVE));
  Py_DECREF (object);
  leave (self);
  return encoded;
}

static gboolean
encode_dict_items (FerryPythonEncoder *self, PyObject *object)
{
  Py_ssize_t n = PyDict_GET_SIZE (object);
  Py_ssize_t n_encoded = 0;
  Py_ssize_t at = 0;
  gboolean encoded = TRUE;
  PyObject *key;
  PyObject *value;

  if (!enter (self))
    return FALSE;
  ferry_python_output_tag_number (&self->output, FERRY_PYTHON_TAG_DICT, (guint64) n);
  Py_INCREF (object);
  for (; encoded && PyDict_Next (object, &at, &key, &value); n_encoded++)
    {
      if (G_LIKELY (PyUnicode_CheckExact (key)))
        {
          encoded = (put_short_str (self, key) || encode_str (self, key)) && encode (self, value);
        }
      else
        {
          /* Encoding any other key may run code that throws the value away. */
          gboolean is_simple = PyLong_CheckExact (key) || PyBytes_CheckExact (key);

          if (!is_simple)
            Py_INCREF (value);
          encoded = encode (self, key) && encode (self, value);
          if (!is_simple)
            Py_DECREF (value);
        }
    }
  if (encoded && (n_encoded != n || n != PyDict_GET_SIZE (object)))
    encoded = fail_changed (self, "a dict");
  Py_DECREF (object);
  leave (self);
  return encoded;
}

static gboolean
encode_dict (FerryPythonEncoder *self, PyObject *object)
{
  return write_known (self, object) || encode_dict_items (self, object);
}

static gboolean
encode_set (FerryPythonEncoder *self, PyObject *object, gboolean frozen)
{
  gsize offset = tell (self);
  Py_ssize_t n = PySet_GET_SIZE (object);
  gboolean is_shared = Py_REFCNT (object) > 1;
  Py_ssize_t n_encoded = 0;
  Py_ssize_t at = 0;
  PyObject *item;
  Py_hash_t hash;
  gboolean encoded = TRUE;

  if (!frozen && write_known (self, object))
    return TRUE;
  if (frozen && is_shared)
    {
      FerryPythonMemoSlot *slot = memo_find (self, object);

      if (slot->object != NULL)
        {
          write_reference (self, slot->offset);
          return TRUE;
        }
    }
  if (!enter (self))
    return FALSE;
  ferry_python_output_tag_number (&self->output, frozen ? FERRY_PYTHON_TAG_FROZENSET : FERRY_PYTHON_TAG_SET,
                                  (guint64) n);
  Py_INCREF (object);
  for (; encoded && _PySet_NextEntry (object, &at, &item, &hash); n_encoded++)
    encoded = encode (self, item);
  if (encoded && (n_encoded != n || n != PySet_GET_SIZE (object)))
    encoded = fail_changed (self, "a set");
  if (encoded && frozen && is_shared)
    encoded = remember_complete (self, object, offset, FERRY_PYTHON_TAG_FROZENSET_RECURSIVE);
  Py_DECREF (object);
  leave (self);
  return encoded;
}

/* A value that only we refer to; takes the reference. NULL: getting it has failed. */
static gboolean
encode_own (FerryPythonEncoder *self, PyObject *value)
{
  gboolean encoded;

  if (value == NULL)
    return FALSE;
  encoded = encode (self, value);
  Py_DECREF (value);
  return encoded;
}

static gboolean
encode_attribute (FerryPythonEncoder *self, PyObject *object, PyObject *name)
{
  return encode_own (self, PyObject_GetAttr (object, name));
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

static void
put_date (FerryPythonEncoder *self, guint8 tag, PyObject *object)
{
  guint16 year = (guint16) PyDateTime_GET_YEAR (object);
  guint8 *to = ferry_python_output_reserve (&self->output, 5);

  *to++ = tag;
  memcpy (to, &year, sizeof year);
  to += sizeof year;
  *to++ = (guint8) PyDateTime_GET_MONTH (object);
  *to++ = (guint8) PyDateTime_GET_DAY (object);
  self->output.at = to;
}

static void
put_time (FerryPythonEncoder *self, int hour, int minute, int second, int fold, int microsecond)
{
  guint32 wire_microsecond = (guint32) microsecond;
  guint8 *to = ferry_python_output_reserve (&self->output, 8);

  *to++ = (guint8) hour;
  *to++ = (guint8) minute;
  *to++ = (guint8) second;
  *to++ = (guint8) fold;
  memcpy (to, &wire_microsecond, sizeof wire_microsecond);
  self->output.at = to + sizeof wire_microsecond;
}

static gboolean
encode_datetime (FerryPythonEncoder *self, PyObject *object, FerryPythonKind kind)
{
  if (!load_datetime ())
    return FALSE;
  switch (kind)
    {
    case FERRY_PYTHON_KIND_DATE:
      put_date (self, FERRY_PYTHON_TAG_DATE, object);
      return TRUE;

    case FERRY_PYTHON_KIND_TIME:
      ferry_python_output_tag (&self->output, FERRY_PYTHON_TAG_TIME);
      put_time (self, PyDateTime_TIME_GET_HOUR (object), PyDateTime_TIME_GET_MINUTE (object),
                PyDateTime_TIME_GET_SECOND (object), PyDateTime_TIME_GET_FOLD (object),
                PyDateTime_TIME_GET_MICROSECOND (object));
      return encode (self, PyDateTime_TIME_GET_TZINFO (object));

    case FERRY_PYTHON_KIND_DATETIME:
      put_date (self, FERRY_PYTHON_TAG_DATETIME, object);
      put_time (self, PyDateTime_DATE_GET_HOUR (object), PyDateTime_DATE_GET_MINUTE (object),
                PyDateTime_DATE_GET_SECOND (object), PyDateTime_DATE_GET_FOLD (object),
                PyDateTime_DATE_GET_MICROSECOND (object));
      return encode (self, PyDateTime_DATE_GET_TZINFO (object));

    case FERRY_PYTHON_KIND_TIMEDELTA:
      {
        gint32 numbers[] = { PyDateTime_DELTA_GET_DAYS (object), PyDateTime_DELTA_GET_SECONDS (object),
                             PyDateTime_DELTA_GET_MICROSECONDS (object) };

        ferry_python_output_tag (&self->output, FERRY_PYTHON_TAG_TIMEDELTA);
        ferry_python_output_bytes (&self->output, numbers, sizeof numbers);
        return TRUE;
      }

    default:
      {
        /* The arguments of its constructor: the offset, and the name if it has one. */
        PyObject *arguments;
        gboolean encoded;

        if (write_known (self, object))
          return TRUE;
        arguments = PyObject_CallMethod (object, "__getinitargs__", NULL);
        if (arguments == NULL || !PyTuple_Check (arguments) || PyTuple_GET_SIZE (arguments) < 1)
          {
            Py_XDECREF (arguments);
            return FALSE;
          }
        ferry_python_output_tag (&self->output, FERRY_PYTHON_TAG_TIMEZONE);
        encoded = encode (self, PyTuple_GET_ITEM (arguments, 0))
                  && encode (self, PyTuple_GET_SIZE (arguments) > 1 ? PyTuple_GET_ITEM (arguments, 1) : Py_None);
        Py_DECREF (arguments);
        return encoded;
      }
    }
}

static gboolean
encode_uuid (FerryPythonEncoder *self, PyObject *object)
{
  enum
  {
    UUID_SIZE = 16,
  };
  PyObject *number = PyObject_GetAttr (object, ferry_python_names.name_int);
  PyObject *is_safe = NULL;
  PyObject *safety = NULL;
  guint8 *to = ferry_python_output_reserve (&self->output, 2 + UUID_SIZE);
  gboolean encoded = FALSE;

  if (number != NULL && PyLong_CheckExact (number))
    is_safe = PyObject_GetAttr (object, ferry_python_names.is_safe);
  if (is_safe != NULL)
    safety = PyObject_GetAttr (is_safe, ferry_python_names.value);
  if (safety != NULL)
    {
      *to++ = FERRY_PYTHON_TAG_UUID;
#if PY_VERSION_HEX >= 0x030d0000
      encoded = _PyLong_AsByteArray ((PyLongObject *) number, to, UUID_SIZE, FALSE, FALSE, TRUE) == 0;
#else
      encoded = _PyLong_AsByteArray ((PyLongObject *) number, to, UUID_SIZE, FALSE, FALSE) == 0;
#endif
      to[UUID_SIZE] = safety == Py_None ? 2 : PyObject_IsTrue (safety) ? 1 : 0;
      if (encoded)
        self->output.at = to + UUID_SIZE + 1;
    }
  Py_XDECREF (number);
  Py_XDECREF (is_safe);
  Py_XDECREF (safety);
  return encoded;
}

/*
 * Arrays
 */

static gboolean encode_reduced (FerryPythonEncoder *self, PyObject *object);
static gboolean encode_object (FerryPythonEncoder *self, PyObject *object, FerryPythonKind kind, gboolean is_shared);

static gboolean
encode_plain_array (FerryPythonEncoder *self, PyObject *object)
{
  ArrayPart *array = g_new (ArrayPart, 1);
  FerryPythonPart *part;
  GError *error = NULL;
  guint8 *to;

  if (!ferry_ndarray_plan (object, &array->plan, &error))
    {
      g_free (array);
      return fail (self, error);
    }
  array->array = Py_NewRef (object);

  to = ferry_python_output_reserve (&self->output, 1 + 2 * FERRY_PYTHON_NUMBER_MAX + array->plan.header_size);
  *to++ = FERRY_PYTHON_TAG_NDARRAY;
  to = ferry_python_put_number (to, array->plan.header_size);
  ferry_ndarray_write_header (&array->plan, to);
  to += array->plan.header_size;
  self->output.at = ferry_python_put_number (to, array->plan.data_size);
  part = ferry_python_output_add_part (&self->output, &array_part, NULL, array->plan.data_size, array->plan.data_size);
  part->owner = array;
  return TRUE;
}

static gboolean
encode_object_array (FerryPythonEncoder *self, PyObject *object)
{
  gboolean fortran;
  const gssize *shape;
  gsize n_dimensions;
  PyObject *elements;
  gboolean encoded;

  ferry_python_numpy_get_shape (object, &fortran, &shape, &n_dimensions);
  ferry_python_output_tag (&self->output, FERRY_PYTHON_TAG_NDARRAY_OBJECTS);
  ferry_python_output_tag (&self->output, fortran != 0);
  ferry_python_output_number (&self->output, n_dimensions);
  for (gsize i = 0; i < n_dimensions; i++)
    ferry_python_output_number (&self->output, (guint64) shape[i]);

  elements = ferry_python_numpy_flatten (object);
  if (elements == NULL)
    return FALSE;
  encoded = TRUE;
  for (Py_ssize_t i = 0; encoded && i < PyList_GET_SIZE (elements); i++)
    encoded = encode (self, PyList_GET_ITEM (elements, i));
  Py_DECREF (elements);
  return encoded;
}

static gboolean write_known_complete (FerryPythonEncoder *self, PyObject *object);
static gboolean encode_reduce_tuple (FerryPythonEncoder *self, PyObject *object, PyObject *reduced);

/* What the owner of the codec has for an array instead of its elements, if it has something: *done then. */
static gboolean
encode_array_reference (FerryPythonEncoder *self, PyObject *object, gboolean *done)
{
  PyObject *reduced;
  gboolean encoded = TRUE;

  *done = TRUE;
  if (write_known_complete (self, object))
    return TRUE;
  reduced = PyObject_CallOneArg (self->array_reducer, object);
  if (reduced == NULL)
    return FALSE;
  if (reduced == Py_None)
    *done = FALSE;
  else if (PyTuple_Check (reduced))
    encoded = encode_reduce_tuple (self, object, reduced);
  else
    {
      PyErr_Format (PyExc_TypeError, "the reducer of arrays gave a %s instead of a tuple or None",
                    Py_TYPE (reduced)->tp_name);
      encoded = FALSE;
    }
  Py_DECREF (reduced);
  return encoded;
}

static gboolean
encode_array (FerryPythonEncoder *self, PyObject *object)
{
  if (!ferry_ndarray_load (FALSE, &self->error))
    return FALSE;
  if (ferry_ndarray_is_plain (object))
    {
      gboolean done;

      if (self->array_reducer != NULL && self->pickle)
        {
          if (!encode_array_reference (self, object, &done))
            return FALSE;
          if (done)
            return TRUE;
        }
      return write_known (self, object) || encode_plain_array (self, object);
    }
  if (ferry_python_numpy_is_objects (object))
    return write_known (self, object) || encode_object_array (self, object);
  return encode_object (self, object, FERRY_PYTHON_KIND_REDUCE, TRUE);
}

static gboolean
encode_dtype (FerryPythonEncoder *self, PyObject *object)
{
  PyObject *str = ferry_python_numpy_dtype_to_str (object);
  PyObject *empty;
  FerryNdarrayPlan plan;
  GError *error = NULL;

  if (str != NULL)
    {
      gboolean encoded;

      ferry_python_output_tag (&self->output, FERRY_PYTHON_TAG_DTYPE);
      encoded = encode_str (self, str);
      Py_DECREF (str);
      return encoded;
    }
  if (PyErr_Occurred () || !ferry_ndarray_load (FALSE, &self->error))
    return FALSE;

  /* An array without elements has it in its header. Arrays of subarrays take the dtype apart. */
  empty = ferry_python_numpy_empty (object);
  if (empty == NULL)
    return FALSE;
  str = PyObject_GetAttr (empty, ferry_python_names.dtype);
  if (str != object || !ferry_ndarray_is_plain (empty))
    {
      Py_XDECREF (str);
      Py_DECREF (empty);
      return encode_reduced (self, object);
    }
  Py_DECREF (str);
  if (!ferry_ndarray_plan (empty, &plan, &error))
    {
      Py_DECREF (empty);
      return fail (self, error);
    }
  ferry_python_output_tag_number (&self->output, FERRY_PYTHON_TAG_DTYPE_ARRAY, plan.header_size);
  ferry_python_output_reserve (&self->output, plan.header_size);
  ferry_ndarray_write_header (&plan, self->output.at);
  self->output.at += plan.header_size;
  ferry_ndarray_plan_clear (&plan);
  Py_DECREF (empty);
  return TRUE;
}

static gboolean
encode_tensor (FerryPythonEncoder *self, PyObject *object)
{
  gboolean requires_grad;
  PyObject *array;
  gboolean encoded;

  array = ferry_python_tensor_to_array (object, &requires_grad);
  if (array == NULL)
    return encode_object (self, object, FERRY_PYTHON_KIND_REDUCE, TRUE);
  if (write_known (self, object))
    {
      Py_DECREF (array);
      return TRUE;
    }
  ferry_python_output_tag (&self->output, FERRY_PYTHON_TAG_TENSOR);
  ferry_python_output_tag (&self->output, requires_grad != 0);
  encoded = encode_plain_array (self, array);
  Py_DECREF (array);
  return encoded;
}

/*
 * Objects of classes, as a pickle of protocol 5 has them
 */

static gboolean
encode_global (FerryPythonEncoder *self, PyObject *object, PyObject *name)
{
  PyObject *module;
  PyObject *qualname;
  gsize offset = tell (self);
  FerryPythonMemoSlot *slot = memo_find (self, object);
  gboolean encoded;

  if (slot->object != NULL)
    {
      write_reference (self, slot->offset);
      return TRUE;
    }
  if (!check_pickle (self, object) || !ferry_python_global_get_name (object, name, &module, &qualname))
    return FALSE;
  ferry_python_output_tag (&self->output, FERRY_PYTHON_TAG_GLOBAL);
  encoded = encode_str (self, module) && encode_str (self, qualname);
  Py_DECREF (module);
  Py_DECREF (qualname);

  /* Finding its module may have run anything. */
  slot = memo_find (self, object);
  if (encoded && slot->object == NULL)
    memo_add (self, slot, object, offset);
  return encoded;
}

/* What an object that was reduced before is: TRUE, and a reference to it is written. */
static gboolean
write_known_complete (FerryPythonEncoder *self, PyObject *object)
{
  FerryPythonMemoSlot *slot = memo_find (self, object);

  if (slot->object == NULL)
    return FALSE;
  write_reference (self, slot->offset);
  return TRUE;
}

static gboolean
encode_plain (FerryPythonEncoder *self, PyObject *object, gboolean is_shared)
{
  gsize offset = tell (self);
  guint8 *to;
  PyObject *state;
  gboolean encoded;

  state = PyObject_GenericGetDict (object, NULL);
  if (state == NULL)
    return FALSE;
  to = ferry_python_output_reserve (&self->output, 2);
  to[0] = FERRY_PYTHON_TAG_OBJECT;
  to[1] = FERRY_PYTHON_OBJECT_NEW | FERRY_PYTHON_OBJECT_STATE;
  self->output.at += 2;
  encoded = encode_global (self, (PyObject *) Py_TYPE (object), NULL);
  if (encoded)
    {
      to = ferry_python_output_reserve (&self->output, 2);
      to[0] = FERRY_PYTHON_TAG_TUPLE;
      to[1] = 0;
      self->output.at += 2;
      if (is_shared)
        memo_add (self, memo_find (self, object), object, offset);

      /* The receiver copies the dict into that of the new object, so nothing else can be the same as it. */
      encoded = encode_dict_items (self, state);
    }
  Py_DECREF (state);
  return encoded;
}

static gboolean
encode_namedtuple (FerryPythonEncoder *self, PyObject *object, gboolean is_shared)
{
  gsize offset = tell (self);
  gboolean encoded;

  ferry_python_output_tag (&self->output, FERRY_PYTHON_TAG_NAMEDTUPLE);
  encoded = encode_global (self, (PyObject *) Py_TYPE (object), NULL) && encode_items (self, object);
  if (encoded && is_shared)
    encoded = remember_complete (self, object, offset, FERRY_PYTHON_TAG_NAMEDTUPLE_RECURSIVE);
  return encoded;
}

/* The result of __reduce_ex__() and the like; borrowed. */
static PyObject *
reduce_item (PyObject *reduced, Py_ssize_t i)
{
  PyObject *item = i < PyTuple_GET_SIZE (reduced) ? PyTuple_GET_ITEM (reduced, i) : Py_None;

  return item == Py_None ? NULL : item;
}

static gboolean
has_name (PyObject *function, PyObject *name)
{
  PyObject *found;
  gboolean is_it;

  if (!PyFunction_Check (function))
    return FALSE;
  found = PyObject_GetAttr (function, ferry_python_names.__name__);
  is_it = found != NULL && PyUnicode_Check (found) && PyUnicode_Compare (found, name) == 0;
  Py_XDECREF (found);
  PyErr_Clear ();
  return is_it;
}

static gboolean
encode_iterator (FerryPythonEncoder *self, PyObject *iterator, gboolean pairs)
{
  PyObject *item;

  if (!PyIter_Check (iterator))
    {
      PyErr_Format (PyExc_TypeError, "__reduce__() gave a %s as iterator", Py_TYPE (iterator)->tp_name);
      return FALSE;
    }
  while ((item = PyIter_Next (iterator)) != NULL)
    {
      gboolean encoded;

      if (!pairs)
        {
          encoded = encode (self, item);
        }
      else if (!PyTuple_Check (item) || PyTuple_GET_SIZE (item) != 2)
        {
          PyErr_SetString (PyExc_TypeError,
                           "__reduce__() gave an iterator of items that has something else than pairs");
          encoded = FALSE;
        }
      else
        {
          encoded = encode (self, PyTuple_GET_ITEM (item, 0)) && encode (self, PyTuple_GET_ITEM (item, 1));
        }
      Py_DECREF (item);
      if (!encoded)
        return FALSE;
    }
  if (PyErr_Occurred ())
    return FALSE;
  ferry_python_output_tag (&self->output, FERRY_PYTHON_TAG_END);
  return TRUE;
}

static gboolean
encode_reduce_tuple (FerryPythonEncoder *self, PyObject *object, PyObject *reduced)
{
  Py_ssize_t n = PyTuple_GET_SIZE (reduced);
  gsize offset = tell (self);
  PyObject *callable = reduce_item (reduced, 0);
  PyObject *arguments = reduce_item (reduced, 1);
  PyObject *state = reduce_item (reduced, 2);
  PyObject *list_items = reduce_item (reduced, 3);
  PyObject *dict_items = reduce_item (reduced, 4);
  PyObject *state_setter = reduce_item (reduced, 5);
  PyObject *keywords = NULL;
  PyObject *own_arguments = NULL;
  guint8 flags = 0;
  gboolean encoded;

  if (n < 2 || n > 6 || callable == NULL || !PyCallable_Check (callable) || arguments == NULL
      || !PyTuple_Check (arguments))
    {
      PyErr_Format (PyExc_TypeError, "__reduce__() of %s gave a tuple that is not (callable, tuple, ...)",
                    Py_TYPE (object)->tp_name);
      return FALSE;
    }

  if (has_name (callable, ferry_python_names.__newobj__) && PyTuple_GET_SIZE (arguments) >= 1)
    {
      callable = PyTuple_GET_ITEM (arguments, 0);
      arguments = own_arguments = PyTuple_GetSlice (arguments, 1, PyTuple_GET_SIZE (arguments));
      flags |= FERRY_PYTHON_OBJECT_NEW;
    }
  else if (has_name (callable, ferry_python_names.__newobj_ex__) && PyTuple_GET_SIZE (arguments) == 3)
    {
      callable = PyTuple_GET_ITEM (arguments, 0);
      keywords = PyTuple_GET_ITEM (arguments, 2);
      arguments = PyTuple_GET_ITEM (arguments, 1);
      flags |= FERRY_PYTHON_OBJECT_NEW | FERRY_PYTHON_OBJECT_KEYWORDS;
    }
  if (arguments == NULL)
    return FALSE;
  if ((flags & FERRY_PYTHON_OBJECT_NEW) != 0
      && (!PyType_Check (callable) || !PyTuple_Check (arguments) || (keywords != NULL && !PyDict_Check (keywords))))
    {
      PyErr_Format (PyExc_TypeError, "__reduce__() of %s gave arguments of copyreg.__newobj__() that are wrong",
                    Py_TYPE (object)->tp_name);
      Py_XDECREF (own_arguments);
      return FALSE;
    }

  if (list_items != NULL)
    flags |= FERRY_PYTHON_OBJECT_LIST_ITEMS;
  if (dict_items != NULL)
    flags |= FERRY_PYTHON_OBJECT_DICT_ITEMS;
  if (state != NULL)
    flags |= FERRY_PYTHON_OBJECT_STATE;
  if (state != NULL && state_setter != NULL)
    flags |= FERRY_PYTHON_OBJECT_SETTER;

  ferry_python_output_tag (&self->output, FERRY_PYTHON_TAG_OBJECT);
  ferry_python_output_tag (&self->output, flags);
  encoded = encode (self, callable) && encode (self, arguments) && (keywords == NULL || encode (self, keywords));
  Py_XDECREF (own_arguments);
  return encoded && remember_complete (self, object, offset, FERRY_PYTHON_TAG_OBJECT_RECURSIVE)
         && (list_items == NULL || encode_iterator (self, list_items, FALSE))
         && (dict_items == NULL || encode_iterator (self, dict_items, TRUE))
         && ((flags & FERRY_PYTHON_OBJECT_SETTER) == 0 || encode (self, state_setter))
         && (state == NULL || encode (self, state));
}

/* What the object is made of again by the receiver; a new reference. *global: it is to be found by its name. */
static PyObject *
reduce (PyObject *object, gboolean *global)
{
  PyObject *reducer = ferry_python_type_find_reducer (Py_TYPE (object));
  PyObject *method;
  PyObject *reduced;

  *global = FALSE;
  if (reducer != NULL)
    {
      Py_INCREF (reducer);
      reduced = PyObject_CallOneArg (reducer, object);
      Py_DECREF (reducer);
      return reduced;
    }
  if (PyErr_Occurred ())
    return NULL;
  if (PyType_Check (object))
    {
      *global = TRUE;
      return NULL;
    }

  if (_PyObject_LookupAttr (object, ferry_python_names.__reduce_ex__, &method) < 0)
    return NULL;
  if (method != NULL)
    {
      PyObject *protocol = PyLong_FromLong (PICKLE_PROTOCOL);

      reduced = protocol != NULL ? PyObject_CallOneArg (method, protocol) : NULL;
      Py_XDECREF (protocol);
      Py_DECREF (method);
      return reduced;
    }
  return PyObject_CallMethodNoArgs (object, ferry_python_names.__reduce__);
}

static gboolean
encode_reduced (FerryPythonEncoder *self, PyObject *object)
{
  PyObject *reduced;
  gboolean global;
  gboolean encoded = FALSE;

  if (!check_pickle (self, object))
    return FALSE;

  /* The code that runs may throw away what refers to the object. */
  Py_INCREF (object);
  reduced = reduce (object, &global);
  if (global || (reduced != NULL && PyUnicode_Check (reduced)))
    encoded = encode_global (self, object, reduced);
  else if (reduced != NULL && PyTuple_Check (reduced))
    encoded = encode_reduce_tuple (self, object, reduced);
  else if (reduced != NULL)
    PyErr_Format (PyExc_TypeError, "__reduce__() of %s gave a %s", Py_TYPE (object)->tp_name,
                  Py_TYPE (reduced)->tp_name);
  Py_XDECREF (reduced);
  Py_DECREF (object);
  return encoded;
}

/* An object that code of its own or somebody else's class describes; the caller holds a reference. */
static gboolean
encode_object (FerryPythonEncoder *self, PyObject *object, FerryPythonKind kind, gboolean is_shared)
{
  PyObject *reducer;

  if (!check_pickle (self, object))
    return FALSE;
  if (is_shared && write_known_complete (self, object))
    return TRUE;
  if (kind == FERRY_PYTHON_KIND_REDUCE)
    return encode_reduced (self, object);

  reducer = ferry_python_type_find_reducer (Py_TYPE (object));
  if (PyErr_Occurred ())
    return FALSE;
  if (reducer != NULL)
    return encode_reduced (self, object);
  return kind == FERRY_PYTHON_KIND_PLAIN ? encode_plain (self, object, is_shared)
                                         : encode_namedtuple (self, object, is_shared);
}

/* Classes and functions. */
static gboolean
encode_by_name (FerryPythonEncoder *self, PyObject *object)
{
  PyObject *singleton = object == (PyObject *) Py_TYPE (Py_None)             ? Py_None
                        : object == (PyObject *) Py_TYPE (Py_Ellipsis)       ? Py_Ellipsis
                        : object == (PyObject *) Py_TYPE (Py_NotImplemented) ? Py_NotImplemented
                                                                             : NULL;
  PyObject *reduced;
  gboolean encoded;

  if (write_known_complete (self, object))
    return TRUE;

  /* Metaclasses may have registered reducers. */
  if (Py_TYPE (object) != &PyType_Type && Py_TYPE (object) != &PyFunction_Type)
    return encode_reduced (self, object);
  if (singleton == NULL)
    return encode_global (self, object, NULL);

  /* The classes of these three have no name in their module. */
  if (!check_pickle (self, object))
    return FALSE;
  reduced = Py_BuildValue ("O(O)", &PyType_Type, singleton);
  if (reduced == NULL)
    return FALSE;
  encoded = encode_reduce_tuple (self, object, reduced);
  Py_DECREF (reduced);
  return encoded;
}

static gboolean
encode_decimal (FerryPythonEncoder *self, PyObject *object)
{
  PyObject *str = PyObject_Str (object);
  gboolean encoded;

  if (str == NULL)
    return FALSE;
  ferry_python_output_tag (&self->output, FERRY_PYTHON_TAG_DECIMAL);
  encoded = encode_str (self, str);
  Py_DECREF (str);
  return encoded;
}

static gboolean
encode_zoneinfo (FerryPythonEncoder *self, PyObject *object)
{
  PyObject *key = PyObject_GetAttr (object, ferry_python_names.key);
  gboolean encoded;

  if (key == NULL)
    return FALSE;

  /* Without a key it came from a file, and its __reduce__() explains that it can't be sent. */
  if (!PyUnicode_CheckExact (key))
    encoded = encode_reduced (self, object);
  else if (write_known (self, object))
    encoded = TRUE;
  else
    {
      ferry_python_output_tag (&self->output, FERRY_PYTHON_TAG_ZONEINFO);
      encoded = encode_str (self, key);
    }
  Py_DECREF (key);
  return encoded;
}

static gboolean
encode_dlpack (FerryPythonEncoder *self, PyObject *object)
{
  GError *error = NULL;
  FerryTensor *tensor;
  FerryPythonPart *part;
  gsize size;

  tensor = ferry_dlpack_import (object, &error);
  if (tensor == NULL)
    {
      /* On another device, or of a type that only its library knows. */
      if (self->pickle && ferry_python_type_has_reducer (Py_TYPE (object)))
        {
          g_clear_error (&error);
          return encode_object (self, object, FERRY_PYTHON_KIND_REDUCE, TRUE);
        }
      g_prefix_error (&error, "codec 'python': ");
      return fail (self, error);
    }
  if (write_known (self, object))
    {
      ferry_tensor_unref (tensor);
      return TRUE;
    }
  if (!ferry_python_tensor_write_header (&self->output, tensor, &size, &error))
    {
      ferry_tensor_unref (tensor);
      return fail (self, error);
    }
  part = ferry_python_output_add_part (&self->output, &dlpack_part, NULL, size, size);
  part->owner = tensor;
  return TRUE;
}

/* What can't be encoded without running code of Python, be it only that of a property. Other threads may run then, so
 * the caller holds a reference. */
static gboolean
encode_with_code (FerryPythonEncoder *self, PyObject *object, FerryPythonKind kind, gboolean is_shared)
{
  switch (kind)
    {
    case FERRY_PYTHON_KIND_NDARRAY:
      return encode_array (self, object);

    case FERRY_PYTHON_KIND_DTYPE:
      return encode_dtype (self, object);

    case FERRY_PYTHON_KIND_TENSOR:
      return encode_tensor (self, object);

    case FERRY_PYTHON_KIND_DLPACK:
      return encode_dlpack (self, object);

    case FERRY_PYTHON_KIND_DECIMAL:
      return encode_decimal (self, object);

    case FERRY_PYTHON_KIND_FRACTION:
      ferry_python_output_tag (&self->output, FERRY_PYTHON_TAG_FRACTION);
      return encode_attribute (self, object, ferry_python_names.numerator)
             && encode_attribute (self, object, ferry_python_names.denominator);

    case FERRY_PYTHON_KIND_UUID:
      return encode_uuid (self, object);

    case FERRY_PYTHON_KIND_DATE:
    case FERRY_PYTHON_KIND_TIME:
    case FERRY_PYTHON_KIND_DATETIME:
    case FERRY_PYTHON_KIND_TIMEDELTA:
    case FERRY_PYTHON_KIND_TIMEZONE:
      return encode_datetime (self, object, kind);

    case FERRY_PYTHON_KIND_ZONEINFO:
      return encode_zoneinfo (self, object);

    case FERRY_PYTHON_KIND_RANGE:
      ferry_python_output_tag (&self->output, FERRY_PYTHON_TAG_RANGE);
      return encode_attribute (self, object, ferry_python_names.start)
             && encode_attribute (self, object, ferry_python_names.stop)
             && encode_attribute (self, object, ferry_python_names.step);

    case FERRY_PYTHON_KIND_SLICE:
      {
        PySliceObject *slice = (PySliceObject *) object;

        ferry_python_output_tag (&self->output, FERRY_PYTHON_TAG_SLICE);
        return encode (self, slice->start) && encode (self, slice->stop) && encode (self, slice->step);
      }

    case FERRY_PYTHON_KIND_GLOBAL:
      return encode_by_name (self, object);

    default:
      return encode_object (self, object, kind, is_shared);
    }
}

static gboolean
encode_other (FerryPythonEncoder *self, PyObject *object)
{
  FerryPythonKind kind;
  gboolean is_shared = Py_REFCNT (object) > 1;
  gboolean encoded;

  /* Looking at a class for the first time may run code, and that may throw away what refers to the object. */
  Py_INCREF (object);
  kind = ferry_python_type_get_kind (Py_TYPE (object));
  if (G_UNLIKELY (Py_REFCNT (object) == 1))
    {
      Py_DECREF (object);
      return fail_changed (self, "a container");
    }
  Py_DECREF (object);

  switch (kind)
    {
    case FERRY_PYTHON_KIND_SET:
      return encode_set (self, object, FALSE);

    case FERRY_PYTHON_KIND_FROZENSET:
      return encode_set (self, object, TRUE);

    case FERRY_PYTHON_KIND_NUMPY_SCALAR:
      return ferry_python_numpy_encode_scalar (self, object);

    case FERRY_PYTHON_KIND_BYTEARRAY:
      return encode_bytearray (self, object);

    case FERRY_PYTHON_KIND_MEMORYVIEW:
      return encode_memoryview (self, object);

    case FERRY_PYTHON_KIND_PICKLE_BUFFER:
      return encode_pickle_buffer (self, object);

    case FERRY_PYTHON_KIND_COMPLEX:
      {
        Py_complex number = PyComplex_AsCComplex (object);
        double parts[] = { number.real, number.imag };

        ferry_python_output_tag (&self->output, FERRY_PYTHON_TAG_COMPLEX);
        ferry_python_output_bytes (&self->output, parts, sizeof parts);
        return TRUE;
      }

    case FERRY_PYTHON_KIND_ELLIPSIS:
      ferry_python_output_tag (&self->output, FERRY_PYTHON_TAG_ELLIPSIS);
      return TRUE;

    case FERRY_PYTHON_KIND_NOT_IMPLEMENTED:
      ferry_python_output_tag (&self->output, FERRY_PYTHON_TAG_NOT_IMPLEMENTED);
      return TRUE;

    default:
      break;
    }

  /* An array that only its container refers to has one part; known ones are found by their references. */
  if (kind == FERRY_PYTHON_KIND_NDARRAY && !is_shared && self->array_reducer == NULL)
    {
      if (!ferry_ndarray_load (FALSE, &self->error))
        return FALSE;
      if (ferry_ndarray_is_plain (object))
        return encode_plain_array (self, object);
    }

  if (!enter (self))
    return FALSE;
  Py_INCREF (object);
  encoded = encode_with_code (self, object, kind, is_shared);
  Py_DECREF (object);
  leave (self);
  return encoded;
}

static gboolean
encode (FerryPythonEncoder *self, PyObject *object)
{
  PyTypeObject *type = Py_TYPE (object);

  if (type == &PyUnicode_Type)
    return put_short_str (self, object) || encode_str (self, object);
  if (type == &PyLong_Type)
    {
      gint32 number;

      if (G_UNLIKELY (!get_compact_int (object, &number)))
        return encode_int (self, object);
      put_compact_int (self, number);
      return TRUE;
    }
  if (type == &PyFloat_Type)
    {
      encode_float (self, PyFloat_AS_DOUBLE (object));
      return TRUE;
    }
  if (object == Py_None)
    {
      ferry_python_output_tag (&self->output, FERRY_PYTHON_TAG_NONE);
      return TRUE;
    }
  if (type == &PyBool_Type)
    {
      ferry_python_output_tag (&self->output, object == Py_True ? FERRY_PYTHON_TAG_TRUE : FERRY_PYTHON_TAG_FALSE);
      return TRUE;
    }
  if (type == &PyDict_Type)
    return encode_dict (self, object);
  if (type == &PyList_Type)
    return encode_list (self, object);
  if (type == &PyTuple_Type)
    return encode_tuple (self, object);
  if (type == &PyBytes_Type)
    return encode_bytes (self, object);
  return encode_other (self, object);
}

FerryPythonEncoder *
ferry_python_encoder_encode (PyObject *object, gboolean pickle, PyObject *array_reducer, GError **error)
{
  FerryPythonEncoder *self = pool;
  gboolean encoded;

  if (G_LIKELY (self != NULL))
    {
      pool = self->next;
      n_pooled--;
    }
  else
    {
      self = g_new0 (FerryPythonEncoder, 1);
      self->output.encoder = self;
      self->n_slots = SLOTS_MIN;
      self->slots = g_new0 (FerryPythonMemoSlot, SLOTS_MIN);
    }
  self->pickle = pickle;
  self->array_reducer = array_reducer;
  self->depth = 0;
  self->outermost = NULL;

  encoded = ferry_python_types_load () && encode (self, object);
  memo_reset (self);
  if (G_LIKELY (encoded))
    return self;

  if (self->error != NULL)
    {
      /* Both may be there when code that handled our failure failed in turn; ours came first. */
      PyErr_Clear ();
      g_propagate_error (error, g_steal_pointer (&self->error));
    }
  else
    {
      g_autofree char *name = NULL;
      g_autofree char *prefix = NULL;
      PyObject *type;
      PyObject *value;
      PyObject *traceback;

      PyErr_Fetch (&type, &value, &traceback);
      name = dup_type_name (Py_TYPE (object));
      prefix = g_strdup_printf ("codec 'python': can't encode this %s", name);
      PyErr_Restore (type, value, traceback);
      ferry_python_take_exception (error, FERRY_ERROR_CODEC, prefix);
    }
  ferry_python_encoder_free (self);
  return NULL;
}

void
ferry_python_encoder_free (FerryPythonEncoder *self)
{
  ferry_python_output_reset (&self->output);
  if (n_pooled >= POOL_MAX)
    {
      ferry_python_output_clear (&self->output);
      g_free (self->slots);
      g_free (self->objects);
      g_free (self);
      return;
    }
  self->next = pool;
  pool = self;
  n_pooled++;
}
