#!/usr/bin/env python3
"""Whole answers against llama-server, request by request in turns: both servers answer the same chat requests, greedily, one at a time.

    vs_llama_server.py SPECDEC LLAMA_SERVER MODEL.gguf PROMPTS.jsonl [--peer "--spec-default"] [--task NAME] [--limit N] [--rounds 1] [--threads N] [--json]

LLAMA_SERVER is built from llama.cpp's source (cmake -DLLAMA_BUILD_SERVER=ON --target llama-server). Each line of PROMPTS.jsonl: {"task", "max_tokens", "messages"}.
llama-server runs twice, plain and with the options of --peer (its best setting for the task), specdec once as it comes. Decoding is timed by the client: tokens
after the first over the time from the first piece of text to the end of the answer; a request from its first byte to its last. Answers differ between the engines
at near-ties, so speeds are tokens over seconds, summed over all requests. No server keeps a prompt of another request: every prompt comes once a round and rounds differ by
a word in front.
"""
import argparse
import http.client
import json
import os
import pathlib
import shutil
import socket
import subprocess
import sys
import tempfile
import time


class Server:
    """A running server; stopped and waited for at the end of the `with`."""

    def __init__(self, name, command, port):
        self.name, self.command, self.port, self.tokens, self.decode_s, self.whole_s, self.all_tokens = name, command, port, 0, 0.0, 0.0, 0

    def __enter__(self):
        self.log = tempfile.TemporaryFile()
        self.process = subprocess.Popen(self.command, stdout=self.log, stderr=subprocess.STDOUT)
        for _ in range(600):
            if self.process.poll() is not None:
                break
            try:
                if self.request("GET", "/health").status == 200:
                    return self
            except OSError:
                pass
            time.sleep(0.1)
        self.log.seek(0)
        self.__exit__()
        sys.exit(f"{self.name} does not answer: {self.log.read()[-600:].decode(errors='replace')}")

    def __exit__(self, *_):
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()

    def request(self, method, path, body=None):
        c = http.client.HTTPConnection("127.0.0.1", self.port, timeout=600)
        c.request(method, path, json.dumps(body) if body else None, {"Content-Type": "application/json"})
        return c.getresponse()

    def answer(self, prompt, word):
        first = dict(prompt["messages"][0])
        first["content"] = word + first["content"]
        body = {"model": "default", "messages": [first] + prompt["messages"][1:], "max_tokens": prompt["max_tokens"], "temperature": 0, "stream": True,
                "stream_options": {"include_usage": True}}
        begin = time.perf_counter()
        r = self.request("POST", "/v1/chat/completions", body)
        if r.status != 200:
            sys.exit(f"{self.name} answers {r.status}: {r.read()[:300].decode(errors='replace')}")
        start, tokens = None, 0
        for line in r:
            if not line.startswith(b"data: {"):
                continue
            event = json.loads(line[6:])
            if event.get("choices") and event["choices"][0].get("delta", {}).get("content") and start is None:
                start = time.perf_counter()
            if event.get("usage"):
                tokens = event["usage"]["completion_tokens"]
        end = time.perf_counter()
        if start is not None:
            self.tokens += tokens - 1
            self.decode_s += end - start
        self.all_tokens += tokens
        self.whole_s += end - begin


def free_ports(n):
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(n)]  # all open at once, so that no two are the same
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("specdec")
    p.add_argument("llama_server")
    p.add_argument("model")
    p.add_argument("prompts")
    p.add_argument("--peer", default="--spec-default")
    p.add_argument("--task")
    p.add_argument("--limit", type=int, default=0)
    p.add_argument("--rounds", type=int, default=1)
    p.add_argument("--threads", type=int, default=os.cpu_count())
    p.add_argument("--json", action="store_true")
    a = p.parse_args()
    for path in (a.model, a.prompts):
        if not pathlib.Path(path).is_file():
            sys.exit(f"{path}: no such file")
    for program in (a.specdec, a.llama_server):
        if not shutil.which(program):
            sys.exit(f"{program}: no such program")
    prompts = [json.loads(line) for line in pathlib.Path(a.prompts).read_text().splitlines() if line.strip()]
    prompts = [q for q in prompts if not a.task or q.get("task") == a.task]
    prompts = prompts[:a.limit] if a.limit else prompts
    if not prompts:
        sys.exit(f"{a.prompts}: no prompt of task {a.task}")
    peer = [a.llama_server, "-m", a.model, "-t", str(a.threads), "-c", "8192", "-np", "1", "--no-webui"]
    ports = free_ports(3)
    names = ("specdec", "llama-server", "llama-server " + a.peer)
    ours = [a.specdec, "serve", "-m", a.model, "--threads", str(a.threads), "--ctx", "8192", "--slots", "1", "--port", str(ports[0]), "--served-name", "default"]
    with Server(names[0], ours, ports[0]) as s, Server(names[1], peer + ["--port", str(ports[1])], ports[1]) as plain, \
            Server(names[2], peer + a.peer.split() + ["--port", str(ports[2])], ports[2]) as best:
        for r in range(a.rounds):
            for i, q in enumerate(prompts):
                for server in ((s, plain, best), (best, plain, s))[i % 2]:
                    server.answer(q, "" if r == 0 else f"({r}) ")
                print(f"\rround {r + 1} of {a.rounds}, prompt {i + 1} of {len(prompts)}", end="", file=sys.stderr, flush=True)
        print(file=sys.stderr)
        rows = [{"server": x.name, "decode_tok_s": round(x.tokens / x.decode_s, 2), "request_tok_s": round(x.all_tokens / x.whole_s, 2)} for x in (s, plain, best)]
    if a.json:
        print(json.dumps({"prompts": len(prompts), "rounds": a.rounds, "rows": rows}))
        return
    print(f"{pathlib.Path(a.model).name}, {len(prompts)} prompts, {a.rounds} rounds, {a.threads} threads: tok/s of decoding and of whole requests; specdec's ratio to each")
    for row in rows:
        print(f"{row['server']:<32}{row['decode_tok_s']:>9}{rows[0]['decode_tok_s'] / row['decode_tok_s']:>7.2f}x"
              f"{row['request_tok_s']:>9}{rows[0]['request_tok_s'] / row['request_tok_s']:>7.2f}x")


if __name__ == "__main__":
    main()
