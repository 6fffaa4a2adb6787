/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The free bitmap, growth and trimming of docs/memory-model.md, section 4 (B2, B5, B6), for spin: one class of blocks, two
 * participants that allocate and free, one that trims; at most one of the three is killed, before any of its steps, and
 * a survivor repairs. README.md says what is left out.
 *
 * One statement (or d_step) is one access to shared memory; what is done under the lock and seen by its holders only goes with
 * the step before. The block that an allocator takes without its bit may be any block at all: which one it remembers, and which
 * is next in its rotation, are only hints. Whoever needs the lock for growth or pages may give up, as one that only warms a
 * block up does at once, and may find no pages: then the block is free again, and the round is over. Whoever finds nothing
 * looks again when there is a bit to be found: a sender that waits for memory does not rely on being woken.
 *
 * Steps are sequentially consistent, but for the store that sets a block free where a mutant makes it a plain one: then
 * it lies in its processor's store buffer (x86), where the others do not see it. It is written out at any time, but
 * before the next locked instruction or system call of its process, or behind it with FENCE. The other way round, a load
 * that a processor does too early, is the mutant whose program does it too early: MUTANT_BIT_FIRST, MUTANT_LOOK_FIRST.
 *
 * Each MUTANT_x is a mistake; run-model.sh demands that it is found. */

#ifndef BLOCKS
#define BLOCKS 2 /* 1 to 3 */
#endif
#ifndef USED
#define USED BLOCKS /* so many are there from the beginning; the others are grown */
#endif
#ifndef ROUNDS
#define ROUNDS (2) /* blocks that each of the two allocates, or tries to, one after the other */
#endif
#ifndef TRIMS
#define TRIMS (2) /* times that the arena is trimmed */
#endif
#ifndef RESTARTS
#define RESTARTS (1) /* how often a repair is given up half-way and begun anew */
#endif
#define NOBODY (9)
#define TRIMMER (2)
#define REPAIRER (3)

#define FREE (0)
#define OWNED (1)
#define TRIMMING (2)

typedef Block
{
  byte state; /* these three are the word */
  byte owner; /* NOBODY: FREE */
  byte generation;
  bool marked; /* its bit in the bitmap */
  bool committed;
  bool reserved;
  /* not in the descriptor, for the assertions: */
  bool real;      /* its pages */
  byte user;      /* who may write to it */
  byte used_last; /* the generation of its last user */
};

Block block[BLOCKS];
byte used = USED;
byte sum; /* of what is reserved */
byte lock = NOBODY;
byte stored[3]; /* in p's store buffer: that this block is FREE, counted from 1 */

/* what happened, for the assertions */
byte dead = NOBODY;
bool repaired;
bool finished[3];
/* the block, counted from 1, whose bit p has cleared, before it looks at the word; or whose word it has set FREE, before
 * it knows of the bit */
byte hand[3];

hidden byte k;

#define LOWEST(mask) (((mask) & 1) -> 0 : (((mask) & 2) -> 1 : 2))
#define IN_HAND(x)                                                                                                     \
  (hand[0] == x + 1 || hand[1] == x + 1 || hand[2] == x + 1 || (dead != NOBODY && !repaired))

#if defined(MUTANT_FREE_RELEASE) || defined(MUTANT_TRIM_RELEASE)
#define WRITTEN_OUT(p) (stored[p] == 0)
#else
#define WRITTEN_OUT(p) (true)
#endif
#ifdef FENCE
#define FENCED(p) WRITTEN_OUT (p)
#else
#define FENCED(p) (true)
#endif

/* B5, B6: whatever is done, and whoever dies */
#define PAGES_ARE_COUNTED(x) ((!block[x].committed || block[x].real) && (!block[x].real || block[x].reserved))

inline set_word (x, new_state, new_owner)
{
  block[x].state = new_state;
  block[x].owner = new_owner
}

/* Steps of the allocators. Each turn of a process's loop is one step. */
mtype = { START, SCAN, CLEAR, LOOK, CLAIM, FULL, GROW, GROW_OWNED, GROW_USED, CHECK, RESERVE, RESERVED, COMMIT, COMMITTED,
          UNDONE, USE, SET_FREE, BIT, SET_BIT, LATE_FREE, DONE };

/* without its bit; a look at "committed" first, if it is the next one of the rotation */
#ifdef MUTANT_TRUST_COMMITTED
#define SEEN_COMMITTED(x) trusted = block[x].committed
#else
#define SEEN_COMMITTED(x) skip
#endif
#define TAKE_DIRECTLY(x)                                                                                               \
  :: d_step { pc == START && x < used -> b = x; SEEN_COMMITTED (x); pc = LOOK }

#define FAILED                                                                                                         \
  b = 0;                                                                                                               \
  pc = (!by_bit -> START : NEXT_BIT)
#ifdef MUTANT_GROW_NO_LOCK
#define GROW_LOCK (true)
#else
#define GROW_LOCK (lock == NOBODY)
#endif
#define NEXT_BIT (bits != 0 -> CLEAR : (used < BLOCKS -> GROW : FULL))

proctype Allocator (byte me)
{
  mtype pc = START; /* 0: finished */
  byte n;
  byte b;
  byte g;      /* the generation that was seen */
  byte s;      /* the state that was seen */
  byte bits;   /* of the bitmap, as they were seen and not yet tried */
  bool by_bit; /* not directly */
#ifdef MUTANT_TRUST_COMMITTED
  bool trusted;
#endif
#ifdef MUTANT_FREE_LEFT_BIT
  bool left_bit;
#endif

  {
end:
    do
    /* the next block of the rotation and the remembered one, if there are any, then what the bitmap shows */
    TAKE_DIRECTLY (0)
#if BLOCKS > 1
    TAKE_DIRECTLY (1)
#endif
#if BLOCKS > 2
    TAKE_DIRECTLY (2)
#endif
#if BLOCKS > USED
    :: d_step { pc == START && used < BLOCKS -> pc = GROW }
#endif
    :: d_step { pc == START -> pc = SCAN }
    :: d_step { /* one load */
         pc == SCAN ->
         by_bit = true;
#ifdef MUTANT_TRUST_COMMITTED
         trusted = false;
#endif
         k = 0;
         do
         :: k == used -> break
         :: k < used ->
            assert (PAGES_ARE_COUNTED (k));
            assert (block[k].marked || block[k].state != FREE || IN_HAND (k)); /* B2: "but for a moment" */
            bits = bits | (block[k].marked << k);
            k++
         od;
         k = 0;
         pc = NEXT_BIT
       }
    :: d_step { /* what nobody sets can't be found by looking again */
         pc == FULL && (block[0].marked || block[BLOCKS / 2].marked || block[BLOCKS - 1].marked) ->
         by_bit = false;
         pc = START
       }
    :: d_step {
         pc == CLEAR && WRITTEN_OUT (me) ->
         b = LOWEST (bits);
#ifdef MUTANT_LOOK_FIRST
         s = block[b].state;
         g = block[b].generation;
         pc = LOOK
#else
         bits = bits & ~(1 << b);
         if
         :: block[b].marked -> block[b].marked = false; hand[me] = b + 1; pc = LOOK
         :: else -> b = 0; pc = NEXT_BIT
         fi
#endif
       }
#ifdef MUTANT_LOOK_FIRST
    :: d_step {
         pc == LOOK && by_bit ->
         bits = bits & ~(1 << b);
         if
         :: block[b].marked && s == FREE -> block[b].marked = false; hand[me] = b + 1; pc = CLAIM
         :: else -> block[b].marked = false; g = 0; s = 0; b = 0; pc = NEXT_BIT
         fi
       }
    :: d_step {
         pc == LOOK && !by_bit ->
#else
    :: d_step {
         pc == LOOK ->
#endif
         s = block[b].state;
         g = block[b].generation;
         if
#ifdef MUTANT_RECENT_ANY_STATE
         :: s == FREE || !by_bit -> pc = CLAIM
#else
         :: s == FREE -> pc = CLAIM
#endif
         :: else -> hand[me] = 0; g = 0; s = 0; FAILED
         fi
       }
    :: d_step { /* CAS */
         pc == CLAIM && WRITTEN_OUT (me) ->
         hand[me] = 0;
         if
#if defined(MUTANT_CLAIM_STORE)
         :: true ->
#elif defined(MUTANT_CLAIM_ANY_GENERATION)
         :: block[b].state == s ->
#else
         :: block[b].state == s && block[b].generation == g ->
#endif
            assert (block[b].user == NOBODY);
#ifndef MUTANT_CLAIM_STORE
            assert (g + 1 > block[b].used_last); /* a slot names the block by it */
#endif
            set_word (b, OWNED, me);
            block[b].generation = g + 1;
            block[b].user = me;
            block[b].used_last = g + 1;
            bits = 0;
#ifdef MUTANT_FREE_LEFT_BIT
            left_bit = !by_bit;
#endif
            by_bit = false;
#ifdef MUTANT_TRUST_COMMITTED
            pc = (trusted -> USE : CHECK);
            trusted = false
#else
            pc = CHECK
#endif
         :: else -> FAILED
         fi;
         g = 0;
         s = 0
       }

#if BLOCKS > USED
    /* another block; under the lock */
    :: d_step {
         pc == GROW && GROW_LOCK && WRITTEN_OUT (me) ->
         by_bit = false;
         if
         :: used < BLOCKS -> lock = me; b = used; pc = GROW_OWNED
         :: else -> pc = START
         fi
       }
    :: d_step { /* a plain store: nobody else knows of the block, unless one died here */
         pc == GROW_OWNED ->
#ifdef MUTANT_GROW_USED_FIRST
         used = b + 1;
         pc = GROW_USED
       }
    :: d_step {
         pc == GROW_USED ->
#endif
         assert (block[b].user == NOBODY || block[b].user == dead);
         set_word (b, OWNED, me);
         block[b].generation = block[b].generation + 1;
         block[b].user = me;
         block[b].used_last = block[b].generation;
#ifdef MUTANT_GROW_USED_FIRST
         lock = NOBODY;
         pc = CHECK
#else
         pc = GROW_USED
#endif
       }
#ifndef MUTANT_GROW_USED_FIRST
    :: d_step { pc == GROW_USED -> used = b + 1; lock = (lock == me -> NOBODY : lock); pc = CHECK }
#endif
#endif

    /* its pages, if they are not there */
    :: d_step {
         pc == CHECK ->
         if
         :: block[b].committed -> pc = USE
         :: else -> pc = RESERVE
         fi
       }
    :: d_step {
         pc == RESERVE && lock == NOBODY && WRITTEN_OUT (me) ->
         lock = me;
         sum = sum + !block[b].reserved;
         pc = RESERVED
       }
    :: d_step { pc == RESERVE -> pc = SET_FREE } /* the lock is somebody else's, or the bound is reached */
    :: d_step {
         pc == RESERVED ->
         block[b].reserved = true;
         lock = NOBODY;
#ifdef MUTANT_COMMITTED_FIRST
         pc = COMMITTED
       }
    :: d_step { pc == COMMITTED -> block[b].committed = true; pc = COMMIT }
    :: d_step { pc == COMMIT -> block[b].real = true; pc = USE }
#else
         pc = COMMIT
       }
    :: d_step { pc == COMMIT -> block[b].real = true; pc = COMMITTED }
    :: d_step { pc == COMMITTED -> block[b].committed = true; pc = USE }
#endif
    :: d_step { /* no pages; who can't have the lock either leaves them reserved */
         pc == COMMIT && lock == NOBODY && WRITTEN_OUT (me) ->
         lock = me;
         block[b].real = false;
         block[b].reserved = false;
         pc = UNDONE
       }
    :: d_step { pc == UNDONE -> sum--; lock = NOBODY; pc = SET_FREE }
    :: d_step { pc == COMMIT -> pc = SET_FREE }
    :: d_step {
         pc == USE ->
         assert (block[b].real);
         assert (block[b].state == OWNED && block[b].owner == me && block[b].user == me);
#ifdef MUTANT_BIT_FIRST
         pc = BIT
#else
         pc = SET_FREE
#endif
       }

    /* giving it back */
    :: d_step {
         pc == SET_FREE && WRITTEN_OUT (me) ->
         block[b].user = NOBODY;
         hand[me] = b + 1;
#ifdef MUTANT_FREE_RELEASE
         stored[me] = b + 1;
#else
         set_word (b, FREE, NOBODY);
#endif
#if defined(MUTANT_FREE_NO_BIT)
         hand[me] = 0;
         pc = DONE
#elif defined(MUTANT_FREE_LEFT_BIT)
         hand[me] = (left_bit -> 0 : hand[me]);
         pc = (left_bit -> DONE : BIT);
         left_bit = false
#else
         pc = BIT
#endif
       }
    :: d_step {
         pc == BIT && FENCED (me) ->
#ifdef MUTANT_BIT_FIRST
         pc = (block[b].marked -> LATE_FREE : SET_BIT)
#else
         if
         :: block[b].marked -> hand[me] = 0; pc = DONE
         :: else -> pc = SET_BIT
         fi
#endif
       }
    :: d_step {
         pc == SET_BIT && WRITTEN_OUT (me) ->
         block[b].marked = true;
#ifdef MUTANT_BIT_FIRST
         pc = LATE_FREE
#else
         hand[me] = 0;
         pc = DONE
#endif
       }
    :: d_step { pc == LATE_FREE -> block[b].user = NOBODY; set_word (b, FREE, NOBODY); pc = DONE }
    :: d_step {
         pc == DONE ->
         b = 0;
         n++;
         if
         :: n < ROUNDS -> pc = START
         :: else -> finished[me] = true; n = 0; pc = 0
         fi
       }
    od
  }
  unless { atomic { dead == me -> pc = 0; n = 0; b = 0; g = 0; s = 0; bits = 0; by_bit = false } }
}

/* Anybody's upkeep, in a process of its own: that allows more interleavings. Any free block is old enough. */
proctype Trimmer ()
{
  byte n;
  byte b;
  byte g;
  bool look;

  {
    do
    :: n == TRIMS -> break
    :: n < TRIMS ->
       d_step { lock == NOBODY -> lock = TRIMMER; b = used }
       do
       :: b == 0 -> break
       :: b > 0 ->
          d_step { b--; look = block[b].state == FREE && block[b].reserved; g = block[b].generation }
          if
          :: look ->
             d_step { /* CAS */
#ifdef MUTANT_TRIM_IN_PLACE
               skip
#else
               WRITTEN_OUT (TRIMMER) ->
               look = block[b].state == FREE && block[b].generation == g;
               if
               :: look -> set_word (b, TRIMMING, TRIMMER)
               :: else
               fi
#endif
             }
             if
             :: look ->
                block[b].committed = false;
                d_step { block[b].real = false; block[b].reserved = false } /* the hole is punched */
                sum--;
#ifndef MUTANT_TRIM_IN_PLACE
                d_step {
                  hand[TRIMMER] = b + 1;
#ifdef MUTANT_TRIM_RELEASE
                  stored[TRIMMER] = b + 1
#else
                  set_word (b, FREE, NOBODY)
#endif
                }
#ifndef MUTANT_TRIM_NO_BIT
                if
                :: FENCED (TRIMMER) && block[b].marked
                :: FENCED (TRIMMER) && !block[b].marked -> d_step { WRITTEN_OUT (TRIMMER) -> block[b].marked = true }
                fi;
#endif
                hand[TRIMMER] = 0
#endif
             :: else
             fi
          :: else
          fi;
          d_step { look = false; g = 0 }
       od;
       atomic { WRITTEN_OUT (TRIMMER) -> lock = NOBODY; n++ }
    od;
    atomic { finished[TRIMMER] = true; n = 0 }
  }
  unless { atomic { dead == TRIMMER -> n = 0; b = 0; g = 0; look = false } }
}

/* Whoever notices the death, in a process of its own. It may itself give up anywhere; then the next one begins anew. */
#define MAYBE_RESTART                                                                                                  \
  if                                                                                                                   \
  :: d_step { restarts < RESTARTS -> restarts++; lock = NOBODY } goto begin                                            \
  :: true                                                                                                              \
  fi

/* the last part of setting free */
#define SET_BIT_OF(x)                                                                                                  \
  if                                                                                                                   \
  :: block[x].marked                                                                                                   \
  :: !block[x].marked -> MAYBE_RESTART; block[x].marked = true                                                         \
  fi

proctype Repairer ()
{
  byte i;
  byte restarts;
  byte candidates; /* a bit mask of blocks */
  byte seen;

end_well:
begin:
  atomic {
    dead != NOBODY && WRITTEN_OUT (dead) && lock == NOBODY ->
    lock = REPAIRER;
    i = 0;
    candidates = 0
  }
  do
  :: i == used -> break
  :: i < used ->
     d_step { seen = (block[i].owner == dead -> block[i].state : FREE) }
     if
     :: seen == OWNED -> candidates = candidates | (1 << i)
#ifdef MUTANT_REPAIR_LEAVES_TRIMMING
     :: seen == TRIMMING
#else
     :: seen == TRIMMING ->
        block[i].committed = false;
        d_step { block[i].real = false; block[i].reserved = false }
        MAYBE_RESTART;
        d_step { assert (block[i].state == TRIMMING && block[i].owner == dead); set_word (i, FREE, NOBODY) }
        SET_BIT_OF (i)
#endif
     :: else
     fi;
     i++
  od;
  i = 0;
  do
  :: i == used -> break
  :: i < used ->
     if
     :: candidates & (1 << i) ->
        d_step {
          assert (block[i].state == OWNED && block[i].owner == dead);
          assert (block[i].user == dead || block[i].user == NOBODY);
          block[i].user = NOBODY;
          set_word (i, FREE, NOBODY)
        }
        SET_BIT_OF (i)
     :: else
     fi;
     MAYBE_RESTART;
     i++
  od;
#ifndef MUTANT_REPAIR_NO_BITS
  i = 0;
  do
  :: i == used -> break
  :: i < used ->
     if
     :: block[i].state == FREE -> SET_BIT_OF (i)
     :: else
     fi;
     i++
  od;
#endif
  atomic {
#ifndef MUTANT_REPAIR_NO_RECOUNT
    sum = 0;
    i = 0;
    do
    :: i == used -> break
    :: i < used -> sum = sum + block[i].reserved; i++
    od;
#endif
    repaired = true;
    lock = NOBODY;
    i = 0; candidates = 0; seen = 0; restarts = 0
  }
}

/* At any time, one of them or nobody. The kernel takes the lock from a dead one. */
#define DIES(p) d_step { dead = p; hand[p] = 0; lock = (lock == p -> NOBODY : lock) }

proctype Killer ()
{
#ifdef VICTIM
  DIES (VICTIM)
#elif !defined(NO_DEATH)
  if
  :: DIES (0)
  :: DIES (1)
  :: DIES (TRIMMER)
  :: true
  fi
#else
  skip
#endif
}

/* The store buffers are written out some time. */
#if defined(MUTANT_FREE_RELEASE) || defined(MUTANT_TRIM_RELEASE)
#define WRITE_OUT(p) :: d_step { stored[p] != 0 -> set_word (stored[p] - 1, FREE, NOBODY); stored[p] = 0 }

active proctype Buffers ()
{
end:
  do
  WRITE_OUT (0)
  WRITE_OUT (1)
  WRITE_OUT (TRIMMER)
  od
}
#endif

/* When nothing moves any more, everything must be where it belongs. */
proctype Judge ()
{
  byte i;

  timeout;
  d_step {
    assert (dead == NOBODY || repaired);
    assert (dead == 0 || finished[0]); /* nobody waits for a block that is free and can't be found */
    assert (dead == 1 || finished[1]);
    assert (dead == TRIMMER || finished[TRIMMER]);
    assert (lock == NOBODY);
    i = 0;
    do
    :: i == used -> break
    :: i < used ->
       assert (block[i].state == FREE && block[i].user == NOBODY); /* none leaked */
       assert (block[i].marked);                                      /* each can be found */
       assert (PAGES_ARE_COUNTED (i));
       sum = sum - block[i].reserved;
       i++
    od;
    assert (sum == 0)
  }
}

init
{
  byte i;

  atomic {
    do
    :: i == BLOCKS -> break
    :: i < BLOCKS ->
       block[i].owner = NOBODY;
       block[i].user = NOBODY;
       block[i].marked = i < USED;
       i++
    od;
    i = 0;
    run Judge ();
    run Killer ();
    run Repairer ();
    run Allocator (0);
    run Allocator (1);
    run Trimmer ()
  }
}
