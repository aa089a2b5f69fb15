#!/usr/bin/env bash
# Run all stages on the mini world, from photographs to the report.
set -euo pipefail
# shellcheck source=launch/environment.sh
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

if [[ ${1:-} == --help || ${1:-} == -h ]]; then
  cat <<'TEXT'
launch/quickstart.sh [workdir] [flags of onereward_jax.main]

Creates .venv if it does not exist, installs the package with the extra mini, and runs all stages
of configs/mini.py in workdir (default runs/mini). Run again, it resumes.

  launch/quickstart.sh                                   all stages
  launch/quickstart.sh runs/dynamic --config.rl.algorithm=dynamic
  CONFIG=configs/mini.py:smoke launch/quickstart.sh runs/smoke

Environment variables: CONFIG: config file, default configs/mini.py. JAX_PLATFORMS: device, default
cpu. PYTHON: interpreter for .venv (3.11 or newer). VENV: folder of the virtual environment, default
.venv. --dry-run prints the commands.
TEXT
  exit 0
fi

export JAX_PLATFORMS=${JAX_PLATFORMS:-cpu}
run_stages mini "${CONFIG:-configs/mini.py}" "$repository/runs/mini" "$@"
