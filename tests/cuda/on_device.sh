#!/usr/bin/env bash
# What only a CUDA device can show, in one unattended run of under ten minutes: no network, no real weights.
#
#   tests/cuda/on_device.sh [--emulated] [FOLDER]
#
# Builds for the architecture of the device that is there, runs every CUDA test program with the kernels as nvcc built them and the backend over
# the plugin, then measures, and writes FOLDER/RESULT.md (build/device where none is given). Prints TAP; a part without what it
# needs, or without time left, is a skip with the reason. Where nvidia-smi finds no device every part is one, and no result is written.
#
# --emulated: the same script over the emulated runtime (tests/cuda/gpu/emulated_runtime.cpp), with few tests and tiny models: that it works, no more.
set -uo pipefail
cd "$(dirname "$0")/../.."
emulated=
[ "${1:-}" = --emulated ] && emulated=1 && shift
out=${1:-build/device}
most=${ON_DEVICE_SECONDS:-570} # of the whole run
failed=0
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

left() { echo $((most - SECONDS)); }

# part NAME CAP NEED COMMAND...: within CAP seconds and what is left of the run. NEED: empty, or why it is a skip. A command that ends with status 77
# skips itself; its last line is the reason.
part() {
  local name=$1 cap=$2 need=$3 start=$SECONDS status reason
  shift 3
  [ -z "$need" ] && [ "$(left)" -lt 10 ] && need="$(left) s are left"
  if [ -n "$need" ]; then
    echo "ok - device: $name # SKIP $need"
    echo "| $name | skipped: $need | |" >>"$work/parts"
    return 0
  fi
  [ "$(left)" -lt "$cap" ] && cap=$(left)
  export -f "$1" 2>/dev/null
  timeout -k 5 "$cap" bash -c '"$@"' - "$@" >"$work/log" 2>&1
  status=$?
  reason=$(tail -n 1 "$work/log")
  [ $status = 124 ] || [ $status = 137 ] && reason="not done within $cap s"
  case $status in
  0) echo "ok - device: $name ($((SECONDS - start)) s)" ;;
  77) echo "ok - device: $name # SKIP $reason" ;;
  *)
    echo "not ok - device: $name"
    grep -E '^(not ok|#|gpu:|emu:|error|.*: error)' "$work/log" | tail -n 30 | sed 's/^/# /'
    echo "# $reason"
    failed=1
    ;;
  esac
  case $status in
  0) reason=done ;;
  77) reason="skipped: $reason" ;;
  *) reason="FAILED: $reason" ;;
  esac
  echo "| $name | $reason | $((SECONDS - start)) s |" >>"$work/parts"
  [ $status = 0 ]
}

# ---- the device

smi() { nvidia-smi --query-gpu=name,compute_cap,memory.total,driver_version --format=csv,noheader 2>"$work/smi.log" | head -n 1; }
no_device=
if ! command -v nvidia-smi >/dev/null; then
  no_device="nvidia-smi is not here"
elif ! device=$(smi) || [[ $device != *,*,*,* ]]; then
  no_device="nvidia-smi finds no device: ${device:-$(head -n 1 "$work/smi.log")}"
fi
capability=$(cut -d, -f2 <<<"${device:-}" | tr -d ' .')
[ -z "$no_device" ] && [[ ! $capability =~ ^[0-9]{2,3}$ ]] && no_device="nvidia-smi says no compute capability: $device"
[ -z "$no_device" ] && echo "# $device"

# ---- the parts

if [ -n "$emulated" ]; then
  build=build/release programs=$build/cuda_runtime_tests prefix=runtime_ specdec=$programs/specdec
  shapes=(tiny)
  quick=(--prefill 8 --depth 0 --rounds 1 --no-start)
  tokens=4
  export LD_LIBRARY_PATH=$programs
else
  build=build/device programs=$build/cuda_gpu_tests prefix=gpu_ specdec=$build/specdec
  shapes=(smollm2-135m qwen2.5-1.5b)
  quick=(--prefill 512 --depth 0,1024)
  tokens=128
fi
export build programs prefix specdec capability work emulated

build_all() {
  local jobs
  jobs=$(nproc)
  command -v nvcc >/dev/null || [ -x /usr/local/cuda/bin/nvcc ] || {
    echo "nvcc is not installed: recipes/deps.sh cuda"
    return 77
  }
  if [ -n "$emulated" ]; then
    cmake --preset release && cmake --build --preset release -j "$jobs" --target cuda_runtime_tests make_model
  else
    cmake -S . -B "$build" -DCMAKE_BUILD_TYPE=Release -DSPECDEC_CUDA=ON -DSPECDEC_CUDA_ARCHITECTURES="$capability" -DSPECDEC_WERROR=OFF &&
      cmake --build "$build" -j "$jobs" --target specdec specdec_cuda cuda_gpu_tests gpu_rates make_model
  fi
}

# Every program of tests, some at a time; each test is a process of its own.
run_tests() {
  local file
  mkdir -p "$work/tests"
  find "$programs" -name "${prefix}test_*" -type f -executable | sort >"$work/programs"
  [ -n "$emulated" ] && grep -E 'test_(rows|lora)$' "$work/programs" >"$work/few" && mv "$work/few" "$work/programs"
  xargs -P 6 -I{} sh -c 'name=$(basename {}); {} >"$work/tests/$name" 2>&1; echo $? >"$work/tests/$name.status"' <"$work/programs"
  for file in $(cat "$work/programs"); do
    sed "s/^\(ok\|not ok\) - /&$(basename "$file"): /" "$work/tests/$(basename "$file")"
  done
  ! grep -Lx 0 "$work"/tests/*.status | grep -q . && [ "$(ls "$work"/tests/*.status | wc -l)" = "$(wc -l <"$work/programs")" ]
}

# The sanitizer's tools over programs that launch much in little time. It reports a refusal before the first test.
sanitize() {
  local tool program
  command -v compute-sanitizer >/dev/null || {
    echo "compute-sanitizer is not installed"
    return 77
  }
  compute-sanitizer --tool memcheck "$programs/gpu_test_lora" "no such test" >"$work/sanitizer" 2>&1
  if ! compute-sanitizer --tool memcheck "$programs/gpu_test_rows" "add adds" >"$work/sanitizer" 2>&1 && ! grep -q "ERROR SUMMARY: [1-9]" "$work/sanitizer"; then
    grep -m1 -iE 'error|not supported|unable' "$work/sanitizer"
    return 77
  fi
  for tool in memcheck racecheck initcheck synccheck; do
    for program in test_attention test_matmul test_rope test_sample test_lora test_rows; do
      if [ $SECONDS -gt 190 ]; then # of this part
        echo "ok - $tool: $program # SKIP no time is left"
        continue
      fi
      timeout 40 compute-sanitizer --tool "$tool" --error-exitcode 3 "$programs/gpu_$program" >"$work/sanitizer" 2>&1
      case $? in
      0) echo "ok - $tool: $program" ;;
      124) echo "ok - $tool: $program # SKIP not done within 40 s" ;;
      *)
        grep -m5 -E '^=+ [A-Z]|^not ok' "$work/sanitizer" | sed 's/^=*/# /'
        echo "not ok - $tool: $program"
        return 1
        ;;
      esac
    done
  done
}

inspect() { "$specdec" inspect --devices && "$specdec" inspect --devices | grep -qE 'cuda:0|emulated runtime'; }
make_models() {
  local shape
  for shape in "$@"; do "$build/cuda_gpu_tests/make_model" "$shape" "$work/$shape.gguf" || return 1; done
}
bench_model() {
  local shape=$1
  shift
  "$specdec" bench model -m "$work/$shape.gguf" --device cuda --json "$@" >"$work/$shape.model.json" && cat "$work/$shape.model.json"
}
# Texts that repeat themselves, so that the drafter finds something; and both ways must say the same.
bench_spec() {
  local shape=$1 tokens=$2
  python3 - >"$work/prompts.jsonl" <<'PY'
import json
for i in range(4):
    print(json.dumps({"task": "repeat", "prompt": f"the order of the {i} and the other in the house, " * 8, "max_tokens": 128}))
PY
  "$specdec" bench spec -m "$work/$shape.gguf" --device cuda --json -n "$tokens" "$work/prompts.jsonl" >"$work/$shape.spec.json" && cat "$work/$shape.spec.json"
}
rates() { "$build/cuda_gpu_tests/gpu_rates" >"$work/rates" && cat "$work/rates"; }

need=$no_device
part "the build for this device alone" 260 "$need" build_all || need=${need:-"the build failed"}
part "what the program finds" 20 "$need" inspect
part "the test programs on the device" 200 "$need" run_tests
needs_time=$need
[ -z "$needs_time" ] && [ -n "$emulated" ] && needs_time="emulated threads have no speed"
part "products against the card's bandwidth" 60 "$needs_time" rates
part "models of random weights" 60 "$need" make_models "${shapes[@]}" || need=${need:-"there is no model"}
for shape in "${shapes[@]}"; do part "bench model, $shape" 60 "$need" bench_model "$shape" "${quick[@]}"; done
for shape in "${shapes[@]}"; do part "bench spec, $shape" 60 "$need" bench_spec "$shape" "$tokens"; done
part "compute-sanitizer" 240 "$needs_time" sanitize
[ -n "$no_device" ] && exit 0

mkdir -p "$out"
python3 tests/cuda/on_device_table.py "$work" "$device" >"$out/RESULT.md" || failed=1
echo "# $out/RESULT.md"
exit $failed
