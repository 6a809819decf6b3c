#!/usr/bin/env bash
# Brings Debian's docker-registry as a program to run, not as a service: the package starts one.
set -euo pipefail
cd "$(dirname "$0")/.."

scripts/system-packages.sh docker-registry
if [ -d /run/systemd/system ]; then
  sudo -n systemctl disable --quiet --now docker-registry 2>/dev/null ||
    systemctl disable --quiet --now docker-registry
fi
