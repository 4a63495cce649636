#!/usr/bin/env python3
"""Does a tuned pair answer as it was judged? eval's answers to N records against what the same run says to nothing but their user messages: through the server, chat and
generate, with and without --no-run-defaults.

    tests/bench/judged.py build/release/specdec --model BASE --run runs/my --suite test.jsonl [-n 30]

Exits 1 when a bare request's answer is not eval's, byte for byte.
"""
import json
import os
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "e2e", "lib"))
from options import parser  # noqa: E402
from served import Served  # noqa: E402

p = parser(__doc__)
p.add_argument("--model", required=True)
p.add_argument("--run", required=True)
p.add_argument("--suite", required=True)
p.add_argument("-n", type=int, default=30)
ARGS = p.parse_args()
RECORDS = [json.loads(line) for line in open(ARGS.suite)][: ARGS.n]
USER = [next(m["content"] for m in r["messages"] if m["role"] == "user") for r in RECORDS]
WANT = [json.loads(r["messages"][-1]["content"]) for r in RECORDS]


def call(*argv, text=None):
    done = subprocess.run([ARGS.binary, *argv], input=text, capture_output=True, text=True)
    if done.returncode:
        sys.exit("%s: %s" % (" ".join(argv), done.stderr))
    return done.stdout


def evaluated(folder):
    out = os.path.join(folder, "answers.jsonl")
    call("eval", "-m", ARGS.model, "-a", ARGS.run, "--suite", ARGS.suite, "--limit", str(ARGS.n), "--answers", out, "--json")
    return [json.loads(line)["answer"] for line in open(out)]


def served(*options):
    server = Served(ARGS.binary, ARGS.model, "-a", "run=" + ARGS.run, *options)
    answers, heads = [], set()
    for text in USER:
        status, head, body = server.request("POST", "/v1/chat/completions", {"model": "run", "messages": [{"role": "user", "content": text}]})
        if status != 200:
            sys.exit(body.decode())
        heads.add(head.get("x-specdec-defaults"))
        answers.append(json.loads(body)["choices"][0]["message"]["content"])
    if server.stop() != 0:
        sys.exit("the server did not end well")
    return answers, heads


def generated(*options):
    argv = ["generate", "-m", ARGS.model, "-a", ARGS.run, "--chat", "--json", *options, "-p"]
    return [json.loads(call(*argv, text))["text"] for text in USER]


def chatted(*options):
    """A conversation a record."""
    argv = ["chat", "-m", ARGS.model, "-a", ARGS.run, *options]
    return [call(*argv, text='"""%s"""\n' % text).removesuffix("\n") for text in USER]


def right(answer, want):
    try:
        got = json.loads(answer)
    except ValueError:
        return False
    return got == want


def report(name, answers, judged=None):
    same = "" if judged is None else "%8d of %d equal to eval's" % (sum(a == b for a, b in zip(answers, judged)), ARGS.n)
    print("%-34s %3d of %d right%s" % (name, sum(map(right, answers, WANT)), ARGS.n, same), flush=True)


def main():
    with tempfile.TemporaryDirectory() as folder:
        judged = evaluated(folder)
    report("eval", judged)
    bare, heads = served()
    report("serve, a user message alone", bare, judged)
    print("    X-Specdec-Defaults:", heads)
    report("serve --no-run-defaults", served("--no-run-defaults")[0], judged)
    made = generated()
    report("generate --chat", made, judged)
    report("generate --chat --no-run-defaults", generated("--no-run-defaults"), judged)
    said = chatted()
    report("chat", said, judged)
    report("chat --no-run-defaults", chatted("--no-run-defaults", "-n", "512"), judged)
    return bare != judged or made != judged or said != judged


if __name__ == "__main__":
    sys.exit(main())
