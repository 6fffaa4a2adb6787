/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#if !defined(FERRY_INSIDE) && !defined(FERRY_COMPILATION)
#error "Only <ferry.h> can be included directly."
#endif

#include <glib-object.h>

#include "ferry-version-macros.h"

G_BEGIN_DECLS

/**
 * FerryRole:
 * @FERRY_ROLE_SENDER: puts messages into the channel
 * @FERRY_ROLE_RECEIVER: takes messages out of it
 * @FERRY_ROLE_OBSERVER: only looks: statistics, participants, verification; counts
 *   neither as sender nor as receiver and keeps nothing alive
 *
 * What an endpoint of a channel does.
 *
 * Since: 1.0
 */
typedef enum
{
  FERRY_ROLE_SENDER,
  FERRY_ROLE_RECEIVER,
  FERRY_ROLE_OBSERVER,
} FerryRole;

/**
 * FerryMode:
 * @FERRY_MODE_WORK_QUEUE: each message goes to exactly one receiver, first in, first out
 * @FERRY_MODE_BROADCAST: each receiver gets every message from its joining on, and
 *   the last `history` ones before that
 * @FERRY_MODE_STORE: no channel but the memory of a [class@Store]; nothing is sent or received
 *
 * How messages are given to receivers. Fixed when the channel is created.
 *
 * Since: 1.0
 */
typedef enum
{
  FERRY_MODE_WORK_QUEUE,
  FERRY_MODE_BROADCAST,
  FERRY_MODE_STORE,
} FerryMode;

/**
 * FerryOverflow:
 * @FERRY_OVERFLOW_BLOCK: wait until there is room (up to the time-out)
 * @FERRY_OVERFLOW_ERROR: fail with %FERRY_ERROR_FULL
 * @FERRY_OVERFLOW_DROP_OLDEST: discard the oldest message that waits
 * @FERRY_OVERFLOW_DROP_NEWEST: discard the message being sent
 *
 * The back-pressure policy: what a sender does when the channel is full. Each
 * sender has its own.
 *
 * Since: 1.0
 */
typedef enum
{
  FERRY_OVERFLOW_BLOCK,
  FERRY_OVERFLOW_ERROR,
  FERRY_OVERFLOW_DROP_OLDEST,
  FERRY_OVERFLOW_DROP_NEWEST,
} FerryOverflow;

/**
 * FerryWaitStrategy:
 * @FERRY_WAIT_STRATEGY_ADAPTIVE: spin for as long as recent arrivals made worth while, then sleep
 * @FERRY_WAIT_STRATEGY_SPIN: never sleep: lowest latency, one CPU busy
 * @FERRY_WAIT_STRATEGY_SLEEP: never spin: least CPU
 *
 * How an endpoint waits.
 *
 * Since: 1.0
 */
typedef enum
{
  FERRY_WAIT_STRATEGY_ADAPTIVE,
  FERRY_WAIT_STRATEGY_SPIN,
  FERRY_WAIT_STRATEGY_SLEEP,
} FerryWaitStrategy;

/**
 * FerryOpenMode:
 * @FERRY_OPEN_MODE_CREATE_OR_JOIN: join the channel of that name; create it when there is none
 * @FERRY_OPEN_MODE_CREATE: create it; fail with %FERRY_ERROR_EXISTS when there is one
 * @FERRY_OPEN_MODE_JOIN: join it; fail with %FERRY_ERROR_NOT_FOUND when there is none
 *
 * How a channel comes to be.
 *
 * Since: 1.0
 */
typedef enum
{
  FERRY_OPEN_MODE_CREATE_OR_JOIN,
  FERRY_OPEN_MODE_CREATE,
  FERRY_OPEN_MODE_JOIN,
} FerryOpenMode;

/**
 * FerryTransportEvent:
 * @FERRY_TRANSPORT_EVENT_NONE: nothing happened
 * @FERRY_TRANSPORT_EVENT_PEER_JOINED: a participant joined
 * @FERRY_TRANSPORT_EVENT_PEER_LEFT: a participant left in order
 * @FERRY_TRANSPORT_EVENT_PEER_DIED: a participant was found dead and repaired
 * @FERRY_TRANSPORT_EVENT_CLOSED: the channel was shut down
 *
 * What happened to a channel.
 *
 * Since: 1.0
 */
typedef enum
{
  FERRY_TRANSPORT_EVENT_NONE,
  FERRY_TRANSPORT_EVENT_PEER_JOINED,
  FERRY_TRANSPORT_EVENT_PEER_LEFT,
  FERRY_TRANSPORT_EVENT_PEER_DIED,
  FERRY_TRANSPORT_EVENT_CLOSED,
} FerryTransportEvent;

G_END_DECLS
