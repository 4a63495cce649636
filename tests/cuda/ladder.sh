#!/usr/bin/env bash
# The ladder by which the CUDA kernels are verified without a device; each rung prints TAP.
#
#   tests/cuda/ladder.sh [RUNG...]      compile resources emu asan tsan msan ptx runtime cudnn planted; all where none is named
#
# compile      nvcc for every architecture, warnings, spills and local memory are errors
# resources    registers and shared memory of each kernel have not grown beyond kernels/cuda/resources.txt
# emu          every test on emulated threads, in forward, reverse and random orders
# asan, tsan   the same under these sanitizers: bounds and undefined behaviour; races
# msan         the same under MemorySanitizer: every value that decides or is stored was written
# ptx          the same programs of tests, with nvcc's PTX of the kernels in the place of their source
# runtime      the same programs with the launchers and the plugin as nvcc built them, over an emulated CUDA runtime; and the script for a device
# cudnn        cuDNN's plans of attention compile for devices that are only described
# planted      planted errors, each of which a rung above must catch
#
# Where nvcc is missing, compile, resources, ptx and runtime are skips; where clang++-14 is, msan; where cuDNN is, cudnn.
set -uo pipefail
cd "$(dirname "$0")/../.."
failed=0

# build PRESET TARGET
build() {
  local log=build/cuda-$1-$2.log
  mkdir -p build
  if { cmake --preset "$1" && cmake --build --preset "$1" -j "$(nproc)" --target "$2"; } >"$log" 2>&1; then return 0; fi
  grep -E 'error|warning' "$log" | head -20
  return 1
}
has_nvcc() { grep -q '^SPECDEC_NVCC:FILEPATH=/' build/release/CMakeCache.txt 2>/dev/null; }

compile() {
  cmake --preset release >/dev/null 2>&1
  if ! has_nvcc; then
    echo "ok - cuda: the kernels compile # SKIP nvcc is not installed"
  elif build release specdec_cuda; then
    echo "ok - cuda: the kernels compile for every architecture without a warning, a spill or local memory"
    if [ "$(nm -D --defined-only build/release/libspecdec_cuda.so | awk '{ print $3 }')" = sd_cuda_plugin ]; then
      echo "ok - cuda: the plugin exports its one symbol"
    else
      echo "not ok - cuda: the plugin exports its one symbol"
      failed=1
    fi
  else
    echo "not ok - cuda: the kernels compile for every architecture without a warning, a spill or local memory"
    failed=1
  fi
}

resources() {
  if [ ! -e build/release/libspecdec_cuda.so ]; then
    echo "ok - cuda: registers and shared memory # SKIP libspecdec_cuda.so is not built"
  else
    tests/cuda/resources.py build/release/kernels/cuda || failed=1
  fi
}

# run_all NAME FOLDER: its programs of tests, as many at a time as there are processors.
run_all() {
  local out folder=$2
  out=$(mktemp -d)
  export out folder
  find "$folder" -name '*test_*' -type f -executable -printf '%f\n' | sort |
    xargs -P "$(nproc)" -I{} bash -c '"$folder/{}" >"$out/{}" 2>&1; echo $? >"$out/{}.status"'
  for file in "$out"/*.status; do
    sed "s/^\(ok\|not ok\) - /&$1: /" "${file%.status}"
    [ "$(cat "$file")" = 0 ] && continue
    failed=1
    grep -q '^not ok' "${file%.status}" || echo "not ok - $1: $(basename "${file%.status}") ended with status $(cat "$file")"
  done
  rm -rf "$out"
}

emu() {
  if build "$1" cuda_tests; then
    run_all "$1" "build/$1/cuda_tests"
  else
    echo "not ok - cuda: the tests build under preset $1"
    failed=1
  fi
}

# The kernels alone: the library's own tests would need other people's libraries instrumented.
msan() {
  if ! command -v clang++-14 >/dev/null; then
    echo "ok - cuda: MemorySanitizer # SKIP clang++-14 is not installed"
  elif build msan cuda_kernel_tests; then
    EMU_ORDERS=0 run_all msan build/msan/cuda_tests
  else
    echo "not ok - cuda: the tests build under preset msan"
    failed=1
  fi
}

# Every kernel that was translated must also have been launched.
ptx() {
  local never
  cmake --preset release >/dev/null 2>&1
  if ! has_nvcc; then
    echo "ok - cuda: the kernels' PTX # SKIP nvcc is not installed"
    return
  fi
  if ! command -v python3 >/dev/null; then
    echo "ok - cuda: the kernels' PTX # SKIP python3 is not installed"
    return
  fi
  if ! build release cuda_ptx_tests; then
    echo "not ok - cuda: the kernels' PTX is translated and builds"
    failed=1
    return
  fi
  PTX_LOG=$(mktemp)
  export PTX_LOG
  run_all ptx build/release/cuda_ptx_tests
  never=$(sed -nE 's/^\.visible \.entry (\w+)\(.*/\1/p' build/release/tests/cuda/ptx/*.ptx | sort | comm -23 - <(sort -u "$PTX_LOG"))
  if [ -z "$never" ]; then
    echo "ok - ptx: all of the $(sort -u "$PTX_LOG" | wc -l) kernels that were translated were launched"
  else
    echo "not ok - ptx: no test launches" $never
    failed=1
  fi
  rm -f "$PTX_LOG"
}

# What would run on a device, but for the device: tests/cuda/gpu.
runtime() {
  local folder=build/release/cuda_runtime_tests fake
  cmake --preset release >/dev/null 2>&1
  if ! has_nvcc || ! command -v python3 >/dev/null; then
    echo "ok - cuda: an emulated runtime # SKIP nvcc or python3 is not installed"
    return
  fi
  if ! build release cuda_runtime_tests; then
    echo "not ok - cuda: the tests over an emulated runtime build"
    failed=1
    return
  fi
  LD_LIBRARY_PATH=$folder run_all runtime "$folder"
  fake=$(mktemp -d)
  printf '#!/bin/sh\necho "emulated runtime, 9.0, 65536 MiB, 0"\n' >"$fake/nvidia-smi"
  chmod +x "$fake/nvidia-smi"
  PATH=$fake:$PATH tests/cuda/on_device.sh --emulated "$fake" || failed=1
  rm -rf "$fake"
}

cudnn() {
  cmake --preset release >/dev/null 2>&1
  if ! grep -qE '^SPECDEC_CUDNN_INCLUDE:PATH=/' build/release/CMakeCache.txt 2>/dev/null; then
    echo "ok - cudnn: plans of attention # SKIP cudnn.h is not installed"
  elif ! build release cudnn_plans; then
    echo "not ok - cudnn: the test of plans builds"
    failed=1
  else
    build/release/cuda_tests/cudnn_plans build/release/cuda_tests/driver/libcuda.so.1 || failed=1
  fi
}

for rung in ${*:-compile resources emu asan tsan msan ptx runtime cudnn planted}; do
  start=$SECONDS
  case $rung in
  compile) compile ;;
  resources) resources ;;
  emu) emu release ;;
  asan | tsan) emu "$rung" ;;
  msan) msan ;;
  ptx) ptx ;;
  runtime) runtime ;;
  cudnn) cudnn ;;
  planted) tests/cuda/planted_bugs.sh || failed=1 ;;
  *)
    echo "ladder.sh: '$rung' is unknown; give compile, resources, emu, asan, tsan, msan, ptx, runtime, cudnn or planted" >&2
    exit 2
    ;;
  esac
  echo "# rung $rung: $((SECONDS - start)) s"
done
exit $failed
