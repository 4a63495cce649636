#!/usr/bin/env python3
"""What operators watch: promtool reads /metrics without a word, a real Prometheus scrapes a live server, every expression of the Grafana dashboard returns data there, and the alerts
evaluate and pass their own cases.

    tests/e2e/prometheus.py build/release/specdec

Prints TAP. Needs tests/make_tiny_model beside the binary (target unit_tests); promtool, prometheus (recipes/deps.sh tests) and PyYAML, or prints what it skips.
"""
import hashlib
import importlib.util
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse
import urllib.request

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
import tap  # noqa: E402
import tools  # noqa: E402
from program import RECIPE, Program  # noqa: E402
from served import SLOW, Served  # noqa: E402
from tap import check, skip  # noqa: E402

PROGRAM = Program(__doc__)
OPERATE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "recipes", "operate")
KEY = {name: "key-of-%s-for-the-test" % name for name in ("ops", "alice")}
# What the design promises, and what only a server that has served has.
SERIES = """num_requests_running num_requests_waiting kv_cache_usage_perc lora_requests_info prompt_tokens_total generation_tokens_total request_success_total num_preemptions_total
prefix_cache_queries_total prefix_cache_hits_total spec_decode_num_drafts_total spec_decode_num_draft_tokens_total spec_decode_num_accepted_tokens_total
spec_decode_num_accepted_tokens_per_pos_total admission_rejections_total time_to_first_token_seconds_bucket inter_token_latency_seconds_bucket e2e_request_latency_seconds_bucket
request_queue_time_seconds_bucket request_prefill_time_seconds_bucket request_decode_time_seconds_bucket request_prompt_tokens_bucket request_generation_tokens_bucket
adapter_accept_length busy_seconds_total idle_seconds_total memory_bytes build_info adapter_info adapter_draft_tokens_total key_requests_total""".split()


def dashboard():
    spec = importlib.util.spec_from_file_location("dashboard", os.path.join(OPERATE, "dashboard.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    made = module.dashboard()
    check("dashboard.json is what dashboard.py writes", json.load(open(os.path.join(OPERATE, "dashboard.json"))) == made, "recipes/operate/dashboard.py >recipes/operate/dashboard.json")
    return [(p["title"], t["expr"]) for p in made["panels"] for t in p.get("targets", [])]


def alerts():
    """(name, expression); by PyYAML where it is there."""
    import yaml
    return [(r["alert"], r["expr"]) for g in yaml.safe_load(open(os.path.join(OPERATE, "alerts.yaml")))["groups"] for r in g["rules"]]


def ask(server, key, path="/v1/completions", **body):
    return server.request("POST", path, dict({"prompt": "items 1 2 3 1 2 3 1 2 3", "max_tokens": 24, "ignore_eos": True}, **body), {"Authorization": "Bearer " + KEY[key]})


def traffic(server, until):
    """Base and adapter, a schema, one that is cut, more at once than there is room for, and a wrong key."""
    schema = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"enum": ["a", "b"]}}}
    while not until.is_set():
        ask(server, "alice", temperature=0)
        ask(server, "ops", model="support", temperature=0)
        ask(server, "ops", response_format=schema, ignore_eos=False, max_tokens=64)
        crowd = [threading.Thread(target=ask, args=(server, "alice"), kwargs={"max_tokens": 200}) for _ in range(8)]
        for t in crowd:
            t.start()
        for t in crowd:
            t.join()
        server.request("GET", "/v1/models")


def page_of(server, key="ops"):
    return server.request("GET", "/metrics", headers={"Authorization": "Bearer " + KEY[key]})[2].decode()


def lint(name, page):
    promtool = tools.find("promtool")
    if not promtool:
        skip(name, "promtool is not here: recipes/deps.sh tests fetches it")
        return
    done = subprocess.run([promtool, "check", "metrics"], input=page, capture_output=True, text=True, timeout=60)
    check(name, done.returncode == 0 and not done.stdout and not done.stderr, done.stdout + done.stderr)


def rules():
    promtool = tools.find("promtool")
    if not promtool:
        skip("promtool takes rules, their cases and the scrape", "promtool is not here: recipes/deps.sh tests fetches it")
        return
    for name, argv in (("promtool takes the rules", ["check", "rules", "alerts.yaml"]), ("the rules pass their cases", ["test", "rules", "alerts_test.yaml", "alerts_week_test.yaml"]),
                       ("promtool takes the scrape", ["check", "config", "--syntax-only", "prometheus.yaml"])):
        done = subprocess.run([promtool, *argv], cwd=OPERATE, capture_output=True, text=True, timeout=60)
        check(name, done.returncode == 0, done.stdout + done.stderr)


class Prometheus:
    """The real one, with the recipe's file but for paths, port and intervals."""

    def __init__(self, folder, target):
        import yaml
        config = yaml.safe_load(open(os.path.join(OPERATE, "prometheus.yaml")))
        config["global"] = {"scrape_interval": "250ms", "scrape_timeout": "250ms", "evaluation_interval": "250ms"}
        config["rule_files"] = [os.path.abspath(os.path.join(OPERATE, f)) for f in config["rule_files"]]
        scrape = config["scrape_configs"][0]
        scrape["static_configs"][0]["targets"] = ["127.0.0.1:%d" % target]
        scrape["authorization"]["credentials_file"] = os.path.join(folder, "ops.key")
        with open(os.path.join(folder, "ops.key"), "w") as f:
            f.write(KEY["ops"])
        with open(os.path.join(folder, "prometheus.yaml"), "w") as f:
            yaml.safe_dump(config, f)
        with socket.create_server(("127.0.0.1", 0)) as s:
            self.port = s.getsockname()[1]
        self.log = open(os.path.join(folder, "prometheus.log"), "w+")
        self.process = subprocess.Popen([tools.find("prometheus"), "--config.file=" + os.path.join(folder, "prometheus.yaml"), "--storage.tsdb.path=" + os.path.join(folder, "tsdb"),
                                         "--web.listen-address=127.0.0.1:%d" % self.port], stdout=self.log, stderr=self.log)

    def get(self, path, **query):
        try:
            with urllib.request.urlopen("http://127.0.0.1:%d/api/v1/%s?%s" % (self.port, path, urllib.parse.urlencode(query)), timeout=30) as r:
                return json.load(r)["data"]
        except urllib.error.HTTPError as e:
            return {"result": [], "error": e.read().decode()}

    def wait(self, ready, limit=60):
        end = time.monotonic() + limit * SLOW
        while time.monotonic() < end:
            try:
                if ready():
                    return True
            except OSError:
                pass
            time.sleep(0.1)
        return False

    def close(self):
        self.process.terminate()
        self.process.wait()
        self.log.close()


def scraped(server, folder, panels, rules_):
    if not tools.find("prometheus"):
        skip("a Prometheus scrapes the server", "prometheus is not here: recipes/deps.sh tests fetches it")
        return
    p = Prometheus(folder, server.port)
    try:
        up = p.wait(lambda: any(t["health"] == "up" for t in p.get("targets").get("activeTargets", [])))
        check("Prometheus scrapes the server", up, open(os.path.join(folder, "prometheus.log")).read()[-2000:])
        if not up:
            return

        def missing():
            fill = lambda e: e.replace("$__rate_interval", "30s").replace("$instance", ".*").replace("$adapter", ".*")
            return [(title, e) for title, e in panels if not any(r["value"][1] != "NaN" for r in p.get("query", query=fill(e))["result"])]
        # A rate needs two scrapes, and some series come with what they count.
        check("every expression of the dashboard returns data", p.wait(lambda: not missing(), 30), "\n".join(map(str, missing())))
        found = lambda: {r["name"]: r for g in p.get("rules").get("groups", []) for r in g["rules"]}
        check("every alert evaluates", p.wait(lambda: len(found()) == len(rules_) and all(r["health"] == "ok" for r in found().values())),
              [(n, r["health"], r.get("lastError")) for n, r in found().items()])
        check("a server at work is no reason to be woken", not [n for n, r in found().items() if r["state"] == "firing"], [n for n, r in found().items() if r["state"] == "firing"])
    finally:
        p.close()


def names_of(expression):
    return set(re.findall(r"\b(?:specdec|process)_\w+", expression))


def main():
    panels = dashboard()
    rules()
    try:
        rules_ = alerts()
    except ImportError:
        skip("a live server's series", "the Python package yaml is not installed (python3-yaml)")
        tap.finish()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        subprocess.run([PROGRAM.tiny, "tiny.gguf", "long"], check=True)
        with open("talks.jsonl", "w") as f:
            for i in range(8):
                f.write(json.dumps({"messages": [{"role": "user", "content": "items"}, {"role": "assistant", "content": "1 2 3 1 2 3 %d" % i}]}) + "\n")
        with open("r.yaml", "w") as f:
            f.write(RECIPE % 128)
        done = PROGRAM.run("train", "r.yaml", "-o", "run")
        check("a run is trained", done.returncode == 0, done)
        with open("keys", "w") as f:
            f.write("ops sha256:%s admin\nalice sha256:%s\n" % tuple(hashlib.sha256(KEY[n].encode()).hexdigest() for n in ("ops", "alice")))
        server = Served(PROGRAM.binary, "tiny.gguf", "-a", "support=run", "--no-pack-cache", "--slots", "2", "--queue", "2", "--spec-length", "4", "--api-key-file", "keys", "--access-log", "log",
                        "--vllm-metrics")
        over = threading.Event()
        busy = threading.Thread(target=traffic, args=(server, over))
        try:
            busy.start()
            ended = lambda: re.search(r'^specdec_key_rejections_total\{.*key="alice"\} [1-9]', page_of(server), re.M)
            end = time.monotonic() + 60 * SLOW
            while not ended() and time.monotonic() < end:
                time.sleep(0.1)
            page = page_of(server)
            own = "\n".join(line for line in page.splitlines() if "vllm:" not in line) + "\n"
            lint("promtool check metrics prints nothing", own)
            there = set(re.findall(r"^(\w+)[{ ]", own, re.M))
            check("every series that is promised is there", not [n for n in SERIES if "specdec_" + n not in there], [n for n in SERIES if "specdec_" + n not in there])
            for what, list_ in (("dashboard", panels), ("alerts", rules_)):
                lost = sorted({n for _, e in list_ for n in names_of(e)} - there)
                check("every series that the %s names is there" % what, not lost, lost)
            check("vLLM's names are there too when asked for", 'vllm:time_to_first_token_seconds_bucket{model_name="tiny",adapter="support"' in page)
            user = page_of(server, "alice")
            check("a user's key reads its own counts alone", 'key="alice"' in user and 'key="ops"' not in user)
            scraped(server, folder, panels, rules_)
        finally:
            over.set()
            busy.join()
            check("it ends with 0", server.stop() == 0, server.lines[-3:])
            os.chdir("/")
    tap.finish()


main()
