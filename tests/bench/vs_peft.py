#!/usr/bin/env python3
"""LoRA training against PyTorch + PEFT, interleaved: the same records in the same steps, fresh processes A B A B ...

    vs_peft.py SPECDEC MODEL.gguf RECORDS.jsonl [--rounds 3] [--steps 3] [--threads N] [--peft NAME ...] [--json]
    vs_peft.py SPECDEC MODEL.gguf RECORDS.jsonl --only peft --steps 100 --save DIR        a whole run of PEFT's, kept as an adapter
    vs_peft.py SPECDEC MODEL.gguf RECORDS.jsonl --only specdec --steps 100 --save DIR     the same by specdec: a run's folder

Adapter r 16, alpha 32, all linear maps, base frozen; AdamW, 20 steps of warm-up, cosine to 0, gradients clipped at 1; 8 records a step in the order of the file.
PEFT's settings are first tried once each and its fastest is used in the rounds; --peft chooses:

    fp32-each      one record after the other, gradients added up; logits only where they are learnt
    fp32-padded    the 8 records as one padded batch, as the usual trainers do
    bf16-each, bf16-padded     the same under autocast to bfloat16

Speed: tokens of the records (no padding) a second, over the steps after the first. Memory: the largest resident set of the process. Records are chat messages
whose last turn is the answer. Needs torch, transformers, peft, gguf and tokenizers; when they are missing, a printed skip.
"""
import argparse
import csv
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time

BATCH, R, ALPHA, WARMUP = 8, 16, 32, 20
SETTINGS = ("fp32-each", "fp32-padded", "bf16-each", "bf16-padded")
PACKAGES = ("torch", "transformers", "peft", "gguf", "tokenizers")


# ---- PEFT, in a process of its own


def encode(model, path, steps):
    """[(prompt ids, answer ids)] with Hugging Face's tokenizer and the model's chat template."""
    sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "parity"))
    from token_common import hugging_face  # puts back what transformers' GGUF loader forgets

    tok = hugging_face(*os.path.split(os.path.abspath(model)))
    out = []
    with open(path) as f:
        for line in f:
            messages = json.loads(line)["messages"]
            prompt = tok.apply_chat_template(messages[:-1], tokenize=False, add_generation_prompt=True)
            whole = tok.apply_chat_template(messages, tokenize=False)
            if not whole.startswith(prompt):
                sys.exit(f"{path}: record {len(out) + 1}: the prompt is not how the conversation begins")
            out.append([tok(text, add_special_tokens=False).input_ids for text in (prompt, whole[len(prompt):])])
            if len(out) == steps * BATCH:
                return out
    sys.exit(f"{path}: {len(out)} records, {steps} steps of {BATCH} need {steps * BATCH}; give more or fewer --steps")


def peer_step(torch, model, batch, setting):
    """Adds the gradients of the mean loss over the learnt tokens of the batch; returns that loss."""
    learnt = sum(len(answer) for _, answer in batch)
    bf16 = torch.autocast("cpu", torch.bfloat16, enabled=setting.startswith("bf16"))
    if setting.endswith("each"):
        total = 0.0
        for prompt, answer in batch:
            with bf16:
                logits = model(input_ids=torch.tensor([prompt + answer]), logits_to_keep=len(answer) + 1).logits[0, :-1]
            loss = torch.nn.functional.cross_entropy(logits.float(), torch.tensor(answer), reduction="sum") / learnt
            loss.backward()
            total += loss.item()
        return total
    T = max(len(prompt) + len(answer) for prompt, answer in batch)
    ids = torch.zeros(len(batch), T, dtype=torch.long)
    mask, labels = torch.zeros_like(ids), torch.full_like(ids, -100)
    for i, (prompt, answer) in enumerate(batch):
        n = len(prompt) + len(answer)
        ids[i, :n], mask[i, :n], labels[i, len(prompt):n] = torch.tensor(prompt + answer), 1, torch.tensor(answer)
    with bf16:
        loss = model(input_ids=ids, attention_mask=mask, labels=labels).loss
    loss.backward()
    return loss.item()


def peer(o):
    """One run of PEFT's; prints one JSON object."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, get_cosine_schedule_with_warmup

    torch.manual_seed(0)
    torch.set_num_threads(o["threads"])
    folder, name = os.path.split(os.path.abspath(o["model"]))
    records = encode(o["model"], o["records"], o["steps"])
    base = AutoModelForCausalLM.from_pretrained(folder, gguf_file=name, dtype=torch.float32)
    base.config.use_cache = False
    model = get_peft_model(base, LoraConfig(r=R, lora_alpha=ALPHA, lora_dropout=0.0, target_modules="all-linear", task_type="CAUSAL_LM")).train()
    params = [p for p in model.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(params, lr=o["lr"], weight_decay=0.0)
    schedule = get_cosine_schedule_with_warmup(optimiser, WARMUP, o["steps"])
    losses, ends, tokens = [], [], []
    for s in range(o["steps"]):
        batch = records[s * BATCH:(s + 1) * BATCH]
        losses.append(peer_step(torch, model, batch, o["setting"]))
        torch.nn.utils.clip_grad_norm_(params, 1.0)
        optimiser.step()
        schedule.step()
        optimiser.zero_grad(set_to_none=True)
        ends.append(time.perf_counter())
        tokens.append(sum(len(prompt) + len(answer) for prompt, answer in batch))
        print(f"PEFT {o['setting']}: step {s + 1} of {o['steps']}, loss {losses[-1]:.4f}", file=sys.stderr, flush=True)
    if o["save"]:
        model.save_pretrained(o["save"])
    print(json.dumps({"losses": losses, "tokens": sum(tokens), "learnt": sum(len(answer) for _, answer in records),
                      "tok_s": sum(tokens[1:]) / (ends[-1] - ends[0])}))


# ---- both


def run(command, env=None):
    """Standard output and the largest resident set in MB of a process; its errors end this one."""
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        p = subprocess.Popen(command, stdout=out, stderr=sys.stderr if sys.stderr.isatty() else err, env=env)
        _, status, used = os.wait4(p.pid, 0)
        p.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0), err.seek(0)
        if p.returncode:
            sys.exit(f"{command[0]} ended with status {p.returncode}\n{err.read()[-2000:]}")
        return out.read(), used.ru_maxrss * 1024 / 1e6


def run_peft(a, setting):
    o = {"model": a.model, "records": a.records, "steps": a.steps, "threads": a.threads, "setting": setting, "lr": a.lr, "save": a.save}
    env = dict(os.environ, HF_HUB_OFFLINE="1", OMP_NUM_THREADS=str(a.threads), TRANSFORMERS_VERBOSITY="error")
    out, mb = run([sys.executable, os.path.abspath(__file__), "--peer", json.dumps(o)], env)
    return dict(json.loads(out.splitlines()[-1]), peak_mb=mb)


def run_specdec(a):
    recipe = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "recipes", "debian-triage.yaml")
    with tempfile.TemporaryDirectory() as work:
        folder = a.save or os.path.join(work, "run")
        keys = {"base.model": a.model, "data.train.0.path": a.records, "train.max_steps": a.steps, "train.batch_rows": BATCH,
                "train.learning_rate": a.lr, "train.warmup_steps": WARMUP, "adapter.r": R, "adapter.alpha": ALPHA,
                "data.max_records": a.steps * BATCH, "checkpoint.every": a.steps}
        if not a.save:
            keys.update({"export_verify.prompts": 0, "draft.index": "false", "export": "[peft]"})
        _, mb = run([a.specdec, "train", recipe, *(f"{k}={v}" for k, v in keys.items()), "--threads", str(a.threads), "-o", folder])
        with open(os.path.join(folder, "metrics.csv")) as f:
            steps = list(csv.DictReader(f))
    tokens = [int(s["tokens"]) for s in steps]
    return {"losses": [float(s["loss"]) for s in steps], "tokens": sum(tokens), "learnt": sum(int(s["supervised_tokens"]) for s in steps),
            "tok_s": sum(tokens[1:]) / (float(steps[-1]["wall_s"]) - float(steps[0]["wall_s"])), "peak_mb": mb}


def say(who, r):
    print(f"{who}: {r['tok_s']:.1f} tok/s, {r['peak_mb']:.0f} MB, {r['tokens']} tokens ({r['learnt']} learnt), loss {r['losses'][0]:.4f} -> {r['losses'][-1]:.4f}",
          file=sys.stderr, flush=True)
    return r


def check_same_work(ours, theirs, tolerance):
    """The same tokens, and the same loss before anything was learnt; else the speeds say nothing."""
    if ours["tokens"] != theirs["tokens"] or ours["learnt"] != theirs["learnt"]:
        sys.exit(f"specdec trained on {ours['tokens']} tokens ({ours['learnt']} learnt), PEFT on {theirs['tokens']} ({theirs['learnt']}): not the same work")
    if abs(ours["losses"][0] / theirs["losses"][0] - 1) > tolerance:
        sys.exit(f"the first loss is {ours['losses'][0]:.4f} here and {theirs['losses'][0]:.4f} in PEFT: not the same work")


def parse():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("specdec")
    p.add_argument("model", help="GGUF file")
    p.add_argument("records", help="JSON lines with messages")
    p.add_argument("--rounds", type=int, default=3, help="of one run each (3)")
    p.add_argument("--steps", type=int, default=3, help="of 8 records; the first is not timed (3)")
    p.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    p.add_argument("--lr", type=float, default=1e-3, help="learning rate (0.001)")
    p.add_argument("--peft", action="append", choices=SETTINGS, help="PEFT's setting; several are tried once each first (all)")
    p.add_argument("--only", choices=["peft", "specdec"], help="one run of one side")
    p.add_argument("--save", metavar="DIR", help="with --only: keep the adapter here")
    p.add_argument("--json", action="store_true")
    a = p.parse_args()
    a.peft = a.peft or list(SETTINGS)
    if a.steps < 2:
        p.error("--steps: the first is not timed; give 2 at least")
    if a.save and not a.only:
        p.error("--save needs --only")
    for path in (a.specdec, a.model, a.records):
        if not os.path.exists(path):
            p.error(f"{path} is not there")
    a.specdec, a.model, a.records = (os.path.abspath(x) for x in (a.specdec, a.model, a.records))
    return a


def compare(a):
    tried = {}
    if len(a.peft) > 1:
        for setting in a.peft:
            tried[setting] = say(f"trying PEFT {setting}", run_peft(a, setting))
        best = max(tried, key=lambda s: tried[s]["tok_s"])
    else:
        best = a.peft[0]
    ours, theirs = [], []
    for i in range(a.rounds):
        ours.append(say(f"round {i + 1} of {a.rounds}, specdec", run_specdec(a)))
        theirs.append(say(f"round {i + 1} of {a.rounds}, PEFT {best}", run_peft(a, best)))
        check_same_work(ours[-1], theirs[-1], 0.05 if best.startswith("bf16") else 0.005)
    med = statistics.median
    rows = [(name, med(x[key] for x in ours), med(y[key] for y in theirs), med(x[key] / y[key] for x, y in zip(ours, theirs)))
            for name, key in (("tokens/s", "tok_s"), ("peak memory, MB", "peak_mb"))]
    if a.json:
        print(json.dumps({"model": os.path.basename(a.model), "threads": a.threads, "rounds": a.rounds, "steps": a.steps, "records_a_step": BATCH, "peft": best,
                          "rows": [dict(zip(("what", "specdec", "peft", "ratio"), r)) for r in rows],
                          "tried": {s: {"tok_s": r["tok_s"], "peak_mb": r["peak_mb"]} for s, r in tried.items()}}))
        return
    print(f"{os.path.basename(a.model)}, {a.threads} threads, {a.rounds} rounds interleaved of {a.steps} steps of {BATCH} records (medians)")
    print(f"{'':20} {'specdec':>10} {'PEFT ' + best:>18} {'ratio':>7}")
    for name, x, y, ratio in rows:
        print(f"{name:20} {x:10.1f} {y:18.1f} {ratio:7.2f}")
    for setting, r in tried.items():
        print(f"PEFT {setting}, tried once: {r['tok_s']:.1f} tokens/s, {r['peak_mb']:.0f} MB")


def main():
    if len(sys.argv) == 3 and sys.argv[1] == "--peer":
        return peer(json.loads(sys.argv[2]))
    a = parse()
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing and a.only != "specdec":
        print(f"ok - vs_peft # SKIP {', '.join(missing)} not installed")
        return
    if not a.only:
        return compare(a)
    r = say(a.only, run_specdec(a) if a.only == "specdec" else run_peft(a, a.peft[0]))
    if a.json:
        print(json.dumps(r))


if __name__ == "__main__":
    main()
