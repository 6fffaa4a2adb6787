/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ferry-store-container-private.h"

#include "ferry-error.h"

/* The body: a word {capacity:32, log2:32}, the index, the entries in order of insertion. An entry is {key, value}, of a
 * set {key}. The index has 2^log2 slots of 32 bits, two a word, slot 2i in the lower half; none when log2 is 0. A slot is
 * 0 when it is free, or the number of an entry plus 1 in its lower log2 bits and above them those of the hash, so that
 * keys that differ are seldom looked at. All lower bits set: the entry was deleted. Collisions go to the next slot.
 *
 * object->size: live entries
 * object->used: {first:32, used:32}: entries below used are in use, those below first are deleted
 * object->extra: {used:32, end:32}, with an index: entries from end to used are deleted. used is what it was when this was written */
#define DICT_HEAD (sizeof (guint64))
#define DICT_LINEAR_MAX (8) /* entries that do without an index */
#define DICT_LINEAR_FIRST (3)
#define DICT_MIN_LOG2 (4)
#define DICT_MAX_LOG2 (31)
#define DICT_NONE (G_MAXUINT32)
#define DICT_SHRINK (8)

#define FLOAT_EXPONENT (G_GUINT64_CONSTANT (0x7ff) << 52)

#define PAIR(upper, lower) ((guint64) (upper) << 32 | (guint64) (guint32) (lower))
#define UPPER(pair) ((guint32) ((pair) >> 32))
#define LOWER(pair) ((guint32) (pair))

typedef struct
{
  guint64 body;
  guint32 log2;
  guint32 capacity;
  guint32 width; /* cells an entry */
  guint32 used;
  guint32 first;
  _Atomic guint64 *index;
  _Atomic guint64 *entries;
} DictView;

typedef enum
{
  FOUND_NONSENSE = -1,
  FOUND_NOT = 0,
  FOUND = 1,
  FOUND_MAYBE = 2, /* key->equal has to say */
} Found;

typedef struct
{
  guint32 entry;
  guint32 slot; /* FOUND_NOT: where it would be */
} Place;

/* What key->equal said about keys of an object of a certain version. */
typedef struct
{
  guint64 version;
  GArray *answers;
} Verdicts;

typedef struct
{
  FerryCell cell;
  int equal;
} Answer;

static void
verdicts_clear (Verdicts *verdicts)
{
  g_clear_pointer (&verdicts->answers, g_array_unref);
}

G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC (Verdicts, verdicts_clear)

static inline guint64
dict_index_size (guint32 log2)
{
  return log2 > 0 ? (guint64) sizeof (guint32) << log2 : 0;
}

static inline guint32
dict_width (FerryObjectKind kind)
{
  return kind == FERRY_OBJECT_SET ? 1 : 2;
}

/* Inside a look, or locked by us. FALSE: nonsense. */
static inline gboolean
dict_view (FerryLook *look, DictView *view)
{
  FerryStore *self = look->store;
  FerryObjectKind kind = ferry_object_kind (look->object);
  guint64 used = ferry_store_load (look, &look->object->used);
  guint64 head;
  guint64 at;

  view->body = ferry_store_load (look, &look->object->body);
  view->width = dict_width (kind);
  view->used = LOWER (used);
  view->first = UPPER (used);
  view->log2 = 0;
  view->capacity = 0;
  view->index = NULL;
  view->entries = NULL;
  if (G_UNLIKELY (kind != FERRY_OBJECT_DICT && kind != FERRY_OBJECT_SET))
    return FALSE;
  if (view->body == 0)
    return used == 0;
  if (G_UNLIKELY (view->body % 16 != 0 || !ferry_store_in_heap (self, view->body, DICT_HEAD)))
    return FALSE;
  head = ferry_word_get (ferry_store_at (self, view->body));
  view->log2 = LOWER (head);
  view->capacity = UPPER (head);
  if (G_UNLIKELY (view->log2 > DICT_MAX_LOG2))
    return FALSE;
  at = view->body + DICT_HEAD;
  view->index = ferry_store_at (self, at);
  at += dict_index_size (view->log2);
  view->entries = ferry_store_at (self, at);
  return ferry_store_in_heap (self, view->body,
                              at - view->body + (guint64) view->capacity * view->width * sizeof (FerryCell))
         && view->used <= view->capacity && view->first <= view->used
         && (view->log2 == 0 || view->capacity < (G_GUINT64_CONSTANT (1) << view->log2) - 1);
}

static inline _Atomic guint64 *
dict_key (const DictView *view, guint32 entry)
{
  return view->entries + (gsize) entry * view->width;
}

static inline guint32
dict_mask (const DictView *view)
{
  return (guint32) ((G_GUINT64_CONSTANT (1) << view->log2) - 1);
}

static inline guint32
dict_slot (FerryLook *look, const DictView *view, guint32 slot)
{
  return (guint32) (ferry_store_load (look, view->index + slot / 2) >> (slot % 2 * 32));
}

/* The word of @slot, with @content in it. */
static inline guint64
dict_slot_word (const DictView *view, guint32 slot, guint32 content)
{
  guint64 word = ferry_word_get (view->index + slot / 2);
  guint shift = slot % 2 * 32;

  return (word & ~((guint64) G_MAXUINT32 << shift)) | (guint64) content << shift;
}

/* ---- comparing ---- */

static gboolean
kind_may_equal_others (guint kind)
{
  switch (kind)
    {
    case FERRY_LEAF_INT:
    case FERRY_LEAF_FLOAT:
    case FERRY_LEAF_COMPLEX:
    case FERRY_LEAF_TUPLE:
    case FERRY_LEAF_FROZENSET:
    case FERRY_LEAF_CODEC:
      return TRUE;
    default:
      return FALSE;
    }
}

static Found
dict_ask_or_not (const FerryKey *key, FerryCell cell, const Verdicts *verdicts)
{
  if (key->equal == NULL)
    return FOUND_NOT;
  if (verdicts != NULL)
    for (guint i = 0; i < verdicts->answers->len; i++)
      {
        const Answer *answer = &g_array_index (verdicts->answers, Answer, i);

        if (answer->cell == cell)
          return answer->equal ? FOUND : FOUND_NOT;
      }
  return FOUND_MAYBE;
}

/* A key that is a leaf, or a leaf that is a key, or both. */
static G_GNUC_NO_INLINE Found
dict_match_leaf (FerryLook *look, const FerryKey *key, guint32 hash, FerryCell cell, const Verdicts *verdicts)
{
  FerryStore *self = look->store;
  gboolean key_is_leaf = ferry_cell_tag (key->cell) == FERRY_CELL_LEAF;
  double number;
  FerryLeaf head;
  const guint8 *data;

  if (ferry_cell_tag (cell) != FERRY_CELL_LEAF)
    {
      /* a number of another type, say Decimal(1), and 1 */
      if (key_is_leaf && kind_may_equal_others (key->kind) && ferry_cell_is_number (cell, &number)
          && ferry_cell_hash (cell) == hash)
        return dict_ask_or_not (key, cell, verdicts);
      return FOUND_NOT;
    }
  if (!ferry_store_leaf_head (self, ferry_cell_payload (cell), &head))
    return FOUND_NONSENSE;
  if (head.hash != hash)
    return FOUND_NOT;
  if (!key_is_leaf)
    {
      if (!ferry_cell_is_number (key->cell, &number) || !kind_may_equal_others (head.kind))
        return FOUND_NOT;
      return dict_ask_or_not (key, cell, verdicts);
    }
  if (head.kind == key->kind)
    {
      if (head.kind == FERRY_LEAF_FLOAT)
        return FOUND_NOT; /* NaN */
      data = (const guint8 *) ferry_store_at (self, ferry_cell_payload (cell)) + sizeof head;
      if (head.n_refs == 0 && head.flags == key->flags && head.size == key->size
          && memcmp (data, key->data, key->size) == 0)
        return FOUND;
      if (head.kind == FERRY_LEAF_INT)
        return FOUND_NOT;
    }
  if (!kind_may_equal_others (head.kind) || !kind_may_equal_others (key->kind))
    return FOUND_NOT;
  return dict_ask_or_not (key, cell, verdicts);
}

static G_GNUC_NO_INLINE Found
dict_match_number (FerryLook *look, const FerryKey *key, guint32 hash, FerryCell cell, const Verdicts *verdicts)
{
  double a;
  double b;

  if (ferry_cell_tag (cell) == FERRY_CELL_LEAF)
    return dict_match_leaf (look, key, hash, cell, verdicts);
  return ferry_cell_is_number (key->cell, &a) && ferry_cell_is_number (cell, &b) && a == b ? FOUND : FOUND_NOT;
}

/* Whether @cell, which isn't EMPTY, is @key. NaN is equal to nothing. */
static inline Found
dict_match (FerryLook *look, const FerryKey *key, guint32 hash, FerryCell cell, const Verdicts *verdicts)
{
  switch (ferry_cell_tag (key->cell))
    {
    case FERRY_CELL_LEAF:
      return dict_match_leaf (look, key, hash, cell, verdicts);
    case FERRY_CELL_INT:
      if (G_LIKELY (cell == key->cell))
        return FOUND;
      return dict_match_number (look, key, hash, cell, verdicts);
    case FERRY_CELL_FLOAT:
      if (G_LIKELY (cell == key->cell && (cell & FLOAT_EXPONENT) != FLOAT_EXPONENT))
        return FOUND;
      return dict_match_number (look, key, hash, cell, verdicts); /* NaN, infinities, others */
    case FERRY_CELL_CONSTANT:
      if (cell == key->cell)
        return FOUND;
      return dict_match_number (look, key, hash, cell, verdicts);
    default:
      return cell == key->cell ? FOUND : FOUND_NOT;
    }
}

static inline guint32
dict_hash (const FerryKey *key)
{
  return ferry_cell_tag (key->cell) == FERRY_CELL_CONSTANT ? ferry_cell_hash (key->cell) : key->hash;
}

static inline Found
dict_find (FerryLook *look, const DictView *view, const FerryKey *key, guint32 hash, const Verdicts *verdicts,
           Place *place)
{
  guint32 mask;
  guint32 free_slot = DICT_NONE;
  guint32 slot;

  place->entry = DICT_NONE;
  place->slot = DICT_NONE;
  if (view->log2 == 0)
    {
      for (guint32 i = view->first; i < view->used; i++)
        {
          FerryCell cell = ferry_store_load (look, dict_key (view, i));
          Found found;

          if (cell == FERRY_CELL_EMPTY)
            continue;
          found = dict_match (look, key, hash, cell, verdicts);
          if (found != FOUND_NOT)
            {
              place->entry = i;
              return found;
            }
        }
      return FOUND_NOT;
    }

  mask = dict_mask (view);
  slot = hash & mask;
  for (guint64 n = 0; n <= mask; n++, slot = (slot + 1) & mask)
    {
      guint32 content = dict_slot (look, view, slot);
      guint32 entry = content & mask;
      FerryCell cell;
      Found found;

      if (content == 0)
        {
          place->slot = free_slot != DICT_NONE ? free_slot : slot;
          return FOUND_NOT;
        }
      if (entry == mask)
        {
          if (free_slot == DICT_NONE)
            free_slot = slot;
          continue;
        }
      if (((content ^ hash) & ~mask) != 0)
        continue;
      if (G_UNLIKELY (entry == 0 || --entry >= view->used))
        return FOUND_NONSENSE;
      cell = ferry_store_load (look, dict_key (view, entry));
      found = dict_match (look, key, hash, cell, verdicts);
      if (found != FOUND_NOT)
        {
          place->entry = entry;
          place->slot = slot;
          return found;
        }
    }
  return FOUND_NONSENSE; /* an index is never full */
}

/* Asks key->equal, without a lock, about all keys that may be equal, until the one is found or all are known not to be. 0: @verdicts are complete for the version they
 * have; -1: error; -2: it gave up. */
static G_GNUC_NO_INLINE int
dict_ask (FerryStore *self, FerryObject *object, const FerryKey *key, guint32 hash, Verdicts *verdicts, GError **error)
{
  FerryReader reader = { { self, object } };
  FerryReading candidate = FERRY_READING_INIT;
  int result = 1;

  if (verdicts->answers == NULL)
    verdicts->answers = g_array_new (FALSE, FALSE, sizeof (Answer));
  while (result == 1)
    {
      DictView view;
      Place place;
      Answer answer;
      Found found = FOUND_NONSENSE;
      gboolean fine;
      int done;

      if (!ferry_reader_begin (&reader, error))
        {
          result = -1;
          break;
        }
      if (verdicts->version != reader.look.lock >> FERRY_LOCK_VERSION_SHIFT)
        {
          verdicts->version = reader.look.lock >> FERRY_LOCK_VERSION_SHIFT;
          g_array_set_size (verdicts->answers, 0);
        }
      fine = dict_view (&reader.look, &view);
      if (fine)
        found = dict_find (&reader.look, &view, key, hash, verdicts, &place);
      fine = found != FOUND_NONSENSE;
      if (found == FOUND_MAYBE)
        {
          answer.cell = ferry_store_load (&reader.look, dict_key (&view, place.entry));
          fine = ferry_reader_copy (&reader, answer.cell, &candidate);
        }
      done = ferry_reader_end (&reader, fine, found == FOUND_MAYBE ? &candidate : NULL, error);
      if (done == 0)
        continue;
      if (done < 0)
        {
          result = -1;
        }
      else if (found != FOUND_MAYBE)
        {
          result = 0;
        }
      else
        {
          answer.equal = key->equal (key, &candidate);
          ferry_reader_unhold (self, &candidate);
          if (answer.equal < 0)
            result = -2;
          else
            g_array_append_val (verdicts->answers, answer);
          reader.tries = 0;
        }
    }
  ferry_reading_clear (&candidate);
  return result;
}

static inline const Verdicts *
verdicts_for (const Verdicts *verdicts, guint64 lock)
{
  return G_UNLIKELY (verdicts->answers != NULL) && verdicts->version == lock >> FERRY_LOCK_VERSION_SHIFT ? verdicts
                                                                                                         : NULL;
}

/* ---- bodies ---- */

/* A body for @wanted entries with an index, if need be. 0: error. Only @view's geometry is set, and its counts to 0. */
static gboolean
dict_new_body (FerryStore *self, guint32 width, guint64 wanted, gboolean tight, DictView *view, GError **error)
{
  guint32 log2 = 0;
  guint64 capacity;
  guint64 size;

  if (wanted <= DICT_LINEAR_MAX)
    {
      capacity = wanted <= DICT_LINEAR_FIRST ? DICT_LINEAR_FIRST : DICT_LINEAR_MAX;
    }
  else
    {
      /* no more than 2/3 of the slots are taken */
      for (log2 = DICT_MIN_LOG2; log2 <= DICT_MAX_LOG2 && (G_GUINT64_CONSTANT (2) << log2) / 3 < wanted; log2++)
        ;
      if (log2 > DICT_MAX_LOG2)
        {
          g_set_error (error, FERRY_ERROR, FERRY_ERROR_TOO_BIG,
                       "%s: a dict or set can't have room for %" G_GUINT64_FORMAT " entries", self->label, wanted);
          return FALSE;
        }
      capacity = tight ? wanted : (G_GUINT64_CONSTANT (2) << log2) / 3;
    }
  size = DICT_HEAD + dict_index_size (log2);
  view->body = ferry_store_heap_alloc (self, size + capacity * width * sizeof (FerryCell), error);
  if (view->body == 0)
    return FALSE;
  if (log2 == 0)
    {
      gsize usable = ferry_store_heap_block_size (self, view->body);

      if (usable > size)
        capacity = CLAMP ((usable - size) / sizeof (FerryCell) / width, capacity, DICT_LINEAR_MAX);
    }
  view->log2 = log2;
  view->capacity = (guint32) capacity;
  view->width = width;
  view->used = 0;
  view->first = 0;
  view->index = ferry_store_at (self, view->body + DICT_HEAD);
  view->entries = ferry_store_at (self, view->body + size);
  ferry_word_set (ferry_store_at (self, view->body), PAIR (capacity, log2));
  memset ((gpointer) view->index, 0, size - DICT_HEAD);
  return TRUE;
}

/* Adds an entry to a body that nobody else sees, and that has room for it. (Who overwrites what it should not can make
 * more entries than were counted, and fill the index: then it is left out.) */
static inline void
dict_fill (DictView *view, guint32 hash, FerryCell key, FerryCell value)
{
  _Atomic guint64 *entry = dict_key (view, view->used);

  if (G_UNLIKELY (view->used >= view->capacity))
    return;
  view->used++;
  ferry_word_set (entry, key);
  if (view->width > 1)
    ferry_word_set (entry + 1, value);
  if (view->log2 > 0)
    {
      guint32 mask = dict_mask (view);
      guint32 slot = hash & mask;

      for (guint32 n = 0; n < mask && (guint32) (ferry_word_get (view->index + slot / 2) >> (slot % 2 * 32)) != 0; n++)
        slot = (slot + 1) & mask;
      ferry_word_set (view->index + slot / 2, dict_slot_word (view, slot, (hash & ~mask) | view->used));
    }
}

static inline gboolean
dict_stored_hash (FerryStore *self, FerryCell cell, guint32 *hash)
{
  FerryLeaf head;

  if (ferry_cell_tag (cell) != FERRY_CELL_LEAF)
    {
      *hash = ferry_cell_hash (cell);
      return TRUE;
    }
  if (!ferry_store_leaf_head (self, ferry_cell_payload (cell), &head))
    return FALSE;
  *hash = head.hash;
  return TRUE;
}

/* Makes @to the body of the locked dict, with @to->used live entries. On failure it is freed. @to: all zero: none. */
static gboolean
dict_exchange_body (FerryStore *self, FerryObject *object, const DictView *from, const DictView *to, GError **error)
{
  FERRY_STEP ("store-dict-body-made");
  if (!ferry_store_put (self, &object->body, to->body, error))
    goto fail;
  FERRY_STEP ("store-dict-body-put");
  if (!ferry_store_put (self, &object->used, PAIR (0, to->used), error))
    goto fail;
  FERRY_STEP ("store-dict-used-put");
  if (!ferry_store_put (self, &object->extra, 0, error))
    goto fail;
  FERRY_STEP ("store-dict-extra-put");
  if (!ferry_store_put (self, &object->size, to->used, error))
    goto fail;
  FERRY_STEP ("store-dict-size-put");
  if (to->body != 0)
    ferry_store_note_made (self, to->body);
  if (from->body != 0)
    ferry_store_retire_block (self, from->body);
  return TRUE;

fail:
  /* others see the old body, which is noted, until it is put back */
  if (to->body != 0)
    ferry_store_heap_free (self, to->body);
  return FALSE;
}

/* A new body without entry @skipped (or DICT_NONE), and with one more when @key isn't EMPTY. */
static G_GNUC_NO_INLINE gboolean
dict_rebuild (FerryStore *self, FerryObject *object, const DictView *view, guint32 skipped, guint32 hash, FerryCell key,
              FerryCell value, GError **error)
{
  DictView to = { 0 };
  guint64 n = 0;

  for (guint32 i = view->first; i < view->used; i++)
    n += i != skipped && ferry_word_get (dict_key (view, i)) != FERRY_CELL_EMPTY;
  if (key != FERRY_CELL_EMPTY)
    n = n < DICT_LINEAR_FIRST ? n + 1 : n + 1 + n / 2;
  if (!dict_new_body (self, view->width, n, FALSE, &to, error))
    return FALSE;
  for (guint32 i = view->first; i < view->used; i++)
    {
      FerryCell cell = ferry_word_get (dict_key (view, i));
      guint32 cell_hash = 0;

      if (i == skipped || cell == FERRY_CELL_EMPTY)
        continue;
      if (to.log2 > 0 && !dict_stored_hash (self, cell, &cell_hash))
        {
          ferry_store_heap_free (self, to.body);
          return ferry_store_set_corrupt (self, "a dict has a key that can't be right", error);
        }
      dict_fill (&to, cell_hash, cell, view->width > 1 ? ferry_word_get (dict_key (view, i) + 1) : 0);
    }
  if (key != FERRY_CELL_EMPTY)
    dict_fill (&to, hash, key, value);
  return dict_exchange_body (self, object, view, &to, error);
}

/* Adds an entry to the locked dict at @place, where dict_find() didn't find it. FALSE: error; what was stored is to be undone. */
static gboolean
dict_insert (FerryStore *self, FerryObject *object, const DictView *view, const Place *place, guint32 hash,
             FerryCell key, FerryCell value, GError **error)
{
  if (G_LIKELY (view->used < view->capacity))
    {
      _Atomic guint64 *entry = dict_key (view, view->used);

      if (!ferry_store_put_hidden (self, entry, key, error))
        return FALSE;
      FERRY_STEP ("store-dict-key-put");
      if (view->width > 1 && !ferry_store_put_hidden (self, entry + 1, value, error))
        return FALSE;
      FERRY_STEP ("store-dict-value-put");
      if (view->log2 > 0)
        {
          guint32 content = (hash & ~dict_mask (view)) | (view->used + 1);

          if (!ferry_store_put (self, view->index + place->slot / 2, dict_slot_word (view, place->slot, content),
                                error))
            return FALSE;
          FERRY_STEP ("store-dict-index-put");
        }
      if (!ferry_store_put (self, &object->used, PAIR (view->first, view->used + 1), error))
        return FALSE;
      FERRY_STEP ("store-dict-insert-used");
      if (!ferry_store_put (self, &object->size, ferry_word_get (&object->size) + 1, error))
        return FALSE;
      FERRY_STEP ("store-dict-insert-size");
    }
  else if (!dict_rebuild (self, object, view, DICT_NONE, hash, key, value, error))
    {
      return FALSE;
    }
  ferry_store_put_in (self, key);
  if (view->width > 1)
    ferry_store_put_in (self, value);
  return TRUE;
}

/* Takes an entry out of the locked dict, in place. */
static gboolean
dict_delete_in_place (FerryStore *self, FerryObject *object, const DictView *view, const Place *place, GError **error)
{
  FerryLook look = { self, object };
  guint32 first = view->first;
  guint32 used = view->used;

  if (!ferry_store_put (self, dict_key (view, place->entry), FERRY_CELL_EMPTY, error))
    return FALSE;
  FERRY_STEP ("store-dict-key-gone");
  if (view->width > 1 && !ferry_store_put (self, dict_key (view, place->entry) + 1, FERRY_CELL_EMPTY, error))
    return FALSE;
  FERRY_STEP ("store-dict-value-gone");
  if (view->log2 > 0)
    {
      guint32 mask = dict_mask (view);
      guint32 next = dict_slot (&look, view, (place->slot + 1) & mask);
      guint64 ends = ferry_word_get (&object->extra);

      /* nothing lies behind it: it ends the search as a free one does */
      if (!ferry_store_put (self, view->index + place->slot / 2,
                            dict_slot_word (view, place->slot, next == 0 ? 0 : G_MAXUINT32), error))
        return FALSE;
      FERRY_STEP ("store-dict-index-gone");
      if (place->entry + 1 == used || (UPPER (ends) == used && LOWER (ends) == place->entry + 1))
        {
          if (!ferry_store_put (self, &object->extra, PAIR (used, place->entry), error))
            return FALSE;
          FERRY_STEP ("store-dict-end-put");
        }
    }
  else
    {
      while (used > first && ferry_word_get (dict_key (view, used - 1)) == FERRY_CELL_EMPTY)
        used--;
    }
  while (first < used && ferry_word_get (dict_key (view, first)) == FERRY_CELL_EMPTY)
    first++;
  if (view->log2 == 0 && first == used)
    first = used = 0;
  if (first != view->first || used != view->used)
    {
      if (!ferry_store_put (self, &object->used, PAIR (first, used), error))
        return FALSE;
      FERRY_STEP ("store-dict-delete-used");
    }
  if (!ferry_store_put (self, &object->size, ferry_word_get (&object->size) - 1, error))
    return FALSE;
  FERRY_STEP ("store-dict-delete-size");
  return TRUE;
}

/* Takes an entry out of the locked dict; what it had in it is the caller's to retire. FALSE: error; what was stored is to be
 * undone. */
static gboolean
dict_delete (FerryStore *self, FerryObject *object, const DictView *view, const Place *place, FerryCell *key,
             FerryCell *value, GError **error)
{
  guint64 left = ferry_word_get (&object->size) - 1;

  *key = ferry_word_get (dict_key (view, place->entry));
  *value = view->width > 1 ? ferry_word_get (dict_key (view, place->entry) + 1) : FERRY_CELL_NONE;
  if (view->log2 > 0 && left == 0)
    {
      DictView none = { 0 };

      return dict_exchange_body (self, object, view, &none, error);
    }
  if (view->log2 > 0 && left < view->capacity / DICT_SHRINK && self->tx_depth == 0
      && dict_rebuild (self, object, view, place->entry, 0, FERRY_CELL_EMPTY, 0, NULL))
    return TRUE; /* no memory: it stays as large as it is */
  return dict_delete_in_place (self, object, view, place, error);
}

/* The slot of @entry, whose key is @cell, in the locked dict. */
static gboolean
dict_slot_of (FerryStore *self, FerryObject *object, const DictView *view, guint32 entry, FerryCell cell,
              guint32 *place)
{
  FerryLook look = { self, object };
  guint32 mask = dict_mask (view);
  guint32 hash;
  guint32 slot;

  *place = DICT_NONE;
  if (view->log2 == 0)
    return TRUE;
  if (!dict_stored_hash (self, cell, &hash))
    return FALSE;
  slot = hash & mask;
  for (guint64 n = 0; n <= mask; n++, slot = (slot + 1) & mask)
    {
      guint32 content = dict_slot (&look, view, slot);

      if (content == 0)
        return FALSE;
      if (content == ((hash & ~mask) | (entry + 1)))
        {
          *place = slot;
          return TRUE;
        }
    }
  return FALSE;
}

/* One more than the last live entry below @end. */
static guint32
dict_last (FerryLook *look, const DictView *view, guint32 end)
{
  guint64 ends = view->log2 > 0 ? ferry_store_load (look, &look->object->extra) : 0;

  while (end > view->first)
    {
      if (end == UPPER (ends) && LOWER (ends) < end)
        end = LOWER (ends);
      else if (ferry_store_load (look, dict_key (view, end - 1)) == FERRY_CELL_EMPTY)
        end--;
      else
        return end;
    }
  return 0;
}

static FerryObject *
dict_lock (FerryStore *self, FerryRef dict, DictView *view, GError **error)
{
  FerryObject *object = ferry_store_lock_object (self, dict, FERRY_OBJECT_FREE, error); /* a dict or a set */
  FerryLook look = { self, object };

  if (G_UNLIKELY (object == NULL))
    return NULL;
  if (G_UNLIKELY (!dict_view (&look, view)))
    {
      ferry_store_unlock_object (self, object, FALSE);
      ferry_store_set_corrupt (self, "a dict or set has a body that can't be right", error);
      return NULL;
    }
  return object;
}

static int
dict_index_corrupt (FerryStore *self, FerryObject *object, GError **error)
{
  ferry_store_unlock_object (self, object, FALSE);
  ferry_store_set_corrupt (self, "the index of a dict or set can't be right", error);
  return -1;
}

/* Locks a dict and looks for @key; key->equal is asked before. 1, 0: found or not, locked; -1, -2: not locked. */
static inline int
dict_lock_and_find (FerryStore *self, FerryRef dict, const FerryKey *key, guint32 hash, FerryObject **object,
                    DictView *view, Place *place, GError **error)
{
  g_auto (Verdicts) verdicts = { 0 };

  while (TRUE)
    {
      FerryLook look = { self, NULL };
      Found found;
      int asked;

      *object = look.object = dict_lock (self, dict, view, error);
      if (G_UNLIKELY (look.object == NULL))
        return -1;
      found = dict_find (&look, view, key, hash,
                         verdicts_for (&verdicts, atomic_load_explicit (&look.object->lock, memory_order_relaxed)),
                         place);
      if (G_LIKELY (found == FOUND || found == FOUND_NOT))
        return found;
      if (found == FOUND_NONSENSE)
        return dict_index_corrupt (self, look.object, error);
      ferry_store_unlock_object (self, look.object, FALSE);
      asked = dict_ask (self, look.object, key, hash, &verdicts, error);
      if (asked < 0)
        return asked;
    }
}

/* ---- dicts and sets ---- */

/**
 * ferry_store_dict_new: (skip)
 * @self: a store
 * @kind: %FERRY_OBJECT_DICT or %FERRY_OBJECT_SET
 * @n_expected: for how many entries to make room
 * @error: return location for an error
 *
 * Makes a dict or set.
 *
 * Returns: the only reference to it, for the caller to store or to release, or 0
 *
 * Since: 1.0
 */
FerryCell
ferry_store_dict_new (FerryStore *self, FerryObjectKind kind, gsize n_expected, GError **error)
{
  DictView view = { 0 };
  FerryRef ref;

  g_return_val_if_fail (kind == FERRY_OBJECT_DICT || kind == FERRY_OBJECT_SET, 0);

  if (!ferry_store_begin (self, error))
    return 0;
  if (n_expected > 0 && !dict_new_body (self, dict_width (kind), n_expected, TRUE, &view, error))
    {
      ferry_store_end (self);
      return 0;
    }
  ref = ferry_store_new_object (self, kind, error);
  if (ref == 0)
    {
      if (view.body != 0)
        ferry_store_heap_free (self, view.body);
    }
  else
    {
      FerryObject *object = ferry_store_at (self, ref);

      /* to ferry_store_dict_assign() 0 is any version */
      if (ferry_object_version (object) == 0)
        ferry_word_set (&object->lock, FERRY_LOCK_VERSION_ONE);
      ferry_word_set (&object->body, view.body);
      ferry_word_set (&object->size, 0);
      ferry_word_set (&object->used, 0);
      ferry_word_set (&object->extra, 0);
    }
  ferry_store_end (self);
  return ref != 0 ? FERRY_CELL (FERRY_CELL_OBJECT, ref) : 0;
}

/**
 * ferry_store_dict_length: (skip)
 * @self: a store
 * @dict: a dict or set that the caller holds
 *
 * Tells how many entries there are.
 *
 * Returns: the number, or -1 when the store is closed or damaged
 *
 * Since: 1.0
 */
gssize
ferry_store_dict_length (FerryStore *self, FerryRef dict)
{
  FerryObject *object = ferry_store_object (self, dict);
  FerryReader reader = { { self, object } };
  guint64 size;
  int done;

  if (object == NULL)
    return -1;
  do
    {
      if (!ferry_reader_begin (&reader, NULL))
        return -1;
      size = ferry_store_load (&reader.look, &object->size);
      done = ferry_reader_end (&reader, size <= G_MAXUINT32, NULL, NULL);
    }
  while (done == 0);
  return done < 0 ? -1 : (gssize) size;
}

/**
 * ferry_store_dict_get: (skip)
 * @self: a store
 * @dict: a dict or set that the caller holds
 * @key: the key
 * @reading: (inout) (nullable): its value; of a set: None
 * @error: return location for an error
 *
 * Looks for a key.
 *
 * Returns: 1; 0 when it isn't there; -1 on error; -2 when @key's function gave up
 *
 * Since: 1.0
 */
int
ferry_store_dict_get (FerryStore *self, FerryRef dict, const FerryKey *key, FerryReading *reading, GError **error)
{
  FerryObject *object = ferry_store_expect_object (self, dict, error);
  FerryReader reader = { { self, object } };
  g_auto (Verdicts) verdicts = { 0 };
  guint32 hash = dict_hash (key);
  Found found;
  int done;

  if (G_UNLIKELY (object == NULL))
    return -1;
  do
    {
      DictView view;
      Place place;
      gboolean fine;

      if (G_UNLIKELY (!ferry_reader_begin (&reader, error)))
        return -1;
      found = FOUND_NONSENSE;
      if (G_LIKELY (dict_view (&reader.look, &view)))
        found = dict_find (&reader.look, &view, key, hash, verdicts_for (&verdicts, reader.look.lock), &place);
      fine = found != FOUND_NONSENSE;
      if (found == FOUND && reading != NULL)
        fine = ferry_reader_copy (&reader,
                                  view.width > 1 ? ferry_store_load (&reader.look, dict_key (&view, place.entry) + 1)
                                                 : FERRY_CELL_NONE,
                                  reading);
      done = ferry_reader_end (&reader, fine, found == FOUND ? reading : NULL, error);
      if (G_UNLIKELY (done == 1 && found == FOUND_MAYBE))
        {
          int asked = dict_ask (self, object, key, hash, &verdicts, error);

          if (asked < 0)
            return asked;
          done = 0;
        }
    }
  while (G_UNLIKELY (done == 0));
  return G_UNLIKELY (done < 0) ? -1 : (int) found;
}

/**
 * ferry_store_dict_set: (skip)
 * @self: a store
 * @dict: a dict or set that the caller holds
 * @key: the key
 * @key_cell: the key as a value, when it is a leaf or an object; 0: it is made of @key, which must be no object
 * @value: its value; of a set: None
 * @only_new: leave the value that is there
 * @reading: (inout) (nullable): with @only_new, the value that was there
 * @error: return location for an error
 *
 * Sets the value of a key. @key_cell and @value are taken over when 0 or 1 is returned.
 *
 * Returns: 1 when the key was there, 0 when it was not; -1 on error; -2 when @key's function gave up
 *
 * Since: 1.0
 */
int
ferry_store_dict_set (FerryStore *self, FerryRef dict, const FerryKey *key, FerryCell key_cell, FerryCell value,
                      gboolean only_new, FerryReading *reading, GError **error)
{
  guint32 hash = dict_hash (key);
  gboolean made = FALSE;
  FerryObject *object;
  DictView view;
  Place place;
  int found;

  found = dict_lock_and_find (self, dict, key, hash, &object, &view, &place, error);
  if (G_UNLIKELY (found < 0))
    return found;

  if (found)
    {
      _Atomic guint64 *word = view.width > 1 ? dict_key (&view, place.entry) + 1 : NULL;
      FerryCell old = word != NULL ? ferry_word_get (word) : FERRY_CELL_NONE;

      if (only_new || word == NULL)
        {
          gboolean fine = ferry_store_read_locked (self, object, old, reading, error);

          ferry_store_unlock_object (self, object, FALSE);
          if (!fine)
            return -1;
          if (ferry_cell_owns (value))
            ferry_store_release_cell (self, value);
        }
      else
        {
          if (G_UNLIKELY (!ferry_store_put_single (self, word, value, error)))
            {
              ferry_store_abandon_object (self, object);
              return -1;
            }
          FERRY_STEP ("store-dict-replace-put");
          ferry_store_put_in (self, value);
          ferry_store_taken_out (self, old);
          ferry_store_unlock_object (self, object, TRUE);
        }
      if (G_UNLIKELY (key_cell != 0 && ferry_cell_owns (key_cell)))
        ferry_store_release_cell (self, key_cell);
      return 1;
    }

  if (ferry_cell_tag (key->cell) != FERRY_CELL_LEAF && ferry_cell_tag (key->cell) != FERRY_CELL_OBJECT)
    {
      key_cell = key->cell;
    }
  else if (key_cell == 0)
    {
      key_cell = ferry_store_new_leaf (self, key->kind, key->flags, hash, key->data, key->size, NULL, 0, error);
      if (key_cell == 0)
        {
          ferry_store_unlock_object (self, object, FALSE);
          return -1;
        }
      made = TRUE;
    }
  if (!dict_insert (self, object, &view, &place, hash, key_cell, value, error))
    {
      if (made)
        ferry_store_release_cell (self, key_cell);
      ferry_store_abandon_object (self, object);
      return -1;
    }
  ferry_store_unlock_object (self, object, TRUE);
  return 0;
}

/**
 * ferry_store_dict_add: (skip)
 * @self: a store
 * @dict: a dict that the caller holds
 * @key: the key
 * @delta: the number to add; stays the caller's
 * @reading: (inout) (nullable): the sum
 * @error: return location for an error
 *
 * Adds a number to the value of a key in one step.
 *
 * Raises %FERRY_ERROR_UNSUPPORTED when one of the two isn't a number, or the sum needs more than 64 bits.
 *
 * Returns: 1; 0 when the key isn't there; -1 on error; -2 when @key's function gave up
 *
 * Since: 1.0
 */
int
ferry_store_dict_add (FerryStore *self, FerryRef dict, const FerryKey *key, FerryCell delta, FerryReading *reading,
                      GError **error)
{
  FerryObject *object;
  DictView view;
  Place place;
  int found = dict_lock_and_find (self, dict, key, dict_hash (key), &object, &view, &place, error);

  if (G_UNLIKELY (found < 0))
    return found;
  if (found && view.width > 1)
    return ferry_store_add_locked (self, object, dict_key (&view, place.entry) + 1, delta, reading, error);
  ferry_store_unlock_object (self, object, FALSE);
  if (!found)
    return 0;
  g_set_error (error, FERRY_ERROR, FERRY_ERROR_UNSUPPORTED, "%s: a set has no values to add to", self->label);
  return -1;
}

/* Takes out the entry at @place and unlocks. */
static int
dict_take (FerryStore *self, FerryObject *object, const DictView *view, const Place *place, FerryReading *key,
           FerryReading *value, GError **error)
{
  FerryCell key_cell = ferry_word_get (dict_key (view, place->entry));
  FerryCell value_cell = view->width > 1 ? ferry_word_get (dict_key (view, place->entry) + 1) : FERRY_CELL_NONE;

  if (!ferry_store_read_locked (self, object, key_cell, key, error))
    {
      ferry_store_unlock_object (self, object, FALSE);
      return -1;
    }
  if (!ferry_store_read_locked (self, object, value_cell, value, error))
    {
      if (key != NULL)
        ferry_reader_unhold (self, key);
      ferry_store_unlock_object (self, object, FALSE);
      return -1;
    }
  if (!dict_delete (self, object, view, place, &key_cell, &value_cell, error))
    {
      if (key != NULL)
        ferry_reader_unhold (self, key);
      if (value != NULL)
        ferry_reader_unhold (self, value);
      ferry_store_abandon_object (self, object);
      return -1;
    }
  ferry_store_taken_out (self, key_cell);
  ferry_store_taken_out (self, value_cell);
  ferry_store_unlock_object (self, object, TRUE);
  return 1;
}

/**
 * ferry_store_dict_remove: (skip)
 * @self: a store
 * @dict: a dict or set that the caller holds
 * @key: the key
 * @reading: (inout) (nullable): the value it had; of a set: None
 * @error: return location for an error
 *
 * Removes a key.
 *
 * Returns: 1; 0 when it isn't there; -1 on error; -2 when @key's function gave up
 *
 * Since: 1.0
 */
int
ferry_store_dict_remove (FerryStore *self, FerryRef dict, const FerryKey *key, FerryReading *reading, GError **error)
{
  FerryObject *object;
  DictView view;
  Place place;
  int found = dict_lock_and_find (self, dict, key, dict_hash (key), &object, &view, &place, error);

  if (found < 0)
    return found;
  if (found)
    return dict_take (self, object, &view, &place, NULL, reading, error);
  ferry_store_unlock_object (self, object, FALSE);
  return 0;
}

/**
 * ferry_store_dict_pop: (skip)
 * @self: a store
 * @dict: a dict or set that the caller holds
 * @last: the entry that was added last, not first
 * @key: (inout) (nullable): its key
 * @value: (inout) (nullable): its value; of a set: None
 * @error: return location for an error
 *
 * Takes the last or the first entry out.
 *
 * Returns: 1; 0 when there is none; -1 on error
 *
 * Since: 1.0
 */
int
ferry_store_dict_pop (FerryStore *self, FerryRef dict, gboolean last, FerryReading *key, FerryReading *value,
                      GError **error)
{
  DictView view;
  Place place;
  FerryObject *object = dict_lock (self, dict, &view, error);
  FerryLook look = { self, object };

  if (object == NULL)
    return -1;
  if (last)
    {
      place.entry = dict_last (&look, &view, view.used) - 1;
    }
  else
    {
      place.entry = view.first;
      while (place.entry < view.used && ferry_word_get (dict_key (&view, place.entry)) == FERRY_CELL_EMPTY)
        place.entry++;
    }
  if (place.entry >= view.used)
    {
      ferry_store_unlock_object (self, object, FALSE);
      return 0;
    }
  if (!dict_slot_of (self, object, &view, place.entry, ferry_word_get (dict_key (&view, place.entry)), &place.slot))
    return dict_index_corrupt (self, object, error);
  return dict_take (self, object, &view, &place, key, value, error);
}

/* What the locked dict had in it, for those that replace it all. Read before, retired after. */
static void
dict_retire_all (FerryStore *self, const DictView *view)
{
  for (guint32 i = view->first; i < view->used; i++)
    {
      _Atomic guint64 *entry = dict_key (view, i);
      FerryCell key = ferry_word_get (entry);

      if (key == FERRY_CELL_EMPTY)
        continue;
      ferry_store_taken_out (self, key);
      if (view->width > 1)
        ferry_store_taken_out (self, ferry_word_get (entry + 1));
    }
}

/**
 * ferry_store_dict_clear: (skip)
 * @self: a store
 * @dict: a dict or set that the caller holds
 * @error: return location for an error
 *
 * Removes everything in one step.
 *
 * Returns: whether it succeeded
 *
 * Since: 1.0
 */
gboolean
ferry_store_dict_clear (FerryStore *self, FerryRef dict, GError **error)
{
  return ferry_store_dict_assign (self, dict, 0, NULL, NULL, 0, error) == 1;
}

/**
 * ferry_store_dict_assign: (skip)
 * @self: a store
 * @dict: a dict or set that the caller holds
 * @version: what version it must have, or 0
 * @cells: keys and values in turn; of a set: keys; taken over when 1 is returned
 * @hashes: (array length=n): of the keys
 * @n: how many entries
 * @error: return location for an error
 *
 * Replaces all entries in one step. No two keys may be equal.
 *
 * Returns: 1; 0 when it has another version; -1 on error
 *
 * Since: 1.0
 */
int
ferry_store_dict_assign (FerryStore *self, FerryRef dict, guint64 version, const FerryCell *cells,
                         const guint32 *hashes, gsize n, GError **error)
{
  DictView view;
  DictView to = { 0 };
  FerryObject *object = dict_lock (self, dict, &view, error);

  if (object == NULL)
    return -1;
  if (version != 0 && ferry_object_version (object) != version)
    {
      ferry_store_unlock_object (self, object, FALSE);
      return 0;
    }
  if (n == 0 && view.body == 0)
    {
      ferry_store_unlock_object (self, object, FALSE);
      return 1;
    }
  if (n > 0 && !dict_new_body (self, view.width, n, TRUE, &to, error))
    {
      ferry_store_unlock_object (self, object, FALSE);
      return -1;
    }
  for (gsize i = 0; i < n; i++)
    {
      FerryCell key = cells[i * view.width];

      dict_fill (&to, ferry_cell_tag (key) == FERRY_CELL_CONSTANT ? ferry_cell_hash (key) : hashes[i], key,
                 view.width > 1 ? cells[i * view.width + 1] : 0);
    }
  if (!dict_exchange_body (self, object, &view, &to, error))
    {
      ferry_store_abandon_object (self, object);
      return -1;
    }
  for (gsize i = 0; i < n * view.width; i++)
    ferry_store_put_in (self, cells[i]);
  dict_retire_all (self, &view);
  ferry_store_unlock_object (self, object, TRUE);
  return 1;
}

/**
 * ferry_store_dict_next: (skip)
 * @self: a store
 * @dict: a dict or set that the caller holds
 * @position: (inout): where to look: 0 for the first entry, %G_MAXUINT64 for the last when @backwards; then what the call
 *   before left in it. Good as long as no entry is added or removed
 * @backwards: walk from the last to the first
 * @key: (inout) (nullable): the key
 * @value: (inout) (nullable): the value; of a set: None
 * @error: return location for an error
 *
 * Reads the next entry.
 *
 * Returns: 1; 0 at the end; -1 on error
 *
 * Since: 1.0
 */
int
ferry_store_dict_next (FerryStore *self, FerryRef dict, guint64 *position, gboolean backwards, FerryReading *key,
                       FerryReading *value, GError **error)
{
  FerryObject *object = ferry_store_expect_object (self, dict, error);
  FerryReader reader = { { self, object } };
  gboolean found;
  guint64 next;
  int done;

  if (object == NULL)
    return -1;
  do
    {
      DictView view;
      gboolean fine;
      guint32 entry = 0;

      if (!ferry_reader_begin (&reader, error))
        return -1;
      found = FALSE;
      next = *position;
      fine = dict_view (&reader.look, &view);
      if (fine && backwards)
        {
          entry = dict_last (&reader.look, &view, (guint32) MIN (next, view.used));
          found = entry > 0;
          next = found ? --entry : 0;
        }
      else if (fine)
        {
          for (entry = (guint32) MIN (MAX (next, view.first), view.used); entry < view.used; entry++)
            if (ferry_store_load (&reader.look, dict_key (&view, entry)) != FERRY_CELL_EMPTY)
              break;
          found = entry < view.used;
          next = found ? entry + 1 : entry;
        }
      if (found && key != NULL)
        fine = ferry_reader_copy (&reader, ferry_store_load (&reader.look, dict_key (&view, entry)), key);
      if (found && fine && value != NULL)
        fine = ferry_reader_copy (
            &reader, view.width > 1 ? ferry_store_load (&reader.look, dict_key (&view, entry) + 1) : FERRY_CELL_NONE,
            value);
      done = ferry_reader_end_two (&reader, fine, found ? key : NULL, found ? value : NULL, error);
    }
  while (done == 0);
  if (done < 0)
    return -1;
  *position = next;
  return found;
}

/* ---- the root mapping ---- */

/* Values of the root dict are SLOTs, so that setting a key that is there locks nothing but its slot. A slot is found without a lock;
 * who has locked it looks whether the dict is still the same. If so the slot belongs to the key, and whoever removes
 * the key comes to the slot after us: it takes the entry out of the dict, then locks the slot and takes out what is in it then. So
 * what was set before the entry went is what is removed. An operation holds one lock at a time. */

static FerryReader
root_reader (FerryStore *self, FerryRef *root)
{
  *root = atomic_load_explicit (&self->header->root, memory_order_acquire);
  return (FerryReader){ { self, ferry_store_object (self, *root) } };
}

/* Looks @key up: 1: *slot is where, as far as one can say before the look is over; 0; -1: nonsense. */
static inline Found
root_find (FerryReader *reader, const FerryKey *key, FerryObject **slot)
{
  DictView view;
  Place place;
  Found found;
  FerryCell cell;

  if (!dict_view (&reader->look, &view))
    return FOUND_NONSENSE;
  found = dict_find (&reader->look, &view, key, key->hash, NULL, &place);
  if (found == FOUND_MAYBE)
    return FOUND_NOT; /* keys are str */
  if (found == FOUND)
    {
      cell = view.width > 1 ? ferry_store_load (&reader->look, dict_key (&view, place.entry) + 1) : 0;
      *slot = ferry_cell_tag (cell) == FERRY_CELL_OBJECT
                  ? ferry_store_object (reader->look.store, ferry_cell_payload (cell))
                  : NULL;
      if (*slot == NULL)
        return FOUND_NONSENSE;
    }
  return found;
}

/**
 * ferry_store_root_get: (skip)
 * @self: a store
 * @key: a key, a str
 * @reading: (inout) (nullable): its value
 * @error: return location for an error
 *
 * Looks for a key of the root mapping.
 *
 * Returns: 1; 0 when it isn't there; -1 on error
 *
 * Since: 1.0
 */
int
ferry_store_root_get (FerryStore *self, const FerryKey *key, FerryReading *reading, GError **error)
{
  FerryRef root;
  FerryReader reader = root_reader (self, &root);
  int done;

  if (ferry_store_expect_object (self, root, error) == NULL)
    return -1;
  do
    {
      FerryObject *slot = NULL;
      FerryReader inner = { { self } };
      Found found;

      if (!ferry_reader_begin (&reader, error))
        return -1;
      found = root_find (&reader, key, &slot);
      if (found != FOUND || reading == NULL)
        {
          done = ferry_reader_end (&reader, found != FOUND_NONSENSE, NULL, error);
          if (done == 1)
            return found;
          continue;
        }
      inner.look.object = slot;
      if (reader.locked)
        {
          /* the key can't go, so that its slot may be looked at as often as it takes */
          FerryCell cell;

          do
            {
              if (!ferry_store_read_begin (&inner.look, error))
                {
                  ferry_reader_end (&reader, TRUE, NULL, NULL);
                  return -1;
                }
              cell = ferry_store_load (&inner.look, &slot->body);
              done = ferry_reader_end (&inner, ferry_reader_copy (&inner, cell, reading), reading, error);
            }
          while (done == 0);
          ferry_reader_end (&reader, TRUE, NULL, NULL);
          return done;
        }
      if (!ferry_store_read_end (&reader.look))
        {
          reader.tries++;
          done = 0;
          continue;
        }
      do
        {
          gboolean fine;

          if (!ferry_store_read_begin (&inner.look, error))
            return -1;
          fine = ferry_object_kind (slot) == FERRY_OBJECT_SLOT
                 && ferry_reader_copy (&inner, ferry_store_load (&inner.look, &slot->body), reading);
          if (!fine && !ferry_store_read_end (&reader.look))
            {
              done = -2; /* the slot isn't that of the key any more */
              break;
            }
          done = ferry_reader_end (&inner, fine, reading, error);
        }
      while (done == 0 && ferry_store_read_end (&reader.look));
      if (done == -1)
        return -1;
      if (done == 1)
        {
          if (ferry_store_read_end (&reader.look))
            return 1;
          ferry_reader_unhold (self, reading);
        }
      reader.tries++;
      done = 0;
    }
  while (done == 0);
  return -1;
}

/* Keeps a slot that was found without a lock from becoming something else: while it is counted it stays a slot. */
static gboolean
root_count_slot (FerryObject *slot)
{
  guint32 count = atomic_load_explicit (&slot->count, memory_order_relaxed);

  do
    if (count == 0 || count == G_MAXUINT32)
      return FALSE;
  while (!atomic_compare_exchange_weak_explicit (&slot->count, &count, count + 1, memory_order_acquire,
                                                 memory_order_relaxed));
  FERRY_STEP ("store-root-slot-counted");
  return TRUE;
}

static void
root_uncount_slot (FerryStore *self, FerryObject *slot)
{
  if (self->tx_depth == 0)
    ferry_store_release_cell (self, FERRY_CELL (FERRY_CELL_OBJECT, ferry_store_ref (self, slot)));
}

/* Locks the slot of @key, which is counted until root_uncount_slot(). 1: *slot is locked; 0: the key isn't there; -1: error. */
static int
root_lock_slot (FerryStore *self, const FerryKey *key, FerryObject **slot, GError **error)
{
  FerryRef root;
  FerryReader reader = root_reader (self, &root);

  if (ferry_store_expect_object (self, root, error) == NULL)
    return -1;
  while (TRUE)
    {
      Found found;
      gboolean valid;

      if (!ferry_store_read_begin (&reader.look, error))
        return -1;
      found = root_find (&reader, key, slot);
      if (!ferry_store_read_end (&reader.look))
        continue;
      if (found == FOUND_NONSENSE)
        {
          ferry_store_set_corrupt (self, "the root mapping can't be right", error);
          return -1;
        }
      if (found == FOUND_NOT)
        return 0;
      /* In a transaction nobody else removes it. */
      if (self->tx_depth == 0)
        {
          if (!root_count_slot (*slot))
            {
              reader.look.tries++;
              continue;
            }
          if (!ferry_store_read_end (&reader.look))
            {
              root_uncount_slot (self, *slot); /* whatever it is now */
              continue;
            }
        }
      if (ferry_store_lock_object (self, ferry_store_ref (self, *slot), FERRY_OBJECT_SLOT, error) == NULL)
        {
          root_uncount_slot (self, *slot);
          return -1;
        }
      valid = ferry_store_read_end (&reader.look);
      if (G_LIKELY (valid))
        return 1;
      ferry_store_unlock_object (self, *slot, FALSE);
      root_uncount_slot (self, *slot);
    }
}

/* Sets the slot that this thread has locked, and unlocks it. */
static int
root_put (FerryStore *self, FerryObject *slot, FerryCell value, GError **error)
{
  FerryCell old = ferry_word_get (&slot->body);

  if (!ferry_store_put_single (self, &slot->body, value, error))
    {
      ferry_store_abandon_object (self, slot);
      root_uncount_slot (self, slot);
      return -1;
    }
  FERRY_STEP ("store-root-slot-put");
  ferry_store_put_in (self, value);
  ferry_store_taken_out (self, old);
  ferry_store_unlock_object (self, slot, TRUE);
  root_uncount_slot (self, slot);
  return 1;
}

/* Adds @key with a slot. 0: it is there already; -1: error; in both cases @value is still the caller's. */
static int
root_add (FerryStore *self, const FerryKey *key, FerryCell value, GError **error)
{
  FerryCell key_cell = key->cell;
  FerryObject *object;
  FerryObject *slot;
  FerryRef made;
  DictView view;
  Place place;
  int found;

  if (ferry_cell_tag (key_cell) == FERRY_CELL_LEAF)
    key_cell = ferry_store_new_leaf (self, key->kind, key->flags, key->hash, key->data, key->size, NULL, 0, error);
  if (key_cell == 0)
    return -1;
  made = ferry_store_new_object (self, FERRY_OBJECT_SLOT, error);
  if (made == 0)
    {
      if (ferry_cell_owns (key_cell))
        ferry_store_release_cell (self, key_cell);
      return -1;
    }
  slot = ferry_store_at (self, made);
  ferry_word_set (&slot->shape, FERRY_CELL_EMPTY);
  ferry_word_set (&slot->body, value);
  FERRY_STEP ("store-root-slot-made");
  found = dict_lock_and_find (self, atomic_load (&self->header->root), key, key->hash, &object, &view, &place, error);
  if (found == 0)
    {
      if (dict_insert (self, object, &view, &place, key->hash, key_cell, FERRY_CELL (FERRY_CELL_OBJECT, made), error))
        {
          ferry_store_unlock_object (self, object, TRUE);
          return 1;
        }
      ferry_store_abandon_object (self, object);
      found = -1;
    }
  else if (found > 0)
    {
      ferry_store_unlock_object (self, object, FALSE);
      found = 0;
    }
  ferry_word_set (&slot->body, FERRY_CELL_EMPTY);
  ferry_store_release_cell (self, FERRY_CELL (FERRY_CELL_OBJECT, made));
  if (ferry_cell_owns (key_cell))
    ferry_store_release_cell (self, key_cell);
  return MAX (found, -1);
}

/**
 * ferry_store_root_set: (skip)
 * @self: a store
 * @key: a key, a str
 * @value: its value; taken over on success
 * @error: return location for an error
 *
 * Sets a key of the root mapping.
 *
 * Returns: whether it succeeded
 *
 * Since: 1.0
 */
gboolean
ferry_store_root_set (FerryStore *self, const FerryKey *key, FerryCell value, GError **error)
{
  FerryObject *slot = NULL;
  int found;

  if (!ferry_store_begin (self, error))
    return FALSE;
  do
    {
      found = root_lock_slot (self, key, &slot, error);
      if (found == 0)
        found = root_add (self, key, value, error);
      else if (found > 0)
        found = root_put (self, slot, value, error);
    }
  while (found == 0); /* somebody else added it meanwhile */
  ferry_store_end (self);
  return found > 0;
}

/**
 * ferry_store_root_add: (skip)
 * @self: a store
 * @key: a key, a str
 * @delta: the number to add; stays the caller's
 * @reading: (inout) (nullable): the sum
 * @error: return location for an error
 *
 * Adds a number to a value of the root mapping in one step.
 *
 * Raises %FERRY_ERROR_UNSUPPORTED when one of the two isn't a number, or the sum needs more than 64 bits.
 *
 * Returns: 1; 0 when the key isn't there; -1 on error
 *
 * Since: 1.0
 */
int
ferry_store_root_add (FerryStore *self, const FerryKey *key, FerryCell delta, FerryReading *reading, GError **error)
{
  FerryObject *slot;
  int found;

  if (!ferry_store_begin (self, error))
    return -1;
  found = root_lock_slot (self, key, &slot, error);
  if (found > 0)
    found = ferry_store_add_locked (self, slot, &slot->body, delta, reading, error);
  ferry_store_end (self);
  return found;
}

/**
 * ferry_store_root_remove: (skip)
 * @self: a store
 * @key: a key, a str
 * @reading: (inout) (nullable): the value it had
 * @error: return location for an error
 *
 * Removes a key of the root mapping.
 *
 * Returns: 1; 0 when it isn't there; -1 on error
 *
 * Since: 1.0
 */
int
ferry_store_root_remove (FerryStore *self, const FerryKey *key, FerryReading *reading, GError **error)
{
  FerryObject *object;
  FerryObject *slot;
  DictView view;
  Place place;
  FerryCell key_cell;
  FerryCell slot_cell;
  FerryCell value;
  int found;

  if (!ferry_store_begin (self, error))
    return -1;
  found = dict_lock_and_find (self, atomic_load (&self->header->root), key, key->hash, &object, &view, &place, error);
  if (found <= 0)
    {
      if (found == 0)
        ferry_store_unlock_object (self, object, FALSE);
      ferry_store_end (self);
      return found;
    }
  if (!dict_delete (self, object, &view, &place, &key_cell, &slot_cell, error))
    {
      ferry_store_abandon_object (self, object);
      ferry_store_end (self);
      return -1;
    }
  ferry_store_taken_out (self, key_cell);
  ferry_store_unlock_object (self, object, TRUE);
  FERRY_STEP ("store-root-entry-gone");

  /* The reference to the slot is ours now. Who found it before and sets it is done with it when we have its lock. */
  if (ferry_cell_tag (slot_cell) != FERRY_CELL_OBJECT
      || (slot = ferry_store_lock_object (self, ferry_cell_payload (slot_cell), FERRY_OBJECT_SLOT, error)) == NULL)
    {
      if (error != NULL && *error == NULL)
        ferry_store_set_corrupt (self, "a key of the root has no slot", error);
      ferry_store_end (self);
      return -1;
    }
  value = ferry_word_get (&slot->body);
  if (!ferry_store_read_locked (self, slot, value, reading, error))
    {
      ferry_store_unlock_object (self, slot, FALSE);
      ferry_store_end (self);
      return -1;
    }
  if (!ferry_store_put_single (self, &slot->body, FERRY_CELL_EMPTY, error))
    {
      if (reading != NULL)
        ferry_reader_unhold (self, reading);
      ferry_store_abandon_object (self, slot);
      ferry_store_end (self);
      return -1;
    }
  FERRY_STEP ("store-root-slot-emptied");
  ferry_store_taken_out (self, value);
  ferry_store_taken_out (self, slot_cell);
  ferry_store_unlock_object (self, slot, TRUE);
  ferry_store_end (self);
  return 1;
}

/* ---- for snapshots, freeing, collections and verify ---- */

gboolean
ferry_store_dict_copy (FerryLook *look, FerryCopyFunc add, gpointer data)
{
  DictView view;

  if (!dict_view (look, &view))
    return FALSE;
  for (guint32 i = view.first; i < view.used; i++)
    {
      FerryCell key = ferry_store_load (look, dict_key (&view, i));

      if (key == FERRY_CELL_EMPTY)
        continue;
      if (!add (key, data) || (view.width > 1 && !add (ferry_store_load (look, dict_key (&view, i) + 1), data)))
        return FALSE;
    }
  return TRUE;
}

void
ferry_store_dict_visit (FerryStore *self, FerryObject *object, FerryCellFunc cell_func, FerryBlockFunc block_func,
                        gpointer data)
{
  FerryLook look = { self, object };
  DictView view;

  if (!dict_view (&look, &view))
    return;
  for (gsize i = (gsize) view.first * view.width; cell_func != NULL && i < (gsize) view.used * view.width; i++)
    {
      FerryCell cell = ferry_word_get (view.entries + i);

      if (ferry_cell_owns (cell))
        cell_func (self, cell, data);
    }
  if (block_func != NULL && view.body != 0)
    block_func (self, view.body, data);
}

gboolean
ferry_store_dict_verify (FerryStore *self, FerryObject *object, GError **error)
{
  FerryLook look = { self, object };
  DictView view;
  guint64 live = 0;
  guint64 indexed = 0;
  guint64 ends;

  if (!dict_view (&look, &view))
    return ferry_store_set_corrupt (self, "a dict or set has a body that can't be right", error);
  if (view.body != 0
      && ferry_store_heap_block_size (self, view.body)
             < DICT_HEAD + dict_index_size (view.log2) + (guint64) view.capacity * view.width * sizeof (FerryCell))
    return ferry_store_set_corrupt (self, "a dict or set has more room than its block", error);
  ends = view.log2 > 0 ? ferry_word_get (&object->extra) : 0;
  for (guint32 i = 0; i < view.used; i++)
    {
      FerryCell key = ferry_word_get (dict_key (&view, i));
      guint32 slot;

      if (key == FERRY_CELL_EMPTY)
        continue;
      live++;
      if (i < view.first || (i >= LOWER (ends) && i < UPPER (ends)))
        return ferry_store_set_corrupt (self, "a dict or set has an entry where it says there is none", error);
      if (!ferry_store_verify_cell (self, key)
          || (view.width > 1 && !ferry_store_verify_cell (self, ferry_word_get (dict_key (&view, i) + 1))))
        return ferry_store_set_corrupt (self, "a dict or set has an entry that can't be right", error);
      if (!dict_slot_of (self, object, &view, i, key, &slot))
        return ferry_store_set_corrupt (self, "a dict or set has an entry that its index doesn't have", error);
    }
  if (view.log2 > 0)
    {
      guint32 mask = dict_mask (&view);

      for (guint64 i = 0; i <= mask; i++)
        {
          guint32 entry = dict_slot (&look, &view, (guint32) i) & mask;

          indexed += entry != 0 && entry != mask;
        }
      if (indexed != live)
        return ferry_store_set_corrupt (self, "a dict or set has an index with other entries", error);
    }
  if (live != ferry_word_get (&object->size))
    return ferry_store_set_corrupt (self, "a dict or set has another number of entries than it says", error);
  return TRUE;
}
