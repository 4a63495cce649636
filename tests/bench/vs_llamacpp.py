#!/usr/bin/env python3
"""Speed against llama.cpp, interleaved: same GGUF file, same threads, A B A B ... in one run.

    vs_llamacpp.py SPECDEC MODEL.gguf [--rounds 5] [--threads N] [--json]

Needs the Python package llama-cpp-python (its C API does the work; no Python in the loop). Prints medians and the median of the ratios round by round:
prefill of 512 tokens, decoding at depth 256, and the cost of verifying n rows with all logits over one row.
"""
import argparse
import ctypes
import json
import os
import statistics
import subprocess
import sys
import time

ROWS = (2, 4, 8, 16, 48)


def peer(model, threads):
    """One measurement of llama.cpp in this process; prints one JSON object."""
    import llama_cpp as L

    log = L.llama_log_callback(lambda level, text, data: None)
    L.llama_log_set(log, None)
    L.llama_backend_init()
    params = L.llama_model_default_params()
    params.n_gpu_layers = 0
    m = L.llama_model_load_from_file(model.encode(), params)
    if not m:
        sys.exit(f"{model}: llama.cpp cannot load it")
    cp = L.llama_context_default_params()
    cp.n_ctx, cp.n_batch, cp.n_ubatch = 1024, 512, 512
    cp.n_threads = cp.n_threads_batch = threads
    c = L.llama_init_from_model(m, cp)
    memory = L.llama_get_memory(c)
    batch = L.llama_batch_init(512, 0, 1)

    def run(start, n, all_logits):
        batch.n_tokens = n
        for i in range(n):
            batch.token[i] = 1000 + (start + i) * 37 % 20000
            batch.pos[i] = start + i
            batch.n_seq_id[i] = 1
            batch.seq_id[i][0] = 0
            batch.logits[i] = 1 if all_logits or i == n - 1 else 0
        t = time.perf_counter()
        if L.llama_decode(c, batch) != 0:
            sys.exit("llama_decode failed")
        L.llama_get_logits_ith(c, n - 1)  # waits for the result
        return time.perf_counter() - t

    run(0, 64, False)  # warm-up
    L.llama_memory_clear(memory, True)
    out = {"prefill_tok_s": 512 / run(0, 512, False)}
    L.llama_memory_seq_rm(memory, 0, 256, -1)
    out["decode_tok_s"] = 48 / sum(run(256 + i, 1, True) for i in range(48))
    cost = {}
    for n in (1,) + ROWS:
        times = []
        for _ in range(5):
            L.llama_memory_seq_rm(memory, 0, 256, -1)
            times.append(run(256, n, True))
        cost[n] = statistics.median(times)
    out["verify_ms"] = {str(n): cost[n] * 1e3 for n in cost}
    print(json.dumps(out))


def ours(specdec, model, threads):
    r = subprocess.run([specdec, "bench", "model", "-m", model, "--threads", str(threads), "--json"], capture_output=True, text=True)
    if r.returncode:
        sys.exit(r.stderr)
    b = json.loads(r.stdout)
    return {"prefill_tok_s": b["prefill_tok_s"]["512"], "decode_tok_s": b["decode_tok_s"]["256"], "verify": b["verify_cost"]}


def main():
    if len(sys.argv) > 1 and sys.argv[1] == "--peer":
        return peer(sys.argv[2], int(sys.argv[3]))
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("specdec")
    ap.add_argument("model")
    ap.add_argument("--rounds", type=int, default=5)
    ap.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    ap.add_argument("--json", action="store_true")
    a = ap.parse_args()
    a_runs, b_runs = [], []
    for i in range(a.rounds):
        print(f"round {i + 1} of {a.rounds}", file=sys.stderr)
        a_runs.append(ours(a.specdec, a.model, a.threads))
        r = subprocess.run([sys.executable, __file__, "--peer", a.model, str(a.threads)], capture_output=True, text=True)
        if r.returncode:
            sys.exit(r.stderr)
        p = json.loads(r.stdout)
        p["verify"] = {n: p["verify_ms"][n] / p["verify_ms"]["1"] for n in map(str, ROWS)}
        b_runs.append(p)
    med = statistics.median
    rows = [(key, med(x[key] for x in a_runs), med(y[key] for y in b_runs), med(x[key] / y[key] for x, y in zip(a_runs, b_runs)))
            for key in ("prefill_tok_s", "decode_tok_s")]
    rows += [(f"cost({n})/cost(1)", med(x["verify"][n] for x in a_runs), med(y["verify"][n] for y in b_runs),
              med(x["verify"][n] / y["verify"][n] for x, y in zip(a_runs, b_runs))) for n in map(str, ROWS)]
    if a.json:
        print(json.dumps({"model": os.path.basename(a.model), "threads": a.threads, "rounds": a.rounds,
                          "rows": [dict(zip(("what", "specdec", "llama.cpp", "ratio"), r)) for r in rows]}))
        return
    print(f"{os.path.basename(a.model)}, {a.threads} threads, {a.rounds} rounds interleaved (medians)")
    print(f"{'':20} {'specdec':>10} {'llama.cpp':>10} {'ratio':>7}")
    for name, x, y, ratio in rows:
        print(f"{name:20} {x:10.2f} {y:10.2f} {ratio:7.2f}")


if __name__ == "__main__":
    main()
