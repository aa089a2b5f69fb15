#!/usr/bin/env bash
# Run the whole method on the mini world, from photographs to the report.
set -euo pipefail
# shellcheck source=launch/environment.sh
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

if [[ ${1:-} == --help || ${1:-} == -h ]]; then
  cat <<'TEXT'
launch/quickstart.sh [workdir] [flags of onereward_jax.main]

Makes .venv when it is missing, installs the package with the extra mini, and runs every stage
of configs/mini.py in workdir (default runs/mini). Started again, it goes on where it stopped.

  launch/quickstart.sh                                   the whole chain
  launch/quickstart.sh runs/dynamic --config.rl.algorithm=dynamic
  CONFIG=configs/mini.py:smoke launch/quickstart.sh runs/smoke

CONFIG names another config, JAX_PLATFORMS another device than cpu, PYTHON the interpreter for
.venv (3.11 or newer), VENV another folder for it. --dry-run prints the commands.
TEXT
  exit 0
fi

export JAX_PLATFORMS=${JAX_PLATFORMS:-cpu}
run_stages mini "${CONFIG:-configs/mini.py}" "$repository/runs/mini" "$@"
