#!/usr/bin/env python3
"""Writes logits_golden.json: logits that transformers computes, in double, for the tiny random models of
tests/unit/support/tiny/model.c, whose weights are a function of (seed, tensor, index) and are made again here.

    make_logits_golden.py > logits_golden.json       needs torch and transformers

Per case: architecture, scaling, and the first 16 logits after the tokens (37 i + 5) mod 288, i = 0 ... 39.
"""
import json, os

os.environ["HF_HUB_OFFLINE"] = "1"
import numpy as np
import torch
from transformers import AutoConfig, AutoModelForCausalLM

SEED, L, C, H, G, F, V, T = 1, 2, 64, 4, 2, 96, 288, 40
EMBEDDING, OUT_NORM, HEAD, ATTN_NORM, FFN_NORM, BQ, BK, BV, QN, KN, PROJ = range(11)
PROJS = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"]
SCALINGS = {"none": {"rope_type": "default"},
            "linear": {"rope_type": "linear", "factor": 4.0},
            "llama3": {"rope_type": "llama3", "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                       "original_max_position_embeddings": 64},
            "yarn": {"rope_type": "yarn", "factor": 4.0, "beta_fast": 32.0, "beta_slow": 1.0, "original_max_position_embeddings": 64}}


def philox(key, hi, lo):
    """First word of Philox4x32-10 for an array of counters lo."""
    mask = np.uint64(0xFFFFFFFF)
    c = [lo & mask, lo >> np.uint64(32), np.full_like(lo, hi & 0xFFFFFFFF), np.full_like(lo, hi >> 32)]
    k0, k1 = key & 0xFFFFFFFF, key >> 32
    for _ in range(10):
        p0, p1 = np.uint64(0xD2511F53) * c[0], np.uint64(0xCD9E8D57) * c[2]
        c = [(p1 >> np.uint64(32)) ^ c[1] ^ np.uint64(k0), p1 & mask, (p0 >> np.uint64(32)) ^ c[3] ^ np.uint64(k1), p0 & mask]
        k0, k1 = (k0 + 0x9E3779B9) & 0xFFFFFFFF, (k1 + 0xBB67AE85) & 0xFFFFFFFF
    return c[0]


def tensor(role, layer, proj, rows, cols):
    word = philox(SEED, role << 32 | proj << 16 | layer, np.arange(rows * cols, dtype=np.uint64))
    f = np.float32
    u = f(2) * (((word >> np.uint64(8)).astype(f) + f(0.5)) * f(2.0**-24)) - f(1)
    if role in (OUT_NORM, ATTN_NORM, FFN_NORM, QN, KN):
        u = f(1) + f(0.2) * u
    elif role in (BQ, BK, BV):
        u = f(0.2) * u
    else:
        u = u * np.sqrt(f(3) / f(cols))
    return torch.from_numpy(u.astype(f).reshape(rows, cols) if rows > 1 else u.astype(f))


def state(arch, D):
    q, kv = H * D, G * D
    s = {"model.embed_tokens.weight": tensor(EMBEDDING, 0, 0, V, C), "model.norm.weight": tensor(OUT_NORM, 0, 0, 1, C)}
    s["lm_head.weight"] = s["model.embed_tokens.weight"] if arch == "qwen3" else tensor(HEAD, 0, 0, V, C)
    shapes = [(q, C), (kv, C), (kv, C), (C, q), (F, C), (F, C), (C, F)]
    for l in range(L):
        p = f"model.layers.{l}."
        s[p + "input_layernorm.weight"] = tensor(ATTN_NORM, l, 0, 1, C)
        s[p + "post_attention_layernorm.weight"] = tensor(FFN_NORM, l, 0, 1, C)
        for i, (name, (rows, cols)) in enumerate(zip(PROJS, shapes)):
            s[f"{p}{name}.weight"] = tensor(PROJ, l, i, rows, cols)
        if arch == "qwen2":
            for role, name, n in (BQ, "q", q), (BK, "k", kv), (BV, "v", kv):
                s[f"{p}self_attn.{name}_proj.bias"] = tensor(role, l, 0, 1, n)
        if arch == "qwen3":
            for role, name in (QN, "q"), (KN, "k"):
                s[f"{p}self_attn.{name}_norm.weight"] = tensor(role, l, 0, 1, D)
    return s


def main():
    cases = []
    for arch in ("llama", "qwen2", "qwen3"):
        D = 24 if arch == "qwen3" else 16
        for name, scaling in SCALINGS.items():
            config = AutoConfig.for_model(arch, hidden_size=C, num_hidden_layers=L, num_attention_heads=H, num_key_value_heads=G,
                                          head_dim=D, intermediate_size=F, vocab_size=V, max_position_embeddings=512,
                                          rms_norm_eps=1e-6, tie_word_embeddings=arch == "qwen3",
                                          rope_parameters={**scaling, "rope_theta": 10000.0})
            model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
            model.load_state_dict(state(arch, D), strict=True)
            ids = torch.tensor([[(37 * i + 5) % V for i in range(T)]])
            with torch.no_grad():
                logits = model.double()(ids).logits[0, -1, :16]
            cases.append({"arch": arch, "scaling": name, "logits": [round(float(x), 7) for x in logits]})
    print("[\n" + ",\n".join(" " + json.dumps(c) for c in cases) + "\n]")


main()
