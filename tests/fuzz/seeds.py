#!/usr/bin/env python3
"""Writes a few small seeds for every fuzz target: seeds.py DIR"""
import gzip
import hashlib
import io
import json
import lzma
import os
import struct
import sys
import tarfile
import zipfile


def blocks():
    """A request and an event of decode/serve/provider/message.h; the target puts their lengths right."""
    event = struct.pack("<IIQq6i10I", 1, 0, 7, 5, 1, 0, 0, 0, 0, 0, 0, 0, 88, 7, 0, 0, 0, 0, 0, 0) + b"a text!" + b"\1"
    request = struct.pack("<II3QII7i6f19i", 2, 0, 3, 0, 4, 0, 0, 16, 2, -1, 0, 0, 0, 1, 1, 1, 0, .5, .5, 1.1, *[0] * 19)
    request += struct.pack("<12I", 336, 2, 0, 0, 344, 1, 352, 2, 360, 3, 376, 2)  # prompt, stop tokens, bias, allowed, bad words, a stop string
    return [event, request.ljust(336, b"\0") + struct.pack("<3if5ii", 1, 2, 5, 1, 3, 4, 2, 7, 8, 0) + b"a\0" + b"\1" * 6]


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


def gguf_pieces():
    tokens = ["<s>", "\u2581", "a", "aa", "\u2581a", "<u>", "<0x62>"]
    out = b"GGUF" + struct.pack("<IQQ", 3, 0, 6)
    for key, value in (("general.architecture", "gemma3"), ("tokenizer.ggml.model", "llama")):
        out += gguf_string(key) + struct.pack("<I", 8) + gguf_string(value)
    out += gguf_string("tokenizer.ggml.tokens") + struct.pack("<IIQ", 9, 8, len(tokens)) + b"".join(map(gguf_string, tokens))
    out += gguf_string("tokenizer.ggml.scores") + struct.pack("<IIQ", 9, 6, len(tokens)) + struct.pack("<7f", 0, -5, -5, -1, -1, 0, 0)
    out += gguf_string("tokenizer.ggml.token_type") + struct.pack("<IIQ", 9, 5, len(tokens)) + struct.pack("<7i", 3, 1, 1, 1, 1, 4, 6)
    return out + gguf_string("tokenizer.ggml.add_space_prefix") + struct.pack("<IB", 7, 1)


SERVE_CONFIGS = ["model: m\nlisten: 127.0.0.1:80\nkeys: {a: 'sha256:%s admin'}\nadapters: {x: y}\n" % ("0" * 64), "listen: \"[::1]:80\"\nkeys:\n  - a-bare-key\n  - b sha256:%s\nadapters: [a=b, c]\n" % ("1" * 64),
                 "port: 1\nhost: h\ncors: [a, b]\ndrain: 1.5\nspec: off\nno_pack_cache: yes\n"]
CONFIG = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2,
          "num_key_value_heads": 1, "vocab_size": 260, "rms_norm_eps": 1e-5, "hidden_act": "silu", "max_position_embeddings": 64, "tie_word_embeddings": True,
          "torch_dtype": "float32", "bos_token_id": 256, "eos_token_id": [257, 259]}
ROPES = [{"rope_theta": 10000.0}, {"rope_theta": 5e5, "rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                                                                      "original_max_position_embeddings": 32}},
         {"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e6, "factor": 4.0, "original_max_position_embeddings": 32, "beta_fast": 32, "beta_slow": 1}},
         {"rope_scaling": {"type": "linear", "factor": 2}, "head_dim": 4, "attention_bias": False}]


def configs():
    """One byte that says which file, then the file."""
    out = [b"0" + json.dumps(CONFIG | r).encode() for r in ROPES]
    out += [b"1" + json.dumps({"bos_token_id": 256, "eos_token_id": [257, 259], "temperature": 0.6, "top_p": 0.9, "do_sample": True}).encode(),
            b"2" + json.dumps({"bos_token": "<s>", "eos_token": {"content": "</s>", "special": True}, "add_bos_token": True, "model_max_length": 10 ** 30,
                               "chat_template": [{"name": "default", "template": TEMPLATES[0]}]}).encode(),
            b"2" + json.dumps({"chat_template": TEMPLATES[3], "unk_token": None, "added_tokens_decoder": {"256": {"content": "<s>", "special": True}}}).encode(),
            b"3" + TEMPLATES[0].encode()]
    return out


def datasets():
    """Changes to a good prepared file: place, what, width, value (tests/fuzz/fuzz_dataset.c)."""
    one = lambda place, what, width, value: struct.pack("<HBBQ", place, what, width, value)
    return [b"0", b"7", b"0" + one(40, 1, 0, 257), b"0" + one(3, 3, 0, 32), b"7" + one(1, 3, 0, 4), b"0" + one(0, 4, 0, 20000000),
            b"0" + b"".join(one(200 + 7 * i, 0, 2, 0xFFFFFFFF) for i in range(3)), b"0" + one(500, 2, 3, 1 << 40) + one(2, 4, 0, 7)]


RECORDS = [b'{"messages": [{"role": "user", "content": "q", "weight": 0}, {"role": "assistant", "content": [{"type": "text", "text": "a"}], "tool_calls": '
           b'[{"function": {"name": "f", "arguments": "{\\"x\\": 1}"}}]}], "tools": "[]", "id": 18446744073709551615}\n',
           b'{"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a\\u0000", "train": false}], "system": "s"}\r\n\n',
           b'{"instruction": "i", "input": null, "output": "o", "history": [["q", "a"]]}\n', b'{"prompt": "p", "completion": "c", "x": [NaN, -1e999]}\n{"text": "t"}']
TABLE = b'\xef\xbb\xbfprompt,completion\r\n"a ""b""",\r\n"x\ny",z\n'


def readers():
    """One byte that chooses the ending (tests/fuzz/fuzz_reader.c), then the file."""
    endings = ["jsonl", "json", "txt", "md", "csv", "tsv", "tar", "tar.gz", "tar.zst", "tar.xz", "zip", "tgz", "txz", "jsonl.gz", "jsonl.zst", "json.xz", "csv.gz"]
    pick = lambda ending: bytes([endings.index(ending)])
    lines, files = b"".join(RECORDS), {"a/a.jsonl": RECORDS[0], "b.csv": TABLE, "skipped.bin": bytes(3000), "c.txt": b"text"}
    out = [pick("jsonl") + lines, pick("jsonl") + b"[" + b",".join(r.strip() for r in RECORDS[:3]) + b"]", pick("json") + b"[" + RECORDS[2].strip() + b"]",
           pick("txt") + "naïve\n".encode(), pick("csv") + TABLE, pick("tsv") + TABLE.replace(b",", b"\t"), pick("jsonl.gz") + gzip.compress(lines), pick("json.xz") + lzma.compress(RECORDS[2]),
           pick("csv.gz") + gzip.compress(TABLE), pick("jsonl") + RECORDS[0].decode().encode("utf-16")]
    for ending, mode in (("tar", "w"), ("tar.gz", "w:gz"), ("tar.xz", "w:xz")):
        b = io.BytesIO()
        with tarfile.open(fileobj=b, mode=mode) as t:
            for name, data in files.items():
                info = tarfile.TarInfo(name)
                info.size = len(data)
                t.addfile(info, io.BytesIO(data))
        out.append(pick(ending) + b.getvalue())
    b = io.BytesIO()
    with zipfile.ZipFile(b, "w", zipfile.ZIP_DEFLATED) as z:
        for name, data in files.items():
            z.writestr(name, data)
    return out + [pick("zip") + b.getvalue()]


def write(target, items):
    folder = os.path.join(sys.argv[1], target)
    os.makedirs(folder, exist_ok=True)
    for i, item in enumerate(items):
        with open(os.path.join(folder, f"seed{i}"), "wb") as f:
            f.write(item if isinstance(item, bytes) else item.encode())


def safetensors():
    header = json.dumps({"__metadata__": {"format": "pt"}, "a": {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]},
                         "b": {"dtype": "BF16", "shape": [4], "data_offsets": [16, 24]}}).encode()
    return struct.pack("<Q", len(header)) + header + bytes(24)


def safetensors_of(tensors, metadata):
    """tensors: {name: (shape, values)}, all F32"""
    header, body = {"__metadata__": metadata}, b""
    for name, (shape, values) in tensors.items():
        data = struct.pack(f"<{len(values)}f", *values)
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [len(body), len(body) + len(data)]}
        body += data
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body


def adapters():
    """For the base of fuzz_adapter.c: q is [8, 8], down is [8, 12]."""
    some = lambda n: [0.01 * (i % 5 - 2) for i in range(n)]
    gguf = b"GGUF" + struct.pack("<IQQ", 3, 2, 5)
    for key, value in (("general.type", "adapter"), ("general.architecture", "llama"), ("adapter.type", "lora"), ("specdec.base_sha256", "0" * 64)):
        gguf += gguf_string(key) + struct.pack("<I", 8) + gguf_string(value)
    gguf += gguf_string("adapter.lora.alpha") + struct.pack("<If", 6, 4)
    gguf += gguf_string("blk.0.attn_q.weight.lora_a") + struct.pack("<IQQIQ", 2, 8, 2, 0, 0)
    gguf += gguf_string("blk.0.attn_q.weight.lora_b") + struct.pack("<IQQIQ", 2, 2, 8, 0, 64)
    gguf += b"\0" * (-len(gguf) % 32) + struct.pack("<32f", *some(32))
    module = "base_model.model.model.layers.0."
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "use_rslora": False, "alpha_pattern": {"down_proj": 2}, "modules_to_save": None, "init_lora_weights": True}
    weights = safetensors_of({f"{module}mlp.down_proj.lora_A.weight": ([2, 12], some(24)), f"{module}mlp.down_proj.lora_B.weight": ([8, 2], some(16)),
                              f"{module}self_attn.q_proj.lora_A.default.weight": ([2, 8], some(16)), f"{module}self_attn.q_proj.lora_B.default.weight": ([8, 2], some(16))},
                             {"format": "pt", "specdec.base_sha256": "1" * 64, "specdec.base_sketch": f"1 Q4_1 {'2' * 64} 7 " + "3f8000003f800000" * 7})
    text = json.dumps(config).encode()
    shaped = bytes([2, 2, 0, 4, 0, 0]) + struct.pack("<16f", *some(16)) + bytes([8, 32, 0, 0]) + struct.pack("<16f", *some(16)) + bytes([8, 1])
    return [b"\0" + gguf, b"\1" + struct.pack("<H", len(text)) + text + weights, shaped]


STATE = {"checkpoint": 1, "parameters": 4, "step": 3, "epoch": 0, "index": 1, "tokens": 9, "supervised": 5, "wall_s": 1.5, "has_best": True, "best_loss": 1.0, "best_step": 2,
         "last_eval": 1.0, "evals_without_gain": 0, "stopped": False, "eval_due": False, "loss": 1.0, "lr": 0.1, "grad_norm": 1.0, "step_tokens": 3, "step_supervised": 2,
         "base": "a" * 64, "data": "b" * 64, "eval_data": "", "init": "", "version": "0.5.0", "kernels": "avx2"}


def checkpoints():
    sums = "".join(f"{'c' * 64}  {name}\n" for name in ("theta.f32", "adam_m.f32", "adam_v.f32", "best.f32", "state.json", "recipe.resolved.yaml"))
    return [b"\0" + sums.encode(), b"\1" + json.dumps(STATE).encode(), b"\2" + RECIPE.encode(), b"\3\x02" + b"9007199254740993", b"\3\x18" + b'"0.4.0"', b"\3\x0f" + b"1e308"]


def tokenizer():
    vocab = {chr(c): c - 33 for c in range(33, 127)} | {"aa": 94, "aaa": 95}
    return {"added_tokens": [{"id": 96, "content": "<x>", "special": True, "lstrip": True, "rstrip": True, "single_word": True, "normalized": True}],
            "normalizer": {"type": "NFC"}, "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
                {"type": "Split", "pattern": {"Regex": r"\p{L}+|\d|\s+(?!\S)|[^\s\p{N}]"}, "behavior": "Isolated", "invert": False}, {"type": "Digits", "individual_digits": True},
                {"type": "ByteLevel", "add_prefix_space": True, "use_regex": False}]},
            "model": {"type": "BPE", "vocab": vocab, "merges": ["a a", ["aa", "a"]], "ignore_merges": True, "unk_token": "aa"}}


def pieces_json():
    mark = "\u2581"
    vocab = {"<unk>": 0, mark: 1, "a": 2, "b": 3, "ab": 4, mark + "a": 5, mark * 2: 6, "<0xC3>": 7, "<0xA9>": 8}
    undo = [{"type": "Replace", "pattern": {"String": mark}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0}]
    model = {"type": "BPE", "byte_fallback": True, "fuse_unk": True, "unk_token": "<unk>", "vocab": vocab, "merges": ["a b", mark + " a", mark + " " + mark]}
    steps = [{"normalizer": {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": mark}, {"type": "Replace", "pattern": {"String": " "}, "content": mark}]}, "pre_tokenizer": None},
             {"normalizer": None, "pre_tokenizer": {"type": "Metaspace", "replacement": mark, "prepend_scheme": "first", "split": True}}]
    return [json.dumps({**s, "model": model, "decoder": {"type": "Sequence", "decoders": undo}, "added_tokens": [{"id": 9, "content": "<x>", "normalized": True}]}) for s in steps]


def pieces(*rows):
    return b"".join(bytes([kind, score, len(text)]) + text for kind, score, text in rows) + b"\0\0\xff"


PIECES = pieces((0, 1, b"a"), (0, 9, b"aa"), (0, 9, b"aaa"), (0, 7, "\u2581a".encode()), (1, 0, b"<x>"), (2, 3, "é".encode()), (1, 0, b"  "))


def corpus(tokens, copies=()):
    """A whole corpus index as datasets/corpus/corpus_index.c describes it."""
    n = len(tokens)
    order = sorted(range(n), key=lambda i: tokens[i:])
    head = b"SDCORPUS" + struct.pack("<IIQ", 2, 0, n) + b"f" * 64 + b"a" * 64
    body = struct.pack(f"<{2 * n}i", *tokens, *order) + b"".join(struct.pack("<7i", *c) for c in copies)
    return head + hashlib.sha256(head + body).hexdigest().encode() + bytes(40) + body


CORPUS = [1, 2, 3, -1, 1, 2, 4, 2, 3, -1, 5, 1, 2, 3, 1, 2, 3, 7, -1]
CORPORA = [bytes([mode, changes, 5, 1, 2, 3, 1, 2]) + rest for mode, changes, rest in (
    (0, 0, corpus(CORPUS)), (1, 0, corpus(CORPUS, [(1, 2, -1, 8, 9, 7, 0), (11, 3, 1, 2, 3, -1, 1)])), (1, 0, corpus([])), (2, 0, bytes(range(40))), (3, 0, bytes([1, 2, 3, 255] * 30)),
    (3, 3, bytes([1, 2, 3, 255, 4, 1, 2] * 9)))]
TEMPLATES = [
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] }}{% if loop.first and not loop.last %}{{ m.content | trim }}{% endif %}{% endfor %}",
    "{% set ns = namespace(a=1) %}{% macro f(x, y=2) %}{{ x ~ y }}{{ caller() if caller }}{% endmacro %}{% call f(1) %}c{% endcall %}{% set ns.a = messages[::-1] %}{{ ns.a | tojson(indent=2) }}",
    "{%- for k, v in d.items() if k is string -%}{{ loop.index0 }}{%- else -%}{% raw %}{{}}{% endraw %}{%- endfor +%}\n{# c #}{{ l | sort | join(',') | replace('1', 'x') }}{{ [1, 'a', {}][-1:] }}",
    "{{ 'a,b'.split(',') | map('upper') | list }}{{ messages | selectattr('role', 'equalto', 'user') | map(attribute='content') | first | default('x', true) }}{{ 7 // 2 ** n % 3 }}",
    "{% with a=1 %}{% filter upper %}{{ '%05.2f|%s' | format(1.5, a) }}{% endfilter %}{% endwith %}{% generation %}{% if a is defined and a in l or not x %}1{% elif 2 %}3{% endif %}{% endgeneration %}",
    "{% for x in l recursive %}{{ loop(l) if loop.depth < 3 }}{{ loop.cycle(1, 2) }}{{ loop.changed(x) }}{% endfor %}{% set j = joiner('|') %}{{ j() }}{{ j() }}{% set c = cycler('o', 'e') %}{{ c.next() }}{{ c.current }}{{ c.reset() }}",
    "{% block a scoped %}{{ 2 ** 100 // 7 % -3 }}{% endblock a %}{{ self.a() }}{% print 0x1f, 12345678901234567890 * -3 %}{{ 10 ** 25 / 3 }}{{ '123456789012345678901' | int }}",
    "{{ '{0:*^9}{1!r:>{2}}{a[k].b}'.format(w, 'x', 5, a=d) }}{{ '%-5s|%(k)s' % d }}{{ '%*d %#x %+.3e' % (5, n, 255, 2.5) }}{{ '{:,.2f}{:_b}{:%}'.format(1234.5, 99, .5) }}",
    "{{ w.partition(' ') }}{{ w.rpartition('x') }}{{ w.center(30, '*') }}{{ w.zfill(9) }}{{ w.expandtabs(4).title().casefold() }}{{ w.encode() }}{{ w.find('e', 2, -1) }}{{ w.isidentifier() }}",
    "{{ w | wordwrap(5) | indent(2) | truncate(9) }}{{ d | pprint | urlencode | wordcount }}{{ l | slice(2) | list }}{{ l | batch(2, 0) | list }}{{ d | xmlattr }}{{ '<a>&amp;</a>' | striptags }}{{ 5555 | filesizeformat }}{{ n | round(-1) | abs }}",
    "{{ ('<' | e) + '<' }}{{ (w | safe).format('<') }}{{ range(9)[2::3] }}{{ d.items() }}{{ l | map('string') | join }}{{ (messages | groupby('role'))[0].grouper }}{{ messages | sort(attribute='role,content') | first }}{{ l.append }}{{ namespace(a=l) }}",
]
REQUESTS = [
    '{"model": "m", "messages": [{"role": "user", "content": "hi"}], "temperature": 0.5, "top_p": 0.9, "max_tokens": 5, "stop": ["a", "b"], "stream": true, "logprobs": true, "top_logprobs": 3, "seed": 1}',
    '{"model": "m", "messages": [{"role": "user", "content": [{"type": "text", "text": "a"}]}], "tools": [], "chat_template_kwargs": {"enable_thinking": false}, "n": 1}',
    '{"max_tokens": 9, "system": [{"type": "text", "text": "s"}], "messages": [{"role": "user", "content": [{"type": "text", "text": "a"}]}, {"role": "assistant", "content": [{"type": "thinking", "thinking": "h"}, {"type": "tool_use", "id": "t", "name": "f", "input": {"a": 1}}]}, {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t", "content": [{"type": "text", "text": "7"}]}]}], "tools": [{"name": "f", "input_schema": {}}, {"type": "x_1", "name": "y"}], "tool_choice": {"type": "any"}, "thinking": {"type": "enabled", "budget_tokens": 9}, "stop_sequences": ["z"]}',
    '{"instructions": "s", "input": [{"role": "user", "content": [{"type": "input_text", "text": "a"}]}, {"type": "reasoning", "content": [{"type": "reasoning_text", "text": "h"}]}, {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}, {"type": "function_call_output", "call_id": "c", "output": "7"}], "tools": [{"type": "function", "name": "f", "parameters": {}}, {"type": "custom"}], "tool_choice": "auto", "text": {"format": {"type": "json_schema", "name": "n", "schema": {}}}, "reasoning": {"effort": "low"}, "max_output_tokens": 9}',
    '{"tokens": [1, 2.0], "prompt": "a", "return_token_strs": true}',
    '{"input": ["a", [1, 2]], "encoding_format": "base64", "dimensions": 64}', '{"query": "a", "documents": ["b", {"text": "c"}], "top_n": 1, "return_documents": true}',
    '{"input": "hi", "include": ["message.output_text.logprobs"], "top_logprobs": 3}',
    '{"state": {"a": [1]}, "permute": 2, "questions": {"u": {"type": "noul", "instructions": "i", "criteria": {"true": "x"}}, "t": {"type": "choice", "instructions": ["i"], "criteria": {"a": null, "b c": "d"}}, '
    '"s": {"type": "score", "instructions": "i", "criteria": ["low", {"x": 1}]}}}',
    '{"input": [{"role": "user", "content": [{"type": "input_text", "text": "a"}]}], "questions": [{"type": "predicate", "instructions": "i"}, {"type": "choice", "name": "n", "instructions": "i", "choices": '
    '[{"value": true}, {"value": "b", "description": "d"}]}, {"type": "score", "instructions": "i", "levels": [{"label": "a"}, {"label": "b", "description": "c"}]}]}',
    '{"model": "m", "prompt": ["a", "b"], "max_tokens": 3, "stop": "x", "logprobs": 2, "echo": false}', '{"prompt": [1, 2, 3], "min_p": 0.1, "top_k": 4, "stop_token_ids": [2]}',
    '{"prompt": "a\\u0000b", "seed": 18446744073709551616, "temperature": 1e999, "user": NaN, "metadata": [-99999999999999999999]}',
    '{"messages": [{"role": "assistant", "content": null, "reasoning_content": "x", "tool_calls": []}, {"role": "user", "content": "\\u0001\\"\\n", "name": "n"}], "stream": true, "stream_options": {"include_usage": true}}',
]
CHUNKED = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1;a=\"b\\\"c\";d\r\nx\r\n0;e = f\r\nX: y\r\n\r\n"
RECIPE = "model: base.gguf\nseed: 1\ndata:\n  train: [train.jsonl]\n  eval: [test.jsonl]\nlora:\n  r: 16\n  alpha: 32\noptimiser:\n  lr: 1e-3\nsteps: 100\n"


DEFAULTS = ['0{"serve": {"system": "Be brief.", "system_share": 1.0, "sampling": {"temperature": 0, "top_p": 0.9, "top_k": 40, "min_p": 0.05, "max_tokens": 512}}}',
            '1{"temperature": 0.7, "top_p": 0.8, "top_k": -1, "max_new_tokens": 99, "do_sample": false}']

ANSWERS = [chr(f) + "q" + text for f, text in [
    (9, "<think>\nHm\n</think>\n\nSo:\n<tool_call>\n{\"name\": \"f\", \"arguments\": {\"a\": \"</tool_call>\"}}\n</tool_call>\n<tool_call>{\"arguments\": \"{\\\"n\\\": 1}\", \"name\": \"f\"}"),
    (2, "<tool_call>\n<function=f>\n<parameter=a>\nx\n</parameter>\n<parameter=n>\n42\n</parameter>\n</function>\n</tool_call>"),
    (3, "<|python_tag|>{\"name\": \"f\", \"parameters\": {}}; {\"name\": \"f\"}"), (3, "{\"name\": \"f\", \"parameters\": {\"a\": [1, {}]}}"),
    (20, "[THINK]Hm[/THINK][TOOL_CALLS][{\"name\": \"f\", \"arguments\": {}}]"), (4, "[TOOL_CALLS]f[CALL_ID]abc[ARGS]{\"a\": 1}[TOOL_CALLS]f{}"),
    (5, "```tool_code\nprint(f(a='x', n=[1, (True,)]))\n```"), (5, "```json\n{\"name\": \"f\", \"parameters\": {}}\n```"),
    (6, "<|tool_call|>[{\"name\": \"f\", \"arguments\": {}}, {\"name\": \"f\"}]<|/tool_call|>"), (6, "functools[{\"name\": \"f\"}]"),
    (7, "<|channel|>analysis<|message|>Hm<|end|><|start|>assistant<|channel|>commentary to=functions.f <|constrain|>json<|message|>{}<|call|>")]]


SCHEMAS = ["\0\1" + json.dumps(s) for s in [
    {"type": "object", "properties": {"a": {"type": "integer", "minimum": 3}, "b": {"enum": ["x", 1, None]}}, "required": ["a"], "additionalProperties": {"type": "string"}},
    {"$defs": {"n": {"type": "object", "properties": {"v": {"$ref": "#/$defs/n"}}}}, "$ref": "#/$defs/n", "description": "x"},
    {"anyOf": [{"type": "string", "pattern": "^[a-z]{2,5}$", "maxLength": 4}, {"type": "number", "exclusiveMaximum": 2.5, "multipleOf": 0.1}]},
    {"allOf": [{"type": "array", "items": {"type": "boolean"}, "minItems": 1}, {"maxItems": 3}]},
    {"oneOf": [{"type": "string", "format": "date", "minLength": 2}, {"const": None}]},
    {"type": "array", "prefixItems": [{"const": "q\""}, True], "items": False}]] + ["\2\3(a|b)*c{2,5}[^x-z]\\d+(?:\\w|\\s)?$", "\3\4[\"ab\", \"abc\", \"\"]"]


# What specdec cost reads, behind a digit that says as what: prices, usage, metrics, benches.
COSTS = ['0{"sample_spec": {}, "a": {"input_cost_per_token": 1e-6, "output_cost_per_token": 2e-6, "cache_read_input_token_cost": 1e-7, "input_cost_per_token_above_200k_tokens": 2e-6, "input_cost_per_token_flex": 5e-7, "output_cost_per_token_flex": 1e-6, "deprecation_date": "2027-01-31"}, "x/b": {"input_cost_per_token": 0, "output_cost_per_token": 0}, "y/b": {"input_cost_per_token": 0, "output_cost_per_token": 0}}',
         '1{"time": "2026-05-04T09:30:00.125Z", "key": "k", "tokens": {"uncached": 3, "cache_read": 1, "write_5m": 1, "write_1h": 1, "output": 5, "reasoning": 2}, "cost": 87, "total_ms": 8.5}\n{"time": "2026-05-06T09:30:00-02:00", "tokens": {"output": 5}, "cost": "unpriced"}',
         '2specdec_request_prompt_tokens_sum{a="b\\"}"} 600\nspecdec_request_prompt_tokens_count 3.0\nvllm:generation_tokens_total 9\nspecdec_busy_seconds_total 5\nspecdec_idle_seconds_total 50\nspecdec_request_decode_time_seconds_sum 4',
         '3{"prefill_tok_s": {"512": 3391.0, "16": 9}, "decode_tok_s": {"256": 290.0}}', '3{"tasks": [{"answers": 2, "prompt_tokens": 9, "tokens": 100, "decode": {"plain_tok_s": 50.0, "spec_tok_s": 100.0}, "request": {"spec_tok_s": 40.0}}]}']


def main():
    for target, items in {"config": configs(), "dataset": datasets(), "reader": readers()}.items():
        write(target, items)
    for target, items in {"answer": ANSWERS, "corpus": CORPORA, "gguf": [gguf(), gguf_pieces()], "safetensors": [safetensors()], "template": TEMPLATES, "recipe": [RECIPE, "steps=5", "lora.r=8"], "serve_config": SERVE_CONFIGS,
                          "adapter": adapters(), "checkpoint": checkpoints(), "defaults": DEFAULTS, "prices": COSTS, "schema": SCHEMAS,
                          "api_request": REQUESTS, "http": [CHUNKED], "provider": blocks(),
                          "tokenizer": ["0" + json.dumps(tokenizer()) + "\0 a aaa1 <x> é", "1It's  a 12\n\té日本 <x> aaaa", "3x  1 don't", "5'LL 1234 \r\n x", "7  \u3000a",
                                       b"2" + PIECES + "aaaa a<x> é  日a".encode(), b"6" + PIECES + b"   aa  a"] + ["0" + j + "\0 ab a<x> é" for j in pieces_json()]}.items():
        write(target, items)


main()
