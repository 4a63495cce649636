#!/usr/bin/env python3
"""P4: 100 AdamW steps of specdec train against PEFT + torch.optim.AdamW, from one initial adapter, over the same batches in the same order, in fp32.

    train_100.py SPECDEC [MODELS_DIR]

The model is a tiny random Llama made here; the tokens are read from the file that specdec prepared. Each step's loss must agree to 1e-5, its gradient norm
to 1e-4 of itself, the merged delta s*B*A at the end to 3e-4. The same comparison with a planted error (the mean of the records' means in place of the mean over
tokens; no bias correction) must fail, or it would prove nothing. TAP; needs torch, transformers, peft, tokenizers, safetensors, h5py, hdf5plugin.
"""
import csv
import math
import os
import random
import subprocess
import sys
import tempfile

os.environ["HF_HUB_OFFLINE"] = "1"
SPECDEC = os.path.abspath(sys.argv[1] if len(sys.argv) > 1 else "build/release/specdec")
STEPS, BATCH, WARMUP, LR, R, ALPHA, DECAY = 100, 4, 20, 2e-3, 8, 16, 0.01
failed = False


def ok(condition, name, note=""):
    global failed
    failed |= not condition
    print(("ok" if condition else "not ok") + f" - train_100: {name}" + (f" ({note})" if note else ""), flush=True)


try:
    import h5py
    import hdf5plugin  # noqa: F401  (registers the zstd filter)
    import torch
    from peft import LoraConfig, get_peft_model
    from safetensors.torch import load_file
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, get_cosine_schedule_with_warmup
except ImportError as e:
    print(f"ok - train_100: 100 steps against PEFT # SKIP {e}")
    sys.exit(0)

torch.manual_seed(3)
torch.set_num_threads(2)


def make_model(folder):
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tok = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    tok.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tok.decoder = decoders.ByteLevel()
    config = LlamaConfig(hidden_size=64, intermediate_size=96, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2, vocab_size=256,
                         max_position_embeddings=256, rms_norm_eps=1e-5, tie_word_embeddings=True, bos_token_id=0, eos_token_id=1)
    config._attn_implementation = "eager"
    model = LlamaForCausalLM(config).float()
    for p in model.parameters():  # the default init is so small that nothing could be learnt from it
        if p.dim() == 2:
            torch.nn.init.normal_(p, std=1 / math.sqrt(p.shape[1]))
    model.save_pretrained(folder)
    tok.save(os.path.join(folder, "tokenizer.json"))
    return model


def write_data(path):
    rng = random.Random(5)
    words = "alpha beta gamma delta one two three four five six".split()
    with open(path, "w") as f:
        for i in range(STEPS * BATCH):
            prompt = f"{rng.choice(words)} {i % 13} is "
            f.write('{"prompt": "%s", "completion": "%s"}\n' % (prompt, " ".join(rng.choice(words) for _ in range(rng.randint(1, 9)))))


def ours(folder, steps):
    with open(f"{folder}/r.yaml", "w") as f:
        f.write(f"""recipe: 1
name: parity
base: {{model: {folder}/model, compute_dtype: fp32}}
adapter: {{r: {R}, alpha: {ALPHA}, from: {folder}/init}}
data: {{train: [{{path: {folder}/data.jsonl, format: completion}}], val_size: 0, sequence_len: 128, packing: false, shuffle: false}}
train: {{batch_rows: {BATCH}, max_steps: {steps}, micro_batch_tokens: 128, learning_rate: {LR}, weight_decay: {DECAY}, warmup_steps: {WARMUP}}}
export_verify: {{prompts: 2}}
""")
    r = subprocess.run([SPECDEC, "train", f"{folder}/r.yaml", "-o", f"{folder}/run"], capture_output=True, text=True)
    if r.returncode:
        raise RuntimeError(r.stderr)
    with open(f"{folder}/run/metrics.csv") as f:
        return list(csv.DictReader(f))


def theirs(peft_model, rows, steps=STEPS, planted=None):
    """Losses, gradient norms before clipping and the merged deltas after that many steps."""
    params = [p for p in peft_model.parameters() if p.requires_grad]
    opt = torch.optim.AdamW(params, lr=LR, weight_decay=DECAY)
    sched = get_cosine_schedule_with_warmup(opt, WARMUP, STEPS)
    losses, norms = [], []
    for s in range(steps):
        batch = rows[s * BATCH:(s + 1) * BATCH]
        T = max(len(t) for t, _ in batch)
        ids = torch.zeros(BATCH, T, dtype=torch.long)
        lab = torch.full((BATCH, T), -100)
        att = torch.zeros(BATCH, T, dtype=torch.long)
        for i, (t, l) in enumerate(batch):
            ids[i, :len(t)], lab[i, :len(t)], att[i, :len(t)] = torch.tensor(t), torch.tensor(l), 1
        logits = peft_model(input_ids=ids, attention_mask=att).logits[:, :-1]
        each = torch.nn.functional.cross_entropy(logits.transpose(1, 2), lab[:, 1:], reduction="none", ignore_index=-100)
        count = (lab[:, 1:] != -100).sum(1)
        loss = (each.sum(1) / count).mean() if planted == "mean of means" else each.sum() / count.sum()
        loss.backward()
        norms.append(float(torch.nn.utils.clip_grad_norm_(params, 1.0)))
        if planted == "no bias correction":
            with torch.no_grad():
                for p in params:
                    st = opt.state[p]
                    if not st:
                        st["m"], st["v"] = torch.zeros_like(p), torch.zeros_like(p)
                    lr = opt.param_groups[0]["lr"]
                    p.mul_(1 - lr * DECAY)
                    st["m"].lerp_(p.grad, 0.1)
                    st["v"].mul_(0.999).addcmul_(p.grad, p.grad, value=0.001)
                    p.addcdiv_(st["m"], st["v"].sqrt() + 1e-8, value=-lr)
        else:
            opt.step()
        sched.step()
        opt.zero_grad(set_to_none=True)
        losses.append(float(loss.detach()))
    state = {n: p.detach().clone() for n, p in peft_model.named_parameters() if p.requires_grad}
    return losses, norms, deltas(state)


def deltas(state):
    out = {}
    for n, a in state.items():
        if "lora_A" in n:
            key = n.replace(".default", "")
            b = state[n.replace("lora_A", "lora_B")]
            out[key] = ALPHA / R * (b.double() @ a.double())
    return out


def difference(mine, want):
    num = sum(float((mine[k] - want[k]).pow(2).sum()) for k in want)
    return math.sqrt(num / sum(float(w.pow(2).sum()) for w in want.values()))


with tempfile.TemporaryDirectory() as d:
    make_model(f"{d}/model")
    write_data(f"{d}/data.jsonl")

    def fresh():
        base = LlamaForCausalLM.from_pretrained(f"{d}/model", dtype=torch.float32, attn_implementation="eager")
        torch.manual_seed(11)
        return get_peft_model(base, LoraConfig(r=R, lora_alpha=ALPHA, lora_dropout=0.0, target_modules="all-linear", task_type="CAUSAL_LM"))

    peft_model = fresh()
    peft_model.save_pretrained(f"{d}/init")
    mine = ours(d, STEPS)
    with h5py.File(f"{d}/run/data/train.h5") as h:
        tokens, labels, segments = h["tokens"][:], h["labels"][:], h["segments"][:]
    rows = [(t[s >= 0].tolist(), l[s >= 0].tolist()) for t, l, s in zip(tokens, labels, segments)]
    ok(len(mine) == STEPS and len(rows) == STEPS * BATCH, "100 steps of 4 records ran")
    my_delta = deltas(load_file(f"{d}/run/adapter/adapter_model.safetensors"))

    losses, norms, want = theirs(peft_model, rows)
    worst = max(abs(float(m["loss"]) - l) for m, l in zip(mine, losses))
    ok(worst <= 1e-5, "every step's loss", f"{losses[0]:.4f} -> {losses[-1]:.4f}, largest difference {worst:.2g}, at most 1e-5")
    worst = max(abs(float(m["grad_norm"]) - n) / n for m, n in zip(mine, norms))
    ok(worst <= 1e-4, "every step's gradient norm", f"largest relative difference {worst:.2g}, at most 1e-4")
    off = difference(my_delta, want)
    ok(set(my_delta) == set(want) and off <= 3e-4, "the merged delta at the end", f"relative difference {off:.2g}, at most 3e-4")
    for planted in ("mean of means", "no bias correction"):
        losses, _, _ = theirs(fresh(), rows, 10, planted)
        worst = max(abs(float(m["loss"]) - l) for m, l in zip(mine, losses))
        ok(worst > 1e-4, f"a planted error is seen within 10 steps: {planted}", f"largest difference of a loss {worst:.2g}")
sys.exit(failed)
