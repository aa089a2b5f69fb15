#!/usr/bin/env bash
# Build the wheel and test it in an environment where only the wheel is installed.
set -euo pipefail
# shellcheck source=launch/environment.sh
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

if [[ ${1:-} == --help || ${1:-} == -h ]]; then
  cat <<'TEXT'
launch/wheel.sh [--dry-run]

Builds dist/onereward_jax-<version>-py3-none-any.whl, installs it into a new environment, and runs
--help of every command from an empty folder.

Environment variable: PYTHON: interpreter (3.11 or newer). --dry-run prints the commands.
TEXT
  exit 0
fi

parse_options "" "$@"
unset PYTHONPATH # import the package only from the wheel
python=${PYTHON:-python3}
do_it cd "$repository"
do_it rm -rf build dist
do_it "$python" -m pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir dist .
if [[ $dry_run == yes ]]; then
  wheel=dist/onereward_jax.whl empty=/tmp/empty
else
  wheel=$(echo "$repository"/dist/*.whl)
  empty=$(mktemp -d)
  trap 'rm -rf "$empty"' EXIT
fi
do_it "$python" -m venv "$empty/venv"
do_it "$empty/venv/bin/python" -m pip install --quiet --disable-pip-version-check "$wheel"
do_it cd "$empty"
for command in onereward onereward-edit onereward-judge onereward-compile; do
  if [[ $dry_run == yes ]]; then
    do_it "$empty/venv/bin/$command" --help
  else
    "$empty/venv/bin/$command" --help >/dev/null
  fi
done
[[ $dry_run == yes ]] || echo "wheel: $wheel"
