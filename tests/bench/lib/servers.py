"""Servers side by side, and answers read from them as they stream: what comes when. Standard library only."""
import http.client
import json
import shutil
import socket
import subprocess
import tempfile
import threading
import time

from script import Failure


class Answer:
    """One streamed answer. Times in seconds from the request's first byte; gaps between the events that carry text, in seconds."""

    def __init__(self):
        self.first, self.whole, self.gaps, self.text, self.tokens, self.prompt_tokens, self.cached, self.timings = None, 0.0, [], "", 0, 0, 0, {}


class Server:
    """A server of its own process: begun by `with`, answering after ready(), stopped and waited for at the end. model: its name in requests. key: of its requests."""

    def __init__(self, name, command, port, model="default", key=None):
        self.name, self.command, self.port, self.model = name, command + ["--port", str(port)], port, model
        self.head = {"Content-Type": "application/json"} | ({"Authorization": "Bearer " + key} if key else {})

    def __enter__(self):
        self.log = tempfile.TemporaryFile()
        self.process = subprocess.Popen(self.command, stdout=self.log, stderr=subprocess.STDOUT)
        return self

    def ready(self):
        for _ in range(1200):
            if self.process.poll() is not None:
                break
            try:
                if self.connect("GET", "/health").status == 200:
                    return self
            except OSError:
                pass
            time.sleep(0.1)
        self.log.seek(0)
        raise Failure(f"{self.name} does not answer: {self.log.read()[-600:].decode(errors='replace')}")

    def __exit__(self, *_):
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def connect(self, method, path, body=None):
        c = http.client.HTTPConnection("127.0.0.1", self.port, timeout=3600)
        c.request(method, path, json.dumps(body) if body else None, self.head)
        return c.getresponse()

    def answer(self, messages, max_tokens, **more):
        """A chat request, greedy unless `more` says otherwise."""
        body = {"model": self.model, "messages": messages, "max_tokens": max_tokens, "temperature": 0, "stream": True, "stream_options": {"include_usage": True}, **more}
        a, begin, before = Answer(), time.perf_counter(), None
        r = self.connect("POST", "/v1/chat/completions", body)
        if r.status != 200:
            raise Failure(f"{self.name} answers {r.status}: {r.read()[:300].decode(errors='replace')}")
        for line in r:
            if not line.startswith(b"data: {"):
                continue
            now, event = time.perf_counter(), json.loads(line[6:])
            if "error" in event:
                raise Failure(f"{self.name} ends an answer with {event['error']}")
            piece = event["choices"][0].get("delta", {}).get("content") if event.get("choices") else None
            if piece:
                if before is None:
                    a.first = now - begin
                else:
                    a.gaps.append(now - before)
                before = now
                a.text += piece
            usage = event.get("usage")
            if usage:
                a.tokens, a.prompt_tokens = usage["completion_tokens"], usage["prompt_tokens"]
                a.cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens", 0)
            a.timings = event.get("timings") or a.timings
        a.whole = time.perf_counter() - begin
        return a

    def answers(self, prompts, **more):
        """All at once, a client each: (answers, seconds from the first byte to the last). prompts: [(messages, max_tokens)] or with fields of its own behind."""
        out, failed = [None] * len(prompts), []

        def one(i):
            try:
                out[i] = self.answer(*prompts[i][:2], **more, **(prompts[i][2] if len(prompts[i]) > 2 else {}))
            except (OSError, http.client.HTTPException, Failure) as e:
                failed.append(e)

        begin = time.perf_counter()
        if len(prompts) == 1:
            one(0)
        else:
            threads = [threading.Thread(target=one, args=(i,)) for i in range(len(prompts))]
            for t in threads:
                t.start()
            for t in threads:
                t.join()
        seconds = time.perf_counter() - begin
        if failed:
            raise Failure(f"{self.name}: {len(failed)} of {len(prompts)} requests failed: {failed[0]}")
        return out, seconds


def free_ports(n):
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(n)]  # all open at once, so that no two are the same
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


def ours(program, model, threads, clients, ctx, *more):
    return [program, "serve", "-m", model, "--threads", str(threads), "--ctx", str(ctx), "--slots", str(clients), "--served-name", "default", *more]


def llama(program, model, threads, clients, ctx, *more):
    """llama-server divides its context by its slots."""
    return [program, "-m", model, "-t", str(threads), "-c", str(ctx * clients), "-np", str(clients), "--no-webui", *more]


def need_program(path):
    if not shutil.which(path):
        raise Failure(f"{path}: no such program")


def percentile(values, part):
    v = sorted(values)
    return v[min(len(v) - 1, int(part * len(v)))] if v else 0.0
