#!/usr/bin/env python3
"""Whole answers against llama-server in each of its speculative settings, through both servers, in turns.

    vs_llama_server.py SPECDEC LLAMA_SERVER MODEL.gguf PROMPTS.jsonl... [--task NAME...] [--clients 1 4 16] [--settings NAME...] [--draft DRAFT.gguf] [-a RUN]
                       [--ours "OPTIONS"] [--limit N] [--tokens N] [--rounds 3] [--threads N] [--state FILE] [--json]

A cell is a task and so many clients at once. Its servers run side by side, one of llama-server for each setting and one of specdec as it comes; groups of as many prompts as
there are clients are answered greedily by each server in turn, in alternating order, so that a machine that slows down slows all. Settings: off; spec-default (--spec-default);
ngram-4-8 and ngram-12-48 (ngram-simple with such lookups and drafts); draft (DRAFT.gguf, 4 tokens of p >= .75), where there is one. With -a the run's adapter answers on
both sides, which llama-server takes as a GGUF-LoRA.

Speeds are tokens over seconds of whole requests, summed over a round, and medians over rounds; answers differ between the engines at near-ties. At one client decoding alone
is shown too: tokens after the first over the time behind the first piece of text. Gaps lie between events with text, as the client sees them. Each round has fresh servers,
which know nothing of the round before: neither prompts nor n-grams. --state keeps each round; the same command goes on. LLAMA_SERVER: llama.cpp's, cmake --build ... --target llama-server.

Ends with status 1 where a cell misses its bar against the fastest setting: edit and triage 2x, summary and chat 1.3x at 1 client and 2x at 16, and the 95th percentile of gaps.
"""
import argparse
import contextlib
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
from rates import Rates, duration  # noqa: E402
from script import Failure, read_lines, run  # noqa: E402
from servers import Server, free_ports, llama, need_program, ours, percentile  # noqa: E402
from state import State  # noqa: E402

SETTINGS = {"off": [], "spec-default": ["--spec-default"],
            "ngram-4-8": ["--spec-type", "ngram-simple", "--spec-ngram-simple-size-n", "4", "--spec-ngram-simple-size-m", "8"],
            "ngram-12-48": ["--spec-type", "ngram-simple", "--spec-ngram-simple-size-n", "12", "--spec-ngram-simple-size-m", "48"],
            "draft": ["--spec-type", "draft-simple", "--spec-draft-n-max", "4", "--spec-draft-p-min", "0.75"]}
BAR = {("edit", 1): 2, ("edit", 4): 2, ("edit", 16): 2, ("triage", 1): 2, ("triage", 4): 2, ("triage", 16): 2, ("summary", 1): 1.3, ("chat", 1): 1.3,
       ("summary", 16): 2, ("chat", 16): 2}
CTX, START_S, SPECDEC = 4096, 4, "specdec"
PEER_DECODE, PEER_PREFILL = 1.8, 2.5  # how much slower a setting is on average, for the estimate


def read_prompts(paths, tasks):
    by_task = {}
    for path in paths:
        for q in read_lines(path):
            if not tasks or q.get("task", "all") in tasks:
                if q["messages"][-1]["role"] == "assistant":
                    q["messages"].pop()
                by_task.setdefault(q.get("task", "all"), []).append(q)
    if not by_task:
        raise Failure(f"no prompt of {', '.join(tasks or ['any task'])} in {', '.join(paths)}")
    return by_task


def groups_of(a, prompts, clients):
    """Whole groups of as many prompts as --limit says, of one for each client at least."""
    count = max(1, min(a.limit or len(prompts), len(prompts)) // clients) * clients
    some = [prompts[i % len(prompts)] for i in range(count)]
    return [some[i:i + clients] for i in range(0, count, clients)]


def asked(a, q):
    return q["messages"], min(q["max_tokens"], a.tokens or q["max_tokens"])


def commands(a, clients, lora):
    more = a.ours.split() + (["-a", "run=" + a.adapter] if a.adapter else [])
    out = {SPECDEC: ours(a.specdec, a.model, a.threads, clients, CTX, *more)}
    for name in a.settings:
        extra = SETTINGS[name] + (["-md", a.draft] if name == "draft" else []) + (["--lora", lora] if lora else [])
        out[name] = llama(a.llama_server, a.model, a.threads, clients, CTX, *extra)
    return out


def measure_round(a, servers, groups, r):
    sums = {s.name: {"tokens": 0, "seconds": 0.0, "decoded": 0, "decode_s": 0.0} for s in servers}
    gaps, firsts = {s.name: [] for s in servers}, {s.name: [] for s in servers}
    for i, group in enumerate(groups):
        for s in servers if (i + r) % 2 == 0 else servers[::-1]:
            answers, seconds = s.answers([asked(a, q) for q in group])
            sums[s.name]["seconds"] += seconds
            for x in answers:
                sums[s.name]["tokens"] += x.tokens
                if x.first is not None:
                    sums[s.name]["decoded"] += x.tokens - 1
                    sums[s.name]["decode_s"] += x.whole - x.first
                    firsts[s.name].append(x.first)
                gaps[s.name] += x.gaps
    return {n: {**v, "first_s": percentile(firsts[n], 0.5), **{f"gap_p{p}_ms": percentile(gaps[n], p / 100) * 1e3 for p in (50, 95, 99)}} for n, v in sums.items()}


def measure_cell(a, state, task, clients, prompts, lora):
    left = [r for r in range(a.rounds) if f"{task} {clients} {r}" not in state]
    if not left:
        return
    groups, cmds = groups_of(a, prompts, clients), commands(a, clients, lora)
    for r in left:
        print(f"{task}, {clients} clients: round {r + 1} of {a.rounds}", file=sys.stderr, flush=True)
        with contextlib.ExitStack() as running:
            servers = [running.enter_context(Server(n, c, port, "run" if a.adapter and n == SPECDEC else "default"))
                       for (n, c), port in zip(cmds.items(), free_ports(len(cmds)))]
            for s in servers:
                s.ready().answer([{"role": "user", "content": "Hello"}], 4)
            state.put(f"{task} {clients} {r}", measure_round(a, servers, groups, r))


def rows_of(a, state, task, clients):
    rounds = [state[f"{task} {clients} {r}"] for r in range(a.rounds)]
    for name in [SPECDEC] + a.settings:
        mine = [r[name] for r in rounds]
        med = statistics.median
        yield {"task": task, "clients": clients, "setting": name, "tok_s": med(x["tokens"] / x["seconds"] for x in mine),
               "decode_tok_s": med(x["decoded"] / max(x["decode_s"], 1e-9) for x in mine), "first_s": med(x["first_s"] for x in mine),
               **{f"gap_p{p}_ms": med(x[f"gap_p{p}_ms"] for x in mine) for p in (50, 95, 99)},
               "ratio": med(r[SPECDEC]["tokens"] / r[SPECDEC]["seconds"] / (r[name]["tokens"] / r[name]["seconds"]) for r in rounds)}


def verdict(rows):
    """The cell's line: specdec against the fastest setting."""
    mine, best = rows[0], min(rows[1:], key=lambda x: x["ratio"])
    bar = BAR.get((mine["task"], mine["clients"]))
    good = (bar is None or best["ratio"] >= bar) and mine["gap_p95_ms"] <= best["gap_p95_ms"]
    return good, f"{best['ratio']:.2f}x of {best['setting']}" + (f", bar {bar}x" if bar else "") + f"; gaps p95 {mine['gap_p95_ms']:.0f} ms against {best['gap_p95_ms']:.0f} ms"


def report(a, state, cells):
    rows = [list(rows_of(a, state, *cell)) for cell in cells]
    verdicts = [verdict(r) for r in rows]
    if a.json:
        print(json.dumps({"model": pathlib.Path(a.model).name, "rounds": a.rounds, "rows": sum(rows, []), "good": [g for g, _ in verdicts]}))
    else:
        print(f"{pathlib.Path(a.model).name}, {a.threads} threads, {a.rounds} rounds: whole requests, tok/s; specdec's ratio; decoding; first text; gaps between events")
        for cell, (good, line) in zip(rows, verdicts):
            for x in cell:
                decode = f"{x['decode_tok_s']:9.1f}" if x["clients"] == 1 else " " * 9
                print(f"{x['task']:<8}{x['clients']:>3} {x['setting']:<13}{x['tok_s']:9.1f}{x['ratio']:7.2f}x{decode}{x['first_s']:8.2f} s"
                      f"   p50 {x['gap_p50_ms']:.0f}, p95 {x['gap_p95_ms']:.0f}, p99 {x['gap_p99_ms']:.0f} ms")
            print(f"{'ok' if good else 'MISSED':<12} {line}")
    return 0 if all(g for g, _ in verdicts) else 1


def parse():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("specdec")
    p.add_argument("llama_server")
    p.add_argument("model")
    p.add_argument("prompts", nargs="+", help="JSON lines {task, max_tokens, messages}")
    p.add_argument("--task", nargs="+", help="these only")
    p.add_argument("--clients", nargs="+", type=int, default=[1, 4, 16])
    p.add_argument("--settings", nargs="+", choices=SETTINGS, help="of llama-server (all that can be)")
    p.add_argument("--draft", help="draft model of llama-server's setting `draft`")
    p.add_argument("-a", "--adapter", help="a tuned run's folder")
    p.add_argument("--ours", default="", help="further options of specdec serve, in one argument")
    p.add_argument("--limit", type=int, default=4, help="prompts of a task, at least one for each client (4); 0: all")
    p.add_argument("--tokens", type=int, default=128, help="cap of an answer (128); 0: as the prompts say")
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    p.add_argument("--state", default="vs_llama_server.jsonl", help="results so far (vs_llama_server.jsonl)")
    p.add_argument("--json", action="store_true")
    a = p.parse_args()
    a.settings = a.settings or [s for s in SETTINGS if s != "draft" or a.draft]
    if "draft" in a.settings and not a.draft:
        p.error("the setting draft needs --draft DRAFT.gguf")
    if min(a.clients + [a.rounds]) < 1 or min(a.limit, a.tokens) < 0:
        p.error("--clients and --rounds are 1 at least, --limit and --tokens 0")
    for path in filter(None, [a.model, a.draft, a.adapter] + a.prompts):
        if not os.path.exists(path):
            p.error(f"{path} is not there")
    need_program(a.specdec), need_program(a.llama_server)
    return a


def main():
    a = parse()
    by_task = read_prompts(a.prompts, a.task)
    cells = [(task, clients) for task in by_task for clients in a.clients]
    state = State(a.state, {k: getattr(a, k) for k in ("model", "draft", "adapter", "ours", "settings", "limit", "tokens", "threads")})
    left = [(t, c) for t, c in cells if any(f"{t} {c} {r}" not in state for r in range(a.rounds))]
    with tempfile.TemporaryDirectory() as work:
        lora = None
        if a.adapter and left:
            lora = os.path.join(work, "lora.gguf")
            subprocess.run([a.specdec, "export", a.adapter, "-m", a.model, "--to", "gguf-lora", "-o", lora], check=True, stdout=subprocess.DEVNULL)
        if left:
            rates = Rates(a.specdec, a.model, a.threads)
            each = 0.0
            for t, c in left:
                some = sum(groups_of(a, by_task[t], c), [])
                each += rates.seconds(some, c, a.tokens) + len(a.settings) * rates.seconds(some, c, a.tokens, PEER_DECODE, PEER_PREFILL)
            print(f"{len(left)} cells to measure, about {duration(a.rounds * (each + START_S * len(left) * (1 + len(a.settings))))}", file=sys.stderr, flush=True)
        for t, c in left:
            measure_cell(a, state, t, c, by_task[t], lora)
    return report(a, state, cells)


if __name__ == "__main__":
    run(main)
