/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ferry-store-private.h"

#include "ferry-copy.h"
#include "ferry-error.h"

#define XXH_INLINE_ALL
#include <math.h>
#include <xxhash.h>

/* Leaves, keys and readings: section 1 of docs/store.md. */

/* Data of this size goes where the reader of it wants it, in bytes. */
#define PLACE_MIN (4096)
/* Bits of CPython's modulus for hashes of numbers, see "Hashing of numeric types" in its documentation: there hash(x) is x
 * modulo 2**61 - 1, and equal numbers of whatever type have the same. */
#define NUMBER_HASH_BITS (61)
#define NUMBER_HASH_MODULUS ((G_GUINT64_CONSTANT (1) << NUMBER_HASH_BITS) - 1)
#define NUMBER_HASH_INFINITY (314159)

static inline guint32
fold (guint64 hash)
{
  return (guint32) (hash ^ hash >> 32);
}

/* A bijection of 64 bits: the finalizer of MurmurHash3 (Appleby). */
static inline guint64
mix (guint64 hash)
{
  hash ^= hash >> 33;
  hash *= G_GUINT64_CONSTANT (0xff51afd7ed558ccd);
  hash ^= hash >> 33;
  hash *= G_GUINT64_CONSTANT (0xc4ceb9fe1a85ec53);
  return hash ^ hash >> 33;
}

/**
 * ferry_key_hash_int: (skip)
 * @value: hash() of a number as CPython computes it; of an integer of less than 61 bits that is the number itself
 *
 * Hashes a number that is an integer.
 *
 * Returns: the hash that numbers have as keys
 *
 * Since: 1.0
 */
guint32
ferry_key_hash_int (gint64 value)
{
  if (value >= (gint64) NUMBER_HASH_MODULUS || value <= -(gint64) NUMBER_HASH_MODULUS)
    value %= (gint64) NUMBER_HASH_MODULUS;
  return fold (mix ((guint64) (value == -1 ? -2 : value)));
}

/**
 * ferry_key_hash_float: (skip)
 * @value: a number
 *
 * Hashes a number.
 *
 * Returns: its hash, that of the integer when it is one
 *
 * Since: 1.0
 */
guint32
ferry_key_hash_float (double value)
{
  guint64 x = 0;
  gboolean negative = value < 0;
  int exponent;
  double mantissa;

  if (isnan (value))
    {
      guint64 bits;

      memcpy (&bits, &value, sizeof bits);
      return fold (mix (bits));
    }
  if (isinf (value))
    return ferry_key_hash_int (negative ? -NUMBER_HASH_INFINITY : NUMBER_HASH_INFINITY);
  if (value == (double) (gint32) value)
    return ferry_key_hash_int ((gint64) value);
  mantissa = frexp (fabs (value), &exponent);
  while (mantissa != 0)
    {
      guint64 digit;

      x = ((x << 28) & NUMBER_HASH_MODULUS) | x >> (NUMBER_HASH_BITS - 28);
      mantissa *= (double) (1 << 28);
      exponent -= 28;
      digit = (guint64) mantissa;
      mantissa -= (double) digit;
      x += digit;
      if (x >= NUMBER_HASH_MODULUS)
        x -= NUMBER_HASH_MODULUS;
    }
  exponent = exponent >= 0 ? exponent % NUMBER_HASH_BITS : NUMBER_HASH_BITS - 1 - ((-1 - exponent) % NUMBER_HASH_BITS);
  x = ((x << exponent) & NUMBER_HASH_MODULUS) | x >> (NUMBER_HASH_BITS - exponent);
  return ferry_key_hash_int (negative ? -(gint64) x : (gint64) x);
}

/**
 * ferry_key_hash_data: (skip)
 * @kind: %FERRY_LEAF_STR, whose data are code units (inline strings are of one byte each), %FERRY_LEAF_BYTES or any other
 * @data: (array length=size) (element-type guint8): the data
 * @size: bytes
 *
 * Hashes what has bytes.
 *
 * Returns: their hash as a key
 *
 * Since: 1.0
 */
guint32
ferry_key_hash_data (FerryLeafKind kind, gconstpointer data, gsize size)
{
  return fold (XXH3_64bits_withSeed (data, size, kind));
}

/* ---- making leaves ---- */

/**
 * ferry_store_new_leaf: (skip)
 * @self: a store
 * @kind: what it is
 * @flags: of a str: width of its units and %FERRY_LEAF_ASCII
 * @hash: its hash as a key; 0 for what is not hashable
 * @data: (nullable) (array length=size) (element-type guint8): its data, of which there may be none
 * @size: bytes of data
 * @refs: (nullable) (array length=n_refs): objects that its cells name by index; the caller's references to them are taken over
 * @n_refs: how many, at most %FERRY_LEAF_MAX_REFS
 * @error: return location for an error
 *
 * Makes an immutable value. Inside a stretch of work.
 *
 * Returns: the cell that owns it, the caller's until it is stored; 0 on error
 *
 * Since: 1.0
 */
FerryCell
ferry_store_new_leaf (FerryStore *self, FerryLeafKind kind, guint flags, guint32 hash, gconstpointer data, gsize size,
                      const FerryRef *refs, guint n_refs, GError **error)
{
  FerryLeaf *leaf;
  guint64 block;

  if (n_refs > FERRY_LEAF_MAX_REFS)
    {
      g_set_error (
          error, FERRY_ERROR, FERRY_ERROR_TOO_BIG,
          "%s: an immutable value (a tuple, for instance) refers to %u mutable ones; at most %d can be in one; put "
          "them into a list",
          self->label, n_refs, FERRY_LEAF_MAX_REFS);
      return 0;
    }
  if (size > self->data_size)
    {
      g_set_error (error, FERRY_ERROR, FERRY_ERROR_NO_SPACE,
                   "%s: a value of %" G_GSIZE_FORMAT " bytes does not fit: max-bytes is %" G_GUINT64_FORMAT,
                   self->label, size, self->max_bytes);
      return 0;
    }
  block = ferry_store_heap_alloc (self, sizeof *leaf + n_refs * sizeof *refs + size, error);
  if (G_UNLIKELY (block == 0))
    return 0;
  leaf = ferry_store_at (self, block);
  leaf->kind = (guint8) kind;
  leaf->flags = (guint8) flags;
  leaf->n_refs = (guint16) n_refs;
  leaf->hash = hash;
  leaf->size = size;
  if (n_refs > 0)
    memcpy (leaf->data, refs, n_refs * sizeof *refs);
  if (size > 0 && data != NULL)
    ferry_copy_memory (leaf->data + n_refs * sizeof *refs, data, size);
  return FERRY_CELL (FERRY_CELL_LEAF, block);
}

/**
 * ferry_store_new_int: (skip)
 * @self: a store
 * @value: a number
 * @error: return location for an error
 *
 * Makes an integer, inline if it can be.
 *
 * Returns: a cell for it; 0 on error
 *
 * Since: 1.0
 */
FerryCell
ferry_store_new_int (FerryStore *self, gint64 value, GError **error)
{
  guint8 bytes[sizeof value];
  gsize size = sizeof value;

  if (G_LIKELY (value >= FERRY_CELL_INT_MIN && value <= FERRY_CELL_INT_MAX))
    return FERRY_CELL (FERRY_CELL_INT, value);
  value = GINT64_TO_LE (value);
  memcpy (bytes, &value, sizeof bytes);
  while (size > 1
         && ((bytes[size - 1] == 0 && bytes[size - 2] < 0x80) || (bytes[size - 1] == 0xff && bytes[size - 2] >= 0x80)))
    size--;
  return ferry_store_new_leaf (self, FERRY_LEAF_INT, 0, ferry_key_hash_int (GINT64_FROM_LE (value)), bytes, size, NULL,
                               0, error);
}

/**
 * ferry_store_new_float: (skip)
 * @self: a store
 * @value: a number
 * @error: return location for an error
 *
 * Makes a float, inline if it can be.
 *
 * Returns: a cell for it, bit for bit; 0 on error (which is no cell of a float that needs a leaf; of 0.0 it is the cell: ask
 *   @error)
 *
 * Since: 1.0
 */
FerryCell
ferry_store_new_float (FerryStore *self, double value, GError **error)
{
  FerryCell bits;

  memcpy (&bits, &value, sizeof bits);
  if (G_LIKELY (ferry_cell_tag (bits) == FERRY_CELL_FLOAT))
    return bits;
  return ferry_store_new_leaf (self, FERRY_LEAF_FLOAT, 0, ferry_key_hash_float (value), &value, sizeof value, NULL, 0,
                               error);
}

/* ---- reading ---- */

/**
 * ferry_reading_clear: (skip)
 * @reading: a reading
 *
 * Frees the private copy. What it holds is the caller's to give back.
 *
 * Since: 1.0
 */
void
ferry_reading_clear (FerryReading *reading)
{
  g_clear_pointer (&reading->memory, g_free);
  reading->capacity = 0;
  reading->leaf = NULL;
}

static gboolean
reserve_reading (FerryReading *reading, gsize size)
{
  if (size <= sizeof reading->small)
    {
      reading->leaf = (FerryLeaf *) (void *) reading->small;
      return TRUE;
    }
  if (size > reading->capacity)
    {
      gsize capacity = size + size / 4;

      g_free (reading->memory);
      reading->memory = g_try_malloc (capacity);
      reading->capacity = reading->memory != NULL ? capacity : 0;
    }
  reading->leaf = reading->memory;
  return reading->memory != NULL;
}

/* Whether the characters of a str can be taken out of it. */
static gboolean
has_whole_characters (const FerryLeaf *head)
{
  guint width = head->flags & FERRY_LEAF_WIDTH_MASK;

  return head->kind != FERRY_LEAF_STR || ((width == 1 || width == 2 || width == 4) && head->size % width == 0);
}

/* FALSE: nonsense, or no memory, as @look->lacking tells. To be believed if the look is good. */
gboolean
ferry_store_copy_cell (FerryLook *look, FerryCell cell, FerryReading *reading)
{
  FerryStore *self = look->store;
  guint64 offset;
  FerryLeaf head;
  gsize refs_size;
  const guint8 *data;

  reading->cell = cell;
  reading->placed = FALSE;
  if (G_LIKELY (ferry_cell_tag (cell) != FERRY_CELL_LEAF))
    return TRUE;
  offset = ferry_cell_payload (cell);
  if (offset % 16 != 0 || !ferry_store_in_heap (self, offset, sizeof head))
    return FALSE;
  memcpy (&head, ferry_store_at (self, offset), sizeof head);
  refs_size = (gsize) head.n_refs * sizeof (FerryRef);
  if (head.size > self->data_size || !ferry_store_in_heap (self, offset, sizeof head + refs_size + head.size))
    return FALSE;
  data = (const guint8 *) ferry_store_at (self, offset) + sizeof head + refs_size;
  if (head.size >= PLACE_MIN)
    {
      /* Large: not before it is known that this is what is there. */
      atomic_thread_fence (memory_order_acquire);
      if (atomic_load_explicit (&look->object->lock, memory_order_relaxed) != look->lock)
        {
          /* Who has it now may change nothing and leave the same version: this look must not count all the same. */
          look->lock = FERRY_LOOK_FAILED;
          return FALSE;
        }
      if (reading->place != NULL && (head.kind == FERRY_LEAF_STR || head.kind == FERRY_LEAF_BYTES) && head.n_refs == 0)
        {
          gpointer place = has_whole_characters (&head) ? reading->place (reading, &head, head.size) : NULL;

          if (place == NULL || !reserve_reading (reading, sizeof head))
            {
              look->lacking = has_whole_characters (&head) ? head.size : 0;
              return FALSE;
            }
          memcpy (reading->leaf, &head, sizeof head);
          ferry_copy_memory (place, data, head.size);
          reading->placed = TRUE;
          return TRUE;
        }
    }
  if (G_UNLIKELY (!reserve_reading (reading, sizeof head + refs_size + head.size)))
    {
      look->lacking = sizeof head + refs_size + head.size;
      return FALSE;
    }
  memcpy (reading->leaf, &head, sizeof head);
  memcpy (reading->leaf->data, data - refs_size, refs_size + head.size);
  return TRUE;
}

/* ---- numbers ---- */

typedef struct
{
  gboolean is_float;
  gint64 integer;
  double real;
} FerryNumber;

static gboolean
read_number (FerryStore *self, FerryCell cell, FerryNumber *number)
{
  memset (number, 0, sizeof *number);
  switch (ferry_cell_tag (cell))
    {
    case FERRY_CELL_FLOAT:
      number->is_float = TRUE;
      memcpy (&number->real, &cell, sizeof cell);
      return TRUE;
    case FERRY_CELL_INT:
      number->integer = ferry_cell_int (cell);
      return TRUE;
    case FERRY_CELL_CONSTANT:
      number->integer = ferry_cell_payload (cell) == FERRY_CONSTANT_TRUE;
      return ferry_cell_payload (cell) == FERRY_CONSTANT_TRUE || ferry_cell_payload (cell) == FERRY_CONSTANT_FALSE;
    case FERRY_CELL_LEAF:
      {
        guint64 offset = ferry_cell_payload (cell);
        const FerryLeaf *leaf = ferry_store_at (self, offset);
        guint64 size;

        if (offset % 16 != 0 || !ferry_store_in_heap (self, offset, sizeof *leaf + sizeof number->integer))
          return FALSE;
        size = leaf->size;
        if (leaf->n_refs != 0)
          return FALSE;
        if (leaf->kind == FERRY_LEAF_FLOAT && size == sizeof number->real)
          {
            number->is_float = TRUE;
            memcpy (&number->real, leaf->data, sizeof number->real);
            return TRUE;
          }
        if (leaf->kind != FERRY_LEAF_INT || size == 0 || size > sizeof number->integer)
          return FALSE;
        number->integer = leaf->data[size - 1] & 0x80 ? -1 : 0;
        for (guint64 i = size; i-- > 0;)
          number->integer = (gint64) ((guint64) number->integer << 8 | leaf->data[i]);
        return TRUE;
      }
    case FERRY_CELL_STR:
    case FERRY_CELL_BYTES:
    case FERRY_CELL_OBJECT:
    default:
      return FALSE;
    }
}

/* Of two cells that nobody changes meanwhile. */
gboolean
ferry_store_add_cells (FerryStore *self, FerryCell cell, FerryCell delta, FerryCell *sum, GError **error)
{
  FerryNumber a;
  FerryNumber b;
  gint64 integer;
  GError *local = NULL;

  if (G_UNLIKELY (!read_number (self, cell, &a) || !read_number (self, delta, &b)))
    {
      g_set_error (error, FERRY_ERROR, FERRY_ERROR_UNSUPPORTED,
                   "%s: only numbers of up to 64 bits can be added in one step; use a transaction", self->label);
      return FALSE;
    }
  if (a.is_float || b.is_float)
    *sum = ferry_store_new_float (
        self, (a.is_float ? a.real : (double) a.integer) + (b.is_float ? b.real : (double) b.integer), &local);
  else if (__builtin_add_overflow (a.integer, b.integer, &integer))
    g_set_error (&local, FERRY_ERROR, FERRY_ERROR_UNSUPPORTED, "%s: the sum has more than 64 bits; use a transaction",
                 self->label);
  else
    *sum = ferry_store_new_int (self, integer, &local);
  if (G_UNLIKELY (local != NULL))
    {
      g_propagate_error (error, local);
      return FALSE;
    }
  return TRUE;
}
