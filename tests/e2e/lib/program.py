"""The binary under test with the tiny models beside it, for scripts that work in a folder of their own."""
import os
import subprocess

from options import parser

RECIPE = """recipe: 1
name: run
base: {model: tiny.gguf, compute_dtype: fp32}
adapter: {r: 2, alpha: 4}
data: {train: [{path: talks.jsonl}], val_size: 0, sequence_len: %d}
train: {max_steps: 2, batch_tokens: 256}
export: [peft, gguf-lora]
export_verify: {prompts: 1}
"""


class Program:
    def __init__(self, doc):
        self.binary = os.path.abspath(parser(doc).parse_args().binary)
        self.tiny = os.path.join(os.path.dirname(self.binary), "tests", "make_tiny_model")

    def run(self, *argv, text=None):
        """One verb to its end."""
        return subprocess.run([self.binary, *argv], input=text, capture_output=True, text=True, timeout=120)
