#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# pair.sh TRANSPORT SENDER RECEIVER: lets two example programs pass some messages
# over a channel and compares what came out. The receiver is started first once and
# the sender first once: who opens the channel must not matter.
set -u

transport=$1 sender=$2 receiver=$3
scratch=$(mktemp -d "${MESON_BUILD_ROOT:-.}/example-XXXXXX") || exit 99
trap 'kill $(jobs -p) 2>/dev/null; rm -rf "$scratch"' EXIT

messages=(first 'second one' 'Grüße, κόσμε' '' last)
printf '%s\n' "${messages[@]}" >"$scratch/expected"

for order in receiver-first sender-first; do
  channel="$transport name=example-$$-$order"
  if [ $order = receiver-first ]; then
    "$receiver" "$channel" >"$scratch/received" & receiver_pid=$!
    sleep 0.3
    "$sender" "$channel" "${messages[@]}" & sender_pid=$!
  else
    "$sender" "$channel" "${messages[@]}" & sender_pid=$!
    sleep 0.3
    "$receiver" "$channel" >"$scratch/received" & receiver_pid=$!
  fi
  wait $sender_pid || { echo "$order: the sender failed" >&2; exit 1; }
  wait $receiver_pid || { echo "$order: the receiver failed" >&2; exit 1; }
  diff -u "$scratch/expected" "$scratch/received" || { echo "$order: other messages came out" >&2; exit 1; }
done
