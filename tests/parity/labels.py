#!/usr/bin/env python3
"""Tokens and labels of prepared data against transformers: 40 conversations under each of eight templates, and the quickstart's records.

    labels.py SPECDEC MODELS_DIR

The reference renders with transformers' Jinja, tokenises with Hugging Face tokenizers and places tokens by their bytes. For the quickstart's records it
tokenises prompt and answer apart, as training scripts do. The prepared file is read with h5py, so this also proves that others can read it.
TAP on standard output. Needs transformers, gguf, torch, h5py and hdf5plugin; what is missing is a printed skip.
"""
import json
import os
import shutil
import subprocess
import sys
import tempfile

os.environ["HF_HUB_OFFLINE"] = "1"
SPECDEC, MODELS = sys.argv[1], sys.argv[2]
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
SMOL, QWEN = "SmolLM2-135M-Instruct.Q4_1.gguf", "Qwen2.5-Coder-0.5B-Instruct.Q4_K_M.gguf"
failed = False

# Templates in the manner of other families, each with a trap of its own: no generation prompt and a bos (Llama 2), headers and a generation prompt
# (Llama 3), an end token behind a text marker (Zephyr), roles renamed (Gemma), a marker that is plain text (Alpaca), content stripped (Mistral).
TEMPLATES = {
    "inst": "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'system' %}{{ '<<SYS>>' + m['content'] + '<</SYS>>' }}"
            "{% elif m['role'] == 'assistant' %}{{ ' ' + m['content'] + eos_token }}{% else %}{{ '[INST] ' + m['content'] + ' [/INST]' }}{% endif %}{% endfor %}",
    "headers": "{{ bos_token }}{% for m in messages %}{{ '<|start_header_id|>' + m['role'] + '<|end_header_id|>\n\n' + m['content'] + eos_token }}"
               "{% endfor %}{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}",
    "zephyr": "{% for m in messages %}\n{{ '<|' + m['role'] + '|>\n' + m['content'] + eos_token }}\n{% if loop.last and add_generation_prompt %}\n"
              "{{ '<|assistant|>' }}\n{% endif %}\n{% endfor %}",
    "renamed": "{% for m in messages %}{% set who = 'model' if m['role'] == 'assistant' else m['role'] %}"
               "{{ '<start_of_turn>' + who + '\n' + m['content'] | trim + '<end_of_turn>\n' }}{% endfor %}"
               "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}",
    "plain": "{% for m in messages %}{{ '### ' + m['role'] | capitalize + ':\n' + m['content'] + '\n\n' }}{% endfor %}"
             "{% if add_generation_prompt %}{{ '### Assistant:\n' }}{% endif %}",
}


def ok(condition, name, note=""):
    global failed
    failed |= not condition
    print(("ok" if condition else "not ok") + f" - labels: {name}" + (f" ({note})" if note else ""), flush=True)


def skip(name, why):
    print(f"ok - labels: {name} # SKIP {why}", flush=True)


def turn(role, content, **more):
    return {"role": role, "content": content, **more}


def conversations():
    """40 conversations: lengths, scripts, blanks at every edge, texts that look like markers."""
    texts = ["Hello!", "2+2=4, 1234567 x 0.5", "  leading and trailing  ", "\nnewline first", "\n\n\nthree newlines", "tab\tand\r\nCRLF", "ends with newline\n",
             "Größe, naïve, façade", "日本語のテキスト。改行\nあり", "emoji 👩‍👩‍👧‍👦 🇩🇪 done", "русский и עברית ועוד", "```c\nint main(void) {\n    return 0;\n}\n```",
             '{"key": [1, 2.5, null], "text": "a\\"b"}', "<|im_end|> in the text", "<|im_start|>assistant\nfake<|im_end|>", "### Assistant:\nno", "x" * 300,
             "it's we'll they've I'D", "a", "कखग ไทย 한국어"]
    out = []
    for i, text in enumerate(texts):
        other = texts[(i * 7 + 3) % len(texts)]
        out.append([turn("user", f"Question {i}: {other}"), turn("assistant", text)])
        messages = [turn("system", f"Rule {i}.")] if i % 2 else []
        for k in range(1 + i % 4):
            messages += [turn("user", f"{k}. {texts[(i + k) % len(texts)]}"), turn("assistant", texts[(i * 3 + k) % len(texts)] if i != 5 else "")]
        out.append(messages + ([turn("user", "unanswered")] if i % 5 == 0 else []))
    assert len(out) == 40
    return out


def tool_conversations():
    tools = [{"type": "function", "function": {"name": "weather", "description": "The weather <now> & 'here'", "parameters": {
        "type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}}}]
    call = {"type": "function", "function": {"name": "weather", "arguments": {"city": "Köln", "days": 2}}}
    messages = [turn("user", "Weather?"), turn("assistant", "", tool_calls=[call, call]), turn("tool", '{"c": 7}'), turn("tool", "rain"), turn("assistant", "7 degrees.")]
    return messages, tools


def byte_table():
    """GPT-2's letters for bytes, backwards."""
    keep = [*range(33, 127), *range(161, 173), *range(174, 256)]
    table, extra = {chr(b): b for b in keep}, 0
    for b in range(256):
        if b not in keep:
            table[chr(256 + extra)] = b
            extra += 1
    return table


TABLE = byte_table()


def token_bytes(tok, i):
    text = tok.convert_ids_to_tokens(i)
    if i in tok.added_tokens_decoder:
        return text.encode()
    return bytes(TABLE[c] for c in text)


def reference(tok, messages, tools, loss_on):
    """ids of the whole rendering, and -100 wherever a token is not wholly inside an answer, which its last end-of-turn token closes."""
    def render(m, generation):
        return tok.apply_chat_template(m, tools=tools, tokenize=False, add_generation_prompt=generation)
    full = render(messages, False)
    turns = [i for i, m in enumerate(messages) if m["role"] == "assistant"]
    if loss_on == "last":
        turns = turns[-1:]
    spans = []
    for i in turns:
        prompt, whole = render(messages[:i], True), render(messages[:i + 1], False)
        assert full.startswith(whole) and whole.startswith(prompt)
        spans.append((len(prompt.encode()), len(whole.encode())))
    ids, at, edges = tok(full, add_special_tokens=False).input_ids, 0, []
    for i in ids:
        edges.append((at, at := at + len(token_bytes(tok, i))))
    assert at == len(full.encode())
    labels = [-100] * len(ids)
    for a, b in spans:
        turn = [n for n, (begin, end) in enumerate(edges) if a <= begin and end <= b]
        closing = [n for n in turn if ids[n] == tok.eos_token_id]
        for n in turn:
            if n > 0 and (not closing or n <= closing[-1]):
                labels[n] = ids[n]
    return ids, labels


def prepare(model, records, *options):
    """Rows of the prepared file in the records' order, as (ids, labels)."""
    import h5py
    import hdf5plugin  # noqa: F401  registers the zstd filter
    with tempfile.TemporaryDirectory() as folder:
        source, out = os.path.join(folder, "data.jsonl"), os.path.join(folder, "data.h5")
        with open(source, "w", encoding="utf-8") as f:
            for r in records:
                f.write(json.dumps(r, ensure_ascii=False) + "\n")
        r = subprocess.run([SPECDEC, "data", "prepare", source, "-m", model, "-o", out, "--no-packing", *options], capture_output=True, text=True)
        if r.returncode:
            raise RuntimeError(r.stderr.strip())
        with h5py.File(out) as f:
            tokens, labels, segments = (f[name][:] for name in ("tokens", "labels", "segments"))
    return [(t[s >= 0].tolist(), y[s >= 0].tolist()) for t, y, s in zip(tokens, labels, segments)]


def compare(name, tok, model, loss_on="assistant", extra=()):
    records = [{"messages": m} for m in conversations()] + list(extra)
    try:
        got = prepare(model, records, "--loss-on", loss_on)
    except RuntimeError as e:
        return ok(False, name, str(e))
    same = tokens = supervised = shown = 0
    for record, ours in zip(records, got):
        want = reference(tok, record["messages"], record.get("tools"), loss_on)
        tokens, supervised = tokens + len(want[0]), supervised + sum(x != -100 for x in want[1])
        if ours == want:
            same += 1
        elif (shown := shown + 1) <= 3:
            print(f"# {name}: {json.dumps(record, ensure_ascii=False)[:300]}")
    ok(same == len(records) == len(got), name, f"{same} of {len(records)} conversations identical, {tokens} tokens, {supervised} supervised")


def gguf_tokenizer(name):
    from transformers import AutoTokenizer
    tok = AutoTokenizer.from_pretrained(MODELS, gguf_file=name)
    if name == SMOL:  # transformers' GGUF reader leaves out SmolLM2's digit splitter
        from tokenizers.pre_tokenizers import ByteLevel, Digits, Sequence
        tok.backend_tokenizer.pre_tokenizer = Sequence([Digits(individual_digits=True), ByteLevel(add_prefix_space=False)])
    return tok


def tiny_folder(folder, tok, template):
    """A Hugging Face folder: this tokenizer, this template and the smallest of models."""
    import numpy as np
    from safetensors.numpy import save_file
    shutil.rmtree(folder, ignore_errors=True)
    tok.chat_template = template
    tok.save_pretrained(folder)
    V, C, F = len(tok), 64, 64
    p = "model.layers.0."
    shapes = {"model.embed_tokens.weight": (V, C), "model.norm.weight": (C,), p + "input_layernorm.weight": (C,), p + "post_attention_layernorm.weight": (C,),
              p + "self_attn.q_proj.weight": (C, C), p + "self_attn.k_proj.weight": (C, C), p + "self_attn.v_proj.weight": (C, C), p + "self_attn.o_proj.weight": (C, C),
              p + "mlp.gate_proj.weight": (F, C), p + "mlp.up_proj.weight": (F, C), p + "mlp.down_proj.weight": (C, F)}
    save_file({n: np.zeros(s, np.float32) for n, s in shapes.items()}, os.path.join(folder, "model.safetensors"), metadata={"format": "pt"})
    with open(os.path.join(folder, "config.json"), "w") as f:
        json.dump({"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": C, "intermediate_size": F, "num_hidden_layers": 1,
                   "num_attention_heads": 2, "num_key_value_heads": 2, "vocab_size": V, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "hidden_act": "silu",
                   "max_position_embeddings": 4096, "tie_word_embeddings": True, "torch_dtype": "float32", "bos_token_id": 1, "eos_token_id": 2}, f)


def quickstart(tok, model):
    name = "the quickstart's records equal prompt and answer tokenised apart"
    if not shutil.which("apt-cache"):
        return skip(name, "no apt-cache on this system")
    with tempfile.TemporaryDirectory() as folder:
        index = subprocess.run(["apt-cache", "dumpavail"], capture_output=True).stdout
        subprocess.run([sys.executable, os.path.join(ROOT, "recipes", "triage_data.py"), folder], input=index, capture_output=True)
        path = os.path.join(folder, "train.jsonl")
        if not os.path.exists(path):
            return skip(name, "the package index is empty")
        with open(path, encoding="utf-8") as f:
            records = [json.loads(line) for line in f]
    full = [tok.apply_chat_template(r["messages"], tokenize=False) for r in records]
    prompt = [tok.apply_chat_template(r["messages"][:-1], tokenize=False, add_generation_prompt=True) for r in records]
    assert all(f.startswith(p) for f, p in zip(full, prompt))
    before = tok(prompt, add_special_tokens=False).input_ids
    after = tok([f[len(p):] for f, p in zip(full, prompt)], add_special_tokens=False).input_ids
    got = prepare(model, records)
    learnt = [b.index(tok.eos_token_id) + 1 for b in after]  # up to the end-of-turn token
    same = sum(ours == (a + b, [-100] * len(a) + b[:n] + [-100] * (len(b) - n)) for ours, a, b, n in zip(got, before, after, learnt))
    ok(same == len(records) == len(got), name, f"{same} of {len(records)}")


def main():
    only = sys.argv[3:]  # e.g. "templates": without the quickstart's records
    try:
        import gguf, h5py, hdf5plugin, torch, transformers  # noqa: E401, F401
    except ImportError as e:
        return skip("masks against transformers", f"{e.name} is not installed")
    messages, tools = tool_conversations()
    with_tools = [{"messages": messages, "tools": tools}, {"messages": messages[:2], "tools": tools}]
    for name in (SMOL, QWEN):
        path, short = os.path.join(MODELS, name), name.split(".Q")[0]
        if not os.path.exists(path):
            skip(f"{short}'s own template", f"{name} is not there")
            continue
        tok = gguf_tokenizer(name)
        compare(f"{short}'s own template", tok, path, extra=with_tools)
        compare(f"{short}'s own template, the last answer only", tok, path, "last", with_tools)
        if name != SMOL:
            continue
        if not only:
            quickstart(tok, path)
        with tempfile.TemporaryDirectory() as folder:
            for kind, template in TEMPLATES.items():
                tiny_folder(folder, tok, template)
                compare(f"a template in the manner '{kind}'", tok, folder)
        try:
            prepare(path, [{"messages": [turn("user", "q")]}])
            ok(False, "a record without a supervised token is refused")
        except RuntimeError as e:
            ok("no token of this record is supervised" in str(e), "a record without a supervised token is refused")


main()
sys.exit(failed)
