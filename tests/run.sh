#!/usr/bin/env bash
# The whole test-suite of specdec, from a clean checkout: installs what is missing, builds, runs, and closes with "N passed, N failed, N skipped".
#
#   tests/run.sh              everything that takes minutes: static unit e2e torture fuzz asan tsan cuda
#   tests/run.sh unit e2e     only these parts
#   tests/run.sh parity       against the reference implementations, which PYTHON (python3) must have: up to an hour
#
# Every check prints a TAP line (ok, not ok, ok ... # SKIP reason); this script only counts them. Slow suites have a command of their own: see README.md.
set -uo pipefail
cd "$(dirname "$0")/.."
root=$PWD
parts=${*:-static unit e2e torture fuzz asan tsan cuda}
log=$(mktemp -d)
trap 'rm -rf "$log"' EXIT
passed=0 failed=0 skipped=0

has() { [[ " $parts " == *" $1 "* ]]; }

# Counts the TAP lines of a finished check. A check that failed without saying so in a line of its own is one failure.
count() {
  local name=$1 status=$2 file=$3 p f s
  s=$(grep -ciE '^ok\b.*# *skip' "$file")
  p=$(($(grep -cE '^ok\b' "$file") - s))
  f=$(grep -cE '^not ok\b' "$file")
  if [ "$status" != 0 ] && [ "$f" = 0 ]; then
    echo "not ok - $name: ended with status $status"
    f=1
  fi
  if [ $((p + f + s)) = 0 ]; then
    echo "not ok - $name: ran no check"
    f=1
  fi
  passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + s))
}

# report NAME STATUS SECONDS: what a check left in $log/NAME.out and .err. Shows failures and skips, keeps the rest quiet.
report() {
  local name=$1 status=$2 out=$log/${1//\//_}.out err=$log/${1//\//_}.err
  grep -E '^not ok\b|# *[Ss][Kk][Ii][Pp]' "$out"
  if [ "$status" != 0 ] || grep -qE '^not ok\b' "$out"; then
    grep -vE '^(ok|not ok)\b' "$out" | tail -40
    tail -40 "$err"
  fi
  count "$name" "$status" "$out"
  echo "# $name: $3 s"
}

# check NAME COMMAND...
check() {
  local name=$1 start=$SECONDS status
  shift
  "$@" >"$log/${name//\//_}.out" 2>"$log/${name//\//_}.err"
  status=$?
  report "$name" "$status" $((SECONDS - start))
}

# build PRESET TARGET...: a build that fails is one failed check and ends its part.
build() {
  local preset=$1 start=$SECONDS
  shift
  if { cmake --preset "$preset" && cmake --build --preset "$preset" -j "$(nproc)" --target "$@"; } >"$log/build" 2>&1; then
    echo "# build $preset: $((SECONDS - start)) s"
    return 0
  fi
  grep -E 'error|Error' "$log/build" | head -20
  echo "not ok - build $preset"
  failed=$((failed + 1))
  return 1
}

# Lines of NAME, a tab and a command, from standard input: as many at a time as there are processors. One that waits for ever is a failure, not a suite without an end.
side_by_side() {
  local status seconds name
  export log
  one() {
    local start=$SECONDS name=${1%%$'\t'*} file
    file=$log/${name//\//_}
    timeout -k 10 900 bash -c "${1#*$'\t'}" >"$file.out" 2>"$file.err"
    echo "$? $((SECONDS - start)) $name"
  }
  export -f one
  while read -r status seconds name; do report "$name" "$status" "$seconds"; done < <(xargs -d '\n' -P "$(nproc)" -I{} bash -c 'one "$1"' _ {})
  wait $! && return
  echo "not ok - side by side: a command was killed, and what came behind it did not run"
  failed=$((failed + 1))
}

# What takes longest comes first, so that no processor waits for it at the end.
longest='forward_rows|engine_exact|kernels_rows|attention_amx_simde|train_f64|forward_reference|engine_shaping|engine_prefix|run|run_resume|accept_law|step_cost|kernels_simde'
unit_tests() {
  local preset=$1 only=${2:-.} tests
  tests=$(find "build/$preset/tests" -maxdepth 1 -name 'test_*' -type f -executable -printf '%f\n' | grep -E "$only" | sort)
  # Not through a pipe: what it counts would be lost in a shell of its own.
  side_by_side < <(
    { grep -xE "test_($longest)" <<<"$tests"; grep -vxE "test_($longest)" <<<"$tests"; } |
      while read -r name; do printf '%s\tbuild/%s/tests/%s --tap --quiet -j1\n' "$preset $name" "$preset" "$name"; done
  )
}

# Scripts of a folder. Those that measure times, or use all processors themselves, run alone.
alone='serve.py|planted_bugs.sh|hostile.py|overload.py|canary.py'
scripts() {
  local script together=
  for script in "$1"/*.sh "$1"/*.py; do
    [ -x "$script" ] || continue
    if grep -qxE "$alone" <<<"${script##*/}"; then
      check "$script" "$script" "$root/build/release/specdec"
    else
      together+="$script"$'\t'"$script $(printf %q "$root/build/release/specdec")"$'\n'
    fi
  done
  [ -z "$together" ] || side_by_side < <(printf %s "$together")
}

format_check() {
  if git ls-files '*.c' '*.h' '*.cpp' '*.cu' '*.cuh' | xargs clang-format --dry-run -Werror >"$log/format" 2>&1; then
    echo "ok - format"
  else
    head -20 "$log/format"
    echo "not ok - format: clang-format -i the files above"
    return 1
  fi
}

# A script that cannot be run is left out of its folder's, and nobody would see that.
executable_check() {
  local script bad=0
  for script in tests/{bench,e2e,parity,torture}/*.{py,sh}; do
    [ -x "$script" ] || [ "$(head -c 2 "$script")" != '#!' ] && continue
    echo "not ok - scripts are executable: chmod +x $script"
    bad=1
  done
  [ $bad = 0 ] && echo "ok - scripts are executable"
}

# What was there before is not the suite's.
untracked() { git status --porcelain 2>/dev/null | LC_ALL=C sort; }
before=$(untracked)
litter_check() {
  local left
  left=$(LC_ALL=C comm -13 <(printf '%s\n' "$before") <(untracked))
  [ -z "$left" ] && echo "ok - the checkout is as it was" && return
  echo "not ok - the checkout is as it was: files were left or changed"
  echo "$left" | head -20
  return 1
}

recipes/deps.sh tests || {
  echo "not ok - dependencies"
  exit 1
}

if has static; then
  check format format_check
  check layers tests/check_layers.sh
  check executable executable_check
fi

models=${SPECDEC_MODELS:-${XDG_CACHE_HOME:-$HOME/.cache}/specdec/models}
export SPECDEC_MODELS=$models
if has unit || has e2e || has torture || has parity; then
  recipes/models.sh smollm2 >/dev/null || echo "# no weights: the tests that need them are skipped"
  if has parity; then # SentencePiece: a real model, and vocabularies with their vectors
    for what in gemma3-270m vocabularies; do recipes/models.sh "$what" >/dev/null || echo "# no $what: the checks that need it are skipped"; done
  fi
  build release specdec unit_tests || parts=
fi
has unit && unit_tests release
has e2e && scripts tests/e2e
if has torture; then # short here; each has --full for its long run
  start=$SECONDS
  scripts tests/torture
  echo "# torture in all: $((SECONDS - start)) s"
fi
has fuzz && check fuzz tests/fuzz/run.sh 5
if has parity; then
  for script in tests/parity/*.py; do
    [ -x "$script" ] && check "$script" "${PYTHON:-python3}" "$script" "$root/build/release/specdec" "$models"
  done
fi
if has asan; then
  export ASAN_OPTIONS=detect_leaks=1:abort_on_error=0 UBSAN_OPTIONS=print_stacktrace=1
  build asan unit_tests && unit_tests asan
fi
if has tsan; then
  # test_engine_memory counts what the allocator gives, on one thread.
  threaded=$(cd tests/unit && basename -s .c base/test_base.c decode/test_engine*.c model/test_{backend,lora_weights}.c serve/test_{serve*,workers,provider}.c | grep -vx test_engine_memory)
  # shellcheck disable=SC2086
  build tsan $threaded && unit_tests tsan '^test_(base|backend|engine|lora_weights|serve|workers|provider)'
fi

if has cuda; then # on emulated threads; compile, resources, ptx and runtime also need nvcc. Planted errors: tests/cuda/ladder.sh
  for rung in compile resources emu asan tsan msan ptx runtime cudnn; do check "cuda/$rung" tests/cuda/ladder.sh "$rung"; done
fi

check litter litter_check
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" = 0 ]
