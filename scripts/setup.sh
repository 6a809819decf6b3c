#!/usr/bin/env bash
# Makes the virtual environment FOLDER (.venv if not said): everything in requirements.lock, checked by hash,
# and this project itself, so that changes in the checkout count at once.
set -euo pipefail
cd "$(dirname "$0")/.."
folder="${1:-.venv}"

# Whether a program is a Python that this project runs on.
fits() {
  "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' >/dev/null 2>&1
}

# Prints the first fitting Python; PYTHON, where it is set, is the only one asked.
find_python() {
  local candidate
  for candidate in ${PYTHON:-python3 python3.13 python3.12 python3.11 /usr/bin/python3}; do
    if fits "$candidate"; then
      echo "$candidate"
      return
    fi
  done
  return 1
}

make_environment() {
  local python version
  if ! python=$(find_python); then
    if [ -n "${PYTHON:-}" ] || ! scripts/system-packages.sh python3 || ! python=$(find_python); then
      echo "Python 3.11, 3.12 or 3.13 is needed, and none was found; name one with PYTHON=/path/to/python3" >&2
      exit 1
    fi
  fi
  version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
  if ! "$python" -c 'import ensurepip, venv' >/dev/null 2>&1; then
    scripts/system-packages.sh "python$version-venv"  # Debian keeps it apart
  fi
  echo "making $folder with Python $version ($("$python" -c 'import sys; print(sys.executable)'))"
  "$python" -m venv --clear "$folder"
}

# One that was made in another place, or with a Python that is gone, does not run.
fits "$folder/bin/python" && "$folder/bin/python" -m pip --version >/dev/null 2>&1 || make_environment

pip() {
  "$folder/bin/python" -m pip --disable-pip-version-check --no-input "$@"
}

echo "installing what requirements.lock names (the first time this takes a minute or two)"
pip install --quiet --require-hashes -r requirements.lock
pip install --quiet --no-deps --no-build-isolation -e .
