/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#if !defined(FERRY_INSIDE) && !defined(FERRY_COMPILATION)
#error "Only <ferry.h> can be included directly."
#endif

#include <gio/gio.h>

#include "ferry-version-macros.h"

G_BEGIN_DECLS

typedef struct _FerryBuffer FerryBuffer;
typedef struct _FerryTensor FerryTensor;
typedef struct _FerryStatistics FerryStatistics;
typedef struct _FerryParticipant FerryParticipant;
typedef struct _FerryChannelConfig FerryChannelConfig;

/**
 * FERRY_WAIT_FOREVER:
 *
 * The time-out that never comes: an operation waits until it can be done, is
 * cancelled, or the channel is closed.
 *
 * Since: 1.0
 */
#define FERRY_WAIT_FOREVER (G_GINT64_CONSTANT (-1))

/**
 * FERRY_NO_WAIT:
 *
 * The time-out of an operation that must not wait: it is done at once, or fails
 * with %FERRY_ERROR_FULL or %FERRY_ERROR_EMPTY.
 *
 * Since: 1.0
 */
#define FERRY_NO_WAIT (G_GINT64_CONSTANT (0))

G_END_DECLS
