#!/usr/bin/env python3
"""Logits of tiny random models against transformers, in fp32: every architecture, every rotary variant in each spelling of
config.json, sliding windows, LongRoPE on both sides of its border, tied and separate heads, explicit head sizes, bf16 weights.

    logits_tiny.py SPECDEC [MODELS] [--full] [--only TEXT]     prints TAP; skips when torch, transformers or numpy is missing

Lengths from 1 to 257 stand densely around windows, pages of keys (64) and chunks; --full takes every one of them. `specdec logits` opens a
sequence of exactly the length of its tokens, so that LongRoPE's choice is that of transformers, which looks at the length that it is given.

Tolerance: fp32 rounds at 6e-8 relative; two layers of sums over at most 96 terms on logits of order 4 give some 1e-5, and the
reference's fp32 angles at position 256 another 1e-5; 8 layers of Gemma's some 4e-5. 1e-4 separates that from any mistake, which is of order
1e-2 and more.
"""
import argparse, os, subprocess, sys, tempfile

try:
    import numpy as np
    import tiny_models
except ImportError as e:
    print(f"ok 1 - logits of tiny models # SKIP {e.name} is not installed")
    print("1..1")
    sys.exit(0)

LIMIT, LONGEST = 1e-4, 257
DENSE = sorted({*range(1, 6), *range(14, 20), *range(31, 34), 48, 49, *range(62, 68), *range(79, 82), 96, *range(127, 131), *range(191, 194), *range(255, 258)})
FEW = [1, 17, 65, LONGEST]  # where another case has the same shapes


def lengths_of(case, full):
    if full:
        return range(1, LONGEST + 1)
    if case.arch in ("gemma3_text", "phi3"):
        return DENSE
    return DENSE if case.spelling == "new" and case.rope["rope_type"] == "default" else FEW


def ours(specdec, model, ids, out, *more):
    """The logits, or what specdec said when it failed."""
    run = subprocess.run([specdec, "logits", "-m", model, "--tokens", ",".join(map(str, ids)), "--compute", "fp32", "-o", out, *more],
                         capture_output=True, text=True)
    return run.stderr.strip() or f"status {run.returncode}" if run.returncode else np.load(out)


def compare(specdec, model, path, lengths, ids, tmp):
    """The largest difference with its length and position, or a problem in words."""
    worst, where = 0.0, ""
    for n in lengths:
        got = ours(specdec, path, ids[:n], os.path.join(tmp, "logits.npy"))
        if isinstance(got, str):
            return float("nan"), f"at length {n}: {got}"
        want = tiny_models.logits_of(model, ids[:n])
        if got.shape != want.shape or not abs(want).max() > 0.5:
            return float("nan"), f"at length {n}: shape {got.shape}, want {want.shape}; largest {abs(want).max():.2g}"
        off = abs(got - want).max(1)
        if not off.max() <= worst:
            worst, where = float(off.max()), f"at length {n}, position {off.argmax()}, the first beyond {LIMIT:g}: {(off > LIMIT).argmax() if (off > LIMIT).any() else 'none'}"
    chunks = ours(specdec, path, ids, os.path.join(tmp, "logits.npy"), "--prefill-chunk", "7")
    whole = ours(specdec, path, ids, os.path.join(tmp, "logits.npy"))
    if isinstance(chunks, str) or isinstance(whole, str) or not np.array_equal(chunks, whole):
        return float("nan"), f"chunks of 7 change the logits of {len(ids)} tokens"
    return worst, where


def options():
    parser = argparse.ArgumentParser()
    parser.add_argument("specdec")
    parser.add_argument("models", nargs="?", help="not needed: the models are made here")
    parser.add_argument("--full", action="store_true", help="every length")
    parser.add_argument("--only", default="", metavar="TEXT", help="cases that have it in their name")
    return parser.parse_args()


def main():
    args = options()
    failed = number = 0
    ids = np.random.default_rng(1).integers(0, tiny_models.BASE["vocab_size"], LONGEST)
    for case in tiny_models.cases():
        if args.only not in case.name:
            continue
        number += 1
        with tempfile.TemporaryDirectory() as tmp:
            folder = os.path.join(tmp, "model")
            tiny_models.build(folder, case)
            lengths = lengths_of(case, args.full)
            worst, where = compare(args.specdec, tiny_models.reference(folder), folder, lengths, ids, tmp)
        good = worst <= LIMIT
        failed += not good
        print(f"{'ok' if good else 'not ok'} {number} - logits of {case.name}, {len(lengths)} lengths: max abs {worst:.2g} {where}", flush=True)
    print(f"1..{number}")
    return failed > 0


if __name__ == "__main__":
    sys.exit(main())
