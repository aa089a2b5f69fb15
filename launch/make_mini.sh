#!/usr/bin/env bash
# Train the mini editor and the mini judge that come with the package.
set -euo pipefail
# shellcheck source=launch/environment.sh
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

if [[ ${1:-} == --help || ${1:-} == -h ]]; then
  cat <<'TEXT'
launch/make_mini.sh [workdir] [flags of onereward_jax.main]

Makes .venv when it is missing, installs the package with the extra mini, and trains the base
models of the mini world in workdir (default runs/make_mini) by configs/make_mini.py. Started
again, it goes on where it stopped. The models are then in workdir/pretrain/editor and
workdir/pretrain/judge; copied to onereward_jax/mini/models/ they are the ones every run of
configs/mini.py starts from.

JAX_PLATFORMS names another device than cpu, PYTHON the interpreter for .venv (3.11 or newer),
VENV another folder for it. --dry-run prints the commands.
TEXT
  exit 0
fi

export JAX_PLATFORMS=${JAX_PLATFORMS:-cpu}
run_stages mini configs/make_mini.py "$repository/runs/make_mini" "$@"
