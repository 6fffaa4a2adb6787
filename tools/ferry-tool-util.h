/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <ferry.h>

G_BEGIN_DECLS

/* Exit statuses that all tools share, besides EXIT_SUCCESS and EXIT_FAILURE. */
#define TOOL_EXIT_USAGE 2
#define TOOL_EXIT_SIGNAL_BASE 128

void tool_init (const char *name);
void tool_printerr (const char *format, ...) G_GNUC_PRINTF (1, 2);
int tool_fail_usage (const char *format, ...) G_GNUC_PRINTF (1, 2);
char *tool_make_printable (const char *text);
char *tool_format_bytes (guint64 bytes);
gboolean tool_parse_size (const char *text, guint64 max, guint64 *size, GError **error);
gboolean tool_matches (const char *const *patterns, const char *name);
GPtrArray *tool_list_transports (const char *const *wanted, FerryTransportCapabilities capabilities, GError **error);

/* One set of named channels: those of a transport that belong to the user alone, or those that are open to one of the
 * user's groups and meet elsewhere. */
typedef struct
{
  FerryTransport *transport;
  gint64 group; /* -1: none */
  char **names;
} ToolListing;

GPtrArray *tool_list_channels (const char *transport_name, GError **error);

/* Turns the first SIGINT, SIGTERM or SIGHUP into a cancelled GCancellable; another one
 * a moment later ends the process at once. */
typedef struct _ToolSignals ToolSignals;

ToolSignals *tool_signals_new (GCancellable *cancellable);
void tool_signals_free (ToolSignals *self);
int tool_signals_get (ToolSignals *self);
gboolean tool_signals_is_broken (ToolSignals *self);
void tool_signals_watch_output (ToolSignals *self, int fd);
void tool_signals_enter_io (ToolSignals *self);
void tool_signals_leave_io (ToolSignals *self);

G_DEFINE_AUTOPTR_CLEANUP_FUNC (ToolSignals, tool_signals_free)

G_END_DECLS
