/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ferry-test.h"

#include <stdlib.h>

static void
count_cb (gpointer data)
{
  ++*(int *) data;
}

/* Private memory: aligned for vectors, writable, of exactly the size. */
START_TEST (test_new)
{
  static const gsize sizes[] = { 0, 1, 64, 200, 201, 4096, 5000, 1 << 20 };

  for (guint i = 0; i < G_N_ELEMENTS (sizes); i++)
    {
      FerryBuffer *buffer = ferry_buffer_new (sizes[i]);
      gsize size = 99;
      guint8 *data = ferry_buffer_get_writable_data (buffer, &size);

      ck_assert_uint_eq (size, sizes[i]);
      ck_assert_uint_eq (ferry_buffer_get_size (buffer), sizes[i]);
      ck_assert (ferry_buffer_is_writable (buffer));
      ck_assert_ptr_nonnull (data);
      ck_assert_uint_eq (GPOINTER_TO_SIZE (data) % 64, 0);
      memset (data, 0x5a, sizes[i]);
      size = 99;
      ck_assert_ptr_eq (ferry_buffer_get_data (buffer, &size), data);
      ck_assert_uint_eq (size, sizes[i]);
      ck_assert_ptr_eq (ferry_buffer_get_data (buffer, NULL), data);
      ck_assert_uint_eq (ferry_buffer_get_sequence (buffer), 0);
      ck_assert_int_eq (ferry_buffer_get_timestamp (buffer), 0);
      ferry_buffer_unref (buffer);
    }
}
END_TEST

START_TEST (test_new_bytes)
{
  guint8 *memory = g_malloc (1000);
  GBytes *bytes;
  int n_released = 0;
  FerryBuffer *buffer;
  gsize size;

  memset (memory, 3, 1000);
  bytes = g_bytes_new_with_free_func (memory, 1000, count_cb, &n_released);
  buffer = ferry_buffer_new_bytes (bytes);
  g_bytes_unref (bytes);
  ck_assert_ptr_eq (ferry_buffer_get_data (buffer, &size), memory); /* not copied */
  ck_assert_uint_eq (size, 1000);
  ck_assert (!ferry_buffer_is_writable (buffer));
  ck_assert_ptr_null (ferry_buffer_get_writable_data (buffer, &size));
  ck_assert (!ferry_buffer_fill (buffer, 0, (const guint8 *) "x", 1));
  ck_assert (!ferry_buffer_set_size (buffer, 10));
  ck_assert_uint_eq (memory[0], 3);
  ck_assert_int_eq (n_released, 0);
  ferry_buffer_unref (buffer);
  ck_assert_int_eq (n_released, 1);
  g_free (memory);

  bytes = g_bytes_new (NULL, 0);
  buffer = ferry_buffer_new_bytes (bytes);
  ck_assert_uint_eq (ferry_buffer_get_size (buffer), 0);
  ferry_buffer_unref (buffer);
  g_bytes_unref (bytes);
}
END_TEST

START_TEST (test_new_take)
{
  guint8 memory[100];
  int n_released = 0;

  for (int writable = 0; writable < 2; writable++)
    {
      FerryBuffer *buffer = ferry_buffer_new_take (memory, sizeof memory, writable, count_cb, &n_released);

      ck_assert_int_eq (ferry_buffer_is_writable (buffer), writable);
      ck_assert_ptr_eq (ferry_buffer_get_writable_data (buffer, NULL), writable ? memory : NULL);
      ferry_buffer_unref (buffer);
      ck_assert_int_eq (n_released, writable + 1);
    }
  ferry_buffer_unref (ferry_buffer_new_take (memory, sizeof memory, TRUE, NULL, NULL));
  ferry_buffer_unref (ferry_buffer_new_take (NULL, 0, FALSE, NULL, NULL));
}
END_TEST

START_TEST (test_references)
{
  guint8 memory[10];
  int n_released = 0;
  FerryBuffer *buffer = ferry_buffer_new_take (memory, sizeof memory, FALSE, count_cb, &n_released);
  GValue value = G_VALUE_INIT;
  FerryBuffer *copy;

  ck_assert_ptr_eq (ferry_buffer_ref (buffer), buffer);
  ferry_buffer_unref (buffer);
  ck_assert_int_eq (n_released, 0);

  /* Boxed: a copy is a reference. */
  copy = g_boxed_copy (FERRY_TYPE_BUFFER, buffer);
  ck_assert_ptr_eq (copy, buffer);
  g_value_init (&value, FERRY_TYPE_BUFFER);
  g_value_set_boxed (&value, buffer);
  ferry_buffer_unref (buffer);
  g_boxed_free (FERRY_TYPE_BUFFER, copy);
  ck_assert_int_eq (n_released, 0);
  g_value_unset (&value);
  ck_assert_int_eq (n_released, 1);
}
END_TEST

enum
{
  N_THREADS = 4,
  N_REFERENCES = 20000,
};

static gpointer
reference_thread (gpointer data)
{
  for (guint i = 0; i < N_REFERENCES; i++)
    ferry_buffer_unref (ferry_buffer_ref (data));
  ferry_buffer_unref (data);
  return NULL;
}

/* References are atomic, and the last one may be dropped by another thread than the first. */
START_TEST (test_references_in_threads)
{
  guint8 memory[10];

  for (guint round = 0; round < 10; round++)
    {
      int n_released = 0;
      FerryBuffer *buffer = ferry_buffer_new_take (memory, sizeof memory, FALSE, count_cb, &n_released);
      GThread *threads[N_THREADS];

      for (guint i = 0; i < N_THREADS; i++)
        threads[i] = g_thread_new ("references", reference_thread, ferry_buffer_ref (buffer));
      ferry_buffer_unref (buffer);
      for (guint i = 0; i < N_THREADS; i++)
        g_thread_join (threads[i]);
      ck_assert_int_eq (n_released, 1);
    }
}
END_TEST

static gpointer
make_many_thread (gpointer data)
{
  FerryBuffer **buffers = data;

  for (guint i = 0; i < 500; i++)
    {
      buffers[i] = ferry_buffer_new (i);
      memset (ferry_buffer_get_writable_data (buffers[i], NULL), (int) i, i);
    }
  return NULL;
}

/* More than any pool keeps, made in a thread that is gone when they are dropped. */
START_TEST (test_many_from_another_thread)
{
  for (guint round = 0; round < 5; round++)
    {
      FerryBuffer *buffers[500];

      g_thread_join (g_thread_new ("buffers", make_many_thread, buffers));
      for (guint i = 0; i < 500; i++)
        {
          for (guint b = 0; b < i; b++)
            ck_assert_uint_eq (ferry_buffer_get_data (buffers[i], NULL)[b], i & 0xff);
          ferry_buffer_unref (buffers[i]);
        }
    }
}
END_TEST

START_TEST (test_set_size)
{
  g_autoptr (FerryBuffer) buffer = ferry_buffer_new (1000);
  gsize size;

  ck_assert (ferry_buffer_set_size (buffer, 10));
  ck_assert_uint_eq (ferry_buffer_get_size (buffer), 10);
  ck_assert_ptr_nonnull (ferry_buffer_get_data (buffer, &size));
  ck_assert_uint_eq (size, 10);
  ck_assert (ferry_buffer_set_size (buffer, 0));
  ck_assert (ferry_buffer_set_size (buffer, 1000));
  ck_assert (!ferry_buffer_set_size (buffer, 1001));
  ck_assert (!ferry_buffer_set_size (buffer, G_MAXSIZE));
  ck_assert_uint_eq (ferry_buffer_get_size (buffer), 1000);
}
END_TEST

START_TEST (test_fill)
{
  g_autoptr (FerryBuffer) buffer = ferry_buffer_new (10);
  const guint8 *data = ferry_buffer_get_data (buffer, NULL);

  ck_assert (ferry_buffer_fill (buffer, 0, (const guint8 *) "0123456789", 10));
  ck_assert (ferry_buffer_fill (buffer, 8, (const guint8 *) "ab", 2));
  ck_assert (ferry_buffer_fill (buffer, 10, NULL, 0));
  ck_assert (ferry_buffer_fill (buffer, 0, NULL, 0));
  ck_assert_int_eq (memcmp (data, "01234567ab", 10), 0);
  ck_assert (!ferry_buffer_fill (buffer, 9, (const guint8 *) "cd", 2));
  ck_assert (!ferry_buffer_fill (buffer, 11, NULL, 0));
  ck_assert (!ferry_buffer_fill (buffer, 1, (const guint8 *) "cd", G_MAXSIZE));
  ck_assert (!ferry_buffer_fill (buffer, G_MAXSIZE, (const guint8 *) "cd", 2));
  ck_assert_int_eq (memcmp (data, "01234567ab", 10), 0);
  /* What was cut off is out of reach. */
  ck_assert (ferry_buffer_set_size (buffer, 5));
  ck_assert (!ferry_buffer_fill (buffer, 4, (const guint8 *) "cd", 2));
}
END_TEST

START_TEST (test_bytes)
{
  guint8 memory[300];
  int n_released = 0;
  FerryBuffer *buffer;
  GBytes *copy;
  GBytes *view;

  memset (memory, 9, sizeof memory);
  buffer = ferry_buffer_new_take (memory, sizeof memory, TRUE, count_cb, &n_released);
  copy = ferry_buffer_to_bytes (buffer);
  view = ferry_buffer_as_bytes (buffer);
  ck_assert_ptr_eq (g_bytes_get_data (view, NULL), memory);
  ck_assert_ptr_ne (g_bytes_get_data (copy, NULL), memory);
  ck_assert_uint_eq (g_bytes_get_size (view), sizeof memory);
  ck_assert (g_bytes_equal (view, copy));
  memory[7] = 1;
  ck_assert (!g_bytes_equal (view, copy));

  /* The view holds the buffer, the copy does not. */
  ferry_buffer_unref (buffer);
  ck_assert_int_eq (n_released, 0);
  g_bytes_unref (view);
  ck_assert_int_eq (n_released, 1);
  ck_assert_uint_eq (((const guint8 *) g_bytes_get_data (copy, NULL))[7], 9);
  g_bytes_unref (copy);

  buffer = ferry_buffer_new (0);
  view = ferry_buffer_as_bytes (buffer);
  copy = ferry_buffer_to_bytes (buffer);
  ck_assert_uint_eq (g_bytes_get_size (view), 0);
  ck_assert_uint_eq (g_bytes_get_size (copy), 0);
  ferry_buffer_unref (buffer);
  g_bytes_unref (view);
  g_bytes_unref (copy);
}
END_TEST

START_TEST (test_wire_name)
{
  static const char *const good[] = { "a", "raw", "gvariant", "abc-012", "abcdefghijkl", "0", "-" };
  static const char *const bad[] = { "", "abcdefghijklm", "Raw", "a b", "a_b", "a.b", "\xc3\xa4", "raw\n" };
  g_autoptr (FerryBuffer) buffer = ferry_buffer_new (10);
  guint version = 99;
  g_autofree char *none = ferry_buffer_dup_wire_name (buffer, &version);

  ck_assert_str_eq (none, "");
  ck_assert_uint_eq (version, 0);
  for (guint i = 0; i < G_N_ELEMENTS (good); i++)
    {
      g_autofree char *name = NULL;

      ck_assert (ferry_buffer_set_wire_name (buffer, good[i], i * 1000000007u));
      name = ferry_buffer_dup_wire_name (buffer, &version);
      ck_assert_str_eq (name, good[i]);
      ck_assert_uint_eq (version, i * 1000000007u);
    }
  ck_assert (ferry_buffer_set_wire_name (buffer, "kept", 5));
  for (guint i = 0; i < G_N_ELEMENTS (bad); i++)
    {
      g_autofree char *name = NULL;

      ck_assert_msg (!ferry_buffer_set_wire_name (buffer, bad[i], 1), "\"%s\" was accepted", bad[i]);
      name = ferry_buffer_dup_wire_name (buffer, NULL);
      ck_assert_str_eq (name, "kept");
    }
}
END_TEST

START_TEST (test_timestamp)
{
  static const gint64 times[] = { 1, -1, G_MAXINT64, G_MININT64, 0 };
  g_autoptr (FerryBuffer) buffer = ferry_buffer_new (10);

  for (guint i = 0; i < G_N_ELEMENTS (times); i++)
    {
      ferry_buffer_set_timestamp (buffer, times[i]);
      ck_assert_int_eq (ferry_buffer_get_timestamp (buffer), times[i]);
    }
}
END_TEST

/* A buffer that is used again from a pool remembers nothing of its former life. */
START_TEST (test_nothing_is_remembered)
{
  for (guint i = 0; i < 200; i++)
    {
      FerryBuffer *buffer = ferry_buffer_new (10 + i);
      g_autofree char *name = ferry_buffer_dup_wire_name (buffer, NULL);

      ck_assert_str_eq (name, "");
      ck_assert_int_eq (ferry_buffer_get_timestamp (buffer), 0);
      ck_assert (ferry_buffer_is_writable (buffer));
      ck_assert_uint_eq (ferry_buffer_get_size (buffer), 10 + i);
      ck_assert (ferry_buffer_set_wire_name (buffer, "before", 3));
      ferry_buffer_set_timestamp (buffer, 77);
      ferry_buffer_set_size (buffer, 3);
      ferry_buffer_unref (buffer);
    }
}
END_TEST

/* Transports without shared memory take the contents out of what they loaned. */
START_TEST (test_spend)
{
  static const gsize sizes[] = { 0, 10, 5000 };

  for (guint i = 0; i < G_N_ELEMENTS (sizes); i++)
    {
      g_autoptr (FerryBuffer) buffer = ferry_buffer_new (sizes[i]);
      const guint8 *memory = ferry_buffer_get_data (buffer, NULL);
      g_autoptr (GBytes) bytes = NULL;
      g_autoptr (GError) error = NULL;

      memset (ferry_buffer_get_writable_data (buffer, NULL), 7, sizes[i]);
      bytes = ferry_buffer_spend (buffer, &error);
      ferry_assert_no_error (error);
      ck_assert_uint_eq (g_bytes_get_size (bytes), sizes[i]);
      for (gsize j = 0; j < sizes[i]; j++)
        ck_assert_uint_eq (((const guint8 *) g_bytes_get_data (bytes, NULL))[j], 7);
      if (sizes[i] == 5000)
        ck_assert_ptr_eq (g_bytes_get_data (bytes, NULL), memory); /* not copied */
      ck_assert_uint_eq (ferry_buffer_get_size (buffer), 0);
      ck_assert (!ferry_buffer_is_writable (buffer));
      ck_assert (!ferry_buffer_set_size (buffer, 1));
      ck_assert_ptr_null (ferry_buffer_spend (buffer, &error));
      ferry_assert_error (error, FERRY_ERROR, FERRY_ERROR_INVALID_ARGUMENT);
    }
}
END_TEST

/* What nobody loaned is copied and stays as it is. */
START_TEST (test_spend_other)
{
  g_autoptr (GBytes) bytes = g_bytes_new_static ("abc", 3);
  g_autoptr (FerryBuffer) buffer = ferry_buffer_new_bytes (bytes);

  for (guint i = 0; i < 2; i++)
    {
      g_autoptr (GError) error = NULL;
      g_autoptr (GBytes) copy = ferry_buffer_spend (buffer, &error);

      ferry_assert_no_error (error);
      ck_assert (g_bytes_equal (copy, bytes));
      ck_assert_uint_eq (ferry_buffer_get_size (buffer), 3);
    }
}
END_TEST

START_TEST (test_set_by_transports)
{
  g_autoptr (FerryBuffer) buffer = ferry_buffer_new (1);

  ferry_buffer_set_sequence (buffer, G_MAXUINT64);
  ck_assert_uint_eq (ferry_buffer_get_sequence (buffer), G_MAXUINT64);
  ferry_buffer_set_sender (buffer, 9);
  ck_assert_uint_eq (ferry_buffer_get_sender (buffer), 9);
  ck_assert_uint_eq (ferry_buffer_get_address (buffer), GPOINTER_TO_SIZE (ferry_buffer_get_data (buffer, NULL)));
}
END_TEST

static void
add (Suite *suite)
{
  const TTest *const making[]
      = { test_new, test_new_bytes, test_new_take, test_many_from_another_thread, test_nothing_is_remembered, NULL };
  const TTest *const references[] = { test_references, test_references_in_threads, NULL };
  const TTest *const contents[]
      = { test_set_size,          test_fill, test_bytes, test_wire_name, test_timestamp, test_spend, test_spend_other,
          test_set_by_transports, NULL };

  ferry_test_add_case (suite, "making", 20, making);
  ferry_test_add_case (suite, "references", 60, references);
  ferry_test_add_case (suite, "contents", 20, contents);
}

int
main (void)
{
  return ferry_test_run ("buffer", add);
}
