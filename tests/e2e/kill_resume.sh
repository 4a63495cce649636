#!/usr/bin/env bash
# A training run that is killed with SIGKILL at 20 random moments, and one that is killed again and again until it is done, must end with the adapter
# of the run that was left alone, byte for byte. Ctrl-C must save, say how to go on and exit with 130.
#
#   tests/e2e/kill_resume.sh build/release/specdec
#
# Prints TAP. Needs tests/make_tiny_model beside the binary (the target unit_tests builds it); SEED=n repeats a choice of moments.
set -uo pipefail
name="kill and resume"
. "$(dirname "$0")/lib/tiny.sh"
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
RANDOM=${SEED:-$$}
"$tiny" tiny.gguf || exit 1
for i in $(seq 1 150); do
  echo "{\"prompt\": \"record $i is number \", \"completion\": \"$((i * 7919 % 1000)), in words $((i % 10)) and $((i % 7)), said $((i % 5)) times over\"}"
done >data.jsonl
cat >recipe.yaml <<'YAML'
recipe: 1
name: run
base: {model: tiny.gguf, compute_dtype: fp32}
adapter: {r: 8, alpha: 16}
data: {train: [{path: data.jsonl, format: completion}], val_size: 0.1, sequence_len: 256, packing: true, shuffle: true}
train: {epochs: 6, batch_tokens: 512, learning_rate: 1e-2}
eval: {every: 2/epoch}
checkpoint: {every: 2, keep: 3}
export_verify: {prompts: 2}
YAML
train() { "$binary" train recipe.yaml -o "$@" 2>&1; }
sha() { sha256sum "$1/adapter/adapter_model.safetensors" | cut -d' ' -f1; }
now() { date +%s%N; }

start=$(now)
out=$(train whole)
check "a run that is left alone ends well" $? "$out"
took=$((($(now) - start) / 1000)) # microseconds
want=$(sha whole)
rows=$(wc -l <whole/metrics.csv)

# One kill, then to the end.
for i in $(seq 1 20); do
  while :; do
    rm -rf one
    "$binary" train recipe.yaml -o one >killed.log 2>&1 &
    pid=$!
    until [ -n "$(ls -d one/checkpoints/step-* 2>/dev/null)" ]; do sleep 0.002; done
    wait_us=$(((RANDOM * 32768 + RANDOM) % (took * 3 / 4 + 1)))
    sleep "$(printf '%d.%06d' $((wait_us / 1000000)) $((wait_us % 1000000)))"
    kill -KILL "$pid" 2>/dev/null
    wait "$pid" 2>/dev/null
    [ -e one/manifest.json ] || break
    took=$((took * 3 / 4)) # the moment came after the end: another, earlier one
  done
  out=$(train one)
  status=$?
  from=$(sed -nE 's/.*: step ([0-9]+) of [0-9]+ is done/\1/p' <<<"$out")
  ok=1
  [ $status = 0 ] && [ "$(sha one)" = "$want" ] && [ "$(wc -l <one/metrics.csv)" = "$rows" ] && [ "${from:-0}" -gt 0 ] && ok=0
  check "killed after $((wait_us / 1000)) ms, resumed after step ${from:-none}: the same adapter" $ok "$out"
done

# Killed again and again. Each start may live a little longer, so that it ends.
live=200000
kills=0
until [ -e many/manifest.json ] || [ $kills = 200 ]; do
  "$binary" train recipe.yaml -o many >many.log 2>&1 &
  pid=$!
  sleep "$(printf '%d.%06d' $((live / 1000000)) $((live % 1000000)))"
  kill -KILL "$pid" 2>/dev/null && kills=$((kills + 1))
  wait "$pid" 2>/dev/null
  live=$((live * 21 / 20))
done
[ "$(sha many)" = "$want" ]
check "killed $kills times on the way: the same adapter" $?

# Ctrl-C.
"$binary" train recipe.yaml -o ctrl >ctrl.log 2>&1 &
pid=$!
until [ -n "$(ls -d ctrl/checkpoints/step-* 2>/dev/null)" ]; do sleep 0.002; done
kill -INT "$pid"
wait "$pid"
status=$?
[ $status = 130 ] && grep -q 'the state is saved; continue with: specdec train recipe.yaml -o ctrl' ctrl.log
check "Ctrl-C saves, says how to go on and exits with 130" $? "$(tail -3 ctrl.log)"
"$binary" train recipe.yaml -o "two words" checkpoint.resume=never --resume never >words.log 2>&1 &
pid=$!
until [ -n "$(ls -d "two words"/checkpoints/step-* 2>/dev/null)" ]; do sleep 0.002; done
kill -INT "$pid"
wait "$pid"
again=$(sed -n 's/.*continue with: specdec train //p' words.log)
[ "$again" = "recipe.yaml -o 'two words' checkpoint.resume=never --resume auto" ]
check "what Ctrl-C says goes on also where the run was to begin anew" $? "$(tail -1 words.log)"
eval "'$binary' train $again" >words.log 2>&1
[ "$(sha "two words")" = "$want" ]
check "and does" $? "$(tail -3 words.log)"
out=$(train ctrl)
[ "$(sha ctrl)" = "$want" ]
check "and the same command goes on to the same adapter" $? "$out"

out=$(train whole)
[ $? = 0 ] && grep -q 'finished already' <<<"$out"
check "a finished run is left alone" $? "$out"
out=$(train many train.learning_rate=2e-2)
[ $? = 2 ] && grep -q 'train.learning_rate' <<<"$out"
check "a finished run of another recipe is refused by the key that differs" $? "$out"
exit $failed
