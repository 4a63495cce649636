#!/usr/bin/env bash
# Builds the fuzz targets (preset fuzz: clang, address and undefined sanitizers) and runs each for SECONDS (default 20) from small seeds.
# Prints TAP; a failing input is left in build/fuzz/findings and named.
#
#   tests/fuzz/run.sh [SECONDS] [TARGET...]
set -uo pipefail
cd "$(dirname "$0")/../.."
seconds=${1:-20}
[ $# = 0 ] || shift
out=build/fuzz/findings
if ! command -v clang-14 >/dev/null; then
  echo "ok - fuzz: all targets # SKIP clang-14 is not installed"
  exit 0
fi
cmake --preset fuzz >/dev/null && cmake --build --preset fuzz -j "${FUZZ_JOBS:-2}" >build/fuzz/build.log 2>&1 || { tail -20 build/fuzz/build.log | sed 's/^/# /'; echo "not ok - fuzz: the targets build"; exit 1; }
mkdir -p "$out"
python3 tests/fuzz/seeds.py build/fuzz/seeds
targets=${*:-$(cd build/fuzz/fuzz && ls fuzz_* | sed 's/^fuzz_//')}
fuzz() {
  local t=$1 log=build/fuzz/$1.log
  mkdir -p "build/fuzz/corpus/$t" "build/fuzz/seeds/$t"
  if ASAN_OPTIONS=allocator_may_return_null=1:detect_leaks=1 build/fuzz/fuzz/fuzz_"$t" -max_total_time="$seconds" -timeout=20 -rss_limit_mb=2500 -max_len=4096 \
      -artifact_prefix="$out/$t-" "build/fuzz/corpus/$t" "build/fuzz/seeds/$t" >"$log" 2>&1; then
    echo "ok - fuzz: $t ($(grep -oE 'Done [0-9]+ runs' "$log" | head -1), cover $(grep -oE 'cov: [0-9]+' "$log" | tail -1 | cut -c6-))"
    return 0
  fi
  printf '%s\nnot ok - fuzz: %s\n' "$(grep -E 'ERROR|SUMMARY|runtime error|Test unit written' "$log" | head -8 | sed 's/^/# /')" "$t" # in one piece
  return 1
}
export -f fuzz
export seconds out
# xargs ends with 123 where one of them failed.
printf '%s\n' $targets | xargs -P "${FUZZ_JOBS:-2}" -I{} bash -c 'fuzz "$1"' _ {} || exit 1
