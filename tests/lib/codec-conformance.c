/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "codec-conformance.h"

#include <stdlib.h>
#include <string.h>

/* One seed, so that what failed once fails again. */
#define SEED (20240229)

/* How often a random test is done for each sample. */
#define ROUNDS (ferry_test_is_thorough () ? 20000 : ferry_test_is_valgrind () ? 50 : 300)

/* Truncations and flips of larger samples are spread over them instead of done everywhere. */
#define EVERYWHERE_MAX (ferry_test_is_valgrind () ? 256 : 2048)

/* Larger samples are done once by each thread: they take long, and find nothing more. */
#define OFTEN_MAX (65536)

#define N_THREADS (4)

static const CodecConformance *all;
static guint n_all;

/* Each test is done for each codec: Check passes the number of the loop. */
#define CODEC_TEST(name)                                                                                               \
  static void name##_codec (const CodecConformance *conformance, FerryCodec *codec);                                   \
  START_TEST (name)                                                                                                    \
  {                                                                                                                    \
    FerryCodec *codec = create (&all[_i]);                                                                             \
                                                                                                                       \
    name##_codec (&all[_i], codec);                                                                                    \
    ferry_assert_last_unref (codec);                                                                                   \
  }                                                                                                                    \
  END_TEST                                                                                                             \
  static void name##_codec (const CodecConformance *conformance, FerryCodec *codec)

static FerryCodec *
create (const CodecConformance *conformance)
{
  g_autoptr (GError) error = NULL;
  FerryCodec *codec;

  if (conformance->create != NULL)
    return conformance->create ();
  codec = ferry_registry_create_codec (ferry_registry_get_default (), conformance->name, &error);
  ferry_assert_no_error (error);
  ck_assert (FERRY_IS_CODEC (codec));
  return codec;
}

static GBytes *
encode_sample (const CodecConformance *conformance, FerryCodec *codec, guint i)
{
  g_auto (GValue) value = G_VALUE_INIT;
  g_autoptr (GError) error = NULL;
  GBytes *bytes;

  conformance->get_sample (i, &value);
  bytes = ferry_codec_encode_bytes (codec, &value, &error);
  ferry_assert_no_error (error);
  ck_assert_ptr_nonnull (bytes);
  return bytes;
}

/* A message in a block of exactly its size, so that valgrind and ASan see what reads beyond;
 * `skew` bytes away from where blocks are aligned to. */
typedef struct
{
  guint8 *block;
  int n_released;
} Message;

static void
message_released (gpointer data)
{
  Message *message = data;

  g_atomic_int_inc (&message->n_released);
}

static FerryBuffer *
message_init (Message *message, gconstpointer data, gsize size, gsize skew)
{
  void *block = NULL;

  ck_assert_int_eq (posix_memalign (&block, 64, MAX (size + skew, 1)), 0);
  message->block = block;
  message->n_released = 0;
  if (size > 0)
    memcpy (message->block + skew, data, size);
  return ferry_buffer_new_take (message->block + skew, size, FALSE, message_released, message);
}

static void
message_clear (Message *message)
{
  ck_assert_int_eq (message->n_released, 1);
  free (message->block);
}

/*
 * Decodes bytes that may be anything: it gives a value that can be looked at, or
 * FERRY_ERROR_CODEC, and afterwards nothing holds the message.
 */
static gboolean
decode_hostile (const CodecConformance *conformance, FerryCodec *codec, gconstpointer data, gsize size)
{
  g_autoptr (GError) error = NULL;
  GValue value = G_VALUE_INIT;
  Message message;
  FerryBuffer *buffer = message_init (&message, data, size, 0);
  gboolean decoded;

  decoded = ferry_codec_decode (codec, buffer, ferry_codec_get_wire_version (codec), &value, &error);
  ferry_buffer_unref (buffer);
  if (decoded)
    {
      ferry_assert_no_error (error);
      ck_assert (G_IS_VALUE (&value));
      conformance->walk (&value);
      g_value_unset (&value);
    }
  else
    {
      ferry_assert_error (error, FERRY_ERROR, FERRY_ERROR_CODEC);
      ck_assert_msg (strlen (error->message) > 10, "\"%s\" does not help", error->message);
      ck_assert (!G_IS_VALUE (&value));
      ck_assert_msg (!conformance->total, "refused: %s", error->message);
    }
  message_clear (&message);
  return decoded;
}

CODEC_TEST (test_identity)
{
  const char *name = ferry_codec_get_wire_name (codec);

  ck_assert_uint_ge (strlen (name), 1);
  ck_assert_uint_le (strlen (name), FERRY_WIRE_NAME_MAX);
  for (const char *p = name; *p != '\0'; p++)
    ck_assert_msg (g_ascii_islower (*p) || g_ascii_isdigit (*p) || *p == '-', "wire name \"%s\"", name);
  ck_assert_uint_ge (ferry_codec_get_wire_version (codec), 1);

  ck_assert_uint_gt (conformance->n_samples, 0);
  for (guint i = 0; i < conformance->n_samples; i++)
    {
      g_auto (GValue) value = G_VALUE_INIT;

      conformance->get_sample (i, &value);
      ck_assert_msg (ferry_codec_accepts (codec, G_VALUE_TYPE (&value)), "sample %u: %s is not accepted", i,
                     G_VALUE_TYPE_NAME (&value));
    }
}

CODEC_TEST (test_round_trip)
{
  for (guint i = 0; i < conformance->n_samples; i++)
    for (gsize skew = 0; skew < 3; skew++)
      {
        g_auto (GValue) sent = G_VALUE_INIT;
        g_auto (GValue) decoded = G_VALUE_INIT;
        g_autoptr (GBytes) bytes = encode_sample (conformance, codec, i);
        g_autoptr (GError) error = NULL;
        Message message;
        FerryBuffer *buffer;

        conformance->get_sample (i, &sent);
        buffer = message_init (&message, g_bytes_get_data (bytes, NULL), g_bytes_get_size (bytes), skew);
        ck_assert (ferry_codec_decode (codec, buffer, ferry_codec_get_wire_version (codec), &decoded, &error));
        ferry_assert_no_error (error);
        conformance->assert_equal (&sent, &decoded);
        conformance->walk (&decoded);
        ferry_buffer_unref (buffer);
        conformance->assert_equal (&sent, &decoded);
        g_value_unset (&decoded);
        message_clear (&message);
      }
}

/* Exactly what was measured is written: not one byte before, behind, or left out. */
CODEC_TEST (test_measure)
{
  enum
  {
    GUARD = 64,
  };

  for (guint i = 0; i < conformance->n_samples; i++)
    {
      g_auto (GValue) value = G_VALUE_INIT;
      g_autoptr (GError) error = NULL;
      gpointer state = NULL;
      gsize size = 0;
      gsize again = 0;
      void *blocks[2];

      conformance->get_sample (i, &value);
      ck_assert (ferry_codec_measure (codec, &value, &size, &state, &error));
      ferry_assert_no_error (error);
      ck_assert (ferry_codec_measure (codec, &value, &again, NULL, &error));
      ck_assert_uint_eq (size, again);

      /* Into zeros with the state, into ones without: both times the same bytes. */
      for (guint round = 0; round < 2; round++)
        {
          guint8 *block;
          int filling = round == 0 ? 0 : 0xff;

          ck_assert_int_eq (posix_memalign (&blocks[round], 64, size + 2 * GUARD), 0);
          block = blocks[round];
          memset (block, filling, size + 2 * GUARD);
          ck_assert (ferry_codec_encode (codec, &value, block + GUARD, size, round == 0 ? state : NULL, &error));
          ferry_assert_no_error (error);
          for (gsize g = 0; g < GUARD; g++)
            {
              ck_assert_msg (block[g] == filling, "sample %u: wrote before the message", i);
              ck_assert_msg (block[GUARD + size + g] == filling, "sample %u: wrote behind the message", i);
            }
        }
      ck_assert_msg (memcmp ((guint8 *) blocks[0] + GUARD, (guint8 *) blocks[1] + GUARD, size) == 0,
                     "sample %u: some bytes were not written", i);
      free (blocks[0]);
      free (blocks[1]);
      ferry_codec_free_state (codec, state);
    }
}

CODEC_TEST (test_refuse_types)
{
  GType types[] = { G_TYPE_INT,     G_TYPE_STRING,    G_TYPE_DOUBLE, G_TYPE_BOOLEAN, G_TYPE_OBJECT, G_TYPE_STRV,
                    G_TYPE_POINTER, G_TYPE_DATE_TIME, G_TYPE_BYTES,  G_TYPE_VARIANT, G_TYPE_GTYPE,  G_TYPE_BYTE_ARRAY };
  guint n_refused = 0;

  for (guint i = 0; i < G_N_ELEMENTS (types); i++)
    {
      g_auto (GValue) value = G_VALUE_INIT;
      g_autoptr (GError) error = NULL;
      gsize size = 0;
      gpointer state = NULL;

      if (ferry_codec_accepts (codec, types[i]))
        continue;
      n_refused++;
      g_value_init (&value, types[i]);
      ck_assert_msg (!ferry_codec_measure (codec, &value, &size, &state, &error), "%s was accepted",
                     g_type_name (types[i]));
      ferry_assert_error (error, FERRY_ERROR, FERRY_ERROR_CODEC);
      ferry_assert_contains (error->message, g_type_name (types[i]));
      ck_assert_ptr_null (state);
      g_clear_error (&error);
      ck_assert_ptr_null (ferry_codec_encode_bytes (codec, &value, &error));
      ferry_assert_error (error, FERRY_ERROR, FERRY_ERROR_CODEC);
    }
  if (!conformance->total)
    ck_assert_uint_gt (n_refused, 0);
}

/* Values of accepted types that hold NULL are refused, or encoded as something. */
CODEC_TEST (test_null_values)
{
  for (guint i = 0; i < conformance->n_samples; i++)
    {
      g_auto (GValue) sample = G_VALUE_INIT;
      g_auto (GValue) value = G_VALUE_INIT;
      g_autoptr (GError) error = NULL;
      g_autoptr (GBytes) bytes = NULL;

      conformance->get_sample (i, &sample);
      g_value_init (&value, G_VALUE_TYPE (&sample));
      bytes = ferry_codec_encode_bytes (codec, &value, &error);
      if (bytes == NULL)
        ferry_assert_error (error, FERRY_ERROR, FERRY_ERROR_CODEC);
    }
}

CODEC_TEST (test_refuse_newer)
{
  g_autoptr (GBytes) bytes = encode_sample (conformance, codec, 0);
  g_autoptr (FerryBuffer) buffer = ferry_buffer_new_bytes (bytes);
  g_autoptr (GError) error = NULL;
  GValue value = G_VALUE_INIT;

  ck_assert (!ferry_codec_decode (codec, buffer, ferry_codec_get_wire_version (codec) + 1, &value, &error));
  ferry_assert_error (error, FERRY_ERROR, FERRY_ERROR_CODEC);
  ferry_assert_contains (error->message, ferry_codec_get_wire_name (codec));
  ck_assert (!G_IS_VALUE (&value));
}

CODEC_TEST (test_truncations)
{
  decode_hostile (conformance, codec, "", 0);

  for (guint i = 0; i < conformance->n_samples; i++)
    {
      g_autoptr (GBytes) bytes = encode_sample (conformance, codec, i);
      gsize size;
      const guint8 *data = g_bytes_get_data (bytes, &size);

      for (gsize length = 0; length < size; length++)
        {
          if (size > EVERYWHERE_MAX && length > EVERYWHERE_MAX / 2 && length < size - EVERYWHERE_MAX / 2)
            length += (size - EVERYWHERE_MAX) / 100;
          decode_hostile (conformance, codec, data, MIN (length, size - 1));
        }
    }
}

CODEC_TEST (test_extensions)
{
  for (guint i = 0; i < conformance->n_samples; i++)
    {
      g_autoptr (GBytes) bytes = encode_sample (conformance, codec, i);
      gsize size;
      const guint8 *data = g_bytes_get_data (bytes, &size);

      for (gsize more = 1; more <= 16; more++)
        {
          g_autofree guint8 *longer = g_malloc0 (size + more);

          if (size > 0)
            memcpy (longer, data, size);
          decode_hostile (conformance, codec, longer, size + more);
        }
    }
}

CODEC_TEST (test_bit_flips)
{
  g_autoptr (GRand) rand = g_rand_new_with_seed (SEED);

  for (guint i = 0; i < conformance->n_samples; i++)
    {
      g_autoptr (GBytes) bytes = encode_sample (conformance, codec, i);
      gsize size;
      const guint8 *data = g_bytes_get_data (bytes, &size);
      g_autofree guint8 *damaged = g_malloc (MAX (size, 1));
      int rounds = size > EVERYWHERE_MAX ? ROUNDS / 10 : ROUNDS;

      if (size == 0)
        continue;
      for (int round = 0; round < rounds; round++)
        {
          int n_flips = g_rand_int_range (rand, 1, 8);

          memcpy (damaged, data, size);
          for (int flip = 0; flip < n_flips; flip++)
            {
              /* Half of them near an end, where headers and tables are. */
              gsize reach = g_rand_boolean (rand) ? size : MIN (size, 64);
              gsize at = (gsize) g_rand_int_range (rand, 0, (gint32) reach);

              if (g_rand_boolean (rand))
                at = size - 1 - at;
              damaged[at] ^= (guint8) (1 << g_rand_int_range (rand, 0, 8));
            }
          decode_hostile (conformance, codec, damaged, size);
        }
    }
}

CODEC_TEST (test_random_bytes)
{
  g_autoptr (GRand) rand = g_rand_new_with_seed (SEED);

  for (int round = 0; round < ROUNDS; round++)
    {
      guint8 data[256];
      gsize size = (gsize) g_rand_int_range (rand, 0, sizeof data + 1);

      for (gsize i = 0; i < size; i++)
        data[i] = (guint8) g_rand_int (rand);
      decode_hostile (conformance, codec, data, size);
    }

  /* The beginning of something true, then anything. */
  for (guint i = 0; i < conformance->n_samples; i++)
    {
      g_autoptr (GBytes) bytes = encode_sample (conformance, codec, i);
      gsize size;
      const guint8 *data = g_bytes_get_data (bytes, &size);
      g_autofree guint8 *damaged = g_malloc (MAX (size, 1));

      if (size == 0 || size > EVERYWHERE_MAX)
        continue;
      for (int round = 0; round < ROUNDS; round++)
        {
          gsize kept = (gsize) g_rand_int_range (rand, 0, (gint32) size);

          memcpy (damaged, data, kept);
          for (gsize j = kept; j < size; j++)
            damaged[j] = (guint8) g_rand_int (rand);
          decode_hostile (conformance, codec, damaged, size);
        }
    }
}

/* A decoded value pins the message exactly as long as it lives, if it refers to it. */
CODEC_TEST (test_pinning)
{
  for (guint i = 0; i < conformance->n_samples; i++)
    {
      g_auto (GValue) sent = G_VALUE_INIT;
      g_auto (GValue) decoded = G_VALUE_INIT;
      g_auto (GValue) copy = G_VALUE_INIT;
      g_autoptr (GBytes) bytes = encode_sample (conformance, codec, i);
      g_autoptr (GError) error = NULL;
      Message message;
      FerryBuffer *buffer;

      conformance->get_sample (i, &sent);
      buffer = message_init (&message, g_bytes_get_data (bytes, NULL), g_bytes_get_size (bytes), 0);
      ck_assert (ferry_codec_decode (codec, buffer, ferry_codec_get_wire_version (codec), &decoded, &error));
      ferry_assert_no_error (error);
      ck_assert_int_eq (message.n_released, 0);

      ferry_buffer_unref (buffer);
      ck_assert_int_eq (message.n_released, conformance->get_payload != NULL ? 0 : 1);

      g_value_init (&copy, G_VALUE_TYPE (&decoded));
      g_value_copy (&decoded, &copy);
      g_value_unset (&decoded);
      ck_assert_int_eq (message.n_released, conformance->get_payload != NULL ? 0 : 1);
      conformance->assert_equal (&sent, &copy);

      g_value_unset (&copy);
      message_clear (&message);
    }
}

CODEC_TEST (test_zero_copy)
{
  if (conformance->get_payload == NULL)
    return;

  for (guint i = 0; i < conformance->n_samples; i++)
    {
      g_auto (GValue) decoded = G_VALUE_INIT;
      g_autoptr (GBytes) bytes = encode_sample (conformance, codec, i);
      g_autoptr (FerryBuffer) buffer = ferry_buffer_new_bytes (bytes);
      g_autoptr (GError) error = NULL;
      const guint8 *payload;
      gsize payload_size;
      gsize size;
      const guint8 *data = ferry_buffer_get_data (buffer, &size);

      ck_assert (ferry_codec_decode (codec, buffer, ferry_codec_get_wire_version (codec), &decoded, &error));
      payload = conformance->get_payload (&decoded, &payload_size);
      if (payload_size > 0)
        ck_assert_msg (payload >= data && payload + payload_size <= data + size, "sample %u was copied", i);
    }
}

typedef struct
{
  const CodecConformance *conformance;
  FerryCodec *codec;
  guint first;
} ThreadJob;

static gpointer
thread_func (gpointer data)
{
  const ThreadJob *job = data;
  int rounds = ferry_test_is_valgrind () ? 3 : 50;

  for (int round = 0; round < rounds; round++)
    for (guint n = 0; n < job->conformance->n_samples; n++)
      {
        guint i = (job->first + n) % job->conformance->n_samples;
        g_auto (GValue) sent = G_VALUE_INIT;
        g_auto (GValue) decoded = G_VALUE_INIT;
        g_autoptr (GBytes) bytes = encode_sample (job->conformance, job->codec, i);
        g_autoptr (FerryBuffer) buffer = ferry_buffer_new_bytes (bytes);
        g_autoptr (GError) error = NULL;

        if (round > 0 && g_bytes_get_size (bytes) > OFTEN_MAX)
          continue;
        job->conformance->get_sample (i, &sent);
        ck_assert (
            ferry_codec_decode (job->codec, buffer, ferry_codec_get_wire_version (job->codec), &decoded, &error));
        job->conformance->assert_equal (&sent, &decoded);
      }
  return NULL;
}

CODEC_TEST (test_threads)
{
  ThreadJob jobs[N_THREADS];
  GThread *threads[N_THREADS];

  for (guint i = 0; i < N_THREADS; i++)
    {
      jobs[i].conformance = conformance;
      jobs[i].codec = codec;
      jobs[i].first = i;
      threads[i] = g_thread_new ("codec", thread_func, &jobs[i]);
    }
  for (guint i = 0; i < N_THREADS; i++)
    g_thread_join (threads[i]);
}

static void
add (Suite *suite)
{
  const struct
  {
    const char *name;
    const TTest *test;
  } tests[] = {
    { "identity", test_identity },         { "round-trip", test_round_trip }, { "measure", test_measure },
    { "refuse-types", test_refuse_types }, { "null", test_null_values },      { "refuse-newer", test_refuse_newer },
    { "truncations", test_truncations },   { "extensions", test_extensions }, { "bit-flips", test_bit_flips },
    { "random-bytes", test_random_bytes }, { "pinning", test_pinning },       { "zero-copy", test_zero_copy },
    { "threads", test_threads },
  };

  for (guint i = 0; i < G_N_ELEMENTS (tests); i++)
    {
      TCase *tcase = tcase_create (tests[i].name);

      tcase_set_timeout (tcase, ferry_test_is_thorough () ? 600 : 30);
      tcase_add_loop_test (tcase, tests[i].test, 0, (int) n_all);
      suite_add_tcase (suite, tcase);
    }
}

/*
 * codec_conformance_run: runs the suite for some codecs; what main() returns.
 */
int
codec_conformance_run (const CodecConformance *codecs, guint n_codecs)
{
  all = codecs;
  n_all = n_codecs;
  return ferry_test_run ("codec-conformance", add);
}
