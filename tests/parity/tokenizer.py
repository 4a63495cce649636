#!/usr/bin/env python3
"""Our token ids against Hugging Face's `tokenizers`, on text made here from a fixed seed: code, prose in many scripts, emoji, control characters, runs of
spaces and digits, random Unicode with unassigned and combining characters, a megabyte of one letter. Also tokenizer.json files with other pre-tokenisers,
normalisers and added tokens, invalid UTF-8, and decoding. SentencePiece's BPE is Gemma 3's, out of its GGUF file and as tokenizer.json in the spellings of
several families, and the vectors of vocabularies without weights.

    tokenizer.py SPECDEC MODELS_DIR

TAP on standard output. Needs transformers, tokenizers and gguf; what is missing is a printed skip. recipes/models.sh fetches gemma3-270m and vocabularies.
"""
import json
import os
import random
import sys
import tempfile
import unicodedata

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import token_common as common  # noqa: E402
from token_common import GEMMA, MODELS, Probe, hugging_face, ok, skip  # noqa: E402

SUITE = "tokenizer"
SPECDEC, FOLDER = sys.argv[1], sys.argv[2]

PROSE = [
    "The quick brown fox doesn't jump; it's the dog who'll be over the fence, and they've known I'd say so. We're DON'T SHOUTING, I'M NOT.",
    "Le cœur déçu mais l'âme plutôt naïve, Louÿs rêva de crapaüter en canoë au-delà des îles, près du mälström où brûlent les novæ.",
    "Съешь же ещё этих мягких французских булок, да выпей чаю. Ёлка, подъезд, объём — «кавычки» и тире.",
    "Ξεσκεπάζω την ψυχοφθόρα βδελυγμία. Το ποσό είναι 1.234,56 €.",
    "いろはにほへと ちりぬるを 我が世誰ぞ 常ならむ。カタカナと漢字、ｈａｌｆ－ｗｉｄｔｈ ﾊﾝｶｸ。",
    "我能吞下玻璃而不伤身体。北京时间2024年12月31日23时59分，价格为￥1,299.00元。",
    "다람쥐 헌 쳇바퀴에 타고파. 키스의 고유조건은 입술끼리 만나야 하고 특별한 기술은 필요치 않다.",
    "نص حكيم له سر قاطع وذو شأن عظيم مكتوب على ثوب أخضر ومغلف بجلد أزرق ١٢٣٤٥",
    "דג סקרן שט בים מאוכזב ולפתע מצא לו חברה איך הקליטה",
    "ऋषियों को सताने वाले दुष्ट राक्षसों के राजा रावण का सर्वनाश करने वाले विष्णुवतार भगवान श्रीराम ०१२३",
    "เป็นมนุษย์สุดประเสริฐเลิศคุณค่า กว่าบรรดาฝูงสัตว์เดรัจฉาน ๐๑๒๓๔",
    "Tiếng Việt: Con sói nâu nhảy qua con chó lười. Đường phố Hà Nội.",
    "Zwölf Boxkämpfer jagen Viktor quer über den großen Sylter Deich; Straße, Größe, ẞ.",
    "Pchnąć w tę łódź jeża lub ośm skrzyń fig. Příliš žluťoučký kůň úpěl ďábelské ódy.",
]
CODE = [
    'def f(x: int = 0) -> "str":\n\treturn f"{x:>08.3f}" if x != 1e-9 else None  # 0xDEADBEEF\n\n\n',
    "for (size_t i = 0; i < n; ++i) {\n    sum += a[i] * b[i];   // dot\n}\r\n\r\n",
    "SELECT id, COUNT(*) FROM t WHERE x >= 10 AND name LIKE '%\\_%' GROUP BY 1;\n",
    "<div class=\"a b\" id='x'>&nbsp;&lt;p&gt;</div>\n<!-- comment -->\n",
    '{"a": [1, 2.5e10, null, true], "b": {"c": "\\u00e9\\n"}}\n',
    "#!/bin/sh\nset -eu\nx=$(ls -la | awk '{print $5}')\n[ -n \"$x\" ] && echo \"$x\" >&2\n",
    "fn main() { let v: Vec<_> = (0..100).map(|x| x * 2).collect(); println!(\"{:?}\", v); }\n",
    "\\begin{equation} \\sum_{i=1}^{n} x_i^2 = \\frac{1}{2} \\end{equation}\n",
    "https://example.com/path?q=a%20b&x=1#frag user@host.org C:\\Users\\me\\file.txt v1.2.3-rc.4+build5\n",
]
EMOJI = ["👨‍👩‍👧‍👦", "🏳️‍🌈", "👍🏽", "🇩🇪🇫🇷", "❤️‍🔥", "1️⃣", "🧑🏿‍💻", "☕️", "©®™", "🫠🪿🫨", "\u200d", "\ufe0f"]
SPACES = [" ", "  ", "   ", "\n", "\n\n", "\r\n", "\r", "\t", "\t\t", "\v", "\f", "\x85", "\xa0", "\u1680", "\u180e", "\u2003", "\u2028", "\u2029",
          "\u202f", "\u205f", "\u3000", "\u200b", "\ufeff", "\x1c", "\x1f", " \n ", "\n \n"]


def random_code_point(r):
    while True:
        c = r.choice((r.randrange(0x80), r.randrange(0x800), r.randrange(0x3000), r.randrange(0x10000), r.randrange(0x20000), r.randrange(0x110000)))
        if not 0xD800 <= c < 0xE000:
            return chr(c)


def corpus(seed=7):
    """(name, [texts])"""
    r = random.Random(seed)
    combining = [chr(c) for c in range(0x300, 0x370)] + [chr(c) for c in (0x591, 0x64B, 0x93C, 0xE31, 0x20D0, 0x3099)]

    def mixed(n):
        parts = []
        for _ in range(n):
            k = r.random()
            if k < 0.35:
                words = r.choice(PROSE).split(" ")
                i = r.randrange(len(words))
                parts.append(" ".join(words[i:i + r.randrange(1, 12)]))
            elif k < 0.55:
                parts.append(r.choice(CODE)[r.randrange(8):])
            elif k < 0.65:
                parts.append(r.choice(EMOJI))
            elif k < 0.75:
                parts.append(r.choice(SPACES) * r.choice((1, 1, 1, 2, 3, 7, 20)))
            elif k < 0.82:
                parts.append("".join(r.choice("0123456789") for _ in range(r.randrange(1, 25))))
            elif k < 0.88:
                parts.append("".join(r.choice("!?.,;:'\"()[]{}<>@#$%^&*-_=+/\\|`~") for _ in range(r.randrange(1, 12))))
            elif k < 0.94:
                parts.append("".join(random_code_point(r) for _ in range(r.randrange(1, 8))))
            else:
                parts.append(r.choice("aeiouAnק나कあ") + "".join(r.choice(combining) for _ in range(r.randrange(1, 6))))
        return "".join(p + r.choice(("", "", " ", " ", "\n")) for p in parts)

    yield "prose in 14 scripts", ["\n".join(r.sample(PROSE, len(PROSE))) * 4 for _ in range(20)]
    yield "code", ["".join(r.choice(CODE) for _ in range(60)) for _ in range(20)]
    yield "everything mixed", [mixed(400) for _ in range(60)]
    yield "short texts", [mixed(r.randrange(1, 4)) for _ in range(1500)]
    yield "every code point", ["".join(map(chr, range(a, a + 4096))) for a in range(0, 0x110000, 4096) if not 0xD800 <= a < 0xE000
                               and a not in (0xD000,)] + ["".join(map(chr, range(0xD000, 0xD800)))]
    yield "every code point of the first planes between letters and spaces", [
        "".join(f"a{chr(c)} {chr(c)}{chr(c)}b" for c in range(a, a + 512) if not 0xD800 <= c < 0xE000) for a in range(0, 0x20000, 512)]
    yield "control characters", ["".join(chr(r.randrange(32)) + r.choice(("", "x", " ")) for _ in range(500)) for _ in range(10)]
    yield "white space runs", ["".join(r.choice(SPACES) * r.randrange(1, 9) + r.choice(("", "", "a", "1", ".")) for _ in range(300)) for _ in range(30)]
    yield "digit runs", ["".join(r.choice("0123456789²½Ⅷ٣५৭๓①一〇") for _ in range(r.randrange(1, 400))) + " " for _ in range(100)]
    yield "contractions", ["".join(r.choice(("'s", "'S", "'t", "'RE", "'ve", "'m", "'LL", "'d", "'ſ", "’s", "x", "I", " ", "'")) for _ in range(300)) for _ in range(20)]
    yield "runs of one character", ["a" * 5000, " " * 5001, "\n" * 4999, "1" * 3000, "é" * 3000, "字" * 3000, "." * 5003, "ab" * 4000, "=-" * 3000]
    yield "a megabyte of one letter", ["a" * 1_000_000]
    yield "half a megabyte of spaces", [" " * 500_000]
    yield "a long word of random letters", ["".join(r.choice("abcdefghijklmnopqrstuvwxyz") for _ in range(300_000))]
    yield "added tokens in the text", ["".join(r.choice(("<|im_start|>", "<|im_end|>", "<|endoftext|>", "<tool_call>", "</tool_call>", "<|fim_prefix|>",
                                                        "<repo_name>", "<file_sep>", "<", "|", "<|im_", "user\n", " ", "a", "é")) for _ in range(200)) for _ in range(50)]


def first_difference(a, b):
    for i, (x, y) in enumerate(zip(a, b)):
        if x != y:
            return i
    return min(len(a), len(b))


def compare(probe, encode, texts, special=True):
    """(texts that differ, tokens, a note on the first difference)"""
    bad, tokens, note = 0, 0, ""
    for text in texts:
        want = encode(text)
        got = probe("ids", text=text, special=special)
        tokens += len(want)
        if got.get("ids") != want:
            bad += 1
            if not note:
                i = first_difference(want, got.get("ids", []))
                note = f"{got.get('error', '')} token {i}: want {want[i:i + 6]}, got {got.get('ids', [])[i:i + 6]} in {text[:60]!r}"
    return bad, tokens, note


def check_corpus(probe, backend, title, categories=None, keep=lambda text: True):
    total = size = 0
    for name, texts in corpus():
        if categories and name not in categories:
            continue
        texts = [t for t in texts if keep(t)]
        bad, tokens, note = compare(probe, lambda s: backend.encode(s, add_special_tokens=False).ids, texts)
        total += tokens
        size += sum(len(t.encode()) for t in texts)
        ok(bad == 0, SUITE, f"{title}: {name}", f"{len(texts)} texts, {tokens} tokens" + (f"; {bad} differ: {note}" if bad else ""))
    print(f"# {title}: {size} bytes, {total} tokens")


def check_model(probe, name):
    hf = hugging_face(FOLDER, name)
    backend = hf.backend_tokenizer
    r = probe("open", path=os.path.join(FOLDER, name))
    ok("error" not in r, SUITE, f"{name} opens", r.get("error", ""))
    check_corpus(probe, backend, name)
    # Special tokens as plain text.
    backend.encode_special_tokens = True
    texts = dict(corpus())["added tokens in the text"]
    bad, tokens, note = compare(probe, lambda s: backend.encode(s, add_special_tokens=False).ids, texts, special=False)
    ok(bad == 0, SUITE, f"{name}: special tokens as plain text", f"{tokens} tokens {note}")
    backend.encode_special_tokens = False
    check_bytes(probe, backend, name)
    check_decoding(probe, backend, name)
    if name != MODELS[2]:  # the tokenizer of the other Qwen
        check_json(probe, backend, name)


def check_bytes(probe, backend, name):
    r = random.Random(11)
    bad = 0
    for _ in range(400):
        raw = bytearray("".join(r.choice(PROSE)[:40] + r.choice(EMOJI) for _ in range(3)).encode())
        for _ in range(r.randrange(1, 12)):
            raw[r.randrange(len(raw))] = r.choice((r.randrange(256), 0xC0, 0xED, 0xF4, 0xF0, 0xE2, 0x80))
        raw = bytes(raw[:r.randrange(1, len(raw))])
        want = backend.encode(raw.decode("utf-8", errors="replace"), add_special_tokens=False).ids
        bad += probe("ids", hex=raw.hex(), special=True).get("ids") != want
    ok(bad == 0, SUITE, f"{name}: bytes that are not UTF-8 are replaced as by Python", f"400 texts, {bad} differ")


def check_decoding(probe, backend, name):
    r = random.Random(13)
    bad = 0
    for i in range(400):
        ids = [r.randrange(backend.get_vocab_size()) for _ in range(r.randrange(1, 60))]
        skip_special = i % 2 == 1
        bad += probe("decode", ids=ids, skip=skip_special)["text"] != backend.decode(ids, skip_special_tokens=skip_special)
    ok(bad == 0, SUITE, f"{name}: random ids decode to the same text", f"400 sequences, {bad} differ")


# ---- tokenizer.json, as saved and with other parts

GPT4O = (r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
         r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
         r"\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+")
LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")


def split(pattern, behavior="Isolated", invert=False, kind="Regex"):
    return {"type": "Split", "pattern": {kind: pattern}, "behavior": behavior, "invert": invert}


def byte_level(regex=False, prefix=False):
    return {"type": "ByteLevel", "add_prefix_space": prefix, "trim_offsets": True, "use_regex": regex}


def sequence(*parts):
    return {"type": "Sequence", "pretokenizers": list(parts)}


def variants(base):
    def variant(**parts):
        return {**base, **parts}

    model = base["model"]
    yield "as saved", variant()
    yield "NFC", variant(normalizer={"type": "NFC"})
    yield "NFKC", variant(normalizer={"type": "NFKC"})
    yield "NFD", variant(normalizer={"type": "Sequence", "normalizers": [{"type": "NFD"}]})
    yield "Llama 3's pattern, merges ignored", variant(pre_tokenizer=sequence(split(LLAMA3), byte_level()), model={**model, "ignore_merges": True})
    yield "GPT-4o's pattern", variant(pre_tokenizer=sequence(split(GPT4O), byte_level()))
    yield "a space in front", variant(pre_tokenizer=byte_level(regex=True, prefix=True))
    yield "runs of digits", variant(pre_tokenizer=sequence({"type": "Digits", "individual_digits": False}, byte_level(regex=True)))
    for behavior in ("Removed", "MergedWithPrevious", "MergedWithNext", "Contiguous"):
        yield f"Split {behavior}", variant(pre_tokenizer=sequence(split(r"\d|\s\p{Lu}?", behavior), byte_level(regex=True)))
    yield "Split inverted", variant(pre_tokenizer=sequence(split(r"\w+|[^\w\s]+", "Removed", True), byte_level()))
    yield "Split at a string", variant(pre_tokenizer=sequence(split(" ", "MergedWithNext", kind="String"), byte_level()))
    yield "scripts and lines", variant(pre_tokenizer=sequence(split(r"\p{Han}+|\p{Hangul}|^\s*#.*$|[一-龥]|\d{2}\b|\S\h*"), byte_level()))
    top = max(max(model["vocab"].values()), max(t["id"] for t in base["added_tokens"]))
    more = []
    for i, (text, flags) in enumerate([("fox", {"single_word": True}), ("<l>", {"lstrip": True}), ("<r>", {"rstrip": True}), ("<lr>", {"lstrip": True, "rstrip": True}),
                                       ("é", {"normalized": True}), ("don", {}), ("don't", {}), ("日本", {"normalized": True, "single_word": True}), ("<long|", {}), ("<long|er>", {})]):
        known = model["vocab"].get(text)  # Hugging Face numbers what is new one after the other
        new_id = top + 1 + sum(t["content"] not in model["vocab"] for t in more) if known is None else known
        more.append({"id": new_id, "content": text, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": i % 2 == 0, **flags})
    yield "more added tokens", variant(added_tokens=base["added_tokens"] + more)
    yield "more added tokens and NFC", variant(added_tokens=base["added_tokens"] + more, normalizer={"type": "NFC"})


def added_texts():
    r = random.Random(17)
    parts = ["fox", "foxes", "a fox", "<l>", "  <l>", "<r>  ", " <lr> \n", "é", "e\u0301", "don't", "don", "日本", "日本語", " ", "\u3000", "x", "<long|er>", "<long|e", "<|im_end|>"]
    return ["".join(r.choice(parts) for _ in range(r.randrange(1, 40))) for _ in range(400)]


def check_json(probe, backend, name):
    from tokenizers import Tokenizer

    base = json.loads(backend.to_str())
    some = ["everything mixed", "short texts", "white space runs", "digit runs", "contractions"]
    # The version of Unicode that normalisation knows differs for new characters: those are compared without it.
    texts = [t for k, v in corpus() if k in some for t in (v[:12] if k == "everything mixed" else v[:300])] + added_texts()
    old = [t for t in texts if all(unicodedata.category(c) != "Cn" for c in t)]
    with tempfile.TemporaryDirectory() as folder:
        for title, data in variants(base):
            path = os.path.join(folder, "tokenizer.json")
            with open(path, "w") as f:
                json.dump(data, f)
            hf = Tokenizer.from_file(path)
            r = probe("open", path=path)
            if "error" in r:
                ok(False, SUITE, f"{name}, tokenizer.json {title}", r["error"])
                continue
            use = old if data.get("normalizer") else texts
            bad, tokens, note = compare(probe, lambda s: hf.encode(s, add_special_tokens=False).ids, use)
            ok(bad == 0, SUITE, f"{name}, tokenizer.json {title}", f"{len(use)} texts, {tokens} tokens {note}")


# ---- pieces: SentencePiece's BPE

MARK = "\u2581"


def pieces_variants(base):
    """tokenizer.json as Llama 2, Phi 3, Mistral and Gemma spell theirs."""
    replace = {"type": "Replace", "pattern": {"String": " "}, "content": MARK}
    prepend = {"type": "Prepend", "prepend": MARK}
    strip = {"type": "Strip", "content": " ", "start": 1, "stop": 0}
    stripping = {**base["decoder"], "decoders": base["decoder"]["decoders"][:3] + [strip]}

    def metaspace(**parts):
        return {"normalizer": None, "pre_tokenizer": {"type": "Metaspace", "replacement": MARK, "prepend_scheme": "always", "split": False, **parts}}

    yield "as saved", base
    yield "Prepend and Replace, no pre_tokenizer", {**base, "normalizer": {"type": "Sequence", "normalizers": [prepend, replace]}, "pre_tokenizer": None, "decoder": stripping}
    yield "Metaspace at the beginning", {**base, **metaspace(prepend_scheme="first"), "decoder": stripping}
    yield "Metaspace everywhere", {**base, **metaspace(), "decoder": stripping}
    yield "Metaspace without a prefix", {**base, **metaspace(prepend_scheme="never")}
    yield "Metaspace that splits", {**base, **metaspace(split=True), "decoder": stripping}
    yield "NFKC first", {**base, "normalizer": {"type": "Sequence", "normalizers": [{"type": "NFKC"}, prepend, replace]}, "decoder": stripping}
    vocab = {k: v for k, v in base["model"]["vocab"].items() if k not in ("<0xE2>", "<0xF0>")}
    for fuse in (True, False):
        yield f"without all bytes, fuse_unk {fuse}", {**base, "model": {**base["model"], "vocab": vocab, "fuse_unk": fuse}}
    words = {k: v for k, v in base["model"]["vocab"].items()}
    yield "merges ignored for whole words", {**base, **metaspace(split=True), "decoder": stripping, "model": {**base["model"], "vocab": words, "ignore_merges": True}}
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": False}
    top = max(max(base["model"]["vocab"].values()), max(t["id"] for t in base["added_tokens"])) + 1
    more = [{"id": top, "content": "<r>", **flags, "rstrip": True}, {"id": top + 1, "content": "a fox", **flags, "normalized": True}]
    for title, parts in (("Replace", {}), ("Metaspace", {**metaspace(prepend_scheme="first"), "decoder": stripping})):
        yield f"more added tokens, {title}", {**base, **parts, "added_tokens": base["added_tokens"] + more}


def check_pieces_json(probe, backend, name):
    from tokenizers import Tokenizer

    base = json.loads(backend.to_str())
    some = ["everything mixed", "short texts", "white space runs", "digit runs", "runs of one character"]
    texts = [t for k, v in corpus() if k in some for t in (v[:12] if k == "everything mixed" else v[:300])] + added_texts()
    texts += ["", " ", "  ", MARK, MARK + "a", " " + MARK + " a", "a" + MARK, "<eos>", " <eos>a", "a<eos> b<eos>"]
    old = [t for t in texts if all(unicodedata.category(c) != "Cn" for c in t)]
    with tempfile.TemporaryDirectory() as folder:
        for title, data in pieces_variants(base):
            path = os.path.join(folder, "tokenizer.json")
            with open(path, "w") as f:
                json.dump(data, f)
            hf = Tokenizer.from_file(path)
            r = probe("open", path=path)
            if "error" in r:
                ok(False, SUITE, f"{name}, tokenizer.json {title}", r["error"])
                continue
            use = old if "NFKC" in title else texts
            bad, tokens, note = compare(probe, lambda s: hf.encode(s, add_special_tokens=False).ids, use)
            wrong = 0
            for text in use:
                ids = hf.encode(text, add_special_tokens=False).ids
                for skip_special in (False, True):
                    wrong += probe("text", ids=ids, skip=skip_special)["text"] != hf.decode(ids, skip_special_tokens=skip_special)
            ok(bad == 0 and wrong == 0, SUITE, f"{name}, tokenizer.json {title}", f"{len(use)} texts, {tokens} tokens, {wrong} decoded otherwise {note}")


def check_gemma(probe):
    name = GEMMA
    backend = hugging_face(FOLDER, name).backend_tokenizer
    r = probe("open", path=os.path.join(FOLDER, name))
    ok("error" not in r, SUITE, f"{name} opens", r.get("error", ""))
    # Transformers makes long runs of spaces by merging. SentencePiece, by which the model was trained, and llama.cpp take the longest user-defined piece.
    check_corpus(probe, backend, name, keep=lambda text: " " * 32 not in text)
    check_gemma_runs(probe, name)
    backend.encode_special_tokens = True
    texts = ["".join(parts) for parts in zip(["<bos>", "a<end_of_turn>", "<unused7> <eos>", "<0x41>", "<pad>"] * 40, [t for t in dict(corpus())["short texts"]])]
    bad, tokens, note = compare(probe, lambda s: backend.encode(s, add_special_tokens=False).ids, texts, special=False)
    ok(bad == 0, SUITE, f"{name}: special tokens as plain text", f"{tokens} tokens {note}")
    backend.encode_special_tokens = False
    check_bytes(probe, backend, name)
    # Text that came out of valid text decodes as Hugging Face decodes it. (Bytes that are no character are replaced one by one there, by maximal parts here.)
    r = random.Random(13)
    bad = 0
    for text in dict(corpus())["short texts"][:400]:
        ids = backend.encode(text, add_special_tokens=False).ids
        r.shuffle(ids)
        data = backend.decode(ids, skip_special_tokens=False)
        bad += "\ufffd" not in data and probe("decode", ids=ids, skip=False)["text"] != data
    ok(bad == 0, SUITE, f"{name}: shuffled ids decode to the same text", f"400 sequences, {bad} differ")
    check_pieces_json(probe, backend, name)


def check_gemma_runs(probe, name):
    title = f"{name}: runs of white space equal llama.cpp's"
    try:
        import llama_cpp
    except ImportError:
        skip(SUITE, title, "llama_cpp is not installed")
        return
    vocab = llama_cpp.Llama(os.path.join(FOLDER, name), vocab_only=True, verbose=False)
    texts = [before + space * n + behind for space in (" ", "\n", "\t") for n in range(1, 201) for before, behind in (("", ""), ("a", "b"), ("(", "\n"), ("", "x"))]
    bad, tokens, note = compare(probe, lambda s: vocab.tokenize(s.encode(), add_bos=False, special=False), texts)
    ok(bad == 0, SUITE, title, f"{len(texts)} texts, {tokens} tokens {note}")


def check_vectors(probe):
    folder = os.path.join(FOLDER, "vocabularies")
    for name in ("llama-spm", "phi-3", "llama-bpe", "gpt-2", "qwen2", "qwen35"):
        path = os.path.join(folder, f"ggml-vocab-{name}.gguf")
        title = f"{name}: the vectors beside its vocabulary"
        if not os.path.exists(path):
            skip(SUITE, title, f"{path} is not there: recipes/models.sh vocabularies")
            continue
        r = probe("open", path=path)
        with open(path + ".inp", encoding="utf-8", newline="") as f:
            texts = f.read().split("\n__ggml_vocab_test__\n")
        with open(path + ".out", encoding="utf-8") as f:
            wants = [[int(x) for x in line.split()] for line in f.read().split("\n")]
        bad = sum(probe("ids", text=t, special=False).get("ids") != w for t, w in zip(texts, wants))
        ok("error" not in r and bad == 0 and len(texts) == len(wants) > 40, SUITE, title, f"{len(texts)} texts, {bad} differ {r.get('error', '')}")


def check_pre_names(probe):
    """The pre-tokenisers that a GGUF file names: one vocabulary with another name each, against transformers' pattern for it."""
    from tokenizers import Regex, pre_tokenizers
    from transformers.integrations.gguf.gguf_tokenizer_mapping import GGUF_PRE_TOKENIZER_SPLITS

    source = os.path.join(FOLDER, "vocabularies", "ggml-vocab-qwen2.gguf")
    names = ("llama-bpe", "qwen2", "deepseek-r1-qwen", "qwen35", "gpt-4o", "tekken")
    if not os.path.exists(source):
        skip(SUITE, "pre-tokenisers by name", f"{source} is not there: recipes/models.sh vocabularies")
        return
    backend = hugging_face(os.path.dirname(source), os.path.basename(source)).backend_tokenizer
    base = json.loads(backend.to_str())
    some = ["prose in 14 scripts", "code", "everything mixed", "short texts", "white space runs", "digit runs", "contractions"]
    texts = [t for k, v in corpus() if k in some for t in (v[:12] if k == "everything mixed" else v[:300])]
    with open(source, "rb") as f:
        data = f.read()
    key = b"tokenizer.ggml.pre"
    at = data.index(key) + len(key) + 4  # then the name: its length, its bytes
    end = at + 8 + int.from_bytes(data[at:at + 8], "little")
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "v.gguf")
        for name in names:
            with open(path, "wb") as f:
                f.write(data[:at] + len(name).to_bytes(8, "little") + name.encode() + data[end:])
            r = probe("open", path=path)
            ignores = name in ("llama-bpe", "tekken")  # as their tokenizer.json has it
            hf = type(backend).from_str(json.dumps({**base, "model": {**base["model"], "ignore_merges": ignores}}))
            hf.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(GGUF_PRE_TOKENIZER_SPLITS[name]), "isolated"),
                                                        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
            bad, tokens, note = compare(probe, lambda s: hf.encode(s, add_special_tokens=False).ids, texts)
            ok("error" not in r and bad == 0, SUITE, f"pre-tokeniser {name} of a GGUF file", f"{len(texts)} texts, {tokens} tokens {r.get('error', '')} {note}")


def main():
    try:
        import gguf  # noqa: F401
        import tokenizers  # noqa: F401
        import transformers  # noqa: F401
    except ImportError as e:
        skip(SUITE, "ids equal Hugging Face's", f"{e.name} is not installed")
        return 0
    probe = Probe(SPECDEC)
    for name in MODELS:
        if os.path.exists(os.path.join(FOLDER, name)):
            check_model(probe, name)
        else:
            skip(SUITE, f"{name}: ids equal Hugging Face's", f"{name} is not in {FOLDER}")
    if os.path.exists(os.path.join(FOLDER, GEMMA)):
        check_gemma(probe)
    else:
        skip(SUITE, f"{GEMMA}: ids equal Hugging Face's", f"{GEMMA} is not in {FOLDER}: recipes/models.sh gemma3-270m")
    check_vectors(probe)
    check_pre_names(probe)
    return 1 if common.failed else 0


if __name__ == "__main__":
    sys.exit(main())
