#!/usr/bin/env python3
"""What speculation brings on one H100, simulated: rooflines of the CUDA kernels, and acceptance that `bench spec` measured on this machine's processor.

    gpu_simulation.py --index TRACE... --draft TRACE...      each trace is a column, named after its file

TRACE: of `specdec bench spec --trace FILE --spec-length N`, so that drafts are whole. --index: drafts of the text so far and of a run's index; --draft: those of a draft model beside the
text so far. Drafted tokens of a round count as right up to the first that was not what the target said. Acceptance is taken as it is to targets of other sizes; no device was used.
kernels/cuda/README.md has the rooflines; every other number is in ASSUMED, and is printed.
"""
import argparse
import json
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent / "lib"))
from script import Failure, run  # noqa: E402

# Bandwidth in bytes a second, the tensor cores' bf16 rate (dense), of an H100 SXM; what of them kernels reach; seconds of a launch inside a graph; of an all-reduce of one
# step's rows; of the host between steps; positions before the rows; what a further row adds to a step that waits for memory (1.14 at 8 rows: the kernels' bar is 1.15).
ASSUMED = {"bandwidth": 3.35e12, "flops": 989e12, "share_of_bandwidth": 0.8, "share_of_flops": 0.4, "launch_s": 1e-6, "all_reduce_s": 10e-6, "host_s": 30e-6, "depth": 2048,
           "row": 0.02}
# layers, width, query heads, kv heads, head size, inner width, vocabulary; bits of a weight of blocks and of the head; processors
MODELS = {
    "1.5B": dict(L=28, C=1536, H=12, G=2, D=128, F=8960, V=151936, bits=4.5, head=6.5625, ranks=1),
    "8B": dict(L=32, C=4096, H=32, G=8, D=128, F=14336, V=128256, bits=4.5, head=6.5625, ranks=1),
    "70B": dict(L=80, C=8192, H=64, G=8, D=128, F=28672, V=128256, bits=4.5, head=6.5625, ranks=1),
    "70B on 4": dict(L=80, C=8192, H=64, G=8, D=128, F=28672, V=128256, bits=4.5, head=6.5625, ranks=4),
}
DRAFT = dict(L=24, C=896, H=14, G=2, D=64, F=4864, V=151936, bits=4.5, head=6.5625, ranks=1)  # 0.5B
LAUNCHES = 9  # of a layer: norm, qkv, rope, attention, merge, o, norm with gate and up, gate's product, down
MOST = 15


def step_s(m, n):
    """Seconds of a step of n rows of one sequence: the longer of bytes and products, and what does not overlap."""
    a, r = ASSUMED, m["ranks"]
    block = m["C"] * (m["H"] + 2 * m["G"]) * m["D"] + m["H"] * m["D"] * m["C"] + 3 * m["C"] * m["F"]
    weights = (m["L"] * block * m["bits"] + m["V"] * m["C"] * m["head"]) / 8 / r
    kv = m["L"] * 2 * m["G"] * m["D"] * 2 * a["depth"] / r
    # Rows are the side of 8 of the tensor core's instruction, the weights its side of 16.
    flops = 2 * (m["L"] * block + m["V"] * m["C"]) / r * 8 * -(-n // 8)
    reads, products = (weights + kv) / (a["bandwidth"] * a["share_of_bandwidth"]), flops / (a["flops"] * a["share_of_flops"])
    return max(reads * (1 + a["row"] * (n - 1)), products) + (m["L"] * LAUNCHES + 4) * a["launch_s"] + (2 * m["L"] * a["all_reduce_s"] if r > 1 else 0) + a["host_s"]


class Rounds:
    """Of a trace: for each round in which drafters were asked, how many drafted tokens were right, and how many there were."""

    def __init__(self, path):
        try:
            lines = [json.loads(line) for line in open(path)]
        except (OSError, ValueError) as e:
            raise Failure(f"{path}: {e}; give a trace of bench spec --trace")
        if not lines or not isinstance(lines[0], dict) or "drafters" not in lines[0]:
            raise Failure(f"{path}: no trace of bench spec")
        self.name = pathlib.Path(path).stem
        # The last round of an answer ends with it, whatever was drafted.
        self.rounds = [(q["accepted"], q["taken"]) for r in lines[1:] if r.get("speculating") for q in r["requests"]]
        if not self.rounds:
            raise Failure(f"{path}: no round was drafted for")

    def tokens(self, k):
        """Mean tokens of a round with at most k drafts."""
        return 1 + sum(min(right, k) for right, _ in self.rounds) / len(self.rounds)


def best(model, rounds, draft_s):
    """(speed-up, drafts, tokens a round) at the best fixed number of drafts; 0 drafts: none pays. draft_s: of a drafted token."""
    plain, found = step_s(model, 1), (1.0, 0, 1.0)
    for k in range(1, min(MOST, max(made for _, made in rounds.rounds)) + 1):
        tokens = rounds.tokens(k)
        found = max(found, (tokens * plain / (step_s(model, 1 + k) + k * draft_s), k, tokens))
    return found


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--index", default=[], nargs="+", metavar="TRACE", help="traces whose drafts cost no time")
    p.add_argument("--draft", default=[], nargs="+", metavar="TRACE", help="traces with a draft model")
    a = p.parse_args()
    if not a.index and not a.draft:
        p.error("give a trace: --index TRACE or --draft TRACE")
    small = step_s(DRAFT, 1)
    columns = [(Rounds(t), 0) for t in a.index] + [(Rounds(t), small) for t in a.draft]
    print("Assumed: " + ", ".join(f"{k} {v:g}" for k, v in ASSUMED.items()) + f"; {LAUNCHES} launches a layer; a step of the 0.5B draft {1e3 * small:.2f} ms.\n")
    print("| model | step of 1 row, ms | 8 rows | 16 rows | " + " | ".join(r.name for r, _ in columns) + " |")
    print("| --- " * (4 + len(columns)) + "|")
    for name, m in MODELS.items():
        cells = []
        for rounds, cost in columns:
            speed, k, tokens = best(m, rounds, cost)
            cells.append(f"{speed:.2f}x ({k} drafted, {tokens:.2f} tokens a round)" if k else "none pays")
        print(f"| {name} | {1e3 * step_s(m, 1):.2f} | {step_s(m, 8) / step_s(m, 1):.2f}x | {step_s(m, 16) / step_s(m, 1):.2f}x | " + " | ".join(cells) + " |")
    return 0


if __name__ == "__main__":
    run(main)
