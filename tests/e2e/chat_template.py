#!/usr/bin/env python3
"""A base model without a chat template: the recipe, the command line or the adapter gives it one, and every verb that renders conversations uses it.

    tests/e2e/chat_template.py build/release/specdec

Prints TAP. Standard library only. Needs tests/make_tiny_model beside the binary (target unit_tests).
"""
import hashlib
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
SHORT = "{% for m in messages %}{{ m['content'] }}<|im_end|>{% endfor %}"
LONG = "{% for m in messages %}<|im_start|>{{ m['role'] }} says {{ m['content'] }}<|im_end|>{% endfor %}{% if add_generation_prompt %}<|im_start|>{% endif %}"
RECIPE %= 64


def prompt_tokens(*options, model="tiny.gguf"):
    """Tokens of the question "hi" as generate --chat renders it."""
    done = run("generate", "-m", model, "--chat", "-p", "hi", "-n", "2", "--json", *options)
    return json.loads(done.stdout)["prompt_tokens"] if done.returncode == 0 else done.stderr


def refused(name, done, *words):
    said = [line for line in done.stderr.splitlines() if "listening at" not in line]
    check(name, done.returncode == 2 and len(said) == 1 and all(w in said[0] for w in words) and not done.stdout, done)


def without_one():
    remedy = "--chat-template FILE"
    refused("generate --chat names the remedy", run("generate", "-m", "tiny.gguf", "--chat", "-p", "hi"), remedy)
    refused("chat too", run("chat", "-m", "tiny.gguf", text="hi\n"), remedy)
    refused("eval too", run("eval", "-m", "tiny.gguf", "--suite", "suite.jsonl"), remedy)
    refused("data prepare too", run("data", "prepare", "talks.jsonl", "-m", "tiny.gguf", "-o", "p.h5"), remedy, "data.chat_template")
    server = Served(BINARY, "tiny.gguf")
    status, _, body = server.request("POST", "/v1/chat/completions", {"messages": [{"role": "user", "content": "hi"}]})
    check("serve answers 400 with it", status == 400 and remedy in body.decode(), body)
    check("and ends with 0", server.stop() == 0)


def on_the_command_line(short, long):
    for verb in (["generate", "--chat", "-p", "hi"], ["chat"], ["eval", "--suite", "suite.jsonl"], ["serve", "--port", "0"]):
        refused(f"{verb[0]}: a template that is not there is refused", run(verb[0], "-m", "tiny.gguf", "--chat-template", "none.jinja", *verb[1:], text=""), "none.jinja")
        refused(f"{verb[0]}: one that is none is refused", run(verb[0], "-m", "tiny.gguf", "--chat-template", "bad.jinja", *verb[1:], text=""), "bad.jinja", "line 2")
    check("generate renders by the one it is given", short and prompt_tokens("--chat-template", "short.jinja") == short and
          prompt_tokens("--chat-template", "long.jinja") == long, (short, long))
    done = run("chat", "-m", "tiny.gguf", "--chat-template", "long.jinja", "-n", "2", text="hi\n/stats\n")
    check("chat too", done.returncode == 0 and f"prompt {long} tokens" in done.stderr, done)
    done = run("eval", "-m", "tiny.gguf", "--chat-template", "long.jinja", "--suite", "suite.jsonl", "--json")
    check("eval too", done.returncode == 0 and json.loads(done.stdout)["records"] == 2, done)
    sums = []
    for name in ("short", "long"):
        done = run("data", "prepare", "talks.jsonl", "-m", "tiny.gguf", "-o", name + ".h5", "--sequence-len", "64", "--chat-template", name + ".jinja")
        check(f"data prepare too ({name})", done.returncode == 0, done)
        manifest = json.load(open(name + ".h5.manifest.json"))
        sums.append((manifest["chat_template_sha256"] == hashlib.sha256(open(name + ".jinja", "rb").read()).hexdigest(), manifest["made_from_sha256"]))
    check("and the prepared files differ and name theirs", all(s[0] for s in sums) and sums[0][1] != sums[1][1], sums)


def train(name):
    done = run("train", "r.yaml", "-o", "run-" + name, "--chat-template", name + ".jinja")
    adapter, manifest = "run-" + name + "/adapter/chat_template.jinja", "run-" + name + "/manifest.json"
    ok = done.returncode == 0 and open(adapter).read() == open(name + ".jinja").read()
    check(f"train writes it beside the adapter ({name})", ok, done)
    want = hashlib.sha256(open(adapter, "rb").read()).hexdigest()
    check("and its hash into the manifest", json.load(open(manifest))["artefacts"]["chat_template"]["sha256"] == want)


def with_a_run(short, long):
    check("generate takes the run's", prompt_tokens("-a", "run-short") == short and prompt_tokens("-a", "run-long") == long)
    check("a GGUF-LoRA file has it too", prompt_tokens("-a", "run-long/adapter.gguf") == long)
    check("the command line's goes before it", prompt_tokens("-a", "run-short", "--chat-template", "long.jinja") == long)
    done = run("export", "run-long", "--to", "merged", "-o", "merged.gguf")
    check("export writes it into a merged model", done.returncode == 0 and prompt_tokens(model="merged.gguf") == long, done)
    done = run("eval", "-m", "tiny.gguf", "-a", "run-long", "--suite", "suite.jsonl", "--json")
    check("eval takes the run's", done.returncode == 0, done)
    ask = lambda s, model: s.request("POST", "/v1/chat/completions", {"model": model, "messages": [{"role": "user", "content": "hi"}], "max_tokens": 2})
    tokens = lambda s, model: json.loads(ask(s, model)[2])["usage"]["prompt_tokens"]
    server = Served(BINARY, "tiny.gguf", "-a", "s=run-short", "-a", "l=run-long")
    check("serve gives each adapter its own", tokens(server, "s") == short and tokens(server, "l") == long)
    check("and the base none", ask(server, "tiny")[0] == 400)
    check("and ends with 0", server.stop() == 0)
    server = Served(BINARY, "tiny.gguf", "-a", "s=run-short", "--chat-template", "long.jinja")
    check("serve: the command line's is for all", tokens(server, "s") == long and tokens(server, "tiny") == long)
    check("and it ends with 0", server.stop() == 0)
    open("run-short/adapter/chat_template.jinja", "w").write(LONG)
    refused("one that changed after training is refused", run("generate", "-m", "tiny.gguf", "-a", "run-short", "--chat", "-p", "hi"), "changed after")


def main():
    if not os.path.exists(TINY):
        print("ok - chat templates # SKIP %s is not built (target unit_tests)" % TINY)
        return 0
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        os.environ["XDG_CACHE_HOME"] = folder
        subprocess.run([TINY, "tiny.gguf", "no-template"], check=True)
        for name, text in (("short.jinja", SHORT), ("long.jinja", LONG), ("bad.jinja", "{{ messages }}\n{% for %}"), ("r.yaml", RECIPE)):
            open(name, "w").write(text)
        talk = lambda i: {"messages": [{"role": "user", "content": f"q{i}"}, {"role": "assistant", "content": f"a{i}"}]}
        open("talks.jsonl", "w").write("".join(json.dumps(talk(i)) + "\n" for i in range(12)))
        open("suite.jsonl", "w").write("".join(json.dumps(talk(i)) + "\n" for i in range(2)))
        length = lambda text: len(json.loads(run("tokenize", "-m", "tiny.gguf", "--json", text).stdout)["ids"])
        short, long = length("hi<|im_end|>"), length("<|im_start|>user says hi<|im_end|><|im_start|>")
        check("the two templates can be told apart by a prompt's tokens", short < long, (short, long))
        without_one()
        on_the_command_line(short, long)
        train("short")
        train("long")
        with_a_run(short, long)
    return tap.failures > 0


if __name__ == "__main__":
    sys.exit(main())
