#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# out-of-tree.sh BUILD-FOLDER EXAMPLE-FOLDER NAME DESCRIPTION
#
# A plugin of somebody else: installs Ferry into a staging folder, builds the example
# against that with nothing but pkg-config, drops the plugin NAME into a folder, and sees
# that ferry-inspect lists it and that the example's program use-NAME works with it, on
# the channel of that description.
set -eu

build=$1 example=$2 name=$3 description=$4

fail ()
{
  printf 'out-of-tree: %s\n' "$*" >&2
  exit 1
}

option ()
{
  meson introspect --buildoptions "$build" |
    python3 -c 'import json, sys; print(next(o["value"] for o in json.load(sys.stdin) if o["name"] == sys.argv[1]))' "$1"
}

scratch=$(mktemp -d "$build/out-of-tree-XXXXXX")
trap 'rm -rf "$scratch"' EXIT
stage=$scratch/stage

prefix=$(option prefix)
libdir=$stage$prefix/$(option libdir)
meson install -C "$build" --no-rebuild --quiet --destdir "$stage" >/dev/null

# Only this one package lies in the staging folder: PKG_CONFIG_SYSROOT_DIR would move
# those of the system too.
mkdir "$scratch/pkgconfig" "$scratch/dropped"
sed "s|^prefix=.*|prefix=$stage$prefix|" "$libdir/pkgconfig/ferry-1.0.pc" >"$scratch/pkgconfig/ferry-1.0.pc"
export PKG_CONFIG_PATH=$scratch/pkgconfig

cp -r "$example" "$scratch/example"
make -C "$scratch/example" CFLAGS="-O2 -Wall -Wextra -Wno-unused-parameter -Werror ${OUT_OF_TREE_CFLAGS-}" >"$scratch/make.log" 2>&1 ||
  { cat "$scratch/make.log" >&2; fail 'the example does not build'; }

# One symbol, and that of the right name.
symbols=$(nm -D --defined-only "$scratch/example/libferry-$name.so" | awk '$2 != "w" && $3 !~ /^__odr_asan/ { print $3 }')
[ "$symbols" = "ferry_plugin_${name//-/_}_desc" ] || fail "the module exports: $symbols"

# From here on the installed Ferry, and nothing of the build tree.
pluginsdir=$(pkg-config --variable=pluginsdir ferry-1.0)
export LD_LIBRARY_PATH=$libdir
export PATH=$stage$prefix/bin:$PATH
FERRY_PLUGIN_SCANNER=$(pkg-config --variable=libexecdir ferry-1.0)/ferry-plugin-scanner
export FERRY_PLUGIN_SCANNER
export FERRY_PLUGIN_PATH=$scratch/dropped:$pluginsdir
export FERRY_REGISTRY=$scratch/registry.json

if ferry-inspect "$name" >/dev/null 2>&1; then
  fail "ferry-inspect knows '$name' before it is there"
fi

cp "$scratch/example/libferry-$name.so" "$scratch/dropped/"
ferry-inspect --json "$name" >"$scratch/inspect.json" || fail "ferry-inspect does not find '$name'"
python3 - "$scratch/inspect.json" "$name" "$scratch/dropped" <<'PYTHON' || fail 'ferry-inspect tells something else'
import json
import sys

with open(sys.argv[1], encoding="utf-8") as file:
    told = json.load(file)
(plugin,) = told["plugins"]
assert plugin["state"] == "ok", plugin
assert plugin["filename"].startswith(sys.argv[3]), plugin
feature = next(f for f in told["features"] if f["name"] == sys.argv[2])
assert feature["plugin"] == plugin["name"], feature
assert feature["element"]["properties"], feature
PYTHON

"$scratch/example/use-$name" "$description" || fail "use-$name failed"

# `make install` puts it where it is found without FERRY_PLUGIN_PATH.
rm "$scratch/dropped/libferry-$name.so"
make -C "$scratch/example" install >/dev/null || fail 'make install failed'
[ -e "$pluginsdir/libferry-$name.so" ] || fail "make install did not put it into $pluginsdir"
"$scratch/example/use-$name" "$description" || fail "use-$name failed with the installed plugin"
