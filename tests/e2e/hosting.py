#!/usr/bin/env python3
"""The commands of docs/hosting.md, in their order: as they stand, but below a folder of their own, with a generated model, on a free port, and with a systemctl that does what the unit says.

    tests/e2e/hosting.py build/release/specdec

Prints TAP. Standard library only. Needs tests/make_tiny_model beside the binary (target unit_tests).
"""
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
import tap  # noqa: E402
import tools  # noqa: E402
from program import RECIPE, Program  # noqa: E402
from served import SLOW  # noqa: E402
from tap import check, skip  # noqa: E402

PROGRAM = Program(__doc__)
ROOT = os.path.abspath(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", ".."))
FOLDERS = ("etc/systemd/system", "usr/local/bin", "root", "var/log/specdec", "var/cache", "srv")
ELSEWHERE = re.compile(r"(?<![\w.])/(?=(?:etc|usr/local|root|srv|var)(?:/|\b))")


def commands():
    """(command, why it is not run here or None)"""
    out = []
    for line in open(os.path.join(ROOT, "docs", "hosting.md")):
        if line.startswith("    $ "):
            command, _, why = line[6:].rstrip().partition("  # by hand")
            out.append((command.strip(), ("by hand" + why) if _ else None))
    return out


class Machine:
    """What a command sees of a machine."""

    def __init__(self, folder):
        self.folder, self.main, self.said = folder, None, ""
        self.notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.notify.bind(os.path.join(folder, "notify"))
        self.notify.settimeout(60 * SLOW)
        with socket.create_server(("127.0.0.1", 0)) as s:
            self.port = s.getsockname()[1]
        for f in FOLDERS:
            os.makedirs(os.path.join(folder, f))
        self.models()

    def at(self, path):
        return os.path.join(self.folder, path.lstrip("/"))

    def here(self, text):
        """Paths, port and build of this machine."""
        return ELSEWHERE.sub(self.folder + "/", text).replace(":8080", ":%d" % self.port).replace("-C / ", "-C %s " % self.folder).replace("build/release/specdec", PROGRAM.binary)

    def models(self):
        """Where serve.yaml says; they stand there before the folders are made anew."""
        folder = self.at("srv/models")
        os.makedirs(folder)
        subprocess.run([PROGRAM.tiny, os.path.join(folder, "base.gguf"), "long"], check=True)
        with open(os.path.join(folder, "talks.jsonl"), "w") as f:
            for i in range(8):
                f.write(json.dumps({"messages": [{"role": "user", "content": "items"}, {"role": "assistant", "content": "1 2 3 %d" % i}]}) + "\n")
        with open(os.path.join(folder, "r.yaml"), "w") as f:
            f.write(RECIPE.replace("tiny.gguf", "base.gguf") % 128)
        done = subprocess.run([PROGRAM.binary, "train", "r.yaml", "-o", "support"], cwd=folder, capture_output=True, text=True, timeout=120)
        check("a run is trained", done.returncode == 0, done)

    def environment(self):
        path = [self.at("usr/local/bin")] + [os.path.dirname(p) for p in map(tools.find, ("promtool",)) if p]
        return dict(os.environ, PATH=os.pathsep.join([*path, os.environ["PATH"]]), XDG_CACHE_HOME=self.at("var/cache"))

    def unit(self, key):
        return self.here(re.search(r"^%s=(.*)$" % key, open(self.at("etc/systemd/system/specdec.service")).read(), re.M).group(1))

    def told(self, word):
        """Waits until the service says so, as systemd would."""
        while not (found := re.search(r"^%s=(\d+)$" % word, self.said, re.M)):
            self.said += self.notify.recv(4096).decode() + "\n"
        self.said = self.said[found.end():]
        return int(found.group(1))

    def wait_gone(self, pid):
        for _ in range(int(1200 * SLOW)):
            if not os.path.exists("/proc/%d" % pid) or " Z " in open("/proc/%d/stat" % pid).read():
                return True
            time.sleep(0.05)
        return False

    def stop(self):
        if self.main:
            os.kill(self.main, signal.SIGTERM)
            check("the service ends when it is told to", self.wait_gone(self.main))
        self.main = None

    def systemctl(self, words):
        self.said = ""
        if words[0] in ("enable", "restart"):
            self.stop()
            environment = dict(self.environment(), NOTIFY_SOCKET=self.at("notify"))
            self.main = subprocess.Popen(self.unit("ExecStart").split(), env=environment, cwd=self.folder, stderr=open(self.at("root/log"), "a")).pid
            return self.told("READY") == 1
        if words[0] == "reload":
            subprocess.run(["bash", "-c", self.unit("ExecReload")], env=dict(os.environ, MAINPID=str(self.main)), check=True)
            return self.told("RELOADING") == 1 and self.told("READY") == 1
        if words[:3] == ["kill", "-s", "USR2"]:
            os.kill(self.main, signal.SIGUSR2)
            old, self.main = self.main, self.told("MAINPID")
            return self.wait_gone(old) and self.main != old
        raise SystemExit("systemctl %s is unknown here" % words[0])

    def run(self, command):
        if command.startswith("systemctl "):
            try:
                return self.systemctl(command.split()[1:]), open(self.at("root/log")).read()[-1500:]
            except TimeoutError:
                return False, self.said + open(self.at("root/log")).read()[-1500:]
        done = subprocess.run(["bash", "-o", "pipefail", "-c", self.here(command)], cwd=self.cwd, env=self.environment(), capture_output=True, text=True, timeout=120 * SLOW)
        return done.returncode == 0, done.stdout + done.stderr

def keys_work(m):
    def status(name):
        key = open(m.at("root/%s.key" % name)).read().strip()
        return subprocess.run(["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "-H", "Authorization: Bearer " + key, "http://127.0.0.1:%d/v1/models" % m.port], capture_output=True,
                              text=True).stdout
    check("the key that came with the reload opens", (status("alice"), status("bob")) == ("200", "200"))
    log = [json.loads(line) for line in open(m.at("var/log/specdec/access.log"))]
    check("the access log has the requests", any(line["path"] == "/v1/models" and line["status"] == 200 for line in log), log)


def main():
    with tempfile.TemporaryDirectory() as folder:
        m = Machine(folder)
        m.cwd = os.path.join(folder, "checkout")  # its files, and room for what commands leave
        os.makedirs(m.cwd)
        for name in os.listdir(ROOT):
            os.symlink(os.path.join(ROOT, name), os.path.join(m.cwd, name))
        steps = commands()
        check("there are commands, and most are run", len(steps) > 20 and sum(why is None for _, why in steps) > len(steps) / 2)
        try:
            for command, why in steps:
                if why:
                    continue
                missing = next((w for w in ("promtool", "kubectl", "curl", "openssl") if re.search(r"(^|\| )%s " % w, command) and not (tools.find(w) if w == "promtool" else shutil.which(w))), None)
                if missing:
                    skip(command, missing + " is not here")
                    continue
                ok, said = m.run(command)
                check(command, ok, said)
                if command.endswith("serve.yaml /etc/specdec/serve.yaml"):
                    path = m.at("etc/specdec/serve.yaml")
                    text = m.here(open(path).read())
                    with open(path, "w") as f:
                        f.write(text)
                if command == "systemctl reload specdec":
                    keys_work(m)
        finally:
            m.stop()
    tap.finish()


main()
