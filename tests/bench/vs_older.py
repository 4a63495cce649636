#!/usr/bin/env python3
"""Two builds of specdec against each other, interleaved: fresh processes A B B A A B ..., and the median of the ratios pair by pair.

    vs_older.py OLD NEW MODEL.gguf [--rounds 20] [--threads N] [--what decode prefill start streams spec train] [--prompts P.jsonl] [--records R.jsonl] [--json]

    decode, prefill     `bench model`: tokens a second at depth 256, and of a prompt of 512 tokens
    start               `bench model --start`: seconds from exec to the first token with a warm page cache
    streams             16 clients of one server at once, 64 tokens in and out: tokens a second
    spec                `bench spec` on --prompts (the first 2 of each task, 64 tokens): tokens a second, plain and speculative
    train               4 steps of 8 of --records by recipes/debian-triage.yaml: tokens a second over the steps after the first

Every row is speed, so that more than 1 means that NEW is faster. The interval beside a median holds the true median of the ratios with at least 95 %
(order statistics, binomial); where it straddles the bar, more rounds decide. Each build keeps a packed cache of its own. Standard library only.
"""
import argparse
import csv
import http.client
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "e2e", "lib"))
from served import Served  # noqa: E402

WHAT = ("decode", "prefill", "start", "streams", "spec", "train")
STREAMS, STREAM_TOKENS, STEPS, BATCH = 16, 64, 4, 8
RECIPE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "recipes", "debian-triage.yaml")


class Build:
    """One side: its program, and a cache that the other never touches."""

    def __init__(self, path, cache):
        self.path, self.env = path, dict(os.environ, XDG_CACHE_HOME=cache)

    def run(self, *args):
        p = subprocess.run([self.path, *map(str, args)], env=self.env, capture_output=True, text=True)
        if p.returncode:
            sys.exit(f"{self.path} {args[0]} ended with status {p.returncode}: {p.stderr[-800:]}")
        return p.stdout


def bench_model(b, a, *more):
    return json.loads(b.run("bench", "model", "-m", a.model, "--threads", a.threads, "--json", *more))


def decode(b, a):
    return {"decode": bench_model(b, a, "--depth", "256", "--prefill", "16", "--rounds", "40")["decode_tok_s"]["256"]}


def prefill(b, a):
    return {"prefill": bench_model(b, a, "--depth", "0", "--prefill", "512", "--rounds", "8")["prefill_tok_s"]["512"]}


def start(b, a):
    return {"cold start": 1 / bench_model(b, a, "--depth", "0", "--prefill", "16", "--rounds", "1", "--start")["cold_start_first_token_s"]}


def streams(b, a):
    old = os.environ.get("XDG_CACHE_HOME")
    os.environ["XDG_CACHE_HOME"] = b.env["XDG_CACHE_HOME"]
    server = Served(b.path, a.model, "--threads", str(a.threads), "--slots", str(STREAMS))
    os.environ.pop("XDG_CACHE_HOME") if old is None else os.environ.update(XDG_CACHE_HOME=old)
    failed = []

    def ask(i, tokens):
        c = http.client.HTTPConnection("127.0.0.1", server.port, timeout=300)
        body = {"prompt": [(i * 977 + k * 131) % 4000 + 1000 for k in range(STREAM_TOKENS)], "max_tokens": tokens, "ignore_eos": True, "temperature": 0}
        c.request("POST", "/v1/completions", json.dumps(body), {"Content-Type": "application/json"})
        r = c.getresponse()
        if r.status != 200 or not r.read():
            failed.append(r.status)

    def all_at_once(tokens):
        threads = [threading.Thread(target=ask, args=(i, tokens)) for i in range(STREAMS)]
        begin = time.perf_counter()
        [t.start() for t in threads]
        [t.join() for t in threads]
        return time.perf_counter() - begin

    all_at_once(4)  # warm
    seconds = min(all_at_once(STREAM_TOKENS) for _ in range(2))
    server.process.terminate()
    server.process.wait()
    if failed:
        sys.exit(f"{b.path} serve: status {failed[0]} for {len(failed)} of the streams")
    return {"16 streams": STREAMS * STREAM_TOKENS / seconds}


def spec(b, a):
    tasks = json.loads(b.run("bench", "spec", "-m", a.model, "--threads", a.threads, "--limit", "2", "-n", "64", "--json", a.prompts))["tasks"]
    answers = sum(t["tokens"] - t["answers"] for t in tasks)
    return {f"bench spec, {name}": answers / sum((t["tokens"] - t["answers"]) / t["decode"][key] for t in tasks)
            for name, key in (("plain", "plain_tok_s"), ("speculative", "spec_tok_s"))}


def train(b, a):
    with tempfile.TemporaryDirectory() as work:
        folder = os.path.join(work, "run")
        keys = {"base.model": a.model, "data.train.0.path": a.records, "train.max_steps": STEPS, "train.batch_rows": BATCH, "data.max_records": STEPS * BATCH,
                "checkpoint.every": STEPS, "export_verify.prompts": 0, "draft.index": "false", "export": "[peft]"}
        b.run("train", RECIPE, *(f"{k}={v}" for k, v in keys.items()), "--threads", a.threads, "-o", folder)
        with open(os.path.join(folder, "metrics.csv")) as f:
            rows = list(csv.DictReader(f))
    return {"training": sum(int(r["tokens"]) for r in rows[1:]) / (float(rows[-1]["wall_s"]) - float(rows[0]["wall_s"]))}


def interval(values):
    """The closest pair of order statistics around the median that holds it with 95 %; all of them when there are fewer than 6."""
    v, n = sorted(values), len(values)
    best = (v[0], v[-1])
    for k in range(1, n // 2 + 1):
        if 1 - 2 * sum(math.comb(n, i) for i in range(k)) / 2**n >= 0.95:
            best = (v[k - 1], v[n - k])
    return best


def parse():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("old")
    p.add_argument("new")
    p.add_argument("model", help="GGUF file")
    p.add_argument("--rounds", type=int, default=20, help="pairs of runs (20)")
    p.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    p.add_argument("--what", nargs="+", choices=WHAT, default=["decode", "prefill", "start", "streams"])
    p.add_argument("--prompts", help="for spec: JSON lines as `bench spec` takes them")
    p.add_argument("--records", help="for train: JSON lines with messages")
    p.add_argument("--json", action="store_true")
    a = p.parse_args()
    for what, path in (("spec", a.prompts), ("train", a.records)):
        if what in a.what and not path:
            p.error(f"{what} needs --{'prompts' if what == 'spec' else 'records'}")
    for path in filter(None, (a.old, a.new, a.model, a.prompts, a.records)):
        if not os.path.exists(path):
            p.error(f"{path} is not there")
    if a.rounds < 1:
        p.error("--rounds: give 1 at least")
    a.old, a.new, a.model = (os.path.abspath(x) for x in (a.old, a.new, a.model))
    return a


def main():
    a = parse()
    with tempfile.TemporaryDirectory() as work:
        sides = [Build(path, os.path.join(work, name)) for name, path in (("old", a.old), ("new", a.new))]
        for side in sides:  # packs and times the steps once, so that no round does
            bench_model(side, a, "--depth", "0", "--prefill", "16", "--rounds", "1", "--start")
        rows = {}
        for i in range(a.rounds):
            for what in a.what:
                pair = {}
                for side in sides if i % 2 == 0 else sides[::-1]:
                    pair[side] = globals()[what](side, a)
                for name, value in pair[sides[0]].items():
                    rows.setdefault(name, []).append((value, pair[sides[1]][name]))
            print(f"round {i + 1} of {a.rounds}: " + ", ".join(f"{name} {v[-1][1] / v[-1][0]:.3f}" for name, v in rows.items()), file=sys.stderr, flush=True)
    out = []
    for name, pairs in rows.items():
        ratios = [new / old for old, new in pairs]
        low, high = interval(ratios)
        out.append({"what": name, "old": statistics.median(x for x, _ in pairs), "new": statistics.median(y for _, y in pairs),
                    "ratio": statistics.median(ratios), "low": low, "high": high})
    if a.json:
        print(json.dumps({"model": os.path.basename(a.model), "threads": a.threads, "rounds": a.rounds, "rows": out}))
        return
    print(f"{os.path.basename(a.model)}, {a.threads} threads, {a.rounds} pairs of runs (medians; ratio new/old of the pairs, 95 % interval)")
    for r in out:
        print(f"{r['what']:26} {r['old']:10.1f} {r['new']:10.1f}   {r['ratio']:.3f}  ({r['low']:.3f} to {r['high']:.3f})")


if __name__ == "__main__":
    main()
