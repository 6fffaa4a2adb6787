/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Random operations on the containers of a store beside plain ones of GLib, which must always be equal. */

#include "ferry-test.h"

#include <math.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define ROUNDS (ferry_test_is_thorough () ? 200000 : ferry_test_is_valgrind () ? 1500 : 20000)
#define TURNS (ferry_test_is_thorough () ? 500000 : ferry_test_is_valgrind () ? 300 : 30000)
#define MAX_ELEMENTS (400)
#define N_KEYS (300)
#define N_FIELDS (5)
#define DESCRIPTION "memfd max-bytes=67108864"

static FerryStore *store;
static guint64 seed;

static void
setup (void)
{
  g_autoptr (GError) error = NULL;

  store = ferry_store_open (DESCRIPTION, NULL, &error);
  ferry_assert_no_error (error);
  seed = 1;
}

static void
teardown (void)
{
  g_autoptr (GError) error = NULL;

  if (store != NULL)
    {
      ck_assert (ferry_store_verify (store, &error));
      ferry_assert_no_error (error);
      g_clear_object (&store);
    }
}

/* xorshift64* (Vigna): the same numbers everywhere. */
static guint64
draw (guint64 below)
{
  seed ^= seed >> 12;
  seed ^= seed << 25;
  seed ^= seed >> 27;
  return (seed * G_GUINT64_CONSTANT (2685821657736338717) >> 16) % below;
}

/* ---- values, in the model as text: its first character says what it is ---- */

static void
work (void)
{
  g_autoptr (GError) error = NULL;

  ck_assert (ferry_store_begin (store, &error));
  ferry_assert_no_error (error);
}

static FerryCell
float_cell (double value)
{
  FerryCell cell;

  memcpy (&cell, &value, sizeof cell);
  return cell;
}

static FerryKey
int_key (gint64 value)
{
  return (FerryKey){ FERRY_CELL (FERRY_CELL_INT, value), ferry_key_hash_int (value) };
}

static FerryKey
float_key (double value)
{
  return (FerryKey){ float_cell (value), ferry_key_hash_float (value) };
}

static FerryKey
str_key (const char *value)
{
  gsize n = strlen (value);
  FerryKey key = { FERRY_CELL (FERRY_CELL_LEAF, 0),
                   ferry_key_hash_data (FERRY_LEAF_STR, value, n),
                   FERRY_LEAF_STR,
                   1 | FERRY_LEAF_ASCII,
                   value,
                   n };

  if (n <= FERRY_CELL_INLINE_MAX)
    {
      guint64 payload = (guint64) n << 40;

      for (gsize i = 0; i < n; i++)
        payload |= (guint64) (guint8) value[i] << (8 * i);
      key.cell = FERRY_CELL (FERRY_CELL_STR, payload);
    }
  return key;
}

static FerryKey
text_key (const char *text)
{
  switch (text[0])
    {
    case 'i':
      return int_key (g_ascii_strtoll (text + 1, NULL, 10));
    case 'f':
      return float_key (g_ascii_strtod (text + 1, NULL));
    default:
      return str_key (text + 1);
    }
}

/* In a stretch of work. */
static FerryCell
text_cell (const char *text)
{
  g_autoptr (GError) error = NULL;
  FerryCell cell;
  FerryKey key;

  switch (text[0])
    {
    case 'i':
      cell = ferry_store_new_int (store, g_ascii_strtoll (text + 1, NULL, 10), &error);
      break;
    case 'f':
      cell = ferry_store_new_float (store, g_ascii_strtod (text + 1, NULL), &error);
      break;
    case 'o':
      cell = FERRY_CELL (FERRY_CELL_INT, g_ascii_strtoll (text + 1, NULL, 10));
      cell = ferry_store_list_new (store, &cell, 1, &error);
      break;
    default:
      key = str_key (text + 1);
      cell = key.cell;
      if (ferry_cell_tag (cell) == FERRY_CELL_LEAF)
        cell = ferry_store_new_leaf (store, FERRY_LEAF_STR, key.flags, key.hash, key.data, key.size, NULL, 0, &error);
      break;
    }
  ferry_assert_no_error (error);
  return cell;
}

static char *
object_text (FerryRef ref)
{
  g_autoptr (GError) error = NULL;
  FerryReading reading = FERRY_READING_INIT;

  ck_assert_int_eq (ferry_store_list_get (store, ref, 0, &reading, &error), 1);
  return g_strdup_printf ("o%" G_GINT64_FORMAT, ferry_cell_int (reading.cell));
}

static char *
cell_text (FerryCell cell, const FerryLeaf *leaf)
{
  char characters[FERRY_CELL_INLINE_MAX];
  char number[G_ASCII_DTOSTR_BUF_SIZE];
  double value;
  gint64 integer = 0;

  switch (ferry_cell_tag (cell))
    {
    case FERRY_CELL_INT:
      return g_strdup_printf ("i%" G_GINT64_FORMAT, ferry_cell_int (cell));
    case FERRY_CELL_FLOAT:
      memcpy (&value, &cell, sizeof value);
      return g_strdup_printf ("f%s", g_ascii_dtostr (number, sizeof number, value));
    case FERRY_CELL_STR:
      for (guint i = 0; i < sizeof characters; i++)
        characters[i] = (char) (cell >> (8 * i));
      return g_strdup_printf ("s%.*s", (int) (ferry_cell_payload (cell) >> 40), characters);
    case FERRY_CELL_LEAF:
      if (leaf->kind == FERRY_LEAF_INT)
        {
          integer = leaf->data[leaf->size - 1] & 0x80 ? -1 : 0;
          memcpy (&integer, leaf->data, leaf->size);
          return g_strdup_printf ("i%" G_GINT64_FORMAT, integer);
        }
      ck_assert_int_eq (leaf->kind, FERRY_LEAF_STR);
      return g_strdup_printf ("s%.*s", (int) leaf->size, (const char *) leaf->data);
    case FERRY_CELL_OBJECT:
      return object_text (ferry_cell_payload (cell));
    default:
      return g_strdup_printf ("constant %d", (int) ferry_cell_payload (cell));
    }
}

/* Gives back what it holds. */
static char *
reading_text (FerryReading *reading)
{
  char *text = cell_text (reading->cell, reading->leaf);

  if (ferry_cell_tag (reading->cell) == FERRY_CELL_OBJECT)
    ferry_store_unhold (store, ferry_cell_payload (reading->cell));
  return text;
}

static void
assert_reading (FerryReading *reading, const char *text)
{
  g_autofree char *read = reading_text (reading);

  ck_assert_str_eq (read, text);
}

static char *
random_text (void)
{
  gint64 number = (gint64) draw (100000) - 50000;

  switch (draw (6))
    {
    case 0:
      return g_strdup_printf ("i%" G_GINT64_FORMAT, number * G_GINT64_CONSTANT (70000000000));
    case 1:
      return g_strdup_printf ("f%" G_GINT64_FORMAT ".5", number);
    case 2:
      return g_strdup_printf ("s%d", (int) draw (9999));
    case 3:
      return g_strdup_printf ("s%0*d", 6 + (int) draw (draw (20) == 0 ? 6000 : 100), (int) draw (9999));
    case 4:
      return g_strdup_printf ("o%" G_GINT64_FORMAT, number);
    default:
      return g_strdup_printf ("i%" G_GINT64_FORMAT, number);
    }
}

static FerryRef
new_held (FerryCell cell)
{
  g_autoptr (GError) error = NULL;

  ck_assert_int_eq (ferry_cell_tag (cell), FERRY_CELL_OBJECT);
  ck_assert (ferry_store_hold (store, ferry_cell_payload (cell), &error));
  ferry_store_release_cell (store, cell);
  return ferry_cell_payload (cell);
}

static GPtrArray *
copy_texts (GPtrArray *texts)
{
  GPtrArray *copy = g_ptr_array_new_with_free_func (g_free);

  for (guint i = 0; i < texts->len; i++)
    g_ptr_array_add (copy, g_strdup (texts->pdata[i]));
  return copy;
}

/* All cells of an object, as it is at one instant. */
static void
assert_snapshot (FerryRef ref, GPtrArray *texts)
{
  g_autoptr (GError) error = NULL;
  FerrySnapshot snapshot = { 0 };

  ck_assert (ferry_store_snapshot (store, ref, &snapshot, &error));
  ferry_assert_no_error (error);
  ck_assert_uint_eq (snapshot.n, texts->len);
  for (guint i = 0; i < texts->len; i++)
    {
      g_autofree char *text = cell_text (
          snapshot.cells[i], ferry_cell_tag (snapshot.cells[i]) == FERRY_CELL_LEAF
                                 ? (const FerryLeaf *) (snapshot.memory + ferry_cell_payload (snapshot.cells[i]))
                                 : NULL);

      ck_assert_str_eq (text, texts->pdata[i]);
    }
  ferry_store_snapshot_clear (store, &snapshot);
}

/* Starts, commits or rolls back transactions now and then; *saved is what the model was when one began. */
static void
maybe_transaction (GPtrArray **model, GPtrArray **saved)
{
  g_autoptr (GError) error = NULL;

  if (*saved == NULL && draw (40) == 0)
    {
      ck_assert (ferry_store_begin_transaction (store, -1, NULL, &error));
      *saved = copy_texts (*model);
    }
  else if (*saved != NULL && draw (15) == 0)
    {
      if (draw (2))
        {
          ck_assert (ferry_store_commit (store, &error));
          g_clear_pointer (saved, g_ptr_array_unref);
        }
      else
        {
          ck_assert (ferry_store_roll_back (store, &error));
          g_ptr_array_unref (*model);
          *model = g_steal_pointer (saved);
        }
    }
  ferry_assert_no_error (error);
}

/* ---- lists ---- */

static void
list_operation (FerryRef list, GPtrArray *model)
{
  g_autoptr (GError) error = NULL;
  FerryReading reading = FERRY_READING_INIT;
  FerryCell cells[40];
  gssize index = (gssize) draw (model->len + 4) - 2;
  gboolean there;
  guint position;
  guint n;

  there = index < 0 ? (guint) -index <= model->len : (guint) index < model->len;
  position = (guint) (index < 0 ? index + (gssize) model->len : index);
  work ();
  switch (draw (model->len > MAX_ELEMENTS ? 9 : 13))
    {
    case 0:
      {
        g_autofree char *text = random_text ();
        FerryCell cell = text_cell (text);
        int set = ferry_store_list_set (store, list, index, cell, &error);

        ck_assert_int_eq (set, there);
        if (set == 1)
          {
            g_free (model->pdata[position]);
            model->pdata[position] = g_steal_pointer (&text);
          }
        else
          {
            ferry_store_release_cell (store, cell);
          }
      }
      break;
    case 1:
    case 2:
      ck_assert_int_eq (ferry_store_list_pop (store, list, index, &reading, &error), there);
      if (there)
        {
          assert_reading (&reading, model->pdata[position]);
          g_ptr_array_remove_index (model, position);
        }
      break;
    case 3: /* the ends */
      index = draw (2) ? 0 : -1;
      n = (guint) draw (30);
      for (guint i = 0; i < n && model->len > 0; i++)
        {
          ck_assert_int_eq (ferry_store_list_pop (store, list, index, &reading, &error), 1);
          position = index == 0 ? 0 : model->len - 1;
          assert_reading (&reading, model->pdata[position]);
          g_ptr_array_remove_index (model, position);
        }
      break;
    case 4:
      {
        guint start = (guint) draw (model->len + 1);
        guint n_removed = (guint) draw (draw (6) == 0 ? model->len + 1 : 5);
        guint n_left = MIN (n_removed, model->len - start);

        n = draw (3) == 0 ? (guint) draw (G_N_ELEMENTS (cells)) : (guint) draw (3);
        for (guint i = 0; i < n_left; i++)
          g_ptr_array_remove_index (model, start);
        for (guint i = 0; i < n; i++)
          {
            char *text = random_text ();

            cells[i] = text_cell (text);
            g_ptr_array_insert (model, (int) (start + i), text);
          }
        ck_assert (ferry_store_list_splice (store, list, start, n_removed, cells, n, &error));
      }
      break;
    case 5: /* every other, and so on */
      {
        gssize step = (gssize) draw (4) + 1;
        gssize start = index;
        gboolean fits;

        n = (guint) draw (G_N_ELEMENTS (cells));
        if (draw (2))
          step = -step;
        fits = n == 0
               || (start >= 0 && start < (gssize) model->len && start + (gssize) (n - 1) * step >= 0
                   && start + (gssize) (n - 1) * step < (gssize) model->len);
        if (draw (3) == 0)
          {
            ck_assert_int_eq (ferry_store_list_assign_strided (store, list, start, step, n, NULL, &error), fits);
            for (guint i = 0; fits && i < n; i++)
              {
                guint at = (guint) (start + (gssize) i * step);

                g_free (model->pdata[at]);
                model->pdata[at] = NULL;
              }
            for (guint i = model->len; i-- > 0;)
              if (model->pdata[i] == NULL)
                g_ptr_array_remove_index (model, i);
          }
        else
          {
            char *texts[G_N_ELEMENTS (cells)];

            for (guint i = 0; i < n; i++)
              {
                texts[i] = random_text ();
                cells[i] = text_cell (texts[i]);
              }
            ck_assert_int_eq (ferry_store_list_assign_strided (store, list, start, step, n, cells, &error), fits);
            for (guint i = 0; i < n; i++)
              if (fits)
                {
                  g_free (model->pdata[start + (gssize) i * step]);
                  model->pdata[start + (gssize) i * step] = texts[i];
                }
              else
                {
                  ferry_store_release_cell (store, cells[i]);
                  g_free (texts[i]);
                }
          }
      }
      break;
    case 6:
      {
        g_autofree guint32 *order = g_new (guint32, model->len + 1);
        g_autofree gpointer *old = g_memdup2 (model->pdata, model->len * sizeof (gpointer));

        for (guint i = 0; i < model->len; i++)
          order[i] = i;
        for (guint i = model->len; i > 1; i--)
          {
            guint j = (guint) draw (i);
            guint32 swap = order[i - 1];

            order[i - 1] = order[j];
            order[j] = swap;
          }
        ck_assert_int_eq (ferry_store_list_permute (store, list, ferry_store_object_version (store, list) + 1, order,
                                                    model->len, &error),
                          0);
        ck_assert_int_eq (
            ferry_store_list_permute (store, list, ferry_store_object_version (store, list), order, model->len, &error),
            1);
        for (guint i = 0; i < model->len; i++)
          model->pdata[i] = old[order[i]];
      }
      break;
    case 7:
      if (there && ((char *) model->pdata[position])[0] == 'i')
        {
          gint64 sum = g_ascii_strtoll ((char *) model->pdata[position] + 1, NULL, 10) + 1000;

          ck_assert_int_eq (
              ferry_store_list_add (store, list, index, FERRY_CELL (FERRY_CELL_INT, 1000), &reading, &error), 1);
          g_free (model->pdata[position]);
          model->pdata[position] = g_strdup_printf ("i%" G_GINT64_FORMAT, sum);
          assert_reading (&reading, model->pdata[position]);
        }
      else if (there && ((char *) model->pdata[position])[0] == 's')
        {
          ck_assert_int_eq (ferry_store_list_add (store, list, index, FERRY_CELL (FERRY_CELL_INT, 1), NULL, &error),
                            -1);
          ferry_assert_error (error, FERRY_ERROR, FERRY_ERROR_UNSUPPORTED);
          g_clear_error (&error);
        }
      break;
    case 8:
      ck_assert_int_eq (ferry_store_list_get (store, list, index, &reading, &error), there);
      if (there)
        assert_reading (&reading, model->pdata[position]);
      break;
    default:
      {
        char *text = random_text ();

        ck_assert (ferry_store_list_append (store, list, text_cell (text), &error));
        g_ptr_array_add (model, text);
      }
      break;
    }
  ferry_store_end (store);
  ferry_assert_no_error (error);
  ferry_reading_clear (&reading);
}

static void
list_rounds (void)
{
  g_autoptr (GError) error = NULL;
  GPtrArray *model = g_ptr_array_new_with_free_func (g_free);
  GPtrArray *saved = NULL;
  FerryRef list;

  work ();
  list = new_held (ferry_store_list_new (store, NULL, 0, &error));
  ferry_store_end (store);
  for (int i = 0; i < ROUNDS; i++)
    {
      maybe_transaction (&model, &saved);
      list_operation (list, model);
      ck_assert_int_eq (ferry_store_list_length (store, list), (int) model->len);
      if (i % 50 == 0)
        assert_snapshot (list, model);
    }
  if (saved != NULL)
    {
      ck_assert (ferry_store_commit (store, &error));
      g_ptr_array_unref (saved);
    }
  assert_snapshot (list, model);
  ck_assert (ferry_store_verify (store, &error));
  ferry_assert_no_error (error);
  g_ptr_array_unref (model);
  ferry_store_unhold (store, list);
}

/* The second time everything that is kept for later is there: it may take nothing. */
static void
assert_returns_memory (void (*rounds) (void))
{
  guint64 used;

  rounds ();
  ferry_store_trim (store);
  used = ferry_store_get_bytes_used (store);
  seed = 1;
  rounds ();
  ck_assert_uint_eq (ferry_store_get_bytes_used (store), used);
}

START_TEST (test_list) { assert_returns_memory (list_rounds); }
END_TEST

/* A list as a queue stays as small as it is. */
START_TEST (test_list_queue)
{
  g_autoptr (GError) error = NULL;
  FerryReading reading = FERRY_READING_INIT;
  guint64 used = 0;
  FerryRef list;

  work ();
  list = new_held (ferry_store_list_new (store, NULL, 0, &error));
  ferry_store_end (store);
  for (int i = 0; i < 100; i++)
    ck_assert (ferry_store_list_append (store, list, FERRY_CELL (FERRY_CELL_INT, i), &error));
  for (int i = 0; i < TURNS; i++)
    {
      ck_assert_int_eq (ferry_store_list_pop (store, list, 0, &reading, &error), 1);
      ck_assert_int_eq (ferry_cell_int (reading.cell), i);
      ck_assert (ferry_store_list_append (store, list, FERRY_CELL (FERRY_CELL_INT, i + 100), &error));
      if (i == 500)
        used = ferry_store_get_bytes_used (store);
      if (i > 500)
        ck_assert_uint_le (ferry_store_get_bytes_used (store), used + 2048);
    }
  ferry_store_unhold (store, list);
}
END_TEST

START_TEST (test_list_arguments)
{
  g_autoptr (GError) error = NULL;
  FerryReading reading = FERRY_READING_INIT;
  FerryCell cells[3] = { FERRY_CELL_NONE, FERRY_CELL_NONE, FERRY_CELL_NONE };
  const guint32 twice[] = { 0, 0, 1 };
  const guint32 large[] = { 0, 1, 3 };
  FerryRef list;
  FerryRef dict;

  work ();
  list = new_held (ferry_store_list_new (store, cells, 3, &error));
  dict = new_held (ferry_store_dict_new (store, FERRY_OBJECT_DICT, 0, &error));
  ferry_store_end (store);
  ck_assert_int_eq (ferry_store_list_get (store, list, G_MAXSSIZE, &reading, &error), 0);
  ck_assert_int_eq (ferry_store_list_get (store, list, G_MINSSIZE, &reading, &error), 0);
  ck_assert_int_eq (ferry_store_list_assign_strided (store, list, 0, G_MAXSSIZE, 2, cells, &error), 0);
  ck_assert_int_eq (ferry_store_list_assign_strided (store, list, 0, G_MINSSIZE, 2, cells, &error), 0);
  ck_assert_int_eq (ferry_store_list_assign_strided (store, list, 0, 1, 4, cells, &error), 0);
  ferry_assert_no_error (error);
  ck_assert_int_eq (ferry_store_list_assign_strided (store, list, 0, 0, 1, cells, &error), -1);
  ferry_assert_error (error, FERRY_ERROR, FERRY_ERROR_INVALID_ARGUMENT);
  g_clear_error (&error);
  ck_assert_int_eq (ferry_store_list_permute (store, list, ferry_store_object_version (store, list), twice, 3, &error),
                    -1);
  ferry_assert_error (error, FERRY_ERROR, FERRY_ERROR_INVALID_ARGUMENT);
  g_clear_error (&error);
  ck_assert_int_eq (ferry_store_list_permute (store, list, ferry_store_object_version (store, list), large, 3, &error),
                    -1);
  ferry_assert_error (error, FERRY_ERROR, FERRY_ERROR_INVALID_ARGUMENT);
  g_clear_error (&error);
  ck_assert_int_eq (ferry_store_list_get (store, dict, 0, &reading, &error), -1);
  ferry_assert_error (error, FERRY_ERROR, FERRY_ERROR_CORRUPT);
  g_clear_error (&error);
  ck_assert_int_eq (ferry_store_list_get (store, 12345, 0, &reading, &error), -1);
  ferry_assert_error (error, FERRY_ERROR, FERRY_ERROR_CORRUPT);
  ferry_store_unhold (store, list);
  ferry_store_unhold (store, dict);
}
END_TEST

/* ---- dicts and sets. The model has keys and values in turn ---- */

static guint width; /* 2, or 1 for sets */
static FerryObjectKind kind;

static guint
model_find (GPtrArray *model, const char *key)
{
  for (guint i = 0; i < model->len; i += width)
    if (strcmp (model->pdata[i], key) == 0)
      return i;
  return G_MAXUINT;
}

static char *
random_key (void)
{
  guint n = (guint) draw (N_KEYS);

  switch (n % 4)
    {
    case 0:
      return g_strdup_printf ("i%u", n);
    case 1:
      return g_strdup_printf ("f%u.25", n);
    case 2:
      return g_strdup_printf ("s%u", n);
    default:
      return g_strdup_printf ("s%u characters", n);
    }
}

static void
dict_operation (FerryRef dict, GPtrArray *model)
{
  g_autoptr (GError) error = NULL;
  FerryReading reading = FERRY_READING_INIT;
  FerryReading value = FERRY_READING_INIT;
  g_autofree char *text = random_key ();
  FerryKey key = text_key (text);
  guint at = model_find (model, text);
  gboolean there = at != G_MAXUINT;

  work ();
  switch (draw (12))
    {
    case 0:
    case 1:
      ck_assert_int_eq (ferry_store_dict_remove (store, dict, &key, &reading, &error), there);
      if (there)
        {
          if (width > 1)
            assert_reading (&reading, model->pdata[at + 1]);
          g_ptr_array_remove_range (model, at, width);
        }
      break;
    case 2:
      ck_assert_int_eq (ferry_store_dict_get (store, dict, &key, &reading, &error), there);
      if (there && width > 1)
        assert_reading (&reading, model->pdata[at + 1]);
      break;
    case 3:
      {
        gboolean last = draw (2) != 0;
        guint n = (guint) draw (40) == 0 ? model->len : (guint) draw (4);

        for (guint i = 0; i < n; i++)
          {
            ck_assert_int_eq (ferry_store_dict_pop (store, dict, last, &reading, &value, &error), model->len > 0);
            if (model->len == 0)
              break;
            at = last ? model->len - width : 0;
            assert_reading (&reading, model->pdata[at]);
            if (width > 1)
              assert_reading (&value, model->pdata[at + 1]);
            g_ptr_array_remove_range (model, at, width);
          }
      }
      break;
    case 4:
      if (draw (20) == 0)
        {
          ck_assert (ferry_store_dict_clear (store, dict, &error));
          g_ptr_array_set_size (model, 0);
        }
      break;
    case 5:
      if (draw (10) == 0)
        {
          guint64 version = ferry_store_object_version (store, dict);
          g_autofree FerryCell *cells = NULL;
          g_autofree guint32 *hashes = NULL;
          guint n = (guint) draw (60);

          g_ptr_array_set_size (model, 0);
          for (guint i = 0; i < n; i++)
            {
              char *new_key = random_key ();

              if (model_find (model, new_key) != G_MAXUINT)
                {
                  g_free (new_key);
                  continue;
                }
              g_ptr_array_add (model, new_key);
              if (width > 1)
                g_ptr_array_add (model, random_text ());
            }
          cells = g_new (FerryCell, model->len + 1);
          hashes = g_new (guint32, model->len + 1);
          for (guint i = 0; i < model->len; i++)
            {
              cells[i] = text_cell (model->pdata[i]);
              if (i % width == 0)
                hashes[i / width] = text_key (model->pdata[i]).hash;
            }
          ck_assert_int_eq (
              ferry_store_dict_assign (store, dict, version + 1, cells, hashes, model->len / width, &error), 0);
          ck_assert_int_eq (ferry_store_dict_assign (store, dict, version, cells, hashes, model->len / width, &error),
                            1);
        }
      break;
    case 6:
      if (there && width > 1 && ((char *) model->pdata[at + 1])[0] == 'i')
        {
          gint64 sum = g_ascii_strtoll ((char *) model->pdata[at + 1] + 1, NULL, 10) - 7;

          ck_assert_int_eq (ferry_store_dict_add (store, dict, &key, FERRY_CELL (FERRY_CELL_INT, -7), &reading, &error),
                            1);
          g_free (model->pdata[at + 1]);
          model->pdata[at + 1] = g_strdup_printf ("i%" G_GINT64_FORMAT, sum);
          assert_reading (&reading, model->pdata[at + 1]);
        }
      break;
    case 7:
      {
        g_autofree char *other = random_text ();

        if (width == 1)
          break;
        ck_assert_int_eq (ferry_store_dict_set (store, dict, &key, 0, text_cell (other), TRUE, &reading, &error),
                          there);
        if (there)
          {
            assert_reading (&reading, model->pdata[at + 1]);
          }
        else
          {
            g_ptr_array_add (model, g_strdup (text));
            g_ptr_array_add (model, g_strdup (other));
          }
      }
      break;
    default:
      {
        char *other = random_text ();

        ck_assert_int_eq (ferry_store_dict_set (store, dict, &key, draw (2) ? text_cell (text) : 0,
                                                width > 1 ? text_cell (other) : FERRY_CELL_NONE, FALSE, NULL, &error),
                          there);
        if (!there)
          g_ptr_array_add (model, g_strdup (text));
        if (width > 1 && there)
          {
            g_free (model->pdata[at + 1]);
            model->pdata[at + 1] = g_steal_pointer (&other);
          }
        else if (width > 1)
          {
            g_ptr_array_add (model, g_steal_pointer (&other));
          }
        g_free (other);
      }
      break;
    }
  ferry_store_end (store);
  ferry_assert_no_error (error);
  ferry_reading_clear (&reading);
  ferry_reading_clear (&value);
}

static void
assert_walk (FerryRef dict, GPtrArray *model, gboolean backwards)
{
  g_autoptr (GError) error = NULL;
  FerryReading key = FERRY_READING_INIT;
  FerryReading value = FERRY_READING_INIT;
  guint64 position = backwards ? G_MAXUINT64 : 0;
  guint n = model->len / width;

  for (guint i = 0; i < n; i++)
    {
      guint at = (backwards ? n - 1 - i : i) * width;

      ck_assert_int_eq (ferry_store_dict_next (store, dict, &position, backwards, &key, &value, &error), 1);
      assert_reading (&key, model->pdata[at]);
      if (width > 1)
        assert_reading (&value, model->pdata[at + 1]);
    }
  ck_assert_int_eq (ferry_store_dict_next (store, dict, &position, backwards, &key, &value, &error), 0);
  ferry_assert_no_error (error);
  ferry_reading_clear (&key);
  ferry_reading_clear (&value);
}

static void
dict_rounds (void)
{
  g_autoptr (GError) error = NULL;
  GPtrArray *model = g_ptr_array_new_with_free_func (g_free);
  GPtrArray *saved = NULL;
  FerryRef dict;

  work ();
  dict = new_held (ferry_store_dict_new (store, kind, 0, &error));
  ferry_store_end (store);
  for (int i = 0; i < ROUNDS; i++)
    {
      maybe_transaction (&model, &saved);
      dict_operation (dict, model);
      ck_assert_int_eq (ferry_store_dict_length (store, dict), (int) (model->len / width));
      if (i % 50 == 0)
        {
          assert_snapshot (dict, model);
          assert_walk (dict, model, FALSE);
          assert_walk (dict, model, TRUE);
        }
    }
  if (saved != NULL)
    {
      ck_assert (ferry_store_commit (store, &error));
      g_ptr_array_unref (saved);
    }
  assert_snapshot (dict, model);
  ck_assert (ferry_store_verify (store, &error));
  ferry_assert_no_error (error);
  g_ptr_array_unref (model);
  ferry_store_unhold (store, dict);
}

START_TEST (test_dict)
{
  width = 2;
  kind = FERRY_OBJECT_DICT;
  assert_returns_memory (dict_rounds);
}
END_TEST

START_TEST (test_set)
{
  width = 1;
  kind = FERRY_OBJECT_SET;
  assert_returns_memory (dict_rounds);
}
END_TEST

/* Taking from either end of a large one doesn't walk over what was taken before; its memory shrinks with it. */
START_TEST (test_dict_ends)
{
  g_autoptr (GError) error = NULL;
  guint n = ferry_test_is_valgrind () ? 3000 : 200000;
  guint64 before;
  guint64 full;
  FerryRef dict;

  work ();
  dict = new_held (ferry_store_dict_new (store, FERRY_OBJECT_DICT, 0, &error));
  ferry_store_end (store);
  before = ferry_store_get_bytes_used (store);
  for (int last = 0; last < 2; last++)
    {
      for (guint i = 0; i < n; i++)
        {
          FerryKey key = int_key (i);

          ck_assert_int_eq (ferry_store_dict_set (store, dict, &key, 0, float_cell (i), FALSE, NULL, &error), 0);
        }
      full = ferry_store_get_bytes_used (store) - before;
      ck_assert_uint_le (full, (guint64) n * 64);
      for (guint i = 0; i < n; i++)
        {
          FerryReading key = FERRY_READING_INIT;

          ck_assert_int_eq (ferry_store_dict_pop (store, dict, last, &key, NULL, &error), 1);
          ck_assert_int_eq (ferry_cell_int (key.cell), last ? n - 1 - i : i);
          if (i == n - n / 16)
            ck_assert_uint_le (ferry_store_get_bytes_used (store) - before, full / 4);
        }
      ck_assert_int_eq (ferry_store_dict_length (store, dict), 0);
      ck_assert_uint_eq (ferry_store_get_bytes_used (store), before);
    }
  ferry_store_unhold (store, dict);
}
END_TEST

static guint n_asked;

/* Of keys whose text is that of a number: what such a key means in the language that stores it. */
static int
equal_cb (const FerryKey *key, const FerryReading *candidate)
{
  double a = g_ascii_strtod (key->user_data, NULL);
  double b;

  n_asked++;
  if (ferry_cell_tag (candidate->cell) == FERRY_CELL_LEAF && candidate->leaf->kind == FERRY_LEAF_CODEC)
    {
      g_autofree char *text = g_strndup ((const char *) candidate->leaf->data, candidate->leaf->size);

      if (strcmp (text, "error") == 0)
        return -1;
      b = g_ascii_strtod (text, NULL);
    }
  else if (ferry_cell_tag (candidate->cell) == FERRY_CELL_INT)
    {
      b = (double) ferry_cell_int (candidate->cell);
    }
  else
    {
      memcpy (&b, &candidate->cell, sizeof b);
    }
  return a == b;
}

static FerryKey
number_key (const char *text)
{
  return (FerryKey){ FERRY_CELL (FERRY_CELL_LEAF, 0),
                     ferry_key_hash_int ((gint64) g_ascii_strtod (text, NULL)),
                     FERRY_LEAF_CODEC,
                     0,
                     text,
                     strlen (text),
                     equal_cb,
                     (gpointer) text };
}

START_TEST (test_numeric_keys)
{
  g_autoptr (GError) error = NULL;
  FerryReading reading = FERRY_READING_INIT;
  FerryKey keys[] = { int_key (1), float_key (1), { FERRY_CELL (FERRY_CELL_CONSTANT, FERRY_CONSTANT_TRUE), 0 } };
  FerryKey zeros[] = {
    int_key (0), float_key (0.0), float_key (-0.0), { FERRY_CELL (FERRY_CELL_CONSTANT, FERRY_CONSTANT_FALSE), 0 }
  };
  FerryKey nan_key = float_key (NAN);
  FerryKey none = { FERRY_CELL_NONE, 0 };
  FerryKey one = number_key ("1.00");
  FerryKey other_one = number_key ("1.0");
  FerryKey error_key = number_key ("error");
  FerryRef dict;

  keys[2].hash = ferry_key_hash_int (1);
  zeros[3].hash = ferry_key_hash_int (0);
  for (guint filler = 0; filler <= 20; filler += 20) /* without an index, and with */
    {
      work ();
      dict = new_held (ferry_store_dict_new (store, FERRY_OBJECT_DICT, 0, &error));
      ferry_store_end (store);
      for (guint i = 0; i < filler; i++)
        {
          FerryKey key = int_key (100 + i);

          ck_assert_int_eq (ferry_store_dict_set (store, dict, &key, 0, FERRY_CELL_NONE, FALSE, NULL, &error), 0);
        }
      for (guint i = 0; i < G_N_ELEMENTS (keys); i++)
        for (guint j = 0; j < G_N_ELEMENTS (keys); j++)
          {
            ck_assert_int_eq (
                ferry_store_dict_set (store, dict, &keys[i], 0, FERRY_CELL (FERRY_CELL_INT, i), FALSE, NULL, &error),
                j > 0);
            ck_assert_int_eq (ferry_store_dict_get (store, dict, &keys[j], &reading, &error), 1);
            ck_assert_int_eq (ferry_cell_int (reading.cell), i);
            if (j == G_N_ELEMENTS (keys) - 1)
              ck_assert_int_eq (ferry_store_dict_remove (store, dict, &keys[j], NULL, &error), 1);
          }
      for (guint i = 0; i < G_N_ELEMENTS (zeros); i++)
        ck_assert_int_eq (ferry_store_dict_set (store, dict, &zeros[i], 0, FERRY_CELL_NONE, FALSE, NULL, &error),
                          i > 0);

      /* not a number is equal to nothing */
      for (guint i = 0; i < 2; i++)
        {
          ck_assert_int_eq (ferry_store_dict_get (store, dict, &nan_key, NULL, &error), 0);
          ck_assert_int_eq (ferry_store_dict_set (store, dict, &nan_key, 0, FERRY_CELL_NONE, FALSE, NULL, &error), 0);
        }

      ck_assert_int_eq (ferry_store_dict_get (store, dict, &none, NULL, &error), 0);
      ck_assert_int_eq (ferry_store_dict_set (store, dict, &none, 0, FERRY_CELL_NONE, FALSE, NULL, &error), 0);
      ck_assert_int_eq (ferry_store_dict_get (store, dict, &none, NULL, &error), 1);

      /* numbers of another type */
      n_asked = 0;
      ck_assert_int_eq (ferry_store_dict_get (store, dict, &one, NULL, &error), 0);
      ck_assert_int_eq (
          ferry_store_dict_set (store, dict, &keys[0], 0, FERRY_CELL (FERRY_CELL_INT, 5), FALSE, NULL, &error), 0);
      ck_assert_int_eq (ferry_store_dict_get (store, dict, &one, &reading, &error), 1);
      ck_assert_int_eq (ferry_cell_int (reading.cell), 5);
      ck_assert_uint_eq (n_asked, 1);
      ck_assert_int_eq (
          ferry_store_dict_set (store, dict, &one, 0, FERRY_CELL (FERRY_CELL_INT, 6), FALSE, NULL, &error), 1);
      ck_assert_int_eq (ferry_store_dict_add (store, dict, &one, FERRY_CELL (FERRY_CELL_INT, 1), NULL, &error), 1);
      ck_assert_int_eq (ferry_store_dict_remove (store, dict, &one, &reading, &error), 1);
      ck_assert_int_eq (ferry_cell_int (reading.cell), 7);
      ck_assert_int_eq (
          ferry_store_dict_set (store, dict, &one, 0, FERRY_CELL (FERRY_CELL_INT, 8), FALSE, NULL, &error), 0);
      n_asked = 0;
      ck_assert_int_eq (ferry_store_dict_get (store, dict, &one, NULL, &error), 1);
      ck_assert_uint_eq (n_asked, 0); /* the same bytes */
      ck_assert_int_eq (ferry_store_dict_get (store, dict, &other_one, NULL, &error), 1);
      ck_assert_uint_eq (n_asked, 1);
      ck_assert_int_eq (ferry_store_dict_remove (store, dict, &other_one, NULL, &error), 1);

      /* who can't say gives up */
      error_key.hash = one.hash;
      ck_assert_int_eq (ferry_store_dict_set (store, dict, &error_key, 0, FERRY_CELL_NONE, FALSE, NULL, &error), 0);
      ck_assert_int_eq (ferry_store_dict_get (store, dict, &one, NULL, &error), -2);
      ck_assert_int_eq (ferry_store_dict_set (store, dict, &one, 0, FERRY_CELL_NONE, FALSE, NULL, &error), -2);
      ck_assert_int_eq (ferry_store_dict_remove (store, dict, &one, NULL, &error), -2);
      ferry_assert_no_error (error);
      ferry_store_unhold (store, dict);
    }
}
END_TEST

/* ---- the root mapping ---- */

START_TEST (test_root)
{
  g_autoptr (GError) error = NULL;
  g_autoptr (GHashTable) model = g_hash_table_new_full (g_str_hash, g_str_equal, g_free, g_free);
  FerryReading reading = FERRY_READING_INIT;
  GHashTableIter iter;
  gpointer name;
  guint64 before = 0;

  for (int i = 0; i < ROUNDS; i++)
    {
      g_autofree char *text = g_strdup_printf (draw (2) ? "k%d" : "a longer key %d", (int) draw (20));
      FerryKey key = str_key (text);
      const char *known = g_hash_table_lookup (model, text);
      char *value;

      if (i == ROUNDS / 2)
        {
          g_hash_table_iter_init (&iter, model);
          while (g_hash_table_iter_next (&iter, &name, NULL))
            {
              FerryKey each = str_key (name);

              ck_assert_int_eq (ferry_store_root_remove (store, &each, NULL, &error), 1);
            }
          g_hash_table_remove_all (model);
          before = ferry_store_get_bytes_used (store);
          continue;
        }
      work ();
      switch (draw (4))
        {
        case 0:
          ck_assert_int_eq (ferry_store_root_remove (store, &key, &reading, &error), known != NULL);
          if (known != NULL)
            assert_reading (&reading, known);
          g_hash_table_remove (model, text);
          break;
        case 1:
          ck_assert_int_eq (ferry_store_root_get (store, &key, &reading, &error), known != NULL);
          if (known != NULL)
            assert_reading (&reading, known);
          break;
        default:
          value = random_text ();
          ck_assert (ferry_store_root_set (store, &key, text_cell (value), &error));
          g_hash_table_replace (model, g_steal_pointer (&text), value);
          break;
        }
      ferry_store_end (store);
      ferry_assert_no_error (error);
      ck_assert_int_eq (ferry_store_dict_length (store, ferry_store_get_root (store)), g_hash_table_size (model));
    }

  /* a transaction that did not happen */
  ck_assert (ferry_store_begin_transaction (store, -1, NULL, &error));
  g_hash_table_iter_init (&iter, model);
  while (g_hash_table_iter_next (&iter, &name, NULL))
    {
      FerryKey key = str_key (name);

      ck_assert_int_eq (ferry_store_root_remove (store, &key, NULL, &error), 1);
      ck_assert_int_eq (ferry_store_root_get (store, &key, NULL, &error), 0);
      if (draw (2))
        ck_assert (ferry_store_root_set (store, &key, FERRY_CELL_NONE, &error));
    }
  ck_assert (ferry_store_roll_back (store, &error));
  g_hash_table_iter_init (&iter, model);
  while (g_hash_table_iter_next (&iter, &name, NULL))
    {
      FerryKey key = str_key (name);

      ck_assert_int_eq (ferry_store_root_get (store, &key, &reading, &error), 1);
      assert_reading (&reading, g_hash_table_lookup (model, name));
      ck_assert_int_eq (ferry_store_root_remove (store, &key, NULL, &error), 1);
    }
  ferry_assert_no_error (error);
  ferry_reading_clear (&reading);
  ferry_store_trim (store);
  /* the log of transactions stays */
  ck_assert_uint_le (ferry_store_get_bytes_used (store), before + 65536);
}
END_TEST

/* ---- records, arrays, tickets ---- */

static FerryRef
test_shape (void)
{
  g_autoptr (GError) error = NULL;
  static const char description[] = "module, class, and fields";
  FerryRef shape;

  work ();
  shape = ferry_store_shape (
      store, ferry_store_new_leaf (store, FERRY_LEAF_SHAPE, 0, 0, description, sizeof description, NULL, 0, &error),
      &error);
  ferry_store_end (store);
  ferry_assert_no_error (error);
  ck_assert_uint_ne (shape, 0);
  return shape;
}

START_TEST (test_record)
{
  g_autoptr (GError) error = NULL;
  GPtrArray *model = g_ptr_array_new_with_free_func (g_free);
  GPtrArray *saved = NULL;
  FerryReading reading = FERRY_READING_INIT;
  FerryRef shape = test_shape ();
  FerryRef again = test_shape ();
  FerryRef record;
  FerryRef extra;

  ck_assert_uint_eq (shape, again);
  ck_assert (ferry_store_shape_read (store, shape, &reading, &error));
  ck_assert_str_eq ((const char *) reading.leaf->data, "module, class, and fields");
  work ();
  record = new_held (ferry_store_record_new (store, shape, NULL, N_FIELDS, &error));
  ferry_store_end (store);
  ferry_store_unhold (store, shape);
  ferry_store_unhold (store, shape);
  ck_assert_uint_eq (ferry_store_record_shape (store, record), shape);
  for (guint i = 0; i < N_FIELDS; i++)
    g_ptr_array_add (model, g_strdup ("constant 0"));
  g_ptr_array_add (model, g_strdup ("constant 0"));

  for (int i = 0; i < ROUNDS; i++)
    {
      guint field = (guint) draw (N_FIELDS);
      gboolean there = strcmp (model->pdata[field], "constant 0") != 0;

      maybe_transaction (&model, &saved);
      there = strcmp (model->pdata[field], "constant 0") != 0;
      work ();
      switch (draw (4))
        {
        case 0:
          ck_assert_int_eq (ferry_store_record_get (store, record, field, &reading, &error), there);
          if (there)
            assert_reading (&reading, model->pdata[field]);
          break;
        case 1:
          ck_assert_int_eq (ferry_store_record_set (store, record, field, FERRY_CELL_EMPTY, &error), there);
          g_free (model->pdata[field]);
          model->pdata[field] = g_strdup ("constant 0");
          break;
        case 2:
          if (!there || ((char *) model->pdata[field])[0] == 'i')
            {
              ck_assert_int_eq (
                  ferry_store_record_add (store, record, field, FERRY_CELL (FERRY_CELL_INT, 3), &reading, &error),
                  there);
              if (there)
                {
                  g_free (model->pdata[field]);
                  model->pdata[field] = reading_text (&reading);
                }
            }
          break;
        default:
          g_free (model->pdata[field]);
          model->pdata[field] = random_text ();
          ck_assert_int_eq (ferry_store_record_set (store, record, field, text_cell (model->pdata[field]), &error),
                            there);
          break;
        }
      ferry_store_end (store);
      ferry_assert_no_error (error);
      if (i % 20 == 0)
        assert_snapshot (record, model);
    }
  if (saved != NULL)
    {
      ck_assert (ferry_store_roll_back (store, &error));
      g_ptr_array_unref (model);
      model = saved;
    }
  assert_snapshot (record, model);
  g_ptr_array_unref (model);

  ck_assert_int_eq (ferry_store_record_get (store, record, N_FIELDS, &reading, &error), -1);
  ferry_assert_error (error, FERRY_ERROR, FERRY_ERROR_INVALID_ARGUMENT);
  g_clear_error (&error);
  ck_assert_uint_eq (ferry_store_record_extra (store, record, FALSE, &error), 0);
  extra = ferry_store_record_extra (store, record, TRUE, &error);
  ferry_assert_no_error (error);
  ck_assert_uint_ne (extra, 0);
  ck_assert_uint_eq (ferry_store_record_extra (store, record, TRUE, &error), extra);
  ferry_store_unhold (store, extra);
  ferry_store_unhold (store, extra);
  ferry_store_unhold (store, record);
  ferry_reading_clear (&reading);
}
END_TEST

START_TEST (test_array_and_tickets)
{
  g_autoptr (GError) error = NULL;
  FerryReading reading = FERRY_READING_INIT;
  const gsize sizes[] = { 0, 1, 63, 64, 5000, 1 << 20 };
  guint64 before = 0;

  for (guint round = 0; round < 2; round++)
    {
      for (guint i = 0; i < G_N_ELEMENTS (sizes); i++)
        {
          g_autofree guint8 *data = g_malloc (sizes[i] + 1);
          FerryCell description;
          guint64 ticket;
          guint8 *shared;
          FerryRef array;
          gsize size;

          for (gsize j = 0; j < sizes[i]; j++)
            data[j] = (guint8) draw (256);
          work ();
          description = ferry_store_new_leaf (store, FERRY_LEAF_ARRAY, 0, 0, "<f8", 4, NULL, 0, &error);
          array = new_held (ferry_store_array_new (store, description, data, sizes[i], &error));
          ferry_store_end (store);
          shared = ferry_store_array_data (store, array, &size, &reading, &error);
          ferry_assert_no_error (error);
          ck_assert_uint_eq (size, sizes[i]);
          ck_assert_uint_eq ((guintptr) shared % 64, 0);
          ck_assert_mem_eq (shared, data, size);
          ck_assert_str_eq ((const char *) reading.leaf->data, "<f8");

          ticket = ferry_store_ticket_new (store, array, &error);
          ck_assert_uint_ne (ticket, 0);
          ferry_store_unhold (store, array);
          ck_assert_uint_eq (ferry_store_ticket_take (store, ticket, &error), array);
          ferry_assert_no_error (error);
          ck_assert_uint_eq (ferry_store_ticket_take (store, ticket, &error), 0);
          ferry_assert_error (error, FERRY_ERROR, FERRY_ERROR_NOT_FOUND);
          g_clear_error (&error);
          ck_assert_mem_eq (ferry_store_array_data (store, array, &size, NULL, &error), data, size);
          ferry_store_unhold (store, array);
        }
      if (round == 0)
        before = ferry_store_get_bytes_used (store);
    }
  ck_assert_uint_eq (ferry_store_get_bytes_used (store), before);
  ferry_reading_clear (&reading);
}
END_TEST

/* ---- bytearrays ---- */

static void
bytearray_rounds (void)
{
  g_autoptr (GError) error = NULL;
  GByteArray *model = g_byte_array_new ();
  GByteArray *saved = NULL;
  guint8 data[600];
  FerryRef bytes;

  work ();
  bytes = new_held (ferry_store_bytearray_new (store, NULL, 0, &error));
  ferry_store_end (store);
  for (int i = 0; i < ROUNDS; i++)
    {
      gsize offset = draw (3) == 0 ? model->len : draw (4) == 0 ? 0 : draw (model->len + 3);
      gsize n_removed = draw (draw (8) == 0 ? model->len + 1 : 20);
      gsize n = draw (draw (10) == 0 ? sizeof data : 20);
      guint8 *read;

      if (saved == NULL && draw (40) == 0)
        {
          ck_assert (ferry_store_begin_transaction (store, -1, NULL, &error));
          saved = g_byte_array_append (g_byte_array_new (), model->data, model->len);
        }
      else if (saved != NULL && draw (15) == 0)
        {
          gboolean keep = draw (2) != 0;

          ck_assert (keep ? ferry_store_commit (store, &error) : ferry_store_roll_back (store, &error));
          g_byte_array_unref (keep ? saved : model);
          model = keep ? model : saved;
          saved = NULL;
        }
      if (model->len > 3000)
        n = 0;
      switch (draw (4))
        {
        case 0:
          n_removed = 0;
          break;
        case 1:
          n = 0;
          break;
        case 2:
          n_removed = n;
          break;
        default:
          break;
        }
      offset = MIN (offset, model->len);
      for (gsize j = 0; j < n; j++)
        data[j] = (guint8) draw (256);
      ck_assert (ferry_store_bytearray_splice (store, bytes, offset, n_removed, data, n, &error));
      ferry_assert_no_error (error);
      n_removed = MIN (n_removed, model->len - offset);
      if (n_removed > 0)
        g_byte_array_remove_range (model, (guint) offset, (guint) n_removed);
      if (n > 0)
        {
          g_autofree guint8 *tail = g_memdup2 (model->data + offset, model->len - offset);
          guint n_tail = model->len - (guint) offset;

          g_byte_array_set_size (model, (guint) offset);
          g_byte_array_append (model, data, (guint) n);
          g_byte_array_append (model, tail, n_tail);
        }
      ck_assert_int_eq (ferry_store_bytearray_length (store, bytes), model->len);
      read = g_malloc (model->len + 10);
      ck_assert_int_eq (ferry_store_bytearray_read (store, bytes, 0, read, model->len + 10, &error), model->len);
      ck_assert (model->len == 0 || memcmp (read, model->data, model->len) == 0);
      g_free (read);
    }
  if (saved != NULL)
    {
      ck_assert (ferry_store_commit (store, &error));
      g_byte_array_unref (saved);
    }
  ck_assert (ferry_store_verify (store, &error));
  ferry_assert_no_error (error);
  g_byte_array_unref (model);
  ferry_store_unhold (store, bytes);
}

START_TEST (test_bytearray) { assert_returns_memory (bytearray_rounds); }
END_TEST

/* ---- two processes ---- */

#define N_COUNTERS (8)

/* Runs @work in this process and in a child of it, both at once. */
static void
in_two (void (*both) (guint who, gpointer data), gpointer data)
{
  pid_t child = fork ();
  int status;

  ck_assert_int_ge (child, 0);
  if (child == 0)
    {
      both (1, data);
      ferry_store_close (store);
      _exit (0);
    }
  both (0, data);
  ck_assert_int_eq (waitpid (child, &status, 0), child);
  ck_assert (WIFEXITED (status) && WEXITSTATUS (status) == 0);
}

typedef struct
{
  FerryRef list;
  FerryRef dict;
  FerryRef record;
  FerryRef queue;
} Shared;

/* Adds, while the list and the dict are given new bodies all the time. */
static void
add_all (guint who, gpointer data)
{
  g_autoptr (GError) error = NULL;
  Shared *shared = data;
  FerryReading reading = FERRY_READING_INIT;

  seed = who + 1;
  for (int i = 0; i < TURNS; i++)
    {
      FerryKey key = int_key (i % N_COUNTERS);
      FerryKey other = int_key (1000 + (i % 50) * 2 + who);
      int found;

      ck_assert_int_eq (
          ferry_store_list_add (store, shared->list, i % N_COUNTERS, FERRY_CELL (FERRY_CELL_INT, 1), NULL, &error), 1);
      ck_assert_int_eq (ferry_store_dict_add (store, shared->dict, &key, FERRY_CELL (FERRY_CELL_INT, 1), NULL, &error),
                        1);
      ck_assert_int_eq (ferry_store_record_add (store, shared->record, (guint) i % N_FIELDS,
                                                FERRY_CELL (FERRY_CELL_INT, 1), NULL, &error),
                        1);
      ck_assert_int_ge (
          ferry_store_dict_set (store, shared->dict, &other, 0, FERRY_CELL (FERRY_CELL_INT, i), FALSE, NULL, &error),
          0);
      ck_assert_int_eq (ferry_store_dict_get (store, shared->dict, &other, &reading, &error), 1);
      ck_assert_int_eq (ferry_cell_int (reading.cell), i);
      if (draw (2))
        ck_assert_int_eq (ferry_store_dict_remove (store, shared->dict, &other, NULL, &error), 1);
      ck_assert_int_eq (ferry_store_dict_get (store, shared->dict, &key, &reading, &error), 1);

      work ();
      ck_assert (ferry_store_list_append (store, shared->queue, text_cell ("sa str that is no inline one"), &error));
      ck_assert (ferry_store_list_append (store, shared->list, text_cell ("o7"), &error));
      ferry_store_end (store);
      found = ferry_store_list_get (store, shared->queue, -1, &reading, &error);
      if (found == 1)
        assert_reading (&reading, "sa str that is no inline one");
      ck_assert_int_ge (found, 0);
      ck_assert_int_eq (ferry_store_list_pop (store, shared->queue, 0, &reading, &error), 1);
      assert_reading (&reading, "sa str that is no inline one");
      found = ferry_store_list_get (store, shared->list, -1, &reading, &error);
      ck_assert_int_eq (found, 1);
      assert_reading (&reading, "o7");
      if (i % 100 == 0)
        {
          FerrySnapshot snapshot = { 0 };

          ck_assert (ferry_store_snapshot (store, shared->list, &snapshot, &error));
          ck_assert_uint_gt (snapshot.n, N_COUNTERS);
          ferry_store_snapshot_clear (store, &snapshot);
        }
      if (ferry_store_list_length (store, shared->list) > 200)
        ck_assert (ferry_store_list_splice (store, shared->list, N_COUNTERS + 2, 100, NULL, 0, &error));
      ferry_assert_no_error (error);
    }
  ferry_reading_clear (&reading);
}

START_TEST (test_two_processes)
{
  g_autoptr (GError) error = NULL;
  FerryReading reading = FERRY_READING_INIT;
  FerryCell zeros[N_COUNTERS];
  FerryRef shape = test_shape ();
  Shared shared;
  gint64 sums[3] = { 0 };

  for (guint i = 0; i < N_COUNTERS; i++)
    zeros[i] = FERRY_CELL (FERRY_CELL_INT, 0);
  work ();
  shared.list = new_held (ferry_store_list_new (store, zeros, N_COUNTERS, &error));
  shared.queue = new_held (ferry_store_list_new (store, NULL, 0, &error));
  shared.dict = new_held (ferry_store_dict_new (store, FERRY_OBJECT_DICT, 0, &error));
  shared.record = new_held (ferry_store_record_new (store, shape, zeros, N_FIELDS, &error));
  ck_assert (ferry_store_list_append (store, shared.list, text_cell ("o7"), &error));
  ck_assert (ferry_store_list_append (store, shared.list, text_cell ("o7"), &error));
  ferry_store_end (store);
  for (guint i = 0; i < N_COUNTERS; i++)
    {
      FerryKey key = int_key (i);

      ck_assert_int_eq (ferry_store_dict_set (store, shared.dict, &key, 0, zeros[i], FALSE, NULL, &error), 0);
    }
  in_two (add_all, &shared);
  for (guint i = 0; i < N_COUNTERS; i++)
    {
      FerryKey key = int_key (i);

      ck_assert_int_eq (ferry_store_list_get (store, shared.list, i, &reading, &error), 1);
      sums[0] += ferry_cell_int (reading.cell);
      ck_assert_int_eq (ferry_store_dict_get (store, shared.dict, &key, &reading, &error), 1);
      sums[1] += ferry_cell_int (reading.cell);
    }
  for (guint i = 0; i < N_FIELDS; i++)
    {
      ck_assert_int_eq (ferry_store_record_get (store, shared.record, i, &reading, &error), 1);
      sums[2] += ferry_cell_int (reading.cell);
    }
  for (guint i = 0; i < G_N_ELEMENTS (sums); i++)
    ck_assert_int_eq (sums[i], 2 * TURNS);
  ck_assert_int_eq (ferry_store_list_length (store, shared.queue), 0);
  ferry_store_unhold (store, shape);
  ferry_store_unhold (store, shared.list);
  ferry_store_unhold (store, shared.queue);
  ferry_store_unhold (store, shared.dict);
  ferry_store_unhold (store, shared.record);
}
END_TEST

/* One sets a key twice, the other removes it as often as it can: the last value set is the last removed. */
static void
set_or_remove (guint who, gpointer data)
{
  g_autoptr (GError) error = NULL;
  _Atomic gint64 *removed = data;
  FerryReading reading = FERRY_READING_INIT;
  FerryKey key = str_key ("contended");

  if (who == 0)
    {
      for (gint64 i = 0; i < TURNS; i += 2)
        {
          gint64 deadline = g_get_monotonic_time () + 20 * G_USEC_PER_SEC;

          ck_assert (ferry_store_root_set (store, &key, FERRY_CELL (FERRY_CELL_INT, i), &error));
          ck_assert (ferry_store_root_set (store, &key, FERRY_CELL (FERRY_CELL_INT, i + 1), &error));
          while (atomic_load (removed) != i + 1)
            {
              ck_assert_msg (g_get_monotonic_time () < deadline, "what was set last was never removed");
              sched_yield ();
            }
        }
      ck_assert (ferry_store_root_set (store, &key, FERRY_CELL_NONE, &error));
      return;
    }
  while (TRUE)
    {
      int found = ferry_store_root_remove (store, &key, &reading, &error);

      ck_assert_int_ge (found, 0);
      if (found == 0)
        {
          ck_assert_int_ge (ferry_store_root_get (store, &key, &reading, &error), 0);
          sched_yield ();
          continue;
        }
      if (reading.cell == FERRY_CELL_NONE)
        break;
      ck_assert_int_gt (ferry_cell_int (reading.cell), atomic_load (removed));
      atomic_store (removed, ferry_cell_int (reading.cell));
    }
}

START_TEST (test_root_two_processes)
{
  _Atomic gint64 *removed = mmap (NULL, sizeof *removed, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

  ck_assert (removed != MAP_FAILED);
  atomic_store (removed, -1);
  in_two (set_or_remove, (gpointer) removed);
  munmap ((gpointer) removed, sizeof *removed);
}
END_TEST

/* What others see of a transaction: nothing, and then all of it. */
static void
move_or_count (guint who, gpointer data)
{
  g_autoptr (GError) error = NULL;
  Shared *shared = data;

  for (int i = 0; i < TURNS / 30; i++)
    {
      if (who == 0)
        {
          FerryReading reading = FERRY_READING_INIT;
          guint n = (guint) draw (40);

          ck_assert (ferry_store_begin_transaction (store, -1, NULL, &error));
          for (guint j = 0; j < n; j++)
            {
              FerryRef from = j % 3 ? shared->list : shared->queue;
              FerryRef to = j % 3 ? shared->queue : shared->list;

              work ();
              if (ferry_store_list_pop (store, from, draw (2) ? 0 : -1, &reading, &error) == 1)
                {
                  g_autofree char *text = reading_text (&reading);
                  FerryCell cell = text_cell (text);

                  ck_assert (ferry_store_list_splice (store, to, draw (2) ? 0 : 1000, 0, &cell, 1, &error));
                }
              ferry_store_end (store);
            }
          ck_assert (draw (3) ? ferry_store_commit (store, &error) : ferry_store_roll_back (store, &error));
          ferry_reading_clear (&reading);
        }
      else
        {
          FerrySnapshot first = { 0 };
          FerrySnapshot second = { 0 };
          gint64 sum = 0;

          ck_assert (ferry_store_snapshot (store, shared->list, &first, &error));
          ck_assert (ferry_store_snapshot (store, shared->queue, &second, &error));
          for (guint k = 0; k < 2; k++)
            {
              FerrySnapshot *snapshot = k ? &second : &first;

              for (gsize j = 0; j < snapshot->n; j++)
                {
                  g_autofree char *text
                      = cell_text (snapshot->cells[j],
                                   (const FerryLeaf *) (snapshot->memory + ferry_cell_payload (snapshot->cells[j])));

                  ck_assert_msg (g_str_has_prefix (text, "sthe number "), "%s", text);
                  sum += g_ascii_strtoll (text + 12, NULL, 10);
                }
            }
          /* of one instant if neither changed between the two */
          if (ferry_store_object_version (store, shared->list) == first.version
              && ferry_store_object_version (store, shared->queue) == second.version)
            ck_assert_int_eq (sum, 99 * 100 / 2);
          ferry_store_snapshot_clear (store, &first);
          ferry_store_snapshot_clear (store, &second);
        }
      ferry_assert_no_error (error);
    }
}

START_TEST (test_transactions_seen)
{
  g_autoptr (GError) error = NULL;
  Shared shared;

  work ();
  shared.list = new_held (ferry_store_list_new (store, NULL, 0, &error));
  shared.queue = new_held (ferry_store_list_new (store, NULL, 0, &error));
  for (int i = 0; i < 100; i++)
    {
      g_autofree char *text = g_strdup_printf ("sthe number %d", i);

      ck_assert (ferry_store_list_append (store, shared.list, text_cell (text), &error));
    }
  ferry_store_end (store);
  in_two (move_or_count, &shared);
  ck_assert_int_eq (ferry_store_list_length (store, shared.list) + ferry_store_list_length (store, shared.queue), 100);
  ferry_store_unhold (store, shared.list);
  ferry_store_unhold (store, shared.queue);
}
END_TEST

static void
add (Suite *suite)
{
  const TTest *const lists[] = { test_list, test_list_queue, test_list_arguments, NULL };
  const TTest *const dicts[] = { test_dict, test_set, test_dict_ends, test_numeric_keys, test_root, NULL };
  const TTest *const others[] = { test_record, test_array_and_tickets, test_bytearray, NULL };
  const TTest *const processes[] = { test_two_processes, test_root_two_processes, test_transactions_seen, NULL };
  TCase *cases[] = {
    ferry_test_add_case (suite, "lists", 60, lists),
    ferry_test_add_case (suite, "dicts", 60, dicts),
    ferry_test_add_case (suite, "others", 60, others),
    ferry_test_add_case (suite, "processes", 60, processes),
  };

  for (guint i = 0; i < G_N_ELEMENTS (cases); i++)
    tcase_add_checked_fixture (cases[i], setup, teardown);
}

int
main (void)
{
  return ferry_test_run ("store-containers", add);
}
