#!/usr/bin/env bash
# Installs what a fresh Debian 12 lacks: deps.sh build | tests | cuda, or fetches the package lists: deps.sh lists. Does nothing when everything is
# there. Uses apt-get, with sudo where the caller is not root; says what it installs before it does. The CUDA toolkit is its vendor's: cuda installs
# what Debian has for it and says what of the toolkit is missing, and how to get it.
set -euo pipefail

build=(build-essential cmake pkg-config ca-certificates curl python3 python3-pip
  libjansson-dev libyaml-dev libpcre2-dev libutf8proc-dev libevent-dev libssl-dev
  libhdf5-dev libzstd-dev libxxhash-dev libarchive-dev libdnnl-dev libedit-dev)
tests=("${build[@]}" git libcriterion-dev libsimde-dev clang-format
  strace openssl clang-14 libclang-rt-14-dev lld tmux)

# Status 0 where the toolkit is whole, else a list of what is missing and 2. Debian's own nvidia-cuda-toolkit is 11.8, which knows neither sm_100 nor sm_120.
check_toolkit() {
  local nvcc home release lacking=()
  nvcc=$(command -v nvcc || echo "${CUDA_PATH:-/usr/local/cuda}/bin/nvcc")
  if [ -x "$nvcc" ]; then
    home=$(dirname "$(dirname "$(readlink -f "$nvcc")")")
    release=$("$nvcc" --version | sed -nE 's/.*release ([0-9]+)\.([0-9]+).*/\1 \2/p')
    [ "$(printf '%d%02d' ${release:-0 0})" -ge 1208 ] || lacking+=("nvcc 12.8 or newer; $nvcc is of release ${release/ /.}")
  else
    lacking+=("nvcc 12.8 or newer, on PATH, below CUDA_PATH or in /usr/local/cuda")
  fi
  has_file "${home:-}" libcudart_static.a || lacking+=("libcudart_static.a, CUDA's runtime")
  has_file "${home:-}" cublasLt.h || lacking+=("cublasLt.h and the library, for training's products")
  [ ${#lacking[@]} = 0 ] && return 0
  echo "deps.sh: of the CUDA toolkit are missing:" >&2
  printf '  - %s\n' "${lacking[@]}" >&2
  cat >&2 <<'TEXT'
Install them from the vendor's packages (as root):
  curl -fsSLO https://developer.download.nvidia.com/compute/cuda/repos/debian12/x86_64/cuda-keyring_1.1-1_all.deb
  dpkg -i cuda-keyring_1.1-1_all.deb && apt-get update
  apt-get install cuda-nvcc-13-0 cuda-cudart-dev-13-0 libcublas-dev-13-0 cuda-sanitizer-13-0
or, without root, from its wheels, and name their folder as CUDA_PATH:
  python3 -m venv cuda && cuda/bin/pip install nvidia-cuda-nvcc==13.0.* nvidia-cuda-crt==13.0.* nvidia-nvvm==13.0.* nvidia-cuda-runtime==13.0.* nvidia-cublas==13.*
  export CUDA_PATH=$(echo "$PWD"/cuda/lib/python3*/site-packages/nvidia/cu13)
A device also needs its driver (libcuda.so.1, nvidia-smi): of release 580 or newer for CUDA 13. Training on several devices also needs NCCL: libnccl2
of the vendor's packages, or the wheel nvidia-nccl-cu13, whose lib folder then stands in LD_LIBRARY_PATH.
TEXT
  return 2
}
# has_file HOME NAME: whether the toolkit, or the system, has a file of this name.
has_file() {
  [ -n "$1" ] && [ -n "$(find "$1"/lib* "$1"/include "$1"/targets /usr/include /usr/lib/x86_64-linux-gnu -maxdepth 3 -name "$2" -print -quit 2>/dev/null)" ]
}

tests+=(python3-yaml)
# What tests only run, unpacked below ~/.cache/specdec/tools (tests/e2e/lib/tools.py): installed, each would start a service.
unpacked=(prometheus nginx)

case ${1:-build} in
build) want=("${build[@]}") ;;
cuda) want=("${build[@]}" git clang-14 libclang-rt-14-dev) ;;
tests) want=("${tests[@]}") ;;
lists) want=() ;;
*)
  echo "deps.sh: '$1' is unknown; give build, tests, cuda or lists" >&2
  exit 2
  ;;
esac

missing=()
for package in "${want[@]}"; do
  [ "$(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || missing+=("$package")
done
# Status 0 also where a mirror has none: what needs them says that it is skipped.
unpack() {
  local tools=${SPECDEC_TOOLS:-${XDG_CACHE_HOME:-$HOME/.cache}/specdec/tools} package room
  for package in "${unpacked[@]}"; do
    [ -e "$tools/.$package" ] && continue
    command -v "$package" >/dev/null && continue
    echo "Unpacking $package to $tools" >&2
    room=$(mktemp -d)
    if (cd "$room" && apt-get download -qq "$package" && dpkg-deb -x ./*.deb out) >&2; then
      mkdir -p "$tools"
      cp -a "$room/out/." "$tools/" && touch "$tools/.$package"
    else
      echo "deps.sh: $package could not be fetched; tests that need it are skipped" >&2
    fi
    rm -rf "$room"
  done
}
finish() {
  [ "${1:-build}" != tests ] || unpack
  [ "${1:-build}" != cuda ] || check_toolkit || exit
  exit 0
}
[ ${#missing[@]} = 0 ] && [ "${1:-build}" != lists ] && finish "$@"

root=()
if [ "$(id -u)" != 0 ]; then
  command -v sudo >/dev/null || {
    echo "deps.sh: missing ${missing[*]}; install them as root: apt-get install ${missing[*]}" >&2
    exit 2
  }
  root=(sudo)
fi
"${root[@]}" apt-get update -qq
[ ${#missing[@]} = 0 ] && finish "$@"
echo "Installing ${missing[*]}" >&2
"${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
finish "$@"
