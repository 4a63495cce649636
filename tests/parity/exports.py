#!/usr/bin/env python3
"""Our exports in the tools they are for: an adapter in PEFT and in llama.cpp gives the continuations and logits that it gives here.

    exports.py SPECDEC MODELS_DIR                                                   a random adapter
    exports.py SPECDEC MODELS_DIR --model FILE.gguf                                 on another model of that folder
    exports.py SPECDEC MODELS_DIR --run runs/NAME --prompts test.jsonl --count 20   a tuned one, on held-out prompts

With --run, PEFT opens the run's PEFT folder and llama.cpp its GGUF-LoRA, and both answer the prompts greedily. An answer may part from ours only at a near-tie:
where our own logits of the two tokens lie so close that rounding decides. TAP on standard output. Needs torch, transformers, peft, gguf and llama-cpp-python;
what is missing is a printed skip.
"""
import argparse
import json
import os
import subprocess
import sys
import tempfile

os.environ["HF_HUB_OFFLINE"] = "1"
parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("specdec")
parser.add_argument("models", help="folder of the GGUF files")
parser.add_argument("--model", default="SmolLM2-135M-Instruct.Q4_1.gguf", metavar="FILE", help="for a random adapter (%(default)s)")
parser.add_argument("--run", help="a tuned run's folder")
parser.add_argument("--prompts", help="JSON lines with messages, whose last assistant turn is dropped, or with a prompt")
parser.add_argument("--count", type=int, default=20, help="prompts (20)")
parser.add_argument("--tokens", type=int, default=320, help="cap of an answer (320)")
args = parser.parse_args()
if bool(args.run) != bool(args.prompts):
    parser.error("--run and --prompts go together")
SPECDEC, MODELS = args.specdec, args.models
GGUF = os.path.join(MODELS, args.model)
# Where two continuations part, our logits of the two tokens may differ by so much. llama.cpp and we round activations to 8 bits in different ways: a few
# tenths; in fp32 two implementations agree to 2e-3 a logit, so a difference of two of them to 4e-3.
TIE_8_BITS, TIE_FP32 = 0.5, 4e-3
RANK, ALPHA = 8, 16
MODULES = {"attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj",
           "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj"}
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
    import gguf
    import numpy as np
    from safetensors.numpy import save_file
    rng = np.random.default_rng(7)
    shapes = {t.name: t.shape for t in gguf.GGUFReader(GGUF).tensors}
    tensors, layer = {}, -1
    while f"blk.{(layer := layer + 1)}.attn_q.weight" in shapes:
        for leaf, module in MODULES.items():
            cols, rows = (int(n) for n in shapes[f"blk.{layer}.{leaf}.weight"])
            stem = f"base_model.model.model.layers.{layer}.{module}"
            tensors[f"{stem}.lora_A.weight"] = rng.uniform(-1, 1, (RANK, cols)).astype(np.float32) / cols**0.5
            tensors[f"{stem}.lora_B.weight"] = (rng.standard_normal((rows, RANK)) * 0.01).astype(np.float32)
    os.makedirs(folder)
    save_file(tensors, os.path.join(folder, "adapter_model.safetensors"), metadata={"format": "pt"})
    with open(os.path.join(folder, "adapter_config.json"), "w") as f:
        json.dump({"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": RANK, "lora_alpha": ALPHA, "bias": "none", "lora_dropout": 0.0,
                   "target_modules": [m.split(".")[1] for m in MODULES.values()], "base_model_name_or_path": "x"}, f)


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
    ids = json.loads(run("tokenize", "-m", GGUF, "--bos", "--json", PROMPTS[0]))["ids"]
    with torch.no_grad():
        plain = base(torch.tensor([ids])).logits[0].numpy()
        tuned = PeftModel.from_pretrained(base, folder)(torch.tensor([ids])).logits[0].numpy()
    npy = os.path.join(work, "logits.npy")
    run("logits", "-m", GGUF, "-a", folder, "--tokens", ",".join(map(str, ids)), "--compute", "fp32", "-o", npy)
    ours = load_npy(npy)
    worst, change = abs(ours - tuned).max(), abs(plain - tuned).max()
    # The fp32 bar of a whole model is 2e-3; the adapter must move the logits far beyond it, or the comparison proves nothing.
    ok(worst <= 2e-3 and change > 0.1, f"{name} gives PEFT's logits", f"max-abs {worst:.1e}, the adapter's own change {change:.2f}")


def our_answer(work, text, adapter, tokens, compute, end):
    """The prompt's ids and our greedy continuation, with the end token when the model ended it."""
    path = os.path.join(work, "prompt.txt")
    with open(path, "w") as f:
        f.write(text)
    ids = json.loads(run("tokenize", "-m", GGUF, "--bos", "--json", text))["ids"]
    r = json.loads(run("generate", "-m", GGUF, "-a", adapter, "-f", path, "-n", str(tokens), "--temp", "0", "--compute", compute, "--json"))
    return ids, r["tokens"] + ([end] if r["finish_reason"] == "stop" else [])


def gap_at(work, ids, a, b, adapter, compute):
    """Our logit of token a less that of b after ids."""
    npy = os.path.join(work, "tie.npy")
    run("logits", "-m", GGUF, "-a", adapter, "--tokens", ",".join(map(str, ids)), "--compute", compute, "-o", npy)
    row = load_npy(npy)[-1]
    return float(row[a] - row[b])


def compare_answers(work, name, prompts, adapter, theirs, end, tokens, compute, tie):
    """theirs(ids, n): the peer's greedy continuation of at most n tokens, its end token included."""
    same = total = bad = 0
    for i, text in enumerate(prompts):
        ids, ours = our_answer(work, text, adapter, tokens, compute, end)
        peer = theirs(ids, len(ours))
        total += len(ours)
        at = next((k for k, (x, y) in enumerate(zip(ours, peer)) if x != y), min(len(ours), len(peer)))
        if at == len(ours) == len(peer):
            same += 1
            continue
        if at == min(len(ours), len(peer)):
            bad += 1
            print(f"# prompt {i + 1} has {len(ours)} tokens here and {len(peer)} there, the first {at} the same")
            continue
        gap = gap_at(work, ids + ours[:at], ours[at], peer[at], adapter, compute)
        bad += abs(gap) > tie
        print(f"# prompt {i + 1} parts at token {at} of {len(ours)}: here {ours[at]}, there {peer[at]}, logit gap {gap:.4f}, a near-tie up to {tie:g}")
    ok(bad == 0 and total > 0, f"{name} continues as here", f"{same} of {len(prompts)} answers identical, {total} tokens, the rest parts at near-ties")


def check_llama(work, lora, name, prompts, tokens):
    try:
        import llama_cpp
    except ImportError:
        return skip(f"{name} in llama.cpp", "llama-cpp-python is not installed")
    peer = llama_cpp.Llama(GGUF, lora_path=lora, n_ctx=4096 if args.run else 256, n_threads=2, verbose=False)

    def theirs(ids, n):
        peer.reset()
        out = []
        for token in peer.generate(ids, temp=0.0, repeat_penalty=1.0):
            out.append(token)
            if len(out) == n:
                break
        return out

    compare_answers(work, f"{name} in llama.cpp", prompts, lora, theirs, peer.token_eos(), tokens, "auto", TIE_8_BITS)


def check_peft_answers(work, folder, name, prompts, tokens):
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM
    base = AutoModelForCausalLM.from_pretrained(MODELS, gguf_file=os.path.basename(GGUF), dtype=torch.float32)
    model = PeftModel.from_pretrained(base, folder).eval()
    end = base.config.eos_token_id

    def theirs(ids, n):
        with torch.no_grad():
            out = model.generate(input_ids=torch.tensor([ids]), attention_mask=torch.ones(1, len(ids), dtype=torch.long), max_new_tokens=n,
                                 do_sample=False, eos_token_id=end, pad_token_id=end)
        return out[0, len(ids):].tolist()

    compare_answers(work, f"{name} in PEFT", prompts, folder, theirs, end, tokens, "fp32", TIE_FP32)


def chat_prompts():
    """The prompts as they are, or the texts that the model's chat template makes of their messages."""
    from token_common import hugging_face
    tok, out = None, []
    with open(args.prompts) as f:
        for line in f:
            record = json.loads(line)
            if "prompt" in record:
                out.append(record["prompt"])
            else:
                tok = tok or hugging_face(MODELS, os.path.basename(GGUF))
                messages = record["messages"]
                messages = messages[:-1] if messages[-1]["role"] == "assistant" else messages
                out.append(tok.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))
            if len(out) == args.count:
                break
    return out


def check_run(work):
    global GGUF
    with open(os.path.join(args.run, "manifest.json")) as f:
        GGUF = os.path.join(MODELS, os.path.basename(json.load(f)["base"]["path"]))
    if not os.path.exists(GGUF):
        return skip("the run", f"its base {GGUF} is not there")
    try:
        import gguf, peft, torch, transformers  # noqa: F401
    except ImportError as e:
        return skip("the run", f"{e.name} is not installed")
    prompts = chat_prompts()
    lora = os.path.join(args.run, "adapter.gguf")
    if not os.path.exists(lora):
        lora = os.path.join(work, "lora.gguf")
        run("export", args.run, "-m", GGUF, "--to", "gguf-lora", "-o", lora)
    check_llama(work, lora, "the run's GGUF-LoRA", prompts, args.tokens)
    check_peft_answers(work, os.path.join(args.run, "adapter"), "the run's PEFT folder", prompts, args.tokens)


def main():
    if not args.run and not os.path.exists(GGUF):
        return skip("all", f"{GGUF} is not there")
    try:
        import gguf, numpy, safetensors  # noqa: F401
    except ImportError as e:
        return skip("all", f"{e.name} is not installed")
    with tempfile.TemporaryDirectory() as work:
        if args.run:
            check_run(work)
            sys.exit(failed)
        peft, lora, again = (os.path.join(work, n) for n in ("peft", "lora.gguf", "again"))
        random_adapter(peft)
        out = run("export", peft, "-m", GGUF, "--to", "gguf-lora", "-o", lora)
        ok("verified" in out, "PEFT to GGUF-LoRA verifies itself")
        run("export", lora, "-m", GGUF, "--to", "peft", "-o", again)
        from safetensors.numpy import load_file
        x, y = (load_file(os.path.join(d, "adapter_model.safetensors")) for d in (peft, again))
        ok(x.keys() == y.keys() and all((x[k] == y[k]).all() for k in x), "PEFT to GGUF-LoRA and back is the same, bit for bit")
        check_peft(work, again, "the PEFT folder")
        check_llama(work, lora, "the GGUF-LoRA", PROMPTS, 24)
    sys.exit(failed)


main()
