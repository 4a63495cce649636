"""A running `specdec serve`, for the scripts that talk to it. Standard library only."""
import http.client
import json
import os
import re
import signal
import subprocess
import threading
import time

SLOW = float(os.environ.get("SPECDEC_SLOW", "1"))  # a factor for the time limits of slow builds


class Served:
    """Starts the server on a free port, waits until it listens, and keeps what it says (lines) so that it never blocks on a full pipe.
    context: Python's of TLS, where the server speaks it."""

    def __init__(self, binary, model, *options, limit=60, env=None, context=None, key=None):
        """key: goes with every request."""
        self.key = key
        self.process = subprocess.Popen([binary, "serve", "-m", model, "--port", "0", *options], stderr=subprocess.PIPE, text=True, env=env)
        self.lines, self.port, self.context = [], None, context
        ready = threading.Event()

        def read():
            for line in self.process.stderr:
                self.lines.append(line.rstrip())
                found = re.search(r"serving .* at https?://[^ ]*:(\d+)", line)
                if found:
                    self.port = int(found.group(1))
                    ready.set()
            ready.set()

        threading.Thread(target=read, daemon=True).start()
        if not ready.wait(limit) or not self.port:
            self.process.kill()
            raise RuntimeError("the server did not start: " + " | ".join(self.lines))

    def request(self, method, path, body=None, headers=None, timeout=120, source=None):
        """Status, headers, body; raises OSError when nothing comes in time. source: the client's address, "127.0.0.2"."""
        kind, more = (http.client.HTTPSConnection, {"context": self.context}) if self.context else (http.client.HTTPConnection, {})
        c = kind("127.0.0.1", self.port, timeout=timeout * SLOW, source_address=(source, 0) if source else None, **more)
        head = {"Content-Type": "application/json"} if body is not None else {}
        if self.key:
            head["Authorization"] = "Bearer " + self.key
        head.update(headers or {})
        data = json.dumps(body).encode() if isinstance(body, (dict, list)) else body
        try:
            c.request(method, path, data, head)
            r = c.getresponse()
            return r.status, dict((k.lower(), v) for k, v in r.getheaders()), r.read()
        finally:
            c.close()

    def metric(self, name, source=None):
        page = self.request("GET", "/metrics", source=source)[2].decode()
        return sum(float(v) for v in re.findall(r"^specdec_%s\{[^}]*\} (\S+)$" % name, page, re.M))

    def metric_of(self, name, label):
        """The value of the line with a label, as the page writes it: 'result="valid"'."""
        page = self.request("GET", "/metrics")[2].decode()
        return sum(float(v) for v in re.findall(r"^specdec_%s\{[^}]*%s[^}]*\} (\S+)$" % (name, re.escape(label)), page, re.M))

    def wait_metric(self, name, value, limit, source=None):
        """Seconds until the metric has the value; None when it never did."""
        start = time.monotonic()
        while time.monotonic() - start < limit * SLOW:
            if self.metric(name, source) == value:
                return time.monotonic() - start
            time.sleep(0.005)
        return None

    def stop(self, limit=60):
        """The exit status after SIGTERM; None when it does not end."""
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(limit * SLOW)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            return None
