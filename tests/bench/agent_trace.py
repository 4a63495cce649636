#!/usr/bin/env python3
"""An agent's conversation: a long prefix that every turn sends again, and a little that is new. When does the first token come, cold and later?

    tests/bench/agent_trace.py SPECDEC MODEL.gguf [--prefix 20000] [--new 400] [--turns 10] [--server LLAMA_SERVER] [--ours "OPTIONS"] [--peer "OPTIONS"] [--threads N] [--json]

The two traces that are judged: the 1.5B as above, and the 0.5B with --prefix 1132 --new 24. The text is made by a rule: a system text of rules and tools, then files of Python's
standard library as results of a tool, in all --prefix tokens as the model counts them. A turn adds at most --new tokens to the turn before: the answer (a quarter of them)
and the next result. Answers are streamed and greedy, of a fixed length; each server goes on from its own.

Shown for each turn: tokens of the prompt, of them found (cached_tokens) and new, time to the first token, time of the whole. Bars, judged at the end (status 1 when one is
missed): the first token of turns 2 to the last comes within 5 % of the time that the first turn's took. With --server, llama-server with its cache answers the same trace, turn by
turn in turns; then turns 2 to the last, whole, are 2x as fast together, and the whole trace is as much faster as the first turn's prompt is read faster, at least.

Then specdec gets the same turns once more with a first line that changes with each request, as some agents have it (x-anthropic-billing-header: ...): as many tokens must be found.
"""
import argparse
import ast
import contextlib
import hashlib
import json
import os
import statistics
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
from library import functions, sources  # noqa: E402
from rates import Rates, duration  # noqa: E402
from script import Failure, run  # noqa: E402
from servers import Server, free_ports, llama, need_program, ours  # noqa: E402

BAR_FIRST, BAR_TURNS = 0.05, 2.0
OVERHEAD = 16  # tokens at most that a template writes around two messages
PEER_PREFILL = 2.5  # how much slower, for the estimate


WAYS = ("Read a file before you change it", "Say in one sentence what you will do before you call a tool", "Never guess a path; list the folder first", "Keep to the style of the file",
        "Run the tests that belong to what you changed", "Stop and ask when two instructions contradict each other", "Change no more than the task needs",
        "Name the line when you speak of code", "Do not print secrets that a result shows", "Prefer a small edit to a new file")


def rules_and_tools():
    """A system text: rules, then tools with their arguments, whose names and first lines are those of functions of the library."""
    parts = ["You are a careful assistant who works in a repository with tools. These are the rules.\n"]
    parts += [f"{i + 1}. {WAYS[i % len(WAYS)]}{', in ' + name + ' as elsewhere' if i >= len(WAYS) else ''}.\n" for i, (name, _) in zip(range(4 * len(WAYS)), list(sources()) * 4)]
    parts.append("\nThese are the tools, one a line.\n")
    for module, source in sources():
        for name, f, _ in functions(source):
            said = ast.get_docstring(f)
            if said and not name.startswith("_"):
                properties = {x.arg: {"type": "string", "description": f"{x.arg} of {name}"} for x in f.args.args if x.arg != "self"}
                parts.append(json.dumps({"type": "function", "function": {"name": f"{module}.{name}", "description": said.split("\n")[0],
                                                                          "parameters": {"type": "object", "properties": properties}}}) + "\n")
    return "".join(parts).encode("ascii", "ignore").decode()


def library_code():
    text = "".join(f"File {name}.py:\n```python\n{source}\n```\n\n" for name, source in sources())
    return text.encode("ascii", "ignore").decode()


def cut(a, text, tokens):
    """The beginning of so many tokens, as the model counts them."""
    text = text[:tokens * 8]
    p = subprocess.run([a.specdec, "tokenize", "-m", a.model, "--plain", "--pieces", "--json", "-"], input=text, capture_output=True, text=True)
    if p.returncode:
        raise Failure(p.stderr.strip())
    pieces = json.loads(p.stdout)["pieces"]
    out = "".join(pieces[:tokens])
    if len(pieces) < tokens or not text.startswith(out):
        raise Failure(f"{a.model}: a text of {len(text)} characters is not its {len(pieces)} tokens put together; this bench needs a byte-level tokenizer and {tokens} tokens")
    return out


def trace_of(a):
    """(system text, first message, results of the later turns)"""
    code, few = library_code(), a.new - a.answer - OVERHEAD <= 12  # then a result is two words
    system = cut(a, rules_and_tools(), a.prefix * 3 // 10)
    files = cut(a, "The files that the question is about:\n\n" + code, a.prefix - a.prefix * 3 // 10 - OVERHEAD)
    at, results = len(files), []
    for turn in range(1, a.turns):
        results.append(f"{turn}: go on" if few else cut(a, f"Result {turn}:\n" + code[at:], a.new - a.answer - OVERHEAD))
        at += len(results[-1])
    return system, files, results


def billing(turn):
    return f"x-anthropic-billing-header: cc_version=2.1.{turn}; cch={hashlib.sha256(str(turn).encode()).hexdigest()[:5]};\n"


class Conversation:
    """One server's side of the trace."""

    def __init__(self, server, trace, answer, line=False):
        self.server, self.answer_tokens, self.line, self.turns = server, answer, line, []
        self.system, first, self.results = trace
        self.messages = [{"role": "user", "content": first}]

    def turn(self):
        n = len(self.turns)
        system = (billing(n) if self.line else "") + self.system
        x = self.server.answer([{"role": "system", "content": system}] + self.messages, self.answer_tokens, ignore_eos=True)
        before = self.turns[-1]["prompt"] if self.turns else 0
        self.turns.append({"prompt": x.prompt_tokens, "new": x.prompt_tokens - before, "cached": x.cached, "first_s": x.first, "whole_s": x.whole})
        self.messages.append({"role": "assistant", "content": x.text})
        if n < len(self.results):
            self.messages.append({"role": "user", "content": self.results[n]})


def show(c):
    print(f"{c.server.name}\n{'turn':>6}{'prompt':>9}{'found':>9}{'new':>7}{'first token':>13}{'of the first':>14}{'whole':>9}")
    for i, t in enumerate(c.turns):
        print(f"{i + 1:>6}{t['prompt']:>9}{t['cached']:>9}{t['new'] if i else '':>7}{t['first_s']:>11.3f} s{100 * t['first_s'] / c.turns[0]['first_s']:>12.1f} %{t['whole_s']:>7.2f} s")


def judge(a, mine, peer, again):
    """[(what, value, bar, good)]"""
    first = mine.turns[0]["first_s"]
    shares = [t["first_s"] / first for t in mine.turns[1:]]
    out = [(f"first token of turns 2 to {a.turns}, of the first turn's: most {max(shares):.3f}, median {statistics.median(shares):.3f}", max(shares), BAR_FIRST, max(shares) <= BAR_FIRST)]
    most = max(t["new"] for t in mine.turns[1:])
    out.append((f"new tokens of a turn, at most {most}", most, a.new, most <= a.new))
    found = [x["cached"] - y["cached"] for x, y in zip(again.turns[1:], mine.turns[1:])]
    out.append((f"tokens found with a changing first line, against without: least {min(found):+d}", min(found), 0, min(found) >= 0))
    if peer:
        later = [sum(t["whole_s"] for t in c.turns[1:]) for c in (peer, mine)]
        whole = [sum(t["whole_s"] for t in c.turns) for c in (peer, mine)]
        prefill = peer.turns[0]["first_s"] / first
        out.append((f"turns 2 to {a.turns} against llama-server's {later[1]:.1f} s to {later[0]:.1f} s: {later[0] / later[1]:.2f}x", later[0] / later[1], BAR_TURNS,
                    later[0] / later[1] >= BAR_TURNS))
        out.append((f"whole trace {whole[1]:.1f} s to {whole[0]:.1f} s: {whole[0] / whole[1]:.2f}x; the first prompt {prefill:.2f}x", whole[0] / whole[1], prefill,
                    whole[0] / whole[1] >= prefill))
    return out


def estimate(a):
    """A turn at such a depth is taken for three times a prompt's rows there, and twice a short context's step."""
    r = Rates(a.specdec, a.model, a.threads)
    mine = 1.5 * a.prefix / r.prefill + 2 * (a.turns * (3 * a.new / r.prefill + 2 * a.answer * r.step[1]))
    peer = PEER_PREFILL * mine if a.server else 0
    print(f"about {duration(mine + peer + 10)}", file=sys.stderr, flush=True)


def parse():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("specdec")
    p.add_argument("model")
    p.add_argument("--prefix", type=int, default=20000, help="tokens that all turns share (20000)")
    p.add_argument("--new", type=int, default=400, help="tokens that a turn adds, at most (400)")
    p.add_argument("--turns", type=int, default=10)
    p.add_argument("--server", metavar="LLAMA_SERVER", help="the same trace through this llama-server too")
    p.add_argument("--ours", default="", help="further options of specdec serve, in one argument")
    p.add_argument("--peer", default="", help="further options of llama-server, in one argument")
    p.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    p.add_argument("--json", action="store_true")
    a = p.parse_args()
    a.answer = max(4, a.new // 4)
    if a.prefix < 200 or a.new < 24 or a.turns < 2:
        p.error("--prefix is 200 at least, --new 24, --turns 2")
    need_program(a.specdec)
    if a.server:
        need_program(a.server)
    return a


def main():
    a = parse()
    estimate(a)
    trace, ctx = trace_of(a), a.prefix + a.turns * a.new + 64
    ports = free_ports(2)
    with contextlib.ExitStack() as running:
        sides = [running.enter_context(Server("specdec", ours(a.specdec, a.model, a.threads, 1, ctx, *a.ours.split()), ports[0]))]
        if a.server:
            sides.append(running.enter_context(Server("llama-server", llama(a.server, a.model, a.threads, 1, ctx, *a.peer.split()), ports[1])))
        for s in sides:
            s.ready().answer([{"role": "user", "content": "Hello"}], 4)
        talks = [Conversation(s, trace, a.answer) for s in sides]
        for i in range(a.turns):
            for c in talks if i % 2 == 0 else talks[::-1]:
                c.turn()
            print(f"turn {i + 1} of {a.turns}", file=sys.stderr, flush=True)
        again = Conversation(sides[0], trace, a.answer, line=True)
        for _ in range(a.turns):
            again.turn()
    verdicts = judge(a, talks[0], talks[1] if a.server else None, again)
    if a.json:
        print(json.dumps({"model": os.path.basename(a.model), "turns": {c.server.name: c.turns for c in talks}, "with_changing_line": again.turns,
                          "verdicts": [dict(zip(("what", "value", "bar", "good"), v)) for v in verdicts]}))
    else:
        print(f"{os.path.basename(a.model)}, {a.threads} threads, {a.prefix} tokens of prefix, at most {a.new} new a turn, {a.answer} of them the answer's")
        for c in talks:
            show(c)
        for what, _, bar, good in verdicts:
            print(f"{'ok' if good else 'MISSED':<8}{what} (bar {bar:.3g})")
    return 0 if all(v[3] for v in verdicts) else 1


if __name__ == "__main__":
    run(main)
