#!/usr/bin/env python3
"""Gemma 3 270M, a base model without a chat template, tuned on 200 prompts and completions: the loss of answers that it never saw falls, by the
logits of the inference forward with the adapter that the run wrote. (The text of the questions is not learnt; its perplexity may well rise.)

    tune_real.py SPECDEC MODELS [--records 200] [--held 12] [--keep FOLDER]      prints TAP; minutes

The records are those of recipes/triage_data.py, which needs apt-cache; without it, or without the weights, the test is skipped.
"""
import argparse, csv, json, pathlib, subprocess, sys, tempfile

try:
    import numpy as np
except ImportError:
    print("ok 1 - tuning of real weights # SKIP numpy is not installed\n1..1")
    sys.exit(0)

MODEL = "gemma-3-270m.Q4_K_M.gguf"
ROOT = pathlib.Path(__file__).resolve().parents[2]
RECIPE = """recipe: 1
name: tune-real
base: {{model: {model}}}
adapter: {{r: 16, alpha: 32}}
data: {{train: [{{path: {work}/train.jsonl, format: completion}}], val_size: 0, sequence_len: 1024, packing: false}}
train: {{batch_rows: 8, max_steps: {steps}, learning_rate: 1.0e-3, warmup_steps: 5}}
log: {{sinks: [csv]}}
export: [peft, gguf-lora]
"""


def skip(why):
    print(f"ok 1 - tuning of real weights # SKIP {why}\n1..1")
    sys.exit(0)


def records(work, n_train, n_held):
    """The question as the prompt, its answer as the completion."""
    index = subprocess.run(["apt-cache", "dumpavail"], capture_output=True)
    if index.returncode or index.stdout.count(b"\nPackage: ") < 20000:
        skip("apt-cache has no package index")
    subprocess.run([sys.executable, ROOT / "recipes/triage_data.py", work / "triage"], input=index.stdout, check=True)
    for name, source, count in (("train", "train", n_train), ("held", "test", n_held)):
        with open(work / "triage" / f"{source}.jsonl") as f, open(work / f"{name}.jsonl", "w") as out:
            for _, line in zip(range(count), f):
                *_, question, answer = (m["content"] for m in json.loads(line)["messages"])
                out.write(json.dumps({"prompt": question + "\n\n", "completion": answer}) + "\n")


def ids_of(args, model, text):
    run = subprocess.run([args.specdec, "tokenize", "-m", model, "--bos", "--json", text], capture_output=True, text=True, check=True)
    return json.loads(run.stdout)["ids"]


def answers_loss(args, model, work, *adapter):
    """The mean loss of the tokens of the completions held out."""
    total = count = 0
    for line in open(work / "held.jsonl"):
        record = json.loads(line)
        first, ids = len(ids_of(args, model, record["prompt"])), ids_of(args, model, record["prompt"] + record["completion"])
        subprocess.run([args.specdec, "logits", "-m", model, *adapter, "--tokens", ",".join(map(str, ids)), "-o", work / "logits.npy"],
                       capture_output=True, check=True)
        rows = np.load(work / "logits.npy")[first - 1:-1].astype(np.float64)
        top = rows.max(1)
        total += (top + np.log(np.exp(rows - top[:, None]).sum(1)) - rows[np.arange(len(rows)), ids[first:]]).sum()
        count += len(rows)
    return total / count


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("specdec", type=pathlib.Path)
    parser.add_argument("models", type=pathlib.Path)
    parser.add_argument("--records", type=int, default=200)
    parser.add_argument("--held", type=int, default=12)
    parser.add_argument("--keep", help="an empty or new folder for data and run, kept")
    args = parser.parse_args()
    model = args.models.expanduser() / MODEL
    if not model.exists():
        skip(f"{model} is not there: recipes/models.sh gemma3-270m")
    with tempfile.TemporaryDirectory() as tmp:
        work = pathlib.Path(args.keep or tmp)
        work.mkdir(exist_ok=True)
        try:
            records(work, args.records, args.held)
        except FileNotFoundError as e:
            skip(f"{e.filename} is not there")
        steps = args.records // 8
        (work / "r.yaml").write_text(RECIPE.format(model=model.resolve(), work=work.resolve(), steps=steps))
        run = subprocess.run([args.specdec, "train", work / "r.yaml", "-o", work / "run"], capture_output=True, text=True)
        if run.returncode:
            print(f"not ok 1 - tuning of {MODEL}: {run.stderr.strip()}\n1..1")
            return 1
        with open(work / "run/metrics.csv") as f:
            losses = [float(row["loss"]) for row in csv.DictReader(f)]
        before, after = answers_loss(args, model, work), answers_loss(args, model, work, "-a", work / "run/adapter")
        good = len(losses) == steps and losses[-1] < losses[0] and after < 0.5 * before
        print(f"{'ok' if good else 'not ok'} 1 - {args.records} records of prompt and completion, {steps} steps, loss {losses[0]:.3f} -> {losses[-1]:.3f}: "
              f"loss of {args.held} answers held out {before:.3f} -> {after:.3f}\n1..1", flush=True)
        return not good


sys.exit(main())
