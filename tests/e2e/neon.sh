#!/usr/bin/env bash
# The kernels' unit tests compiled for 64-bit ARM and run under emulation. Needs aarch64-linux-gnu-gcc and qemu-aarch64-static
# (apt install gcc-aarch64-linux-gnu qemu-user-static); without them a printed skip. Prints TAP.
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
sources=(kernels/{dequantize,quantize,quantize_k,huge_arena}.c kernels/train/gemm_packed.c kernels/cpu/{table,features,ops_plain,weight_layout,tiles,matmul_neon}.c base/{memory,status,log}.c)
compile() { # SOURCE OPTIONS...
  local source=$1
  shift
  aarch64-linux-gnu-gcc "${flags[@]}" "$@" -c "$source" -o "$work/$(echo "$source" | tr / _).o" || {
    echo "not ok - neon: $source does not compile for 64-bit ARM"
    exit 1
  }
}
for source in "${sources[@]}"; do
  [ "$source" = kernels/cpu/matmul_neon.c ] && compile "$source" -march=armv8.2-a+dotprod || compile "$source"
done
bad=0
for test in test_kernels test_kernels_rows; do
  compile tests/unit/kernels/$test.c -Itests/unit/without_criterion -Wno-conversion -Wno-unused -Wno-pedantic
  aarch64-linux-gnu-gcc -static "$work"/base_*.o "$work"/kernels_*.o "$work/tests_unit_kernels_$test.c.o" -o "$work/$test" -lm -lpthread || {
    echo "not ok - neon: $test does not link"
    exit 1
  }
  qemu-aarch64-static "$work/$test" >"$work/$test.tap" || bad=1
  cat "$work/$test.tap"
  if grep -q '^# neon: .*lacks it' "$work/$test.tap" || ! grep -q '^ok' "$work/$test.tap"; then
    echo "not ok - neon: $test did not run the NEON table"
    bad=1
  fi
done
exit $bad
