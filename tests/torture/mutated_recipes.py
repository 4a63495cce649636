#!/usr/bin/env python3
"""Recipes, key=value overrides, configurations of serve and of models with mistakes in them, from a grammar.

    mutated_recipes.py SPECDEC [--full] [--seed N] [--show]

--full: 1,000 mutants, every one through the command line as well, and 1,000 configurations of serve (about two minutes); otherwise a sample of all kinds within seconds.
Each mutant carries what must come of it:

    refused    exit code 2, one sentence that names file:line:column at the changed line, or the override, or the file and its key
    same       provably harmless: the resolved values (of a configuration: the logits) are those of the original, or it is refused as above
    only K V   exactly the key K changed, to V, or it is refused

Anything else is a silent mistake. TAP on standard output. Needs tests/recipe_probe and tests/make_tiny_model beside the binary (the target unit_tests).
"""
import copy
import json
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "e2e", "lib"))
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
from options import parser  # noqa: E402
import serve_mutants  # noqa: E402

options = parser(__doc__, full=True)
options.add_argument("--seed", type=int, default=20)
options.add_argument("--show", action="store_true", help="what is said of each mutant")
options = options.parse_args()
BINARY, FULL, SHOW, SEED = os.path.abspath(options.binary), options.full, options.show, options.seed
TESTS = os.path.join(os.path.dirname(BINARY), "tests")
rng = random.Random(SEED)

# The base recipe: one key a line, so that a mutant's line is known. (section, key, value, kind, what else it may be)
KEYS = [
    ("", "recipe", "1", "int", (1, 1)), ("", "name", "mutant", "name", None), ("", "seed", "7", "int", (0, 2**53)),
    ("", "deterministic", "true", "bool", None),
    ("base", "model", "tiny.gguf", "path", None), ("base", "sha256", "null", "text?", None), ("base", "compute_dtype", "fp32", "enum", ["auto", "fp32"]),
    ("adapter", "type", "lora", "enum", ["lora"]), ("adapter", "r", "4", "int", (1, 256)), ("adapter", "alpha", "8", "float", (1e-6, 1e6)),
    ("adapter", "dropout", "0.0", "float", (0, 0)), ("adapter", "target_modules", "[q_proj, v_proj]", "list", None),
    ("adapter", "rank_pattern", "{q_proj: 2}", "map", None), ("adapter", "scaling", "standard", "enum", ["standard", "rslora"]),
    ("adapter", "lr_ratio", "2.0", "float", (1e-3, 1e3)), ("adapter", "from", "null", "text?", None),
    ("data", "train", "[{path: data.jsonl, format: completion}]", "sources", None), ("data", "val_size", "0.1", "float", (0, 0.5)),
    ("data", "loss_on", "assistant", "enum", ["assistant", "last", "all"]), ("data", "train_on_eot", "turn", "enum", ["turn", "none"]),
    ("data", "sequence_len", "64", "int", (8, 1048576)), ("data", "overlong", "error", "enum", ["error", "skip", "truncate"]),
    ("data", "packing", "true", "bool", None), ("data", "shuffle", "false", "bool", None), ("data", "prepared", "null", "text?", None),
    ("data", "on_empty_labels", "error", "enum", ["error", "skip"]), ("data", "max_records", "null", "int?", (1, 10**12)),
    ("train", "epochs", "2", "int", (1, 100000)), ("train", "max_steps", "null", "int?", (1, 10**9)), ("train", "batch_rows", "3", "int", (1, 10**6)),
    ("train", "learning_rate", "2.0e-4", "float", (1e-12, 10)), ("train", "weight_decay", "0.1", "float", (0, 10)),
    ("train", "adam_beta1", "0.8", "float", (0, 0.999999)), ("train", "lr_scheduler", "linear", "enum", ["cosine", "linear", "constant"]),
    ("train", "warmup_ratio", "0.05", "float", (0, 1)), ("train", "max_grad_norm", "1.0", "float?", (1e-6, 1e9)),
    ("train", "recompute", "none", "enum", ["auto", "none", "attn", "block"]), ("train", "optimizer", "adamw", "enum", ["adamw"]),
    ("eval", "every", "3/epoch", "every", None), ("eval", "patience", "null", "int?", (1, 10**6)), ("eval", "keep_best", "true", "bool", None),
    ("checkpoint", "every", "50", "int", (1, 10**9)), ("checkpoint", "keep", "2", "int", (1, 1000)), ("log", "every", "2", "int", (1, 10**6)),
    ("log", "sinks", "[csv, plot]", "list", None), ("draft", "index", "true", "bool", None), ("export_verify", "prompts", "2", "int", (0, 100000)),
    ("export_verify", "max_kl", "1.0e-3", "float", (0, 100)), ("device", "kind", "cpu", "enum", ["auto", "cpu"]), ("device", "threads", "1", "int", (1, 256)),
    ("device", "memory_limit", "4GiB", "size", None),
]
NAMES = {}
for s, k, *_ in KEYS:
    NAMES.setdefault(s, set()).add(k)
# Further keys of the schema: a misspelling must not hit one.
NAMES["adapter"] |= {"alpha_pattern", "init"}
NAMES["data"] |= {"eval", "chat_template"}
NAMES["train"] |= {"batch_tokens", "micro_batch_tokens", "adam_beta2", "adam_epsilon", "warmup_steps", "min_lr_ratio", "neftune_alpha"}
NAMES["checkpoint"] |= {"resume"}
NAMES["draft"] |= {"model"}
NAMES["export_verify"] |= {"top1"}
NAMES[""] |= {"export", *NAMES}


def lines_of(keys):
    out, section = [], ""
    for s, k, v, *_ in keys:
        if s != section:
            out.append(f"{s}:")
            section = s
        out.append(f"{'  ' if s else ''}{k}: {v}")
    return out


BASE = lines_of(KEYS)


def line_of(i):
    """The index into BASE of KEYS[i]."""
    return len(lines_of(KEYS[:i + 1])) - 1


class Mutant:
    def __init__(self, kind, text=None, overrides=(), expect="refused", key=None, value=None, line=None):
        self.kind, self.text, self.overrides, self.expect, self.key, self.value, self.line = kind, text, list(overrides), expect, key, value, line


def joined(lines, eol="\n"):
    return (eol.join(lines) + eol).encode()


def replaced(i, value, key=None):
    lines = list(BASE)
    s, k = KEYS[i][:2]
    lines[line_of(i)] = f"{'  ' if s else ''}{key or k}: {value}"
    return joined(lines)


def dotted(i):
    return ".".join(x for x in KEYS[i][:2] if x)


def misspelled(word, known):
    while True:
        at = rng.randrange(len(word))
        w = rng.choice([word[:at] + word[at + 1:], word[:at] + word[at] + word[at:], word[:at] + rng.choice("abcdefghijklmnopqrstuvwxyz_") + word[at + 1:],
                        word[:at] + word[at:at + 2][::-1] + word[at + 2:], word.upper(), word.replace("_", "-"), word + "s", word.replace("a", "\u0430", 1)])
        if w and w != word and w not in known:
            return w


def bad_values(i):
    """Values that mean nothing for this key."""
    kind, more = KEYS[i][3:]
    common = ["[1, 2, 3]", "{a: 1}", "&x 5", "*x", "!!str 5", "!py 5", "\"\\0\"", "[", "{", "'", "\"", "%x", "@x", "`x`", "a: b", "- 1", "? x", "|\n    x: y", "<<: 1"]
    number = ["abc", "'4'", "\"4\"", "0x10", "0o7", "010", "1_000", "1,000", "4 tokens", "4k", "4%", "1e999", "-1e999", ".inf", ".nan", "nan", "true", "yes", "--4", "4-", "1:30", "\u0664"]
    flag = ["'true'", "y", "n", "1", "0", "truee", "tRue", "enabled", "null", "~", "", "t", "True()"]
    if kind.startswith("int"):
        low, high = more
        out = number + ["2.5", "-3", "1e3", str(low - 1), str(high * 10 + 1), "99999999999999999999"] + (["0"] if low > 0 else [])
        out += [] if kind.endswith("?") or dotted(i) == "train.batch_rows" else ["null", "~", "Null", "", "auto" if dotted(i) != "device.threads" else "autoo"]
    elif kind.startswith("float"):
        low, high = more
        out = number + ["1.2.3", "1e", "e5", str(low - 1), repr(high * 2 + 1), "0,5"] + ([] if kind.endswith("?") else ["null", "auto", ""])
    elif kind == "bool":
        out = flag
    elif kind == "enum":
        out = [misspelled(more[-1], more), more[-1].capitalize() + "X", "true", "false", "1", "null", "", f"{more[-1]}|{more[0]}"]
    elif kind == "name":
        out = ["", "a/b", "..", ".hidden", "a b", "\u201cx\u201d", "x" * 65, "null", "~", "é"]
    elif kind == "every":
        out = ["0", "-5", "4/day", "4 / epoch", "epoch", "1.5/epoch", "/epoch", "null", "4/epochs", "99999999999"]
    elif kind == "size":
        out = ["lots", "8 GiBs", "-8GiB", "8GiB8", "1KiB", "0", "8e9x", "1.2.3GiB", "GiB", "9999999TiB"]
    elif kind == "list":
        out = ["[[a]]", "[{a: b}]", "[a, a]", "[null]", "[\"\"]"] + (["[csv, tensorboard]", "[csvv]", "csv, plot"] if KEYS[i][1] == "sinks" else ["[]"])
    elif kind == "map":
        out = ["[q_proj]", "{q_proj: 0}", "{q_proj: 1.5}", "{q_proj: x}", "{q_proj: 2, q_proj: 3}", "{q_proj: '2'}", "{q_proj: null}", "{q_proj: [2]}", "5", "{q_proj: -1}", "{q_proj: 99999}"]
    elif kind == "sources":
        out = ["data.jsonl", "{path: data.jsonl}", "[{pth: data.jsonl}]", "[{path: data.jsonl, format: completions}]", "[{path: data.jsonl, weight: 2}]", "[{path: data.jsonl, wieght: 1}]",
               "[{format: text}]", "[{path: null}]", "[{path: \"\"}]", "[[data.jsonl]]", "[{path: [a]}]", "5", "[{path: data.jsonl, path: data.jsonl}]", "[null]"]
    elif kind == "text?":
        out = {"base.sha256": ["x", "'00'", "A" * 64, "None", "none", "nil"], "adapter.from": ["None", "none", "nil"], "data.prepared": ["None", "none", "nil"]}[dotted(i)]
    else:
        out = []
    own = {"list": {"[1, 2, 3]"}, "map": {"{a: 1}"}, "sources": {"- 1", "[1, 2, 3]"}}.get(kind, set())
    skip = {"|\n    x: y"} if kind in ("path", "text?") else set()
    return [v for v in common if v not in own | skip and not (kind == "list" and v == "[1, 2, 3]")] + out


def good_values(i):
    """Other spellings of the same value, and other values: (text, expectation, value in the resolved recipe)."""
    value, kind, more = KEYS[i][2:]
    out = []
    if kind == "bool":
        yes, no = ["true", "True", "TRUE", "yes", "Yes", "YES", "on", "On", "ON"], ["false", "False", "FALSE", "no", "No", "NO", "off", "Off", "OFF"]
        out += [(v, "same", None) for v in (yes if value == "true" else no)]
        if KEYS[i][1] not in ("deterministic",):
            out += [(v, "only", "false" if value == "true" else "true") for v in (no if value == "true" else yes)]
    if kind.endswith("?"):
        out += [(v, "same", None) for v in ("null", "Null", "NULL", "~", "")] if value == "null" else [("null", "only", "null"), ("~", "only", "null")]
    if kind in ("enum", "name", "path"):
        out += [(f"'{value}'", "same", None), (f'"{value}"', "same", None), (value + "   # a comment", "same", None)]
    if kind == "enum":
        out += [(w, "only", w) for w in more if w != value]
    if kind.startswith("int") and more[0] != more[1] and dotted(i) not in ("train.max_steps",):
        v = rng.randrange(more[0], min(more[1], 200) + 1)
        out += [(str(v), "only", str(v)), (f"+{v}", "only", str(v))] if str(v) != value else []
    if kind.startswith("float") and more[0] != more[1]:
        v = round(rng.uniform(more[0] + 1e-3, min(more[1], 1)), 3)
        out += [(repr(v), "only", v), (f"{v:e}", "only", v)]
    if kind == "list":
        out += [(value.replace("[", "[ ").replace(", ", " ,  "), "same", None), (value.replace("[", "['").replace(", ", "', '").replace("]", "']"), "same", None)]
    return out


def structural():
    """Mutants of the text as a whole."""
    i = rng.randrange(len(KEYS))
    at, pick = line_of(i), rng.randrange(22)
    lines, (s, k, v) = list(BASE), KEYS[i][:3]
    if pick == 0:
        return Mutant("a byte order mark", b"\xef\xbb\xbf" + joined(lines), expect="same")
    if pick == 1:
        return Mutant("CRLF", joined(lines, "\r\n"), expect="same")
    if pick == 2:
        return Mutant("BOM and CRLF, then a mistake", b"\xef\xbb\xbf" + replaced(i, "[[[").replace(b"\n", b"\r\n"), line=None)
    if pick == 3:
        lines.insert(rng.randrange(len(lines)), rng.choice(["# a comment", "", "   ", "  # indented"]))
        return Mutant("a comment or an empty line", joined(lines), expect="same")
    if pick == 4:
        return Mutant("a document's marks", b"---\n" + joined(lines) + rng.choice([b"", b"...\n"]), expect="same")
    if pick == 5:
        return Mutant("a second document", joined(lines) + b"---\nname: x\n")
    if pick == 6:
        lines.insert(at + 1, lines[at])
        return Mutant("a key twice", joined(lines), line=at + 2)
    if pick == 7:
        lines[at] = "\t" + lines[at].strip()
        return Mutant("a tab for indentation", joined(lines))
    if pick == 8 and s:
        lines[at] = " " + lines[at]
        return Mutant("one blank too many", joined(lines), expect="same" if at + 1 == len(lines) or not lines[at + 1].startswith("  ") and not lines[at - 1].startswith("  ") else "refused")
    if pick == 9 and s:
        lines[at] = lines[at][1:]
        return Mutant("one blank too few", joined(lines), expect="same" if sum(x[0] == s for x in KEYS) == 1 else "refused")
    if pick == 10 and s:
        lines[at] = lines[at].strip()
        return Mutant("a key outside its section", joined(lines))
    if pick == 11:
        lines[at] = lines[at].replace(": ", ":", 1)
        return Mutant("no blank after the colon", joined(lines))
    if pick == 12:
        lines[at] = lines[at].replace(": ", " ", 1)
        return Mutant("no colon", joined(lines))
    if pick == 13:
        lines[at] = lines[at].replace(":", rng.choice([" =", "\uff1a", ";"]), 1)
        return Mutant("another sign for the colon", joined(lines))
    if pick == 14:
        sections = {}
        for t in KEYS:
            sections.setdefault(t[0], []).append(t)
        order = [x for x in sections if x]
        rng.shuffle(order)
        keys = [t for name in ["", *order] for t in rng.sample(sections[name], len(sections[name]))]
        return Mutant("another order of keys", joined(lines_of(keys)), expect="same")
    if pick == 15:
        flow = "\n".join(f"{t[1]}: {t[2]}" for t in KEYS if not t[0]) + "\n"
        for name in dict.fromkeys(t[0] for t in KEYS if t[0]):
            flow += f"{name}: {{" + ", ".join(f"{t[1]}: {t[2]}" for t in KEYS if t[0] == name) + "}\n"
        return Mutant("flow style", flow.encode(), expect="same")
    if pick == 16:
        return Mutant("UTF-16", joined(lines).decode().encode("utf-16"))
    if pick == 17:
        b = bytearray(joined(lines))
        b[rng.randrange(len(b))] = rng.choice([0, 0xff, 0xc0, 0x80, 1, 7])
        return Mutant("a byte that is no text", bytes(b), expect="same")
    if pick == 18:
        return Mutant("the whole as a list", b"- " + joined(lines))
    if pick == 19:
        return Mutant("a section that is no map", joined([x for x in lines if not x.startswith("  ")]).replace(b"train:\n", b"train: 5\n", 1))
    if pick == 20:
        known = NAMES[""] | {"eval"}
        names = [x for x in NAMES if x]
        name = rng.choice(names)
        return Mutant("a misspelled section", joined([misspelled(name, known) + ":" if x == f"{name}:" else x for x in lines]))
    lines[at] = lines[at].replace("  ", "\u00a0\u00a0", 1) if s else "\u00a0" + lines[at]
    return Mutant("blanks that are no blanks", joined(lines))


def of_a_key():
    i = rng.randrange(len(KEYS))
    s, k = KEYS[i][:2]
    if rng.random() < 0.15:
        return Mutant("a misspelled key", replaced(i, KEYS[i][2], misspelled(k, NAMES[s])), line=line_of(i) + 1)
    if rng.random() < 0.25 and good_values(i):
        v, expect, value = rng.choice(good_values(i))
        return Mutant(f"{dotted(i)}: {v}", replaced(i, v), expect=expect, key=dotted(i), value=value)
    v = rng.choice(bad_values(i))
    return Mutant(f"{dotted(i)}: {v}", replaced(i, v), line=line_of(i) + 1)


def of_an_override():
    i = rng.randrange(len(KEYS))
    name, (s, k) = dotted(i), KEYS[i][:2]
    pick = rng.randrange(9)
    if pick == 0:
        return Mutant("a misspelled override", joined(BASE), [f"{s + '.' if s else ''}{misspelled(k, NAMES[s])}={KEYS[i][2]}"])
    if pick == 1:
        return Mutant("no override at all", joined(BASE), [rng.choice([name, "=", f"={KEYS[i][2]}", f"{name}.=1", f".{name}=1", f"{name.replace('.', '..')}..x=1", "a" * 300 + "=1", f"--{name}=1",
                                                                    f"{name} = {KEYS[i][2]}", f"{name}:{KEYS[i][2]}"])])
    if pick == 2 and s:
        return Mutant("a section's override", joined(BASE), [f"{s}={rng.choice(['3', 'x', '[1]', 'null'])}"])
    if pick == 3:
        return Mutant("below a plain value", joined(BASE), [f"{name}.x=1"] if KEYS[i][3] not in ("map", "sources", "list") else [f"{name}.99.path=1"])
    if pick == 4:
        return Mutant("the base's own value", joined(BASE), [f"{name}={KEYS[i][2]}"], expect="same")
    good = [g for g in good_values(i) if "#" not in g[0]]
    if pick in (5, 6) and good:
        v, expect, value = rng.choice(good)
        return Mutant(f"{name}={v}", joined(BASE), [f"{name}={v}"], expect=expect, key=name, value=value)
    v = rng.choice([v for v in bad_values(i) if "\n" not in v])
    return Mutant(f"{name}={v}", joined(BASE), [f"{name}={v}"])


# ---- judging a recipe

def run(*command, cwd=None):
    return subprocess.run(command, capture_output=True, cwd=cwd, timeout=120)


def resolved(text):
    out, section = {}, ""
    for line in text.decode().splitlines():
        key, _, value = line.strip().partition(":")
        if not line.startswith(" ") and not value.strip():
            section = key
            continue
        out[f"{section}.{key}" if line.startswith(" ") else key] = value.strip()
    return out


def equal(got, want):
    if isinstance(want, str):
        return got == want
    try:
        return abs(float(got) - want) <= 1e-12 * abs(want)
    except ValueError:
        return False


def judge(m, base, probe, where):
    """None when it is as it must be, else what is wrong."""
    said = probe.stderr.decode("utf-8", "replace").strip()
    if probe.returncode == 2:
        if said.count("\n") or len(said) > 1000:
            return f"not one sentence: {said}"
        if m.overrides:
            return None if said.startswith("override '") or re.match(rf"{re.escape(where)}: ", said) else f"the override is not named: {said}"
        at = re.match(rf"{re.escape(where)}:(\d+):(\d+): .", said)
        if not at:
            return f"no line and column: {said}"
        if m.line and not m.line <= int(at[1]) <= m.line + 2:
            return f"line {at[1]}, want {m.line}: {said}"
        return None
    if probe.returncode != 0:
        return f"exit {probe.returncode}: {said}"
    got = resolved(probe.stdout)
    changed = {k for k in base if got.get(k) != base[k]} | set(got) - set(base)
    if m.expect == "same":
        return f"accepted, and changed: {sorted(changed)}" if changed else None
    if m.expect == "only":
        if changed - {m.key} or not equal(got[m.key], m.value):
            return f"accepted as {m.key}: {got[m.key]} (want {m.value}), changed: {sorted(changed)}"
        return None
    return f"accepted in silence; changed: { {k: got[k] for k in sorted(changed)} }"


# ---- configurations of a model and an adapter

# (file, key, what another value does): a key that decides the arithmetic must be read right or refused.
CONFIG_JUNK = [None, "x", "", -1, 0, 2.5, True, [], {}, [1], {"a": 1}, 10**30, -10**30, 1e308, "64", float("nan"), float("inf")]
# A number that these may well be is another model, and not a mistake.
NUMBERS = {"rope_theta", "rms_norm_eps", "lora_alpha", "factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"}


def text_mutant(raw):
    pick = rng.randrange(7)
    if pick == 0:
        return "cut", raw[:rng.randrange(1, len(raw) - 1)]
    if pick == 1:
        return "a byte order mark", b"\xef\xbb\xbf" + raw
    if pick == 2:
        return "UTF-16", raw.decode().encode("utf-16")
    if pick == 3:
        return "a trailing comma", raw.rstrip()[:-1].rstrip() + b",}"
    if pick == 4:
        return "a comment", raw.replace(b"{", b"{ // comment\n", 1)
    if pick == 5:
        return "an array", b"[" + raw + b"]"
    key = next(iter(json.loads(raw)))
    return "a key twice", raw.replace(b"{", b'{"' + key.encode() + b'": "other",', 1)


def config_mutant(folder, name):
    """(kind, bytes, whether it may be another model) of a mutant of one JSON file."""
    raw = open(os.path.join(folder, name), "rb").read()
    if rng.random() < 0.15:
        return (*text_mutant(raw), False)
    j = json.loads(raw)
    holder, path = j, []
    while True:
        k = rng.choice(list(holder))
        path.append(k)
        if not isinstance(holder[k], dict) or not holder[k] or rng.random() < 0.3:
            break
        holder = holder[k]
    k = path[-1]
    pick = rng.random()
    if pick < 0.15:
        del holder[k]
        kind = f"without {'.'.join(path)}"
    elif pick < 0.3:
        holder[misspelled(k, set(holder))] = holder.pop(k)
        kind = f"misspelled {'.'.join(path)}"
    else:
        holder[k] = rng.choice(CONFIG_JUNK)
        kind = f"{'.'.join(path)} = {json.dumps(holder[k])}"
    v = holder.get(k)
    other = k in NUMBERS and isinstance(v, (int, float)) and not isinstance(v, bool) and 0 < v < 1e300 or k == "tie_word_embeddings" and isinstance(v, bool)
    return kind, json.dumps(j).encode(), other


def logits(model, adapter=None):
    out = os.path.join(work, "logits.npy")
    if os.path.exists(out):
        os.unlink(out)
    p = run(BINARY, "logits", "-m", model, *(["-a", adapter] if adapter else []), "--text", "text.txt", "--compute", "fp32", "--threads", "1", "--no-pack-cache", "-o", out, cwd=work)
    return p, open(out, "rb").read() if p.returncode == 0 else b""


def judge_config(p, got, base, name, folder):
    said = p.stderr.decode("utf-8", "replace").strip()
    if p.returncode in (1, 2):
        if p.returncode == 1:
            return f"exit 1: {said}"
        return None if folder in said or name in said else f"neither file nor folder is named: {said}"
    if p.returncode:
        return f"exit {p.returncode}: {said}"
    return None if got == base else "accepted in silence: other logits"


# ---- the run

def report(ok, name, note=""):
    global failed
    failed |= not ok
    print(("ok" if ok else "not ok") + f" - mutated recipes: {name}" + (f" ({note})" if note else ""), flush=True)


failed = False
work = tempfile.mkdtemp(prefix="mutants-")
try:
    for target in ("tiny.gguf", "folder"):
        if run(os.path.join(TESTS, "make_tiny_model"), os.path.join(work, target)).returncode:
            raise SystemExit("not ok - mutated recipes: make_tiny_model failed")
    with open(os.path.join(work, "data.jsonl"), "w") as f:
        for i in range(40):
            f.write(json.dumps({"prompt": f"record {i} is ", "completion": f"{i * 7919 % 1000}"}) + "\n")
    open(os.path.join(work, "text.txt"), "w").write("some text")
    recipe, probe = os.path.join(work, "r.yaml"), os.path.join(TESTS, "recipe_probe")

    def put(data):
        with open(recipe, "wb") as f:
            f.write(data)

    put(joined(BASE))
    first = run(probe, recipe)
    base = resolved(first.stdout)
    report(first.returncode == 0 and len(base) > 60, "the base recipe is understood", first.stderr.decode().strip())
    plan = run(BINARY, "train", "r.yaml", "--plan", cwd=work)
    report(plan.returncode == 0, "and can be planned", "" if plan.returncode == 0 else plan.stderr.decode().strip()[-200:])

    total, kinds = (700 if FULL else 240), (structural, of_a_key, of_a_key, of_an_override)
    wrong, refused, same = [], 0, 0
    for n in range(total):
        m = kinds[n % len(kinds)]()
        put(m.text)
        p = run(probe, recipe, *m.overrides)
        fault = judge(m, base, p, recipe)
        refused += p.returncode == 2
        same += p.returncode == 0
        if not fault and (FULL or n % 8 == 0):  # the command line says the same
            c = run(BINARY, "train", "r.yaml", *m.overrides, "--plan", cwd=work)
            said = c.stderr.decode("utf-8", "replace").strip().splitlines()
            if p.returncode == 2 and (c.returncode != 2 or len(said) != 1):
                fault = f"the command line ends with {c.returncode}: {said[-1:]}"
            elif p.returncode == 0 and c.returncode not in (0, 2):
                fault = f"the command line ends with {c.returncode}: {said[-1:]}"
        if SHOW:
            print(f"# {m.kind!r}: {p.returncode} {p.stderr.decode('utf-8', 'replace').strip()}")
        if fault:
            wrong.append(f"{m.kind!r} {m.overrides or ''}: {fault}")
    for w in wrong[:20]:
        print(f"# {w}")
    report(not wrong, f"{total} recipes and overrides are refused with their place or are harmless", f"{refused} refused, {same} harmless, {len(wrong)} wrong; seed {SEED}")

    serve_mutants.check(BINARY, os.path.join(work, "serve.yaml"), 1000 if FULL else 90, SEED, report, SHOW)

    # Paths that are not what they should be.
    os.mkfifo(os.path.join(work, "fifo.jsonl"))
    os.mkdir(os.path.join(work, "dir.jsonl"))
    open(os.path.join(work, "empty.jsonl"), "w").close()
    for key, bad in [("data.train.0.path", x) for x in ("none.jsonl", "fifo.jsonl", "dir.jsonl", "empty.jsonl", "tiny.gguf", "")] + \
                    [("base.model", x) for x in ("none.gguf", "fifo.jsonl", "dir.jsonl", "data.jsonl", "")] + [("adapter.from", "none"), ("adapter.from", "data.jsonl")]:
        put(joined(BASE))
        p = run(BINARY, "train", "r.yaml", f"{key}={bad}", "--plan", cwd=work)
        said = p.stderr.decode("utf-8", "replace").strip()
        if p.returncode != 2 or (bad or key.split(".0")[0]) not in said or "\n" in said:
            wrong.append(key)
            report(False, f"{key}={bad} is refused by name", f"exit {p.returncode}: {said}")
    report(not [w for w in wrong if "=" not in w and " " not in w], "paths to nothing, folders, pipes and other files are refused by name")

    # A tiny model's folder and a tiny adapter.
    put(joined(BASE))
    trained = run(BINARY, "train", "r.yaml", "name=tiny", "train.max_steps=1", "base.model=folder", "draft.index=false", "export_verify.prompts=0", cwd=work)
    report(trained.returncode == 0, "an adapter is trained to be changed", "" if trained.returncode == 0 else trained.stderr.decode().strip()[-200:])
    adapter = os.path.join("runs", "tiny", "adapter")
    targets = [("folder", "config.json", None), ("folder", "config.json", None), ("folder", "tokenizer_config.json", None), ("folder", "generation_config.json", None),
               (adapter, "adapter_config.json", adapter)]
    targets = [t for t in targets if os.path.exists(os.path.join(work, t[0], t[1]))]
    bases = {a: logits("folder", a) for a in {t[2] for t in targets}}
    report(all(p.returncode == 0 for p, _ in bases.values()), "the folder and the adapter run", "".join(p.stderr.decode().strip() for p, _ in bases.values())[-300:])
    silent, refused, total = [], 0, 300 if FULL else 40
    for n in range(total):
        folder, name, a = targets[n % len(targets)]
        path = os.path.join(work, folder, name)
        original = open(path, "rb").read()
        kind, data, other = config_mutant(os.path.join(work, folder), name)
        with open(path, "wb") as f:
            f.write(data)
        p, got = logits("folder", a)
        with open(path, "wb") as f:
            f.write(original)
        fault = judge_config(p, got, got if other else bases[a][1], name, folder)
        refused += p.returncode == 2
        if SHOW:
            print(f"# {name} {kind}: {p.returncode} {p.stderr.decode('utf-8', 'replace').strip()}")
        if fault:
            silent.append(f"{name}, {kind}: {fault}")
    for s in silent[:30]:
        print(f"# {s}")
    report(not silent, f"{total} configurations of a model and an adapter are refused by file, or give the same logits", f"{refused} refused, {len(silent)} wrong; seed {SEED}")
finally:
    shutil.rmtree(work, ignore_errors=True)
sys.exit(failed)
