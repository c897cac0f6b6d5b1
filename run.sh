#!/usr/bin/env bash
# Usage:
#   ./run.sh [OPTIONS]                      install into .venv and run the main job; OPTIONS go to `thunderbench run`
#   ./run.sh test [--vllm] [--browser] [PYTEST OPTIONS]
#                                           install what the tests need, then lint, type-check and test;
#                                           --vllm adds real vLLM on a CPU (some 3 GB, once),
#                                           --browser adds Chromium, in which reports are opened
# PYTHON=python3.12 ./run.sh takes that interpreter for a new .venv.
set -euo pipefail

root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
venv="$root/.venv"
python="$venv/bin/python"
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1

say() { printf '%s\n' "$*" >&2; }

is_recent() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }

has_venv() { "$1" -c 'import ensurepip, venv' 2>/dev/null; }

# The first Python >= 3.11, one that can make virtual environments if there is any.
find_python() {
  local candidate found="" candidates=(python3.11 python3.12 python3.13 python3 /usr/bin/python3)
  [[ -z ${PYTHON-} ]] || candidates=("$PYTHON")
  for candidate in "${candidates[@]}"; do
    is_recent "$candidate" || continue
    if has_venv "$candidate"; then
      printf '%s\n' "$candidate"
      return
    fi
    found=${found:-$candidate}
  done
  printf '%s\n' "$found"
}

install_system_python() {
  if [[ $(id -u) != 0 ]] || ! command -v apt-get >/dev/null; then
    say "run.sh: no Python >= 3.11 with the venv module was found."
    say "Install it (Debian, Ubuntu: sudo apt-get install python3 python3-venv) and run this again."
    exit 2
  fi
  say "Installing python3-venv ..."
  apt-get update -qq >&2
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq python3 python3-venv >&2 </dev/null
}

make_venv() {
  if [[ -x $python ]] && is_recent "$python" && "$python" -m pip --version >/dev/null 2>&1; then
    return
  fi
  local base
  base=$(find_python)
  if ! has_venv "$base" && [[ -z ${PYTHON-} ]]; then
    install_system_python
    base=$(find_python)
  fi
  if ! has_venv "$base"; then
    say "run.sh: ${PYTHON:-the Python of this system} is missing, older than 3.11 or lacks the venv module."
    say "Set PYTHON to an interpreter that fits, such as PYTHON=python3.12 ./run.sh"
    exit 2
  fi
  say "Making $venv with $("$base" -V) ..."
  "$base" -m venv --clear "$venv"
}

# Installs thunderbench with the extras $1 ("" or "[dev]"), unless this was done for the same pyproject.toml,
# place and interpreter. .venv/installed$1 remembers it.
install() {
  local stamp="$venv/installed$1" state
  state=$({ cat "$root/pyproject.toml"; printf '%s' "$root"; "$python" -VV; } | cksum)
  if [[ -f $stamp && $(<"$stamp") == "$state" ]]; then
    return
  fi
  say "Installing thunderbench$1 ..."
  "$python" -m pip install --quiet --editable "$root$1" >&2 </dev/null
  printf '%s\n' "$state" >"$stamp"
}

has_browser() {
  local name
  command -v chromedriver >/dev/null || return
  for name in chromium chromium-browser google-chrome; do
    if command -v "$name" >/dev/null; then return 0; fi
  done
  return 1
}

install_browser() {
  if has_browser; then
    return
  fi
  if [[ $(id -u) != 0 ]] || ! command -v apt-get >/dev/null; then
    say "run.sh: no Chromium with its driver was found."
    say "Install them (Debian: sudo apt-get install chromium chromium-driver) and run this again."
    exit 2
  fi
  say "Installing Chromium ..."
  apt-get update -qq >&2
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
    chromium chromium-driver fonts-dejavu-core >&2 </dev/null
}

run_tests() {
  local vllm="" browser=""
  while [[ ${1-} == --vllm || ${1-} == --browser ]]; do
    if [[ $1 == --vllm ]]; then vllm=1; else browser=1; fi
    shift
  done
  cd -- "$root"
  install "[dev]"
  if [[ -n $browser ]]; then
    install_browser
    export THUNDERBENCH_REQUIRE_BROWSER=1 # tests that need a browser fail without it instead of being skipped
  fi
  if [[ -n $vllm ]]; then
    "$python" .ci/install_vllm.py </dev/null
    export THUNDERBENCH_REQUIRE_VLLM=1 # the same for vLLM
  fi
  "$python" -m ruff check .
  "$python" -m ruff format --check .
  "$python" -m mypy
  exec "$python" -m pytest "$@"
}

make_venv
if [[ ${1-} == test ]]; then
  shift
  run_tests "$@"
fi
install ""
exec "$venv/bin/thunderbench" run --workload swe-lite --scheduler thunder --scheduler vllm "$@"
