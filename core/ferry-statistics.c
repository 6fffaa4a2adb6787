/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ferry-statistics.h"

G_DEFINE_BOXED_TYPE (FerryStatistics, ferry_statistics, ferry_statistics_copy, ferry_statistics_free)
G_DEFINE_BOXED_TYPE (FerryParticipant, ferry_participant, ferry_participant_copy, ferry_participant_free)

/**
 * ferry_statistics_new:
 *
 * Statistics in which every number is 0.
 *
 * Returns: (transfer full): new statistics
 *
 * Since: 1.0
 */
FerryStatistics *
ferry_statistics_new (void)
{
  return g_new0 (FerryStatistics, 1);
}

/**
 * ferry_statistics_copy:
 * @self: statistics
 *
 * Copies a snapshot.
 *
 * Returns: (transfer full): a copy
 *
 * Since: 1.0
 */
FerryStatistics *
ferry_statistics_copy (const FerryStatistics *self)
{
  g_return_val_if_fail (self != NULL, NULL);

  return g_memdup2 (self, sizeof *self);
}

/**
 * ferry_statistics_free:
 * @self: (transfer full): statistics
 *
 * Frees a snapshot.
 *
 * Since: 1.0
 */
void
ferry_statistics_free (FerryStatistics *self)
{
  g_free (self);
}

/**
 * ferry_participant_new:
 *
 * A participant in which every number is 0.
 *
 * Returns: (transfer full): a new participant
 *
 * Since: 1.0
 */
FerryParticipant *
ferry_participant_new (void)
{
  return g_new0 (FerryParticipant, 1);
}

/**
 * ferry_participant_copy:
 * @self: a participant
 *
 * Copies what is known about a participant.
 *
 * Returns: (transfer full): a copy
 *
 * Since: 1.0
 */
FerryParticipant *
ferry_participant_copy (const FerryParticipant *self)
{
  g_return_val_if_fail (self != NULL, NULL);

  return g_memdup2 (self, sizeof *self);
}

/**
 * ferry_participant_free:
 * @self: (transfer full): a participant
 *
 * Frees what is known about a participant; the participant itself goes on.
 *
 * Since: 1.0
 */
void
ferry_participant_free (FerryParticipant *self)
{
  g_free (self);
}
