#!/usr/bin/env python3
"""SIGKILL in the middle of a training run: before and after each call that changes a file, and at random times.

    tests/torture/kills.py [build/release/specdec]            some of each, chosen by SEED: a quarter of a minute
    tests/torture/kills.py [build/release/specdec] --full     1,000 kills, every call that changes a file among them

After each kill every checkpoint of an earlier process stands whole, one is there to go on from, and the same command goes on to the adapter of
the run that was left alone, byte for byte. Some are killed again and again on the way. TAP; needs tests/fault_at and tests/make_tiny_model.
"""
import concurrent.futures
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time

sys.path[:0] = [os.path.join(os.path.dirname(os.path.abspath(__file__)), d) for d in ("lib", "../e2e/lib")]
import tap  # noqa: E402
from options import parser  # noqa: E402
from tiny_run import Place, lost, sha, standing  # noqa: E402

TRAIN = ["train", "recipe.yaml", "-o"]
options = parser(__doc__, full=True).parse_args()
full = options.full
seed = int(os.environ.get("SEED", time.time_ns() % 100000))


def killed_after(place, run, seconds):
    p = subprocess.Popen([place.binary, *TRAIN, run], cwd=place.dir, env=place.env, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    time.sleep(seconds)
    p.kill()
    p.wait()


def attempt(place, found, moments):
    """None, or what is wrong. moments: ("kill" or "killed", N) at the N-th changing call, or ("time", seconds)."""
    run = tempfile.mkdtemp(dir=place.dir, prefix="r") + "/run"
    try:
        if found:
            shutil.copytree(place.path(found), run)
        first = standing(run)
        for how, at in moments:
            before = standing(run)
            if how == "time":
                killed_after(place, run, at)
            else:
                status, err = place.run([*TRAIN, run], ("change", how, at))
                if status not in (137, 99, 0):
                    return f"{how} {at}: it ended with {status}: {err.strip()[-300:]}"
            after = standing(run)
            if lost(before, after):
                return f"{how} {at}: checkpoints {lost(before, after)} are gone"
        status, err = place.run([*TRAIN, run])
        if status != 0:
            return f"after {moments} the next start ended with {status}: {err.strip()[-300:]}"
        if sha(run + "/adapter/adapter_model.safetensors") != place.want:
            return f"after {moments} it goes on to another adapter"
        if lost(first, standing(run)):
            return f"after {moments} earlier checkpoints are gone"
        litter = [n for n in os.listdir(run) + os.listdir(run + "/checkpoints") if ".tmp" in n]
        return f"after {moments} {litter} is left" if litter else None
    finally:
        shutil.rmtree(os.path.dirname(run), ignore_errors=True)


def main():
    place = Place(options.binary, tempfile.mkdtemp(prefix="kills-"))
    why = place.missing()
    if why:
        tap.skip("kills: a killed run goes on", why)
        return 0
    rng, start = random.Random(seed), time.monotonic()
    try:
        place.make()
        changing = ("write", "pwrite64", "fsync", "rename", "renameat2", "ftruncate", "mkdir", "unlink", "rmdir")
        begin = time.monotonic()
        counts = place.count([*TRAIN, "counted"])
        took = time.monotonic() - begin
        every = {None: sum(counts[c] for c in changing)}
        shutil.copytree(place.path("begun"), place.path("resumed"))
        counts = place.count([*TRAIN, "resumed"])
        every["begun"] = sum(counts[c] for c in changing)
        at_calls = [(found, [(how, n)]) for found, calls in every.items() for n in range(1, calls + 1) for how in ("kill", "killed")]
        pending = at_calls if full else rng.sample(at_calls, 14)
        total = 1000 if full else 20
        while sum(len(m) for _, m in pending) < total:
            times = 1 if rng.random() < 0.7 else rng.randint(2, 5)
            moments = [rng.choice((("time", rng.random() * took), ("kill", rng.randint(1, every["begun"])), ("killed", rng.randint(1, every["begun"]))))
                       for _ in range(times)]
            pending.append((rng.choice((None, "begun")), moments))
        rng.shuffle(pending)
        bad = []
        with concurrent.futures.ThreadPoolExecutor(max(2, os.cpu_count() or 1)) as pool:
            for wrong in pool.map(lambda t: attempt(place, *t), pending):
                if wrong:
                    bad.append(wrong)
        for line in bad[:40]:
            print("# " + line)
        tap.check(f"kills: {sum(len(m) for _, m in pending)} kills in {len(pending)} runs of {every[None]} and {every['begun']} changing calls: {len(bad)} lost something", not bad)
        print(f"# seed {seed}, {time.monotonic() - start:.0f} s")
    finally:
        shutil.rmtree(place.dir, ignore_errors=True)
    return tap.failures > 0


sys.exit(main())
