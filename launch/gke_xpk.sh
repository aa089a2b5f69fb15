#!/usr/bin/env bash
# A run on a GKE cluster with TPUs, submitted with xpk.
# The options are set by parse_options.
# shellcheck disable=SC2153
set -euo pipefail
# shellcheck source=launch/environment.sh
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

usage() {
  cat <<'TEXT'
launch/gke_xpk.sh attach|run|status|logs|delete [options] [flags of onereward_jax.main]

  attach    let workloads of the cluster mount a bucket (once); gs:// needs no mount
  run       submit the run; GKE starts launch/host.sh on every host and, after a loss, again
  status    of the workload
  logs      of all hosts, the last lines
  delete    end the workload and remove it; SIGTERM saves a checkpoint, `run` goes on from it

options, each also as a variable (--cluster=pod or CLUSTER=pod)
  --cluster=           made with `xpk cluster create`
  --zone=, --project=  where; default: those of gcloud's configuration
  --name=              of the workload
  --tpu-type=          run: one slice, such as v5p-128
  --slices=            run: how many; default 1
  --workdir=           run: gs://bucket/path, or a folder seen by all hosts, as of --storage
  --storage=           attach, run: name of the attached bucket
  --bucket=            attach: its bucket
  --image=             run: base image; default python:3.12, to which xpk adds this repository
  --config=            run: default configs/flux_fill_dev.py
  --extras=            run: of the package; default tpu
  --restarts=          run: after a lost host; default 10
  --dry-run            print the commands

  launch/gke_xpk.sh run --cluster=pod --name=flux --tpu-type=v5p-128 \
    --workdir=gs://my-bucket/flux --stage=rl
TEXT
}

options="cluster zone project name tpu-type slices workdir storage bucket image config extras restarts"
parse_options "$options" "$@"
action=${rest[0]:-}
rest=("${rest[@]:1}")
require cluster
place=("--cluster=$CLUSTER")
[[ -z ${ZONE:-} ]] || place+=("--zone=$ZONE")
[[ -z ${PROJECT:-} ]] || place+=("--project=$PROJECT")

case $action in
  attach)
    require storage bucket
    # Nothing is cached: what one host writes another reads a moment later.
    do_it xpk storage attach "$STORAGE" "${place[@]}" --type=gcsfuse "--bucket=$BUCKET" \
      "--mount-point=/gs/$BUCKET" --readonly=false --size=1 --auto-mount=false \
      --mount-options=implicit-dirs,rename-dir-limit=1000000,metadata-cache:ttl-secs:0
    ;;
  run)
    require name tpu-type workdir
    storage=()
    [[ -z ${STORAGE:-} ]] || storage+=("--storage=$STORAGE")
    # A restart is GKE's: a host that was lost does not start itself. A workload that waits for people
    # has done its work.
    printf -v call '%q ' launch/host.sh tpu "$WORKDIR" --restarts=0 --waiting=0 \
      "--config=${CONFIG:-configs/flux_fill_dev.py}" ${rest[@]+"${rest[@]}"}
    do_it xpk workload create "${place[@]}" "--workload=$NAME" "--tpu-type=$TPU_TYPE" \
      "--num-slices=${SLICES:-1}" "--base-docker-image=${IMAGE:-python:3.12}" \
      "--script-dir=$repository" "--max-restarts=${RESTARTS:-10}" \
      --restart-on-user-code-failure --termination-grace-period-seconds=300 \
      ${storage[@]+"${storage[@]}"} "--command=exec bash ${call% }"
    ;;
  status)
    require name
    do_it xpk workload list "${place[@]}" "--filter-by-job=$NAME"
    ;;
  logs)
    require name
    do_it kubectl logs "--selector=jobset.sigs.k8s.io/jobset-name=$NAME" --prefix --tail=200 \
      --max-log-requests=1000
    ;;
  delete)
    require name
    do_it xpk workload delete "${place[@]}" "--workload=$NAME" --force
    ;;
  *)
    fail "attach, run, status, logs or delete is needed first, not '$action'"
    ;;
esac
