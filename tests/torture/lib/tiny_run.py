# What io_faults.py and kills.py share: a tiny model, its data and recipe, runs of it, and how a checkpoint is judged. Standard library only.
import hashlib
import os
import shutil
import subprocess
import sys

RECIPE = """recipe: 1
name: run
seed: 3
base: {model: tiny.gguf, compute_dtype: fp32}
adapter: {r: 2, alpha: 4}
data: {train: [{path: data.jsonl, format: completion}], val_size: 0.2, sequence_len: 64, packing: true, shuffle: true}
train: {max_steps: 4, batch_tokens: 128, learning_rate: 1e-2}
eval: {every: 2}
checkpoint: {every: 1, keep: 2}
log: {sinks: [csv, jsonl, plot]}
export: [peft, gguf-lora]
export_verify: {prompts: 1}
device: {threads: 1}
"""


class Place:
    """A folder with the model, the data, the recipe, a finished run `whole` and the run `begun`, stopped after step 2 of 4 with the
    checkpoints 1 and 2."""

    def __init__(self, binary, folder):
        self.binary, self.dir = os.path.abspath(binary), os.path.abspath(folder)
        tests = os.path.join(os.path.dirname(self.binary), "tests")
        self.fault_at, self.tiny = os.path.join(tests, "fault_at"), os.path.join(tests, "make_tiny_model")
        self.env = dict(os.environ, XDG_CACHE_HOME=os.path.join(self.dir, "cache"), TMPDIR=self.dir)

    def missing(self):
        for tool in (self.fault_at, self.tiny):
            if not os.path.exists(tool):
                return f"{tool} is not built (target unit_tests)"
        done = subprocess.run([self.fault_at, "count", "true"], capture_output=True)
        return "" if done.returncode == 0 else f"system calls cannot be traced here: {done.stderr.decode().strip()}"

    def run(self, argv, fault=(), cwd=None, timeout=120):
        """(status, stderr); the status is None when it did not end. fault: CALL WAY N, or count."""
        command = [self.binary, *argv]
        if fault:
            command = [self.fault_at, *map(str, fault), *command]
        try:
            done = subprocess.run(command, cwd=cwd or self.dir, env=self.env, stdin=subprocess.DEVNULL, capture_output=True, timeout=timeout)
        except subprocess.TimeoutExpired:
            return None, ""
        return done.returncode, done.stderr.decode(errors="replace")

    def count(self, argv, cwd=None):
        """{call: how often the command makes it}"""
        read, write = os.pipe()
        os.dup2(write, 9)
        os.close(write)
        done = subprocess.run([self.fault_at, "count", self.binary, *argv], cwd=cwd or self.dir, env=self.env, stdin=subprocess.DEVNULL,
                              capture_output=True, pass_fds=(9,))
        os.close(9)
        with os.fdopen(read) as f:
            rows = dict(line.split() for line in f)
        assert done.returncode == 0, done.stderr.decode()
        return {k: int(v) for k, v in rows.items()}

    def make(self):
        os.makedirs(self.dir, exist_ok=True)
        subprocess.run([self.tiny, "tiny.gguf"], cwd=self.dir, check=True, capture_output=True)
        with open(self.path("data.jsonl"), "w") as f:
            for i in range(24):
                f.write('{"prompt": "record %d is number ", "completion": "%d, said %d times"}\n' % (i, i * 7919 % 1000, i % 5))
        with open(self.path("recipe.yaml"), "w") as f:
            f.write(RECIPE)
        status, err = self.run(["train", "recipe.yaml", "-o", "whole"])
        if status != 0:
            sys.exit(f"the run that nothing disturbs ends with {status}: {err}")
        self.want = sha(self.path("whole/adapter/adapter_model.safetensors"))
        status, err = self.run(["train", "recipe.yaml", "-o", "begun", "checkpoint.keep=9"])
        if status != 0:
            sys.exit(f"the run that is to be gone on with ends with {status}: {err}")
        for name in ("manifest.json", "adapter.gguf", "loss.svg"):
            os.remove(self.path("begun", name))
        for name in ("adapter", "draft", "checkpoints/step-00000003", "checkpoints/step-00000004"):
            shutil.rmtree(self.path("begun", name))

    def path(self, *parts):
        return os.path.join(self.dir, *parts)


def sha(path):
    with open(path, "rb") as f:
        return hashlib.sha256(f.read()).hexdigest()


def whole_checkpoint(folder):
    """Each file that SHA256SUMS names is there with that hash."""
    try:
        with open(os.path.join(folder, "SHA256SUMS")) as f:
            rows = [line.rstrip("\n").split("  ") for line in f]
        return len(rows) >= 5 and all(sha(os.path.join(folder, name)) == hash for hash, name in rows)
    except OSError:
        return False


def standing(run):
    """(step, hash) of the checkpoints of a run that are whole, by whatever name they have, the newest last."""
    folder = os.path.join(run, "checkpoints")
    names = os.listdir(folder) if os.path.isdir(folder) else []
    found = [n for n in names if n.startswith(("step-", "given-up-")) and whole_checkpoint(os.path.join(folder, n))]
    return sorted((int(n.rsplit("-", 1)[1].split(".")[0]), sha(os.path.join(folder, n, "SHA256SUMS"))) for n in found)


def lost(before, after):
    """What should stand and does not. The newest, which a start goes on from, may go when a newer one stands; the others are not that process's."""
    gone = [c for c in before if c not in after]
    return [c[0] for c in gone if c != before[-1] or not after or after[-1][0] <= c[0]]
