/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Kills a participant of a store at every numbered step of what it does there. Afterwards the store is as it was before the
 * operation that was under way, or as it is after it; the others go on within a second; nothing leaks. */

#include "ferry-segment-private.h"
#include "kill-sweep.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define AT_ONCE (4)
#define CASE_TIMEOUT (60 * FERRY_PEERS_S)
#define VICTIM_TIMEOUT (20 * FERRY_PEERS_S)
#define NTH_MAX (40)
#define TRIES (3)
#define ROUNDS (6)
#define ROUNDS_THOROUGH (40)
/* Operations of a victim. */
#define N_OPS (160)
#define STORE_BYTES "67108864"
/* A value that has whole spans. */
#define LARGE (200 * 1000)

typedef struct
{
  KillPoint point;
  guint transport;
  guint64 seed;
  gboolean repairs; /* somebody died before */
} Case;

/* Shared with the victim. */
typedef struct
{
  _Atomic guint32 begun; /* operations */
  _Atomic guint32 ended;
  _Atomic gint32 friend_ends;
} Progress;

static const char *const transports[] = { "posix-shm", "memfd" };

/* ---- what is in a store, as text ---- */

static void dump_object (GString *out, FerryStore *store, FerryRef ref, guint depth);

static void
dump_value (GString *out, FerryStore *store, FerryCell cell, const FerryLeaf *leaf, guint depth)
{
  switch (ferry_cell_tag (cell))
    {
    case FERRY_CELL_LEAF:
      g_string_append_printf (out, "%u:", leaf->kind);
      g_string_append_len (out, (const char *) leaf->data, (gssize) leaf->size);
      break;
    case FERRY_CELL_OBJECT:
      dump_object (out, store, ferry_cell_payload (cell), depth + 1);
      break;
    case FERRY_CELL_INT:
      g_string_append_printf (out, "%" G_GINT64_FORMAT, ferry_cell_int (cell));
      break;
    case FERRY_CELL_CONSTANT:
    case FERRY_CELL_STR:
    case FERRY_CELL_BYTES:
    case FERRY_CELL_FLOAT:
    default:
      g_string_append_printf (out, "#%" G_GINT64_MODIFIER "x", cell);
      break;
    }
  g_string_append_c (out, ' ');
}

static void
dump_object (GString *out, FerryStore *store, FerryRef ref, guint depth)
{
  g_autoptr (GError) error = NULL;
  FerryObjectKind kind = ferry_store_object_kind (store, ref);
  FerrySnapshot snapshot = { 0 };

  g_string_append_printf (out, "(%u ", kind);
  if (depth > 8)
    {
      g_string_append (out, "...");
    }
  else if (kind == FERRY_OBJECT_BYTEARRAY)
    {
      char bytes[512];
      gssize n = ferry_store_bytearray_read (store, ref, 0, bytes, sizeof bytes, NULL);

      g_string_append_len (out, bytes, MAX (n, 0));
    }
  else if (kind == FERRY_OBJECT_SLOT)
    {
      g_string_append (out, "slot");
    }
  else if (!ferry_store_snapshot (store, ref, &snapshot, &error))
    {
      g_string_append (out, error->message);
    }
  else
    {
      for (gsize i = 0; i < snapshot.n; i++)
        dump_value (out, store, snapshot.cells[i],
                    (const FerryLeaf *) (const void *) (snapshot.memory
                                                        + (ferry_cell_tag (snapshot.cells[i]) == FERRY_CELL_LEAF
                                                               ? ferry_cell_payload (snapshot.cells[i])
                                                               : 0)),
                    depth);
      ferry_store_snapshot_clear (store, &snapshot);
    }
  g_string_append_c (out, ')');
}

static FerryKey
str_key (const char *text, FerryCell *cell)
{
  gsize size = strlen (text);
  FerryKey key = { .kind = FERRY_LEAF_STR, .flags = 1 | FERRY_LEAF_ASCII, .data = text, .size = size };

  key.hash = ferry_key_hash_data (FERRY_LEAF_STR, text, size);
  if (size <= FERRY_CELL_INLINE_MAX)
    {
      guint64 payload = (guint64) size << 40;

      for (gsize i = 0; i < size; i++)
        payload |= (guint64) (guint8) text[i] << (8 * i);
      key.cell = FERRY_CELL (FERRY_CELL_STR, payload);
    }
  else
    {
      key.cell = FERRY_CELL (FERRY_CELL_LEAF, 0);
    }
  if (cell != NULL)
    *cell = key.cell;
  return key;
}

static const char *const roots[]
    = { "list", "dict", "set", "bytes", "record", "first of the extra names", "second of the extra names" };

static char *
dump (FerryStore *store)
{
  GString *out = g_string_new (NULL);

  for (guint i = 0; i < G_N_ELEMENTS (roots); i++)
    {
      FerryReading reading = FERRY_READING_INIT;
      FerryKey key = str_key (roots[i], NULL);
      g_autoptr (GError) error = NULL;
      int found = ferry_store_root_get (store, &key, &reading, &error);

      g_string_append_printf (out, "%s=", roots[i]);
      if (found > 0)
        {
          dump_value (out, store, reading.cell, reading.leaf, 0);
          if (ferry_cell_tag (reading.cell) == FERRY_CELL_OBJECT)
            ferry_store_unhold (store, ferry_cell_payload (reading.cell));
        }
      else if (found < 0)
        {
          g_string_append (out, error->message);
        }
      g_string_append_c (out, '\n');
      ferry_reading_clear (&reading);
    }
  return g_string_free (out, FALSE);
}

/* ---- operations: the same for the same seed and number ---- */

static FerryRef
held_root (FerryStore *store, const char *name)
{
  FerryReading reading = FERRY_READING_INIT;
  FerryKey key = str_key (name, NULL);
  FerryRef ref = 0;

  if (ferry_store_root_get (store, &key, &reading, NULL) > 0 && ferry_cell_tag (reading.cell) == FERRY_CELL_OBJECT)
    ref = ferry_cell_payload (reading.cell);
  ferry_reading_clear (&reading);
  return ref;
}

static FerryCell
text_cell (FerryStore *store, const char *text)
{
  FerryKey key = str_key (text, NULL);

  if (ferry_cell_tag (key.cell) != FERRY_CELL_LEAF)
    return key.cell;
  return ferry_store_new_leaf (store, FERRY_LEAF_STR, key.flags, key.hash, text, strlen (text), NULL, 0, NULL);
}

static FerryCell
random_value (FerryStore *store, FerryRandom *random)
{
  char text[80];
  FerryCell cells[3];

  switch (ferry_random_below (random, 5))
    {
    case 0:
      return ferry_store_new_int (store, ferry_random_below (random, 1000), NULL);
    case 1:
      g_snprintf (text, sizeof text, "a text that is longer than inline, number %u",
                  (guint) ferry_random_below (random, 1000));
      return text_cell (store, text);
    case 2:
      for (guint i = 0; i < G_N_ELEMENTS (cells); i++)
        cells[i] = text_cell (store, i == 0 ? "another text within a list" : "abc");
      return ferry_store_list_new (store, cells, G_N_ELEMENTS (cells), NULL);
    case 3:
      return ferry_store_new_int (store, G_MAXINT64 - ferry_random_below (random, 1000), NULL);
    default:
      return FERRY_CELL_NONE;
    }
}

static void
one_change (FerryStore *store, FerryRandom *random)
{
  guint what = ferry_random_below (random, 26);
  FerryReading reading = FERRY_READING_INIT;
  FerryRef list = held_root (store, "list");
  FerryRef dict = held_root (store, "dict");
  FerryRef set = held_root (store, "set");
  FerryRef bytes = held_root (store, "bytes");
  FerryRef record = held_root (store, "record");
  gssize length = ferry_store_list_length (store, list);
  FerryCell cells[5];
  guint32 order[256];
  char text[60];
  FerryKey key;
  gboolean read = FALSE;
  guint n = ferry_random_below (random, G_N_ELEMENTS (cells));

  g_snprintf (text, sizeof text, n % 2 ? "k%u" : "the key of number %u", (guint) ferry_random_below (random, 12));
  key = str_key (text, NULL);
  if (!ferry_store_begin (store, NULL))
    return;
  switch (what)
    {
    case 0:
    case 1:
      ferry_store_list_append (store, list, random_value (store, random), NULL);
      break;
    case 2:
      for (guint i = 0; i < n; i++)
        cells[i] = random_value (store, random);
      ferry_store_list_splice (store, list, ferry_random_below (random, (guint) length + 1),
                               ferry_random_below (random, 4), cells, n, NULL);
      break;
    case 3:
      read = ferry_store_list_pop (store, list, n == 0 ? 0 : n == 1 ? -1 : length / 2, &reading, NULL) > 0;
      break;
    case 4:
      cells[0] = random_value (store, random);
      if (ferry_store_list_set (store, list, (gssize) ferry_random_below (random, (guint) length + 1), cells[0], NULL)
          <= 0)
        ferry_store_release_cell (store, cells[0]);
      break;
    case 5:
      for (gssize i = 0; i < MIN (length, (gssize) G_N_ELEMENTS (order)); i++)
        order[i] = (guint32) (length - 1 - i);
      if (length <= (gssize) G_N_ELEMENTS (order))
        ferry_store_list_permute (store, list, ferry_store_object_version (store, list), order, (gsize) length, NULL);
      break;
    case 6:
    case 7:
    case 8:
      ferry_store_dict_set (store, dict, &key, 0, random_value (store, random), FALSE, NULL, NULL);
      break;
    case 9:
      read = ferry_store_dict_remove (store, dict, &key, &reading, NULL) > 0;
      break;
    case 10:
      if (n > 1)
        ferry_store_dict_set (store, set, &key, 0, FERRY_CELL_NONE, FALSE, NULL, NULL);
      else
        ferry_store_dict_remove (store, set, &key, NULL, NULL);
      break;
    case 11:
      ferry_store_bytearray_splice (store, bytes, n, n, text, strlen (text), NULL);
      break;
    case 12:
      cells[0] = random_value (store, random);
      if (ferry_store_record_set (store, record, n % 3, cells[0], NULL) < 0)
        ferry_store_release_cell (store, cells[0]);
      break;
    case 13:
    case 14:
      key = str_key (roots[5 + n % 2], NULL);
      if (n < 3)
        ferry_store_root_set (store, &key, random_value (store, random), NULL);
      else
        read = ferry_store_root_remove (store, &key, &reading, NULL) > 0;
      break;
    case 15:
      ferry_store_list_replace (store, list, 0, FERRY_CELL (FERRY_CELL_INT, n));
      {
        FerryRef other = held_root (store, "friend list");

        ferry_store_list_set (store, other, 0, FERRY_CELL (FERRY_CELL_INT, n), NULL);
        ferry_store_unhold (store, other);
      }
      break;
    case 16:
      cells[0] = FERRY_CELL (FERRY_CELL_INT, 7);
      if (n == 0)
        ferry_store_list_add (store, list, 0, cells[0], NULL, NULL);
      else if (n % 2)
        ferry_store_dict_add (store, dict, &key, cells[0], NULL, NULL);
      else
        ferry_store_record_add (store, record, n % 3, cells[0], NULL, NULL);
      break;
    case 17:
      for (guint i = 0; i < 2; i++)
        cells[i] = random_value (store, random);
      if (ferry_store_list_assign_strided (store, list, 0, 2, 2, cells, NULL) <= 0)
        for (guint i = 0; i < 2; i++)
          ferry_store_release_cell (store, cells[i]);
      break;
    case 18:
      if (n % 2)
        ferry_store_bytearray_splice (store, bytes, (gsize) MAX (ferry_store_bytearray_length (store, bytes), 0), 0,
                                      "xyz", n, NULL);
      else
        ferry_store_bytearray_splice (store, bytes, 0, 1, "q", 1, NULL);
      break;
    case 19:
    case 20:
      {
        g_autofree char *large = g_strnfill (LARGE, 'l');

        ferry_store_dict_set (store, dict, &key, 0,
                              ferry_store_new_leaf (store, FERRY_LEAF_BYTES, 0, 1, large, LARGE, NULL, 0, NULL), FALSE,
                              NULL, NULL);
      }
      break;
    case 21:
      {
        FerryRef extra = ferry_store_record_extra (store, record, FALSE, NULL);

        if (extra == 0)
          extra = ferry_store_record_extra (store, record, TRUE, NULL);
        else
          ferry_store_dict_set (store, extra, &key, 0, random_value (store, random), FALSE, NULL, NULL);
        ferry_store_unhold (store, extra);
      }
      break;
    case 22:
      {
        FerryRef shape = ferry_store_shape (
            store, ferry_store_new_leaf (store, FERRY_LEAF_SHAPE, 0, n, text, strlen (text), NULL, 0, NULL), NULL);

        if (shape != 0)
          ferry_store_unhold (store, shape);
      }
      break;
    case 23:
    case 24:
      {
        /* what the friend takes apart */
        FerryCell many[900];

        for (guint i = 0; i < G_N_ELEMENTS (many); i++)
          many[i] = text_cell (store, "a text for the friend to free");
        key = str_key ("friend", NULL);
        ferry_store_root_set (store, &key, ferry_store_list_new (store, many, G_N_ELEMENTS (many), NULL), NULL);
      }
      break;
    case 25:
    default:
      {
        guint64 ticket = ferry_store_ticket_new (store, list, NULL);

        if (ticket != 0 && ferry_store_ticket_take (store, ticket, NULL) != 0)
          ferry_store_unhold (store, list);
      }
      break;
    }
  ferry_store_end (store);
  if (read)
    {
      if (ferry_cell_tag (reading.cell) == FERRY_CELL_OBJECT)
        ferry_store_unhold (store, ferry_cell_payload (reading.cell));
    }
  ferry_reading_clear (&reading);
  ferry_store_unhold (store, list);
  ferry_store_unhold (store, dict);
  ferry_store_unhold (store, set);
  ferry_store_unhold (store, bytes);
  ferry_store_unhold (store, record);
}

static void
operation (FerryStore *store, guint64 seed, guint number)
{
  FerryRandom random;
  guint what;

  ferry_random_init (&random, seed * 1000003 + number);
  what = ferry_random_below (&random, 12);
  if (what >= 3)
    {
      one_change (store, &random);
      return;
    }
  if (number % 40 == 39)
    {
      ferry_store_collect (store, NULL);
      ferry_store_trim (store);
      return;
    }
  if (!ferry_store_begin_transaction (store, -1, NULL, NULL))
    return;
  one_change (store, &random);
  one_change (store, &random);
  if (what == 1)
    {
      /* an inner one that fails */
      ferry_store_begin_transaction (store, -1, NULL, NULL);
      one_change (store, &random);
      one_change (store, &random);
      ferry_store_roll_back (store, NULL);
      one_change (store, &random);
    }
  if (what == 2)
    ferry_store_roll_back (store, NULL);
  else
    ferry_store_commit (store, NULL);
}

static void
fill (FerryStore *store)
{
  static const char *const names[] = { "list", "dict", "set", "bytes", "record", "friend list" };
  FerryCell fields[] = { FERRY_CELL_NONE, FERRY_CELL_NONE, FERRY_CELL_NONE };
  FerryRef shape;

  if (!ferry_store_begin (store, NULL))
    return;
  shape = ferry_store_shape (store, ferry_store_new_leaf (store, FERRY_LEAF_SHAPE, 0, 1, "shape", 5, NULL, 0, NULL),
                             NULL);
  for (guint i = 0; i < G_N_ELEMENTS (names); i++)
    {
      FerryKey key = str_key (names[i], NULL);
      FerryCell cell = i == 0 || i == 5 ? ferry_store_list_new (store, NULL, 0, NULL)
                       : i == 1         ? ferry_store_dict_new (store, FERRY_OBJECT_DICT, 0, NULL)
                       : i == 2         ? ferry_store_dict_new (store, FERRY_OBJECT_SET, 0, NULL)
                       : i == 3         ? ferry_store_bytearray_new (store, "0123456789", 10, NULL)
                                        : ferry_store_record_new (store, shape, fields, G_N_ELEMENTS (fields), NULL);

      ferry_store_root_set (store, &key, cell, NULL);
    }
  ferry_store_end (store);
  ferry_store_unhold (store, shape);
}

/* ---- a case ---- */

typedef struct
{
  const Case *test;
  const char *description;
  Progress *progress;
  KillOutcome *outcome;
} Context;

static int
victim_cb (gpointer data)
{
  const Context *context = data;
  g_autoptr (GError) error = NULL;
  g_autoptr (FerryStore) store = NULL;

  kill_sweep_arm (&context->test->point, context->outcome);
  store = ferry_store_open (context->description, NULL, &error);
  if (store == NULL)
    {
      g_printerr ("kill-store: victim: %s\n", error->message);
      return EXIT_FAILURE;
    }
  for (guint i = 0; i < N_OPS; i++)
    {
      atomic_store (&context->progress->begun, i + 1);
      operation (store, context->test->seed, i);
      atomic_store (&context->progress->ended, i + 1);
    }
  ferry_store_close (store);
  return EXIT_SUCCESS;
}

/* Frees what the victim makes. */
static int
friend_cb (gpointer data)
{
  const Context *context = data;
  g_autoptr (FerryStore) store = ferry_store_open (context->description, NULL, NULL);
  FerryKey key = str_key ("friend", NULL);

  while (store != NULL && !atomic_load (&context->progress->friend_ends))
    {
      ferry_store_root_remove (store, &key, NULL, NULL);
      g_usleep (200);
    }
  if (store != NULL)
    ferry_store_close (store);
  return EXIT_SUCCESS;
}

/* Dies with things in hand that all have to be undone: the victim finds them. */
static int
mess_cb (gpointer data)
{
  const Context *context = data;
  g_autoptr (FerryStore) store = ferry_store_open (context->description, NULL, NULL);
  FerryRandom random;
  FerryCell cells[2] = { FERRY_CELL_NONE, FERRY_CELL_NONE };

  if (store == NULL)
    return EXIT_FAILURE;
  ferry_random_init (&random, context->test->seed);
  if (context->test->seed % 2)
    {
      ferry_store_begin_transaction (store, -1, NULL, NULL);
      for (guint i = 0; i < 5; i++)
        one_change (store, &random);
    }
  else if (context->test->seed % 8 == 0)
    {
      FerryRef list = held_root (store, "list");

      ferry_store_list_append (store, list, FERRY_CELL_NONE, NULL);
      ferry_store_list_pop (store, list, -1, NULL, NULL);
      ferry_step_arm ("store-heap-locked", 1, SIGKILL);
      ferry_store_begin (store, NULL);
      for (;;)
        ferry_store_new_leaf (store, FERRY_LEAF_BYTES, 0, 1, NULL, LARGE, NULL, 0, NULL);
    }
  else if (context->test->seed % 8 == 4)
    {
      ferry_step_arm ("store-hold-counted", 1, SIGKILL);
      held_root (store, "list");
    }
  else if (context->test->seed % 8 == 2)
    {
      ferry_step_arm ("store-fast-locked", 1, SIGKILL);
      ferry_store_begin_transaction (store, -1, NULL, NULL);
      ferry_store_roll_back (store, NULL);
      ferry_store_list_append (store, held_root (store, "friend list"), FERRY_CELL_NONE, NULL);
      ferry_store_list_replace (store, held_root (store, "friend list"), 0, FERRY_CELL_NONE);
    }
  else
    {
      ferry_step_arm ("store-noted", 1 + (guint) (context->test->seed / 2 % 2), SIGKILL);
      ferry_store_list_splice (store, held_root (store, "list"), 0, 0, cells, G_N_ELEMENTS (cells), NULL);
    }
  raise (SIGKILL);
  return EXIT_FAILURE;
}

static char *
oracle_after (guint64 seed, guint n_operations)
{
  g_autoptr (GError) error = NULL;
  g_autoptr (FerryStore) store = ferry_store_open ("memfd max-bytes=" STORE_BYTES, NULL, &error);

  if (store == NULL)
    return g_strdup (error->message);
  fill (store);
  for (guint i = 0; i < n_operations; i++)
    operation (store, seed, i);
  return dump (store);
}

static void
run_case (gconstpointer data, guint number, gpointer outcome_data)
{
  const Case *test = data;
  KillOutcome *outcome = outcome_data;
  Progress *progress = mmap (NULL, sizeof *progress, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  g_autofree char *description = NULL;
  Context context = { test, NULL, progress, outcome };
  g_autoptr (GString) trouble = g_string_new (NULL);
  g_autoptr (GError) error = NULL;
  g_autoptr (FerryStore) store = NULL;
  g_autofree char *found = NULL;
  g_autofree char *before = NULL;
  g_autofree char *after = NULL;
  guint64 used;
  gint64 started;
  int status;
  pid_t victim;
  pid_t friend;

  ferry_peers_enter (number);
  description = g_strdup_printf ("%s name=kill-store-%u max-bytes=" STORE_BYTES, transports[test->transport], number);
  context.description = description;
  store = ferry_store_open (description, NULL, &error);
  if (store == NULL)
    {
      g_strlcpy (outcome->trouble, error->message, sizeof outcome->trouble);
      return;
    }
  fill (store);
  if (test->repairs)
    {
      victim = ferry_peers_fork (mess_cb, &context);
      if (!ferry_peers_wait (victim, VICTIM_TIMEOUT, &status) || !WIFSIGNALED (status))
        g_string_append_printf (trouble, "; who should have died first: %s", ferry_peers_tell_end (status));
    }

  /* nobody else shall repair what the victim finds */
  friend = test->repairs ? 0 : ferry_peers_fork (friend_cb, &context);
  victim = ferry_peers_fork (victim_cb, &context);
  if (!ferry_peers_wait (victim, VICTIM_TIMEOUT, &status))
    g_string_append (trouble, "; the victim hung");
  else if (WIFSIGNALED (status) && WTERMSIG (status) == SIGKILL && test->point.step != KILL_LOOK)
    outcome->reached = TRUE;
  else if (!ferry_peers_ended_well (status))
    g_string_append_printf (trouble, "; the victim: %s", ferry_peers_tell_end (status));

  atomic_store (&progress->friend_ends, 1);
  {
    int friend_status;

    if (friend != 0
        && (!ferry_peers_wait (friend, VICTIM_TIMEOUT, &friend_status) || !ferry_peers_ended_well (friend_status)))
      g_string_append_printf (trouble, "; the friend: %s", ferry_peers_tell_end (friend_status));
  }

  started = g_get_monotonic_time ();
  /* Something with each object, as if nothing had happened: a transaction that changes nothing. */
  if (!ferry_store_begin_transaction (store, 5 * FERRY_PEERS_S, NULL, &error))
    {
      g_string_append_printf (trouble, "; %s", error->message);
      g_clear_error (&error);
    }
  else
    {
      FerryRandom random;

      ferry_random_init (&random, test->seed);
      for (guint i = 0; i < 10; i++)
        one_change (store, &random);
      ferry_store_roll_back (store, NULL);
    }
  outcome->prompt = g_get_monotonic_time () - started;
  if (outcome->prompt > KILL_PROMPT)
    g_string_append_printf (trouble, "; the others went on after %.2f s only",
                            (double) outcome->prompt / FERRY_PEERS_S);

  found = dump (store);
  before = oracle_after (test->seed, atomic_load (&progress->ended));
  if (strcmp (found, before) != 0)
    {
      after = oracle_after (test->seed, atomic_load (&progress->begun));
      if (strcmp (found, after) != 0)
        g_string_append_printf (
            trouble, "; after %u operations and a part of another the store has\n%.400s\nnot\n%.400s\nnor\n%.400s",
            atomic_load (&progress->ended), found, before, after);
    }
  if (!ferry_store_collect (store, &error) || !ferry_store_verify (store, &error))
    {
      g_string_append_printf (trouble, "; %s", error->message);
      g_clear_error (&error);
    }
  used = ferry_store_get_bytes_used (store);
  ferry_store_collect (store, NULL);
  if (ferry_store_get_bytes_used (store) != used)
    g_string_append_printf (
        trouble, "; a second collection finds something: %" G_GUINT64_FORMAT " bytes, then %" G_GUINT64_FORMAT, used,
        ferry_store_get_bytes_used (store));
  ferry_store_close (store);
  g_strlcpy (outcome->trouble, trouble->str, sizeof outcome->trouble);
}

static char *
describe (gconstpointer data)
{
  const Case *test = data;

  return g_strdup_printf ("%s, victim %s, at %s (passing %u), seed %" G_GUINT64_FORMAT, transports[test->transport],
                          test->repairs ? "repairs" : "works", kill_sweep_step_name (&test->point), test->point.nth,
                          test->seed);
}

static guint
rounds (gconstpointer data, const char *step, guint count)
{
  const Case *look = data;

  if (count == 0
      || (look->repairs && !g_str_has_prefix (step, "store-repair") && !g_str_has_prefix (step, "store-heap-lock")
          && strcmp (step, "store-stale-found") != 0 && strcmp (step, "store-collect-counted") != 0
          && strcmp (step, "store-heap-adopted") != 0))
    return 0;
  return ferry_peers_is_thorough () ? ROUNDS_THOROUGH : ROUNDS;
}

int
main (int argc, char **argv)
{
  g_autoptr (GArray) looks = g_array_new (FALSE, TRUE, sizeof (Case));
  FerryRandom random;

  ferry_peers_setup (argc, argv);
  kill_sweep_list_steps (TRUE);
  ferry_random_init (&random, ferry_peers_seed ());

  for (guint transport = 0; transport < G_N_ELEMENTS (transports); transport++)
    for (guint repairs = 0; repairs < 2; repairs++)
      for (guint seed = 0; seed < 8; seed += repairs ? 1 : 4)
        {
          /* the last digit says how somebody died before, see mess_cb() */
          Case look = { .point.step = KILL_LOOK,
                        .transport = transport,
                        .seed = ferry_random_below (&random, 100000) * 8 + seed,
                        .repairs = repairs };

          g_array_append_val (looks, look);
        }
  kill_sweep_run (&(KillSweep){ .looks = looks,
                                .case_size = sizeof (Case),
                                .at_once = AT_ONCE,
                                .timeout = CASE_TIMEOUT,
                                .nth_max = NTH_MAX,
                                .tries = TRIES,
                                .random = &random,
                                .run = run_case,
                                .describe = describe,
                                .rounds = rounds });
  return ferry_peers_finish ();
}
