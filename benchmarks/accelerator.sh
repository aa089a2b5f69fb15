#!/usr/bin/env bash
# Measure the published models' sizes on one GPU, and compare its numbers with the CPU's.
set -euo pipefail

usage() {
  cat <<'TEXT'
bash benchmarks/accelerator.sh --out=FOLDER [--parts=real_rl,parity] [--tiny] [--python=python3]

Writes FOLDER/results.jsonl, one line per figure as it is measured, and a log per part. A part that
is complete there is skipped. Needs one GPU of 80 GB, JAX for CUDA, the package's dependencies (not
the package itself), and for the parts with torch also torch and diffusers; no network, no weights.

  part          minutes  what
  attention     1        the attention kernels against blockwise attention
  parity        2        models and step against the CPU; beside the next part
  real_rl       4        step of rl, FLUX.1-Fill-dev with an adapter and Qwen2.5-VL-7B, 1024x1024
  real_parts    3        its parts, and edits of 28 and 50 steps
  torch_editor  2        forward passes and edits of diffusers' pipeline, eager and compiled
  real_judge    2        step of reward, Qwen2.5-VL-7B with an adapter
  mini          2        the mini world's step, and the same step in torch

--tiny runs the same code with the mini models, for a try on a CPU.
TEXT
}

parts=attention,parity,real_rl,real_parts,torch_editor,real_judge,mini
out='' python=python3 tiny=()
for option in "$@"; do
  case $option in
    --out=*) out=${option#*=} ;;
    --parts=*) parts=${option#*=} ;;
    --python=*) python=${option#*=} ;;
    --tiny) tiny=(--tiny) ;;
    *) usage; exit 2 ;;
  esac
done
[[ -n $out ]] || { usage; exit 2; }
cd "$(dirname "${BASH_SOURCE[0]}")/.."
mkdir -p "$out"
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH} PYTHONUNBUFFERED=1 HF_HUB_OFFLINE=1
# As in train_compile's forecast: matrix products by cuBLAS, not searched for in Triton.
export XLA_FLAGS="--xla_gpu_enable_triton_gemm=false ${XLA_FLAGS:-}"
export TF_CPP_MIN_LOG_LEVEL=${TF_CPP_MIN_LOG_LEVEL:-2}

complete() { grep -q "\"part\": \"$1\", \"name\": \"complete\"" "$out/results.jsonl" 2>/dev/null; }

# run PART SECONDS COMMAND...: a process of its own, so that a failure does not stop the others
run() {
  local part=$1 limit=$2 status=0 start=$SECONDS
  shift 2
  timeout --kill-after=5 "$limit" "$@" >"$out/$part.log" 2>&1 || status=$?
  echo "{\"part\": \"$part\", \"name\": \"exit\", \"status\": $status, \"seconds\": $((SECONDS - start))}" |
    tee -a "$out/results.jsonl"
  [[ $status == 0 ]] || tail -n 15 "$out/$part.log"
}

python_part() {
  local nice=()
  [[ $1 != parity ]] || nice=(nice)
  run "$1" "$2" ${nice[@]+"${nice[@]}"} "$python" "benchmarks/accelerator/$1.py" --out="$out" --seconds="$2" \
    ${tiny[@]+"${tiny[@]}"}
}

for part in ${parts//,/ }; do
  if complete "$part"; then
    echo "$part: complete"
    continue
  fi
  case $part in
    attention) XLA_PYTHON_CLIENT_PREALLOCATE=false python_part attention 120 ;;
    parity)
      # Mostly compilation on the CPU, and little memory: beside the next part.
      XLA_PYTHON_CLIENT_PREALLOCATE=false python_part parity 215 &
      ;;
    real_rl) XLA_PYTHON_CLIENT_MEM_FRACTION=0.85 python_part real_rl 300 ;;
    real_parts) XLA_PYTHON_CLIENT_MEM_FRACTION=0.85 python_part real_parts 210 ;;
    real_judge) XLA_PYTHON_CLIENT_MEM_FRACTION=0.85 python_part real_judge 150 ;;
    torch_editor) python_part torch_editor 180 ;;
    mini) XLA_PYTHON_CLIENT_PREALLOCATE=false python_part mini 200 ;;
    *)
      echo "there is no part $part" >&2
      exit 2
      ;;
  esac
done
wait
