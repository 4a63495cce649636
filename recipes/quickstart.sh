#!/usr/bin/env bash
# From a bare Debian 12 to a tuned model that answers fast: installs, builds, fetches open weights, makes the data, tunes, exports, serves, measures.
#
#   recipes/quickstart.sh                 SmolLM2-135M on 500 records, at most 20 minutes on 2 cores
#   MODEL=qwen1.5b recipes/quickstart.sh  the bigger pair: Qwen2.5-Coder 1.5B with the 0.5B as its draft (hours)
#   RECORDS=N      train on N records     HELD=N  judge on N held-out records (64)
#   FRESH=1        train anew; without it a finished run is used again
#   PORT=8080      the port of the server
#
# The task: a package's description in, its record as one JSON object out. The data is made on the spot from the distribution's own package index. All results stay in
# runs/debian-triage-<model>/.
set -euo pipefail
cd "$(dirname "$0")/.."

MODEL=${MODEL:-smollm2} RECORDS=${RECORDS:-500} HELD=${HELD:-64} FRESH=${FRESH:-0} PORT=${PORT:-8080}
case $MODEL in
smollm2) draft= learning_rate=1e-3 ;;
qwen1.5b) draft=qwen0.5b learning_rate=5e-4 ;;
*)
  echo "quickstart.sh: MODEL=$MODEL is unknown; give smollm2 or qwen1.5b" >&2
  exit 2
  ;;
esac
for number in RECORDS HELD FRESH PORT; do
  [[ ${!number} =~ ^[0-9]+$ ]] || {
    echo "quickstart.sh: $number=${!number} is not a whole number" >&2
    exit 2
  }
done

begun=$SECONDS
step() { printf '\n== %s  (%d s)\n' "$*" $((SECONDS - begun)); }
specdec=build/release/specdec
run=runs/debian-triage-$MODEL
out=$run/quickstart

step "1/8 What is missing is installed"
recipes/deps.sh build

step "2/8 Build"
cmake --preset release >/dev/null
cmake --build --preset release -j "$(nproc)" | grep -E '^\[ *[0-9]*[05]%\] Built|Linking C executable' || true
[ -x $specdec ] || cmake --build --preset release

step "3/8 Open weights: $MODEL"
base=$(recipes/models.sh "$MODEL")
$specdec inspect "$base" | head -12

step "4/8 Data: this distribution's package index"
mkdir -p recipes/data
if ! [ -s recipes/data/train.jsonl ]; then
  # A container without package lists has nothing to read yet.
  [ "$(apt-cache dumpavail | grep -c '^Package: ')" -gt 20000 ] || recipes/deps.sh lists
  apt-cache dumpavail | recipes/triage_data.py recipes/data
fi
head -n "$RECORDS" recipes/data/train.jsonl >"recipes/data/train-$RECORDS.jsonl"
head -n "$HELD" recipes/data/test.jsonl >"recipes/data/held-$HELD.jsonl"
wc -l "recipes/data/train-$RECORDS.jsonl" "recipes/data/held-$HELD.jsonl" | head -2

step "5/8 Tune: LoRA on $RECORDS records"
if [ "$FRESH" = 1 ]; then rm -rf "$run"; fi
$specdec train recipes/debian-triage.yaml name="debian-triage-$MODEL" base.model="$base" train.max_steps=null \
  data.train.0.path="recipes/data/train-$RECORDS.jsonl" train.learning_rate=$learning_rate

step "6/8 Judge: $HELD held-out records, before and after"
mkdir -p "$out"
hash=$(sha256sum "$run/adapter/adapter_model.safetensors" | cut -c1-16)
judge() { # NAME OPTIONS...: kept by name, so that a second run only reads it
  local name=$1
  shift
  [ -s "$out/$name.json" ] && return
  $specdec eval -m "$base" --suite "recipes/data/held-$HELD.jsonl" --max-tokens 320 --json --answers "$out/$name.jsonl" "$@" >"$out/$name.json.tmp"
  mv "$out/$name.json.tmp" "$out/$name.json"
}
judge "before-$HELD"
judge "after-$HELD-$hash" -a "$run"

step "7/8 Serve the tuned pair and ask it"
$specdec serve -m "$base" -a triage="$run" --port "$PORT" 2>"$out/server.log" &
server=$!
trap 'kill $server 2>/dev/null || true' EXIT
ready() { curl -fsS -o /dev/null "http://127.0.0.1:$PORT/health" 2>/dev/null; }
for _ in $(seq 1 150); do
  ready && break
  kill -0 $server 2>/dev/null || break
  sleep 0.2
done
ready || {
  cat "$out/server.log" >&2
  exit 1
}
for line in 1 2; do
  sed -n "${line}p" "recipes/data/held-$HELD.jsonl" | python3 -c '
import json, sys
record = json.loads(sys.stdin.readline())
print(json.dumps({"model": "triage", "messages": record["messages"][:2], "max_tokens": 320, "temperature": 0}))' >"$out/request.json"
  curl -fsS "http://127.0.0.1:$PORT/v1/chat/completions" -H 'Content-Type: application/json' -d @"$out/request.json" >"$out/response.json"
  python3 -c '
import json, sys
request, response = (json.load(open(path)) for path in sys.argv[1:])
print("asked   ", request["messages"][1]["content"].split("\n")[0], "...")
print("answered", response["choices"][0]["message"]["content"])' "$out/request.json" "$out/response.json"
done
kill -TERM $server
wait $server || true
trap - EXIT

step "8/8 Measure: plain and speculative decoding, interleaved"
$specdec bench spec -m "$base" -a "$run" ${draft:+-d "$(recipes/models.sh $draft)"} --json "recipes/data/held-$HELD.jsonl" >"$out/spec.json"

recipes/quickstart_table.py "$run" "$base" "$out/before-$HELD.json" "$out/after-$HELD-$hash.json" "$out/spec.json"
echo "$((SECONDS - begun)) s in all"
