/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ferry-test.h"

#include "ferry-store-private.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

/* The heap alone: a store over a file of its own in memory, whose segment has nothing but records and the calls that
 * give it pages. */

#define MIB (G_GUINT64_CONSTANT (1) << 20)
#define SPAN FERRY_STORE_SPAN_SIZE
#define N_SPANS (32768)                               /* 512 MiB */
#define LIVENESS_OFFSET (G_GINT64_CONSTANT (1) << 62) /* of ferry-segment.c */

typedef struct
{
  int fd;
  guint8 *memory;
  guint64 size;
  FerrySegmentShared *shared;
  FerryParticipantRecord *records;
  _Atomic guint64 *fail_after;  /* bytes that may be committed yet */
  _Atomic guint64 *n_committed; /* calls */
  _Atomic guint64 *decommitted; /* bytes */
  guint8 *pages;                /* which are committed */
  gboolean hostile;             /* the heap can't know which those are */
  gpointer common;              /* for the test's own use, shared */
} World;

#define COMMON_SIZE (4 * MIB)

static World world;

static gboolean
fake_commit (FerrySegmentTransport *transport, FerrySegmentArea area, guint64 offset, guint64 size, GError **error)
{
  guint64 wanted = 0;

  (void) transport;
  ck_assert_int_eq (area, FERRY_SEGMENT_AREA_DATA);
  ck_assert_uint_eq (offset % 4096, 0);
  ck_assert_uint_eq (size % 4096, 0);
  ck_assert_uint_gt (size, 0);
  ck_assert_uint_le (offset + size, world.size);
  for (guint64 page = offset / 4096; page < (offset + size) / 4096; page++)
    wanted += world.pages[page] ? 0 : 4096;
  if (wanted > atomic_load (world.fail_after))
    {
      g_set_error (error, FERRY_ERROR, FERRY_ERROR_NO_SPACE, "/dev/shm is full");
      return FALSE;
    }
  memset (world.pages + offset / 4096, 1, size / 4096);
  atomic_fetch_sub (world.fail_after, wanted);
  atomic_fetch_add (world.n_committed, 1);
  return TRUE;
}

static gboolean
fake_decommit (FerrySegmentTransport *transport, FerrySegmentArea area, guint64 offset, guint64 size, GError **error)
{
  (void) transport;
  (void) area;
  (void) error;
  ck_assert_int_eq (fallocate (world.fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, size), 0);
  for (guint64 page = offset / 4096; page < (offset + size) / 4096; page++)
    {
      ck_assert (world.pages[page] || world.hostile);
      world.pages[page] = 0;
    }
  atomic_fetch_add (world.fail_after, size);
  atomic_fetch_add (world.decommitted, size);
  return TRUE;
}

static FerrySegmentTransportClass fake_class = { .commit_pages = fake_commit, .decommit_pages = fake_decommit };

static gpointer
map_anonymous (gsize size)
{
  gpointer memory = mmap (NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

  ck_assert_ptr_ne (memory, MAP_FAILED);
  return memory;
}

static void
make_world (guint64 max_bytes)
{
  guint64 heap_offset = FERRY_STORE_OFFSET_SPANS + N_SPANS * 64;
  FerryStoreHeader *header;
  guint8 *control = map_anonymous (FERRY_MAX_PARTICIPANTS * FERRY_PARTICIPANT_STRIDE + 8192);

  world.size = heap_offset + (guint64) N_SPANS * SPAN;
  world.fd = memfd_create ("test-store-heap", MFD_CLOEXEC);
  ck_assert_int_ge (world.fd, 0);
  ck_assert_int_eq (ftruncate (world.fd, world.size), 0);
  world.memory = mmap (NULL, world.size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, world.fd, 0);
  ck_assert_ptr_ne (world.memory, MAP_FAILED);
  world.shared = (FerrySegmentShared *) (void *) control;
  world.fail_after = (_Atomic guint64 *) (void *) (control + 4096);
  world.n_committed = world.fail_after + 1;
  world.decommitted = world.fail_after + 2;
  world.records = (FerryParticipantRecord *) (void *) (control + 8192);
  world.common = map_anonymous (COMMON_SIZE);
  world.pages = map_anonymous (world.size / 4096);
  atomic_store (world.fail_after, G_MAXUINT64 / 2);
  header = (FerryStoreHeader *) (void *) world.memory;
  header->heap_offset = heap_offset;
  header->n_spans = N_SPANS;
  header->max_bytes = max_bytes;
}

/* A participant as the heap needs it; its lock of life is a byte of the file, as with a real one. */
static FerryStore *
make_store (guint id, guint32 incarnation)
{
  FerryStore *store = g_new0 (FerryStore, 1);
  FerrySegment *segment = g_new0 (FerrySegment, 1);
  GError *error = NULL;
  guint32 n_records = atomic_load (&world.shared->n_records);
  char path[64];

  g_snprintf (path, sizeof path, "/proc/self/fd/%d", world.fd);
  segment->klass = &fake_class;
  segment->shared = world.shared;
  segment->records = world.records;
  segment->id = id;
  segment->incarnation = incarnation;
  segment->joined = TRUE;
  segment->label = g_strdup ("store 'test'");
  segment->lock_fd = open (path, O_RDWR | O_CLOEXEC);
  ck_assert_int_ge (segment->lock_fd, 0);
  /* One participant at a time is added here. */
  atomic_store (&world.shared->n_records, MAX (n_records, id + 1));
  atomic_store (&world.records[id].word, ferry_record_word (incarnation, FERRY_ROLE_SENDER, FERRY_RECORD_ACTIVE));

  store->segment = segment;
  store->label = g_strdup (segment->label);
  store->base = world.memory;
  store->data_size = world.size;
  store->header = (FerryStoreHeader *) (void *) world.memory;
  store->heap_offset = store->header->heap_offset;
  store->max_bytes = store->header->max_bytes;
  store->me = ferry_store_at (store, FERRY_STORE_OFFSET_SLOTS + id * FERRY_STORE_SLOT_SIZE);
  store->owner_bits = (guint64) (incarnation & FERRY_LOCK_INCARNATION_MASK) << FERRY_LOCK_INCARNATION_SHIFT
                      | id << FERRY_LOCK_OWNER_SHIFT;
  atomic_fetch_or (&store->header->slots_ready[id / 64], G_GUINT64_CONSTANT (1) << (id % 64));
  if (atomic_load (&store->header->heap_end) == 0)
    ck_assert (ferry_store_heap_format (store, NULL));
  ferry_store_heap_attach (store, &error);
  ferry_assert_no_error (error);
  return store;
}

/* In the process that @store belongs to: a lock of life as that of a real participant, at the same place. */
static void
come_alive (FerryStore *store)
{
  struct flock lock
      = { .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = LIVENESS_OFFSET + store->segment->id, .l_len = 1 };
  char path[64];

  g_snprintf (path, sizeof path, "/proc/self/fd/%d", world.fd);
  close (store->segment->lock_fd);
  store->segment->lock_fd = open (path, O_RDWR | O_CLOEXEC);
  if (store->segment->lock_fd < 0 || fcntl (store->segment->lock_fd, F_OFD_SETLK, &lock) != 0)
    _exit (77);
}

static void
free_store (FerryStore *store)
{
  ferry_store_heap_detach (store);
  close (store->segment->lock_fd);
  g_free (store->segment->label);
  g_free (store->segment);
  g_free (store->label);
  g_free (store);
}

static void
verify (FerryStore *store, FerryMarks *marks, gboolean leaks)
{
  GError *error = NULL;

  ferry_store_heap_verify (store, marks, leaks, &error);
  ferry_assert_no_error (error);
}

/* ---- blocks with a content that can be checked ---- */

typedef struct
{
  guint64 block;
  gsize size;
  guint64 seed;
} Piece;

static inline guint64
next_random (guint64 *state)
{
  *state ^= *state << 13;
  *state ^= *state >> 7;
  *state ^= *state << 17;
  return *state;
}

/* Every byte of a small block, some of each page of a large one. */
static void
fill (FerryStore *store, const Piece *piece)
{
  guint8 *data = ferry_store_at (store, piece->block);

  for (gsize i = 0; i<piece->size; i += piece->size> 65536 ? 509 : 1)
    data[i] = (guint8) (piece->seed + i * 31);
  data[piece->size - 1] = (guint8) piece->seed;
}

static gboolean
is_intact (FerryStore *store, const Piece *piece)
{
  const guint8 *data = ferry_store_at (store, piece->block);

  for (gsize i = 0; i + 1 < piece->size; i += piece->size > 65536 ? 509 : 1)
    if (data[i] != (guint8) (piece->seed + i * 31))
      return FALSE;
  return data[piece->size - 1] == (guint8) piece->seed;
}

static gsize
random_size (guint64 *state)
{
  guint64 r = next_random (state);
  guint bits = r % 100 < 90 ? 1 + r / 128 % 9 : r % 100 < 98 ? 8 + r / 128 % 8 : 14 + r / 128 % 9;

  return 1 + next_random (state) % (G_GUINT64_CONSTANT (1) << bits);
}

static gboolean
make_piece (FerryStore *store, gsize size, guint64 seed, Piece *piece, GError **error)
{
  piece->size = size;
  piece->seed = seed;
  piece->block = ferry_store_heap_alloc (store, size, error);
  if (piece->block == 0)
    return FALSE;
  ck_assert_uint_eq (piece->block % (size >= 64 ? 64 : 16), 0);
  ck_assert_uint_ge (ferry_store_heap_block_size (store, piece->block), size);
  ck_assert (ferry_store_in_heap (store, piece->block, size));
  fill (store, piece);
  return TRUE;
}

static void
drop_piece (FerryStore *store, Piece *piece)
{
  ck_assert (is_intact (store, piece));
  ferry_store_heap_free (store, piece->block);
  piece->block = 0;
}

/* What the heap has to think is in use. */
static guint64
bytes_in (FerryStore *store, const Piece *pieces, guint n)
{
  guint64 bytes = 0;

  for (guint i = 0; i < n; i++)
    if (pieces[i].block != 0)
      bytes += ferry_store_heap_block_size (store, pieces[i].block);
  return bytes;
}

static FerryMarks *
mark_pieces (FerryStore *store, const Piece *pieces, guint n)
{
  FerryMarks *marks = ferry_store_heap_marks_new (store);

  for (guint i = 0; i < n; i++)
    if (pieces[i].block != 0)
      {
        ck_assert (ferry_store_heap_mark (store, marks, pieces[i].block));
        ck_assert (!ferry_store_heap_mark (store, marks, pieces[i].block));
      }
  return marks;
}

static void
check_all (FerryStore *store, const Piece *pieces, guint n)
{
  FerryMarks *marks = mark_pieces (store, pieces, n);

  verify (store, marks, TRUE);
  ferry_store_heap_marks_free (marks);
  ck_assert_uint_eq (ferry_store_heap_bytes_used (store), bytes_in (store, pieces, n));
  ck_assert_uint_le (ferry_store_heap_bytes_committed (store), store->max_bytes);
  for (guint i = 0; i < n; i++)
    ck_assert (pieces[i].block == 0 || is_intact (store, &pieces[i]));
}

/* ---- tests ---- */

START_TEST (test_sizes)
{
  FerryStore *store;
  Piece pieces[8192 / 8 + 24] = { 0 };
  guint n = 0;

  make_world (256 * MIB);
  store = make_store (0, 1);
  ck_assert_uint_eq (ferry_store_heap_bytes_used (store), 0);
  for (gsize size = 1; size <= 8192; size += 8)
    {
      ck_assert (make_piece (store, size, size, &pieces[n++], NULL));
      /* nothing is more than a half larger than asked for, but the smallest */
      if (size > 192)
        ck_assert_uint_le (ferry_store_heap_block_size (store, pieces[n - 1].block), size + size / 2 + 64);
    }
  for (gsize size = 8193; size <= 64 * MIB; size *= 3)
    {
      ck_assert (make_piece (store, size, size, &pieces[n++], NULL));
      ck_assert_uint_lt (ferry_store_heap_block_size (store, pieces[n - 1].block), size + SPAN);
    }
  check_all (store, pieces, n);
  for (guint i = 0; i < n; i++)
    {
      ck_assert_uint_eq (ferry_store_heap_block_size (store, pieces[i].block + 8), 0);
      ck_assert_uint_eq (ferry_store_heap_block_size (store, pieces[i].block + 1), 0);
      drop_piece (store, &pieces[i]);
    }
  check_all (store, pieces, n);
  ck_assert_uint_eq (ferry_store_heap_block_size (store, 0), 0);
  ck_assert_uint_eq (ferry_store_heap_block_size (store, G_MAXUINT64), 0);
  ck_assert_uint_eq (ferry_store_heap_block_size (store, world.size - SPAN), 0);
  free_store (store);
}
END_TEST

START_TEST (test_random)
{
  FerryStore *store;
  const guint n = 4000;
  Piece *pieces = g_new0 (Piece, n);
  guint64 state = 4711;
  guint rounds = ferry_test_is_thorough () ? 2000000 : ferry_test_is_valgrind () ? 20000 : 200000;

  make_world (300 * MIB);
  store = make_store (3, 1);
  for (guint round = 0; round < rounds; round++)
    {
      Piece *piece = &pieces[next_random (&state) % n];

      if (piece->block != 0)
        drop_piece (store, piece);
      else
        make_piece (store, random_size (&state), next_random (&state), piece, NULL);
      if (round % (rounds / 10) == 0)
        check_all (store, pieces, n);
      if (round % (rounds / 7) == 0)
        {
          ferry_store_heap_trim (store, next_random (&state) % (8 * MIB));
          check_all (store, pieces, n);
        }
    }
  check_all (store, pieces, n);
  for (guint i = 0; i < n; i++)
    if (pieces[i].block != 0)
      drop_piece (store, &pieces[i]);
  check_all (store, pieces, n);
  ferry_store_heap_trim (store, 0);
  ck_assert_uint_eq (ferry_store_heap_bytes_committed (store), 0);
  check_all (store, pieces, n);
  g_free (pieces);
  free_store (store);
}
END_TEST

/* What two processes take, either gives back. */
START_TEST (test_two_processes)
{
  enum
  {
    N = 2048
  };
  typedef struct
  {
    _Atomic guint32 turn[N]; /* 0: free, 1: somebody is at it, 2: a piece lies here */
    Piece pieces[N];
  } Table;
  Table *table;
  guint rounds = ferry_test_is_thorough () ? 3000000 : ferry_test_is_valgrind () ? 10000 : 300000;
  pid_t children[2];
  /* static: a child that exits has not lost them */
  static FerryStore *store;
  static FerryStore *owns[2];

  make_world (200 * MIB);
  G_STATIC_ASSERT (sizeof (Table) <= COMMON_SIZE);
  table = world.common;
  store = make_store (0, 1);
  come_alive (store);
  for (guint child = 0; child < 2; child++)
    {
      FerryStore *own = owns[child] = make_store (child + 1, 1);

      children[child] = fork ();
      ck_assert_int_ge (children[child], 0);
      if (children[child] == 0)
        {
          guint64 state = 100 + child;

          come_alive (own);
          ferry_store_heap_attach (own, NULL);
          for (guint round = 0; round < rounds; round++)
            {
              guint i = next_random (&state) % N;
              guint32 turn = atomic_load (&table->turn[i]);

              if (turn == 1 || !atomic_compare_exchange_strong (&table->turn[i], &turn, 1))
                continue;
              if (turn == 2)
                {
                  if (!is_intact (own, &table->pieces[i]))
                    _exit (2);
                  ferry_store_heap_free (own, table->pieces[i].block);
                  table->pieces[i].block = 0;
                  atomic_store (&table->turn[i], 0);
                }
              else if (make_piece (own, MIN (random_size (&state), MIB), next_random (&state), &table->pieces[i], NULL))
                atomic_store (&table->turn[i], 2);
              else
                _exit (3);
            }
          _exit (0);
        }
    }
  for (guint child = 0; child < 2; child++)
    {
      int status;

      ck_assert_int_eq (waitpid (children[child], &status, 0), children[child]);
      ck_assert_int_eq (status, 0);
      free_store (owns[child]);
    }
  check_all (store, table->pieces, N);
  /* They are gone; a third one frees all, and has all. */
  ferry_store_heap_abandon (store, 1);
  ferry_store_heap_abandon (store, 2);
  check_all (store, table->pieces, N);
  for (guint i = 0; i < N; i++)
    if (table->pieces[i].block != 0)
      drop_piece (store, &table->pieces[i]);
  check_all (store, table->pieces, N);
  ferry_store_heap_trim (store, 0);
  ck_assert_uint_eq (ferry_store_heap_bytes_committed (store), 0);
  ck_assert_uint_eq (ferry_store_heap_bytes_used (store), 0);
  free_store (store);
}
END_TEST

/* Blocks that another participant gives back are found again: the heap doesn't grow. */
START_TEST (test_given_back_by_another)
{
  FerryStore *one;
  FerryStore *two;
  guint64 blocks[5000];
  guint64 committed = 0;

  make_world (64 * MIB);
  one = make_store (0, 1);
  two = make_store (1, 1);
  for (guint round = 0; round < 50; round++)
    {
      for (guint i = 0; i < G_N_ELEMENTS (blocks); i++)
        {
          blocks[i] = i % 7 == 0 ? ferry_store_heap_alloc_object (one, NULL)
                                 : ferry_store_heap_alloc (one, 1 + i % 300, NULL);
          ck_assert_uint_ne (blocks[i], 0);
        }
      if (round == 1)
        committed = ferry_store_heap_bytes_committed (one);
      else if (round > 1)
        ck_assert_uint_le (ferry_store_heap_bytes_committed (one), committed + committed / 8);
      for (guint i = 0; i < G_N_ELEMENTS (blocks); i++)
        if (i % 7 == 0)
          ferry_store_heap_free_object (two, blocks[i]);
        else
          ferry_store_heap_free (two, blocks[i]);
      ck_assert_uint_eq (ferry_store_heap_bytes_used (two), 0);
      verify (two, NULL, FALSE);
    }
  free_store (two);
  free_store (one);
}
END_TEST

START_TEST (test_bound)
{
  const guint64 bound = 16 * MIB;
  FerryStore *store;
  g_autofree Piece *pieces = g_new0 (Piece, 200000);
  guint n = 0;
  GError *error = NULL;
  Piece large;

  make_world (bound);
  store = make_store (0, 1);
  /* more than there can be */
  ck_assert_uint_eq (ferry_store_heap_alloc (store, bound + 1, &error), 0);
  ferry_assert_error (error, FERRY_ERROR, FERRY_ERROR_NO_SPACE);
  ferry_assert_contains (error->message, "store 'test'");
  ferry_assert_contains (error->message, "16777216");
  g_clear_error (&error);
  ck_assert_uint_eq (ferry_store_heap_alloc (store, G_MAXSIZE, &error), 0);
  ferry_assert_error (error, FERRY_ERROR, FERRY_ERROR_NO_SPACE);
  g_clear_error (&error);
  ck_assert_uint_eq (ferry_store_heap_bytes_committed (store), 0);

  for (guint size = 100; size <= 100000; size *= 10)
    {
      while (make_piece (store, size, n, &pieces[n], &error))
        n++;
      ferry_assert_error (error, FERRY_ERROR, FERRY_ERROR_NO_SPACE);
      g_clear_error (&error);
      ck_assert_uint_gt (ferry_store_heap_bytes_used (store), bound - bound / 8);
      check_all (store, pieces, n);
      /* Every other one: what is free is scattered, but smaller ones find room. */
      for (guint i = 0; i < n; i += 2)
        drop_piece (store, &pieces[i]);
      check_all (store, pieces, n);
      ck_assert (make_piece (store, 16, 1, &pieces[0], NULL));
      for (guint i = 0; i < n; i++)
        if (pieces[i].block != 0)
          drop_piece (store, &pieces[i]);
      check_all (store, pieces, n);
      n = 0;
      /* All of it in one piece, which needs what was in small spans. */
      ck_assert (make_piece (store, bound, 5, &large, &error));
      drop_piece (store, &large);
    }
  free_store (store);
}
END_TEST

/* Free memory that lies apart is given back for a large piece elsewhere: the bound is on what is real. */
START_TEST (test_scattered)
{
  const guint64 bound = 16 * MIB;
  FerryStore *store;
  Piece pieces[128];
  Piece large;
  guint n = 0;

  make_world (bound);
  store = make_store (0, 1);
  while (n < G_N_ELEMENTS (pieces) && make_piece (store, 8 * SPAN, n, &pieces[n], NULL))
    n++;
  ck_assert_uint_eq (n, 128);
  ck_assert_uint_eq (ferry_store_heap_bytes_committed (store), bound);
  for (guint i = 0; i < n; i += 2)
    drop_piece (store, &pieces[i]);
  ck_assert (make_piece (store, bound / 2, 77, &large, NULL));
  verify (store, NULL, FALSE);
  ck_assert_uint_eq (ferry_store_heap_bytes_committed (store), bound);
  ck_assert_uint_ge (atomic_load (world.decommitted), bound / 2);
  for (guint i = 1; i < n; i += 2)
    drop_piece (store, &pieces[i]);
  drop_piece (store, &large);
  verify (store, NULL, FALSE);
  free_store (store);
}
END_TEST

/* /dev/shm is full before the bound is reached. */
START_TEST (test_no_pages)
{
  FerryStore *store;
  Piece pieces[1000] = { 0 };
  Piece large;
  guint n = 0;
  GError *error = NULL;

  make_world (256 * MIB);
  store = make_store (0, 1);
  atomic_store (world.fail_after, 4 * MIB);
  while (make_piece (store, 3 * SPAN, n, &pieces[n], &error))
    n++;
  ferry_assert_error (error, FERRY_ERROR, FERRY_ERROR_NO_SPACE);
  ferry_assert_contains (error->message, "/dev/shm is full");
  g_clear_error (&error);
  ck_assert_uint_ge (n, 80);
  check_all (store, pieces, n);
  for (guint i = 0; i < n; i += 2)
    drop_piece (store, &pieces[i]);
  /* What others have not is in our own free spans. */
  ck_assert (make_piece (store, 30 * SPAN, 8, &large, &error));
  ck_assert_uint_eq (ferry_store_heap_alloc (store, 64 * MIB, &error), 0);
  ferry_assert_error (error, FERRY_ERROR, FERRY_ERROR_NO_SPACE);
  g_clear_error (&error);
  verify (store, NULL, FALSE);
  atomic_store (world.fail_after, G_MAXUINT64 / 2);
  drop_piece (store, &large);
  ck_assert (make_piece (store, 64 * MIB, 9, &large, &error));
  drop_piece (store, &large);
  for (guint i = 0; i < n; i++)
    if (pieces[i].block != 0)
      drop_piece (store, &pieces[i]);
  check_all (store, pieces, n);
  free_store (store);
}
END_TEST

START_TEST (test_trim)
{
  FerryStore *store;
  Piece pieces[64];
  guint64 before;

  make_world (128 * MIB);
  store = make_store (0, 1);
  for (guint i = 0; i < G_N_ELEMENTS (pieces); i++)
    ck_assert (make_piece (store, MIB, i, &pieces[i], NULL));
  for (guint i = 0; i < G_N_ELEMENTS (pieces) - 1; i++)
    drop_piece (store, &pieces[i]);
  before = ferry_store_heap_bytes_committed (store);
  ck_assert_uint_eq (ferry_store_heap_trim (store, 8 * MIB), before - 9 * MIB);
  ck_assert_uint_eq (ferry_store_heap_bytes_committed (store), 9 * MIB);
  ck_assert_uint_eq (ferry_store_heap_trim (store, 8 * MIB), 0);
  check_all (store, &pieces[63], 1);
  for (guint i = 0; i < G_N_ELEMENTS (pieces) - 1; i++)
    ck_assert (make_piece (store, MIB, i, &pieces[i], NULL));
  check_all (store, pieces, G_N_ELEMENTS (pieces));
  ck_assert_uint_eq (ferry_store_heap_bytes_committed (store), before);
  free_store (store);
}
END_TEST

START_TEST (test_heads)
{
  FerryStore *store;
  FerryStore *other;
  guint64 heads[1000];
  guint64 block;

  make_world (16 * MIB);
  store = make_store (0, 1);
  other = make_store (1, 1);
  /* memory that was something else */
  block = ferry_store_heap_alloc (store, 4 * MIB, NULL);
  memset (ferry_store_at (store, block), 0xff, 4 * MIB);
  ferry_store_heap_free (store, block);
  for (guint i = 0; i < G_N_ELEMENTS (heads); i++)
    {
      FerryObject *object;

      heads[i] = ferry_store_heap_alloc_object (store, NULL);
      ck_assert (ferry_store_heap_is_object (store, heads[i]));
      ck_assert (!ferry_store_heap_is_object (store, heads[i] + 16));
      ck_assert_uint_eq (ferry_store_heap_block_size (store, heads[i]), 0);
      object = ferry_store_object (store, heads[i]);
      ck_assert_uint_eq (atomic_load (&object->lock), 0);
      ck_assert_uint_eq (atomic_load (&object->count), 0);
      ck_assert_int_eq (ferry_object_kind (object), FERRY_OBJECT_FREE);
      atomic_store (&object->lock, FERRY_LOCK_VERSION_ONE * (i + 1));
      atomic_store (&object->kind, FERRY_OBJECT_LIST);
    }
  for (guint i = 0; i < G_N_ELEMENTS (heads); i++)
    ferry_store_heap_free_object (i % 2 != 0 ? store : other, heads[i]);
  verify (store, NULL, FALSE);
  ferry_store_heap_trim (store, 0);
  /* still heads, with their versions */
  for (guint i = 0; i < G_N_ELEMENTS (heads); i++)
    {
      FerryObject *object = ferry_store_object (store, heads[i]);

      ck_assert (ferry_store_heap_is_object (store, heads[i]));
      ck_assert_uint_eq (atomic_load (&object->lock), FERRY_LOCK_VERSION_ONE * (i + 1));
      ck_assert_int_eq (ferry_object_kind (object), FERRY_OBJECT_FREE);
    }
  ck_assert_uint_eq (ferry_store_heap_bytes_used (store), 0);
  free_store (other);
  free_store (store);
}
END_TEST

/* Only what was marked is left, whoever had it; and the others find what became free. */
START_TEST (test_sweep)
{
  FerryStore *stores[2];
  g_autofree Piece *pieces = g_new0 (Piece, 6000);
  guint64 heads[500];
  guint64 state = 99;
  guint64 lost = 0;
  guint64 freed = 0;
  guint64 committed;
  FerryMarks *marks;

  make_world (128 * MIB);
  stores[0] = make_store (0, 1);
  stores[1] = make_store (1, 1);
  for (guint i = 0; i < 6000; i++)
    ck_assert (make_piece (stores[i % 2], MIN (random_size (&state), 100000), i, &pieces[i], NULL));
  for (guint i = 0; i < G_N_ELEMENTS (heads); i++)
    {
      heads[i] = ferry_store_heap_alloc_object (stores[i % 2], NULL);
      atomic_store (&ferry_store_object (stores[0], heads[i])->kind, FERRY_OBJECT_LIST);
      atomic_store (&ferry_store_object (stores[0], heads[i])->count, 3);
    }
  for (guint i = 0; i < 6000; i++)
    if (i % 3 == 0)
      drop_piece (stores[i / 3 % 2], &pieces[i]);
    else if (i % 3 == 1)
      {
        lost += ferry_store_heap_block_size (stores[0], pieces[i].block);
        pieces[i].block = 0;
      }
  marks = mark_pieces (stores[0], pieces, 6000);
  for (guint i = 0; i < G_N_ELEMENTS (heads); i++)
    if (i % 2 == 0)
      ck_assert (ferry_store_heap_mark (stores[0], marks, heads[i]));
    else
      lost += 64;
  ck_assert (!ferry_store_heap_verify (stores[0], marks, TRUE, NULL));
  verify (stores[0], marks, FALSE);
  ck_assert (ferry_store_heap_sweep (stores[0], marks, &freed, NULL));
  ck_assert_uint_eq (freed, lost);
  verify (stores[1], marks, TRUE);
  for (guint i = 0; i < G_N_ELEMENTS (heads); i++)
    {
      FerryObject *object = ferry_store_object (stores[0], heads[i]);

      ck_assert_int_eq (ferry_object_kind (object), i % 2 == 0 ? FERRY_OBJECT_LIST : FERRY_OBJECT_FREE);
      ck_assert_uint_eq (atomic_load (&object->count), i % 2 == 0 ? 3 : 0);
      ck_assert_uint_eq (atomic_load (&object->lock), i % 2 == 0 ? 0 : FERRY_LOCK_VERSION_ONE);
    }
  ck_assert_uint_eq (ferry_store_heap_bytes_used (stores[1]), bytes_in (stores[1], pieces, 6000) + 250 * 64);
  ferry_store_heap_marks_free (marks);

  committed = ferry_store_heap_bytes_committed (stores[0]);
  state = 99;
  for (guint i = 0; i < 6000; i++)
    {
      gsize size = MIN (random_size (&state), 100000);

      if (i % 3 != 2)
        ck_assert (make_piece (stores[i % 2], size, i, &pieces[i], NULL));
    }
  ck_assert_uint_le (ferry_store_heap_bytes_committed (stores[0]), committed + committed / 8);
  for (guint i = 0; i < 6000; i++)
    drop_piece (stores[i / 2 % 2], &pieces[i]);
  verify (stores[0], NULL, FALSE);
  free_store (stores[1]);
  free_store (stores[0]);
}
END_TEST

/* Processes are killed while they take and give; the others go on, and a sweep finds what was lost. */
START_TEST (test_killed)
{
  FerryStore *store;
  guint n_kills = ferry_test_is_thorough () ? 200 : ferry_test_is_valgrind () ? 3 : 25;
  Piece *kept = g_new0 (Piece, 500);
  guint64 state = 31;

  make_world (64 * MIB);
  store = make_store (0, 1);
  come_alive (store);
  for (guint i = 0; i < 500; i++)
    ck_assert (make_piece (store, MIN (random_size (&state), 20000), i, &kept[i], NULL));
  for (guint round = 0; round < n_kills; round++)
    {
      FerryStore *own = make_store (1, round + 1);
      _Atomic guint32 *going = world.common;
      FerryMarks *marks;
      pid_t child;

      atomic_store (going, 0);
      child = fork ();
      ck_assert_int_ge (child, 0);
      if (child == 0)
        {
          Piece pieces[64] = { 0 };
          guint64 random = round + 1;

          come_alive (own);
          ferry_store_heap_attach (own, NULL);
          for (;;)
            {
              Piece *piece = &pieces[next_random (&random) % 64];

              if (piece->block != 0)
                ferry_store_heap_free (own, piece->block);
              piece->block = ferry_store_heap_alloc (own, next_random (&random) % 3 ? 20 : 40000, NULL);
              atomic_store (going, 1);
            }
        }
      while (atomic_load (going) == 0)
        g_usleep (100);
      for (guint i = 0; i < 300; i++)
        {
          Piece *piece = &kept[next_random (&state) % 500];

          drop_piece (store, piece);
          ck_assert (make_piece (store, MIN (random_size (&state), 20000), i, piece, NULL));
        }
      kill (child, SIGKILL);
      ck_assert_int_eq (waitpid (child, NULL, 0), child);
      /* what a repair does */
      ferry_store_heap_abandon (store, 1);
      for (guint i = 0; i < 300; i++)
        {
          Piece *piece = &kept[next_random (&state) % 500];

          drop_piece (store, piece);
          ck_assert (make_piece (store, MIN (random_size (&state), 20000), i, piece, NULL));
        }
      marks = mark_pieces (store, kept, 500);
      verify (store, marks, FALSE);
      ferry_store_heap_sweep (store, marks, NULL, NULL);
      ferry_store_heap_marks_free (marks);
      check_all (store, kept, 500);
      free_store (own);
    }
  g_free (kept);
  free_store (store);
}
END_TEST

static FerryRef
make_slot (FerryStore *store, FerryCell value, guint32 count)
{
  FerryRef ref = ferry_store_heap_alloc_object (store, NULL);
  FerryObject *object = ferry_store_object (store, ref);

  ck_assert_ptr_nonnull (object);
  atomic_store (&object->body, value);
  atomic_store (&object->shape, FERRY_CELL_EMPTY);
  atomic_store (&object->count, count);
  atomic_store (&object->kind, FERRY_OBJECT_SLOT);
  return ref;
}

static FerryCell
make_leaf (FerryStore *store, const FerryRef *refs, guint n_refs, gsize size)
{
  guint64 block = ferry_store_heap_alloc (store, sizeof (FerryLeaf) + n_refs * sizeof *refs + size, NULL);
  FerryLeaf *leaf = ferry_store_at (store, block);

  ck_assert_uint_ne (block, 0);
  *leaf = (FerryLeaf){ .kind = FERRY_LEAF_TUPLE, .n_refs = n_refs, .size = size };
  if (n_refs > 0)
    memcpy (leaf->data, refs, n_refs * sizeof *refs);
  return FERRY_CELL (FERRY_CELL_LEAF, block);
}

static guint32
count_of (FerryStore *store, FerryRef ref)
{
  FerryObject *object = ferry_store_object (store, ref);

  return ferry_object_kind (object) == FERRY_OBJECT_FREE ? 0 : atomic_load (&object->count);
}

#define REFERENCE(ref) FERRY_CELL (FERRY_CELL_OBJECT, (ref))

/* A chain that no stack would hold, leaves with references, cycles, handles; counts that deaths left too high. */
START_TEST (test_collect)
{
  const guint n = ferry_test_is_valgrind () ? 2000 : 300000;
  FerryStore *store;
  FerryStore *other;
  FerryRef last;
  FerryRef ref;
  FerryRef held;
  FerryRef cycle;
  FerryRef twice;
  FerryRef refs[3];
  FerryCell lost_leaf;
  guint64 used;
  guint64 *handles;
  GError *error = NULL;

  make_world (256 * MIB);
  store = make_store (0, 1);
  other = make_store (1, 1);

  held = make_slot (other, FERRY_CELL_NONE, 9);
  twice = make_slot (store, make_leaf (other, NULL, 0, 100), 2);
  refs[0] = twice;
  refs[1] = twice;
  refs[2] = make_slot (store, make_leaf (store, NULL, 0, 40000), 1);
  last = make_slot (store, make_leaf (store, refs, 3, 10), 5);
  ref = last;
  for (guint i = 0; i < n; i++)
    ref = make_slot (i % 2 ? store : other, REFERENCE (ref), 1);
  atomic_store (&store->header->root, ref);
  atomic_store (&other->me->handle_chunks[0],
                ferry_store_heap_alloc (other, FERRY_STORE_FIRST_CHUNK * sizeof (guint64), NULL));
  handles = ferry_store_at (store, atomic_load (&other->me->handle_chunks[0]));
  memset (handles, 0, FERRY_STORE_FIRST_CHUNK * sizeof (guint64));
  handles[63] = held;
  handles[5] = last;
  used = ferry_store_heap_bytes_used (store);

  cycle = make_slot (store, FERRY_CELL_NONE, 1);
  atomic_store (&ferry_store_object (store, cycle)->body, REFERENCE (make_slot (other, REFERENCE (cycle), 1)));
  lost_leaf = make_leaf (other, &held, 1, 20000);
  atomic_store (&store->header->needs_collect, 1);

  for (guint round = 0; round < 2; round++)
    {
      ferry_store_collect_held (store, &error);
      ferry_assert_no_error (error);
      verify (other, NULL, FALSE);
      ck_assert_uint_eq (ferry_store_heap_bytes_used (store), used);
      ck_assert_uint_eq (atomic_load (&store->header->needs_collect), 0);
      ck_assert_uint_eq (count_of (store, held), 1);
      ck_assert_uint_eq (count_of (store, twice), 2);
      ck_assert_uint_eq (count_of (store, refs[2]), 1);
      ck_assert_uint_eq (count_of (store, last), 2);
      ck_assert_uint_eq (count_of (store, ref), 1);
      ck_assert_uint_eq (count_of (store, cycle), 0);
      ck_assert_uint_eq (ferry_store_heap_block_size (store, ferry_cell_payload (lost_leaf)), 0);
    }

  /* It is gone: what it held is not kept. */
  atomic_store (&world.records[1].word, ferry_record_word (1, FERRY_ROLE_SENDER, FERRY_RECORD_FREE));
  atomic_store (&store->header->root, 0);
  ferry_store_collect_held (store, &error);
  ferry_assert_no_error (error);
  ck_assert_uint_eq (ferry_store_heap_bytes_used (store), 0);
  verify (store, NULL, FALSE);

  /* A reference to nothing is told, and stops nothing. */
  ref = make_slot (store, REFERENCE (64 * 1000), 1);
  atomic_store (&store->header->root, ref);
  make_slot (store, FERRY_CELL_NONE, 1);
  ck_assert (!ferry_store_collect_held (store, &error));
  ferry_assert_error (error, FERRY_ERROR, FERRY_ERROR_CORRUPT);
  g_clear_error (&error);
  ck_assert_uint_eq (ferry_store_heap_bytes_used (store), FERRY_STORE_OBJECT_SIZE);
  free_store (other);
  free_store (store);
}
END_TEST

/* Whatever somebody writes over what the heap knows: no crash, no access outside, no call without an end. */
START_TEST (test_hostile)
{
  FerryStore *store;
  FerryStore *other;
  guint64 state = 5;
  guint rounds = ferry_test_is_thorough () ? 3000 : 300;

  for (guint round = 0; round < rounds; round++)
    {
      guint64 blocks[300];
      guint64 *header;
      guint64 *spans;
      GError *error = NULL;

      make_world (8 * MIB);
      world.hostile = TRUE;
      store = make_store (0, 1);
      other = make_store (1, 1);
      header = (guint64 *) (void *) store->header->heap;
      spans = ferry_store_at (store, FERRY_STORE_OFFSET_SPANS);
      for (guint i = 0; i < G_N_ELEMENTS (blocks); i++)
        blocks[i] = ferry_store_heap_alloc (i % 2 ? store : other, next_random (&state) % 30000, NULL);
      for (guint i = 0; i < G_N_ELEMENTS (blocks); i++)
        {
          guint64 value = next_random (&state);

          switch (next_random (&state) % 4)
            {
            case 0:
              value %= 600; /* numbers of spans, kinds */
              break;
            case 1:
              value = store->heap_offset + value % (16 * MIB) / 16 * 16;
              break;
            case 2:
              value = blocks[value % G_N_ELEMENTS (blocks)];
              break;
            default:
              break;
            }
          switch (next_random (&state) % 8)
            {
            case 0:
              header[1 + next_random (&state) % 100] = value;
              break;
            case 1:
              ((guint64 *) (void *) store->me->heap)[next_random (&state) % 16] = value;
              break;
            case 2:
            case 3:
            case 4:
              spans[next_random (&state) % (512 * 8)] = value;
              break;
            default:
              {
                guint64 at = blocks[next_random (&state) % G_N_ELEMENTS (blocks)];

                if (at != 0)
                  *(guint64 *) ferry_store_at (store, at) = value;
              }
            }
          ferry_store_heap_free (next_random (&state) % 2 ? store : other, blocks[i]);
          ferry_store_heap_free (store, value);
          ferry_store_heap_free_object (store, value);
          ferry_store_heap_block_size (store, value);
          blocks[i]
              = ferry_store_heap_alloc (next_random (&state) % 2 ? store : other, next_random (&state) % 30000, NULL);
          ck_assert (blocks[i] == 0 || ferry_store_in_heap (store, blocks[i], 1));
          if (i % 50 == 0)
            {
              FerryMarks *marks = ferry_store_heap_marks_new (store);

              ferry_store_heap_alloc_object (store, NULL);
              ferry_store_heap_verify (store, NULL, FALSE, &error);
              g_clear_error (&error);
              ferry_store_heap_trim (store, MIB);
              ferry_store_heap_abandon (store, 1);
              if (next_random (&state) % 4 == 0)
                ferry_store_heap_sweep (store, marks, NULL, NULL);
              ferry_store_heap_marks_free (marks);
            }
        }
      free_store (other);
      free_store (store);
      munmap (world.memory, world.size);
      munmap (world.common, COMMON_SIZE);
      munmap (world.pages, world.size / 4096);
      munmap (world.shared, FERRY_MAX_PARTICIPANTS * FERRY_PARTICIPANT_STRIDE + 8192);
      close (world.fd);
    }
}
END_TEST

static void
add (Suite *suite)
{
  const TTest *const tests[] = { test_sizes,         test_random,
                                 test_two_processes, test_given_back_by_another,
                                 test_bound,         test_scattered,
                                 test_no_pages,      test_trim,
                                 test_heads,         test_sweep,
                                 test_collect,       test_killed,
                                 test_hostile,       NULL };

  ferry_test_add_case (suite, "store-heap", 60, tests);
}

int
main (void)
{
  return ferry_test_run ("store-heap", add);
}
