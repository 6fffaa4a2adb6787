/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Sleeping and waking of docs/memory-model.md, section 6. */

#include "ferry-segment-private.h"

#include "ferry-error.h"

#include <errno.h>
#include <sched.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

/* The longest spin: what a futex wake-up costs here several times over, so that a peer that answers after having
 * been woken itself is still met spinning. Nanoseconds. */
#define SPIN_MAX_NS (100000)
/* Who never sleeps looks this often for what no message tells: nanoseconds. */
#define SPIN_SLICE_NS (5 * 1000 * 1000)
/* A spin is worth while for a few times the mean wait. */
#define SPIN_FACTOR (4)
#define SPIN_MIN_NS (2000)
/* Weight of a new wait in the moving average: 1 / 8. */
#define MEAN_SHIFT (3)
/* Waits that are too long to spin for may be so only because the peer sleeps too: two that answer each other would
 * sleep for ever. Now and then one of them spins all the same, more often when it is a near thing. */
#define PROBE_OFTEN_NS (300000)
#define PROBE_OFTEN (4)
#define PROBE_SELDOM (32)
/* After that much spinning the processor is offered to others, again and again. Nanoseconds. */
#define YIELD_AFTER_NS (4000)
/* Looks at the ring between two looks at the clock. */
#define SPIN_BATCH (16)
/* Who waits for longer than a quick answer takes looks less often, every 1 / 5 of the mean wait or so: each look takes cache
 * lines away from the peer that prepares the message. A pause takes some 50 ns; their number is the mean wait >> SHIFT. */
#define QUICK_WAIT_NS (1000)
#define PAUSES_SHIFT (8)
#define PAUSES_MAX (16)
/* The delay before the first look counts in parts of a pause, and has at most so many pauses. So many answers that are
 * there at the first look, one after the other, are a stream. */
#define DELAY_PARTS (4)
#define DELAY_MAX (24)
#define STREAM_ANSWERS (8)
/* Of waits that are quicker than QUICK_WAIT_NS, one in so many is timed. */
#define LEARN_INTERVAL (8)
/* A spinner that finds what it waits for at the first looks is on the heels of a stream: each of its looks takes the
 * cache line away from the peer that is writing it. It then holds back for up to so many pauses (of some 50 ns), in
 * which the peer gets ahead by a few messages; a peer that answers, as in request and reply, takes longer
 * than the first looks, and is looked for at once. */
#define BACKOFF_MAX (16)
#define FEW_LOOKS (2)
#define MANY_LOOKS (6)

/* The longest sleep in one piece; then upkeep is done. With the interval it makes 0.7 s in which a death is noticed for
 * sure. Microseconds. */
#define SLEEP_MAX_US (400 * 1000)
/* The same where nothing is in anybody's hands, so that no death holds us up: a sender's next message wakes us. What
 * is left to notice is who is gone, and a wake-up that died with its waker. It is all that an idle endpoint ever does. */
#define IDLE_SLEEP_MAX_US (700 * 1000)
/* Waiting for a flush looks more often: the wake-up comes only when the ring is empty. */
#define FLUSH_SLEEP_MAX_US (5 * 1000)
#define UPKEEP_INTERVAL_US (300 * 1000)
/* Who has the lock for longer is probably at the same work, or stopped; our caller's time-out goes on. */
#define UPKEEP_PATIENCE_US (10 * 1000)
/* Blocks idle for longer are given back. To touch them again costs far more than to copy: seconds a gigabyte on some virtual machines. */
#define IDLE_US (5 * G_USEC_PER_SEC)
/* The pollable descriptor's timer, for upkeep. */
#define TIMER_NS (500 * 1000 * 1000)

gint64
ferry_waiter_now (void)
{
  struct timespec now;

  clock_gettime (CLOCK_MONOTONIC, &now);
  return (gint64) now.tv_sec * 1000000000 + now.tv_nsec;
}

/* Not the CPUs that this process may use: a peer may be pinned to another one. */
static gboolean
ferry_waiter_single_cpu (void)
{
  static gsize single = 0;

  if (g_once_init_enter (&single))
    g_once_init_leave (&single, sysconf (_SC_NPROCESSORS_ONLN) == 1 ? 1 : 2);
  return single == 1;
}

/* Private: whether it is any use to wait without sleeping. */
gboolean
ferry_waiter_may_spin (FerrySegment *self)
{
  return self->wait_strategy != FERRY_WAIT_STRATEGY_SLEEP && !ferry_waiter_single_cpu ();
}

/* Private: who waits for answers that come quickly does not look before they are about to come: each look takes the cache line
 * away from the peer, who then has to wait for it twice, to claim the slot and to commit. */
void
ferry_waiter_expect_answer (guint delay)
{
  for (guint i = 0; i < delay / DELAY_PARTS; i++)
    ferry_waiter_relax ();
}

/* Private: the answer was there at the first look. A little earlier the next time; much earlier if it is none, but a stream. */
void
ferry_waiter_answer_came (FerrySegment *self, guint delay)
{
  guint n = atomic_load_explicit (&self->n_answers, memory_order_relaxed) + 1;

  atomic_store_explicit (&self->n_answers, n, memory_order_relaxed);
  atomic_store_explicit (&self->answer_delay, n < STREAM_ANSWERS ? delay - 1 : delay / 2, memory_order_relaxed);
}

/* It came so many looks later. */
static void
answer_was_late (FerrySegment *self, guint looks)
{
  guint delay = atomic_load_explicit (&self->answer_delay, memory_order_relaxed);

  atomic_store_explicit (&self->n_answers, 0, memory_order_relaxed);
  atomic_store_explicit (&self->answer_delay, MIN (delay + MAX (looks, 2), DELAY_MAX * DELAY_PARTS),
                         memory_order_relaxed);
}

/* Private: what a wait took that began then. To look at the clock takes a tenth of the way of a small message, so while
 * answers are quick only some waits are timed. (At the heels of a stream the time is well spent: the sender gets ahead.) */
void
ferry_waiter_learn_since (FerrySegment *self, gint64 started, gboolean slept)
{
  guint n = atomic_load_explicit (&self->n_quick_waits, memory_order_relaxed);

  if (!slept && atomic_load_explicit (&self->mean_wait, memory_order_relaxed) < QUICK_WAIT_NS
      && atomic_load_explicit (&self->backoff, memory_order_relaxed) == 0)
    {
      atomic_store_explicit (&self->n_quick_waits, n + 1, memory_order_relaxed);
      if (n % LEARN_INTERVAL != 0)
        return;
    }
  ferry_waiter_learn (self, ferry_waiter_now () - started);
}

/* Private: what a wait took, in ns, with or without sleep. */
void
ferry_waiter_learn (FerrySegment *self, gint64 waited)
{
  gint64 mean = atomic_load_explicit (&self->mean_wait, memory_order_relaxed);

  waited = MIN (waited, 4 * SPIN_MAX_NS);
  mean += (waited - mean) >> MEAN_SHIFT;
  atomic_store_explicit (&self->mean_wait, mean, memory_order_relaxed);
}

/* Private: spins until ready() holds. FALSE when it is time to sleep. @started and @deadline in ns. */
gboolean
ferry_waiter_spin (FerrySegment *self, FerryReadyFunc ready, gpointer data, gint64 started, gint64 deadline)
{
  gint64 mean = atomic_load_explicit (&self->mean_wait, memory_order_relaxed);
  gint64 limit;
  guint pauses = mean < QUICK_WAIT_NS ? 1 : (guint) MIN (mean >> PAUSES_SHIFT, PAUSES_MAX);
  gboolean forever = self->wait_strategy == FERRY_WAIT_STRATEGY_SPIN;
  guint backoff = atomic_load_explicit (&self->backoff, memory_order_relaxed);
  guint looks = 0;

  switch (self->wait_strategy)
    {
    case FERRY_WAIT_STRATEGY_SLEEP:
      return FALSE;
    case FERRY_WAIT_STRATEGY_SPIN:
      limit = SPIN_SLICE_NS; /* then the caller does upkeep, looks whether it is cancelled, and comes again */
      break;
    case FERRY_WAIT_STRATEGY_ADAPTIVE:
    default:
      if (ferry_waiter_single_cpu ())
        return FALSE;
      if (mean > SPIN_MAX_NS)
        {
          guint interval = mean > PROBE_OFTEN_NS ? PROBE_SELDOM : PROBE_OFTEN;

          if (atomic_fetch_add_explicit (&self->probe, 1, memory_order_relaxed) % interval != 0)
            return FALSE;
        }
      limit = CLAMP (mean * SPIN_FACTOR, SPIN_MIN_NS, SPIN_MAX_NS);
      break;
    }

  for (guint i = 0; i < backoff; i++)
    ferry_waiter_relax ();
  for (;;)
    {
      gint64 now;

      for (guint i = 0; i < SPIN_BATCH; i++)
        {
          if (ready (self, data))
            {
              if (mean < QUICK_WAIT_NS && backoff == 0
                  && (looks > MANY_LOOKS || atomic_load_explicit (&self->answer_delay, memory_order_relaxed) > 0))
                answer_was_late (self, looks);
              else if (looks < FEW_LOOKS)
                backoff = MIN (2 * backoff + 1, BACKOFF_MAX);
              else if (looks > MANY_LOOKS)
                backoff /= 2;
              atomic_store_explicit (&self->backoff, backoff, memory_order_relaxed);
              return TRUE;
            }
          looks++;
          for (guint p = 0; p < pauses; p++)
            ferry_waiter_relax ();
        }
      now = ferry_waiter_now ();
      if (now - started > limit || (deadline >= 0 && now >= deadline))
        return FALSE;
      if (atomic_load_explicit (&self->closed, memory_order_relaxed))
        return TRUE;
      if (now - started > YIELD_AFTER_NS && !forever)
        sched_yield ();
    }
}

static _Atomic guint64 *
ferry_waiter_bitmap (FerrySegment *self, FerrySide side)
{
  switch (side)
    {
    case FERRY_SIDE_RX:
      return self->rx_sleeping;
    case FERRY_SIDE_TX:
      return self->tx_sleeping;
    case FERRY_SIDE_FLUSH:
    default:
      return self->flush_sleeping;
    }
}

static inline guint64
ferry_waiter_bit (FerrySegment *self)
{
  return G_GUINT64_CONSTANT (1) << (self->id % 64);
}

/* Private: announces that we are about to sleep. The caller checks its condition once more
 * afterwards, then calls ferry_waiter_sleep() with what this returned, or not, and
 * ferry_waiter_finish() in any case. */
guint32
ferry_waiter_prepare (FerrySegment *self, FerrySide side)
{
  guint32 seen = atomic_load_explicit (&self->me->wake, memory_order_acquire);

  g_mutex_lock (&self->sleep_mutex);
  self->n_sleepers[side]++;
  atomic_fetch_or_explicit (&ferry_waiter_bitmap (self, side)[self->id / 64], ferry_waiter_bit (self),
                            memory_order_seq_cst);
  g_mutex_unlock (&self->sleep_mutex);
  /* Pairs with the barrier of whoever changes the ring (atomic_exchange in ferry_ring_send(), CAS in
   * ferry_ring_take()). */
  atomic_thread_fence (memory_order_seq_cst);
  FERRY_STEP ("wait-announced");
  return seen;
}

/* Private: sleeps until woken, the deadline (ns; negative: none) or the next upkeep. @idle: nothing is in anybody's
 * hands. */
void
ferry_waiter_sleep (FerrySegment *self, guint32 seen, gint64 deadline, gboolean idle)
{
  gint64 timeout = idle ? IDLE_SLEEP_MAX_US : SLEEP_MAX_US;

  if (deadline >= 0)
    {
      gint64 left = (deadline - ferry_waiter_now () + 999) / 1000;

      timeout = CLAMP (left, 0, timeout);
    }
  if (timeout > 0)
    self->klass->wait_word (self->transport, (guint32 *) (void *) &self->me->wake, seen, timeout);
}

/* Private: undoes ferry_waiter_prepare(). TRUE when somebody had taken our bit to wake us. */
gboolean
ferry_waiter_finish (FerrySegment *self, FerrySide side)
{
  gboolean woken = FALSE;

  g_mutex_lock (&self->sleep_mutex);
  self->n_sleepers[side]--;
  if (self->n_sleepers[side] == 0 && !atomic_load_explicit (&self->me->doorbell, memory_order_relaxed))
    {
      guint64 before = atomic_fetch_and_explicit (&ferry_waiter_bitmap (self, side)[self->id / 64],
                                                  ~ferry_waiter_bit (self), memory_order_seq_cst);
      woken = (before & ferry_waiter_bit (self)) == 0;
    }
  else
    {
      woken = (atomic_load_explicit (&ferry_waiter_bitmap (self, side)[self->id / 64], memory_order_seq_cst)
               & ferry_waiter_bit (self))
              == 0;
    }
  g_mutex_unlock (&self->sleep_mutex);
  return woken;
}

/* The socket of a participant. Nothing of the name comes from shared memory but numbers: a hostile
 * peer must not make us ring at somebody else's door. */
static socklen_t
ferry_waiter_door (FerrySegment *self, guint id, guint32 incarnation, struct sockaddr_un *address)
{
  char hex[2 * sizeof self->identity + 1];
  int length;

  for (guint i = 0; i < sizeof self->identity; i++)
    g_snprintf (hex + 2 * i, 3, "%02x", self->identity[i]);
  memset (address, 0, sizeof *address);
  address->sun_family = AF_UNIX;
  length = g_snprintf (address->sun_path + 1, sizeof address->sun_path - 1, "ferry-%s-%u-%u", hex, id, incarnation);
  return (socklen_t) (offsetof (struct sockaddr_un, sun_path) + 1 + length);
}

static void
ferry_waiter_ring (FerrySegment *self, guint id, guint32 incarnation)
{
  struct sockaddr_un address;
  socklen_t length = ferry_waiter_door (self, id, incarnation, &address);
  int fd = self->doorbell_fd;
  gboolean own = fd >= 0;

  if (!own)
    fd = socket (AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0)
    return; /* out of descriptors: the other one's timer will do */
  while (sendto (fd, "", 1, MSG_DONTWAIT | MSG_NOSIGNAL, (struct sockaddr *) &address, length) < 0 && errno == EINTR)
    ;
  if (!own)
    close (fd);
}

/* Wakes the participant if its bit is still set. */
static gboolean
ferry_waiter_wake_bit (FerrySegment *self, _Atomic guint64 *bitmap, guint id)
{
  FerryParticipantRecord *record = &self->records[id];
  guint64 bit = G_GUINT64_CONSTANT (1) << (id % 64);

  if (!(atomic_fetch_and_explicit (&bitmap[id / 64], ~bit, memory_order_seq_cst) & bit))
    return FALSE;
  FERRY_STEP ("wake-claimed");
  atomic_fetch_add_explicit (&record->wake, 1, memory_order_seq_cst);
  FERRY_STEP ("wake-counted");
  self->klass->wake_word (self->transport, (guint32 *) (void *) &record->wake, G_MAXINT);
  if (atomic_load_explicit (&record->doorbell, memory_order_seq_cst)
      && atomic_exchange_explicit (&record->doorbell, 0, memory_order_seq_cst))
    ferry_waiter_ring (self, id, ferry_record_incarnation (atomic_load_explicit (&record->word, memory_order_acquire)));
  return TRUE;
}

/* Private: wakes one sleeper; the search begins behind us so that all get their turn. */
void
ferry_waiter_wake_one (FerrySegment *self, FerrySide side)
{
  _Atomic guint64 *bitmap = ferry_waiter_bitmap (self, side);
  static __thread guint turn;

  for (guint i = 0; i <= FERRY_BITMAP_WORDS; i++)
    {
      guint word = (turn / 64 + i) % FERRY_BITMAP_WORDS;
      guint64 bits = atomic_load_explicit (&bitmap[word], memory_order_seq_cst);

      if (i == 0)
        bits &= ~G_GUINT64_CONSTANT (0) << (turn % 64);
      while (bits != 0)
        {
          guint id = word * 64 + __builtin_ctzll (bits);

          bits &= bits - 1;
          if (ferry_waiter_wake_bit (self, bitmap, id))
            {
              turn = (id + 1) % FERRY_MAX_PARTICIPANTS;
              return;
            }
        }
    }
}

/* Private: wakes a receiver that sleeps, for a message that is about to be sent. By who is no participant, whose death nobody
 * repairs: the bit stays, so that the message itself wakes whoever needs it. */
void
ferry_waiter_wake_early (FerrySegment *self)
{
  for (guint word = 0; word < FERRY_BITMAP_WORDS; word++)
    {
      guint64 bits = atomic_load_explicit (&self->rx_sleeping[word], memory_order_seq_cst);
      FerryParticipantRecord *record;

      if (bits == 0)
        continue;
      record = &self->records[word * 64 + __builtin_ctzll (bits)];
      atomic_fetch_add_explicit (&record->wake, 1, memory_order_seq_cst);
      self->klass->wake_word (self->transport, (guint32 *) (void *) &record->wake, G_MAXINT);
      return;
    }
}

/* Private: wakes all sleepers of one side. */
void
ferry_waiter_wake_all (FerrySegment *self, FerrySide side)
{
  _Atomic guint64 *bitmap = ferry_waiter_bitmap (self, side);

  for (guint word = 0; word < FERRY_BITMAP_WORDS; word++)
    {
      guint64 bits = atomic_load_explicit (&bitmap[word], memory_order_seq_cst);

      while (bits != 0)
        {
          ferry_waiter_wake_bit (self, bitmap, word * 64 + __builtin_ctzll (bits));
          bits &= bits - 1;
        }
    }
}

/* Private: wakes every participant, whether its bit is set or not: a waker may have died between taking a bit and
 * waking. */
void
ferry_waiter_wake_everybody (FerrySegment *self)
{
  for (guint id = 0; id < ferry_segment_n_records (self); id++)
    {
      FerryParticipantRecord *record = &self->records[id];
      guint64 word = atomic_load_explicit (&record->word, memory_order_acquire);

      if (ferry_record_state (word) == FERRY_RECORD_FREE)
        continue;
      atomic_fetch_add_explicit (&record->wake, 1, memory_order_seq_cst);
      self->klass->wake_word (self->transport, (guint32 *) (void *) &record->wake, G_MAXINT);
      if (atomic_exchange_explicit (&record->doorbell, 0, memory_order_seq_cst))
        ferry_waiter_ring (self, id, ferry_record_incarnation (word));
    }
}

/* Private: lets the threads that sleep in this endpoint check again. */
void
ferry_waiter_wake_self (FerrySegment *self)
{
  if (self->me == NULL)
    return;
  atomic_fetch_add_explicit (&self->me->wake, 1, memory_order_seq_cst);
  self->klass->wake_word (self->transport, (guint32 *) (void *) &self->me->wake, G_MAXINT);
  if (self->doorbell_fd >= 0)
    ferry_waiter_ring (self, self->id, self->incarnation);
}

/* Private: now and then: who died, what is idle? */
void
ferry_waiter_upkeep (FerrySegment *self, gboolean now)
{
  gint64 time = g_get_monotonic_time ();
  gint64 last = atomic_load_explicit (&self->last_upkeep, memory_order_relaxed);

  if (!now && time - last < UPKEEP_INTERVAL_US)
    return;
  if (!atomic_compare_exchange_strong_explicit (&self->last_upkeep, &last, time, memory_order_relaxed,
                                                memory_order_relaxed))
    return;
  ferry_segment_repair_dead (self, UPKEEP_PATIENCE_US);
  /* Two reclaimers may each have left the last step to the other. */
  if (self->mode == FERRY_MODE_BROADCAST)
    ferry_ring_reclaim (self);
  if (self->data_writable && atomic_load_explicit (&self->shared->bytes_committed, memory_order_relaxed) > 0)
    {
      gint64 idle_before = time - IDLE_US;
      gboolean any = FALSE;

      /* A look without the lock first: nothing to do is the usual case. */
      for (guint klass = 0; klass < FERRY_N_CLASSES && !any; klass++)
        {
          guint n = MIN (atomic_load_explicit (&self->class_used[klass], memory_order_acquire),
                         self->classes[klass].n_blocks);

          for (guint i = 0; i < n && !any; i++)
            {
              FerryBlock *block = &self->classes[klass].blocks[i];

              any = ferry_word_state (atomic_load_explicit (&block->word, memory_order_relaxed)) == FERRY_BLOCK_FREE
                    && atomic_load_explicit (&block->reserved, memory_order_relaxed) > 0
                    && atomic_load_explicit (&block->idle_since, memory_order_relaxed) < idle_before;
            }
        }
      if (any && ferry_segment_lock_within (self, UPKEEP_PATIENCE_US, NULL))
        {
          ferry_arena_trim (self, idle_before, G_MAXUINT64);
          ferry_segment_unlock (self);
        }
    }
}

/* Private: the pollable descriptor, made at the first call. */
int
ferry_waiter_get_fd (FerrySegment *self, GError **error)
{
  struct sockaddr_un address;
  socklen_t length;
  struct epoll_event event = { .events = EPOLLIN };
  int door = -1;
  int timer = -1;
  int epoll = -1;

  g_mutex_lock (&self->sleep_mutex);
  if (self->epoll_fd < 0)
    {
      length = ferry_waiter_door (self, self->id, self->incarnation, &address);
      door = socket (AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
      timer = timerfd_create (CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
      epoll = epoll_create1 (EPOLL_CLOEXEC);
      /* Anybody in this network namespace may have taken the name: then the timer has to do. */
      if (door < 0 || timer < 0 || epoll < 0
          || (bind (door, (struct sockaddr *) &address, length) < 0 && errno != EADDRINUSE)
          || epoll_ctl (epoll, EPOLL_CTL_ADD, door, &event) < 0 || epoll_ctl (epoll, EPOLL_CTL_ADD, timer, &event) < 0)
        {
          g_set_error (error, FERRY_ERROR, FERRY_ERROR_FAILED,
                       "%s: can't make a descriptor to poll: %s; use the blocking calls, or raise the limit of open "
                       "files",
                       self->label, g_strerror (errno));
          if (door >= 0)
            close (door);
          if (timer >= 0)
            close (timer);
          if (epoll >= 0)
            close (epoll);
        }
      else
        {
          self->doorbell_fd = door;
          self->timer_fd = timer;
          self->epoll_fd = epoll;
        }
    }
  epoll = self->epoll_fd;
  g_mutex_unlock (&self->sleep_mutex);
  return epoll;
}

/* Private: from now on the descriptor becomes readable when the side may be ready; the caller
 * checks once more afterwards. */
void
ferry_waiter_arm (FerrySegment *self, FerrySide side)
{
  struct itimerspec period = { .it_value.tv_nsec = TIMER_NS };

  g_mutex_lock (&self->sleep_mutex);
  if (self->timer_fd >= 0)
    timerfd_settime (self->timer_fd, 0, &period, NULL);
  atomic_store_explicit (&self->me->doorbell, 1, memory_order_seq_cst);
  atomic_fetch_or_explicit (&ferry_waiter_bitmap (self, side)[self->id / 64], ferry_waiter_bit (self),
                            memory_order_seq_cst);
  g_mutex_unlock (&self->sleep_mutex);
  atomic_thread_fence (memory_order_seq_cst);
}

/* Private: undoes ferry_waiter_arm(): what was waited for is there already. */
void
ferry_waiter_disarm (FerrySegment *self, FerrySide side)
{
  struct itimerspec off = { 0 };

  g_mutex_lock (&self->sleep_mutex);
  atomic_store_explicit (&self->me->doorbell, 0, memory_order_seq_cst);
  if (self->n_sleepers[side] == 0)
    atomic_fetch_and_explicit (&ferry_waiter_bitmap (self, side)[self->id / 64], ~ferry_waiter_bit (self),
                               memory_order_seq_cst);
  if (self->timer_fd >= 0)
    timerfd_settime (self->timer_fd, 0, &off, NULL);
  g_mutex_unlock (&self->sleep_mutex);
}

/* Private: makes the descriptor unreadable again. */
void
ferry_waiter_drain (FerrySegment *self)
{
  struct itimerspec off = { 0 };
  char byte;
  guint64 expirations;

  if (self->doorbell_fd < 0)
    return;
  while (recv (self->doorbell_fd, &byte, sizeof byte, MSG_DONTWAIT) >= 0 || errno == EINTR)
    ;
  while (read (self->timer_fd, &expirations, sizeof expirations) < 0 && errno == EINTR)
    ;
  timerfd_settime (self->timer_fd, 0, &off, NULL);
}
