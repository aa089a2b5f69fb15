#!/usr/bin/env bash
# Run stages on accelerators, as one host of several: started alike on every host.
set -euo pipefail
# shellcheck source=launch/environment.sh
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

if [[ ${1:-} == --help || ${1:-} == -h ]]; then
  cat <<'TEXT'
launch/host.sh tpu|cuda <workdir> [flags of onereward_jax.main]

Makes .venv when it is missing, installs the package with the extra tpu or cuda, and runs the
stages of configs/flux_fill_dev.py on all devices of all hosts. Hosts find each other as
jax.distributed does: by the TPU's metadata, or by Slurm. All of them must see workdir.

A TPU slice, from anywhere (the repository cloned on each host):
  gcloud compute tpus tpu-vm ssh NAME --worker=all \
    --command='onereward_jax/launch/host.sh tpu /mnt/shared/runs/flux --stage=rl'

A GPU cluster with Slurm, one process a host:
  srun --nodes=8 --ntasks-per-node=1 launch/host.sh cuda /shared/runs/flux --stage=rl

CONFIG names another config, PYTHON the interpreter for .venv (3.11 or newer), VENV another
folder for it.
TEXT
  exit 0
fi

if [[ $# -lt 2 || ($1 != tpu && $1 != cuda) || $2 == --* ]]; then
  echo "usage: launch/host.sh tpu|cuda <workdir> [flags]; --help tells more" >&2
  exit 2
fi

# Hosts that share the repository must not install at the same time: setup.py serves as the lock.
(
  flock 9
  activate_environment "$1"
) 9<"$repository/setup.py"
run_stages "$1" "${CONFIG:-configs/flux_fill_dev.py}" "$2" "${@:2}" --config.distributed
