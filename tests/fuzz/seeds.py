#!/usr/bin/env python3
"""Writes a few small seeds for every fuzz target: seeds.py DIR"""
import json
import os
import struct
import sys


def gguf_string(s):
    return struct.pack("<Q", len(s)) + s.encode()


def gguf():
    tokens = [chr(c) for c in range(33, 127)] + ["aa", "<|im_end|>"]
    out = b"GGUF" + struct.pack("<IQQ", 3, 1, 7)
    for key, value in (("general.architecture", "llama"), ("tokenizer.ggml.model", "gpt2"), ("tokenizer.ggml.pre", "smollm")):
        out += gguf_string(key) + struct.pack("<I", 8) + gguf_string(value)
    out += gguf_string("tokenizer.ggml.tokens") + struct.pack("<IIQ", 9, 8, len(tokens)) + b"".join(map(gguf_string, tokens))
    out += gguf_string("tokenizer.ggml.token_type") + struct.pack("<IIQ", 9, 5, len(tokens)) + struct.pack("<i", 1) * (len(tokens) - 1) + struct.pack("<i", 3)
    out += gguf_string("tokenizer.ggml.merges") + struct.pack("<IIQ", 9, 8, 1) + gguf_string("a a")
    out += gguf_string("tokenizer.ggml.bos_token_id") + struct.pack("<II", 4, 1)
    out += gguf_string("w") + struct.pack("<IQQIQ", 2, 4, 2, 0, 0)
    out += b"\0" * (-len(out) % 32)
    return out + struct.pack("<8f", *range(8))


def safetensors():
    header = json.dumps({"__metadata__": {"format": "pt"}, "a": {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]},
                         "b": {"dtype": "BF16", "shape": [4], "data_offsets": [16, 24]}}).encode()
    return struct.pack("<Q", len(header)) + header + bytes(24)


def tokenizer():
    vocab = {chr(c): c - 33 for c in range(33, 127)} | {"aa": 94, "aaa": 95}
    return {"added_tokens": [{"id": 96, "content": "<x>", "special": True, "lstrip": True, "rstrip": True, "single_word": True, "normalized": True}],
            "normalizer": {"type": "NFC"}, "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
                {"type": "Split", "pattern": {"Regex": r"\p{L}+|\d|\s+(?!\S)|[^\s\p{N}]"}, "behavior": "Isolated", "invert": False}, {"type": "Digits", "individual_digits": True},
                {"type": "ByteLevel", "add_prefix_space": True, "use_regex": False}]},
            "model": {"type": "BPE", "vocab": vocab, "merges": ["a a", ["aa", "a"]], "ignore_merges": True, "unk_token": "aa"}}


TEMPLATES = [
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] }}{% if loop.first and not loop.last %}{{ m.content | trim }}{% endif %}{% endfor %}",
    "{% set ns = namespace(a=1) %}{% macro f(x, y=2) %}{{ x ~ y }}{{ caller() if caller }}{% endmacro %}{% call f(1) %}c{% endcall %}{% set ns.a = messages[::-1] %}{{ ns.a | tojson(indent=2) }}",
    "{%- for k, v in d.items() if k is string -%}{{ loop.index0 }}{%- else -%}{% raw %}{{}}{% endraw %}{%- endfor +%}\n{# c #}{{ l | sort | join(',') | replace('1', 'x') }}{{ [1, 'a', {}][-1:] }}",
    "{{ 'a,b'.split(',') | map('upper') | list }}{{ messages | selectattr('role', 'equalto', 'user') | map(attribute='content') | first | default('x', true) }}{{ 7 // 2 ** n % 3 }}",
    "{% with a=1 %}{% filter upper %}{{ '%05.2f|%s' | format(1.5, a) }}{% endfilter %}{% endwith %}{% generation %}{% if a is defined and a in l or not x %}1{% elif 2 %}3{% endif %}{% endgeneration %}",
]
REQUESTS = [
    '{"model": "m", "messages": [{"role": "user", "content": "hi"}], "temperature": 0.5, "top_p": 0.9, "max_tokens": 5, "stop": ["a", "b"], "stream": true, "logprobs": true, "top_logprobs": 3, "seed": 1}',
    '{"model": "m", "messages": [{"role": "user", "content": [{"type": "text", "text": "a"}]}], "tools": [], "chat_template_kwargs": {"enable_thinking": false}, "n": 1}',
    '{"model": "m", "prompt": ["a", "b"], "max_tokens": 3, "stop": "x", "logprobs": 2, "echo": false}', '{"prompt": [1, 2, 3], "min_p": 0.1, "top_k": 4, "stop_token_ids": [2]}',
]
RECIPE = "model: base.gguf\nseed: 1\ndata:\n  train: [train.jsonl]\n  eval: [test.jsonl]\nlora:\n  r: 16\n  alpha: 32\noptimiser:\n  lr: 1e-3\nsteps: 100\n"


def main():
    for target, items in {"gguf": [gguf()], "safetensors": [safetensors()], "template": TEMPLATES, "recipe": [RECIPE, "steps=5", "lora.r=8"],
                          "api_request": REQUESTS,
                          "tokenizer": ["0" + json.dumps(tokenizer()) + "\0 a aaa1 <x> é", "1It's  a 12\n\té日本 <x> aaaa", "3x  1 don't", "5'LL 1234 \r\n x", "7  \u3000a"]}.items():
        folder = os.path.join(sys.argv[1], target)
        os.makedirs(folder, exist_ok=True)
        for i, item in enumerate(items):
            with open(os.path.join(folder, f"seed{i}"), "wb") as f:
                f.write(item if isinstance(item, bytes) else item.encode())


main()
