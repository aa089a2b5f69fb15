#!/usr/bin/env bash
# Build the documentation site.
set -euo pipefail
# shellcheck source=launch/environment.sh
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

if [[ ${1:-} == --help || ${1:-} == -h ]]; then
  cat <<'TEXT'
launch/docs.sh [sphinx-build arguments]

Creates .venv if it does not exist, installs the package with the extra docs, and builds the site
from docs/ into docs/_build/html. Warnings are errors. The build downloads nothing, and the site can
be read offline.

  launch/docs.sh        changed pages
  launch/docs.sh -E     all pages

Environment variables: PYTHON: interpreter for .venv (3.11 or newer). VENV: folder of the virtual
environment, default .venv. --dry-run prints the commands.
TEXT
  exit 0
fi

parse_options "" "$@"
activate_environment docs
do_it cd "$repository"
export JAX_PLATFORMS=cpu
do_it sphinx-build -W --keep-going -q -b html ${rest[@]+"${rest[@]}"} docs docs/_build/html
[[ $dry_run == yes ]] || echo "site: $repository/docs/_build/html/index.html"
