#!/usr/bin/env python3
"""The life of a server as operators see it: what a service manager hands in and is told, reloads, the access log, and programs that take over under load.

    life.py SPECDEC [--full] [--restarts N]

--full: 100 restarts under load (about three minutes), else 4. Needs tests/make_tiny_model beside the binary (the target unit_tests). Prints TAP.
"""
import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
from options import parser  # noqa: E402
from served import SLOW, Served  # noqa: E402
from tap import check, finish, skip  # noqa: E402

options = parser(__doc__, full=True)
options.add_argument("--restarts", type=int)
options = options.parse_args()
BINARY = os.path.abspath(options.binary)
TINY = os.path.join(os.path.dirname(BINARY), "tests", "make_tiny_model")
RESTARTS = options.restarts or (100 if options.full else 4)
SMALL = ("--ctx", "256", "--slots", "4", "--threads", "1")


def wait_for(what, limit=30):
    """What `what` gives once it is true; None when it never is."""
    end = time.monotonic() + limit * SLOW
    while time.monotonic() < end:
        got = what()
        if got:
            return got
        time.sleep(0.01)
    return None


def said(server, text, limit=30):
    return wait_for(lambda: next((l for l in server.lines if text in l), None), limit)


class Notified:
    """A service manager's socket."""

    def __init__(self, address):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind("\0" + address[1:] if address[0] == "@" else address)
        self.socket.settimeout(30 * SLOW)

    def next(self):
        try:
            return self.socket.recv(4096).decode()
        except TimeoutError:
            return ""


# ---- a service manager

def notify(model, where):
    for address in (os.path.join(where, "notify"), f"@specdec-test-{os.getpid()}"):
        n = Notified(address)
        s = Served(BINARY, model, *SMALL, env={**os.environ, "NOTIFY_SOCKET": address})
        first = n.next()
        check(f"READY=1 is said at {address[0]}... when requests are answered", first.startswith("READY=1\nSTATUS=serving ") and s.request("GET", "/health")[0] == 200, first)
        s.process.send_signal(signal.SIGHUP)
        reloading, ready = n.next(), n.next()
        at = re.fullmatch(r"RELOADING=1\nMONOTONIC_USEC=(\d+)", reloading)
        check("a reload is said at its beginning and its end", at and 0 <= time.monotonic() - int(at[1]) / 1e6 < 60 * SLOW and ready == "READY=1", (reloading, ready))
        code = s.stop()
        check("and the end", n.next() == "STOPPING=1" and code == 0, code)
    for address in ("", "relative", "/no/such/socket", "@" + "x" * 200):
        s = Served(BINARY, model, *SMALL, env={**os.environ, "NOTIFY_SOCKET": address})
        check(f"nobody at NOTIFY_SOCKET={address[:20]!r} ends nothing", s.stop() == 0)


def activated(model, fds, *options, pid=None, make=None):
    """A server that is handed sockets as systemd does it: descriptors from 3, and its own process id."""
    listeners = []
    for _ in range(max(1, fds)):
        l = (make or socket.socket)()
        if l.family == socket.AF_INET:
            l.bind(("127.0.0.1", 0))
        l.listen(64) if make is None else None
        listeners.append(l)

    def hand_in():
        copies = [os.dup2(os.dup(l.fileno()), 60 + i) for i, l in enumerate(listeners)]
        for i, copy in enumerate(copies):
            os.dup2(copy, 3 + i)
    script = 'export LISTEN_PID=${PID:-$$} LISTEN_FDS=$N; exec "$@"'
    p = subprocess.Popen(["sh", "-c", script, "sh", BINARY, "serve", "-m", model, *options], preexec_fn=hand_in, close_fds=False, stderr=subprocess.PIPE, text=True,
                         env={**os.environ, "N": str(fds), **({"PID": str(pid)} if pid else {})})
    return p, listeners


def socket_activation(model):
    p, (l,) = activated(model, 1, *SMALL, "--host", "192.0.2.1", "--port", "1")
    port = l.getsockname()[1]
    c = http.client.HTTPConnection("127.0.0.1", port, timeout=60 * SLOW)
    c.request("GET", "/health")  # perhaps before the model is loaded: then the request waits
    check("a socket that is handed in is served, whatever --host and --port say", c.getresponse().status == 200)
    p.send_signal(signal.SIGTERM)
    err = p.communicate(timeout=60 * SLOW)[1]
    check("and the server ends well", p.returncode == 0 and f":{port}" in err, err)
    l.close()
    for name, fds, make, what in (("two sockets", 2, None, "one socket is served"), ("a socket that does not listen", 1, socket.socket, "no TCP socket that listens"),
                                  ("a datagram socket", 1, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM), "no TCP socket that listens")):
        p, ls = activated(model, fds, *SMALL, make=make)
        err = p.communicate(timeout=60 * SLOW)[1]
        check(f"{name}: refused in one sentence", p.returncode == 2 and what in err and err.count("\n") == 1, err)
        for l in ls:
            l.close()
    p, ls = activated(model, 1, *SMALL, "--port", "0", pid=1)
    first = [p.stderr.readline() for _ in range(2)][-1]
    check("another process's sockets are not taken", "serving" in first and f":{ls[0].getsockname()[1]}:" not in first, first)
    p.kill()
    p.communicate()


def signals(model):
    s = Served(BINARY, model, *SMALL)
    for number in (signal.SIGUSR1, signal.SIGALRM, signal.SIGVTALRM, signal.SIGPROF, signal.SIGPOLL, signal.SIGPWR, signal.SIGRTMIN, signal.SIGRTMAX):
        s.process.send_signal(number)
    check("signals that mean nothing end no server", s.request("GET", "/health")[0] == 200 and s.stop() == 0)


# ---- reloads and the access log

def reloads(model, where):
    config, log = os.path.join(where, "serve.yaml"), os.path.join(where, "access")
    hashed = subprocess.run([BINARY, "key", "new", "ops", "--admin", "--json"], capture_output=True, text=True)
    ops = json.loads(hashed.stdout)

    def write(*lines):
        with open(config, "w") as f:
            f.write("\n".join([f"access_log: {log}", *lines]) + "\n")

    write("keys:", "  - key-of-alice", f"  - {ops['line']}", "drain: 7")
    s = Served(BINARY, model, *SMALL, "--config", config)

    def models(key, **headers):
        return s.request("GET", "/v1/models", headers={"Authorization": f"Bearer {key}", **headers})

    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    asked = {"Authorization": f"Bearer {ops['key']}", "traceparent": trace, "x-request-id": "asked-1"}
    status, _, _ = s.request("POST", "/v1/completions", {"prompt": "a", "max_tokens": 2, "user": "anna \"b\" " + "é" * 100}, headers=asked)
    check("a key of the file's section is known", status == 200 and models("key-of-alice")[0] == 200 and models("key-of-bob-1")[0] == 401, status)
    models("key-of-alice", traceparent="00-not-a-trace")
    line = wait_for(lambda: open(log).read().count("\n") == 4 and [json.loads(l) for l in open(log)])
    check("the log has key, user and trace", line and line[0]["key"] == "ops" and line[0]["trace"] == trace and line[0]["id"] == "asked-1"
          and line[0]["user"].startswith('anna "b" é') and len(line[0]["user"].encode()) <= 128 and "adapter" not in line[0], line)
    check("and neither where there is none, or it is not one", line and len(line[1]["key"]) == 8 and "key" not in line[2] and "trace" not in line[3] and "user" not in line[1], line)
    text = open(log).read()
    check("but no key", ops["key"] not in text and "key-of" not in text)

    write("keys:", "  - key-of-bob-1", "drain: 8", "cors: '*'", "queue: 9")
    os.rename(log, log + ".1")
    s.process.send_signal(signal.SIGHUP)
    said(s, "reloaded: 1 API keys")
    check("SIGHUP takes the file's keys", models("key-of-bob-1")[0] == 200 and models("key-of-alice")[0] == 401)
    check("and origins", "access-control-allow-origin" in models("key-of-bob-1", Origin="https://a.example")[1])
    check("what only a start takes is said", said(s, "--queue has changed: the next start takes it"), s.lines)
    check("the log goes on in a new file", wait_for(lambda: os.path.exists(log) and "key" in open(log).read()))
    write("keys:", "  - key-of-eve-1", "drian: 9")
    s.process.send_signal(signal.SIGHUP)
    check("a mistake changes nothing, and is said with its place", said(s, f"not reloaded, all is as before: {config}:4:1: unknown key 'drian'; did you mean 'drain'?") and
          models("key-of-bob-1")[0] == 200 and models("key-of-eve-1")[0] == 401, s.lines)
    check("the server ends well", s.stop() == 0)


# ---- hand-over

class Load:
    """Clients that ask again and again: some over one connection for as long as they may, some with one each time."""

    def __init__(self, port, clients=6):
        self.port, self.stop, self.failed, self.answered, self.lock = port, False, [], 0, threading.Lock()
        self.threads = [threading.Thread(target=self.run, args=(i,)) for i in range(clients)]
        for t in self.threads:
            t.start()

    def run(self, i):
        c = None
        body = json.dumps({"prompt": [1, 2, 3], "max_tokens": 8 + i, "ignore_eos": True, "stream": i % 3 == 2})
        while not self.stop:
            try:
                if c is None:
                    c = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60 * SLOW)
                c.request("POST", "/v1/completions", body, {"Content-Type": "application/json", **({"Connection": "close"} if i % 2 else {})})
                r = c.getresponse()
                text = r.read()
                whole = b"data: [DONE]" in text if i % 3 == 2 else b'"finish_reason"' in text
                with self.lock:
                    self.answered += 1
                    if r.status != 200 or not whole:
                        self.failed.append(f"{r.status} {text[:200]}")
                if i % 2 or r.getheader("connection", "") == "close":
                    c.close()
                    c = None
            except (OSError, http.client.HTTPException) as e:
                with self.lock:
                    self.failed.append(repr(e))
                c = None

    def end(self):
        self.stop = True
        for t in self.threads:
            t.join()


def alive(pid):
    try:
        return open(f"/proc/{pid}/stat").read().split(") ")[1][0] != "Z"
    except OSError:
        return False


def hand_overs(model, where):
    log = os.path.join(where, "said")
    with open(log, "w") as f:  # each program inherits it
        p = subprocess.Popen([BINARY, "serve", "-m", model, "--port", "0", *SMALL, "--drain", "20", "--queue", "64"], stderr=f)
    text = wait_for(lambda: re.search(r"serving .* at http://[^ ]*:(\d+)", open(log).read()))
    port, pid, first = int(text[1]), p.pid, p
    load = Load(port)
    idle = http.client.HTTPConnection("127.0.0.1", port, timeout=60 * SLOW)
    idle.request("GET", "/health")
    idle.getresponse().read()
    worst = 0
    for n in range(RESTARTS):
        os.kill(pid, signal.SIGUSR2)
        start = time.monotonic()
        found = wait_for(lambda: re.findall(r"handed over to process (\d+)", open(log).read())[n:], 60)
        worst = max(worst, time.monotonic() - start)
        if not found:
            break
        if n == 0:
            time.sleep(1)
            idle.request("GET", "/health")
            r = idle.getresponse()
            check("a connection that was idle is served once more, and closed", r.status == 200 and r.read() and r.getheader("connection") == "close", r.getheaders())
        old, pid = pid, int(found[0])
        if not wait_for(lambda: not alive(old), 40):
            check("the old program ends", False, open(log).read()[-400:])
    load.end()
    check(f"{RESTARTS} restarts under load: 0 failed requests", found and not load.failed and load.answered > 20 * RESTARTS,
          f"{load.answered} answered, {len(load.failed)} failed: {load.failed[:5]}\n{open(log).read()[-600:]}")
    print(f"# {load.answered} requests, {len(load.failed)} failed, at most {worst:.2f} s until a new program had taken over")
    check("the first program ended with 0", first.wait(30 * SLOW) == 0)

    # Idle connections of a program that has handed over, and one that nobody uses.
    silent = socket.create_connection(("127.0.0.1", port))
    silent.settimeout(30 * SLOW)
    time.sleep(0.3)
    start = time.monotonic()
    os.kill(pid, signal.SIGUSR2)
    found = wait_for(lambda: re.findall(r"handed over to process (\d+)", open(log).read())[RESTARTS:], 60)
    got = silent.recv(1)
    check("an idle connection is kept for 5 s", got == b"" and 4 < time.monotonic() - start < 30 * SLOW, time.monotonic() - start)
    check("and the program ends then", wait_for(lambda: not alive(pid), 20))
    pid = int(found[0])
    os.kill(pid, signal.SIGTERM)
    check("the last one drains at SIGTERM", wait_for(lambda: not alive(pid), 40), open(log).read()[-300:])


def failing_hand_overs(model, where):
    """A new program that fails leaves the old one serving, and why is said."""
    config, home = os.path.join(where, "over.yaml"), os.path.join(where, "bin")
    os.mkdir(home)
    binary = os.path.join(home, "specdec")
    shutil.copy(BINARY, binary)
    open(config, "w").write("ctx: 256\n")
    s = Served(binary, model, "--slots", "2", "--config", config)

    def fails(name, why):
        s.lines.clear()
        s.process.send_signal(signal.SIGUSR2)
        line = said(s, "this one serves on") or said(s, "this server serves on", 1)
        check(f"{name}: the old program serves on and says why", line and re.search(why, line) and s.request("GET", "/health")[0] == 200, s.lines)

    open(config, "w").write("ctx: 256\nctxx: 1\n")
    fails("a mistake in the configuration", r"over.yaml:2:1: unknown key 'ctxx'")
    open(config, "w").write("ctx: 1000000\n")
    fails("a context that does not fit", r"ctx")
    open(config, "w").write("ctx: 256\n")
    os.unlink(binary)
    fails("no program", r"No such file")
    open(binary, "w").write("#!/bin/sh\nexit 7\n")
    os.chmod(binary, 0o755)
    fails("a program that knows nothing of it", r"exit code 7")
    open(binary, "w").write("#!/bin/sh\nkill -9 $$\n")
    fails("one that is killed", r"signal 9")
    open(binary, "w").write("#!/bin/sh\nexec 4>&-\nexec sleep 1000\n")
    fails("one that never answers", r"signal 9")
    open(binary, "w").write("#!/bin/sh\nexec sleep 1000\n")
    s.lines.clear()
    s.process.send_signal(signal.SIGUSR2)
    said(s, "handing over: process")
    s.process.send_signal(signal.SIGUSR2)
    check("a second signal meanwhile is refused", said(s, "is starting already"), s.lines)
    started = int(re.search(r"process (\d+) starts", " ".join(s.lines))[1])
    check("SIGTERM ends both", s.stop() == 0 and not alive(started))


def main():
    if not os.path.exists(TINY):
        skip("life", f"{TINY} is not built (target unit_tests)")
        return
    with tempfile.TemporaryDirectory(prefix="life-") as where:
        model = os.path.join(where, "tiny.gguf")
        if subprocess.run([TINY, model]).returncode:
            raise SystemExit("not ok - life: make_tiny_model failed")
        os.environ["XDG_CACHE_HOME"] = os.path.join(where, "cache")
        notify(model, where)
        socket_activation(model)
        signals(model)
        reloads(model, where)
        failing_hand_overs(model, where)
        hand_overs(model, where)
    finish()


main()
