#!/usr/bin/env python3
"""on_device_table.py FOLDER DEVICE: what tests/cuda/on_device.sh left in FOLDER, as the Markdown of a dated result."""
import json
import pathlib
import subprocess
import sys
import time


def load(path):
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return None


def rows_of(path):
    return [line.split("\t") for line in path.read_text().splitlines() if "\t" in line] if path.exists() else []


def model_row(shape, m, card):
    """GB/s of weights that decoding reads, which bench model gives as a share of the host's bandwidth, and their share of the card's."""
    rate = m["decode_tok_s"]["0"]
    gb = m["percent_of_bandwidth"] / 100 * m["read_bandwidth_gb_s"]
    share = f"{100 * gb / card:.0f} %" if card else "-"
    deepest = max(m["decode_tok_s"], key=int)
    prefill = next(iter(m["prefill_tok_s"].values()), 0)
    cost = m["verify_cost"]
    return f"| {shape} | {prefill:.0f} | {rate:.1f} | {m['decode_tok_s'][deepest]:.1f} at {deepest} | {m['one_row_ms']:.3f} | {gb:.0f} | {share} | {cost['2']:.2f} | {cost['4']:.2f} | {cost['8']:.2f} | {cost['16']:.2f} |"


def main():
    work, device = pathlib.Path(sys.argv[1]), sys.argv[2]
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip() or "no repository"
    print(f"# CUDA on a device, {time.strftime('%Y-%m-%d', time.gmtime())}\n\n{device}; commit {commit}; `tests/cuda/on_device.sh`.\n")
    print("| part | result | |\n| --- | --- | --- |")
    print((work / "parts").read_text())
    tests = [line for f in sorted((work / "tests").glob("*test_*")) if f.suffix != ".status" for line in f.read_text().splitlines()] if (work / "tests").exists() else []
    passed = sum(t.startswith("ok") for t in tests)
    print(f"{passed} tests pass, {sum(t.startswith('not ok') for t in tests)} fail.\n")
    for t in tests:
        if t.startswith("not ok"):
            print(f"- {t}")
    rates = rows_of(work / "rates")
    card = 0.0
    if rates:
        card = float(rates[0][1])
        print(f"Memory: {rates[0][1]} GB/s by clock and width, {rates[0][2]} GB/s in a copy.\n")
        print("| product of one row | µs | GB/s | % of the card | 4 rows | 8 rows | 16 rows |\n| --- | --- | --- | --- | --- | --- | --- |")
        for r in rates[1:]:
            print("| " + " | ".join(r) + " |")
        print()
    models = [(f.name.removesuffix(".model.json"), load(f)) for f in sorted(work.glob("*.model.json"))]
    models = [(shape, m) for shape, m in models if m]
    if models:
        print("| random model | prefill tok/s | decode tok/s | deep | ms a row | GB/s of weights | of the card | 2 rows | 4 | 8 | 16 |\n" + "| --- " * 11 + "|")
        for shape, m in models:
            print(model_row(shape, m, card))
        print()
    for f in sorted(work.glob("*.spec.json")):
        for t in (load(f) or {}).get("tasks", []):
            d = t["decode"]
            print(f"Speculation, {f.name.removesuffix('.spec.json')}: {d['plain_tok_s']:.1f} tok/s plain, {d['spec_tok_s']:.1f} drafted ({d['speed_up']:.2f}x, tau {t['tau']:.2f}), {t['identical']} of {t['answers']} answers identical.")


if __name__ == "__main__":
    main()
