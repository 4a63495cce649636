#!/usr/bin/env python3
"""Our exports in the tools they are for: a random adapter in PEFT and in llama.cpp gives the continuations and logits that it gives here.

    exports.py SPECDEC MODELS_DIR

TAP on standard output. Needs torch, transformers, peft, gguf and llama-cpp-python; what is missing is a printed skip.
"""
import json
import os
import subprocess
import sys
import tempfile

os.environ["HF_HUB_OFFLINE"] = "1"
SPECDEC, MODELS = sys.argv[1], sys.argv[2]
GGUF = os.path.join(MODELS, "SmolLM2-135M-Instruct.Q4_1.gguf")
RANK, ALPHA, LAYERS = 8, 16, 30
SHAPES = {"self_attn.q_proj": (576, 576), "self_attn.k_proj": (192, 576), "self_attn.v_proj": (192, 576), "self_attn.o_proj": (576, 576),
          "mlp.gate_proj": (1536, 576), "mlp.up_proj": (1536, 576), "mlp.down_proj": (576, 1536)}
PROMPTS = [f"The package {name} is a tool that" for name in
           "grep sed awk curl wget tar gzip git make cmake python perl ruby vim emacs nano ssh rsync cron less".split()]
failed = False


def ok(condition, name, note=""):
    global failed
    failed |= not condition
    print(("ok" if condition else "not ok") + f" - exports: {name}" + (f" ({note})" if note else ""), flush=True)


def skip(name, why):
    print(f"ok - exports: {name} # SKIP {why}", flush=True)


def run(*args):
    r = subprocess.run([SPECDEC, *args], capture_output=True, text=True)
    if r.returncode:
        raise RuntimeError(f"specdec {' '.join(args)}: {r.stderr}")
    return r.stdout


def random_adapter(folder):
    """A PEFT folder whose B is not zero, so that the adapter changes the answers."""
    import numpy as np
    from safetensors.numpy import save_file
    rng = np.random.default_rng(7)
    tensors = {}
    for layer in range(LAYERS):
        for module, (rows, cols) in SHAPES.items():
            stem = f"base_model.model.model.layers.{layer}.{module}"
            tensors[f"{stem}.lora_A.weight"] = rng.uniform(-1, 1, (RANK, cols)).astype(np.float32) / cols**0.5
            tensors[f"{stem}.lora_B.weight"] = (rng.standard_normal((rows, RANK)) * 0.01).astype(np.float32)
    os.makedirs(folder)
    save_file(tensors, os.path.join(folder, "adapter_model.safetensors"), metadata={"format": "pt"})
    with open(os.path.join(folder, "adapter_config.json"), "w") as f:
        json.dump({"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": RANK, "lora_alpha": ALPHA, "bias": "none", "lora_dropout": 0.0,
                   "target_modules": [m.split(".")[1] for m in SHAPES], "base_model_name_or_path": "x"}, f)


def load_npy(path):
    import numpy as np
    return np.load(path)


def check_peft(work, folder, name):
    try:
        import torch
        from peft import PeftModel
        from transformers import AutoModelForCausalLM
    except ImportError as e:
        return skip(f"{name} in PEFT", f"{e.name} is not installed")
    base = AutoModelForCausalLM.from_pretrained(MODELS, gguf_file=os.path.basename(GGUF), dtype=torch.float32)
    ids = json.loads(run("tokenize", "-m", GGUF, "--json", PROMPTS[0]))["ids"]
    with torch.no_grad():
        plain = base(torch.tensor([ids])).logits[0].numpy()
        tuned = PeftModel.from_pretrained(base, folder)(torch.tensor([ids])).logits[0].numpy()
    npy = os.path.join(work, "logits.npy")
    run("logits", "-m", GGUF, "-a", folder, "--tokens", ",".join(map(str, ids)), "--compute", "fp32", "-o", npy)
    ours = load_npy(npy)
    worst, change = abs(ours - tuned).max(), abs(plain - tuned).max()
    # The fp32 bar of a whole model is 2e-3; the adapter must move the logits far beyond it, or the comparison proves nothing.
    ok(worst <= 2e-3 and change > 0.1, f"{name} gives PEFT's logits", f"max-abs {worst:.1e}, the adapter's own change {change:.2f}")


def near_tie(ids, position, a, b, lora, work):
    """Our logits of the two tokens at the place where the continuations part."""
    npy = os.path.join(work, "tie.npy")
    run("logits", "-m", GGUF, "-a", lora, "--tokens", ",".join(map(str, ids)), "-o", npy)
    row = load_npy(npy)[position]
    return float(row[a] - row[b])


def check_llama(work, lora, name):
    try:
        import llama_cpp
    except ImportError:
        return skip(f"{name} in llama.cpp", "llama-cpp-python is not installed")
    peer = llama_cpp.Llama(GGUF, lora_path=lora, n_ctx=256, n_threads=2, verbose=False)
    same, notes, bad = 0, [], 0
    for prompt in PROMPTS:
        ids = json.loads(run("tokenize", "-m", GGUF, "--json", prompt))["ids"]
        ours = json.loads(run("generate", "-m", GGUF, "-a", lora, "-p", prompt, "-n", "24", "--temp", "0", "--json"))["tokens"]
        peer.reset()
        theirs = []
        for token in peer.generate(ids, temp=0.0, repeat_penalty=1.0):
            theirs.append(token)
            if len(theirs) >= len(ours):
                break
        at = next((i for i, (x, y) in enumerate(zip(ours, theirs)) if x != y), None)
        if at is None:
            same += 1
            continue
        gap = near_tie(ids + ours[:at], len(ids) + at - 1, ours[at], theirs[at], lora, work)
        notes.append(f"{prompt.split()[2]} parts at token {at}, gap {gap:.2f}")
        bad += abs(gap) > 0.5  # both sides round activations to 8 bits: logits differ by a few tenths
    for note in notes:
        print("#", note)
    ok(bad == 0, f"{name} continues as llama.cpp does", f"{same} of {len(PROMPTS)} identical, the rest at near-ties")


def main():
    if not os.path.exists(GGUF):
        return skip("all", f"{GGUF} is not there")
    try:
        import numpy, safetensors  # noqa: F401
    except ImportError as e:
        return skip("all", f"{e.name} is not installed")
    with tempfile.TemporaryDirectory() as work:
        peft, gguf, again = (os.path.join(work, n) for n in ("peft", "lora.gguf", "again"))
        random_adapter(peft)
        out = run("export", peft, "-m", GGUF, "--to", "gguf-lora", "-o", gguf)
        ok("verified" in out, "PEFT to GGUF-LoRA verifies itself")
        run("export", gguf, "-m", GGUF, "--to", "peft", "-o", again)
        from safetensors.numpy import load_file
        x, y = (load_file(os.path.join(d, "adapter_model.safetensors")) for d in (peft, again))
        ok(x.keys() == y.keys() and all((x[k] == y[k]).all() for k in x), "PEFT to GGUF-LoRA and back is the same, bit for bit")
        check_peft(work, again, "the PEFT folder")
        check_llama(work, gguf, "the GGUF-LoRA")
    sys.exit(failed)


main()
