#!/usr/bin/env python3
"""JSON Schemas against the JSON Schema test suite's draft 2020-12, and against the `jsonschema` library on its values.

    schema_suite.py SPECDEC [MODELS_DIR]

Two claims. Of every schema that is not refused: the validator says of each value of the suite what the suite says, and the automaton lets no value through
that the suite calls invalid. Of every valid value of one: written with json.dumps, the automaton lets it through, or it is one of the values that are left out
by rule (docs/requests.md), whose number is printed. What is refused is listed by keyword.

The suite is taken from the source package of `jsonschema` (JSON_SCHEMA_SUITE names a folder or the package's .tar.gz; else pip fetches it). Without it, a
printed skip. TAP on standard output.
"""
import collections
import glob
import json
import os
import subprocess
import sys
import tarfile
import tempfile

PROBE = os.path.join(os.path.dirname(sys.argv[1]), "tests", "schema_probe")
PACKAGE = "jsonschema==4.23.0"


def find_suite(work):
    given = os.environ.get("JSON_SCHEMA_SUITE")
    if given and os.path.isdir(given):
        return given
    if not given:
        subprocess.run([sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-binary", "jsonschema", "-d", work, PACKAGE],
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=300, check=False)
        given = next(iter(glob.glob(work + "/jsonschema-*.tar.gz")), None)
    if not given:
        return None
    with tarfile.open(given) as t:
        t.extractall(work, filter="data")
    return next(iter(glob.glob(work + "/jsonschema-*/json/tests/draft2020-12")), None)


def main():
    with tempfile.TemporaryDirectory() as work:
        folder = find_suite(work)
        if not folder:
            print("ok - schema suite # SKIP the source package of jsonschema is not to be had")
            return 0
        return check(folder)


def check(folder):
    probe = subprocess.Popen([PROBE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    refused, wrong, left_out = collections.Counter(), [], collections.Counter()
    schemas = values = followed = valid = 0
    for path in sorted(glob.glob(folder + "/**/*.json", recursive=True)):
        for group in json.load(open(path, encoding="utf-8")):
            schema = group["schema"]
            tests = group["tests"]
            texts = [json.dumps(t["data"], ensure_ascii=False) for t in tests]
            try:
                probe.stdin.write(json.dumps({"schema": schema, "values": texts}) + "\n")
                probe.stdin.flush()
            except UnicodeEncodeError:
                continue
            out = json.loads(probe.stdout.readline())
            name = os.path.basename(path)[:-5]
            schemas += 1
            if "refused" in out:
                refused[name] += 1
                continue
            for t, text, verdict in zip(tests, texts, out["verdicts"]):
                values += 1
                where = f"{name}: {group['description']}: {t['description']}: {text[:80]}"
                if verdict[0] != "?" and (verdict[0] == "o") != t["valid"]:
                    # A format says nothing in the suite's own files; here it does.
                    if not (name == "format" and t["valid"]):
                        wrong.append(f"the validator is {verdict[0]}: {where}")
                if verdict[1] == "a" and not t["valid"]:
                    wrong.append(f"the automaton lets through: {where}")
                if t["valid"]:
                    valid += 1
                    followed += verdict[1] == "a"
                    if verdict[1] != "a":
                        left_out[name] += name != "format"
    probe.stdin.close()
    probe.wait()
    for w in wrong[:40]:
        print("# " + w)
    print(f"# {schemas} schemas, {sum(refused.values())} refused: " + ", ".join(f"{k} {n}" for k, n in sorted(refused.items())))
    print(f"# {values} values of the others; of {valid} valid ones {followed} are offered as json.dumps writes them; left out: "
          + ", ".join(f"{k} {n}" for k, n in sorted(left_out.items())))
    print(("ok" if not wrong else "not ok") + f" - schema suite: no verdict differs ({len(wrong)} do)")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
