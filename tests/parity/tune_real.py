#!/usr/bin/env python3
"""Gemma 3 270M, a base model without a chat template, tuned on 200 prompts and completions: the perplexity of records that it never saw falls, by the
inference forward with the adapter that the run wrote.

    tune_real.py SPECDEC MODELS [--records 200] [--held 32] [--keep FOLDER]      prints TAP; minutes

The records are those of recipes/triage_data.py, which needs apt-cache; without it, or without the weights, the test is skipped.
"""
import argparse, csv, json, math, pathlib, subprocess, sys, tempfile

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
        text = ""
        with open(work / "triage" / f"{source}.jsonl") as f, open(work / f"{name}.jsonl", "w") as out:
            for _, line in zip(range(count), f):
                *_, question, answer = (m["content"] for m in json.loads(line)["messages"])
                out.write(json.dumps({"prompt": question + "\n\n", "completion": answer}) + "\n")
                text += f"{question}\n\n{answer}\n\n"
    return text  # of those held out


def perplexity(args, model, text, *adapter):
    run = subprocess.run([args.specdec, "perplexity", "-m", model, *adapter, "--json", text], capture_output=True, text=True)
    return json.loads(run.stdout)["perplexity"] if run.returncode == 0 else math.nan


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("specdec", type=pathlib.Path)
    parser.add_argument("models", type=pathlib.Path)
    parser.add_argument("--records", type=int, default=200)
    parser.add_argument("--held", type=int, default=32)
    parser.add_argument("--keep", help="an empty or new folder for data and run, kept")
    args = parser.parse_args()
    model = args.models.expanduser() / MODEL
    if not model.exists():
        skip(f"{model} is not there: recipes/models.sh gemma3-270m")
    with tempfile.TemporaryDirectory() as tmp:
        work = pathlib.Path(args.keep or tmp)
        work.mkdir(exist_ok=True)
        try:
            (work / "held.txt").write_text(records(work, args.records, args.held))
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
        before = perplexity(args, model, work / "held.txt")
        after = perplexity(args, model, work / "held.txt", "-a", work / "run/adapter")
        good = len(losses) == steps and losses[-1] < losses[0] and after < 0.8 * before
        print(f"{'ok' if good else 'not ok'} 1 - {args.records} records of prompt and completion, {steps} steps, loss {losses[0]:.3f} -> {losses[-1]:.3f}: "
              f"perplexity of {args.held} held-out records {before:.3f} -> {after:.3f}\n1..1", flush=True)
        return not good


sys.exit(main())
