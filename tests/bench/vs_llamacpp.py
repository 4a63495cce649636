#!/usr/bin/env python3
"""Speed against llama.cpp, interleaved: same GGUF file, same threads, A B A B ... in one run.

    vs_llamacpp.py SPECDEC MODEL.gguf [--rounds 5] [--threads N] [--json]
    vs_llamacpp.py SPECDEC MODEL.gguf --streams 16 [--rounds 3] [--threads N] [--json]
    vs_llamacpp.py SPECDEC MODEL.gguf --run runs/NAME --prompts test.jsonl [--count 64] [--group 8] [--tokens 320] [--threads N] [--json]

The first prints medians and the median of the ratios round by round: prefill of 512 tokens, decoding at depths 256 and 2048, the time and the relative cost of
verifying n rows with all logits, the time from opening the file (in the page cache) to the first token after 16, and the memory resident after 64 tokens. For
llama.cpp the start of Python and its memory are taken off; for specdec everything counts from the start of the process.

The second has N prompts of 64 tokens answered at once with 64 tokens each: here by N clients of `specdec serve --spec off`, there as one batch of N sequences by
the C API, without a server. Tokens a second from the first request to the last token.

The third answers held-out prompts greedily, group by group in turns: llama.cpp with the run's GGUF-LoRA, plain (with this adapter every speculative setting of
llama-server was slower than that) and keeping the prefix that a prompt shares with the one before, as its server does; specdec with the run's adapter and
corpus index, plain and speculative.

Needs the Python package llama-cpp-python (its C API does the work; no Python in the loop), and jinja2 for the third. Where the processor has AMX, gcc 12 compiles
llama.cpp into a program that ends with status -11: build it with CMAKE_ARGS="-DCMAKE_CXX_FLAGS='-fno-dse -fno-tree-dse'", or without AMX with CMAKE_ARGS=
"-DGGML_NATIVE=OFF -DGGML_AVX512=ON -DGGML_AVX512_VBMI=ON -DGGML_AVX512_VNNI=ON -DGGML_AVX512_BF16=ON". Give it an otherwise idle machine:
llama.cpp's threads wait for each other at every step, and other load makes it many times slower.
"""
import argparse
import concurrent.futures
import ctypes
import http.client
import importlib.util
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time

ROWS = (2, 4, 8, 16, 48)
DEPTHS = (256, 2048)
STREAM_TOKENS = 64  # of a prompt, and of its answer


def open_peer(L, model, threads, ctx, sequences=1):
    """llama.cpp's model and context; its log is silenced. The callback must outlive the calls, so it comes back too."""
    log = L.llama_log_callback(lambda level, text, data: None)
    L.llama_log_set(log, None)
    L.llama_backend_init()
    params = L.llama_model_default_params()
    params.n_gpu_layers = 0
    m = L.llama_model_load_from_file(model.encode(), params)
    if not m:
        sys.exit(f"{model}: llama.cpp cannot load it")
    cp = L.llama_context_default_params()
    cp.n_ctx, cp.n_batch, cp.n_ubatch, cp.n_seq_max = ctx, 512, 512, sequences
    cp.n_threads = cp.n_threads_batch = threads
    return m, L.llama_init_from_model(m, cp), log


def prompt_token(i):
    return 1000 + i * 37 % 20000


class Steps:
    """Steps of llama.cpp over rows (token, position, sequence, whether logits are wanted)."""

    def __init__(self, L, context):
        self.L, self.c, self.batch = L, context, L.llama_batch_init(512, 0, 1)

    def run(self, rows):
        b = self.batch
        b.n_tokens = len(rows)
        for i, (token, pos, sequence, logits) in enumerate(rows):
            b.token[i], b.pos[i], b.n_seq_id[i], b.seq_id[i][0], b.logits[i] = token, pos, 1, sequence, logits
        t = time.perf_counter()
        if self.L.llama_decode(self.c, b) != 0:
            sys.exit("llama_decode failed")
        if rows[-1][3]:
            self.L.llama_get_logits_ith(self.c, len(rows) - 1)  # waits for the result
        else:
            self.L.llama_synchronize(self.c)
        return time.perf_counter() - t

    def chunk(self, start, n, all_logits=False):
        return self.run([(prompt_token(start + i), start + i, 0, all_logits or i == n - 1) for i in range(n)])


def peer(model, threads):
    """One measurement of llama.cpp in this process; prints one JSON object."""
    import llama_cpp as L

    m, c, log = open_peer(L, model, threads, max(DEPTHS) + 256)
    memory, steps = L.llama_get_memory(c), Steps(L, c)
    steps.chunk(0, 64)  # warm-up
    L.llama_memory_clear(memory, True)
    out = {"prefill_tok_s": 512 / steps.chunk(0, 512)}
    at = 512
    for depth in DEPTHS:
        for start in range(at, depth, 512):
            steps.chunk(start, min(512, depth - start))
        L.llama_memory_seq_rm(memory, 0, depth, -1)
        out[f"decode_tok_s_{depth}"] = 32 / sum(steps.chunk(depth + i, 1) for i in range(32))
        L.llama_memory_seq_rm(memory, 0, depth, -1)
        at = depth
    for n in (1,) + ROWS:
        times = []
        for _ in range(5):
            L.llama_memory_seq_rm(memory, 0, 256, -1)
            times.append(steps.chunk(256, n, True))
        out[f"verify_ms_{n}"] = statistics.median(times) * 1e3
    print(json.dumps(out))


def resident_mb():
    with open("/proc/self/status") as f:
        return int(re.search(r"VmRSS:\s+(\d+)", f.read()).group(1)) * 1024 / 1e6


def peer_start(model, threads):
    """From opening the file to the first token after 16, then the memory after 64; prints one JSON object."""
    import llama_cpp as L

    before, begin = resident_mb(), time.perf_counter()
    m, c, log = open_peer(L, model, threads, 4096)
    steps = Steps(L, c)
    steps.chunk(0, 16)
    first = time.perf_counter() - begin
    for i in range(63):
        steps.chunk(16 + i, 1)
    print(json.dumps({"start_s": first, "resident_mb": resident_mb() - before}))


def peer_streams(model, threads, n):
    """n sequences at once, greedy; prints one JSON object."""
    import llama_cpp as L

    m, c, log = open_peer(L, model, threads, n * STREAM_TOKENS * 2 + 512, n)
    steps, size = Steps(L, c), STREAM_TOKENS
    greedy = L.llama_sampler_init_greedy()
    steps.chunk(0, 64)  # warm-up
    L.llama_memory_clear(L.llama_get_memory(c), True)
    begin = time.perf_counter()
    last = {}
    for first in range(0, n, 512 // size):  # whole prompts, up to 512 rows a step
        some = range(first, min(n, first + 512 // size))
        rows = [(prompt_token(1000 * s + i), i, s, i == size - 1) for s in some for i in range(size)]
        steps.run(rows)
        for k, s in enumerate(some):
            last[s] = L.llama_sampler_sample(greedy, c, (k + 1) * size - 1)
    for made in range(1, size):
        steps.run([(last[s], size + made - 1, s, True) for s in range(n)])
        for s in range(n):
            last[s] = L.llama_sampler_sample(greedy, c, s)
    print(json.dumps({"tok_s": n * size / (time.perf_counter() - begin)}))


def ours_streams(specdec, model, threads, n):
    sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "e2e", "lib"))
    from served import Served

    server = Served(specdec, model, "--threads", str(threads), "--slots", str(n), "--spec", "off", "--ctx", str(4 * STREAM_TOKENS))
    try:

        def ask(s, tokens=STREAM_TOKENS):
            connection = http.client.HTTPConnection("127.0.0.1", server.port)
            body = {"prompt": [prompt_token(1000 * s + i) for i in range(STREAM_TOKENS)], "max_tokens": tokens, "temperature": 0, "ignore_eos": True}
            connection.request("POST", "/v1/completions", json.dumps(body), {"Content-Type": "application/json"})
            answer = json.loads(connection.getresponse().read())
            connection.close()
            if answer.get("usage", {}).get("completion_tokens") != tokens:
                sys.exit(f"specdec serve answered {answer}")

        ask(n, 4)  # warm-up
        with concurrent.futures.ThreadPoolExecutor(n) as pool:
            begin = time.perf_counter()
            list(pool.map(ask, range(n)))
            return {"tok_s": n * STREAM_TOKENS / (time.perf_counter() - begin)}
    finally:
        server.process.terminate()
        server.process.wait()


def peer_answers(model, threads, lora):
    """Answers prompts from standard input, {"messages", "max_tokens"} a line, with a line of counts and seconds each."""
    import llama_cpp as L
    from llama_cpp.llama_chat_format import Jinja2ChatFormatter

    ctx = 4096
    m, c, log = open_peer(L, model, threads, ctx)
    adapter = L.llama_adapter_lora_init(m, lora.encode())
    if not adapter:
        sys.exit(f"{lora}: llama.cpp cannot load it")
    L.llama_set_adapters_lora(c, (L.llama_adapter_lora_p_ctypes * 1)(adapter), 1, (ctypes.c_float * 1)(1.0))
    vocab, memory, greedy = L.llama_model_get_vocab(m), L.llama_get_memory(c), L.llama_sampler_init_greedy()
    text = ctypes.create_string_buffer(1 << 20)
    if L.llama_model_meta_val_str(m, b"tokenizer.chat_template", text, len(text)) < 0:
        sys.exit(f"{model}: has no chat template")
    render = Jinja2ChatFormatter(text.value.decode(), eos_token="", bos_token="")
    steps, before = Steps(L, c), []

    def forward(tokens, pos):
        steps.run([(token, pos + i, 0, i == len(tokens) - 1) for i, token in enumerate(tokens)])

    for line in sys.stdin:
        o = json.loads(line)
        prompt = render(messages=o["messages"]).prompt.encode()
        ids = (L.llama_token * ctx)()
        n = L.llama_tokenize(vocab, prompt, len(prompt), ids, ctx, False, True)
        if n < 0 or n + o["max_tokens"] > ctx:
            sys.exit(f"a prompt of {abs(n)} tokens and an answer of {o['max_tokens']} do not fit into a context of {ctx}")
        prompt = list(ids[:n])
        begin = time.perf_counter()
        keep = next((i for i, (x, y) in enumerate(zip(prompt[:-1], before)) if x != y), min(n - 1, len(before)))
        L.llama_memory_seq_rm(memory, 0, keep, -1)
        for at in range(keep, n, 512):
            forward(prompt[at:at + 512], at)
        token = L.llama_sampler_sample(greedy, c, -1)  # waits for the result
        first, made = time.perf_counter(), 0
        while not L.llama_vocab_is_eog(vocab, token):
            made += 1
            if made == o["max_tokens"]:
                break
            forward([token], n + made - 1)
            token = L.llama_sampler_sample(greedy, c, -1)
        end = time.perf_counter()
        before = prompt
        print(json.dumps({"prompt_tokens": n, "tokens": made, "decode_s": end - first, "request_s": end - begin}), flush=True)


def of_process(command):
    r = subprocess.run(command, capture_output=True, text=True)
    if r.returncode:
        sys.exit(r.stderr or f"'{' '.join(map(str, command))}' ended with status {r.returncode} and said nothing")
    return json.loads(r.stdout)


def ours(specdec, model, threads):
    b = of_process([specdec, "bench", "model", "-m", model, "--threads", str(threads), "--depth", ",".join(map(str, DEPTHS)), "--start", "--json"])
    out = {"prefill_tok_s": b["prefill_tok_s"]["512"], "start_s": b["cold_start_first_token_s"], "resident_mb": b["rss_mb"]}
    out.update({f"decode_tok_s_{d}": b["decode_tok_s"][str(d)] for d in DEPTHS})
    out.update({f"cost_{n}": b["verify_cost"][str(n)] for n in ROWS})
    out.update({f"verify_ms_{n}": out[f"cost_{n}"] * b["one_row_ms"] for n in ROWS})
    return out


def theirs(model, threads):
    me = [sys.executable, __file__]
    out = of_process(me + ["--peer", model, str(threads)])
    out.update({f"cost_{n}": out[f"verify_ms_{n}"] / out["verify_ms_1"] for n in ROWS})
    out.update(of_process(me + ["--peer-start", model, str(threads)]))
    return out


def read_prompts(path, count, tokens):
    out = []
    with open(path) as f:
        for line in f:
            messages = json.loads(line)["messages"]
            messages = messages[:-1] if messages[-1]["role"] == "assistant" else messages
            out.append({"messages": messages, "max_tokens": tokens})
            if len(out) == count:
                break
    return out


def ours_group(a, prompts):
    """A group's sums, [plain, speculative]: specdec answers every prompt in both ways, in alternating order."""
    with tempfile.NamedTemporaryFile("w", suffix=".jsonl") as f:
        f.writelines(json.dumps(p) + "\n" for p in prompts)
        f.flush()
        r = subprocess.run([a.specdec, "bench", "spec", "-m", a.model, "-a", a.run, "--threads", str(a.threads), "--json", f.name], capture_output=True, text=True)
    if r.returncode:
        sys.exit(r.stderr)
    t = json.loads(r.stdout)["tasks"][0]
    decoded = t["tokens"] - t["answers"]
    return [{"prompt_tokens": t["prompt_tokens"], "tokens": t["tokens"], "decoded": decoded, "decode_s": decoded / t["decode"][key],
             "request_s": t["tokens"] / t["request"][key]} for key in ("plain_tok_s", "spec_tok_s")]


def compare_answers(a):
    lora = os.path.join(a.run, "adapter.gguf")
    with tempfile.TemporaryDirectory() as work:
        if not os.path.exists(lora):
            lora = os.path.join(work, "lora.gguf")
            r = subprocess.run([a.specdec, "export", a.run, "-m", a.model, "--to", "gguf-lora", "-o", lora], capture_output=True, text=True)
            if r.returncode:
                sys.exit(r.stderr)
        them = subprocess.Popen([sys.executable, __file__, "--peer-answers", a.model, str(a.threads), lora], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        prompts, groups = read_prompts(a.prompts, a.count, a.tokens), []
        for at in range(0, len(prompts), a.group):
            group = prompts[at:at + a.group]
            print(f"prompts {at + 1} to {at + len(group)} of {len(prompts)}", file=sys.stderr)
            flip = len(groups) % 2
            mine = ours_group(a, group) if flip else None
            sums = {"prompt_tokens": 0, "tokens": 0, "decoded": 0, "decode_s": 0, "request_s": 0}
            for p in group:
                them.stdin.write(json.dumps(p) + "\n")
                them.stdin.flush()
                line = them.stdout.readline()
                if not line:
                    sys.exit(f"llama.cpp's process ended with status {them.wait()}")
                r = json.loads(line)
                r["decoded"] = max(r["tokens"] - 1, 0)
                for key in sums:
                    sums[key] += r[key]
            mine = mine or ours_group(a, group)
            if mine[0]["prompt_tokens"] != sums["prompt_tokens"]:
                sys.exit(f"the prompts have {mine[0]['prompt_tokens']} tokens here and {sums['prompt_tokens']} in llama.cpp: not the same work")
            groups.append([sums] + mine)
        them.stdin.close()
        them.wait()
    total = [{key: sum(g[who][key] for g in groups) for key in groups[0][0]} for who in range(3)]
    rows = [("decoding, tok/s", [t["decoded"] / t["decode_s"] for t in total]),
            ("request, ms", [t["request_s"] / len(prompts) * 1e3 for t in total]),
            ("request, tok/s", [t["tokens"] / t["request_s"] for t in total]),
            ("tokens an answer", [t["tokens"] / len(prompts) for t in total])]
    by_group = [g[2]["decoded"] / g[2]["decode_s"] / (g[0]["decoded"] / g[0]["decode_s"]) for g in groups]
    names = ("llama.cpp", "specdec plain", "specdec speculative")
    if a.json:
        print(json.dumps({"model": os.path.basename(a.model), "threads": a.threads, "prompts": len(prompts), "group": a.group,
                          "rows": [dict(zip(("what",) + names, [what] + values)) for what, values in rows],
                          "decoding_ratio_by_group": by_group}))
        return
    print(f"{os.path.basename(a.model)} with {a.run}, {a.threads} threads, {len(prompts)} prompts in turns of {a.group}")
    print(f"{'':20} {names[0]:>10} {names[1]:>14} {names[2]:>20} {'ratio':>7}")
    for what, (x, y, z) in rows:
        print(f"{what:20} {x:10.1f} {y:14.1f} {z:20.1f} {z / x:7.2f}")
    print(f"decoding, ratio by group: median {statistics.median(by_group):.2f}, {min(by_group):.2f} to {max(by_group):.2f}")


def in_turns(a, mine, other):
    a_runs, b_runs = [], []
    for i in range(a.rounds):
        print(f"round {i + 1} of {a.rounds}", file=sys.stderr)
        a_runs.append(mine())
        b_runs.append(other())
    return a_runs, b_runs


def compare_models(a):
    names = ["prefill_tok_s"] + [f"decode_tok_s_{d}" for d in DEPTHS] + [f"verify_ms_{n}" for n in ROWS] + [f"cost_{n}" for n in ROWS]
    return names + ["start_s", "resident_mb"], *in_turns(a, lambda: ours(a.specdec, a.model, a.threads), lambda: theirs(a.model, a.threads))


def compare_streams(a):
    command = [sys.executable, __file__, "--peer-streams", a.model, str(a.threads), str(a.streams)]
    return ["tok_s"], *in_turns(a, lambda: ours_streams(a.specdec, a.model, a.threads, a.streams), lambda: of_process(command))


def print_rows(a, names, a_runs, b_runs):
    med = statistics.median
    rows = [(key, med(x[key] for x in a_runs), med(y[key] for y in b_runs), med(x[key] / y[key] for x, y in zip(a_runs, b_runs))) for key in names]
    if a.json:
        print(json.dumps({"model": os.path.basename(a.model), "file_mb": os.path.getsize(a.model) / 1e6, "threads": a.threads, "rounds": a.rounds,
                          "streams": a.streams or 1, "rows": [dict(zip(("what", "specdec", "llama.cpp", "ratio"), r)) for r in rows]}))
        return
    streams = f", {a.streams} streams" if a.streams else f", file {os.path.getsize(a.model) / 1e6:.0f} MB"
    print(f"{os.path.basename(a.model)}{streams}, {a.threads} threads, {a.rounds} rounds interleaved (medians)")
    print(f"{'':20} {'specdec':>10} {'llama.cpp':>10} {'ratio':>7}")
    for name, x, y, ratio in rows:
        print(f"{name:20} {x:10.2f} {y:10.2f} {ratio:7.2f}")


def main():
    if len(sys.argv) > 1 and sys.argv[1] == "--peer":
        return peer(sys.argv[2], int(sys.argv[3]))
    if len(sys.argv) > 1 and sys.argv[1] == "--peer-answers":
        return peer_answers(sys.argv[2], int(sys.argv[3]), sys.argv[4])
    if len(sys.argv) > 1 and sys.argv[1] == "--peer-start":
        return peer_start(sys.argv[2], int(sys.argv[3]))
    if len(sys.argv) > 1 and sys.argv[1] == "--peer-streams":
        return peer_streams(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("specdec")
    ap.add_argument("model")
    ap.add_argument("--rounds", type=int, default=5)
    ap.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    ap.add_argument("--json", action="store_true")
    ap.add_argument("--streams", type=int, help="so many requests at once instead")
    ap.add_argument("--run", help="a tuned run's folder: answer --prompts instead")
    ap.add_argument("--prompts", help="JSON lines with messages; a last assistant turn is dropped")
    ap.add_argument("--count", type=int, default=64, help="prompts (64)")
    ap.add_argument("--group", type=int, default=8, help="prompts a turn (8)")
    ap.add_argument("--tokens", type=int, default=320, help="cap of an answer (320)")
    a = ap.parse_args()
    if bool(a.run) != bool(a.prompts) or min(a.count, a.group, a.rounds, 1 if a.streams is None else a.streams) < 1:
        ap.error("--run and --prompts go together; --count, --group, --rounds and --streams are 1 at least")
    if importlib.util.find_spec("llama_cpp") is None:
        print("ok - vs_llamacpp # SKIP llama-cpp-python is not installed")
        return
    if a.run:
        return compare_answers(a)
    print_rows(a, *(compare_streams if a.streams else compare_models)(a))


if __name__ == "__main__":
    main()
