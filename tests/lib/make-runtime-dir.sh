#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# make-runtime-dir.sh BUILD-FOLDER: makes the directory that tests take for
# $XDG_RUNTIME_DIR and prints its path: in the build folder if that path is short
# enough for sockets in it (sun_path has 108 bytes, a channel's name takes its part).
set -eu

folder=$1/r
if [ ${#folder} -gt 50 ]; then
  folder=/tmp/ferry-test-$(id -u)-$(printf %s "$1" | cksum | cut -d ' ' -f 1)
fi
mkdir -p -m 700 "$folder"
# In /tmp somebody else may have been there first.
[ -O "$folder" ] && [ ! -L "$folder" ] || { echo "$folder is not ours" >&2; exit 1; }
chmod 700 "$folder"
printf '%s\n' "$folder"
