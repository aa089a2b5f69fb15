#!/usr/bin/env bash
# Build the site of the documentation.
set -euo pipefail
# shellcheck source=launch/environment.sh
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

if [[ ${1:-} == --help || ${1:-} == -h ]]; then
  cat <<'TEXT'
launch/docs.sh [sphinx-build arguments]

Makes .venv when it is missing, installs the package with the extra docs, and builds the site from
docs/ into docs/_build/html. A warning is an error. Nothing is fetched; what is built reads offline.

  launch/docs.sh        the pages that have changed
  launch/docs.sh -E     all pages

PYTHON names the interpreter for .venv (3.11 or newer), VENV another folder for it. --dry-run prints
the commands.
TEXT
  exit 0
fi

parse_options "" "$@"
activate_environment docs
do_it cd "$repository"
export JAX_PLATFORMS=cpu
do_it sphinx-build -W --keep-going -q -b html ${rest[@]+"${rest[@]}"} docs docs/_build/html
[[ $dry_run == yes ]] || echo "site: $repository/docs/_build/html/index.html"
