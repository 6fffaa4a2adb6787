/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The free bitmap and trimming of docs/memory-model.md, section 4 (B2, B6), for spin: one class of blocks that can't grow,
 * two participants that allocate and free, one that trims; at most one of the three is killed, before any of its steps,
 * and a survivor repairs. README.md says what is left out.
 *
 * One statement (or d_step) is one access to shared memory. The block that an allocator remembers may be any block at
 * all: it is only a hint. Whoever finds nothing looks again when there is a bit to be found: a sender that waits for
 * memory does not rely on being woken.
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
#ifndef ROUNDS
#define ROUNDS (2) /* blocks that each of the two allocates, one after the other */
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
  /* not in the descriptor, for the assertions: */
  bool real;      /* its pages */
  byte user;      /* who may write to it */
  byte used_last; /* the generation of its last user */
};

Block block[BLOCKS];
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

inline set_word (x, new_state, new_owner)
{
  block[x].state = new_state;
  block[x].owner = new_owner
}

/* Steps of the allocators. Each turn of a process's loop is one step. */
mtype = { START, SCAN, CLEAR, LOOK, CLAIM, FULL, CHECK, COMMIT, COMMITTED, USE,
          SET_FREE, BIT, SET_BIT, LATE_FREE, DONE };

proctype Allocator (byte me)
{
  mtype pc = START; /* 0: finished */
  byte n;
  byte b;
  byte g;      /* the generation that was seen */
  byte s;      /* the state that was seen */
  byte bits;   /* of the bitmap, as they were seen and not yet tried */
  bool by_bit; /* not as the remembered block */

  {
end:
    do
    /* the remembered block, if there is one, else what the bitmap shows */
    :: d_step { pc == START -> b = 0; pc = LOOK }
#if BLOCKS > 1
    :: d_step { pc == START -> b = 1; pc = LOOK }
#endif
#if BLOCKS > 2
    :: d_step { pc == START -> b = 2; pc = LOOK }
#endif
    :: d_step { pc == START -> pc = SCAN }
    :: d_step { /* one load */
         pc == SCAN ->
         by_bit = true;
         k = 0;
         do
         :: k == BLOCKS -> break
         :: k < BLOCKS ->
            assert (block[k].marked || block[k].state != FREE || IN_HAND (k)); /* B2: "but for a moment" */
            bits = bits | (block[k].marked << k);
            k++
         od;
         k = 0;
         pc = (bits == 0 -> FULL : CLEAR)
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
         :: else -> b = 0; pc = (bits == 0 -> FULL : CLEAR)
         fi
#endif
       }
#ifdef MUTANT_LOOK_FIRST
    :: d_step {
         pc == LOOK && by_bit ->
         bits = bits & ~(1 << b);
         if
         :: block[b].marked && s == FREE -> block[b].marked = false; hand[me] = b + 1; pc = CLAIM
         :: else -> block[b].marked = false; g = 0; s = 0; b = 0; pc = (bits == 0 -> FULL : CLEAR)
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
         :: else -> hand[me] = 0; g = 0; s = 0; b = 0; pc = (!by_bit -> SCAN : (bits == 0 -> FULL : CLEAR))
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
            by_bit = false;
            pc = CHECK
         :: else -> b = 0; pc = (!by_bit -> SCAN : (bits == 0 -> FULL : CLEAR))
         fi;
         g = 0;
         s = 0
       }
    :: d_step { pc == CHECK -> pc = (block[b].committed -> USE : COMMIT) }
    :: d_step { pc == COMMIT -> block[b].real = true; pc = COMMITTED }
    :: d_step { pc == COMMITTED -> block[b].committed = true; pc = USE }
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
#ifdef MUTANT_FREE_NO_BIT
         hand[me] = 0;
         pc = DONE
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
       d_step { lock == NOBODY -> lock = TRIMMER; b = BLOCKS }
       do
       :: b == 0 -> break
       :: b > 0 ->
          d_step { b--; look = block[b].state == FREE; g = block[b].generation }
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
                block[b].real = false; /* the hole is punched */
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
  :: i == BLOCKS -> break
  :: i < BLOCKS ->
     d_step { seen = (block[i].owner == dead -> block[i].state : FREE) }
     if
     :: seen == OWNED -> candidates = candidates | (1 << i)
#ifdef MUTANT_REPAIR_LEAVES_TRIMMING
     :: seen == TRIMMING
#else
     :: seen == TRIMMING ->
        block[i].committed = false;
        block[i].real = false;
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
  :: i == BLOCKS -> break
  :: i < BLOCKS ->
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
  :: i == BLOCKS -> break
  :: i < BLOCKS ->
     if
     :: block[i].state == FREE -> SET_BIT_OF (i)
     :: else
     fi;
     i++
  od;
#endif
  atomic {
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
    :: i == BLOCKS -> break
    :: i < BLOCKS ->
       assert (block[i].state == FREE && block[i].user == NOBODY); /* none leaked */
       assert (block[i].marked);                                      /* each can be found */
       assert (block[i].real || !block[i].committed);
       i++
    od
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
       block[i].marked = true;
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
