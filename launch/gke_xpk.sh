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

  attach    let workloads of the cluster mount a bucket (once); gs:// paths need no mount
  run       submit the run; GKE starts launch/host.sh on all hosts, and restarts it if one is lost
  status    show the state of the workload
  logs      show the last lines of all hosts' logs
  delete    stop and remove the workload; SIGTERM saves a checkpoint, the next `run` resumes from it

options, each also as a variable (--cluster=pod or CLUSTER=pod)
  --cluster=           cluster created with `xpk cluster create`
  --zone=, --project=  zone and project; default: those of gcloud's configuration
  --name=              name of the workload
  --tpu-type=          run: TPU type of a slice, e.g. v5p-128
  --slices=            run: number of slices; default 1
  --workdir=           run: gs://bucket/path, or a folder shared by all hosts, e.g. on --storage
  --storage=           attach, run: name of the attached bucket
  --bucket=            attach: the bucket
  --image=             run: base image; default python:3.12; xpk adds this repository to it
  --config=            run: default configs/flux_fill_dev.py
  --extras=            run: extras of the package; default tpu
  --restarts=          run: most restarts after a lost host; default 10
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
    # No caching: hosts read what other hosts have just written.
    do_it xpk storage attach "$STORAGE" "${place[@]}" --type=gcsfuse "--bucket=$BUCKET" \
      "--mount-point=/gs/$BUCKET" --readonly=false --size=1 --auto-mount=false \
      --mount-options=implicit-dirs,rename-dir-limit=1000000,metadata-cache:ttl-secs:0
    ;;
  run)
    require name tpu-type workdir
    storage=()
    [[ -z ${STORAGE:-} ]] || storage+=("--storage=$STORAGE")
    # GKE restarts lost hosts, so host.sh does not. A workload that waits for people succeeds.
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
    fail "the first argument must be attach, run, status, logs or delete, not '$action'"
    ;;
esac
