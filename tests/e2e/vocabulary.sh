#!/usr/bin/env bash
# A vocabulary without weights: a GGUF file without tensors, and a folder with a tokenizer.json alone. tokenize, detokenize and inspect serve it; every other
# verb that takes a model refuses it with one sentence.
#
#   tests/e2e/vocabulary.sh build/release/specdec
#
# Prints TAP. Needs tests/make_tiny_model beside the binary (the target unit_tests builds it).
set -uo pipefail
name="vocabulary"
. "$(dirname "$0")/lib/tiny.sh"
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir" || exit 1
"$tiny" v.gguf vocabulary && "$tiny" model && "$tiny" model.gguf || exit 1
mkdir alone
cp model/tokenizer.json model/tokenizer_config.json alone/ 2>/dev/null || cp model/tokenizer.json alone/

[ "$("$binary" tokenize -m v.gguf 'hello hello<s>hello!' 2>err)" = "8 8 0 8 42" ]
check "tokenize of a GGUF vocabulary" $? "$("$binary" tokenize -m v.gguf 'hello hello<s>hello!' 2>&1)"
[ "$("$binary" tokenize -m v.gguf --bos hello 2>err)" = "0 8" ]
check "tokenize --bos: SentencePiece vocabularies begin with bos where the file is silent" $? "$(cat err)"
printf 'hello  h\xc3\xa9llo\n\xf0\x9f\x98\x80 \xe6\x97\xa5' >text
"$binary" tokenize -m v.gguf - <text 2>err | "$binary" detokenize -m v.gguf - >out 2>>err && cmp -s text out
check "detokenize gives the text back, bytes and all" $? "$(cat err out)"
"$binary" detokenize -m v.gguf 265 >out 2>err
[ $? = 2 ] && grep -q "'265' is not a token id below 265" err
check "an id beyond the vocabulary is refused" $? "$(cat out err)"
"$binary" inspect v.gguf --json >out 2>err &&
  python3 -c 'import json; r = json.load(open("out")); assert r["kind"] == "vocabulary without weights" and r["tokenizer"]["tokens"] == 265 and r["tokenizer"]["bos"]["text"] == "<s>", r' 2>>err
check "inspect says what it is" $? "$(cat out err)"

[ "$("$binary" tokenize -m alone 'the table' 2>err)" = "$("$binary" tokenize -m model 'the table' 2>/dev/null)" ] && [ ! -s err ]
check "tokenize of a folder with a tokenizer.json alone" $? "$(cat err)"
"$binary" inspect alone >out 2>err && grep -q '^kind .*vocabulary without weights' out
check "inspect of it" $? "$(cat out err)"
[ "$("$binary" tokenize -m model.gguf 'the table' 2>err)" = "$("$binary" tokenize -m model 'the table' 2>>err)" ] && [ ! -s err ]
check "a whole model serves as well" $? "$(cat err)"

echo '{"prompt": "a", "completion": "b"}' >data.jsonl
for path in v.gguf alone; do
  cat >recipe.yaml <<YAML
recipe: 1
name: run
base: {model: $path}
adapter: {r: 4, alpha: 8}
data: {train: [{path: data.jsonl, format: completion}], sequence_len: 64}
train: {epochs: 1, batch_tokens: 64, learning_rate: 1e-2}
YAML
  for verb in "generate -m $path -p a" "perplexity -m $path text" "logits -m $path --tokens 1,2 --output o.npy" "bench model -m $path" "serve -m $path --port 0" "train recipe.yaml" "pack $path"; do
    # shellcheck disable=SC2086
    timeout 20 "$binary" $verb >out 2>err
    [ $? = 2 ] && [ ! -s out ] && [ "$(grep -c vocabulary err)" = 1 ] && grep -q "$path: is a vocabulary without weights; it serves tokenize, detokenize and inspect" err
    check "${verb%% *} refuses $path" $? "$(cat out err)"
  done
done
