#!/usr/bin/env python3
"""The quickstart's data, out of the package index that every Debian machine has.

    apt-cache dumpavail | recipes/triage_data.py OUTDIR        writes OUTDIR/train.jsonl and OUTDIR/test.jsonl

The task: read the record of a package and answer with one JSON object. Four of its fields are copied,
one is filtered (the libraries it depends on), two are not in the question and must be learnt (section, role).

Of each package the first stanza counts. Taken are packages with 3 to 10 different dependencies, a homepage and
a `role::` tag, the first two of each source package. Held out is a source package when the SHA-256 of its name,
as a number, is 90 or more modulo 100, so that siblings never stand on both sides; the order of the records is that
of the SHA-256 of the packages' names. Nothing is drawn at random: the same index gives the same files.
Debian 12 gives 7,515 and 804 records.
"""
import hashlib
import json
import os
import re
import sys
from collections import Counter

QUESTION_FIELDS = ("Package", "Version", "Description", "Homepage", "Depends")
SYSTEM = "Extract the record of this package as one JSON object."


def stanzas(lines):
    """Yields the fields of each stanza; a line that begins with a blank continues the field before it."""
    fields, name = {}, None
    for line in lines:
        line = line.rstrip("\n")
        if line.startswith(" ") and name is not None:
            fields[name] += line
        elif line:
            name, _, value = line.partition(":")
            fields[name] = value.strip()
        else:
            yield fields
            fields, name = {}, None
    # The index ends every stanza, the last one too, with an empty line.


def first_alternatives(depends):
    """Names in Depends, the first of each choice, without limits or architectures, in order and once each."""
    names = (choice.split("|")[0].strip().split(" ")[0].split(":")[0] for choice in depends.split(","))
    return list(dict.fromkeys(name for name in names if name))


def role(tags):
    for tag in re.split(r",\s*", tags):
        facet, separator, value = tag.strip().partition("::")
        if separator and facet == "role":
            return value
    return None


def answer(package, role_value, depends):
    fields = {
        "package": package["Package"],
        "version": package["Version"],
        "section": package["Section"],
        "role": role_value,
        "summary": package["Description"],
        "homepage": package["Homepage"],
        "libraries": [name for name in depends if name.startswith("lib")],
    }
    return json.dumps(fields, ensure_ascii=False)


def records(packages):
    """Yields (source package, package, record)."""
    of_source = Counter()
    for package in packages:
        if not all(field in package for field in ("Tag", "Depends", "Homepage")):
            continue
        role_value, depends = role(package["Tag"]), first_alternatives(package["Depends"])
        if not role_value or not 3 <= len(depends) <= 10:
            continue
        source = package.get("Source", package["Package"]).split(" ")[0]
        of_source[source] += 1
        if of_source[source] > 2:
            continue
        question = "\n".join(f"{field}: {package[field]}" for field in QUESTION_FIELDS)
        contents = (("system", SYSTEM), ("user", question), ("assistant", answer(package, role_value, depends)))
        yield source, package["Package"], {"messages": [{"role": who, "content": text} for who, text in contents]}


def number(text):
    return int.from_bytes(hashlib.sha256(text.encode()).digest(), "big")


def main():
    if len(sys.argv) != 2 or sys.argv[1].startswith("-"):
        sys.exit("usage: apt-cache dumpavail | triage_data.py OUTDIR")
    sys.stdin.reconfigure(encoding="utf-8")
    packages = {}
    for fields in stanzas(sys.stdin):
        if fields.get("Package"):
            packages.setdefault(fields["Package"], fields)
    chosen = sorted(records(packages.values()), key=lambda r: number(r[1]))
    if not chosen:
        sys.exit("triage_data.py: no package on standard input has the wanted fields; is the package index there? (apt-get update)")
    os.makedirs(sys.argv[1], exist_ok=True)
    for name, held_out in (("train", False), ("test", True)):
        part = [record for source, _, record in chosen if (number(source) % 100 >= 90) == held_out]
        path = os.path.join(sys.argv[1], name + ".jsonl")
        with open(path + ".tmp", "w", encoding="utf-8") as f:
            for record in part:
                f.write(json.dumps(record, ensure_ascii=False) + "\n")
        os.replace(path + ".tmp", path)
        print(f"{path}: {len(part)} records", file=sys.stderr)


if __name__ == "__main__":
    main()
