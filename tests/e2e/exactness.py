#!/usr/bin/env python3
"""Exactness on real models: speculation on and off gives the same tokens, N of N.

    exactness.py SPECDEC                                  quick: SmolLM2-135M of $SPECDEC_MODELS, built-in prompts, under a minute
    exactness.py SPECDEC MODEL.gguf --adapter runs/NAME --draft DRAFT.gguf --prompts test.jsonl --limit 200 --tokens 64

Greedy and T = 0.8 with a seed a prompt. Plain answers are made once by one sequence and once each with other threads, prompt chunks and batch; then every drafter
(suffix, corpus index, draft model, all at once) with automatic and forced draft lengths of 1, 3, 8, 48, over batch 1 and 8, threads 1 and 2, the prompt in one
piece and in chunks. Tokens, ends and log probabilities are compared bit by bit, a difference is shown with its prompt, position and both tokens. Whole rows of
logits are compared by memcmp. --shaped does the same under penalties and bans. It fails when anything differs, or a drafter was never right or never wrong.

TAP, with a table as comments. A long run can be cut in parts with --temp and --spec. The work is done by tests/exactness beside the specdec binary. Standard
library only.
"""
import argparse
import json
import os
import subprocess
import sys
import tempfile

# Texts that ask for copying (drafts are right) and for invention (drafts are wrong).
PROMPTS = [
    "Repeat this list.\n\n1. copper kettle\n2. paper lantern\n3. copper spoon\n4. paper boat\n\n1. copper kettle\n2. paper lantern\n",
    "def area(width, height):\n    return width * height\n\n\ndef volume(width, height, depth):\n    return",
    "The harbour was quiet that morning. Nobody had expected",
    '{"name": "libfoo", "version": "1.2", "section": "libs"}\n{"name": "libbar", "version": "1.3", "section": "libs"}\n{"name": "libbaz",',
    "Red, green, blue. Red, green, blue. Red, green,",
    "Monday: soup\nTuesday: soup\nWednesday: fish\nThursday: soup\nFriday:",
    "The capital of France is Paris. The capital of Italy is",
    "if (a > b) {\n    return a;\n} else {\n    return",
    "My grandmother kept a parrot that could",
]


def parse():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("specdec")
    p.add_argument("model", nargs="?", help="GGUF file or Hugging Face folder; default: the quick form")
    p.add_argument("--adapter", help="an adapter, or a run's folder: its corpus index then drafts")
    p.add_argument("--index", help="a corpus index; default: the run's, else one made of half of the plain answers")
    p.add_argument("--draft", help="a draft model; for a tuned target its own base will do")
    p.add_argument("--prompts", help="JSON lines with `messages` (a last assistant turn is dropped) or `prompt`; default: built in")
    p.add_argument("--limit", type=int, default=200, help="prompts (200)")
    p.add_argument("--tokens", type=int, default=64, help="cap of an answer (64)")
    p.add_argument("--rows", type=int, default=8, help="prompts whose rows of logits are compared whole (8)")
    p.add_argument("--seed", type=int, default=7)
    p.add_argument("--shaped", action="store_true", help="under penalties, a bias, bad words from the prompt and a least length")
    p.add_argument("--temp", action="append", help="a temperature; may be repeated (0 and 0.8)")
    p.add_argument("--spec", action="append", choices=["suffix", "index", "draft", "auto"], help="a drafter; may be repeated (all)")
    p.add_argument("--length", action="append", help="a draft length, 0: automatic; may be repeated (0 1 3 8 48)")
    return p.parse_args()


def read_prompts(path, limit):
    """The prompts as the program wants them: one object a line, without the wanted answer."""
    if not path:
        return [{"prompt": text} for text in PROMPTS][:limit]
    out = []
    with open(path) as f:
        for number, line in enumerate(f, 1):
            if len(out) == limit:
                break
            try:
                o = json.loads(line)
            except ValueError as e:
                sys.exit(f"{path}: line {number}: {e}")
            if o.get("messages"):
                messages = o["messages"][:-1] if o["messages"][-1].get("role") == "assistant" else o["messages"]
                out.append({"messages": messages})
            elif o.get("prompt"):
                out.append({"prompt": o["prompt"]})
            else:
                sys.exit(f"{path}: line {number} has neither `messages` nor `prompt`")
    return out


def main():
    a = parse()
    if not a.model:
        folder = os.environ.get("SPECDEC_MODELS", os.path.expanduser("~/.cache/specdec/models"))
        a.model, a.tokens, a.length, a.rows = os.path.join(folder, "SmolLM2-135M-Instruct.Q4_1.gguf"), 20, ["0", "8"], 4
        if not os.path.exists(a.model):
            print(f"ok - exactness # SKIP {a.model} is not there")
            return 0
    program = os.path.join(os.path.dirname(os.path.abspath(a.specdec)), "tests", "exactness")
    if not os.path.exists(program):
        print(f"not ok - exactness: {program} is not built; cmake --build build/release --target exactness")
        return 1
    index = a.index or (a.adapter and os.path.join(a.adapter, "draft", "corpus.idx"))
    if index and not a.index and not os.path.exists(index):
        index = None
    command = [program, "-m", a.model, "-n", str(a.tokens), "--seed", str(a.seed), "--rows", str(a.rows)]
    for name, value in (("--adapter", a.adapter), ("--draft", a.draft), ("--index", index)):
        command += [name, value] if value else []
    command += ["--shaped"] if a.shaped else []
    for name, values in (("--temp", a.temp), ("--spec", a.spec), ("--length", a.length)):
        for value in values or []:
            command += [name, value]
    prompts = read_prompts(a.prompts, a.limit)
    with tempfile.NamedTemporaryFile("w", suffix=".jsonl") as f:
        f.writelines(json.dumps(p) + "\n" for p in prompts)
        f.flush()
        status = subprocess.run(command + [f.name]).returncode
    if status < 0:
        print(f"not ok - exactness: the program was ended by signal {-status}")
    return 1 if status else 0


if __name__ == "__main__":
    sys.exit(main())
