#!/usr/bin/env bash
# Run the tests in the repository's own environment.
set -euo pipefail
# shellcheck source=launch/environment.sh
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

if [[ ${1:-} == --help || ${1:-} == -h ]]; then
  cat <<'TEXT'
launch/test.sh [pytest arguments]

Makes .venv when it is missing, installs the package with the extras mini and test, and runs
the tests that are not marked slow, in two processes.

  launch/test.sh                          all quick tests
  launch/test.sh -m slow                  the slow ones
  launch/test.sh tests/test_main.py -n 0  one file, one process

PYTHON names the interpreter for .venv (3.11 or newer), VENV another folder for it. --dry-run prints
the commands.
torch is the build that pip finds; for the small CPU build anywhere:
  PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu launch/test.sh
TEXT
  exit 0
fi

parse_options "" "$@"
activate_environment mini,test
do_it cd "$repository"
# Test processes share the cores; torch and BLAS would each take all of them.
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
# What the tests of a file share is made once if one process has the whole file.
do_it python -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder -m "not slow" ${rest[@]+"${rest[@]}"}
