/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ferry-python.h"

#define NO_IMPORT_ARRAY
#include "ferry-dtype.h"

#include "ferry-numpy-header.h"

#include <float.h>
#include <string.h>

/*
 * The extension is a tree of nodes. A node begins with a letter:
 *
 *   s  type string of NumPy:                 u8 length, text
 *   g  type string of a long double type:    u8 length, text, u8 bits of the mantissa
 *   a  array within a structure:             u8 dimensions, u32 length of each, node
 *   r  structure:                            u8 flags, u32 bytes, u32 number of fields, then for each field
 *                                            string name, u8 whether it has a title, [string title], u32 offset, node
 *   m  dtype with metadata:                  value, node
 *
 * A string is a u32 length and UTF-8. A value begins with a letter too: N T F for None, True, False, i and an i64,
 * d and the bits of a double, u and a string, b and a byte string, t l D and a u32 number of items of a tuple, list or
 * dict (whose items are key, value).
 */

enum
{
  RECORD_ALIGNED = 1 << 0, /* made with align=True */
  RECORD_TYPE = 1 << 1,    /* elements are numpy.record */
  RECORD_FLAGS = RECORD_ALIGNED | RECORD_TYPE,
};

/* Structures within structures, arrays within arrays, containers in metadata: both directions recurse. */
#define NESTING_MAX (32)

/* The longest type string has a multiple of a unit: "<M8[2147483647ns]". */
#define TYPE_STRING_MAX (32)

/* Must be powers of 2. */
#define DESCR_CACHE_SIZE (64)
#define BYTES_CACHE_SIZE (64)

/* Numbers: by type, native or swapped. They live as long as the module, which is never unloaded. */
static FerryDtype *number_dtypes[NPY_CLONGDOUBLE + 1][2];
static FerryDtype *half_dtypes[2];

/* Others: the entry is the last one that had its place. */
static FerryDtype *descr_cache[DESCR_CACHE_SIZE];
static FerryDtype *bytes_cache[BYTES_CACHE_SIZE];

typedef struct
{
  const guint8 *p;
  const guint8 *end;
  gsize unclaimed; /* bytes that no container has counted on for its items */
} Reader;

static void
dtype_add_structure (GPtrArray *structures, PyArray_Descr *descr)
{
  gpointer parts[] = { descr, PyDataType_NAMES (descr), PyDataType_FIELDS (descr) };

  for (guint i = 0; i < G_N_ELEMENTS (parts); i++)
    {
      Py_XINCREF ((PyObject *) parts[i]);
      g_ptr_array_add (structures, parts[i]);
    }
}

/* Names of the fields of a structure can be assigned. Then what we know about it is outdated. */
static gboolean
dtype_is_current (FerryDtype *self)
{
  if (self->structures == NULL)
    return TRUE;
  for (guint i = 0; i < self->structures->len; i += 3)
    {
      PyArray_Descr *descr = g_ptr_array_index (self->structures, i);

      if ((gpointer) PyDataType_NAMES (descr) != g_ptr_array_index (self->structures, i + 1)
          || (gpointer) PyDataType_FIELDS (descr) != g_ptr_array_index (self->structures, i + 2))
        return FALSE;
    }
  return TRUE;
}

static void
dtype_collect_structures (PyArray_Descr *descr, GPtrArray **structures, guint nesting)
{
  PyObject *key;
  PyObject *field;
  Py_ssize_t position = 0;

  if (nesting > NESTING_MAX)
    return;
  if (PyDataType_SUBARRAY (descr) != NULL)
    dtype_collect_structures (PyDataType_SUBARRAY (descr)->base, structures, nesting + 1);
  if (PyDataType_NAMES (descr) == NULL)
    return;
  if (*structures == NULL)
    *structures = g_ptr_array_new ();
  dtype_add_structure (*structures, descr);
  while (PyDict_Next (PyDataType_FIELDS (descr), &position, &key, &field))
    dtype_collect_structures ((PyArray_Descr *) PyTuple_GetItem (field, 0), structures, nesting + 1);
}

static FerryDtype *
dtype_new (PyArray_Descr *descr, const void *format, gsize format_length, const void *extension, gsize extension_length)
{
  FerryDtype *self = g_malloc0 (sizeof *self + format_length + extension_length);

  self->ref_count = 1;
  Py_INCREF ((PyObject *) descr);
  self->descr = descr;
  self->item_size = (gsize) PyDataType_ELSIZE (descr);
  self->format_length = format_length;
  self->extension_length = extension_length;
  memcpy (self->bytes, format, format_length);
  if (extension_length > 0)
    memcpy (self->bytes + format_length, extension, extension_length);
  dtype_collect_structures (descr, &self->structures, 0);
  return self;
}

void
ferry_dtype_unref (FerryDtype *self)
{
  if (--self->ref_count > 0)
    return;
  Py_DECREF ((PyObject *) self->descr);
  if (self->structures != NULL)
    {
      for (guint i = 0; i < self->structures->len; i++)
        Py_XDECREF ((PyObject *) g_ptr_array_index (self->structures, i));
      g_ptr_array_unref (self->structures);
    }
  g_free (self);
}

PyArray_Descr *
ferry_dtype_get_descr (FerryDtype *self)
{
  if (G_UNLIKELY (self->structures != NULL))
    return PyArray_DescrNew (self->descr);
  Py_INCREF ((PyObject *) self->descr);
  return self->descr;
}

static gsize
hash_bytes (const guint8 *bytes, gsize size)
{
  guint32 hash = 2166136261u; /* FNV-1a, http://www.isthe.com/chongo/tech/comp/fnv/ */

  for (gsize i = 0; i < size; i++)
    hash = (hash ^ bytes[i]) * 16777619u;
  return hash ^ hash >> 16;
}

static void
cache_put (FerryDtype **entry, FerryDtype *self)
{
  FerryDtype *old = *entry;

  self->ref_count++;
  *entry = self;
  if (old != NULL)
    ferry_dtype_unref (old);
}

/*
 * Writing
 */

static gboolean
is_swapped (PyArray_Descr *descr)
{
  return !PyArray_ISNBO (descr->byteorder);
}

static void
put_u32 (GByteArray *to, gsize number)
{
  guint32 wire = GUINT32_TO_LE ((guint32) number);

  g_byte_array_append (to, (const guint8 *) &wire, sizeof wire);
}

static void
put_u64 (GByteArray *to, guint64 number)
{
  guint64 wire = GUINT64_TO_LE (number);

  g_byte_array_append (to, (const guint8 *) &wire, sizeof wire);
}

static void
put_u8 (GByteArray *to, guint number)
{
  guint8 wire = (guint8) number;

  g_byte_array_append (to, &wire, 1);
}

/* Names may contain lone surrogates, which are no UTF-8 that C programs would take. */
static gboolean
put_string (GByteArray *to, PyObject *text)
{
  PyObject *encoded = PyUnicode_AsEncodedString (text, "utf-8", "surrogatepass");
  char *data;
  Py_ssize_t size;

  if (encoded == NULL || PyBytes_AsStringAndSize (encoded, &data, &size) < 0)
    {
      Py_XDECREF (encoded);
      return FALSE;
    }
  put_u32 (to, (gsize) size);
  g_byte_array_append (to, (const guint8 *) data, (guint) size);
  Py_DECREF (encoded);
  return to->len <= FERRY_NUMPY_EXTENSION_MAX;
}

/* What metadata may contain. */
static gboolean
put_value (GByteArray *to, PyObject *value, guint nesting)
{
  if (nesting > NESTING_MAX || to->len > FERRY_NUMPY_EXTENSION_MAX)
    return FALSE;
  if (value == Py_None)
    {
      put_u8 (to, 'N');
    }
  else if (value == Py_True || value == Py_False)
    {
      put_u8 (to, value == Py_True ? 'T' : 'F');
    }
  else if (PyLong_CheckExact (value))
    {
      int overflow;
      long long number = PyLong_AsLongLongAndOverflow (value, &overflow);

      if (overflow != 0)
        return FALSE;
      put_u8 (to, 'i');
      put_u64 (to, (guint64) number);
    }
  else if (PyFloat_CheckExact (value))
    {
      double number = PyFloat_AsDouble (value);
      guint64 bits;

      memcpy (&bits, &number, sizeof bits);
      put_u8 (to, 'd');
      put_u64 (to, bits);
    }
  else if (PyUnicode_CheckExact (value))
    {
      put_u8 (to, 'u');
      return put_string (to, value);
    }
  else if (PyBytes_CheckExact (value))
    {
      gsize size = (gsize) PyBytes_Size (value);

      if (size > FERRY_NUMPY_EXTENSION_MAX)
        return FALSE;
      put_u8 (to, 'b');
      put_u32 (to, size);
      g_byte_array_append (to, (const guint8 *) PyBytes_AsString (value), (guint) size);
    }
  else if (PyTuple_CheckExact (value) || PyList_CheckExact (value))
    {
      gboolean is_tuple = PyTuple_CheckExact (value);
      Py_ssize_t n = is_tuple ? PyTuple_Size (value) : PyList_Size (value);

      if (n > FERRY_NUMPY_EXTENSION_MAX)
        return FALSE;
      put_u8 (to, is_tuple ? 't' : 'l');
      put_u32 (to, (gsize) n);
      for (Py_ssize_t i = 0; i < n; i++)
        if (!put_value (to, is_tuple ? PyTuple_GetItem (value, i) : PyList_GetItem (value, i), nesting + 1))
          return FALSE;
    }
  else if (PyDict_CheckExact (value))
    {
      PyObject *key;
      PyObject *item;
      Py_ssize_t position = 0;

      put_u8 (to, 'D');
      put_u32 (to, (gsize) PyDict_Size (value));
      while (PyDict_Next (value, &position, &key, &item))
        if (!put_value (to, key, nesting + 1) || !put_value (to, item, nesting + 1))
          return FALSE;
    }
  else
    {
      return FALSE;
    }
  return TRUE;
}

static gboolean
put_shape (GByteArray *to, PyObject *shape)
{
  Py_ssize_t n = PyTuple_Check (shape) ? PyTuple_Size (shape) : -1;

  if (n < 0 || n > FERRY_TENSOR_MAX_DIMENSIONS)
    return FALSE;
  put_u8 (to, (guint) n);
  for (Py_ssize_t i = 0; i < n; i++)
    {
      Py_ssize_t length = PyLong_AsSsize_t (PyTuple_GetItem (shape, i));

      if (length < 0 || length > G_MAXINT32)
        return FALSE;
      put_u32 (to, (gsize) length);
    }
  return TRUE;
}

static gboolean put_descr (GByteArray *to, PyArray_Descr *descr, guint nesting);

static gboolean
put_field (GByteArray *to, PyObject *name, PyObject *field, guint nesting)
{
  PyObject *title = field != NULL && PyTuple_Size (field) > 2 ? PyTuple_GetItem (field, 2) : NULL;
  Py_ssize_t offset;

  if (field == NULL || !put_string (to, name) || (title != NULL && !PyUnicode_CheckExact (title)))
    return FALSE;
  put_u8 (to, title != NULL);
  if (title != NULL && !put_string (to, title))
    return FALSE;
  offset = PyLong_AsSsize_t (PyTuple_GetItem (field, 1));
  if (offset < 0)
    return FALSE;
  put_u32 (to, (gsize) offset);
  return put_descr (to, (PyArray_Descr *) PyTuple_GetItem (field, 0), nesting + 1);
}

/* The type of elements whose fields are attributes. Borrowed; NULL without an exception if NumPy has lost it. */
static PyObject *
get_record_type (void)
{
  static PyObject *type;

  if (G_UNLIKELY (type == NULL))
    {
      PyObject *numpy = PyImport_ImportModule ("numpy");

      type = numpy != NULL ? PyObject_GetAttrString (numpy, "record") : NULL;
      Py_XDECREF (numpy);
      PyErr_Clear ();
    }
  return type;
}

static gboolean
put_structure (GByteArray *to, PyArray_Descr *descr, guint nesting)
{
  PyObject *names = PyDataType_NAMES (descr);
  Py_ssize_t n = PyTuple_Size (names);
  gboolean is_record = (PyObject *) descr->typeobj == get_record_type ();

  if (descr->type_num != NPY_VOID || (!is_record && descr->typeobj != &PyVoidArrType_Type))
    return FALSE;
  put_u8 (to, 'r');
  put_u8 (to, (PyDataType_FLAGCHK (descr, NPY_ALIGNED_STRUCT) ? RECORD_ALIGNED : 0) | (is_record ? RECORD_TYPE : 0));
  put_u32 (to, (gsize) PyDataType_ELSIZE (descr));
  put_u32 (to, (gsize) n);
  for (Py_ssize_t i = 0; i < n; i++)
    {
      PyObject *name = PyTuple_GetItem (names, i);

      if (!put_field (to, name, PyDict_GetItemWithError (PyDataType_FIELDS (descr), name), nesting))
        return FALSE;
    }
  return TRUE;
}

/* What `dtype.str` tells, which is everything about simple types. */
static char *
dup_type_string (PyArray_Descr *descr)
{
  PyObject *text = PyObject_GetAttrString ((PyObject *) descr, "str");
  const char *string = text != NULL ? PyUnicode_AsUTF8 (text) : NULL;
  char *copy = g_strdup (string);

  Py_XDECREF (text);
  return copy;
}

static gboolean
put_simple (GByteArray *to, PyArray_Descr *descr)
{
  g_autofree char *text = NULL;
  gboolean is_long = descr->type_num == NPY_LONGDOUBLE || descr->type_num == NPY_CLONGDOUBLE;

  if (descr->type_num > NPY_HALF || descr->type_num == NPY_OBJECT
      || (descr->type_num == NPY_VOID && descr->typeobj != &PyVoidArrType_Type))
    return FALSE;
  text = dup_type_string (descr);
  if (text == NULL || strlen (text) > TYPE_STRING_MAX)
    return FALSE;
  put_u8 (to, is_long ? 'g' : 's');
  put_u8 (to, (guint) strlen (text));
  g_byte_array_append (to, (const guint8 *) text, (guint) strlen (text));
  if (is_long)
    put_u8 (to, LDBL_MANT_DIG);
  return TRUE;
}

/* FALSE with or without a Python exception when it can't be written down. */
static gboolean
put_descr (GByteArray *to, PyArray_Descr *descr, guint nesting)
{
  PyObject *metadata = PyDataType_METADATA (descr);
  PyArray_ArrayDescr *array = PyDataType_SUBARRAY (descr);

  if (nesting > NESTING_MAX || to->len > FERRY_NUMPY_EXTENSION_MAX)
    return FALSE;
  if (metadata != NULL && metadata != Py_None)
    {
      put_u8 (to, 'm');
      if (!PyDict_CheckExact (metadata) || !put_value (to, metadata, nesting + 1))
        return FALSE;
    }
  if (array != NULL)
    {
      put_u8 (to, 'a');
      return put_shape (to, array->shape) && put_descr (to, array->base, nesting + 1);
    }
  if (PyDataType_NAMES (descr) != NULL)
    return put_structure (to, descr, nesting);
  return put_simple (to, descr);
}

/* Whether a tensor understands the format, and as elements of that size. */
static gboolean
is_tensor_format (const char *format, gsize item_size)
{
  static const gint64 nothing = 0;
  g_autoptr (FerryTensor) tensor = NULL;

  if (strlen (format) > FERRY_NUMPY_FORMAT_MAX)
    return FALSE;
  tensor = ferry_tensor_new_take (format, &nothing, 1, NULL, NULL, 0, 0, FALSE, NULL, NULL, NULL);
  return tensor != NULL && ferry_tensor_get_item_size (tensor) == item_size;
}

/* The format for C programs; opaque bytes where there is no better one. */
static char *
dup_format (PyArray_Descr *descr)
{
  gsize item_size = (gsize) PyDataType_ELSIZE (descr);
  g_autofree char *format = NULL;

  if (PyDataType_NAMES (descr) == NULL)
    {
      format = dup_type_string (descr);
    }
  else
    {
      PyObject *fields = PyObject_GetAttrString ((PyObject *) descr, "descr");
      PyObject *text = fields != NULL ? PyObject_Repr (fields) : NULL;

      format = text != NULL ? g_strdup (PyUnicode_AsUTF8 (text)) : NULL;
      Py_XDECREF (text);
      Py_XDECREF (fields);
    }
  PyErr_Clear (); /* overlapping fields */
  if (format != NULL && is_tensor_format (format, item_size))
    return g_steal_pointer (&format);
  return g_strdup_printf ("|V%" G_GSIZE_FORMAT, item_size);
}

/* Of the package ml_dtypes, which JAX and TensorFlow use. */
static gboolean
is_bfloat16 (PyArray_Descr *descr)
{
  const char *name = descr->typeobj->tp_name;
  const char *dot = strrchr (name, '.');

  return descr->type_num >= NPY_USERDEF && PyDataType_ELSIZE (descr) == 2
         && strcmp (dot != NULL ? dot + 1 : name, "bfloat16") == 0;
}

static PyArray_Descr *descr_from_extension (const guint8 *bytes, gsize size, GError **error);

static gboolean
refuse_descr (PyArray_Descr *descr, GError **error)
{
  PyObject *text;
  const char *shown;

  PyErr_Clear ();
  text = error != NULL ? PyObject_Str ((PyObject *) descr) : NULL;
  shown = text != NULL ? PyUnicode_AsUTF8 (text) : NULL;
  g_set_error (error, FERRY_ERROR, FERRY_ERROR_CODEC,
               "arrays of dtype %.100s are no plain memory that could be described; use codec python",
               shown != NULL ? shown : "(unknown)");
  Py_XDECREF (text);
  PyErr_Clear ();
  return FALSE;
}

/* Structures have many properties: what does not come back as it was is not sent. */
static gboolean
comes_back (PyArray_Descr *descr, const GByteArray *extension)
{
  PyArray_Descr *again = descr_from_extension (extension->data, extension->len, NULL);
  gboolean same;

  if (again == NULL)
    return FALSE;
  same = PyArray_EquivTypes (again, descr) && again->typeobj == descr->typeobj
         && PyDataType_ELSIZE (again) == PyDataType_ELSIZE (descr)
         && PyDataType_FLAGCHK (again, NPY_ALIGNED_STRUCT) == PyDataType_FLAGCHK (descr, NPY_ALIGNED_STRUCT);
  Py_DECREF ((PyObject *) again);
  return same;
}

static FerryDtype *
dtype_describe (PyArray_Descr *descr, GError **error)
{
  g_autoptr (GByteArray) extension = NULL;
  g_autofree char *format = NULL;
  PyObject *metadata = PyDataType_METADATA (descr);

  if (is_bfloat16 (descr))
    return dtype_new (descr, is_swapped (descr) ? ">E2" : "<E2", 3, NULL, 0);
  if (PyDataType_REFCHK (descr) || descr->type_num > NPY_HALF || descr->type_num < 0)
    {
      refuse_descr (descr, error);
      return NULL;
    }

  format = dup_format (descr);
  extension = g_byte_array_new ();
  if (!put_descr (extension, descr, 0) || extension->len > FERRY_NUMPY_EXTENSION_MAX)
    {
      refuse_descr (descr, error);
      return NULL;
    }

  /* Nothing to add where it says the same. */
  if (extension->data[0] == 's' && extension->len == strlen (format) + 2
      && memcmp (extension->data + 2, format, strlen (format)) == 0)
    g_byte_array_set_size (extension, 0);
  else if ((metadata == NULL || metadata == Py_None) && !comes_back (descr, extension))
    {
      refuse_descr (descr, error);
      return NULL;
    }
  return dtype_new (descr, format, strlen (format), extension->data, extension->len);
}

FerryDtype *
ferry_dtype_new_for_descr (PyArray_Descr *descr, GError **error)
{
  FerryDtype **entry;
  FerryDtype *self;
  gboolean is_number = (guint) descr->type_num <= NPY_CLONGDOUBLE || descr->type_num == NPY_HALF;
  gboolean has_metadata = PyDataType_METADATA (descr) != NULL;

  if (G_LIKELY (is_number && PyDataType_NAMES (descr) == NULL && !has_metadata))
    {
      gboolean swapped = is_swapped (descr);

      entry = descr->type_num == NPY_HALF ? &half_dtypes[swapped] : &number_dtypes[descr->type_num][swapped];
      if (G_UNLIKELY (*entry == NULL))
        *entry = dtype_describe (descr, error);
      if (*entry != NULL)
        (*entry)->ref_count++;
      return *entry;
    }

  /* Metadata are the user's objects, which are not ours to keep. */
  if (has_metadata)
    return dtype_describe (descr, error);

  entry = &descr_cache[(GPOINTER_TO_SIZE (descr) >> 4 ^ GPOINTER_TO_SIZE (descr) >> 12) % DESCR_CACHE_SIZE];
  if (*entry != NULL && (*entry)->descr == descr && dtype_is_current (*entry))
    {
      (*entry)->ref_count++;
      return *entry;
    }
  self = dtype_describe (descr, error);
  if (self != NULL)
    cache_put (entry, self);
  return self;
}

/*
 * Reading
 */

static gboolean
take_bytes (Reader *reader, gpointer to, gsize size)
{
  if ((gsize) (reader->end - reader->p) < size)
    return FALSE;
  memcpy (to, reader->p, size);
  reader->p += size;
  return TRUE;
}

static gboolean
take_u8 (Reader *reader, guint *number)
{
  guint8 wire;

  if (!take_bytes (reader, &wire, sizeof wire))
    return FALSE;
  *number = wire;
  return TRUE;
}

static gboolean
take_u32 (Reader *reader, gsize *number)
{
  guint32 wire;

  if (!take_bytes (reader, &wire, sizeof wire))
    return FALSE;
  *number = GUINT32_FROM_LE (wire);
  return TRUE;
}

static gboolean
take_u64 (Reader *reader, guint64 *number)
{
  guint64 wire;

  if (!take_bytes (reader, &wire, sizeof wire))
    return FALSE;
  *number = GUINT64_FROM_LE (wire);
  return TRUE;
}

/* A number of things that take at least @each bytes. */
static gboolean
take_count (Reader *reader, gsize each, gsize *n)
{
  return take_u32 (reader, n) && *n <= (gsize) (reader->end - reader->p) / each;
}

static PyObject *
take_string (Reader *reader)
{
  PyObject *text;
  gsize size;

  if (!take_count (reader, 1, &size))
    return NULL;
  text = PyUnicode_DecodeUTF8 ((const char *) reader->p, (Py_ssize_t) size, "surrogatepass");
  reader->p += size;
  return text;
}

static PyObject *take_value (Reader *reader, guint nesting);

static PyObject *
take_items (Reader *reader, guint kind, guint nesting)
{
  gsize size = kind == 'D' ? 2 : 1; /* of an item at least */
  PyObject *container;
  gsize n;

  if (!take_count (reader, size, &n) || n * size > reader->unclaimed)
    return NULL;
  reader->unclaimed -= n * size;
  container = kind == 't' ? PyTuple_New ((Py_ssize_t) n) : kind == 'l' ? PyList_New ((Py_ssize_t) n) : PyDict_New ();
  for (gsize i = 0; container != NULL && i < n; i++)
    {
      PyObject *item = take_value (reader, nesting + 1);
      PyObject *value = item != NULL && kind == 'D' ? take_value (reader, nesting + 1) : NULL;
      gboolean ok = item != NULL && (kind != 'D' || value != NULL);

      if (ok && kind == 't')
        PyTuple_SetItem (container, (Py_ssize_t) i, item);
      else if (ok && kind == 'l')
        PyList_SetItem (container, (Py_ssize_t) i, item);
      else
        {
          ok = ok && PyDict_SetItem (container, item, value) == 0; /* keys may be unhashable */
          Py_XDECREF (item);
          Py_XDECREF (value);
        }
      if (!ok)
        Py_CLEAR (container);
    }
  return container;
}

/* NULL with or without a Python exception. */
static PyObject *
take_value (Reader *reader, guint nesting)
{
  guint kind;
  guint64 bits;
  gsize size;
  PyObject *value = NULL;

  if (nesting > NESTING_MAX || !take_u8 (reader, &kind))
    return NULL;
  switch (kind)
    {
    case 'N':
      value = Py_None;
      break;
    case 'T':
      value = Py_True;
      break;
    case 'F':
      value = Py_False;
      break;

    case 'i':
      return take_u64 (reader, &bits) ? PyLong_FromLongLong ((long long) bits) : NULL;

    case 'd':
      {
        double number;

        if (!take_u64 (reader, &bits))
          return NULL;
        memcpy (&number, &bits, sizeof number);
        return PyFloat_FromDouble (number);
      }

    case 'u':
      return take_string (reader);

    case 'b':
      if (!take_count (reader, 1, &size))
        return NULL;
      value = PyBytes_FromStringAndSize ((const char *) reader->p, (Py_ssize_t) size);
      reader->p += size;
      return value;

    case 't':
    case 'l':
    case 'D':
      return take_items (reader, kind, nesting);

    default:
      return NULL;
    }
  Py_INCREF (value);
  return value;
}

#define DIGITS_MAX (10)

/* A byte order, a kind without objects, a number, perhaps a unit: nothing else of what NumPy takes for a dtype. */
static gboolean
is_type_string (const char *text)
{
  static const char digits[] = "0123456789";
  char kind;
  gsize n;

  if (*text == '\0' || strchr ("<>|", *text) == NULL)
    return FALSE;
  kind = *++text;
  if (kind == '\0' || strchr ("biufcmMSUV", kind) == NULL)
    return FALSE;
  n = strspn (++text, digits);
  if (n == 0 || n > DIGITS_MAX || g_ascii_strtoull (text, NULL, 10) > (kind == 'U' ? G_MAXINT32 / 4 : G_MAXINT32))
    return FALSE;
  text += n;
  if ((kind == 'm' || kind == 'M') && *text == '[')
    {
      n = strspn (++text, digits);
      if (n > DIGITS_MAX || g_ascii_strtoull (text, NULL, 10) > G_MAXINT32)
        return FALSE;
      text += n;
      text += strspn (text, "YMWDhmsunpfa");
      if (*text++ != ']')
        return FALSE;
    }
  return *text == '\0';
}

/* By what NumPy itself makes of it. The reference to @object is taken. */
static PyArray_Descr *
convert_object (PyObject *object)
{
  PyArray_Descr *descr = NULL;

  if (object != NULL && PyArray_DescrConverter (object, &descr) == NPY_FAIL)
    descr = NULL;
  Py_XDECREF (object);
  return descr;
}

static PyArray_Descr *
descr_from_type_string (const char *text)
{
  return is_type_string (text) ? convert_object (PyUnicode_FromString (text)) : NULL;
}

/* `np.dtype (*args, **kwargs)`; takes both references. */
static PyArray_Descr *
call_dtype (PyObject *args, PyObject *kwargs)
{
  PyObject *descr
      = args != NULL && kwargs != NULL ? PyObject_Call ((PyObject *) &PyArrayDescr_Type, args, kwargs) : NULL;

  Py_XDECREF (args);
  Py_XDECREF (kwargs);
  return (PyArray_Descr *) descr;
}

static PyArray_Descr *take_descr (Reader *reader, guint nesting);

static PyArray_Descr *
take_array (Reader *reader, guint nesting)
{
  PyArray_Descr *base;
  PyObject *shape;
  guint n;

  if (!take_u8 (reader, &n) || n > FERRY_TENSOR_MAX_DIMENSIONS)
    return NULL;
  shape = PyTuple_New ((Py_ssize_t) n);
  for (guint i = 0; shape != NULL && i < n; i++)
    {
      gsize length;

      if (take_u32 (reader, &length))
        PyTuple_SetItem (shape, (Py_ssize_t) i, PyLong_FromSize_t (length));
      else
        Py_CLEAR (shape);
    }
  if (shape == NULL)
    return NULL;
  base = take_descr (reader, nesting + 1);
  if (base == NULL)
    {
      Py_DECREF (shape);
      return NULL;
    }
  return convert_object (Py_BuildValue ("(NN)", base, shape));
}

/* `np.dtype ((np.record, descr))`; takes the reference. */
static PyArray_Descr *
make_record (PyArray_Descr *descr)
{
  PyObject *record = get_record_type ();

  if (record == NULL)
    {
      Py_DECREF ((PyObject *) descr);
      return NULL;
    }
  return convert_object (Py_BuildValue ("(ON)", record, descr));
}

/* The smallest field has a string, a byte, an offset, and a node of two bytes. */
#define FIELD_SIZE_MIN (11)

static gboolean
append_steal (PyObject *list, PyObject *item)
{
  gboolean ok = item != NULL && PyList_Append (list, item) == 0;

  Py_XDECREF (item);
  return ok;
}

static gboolean
take_field (Reader *reader, PyObject *names, PyObject *titles, PyObject *offsets, PyObject *formats, gboolean *titled,
            guint nesting)
{
  PyObject *none = Py_None;
  guint has_title;
  gsize offset;

  if (!append_steal (names, take_string (reader)) || !take_u8 (reader, &has_title))
    return FALSE;
  if (has_title)
    {
      *titled = TRUE;
      if (!append_steal (titles, take_string (reader)))
        return FALSE;
    }
  else if (PyList_Append (titles, none) < 0)
    {
      return FALSE;
    }
  return take_u32 (reader, &offset) && append_steal (offsets, PyLong_FromSize_t (offset))
         && append_steal (formats, (PyObject *) take_descr (reader, nesting + 1));
}

/* In the form of a dict, which NumPy checks, though not for what is too large for an int: that is check_descr(). */
static PyArray_Descr *
take_structure (Reader *reader, guint nesting)
{
  PyArray_Descr *descr = NULL;
  PyObject *names = PyList_New (0);
  PyObject *titles = PyList_New (0);
  PyObject *offsets = PyList_New (0);
  PyObject *formats = PyList_New (0);
  PyObject *fields = NULL;
  gboolean titled = FALSE;
  gboolean ok;
  guint flags = 0;
  gsize item_size = 0;
  gsize n = 0;

  ok = names != NULL && titles != NULL && offsets != NULL && formats != NULL && take_u8 (reader, &flags)
       && (flags & ~(guint) RECORD_FLAGS) == 0 && take_u32 (reader, &item_size) && item_size <= G_MAXINT32
       && take_count (reader, FIELD_SIZE_MIN, &n);
  for (gsize i = 0; ok && i < n; i++)
    ok = take_field (reader, names, titles, offsets, formats, &titled, nesting);
  if (ok)
    {
      PyObject *aligned = (flags & RECORD_ALIGNED) != 0 ? Py_True : Py_False;

      fields = Py_BuildValue ("{s:O,s:O,s:O,s:n,s:O}", "names", names, "formats", formats, "offsets", offsets,
                              "itemsize", (Py_ssize_t) item_size, "aligned", aligned);
      if (fields != NULL && titled && PyDict_SetItemString (fields, "titles", titles) < 0)
        Py_CLEAR (fields);
      descr = convert_object (fields);
    }
  Py_XDECREF (names);
  Py_XDECREF (titles);
  Py_XDECREF (offsets);
  Py_XDECREF (formats);
  if (descr != NULL && (flags & RECORD_TYPE) != 0)
    descr = make_record (descr);
  return descr;
}

static PyArray_Descr *
take_with_metadata (Reader *reader, guint nesting)
{
  PyObject *metadata = take_value (reader, nesting + 1);
  PyArray_Descr *base = metadata != NULL && PyDict_CheckExact (metadata) ? take_descr (reader, nesting + 1) : NULL;

  if (base == NULL)
    {
      Py_XDECREF (metadata);
      return NULL;
    }
  return call_dtype (Py_BuildValue ("(N)", base), Py_BuildValue ("{s:N}", "metadata", metadata));
}

/* NULL with or without a Python exception. */
static PyArray_Descr *
take_descr (Reader *reader, guint nesting)
{
  char text[TYPE_STRING_MAX + 1];
  guint kind;
  guint length;
  guint mantissa;

  if (nesting > NESTING_MAX || !take_u8 (reader, &kind))
    return NULL;
  switch (kind)
    {
    case 's':
    case 'g':
      if (!take_u8 (reader, &length) || length > TYPE_STRING_MAX || !take_bytes (reader, text, length))
        return NULL;
      text[length] = '\0';
      if (strlen (text) != length || (kind == 'g' && (!take_u8 (reader, &mantissa) || mantissa != LDBL_MANT_DIG)))
        return NULL;
      return descr_from_type_string (text);

    case 'a':
      return nesting > 0 ? take_array (reader, nesting) : NULL;

    case 'r':
      return take_structure (reader, nesting);

    case 'm':
      return take_with_metadata (reader, nesting);

    default:
      return NULL;
    }
}

static void
refuse_bytes (GError **error, const char *what)
{
  if (PyErr_Occurred ())
    ferry_python_take_exception (error, FERRY_ERROR_CODEC, what);
  else
    g_set_error (error, FERRY_ERROR, FERRY_ERROR_CODEC, "%s: it is malformed, or of another machine", what);
}

/* Whether all that is in it lies within it. NumPy calculates sizes as int, and does not check all of them. */
static gboolean
is_within_itself (PyArray_Descr *descr)
{
  PyArray_ArrayDescr *subarray = PyDataType_SUBARRAY (descr);
  PyObject *fields = PyDataType_FIELDS (descr);
  gint64 size = (gint64) PyDataType_ELSIZE (descr);
  PyObject *key;
  PyObject *field;
  Py_ssize_t at = 0;

  if (size < 0)
    return FALSE;
  if (subarray != NULL)
    {
      gint64 expected = (gint64) PyDataType_ELSIZE (subarray->base);

      if (!PyTuple_Check (subarray->shape))
        return FALSE;
      for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE (subarray->shape); i++)
        {
          gint64 length = PyLong_AsLongLong (PyTuple_GET_ITEM (subarray->shape, i));

          if (length < 0 || __builtin_mul_overflow (expected, length, &expected))
            return FALSE;
        }
      return expected == size && is_within_itself (subarray->base);
    }
  while (fields != NULL && fields != Py_None && PyDict_Next (fields, &at, &key, &field))
    {
      PyArray_Descr *inner = (PyArray_Descr *) PyTuple_GetItem (field, 0);
      gint64 offset = PyLong_AsLongLong (PyTuple_GetItem (field, 1));

      if (offset < 0 || offset > size || !is_within_itself (inner)
          || (gint64) PyDataType_ELSIZE (inner) > size - offset)
        return FALSE;
    }
  return TRUE;
}

/* No objects, and of the array's own memory. */
static PyArray_Descr *
check_descr (PyArray_Descr *descr, const char *what, GError **error)
{
  if (descr != NULL && !PyDataType_REFCHK (descr) && PyDataType_SUBARRAY (descr) == NULL && is_within_itself (descr))
    return descr;
  refuse_bytes (error, what);
  Py_XDECREF ((PyObject *) descr);
  return NULL;
}

static PyArray_Descr *
descr_from_extension (const guint8 *bytes, gsize size, GError **error)
{
  Reader reader = { bytes, bytes + size, size };
  PyArray_Descr *descr = take_descr (&reader, 0);

  if (descr != NULL && reader.p != reader.end)
    Py_CLEAR (descr);
  return check_descr (descr, "the extension of the array's header is no dtype", error);
}

/* `numpy.lib.format.descr_to_dtype (ast.literal_eval (format))`, which leaves the padding out. */
static PyArray_Descr *
descr_from_structured_format (const char *format)
{
  PyObject *ast = PyImport_ImportModule ("ast");
  PyObject *numpy = ast != NULL ? PyImport_ImportModule ("numpy.lib.format") : NULL;
  PyObject *fields = numpy != NULL ? PyObject_CallMethod (ast, "literal_eval", "s", format) : NULL;
  PyObject *descr = fields != NULL ? PyObject_CallMethod (numpy, "descr_to_dtype", "(O)", fields) : NULL;

  if (descr != NULL && !PyArray_DescrCheck (descr))
    Py_CLEAR (descr);
  Py_XDECREF (fields);
  Py_XDECREF (numpy);
  Py_XDECREF (ast);
  return (PyArray_Descr *) descr;
}

/* NumPy has no such type; without ml_dtypes elements are opaque, so that nobody calculates with the wrong numbers. */
static PyArray_Descr *
descr_from_bfloat16 (const char *format)
{
  PyObject *module = format[0] == '<' ? PyImport_ImportModule ("ml_dtypes") : NULL;
  PyArray_Descr *descr = NULL;

  if (module != NULL)
    {
      descr = convert_object (PyObject_GetAttrString (module, "bfloat16"));
      Py_DECREF (module);
    }
  if (descr != NULL && PyDataType_ELSIZE (descr) == 2)
    return descr;
  PyErr_Clear ();
  Py_XDECREF ((PyObject *) descr);
  return descr_from_type_string ("|V2");
}

static PyArray_Descr *
descr_from_format (const guint8 *bytes, gsize length, GError **error)
{
  g_autofree char *format = g_strndup ((const char *) bytes, length);
  g_autofree char *what = NULL;
  g_autofree char *shown = NULL;
  PyArray_Descr *descr = NULL;

  if (strlen (format) == length && strcmp (format + 1, "E2") == 0)
    {
      descr = descr_from_bfloat16 (format);
    }
  else if (strlen (format) == length && format[0] == '[')
    {
      static const gint64 nothing = 0;
      g_autoptr (FerryTensor) tensor
          = ferry_tensor_new_take (format, &nothing, 1, NULL, NULL, 0, 0, FALSE, NULL, NULL, error);

      /* Its parser is strict, and bounds the nesting. */
      if (tensor == NULL)
        {
          if (error != NULL && *error != NULL)
            (*error)->code = FERRY_ERROR_CODEC;
          return NULL;
        }
      descr = descr_from_structured_format (format);
    }
  else if (strlen (format) == length)
    {
      descr = descr_from_type_string (format);
    }
  format[MIN (length, 60)] = '\0';
  shown = g_strescape (format, NULL);
  what = g_strdup_printf ("the array's format \"%s\" is no dtype", shown);
  return check_descr (descr, what, error);
}

FerryDtype *
ferry_dtype_new_for_bytes (const guint8 *bytes, gsize format_length, gsize extension_length, GError **error)
{
  FerryDtype **entry = &bytes_cache[hash_bytes (bytes, format_length + extension_length) % BYTES_CACHE_SIZE];
  FerryDtype *self = *entry;
  PyArray_Descr *descr;

  if (G_LIKELY (self != NULL && self->format_length == format_length && self->extension_length == extension_length
                && memcmp (self->bytes, bytes, format_length + extension_length) == 0 && dtype_is_current (self)))
    {
      self->ref_count++;
      return self;
    }

  descr = extension_length > 0 ? descr_from_extension (bytes + format_length, extension_length, error)
                               : descr_from_format (bytes, format_length, error);
  if (descr == NULL)
    return NULL;
  self = dtype_new (descr, bytes, format_length, bytes + format_length, extension_length);
  Py_DECREF ((PyObject *) descr);
  if (format_length + extension_length <= 4096) /* bytes; what hostile senders can make us keep */
    cache_put (entry, self);
  return self;
}
