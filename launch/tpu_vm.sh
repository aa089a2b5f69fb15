#!/usr/bin/env bash
# A run on Cloud TPU VMs, requested as a queued resource.
# The options are set by parse_options.
# shellcheck disable=SC2153
set -euo pipefail
# shellcheck source=launch/environment.sh
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

usage() {
  cat <<'TEXT'
launch/tpu_vm.sh create|status|install|run|logs|stop|delete [options] [flags of onereward_jax.main]

  create    request one or more slices as a queued resource
  status    show the state; ACTIVE means ready
  install   copy the committed state of this repository to all hosts and install it
  run       start launch/host.sh on all hosts, in the background
  logs      fetch each host's log into a folder
  stop      send SIGTERM to all hosts: the run saves a checkpoint, the next `run` resumes from it
  delete    delete the slices

options, each also as a variable (--name=flux or NAME=flux)
  --name=              name of the queued resource
  --zone=, --project=  zone and project; default: those of gcloud's configuration
  --accelerator-type=  create: type of a slice, e.g. v5p-128 or v6e-64
  --runtime-version=   create: e.g. v2-alpha-tpuv5 or v2-alpha-tpuv6e
  --slices=            create: number of slices; default 1
  --capacity=          create: flags for gcloud, e.g. --spot or --reserved
  --prepare=           install: command to run first on each host, e.g. to install Python 3.11
  --workdir=           run: folder shared by all hosts, or gs://bucket/path
  --config=            run: default configs/flux_fill_dev.py
  --extras=            run, install: extras of the package; default tpu
  --python=            run, install: interpreter on the hosts; default python3
  --folder=            logs: default logs/NAME
  --dry-run            print the commands

  launch/tpu_vm.sh create --name=flux --zone=us-east5-a --accelerator-type=v5p-128 \
    --runtime-version=v2-alpha-tpuv5
  launch/tpu_vm.sh install --name=flux --zone=us-east5-a
  launch/tpu_vm.sh run --name=flux --zone=us-east5-a --workdir=gs://bucket/flux --stage=rl
TEXT
}

options="name zone project accelerator-type runtime-version slices capacity prepare workdir config"
parse_options "$options extras python folder" "$@"
action=${rest[0]:-}
rest=("${rest[@]:1}")
require name
place=()
[[ -z ${ZONE:-} ]] || place+=("--zone=$ZONE")
[[ -z ${PROJECT:-} ]] || place+=("--project=$PROJECT")

resource() {
  do_it gcloud compute tpus queued-resources "$1" "$NAME" ${place[@]+"${place[@]}"} "${@:2}"
}

everywhere() {
  resource ssh --worker=all --node=all "${@:2}" "--command=$1"
}

case $action in
  create)
    require accelerator-type runtime-version
    nodes=("--node-id=$NAME")
    [[ ${SLICES:-1} == 1 ]] || nodes=("--node-count=$SLICES" "--node-prefix=$NAME")
    read -ra capacity <<<"${CAPACITY:-}"
    resource create "--accelerator-type=$ACCELERATOR_TYPE" "--runtime-version=$RUNTIME_VERSION" \
      "${nodes[@]}" ${capacity[@]+"${capacity[@]}"}
    ;;
  status)
    resource describe "--format=value(state.state)"
    ;;
  install)
    archive=${TMPDIR:-/tmp}/onereward_jax-$NAME.tar.gz
    do_it git -C "$repository" archive --format=tar.gz "--output=$archive" HEAD
    do_it gcloud compute tpus queued-resources scp "$archive" "$NAME:onereward_jax.tar.gz" \
      --worker=all --node=all ${place[@]+"${place[@]}"}
    do_it rm "$archive"
    [[ -z ${PREPARE:-} ]] || everywhere "$PREPARE"
    everywhere "mkdir -p onereward_jax && tar -xzf onereward_jax.tar.gz -C onereward_jax &&\
 onereward_jax/launch/host.sh ${EXTRAS:-tpu} --install${PYTHON:+ --python=$PYTHON}"
    ;;
  run)
    require workdir
    printf -v call '%q ' onereward_jax/launch/host.sh "${EXTRAS:-tpu}" "$WORKDIR" \
      "--config=${CONFIG:-configs/flux_fill_dev.py}" ${PYTHON:+"--python=$PYTHON"} \
      ${rest[@]+"${rest[@]}"}
    # In its own session, so that it keeps running when the connection ends.
    everywhere "setsid nohup ${call}>>onereward_jax.log 2>&1 </dev/null & echo \$! >onereward_jax.pid"
    ;;
  logs)
    folder=${FOLDER:-logs/$NAME}
    do_it mkdir -p "$folder"
    everywhere "cat onereward_jax.log" "--output-directory=$folder"
    ;;
  stop)
    everywhere "kill -TERM \$(cat onereward_jax.pid)"
    ;;
  delete)
    resource delete --force --quiet
    ;;
  *)
    fail "the first argument must be create, status, install, run, logs, stop or delete, not '$action'"
    ;;
esac
