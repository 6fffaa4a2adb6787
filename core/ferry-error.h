/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#if !defined(FERRY_INSIDE) && !defined(FERRY_COMPILATION)
#error "Only <ferry.h> can be included directly."
#endif

#include <glib-object.h>

#include "ferry-version-macros.h"

G_BEGIN_DECLS

/**
 * FERRY_ERROR:
 *
 * The error domain of Ferry. Cancelled operations fail with
 * %G_IO_ERROR_CANCELLED instead, as everywhere in GIO.
 *
 * Since: 1.0
 */
#define FERRY_ERROR (ferry_error_quark ())

/**
 * FerryError:
 * @FERRY_ERROR_FAILED: a system call failed in a way that no other code describes
 * @FERRY_ERROR_INVALID_ARGUMENT: a value is out of its range, or does not go with another
 * @FERRY_ERROR_PARSE: a description or URI is not well-formed
 * @FERRY_ERROR_NO_SUCH_FEATURE: no plugin offers a transport or codec of that name
 * @FERRY_ERROR_PLUGIN: a plugin is unavailable, blacklisted or could not be loaded
 * @FERRY_ERROR_NOT_FOUND: there is no channel of that name
 * @FERRY_ERROR_EXISTS: there is a channel of that name already
 * @FERRY_ERROR_MISMATCH: the channel exists with other settings (mode, capacity, ...)
 * @FERRY_ERROR_PERMISSION: the channel belongs to somebody else, or may not be written
 * @FERRY_ERROR_NO_SPACE: shared memory ran out
 * @FERRY_ERROR_TOO_BIG: the message can never fit into this channel
 * @FERRY_ERROR_FULL: the channel is full and the sender may not wait
 * @FERRY_ERROR_EMPTY: no message waits and the receiver may not wait
 * @FERRY_ERROR_TIMED_OUT: the time-out came first
 * @FERRY_ERROR_CLOSED: the endpoint or the channel is closed
 * @FERRY_ERROR_END_OF_STREAM: every sender has ended its stream and all messages are taken
 * @FERRY_ERROR_CORRUPT: shared memory holds what no correct peer writes
 * @FERRY_ERROR_VERSION: the channel has a layout this library does not know
 * @FERRY_ERROR_UNSUPPORTED: this transport, codec, role or platform can't do it
 * @FERRY_ERROR_CODEC: a value could not be encoded or a message not decoded
 * @FERRY_ERROR_TOO_MANY: the channel has no room for one more participant
 *
 * Error codes of %FERRY_ERROR.
 *
 * Since: 1.0
 */
typedef enum
{
  FERRY_ERROR_FAILED,
  FERRY_ERROR_INVALID_ARGUMENT,
  FERRY_ERROR_PARSE,
  FERRY_ERROR_NO_SUCH_FEATURE,
  FERRY_ERROR_PLUGIN,
  FERRY_ERROR_NOT_FOUND,
  FERRY_ERROR_EXISTS,
  FERRY_ERROR_MISMATCH,
  FERRY_ERROR_PERMISSION,
  FERRY_ERROR_NO_SPACE,
  FERRY_ERROR_TOO_BIG,
  FERRY_ERROR_FULL,
  FERRY_ERROR_EMPTY,
  FERRY_ERROR_TIMED_OUT,
  FERRY_ERROR_CLOSED,
  FERRY_ERROR_END_OF_STREAM,
  FERRY_ERROR_CORRUPT,
  FERRY_ERROR_VERSION,
  FERRY_ERROR_UNSUPPORTED,
  FERRY_ERROR_CODEC,
  FERRY_ERROR_TOO_MANY,
} FerryError;

FERRY_AVAILABLE_IN_1_0
GQuark ferry_error_quark (void) G_GNUC_CONST;

G_END_DECLS
