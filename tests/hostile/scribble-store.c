/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* A hostile process overwrites words of a store while others work in it: every call ends in time, with success or an
 * error, no process ends by a signal, and none asks for absurd amounts of memory. */

#include "ferry-peers.h"
#include "ferry-store-private.h"

#include <errno.h>
#include <execinfo.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#define PEERS (3)
#define TIME_DEFAULT (10 * FERRY_PEERS_S)
#define TIME_THOROUGH (180 * FERRY_PEERS_S)
/* Of one store; then a new one. */
#define ROUND_TIME (350 * FERRY_PEERS_MS)
#define SCRIBBLES (300)
/* What a call may take: some wait twice for as long as FERRY_LOCK_PATIENCE. */
#define CALL_MAX (25 * FERRY_PEERS_S)
#define STORE_BYTES "33554432"
/* A value that has whole spans. */
#define LARGE (100 * 1000)
/* What a peer may take beyond what it has mapped when the store is open. */
#define MEMORY (G_GUINT64_CONSTANT (512) << 20)
/* Of the descriptors of spans, see ferry-store-heap.c. */
#define SPAN_STRIDE (64)
#define SPAN_HEADS (3)

typedef struct
{
  char transport[16];
  char name[64];
  guint64 seed;
  _Atomic guint32 n_open;
  _Atomic guint32 over;
  _Atomic guint64 n_scribbles;
  _Atomic guint64 n_good;
  _Atomic guint64 n_corrupt;
  _Atomic guint64 n_other;
  _Atomic gint64 longest;
  _Atomic gint64 began[PEERS]; /* the call under way; 0: none */
  _Atomic guint32 what[PEERS];
  char odd[PEERS][300];
} Round;

typedef struct
{
  Round *round;
  guint index;
} Task;

/* In the order of one_call(). */
static const char *const calls[] = {
  "append",     "splice",      "list pop",    "list set",    "permute",    "list get", "dict set",    "dict get",
  "dict add",   "dict remove", "dict pop",    "dict next",   "dict clear", "set add",  "set remove",  "bytearray",
  "record",     "record add",  "extra",       "shape",       "root set",   "root get", "root remove", "root add",
  "snapshot",   "ticket",      "transaction", "roll back",   "collect",    "verify",   "trim",        "hold",
  "get path",   "set path",    "list paths",  "remove path", "add path",   "strided",  "assign",      "array",
  "bytes used", "watch",       "large",       "list fast",   "tensor",
};
enum
{
  CALL_OPEN = G_N_ELEMENTS (calls),
  CALL_CLOSE,
  CALL_FILL,
};

static const char *
call_name (guint what)
{
  return what < G_N_ELEMENTS (calls) ? calls[what] : what == CALL_OPEN ? "open" : what == CALL_CLOSE ? "close" : "fill";
}

static void
begin_call (Task *task, guint what)
{
  atomic_store (&task->round->what[task->index], what);
  atomic_store (&task->round->began[task->index], g_get_monotonic_time ());
}

static void
end_call (Task *task, const GError *error)
{
  Round *self = task->round;
  gint64 took = g_get_monotonic_time () - atomic_exchange (&self->began[task->index], 0);
  gint64 longest = atomic_load (&self->longest);

  while (took > longest && !atomic_compare_exchange_weak (&self->longest, &longest, took))
    ;
  if (error == NULL)
    atomic_fetch_add (&self->n_good, 1);
  else if (g_error_matches (error, FERRY_ERROR, FERRY_ERROR_CORRUPT))
    atomic_fetch_add (&self->n_corrupt, 1);
  else if (error->domain == FERRY_ERROR)
    atomic_fetch_add (&self->n_other, 1);
  else
    g_snprintf (self->odd[task->index], sizeof self->odd[0], "%s: %s",
                call_name (atomic_load (&self->what[task->index])), error->message);
}

/* Says where, then ends as without it. */
static void
fatal_cb (int number)
{
  gpointer frames[48];

  backtrace_symbols_fd (frames, backtrace (frames, G_N_ELEMENTS (frames)), STDERR_FILENO);
  signal (number, SIG_DFL);
  raise (number);
}

static void
watch_signals (void)
{
  static const int numbers[] = { SIGSEGV, SIGBUS, SIGABRT, SIGFPE, SIGILL, SIGTRAP };
  gpointer frame;

  backtrace (&frame, 1); /* loads what it needs */
  if (!ferry_peers_is_sanitized ())
    for (guint i = 0; i < G_N_ELEMENTS (numbers); i++)
      signal (numbers[i], fatal_cb);
}

static void
bound_memory (void)
{
  unsigned long pages = 0;
  struct rlimit limit;
  FILE *file = fopen ("/proc/self/statm", "re");

  if (file == NULL)
    return;
  if (fscanf (file, "%lu", &pages) == 1 && !ferry_peers_is_sanitized ())
    {
      getrlimit (RLIMIT_AS, &limit);
      limit.rlim_cur = (rlim_t) pages * (rlim_t) sysconf (_SC_PAGESIZE) + MEMORY;
      setrlimit (RLIMIT_AS, &limit);
    }
  fclose (file);
}

static FerryStore *
open_store (Round *self, GError **error)
{
  g_autofree char *description = g_strdup_printf ("%s name=%s max-bytes=%s", self->transport, self->name, STORE_BYTES);

  return ferry_store_open (description, NULL, error);
}

/* ---- the others ---- */

static FerryKey
str_key (const char *text)
{
  gsize size = strlen (text);
  FerryKey key = { .kind = FERRY_LEAF_STR, .flags = 1 | FERRY_LEAF_ASCII, .data = text, .size = size };

  key.hash = ferry_key_hash_data (FERRY_LEAF_STR, text, size);
  key.cell = FERRY_CELL (FERRY_CELL_LEAF, 0);
  if (size <= FERRY_CELL_INLINE_MAX)
    {
      guint64 payload = (guint64) size << 40;

      for (gsize i = 0; i < size; i++)
        payload |= (guint64) (guint8) text[i] << (8 * i);
      key.cell = FERRY_CELL (FERRY_CELL_STR, payload);
    }
  return key;
}

static FerryCell
text_cell (FerryStore *store, const char *text)
{
  FerryKey key = str_key (text);

  if (ferry_cell_tag (key.cell) != FERRY_CELL_LEAF)
    return key.cell;
  return ferry_store_new_leaf (store, FERRY_LEAF_STR, key.flags, key.hash, text, strlen (text), NULL, 0, NULL);
}

static FerryCell
random_value (FerryStore *store, FerryRandom *random)
{
  char text[80];
  FerryCell cells[3];
  FerryCell cell;

  switch (ferry_random_below (random, 6))
    {
    case 0:
      return FERRY_CELL (FERRY_CELL_INT, ferry_random_below (random, 1000));
    case 1:
      g_snprintf (text, sizeof text, "a text that is longer than inline, number %u", ferry_random_below (random, 1000));
      cell = text_cell (store, text);
      break;
    case 2:
      for (guint i = 0; i < G_N_ELEMENTS (cells); i++)
        cells[i] = text_cell (store, i == 0 ? "abcde" : "abc");
      cell = ferry_store_list_new (store, cells, G_N_ELEMENTS (cells), NULL);
      break;
    case 3:
      cell = ferry_store_dict_new (store, FERRY_OBJECT_DICT, ferry_random_below (random, 20), NULL);
      break;
    case 4:
      cell = ferry_store_new_int (store, G_MAXINT64 - ferry_random_below (random, 1000), NULL);
      break;
    default:
      return FERRY_CELL_NONE;
    }
  return cell != 0 ? cell : FERRY_CELL_NONE;
}

static void
put_down (FerryStore *store, FerryReading *reading)
{
  FerryRef ref;

  if (ferry_cell_tag (reading->cell) == FERRY_CELL_OBJECT)
    ferry_store_unhold (store, ferry_cell_payload (reading->cell));
  else if (ferry_cell_tag (reading->cell) == FERRY_CELL_LEAF && reading->leaf != NULL)
    for (guint i = 0; i < reading->leaf->n_refs; i++)
      {
        memcpy (&ref, reading->leaf->data + i * sizeof ref, sizeof ref);
        ferry_store_unhold (store, ref);
      }
  ferry_reading_clear (reading);
}

static const char *const roots[] = { "list", "dict", "set", "bytes", "record", "array" };

typedef enum
{
  LIST,
  DICT,
  SET,
  BYTES,
  RECORD,
  ARRAY,
  N_ROOTS,
} RootIndex;

typedef struct
{
  FerryStore *store;
  FerryRandom random;
  FerryRef refs[N_ROOTS]; /* held */
  FerryRef shape;
} Work;

/* Makes new objects where there are none, and holds them. */
static void
fill (Work *self, GError **error)
{
  FerryCell fields[] = { FERRY_CELL_NONE, FERRY_CELL_NONE, FERRY_CELL_NONE };
  FerryStore *store = self->store;
  FerryCell leaf;

  if (!ferry_store_begin_within (store, 5 * FERRY_PEERS_S, error))
    return;
  leaf = ferry_store_new_leaf (store, FERRY_LEAF_SHAPE, 0, 1, "a shape of three fields", 23, NULL, 0, NULL);
  self->shape = leaf != 0 ? ferry_store_shape (store, leaf, NULL) : 0;
  for (guint i = 0; i < N_ROOTS; i++)
    {
      FerryKey key = str_key (roots[i]);
      FerryReading reading = FERRY_READING_INIT;
      FerryCell cell = 0;

      if (ferry_store_root_get (store, &key, &reading, NULL) > 0 && ferry_cell_tag (reading.cell) == FERRY_CELL_OBJECT)
        {
          self->refs[i] = ferry_cell_payload (reading.cell);
          ferry_reading_clear (&reading);
          continue;
        }
      put_down (store, &reading);
      switch ((RootIndex) i)
        {
        case LIST:
          cell = ferry_store_list_new (store, NULL, 0, NULL);
          break;
        case DICT:
          cell = ferry_store_dict_new (store, FERRY_OBJECT_DICT, 0, NULL);
          break;
        case SET:
          cell = ferry_store_dict_new (store, FERRY_OBJECT_SET, 0, NULL);
          break;
        case BYTES:
          cell = ferry_store_bytearray_new (store, "0123456789", 10, NULL);
          break;
        case RECORD:
          if (self->shape != 0)
            cell = ferry_store_record_new (store, self->shape, fields, G_N_ELEMENTS (fields), NULL);
          break;
        case ARRAY:
          leaf = ferry_store_new_leaf (store, FERRY_LEAF_ARRAY, 0, 1, "a description, not read", 23, NULL, 0, NULL);
          if (leaf != 0)
            cell = ferry_store_array_new (store, leaf, NULL, 1000, NULL);
          break;
        case N_ROOTS:
        default:
          break;
        }
      if (cell == 0)
        continue;
      if (ferry_store_hold (store, ferry_cell_payload (cell), NULL))
        self->refs[i] = ferry_cell_payload (cell);
      if (!ferry_store_root_set (store, &key, cell, NULL))
        ferry_store_release_cell (store, cell);
    }
  ferry_store_end (store);
}

static void add_to (Work *self, guint what, GError **error);

static void
one_call (Work *self, guint what, GError **error)
{
  FerryStore *store = self->store;
  FerryRandom *random = &self->random;
  FerryReading reading = FERRY_READING_INIT;
  FerryReading second = FERRY_READING_INIT;
  FerryCell cells[5];
  guint n = ferry_random_below (random, G_N_ELEMENTS (cells));
  char text[60];
  char path[60];
  FerryKey key;
  guint32 order[256];
  gssize length;

  g_snprintf (text, sizeof text, n % 2 ? "k%u" : "the key of number %u", ferry_random_below (random, 30));
  g_snprintf (path, sizeof path, "extra%u", ferry_random_below (random, 6));
  key = str_key (text);
  switch (what)
    {
    case 5:
      length = ferry_store_list_length (store, self->refs[LIST]);
      ferry_store_list_get (store, self->refs[LIST], n % 2 ? -1 : length / 2, &reading, error);
      put_down (store, &reading);
      break;
    case 7:
      ferry_store_dict_get (store, self->refs[DICT], &key, &reading, error);
      put_down (store, &reading);
      break;
    case 11:
      {
        guint64 position = n % 2 ? G_MAXUINT64 : 0;
        gint64 end = g_get_monotonic_time () + FERRY_PEERS_S;

        while (ferry_store_dict_next (store, self->refs[n < 3 ? DICT : SET], &position, n % 2, &reading, &second, error)
                   > 0
               && g_get_monotonic_time () < end)
          {
            put_down (store, &reading);
            put_down (store, &second);
          }
        ferry_reading_clear (&reading);
        ferry_reading_clear (&second);
        break;
      }
    case 21:
      key = str_key (path);
      ferry_store_root_get (store, &key, &reading, error);
      put_down (store, &reading);
      break;
    case 24:
      {
        FerrySnapshot snapshot = { 0 };

        ferry_store_snapshot (store, self->refs[ferry_random_below (random, N_ROOTS - 1)], &snapshot, error);
        ferry_store_snapshot_clear (store, &snapshot);
        break;
      }
    case 26:
    case 27:
      if (!ferry_store_begin_transaction (store, 5 * FERRY_PEERS_S, NULL, error))
        break;
      for (guint i = 0; i <= n; i++)
        add_to (self, ferry_random_below (random, 24), NULL);
      if (n == 3 && ferry_store_begin_transaction (store, 5 * FERRY_PEERS_S, NULL, NULL))
        {
          add_to (self, ferry_random_below (random, 24), NULL);
          ferry_store_roll_back (store, NULL);
        }
      if (what == 26)
        ferry_store_commit (store, error);
      else
        ferry_store_roll_back (store, error);
      break;
    case 28:
      ferry_store_collect (store, error);
      break;
    case 29:
      ferry_store_verify (store, error);
      break;
    case 30:
      ferry_store_trim (store);
      break;
    case 31:
      if (ferry_store_hold (store, self->refs[ferry_random_below (random, N_ROOTS)], error))
        {
          ferry_store_object_version (store, self->refs[LIST]);
          ferry_store_unhold (store, self->refs[ferry_random_below (random, N_ROOTS)]);
        }
      break;
    case 32:
      {
        g_autoptr (GVariant) value
            = ferry_store_get (store, n < 4 ? roots[ferry_random_below (random, N_ROOTS)] : path, error);
        g_autofree char *type = ferry_store_get_type_name (store, path, NULL);

        ferry_store_get_length (store, path, NULL);
        break;
      }
    case 33:
      {
        GVariantDict dict;

        g_variant_dict_init (&dict, NULL);
        g_variant_dict_insert (&dict, "a", "s", "a text that has a leaf");
        g_variant_dict_insert (&dict, "b", "i", 12);
        ferry_store_set (store, path, n % 2 ? g_variant_dict_end (&dict) : g_variant_new_string (text), error);
        if (n % 2 == 0)
          g_variant_dict_clear (&dict);
        break;
      }
    case 34:
      {
        g_auto (GStrv) names = ferry_store_list_children (store, n % 2 ? "" : "dict", error);
        break;
      }
    case 35:
      ferry_store_remove (store, path, error);
      break;
    case 36:
      {
        gint64 sum;

        ferry_store_add_int (store, path, 3, &sum, error);
        break;
      }
    case 39:
      {
        gsize size = 0;
        const guint8 *data = ferry_store_array_data (store, self->refs[ARRAY], &size, &reading, error);
        volatile guint sum = 0;

        for (gsize i = 0; data != NULL && i < size; i += 512)
          sum += data[i];
        put_down (store, &reading);
        break;
      }
    case 40:
      ferry_store_get_bytes_used (store);
      ferry_store_get_bytes_committed (store);
      break;
    case 44:
      {
        g_autoptr (FerryTensor) tensor = NULL;

        if (n == 0)
          {
            tensor = ferry_tensor_new ("<f4", (gint64[]){ 30, 20 }, 2, error);
            ferry_store_set_tensor (store, "tensor", tensor, error);
          }
        else if (n == 1)
          {
            g_autoptr (GVariant) value = ferry_store_get (store, "tensor", error);
          }
        else
          {
            tensor = ferry_store_get_tensor (store, "tensor", error);
          }
        break;
      }
    case 41:
      {
        guint64 seen = ferry_store_watch (store);
        g_autoptr (GError) local = NULL;

        ferry_store_wait_change (store, &seen, 2 * FERRY_PEERS_MS, NULL, &local);
        break;
      }
    case 4:
      length = ferry_store_list_length (store, self->refs[LIST]);
      if (length < 0 || length > (gssize) G_N_ELEMENTS (order))
        {
          ferry_store_list_splice (store, self->refs[LIST], 0, G_MAXSIZE, NULL, 0, error);
          break;
        }
      for (gssize i = 0; i < length; i++)
        order[i] = (guint32) (length - 1 - i);
      ferry_store_list_permute (store, self->refs[LIST], ferry_store_object_version (store, self->refs[LIST]), order,
                                (gsize) length, error);
      break;
    default:
      add_to (self, what, error);
      break;
    }
}

/* What is done within a stretch of work, and in transactions. */
static void
add_to (Work *self, guint what, GError **error)
{
  FerryStore *store = self->store;
  FerryRandom *random = &self->random;
  FerryReading reading = FERRY_READING_INIT;
  FerryReading second = FERRY_READING_INIT;
  FerryCell cells[5] = { FERRY_CELL_NONE, FERRY_CELL_NONE, FERRY_CELL_NONE, FERRY_CELL_NONE, FERRY_CELL_NONE };
  guint n = ferry_random_below (random, G_N_ELEMENTS (cells));
  char text[60];
  FerryKey key;

  g_snprintf (text, sizeof text, n % 2 ? "k%u" : "the key of number %u", ferry_random_below (random, 30));
  key = str_key (text);
  if (!ferry_store_begin_within (store, 12 * FERRY_PEERS_S, error))
    return;
  switch (what)
    {
    case 0:
      cells[0] = random_value (store, random);
      if (!ferry_store_list_append (store, self->refs[LIST], cells[0], error))
        ferry_store_release_cell (store, cells[0]);
      break;
    case 1:
      for (guint i = 0; i < n; i++)
        cells[i] = random_value (store, random);
      if (!ferry_store_list_splice (store, self->refs[LIST], ferry_random_below (random, 20),
                                    ferry_random_below (random, 6), cells, n, error))
        for (guint i = 0; i < n; i++)
          ferry_store_release_cell (store, cells[i]);
      break;
    case 2:
      ferry_store_list_pop (store, self->refs[LIST], n == 0 ? 0 : -1, &reading, error);
      break;
    case 3:
      cells[0] = random_value (store, random);
      if (ferry_store_list_set (store, self->refs[LIST], (gssize) ferry_random_below (random, 20), cells[0], error)
          <= 0)
        ferry_store_release_cell (store, cells[0]);
      break;
    case 6:
      cells[0] = random_value (store, random);
      if (ferry_store_dict_set (store, self->refs[DICT], &key, 0, cells[0], FALSE, &reading, error) < 0)
        ferry_store_release_cell (store, cells[0]);
      break;
    case 8:
      ferry_store_dict_add (store, self->refs[DICT], &key, FERRY_CELL (FERRY_CELL_INT, 7), NULL, NULL);
      break;
    case 9:
      ferry_store_dict_remove (store, self->refs[DICT], &key, &reading, error);
      break;
    case 10:
      ferry_store_dict_pop (store, self->refs[n % 2 ? DICT : SET], n < 2, &reading, &second, error);
      break;
    case 12:
      if (n == 0)
        ferry_store_dict_clear (store, self->refs[n % 2 ? DICT : SET], error);
      break;
    case 13:
      ferry_store_dict_set (store, self->refs[SET], &key, 0, FERRY_CELL_NONE, FALSE, NULL, error);
      break;
    case 14:
      ferry_store_dict_remove (store, self->refs[SET], &key, NULL, error);
      break;
    case 15:
      {
        char bytes[200];

        ferry_store_bytearray_read (store, self->refs[BYTES], n, bytes, sizeof bytes, NULL);
        if (ferry_store_bytearray_length (store, self->refs[BYTES]) > 5000)
          ferry_store_bytearray_splice (store, self->refs[BYTES], 0, G_MAXSIZE, NULL, 0, error);
        else
          ferry_store_bytearray_splice (store, self->refs[BYTES], n, n, text, strlen (text), error);
        break;
      }
    case 16:
      cells[0] = random_value (store, random);
      if (ferry_store_record_set (store, self->refs[RECORD], n % 3, cells[0], error) < 0)
        ferry_store_release_cell (store, cells[0]);
      ferry_store_record_get (store, self->refs[RECORD], n % 3, &reading, NULL);
      break;
    case 17:
      ferry_store_record_add (store, self->refs[RECORD], n % 3, FERRY_CELL (FERRY_CELL_INT, 7), NULL, NULL);
      break;
    case 18:
      {
        FerryRef extra = ferry_store_record_extra (store, self->refs[RECORD], TRUE, error);

        if (extra != 0)
          {
            ferry_store_dict_set (store, extra, &key, 0, FERRY_CELL_NONE, FALSE, NULL, NULL);
            ferry_store_unhold (store, extra);
          }
        break;
      }
    case 19:
      {
        FerryCell leaf = ferry_store_new_leaf (store, FERRY_LEAF_SHAPE, 0, n, text, strlen (text), NULL, 0, error);
        FerryRef shape = leaf != 0 ? ferry_store_shape (store, leaf, error) : 0;

        if (shape != 0)
          {
            ferry_store_shape_read (store, shape, &reading, NULL);
            ferry_store_unhold (store, shape);
          }
        break;
      }
    case 20:
    case 22:
    case 23:
      g_snprintf (text, sizeof text, "extra%u", ferry_random_below (random, 6));
      key = str_key (text);
      if (what == 22)
        {
          ferry_store_root_remove (store, &key, &reading, error);
        }
      else if (what == 23)
        {
          ferry_store_root_add (store, &key, FERRY_CELL (FERRY_CELL_INT, 7), NULL, NULL);
        }
      else
        {
          cells[0] = random_value (store, random);
          if (!ferry_store_root_set (store, &key, cells[0], error))
            ferry_store_release_cell (store, cells[0]);
        }
      break;
    case 25:
      {
        guint64 ticket = ferry_store_ticket_new (store, self->refs[LIST], error);
        FerryRef taken = ticket != 0 ? ferry_store_ticket_take (store, ticket, error) : 0;

        if (taken != 0)
          ferry_store_unhold (store, taken);
        break;
      }
    case 37:
      if (ferry_store_list_assign_strided (store, self->refs[LIST], 0, 2, 2, n % 2 ? cells : NULL, error) < 0)
        break;
      break;
    case 38:
      {
        guint32 hashes[] = { ferry_key_hash_int (1), ferry_key_hash_int (2) };

        for (guint i = 0; i < 4; i++)
          cells[i] = FERRY_CELL (FERRY_CELL_INT, i / 2 + 1);
        ferry_store_dict_assign (store, self->refs[DICT], 0, cells, hashes, 2, error);
        break;
      }
    case 42:
      {
        g_autofree char *large = g_strnfill (LARGE, 'l');
        FerryCell leaf = ferry_store_new_leaf (store, FERRY_LEAF_BYTES, 0, 1, large, LARGE, NULL, 0, error);

        if (leaf != 0 && ferry_store_dict_set (store, self->refs[DICT], &key, 0, leaf, FALSE, NULL, error) < 0)
          ferry_store_release_cell (store, leaf);
        break;
      }
    case 43:
      ferry_store_list_replace (store, self->refs[LIST], 0, FERRY_CELL (FERRY_CELL_INT, n));
      ferry_store_list_peek (store, self->refs[LIST], n, &cells[0]);
      ferry_store_record_peek (store, self->refs[RECORD], n % 3, &cells[0]);
      ferry_store_list_add (store, self->refs[LIST], 0, FERRY_CELL (FERRY_CELL_INT, 1), NULL, NULL);
      break;
    default:
      break;
    }
  ferry_store_end (store);
  put_down (store, &reading);
  put_down (store, &second);
}

static gboolean
has_all (const Work *work)
{
  for (guint i = 0; i < N_ROOTS; i++)
    if (work->refs[i] == 0)
      return FALSE;
  return TRUE;
}

static int
peer_cb (gpointer data)
{
  Task *task = data;
  Round *self = task->round;
  gboolean counted = FALSE;
  guint64 life = 0;

  watch_signals ();
  while (!atomic_load (&self->over) || !counted)
    {
      g_autoptr (GError) error = NULL;
      Work work = { 0 };

      ferry_random_init (&work.random, self->seed + 1000 * ++life + task->index + 1);
      begin_call (task, CALL_OPEN);
      work.store = open_store (self, &error);
      end_call (task, error);
      if (!counted)
        {
          bound_memory ();
          atomic_fetch_add (&self->n_open, 1);
        }
      counted = TRUE;
      if (work.store == NULL)
        {
          g_usleep (1000);
          continue;
        }
      begin_call (task, CALL_FILL);
      fill (&work, &error);
      end_call (task, error);
      for (guint i = 0; i < 3000 && has_all (&work) && !atomic_load (&self->over); i++)
        {
          guint what = ferry_random_below (&work.random, G_N_ELEMENTS (calls));

          /* those that hold everybody, more rarely */
          if (what >= 26 && what <= 30 && ferry_random_below (&work.random, 4) != 0)
            continue;
          g_clear_error (&error);
          begin_call (task, what);
          one_call (&work, what, &error);
          end_call (task, error);
        }
      begin_call (task, CALL_CLOSE);
      if (ferry_random_below (&work.random, 2))
        for (guint i = 0; i < N_ROOTS; i++)
          ferry_store_unhold (work.store, work.refs[i]);
      ferry_store_close (work.store);
      g_object_unref (work.store);
      end_call (task, NULL);
    }
  return EXIT_SUCCESS;
}

/* ---- the hostile process ---- */

typedef struct
{
  guint8 *base;
  guint64 data_size;
  guint64 heap_offset;
  const FerrySegment *segment;
  guint me;
  FerryRandom random;
} Hostile;

static guint64
word_at (const Hostile *self, guint64 offset)
{
  return __atomic_load_n ((guint64 *) (void *) (self->base + offset), __ATOMIC_RELAXED);
}

/* As it was when the store was opened, or later: up to there is memory. */
static guint64
heap_end (Hostile *self, guint64 *known)
{
  guint64 end = atomic_load (&((FerryStoreHeader *) (void *) self->base)->heap_end);

  /* what lies behind what it was is asked of nobody else: only a growth by little can be believed */
  if (end > *known && end <= self->data_size && end - *known <= 64 * FERRY_STORE_SPAN_SIZE
      && end % FERRY_STORE_SPAN_SIZE == 0)
    *known = end;
  return *known;
}

/* The offset of some head, most likely one in use; 0: none found. */
static guint64
some_head (Hostile *self, guint64 end)
{
  guint64 n = (end - self->heap_offset) >> FERRY_STORE_SPAN_SHIFT;

  for (guint i = 0; n > 0 && i < 200; i++)
    {
      guint64 span = ferry_random_next (&self->random) % n;
      guint64 head;

      if ((word_at (self, FERRY_STORE_OFFSET_SPANS + span * SPAN_STRIDE) & 0xff) != SPAN_HEADS)
        continue;
      head = self->heap_offset + (span << FERRY_STORE_SPAN_SHIFT)
             + ferry_random_below (&self->random, i < 100 ? 32 : 256) * FERRY_STORE_OBJECT_SIZE;
      if (((FerryObject *) (void *) (self->base + head))->kind != FERRY_OBJECT_FREE)
        return head;
    }
  return 0;
}

static guint64
some_body (Hostile *self, guint64 end)
{
  guint64 head = some_head (self, end);
  guint64 body = head != 0 ? ((FerryObject *) (void *) (self->base + head))->body : 0;

  return body % 8 == 0 && body >= self->heap_offset && body < end - 4096 ? body : 0;
}

/* A leaf in a body. */
static guint64
some_leaf (Hostile *self, guint64 end)
{
  for (guint i = 0; i < 30; i++)
    {
      guint64 body = some_body (self, end);
      guint64 cell = body != 0 ? word_at (self, body + ferry_random_below (&self->random, 24) * 8) : 0;
      guint64 at = ferry_cell_payload (cell);

      if (ferry_cell_tag (cell) == FERRY_CELL_LEAF && at % 8 == 0 && at >= self->heap_offset && at < end - 4096)
        return at;
    }
  return 0;
}

/* Of somebody else who takes part, as locks say it. */
static guint64
some_owner (Hostile *self)
{
  guint id = ferry_random_below (&self->random, 6);
  guint64 word = atomic_load (&self->segment->records[id].word);

  if (id == self->me)
    id = 200;
  return (guint64) id << FERRY_LOCK_OWNER_SHIFT
         | (guint64) (ferry_record_incarnation (word) & FERRY_LOCK_INCARNATION_MASK) << FERRY_LOCK_INCARNATION_SHIFT;
}

static guint64
nasty_value (Hostile *self, guint64 was, guint64 end)
{
  FerryRandom *random = &self->random;

  switch (ferry_random_below (random, 22))
    {
    case 0:
    case 1:
      return 0;
    case 2:
      return G_MAXUINT64;
    case 3:
      return was + 1;
    case 4:
      return was - 1;
    case 5:
    case 6:
      return was ^ (G_GUINT64_CONSTANT (1) << ferry_random_below (random, 64));
    case 7:
      return ferry_random_below (random, 256);
    case 8:
      return end - 8 * ferry_random_below (random, 3);
    case 9:
      return self->data_size - 8 * ferry_random_below (random, 3);
    case 10:
      return some_head (self, end);
    case 11:
      return some_body (self, end) + (ferry_random_below (random, 2) ? 0 : 8);
    case 12:
      return some_leaf (self, end);
    case 13:
      return FERRY_CELL (FERRY_CELL_OBJECT, some_head (self, end));
    case 14:
      return FERRY_CELL (FERRY_CELL_LEAF, some_leaf (self, end));
    case 15:
      return FERRY_CELL (FERRY_CELL_LEAF, ferry_random_next (random));
    case 16:
      return FERRY_CELL (FERRY_CELL_OBJECT, (self->data_size - 64) & ~G_GUINT64_CONSTANT (63));
    case 17: /* locked by somebody */
      return (was & FERRY_LOCK_VERSION_MASK) | some_owner (self) | FERRY_LOCK_LOCKED
             | (ferry_random_below (random, 2) ? FERRY_LOCK_TRANSACTION : 0);
    case 18: /* two numbers of 32 bits */
      return (guint64) ferry_random_below (random, 100) << 32 | (guint32) ferry_random_next (random);
    case 19:
      return (guint64) (guint32) ferry_random_next (random) << 32 | ferry_random_below (random, 100);
    case 20:
      return G_GUINT64_CONSTANT (1) << ferry_random_below (random, 48);
    default:
      return ferry_random_next (random);
    }
}

static void
scribble (Hostile *self, guint64 *known)
{
  FerryRandom *random = &self->random;
  guint64 end = heap_end (self, known);
  guint64 n_spans = MAX ((end - self->heap_offset) >> FERRY_STORE_SPAN_SHIFT, 1);
  guint id = ferry_random_below (random, PEERS + 1);
  guint64 slot = FERRY_STORE_OFFSET_SLOTS + id * FERRY_STORE_SLOT_SIZE;
  guint64 offset = 0;
  guint64 value;

  switch (ferry_random_below (random, 18))
    {
    case 0: /* gate, root, shapes, tickets, heap_end */
      offset = 128 + ferry_random_below (random, 10) * 8;
      break;
    case 1: /* a transaction's state and log */
      offset = 256 + ferry_random_below (random, 30) * 8;
      break;
    case 2:
      offset = G_STRUCT_OFFSET (FerryStoreHeader, heap) + ferry_random_below (random, 96) * 8;
      break;
    case 3:
      if (!((atomic_load (&((FerryStoreHeader *) (void *) self->base)->slots_ready[0]) >> id) & 1) || id == self->me)
        break;
      switch (ferry_random_below (random, 4))
        {
        case 0:
          offset = slot + ferry_random_below (random, 5) * 8;
          break;
        case 1:
          offset = slot + G_STRUCT_OFFSET (FerryStoreSlot, undo) + ferry_random_below (random, 32) * 8;
          break;
        case 2:
          offset = slot + G_STRUCT_OFFSET (FerryStoreSlot, handle_chunks) + ferry_random_below (random, 24) * 8;
          break;
        default:
          offset = slot + G_STRUCT_OFFSET (FerryStoreSlot, heap) + ferry_random_below (random, 10) * 8;
          break;
        }
      break;
    case 4:
    case 5: /* descriptors of spans */
      offset = FERRY_STORE_OFFSET_SPANS + ferry_random_next (random) % n_spans * SPAN_STRIDE
               + ferry_random_below (random, 6) * 8;
      break;
    case 6:
    case 7:
    case 8:
    case 9: /* heads */
      offset = some_head (self, end);
      if (offset != 0)
        offset += ferry_random_below (random, 8) * 8;
      break;
    case 10:
    case 11:
    case 12:
    case 13: /* bodies */
      offset = some_body (self, end);
      if (offset != 0)
        offset += ferry_random_below (random, ferry_random_below (random, 2) ? 3 : 60) * 8;
      break;
    case 14:
    case 15:
      offset = some_leaf (self, end);
      if (offset != 0)
        offset += ferry_random_below (random, 4) * 8;
      break;
    case 16: /* what was read when the others came */
      offset = ferry_random_below (random, 4) == 0 ? ferry_random_below (random, 7) * 8 : 0;
      if (offset == 0 && ferry_random_below (random, 10) != 0)
        return;
      break;
    default:
      offset = self->heap_offset + (ferry_random_next (random) % (end - self->heap_offset) & ~G_GUINT64_CONSTANT (7));
      break;
    }
  if (offset == 0)
    return;
  value = nasty_value (self, word_at (self, offset), end);
  if (ferry_random_below (random, 6) == 0) /* half of it */
    __atomic_store_n ((guint32 *) (void *) (self->base + offset + 4 * ferry_random_below (random, 2)), (guint32) value,
                      __ATOMIC_SEQ_CST);
  else
    __atomic_store_n ((guint64 *) (void *) (self->base + offset), value, __ATOMIC_SEQ_CST);
}

static int
hostile_cb (gpointer data)
{
  Round *self = data;
  g_autoptr (GError) error = NULL;
  FerryStore *store = open_store (self, &error);
  Hostile hostile = { 0 };
  guint64 known;

  atomic_fetch_add (&self->n_open, 1);
  if (store == NULL)
    {
      g_printerr ("scribble-store: %s\n", error->message);
      return EXIT_FAILURE;
    }
  hostile.base = store->base;
  hostile.data_size = store->data_size;
  hostile.heap_offset = store->heap_offset;
  hostile.segment = store->segment;
  hostile.me = store->segment->id;
  known = atomic_load (&store->header->heap_end);
  ferry_random_init (&hostile.random, self->seed);
  while (atomic_load (&self->n_open) < PEERS + 1 && !atomic_load (&self->over))
    g_usleep (1000);
  /* some memory, and something in it */
  g_usleep (20 * FERRY_PEERS_MS);
  for (guint i = 0; i < SCRIBBLES && !atomic_load (&self->over); i++)
    {
      scribble (&hostile, &known);
      atomic_fetch_add (&self->n_scribbles, 1);
      if (ferry_random_below (&hostile.random, 8) == 0)
        g_usleep (ferry_random_below (&hostile.random, 12) * FERRY_PEERS_MS);
    }
  while (!atomic_load (&self->over))
    g_usleep (1000);
  /* what it did to others it may have done to itself: it leaves as the dead do */
  _exit (EXIT_SUCCESS);
}

/* ---- rounds ---- */

static guint64 total_scribbles;
static guint64 total_good;
static guint64 total_corrupt;
static guint64 total_other;
static gint64 total_longest;

/* Waits for the end of a peer whose calls may take long, but no call too long. */
static gboolean
wait_peer (Round *self, guint i, pid_t pid, int *status, guint *what)
{
  for (;;)
    {
      pid_t got = waitpid (pid, status, WNOHANG);
      gint64 began = atomic_load (&self->began[i]);

      if (got == pid || (got < 0 && errno != EINTR))
        return TRUE;
      g_usleep (2 * FERRY_PEERS_MS);

      if (began != 0 && g_get_monotonic_time () - began > CALL_MAX * (ferry_peers_is_sanitized () ? 4 : 1))
        {
          *what = atomic_load (&self->what[i]);
          if (g_getenv ("FERRY_TEST_HANG") != NULL)
            {
              ferry_peers_note ("process %d hangs in %s", (int) pid, call_name (*what));
              g_usleep (600 * FERRY_PEERS_S);
            }
          kill (pid, SIGABRT); /* tells where it is */
          ferry_peers_wait (pid, 10 * FERRY_PEERS_S, status);
          return FALSE;
        }
    }
}

static void
run_round (Round *self, guint number, FerryRandom *random)
{
  g_autoptr (GString) trouble = g_string_new (NULL);
  pid_t pids[PEERS];
  pid_t hostile;
  int status = 0;

  memset (self, 0, sizeof *self);
  g_strlcpy (self->transport, ferry_random_below (random, 2) ? "memfd" : "posix-shm", sizeof self->transport);
  self->seed = ferry_random_next (random);
  g_snprintf (self->name, sizeof self->name, "scribble-store-%u", number);
  hostile = ferry_peers_fork (hostile_cb, self);
  for (guint i = 0; i < PEERS; i++)
    {
      Task task = { self, i };

      pids[i] = ferry_peers_fork (peer_cb, &task);
    }
  for (gint64 end = g_get_monotonic_time () + 10 * FERRY_PEERS_S;
       atomic_load (&self->n_open) < PEERS + 1 && g_get_monotonic_time () < end;)
    g_usleep (1000);
  g_usleep (ROUND_TIME);
  atomic_store (&self->over, 1);
  for (guint i = 0; i < PEERS; i++)
    {
      guint what = 0;
      gboolean in_time = wait_peer (self, i, pids[i], &status, &what);

      if (!in_time)
        g_string_append_printf (trouble, "; peer %u hung in %s", i, call_name (what));
      else if (!ferry_peers_ended_well (status))
        g_string_append_printf (trouble, "; peer %u, in %s: %s", i, call_name (atomic_load (&self->what[i])),
                                ferry_peers_tell_end (status));
      if (self->odd[i][0] != '\0')
        g_string_append_printf (trouble, "; peer %u: no error of Ferry's: %s", i, self->odd[i]);
    }
  ferry_peers_wait (hostile, 5 * FERRY_PEERS_S, &status);
  ferry_peers_report (trouble->len == 0, "%s, round %u%s", self->transport, number, trouble->str);
  total_scribbles += self->n_scribbles;
  total_good += self->n_good;
  total_corrupt += self->n_corrupt;
  total_other += self->n_other;
  total_longest = MAX (total_longest, self->longest);
  ferry_peers_sweep_names ();
}

int
main (int argc, char **argv)
{
  Round *round;
  FerryRandom random;
  gint64 end;
  guint number = 0;

  ferry_peers_setup (argc, argv);
  /* what others write is no mistake of the program's */
  g_log_set_always_fatal (G_LOG_LEVEL_ERROR | G_LOG_LEVEL_CRITICAL);
  ferry_random_init (&random, ferry_peers_seed ());
  round = ferry_peers_share (sizeof *round, NULL);
  end = g_get_monotonic_time () + (ferry_peers_is_thorough () ? TIME_THOROUGH : TIME_DEFAULT);
  while (g_get_monotonic_time () < end)
    run_round (round, number++, &random);
  ferry_peers_note ("%" G_GUINT64_FORMAT " scribbles; calls: %" G_GUINT64_FORMAT " good, %" G_GUINT64_FORMAT
                    " corrupt, %" G_GUINT64_FORMAT " other errors; the longest took %.3f s",
                    total_scribbles, total_good, total_corrupt, total_other, (double) total_longest / FERRY_PEERS_S);
  return ferry_peers_finish ();
}
