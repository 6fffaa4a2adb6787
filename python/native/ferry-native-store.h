/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* The store in Python: ferry-native-store.c opens it and has the root mapping, ferry-native-store-value.c turns objects into
 * cells and back, and each kind of live object has a file of its own.
 *
 * Rules that all of them keep:
 * - A stretch of work is begun with ferry_native_store_begin(), which gives the GIL up when it has to wait.
 * - No code of Python's runs inside a stretch of work: what is to be stored is prepared before (a plan), and what was read is
 *   made into objects afterwards. Otherwise two threads could wait for each other.
 * - What the store is asked about keys that are not the same bytes is answered without running code either; where that
 *   can't be told, the call gives up and looks at all keys, outside. */

#include "ferry-native.h"

G_BEGIN_DECLS

typedef struct _FerryNativeStore FerryNativeStore;

struct _FerryNativeStore
{
  PyObject_HEAD FerryStore *live; /* NULL: closed, or not yet used in this fork child */
  FerryStore *store;              /* the same; good as long as this exists */
  guint n_inside;                 /* calls that have given up the GIL */
  gboolean is_closing;
  gboolean is_forked; /* open in the parent, and not yet used here */
  gboolean is_detached;
  gboolean pickle;
  PyObject *description; /* str: how other processes open it */
  PyObject *shapes;      /* dict: (class, names of fields...) to the reference of the shape */
  GHashTable *classes;   /* FerryRef of a shape to FerryNativeLive */
  guint8 identity[16];
  GList link; /* of all open stores */
  PyObject *weakrefs;
};

/* What stands for one object of a store: List, Dict, Set, ByteArray and, within, what arrays and records have. */
typedef struct
{
  PyObject_HEAD FerryNativeStore *owner;
  FerryRef ref; /* held as long as this exists */
  PyObject *weakrefs;
} FerryNativeProxy;

extern PyTypeObject FerryNativeStore_Type;
extern PyTypeObject FerryNativeList_Type;
extern PyTypeObject FerryNativeListIterator_Type;
extern PyTypeObject FerryNativeDict_Type;
extern PyTypeObject FerryNativeDictView_Type;
extern PyTypeObject FerryNativeDictIterator_Type;
extern PyTypeObject FerryNativeSet_Type;
extern PyTypeObject FerryNativeByteArray_Type;
extern PyTypeObject FerryNativeArray_Type;
extern PyTypeObject FerryNativeField_Type;
extern PyTypeObject FerryNativeHandle_Type;
extern PyMethodDef ferry_native_store_functions[];
extern PyMethodDef ferry_native_record_functions[];

/* So often something is changed as it was looked at, before others are kept from changing it meanwhile. */
#define FERRY_NATIVE_STORE_TRIES_MAX (8)

/* Of functions with METH_FASTCALL or METH_KEYWORDS. */
#define FERRY_NATIVE_FAST(function) ((PyCFunction) (void (*) (void)) (function))

#define FERRY_NATIVE_PROXY(object) ((FerryNativeProxy *) (object))

static inline gboolean
ferry_native_is_proxy (PyObject *object)
{
  PyTypeObject *type = Py_TYPE (object);

  return type == &FerryNativeList_Type || type == &FerryNativeDict_Type || type == &FerryNativeSet_Type
         || type == &FerryNativeByteArray_Type;
}

/* ---- open stores ---- */

/* In a fork child, before its first use of the store, and when it is closed. */
FerryStore *ferry_native_store_get_slow (FerryNativeStore *self);

/* The store, or NULL with an exception. In a fork child the first call joins, and may change the references of proxies. */
static inline FerryStore *
ferry_native_store_get (FerryNativeStore *self)
{
  return G_LIKELY (self->live != NULL) ? self->live : ferry_native_store_get_slow (self);
}

/* For giving back what is held, which can be done before the first use, too; NULL: closed. */
static inline FerryStore *
ferry_native_store_get_to_unhold (FerryNativeStore *self)
{
  return G_LIKELY (self->live != NULL) ? self->live : self->is_forked ? self->store : NULL;
}

gboolean ferry_native_store_begin_slow (FerryNativeStore *self);

/* Begins a stretch of work; FALSE with an exception. End it with ferry_store_end(). The GIL is held all the while, so that no
 * thread that has it ever meets another one inside. */
static inline gboolean
ferry_native_store_begin (FerryNativeStore *self)
{
  if (G_UNLIKELY (self->live == NULL || !ferry_store_try_begin (self->live)))
    return ferry_native_store_begin_slow (self);
  return TRUE;
}

void ferry_native_stores_forked (void);

/* Whether values are being pickled into leaves: live objects within become copies, for a leaf may be read many times. */
gboolean ferry_native_store_is_encoding (void);

/* Between them the GIL may be given up: nothing of the store goes. */
void ferry_native_store_enter (FerryNativeStore *self);
void ferry_native_store_leave (FerryNativeStore *self);

/* A transaction for an operation of several steps; joins one of the thread. */
gboolean ferry_native_store_begin_transaction (FerryNativeStore *self, gint64 timeout);
gboolean ferry_native_store_end_transaction (FerryNativeStore *self, gboolean commit);

/* Calls a function of ferry.store that is found once. */
PyObject *ferry_native_store_call (const char *name, const char *format, ...);

/* ---- proxies ---- */

PyObject *ferry_native_proxy_new (FerryNativeStore *owner, PyTypeObject *type, FerryRef ref); /* takes the hold */
void ferry_native_proxy_dealloc (PyObject *self);
PyObject *ferry_native_proxy_reduce (PyObject *self, PyObject *protocol);

/* The live object for a reference that is held for us; takes the hold. */
PyObject *ferry_native_object_for (FerryNativeStore *owner, FerryRef ref);

/* Whether an object is live in any store: a proxy, a record, a whole array. */
gboolean ferry_native_find_live (PyObject *object, FerryNativeStore **owner, FerryRef *ref);

/* A reference to a live object; with @owner also to what can be made live there. NULL: it is neither. FALSE with an exception. */
gboolean ferry_native_store_reference_for (PyObject *object, FerryNativeStore *owner, FerryStoreReference **reference);

/* The live object. */
PyObject *ferry_native_object_for_reference (FerryStoreReference *reference);

/* 1: the message is a reference, and its store is open here if it may be; 0: it is something else; -1 with an exception. */
int ferry_native_store_prepare_reference (FerryBuffer *buffer, FerryCodec *codec, gboolean pickle);

/* The plain object with all that is in it. */
PyObject *ferry_native_dict_iterate (PyObject *dict);
PyObject *ferry_native_deep_snapshot (FerryNativeStore *owner, FerryRef ref);
PyObject *ferry_native_proxy_snapshot (PyObject *self, PyObject *unused);
PyObject *ferry_native_proxy_deepcopy (PyObject *self, PyObject *memo);

/* All cells of an object at an instant as a list: elements, or keys and values in turn, as live objects. */
PyObject *ferry_native_shallow_cells (FerryNativeStore *owner, FerryRef ref, guint64 *version);

/* The plain list, dict, set or bytearray of a proxy, whose elements are live. */
PyObject *ferry_native_plain (PyObject *proxy, guint64 *version);

/* The plain object of a proxy; what is none as it is. */
PyObject *ferry_native_get_plain (PyObject *object);

/* A method: the plain object, whose elements are live. */
PyObject *ferry_native_proxy_copy (PyObject *self, PyObject *unused);

/* Applies @operate to both, which it takes over; NULL: an exception that is set already. */
PyObject *ferry_native_operate (PyObject *left, PyObject *right, PyObject *(*operate) (PyObject *, PyObject *) );

/* The text of the plain object; @within: what stands for an object that contains itself. */
PyObject *ferry_native_repr_nested (PyObject *object, PyObject *(*get_plain) (PyObject *), const char *within);
PyObject *ferry_native_proxy_repr (PyObject *self); /* of those that can't contain themselves */

/* A method of dicts and sets. */
PyObject *ferry_native_dict_clear (PyObject *object, PyObject *unused);

PyObject *ferry_native_raise_key (PyObject *key); /* always NULL */

/* Whether the object of a store can be referred to; FALSE with an exception. Looks at @ref after the first use in a fork child. */
gboolean ferry_native_check_there (FerryNativeStore *owner, const FerryRef *ref);

/* Why the container of a kind has no length; always -1. */
Py_ssize_t ferry_native_raise_length (FerryNativeProxy *self, const char *kind);

/* What adding to a number gave (not 0: it is there): the sum; NotImplemented: not both are numbers that fit. */
PyObject *ferry_native_sum_take (FerryNativeStore *owner, int done, FerryReading *reading, GError **error);

/* Compares as the plain type does. */
PyObject *ferry_native_proxy_compare (PyObject *self, PyObject *other, int op);

/* ---- reading ---- */

gpointer ferry_native_reading_place (FerryReading *reading, const FerryLeaf *leaf, gsize size);

static inline void
ferry_native_reading_init (FerryReading *reading)
{
  reading->cell = 0;
  reading->leaf = NULL;
  reading->placed = FALSE;
  reading->place = ferry_native_reading_place;
  reading->user_data = NULL;
  reading->memory = NULL;
  reading->capacity = 0;
}

PyObject *ferry_native_reading_take_slow (FerryNativeStore *owner, FerryReading *reading);

/* The object for an inline cell. */
PyObject *ferry_native_inline_object_slow (FerryNativeStore *owner, FerryCell cell);

static inline PyObject *
ferry_native_inline_object (FerryNativeStore *owner, FerryCell cell)
{
  FerryCellTag tag = ferry_cell_tag (cell);
  double number;

  if (tag == FERRY_CELL_INT)
    return PyLong_FromLongLong (ferry_cell_int (cell));
  if (tag != FERRY_CELL_FLOAT)
    return ferry_native_inline_object_slow (owner, cell);
  memcpy (&number, &cell, sizeof number);
  return PyFloat_FromDouble (number);
}

/* Gives back what a reading has that is not wanted. */
void ferry_native_reading_drop (FerryNativeStore *owner, FerryReading *reading);

/* The object for what was read, and all that the reading has is given back. */
static inline PyObject *
ferry_native_reading_take (FerryNativeStore *owner, FerryReading *reading)
{
  FerryCell cell = reading->cell;
  FerryCellTag tag = ferry_cell_tag (cell);

  if (tag == FERRY_CELL_INT)
    return PyLong_FromLongLong (ferry_cell_int (cell));
  if (tag == FERRY_CELL_FLOAT)
    {
      double number;

      memcpy (&number, &cell, sizeof number);
      return PyFloat_FromDouble (number);
    }
  return ferry_native_reading_take_slow (owner, reading);
}

/* ---- writing ---- */

typedef struct _FerryNativePlan FerryNativePlan;

/* Values on their way into a store. */
FerryNativePlan *ferry_native_plan_new (FerryNativeStore *owner);
/* Adds a value: the n'th added will be cell n. May run code. */
gboolean ferry_native_plan_add (FerryNativePlan *plan, PyObject *object);
/* Adds a key, which gets a hash. */
gboolean ferry_native_plan_add_key (FerryNativePlan *plan, PyObject *object);
/* Encodes what is within the containers that were added. */
gboolean ferry_native_plan_finish (FerryNativePlan *plan);
/* Inside a stretch of work: makes everything. The array has a cell for each value that was added, and is good until the plan is
 * freed; each cell belongs to the caller. NULL with an exception: nothing was made. */
FerryCell *ferry_native_plan_make (FerryNativePlan *plan);
/* Gives back cells of it that were not stored. */
void ferry_native_plan_release (FerryNativePlan *plan, gsize first, gsize n);
guint32 *ferry_native_plan_get_hashes (
    FerryNativePlan *plan); /* one for each value; only those of keys mean something */
gsize ferry_native_plan_get_n (FerryNativePlan *plan);
void ferry_native_plan_free (FerryNativePlan *plan);

G_DEFINE_AUTOPTR_CLEANUP_FUNC (FerryNativePlan, ferry_native_plan_free)

/* A plan with all items of an iterable; NULL with an exception. */
FerryNativePlan *ferry_native_plan_for_iterable (FerryNativeStore *owner, PyObject *iterable);

gboolean ferry_native_inline_cell_slow (PyObject *object, FerryCell *cell);

/* Whether the value is inline, and then its cell. */
static inline gboolean
ferry_native_inline_cell (PyObject *object, FerryCell *cell)
{
  PyTypeObject *type = Py_TYPE (object);

  if (type == &PyLong_Type)
    {
#if PY_VERSION_HEX >= 0x030c0000
      if (G_LIKELY (PyUnstable_Long_IsCompact ((PyLongObject *) object)))
        {
          *cell = FERRY_CELL (FERRY_CELL_INT, (gint64) PyUnstable_Long_CompactValue ((PyLongObject *) object));
          return TRUE;
        }
#else
      Py_ssize_t n_digits = Py_SIZE (object);

      if (G_LIKELY (n_digits >= -1 && n_digits <= 1))
        {
          gint64 number = n_digits == 0 ? 0 : n_digits * (gint64) ((PyLongObject *) object)->ob_digit[0];

          *cell = FERRY_CELL (FERRY_CELL_INT, number);
          return TRUE;
        }
#endif
    }
  else if (type == &PyFloat_Type)
    {
      double number = PyFloat_AS_DOUBLE (object);

      memcpy (cell, &number, sizeof number);
      return G_LIKELY (ferry_cell_tag (*cell) == FERRY_CELL_FLOAT);
    }
  return ferry_native_inline_cell_slow (object, cell);
}

/* Whether the value is a number that is inline, and then its cell. */
static inline gboolean
ferry_native_inline_number (PyObject *object, FerryCell *cell)
{
  return ferry_native_inline_cell (object, cell)
         && (ferry_cell_tag (*cell) == FERRY_CELL_INT || ferry_cell_tag (*cell) == FERRY_CELL_FLOAT);
}

/* One value to be stored. */
typedef struct
{
  FerryCell cell;
  PyObject *object;      /* borrowed; NULL: the cell is inline */
  gboolean is_simple;    /* the object is a str or bytes */
  FerryNativePlan *plan; /* for all others */
} FerryNativeValue;

gboolean ferry_native_value_prepare_slow (FerryNativeValue *self, FerryNativeStore *owner, PyObject *object);
gboolean ferry_native_value_make_slow (FerryNativeValue *self, FerryNativeStore *owner);
/* It was made, and not stored. */
void ferry_native_value_release (FerryNativeValue *self, FerryNativeStore *owner);

/* Before a stretch of work; may run code. */
static inline gboolean
ferry_native_value_prepare (FerryNativeValue *self, FerryNativeStore *owner, PyObject *object)
{
  self->plan = NULL;
  self->object = NULL;
  if (G_LIKELY (ferry_native_inline_cell (object, &self->cell)))
    return TRUE;
  return ferry_native_value_prepare_slow (self, owner, object);
}

/* Inside. */
static inline gboolean
ferry_native_value_make (FerryNativeValue *self, FerryNativeStore *owner)
{
  return G_LIKELY (self->object == NULL) || ferry_native_value_make_slow (self, owner);
}

/* Afterwards. */
static inline void
ferry_native_value_clear (FerryNativeValue *self)
{
  if (G_UNLIKELY (self->plan != NULL))
    ferry_native_plan_free (self->plan);
}

/* ---- keys ---- */

typedef struct
{
  FerryKey key;
  FerryNativeStore *owner;
  PyObject *object; /* borrowed */
  FerryNativePlan *plan;
  PyObject *cached;        /* bytes with the key's data */
  FerrySnapshot *snapshot; /* of the keys, when one of them had to be looked for */
  gboolean failed;         /* with an exception, while comparing */
} FerryNativeKey;

gboolean ferry_native_key_init_slow (FerryNativeKey *self, FerryNativeStore *owner, PyObject *object);
void ferry_native_key_clear_slow (FerryNativeKey *self);
int ferry_native_key_equal (const FerryKey *key, const FerryReading *candidate);

/* FALSE with an exception: not hashable, or not to be encoded. */
static inline gboolean
ferry_native_key_init (FerryNativeKey *self, FerryNativeStore *owner, PyObject *object)
{
  self->owner = owner;
  self->object = object;
  self->plan = NULL;
  self->cached = NULL;
  self->snapshot = NULL;
  self->failed = FALSE;
  if (G_LIKELY (PyUnicode_CheckExact (object) && PyUnicode_IS_READY (object)))
    {
      gsize length = (gsize) PyUnicode_GET_LENGTH (object);
      guint width = PyUnicode_KIND (object);
      const guint8 *data = PyUnicode_DATA (object);

      self->key.data = data;
      self->key.size = length * width;
      self->key.kind = FERRY_LEAF_STR;
      self->key.flags = (guint8) (width | (PyUnicode_IS_ASCII (object) ? FERRY_LEAF_ASCII : 0));
      self->key.hash = ferry_key_hash_data (FERRY_LEAF_STR, data, length * width);
      self->key.equal = NULL;
      self->key.user_data = NULL;
      if (width == 1 && length <= FERRY_CELL_INLINE_MAX)
        {
          guint64 payload = (guint64) length << 40;

          for (gsize i = 0; i < length; i++)
            payload |= (guint64) data[i] << (8 * i);
          self->key.cell = FERRY_CELL (FERRY_CELL_STR, payload);
        }
      else
        {
          self->key.cell = FERRY_CELL (FERRY_CELL_LEAF, 0);
        }
      return TRUE;
    }
  return ferry_native_key_init_slow (self, owner, object);
}

static inline void
ferry_native_key_clear (FerryNativeKey *self)
{
  if (G_UNLIKELY (self->plan != NULL || self->snapshot != NULL || self->cached != NULL))
    ferry_native_key_clear_slow (self);
}

/* After a call gave up (-2): finds the key among those there are, by running whatever compares them. Then call again.
 * FALSE with an exception. */
gboolean ferry_native_key_resolve (FerryNativeKey *self, FerryRef ref);

/* ---- arrays ---- */

PyObject *ferry_native_array_view (FerryNativeStore *owner, FerryRef ref); /* takes the hold */
gboolean ferry_native_is_array (PyObject *object);                         /* exactly an ndarray of plain elements */

/* What stands for it when it is a whole array of a store, and not just a part of one; or NULL. Its reference is to be read
 * after this process has joined. */
FerryNativeProxy *ferry_native_array_get_proxy (PyObject *object);

typedef struct
{
  PyObject *keep;        /* the array with its elements one behind the other */
  PyObject *description; /* tuple: str, flags, rank, extents, strides */
  gpointer data;
  gsize size;
} FerryNativeArraySource;

gboolean ferry_native_array_source (PyObject *array, int flags, FerryNativeArraySource *source);

/* ---- records ---- */

/* What reading a record of some shape makes. */
typedef struct
{
  PyTypeObject *type;     /* the generated class */
  PyTypeObject *original; /* the user's */
  PyObject *names;        /* tuple of str */
  Py_ssize_t offset;      /* of the handle in an instance */
} FerryNativeLive;

PyObject *ferry_native_record_new (FerryNativeStore *owner, FerryRef ref); /* takes the hold */
/* The plain instance, whose fields are still to be set. */
PyObject *ferry_native_record_plain (FerryNativeStore *owner, FerryRef ref, FerryNativeLive **live);
gboolean ferry_native_record_set_plain (PyObject *instance, PyObject *name, PyObject *value);
gboolean ferry_native_is_record (PyObject *object);
FerryNativeProxy *ferry_native_record_get_handle (PyObject *object); /* borrowed */

/* What a class is to the store. */
typedef enum
{
  FERRY_NATIVE_CLASS_UNKNOWN,
  FERRY_NATIVE_CLASS_CODEC,    /* an immutable value, or what is pickled */
  FERRY_NATIVE_CLASS_RECORD,   /* instances have fields */
  FERRY_NATIVE_CLASS_MEMBER,   /* an enumeration */
  FERRY_NATIVE_CLASS_NAMED,    /* a named tuple */
  FERRY_NATIVE_CLASS_TENSOR,   /* of torch */
  FERRY_NATIVE_CLASS_LIVE,     /* generated for records */
  FERRY_NATIVE_CLASS_STAND_IN, /* what is meant is its __ferry_live__ */
} FerryNativeClass;

FerryNativeClass ferry_native_classify (PyTypeObject *type); /* UNKNOWN: an exception */

/* Reads the fields of a plain instance: a tuple of its class and their names, and one of values (NULL: not set). */
gboolean ferry_native_record_read_plain (PyObject *object, PyObject **key, PyObject **values);

G_END_DECLS
