#!/usr/bin/env python3
"""The files of a running server are cut and written over under load: every 200 has the right bytes, no signal ends it.

    tests/torture/changing_files.py build/release/specdec [--full]

Prints TAP. Needs tests/make_tiny_model and specdec-tuning beside the binary. --full attacks for a minute each.
"""
import json
import os
import shutil
import sys
import threading

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "e2e", "lib"))
from files_lib import *  # noqa: E402
from served import Served  # noqa: E402

dir = tempfile.mkdtemp(prefix="specdec-files-")
model, run = os.path.join(dir, "tiny.gguf"), os.path.join(dir, "run")
SECONDS = 60 if FULL else 0.8

RECIPE = """recipe: 1
name: run
base: {model: tiny.gguf, compute_dtype: fp32}
adapter: {r: 4, alpha: 8}
data: {train: [{path: data.jsonl, format: completion}], sequence_len: 128}
train: {epochs: 1, batch_tokens: 512, learning_rate: 1e-2}
export_verify: {prompts: 1}
"""


def prepare():
    subprocess.run([TINY, model], check=True)
    with open(os.path.join(dir, "data.jsonl"), "w") as f:
        for i in range(24):
            f.write(json.dumps({"prompt": f"record {i} is ", "completion": f"{i * 7919 % 1000}, said {i % 5} times over and over"}) + "\n")
    with open(os.path.join(dir, "r.yaml"), "w") as f:
        f.write(RECIPE)
    p = subprocess.run([BINARY, "train", "r.yaml", "-o", "run"], cwd=dir, capture_output=True, text=True)
    if p.returncode != 0:
        raise RuntimeError(p.stdout + p.stderr)
    for path in (model, run):
        shutil.copytree(path, path + ".kept") if os.path.isdir(path) else shutil.copy2(path, path + ".kept")


def restore():
    shutil.copy2(model + ".kept", model)
    shutil.rmtree(run)
    shutil.copytree(run + ".kept", run)


class Server(Served):
    def __init__(self, *more):
        super().__init__(BINARY, model, "-a", f"tuned={run}", "--threads", "2", "--ctx", "256", *more)

    def ask(self, body):
        status, _, data = self.request("POST", "/v1/completions", body, timeout=60)
        return status, [x.get("text") for x in json.loads(data)["choices"]] if status == 200 else data

    def health(self):
        return self.request("GET", "/health", timeout=60)[0]


BODIES = [{"model": m, "prompt": [1 + i, 30, 7 * i + 2], "max_tokens": 24, "temperature": t, "seed": i, "ignore_eos": True}
          for i in range(6) for m, t in (("tuned", 0), ("tuned", 1), ("tiny", 1))]


def attack(name, harm, works_on):
    """harm(n) is called again and again while four clients ask. works_on: 200 must go on; else errors are right too."""
    restore()
    s = Server()
    want = {json.dumps(b): s.ask(b) for b in BODIES}
    if any(v[0] != 200 for v in want.values()):
        check(name, False, want)
        return
    wrong, count, stop = [], {}, threading.Event()

    def client(k):
        i = k
        while not stop.is_set():
            body = BODIES[i % len(BODIES)]
            i += 1
            try:
                status, got = s.ask(body)
            except Exception as e:
                wrong.append(f"no answer: {e}")
                return
            count[status] = count.get(status, 0) + 1
            if status == 200 and got != want[json.dumps(body)][1] or status not in (200, 500) or (works_on and status != 200):
                wrong.append(f"{status}: {got}")
    threads = [threading.Thread(target=client, args=(k,)) for k in range(4)]
    for t in threads:
        t.start()
    begin, n = time.time(), 0
    while time.time() - begin < SECONDS:
        time.sleep(SECONDS / 8)
        harm(n)
        n += 1
    stop.set()
    for t in threads:
        t.join()
    health = s.health() if s.process.poll() is None else "none"
    code = s.stop()
    good = not wrong and code == 0 and count.get(200, 0) > 0 and (health == 200 if works_on else health == 503 or 500 not in count)
    check(f"{name}: {count.get(200, 0)} right answers, {count.get(500, 0)} errors, /health {health}", good,
          f"exit {code}, {count}, {wrong[:3]}\n{chr(10).join(s.lines[-4:])}")


def cut(path):
    return lambda n: os.truncate(path, max(0, os.path.getsize(path) // 2 if n == 0 else 0))


def scribble(path, lone=False):
    def harm(n):
        size = os.path.getsize(path)
        with open(path, "r+b") as f:
            for _ in range(1 if lone else 64):
                f.seek(random.randrange(size))
                f.write(random.randbytes(1 if lone else min(4096, size)))
    return harm


def swap(path):
    def harm(n):
        with open(path + ".new", "wb") as f:
            f.write(random.randbytes(5000))
        os.replace(path + ".new", path)
    return harm


def weights_of(folder):
    return os.path.join(folder, "adapter", "adapter_model.safetensors")


if not os.access(TINY, os.X_OK):
    skip("changing files", f"{TINY} is not built (target unit_tests)")
    end()
try:
    prepare()
    index = os.path.join(run, "draft", "corpus.idx")
    if not os.path.exists(index):
        raise RuntimeError("the run has no corpus index")
    for what, path, works_on in (("the model", model, False), ("the corpus index", index, True), ("the adapter", weights_of(run), True)):
        attack(f"{what} is cut", cut(path), works_on)
        attack(f"{what} is written over", scribble(path), works_on)
        attack(f"{what} is replaced by a rename", swap(path), True)
    attack("a byte of the model here and there", scribble(model, True), False)

    # Training reads the frozen weights all the time: it stops, its checkpoints stand, and it goes on to the same adapter.
    def train(name):
        return subprocess.Popen([BINARY, "train", "long.yaml", "-o", name], cwd=dir, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def adapter(name):
        return open(weights_of(os.path.join(dir, name)), "rb").read()

    def steps(name):
        folder = os.path.join(dir, name, "checkpoints")
        return [x for x in os.listdir(folder) if x.startswith("step-")] if os.path.isdir(folder) else []

    restore()
    with open(os.path.join(dir, "long.yaml"), "w") as f:
        f.write(RECIPE.replace("epochs: 1", "epochs: 12") + "checkpoint: {every: 4, keep: 3}\n")
    said = train("whole").communicate()[0]
    for how, harm, stops in (("written over", scribble(model), True), ("cut", cut(model), True), ("made read-only", lambda n: os.chmod(model, 0o444), False)):
        restore()
        name = how.split()[0]
        p = train(name)
        while p.poll() is None and not steps(name):
            time.sleep(0.005)
        harm(0)
        said = p.communicate(timeout=120)[0]
        code, again = p.returncode, ""
        stand = steps(name)
        restore()
        if code != 0:
            p = train(name)
            again = p.communicate(timeout=120)[0]
        good = adapter(name) == adapter("whole") and (code == 1 and stand and "tiny.gguf" in said if stops else code == 0)
        check(f"the base is {how} while it is trained on: {'a sentence, and resumed to the same adapter' if stops else 'nothing happens'}", good,
              f"exit {code}\n{said[-600:]}\n{again[-300:]}")

    # At the start: whatever the moment, no signal and no answer of a torn adapter.
    bad = []
    for i in range(40 if FULL else 4):
        restore()
        p = subprocess.Popen([BINARY, "generate", "-m", model, "-a", run, "-p", "record 1 is ", "-n", "8", "--threads", "1"], stdout=subprocess.PIPE,
                             stderr=subprocess.PIPE, text=True)
        time.sleep(0.004 * i)
        os.truncate(weights_of(run) if i % 2 else model, 5000)
        out, said = p.communicate(timeout=60)
        if p.returncode not in (0, 1, 2):
            bad.append(f"{p.returncode}: {said}")
    check("a file that is cut at any moment of a start ends no process by a signal", not bad, bad)
finally:
    shutil.rmtree(dir, ignore_errors=True)
end()
