#!/usr/bin/env python3
"""The prompts of the benches, by a rule: four tasks of 20, one file each, in the form that `specdec bench spec` reads.

    tests/bench/prompts.py OUT_DIR [--records recipes/data/test.jsonl] [--not-in FILE]...

    edit      a function of 25 to 70 lines of Python's standard library and one instruction; the answer is the complete code
    summary   the documentation of a module of the same library, to be told in five bullet points
    chat      everyday questions
    triage    held-out records of the quickstart's data, with the wanted answer; without the file the records are made from this machine's package index

Nothing is drawn at random: candidates stand in the order of the SHA-256 of their names, at most one of a module, and the first 20 are taken. One version of Python and one
file of records give the same bytes; their SHA-256 are printed. --not-in names prompts that must not be among these (JSON lines with `messages`): one that is ends it with an error.
"""
import argparse
import ast
import hashlib
import json
import os
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "lib"))
from library import functions, sources  # noqa: E402
from script import Failure, read_lines, run  # noqa: E402

ROOT = os.path.join(HERE, "..", "..")
COUNT, SEED = 20, "held-out 1"
LINES, CODE_CHARS, DOC_CHARS = (25, 70), 2400, (700, 2800)

INSTRUCTIONS = ("Add type hints for all parameters and for the return value.",
                "Put a short comment above every `return` that says what is returned.",
                "Write one line with logging.info at the beginning of the function.",
                "Raise a TypeError with a clear message when the first parameter that is not `self` is None.",
                "Add a comment above every loop that says what it goes through.")

QUESTIONS = ("What should I look at before I buy a used car?",
             "Explain to a ten-year-old why the sky is blue.",
             "How do I ask my landlord to repair the heating without sounding rude?",
             "Suggest a simple dinner for four with potatoes, leeks and eggs.",
             "What is the difference between a virus and a bacterium?",
             "I sleep badly before exams. What could help?",
             "Write a short birthday message for a colleague who likes hiking.",
             "How does compound interest work? Give a small example.",
             "Which houseplants survive with little light and little water?",
             "What happens in a country's parliament when no party has a majority?",
             "Give me three ideas for a rainy Sunday with two small children.",
             "How do noise-cancelling headphones work?",
             "Should I learn Spanish or Italian first? I travel to both countries.",
             "Why do leaves change their colour in autumn?",
             "Explain what a mortgage is and what its main kinds are.",
             "How can I remove a coffee stain from a wool carpet?",
             "Write a polite e-mail that declines a meeting and proposes another day.",
             "What are the rules of chess that beginners forget most often?",
             "How much water does a person need a day, and does coffee count?",
             "What would change if a day had thirty hours?")


def number(text):
    return hashlib.sha256(f"{SEED} {text}".encode()).hexdigest()


def long_functions(source):
    for name, _, code in functions(source):
        if LINES[0] <= code.count("\n") + 1 <= LINES[1] and len(code) <= CODE_CHARS:
            yield name, code


def one(task, max_tokens, messages, **more):
    return {"task": task, "max_tokens": max_tokens, "messages": messages, **more}


def ask(text):
    return [{"role": "user", "content": text}]


def first_of_each(candidates):
    """The first COUNT by number, at most one of a module: candidates are (module, name, text)."""
    taken = {}
    for module, name, text in sorted(candidates, key=lambda c: number(c[1])):
        taken.setdefault(module, text)
    if len(taken) < COUNT:
        raise Failure(f"this Python's library has {len(taken)} modules with such a text, {COUNT} are needed")
    return list(taken.values())[:COUNT]


def edits():
    code = first_of_each((m, f"{m}.{name}", text) for m, source in sources() for name, text in long_functions(source))
    for i, text in enumerate(code):
        question = f"{INSTRUCTIONS[i % len(INSTRUCTIONS)]} Leave everything else as it is. Answer with the complete code only.\n\n```python\n{text}\n```"
        yield one("edit", 96 + len(text) // 3, ask(question))  # a token is 3 characters of code or more


def summaries():
    docs = ((m, m, ast.get_docstring(ast.parse(source)) or "") for m, source in sources())
    for text in first_of_each(d for d in docs if DOC_CHARS[0] <= len(d[2]) <= DOC_CHARS[1]):
        yield one("summary", 160, ask(f"Tell what matters in this documentation in five bullet points.\n\n{text}"))


def chats():
    return (one("chat", 160, ask(q)) for q in QUESTIONS)


def records(path):
    if os.path.exists(path):
        return read_lines(path)
    with tempfile.TemporaryDirectory() as folder:
        index = subprocess.Popen(["apt-cache", "dumpavail"], stdout=subprocess.PIPE)
        made = subprocess.run([sys.executable, os.path.join(ROOT, "recipes", "triage_data.py"), folder], stdin=index.stdout)
        if index.wait() or made.returncode:
            raise Failure(f"{path} is not there, and this machine's package index gives no records")
        return records(os.path.join(folder, "test.jsonl"))


def triage(path):
    found = sorted(records(path), key=lambda r: number(r["messages"][1]["content"]))
    if len(found) < COUNT:
        raise Failure(f"{path}: {len(found)} records, {COUNT} are needed")
    for r in found[:COUNT]:
        *question, answer = r["messages"]
        yield one("triage", 300, question, want=json.loads(answer["content"]))


def last_words(o):
    return o["messages"][-1]["content"]


def body(text):
    """What a prompt is about: its code or text without the instruction in front of it."""
    return text.split("\n\n", 1)[-1].strip()


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    p.add_argument("out_dir")
    p.add_argument("--records", default=os.path.join(ROOT, "recipes", "data", "test.jsonl"))
    p.add_argument("--not-in", action="append", default=[], metavar="FILE")
    a = p.parse_args()
    others = set()
    for path in a.not_in:
        others |= {body(last_words(o)) for o in read_lines(path)}
    os.makedirs(a.out_dir, exist_ok=True)
    for task, made in (("edit", edits()), ("summary", summaries()), ("chat", chats()), ("triage", triage(a.records))):
        made = list(made)
        for o in made:
            if body(last_words(o)) in others:
                raise Failure(f"{task}: a prompt stands in another set: {last_words(o)[:80]!r}")
        data = "".join(json.dumps(o, ensure_ascii=False) + "\n" for o in made).encode()
        path = os.path.join(a.out_dir, task + ".jsonl")
        with open(path + ".tmp", "wb") as f:
            f.write(data)
        os.replace(path + ".tmp", path)
        print(f"{hashlib.sha256(data).hexdigest()}  {path}: {len(made)} prompts, {sum(len(last_words(x)) for x in made)} characters", flush=True)


if __name__ == "__main__":
    run(main)
