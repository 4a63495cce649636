#!/usr/bin/env python3
"""Random LoRA adapters of every architecture, as PEFT writes them, on tiny models: specdec's logits with the adapter are PEFT's; exported as GGUF-LoRA and
back it is the same, bit for bit; the adapter merged into the weights gives PEFT's merged logits.

    adapters_tiny.py SPECDEC [MODELS] [--only TEXT]     prints TAP; skips when torch, transformers, peft or numpy is missing

Phi 3's adapters are of qkv_proj, o_proj, gate_up_proj and down_proj, which are one matrix each. Tolerance: that of logits_tiny.py.
"""
import os, subprocess, sys, tempfile

try:
    import numpy as np
    import tiny_models
    import torch
    from logits_tiny import LIMIT, options, ours
    from peft import LoraConfig, get_peft_model
    from safetensors.numpy import load_file
except ImportError as e:
    print(f"ok 1 - adapters of tiny models # SKIP {e.name} is not installed")
    print("1..1")
    sys.exit(0)

PLAIN = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
FUSED = ["qkv_proj", "o_proj", "gate_up_proj", "down_proj"]
Case, SCALINGS, GEMMA = tiny_models.Case, tiny_models.SCALINGS, tiny_models.GEMMA
CASES = [Case("llama", "llama", SCALINGS["default"]), Case("qwen2", "qwen2", SCALINGS["default"]),
         Case("qwen3", "qwen3", SCALINGS["default"], {"head_dim": 24}), Case("gemma3", "gemma3_text", SCALINGS["linear"], GEMMA),
         Case("phi3", "phi3", {"rope_type": "default", "partial_rotary_factor": 0.75}),
         Case("phi3, LongRoPE and window 16", "phi3", tiny_models.longrope(16), {"original_max_position_embeddings": 64, "sliding_window": 16})]
LENGTHS = (40, 150)


def run(specdec, *args):
    done = subprocess.run([specdec, *args], capture_output=True, text=True)
    return done.stderr.strip() or f"status {done.returncode}" if done.returncode else ""


def make_adapter(folder, case, modules, r):
    """Saves a PEFT folder whose B is not zero; returns PEFT's model."""
    model = get_peft_model(tiny_models.make(case), LoraConfig(r=r, lora_alpha=2 * r + 3, target_modules=modules, task_type="CAUSAL_LM"))
    torch.manual_seed(11)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "lora_B" in name:
                p.copy_(torch.randn_like(p) * 0.05)
    model.save_pretrained(folder)
    return model.eval()


def check(specdec, case, modules, r, tmp):
    """What is wrong in words, or the largest difference and what the adapter itself changes."""
    base, peft, lora, again, merged, out = (os.path.join(tmp, n) for n in ("base", "peft", "lora.gguf", "again", "merged", "out.npy"))
    tiny_models.build(base, case)
    model = make_adapter(peft, case, modules, r)
    for step in ((peft, "gguf-lora", lora), (lora, "peft", again), (peft, "merged", merged)):
        problem = run(specdec, "export", step[0], "-m", base, "--to", step[1], "-o", step[2])
        if problem:
            return f"export to {step[1]}: {problem}"
    x, y = (load_file(os.path.join(d, "adapter_model.safetensors")) for d in (peft, again))
    if x.keys() != y.keys() or any((x[k] != y[k]).any() for k in x):
        return "not the same after GGUF-LoRA and back"
    worst = change = 0.0
    ids = np.random.default_rng(2).integers(0, tiny_models.BASE["vocab_size"], max(LENGTHS))
    for n in LENGTHS:
        want = tiny_models.logits_of(model, ids[:n])
        with model.disable_adapter():
            change = max(change, abs(want - tiny_models.logits_of(model, ids[:n])).max())
        for args in ((base, "-a", peft), (base, "-a", lora), (merged,)):
            got = ours(specdec, args[0], ids[:n], out, *args[1:])
            if isinstance(got, str):
                return f"{' '.join(args)}: {got}"
            worst = max(worst, abs(got - want).max())
    return worst, change


def main():
    args = options()
    failed = number = 0
    for case in CASES:
        every = FUSED if case.arch == "phi3" else PLAIN
        for modules, r in ((every, 8), (every[:1], 3), (every[-2:], 5)):
            name = f"{case.name}, r {r} on {', '.join(modules) if len(modules) < 4 else 'all'}"
            if args.only not in name:
                continue
            number += 1
            with tempfile.TemporaryDirectory() as tmp:
                result = check(args.specdec, case, modules, r, tmp)
            good = not isinstance(result, str) and result[0] <= LIMIT and result[1] > 0.02
            failed += not good
            note = result if isinstance(result, str) else f"max abs {result[0]:.2g}, the adapter's own change {result[1]:.2g}"
            print(f"{'ok' if good else 'not ok'} {number} - adapter of {name}: {note}", flush=True)
    print(f"1..{number}")
    return failed > 0


sys.exit(main())
