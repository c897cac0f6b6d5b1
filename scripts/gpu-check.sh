#!/usr/bin/env bash
# The live side of thunderbench on one GPU, end to end, with weights that are made up: nothing is downloaded.
#
# Usage:
#   scripts/gpu-check.sh [STEP...]          all steps, or some of them, in the order given
#
# Ends with 0, with 5 when a study finished but does not count (too few steps, say), else as the step that failed.
#
# Steps, each of which ends within GPU_CHECK_STEP_S and uses what earlier ones left in the folder:
#   model       the configuration of GPU_CHECK_MODEL and a tokenizer, no weights
#   live        the same programs under every scheduler on a real vLLM server that the run starts
#   calibrate   a server of its own, measured: profile.toml and calibration.json
#   predict     the programs of `live` in virtual time, with the profile
#   report      report.html of the live study, and the live numbers beside the predicted ones
#
# Environment:
#   GPU_CHECK_OUT=results/gpu-check    folder of everything; what is in it already is kept
#   GPU_CHECK_CPU=1                    a tiny model and small loads, for a machine without a GPU
#   GPU_CHECK_STEP_S=590               bound of a step in seconds
#   GPU_CHECK_PYTHON=.venv/bin/python  interpreter with thunderbench and vLLM
#   GPU_CHECK_MODEL, GPU_CHECK_HARDWARE, GPU_CHECK_MAX_LEN, GPU_CHECK_BLOCKS, GPU_CHECK_BATCHED, GPU_CHECK_SEQS
#   GPU_CHECK_WORKLOAD, GPU_CHECK_SCHEDULERS, GPU_CHECK_CONCURRENCY, GPU_CHECK_DURATION, GPU_CHECK_WARMUP
#   GPU_CHECK_MAX_PROMPT, GPU_CHECK_MAX_BATCH, GPU_CHECK_MEASURE_S, GPU_CHECK_SET ("NAME=VALUE NAME=VALUE")
set -euo pipefail

root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)
out=${GPU_CHECK_OUT:-$root/results/gpu-check}
python=${GPU_CHECK_PYTHON:-$root/.venv/bin/python}
step_s=${GPU_CHECK_STEP_S:-590}
cpu=${GPU_CHECK_CPU:-}
server="" # process id of a server that a step started
invalid=0 # exit code when runs finished that do not count

# The first GPU as profiles name it, such as 1xH200; empty without one.
gpu_label() {
  nvidia-smi --query-gpu=name --format=csv,noheader 2>/dev/null | awk 'NR == 1 { print "1x" $2 }' || true
}

if [[ -n $cpu ]]; then
  model=${GPU_CHECK_MODEL:-tiny} hardware=${GPU_CHECK_HARDWARE:-CPU}
  max_len=${GPU_CHECK_MAX_LEN:-32768} blocks=${GPU_CHECK_BLOCKS:-320}
  batched=${GPU_CHECK_BATCHED:-2048} seqs=${GPU_CHECK_SEQS:-128}
  workload=${GPU_CHECK_WORKLOAD:-swe-lite} concurrency=${GPU_CHECK_CONCURRENCY:-6}
  duration=${GPU_CHECK_DURATION:-60s} warmup=${GPU_CHECK_WARMUP:-10s}
  max_prompt=${GPU_CHECK_MAX_PROMPT:-8192} max_batch=${GPU_CHECK_MAX_BATCH:-8}
  measure_s=${GPU_CHECK_MEASURE_S:-60}
  server_args="--enforce-eager"
  export VLLM_CPU_KVCACHE_SPACE=${VLLM_CPU_KVCACHE_SPACE:-1}
  export VLLM_CPU_OMP_THREADS_BIND=${VLLM_CPU_OMP_THREADS_BIND:-nobind} OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
else
  model=${GPU_CHECK_MODEL:-Qwen3-8B} hardware=${GPU_CHECK_HARDWARE:-$(gpu_label)}
  max_len=${GPU_CHECK_MAX_LEN:-40960} blocks=${GPU_CHECK_BLOCKS:-12000}
  batched=${GPU_CHECK_BATCHED:-8192} seqs=${GPU_CHECK_SEQS:-256}
  workload=${GPU_CHECK_WORKLOAD:-swe-lite} concurrency=${GPU_CHECK_CONCURRENCY:-24}
  duration=${GPU_CHECK_DURATION:-100s} warmup=${GPU_CHECK_WARMUP:-40s}
  max_prompt=${GPU_CHECK_MAX_PROMPT:-32768} max_batch=${GPU_CHECK_MAX_BATCH:-64}
  measure_s=${GPU_CHECK_MEASURE_S:-360}
  server_args=""
fi
schedulers=${GPU_CHECK_SCHEDULERS:-thunder vllm continuum}
export HF_HUB_OFFLINE=1 VLLM_NO_USAGE_STATS=1 DO_NOT_TRACK=1

say() { printf '%s\n' "gpu-check: $*" >&2; }

fail() {
  say "$*"
  exit 2
}

bench() { "$python" -c 'from harness.cli import main; main()' "$@"; }

# What programs are played, the same live and predicted.
load() {
  local each
  for each in $schedulers; do printf '%s\n' --scheduler "$each"; done
  printf '%s\n' --workload "$workload" --concurrency "$concurrency" --duration "$duration" --warmup "$warmup"
  for each in ${GPU_CHECK_SET:-}; do printf '%s\n' --set "$each"; done
}

stop_server() {
  [[ -n $server ]] || return 0
  local pid=$server
  server=""
  kill -TERM -- "-$pid" 2>/dev/null || return 0 # its whole group: vLLM has workers
  local tries
  for tries in $(seq 100); do
    kill -0 -- "-$pid" 2>/dev/null || return 0
    sleep 0.2
  done
  say "the server ($pid) does not end after ${tries} tries: killing it"
  kill -KILL -- "-$pid" 2>/dev/null || true
}

# Start a server on a free port and wait until it is healthy; sets `url`.
start_server() {
  local port waited log=$out/server.log
  port=$("$python" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
  url=http://127.0.0.1:$port
  # shellcheck disable=SC2086 # several words on purpose
  setsid "$python" -m vllm.entrypoints.openai.api_server --model "$out/model" --load-format dummy \
    --served-model-name "$model" --host 127.0.0.1 --port "$port" --max-model-len "$max_len" \
    --num-gpu-blocks-override "$blocks" --max-num-batched-tokens "$batched" --max-num-seqs "$seqs" \
    --enable-prefix-caching --enable-prompt-tokens-details $server_args >"$log" 2>&1 </dev/null &
  server=$!
  for waited in $(seq "$step_s"); do
    if "$python" -c "import urllib.request as r; r.urlopen('$url/health', timeout=2)" 2>/dev/null; then
      say "the server is ready after $waited tries: $url"
      return
    fi
    kill -0 "$server" 2>/dev/null || fail "the server ended: $(tail -n 1 "$log"); see $log"
    sleep 1
  done
  fail "the server is not healthy after $step_s s; see $log"
}

step_model() {
  [[ ! -f $out/model/config.json ]] || return 0
  "$python" - "$model" "$out/model" <<'PYTHON'
import sys
from pathlib import Path

from harness.live.tiny_model import write_dummy_model, write_tiny_model

name, folder = sys.argv[1], Path(sys.argv[2])
print(write_tiny_model(folder) if name == "tiny" else write_dummy_model(name, folder))
PYTHON
}

step_live() {
  local arguments
  mapfile -t arguments < <(load)
  rm -rf -- "$out/live"
  bench run "${arguments[@]}" --backend vllm --set "live.model_path=$out/model" --set live.load_format=dummy \
    --set "live.max_model_len=$max_len" --set "live.num_gpu_blocks_override=$blocks" \
    --set "engine.max_num_batched_tokens=$batched" --set "engine.max_num_seqs=$seqs" \
    ${server_args:+--set "live.server_args=$server_args"} --no-progress -o "$out/live"
}

step_calibrate() {
  local url
  start_server
  bench calibrate --backend "$url" ${hardware:+--hardware "$hardware"} --model "$model" --json --force \
    --max-num-batched-tokens "$batched" --max-num-seqs "$seqs" --max-prompt "$max_prompt" \
    --max-batch "$max_batch" --time-limit "$measure_s" -o "$out/profile.toml" >"$out/calibration.json.part"
  mv -- "$out/calibration.json.part" "$out/calibration.json"
  stop_server
  cat -- "$out/profile.toml"
}

step_predict() {
  [[ -f $out/profile.toml ]] || fail "no $out/profile.toml; run the step calibrate first"
  local arguments
  mapfile -t arguments < <(load)
  rm -rf -- "$out/predicted"
  bench run "${arguments[@]}" --backend sim --profile "$out/profile.toml" --no-reference --no-progress \
    -o "$out/predicted"
}

step_report() {
  [[ -d $out/live ]] || fail "no $out/live; run the step live first"
  bench report "$out/live" -o "$out/report.html"
  [[ -d $out/predicted ]] || fail "no $out/predicted; run the step predict first"
  "$python" - "$out" <<'PYTHON' | tee -- "$out/comparison.txt"
import json
import sys
from pathlib import Path

out = Path(sys.argv[1])
print(f"{'run':32} {'steps/min':>20} {'KV hit rate':>20}")
print(f"{'':32} {'live':>10}{'predicted':>10} {'live':>10}{'predicted':>10}")
for live in sorted((out / "live").glob("*/summary.json")):
    other = out / "predicted" / live.parent.name / "summary.json"
    if not other.exists():
        continue
    both = [json.loads(file.read_text()) for file in (live, other)]
    steps = [f"{each['throughput']['steps_per_min']:.1f}" for each in both]
    hits = [each["kv"]["hit_rate_share"] for each in both]
    rates = ["-" if hit is None else f"{hit:.1%}" for hit in hits]
    print(f"{live.parent.name:32} {steps[0]:>10}{steps[1]:>10} {rates[0]:>10}{rates[1]:>10}")
PYTHON
}

# Where results come from: machine, versions, parameters.
provenance() {
  {
    date -u +%Y-%m-%dT%H:%M:%SZ
    git -C "$root" rev-parse HEAD 2>/dev/null || say "not a git checkout: no commit in the provenance"
    nvidia-smi --query-gpu=name,memory.total,driver_version --format=csv,noheader 2>/dev/null || echo "no GPU"
    "$python" -c 'import platform, torch, vllm; print("python", platform.python_version(), "torch", torch.__version__, "vllm", vllm.__version__)'
    echo "model=$model max_len=$max_len blocks=$blocks batched=$batched seqs=$seqs workload=$workload"
    echo "schedulers=$schedulers concurrency=$concurrency duration=$duration warmup=$warmup set=${GPU_CHECK_SET:-}"
  } >"$out/provenance.txt"
}

# A step runs as this script again, so that `timeout` can end it with all that it started.
bounded() {
  say "$1"
  GPU_CHECK_INNER=1 timeout --signal=TERM --kill-after=30 "$step_s" "${BASH_SOURCE[0]}" "$1" && return
  local status=$?
  if [[ $status == 5 ]]; then
    say "$1 finished, but its runs are not valid; the next steps go on"
    invalid=5
    return
  fi
  [[ $status != 124 ]] || say "$1 did not end within $step_s s"
  exit "$status"
}

main() {
  [[ -x $python ]] || fail "no interpreter at $python; run ./run.sh once, or set GPU_CHECK_PYTHON"
  local steps=("$@") step
  [[ $# -gt 0 ]] || steps=(model live calibrate predict report)
  for step in "${steps[@]}"; do
    [[ $step =~ ^(model|live|calibrate|predict|report)$ ]] || fail "no step $step; see the head of this script"
  done
  mkdir -p -- "$out"
  cd -- "$root"
  if [[ -n ${GPU_CHECK_INNER:-} ]]; then
    trap stop_server EXIT
    trap 'exit 143' TERM
    trap 'exit 130' INT
    "step_${steps[0]}"
    return
  fi
  provenance
  for step in "${steps[@]}"; do
    [[ $step == model || -f $out/model/config.json ]] || bounded model
    bounded "$step"
  done
  say "done: $out"
  exit "$invalid"
}

main "$@"
