#!/usr/bin/env bash
# Rehearse a real run in small, where it will run.
set -euo pipefail
# shellcheck source=launch/environment.sh
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

usage() {
  cat <<'TEXT'
launch/rehearse.sh [workdir] [options]

Makes an environment without extras and takes a handful of pictures through every stage, with the
small models, on several processes of this machine: people's answers are written for them (two
annotators who sometimes disagree), a process is killed in each training, the run gets more steps and
then more answers, and the exported editor makes an edit. Minutes, on CPU. workdir (default
runs/rehearsal) is made anew, unless something else than a rehearsal is there; put it on the file system
of the real run.

options, each also as a variable (--processes=4 or PROCESSES=4)
  --pictures=    folder with six *.jpg or *.png of any size; default: six are drawn
  --processes=   how many; default 2
  --devices=     virtual devices of each; default 2
  --mesh=        data x fsdp x tensor over all of them; default 2x1x2
  --python=      interpreter for the environment, 3.11 or newer; default python3
  --venv=        its folder; default .venv-rehearsal
  --dry-run      print the commands
TEXT
}

parse_options "pictures processes devices mesh python venv" "$@"
workdir=${rest[0]:-$repository/runs/rehearsal}
[[ $workdir == /* ]] || workdir=$PWD/$workdir
[[ ${#rest[@]} -le 1 && $workdir != */--* ]] || fail "unknown: ${rest[*]}"
VENV=${VENV:-$repository/.venv-rehearsal}
options=("--workdir=$workdir" "--processes=${PROCESSES:-2}" "--devices=${DEVICES:-2}")
options+=("--mesh=${MESH:-2x1x2}")
[[ -z ${PICTURES:-} ]] || options+=("--pictures=$(realpath -m "$PICTURES")")

activate_environment ""
do_it cd "$repository"
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
do_it python -m onereward_jax.rehearsal "${options[@]}"
