#!/usr/bin/env python3
"""The quickstart's last table: quickstart_table.py RUN BASE before.json after.json spec.json"""
import csv
import json
import sys

run, base, *results = sys.argv[1:]
before, after, spec = (json.load(open(path)) for path in results)
task = spec["tasks"][0]
metrics = list(csv.DictReader(open(f"{run}/metrics.csv")))
FIELDS = ("package", "version", "section", "role", "summary", "homepage", "libraries")
n = after["records"]


def row(name, left, right):
    print(f"  {name:<34}{left:>12}{right:>12}")


print(f"\n{n} held-out records, {base.split('/')[-1]}\n")
row("", "before", "after")
row("valid JSON", f"{before['json_valid']}/{n}", f"{after['json_valid']}/{n}")
row("all seven fields right", f"{before['all_fields']}/{n}", f"{after['all_fields']}/{n}")
for field in FIELDS:
    row(field, *(f"{r['fields'][field]['right']}/{r['fields'][field]['total']}" for r in (before, after)))
row("loss (first step, last step)", f"{float(metrics[0]['loss']):.3f}", f"{float(metrics[-1]['loss']):.3f}")
print()
row("one request at a time", "plain", "speculative")
row("decoding, tokens/s", f"{task['decode']['plain_tok_s']:.1f}", f"{task['decode']['spec_tok_s']:.1f}")
row("whole request, tokens/s", f"{task['request']['plain_tok_s']:.1f}", f"{task['request']['spec_tok_s']:.1f}")
s = task["speculation"]
print(f"\n  {task['identical']} of {task['answers']} outputs identical with speculation on and off")
print(f"  {task['tau']:.2f} tokens a step; accepted drafts a step: {s['mean_accepted']:.2f}, "
      + ", ".join(f"{name} {source['accepted'] / s['rounds']:.2f} ({source['accepted']} of {source['drafted']})"
                  for name, source in s["by_source"].items()))
print(f"""
  loss curve   {run}/loss.svg
  adapter      {run}/adapter (PEFT), {run}/adapter.gguf (llama.cpp)
  serve it     build/release/specdec serve -m {base} -a triage={run}
  PEFT         PeftModel.from_pretrained(base_model, "{run}/adapter")
  llama.cpp    llama-server -m {base} --lora {run}/adapter.gguf
  undo it      rm -r {run}
""")
