#!/usr/bin/env bash
# Train the mini editor and the mini judge that come with the package.
set -euo pipefail
# shellcheck source=launch/environment.sh
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

if [[ ${1:-} == --help || ${1:-} == -h ]]; then
  cat <<'TEXT'
launch/make_mini.sh [workdir] [flags of onereward_jax.main]

Creates .venv if it does not exist, installs the package with the extra mini, and trains the base
models of the mini world in workdir (default runs/make_mini) with configs/make_mini.py. Run again,
it resumes. The models are written to workdir/pretrain/editor and workdir/pretrain/judge. Runs of
configs/mini.py start from the copies in onereward_jax/mini/models/.

Environment variables: JAX_PLATFORMS: device, default cpu. PYTHON: interpreter for .venv (3.11 or
newer). VENV: folder of the virtual environment, default .venv. --dry-run prints the commands.
TEXT
  exit 0
fi

export JAX_PLATFORMS=${JAX_PLATFORMS:-cpu}
run_stages mini configs/make_mini.py "$repository/runs/make_mini" "$@"
