#!/usr/bin/env python3
"""Speculation where it could lose: 40 cells of 4 tasks, 1, 2, 4, 8 and 16 clients, and two sets of drafters, each against the better of none and the best fixed length.

    tests/bench/cells.py SPECDEC PROMPTS_DIR --model 1.5B.gguf --draft 0.5B.gguf --triage-model SMOLLM2.gguf --triage-run RUN
                         [--only TASK,CLIENTS,DRAFTER]... [--limit 4] [--tokens 96] [--rounds 3] [--threads N] [--state cells.jsonl] [--json]

PROMPTS_DIR holds what tests/bench/prompts.py makes. edit, summary and chat are answered by --model, triage by --triage-model with the run's adapter. Drafters: `text` is the text so
far and, for triage, the index of the run's completions; `draft` has --draft beside them, for triage --triage-model without its adapter.

A round of a cell is one `bench spec --clients N --trace FILE`: the same answers plain and with automatic speculation, in turns; `bench spec --replay FILE` then judges drafts of 2, 4 and
8 on that trace. A fixed length takes the measured time of the automatic one and what its replay takes longer (less) than the automatic one's replay, so that both are
measured alike. Shown are medians over rounds: tokens a second without drafts, the speed-up of automatic, the speed-ups of fixed ones, and the ratio of automatic to the better
of off and the best fixed one. Its bar is 0.98; below it in any cell the status is 1. Times are of decoding at one client, of whole requests at more.

--state keeps every round; the same command goes on. --only may be given more than once; a part that is left empty means all: --only edit,,draft.
"""
import argparse
import json
import os
import statistics
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
from rates import Rates, duration, run_json  # noqa: E402
from script import Failure, read_lines, run  # noqa: E402
from servers import need_program  # noqa: E402
from state import State  # noqa: E402

TASKS, CLIENTS, DRAFTERS = ("edit", "summary", "chat", "triage"), (1, 2, 4, 8, 16), ("text", "draft")
BAR = 0.98
FIXED = ("2", "4", "8")


def cells_of(only):
    """Every cell that one of the patterns TASK,CLIENTS,DRAFTER names; all without a pattern."""
    everything = [(t, c, d) for t in TASKS for d in DRAFTERS for c in CLIENTS]
    out = []
    for pattern in only:
        parts = pattern.split(",") + ["", ""]
        found = [x for x in everything if all(not want or want == str(is_) for want, is_ in zip(parts, x))]
        if len(parts) > 5 or not found:
            raise Failure(f"--only {pattern}: no such cell; tasks {', '.join(TASKS)}, clients {', '.join(map(str, CLIENTS))}, drafters {', '.join(DRAFTERS)}")
        out += found
    return [x for x in everything if x in out] if only else everything


def models_of(a, task, drafter):
    if task != "triage":
        return ["-m", a.model] + (["-d", a.draft] if drafter == "draft" else [])
    return ["-m", a.triage_model, "-a", a.triage_run] + (["-d", a.triage_model] if drafter == "draft" else [])


def measure(a, cell, folder):
    """One round: seconds of off and automatic, and of fixed lengths by replay."""
    task, clients, drafter = cell
    trace = os.path.join(folder, "trace.jsonl")
    spec = run_json(a.specdec, "bench", "spec", *models_of(a, task, drafter), "--threads", a.threads, "--clients", clients, "--limit", max(a.limit, clients), "-n", a.tokens,
                    "--trace", trace, "--json", prompts_file(a, task))
    replay = run_json(a.specdec, "bench", "spec", "--replay", trace, "--json")
    t = spec["tasks"][0]
    tokens = t["tokens"] - t["answers"]  # timed are those after the first
    off, auto = tokens / t["decode"]["plain_tok_s"], tokens / t["decode"]["spec_tok_s"]
    again = {p["policy"]: p["seconds"] for p in replay["policies"]}
    fixed = {n: auto + again[n] - again["auto"] for n in FIXED}
    return {"models": models_of(a, task, drafter), "tokens": tokens, "off_s": off, "auto_s": auto, "fixed_s": fixed, "replayed_auto_s": again["auto"], "replayed_off_s": again["off"], "tau": t["tau"],
            "acceptance": t["acceptance"], "identical": [t["identical"], t["answers"]], "as_recorded": [replay["as_recorded"], replay["decisions"]]}


def ratio(r):
    return min([r["off_s"]] + list(r["fixed_s"].values())) / r["auto_s"]


def row(cell, rounds):
    med = statistics.median
    return {"task": cell[0], "clients": cell[1], "drafter": cell[2], "off_tok_s": med(r["tokens"] / r["off_s"] for r in rounds), "auto": med(r["off_s"] / r["auto_s"] for r in rounds),
            **{"fixed_" + n: med(r["off_s"] / r["fixed_s"][n] for r in rounds) for n in FIXED}, "ratio": med(map(ratio, rounds)), "worst": min(map(ratio, rounds)),
            "tau": med(r["tau"] for r in rounds), "rounds": len(rounds), "identical": [sum(r["identical"][i] for r in rounds) for i in (0, 1)]}


def report(a, rows):
    low = [r for r in rows if r["ratio"] < BAR]
    if a.json:
        print(json.dumps({"cells": rows, "bar": BAR, "below": len(low)}))
    else:
        print(f"{'task':<8}{'clients':>8} {'drafter':<8}{'off tok/s':>10}{'auto':>8}{'of 2':>8}{'of 4':>8}{'of 8':>8}{'tau':>7}{'ratio':>8}{'worst':>8}  identical")
        for r in rows:
            print(f"{r['task']:<8}{r['clients']:>8} {r['drafter']:<8}{r['off_tok_s']:>10.1f}{r['auto']:>7.2f}x" + "".join(f"{r['fixed_' + n]:>7.2f}x" for n in FIXED)
                  + f"{r['tau']:>7.2f}{r['ratio']:>8.3f}{r['worst']:>8.3f}  {r['identical'][0]} of {r['identical'][1]}{'' if r['ratio'] >= BAR else '  BELOW'}")
        print(f"{len(rows) - len(low)} of {len(rows)} cells at {BAR} or more of the better of off and the best fixed length")
    return 1 if low else 0


def prompts_file(a, task):
    return os.path.join(a.prompts, task + ".jsonl")


def estimate(a, left):
    """Seconds. A draft model reads the prompts too, and answers are gone over once more for the trace."""
    rates, prompts, total = {}, {}, 0.0
    for task, clients, drafter in left:
        model = a.triage_model if task == "triage" else a.model
        if model not in rates:
            rates[model] = Rates(a.specdec, model, a.threads)
        if task not in prompts:
            prompts[task] = read_lines(prompts_file(a, task))
        some = prompts[task][:max(a.limit, clients)]
        plain = rates[model].seconds(some, clients, a.tokens)
        total += plain * (2.6 if drafter == "draft" else 1.8) + 3
    return total


def parse():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("specdec")
    p.add_argument("prompts", help="folder of prompts.py")
    p.add_argument("--model"), p.add_argument("--draft"), p.add_argument("--triage-model"), p.add_argument("--triage-run")
    p.add_argument("--only", action="append", default=[], metavar="TASK,CLIENTS,DRAFTER")
    p.add_argument("--limit", type=int, default=4, help="prompts a round, at least one for each client (4)")
    p.add_argument("--tokens", type=int, default=96, help="cap of an answer (96)")
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    p.add_argument("--state", default="cells.jsonl", help="results so far (cells.jsonl)")
    p.add_argument("--json", action="store_true")
    a = p.parse_args()
    need_program(a.specdec)
    if min(a.limit, a.tokens, a.rounds) < 1:
        p.error("--limit, --tokens and --rounds are 1 at least")
    for task, _, drafter in cells_of(a.only):
        need = ("--triage-model", "--triage-run") if task == "triage" else ("--model", "--draft") if drafter == "draft" else ("--model",)
        for option in need:
            path = getattr(a, option[2:].replace("-", "_"))
            if not path or not os.path.exists(path):
                p.error(f"{task} needs {option}" + (f": {path} is not there" if path else ""))
        if not os.path.exists(prompts_file(a, task)):
            p.error(f"{prompts_file(a, task)} is not there; tests/bench/prompts.py makes it")
    return a


def main():
    a = parse()
    cells = cells_of(a.only)
    state = State(a.state, {k: getattr(a, k) for k in ("prompts", "limit", "tokens", "threads")})

    def key(cell, r):
        return f"{','.join(map(str, cell))} {r}"

    for cell in cells:
        for r in range(a.rounds):
            if key(cell, r) in state and state[key(cell, r)]["models"] != models_of(a, cell[0], cell[2]):
                raise Failure(f"{a.state}: {key(cell, r)} was measured with other models; name another file, or remove this one")
    left = [(r, cell) for r in range(a.rounds) for cell in cells if key(cell, r) not in state]
    if left:
        print(f"{len(left)} rounds of cells to measure, about {duration(estimate(a, [cell for _, cell in left]))}", file=sys.stderr, flush=True)
    for i, (r, cell) in enumerate(left):
        with tempfile.TemporaryDirectory() as folder:
            state.put(key(cell, r), measure(a, cell, folder))
        print(f"{i + 1} of {len(left)}: {key(cell, r)}: {ratio(state[key(cell, r)]):.3f}", file=sys.stderr, flush=True)
    return report(a, [row(cell, [state[key(cell, r)] for r in range(a.rounds)]) for cell in cells])


if __name__ == "__main__":
    run(main)
