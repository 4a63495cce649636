#!/usr/bin/env python3
"""Writes model/tokenizer/unicode_additions.h: code points of categories L, M, N, P, S that Unicode 16 has and Unicode 14 lacks, as Hugging Face's regex engine
classes them, and the numeric characters that Rust's standard library has beyond those of Unicode 14.

    make_unicode_additions.py > model/tokenizer/unicode_additions.h        (needs `tokenizers`, and a Python whose unicodedata is 14.0.0)
"""
import sys
import unicodedata

from tokenizers import Regex
from tokenizers.pre_tokenizers import Digits, Split

assert unicodedata.unidata_version == "14.0.0", unicodedata.unidata_version
points = [c for c in range(0x110000) if not 0xD800 <= c < 0xE000]
text = "".join(map(chr, points))


def ranges(items):
    out = []
    for c, k in sorted(items):
        if out and out[-1][1] == c - 1 and out[-1][2] == k:
            out[-1][1] = c
        else:
            out.append([c, c, k])
    return out


new = {}
for k in "Lu Ll Lt Lm Lo Mn Mc Me Nd Nl No Pc Pd Ps Pe Pi Pf Po Sm Sc Sk So".split():
    for piece, _ in Split(Regex(r"\p{%s}" % k), "removed", invert=True).pre_tokenize_str(text):
        for ch in piece:
            if unicodedata.category(ch) != k:
                new[ord(ch)] = k
numeric = {ord(p) for p, _ in Digits(individual_digits=True).pre_tokenize_str("a" + text.replace("a", "")) if len(p) == 1}
numeric = [(c, "N") for c in numeric if unicodedata.category(chr(c))[0] != "N"]

print("""// Made by tests/data/make_unicode_additions.py: what newer versions of Unicode class differently from
// Unicode 14, which is what the system's PCRE2 and utf8proc know.
#pragma once

#include <stdint.h>

typedef struct {
    int32_t first, last;
    char category[3];
} sd_unicode_range;

// Unicode 16: letters, marks, numbers, punctuation, symbols.
static const sd_unicode_range SD_UNICODE_ADDED[] = {""")
for a, b, k in ranges(new.items()):
    print('    {0x%X, 0x%X, "%s"},' % (a, b, k))
print("""};

// Unicode 17: numeric characters.
static const sd_unicode_range SD_UNICODE_NUMERIC[] = {""")
for a, b, k in ranges(numeric):
    print('    {0x%X, 0x%X, "%s"},' % (a, b, k))
print("};")
