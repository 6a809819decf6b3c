#!/usr/bin/env bash
# Runs this checkout in a cluster: builds the service's container image, pushes it, has the deployment use it,
# and follows its log.
set -euo pipefail
cd "$(dirname "$0")/.."

usage() {
  cat <<'END'
usage: scripts/debug.sh [options] REPOSITORY

Builds the container image of this checkout, pushes it to REPOSITORY (such as registry.example.com/me/imgbuilder),
has the deployment in the cluster of the current kube context use it, waits until it runs, and follows its log.

  -n, --namespace NAME    of the deployment (default: the context's)
  -c, --context NAME      another kube context
  -d, --deployment NAME   (default: image-builder-mk3)
  -t, --tag TAG           of the image (default: debug- and the time)
  -p, --platform OS/ARCH  of the cluster's nodes (default: linux/amd64)
  -b, --builder PROGRAM   docker, podman or buildah (default: the first that works)
      --base IMAGE        in the place of the Dockerfile's Python image
      --pip-conf FILE     for packages of another index; ends in no layer
      --plain-http        push without TLS (podman and buildah; docker asks its daemon's configuration)
      --no-verbose        leave the service's log as it is: otherwise it is asked for details (-v)
      --no-follow         end when the deployment runs
      --dry-run           only show the steps
  -h, --help

To go back: kubectl apply -k OVERLAY, as it was installed, or kubectl rollout undo, once for each run of this.
END
}

fail() {
  echo "debug.sh: $*" >&2
  exit 1
}

misused() {
  echo "debug.sh: $* (see scripts/debug.sh --help)" >&2
  exit 2
}

show() {
  local word
  printf '+'
  for word in "$@"; do
    case "$word" in
      *[!A-Za-z0-9_./:=@,+-]*) printf " '%s'" "$word" ;;
      *) printf ' %s' "$word" ;;
    esac
  done
  printf '\n'
}

# Shows a step, and does it unless this is a dry run.
step() {
  show "$@"
  [ -n "$dry_run" ] || "$@"
}

works() {
  case "$1" in
    docker) docker info >/dev/null 2>&1 ;;
    podman) podman info >/dev/null 2>&1 ;;
    *) command -v "$1" >/dev/null ;;
  esac
}

find_builder() {
  local candidate
  for candidate in docker podman buildah; do
    if works "$candidate"; then
      echo "$candidate"
      return
    fi
  done
  return 1
}

builder="" namespace="" context="" deployment=image-builder-mk3 tag="debug-$(date -u +%Y%m%d-%H%M%S)"
platform=linux/amd64 base="" pip_conf="" plain_http="" verbose=yes follow=yes dry_run="" repository=""

while [ $# -gt 0 ]; do
  case "$1" in
    -n | --namespace | -c | --context | -d | --deployment | -t | --tag | -p | --platform | -b | --builder | --base | --pip-conf)
      [ $# -gt 1 ] || misused "$1 needs a value"
      ;;
  esac
  case "$1" in
    -n | --namespace) namespace="$2" && shift ;;
    -c | --context) context="$2" && shift ;;
    -d | --deployment) deployment="$2" && shift ;;
    -t | --tag) tag="$2" && shift ;;
    -p | --platform) platform="$2" && shift ;;
    -b | --builder) builder="$2" && shift ;;
    --base) base="$2" && shift ;;
    --pip-conf) pip_conf="$2" && shift ;;
    --plain-http) plain_http=yes ;;
    --no-verbose) verbose="" ;;
    --no-follow) follow="" ;;
    --dry-run) dry_run=yes ;;
    -h | --help)
      usage
      exit
      ;;
    -*) misused "unknown option $1" ;;
    *)
      [ -z "$repository" ] || misused "more than one repository: $repository and $1"
      repository="$1"
      ;;
  esac
  shift
done

[ -n "$repository" ] || misused "no repository was given to push to"
case "$repository" in
  *@*) misused "$repository has a digest: name a repository, and the tag with --tag" ;;
esac
case "${repository##*/}" in
  *:*) misused "$repository has a tag: give it with --tag" ;;
esac
case "$repository$tag" in
  *[!A-Za-z0-9._/:-]*) misused "$repository:$tag is no name of an image" ;;
esac
case "$builder" in
  "") builder=$(find_builder) || fail "no builder: install docker, podman or buildah (or start docker)" ;;
  docker | podman | buildah)
    works "$builder" || fail "$builder does not work here: is it installed, and does it run?"
    ;;
  *) misused "unknown builder $builder: docker, podman or buildah" ;;
esac
[ -z "$pip_conf" ] || [ -r "$pip_conf" ] || fail "$pip_conf can't be read"
command -v kubectl >/dev/null || fail "kubectl is not installed"

kubectl=(kubectl)
[ -z "$context" ] || kubectl+=(--context "$context")
[ -z "$namespace" ] || kubectl+=(--namespace "$namespace")
if [ -z "$context" ]; then
  context=$(kubectl config current-context 2>/dev/null) || fail "kubectl has no current context: choose one with --context"
fi
image="$repository:$tag"

options=(--platform "$platform" --tag "$image")
[ -z "$base" ] || options+=(--build-arg "PYTHON_IMAGE=$base")
[ -z "$pip_conf" ] || options+=(--secret "id=pip.conf,src=$pip_conf")

echo "image $image, with $builder; deployment $deployment of context $context"
# A deployment that is not there, or a context that leads nowhere, is better known before minutes of building.
# Its containers and labels may have other names than ours: a patch with a name that it does not know adds a container.
template='{{range .spec.template.spec.containers}}{{.name}} {{end}}/'
# shellcheck disable=SC2016 # the variables are the template's
template+='{{range $key, $value := .spec.selector.matchLabels}}{{$key}}={{$value}},{{end}}'
look=("${kubectl[@]}" get deployment "$deployment" --output "go-template=$template")
container=CONTAINER selector=LABELS
show "${look[@]}"
if [ -z "$dry_run" ]; then
  errors=$(mktemp)
  found=$("${look[@]}" 2>"$errors") || found=""
  error=$(cat "$errors")
  rm -f "$errors"
  [ -n "$found" ] || fail "deployment $deployment can't be read: ${error//$'\n'/ }"
  containers=" ${found%%/*}" selector="${found#*/}" selector="${selector%,}"
  case "$containers" in
    *" image-builder-mk3 "*) container="image-builder-mk3" ;;
    " "*" "*" ") fail "deployment $deployment has several containers, and none is called image-builder-mk3:$containers" ;;
    *) container="${containers//[[:space:]]/}" ;;
  esac
fi

step "$builder" build "${options[@]}" . || fail "the image could not be built"

push() {
  local output status=0
  local options=()
  [ -z "$plain_http" ] || [ "$builder" = docker ] || options+=(--tls-verify=false)
  output=$(mktemp)
  # An empty list counts as unset in old versions of bash.
  step "$builder" push ${options[@]+"${options[@]}"} "$image" 2>&1 | tee "$output" || status=$?
  if [ "$status" != 0 ] && grep -qiE 'unauthorized|denied|authentication|forbidden|no basic auth' "$output"; then
    rm -f "$output"
    fail "not logged in to ${repository%%/*}, or without the right to push there: $builder login ${repository%%/*}"
  fi
  rm -f "$output"
  [ "$status" = 0 ] || fail "the image could not be pushed"
}
push

arguments='["run", "--config", "/config/image-builder.json"'
[ -z "$verbose" ] || arguments+=', "--verbose"'
arguments+=']'
# In one change, so that there is one revision to go back from. The time restarts it also where the image's name is
# the same as before; it is the annotation of `kubectl rollout restart`.
patch='{"spec": {"template": {"metadata": {"annotations": {"kubectl.kubernetes.io/restartedAt":'
patch+=" \"$(date -u +%Y-%m-%dT%H:%M:%SZ)\"}}, \"spec\": {\"containers\": [{\"name\": \"$container\","
patch+=" \"image\": \"$image\", \"imagePullPolicy\": \"Always\", \"args\": $arguments}]}}}}"
step "${kubectl[@]}" patch deployment "$deployment" --patch "$patch" || fail "the deployment could not be changed"
step "${kubectl[@]}" rollout status "deployment/$deployment" --timeout 5m ||
  fail "the deployment does not come up: ${kubectl[*]} describe pods --selector $selector"
[ -n "$follow" ] || exit 0
step "${kubectl[@]}" logs --follow --selector "$selector" --container "$container" \
  --max-log-requests 20 --tail 100 --prefix
