#!/usr/bin/env python3
"""Ten thousand prompts: each is answered by plain decoding and in every other way, and every answer must have the same bits.

    ten_thousand.py SPECDEC                          short: 144 prompts on generated models, under half a minute
    ten_thousand.py SPECDEC --full --state FILE      9,000 on generated models and 1,000 on trained weights; goes on where FILE says that it was ended
    ten_thousand.py SPECDEC --from 4711 --count 1    one prompt again, in the same company (--seed, --model as the difference was shown with)

A prompt is a request as a client may write it, drawn by a rule from the seed and its number: greedy or sampled, truncated, with penalties, biases, bans, a least
length, stops, under a schema, a pattern, a choice, any JSON object or a forced tool call, with one of three adapters or none, several choices, log probabilities,
a conversation's next turn. It is asked alone, in a batch, again when all of it is cached, and with so few pages that prefixes are forgotten and requests give
their slots back, while others leave; drafted for by the text itself, an index, a draft model and the grammar, with forced and chosen lengths. Tokens, texts,
ends and the bits of log probabilities are compared. A run in which one of these did not happen fails. tests/e2e/exact/ holds the rule. TAP, with counts as
comments. Standard library only.
"""
import os
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
from options import parser  # noqa: E402

REAL = (("SmolLM2-135M-Instruct.Q4_1.gguf", 600), ("gemma-3-270m.Q4_K_M.gguf", 204), ("Qwen2.5-Coder-0.5B-Instruct.Q4_K_M.gguf", 204))
SLICE = {False: 900, True: 108}  # prompts of one process; by whether it runs trained weights

options = parser(__doc__, full=True)
options.add_argument("--seed", type=int, default=1)
options.add_argument("--from", dest="first", type=int, default=0, help="the first prompt (0)")
options.add_argument("--count", type=int, help="prompts (144)")
options.add_argument("--model", help="trained weights; default: generated models")
options.add_argument("--isa", help="instruction set; default: the best there is")
options.add_argument("--state", help="with --full: a file that remembers which parts are done")
o = options.parse_args()
FOLDER = os.environ.get("SPECDEC_MODELS", os.path.expanduser("~/.cache/specdec/models"))
PROGRAM = os.path.join(os.path.dirname(os.path.abspath(o.binary)), "tests", "ten_thousand")


def run(model, first, count):
    """True when all was well."""
    same = [x for name, value in (("--model", model), ("--isa", o.isa)) if value for x in (name, value)]
    again = " ".join(["tests/e2e/ten_thousand.py", o.binary, *same])
    command = [PROGRAM, "--seed", str(o.seed), "--from", str(first), "--count", str(count), "--again", again, *same]
    status = subprocess.run(command).returncode
    if status < 0:
        print(f"not ok - ten thousand: prompts {first} to {first + count - 1} of {model or 'generated models'} ended by signal {-status}", flush=True)
    return status == 0


def slices(model, prompts):
    step = SLICE[model is not None]
    for first in range(0, prompts, step):
        yield model, first, min(step, prompts - first)


def run_all():
    done, good = set(), True
    if o.state and os.path.exists(o.state):
        with open(o.state) as f:
            done = set(f.read().splitlines())
    parts = list(slices(None, 9000))
    for name, prompts in REAL:
        path = os.path.join(FOLDER, name)
        if os.path.exists(path):
            parts += slices(path, prompts)
        else:
            print(f"ok - ten thousand: {prompts} prompts on {name} # SKIP it is not in {FOLDER}", flush=True)
    for model, first, count in parts:
        key = f"seed {o.seed}, {model or 'generated'}, {first} to {first + count - 1}"
        if key in done:
            print(f"# {key}: done before", flush=True)
            continue
        print(f"# {key}", flush=True)
        if not run(model, first, count):
            good = False
        elif o.state:
            with open(o.state, "a") as f:
                f.write(key + "\n")
    return good


if not os.path.exists(PROGRAM):
    print(f"not ok - ten thousand: {PROGRAM} is not built; cmake --build build/release --target ten_thousand")
    sys.exit(1)
sys.exit(0 if (run_all() if o.full else run(o.model, o.first, o.count or 144)) else 1)
