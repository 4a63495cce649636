#!/usr/bin/env python3
"""A batch whose requests have an adapter each, against the same batch on the base.

    tests/bench/adapters.py SPECDEC MODEL.gguf [--adapters 8] [--rank 16] [--tokens 128] [--rounds 10] [--threads N] [--json]

The adapters are made here: every linear map of a block, small values by a seed, in PEFT's form. One server has them all; so many clients ask at once, all of them the base or
each an adapter of its own, in turns, without speculation, and answers have a fixed length. Shown: tokens a second of whole requests and the median of the ratios round by
round. Bar: 0.85; below it the status is 1.
"""
import argparse
import json
import os
import random
import statistics
import struct
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
from rates import Rates, duration, run_json  # noqa: E402
from script import Failure, run  # noqa: E402
from servers import Server, free_ports, need_program, ours  # noqa: E402

BAR, CTX = 0.85, 512
MAPS = {"attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj", "ffn_gate": "mlp.gate_proj",
        "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj"}
QUESTIONS = ("a lighthouse", "an old train", "the first snow", "a lost letter", "two gardeners", "a market at night", "the last ferry", "a clockmaker")


def half_floats(rng, count):
    """Random values of 0.002 to 0.03, of both signs, as IEEE halves."""
    data = bytearray(rng.randbytes(2 * count))
    data[1::2] = data[1::2].translate(bytes(0x18 + (b & 0x0f) % 12 | b & 0x80 for b in range(256)))
    return bytes(data)


def linear_maps(specdec, model):
    """{PEFT name: (outputs, inputs)} of the model's blocks."""
    out = {}
    for t in run_json(specdec, "inspect", model, "--tensors", "--json")["tensors"]:
        parts = t["name"].split(".")
        if parts[0] == "blk" and len(parts) == 4 and parts[2] in MAPS and parts[3] == "weight":
            out[f"base_model.model.model.layers.{parts[1]}.{MAPS[parts[2]]}"] = tuple(t["shape"])
    if not out:
        raise Failure(f"{model}: has no linear maps by the names of GGUF files")
    return out


def write_adapter(folder, maps, rank, seed):
    os.makedirs(folder)
    rng, header, parts, at = random.Random(seed), {}, [], 0
    for name, (outputs, inputs) in maps.items():
        for which, shape in (("A", (rank, inputs)), ("B", (outputs, rank))):
            data = half_floats(rng, shape[0] * shape[1])
            header[f"{name}.lora_{which}.weight"] = {"dtype": "F16", "shape": shape, "data_offsets": (at, at + len(data))}
            parts.append(data)
            at += len(data)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(os.path.join(folder, "adapter_model.safetensors"), "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text + b"".join(parts))
    with open(os.path.join(folder, "adapter_config.json"), "w", encoding="utf-8") as f:
        json.dump({"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": rank, "lora_alpha": 2 * rank, "bias": "none",
                   "target_modules": sorted({name.rsplit(".", 1)[1] for name in maps})}, f)


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


def main():
    a = parse()
    rates, rounds = Rates(a.specdec, a.model, a.threads), []
    asked = [{"messages": [{"content": "Tell a long story about a lighthouse, number 1-1."}], "max_tokens": a.tokens}] * a.adapters
    print(f"about {duration(2.2 * (a.rounds + 1) * rates.seconds(asked, a.adapters, 0) + 10)}", file=sys.stderr, flush=True)
    with tempfile.TemporaryDirectory() as work:
        maps, options = linear_maps(a.specdec, a.model), ["--spec", "off"]
        for i in range(a.adapters):
            folder = os.path.join(work, f"a{i}")
            write_adapter(folder, maps, a.rank, i + 1)
            options += ["-a", f"a{i}={folder}"]
        with Server("specdec", ours(a.specdec, a.model, a.threads, a.adapters, CTX, *options), free_ports(1)[0]) as s:
            s.ready()
            sides = {"base": ["default"] * a.adapters, "adapters": [f"a{i}" for i in range(a.adapters)]}
            for models in sides.values():
                measure(a, s, models, -1)
            for r in range(a.rounds):
                order = list(sides) if r % 2 == 0 else list(sides)[::-1]
                rounds.append({name: measure(a, s, sides[name], f"{r} {name}") for name in order})
                print(f"\rround {r + 1} of {a.rounds}", end="", file=sys.stderr, flush=True)
            print(file=sys.stderr)
    ratios = sorted(r["adapters"] / r["base"] for r in rounds)
    out = {name: statistics.median(r[name] for r in rounds) for name in ("base", "adapters")} | {"ratio": statistics.median(ratios), "low": ratios[len(ratios) // 4],
                                                                                                 "high": ratios[-1 - len(ratios) // 4], "bar": BAR}
    if a.json:
        print(json.dumps(out))
    else:
        print(f"{os.path.basename(a.model)}, {a.threads} threads, {a.adapters} at once: base {out['base']:.1f} tok/s, an adapter each {out['adapters']:.1f} tok/s, "
              f"ratio {out['ratio']:.3f} (quartiles {out['low']:.3f} to {out['high']:.3f}; bar {BAR}){'' if out['ratio'] >= BAR else ': MISSED'}")
    return 0 if out["ratio"] >= BAR else 1


if __name__ == "__main__":
    run(main)
