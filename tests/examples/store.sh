#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# store.sh TRANSPORT COUNTER...: lets example programs share a store at the same time, and looks whether the counter has
# all that they added.
set -u

transport=$1
shift
n=500
name=example-store-$$
store="$transport name=$name"
scratch=$(mktemp -d "${MESON_BUILD_ROOT:-.}/example-XXXXXX") || exit 99
trap 'kill $(jobs -p) 2>/dev/null; rm -rf "$scratch"' EXIT

# A store goes with the last program that has it open: this one stays.
ferry-store --create "$store" watch cfg >"$scratch/watched" & keeper=$!
for ((i = 0; i < 100; i++)); do
  ferry-store "$name" verify >/dev/null 2>&1 && break
  sleep 0.1
done

pids=()
for counter in "$@"; do
  "$counter" "$store" $n >"$scratch/out-${#pids[@]}" & pids+=($!)
done
for pid in "${pids[@]}"; do
  wait "$pid" || { echo "a counter failed" >&2; exit 1; }
done

counted=$(ferry-store "$name" get counter)
[ "$counted" = $((n * $#)) ] || { echo "counted $counted, expected $((n * $#))" >&2; exit 1; }
users=$(ferry-store --json "$name" get cfg.users | grep -c counter)
[ "$users" = $# ] || { echo "$users users, expected $#" >&2; exit 1; }
grep -hq "^$counted items$" "$scratch"/out-* || { echo "nobody printed the end" >&2; cat "$scratch"/out-* >&2; exit 1; }

# The step is the users' to change.
ferry-store "$name" set cfg.step 3
"$1" "$store" 10 >"$scratch/again" || exit 1
[ "$(cat "$scratch/again")" = "$((counted + 30)) items" ] || { cat "$scratch/again" >&2; exit 1; }
ferry-store "$name" verify || exit 1

# Background jobs of a script ignore SIGINT.
kill -TERM $keeper
wait $keeper
[ $? = 143 ] || { echo "the watcher failed" >&2; exit 1; }
grep -q "'step': <int64 3>" "$scratch/watched" || { cat "$scratch/watched" >&2; exit 1; }
