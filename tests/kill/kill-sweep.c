/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "kill-sweep.h"
#include "ferry-segment-private.h"

#include <signal.h>
#include <string.h>

static const char *steps[KILL_STEPS_MAX];
static guint n_steps;
static guint *observed;

guint
kill_sweep_find_step (const char *name)
{
  for (guint i = 0; i < n_steps; i++)
    if (strcmp (steps[i], name) == 0)
      return i;
  return KILL_LOOK;
}

const char *
kill_sweep_step_name (const KillPoint *point)
{
  return point->step < n_steps ? steps[point->step] : "no step";
}

void
kill_sweep_list_steps (gboolean of_stores)
{
  guint n;
  const char *const *list = ferry_step_list (&n);

  for (guint i = 0; i < n; i++)
    /* those of tickets: kill-ticket.c */
    if (g_str_has_prefix (list[i], "store-") == of_stores && !g_str_has_prefix (list[i], "ticket-")
        && kill_sweep_find_step (list[i]) == KILL_LOOK)
      {
        g_assert (n_steps < KILL_STEPS_MAX);
        steps[n_steps++] = list[i];
      }
}

static void
observe_cb (const char *name)
{
  guint i = kill_sweep_find_step (name);

  if (i != KILL_LOOK)
    observed[i]++;
}

void
kill_sweep_arm (const KillPoint *point, KillOutcome *outcome)
{
  if (point->step == KILL_LOOK)
    {
      observed = outcome->counts;
      ferry_step_observe (observe_cb);
    }
  else
    {
      ferry_step_arm (steps[point->step], point->nth, SIGKILL);
    }
}

static gconstpointer
get_case (const KillSweep *self, const GArray *cases, guint i)
{
  return cases->data + i * self->case_size;
}

/* The outcomes are for good. */
static const KillOutcome *
run_cases (const KillSweep *self, const GArray *cases)
{
  KillOutcome *outcomes = ferry_peers_share (sizeof *outcomes * cases->len, NULL);

  kill_run_cases (&(KillCases){ .n_cases = cases->len,
                                .cases = cases->data,
                                .case_size = self->case_size,
                                .results = outcomes,
                                .result_size = sizeof *outcomes,
                                .at_once = self->at_once,
                                .timeout = self->timeout,
                                .run = self->run });
  return outcomes;
}

/* What there is to be killed. */
static GArray *
look (const KillSweep *self, const char *only)
{
  GArray *cases = g_array_new (FALSE, TRUE, (guint) self->case_size);
  const KillOutcome *outcomes = run_cases (self, self->looks);

  for (guint i = 0; i < self->looks->len; i++)
    {
      gconstpointer one = get_case (self, self->looks, i);
      g_autofree char *text = self->describe (one);

      ferry_peers_report (outcomes[i].trouble[0] == '\0', "%s: nobody killed%s", text, outcomes[i].trouble);
      for (guint step = 0; step < n_steps; step++)
        {
          guint count = outcomes[i].counts[step];

          if (only != NULL && strcmp (steps[step], only) != 0)
            continue;
          for (guint rounds = self->rounds (one, steps[step], count); rounds > 0; rounds--)
            {
              KillPoint *point;

              g_array_append_vals (cases, one, 1);
              point = (KillPoint *) (void *) (cases->data + (cases->len - 1) * self->case_size);
              point->step = step;
              point->nth = 1 + ferry_random_below (self->random, CLAMP (count, 1, self->nth_max));
            }
        }
    }
  return cases;
}

void
kill_sweep_run (const KillSweep *self)
{
  const char *only = g_getenv ("FERRY_KILL_STEP");
  g_autoptr (GArray) cases = look (self, only);
  guint n_kills = 0;
  guint n_reached[KILL_STEPS_MAX] = { 0 };
  gint64 slowest[KILL_STEPS_MAX] = { 0 };
  guint n_bad[KILL_STEPS_MAX] = { 0 };

  /* What was not reached is tried again. */
  for (guint try = 0; try < self->tries && cases->len > 0; try++)
    {
      GArray *again = g_array_new (FALSE, TRUE, (guint) self->case_size);
      const KillOutcome *outcomes = run_cases (self, cases);

      for (guint i = 0; i < cases->len; i++)
        {
          gconstpointer one = get_case (self, cases, i);
          const KillOutcome *outcome = &outcomes[i];
          guint step = ((const KillPoint *) one)->step;
          g_autofree char *text = self->describe (one);

          if (!outcome->reached && outcome->trouble[0] == '\0')
            {
              g_array_append_vals (again, one, 1);
              ((KillPoint *) (void *) (again->data + (again->len - 1) * self->case_size))->nth = 1;
              continue;
            }
          n_kills += outcome->reached;
          n_reached[step] += outcome->reached;
          n_bad[step] += outcome->trouble[0] != '\0';
          slowest[step] = MAX (slowest[step], outcome->prompt);
          ferry_peers_report (outcome->trouble[0] == '\0', "%s%s", text, outcome->trouble);
        }
      g_array_unref (cases);
      cases = again;
    }

  ferry_peers_note ("%-26s %6s %7s %12s", "step", "kills", "trouble", "slowest, ms");
  for (guint step = 0; step < n_steps; step++)
    {
      if (only != NULL && strcmp (steps[step], only) != 0)
        continue;
      ferry_peers_note ("%-26s %6u %7u %12.1f", steps[step], n_reached[step], n_bad[step],
                        (double) slowest[step] / 1000);
      if (!self->some)
        ferry_peers_report (n_reached[step] > 0, "step %s has a scenario that reaches it", steps[step]);
    }
  ferry_peers_note ("%u kills at %u steps", n_kills, n_steps);
}
