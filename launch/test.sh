#!/usr/bin/env bash
# Run the tests in the repository's own environment.
set -euo pipefail
# shellcheck source=launch/environment.sh
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

if [[ ${1:-} == --help || ${1:-} == -h ]]; then
  cat <<'TEXT'
launch/test.sh [pytest arguments]

Creates .venv if it does not exist, installs the package with the extras mini and test, and runs
the tests that are not marked slow, in two processes.

  launch/test.sh                          all quick tests
  launch/test.sh --fast                   the inner loop: without the long files
                                          (LONG in tests/conftest.py)
  launch/test.sh -m slow                  slow tests
  launch/test.sh tests/test_main.py -n 0  one file, one process

Environment variables: PYTHON: interpreter for .venv (3.11 or newer). VENV: folder of the virtual
environment, default .venv. --dry-run prints the commands.
pip selects the build of torch; for the small CPU build:
  PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu launch/test.sh
TEXT
  exit 0
fi

parse_options "" "$@"
activate_environment mini,test
do_it cd "$repository"
# Test processes share the cores: keep torch and BLAS from using all of them in each process.
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
# One process runs all tests of a file, so that shared fixtures are made once.
do_it python -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder -m "not slow" ${rest[@]+"${rest[@]}"}
