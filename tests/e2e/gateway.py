#!/usr/bin/env python3
"""nginx in front of two servers, as recipes/operate sets it up: requests that belong together reach one server and find their prefix there, a full server's and an ending one's go to
the other, and streams are not held up.

    tests/e2e/gateway.py build/release/specdec

Prints TAP. Standard library only. Needs tests/make_tiny_model beside the binary (target unit_tests), and nginx (recipes/deps.sh tests), or prints that it is skipped.
"""
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
import tap  # noqa: E402
import tools  # noqa: E402
from program import Program  # noqa: E402
from served import SLOW, Served  # noqa: E402
from tap import check, skip  # noqa: E402

PROGRAM = Program(__doc__)
OPERATE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "recipes", "operate")
KEYS = ["key-number-%d" % i for i in range(16)]
TEMP = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")


def edit(text, *pairs):
    for old, new in pairs:
        if old not in text:
            raise SystemExit("nginx.conf has no " + old)
        text = text.replace(old, new)
    return text


class Nginx:
    """Debian's, with the recipe's files but for the port, the servers' ports, and folders that a test may write to."""

    def __init__(self, folder, servers):
        with socket.create_server(("127.0.0.1", 0)) as s:
            self.port = s.getsockname()[1]
        os.chmod(folder, 0o711)  # its workers are another user's
        temp = "".join("  %s_temp_path %s/%s;\n" % (t, folder, t) for t in TEMP)
        conf = edit(open(os.path.join(OPERATE, "kubernetes", "nginx.conf")).read(), ("listen 8080;", "listen 127.0.0.1:%d;" % self.port), ("/run/nginx.pid", folder + "/pid"),
                    ("worker_processes auto;", "worker_processes 1;"), ("http {\n", "http {\n" + temp))
        names = edit(open(os.path.join(OPERATE, "nginx_servers.conf")).read(), *((":808%d " % (i + 1), ":%d " % s.port) for i, s in enumerate(servers)))
        for name, text in (("nginx.conf", conf), ("nginx_servers.conf", names)):
            with open(os.path.join(folder, name), "w") as f:
                f.write(text)
        self.argv = [tools.find("nginx"), "-p", folder, "-e", "stderr", "-c", os.path.join(folder, "nginx.conf"), "-g", "daemon off;"]
        done = subprocess.run([*self.argv, "-t"], capture_output=True, text=True)
        check("nginx takes the files", done.returncode == 0 and "warn" not in done.stderr, done.stderr)
        self.process = subprocess.Popen(self.argv, stderr=subprocess.DEVNULL)
        for _ in range(int(200 * SLOW)):
            try:
                socket.create_connection(("127.0.0.1", self.port)).close()
                break
            except OSError:
                time.sleep(0.05)

    def ask(self, key=KEYS[0], session=None, path="/v1/completions", **body):
        c = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60 * SLOW)
        head = {"Content-Type": "application/json"}
        if key:
            head["Authorization"] = "Bearer " + key
        if session:
            head["X-Session-Affinity"] = session
        try:
            c.request("POST", path, json.dumps(dict({"prompt": "items of a session ", "max_tokens": 4, "temperature": 0, "ignore_eos": True}, **body)), head)
            r = c.getresponse()
            text = r.read()
            return r.status, json.loads(text) if r.status == 200 else text
        finally:
            c.close()

    def close(self):
        self.process.terminate()
        self.process.wait()


def who(answer):
    return answer[1]["model"] if answer[0] == 200 else answer


def affine(n):
    """session -> server."""
    home, moved, found = {}, [], []
    for i in range(40):
        session, prompt = "talk-%d" % i, "session %d: " % i + "the same words, " * 8
        first = n.ask(session=session, prompt=prompt)
        other = n.ask(session=session, prompt=prompt, key=KEYS[1 + i % 15])
        again = n.ask(session=session, prompt=prompt + "and more")
        home[session] = who(first)
        moved += [a for a in (other, again) if who(a) != who(first)]
        found.append(again[1]["usage"]["prompt_tokens_details"]["cached_tokens"] if again[0] == 200 else 0)
    check("a session stays with its server, whatever its key", not moved, moved[:3])
    check("sessions are spread", set(home.values()) == {"a", "b"}, home)
    check("and find their prefix there", min(found) > 0, found)
    by_key = [[who(n.ask(key=k)) for _ in range(3)] for k in KEYS]
    check("without a session, a key's requests stay together", all(len(set(map(str, w))) == 1 for w in by_key), by_key)
    check("keys are spread", {w[0] for w in by_key} == {"a", "b"}, by_key)
    check("a request without a key is refused by the server", n.ask(key=None)[0] == 401)
    return home


def headers():
    return {"Authorization": "Bearer " + KEYS[0]}


def running(server):
    page = server.request("GET", "/metrics", headers=headers())[2].decode()
    return sum(float(line.split()[-1]) for line in page.splitlines() if line.startswith(("specdec_num_requests_running{", "specdec_num_requests_waiting{")))


def streams(n, servers):
    c = http.client.HTTPConnection("127.0.0.1", n.port, timeout=60 * SLOW)
    c.request("POST", "/v1/completions", json.dumps({"prompt": "x", "max_tokens": 3500, "ignore_eos": True, "stream": True}), {"Content-Type": "application/json", **headers()})
    r = c.getresponse()
    first = r.readline()
    check("a stream's first words come while it runs", first.startswith(b"data: {") and sum(map(running, servers.values())) == 1, first)
    c.close()
    end = time.monotonic() + 20 * SLOW
    while sum(map(running, servers.values())) and time.monotonic() < end:
        time.sleep(0.02)
    check("a client that leaves nginx leaves the server too", sum(map(running, servers.values())) == 0)


def full(n, servers, home):
    session, name = next(iter(home.items()))
    long = lambda: n.ask(session=session, max_tokens=3500)
    held = [threading.Thread(target=long) for _ in range(2)]  # its slot and its queue
    for t in held:
        t.start()
    end = time.monotonic() + 20 * SLOW
    while running(servers[name]) < 2 and time.monotonic() < end:
        time.sleep(0.02)
    got = n.ask(session=session)
    check("what a full server turns away, the other answers", got[0] == 200 and who(got) != name, got)
    for t in held:
        t.join()
    check("and then it is at home again", who(n.ask(session=session)) == name)


def ending(n, servers, home):
    gone = servers["a"]
    failed, over = [], threading.Event()

    def steady():
        while not over.is_set():
            for s in home:
                got = n.ask(session=s)
                if got[0] != 200:
                    failed.append(got)
    worker = threading.Thread(target=steady)
    worker.start()
    time.sleep(0.3 * SLOW)
    gone.process.send_signal(signal.SIGTERM)
    status = gone.process.wait(60 * SLOW)
    over.set()
    worker.join()  # one request at a time: two would fill the server that stays
    where = {s: who(n.ask(session=s)) for s in home}
    check("a server that ends loses no request", status == 0 and not failed, failed[:3])
    check("its sessions move, the others stay", set(where.values()) == {"b"}, where)


def main():
    if not tools.find("nginx"):
        skip("nginx in front of two servers", "nginx is not here: recipes/deps.sh tests fetches it")
        tap.finish()
    with tempfile.TemporaryDirectory() as folder:
        model, keys = os.path.join(folder, "tiny.gguf"), os.path.join(folder, "keys")
        subprocess.run([PROGRAM.tiny, model, "long"], check=True)
        with open(keys, "w") as f:
            f.write("\n".join(KEYS) + "\n")
        options = ["--no-pack-cache", "--api-key-file", keys, "--slots", "1", "--queue", "1", "--trusted-proxy", "127.0.0.1"]
        servers = {name: Served(PROGRAM.binary, model, "--served-name", name, *options) for name in ("a", "b")}
        n = Nginx(folder, servers.values())
        try:
            home = affine(n)
            streams(n, servers)
            full(n, servers, home)
            ending(n, servers, home)
        finally:
            n.close()
            for s in servers.values():
                s.process.terminate()
    tap.finish()


main()
