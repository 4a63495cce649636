#!/usr/bin/env python3
"""EleutherAI's lm-eval as a client: its local-completions model over 50 questions, with the server's own tokenizer. Skipped where it is not installed.

    tests/e2e/lm_eval_client.py build/release/specdec        (PYTHON=... picks another interpreter)
"""
import json
import os
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
import tap  # noqa: E402
from openai_sdk import sdk  # noqa: E402
from served import Served  # noqa: E402
from tap import check  # noqa: E402

_, BINARY, MODEL = sdk(__doc__, "lm-eval", "SmolLM2-135M-Instruct.Q4_1.gguf", package="lm_eval")
NAME = "SmolLM2-135M-Instruct.Q4_1"
CAPITALS = dict(France="Paris", Italy="Rome", Spain="Madrid", Germany="Berlin", Japan="Tokyo", Egypt="Cairo", Russia="Moscow", China="Beijing",
                Greece="Athens", Poland="Warsaw", Austria="Vienna", Norway="Oslo", Sweden="Stockholm", Finland="Helsinki", Denmark="Copenhagen",
                Portugal="Lisbon", Ireland="Dublin", Hungary="Budapest", Cuba="Havana", Peru="Lima", Chile="Santiago", Canada="Ottawa",
                Turkey="Ankara", Iran="Tehran", Iraq="Baghdad")
YAML = """task: capitals
dataset_path: json
dataset_kwargs:
  data_files:
    test: %s
test_split: test
output_type: multiple_choice
doc_to_text: "{{question}}"
doc_to_choice: "{{choices}}"
doc_to_target: answer
target_delimiter: ""
metric_list:
  - metric: acc
"""


def questions():
    """Two about each country, with the city of the next one as the wrong choice; its place alternates."""
    names, rows = list(CAPITALS), []
    for i, name in enumerate(names):
        other = CAPITALS[names[(i + 1) % len(names)]]
        for text in ("The capital of %s is", "The largest and best known city of %s, its capital, is called"):
            choices = [" " + CAPITALS[name], " " + other]
            rows.append({"question": text % name, "choices": choices[::-1] if i % 2 else choices, "answer": i % 2})
    return rows


def own_score(server, question, choice):
    """The choice's log probability by this script's own arithmetic: the whole text is scored, and where the choice begins is found by text_offset."""
    body = {"prompt": question + choice, "max_tokens": 0, "echo": True, "logprobs": 0}
    lists = json.loads(server.request("POST", "/v1/completions", body)[2])["choices"][0]["logprobs"]
    return sum(p for p, at in zip(lists["token_logprobs"], lists["text_offset"]) if at >= len(question))


def run(server):
    rows = questions()
    with tempfile.TemporaryDirectory() as folder:
        data, out = os.path.join(folder, "capitals.jsonl"), os.path.join(folder, "out")
        with open(data, "w") as f:
            f.writelines(json.dumps(row) + "\n" for row in rows)
        with open(os.path.join(folder, "capitals.yaml"), "w") as f:
            f.write(YAML % data)
        arguments = f"model={NAME},base_url=http://127.0.0.1:{server.port}/v1/completions,tokenizer_backend=remote,num_concurrent=4,max_length=512"
        done = subprocess.run([sys.executable, "-m", "lm_eval", "--model", "local-completions", "--model_args", arguments, "--tasks", "capitals",
                               "--include_path", folder, "--output_path", out], capture_output=True, text=True, timeout=600,
                              env=dict(os.environ, HF_HUB_OFFLINE="1", HF_HOME=os.path.join(folder, "home")))
        check("lm-eval ends well", done.returncode == 0, done.stderr[-2000:])
        found = [os.path.join(at, name) for at, _, names in os.walk(out) for name in names if name.startswith("results")]
        if not found:
            return
        with open(found[0]) as f:
            results = json.load(f)
    accuracy = results["results"]["capitals"]["acc,none"]
    check("it asked all 50", results["n-samples"]["capitals"]["effective"] == 50, results["n-samples"])
    right = sum((own_score(server, r["question"], r["choices"][1]) > own_score(server, r["question"], r["choices"][0])) == (r["answer"] == 1) for r in rows)
    check("its accuracy is the one that the scores give", abs(accuracy - right / len(rows)) < 1e-9, (accuracy, right))
    check("which is better than guessing", accuracy > 0.6, accuracy)


def main():
    try:
        server = Served(BINARY, MODEL)
    except RuntimeError as e:
        check("the server starts", False, e)
        return 1
    try:
        run(server)
    finally:
        server.process.terminate()
        check("it ends with 0", server.process.wait(60) == 0)
    return tap.failures > 0


if __name__ == "__main__":
    sys.exit(main())
