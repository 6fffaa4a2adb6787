#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# Checks the models of the protocol with spin; see README.md.
#
#   run-model.sh [ring|broadcast|arena]...
#
# An "exhaustive" run must visit every state, or it fails. A "sampled" run (bitstate hashing, a time limit) visits as
# many as it can, says how many, and fails on any error. A "mutant" run must end in an error: the model is run with a
# mistake in the protocol. Skipped (77) without FERRY_TEST_THOROUGH=1 or without spin.

set -u

memory_mb=3500
# For one run: of processor time, so that it does not depend on what else the machine does, where the run must come to
# an end; of the clock where it need not.
seconds=${FERRY_MODEL_SECONDS:-240}
mutant_seconds=${FERRY_MODEL_MUTANT_SECONDS:-120}
sample_seconds=${FERRY_MODEL_SAMPLE_SECONDS:-60}

if [ "${FERRY_TEST_THOROUGH:-}" != 1 ]; then
  echo "model: set FERRY_TEST_THOROUGH=1 to run the models"
  exit 77
fi
if ! command -v spin > /dev/null; then
  echo "model: spin is not installed"
  exit 77
fi

here=$(cd "$(dirname "$0")" && pwd) || exit 1
work=$(mktemp -d "${TMPDIR:-/tmp}/ferry-model.XXXXXX") || exit 1
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
cd "$work" || exit 1

status=0

fail() {
  echo "FAIL $*"
  tail -n 40 pan.out 2> /dev/null | grep -v '^Depth='
  status=1
}

# build MODEL "pan's defines" spin's arguments...
build() {
  file=$here/$1.pml
  pan_defines=$2
  shift 2
  rm -f pan pan.* ./*.trail
  if ! spin -a "$@" "$file" > spin.out 2>&1; then
    cat spin.out
    return 1
  fi
  # shellcheck disable=SC2086
  ${CC:-gcc} -O2 -w -DSAFETY $pan_defines -DMEMLIM=$memory_mb -o pan pan.c
}

# search SECONDS "pan's arguments": ended by a signal after so many seconds
search() {
  # shellcheck disable=SC2086
  (ulimit -c 0 && ulimit -t "$1" && exec ./pan -m100000 $2) > pan.out 2>&1
}

states() {
  sed -n 's/^ *\([0-9.e+]*\) states, stored.*/\1/p' pan.out
}

has_error() {
  grep -q '^pan:[0-9]*: ' pan.out || ! grep -q 'errors: 0$' pan.out
}

exhaustive() {
  name=$*
  model=$1
  shift
  build "$model" -DCOLLAPSE "$@" || { fail "$name: can't build"; return; }
  search "$seconds" -w25
  if [ $? -gt 128 ]; then
    fail "$name: did not come to its end in $seconds s"
  elif has_error; then
    fail "$name"
  elif grep -q -e 'Search not completed' -e 'Interrupted' -e 'max search depth' -e 'MEMLIM' pan.out; then
    fail "$name: the search was cut short"
  else
    echo "ok   $name: exhaustive, $(states) states"
  fi
}

sampled() {
  name=$*
  model=$1
  shift
  build "$model" -DBITSTATE "$@" || { fail "$name: can't build"; return; }
  timeout -s INT -k 20 "$sample_seconds" ./pan -m100000 -w33 -k3 > pan.out 2>&1
  if has_error; then
    fail "$name"
  elif grep -q -e 'max search depth' -e 'MEMLIM' pan.out; then
    fail "$name: the search was cut short"
  elif grep -q 'Interrupted' pan.out; then
    echo "ok   $name: sampled only, $(states) states in $sample_seconds s, CUT SHORT by the time limit"
  else
    echo "ok   $name: sampled (bitstate), $(states) states, went to its end"
  fi
}

# Different searches reach different corners first: the plain order, then two random ones.
mutant() {
  name=$*
  model=$1
  shift
  for order in '' '-DT_RAND -DP_RAND'; do
    build "$model" "-DBITSTATE $order" "$@" || { fail "$name: can't build"; return; }
    for seed in 1 2; do
      search "$mutant_seconds" "-w30 -k3 ${order:+-RS$seed}"
      if grep -q '^pan:[0-9]*: \(assertion\|invalid\)' pan.out; then
        echo "ok   $name: found ($(sed -n 's/^pan:[0-9]*: //p' pan.out | head -n 1))"
        return
      fi
      [ -n "$order" ] || break
    done
  done
  fail "$name: the mistake was not found"
}

[ $# -gt 0 ] || set -- ring broadcast arena
for which in "$@"; do
  case $which in
    ring)
      # one sender, every message of it
      exhaustive ring -DMESSAGES_0=1 -DMESSAGES_1=0
      # nobody killed: a lap and a half, so that hints get old; one slot more than may wait
      exhaustive ring -DNO_DEATH -DMESSAGES_0=3 -DMESSAGES_1=0
      exhaustive ring -DNO_DEATH -DSLOTS=3 -DMESSAGES_0=1 -DMESSAGES_1=1
      # every kind of victim, then everything, as far as the time goes
      for victim in 0 1 2; do
        sampled ring -DVICTIM=$victim
      done
      sampled ring
      # more laps
      sampled ring -DNO_DEATH -DMESSAGES_0=4 -DMESSAGES_1=0
      mutant ring -DMUTANT_HEAD_PAST_TAKEN
      mutant ring -DMUTANT_TAIL_ANY_LAP -DNO_DEATH
      mutant ring -DMUTANT_HEAD_ANY_LAP -DNO_DEATH
      mutant ring -DMUTANT_OWN_HEAD_PAST_PENDING -DSLOTS=3 -DNO_DEATH -DMESSAGES_0=1 -DMESSAGES_1=1
      mutant ring -DMUTANT_NO_SECOND_LOOK
      mutant ring -DMUTANT_ONE_LOOK -DNO_DEATH -DMESSAGES_0=4 -DMESSAGES_1=0
      mutant ring -DMUTANT_NO_RECHECK
      mutant ring -DMUTANT_SENDER_NO_RECHECK -DNO_DEATH -DMESSAGES_0=4 -DMESSAGES_1=0
      mutant ring -DMUTANT_REPAIR_NO_WAKE
      mutant ring -DMUTANT_REPAIR_WAKES_BITS -DVICTIM=2 -DRESTARTS=0 -DMESSAGES_0=4 -DMESSAGES_1=0
      mutant ring -DMUTANT_FREE_WITHOUT_SLOTS -DVICTIM=0 -DRESTARTS=0 -DMESSAGES_0=1 -DMESSAGES_1=1
      mutant ring -DMUTANT_OWN_AFTER_EMPTY -DVICTIM=0 -DRESTARTS=0 -DMESSAGES_0=1 -DMESSAGES_1=0
      ;;
    broadcast)
      exhaustive broadcast -DMESSAGES=2 -DRESTARTS=0
      for victim in 0 1; do
        exhaustive broadcast -DMESSAGES=2 -DVICTIM=$victim
      done
      sampled broadcast
      mutant broadcast -DMUTANT_RETIRE_ANY_GENERATION -DBLOCKS=2 -DVICTIM=1 -DRESTARTS=0 -DMESSAGES=3
      mutant broadcast -DMUTANT_FREE_WITHOUT_HOLDERS
      mutant broadcast -DMUTANT_ACCEPT_TAKEN
      mutant broadcast -DMUTANT_NO_SECOND_LOOK
      mutant broadcast -DMUTANT_UNHOLD_ONLY
      mutant broadcast -DMUTANT_REPAIR_LEAVES_HOLDERS -DVICTIM=1 -DRESTARTS=0 -DMESSAGES=2
      ;;
    arena)
      # one block that everybody wants; more blocks than owners; a class that grows; then every kind of victim
      exhaustive arena -DBLOCKS=1
      exhaustive arena -DNO_DEATH -DBLOCKS=3
      exhaustive arena -DNO_DEATH -DUSED=1
      exhaustive arena -DROUNDS=1 -DTRIMS=1
      exhaustive arena -DVICTIM=0 -DTRIMS=1 -DRESTARTS=0
      exhaustive arena -DVICTIM=2 -DROUNDS=1
      exhaustive arena -DUSED=1 -DROUNDS=1 -DTRIMS=1
      sampled arena
      sampled arena -DUSED=1
      # plain stores would do with a fence behind each: what is wrong without is that they come late, nothing else
      exhaustive arena -DMUTANT_TRIM_RELEASE -DMUTANT_FREE_RELEASE -DFENCE -DNO_DEATH
      # too weak an order: the stores that set a block free, then the loads behind them and behind the clearing of a bit
      mutant arena -DMUTANT_TRIM_RELEASE -DNO_DEATH -DROUNDS=1 -DTRIMS=1
      mutant arena -DMUTANT_FREE_RELEASE -DNO_DEATH
      mutant arena -DMUTANT_BIT_FIRST -DNO_DEATH
      mutant arena -DMUTANT_LOOK_FIRST -DNO_DEATH
      mutant arena -DMUTANT_FREE_NO_BIT -DNO_DEATH
      mutant arena -DMUTANT_TRIM_NO_BIT -DNO_DEATH
      mutant arena -DMUTANT_TRIM_IN_PLACE -DNO_DEATH
      mutant arena -DMUTANT_RECENT_ANY_STATE -DNO_DEATH
      mutant arena -DMUTANT_CLAIM_STORE -DNO_DEATH
      mutant arena -DMUTANT_CLAIM_ANY_GENERATION -DNO_DEATH
      # taken without its bit, warmed up, grown
      mutant arena -DMUTANT_TRUST_COMMITTED -DNO_DEATH
      mutant arena -DMUTANT_FREE_LEFT_BIT -DNO_DEATH
      mutant arena -DMUTANT_COMMITTED_FIRST -DNO_DEATH
      mutant arena -DMUTANT_GROW_USED_FIRST -DUSED=1 -DNO_DEATH
      mutant arena -DMUTANT_GROW_NO_LOCK -DUSED=1 -DNO_DEATH
      mutant arena -DMUTANT_REPAIR_NO_RECOUNT -DVICTIM=0 -DRESTARTS=0
      mutant arena -DMUTANT_REPAIR_NO_BITS -DVICTIM=0 -DRESTARTS=0
      mutant arena -DMUTANT_REPAIR_LEAVES_TRIMMING -DVICTIM=2 -DRESTARTS=0 -DROUNDS=1 -DTRIMS=1
      ;;
    *)
      fail "no model $which"
      ;;
  esac
done
exit $status
