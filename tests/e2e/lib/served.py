"""A running `specdec serve`, for the scripts that talk to it. Standard library only."""
import re
import subprocess
import threading


class Served:
    """Starts the server on a free port, waits until it listens, and keeps what it says (lines) so that it never blocks on a full pipe."""

    def __init__(self, binary, model, *options, limit=60):
        self.process = subprocess.Popen([binary, "serve", "-m", model, "--port", "0", *options], stderr=subprocess.PIPE, text=True)
        self.lines, self.port = [], None
        ready = threading.Event()

        def read():
            for line in self.process.stderr:
                self.lines.append(line.rstrip())
                found = re.search(r"serving .* at http://[^ ]*:(\d+)", line)
                if found:
                    self.port = int(found.group(1))
                    ready.set()
            ready.set()

        threading.Thread(target=read, daemon=True).start()
        if not ready.wait(limit) or not self.port:
            self.process.kill()
            raise RuntimeError("the server did not start: " + " | ".join(self.lines))
