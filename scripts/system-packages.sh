#!/usr/bin/env bash
# Installs the Debian packages named, where they are missing. Ends with 1, and says what to do, if it can't.
set -euo pipefail

if ! command -v apt-get >/dev/null; then
  echo "please install: $* (by the names Debian gives them)" >&2
  exit 1
fi

missing=""
for package in "$@"; do
  dpkg-query -W -f='${db:Status-Status}\n' "$package" 2>/dev/null | grep -qx installed || missing="$missing $package"
done
[ -n "$missing" ] || exit 0

if [ "$(id -u)" = 0 ]; then
  as_root=env
elif sudo -n true 2>/dev/null; then
  as_root="sudo env"
else
  echo "please install:$missing (with: sudo apt-get install$missing)" >&2
  exit 1
fi

echo "installing Debian packages:$missing"
# The lists may be old or absent; where they can't be had anew, what is there may still do.
$as_root apt-get -qq update || echo "apt-get update failed: going on with the lists that are there" >&2
# shellcheck disable=SC2086  # words, on purpose
$as_root DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends $missing >/dev/null
