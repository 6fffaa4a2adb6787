/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Random operations on everything that a store has, for a long time, by one process and by several at once: at the end its
 * memory is what it was at the start. And values of mixed sizes and lifetimes in a store that is twice as large as
 * they are: there is always room. */

#include "ferry-peers.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PROCESSES (4)
#define OPS_DEFAULT (200000)
#define OPS_THOROUGH (10000000)
#define OPS_WARM_UP (20000)
#define MIXED_DEFAULT (20000)
#define MIXED_THOROUGH (2000000)
#define MAX_BYTES (G_GUINT64_CONSTANT (512) << 20)
#define MIXED_MAX_BYTES (G_GUINT64_CONSTANT (96) << 20)
#define MIXED_LIVE (MIXED_MAX_BYTES / 2)
#define MIXED_VALUES (4096)
#define VALUE_MAX (1 << 20)
#define NAMES (24)
#define LIFETIME (1500) /* operations on what a name stands for until it is replaced or removed */
#define LENGTH_MAX (200)
#define KEYS (300)
#define FIELDS (4)
#define TICKETS (9) /* at once: one more than a dict holds without an index */
#define TIMEOUT (3600 * FERRY_PEERS_S)
/* What may stay committed after trim() beyond what was at the start: spans that were begun and are in use. In bytes. */
#define COMMITTED_SLACK (2 << 20)

typedef enum
{
  A_LIST,
  A_DICT,
  A_SET,
  A_RECORD,
  A_BYTEARRAY,
  N_KINDS
} Kind;

typedef struct
{
  FerryStore *store;
  FerryRandom random;
  guint8 *data; /* VALUE_MAX bytes */
  FerryRef shape;
  GError *error;
  const char *what; /* the operation that failed */
} Soak;

static guint
below (Soak *self, guint n)
{
  return ferry_random_below (&self->random, n);
}

/* Keeps the first error. */
static gboolean
check (Soak *self, gboolean ok, const char *what)
{
  if (!ok && self->what == NULL)
    self->what = what;
  return ok;
}

/* ---- values ---- */

static void
drop_reading (Soak *self, FerryReading *reading)
{
  if (ferry_cell_tag (reading->cell) == FERRY_CELL_OBJECT)
    ferry_store_unhold (self->store, ferry_cell_payload (reading->cell));
  else if (ferry_cell_tag (reading->cell) == FERRY_CELL_LEAF)
    for (guint i = 0; i < reading->leaf->n_refs; i++)
      ferry_store_unhold (self->store, ((const FerryRef *) (gconstpointer) reading->leaf->data)[i]);
}

static gsize
draw_size (Soak *self)
{
  switch (below (self, 1000))
    {
    case 0:
      return 1 + below (self, VALUE_MAX);
    case 1:
    case 2:
    case 3:
    case 4:
    case 5:
      return 1 + below (self, 1 << 16);
    default:
      return below (self, 10) == 0 ? 1 + below (self, 1 << 12) : 1 + below (self, 1 << 7);
    }
}

static FerryCell make_value (Soak *self, guint depth);

/* In a stretch of work. */
static FerryCell
make_object (Soak *self, guint depth)
{
  FerryCell cells[FIELDS] = { 0 };
  guint n = below (self, FIELDS + 1);
  FerryCell made = 0;
  guint kind = below (self, N_KINDS + 1);

  if (kind == A_LIST || kind == A_RECORD)
    for (guint i = 0; i < FIELDS; i++)
      cells[i] = i < n || kind == A_RECORD ? make_value (self, depth + 1) : 0;
  if (kind == A_LIST)
    {
      made = ferry_store_list_new (self->store, cells, n, &self->error);
    }
  else if (kind == A_RECORD)
    {
      made = ferry_store_record_new (self->store, self->shape, cells, FIELDS, &self->error);
    }
  else if (kind == A_DICT || kind == A_SET)
    {
      made = ferry_store_dict_new (self->store, kind == A_DICT ? FERRY_OBJECT_DICT : FERRY_OBJECT_SET, n, &self->error);
    }
  else if (kind == A_BYTEARRAY)
    {
      made = ferry_store_bytearray_new (self->store, self->data, draw_size (self), &self->error);
    }
  else
    {
      FerryCell description
          = ferry_store_new_leaf (self->store, FERRY_LEAF_ARRAY, 0, 0, "<u1", 4, NULL, 0, &self->error);

      if (description != 0)
        made = ferry_store_array_new (self->store, description, self->data, draw_size (self), &self->error);
    }
  check (self, made != 0, "to make an object");
  return made;
}

static FerryCell
make_leaf (Soak *self, gsize size)
{
  FerryLeafKind kind = below (self, 2) ? FERRY_LEAF_BYTES : FERRY_LEAF_STR;
  FerryCell made;

  size = MAX (size, FERRY_CELL_INLINE_MAX + 1);
  made = ferry_store_new_leaf (self->store, kind, kind == FERRY_LEAF_STR ? 1 | FERRY_LEAF_ASCII : 0, 0, self->data,
                               size, NULL, 0, &self->error);
  check (self, made != 0, "to make a leaf");
  return made;
}

/* In a stretch of work. */
static FerryCell
make_value (Soak *self, guint depth)
{
  guint kind = below (self, 10);
  FerryCell made;

  if (kind < 3 || self->what != NULL)
    return FERRY_CELL (FERRY_CELL_INT, below (self, 1000));
  if (kind == 3)
    {
      made = ferry_store_new_int (self->store, G_MAXINT64 - below (self, 9), &self->error);
      check (self, made != 0, "to make an int");
      return made;
    }
  if (kind < 8 || depth > 2)
    return make_leaf (self, draw_size (self));
  made = make_object (self, depth);
  if (kind == 9 && made != 0)
    {
      FerryCell cells[2] = { FERRY_CELL (FERRY_CELL_INT, 1), FERRY_CELL (FERRY_CELL_OBJECT, 0) };
      FerryRef ref = ferry_cell_payload (made);

      made = ferry_store_new_leaf (self->store, FERRY_LEAF_TUPLE, 0, 1, cells, sizeof cells, &ref, 1, &self->error);
      check (self, made != 0, "to make a tuple");
    }
  return made;
}

static FerryKey
str_key (const char *text)
{
  gsize n = strlen (text);

  g_assert (n > FERRY_CELL_INLINE_MAX);
  return (FerryKey){ FERRY_CELL (FERRY_CELL_LEAF, 0),
                     ferry_key_hash_data (FERRY_LEAF_STR, text, n),
                     FERRY_LEAF_STR,
                     1 | FERRY_LEAF_ASCII,
                     text,
                     n };
}

static FerryKey
draw_key (Soak *self, char *text, gsize size)
{
  guint number = below (self, KEYS);

  if (below (self, 2))
    return (FerryKey){ FERRY_CELL (FERRY_CELL_INT, number), ferry_key_hash_int (number) };
  g_snprintf (text, size, "key number %u", number);
  return str_key (text);
}

/* ---- operations; -1 is an error everywhere ---- */

/* What was not taken over is given back. */
static void
settle (Soak *self, int done, FerryCell cell, const char *what)
{
  if (done <= 0)
    ferry_store_release_cell (self->store, cell);
  check (self, done >= 0, what);
}

static void
change_list (Soak *self, FerryRef list)
{
  FerryStore *store = self->store;
  FerryReading reading = FERRY_READING_INIT;
  gssize length = ferry_store_list_length (store, list);
  gssize index = (gssize) below (self, (guint) MAX (length, 0) + 2) - 1;
  guint kind = length > LENGTH_MAX ? 3 : below (self, 10);
  FerryCell cells[8];
  guint n = below (self, G_N_ELEMENTS (cells));
  FerrySnapshot snapshot = { 0 };
  guint32 order[2 * LENGTH_MAX];
  int done;

  switch (kind)
    {
    case 0:
    case 1:
      cells[0] = make_value (self, 0);
      settle (self, ferry_store_list_append (store, list, cells[0], &self->error) ? 1 : -1, cells[0], "append");
      break;
    case 2:
      cells[0] = make_value (self, 0);
      settle (self, ferry_store_list_set (store, list, index, cells[0], &self->error), cells[0], "list set");
      break;
    case 3:
      check (self,
             ferry_store_list_splice (store, list, (gsize) MAX (index, 0), below (self, 60), NULL, 0, &self->error),
             "list delete");
      break;
    case 4:
      for (guint i = 0; i < n; i++)
        cells[i] = make_value (self, 0);
      done = ferry_store_list_splice (store, list, (gsize) MAX (index, 0), below (self, 6), cells, n, &self->error);
      for (guint i = 0; i < n; i++)
        settle (self, done ? 1 : -1, cells[i], "list splice");
      break;
    case 5:
      done = ferry_store_list_pop (store, list, index, &reading, &self->error);
      if (check (self, done >= 0, "list pop") && done > 0)
        drop_reading (self, &reading);
      break;
    case 6:
      done = ferry_store_list_get (store, list, index, &reading, &self->error);
      if (check (self, done >= 0, "list get") && done > 0)
        drop_reading (self, &reading);
      break;
    case 7:
      n = MIN (n, 3);
      for (guint i = 0; i < n; i++)
        cells[i] = make_value (self, 0);
      done = n == 0 ? ferry_store_list_assign_strided (store, list, 0, 2, 3, NULL, &self->error)
                    : ferry_store_list_assign_strided (store, list, 1, 3, n, cells, &self->error);
      check (self, done >= 0, "list assign strided");
      for (guint i = 0; i < n; i++)
        settle (self, done, cells[i], "list assign strided");
      break;
    case 8:
      if (!check (self, ferry_store_snapshot (store, list, &snapshot, &self->error), "snapshot"))
        break;
      for (gsize i = 0; i < snapshot.n && snapshot.n < G_N_ELEMENTS (order); i++)
        order[i] = (guint32) (snapshot.n - 1 - i);
      if (snapshot.n > 1 && snapshot.n < G_N_ELEMENTS (order))
        check (self, ferry_store_list_permute (store, list, snapshot.version, order, snapshot.n, &self->error) >= 0,
               "permute");
      ferry_store_snapshot_clear (store, &snapshot);
      break;
    default:
      cells[0] = FERRY_CELL (FERRY_CELL_INT, 1);
      if (ferry_store_list_add (store, list, index, cells[0], NULL, &self->error) < 0)
        check (self, g_error_matches (self->error, FERRY_ERROR, FERRY_ERROR_UNSUPPORTED), "list add");
    }
  ferry_reading_clear (&reading);
}

static void
change_dict (Soak *self, FerryRef dict, gboolean is_set)
{
  FerryStore *store = self->store;
  FerryReading reading = FERRY_READING_INIT;
  FerryReading other = FERRY_READING_INIT;
  char text[40];
  FerryKey key = draw_key (self, text, sizeof text);
  FerryCell cell = FERRY_CELL_NONE;
  guint64 position = 0;
  int done = 0;

  switch (below (self, 400) == 0 ? 10 : below (self, 10))
    {
    case 0:
    case 1:
    case 2:
    case 3:
      if (!is_set)
        cell = make_value (self, 0);
      done = ferry_store_dict_set (store, dict, &key, 0, cell, below (self, 3) == 0, &reading, &self->error);
      settle (self, done < 0 ? -1 : 1, cell, "dict set");
      if (done == 1)
        drop_reading (self, &reading);
      done = MIN (done, 0);
      break;
    case 4:
    case 5:
      done = ferry_store_dict_remove (store, dict, &key, &reading, &self->error);
      break;
    case 6:
      done = ferry_store_dict_get (store, dict, &key, &reading, &self->error);
      break;
    case 7:
      done = ferry_store_dict_pop (store, dict, below (self, 2), &reading, &other, &self->error);
      if (done > 0)
        drop_reading (self, &other);
      break;
    case 8:
      for (guint i = 0; i < 5 && done >= 0; i++)
        {
          done = ferry_store_dict_next (store, dict, &position, FALSE, &reading, &other, &self->error);
          if (done > 0)
            {
              drop_reading (self, &reading);
              drop_reading (self, &other);
            }
          if (done == 0)
            break;
        }
      done = MIN (done, 0);
      break;
    case 9:
      if (!is_set)
        done = ferry_store_dict_add (store, dict, &key, FERRY_CELL (FERRY_CELL_INT, 1), NULL, &self->error);
      if (done < 0 && g_error_matches (self->error, FERRY_ERROR, FERRY_ERROR_UNSUPPORTED))
        done = 0;
      done = MIN (done, 0);
      break;
    default:
      done = ferry_store_dict_clear (store, dict, &self->error) ? 0 : -1;
    }
  if (check (self, done >= 0, is_set ? "a set" : "a dict") && done > 0)
    drop_reading (self, &reading);
  ferry_reading_clear (&reading);
  ferry_reading_clear (&other);
}

static void
change_record (Soak *self, FerryRef record)
{
  FerryStore *store = self->store;
  FerryReading reading = FERRY_READING_INIT;
  guint field = below (self, FIELDS);
  FerryCell cell;
  FerryRef extra;
  int done;

  switch (below (self, 6))
    {
    case 0:
    case 1:
      cell = make_value (self, 0);
      done = ferry_store_record_set (store, record, field, cell, &self->error);
      settle (self, done < 0 ? -1 : 1, cell, "record set");
      break;
    case 2:
      check (self, ferry_store_record_set (store, record, field, FERRY_CELL_EMPTY, &self->error) >= 0, "record delete");
      break;
    case 3:
      done = ferry_store_record_get (store, record, field, &reading, &self->error);
      if (check (self, done >= 0, "record get") && done > 0)
        drop_reading (self, &reading);
      break;
    case 4:
      if (ferry_store_record_add (store, record, field, FERRY_CELL (FERRY_CELL_INT, 1), NULL, &self->error) < 0)
        check (self, g_error_matches (self->error, FERRY_ERROR, FERRY_ERROR_UNSUPPORTED), "record add");
      break;
    default:
      extra = ferry_store_record_extra (store, record, TRUE, &self->error);
      if (check (self, extra != 0, "record extra"))
        {
          change_dict (self, extra, FALSE);
          ferry_store_unhold (store, extra);
        }
    }
  ferry_reading_clear (&reading);
}

static void
change_bytearray (Soak *self, FerryRef bytearray)
{
  FerryStore *store = self->store;
  gssize length = ferry_store_bytearray_length (store, bytearray);
  gsize offset = below (self, (guint) MAX (length, 0) + 1);
  gsize size = draw_size (self);

  if (below (self, 3) == 0)
    check (self, ferry_store_bytearray_read (store, bytearray, offset, self->data, size, &self->error) >= 0,
           "bytearray read");
  else
    check (self,
           ferry_store_bytearray_splice (store, bytearray, offset,
                                         length > VALUE_MAX / 4 ? VALUE_MAX : below (self, 300), self->data, size,
                                         &self->error),
           "bytearray splice");
}

static void
change_object (Soak *self, FerryRef ref)
{
  guint64 ticket;

  switch (ferry_store_object_kind (self->store, ref))
    {
    case FERRY_OBJECT_LIST:
      change_list (self, ref);
      break;
    case FERRY_OBJECT_DICT:
    case FERRY_OBJECT_SET:
      change_dict (self, ref, ferry_store_object_kind (self->store, ref) == FERRY_OBJECT_SET);
      break;
    case FERRY_OBJECT_RECORD:
      change_record (self, ref);
      break;
    case FERRY_OBJECT_BYTEARRAY:
      change_bytearray (self, ref);
      break;
    default:
      ticket = ferry_store_ticket_new (self->store, ref, &self->error);
      if (check (self, ticket != 0, "ticket new")
          && check (self, ferry_store_ticket_take (self->store, ticket, &self->error) == ref, "ticket take"))
        ferry_store_unhold (self->store, ref);
    }
}

/* One operation on what one name of the root stands for, or on the root. */
static void
change (Soak *self)
{
  FerryStore *store = self->store;
  g_autoptr (GError) error = NULL;
  FerryReading reading = FERRY_READING_INIT;
  FerryReading other = FERRY_READING_INIT;
  char text[40];
  FerryKey key;
  FerryCell cell;
  int done;

  if (!ferry_store_begin (store, &self->error))
    {
      check (self, FALSE, "begin");
      return;
    }
  g_snprintf (text, sizeof text, "name %u of the root", below (self, NAMES));
  key = str_key (text);
  done = ferry_store_root_get (store, &key, &reading, &self->error);
  if (!check (self, done >= 0, "root get"))
    ;
  else if (done == 0 || below (self, LIFETIME) == 0)
    {
      cell = below (self, 3) ? make_object (self, 0) : make_value (self, 0);
      settle (self, cell != 0 && ferry_store_root_set (store, &key, cell, &self->error) ? 1 : -1, cell, "root set");
    }
  else if (below (self, LIFETIME) == 0)
    {
      done = ferry_store_root_remove (store, &key, &other, &self->error);
      if (check (self, done >= 0, "root remove") && done > 0)
        drop_reading (self, &other);
      done = 1;
    }
  else if (ferry_cell_tag (reading.cell) != FERRY_CELL_OBJECT)
    {
      if (ferry_store_root_add (store, &key, FERRY_CELL (FERRY_CELL_INT, 1), NULL, &self->error) < 0)
        check (self, g_error_matches (self->error, FERRY_ERROR, FERRY_ERROR_UNSUPPORTED), "root add");
    }
  else if (below (self, 50) == 0)
    {
      /* It may well come to contain itself. */
      FerryRef ref = ferry_cell_payload (reading.cell);
      FerryKey inner = draw_key (self, text, sizeof text);

      if (ferry_store_object_kind (store, ref) == FERRY_OBJECT_DICT)
        {
          cell = ferry_store_new_reference (store, ref);
          settle (self, ferry_store_dict_set (store, ref, &inner, 0, cell, FALSE, NULL, &self->error) < 0 ? -1 : 1,
                  cell, "a cycle");
        }
      else if (ferry_store_object_kind (store, ref) == FERRY_OBJECT_LIST)
        {
          cell = ferry_store_new_reference (store, ref);
          settle (self, ferry_store_list_append (store, ref, cell, &self->error) ? 1 : -1, cell, "a cycle");
        }
    }
  else
    {
      change_object (self, ferry_cell_payload (reading.cell));
    }
  if (done > 0)
    drop_reading (self, &reading);
  ferry_store_end (store);
  if (self->what == NULL)
    g_clear_error (&self->error);
  ferry_reading_clear (&reading);
  ferry_reading_clear (&other);
}

static void
run_operations (Soak *self, guint n)
{
  for (guint i = 0; i < n && self->what == NULL; i++)
    {
      if (below (self, 50) == 0)
        {
          if (!check (self, ferry_store_begin_transaction (self->store, -1, NULL, &self->error), "begin transaction"))
            return;
          for (guint j = below (self, 6); j > 0 && self->what == NULL; j--, i++)
            change (self);
          if (below (self, 3) == 0)
            check (self, ferry_store_roll_back (self->store, self->error == NULL ? &self->error : NULL), "roll back");
          else
            check (self, ferry_store_commit (self->store, self->error == NULL ? &self->error : NULL), "commit");
        }
      else if (below (self, 20000) == 0)
        {
          check (self, ferry_store_collect (self->store, &self->error), "collect");
          if (below (self, 2))
            ferry_store_trim (self->store);
        }
      else
        {
          change (self);
        }
    }
}

/* Values of mixed sizes in a dict of their own, never more than @live bytes of them. */
static void
run_mixed (Soak *self, guint number, guint n, gsize live)
{
  g_autofree guint *sizes = g_new0 (guint, MIXED_VALUES);
  g_autofree char *name = g_strdup_printf ("values of process %u", number);
  FerryKey key = str_key (name);
  FerryReading reading = FERRY_READING_INIT;
  gsize sum = 0;
  FerryRef dict;
  FerryCell cell;

  cell = ferry_store_dict_new (self->store, FERRY_OBJECT_DICT, 0, &self->error);
  if (!check (self, cell != 0 && ferry_store_root_set (self->store, &key, cell, &self->error), "a dict")
      || !check (self, ferry_store_root_get (self->store, &key, &reading, &self->error) == 1, "the dict"))
    return;
  dict = ferry_cell_payload (reading.cell);
  for (guint i = 0; i < n && self->what == NULL; i++)
    {
      double part = (double) below (self, 1 << 20) / (1 << 20);
      guint size = (guint) exp (part * part * log (VALUE_MAX));
      guint index = below (self, MIXED_VALUES);
      FerryKey place = { FERRY_CELL (FERRY_CELL_INT, index), ferry_key_hash_int (index) };

      sum -= sizes[index];
      sizes[index] = 0;
      /* The bound holds while the new value is beside the old one, too. */
      if (!check (self, ferry_store_dict_remove (self->store, dict, &place, NULL, &self->error) >= 0, "remove"))
        break;
      while (sum + size > live)
        {
          guint victim = below (self, MIXED_VALUES);
          FerryKey other = { FERRY_CELL (FERRY_CELL_INT, victim), ferry_key_hash_int (victim) };

          if (sizes[victim] == 0)
            continue;
          sum -= sizes[victim];
          sizes[victim] = 0;
          check (self, ferry_store_dict_remove (self->store, dict, &other, NULL, &self->error) == 1, "make room");
        }
      if (!check (self, ferry_store_begin (self->store, &self->error), "begin"))
        break;
      cell = make_leaf (self, size);
      if (cell != 0)
        settle (self, ferry_store_dict_set (self->store, dict, &place, 0, cell, FALSE, NULL, &self->error) < 0 ? -1 : 1,
                cell, "set");
      ferry_store_end (self->store);
      sizes[index] = size;
      sum += size;
    }
  ferry_store_unhold (self->store, dict);
  ferry_reading_clear (&reading);
}

/* ---- processes ---- */

static void
begin_soak (Soak *self, guint number)
{
  *self = (Soak){ 0 };
  ferry_random_init (&self->random, ferry_peers_seed () + number);
  self->data = g_malloc (VALUE_MAX);
  memset (self->data, 'x', VALUE_MAX);
}

static gboolean
open_soak (Soak *self, const char *name, guint64 max_bytes)
{
  g_autofree char *description = g_strdup_printf ("memfd name=%s max-bytes=%" G_GUINT64_FORMAT, name, max_bytes);
  FerryCell shape;

  self->store = ferry_store_open (description, NULL, &self->error);
  if (!check (self, self->store != NULL && ferry_store_begin (self->store, &self->error), "open"))
    return FALSE;
  shape = ferry_store_new_leaf (self->store, FERRY_LEAF_SHAPE, 0, 0, "a class", 8, NULL, 0, &self->error);
  if (shape != 0)
    self->shape = ferry_store_shape (self->store, shape, &self->error);
  ferry_store_end (self->store);
  return check (self, self->shape != 0, "shape");
}

static void
end_soak (Soak *self)
{
  if (self->shape != 0)
    ferry_store_unhold (self->store, self->shape);
  g_clear_object (&self->store);
  g_clear_error (&self->error);
  g_free (self->data);
}

/* What a spawned process does: "operations" or "mixed", name, number, how many. */
static int
work (char **arguments)
{
  Soak soak;
  gboolean mixed = strcmp (arguments[1], "mixed") == 0;
  guint number = (guint) atoi (arguments[3]);
  guint n = (guint) atoi (arguments[4]);
  int result;

  begin_soak (&soak, number);
  if (open_soak (&soak, arguments[2], mixed ? MIXED_MAX_BYTES : MAX_BYTES))
    {
      if (mixed)
        run_mixed (&soak, number, n, MIXED_LIVE / PROCESSES);
      else
        run_operations (&soak, n);
    }
  result = soak.what == NULL ? EXIT_SUCCESS : EXIT_FAILURE;
  if (soak.what != NULL)
    ferry_peers_note ("process %u: %s: %s", number, soak.what, soak.error != NULL ? soak.error->message : "no error");
  end_soak (&soak);
  return result;
}

static gboolean
run_processes (const char *what, const char *name, guint n, GString *trouble)
{
  pid_t pids[PROCESSES];
  g_autofree char *n_text = g_strdup_printf ("%u", n / PROCESSES);

  for (guint i = 0; i < PROCESSES; i++)
    {
      g_autofree char *number = g_strdup_printf ("%u", i + 1);

      pids[i] = ferry_peers_spawn ((const char *[]){ what, name, number, n_text, NULL });
    }
  for (guint i = 0; i < PROCESSES; i++)
    {
      int status;

      if (!ferry_peers_wait (pids[i], TIMEOUT, &status) || !ferry_peers_ended_well (status))
        g_string_append_printf (trouble, "; process %u: %s", i + 1, ferry_peers_tell_end (status));
    }
  return trouble->len == 0;
}

/* ---- the tests ---- */

/* Brings the dict of tickets, which stays, back to the same room, whatever it has had. Without an index it has room for three
 * tickets or, from the fourth at the same moment on, for eight; and for three again when the eight places were used up while
 * it never was empty. So its size depends on how the processes ran. One that loses its index has room for three. */
static gboolean
settle_tickets (Soak *self)
{
  FerryRef root = ferry_store_get_root (self->store);
  guint64 tickets[TICKETS];
  gboolean ok = TRUE;

  for (guint i = 0; ok && i < TICKETS; i++)
    ok = (tickets[i] = ferry_store_ticket_new (self->store, root, &self->error)) != 0;
  for (guint i = 0; ok && i < TICKETS; i++)
    {
      ok = ferry_store_ticket_take (self->store, tickets[i], &self->error) == root;
      if (ok)
        ferry_store_unhold (self->store, root);
    }
  return check (self, ok, "tickets");
}

/* Removes everything and collects. */
static gboolean
empty (Soak *self)
{
  FerryRef root = ferry_store_get_root (self->store);
  FerrySnapshot snapshot = { 0 };
  gboolean ok = ferry_store_snapshot (self->store, root, &snapshot, &self->error);

  for (gsize i = 0; ok && i < snapshot.n; i += 2)
    {
      const FerryLeaf *leaf
          = (const FerryLeaf *) (gconstpointer) (snapshot.memory + ferry_cell_payload (snapshot.cells[i]));
      FerryKey key = { FERRY_CELL (FERRY_CELL_LEAF, 0),
                       ferry_key_hash_data (FERRY_LEAF_STR, leaf->data, leaf->size),
                       FERRY_LEAF_STR,
                       1 | FERRY_LEAF_ASCII,
                       leaf->data,
                       leaf->size };

      ok = ferry_store_root_remove (self->store, &key, NULL, &self->error) == 1;
    }
  ferry_store_snapshot_clear (self->store, &snapshot);
  return check (self, ok, "empty") && settle_tickets (self)
         && check (self, ferry_store_collect (self->store, &self->error), "collect");
}

static void
test_operations (gboolean many)
{
  g_autoptr (GString) trouble = g_string_new (NULL);
  g_autofree char *name = g_strdup_printf ("soak-%d", many);
  guint n = ferry_peers_is_thorough () ? OPS_THOROUGH : OPS_DEFAULT / (ferry_peers_is_sanitized () ? 10 : 1);
  gint64 began = g_get_monotonic_time ();
  guint64 used = 0;
  guint64 committed = 0;
  guint64 full = 0;
  guint64 used_after = 0;
  guint64 committed_after = 0;
  Soak soak;

  begin_soak (&soak, 100);
  /* What stays: the dicts of the root, of shapes and of tickets, the log of transactions and this process's table of handles
   * have the size that they once needed. */
  if (open_soak (&soak, name, MAX_BYTES))
    {
      run_operations (&soak, OPS_WARM_UP);
      if (soak.what == NULL && (!many || run_processes ("operations", name, OPS_WARM_UP, trouble)) && empty (&soak))
        {
          ferry_store_trim (soak.store);
          used = ferry_store_get_bytes_used (soak.store);
          committed = ferry_store_get_bytes_committed (soak.store);
          if (many)
            run_processes ("operations", name, n, trouble);
          else
            run_operations (&soak, n);
          full = ferry_store_get_bytes_used (soak.store);
        }
      if (soak.what == NULL && empty (&soak))
        {
          ferry_store_trim (soak.store);
          used_after = ferry_store_get_bytes_used (soak.store);
          committed_after = ferry_store_get_bytes_committed (soak.store);
          check (&soak, ferry_store_verify (soak.store, &soak.error), "verify");
        }
    }
  if (soak.what != NULL)
    g_string_append_printf (trouble, "; %s: %s", soak.what, soak.error != NULL ? soak.error->message : "no error");
  if (used_after != used)
    g_string_append_printf (trouble, "; %" G_GINT64_FORMAT " bytes are left", (gint64) (used_after - used));
  if (committed_after > committed + COMMITTED_SLACK)
    g_string_append_printf (trouble, "; %" G_GUINT64_FORMAT " bytes are committed, %" G_GUINT64_FORMAT " were",
                            committed_after, committed);
  ferry_peers_report (trouble->len == 0,
                      "%u operations by %d: of %" G_GUINT64_FORMAT " bytes used %" G_GUINT64_FORMAT
                      " stay, %" G_GUINT64_FORMAT " committed, %.2f s%s",
                      n, many ? PROCESSES : 1, full, used_after, committed_after,
                      (double) (g_get_monotonic_time () - began) / FERRY_PEERS_S, trouble->str);
  end_soak (&soak);
}

static void
test_mixed (gboolean many)
{
  g_autoptr (GString) trouble = g_string_new (NULL);
  g_autofree char *name = g_strdup_printf ("mixed-%d", many);
  guint n = ferry_peers_is_thorough () ? MIXED_THOROUGH : MIXED_DEFAULT / (ferry_peers_is_sanitized () ? 10 : 1);
  gint64 began = g_get_monotonic_time ();
  guint64 committed = 0;
  Soak soak;

  begin_soak (&soak, 200);
  if (open_soak (&soak, name, MIXED_MAX_BYTES))
    {
      if (many)
        run_processes ("mixed", name, n, trouble);
      else
        run_mixed (&soak, 0, n, MIXED_LIVE);
      committed = ferry_store_get_bytes_committed (soak.store);
      if (soak.what == NULL)
        check (&soak, ferry_store_verify (soak.store, &soak.error), "verify");
    }
  if (soak.what != NULL)
    g_string_append_printf (trouble, "; %s: %s", soak.what, soak.error != NULL ? soak.error->message : "no error");
  ferry_peers_report (
      trouble->len == 0,
      "%u values of mixed sizes by %d, half of the memory live: %" G_GUINT64_FORMAT " bytes committed, %.2f s%s", n,
      many ? PROCESSES : 1, committed, (double) (g_get_monotonic_time () - began) / FERRY_PEERS_S, trouble->str);
  end_soak (&soak);
}

int
main (int argc, char **argv)
{
  ferry_peers_setup (argc, argv);
  if (argc == 5)
    return work (argv);
  test_operations (FALSE);
  test_operations (TRUE);
  test_mixed (FALSE);
  test_mixed (TRUE);
  return ferry_peers_finish ();
}
