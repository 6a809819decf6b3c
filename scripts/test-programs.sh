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

# A client for any gRPC server, with the checksums that Go keeps of its modules.
install_grpcurl() {
  command -v go >/dev/null || return 1
  echo "building grpcurl (the first time this takes a minute or two)"
  GOBIN="$PWD/.cache/bin" go install github.com/fullstorydev/grpcurl/cmd/grpcurl@v1.9.3 2>.cache/grpcurl.txt ||
    { cat .cache/grpcurl.txt >&2; return 1; }
}

# What makes Kubernetes' objects of config/kubernetes, with the checksums that Go keeps of its modules.
install_kustomize() {
  command -v go >/dev/null || return 1
  echo "building kustomize (the first time this takes a minute)"
  GOBIN="$PWD/.cache/bin" go install sigs.k8s.io/kustomize/kustomize/v5@v5.7.1 2>.cache/kustomize.txt ||
    { cat .cache/kustomize.txt >&2; return 1; }
}

# Prometheus' own check of rules. The package starts a service, so that only this program of it is taken.
install_promtool() {
  command -v apt-get >/dev/null || return 1
  echo "taking promtool out of Debian's package prometheus"
  rm -rf .cache/promtool
  mkdir -p .cache/promtool
  (
    cd .cache/promtool
    apt-get -qq download prometheus 2>/dev/null || { as_root apt-get -qq update && apt-get -qq download prometheus; }
    dpkg-deb --fsys-tarfile prometheus_*.deb | tar -x ./usr/bin/promtool
  ) && mv .cache/promtool/usr/bin/promtool .cache/bin/ && rm -rf .cache/promtool
}

as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@"; fi
}

# The packages of the service's container image, for a test that builds it without a network.
download_wheels() {
  [ ! .cache/wheels/complete -nt requirements-service.lock ] || return 0
  echo "downloading what requirements-service.lock names"
  rm -rf .cache/wheels
  .venv/bin/python -m pip --disable-pip-version-check download --quiet --no-deps --only-binary :all: \
    --require-hashes -r requirements-service.lock -d .cache/wheels && touch .cache/wheels/complete
}

# gRPC for Node.js, as the lock file has it.
install_node_client() {
  command -v npm >/dev/null || return 1
  echo "installing gRPC for Node.js"
  (cd tests/interop/node && npm ci --silent --no-audit --no-fund)
}

mkdir -p .cache/bin
PATH="$PWD/.cache/bin:$PATH"

need docker-registry "talk to a real registry" scripts/registry-program.sh
need git "clone repositories" scripts/system-packages.sh git
need buildah "build images" scripts/system-packages.sh buildah
need runc "build images" scripts/system-packages.sh runc
need busybox "build images" scripts/system-packages.sh busybox-static
need skopeo "look at images with another tool" scripts/system-packages.sh skopeo
need grpcurl "call the service with grpcurl" install_grpcurl
need kustomize "make the objects of a cluster" install_kustomize
need promtool "check alerts" install_promtool
need shellcheck "check shell scripts" scripts/system-packages.sh shellcheck
if [ ! -d tests/interop/node/node_modules/@grpc/grpc-js ] && ! install_node_client; then
  echo "without Node.js and npm, tests that call the service from Node.js are skipped" >&2
  failed=1
fi

if ! download_wheels; then
  echo "without the service's packages, tests that build its container image are skipped" >&2
  failed=1
fi

[ -z "${CI:-}" ] || exit "$failed"
