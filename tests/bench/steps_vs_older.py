#!/usr/bin/env python3
"""Single steps, and answers of an engine, of two checkouts in one process, in turns: it resolves 1 % where whole commands (vs_older.py) vary by 20 %.

    steps_vs_older.py OLD_CHECKOUT NEW_CHECKOUT MODEL.gguf [--threads 2] [--rounds 200] [--kv auto]

Both checkouts are built already (cmake --preset release). Each library becomes a shared object beside a small main program; the caches of keys and values
and the packed weights are each build's own. A ratio above 1 means that NEW is faster.
"""
import argparse
import os
import subprocess
import sys
import tempfile

HERE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "steps")
PACKAGES = "jansson yaml-0.1 libpcre2-8 libutf8proc libcrypto libevent libevent_pthreads libarchive libzstd libxxhash hdf5".split()
STEPS = (("decode at depth 1", 1, 1, 1), ("decode at 256", 256, 1, 1), ("decode at 2048", 2048, 1, 1), ("verify 4 rows at 256", 256, 4, 4),
         ("verify 8 rows at 256", 256, 8, 8), ("verify 16 rows at 256", 256, 16, 16), ("prefill 192 rows at 0", 0, 192, 1), ("prefill 192 rows at 1536", 1536, 192, 0))
ANSWERS = (("1 answer of 96 tokens", 1, 96, 0), ("the same, speculative", 1, 96, 1), ("16 answers at once", 16, 64, 0), ("the same, speculative", 16, 64, 1))
KV = ("auto", "f16", "bf16", "int8", "f32")


def run(*args):
    p = subprocess.run(args, capture_output=True, text=True)
    if p.returncode:
        sys.exit(f"{' '.join(args[:3])} ... ended with status {p.returncode}: {p.stderr[-800:]}")
    return p.stdout


def library(checkout, out):
    archive = next((f for f in (os.path.join(checkout, d, "libspecdec.a") for d in ("build/release", "build")) if os.path.exists(f)), None)
    if not archive:
        sys.exit(f"{checkout}: has no build/release/libspecdec.a; build it with cmake --preset release && cmake --build --preset release")
    links = run("pkg-config", "--libs", *PACKAGES).split()
    run("cc", "-std=gnu11", "-O2", "-fPIC", "-shared", "-I" + checkout, os.path.join(HERE, "side.c"), "-o", out, "-Wl,-Bsymbolic", "-Wl,--whole-archive", archive,
        "-Wl,--no-whole-archive", *links, "-ldnnl", "-lm", "-ldl", "-lpthread")
    return out


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("old"), p.add_argument("new"), p.add_argument("model")
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--rounds", type=int, default=200)
    p.add_argument("--kv", choices=KV, default="auto")
    a = p.parse_args()
    with tempfile.TemporaryDirectory() as work:
        sides = [library(c, os.path.join(work, n)) for c, n in ((a.old, "old.so"), (a.new, "new.so"))]
        program = os.path.join(work, "in_turns")
        run("cc", "-std=gnu11", "-O2", os.path.join(HERE, "in_turns.c"), "-o", program, "-ldl")
        print(f"{'':26} {'old ms':>8} {'new ms':>8} {'new is':>7}   quartiles")
        kinds = [(name, "step", *v, *((8, a.rounds) if v[1] < 64 else (2, max(1, a.rounds // 4)))) for name, *v in STEPS]
        kinds += [(name, "answers", *v, 1, max(1, a.rounds // 5)) for name, *v in ANSWERS]
        for name, kind, x, y, z, burst, rounds in kinds:
            old, new, ratio, low, high = run(program, *sides, a.model, *map(str, (a.threads, KV.index(a.kv), burst, rounds, kind, x, y, z))).split()
            print(f"{name:26} {old:>8} {new:>8} {ratio:>7}   {low} to {high}", flush=True)


if __name__ == "__main__":
    main()
