#!/usr/bin/env python3
"""Writes tests/data/tokenizer_small.json, a byte-level BPE of 360 tokens trained on the lines below with Qwen 2's pattern and NFC, and tests/data/token_golden.json:
texts with the ids that Hugging Face's `tokenizers` gives them.

    make_token_golden.py DIR        (needs `tokenizers`)
"""
import json
import sys

from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers

QWEN2 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
TRAIN = ["the token of the text is in the table", "that then those there their", "    for (int i = 0; i < n; i++)\n", "a a aa aaa aaaa aaaaaaaa", "größe straße über"] * 20
TEXTS = ["", "a", "the table of the tokens", "aaaaaaaaaaaaa", "a" * 200, "x  1", "It's THEY'LL 'tis", "12345", "Größe e\u0301 \u00e9", "日本語 👨‍👩‍👧", "  \n\n \t x \r\n", "\u180e \u3000a",
         "<|end|>the<|end|>", "a<|end|", "  <tool> x", "\u1c89\U00011bc0", "int i = 0;\n    i++", "\x00\x07\x7f", "'ſ 'S", "the" * 100]

t = Tokenizer(models.BPE())
t.normalizer = normalizers.NFC()
t.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(QWEN2), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
t.train_from_iterator(TRAIN, trainers.BpeTrainer(vocab_size=360, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False))
t.add_special_tokens([AddedToken("<|end|>", special=True, normalized=False)])
t.add_tokens([AddedToken("<tool>", lstrip=True, normalized=False)])
t.save(f"{sys.argv[1]}/tokenizer_small.json", pretty=False)
with open(f"{sys.argv[1]}/token_golden.json", "w") as f:
    f.write("[\n" + ",\n".join(json.dumps({"text": s, "ids": t.encode(s, add_special_tokens=False).ids}) for s in TEXTS) + "\n]\n")
