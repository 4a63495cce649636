#!/usr/bin/env python3
"""HTTP/1.1 conformance of the server as a table: bytes in, status line (and what else must hold) out.

    tests/torture/conformance.py build/release/specdec

Prints TAP; needs make_tiny_model beside the binary. Standard library only. Sections: framing (RFC 9112), smuggling (what two parsers may read in two
ways), semantics (RFC 9110), the end of a connection, bodies of the API.
"""
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "e2e", "lib"))
from options import parser  # noqa: E402
from served import Served  # noqa: E402
from tap import check, finish  # noqa: E402

BINARY = parser(__doc__).parse_args().binary
PATIENCE = 20  # seconds; generous, since other work may share the machine

J = b'{"prompt":"a","max_tokens":1}'
HEAD = b"Host: localhost\r\nContent-Type: application/json\r\n"
POST = b"POST /v1/completions HTTP/1.1\r\n" + HEAD
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
SIZE = b"%x" % len(J)
WITH_LENGTH = POST + b"Content-Length: %d\r\n" % len(J)
GET = b"GET /health HTTP/1.1\r\nHost: localhost\r\n"


def post(body, extra=b""):
    body = json.dumps(body).encode() if not isinstance(body, bytes) else body
    return POST + extra + b"Content-Length: %d\r\n\r\n" % len(body) + body


# name, bytes, statuses in order (a number, or a list where several are right), further checks by name
TABLE = [
    # ---- framing
    ("a request with a length", WITH_LENGTH + b"\r\n" + J, 200),
    ("a chunked request", CHUNKED + SIZE + b"\r\n" + J + b"\r\n0\r\n\r\n", 200),
    ("chunks of one byte", CHUNKED + b"".join(b"1\r\n%c\r\n" % c for c in J) + b"0\r\n\r\n", 200),
    ("a chunk size with leading zeros", CHUNKED + b"0000" + SIZE + b"\r\n" + J + b"\r\n0\r\n\r\n", 200),
    ("a chunk's extension is ignored", CHUNKED + SIZE + b";a=b\r\n" + J + b"\r\n0\r\n\r\n", 200),
    ("an extension without a value", CHUNKED + SIZE + b";a\r\n" + J + b"\r\n0;b\r\n\r\n", 200),
    ("a quoted extension with a semicolon", CHUNKED + SIZE + b' ; a = "x;\\"y"\r\n' + J + b"\r\n0\r\n\r\n", 200),
    ("trailer fields are read past", CHUNKED + SIZE + b"\r\n" + J + b"\r\n0\r\nX-T: 1\r\nX-U: 2\r\n\r\n", 200),
    ("one empty line before the request", b"\r\n" + GET + b"\r\n", 200),
    ("a field value with blanks around it", GET + b"X-Request-Id: \t abc \t\r\n\r\n", 200, "x-request-id: abc"),
    ("the absolute form of the target", b"GET http://localhost/health HTTP/1.1\r\nHost: localhost\r\n\r\n", 200),
    ("HTTP/1.0 without Host", b"GET /health HTTP/1.0\r\n\r\n", 200, "closes"),
    ("HTTP/1.0 that asks to be kept", b"GET /livez HTTP/1.0\r\nConnection: keep-alive\r\n\r\n" * 2, [200, 200]),
    ("Connection: close is honoured", GET + b"Connection: close\r\n\r\n", 200, "closes"),
    ("Connection as a list", GET + b"Connection: x, Close\r\n\r\n", 200, "closes"),
    ("two requests at once", GET + b"\r\n" + WITH_LENGTH + b"\r\n" + J, [200, 200]),
    ("a thousand requests at once", b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n" * 1000, [200] * 1000),
    ("a body of no bytes", POST + b"Content-Length: 0\r\n\r\n", 400, "closes or not"),
    ("100 Continue before a body that waits", WITH_LENGTH + b"Expect: 100-continue\r\n\r\n", 100),
    ("an unknown expectation", WITH_LENGTH + b"Expect: brass\r\n\r\n" + J, 417),
    # ---- smuggling
    ("length and chunked together", POST + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n", 400, "closes"),
    ("two different lengths", POST + b"Content-Length: 1\r\nContent-Length: 29\r\n\r\n" + J, 400, "closes"),
    ("two equal lengths", WITH_LENGTH + b"Content-Length: %d\r\n\r\n" % len(J) + J, 400, "closes"),
    ("a length with a sign", POST + b"Content-Length: +29\r\n\r\n" + J, 400, "closes"),
    ("a length in hex", POST + b"Content-Length: 0x1d\r\n\r\n" + J, 400, "closes"),
    ("a list of lengths", POST + b"Content-Length: 29, 29\r\n\r\n" + J, 400, "closes"),
    ("a length beyond 64 bits", POST + b"Content-Length: 18446744073709551645\r\n\r\n" + J, 413, "closes"),
    ("two Transfer-Encodings", POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400, "closes"),
    ("chunked not last", POST + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n", 400, "closes"),
    ("an unknown coding before chunked", POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501, "closes"),
    ("chunked spelled with a vertical tab", POST + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n", 400, "closes"),
    ("chunked in HTTP/1.0", b"POST /v1/completions HTTP/1.0\r\n" + HEAD + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400, "closes"),
    ("a space before the colon", GET + b"X : 1\r\n\r\n", 400, "closes"),
    ("a folded field", GET + b"X: 1\r\n 2\r\n\r\n", 400, "closes"),
    ("a bare line feed", b"GET /health HTTP/1.1\nHost: localhost\n\n", 400, "closes"),
    ("a bare carriage return", GET + b"X: a\rb\r\n\r\n", 400, "closes"),
    ("a NUL in a field", GET + b"X: a\0b\r\n\r\n", 400, "closes"),
    ("a field without a name", GET + b": x\r\n\r\n", 400, "closes"),
    ("a field without a colon", GET + b"X\r\n\r\n", 400, "closes"),
    ("a chunk size with a sign", CHUNKED + b"+1d\r\n" + J + b"\r\n0\r\n\r\n", 400, "closes"),
    ("a chunk size of many digits", CHUNKED + b"f" * 40 + b"\r\n", 400, "closes"),
    ("a chunk size with a bare line feed", CHUNKED + SIZE + b"\n" + J + b"\r\n0\r\n\r\n", 400, "closes"),
    ("a chunk longer than its size", CHUNKED + b"2\r\n" + J + b"\r\n0\r\n\r\n", 400, "closes"),
    ("a malformed extension", CHUNKED + SIZE + b";a b\r\n" + J + b"\r\n0\r\n\r\n", 400, "closes"),
    ("an extension with a bare line feed", CHUNKED + SIZE + b";a\n" + J + b"\r\n0\r\n\r\n", 400, "closes"),
    ("a trailer that is no field", CHUNKED + SIZE + b"\r\n" + J + b"\r\n0\r\nX : 1\r\n\r\n", 400, "closes"),
    ("no Host", b"GET /health HTTP/1.1\r\n\r\n", 400, "closes"),
    ("two Hosts", GET + b"Host: localhost\r\n\r\n", 400, "closes"),
    ("a Host that is none", b"GET /health HTTP/1.1\r\nHost: a/b\r\n\r\n", 400, "closes"),
    ("a target that names another host", b"GET http://other/health HTTP/1.1\r\nHost: localhost\r\n\r\n", 400, "closes"),
    # ---- semantics
    ("HEAD has no body", b"HEAD /health HTTP/1.1\r\nHost: localhost\r\n\r\n", 200, "no body"),
    ("methods are case-sensitive", b"get /health HTTP/1.1\r\nHost: localhost\r\n\r\n", 405, "Allow: GET, HEAD"),
    ("the wrong method", b"DELETE /v1/completions HTTP/1.1\r\nHost: localhost\r\n\r\n", 405, "Allow: POST"),
    ("an unknown path", b"GET /nothing HTTP/1.1\r\nHost: localhost\r\n\r\n", 404),
    ("two slashes are another path", b"GET //health HTTP/1.1\r\nHost: localhost\r\n\r\n", 404),
    ("a query is no part of the path", b"GET /health?x=1 HTTP/1.1\r\nHost: localhost\r\n\r\n", 200),
    ("a fragment in the target", b"GET /health#x HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
    ("HTTP/2 is not spoken", b"GET /health HTTP/2.0\r\nHost: localhost\r\n\r\n", 505),
    ("the preface of HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
    ("an upgrade is not taken", GET + b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: x\r\n\r\n", 200),
    ("a body with GET is read past", GET + b"Content-Length: 3\r\n\r\nabc" + GET + b"\r\n", [200, 200]),
    ("a head of 17 KB", GET + b"X: " + b"a" * 17000 + b"\r\n\r\n", 431, "closes"),
    ("65 fields", b"GET /health HTTP/1.1\r\n" + b"".join(b"X%d: 1\r\n" % i for i in range(64)) + b"Host: a\r\n\r\n", 431, "closes"),
    ("a URI of 5 KB", b"GET /" + b"a" * 5000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n", 414, "closes"),
    ("a body of 17 MB is refused before it comes", POST + b"Content-Length: 17825792\r\n\r\n", 413, "closes"),
    ("another content type", b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\n{}", 415),
    ("a content type with parameters", b"POST /v1/completions HTTP/1.1\r\nHost: a\r\nContent-Type: application/json; charset=utf-8\r\nContent-Length: %d\r\n\r\n" % len(J) + J, [[200, 403]]),
    ("a compressed body", POST + b"Content-Encoding: gzip\r\nContent-Length: 5\r\n\r\n12345", 415),
    ("a body that is not compressed says so", WITH_LENGTH + b"Content-Encoding: identity\r\n\r\n" + J, 200),
    ("a name that is not this machine's", b"GET /v1/models HTTP/1.1\r\nHost: evil.example\r\n\r\n", 403),
    ("an address of IPv6 as Host", b"GET /v1/models HTTP/1.1\r\nHost: [::1]:80\r\n\r\n", 200),
    # ---- bodies of the API
    ("a number beyond 64 bits where nobody reads it", post(b'{"prompt":"a","max_tokens":1,"metadata":[18446744073709551616,1e999]}'), 200),
    ("a seed beyond 64 bits", post(b'{"prompt":"a","max_tokens":1,"seed":18446744073709551616}'), 400, "seed is 18446744073709551616"),
    ("a NUL where nobody reads it", post({"prompt": "a", "max_tokens": 1, "safety_identifier": "a\0b"}), 200),
    ("a NUL in a prompt is a character", post({"prompt": "a\0b", "max_tokens": 1}), 200, '"prompt_tokens":3'),
    ("a NUL in a stop string", post({"prompt": "a", "stop": "\0"}), 400, "NUL"),
    ("null is absent", post({"prompt": "a", "max_tokens": 1, "n": None, "stop": None, "logprobs": None, "seed": None}), 200),
    ("a body that is no JSON", post(b"{"), 400),
    ("a body with two values", post(b"{} {}"), 400),
    ("a temperature out of range", post({"prompt": "a", "temperature": 2.5}), 400, "temperature is 2.5"),
]


def statuses_of(data):
    """The status lines in what came back, found by reading the messages' lengths."""
    out, rest = [], data
    while rest.startswith(b"HTTP/1.1 "):
        head, sep, body = rest.partition(b"\r\n\r\n")
        if not sep:
            break
        out.append(int(rest[9:12]))
        fields = {k.strip().lower(): v.strip() for k, _, v in (line.partition(b":") for line in head.split(b"\r\n")[1:])}
        rest = body[int(fields.get(b"content-length", b"0")):]
    return out


def exchange(port, data, want, shut=False):
    """Sends, reads until the wanted number of answers is there or the server closes; then whether it closed."""
    s = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
    out, closed = b"", False
    sender = threading.Thread(target=lambda: send_all(s, data, shut), daemon=True)
    if len(data) > 100000:
        sender.start()
    else:
        send_all(s, data, shut)
    try:
        while True:
            if len(statuses_of(out)) >= want and s.gettimeout() != 0.05:
                s.settimeout(0.05)  # whether it closes as well
            got = s.recv(1 << 16)
            if not got:
                closed = True
                break
            out += got
    except socket.timeout:
        pass
    except ConnectionError:
        closed = True
    s.close()
    return out, closed


def send_all(s, data, shut):
    try:
        s.sendall(data)
        if shut:
            s.shutdown(socket.SHUT_WR)
    except OSError:
        pass


def probe(port, name, data, want, *rules):
    want = want if isinstance(want, list) else [want]
    head_only = data.startswith(b"HEAD")
    out, closed = exchange(port, data, len(want))
    got = [int(out[9:12])] if head_only and out.startswith(b"HTTP/1.1 ") else statuses_of(out)
    right = len(got) == len(want) and all(g in w if isinstance(w, list) else g == w for g, w in zip(got, want))
    for rule in rules:
        if rule == "closes":
            right &= closed
        elif rule == "no body":
            right &= out.endswith(b"\r\n\r\n")
        elif rule != "closes or not":
            right &= rule.encode() in out
    check(name, right, "%s (%s) for %r" % (out[:300], "closed" if closed else "open", data[:120]))


def half_closed(port):
    """A client that ends its sending side after the request gets its answer, one that leaves is noticed."""
    long = json.dumps({"prompt": "a", "max_tokens": 300, "ignore_eos": True}).encode()
    out, closed = exchange(port, POST + b"Content-Length: %d\r\n\r\n" % len(long) + long, 9, shut=True)
    check("half-closed: the answer comes", b"200 OK" in out and b'"completion_tokens":300' in out and closed, out[:300])
    stream = json.dumps({"prompt": "a", "max_tokens": 50, "ignore_eos": True, "stream": True}).encode()
    out, closed = exchange(port, POST + b"Content-Length: %d\r\n\r\n" % len(stream) + stream, 9, shut=True)
    check("half-closed: a stream comes whole", out.rstrip().endswith(b"0") and b"data: [DONE]" in out and closed, out[-200:])
    out, closed = exchange(port, GET + b"\r\n" + WITH_LENGTH + b"\r\n" + J, 9, shut=True)
    check("half-closed: both of two requests are answered", statuses_of(out.replace(b"HTTP/1.1 100 Continue\r\n\r\n", b""))[:2] == [200, 200] and closed, out[:600])
    out, closed = exchange(port, WITH_LENGTH + b"\r\n" + J[:5], 9, shut=True)
    check("half-closed within a body: the connection ends without an answer", closed and not out, out[:200])
    out, closed = exchange(port, b"", 9, shut=True)
    check("half-closed without a request: the connection ends", closed and not out, out[:200])


def main():
    work = tempfile.TemporaryDirectory()
    model = os.path.join(work.name, "tiny.gguf")
    subprocess.run([os.path.join(os.path.dirname(BINARY), "tests", "make_tiny_model"), model], check=True)
    server = Served(BINARY, model, "--threads", "1", "--no-pack-cache")
    for row in TABLE:
        probe(server.port, *row)
    half_closed(server.port)
    out, _ = exchange(server.port, GET + b"\r\n", 1)
    check("the server lives", out.startswith(b"HTTP/1.1 200 "), out[:200])
    server.process.send_signal(signal.SIGTERM)
    start = time.monotonic()
    check("and ends", server.process.wait(60) == 0, "after %.1f s" % (time.monotonic() - start))
    finish()


main()
