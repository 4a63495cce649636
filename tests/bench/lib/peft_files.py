"""Adapters in PEFT's form for a GGUF model: every linear map of a block, small values by a seed. Standard library only."""
import json
import os
import random
import struct
import subprocess

MAPS = {"attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj", "ffn_gate": "mlp.gate_proj",
        "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj"}


def half_floats(rng, count):
    """Random values of 0.002 to 0.03, of both signs, as IEEE halves."""
    data = bytearray(rng.randbytes(2 * count))
    data[1::2] = data[1::2].translate(bytes(0x18 + (b & 0x0f) % 12 | b & 0x80 for b in range(256)))
    return bytes(data)


def linear_maps(specdec, model):
    """{PEFT name: (outputs, inputs)} of the model's blocks."""
    out = {}
    said = subprocess.run([specdec, "inspect", model, "--tensors", "--json"], capture_output=True, text=True, check=True).stdout
    for t in json.loads(said)["tensors"]:
        parts = t["name"].split(".")
        if parts[0] == "blk" and len(parts) == 4 and parts[2] in MAPS and parts[3] == "weight":
            out[f"base_model.model.model.layers.{parts[1]}.{MAPS[parts[2]]}"] = tuple(t["shape"])
    if not out:
        raise ValueError(f"{model}: has no linear maps by the names of GGUF files")
    return out


def write_adapter(folder, maps, rank, seed):
    os.makedirs(folder)
    rng, header, parts, at = random.Random(seed), {}, [], 0
    for name, (outputs, inputs) in maps.items():
        for which, shape in (("A", (rank, inputs)), ("B", (outputs, rank))):
            data = half_floats(rng, shape[0] * shape[1])
            header[f"{name}.lora_{which}.weight"] = {"dtype": "F16", "shape": shape, "data_offsets": (at, at + len(data))}
            parts.append(data)
            at += len(data)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(os.path.join(folder, "adapter_model.safetensors"), "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text + b"".join(parts))
    with open(os.path.join(folder, "adapter_config.json"), "w", encoding="utf-8") as f:
        json.dump({"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": rank, "lora_alpha": 2 * rank, "bias": "none",
                   "target_modules": sorted({name.rsplit(".", 1)[1] for name in maps})}, f)
