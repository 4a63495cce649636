#!/usr/bin/env python3
"""A batch whose requests have an adapter each, against the same batch on the base.

    tests/bench/adapters.py SPECDEC MODEL.gguf [--idle] [--adapters 8] [--rank 16] [--tokens 128] [--rounds 10] [--threads N] [--json]

The adapters are made here: every linear map of a block, small values by a seed, in PEFT's form. One server has them all; so many clients ask at once, all of them the base or
each an adapter of its own, in turns, without speculation, and answers have a fixed length. Shown: tokens a second of whole requests and the median of the ratios round by
round. Bar: 0.85; below it the status is 1.

--idle: what adapters cost those who do not ask for them. All clients ask the base in both sides, in turns of a server without adapters and one into which all of them
were loaded while it served. Bar: 0.98.
"""
import argparse
import hashlib
import json
import os
import statistics
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
from peft_files import linear_maps, write_adapter  # noqa: E402
from rates import Rates, duration  # noqa: E402
from script import Failure, run  # noqa: E402
from servers import Server, free_ports, need_program, ours  # noqa: E402

BAR, IDLE_BAR, CTX, KEY = 0.85, 0.98, 512, "the-key-of-an-administrator"
QUESTIONS = ("a lighthouse", "an old train", "the first snow", "a lost letter", "two gardeners", "a market at night", "the last ferry", "a clockmaker")


def measure(a, s, models, r):
    """Tokens a second while every model answers its question at once."""
    prompts = [([{"role": "user", "content": f"Tell a long story about {QUESTIONS[i % len(QUESTIONS)]}, number {r}-{i}."}], a.tokens, {"model": m}) for i, m in enumerate(models)]
    answers, seconds = s.answers(prompts, ignore_eos=True)
    if any(x.tokens != a.tokens for x in answers):
        raise Failure(f"an answer has {min(x.tokens for x in answers)} tokens, not {a.tokens}")
    return a.tokens * len(models) / seconds


def parse():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("specdec"), p.add_argument("model")
    p.add_argument("--idle", action="store_true", help="adapters are loaded, and nobody asks for them")
    p.add_argument("--adapters", type=int, default=8, help="and clients (8)")
    p.add_argument("--rank", type=int, default=16)
    p.add_argument("--tokens", type=int, default=128, help="of an answer (128)")
    p.add_argument("--rounds", type=int, default=10)
    p.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    p.add_argument("--json", action="store_true")
    a = p.parse_args()
    need_program(a.specdec)
    if min(a.adapters, a.rank, a.tokens, a.rounds) < 1:
        p.error("numbers are 1 at least")
    return a


def in_turns(a, sides):
    """Tokens a second round by round; sides: {name: (server, models)}."""
    rounds = []
    for s, models in sides.values():
        measure(a, s, models, -1)
    for r in range(a.rounds):
        order = list(sides) if r % 2 == 0 else list(sides)[::-1]
        rounds.append({name: measure(a, *sides[name], f"{r} {name}") for name in order})
        print(f"\rround {r + 1} of {a.rounds}", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    return rounds


def load(s, name, path):
    r = s.connect("POST", "/v1/load_lora_adapter", {"lora_name": name, "lora_path": path})
    if r.status != 200:
        raise Failure(f"an adapter is not loaded: {r.read()[:300].decode(errors='replace')}")
    r.read()


def compare(a, work):
    """The rounds of {"base", "adapters"}."""
    maps, names, ports = linear_maps(a.specdec, a.model), [f"a{i}" for i in range(a.adapters)], free_ports(2)
    for i, name in enumerate(names):
        write_adapter(os.path.join(work, name), maps, a.rank, i + 1)
    base, options = ["default"] * a.adapters, ["--spec", "off"]
    given = [x for name in names for x in ("-a", f"{name}={os.path.join(work, name)}")]
    if not a.idle:
        with Server("specdec", ours(a.specdec, a.model, a.threads, a.adapters, CTX, *options, *given), ports[0]) as s:
            s.ready()
            return in_turns(a, {"base": (s, base), "adapters": (s, names)})
    command = ours(a.specdec, a.model, a.threads, a.adapters, CTX, *options)
    keys = os.path.join(work, "keys")
    with open(keys, "w", encoding="utf-8") as f:
        f.write(f"ops sha256:{hashlib.sha256(KEY.encode()).hexdigest()} admin\n")
    command += ["--api-key-file", keys]
    with Server("specdec", command, ports[0], key=KEY) as without, Server("specdec", command + ["--adapter-root", work], ports[1], key=KEY) as loaded:
        without.ready(), loaded.ready()
        for name in names:
            load(loaded, name, name)
        return in_turns(a, {"base": (without, base), "adapters": (loaded, base)})


def main():
    a = parse()
    rates, bar = Rates(a.specdec, a.model, a.threads), IDLE_BAR if a.idle else BAR
    asked = [{"messages": [{"content": "Tell a long story about a lighthouse, number 1-1."}], "max_tokens": a.tokens}] * a.adapters
    print(f"about {duration(2.2 * (a.rounds + 1) * rates.seconds(asked, a.adapters, 0) + 10)}", file=sys.stderr, flush=True)
    with tempfile.TemporaryDirectory() as work:
        rounds = compare(a, work)
    ratios = sorted(r["adapters"] / r["base"] for r in rounds)
    out = {name: statistics.median(r[name] for r in rounds) for name in ("base", "adapters")} | {"ratio": statistics.median(ratios), "low": ratios[len(ratios) // 4],
                                                                                                 "high": ratios[-1 - len(ratios) // 4], "bar": bar}
    if a.json:
        print(json.dumps(out))
    else:
        what = f"the base with {a.adapters} adapters loaded" if a.idle else "an adapter each"
        print(f"{os.path.basename(a.model)}, {a.threads} threads, {a.adapters} at once: base {out['base']:.1f} tok/s, {what} {out['adapters']:.1f} tok/s, "
              f"ratio {out['ratio']:.3f} (quartiles {out['low']:.3f} to {out['high']:.3f}; bar {bar}){'' if out['ratio'] >= bar else ': MISSED'}")
    return 0 if out["ratio"] >= bar else 1


if __name__ == "__main__":
    run(main)
