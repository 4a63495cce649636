"""Writes quant_golden.bin: blocks of each type and the values that the gguf Python package reads from
them, and floats with the bytes that it (for the K types: ggml's library, from llama-cpp-python)
writes for them. Little-endian; per type:

    u32 type, u32 blocks, blocks * bytes stored, blocks * elements float32 read
    u32 written blocks (0: the type is only read), written * elements float32, bytes

Run: python3 make_quant_golden.py (needs numpy, gguf and llama-cpp-python).
"""
import ctypes
import struct
from pathlib import Path

import llama_cpp
import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType as T
from gguf.quants import dequantize, quantize

ggml = ctypes.CDLL(next(Path(llama_cpp.__path__[0], "lib").glob("libggml-base.so*")))


def write(x, t):
    """The stored bytes of rows of one block each."""
    elements, size = GGML_QUANT_SIZES[t]
    if elements != 256:
        return quantize(x, t)
    out = np.zeros((len(x), size), dtype=np.uint8)
    getattr(ggml, f"quantize_row_{t.name.replace('Q', 'q')}_ref")(
        x.ctypes.data_as(ctypes.c_void_p), out.ctypes.data_as(ctypes.c_void_p), ctypes.c_int64(x.size))
    return out


rng = np.random.default_rng(20240917)
halves = {  # where fp16 fields stand: random bytes there would be mostly huge or NaN
    T.F16: [0], T.Q4_0: [0], T.Q4_1: [0, 2], T.Q5_0: [0], T.Q5_1: [0, 2], T.Q8_0: [0],
    T.Q4_K: [0, 2], T.Q5_K: [0, 2], T.Q6_K: [208], T.BF16: [], T.F32: [], T.IQ4_NL: [0],
}
out = b""
for t, fields in halves.items():
    elements, size = GGML_QUANT_SIZES[t]
    n = 32 if elements == 1 else 4 if elements == 32 else 2
    if t in (T.F32, T.BF16):
        f = rng.standard_normal(n).astype(np.float32)
        raw = f.view(np.uint8) if t == T.F32 else (f.view(np.uint32) >> 16).astype(np.uint16).view(np.uint8)
        raw = raw.reshape(n, size).copy()
    else:
        raw = rng.integers(0, 256, (n, size), dtype=np.uint8)
        for at in fields:
            raw[:, at:at + 2] = (rng.standard_normal(n) * 0.02).astype(np.float16).view(np.uint8).reshape(n, 2)
    values = np.concatenate([dequantize(row, t) for row in raw]).astype(np.float32)
    out += struct.pack("<II", t, n) + raw.tobytes() + values.tobytes()
    if t == T.IQ4_NL:  # read only
        out += struct.pack("<I", 0)
        continue
    sizes = np.array([[1], [1e-3], [40], [0]] if elements < 256 else [[1], [1e-3]])
    x = (rng.standard_normal((len(sizes), elements)) * sizes + 0.0).astype(np.float32)
    out += struct.pack("<I", len(x)) + x.tobytes() + write(x, t).tobytes()
Path(__file__).with_name("quant_golden.bin").write_bytes(out)
