#!/usr/bin/env python3
"""Logits of real weights against transformers, which dequantises the same GGUF file: 300 tokens of English, C and Chinese text (of
Gemma 3 640, beyond its window of 512) with activations, keys and values in fp32 on both sides.

    logits_weights.py SPECDEC MODELS [FILE.gguf ...]     MODELS: the folder of the files; default: every model that is there
                                                         and has less than 500 MB (SPECDEC_PARITY_ALL=1: all)

Tolerance: 30 layers of fp32 on logits of order 20 differ by some 1e-4 between two orders of addition; 2e-3 is the limit.
The most likely token must be the same wherever the reference's lead is larger than twice that.
"""
import os, pathlib, subprocess, sys, tempfile

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TRANSFORMERS_VERBOSITY"], os.environ["TQDM_DISABLE"] = "error", "1"
LIMIT = 2e-3
TOKENS = {"gemma-3-270m.Q4_K_M.gguf": 640}  # 300 of others
FILES = ("SmolLM2-135M-Instruct.Q4_1.gguf", "gemma-3-270m.Q4_K_M.gguf", "Qwen2.5-Coder-0.5B-Instruct.Q4_K_M.gguf", "Qwen2.5-Coder-1.5B-Instruct.Q4_K_M.gguf")
TEXT = """The river rose for three days, and on the fourth the bridge at Ashford was closed to everything heavier than a bicycle.
Nobody in the village was surprised: the old stones had been moving since the winter before last, 12 mm in 2019, 31 mm in 2023.

static int compare(const void *a, const void *b) {
    const struct entry *x = a, *y = b;
    if (x->key != y->key) return x->key < y->key ? -1 : 1;
    return strcmp(x->name, y->name); /* stable for equal keys */
}

def moving_average(values, window=3):
    return [sum(values[i:i + window]) / window for i in range(len(values) - window + 1)]

今天天气很好，我们去公园散步吧。Größe und Übermaß; l'été à la plage. {"package": "zlib1g", "version": "1:1.2.13", "depends": ["libc6"]}
"""


def skip(reason):
    print(f"ok 1 - logits of real weights # SKIP {reason}\n1..1")
    sys.exit(0)


try:
    import gguf  # noqa: F401  transformers reads GGUF files through it
    import numpy as np
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging as hf_logging

    hf_logging.disable_progress_bar()
except ImportError as e:
    skip(f"{e.name} is not installed")

specdec, folder = sys.argv[1], pathlib.Path(sys.argv[2]).expanduser()
files = [pathlib.Path(f) for f in sys.argv[3:]] or [folder / f for f in FILES]
number = failed = 0
for path in files:
    number += 1
    if not path.exists():
        print(f"ok {number} - logits of {path.name} # SKIP the file is not in {folder}")
        continue
    if not sys.argv[3:] and path.stat().st_size > 500e6 and not os.environ.get("SPECDEC_PARITY_ALL"):
        print(f"ok {number} - logits of {path.name} # SKIP takes 7 GB; set SPECDEC_PARITY_ALL=1")
        continue
    with tempfile.TemporaryDirectory() as tmp:
        out = os.path.join(tmp, "logits.npy")
        tokens = TOKENS.get(path.name, 300)
        ids = subprocess.run([specdec, "tokenize", "-m", path, "--bos", "-"], input=TEXT * 3, capture_output=True, text=True, check=True)
        ids = [int(i) for i in ids.stdout.split()][:tokens]
        assert len(ids) == tokens
        run = subprocess.run([specdec, "logits", "-m", path, "--tokens", ",".join(map(str, ids)), "--compute", "fp32", "-o", out],
                             capture_output=True, text=True)
        if run.returncode:
            failed += 1
            print(f"not ok {number} - logits of {path.name}: {run.stderr.strip()}")
            continue
        got = np.load(out)
    model = AutoModelForCausalLM.from_pretrained(str(path.parent), gguf_file=path.name, dtype=torch.float32).eval()
    with torch.no_grad():
        want = model(torch.tensor(ids)[None]).logits[0].numpy()
    worst = float(abs(got - want).max())
    top = np.sort(want, axis=1)
    sure = top[:, -1] - top[:, -2] > 2 * LIMIT
    same = (got.argmax(1) == want.argmax(1))[sure].all()
    good = got.shape == want.shape and worst <= LIMIT and same
    failed += not good
    print(f"{'ok' if good else 'not ok'} {number} - logits of {path.name}: max abs {worst:.2g} of {abs(want).max():.3g}, "
          f"top token {'the same' if same else 'differs'} at {sure.sum()} positions", flush=True)
    del model
print(f"1..{number}")
sys.exit(failed > 0)
