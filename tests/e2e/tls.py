#!/usr/bin/env python3
"""TLS against Python's ssl and OpenSSL: versions, answers and streams, certificates that change, and clients that do not do as they should.

    tls.py SPECDEC

Needs tests/make_tiny_model beside the binary (the target unit_tests) and the command openssl. Prints TAP.
"""
import http.client
import json
import os
import re
import shutil
import signal
import socket
import ssl
import struct
import subprocess
import sys
import tempfile
import threading
import time
import warnings

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
from options import parser  # noqa: E402
from served import SLOW, Served  # noqa: E402
from tap import check, finish, skip  # noqa: E402

options = parser(__doc__).parse_args()
BINARY = os.path.abspath(options.binary)
TINY = os.path.join(os.path.dirname(BINARY), "tests", "make_tiny_model")
SMALL = ("--ctx", "512", "--slots", "4", "--threads", "1")
HANDSHAKE_S = 10


def openssl(*args):
    subprocess.run(["openssl", *args], check=True, capture_output=True)


def make_pair(where, name, *more):
    cert, key = os.path.join(where, name + ".pem"), os.path.join(where, name + ".key")
    openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", key, "-out", cert, "-days", "2", "-subj", f"/CN={name}",
            "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", *more)
    os.chmod(key, 0o600)
    return cert, key


def trusting(*certs, low=None, high=None):
    c = ssl.create_default_context()
    for cert in certs:
        c.load_verify_locations(cert)
    if low:
        c.minimum_version = low
    if high:
        c.maximum_version = high
    return c


def shaken(port, context, timeout=30):
    return context.wrap_socket(socket.create_connection(("127.0.0.1", port), timeout=timeout * SLOW), server_hostname="localhost")


def read_all(s):
    out = b""
    while True:
        piece = s.recv(65536)
        if not piece:
            return out
        out += piece


def post(path, body, close=True):
    data = json.dumps(body).encode()
    return (f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(data)}\r\n" + ("Connection: close\r\n" if close else "") + "\r\n").encode() + data


def answers(s, context):
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        context.minimum_version = context.maximum_version = version
        c = shaken(s.port, context)
        c.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        got = read_all(c)  # raises where the end comes without TLS's own word
        check(f"{version.name}: an answer, and its end is said", got.startswith(b"HTTP/1.1 200") and c.version() == version.name.replace("_", "."), (got, c.version()))
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    warnings.simplefilter("ignore", DeprecationWarning)
    old = trusting()
    old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
    old.set_ciphers("ALL:@SECLEVEL=0")
    old.minimum_version, old.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1
    try:
        shaken(s.port, old)
        check("TLS 1.1 is refused", False)
    except (ssl.SSLError, ConnectionError):
        check("TLS 1.1 is refused", True)
    context.set_alpn_protocols(["h2", "http/1.1"])
    check("HTTP/1.1 is chosen among what a client offers", shaken(s.port, context).selected_alpn_protocol() == "http/1.1")
    c = http.client.HTTPSConnection("localhost", s.port, context=context, timeout=60 * SLOW)
    texts = []
    for _ in range(5):
        c.request("POST", "/v1/completions", json.dumps({"prompt": [1, 2], "max_tokens": 50, "ignore_eos": True, "temperature": 0}), {"Content-Type": "application/json"})
        r = c.getresponse()
        texts.append((r.status, json.loads(r.read())["choices"][0]["text"]))
    check("five answers over one connection", len(set(texts)) == 1 and texts[0][0] == 200, texts)
    big = {"prompt": "a " * 1_000_000, "max_tokens": 1}
    c.request("POST", "/v1/completions", json.dumps(big), {"Content-Type": "application/json"})
    r = c.getresponse()
    r.read()
    check("a body of 2 MB comes whole", r.status == 400, r.status)
    c.request("POST", "/v1/completions", json.dumps({"prompt": [1, 2], "max_tokens": 450, "ignore_eos": True, "stream": True}), {"Content-Type": "application/json"})
    got = c.getresponse().read()
    check("a stream comes whole", got.count(b"data: ") > 100 and got.rstrip().endswith(b"data: [DONE]"), got[-200:])
    c.close()
    c = shaken(s.port, context)
    c.sendall(post("/tokenize", {"prompt": "a"}, close=False) * 20 + b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    got = read_all(c)
    check("twenty requests in one record are all answered", got.count(b"HTTP/1.1 200") == 21, got[-300:])
    c = shaken(s.port, context)
    for byte in b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n":
        c.send(bytes([byte]))
    check("a request of one byte a record", read_all(c).endswith(b"ok\n"))


def leaving(s, context):
    """Clients that go while they are answered, politely and not, free their slots."""
    for name, end in (("with a word", lambda c: c.unwrap()), ("without one", lambda c: c.close()),
                      ("by a reset", lambda c: (c.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)), c.close()))):
        cs = [shaken(s.port, context) for _ in range(3)]
        for c in cs:
            c.sendall(post("/v1/completions", {"prompt": [1], "max_tokens": 450, "n": 4, "ignore_eos": True, "stream": True}))
            c.recv(1000)
        for c in cs:
            try:
                end(c)
            except OSError:
                pass
        took = s.wait_metric("num_requests_running", 0, 20)
        check(f"clients that leave {name} free their slots", took is not None, took)


def hostile(s, context):
    plain = socket.create_connection(("127.0.0.1", s.port), timeout=30 * SLOW)
    plain.sendall(b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\n" + b"X-Filler: %s\r\n" % (b"x" * 3000) + b"\r\n")
    got = read_all(plain)
    check("HTTP without TLS is told so", got.startswith(b"HTTP/1.1 400") and b"this port speaks TLS; use https://" in got, got)
    plain = socket.create_connection(("127.0.0.1", s.port), timeout=30 * SLOW)
    plain.sendall(post("/v1/completions", {"prompt": "a" * 200_000}))
    try:
        got = read_all(plain)
    except ConnectionError as e:
        got = repr(e).encode()
    check("also behind a body", b"this port speaks TLS" in got, got[:300])
    hello = b"\x16\x03\x01"
    for name, data in (("noise", bytes(range(256)) * 20), ("zeros", bytes(100)), ("a record that is too long", hello + b"\xff\xff" + bytes(70000)), ("SSL 2", b"\x80\x2e\x01\x00\x02" + bytes(60)),
                       ("an alert", b"\x15\x03\x01\x00\x02\x02\x28"), ("application data", b"\x17\x03\x03\x00\x10" + bytes(16)), ("an empty record", hello + b"\x00\x00"),
                       ("a hello that is none", hello + b"\x00\x40\x01\x00\x00\x3c" + os.urandom(60))):
        c = socket.create_connection(("127.0.0.1", s.port), timeout=(HANDSHAKE_S + 10) * SLOW)
        try:
            c.sendall(data)
            got = read_all(c)
        except ConnectionError:
            got = b""
        check(f"{name}: the connection ends", b"HTTP" not in got, got)
    c = shaken(s.port, context)
    os.write(c.fileno(), os.urandom(500))  # beneath TLS
    try:
        got = read_all(c)
    except (OSError, ssl.SSLError):
        got = b""
    check("noise after the handshake: the connection ends", got == b"", got)
    check("the server answers as before", request(s, context, "GET", "/livez") == 200)


def request(s, context, method, path):
    c = http.client.HTTPSConnection("localhost", s.port, context=context, timeout=30 * SLOW)
    try:
        c.request(method, path)
        r = c.getresponse()
        r.read()
        return r.status
    finally:
        c.close()


def half_open(s, context):
    """Handshakes that are begun and not ended: others are answered meanwhile, and they are shed."""
    first = ssl.MemoryBIO()
    out = ssl.MemoryBIO()
    try:
        context.wrap_bio(first, out, server_hostname="localhost").do_handshake()
    except ssl.SSLWantReadError:
        pass
    hello = out.read()
    socks = []
    start = time.monotonic()
    for i in range(300):
        c = socket.create_connection(("127.0.0.1", s.port), timeout=(HANDSHAKE_S + 20) * SLOW)
        c.sendall((b"", hello[:3], hello[:-1], hello)[i % 4])
        socks.append(c)
    check("300 half-open handshakes keep nobody waiting", all(request(s, context, "GET", "/livez") == 200 for _ in range(10)) and time.monotonic() - start < HANDSHAKE_S * SLOW)
    ends = []
    for c in socks[::10]:
        try:
            read_all(c)
        except ConnectionError:
            pass
        ends.append(time.monotonic() - start)
    check(f"they are closed after {HANDSHAKE_S} s", HANDSHAKE_S - 1 < min(ends) and max(ends) < (HANDSHAKE_S + 8) * SLOW, (min(ends), max(ends)))
    for c in socks:
        c.close()


def certificates(where, model):
    """Files that cannot be used are refused in one sentence; new ones are taken at SIGHUP."""
    cert, key = make_pair(where, "first")
    other, other_key = make_pair(where, "second")
    bad = os.path.join(where, "bad.pem")
    open(bad, "w").write("no certificate\n")
    locked = os.path.join(where, "locked.key")
    openssl("pkey", "-in", key, "-aes256", "-passout", "pass:secret", "-out", locked)
    os.chmod(locked, 0o600)
    loose = os.path.join(where, "loose.key")
    shutil.copy(key, loose)
    os.chmod(loose, 0o644)
    empty = os.path.join(where, "empty.key")
    open(empty, "w").close()
    os.chmod(empty, 0o600)
    for name, c, k, what in (("a key that others can open", cert, loose, "loose.key: a key that others can open (mode 0644) is no secret; chmod o-rwx it"),
                             ("a key with a passphrase", cert, locked, "locked.key: the key has a passphrase"), ("another certificate's key", cert, other_key, "is not the key of the certificate"),
                             ("no key in the file", cert, empty, "empty.key: is no private key in PEM"), ("no certificate in the file", bad, key, "bad.pem: is no certificate in PEM"),
                             ("no such key", cert, os.path.join(where, "none"), "none"), ("no such certificate", os.path.join(where, "none"), key, "none"), ("a folder", where, key, where),
                             ("a certificate alone", cert, None, "--tls-cert and --tls-key go together; give both"), ("a key alone", None, key, "go together")):
        args = (["--tls-cert", c] if c else []) + (["--tls-key", k] if k else [])
        r = subprocess.run([BINARY, "serve", "-m", model, "--port", "0", *args], capture_output=True, text=True, timeout=60 * SLOW, stdin=subprocess.DEVNULL)
        check(f"{name}: refused in one sentence", r.returncode == 2 and what in r.stderr and r.stderr.count("\n") == 1, r.stderr)

    served, served_key = os.path.join(where, "served.pem"), os.path.join(where, "served.key")

    def place(c, k):
        for a, b in ((c, served), (k, served_key)):
            shutil.copy(a, b + ".new")
            os.chmod(b + ".new", 0o600)
            os.rename(b + ".new", b)

    place(cert, key)
    both = trusting(cert, other)
    s = Served(BINARY, model, *SMALL, "--tls-cert", served, "--tls-key", served_key, context=both)

    def name_of():
        with shaken(s.port, both) as c:
            return dict(x[0] for x in c.getpeercert()["subject"])["commonName"]

    check("the address is https", "https://127.0.0.1" in s.lines[-1], s.lines)
    running = shaken(s.port, both)
    running.sendall(post("/v1/completions", {"prompt": [1], "max_tokens": 450, "ignore_eos": True, "stream": True}))
    running.recv(100)
    place(other, other_key)
    check("the certificate is the first", name_of() == "first")
    s.process.send_signal(signal.SIGHUP)
    end = time.monotonic() + 30 * SLOW
    while name_of() != "second" and time.monotonic() < end:
        time.sleep(0.05)
    check("SIGHUP takes the second", name_of() == "second")
    check("what runs goes on under the first", read_all(running).rstrip().endswith(b"0") and running.getpeercert()["subject"][0][0][1] == "first")
    place(cert, other_key)
    s.process.send_signal(signal.SIGHUP)
    end = time.monotonic() + 30 * SLOW
    while not any("not reloaded" in l for l in s.lines) and time.monotonic() < end:
        time.sleep(0.05)
    check("a pair that is none changes nothing, and is said", name_of() == "second" and "is not the key" in s.lines[-1], s.lines[-1])
    return s, both, lambda: place(cert, key)


def handed_over(s, context, place_good):
    """A new program takes over a port with TLS, when its certificate is one; clients notice nothing."""
    failed, answered, stop = [], [0], []

    def ask():
        while not stop:
            try:
                status = request(s, context, "GET", "/v1/models")
                answered[0] += 1
                if status != 200:
                    failed.append(status)
            except OSError as e:
                failed.append(repr(e))

    def said(what):
        end = time.monotonic() + 30 * SLOW
        while time.monotonic() < end:
            found = [re.search(what, l) for l in s.lines if re.search(what, l)]
            if found:
                return found[0]
            time.sleep(0.05)

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for t in threads:
        t.start()
    s.process.send_signal(signal.SIGUSR2)  # the pair on disk is none since the test before
    check("a new program without a certificate leaves the old one serving", said("this one serves on: .* is not the key"), s.lines[-2:])
    place_good()
    s.process.send_signal(signal.SIGUSR2)
    new = said(r"handed over to process (\d+)")
    check("one with a certificate takes over", new and s.process.wait(60 * SLOW) == 0 and request(s, context, "GET", "/livez") == 200, s.lines[-2:])
    time.sleep(0.2)
    stop.append(1)
    for t in threads:
        t.join()
    check("and no request failed", not failed and answered[0] > 10, (answered, failed[:3]))
    if new:
        os.kill(int(new[1]), signal.SIGTERM)


def main():
    if not os.path.exists(TINY) or not shutil.which("openssl"):
        skip("tls", "make_tiny_model (target unit_tests) or openssl is not there")
        return
    with tempfile.TemporaryDirectory(prefix="tls-") as where:
        model = os.path.join(where, "tiny.gguf")
        if subprocess.run([TINY, model]).returncode:
            raise SystemExit("not ok - tls: make_tiny_model failed")
        os.environ["XDG_CACHE_HOME"] = os.path.join(where, "cache")
        s, context, place_good = certificates(where, model)
        answers(s, context)
        leaving(s, context)
        hostile(s, context)
        half_open(s, context)
        handed_over(s, context, place_good)
    finish()


main()
