#!/usr/bin/env python3
"""Adapters are swapped under load: no request fails, and no answer is of two generations.

    tests/e2e/adapter_swaps.py build/release/specdec                       400 requests to a generated model
    tests/e2e/adapter_swaps.py build/release/specdec --full                10,000 requests
    tests/e2e/adapter_swaps.py build/release/specdec --model FILE.gguf     trained weights

Eight clients ask one name, half of them streaming and some by an alias, while another loads one of four adapters under that name, again and again. Each answer, with the bits of
its log probabilities, must be the one that the adapter of the generation in its header X-Specdec-Adapter-Generation gave alone. How long the engine's steps waited for a swap is
shown. Prints TAP. Standard library only. Needs tests/make_tiny_model beside the binary (target unit_tests).
"""
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [os.path.join(HERE, "lib"), os.path.join(HERE, "..", "bench", "lib")]
import tap  # noqa: E402
from options import parser  # noqa: E402
from peft_files import linear_maps, write_adapter  # noqa: E402
from served import Served  # noqa: E402
from tap import check  # noqa: E402

options = parser(__doc__, full=True)
options.add_argument("--requests", type=int)
options.add_argument("--clients", type=int, default=8)
options.add_argument("--model")
o = options.parse_args()
REQUESTS = o.requests or (10000 if o.full else 400)
ADAPTERS, PROMPTS, TOKENS = 4, 6, 12
KEY, HEADER = "the-key-of-an-administrator", "x-specdec-adapter-generation"


def said_in(stream, data):
    """The tokens' texts and log probabilities."""
    whole = [json.loads(block[6:]) for block in data.decode().split("\n\n") if block.startswith("data: {")] if stream else [json.loads(data)]
    out = []
    for part in whole:
        for c in part.get("choices", []):
            kept = c.get("logprobs") or {}
            out += list(zip(kept.get("tokens", []), kept.get("token_logprobs", [])))
    return out


def ask(s, model, prompt, stream=False):
    """Status, generation, what was said."""
    body = {"model": model, "prompt": [(7 * prompt + k) % 250 for k in range(1, 40)], "max_tokens": TOKENS, "temperature": 0, "ignore_eos": True, "logprobs": 2, "stream": stream}
    status, headers, data = s.request("POST", "/v1/completions", body)
    return status, int(headers.get(HEADER, -1)), said_in(stream, data) if status == 200 else data


def load(s, path):
    status, _, data = s.request("POST", "/v1/load_lora_adapter", {"lora_name": "mine", "lora_path": path, "aliases": ["prod"]})
    if status != 200:
        raise RuntimeError(f"{path}: {status} {data}")
    return json.loads(data)


class Clients:
    """They ask until REQUESTS are answered; answers are judged when all generations are known."""

    def __init__(self, s):
        self.s, self.left, self.lock, self.answers, self.failed = s, REQUESTS, threading.Lock(), [], []
        self.threads = [threading.Thread(target=self.run, args=(i,)) for i in range(o.clients)]
        for t in self.threads:
            t.start()

    def run(self, number):
        k = number
        while True:
            with self.lock:
                if self.left == 0:
                    return
                self.left -= 1
            k += 1
            try:
                status, generation, said = ask(self.s, "prod" if k % 3 == 0 else "mine", k % PROMPTS, number % 2 == 0)
            except OSError as e:
                status, generation, said = 0, -1, str(e)
            with self.lock:
                if status == 200:
                    self.answers.append((generation, k % PROMPTS, said))
                else:
                    self.failed.append((status, said))

    def alive(self):
        return any(t.is_alive() for t in self.threads)


def main(work):
    model = o.model or os.path.join(work, "tiny.gguf")
    if not o.model:
        subprocess.run([os.path.join(os.path.dirname(os.path.abspath(o.binary)), "tests", "make_tiny_model"), model], check=True)
    maps, root = linear_maps(o.binary, model), os.path.join(work, "root")
    for i in range(ADAPTERS):
        write_adapter(os.path.join(root, f"a{i}"), maps, 8, i + 1)
    keys = os.path.join(work, "keys")
    with open(keys, "w", encoding="utf-8") as f:
        f.write(f"ops sha256:{hashlib.sha256(KEY.encode()).hexdigest()} admin\n")
    s = Served(o.binary, model, "--adapter-root", root, "--api-key-file", keys, "--threads", "2", "--slots", "8", "--no-pack-cache", limit=300, key=KEY)
    want, adapter_of, swaps, longest, slowest = [], {}, 0, 0.0, 0.0
    for i in range(ADAPTERS):
        adapter_of[load(s, f"a{i}")["generation"]] = i
        want.append([ask(s, "mine", p)[2] for p in range(PROMPTS)])
    check("each adapter has answers of its own", len({json.dumps(w) for w in want}) == ADAPTERS)
    clients = Clients(s)
    while clients.alive():
        i = swaps % ADAPTERS
        begin = time.monotonic()
        done = load(s, f"a{i}")
        slowest = max(slowest, time.monotonic() - begin)
        adapter_of[done["generation"]] = i
        longest = max(longest, done["swap_ms"])
        swaps += 1
        time.sleep(0.01)
    mixed = [(g, p) for g, p, said in clients.answers if g not in adapter_of or said != want[adapter_of[g]][p]]
    seen = len({g for g, _, _ in clients.answers})
    check(f"{REQUESTS} requests of {o.clients} clients under {swaps} swaps: none failed", len(clients.answers) == REQUESTS and not clients.failed, clients.failed[:5])
    check(f"of {seen} generations that answered, none was mixed", seen > 1 and not mixed, mixed[:5])
    check("what was replaced has drained", s.wait_metric("adapters_draining", 0, 20) is not None)
    print(f"# steps waited {longest:.2f} ms for a swap at most; a load took {slowest * 1e3:.0f} ms at most, from the request to its answer")
    check("the server ends", s.stop() == 0)


with tempfile.TemporaryDirectory() as folder:
    main(folder)
tap.finish()
