#!/usr/bin/env python3
"""One client against the others: it attacks in ten ways, and a second client's short requests and the probe are timed.

    tests/torture/hostile.py build/release/specdec            each attack for a moment
    tests/torture/hostile.py build/release/specdec --full     each for 20 s on a server of its own
    tests/torture/hostile.py build/release/specdec --only slots,bodies

Full: the second client's p99 is at most 1 s and /health's at most 50 ms, the memory stays within what the server was given
(its start, the KV memory that it names, --body-memory, and 64 MB), and SIGTERM ends it within its drain. Otherwise the limits are
five times as wide, for machines with other work. Prints TAP. Needs SmolLM2-135M-Instruct.Q4_1.gguf in $SPECDEC_MODELS.
"""
import os
import re
import signal
import socket
import sys
import time

sys.path[:0] = [os.path.join(os.path.dirname(os.path.abspath(__file__)), d) for d in ("lib", "../e2e/lib")]
import crowd  # noqa: E402
from crowd import SLOW, Loops, Server, percentile, post  # noqa: E402
from options import parser  # noqa: E402
from tap import check, finish  # noqa: E402

options = parser(__doc__, full=True)
options.add_argument("--only", help="these attacks: slots,bodies")
options = crowd.take(options.parse_args())
FULL = options.full

SECONDS = 20 if FULL else 1.0
WIDER = 1 if FULL else 5
EVIL, HONEST, PROBE = "127.0.0.66", "127.0.0.2", "127.0.0.3"
TEXT = "The quick brown fox jumps over the lazy dog and then it sleeps. "


def held(server, loops, data, pause=3.0):
    """A connection with a request on it, read slowly, again and again."""

    def once():
        s = server.dial(EVIL, timeout=pause)
        try:
            s.sendall(data)
            while not loops.stopped.is_set() and s.recv(65536):
                pass
        finally:
            s.close()

    loops.run(once)


def sockets(server, loops):
    """1,300 idle sockets (4,200 in the long run), which are opened anew as they are closed."""
    open_ones = []

    def more():
        if len(open_ones) > (4200 if FULL else 1300):
            open_ones.pop(0).close()
        open_ones.append(server.dial(EVIL))

    loops.run(more)


def arguments(server, loops):
    """Template arguments by the 100,000."""
    kwargs = {"k%d" % i: i for i in range(100000)}
    data = post({"messages": [{"role": "user", "content": "a"}], "max_tokens": 1, "chat_template_kwargs": kwargs},
                "/v1/chat/completions")
    deep = {"messages": [{"role": "user", "content": "a", "x%d" % i: "b"} for i in range(4000)], "max_tokens": 1}
    for _ in range(3):
        held(server, loops, data)
        held(server, loops, post(deep, "/v1/chat/completions"))


def slots(server, loops):
    """48 sequences of 3,000 tokens, asked for again when they end or are refused."""
    data = post({"prompt": ["a", "b", "c"], "n": 16, "max_tokens": 3000, "ignore_eos": True, "temperature": 1, "stream": True})
    held(server, loops, data, pause=3600)
    held(server, loops, data, pause=3600)


def bodies(server, loops):
    """Bodies of 16 MB that drip, as many as the memory for bodies holds."""

    def drip():
        n = int(15.9 * 2**20)
        s = server.dial(EVIL)
        try:
            s.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                      b"Content-Length: %d\r\n\r\n" % n + b" " * (n - 1000))
            for _ in range(1000):
                if loops.stopped.is_set():
                    return
                s.sendall(b" ")
                time.sleep(0.05)
        finally:
            s.close()

    for _ in range(8):
        loops.run(drip)


def prompts(server, loops):
    """64 long prompts, again and again."""
    text = TEXT * 230  # about 3,500 tokens
    data = post({"prompt": [text] * 64, "max_tokens": 1})
    held(server, loops, data, pause=3600)
    held(server, loops, data, pause=3600)


def logprobs(server, loops):
    """Answers with all the logprobs that may be asked for."""
    data = post({"prompt": "a", "n": 16, "max_tokens": 400, "ignore_eos": True, "temperature": 1, "logprobs": 20})
    for _ in range(4):
        held(server, loops, data, pause=3600)


def pipelines(server, loops):
    """Sockets that pipeline requests for the page and read a byte now and then."""
    many = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n" * 1500
    open_ones = []

    def more():
        if len(open_ones) > 400:
            s = open_ones.pop(0)
            s.close()
        s = server.dial(EVIL, receive=2048)
        open_ones.append(s)
        s.setblocking(False)
        try:
            s.send(many)
        except BlockingIOError:
            pass
        for s in open_ones[::40]:
            try:
                s.recv(1)
            except BlockingIOError:
                pass

    loops.run(more)


def leavers(server, loops):
    """Long requests whose client leaves at once, with a reset."""
    data = post({"prompt": TEXT * 200, "max_tokens": 2000, "ignore_eos": True, "stream": True})

    def once():
        s = server.dial(EVIL)
        s.sendall(data)
        time.sleep(0.02)
        s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        s.close()

    for _ in range(4):
        loops.run(once)


def parsing(server, loops):
    """Bodies of 15 MB of JSON that are refused only when they have been read."""
    inner = b"[" + b",".join([b"1"] * 20) + b"]"
    data = post(b'{"prompt":"a","max_tokens":1,"x":[' + b",".join([inner] * 60000) + b'],"y":"' + b"z" * 12000000 + b'"}')
    for _ in range(4):
        held(server, loops, data)


def texts(server, loops):
    """64 texts of 250 KB, each of which just might fit."""
    data = post({"prompt": [(TEXT * 4000)[:250000]] * 63 + ["a"], "max_tokens": 1})
    for _ in range(4):
        held(server, loops, data)


ATTACKS = [sockets, arguments, slots, bodies, prompts, logprobs, pipelines, leavers, parsing, texts]


class Attacker:
    """The attack in a process of its own, which takes its sockets along when it ends."""

    def __init__(self, server, attack):
        self.pid = os.fork()
        if self.pid:
            return
        os.nice(5)  # the clock of the others runs on the same machine
        attack(server, Loops())
        while True:
            time.sleep(3600)

    def stop(self):
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)


class Honest:
    """A client that asks for four tokens again and again, and one that probes."""

    def __init__(self, server):
        self.loops, self.server = Loops(), server
        self.asked, self.probed, self.bad = [], [], []
        self.loops.run(self.ask)
        self.loops.run(self.probe)

    def ask(self):
        start = time.monotonic()
        try:
            status, _, answer = self.server.ask(HONEST, "POST", "/v1/completions", {"prompt": "Hello", "max_tokens": 4})
            if status != 200:
                self.bad.append((status, answer[:200]))
        except OSError as e:
            self.bad.append(repr(e))
        self.asked.append(time.monotonic() - start)
        time.sleep(0.02)

    def probe(self):
        start = time.monotonic()
        try:
            status, _, _ = self.server.ask(PROBE, "GET", "/health")
            if status != 200:
                self.bad.append(("health", status))
        except OSError as e:
            self.bad.append(repr(e))
        self.probed.append(time.monotonic() - start)
        time.sleep(0.01)


def kv_mb(server):
    return next(float(m.group(1)) for line in server.lines if (m := re.search(r"KV memory ([0-9.]+) MiB", line)))


def run(server, attack, base):
    attacker = Attacker(server, attack)
    time.sleep(min(2, SECONDS))  # it is under way
    honest, peak = Honest(server), 0
    end = time.monotonic() + SECONDS * SLOW
    while time.monotonic() < end or (not honest.asked and time.monotonic() < end + 30 * SLOW):
        peak = max(peak, server.rss_mb())
        time.sleep(0.1)
    honest.loops.stop()
    name = attack.__name__
    p99, health = percentile(honest.asked, 0.99), percentile(honest.probed, 0.99)
    budget = base + kv_mb(server) + 128 + 64
    figures = "request p50 %.0f p99 %.0f ms of %d, health p99 %.1f ms of %d, rss %.0f of %.0f MB" % (
        percentile(honest.asked, 0.5) * 1e3, p99 * 1e3, len(honest.asked), health * 1e3, len(honest.probed), peak, budget)
    print(f"# {attack.__name__}: {figures}")
    check(f"{name}: others are served", not honest.bad, "\n".join(map(str, honest.bad[:5])))
    check(f"{name}: a short request of another, and the probe, are answered in time",
          p99 <= 1.0 * WIDER * SLOW and health <= 0.05 * WIDER * SLOW, figures)
    check(f"{name}: the memory stays within its budget", peak <= budget, figures)
    return attacker


def end(server, drain, name):
    status, seconds = server.stop()
    check(f"{name}: SIGTERM ends the server within its drain", status == 0 and seconds < (drain + 2) * SLOW, (status, seconds))


def main():
    crowd.need_model("hostile clients")
    attacks = [a for a in ATTACKS if not options.only or a.__name__ in options.only.split(",")]
    server = None
    for attack in attacks:
        if FULL or not server:
            server = Server("--drain", "1", descriptors=1024)
            base = server.rss_mb()
        attacker = run(server, attack, base)
        if FULL:
            end(server, 1, attack.__name__)
        attacker.stop()
        if not FULL:
            check(f"{attack.__name__}: nothing of it stays", server.wait_metric("num_requests_running", 0, 20)
                  and server.wait_metric("num_requests_reading", 0, 20), server.lines[-3:])
    if not FULL:
        end(server, 1, "all")
    finish()


main()
