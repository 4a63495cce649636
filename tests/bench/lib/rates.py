"""What a bench will take, from what this machine does now: `bench model`'s speeds, some seconds a model."""
import json
import subprocess

from script import Failure

CHARS_A_TOKEN = 3.2
COSTS = (1, 2, 4, 8, 16)


def run_json(*command):
    p = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    if p.returncode:
        raise Failure(f"{' '.join(map(str, command[:4]))} ... ended with status {p.returncode}: {p.stderr[-800:].strip()}")
    return json.loads(p.stdout)


class Rates:
    def __init__(self, specdec, model, threads):
        b = run_json(specdec, "bench", "model", "-m", model, "--threads", threads, "--prefill", "256", "--depth", "256", "--rounds", "5", "--no-start", "--json")
        self.prefill = b["prefill_tok_s"]["256"]
        self.step = {1: b["one_row_ms"] / 1e3, **{n: b["verify_cost"][str(n)] * b["one_row_ms"] / 1e3 for n in COSTS[1:]}}

    def seconds(self, prompts, clients, tokens, slower=1.0, slower_prefill=None):
        """Plain answers to all prompts, so many at once. slower: than this program's own plain decoding."""
        rows = next((n for n in COSTS if n >= clients), COSTS[-1])
        decode = sum(min(tokens or q["max_tokens"], q["max_tokens"]) for q in prompts) * self.step[rows] / min(clients, rows)
        read = sum(len(m["content"]) for q in prompts for m in q["messages"]) / CHARS_A_TOKEN / self.prefill
        return slower * decode + (slower_prefill or slower) * read


def duration(seconds):
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
