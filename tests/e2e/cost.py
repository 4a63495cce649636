#!/usr/bin/env python3
"""specdec cost as a user types it: the worked examples to the digit, docs/decide.md command by command, figures of a real server and real benches
through pipes, a usage log, hostile input, and the page in a headless Chromium.

    tests/e2e/cost.py build/release/specdec [--write] [--shots DIR]

--write: puts the output of each command into docs/decide.md. --shots: leaves screenshots of the page there. Prints TAP. Standard library only; needs
tests/make_tiny_model beside the binary for the server and the benches; the page's checks are skipped where there is no Chromium.
"""
import hashlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
import chromium  # noqa: E402
import tap  # noqa: E402
from options import parser  # noqa: E402
from served import Served  # noqa: E402
from tap import check, skip  # noqa: E402

options = parser(__doc__)
options.add_argument("--write", action="store_true", help="put what the commands of docs/decide.md print into it")
options.add_argument("--shots", metavar="DIR", help="leave screenshots there")
ARGS = options.parse_args()
BINARY = os.path.abspath(ARGS.binary)
ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
BASE = "--in 1500 --out 500 --prefill-tok-s 8000 --decode-tok-s 1500 --gpu-hour 2 --engineer-hours 20 --engineer-rate 100"
LARGE = "--in 1500 --out 500 --prefill-tok-s 9000 --decode-tok-s 740 --gpus 4 --gpu-hour 2 --engineer-hours 40 --engineer-rate 100"
OWNED = "--in 1500 --out 500 --prefill-tok-s 8000 --decode-tok-s 1500 --buy 15000 --years 3 --residual 0.2 --watts 60,400 --pue 1.3 --kwh 0.15"
FRONTIER, SMALL = "--api frontier=2.50,10.00", "--api small=0.15,0.60"


def cost(line, text=None, cwd=None):
    return subprocess.run([BINARY, "cost", *shlex.split(line)], input=text, capture_output=True, text=True, timeout=120, cwd=cwd)


def answer(line, text=None, cwd=None):
    p = cost(line + " --json", text, cwd)
    return json.loads(p.stdout) if p.returncode == 0 else {"error": p.stderr}


def at(tree, path):
    for key in path.split("."):
        tree = tree[key] if isinstance(tree, dict) and key in tree else None
    return tree


def says(name, line, **wanted):
    """Each wanted figure stands at its path, a double underscore for a point, to the digit that is written here."""
    r, wrong = answer(line), []
    for path, want in wanted.items():
        got = at(r, path.replace("__", "."))
        if isinstance(want, str) and isinstance(got, (int, float)):
            digits = len(want.partition(".")[2])
            ok = f"{got:.{digits}f}" == want
        else:
            ok = got == want
        if not ok:
            wrong.append(f"{path}: {got}, not {want}")
    check(name, not wrong, "\n".join(wrong) + f"\n{r.get('error', '')}")


def worked_examples():
    says("E1: 500 a day", f"--requests-day 500 {BASE} {FRONTIER} {SMALL}", gpu_seconds_per_request="0.520833", utilisation__capacity="0.003014", per_million_tokens__gpu_only="48.00",
         per_million_tokens__all_in="113.753", api__frontier__cost_month="133.07", api__small__cost_month="7.98", verdict__choice="api", verdict__api="small", cost_month__total="3460.00")
    says("E2: 18 % of the capacity", f"--requests-day 29859.84 {BASE} {FRONTIER}", utilisation__capacity="0.180000", per_million_tokens__gpu_only="0.8038", per_million_tokens__all_in="1.9048",
         per_million_tokens__gpu_only_at_full_use="0.1447", verdict__choice="self")
    says("E3: break-even against the large model", f"--requests-day 500 {BASE} {FRONTIER}", api__frontier__break_even__requests_day="13000.4", api__frontier__break_even__replicas=1,
         api__frontier__break_even__utilisation="0.0784", api__frontier__break_even__capacity_requests_day="38707.2", api__frontier__break_even__reason=None)
    says("E4: never against the small one", f"--requests-day 500 {BASE} {SMALL}", api__small__break_even__requests_day=None,
         api__small__break_even__reason="a further replica costs $1,460.00 a month and carries API work worth $618.11")
    says("E5: but with an even load", f"--requests-day 500 {BASE} {SMALL} --peak 1", api__small__break_even__requests_day="673816", api__small__break_even__replicas=6,
         api__small__break_even__capacity_requests_day="696730")
    says("E6: 70B, the peak 1.5 times the mean", f"--requests-day 500 {LARGE} {FRONTIER} --peak 1.5", gpu_seconds_per_request="0.842342", api__frontier__break_even__requests_day="36972.2",
         api__frontier__break_even__replicas=1, api__frontier__break_even__capacity_requests_day="47866.5")
    says("E6: and 3 times", f"--requests-day 500 {LARGE} {FRONTIER}", api__frontier__break_even__requests_day="190572", api__frontier__break_even__replicas=8,
         api__frontier__break_even__capacity_requests_day="191466")
    says("E7: a hybrid", f"--requests-day 30000 {BASE} {FRONTIER} --local-share 0.8", hybrid__cost_month="5056.88", hybrid__all_api="7984.38", hybrid__change="-0.367", hybrid__all_local="3460.00")
    says("E8: a card of one's own", f"--requests-day 29859.84 {OWNED}", cost_month__gpu="333.33", cost_month__energy="17.25", cost_month__total="350.59")
    says("E9: a cascade", "--requests-day 70800 --in 0 --out 1000 --decode-tok-s 1000000 --gpu-hour 2.50 --peak 1 --escalate 0.042 --api x=0,4.00", cascade__per_request="0.00101546",
         api__x__break_even__requests_day="15000")
    says("E9: at full use", "--requests-day 9 --out 9 --decode-tok-s 700 --gpu-hour 2.50", per_million_tokens__gpu_only_at_full_use="0.992063")
    says("E10: not $0.14", "--requests-day 9 --out 9 --decode-tok-s 50 --gpu-hour 2.50", per_million_tokens__gpu_only_at_full_use="13.89")
    says("E10: not 0.46 M tokens", "--requests-day 9 --out 9 --decode-tok-s 50000 --peak 1 --gpu-hour 6.3123287671 --api x=10,10", api__x__break_even__tokens_month="460800000")


def contract():
    r = answer(f"--requests-day 500 {BASE} {FRONTIER} --decision labels=0.10,0")
    fields = {"month_hours", "replicas", "gpu_seconds_per_request", "utilisation", "cost_month", "per_million_tokens", "per_request", "api", "hybrid", "sensitivity", "assumptions"}
    check("--json has the fields of the contract", fields <= set(r) and set(r["cost_month"]) == {"gpu", "people", "energy", "other", "total"}
          and {"cost_month", "per_request", "break_even"} <= set(r["api"]["frontier"]) and all({"input", "low", "high"} <= set(s) for s in r["sensitivity"]), json.dumps(r)[:2000])
    sources = {a["name"]: a["source"] for a in r["assumptions"]}
    check("each assumption says where it comes from", sources["in"] == "given" and sources["peak"] == "default" and set(sources.values()) <= {"measured", "given", "default"}, sources)
    swings = [abs(s["high"] - s["low"]) for s in r["sensitivity"]]
    check("the largest swing comes first", swings == sorted(swings, reverse=True) and swings[0] > 0, swings)
    check("a decision API is a kind of its own, and no verdict", r["api"]["labels"]["kind"] == "decision" and r["verdict"]["api"] == "frontier", r["api"])
    text = cost(f"--requests-day 500 {BASE} {FRONTIER} --busy 0.18").stdout
    check("the text shows both utilisations", "0.3014 % of the capacity" in text and "18.00 % of the time with work" in text, text)
    check("and what speculation buys", "latency here, not dollars" in text, text)
    check("without people it says that nobody's time is counted", "nobody's time is counted" in cost(f"--requests-day 5 --in 5 --out 5 --prefill-tok-s 9 --decode-tok-s 9 --gpu-hour 1 {SMALL}").stdout)
    check("text fits on a screen", len(text.splitlines()) <= 40 and max(map(len, text.splitlines())) <= 97, text)


def refused(folder):
    """Each of these is one sentence that names the input, on stderr, and 2. folder: what a wrong one would write lies there."""
    os.mkdir(os.path.join(folder, "recipes"))
    shutil.copy(os.path.join(ROOT, "recipes", "prices.json"), os.path.join(folder, "recipes"))
    ok = f"--requests-day 500 {BASE} {FRONTIER}"
    numbers = ("requests-day", "in", "out", "cached", "peak", "prefill-tok-s", "decode-tok-s", "plain-decode-tok-s", "gpus", "gpu-hour", "hours-on", "hosting", "min-replicas", "max-load",
               "engineer-hours", "engineer-rate", "setup-hours", "setup-months", "other", "migration-hours", "busy", "local-share", "escalate")
    cases = []
    for option in numbers:
        rest = re.sub(rf"--{option} \S+ ?", "", ok)
        for value in ("nan", "inf", "-inf", "1e999", "-1", "1e300", "x", "", "0x10", "' 5'"):
            cases.append((f"--{option} {shlex.quote(value)} {rest}", f"--{option}"))
    for option in ("requests-day", "peak", "prefill-tok-s", "decode-tok-s", "plain-decode-tok-s", "gpus", "gpu-hour", "hours-on", "min-replicas", "max-load", "setup-months", "engineer-rate"):
        cases.append((f"--{option} 0 " + re.sub(rf"--{option} \S+ ?", "", ok), f"--{option}"))
    for option in ("requests-day", "prefill-tok-s", "decode-tok-s", "gpu-hour"):
        cases.append((re.sub(rf"--{option} \S+ ?", "", ok), f"--{option}"))
    cases += [(ok.replace("--in 1500 --out 500", "--in 0 --out 0"), "--in and --out"), (f"{ok} --buy 5", "--buy"), (f"{ok} --watts 5,9 --kwh 1", "--watts"), (f"{ok} --watts 5", "--watts"),
              (f"{ok} --api frontier=1,1", "frontier is given twice"), (f"{ok} --api x=1", "--api"), (f"{ok} --api x=1,2,3,4", "--api"), (f"{ok} --api x=-1,2", "--api"), (f"{ok} --api x=nan,2", "--api"),
              (f"{ok} --api '=1,2'", "--api"), (f"{ok} --api 'a b=1,2'", "--api"), (f"{ok} --api gpt", "--prices"), (f"{ok} --decision x=1e9,2", "--decision"), (f"{ok} --token-ratio y=1", "--token-ratio"),
              (f"{ok} --token-ratio frontier=0", "--token-ratio"), (f"{ok} --by-hour 1,2,3", "--by-hour"), (f"{ok} --by-hour {','.join('0' * 24)}", "--by-hour"), (f"{ok} --by-hour {','.join('1' * 25)}", "--by-hour"),
              (f"{ok} --usage nowhere", "nowhere"), (f"{ok} --metrics http://x/metrics", "curl -s http://x/metrics | specdec cost --metrics -"), (f"{ok} --bench nowhere", "nowhere"),
              (f"{ok} --prices nowhere --api x", "nowhere"), (f"{ok} --tier flex", "--prices"), (f"{ok} --prices recipes/prices.json", "--api MODEL"), (f"{ok} word", "word"), (f"{ok} --request-day 5", "--requests-day"),
              (f"{ok} --html no/where.html", "no/where.html"), (f"{ok} --html -", "-: standard output"), (f"{ok} --html recipes/prices.json --prices recipes/prices.json --api gpt-4o", "recipes/prices.json is also read"),
              (f"{ok} --prices recipes/prices.json --prices-date 2026-02-30 --api gpt-4o", "--prices-date"), (f"{ok} --prices recipes/prices.json --prices-sha256 abc --api gpt-4o", "64 hexadecimal digits"),
              (f"{ok} --token-ratio frontier=2 --token-ratio frontier=3", "frontier is given twice"), (f"{ok} --years 3", "--years"), (f"{ok} --residual 0.1", "--residual"), (f"{ok} --pue 1.2", "--pue"),
              (f"{ok} --setup-months 3", "--setup-months"), (re.sub("--api.*", "--migration-hours 3", ok), "--migration-hours"), (f"{ok} --usage - --metrics -", "-: standard input"),
              (f"{ok} --api x=0x1,2", "--api"), (f"{ok} --token-ratio frontier=0x1", "--token-ratio"), (f"{ok} --by-hour 0x1{',1' * 23}", "--by-hour"), (f"{OWNED.replace('60,400', '0x60,400')} --requests-day 5", "--watts"),
              (ok.replace("--in 1500", "--in -1"), "give 0 or 0.001 to"), (f"{ok} --prices recipes/prices.json --prices-date soon --api gpt-4o", "--prices-date"),
              (f"--requests-day 1e12 {BASE} {FRONTIER}", "--requests-day"), (re.sub("--api.*", "", ok) + "--local-share 0.5", "--api")]
    wrong = []
    for line, name in cases:
        p = cost(line, cwd=folder)
        sentence = p.stderr.rstrip("\n")
        if p.returncode != 2 or p.stdout or "\n" in sentence or name not in sentence:
            wrong.append(f"{line}: {p.returncode} {p.stdout[:60]}{sentence}, not {name}")
    check(f"{len(cases)} bad inputs: each is named in one sentence, and the status is 2", not wrong, "\n".join(wrong))
    with open(os.path.join(folder, "recipes", "prices.json"), "rb") as f:
        pin = hashlib.sha256(f.read()).hexdigest()
    check("a pin may be in capitals", cost(f"{ok} --prices recipes/prices.json --api gpt-4o --prices-sha256 {pin.upper()}", cwd=folder).returncode == 0)
    p = cost(f"{ok} --prices recipes/prices.json --api gpt-4o --prices-sha256 {'0' * 64}", cwd=folder)
    check("another price file than the pinned one ends it", p.returncode != 0 and not p.stdout and "SHA-256" in p.stderr, p.stderr)


def commands(page):
    """Start, end and words of each command with its output: ``` $ ... ```"""
    for m in re.finditer(r"^```\n(\$ .*?)^```$", page, re.M | re.S):
        lines = m.group(1).split("\n")
        n = 1
        while lines[n - 1].endswith("\\"):
            n += 1
        yield m.start(1), m.end(1), "\n".join(lines[:n]), "\n".join(lines[n:])


def document():
    path = os.path.join(ROOT, "docs", "decide.md")
    with open(path) as f:
        page = f.read()
    found = list(commands(page))
    check("docs/decide.md has three companies", len(found) == 3, found)
    for start, end, command, shown in reversed(found):
        words = shlex.split(command[2:].replace("\\\n", " "))
        p = subprocess.run([BINARY, *words[1:]], capture_output=True, text=True, timeout=120, cwd=ROOT)
        check(f"docs/decide.md: {' '.join(words[:4])} ...", p.returncode == 0 and (ARGS.write or p.stdout == shown), f"{p.stderr}\n{p.stdout}")
        page = page[:start] + command + "\n" + p.stdout + page[end:]
    if ARGS.write:
        with open(path, "w") as f:
            f.write(page)


def usage_log(days, cost_pico):
    """An even load of one request a minute, five times as many from 9 to 12, each of 2 s."""
    lines = []
    for minute in range(days * 1440):
        for k in range(5 if 9 <= minute // 60 % 24 < 12 else 1):
            when = f"2026-05-{1 + minute // 1440:02d}T{minute // 60 % 24:02d}:{minute % 60:02d}:{k * 10:02d}Z"
            lines.append(json.dumps({"time": when, "key": "k", "tokens": {"uncached": 300, "cache_read": 1200, "output": 500}, "cost": cost_pico, "total_ms": 2000}))
    return "\n".join(lines) + "\n"


def usage():
    text = usage_log(3, 4250000000)
    r = answer(f"--usage - --prefill-tok-s 8000 --decode-tok-s 1500 --gpu-hour 2 {FRONTIER},1.25", text)
    n = 21 * 60 + 3 * 300
    sources = {a["name"]: (a["value"], a["source"], a.get("from")) for a in r.get("assumptions", [])}
    ok = abs(sources["requests-day"][0] - n) < 2 and sources["requests-day"][1:] == ("measured", "-") and sources["in"][0] == 1500 and sources["cached"][0] == 0.8
    check("a usage log from standard input gives the load", ok and abs(sources["peak"][0] - 300 * 24 / n) < 0.01, sources)
    check("and the share of the time with work", abs(r["utilisation"]["busy"] - n * 2 / 86400) < 1e-3, r["utilisation"])
    check("the API's price of such a request has its cached part", abs(r["api"]["frontier"]["per_request"] - (300 * 2.5 + 1200 * 1.25 + 500 * 10) / 1e6) < 1e-12, r["api"])
    check("what the log says was paid stands beside it", r["logged"]["requests"] == 3 * n and abs(r["logged"]["cost"] - 3 * n * 0.00425) < 1e-6 and r["logged"]["unpriced"] == 0, r["logged"])
    check("hours of the log give a mixture", r["burst"] is not None and len(r["burst"]["hours"]) == 24 and abs(r["burst"]["hours"][9]["requests"] - 300) < 2, r["burst"])
    r = answer(f"--usage - --requests-day 7 --in 9 --prefill-tok-s 8000 --decode-tok-s 1500 --gpu-hour 2 {SMALL}", text)
    sources = {a["name"]: (a["value"], a["source"]) for a in r["assumptions"]}
    check("the command line counts more than the log", sources["requests-day"] == (7, "given") and sources["in"] == (9, "given") and sources["out"] == (500, "measured"), sources)
    written = text.replace('"output": 500', '"output": 500, "write_5m": 500, "reasoning": 100')
    r = answer(f"--usage - --prefill-tok-s 8000 --decode-tok-s 1500 --gpu-hour 2 {SMALL}", written)
    shares = {a["name"]: a["value"] for a in r["assumptions"] if a["source"] == "measured"}
    check("what was written to a cache, and reasoning, stand among the assumptions", shares.get("prompt written to a cache for 5 min") == 0.25 and shares.get("answer that is reasoning") == 0.2, shares)
    speeds = f"--prefill-tok-s 8 --decode-tok-s 1 --gpu-hour 2 {SMALL}"
    line = '{"time": "2026-05-04T12:00:00Z", "tokens": {"uncached": 9, "output": 9}}\n'
    for moments in (line, line * 3):
        p = cost(f"--usage - {speeds}", moments)
        check("a log of one moment asks for the load alone", p.returncode == 2 and "one moment" in p.stderr and "give --requests-day" in p.stderr and "--usage" not in p.stderr, p.stderr)
        check("and with it it is enough", cost(f"--usage - --requests-day 5 {speeds}", moments).returncode == 0)
    p = cost(f"--usage - {speeds}", line.replace("9", "0") + line.replace("9", "0").replace("12:", "13:"))
    check("a log without tokens asks for them", p.returncode == 2 and "give those of a mean request, --in and --out" in p.stderr, p.stderr)
    cut = cost(f"--usage - --prefill-tok-s 8 --decode-tok-s 1 --gpu-hour 2 {SMALL}", text + text[:40])
    check("a line that is cut is named", cut.returncode == 2 and f"-: line {3 * n + 1}:" in cut.stderr, cut.stderr)


def mixtures():
    """What costs the same, and what is no mixture, is not called the cheaper mixture."""
    even = "--requests-day 500 --in 1500 --out 500 --prefill-tok-s 8000 --decode-tok-s 1500 --gpu-hour 2 --api f=2.5,10"
    cases = (("hours that all go to the API", f"{even} --by-hour {','.join(['1'] * 24)}", None), ("an odd sum of them", f"{even} --by-hour {','.join(['0.1', '0.7'] * 12)}", None),
             ("nothing is asked again", even.replace(" 500", " 50000", 1) + " --escalate 0", None), ("nothing is answered here", f"{even} --local-share 0", None),
             ("all is answered here", even.replace(" 500", " 50000", 1) + " --local-share 1", None),
             ("the base load here, the peak there", even.replace(" 500", " 50000", 1) + f" --max-load 0.1 --by-hour {','.join(['100'] * 23 + ['5000'])}", "by hour"))
    for name, line, want in cases:
        r = answer(line)
        check(f"a mixture: {name}", "error" not in r and r["verdict"]["mixture"] == want and ("Cheaper than either" in r["verdict"]["says"]) == (want is not None), r.get("verdict", r))
    r = answer(f"--requests-day 500 {BASE} {FRONTIER}")
    turn = r["api"]["frontier"]["break_even"]["requests_day"]
    check("at the break-even, where both cost the same, own replicas are named", answer(f"--requests-day {turn!r} {BASE} {FRONTIER}")["verdict"]["choice"] == "self")


def real_figures(folder):
    tiny = os.path.join(os.path.dirname(BINARY), "tests", "make_tiny_model")
    if not os.access(tiny, os.X_OK):
        return skip("figures of a server and of benches", f"{tiny} is not built (target unit_tests)")
    subprocess.run([tiny, "tiny.gguf"], cwd=folder, check=True, timeout=60)
    model = os.path.join(folder, "tiny.gguf")
    server = Served(BINARY, model)
    try:
        for i in range(5):
            server.request("POST", "/v1/completions", {"prompt": f"abc{i}" * 9, "max_tokens": 24, "temperature": 0})
        page = server.request("GET", "/metrics")[2].decode()
    finally:
        server.stop()
    r = answer(f"--metrics - --gpu-hour 2 {FRONTIER}", page)
    sources = {a["name"]: (a["value"], a["source"]) for a in r.get("assumptions", [])}
    measured = all(sources.get(name, (0, ""))[1] == "measured" and sources[name][0] > 0 for name in ("requests-day", "in", "out", "prefill-tok-s", "decode-tok-s"))
    check("a server's page of metrics gives load and speed", measured and 0 < r["utilisation"]["busy"] <= 1, f"{sources} {r.get('error')}")
    check("with the time that the load is of", any("days of the server, less than one" in n for n in r.get("notes", [])), r.get("notes"))
    check("with a note that a fuller batch is faster", any("fuller batches" in n for n in r.get("notes", [])), r.get("notes"))
    with open(os.path.join(folder, "prompts.jsonl"), "w") as f:
        f.write('{"task": "t", "max_tokens": 12, "prompt": "abcabcabcabc"}\n{"task": "t", "max_tokens": 12, "prompt": "record record record"}\n')
    for name, words in (("model.json", ["model", "-m", model, "--prefill", "16,64", "--depth", "16"]), ("spec.json", ["spec", "-m", model, "--clients", "2", "prompts.jsonl"])):
        p = subprocess.run([BINARY, "bench", *words, "--json"], capture_output=True, text=True, timeout=240, cwd=folder)
        with open(os.path.join(folder, name), "w") as f:
            f.write(p.stdout)
    r = answer(f"--requests-day 500 --in 40 --out 12 --bench model.json --bench spec.json --gpu-hour 2 {FRONTIER}", cwd=folder)
    with open(os.path.join(folder, "model.json")) as f:
        bench = json.load(f)
    with open(os.path.join(folder, "spec.json")) as f:
        spec = json.load(f)["tasks"][0]["decode"]
    sources = {a["name"]: a["value"] for a in r.get("assumptions", [])}
    near = [abs(sources.get(name, 0) / want - 1) < 1e-9 for name, want in (("prefill-tok-s", bench["prefill_tok_s"]["16"]), ("decode-tok-s", spec["spec_tok_s"]), ("plain-decode-tok-s", spec["plain_tok_s"]))]
    check("what the benches print gives both speeds, and what speculation buys", all(near) and r["speculation"]["measured"], f"{sources} {r.get('error')}")
    held = [n for n in r.get("notes", []) if "took" in n and "the speeds say" in n]
    check("and holds the computed time of a request against the measured one", len(held) == 1, r.get("notes"))
    check("of two clients no note says that one was alone", not any("one request at a time" in n for n in r.get("notes", [])), r.get("notes"))
    r = answer(f"--requests-day 500 --in 40 --out 12 --bench model.json --gpu-hour 2 {FRONTIER}", cwd=folder)
    check("a speed of one request at a time is said to be one", any("one request at a time (context of 16), and stands for all" in n for n in r.get("notes", [])), r.get("notes"))
    p = cost(f"--requests-day 500 --in 40 --out 12 --bench spec.json --gpu-hour 2 {FRONTIER}", cwd=folder)
    check("a bench that lacks the speed of prompts says which one has it", p.returncode == 2 and "bench model" in p.stderr, p.stderr)


def html(folder):
    path = os.path.join(folder, "page.html")
    with open(path, "w") as f:
        f.write("old")
    hours = ",".join(str(50 + 400 * (8 <= h < 18)) for h in range(24))
    line = f"--by-hour {hours} {BASE} {FRONTIER} {SMALL} --api '<script>alert(1)</script>=9,9' --decision labels=0.10,0 --html page.html"
    os.chmod(folder, 0o755)
    p = cost(line, cwd=folder)
    with open(path) as f:
        page = f.read()
    check("the page is written over the old one, and nothing beside it is left", p.returncode == 0 and page.startswith("<!doctype html>") and sorted(n for n in os.listdir(folder) if "page" in n) == ["page.html"], p.stderr)
    outside = re.findall(r"(?:src|href)\s*=|url\(|@import|https?://|<script", page)
    check("it names nothing outside itself and has no script", not outside and "&lt;script&gt;alert" in page, outside)
    check("plots have axes", page.count("<svg") == 4 and page.count('class="axis"') >= 7 and "requests a day" in page and "USD a month" in page and "hour of the day" in page)
    if not chromium.find():
        return skip("the page in a browser", "no Chromium")
    tab = chromium.Page("file://" + path, 1000, 1200)
    try:
        ready = tab.wait("document.readyState === 'complete' && document.querySelectorAll('svg').length === 4")
        colour = "getComputedStyle(document.body).backgroundColor"
        light = tab.js(colour)
        shapes = tab.js("[...document.querySelectorAll('svg')].map(s => s.querySelectorAll('polyline, rect').length)")
        inside = tab.js("[...document.querySelectorAll('svg')].every(s => [...s.querySelectorAll('polyline, rect, line, circle')].every(e => { const b = e.getBBox(), v = s.viewBox.baseVal;"
                        " return b.x >= -1 && b.y >= -1 && b.x + b.width <= v.width + 1 && b.y + b.height <= v.height + 1; }))")
        if ARGS.shots:
            tab.size(1000, 3000), tab.shot(os.path.join(ARGS.shots, "cost-light.png"))
        tab.dark(True)
        dark = tab.js(colour)
        if ARGS.shots:
            tab.shot(os.path.join(ARGS.shots, "cost-dark.png"))
        tab.size(390, 844, mobile=True)
        narrow = tab.js("document.documentElement.scrollWidth")
        if ARGS.shots:
            tab.size(390, 3400, mobile=True), tab.shot(os.path.join(ARGS.shots, "cost-phone.png"))
        check("a browser draws it without a complaint, inside its frames", ready and not tab.errors and all(n >= 4 for n in shapes) and inside, f"{tab.errors} {shapes} {inside}")
        check("light and dark follow the reader's setting", light != dark, f"{light} {dark}")
        check("nothing sticks out on a phone", narrow <= 390, narrow)
    finally:
        tab.close()


worked_examples()
contract()
with tempfile.TemporaryDirectory() as work:
    refused(work)
document()
usage()
mixtures()
with tempfile.TemporaryDirectory() as work:
    real_figures(work)
    html(work)
tap.finish()
