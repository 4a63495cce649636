#!/usr/bin/env bash
# The main verbs under valgrind: no invalid read or write, no use of what was never set, nothing lost at the end.
#
#   tests/torture/valgrind.sh build/release/specdec [--full]
#
# Minutes long, so it does its work with --full only. Prints TAP. oneDNN is kept to AVX2: valgrind does not run the code that it makes for more.
set -uo pipefail
name="valgrind"
. "$(dirname "$0")/../e2e/lib/tiny.sh"
[[ " $* " == *" --full "* ]] || { echo "ok - $name # SKIP minutes long: give --full"; exit 0; }
command -v valgrind >/dev/null || { echo "ok - $name # SKIP valgrind is not installed"; exit 0; }
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
export XDG_CACHE_HOME=$dir/cache DNNL_MAX_CPU_ISA=AVX2 ONEDNN_MAX_CPU_ISA=AVX2
"$tiny" tiny.gguf || exit 1
for i in $(seq 1 12); do echo "{\"prompt\": \"record $i is \", \"completion\": \"$((i * 7919 % 1000)) and $((i % 7))\"}"; done >data.jsonl
cat >recipe.yaml <<'YAML'
recipe: 1
name: run
base: {model: tiny.gguf, compute_dtype: fp32}
adapter: {r: 2, alpha: 4}
data: {train: [{path: data.jsonl, format: completion}], sequence_len: 64, packing: true}
train: {max_steps: 2, batch_tokens: 64, learning_rate: 1e-2}
checkpoint: {every: 1, keep: 2}
export_verify: {prompts: 1}
YAML

# Runs a verb; what valgrind found is in the log of the process that the verb became.
under() { # NAME VERB...
  local what=$1 out
  shift
  rm -f vg.*
  out=$(valgrind -q --trace-children=yes --error-exitcode=99 --leak-check=full --show-leak-kinds=definite --errors-for-leak-kinds=definite \
    --log-file=vg.%p "$binary" "$@" 2>&1)
  local status=$?
  out+=$'\n'$(cat vg.* 2>/dev/null | head -60)
  check "$what under valgrind: ends with 0, no error, nothing lost" "$([ $status = 0 ] && ! grep -qE 'Invalid|uninitialised|definitely lost' vg.* && echo 0 || echo 1)" "exit $status"$'\n'"$out"
}
under tokenize tokenize --json -m tiny.gguf "hello there"
under inspect inspect --json tiny.gguf
under cost cost --requests-day 500 --in 1500 --out 500 --prefill-tok-s 8000 --decode-tok-s 1500 --gpu-hour 2 --api x=2.5,10 --html page.html
under generate generate --threads 1 -m tiny.gguf -n 4 -p "hello there" --chat
under "data prepare" data prepare data.jsonl -m tiny.gguf --sequence-len 64 -o data.h5
under "data stats" data stats data.h5
under "train of 2 steps" train recipe.yaml -o run
under export export run --to peft -o peft --threads 1
exit $failed
