#!/usr/bin/env python3
"""From a training run to its answers: what the run's manifest says of sampling, length and system text is what eval judges with, and what the server, generate and chat do for
a user's message alone. Exports carry it along.

    tests/e2e/run_defaults.py build/release/specdec

Prints TAP. Standard library only. Needs tests/make_tiny_model beside the binary (target unit_tests).
"""
import json
import os
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
import tap  # noqa: E402
from program import RECIPE, Program  # noqa: E402
from served import Served  # noqa: E402
from tap import check  # noqa: E402

PROGRAM = Program(__doc__)
BINARY, TINY, run = PROGRAM.binary, PROGRAM.tiny, PROGRAM.run
SYSTEM = 'Count the "items".'
RECIPE %= 128
SAMPLING = {"temperature": 0, "top_p": 1, "top_k": 0, "min_p": 0, "max_tokens": 512}
# Of one line each, but the last.
QUESTIONS = ["how many", "count them", "a\n\nb c"]


def refused(name, done, *words):
    said = [line for line in done.stderr.splitlines() if "listening at" not in line]
    check(name, done.returncode == 2 and len(said) == 1 and all(w in said[0] for w in words) and not done.stdout, done)


def evaluate(*options, suite="bare.jsonl"):
    done = run("eval", "-m", "tiny.gguf", "--suite", suite, "--answers", "answers.jsonl", "--json", *options)
    if done.returncode:
        return {"asked": done.stderr}, []
    return json.loads(done.stdout), [json.loads(line)["answer"] for line in open("answers.jsonl")]


def generate(question, *options, model="tiny.gguf"):
    done = run("generate", "-m", model, "--chat", "--json", *options, "-p", question)
    return json.loads(done.stdout) if done.returncode == 0 else {"text": done.stderr, "prompt_tokens": -1}


def chat(question, *options):
    """What it says, to the byte: its text may hold any line ends."""
    done = subprocess.run([BINARY, "chat", "-m", "tiny.gguf", "-a", "run", *options], input=question.encode(), capture_output=True, timeout=120)
    return done.stdout.decode().removesuffix("\n") if done.returncode == 0 else done.stderr


def trained():
    done = run("train", "r.yaml", "-o", "run")
    check("a run is trained", done.returncode == 0, done)
    want = {"system": SYSTEM, "system_share": 1.0, "sampling": SAMPLING}
    for name in ("run/manifest.json", "run/adapter/specdec.json", "run/adapter.gguf.specdec.json"):
        check(name + " says how it was judged", json.load(open(name))["serve"] == want, open(name).read())


def judged():
    """eval's answers to the questions, which is what all others are held against."""
    result, answers = evaluate("-a", "run")
    asked = result["asked"]
    check("eval takes the run's", asked["sampling"] == SAMPLING and set(asked["from"].values()) == {"run"} and asked["system_filled"] == 3, asked)
    check("records that have the system text get the same answers", evaluate("-a", "run", suite="whole.jsonl")[1] == answers, answers)
    result = evaluate("-a", "run", suite="whole.jsonl")[0]["asked"]
    check("and nothing is put before them", result["system_filled"] == result["system_other"] == 0, result)
    result = evaluate("-a", "run", suite="other.jsonl")[0]["asked"]
    check("another system text stays, and is said", result["system_filled"] == 0 and result["system_other"] == 3, result)
    result, other = evaluate("-a", "run", "--no-run-defaults")
    check("--no-run-defaults goes without", result["asked"]["system_filled"] == 0 and set(result["asked"]["from"].values()) == {"default"} and other != answers, result)
    result = evaluate("-a", "run", "--temp", "0.5", "-n", "9")[0]["asked"]
    check("options go before it", result["sampling"]["temperature"] == 0.5 and result["sampling"]["max_tokens"] == 9 and
          result["from"]["temperature"] == result["from"]["max_tokens"] == "option" and result["from"]["top_p"] == "run", result)
    done = run("eval", "-m", "tiny.gguf", "-a", "run", "--suite", "bare.jsonl")
    check("the table says it too", "asked with temperature 0 (run)" in done.stdout and "put before 3 records" in done.stdout, done)
    result = evaluate()[0]["asked"]
    check("the base has none of it", result["system_filled"] == 0 and set(result["from"].values()) == {"default"}, result)
    return answers


def served(answers):
    server = Served(BINARY, "tiny.gguf", "-a", "run=run")
    bare = lambda q, **more: {"model": "run", "messages": [{"role": "user", "content": q}], **more}
    got, heads = [], set()
    for q in QUESTIONS:
        status, head, body = server.request("POST", "/v1/chat/completions", bare(q))
        got.append(json.loads(body)["choices"][0]["message"]["content"])
        heads.add(head.get("x-specdec-defaults"))
    check("the server answers a user's message alone as eval did", got == answers, (got, answers))
    check("and says what it filled in", heads == {"temperature, max_tokens, system"}, heads)
    head, body = server.request("POST", "/v1/chat/completions", bare(QUESTIONS[0], stream=True))[1:]
    text = "".join(json.loads(line[6:])["choices"][0]["delta"].get("content") or "" for line in body.decode().splitlines() if line.startswith("data: {"))
    check("a stream likewise", text == answers[0] and head.get("x-specdec-defaults") == "temperature, max_tokens, system", (text, head))
    head = server.request("POST", "/v1/chat/completions", bare(QUESTIONS[0], temperature=1.0, max_tokens=4))[1]
    check("what a request says wins, and how it departs is said", head.get("x-specdec-departs") == "temperature=1.0 (0), max_tokens=4 (512)" and
          head.get("x-specdec-defaults") == "system", head)
    head = server.request("POST", "/v1/chat/completions", {**bare(QUESTIONS[0], max_tokens=4), "model": "tiny"})[1]
    check("the base gets nothing", "x-specdec-defaults" not in head and "x-specdec-departs" not in head, head)
    check("it ends with 0", server.stop() == 0)


def command_line(answers):
    got = [generate(q, "-a", "run")["text"] for q in QUESTIONS]
    check("generate --chat answers as eval did", got == answers, (got, answers))
    quoted = lambda q: q + "\n" if "\n" not in q else '"""' + q + '"""\n'
    got = [chat(quoted(q)) for q in QUESTIONS]
    check('chat too, a message of several lines between """', got == answers, (got, answers))
    with_it, without = generate("hi", "-a", "run"), generate("hi", "-a", "run", "--no-run-defaults")
    check("--no-run-defaults has a shorter prompt", 0 < without["prompt_tokens"] < with_it["prompt_tokens"], (with_it, without))
    open("system.txt", "w").write(SYSTEM + "\n")
    for option in (SYSTEM, "@system.txt"):
        given = generate("hi", "-a", "run", "--no-run-defaults", "-n", "512", "--system", option)
        check(f"--system {option} is the same text", (given["text"], given["prompt_tokens"]) == (with_it["text"], with_it["prompt_tokens"]), given)
        check("for chat too", chat(QUESTIONS[0] + "\n", "--no-run-defaults", "-n", "512", "--temp", "0", "--system", option) == answers[0])
    check("another text goes before the trained one", generate("hi", "-a", "run", "--system", "Be long and wide and high and deep.")["prompt_tokens"] !=
          with_it["prompt_tokens"])
    refused("a raw prompt has no system text", run("generate", "-m", "tiny.gguf", "-p", "hi", "--system", "x"), "--chat")
    refused("a file of it that is not there is named", run("chat", "-m", "tiny.gguf", "--system", "@none.txt", text=""), "none.txt")
    raw = lambda *o: run("generate", "-m", "tiny.gguf", "-a", "run", "-p", "hi", "-n", "8", *o).stdout
    check("a raw prompt is continued as it stands", raw() == raw("--no-run-defaults") and raw())


def exported():
    want = generate("hi", "-a", "run")
    for kind, path, beside in (("peft", "peft", "peft/specdec.json"), ("gguf-lora", "lora.gguf", "lora.gguf.specdec.json"), ("gguf", "merged.gguf", "merged.gguf.specdec.json")):
        done = run("export", "run", "--to", kind, "-o", path)
        check(f"export --to {kind} writes {beside}", done.returncode == 0 and json.load(open(beside))["serve"]["system"] == SYSTEM, done)
        got = generate("hi", model="merged.gguf") if kind == "gguf" else generate("hi", "-a", path)
        check("and it is used", got["prompt_tokens"] == want["prompt_tokens"] and (kind == "gguf" or got["text"] == want["text"]), (got, want))
    os.remove("lora.gguf")
    refused("an export does not become another's", run("export", "run", "--to", "gguf-lora", "-o", "lora.gguf"), "lora.gguf.specdec.json: exists already")


def foreign():
    os.remove("peft/specdec.json")
    json.dump({"temperature": 0.5, "top_k": 3, "max_new_tokens": 6, "do_sample": True}, open("peft/generation_config.json", "w"))
    asked = evaluate("-a", "peft")[0]["asked"]
    check("generation_config.json beside an adapter counts", asked["sampling"]["top_k"] == 3 and asked["from"]["max_tokens"] == "adapter" and asked["from"]["min_p"] == "default" and
          asked["system_filled"] == 0, asked)
    done = run("generate", "-m", "tiny.gguf", "-a", "peft", "--chat", "-p", "hi", "--json")
    check("for generate too, which says so", len(json.loads(done.stdout)["tokens"]) <= 6 and "temperature 0.5 (the adapter's generation_config)" in done.stderr, done)
    open("peft/generation_config.json", "w").write("[")
    done = run("generate", "-m", "tiny.gguf", "-a", "peft", "--chat", "-p", "hi", "-n", "2")
    check("one that is no JSON is left out with a warning", done.returncode == 0 and "generation_config.json" in done.stderr and "left out" in done.stderr, done)


def damaged():
    manifest = json.load(open("run/manifest.json"))
    for name, change, words in (("a word for a number", {"sampling": {"temperature": "hot"}}, "temperature is"), ("a huge system text", {"system": "x" * 70000}, "70000 bytes")):
        json.dump({**manifest, "serve": {**manifest["serve"], **change}}, open("run/manifest.json", "w"))
        for verb in (["generate", "--chat", "-p", "hi"], ["chat"], ["eval", "--suite", "bare.jsonl"], ["serve", "--port", "0"]):
            refused(f"{verb[0]}: {name} in a manifest is one sentence", run(verb[0], "-m", "tiny.gguf", "-a", "run", *verb[1:], text=""), "run/manifest.json", words)
        check("and --no-run-defaults goes without", generate("hi", "-a", "run", "--no-run-defaults")["prompt_tokens"] > 0)


def main():
    if not os.path.exists(TINY):
        print("ok - defaults of a run # SKIP %s is not built (target unit_tests)" % TINY)
        return 0
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        os.environ["XDG_CACHE_HOME"] = folder
        subprocess.run([TINY, "tiny.gguf"], check=True)
        turn = lambda role, text: {"role": role, "content": text}
        talk = lambda q, a, system: json.dumps({"messages": ([turn("system", system)] if system else []) + [turn("user", q), turn("assistant", a)]}) + "\n"
        open("r.yaml", "w").write(RECIPE)
        open("talks.jsonl", "w").write("".join(talk(f"q{i}", f"a{i}", SYSTEM) for i in range(12)))
        for name, system in (("bare", None), ("whole", SYSTEM), ("other", "Do nothing.")):
            open(name + ".jsonl", "w").write("".join(talk(q, "many", system) for q in QUESTIONS))
        trained()
        answers = judged()
        served(answers)
        command_line(answers)
        exported()
        foreign()
        damaged()
    return tap.failures > 0


if __name__ == "__main__":
    sys.exit(main())
