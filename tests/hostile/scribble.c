/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* A hostile peer overwrites the control area while others work, and opens are tried on garbage: every call ends in
 * time, with success or an error, and no process ends by a signal. */

#include "ferry-peers.h"
#include "ferry-segment-private.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define PEERS (4)
#define TIME_DEFAULT (6 * FERRY_PEERS_S)
#define TIME_THOROUGH (60 * FERRY_PEERS_S)
#define FUZZ_DEFAULT (400)
#define FUZZ_THOROUGH (20000)
/* Of one channel; then a new one. */
#define ROUND_TIME (600 * FERRY_PEERS_MS)
/* What a call may take beyond its time-out. Microseconds. */
#define GRACE (500 * FERRY_PEERS_MS)
/* An open or a close has no time-out of its own; a scribbled record may make it wait for the lock. */
#define OPEN_MAX_TIME (12 * FERRY_PEERS_S)
#define HANG (30 * FERRY_PEERS_S)

typedef struct
{
  char transport[16];
  char name[64];
  FerryMode mode;
  guint capacity;
  FerryOverflow overflow;
  guint64 seed;
  _Atomic guint32 n_open;
  _Atomic guint32 over;
  _Atomic guint64 n_scribbles;
  _Atomic guint64 n_good;
  _Atomic guint64 n_corrupt;
  _Atomic guint64 n_other;
  _Atomic gint64 longest; /* beyond the time-out, microseconds */
  char late[PEERS][200];
  char odd[PEERS][300];
} Round;

typedef struct
{
  Round *round;
  guint index;
} Task;

static FerryChannel *
open_channel (Round *self, FerryRole role, GError **error)
{
  return ferry_peers_open (self->transport, self->name, role, error, "mode", self->mode, "capacity", self->capacity,
                           "overflow", self->overflow, "codec", "raw", NULL);
}

/* One call is over: was it in time, and is the error ours? */
static void
judge (Task *task, const char *what, gint64 began, gint64 allowed, const GError *error)
{
  Round *self = task->round;
  gint64 late = g_get_monotonic_time () - began - allowed;
  gint64 longest = atomic_load (&self->longest);

  while (late > longest && !atomic_compare_exchange_weak (&self->longest, &longest, late))
    ;
  if (late > GRACE * (ferry_peers_is_sanitized () ? 8 : 1) && self->late[task->index][0] == '\0')
    g_snprintf (self->late[task->index], sizeof self->late[0], "%s took %.2f s longer than it may", what,
                (double) late / FERRY_PEERS_S);
  if (error == NULL)
    atomic_fetch_add (&self->n_good, 1);
  else if (g_error_matches (error, FERRY_ERROR, FERRY_ERROR_CORRUPT))
    atomic_fetch_add (&self->n_corrupt, 1);
  else if (error->domain == FERRY_ERROR)
    atomic_fetch_add (&self->n_other, 1);
  else
    g_snprintf (self->odd[task->index], sizeof self->odd[0], "%s: %s", what, error->message);
}

/* Reads the whole of a view: what was handed out must be there. */
static guint
read_all (FerryBuffer *buffer)
{
  gsize size;
  const guint8 *data = ferry_buffer_get_data (buffer, &size);
  guint sum = 0;

  for (gsize i = 0; i < size; i += 64)
    sum += data[i];
  if (size > 0)
    sum += data[size - 1];
  return sum;
}

static int
peer_cb (gpointer data)
{
  Task *task = data;
  Round *self = task->round;
  gboolean sends = task->index % 2 == 0;
  FerryBuffer *held[4] = { NULL };
  guint8 *payload = g_malloc0 (100000);
  FerryRandom random;
  gboolean counted = FALSE;

  ferry_random_init (&random, self->seed + task->index + 1);
  while (!atomic_load (&self->over))
    {
      g_autoptr (GError) error = NULL;
      gint64 began = g_get_monotonic_time ();
      g_autoptr (FerryChannel) channel = open_channel (self, sends ? FERRY_ROLE_SENDER : FERRY_ROLE_RECEIVER, &error);

      judge (task, "open", began, OPEN_MAX_TIME, error);
      if (!counted)
        atomic_fetch_add (&self->n_open, 1);
      counted = TRUE;
      if (channel == NULL)
        {
          g_usleep (1000);
          continue;
        }
      for (guint i = 0; i < 200 && !atomic_load (&self->over); i++)
        {
          gint64 timeout = ferry_random_below (&random, 3) * 20 * FERRY_PEERS_MS;
          guint place = ferry_random_below (&random, G_N_ELEMENTS (held));

          g_clear_error (&error);
          began = g_get_monotonic_time ();
          switch (ferry_random_below (&random, 24))
            {
            case 0:
              {
                g_autoptr (FerryStatistics) statistics = ferry_channel_get_statistics (channel, &error);
                judge (task, "get_statistics", began, 0, error);
                break;
              }
            case 1:
              {
                g_autoptr (GPtrArray) list = ferry_channel_list_participants (channel, &error);
                judge (task, "list_participants", began, 0, error);
                break;
              }
            case 2:
              ferry_channel_verify (channel, &error);
              judge (task, "verify", began, OPEN_MAX_TIME, error);
              break;
            case 3:
              ferry_channel_trim (channel);
              judge (task, "trim", began, OPEN_MAX_TIME, NULL);
              break;
            case 4:
              ferry_channel_wait (channel, sends ? G_IO_OUT : G_IO_IN, timeout, NULL, &error);
              judge (task, "wait", began, timeout, error);
              break;
            case 5:
              ferry_channel_get_fd (channel, NULL);
              ferry_channel_check (channel, sends ? G_IO_OUT : G_IO_IN);
              ferry_channel_dispatch_events (channel);
              judge (task, "check", began, 0, NULL);
              break;
            case 6:
              if (sends)
                ferry_channel_flush (channel, timeout, NULL, &error);
              judge (task, "flush", began, timeout, error);
              break;
            default:
              if (sends)
                {
                  gsize size = ferry_random_below (&random, 3) ? ferry_random_below (&random, 200)
                                                               : ferry_random_below (&random, 100000);

                  if (ferry_random_below (&random, 2))
                    {
                      g_autoptr (FerryBuffer) loan = ferry_channel_loan (channel, size, timeout, NULL, &error);

                      judge (task, "loan", began, timeout, error);
                      if (loan == NULL)
                        break;
                      if (size > 0)
                        memset (ferry_buffer_get_writable_data (loan, NULL), 1, size);
                      began = g_get_monotonic_time ();
                      ferry_channel_send_buffer (channel, loan, timeout, NULL, &error);
                      judge (task, "send_buffer", began, timeout, error);
                    }
                  else
                    {
                      ferry_channel_send (channel, payload, size, timeout, NULL, &error);
                      /* for the memory, and for the place in the ring */
                      judge (task, "send", began, 2 * timeout, error);
                    }
                }
              else
                {
                  FerryBuffer *buffer = ferry_channel_receive (channel, timeout, NULL, &error);

                  judge (task, "receive", began, timeout, error);
                  if (buffer != NULL)
                    read_all (buffer);
                  g_clear_pointer (&held[place], ferry_buffer_unref);
                  held[place] = buffer;
                }
              break;
            }
        }
      began = g_get_monotonic_time ();
      ferry_channel_close (channel, NULL);
      for (guint i = 0; i < G_N_ELEMENTS (held); i++)
        g_clear_pointer (&held[i], ferry_buffer_unref);
      judge (task, "close", began, OPEN_MAX_TIME, NULL);
    }
  g_free (payload);
  return EXIT_SUCCESS;
}

/* ---- the hostile peer ---- */

static guint64
nasty_value (FerryRandom *random, guint64 was)
{
  switch (ferry_random_below (random, 9))
    {
    case 0:
      return 0;
    case 1:
      return G_MAXUINT64;
    case 2:
      return was + 1;
    case 3:
      return was - 1;
    case 4:
      return was ^ (G_GUINT64_CONSTANT (1) << ferry_random_below (random, 64));
    case 5:
      return ferry_random_below (random, 256);
    case 6: /* another state, owner or lap */
      return (was & ~G_GUINT64_CONSTANT (0xffff)) | (ferry_random_next (random) & 0xffff);
    case 7:
      return was + (G_GUINT64_CONSTANT (1) << 16);
    default:
      return ferry_random_next (random);
    }
}

static void
scribble (guint8 *control, const FerrySegmentHeader *header, FerryRandom *random)
{
  guint64 arena = FERRY_OFFSET_RING + (guint64) header->ring_slots * header->slot_stride;
  guint64 slot = FERRY_OFFSET_RING + (guint64) ferry_random_below (random, header->ring_slots) * header->slot_stride;
  guint64 record = FERRY_OFFSET_PARTICIPANTS + (guint64) ferry_random_below (random, 12) * FERRY_PARTICIPANT_STRIDE;
  guint64 offset;
  guint64 value;

  switch (ferry_random_below (random, 14))
    {
    case 0:
      offset = ferry_random_below (random, sizeof *header / 8) * 8;
      break;
    case 1:
      offset = FERRY_OFFSET_TAIL;
      break;
    case 2:
      offset = FERRY_OFFSET_HEAD;
      break;
    case 3:
      offset = (ferry_random_below (random, 2) ? FERRY_OFFSET_RX_SLEEPING : FERRY_OFFSET_TX_SLEEPING)
               + ferry_random_below (random, 8) * 8;
      break;
    case 4: /* flags, epoch, number of records, sums */
      offset = FERRY_OFFSET_SHARED + ferry_random_below (random, sizeof (FerrySegmentShared) / 8) * 8;
      break;
    case 5:
      offset = FERRY_OFFSET_CLASSES + ferry_random_below (random, FERRY_N_CLASSES / 2) * 8;
      break;
    case 6:
    case 7:
      offset = record + ferry_random_below (random, FERRY_PARTICIPANT_STRIDE / 8) * 8;
      break;
    case 8:
    case 9: /* a slot's word */
      offset = slot;
      break;
    case 10:
    case 11: /* its fields */
      offset = slot + ferry_random_below (random, FERRY_SLOT_HEADER / 8) * 8;
      break;
    case 12: /* bitmap and descriptors of the smallest class */
      {
        guint64 bitmap = (arena + 4095) & ~G_GUINT64_CONSTANT (4095);
        guint64 bitmap_size = (FERRY_MAX_BLOCKS / 8 + 4095) & ~G_GUINT64_CONSTANT (4095);

        offset
            = ferry_random_below (random, 4) == 0 ? bitmap : bitmap + bitmap_size + ferry_random_below (random, 64) * 8;
        break;
      }
    default:
      if (ferry_random_below (random, 20) == 0) /* a whole page */
        {
          guint64 page = ferry_random_below (random, (guint) ((arena + 3 * 65536) / 4096)) * 4096;

          for (guint i = 0; i < 4096; i += 8)
            {
              value = ferry_random_next (random);
              memcpy (control + page + i, &value, 8);
            }
          return;
        }
      offset = (ferry_random_next (random) % (arena + 65536)) & ~G_GUINT64_CONSTANT (7);
      break;
    }
  memcpy (&value, control + offset, 8);
  value = nasty_value (random, value);
  __atomic_store_n ((guint64 *) (void *) (control + offset), value, __ATOMIC_SEQ_CST);
}

static int
hostile_cb (gpointer data)
{
  Round *self = data;
  g_autoptr (GError) error = NULL;
  g_autoptr (FerryChannel) channel = open_channel (self, FERRY_ROLE_SENDER, &error);
  FerrySegmentHeader header;
  FerryRandom random;
  guint8 *control;
  int fd;

  if (channel == NULL)
    {
      g_printerr ("scribble: %s\n", error->message);
      return EXIT_FAILURE;
    }
  fd = ferry_segment_transport_get_control_fd (FERRY_SEGMENT_TRANSPORT (ferry_channel_get_transport_object (channel)));
  if (pread (fd, &header, sizeof header, 0) != sizeof header)
    return EXIT_FAILURE;
  control = mmap (NULL, header.control_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (control == MAP_FAILED)
    return EXIT_FAILURE;
  atomic_fetch_add (&self->n_open, 1);
  while (atomic_load (&self->n_open) < PEERS + 1)
    g_usleep (300);
  ferry_random_init (&random, self->seed);
  g_usleep (5000);
  while (!atomic_load (&self->over))
    {
      for (guint i = 1 + ferry_random_below (&random, 6); i > 0; i--)
        {
          scribble (control, &header, &random);
          atomic_fetch_add (&self->n_scribbles, 1);
        }
      /* Some time to get on in between: states that only work leads to. */
      g_usleep (ferry_random_below (&random, 3000));
    }
  raise (SIGKILL); /* it leaves no better than it came */
  return EXIT_SUCCESS;
}

static guint64 total_scribbles;
static guint64 total_good;
static guint64 total_corrupt;
static guint64 total_other;
static gint64 total_longest;

static void
run_round (Round *self, guint number, FerryRandom *random)
{
  g_autoptr (GString) trouble = g_string_new (NULL);
  pid_t pids[PEERS];
  pid_t hostile;
  int status;

  memset (self, 0, sizeof *self);
  g_strlcpy (self->transport, number % 2 ? "memfd" : "posix-shm", sizeof self->transport);
  self->mode = number / 2 % 2 ? FERRY_MODE_BROADCAST : FERRY_MODE_WORK_QUEUE;
  self->capacity = 1 + ferry_random_below (random, 16);
  self->overflow = (FerryOverflow) ferry_random_below (random, 4);
  self->seed = ferry_random_next (random);
  g_snprintf (self->name, sizeof self->name, "scribble-%u", number);

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
      gboolean in_time = ferry_peers_wait (pids[i], HANG, &status);

      if (!in_time || !ferry_peers_ended_well (status))
        g_string_append_printf (trouble, "; peer %u (%s): %s", i, i % 2 ? "receiver" : "sender",
                                in_time ? ferry_peers_tell_end (status) : "hung");
      if (self->late[i][0] != '\0')
        g_string_append_printf (trouble, "; peer %u: %s", i, self->late[i]);
      if (self->odd[i][0] != '\0')
        g_string_append_printf (trouble, "; peer %u: no error of Ferry's: %s", i, self->odd[i]);
    }
  ferry_peers_wait (hostile, 5 * FERRY_PEERS_S, &status);
  if (trouble->len > 0)
    ferry_peers_report (FALSE, "%s, %s, capacity %u, overflow %d, round %u%s", self->transport,
                        self->mode == FERRY_MODE_BROADCAST ? "broadcast" : "work queue", self->capacity, self->overflow,
                        number, trouble->str);
  else
    ferry_peers_report (TRUE, "%s, %s, capacity %u, overflow %d", self->transport,
                        self->mode == FERRY_MODE_BROADCAST ? "broadcast" : "work queue", self->capacity,
                        self->overflow);
  total_scribbles += self->n_scribbles;
  total_good += self->n_good;
  total_corrupt += self->n_corrupt;
  total_other += self->n_other;
  total_longest = MAX (total_longest, self->longest);
  /* A broken segment may keep its name; it is the next opener's matter only when it is sound. */
  ferry_peers_sweep_names ();
}

/* ---- attaching to garbage ---- */

typedef struct
{
  const char *what;
  guint code; /* the error that must come, or G_MAXUINT: any, or success */
  gboolean memfd;
  gsize size; /* of the garbage; 0: a channel of old, altered */
  guint64 seed;
  guint field; /* altered, in words of 32 bits; G_MAXUINT: all is random */
  guint32 value;
  gint64 truncate; /* to that many bytes; -1: to one page less */
  int seals;
  char trouble[400];
  guint result;
} Garbage;

static int
make_garbage (const Garbage *self, const char *path, int *control_fd, int *data_fd)
{
  FerryRandom random;
  guint8 page[4096];
  int fd = self->memfd ? memfd_create ("garbage", MFD_CLOEXEC | MFD_ALLOW_SEALING)
                       : open (path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

  if (fd < 0)
    return -1;
  ferry_random_init (&random, self->seed);
  for (gsize at = 0; at < self->size; at += sizeof page)
    {
      for (guint i = 0; i < sizeof page; i++)
        page[i] = (guint8) ferry_random_next (&random);
      if (write (fd, page, MIN (sizeof page, self->size - at)) < 0)
        return -1;
    }
  if (self->memfd)
    {
      if (self->seals != 0 && fcntl (fd, F_ADD_SEALS, self->seals) != 0)
        return -1;
      *control_fd = *data_fd = fd;
    }
  return fd;
}

/* Opens, and if that succeeds uses, what lies there. */
static int
try_cb (gpointer data)
{
  Garbage *self = data;
  g_autoptr (GError) error = NULL;
  g_autoptr (FerryChannel) maker = NULL;
  g_autoptr (FerryChannel) channel = NULL;
  g_autofree char *path = g_strdup_printf ("%s/ferry-garbage", g_getenv ("FERRY_SHM_DIR"));
  int control_fd = -1;
  int data_fd = -1;
  FerryRole role = self->seed % 2 ? FERRY_ROLE_SENDER : FERRY_ROLE_RECEIVER;
  gint64 began;

  if (self->size > 0)
    {
      if (make_garbage (self, path, &control_fd, &data_fd) < 0)
        {
          g_snprintf (self->trouble, sizeof self->trouble, "can't make garbage: %s", g_strerror (errno));
          return EXIT_FAILURE;
        }
    }
  else
    {
      int fd;

      maker = ferry_peers_open (self->memfd ? "memfd" : "posix-shm", self->memfd ? NULL : "garbage", FERRY_ROLE_SENDER,
                                &error, "codec", "raw", "mode",
                                self->seed / 2 % 2 ? FERRY_MODE_BROADCAST : FERRY_MODE_WORK_QUEUE, NULL);
      if (maker == NULL)
        {
          g_snprintf (self->trouble, sizeof self->trouble, "can't make a channel: %s", error->message);
          return EXIT_FAILURE;
        }
      for (guint i = 0; i < 6; i++)
        ferry_channel_send (maker, (const guint8 *) path, i % 2 ? 20 : 0, FERRY_NO_WAIT, NULL, NULL);
      fd = ferry_segment_transport_get_control_fd (
          FERRY_SEGMENT_TRANSPORT (ferry_channel_get_transport_object (maker)));
      if (self->truncate != 0)
        {
          struct stat st;

          fstat (fd, &st);
          if (ftruncate (fd, self->truncate > 0 ? self->truncate : st.st_size - 4096) != 0)
            g_snprintf (self->trouble, sizeof self->trouble, "truncate: %s", g_strerror (errno));
        }
      else if (pwrite (fd, &self->value, sizeof self->value, self->field * sizeof self->value) < 0)
        {
          return EXIT_FAILURE;
        }
      control_fd = fd;
      data_fd
          = ferry_segment_transport_get_data_fd (FERRY_SEGMENT_TRANSPORT (ferry_channel_get_transport_object (maker)));
    }

  began = g_get_monotonic_time ();
  if (self->memfd)
    {
      g_autofree char *text
          = g_strdup_printf ("memfd control-fd=%d data-fd=%d open-mode=join ! raw", control_fd, data_fd);

      channel = ferry_channel_new_from_description (text, role, &error);
      if (channel != NULL && !ferry_channel_open (channel, NULL, &error))
        g_clear_object (&channel);
    }
  else
    {
      channel = ferry_peers_open ("posix-shm", "garbage", role, &error, "codec", "raw", "open-mode",
                                  FERRY_OPEN_MODE_JOIN, NULL);
    }
  if (channel != NULL)
    {
      for (guint i = 0; i < 4; i++)
        {
          g_autoptr (FerryBuffer) buffer = NULL;

          if (role == FERRY_ROLE_SENDER)
            ferry_channel_send (channel, (const guint8 *) path, 10, 10 * FERRY_PEERS_MS, NULL, NULL);
          else
            buffer = ferry_channel_receive (channel, 10 * FERRY_PEERS_MS, NULL, NULL);
        }
      ferry_channel_close (channel, NULL);
    }
  if (g_get_monotonic_time () - began > 2 * FERRY_PEERS_S * (ferry_peers_is_sanitized () ? 8 : 1))
    g_snprintf (self->trouble, sizeof self->trouble, "took %.1f s",
                (double) (g_get_monotonic_time () - began) / FERRY_PEERS_S);
  self->result = error == NULL ? G_MAXUINT : (guint) error->code;
  if (error != NULL && error->domain != FERRY_ERROR)
    g_snprintf (self->trouble, sizeof self->trouble, "no error of Ferry's: %s", error->message);
  else if (self->code != G_MAXUINT && self->result != self->code)
    g_snprintf (self->trouble, sizeof self->trouble, "expected error %u, got %s", self->code,
                error != NULL ? error->message : "none");
  /* What was cut off from under it can't be left in order, by nobody. */
  if (self->truncate != 0)
    _exit (EXIT_SUCCESS);
  return EXIT_SUCCESS;
}

/* Whether it went well; else it is reported. */
static gboolean
try_garbage (Garbage *self, const Garbage *what)
{
  int status;
  pid_t pid;
  gboolean in_time;

  *self = *what;
  pid = ferry_peers_fork (try_cb, self);
  in_time = ferry_peers_wait (pid, HANG, &status);
  ferry_peers_sweep_names ();
  if (in_time && ferry_peers_ended_well (status) && self->trouble[0] == '\0')
    return TRUE;
  ferry_peers_report (FALSE, "%s, %s, field %u, value %u: %s %s", what->what, what->memfd ? "memfd" : "posix-shm",
                      what->field, what->value, in_time ? ferry_peers_tell_end (status) : "hung", self->trouble);
  return FALSE;
}

static void
fuzz_opening (FerryRandom *random)
{
  static const guint field_version = G_STRUCT_OFFSET (FerrySegmentHeader, major) / 4;
  static const guint field_features = G_STRUCT_OFFSET (FerrySegmentHeader, features) / 4;
  Garbage *shared = ferry_peers_share (sizeof (Garbage), NULL);
  const Garbage known[] = {
    { "an empty file", FERRY_ERROR_CORRUPT, FALSE, 1, 1, G_MAXUINT, 0, 0, 0, "", 0 },
    { "a short file", FERRY_ERROR_CORRUPT, FALSE, 100, 2, G_MAXUINT, 0, 0, 0, "", 0 },
    { "a file of garbage", FERRY_ERROR_CORRUPT, FALSE, 1 << 20, 3, G_MAXUINT, 0, 0, 0, "", 0 },
    { "an unsealed memfd", FERRY_ERROR_CORRUPT, TRUE, 1 << 20, 4, G_MAXUINT, 0, 0, 0, "", 0 },
    { "a sealed memfd of garbage", FERRY_ERROR_CORRUPT, TRUE, 1 << 20, 5, G_MAXUINT, 0, 0,
      F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL, "", 0 },
    { "a short memfd", FERRY_ERROR_CORRUPT, TRUE, 64, 6, G_MAXUINT, 0, 0, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL, "",
      0 },
    { "another magic", FERRY_ERROR_CORRUPT, FALSE, 0, 7, 0, 12345, 0, 0, "", 0 },
    { "another magic", FERRY_ERROR_CORRUPT, TRUE, 0, 8, 0, 12345, 0, 0, "", 0 },
    { "another version", FERRY_ERROR_VERSION, FALSE, 0, 9, field_version, FERRY_SEGMENT_MAJOR + 1, 0, 0, "", 0 },
    { "another version", FERRY_ERROR_VERSION, TRUE, 0, 10, field_version, FERRY_SEGMENT_MAJOR + 1, 0, 0, "", 0 },
    { "an unknown feature", FERRY_ERROR_VERSION, FALSE, 0, 11, field_features, 1u << 31, 0, 0, "", 0 },
    { "truncated to nothing", FERRY_ERROR_CORRUPT, FALSE, 0, 12, 0, 0, 10, 0, "", 0 },
    { "truncated to the header", FERRY_ERROR_CORRUPT, FALSE, 0, 13, 0, 0, 4096, 0, "", 0 },
    { "truncated in the ring", FERRY_ERROR_CORRUPT, FALSE, 0, 14, 0, 0, FERRY_OFFSET_RING + 100, 0, "", 0 },
    { "truncated by a page", FERRY_ERROR_CORRUPT, FALSE, 0, 15, 0, 0, -1, 0, "", 0 },
  };
  guint n_fuzz = ferry_peers_is_thorough () ? FUZZ_THOROUGH : FUZZ_DEFAULT;
  guint n_opened = 0;
  guint n_failed = 0;

  for (guint i = 0; i < G_N_ELEMENTS (known); i++)
    if (try_garbage (shared, &known[i]))
      ferry_peers_report (TRUE, "%s, %s", known[i].what, known[i].memfd ? "memfd" : "posix-shm");

  if (ferry_peers_is_sanitized ())
    n_fuzz /= 8;
  for (guint i = 0; i < n_fuzz; i++)
    {
      Garbage garbage = { .what = "an altered header",
                          .code = G_MAXUINT,
                          .memfd = i % 2,
                          .seed = ferry_random_next (random),
                          .field = i / 2 % (sizeof (FerrySegmentHeader) / 4) };

      /* The first time round each field once as nothing and once as everything. */
      switch (i / 2 / (guint) (sizeof (FerrySegmentHeader) / 4))
        {
        case 0:
          garbage.value = 0;
          break;
        case 1:
          garbage.value = G_MAXUINT32;
          break;
        default:
          garbage.value = (guint32) nasty_value (random, ferry_random_below (random, 4096));
          break;
        }
      n_failed += !try_garbage (shared, &garbage);
      n_opened += shared->result == G_MAXUINT;
    }
  ferry_peers_report (n_failed == 0, "%u altered headers, with %u of which the channel opened", n_fuzz, n_opened);
}

int
main (int argc, char **argv)
{
  Round *round;
  FerryRandom random;
  gint64 end;
  guint number = 0;

  ferry_peers_setup (argc, argv);
  g_unsetenv ("G_DEBUG");
  ferry_random_init (&random, ferry_peers_seed ());
  round = ferry_peers_share (sizeof *round, NULL);
  fuzz_opening (&random);
  end = g_get_monotonic_time () + (ferry_peers_is_thorough () ? TIME_THOROUGH : TIME_DEFAULT);
  while (g_get_monotonic_time () < end)
    run_round (round, number++, &random);
  ferry_peers_note ("%" G_GUINT64_FORMAT " scribbles; calls: %" G_GUINT64_FORMAT " good, %" G_GUINT64_FORMAT
                    " corrupt, %" G_GUINT64_FORMAT " other errors; the latest %.3f s after its time-out",
                    total_scribbles, total_good, total_corrupt, total_other, (double) total_longest / FERRY_PEERS_S);
  return ferry_peers_finish ();
}
