"""A headless Chromium that is driven through its DevTools protocol, over the pipe that --remote-debugging-pipe gives. Standard library only."""
import base64
import json
import os
import shutil
import subprocess
import tempfile
import threading
import time

from served import SLOW

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
KEYS = {"Enter": (13, "\r"), "Tab": (9, ""), "Escape": (27, ""), "ArrowUp": (38, ""), "ArrowDown": (40, ""), "ArrowRight": (39, ""), "ArrowLeft": (37, ""), "Home": (36, ""), "End": (35, "")}


def find():
    return os.environ.get("CHROMIUM") or next((path for path in map(shutil.which, NAMES) if path), None)


class Page:
    """One tab. errors: what its console was told of as an error, exceptions too."""

    def __init__(self, url, width=1280, height=900):
        self.profile = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        ours_in, theirs_out = os.pipe()
        theirs_in, ours_out = os.pipe()
        # The browser reads from descriptor 3 and writes to 4: both are moved away first, or one could be closed by the other's coming.
        move = "exec 8<&%d 9>&%d 3<&8 4>&9 8<&- 9>&-; exec \"$@\"" % (theirs_in, theirs_out)
        self.process = subprocess.Popen(
            ["bash", "-c", move, "_", find(), "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
             "--user-data-dir=" + self.profile.name, "--remote-debugging-pipe", "about:blank"],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, pass_fds=(theirs_in, theirs_out))
        os.close(theirs_in), os.close(theirs_out)
        self.out, self.n, self.answers, self.errors = ours_out, 0, {}, []
        self.came = threading.Condition()
        self.ended = False
        threading.Thread(target=self.read, args=(ours_in,), daemon=True).start()
        self.session = None
        target = next(t["targetId"] for t in self.call("Target.getTargets")["targetInfos"] if t["type"] == "page")
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.call(domain + ".enable")
        self.size(width, height)
        self.open(url)

    def read(self, fd):
        rest = b""
        while data := os.read(fd, 1 << 16):
            *whole, rest = (rest + data).split(b"\0")
            for text in whole:
                self.take(json.loads(text))
        with self.came:
            self.ended = True
            self.came.notify_all()
        os.close(fd)

    def take(self, m):
        with self.came:
            p = m.get("params", {})
            if "id" in m:
                self.answers[m["id"]] = m
            elif m["method"] == "Runtime.exceptionThrown":
                d = p["exceptionDetails"]
                self.errors.append(d.get("exception", {}).get("description") or d["text"])
            elif m["method"] == "Runtime.consoleAPICalled" and p["type"] in ("error", "assert"):
                self.errors.append(str([a.get("value", a.get("description")) for a in p["args"]]))
            elif m["method"] == "Log.entryAdded" and p["entry"]["level"] == "error":
                self.errors.append(p["entry"]["text"] + " " + p["entry"].get("url", ""))
            self.came.notify_all()

    def call(self, method, **params):
        self.n += 1
        m = {"id": self.n, "method": method, "params": params}
        if self.session:
            m["sessionId"] = self.session
        data = json.dumps(m).encode() + b"\0"
        while data:
            data = data[os.write(self.out, data):]
        with self.came:
            if not self.came.wait_for(lambda: m["id"] in self.answers or self.ended, 60 * SLOW) or m["id"] not in self.answers:
                raise RuntimeError("Chromium does not answer " + method)
            answer = self.answers.pop(m["id"])
        if "error" in answer:
            raise RuntimeError(method + ": " + answer["error"]["message"])
        return answer["result"]

    def open(self, url):
        self.call("Page.navigate", url=url)

    def js(self, expression):
        """Its value; a promise's, once it has one."""
        r = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in r:
            raise RuntimeError(expression + ": " + r["exceptionDetails"]["exception"].get("description", "threw"))
        return r["result"].get("value")

    def wait(self, expression, limit=60):
        """True once the expression is; false when it never was."""
        end = time.monotonic() + limit * SLOW
        while time.monotonic() < end:
            try:
                if self.js(expression):
                    return True
            except RuntimeError:  # between two documents
                pass
            time.sleep(0.02)
        return False

    def key(self, name, shift=False):
        code, text = KEYS[name]
        common = {"key": name, "code": name, "windowsVirtualKeyCode": code, "modifiers": 8 if shift else 0}
        self.call("Input.dispatchKeyEvent", type="keyDown" if text else "rawKeyDown", **common, **({"text": text} if text else {}))
        self.call("Input.dispatchKeyEvent", type="keyUp", **common)

    def type(self, text):
        self.call("Input.insertText", text=text)

    def tab_to(self, expression, most=150):
        """Presses Tab until `expression` of the focused element e is true."""
        for _ in range(most):
            if self.js("(e => !!e && (%s))(document.activeElement)" % expression):
                return True
            self.key("Tab")
        return False

    def size(self, width, height, mobile=False):
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=2 if mobile else 1, mobile=mobile)

    def dark(self, dark):
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}])

    def shot(self, path):
        with open(path, "wb") as f:
            f.write(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))

    def close(self):
        try:
            session, self.session = self.session, None
            self.call("Browser.close")
        except (RuntimeError, OSError):
            pass
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        os.close(self.out)
        self.profile.cleanup()
