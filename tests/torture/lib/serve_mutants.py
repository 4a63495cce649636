"""Configurations of `specdec serve` with mistakes in them, and what must come of each: see mutated_recipes.py."""
import json
import random
import re
import subprocess

HEX = "0123456789abcdef" * 4
# One key a line, so that a mutant's line is known: (key, value, kind, what else it may be).
KEYS = [
    ("model", "tiny.gguf", "text", None), ("threads", "2", "int", (0, 256)), ("device", "cpu", "text", None), ("compute", "fp32", "enum", ["auto", "fp32"]),
    ("prefill_chunk", "64", "int", (1, 8192)), ("no_pack_cache", "true", "bool", None), ("served_name", "[one, two]", "list", None),
    ("listen", "127.0.0.1:8081", "listen", None), ("cors", "https://page.example", "list", None), ("ctx", "512", "int", (0, 1 << 24)),
    ("slots", "3", "int", (1, 1024)), ("queue", "9", "int", (1, 65536)), ("body_memory", "32", "int", (16, 1 << 20)), ("drain", "5.5", "float", (0, 86400)),
    ("spec", "off", "enum", ["auto", "off", "suffix"]), ("spec_length", "4", "int", (0, 16)), ("tool_format", "none", "enum", ["auto", "none"]),
    ("plain_user_text", "false", "bool", None), ("insecure_no_key", "no", "bool", None), ("access_log", "'-'", "text", None),
    ("adapters", "{first: a, second: b/c}", "adapters", None), ("keys", "[a-bare-key, 'ops sha256:%s admin']" % HEX, "keys", None),
]
NAMES = {k for k, *_ in KEYS} | {"host", "port", "adapter", "draft", "draft_adapter", "draft_kv", "chat_template", "api_key_file", "trusted_proxy", "no_run_defaults", "kv", "kv_memory",
                                 "prefix_cache", "other_base", "config", "plan", "json", "print_config", "tls_cert", "tls_key", "sleep_idle"}
BASE = [f"{k}: {v}" for k, v, *_ in KEYS]

COMMON = ["&x 5", "*x", "!!str 5", "!py 5", '"\\0"', "[", "{", "'", '"', "%x", "@x", "`x`", "a: b", "- 1", "? x", "null", "~", "", '""', "<<: 1", "[1, [2]]", "{a: {b: c}}"]
NUMBER = ["abc", "'4'", '"4"', "0x10", "0o7", "010", "1_000", "1,000", "4 tokens", "4k", "4%", "1e999", ".inf", ".nan", "nan", "true", "--4", "4-", "1:30", "\u0664", "[4]", "{a: 4}"]
BAD = {
    "text": ["[a]", "{a: b}"],
    "bool": ["'true'", "y", "n", "1", "0", "truee", "tRue", "enabled", "[true]"],
    "list": ["{a: 1}", "[[a]]", "[{a: b}]", "[null]", '[""]', "[a, ~]"],
    "listen": ["8080", ":8080", "127.0.0.1", "127.0.0.1:", "127.0.0.1:x", "127.0.0.1:99999", "127.0.0.1:-1", "127.0.0.1:0x1f", "127.0.0.1:08080", '"::1:80"', '"[::1]80"', '"[]:80"', "[::1]:80",
               "[127.0.0.1, 8080]", "{host: a, port: 1}", "127.0.0.1:80:90"],
    "adapters": ["5", "a=b", "{a: null}", "{a: [x]}", '{a: ""}', "{a=b: c}", "{a: b, a: c}", "[null]", "[[a]]"],
    "keys": ["5", "{a: b}", "{a: sha256:00}", f"{{a/b: 'sha256:{HEX}'}}", f"{{a: 'sha256:{HEX} root'}}", f"{{a: 'SHA256:{HEX}'}}", "[short]", "[two words here]", f"['sha256:{HEX}']", "[null]",
             f"{{a: 'sha256:{HEX}', b: 'sha256:{HEX}'}}", f"['a sha256:{HEX}', 'a sha256:{HEX[::-1]}']", "{a: {sha256: b}}"],
}


class Mutant:
    def __init__(self, kind, text, expect="refused", key=None, value=None, line=None):
        self.kind, self.text, self.expect, self.key, self.value, self.line = kind, text, expect, key, value, line


def joined(lines, eol="\n"):
    return (eol.join(lines) + eol).encode()


def with_value(i, value, key=None):
    return joined(BASE[:i] + [f"{key or KEYS[i][0]}: {value}"] + BASE[i + 1:])


def misspelled(word, rng):
    while True:
        at = rng.randrange(len(word))
        w = rng.choice([word[:at] + word[at + 1:], word[:at] + word[at] + word[at:], word[:at] + rng.choice("abcdefghijklmnopqrstuvwxyz_") + word[at + 1:], word.upper(),
                        word + "s", word.replace("_", "-") if "_" in word else word + "-", word.replace("a", "\u0430", 1)])
        if w and w not in NAMES:
            return w


def bad_value(i, rng):
    key, _, kind, more = KEYS[i]
    if kind in ("int", "float"):
        low, high = more
        return rng.choice(COMMON + NUMBER + [str(low - 1), str(high * 2 + 1)] + (["2.5", "1e3"] if kind == "int" else ["1.2.3", "0,5"]))
    if kind == "enum":
        return rng.choice(COMMON + ["true", "1", more[0] + "x", more[0].upper(), "|".join(more), "[" + more[0] + "]"])
    own = {"list": {"- 1"}, "keys": {"- 1"}}.get(kind, set())
    return rng.choice([v for v in COMMON if v not in own] + BAD[kind])


def good_value(i, rng):
    key, value, kind, more = KEYS[i]
    if kind == "bool":
        word = rng.choice(["true", "True", "TRUE", "yes", "Yes", "on", "ON", "false", "False", "no", "off", "OFF"])
        return word, key, word.lower() in ("true", "yes", "on")
    if kind == "enum":
        word = rng.choice(more)
        return rng.choice([word, f"'{word}'", word + "   # a comment"]), key, word
    if kind == "int":
        n = rng.randrange(more[0], min(more[1], 200) + 1) if more[0] < 200 else more[0]
        return rng.choice([str(n), f"+{n}"]), key, n
    if kind == "float":
        x = round(rng.uniform(0, 100), 3)
        return rng.choice([repr(x), f"{x:e}"]), key, x
    if kind == "text":
        return rng.choice([f"'{value.strip(chr(39))}'", f'"{value.strip(chr(39))}"']), key, value.strip("'")
    if kind == "list":
        return rng.choice(["[x]", "x", "'x'", "\n  - x"]), key, ["x"]
    if kind == "listen":
        return rng.choice(["127.0.0.1:9", "'127.0.0.1:9'"]), "port", 9
    if kind == "adapters":
        return rng.choice(["{a: b}", "\n  a: b", "[a=b]", "\n  - 'a=b'"]), "adapter", ["a=b"]
    return rng.choice([f"['a sha256:{HEX} admin']", f"{{a: 'sha256:{HEX} admin'}}", f"\n  a: sha256:{HEX}   admin"]), "keys", [f"a sha256:{HEX} admin"]


def structural(rng):
    i, pick, lines = rng.randrange(len(KEYS)), rng.randrange(22), list(BASE)
    if pick == 0:
        return Mutant("a byte order mark", b"\xef\xbb\xbf" + joined(lines), "same")
    if pick == 1:
        return Mutant("CRLF", joined(lines, "\r\n"), "same")
    if pick == 2:
        lines.insert(rng.randrange(len(lines)), rng.choice(["# a comment", "", "   ", "  # indented"]))
        return Mutant("a comment or an empty line", joined(lines), "same")
    if pick == 3:
        return Mutant("a document's marks", b"---\n" + joined(lines) + rng.choice([b"", b"...\n"]), "same")
    if pick == 4:
        return Mutant("a second document", joined(lines) + b"---\nport: 1\n")
    if pick == 5:
        return Mutant("a key twice", joined(lines[:i + 1] + lines[i:]), line=i + 2)
    if pick == 6:
        lines[i] = "\t" + lines[i]
        return Mutant("a tab for indentation", joined(lines))
    if pick == 7:
        lines[i] = " " + lines[i]
        return Mutant("one blank too many", joined(lines))
    if pick == 8:
        lines[i] = lines[i].replace(": ", ":", 1)
        return Mutant("no blank after the colon", joined(lines))
    if pick == 9:
        lines[i] = lines[i].replace(": ", " ", 1)
        return Mutant("no colon", joined(lines))
    if pick == 10:
        lines[i] = lines[i].replace(":", rng.choice([" =", "\uff1a", ";"]), 1)
        return Mutant("another sign for the colon", joined(lines))
    if pick == 11:
        return Mutant("another order of keys", joined(rng.sample(lines, len(lines))), "same")
    if pick == 12:
        return Mutant("flow style", ("{" + ", ".join(lines) + "}\n").encode(), "same")
    if pick == 13:
        return Mutant("UTF-16", joined(lines).decode().encode("utf-16"))
    if pick == 14:
        b = bytearray(joined(lines))
        b[rng.randrange(len(b))] = rng.choice([0, 0xff, 0xc0, 0x80, 1, 7])
        return Mutant("a byte that is no text", bytes(b), "same")
    if pick == 15:
        return Mutant("the whole as a list", b"- " + joined(lines))
    if pick == 16:
        return Mutant("of the command line alone", joined(lines + [rng.choice(["config: x.yaml", "plan: true", "json: true", "print_config: true"])]), line=len(lines) + 1)
    if pick == 17:
        return Mutant("said by two keys", joined(lines + [rng.choice(["host: 127.0.0.1", "port: 8081", "adapter: [first=a]"])]), line=len(lines) + 1)
    if pick == 18:
        lines[i] = "\u00a0" + lines[i]
        return Mutant("a blank that is none", joined(lines))
    if pick == 19:
        return Mutant("a text", b"serve\n")
    if pick == 20:
        return Mutant("a section below another", joined(["serve:"] + ["  " + x for x in lines]))
    return Mutant("a section within a list", joined([f"- {x}" for x in lines]))


def of_a_key(rng):
    i = rng.randrange(len(KEYS))
    if rng.random() < 0.15:
        return Mutant("a misspelled key", with_value(i, KEYS[i][1], misspelled(KEYS[i][0], rng)), line=i + 1)
    if rng.random() < 0.3:
        text, key, value = good_value(i, rng)
        return Mutant(f"{KEYS[i][0]}: {text}", with_value(i, text), "only", key, value)
    value = bad_value(i, rng)
    # A quote that is left open ends at the next one, some lines below.
    return Mutant(f"{KEYS[i][0]}: {value}", with_value(i, value), line=None if value in "'\"" else i + 1)


def resolved(text):
    return {key: json.loads(value) for key, value in (line.split(": ", 1) for line in text.decode().splitlines())}


def judge(m, base, p, path):
    """None when it is as it must be, else what is wrong."""
    said = p.stderr.decode("utf-8", "replace").strip()
    if p.returncode == 2:
        at = re.match(rf"specdec: {re.escape(path)}:(\d+):(\d+): .", said)
        if said.count("\n") or len(said) > 1000 or not at:
            return f"not one sentence with line and column: {said}"
        if m.expect == "only":
            return f"refused: {said}"
        return f"line {at[1]}, want {m.line}: {said}" if m.line and not m.line <= int(at[1]) <= m.line + 2 else None
    if p.returncode:
        return f"exit {p.returncode}: {said}"
    got = resolved(p.stdout)
    changed = {k for k in base if got.get(k) != base[k]} | set(got) - set(base)
    if m.expect == "same":
        return f"accepted, and changed: {sorted(changed)}" if changed else None
    if m.expect == "only":
        return None if changed <= {m.key} and got[m.key] == m.value else f"accepted as {m.key}: {got[m.key]} (want {m.value}), changed: {sorted(changed)}"
    return f"accepted in silence; changed: { {k: got.get(k) for k in sorted(changed)} }"


def check(binary, path, total, seed, report, show):
    rng = random.Random(seed)

    def run(text):
        with open(path, "wb") as f:
            f.write(text)
        return subprocess.run([binary, "serve", "--config", path, "--print-config"], capture_output=True, timeout=120)

    first = run(joined(BASE))
    report(first.returncode == 0, "a configuration of serve is understood", first.stderr.decode().strip())
    base = resolved(first.stdout)
    again = run(first.stdout)
    report(again.returncode == 0 and resolved(again.stdout) == base, "and what is printed of it is one", again.stderr.decode().strip())
    wrong, refused = [], 0
    for n in range(total):
        m = (structural, of_a_key, of_a_key)[n % 3](rng)
        p = run(m.text)
        refused += p.returncode == 2
        fault = judge(m, base, p, path)
        if show:
            print(f"# {m.kind!r}: {p.returncode} {p.stderr.decode('utf-8', 'replace').strip()}")
        if fault:
            wrong.append(f"{m.kind!r}: {fault}")
    for w in wrong[:20]:
        print(f"# {w}")
    report(not wrong, f"{total} configurations of serve are refused with their place or are harmless", f"{refused} refused, {total - refused} harmless, {len(wrong)} wrong; seed {seed}")
