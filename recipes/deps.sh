#!/usr/bin/env bash
# Installs what a fresh Debian 12 lacks: deps.sh build | tests, or fetches the package lists: deps.sh lists. Does nothing when everything is there.
# Uses apt-get, with sudo where the caller is not root; says what it installs before it does.
set -euo pipefail

build=(build-essential cmake pkg-config ca-certificates curl python3 python3-pip
  libjansson-dev libyaml-dev libpcre2-dev libutf8proc-dev libevent-dev libssl-dev
  libhdf5-dev libzstd-dev libxxhash-dev libarchive-dev libdnnl-dev)
tests=("${build[@]}" git libcriterion-dev libsimde-dev clang-format
  strace clang-14 libclang-rt-14-dev lld)

case ${1:-build} in
build) want=("${build[@]}") ;;
tests) want=("${tests[@]}") ;;
lists) want=() ;;
*)
  echo "deps.sh: '$1' is unknown; give build, tests or lists" >&2
  exit 2
  ;;
esac

missing=()
for package in "${want[@]}"; do
  [ "$(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || missing+=("$package")
done
[ ${#missing[@]} = 0 ] && [ "${1:-build}" != lists ] && exit 0

root=()
if [ "$(id -u)" != 0 ]; then
  command -v sudo >/dev/null || {
    echo "deps.sh: missing ${missing[*]}; install them as root: apt-get install ${missing[*]}" >&2
    exit 2
  }
  root=(sudo)
fi
"${root[@]}" apt-get update -qq
[ ${#missing[@]} = 0 ] && exit 0
echo "Installing ${missing[*]}" >&2
"${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
