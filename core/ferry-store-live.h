/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#if !defined(FERRY_INSIDE) && !defined(FERRY_COMPILATION)
#error "Only <ferry.h> can be included directly."
#endif

#include "ferry-buffer.h"
#include "ferry-store-reference.h"
#include "ferry-store.h"

G_BEGIN_DECLS

/* The store as language bindings see it: cells, leaves and objects. Everything here is (skip)ped by introspection;
 * [class@Store] itself offers the same with GVariant and FerryTensor. docs/store.md describes the structures. */

/**
 * FerryCell: (skip)
 *
 * Eight bytes that hold one value: a float as its IEEE bits, or, with all of the upper 13 bits set, a tag of 3 bits
 * and a payload of 48.
 *
 * Since: 1.0
 */
typedef guint64 FerryCell;

/**
 * FerryRef: (skip)
 *
 * An object of a store, by the offset of its head in the data area. 0 is none.
 *
 * Since: 1.0
 */
typedef guint64 FerryRef;

/**
 * FERRY_REF_LOST: (skip)
 *
 * For bindings: what to call an object that ferry_store_is_lost(), so that what uses it fails with %FERRY_ERROR_CLOSED.
 *
 * Since: 1.0
 */
#define FERRY_REF_LOST ((FerryRef) 0)

#define FERRY_CELL_SHIFT (48)
#define FERRY_CELL_PREFIX (G_GUINT64_CONSTANT (0xfff8))
#define FERRY_CELL_PAYLOAD_MASK ((G_GUINT64_CONSTANT (1) << FERRY_CELL_SHIFT) - 1)

/**
 * FerryCellTag: (skip)
 * @FERRY_CELL_CONSTANT: one of #FerryCellConstant
 * @FERRY_CELL_INT: a signed integer of 48 bits
 * @FERRY_CELL_STR: up to five characters of Latin-1: character i in bits 8i to 8i+7, their number in bits 40 to 47
 * @FERRY_CELL_BYTES: up to five bytes, likewise
 * @FERRY_CELL_LEAF: an immutable value in a block of its own, which the cell owns: offset of a #FerryLeaf
 * @FERRY_CELL_OBJECT: a counted reference to an object: its #FerryRef; inside a leaf the index of the reference among
 *   those of the leaf
 * @FERRY_CELL_FLOAT: not a tag: any other bits
 *
 * What a cell holds. A value has one representation only: what fits inline is inline.
 *
 * Since: 1.0
 */
typedef enum
{
  FERRY_CELL_CONSTANT = 0,
  FERRY_CELL_INT = 1,
  FERRY_CELL_STR = 2,
  FERRY_CELL_BYTES = 3,
  FERRY_CELL_LEAF = 4,
  FERRY_CELL_OBJECT = 5,
  FERRY_CELL_FLOAT = 8,
} FerryCellTag;

/**
 * FerryCellConstant: (skip)
 * @FERRY_CONSTANT_EMPTY: no value: a deleted entry, an attribute that is not set
 * @FERRY_CONSTANT_NONE: None
 * @FERRY_CONSTANT_FALSE: False
 * @FERRY_CONSTANT_TRUE: True
 * @FERRY_CONSTANT_ELLIPSIS: Ellipsis
 * @FERRY_CONSTANT_NOT_IMPLEMENTED: NotImplemented
 *
 * Payloads of %FERRY_CELL_CONSTANT.
 *
 * Since: 1.0
 */
typedef enum
{
  FERRY_CONSTANT_EMPTY = 0,
  FERRY_CONSTANT_NONE = 1,
  FERRY_CONSTANT_FALSE = 2,
  FERRY_CONSTANT_TRUE = 3,
  FERRY_CONSTANT_ELLIPSIS = 4,
  FERRY_CONSTANT_NOT_IMPLEMENTED = 5,
} FerryCellConstant;

#define FERRY_CELL(tag, payload)                                                                                       \
  ((FERRY_CELL_PREFIX | (guint64) (tag)) << FERRY_CELL_SHIFT | ((guint64) (payload) &FERRY_CELL_PAYLOAD_MASK))
#define FERRY_CELL_EMPTY FERRY_CELL (FERRY_CELL_CONSTANT, FERRY_CONSTANT_EMPTY)
#define FERRY_CELL_NONE FERRY_CELL (FERRY_CELL_CONSTANT, FERRY_CONSTANT_NONE)
#define FERRY_CELL_INT_MAX ((G_GINT64_CONSTANT (1) << 47) - 1)
#define FERRY_CELL_INT_MIN (-(G_GINT64_CONSTANT (1) << 47))
#define FERRY_CELL_INLINE_MAX (5)

static inline FerryCellTag
ferry_cell_tag (FerryCell cell)
{
  guint64 upper = cell >> FERRY_CELL_SHIFT;

  return (upper & FERRY_CELL_PREFIX) == FERRY_CELL_PREFIX ? (FerryCellTag) (upper & 7) : FERRY_CELL_FLOAT;
}

static inline guint64
ferry_cell_payload (FerryCell cell)
{
  return cell & FERRY_CELL_PAYLOAD_MASK;
}

static inline gint64
ferry_cell_int (FerryCell cell)
{
  return (gint64) (cell << 16) >> 16;
}

/**
 * FerryLeafKind: (skip)
 * @FERRY_LEAF_FLOAT: a float whose bits would be taken for a tag (a negative quiet NaN): 8 bytes
 * @FERRY_LEAF_INT: an integer beyond 48 bits: its two's complement, little endian, as few bytes as hold it
 * @FERRY_LEAF_COMPLEX: two doubles
 * @FERRY_LEAF_STR: code units; #FerryLeaf.flags has their width (1, 2 or 4 bytes) and whether all are ASCII
 * @FERRY_LEAF_BYTES: bytes
 * @FERRY_LEAF_TUPLE: cells; leaves within are offsets from the start of the outermost leaf, objects are indices into its
 *   references
 * @FERRY_LEAF_FROZENSET: cells, likewise
 * @FERRY_LEAF_CODEC: anything else immutable: a message of codec-python
 * @FERRY_LEAF_SLICE: three cells, likewise
 * @FERRY_LEAF_SHAPE: what a record's class is: a tuple of cells: module, qualified name, flags, names of the fields
 * @FERRY_LEAF_ARRAY: what an array is: cells: dtype in the notation of NumPy's .npy headers (str), flags (int), rank (int), extents,
 *   strides in bytes
 *
 * What a leaf holds.
 *
 * Since: 1.0
 */
typedef enum
{
  FERRY_LEAF_FLOAT = 1,
  FERRY_LEAF_INT = 2,
  FERRY_LEAF_COMPLEX = 3,
  FERRY_LEAF_STR = 4,
  FERRY_LEAF_BYTES = 5,
  FERRY_LEAF_TUPLE = 6,
  FERRY_LEAF_FROZENSET = 7,
  FERRY_LEAF_CODEC = 8,
  FERRY_LEAF_SLICE = 9,
  FERRY_LEAF_SHAPE = 10,
  FERRY_LEAF_ARRAY = 11,
} FerryLeafKind;

#define FERRY_LEAF_WIDTH_MASK (7)   /* of a str: bytes a code unit */
#define FERRY_LEAF_ASCII (1 << 3)   /* of a str */
#define FERRY_LEAF_MAX_REFS (65535) /* references of one leaf */

#define FERRY_LEAF_NAMED                                                                                               \
  (1 << 4) /* of a tuple: the first two cells are the module and the qualified name of its class */
#define FERRY_LEAF_MEMBER                                                                                              \
  (1 << 4) /* of a codec leaf: its message is a tuple: module, qualified name, and name or value of
                                     * the member of an enumeration */

/**
 * FerryLeaf: (skip)
 *
 * An immutable value. What follows the head: @n_refs references (#FerryRef, 8 bytes each), then @size bytes of data.
 *
 * Leaves of cells (tuple, frozenset, slice, shape, array) have their cells first, then the leaves that those refer to, in
 * their order, each with those within it, 8-byte aligned. Their @size includes all that. So the cells end where the first
 * leaf begins. Leaves within have no references of their own, and a hash of 0.
 *
 * Hash of a tuple of any class: ferry_key_hash_data (FERRY_LEAF_TUPLE) over the hashes of its elements (guint32 each); of a
 * frozenset: ferry_key_hash_data (FERRY_LEAF_FROZENSET) over their sum (guint64); of None, Ellipsis and NotImplemented:
 * ferry_key_hash_data (0) over the cell; of numbers that are no int and no float: ferry_key_hash_int() of what hash() gives.
 *
 * Since: 1.0
 */
typedef struct
{
  guint8 kind;
  guint8 flags;
  guint16 n_refs;
  guint32 hash; /* of the value as a key, see docs/store.md */
  guint64 size; /* bytes of data */
  G_GNUC_EXTENSION guint8 data[];
} FerryLeaf;

/**
 * FerryObjectKind: (skip)
 * @FERRY_OBJECT_FREE: none
 * @FERRY_OBJECT_SLOT: a key of the root mapping: one cell with a lock of its own
 * @FERRY_OBJECT_LIST: a list
 * @FERRY_OBJECT_DICT: a dict, in order of insertion
 * @FERRY_OBJECT_SET: a set
 * @FERRY_OBJECT_RECORD: an instance of a class: fields by number, and a dict of further attributes
 * @FERRY_OBJECT_SHAPE: what records of one class have in common
 * @FERRY_OBJECT_BYTEARRAY: a bytearray
 * @FERRY_OBJECT_ARRAY: an n-dimensional array
 *
 * Kinds of objects: what has an identity, and may be referred to from several places.
 *
 * Since: 1.0
 */
typedef enum
{
  FERRY_OBJECT_FREE = 0,
  FERRY_OBJECT_SLOT = 1,
  FERRY_OBJECT_LIST = 2,
  FERRY_OBJECT_DICT = 3,
  FERRY_OBJECT_SET = 4,
  FERRY_OBJECT_RECORD = 5,
  FERRY_OBJECT_SHAPE = 6,
  FERRY_OBJECT_BYTEARRAY = 7,
  FERRY_OBJECT_ARRAY = 8,
} FerryObjectKind;

typedef struct _FerryReading FerryReading;

/**
 * FerryReadingPlace: (skip)
 *
 * Says where the data of a large str or bytes leaf (from 4 KiB on) is to be copied to: @size bytes. May be called again,
 * when the value changed meanwhile; the place given before is the caller's to reuse or to free. %NULL: no memory.
 *
 * Since: 1.0
 */
typedef gpointer (*FerryReadingPlace) (FerryReading *reading, const FerryLeaf *leaf, gsize size);

/**
 * FerryReading: (skip)
 * @cell: what was read. %FERRY_CELL_LEAF: see @leaf. %FERRY_CELL_OBJECT: the payload is a reference, held for the caller,
 *   to be given back with ferry_store_unhold()
 * @leaf: a private copy, valid until the next reading; its references are held for the caller like that of an object
 * @placed: the data of @leaf is not behind it but where @place said
 * @place: (nullable): where large data goes
 * @user_data: the caller's
 *
 * One value, read out of a store. Start with all zero (FERRY_READING_INIT), end with ferry_reading_clear().
 *
 * Since: 1.0
 */
struct _FerryReading
{
  FerryCell cell;
  FerryLeaf *leaf;
  gboolean placed;
  FerryReadingPlace place;
  gpointer user_data;

  /*< private >*/
  gpointer memory;
  gsize capacity;
  guint64 small[32];
};

#define FERRY_READING_INIT                                                                                             \
  {                                                                                                                    \
    0                                                                                                                  \
  }

FERRY_AVAILABLE_IN_1_0
void ferry_reading_clear (FerryReading *reading);

/* ---- a stretch of work ---- */

FERRY_AVAILABLE_IN_1_0
gboolean ferry_store_try_begin (FerryStore *self);

FERRY_AVAILABLE_IN_1_0
gboolean ferry_store_begin (FerryStore *self, GError **error);

FERRY_AVAILABLE_IN_1_0
gboolean ferry_store_begin_within (FerryStore *self, gint64 timeout, GError **error);

FERRY_AVAILABLE_IN_1_0
void ferry_store_end (FerryStore *self);

/* ---- holding objects in this process ---- */

FERRY_AVAILABLE_IN_1_0
gboolean ferry_store_hold (FerryStore *self, FerryRef ref, GError **error);

FERRY_AVAILABLE_IN_1_0
void ferry_store_unhold (FerryStore *self, FerryRef ref);

FERRY_AVAILABLE_IN_1_0
gboolean ferry_store_rejoin (FerryStore *self, GArray **lost, GError **error);

FERRY_AVAILABLE_IN_1_0
gboolean ferry_store_is_lost (FerryStore *self, FerryRef ref);

FERRY_AVAILABLE_IN_1_0
gpointer ferry_store_get_binding (FerryStore *self, FerryRef ref);

FERRY_AVAILABLE_IN_1_0
void ferry_store_set_binding (FerryStore *self, FerryRef ref, gpointer binding);

FERRY_AVAILABLE_IN_1_0
FerryObjectKind ferry_store_object_kind (FerryStore *self, FerryRef ref);

FERRY_AVAILABLE_IN_1_0
guint64 ferry_store_object_version (FerryStore *self, FerryRef ref);

/* ---- making values; the cell is the caller's until it is stored ---- */

FERRY_AVAILABLE_IN_1_0
FerryCell ferry_store_new_leaf (FerryStore *self, FerryLeafKind kind, guint flags, guint32 hash, gconstpointer data,
                                gsize size, const FerryRef *refs, guint n_refs, GError **error);

FERRY_AVAILABLE_IN_1_0
FerryCell ferry_store_new_int (FerryStore *self, gint64 value, GError **error);

FERRY_AVAILABLE_IN_1_0
FerryCell ferry_store_new_float (FerryStore *self, double value, GError **error);

FERRY_AVAILABLE_IN_1_0
FerryCell ferry_store_new_reference (FerryStore *self, FerryRef ref);

FERRY_AVAILABLE_IN_1_0
void ferry_store_release_cell (FerryStore *self, FerryCell cell);

/* ---- keys ---- */

/**
 * FerryKey: (skip)
 * @cell: the key when it is inline; otherwise %FERRY_CELL_LEAF with any payload
 * @hash: see docs/store.md
 * @kind: of a leaf: its kind
 * @flags: of a leaf: its flags
 * @data: of a leaf: its data
 * @size: of a leaf: bytes of data
 * @equal: (nullable): called for keys of the same hash whose bytes differ and that may be equal all the same (numbers of
 *   another type, tuples); gets a private copy. %NULL: they differ
 * @user_data: for @equal
 *
 * A key to look for.
 *
 * Since: 1.0
 */
typedef struct _FerryKey FerryKey;
struct _FerryKey
{
  FerryCell cell;
  guint32 hash;
  guint8 kind;
  guint8 flags;
  gconstpointer data;
  gsize size;
  int (*equal) (const FerryKey *key, const FerryReading *candidate); /* 1, 0; -1: an error, gives up */
  gpointer user_data;
};

FERRY_AVAILABLE_IN_1_0
guint32 ferry_key_hash_int (gint64 value);

FERRY_AVAILABLE_IN_1_0
guint32 ferry_key_hash_float (double value);

FERRY_AVAILABLE_IN_1_0
guint32 ferry_key_hash_data (FerryLeafKind kind, gconstpointer data, gsize size);

/* ---- the root mapping ---- */

FERRY_AVAILABLE_IN_1_0
FerryRef ferry_store_get_root (FerryStore *self);

/* Keys of the root are str; the value lives in a SLOT object with a lock of its own. -1: error, 0: not there, 1: found. */
FERRY_AVAILABLE_IN_1_0
int ferry_store_root_get (FerryStore *self, const FerryKey *key, FerryReading *reading, GError **error);

FERRY_AVAILABLE_IN_1_0
gboolean ferry_store_root_set (FerryStore *self, const FerryKey *key, FerryCell value, GError **error);

FERRY_AVAILABLE_IN_1_0
int ferry_store_root_add (FerryStore *self, const FerryKey *key, FerryCell delta, FerryReading *reading,
                          GError **error);

FERRY_AVAILABLE_IN_1_0
int ferry_store_root_remove (FerryStore *self, const FerryKey *key, FerryReading *reading, GError **error);

/* ---- lists ---- */

FERRY_AVAILABLE_IN_1_0
FerryCell ferry_store_list_new (FerryStore *self, const FerryCell *cells, gsize n, GError **error);

FERRY_AVAILABLE_IN_1_0
gssize ferry_store_list_length (FerryStore *self, FerryRef list);

/* @index may be negative, from the end. 1: read; 0: out of range; -1: error. */
FERRY_AVAILABLE_IN_1_0
int ferry_store_list_get (FerryStore *self, FerryRef list, gssize index, FerryReading *reading, GError **error);

/* Reads an element in the shortest way: FALSE: it is not inline, is not there, or somebody is at the list. */
FERRY_AVAILABLE_IN_1_0
gboolean ferry_store_list_peek (FerryStore *self, FerryRef list, gssize index, FerryCell *cell);

FERRY_AVAILABLE_IN_1_0
int ferry_store_list_set (FerryStore *self, FerryRef list, gssize index, FerryCell value, GError **error);

FERRY_AVAILABLE_IN_1_0
gboolean ferry_store_list_replace (FerryStore *self, FerryRef list, gssize index, FerryCell value);

/* Adds a number to a number in one step; 0: out of range; -1: error (UNSUPPORTED: not both numbers that fit). The result
 * is in @reading when that is not NULL. */
FERRY_AVAILABLE_IN_1_0
int ferry_store_list_add (FerryStore *self, FerryRef list, gssize index, FerryCell delta, FerryReading *reading,
                          GError **error);

FERRY_AVAILABLE_IN_1_0
gboolean ferry_store_list_append (FerryStore *self, FerryRef list, FerryCell value, GError **error);

FERRY_AVAILABLE_IN_1_0
int ferry_store_list_pop (FerryStore *self, FerryRef list, gssize index, FerryReading *reading, GError **error);

/* Replaces @n_removed elements from @start on (both clipped to the list) by @n cells, in one step: insert, extend, delete,
 * clear, slice assignment. @cells are taken over when it succeeds. */
FERRY_AVAILABLE_IN_1_0
gboolean ferry_store_list_splice (FerryStore *self, FerryRef list, gsize start, gsize n_removed, const FerryCell *cells,
                                  gsize n, GError **error);

/* Replaces every @step'th of @n elements from @start on, or deletes them when @cells is NULL; 0 when the list has not so
 * many (any more). */
FERRY_AVAILABLE_IN_1_0
int ferry_store_list_assign_strided (FerryStore *self, FerryRef list, gssize start, gssize step, gsize n,
                                     const FerryCell *cells, GError **error);

/* Puts the elements into another order, provided that the list still has version @version: element i of the new order
 * was element order[i]. 0: it changed. */
FERRY_AVAILABLE_IN_1_0
int ferry_store_list_permute (FerryStore *self, FerryRef list, guint64 version, const guint32 *order, gsize n,
                              GError **error);

/**
 * FerrySnapshot: (skip)
 * @version: of the object when it was read
 * @n: how many cells
 * @cells: immediate values, or leaves as offsets from @memory, or objects that are held for the caller
 * @memory: private copies of the leaves, each a #FerryLeaf
 *
 * All cells of an object at one instant: elements of a list, keys and values in turn of a dict, keys of a set, fields of a record (and last
 * the dict of further attributes, or EMPTY). Clear with ferry_store_snapshot_clear().
 *
 * Since: 1.0
 */
typedef struct
{
  guint64 version;
  gsize n;
  FerryCell *cells;
  guint8 *memory;
  gsize memory_size;

  /*< private >*/
  gsize cells_capacity;
  gsize memory_capacity;
} FerrySnapshot;

FERRY_AVAILABLE_IN_1_0
gboolean ferry_store_snapshot (FerryStore *self, FerryRef ref, FerrySnapshot *snapshot, GError **error);

/* Also gives back what it holds. */
FERRY_AVAILABLE_IN_1_0
void ferry_store_snapshot_clear (FerryStore *self, FerrySnapshot *snapshot);

/* ---- dicts and sets (a set has keys only; its values are None) ---- */

FERRY_AVAILABLE_IN_1_0
FerryCell ferry_store_dict_new (FerryStore *self, FerryObjectKind kind, gsize n_expected, GError **error);

FERRY_AVAILABLE_IN_1_0
gssize ferry_store_dict_length (FerryStore *self, FerryRef dict);

/* 1: found, 0: not there, -1: error, -2: @equal gave up. @reading may be NULL. */
FERRY_AVAILABLE_IN_1_0
int ferry_store_dict_get (FerryStore *self, FerryRef dict, const FerryKey *key, FerryReading *reading, GError **error);

/* Sets @value for @key. @key_cell, when the key is a leaf: made with ferry_store_new_leaf(); it is taken over, or released when the key was there;
 * may be 0: then it is made of @key. @only_new: leaves what is there; the value that was there is in @reading, and the one given is released. Returns 1: was there, 0: was not,
 * -1, -2 as above (what was given is the caller's then). */
FERRY_AVAILABLE_IN_1_0
int ferry_store_dict_set (FerryStore *self, FerryRef dict, const FerryKey *key, FerryCell key_cell, FerryCell value,
                          gboolean only_new, FerryReading *reading, GError **error);

FERRY_AVAILABLE_IN_1_0
int ferry_store_dict_add (FerryStore *self, FerryRef dict, const FerryKey *key, FerryCell delta, FerryReading *reading,
                          GError **error);

FERRY_AVAILABLE_IN_1_0
int ferry_store_dict_remove (FerryStore *self, FerryRef dict, const FerryKey *key, FerryReading *reading,
                             GError **error);

/* The last entry (dict.popitem), or the first (set.pop). 1; 0: empty; -1. */
FERRY_AVAILABLE_IN_1_0
int ferry_store_dict_pop (FerryStore *self, FerryRef dict, gboolean last, FerryReading *key, FerryReading *value,
                          GError **error);

FERRY_AVAILABLE_IN_1_0
gboolean ferry_store_dict_clear (FerryStore *self, FerryRef dict, GError **error);

/* Replaces all in one step by @n keys and values in turn, whose hashes are in @hashes; distinct keys. Cells are taken over when it succeeds. When @version is
 * not 0, only if the object still has it; 0 is returned otherwise. */
FERRY_AVAILABLE_IN_1_0
int ferry_store_dict_assign (FerryStore *self, FerryRef dict, guint64 version, const FerryCell *cells,
                             const guint32 *hashes, gsize n, GError **error);

/* Walks in order: *position starts at 0 (or at G_MAXUINT64 when backwards). 1: an entry; 0: the end; -1: error. */
FERRY_AVAILABLE_IN_1_0
int ferry_store_dict_next (FerryStore *self, FerryRef dict, guint64 *position, gboolean backwards, FerryReading *key,
                           FerryReading *value, GError **error);

/* ---- records ---- */

/* The shape for the class description @shape (a leaf of kind SHAPE, taken over), one a store; held for the caller. 0: error. */
FERRY_AVAILABLE_IN_1_0
FerryRef ferry_store_shape (FerryStore *self, FerryCell shape, GError **error);

FERRY_AVAILABLE_IN_1_0
gboolean ferry_store_shape_read (FerryStore *self, FerryRef shape, FerryReading *reading, GError **error);

FERRY_AVAILABLE_IN_1_0
FerryCell ferry_store_record_new (FerryStore *self, FerryRef shape, const FerryCell *cells, guint n, GError **error);

/* The shape of a record, not held (it lives as long as the record). */
FERRY_AVAILABLE_IN_1_0
FerryRef ferry_store_record_shape (FerryStore *self, FerryRef record);

/* 1; 0: the field is not set; -1: error. */
FERRY_AVAILABLE_IN_1_0
int ferry_store_record_get (FerryStore *self, FerryRef record, guint field, FerryReading *reading, GError **error);

/* As ferry_store_list_peek(). */
FERRY_AVAILABLE_IN_1_0
gboolean ferry_store_record_peek (FerryStore *self, FerryRef record, guint field, FerryCell *cell);

/* EMPTY deletes; 0 when it was not set before. */
FERRY_AVAILABLE_IN_1_0
int ferry_store_record_set (FerryStore *self, FerryRef record, guint field, FerryCell value, GError **error);

FERRY_AVAILABLE_IN_1_0
int ferry_store_record_add (FerryStore *self, FerryRef record, guint field, FerryCell delta, FerryReading *reading,
                            GError **error);

/* The dict of further attributes, held; made when @create. 0: there is none, or error. */
FERRY_AVAILABLE_IN_1_0
FerryRef ferry_store_record_extra (FerryStore *self, FerryRef record, gboolean create, GError **error);

/* ---- arrays and bytearrays ---- */

/* @description: a leaf of kind ARRAY, taken over. The data, 64-byte aligned, is not initialized when @data is NULL. */
FERRY_AVAILABLE_IN_1_0
FerryCell ferry_store_array_new (FerryStore *self, FerryCell description, gconstpointer data, gsize size,
                                 GError **error);

/* The address is good as long as the object is held. */
FERRY_AVAILABLE_IN_1_0
gpointer ferry_store_array_data (FerryStore *self, FerryRef array, gsize *size, FerryReading *description,
                                 GError **error);

FERRY_AVAILABLE_IN_1_0
FerryCell ferry_store_bytearray_new (FerryStore *self, gconstpointer data, gsize size, GError **error);

FERRY_AVAILABLE_IN_1_0
gssize ferry_store_bytearray_length (FerryStore *self, FerryRef bytearray);

/* Copies up to @size bytes from @offset on; returns how many, -1: error. One instant. */
FERRY_AVAILABLE_IN_1_0
gssize ferry_store_bytearray_read (FerryStore *self, FerryRef bytearray, gsize offset, gpointer data, gsize size,
                                   GError **error);

/* Replaces @n_removed bytes from @offset on by @size others, in one step. */
FERRY_AVAILABLE_IN_1_0
gboolean ferry_store_bytearray_splice (FerryStore *self, FerryRef bytearray, gsize offset, gsize n_removed,
                                       gconstpointer data, gsize size, GError **error);

/* ---- references in transit ---- */

/**
 * FERRY_STORE_REFERENCE_SIZE: (skip)
 *
 * Bytes of a message of codec `store`: more than fits into a slot, so that it has a block of its own.
 *
 * Since: 1.0
 */
#define FERRY_STORE_REFERENCE_SIZE (4096)

FERRY_AVAILABLE_IN_1_0
FerryStoreReference *ferry_store_reference_new (FerryStore *store, FerryRef ref, GError **error);

FERRY_AVAILABLE_IN_1_0
gboolean ferry_store_reference_encode (FerryStoreReference *self, guint8 *data, gsize size, GError **error);

FERRY_AVAILABLE_IN_1_0
FerryStoreReference *ferry_store_reference_decode (FerryBuffer *buffer, gboolean may_open, const char *accept,
                                                   gboolean *was_opened, GError **error);

FERRY_AVAILABLE_IN_1_0
gboolean ferry_store_reference_peek (FerryBuffer *buffer, guint8 identity[16], char **transport, char **name);

/* The store of that identity that this process has open, or NULL. */
FERRY_AVAILABLE_IN_1_0
FerryStore *ferry_store_find_open (const guint8 identity[16]);

/* A reference that travels in a message is counted until it has been received once: a ticket. */
FERRY_AVAILABLE_IN_1_0
guint64 ferry_store_ticket_new (FerryStore *self, FerryRef ref, GError **error);

/* Held for the caller; 0: there is no such ticket. */
FERRY_AVAILABLE_IN_1_0
FerryRef ferry_store_ticket_take (FerryStore *self, guint64 ticket, GError **error);

G_END_DECLS
