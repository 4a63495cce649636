#!/usr/bin/env bash
# The kernels compiled for 64-bit ARM and run under emulation: every weight type against the plain table. Needs aarch64-linux-gnu-gcc and
# qemu-aarch64-static (apt install gcc-aarch64-linux-gnu qemu-user-static); without them a printed skip. Prints TAP.
set -uo pipefail
cd "$(dirname "$0")/../.."
for tool in aarch64-linux-gnu-gcc qemu-aarch64-static; do
  command -v $tool >/dev/null || {
    echo "ok - neon # SKIP $tool is not installed"
    exit 0
  }
done
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
flags=(-std=c11 -O2 -D_GNU_SOURCE -I. -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wno-sign-conversion -Wcast-qual -ffp-contract=off -Werror)
sources=(tests/e2e/neon.c kernels/{ops,quant,quant_write,quant_write_k,slab}.c kernels/cpu/{ops_plain,pack,matmul_neon}.c base/{memory,status,log}.c)
for source in "${sources[@]}"; do
  [ "$source" = kernels/cpu/matmul_neon.c ] && isa=-march=armv8.2-a+dotprod || isa=
  aarch64-linux-gnu-gcc "${flags[@]}" $isa -c "$source" -o "$work/$(echo "$source" | tr / _).o" || {
    echo "not ok - neon: $source does not compile for 64-bit ARM"
    exit 1
  }
done
aarch64-linux-gnu-gcc -static "$work"/*.o -o "$work/neon" -lm -lpthread || {
  echo "not ok - neon: the kernels do not link"
  exit 1
}
qemu-aarch64-static "$work/neon"
