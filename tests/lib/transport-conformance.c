/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "transport-conformance.h"

#include "channel-test.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

/* One seed, so that what failed once fails again. */
#define SEED (20240229)

#define KIB ((gsize) 1024)
#define MIB (KIB * KIB)

#define MS ((gint64) 1000) /* microseconds */

/* How late a call may come back that was told to: cancelled, closed, or its time is over. */
#define PROMPT_US (100 * MS * (ferry_test_is_valgrind () ? 20 : 1))
#define LATE_US (500 * MS * (ferry_test_is_valgrind () ? 10 : 1))

/* As docs/memory-model.md says. */
#define PARTICIPANTS_MAX (256)

typedef struct
{
  const char *transport;
  const char *properties;
  TransportConformanceFlags flags;
} Conformance;

static GArray *all;

static void
begin (ChannelTest *test, const Conformance *conformance)
{
  channel_test_begin (test, conformance->transport, conformance->properties,
                      conformance->flags & TRANSPORT_CONFORMANCE_INHERITED_FDS ? CHANNEL_TEST_BY_INHERITED_FDS
                      : conformance->flags & TRANSPORT_CONFORMANCE_PASSED_FDS  ? CHANNEL_TEST_BY_PASSED_FDS
                                                                               : CHANNEL_TEST_BY_NAME);
}

/* Each test is done for each transport: Check passes the number of the loop. */
#define TRANSPORT_TEST(name)                                                                                           \
  static void name##_transport (ChannelTest *test);                                                                    \
  START_TEST (name)                                                                                                    \
  {                                                                                                                    \
    ChannelTest channel_test;                                                                                          \
                                                                                                                       \
    begin (&channel_test, &g_array_index (all, Conformance, _i));                                                      \
    name##_transport (&channel_test);                                                                                  \
    channel_test_end (&channel_test);                                                                                  \
  }                                                                                                                    \
  END_TEST                                                                                                             \
  static void name##_transport (ChannelTest *test)

static FerryChannel *
open_sender (ChannelTest *test, const char *properties)
{
  return channel_test_open (test, FERRY_ROLE_SENDER, properties);
}

static FerryChannel *
open_receiver (ChannelTest *test, const char *properties)
{
  return channel_test_open (test, FERRY_ROLE_RECEIVER, properties);
}

/* ---- delivery ---- */

TRANSPORT_TEST (test_work_queue_order)
{
  FerryChannel *sender = open_sender (test, NULL);
  FerryChannel *receiver = open_receiver (test, NULL);
  guint64 received = 0;
  guint64 sent = 0;

  /* Far more than the ring has slots, in and out at different paces. */
  for (guint round = 0; round < 200; round++)
    {
      for (guint i = 0; i < round % 64 && sent - received < 64; i++, sent++)
        channel_test_send (sender, sent, 8 + sent % 300);
      for (guint i = 0; i < round % 48 && received < sent; i++, received++)
        channel_test_expect (receiver, received, 8 + received % 300);
    }
  for (; received < sent; received++)
    channel_test_expect (receiver, received, 8 + received % 300);
  channel_test_expect_nothing (test, receiver);
  channel_test_verify (sender);
  channel_test_close (sender);
  channel_test_close (receiver);
}

TRANSPORT_TEST (test_work_queue_each_once)
{
  FerryChannel *senders[2] = { open_sender (test, NULL), open_sender (test, NULL) };
  FerryChannel *receivers[3] = { open_receiver (test, NULL), open_receiver (test, NULL), open_receiver (test, NULL) };
  guint next = 0;
  guint n_received[3] = { 0, 0, 0 };

  for (guint round = 0; round < 40; round++)
    {
      for (guint i = 0; i < 30; i++)
        channel_test_send (senders[i % 2], round * 30 + i, 16);
      /* In one queue, so in the order of sending, whoever asks. */
      for (guint i = 0; i < 30; i++, next++)
        {
          guint which = (round + i * 7) % 3;

          channel_test_expect (receivers[which], next, 16);
          n_received[which]++;
        }
    }
  for (guint i = 0; i < 3; i++)
    {
      ck_assert_uint_gt (n_received[i], 0);
      channel_test_expect_nothing (test, receivers[i]);
    }
  channel_test_verify (receivers[0]);
  for (guint i = 0; i < 3; i++)
    channel_test_close (receivers[i]);
  for (guint i = 0; i < 2; i++)
    channel_test_close (senders[i]);
}

/* What nobody took yet waits for whoever comes. */
TRANSPORT_TEST (test_work_queue_waits_for_receivers)
{
  FerryChannel *sender = open_sender (test, NULL);
  FerryChannel *receiver;

  channel_test_send (sender, 1, 10);
  channel_test_send (sender, 2, 10000);
  receiver = open_receiver (test, NULL);
  channel_test_expect (receiver, 1, 10);
  channel_test_close (receiver);
  receiver = open_receiver (test, NULL);
  channel_test_close (sender);
  channel_test_expect (receiver, 2, 10000);
  channel_test_expect_nothing (test, receiver);
  channel_test_verify (receiver);
  channel_test_close (receiver);
}

TRANSPORT_TEST (test_broadcast_from_joining_on)
{
  FerryChannel *sender = open_sender (test, "mode=broadcast");
  FerryChannel *first;
  FerryChannel *second;

  for (guint i = 0; i < 10; i++)
    channel_test_send (sender, i, 20);
  first = open_receiver (test, NULL);
  channel_test_expect_nothing (test, first);
  for (guint i = 10; i < 20; i++)
    channel_test_send (sender, i, 20 + i * 100);
  second = open_receiver (test, NULL);
  for (guint i = 20; i < 30; i++)
    channel_test_send (sender, i, 20 + i * 100);
  for (guint i = 20; i < 30; i++)
    channel_test_expect (second, i, 20 + i * 100);
  for (guint i = 10; i < 30; i++)
    channel_test_expect (first, i, 20 + i * 100);
  channel_test_expect_nothing (test, first);
  channel_test_expect_nothing (test, second);
  channel_test_verify (sender);
  channel_test_close (first);
  channel_test_close (second);
  channel_test_close (sender);
}

TRANSPORT_TEST (test_broadcast_two_senders)
{
  FerryChannel *senders[2] = { open_sender (test, "mode=broadcast"), open_sender (test, "mode=broadcast") };
  FerryChannel *receivers[3] = { open_receiver (test, NULL), open_receiver (test, NULL), open_receiver (test, NULL) };

  for (guint round = 0; round < 20; round++)
    {
      for (guint i = 0; i < 20; i++)
        channel_test_send (senders[(i * 3) % 2], round * 20 + i, i * 50);
      for (guint r = 0; r < 3; r++)
        for (guint i = 0; i < 20; i++)
          channel_test_expect (receivers[r], round * 20 + i, i * 50);
    }
  for (guint r = 0; r < 3; r++)
    {
      channel_test_expect_nothing (test, receivers[r]);
      channel_test_close (receivers[r]);
    }
  channel_test_verify (senders[0]);
  channel_test_close (senders[0]);
  channel_test_close (senders[1]);
}

/* Nobody listens: nothing fills up. */
TRANSPORT_TEST (test_broadcast_without_receivers)
{
  FerryChannel *sender = open_sender (test, "mode=broadcast capacity=4 overflow=error");

  for (guint i = 0; i < 100; i++)
    channel_test_send (sender, i, i * 200);
  channel_test_assert_statistic (sender, messages_sent, 100);
  channel_test_assert_statistic (sender, messages_dropped, 0);
  channel_test_assert_statistic (sender, in_flight, 0);
  channel_test_verify (sender);
  channel_test_close (sender);
}

TRANSPORT_TEST (test_history)
{
  FerryChannel *sender = open_sender (test, "mode=broadcast history=5");
  FerryChannel *receiver = open_receiver (test, NULL);

  /* None yet. */
  channel_test_expect_nothing (test, receiver);
  channel_test_close (receiver);

  /* Fewer than it would keep. */
  for (guint i = 0; i < 3; i++)
    channel_test_send (sender, i, 300 * i);
  receiver = open_receiver (test, NULL);
  for (guint i = 0; i < 3; i++)
    channel_test_expect (receiver, i, 300 * i);
  channel_test_expect_nothing (test, receiver);
  channel_test_close (receiver);

  /* More than it keeps, and then what is new. */
  for (guint i = 3; i < 50; i++)
    channel_test_send (sender, i, 300 * i);
  receiver = open_receiver (test, NULL);
  channel_test_send (sender, 50, 7);
  for (guint i = 45; i < 50; i++)
    channel_test_expect (receiver, i, 300 * i);
  channel_test_expect (receiver, 50, 7);
  channel_test_expect_nothing (test, receiver);

  /* It is for each who comes. */
  channel_test_close (receiver);
  receiver = open_receiver (test, NULL);
  for (guint i = 46; i < 50; i++)
    channel_test_expect (receiver, i, 300 * i);
  channel_test_expect (receiver, 50, 7);
  channel_test_verify (sender);
  channel_test_close (receiver);
  channel_test_close (sender);
}

/* What the channel keeps for later receivers takes no room from those who are here. */
TRANSPORT_TEST (test_history_and_capacity)
{
  static const struct
  {
    const char *properties;
    guint capacity;
    guint history;
  } cases[] = {
    { "mode=broadcast overflow=error capacity=4 history=4", 4, 4 },
    { "mode=broadcast overflow=error capacity=4 history=10", 4, 10 },
    { "mode=broadcast overflow=error capacity=10 history=1", 10, 1 },
  };

  for (guint c = 0; c < G_N_ELEMENTS (cases); c++)
    {
      FerryChannel *sender;
      FerryChannel *receiver;
      FerryChannel *late;
      g_autoptr (GError) error = NULL;
      guint number = 0;

      channel_test_forget (test);
      sender = open_sender (test, cases[c].properties);
      receiver = open_receiver (test, NULL);
      for (; number < 40; number++)
        {
          channel_test_send (sender, number, 100 * (number % 5));
          channel_test_expect (receiver, number, 100 * (number % 5));
        }
      /* The receiver stops: now exactly the capacity fits. */
      for (guint i = 0; i < cases[c].capacity; i++)
        channel_test_send (sender, number + i, 9);
      ck_assert (!channel_test_try_send (sender, 0, 9, FERRY_NO_WAIT, &error));
      channel_test_assert_error (test, error, FERRY_ERROR_FULL);

      late = open_receiver (test, NULL);
      for (guint i = 0; i < cases[c].history; i++)
        {
          guint n = number + cases[c].capacity - cases[c].history + i;

          channel_test_expect (late, n, n < number ? 100 * (n % 5) : 9);
        }
      channel_test_expect_nothing (test, late);
      for (guint i = 0; i < cases[c].capacity; i++)
        channel_test_expect (receiver, number + i, 9);
      channel_test_expect_nothing (test, receiver);
      channel_test_verify (sender);
      channel_test_close (late);
      channel_test_close (receiver);
      channel_test_close (sender);
    }
}

/* The history yields to the bound in bytes: nobody would ever free it. Who waits to read does not. */
TRANSPORT_TEST (test_history_and_max_bytes)
{
  static const char *const policies[] = { "block", "error", "drop-oldest", "drop-newest" };

  for (guint p = 0; p < G_N_ELEMENTS (policies); p++)
    {
      g_autofree char *properties
          = g_strdup_printf ("mode=broadcast history=10 max-bytes=65536 overflow=%s", policies[p]);
      FerryChannel *sender;
      FerryChannel *receiver;

      channel_test_forget (test);
      sender = open_sender (test, properties);
      for (guint i = 0; i < 20; i++)
        {
          g_autoptr (GError) error = NULL;

          ck_assert_msg (channel_test_try_send (sender, i, 16384, FERRY_NO_WAIT, &error), "%s: message %u: %s",
                         policies[p], i, error->message);
        }
      channel_test_assert_statistic (sender, messages_dropped, 0);
      receiver = open_receiver (test, NULL);
      for (guint i = 16; i < 20; i++)
        channel_test_expect (receiver, i, 16384);
      channel_test_expect_nothing (test, receiver);
      for (guint i = 20; i < 24; i++)
        channel_test_send (sender, i, 16384);
      if (p == 1)
        {
          g_autoptr (GError) error = NULL;

          ck_assert (!channel_test_try_send (sender, 24, 16384, FERRY_NO_WAIT, &error));
          channel_test_assert_error (test, error, FERRY_ERROR_FULL);
        }
      for (guint i = 20; i < 24; i++)
        channel_test_expect (receiver, i, 16384);
      channel_test_verify (sender);
      channel_test_close (receiver);
      channel_test_close (sender);
    }
}

TRANSPORT_TEST (test_history_with_drops)
{
  FerryChannel *sender = open_sender (test, "mode=broadcast history=3 capacity=6 overflow=drop-oldest");
  FerryChannel *slow = open_receiver (test, NULL);
  FerryChannel *late;

  for (guint i = 0; i < 30; i++)
    channel_test_send (sender, i, 1000);
  late = open_receiver (test, NULL);
  for (guint i = 27; i < 30; i++)
    channel_test_expect (late, i, 1000);
  channel_test_expect_nothing (test, late);
  for (guint i = 24; i < 30; i++)
    channel_test_expect (slow, i, 1000);
  channel_test_expect_nothing (test, slow);
  channel_test_verify (sender);
  channel_test_close (late);
  channel_test_close (slow);
  channel_test_close (sender);
}

TRANSPORT_TEST (test_joins_and_leaves)
{
  FerryChannel *anchor = open_sender (test, "capacity=100");
  GRand *rand = g_rand_new_with_seed (SEED);
  FerryChannel *senders[8] = { NULL };
  FerryChannel *receivers[8] = { NULL };
  guint64 sent = 0;
  guint64 received = 0;

  for (guint round = 0; round < 400; round++)
    {
      guint s = (guint) g_rand_int_range (rand, 0, 8);
      guint r = (guint) g_rand_int_range (rand, 0, 8);

      if (senders[s] == NULL)
        senders[s] = open_sender (test, NULL);
      else if (g_rand_int_range (rand, 0, 4) == 0)
        g_clear_pointer (&senders[s], channel_test_close);
      if (receivers[r] == NULL)
        receivers[r] = open_receiver (test, NULL);
      else if (g_rand_int_range (rand, 0, 4) == 0)
        g_clear_pointer (&receivers[r], channel_test_close);
      for (guint i = 0; senders[s] != NULL && i < 5 && sent - received < 100; i++, sent++)
        channel_test_send (senders[s], sent, sent * 37 % 5000);
      for (guint i = 0; receivers[r] != NULL && i < 6 && received < sent; i++, received++)
        channel_test_expect (receivers[r], received, received * 37 % 5000);
    }
  for (guint i = 0; i < 8; i++)
    {
      g_clear_pointer (&senders[i], channel_test_close);
      g_clear_pointer (&receivers[i], channel_test_close);
    }
  channel_test_assert_statistic (anchor, messages_sent, sent);
  channel_test_assert_statistic (anchor, messages_received, received);
  channel_test_assert_statistic (anchor, in_flight, sent - received);
  channel_test_verify (anchor);
  channel_test_close (anchor);
  g_rand_free (rand);
}

/* ---- bounds ---- */

static const guint capacities[] = { 1, 2, 63, 64, 65, 1000 };

static void
check_capacity (ChannelTest *test, const char *mode, guint n_senders, gsize size)
{
  for (guint c = 0; c < G_N_ELEMENTS (capacities); c++)
    {
      guint capacity = capacities[c];
      g_autofree char *properties = g_strdup_printf ("mode=%s capacity=%u", mode, capacity);
      FerryChannel *senders[2] = { NULL, NULL };
      FerryChannel *receiver;
      g_autoptr (GError) error = NULL;
      guint has = 0;
      guint sent = 0;
      guint received = 0;

      channel_test_forget (test);
      for (guint i = 0; i < n_senders; i++)
        senders[i] = open_sender (test, properties);
      receiver = open_receiver (test, NULL);
      g_object_get (receiver, "capacity", &has, NULL);
      ck_assert_uint_eq (has, capacity);
      channel_test_assert_statistic (receiver, capacity, capacity);

      for (guint round = 0; round < 3; round++)
        {
          for (; sent - received < capacity; sent++)
            {
              ck_assert_msg (channel_test_try_send (senders[sent % n_senders], sent, size, FERRY_NO_WAIT, &error),
                             "capacity %u was full with %u: %s", capacity, sent - received, error->message);
            }
          for (guint i = 0; i < n_senders; i++)
            {
              ck_assert_msg (!channel_test_try_send (senders[i], 0, size, FERRY_NO_WAIT, &error), "more than %u fit in",
                             capacity);
              channel_test_assert_error (test, error, FERRY_ERROR_FULL);
              g_clear_error (&error);
            }
          channel_test_assert_statistic (receiver, in_flight, capacity);
          channel_test_assert_statistic (receiver, in_flight_peak, capacity);
          for (guint i = 0; i < capacity * (round + 1) / 3 + 1 && received < sent; i++, received++)
            channel_test_expect (receiver, received, size);
          channel_test_assert_statistic (receiver, in_flight, sent - received);
        }
      for (; received < sent; received++)
        channel_test_expect (receiver, received, size);
      channel_test_expect_nothing (test, receiver);
      channel_test_verify (receiver);
      for (guint i = 0; i < n_senders; i++)
        channel_test_close (senders[i]);
      channel_test_close (receiver);
    }
}

TRANSPORT_TEST (test_capacity_work_queue) { check_capacity (test, "work-queue", 1, 16); }

TRANSPORT_TEST (test_capacity_work_queue_blocks) { check_capacity (test, "work-queue", 1, 5000); }

TRANSPORT_TEST (test_capacity_two_senders) { check_capacity (test, "work-queue", 2, 16); }

TRANSPORT_TEST (test_capacity_broadcast) { check_capacity (test, "broadcast", 1, 16); }

TRANSPORT_TEST (test_capacity_broadcast_two_senders) { check_capacity (test, "broadcast", 2, 3000); }

/* A message counts as taken when it was received: a view that is held leaves room in the ring. */
TRANSPORT_TEST (test_capacity_and_views)
{
  FerryChannel *sender = open_sender (test, "capacity=2");
  FerryChannel *receiver = open_receiver (test, NULL);
  FerryBuffer *views[20];

  for (guint i = 0; i < 20; i++)
    {
      g_autoptr (GError) error = NULL;

      ck_assert (channel_test_try_send (sender, i, 10000, FERRY_NO_WAIT, &error));
      views[i] = channel_test_take (receiver);
    }
  for (guint i = 0; i < 20; i++)
    {
      ck_assert (channel_test_is_filled (ferry_buffer_get_data (views[i], NULL), 10000, i));
      ferry_buffer_unref (views[i]);
    }
  channel_test_verify (sender);
  channel_test_close (sender);
  channel_test_close (receiver);
}

static void
check_max_bytes (ChannelTest *test, const char *mode)
{
  g_autofree char *properties = g_strdup_printf ("mode=%s max-bytes=%u", mode, (guint) MIB);
  FerryChannel *sender = open_sender (test, properties);
  FerryChannel *receiver = open_receiver (test, NULL);
  g_autoptr (GError) error = NULL;
  GRand *rand = g_rand_new_with_seed (SEED);
  guint n = 0;

  channel_test_assert_statistic (sender, max_bytes, MIB);

  /* Exactly the bound goes in, one byte more never does. */
  channel_test_send (sender, 1, MIB);
  channel_test_expect (receiver, 1, MIB);
  ck_assert (!channel_test_try_send (sender, 0, MIB + 1, FERRY_WAIT_FOREVER, &error));
  channel_test_assert_error (test, error, FERRY_ERROR_TOO_BIG);
  ferry_assert_contains (error->message, "1048577");
  ferry_assert_contains (error->message, "1048576");
  ferry_assert_contains (error->message, "max-bytes");
  g_clear_error (&error);
  ck_assert_ptr_null (ferry_channel_loan (sender, MIB + 1, FERRY_WAIT_FOREVER, NULL, &error));
  channel_test_assert_error (test, error, FERRY_ERROR_TOO_BIG);
  g_clear_error (&error);

  /* Then four quarters, and no page more. */
  for (n = 0; channel_test_try_send (sender, n, 256 * KIB, FERRY_NO_WAIT, &error); n++)
    ck_assert_uint_lt (n, 4);
  ck_assert_uint_eq (n, 4);
  channel_test_assert_error (test, error, FERRY_ERROR_FULL);
  ferry_assert_contains (error->message, "1048576");
  g_clear_error (&error);
  ck_assert (!channel_test_try_send (sender, 0, 4096, FERRY_NO_WAIT, &error));
  channel_test_assert_error (test, error, FERRY_ERROR_FULL);
  g_clear_error (&error);
  ck_assert (!channel_test_try_send (sender, 0, 4096, 50 * MS, &error));
  channel_test_assert_error (test, error, FERRY_ERROR_TIMED_OUT);
  g_clear_error (&error);
  /* What fits into a slot needs no such memory. */
  channel_test_send (sender, 5, 32);

  /* There is room when a message was taken and released, and not before. */
  {
    FerryBuffer *view = channel_test_take (receiver);

    ck_assert (!channel_test_try_send (sender, 0, 256 * KIB, FERRY_NO_WAIT, &error));
    channel_test_assert_error (test, error, FERRY_ERROR_FULL);
    g_clear_error (&error);
    ferry_buffer_unref (view);
  }
  channel_test_send (sender, 6, 256 * KIB);
  for (guint i = 1; i < 4; i++)
    channel_test_expect (receiver, i, 256 * KIB);
  channel_test_expect (receiver, 5, 32);
  channel_test_expect (receiver, 6, 256 * KIB);

  /* Warm blocks of other sizes are in nobody's way. */
  for (guint i = 0; i < 300; i++)
    {
      gsize size = (gsize) g_rand_int_range (rand, 0, (gint32) MIB);
      g_autoptr (FerryStatistics) statistics = NULL;

      channel_test_send (sender, i, size);
      statistics = channel_test_statistics (sender);
      ck_assert_uint_le (statistics->bytes_committed, MIB);
      channel_test_expect (receiver, i, size);
    }
  channel_test_send (sender, 7, MIB);
  channel_test_expect (receiver, 7, MIB);
  {
    g_autoptr (FerryStatistics) statistics = channel_test_statistics (sender);

    ck_assert_uint_le (statistics->bytes_committed_peak, MIB);
  }
  channel_test_verify (sender);
  channel_test_close (sender);
  channel_test_close (receiver);
  g_rand_free (rand);
}

TRANSPORT_TEST (test_max_bytes_work_queue) { check_max_bytes (test, "work-queue"); }

TRANSPORT_TEST (test_max_bytes_broadcast) { check_max_bytes (test, "broadcast"); }

/* ---- when the channel is full ---- */

static void
check_overflow_error (ChannelTest *test, const char *mode)
{
  g_autofree char *properties = g_strdup_printf ("mode=%s capacity=4 overflow=error", mode);
  FerryChannel *sender = open_sender (test, properties);
  FerryChannel *receiver = open_receiver (test, NULL);
  gint64 started = g_get_monotonic_time ();

  for (guint i = 0; i < 10; i++)
    {
      g_autoptr (GError) error = NULL;

      /* Also who would have time gets the error at once. */
      if (channel_test_try_send (sender, i, 300, i % 2 ? FERRY_NO_WAIT : FERRY_WAIT_FOREVER, &error))
        ck_assert_uint_lt (i, 4);
      else
        channel_test_assert_error (test, error, FERRY_ERROR_FULL);
    }
  ck_assert_int_lt (g_get_monotonic_time () - started, LATE_US);
  for (guint i = 0; i < 4; i++)
    channel_test_expect (receiver, i, 300);
  channel_test_expect_nothing (test, receiver);
  channel_test_assert_statistic (sender, messages_sent, 4);
  channel_test_assert_statistic (sender, messages_dropped, 0);
  channel_test_assert_statistic (sender, send_waits, 0);
  channel_test_verify (sender);
  channel_test_close (sender);
  channel_test_close (receiver);
}

TRANSPORT_TEST (test_overflow_error_work_queue) { check_overflow_error (test, "work-queue"); }

TRANSPORT_TEST (test_overflow_error_broadcast) { check_overflow_error (test, "broadcast"); }

static void
check_overflow_drop_newest (ChannelTest *test, const char *mode)
{
  g_autofree char *properties = g_strdup_printf ("mode=%s capacity=4 overflow=drop-newest", mode);
  FerryChannel *sender = open_sender (test, properties);
  FerryChannel *receiver = open_receiver (test, NULL);

  for (guint i = 0; i < 10; i++)
    {
      g_autoptr (GError) error = NULL;

      /* bytes, or a loan */
      if (i % 2 == 0)
        {
          ck_assert (channel_test_try_send (sender, i, 300, FERRY_WAIT_FOREVER, &error));
        }
      else
        {
          g_autoptr (FerryBuffer) loan = ferry_channel_loan (sender, 300, FERRY_WAIT_FOREVER, NULL, &error);

          ferry_assert_no_error (error);
          channel_test_fill (ferry_buffer_get_writable_data (loan, NULL), 300, i);
          ck_assert (ferry_channel_send_buffer (sender, loan, FERRY_WAIT_FOREVER, NULL, &error));
        }
      ferry_assert_no_error (error);
    }
  channel_test_assert_statistic (sender, messages_dropped, 6);
  for (guint i = 0; i < 4; i++)
    channel_test_expect (receiver, i, 300);
  channel_test_expect_nothing (test, receiver);
  channel_test_send (sender, 10, 4000);
  channel_test_expect (receiver, 10, 4000);
  channel_test_assert_statistic (sender, messages_sent, 5);
  channel_test_assert_statistic (sender, messages_received, 5);
  channel_test_assert_statistic (sender, messages_dropped, 6);
  channel_test_assert_statistic (sender, send_waits, 0);
  channel_test_verify (sender);
  channel_test_close (sender);
  channel_test_close (receiver);
}

TRANSPORT_TEST (test_overflow_drop_newest_work_queue) { check_overflow_drop_newest (test, "work-queue"); }

TRANSPORT_TEST (test_overflow_drop_newest_broadcast) { check_overflow_drop_newest (test, "broadcast"); }

static void
check_overflow_drop_oldest (ChannelTest *test, const char *mode)
{
  g_autofree char *properties = g_strdup_printf ("mode=%s capacity=4 overflow=drop-oldest", mode);
  FerryChannel *sender = open_sender (test, properties);
  FerryChannel *receiver = open_receiver (test, NULL);

  for (guint i = 0; i < 10; i++)
    channel_test_send (sender, i, i % 2 ? 20 : 3000);
  channel_test_assert_statistic (sender, messages_dropped, 6);
  channel_test_assert_statistic (sender, in_flight, 4);
  for (guint i = 6; i < 10; i++)
    channel_test_expect (receiver, i, i % 2 ? 20 : 3000);
  channel_test_expect_nothing (test, receiver);
  channel_test_assert_statistic (sender, messages_sent, 10);
  channel_test_assert_statistic (sender, messages_received, 4);
  channel_test_assert_statistic (sender, messages_dropped, 6);
  channel_test_assert_statistic (sender, send_waits, 0);
  channel_test_verify (sender);
  channel_test_close (sender);
  channel_test_close (receiver);
}

TRANSPORT_TEST (test_overflow_drop_oldest_work_queue) { check_overflow_drop_oldest (test, "work-queue"); }

TRANSPORT_TEST (test_overflow_drop_oldest_broadcast) { check_overflow_drop_oldest (test, "broadcast"); }

/* Who keeps up misses nothing; who is overtaken goes on with the oldest that is there, and keeps its views. */
TRANSPORT_TEST (test_drop_oldest_slow_and_fast)
{
  FerryChannel *sender = open_sender (test, "mode=broadcast capacity=4 overflow=drop-oldest");
  FerryChannel *fast = open_receiver (test, NULL);
  FerryChannel *slow = open_receiver (test, NULL);
  FerryBuffer *view;

  channel_test_send (sender, 0, 9000);
  channel_test_expect (fast, 0, 9000);
  view = channel_test_take (slow);
  for (guint i = 1; i < 20; i++)
    {
      channel_test_send (sender, i, 9000);
      channel_test_expect (fast, i, 9000);
    }
  ck_assert (channel_test_is_filled (ferry_buffer_get_data (view, NULL), 9000, 0));
  for (guint i = 16; i < 20; i++)
    channel_test_expect (slow, i, 9000);
  channel_test_expect_nothing (test, slow);
  ck_assert (channel_test_is_filled (ferry_buffer_get_data (view, NULL), 9000, 0));
  ferry_buffer_unref (view);
  channel_test_assert_statistic (sender, messages_dropped, 15);
  channel_test_verify (sender);
  channel_test_close (slow);
  channel_test_close (fast);
  channel_test_close (sender);
}

/* Views of messages hold all memory, so that there is nothing to drop: it waits like the others. */
TRANSPORT_TEST (test_drop_oldest_memory_held)
{
  FerryChannel *sender = open_sender (test, "overflow=drop-oldest max-bytes=65536");
  FerryChannel *receiver = open_receiver (test, NULL);
  g_autoptr (GError) error = NULL;
  FerryBuffer *view;

  channel_test_send (sender, 0, 65536);
  view = channel_test_take (receiver);
  ck_assert (!channel_test_try_send (sender, 1, 65536, FERRY_NO_WAIT, &error));
  channel_test_assert_error (test, error, FERRY_ERROR_FULL);
  g_clear_error (&error);
  ck_assert (!channel_test_try_send (sender, 1, 65536, 30 * MS, &error));
  channel_test_assert_error (test, error, FERRY_ERROR_TIMED_OUT);
  g_clear_error (&error);
  ferry_buffer_unref (view);
  channel_test_send (sender, 1, 65536);
  /* Now there is one to drop. */
  channel_test_send (sender, 2, 65536);
  channel_test_expect (receiver, 2, 65536);
  channel_test_expect_nothing (test, receiver);
  channel_test_assert_statistic (sender, messages_dropped, 1);
  channel_test_verify (sender);
  channel_test_close (sender);
  channel_test_close (receiver);
}

/* ---- sizes ---- */

static const gsize sizes[]
    = { 0,    1,    2,    63,   64,   65,   199,      200,     201,     255,     256, 257,         4039, 4040, 4041,
        4095, 4096, 4097, 8191, 8192, 8193, 64 * KIB, MIB + 1, MIB - 1, 4 * MIB, 0,   4 * MIB + 1, 1,    300 };

static void
check_sizes (ChannelTest *test, const char *properties)
{
  FerryChannel *sender = open_sender (test, properties);
  FerryChannel *receiver = open_receiver (test, NULL);
  guint64 bytes = 0;

  /* One by one, then all in the ring at once. */
  for (guint i = 0; i < G_N_ELEMENTS (sizes); i++)
    {
      channel_test_send (sender, i, sizes[i]);
      channel_test_expect (receiver, i, sizes[i]);
      bytes += sizes[i];
    }
  for (guint i = 0; i < G_N_ELEMENTS (sizes); i++)
    channel_test_send (sender, 100 + i, sizes[i]);
  for (guint i = 0; i < G_N_ELEMENTS (sizes); i++)
    channel_test_expect (receiver, 100 + i, sizes[i]);
  channel_test_assert_statistic (sender, bytes_sent, 2 * bytes);
  channel_test_assert_statistic (sender, bytes_received, 2 * bytes);
  channel_test_verify (sender);
  channel_test_close (sender);
  channel_test_close (receiver);
}

TRANSPORT_TEST (test_sizes_work_queue) { check_sizes (test, NULL); }

TRANSPORT_TEST (test_sizes_broadcast) { check_sizes (test, "mode=broadcast"); }

TRANSPORT_TEST (test_sizes_small_slots) { check_sizes (test, "inline-size=64"); }

TRANSPORT_TEST (test_sizes_large_slots) { check_sizes (test, "inline-size=4040 mode=broadcast"); }

TRANSPORT_TEST (test_size_64_mib)
{
  FerryChannel *sender = open_sender (test, NULL);
  FerryChannel *receiver = open_receiver (test, NULL);
  gsize size = 64 * MIB;

  for (guint i = 0; i < 2; i++)
    {
      channel_test_send (sender, i, size + i);
      channel_test_expect (receiver, i, size + i);
    }
  channel_test_verify (sender);
  channel_test_close (sender);
  channel_test_close (receiver);
}

/* More than 32 bits can count, and more than most would call a message. */
TRANSPORT_TEST (test_size_6_gib)
{
  FerryChannel *sender;
  FerryChannel *receiver;
  g_autoptr (GError) error = NULL;
  g_autoptr (FerryBuffer) loan = NULL;
  g_autoptr (FerryBuffer) view = NULL;
  gsize size = 6 * KIB * MIB + 5;
  gsize found;
  guint8 *to;
  const guint8 *from;

  if (!ferry_test_is_thorough ())
    return;
  sender = open_sender (test, "max-bytes=6500000000");
  receiver = open_receiver (test, NULL);
  loan = ferry_channel_loan (sender, size, FERRY_NO_WAIT, NULL, &error);
  ferry_assert_no_error (error);
  to = ferry_buffer_get_writable_data (loan, NULL);
  for (gsize at = 0; at + 8 <= size; at += 16 * MIB)
    channel_test_fill (to + at, 8, at);
  to[size - 1] = 77;
  ck_assert (ferry_channel_send_buffer (sender, loan, FERRY_NO_WAIT, NULL, &error));
  ferry_assert_no_error (error);
  view = channel_test_take (receiver);
  from = ferry_buffer_get_data (view, &found);
  ck_assert_uint_eq (found, size);
  for (gsize at = 0; at + 8 <= size; at += 16 * MIB)
    ck_assert (channel_test_is_filled (from + at, 8, at));
  ck_assert_uint_eq (from[size - 1], 77);
  ferry_buffer_unref (g_steal_pointer (&view));
  channel_test_verify (sender);
  ferry_buffer_unref (g_steal_pointer (&loan));
  channel_test_close (sender);
  channel_test_close (receiver);
}

TRANSPORT_TEST (test_random_sizes)
{
  FerryChannel *sender = open_sender (test, NULL);
  FerryChannel *receiver = open_receiver (test, NULL);
  GRand *rand = g_rand_new_with_seed (SEED);
  GQueue waiting = G_QUEUE_INIT;
  guint64 received = 0;

  for (guint i = 0; i < 600; i++)
    {
      gsize size = (gsize) 1 << g_rand_int_range (rand, 0, 19);

      size += (gsize) g_rand_int_range (rand, 0, (gint32) size);
      channel_test_send (sender, i, size);
      g_queue_push_tail (&waiting, GSIZE_TO_POINTER (size));
      while (waiting.length > (guint) g_rand_int_range (rand, 0, 60))
        {
          size = GPOINTER_TO_SIZE (g_queue_pop_head (&waiting));
          channel_test_expect (receiver, received, size);
          received++;
        }
    }
  while (waiting.length > 0)
    {
      gsize size = GPOINTER_TO_SIZE (g_queue_pop_head (&waiting));

      channel_test_expect (receiver, received, size);
      received++;
    }
  channel_test_verify (sender);
  channel_test_close (sender);
  channel_test_close (receiver);
  g_rand_free (rand);
}

/* ---- loans ---- */

static FerryBuffer *
take_loan (FerryChannel *sender, guint64 number, gsize size)
{
  g_autoptr (GError) error = NULL;
  FerryBuffer *loan = ferry_channel_loan (sender, size, 10 * G_USEC_PER_SEC, NULL, &error);
  gsize found;
  guint8 *data;

  ferry_assert_no_error (error);
  ck_assert_ptr_nonnull (loan);
  ck_assert_uint_eq (ferry_buffer_get_size (loan), size);
  ck_assert (ferry_buffer_is_writable (loan));
  data = ferry_buffer_get_writable_data (loan, &found);
  ck_assert_ptr_nonnull (data);
  ck_assert_uint_eq (found, size);
  channel_test_fill (data, size, number);
  return loan;
}

static void
send_loan (FerryChannel *sender, FerryBuffer *loan)
{
  g_autoptr (GError) error = NULL;

  ck_assert (ferry_channel_send_buffer (sender, loan, 10 * G_USEC_PER_SEC, NULL, &error));
  ferry_assert_no_error (error);
}

static const gsize loan_sizes[] = { 0, 1, 200, 201, 4096, 4097, 100000, MIB + 1 };

static void
check_loans (ChannelTest *test, const char *properties)
{
  FerryChannel *sender = open_sender (test, properties);
  FerryChannel *receiver = open_receiver (test, NULL);

  for (guint i = 0; i < G_N_ELEMENTS (loan_sizes); i++)
    {
      FerryBuffer *loan = take_loan (sender, i, loan_sizes[i]);

      /* Not sent yet: nobody sees it. */
      channel_test_expect_nothing (test, receiver);
      send_loan (sender, loan);
      /* Spent: empty and read only. */
      ck_assert_uint_eq (ferry_buffer_get_size (loan), 0);
      ck_assert (!ferry_buffer_is_writable (loan));
      ck_assert_ptr_null (ferry_buffer_get_writable_data (loan, NULL));
      ck_assert (!ferry_buffer_set_size (loan, 1));
      channel_test_expect (receiver, i, loan_sizes[i]);
      ferry_buffer_unref (loan);
    }
  channel_test_expect_nothing (test, receiver);

  /* Several at once, sent in another order. */
  {
    FerryBuffer *loans[G_N_ELEMENTS (loan_sizes)];

    for (guint i = 0; i < G_N_ELEMENTS (loan_sizes); i++)
      loans[i] = take_loan (sender, i, loan_sizes[i]);
    for (guint i = G_N_ELEMENTS (loan_sizes); i > 0; i--)
      send_loan (sender, loans[i - 1]);
    for (guint i = G_N_ELEMENTS (loan_sizes); i > 0; i--)
      channel_test_expect (receiver, i - 1, loan_sizes[i - 1]);
    for (guint i = 0; i < G_N_ELEMENTS (loan_sizes); i++)
      ferry_buffer_unref (loans[i]);
  }
  channel_test_verify (sender);
  channel_test_close (sender);
  channel_test_close (receiver);
}

TRANSPORT_TEST (test_loans_work_queue) { check_loans (test, NULL); }

TRANSPORT_TEST (test_loans_broadcast) { check_loans (test, "mode=broadcast"); }

TRANSPORT_TEST (test_loan_shortened)
{
  FerryChannel *sender = open_sender (test, NULL);
  FerryChannel *receiver = open_receiver (test, NULL);
  static const gsize shorter[] = { 100000, 99999, 50000, 4097, 201, 200, 1, 0 };

  for (guint i = 0; i < G_N_ELEMENTS (shorter); i++)
    {
      g_autoptr (FerryBuffer) loan = take_loan (sender, i, 100000);

      ck_assert (!ferry_buffer_set_size (loan, 100001));
      ck_assert_uint_eq (ferry_buffer_get_size (loan), 100000);
      ck_assert (ferry_buffer_set_size (loan, 10));
      ck_assert (ferry_buffer_set_size (loan, shorter[i])); /* longer again */
      channel_test_fill (ferry_buffer_get_writable_data (loan, NULL), shorter[i], i);
      send_loan (sender, loan);
      channel_test_expect (receiver, i, shorter[i]);
    }
  channel_test_verify (sender);
  channel_test_close (sender);
  channel_test_close (receiver);
}

/* A loan that is dropped gives its memory back, also the last that there is. */
TRANSPORT_TEST (test_loan_dropped)
{
  FerryChannel *sender = open_sender (test, "max-bytes=262144");
  FerryChannel *receiver = open_receiver (test, NULL);

  for (guint i = 0; i < 100; i++)
    {
      FerryBuffer *loan = take_loan (sender, i, 262144);
      g_autoptr (GError) error = NULL;

      ck_assert_ptr_null (ferry_channel_loan (sender, 4096, FERRY_NO_WAIT, NULL, &error));
      channel_test_assert_error (test, error, FERRY_ERROR_FULL);
      ferry_buffer_unref (loan);
    }
  channel_test_expect_nothing (test, receiver);
  channel_test_assert_statistic (sender, messages_sent, 0);
  channel_test_send (sender, 1, 262144);
  channel_test_expect (receiver, 1, 262144);
  channel_test_verify (sender);
  channel_test_close (sender);
  channel_test_close (receiver);
}

TRANSPORT_TEST (test_loan_sent_twice)
{
  FerryChannel *sender = open_sender (test, NULL);
  FerryChannel *receiver = open_receiver (test, NULL);

  for (guint i = 0; i < G_N_ELEMENTS (loan_sizes); i++)
    {
      g_autoptr (FerryBuffer) loan = take_loan (sender, i, loan_sizes[i]);
      g_autoptr (GError) error = NULL;

      send_loan (sender, loan);
      ck_assert (!ferry_channel_send_buffer (sender, loan, FERRY_NO_WAIT, NULL, &error));
      channel_test_assert_error (test, error, FERRY_ERROR_INVALID_ARGUMENT);
      ferry_assert_contains (error->message, "loan another");
      channel_test_expect (receiver, i, loan_sizes[i]);
      channel_test_expect_nothing (test, receiver);
    }
  channel_test_verify (sender);
  channel_test_close (sender);
  channel_test_close (receiver);
}

/* When a loan can't be sent now it can be sent later. */
TRANSPORT_TEST (test_loan_sent_again_after_failure)
{
  FerryChannel *sender = open_sender (test, "capacity=1");
  FerryChannel *receiver = open_receiver (test, NULL);

  for (guint i = 0; i < G_N_ELEMENTS (loan_sizes); i++)
    {
      g_autoptr (FerryBuffer) loan = take_loan (sender, i, loan_sizes[i]);
      g_autoptr (GError) error = NULL;

      channel_test_send (sender, 99, 1);
      ck_assert (!ferry_channel_send_buffer (sender, loan, FERRY_NO_WAIT, NULL, &error));
      channel_test_assert_error (test, error, FERRY_ERROR_FULL);
      ck_assert (ferry_buffer_is_writable (loan));
      ck_assert_uint_eq (ferry_buffer_get_size (loan), loan_sizes[i]);
      ck_assert (channel_test_is_filled (ferry_buffer_get_data (loan, NULL), loan_sizes[i], i));
      g_clear_error (&error);
      ck_assert (!ferry_channel_send_buffer (sender, loan, 20 * MS, NULL, &error));
      channel_test_assert_error (test, error, FERRY_ERROR_TIMED_OUT);
      ck_assert (ferry_buffer_is_writable (loan));
      channel_test_expect (receiver, 99, 1);
      send_loan (sender, loan);
      channel_test_expect (receiver, i, loan_sizes[i]);
    }
  channel_test_verify (sender);
  channel_test_close (sender);
  channel_test_close (receiver);
}

/* What others own is copied and stays theirs: it can be sent as often as one likes. */
/* A loan taken while memory is full is no message yet: dropped is what finds no room when it is sent. */
TRANSPORT_TEST (test_drop_newest_loan)
{
  const gsize size = 100000;
  FerryChannel *sender = open_sender (test, "overflow=drop-newest max-bytes=131072");
  FerryChannel *receiver = open_receiver (test, NULL);

  for (guint i = 0; i < 2; i++)
    {
      g_autoptr (GError) error = NULL;
      g_autoptr (FerryStatistics) statistics = NULL;
      g_autoptr (FerryBuffer) loan = NULL;
      g_autoptr (FerryBuffer) view = NULL;

      channel_test_send (sender, 1, size);
      view = channel_test_take (receiver);
      loan = ferry_channel_loan (sender, size, FERRY_NO_WAIT, NULL, &error);
      ferry_assert_no_error (error);
      channel_test_fill (ferry_buffer_get_writable_data (loan, NULL), size, 2);
      if (i == 0)
        g_clear_pointer (&view, ferry_buffer_unref);
      ck_assert (ferry_channel_send_buffer (sender, loan, FERRY_NO_WAIT, NULL, &error));
      ferry_assert_no_error (error);
      if (i == 0)
        channel_test_expect (receiver, 2, size);
      statistics = ferry_channel_get_statistics (sender, &error);
      ck_assert_uint_eq (statistics->messages_dropped, i);
      ck_assert_uint_eq (statistics->messages_sent, i == 0 ? 2 : 3);
    }
  channel_test_close (sender);
  channel_test_close (receiver);
}

TRANSPORT_TEST (test_foreign_buffers)
{
  FerryChannel *sender;
  FerryChannel *receiver;
  ChannelTest other;
  FerryChannel *other_sender;

  begin (&other, &g_array_index (all, Conformance, 0));
  test->n_fds = other.n_fds; /* what the other transport opens once is no leak either */
  sender = open_sender (test, NULL);
  receiver = open_receiver (test, NULL);
  other_sender = open_sender (&other, NULL);
  for (guint i = 0; i < G_N_ELEMENTS (loan_sizes); i++)
    {
      gsize size = loan_sizes[i];
      guint8 *data = g_malloc (MAX (size, 1));
      g_autoptr (GBytes) bytes = NULL;
      g_autoptr (FerryBuffer) wrapped = NULL;
      g_autoptr (FerryBuffer) loan = NULL;
      FerryBuffer *own;

      channel_test_fill (data, size, i);
      bytes = g_bytes_new_take (data, size);
      wrapped = ferry_buffer_new_bytes (bytes);
      for (guint n = 0; n < 3; n++)
        {
          send_loan (sender, wrapped);
          ck_assert_uint_eq (ferry_buffer_get_size (wrapped), size);
          channel_test_expect (receiver, i, size);
        }

      /* of another channel: a loan is spent by sending, as every loan */
      loan = take_loan (other_sender, i, size);
      send_loan (sender, loan);
      channel_test_expect (receiver, i, size);

      /* in private memory */
      own = ferry_buffer_new (size);
      channel_test_fill (ferry_buffer_get_writable_data (own, NULL), size, i);
      send_loan (sender, own);
      ferry_buffer_unref (own);
      channel_test_expect (receiver, i, size);
    }
  channel_test_verify (sender);
  channel_test_verify (other_sender);
  channel_test_close (other_sender);
  channel_test_close (sender);
  channel_test_close (receiver);
  channel_test_forget (test);
  channel_test_end (&other);
}

/* A received message goes on into another channel, or back into its own. */
TRANSPORT_TEST (test_received_buffers_forwarded)
{
  FerryChannel *sender = open_sender (test, NULL);
  FerryChannel *receiver = open_receiver (test, NULL);

  for (guint i = 0; i < G_N_ELEMENTS (loan_sizes); i++)
    {
      gsize size = loan_sizes[i];
      FerryBuffer *view;

      channel_test_send (sender, i, size);
      view = channel_test_take (receiver);
      for (guint n = 0; n < 2; n++)
        {
          send_loan (sender, view);
          ck_assert (channel_test_is_filled (ferry_buffer_get_data (view, NULL), size, i));
          channel_test_expect (receiver, i, size);
        }
      ferry_buffer_unref (view);
    }
  channel_test_expect_nothing (test, receiver);
  channel_test_verify (sender);
  channel_test_close (sender);
  channel_test_close (receiver);
}

/* ---- zero copy ---- */

/* What was written into the loan is what the receiver sees, in the same memory: also what is written after it. */
static void
check_zero_copy (ChannelTest *test, const char *properties)
{
  FerryChannel *sender = open_sender (test, properties);
  FerryChannel *receiver = open_receiver (test, NULL);
  static const gsize large[] = { 4097, 100000, 4 * MIB };

  for (guint i = 0; i < G_N_ELEMENTS (large); i++)
    {
      FerryBuffer *loan = take_loan (sender, i, large[i]);
      guint8 *written = ferry_buffer_get_writable_data (loan, NULL);
      FerryBuffer *view;
      const guint8 *seen;

      send_loan (sender, loan);
      view = channel_test_take (receiver);
      seen = ferry_buffer_get_data (view, NULL);
      ck_assert (channel_test_is_filled (seen, large[i], i));
      /* The sender must not do that; it shows that there is only one memory. */
      written[large[i] / 2] ^= 0xff;
      ck_assert_uint_eq (seen[large[i] / 2], written[large[i] / 2]);
      ck_assert (!channel_test_is_filled (seen, large[i], i));
      ck_assert_uint_eq (GPOINTER_TO_SIZE (seen) % 64, 0);
      ferry_buffer_unref (view);
      ferry_buffer_unref (loan);
    }
  channel_test_verify (sender);
  channel_test_close (sender);
  channel_test_close (receiver);
}

TRANSPORT_TEST (test_zero_copy_work_queue) { check_zero_copy (test, NULL); }

TRANSPORT_TEST (test_zero_copy_broadcast) { check_zero_copy (test, "mode=broadcast"); }

/* The warm block is used again and again. */
static void
check_warm_reuse (ChannelTest *test, const char *properties, gsize size)
{
  FerryChannel *sender = open_sender (test, properties);
  FerryChannel *receiver = open_receiver (test, NULL);
  guint64 committed = 0;
  const guint8 *address = NULL;

  for (guint i = 0; i < 1000; i++)
    {
      g_autoptr (GError) error = NULL;
      g_autoptr (FerryBuffer) loan = ferry_channel_loan (sender, size, FERRY_NO_WAIT, NULL, &error);
      g_autoptr (FerryBuffer) view = NULL;
      g_autoptr (FerryStatistics) statistics = NULL;

      ferry_assert_no_error (error);
      memcpy (ferry_buffer_get_writable_data (loan, NULL), &i, sizeof i);
      if (i == 0)
        address = ferry_buffer_get_data (loan, NULL);
      ck_assert_ptr_eq (ferry_buffer_get_data (loan, NULL), address);
      send_loan (sender, loan);
      view = channel_test_take (receiver);
      ck_assert_int_eq (memcmp (ferry_buffer_get_data (view, NULL), &i, sizeof i), 0);
      statistics = channel_test_statistics (sender);
      if (i == 0)
        committed = statistics->bytes_committed;
      ck_assert_uint_eq (statistics->bytes_committed, committed);
      ck_assert_uint_eq (statistics->bytes_committed_peak, committed);
    }
  ck_assert_uint_ge (committed, size);
  ck_assert_uint_lt (committed, size + 4096);
  channel_test_verify (sender);
  channel_test_close (sender);
  channel_test_close (receiver);
}

TRANSPORT_TEST (test_warm_reuse_work_queue) { check_warm_reuse (test, NULL, 300000); }

TRANSPORT_TEST (test_warm_reuse_broadcast) { check_warm_reuse (test, "mode=broadcast", 300000); }

/* Small blocks may be used in turns; the most that they then are committed. */
static guint64
stream_small_loans (ChannelTest *test, const char *properties, guint n, gulong pause, GHashTable *addresses)
{
  FerryChannel *sender = open_sender (test, properties);
  FerryChannel *receiver = open_receiver (test, NULL);
  g_autoptr (FerryStatistics) statistics = NULL;

  for (guint i = 0; i < n; i++)
    {
      g_autoptr (GError) error = NULL;
      g_autoptr (FerryBuffer) loan = ferry_channel_loan (sender, 5000, FERRY_NO_WAIT, NULL, &error);
      g_autoptr (FerryBuffer) view = NULL;

      ferry_assert_no_error (error);
      memcpy (ferry_buffer_get_writable_data (loan, NULL), &i, sizeof i);
      g_hash_table_add (addresses, (gpointer) ferry_buffer_get_data (loan, NULL));
      send_loan (sender, loan);
      view = channel_test_take (receiver);
      ck_assert_int_eq (memcmp (ferry_buffer_get_data (view, NULL), &i, sizeof i), 0);
      if (pause > 0)
        g_usleep (pause);
    }
  statistics = channel_test_statistics (sender);
  channel_test_verify (sender);
  channel_test_close (sender);
  channel_test_close (receiver);
  return statistics->bytes_committed_peak;
}

/* No more than the rotation, however long the stream. */
TRANSPORT_TEST (test_warm_reuse_stream)
{
  g_autoptr (GHashTable) addresses = g_hash_table_new (NULL, NULL);
  guint64 committed = stream_small_loans (test, NULL, 5000, 0, addresses);

  ck_assert_uint_ge (committed, 8192);
  ck_assert_uint_le (committed, 64 * 8192);
  ck_assert_uint_le (g_hash_table_size (addresses), 64);
}

/* One block does for all of them. */
TRANSPORT_TEST (test_warm_reuse_few)
{
  g_autoptr (GHashTable) addresses = g_hash_table_new (NULL, NULL);
  guint64 committed = stream_small_loans (test, NULL, 100, 1000, addresses);

  ck_assert_uint_eq (committed, 8192);
  ck_assert_uint_eq (g_hash_table_size (addresses), 1);
}

/* Half of the bound is left to others. */
TRANSPORT_TEST (test_warm_reuse_bounded)
{
  g_autoptr (GHashTable) addresses = g_hash_table_new (NULL, NULL);

  ck_assert_uint_le (stream_small_loans (test, "max-bytes=65536", 5000, 0, addresses), 32768 + 8192);
}

/* Small ones take no block at all. */
TRANSPORT_TEST (test_small_messages_take_no_block)
{
  FerryChannel *sender = open_sender (test, NULL);
  FerryChannel *receiver = open_receiver (test, NULL);

  for (guint i = 0; i < 200; i++)
    {
      channel_test_send (sender, i, i);
      channel_test_expect (receiver, i, i);
    }
  channel_test_assert_statistic (sender, bytes_committed_peak, 0);
  channel_test_verify (sender);
  channel_test_close (sender);
  channel_test_close (receiver);
}

/* ---- views ---- */

static void
check_views_in_any_order (ChannelTest *test, const char *properties)
{
  FerryChannel *sender = open_sender (test, properties);
  FerryChannel *receivers[2] = { open_receiver (test, NULL), NULL };
  gboolean broadcast = properties != NULL;
  GRand *rand = g_rand_new_with_seed (SEED);
  FerryBuffer *views[40] = { NULL };
  guint numbers[40] = { 0 };
  guint next = 0;

  if (broadcast)
    receivers[1] = open_receiver (test, NULL);
  for (guint i = 0; i < 2000; i++)
    {
      guint which = (guint) g_rand_int_range (rand, 0, 40);

      if (views[which] != NULL)
        {
          gsize size = ferry_buffer_get_size (views[which]);

          ck_assert (channel_test_is_filled (ferry_buffer_get_data (views[which], NULL), size, numbers[which]));
          ferry_buffer_unref (g_steal_pointer (&views[which]));
          continue;
        }
      /* Whatever is held, messages go through: not even the other receiver notices. */
      channel_test_send (sender, next, 300 + next * 13 % 20000);
      views[which] = channel_test_take (receivers[0]);
      numbers[which] = next;
      if (broadcast)
        channel_test_expect (receivers[1], next, 300 + next * 13 % 20000);
      next++;
    }
  for (guint i = 0; i < 40; i++)
    if (views[i] != NULL)
      {
        ck_assert (channel_test_is_filled (ferry_buffer_get_data (views[i], NULL), ferry_buffer_get_size (views[i]),
                                           numbers[i]));
        ferry_buffer_unref (views[i]);
      }
  channel_test_verify (sender);
  channel_test_close (sender);
  channel_test_close (receivers[0]);
  if (broadcast)
    channel_test_close (receivers[1]);
  g_rand_free (rand);
}

TRANSPORT_TEST (test_views_in_any_order_work_queue) { check_views_in_any_order (test, NULL); }

TRANSPORT_TEST (test_views_in_any_order_broadcast) { check_views_in_any_order (test, "mode=broadcast"); }

/* A view outlives the endpoint that received it, and everybody else. */
static void
check_views_outlive (ChannelTest *test, const char *properties, gboolean close_first)
{
  FerryChannel *sender = open_sender (test, properties);
  FerryChannel *receiver = open_receiver (test, NULL);
  g_autoptr (GError) error = NULL;
  FerryBuffer *views[3];
  FerryBuffer *loan;

  for (guint i = 0; i < 3; i++)
    {
      channel_test_send (sender, i, i == 0 ? 20 : 70000);
      views[i] = channel_test_take (receiver);
    }
  loan = take_loan (sender, 7, 50000);
  if (close_first)
    ck_assert (ferry_channel_close (receiver, &error));
  g_object_unref (receiver);

  /* Who is still there is not kept up, and gets the memory when the view goes. */
  receiver = open_receiver (test, NULL);
  channel_test_send (sender, 3, 70000);
  channel_test_expect (receiver, 3, 70000);
  ferry_buffer_unref (views[1]);
  channel_test_send (sender, 4, 70000);
  channel_test_expect (receiver, 4, 70000);
  channel_test_verify (receiver);

  ck_assert (ferry_channel_close (sender, &error));
  ck_assert (ferry_channel_close (sender, &error));
  g_object_unref (sender);
  channel_test_close (receiver);
  for (guint i = 0; i < 3; i += 2)
    {
      ck_assert (channel_test_is_filled (ferry_buffer_get_data (views[i], NULL), i == 0 ? 20 : 70000, i));
      ferry_buffer_unref (views[i]);
    }
  ck_assert (channel_test_is_filled (ferry_buffer_get_data (loan, NULL), 50000, 7));
  ferry_buffer_unref (loan);
}

TRANSPORT_TEST (test_views_outlive_close) { check_views_outlive (test, NULL, TRUE); }

TRANSPORT_TEST (test_views_outlive_unref) { check_views_outlive (test, NULL, FALSE); }

TRANSPORT_TEST (test_views_outlive_close_broadcast) { check_views_outlive (test, "mode=broadcast", TRUE); }

/* A closed endpoint whose views are held is no sender or receiver any more. */
TRANSPORT_TEST (test_views_do_not_keep_the_role)
{
  FerryChannel *sender = open_sender (test, "mode=broadcast capacity=2 overflow=error");
  FerryChannel *receiver = open_receiver (test, NULL);
  FerryBuffer *view;

  channel_test_send (sender, 0, 9000);
  view = channel_test_take (receiver);
  channel_test_close (receiver);
  channel_test_assert_statistic (sender, receivers, 0);
  for (guint i = 0; i < 20; i++)
    channel_test_send (sender, i, 9000); /* nobody is left to wait for */
  ck_assert (channel_test_is_filled (ferry_buffer_get_data (view, NULL), 9000, 0));
  ferry_buffer_unref (view);
  channel_test_verify (sender);
  channel_test_close (sender);
}

/* In a work queue a view is the receiver's to change. */
TRANSPORT_TEST (test_views_writable_in_work_queue)
{
  FerryChannel *sender = open_sender (test, NULL);
  FerryChannel *receiver = open_receiver (test, NULL);

  for (guint i = 0; i < 2; i++)
    {
      gsize size = i == 0 ? 20 : 100000;
      g_autoptr (FerryBuffer) view = NULL;

      channel_test_send (sender, i, size);
      view = channel_test_take (receiver);
      ck_assert (ferry_buffer_is_writable (view));
      memset (ferry_buffer_get_writable_data (view, NULL), 7, size);
      ck_assert (ferry_buffer_fill (view, size - 2, (const guint8 *) "ab", 2));
      ck_assert (!ferry_buffer_fill (view, size - 1, (const guint8 *) "ab", 2));
      ck_assert_uint_eq (ferry_buffer_get_data (view, NULL)[size - 1], 'b');
    }
  channel_test_verify (sender);
  channel_test_close (sender);
  channel_test_close (receiver);
}

static void
write_into_view (ChannelTest *test, gpointer data)
{
  /* No hint in the error output: this crash is meant. */
  signal (SIGSEGV, SIG_DFL);
  *(volatile guint8 *) data = 1;
}

TRANSPORT_TEST (test_views_read_only_in_broadcast)
{
  FerryChannel *sender = open_sender (test, "mode=broadcast");
  FerryChannel *receiver = open_receiver (test, NULL);

  for (guint i = 0; i < 3; i++)
    {
      gsize size = i == 0 ? 20 : i == 1 ? 5000 : 8 * MIB;
      g_autoptr (FerryBuffer) view = NULL;

      channel_test_send (sender, i, size);
      view = channel_test_take (receiver);
      ck_assert (!ferry_buffer_is_writable (view));
      ck_assert_ptr_null (ferry_buffer_get_writable_data (view, NULL));
      ck_assert (!ferry_buffer_fill (view, 0, (const guint8 *) "a", 1));
      ck_assert (!ferry_buffer_set_size (view, 1));
      /* A small one is a private copy. And valgrind reads all memory of a process that crashes, holes included. */
      if (i > 0 && !ferry_test_is_valgrind ())
        {
          const guint8 *data = ferry_buffer_get_data (view, NULL);
          pid_t pid = channel_test_fork (write_into_view, test, (gpointer) (data + size / 2));
          int status = 0;

          /* The mapping itself refuses, whatever the program believes. */
          ck_assert_int_eq (waitpid (pid, &status, 0), pid);
          ck_assert_msg (WIFSIGNALED (status) && (WTERMSIG (status) == SIGSEGV || WTERMSIG (status) == SIGBUS),
                         "writing into a broadcast view was possible: status 0x%x", status);
          ck_assert (channel_test_is_filled (data, size, i));
        }
    }
  channel_test_verify (sender);
  channel_test_close (sender);
  channel_test_close (receiver);
}

/* Bytes made of a message hold it, and nothing else does. */
TRANSPORT_TEST (test_received_bytes_hold_the_message)
{
  FerryChannel *sender = open_sender (test, "max-bytes=65536");
  FerryChannel *receiver = open_receiver (test, NULL);
  g_autoptr (GError) error = NULL;
  GBytes *bytes;

  channel_test_send (sender, 0, 65536);
  bytes = ferry_channel_receive_bytes (receiver, FERRY_NO_WAIT, NULL, &error);
  ferry_assert_no_error (error);
  ck_assert_uint_eq (g_bytes_get_size (bytes), 65536);
  ck_assert (channel_test_is_filled (g_bytes_get_data (bytes, NULL), 65536, 0));
  ck_assert (!channel_test_try_send (sender, 1, 65536, FERRY_NO_WAIT, &error));
  channel_test_assert_error (test, error, FERRY_ERROR_FULL);
  g_bytes_unref (bytes);
  channel_test_send (sender, 1, 65536);
  channel_test_expect (receiver, 1, 65536);
  channel_test_verify (sender);
  channel_test_close (sender);
  channel_test_close (receiver);
}

/* ---- idle memory ---- */

TRANSPORT_TEST (test_trim)
{
  FerryChannel *sender = open_sender (test, NULL);
  FerryChannel *receiver = open_receiver (test, NULL);
  FerryBuffer *view;
  g_autoptr (FerryStatistics) before = NULL;
  gsize given_back;

  for (guint i = 0; i < 5; i++)
    channel_test_send (sender, i, 100000 * (i + 1));
  for (guint i = 0; i < 4; i++)
    channel_test_expect (receiver, i, 100000 * (i + 1));
  view = channel_test_take (receiver);
  before = channel_test_statistics (sender);
  ck_assert_uint_ge (before->bytes_committed, 1500000);

  /* All but what is held. */
  given_back = ferry_channel_trim (sender);
  ck_assert_uint_ge (given_back, 1000000);
  channel_test_assert_statistic (sender, bytes_committed, before->bytes_committed - given_back);
  ck_assert (channel_test_is_filled (ferry_buffer_get_data (view, NULL), 500000, 4));
  ck_assert_uint_eq (ferry_channel_trim (sender), 0);
  ferry_buffer_unref (view);
  ck_assert_uint_ge (ferry_channel_trim (receiver), 500000);
  channel_test_assert_statistic (sender, bytes_committed, 0);

  /* And it goes on. */
  channel_test_send (sender, 6, 100000);
  channel_test_expect (receiver, 6, 100000);
  channel_test_verify (sender);
  channel_test_close (sender);
  channel_test_close (receiver);
  ck_assert_uint_eq (before->bytes_committed_peak, before->bytes_committed);
}

static gpointer
receive_thread (gpointer data)
{
  FerryBuffer *buffer = ferry_channel_receive (data, 20 * G_USEC_PER_SEC, NULL, NULL);

  ck_assert_ptr_nonnull (buffer);
  ferry_buffer_unref (buffer);
  return NULL;
}

/* Memory that nobody used for five seconds goes back by itself while somebody waits. */
TRANSPORT_TEST (test_idle_memory_given_back)
{
  FerryChannel *sender = open_sender (test, NULL);
  FerryChannel *receiver = open_receiver (test, NULL);
  GThread *thread;
  gint64 started;
  gint64 given_back = 0;

  channel_test_send (sender, 0, 8 * MIB);
  channel_test_expect (receiver, 0, 8 * MIB);
  channel_test_assert_statistic (sender, bytes_committed, 8 * MIB);
  started = g_get_monotonic_time ();
  thread = g_thread_new ("receiver", receive_thread, receiver);
  while (given_back == 0 && g_get_monotonic_time () - started < 15 * G_USEC_PER_SEC)
    {
      g_autoptr (FerryStatistics) statistics = channel_test_statistics (sender);

      if (statistics->bytes_committed == 0)
        given_back = g_get_monotonic_time ();
      g_usleep (50 * MS);
    }
  ck_assert_msg (given_back != 0, "idle memory was not given back");
  ck_assert_int_ge (given_back - started, 4900 * MS);
  ck_assert_int_le (given_back - started, 7000 * MS + LATE_US);
  channel_test_send (sender, 1, 1);
  g_thread_join (thread);
  channel_test_verify (sender);
  channel_test_close (sender);
  channel_test_close (receiver);
}

/* ---- waiting ---- */

static void
assert_took (gint64 started, gint64 timeout)
{
  gint64 took = g_get_monotonic_time () - started;

  ck_assert_msg (took >= timeout, "%g ms too early", (double) (timeout - took) / MS);
  ck_assert_msg (took < timeout + LATE_US, "%g ms too late", (double) (took - timeout) / MS);
}

static const char *const wait_strategies[] = { "adaptive", "sleep", "spin" };

TRANSPORT_TEST (test_receive_times_out)
{
  for (guint i = 0; i < G_N_ELEMENTS (wait_strategies); i++)
    {
      g_autofree char *properties = g_strdup_printf ("wait-strategy=%s", wait_strategies[i]);
      FerryChannel *sender;
      FerryChannel *receiver;
      g_autoptr (GError) error = NULL;
      static const gint64 timeouts[] = { 1, 1000, 30000, 120000 };

      channel_test_forget (test);
      sender = open_sender (test, properties);
      receiver = open_receiver (test, properties);
      for (guint t = 0; t < G_N_ELEMENTS (timeouts); t++)
        {
          gint64 started = g_get_monotonic_time ();

          channel_test_expect_error (test, receiver, timeouts[t], FERRY_ERROR_TIMED_OUT);
          assert_took (started, timeouts[t]);
          started = g_get_monotonic_time ();
          ck_assert (!ferry_channel_wait (receiver, G_IO_IN, timeouts[t], NULL, &error));
          channel_test_assert_error (test, error, FERRY_ERROR_TIMED_OUT);
          assert_took (started, timeouts[t]);
          g_clear_error (&error);
        }
      /* What came is there all the same. */
      channel_test_send (sender, 1, 10);
      channel_test_expect (receiver, 1, 10);
      channel_test_close (sender);
      channel_test_close (receiver);
    }
}

TRANSPORT_TEST (test_send_times_out)
{
  for (guint i = 0; i < G_N_ELEMENTS (wait_strategies); i++)
    {
      g_autofree char *properties = g_strdup_printf ("capacity=1 max-bytes=65536 wait-strategy=%s", wait_strategies[i]);
      FerryChannel *sender;
      FerryChannel *receiver;
      g_autoptr (GError) error = NULL;
      g_autoptr (FerryBuffer) view = NULL;
      gint64 started;

      channel_test_forget (test);
      sender = open_sender (test, properties);
      receiver = open_receiver (test, NULL);
      channel_test_send (sender, 1, 65536);

      started = g_get_monotonic_time ();
      ck_assert (!channel_test_try_send (sender, 2, 10, 60 * MS, &error));
      channel_test_assert_error (test, error, FERRY_ERROR_TIMED_OUT);
      assert_took (started, 60 * MS);
      g_clear_error (&error);

      started = g_get_monotonic_time ();
      ck_assert (!ferry_channel_wait (sender, G_IO_OUT, 60 * MS, NULL, &error));
      channel_test_assert_error (test, error, FERRY_ERROR_TIMED_OUT);
      assert_took (started, 60 * MS);
      g_clear_error (&error);

      started = g_get_monotonic_time ();
      ck_assert (!ferry_channel_flush (sender, 60 * MS, NULL, &error));
      channel_test_assert_error (test, error, FERRY_ERROR_TIMED_OUT);
      assert_took (started, 60 * MS);
      g_clear_error (&error);

      /* for memory */
      view = channel_test_take (receiver);
      started = g_get_monotonic_time ();
      ck_assert_ptr_null (ferry_channel_loan (sender, 4096, 60 * MS, NULL, &error));
      channel_test_assert_error (test, error, FERRY_ERROR_TIMED_OUT);
      assert_took (started, 60 * MS);
      g_clear_error (&error);
      started = g_get_monotonic_time ();
      ck_assert (!channel_test_try_send (sender, 2, 4096, 60 * MS, &error));
      channel_test_assert_error (test, error, FERRY_ERROR_TIMED_OUT);
      assert_took (started, 60 * MS);
      g_clear_error (&error);
      ferry_buffer_unref (g_steal_pointer (&view));

      /* Nothing of what failed was sent. */
      channel_test_expect_nothing (test, receiver);
      channel_test_verify (sender);
      channel_test_close (sender);
      channel_test_close (receiver);
    }
}

TRANSPORT_TEST (test_no_wait)
{
  FerryChannel *sender = open_sender (test, "capacity=1");
  FerryChannel *receiver = open_receiver (test, NULL);
  g_autoptr (GError) error = NULL;
  gint64 started = g_get_monotonic_time ();

  for (guint i = 0; i < 200; i++)
    {
      channel_test_expect_nothing (test, receiver);
      ck_assert (!ferry_channel_wait (receiver, G_IO_IN, FERRY_NO_WAIT, NULL, &error));
      channel_test_assert_error (test, error, FERRY_ERROR_TIMED_OUT);
      g_clear_error (&error);
      ck_assert (ferry_channel_wait (sender, G_IO_OUT, FERRY_NO_WAIT, NULL, &error));
      ck_assert (channel_test_try_send (sender, i, 10, FERRY_NO_WAIT, &error));
      ck_assert (!channel_test_try_send (sender, i, 10, FERRY_NO_WAIT, &error));
      channel_test_assert_error (test, error, FERRY_ERROR_FULL);
      g_clear_error (&error);
      ck_assert (!ferry_channel_flush (sender, FERRY_NO_WAIT, NULL, &error));
      channel_test_assert_error (test, error, FERRY_ERROR_TIMED_OUT);
      g_clear_error (&error);
      ck_assert (ferry_channel_wait (receiver, G_IO_IN, FERRY_NO_WAIT, NULL, &error));
      channel_test_expect (receiver, i, 10);
      ck_assert (ferry_channel_flush (sender, FERRY_NO_WAIT, NULL, &error));
      ferry_assert_no_error (error);
    }
  ck_assert_int_lt (g_get_monotonic_time () - started, 2 * G_USEC_PER_SEC);
  channel_test_assert_statistic (sender, send_waits, 0);
  channel_test_assert_statistic (sender, receive_waits, 0);
  channel_test_close (sender);
  channel_test_close (receiver);
}

/* Every call that can wait, on an endpoint where it does. */
typedef enum
{
  CALL_RECEIVE,
  CALL_RECEIVE_BYTES,
  CALL_RECEIVE_VALUE,
  CALL_WAIT_IN,
  CALL_SEND,
  CALL_SEND_LARGE,
  CALL_SEND_BUFFER,
  CALL_SEND_VALUE,
  CALL_WAIT_OUT,
  CALL_FLUSH,
  CALL_LOAN,
  N_CALLS,
} Call;

static const char *const call_names[] = {
  "receive",     "receive_bytes", "receive_value", "wait for in", "send", "send of a block",
  "send_buffer", "send_value",    "wait for out",  "flush",       "loan",
};

typedef struct
{
  Call call;
  FerryChannel *channel;
  FerryBuffer *loan;
  GCancellable *cancellable;
  gint64 timeout;
  GError *error;
  gboolean succeeded;
  gint started;    /* atomic */
  gint64 returned; /* atomic */
} Waiting;

static gpointer
wait_thread (gpointer data)
{
  Waiting *self = data;
  g_auto (GValue) value = G_VALUE_INIT;
  g_autoptr (FerryBuffer) buffer = NULL;
  g_autoptr (GBytes) bytes = NULL;
  guint8 contents[5000] = { 0 };

  g_atomic_int_set (&self->started, 1);
  switch (self->call)
    {
    case CALL_RECEIVE:
      buffer = ferry_channel_receive (self->channel, self->timeout, self->cancellable, &self->error);
      self->succeeded = buffer != NULL;
      break;
    case CALL_RECEIVE_BYTES:
      bytes = ferry_channel_receive_bytes (self->channel, self->timeout, self->cancellable, &self->error);
      self->succeeded = bytes != NULL;
      break;
    case CALL_RECEIVE_VALUE:
      self->succeeded
          = ferry_channel_receive_value (self->channel, &value, self->timeout, self->cancellable, &self->error);
      break;
    case CALL_WAIT_IN:
      self->succeeded = ferry_channel_wait (self->channel, G_IO_IN, self->timeout, self->cancellable, &self->error);
      break;
    case CALL_SEND:
      self->succeeded
          = ferry_channel_send (self->channel, contents, 10, self->timeout, self->cancellable, &self->error);
      break;
    case CALL_SEND_LARGE:
      self->succeeded = ferry_channel_send (self->channel, contents, sizeof contents, self->timeout, self->cancellable,
                                            &self->error);
      break;
    case CALL_SEND_BUFFER:
      self->succeeded
          = ferry_channel_send_buffer (self->channel, self->loan, self->timeout, self->cancellable, &self->error);
      break;
    case CALL_SEND_VALUE:
      bytes = g_bytes_new (contents, 10);
      g_value_init (&value, G_TYPE_BYTES);
      g_value_set_boxed (&value, bytes);
      self->succeeded
          = ferry_channel_send_value (self->channel, &value, self->timeout, self->cancellable, &self->error);
      break;
    case CALL_WAIT_OUT:
      self->succeeded = ferry_channel_wait (self->channel, G_IO_OUT, self->timeout, self->cancellable, &self->error);
      break;
    case CALL_FLUSH:
      self->succeeded = ferry_channel_flush (self->channel, self->timeout, self->cancellable, &self->error);
      break;
    case CALL_LOAN:
      buffer = ferry_channel_loan (self->channel, 65536, self->timeout, self->cancellable, &self->error);
      self->succeeded = buffer != NULL;
      break;
    case N_CALLS:
    default:
      g_assert_not_reached ();
    }
  __atomic_store_n (&self->returned, g_get_monotonic_time (), __ATOMIC_RELEASE);
  return NULL;
}

typedef struct
{
  FerryChannel *sender;
  FerryChannel *receiver;
  FerryBuffer *view; /* holds the memory that a loan waits for */
  Waiting waiting;
  GThread *thread;
} Scene;

static void
listener_cb (FerryChannel *channel, FerryParticipant *participant, gpointer user_data)
{
}

/* Begins the call in a thread and gives it time to fall asleep. */
static void
scene_begin (Scene *self, ChannelTest *test, Call call, const char *strategy, gboolean with_listener)
{
  g_autofree char *properties = g_strdup_printf ("capacity=1 max-bytes=131072 wait-strategy=%s", strategy);

  memset (self, 0, sizeof *self);
  channel_test_forget (test);
  self->sender = open_sender (test, properties);
  self->receiver = open_receiver (test, properties);
  self->waiting.call = call;
  self->waiting.channel = call <= CALL_WAIT_IN ? self->receiver : self->sender;
  self->waiting.cancellable = g_cancellable_new ();
  self->waiting.timeout = FERRY_WAIT_FOREVER;
  if (with_listener)
    g_signal_connect (self->waiting.channel, "peer-joined", G_CALLBACK (listener_cb), NULL);
  if (call == CALL_SEND_BUFFER)
    self->waiting.loan = take_loan (self->sender, 0, 9000);
  if (call == CALL_LOAN)
    {
      channel_test_send (self->sender, 0, 131072);
      self->view = channel_test_take (self->receiver);
    }
  else if (call > CALL_WAIT_IN)
    {
      channel_test_send (self->sender, 0, 100);
    }
  self->thread = g_thread_new ("waiting", wait_thread, &self->waiting);
  while (!g_atomic_int_get (&self->waiting.started))
    g_usleep (MS);
  g_usleep (20 * MS);
  ck_assert_msg (__atomic_load_n (&self->waiting.returned, __ATOMIC_ACQUIRE) == 0, "%s did not wait", call_names[call]);
}

static void
scene_assert_prompt (Scene *self, gint64 told)
{
  g_thread_join (g_steal_pointer (&self->thread));
  ck_assert_msg (self->waiting.returned - told < PROMPT_US, "%s came back after %g ms", call_names[self->waiting.call],
                 (double) (self->waiting.returned - told) / MS);
}

static void
scene_end (Scene *self)
{
  g_clear_pointer (&self->view, ferry_buffer_unref);
  g_clear_pointer (&self->waiting.loan, ferry_buffer_unref);
  g_clear_error (&self->waiting.error);
  ferry_assert_last_unref (self->waiting.cancellable);
  channel_test_close (self->sender);
  channel_test_close (self->receiver);
}

static void
check_cancel (ChannelTest *test, const char *strategy, gboolean with_listener)
{
  for (guint call = 0; call < N_CALLS; call++)
    {
      Scene scene;
      gint64 told;

      scene_begin (&scene, test, call, strategy, with_listener);
      told = g_get_monotonic_time ();
      g_cancellable_cancel (scene.waiting.cancellable);
      scene_assert_prompt (&scene, told);
      ck_assert_msg (!scene.waiting.succeeded, "%s succeeded", call_names[call]);
      ferry_assert_error (scene.waiting.error, G_IO_ERROR, G_IO_ERROR_CANCELLED);
      channel_test_verify (scene.sender);
      /* Who is cancelled already does nothing at all, also where nothing would have to be waited for. */
      g_clear_error (&scene.waiting.error);
      if (call != CALL_WAIT_IN && call != CALL_WAIT_OUT && call != CALL_FLUSH)
        {
          if (call <= CALL_WAIT_IN)
            channel_test_send (scene.sender, 5, 5);
          else if (scene.view == NULL)
            channel_test_expect (scene.receiver, 0, 100);
          g_clear_pointer (&scene.view, ferry_buffer_unref);
          wait_thread (&scene.waiting);
          ck_assert_msg (!scene.waiting.succeeded, "%s succeeded, cancelled", call_names[call]);
          ferry_assert_error (scene.waiting.error, G_IO_ERROR, G_IO_ERROR_CANCELLED);
          if (call <= CALL_WAIT_IN)
            channel_test_expect (scene.receiver, 5, 5);
        }
      scene_end (&scene);
    }
}

TRANSPORT_TEST (test_cancel) { check_cancel (test, "adaptive", FALSE); }

TRANSPORT_TEST (test_cancel_sleeping) { check_cancel (test, "sleep", FALSE); }

TRANSPORT_TEST (test_cancel_spinning) { check_cancel (test, "spin", FALSE); }

TRANSPORT_TEST (test_cancel_with_listener) { check_cancel (test, "adaptive", TRUE); }

static void
check_close_while_waiting (ChannelTest *test, const char *strategy, gboolean with_listener)
{
  for (guint call = 0; call < N_CALLS; call++)
    {
      Scene scene;
      g_autoptr (GError) error = NULL;
      gint64 told;

      scene_begin (&scene, test, call, strategy, with_listener);
      told = g_get_monotonic_time ();
      ck_assert (ferry_channel_close (scene.waiting.channel, &error));
      ferry_assert_no_error (error);
      scene_assert_prompt (&scene, told);
      if (scene.waiting.succeeded)
        ck_assert (call == CALL_WAIT_IN || call == CALL_WAIT_OUT); /* the closing is something to tell */
      else
        channel_test_assert_error (test, scene.waiting.error, FERRY_ERROR_CLOSED);
      scene_end (&scene);
    }
}

TRANSPORT_TEST (test_close_while_waiting) { check_close_while_waiting (test, "adaptive", FALSE); }

TRANSPORT_TEST (test_close_while_sleeping) { check_close_while_waiting (test, "sleep", FALSE); }

TRANSPORT_TEST (test_close_while_waiting_with_listener) { check_close_while_waiting (test, "adaptive", TRUE); }

/* When the other side does what is waited for, the call comes back at once. */
static void
check_woken (ChannelTest *test, const char *strategy, gboolean with_listener)
{
  for (guint call = 0; call < N_CALLS; call++)
    {
      Scene scene;
      gint64 told;

      scene_begin (&scene, test, call, strategy, with_listener);
      told = g_get_monotonic_time ();
      if (call <= CALL_WAIT_IN)
        channel_test_send (scene.sender, 1, 50);
      else if (call == CALL_LOAN)
        g_clear_pointer (&scene.view, ferry_buffer_unref);
      else
        channel_test_expect (scene.receiver, 0, 100);
      scene_assert_prompt (&scene, told);
      ferry_assert_no_error (scene.waiting.error);
      ck_assert_msg (scene.waiting.succeeded, "%s", call_names[call]);
      if (call != CALL_WAIT_IN && call != CALL_WAIT_OUT && call != CALL_FLUSH && call <= CALL_WAIT_IN)
        channel_test_assert_statistic (scene.sender, receive_waits, 1);
      if (call == CALL_SEND || call == CALL_SEND_BUFFER)
        channel_test_assert_statistic (scene.sender, send_waits, 1);
      channel_test_verify (scene.sender);
      scene_end (&scene);
    }
}

TRANSPORT_TEST (test_woken) { check_woken (test, "adaptive", FALSE); }

TRANSPORT_TEST (test_woken_sleeping) { check_woken (test, "sleep", FALSE); }

TRANSPORT_TEST (test_woken_spinning) { check_woken (test, "spin", FALSE); }

TRANSPORT_TEST (test_woken_with_listener) { check_woken (test, "adaptive", TRUE); }

/* ---- descriptors and sources ---- */

/* As docs say: check, and when that tells nothing, poll; whatever poll says, check again. */
static GIOCondition
poll_until_ready (FerryChannel *channel, GIOCondition condition, gint64 timeout, guint *n_polls)
{
  g_autoptr (GError) error = NULL;
  gint64 deadline = g_get_monotonic_time () + timeout;
  int fd = ferry_channel_get_fd (channel, &error);

  ferry_assert_no_error (error);
  ck_assert_int_ge (fd, 0);
  ck_assert_int_eq (fcntl (fd, F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
  ck_assert_int_eq (ferry_channel_get_fd (channel, NULL), fd);
  for (*n_polls = 0;; ++*n_polls)
    {
      GIOCondition ready = ferry_channel_check (channel, condition);
      struct pollfd poll_fd = { .fd = fd, .events = POLLIN };
      gint64 left = deadline - g_get_monotonic_time ();

      if (ready != 0 || left <= 0)
        return ready;
      poll (&poll_fd, 1, (int) (left / 1000) + 1);
    }
}

typedef struct
{
  FerryChannel *channel;
  guint64 number;
  gint64 delay;
} Later;

static gpointer
send_later_thread (gpointer data)
{
  Later *later = data;

  g_usleep (later->delay);
  channel_test_send (later->channel, later->number, 3000);
  return NULL;
}

static gpointer
take_later_thread (gpointer data)
{
  Later *later = data;

  g_usleep (later->delay);
  channel_test_expect (later->channel, later->number, 3000);
  return NULL;
}

TRANSPORT_TEST (test_poll)
{
  FerryChannel *sender = open_sender (test, "capacity=1");
  FerryChannel *receiver = open_receiver (test, NULL);
  guint n_polls;

  for (guint i = 0; i < 20; i++)
    {
      Later later = { sender, i, 5 * MS };
      GThread *thread = g_thread_new ("sender", send_later_thread, &later);
      gint64 started = g_get_monotonic_time ();

      ck_assert_uint_eq (poll_until_ready (receiver, G_IO_IN, 5 * G_USEC_PER_SEC, &n_polls), G_IO_IN);
      ck_assert_int_lt (g_get_monotonic_time () - started, 5 * MS + PROMPT_US);
      ck_assert_uint_le (n_polls, 3);
      g_thread_join (thread);
      ck_assert_uint_eq (ferry_channel_check (receiver, G_IO_IN), G_IO_IN);

      ck_assert_uint_eq (ferry_channel_check (sender, G_IO_OUT), 0);
      later.channel = receiver;
      started = g_get_monotonic_time ();
      thread = g_thread_new ("receiver", take_later_thread, &later);
      ck_assert_uint_eq (poll_until_ready (sender, G_IO_OUT, 5 * G_USEC_PER_SEC, &n_polls), G_IO_OUT);
      ck_assert_int_lt (g_get_monotonic_time () - started, 5 * MS + PROMPT_US);
      ck_assert_uint_le (n_polls, 3);
      g_thread_join (thread);
      ck_assert_uint_eq (ferry_channel_check (sender, G_IO_OUT), G_IO_OUT);
    }

  /* Nothing: at most two false alarms a second. */
  ck_assert_uint_eq (poll_until_ready (receiver, G_IO_IN, 1100 * MS, &n_polls), 0);
  ck_assert_uint_le (n_polls, 4);

  /* Shut down: everything is ready, and it says so. */
  ck_assert (ferry_channel_shut_down (sender, NULL));
  ck_assert_uint_eq (ferry_channel_check (receiver, G_IO_IN) & G_IO_HUP, G_IO_HUP);
  ck_assert_uint_eq (ferry_channel_check (sender, G_IO_OUT) & G_IO_HUP, G_IO_HUP);
  ck_assert (ferry_channel_close (receiver, NULL));
  ck_assert_uint_eq (ferry_channel_check (receiver, G_IO_IN), G_IO_HUP);
  channel_test_close (sender);
  channel_test_close (receiver);
}

/* A descriptor that is polled by several receivers: each message still goes to exactly one. */
TRANSPORT_TEST (test_poll_two_receivers)
{
  FerryChannel *sender = open_sender (test, NULL);
  FerryChannel *receivers[2] = { open_receiver (test, NULL), open_receiver (test, NULL) };
  struct pollfd poll_fds[2];
  guint n_received = 0;

  for (guint i = 0; i < 2; i++)
    poll_fds[i] = (struct pollfd){ .fd = ferry_channel_get_fd (receivers[i], NULL), .events = POLLIN };
  for (guint n = 0; n < 50; n++)
    {
      guint before = n_received;

      for (guint i = 0; i < 2; i++)
        ck_assert_uint_eq (ferry_channel_check (receivers[i], G_IO_IN), 0);
      channel_test_send (sender, n, 10);
      while (n_received == before)
        {
          ck_assert_int_ge (poll (poll_fds, 2, 2000), 1);
          for (guint i = 0; i < 2; i++)
            if (ferry_channel_check (receivers[i], G_IO_IN) != 0)
              {
                channel_test_expect (receivers[i], n, 10);
                n_received++;
              }
        }
    }
  ck_assert_uint_eq (n_received, 50);
  channel_test_verify (sender);
  channel_test_close (sender);
  channel_test_close (receivers[0]);
  channel_test_close (receivers[1]);
}

typedef struct
{
  guint n_calls;
  guint64 next;
  guint64 stop_at;
  GIOCondition condition;
  gboolean done;
} SourceState;

static gboolean
receive_source_cb (FerryChannel *channel, GIOCondition condition, gpointer user_data)
{
  SourceState *state = user_data;

  state->n_calls++;
  state->condition = condition;
  if (condition & G_IO_HUP)
    {
      state->done = TRUE;
      return G_SOURCE_REMOVE;
    }
  channel_test_expect (channel, state->next, 40);
  state->next++;
  state->done = state->next == state->stop_at;
  return state->done ? G_SOURCE_REMOVE : G_SOURCE_CONTINUE;
}

static gboolean
send_source_cb (FerryChannel *channel, GIOCondition condition, gpointer user_data)
{
  SourceState *state = user_data;
  g_autoptr (GError) error = NULL;

  state->n_calls++;
  ck_assert_uint_eq (condition, G_IO_OUT);
  ck_assert (channel_test_try_send (channel, state->next, 40, FERRY_NO_WAIT, &error));
  state->next++;
  state->done = state->next == state->stop_at;
  return state->done ? G_SOURCE_REMOVE : G_SOURCE_CONTINUE;
}

static GSource *
attach_source (FerryChannel *channel, GIOCondition condition, FerryChannelSourceFunc func, gpointer data)
{
  g_autoptr (GError) error = NULL;
  GSource *source = ferry_channel_create_source (channel, condition, NULL, &error);

  ferry_assert_no_error (error);
  g_source_set_callback (source, (GSourceFunc) (void (*) (void)) func, data, NULL);
  g_source_attach (source, NULL);
  return source;
}

static void
detach_source (GSource *source)
{
  g_source_destroy (source);
  g_source_unref (source);
}

/* A sender and a receiver in one main loop, with a channel that is full most of the time. */
TRANSPORT_TEST (test_sources)
{
  FerryChannel *sender = open_sender (test, "capacity=2");
  FerryChannel *receiver = open_receiver (test, NULL);
  SourceState out = { .stop_at = 500 };
  SourceState in = { .stop_at = 500 };
  GSource *out_source = attach_source (sender, G_IO_OUT, send_source_cb, &out);
  GSource *in_source = attach_source (receiver, G_IO_IN, receive_source_cb, &in);

  channel_test_iterate_until (&in.done, 10);
  ck_assert (out.done);
  ck_assert_uint_eq (out.n_calls, 500);
  ck_assert_uint_eq (in.n_calls, 500);
  detach_source (out_source);
  detach_source (in_source);
  channel_test_verify (sender);
  channel_test_close (sender);
  channel_test_close (receiver);
}

static gboolean
remove_cb (gpointer user_data)
{
  return G_SOURCE_REMOVE;
}

/* Idle sources neither call nor compute. */
TRANSPORT_TEST (test_sources_idle)
{
  FerryChannel *sender = open_sender (test, "capacity=1");
  FerryChannel *receiver = open_receiver (test, NULL);
  FerryChannel *other = open_receiver (test, NULL);
  SourceState out = { .stop_at = 500 };
  SourceState in = { .stop_at = 500 };
  GSource *sources[3];
  gint64 cpu;
  guint n_iterations = 0;
  gint64 until;

  channel_test_send (sender, 0, 40);
  channel_test_expect (receiver, 0, 40);
  sources[0] = attach_source (receiver, G_IO_IN, receive_source_cb, &in);
  sources[1] = attach_source (other, G_IO_IN, receive_source_cb, &in);
  cpu = channel_test_cpu_time ();
  until = g_get_monotonic_time () + 1500 * MS;
  g_timeout_add (1500, remove_cb, NULL);
  while (g_get_monotonic_time () < until)
    {
      g_main_context_iteration (NULL, TRUE);
      n_iterations++;
    }
  cpu = channel_test_cpu_time () - cpu;
  ck_assert_uint_eq (in.n_calls, 0);
  /* two looks a second each, and the timer */
  ck_assert_msg (n_iterations <= 12, "%u wake-ups in 1.5 s", n_iterations);
  ck_assert_msg (cpu < 30 * MS * (ferry_test_is_valgrind () ? 100 : 1), "%g ms of CPU time while idle",
                 (double) cpu / MS);
  detach_source (sources[0]);
  detach_source (sources[1]);

  /* A full channel is no busy loop either. */
  channel_test_send (sender, 0, 40);
  sources[2] = attach_source (sender, G_IO_OUT, send_source_cb, &out);
  cpu = channel_test_cpu_time ();
  channel_test_iterate_for (1);
  cpu = channel_test_cpu_time () - cpu;
  ck_assert_uint_eq (out.n_calls, 0);
  ck_assert_msg (cpu < 30 * MS * (ferry_test_is_valgrind () ? 100 : 1), "%g ms of CPU time while full",
                 (double) cpu / MS);
  detach_source (sources[2]);
  channel_test_close (sender);
  channel_test_close (receiver);
  channel_test_close (other);
}

TRANSPORT_TEST (test_source_hang_up)
{
  FerryChannel *sender = open_sender (test, NULL);
  FerryChannel *receiver = open_receiver (test, NULL);
  SourceState in = { .stop_at = 500 };
  GSource *source = attach_source (receiver, G_IO_IN, receive_source_cb, &in);
  g_autoptr (GError) error = NULL;

  channel_test_iterate_for (0.05);
  ck_assert_uint_eq (in.n_calls, 0);
  ck_assert (ferry_channel_shut_down (sender, &error));
  channel_test_iterate_until (&in.done, 2);
  ck_assert_uint_eq (in.condition & G_IO_HUP, G_IO_HUP);
  detach_source (source);
  channel_test_close (sender);
  channel_test_close (receiver);
}

/* A waiting call costs no CPU time either. */
TRANSPORT_TEST (test_waiting_idle)
{
  FerryChannel *sender = open_sender (test, NULL);
  FerryChannel *receiver = open_receiver (test, NULL);
  gint64 cpu = channel_test_cpu_time ();

  channel_test_expect_error (test, receiver, 1000 * MS, FERRY_ERROR_TIMED_OUT);
  cpu = channel_test_cpu_time () - cpu;
  ck_assert_msg (cpu < 20 * MS * (ferry_test_is_valgrind () ? 100 : 1), "%g ms of CPU time while waiting for 1 s",
                 (double) cpu / MS);
  channel_test_close (sender);
  channel_test_close (receiver);
}

/* ---- asynchronous operations ---- */

typedef struct
{
  gboolean done;
  FerryBuffer *buffer;
  gboolean succeeded;
  GError *error;
  guint n_calls;
} Async;

static void
async_clear (Async *self)
{
  g_clear_pointer (&self->buffer, ferry_buffer_unref);
  g_clear_error (&self->error);
  memset (self, 0, sizeof *self);
}

static void
received_cb (GObject *object, GAsyncResult *result, gpointer user_data)
{
  Async *self = user_data;

  self->buffer = ferry_channel_receive_finish (FERRY_CHANNEL (object), result, &self->error);
  ck_assert ((self->buffer != NULL) == (self->error == NULL));
  self->done = TRUE;
  self->n_calls++;
}

static void
sent_cb (GObject *object, GAsyncResult *result, gpointer user_data)
{
  Async *self = user_data;

  self->succeeded = ferry_channel_send_bytes_finish (FERRY_CHANNEL (object), result, &self->error);
  self->done = TRUE;
  self->n_calls++;
}

static void
flushed_cb (GObject *object, GAsyncResult *result, gpointer user_data)
{
  Async *self = user_data;

  self->succeeded = ferry_channel_flush_finish (FERRY_CHANNEL (object), result, &self->error);
  self->done = TRUE;
  self->n_calls++;
}

static void
opened_cb (GObject *object, GAsyncResult *result, gpointer user_data)
{
  Async *self = user_data;

  self->succeeded = ferry_channel_open_finish (FERRY_CHANNEL (object), result, &self->error);
  self->done = TRUE;
  self->n_calls++;
}

TRANSPORT_TEST (test_receive_async)
{
  FerryChannel *sender = open_sender (test, NULL);
  FerryChannel *receiver = open_receiver (test, NULL);
  g_autoptr (GCancellable) cancellable = g_cancellable_new ();
  Async async = { 0 };
  gint64 started;

  /* There is one already: it still comes from the main loop. */
  channel_test_send (sender, 1, 3000);
  ferry_channel_receive_async (receiver, G_PRIORITY_DEFAULT, NULL, received_cb, &async);
  ck_assert (!async.done);
  channel_test_iterate_until (&async.done, 5);
  ferry_assert_no_error (async.error);
  ck_assert (channel_test_is_filled (ferry_buffer_get_data (async.buffer, NULL), 3000, 1));
  async_clear (&async);

  /* It comes later. */
  for (guint i = 0; i < 10; i++)
    {
      ferry_channel_receive_async (receiver, G_PRIORITY_DEFAULT, cancellable, received_cb, &async);
      channel_test_iterate_for (0.01);
      ck_assert (!async.done);
      channel_test_send (sender, i, 3000);
      started = g_get_monotonic_time ();
      channel_test_iterate_until (&async.done, 5);
      ck_assert_int_lt (g_get_monotonic_time () - started, PROMPT_US);
      ferry_assert_no_error (async.error);
      ck_assert (channel_test_is_filled (ferry_buffer_get_data (async.buffer, NULL), 3000, i));
      async_clear (&async);
    }

  /* Cancelled: no message is lost by that. */
  ferry_channel_receive_async (receiver, G_PRIORITY_DEFAULT, cancellable, received_cb, &async);
  channel_test_iterate_for (0.02);
  started = g_get_monotonic_time ();
  g_cancellable_cancel (cancellable);
  channel_test_iterate_until (&async.done, 5);
  ck_assert_int_lt (g_get_monotonic_time () - started, PROMPT_US);
  ferry_assert_error (async.error, G_IO_ERROR, G_IO_ERROR_CANCELLED);
  async_clear (&async);
  channel_test_send (sender, 5, 10);
  ferry_channel_receive_async (receiver, G_PRIORITY_DEFAULT, cancellable, received_cb, &async);
  channel_test_iterate_until (&async.done, 5);
  ferry_assert_error (async.error, G_IO_ERROR, G_IO_ERROR_CANCELLED);
  async_clear (&async);
  channel_test_expect (receiver, 5, 10);

  /* The end of the stream. */
  ferry_channel_receive_async (receiver, G_PRIORITY_DEFAULT, NULL, received_cb, &async);
  channel_test_iterate_for (0.02);
  ck_assert (!async.done);
  ck_assert (ferry_channel_end_of_stream (sender, NULL));
  channel_test_iterate_until (&async.done, 5);
  channel_test_assert_error (test, async.error, FERRY_ERROR_END_OF_STREAM);
  ck_assert_uint_eq (async.n_calls, 1);
  async_clear (&async);
  channel_test_verify (sender);
  channel_test_close (sender);
  channel_test_close (receiver);
}

/* Closing ends what waits. */
TRANSPORT_TEST (test_async_and_close)
{
  FerryChannel *sender = open_sender (test, "capacity=1");
  FerryChannel *receiver = open_receiver (test, NULL);
  g_autoptr (GBytes) bytes = g_bytes_new_static ("x", 1);
  Async async = { 0 };
  gint64 started;

  ferry_channel_receive_async (receiver, G_PRIORITY_DEFAULT, NULL, received_cb, &async);
  channel_test_iterate_for (0.02);
  started = g_get_monotonic_time ();
  ck_assert (ferry_channel_close (receiver, NULL));
  channel_test_iterate_until (&async.done, 5);
  ck_assert_int_lt (g_get_monotonic_time () - started, LATE_US + 500 * MS);
  channel_test_assert_error (test, async.error, FERRY_ERROR_CLOSED);
  async_clear (&async);

  channel_test_send (sender, 0, 10);
  ferry_channel_send_bytes_async (sender, bytes, G_PRIORITY_DEFAULT, NULL, sent_cb, &async);
  channel_test_iterate_for (0.02);
  ck_assert (!async.done);
  ck_assert (ferry_channel_close (sender, NULL));
  channel_test_iterate_until (&async.done, 5);
  channel_test_assert_error (test, async.error, FERRY_ERROR_CLOSED);
  async_clear (&async);
  channel_test_iterate_for (0.01);
  channel_test_close (sender);
  channel_test_close (receiver);
}

TRANSPORT_TEST (test_send_async)
{
  FerryChannel *sender = open_sender (test, "capacity=1 max-bytes=65536");
  FerryChannel *receiver = open_receiver (test, NULL);
  g_autoptr (GCancellable) cancellable = g_cancellable_new ();
  static const gsize async_sizes[] = { 20, 65536 };
  Async async = { 0 };

  for (guint i = 0; i < G_N_ELEMENTS (async_sizes); i++)
    {
      gsize size = async_sizes[i];
      guint8 *data = g_malloc (size);
      g_autoptr (GBytes) bytes = NULL;
      FerryBuffer *view;

      channel_test_fill (data, size, 8);
      bytes = g_bytes_new_take (data, size);
      ferry_channel_send_bytes_async (sender, bytes, G_PRIORITY_DEFAULT, NULL, sent_cb, &async);
      channel_test_iterate_until (&async.done, 5);
      ferry_assert_no_error (async.error);
      ck_assert (async.succeeded);
      async_clear (&async);

      /* Full: it waits for the receiver, and for the memory that the receiver holds. */
      ferry_channel_send_bytes_async (sender, bytes, G_PRIORITY_DEFAULT, cancellable, sent_cb, &async);
      channel_test_iterate_for (0.02);
      ck_assert (!async.done);
      view = channel_test_take (receiver);
      if (size == 65536)
        {
          channel_test_iterate_for (0.02);
          ck_assert (!async.done);
        }
      ferry_buffer_unref (view);
      channel_test_iterate_until (&async.done, 5);
      ferry_assert_no_error (async.error);
      ck_assert (async.succeeded);
      async_clear (&async);
      channel_test_expect (receiver, 8, size);
      channel_test_expect_nothing (test, receiver);

      /* Too big, at once. */
      {
        g_autoptr (GBytes) huge = g_bytes_new_take (g_malloc0 (65537), 65537);

        ferry_channel_send_bytes_async (sender, huge, G_PRIORITY_DEFAULT, NULL, sent_cb, &async);
        channel_test_iterate_until (&async.done, 5);
        channel_test_assert_error (test, async.error, FERRY_ERROR_TOO_BIG);
        async_clear (&async);
      }
    }

  channel_test_send (sender, 0, 10);
  {
    g_autoptr (GBytes) bytes = g_bytes_new_static ("x", 1);

    ferry_channel_send_bytes_async (sender, bytes, G_PRIORITY_DEFAULT, cancellable, sent_cb, &async);
    channel_test_iterate_for (0.02);
    g_cancellable_cancel (cancellable);
    channel_test_iterate_until (&async.done, 5);
    ferry_assert_error (async.error, G_IO_ERROR, G_IO_ERROR_CANCELLED);
    async_clear (&async);
  }
  channel_test_expect (receiver, 0, 10);
  channel_test_expect_nothing (test, receiver);
  channel_test_verify (sender);
  channel_test_close (sender);
  channel_test_close (receiver);
}

TRANSPORT_TEST (test_flush_async)
{
  FerryChannel *sender = open_sender (test, NULL);
  FerryChannel *receiver = open_receiver (test, NULL);
  g_autoptr (GCancellable) cancellable = g_cancellable_new ();
  Async async = { 0 };

  ferry_channel_flush_async (sender, G_PRIORITY_DEFAULT, NULL, flushed_cb, &async);
  channel_test_iterate_until (&async.done, 5);
  ferry_assert_no_error (async.error);
  async_clear (&async);

  channel_test_send (sender, 0, 10);
  channel_test_send (sender, 1, 10000);
  ferry_channel_flush_async (sender, G_PRIORITY_DEFAULT, NULL, flushed_cb, &async);
  channel_test_expect (receiver, 0, 10);
  channel_test_iterate_for (0.02);
  ck_assert (!async.done);
  channel_test_expect (receiver, 1, 10000);
  channel_test_iterate_until (&async.done, 5);
  ferry_assert_no_error (async.error);
  ck_assert (async.succeeded);
  async_clear (&async);

  /* what is sent meanwhile does not count */
  channel_test_send (sender, 2, 10);
  ferry_channel_flush_async (sender, G_PRIORITY_DEFAULT, NULL, flushed_cb, &async);
  channel_test_iterate_for (0.02);
  ck_assert (!async.done);
  channel_test_send (sender, 3, 10);
  channel_test_expect (receiver, 2, 10);
  channel_test_iterate_until (&async.done, 5);
  ferry_assert_no_error (async.error);
  async_clear (&async);
  channel_test_expect (receiver, 3, 10);

  channel_test_send (sender, 4, 10);
  ferry_channel_flush_async (sender, G_PRIORITY_DEFAULT, cancellable, flushed_cb, &async);
  channel_test_iterate_for (0.02);
  g_cancellable_cancel (cancellable);
  channel_test_iterate_until (&async.done, 5);
  ferry_assert_error (async.error, G_IO_ERROR, G_IO_ERROR_CANCELLED);
  async_clear (&async);
  channel_test_close (sender);
  channel_test_close (receiver);
}

/* ---- the end of the stream, flush, shutting down ---- */

static void
check_end_of_stream (ChannelTest *test, const char *properties)
{
  FerryChannel *sender = open_sender (test, properties);
  FerryChannel *receiver = open_receiver (test, NULL);
  FerryChannel *second;
  g_autoptr (GError) error = NULL;

  channel_test_send (sender, 0, 10);
  channel_test_send (sender, 1, 5000);
  ck_assert (ferry_channel_end_of_stream (sender, &error));
  ferry_assert_no_error (error);
  /* First what was sent, then the end, as often as one asks. */
  channel_test_expect (receiver, 0, 10);
  channel_test_expect (receiver, 1, 5000);
  for (guint i = 0; i < 3; i++)
    channel_test_expect_error (test, receiver, i == 0 ? FERRY_NO_WAIT : FERRY_WAIT_FOREVER, FERRY_ERROR_END_OF_STREAM);
  ck_assert (ferry_channel_wait (receiver, G_IO_IN, FERRY_WAIT_FOREVER, NULL, &error));
  ck_assert_uint_eq (ferry_channel_check (receiver, G_IO_IN), G_IO_IN);

  /* Who comes now is told as well. */
  second = open_receiver (test, NULL);
  channel_test_expect_error (test, second, FERRY_WAIT_FOREVER, FERRY_ERROR_END_OF_STREAM);
  channel_test_close (second);

  /* A sender that joins opens the stream again. */
  second = open_sender (test, NULL);
  channel_test_expect_nothing (test, receiver);
  channel_test_send (second, 2, 10);
  channel_test_expect (receiver, 2, 10);
  channel_test_expect_nothing (test, receiver);
  ck_assert (ferry_channel_end_of_stream (second, &error));
  channel_test_expect_error (test, receiver, FERRY_WAIT_FOREVER, FERRY_ERROR_END_OF_STREAM);
  channel_test_close (second);
  channel_test_expect_error (test, receiver, FERRY_WAIT_FOREVER, FERRY_ERROR_END_OF_STREAM);
  channel_test_verify (receiver);
  channel_test_close (sender);
  channel_test_expect_error (test, receiver, FERRY_WAIT_FOREVER, FERRY_ERROR_END_OF_STREAM);
  channel_test_close (receiver);
}

TRANSPORT_TEST (test_end_of_stream_work_queue) { check_end_of_stream (test, NULL); }

TRANSPORT_TEST (test_end_of_stream_broadcast) { check_end_of_stream (test, "mode=broadcast"); }

TRANSPORT_TEST (test_end_of_stream_two_senders)
{
  FerryChannel *senders[2] = { open_sender (test, NULL), open_sender (test, NULL) };
  FerryChannel *receiver = open_receiver (test, NULL);

  ck_assert (ferry_channel_end_of_stream (senders[0], NULL));
  channel_test_expect_nothing (test, receiver);
  channel_test_send (senders[1], 1, 10);
  channel_test_expect (receiver, 1, 10);
  channel_test_expect_nothing (test, receiver);
  ck_assert (ferry_channel_end_of_stream (senders[1], NULL));
  channel_test_expect_error (test, receiver, FERRY_WAIT_FOREVER, FERRY_ERROR_END_OF_STREAM);
  channel_test_close (senders[0]);
  channel_test_close (senders[1]);
  channel_test_close (receiver);
}

/* A sender that merely leaves ends nothing, but does not hold up the end that the others declared. */
TRANSPORT_TEST (test_leaving_is_no_end_of_stream)
{
  FerryChannel *senders[2] = { open_sender (test, NULL), open_sender (test, NULL) };
  FerryChannel *receiver = open_receiver (test, NULL);

  channel_test_close (senders[0]);
  channel_test_expect_nothing (test, receiver);
  channel_test_close (senders[1]);
  channel_test_expect_nothing (test, receiver);
  channel_test_expect_error (test, receiver, 30 * MS, FERRY_ERROR_TIMED_OUT);

  senders[0] = open_sender (test, NULL);
  senders[1] = open_sender (test, NULL);
  ck_assert (ferry_channel_end_of_stream (senders[0], NULL));
  channel_test_expect_nothing (test, receiver);
  channel_test_close (senders[1]);
  channel_test_expect_error (test, receiver, FERRY_WAIT_FOREVER, FERRY_ERROR_END_OF_STREAM);
  channel_test_close (senders[0]);
  channel_test_close (receiver);
}

/* Who waits is told. */
TRANSPORT_TEST (test_end_of_stream_wakes)
{
  Scene scene;
  gint64 told;

  scene_begin (&scene, test, CALL_RECEIVE, "adaptive", FALSE);
  told = g_get_monotonic_time ();
  ck_assert (ferry_channel_end_of_stream (scene.sender, NULL));
  scene_assert_prompt (&scene, told);
  channel_test_assert_error (test, scene.waiting.error, FERRY_ERROR_END_OF_STREAM);
  scene_end (&scene);
}

TRANSPORT_TEST (test_flush)
{
  for (guint broadcast = 0; broadcast < 2; broadcast++)
    {
      FerryChannel *sender;
      FerryChannel *receivers[2];
      g_autoptr (GError) error = NULL;

      channel_test_forget (test);
      sender = open_sender (test, broadcast ? "mode=broadcast history=3" : NULL);
      receivers[0] = open_receiver (test, NULL);
      receivers[1] = open_receiver (test, NULL);
      ck_assert (ferry_channel_flush (sender, FERRY_WAIT_FOREVER, NULL, &error));
      channel_test_send (sender, 0, 10);
      channel_test_send (sender, 1, 5000);
      ck_assert (!ferry_channel_flush (sender, FERRY_NO_WAIT, NULL, &error));
      channel_test_assert_error (test, error, FERRY_ERROR_TIMED_OUT);
      g_clear_error (&error);
      for (guint i = 0; i < 2; i++)
        channel_test_expect (receivers[0], i, i == 0 ? 10 : 5000);
      if (broadcast)
        {
          /* not everyone has it */
          ck_assert (!ferry_channel_flush (sender, FERRY_NO_WAIT, NULL, &error));
          channel_test_assert_error (test, error, FERRY_ERROR_TIMED_OUT);
          g_clear_error (&error);
          for (guint i = 0; i < 2; i++)
            channel_test_expect (receivers[1], i, i == 0 ? 10 : 5000);
        }
      ck_assert (ferry_channel_flush (sender, FERRY_WAIT_FOREVER, NULL, &error));
      ferry_assert_no_error (error);
      /* A receiver that leaves need not be waited for. */
      if (broadcast)
        {
          channel_test_send (sender, 2, 10);
          channel_test_expect (receivers[1], 2, 10);
          channel_test_close (receivers[0]);
          ck_assert (ferry_channel_flush (sender, FERRY_WAIT_FOREVER, NULL, &error));
        }
      else
        {
          channel_test_close (receivers[0]);
        }
      channel_test_close (receivers[1]);
      channel_test_close (sender);
    }
}

TRANSPORT_TEST (test_flush_mark)
{
  for (guint broadcast = 0; broadcast < 2; broadcast++)
    {
      FerryChannel *sender;
      FerryChannel *other;
      FerryChannel *receiver;
      g_autoptr (GError) error = NULL;
      guint64 mark;

      channel_test_forget (test);
      sender = open_sender (test, broadcast ? "mode=broadcast" : NULL);
      other = open_sender (test, NULL);
      receiver = open_receiver (test, NULL);
      ck_assert (ferry_channel_mark (sender, &mark, NULL));
      channel_test_send (other, 0, 10);
      ck_assert (ferry_channel_flush_mark (sender, mark, FERRY_NO_WAIT, NULL, NULL));
      channel_test_send (sender, 1, 10);
      ck_assert (ferry_channel_mark (sender, &mark, NULL));
      channel_test_send (other, 2, 10);
      for (guint i = 0; i < 2; i++)
        {
          ck_assert (!ferry_channel_flush_mark (sender, mark, FERRY_NO_WAIT, NULL, &error));
          channel_test_assert_error (test, error, FERRY_ERROR_TIMED_OUT);
          g_clear_error (&error);
          channel_test_expect (receiver, i, 10);
        }
      ck_assert (ferry_channel_flush_mark (sender, mark, FERRY_WAIT_FOREVER, NULL, NULL));
      ck_assert (!ferry_channel_flush (sender, FERRY_NO_WAIT, NULL, NULL));
      channel_test_expect (receiver, 2, 10);
      ck_assert (ferry_channel_flush (sender, FERRY_NO_WAIT, NULL, NULL));

      ck_assert (!ferry_channel_mark (receiver, &mark, NULL));
      channel_test_close (receiver);
      channel_test_close (other);
      ck_assert (ferry_channel_close (sender, NULL));
      ck_assert (!ferry_channel_mark (sender, &mark, &error));
      ferry_assert_error (error, FERRY_ERROR, FERRY_ERROR_CLOSED);
      channel_test_close (sender);
    }
}

/* On a channel that is never empty only what was there before is waited for, however long that takes. */
TRANSPORT_TEST (test_flush_busy)
{
  /* One after the other they take longer than any slice that a call waits in. */
  const guint n_before = 10;
  const gulong pause = 80 * MS;
  FerryChannel *sender = open_sender (test, "capacity=16");
  FerryChannel *receiver = open_receiver (test, NULL);
  Waiting waiting = { .call = CALL_FLUSH, .channel = sender, .timeout = FERRY_WAIT_FOREVER };
  GThread *thread;
  guint i;

  for (i = 0; i < n_before; i++)
    channel_test_send (sender, i, 10);
  thread = g_thread_new ("waiting", wait_thread, &waiting);
  while (!g_atomic_int_get (&waiting.started))
    g_usleep (MS);
  g_usleep (20 * MS);
  for (i = 0; i < 3 * n_before && __atomic_load_n (&waiting.returned, __ATOMIC_ACQUIRE) == 0; i++)
    {
      channel_test_send (sender, n_before + i, 10);
      channel_test_expect (receiver, i, 10);
      g_usleep (pause);
    }
  ck_assert_uint_ge (i, n_before);
  ck_assert_uint_lt (i, 2 * n_before);
  g_thread_join (thread);
  ferry_assert_no_error (waiting.error);
  ck_assert (waiting.succeeded);
  channel_test_close (sender);
  channel_test_close (receiver);
}

static void
check_shut_down (ChannelTest *test, const char *properties, FerryRole who)
{
  FerryChannel *sender = open_sender (test, properties);
  FerryChannel *receiver = open_receiver (test, NULL);
  FerryChannel *observer = channel_test_open (test, FERRY_ROLE_OBSERVER, NULL);
  g_autoptr (FerryBuffer) loan = take_loan (sender, 9, 5000);
  g_autoptr (GError) error = NULL;

  channel_test_send (sender, 0, 10);
  channel_test_send (sender, 1, 5000);
  ck_assert (ferry_channel_shut_down (who == FERRY_ROLE_SENDER     ? sender
                                      : who == FERRY_ROLE_RECEIVER ? receiver
                                                                   : observer,
                                      &error));
  ferry_assert_no_error (error);
  /* Senders at once. */
  for (guint i = 0; i < 2; i++)
    {
      ck_assert (!channel_test_try_send (sender, 2, i == 0 ? 10 : 5000, FERRY_WAIT_FOREVER, &error));
      channel_test_assert_error (test, error, FERRY_ERROR_CLOSED);
      g_clear_error (&error);
    }
  ck_assert_ptr_null (ferry_channel_loan (sender, 5000, FERRY_WAIT_FOREVER, NULL, &error));
  channel_test_assert_error (test, error, FERRY_ERROR_CLOSED);
  g_clear_error (&error);
  ck_assert (!ferry_channel_send_buffer (sender, loan, FERRY_WAIT_FOREVER, NULL, &error));
  channel_test_assert_error (test, error, FERRY_ERROR_CLOSED);
  g_clear_error (&error);
  /* Receivers when they have taken what is there. */
  channel_test_expect (receiver, 0, 10);
  channel_test_expect (receiver, 1, 5000);
  for (guint i = 0; i < 2; i++)
    channel_test_expect_error (test, receiver, i == 0 ? FERRY_NO_WAIT : FERRY_WAIT_FOREVER, FERRY_ERROR_CLOSED);
  ferry_buffer_unref (g_steal_pointer (&loan));
  channel_test_verify (receiver);
  channel_test_close (sender);
  channel_test_close (receiver);
  channel_test_close (observer);
}

TRANSPORT_TEST (test_shut_down)
{
  for (FerryRole role = FERRY_ROLE_SENDER; role <= FERRY_ROLE_OBSERVER; role++)
    {
      channel_test_forget (test);
      check_shut_down (test, NULL, role);
      channel_test_forget (test);
      check_shut_down (test, "mode=broadcast", role);
    }
}

TRANSPORT_TEST (test_shut_down_wakes)
{
  for (guint call = 0; call < N_CALLS; call++)
    {
      Scene scene;
      gint64 told;

      scene_begin (&scene, test, call, call % 2 ? "adaptive" : "sleep", FALSE);
      told = g_get_monotonic_time ();
      ck_assert (ferry_channel_shut_down (scene.sender, NULL));
      scene_assert_prompt (&scene, told);
      if (scene.waiting.succeeded)
        ck_assert (call == CALL_WAIT_IN || call == CALL_WAIT_OUT);
      else
        channel_test_assert_error (test, scene.waiting.error, FERRY_ERROR_CLOSED);
      scene_end (&scene);
    }
}

/* ---- who is there ---- */

typedef struct
{
  guint n_joined;
  guint n_left;
  guint n_died;
  guint n_closed;
  guint last_id;
  gint64 last_pid;
  FerryRole last_role;
} Events;

static void
joined_cb (FerryChannel *channel, FerryParticipant *participant, gpointer user_data)
{
  Events *events = user_data;

  events->n_joined++;
  events->last_id = participant->id;
  events->last_pid = participant->pid;
  events->last_role = participant->role;
  ck_assert (participant->alive);
}

static void
gone_cb (FerryChannel *channel, FerryParticipant *participant, gboolean died, gpointer user_data)
{
  Events *events = user_data;

  if (died)
    events->n_died++;
  else
    events->n_left++;
  events->last_id = participant->id;
  events->last_pid = participant->pid;
  events->last_role = participant->role;
}

static void
closed_cb (FerryChannel *channel, gpointer user_data)
{
  ((Events *) user_data)->n_closed++;
}

static void
listen_to (FerryChannel *channel, Events *events)
{
  memset (events, 0, sizeof *events);
  g_signal_connect (channel, "peer-joined", G_CALLBACK (joined_cb), events);
  g_signal_connect (channel, "peer-gone", G_CALLBACK (gone_cb), events);
  g_signal_connect (channel, "closed", G_CALLBACK (closed_cb), events);
}

/* Each exactly once, by whichever way they are dispatched. */
static void
dispatch (FerryChannel *channel, guint way)
{
  g_autoptr (GError) error = NULL;

  switch (way)
    {
    case 0:
      ferry_channel_dispatch_events (channel);
      break;
    case 1:
      ck_assert_ptr_null (ferry_channel_receive (channel, 300 * MS, NULL, &error));
      break;
    default:
      {
        GSource *source = ferry_channel_create_source (channel, G_IO_IN, NULL, &error);

        ferry_assert_no_error (error);
        g_source_attach (source, NULL);
        channel_test_iterate_for (0.7);
        detach_source (source);
      }
    }
}

static void
check_signals (ChannelTest *test, guint way)
{
  FerryChannel *sender = open_sender (test, NULL);
  FerryChannel *receiver = open_receiver (test, NULL);
  FerryChannel *other;
  Events events;
  guint id;

  listen_to (receiver, &events);
  dispatch (receiver, way);
  /* Those who were there before are told first. */
  ck_assert_uint_eq (events.n_joined, 1);
  ck_assert_uint_eq (events.last_role, FERRY_ROLE_SENDER);
  ck_assert_int_eq (events.last_pid, getpid ());

  other = open_receiver (test, NULL);
  dispatch (receiver, way);
  ck_assert_uint_eq (events.n_joined, 2);
  ck_assert_uint_eq (events.last_role, FERRY_ROLE_RECEIVER);
  id = events.last_id;
  dispatch (receiver, way);
  ck_assert_uint_eq (events.n_joined, 2);
  ck_assert_uint_eq (events.n_left + events.n_died + events.n_closed, 0);

  channel_test_close (other);
  dispatch (receiver, way);
  ck_assert_uint_eq (events.n_left, 1);
  ck_assert_uint_eq (events.last_id, id);
  ck_assert_uint_eq (events.last_role, FERRY_ROLE_RECEIVER);
  channel_test_close (sender);
  dispatch (receiver, way);
  ck_assert_uint_eq (events.n_left, 2);
  ck_assert_uint_eq (events.last_role, FERRY_ROLE_SENDER);

  ck_assert (ferry_channel_shut_down (receiver, NULL));
  dispatch (receiver, way);
  dispatch (receiver, way);
  ck_assert_uint_eq (events.n_joined, 2);
  ck_assert_uint_eq (events.n_left, 2);
  ck_assert_uint_eq (events.n_died, 0);
  ck_assert_uint_eq (events.n_closed, 1);
  channel_test_close (receiver);
}

TRANSPORT_TEST (test_signals) { check_signals (test, 0); }

TRANSPORT_TEST (test_signals_in_receive) { check_signals (test, 1); }

/* Endpoints that always find something to do hear of their peers all the same. */
TRANSPORT_TEST (test_signals_in_traffic)
{
  FerryChannel *sender = open_sender (test, NULL);
  FerryChannel *receiver = open_receiver (test, NULL);
  Events at_sender;
  Events at_receiver;

  listen_to (sender, &at_sender);
  listen_to (receiver, &at_receiver);
  for (guint i = 0; i < 16; i++)
    {
      channel_test_send (sender, i, 64);
      channel_test_expect (receiver, i, 64);
    }
  ck_assert_uint_eq (at_sender.n_joined, 1);
  ck_assert_uint_eq (at_receiver.n_joined, 1);
  channel_test_close (sender);
  channel_test_close (receiver);
}

TRANSPORT_TEST (test_signals_in_main_loop) { check_signals (test, 2); }

TRANSPORT_TEST (test_participants)
{
  FerryChannel *sender = open_sender (test, NULL);
  FerryChannel *receiver = open_receiver (test, NULL);
  g_autoptr (GPtrArray) participants = NULL;
  g_autoptr (GError) error = NULL;
  FerryBuffer *views[2];
  FerryBuffer *loan;
  guint n_seen = 0;
  guint sender_id = G_MAXUINT;

  for (guint i = 0; i < 5; i++)
    channel_test_send (sender, i, i < 2 ? 10 : 5000);
  channel_test_expect (receiver, 0, 10);
  channel_test_expect (receiver, 1, 10);
  views[0] = channel_test_take (receiver);
  views[1] = channel_test_take (receiver);
  loan = take_loan (sender, 0, 5000);

  participants = ferry_channel_list_participants (receiver, &error);
  ferry_assert_no_error (error);
  ck_assert_uint_eq (participants->len, 2);
  for (guint i = 0; i < participants->len; i++)
    {
      FerryParticipant *participant = g_ptr_array_index (participants, i);

      ck_assert_int_eq (participant->pid, getpid ());
      ck_assert_uint_eq (participant->uid, getuid ());
      ck_assert (participant->alive);
      ck_assert_uint_eq (participant->dropped, 0);
      if (participant->role == FERRY_ROLE_SENDER)
        {
          ck_assert_uint_eq (participant->messages, 5);
          ck_assert_uint_eq (participant->bytes, 15020);
          ck_assert_uint_eq (participant->held, 1);
          sender_id = participant->id;
          n_seen |= 1;
        }
      else
        {
          ck_assert_uint_eq (participant->role, FERRY_ROLE_RECEIVER);
          ck_assert_uint_eq (participant->messages, 4);
          ck_assert_uint_eq (participant->bytes, 10020);
          ck_assert_uint_eq (participant->held, 2);
          n_seen |= 2;
        }
    }
  ck_assert_uint_eq (n_seen, 3);
  ck_assert_uint_eq (ferry_buffer_get_sender (views[0]), sender_id);
  ferry_buffer_unref (views[0]);
  ferry_buffer_unref (views[1]);
  ferry_buffer_unref (loan);
  channel_test_close (sender);
  channel_test_close (receiver);
}

TRANSPORT_TEST (test_statistics)
{
  FerryChannel *sender = open_sender (test, "capacity=8");
  FerryChannel *receiver = open_receiver (test, NULL);
  g_autoptr (FerryStatistics) found = NULL;

  found = channel_test_statistics (sender);
  ck_assert_uint_eq (found->messages_sent + found->bytes_sent + found->messages_received + found->bytes_received, 0);
  ck_assert_uint_eq (found->messages_dropped + found->send_waits + found->receive_waits + found->repairs, 0);
  ck_assert_uint_eq (found->in_flight + found->in_flight_peak + found->bytes_committed, 0);
  ck_assert_uint_eq (found->capacity, 8);
  ck_assert_uint_eq (found->senders, 1);
  ck_assert_uint_eq (found->receivers, 1);
  ck_assert_uint_gt (found->max_bytes, 0);
  ferry_statistics_free (found);

  for (guint i = 0; i < 6; i++)
    channel_test_send (sender, i, 100 * i);
  for (guint i = 0; i < 4; i++)
    channel_test_expect (receiver, i, 100 * i);
  found = channel_test_statistics (receiver);
  ck_assert_uint_eq (found->messages_sent, 6);
  ck_assert_uint_eq (found->bytes_sent, 1500);
  ck_assert_uint_eq (found->messages_received, 4);
  ck_assert_uint_eq (found->bytes_received, 600);
  ck_assert_uint_eq (found->in_flight, 2);
  ck_assert_uint_eq (found->in_flight_peak, 6);
  ferry_statistics_free (found);

  /* What those did who left still counts, the participants do not. */
  channel_test_close (sender);
  sender = open_sender (test, NULL);
  channel_test_send (sender, 6, 10);
  channel_test_close (sender);
  found = channel_test_statistics (receiver);
  ck_assert_uint_eq (found->messages_sent, 7);
  ck_assert_uint_eq (found->bytes_sent, 1510);
  ck_assert_uint_eq (found->messages_received, 4);
  ck_assert_uint_eq (found->in_flight, 3);
  ck_assert_uint_eq (found->in_flight_peak, 6);
  ck_assert_uint_eq (found->senders, 0);
  ck_assert_uint_eq (found->receivers, 1);
  ck_assert_uint_eq (found->repairs, 0);
  channel_test_close (receiver);
}

/* In broadcast each receiver counts. */
TRANSPORT_TEST (test_statistics_broadcast)
{
  FerryChannel *sender = open_sender (test, "mode=broadcast");
  FerryChannel *receivers[3] = { open_receiver (test, NULL), open_receiver (test, NULL), open_receiver (test, NULL) };
  g_autoptr (FerryStatistics) found = NULL;

  for (guint i = 0; i < 5; i++)
    channel_test_send (sender, i, 1000);
  for (guint r = 0; r < 2; r++)
    for (guint i = 0; i < 5; i++)
      channel_test_expect (receivers[r], i, 1000);
  channel_test_expect (receivers[2], 0, 1000);
  channel_test_close (receivers[1]);
  found = channel_test_statistics (sender);
  ck_assert_uint_eq (found->messages_sent, 5);
  ck_assert_uint_eq (found->bytes_sent, 5000);
  ck_assert_uint_eq (found->messages_received, 11);
  ck_assert_uint_eq (found->bytes_received, 11000);
  ck_assert_uint_eq (found->in_flight, 4);
  ck_assert_uint_eq (found->in_flight_peak, 5);
  ck_assert_uint_eq (found->receivers, 2);
  channel_test_verify (sender);
  channel_test_close (sender);
  channel_test_close (receivers[0]);
  channel_test_close (receivers[2]);
}

TRANSPORT_TEST (test_sequence_sender_timestamp)
{
  FerryChannel *plain = open_sender (test, NULL);
  FerryChannel *stamping = open_sender (test, "timestamps=true");
  FerryChannel *receiver = open_receiver (test, NULL);
  guint ids[2] = { G_MAXUINT, G_MAXUINT };

  for (guint i = 0; i < 8; i++)
    {
      gboolean stamps = i % 2;
      gboolean by_hand = i >= 4;
      g_autoptr (FerryBuffer) view = NULL;
      gint64 before = g_get_monotonic_time ();

      if (by_hand)
        {
          g_autoptr (FerryBuffer) loan = take_loan (stamps ? stamping : plain, i, i < 6 ? 20 : 5000);

          ferry_buffer_set_timestamp (loan, 1000 + i);
          send_loan (stamps ? stamping : plain, loan);
        }
      else
        {
          channel_test_send (stamps ? stamping : plain, i, i < 2 ? 20 : 5000);
        }
      view = channel_test_take (receiver);
      ck_assert_uint_eq (ferry_buffer_get_sequence (view), i);
      if (ids[stamps] == G_MAXUINT)
        ids[stamps] = ferry_buffer_get_sender (view);
      ck_assert_uint_eq (ferry_buffer_get_sender (view), ids[stamps]);
      if (by_hand)
        {
          ck_assert_int_eq (ferry_buffer_get_timestamp (view), 1000 + i);
        }
      else if (stamps)
        {
          ck_assert_int_ge (ferry_buffer_get_timestamp (view), before);
          ck_assert_int_le (ferry_buffer_get_timestamp (view), g_get_monotonic_time ());
        }
      else
        {
          ck_assert_int_eq (ferry_buffer_get_timestamp (view), 0);
        }
    }
  ck_assert_uint_ne (ids[0], ids[1]);
  channel_test_close (plain);
  channel_test_close (stamping);
  channel_test_close (receiver);
}

TRANSPORT_TEST (test_wire_names)
{
  FerryChannel *sender = open_sender (test, NULL);
  FerryChannel *receiver = open_receiver (test, NULL);

  for (guint i = 0; i < 4; i++)
    {
      gsize size = i % 2 ? 5000 : 20;
      g_autoptr (FerryBuffer) loan = take_loan (sender, i, size);
      g_autoptr (FerryBuffer) view = NULL;
      g_autofree char *name = NULL;
      guint version = 0;

      if (i >= 2)
        ck_assert (ferry_buffer_set_wire_name (loan, "abc-defghi12", 77));
      send_loan (sender, loan);
      view = channel_test_take (receiver);
      name = ferry_buffer_dup_wire_name (view, &version);
      ck_assert_str_eq (name, i >= 2 ? "abc-defghi12" : "raw");
      ck_assert_uint_eq (version, i >= 2 ? 77 : 1);
      if (i < 2)
        {
          FerryBuffer *forwarded;

          /* It travels on with what is forwarded. */
          send_loan (sender, view);
          forwarded = channel_test_take (receiver);
          ferry_buffer_unref (forwarded);
        }
    }
  channel_test_close (sender);
  channel_test_close (receiver);
}

/* An observer sees, disturbs nobody, is not seen as sender or receiver, and keeps nothing alive. */
TRANSPORT_TEST (test_observer)
{
  FerryChannel *sender = open_sender (test, "mode=broadcast capacity=2 overflow=error");
  FerryChannel *observer = channel_test_open (test, FERRY_ROLE_OBSERVER, NULL);
  g_autoptr (GPtrArray) participants = NULL;
  g_autoptr (GError) error = NULL;
  FerryChannel *receiver;

  for (guint i = 0; i < 20; i++)
    channel_test_send (sender, i, 500);
  channel_test_assert_statistic (observer, messages_sent, 20);
  channel_test_assert_statistic (observer, senders, 1);
  channel_test_assert_statistic (observer, receivers, 0);
  participants = ferry_channel_list_participants (observer, &error);
  ferry_assert_no_error (error);
  ck_assert_uint_eq (participants->len, 1);
  channel_test_verify (observer);

  ck_assert_ptr_null (ferry_channel_receive (observer, FERRY_NO_WAIT, NULL, &error));
  channel_test_assert_error (test, error, FERRY_ERROR_UNSUPPORTED);
  g_clear_error (&error);
  ck_assert (!channel_test_try_send (observer, 0, 10, FERRY_NO_WAIT, &error));
  channel_test_assert_error (test, error, FERRY_ERROR_UNSUPPORTED);
  g_clear_error (&error);

  channel_test_close (sender);
  if (test->meeting == CHANNEL_TEST_BY_NAME)
    {
      channel_test_assert_gone (test);
      /* A new channel of that name is another one. */
      receiver = open_receiver (test, NULL);
      channel_test_assert_statistic (receiver, messages_sent, 0);
      channel_test_assert_statistic (observer, messages_sent, 20);
      channel_test_close (receiver);
      channel_test_assert_gone (test);
      /* And an observer creates none. */
      ck_assert_ptr_null (channel_test_try_open (test, FERRY_ROLE_OBSERVER, NULL, &error));
      channel_test_assert_error (test, error, FERRY_ERROR_NOT_FOUND);
    }
  channel_test_close (observer);
}

/* What only the other role can do is refused. */
TRANSPORT_TEST (test_wrong_role)
{
  FerryChannel *sender = open_sender (test, NULL);
  FerryChannel *receiver = open_receiver (test, NULL);
  g_autoptr (GError) error = NULL;

  ck_assert_ptr_null (ferry_channel_receive (sender, FERRY_WAIT_FOREVER, NULL, &error));
  channel_test_assert_error (test, error, FERRY_ERROR_UNSUPPORTED);
  ferry_assert_contains (error->message, "receiver");
  g_clear_error (&error);
  ck_assert (!channel_test_try_send (receiver, 0, 10, FERRY_WAIT_FOREVER, &error));
  channel_test_assert_error (test, error, FERRY_ERROR_UNSUPPORTED);
  ferry_assert_contains (error->message, "sender");
  g_clear_error (&error);
  ck_assert_ptr_null (ferry_channel_loan (receiver, 10, FERRY_WAIT_FOREVER, NULL, &error));
  channel_test_assert_error (test, error, FERRY_ERROR_UNSUPPORTED);
  g_clear_error (&error);
  ck_assert (!ferry_channel_end_of_stream (receiver, &error));
  channel_test_assert_error (test, error, FERRY_ERROR_UNSUPPORTED);
  g_clear_error (&error);
  ck_assert (!ferry_channel_flush (receiver, FERRY_NO_WAIT, NULL, &error));
  channel_test_assert_error (test, error, FERRY_ERROR_UNSUPPORTED);
  g_clear_error (&error);
  ck_assert (!ferry_channel_wait (receiver, G_IO_OUT, FERRY_WAIT_FOREVER, NULL, &error));
  channel_test_assert_error (test, error, FERRY_ERROR_INVALID_ARGUMENT);
  channel_test_close (sender);
  channel_test_close (receiver);
}

/* 256 in one channel, then there is no room. */
TRANSPORT_TEST (test_too_many)
{
  FerryChannel *channels[PARTICIPANTS_MAX];
  g_autoptr (GError) error = NULL;

  for (guint i = 0; i < PARTICIPANTS_MAX; i++)
    channels[i] = channel_test_open (test, i % 2 ? FERRY_ROLE_RECEIVER : FERRY_ROLE_SENDER, NULL);
  ck_assert_ptr_null (channel_test_try_open (test, FERRY_ROLE_SENDER, NULL, &error));
  channel_test_assert_error (test, error, FERRY_ERROR_TOO_MANY);
  ferry_assert_contains (error->message, "256");
  channel_test_assert_statistic (channels[0], senders, PARTICIPANTS_MAX / 2);
  channel_test_assert_statistic (channels[0], receivers, PARTICIPANTS_MAX / 2);
  channel_test_send (channels[PARTICIPANTS_MAX - 2], 1, 5000);
  channel_test_expect (channels[PARTICIPANTS_MAX - 1], 1, 5000);
  /* An observer takes no place. */
  channel_test_close (channel_test_open (test, FERRY_ROLE_OBSERVER, NULL));
  channel_test_close (channels[100]);
  channels[100] = channel_test_open (test, FERRY_ROLE_RECEIVER, NULL);
  channel_test_verify (channels[0]);
  for (guint i = 0; i < PARTICIPANTS_MAX; i++)
    channel_test_close (channels[i]);
}

/* ---- several processes ---- */

typedef struct
{
  ChannelTestGate ready;
  ChannelTestGate go;
  FerryChannel *channel; /* of the parent */
  FerryBuffer *view;
  const char *properties;
} Shared;

static void
shared_init (Shared *shared)
{
  memset (shared, 0, sizeof *shared);
  channel_test_gate_init (&shared->ready);
  channel_test_gate_init (&shared->go);
}

static void
shared_clear (Shared *shared)
{
  channel_test_gate_clear (&shared->ready);
  channel_test_gate_clear (&shared->go);
}

static void
child_sends (ChannelTest *test, gpointer data)
{
  FerryChannel *sender = open_sender (test, NULL);
  guint64 n = *(guint64 *) data;

  for (guint64 i = 0; i < n; i++)
    channel_test_send (sender, i, i * 31 % 9000);
  ck_assert (ferry_channel_end_of_stream (sender, NULL));
  channel_test_close (sender);
}

TRANSPORT_TEST (test_other_process_sends)
{
  FerryChannel *receiver = open_receiver (test, NULL);
  guint64 n = 3000;
  pid_t pid = channel_test_fork (child_sends, test, &n);

  for (guint64 i = 0; i < n; i++)
    channel_test_expect (receiver, i, i * 31 % 9000);
  channel_test_wait_child (pid);
  channel_test_expect_error (test, receiver, FERRY_NO_WAIT, FERRY_ERROR_END_OF_STREAM);
  channel_test_assert_statistic (receiver, repairs, 0);
  channel_test_assert_statistic (receiver, messages_sent, n);
  channel_test_verify (receiver);
  channel_test_close (receiver);
}

static void
child_receives (ChannelTest *test, gpointer data)
{
  FerryChannel *receiver = open_receiver (test, NULL);
  Shared *shared = data;
  g_autoptr (GError) error = NULL;

  channel_test_gate_open (&shared->ready);
  for (guint64 i = 0;; i++)
    {
      g_autoptr (FerryBuffer) buffer = ferry_channel_receive (receiver, 20 * G_USEC_PER_SEC, NULL, &error);

      if (buffer == NULL)
        {
          channel_test_assert_error (test, error, FERRY_ERROR_END_OF_STREAM);
          ck_assert_uint_eq (i, 2000);
          break;
        }
      ck_assert_uint_eq (ferry_buffer_get_size (buffer), i * 31 % 9000);
      ck_assert (channel_test_is_filled (ferry_buffer_get_data (buffer, NULL), i * 31 % 9000, i));
    }
  channel_test_close (receiver);
}

TRANSPORT_TEST (test_other_processes_receive_broadcast)
{
  FerryChannel *sender = open_sender (test, "mode=broadcast");
  Shared shared;
  pid_t pids[2];

  shared_init (&shared);
  for (guint i = 0; i < 2; i++)
    pids[i] = channel_test_fork (child_receives, test, &shared);
  for (guint i = 0; i < 2; i++)
    channel_test_gate_wait (&shared.ready);
  for (guint64 i = 0; i < 2000; i++)
    channel_test_send (sender, i, i * 31 % 9000);
  ck_assert (ferry_channel_end_of_stream (sender, NULL));
  ck_assert (ferry_channel_flush (sender, 10 * G_USEC_PER_SEC, NULL, NULL));
  for (guint i = 0; i < 2; i++)
    channel_test_wait_child (pids[i]);
  channel_test_assert_statistic (sender, messages_received, 4000);
  channel_test_verify (sender);
  channel_test_close (sender);
  shared_clear (&shared);
}

/* The parent's endpoint, used in a fork child, is another participant. */
static void
child_uses_endpoint (ChannelTest *test, gpointer data)
{
  Shared *shared = data;
  g_autoptr (GPtrArray) participants = NULL;
  guint n_mine = 0;

  channel_test_send (shared->channel, 1, 10);
  channel_test_send (shared->channel, 2, 5000);
  participants = ferry_channel_list_participants (shared->channel, NULL);
  ck_assert_ptr_nonnull (participants);
  for (guint i = 0; i < participants->len; i++)
    n_mine += ((FerryParticipant *) g_ptr_array_index (participants, i))->pid == getpid ();
  ck_assert_uint_eq (participants->len, 3);
  ck_assert_uint_eq (n_mine, 1);
  ck_assert (ferry_channel_close (shared->channel, NULL));
}

TRANSPORT_TEST (test_fork_endpoint_is_new_participant)
{
  FerryChannel *sender = open_sender (test, NULL);
  FerryChannel *receiver = open_receiver (test, NULL);
  Shared shared = { .channel = sender };
  FerryBuffer *views[2];
  pid_t pid;

  channel_test_send (sender, 0, 10);
  channel_test_expect (receiver, 0, 10);
  pid = channel_test_fork (child_uses_endpoint, test, &shared);
  channel_test_wait_child (pid);
  for (guint i = 0; i < 2; i++)
    {
      views[i] = channel_test_take (receiver);
      ck_assert (channel_test_is_filled (ferry_buffer_get_data (views[i], NULL), i == 0 ? 10 : 5000, i + 1));
    }
  channel_test_send (sender, 3, 10);
  channel_test_expect (receiver, 3, 10);
  channel_test_assert_statistic (receiver, messages_sent, 4);
  channel_test_assert_statistic (receiver, senders, 1);
  channel_test_assert_statistic (receiver, repairs, 0);
  for (guint i = 0; i < 2; i++)
    ferry_buffer_unref (views[i]);
  channel_test_verify (receiver);
  channel_test_close (sender);
  channel_test_close (receiver);
}

static void
child_takes_by_endpoint (ChannelTest *test, gpointer data)
{
  Shared *shared = data;

  channel_test_expect (shared->channel, 0, 5000);
  channel_test_expect (shared->channel, 1, 10);
  ck_assert (ferry_channel_close (shared->channel, NULL));
}

TRANSPORT_TEST (test_fork_receiver_endpoint)
{
  FerryChannel *sender = open_sender (test, NULL);
  FerryChannel *receiver = open_receiver (test, NULL);
  Shared shared = { .channel = receiver };

  channel_test_send (sender, 0, 5000);
  channel_test_send (sender, 1, 10);
  channel_test_send (sender, 2, 5000);
  channel_test_wait_child (channel_test_fork (child_takes_by_endpoint, test, &shared));
  channel_test_expect (receiver, 2, 5000);
  channel_test_expect_nothing (test, receiver);
  channel_test_verify (receiver);
  channel_test_close (sender);
  channel_test_close (receiver);
}

/* A child that does nothing with what it inherited, and ends this or that way. */
static void
child_exits (ChannelTest *test, gpointer data)
{
  /* Check's exit handlers are the parent's. */
  if (!ferry_test_is_valgrind ()) /* it would find what the parent holds */
    exit (0);
}

static void
child_just_exits (ChannelTest *test, gpointer data)
{
  if (!ferry_test_is_valgrind ()) /* it would find what the parent holds */
    _exit (0);
}

static void
child_drops_views (ChannelTest *test, gpointer data)
{
  Shared *shared = data;
  gsize size;
  const guint8 *bytes = ferry_buffer_get_data (shared->view, &size);

  ck_assert_uint_eq (size, 65536);
  ck_assert (channel_test_is_filled (bytes, size, 5));
  ferry_buffer_unref (shared->view);
  g_object_unref (shared->channel);
}

static void
child_closes (ChannelTest *test, gpointer data)
{
  Shared *shared = data;

  ck_assert (ferry_channel_close (shared->channel, NULL));
}

TRANSPORT_TEST (test_fork_child_harms_nobody)
{
  FerryChannel *sender = open_sender (test, "max-bytes=131072");
  FerryChannel *receiver = open_receiver (test, NULL);
  void (*const children[]) (ChannelTest *, gpointer)
      = { child_exits, child_just_exits, child_drops_views, child_closes };
  FerryBuffer *view;
  Events events;

  listen_to (sender, &events);
  channel_test_send (sender, 5, 65536);
  view = channel_test_take (receiver);
  ferry_channel_dispatch_events (sender);
  ck_assert_uint_eq (events.n_joined, 1);
  for (guint i = 0; i < G_N_ELEMENTS (children); i++)
    {
      Shared shared = { .channel = receiver, .view = view };
      g_autoptr (GError) error = NULL;

      channel_test_wait_child (channel_test_fork (children[i], test, &shared));
      /* Nobody has left, and the view still holds its block: the other one is used again and again. */
      ferry_channel_dispatch_events (sender);
      ck_assert_uint_eq (events.n_left + events.n_died, 0);
      for (guint n = 0; n < 3; n++)
        {
          channel_test_send (sender, n, 65536);
          channel_test_expect (receiver, n, 65536);
        }
      ck_assert (channel_test_is_filled (ferry_buffer_get_data (view, NULL), 65536, 5));
      ck_assert (!channel_test_try_send (sender, 0, 131072, FERRY_NO_WAIT, &error));
      channel_test_assert_error (test, error, FERRY_ERROR_FULL);
      channel_test_verify (sender);
    }
  ferry_buffer_unref (view);
  channel_test_send (sender, 0, 131072);
  channel_test_expect (receiver, 0, 131072);
  channel_test_assert_statistic (sender, repairs, 0);
  channel_test_close (sender);
  channel_test_close (receiver);
}

static void
child_holds_and_dies (ChannelTest *test, gpointer data)
{
  Shared *shared = data;
  FerryChannel *receiver = open_receiver (test, NULL);
  FerryChannel *sender = open_sender (test, NULL);
  FerryBuffer *view = channel_test_take (receiver);
  FerryBuffer *loan = take_loan (sender, 0, 65536);

  ck_assert (channel_test_is_filled (ferry_buffer_get_data (view, NULL), 65536, 0));
  ck_assert_uint_eq (ferry_buffer_get_size (loan), 65536);
  channel_test_gate_open (&shared->ready);
  channel_test_gate_wait (&shared->go);
}

/* Who dies is noticed, told of once, and gives back what it held. */
TRANSPORT_TEST (test_peer_dies)
{
  FerryChannel *sender = open_sender (test, "max-bytes=131072");
  FerryChannel *receiver = open_receiver (test, NULL);
  Shared shared;
  Events events;
  gint64 killed;
  pid_t pid;

  shared_init (&shared);
  channel_test_send (sender, 0, 65536);
  listen_to (receiver, &events);
  ferry_channel_dispatch_events (receiver);
  pid = channel_test_fork (child_holds_and_dies, test, &shared);
  channel_test_gate_wait (&shared.ready);
  ferry_channel_dispatch_events (receiver);
  ck_assert_uint_eq (events.n_joined, 3);
  channel_test_kill_child (pid);
  killed = g_get_monotonic_time ();

  /* All the memory comes back. */
  channel_test_send (sender, 1, 131072);
  ck_assert_int_lt (g_get_monotonic_time () - killed, G_USEC_PER_SEC);
  channel_test_expect (receiver, 1, 131072);
  channel_test_expect_error (test, receiver, 500 * MS, FERRY_ERROR_TIMED_OUT);
  ck_assert_uint_eq (events.n_died, 2);
  ck_assert_uint_eq (events.n_left, 0);
  ck_assert_int_eq (events.last_pid, pid);
  channel_test_assert_statistic (sender, repairs, 2);
  channel_test_assert_statistic (sender, senders, 1);
  channel_test_assert_statistic (sender, receivers, 1);
  channel_test_verify (sender);
  channel_test_close (sender);
  channel_test_close (receiver);
  shared_clear (&shared);
}

static void
child_creates_and_waits (ChannelTest *test, gpointer data)
{
  Shared *shared = data;
  FerryChannel *sender = open_sender (test, NULL);

  channel_test_send (sender, 0, 10);
  channel_test_send (sender, 1, 100000);
  channel_test_gate_open (&shared->ready);
  channel_test_gate_wait (&shared->go);
}

/* The channel goes on without its creator, and newcomers find it. */
TRANSPORT_TEST (test_creator_dies)
{
  FerryChannel *receiver;
  FerryChannel *newcomer;
  Shared shared;
  pid_t pid;

  if (test->meeting != CHANNEL_TEST_BY_NAME)
    return;
  shared_init (&shared);
  pid = channel_test_fork (child_creates_and_waits, test, &shared);
  channel_test_gate_wait (&shared.ready);
  receiver = open_receiver (test, "open-mode=join");
  channel_test_kill_child (pid);
  newcomer = open_sender (test, "open-mode=join");
  channel_test_send (newcomer, 2, 100000);
  channel_test_expect (receiver, 0, 10);
  channel_test_expect (receiver, 1, 100000);
  channel_test_expect (receiver, 2, 100000);
  channel_test_close (receiver);
  receiver = open_receiver (test, "open-mode=join");
  channel_test_send (newcomer, 3, 10);
  channel_test_expect (receiver, 3, 10);
  channel_test_assert_statistic (newcomer, repairs, 1);
  channel_test_assert_statistic (newcomer, senders, 1);
  channel_test_verify (receiver);
  channel_test_close (newcomer);
  channel_test_close (receiver);
  shared_clear (&shared);
}

/* All die: the next one begins a new channel of that name, whatever the dead left. */
TRANSPORT_TEST (test_all_die)
{
  FerryChannel *receiver;
  Shared shared;
  g_autoptr (GError) error = NULL;
  pid_t pid;

  if (test->meeting != CHANNEL_TEST_BY_NAME)
    return;
  for (guint i = 0; i < 3; i++)
    {
      static const char *const modes[] = { NULL, "open-mode=create", "open-mode=join" };

      shared_init (&shared);
      pid = channel_test_fork (child_creates_and_waits, test, &shared);
      channel_test_gate_wait (&shared.ready);
      channel_test_kill_child (pid);
      receiver = channel_test_try_open (test, FERRY_ROLE_RECEIVER, modes[i], &error);
      if (i == 2)
        {
          ck_assert_ptr_null (receiver);
          channel_test_assert_error (test, error, FERRY_ERROR_NOT_FOUND);
        }
      else
        {
          ferry_assert_no_error (error);
          channel_test_expect_nothing (test, receiver);
          channel_test_assert_statistic (receiver, messages_sent, 0);
          channel_test_close (receiver);
        }
      shared_clear (&shared);
    }
}

/* Nothing that is open here stays open in a program that is executed. */
TRANSPORT_TEST (test_descriptors_close_on_exec)
{
  GHashTable *before = g_hash_table_new (NULL, NULL);
  FerryChannel *sender;
  FerryChannel *receiver;

  for (int fd = 0; fd < 1024; fd++)
    if (fcntl (fd, F_GETFD) >= 0)
      g_hash_table_add (before, GINT_TO_POINTER (fd));
  sender = open_sender (test, NULL);
  receiver = open_receiver (test, NULL);
  channel_test_send (sender, 1, 100000);
  channel_test_expect (receiver, 1, 100000);
  ck_assert_int_ge (ferry_channel_get_fd (sender, NULL), 0);
  ck_assert_int_ge (ferry_channel_get_fd (receiver, NULL), 0);
  for (int fd = 0; fd < 1024; fd++)
    {
      int flags = fcntl (fd, F_GETFD);

      if (flags >= 0 && !g_hash_table_contains (before, GINT_TO_POINTER (fd)))
        ck_assert_msg (flags & FD_CLOEXEC, "descriptor %d would be inherited by other programs", fd);
    }
  channel_test_close (sender);
  channel_test_close (receiver);
  g_hash_table_unref (before);
}

/* ---- opening ---- */

TRANSPORT_TEST (test_open_modes)
{
  FerryChannel *first;
  FerryChannel *second;
  g_autoptr (GError) error = NULL;

  if (test->meeting != CHANNEL_TEST_BY_NAME)
    return;
  for (guint i = 0; i < 3; i++)
    {
      ck_assert_ptr_null (channel_test_try_open (test, FERRY_ROLE_SENDER, "open-mode=join", &error));
      channel_test_assert_error (test, error, FERRY_ERROR_NOT_FOUND);
      g_clear_error (&error);
      channel_test_assert_gone (test);
      first = open_sender (test, i % 2 ? "open-mode=create" : NULL);
      ck_assert_ptr_null (channel_test_try_open (test, FERRY_ROLE_RECEIVER, "open-mode=create", &error));
      channel_test_assert_error (test, error, FERRY_ERROR_EXISTS);
      ferry_assert_contains (error->message, "open-mode");
      g_clear_error (&error);
      channel_test_send (first, 1, 10);
      second = open_receiver (test, i % 2 ? NULL : "open-mode=join");
      channel_test_expect (second, 1, 10);
      channel_test_close (first);
      channel_test_close (second);
      channel_test_assert_gone (test);
    }
}

TRANSPORT_TEST (test_settings_mismatch)
{
  FerryChannel *sender = open_sender (test, "mode=broadcast capacity=8 max-bytes=1048576 history=3 inline-size=200");
  static const struct
  {
    const char *properties;
    const char *asked;
    const char *found;
  } mismatches[] = {
    { "mode=work-queue", "work-queue", "broadcast" },
    { "capacity=9", "9", "8" },
    { "capacity=7", "7", "8" },
    { "max-bytes=1048577", "1048577", "1048576" },
    { "mode=broadcast history=4", "4", "3" },
    { "inline-size=2000", "2000", "inline-size" },
  };
  static const char *const matches[] = {
    "mode=broadcast",    "capacity=8",
    "max-bytes=1048576", "mode=broadcast history=3",
    "inline-size=100",   "mode=broadcast capacity=8 max-bytes=1048576 history=3 inline-size=200",
  };

  for (guint i = 0; i < G_N_ELEMENTS (mismatches); i++)
    {
      g_autoptr (GError) error = NULL;
      FerryChannel *other = channel_test_try_open (test, FERRY_ROLE_RECEIVER, mismatches[i].properties, &error);

      ck_assert_msg (other == NULL, "%s was accepted", mismatches[i].properties);
      channel_test_assert_error (test, error, FERRY_ERROR_MISMATCH);
      ferry_assert_contains (error->message, mismatches[i].asked);
      ferry_assert_contains (error->message, mismatches[i].found);
      ferry_assert_contains (error->message, "leave it out");
      channel_test_assert_statistic (sender, receivers, 0);
    }
  for (guint i = 0; i < G_N_ELEMENTS (matches); i++)
    {
      FerryChannel *other = open_receiver (test, matches[i]);
      guint capacity;
      guint64 max_bytes;
      guint history;
      FerryMode mode;

      g_object_get (other, "capacity", &capacity, "max-bytes", &max_bytes, "history", &history, "mode", &mode, NULL);
      ck_assert_uint_eq (capacity, 8);
      ck_assert_uint_eq (max_bytes, 1048576);
      ck_assert_uint_eq (history, 3);
      ck_assert_uint_eq (mode, FERRY_MODE_BROADCAST);
      channel_test_close (other);
    }
  channel_test_verify (sender);
  channel_test_close (sender);
}

/* What the configuration accepts a transport makes, and who joins finds it sound. */
TRANSPORT_TEST (test_settings_at_the_limits)
{
  static const struct
  {
    const char *properties;
    guint capacity;
    guint history;
    guint inline_size; /* at least: a slot has whole cache lines */
  } cases[] = {
    { "mode=work-queue", 256, 0, 200 },
    { "capacity=1", 1, 0, 200 },
    { "inline-size=64", 256, 0, 64 },
    { "inline-size=4040", 256, 0, 4040 },
    { "mode=broadcast history=65536", 256, 65536, 200 },
  };

  for (guint i = 0; i < G_N_ELEMENTS (cases); i++)
    {
      FerryChannel *sender = open_sender (test, cases[i].properties);
      FerryChannel *receiver = open_receiver (test, NULL);
      guint capacity;
      guint history;
      guint inline_size;

      g_object_get (receiver, "capacity", &capacity, "history", &history, "inline-size", &inline_size, NULL);
      ck_assert_uint_eq (capacity, cases[i].capacity);
      ck_assert_uint_eq (history, cases[i].history);
      ck_assert_uint_ge (inline_size, cases[i].inline_size);
      ck_assert_uint_le (inline_size, 4040);
      channel_test_send (sender, 0, cases[i].inline_size);
      channel_test_expect (receiver, 0, cases[i].inline_size);
      channel_test_close (receiver);
      channel_test_close (sender);
      channel_test_forget (test);
    }
}

/* The endpoint of a failed opening can be opened after all. */
TRANSPORT_TEST (test_open_again_after_mismatch)
{
  FerryChannel *sender = open_sender (test, "capacity=8");
  FerryChannel *receiver = channel_test_make (test, FERRY_ROLE_RECEIVER, "capacity=9");
  g_autoptr (GError) error = NULL;
  guint capacity;

  ck_assert (!ferry_channel_open (receiver, NULL, &error));
  channel_test_assert_error (test, error, FERRY_ERROR_MISMATCH);
  g_clear_error (&error);
  ck_assert (!ferry_channel_is_open (receiver));
  g_object_get (receiver, "capacity", &capacity, NULL);
  ck_assert_uint_eq (capacity, 9);
  g_object_set (receiver, "capacity", 8, NULL);
  ck_assert (ferry_channel_open (receiver, NULL, &error));
  ferry_assert_no_error (error);
  channel_test_send (sender, 1, 10);
  channel_test_expect (receiver, 1, 10);
  channel_test_close (sender);
  channel_test_close (receiver);
}

TRANSPORT_TEST (test_open_async)
{
  FerryChannel *sender = open_sender (test, NULL);
  FerryChannel *receiver = channel_test_make (test, FERRY_ROLE_RECEIVER, NULL);
  g_autoptr (GCancellable) cancellable = g_cancellable_new ();
  Async async = { 0 };

  g_cancellable_cancel (cancellable);
  ferry_channel_open_async (receiver, G_PRIORITY_DEFAULT, cancellable, opened_cb, &async);
  channel_test_iterate_until (&async.done, 10);
  ferry_assert_error (async.error, G_IO_ERROR, G_IO_ERROR_CANCELLED);
  ck_assert (!ferry_channel_is_open (receiver));
  async_clear (&async);
  ferry_channel_open_async (receiver, G_PRIORITY_DEFAULT, NULL, opened_cb, &async);
  channel_test_iterate_until (&async.done, 10);
  ferry_assert_no_error (async.error);
  ck_assert (async.succeeded);
  ck_assert (ferry_channel_is_open (receiver));
  channel_test_send (sender, 1, 10);
  channel_test_expect (receiver, 1, 10);
  async_clear (&async);
  /* The thread may be about to drop its reference. */
  for (guint i = 0; i < 1000 && G_OBJECT (receiver)->ref_count > 1; i++)
    g_usleep (MS);
  channel_test_close (sender);
  channel_test_close (receiver);
}

static void
leave_closed (FerryChannel *channel, gpointer unused)
{
  g_autoptr (GError) error = NULL;

  ck_assert (ferry_channel_close (channel, &error));
}

/* What is closed is closed for every call, and closing twice is fine. */
TRANSPORT_TEST (test_closed)
{
  FerryChannel *channels[2] = { open_sender (test, NULL), open_receiver (test, NULL) };
  g_autoptr (GError) error = NULL;

  for (guint i = 0; i < 2; i++)
    {
      leave_closed (channels[i], NULL);
      leave_closed (channels[i], NULL);
      ck_assert (!ferry_channel_is_open (channels[i]));
    }
#define ASSERT_CLOSED(call)                                                                                            \
  do                                                                                                                   \
    {                                                                                                                  \
      ck_assert (!(call));                                                                                             \
      ferry_assert_error (error, FERRY_ERROR, FERRY_ERROR_CLOSED);                                                     \
      ferry_assert_contains (error->message, channel_test_label (test));                                               \
      g_clear_error (&error);                                                                                          \
    }                                                                                                                  \
  while (0)
  ASSERT_CLOSED (channel_test_try_send (channels[0], 0, 10, FERRY_WAIT_FOREVER, &error));
  ASSERT_CLOSED (ferry_channel_loan (channels[0], 10, FERRY_WAIT_FOREVER, NULL, &error));
  ASSERT_CLOSED (ferry_channel_end_of_stream (channels[0], &error));
  ASSERT_CLOSED (ferry_channel_flush (channels[0], FERRY_WAIT_FOREVER, NULL, &error));
  ASSERT_CLOSED (ferry_channel_shut_down (channels[0], &error));
  ASSERT_CLOSED (ferry_channel_receive (channels[1], FERRY_WAIT_FOREVER, NULL, &error));
  ASSERT_CLOSED (ferry_channel_wait (channels[1], G_IO_IN, FERRY_WAIT_FOREVER, NULL, &error));
  ASSERT_CLOSED (ferry_channel_get_fd (channels[1], &error) >= 0);
  ASSERT_CLOSED (ferry_channel_create_source (channels[1], G_IO_IN, NULL, &error));
  ASSERT_CLOSED (ferry_channel_get_statistics (channels[1], &error));
  ASSERT_CLOSED (ferry_channel_list_participants (channels[1], &error));
  ASSERT_CLOSED (ferry_channel_verify (channels[1], &error));
#undef ASSERT_CLOSED
  ck_assert_uint_eq (ferry_channel_trim (channels[0]), 0);
  ferry_channel_dispatch_events (channels[0]);
  for (guint i = 0; i < 2; i++)
    channel_test_close (channels[i]);
}

static void
add_case (Suite *suite, const char *name, double timeout, int i, const TTest *const *tests)
{
  g_autofree char *full
      = g_strdup_printf ("%s%s/%s", g_array_index (all, Conformance, i).transport,
                         g_array_index (all, Conformance, i).flags & TRANSPORT_CONFORMANCE_INHERITED_FDS ? "-inherited"
                         : g_array_index (all, Conformance, i).flags & TRANSPORT_CONFORMANCE_PASSED_FDS  ? "-passed"
                                                                                                         : "",
                         name);
  TCase *tcase = tcase_create (g_intern_string (full));

  tcase_set_timeout (tcase, timeout);
  for (guint t = 0; tests[t] != NULL; t++)
    tcase_add_loop_test (tcase, tests[t], i, i + 1);
  suite_add_tcase (suite, tcase);
}

/*
 * ferry_transport_conformance_add: adds the tests to a suite.
 */
void
ferry_transport_conformance_add (Suite *suite, const char *transport_name, const char *extra_properties,
                                 TransportConformanceFlags flags)
{
  const Conformance conformance = { g_intern_string (transport_name), g_intern_string (extra_properties), flags };
  const TTest *const delivery[] = {
    test_work_queue_order,
    test_work_queue_each_once,
    test_work_queue_waits_for_receivers,
    test_broadcast_from_joining_on,
    test_broadcast_two_senders,
    test_broadcast_without_receivers,
    test_history,
    test_history_and_capacity,
    test_history_and_max_bytes,
    test_history_with_drops,
    test_joins_and_leaves,
    NULL,
  };
  const TTest *const bounds[] = {
    test_capacity_work_queue,
    test_capacity_work_queue_blocks,
    test_capacity_two_senders,
    test_capacity_broadcast,
    test_capacity_broadcast_two_senders,
    test_capacity_and_views,
    test_max_bytes_work_queue,
    test_max_bytes_broadcast,
    NULL,
  };
  const TTest *const overflow[] = {
    test_overflow_error_work_queue,      test_overflow_error_broadcast,        test_overflow_drop_newest_work_queue,
    test_overflow_drop_newest_broadcast, test_overflow_drop_oldest_work_queue, test_overflow_drop_oldest_broadcast,
    test_drop_oldest_slow_and_fast,      test_drop_oldest_memory_held,         NULL,
  };
  const TTest *const message_sizes[] = {
    test_sizes_work_queue, test_sizes_broadcast, test_sizes_small_slots, test_sizes_large_slots,
    test_size_64_mib,      test_size_6_gib,      test_random_sizes,      NULL,
  };
  const TTest *const loans[] = {
    test_loans_work_queue,
    test_loans_broadcast,
    test_loan_shortened,
    test_loan_dropped,
    test_loan_sent_twice,
    test_loan_sent_again_after_failure,
    test_foreign_buffers,
    test_drop_newest_loan,
    test_received_buffers_forwarded,
    NULL,
  };
  const TTest *const views[] = {
    test_views_in_any_order_work_queue, test_views_in_any_order_broadcast,    test_views_outlive_close,
    test_views_outlive_unref,           test_views_outlive_close_broadcast,   test_views_do_not_keep_the_role,
    test_views_writable_in_work_queue,  test_received_bytes_hold_the_message, NULL,
  };
  const TTest *const memory[] = {
    test_zero_copy_work_queue,
    test_zero_copy_broadcast,
    test_warm_reuse_work_queue,
    test_warm_reuse_broadcast,
    test_warm_reuse_stream,
    test_warm_reuse_few,
    test_warm_reuse_bounded,
    test_small_messages_take_no_block,
    test_views_read_only_in_broadcast,
    test_trim,
    NULL,
  };
  const TTest *const idle_memory[] = { test_idle_memory_given_back, NULL };
  const TTest *const waiting[] = {
    test_receive_times_out,
    test_send_times_out,
    test_no_wait,
    test_cancel,
    test_cancel_sleeping,
    test_cancel_spinning,
    test_cancel_with_listener,
    test_close_while_waiting,
    test_close_while_sleeping,
    test_close_while_waiting_with_listener,
    test_woken,
    test_woken_sleeping,
    test_woken_spinning,
    test_woken_with_listener,
    NULL,
  };
  const TTest *const polling[] = {
    test_poll_two_receivers, test_sources,    test_source_hang_up, test_receive_async,
    test_async_and_close,    test_send_async, test_flush_async,    NULL,
  };
  const TTest *const idle[] = { test_poll, test_sources_idle, test_waiting_idle, NULL };
  const TTest *const ending[] = {
    test_end_of_stream_work_queue,
    test_end_of_stream_broadcast,
    test_end_of_stream_two_senders,
    test_leaving_is_no_end_of_stream,
    test_end_of_stream_wakes,
    test_flush,
    test_flush_mark,
    test_flush_busy,
    test_shut_down,
    test_shut_down_wakes,
    NULL,
  };
  const TTest *const telling[] = {
    test_signals,
    test_signals_in_traffic,
    test_participants,
    test_statistics,
    test_statistics_broadcast,
    test_sequence_sender_timestamp,
    test_wire_names,
    test_observer,
    test_wrong_role,
    test_too_many,
    NULL,
  };
  const TTest *const telling_slowly[] = { test_signals_in_receive, test_signals_in_main_loop, NULL };
  const TTest *const processes[] = {
    test_other_process_sends,
    test_other_processes_receive_broadcast,
    test_fork_endpoint_is_new_participant,
    test_fork_receiver_endpoint,
    test_fork_child_harms_nobody,
    test_peer_dies,
    test_creator_dies,
    test_all_die,
    test_descriptors_close_on_exec,
    NULL,
  };
  const TTest *const opening[] = {
    test_open_modes,
    test_settings_mismatch,
    test_settings_at_the_limits,
    test_open_again_after_mismatch,
    test_open_async,
    test_closed,
    NULL,
  };
  gboolean shared_memory = (flags & TRANSPORT_CONFORMANCE_NO_SHARED_MEMORY) == 0;
  gboolean slow = (flags & TRANSPORT_CONFORMANCE_QUICK) == 0;
  double patience = ferry_test_is_thorough () ? 300 : 30;
  int i;

  if (all == NULL)
    all = g_array_new (FALSE, FALSE, sizeof (Conformance));
  i = (int) all->len;
  g_array_append_val (all, conformance);

  add_case (suite, "delivery", patience, i, delivery);
  add_case (suite, "bounds", patience, i, bounds);
  add_case (suite, "overflow", patience, i, overflow);
  add_case (suite, "sizes", patience, i, message_sizes);
  add_case (suite, "loans", patience, i, loans);
  add_case (suite, "views", patience, i, views);
  if (slow)
    add_case (suite, "waiting", patience, i, waiting);
  add_case (suite, "polling", patience, i, polling);
  add_case (suite, "ending", patience, i, ending);
  add_case (suite, "telling", patience, i, telling);
  if (slow)
    add_case (suite, "telling-slowly", patience, i, telling_slowly);
  add_case (suite, "processes", patience, i, processes);
  add_case (suite, "opening", patience, i, opening);
  if (slow)
    add_case (suite, "idle", patience, i, idle);
  if (shared_memory)
    add_case (suite, "memory", patience, i, memory);
  if (shared_memory && slow)
    add_case (suite, "idle-memory", patience, i, idle_memory);
}
