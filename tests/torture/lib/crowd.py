"""Clients with addresses of their own (127.0.0.2, .3, ...) for a server that tells clients by address."""
import http.client
import json
import os
import re
import resource
import socket
import sys
import tempfile
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "e2e", "lib"))
import tap  # noqa: E402
from served import SLOW, Served  # noqa: E402

BINARY = None  # of the script's command line
MODELS = os.environ.get("SPECDEC_MODELS", os.path.expanduser("~/.cache/specdec/models"))
MODEL = os.path.join(MODELS, "SmolLM2-135M-Instruct.Q4_1.gguf")
SELF = "127.0.0.250"  # who looks at metrics


def take(options):
    """The script's command line, before a server is started."""
    global BINARY
    BINARY = options.binary
    return options


def need_model(what):
    if not os.path.exists(MODEL):
        tap.skip(what, f"no {MODEL}")
        sys.exit(0)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def percentile(values, p):
    values = sorted(values)
    return values[min(len(values) - 1, int(len(values) * p))] if values else float("nan")


class Server(Served):
    def __init__(self, *options, descriptors=None):
        command = BINARY
        if descriptors:
            command = os.path.join(tempfile.mkdtemp(), "specdec")
            with open(command, "w") as f:
                f.write(f'#!/bin/sh\nulimit -n {descriptors}\nexec "{os.path.abspath(BINARY)}" "$@"\n')
            os.chmod(command, 0o755)
        super().__init__(command, MODEL, *options, limit=120 * SLOW)

    def rss_mb(self):
        if self.process.poll() is not None:
            raise RuntimeError(f"the server ended with {self.process.returncode}: " + " | ".join(self.lines[-5:]))
        with open(f"/proc/{self.process.pid}/status") as f:
            return int(re.search(r"VmRSS:\s+(\d+)", f.read()).group(1)) / 1024

    def dial(self, source, timeout=60, receive=None):
        s = socket.socket()
        if receive:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive)
        s.settimeout(timeout * SLOW)
        s.bind((source, 0))
        s.connect(("127.0.0.1", self.port))
        return s

    def ask(self, source, method, path, body=None, timeout=60):
        """Status, headers, body; raises OSError when nothing comes in time."""
        return self.request(method, path, body, timeout=timeout, source=source)

    def metric(self, name, source=None):
        return super().metric(name, source or SELF)

    def stop(self, limit=60):
        """Exit status and seconds; None when it does not end."""
        start = time.monotonic()
        return super().stop(limit), time.monotonic() - start


def post(body, path="/v1/completions"):
    """The bytes of a request."""
    data = json.dumps(body).encode() if not isinstance(body, bytes) else body
    head = "POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    return (head % (path, len(data))).encode() + data


class Loops:
    """Threads that call a function again and again until they are stopped; errors of sockets are part of the game."""

    def __init__(self):
        self.stopped = threading.Event()
        self.threads = []

    def run(self, function, *args):
        def body():
            while not self.stopped.is_set():
                try:
                    function(*args)
                except (OSError, http.client.HTTPException):
                    time.sleep(0.01)

        t = threading.Thread(target=body, daemon=True)
        t.start()
        self.threads.append(t)

    def stop(self):
        self.stopped.set()
        for t in self.threads:
            t.join(5)
