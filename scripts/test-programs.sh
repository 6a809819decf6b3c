#!/usr/bin/env bash
# Brings the programs that some tests run. Tests whose program is missing are skipped, except on a CI machine
# (CI is set), where a missing program is an error.
set -euo pipefail
cd "$(dirname "$0")/.."
failed=0

# need PROGRAM WHAT-FOR COMMAND...: COMMAND brings PROGRAM, where it is not there.
need() {
  local program="$1" purpose="$2"
  shift 2
  if command -v "$program" >/dev/null || { "$@" && command -v "$program" >/dev/null; }; then
    return
  fi
  echo "without $program, tests that $purpose are skipped" >&2
  failed=1
}

# A registry as the tests need it, not as a service: Debian's package starts one.
install_registry() {
  scripts/system-packages.sh docker-registry || return 1
  if [ -d /run/systemd/system ]; then
    sudo -n systemctl disable --quiet --now docker-registry 2>/dev/null ||
      systemctl disable --quiet --now docker-registry
  fi
}

need docker-registry "talk to a real registry" install_registry

[ -z "${CI:-}" ] || exit "$failed"
