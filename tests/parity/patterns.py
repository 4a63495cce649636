#!/usr/bin/env python3
"""Patterns by random recursion, with what dialects read differently among their parts, against JavaScript's own RegExp (node), on texts.

    patterns.py SPECDEC [MODELS_DIR]

Of every pattern that both take: the validator says of each text what JavaScript says, and the automaton lets no text through that JavaScript refuses. The flag u
decides, without it where a pattern has no meaning under it and nothing beyond 16 bits in it. PATTERNS names how many (default 4000). TAP on standard output.
"""
import collections
import json
import os
import random
import shutil
import subprocess
import sys

PROBE = os.path.join(os.path.dirname(sys.argv[1]), "tests", "schema_probe")
TEXTS = ["a", "b", "-", "{", "}", "[", "]", ".", "^", "ä", "\u2028", "1", ",", " ", "_", "z", "😀", "&", "~", ":", "=", "#", "/", "(", ")", "\r", "\v"]
ALONE = TEXTS + ["", "\t", "\n", "\f", "\xa0", "\ufeff", "\x85", "\b", "\x01", "\u3000"]
NODE = r"""
require('readline').createInterface({input: process.stdin}).on('line', l => {
  const o = JSON.parse(l); let re = null;
  for (const f of /u\{|\\ud8|[\ud800-\udfff]/.test(o.p) ? ['u'] : ['u', '']) try { re = new RegExp(o.p, f); break } catch (e) {}
  console.log(JSON.stringify(re && o.v.map(x => !re.unicode && /[\ud800-\udfff]/.test(x) ? -1 : +re.test(x))));
});
"""
CHARACTERS = ["a", "b", "z", "1", "-", ",", "}", "]", "{", "ä", "😀", "&", "~", ":", "=", "#", " ", "_", r"\.", r"\-", r"\]", r"\[", r"\{", r"\(", r"\/", r"\^", r"\\", r"\x61",
              r"\u0061", r"\u{61}", r"\ud83d\ude00", r"\cJ", r"\v", r"\t", r"\n", r"\0", ".", r"\u2028"]
CLASSES = [r"\d", r"\w", r"\s", r"\D", r"\W", r"\S"]
IN_CLASS = ["a", "b", "z", "1", "-", "-", "[", "{", ".", "^", "ä", "&", "&&", "--", "~~", ":", ":alpha:", "=", "(", "|", "$", "a-b", "a-z", "0-9", "+--", r"\--z", "ä-ü", r"\x61-\x62",
            "[-a", r"\u0061-z", r"\b", r"\v", r"\]", r"\-", r"\\", r"\^", r"\cA", r"\ud83d\ude00", r"\u{61}", r"\0"]
REPEATS = ["*", "+", "?", "{2}", "{0,2}", "{1,}", "{,2}", "{x}", "{", "{0}", "{2,3}", "{1, 2}"]


class Maker:
    def __init__(self, seed):
        self.rnd, self.names = random.Random(seed), 0

    def one_of_class(self):
        parts = (self.rnd.choice(CLASSES if self.rnd.random() < 0.3 else IN_CLASS) for _ in range(self.rnd.randint(0, 5)))
        return "[" + self.rnd.choice(("", "", "^")) + "".join(parts) + "]"

    def atom(self, depth):
        kind = self.rnd.random()
        if kind < 0.2:
            return self.one_of_class()
        if kind < 0.28:
            return self.rnd.choice(CLASSES)
        if kind < 0.32:
            return self.rnd.choice(("^", "$", "^", "$", "$^"))
        if kind < 0.5 and depth > 0:
            self.names += 1
            return self.rnd.choice(("(", "(?:", f"(?<n{self.names}>")) + self.any_of(depth - 1) + ")"
        return self.rnd.choice(CHARACTERS)

    def repeat(self):
        return "" if self.rnd.random() < 0.6 else self.rnd.choice(REPEATS) + self.rnd.choice(("", "", "?"))

    def any_of(self, depth):
        return "|".join("".join(self.atom(depth) + self.repeat() for _ in range(self.rnd.randint(0, 4))) for _ in range(self.rnd.choice((1, 1, 1, 2, 3))))

    def pattern(self):
        made = self.any_of(2)
        return f"^(?:{made})$" if self.rnd.random() < 0.7 else made

    def texts(self):
        return ["".join(self.rnd.choice(TEXTS) for _ in range(self.rnd.randint(2, 4))) for _ in range(40)] + ALONE


def talk(process, message):
    process.stdin.write(json.dumps(message) + "\n")
    process.stdin.flush()
    return json.loads(process.stdout.readline())


def main():
    if not shutil.which("node"):
        print("ok - patterns as JavaScript reads them # SKIP node is not installed")
        return 0
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    probe, node = subprocess.Popen([PROBE], **pipes), subprocess.Popen(["node", "-e", NODE], **pipes)
    count, wrong = collections.Counter(), []
    for i in range(int(os.environ.get("PATTERNS", "4000"))):
        m = Maker(i)
        pattern, texts = m.pattern(), m.texts()
        own = talk(probe, {"schema": {"type": "string", "pattern": pattern}, "values": [json.dumps(t, ensure_ascii=False) for t in texts]})
        theirs = talk(node, {"p": pattern, "v": texts})
        if "refused" in own or theirs is None:
            count["refused here" if "refused" in own else "refused there"] += 1
            continue
        count["patterns"] += 1
        for text, verdict, matches in zip(texts, own["verdicts"], theirs):
            if matches < 0:
                continue
            count["texts"] += 1
            count["let through"] += verdict[1] == "a"
            if (verdict[0] == "o") != bool(matches) or (verdict[1] == "a" and not matches):
                wrong.append(f"{pattern!r}, {text!r}: validator {verdict[0]}, automaton {verdict[1]}, JavaScript {matches}")
    for process in (probe, node):
        process.stdin.close()
        process.wait()
    for w in wrong[:20]:
        print("# " + w)
    print("# " + ", ".join(f"{n} {what}" for what, n in sorted(count.items())))
    print(("ok" if count["patterns"] and not wrong else "not ok") + f" - patterns as JavaScript reads them: no verdict differs ({len(wrong)} do)")
    return 1 if wrong or not count["patterns"] else 0


if __name__ == "__main__":
    sys.exit(main())
