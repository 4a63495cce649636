#!/usr/bin/env bash
# What a terminal sees: pipes whose reader goes, Ctrl-C before there is anything to save, damaged folders, wrong paths and values. Each must end with the
# right status and one sentence, and leave no file behind.
#
#   tests/e2e/cli.sh build/release/specdec
#
# Prints TAP. Needs tests/make_tiny_model beside the binary (the target unit_tests builds it).
set -uo pipefail
name="command line"
. "$(dirname "$0")/lib/tiny.sh"
dir=$(mktemp -d)
trap 'chmod -R u+rwx "$dir"; rm -rf "$dir"' EXIT
here=$(realpath "$(dirname "$0")")
cd "$dir" || exit 1
mkdir tmp
export TMPDIR=$dir/tmp
"$tiny" tiny.gguf || exit 1
records() { # N
  awk -v n="$1" 'BEGIN { for (i = 0; i < n; i++) printf "{\"prompt\": \"record %d is number \", \"completion\": \"%d, in words %d\"}\n", i, i * 7919 % 1000, i % 10 }'
}
records 60 >data.jsonl
cat >recipe.yaml <<'YAML'
recipe: 1
name: run
base: {model: tiny.gguf, compute_dtype: fp32}
adapter: {r: 4, alpha: 8}
data: {train: [{path: data.jsonl, format: completion}], val_size: 0.1, sequence_len: 128}
train: {epochs: 1, batch_tokens: 512, learning_rate: 1e-2}
checkpoint: {every: 2}
export_verify: {prompts: 2}
YAML

# ---- two programs

mkdir alone
cp "$binary" alone/specdec
alone/specdec train recipe.yaml >out 2>err
[ $? = 2 ] && grep -q 'train needs .*/alone/specdec-tuning' err && [ ! -s out ]
check "without specdec-tuning beside it, train says so" $? "$(cat err)"
[ "$(alone/specdec generate -m tiny.gguf -p abc -n 3 --ignore-end 2>err | wc -c)" -gt 0 ]
check "and generating does not need it" $? "$(cat err)"
cp "$(dirname "$binary")/specdec-tuning" alone/
alone/specdec-tuning generate -m tiny.gguf -p abc -n 3 --ignore-end >out 2>err && [ -s out ] && alone/specdec bench kernels --help | grep -q 'usage: specdec bench kernels'
check "each becomes the other for the other's verbs" $? "$(cat err)"
cp "$binary" alone/specdec-tuning
timeout 10 alone/specdec train recipe.yaml >out 2>err
[ $? = 2 ] && grep -q 'alone/specdec-tuning is a copy of the other program' err && [ ! -s out ]
check "a copy under the other's name says so, and does not run itself for ever" $? "$(cat err)"

# ---- devices: what is missing is said in one sentence, and auto runs all the same

ldd "$binary" "$(dirname "$binary")/specdec-tuning" | awk '/=>/ { print $1 }' >out # a path may have any name
! grep -qE 'libcuda|cudnn|cublas|nccl' out
check "no program links CUDA" $? "$(cat out)"
mkdir device # a driver's library that is none, and no plugin: then one that is none either
cp "$binary" "$(dirname "$binary")/specdec-tuning" device/
echo 'int here;' >here.c
on() { LD_LIBRARY_PATH=$dir/device device/specdec generate -m tiny.gguf -p abc -n 3 --ignore-end "$@" >out 2>err; }
if "$binary" inspect --devices --json | grep -q '"missing": "CUDA: the driver'; then
  "$binary" generate -m tiny.gguf -p abc -n 3 --device cuda >out 2>err
  [ $? = 2 ] && [ ! -s out ] && [ "$(wc -l <err)" = 1 ] && grep -q "specdec: CUDA: the driver's library libcuda.so.1 is not here; install" err
  check "--device cuda without a driver says so" $? "$(cat out err)"
  "$binary" serve -m tiny.gguf --device cuda:3 --plan >out 2>err
  [ $? = 2 ] && [ ! -s out ] && grep -q "the driver's library libcuda.so.1" err
  check "serve --device cuda:3 does, too" $? "$(cat out err)"
  "$binary" train recipe.yaml --device cuda:1 >out 2>err
  [ $? = 2 ] && [ ! -s out ] && [ "$(wc -l <err)" = 1 ] && grep -q "the driver's library libcuda.so.1" err
  check "train --device cuda:1 does, too, before it reads any data" $? "$(cat out err)"
else
  echo "ok - --device cuda without a driver says so # SKIP a driver is here"
fi
"$binary" generate -m tiny.gguf -p abc -n 3 --device tpu >out 2>err
[ $? = 2 ] && [ ! -s out ] && grep -qF "'tpu' is unknown; choose one of auto|cpu|cuda[:N]" err
check "a device that nobody knows is refused" $? "$(cat out err)"
for device in tpu cuda: cuda:x auto:0 cuda:1000; do
  "$binary" train recipe.yaml --device $device >out 2>err
  [ $? = 2 ] && [ ! -s out ] && grep -qF "'$device' is unknown; choose one of auto|cpu|cuda[:N]" err
  check "train --device $device is refused" $? "$(cat out err)"
done
if command -v cc >/dev/null && cc -shared -fPIC here.c -o device/libcuda.so.1; then
  on --device cuda
  [ $? = 2 ] && [ ! -s out ] && [ "$(wc -l <err)" = 1 ] && grep -q 'device/libspecdec_cuda.so is not here; build it' err
  check "--device cuda without a plugin names it" $? "$(cat out err)"
  cp device/libcuda.so.1 device/libspecdec_cuda.so
  on --device cuda
  [ $? = 2 ] && [ ! -s out ] && [ "$(wc -l <err)" = 1 ] && grep -q 'device/libspecdec_cuda.so is no plugin of specdec' err
  check "what is no plugin is refused" $? "$(cat out err)"
  on --device auto && [ -s out ] && grep -q 'is no plugin of specdec.*running on another device' err
  check "auto warns of it and runs on the CPU" $? "$(cat out err)"
  LD_LIBRARY_PATH=$dir/device device/specdec inspect --devices >out 2>err && grep -q '^auto *cpu$' out && grep -q 'missing CUDA: .* is no plugin' out
  check "inspect --devices says what is missing" $? "$(cat out err)"
else
  echo "ok - --device cuda without a plugin names it # SKIP no compiler"
fi
"$binary" generate -m tiny.gguf -p abc -n 3 --ignore-end --device cpu >want 2>err && "$binary" generate -m tiny.gguf -p abc -n 3 --ignore-end --device cpu:0 >out 2>>err && cmp -s out want && [ -s out ]
check "cpu and cpu:0 are the same" $? "$(cat err)"
"$binary" inspect tiny.gguf --devices >out 2>err
[ $? = 2 ] && grep -q -- '--devices is about this machine; give no PATH' err
check "inspect --devices takes no path" $? "$(cat out err)"

# ---- help, and a first recipe

for verb in serve "data prepare" train "bench model"; do
  # shellcheck disable=SC2086
  "$binary" help $verb >out 2>err && "$binary" $verb --help >want 2>/dev/null && cmp -s out want && grep -q "usage: specdec $verb" out
  check "help $verb is $verb --help" $? "$(cat out err)"
done
"$binary" help nope >out 2>err
[ $? = 2 ] && [ ! -s out ] && grep -q "'nope' is not a verb" err
check "help of what is no verb says so" $? "$(cat out err)"
"$binary" train --init data.jsonl -m tiny.gguf >want 2>err && "$binary" train --init data.jsonl -m tiny.gguf -o first.yaml >out 2>err && cmp -s first.yaml want && [ ! -s out ]
check "train --init -o writes the recipe into a file" $? "$(cat out err)"
echo mine >mine.yaml
"$binary" train --init data.jsonl -m tiny.gguf -o mine.yaml >out 2>err
[ $? = 2 ] && grep -q 'mine.yaml: exists already' err && [ "$(cat mine.yaml)" = mine ]
check "but not over one that is there" $? "$(cat out err)"

# ---- pipes

# ---- weights that are no numbers

cp tiny.gguf nan.gguf
printf '\000\000\300\177' | dd of=nan.gguf bs=1 seek=$(($(stat -c %s nan.gguf) - 4)) conv=notrunc status=none # a NaN in the last tensor
head -c 300 data.jsonl >text.txt
for verb in "generate -p abc -n 5" "generate -p abc -n 5 --temp 1" "perplexity text.txt"; do
  # shellcheck disable=SC2086
  "$binary" $verb -m nan.gguf --no-pack-cache >out 2>err
  [ $? = 1 ] && grep -q 'not finite' err
  check "${verb%% *} with a NaN among the weights is a failure and no text" $? "$(cat out err)"
done

quiet_pipe() { # NAME COMMAND...: its reader is gone before it writes
  local name=$1 status
  shift
  { "$@" 2>err; echo $? >status; } | exec true
  status=$(cat status)
  { [ "$status" = 141 ] || [ "$status" = 0 ]; } && ! grep -qi 'pipe\|output' err
  check "$name ends quietly when the reader is gone" $? "status $status: $(cat err)"
}
quiet_pipe "train --init" "$binary" train --init data.jsonl -m tiny.gguf
quiet_pipe generate "$binary" generate -m tiny.gguf -p abc -n 200 --ignore-end
quiet_pipe inspect "$binary" inspect tiny.gguf
[ -z "$(ls tmp)" ]
check "and leaves no scratch folder" $? "$(ls tmp)"
{ "$binary" train recipe.yaml -o piped 2>err; echo $? >status; } | exec true
[ "$(cat status)" = 0 ] && [ -e piped/manifest.json ] && ! grep -qi 'standard output' err
check "a training run outlives its reader" $? "$(cat status err)"
"$binary" inspect tiny.gguf >/dev/full 2>err
[ $? = 1 ] && grep -q 'standard output' err
check "output that cannot be written is a failure" $? "$(cat err)"

# ---- Ctrl-C while data is prepared

records 2000000 >large.jsonl
# A script started in the background has SIGINT ignored, and so would its children: env sets it back.
interrupt() { # NAME COMMAND...
  local name=$1 pid status
  shift
  env --default-signal=INT "$@" >out 2>&1 &
  pid=$!
  sleep 0.7 # of the several seconds that these records take
  kill -INT "$pid"
  wait "$pid"
  status=$?
  [ $status = 130 ]
  check "Ctrl-C ends $name with 130" $? "status $status; $(cat out)"
}
interrupt "data prepare" "$binary" data prepare large.jsonl -m tiny.gguf -o large.h5
interrupt "train that prepares its data" "$binary" train recipe.yaml data.train.0.path=large.jsonl name=ctrl
interrupt "train --plan" "$binary" train recipe.yaml data.train.0.path=large.jsonl --plan
interrupt "train --init" "$binary" train --init large.jsonl -m tiny.gguf
left=$(ls -d large.h5* runs tmp/* 2>/dev/null)
[ -z "$left" ]
check "and leaves nothing behind" $? "$left"
rm large.jsonl

# ---- sentences

refuses() { # NAME STATUS PATTERN COMMAND...
  local name=$1 want=$2 pattern=$3 status
  shift 3
  "$@" >out 2>err
  status=$?
  [ $status = "$want" ] && grep -Eq -- "$pattern" err && [ "$(grep -c '^specdec: ' err)" = 1 ]
  check "$name" $? "status $status, want $want: $(cat err)"
}
cp -r piped damaged
head -c 100 piped/manifest.json >damaged/manifest.json
refuses "inspect names a manifest that is cut short" 2 'damaged/manifest.json: ' "$binary" inspect damaged
echo '{}' >damaged/manifest.json
refuses "inspect names a manifest that is another file" 2 'damaged/manifest.json: ' "$binary" inspect damaged
"$binary" inspect piped >out 2>&1 && grep -q '^manifest' out
check "inspect shows a whole manifest" $? "$(cat out)"
: >empty.yaml
refuses "an empty recipe is named" 2 '^specdec: empty.yaml: base.model: is missing' "$binary" train empty.yaml
refuses "the plan checks adapter.from" 2 'nowhere' "$binary" train recipe.yaml adapter.from=nowhere --plan
[ ! -e runs ] && [ -z "$(ls tmp)" ]
check "and a plan makes no folder" $?
cp data.jsonl copy.jsonl && cp tiny.gguf copy.gguf
refuses "data prepare does not replace its source" 2 'data.jsonl: is both' "$binary" data prepare data.jsonl -m tiny.gguf -o ./data.jsonl
refuses "logits does not replace its model" 2 'tiny.gguf: is both' "$binary" logits -m tiny.gguf --tokens 1,2 -o ./tiny.gguf
cmp -s data.jsonl copy.jsonl && cmp -s tiny.gguf copy.gguf
check "and both are what they were" $?
: >nothing
refuses "export refuses an empty text to verify on" 2 'nothing: holds no text' "$binary" export piped --to gguf-lora -o out.gguf --verify-text nothing
[ ! -e out.gguf ]
check "before it writes" $?
cp tiny.gguf near.gguf && printf '\1\1' | dd of=near.gguf bs=1 seek=$(($(stat -c %s near.gguf) - 64)) conv=notrunc status=none
refuses "an adapter on another model is refused with both hashes" 2 "$(sha256sum tiny.gguf | cut -c1-12).*$(sha256sum near.gguf | cut -c1-12).*differ by about .*--other-base" "$binary" generate -m near.gguf -a piped -p abc -n 2
"$binary" generate -m near.gguf -a piped -p abc -n 2 --ignore-end --other-base >out 2>err && grep -q "trained on a base with SHA-256 $(sha256sum tiny.gguf | cut -c1-12).*differ by about" err
check "and --other-base takes it, with the same said" $? "$(cat err)"
"$binary" export piped --to peft -o named --base-id some/model >out 2>&1 && grep -q '"base_model_name_or_path": "some/model"' named/adapter_config.json
check "export --base-id names the base for AutoPeftModel" $? "$(cat out)"
"$binary" export piped --to peft -o unnamed >out 2>&1 && grep -q '"base_model_name_or_path": null' unnamed/adapter_config.json && grep -q -- '--base-id ID' out
check "without it a GGUF base has no name there, and that is said" $? "$(cat out)"
refuses "only --to peft takes it" 2 'base-id some/model: only --to peft' "$binary" export piped --to gguf-lora -o x.gguf --base-id some/model
"$binary" export piped --to merged -o merged.gguf >out 2>&1 && grep -q 'is in the file' out && [ -e merged.gguf ] && [ ! -e merged.gguf.unverified ]
check "export gives a merged file its name when it is verified" $? "$(cat out)"
: >half.gguf.unverified
refuses "export does not touch what a stopped one left" 2 'half.gguf.unverified: is there already' "$binary" export piped --to merged -o half.gguf
[ -e half.gguf.unverified ] && [ ! -e half.gguf ]
check "and writes nothing" $?

# ---- pipes where files are wanted, options given twice, private sources

mkfifo pipe.gguf pipe.jsonl
waits_not() { # NAME MESSAGE COMMAND...
  local name=$1 message=$2
  shift 2
  timeout 60 "$@" >out 2>err </dev/null
  [ $? = 2 ] && grep -q -- "$message" err
  check "$name" $? "$(cat err)"
}
waits_not "a pipe given as model is refused without waiting" 'pipe.gguf: is not a regular file' "$binary" generate -m pipe.gguf -p abc
waits_not "a pipe given as adapter too" 'pipe.gguf: is not a regular file' "$binary" generate -m tiny.gguf -a pipe.gguf -p abc
waits_not "a pipe given as draft too" 'pipe.gguf: is not a regular file' "$binary" generate -m tiny.gguf -d pipe.gguf -p abc
waits_not "a pipe given as data too" 'pipe.jsonl: is not a regular file' "$binary" data prepare pipe.jsonl -m tiny.gguf -o d.h5
want=$("$binary" generate -m tiny.gguf -p abc -n 3 --ignore-end 2>/dev/null | sha256sum)
[ "$(printf abc | "$binary" generate -m tiny.gguf -f /dev/stdin -n 3 --ignore-end 2>err | sha256sum)" = "$want" ]
check "a prompt is read from a pipe" $? "$(cat err)"
says() { # NAME WANT OPTIONS...: the model is random, so biases say what it says
  local name=$1 want=$2
  shift 2
  got=$("$binary" generate -m tiny.gguf -p abc -n 8 --logit-bias 65=100 --logit-bias 66=50 --logit-bias 67=25 "$@" 2>err)
  [ "$got" = "$want" ]
  check "$name" $? "$got, want $want: $(cat err)"
}
says "a bias of 100 says what the whole answer is" AAAAAAAA
says "a bad word never comes" ABABABAB --bad-word AA
says "and neither does any of several" ABCABCAB --bad-word AA --bad-word BB --bad-word BA --bad-word CC --bad-word AC
says "allowed tokens are all that comes" CCCCCCCC --allow-token 67 --allow-token 68
says "a stop string within the least length ends nothing" ABABA --bad-word AA --stop B --min-tokens 4
says "penalties are taken" ABCAAAAA --repetition-penalty 10 --frequency-penalty .1 --presence-penalty .1
refuses "a bias that is none is refused" 2 "--logit-bias: '65' is not ID=BIAS" "$binary" generate -m tiny.gguf -p abc --logit-bias 65
refuses "and one outside the vocabulary" 2 '--logit-bias: token 288 is outside the vocabulary of 288' "$binary" generate -m tiny.gguf -p abc --logit-bias 288=1
refuses "and a penalty out of range" 2 'presence-penalty' "$binary" generate -m tiny.gguf -p abc --presence-penalty 3
refuses "and a least length above the most" 2 '--min-tokens is 9 and --tokens 8' "$binary" generate -m tiny.gguf -p abc -n 8 --min-tokens 9
refuses "an option given twice is refused" 2 '--threads is given twice' "$binary" generate -m tiny.gguf -p abc --threads 1 --threads 1
refuses "and a recipe's key given twice" 2 'adapter.r is given twice' "$binary" train recipe.yaml adapter.r=2 adapter.r=4
refuses "and -m beside base.model=" 2 'base.model is given twice' "$binary" train recipe.yaml base.model=tiny.gguf -m tiny.gguf
chmod 600 data.jsonl
"$binary" data prepare data.jsonl -m tiny.gguf -o private.h5 --sequence-len 128 --threads 1 >out 2>&1 && [ "$(stat -c %a private.h5 private.h5.manifest.json | tr '\n' ' ')" = "600 600 " ]
check "what is prepared from a private source is private" $? "$(cat out; stat -c '%a %n' private.h5*)"
chmod 644 data.jsonl

# ---- devices, pipes and links where files are written: nodes of this folder, so that nothing in /dev is at stake

waits_not "a prepared file is refused where a pipe stands" 'pipe.jsonl: is a pipe or a device' "$binary" data prepare data.jsonl -m tiny.gguf -o pipe.jsonl
waits_not "a key too" 'pipe.jsonl: is no regular file' "$binary" key new id -o pipe.jsonl
waits_not "an export too" 'pipe.jsonl: exists already' "$binary" export piped --to gguf-lora -o pipe.jsonl
ln -s nowhere dangling
waits_not "a link that leads nowhere is there for an export" 'dangling: exists already' "$binary" export piped --to gguf-lora -o dangling
waits_not "and standard output is no path of one" '-: an export is a file or a folder' "$binary" export piped --to gguf-lora -o -
waits_not "a recipe is refused where a pipe stands" 'pipe.jsonl: exists already' "$binary" train --init data.jsonl -m tiny.gguf -o pipe.jsonl
waits_not "standard output's sign is no file" '-: standard output is not taken' "$binary" logits -m tiny.gguf --tokens 1 -o -
[ -p pipe.jsonl ] && [ ! -e ./- ]
check "and the pipe is there still" $?
"$binary" logits -m tiny.gguf --tokens 1,2 -o plain.npy >out 2>err && ln -s made.npy link.npy && "$binary" logits -m tiny.gguf --tokens 1,2 -o link.npy >out 2>err &&
  [ -L link.npy ] && cmp -s made.npy plain.npy && "$binary" logits -m tiny.gguf --tokens 1,2 -o /dev/stdout 2>err | cmp -s - plain.npy
check "logits go behind a link, which stays, and into a pipe" $? "$(cat err)"
if mknod null c 1 3 && mknod full c 1 7 && : 2>/dev/null >null; then
  "$binary" logits -m tiny.gguf --tokens 1,2 -o null >out 2>err
  check "logits go into a device" $? "$(cat err)"
  refuses "a full device is an error" 1 'full: .*the disk.*full' "$binary" logits -m tiny.gguf --tokens 1,2 -o full
  refuses "of a short page too" 1 'full: .*the disk.*full' "$binary" cost --requests-day 9 --in 9 --out 9 --prefill-tok-s 9 --decode-tok-s 9 --gpu-hour 1 --html full
  refuses "a prepared file is refused there" 2 'null: is a pipe or a device' "$binary" data prepare data.jsonl -m tiny.gguf -o null
  [ -c null ] && [ -c full ]
  check "and the devices are there still" $?
else
  echo "ok - outputs into devices # SKIP they cannot be made here"
fi

# ---- traces of speculation

printf '{"task":"t","max_tokens":12,"prompt":"abcabcabcabc"}\n{"task":"t","max_tokens":12,"prompt":"record record record"}\n' >prompts.jsonl
"$binary" bench spec -m tiny.gguf --clients 2 --trace trace.jsonl prompts.jsonl >out 2>err && grep -q '2 of 2 answers identical' out &&
  "$binary" bench spec --replay trace.jsonl >out 2>err && grep -Eq '^([1-9][0-9]*) of \1 decisions as recorded; 2 answers again, 2 at once$' out
check "a trace is recorded, and replayed without a model to the same decisions" $? "$(cat err out)"
head -c 900 trace.jsonl >cut.jsonl
"$binary" bench spec --replay cut.jsonl >out 2>err
[ $? = 2 ] && [ "$(wc -l <err)" = 1 ] && grep -q 'cut.jsonl: line [0-9]*: ' err && [ ! -s out ]
check "a damaged trace is refused by its line" $? "$(cat err)"
"$binary" bench spec -m tiny.gguf --trace no/where.jsonl prompts.jsonl >out 2>err
[ $? = 2 ] && [ "$(wc -l <err)" = 1 ] && grep -q 'no/where.jsonl' err && [ ! -s out ]
check "a trace that cannot be written is named before anything is asked" $? "$(cat err)"
"$binary" generate -m tiny.gguf --draft-adapter no -p a >out 2>err
[ $? = 2 ] && [ "$(wc -l <err)" = 1 ] && grep -q 'needs a draft model' err
check "an adapter of a draft needs a draft model" $? "$(cat err)"
# ---- keys

"$binary" key new alice >out 2>err && [ "$(wc -l <out)" = 2 ] && key=$(sed -n 's/^key:  //p' out) && [ ${#key} -ge 40 ] &&
  [ "$(sed -n 's/^line: //p' out)" = "alice sha256:$(printf %s "$key" | sha256sum | cut -c1-64)" ]
check "a new key comes with its line" $? "$(cat out err)"
"$binary" key new ops --admin -o keys.txt >out 2>err && "$binary" key new bob -o keys.txt >>out && [ "$(wc -l <out)" = 2 ] && [ "$(stat -c %a keys.txt)" = 600 ] &&
  [ "$(wc -l <keys.txt)" = 2 ] && grep -qE '^ops sha256:[0-9a-f]{64} admin$' keys.txt && grep -qE '^bob sha256:[0-9a-f]{64}$' keys.txt && ! grep -qF "$(sed -n '1s/^key:  //p' out)" keys.txt
check "or appends it to a file, which has no key" $? "$(cat out err keys.txt)"
printf 'bare-key-without-end' >bare.txt
"$binary" key new x -o bare.txt >out 2>err && [ "$(head -1 bare.txt)" = bare-key-without-end ] && "$binary" serve -m tiny.gguf --api-key-file bare.txt --plan >out 2>err
check "a last line without an end gets one" $? "$(cat bare.txt err)"
"$binary" key new a --json >out && [ "$(wc -l <out)" = 1 ] && grep -q '"admin":false' out && [ "$("$binary" key new a --json)" != "$(cat out)" ]
check "and no two keys are the same" $? "$(cat out)"
refuses "an ID that is none" 2 "'a b' is no ID" "$binary" key new "a b"
refuses "no ID" 2 "give one" "$binary" key new
refuses "a file of keys that cannot be written" 2 'no/where' "$binary" key new a -o no/where
refuses "an unknown word for key" 2 "'old' is not known; give new ID" "$binary" key old a
refuses "no word for key" 2 "key: what to do is missing; give new ID" "$binary" key
cp keys.txt keys.before
refuses "a name that is there already" 2 'keys.txt: the ID bob stands in line 2 already; give another' "$binary" key new bob -o keys.txt
printf 'short\n' >broken.txt
cp broken.txt broken.before
refuses "a file that serve could not read" 2 'broken.txt:1: a key has 5 bytes' "$binary" key new eve -o broken.txt
for i in $(seq 256); do echo "a-bare-key-$i"; done >full.txt
cp full.txt full.before
refuses "a file that is full" 2 'full.txt: more than 256 keys; remove one' "$binary" key new eve -o full.txt
mkfifo pipe.keys
timeout 20 "$binary" key new eve -o pipe.keys >out 2>err
[ $? = 2 ] && grep -q 'pipe.keys: is no regular file' err && [ ! -s out ]
check "a pipe in the place of the file" $? "$(cat err)"
refuses "a folder in its place" 2 'tmp: is a folder' "$binary" key new eve -o tmp
"$binary" key new eve -o keys.txt >/dev/full 2>err
[ $? = 1 ] && grep -q 'no key was made' err
check "a key that cannot be shown is none" $? "$(cat err)"
"$binary" key new eve -o unseen.txt >/dev/full 2>>err
[ ! -e unseen.txt ]
check "and leaves no file" $? "$(cat err)"
cmp -s keys.txt keys.before && cmp -s broken.txt broken.before && cmp -s full.txt full.before
check "and all of these files are as they were" $? "$(cat err keys.txt)"
said=$(ulimit -f 0 && "$binary" key new eve -o unwritten.txt 2>&1)
[ $? = 1 ] && [[ $said == *"unwritten.txt: write"* ]] && [ ! -e unwritten.txt ]
check "where the line cannot be written no file stays behind" $? "$said"
for i in $(seq 20); do "$binary" key new "at-once-$i" -o together.txt >/dev/null & done
wait
[ "$(wc -l <together.txt)" = 20 ] && "$binary" serve -m tiny.gguf --api-key-file together.txt --plan >/dev/null 2>err
check "twenty at once make a file of twenty keys" $? "$(cat together.txt err)"

# ---- help, the man page and completion have one table

"$binary" help serve >out 2>err && "$binary" serve --help >again && cmp -s out again && [ ! -s err ]
check "help VERB is VERB --help" $? "$(cat err)"
"$binary" help data prepare >out 2>err && grep -q '^usage: specdec data prepare' out && "$binary" help key new >out 2>>err && grep -q '^usage: specdec key new' out
check "and help of a verb's part" $? "$(cat out err)"
refuses "help of a part that is none" 2 "'nope' is no part of key" "$binary" help key nope
refuses "help of more than a verb" 2 "'extra' is no part of serve" "$binary" help serve extra
refuses "help of more than a part" 2 "'extra' is no part of data" "$binary" help data prepare extra
shell=$here/../../cli/shell
"$shell/man.sh" "$binary" >specdec.1 2>err && [ ! -s err ]
check "the man page is made" $? "$(cat err)"
missing=$(for verb in serve train generate cache key; do "$binary" $verb --help=words | cut -f1 | while read -r o; do grep -qF -- "${o//-/\\-}\\fR" specdec.1 || echo "$verb $o"; done; done
  for part in "data prepare" "bench spec" "bench kernels"; do grep -qF ".SS specdec $part" specdec.1 || echo "$part"; done)
[ -z "$missing" ] && [ "$(grep -c '^\.SS' specdec.1)" -ge 19 ]
check "it has every option of every verb" $? "$missing"
if command -v groff >/dev/null; then
  [ -z "$(groff -man -ww -z specdec.1 2>&1)" ]
  check "and troff has nothing to say of it" $? "$(groff -man -ww -z specdec.1 2>&1 | head -5)"
else
  echo "ok - $name: troff reads the man page # SKIP groff is not installed"
fi
complete_of() { # WORDS...
  PATH=$(dirname "$binary"):$PATH bash -c 'source "$1/specdec.bash"; shift; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _specdec; echo "${COMPREPLY[*]}"' _ "$shell" specdec "$@"
}
[ "$(complete_of ser)" = serve ] && [ "$(complete_of data p)" = prepare ] && [ "$(complete_of serve --drai)" = --drain ] && [ "$(complete_of serve --compute f)" = fp32 ] &&
  [ "$(complete_of bench spec --cl)" = --clients ] && [ "$(complete_of help per)" = perplexity ]
check "bash completes verbs, parts, options and their words" $? "$(complete_of ser; complete_of data p; complete_of serve --drai; complete_of serve --compute f; complete_of bench spec --cl)"
if command -v zsh >/dev/null; then
  zsh -n "$shell/_specdec"
  check "zsh reads its completion" $? ""
else
  echo "ok - $name: zsh reads its completion # SKIP zsh is not installed"
fi

# ---- a configuration

printf 'model: tiny.gguf\nlisten: 127.0.0.1:0\nctx: 256\nslots: 2\nkeys:\n  - a-bare-key\n' >serve.yaml
"$binary" serve --config serve.yaml --slots 3 --print-config >out 2>err && grep -qx 'slots: 3' out && grep -qx 'ctx: 256' out && grep -qx 'port: 0' out && grep -q '^keys: .*sha256:' out && ! grep -q a-bare-key out
check "the command line goes before the file" $? "$(cat out err)"
"$binary" serve --config serve.yaml --plan >out 2>err && grep -q 'context 256 tokens, 2 slots and 1 in reserve, queue' out
check "a plan of a configuration" $? "$(cat out err)"
printf 'model: tiny.gguf\nslotz: 2\n' >bad.yaml
refuses "a key that is none" 2 "bad.yaml:2:1: unknown key 'slotz'; did you mean 'slots'" "$binary" serve --config bad.yaml
printf 'slots: 2\n' >bad.yaml
refuses "a configuration without a model" 2 '--model is missing' "$binary" serve --config bad.yaml
refuses "a configuration that is not there" 2 'no/such.yaml' "$binary" serve --config no/such.yaml
mkfifo pipe.yaml
waits_not "a pipe as configuration is refused without waiting" 'pipe.yaml: is not a regular file' "$binary" serve --config pipe.yaml
waits_not "as keys too" 'pipe.yaml: is not a regular file' "$binary" serve -m tiny.gguf --api-key-file pipe.yaml
waits_not "and as chat template" 'pipe.yaml: is not a regular file' "$binary" serve -m tiny.gguf --chat-template pipe.yaml

# ---- memory before it is taken

mkdir cache
XDG_CACHE_HOME=$dir/cache "$binary" serve -m tiny.gguf --ctx 256 --slots 2 --api-key-file data.jsonl --plan >out 2>err
[ $? = 2 ] && grep -q 'data.jsonl:1: ' err && [ ! -s out ]
check "a plan reads the file of keys too" $? "$(cat out err)"
XDG_CACHE_HOME=$dir/cache "$binary" serve -m tiny.gguf --ctx 256 --slots 2 --plan >out 2>err && grep -Eq '^  total at most +[0-9]+\.[0-9] MiB$' out &&
  grep -q 'keys and values as .*: 768 tokens' out && [ -z "$(find cache -type f)" ]
check "serve --plan prints the memory by part, and loads and keeps nothing" $? "$(cat out err; find cache -type f)"
"$binary" serve -m tiny.gguf --ctx 256 --slots 2 --plan --json >out 2>err && [ "$(wc -l <out)" = 1 ] && grep -q '"kv_tokens":768' out && grep -q '"slots":2,"reserve":1,' out
check "and as one object" $? "$(cat out err)"
"$binary" serve -m tiny.gguf --slots 1024 --kv-memory 1048576 --plan >out 2>err
[ $? = 0 ] && grep -Eq 'MiB are available; lower --kv-memory' err && grep -q 'total at most' out
check "a plan that does not fit says what to lower, and ends with 0" $? "$(cat out err)"
refuses "an empty name of the base" 2 "--served-name '': give 1 to 256 letters" "$binary" serve -m tiny.gguf --served-name ""
refuses "one of two lines" 2 'give 1 to 256 letters' "$binary" serve -m tiny.gguf --served-name $'a\nb'
refuses "an alias with a blank" 2 "--alias 't iny=x': give NAME=ADAPTER" "$binary" serve -m tiny.gguf --alias 't iny=x'
refuses "an alias of nothing" 2 "--alias 'x': give NAME=ADAPTER" "$binary" serve -m tiny.gguf --alias x
refuses "a plan of no model" 2 'nowhere.gguf: no such model' "$binary" serve -m nowhere.gguf --plan
refuses "a plan with no adapter" 2 'nowhere: no such adapter' "$binary" serve -m tiny.gguf -a nowhere --plan
refuses "a plan with no draft" 2 'nowhere: there is no such draft' "$binary" serve -m tiny.gguf -d nowhere --plan
refuses "a plan with a context that is too long" 2 'ctx' "$binary" serve -m tiny.gguf --ctx 100000 --plan
refuses "a plan with an index that is not there" 2 'without an index' "$binary" serve -m tiny.gguf --spec index --plan
refuses "a plan with a draft model that is not there" 2 'without a draft model' "$binary" serve -m tiny.gguf --spec draft --plan
refuses "--json is the plan's" 2 'give --plan too' "$binary" serve -m tiny.gguf --json

# ---- the examples of docs/apis.md

if command -v curl >/dev/null; then
  "$binary" serve -m tiny.gguf --port 0 --no-pack-cache >out 2>served &
  server=$!
  for ((i = 0; i < 600; i++)); do grep -q 'serving tiny at' served && break || sleep 0.1; done
  url=$(sed -n 's/.*serving tiny at \(http[^ ]*\): .*/\1/p' served)
  for route in systemone decisions; do # as it stands there, but for the port
    sed -n "s#http://127.0.0.1:8080#$url#; /^    curl .*v1\/$route -d/,/}'\$/p" "$here/../../docs/apis.md" >ask.sh
    bash ask.sh >out 2>err
    sed -n "/v1\/$route -d/,/^(a tiny/p" "$here/../../docs/apis.md" | awk '/^    {"(model|id)"/ { on = 1 } on && /^$/ { exit } on' >want
    wanted=$(grep -o '"[a-z_]*":' want | sort | uniq -c)
    [ -s ask.sh ] && [ -s want ] && [ "$(grep -o '"[a-z_]*":' out | sort | uniq -c)" = "$wanted" ]
    check "docs/apis.md: the example of /v1/$route answers with the members that stand there" $? "$(cat out err)"
  done
  kill $server
  wait $server
else
  echo "ok - $name: the examples of docs/apis.md # SKIP curl is not installed"
fi
exit $failed
