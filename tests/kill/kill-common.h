/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* A channel at work: survivors that keep a ledger in memory of their own, and what must
 * hold of that ledger when others were killed or stopped. */

#include "ferry-peers.h"

G_BEGIN_DECLS

/* Senders, living and dead, that a ledger has room for, and messages of each. */
#define KILL_KEYS (512)
#define KILL_SEQUENCES (16384)
/* Survivors; the first ones are senders. */
#define KILL_SURVIVORS_MAX (6)
/* After a death each survivor does something new within that time. Microseconds. */
#define KILL_PROMPT (1 * FERRY_PEERS_S)

typedef enum
{
  KILL_PHASE_RUN,
  KILL_PHASE_DRAIN, /* senders end their streams, receivers take what is left */
  KILL_PHASE_CLOSE,
} KillPhase;

typedef struct
{
  const char *transport;
  FerryMode mode;
  FerryOverflow overflow; /* of the survivors that send */
  guint capacity;
  guint64 max_bytes;
  guint history;
  guint n_senders;
  guint n_receivers;
  gboolean small_only; /* inline messages only */
  guint pace;          /* the longest pause between two messages, microseconds */
  char name[64];
} KillChannel;

typedef struct
{
  _Atomic gint32 pid;
  _Atomic guint32 ready;
  _Atomic guint32 done;       /* the stream is ended, or drained */
  _Atomic guint32 epoch_done; /* the last epoch of which it sent or received a message */
  _Atomic gint64 epoch_time;  /* when it did */
  _Atomic guint64 n_messages;
  _Atomic guint64 n_missed; /* broadcast with drop-oldest */
  char error[400];
} KillSurvivor;

typedef struct
{
  _Atomic guint32 trying; /* the last sequence whose sending began ... */
  _Atomic guint32 sent;   /* ... and ended well */
} KillKey;

typedef struct
{
  _Atomic guint32 epoch;
  _Atomic guint32 phase;
  _Atomic guint32 n_keys; /* 0 is no sender's */
  _Atomic guint32 n_duplicates;
  _Atomic guint32 n_victim_duplicates;
  KillSurvivor survivors[KILL_SURVIVORS_MAX];
  KillKey keys[KILL_KEYS];
  _Atomic guint8 received[KILL_KEYS][KILL_SEQUENCES]; /* a bit a survivor that receives; KILL_BY_VICTIM */
} KillLedger;

#define KILL_BY_VICTIM (0x80)

KillLedger *kill_ledger_new (void);
void kill_ledger_free (KillLedger *self);

guint kill_new_key (KillLedger *ledger);

/* In any participant: false with an error */
FerryChannel *kill_open (const KillChannel *channel, FerryRole role, FerryOverflow overflow, GError **error);
gboolean kill_send (KillLedger *ledger, FerryChannel *channel, guint key, gsize size, gboolean loan, gint64 timeout,
                    GError **error);
FerryBuffer *kill_receive (KillLedger *ledger, FerryChannel *channel, guint8 by, gint64 timeout, GError **error);
gsize kill_random_size (FerryRandom *random, gboolean small_only);

/* The survivors */
gboolean kill_start (KillLedger *ledger, const KillChannel *channel, pid_t *pids, GString *trouble);
gint64 kill_check_prompt (KillLedger *ledger, const KillChannel *channel, GString *trouble);
void kill_end (KillLedger *ledger, const KillChannel *channel, const pid_t *pids, guint n_may_be_lost,
               GString *trouble);
void kill_abandon (const pid_t *pids);
void kill_end_all (pid_t *pids, guint n);
gboolean kill_wait_stopped (pid_t pid);

/* Cases, each in a process of its own, several at a time. */
#define KILL_TROUBLE_MAX (1500)

typedef struct
{
  guint n_cases;
  gconstpointer cases;
  gsize case_size;
  gpointer results; /* in shared memory; each begins with KILL_TROUBLE_MAX characters that say what went wrong */
  gsize result_size;
  guint at_once;
  gint64 timeout; /* of one, microseconds */
  /* In the process of the case. The place is below at_once, and nobody else's while the case runs. */
  void (*run) (gconstpointer test, guint place, gpointer result);
  void (*ended) (guint index, gconstpointer test, gconstpointer result, gpointer data); /* in the caller; or NULL */
  gpointer data;                                                                        /* of @ended */
} KillCases;

void kill_run_cases (const KillCases *cases);

G_END_DECLS
