#!/usr/bin/env python3
"""Every system call on files fails once, in the middle of train, resume, data prepare, export, pack, logits and generate.

    tests/torture/io_faults.py [build/release/specdec]            a sample, chosen by SEED: TRIES (1) of each kind of call; half a minute
    tests/torture/io_faults.py [build/release/specdec] --full     each call in four ways: EIO, ENOSPC, EINTR, and half of the bytes: an hour on
                                                                  two cores; TRIES=n: at most n of a call and way

What must come: exit 1 or 2 with one sentence, or exit 0 with the same bytes; never a signal, a hang or another result. Whatever came, every
checkpoint that stood before still stands whole, and a run that ended with an error goes on to the same adapter when it is started again.
TAP; needs tests/fault_at and tests/make_tiny_model beside the binary (the target unit_tests builds them).
"""
import concurrent.futures
import glob
import os
import random
import shutil
import sys
import tempfile
import time

sys.path[:0] = [os.path.join(os.path.dirname(os.path.abspath(__file__)), d) for d in ("lib", "../e2e/lib")]
import tap  # noqa: E402
from options import parser  # noqa: E402
from tiny_run import Place, lost, sha, standing  # noqa: E402

WAYS = {"openat": "EIO ENOSPC EINTR", "read": "EIO EINTR short", "pread64": "EIO EINTR short", "getdents64": "EIO EINTR short", "newfstatat": "EIO EINTR",
        "write": "EIO ENOSPC EINTR short", "pwrite64": "EIO ENOSPC EINTR short", "fsync": "EIO ENOSPC EINTR", "rename": "EIO ENOSPC EINTR",
        "renameat2": "EIO ENOSPC EINTR", "ftruncate": "EIO ENOSPC EINTR", "close": "EIO ENOSPC EINTR", "mkdir": "EIO ENOSPC EINTR", "mmap": "ENOMEM",
        "unlink": "EIO", "rmdir": "EIO", "flock": "EIO EINTR ENOLCK", "lseek": "EIO"}
# name: the command, what it makes, the folder that it finds (copied for each try)
JOBS = {"train": (["train", "recipe.yaml", "-o", "run"], ["run/adapter/adapter_model.safetensors", "run/adapter.gguf", "run/draft/corpus.idx"], None),
        "resume": (["train", "recipe.yaml", "-o", "run"], ["run/adapter/adapter_model.safetensors", "run/adapter.gguf", "run/draft/corpus.idx"], "begun"),
        "prepare": (["data", "prepare", "data.jsonl", "-m", "tiny.gguf", "-o", "d.h5", "--sequence-len", "64", "--threads", "1"], ["d.h5"], None),
        "export": (["export", "run", "--to", "merged", "-o", "merged.gguf", "--threads", "1"], ["merged.gguf"], "whole"),
        "pack": (["pack", "tiny.gguf", "--threads", "1"], [], None),
        "logits": (["logits", "-m", "tiny.gguf", "-a", "run", "--text", "some text", "-o", "l.npy", "--threads", "1"], ["l.npy"], "whole"),
        "generate": (["generate", "-m", "tiny.gguf", "-a", "run", "-p", "some text", "-n", "4", "--threads", "1"], [], "whole")}
options = parser(__doc__, full=True).parse_args()
full = options.full
seed = int(os.environ.get("SEED", time.time_ns() % 100000))


def link_all(place, folder, found):
    """A folder of its own with the sources of `place` and the run it finds."""
    os.makedirs(folder)
    for name in ("tiny.gguf", "data.jsonl", "recipe.yaml"):
        shutil.copy2(place.path(name), os.path.join(folder, name))
    if found:
        shutil.copytree(place.path(found), os.path.join(folder, "run"))


def artefacts(folder, names):
    return [sha(os.path.join(folder, n)) if os.path.exists(os.path.join(folder, n)) else None for n in names]


def one_sentence(err):
    """The failure's sentence is the last line; notices may stand before it."""
    lines = [line for line in err.strip().splitlines() if line.startswith("specdec: ")]
    return bool(lines) and err.strip().splitlines()[-1] == lines[-1]


def attempt(place, job, call, way, n, want):
    """None, or what is wrong."""
    argv, names, found = JOBS[job]
    folder = tempfile.mkdtemp(dir=place.dir) + "/w"
    link_all(place, folder, found)
    before = standing(os.path.join(folder, "run"))
    env_cache = place.env["XDG_CACHE_HOME"]
    mine = Place(place.binary, folder)
    mine.want = place.want
    try:
        status, err = mine.run(argv, (call, way, n))
        if status is None:
            return "it did not end"
        if status >= 128 or status < 0 or status in (97, 98):
            return f"it ended with {status}: {err.strip()[-300:]}"
        if status == 99:
            return None  # another way through the code: fewer calls
        gone = lost(before, standing(os.path.join(folder, "run")))
        if gone:
            return f"checkpoints {gone} are gone (exit {status}): {err.strip()[-300:]}"
        if status == 0:
            got = artefacts(folder, names)
            return None if got == want else f"exit 0 and other bytes: {[n for n, g, w in zip(names, got, want) if g != w]}: {err.strip()[-300:]}"
        if status not in (1, 2):
            return f"it ended with {status}: {err.strip()[-300:]}"
        if not one_sentence(err):
            return f"exit {status} without its sentence: {err.strip()[-300:]!r}"
        if job in ("train", "resume") or not full:
            status, err = mine.run(argv)
            if status != 0 and job in ("export", "prepare", "pack") and "exists" not in err:
                return f"the next start ended with {status}: {err.strip()[-300:]}"
            if job in ("train", "resume"):
                if status != 0:
                    return f"the next start ended with {status}: {err.strip()[-300:]}"
                if artefacts(folder, names) != want:
                    return "the next start gave other bytes"
                gone = lost(before, standing(os.path.join(folder, "run")))
                if gone:
                    return f"after the next start checkpoints {gone} are gone"
        return None
    finally:
        place.env["XDG_CACHE_HOME"] = env_cache
        shutil.rmtree(os.path.dirname(folder), ignore_errors=True)


def main():
    place = Place(options.binary, tempfile.mkdtemp(prefix="io-faults-"))
    why = place.missing()
    if why:
        tap.skip("io_faults: every call fails once", why)
        return 0
    rng, start = random.Random(seed), time.monotonic()
    try:
        place.make()
        pending, want = [], {}
        for job, (argv, names, found) in JOBS.items():
            folder = place.path("count-" + job)
            link_all(place, folder, found)
            mine = Place(place.binary, folder)
            counts = mine.count(argv)
            want[job] = artefacts(folder, names)
            every = [(job, call, way, n) for call, times in counts.items() for way in WAYS[call].split() for n in range(1, times + 1)]
            tap.check(f"io_faults: {job}: {sum(counts.values())} calls, {len(every)} faults to plant", None not in want[job])
            pending += every
        # As many of the rare calls as of the frequent ones: a tiny model is hashed by 500 calls of one line.
        limit = int(os.environ.get("TRIES", 0 if full else 1))
        if limit:
            groups = {}
            for t in pending:
                groups.setdefault(t[:3] if full else t[:2], []).append(t)
            pending = [t for g in groups.values() for t in rng.sample(g, min(limit, len(g)))]
        rng.shuffle(pending)
        bad = {}
        with concurrent.futures.ThreadPoolExecutor(max(2, os.cpu_count() or 1)) as pool:
            tries = {pool.submit(attempt, place, *t, want[t[0]]): t for t in pending}
            for done in concurrent.futures.as_completed(tries):
                job, call, way, n = tries[done]
                wrong = done.result()
                if wrong:
                    bad.setdefault(job, []).append(wrong)
                    print(f"# {job}: {call} {n} {way}: {wrong}", flush=True)
        for job in JOBS:
            n = sum(t[0] == job for t in pending)
            tap.check(f"io_faults: {job}: {n} calls failed, {len(bad.get(job, []))} times silently, with a crash or with a loss", not bad.get(job))
        print(f"# seed {seed}, {len(pending)} runs, {time.monotonic() - start:.0f} s")
    finally:
        shutil.rmtree(place.dir, ignore_errors=True)
        for left in glob.glob(place.dir + "*"):
            shutil.rmtree(left, ignore_errors=True)
    return tap.failures > 0


sys.exit(main())
