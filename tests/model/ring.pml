/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The ring of docs/memory-model.md, sections 3 to 6, in work-queue mode, for spin: two senders, two receivers, two slots;
 * at most one of the four is killed, before any of its steps, and a survivor repairs. README.md says what is left out.
 *
 * One statement (or d_step) is one access to shared memory. Walks whose result can only grow (the head over what is
 * resolved, the tail over what is claimed) give what they would give at the moment of their last load, so they are one
 * step; a taker's walk is not of that kind and is done slot by slot.
 *
 * A slot has the position its word is for instead of the lap: EMPTY(L+1) is EMPTY with pos + SLOTS. The wake word is a
 * flag: loading it before sleeping is clearing it. Sleeps do not time out, so a wake-up that would come 400 ms late is
 * an error here.
 *
 * Each MUTANT_x is a mistake; run-model.sh demands that it is found. */

#ifndef SLOTS
#define SLOTS (2) /* 2 or 3 */
#endif
#define CAPACITY (2)
#ifndef MESSAGES_0
#define MESSAGES_0 (2) /* by the first sender */
#endif
#ifndef MESSAGES_1
#define MESSAGES_1 (2) /* by the second */
#endif
#define BLOCKS (2)
#ifndef HEAD_INTERVAL
#define HEAD_INTERVAL (3) /* 8 in reality: here too, more than a lap, and not at each message */
#endif
#define NOBODY (9)
#define NOWHERE (99)
#ifndef RESTARTS
#define RESTARTS (1) /* how often a repair is given up half-way and begun anew */
#endif

#define EMPTY (0)
#define WRITING (1)
#define COMMITTED (2)
#define TAKEN (3)
#define VOID (4)

/* message n of sender p; who sends what as a block */
#if MESSAGES_0 > 2
#define MESSAGES_MAX (4)
#else
#define MESSAGES_MAX (2)
#endif
#define MESSAGE(p, n) ((p) * MESSAGES_MAX + (n))
#define MESSAGES(p) ((p) == 0 -> MESSAGES_0 : MESSAGES_1)
#ifndef IS_BLOCK
#define IS_BLOCK(p, n) (((p) + (n)) % 2 == 0)
#endif

typedef Slot
{
  byte pos;
  byte state;
  byte owner;
  byte message;
  byte block; /* BLOCKS: inline */
};

typedef Block
{
  bool owned;
  byte owner;
  byte message; /* its contents */
};

Slot slot[SLOTS];
Block block[BLOCKS];
byte head;        /* the shared hint */
byte rx_sleeping; /* bit masks; the bit of receiver p is 1 << (p - 2) */
byte tx_sleeping; /* of sender p: 1 << p */
bool woken[4];

/* what happened, for the assertions */
byte dead = NOBODY;
bool repaired;
bool finished[2];
bool committed[2 * MESSAGES_MAX];
bool taken[2 * MESSAGES_MAX]; /* at least once */
bool delivered[2 * MESSAGES_MAX];

/* scratch of one step */
hidden byte hh;
hidden byte room;
hidden byte position;
hidden byte state;

#define BIT(p) (1 << ((p) % 2))
#define SLOT(position) slot[(position) % SLOTS]

/* To the first position that is not claimed: the walk gives the same from any hint (R2). */
inline walk (t)
{
  do
  :: SLOT (t).pos < t || (SLOT (t).pos == t && SLOT (t).state == EMPTY) -> break
  :: else -> t++
  od
}

/* A sender begins at the position behind its own last one: the tail if that slot is free, and free for this position, as
 * others may have used it since; else the stalest hint there is. */
#ifdef MUTANT_TAIL_ANY_LAP
#define FREE_FOR(t) (SLOT (t).state == EMPTY)
#else
#define FREE_FOR(t) (SLOT (t).pos == t && SLOT (t).state == EMPTY)
#endif

inline find_tail (t)
{
  t = own_tail;
  if
  :: FREE_FOR (t)
  :: else -> walk (t)
  fi;
#ifndef MUTANT_TAIL_ANY_LAP
  position = head;
  walk (position);
  assert (t == position);
  position = 0
#endif
}

/* A receiver begins at a hint of its own, as long as that slot is COMMITTED or EMPTY for this very position: nobody else
 * took messages since. */
#ifdef MUTANT_HEAD_ANY_LAP
#define OWN_HEAD (SLOT (own_head).state == COMMITTED || SLOT (own_head).state == EMPTY)
#else
#define OWN_HEAD                                                                                                       \
  (SLOT (own_head).pos == own_head && (SLOT (own_head).state == COMMITTED || SLOT (own_head).state == EMPTY))
#endif
#define MAYBE_READY(h) (SLOT (h).pos > h || SLOT (h).state != EMPTY)

/* hh: the first position that is not resolved */
inline advance_head ()
{
  hh = head;
  do
  :: SLOT (hh).pos > hh -> hh++
  :: SLOT (hh).pos == hh && SLOT (hh).state == VOID ->
     SLOT (hh).state = EMPTY;
     SLOT (hh).owner = 0;
     SLOT (hh).pos = hh + SLOTS
  :: else -> break
  od;
  head = hh
}

inline look_for_room (t)
{
  find_tail (t);
  advance_head ();
  room = hh > t || (t - hh < CAPACITY && SLOT (t).pos >= t)
}

/* Steps of the processes. Each turn of a process's loop is one step. */
mtype = { ALLOC, CHECK, CLAIM, COMMIT, NOTIFY, WAKE, FINISH, PASS_ON, PASS_WAKE, RECHECK, SLEEP,
          START, WALK, TAKE, OWN, RELEASE, HEAD, HOLD, DONE };

/* The waker looks for a bit and clears it (one step), then counts the wake word (another one). */
#define WAKE_ONE(step, mask, first, wake_step, next)                                                                   \
  :: d_step { pc == step && (mask & 1) -> mask = mask & ~1; sleeper = first; pc = wake_step }                           \
  :: d_step { pc == step && (mask & 2) -> mask = mask & ~2; sleeper = first + 1; pc = wake_step }                       \
  :: d_step { pc == step && mask == 0 -> pc = next }                                                                   \
  :: d_step { pc == wake_step -> woken[sleeper] = true; sleeper = 0; pc = next }

proctype Sender (byte me)
{
  mtype pc = ALLOC; /* 0: finished */
  byte n;
  byte b = BLOCKS;
  byte t;
  byte own_tail; /* behind the last message of its own */
#ifdef MUTANT_TAIL_ANY_LAP
  byte seen;
#endif
  byte sleeper;
  bool waited;

  {
    d_step {
      if
      :: MESSAGES (me) == 0 -> finished[me] = true; pc = 0
      :: else
      fi
    }
end:
    do
    :: d_step {
         pc == ALLOC && !(IS_BLOCK (me, n) && block[0].owned && block[1].owned) ->
         if
         :: IS_BLOCK (me, n) ->
            b = (block[0].owned -> 1 : 0);
            block[b].owned = true;
            block[b].owner = me;
            block[b].message = MESSAGE (me, n)
         :: else -> b = BLOCKS
         fi;
         pc = CHECK
       }
    :: d_step { /* sets the bit when there is no room */
         pc == CHECK ->
         look_for_room (t);
         if
#ifdef MUTANT_TAIL_ANY_LAP
         :: FREE_FOR (t) -> seen = SLOT (t).pos; pc = CLAIM
         :: !FREE_FOR (t) && room && hh > t -> t = 0
#else
         :: room && hh <= t -> pc = CLAIM
         :: room && hh > t -> t = 0
#endif
         :: else -> t = 0; pc = SLEEP
         fi
       }
    :: d_step {
         pc == CLAIM ->
         if
#ifdef MUTANT_TAIL_ANY_LAP
         :: SLOT (t).pos == seen && SLOT (t).state == EMPTY ->
            SLOT (t).pos = t;
#else
         :: SLOT (t).pos == t && SLOT (t).state == EMPTY ->
#endif
            SLOT (t).state = WRITING;
            SLOT (t).owner = me;
            pc = COMMIT
         :: else -> t = 0; pc = CHECK
         fi
       }
    :: d_step {
         pc == COMMIT ->
         SLOT (t).message = MESSAGE (me, n);
         SLOT (t).block = b;
         SLOT (t).state = COMMITTED;
         committed[MESSAGE (me, n)] = true;
         own_tail = t + 1;
         t = 0;
         b = BLOCKS;
         pc = NOTIFY
       }
    WAKE_ONE (NOTIFY, rx_sleeping, 2, WAKE, PASS_ON)
    :: d_step {
         pc == PASS_ON ->
         pc = DONE;
         if
         :: waited && tx_sleeping != 0 ->
            look_for_room (t);
            t = 0;
            if
            :: room -> pc = START
            :: else
            fi
         :: else
         fi;
         waited = false
       }
    WAKE_ONE (START, tx_sleeping, 0, PASS_WAKE, DONE)
    :: d_step {
         pc == DONE ->
         n++;
         if
         :: n < MESSAGES (me) -> pc = ALLOC
         :: else -> finished[me] = true; own_tail = 0; n = 0; pc = 0
         fi
       }

    /* no room */
    :: d_step {
         pc == SLEEP ->
         woken[me] = false;
         tx_sleeping = tx_sleeping | BIT (me);
#ifdef MUTANT_SENDER_NO_RECHECK
         pc = FINISH
#else
         pc = RECHECK
#endif
       }
    :: d_step {
         pc == RECHECK ->
         look_for_room (t);
         t = 0;
         woken[me] = woken[me] || room; /* then it does not sleep */
         pc = FINISH
       }
    :: d_step {
         pc == FINISH && woken[me] ->
         tx_sleeping = tx_sleeping & ~BIT (me);
         woken[me] = false;
         waited = true;
         pc = CHECK
       }
    od
  }
  unless { dead == me }
}

/* Receiver has made the message its own: what its sender sent before was taken before. */
#define CHECK_TAKEN                                                                                                    \
  assert (m % MESSAGES_MAX == 0 || taken[m - 1]);                                                                                 \
  taken[m] = true
/* nobody else ever did */
#define CHECK_DELIVERED                                                                                                \
  assert (!delivered[m]);                                                                                              \
  delivered[m] = true
#define RESET_WALK                                                                                                     \
  h = 0;                                                                                                               \
  own = false;                                                                                                         \
  moved = false;                                                                                                       \
  pending = false;                                                                                                     \
  passed = NOWHERE;                                                                                                    \
  pending_before = false;                                                                                              \
  bound = 0

proctype Receiver (byte me)
{
  mtype pc = START;
  byte own_head;
  byte h;
  bool own;   /* the walk began at the hint of its own, */
  bool moved; /* and is beyond where it began */
  byte m;
  byte b;
  byte passed = NOWHERE; /* the first slot in WRITING that was passed, */
  bool pending_before;   /* and whether another unresolved one was before it */
  byte bound;            /* the walk is another look at what lies below it */
  bool pending;
  bool announced;
  bool waited;
  byte sleeper;

  {
end:
    do
    :: d_step { /* one slot of the walk; first where to begin: hints, and the walk gives the same from any (R3) */
         pc == START || pc == WALK ->
         if
         :: pc == START -> own = OWN_HEAD; h = (own -> own_head : head); pc = WALK
         :: else
         fi;
         position = SLOT (h).pos;
         state = SLOT (h).state;
         if
#ifdef MUTANT_HEAD_ANY_LAP
         :: own && !moved && state == EMPTY -> RESET_WALK; pc = SLEEP
         :: (!own || moved || state != EMPTY) && position > h -> h++; moved = true
#else
         :: position > h -> h++; moved = true
#endif
         :: position < h || (position == h && state == EMPTY) -> /* nothing to take */
            assert (position == h || pending);
            if
            :: !pending && moved -> own_head = h; head = h /* to store it late is what a taker does, at HEAD */
            :: else
            fi;
            RESET_WALK;
            pc = SLEEP
         :: position == h && state == VOID ->
            SLOT (h).state = EMPTY;
            SLOT (h).owner = 0;
            SLOT (h).pos = h + SLOTS
         :: position == h && (state == WRITING || state == TAKEN) ->
            if
            :: state == WRITING && passed == NOWHERE ->
               passed = h;
               pending_before = pending
            :: else
            fi;
            pending = true;
            moved = true;
            h++
         :: else -> /* COMMITTED */
#ifndef MUTANT_NO_SECOND_LOOK
            /* Between our look at a slot that was in WRITING and this one its sender may have committed both. */
            if
#ifdef MUTANT_ONE_LOOK
            :: passed != NOWHERE && bound == 0 ->
#else
            :: passed != NOWHERE && h >= bound ->
#endif
               bound = h + 1;
               h = passed;
               pending = pending_before;
               pending_before = false;
               passed = NOWHERE
            :: else -> m = SLOT (h).message; b = SLOT (h).block; pc = TAKE
            fi
#else
            m = SLOT (h).message;
            b = SLOT (h).block;
            pc = TAKE
#endif
         fi;
         position = 0;
         state = 0
       }
    :: d_step { /* inline: copied, one CAS. A block: TAKEN first. */
         pc == TAKE ->
         if
         :: SLOT (h).pos != h || SLOT (h).state != COMMITTED -> m = 0; b = 0; RESET_WALK; pc = START
         :: else ->
            CHECK_TAKEN;
            if
            :: b == BLOCKS ->
               CHECK_DELIVERED;
               SLOT (h).state = EMPTY;
               SLOT (h).owner = 0;
               SLOT (h).pos = h + SLOTS;
               pc = HEAD
            :: else ->
               SLOT (h).state = TAKEN;
               SLOT (h).owner = me;
#ifndef MUTANT_OWN_AFTER_EMPTY
               pc = OWN
#else
               pc = RELEASE
#endif
            fi
         fi
       }
    :: d_step {
         pc == OWN ->
         assert (block[b].owned && block[b].message == m);
         block[b].owner = me;
#ifndef MUTANT_OWN_AFTER_EMPTY
         pc = RELEASE
#else
         pc = HEAD
#endif
       }
    :: d_step {
         pc == RELEASE ->
         CHECK_DELIVERED;
         SLOT (h).state = EMPTY;
         SLOT (h).owner = 0;
         SLOT (h).pos = h + SLOTS;
#ifndef MUTANT_OWN_AFTER_EMPTY
         pc = HEAD
#else
         pc = OWN
#endif
       }
    :: d_step {
         pc == HEAD ->
#ifdef MUTANT_HEAD_PAST_TAKEN
         pending = false;
#endif
#ifdef MUTANT_OWN_HEAD_PAST_PENDING
         own_head = h + 1;
#endif
         if
         :: !pending ->
            own_head = h + 1;
            if
            :: !own || (h + 1) % HEAD_INTERVAL == 0 -> head = h + 1
            :: else
            fi
         :: else
         fi;
         RESET_WALK;
         pc = NOTIFY
       }
    WAKE_ONE (NOTIFY, tx_sleeping, 0, WAKE, PASS_ON)
    :: d_step {
         pc == PASS_ON ->
         pc = HOLD;
         if
         :: announced ->
            rx_sleeping = rx_sleeping & ~BIT (me);
            woken[me] = false;
            announced = false;
            waited = true
         :: else
         fi;
         if
         :: waited && rx_sleeping != 0 && MAYBE_READY ((OWN_HEAD -> own_head : head)) -> pc = ALLOC
         :: else
         fi;
         waited = false
       }
    WAKE_ONE (ALLOC, rx_sleeping, 2, PASS_WAKE, HOLD)
    :: d_step { /* a view was held and is returned */
         pc == HOLD ->
         if
         :: b != BLOCKS ->
            assert (block[b].owned && block[b].owner == me && block[b].message == m);
            block[b].owned = false;
            block[b].owner = 0;
            block[b].message = 0
         :: else
         fi;
         b = 0;
         m = 0;
         pc = START
       }

    /* nothing to take */
    :: d_step {
         pc == SLEEP && !announced ->
         woken[me] = false;
         rx_sleeping = rx_sleeping | BIT (me);
         announced = true;
#ifndef MUTANT_NO_RECHECK
         pc = START
#endif
       }
    :: d_step {
         pc == SLEEP && announced && woken[me] ->
         rx_sleeping = rx_sleeping & ~BIT (me);
         woken[me] = false;
         announced = false;
         waited = true;
         pc = START
       }
    od
  }
  unless { dead == me }
}

/* Whoever notices the death, in a process of its own: that allows more interleavings than a survivor that repairs
 * between two of its own steps. It may itself give up anywhere; then the next one begins anew. */
#define MAYBE_RESTART                                                                                                  \
  if                                                                                                                   \
  :: restarts < RESTARTS -> restarts++; goto begin                                                                     \
  :: true                                                                                                              \
  fi

proctype Repairer ()
{
  byte i;
  byte restarts;
  byte candidates; /* bit masks of blocks */
  byte named;
  byte seen;

end_well:
  dead != NOBODY;
begin:
  atomic { i = 0; candidates = 0; named = 0; seen = 0 }
  do
  :: i == SLOTS -> break
  :: i < SLOTS ->
     d_step {
       if
       :: slot[i].owner == dead && slot[i].state == WRITING -> slot[i].state = VOID; slot[i].owner = 0
       :: slot[i].owner == dead && slot[i].state == TAKEN -> slot[i].state = COMMITTED; slot[i].owner = 0
       :: else
       fi;
       i++
     }
  od;
  MAYBE_RESTART;
  i = 0;
  do
  :: i == BLOCKS -> break
  :: i < BLOCKS ->
     d_step {
       candidates = candidates | ((block[i].owned && block[i].owner == dead) << i);
       i++
     }
  od;
  i = 0;
  do
  :: i == SLOTS -> break
  :: i < SLOTS ->
     seen = slot[i].state;
     d_step {
       if
       :: (seen == COMMITTED || seen == TAKEN) && slot[i].block < BLOCKS -> named = named | (1 << slot[i].block)
       :: else
       fi;
       seen = 0;
       i++
     }
  od;
#ifdef MUTANT_FREE_WITHOUT_SLOTS
  named = 0;
#endif
  i = 0;
  do
  :: i == BLOCKS -> break
  :: i < BLOCKS ->
     d_step {
       if
       :: (candidates & (1 << i)) && !(named & (1 << i)) && block[i].owned && block[i].owner == dead ->
          block[i].owned = false;
          block[i].owner = 0;
          block[i].message = 0
       :: else
       fi;
       i++
     }
  od;
  MAYBE_RESTART;
  d_step {
#if defined(MUTANT_REPAIR_NO_WAKE)
    skip;
#elif defined(MUTANT_REPAIR_WAKES_BITS)
    /* those who are marked as asleep only: not the one whose mark the dead one has just taken away */
    woken[0] = woken[0] || (tx_sleeping & 1);
    woken[1] = woken[1] || (tx_sleeping & 2);
    woken[2] = woken[2] || (rx_sleeping & 1);
    woken[3] = woken[3] || (rx_sleeping & 2);
#else
    woken[0] = true;
    woken[1] = true;
    woken[2] = true;
    woken[3] = true;
#endif
    rx_sleeping = 0;
    tx_sleeping = 0;
    repaired = true;
    i = 0; candidates = 0; named = 0; restarts = 0
  }
}

/* At any time, one of them or nobody. */
proctype Killer ()
{
#ifdef VICTIM
  dead = VICTIM
#elif !defined(NO_DEATH)
  if
  :: dead = 0
  :: dead = 1
  :: dead = 2
  :: dead = 3
  :: true
  fi
#else
  skip
#endif
}

/* When nothing moves any more, everything must be where it belongs. */
proctype Judge ()
{
  byte i;

  timeout;
  d_step {
    assert (dead == NOBODY || repaired);
    assert (dead == 0 || finished[0]); /* nobody sleeps while there is room */
    assert (dead == 1 || finished[1]);
    i = 0;
    do
    :: i == 2 * MESSAGES_MAX -> break
    :: i < 2 * MESSAGES_MAX ->
       assert (committed[i] || dead == i / MESSAGES_MAX || i % MESSAGES_MAX >= MESSAGES (i / MESSAGES_MAX));
       assert (committed[i] == delivered[i]); /* nothing lost, nobody sleeps while a message waits */
       i++
    od;
    i = 0;
    do
    :: i == SLOTS -> break
    :: i < SLOTS ->
       assert (slot[i].state == EMPTY);
       i++
    od;
    i = 0;
    do
    :: i == BLOCKS -> break
    :: i < BLOCKS ->
       assert (!block[i].owned);
       i++
    od
  }
}

init
{
  atomic {
    slot[1].pos = 1;
    slot[SLOTS - 1].pos = SLOTS - 1;
    run Judge ();
    run Killer ();
    run Repairer ();
    run Sender (0);
    run Sender (1);
    run Receiver (2);
    run Receiver (3)
  }
}
