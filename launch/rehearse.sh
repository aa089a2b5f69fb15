#!/usr/bin/env bash
# Rehearse a real run at small size, on the machine where it will run.
set -euo pipefail
# shellcheck source=launch/environment.sh
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

usage() {
  cat <<'TEXT'
launch/rehearse.sh [workdir] [options]

Creates an environment without extras and runs every stage on a few images with the small models, in
multiple processes on this machine. It writes the annotators' answers itself (two annotators who
sometimes disagree), kills a process in each training, extends the run by more steps and then by more
answers, and makes an edit with the exported editor. Takes minutes on CPU. workdir (default
runs/rehearsal) is replaced if it is a rehearsal, else it is an error; put it on the file system of
the real run.

options, each also as a variable (--processes=4 or PROCESSES=4)
  --pictures=    folder with six *.jpg or *.png of any size; default: six drawn images
  --processes=   number of processes; default 2
  --devices=     virtual devices per process; default 2
  --mesh=        data x fsdp x tensor over all devices; default 2x1x2
  --python=      interpreter for the environment, 3.11 or newer; default python3
  --venv=        folder of the virtual environment; default .venv-rehearsal
  --dry-run      print the commands
TEXT
}

parse_options "pictures processes devices mesh python venv" "$@"
workdir=${rest[0]:-$repository/runs/rehearsal}
[[ $workdir == /* ]] || workdir=$PWD/$workdir
[[ ${#rest[@]} -le 1 && $workdir != */--* ]] || fail "unknown arguments: ${rest[*]}"
VENV=${VENV:-$repository/.venv-rehearsal}
options=("--workdir=$workdir" "--processes=${PROCESSES:-2}" "--devices=${DEVICES:-2}")
options+=("--mesh=${MESH:-2x1x2}")
[[ -z ${PICTURES:-} ]] || options+=("--pictures=$(realpath -m "$PICTURES")")

activate_environment ""
do_it cd "$repository"
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
do_it python -m onereward_jax.rehearsal "${options[@]}"
