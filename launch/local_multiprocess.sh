#!/usr/bin/env bash
# Several processes with virtual CPU devices on this machine, as a pod in small.
set -euo pipefail
# shellcheck source=launch/environment.sh
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

usage() {
  cat <<'TEXT'
launch/local_multiprocess.sh [workdir] [options] [flags of onereward_jax.main]

Makes .venv when it is missing and runs the stages of a config in several processes on this
machine, each with some virtual CPU devices; workdir defaults to runs/local. Process 0 speaks on the
terminal, each other one into workdir/processes/<number>.txt. When one is lost all end, and are
started again.

  launch/local_multiprocess.sh runs/two --processes=2 --config=configs/mini.py:smoke

options, each also as a variable (--processes=4 or PROCESSES=4)
  --processes=   how many; default 2
  --devices=     virtual devices of each; default 2
  --port=        of process 0; default 29500
  --config=      default configs/mini.py
  --extras=      installed with the package; default mini. cpu: none
  --restarts=    how often to go on after a lost process; default 3
  --python=      interpreter for .venv, 3.11 or newer; default python3
  --venv=        another folder for it
  --dry-run      print the commands

SIGTERM or Ctrl-C stops between two units of work, where all is saved, with code 75.
TEXT
}

parse_options "processes devices port config extras restarts python venv" "$@"
workdir=$repository/runs/local
if [[ ${#rest[@]} -gt 0 && ${rest[0]} != --* ]]; then
  workdir=${rest[0]}
  rest=("${rest[@]:1}")
fi
[[ $workdir == /* ]] || workdir=$PWD/$workdir
count=${PROCESSES:-2}

extras=${EXTRAS:-mini}
activate_environment "${extras#cpu}"
do_it mkdir -p "$workdir/processes"
do_it cd "$repository"
export JAX_PLATFORMS=cpu OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}

# of_process <number>: its command, in `command`.
of_process() {
  name_experiment "${CONFIG:-configs/mini.py}" ${rest[@]+"${rest[@]}"}
  command=(
    env "XLA_FLAGS=--xla_force_host_platform_device_count=${DEVICES:-2}"
    "JAX_COORDINATOR_ADDRESS=localhost:${PORT:-29500}" "JAX_NUM_PROCESSES=$count"
    "JAX_PROCESS_ID=$1" python -m onereward_jax.main ${experiment[@]+"${experiment[@]}"}
    "--workdir=$workdir" --distributed ${rest[@]+"${rest[@]}"}
  )
}

if [[ $dry_run == yes ]]; then
  for ((number = 0; number < count; number++)); do
    of_process "$number"
    do_it "${command[@]}"
  done
  exit 0
fi

children=()
asked=no
trap 'asked=yes; kill -TERM "${children[@]}" 2>/dev/null || true' TERM INT
for ((attempt = 0; ; attempt++)); do
  children=()
  for ((number = 0; number < count; number++)); do
    of_process "$number"
    if [[ $number == 0 ]]; then
      "${command[@]}" &
    else
      "${command[@]}" >>"$workdir/processes/$number.txt" 2>&1 &
    fi
    children+=($!)
  done
  worst=0
  for child in "${children[@]}"; do
    await "$child"
    # A mistake outweighs the loss of a process, which it may have caused.
    if [[ $code != 0 ]] && { [[ $worst == 0 ]] || ! may_restart "$code"; }; then worst=$code; fi
  done
  exit_or_restart "$worst" "${RESTARTS:-3}"
done
