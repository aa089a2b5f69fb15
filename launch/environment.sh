#!/usr/bin/env bash
# Sourced by the other scripts; only defines functions:
#
#   activate_environment <extras>    .venv with the package and extras, e.g. mini,test, or ""
#   run_stages <extras> <config> <default workdir> [workdir] [flags]
#   parse_options <names> [arguments]    --name=value into NAME; --dry-run; the rest into `rest`
#   require <names>                      error if one of the options has no value
#   name_experiment <config> [flags]     --config into `experiment`; empty if flags have --resume
#   do_it <command>                      run it, or print it in a dry run
#   may_restart <code>                   whether to run the same command again after this exit code
#   waits_for_people <code>              whether the run ended to wait for people; prints so
#   await <process>                      wait for it; sets `code` to its exit code
#   exit_or_restart <code> <restarts>    exit, or print that restart `attempt` + 1 follows
#
# PYTHON   interpreter to create the environment with (3.11 or newer); default python3
# VENV     folder of the environment; default .venv in the repository. One Python version per folder.
set -euo pipefail

repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

# Use huge pages on CPU: a compiled step allocates its temporary memory on every run, and with small
# pages that takes a quarter of the time of a mini step.
export GLIBC_TUNABLES=${GLIBC_TUNABLES:-glibc.malloc.hugetlb=1}

# Install only if setup.py or the version has changed, or an extra is missing. The first line of
# .venv/installed is the digest of setup.py and the version, the second the installed extras.
activate_environment() {
  local extras=$1 folder=${VENV:-$repository/.venv} python=${PYTHON:-python3}
  local package=$repository${1:+[$1]}
  if [[ ${dry_run:-no} == yes ]]; then
    echo "$python -m venv $folder"
    echo "source $folder/bin/activate"
    echo "python -m pip install --editable '$package'"
    return
  fi
  if [[ -x $folder/bin/python && -n ${PYTHON:-} ]]; then
    local version='import sys; print("%d.%d" % sys.version_info[:2])' has requested
    has=$("$folder/bin/python" -c "$version")
    requested=$("$PYTHON" -c "$version")
    if [[ $has != "$requested" ]]; then
      echo "error: $folder has Python $has, PYTHON is $requested; use another folder, e.g." \
        "VENV=.venv-$requested" >&2
      exit 2
    fi
  fi
  if [[ ! -x $folder/bin/python ]]; then
    if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
      echo "error: Python 3.11 or newer is needed; set PYTHON=/path/to/python3.11" >&2
      exit 2
    fi
    "$python" -m venv "$folder"
  fi
  # shellcheck disable=SC1091
  source "$folder/bin/activate"

  local stamp=$folder/installed digest known="" extra missing=()
  digest=$(cat "$repository/setup.py" "$repository/onereward_jax/__init__.py" | sha256sum)
  [[ ! -f $stamp || $(head -n 1 "$stamp") != "$digest" ]] || known=$(tail -n 1 "$stamp")
  for extra in nothing ${extras//,/ }; do
    [[ ,$known, == *,$extra,* ]] || missing+=("$extra")
  done
  [[ ${#missing[@]} -gt 0 ]] || return 0
  echo "installing onereward_jax${extras:+[$extras]} into $folder"
  local requirements=(--editable "$package")
  # Listed explicitly so that pip picks this build of torch first.
  [[ ,$extras, != *,test,* ]] || requirements+=(torch==2.13.0)
  python -m pip install --quiet --disable-pip-version-check "${requirements[@]}"
  printf '%s\n%s\n' "$digest" "$known,$(IFS=, && echo "${missing[*]}")" >"$stamp"
}

# Run all stages of a config. A relative workdir is relative to the caller's directory.
run_stages() {
  local extras=$1 config=$2 workdir=$3
  shift 3
  if [[ $# -gt 0 && $1 != --* ]]; then
    workdir=$1
    shift
  fi
  [[ $workdir == /* ]] || workdir=$PWD/$workdir
  parse_options "" "$@"
  activate_environment "$extras"
  do_it cd "$repository"
  local code=0
  name_experiment "$config" ${rest[@]+"${rest[@]}"}
  do_it python -m onereward_jax.main ${experiment[@]+"${experiment[@]}"} "--workdir=$workdir" \
    ${rest[@]+"${rest[@]}"} || code=$?
  if [[ $code != 0 ]]; then
    waits_for_people "$code" || true
    exit "$code"
  fi
  [[ $dry_run == no ]] || return 0
  local report=$workdir/evaluate/report/index.html
  [[ ! -f $report ]] || echo "report: $report"
}

# Parse the options of a script, given as names without dashes. The default is the variable of the
# same name in capitals. All other arguments go to `rest`.
parse_options() {
  local known=" $1 " argument name variable
  shift
  rest=()
  dry_run=no
  for argument in "$@"; do
    name=${argument#--}
    name=${name%%=*}
    if [[ $argument == --help || $argument == -h ]]; then
      usage
      exit 0
    elif [[ $argument == --dry-run ]]; then
      dry_run=yes
    elif [[ $argument == --*=* && $known == *" $name "* ]]; then
      variable=${name//-/_}
      printf -v "${variable^^}" %s "${argument#*=}"
    elif [[ $argument == --* && $known == *" $name "* ]]; then
      fail "$argument needs a value, e.g. $argument=x"
    else
      rest+=("$argument")
    fi
  done
}

require() {
  local name variable
  for name in "$@"; do
    variable=${name//-/_}
    variable=${variable^^}
    [[ -n ${!variable:-} ]] || fail "--$name=... (or $variable) is needed"
  done
}

name_experiment() {
  experiment=("--config=$1")
  shift
  [[ " $* " != *" --resume "* ]] || experiment=()
}

fail() {
  echo "error: $1; see --help" >&2
  exit 2
}

do_it() {
  if [[ $dry_run == no ]]; then
    "$@"
    return
  fi
  local word line=""
  for word in "$@"; do
    [[ $word =~ ^[A-Za-z0-9_./:=,@%+-]+$ ]] || word=${word@Q}
    line+="$word "
  done
  echo "${line% }"
}

waits_for_people() {
  [[ $1 == 10 ]] || return 1
  echo "Waiting for answers from people; nothing has failed. Run this again once they have answered."
}

# 75: stopped as requested, or a peer was lost; 134, 137, 143: ended by the runtime or by a signal. Any
# other code is a user error or a bug, and would occur again.
may_restart() {
  [[ " 75 134 137 143 " == *" $1 "* ]]
}

# A signal to the script ends `wait` before the child has ended.
await() {
  code=0
  wait "$1" || code=$?
  while kill -0 "$1" 2>/dev/null; do
    code=0
    wait "$1" || code=$?
  done
}

exit_or_restart() {
  if waits_for_people "$1"; then exit "${WAITING:-10}"; fi
  # shellcheck disable=SC2154  # both are of the loop that calls this
  if [[ $1 == 0 || $stopping == yes || $attempt -ge $2 ]] || ! may_restart "$1"; then exit "$1"; fi
  echo "${0##*/}: exit code $1; restarting, $((attempt + 1)) of $2" >&2
}
