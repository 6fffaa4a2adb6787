/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ferry-native-store.h"

/*
 * What was read out of a store, as objects: cells, leaves, references. A leaf is a private copy by now, but what it says may
 * be anything: each offset and length in it is checked.
 */

/* All that a deep snapshot has made. */
typedef struct
{
  FerryNativeStore *owner;
  GHashTable *memo;   /* FerryRef to PyObject, borrowed */
  GPtrArray *objects; /* PyObject */
  GArray *pending;    /* FerryRef, held */
  GArray *held;       /* FerryRef: all that is held for it */
  GPtrArray *extras;  /* PyObject: an instance and a dict in turn */
} Deep;

typedef struct
{
  FerryNativeStore *owner;
  Deep *deep;
  const guint8 *start; /* of the outermost leaf */
  gsize total;
  gsize cursor; /* leaves within come one after the other */
  const FerryRef *refs;
  guint n_refs;
} LeafReader;

static PyObject *deep_object (Deep *deep, FerryRef ref);

static PyObject *
raise_corrupt (FerryNativeStore *owner, const char *what)
{
  g_autofree char *message
      = g_strdup_printf ("store '%s': %s; it was written by a program that has an error, or is hostile",
                         owner->live != NULL ? ferry_store_get_name (owner->live) : "(closed)", what);

  return ferry_native_raise_code (FERRY_ERROR_CORRUPT, message);
}

static gboolean
hold (FerryNativeStore *owner, FerryRef ref)
{
  GError *error = NULL;

  if (G_LIKELY (ferry_store_hold (owner->live, ref, &error)))
    return TRUE;
  ferry_native_raise (&error);
  return FALSE;
}

/* ---- str and bytes ---- */

static PyObject *
make_str (FerryNativeStore *owner, guint flags, const guint8 *data, gsize size)
{
  guint width = flags & FERRY_LEAF_WIDTH_MASK;

  if ((width != 1 && width != 2 && width != 4) || size % width != 0)
    return raise_corrupt (owner, "a str has characters of an impossible width");
  if (width == 4)
    {
      const Py_UCS4 *units = (const Py_UCS4 *) (gconstpointer) data;

      for (gsize i = 0; i < size / 4; i++)
        if (units[i] > 0x10ffff)
          return raise_corrupt (owner, "a str has a character that does not exist");
    }
  /* Looks for the widest character itself, so that what comes out is a str as it has to be. */
  return PyUnicode_FromKindAndData ((int) width, data, (Py_ssize_t) (size / width));
}

gpointer
ferry_native_reading_place (FerryReading *reading, const FerryLeaf *leaf, gsize size)
{
  PyObject *object = NULL;
  guint width = leaf->flags & FERRY_LEAF_WIDTH_MASK;

  Py_XDECREF ((PyObject *) g_steal_pointer (&reading->user_data));
  if (leaf->kind == FERRY_LEAF_BYTES)
    object = PyBytes_FromStringAndSize (NULL, (Py_ssize_t) size);
  else if (leaf->kind == FERRY_LEAF_STR && (width == 1 || width == 2 || width == 4) && size % width == 0)
    object
        = PyUnicode_New ((Py_ssize_t) (size / width), width == 1 ? ((leaf->flags & FERRY_LEAF_ASCII) != 0 ? 0x7f : 0xff)
                                                      : width == 2 ? 0xffff
                                                                   : 0x10ffff);
  if (object == NULL)
    {
      PyErr_Clear ();
      return NULL;
    }
  ferry_native_expect_writes (
      leaf->kind == FERRY_LEAF_BYTES ? (gpointer) PyBytes_AS_STRING (object) : PyUnicode_DATA (object), size);
  reading->user_data = object;
  return leaf->kind == FERRY_LEAF_BYTES ? (gpointer) PyBytes_AS_STRING (object) : PyUnicode_DATA (object);
}

/* A str whose data somebody has written: it may be other than was said. */
static PyObject *
check_str (FerryNativeStore *owner, PyObject *str)
{
  gsize length = (gsize) PyUnicode_GET_LENGTH (str);
  guint width = PyUnicode_KIND (str);
  Py_UCS4 widest = 0;
  PyObject *other;

  switch (width)
    {
    case 1:
      {
        const guint8 *units = PyUnicode_DATA (str);
        guint8 all = 0;

        for (gsize i = 0; i < length; i++)
          all |= units[i];
        widest = all;
        break;
      }

    case 2:
      {
        const guint16 *units = PyUnicode_DATA (str);
        guint16 all = 0;

        for (gsize i = 0; i < length; i++)
          all |= units[i];
        widest = all;
        break;
      }

    default:
      {
        const guint32 *units = PyUnicode_DATA (str);

        for (gsize i = 0; i < length; i++)
          widest = MAX (widest, units[i]);
        break;
      }
    }
  if ((width == 1 && (widest < 0x80) == (PyUnicode_IS_ASCII (str) != 0)) || (width == 2 && widest > 0xff)
      || (width == 4 && widest > 0xffff && widest <= 0x10ffff))
    return str;
  other = make_str (owner, width, PyUnicode_DATA (str), length * width);
  Py_DECREF (str);
  return other;
}

/* ---- leaves ---- */

static PyObject *read_leaf (LeafReader *reader, const FerryLeaf *leaf, const guint8 *data, gsize size);

static PyObject *
read_inline (FerryNativeStore *owner, FerryCell cell)
{
  switch (ferry_cell_tag (cell))
    {
    case FERRY_CELL_FLOAT:
      {
        double number;

        memcpy (&number, &cell, sizeof number);
        return PyFloat_FromDouble (number);
      }

    case FERRY_CELL_INT:
      return PyLong_FromLongLong (ferry_cell_int (cell));

    case FERRY_CELL_STR:
    case FERRY_CELL_BYTES:
      {
        guint8 data[8] = { 0 };
        gsize length = MIN (ferry_cell_payload (cell) >> 40, (gsize) FERRY_CELL_INLINE_MAX);

        for (gsize i = 0; i < length; i++)
          data[i] = (guint8) (cell >> (8 * i));
        return ferry_cell_tag (cell) == FERRY_CELL_STR
                   ? PyUnicode_FromKindAndData (PyUnicode_1BYTE_KIND, data, (Py_ssize_t) length)
                   : PyBytes_FromStringAndSize ((const char *) data, (Py_ssize_t) length);
      }

    case FERRY_CELL_CONSTANT:
      switch (ferry_cell_payload (cell))
        {
        case FERRY_CONSTANT_NONE:
          return Py_NewRef (Py_None);

        case FERRY_CONSTANT_FALSE:
          return Py_NewRef (Py_False);

        case FERRY_CONSTANT_TRUE:
          return Py_NewRef (Py_True);

        case FERRY_CONSTANT_ELLIPSIS:
          return Py_NewRef (Py_Ellipsis);

        case FERRY_CONSTANT_NOT_IMPLEMENTED:
          return Py_NewRef (Py_NotImplemented);

        default:
          return raise_corrupt (owner, "a value is of no kind");
        }

    default:
      return raise_corrupt (owner, "a value is of no kind");
    }
}

PyObject *
ferry_native_inline_object_slow (FerryNativeStore *owner, FerryCell cell)
{
  return read_inline (owner, cell);
}

static PyObject *
read_reference (LeafReader *reader, guint64 index)
{
  FerryRef ref;

  if (index >= reader->n_refs)
    return raise_corrupt (reader->owner, "a tuple refers to an object that it does not have");
  ref = reader->refs[index];
  if (reader->deep != NULL)
    return deep_object (reader->deep, ref);
  if (ferry_native_store_get (reader->owner) == NULL)
    return NULL;
  if (!hold (reader->owner, ref))
    return NULL;
  return ferry_native_object_for (reader->owner, ref);
}

/* The cells of a tuple or the like, as a tuple. */
static PyObject *
read_cells (LeafReader *reader, const guint8 *data, gsize size)
{
  gsize limit = size;
  gsize n = 0;
  PyObject *tuple = NULL;
  gsize data_offset = (gsize) (data - reader->start);

  /* They end where the first leaf begins. */
  for (gsize at = 0; at + sizeof (FerryCell) <= limit; at += sizeof (FerryCell), n++)
    {
      FerryCell cell;

      memcpy (&cell, data + at, sizeof cell);
      if (ferry_cell_tag (cell) == FERRY_CELL_LEAF)
        {
          gsize offset = ferry_cell_payload (cell);

          if (offset <= data_offset + at || offset - data_offset > size)
            return raise_corrupt (reader->owner, "a tuple has a part outside of it");
          limit = MIN (limit, offset - data_offset);
        }
    }
  if (Py_EnterRecursiveCall (" while reading a tuple out of a store"))
    return NULL;
  reader->cursor = MAX (reader->cursor, data_offset + n * sizeof (FerryCell));
  tuple = PyTuple_New ((Py_ssize_t) n);
  for (gsize i = 0; tuple != NULL && i < n; i++)
    {
      FerryCell cell;
      PyObject *item;

      memcpy (&cell, data + i * sizeof cell, sizeof cell);
      if (ferry_cell_tag (cell) == FERRY_CELL_LEAF)
        {
          gsize offset = ferry_cell_payload (cell);
          FerryLeaf leaf;

          if (offset % 8 != 0 || offset < reader->cursor || offset - data_offset > size
              || size - (offset - data_offset) < sizeof leaf)
            {
              item = raise_corrupt (reader->owner, "a tuple has a part outside of it");
            }
          else
            {
              memcpy (&leaf, reader->start + offset, sizeof leaf);
              if (leaf.n_refs != 0 || leaf.size > size - (offset - data_offset) - sizeof leaf)
                {
                  item = raise_corrupt (reader->owner, "a tuple has a part that is larger than itself");
                }
              else
                {
                  reader->cursor = offset + sizeof leaf;
                  item = read_leaf (reader, &leaf, reader->start + offset + sizeof leaf, leaf.size);
                  reader->cursor = MAX (reader->cursor, offset + sizeof leaf + leaf.size);
                }
            }
        }
      else if (ferry_cell_tag (cell) == FERRY_CELL_OBJECT)
        {
          item = read_reference (reader, ferry_cell_payload (cell));
        }
      else
        {
          item = read_inline (reader->owner, cell);
        }
      if (item == NULL)
        Py_CLEAR (tuple);
      else
        PyTuple_SET_ITEM (tuple, i, item);
    }
  Py_LeaveRecursiveCall ();
  return tuple;
}

static PyObject *
read_codec (FerryNativeStore *owner, const guint8 *data, gsize size)
{
  const FerryNativeCodec *codec = ferry_native_get_codec ("python", owner->pickle);
  g_autoptr (GBytes) bytes = NULL;
  g_autoptr (GError) error = NULL;
  FerryBuffer *buffer;
  GValue value = G_VALUE_INIT;
  PyObject *result = NULL;

  if (codec == NULL)
    return NULL;
  bytes = g_bytes_new (data, size);
  buffer = ferry_buffer_new_bytes (bytes);
  if (ferry_codec_decode (codec->codec, buffer, ferry_codec_get_wire_version (codec->codec), &value, &error))
    {
      PyObject *object = g_value_get_boxed (&value);

      result = Py_NewRef (object != NULL ? object : Py_None);
      g_value_unset (&value);
    }
  else
    {
      if (G_VALUE_TYPE (&value) != 0)
        g_value_unset (&value);
      if (!owner->pickle && !PyErr_Occurred ())
        result = ferry_native_store_call ("_raise_not_readable", "(s)", error != NULL ? error->message : "");
      else
        ferry_native_raise (&error);
    }
  ferry_buffer_unref (buffer);
  return result;
}

static PyObject *
read_leaf (LeafReader *reader, const FerryLeaf *leaf, const guint8 *data, gsize size)
{
  FerryNativeStore *owner = reader->owner;
  PyObject *parts;
  PyObject *result = NULL;

  switch (leaf->kind)
    {
    case FERRY_LEAF_STR:
      return make_str (owner, leaf->flags, data, size);

    case FERRY_LEAF_BYTES:
      return PyBytes_FromStringAndSize ((const char *) data, (Py_ssize_t) size);

    case FERRY_LEAF_INT:
      return _PyLong_FromByteArray (data, size, 1, 1);

    case FERRY_LEAF_FLOAT:
      {
        double number;

        if (size != sizeof number)
          return raise_corrupt (owner, "a float has a wrong size");
        memcpy (&number, data, sizeof number);
        return PyFloat_FromDouble (number);
      }

    case FERRY_LEAF_COMPLEX:
      {
        double numbers[2];

        if (size != sizeof numbers)
          return raise_corrupt (owner, "a complex number has a wrong size");
        memcpy (numbers, data, sizeof numbers);
        return PyComplex_FromDoubles (numbers[0], numbers[1]);
      }

    case FERRY_LEAF_TUPLE:
    case FERRY_LEAF_SHAPE:
    case FERRY_LEAF_ARRAY:
      parts = read_cells (reader, data, size);
      if (parts == NULL || (leaf->flags & FERRY_LEAF_NAMED) == 0)
        return parts;
      result = ferry_native_store_call ("_make_named", "(OO)", parts, owner->pickle ? Py_True : Py_False);
      Py_DECREF (parts);
      return result;

    case FERRY_LEAF_FROZENSET:
      parts = read_cells (reader, data, size);
      if (parts == NULL)
        return NULL;
      result = PyFrozenSet_New (parts);
      Py_DECREF (parts);
      return result;

    case FERRY_LEAF_SLICE:
      parts = read_cells (reader, data, size);
      if (parts == NULL)
        return NULL;
      if (PyTuple_GET_SIZE (parts) == 3)
        result = PySlice_New (PyTuple_GET_ITEM (parts, 0), PyTuple_GET_ITEM (parts, 1), PyTuple_GET_ITEM (parts, 2));
      else
        raise_corrupt (owner, "a slice has not three parts");
      Py_DECREF (parts);
      return result;

    case FERRY_LEAF_CODEC:
      parts = read_codec (owner, data, size);
      if (parts == NULL || (leaf->flags & FERRY_LEAF_MEMBER) == 0)
        return parts;
      result = ferry_native_store_call ("_make_member", "(OO)", parts, owner->pickle ? Py_True : Py_False);
      Py_DECREF (parts);
      return result;

    default:
      return raise_corrupt (owner, "a value is of no kind");
    }
}

/* A whole leaf with its references, which stay the caller's. */
static PyObject *
read_outermost (FerryNativeStore *owner, Deep *deep, const FerryLeaf *leaf)
{
  LeafReader reader = { .owner = owner, .deep = deep };

  reader.start = (const guint8 *) leaf;
  reader.refs = (const FerryRef *) (gconstpointer) leaf->data;
  reader.n_refs = leaf->n_refs;
  reader.total = sizeof *leaf + (gsize) leaf->n_refs * sizeof (FerryRef) + leaf->size;
  return read_leaf (&reader, leaf, leaf->data + (gsize) leaf->n_refs * sizeof (FerryRef), leaf->size);
}

/* ---- readings ---- */

static void
unhold_refs (FerryNativeStore *owner, const FerryLeaf *leaf)
{
  FerryStore *store = ferry_native_store_get_to_unhold (owner);
  const FerryRef *refs = (const FerryRef *) (gconstpointer) leaf->data;

  for (guint i = 0; store != NULL && i < leaf->n_refs; i++)
    ferry_store_unhold (store, refs[i]);
}

void
ferry_native_reading_drop (FerryNativeStore *owner, FerryReading *reading)
{
  FerryStore *store = ferry_native_store_get_to_unhold (owner);

  if (ferry_cell_tag (reading->cell) == FERRY_CELL_OBJECT)
    {
      if (store != NULL)
        ferry_store_unhold (store, ferry_cell_payload (reading->cell));
    }
  else if (ferry_cell_tag (reading->cell) == FERRY_CELL_LEAF && reading->leaf != NULL && reading->leaf->n_refs > 0)
    {
      unhold_refs (owner, reading->leaf);
    }
  Py_XDECREF ((PyObject *) g_steal_pointer (&reading->user_data));
  if (reading->memory != NULL)
    ferry_reading_clear (reading);
}

PyObject *
ferry_native_reading_take_slow (FerryNativeStore *owner, FerryReading *reading)
{
  PyObject *placed = g_steal_pointer (&reading->user_data);
  PyObject *result;

  switch (ferry_cell_tag (reading->cell))
    {
    case FERRY_CELL_OBJECT:
      result = ferry_native_object_for (owner, ferry_cell_payload (reading->cell));
      break;

    case FERRY_CELL_LEAF:
      if (reading->leaf == NULL)
        {
          result = raise_corrupt (owner, "a value has no contents");
        }
      else if (reading->placed && placed != NULL)
        {
          result = PyUnicode_Check (placed) ? check_str (owner, placed) : placed;
          placed = NULL;
        }
      else if (reading->leaf->kind == FERRY_LEAF_STR && reading->leaf->n_refs == 0)
        {
          result = make_str (owner, reading->leaf->flags, reading->leaf->data, reading->leaf->size);
        }
      else
        {
          result = read_outermost (owner, NULL, reading->leaf);
          unhold_refs (owner, reading->leaf);
        }
      break;

    default:
      result = read_inline (owner, reading->cell);
      break;
    }
  Py_XDECREF (placed);
  if (reading->memory != NULL)
    ferry_reading_clear (reading);
  return result;
}

/* ---- proxies ---- */

PyObject *
ferry_native_proxy_new (FerryNativeStore *owner, PyTypeObject *type, FerryRef ref)
{
  FerryNativeProxy *self = PyObject_New (FerryNativeProxy, type);

  if (self == NULL)
    {
      ferry_store_unhold (owner->live, ref);
      return NULL;
    }
  self->owner = (FerryNativeStore *) Py_NewRef ((PyObject *) owner);
  self->ref = ref;
  self->weakrefs = NULL;
  ferry_store_set_binding (owner->live, ref, self);
  return (PyObject *) self;
}

void
ferry_native_proxy_dealloc (PyObject *object)
{
  FerryNativeProxy *self = FERRY_NATIVE_PROXY (object);
  FerryStore *store = ferry_native_store_get_to_unhold (self->owner);

  if (self->weakrefs != NULL)
    PyObject_ClearWeakRefs (object);
  if (G_LIKELY (store != NULL))
    {
      if (ferry_store_get_binding (store, self->ref) == self)
        ferry_store_set_binding (store, self->ref, NULL);
      ferry_store_unhold (store, self->ref);
    }
  Py_DECREF ((PyObject *) self->owner);
  PyObject_Free (self);
}

static PyTypeObject *
get_proxy_type (FerryObjectKind kind)
{
  switch (kind)
    {
    case FERRY_OBJECT_LIST:
      return &FerryNativeList_Type;

    case FERRY_OBJECT_DICT:
      return &FerryNativeDict_Type;

    case FERRY_OBJECT_SET:
      return &FerryNativeSet_Type;

    case FERRY_OBJECT_BYTEARRAY:
      return &FerryNativeByteArray_Type;

    default:
      return NULL;
    }
}

PyObject *
ferry_native_object_for (FerryNativeStore *owner, FerryRef ref)
{
  FerryStore *store = ferry_native_store_get (owner);
  PyObject *bound;
  FerryObjectKind kind;
  PyTypeObject *type;

  if (G_UNLIKELY (store == NULL))
    return NULL;
  bound = ferry_store_get_binding (store, ref);
  /* One that is just being freed is none any more. */
  if (bound != NULL && Py_REFCNT (bound) > 0)
    {
      if (G_UNLIKELY (Py_IS_TYPE (bound, &FerryNativeArray_Type)))
        return ferry_native_array_view (owner, ref);
      Py_INCREF (bound);
      ferry_store_unhold (store, ref);
      return bound;
    }
  kind = ferry_store_object_kind (store, ref);
  type = get_proxy_type (kind);
  if (type != NULL)
    return ferry_native_proxy_new (owner, type, ref);
  if (kind == FERRY_OBJECT_RECORD)
    return ferry_native_record_new (owner, ref);
  if (kind == FERRY_OBJECT_ARRAY)
    return ferry_native_array_view (owner, ref);
  ferry_store_unhold (store, ref);
  return raise_corrupt (owner, "an object is of no kind");
}

gboolean
ferry_native_find_live (PyObject *object, FerryNativeStore **owner, FerryRef *ref)
{
  FerryNativeProxy *proxy;

  if (ferry_native_is_proxy (object))
    proxy = FERRY_NATIVE_PROXY (object);
  else if (ferry_native_is_record (object))
    proxy = ferry_native_record_get_handle (object);
  else
    proxy = ferry_native_array_get_proxy (object);
  if (proxy == NULL)
    return FALSE;
  *owner = proxy->owner;
  /* its first use in a fork child may find that it is gone; if there is none, who goes on fails in the same way */
  if (G_UNLIKELY ((*owner)->is_forked) && ferry_native_store_get_slow (*owner) == NULL)
    PyErr_Clear ();
  *ref = proxy->ref;
  return TRUE;
}

/* ---- snapshots ---- */

/* What a cell of a snapshot says. References stay the snapshot's. */
static PyObject *
read_snapshot_cell (FerryNativeStore *owner, Deep *deep, const FerrySnapshot *snapshot, FerryCell cell)
{
  switch (ferry_cell_tag (cell))
    {
    case FERRY_CELL_OBJECT:
      if (deep != NULL)
        return deep_object (deep, ferry_cell_payload (cell));
      if (ferry_native_store_get (owner) == NULL)
        return NULL;
      if (!hold (owner, ferry_cell_payload (cell)))
        return NULL;
      return ferry_native_object_for (owner, ferry_cell_payload (cell));

    case FERRY_CELL_LEAF:
      {
        gsize offset = ferry_cell_payload (cell);
        const FerryLeaf *leaf = (const FerryLeaf *) (gconstpointer) (snapshot->memory + offset);

        if (offset > snapshot->memory_size || snapshot->memory_size - offset < sizeof *leaf)
          return raise_corrupt (owner, "a value is not there");
        return read_outermost (owner, deep, leaf);
      }

    default:
      return read_inline (owner, cell);
    }
}

PyObject *
ferry_native_shallow_cells (FerryNativeStore *owner, FerryRef ref, guint64 *version)
{
  FerryStore *store = ferry_native_store_get (owner);
  FerrySnapshot snapshot = { 0 };
  g_autoptr (GError) error = NULL;
  PyObject *list;

  if (store == NULL)
    return NULL;
  if (!ferry_store_snapshot (store, ref, &snapshot, &error))
    {
      ferry_store_snapshot_clear (store, &snapshot);
      return ferry_native_raise (&error);
    }
  if (version != NULL)
    *version = snapshot.version;
  list = PyList_New ((Py_ssize_t) snapshot.n);
  for (gsize i = 0; list != NULL && i < snapshot.n; i++)
    {
      PyObject *item = snapshot.cells[i] == FERRY_CELL_EMPTY
                           ? Py_NewRef (Py_None)
                           : read_snapshot_cell (owner, NULL, &snapshot, snapshot.cells[i]);

      if (item == NULL)
        Py_CLEAR (list);
      else
        PyList_SET_ITEM (list, i, item);
    }
  ferry_store_snapshot_clear (store, &snapshot); /* also of one that is closed by now */
  return list;
}

/* Keys and values in turn to a dict, or keys and nothing to a set. */
static PyObject *
make_dict (PyObject *cells)
{
  PyObject *dict = PyDict_New ();

  for (Py_ssize_t i = 0; dict != NULL && i + 1 < PyList_GET_SIZE (cells); i += 2)
    if (PyDict_SetItem (dict, PyList_GET_ITEM (cells, i), PyList_GET_ITEM (cells, i + 1)) < 0)
      Py_CLEAR (dict);
  return dict;
}

static PyObject *
read_bytearray (FerryNativeStore *owner, FerryRef ref)
{
  FerryStore *store = ferry_native_store_get (owner);
  PyObject *result = PyByteArray_FromStringAndSize (NULL, 0);
  g_autoptr (GError) error = NULL;

  if (store == NULL)
    Py_CLEAR (result);
  while (result != NULL)
    {
      gssize size = ferry_store_bytearray_length (store, ref);
      gssize n;

      /* One byte more than it has, to see whether it grew. */
      if (size < 0)
        {
          raise_corrupt (owner, "a bytearray has no length");
          Py_CLEAR (result);
        }
      else if (PyByteArray_Resize (result, size + 1) < 0)
        {
          Py_CLEAR (result);
        }
      else
        {
          n = ferry_store_bytearray_read (store, ref, 0, PyByteArray_AS_STRING (result), (gsize) size + 1, &error);
          if (n < 0)
            {
              ferry_native_raise (&error);
              Py_CLEAR (result);
            }
          else if (n <= size)
            {
              if (PyByteArray_Resize (result, n) < 0)
                Py_CLEAR (result);
              return result;
            }
        }
    }
  return NULL;
}

PyObject *
ferry_native_plain (PyObject *object, guint64 *version)
{
  FerryNativeProxy *self = FERRY_NATIVE_PROXY (object);
  PyTypeObject *type = Py_TYPE (object);
  PyObject *cells;
  PyObject *result;

  if (!ferry_native_check_there (self->owner, &self->ref))
    return NULL;
  if (type == &FerryNativeByteArray_Type)
    {
      if (version != NULL)
        *version = ferry_store_object_version (self->owner->live, self->ref);
      return read_bytearray (self->owner, self->ref);
    }
  cells = ferry_native_shallow_cells (self->owner, self->ref, version);
  if (cells == NULL || type == &FerryNativeList_Type)
    return cells;
  result = type == &FerryNativeDict_Type ? make_dict (cells) : PySet_New (cells);
  Py_DECREF (cells);
  return result;
}

static PyObject *
deep_object (Deep *deep, FerryRef ref)
{
  FerryNativeStore *owner = deep->owner;
  PyObject *object = g_hash_table_lookup (deep->memo, GSIZE_TO_POINTER ((gsize) ref));
  gboolean is_filled_later = TRUE;

  if (object != NULL)
    return Py_NewRef (object);
  if (ferry_native_store_get (owner) == NULL)
    return NULL;
  if (!hold (owner, ref))
    return NULL;
  g_array_append_val (deep->held, ref);
  switch (ferry_store_object_kind (owner->live, ref))
    {
    case FERRY_OBJECT_LIST:
      object = PyList_New (0);
      break;

    case FERRY_OBJECT_DICT:
      object = PyDict_New ();
      break;

    case FERRY_OBJECT_SET:
      object = PySet_New (NULL);
      break;

    case FERRY_OBJECT_RECORD:
      object = ferry_native_record_plain (owner, ref, NULL);
      break;

    case FERRY_OBJECT_BYTEARRAY:
      object = read_bytearray (owner, ref);
      is_filled_later = FALSE;
      break;

    case FERRY_OBJECT_ARRAY:
      if (ferry_store_hold (owner->live, ref, NULL))
        {
          PyObject *view = ferry_native_array_view (owner, ref);

          object = view != NULL ? ferry_native_store_call ("_copy_array", "(O)", view) : NULL;
          Py_XDECREF (view);
        }
      is_filled_later = FALSE;
      break;

    default:
      raise_corrupt (owner, "an object is of no kind");
      break;
    }
  if (object == NULL)
    return NULL;
  g_hash_table_insert (deep->memo, GSIZE_TO_POINTER ((gsize) ref), object);
  g_ptr_array_add (deep->objects, object);
  if (is_filled_later)
    g_array_append_val (deep->pending, ref);
  return Py_NewRef (object);
}

static gboolean
fill_deep (Deep *deep, FerryRef ref)
{
  FerryNativeStore *owner = deep->owner;
  PyObject *object = g_hash_table_lookup (deep->memo, GSIZE_TO_POINTER ((gsize) ref));
  FerrySnapshot snapshot = { 0 };
  g_autoptr (GError) error = NULL;
  FerryNativeLive *live = NULL;
  gboolean ok = TRUE;

  if (ferry_native_store_get (owner) == NULL)
    return FALSE;
  if (!PyList_CheckExact (object) && !PyDict_CheckExact (object) && !PySet_Check (object))
    {
      PyObject *again = ferry_native_record_plain (owner, ref, &live);

      if (again == NULL)
        return FALSE;
      Py_DECREF (again);
    }
  if (!ferry_store_snapshot (owner->live, ref, &snapshot, &error))
    {
      ferry_store_snapshot_clear (owner->live, &snapshot);
      ferry_native_raise (&error);
      return FALSE;
    }
  for (gsize i = 0; ok && i < snapshot.n; i++)
    {
      PyObject *item;

      if (snapshot.cells[i] == FERRY_CELL_EMPTY)
        continue;
      item = read_snapshot_cell (owner, deep, &snapshot, snapshot.cells[i]);
      if (item == NULL)
        {
          ok = FALSE;
        }
      else if (live != NULL)
        {
          if (i < (gsize) PyTuple_GET_SIZE (live->names))
            {
              ok = ferry_native_record_set_plain (object, PyTuple_GET_ITEM (live->names, i), item);
            }
          else if (PyDict_Check (item))
            {
              g_ptr_array_add (deep->extras, object);
              g_ptr_array_add (deep->extras, item);
            }
        }
      else if (PyList_CheckExact (object))
        {
          ok = PyList_Append (object, item) == 0;
        }
      else if (PyDict_CheckExact (object))
        {
          PyObject *value
              = i + 1 < snapshot.n ? read_snapshot_cell (owner, deep, &snapshot, snapshot.cells[i + 1]) : NULL;

          ok = value != NULL && PyDict_SetItem (object, item, value) == 0;
          Py_XDECREF (value);
          i++;
        }
      else
        {
          ok = PySet_Add (object, item) == 0;
        }
      Py_XDECREF (item);
    }
  ferry_store_snapshot_clear (owner->store, &snapshot);
  return ok;
}

PyObject *
ferry_native_deep_snapshot (FerryNativeStore *owner, FerryRef ref)
{
  Deep deep = { .owner = owner };
  FerryStore *store;
  PyObject *result;
  gboolean ok;

  deep.memo = g_hash_table_new (NULL, NULL);
  deep.objects = g_ptr_array_new ();
  deep.pending = g_array_new (FALSE, FALSE, sizeof (FerryRef));
  deep.held = g_array_new (FALSE, FALSE, sizeof (FerryRef));
  deep.extras = g_ptr_array_new ();
  result = deep_object (&deep, ref);
  ok = result != NULL;
  for (guint i = 0; ok && i < deep.pending->len; i++)
    ok = fill_deep (&deep, g_array_index (deep.pending, FerryRef, i));
  for (guint i = 0; ok && i < deep.extras->len; i += 2)
    {
      PyObject *key;
      PyObject *value;
      Py_ssize_t position = 0;

      while (ok && PyDict_Next (deep.extras->pdata[i + 1], &position, &key, &value))
        ok = ferry_native_record_set_plain (deep.extras->pdata[i], key, value);
    }
  /* reading runs code: the store may be closed by now, or this be a fork child that has not used it yet */
  store = ferry_native_store_get_to_unhold (owner);
  for (guint i = 0; store != NULL && i < deep.held->len; i++)
    ferry_store_unhold (store, g_array_index (deep.held, FerryRef, i));
  for (guint i = 0; i < deep.objects->len; i++)
    Py_DECREF ((PyObject *) deep.objects->pdata[i]);
  g_hash_table_unref (deep.memo);
  g_ptr_array_unref (deep.objects);
  g_ptr_array_unref (deep.extras);
  g_array_unref (deep.pending);
  g_array_unref (deep.held);
  if (!ok)
    Py_CLEAR (result);
  return result;
}

PyObject *
ferry_native_proxy_snapshot (PyObject *self, PyObject *unused)
{
  if (ferry_native_store_get (FERRY_NATIVE_PROXY (self)->owner) == NULL)
    return NULL;
  return ferry_native_deep_snapshot (FERRY_NATIVE_PROXY (self)->owner, FERRY_NATIVE_PROXY (self)->ref);
}

PyObject *
ferry_native_proxy_deepcopy (PyObject *self, PyObject *memo)
{
  return ferry_native_proxy_snapshot (self, NULL);
}

PyObject *
ferry_native_proxy_compare (PyObject *self, PyObject *other, int op)
{
  PyObject *plain;
  PyObject *other_plain = NULL;
  PyObject *result;

  if (Py_IS_TYPE (other, Py_TYPE (self)))
    {
      /* The same object has the same elements, also those that aren't equal to themselves. */
      gboolean same = FERRY_NATIVE_PROXY (self)->owner == FERRY_NATIVE_PROXY (other)->owner
                      && FERRY_NATIVE_PROXY (self)->ref == FERRY_NATIVE_PROXY (other)->ref;

      plain = ferry_native_plain (self, NULL);
      if (plain != NULL)
        other_plain = same ? Py_NewRef (plain) : ferry_native_plain (other, NULL);
    }
  else
    {
      if (ferry_native_is_proxy (other))
        Py_RETURN_NOTIMPLEMENTED;
      plain = NULL;
      if ((Py_IS_TYPE (self, &FerryNativeList_Type) && !PyList_Check (other))
          || (Py_IS_TYPE (self, &FerryNativeDict_Type) && !PyDict_Check (other)))
        Py_RETURN_NOTIMPLEMENTED;
      plain = ferry_native_plain (self, NULL);
      other_plain = Py_NewRef (other);
    }
  if (plain == NULL || other_plain == NULL)
    {
      Py_XDECREF (plain);
      Py_XDECREF (other_plain);
      return NULL;
    }
  if (Py_EnterRecursiveCall (" in comparison"))
    {
      Py_DECREF (plain);
      Py_DECREF (other_plain);
      return NULL;
    }
  result = Py_TYPE (plain)->tp_richcompare (plain, other_plain, op);
  Py_LeaveRecursiveCall ();
  Py_DECREF (plain);
  Py_DECREF (other_plain);
  return result;
}

/* ---- comparing keys ---- */

static PyObject *
make_candidate (FerryNativeStore *owner, const FerryReading *candidate)
{
  if (ferry_cell_tag (candidate->cell) == FERRY_CELL_LEAF)
    {
      if (candidate->leaf == NULL)
        return NULL;
      if (candidate->placed)
        return NULL;
      return read_outermost (owner, NULL, candidate->leaf);
    }
  return read_inline (owner, candidate->cell);
}

/* Whether comparing runs no code but the interpreter's. */
static gboolean
is_basic (PyObject *object)
{
  PyTypeObject *type = Py_TYPE (object);

  if (type == &PyTuple_Type)
    {
      for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE (object); i++)
        if (!is_basic (PyTuple_GET_ITEM (object, i)))
          return FALSE;
      return TRUE;
    }
  return type == &PyLong_Type || type == &PyFloat_Type || type == &PyUnicode_Type || type == &PyBytes_Type
         || type == &PyBool_Type || type == &PyComplex_Type || object == Py_None || object == Py_Ellipsis
         || object == Py_NotImplemented;
}

static gboolean
has_codec (const guint8 *data, gsize size, guint kind, guint flags)
{
  /* Anything but plain parts may need code to be made. */
  if (kind == FERRY_LEAF_CODEC || kind == FERRY_LEAF_FROZENSET || (flags & FERRY_LEAF_NAMED) != 0)
    return TRUE;
  if (kind != FERRY_LEAF_TUPLE)
    return FALSE;
  for (gsize at = 0; at + sizeof (FerryCell) <= size; at += sizeof (FerryCell))
    {
      FerryCell cell;

      memcpy (&cell, data + at, sizeof cell);
      if (ferry_cell_tag (cell) == FERRY_CELL_LEAF || ferry_cell_tag (cell) == FERRY_CELL_OBJECT)
        return TRUE;
    }
  return FALSE;
}

int
ferry_native_key_equal (const FerryKey *key, const FerryReading *candidate)
{
  FerryNativeKey *self = key->user_data;
  PyObject *other;
  int collects;
  int equal;

  if (!is_basic (self->object))
    return -1;
  if (ferry_cell_tag (candidate->cell) == FERRY_CELL_LEAF
      && (candidate->leaf == NULL || candidate->placed || candidate->leaf->n_refs > 0
          || has_codec (candidate->leaf->data, candidate->leaf->size, candidate->leaf->kind, candidate->leaf->flags)))
    return -1;
  /* No code: neither that of objects that become garbage just now. */
  collects = PyGC_Disable ();
  other = make_candidate (self->owner, candidate);
  equal = other != NULL ? PyObject_RichCompareBool (other, self->object, Py_EQ) : -1;
  Py_XDECREF (other);
  if (collects)
    PyGC_Enable ();
  if (equal < 0)
    PyErr_Clear ();
  return equal;
}

gboolean
ferry_native_key_resolve (FerryNativeKey *self, FerryRef ref)
{
  FerryStore *store = ferry_native_store_get (self->owner);
  g_autoptr (GError) error = NULL;
  FerrySnapshot *snapshot;

  if (store == NULL)
    return FALSE;
  self->key.equal = NULL; /* from now on only the same bytes are the same */
  if (self->snapshot != NULL)
    return TRUE;
  snapshot = self->snapshot = g_new0 (FerrySnapshot, 1);
  if (!ferry_store_snapshot (store, ref, snapshot, &error))
    {
      ferry_native_raise (&error);
      return FALSE;
    }
  for (gsize i = 0; i < snapshot->n; i += ferry_store_object_kind (store, ref) == FERRY_OBJECT_SET ? 1 : 2)
    {
      FerryCell cell = snapshot->cells[i];
      gsize offset = ferry_cell_payload (cell);
      PyObject *other;
      int equal;

      /* What is equal has the same hash; only that is worth reading. */
      if (ferry_cell_tag (cell) == FERRY_CELL_LEAF && offset + sizeof (FerryLeaf) <= snapshot->memory_size
          && ((const FerryLeaf *) (gconstpointer) (snapshot->memory + offset))->hash != self->key.hash)
        continue;
      other = read_snapshot_cell (self->owner, NULL, snapshot, cell);
      if (other == NULL)
        {
          /* Of a class that this process does not have, for example: it is not equal to what it has. */
          if (!PyErr_ExceptionMatches (PyExc_Exception))
            return FALSE;
          PyErr_Clear ();
          continue;
        }
      equal = PyObject_RichCompareBool (other, self->object, Py_EQ);
      if (equal > 0)
        {
          if (ferry_cell_tag (cell) == FERRY_CELL_LEAF)
            {
              const FerryLeaf *leaf
                  = (const FerryLeaf *) (gconstpointer) (snapshot->memory + ferry_cell_payload (cell));

              self->key.cell = FERRY_CELL (FERRY_CELL_LEAF, 0);
              self->key.kind = leaf->kind;
              self->key.flags = leaf->flags;
              self->key.hash = leaf->hash;
              self->key.data = leaf->data + (gsize) leaf->n_refs * sizeof (FerryRef);
              self->key.size = leaf->size;
            }
          else
            {
              /* Equal keys have equal hashes. */
              self->key.cell = cell;
            }
          Py_DECREF (other);
          return TRUE;
        }
      Py_DECREF (other);
      if (equal < 0)
        return FALSE;
    }
  return TRUE;
}
