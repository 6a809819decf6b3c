#!/usr/bin/env bash
# Brings the programs that the demo runs, where they are not there: on Debian and Ubuntu as packages, after
# saying so; elsewhere it says what to install, and ends with 1.
set -euo pipefail
cd "$(dirname "$0")/.."

has() { command -v "$1" >/dev/null || [ -x "/usr/sbin/$1" ]; }

packages=""
has git || packages="$packages git"
{ has docker && docker info >/dev/null 2>&1; } || has podman || has buildah || packages="$packages buildah runc"
has busybox && ! ldd "$(command -v busybox)" >/dev/null 2>&1 || packages="$packages busybox-static"
# shellcheck disable=SC2086  # words, on purpose
[ -z "$packages" ] || scripts/system-packages.sh $packages
has docker-registry || has registry || scripts/registry-program.sh
