#!/usr/bin/env python3
"""Typed questions about one text: what a question takes, and what the rows of a request take against `bench model`'s prefill.

    tests/bench/decisions.py SPECDEC MODEL.gguf [--adapter RUN] [--questions 64] [--state 1000] [--rounds 9] [--threads N] [--json]

One request asks so many yes/no questions about a text of about so many tokens, another text in each round. Cold: the questions are asked for the first time too (another
salt). Warm: the questions stand in the prefix cache, the text does not, as for a classifier that is asked the same of every text. Shown: the medians, a question's part of
the whole request, the rows that a request computed, and their time at the speed of `bench model`'s prefill of as many tokens.
Bars: a question <= 15 ms warm where it adds <= 10 rows, else the request <= 1.2 times its rows' prefill; below them the status is 1.
"""
import argparse
import json
import os
import random
import statistics
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
from rates import run_json  # noqa: E402
from script import Failure, run  # noqa: E402
from servers import Server, free_ports, need_program  # noqa: E402

MS, RATIO, FEW_ROWS, CTX = 15, 1.2, 10, 8192
SUBJECTS = ("urgent", "angry", "about money", "about a defect", "from a company", "a complaint", "a question", "polite")
WORDS = "the payouts have been failing since monday and nobody answers our mails while customers wait for their refunds".split()


def text_of(rng, tokens):
    return " ".join(rng.choice(WORDS) for _ in range(int(tokens / 1.15)))


def questions_of(n):
    return {f"q{i}": {"type": "noul", "instructions": f"Is it {SUBJECTS[i % len(SUBJECTS)]}?"} for i in range(n)}


def ask(s, body):
    begin = time.perf_counter()
    r = s.connect("POST", "/v1/systemone", body)
    data = r.read()
    seconds = time.perf_counter() - begin
    if r.status != 200:
        raise Failure(f"the server answers {r.status}: {data[:300].decode(errors='replace')}")
    return json.loads(data), seconds


def parse():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("specdec"), p.add_argument("model")
    p.add_argument("--adapter", help="a run, or an adapter's folder"), p.add_argument("--questions", type=int, default=64)
    p.add_argument("--state", type=int, default=1000, help="tokens of the text, about (1000)"), p.add_argument("--rounds", type=int, default=9)
    p.add_argument("--threads", type=int, default=os.cpu_count()), p.add_argument("--json", action="store_true")
    a = p.parse_args()
    if not 1 <= a.questions <= 64 or a.rounds < 1 or a.state < 10:
        raise Failure(f"{a.questions} questions, {a.rounds} rounds, {a.state} tokens: give 1 to 64, 1 or more, 10 or more")
    return a


def main():
    a = parse()
    need_program(a.specdec)
    rng, port = random.Random(7), free_ports(1)[0]
    questions, times, usage = questions_of(a.questions), {"cold": [], "warm": []}, {}
    command = [a.specdec, "serve", "-m", a.model, "--ctx", str(CTX), "--threads", str(a.threads)]
    command += ["-a", f"tuned={a.adapter}"] if a.adapter else []
    with Server("specdec", command, port) as s:
        s.ready()
        model = {"model": "tuned"} if a.adapter else {}
        ask(s, {**model, "state": text_of(rng, a.state), "questions": questions, "cache_salt": "warm"})
        for i in range(a.rounds):
            for kind, salt in (("cold", f"cold-{i}"), ("warm", "warm")):
                got, seconds = ask(s, {**model, "state": text_of(rng, a.state), "questions": questions, "cache_salt": salt})
                usage[kind] = got["usage"]
                times[kind].append(seconds)
    tokens = usage["warm"]["input_tokens"]
    b = run_json(a.specdec, "bench", "model", "-m", a.model, "--threads", a.threads, "--prefill", tokens, "--depth", "256", "--rounds", "5", "--no-start", "--json")
    rate = b["prefill_tok_s"][str(tokens)]
    out, good = {"model": a.model, "questions": a.questions, "threads": a.threads, "prefill_tok_s": rate}, False
    for kind, seconds in times.items():
        median, rows = statistics.median(seconds), usage[kind]["input_tokens"] - usage[kind]["cached_tokens"]
        out[kind] = {"ms": median * 1e3, "ms_a_question": median * 1e3 / a.questions, "rows": rows, "of_prefill": median / (rows / rate)}
    added = (usage["warm"]["input_tokens"] - usage["warm"]["cached_tokens"] - a.state) / a.questions
    good = out["warm"]["ms_a_question"] <= MS if added <= FEW_ROWS else out["warm"]["of_prefill"] <= RATIO
    out.update(rows_a_question=added, good=good)
    if a.json:
        print(json.dumps(out))
    else:
        print(f"{a.questions} questions, a text of about {a.state} tokens, prefill at {rate:.0f} tok/s; a question adds about {added:.1f} rows")
        for kind in times:
            o = out[kind]
            print(f"  {kind}: {o['ms']:.0f} ms, {o['ms_a_question']:.2f} ms a question; {o['rows']} rows, {o['of_prefill']:.2f} of their prefill's time")
        print("within the bars" if good else f"NOT within the bars: {MS} ms a question, or {RATIO} of the prefill's time")
    return 0 if good else 1


run(main)
