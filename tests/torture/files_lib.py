"""What the attacks on files share: a model that is large enough for the cache, written without numpy, and TAP."""
import os
import random
import struct
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "e2e", "lib"))
from options import parser  # noqa: E402
from tap import check, finish as end, skip  # noqa: E402

options = parser(sys.modules["__main__"].__doc__, full=True).parse_args()  # of the script that imports this
BINARY, FULL = os.path.abspath(options.binary), options.full
TINY = os.path.join(os.path.dirname(BINARY), "tests", "make_tiny_model")


def _string(s):
    return struct.pack("<Q", len(s)) + s.encode()


def _halves(n, rng):
    """n fp16 numbers of the order of 0.1, random but for their period."""
    period = min(n, 1 << 18) | 1
    out = bytearray(2 * period)
    out[0::2] = rng.randbytes(period)
    out[1::2] = rng.randbytes(period).translate(bytes((b & 0x83) | 0x28 for b in range(256)))
    return (bytes(out) * (n // period + 1))[:2 * n]


def write_model(path, seed=1, L=2, C=128, F=512, V=72000, sparse=False):
    """A llama of fp16 without a tokenizer, 19 MB: its head, which is the embedding, is just large enough for the cache. sparse: zeros that take no room on the disk."""
    rng = random.Random(seed)
    keys = [("general.architecture", "llama"), ("llama.block_count", L), ("llama.embedding_length", C), ("llama.context_length", 256),
            ("llama.feed_forward_length", F), ("llama.attention.head_count", 4), ("llama.attention.layer_norm_rms_epsilon", 1e-5),
            ("llama.rope.freq_base", 1e4)]
    tensors = [("token_embd.weight", (C, V)), ("output_norm.weight", (C,))]
    for i in range(L):
        tensors += [(f"blk.{i}.{n}.weight", s) for n, s in (("attn_norm", (C,)), ("ffn_norm", (C,)), ("attn_q", (C, C)), ("attn_k", (C, C)),
                    ("attn_v", (C, C)), ("attn_output", (C, C)), ("ffn_gate", (C, F)), ("ffn_up", (C, F)), ("ffn_down", (F, C)))]
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(keys))
    for key, value in keys:
        head += _string(key)
        if isinstance(value, str):
            head += struct.pack("<I", 8) + _string(value)
        elif isinstance(value, float):
            head += struct.pack("<If", 6, value)
        else:
            head += struct.pack("<II", 4, value)
    at, places = 0, []
    for name, shape in tensors:
        n = shape[0] * (shape[1] if len(shape) > 1 else 1)
        size = n * (4 if len(shape) == 1 else 2)
        head += _string(name) + struct.pack("<I", len(shape)) + b"".join(struct.pack("<Q", d) for d in shape) + struct.pack("<IQ", len(shape) > 1, at)
        places.append((at, n, len(shape)))
        at += (size + 31) // 32 * 32
    head += b"\0" * (-len(head) % 32)
    tmp = path + ".new"
    with open(tmp, "wb") as f:
        f.write(head)
        for where, n, dims in places:
            f.seek(len(head) + where)
            if dims == 1:
                f.write(struct.pack("<f", 1.0) * n)
            elif not sparse:
                f.write(_halves(n, rng))
        f.truncate(len(head) + at)
    os.replace(tmp, path)
    return {"data": len(head), "tensors": {name: len(head) + p[0] for (name, _), p in zip(tensors, places)}, "bytes": len(head) + at}
