#!/usr/bin/env bash
# Run a config in multiple processes with virtual CPU devices on this machine, like a small pod.
set -euo pipefail
# shellcheck source=launch/environment.sh
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

usage() {
  cat <<'TEXT'
launch/local_multiprocess.sh [workdir] [options] [flags of onereward_jax.main]

Creates .venv if it does not exist and runs the stages of a config in multiple processes on this
machine, each with some virtual CPU devices. workdir defaults to runs/local. Process 0 prints to the
terminal, each other process to workdir/processes/<number>.txt. If one process is lost, all end and
are restarted.

  launch/local_multiprocess.sh runs/two --processes=2 --config=configs/mini.py:smoke

options, each also as a variable (--processes=4 or PROCESSES=4)
  --processes=   number of processes; default 2
  --devices=     virtual devices per process; default 2
  --port=        port of process 0; default 29500
  --config=      default configs/mini.py
  --extras=      extras of the package; default mini. cpu: none
  --restarts=    most restarts after a lost process; default 3
  --python=      interpreter for .venv, 3.11 or newer; default python3
  --venv=        folder of the virtual environment; default .venv
  --dry-run      print the commands

SIGTERM or Ctrl-C stops the run at the next point where everything is saved, with code 75.
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

# of_process <number>: sets `command` to the command of that process.
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
stopping=no
trap 'stopping=yes; kill -TERM "${children[@]}" 2>/dev/null || true' TERM INT
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
    # An error has priority over a lost process: the error may have caused the loss.
    if [[ $code != 0 ]] && { [[ $worst == 0 ]] || ! may_restart "$code"; }; then worst=$code; fi
  done
  exit_or_restart "$worst" "${RESTARTS:-3}"
done
