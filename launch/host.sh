#!/usr/bin/env bash
# Run stages on multiple hosts with accelerators: start this with the same arguments on every host.
set -euo pipefail
# shellcheck source=launch/environment.sh
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

usage() {
  cat <<'TEXT'
launch/host.sh <extras> <workdir> [options] [flags of onereward_jax.main]
launch/host.sh <extras> --install

Creates .venv if it does not exist, installs the package with the extras, and runs the stages of a
config on all devices of all hosts. Extras: tpu or cuda, or cpu for neither; optionally mini (data of
the mini world), wandb (Weights & Biases) and gcs (buckets), e.g. cuda,mini. A gs:// workdir adds gcs.
tpu_vm.sh, gke_xpk.sh and slurm_gpu.sbatch call this script on each host. Hosts are found as in
jax.distributed: from the metadata of Cloud TPU or GKE, or from Slurm; else set
JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID.

workdir must be shared by all hosts: a folder, or gs://bucket/path. For a bucket each host keeps
copies of the files it reads and writes in ONEREWARD_COPIES, default ~/.cache/onereward_jax/copies.

options, each also as a variable (--restarts=3 or RESTARTS=3)
  --install      create the environment and exit
  --config=      default configs/flux_fill_dev.py; not with --resume, which repeats a run's flags
  --restarts=    most restarts after a lost host; default 10
  --waiting=     exit code when the run waits for people's answers; default 10
  --python=      interpreter for .venv, 3.11 or newer; default python3
  --venv=        folder of the virtual environment; default .venv
  --dry-run      print the commands

SIGTERM saves a checkpoint and ends the run with code 75. A run that waits for people's answers ends
without an error; run it again once they have answered.
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
[[ ,$extras, =~ ^(,(tpu|cuda|cpu|gcs|mini|people|wandb))+,$ ]] ||
  fail "the first argument must be tpu, cuda or cpu, optionally with ,gcs, ,mini or ,wandb"
extras=,$extras,
extras=${extras//,cpu,/,}
extras=${extras#,}
extras=${extras%,}

set_up() {
  [[ $dry_run == no ]] || { activate_environment "$extras"; return; }
  # Hosts may share the repository and must not install at the same time: lock setup.py.
  (
    flock 9
    activate_environment "$extras"
  ) 9<"$repository/setup.py"
  activate_environment "$extras"
}

if [[ $install == yes ]]; then
  [[ $# == 1 ]] || fail "--install takes no other arguments"
  set_up
  exit 0
fi
[[ $# -ge 2 && $2 != --* ]] || fail "the second argument must be the workdir"
workdir=$2
shift 2

# A bucket needs the extra gcs.
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

stopping=no
trap 'stopping=yes; kill -TERM "$child" 2>/dev/null || true' TERM INT
for ((attempt = 0; ; attempt++)); do
  "${command[@]}" &
  child=$!
  await "$child"
  exit_or_restart "$code" "${RESTARTS:-10}"
done
