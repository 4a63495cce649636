#!/usr/bin/env python3
"""Answers under a schema: how many are valid, how much faster speculation makes them, and what masks cost.

    tests/bench/schema.py SPECDEC MODEL.gguf RUN RECORDS.jsonl [-n 64] [--batch 1 8] [--rounds 3] [--bar 2.3] [--threads N] [--json]

RECORDS are the quickstart's held-out ones (recipes/data/test.jsonl, or triage.jsonl of prompts.py), RUN its tuned run. Each record is asked twice under the record's schema,
greedily, plain and with speculation in alternating order; both answers must be the same bytes, valid, and faster with speculation by --bar (decoding: tokens after the first over the
time behind the first piece of text; on AVX-512 and AMX the bar is 2.8).

Then batches of the sizes of --batch decode plainly under the schema, prompts found in the prefix cache, and the server's own counters say which share of the engine's time masks
took: 3 % at most. What the first use of the schema takes longer than the second, its compilation, is reported apart. Status 1 where a bar is missed.
"""
import argparse
import json
import os
import re
import statistics
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
from rates import Rates, duration  # noqa: E402
from script import Failure, read_lines, run  # noqa: E402
from servers import Server, free_ports, need_program, ours  # noqa: E402

FIELDS = ("package", "version", "section", "role", "summary", "homepage")
SCHEMA = {"type": "object", "properties": {**{name: {"type": "string"} for name in FIELDS}, "libraries": {"type": "array", "items": {"type": "string"}}},
          "required": list(FIELDS) + ["libraries"], "additionalProperties": False}
FORMAT = {"response_format": {"type": "json_schema", "json_schema": {"name": "record", "strict": True, "schema": SCHEMA}}}
TOKENS, CTX, MASK_BAR = 300, 2048, 0.03


def plain(on):
    return {**FORMAT, "speculative": {"enabled": not on}}


def valid(text):
    try:
        o = json.loads(text)
    except ValueError:
        return False
    return (isinstance(o, dict) and list(o) == SCHEMA["required"] and all(isinstance(o[k], str) for k in FIELDS)
            and isinstance(o["libraries"], list) and all(isinstance(x, str) for x in o["libraries"]))


def read_prompts(path, n):
    out = []
    for o in read_lines(path):
        messages = o["messages"]
        out.append(messages[:-1] if messages[-1]["role"] == "assistant" else messages)
    if len(out) < n:
        raise Failure(f"{path}: {len(out)} records, {n} are needed")
    return out[:n]


def compare(a, s, prompts):
    sums = {True: [0, 0.0, 0.0], False: [0, 0.0, 0.0]}  # plain or not: decoded tokens, their seconds, seconds of requests
    good = same = ended = 0
    for i, messages in enumerate(prompts):
        answers = {}
        for on in (True, False) if i % 2 == 0 else (False, True):
            # A salt of its own: neither finds the other's prompt.
            x = answers[on] = s.answer(messages, TOKENS, cache_salt=f"{i} {on}", **plain(on))
            sums[on][0] += max(x.tokens - 1, 0)
            sums[on][1] += x.whole - (x.first or x.whole)
            sums[on][2] += x.whole
        same += answers[True].text == answers[False].text
        ended += answers[False].tokens < TOKENS
        good += valid(answers[False].text)
        print(f"\r{i + 1} of {len(prompts)}", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    speed = {on: n / max(d, 1e-9) for on, (n, d, _) in sums.items()}
    return {"answers": len(prompts), "valid": good, "ended": ended, "same": same, "plain_tok_s": speed[True], "spec_tok_s": speed[False],
            "decode": speed[False] / speed[True], "request": sums[True][2] / sums[False][2]}


def counters(s):
    page = s.connect("GET", "/metrics").read().decode()
    return [sum(float(v) for v in re.findall(r"^specdec_%s_seconds_total\{[^}]*\} (\S+)$" % name, page, re.M)) for name in ("constraint", "busy")]


def mask_share(s, prompts, size, rounds):
    """Of the engine's time while so many decode at once, the median of rounds."""
    batch, shares = [(prompts[i % len(prompts)], TOKENS) for i in range(size)], []
    s.answers(batch, **plain(True))  # the prompts are kept from here on
    for _ in range(rounds):
        before = counters(s)
        s.answers(batch, **plain(True))
        masks, busy = (y - x for x, y in zip(before, counters(s)))
        shares.append(masks / busy)
    return statistics.median(shares)


def first_use(s, prompts):
    """What the first request under the schema takes longer to its first token than the second; the model has been asked before."""
    s.answer(prompts[0], 2, cache_salt="warm")
    return [s.answer(prompts[0], 2, cache_salt=f"first {i}", **plain(True)).first for i in range(2)]


def parse():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("specdec"), p.add_argument("model"), p.add_argument("run"), p.add_argument("records")
    p.add_argument("-n", type=int, default=64, help="records (64)")
    p.add_argument("--batch", nargs="+", type=int, default=[1, 8])
    p.add_argument("--rounds", type=int, default=3, help="of each batch")
    p.add_argument("--bar", type=float, default=2.3)
    p.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    p.add_argument("--json", action="store_true")
    a = p.parse_args()
    need_program(a.specdec)
    if min([a.n, a.rounds] + a.batch) < 1:
        p.error("-n, --rounds and --batch are 1 at least")
    return a


def main():
    a = parse()
    prompts = read_prompts(a.records, a.n)
    asked = [{"messages": m, "max_tokens": TOKENS // 2} for m in prompts]
    rates = Rates(a.specdec, a.model, a.threads)
    seconds = 1.7 * rates.seconds(asked, 1, 0) + sum((a.rounds + 1) * rates.seconds(asked[:1] * n, n, 0) for n in a.batch) + 5
    print(f"about {duration(seconds)}", file=sys.stderr, flush=True)
    with Server("specdec", ours(a.specdec, a.model, a.threads, max(a.batch), CTX, "-a", "run=" + a.run), free_ports(1)[0], "run") as s:
        s.ready()
        first, second = first_use(s, prompts)
        out = compare(a, s, prompts)
        out["mask_share"] = {str(n): mask_share(s, prompts, n, a.rounds) for n in a.batch}
    out["first_use_s"] = first - second
    missed = [name for name, good in (("valid", out["valid"] == a.n), ("same bytes", out["same"] == a.n), ("decoding", out["decode"] >= a.bar),
                                      ("masks", max(out["mask_share"].values()) <= MASK_BAR)) if not good]
    if a.json:
        print(json.dumps({**out, "missed": missed}))
    else:
        print(f"{out['valid']} of {a.n} answers valid ({out['ended']} ended by themselves), {out['same']} of {a.n} the same bytes plain and speculative")
        print(f"decoding {out['plain_tok_s']:.1f} tok/s plain, {out['spec_tok_s']:.1f} with speculation: {out['decode']:.2f}x (bar {a.bar}x); whole requests {out['request']:.2f}x")
        print("; ".join(f"masks at batch {n}: {100 * v:.2f} % of the engine's time" for n, v in out["mask_share"].items()) + f" (bar {100 * MASK_BAR:.0f} %)")
        print(f"the schema's first use took {1e3 * out['first_use_s']:.1f} ms longer than the second")
        print("MISSED: " + ", ".join(missed) if missed else "ok")
    return 1 if missed else 0


if __name__ == "__main__":
    run(main)
