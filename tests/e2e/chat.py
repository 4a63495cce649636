#!/usr/bin/env python3
"""specdec chat in a terminal: a session in tmux over a generated tiny model, with the keys that a person presses.

    tests/e2e/chat.py build/release/specdec

Prints TAP. Standard library only; skipped where tmux is not installed. The model of README's quickstart, where it is in $SPECDEC_MODELS (default
~/.cache/specdec/models), is asked for a haiku.
"""
import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
import tap  # noqa: E402
from program import Program  # noqa: E402
from served import SLOW  # noqa: E402
from tap import check  # noqa: E402

PROGRAM = Program(__doc__)
REAL = os.path.join(os.environ.get("SPECDEC_MODELS", os.path.expanduser("~/.cache/specdec/models")), "SmolLM2-135M-Instruct.Q4_1.gguf")
ENDLESS = ("--logit-bias", "285=-100", "--logit-bias", "287=-100")  # the tiny model's end tokens
BUILT_WITHOUT = b"libedit.so.2" not in open(PROGRAM.binary, "rb").read()


class Terminal:
    """A terminal of 60 columns with a chat in it. Its exit status stands on the screen when it has ended."""

    def __init__(self, folder, *options, env=""):
        self.socket = os.path.join(tempfile.mkdtemp(dir=folder), "tmux")  # one of its own: an ending server still has the last one's
        self.env = dict(os.environ, LC_ALL="C.UTF-8", XDG_STATE_HOME=os.path.join(folder, "state"))
        command = env + " " + shlex.join([PROGRAM.binary, "chat", "--no-pack-cache", *options]) + "; echo ended with $?; sleep 600"
        self.tmux("-f", "/dev/null", "new-session", "-d", "-x", "60", "-y", "40", command)

    def tmux(self, *argv):
        return subprocess.run(["tmux", "-S", self.socket, *argv], env=self.env, capture_output=True, text=True, check=True).stdout

    def keys(self, *names):
        self.tmux("send-keys", *names)

    def screen(self):
        return self.tmux("capture-pane", "-p", "-S", "-200").rstrip()

    def wait(self, test, limit=60):
        """True once test(the screen) is."""
        end = time.monotonic() + limit * SLOW
        while not test(self.screen()):
            if time.monotonic() > end:
                return False
            time.sleep(0.02)
        return True

    def prompt(self):
        """The editor waits for a message, behind whatever came before."""
        return self.wait(lambda s: s.endswith("\n>") or s.endswith("\n> "))

    def line(self, text):
        self.keys("-l", text)
        self.wait(lambda s: s.endswith("> " + text))
        self.keys("Enter")

    def close(self):
        subprocess.run(["tmux", "-S", self.socket, "kill-server"], env=self.env, capture_output=True)


def saved(t, path):
    """The conversation's messages: role and text."""
    t.line("/save " + path)
    check("the conversation is saved", t.wait(lambda s: "messages saved" in s.rsplit("/save", 1)[-1]), t.screen())
    t.prompt()
    return [(m["role"], m["content"]) for m in json.load(open(path))["messages"]]


def editing(t, folder):
    path = os.path.join(folder, "talk.json")
    check("a chat waits for a message", t.prompt(), t.screen())
    t.keys("-l", "helo")
    t.keys("Left")
    t.keys("-l", "l")
    check("arrows move in the line", t.wait(lambda s: s.endswith("> hello")), t.screen())
    t.keys("Enter")
    check("an answer is cut at the limit that was given", t.wait(lambda s: "(cut at 20 tokens" in s) and t.prompt(), t.screen())
    t.keys("Up")
    check("arrow up brings the line back", t.wait(lambda s: s.endswith("> hello")), t.screen())
    t.keys("C-c")
    check("Ctrl-C gives the line up, not the chat", t.wait(lambda s: "(/exit or Ctrl-D leaves)" in s) and t.prompt(), t.screen())
    t.tmux("set-buffer", "one line\nsecond line\nthird line\n")
    t.tmux("paste-buffer", "-p")
    check("a paste of three lines waits to be sent", t.wait(lambda s: s.endswith("one line\nsecond line\nthird line")), t.screen())
    t.keys("Enter")
    check("... and is one message", t.wait(lambda s: s.count("(cut at 20") == 2) and t.prompt(), t.screen())
    t.keys("-l", "two")
    t.keys("M-Enter")
    t.keys("-l", "lines")
    t.keys("Enter")
    t.wait(lambda s: s.count("(cut at 20") == 3) and t.prompt()
    t.line('"""in')
    t.wait(lambda s: s.endswith("...") or s.endswith("... "))
    t.keys("-l", 'quotes"""')
    t.keys("Enter")
    t.wait(lambda s: s.count("(cut at 20") == 4) and t.prompt()
    said = [text for role, text in saved(t, path) if role == "user"]
    check("messages are what was typed", said == ["hello", "one line\nsecond line\nthird line", "two\nlines", "in\nquotes"], said)


def commands(t, folder):
    path = os.path.join(folder, "second.json")
    t.line("/system Be brief.")
    check("/system sets it and empties the conversation", t.wait(lambda s: "system message set" in s) and t.prompt() and saved(t, path) == [("system", "Be brief.")], t.screen())
    t.line("/set max_tokens 5")
    check("/set sets", t.wait(lambda s: "max_tokens           5" in s) and t.prompt(), t.screen())
    t.line("/set temperature hot")
    check("... and says what cannot be", t.wait(lambda s: "'hot'" in s or "hot is" in s) and t.prompt(), t.screen())
    t.line("/set")
    check("... and lists", t.wait(lambda s: "repetition_penalty   1" in s and "temperature          0.7" in s) and t.prompt(), t.screen())
    t.line("question")
    check("the new limit holds", t.wait(lambda s: "(cut at 5 tokens" in s) and t.prompt(), t.screen())
    t.line("/clear")
    check("/clear keeps the system message alone", t.wait(lambda s: "was emptied" in s.rsplit("/clear", 1)[-1]) and t.prompt() and saved(t, path) == [("system", "Be brief.")], t.screen())
    t.line("/load " + os.path.join(folder, "talk.json"))
    check("/load brings a conversation back", t.wait(lambda s: "8 messages loaded" in s) and t.prompt() and len(saved(t, path)) == 8, t.screen())
    t.line("/load " + os.path.join(folder, "none.json"))
    check("... and says what is not there", t.wait(lambda s: "none.json" in s.rsplit("specdec:", 1)[-1]) and t.prompt(), t.screen())
    t.line("/nonsense")
    check("an unknown command is said", t.wait(lambda s: "'/nonsense' is unknown" in s) and t.prompt(), t.screen())
    t.line("/help")
    check("/help lists them", t.wait(lambda s: "/load" in s.rsplit("> /help", 1)[-1] and "Ctrl-C stops" in s) and t.prompt(), t.screen())
    t.keys("C-d")
    check("Ctrl-D leaves", t.wait(lambda s: "ended with 0" in s), t.screen())


def main():
    if not shutil.which("tmux"):
        tap.skip("a chat in a terminal", "tmux is not installed")
        tap.finish()
    if BUILT_WITHOUT:
        tap.skip("a chat in a terminal", "the program was built without libedit's header (libedit-dev)")
        tap.finish()
    with tempfile.TemporaryDirectory() as folder:
        model = os.path.join(folder, "tiny.gguf")
        subprocess.run([PROGRAM.tiny, model, "long"], check=True)
        t = Terminal(folder, "-m", model, "-n", "20", *ENDLESS)
        try:
            editing(t, folder)
            commands(t, folder)
        finally:
            t.close()
        # Drafts of 48 that never hold make an answer of half a minute of the tiny model's.
        t = Terminal(folder, "-m", model, "-n", "0", *ENDLESS, "--spec", "suffix", "--spec-length", "48")
        try:
            t.prompt()
            t.keys("Up")
            check("a further chat has the lines of the first", t.wait(lambda s: s.endswith("> /help")), t.screen())
            t.keys("C-c")
            t.prompt()
            t.line("question")
            t.wait(lambda s: len(s.rsplit("> question", 1)[-1]) > 20)
            t.keys("C-c")
            check("Ctrl-C stops an answer", t.wait(lambda s: "(stopped)" in s, 10), t.screen())
            check("... and not the chat", t.prompt() and len(saved(t, os.path.join(folder, "third.json"))) == 2, t.screen())
            t.line("/bye")
            check("/bye leaves", t.wait(lambda s: "ended with 0" in s), t.screen())
            history = os.path.join(folder, "state", "specdec", "chat_history")
            check("the history is its owner's alone", os.stat(history).st_mode & 0o777 == 0o600)
        finally:
            t.close()
        t = Terminal(folder, "-m", model, "-n", "5", *ENDLESS, env="TERM=dumb")
        try:
            t.prompt()
            t.line("plain")
            check("a terminal that cannot edit is read by lines", t.wait(lambda s: "(cut at 5 tokens" in s) and t.prompt(), t.screen())
        finally:
            t.close()
        if not os.path.exists(REAL):
            tap.skip("a haiku ends", REAL + " is not there")
            tap.finish()
        t = Terminal(folder, "-m", REAL)
        try:
            t.prompt()
            t.line("Write a haiku about the sea.")
            check("a haiku ends", t.wait(lambda s: len(s.rsplit("the sea.", 1)[-1]) > 20, 120) and t.prompt(), t.screen())
        finally:
            t.close()
    tap.finish()


main()
