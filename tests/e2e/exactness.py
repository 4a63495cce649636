#!/usr/bin/env python3
"""Exactness on real models: speculation on and off gives the same tokens, N of N.

    tests/e2e/exactness.py build/release/specdec [MODEL.gguf] [--draft DRAFT.gguf] [--index CORPUS]
                           [--adapter A] [--prompts FILE.jsonl] [--limit N] [--tokens N] [--quick]

Without a model: SmolLM2-135M of $SPECDEC_MODELS, 24 tokens, the quick lengths; a printed skip when
it is not there. Prints TAP, and a table as comments.

Runs `specdec bench spec` (every prompt plain and speculative) for greedy and T = 0.8, for every
drafter that was given, for automatic and forced draft lengths, and once more with other threads and
prompt chunks: the plain answers' digest must not depend on those. Prints accepted and rejected
drafts and N of N; ends with 1 when anything differs, or when a drafter was never right or never
wrong over all its runs (then nothing was proven). Standard library only.
"""
import argparse
import json
import os
import subprocess
import sys
import tempfile

# Texts that ask for copying (drafts are right) and for invention (drafts are wrong).
PROMPTS = [
    "Repeat this list twice, then add three items.\n\n1. copper kettle\n2. paper lantern\n3. copper "
    "spoon\n4. paper boat\n5. tin soldier\n\n1. copper kettle\n2. paper lantern\n",
    "def area(width, height):\n    return width * height\n\n\ndef volume(width, height, depth):\n"
    "    return width * height * depth\n\n\ndef surface(width, height, depth):\n    return",
    "The harbour was quiet that morning. Nobody had expected",
    '{"name": "libfoo", "version": "1.2", "section": "libs"}\n{"name": "libbar", "version": "1.3", '
    '"section": "libs"}\n{"name": "libbaz", "version":',
]


def bench(args, prompts, temperature, spec, length, threads, chunk, draft):
    command = [args.specdec, "bench", "spec", "-m", args.model, prompts, "--json",
               "--temp", str(temperature), "--seed", "7", "--spec", spec,
               "--spec-length", str(length), "--threads", str(threads),
               "--prefill-chunk", str(chunk), "-n", str(args.tokens)]
    if args.limit:
        command += ["--limit", str(args.limit)]
    if draft:
        command += ["-d", draft]
    if args.adapter:
        command += ["-a", args.adapter]
    run = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if not run.stdout.strip():
        sys.exit(f"{' '.join(command)}\n{run.stderr}")
    return json.loads(run.stdout)


def main():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("specdec")
    p.add_argument("model", nargs="?")
    p.add_argument("--adapter", help="an adapter or a run's folder")
    p.add_argument("--draft", help="a draft model")
    p.add_argument("--index", help="a corpus index or a run's draft/ folder")
    p.add_argument("--prompts", help="JSON lines with `messages` or `prompt`; default: built in")
    p.add_argument("--limit", type=int, default=0, help="prompts of each task")
    p.add_argument("--tokens", type=int, default=64)
    p.add_argument("--quick", action="store_true", help="two draft lengths only")
    args = p.parse_args()
    if not args.model:
        folder = os.environ.get("SPECDEC_MODELS", os.path.expanduser("~/.cache/specdec/models"))
        args.model = os.path.join(folder, "SmolLM2-135M-Instruct.Q4_1.gguf")
        args.quick, args.tokens = True, 24
        if not os.path.exists(args.model):
            print(f"ok - exactness # SKIP {args.model} is not there")
            return 0

    made = None
    prompts = args.prompts
    if not prompts:
        made = tempfile.NamedTemporaryFile("w", suffix=".jsonl", delete=False)
        for text in PROMPTS:
            made.write(json.dumps({"task": "built-in", "prompt": text, "max_tokens": 512}) + "\n")
        made.close()
        prompts = made.name

    drafters = [("suffix", None)]
    if args.index:
        drafters.append(("index", args.index))
    else:
        print("# not run: index (give --index)")
    if args.draft:
        drafters.append(("draft", args.draft))
    else:
        print("# not run: draft (give --draft)")
    drafters.append(("auto", args.draft or args.index))
    lengths = [0, 4] if args.quick else [0, 1, 3, 8, 48]

    failed = False
    answers = same = 0
    print(f"# {'temp':>4} {'spec':8} {'length':>6} {'accepted':>9} {'rejected':>9}  identical")
    for temperature in (0, 0.8):
        digests = set()
        for spec, draft in drafters:
            accepted = rejected = 0
            for i, length in enumerate(lengths):
                threads, chunk = ((1, 256), (2, 33))[i % 2]
                r = bench(args, prompts, temperature, spec, length, threads, chunk, draft)
                digests.add(r["plain_tokens_sha256"])
                a = sum(t["speculation"]["accepted"] for t in r["tasks"])
                d = sum(t["speculation"]["drafted"] for t in r["tasks"])
                accepted, rejected = accepted + a, rejected + d - a
                answers, same = answers + r["answers"], same + r["identical"]
                print(f"# {temperature:4} {spec:8} {length or 'auto':>6} {a:9} {d - a:9}  "
                      f"{r['identical']} of {r['answers']}", flush=True)
                failed |= r["identical"] != r["answers"]
            if accepted == 0 or rejected == 0:
                print(f"# {spec} at temperature {temperature}: {accepted} accepted and "
                      f"{rejected} rejected prove nothing")
                failed = True
        if len(digests) != 1:
            print(f"# plain answers at temperature {temperature} differ with threads or chunks")
            failed = True
    print(f"{'not ok' if failed else 'ok'} - exactness: {same} of {answers} answers identical")
    if made:
        os.unlink(made.name)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
