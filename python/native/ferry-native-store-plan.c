/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ferry-native-store.h"

/*
 * A plan: values on their way into a store. They are looked at, with whatever code that runs, before the stretch of work in
 * which they are made.
 *
 * What has an identity becomes a node, once, so that what is shared and what is cyclic stays so; nodes are numbered as they
 * are met, and expanded one after the other instead of within each other, so that depth costs nothing. They are made from
 * the last to the first: what a node refers to has mostly a higher number. Those that somebody with a higher number refers
 * to are made empty before all others, and filled later.
 */

typedef struct
{
  guint8 kind;
  guint8 flags;
  guint32 hash;
  gconstpointer external; /* of an object that is kept; NULL: in the bytes of the plan */
  gsize offset;           /* there */
  gsize size;
  gsize first_ref;
  guint n_refs;
} PlanLeaf;

typedef struct
{
  FerryObjectKind kind;
  gboolean is_live;   /* it is in the store already */
  gboolean is_early;  /* made empty, and filled later */
  gboolean is_filled; /* its cells are its own */
  gboolean is_owned;  /* the cell that was made is still ours */
  PyObject *object;   /* borrowed, for it is kept */
  FerryRef ref;
  FerryCell cell;
  gsize first_cell;
  gsize n_cells;
  gsize first_hash;
  gssize leaf;         /* of a shape or a description of an array; -1: none */
  PyObject *shape_key; /* borrowed */
  FerryNativeArraySource source;
  gboolean is_held; /* an array that was made before the others */
} PlanNode;

struct _FerryNativePlan
{
  FerryNativeStore *owner;
  GArray *roots;  /* FerryCell: with the number of a leaf or a node as payload, later the real ones */
  GArray *hashes; /* guint32, of the roots */
  GArray *cells;  /* FerryCell, of nodes */
  GArray *node_hashes;
  GArray *leaves; /* PlanLeaf */
  GArray *nodes;  /* PlanNode */
  GArray *refs;   /* gsize: numbers of nodes */
  GArray *moved;  /* gsize: where in bytes cells with offsets of leaves are */
  GByteArray *bytes;
  GPtrArray *keep;   /* PyObject */
  GHashTable *memo;  /* PyObject to number of its node and 1, when there are many nodes */
  GArray *made_refs; /* FerryRef */
  gsize leaf_start;  /* of the outermost leaf that is being built */
  gsize leaf_first_ref;
  gsize n_expanded;
  guint depth;
  FerryNativePlan *next; /* while unused */
};

#define POOL_MAX (4)
#define KEPT_MAX (4096)          /* elements of arrays that are kept with an unused plan */
#define LARGE_ARRAY (256 * 1024) /* bytes */
#define MEMO_MIN (16)            /* nodes from which on a table finds them */
#define SHAPE_NAMES_MAX (4096)

static FerryNativePlan *pool;
static guint n_pooled;

#define NODE(plan, i) (&g_array_index ((plan)->nodes, PlanNode, i))
#define CELL(plan, i) (g_array_index ((plan)->cells, FerryCell, i))

FerryNativePlan *
ferry_native_plan_new (FerryNativeStore *owner)
{
  FerryNativePlan *self = pool;

  if (G_LIKELY (self != NULL))
    {
      pool = self->next;
      n_pooled--;
    }
  else
    {
      self = g_new0 (FerryNativePlan, 1);
      /* Its data is never NULL, which would say that it couldn't be made. */
      self->roots = g_array_sized_new (FALSE, FALSE, sizeof (FerryCell), 1);
      self->hashes = g_array_new (FALSE, FALSE, sizeof (guint32));
      self->cells = g_array_new (FALSE, FALSE, sizeof (FerryCell));
      self->node_hashes = g_array_new (FALSE, FALSE, sizeof (guint32));
      self->leaves = g_array_new (FALSE, FALSE, sizeof (PlanLeaf));
      self->nodes = g_array_new (FALSE, FALSE, sizeof (PlanNode));
      self->refs = g_array_new (FALSE, FALSE, sizeof (gsize));
      self->moved = g_array_new (FALSE, FALSE, sizeof (gsize));
      self->made_refs = g_array_new (FALSE, FALSE, sizeof (FerryRef));
      self->bytes = g_byte_array_new ();
      self->keep = g_ptr_array_new ();
    }
  self->owner = (FerryNativeStore *) Py_NewRef ((PyObject *) owner);
  self->n_expanded = 0;
  self->depth = 0;
  return self;
}

void
ferry_native_plan_free (FerryNativePlan *self)
{
  FerryStore *store;
  guint n_keep;
  PyObject *owner;

  if (self == NULL)
    return;
  for (guint i = 0; i < self->nodes->len; i++)
    {
      if (NODE (self, i)->is_held)
        {
          if (NODE (self, i)->is_owned && ferry_native_store_begin (self->owner))
            {
              ferry_store_release_cell (self->owner->live, NODE (self, i)->cell);
              ferry_store_end (self->owner->live);
            }
          store = ferry_native_store_get_to_unhold (self->owner);
          if (store != NULL)
            ferry_store_unhold (store, NODE (self, i)->ref);
        }
      Py_CLEAR (NODE (self, i)->source.keep);
      Py_CLEAR (NODE (self, i)->source.description);
    }
  g_clear_pointer (&self->memo, g_hash_table_unref);
  /* Freeing them may run code that needs a plan: this one is not in the pool yet. */
  n_keep = self->keep->len;
  for (guint i = 0; i < n_keep; i++)
    Py_DECREF ((PyObject *) self->keep->pdata[i]);
  owner = (PyObject *) g_steal_pointer (&self->owner);
  Py_DECREF (owner);
  if (n_pooled >= POOL_MAX || self->cells->len > KEPT_MAX || self->bytes->len > KEPT_MAX || n_keep > KEPT_MAX
      || self->roots->len > KEPT_MAX)
    {
      g_array_unref (self->roots);
      g_array_unref (self->hashes);
      g_array_unref (self->cells);
      g_array_unref (self->node_hashes);
      g_array_unref (self->leaves);
      g_array_unref (self->nodes);
      g_array_unref (self->refs);
      g_array_unref (self->moved);
      g_array_unref (self->made_refs);
      g_byte_array_unref (self->bytes);
      g_ptr_array_unref (self->keep);
      g_free (self);
      return;
    }
  self->roots->len = 0;
  self->hashes->len = 0;
  self->cells->len = 0;
  self->node_hashes->len = 0;
  self->leaves->len = 0;
  self->nodes->len = 0;
  self->refs->len = 0;
  self->moved->len = 0;
  self->made_refs->len = 0;
  self->bytes->len = 0;
  self->keep->len = 0;
  self->next = pool;
  pool = self;
  n_pooled++;
}

static void
keep (FerryNativePlan *self, PyObject *object)
{
  g_ptr_array_add (self->keep, Py_NewRef (object));
}

gsize
ferry_native_plan_get_n (FerryNativePlan *self)
{
  return self->roots->len;
}

guint32 *
ferry_native_plan_get_hashes (FerryNativePlan *self)
{
  return (guint32 *) (gpointer) self->hashes->data;
}

/* ---- hashes of keys ---- */

static gboolean
hash_number (PyObject *object, guint32 *hash)
{
  Py_hash_t number = PyObject_Hash (object);

  if (number == -1)
    return FALSE;
  *hash = ferry_key_hash_int (number);
  return TRUE;
}

static gboolean
hash_key (PyObject *object, guint32 *hash)
{
  PyTypeObject *type = Py_TYPE (object);
  FerryCell cell;

  if (object == Py_None || object == Py_Ellipsis || object == Py_NotImplemented)
    {
      ferry_native_inline_cell (object, &cell);
      *hash = ferry_key_hash_data (0, &cell, sizeof cell);
      return TRUE;
    }
  if (type->tp_hash == PyLong_Type.tp_hash && PyLong_Check (object))
    {
      int overflow;
      gint64 number = PyLong_AsLongLongAndOverflow (object, &overflow);

      if (overflow != 0)
        return hash_number (object, hash);
      *hash = ferry_key_hash_int (number);
      return TRUE;
    }
  if (type->tp_hash == PyFloat_Type.tp_hash && PyFloat_Check (object))
    {
      *hash = ferry_key_hash_float (PyFloat_AS_DOUBLE (object));
      return TRUE;
    }
  if (type->tp_hash == PyComplex_Type.tp_hash && PyComplex_Check (object))
    return hash_number (object, hash);
  if (type->tp_hash == PyUnicode_Type.tp_hash && PyUnicode_Check (object))
    {
      if (PyUnicode_READY (object) < 0)
        return FALSE;
      *hash = ferry_key_hash_data (FERRY_LEAF_STR, PyUnicode_DATA (object),
                                   (gsize) PyUnicode_GET_LENGTH (object) * PyUnicode_KIND (object));
      return TRUE;
    }
  if (type->tp_hash == PyBytes_Type.tp_hash && PyBytes_Check (object))
    {
      *hash = ferry_key_hash_data (FERRY_LEAF_BYTES, PyBytes_AS_STRING (object), (gsize) PyBytes_GET_SIZE (object));
      return TRUE;
    }
  if (type->tp_hash == PyTuple_Type.tp_hash && PyTuple_Check (object))
    {
      gsize n = (gsize) PyTuple_GET_SIZE (object);
      g_autofree guint32 *hashes = g_new (guint32, n + 1);
      gboolean ok = TRUE;

      if (Py_EnterRecursiveCall (" while hashing a key"))
        return FALSE;
      for (gsize i = 0; ok && i < n; i++)
        ok = hash_key (PyTuple_GET_ITEM (object, i), &hashes[i]);
      Py_LeaveRecursiveCall ();
      *hash = ferry_key_hash_data (FERRY_LEAF_TUPLE, hashes, n * sizeof *hashes);
      return ok;
    }
  if (type->tp_hash == PyFrozenSet_Type.tp_hash && PyFrozenSet_Check (object))
    {
      PyObject *items = PySequence_Tuple (object);
      guint64 sum = 0;
      gboolean ok = items != NULL;

      for (Py_ssize_t i = 0; ok && i < PyTuple_GET_SIZE (items); i++)
        {
          guint32 one = 0;

          ok = hash_key (PyTuple_GET_ITEM (items, i), &one);
          sum += (guint64) one * G_GUINT64_CONSTANT (0x9e3779b97f4a7c15);
        }
      Py_XDECREF (items);
      *hash = ferry_key_hash_data (FERRY_LEAF_FROZENSET, &sum, sizeof sum);
      return ok;
    }
  else
    {
      /* Something of these types that is equal for what is equal, and does not depend on the process. */
      PyObject *stand_in = ferry_native_store_call ("_key_stand_in", "(O)", object);
      gboolean ok = stand_in != NULL && hash_key (stand_in, hash);

      Py_XDECREF (stand_in);
      return ok;
    }
}

/* ---- cells ---- */

gboolean
ferry_native_inline_cell_slow (PyObject *object, FerryCell *cell)
{
  PyTypeObject *type = Py_TYPE (object);

  if (type == &PyUnicode_Type)
    {
      const guint8 *data;
      gsize length = (gsize) PyUnicode_GET_LENGTH (object);
      guint64 payload = (guint64) length << 40;

      if (length > FERRY_CELL_INLINE_MAX || !PyUnicode_IS_READY (object)
          || PyUnicode_KIND (object) != PyUnicode_1BYTE_KIND)
        return FALSE;
      data = PyUnicode_DATA (object);
      for (gsize i = 0; i < length; i++)
        payload |= (guint64) data[i] << (8 * i);
      *cell = FERRY_CELL (FERRY_CELL_STR, payload);
      return TRUE;
    }
  if (object == Py_None)
    {
      *cell = FERRY_CELL_NONE;
      return TRUE;
    }
  if (type == &PyBool_Type)
    {
      *cell = FERRY_CELL (FERRY_CELL_CONSTANT, object == Py_True ? FERRY_CONSTANT_TRUE : FERRY_CONSTANT_FALSE);
      return TRUE;
    }
  if (type == &PyLong_Type)
    {
      int overflow;
      gint64 number = PyLong_AsLongLongAndOverflow (object, &overflow);

      if (overflow != 0 || number > FERRY_CELL_INT_MAX || number < FERRY_CELL_INT_MIN)
        return FALSE;
      *cell = FERRY_CELL (FERRY_CELL_INT, number);
      return TRUE;
    }
  if (type == &PyBytes_Type)
    {
      gsize length = (gsize) PyBytes_GET_SIZE (object);
      const guint8 *data = (const guint8 *) PyBytes_AS_STRING (object);
      guint64 payload = (guint64) length << 40;

      if (length > FERRY_CELL_INLINE_MAX)
        return FALSE;
      for (gsize i = 0; i < length; i++)
        payload |= (guint64) data[i] << (8 * i);
      *cell = FERRY_CELL (FERRY_CELL_BYTES, payload);
      return TRUE;
    }
  if (object == Py_Ellipsis || object == Py_NotImplemented)
    {
      *cell = FERRY_CELL (FERRY_CELL_CONSTANT,
                          object == Py_Ellipsis ? FERRY_CONSTANT_ELLIPSIS : FERRY_CONSTANT_NOT_IMPLEMENTED);
      return TRUE;
    }
  return FALSE;
}

/* ---- nodes ---- */

static gboolean
find_node (FerryNativePlan *self, PyObject *object, gsize *number)
{
  guint n = self->nodes->len;

  if (n > MEMO_MIN)
    {
      gpointer found;

      if (self->memo == NULL)
        {
          self->memo = g_hash_table_new (NULL, NULL);
          for (guint i = 0; i < n; i++)
            g_hash_table_insert (self->memo, NODE (self, i)->object, GSIZE_TO_POINTER ((gsize) i + 1));
        }
      found = g_hash_table_lookup (self->memo, object);
      *number = GPOINTER_TO_SIZE (found) - 1;
      return found != NULL;
    }
  for (guint i = 0; i < n; i++)
    if (NODE (self, i)->object == object)
      {
        *number = i;
        return TRUE;
      }
  return FALSE;
}

static PlanNode *
add_node (FerryNativePlan *self, PyObject *object, FerryObjectKind kind, gsize *number)
{
  PlanNode node = { .kind = kind, .object = object, .leaf = -1 };

  *number = self->nodes->len;
  keep (self, object);
  g_array_append_val (self->nodes, node);
  if (self->memo != NULL)
    g_hash_table_insert (self->memo, object, GSIZE_TO_POINTER (*number + 1));
  return NODE (self, *number);
}

static gboolean
is_array (PyObject *object)
{
  return !PyType_HasFeature (Py_TYPE (object), Py_TPFLAGS_HEAPTYPE) && ferry_native_is_array (object);
}

/* Whether the object is one with an identity; then its node. FALSE: it is immutable, or there is an exception. */
static gboolean
get_node (FerryNativePlan *self, PyObject *object, gsize *number)
{
  PyTypeObject *type = Py_TYPE (object);
  FerryObjectKind kind = FERRY_OBJECT_FREE;
  FerryNativeStore *owner;
  FerryRef ref;
  PlanNode *node;

  if (type == &PyList_Type)
    kind = FERRY_OBJECT_LIST;
  else if (type == &PyDict_Type)
    kind = FERRY_OBJECT_DICT;
  else if (type == &PySet_Type)
    kind = FERRY_OBJECT_SET;
  else if (type == &PyByteArray_Type)
    kind = FERRY_OBJECT_BYTEARRAY;
  if (kind != FERRY_OBJECT_FREE)
    {
      if (!find_node (self, object, number))
        add_node (self, object, kind, number);
      return TRUE;
    }
  if (type == &PyTuple_Type || type == &PyUnicode_Type || type == &PyBytes_Type || type == &PyLong_Type
      || type == &PyFloat_Type)
    return FALSE;
  if (find_node (self, object, number))
    return TRUE;
  if (ferry_native_find_live (object, &owner, &ref))
    {
      PyObject *plain;
      gboolean found;

      if (!ferry_native_check_there (owner, &ref))
        return FALSE;
      if (owner == self->owner
          || (owner->live != NULL && memcmp (owner->identity, self->owner->identity, sizeof owner->identity) == 0))
        {
          node = add_node (self, object, FERRY_OBJECT_FREE, number);
          node->is_live = TRUE;
          node->ref = ref;
          return TRUE;
        }
      /* Of another store: what it is now. */
      plain = ferry_native_deep_snapshot (owner, ref);
      if (plain == NULL)
        return FALSE;
      found = get_node (self, plain, number);
      keep (self, plain);
      Py_DECREF (plain);
      return found;
    }
  if (is_array (object))
    {
      add_node (self, object, FERRY_OBJECT_ARRAY, number);
      return TRUE;
    }
  switch (ferry_native_classify (type))
    {
    case FERRY_NATIVE_CLASS_RECORD:
      add_node (self, object, FERRY_OBJECT_RECORD, number);
      return TRUE;

    case FERRY_NATIVE_CLASS_TENSOR:
      {
        PyObject *array = ferry_native_store_call ("_tensor_to_array", "(O)", object);

        if (array == NULL)
          return FALSE;
        if (!is_array (array))
          {
            Py_DECREF (array);
            return FALSE;
          }
        node = add_node (self, object, FERRY_OBJECT_ARRAY, number);
        node->source.keep = array;
        return TRUE;
      }

    case FERRY_NATIVE_CLASS_STAND_IN:
      {
        PyObject *meant = PyObject_GetAttrString (object, "__ferry_live__");
        gboolean found;

        if (meant == NULL)
          return FALSE;
        found = get_node (self, meant, number);
        keep (self, meant);
        Py_DECREF (meant);
        return found;
      }

    default:
      return FALSE;
    }
}

/* ---- leaves ---- */

static gsize
pad (FerryNativePlan *self)
{
  static const guint8 zeros[8];
  guint rest = self->bytes->len % 8;

  if (rest != 0)
    g_byte_array_append (self->bytes, zeros, 8 - rest);
  return self->bytes->len;
}

/* FALSE with an exception: it would be more than arrays of bytes count. */
static gboolean
append (FerryNativePlan *self, gconstpointer data, gsize size)
{
  if (size > G_MAXINT32 - MIN (self->bytes->len, (guint) G_MAXINT32))
    {
      PyErr_SetString (PyExc_OverflowError, "a value in a store, other than str, bytes and arrays, has less than 2 GB");
      return FALSE;
    }
  g_byte_array_append (self->bytes, data, (guint) size);
  return TRUE;
}

static gboolean build_cell (FerryNativePlan *self, PyObject *object, gboolean as_key, FerryCell *cell);

static gboolean
build_cells (FerryNativePlan *self, PyObject *const *items, gsize n, gboolean as_key)
{
  gsize at = self->bytes->len;
  gboolean ok = TRUE;

  if (Py_EnterRecursiveCall (" while storing a tuple"))
    return FALSE;
  g_byte_array_set_size (self->bytes, (guint) (at + n * sizeof (FerryCell)));
  for (gsize i = 0; ok && i < n; i++)
    {
      FerryCell cell = FERRY_CELL_NONE;
      gsize place = at + i * sizeof cell;

      ok = build_cell (self, items[i], as_key, &cell);
      memcpy (self->bytes->data + place, &cell, sizeof cell);
      if (ferry_cell_tag (cell) == FERRY_CELL_LEAF)
        g_array_append_val (self->moved, place);
    }
  Py_LeaveRecursiveCall ();
  return ok;
}

static gboolean
build_big_int (FerryNativePlan *self, PyObject *object)
{
  gsize n_bits = _PyLong_NumBits (object);
  gsize size = n_bits / 8 + 1;
  guint at = self->bytes->len;
  guint8 *data;

  if (n_bits == (gsize) -1 && PyErr_Occurred ())
    return FALSE;
  g_byte_array_set_size (self->bytes, (guint) (at + size));
  data = self->bytes->data + at;
#if PY_VERSION_HEX >= 0x030d0000
  if (_PyLong_AsByteArray ((PyLongObject *) object, data, size, 1, 1, 1) < 0)
    return FALSE;
#else
  if (_PyLong_AsByteArray ((PyLongObject *) object, data, size, 1, 1) < 0)
    return FALSE;
#endif
  /* -2^(8n-1) needs a byte less than its positive */
  if (size > 1 && data[size - 1] == 0xff && (data[size - 2] & 0x80) != 0)
    g_byte_array_set_size (self->bytes, (guint) (at + size - 1));
  return TRUE;
}

/* Set while values are pickled into leaves: live objects within become copies, for a leaf may be read many times. */
static guint n_encoding;

gboolean
ferry_native_store_is_encoding (void)
{
  return n_encoding > 0;
}

static gboolean
build_codec (FerryNativePlan *self, PyObject *object)
{
  const FerryNativeCodec *codec = ferry_native_get_codec ("python", self->owner->pickle);
  g_auto (GValue) value = G_VALUE_INIT;
  g_autoptr (GError) error = NULL;
  g_autoptr (GBytes) bytes = NULL;
  gconstpointer data;
  gsize size;

  if (codec == NULL)
    return FALSE;
  g_value_init (&value, g_type_from_name ("PyObject"));
  g_value_set_boxed (&value, object);
  n_encoding++;
  bytes = ferry_codec_encode_bytes (codec->codec, &value, &error);
  n_encoding--;
  if (bytes == NULL)
    {
      if (!self->owner->pickle && !PyErr_Occurred ())
        {
          PyObject *raised
              = ferry_native_store_call ("_raise_not_storable", "(Os)", object, error != NULL ? error->message : "");

          Py_XDECREF (raised);
          return FALSE;
        }
      ferry_native_raise (&error);
      return FALSE;
    }
  data = g_bytes_get_data (bytes, &size);
  return append (self, data, size);
}

/* Appends the data of a leaf. */
static gboolean
build_leaf (FerryNativePlan *self, PyObject *object, gboolean as_key, guint8 *kind, guint8 *flags)
{
  PyTypeObject *type = Py_TYPE (object);
  PyObject *items;
  gboolean ok;

  *flags = 0;
  if (type == &PyUnicode_Type)
    {
      if (PyUnicode_READY (object) < 0)
        return FALSE;
      *kind = FERRY_LEAF_STR;
      *flags = (guint8) (PyUnicode_KIND (object) | (PyUnicode_IS_ASCII (object) ? FERRY_LEAF_ASCII : 0));
      return append (self, PyUnicode_DATA (object), (gsize) PyUnicode_GET_LENGTH (object) * PyUnicode_KIND (object));
    }
  if (type == &PyBytes_Type)
    {
      *kind = FERRY_LEAF_BYTES;
      return append (self, PyBytes_AS_STRING (object), (gsize) PyBytes_GET_SIZE (object));
    }
  if (type == &PyLong_Type)
    {
      *kind = FERRY_LEAF_INT;
      return build_big_int (self, object);
    }
  if (type == &PyFloat_Type)
    {
      double number = PyFloat_AS_DOUBLE (object);

      *kind = FERRY_LEAF_FLOAT;
      g_byte_array_append (self->bytes, (const guint8 *) &number, sizeof number);
      return TRUE;
    }
  if (type == &PyComplex_Type)
    {
      Py_complex number = PyComplex_AsCComplex (object);
      double parts[] = { number.real, number.imag };

      *kind = FERRY_LEAF_COMPLEX;
      g_byte_array_append (self->bytes, (const guint8 *) parts, sizeof parts);
      return TRUE;
    }
  if (type == &PyTuple_Type)
    {
      *kind = FERRY_LEAF_TUPLE;
      return build_cells (self, &PyTuple_GET_ITEM (object, 0), (gsize) PyTuple_GET_SIZE (object), as_key);
    }
  if (type == &PyFrozenSet_Type)
    {
      *kind = FERRY_LEAF_FROZENSET;
      items = PySequence_Tuple (object);
      ok = items != NULL && build_cells (self, &PyTuple_GET_ITEM (items, 0), (gsize) PyTuple_GET_SIZE (items), as_key);
      if (items != NULL)
        keep (self, items);
      Py_XDECREF (items);
      return ok;
    }
  if (type == &PySlice_Type)
    {
      PySliceObject *slice = (PySliceObject *) object;
      PyObject *parts[] = { slice->start, slice->stop, slice->step };

      *kind = FERRY_LEAF_SLICE;
      return build_cells (self, parts, G_N_ELEMENTS (parts), as_key);
    }
  switch (ferry_native_classify (type))
    {
    case FERRY_NATIVE_CLASS_UNKNOWN:
      return FALSE;

    case FERRY_NATIVE_CLASS_NAMED:
      items = ferry_native_store_call ("_describe_named", "(O)", object);
      *kind = FERRY_LEAF_TUPLE;
      *flags = FERRY_LEAF_NAMED;
      ok = items != NULL && PyTuple_Check (items)
           && build_cells (self, &PyTuple_GET_ITEM (items, 0), (gsize) PyTuple_GET_SIZE (items), as_key);
      if (items != NULL)
        keep (self, items);
      Py_XDECREF (items);
      return ok;

    case FERRY_NATIVE_CLASS_MEMBER:
      items = ferry_native_store_call ("_describe_member", "(O)", object);
      *kind = FERRY_LEAF_CODEC;
      *flags = FERRY_LEAF_MEMBER;
      ok = items != NULL && build_codec (self, items);
      Py_XDECREF (items);
      return ok;

    default:
      *kind = FERRY_LEAF_CODEC;
      return build_codec (self, object);
    }
}

/* A cell within a leaf. */
static gboolean
build_cell (FerryNativePlan *self, PyObject *object, gboolean as_key, FerryCell *cell)
{
  FerryLeaf leaf = { 0 };
  gsize number;
  gsize at;

  if (ferry_native_inline_cell (object, cell))
    return TRUE;
  if (get_node (self, object, &number))
    {
      gsize index = self->refs->len - self->leaf_first_ref;

      if (as_key)
        {
          PyErr_Format (PyExc_TypeError, "a key of a store can't contain a live object (%s)",
                        Py_TYPE (object)->tp_name);
          return FALSE;
        }
      if (index >= FERRY_LEAF_MAX_REFS)
        {
          PyErr_Format (PyExc_ValueError, "a tuple in a store refers to at most %d mutable objects",
                        FERRY_LEAF_MAX_REFS);
          return FALSE;
        }
      g_array_append_val (self->refs, number);
      *cell = FERRY_CELL (FERRY_CELL_OBJECT, index);
      return TRUE;
    }
  if (PyErr_Occurred ())
    return FALSE;
  at = pad (self);
  g_byte_array_append (self->bytes, (const guint8 *) &leaf, sizeof leaf);
  if (!build_leaf (self, object, as_key, &leaf.kind, &leaf.flags))
    return FALSE;
  leaf.size = self->bytes->len - at - sizeof leaf;
  memcpy (self->bytes->data + at, &leaf, sizeof leaf);
  *cell = FERRY_CELL (FERRY_CELL_LEAF, at - self->leaf_start + sizeof leaf);
  return TRUE;
}

/* A leaf in a cell of its own, whose number is the payload. @items: its cells; NULL: those of the object. */
static gboolean
plan_leaf (FerryNativePlan *self, PyObject *object, PyObject *items, FerryLeafKind items_kind, gboolean as_key,
           FerryCell *cell)
{
  PlanLeaf leaf = { 0 };
  gsize number;

  if (as_key && !hash_key (object, &leaf.hash))
    return FALSE;
  if (items == NULL && (PyUnicode_CheckExact (object) || PyBytes_CheckExact (object)))
    {
      keep (self, object);
      if (PyUnicode_CheckExact (object))
        {
          if (PyUnicode_READY (object) < 0)
            return FALSE;
          leaf.kind = FERRY_LEAF_STR;
          leaf.flags = (guint8) (PyUnicode_KIND (object) | (PyUnicode_IS_ASCII (object) ? FERRY_LEAF_ASCII : 0));
          leaf.external = PyUnicode_DATA (object);
          leaf.size = (gsize) PyUnicode_GET_LENGTH (object) * PyUnicode_KIND (object);
        }
      else
        {
          leaf.kind = FERRY_LEAF_BYTES;
          leaf.external = PyBytes_AS_STRING (object);
          leaf.size = (gsize) PyBytes_GET_SIZE (object);
        }
    }
  else
    {
      leaf.offset = pad (self);
      leaf.first_ref = self->refs->len;
      self->leaf_start = leaf.offset;
      self->leaf_first_ref = leaf.first_ref;
      g_array_set_size (self->moved, 0);
      leaf.kind = items_kind;
      if (items != NULL ? !build_cells (self, &PyTuple_GET_ITEM (items, 0), (gsize) PyTuple_GET_SIZE (items), as_key)
                        : !build_leaf (self, object, as_key, &leaf.kind, &leaf.flags))
        return FALSE;
      leaf.size = self->bytes->len - leaf.offset;
      leaf.n_refs = (guint) (self->refs->len - leaf.first_ref);
      /* The references come before the data, and move all that lies within. */
      for (guint i = 0; leaf.n_refs > 0 && i < self->moved->len; i++)
        {
          guint8 *at = self->bytes->data + g_array_index (self->moved, gsize, i);
          FerryCell moved;

          memcpy (&moved, at, sizeof moved);
          moved += (FerryCell) leaf.n_refs * sizeof (FerryRef);
          memcpy (at, &moved, sizeof moved);
        }
    }
  number = self->leaves->len;
  g_array_append_val (self->leaves, leaf);
  *cell = FERRY_CELL (FERRY_CELL_LEAF, number);
  return TRUE;
}

static gboolean
check_hashable (PyObject *object)
{
  if (PyObject_Hash (object) != -1)
    return TRUE;
  return FALSE;
}

static gboolean
plan_cell (FerryNativePlan *self, PyObject *object, gboolean as_key, FerryCell *cell)
{
  gsize number;

  if (ferry_native_inline_cell (object, cell))
    return TRUE;
  if (as_key)
    return check_hashable (object) && plan_leaf (self, object, NULL, 0, TRUE, cell);
  if (!PyUnicode_CheckExact (object))
    {
      if (get_node (self, object, &number))
        {
          *cell = FERRY_CELL (FERRY_CELL_OBJECT, number);
          return TRUE;
        }
      if (PyErr_Occurred ())
        return FALSE;
    }
  return plan_leaf (self, object, NULL, 0, FALSE, cell);
}

gboolean
ferry_native_plan_add (FerryNativePlan *self, PyObject *object)
{
  FerryCell cell = FERRY_CELL_NONE;
  guint32 hash = 0;

  if (!plan_cell (self, object, FALSE, &cell))
    return FALSE;
  g_array_append_val (self->roots, cell);
  g_array_append_val (self->hashes, hash);
  return TRUE;
}

gboolean
ferry_native_plan_add_key (FerryNativePlan *self, PyObject *object)
{
  FerryCell cell = FERRY_CELL_NONE;
  guint32 hash = 0;

  if (!plan_cell (self, object, TRUE, &cell) || !hash_key (object, &hash))
    return FALSE;
  g_array_append_val (self->roots, cell);
  g_array_append_val (self->hashes, hash);
  return TRUE;
}

/* ---- expanding ---- */

/* Who refers to what comes before it, or is it, needs that to be there already. */
static void
note_reference (FerryNativePlan *self, gsize from, FerryCell cell)
{
  if (ferry_cell_tag (cell) == FERRY_CELL_OBJECT)
    {
      if (ferry_cell_payload (cell) <= from)
        NODE (self, ferry_cell_payload (cell))->is_early = TRUE;
    }
  else if (ferry_cell_tag (cell) == FERRY_CELL_LEAF)
    {
      const PlanLeaf *leaf = &g_array_index (self->leaves, PlanLeaf, ferry_cell_payload (cell));

      for (guint i = 0; i < leaf->n_refs; i++)
        {
          gsize number = g_array_index (self->refs, gsize, leaf->first_ref + i);

          if (number <= from)
            NODE (self, number)->is_early = TRUE;
        }
    }
}

static gboolean
expand_item (FerryNativePlan *self, gsize number, gsize at, PyObject *item, gboolean as_key)
{
  FerryCell cell = FERRY_CELL_NONE;

  if (!plan_cell (self, item, as_key, &cell))
    return FALSE;
  CELL (self, at) = cell;
  note_reference (self, number, cell);
  return TRUE;
}

static gsize
reserve_cells (FerryNativePlan *self, gsize number, gsize n)
{
  gsize first = self->cells->len;

  g_array_set_size (self->cells, (guint) (first + n));
  for (gsize i = 0; i < n; i++)
    CELL (self, first + i) = FERRY_CELL_EMPTY;
  NODE (self, number)->first_cell = first;
  NODE (self, number)->n_cells = n;
  return first;
}

static gboolean
raise_changed (const char *what)
{
  PyErr_Format (PyExc_RuntimeError, "a %s changed size while it was stored", what);
  return FALSE;
}

static gboolean
expand_list (FerryNativePlan *self, gsize number, PyObject *list)
{
  gsize n = (gsize) PyList_GET_SIZE (list);
  gsize first = reserve_cells (self, number, n);

  for (gsize i = 0; i < n; i++)
    {
      PyObject *item;
      gboolean ok;

      if ((gsize) PyList_GET_SIZE (list) != n)
        return raise_changed ("list");
      item = PyList_GET_ITEM (list, i);
      if (ferry_native_inline_cell (item, &CELL (self, first + i)))
        continue;
      Py_INCREF (item);
      ok = expand_item (self, number, first + i, item, FALSE);
      Py_DECREF (item);
      if (!ok)
        return FALSE;
    }
  return TRUE;
}

static gboolean
expand_keys (FerryNativePlan *self, gsize number, PyObject *object, gboolean is_dict)
{
  gsize n = (gsize) (is_dict ? PyDict_GET_SIZE (object) : PySet_GET_SIZE (object));
  gsize width = is_dict ? 2 : 1;
  gsize first = reserve_cells (self, number, width * n);
  gsize first_hash = self->node_hashes->len;
  PyObject *items = is_dict ? NULL : PySequence_Tuple (object);
  Py_ssize_t position = 0;
  gsize i = 0;
  gboolean ok = is_dict || items != NULL;

  g_array_set_size (self->node_hashes, (guint) (first_hash + n));
  NODE (self, number)->first_hash = first_hash;
  while (ok && i < n)
    {
      PyObject *key;
      PyObject *value = Py_None;
      guint32 hash = 0;

      if (is_dict ? !PyDict_Next (object, &position, &key, &value) || (gsize) PyDict_GET_SIZE (object) != n
                  : i >= (gsize) PyTuple_GET_SIZE (items))
        {
          ok = raise_changed (is_dict ? "dict" : "set");
          break;
        }
      if (!is_dict)
        key = PyTuple_GET_ITEM (items, i);
      Py_INCREF (key);
      Py_INCREF (value);
      ok = expand_item (self, number, first + width * i, key, TRUE) && hash_key (key, &hash)
           && (!is_dict || expand_item (self, number, first + width * i + 1, value, FALSE));
      g_array_index (self->node_hashes, guint32, first_hash + i) = hash;
      Py_DECREF (key);
      Py_DECREF (value);
      i++;
    }
  Py_XDECREF (items);
  return ok;
}

static gboolean
expand_record (FerryNativePlan *self, gsize number, PyObject *object)
{
  PyObject *key;    /* (class, names...) */
  PyObject *values; /* list; Ellipsis-free: what is not set is missing in it as NULL */
  PyObject *found;
  gsize n;
  gsize first;
  gboolean ok = TRUE;

  if (!ferry_native_record_read_plain (object, &key, &values))
    return FALSE;
  keep (self, key);
  keep (self, values);
  Py_DECREF (key);
  Py_DECREF (values);
  NODE (self, number)->shape_key = key;
  found = PyDict_GetItemWithError (self->owner->shapes, key);
  if (found == NULL)
    {
      PyObject *description;
      FerryCell cell;

      if (PyErr_Occurred ())
        return FALSE;
      description = ferry_native_store_call ("_describe_class", "(O)", key);
      if (description == NULL)
        return FALSE;
      keep (self, description);
      Py_DECREF (description);
      if (!PyTuple_Check (description) || !plan_leaf (self, description, description, FERRY_LEAF_SHAPE, TRUE, &cell))
        return FALSE;
      NODE (self, number)->leaf = (gssize) ferry_cell_payload (cell);
    }
  n = (gsize) PyTuple_GET_SIZE (values);
  first = reserve_cells (self, number, n);
  for (gsize i = 0; ok && i < n; i++)
    if (PyTuple_GET_ITEM (values, i) != NULL)
      ok = expand_item (self, number, first + i, PyTuple_GET_ITEM (values, i), FALSE);
  return ok;
}

static FerryCell make_leaf (FerryNativePlan *self, gsize number, GError **error);
static gboolean make_early_array (FerryNativePlan *self, gsize number);

static gboolean
expand_array (FerryNativePlan *self, gsize number, PyObject *object)
{
  FerryNativeArraySource source = { NULL };
  PyObject *array = NODE (self, number)->source.keep;
  FerryCell cell;
  gboolean ok;

  ok = ferry_native_array_source (array != NULL ? array : object, array != NULL ? 1 : 0, &source);
  Py_XDECREF (array);
  NODE (self, number)->source = source;
  if (!ok)
    return FALSE;
  if (!plan_leaf (self, source.description, source.description, FERRY_LEAF_ARRAY, FALSE, &cell))
    return FALSE;
  NODE (self, number)->leaf = (gssize) ferry_cell_payload (cell);
  return source.size < LARGE_ARRAY || make_early_array (self, number);
}

/* Makes a large array before the others, so that copying it keeps nobody waiting. Until it is stored it is held. */
static gboolean
make_early_array (FerryNativePlan *self, gsize number)
{
  g_autoptr (GError) error = NULL;
  FerryStore *store;
  FerryCell description;
  FerryCell cell = 0;
  gpointer data = NULL;
  gsize size;

  if (!ferry_native_store_begin (self->owner))
    return FALSE;
  store = self->owner->live;
  description = make_leaf (self, (gsize) NODE (self, number)->leaf, &error);
  if (description != 0)
    {
      cell = ferry_store_array_new (store, description, NULL, NODE (self, number)->source.size, &error);
      if (cell == 0)
        ferry_store_release_cell (store, description);
    }
  if (cell != 0)
    {
      NODE (self, number)->cell = cell;
      NODE (self, number)->ref = ferry_cell_payload (cell);
      NODE (self, number)->is_owned = TRUE;
      NODE (self, number)->is_held = ferry_store_hold (store, ferry_cell_payload (cell), &error);
      if (!NODE (self, number)->is_held)
        {
          ferry_store_release_cell (store, cell);
          NODE (self, number)->is_owned = FALSE;
        }
      if (NODE (self, number)->is_held)
        data = ferry_store_array_data (store, ferry_cell_payload (cell), &size, NULL, &error);
    }
  ferry_store_end (store);
  if (data == NULL)
    {
      ferry_native_raise (&error);
      return FALSE;
    }
  ferry_native_store_enter (self->owner);
  {
    gconstpointer source = NODE (self, number)->source.data;

    size = MIN (size, NODE (self, number)->source.size);
    Py_BEGIN_ALLOW_THREADS
    memcpy (data, source, size);
    Py_END_ALLOW_THREADS
  }
  ferry_native_store_leave (self->owner);
  return TRUE;
}

gboolean
ferry_native_plan_finish (FerryNativePlan *self)
{
  for (; self->n_expanded < self->nodes->len; self->n_expanded++)
    {
      gsize number = self->n_expanded;
      PyObject *object = NODE (self, number)->object;
      gboolean ok = TRUE;

      if (NODE (self, number)->is_live)
        continue;
      switch (NODE (self, number)->kind)
        {
        case FERRY_OBJECT_LIST:
          ok = expand_list (self, number, object);
          break;

        case FERRY_OBJECT_DICT:
        case FERRY_OBJECT_SET:
          ok = expand_keys (self, number, object, NODE (self, number)->kind == FERRY_OBJECT_DICT);
          break;

        case FERRY_OBJECT_RECORD:
          ok = expand_record (self, number, object);
          break;

        case FERRY_OBJECT_ARRAY:
          ok = expand_array (self, number, object);
          break;

        default:
          break;
        }
      if (!ok)
        return FALSE;
      if ((number & 0xfff) == 0xfff && PyErr_CheckSignals () < 0)
        return FALSE;
    }
  return TRUE;
}

/* ---- making, inside a stretch of work ---- */

/* A counted reference to a node that is made. */
static FerryCell
use_node (FerryNativePlan *self, gsize number)
{
  PlanNode *node = NODE (self, number);

  if (node->is_owned)
    {
      node->is_owned = FALSE;
      return node->cell;
    }
  return ferry_store_new_reference (self->owner->live, node->ref);
}

static FerryCell
make_leaf (FerryNativePlan *self, gsize number, GError **error)
{
  const PlanLeaf *leaf = &g_array_index (self->leaves, PlanLeaf, number);
  gconstpointer data = leaf->external != NULL ? leaf->external : self->bytes->data + leaf->offset;

  FerryCell cell;

  g_array_set_size (self->made_refs, 0);
  for (guint i = 0; i < leaf->n_refs; i++)
    {
      FerryRef ref = ferry_cell_payload (use_node (self, g_array_index (self->refs, gsize, leaf->first_ref + i)));

      g_array_append_val (self->made_refs, ref);
    }
  cell = ferry_store_new_leaf (self->owner->live, (FerryLeafKind) leaf->kind, leaf->flags, leaf->hash, data, leaf->size,
                               (const FerryRef *) (gpointer) self->made_refs->data, leaf->n_refs, error);
  for (guint i = 0; cell == 0 && i < leaf->n_refs; i++)
    ferry_store_release_cell (self->owner->live,
                              FERRY_CELL (FERRY_CELL_OBJECT, g_array_index (self->made_refs, FerryRef, i)));
  return cell;
}

/* Replaces numbers of leaves and nodes by what they became. */
static gboolean
make_cells (FerryNativePlan *self, FerryCell *cells, gsize n, GError **error)
{
  for (gsize i = 0; i < n; i++)
    {
      FerryCellTag tag = ferry_cell_tag (cells[i]);

      if (tag == FERRY_CELL_OBJECT)
        {
          cells[i] = use_node (self, ferry_cell_payload (cells[i]));
        }
      else if (tag == FERRY_CELL_LEAF)
        {
          cells[i] = make_leaf (self, ferry_cell_payload (cells[i]), error);
          if (G_UNLIKELY (cells[i] == 0))
            {
              for (gsize j = 0; j < i; j++)
                ferry_store_release_cell (self->owner->live, cells[j]);
              for (gsize j = 0; j < n; j++)
                cells[j] = FERRY_CELL_NONE;
              return FALSE;
            }
        }
    }
  return TRUE;
}

static void
release_cells (FerryNativePlan *self, FerryCell *cells, gsize n)
{
  for (gsize i = 0; i < n; i++)
    {
      ferry_store_release_cell (self->owner->live, cells[i]);
      cells[i] = FERRY_CELL_NONE;
    }
}

static gboolean
get_shape (FerryNativePlan *self, PlanNode *node, FerryRef *shape, GError **error)
{
  PyObject *known = PyDict_GetItemWithError (self->owner->shapes, node->shape_key);
  PyObject *number;
  FerryCell leaf;

  if (known != NULL)
    {
      *shape = PyLong_AsUnsignedLongLong (known);
      return TRUE;
    }
  leaf = make_leaf (self, (gsize) node->leaf, error);
  if (leaf == 0)
    return FALSE;
  *shape = ferry_store_shape (self->owner->live, leaf, error);
  if (*shape == 0)
    {
      ferry_store_release_cell (self->owner->live, leaf);
      return FALSE;
    }
  /* Held as long as the store is open. */
  number = PyLong_FromUnsignedLongLong (*shape);
  if (number == NULL || PyDict_SetItem (self->owner->shapes, node->shape_key, number) < 0)
    PyErr_Clear ();
  Py_XDECREF (number);
  return TRUE;
}

/* Makes a node; one that is not early with its cells. */
static gboolean
make_node (FerryNativePlan *self, PlanNode *node, GError **error)
{
  FerryStore *store = self->owner->live;
  gboolean with_cells = !node->is_early;
  gsize n_entries = node->kind == FERRY_OBJECT_DICT ? node->n_cells / 2 : node->n_cells;
  FerryCell *cells = &CELL (self, node->first_cell);
  FerryCell cell = 0;

  if (with_cells && node->n_cells > 0 && !make_cells (self, cells, node->n_cells, error))
    return FALSE;
  switch (node->kind)
    {
    case FERRY_OBJECT_LIST:
      cell = ferry_store_list_new (store, cells, with_cells ? node->n_cells : 0, error);
      break;

    case FERRY_OBJECT_DICT:
    case FERRY_OBJECT_SET:
      cell = ferry_store_dict_new (store, node->kind, n_entries, error);
      if (with_cells && node->n_cells > 0 && cell != 0
          && ferry_store_dict_assign (store, ferry_cell_payload (cell), 0, cells,
                                      &g_array_index (self->node_hashes, guint32, node->first_hash), n_entries, error)
                 <= 0)
        {
          ferry_store_release_cell (store, cell);
          cell = 0;
        }
      break;

    case FERRY_OBJECT_RECORD:
      {
        FerryRef shape;

        if (!get_shape (self, node, &shape, error))
          break;
        if (!with_cells)
          {
            g_autofree FerryCell *empty = g_new (FerryCell, node->n_cells + 1);

            for (gsize i = 0; i < node->n_cells; i++)
              empty[i] = FERRY_CELL_EMPTY;
            cell = ferry_store_record_new (store, shape, empty, (guint) node->n_cells, error);
          }
        else
          {
            cell = ferry_store_record_new (store, shape, cells, (guint) node->n_cells, error);
          }
        break;
      }

    case FERRY_OBJECT_BYTEARRAY:
      cell = ferry_store_bytearray_new (store, PyByteArray_AS_STRING (node->object),
                                        (gsize) PyByteArray_GET_SIZE (node->object), error);
      break;

    case FERRY_OBJECT_ARRAY:
      {
        FerryCell description = make_leaf (self, (gsize) node->leaf, error);

        if (description != 0)
          cell = ferry_store_array_new (store, description, node->source.data, node->source.size, error);
        if (description != 0 && cell == 0)
          ferry_store_release_cell (store, description);
        break;
      }

    default:
      g_set_error_literal (error, FERRY_ERROR, FERRY_ERROR_CORRUPT, "a value to be stored is of no kind");
      break;
    }
  if (cell == 0)
    {
      if (with_cells)
        release_cells (self, cells, node->n_cells);
      return FALSE;
    }
  node->cell = cell;
  node->ref = ferry_cell_payload (cell);
  node->is_owned = TRUE;
  node->is_filled = with_cells;
  return TRUE;
}

static gboolean
fill_node (FerryNativePlan *self, PlanNode *node, GError **error)
{
  FerryStore *store = self->owner->live;
  FerryCell *cells = &CELL (self, node->first_cell);
  gsize n_entries = node->kind == FERRY_OBJECT_DICT ? node->n_cells / 2 : node->n_cells;
  gboolean ok = TRUE;

  node->is_filled = TRUE;
  if (node->n_cells == 0)
    return TRUE;
  if (!make_cells (self, cells, node->n_cells, error))
    return FALSE;
  switch (node->kind)
    {
    case FERRY_OBJECT_LIST:
      ok = ferry_store_list_splice (store, node->ref, 0, 0, cells, node->n_cells, error);
      break;

    case FERRY_OBJECT_DICT:
    case FERRY_OBJECT_SET:
      ok = ferry_store_dict_assign (store, node->ref, 0, cells,
                                    &g_array_index (self->node_hashes, guint32, node->first_hash), n_entries, error)
           > 0;
      break;

    case FERRY_OBJECT_RECORD:
      for (gsize i = 0; ok && i < node->n_cells; i++)
        {
          if (cells[i] == FERRY_CELL_EMPTY)
            continue;
          ok = ferry_store_record_set (store, node->ref, (guint) i, cells[i], error) >= 0;
          if (ok)
            cells[i] = FERRY_CELL_NONE;
        }
      break;

    default:
      break;
    }
  if (!ok)
    release_cells (self, cells, node->n_cells);
  return ok;
}

FerryCell *
ferry_native_plan_make (FerryNativePlan *self)
{
  FerryStore *store = ferry_native_store_get (self->owner);
  FerryCell *roots = (FerryCell *) (gpointer) self->roots->data;
  g_autoptr (GError) error = NULL;
  gsize n = self->nodes->len;
  gboolean ok = TRUE;

  if (G_UNLIKELY (store == NULL))
    return NULL;
  for (gsize i = n; ok && i > 0; i--)
    if (NODE (self, i - 1)->is_early && !NODE (self, i - 1)->is_live && !NODE (self, i - 1)->is_held)
      ok = make_node (self, NODE (self, i - 1), &error);
  for (gsize i = n; ok && i > 0; i--)
    {
      PlanNode *node = NODE (self, i - 1);

      if (node->is_live || node->is_held)
        continue;
      ok = node->is_early ? fill_node (self, node, &error) : make_node (self, node, &error);
    }
  if (ok)
    ok = make_cells (self, roots, self->roots->len, &error);
  /* What only its own leaves refer to has a reference too many. */
  for (gsize i = 0; i < n; i++)
    if (NODE (self, i)->is_owned)
      {
        ferry_store_release_cell (store, NODE (self, i)->cell);
        NODE (self, i)->is_owned = FALSE;
      }
  if (ok)
    return roots;
  ferry_native_raise (&error);
  return NULL;
}

void
ferry_native_plan_release (FerryNativePlan *self, gsize first, gsize n)
{
  release_cells (self, &g_array_index (self->roots, FerryCell, first), n);
}

FerryNativePlan *
ferry_native_plan_for_iterable (FerryNativeStore *owner, PyObject *iterable)
{
  g_autoptr (FerryNativePlan) plan = NULL;
  PyObject *items = ferry_native_is_proxy (iterable) ? ferry_native_plain (iterable, NULL) : Py_NewRef (iterable);
  PyObject *fast;
  gboolean ok = TRUE;

  if (items == NULL)
    return NULL;
  fast = PySequence_Fast (items, "can only assign an iterable");
  Py_DECREF (items);
  if (fast == NULL)
    return NULL;
  plan = ferry_native_plan_new (owner);
  keep (plan, fast);
  for (Py_ssize_t i = 0; ok && i < PySequence_Fast_GET_SIZE (fast); i++)
    {
      PyObject *item = Py_NewRef (PySequence_Fast_GET_ITEM (fast, i));

      ok = ferry_native_plan_add (plan, item);
      Py_DECREF (item);
    }
  Py_DECREF (fast);
  return ok && ferry_native_plan_finish (plan) ? g_steal_pointer (&plan) : NULL;
}

gboolean
ferry_native_value_prepare_slow (FerryNativeValue *self, FerryNativeStore *owner, PyObject *object)
{
  self->is_simple = FALSE;
  if ((PyUnicode_CheckExact (object) && PyUnicode_IS_READY (object)) || PyBytes_CheckExact (object))
    {
      /* The caller's caller keeps it. */
      self->object = object;
      self->is_simple = TRUE;
      return TRUE;
    }
  self->plan = ferry_native_plan_new (owner);
  self->object = (PyObject *) owner; /* anything but NULL */
  if (ferry_native_plan_add (self->plan, object) && ferry_native_plan_finish (self->plan))
    return TRUE;
  ferry_native_plan_free (self->plan);
  self->plan = NULL;
  self->object = NULL;
  return FALSE;
}

gboolean
ferry_native_value_make_slow (FerryNativeValue *self, FerryNativeStore *owner)
{
  FerryCell *cells;

  if (self->is_simple)
    {
      g_autoptr (GError) error = NULL;

      if (PyUnicode_Check (self->object))
        self->cell = ferry_store_new_leaf (
            owner->live, FERRY_LEAF_STR,
            PyUnicode_KIND (self->object) | (PyUnicode_IS_ASCII (self->object) ? FERRY_LEAF_ASCII : 0), 0,
            PyUnicode_DATA (self->object), (gsize) PyUnicode_GET_LENGTH (self->object) * PyUnicode_KIND (self->object),
            NULL, 0, &error);
      else
        self->cell = ferry_store_new_leaf (owner->live, FERRY_LEAF_BYTES, 0, 0, PyBytes_AS_STRING (self->object),
                                           (gsize) PyBytes_GET_SIZE (self->object), NULL, 0, &error);
      if (G_LIKELY (self->cell != 0))
        return TRUE;
      ferry_native_raise (&error);
      return FALSE;
    }
  cells = ferry_native_plan_make (self->plan);
  if (cells == NULL)
    return FALSE;
  self->cell = cells[0];
  return TRUE;
}

/* It was not stored. */
void
ferry_native_value_release (FerryNativeValue *self, FerryNativeStore *owner)
{
  if (self->object == NULL)
    return;
  if (self->is_simple)
    ferry_store_release_cell (owner->live, self->cell);
  else
    ferry_native_plan_release (self->plan, 0, 1);
}

/* ---- keys ---- */

/* Tuples that were keys before, and what they are in a store: programs look up the same constants again and again. A
 * power of two. */
#define KEY_CACHE (256)
/* Bytes of data of one that is kept. */
#define CACHED_MAX (256)

typedef struct
{
  PyObject *tuple; /* kept, so that no other one has its address */
  PyObject *bytes;
  guint32 hash;
  guint8 kind;
  guint8 flags;
} CachedKey;

static CachedKey key_cache[KEY_CACHE];

static inline CachedKey *
cached_key (PyObject *tuple)
{
  guintptr address = (guintptr) tuple;

  return &key_cache[(address >> 4 ^ address >> 12) & (KEY_CACHE - 1)];
}

/* Whether it can never be anything else, and going runs no code. */
static gboolean
is_flat (PyObject *tuple)
{
  for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE (tuple); i++)
    {
      PyTypeObject *type = Py_TYPE (PyTuple_GET_ITEM (tuple, i));

      if (type != &PyUnicode_Type && type != &PyLong_Type && type != &PyFloat_Type && type != &PyBytes_Type
          && type != &PyBool_Type && PyTuple_GET_ITEM (tuple, i) != Py_None)
        return FALSE;
    }
  return TRUE;
}

static void
cache_key (PyObject *tuple, const FerryKey *key)
{
  CachedKey *cached = cached_key (tuple);
  PyObject *bytes;

  if (key->size > CACHED_MAX || !is_flat (tuple))
    return;
  bytes = PyBytes_FromStringAndSize (key->data, (Py_ssize_t) key->size);
  if (bytes == NULL)
    {
      PyErr_Clear ();
      return;
    }
  Py_XSETREF (cached->bytes, bytes);
  Py_XSETREF (cached->tuple, Py_NewRef (tuple));
  cached->hash = key->hash;
  cached->kind = key->kind;
  cached->flags = key->flags;
}

gboolean
ferry_native_key_init_slow (FerryNativeKey *self, FerryNativeStore *owner, PyObject *object)
{
  FerryKey *key = &self->key;

  if (PyUnicode_CheckExact (object))
    return PyUnicode_READY (object) == 0 && ferry_native_key_init (self, owner, object);
  key->kind = 0;
  key->flags = 0;
  key->data = NULL;
  key->size = 0;
  key->equal = ferry_native_key_equal;
  key->user_data = self;
  if (ferry_native_inline_cell (object, &key->cell))
    {
      if (PyBytes_CheckExact (object))
        {
          key->kind = FERRY_LEAF_BYTES;
          key->data = PyBytes_AS_STRING (object);
          key->size = (gsize) PyBytes_GET_SIZE (object);
        }
      return hash_key (object, &key->hash);
    }
  if (PyTuple_CheckExact (object) && cached_key (object)->tuple == object)
    {
      const CachedKey *cached = cached_key (object);

      self->cached = Py_NewRef (cached->bytes);
      key->cell = FERRY_CELL (FERRY_CELL_LEAF, 0);
      key->hash = cached->hash;
      key->kind = cached->kind;
      key->flags = cached->flags;
      key->data = PyBytes_AS_STRING (cached->bytes);
      key->size = (gsize) PyBytes_GET_SIZE (cached->bytes);
      return TRUE;
    }
  if (!check_hashable (object))
    return FALSE;
  self->plan = ferry_native_plan_new (owner);
  if (ferry_native_plan_add_key (self->plan, object))
    {
      const PlanLeaf *leaf = &g_array_index (self->plan->leaves, PlanLeaf, 0);

      key->cell = FERRY_CELL (FERRY_CELL_LEAF, 0);
      key->hash = leaf->hash;
      key->kind = leaf->kind;
      key->flags = leaf->flags;
      key->data = leaf->external != NULL ? leaf->external : self->plan->bytes->data + leaf->offset;
      key->size = leaf->size;
      if (PyTuple_CheckExact (object))
        cache_key (object, key);
      return TRUE;
    }
  g_clear_pointer (&self->plan, ferry_native_plan_free);
  return FALSE;
}

void
ferry_native_key_clear_slow (FerryNativeKey *self)
{
  g_clear_pointer (&self->plan, ferry_native_plan_free);
  Py_CLEAR (self->cached);
  if (self->snapshot != NULL)
    {
      ferry_store_snapshot_clear (self->owner->store, self->snapshot);
      g_clear_pointer (&self->snapshot, g_free);
    }
}
