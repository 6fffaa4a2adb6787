/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* A kill at every numbered step: cases look first who passes which steps, then somebody is killed at each of them. */

#include "kill-common.h"

G_BEGIN_DECLS

#define KILL_STEPS_MAX (256)
#define KILL_LOOK (G_MAXUINT)

/* Each case of a sweep begins with it. */
typedef struct
{
  guint step; /* KILL_LOOK: only look which are passed */
  guint nth;  /* passing */
} KillPoint;

typedef struct
{
  char trouble[KILL_TROUBLE_MAX];
  gboolean reached;
  gint64 prompt;
  guint counts[KILL_STEPS_MAX]; /* of a look */
} KillOutcome;

typedef struct
{
  const GArray *looks; /* of cases; each is done without a kill first */
  gsize case_size;
  guint at_once;  /* cases */
  gint64 timeout; /* of one, microseconds */
  guint nth_max;  /* the victim passes a step up to that many times before it is killed there */
  guint tries;    /* before a step counts as not reached: another process may be quicker with a repair, for example */
  gboolean some;  /* only some of the victims: they don't reach all steps */
  FerryRandom *random;
  void (*run) (gconstpointer test, guint place, gpointer outcome); /* in the process of the case */
  char *(*describe) (gconstpointer test);
  /* How often to kill at a step that was passed @count times in a look; 0: not there. */
  guint (*rounds) (gconstpointer look, const char *step, guint count);
} KillSweep;

/* The steps that are meant, once each: those of stores, or all others. */
void kill_sweep_list_steps (gboolean of_stores);
guint kill_sweep_find_step (const char *name);             /* KILL_LOOK: there is none */
const char *kill_sweep_step_name (const KillPoint *point); /* "no step": a look */

/* In the victim: from now on it dies there, or what it passes is counted. */
void kill_sweep_arm (const KillPoint *point, KillOutcome *outcome);

/* Does all of it, and reports. FERRY_KILL_STEP: only that step. */
void kill_sweep_run (const KillSweep *self);

G_END_DECLS
