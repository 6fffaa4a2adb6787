/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* Help for tests of many processes: directories of their own, children that cannot
 * outlive the test, memory that they share apart from Ferry's, payload that proves itself, TAP. */

#include <ferry.h>

#include <stdatomic.h>
#include <sys/types.h>

G_BEGIN_DECLS

/* Time-outs of these helpers, in microseconds. */
#define FERRY_PEERS_MS (G_GINT64_CONSTANT (1000))
#define FERRY_PEERS_S (G_GINT64_CONSTANT (1000000))

/* A message at least that long says who sent it, see ferry_payload_fill(). In bytes. */
#define FERRY_PAYLOAD_HEADER (16)

typedef int (*FerryPeerFunc) (gpointer data);

void ferry_peers_setup (int argc, char **argv);
int ferry_peers_finish (void);
gboolean ferry_peers_is_thorough (void);
gboolean ferry_peers_is_sanitized (void);
void ferry_peers_enter (guint number);
guint ferry_peers_count_names (GString *list);
void ferry_peers_sweep_names (void);
guint ferry_peers_count_fds (void);

G_GNUC_PRINTF (2, 3)
void ferry_peers_report (gboolean ok, const char *format, ...);

G_GNUC_PRINTF (1, 2)
void ferry_peers_note (const char *format, ...);

/* Processes */

pid_t ferry_peers_fork (FerryPeerFunc func, gpointer data);
pid_t ferry_peers_spawn (const char *const *arguments);
gboolean ferry_peers_wait (pid_t pid, gint64 timeout, int *status);
gboolean ferry_peers_ended_well (int status);
const char *ferry_peers_tell_end (int status);
gpointer ferry_peers_share (gsize size, int *fd);
gpointer ferry_peers_map (int fd, gsize size);

/* Numbers */

typedef struct
{
  guint64 state;
} FerryRandom;

guint64 ferry_peers_seed (void);
void ferry_random_init (FerryRandom *self, guint64 seed);
guint64 ferry_random_next (FerryRandom *self);
guint ferry_random_below (FerryRandom *self, guint n);

/* Payload */

void ferry_payload_fill (guint8 *data, gsize size, guint16 key, guint32 sequence, guint16 tag);
gboolean ferry_payload_check (const guint8 *data, gsize size, guint16 *key, guint32 *sequence, guint16 *tag);

/* Channels */

FerryChannel *ferry_peers_open (const char *transport, const char *name, FerryRole role, GError **error,
                                const char *first_property, ...) G_GNUC_NULL_TERMINATED;

G_END_DECLS
