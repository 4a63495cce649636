#!/usr/bin/env python3
"""The server as its clients see it: starts the real binary with a small model and talks to it.

    tests/e2e/serve.py build/release/specdec

Prints TAP. Standard library only. Needs SmolLM2-135M-Instruct.Q4_1.gguf in $SPECDEC_MODELS (default
~/.cache/specdec/models); without it everything is skipped.
"""
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
import tap  # noqa: E402
from options import parser  # noqa: E402
from served import SLOW, Served  # noqa: E402
from tap import check  # noqa: E402

BINARY = parser(__doc__).parse_args().binary
MODELS = os.environ.get("SPECDEC_MODELS", os.path.expanduser("~/.cache/specdec/models"))
MODEL = os.path.join(MODELS, "SmolLM2-135M-Instruct.Q4_1.gguf")
NAME = "SmolLM2-135M-Instruct.Q4_1"


class Server(Served):
    """A running server; its standard error is kept."""

    def __init__(self, *options):
        super().__init__(BINARY, MODEL, *options, limit=60 * SLOW)

    def post(self, path, body, **more):
        status, headers, answer = self.request("POST", path, body, **more)
        return status, json.loads(answer)

    def raw(self, data, timeout=10, pieces=None):
        """Sends bytes, returns all that comes until the server closes or the time is over."""
        s = socket.create_connection(("127.0.0.1", self.port), timeout=timeout * SLOW)
        out = b""
        try:
            for piece in pieces or [data]:
                s.sendall(piece)
                if pieces:
                    time.sleep(0.02)
            while True:
                got = s.recv(65536)
                if not got:
                    return out, True
                out += got
        except (socket.timeout, ConnectionError):
            return out, False
        finally:
            s.close()


def events(data):
    """The JSON of each server-sent event, and whether [DONE] came last."""
    blocks = [b for b in data.decode().split("\n\n") if b]
    done = bool(blocks) and blocks[-1] == "data: [DONE]"
    return [json.loads(b[6:]) for b in blocks if b.startswith("data: {")], done


def open_stream(server, body):
    """A socket on which a streaming answer is under way."""
    data = json.dumps(body).encode()
    s = socket.create_connection(("127.0.0.1", server.port), timeout=60 * SLOW)
    s.sendall(
        b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        b"Content-Length: %d\r\n\r\n" % len(data) + data
    )
    return s


LONG = {"prompt": "Count: one, two, three,", "max_tokens": 3000, "temperature": 0, "ignore_eos": True, "stream": True}


def basics(s):
    status, headers, body = s.request("GET", "/health", headers={"X-Request-Id": "abc-1"})
    check("health is 200 and echoes the request id", status == 200 and headers["x-request-id"] == "abc-1", headers)
    for path in ("/livez", "/readyz", "/version"):
        check(path + " is 200", s.request("GET", path)[0] == 200)
    status, _, body = s.request("HEAD", "/health")
    check("HEAD has a head alone", status == 200 and body == b"")
    status, _, body = s.request("GET", "/v1/models")
    ids = [m["id"] for m in json.loads(body)["data"]]
    check("models lists the base", ids == [NAME], ids)
    check("one model by its name", s.request("GET", "/v1/models/" + NAME)[0] == 200)
    check("an unknown model is a 404", s.request("GET", "/v1/models/nope")[0] == 404)
    status, answer = s.post("/v1/completions", {"model": "nope", "prompt": "x"})
    check("a request for an unknown model is a 404 that names the known",
          status == 404 and NAME in answer["error"]["message"], answer)
    status, headers, _ = s.request("GET", "/v1/completions")
    check("a wrong method is a 405 with Allow", status == 405 and headers.get("allow") == "POST", headers)
    status, _, _ = s.request("POST", "/v1/completions", b"{}", {"Content-Type": "text/plain"})
    check("a wrong content type is a 415", status == 415)
    status, headers, page = s.request("GET", "/")
    check("the page loads nothing from elsewhere", status == 200 and b"<title>specdec</title>" in page
          and not re.search(rb"(src|href)=|https?://|url\(|@import", page)
          and "default-src 'none'" in headers["content-security-policy"], headers)
    status, _, _ = s.request("GET", "/v1/models", headers={"Host": "evil.example"})
    check("a foreign Host is a 403 without keys", status == 403, status)
    check("an unknown path is a 404", s.request("GET", "/nope")[0] == 404)


def completions(s):
    ask = {"model": NAME, "prompt": "The capital of France is", "max_tokens": 12, "temperature": 0}
    status, whole = s.post("/v1/completions", ask)
    text = whole["choices"][0]["text"]
    check("a completion answers", status == 200 and "Paris" in text, whole)
    check("its usage adds up", whole["usage"]["completion_tokens"] == 12
          and whole["usage"]["total_tokens"] == 12 + whole["usage"]["prompt_tokens"]
          and whole["choices"][0]["finish_reason"] == "length", whole)
    check("metrics and timings are there", whole["timings"]["predicted_n"] == 12
          and whole["metrics"]["speculative_decoding"]["mean_acceptance_length"] >= 1, whole)
    status, headers, data = s.request("POST", "/v1/completions", dict(ask, stream=True))
    chunks, done = events(data)
    streamed = "".join(c["choices"][0]["text"] for c in chunks)
    check("a stream gives the same text", streamed == text and done, data.decode()[-600:])
    check("every chunk of a stream without usage has a choice", all(c["choices"] for c in chunks))
    check("it is an event stream", headers["content-type"].startswith("text/event-stream"), headers)
    _, _, data = s.request("POST", "/v1/completions", dict(ask, stream=True, stream_options={"include_usage": True}))
    chunks, done = events(data)
    usage = chunks[-1]["usage"]
    found = usage.pop("prompt_tokens_details")["cached_tokens"]
    cold = whole["usage"].pop("prompt_tokens_details")["cached_tokens"]
    check("usage comes last when asked for", done and chunks[-1]["choices"] == [] and usage == whole["usage"],
          chunks[-1])
    check("what was asked before is found, but for the last token", cold == 0
          and found == usage["prompt_tokens"] - 1, (cold, found))
    _, stopped = s.post("/v1/completions", dict(ask, stop=["Paris"]))
    check("a stop string ends the text before it", stopped["choices"][0]["text"] == text.split("Paris")[0]
          and stopped["choices"][0]["finish_reason"] == "stop", stopped)
    _, echoed = s.post("/v1/completions", dict(ask, echo=True))
    check("echo puts the prompt first", echoed["choices"][0]["text"] == ask["prompt"] + text, echoed)
    _, two = s.post("/v1/completions", dict(ask, prompt=[ask["prompt"], "1, 2, 3,"]))
    check("two prompts give two choices", [c["index"] for c in two["choices"]] == [0, 1]
          and two["choices"][0]["text"] == text, two)
    _, lp = s.post("/v1/completions", dict(ask, logprobs=2))
    lp = lp["choices"][0]["logprobs"]
    check("logprobs have four lists of one length", len(lp["tokens"]) == len(lp["token_logprobs"])
          == len(lp["top_logprobs"]) == len(lp["text_offset"]) == 12 and "".join(lp["tokens"]) == text
          and all(x <= 0 for x in lp["token_logprobs"]) and all(len(t) <= 2 for t in lp["top_logprobs"]), lp)
    sampled = dict(ask, temperature=0.9, seed=7, n=3)
    a, b = s.post("/v1/completions", sampled)[1], s.post("/v1/completions", sampled)[1]
    texts = [c["text"] for c in a["choices"]]
    check("a seed repeats n choices", texts == [c["text"] for c in b["choices"]] and len(set(texts)) > 1, texts)
    off = s.post("/v1/completions", dict(ask, speculative={"enabled": False}, max_tokens=64))[1]
    on = s.post("/v1/completions", dict(ask, max_tokens=64))[1]
    check("speculation does not change the text", off["choices"][0]["text"] == on["choices"][0]["text"])
    unicode = s.post("/v1/completions", {"prompt": "漢字 😀 ä", "max_tokens": 24, "temperature": 1.5, "seed": 1, "echo": True})
    check("any text is valid UTF-8 and comes back", unicode[1]["choices"][0]["text"].startswith("漢字 😀 ä"), unicode)


def chat(s):
    ask = {"messages": [{"role": "user", "content": "Say hello."}], "max_tokens": 16, "temperature": 0}
    status, whole = s.post("/v1/chat/completions", ask)
    if status == 400 and "chat template" in whole["error"]["message"]:
        print("ok - chat # SKIP " + whole["error"]["message"])
        return
    message = whole["choices"][0]["message"]
    check("a chat answers", status == 200 and message["role"] == "assistant" and message["content"], whole)
    _, _, data = s.request("POST", "/v1/chat/completions", dict(ask, stream=True, logprobs=True, top_logprobs=2))
    chunks, done = events(data)
    text = "".join(c["choices"][0]["delta"].get("content") or "" for c in chunks)
    check("a streamed chat gives the same text", text == message["content"] and done, data.decode()[-600:])
    check("its first chunk has the role", chunks[0]["choices"][0]["delta"].get("role") == "assistant", chunks[0])
    check("its last chunk has the reason", chunks[-1]["choices"][0]["finish_reason"] in ("stop", "length"), chunks[-1])
    entries = [e for c in chunks for e in (c["choices"][0].get("logprobs") or {}).get("content", [])]
    check("chat logprobs carry their bytes", entries and all(
        bytes(e["bytes"]).decode("utf-8", "replace") == e["token"] and len(e["top_logprobs"]) == 2 for e in entries))
    parts = dict(ask, messages=[{"role": "user", "content": [{"type": "text", "text": "Say "}, {"type": "text", "text": "hello."}]}])
    check("content parts read as one text", s.post("/v1/chat/completions", parts)[1]["choices"][0]["message"] == message)


def malformed(s):
    for name, body, param in (
        ("text that is not JSON", b"{", None),
        ("invalid UTF-8", b'{"prompt":"\xff"}', None),
        ("a missing prompt", {}, "prompt"),
        ("a bad temperature", {"prompt": "x", "temperature": "hot"}, "temperature"),
        ("tools", {"prompt": "x", "tools": [{}]}, "tools"),
        ("a token that the model lacks", {"prompt": [10**8]}, "prompt"),
        ("an empty prompt of ids", {"prompt": [[]]}, "prompt"),
    ):
        status, answer = s.post("/v1/completions", body)
        check(name + " is a 400", status == 400 and answer["error"]["param"] == param, answer)
    status, answer = s.post("/v1/completions", {"prompt": "word " * 5000})
    message = answer["error"]["message"]
    check("a prompt over the context is a 400 with both numbers", status == 400 and "4096" in message
          and len(re.findall(r"\d+", message)) == 2, answer)
    status, answer = s.post("/v1/completions", {"prompt": "x" * (8 << 20)})
    check("megabytes that cannot fit are refused", status == 400, answer)


HOST = b"Host: localhost\r\n"
AMBIGUOUS = {
    "two Content-Length": b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 1\r\nContent-Length: 1\r\n\r\na",
    "Content-Length and chunked": b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a folded field": b"GET /health HTTP/1.1\r\n" + HOST + b"A: b\r\n c\r\n\r\n",
    "a bare LF": b"GET /health HTTP/1.1\n" + HOST + b"\r\n",
    "a NUL": b"GET /health HTTP/1.1\r\n" + HOST + b"A: \0\r\n\r\n",
    "a space before the colon": b"GET /health HTTP/1.1\r\nHost : localhost\r\n\r\n",
    "no Host": b"GET /health HTTP/1.1\r\n\r\n",
    "two Hosts": b"GET /health HTTP/1.1\r\n" + HOST + HOST + b"\r\n",
    "a signed length": b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: +1\r\n\r\na",
    "a hexadecimal length": b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 0x1\r\n\r\na",
    "a bad method": b"G@T /health HTTP/1.1\r\n" + HOST + b"\r\n",
    "another host in the target": b"GET http://y/health HTTP/1.1\r\n" + HOST + b"\r\n",
    "an odd transfer coding": b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
}


def protocol(s):
    for name, data in AMBIGUOUS.items():
        smuggled = data + b"GET /version HTTP/1.1\r\nHost: localhost\r\n\r\n"
        out, closed = s.raw(smuggled)
        check(name + " is a 400 and a close", out.startswith(b"HTTP/1.1 400 ") and closed
              and out.count(b"HTTP/1.1 ") == 1, out)
    post = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    chunk = b'{"prompt":"a",'
    rest = b'"max_tokens":2}'
    out, _ = s.raw(None, pieces=[post + b"Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n",
                                 b"%x\r\n" % len(chunk) + chunk + b"\r\n", b"%x\r\n" % len(rest) + rest + b"\r\n0\r\n\r\n"])
    check("a chunked body is read", out.startswith(b"HTTP/1.1 200 ") and b'"usage"' in out, out)
    out, _ = s.raw(post + b"Connection: close\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n")
    check("a bad chunk size is a 400", out.startswith(b"HTTP/1.1 400 "), out)
    body = chunk + rest
    out, _ = s.raw(None, pieces=[post + b"Connection: close\r\nExpect: 100-continue\r\nContent-Length: %d\r\n\r\n" % len(body), body])
    check("100-continue is answered first", out.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 "), out)
    out, closed = s.raw(post + b"Expect: 100-continue\r\nContent-Length: 99999999\r\n\r\n")
    check("a body over 16 MB is a 413 before it is sent", out.startswith(b"HTTP/1.1 413 ") and closed, out)
    one = post + b"Content-Length: %d\r\n\r\n" % len(body) + body
    last = b"GET /version HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    out, closed = s.raw(one + b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n" + one + last)
    order = [out.find(b"text_completion"), out.find(b"\r\n\r\nok\n"), out.rfind(b"text_completion"), out.find(b'"version"')]
    check("pipelined requests are answered in order", closed and order == sorted(order) and min(order) >= 0
          and out.count(b"HTTP/1.1 200 ") == 4, out)
    out, closed = s.raw(b"GET /" + b"a" * 5000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n")
    check("a long URI is a 414", out.startswith(b"HTTP/1.1 414 ") and closed, out[:100])
    out, closed = s.raw(b"GET / HTTP/1.1\r\nHost: localhost\r\nA: " + b"a" * 20000 + b"\r\n\r\n")
    check("a long head is a 431", out.startswith(b"HTTP/1.1 431 ") and closed, out[:100])
    out, closed = s.raw(post.replace(b"1.1", b"1.0") + b"Content-Length: %d\r\n\r\n" % len(body) + body)
    check("HTTP/1.0 is answered and closed", out.startswith(b"HTTP/1.1 200 ") and closed and b"chunked" not in out, out)


def slow_sockets(s):
    def resident():
        status = open("/proc/%d/status" % s.process.pid).read()
        return int(re.search(r"VmRSS:\s+(\d+)", status).group(1)) / 1024

    before = resident()
    late = socket.create_connection(("127.0.0.1", s.port), timeout=30 * SLOW)
    late.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Le")
    started = time.monotonic()
    crowd = [socket.create_connection(("127.0.0.1", s.port), timeout=30 * SLOW) for _ in range(500)]
    for c in crowd:
        c.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\nX: ")
    start = time.monotonic()
    status = s.request("GET", "/health")[0]
    took = time.monotonic() - start
    check("500 half requests hold nobody up", status == 200)
    print(f"# answered in {took * 1e3:.0f} ms beside them", flush=True)
    grown = resident() - before
    check("and cost under 5 MB" if SLOW == 1 else "and little memory", grown < 5 or SLOW > 1, "%.1f MB" % grown)
    for c in crowd:
        c.close()
    answer = late.recv(4096)
    waited = time.monotonic() - started
    check("a head that does not come is a 408 after 10 s", answer.startswith(b"HTTP/1.1 408 ") and waited > 9, (answer, waited))
    late.close()


def concurrent(s):
    asks = [{"prompt": "Story %d: once there was a %s" % (i, w), "max_tokens": 40, "temperature": 0.8 * (i % 2),
             "seed": i, "stream": i % 3 == 0, "ignore_eos": True}
            for i, w in enumerate("fox king ship tree robot queen dragon cat town door lamp road bird stone cloud song".split())]

    def run(ask):
        _, _, data = s.request("POST", "/v1/completions", ask)
        if ask["stream"]:
            return "".join(c["choices"][0]["text"] for c in events(data)[0])
        return json.loads(data)["choices"][0]["text"]

    alone = [run(a) for a in asks]
    together = [None] * len(asks)

    def work(i):
        together[i] = run(asks[i])

    threads = [threading.Thread(target=work, args=(i,)) for i in range(len(asks))]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    check("16 clients at once get what each gets alone", alone == together,
          [(a, b) for a, b in zip(alone, together) if a != b])


def freed(s, name, limit=20):
    """The slot of a client that left must become free; how soon is printed, not judged: it ends with the step that runs."""
    waited = s.wait_metric("num_requests_running", 0, limit)
    check(name, waited is not None)
    if waited is not None:
        print(f"# free after {waited * 1e3:.0f} ms", flush=True)


def cancellation(s):
    c = open_stream(s, LONG)
    c.recv(4096)
    check("a stream runs", s.wait_metric("num_requests_running", 1, 5) is not None)
    c.close()
    freed(s, "a closed client's slot is free")
    whole = open_stream(s, dict(LONG, stream=False))
    check("an answer in one piece runs", s.wait_metric("num_requests_running", 1, 5) is not None)
    whole.close()
    freed(s, "likewise when its answer had not begun")
    c = open_stream(s, {"prompt": list(range(1000, 4500)), "max_tokens": 5})
    check("a long prompt is being read", s.wait_metric("num_requests_running", 1, 5) is not None)
    c.close()
    freed(s, "a client that leaves while its prompt is read frees its slot")
    many = [open_stream(s, LONG) for _ in range(10)]
    check("two of ten wait for eight slots", s.wait_metric("num_requests_waiting", 2, 10) is not None)
    for m in many:
        m.close()
    gone = s.wait_metric("num_requests_running", 0, 10), s.wait_metric("num_requests_waiting", 0, 10)
    check("closing them all empties slots and queue", None not in gone, gone)
    check("the server still answers", s.post("/v1/completions", {"prompt": "a", "max_tokens": 1})[0] == 200)


def overload():
    s = Server("--slots", "1", "--queue", "2", "--ctx", "4096")
    holders = [open_stream(s, LONG)]
    s.wait_metric("num_requests_running", 1, 10)
    holders += [open_stream(s, LONG), open_stream(s, LONG)]
    check("one runs and two wait", s.wait_metric("num_requests_waiting", 2, 10) is not None)
    status, headers, body = s.request("POST", "/v1/completions", {"prompt": "a"})
    check("the next is a 429 with Retry-After", status == 429 and 1 <= int(headers["retry-after"]) <= 3600, (status, headers, body))
    check("it is counted", s.metric("admission_rejections_total") == 1)
    status, _, _ = s.request("POST", "/v1/completions", {"prompt": "a", "n": 3})
    check("many choices that do not fit are a 429 too", status == 429)
    for h in holders:
        h.close()
    check("closing the three frees all", s.wait_metric("num_requests_waiting", 0, 10) is not None
          and s.wait_metric("num_requests_running", 0, 10) is not None)
    check("it ends with 0", s.stop() == 0)


def drain():
    s = Server("--drain", "60")
    c = open_stream(s, dict(LONG, max_tokens=120))
    got = c.recv(4096)
    keep = http.client.HTTPConnection("127.0.0.1", s.port, timeout=20 * SLOW)
    s.process.send_signal(signal.SIGTERM)
    time.sleep(0.1 * SLOW)
    keep.request("GET", "/health")
    r = keep.getresponse()
    check("health is 503 while draining", r.status == 503 and r.getheader("retry-after"), r.status)
    r.read()
    status, _ = s.post("/v1/completions", {"prompt": "a"})
    check("a new request is a 503 while draining", status == 503)
    while True:
        piece = c.recv(65536)
        if not piece:
            break
        got += piece
    check("the running stream is finished", b"data: [DONE]" in got and b'"finish_reason":"length"' in got, got[-300:])
    check("the drained server ends with 0", s.process.wait(20 * SLOW) == 0)
    s = Server("--drain", "0.3")
    c = open_stream(s, LONG)
    c.recv(4096)
    code = s.stop()
    check("what outlives the time to drain is cut off", code == 0, code)


def keys():
    with tempfile.TemporaryDirectory() as folder:
        path, log = os.path.join(folder, "keys"), os.path.join(folder, "log")
        with open(path, "w") as f:
            f.write("# test\nsecret-key-1\n")
        s = Server("--api-key-file", path, "--access-log", log, "--served-name", "mine", "--host", "0.0.0.0")
        check("health needs no key", s.request("GET", "/health")[0] == 200)
        for route in (("GET", "/v1/models"), ("GET", "/metrics"), ("GET", "/nope"), ("POST", "/v1/completions")):
            status, headers, _ = s.request(*route)
            check("%s %s without a key is a 401" % route, status == 401 and headers["www-authenticate"] == "Bearer", status)
        wrong = {"Authorization": "Bearer secret-key-2"}
        check("a wrong key is a 401", s.request("GET", "/v1/models", headers=wrong)[0] == 401)
        right = {"Authorization": "Bearer secret-key-1"}
        status, _, body = s.request("GET", "/v1/models", headers=right)
        check("the key opens, and the served name is shown", status == 200 and json.loads(body)["data"][0]["id"] == "mine", body)
        status, _ = s.post("/v1/completions", {"model": "mine", "prompt": "A password:", "max_tokens": 3}, headers=right)
        check("the served name is a model", status == 200)
        s.stop()
        text = open(log).read()
        lines = [json.loads(l) for l in text.splitlines()]
        last = lines[-1]
        check("the access log has the request and no secret", last["path"] == "/v1/completions" and last["status"] == 200
              and last["completion_tokens"] == 3 and "secret" not in text and "password" not in text, last)
    r = subprocess.run([BINARY, "serve", "-m", MODEL, "--host", "0.0.0.0", "--port", "0"], capture_output=True, text=True, timeout=60)
    check("an open address without a key is refused", r.returncode == 2 and "--insecure-no-key" in r.stderr, r.stderr)
    r = subprocess.run([BINARY, "serve", "-m", MODEL, "-a", "x=/nonexistent", "--port", "0"], capture_output=True, text=True, timeout=60 * SLOW)
    check("a missing adapter ends the start with 2", r.returncode == 2 and "/nonexistent" in r.stderr, r.stderr)


def plan():
    """What --plan says, against the server's metrics and against what the system says of the process once pages, slots and caches were used."""
    options = ["--ctx", "1024", "--slots", "3", "--threads", "2", "--body-memory", "16"]
    r = subprocess.run([BINARY, "serve", "-m", MODEL, *options, "--plan", "--json"], capture_output=True, text=True, timeout=60 * SLOW)
    check("--plan ends with 0 and one object", r.returncode == 0 and r.stdout.count("\n") == 1, r)
    said = json.loads(r.stdout)
    s = Server(*options)
    try:
        def parts():
            page = s.request("GET", "/metrics")[2].decode()
            return {k: float(v) for k, v in re.findall(r'^specdec_memory_bytes\{.*part="(\w+)"\} (\S+)$', page, re.M)}
        for i in range(8):
            s.post("/v1/completions", {"prompt": " ".join(str(i * 1000 + k) for k in range(230)), "max_tokens": 30, "ignore_eos": True})
        s.post("/v1/completions", {"prompt": "A list:", "max_tokens": 30, "response_format": {"type": "json_object"}})
        now, program = parts(), said["memory_bytes"].pop("program")
        check("what is taken at the start is what --plan says, to the byte", {k: now.get(k) for k in said["memory_bytes"]} == said["memory_bytes"], (now, said))
        check("what grows is at most that", all(v <= said["at_most_bytes"][k] for k, v in now.items() if k not in said["memory_bytes"]) and now["masks"] > 0, (now, said))
        anonymous = int(re.search(r"RssAnon:\s+(\d+) kB", open(f"/proc/{s.process.pid}/status").read()).group(1)) * 1024
        counted = sum(now.values()) + program
        check("and the system counts no more, but for a tenth of the program and 16 MiB", anonymous <= counted + 0.1 * program + (16 << 20), (anonymous, counted, now))
        check("the sums are the parts'", sum(said["memory_bytes"].values()) + program == said["start_bytes"]
              and said["start_bytes"] + sum(said["at_most_bytes"].values()) == said["total_bytes"], said)
    finally:
        s.stop()


def main():
    if not os.path.exists(MODEL):
        print("ok - serve # SKIP %s is not there" % MODEL)
        return 0
    s = Server()
    try:
        check("the start-up line names model, context, KV memory, slots and address",
              any(re.search(r"serving .* at http://127.0.0.1:\d+: context 4096 tokens, 8 slots, KV memory [\d.]+ MiB", l)
                  for l in s.lines), s.lines)
        for part in (basics, completions, chat, malformed, protocol, slow_sockets, concurrent, cancellation):
            part(s)
        check("SIGTERM ends an idle server with 0", s.stop() == 0, s.lines)
    finally:
        if s.process.poll() is None:
            s.process.kill()
    for part in (overload, drain, keys, plan):
        part()
    return tap.failures > 0


if __name__ == "__main__":
    sys.exit(main())
