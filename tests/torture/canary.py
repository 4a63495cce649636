#!/usr/bin/env python3
"""Canaries: each answer under load must be that of the same request alone, byte for byte, and nothing may stay behind.

    tests/torture/canary.py build/release/specdec [--full] [--requests N] [--tenants N] [--server BINARY] [--model FILE] [--clients N] [--soak HOURS]

Short: 3,000 requests to a generated model of two layers with an adapter, and as many of eight tenants. --full: 10^6 of these, 10^5 of eight tenants, and
2 x 10^4 to the 135M where it is there. --tenants: with so many keys alone, whose texts, schemas and salts carry markers that must never be seen in another's
answer, behind a beginning that all share, so that the prefix cache has something to mistake.
--server: the server's binary, for one built with sanitizers (its reports are failures; its memory is not judged). --soak: for so many hours, and
memory may grow by 1 MB an hour. Prints TAP; needs canary and make_tiny_model beside the first binary. tests/torture/canary.c says what is asked.
"""
import os
import signal
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "e2e", "lib"))
from options import parser  # noqa: E402
from served import Served  # noqa: E402

options = parser(__doc__, full=True)
options.add_argument("--requests", type=int)
options.add_argument("--tenants", type=int)
options.add_argument("--server")
options.add_argument("--model")
options.add_argument("--clients", type=int, default=8)
options.add_argument("--seed", type=int, default=1)
options.add_argument("--soak", type=float)
o = options.parse_args()
TESTS = os.path.join(os.path.dirname(o.binary), "tests")
# What the process holds is judged, not what malloc keeps for later: a block of 64 KB or more goes back when it is freed. Otherwise glibc raises that bound to the
# largest block ever freed, and the grammars' tables (256 KB each, 32 that nobody holds are kept and change places) leave up to 12 MB of holes behind.
MALLOC = {"GLIBC_TUNABLES": "glibc.malloc.mmap_threshold=65536"}
MODELS = os.environ.get("SPECDEC_MODELS", os.path.expanduser("~/.cache/specdec/models"))
REPORTS = ("WARNING: ThreadSanitizer", "ERROR: AddressSanitizer", "ERROR: LeakSanitizer", "runtime error:")
failures = 0


def check(name, ok, detail=""):
    global failures
    print(("ok - canary: " if ok else "not ok - canary: ") + name, flush=True)
    failures += not ok
    for line in detail.splitlines()[:30] if not ok else []:
        print("# " + line[:300], flush=True)


def rss_kb(pid):
    with open("/proc/%d/status" % pid) as f:
        return next(int(line.split()[1]) for line in f if line.startswith("VmRSS"))


def count(text):
    """The number of failed lines; shows all of them."""
    print(text, end="", flush=True)
    return sum(line.startswith("not ok") for line in text.splitlines())


def run(model, adapter, requests, tenants=0, hours=None):
    global failures
    print("# %d requests to %s%s" % (requests, os.path.basename(model), ", %d tenants" % tenants if tenants else ""), flush=True)
    keys = os.path.join(os.path.dirname(adapter), "keys%d" % tenants)
    if tenants:
        with open(keys, "w") as f:
            f.writelines("key-of-tenant-number-%02d\n" % i for i in range(tenants))
    os.environ.setdefault("TSAN_OPTIONS", "halt_on_error=0:history_size=4")
    served = Served(o.server or o.binary, model, "-a", "lora=" + adapter, "--served-name", "base", "--slots", "6", "--queue", "64", "--threads", "2",
                    "--no-pack-cache", *(("--api-key-file", keys) if tenants else ()), limit=300,
                    env=dict(os.environ, **MALLOC))
    env = dict(os.environ, **({"CANARY_NO_RSS": "1"} if o.server else {}))
    begin, seed, samples = time.time(), o.seed, []
    while True:
        command = [os.path.join(TESTS, "canary"), str(served.port), str(served.process.pid), str(requests), str(o.clients), str(seed), "base,lora"] + [keys] * (tenants > 0)
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=env)
        bad = count(done.stdout)
        failures += bad
        check("the clients ended well", done.returncode == (bad > 0), "status %d" % done.returncode)
        samples.append((time.time() - begin, rss_kb(served.process.pid)))
        seed += 100
        if not hours or time.time() - begin > hours * 3600 or done.returncode:
            break
    if hours and len(samples) > 2:
        late = [s for s in samples if s[0] > samples[-1][0] / 10]
        slope = (late[-1][1] - late[0][1]) / 1024 / max((late[-1][0] - late[0][0]) / 3600, 1e-9)
        check("soak of %.2f h: memory grows by %.2f MB an hour" % (samples[-1][0] / 3600, slope), slope < 1)
    served.process.send_signal(signal.SIGTERM)
    check("the server ends", served.process.wait(300) == 0, "\n".join(served.lines[-20:]))
    time.sleep(0.3)
    reports = [i for i, line in enumerate(served.lines) if any(r in line for r in REPORTS)]
    check("no report of a sanitizer", not reports, "\n".join(served.lines[reports[0]:reports[0] + 30]) if reports else "")


with tempfile.TemporaryDirectory() as work:
    tiny, small = os.path.join(work, "tiny.gguf"), os.path.join(MODELS, "SmolLM2-135M-Instruct.Q4_1.gguf")
    jobs = []
    if o.model:
        jobs = [(o.model, o.requests or 20000, o.tenants or 0)]
    else:
        subprocess.run([os.path.join(TESTS, "make_tiny_model"), tiny], check=True)
        jobs = [(tiny, o.requests or (1000000 if o.full else 3000), 0), (tiny, o.requests or (100000 if o.full else 3000), o.tenants or 8)]
        if o.tenants:
            jobs = jobs[1:]
        if o.full and not o.requests and os.path.exists(small):
            jobs.append((small, 20000, o.tenants or 0))
    for i, (model, requests, tenants) in enumerate(jobs):
        adapter = os.path.join(work, "adapter%d" % i)
        subprocess.run([os.path.join(TESTS, "canary"), "--write-adapter", model, adapter], check=True)
        run(model, adapter, requests, tenants, o.soak)
sys.exit(failures > 0)
