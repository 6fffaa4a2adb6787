/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The blocks of docs/memory-model.md, section 4, in broadcast mode, for spin: one sender that may drop the oldest message, two
 * readers, two slots; at most one of the three is killed, before any of its steps, and a survivor repairs. README.md says
 * what is left out.
 *
 * Each turn of a process's loop is one step, and one access to shared memory but for walks whose result can only grow. A slot
 * has the position its word is for instead of the lap. A slot names its block together with the block's generation.
 *
 * Each MUTANT_x is a mistake; run-model.sh demands that it is found. */

#define SLOTS (2)
#define CAPACITY (2)
#ifndef MESSAGES
#define MESSAGES (4)
#endif
#ifndef BLOCKS
#define BLOCKS (3) /* 2 or 3 */
#endif
#define NOBODY (9)
#ifndef RESTARTS
#define RESTARTS (1)
#endif

/* states of slots */
#define EMPTY (0)
#define WRITING (1)
#define COMMITTED (2)
#define TAKEN (3)
#define VOID (4)
/* states of blocks */
#define FREE (0)
#define OWNED (1)
#define RETIRED (2)

typedef Slot
{
  byte pos;
  byte state;
  byte owner;
  byte block;
  byte generation;
};

typedef Block
{
  byte state;
  byte owner;
  byte generation;
  byte holders; /* a bit a reader: 1 << p, p being 1 or 2 */
  byte message; /* its contents */
};

Slot slot[SLOTS];
Block block[3];
byte head; /* the hint */
byte cursor[3];
bool gone[3]; /* its record is free */
bool nudge;   /* something changed since the sender looked for room */

/* what happened, for the assertions */
byte dead = NOBODY;
bool repaired;
bool finished[3];
byte view[3] = BLOCKS; /* the block a reader uses */

hidden byte hh;
hidden byte tt;
hidden byte i;
hidden byte limit;

#define SLOT(position) slot[(position) % SLOTS]
#define HELD(x, p) (view[p] == x && dead != p)

inline find_tail ()
{
  tt = head;
  do
  :: SLOT (tt).pos < tt || (SLOT (tt).pos == tt && SLOT (tt).state == EMPTY) -> break
  :: else -> tt++
  od
}

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

inline min_cursor ()
{
  find_tail ();
  limit = tt;
  i = 1;
  do
  :: i == 3 -> break
  :: i < 3 ->
     if
     :: !gone[i] && cursor[i] < limit -> limit = cursor[i]
     :: else
     fi;
     i++
  od;
  i = 0
}

/* the last step of giving a block back: not under a living reader */
#define set_free(x)                                                                                                    \
  assert (!HELD (x, 1) && !HELD (x, 2));                                                                               \
  block[x].state = FREE;                                                                                               \
  block[x].owner = 0;                                                                                                  \
  block[x].message = 0;                                                                                                \
  nudge = true

/* retiring is one CAS: only the generation that the slot names */
#ifdef MUTANT_RETIRE_ANY_GENERATION
#define SAME_GENERATION(x, y) (true)
#else
#define SAME_GENERATION(x, y) (block[x].generation == y)
#endif
#define retire(x, y)                                                                                                   \
  if                                                                                                                   \
  :: block[x].state == OWNED && SAME_GENERATION (x, y) -> block[x].state = RETIRED; block[x].owner = 0                  \
  :: else                                                                                                              \
  fi

mtype = { TRY, FULL, WAITING, CLAIM, COMMIT, LIMIT, TAKE, RETIRE, LOOK, FREE_IT, RELEASE, DONE,
          READ, HOLD, AGAIN, ACCEPT, UNHOLD, UNHOLD_LOOK, UNHOLD_FREE, VIEW };

/* "free it, if it is RETIRED and nobody holds it": load the word, load the holders, CAS the word. The generation in the word
 * makes the CAS safe. */
#define FREE_IF_UNHELD(step, free_step, x, next)                                                                       \
  :: d_step {                                                                                                          \
       pc == step ->                                                                                                   \
       if                                                                                                              \
       :: block[x].state == RETIRED && UNHELD (x) -> g = block[x].generation; pc = free_step                            \
       :: else -> pc = next                                                                                            \
       fi                                                                                                              \
     }                                                                                                                 \
  :: d_step {                                                                                                          \
       pc == free_step ->                                                                                              \
       if                                                                                                              \
       :: block[x].state == RETIRED && block[x].generation == g -> set_free (x)                                        \
       :: else                                                                                                         \
       fi;                                                                                                             \
       g = 0;                                                                                                          \
       pc = next                                                                                                       \
     }

#ifdef MUTANT_FREE_WITHOUT_HOLDERS
#define UNHELD(x) (true)
#else
#define UNHELD(x) (block[x].holders == 0)
#endif

/* Gives up what everybody has read, below "below"; then goes on with "after". */
#define RECLAIM                                                                                                        \
  :: d_step {                                                                                                          \
       pc == LIMIT ->                                                                                                  \
       min_cursor ();                                                                                                  \
       below = limit;                                                                                                  \
       pc = TAKE                                                                                                       \
     }                                                                                                                 \
  :: d_step {                                                                                                          \
       pc == TAKE ->                                                                                                   \
       advance_head ();                                                                                                \
       if                                                                                                              \
       :: hh < below && SLOT (hh).pos == hh && SLOT (hh).state == COMMITTED ->                                          \
          SLOT (hh).state = TAKEN;                                                                                     \
          SLOT (hh).owner = me;                                                                                        \
          h = hh;                                                                                                      \
          pc = RETIRE                                                                                                  \
       :: else -> below = 0; pc = after                                                                                \
       fi                                                                                                              \
     }                                                                                                                 \
  :: d_step { pc == RETIRE -> retire (SLOT (h).block, SLOT (h).generation); pc = LOOK }                                 \
  FREE_IF_UNHELD (LOOK, FREE_IT, SLOT (h).block, RELEASE)                                                              \
  :: d_step {                                                                                                          \
       pc == RELEASE ->                                                                                                \
       SLOT (h).state = EMPTY;                                                                                         \
       SLOT (h).owner = 0;                                                                                             \
       SLOT (h).pos = h + SLOTS;                                                                                       \
       nudge = true;                                                                                                   \
       h = 0;                                                                                                          \
       pc = TAKE                                                                                                       \
     }

proctype Sender (byte me)
{
  mtype pc = TRY;
  mtype after = DONE;
  byte n;
  byte b = BLOCKS;
  byte t;
  byte h;
  byte g;
  byte below;
  bool tried;

  {
end:
    do
    :: d_step { /* a block first, then a place */
         pc == TRY ->
         nudge = nudge && tried; /* what happens from here on is seen, or wakes us */
         if
         :: b == BLOCKS ->
            if
            :: block[0].state == FREE || block[1].state == FREE || (BLOCKS == 3 && block[2].state == FREE) ->
               b = (block[0].state == FREE -> 0 : (block[1].state == FREE -> 1 : 2));
               block[b].state = OWNED;
               block[b].owner = me;
               block[b].generation = block[b].generation + 1;
               block[b].message = n + 1
            :: else -> pc = FULL
            fi
         :: else ->
            min_cursor ();
            advance_head ();
            if
            :: hh > limit -> limit = hh
            :: else
            fi;
            if
            :: tt - limit < CAPACITY && SLOT (tt).pos == tt -> t = tt; pc = CLAIM
            :: else -> pc = FULL
            fi
         fi;
         if
         :: pc == FULL && !tried ->
            tried = true;
            after = TRY;
            pc = LIMIT
         :: else
         fi
       }
    :: d_step { /* drop the oldest message, if that is possible now */
         pc == FULL ->
         advance_head ();
         if
         :: SLOT (hh).pos == hh && SLOT (hh).state == COMMITTED ->
            below = hh + 1;
            after = TRY;
            pc = TAKE
         :: else -> pc = WAITING
         fi
       }
    :: d_step { pc == FULL -> pc = WAITING }
    :: d_step { pc == WAITING && nudge -> tried = false; pc = TRY }
    :: d_step { pc == CLAIM -> SLOT (t).state = WRITING; SLOT (t).owner = me; pc = COMMIT }
    :: d_step {
         pc == COMMIT ->
         assert (block[b].state == OWNED && block[b].owner == me && block[b].message == n + 1);
         SLOT (t).block = b;
         SLOT (t).generation = block[b].generation;
         SLOT (t).state = COMMITTED;
         t = 0;
         b = BLOCKS;
         after = DONE;
         pc = LIMIT
       }
    RECLAIM
    :: d_step {
         pc == DONE ->
         n++;
         if
         :: n < MESSAGES -> tried = false; pc = TRY
         :: else -> finished[me] = true; n = 0; pc = 0
         fi
       }
    od
  }
  unless { dead == me }
}

proctype Reader (byte me)
{
  mtype pc = READ;
  mtype after = VIEW;
  byte c; /* the cursor */
  byte b = BLOCKS;
  byte m;
  byte h;
  byte g;
  byte below;

  {
end:
    do
    :: d_step { /* something is there, or we were overtaken */
         pc == READ && (SLOT (c).pos > c || (SLOT (c).pos == c && SLOT (c).state != EMPTY && SLOT (c).state != WRITING)) ->
         if
         :: SLOT (c).pos > c ->
            advance_head ();
            c = (hh > c -> hh : c + 1);
            cursor[me] = c;
            nudge = true
         :: SLOT (c).pos == c && (SLOT (c).state == TAKEN || SLOT (c).state == VOID) ->
            c++;
            cursor[me] = c;
            nudge = true
         :: else -> pc = HOLD
         fi
       }
    :: d_step { pc == HOLD -> b = SLOT (c).block; pc = AGAIN } /* the slot may be another one's by now */
    :: d_step { pc == AGAIN -> block[b].holders = block[b].holders | (1 << me); pc = ACCEPT }
    :: d_step {
         pc == ACCEPT ->
         if
#ifdef MUTANT_ACCEPT_TAKEN
         :: SLOT (c).pos == c && (SLOT (c).state == COMMITTED || SLOT (c).state == TAKEN) ->
#elif defined(MUTANT_NO_SECOND_LOOK)
         :: true ->
#else
         :: SLOT (c).pos == c && SLOT (c).state == COMMITTED ->
#endif
            view[me] = b;
            m = block[b].message;
            c++;
            cursor[me] = c;
            nudge = true;
            after = VIEW;
            pc = LIMIT
#ifndef MUTANT_NO_SECOND_LOOK
         :: else -> pc = UNHOLD
#endif
         fi
       }
    RECLAIM
    :: d_step {
         pc == VIEW ->
         assert (block[b].state != FREE && block[b].message == m);
         m = 0;
         view[me] = BLOCKS;
         pc = UNHOLD
       }
    :: d_step {
         pc == UNHOLD ->
         block[b].holders = block[b].holders & ~(1 << me);
#ifdef MUTANT_UNHOLD_ONLY
         b = BLOCKS;
         pc = READ
#else
         pc = UNHOLD_LOOK
#endif
       }
    FREE_IF_UNHELD (UNHOLD_LOOK, UNHOLD_FREE, b, DONE)
    :: d_step { pc == DONE -> b = BLOCKS; pc = READ }
    od
  }
  unless { dead == me }
}

#define MAYBE_RESTART                                                                                                  \
  if                                                                                                                   \
  :: restarts < RESTARTS -> restarts++; goto begin                                                                     \
  :: true                                                                                                              \
  fi

/* Whoever notices the death, in a process of its own. It may itself give up; then the next one begins anew. */
proctype Repairer ()
{
  byte k;
  byte restarts;
  byte candidates;
  byte named;
  byte seen;
  byte g;

end_well:
  dead != NOBODY;
begin:
  atomic { k = 0; candidates = 0; named = 0; seen = 0; g = 0 }
  do
  :: k == SLOTS -> break
  :: k < SLOTS ->
     d_step {
       if
       :: slot[k].owner == dead && slot[k].state == WRITING -> slot[k].state = VOID; slot[k].owner = NOBODY
       :: else
       fi
     }
     if
     :: slot[k].owner == dead && slot[k].state == TAKEN ->
        d_step { retire (slot[k].block, slot[k].generation) }
        MAYBE_RESTART;
        if
        :: block[slot[k].block].state == RETIRED && UNHELD (slot[k].block) -> /* atomic: see below */
           d_step {
             if
             :: block[slot[k].block].state == RETIRED && UNHELD (slot[k].block) -> set_free (slot[k].block)
             :: else
             fi
           }
        :: else
        fi;
        MAYBE_RESTART;
        d_step { slot[k].state = EMPTY; slot[k].owner = NOBODY; slot[k].pos = slot[k].pos + SLOTS }
     :: else
     fi;
     k++
  od;
  k = 0;
  do
  :: k == BLOCKS -> break
  :: k < BLOCKS ->
     d_step {
       candidates = candidates | ((block[k].state == OWNED && block[k].owner == dead) << k);
       k++
     }
  od;
  k = 0;
  do
  :: k == SLOTS -> break
  :: k < SLOTS ->
     seen = slot[k].state;
     d_step {
       if
       :: seen == COMMITTED || seen == TAKEN -> named = named | (1 << slot[k].block)
       :: else
       fi;
       seen = 0;
       k++
     }
  od;
  k = 0;
  do
  :: k == BLOCKS -> break
  :: k < BLOCKS ->
     d_step {
       if
       :: (candidates & (1 << k)) && !(named & (1 << k)) && block[k].state == OWNED && block[k].owner == dead ->
          set_free (k)
       :: else
       fi;
       k++
     }
  od;
  MAYBE_RESTART;
  k = 0;
  do
  :: k == BLOCKS -> break
  :: k < BLOCKS ->
#ifndef MUTANT_REPAIR_LEAVES_HOLDERS
     if
     :: dead != 0 -> block[k].holders = block[k].holders & ~(1 << dead)
     :: else
     fi;
#endif
     d_step { /* load, load, CAS in one: nobody sets a bit that counts on a RETIRED block */
       if
       :: block[k].state == RETIRED && UNHELD (k) -> set_free (k)
       :: else
       fi;
       k++
     }
  od;
  atomic {
    gone[dead] = true;
    repaired = true;
    nudge = true;
    k = 0; candidates = 0; named = 0; restarts = 0
  }
}

proctype Killer ()
{
#ifdef VICTIM
  dead = VICTIM
#else
  if
  :: dead = 0
  :: dead = 1
  :: dead = 2
  :: true
  fi
#endif
}

/* When nothing moves any more: everybody has everything, and every block is free or named by a slot. */
proctype Judge ()
{
  byte k;
  byte named;

  timeout;
  d_step {
    assert (dead == NOBODY || repaired);
    assert (dead == 0 || finished[0]);
    find_tail ();
    assert (dead == 1 || cursor[1] == tt);
    assert (dead == 2 || cursor[2] == tt);
    do
    :: k == SLOTS -> break
    :: k < SLOTS ->
       assert (slot[k].state == EMPTY || slot[k].state == COMMITTED || slot[k].state == VOID);
       if
       :: slot[k].state == COMMITTED ->
          assert (block[slot[k].block].state == OWNED && block[slot[k].block].generation == slot[k].generation);
          named = named | (1 << slot[k].block)
       :: else
       fi;
       k++
    od;
    k = 0;
    do
    :: k == BLOCKS -> break
    :: k < BLOCKS ->
       assert (block[k].holders == 0);
       assert (block[k].state == FREE || (named & (1 << k)));
       k++
    od
  }
}

init
{
  atomic {
    slot[1].pos = 1;
    slot[0].owner = NOBODY;
    slot[1].owner = NOBODY;
    run Judge ();
    run Killer ();
    run Repairer ();
    run Sender (0);
    run Reader (1);
    run Reader (2)
  }
}
