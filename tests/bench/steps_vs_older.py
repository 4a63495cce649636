#!/usr/bin/env python3
"""Single steps, answers of an engine and training passes, of two checkouts in one process, in turns: it resolves 1 % where whole commands (vs_older.py) vary by 20 %.

    steps_vs_older.py OLD_CHECKOUT NEW_CHECKOUT MODEL.gguf [--threads 2] [--rounds 200] [--kv auto]
    steps_vs_older.py OLD_CHECKOUT NEW_CHECKOUT MODEL.gguf --rows [--threads 2] [--rounds 40] [--kv auto]
    steps_vs_older.py OLD_CHECKOUT NEW_CHECKOUT MODEL.gguf --train [--threads 2] [--rounds 40]
    steps_vs_older.py OLD_CHECKOUT NEW_CHECKOUT --matmul [TYPE:MxK ...] [--isa amx avx512 avx2 plain] [--rounds 200]

The second shows what many rows cost: steps of 1 to 48 rows with all their logits, at depth 256, and of 192 as a prompt is read and with all logits; each beside one row, and its
time a row beside that of 192 rows. The third times loss and gradients of LoRA of rank 16 on all maps, for micro-batches of several lengths. The fourth has the matrix product alone, on one thread and on weights that no cache holds: microseconds a row, old and new in turns. OLD and NEW
may be the same checkout.

Both checkouts are built already (cmake --preset release). Each library becomes a shared object beside a small main program; the caches of keys and values
and the packed weights are each build's own. A ratio above 1 means that NEW is faster.
"""
import argparse
import os
import subprocess
import sys
import tempfile

HERE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "steps")
PACKAGES = "jansson yaml-0.1 libpcre2-8 libutf8proc libcrypto libssl libevent libevent_pthreads libevent_openssl libarchive libzstd libxxhash hdf5".split()
STEPS = (("decode at depth 1", 1, 1, 1), ("decode at 256", 256, 1, 1), ("decode at 2048", 2048, 1, 1), ("verify 4 rows at 256", 256, 4, 4),
         ("verify 8 rows at 256", 256, 8, 8), ("verify 16 rows at 256", 256, 16, 16), ("prefill 192 rows at 0", 0, 192, 1), ("prefill 192 rows at 1536", 1536, 192, 0))
ANSWERS = (("1 answer of 96 tokens", 1, 96, 0), ("the same, speculative", 1, 96, 1), ("16 answers at once", 16, 64, 0), ("the same, speculative", 16, 64, 1))
PASSES = ((1, 128), (1, 512), (4, 256), (2, 1024))
ROWS, PROMPT_ROWS = (1, 4, 8, 16, 24, 32, 48), 192
MATMULS = ("Q4_K:8960x1536", "Q6_K:1536x8960", "Q4_1:1536x576", "Q8_0:1536x1536")
ISAS = ("amx", "avx512", "avx2", "plain")
KV = ("auto", "f16", "bf16", "int8", "f32")


def run(*args):
    p = subprocess.run(args, capture_output=True, text=True)
    if p.returncode:
        sys.exit(f"{' '.join(args[:3])} ... ended with status {p.returncode}: {p.stderr[-800:]}")
    return p.stdout


def library(checkout, out, side="side.c"):
    archive = next((f for f in (os.path.join(checkout, d, "libspecdec.a") for d in ("build/release", "build")) if os.path.exists(f)), None)
    if not archive:
        sys.exit(f"{checkout}: has no build/release/libspecdec.a; build it with cmake --preset release && cmake --build --preset release")
    links = run("pkg-config", "--libs", *PACKAGES).split()
    run("cc", "-std=gnu11", "-O2", "-fPIC", "-shared", "-I" + checkout, os.path.join(HERE, side), "-o", out, "-Wl,-Bsymbolic", "-Wl,--whole-archive", archive,
        "-Wl,--no-whole-archive", *links, "-ldnnl", "-lm", "-ldl", "-lpthread")
    return out


def main_program(work, source):
    program = os.path.join(work, "in_turns")
    run("cc", "-std=gnu11", "-O2", os.path.join(HERE, source), "-o", program, "-ldl")
    return program


def compare(a, program, sides, kinds):
    print(f"{'':26} {'old ms':>8} {'new ms':>8} {'new is':>7}   quartiles")
    for name, kind, x, y, z, burst, rounds in kinds:
        old, new, ratio, low, high = run(program, *sides, a.model, *map(str, (a.threads, KV.index(a.kv), burst, rounds, kind, x, y, z))).split()
        print(f"{name:26} {old:>8} {new:>8} {ratio:>7}   {low} to {high}", flush=True)


def compare_steps(a, program, sides):
    kinds = [(name, "step", *v, *((8, a.rounds) if v[1] < 64 else (2, max(1, a.rounds // 4)))) for name, *v in STEPS]
    kinds += [(name, "answers", *v, 1, max(1, a.rounds // 5)) for name, *v in ANSWERS]
    compare(a, program, sides, kinds)


def compare_training(a, program, sides):
    compare(a, program, sides, [(f"pass over {n} x {t} tokens", "training", n, t, 0, 1, a.rounds) for n, t in PASSES])


def compare_rows(a, program, sides):
    """Verification against one row, and a row of it against a row of a prompt."""
    depth, found = 256, {}
    for n, want in [(n, n) for n in ROWS] + [(PROMPT_ROWS, 1), (PROMPT_ROWS, PROMPT_ROWS)]:
        args = (a.threads, KV.index(a.kv), 4 if n < 64 else 1, a.rounds, "step", depth, n, want)
        old, new, ratio, low, high = map(float, run(program, *sides, a.model, *map(str, args)).split())
        found[n, want] = (old, new, ratio, low, high)
    print(f"{'rows at depth 256':20}{'old ms':>9}{'new ms':>9}{'new is':>8}   {'quartiles':<18}{'of one row':>16}{'a row, of a prompt row':>26}{'with all logits':>18}")
    for (n, want), (old, new, ratio, low, high) in found.items():
        name = f"{n}, all logits" if want == n else f"{n} as a prompt"
        one = [t / found[1, 1][i] for i, t in enumerate((old, new))]
        row = [[t / n / (found[PROMPT_ROWS, w][i] / PROMPT_ROWS) for i, t in enumerate((old, new))] for w in (1, PROMPT_ROWS)]
        print(f"{name:20}{old:>9.3f}{new:>9.3f}{ratio:>8.3f}   {low:.3f} to {high:.3f}    {one[0]:>6.2f}, {one[1]:>6.2f}{row[0][0]:>17.2f}, {row[0][1]:.2f}{row[1][0]:>14.2f}, {row[1][1]:.2f}",
              flush=True)


def compare_matmul(a, program, sides):
    for isa in a.isa:
        for what in a.matmul or MATMULS:
            kind, _, shape = what.partition(":")
            m, _, k = shape.partition("x")
            if not (m.isdigit() and k.isdigit()):
                sys.exit(f"--matmul {what}: give TYPE:MxK, such as {MATMULS[0]}")
            lines = [line.split() for line in run(program, *sides, isa, kind, m, k, str(a.rounds)).splitlines()]
            if not lines:
                print(f"{isa}: this processor has none")
                break
            print(f"{isa}, {kind} of {m} x {k}\n{'rows':>6}{'old us a row':>14}{'new us a row':>14}{'of one row':>18}{'new is, 5th, 25th, 50th percentile':>38}")
            for n, old, new, p5, p25, p50 in lines:
                one = [float(t) * int(n) / float(lines[0][i]) for i, t in ((1, old), (2, new))]
                print(f"{n:>6}{old:>14}{new:>14}{one[0]:>10.2f}, {one[1]:>6.2f}{p5:>22}, {p25}, {p50}", flush=True)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("old"), p.add_argument("new"), p.add_argument("model", nargs="?")
    p.add_argument("--rows", action="store_true", help="what steps of many rows cost")
    p.add_argument("--train", action="store_true", help="passes of training")
    p.add_argument("--matmul", nargs="*", metavar="TYPE:MxK", help=f"the matrix product alone ({' '.join(MATMULS)})")
    p.add_argument("--isa", nargs="+", choices=ISAS, default=ISAS[:3], help="instructions of --matmul (amx avx512 avx2)")
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--rounds", type=int, help="200; --rows, --train: 40")
    p.add_argument("--kv", choices=KV, default="auto")
    a = p.parse_args()
    a.rounds = a.rounds if a.rounds is not None else 40 if a.rows or a.train else 200
    if not 4 <= a.rounds <= 1000:
        p.error(f"--rounds {a.rounds}: give 4 to 1000")
    if (a.matmul is None) == (a.model is None):
        p.error("give a model, or --matmul without one")
    alone = a.matmul is not None
    with tempfile.TemporaryDirectory() as work:
        sides = [library(c, os.path.join(work, n), "side_matmul.c" if alone else "side.c") for c, n in ((a.old, "old.so"), (a.new, "new.so"))]
        program = main_program(work, "matmul_in_turns.c" if alone else "in_turns.c")
        (compare_matmul if alone else compare_rows if a.rows else compare_training if a.train else compare_steps)(a, program, sides)


if __name__ == "__main__":
    main()
