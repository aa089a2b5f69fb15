#!/usr/bin/env bash
# Sourced by the other scripts; does nothing when run by itself but define:
#
#   activate_environment <extras>    .venv with the package and these extras, e.g. mini,test
#   run_stages <extras> <config> <default workdir> [workdir] [flags]
#
# PYTHON   interpreter to make the environment with (3.11 or newer); default python3
# VENV     folder of the environment; default .venv in the repository
set -euo pipefail

repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

# Install only when setup.py, the version or the extras changed since the last time.
activate_environment() {
  local extras=$1 folder=${VENV:-$repository/.venv} python=${PYTHON:-python3}
  if [[ ! -x $folder/bin/python ]]; then
    if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
      echo "error: Python 3.11 or newer is needed; name one as PYTHON=/path/to/python3.11" >&2
      exit 2
    fi
    "$python" -m venv "$folder"
  fi
  # shellcheck disable=SC1091
  source "$folder/bin/activate"

  local stamp=$folder/installed-$extras wanted
  wanted=$(cat "$repository/setup.py" "$repository/onereward_jax/__init__.py" | sha256sum)
  [[ ! -f $stamp || $(<"$stamp") != "$wanted" ]] || return 0
  echo "installing onereward_jax[$extras] into $folder"
  local requirements=(--editable "${repository}[$extras]")
  # Named beside the package, so that pip settles on this build of torch before anything else.
  [[ ,$extras, != *,test,* ]] || requirements+=(torch==2.13.0)
  python -m pip install --quiet --disable-pip-version-check "${requirements[@]}"
  echo "$wanted" >"$stamp"
}

# Every stage of a config. A relative workdir is relative to the caller.
run_stages() {
  local extras=$1 config=$2 workdir=$3
  shift 3
  if [[ $# -gt 0 && $1 != --* ]]; then
    workdir=$1
    shift
  fi
  [[ $workdir == /* ]] || workdir=$PWD/$workdir
  activate_environment "$extras"
  cd "$repository"
  python -m onereward_jax.main --config="$config" --workdir="$workdir" "$@"
  local report=$workdir/evaluate/report/index.html
  [[ ! -f $report ]] || echo "report: $report"
}
