"""What tokenizer.py and template.py share: the probe, TAP, and Hugging Face's tokenizers of the test models."""
import json
import os
import subprocess
import sys

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
GEMMA = "gemma-3-270m.Q4_K_M.gguf"
MODELS = ["SmolLM2-135M-Instruct.Q4_1.gguf", "Qwen2.5-Coder-0.5B-Instruct.Q4_K_M.gguf", "Qwen2.5-Coder-1.5B-Instruct.Q4_K_M.gguf"]
failed = False


def ok(condition, suite, name, note=""):
    global failed
    failed |= not condition
    print(("ok" if condition else "not ok") + f" - {suite}: {name}" + (f" ({note})" if note else ""), flush=True)


def skip(suite, name, why):
    print(f"ok - {suite}: {name} # SKIP {why}", flush=True)


class Probe:
    """tests/token_probe beside the specdec binary: a question a line, an answer a line."""

    def __init__(self, specdec):
        path = os.path.join(os.path.dirname(specdec), "tests", "token_probe")
        if not os.path.exists(path):
            sys.exit(f"{path}: is not built; cmake --build build/release --target token_probe")
        self.process = subprocess.Popen([path], stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def __call__(self, op, **fields):
        self.process.stdin.write(json.dumps({"op": op, **fields}).encode() + b"\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"token_probe ended with {self.process.wait()}")
        return json.loads(line)


def hugging_face(models, name):
    """transformers' tokenizer of a GGUF file, with the digit splitter that its loader forgets for SmolLM2."""
    from transformers import AutoTokenizer

    tok = AutoTokenizer.from_pretrained(models, gguf_file=name)
    if name.startswith("SmolLM2"):
        from tokenizers.pre_tokenizers import ByteLevel, Digits, Sequence

        tok.backend_tokenizer.pre_tokenizer = Sequence([Digits(individual_digits=True), ByteLevel(add_prefix_space=False)])
    return tok
