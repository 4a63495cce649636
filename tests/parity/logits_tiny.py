#!/usr/bin/env python3
"""Logits of tiny random models against transformers, in fp32: every architecture, every rotary variant in the newer and the
older spelling of config.json, tied and separate heads, explicit head sizes, bf16 weights; lengths 1 to 257.

    logits_tiny.py SPECDEC [MODELS]      prints TAP; skips when torch, transformers or numpy is missing

Tolerance: fp32 rounds at 6e-8 relative; two layers of sums over at most 96 terms on logits of order 4 give some 1e-5, and the
reference's fp32 angles at position 256 another 1e-5. 1e-4 separates that from any mistake, which is of order 1e-2 and more.
"""
import copy, json, logging, os, pathlib, subprocess, sys, tempfile

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TRANSFORMERS_VERBOSITY"], os.environ["TQDM_DISABLE"] = "error", "1"
try:
    import numpy as np
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM
    from transformers.utils import logging as hf_logging

    hf_logging.disable_progress_bar()
except ImportError as e:
    print(f"ok 1 - logits of tiny models # SKIP {e.name} is not installed")
    print("1..1")
    sys.exit(0)

LIMIT = 1e-4
LENGTHS = (1, 2, 3, 16, 17, 64, 257)
BASE = dict(hidden_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, intermediate_size=96,
            vocab_size=293, max_position_embeddings=512, rms_norm_eps=1e-5)
SCALINGS = {
    "default": {"rope_type": "default"},
    "linear": {"rope_type": "linear", "factor": 4.0},
    "llama3": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
               "original_max_position_embeddings": 64},
    "yarn": {"rope_type": "yarn", "factor": 8.0, "original_max_position_embeddings": 64},
    "yarn-attention": {"rope_type": "yarn", "factor": 8.0, "original_max_position_embeddings": 64, "beta_fast": 16,
                       "beta_slow": 2, "attention_factor": 0.9},
}


def cases():
    for arch in ("llama", "qwen2", "qwen3"):
        for name, scaling in SCALINGS.items():
            for old in (False, True):
                extra = {"head_dim": 24} if arch == "qwen3" else {}
                yield f"{arch}, rope {name}{', old config' if old else ''}", arch, scaling, old, extra, torch.float32
        yield f"{arch}, tied head", arch, SCALINGS["default"], False, {"tie_word_embeddings": True}, torch.float32
        yield f"{arch}, bf16 weights", arch, SCALINGS["default"], False, {}, torch.bfloat16
        yield f"{arch}, one head", arch, SCALINGS["default"], False, {"num_attention_heads": 1, "num_key_value_heads": 1,
                                                                       "head_dim": 64}, torch.float32
    yield "llama, head size apart", "llama", SCALINGS["default"], False, {"head_dim": 32}, torch.float32
    yield "mistral without a window", "mistral", SCALINGS["default"], False, {"sliding_window": None, "head_dim": 16}, torch.float32


def build(folder, arch, scaling, extra, dtype):
    torch.manual_seed(7)
    config = AutoConfig.for_model(arch, **{**BASE, **extra}, rope_parameters={**scaling, "rope_theta": 10000.0})
    model = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for name, p in model.named_parameters():  # norms, biases and heads that matter: the defaults are all ones and zeros
            if p.ndim == 1:
                p.add_(torch.randn_like(p) * 0.2)
            else:
                p.copy_(torch.randn_like(p) * p.shape[1] ** -0.5)
    model.to(dtype).save_pretrained(folder)


def spell_old(folder):
    """rope_theta and rope_scaling, as config.json was written before rope_parameters."""
    path = pathlib.Path(folder, "config.json")
    config = json.loads(path.read_text())
    rope = config.pop("rope_parameters")
    config["rope_theta"] = rope.pop("rope_theta")
    rope["type"] = rope.pop("rope_type")
    config["rope_scaling"] = None if rope["type"] == "default" else rope
    path.write_text(json.dumps(config))


def main():
    specdec = sys.argv[1]
    failed = number = 0
    ids = np.random.default_rng(1).integers(0, BASE["vocab_size"], max(LENGTHS))
    for name, arch, scaling, old, extra, dtype in cases():
        number += 1
        worst, problem = 0.0, ""
        with tempfile.TemporaryDirectory() as folder:
            build(folder, arch, copy.deepcopy(scaling), extra, dtype)
            if old:
                spell_old(folder)
            model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
            for n in LENGTHS if not old and scaling["rope_type"] == "default" else LENGTHS[-1:]:
                out = os.path.join(folder, "logits.npy")
                run = subprocess.run([specdec, "logits", "-m", folder, "--tokens", ",".join(map(str, ids[:n])), "--compute",
                                      "fp32", "-o", out], capture_output=True, text=True)
                if run.returncode:
                    problem = run.stderr.strip()
                    break
                with torch.no_grad():
                    want = model(torch.tensor(ids[:n])[None]).logits[0].float().numpy()
                got = np.load(out)
                assert got.shape == want.shape and abs(want).max() > 0.5
                worst = max(worst, float(abs(got - want).max()))
        good = not problem and worst <= LIMIT
        failed += not good
        print(f"{'ok' if good else 'not ok'} {number} - logits of {name}: max abs {worst:.2g}{' ' + problem if problem else ''}",
              flush=True)
    print(f"1..{number}")
    return failed > 0


sys.exit(main())
