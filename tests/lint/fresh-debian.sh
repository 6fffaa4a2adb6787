#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# fresh-debian.sh [--keep] [--as-user] [COMMAND...]
#
# Makes a Debian 12 root with nothing but its essential packages, copies the last
# commit of this clone into it and runs `./run COMMAND...` there (default: test), as a
# newcomer would. Needs root, debootstrap and git. The packages come from where this
# machine's apt gets them. --as-user runs as an ordinary user who may use sudo; --keep
# leaves the root for a look.
set -euo pipefail

top=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
release=bookworm
keep=no
as_user=no

while [ $# -gt 0 ]; do
  case $1 in
    --keep) keep=yes ;;
    --as-user) as_user=yes ;;
    *) break ;;
  esac
  shift
done
[ $# -gt 0 ] || set -- test

[ "$(id -u)" -eq 0 ] || { echo "fresh-debian.sh needs root" >&2; exit 2; }
for tool in debootstrap git unshare; do
  command -v "$tool" >/dev/null || { echo "fresh-debian.sh needs $tool" >&2; exit 2; }
done

# The mounts made below are seen by this process alone and vanish with it.
if [ -z "${FERRY_FRESH_DEBIAN_UNSHARED-}" ]; then
  options=()
  [ $keep = yes ] && options+=(--keep)
  [ $as_user = yes ] && options+=(--as-user)
  FERRY_FRESH_DEBIAN_UNSHARED=yes exec unshare --mount --propagation private "$0" "${options[@]}" "$@"
fi

# Where this machine gets that release from: one line for each REPOSITORY RELEASE COMPONENT.
list_sources ()
{
  # shellcheck disable=SC2016
  apt-get indextargets --format '$(REPO_URI) $(RELEASE) $(COMPONENT) $(ORIGIN) $(CODENAME)' 'Created-By: Packages' |
    awk -v release="$release" '$4 == "Debian" && index($5, release) == 1 { print $1, $2, $3 }' | sort -u
}
sources=$(list_sources)
if [ -z "$sources" ]; then
  apt-get --quiet update >/dev/null
  sources=$(list_sources)
fi
mirror=$(awk -v release="$release" '$2 == release && $3 == "main" { print $1; exit }' <<<"$sources")
[ -n "$mirror" ] || { echo "apt on this machine knows no source of Debian $release" >&2; exit 2; }

root=$(mktemp -d /var/tmp/ferry-fresh-XXXXXX)
chmod 755 "$root"
cleanup ()
{
  umount --recursive --lazy "$root/proc" "$root/dev" 2>/dev/null || true
  if [ $keep = yes ]; then
    echo "the root is left in $root"
  else
    rm -rf --one-file-system "$root"
  fi
}
trap cleanup EXIT

echo "making a Debian root in $root"
debootstrap --variant=minbase "$release" "$root" "$mirror" >"$root.log" 2>&1 ||
  { tail -n 20 "$root.log" >&2; exit 1; }
rm -f "$root.log"

# The machine's settings of apt (a proxy, say) and its keys.
while read -r uri suite component; do
  echo "deb $uri $suite $component"
done <<<"$sources" >"$root/etc/apt/sources.list"
for path in apt.conf apt.conf.d auth.conf auth.conf.d trusted.gpg trusted.gpg.d; do
  [ -e "/etc/apt/$path" ] && cp -a "/etc/apt/$path" "$root/etc/apt/"
done
rm -f "$root"/etc/apt/apt.conf.d/*packagekit "$root"/etc/apt/apt.conf.d/*appstream
cp -L /etc/resolv.conf "$root/etc/resolv.conf" 2>/dev/null || true
cp /etc/hosts "$root/etc/hosts"

mount -t proc proc "$root/proc"
mount -t tmpfs -o mode=755 tmpfs "$root/dev"
for node in null zero full random urandom tty; do
  touch "$root/dev/$node"
  mount --bind "/dev/$node" "$root/dev/$node"
done
ln -s /proc/self/fd "$root/dev/fd"
for number in 0 1 2; do
  ln -s "/proc/self/fd/$number" "$root/dev/$(echo stdin stdout stderr | cut -d ' ' -f $((number + 1)))"
done
mkdir -p "$root/dev/shm" "$root/dev/pts"
mount -t tmpfs -o mode=1777 tmpfs "$root/dev/shm"
mount -t devpts -o newinstance,ptmxmode=0666 devpts "$root/dev/pts"
ln -s pts/ptmx "$root/dev/ptmx"

home=/root
if [ $as_user = yes ]; then
  home=/home/newcomer
  chroot "$root" useradd --create-home newcomer
  chroot "$root" sh -c 'apt-get --quiet update && apt-get --quiet --yes install --no-install-recommends sudo' >/dev/null 2>&1
  echo 'newcomer ALL=(ALL) NOPASSWD: ALL' >"$root/etc/sudoers.d/newcomer"
  # What was fetched for sudo is not there for a newcomer either.
  rm -rf "$root"/var/lib/apt/lists/*
fi

mkdir "$root$home/ferry"
git -C "$top" archive HEAD | tar -x -C "$root$home/ferry"
[ $as_user = no ] || chroot "$root" chown -R newcomer: "$home/ferry"

echo "running ./run $* in it"
# shellcheck disable=SC2016
run=(env -i "HOME=$home" PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin "TERM=${TERM-dumb}"
     sh -c 'cd "$HOME/ferry" && exec ./run "$@"' run "$@")
if [ $as_user = yes ]; then
  chroot --userspec=newcomer:newcomer "$root" "${run[@]}"
else
  chroot "$root" "${run[@]}"
fi
