/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "ferry-test.h"

#include <sys/types.h>

/* How the endpoints of a test find their channel. */
typedef enum
{
  CHANNEL_TEST_BY_NAME,
  CHANNEL_TEST_BY_INHERITED_FDS, /* an anonymous one: the descriptors as they are */
  CHANNEL_TEST_BY_PASSED_FDS,    /* an anonymous one: the descriptors through a UNIX socket */
} ChannelTestMeeting;

/*
 * One channel for one test: a name that nobody else has, and at the end proof that
 * nothing is left of it.
 */
typedef struct
{
  const char *transport;
  const char *properties; /* for every endpoint; NULL: none */
  ChannelTestMeeting meeting;
  char *name;
  int control_fd; /* of an anonymous channel, once there is one */
  int data_fd;
  guint n_fds; /* open ones when the test began */
} ChannelTest;

void channel_test_begin (ChannelTest *self, const char *transport, const char *properties, ChannelTestMeeting meeting);

void channel_test_end (ChannelTest *self);

void channel_test_forget (ChannelTest *self);

FerryChannel *channel_test_make (ChannelTest *self, FerryRole role, const char *properties);

FerryChannel *channel_test_try_open (ChannelTest *self, FerryRole role, const char *properties, GError **error);

FerryChannel *channel_test_open (ChannelTest *self, FerryRole role, const char *properties);

void channel_test_assert_gone (const ChannelTest *self);

/* What an error must be, and that its message names the channel. */
#define channel_test_assert_error(self, error, code)                                                                   \
  do                                                                                                                   \
    {                                                                                                                  \
      ferry_assert_error ((error), FERRY_ERROR, (code));                                                               \
      ferry_assert_contains ((error)->message, channel_test_label (self));                                             \
    }                                                                                                                  \
  while (0)

const char *channel_test_label (const ChannelTest *self);

guint channel_test_count_fds (void);

/* Closes an endpoint and drops it: it must have been the last reference. */
void channel_test_close (FerryChannel *channel);

/* The invariants hold, at rest. */
#define channel_test_verify(channel)                                                                                   \
  do                                                                                                                   \
    {                                                                                                                  \
      g_autoptr (GError) verify_error = NULL;                                                                          \
      gboolean verified = ferry_channel_verify ((channel), &verify_error);                                             \
                                                                                                                       \
      ferry_assert_no_error (verify_error);                                                                            \
      ck_assert (verified);                                                                                            \
    }                                                                                                                  \
  while (0)

/* Messages with a number and contents that tell where they are from. */
void channel_test_fill (guint8 *data, gsize size, guint64 number);

gboolean channel_test_is_filled (const guint8 *data, gsize size, guint64 number);

#define channel_test_send(channel, number, size)                                                                       \
  do                                                                                                                   \
    {                                                                                                                  \
      g_autoptr (GError) send_error = NULL;                                                                            \
      gboolean send_done = channel_test_try_send ((channel), (number), (size), 10 * G_USEC_PER_SEC, &send_error);      \
                                                                                                                       \
      ferry_assert_no_error (send_error);                                                                              \
      ck_assert (send_done);                                                                                           \
    }                                                                                                                  \
  while (0)

gboolean channel_test_try_send (FerryChannel *channel, guint64 number, gsize size, gint64 timeout, GError **error);

/* Receives a message and makes sure that it is that one. */
#define channel_test_expect(channel, number, size)                                                                     \
  do                                                                                                                   \
    {                                                                                                                  \
      g_autoptr (GError) expect_error = NULL;                                                                          \
      g_autoptr (FerryBuffer) expected = ferry_channel_receive ((channel), 10 * G_USEC_PER_SEC, NULL, &expect_error);  \
                                                                                                                       \
      ferry_assert_no_error (expect_error);                                                                            \
      ck_assert_ptr_nonnull (expected);                                                                                \
      ck_assert_uint_eq (ferry_buffer_get_size (expected), (size));                                                    \
      ck_assert_msg (channel_test_is_filled (ferry_buffer_get_data (expected, NULL), (size), (number)),                \
                     "this is not message %" G_GUINT64_FORMAT, (guint64) (number));                                    \
    }                                                                                                                  \
  while (0)

/* Receives a message and hands it over. */
FerryBuffer *channel_test_take (FerryChannel *channel);

#define channel_test_expect_error(self, channel, timeout, code)                                                        \
  do                                                                                                                   \
    {                                                                                                                  \
      g_autoptr (GError) expect_error = NULL;                                                                          \
      FerryBuffer *unexpected = ferry_channel_receive ((channel), (timeout), NULL, &expect_error);                     \
                                                                                                                       \
      ck_assert_msg (unexpected == NULL, "a message came where none was expected");                                    \
      channel_test_assert_error ((self), expect_error, (code));                                                        \
    }                                                                                                                  \
  while (0)

#define channel_test_expect_nothing(self, channel)                                                                     \
  channel_test_expect_error ((self), (channel), FERRY_NO_WAIT, FERRY_ERROR_EMPTY)

/* Of the statistics of an open channel. */
FerryStatistics *channel_test_statistics (FerryChannel *channel);

#define channel_test_assert_statistic(channel, field, value)                                                           \
  do                                                                                                                   \
    {                                                                                                                  \
      g_autoptr (FerryStatistics) found_statistics = channel_test_statistics (channel);                                \
                                                                                                                       \
      ck_assert_uint_eq (found_statistics->field, (value));                                                            \
    }                                                                                                                  \
  while (0)

/* Child processes. @func runs in the child, which then leaves by _exit(0). */
pid_t channel_test_fork (void (*func) (ChannelTest *self, gpointer data), ChannelTest *self, gpointer data);

void channel_test_wait_child (pid_t pid);

void channel_test_kill_child (pid_t pid);

/* One process tells another that it is that far. */
typedef struct
{
  int fds[2];
} ChannelTestGate;

void channel_test_gate_init (ChannelTestGate *gate);

void channel_test_gate_open (ChannelTestGate *gate);

void channel_test_gate_wait (ChannelTestGate *gate);

void channel_test_gate_clear (ChannelTestGate *gate);

/* Runs the default main context until @done, or fails after @seconds. */
#define channel_test_iterate_until(done, seconds)                                                                      \
  ck_assert_msg (channel_test_iterate ((done), (seconds)), "it did not happen within %g s", (double) (seconds))

gboolean channel_test_iterate (gboolean *done, double seconds);

void channel_test_iterate_for (double seconds);

/* CPU time of this process, in microseconds. */
gint64 channel_test_cpu_time (void);
