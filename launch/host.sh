#!/usr/bin/env bash
# Run stages on accelerators, as one host of several: started alike on every host.
set -euo pipefail
# shellcheck source=launch/environment.sh
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

usage() {
  cat <<'TEXT'
launch/host.sh <extras> <workdir> [options] [flags of onereward_jax.main]
launch/host.sh <extras> --install

Makes .venv when it is missing, installs the package with the extras, and runs the stages of a config
on all devices of all hosts. Extras are tpu or cuda, or cpu for neither; with mini for the mini
world's data, wandb for its board and gcs for buckets, as in cuda,mini; gs:// brings gcs by itself. tpu_vm.sh, gke_xpk.sh and slurm_gpu.sbatch
call it on each host. Hosts find each other as jax.distributed does: by Cloud TPU's or GKE's
metadata or by Slurm; else set JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID.

All hosts must see workdir: a folder, or gs://bucket/path, of which each host keeps copies of what it
reads and writes in ONEREWARD_COPIES, by default ~/.cache/onereward_jax/copies.

options, each also as a variable (--restarts=3 or RESTARTS=3)
  --install      make the environment and end
  --config=      default configs/flux_fill_dev.py; not with --resume, which repeats a run's flags
  --restarts=    how often to go on after a lost host; default 10
  --waiting=     exit code when the run waits for people's answers; default 10
  --python=      interpreter for .venv, 3.11 or newer; default python3
  --venv=        another folder for it
  --dry-run      print the commands

SIGTERM saves what is done and ends with code 75. A run that waits for people's answers ends, and is
started again when they are there: that is no failure.
TEXT
}

install=no
arguments=()
for argument in "$@"; do
  if [[ $argument == --install ]]; then install=yes; else arguments+=("$argument"); fi
done
parse_options "config restarts waiting python venv" ${arguments[@]+"${arguments[@]}"}
set -- ${rest[@]+"${rest[@]}"}
extras=${1:-}
[[ ,$extras, =~ ^(,(tpu|cuda|cpu|gcs|mini|wandb))+,$ ]] ||
  fail "tpu, cuda or cpu is needed first, perhaps with ,gcs, ,mini or ,wandb"
extras=,$extras,
extras=${extras//,cpu,/,}
extras=${extras#,}
extras=${extras%,}

set_up() {
  [[ $dry_run == no ]] || { activate_environment "$extras"; return; }
  # Hosts that share the repository must not install at the same time: setup.py is the lock.
  (
    flock 9
    activate_environment "$extras"
  ) 9<"$repository/setup.py"
  activate_environment "$extras"
}

if [[ $install == yes ]]; then
  [[ $# == 1 ]] || fail "--install takes nothing else"
  set_up
  exit 0
fi
[[ $# -ge 2 && $2 != --* ]] || fail "the workdir is needed second"
workdir=$2
shift 2

# The program reads and writes a bucket by itself.
[[ $workdir != gs://* || ,$extras, == *,gcs,* ]] || extras=${extras:+$extras,}gcs

set_up
do_it cd "$repository"
name_experiment "${CONFIG:-configs/flux_fill_dev.py}" "$@"
command=(
  python -m onereward_jax.main ${experiment[@]+"${experiment[@]}"} "--workdir=$workdir" --distributed "$@"
)
if [[ $dry_run == yes ]]; then
  do_it "${command[@]}"
  exit 0
fi

asked=no
trap 'asked=yes; kill -TERM "$child" 2>/dev/null || true' TERM INT
for ((attempt = 0; ; attempt++)); do
  "${command[@]}" &
  child=$!
  await "$child"
  exit_or_restart "$code" "${RESTARTS:-10}"
done
