#!/usr/bin/env python3
"""Gradients of LoRA against PyTorch + PEFT: random tiny models of each architecture, after 5 steps of AdamW, every tensor within 1e-5 (fp32).

    lora_grads.py SPECDEC MODELS_DIR [ARCHITECTURE]

Gemma 3 has a window that the rows cross and Phi 3 fused maps, with and without LongRoPE's long factors; each runs under every kind of recompute.
The models and steps are made here with transformers and PEFT in fp32; the parameters of step 5 and the batch go to tests/lora_grads beside the
binary, which returns its gradients. A reference in double says how far fp32 itself is. TAP on standard output; missing packages are a printed skip.
"""
import os
import struct
import subprocess
import sys
import tempfile

os.environ["HF_HUB_OFFLINE"] = "1"
DRIVER = os.path.join(os.path.dirname(os.path.abspath(sys.argv[1])), "tests", "lora_grads")
# Each with the number of its first matrix in the block: q, k, v, o, gate, up, down.
PLAIN = {"q_proj": 0, "k_proj": 1, "v_proj": 2, "o_proj": 3, "gate_proj": 4, "up_proj": 5, "down_proj": 6}
FUSED = {"qkv_proj": 0, "o_proj": 3, "gate_up_proj": 4, "down_proj": 6}
RECOMPUTE = ["auto", "none", "attn", "block"]  # sd_recompute
ROWS, T = 3, 29
TOLERANCE = 1e-5
failed = False


def ok(condition, name, note=""):
    global failed
    failed |= not condition
    print(("ok" if condition else "not ok") + f" - lora gradients: {name}" + (f" ({note})" if note else ""), flush=True)


try:
    import numpy as np
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoConfig, AutoModelForCausalLM
    from tiny_models import longrope
except ImportError as e:
    print(f"ok - lora gradients # SKIP {e.name} is not installed")
    sys.exit(0)

SIZES = dict(hidden_size=48, num_attention_heads=6, num_key_value_heads=2, intermediate_size=80, num_hidden_layers=2, vocab_size=101,
             max_position_embeddings=128, rms_norm_eps=1e-5, initializer_range=0.15, bos_token_id=1, eos_token_id=2)
# By name: transformers' model_type, what differs from SIZES, the linear maps. Gemma's layers: windows of 11, one global layer between them.
GEMMA = dict(num_hidden_layers=4, head_dim=16, query_pre_attn_scalar=10, sliding_window=11, pad_token_id=None,
             layer_types=[f"{k}_attention" for k in ("sliding", "sliding", "full", "sliding")],
             rope_parameters={"full_attention": {"rope_type": "linear", "factor": 2.0, "rope_theta": 30000.0},
                              "sliding_attention": {"rope_type": "default", "rope_theta": 700.0}})
PHI = dict(pad_token_id=None, rope_parameters={"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.75})
LONG = dict(pad_token_id=None, rope_parameters={**longrope(6, partial_rotary_factor=0.75), "rope_theta": 10000.0})
ARCHS = {"llama": ("llama", {"head_dim": 8}, PLAIN), "qwen2": ("qwen2", {"tie_word_embeddings": True}, PLAIN),
         "qwen3": ("qwen3", {"head_dim": 16}, PLAIN), "gemma3": ("gemma3_text", GEMMA, PLAIN), "phi3": ("phi3", PHI, FUSED),
         "phi3, long factors": ("phi3", {**LONG, "original_max_position_embeddings": 16}, FUSED),
         "phi3, short factors, window 11": ("phi3", {**LONG, "original_max_position_embeddings": 64, "sliding_window": 11}, FUSED)}
NEW = [a for a in ARCHS if a not in ("llama", "qwen2", "qwen3")]


def make_model(arch, seed):
    torch.manual_seed(seed)
    kind, more, _ = ARCHS[arch]
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **{**SIZES, **more}), attn_implementation="eager").float()
    centre = 0.0 if kind == "gemma3_text" else 1.0  # whose norms multiply by 1 + w
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "norm" in name:
                p.uniform_(centre - 0.4, centre + 0.4)
            elif name.endswith("bias"):
                p.uniform_(-0.3, 0.3)
    return model


def make_batch(seed):
    """Rows of uneven length, padded at the end; about half of the tokens supervised. What is before the padding never sees it, so transformers needs
    no mask (with one, its windows that hold padding alone give NaN)."""
    g = np.random.default_rng(seed)
    token = g.integers(3, 101, (ROWS, T))
    length = np.array([T, T - 4, T - 11])
    used = np.arange(T)[None, :] < length[:, None]
    label = np.where((g.random((ROWS, T)) < 0.5) & used, token, -100)
    return np.where(used, token, 0), label, np.where(used, 0, -1)


def summed_loss(model, token, label):
    out = model(input_ids=torch.tensor(token), use_cache=False)
    target = torch.tensor(label)[:, 1:].reshape(-1)
    logits = out.logits[:, :-1].reshape(len(target), -1)
    return torch.nn.functional.cross_entropy(logits, target, ignore_index=-100, reduction="sum")


def lora_parameters(model, targets, leaves):
    named = dict(model.named_parameters())
    out = []
    for layer in range(model.config.num_hidden_layers):
        for leaf in leaves:
            for factor in "AB":
                found = [p for n, p in named.items() if f"layers.{layer}." in n and f".{leaf}.lora_{factor}." in n]
                assert len(found) == (leaf in targets), (layer, leaf, len(found))
                out += [(f"layer {layer} {leaf} {factor}", p) for p in found]
    return out


def gradients(model, params, batch):
    token, label, _ = batch
    model.zero_grad(set_to_none=True)
    loss = summed_loss(model, token, label)
    loss.backward()
    return loss.item(), [p.grad.detach().double().numpy().copy() for _, p in params]


def relative(a, b):
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))


def one_case(arch, r, rslora, targets, recompute, seed, folder):
    leaves = ARCHS[arch][2]
    targets = targets or list(leaves)
    every = len(targets) == len(leaves)
    base = make_model(arch, seed)
    base.save_pretrained(folder)
    config = LoraConfig(r=r, lora_alpha=2 * r + 1, use_rslora=rslora, target_modules=targets, lora_dropout=0.0, task_type="CAUSAL_LM",
                        rank_pattern={leaf: r + 3 for leaf in ("v_proj", "qkv_proj") if every and leaf in leaves},
                        alpha_pattern={leaf: 5 for leaf in ("up_proj", "gate_up_proj") if every and leaf in leaves})
    model = get_peft_model(base, config).train()
    params = lora_parameters(model, targets, leaves)
    optimiser = torch.optim.AdamW([p for _, p in params], lr=2e-2, weight_decay=0.0)
    for step in range(5):
        batch = make_batch(100 * seed + step)
        loss, _ = gradients(model, params, batch)
        for _, p in params:
            p.grad /= (batch[1][:, 1:] != -100).sum()
        optimiser.step()
    batch = make_batch(100 * seed + 5)
    theta = [p.detach().numpy().astype(np.float32) for _, p in params]
    loss, grads = gradients(model, params, batch)
    exact_loss, exact = gradients(model.double(), params, batch)

    ranks, alphas = [0] * 7, [0] * 7
    for leaf in targets:
        ranks[leaves[leaf]] = config.rank_pattern.get(leaf, r)
        alphas[leaves[leaf]] = config.alpha_pattern.get(leaf, 2 * r + 1)
    case, result = os.path.join(folder, "case.bin"), os.path.join(folder, "result.bin")
    with open(case, "wb") as f:
        f.write(struct.pack("18i", ROWS, T, rslora, RECOMPUTE.index(recompute), *ranks, *alphas))
        for part in batch:
            f.write(part.astype(np.int32).tobytes())
        for x in theta:
            f.write(x.tobytes())
    done = subprocess.run([DRIVER, folder, case, result], capture_output=True, text=True)
    name = f"{arch} r {r}{' rslora' if rslora else ''} {'all-linear' if every else ','.join(targets)}, recompute {recompute}"
    if done.returncode:
        return ok(False, name, done.stderr.strip())
    raw = open(result, "rb").read()
    our_loss, supervised = struct.unpack("2d", raw[:16])
    flat, at, worst, where, peft_worst = np.frombuffer(raw[16:], np.float32), 0, 0.0, "", 0.0
    for (tensor, _), g, want in zip(params, grads, exact):
        mine = flat[at:at + g.size].reshape(g.shape).astype(np.float64)
        at += g.size
        error = relative(mine, want)
        peft_worst = max(peft_worst, relative(g, want))
        if error > worst:
            worst, where = error, tensor
    good = at == flat.size and worst <= TOLERANCE and supervised == (batch[1][:, 1:] != -100).sum() and abs(our_loss / exact_loss - 1) <= 1e-6
    ok(good, name, f"worst {worst:.1e} in {where}; PEFT's own fp32 {peft_worst:.1e}; loss {our_loss:.6f}, {exact_loss:.6f} in double")


torch.set_num_threads(1)
cases = [(a, r, False, None, "none") for a in ARCHS for r in (4, 8, 16)] + [(a, 8, True, None, "none") for a in ARCHS] + \
        [(a, 8, False, ["q_proj", "v_proj"] if ARCHS[a][2] is PLAIN else ["qkv_proj"], "none") for a in ARCHS] + \
        [(a, 8, False, ["gate_up_proj", "o_proj"], "none") for a in ARCHS if ARCHS[a][2] is FUSED] + \
        [(a, 8, False, None, how) for a in NEW for how in RECOMPUTE[2:]]
only = sys.argv[3] if len(sys.argv) > 3 else ""  # cases of architectures with that in their name
for i, case in enumerate(cases):
    if only in case[0]:
        with tempfile.TemporaryDirectory() as tmp:
            one_case(*case, i + 1, tmp)
sys.exit(1 if failed else 0)
