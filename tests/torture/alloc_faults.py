#!/usr/bin/env python3
"""Allocations fail, one by one, once and for good: in every verb and in a live server, the libraries' own included.

    tests/torture/alloc_faults.py build/release/specdec [--full] [--only NAME] [--leaks build/asan/specdec]

Right is: an error of one sentence (exit 1; an error status or a closed connection), or exactly the bytes that come without a failure. Exit 2 would lay it at
the door of the input, which is whole. A crash
whose innermost frame outside libc lies in a library is a library's: it is listed and does not fail the test.
--full takes every allocation (of training 400, at random; MOST=n: of every verb at most n), half an hour on a quiet machine; otherwise some of each,
of another place each time (SEED=n repeats a choice). --leaks takes a program built with AddressSanitizer and looks for what the verbs leave behind
when an allocation failed. Prints TAP. Needs tests/fail_alloc_preload.so and tests/make_tiny_model beside the binary (target unit_tests).
"""
import collections
import hashlib
import http.client
import json
import lzma
import mmap
import os
import random
import re
import shutil
import signal
import struct
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "e2e", "lib"))

from options import parser  # noqa: E402
from served import Served  # noqa: E402

options = parser(__doc__, full=True)
options.add_argument("--only", help="the verb whose name begins so, archives or serve")
options.add_argument("--leaks", metavar="BINARY", help="a program built with AddressSanitizer: look for what is lost")
options = options.parse_args()
FULL, ONLY, BINARY = options.full, options.only, os.path.abspath(options.binary)
LEAKS = options.leaks and os.path.abspath(options.leaks)
TESTS = os.path.join(os.path.dirname(BINARY), "tests")
PRELOAD, TINY = os.path.join(TESTS, "fail_alloc_preload.so"), os.path.join(TESTS, "make_tiny_model")
SEED = int(os.environ.get("SEED", os.getpid()))
rng = random.Random(SEED)
NEVER = 1 << 40
# Allocations of one verb that are tried in each of the two ways: in the short run, and at most in the full one.
SHORT, MOST = int(os.environ.get("SHORT", 6)), int(os.environ.get("MOST", 1 << 30))
failures = 0


def check(name, ok, detail=""):
    global failures
    print(("ok - " if ok else "not ok - ") + name, flush=True)
    if not ok:
        failures += 1
    for line in str(detail).splitlines()[:40]:
        print("# " + line[:300], flush=True)


class Control:
    """The words that fail_alloc_preload.c maps: at, all, count, failed, trace."""

    def __init__(self, path):
        self.path = path
        with open(path, "wb") as f:
            f.write(bytes(4096))
        self.file = open(path, "r+b")
        self.map = mmap.mmap(self.file.fileno(), 4096)

    def get(self):
        return struct.unpack("5q", self.map[:40])

    def arm(self, at, all_behind, trace=0):
        self.map[:8] = bytes(8)
        self.map[8:40] = struct.pack("4q", int(all_behind), 0, 0, trace)
        self.map[:8] = struct.pack("q", at)

    def disarm(self):
        self.map[:8] = bytes(8)


def environment(control, **more):
    return dict(os.environ, LD_PRELOAD=PRELOAD, FAIL_CONTROL=control.path, **more)


# ---- crashes

FRAME = re.compile(r"^([^(\s]+)\(([^)]*)\)?\[")
LIBC = re.compile(r"/(libc|ld-linux-x86-64|libpthread|linux-vdso|libstdc\+\+|libgcc_s|fail_alloc_preload)[.\-]|linux-vdso")


def place_of(binary, frames):
    """Whose crash it is, and where: the innermost frame outside libc, and the nearest of the program's own."""
    whose, own = None, None
    for line in frames:
        m = FRAME.match(line)
        if not m or LIBC.search(m.group(1)):
            continue
        name = os.path.basename(m.group(1))
        if whose is None:
            whose = (name, m.group(2))
        if name.startswith("specdec"):
            at = re.search(r"\+(0x[0-9a-f]+)", m.group(2))
            if at:
                try:
                    said = subprocess.run(["addr2line", "-fsie", m.group(1), at.group(1)], capture_output=True, text=True, timeout=60).stdout.split()
                    own = " ".join(said[-2:])
                except (OSError, subprocess.TimeoutExpired):
                    own = m.group(2)
            break
    return (whose[0] if whose else "?"), f"{whose[0] if whose else '?'}({whose[1] if whose else ''}) under {own}"


def crash_of(binary, err):
    lines = err.split("\n")
    at = next((i for i, l in enumerate(lines) if l.startswith("*** crash")), None)
    return None if at is None else place_of(binary, lines[at + 1:])


# ---- the verbs

TIMES = re.compile(rb'("(?:prefill_ms|decode_ms|tok_s|seconds|wall_s|peak_mb|queue_ms)": ?)[-\d.e+]+')


def tidy(out, where):
    out = re.sub(rb'"speculation": ?\{.*\}(?=\})', b"", out, flags=re.S)  # a drafter that finds no memory is done without
    out = re.sub(rb"(?m)^a step with .*$", b"", out)  # measured
    return re.sub(rb"\d+(\.\d+)? s\b|\d+(\.\d+)? (tok|tokens)/s|\d+ MB at most", b"T", TIMES.sub(rb"\1T", out)).replace(where.encode(), b"DIR")


def tree(root):
    """path -> bytes of what a verb leaves, without what tells the time."""
    found = {}
    for folder, dirs, files in os.walk(root):
        dirs.sort()
        for name in sorted(files):
            path = os.path.join(folder, name)
            rel = os.path.relpath(path, root)
            with open(path, "rb") as f:
                data = f.read()
            if name in ("metrics.csv", "loss.svg", "manifest.json", "SHA256SUMS", "state.json", "recipe.resolved.yaml") and "checkpoints" in rel + root or name in ("metrics.csv", "loss.svg"):
                data = b""
            elif name == "manifest.json":
                data = re.sub(rb'"wall_s": [-\d.e+]+', b"", data)
            found[rel] = data.replace(root.encode(), b"OUT")
    return found


class Verb:
    def __init__(self, name, *cmd, stdin=b"", setup=None, keep=r".", binary="specdec", most=None):
        self.name, self.cmd, self.stdin, self.setup, self.keep, self.binary, self.most = name, cmd, stdin, setup, re.compile(keep), binary, most


RECIPE = """recipe: 1
name: run
base: {model: tiny.gguf, compute_dtype: fp32}
adapter: {r: 2, alpha: 4}
data: {train: [{path: data.jsonl, format: completion}], val_size: 0.2, sequence_len: 64, packing: true, shuffle: true}
train: {max_steps: 2, batch_tokens: 128, learning_rate: 1e-2}
eval: {every: 1}
checkpoint: {every: 1, keep: 3}
export_verify: {prompts: 1}
"""


def copy_run(out):
    """A run that stopped after its first step."""
    shutil.copytree("half", out + "/run")


VERBS = [
    Verb("tokenize", "tokenize", "--json", "--pieces", "-m", "tiny.gguf", "hello there, 12 caf\u00e9s"),
    Verb("tokenize text", "tokenize", "-m", "tiny.gguf", "-", stdin=b"one two three\n" * 30),
    Verb("detokenize", "detokenize", "--json", "-m", "tiny.gguf", "257,276,111,258,264"),
    Verb("tokenize with a vocabulary of pieces", "tokenize", "--json", "--pieces", "-m", "pieces.gguf", "hello there, 12 caf\u00e9s"),
    Verb("detokenize of pieces", "detokenize", "-m", "pieces.gguf", "8,7,3"),
    Verb("inspect vocabulary", "inspect", "--json", "--metadata", "pieces.gguf"),
    Verb("inspect model", "inspect", "--json", "--tensors", "--metadata", "tiny.gguf"),
    Verb("inspect run", "inspect", "--json", "whole"),
    Verb("inspect data", "inspect", "--json", "data.h5"),
    Verb("inspect adapter", "inspect", "whole/adapter"),
    Verb("generate", "generate", "--json", "--threads", "1", "-m", "tiny.gguf", "-n", "6", "-p", "hello there", "--chat"),
    Verb("generate with an adapter", "generate", "--threads", "1", "-m", "tiny.gguf", "-a", "whole", "-n", "6", "-p", "hello there"),
    Verb("generate, a conversation with a run", "generate", "--json", "--threads", "1", "-m", "tiny.gguf", "-a", "whole", "-n", "6", "-p", "hello there", "--chat"),
    Verb("generate, nothing packed", "generate", "--threads", "2", "--no-pack-cache", "-m", "tiny.gguf", "-n", "3", "-p", "abc"),
    Verb("logits", "logits", "--threads", "1", "-m", "tiny.gguf", "--text", "abc def", "-o", "{out}/x.npy"),
    Verb("perplexity", "perplexity", "--json", "--threads", "1", "-m", "tiny.gguf", "--ctx", "32", "--windows", "2", "text.txt"),
    Verb("eval", "eval", "--json", "--threads", "1", "-m", "tiny.gguf", "-a", "whole", "--suite", "suite.jsonl", "-n", "4", "--answers", "{out}/answers.jsonl"),
    Verb("pack", "pack", "--threads", "1", "tiny.gguf"),
    Verb("cache list", "cache", "list", "--json"),
    Verb("cost", "cost", "--json", "--usage", "usage.jsonl", "--bench", "bench.json", "--prices", "prices.json", "--prices-date", "2026-05-04", "--api", "m", "--api", "x=1,2", "--gpu-hour", "2",
         "--local-share", "0.5", "--html", "{out}/page.html"),
    Verb("data prepare", "data", "prepare", "--json", "data.jsonl", "-m", "tiny.gguf", "--format", "completion", "--sequence-len", "64", "-o", "{out}/p.h5"),
    Verb("data prepare, zip of chats", "data", "prepare", "chats.zip", "-m", "tiny.gguf", "--sequence-len", "64", "-o", "{out}/p.h5"),
    Verb("data stats", "data", "stats", "--json", "data.h5"),
    Verb("data inspect", "data", "inspect", "--json", "data.h5", "-m", "tiny.gguf", "--row", "0"),
    Verb("train --init", "train", "--init", "data.jsonl", "-m", "tiny.gguf"),
    Verb("train --plan", "train", "recipe.yaml", "--plan", "--json", "-o", "{out}/run"),
    Verb("train", "train", "recipe.yaml", "-o", "{out}/run", "--json", most=400),
    Verb("train, resumed", "train", "recipe.yaml", "-o", "{out}/run", setup=copy_run, most=400),
    Verb("export peft", "export", "whole", "--to", "peft", "-o", "{out}/x", "--threads", "1"),
    Verb("export gguf-lora", "export", "whole", "--to", "gguf-lora", "-o", "{out}/x.gguf", "--threads", "1"),
    Verb("export gguf", "export", "whole", "--to", "gguf", "-o", "{out}/x.gguf", "--threads", "1"),
]


def make_inputs(env):
    def run(*cmd, ok=(0,)):
        p = subprocess.run([BINARY, *cmd], capture_output=True, env=env)
        if p.returncode not in ok:
            raise RuntimeError(f"{cmd}: {p.returncode} {p.stderr.decode()}")

    subprocess.run([TINY, "tiny.gguf"], check=True)
    subprocess.run([TINY, "pieces.gguf", "vocabulary"], check=True)
    with open("data.jsonl", "w") as f:
        for i in range(24):
            f.write(json.dumps({"prompt": f"record {i} is number ", "completion": f"{i * 7919 % 1000}, in words {i % 10}, \u00e9"}) + "\n")
    with open("chats.jsonl", "w") as f:
        for i in range(8):
            f.write(json.dumps({"messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": f"say {i}"}, {"role": "assistant", "content": f"{i} it is"}]}) + "\n")
    with zipfile.ZipFile("chats.zip", "w", zipfile.ZIP_DEFLATED) as z:
        z.write("chats.jsonl")
    with tarfile.open("chats.tar.gz", "w:gz") as t:
        t.add("chats.jsonl")
    with lzma.open("chats.jsonl.xz", "wt") as x, open("chats.jsonl") as f:
        x.write(f.read())
    with open("suite.jsonl", "w") as f:
        f.write(json.dumps({"messages": [{"role": "user", "content": "say 1"}], "want": {"a": 1}}) + "\n")
        f.write(json.dumps({"messages": [{"role": "user", "content": "say 2"}, {"role": "assistant", "content": "two"}]}) + "\n")
    with open("usage.jsonl", "w") as f:
        for hour in range(30):
            f.write(json.dumps({"time": f"2026-05-{1 + hour // 24:02d}T{hour % 24:02d}:00:00Z", "tokens": {"uncached": 100, "output": 9}, "cost": 5, "total_ms": 3}) + "\n")
    with open("bench.json", "w") as f:
        json.dump({"prefill_tok_s": {"64": 900.5}, "decode_tok_s": {"64": 90.5}}, f)
    with open("prices.json", "w") as f:
        json.dump({"v/m": {"input_cost_per_token": 1e-6, "output_cost_per_token": 2e-6, "deprecation_date": "2027-01-31"}}, f)
    with open("text.txt", "w") as f:
        f.write("The quick brown fox jumps over the lazy dog. " * 8)
    with open("recipe.yaml", "w") as f:
        f.write(RECIPE)
    run("data", "prepare", "data.jsonl", "-m", "tiny.gguf", "--format", "completion", "--sequence-len", "64", "-o", "data.h5")
    run("train", "recipe.yaml", "-o", "whole")
    with open("whole/manifest.json") as f:  # as of a run that learnt conversations
        manifest = json.load(f)
    manifest["serve"].update(system="Be brief.", system_share=1.0)
    with open("whole/manifest.json", "w") as f:
        json.dump(manifest, f)
    shutil.copytree("whole", "half")
    for name in os.listdir("half"):
        if name not in ("checkpoints", "recipe.resolved.yaml", "metrics.csv"):
            path = os.path.join("half", name)
            shutil.rmtree(path) if os.path.isdir(path) else os.remove(path)
    steps = sorted(os.listdir("half/checkpoints"))
    for name in steps[1:]:
        path = os.path.join("half/checkpoints", name)
        shutil.rmtree(path) if os.path.isdir(path) else os.remove(path)


class Bench:
    """Runs one verb with a failure at a place, and judges the outcome."""

    def __init__(self, control, binary, cache, **env):
        self.control, self.binary, self.cache = control, binary, cache
        self.env = environment(control, **env)
        self.out = os.path.join(os.getcwd(), "out")

    def once(self, verb, at, all_behind, trace=0):
        shutil.rmtree(self.out, ignore_errors=True)
        os.mkdir(self.out)
        if verb.setup:
            verb.setup(self.out)
        cache = self.cache
        if verb.name == "pack":
            cache = self.out + "/cache"
        self.control.arm(at, all_behind, trace)
        cmd = [self.binary] + [c.replace("{out}", self.out) for c in verb.cmd]
        try:
            p = subprocess.run(cmd, input=verb.stdin, capture_output=True, env=dict(self.env, XDG_CACHE_HOME=cache), timeout=300)
        except subprocess.TimeoutExpired:
            return "hang", b"", ""
        return p.returncode, tidy(p.stdout, self.out), p.stderr.decode("utf-8", "replace")

    def judge(self, verb, at, all_behind, ref):
        rc, out, err = self.once(verb, at, all_behind)
        failed = self.control.get()[3]
        if rc == "hang":
            return "hang", "no end in 300 s", failed
        if rc == 255:  # exit(-1) is libhdf5's own, from H5I_register
            return "library", "exit 255 by libhdf5", failed
        if rc < 0 or rc >= 128 or "*** crash" in err:
            whose, where = crash_of(self.binary, err) or ("?", f"exit {rc}: {err[-200:]!r}")
            return ("crash" if whose.startswith("specdec") or whose == "?" else "library"), where, failed
        said = [l for l in err.split("\n") if l.startswith("specdec: ")]
        if "Fatal Internal Error in libarchive" in err:
            return "library", "exit 1 by libarchive, with its own words", failed
        if rc in (1, 2):
            if len(said) < 1 or not said[-1][9:].strip():
                return "mute", f"exit {rc}: {err[-200:]!r}", failed
            return ("error" if rc == 1 else "blamed"), said[-1], failed
        if rc != 0:
            return "odd", f"exit {rc}: {err[-200:]!r}", failed
        if out != ref[0]:
            return "wrong", f"stdout differs: {out[-160:]!r}", failed
        left = tree(self.out)
        if verb.name != "pack" and left != ref[1]:
            differ = sorted(k for k in set(left) | set(ref[1]) if left.get(k) != ref[1].get(k))
            return "wrong", f"files differ: {differ[:6]}", failed
        return "same", "", failed

    def reference(self, verb):
        rc, out, err = self.once(verb, NEVER, False)
        if rc != 0:
            raise RuntimeError(f"{verb.name} without a failure: {rc} {err}")
        return (out, tree(self.out)), self.control.get()[2]


def places(total, most):
    if FULL and total <= min(MOST, most or total):
        return range(1, total + 1)
    want = min(total, MOST, most or total) if FULL else min(total, SHORT)
    return sorted(rng.sample(range(1, total + 1), want))


def torture(bench, verb, window=None):
    """window: the first and the last allocation that are tried, instead of all."""
    bench.reference(verb)  # what is made once, is made
    ref, total = bench.reference(verb)
    tally, seen = collections.Counter(), collections.OrderedDict()
    first, last = window or (1, total)
    for all_behind in (False, True):
        for at in (first - 1 + n for n in places(last - first + 1, verb.most)):
            verdict, what, failed = bench.judge(verb, at, all_behind, ref)
            if verdict == "same" and not failed:
                continue
            tally[verdict] += 1
            if verdict not in ("same", "error"):
                key = (verdict, re.sub(r"0x[0-9a-f]+|\d+", "N", what))
                seen.setdefault(key, [0, at, all_behind, what])[0] += 1
    bad = sum(tally[k] for k in ("crash", "wrong", "hang", "mute", "odd", "blamed"))
    lines = [f"{v} x{n} (allocation {at}{' and all behind' if a else ''}): {w}" for (v, _), (n, at, a, w) in seen.items()]
    check(f"{verb.name}: {total} allocations, " + ", ".join(f"{n} {k}" for k, n in sorted(tally.items())), bad == 0, "\n".join(lines))
    return tally


def torture_archives(bench):
    """libarchive's own allocations, which are few among thousands: they stand around the one at which a file that is no archive ends the verb."""
    total = collections.Counter()
    for name in ("chats.zip", "chats.tar.gz", "chats.jsonl.xz"):
        command = lambda file: ("data", "prepare", file, "-m", "tiny.gguf", "--sequence-len", "64", "-o", "{out}/p.h5")
        with open("no-" + name, "w") as f:
            f.write("no archive\n" * 20)
        bench.once(Verb("no archive", *command("no-" + name)), NEVER, False)
        here = bench.control.get()[2]
        total += torture(bench, Verb(f"data prepare, the archive of {name}", *command(name)), (here - 40, here + 30))
    return total


# ---- a live server

# What names an answer, times it, or says how it was computed: a prefix that was not found for want of memory is computed anew.
BODY_NUMBERS = re.compile(rb'"(id|created|generation|adapter_generation|cache_n|prompt_n|cached_tokens|num_spec_steps|replaced|running|[a-z_]*_ms|[a-z_]*per_second|[a-z_]*per_token_ms)": ?("[^"]*"|[-\d.e+]+)')


def chat(**more):
    return json.dumps(dict({"messages": [{"role": "user", "content": "hello there"}], "max_tokens": 6, "ignore_eos": True, "seed": 1}, **more)).encode()


REQUESTS = [
    ("chat", "POST", "/v1/chat/completions", chat()),
    ("chat, n 2, logprobs", "POST", "/v1/chat/completions", chat(n=2, logprobs=True, top_logprobs=3)),
    ("chat, a stream with logprobs", "POST", "/v1/chat/completions", chat(stream=True, stream_options={"include_usage": True}, logprobs=True, top_logprobs=2)),
    ("chat, a stream of 2 choices", "POST", "/v1/chat/completions", chat(stream=True, n=2, temperature=1)),
    ("chat, an adapter, template arguments, stops", "POST", "/v1/chat/completions", chat(model="lora", chat_template_kwargs={"a": [1, {"b": "c"}]}, stop=["zzz", "yyy"])),
    ("completions, prompts, echo, logprobs", "POST", "/v1/completions", json.dumps({"prompt": ["abc", "de"], "max_tokens": 4, "ignore_eos": True, "seed": 1, "echo": True}).encode()),
    ("completions, logprobs, ids", "POST", "/v1/completions", json.dumps({"prompt": [257, 276, 111], "max_tokens": 4, "ignore_eos": True, "seed": 1, "logprobs": 2}).encode()),
    ("a body that is no JSON", "POST", "/v1/chat/completions", b'{"messages": [tru'),
    ("a field of a wrong type", "POST", "/v1/chat/completions", chat(temperature="hot")),
    ("an adapter is loaded", "POST", "/v1/load_lora_adapter", b'{"lora_name": "again", "lora_path": "whole", "aliases": ["prod"]}'),
    ("an adapter that is not there is loaded", "POST", "/v1/load_lora_adapter", b'{"lora_name": "none", "lora_path": "none"}'),
    ("adapters", "GET", "/v1/lora_adapters", None),
    ("chat, by the alias of one that was loaded", "POST", "/v1/chat/completions", chat(model="prod")),
    ("chat that wakes the server", "POST", "/v1/chat/completions", chat()),
    ("a model that is not there", "POST", "/v1/chat/completions", chat(model="other")),
    ("models", "GET", "/v1/models", None),
    ("a model", "GET", "/v1/models/lora", None),
    ("health", "GET", "/health", None),
    ("metrics", "GET", "/metrics", None),
    ("the page", "GET", "/", None),
    ("nothing there", "GET", "/nothing", None),
]


KEY = "the-key-of-an-administrator"


class Server:
    """The live server that is tortured; started again when it died."""

    def __init__(self, control, cache):
        self.control, self.cache, self.process = control, cache, None
        self.start()

    def start(self):
        self.control.disarm()
        with open("keys", "w", encoding="utf-8") as f:
            f.write(f"ops sha256:{hashlib.sha256(KEY.encode()).hexdigest()} admin\n")
        self.served = Served(BINARY, "tiny.gguf", "-a", "lora=whole", "--adapter-root", ".", "--api-key-file", "keys", "--slots", "4", "--threads", "1", limit=120,
                             env=environment(self.control, XDG_CACHE_HOME=self.cache))
        self.process = self.served.process

    def ask(self, method, path, body, limit=10):
        """status, body; status 0: the connection ended without a whole answer; -1: neither within the limit."""
        c = http.client.HTTPConnection("127.0.0.1", self.served.port, timeout=limit)
        try:
            c.request(method, path, body, {"Authorization": "Bearer " + KEY} | ({"Content-Type": "application/json"} if body is not None else {}))
            r = c.getresponse()
            head = {k.lower(): v for k, v in r.getheaders()}
            answer = r.read()
            if method == "POST" and "text/event-stream" in head.get("content-type", "") and b"data: [DONE]" not in answer and b'"error"' not in answer:
                return 0, answer
            return r.status, BODY_NUMBERS.sub(b"", answer)
        except TimeoutError:
            return -1, b""
        except (http.client.HTTPException, ConnectionError):
            return 0, b""
        finally:
            c.close()

    def metric(self, name):
        _, page = self.ask("GET", "/metrics", None)
        return sum(float(v) for v in re.findall(r"^specdec_%s(?:\{[^}]*\})? (\S+)$" % name, page.decode(), re.M))

    def at_rest(self, limit=30):
        end = time.time() + limit
        while time.time() < end:
            if not any(self.metric(n) for n in ("num_requests_running", "num_requests_waiting", "num_requests_reading", "request_body_bytes")):
                return True
            time.sleep(0.05)
        return False

    def descriptors(self):
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def crash(self):
        self.process.wait()
        time.sleep(0.1)
        return crash_of(BINARY, "\n".join(self.served.lines)) or ("?", f"exit {self.process.returncode}: {self.served.lines[-1:]}")


def same_answer(name, got, want):
    if name == "metrics":  # their names; the values go on. Those of the process are left out where /proc cannot be read
        names = [re.findall(rb"^# (?!\w+ process_).*$", a[1], re.M) for a in (got, want)]
        return got[0] == want[0] and names[0] == names[1] and got[1].endswith(b"\n")
    # Pieces of two choices of a stream may come in either order.
    return got == want or (got[0] == want[0] and b"data: " in got[1] and sorted(got[1].split(b"\n\n")) == sorted(want[1].split(b"\n\n")))


def says_that_it_failed(got, want):
    """A stream that began as it should and ends with an error."""
    events = [e for e in got[1].split(b"\n\n") if e]
    whole = want[1].split(b"\n\n")
    return bool(events) and events[-1].startswith(b'data: {"error":') and all(e in whole for e in events[:-1])


def make_ready(server, row):
    """What a row needs to be there before its request."""
    if "wakes" in row[0] or row[0] == "metrics":
        server.ask("POST", "/sleep", None)
    if row[0] == "metrics":  # it has more lines from then on
        server.ask("POST", "/wake_up", None)
    if "alias" in row[0]:  # it may be a server that was started again
        server.ask(*next(r for r in REQUESTS if r[0] == "an adapter is loaded")[1:])


def judge_request(server, row, at, all_behind, want):
    name, method, path, body = row
    make_ready(server, row)
    server.control.arm(at, all_behind)
    got = server.ask(method, path, body)
    failed = server.control.get()[3]
    server.control.disarm()
    if server.process.poll() is not None or (got[0] <= 0 and server.ask("GET", "/livez", None)[0] != 200):
        if server.process.poll() is None:
            return "hang", "the server answers nobody", failed
        whose, where = server.crash()
        return ("crash" if whose.startswith("specdec") or whose == "?" else "library"), where, failed
    if got[0] == -1:
        return "hang", "no answer and no end of the connection", failed
    if got[0] == 0:
        return "closed", "", failed
    if same_answer(name, got, want):
        return "same", "", failed
    if got[0] >= 500 or (got[0] == 200 and says_that_it_failed(got, want)):
        return "error", "", failed
    return "wrong", f"{got[0]}: {got[1][-160:]!r}", failed


def torture_request(server, row, want):
    make_ready(server, row)
    server.control.arm(NEVER, False)
    server.ask(*row[1:])
    total = server.control.get()[2]
    server.control.disarm()
    tally, seen = collections.Counter(), collections.OrderedDict()
    for all_behind in (False, True):
        for at in places(total, None):
            verdict, what, failed = judge_request(server, row, at, all_behind, want)
            if verdict == "same" and not failed:
                continue
            tally[verdict] += 1
            if verdict not in ("same", "error", "closed"):
                key = (verdict, re.sub(r"0x[0-9a-f]+|\d+", "N", what))
                seen.setdefault(key, [0, at, all_behind, what])[0] += 1
            if verdict in ("crash", "library", "hang"):
                server.process.kill()
                server.start()
    after = server.ask(*row[1:])
    bad = sum(tally[k] for k in ("crash", "wrong", "hang"))
    lines = [f"{v} x{n} (allocation {at}{' and all behind' if a else ''}): {w}" for (v, _), (n, at, a, w) in seen.items()]
    ok = same_answer(row[0], after, want)
    check(f"serve, {row[0]}: {total} allocations, " + ", ".join(f"{n} {k}" for k, n in sorted(tally.items())) + "; afterwards the same bytes", bad == 0 and ok, "\n".join(lines))
    return tally


def torture_server(control, cache):
    server = Server(control, cache)
    total = collections.Counter()
    want = []
    for row in REQUESTS:
        make_ready(server, row)
        server.ask(*row[1:])
        want.append(server.ask(*row[1:]))
        if want[-1][0] <= 0 or not same_answer(row[0], server.ask(*row[1:]), want[-1]):
            raise RuntimeError(f"{row[0]} has no answer of its own: {want[-1]}")
    server.at_rest()
    before = server.descriptors()
    for row, answer in zip(REQUESTS, want):
        total += torture_request(server, row, answer)
    rest = server.at_rest()
    check("serve: no slot, no place in the queue and no body's memory is lost", rest, "" if rest else server.ask("GET", "/metrics", None)[1].decode())
    time.sleep(2.5)
    after = server.descriptors()
    check(f"serve: as many descriptors as before ({before}, {after})", after <= before + 1)
    server.process.terminate()
    try:
        rc = server.process.wait(60)
    except subprocess.TimeoutExpired:
        server.process.kill()
        rc = "no end"
    check("serve: it drains and ends as ever", rc == 0, rc)
    return total


def torture_leaks(control, cache):
    """What is lost when an allocation failed, by LeakSanitizer. The libraries' own losses are theirs."""
    bench = Bench(control, LEAKS, cache, FAIL_NO_HANDLER="1", ASAN_OPTIONS="verify_asan_link_order=0:detect_leaks=1:exitcode=99:allocator_may_return_null=1")
    for verb in VERBS:
        if ONLY and not verb.name.startswith(ONLY) or verb.name.startswith(("train", "data prepare")):  # what writes HDF5 cannot be told from it
            continue
        bench.once(verb, NEVER, False)
        total, lost, odd = control.get()[2], collections.OrderedDict(), 0
        for at in places(total, verb.most):
            rc, _, err = bench.once(verb, at, False)
            if rc == 99 or "ERROR: AddressSanitizer" in err:
                m = re.findall(r"#\d+ 0x[0-9a-f]+ in (\w+) [^\n]*/(?:base|kernels|model|datasets|trainer|decode|cli)/", err)
                lost.setdefault(" < ".join(m[:3]) or err[-300:], at)
            odd += rc not in (0, 1, 2, 99)
        check(f"{verb.name}: nothing is lost when one of {total} allocations fails", not lost and not odd, "\n".join(f"allocation {at}: {what}" for what, at in lost.items()))


def main():
    if not os.path.exists(PRELOAD) or not os.path.exists(TINY):
        print(f"ok - allocation failures # SKIP {PRELOAD} is not built (target unit_tests)")
        return 0
    folder = tempfile.mkdtemp(prefix="alloc-")
    os.chdir(folder)
    start = time.time()
    try:
        control = Control(os.path.join(folder, "control"))
        cache = os.path.join(folder, "cache")
        make_inputs(dict(os.environ, XDG_CACHE_HOME=cache))
        if LEAKS:
            torture_leaks(control, cache)
            return failures > 0
        bench = Bench(control, BINARY, cache)
        total = collections.Counter()
        for verb in VERBS:
            if ONLY and not verb.name.startswith(ONLY):
                continue
            total += torture(bench, verb)
        if not ONLY or ONLY == "archives":
            total += torture_archives(bench)
        if not ONLY or ONLY == "serve":
            total += torture_server(control, cache)
        print(f"# {sum(total.values())} failures: {dict(total)}; {time.time() - start:.0f} s, SEED={SEED}")
    finally:
        os.chdir("/")
        shutil.rmtree(folder, ignore_errors=True)
    return failures > 0


sys.exit(main())
