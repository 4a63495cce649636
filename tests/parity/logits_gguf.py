#!/usr/bin/env python3
"""Logits of tiny random Gemma 3 and Phi 3 models in GGUF files of llama.cpp's conventions against transformers on the same, dequantised weights.

    logits_gguf.py SPECDEC [MODELS] [--full] [--only TEXT]     prints TAP; skips when torch, transformers, gguf or numpy is missing

Tolerance and lengths are those of logits_tiny.py.
"""
import os, sys, tempfile

try:
    import numpy as np
    import tiny_gguf
    import tiny_models
    from logits_tiny import DENSE, LIMIT, LONGEST, compare, options
except ImportError as e:
    print(f"ok 1 - logits of tiny GGUF files # SKIP {e.name} is not installed")
    print("1..1")
    sys.exit(0)

Case, GEMMA, LONG, SCALINGS = tiny_models.Case, tiny_models.GEMMA, tiny_models.LONG, tiny_models.SCALINGS
FILE = {**GEMMA, "query_pre_attn_scalar": GEMMA["head_dim"]}


def cases():
    """Each with the types of its matrices and whether the file is of a newer converter."""
    every = ("F32", "F16", "BF16", "Q8_0", "Q4_0")
    yield Case("gemma3", "gemma3_text", SCALINGS["default"], FILE), every, True
    yield Case("gemma3, local base unwritten", "gemma3_text", SCALINGS["default"], FILE, local_base=10000.0), ("F32",), False
    yield Case("gemma3, rope linear", "gemma3_text", SCALINGS["linear"], FILE), ("F32",), True
    yield Case("gemma3, window 64", "gemma3_text", SCALINGS["linear"], {**FILE, "sliding_window": 64}), ("F16",), True
    yield Case("gemma3, heads of 256", "gemma3_text", SCALINGS["default"],
               {**FILE, "head_dim": 256, "query_pre_attn_scalar": 256, "num_key_value_heads": 1}), ("F32", "Q8_0"), True
    yield Case("gemma3, 62 layers", "gemma3_text", SCALINGS["default"], {**FILE, "num_hidden_layers": 62, "query_pre_attn_scalar": 16}), ("F32",), True
    yield Case("phi3", "phi3", SCALINGS["default"], {"original_max_position_embeddings": 512}), every, True
    yield Case("phi3, rotary 0.75", "phi3", {"rope_type": "default", "partial_rotary_factor": 0.75}), ("F32",), True
    yield Case("phi3, window 16", "phi3", SCALINGS["default"], {"sliding_window": 16}), ("F32",), True
    yield Case("phi3, LongRoPE", "phi3", tiny_models.longrope(16), {"original_max_position_embeddings": LONG}), every, True
    yield Case("phi3, LongRoPE, rotary 0.75", "phi3", tiny_models.longrope(12, partial_rotary_factor=0.75),
               {"original_max_position_embeddings": LONG}), ("F32", "Q8_0"), True
    yield Case("phi3, tied head", "phi3", SCALINGS["default"], {"tie_word_embeddings": True}), ("F32", "Q4_0"), True


def main():
    args = options()
    failed = number = 0
    ids = np.random.default_rng(1).integers(0, tiny_models.BASE["vocab_size"], LONGEST)
    for case, types, newer in cases():
        for dtype in types:
            name = f"{case.name}, {dtype}"
            if args.only not in name:
                continue
            number += 1
            with tempfile.TemporaryDirectory() as tmp:
                path, model = os.path.join(tmp, "tiny.gguf"), tiny_models.make(case)
                model.load_state_dict(tiny_gguf.write(path, model, dtype, newer))
                lengths = range(1, LONGEST + 1) if args.full else DENSE
                worst, where = compare(args.specdec, model, path, lengths, ids, tmp)
            good = worst <= LIMIT
            failed += not good
            print(f"{'ok' if good else 'not ok'} {number} - logits of a GGUF file of {name}, {len(lengths)} lengths: max abs {worst:.2g} {where}", flush=True)
    print(f"1..{number}")
    return failed > 0


sys.exit(main())
