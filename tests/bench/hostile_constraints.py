#!/usr/bin/env python3
"""Schemas, patterns, choices and tools that take as much as they can: how long each is compiled or refused for, over HTTP on a served model.

    hostile_constraints.py [SPECDEC] --model MODEL.gguf [--rounds 3] [--limit 50]

Each is sent with max_tokens 1, in turns, ROUNDS times; what is compiled is told apart by a cache_salt, so that it is compiled each time. The time is the server's own
(specdec_constraint_compile_seconds_total), which counts the refused ones as well; the least of the rounds counts, as other work on the machine only adds. Prints a line for each, then
the largest. Exit 1: one takes more than LIMIT ms, or ends otherwise than it says here. Exit 2: it could not be measured.
"""
import json
import pathlib
import sys

sys.path[:0] = [str(pathlib.Path(__file__).resolve().parent / "lib"), str(pathlib.Path(__file__).resolve().parents[1] / "e2e" / "lib")]
import options  # noqa: E402
import served  # noqa: E402
from script import Failure, run  # noqa: E402

REFUSED, EITHER = 400, None


def chain(n, link, end):
    return {**{f"d{i}": link(i) for i in range(1, n)}, "d0": end}


def nested(n, key, inner):
    for _ in range(n):
        inner = {"type": "array", "items": inner} if key == "items" else {"anyOf": [inner, {"type": "null"}]}
    return inner


def schemas():
    names = [f"p{i}" for i in range(19000)]
    ref = lambda i: {"$ref": f"#/$defs/d{i}"}  # noqa: E731
    yield "an enum of 90,000", REFUSED, {"enum": [f"v{i}" for i in range(90000)]}
    yield "an enum of 4,096", 200, {"enum": [f"value {i}" for i in range(4096)]}
    yield "an enum of 4,096 beside a pattern", EITHER, {"enum": [f"value {i}" for i in range(4096)], "pattern": "^(v|a|l|u|e| )*[0-9]+$"}
    yield "an enum beside a slow pattern", EITHER, {"enum": ["a" * 4000 + "b" for i in range(60)], "pattern": "^(a+a+)+$"}
    yield "an enum of 4,096 beside groups in groups", EITHER, {"enum": [f"a{i}" for i in range(4096)], "pattern": "(" * 98 + "a" + ")*" * 98 + "$"}
    yield "a constant of 900,000 bytes", REFUSED, {"const": "x" * 900000}
    yield "a constant of 150,000 items", REFUSED, {"enum": [list(range(150000))], "uniqueItems": True}
    yield "60 levels", 200, nested(60, "items", {})
    yield "400 levels of arrays", REFUSED, nested(27, "items", nested(27, "anyOf", nested(27, "items", nested(20, "anyOf", {}))))
    yield "allOf doubled 60 times", REFUSED, {"$defs": chain(61, lambda i: {"type": "object", "allOf": [ref(i - 1), ref(i - 1)]}, {"type": "null"}), **ref(60)}
    yield "anyOf doubled 16 times", EITHER, {"$defs": chain(17, lambda i: {"anyOf": [ref(i - 1), ref(i - 1)], "title": "x"}, {"type": "null"}), **ref(16)}
    yield "anyOf beside keywords, doubled 30 times", EITHER, {"$defs": chain(31, lambda i: {"anyOf": [ref(i - 1), ref(i - 1)], "minimum": i}, {"type": "integer"}), **ref(30)}
    yield "a union of itself", 200, {"anyOf": [{"$ref": "#"}, {"$ref": "#"}, {"enum": [None, 1]}]}
    yield "merged with itself in a circle", EITHER, {"$defs": {"a": {"type": "object", "properties": {"a": {"allOf": [{"$ref": "#/$defs/b"}, {"$ref": "#/$defs/a"}]}}},
                                                              "b": {"type": "object", "properties": {"a": {"allOf": [{"$ref": "#/$defs/a"}, {"$ref": "#/$defs/b"}]}}}},
                                                    "allOf": [{"$ref": "#/$defs/a"}, {"$ref": "#/$defs/b"}]}
    yield "30,000 properties", REFUSED, {"type": "object", "properties": {f"p{i}": {} for i in range(30000)}}
    yield "19,000 properties, all required", REFUSED, {"type": "object", "properties": {n: {} for n in names}, "required": names}
    yield "19,000 names that are required", REFUSED, {"type": "object", "required": names}
    yield "6,000 properties merged 9,000 times", REFUSED, {"type": "object", "properties": {n: {} for n in names[:6000]}, "allOf": [{"minProperties": 0}] * 9000}
    yield "as many references", EITHER, {"type": "object", "properties": {n: {"$ref": "#/$defs/a"} for n in names[:9000]}, "$defs": {"a": {"type": "null"}}}
    yield "as many different references", EITHER, {"$defs": chain(6000, lambda i: {"type": "null"}, {"type": "null"}), "anyOf": [ref(i) for i in range(4000)]}
    yield "a chain of 4,000 references", REFUSED, {"$defs": chain(4000, lambda i: ref(i - 1), {"type": "null"}), **ref(3999)}
    yield "4,000 pairs of branches", REFUSED, {"oneOf": [{"type": "object", "properties": {"k": {"const": i}}, "required": ["k"]} for i in range(4000)]}
    yield "4,000 patterns", REFUSED, {"anyOf": [{"pattern": f"(a|b)*a(a|b){{10}}{i}"} for i in range(4000)]}
    yield "4,000 remainders", REFUSED, {"anyOf": [{"type": "integer", "minimum": i, "multipleOf": 400} for i in range(4000)]}
    yield "a remainder of 10^8", REFUSED, {"type": "integer", "multipleOf": 100000000}
    yield "a length of 100,000 over a pattern", REFUSED, {"pattern": "^[ab]*c?[ab]*$", "minLength": 90000, "maxLength": 100000}
    yield "a reference of 900,000 bytes", REFUSED, {"$ref": "#/" + "%41" * 300000}
    yield "900,000 bytes of keys", REFUSED, {"properties": {"k" * 3000 + str(i): {} for i in range(290)}, "additionalProperties": True, "type": "object"}
    yield "optional members beside others", 200, {"type": "object", "additionalProperties": True, "properties": {f"a name of some length that ends in {i}": {"type": "null"} for i in range(1500)}}
    yield "counted items in counted items", EITHER, {"type": "array", "maxItems": 99999, "items": {"type": "array", "maxItems": 99999, "items": {"type": "string", "maxLength": 99999}}}
    yield "an unknown keyword behind 19,000 schemas", REFUSED, {"allOf": [{}] * 18000 + [{"nullable": True}]}


def patterns():
    yield "60,000 open groups", REFUSED, "(" * 60000
    yield "60,000 groups", REFUSED, "(a)" * 60000
    yield "60,000 named groups", REFUSED, "".join(f"(?<n{i}>a)" for i in range(60000))
    yield "99 levels of groups", EITHER, "(" * 99 + "a" + ")*" * 99
    yield "60,000 alternatives", REFUSED, "|".join("ab" for _ in range(60000))
    yield "3,000 classes", REFUSED, "|".join(f"[a-z\\u{0x4000 + 2 * i:04x}]{{3}}" for i in range(3000))
    yield "a class of 5,000 ranges", REFUSED, "[" + "".join(chr(0x4000 + 2 * i) for i in range(5000)) + "]"
    yield "repeats of repeats", REFUSED, "((((a{1000}){1000}){1000}){1000}){1000}"
    yield "empty repeats of repeats", REFUSED, "((((((){90000}){90000}){90000}){90000}){9}){9}"
    yield "a DFA of 2^60 states", REFUSED, "[ab]*a[ab]{60}"
    yield "overlapping repeats", REFUSED, "(a?b?c?d?e?){900}(a|b|c)*(x|y){800}"
    yield "a repeat of 8,000", EITHER, "[a-z]{8000}"
    yield "a repeat of 100,000", REFUSED, "[a-z]{100000}"
    yield "16,000 braces", EITHER, "{" * 16000
    yield "a pattern of 1 MB", REFUSED, "\\u0041" * 170000


def choices():
    yield "4,096 choices", 200, [f"choice {i:04d} of them" for i in range(4096)]
    yield "100,000 choices", REFUSED, [f"c{i}" for i in range(100000)]
    yield "4,096 choices of 200 letters", EITHER, [f"{i:04d}" + "x" * 200 for i in range(4096)]


def tools():
    """Parameters of a strict function whose calls are tags: what types each has is asked before it is compiled."""
    ref = lambda i: {"$ref": f"#/$defs/d{i}"}  # noqa: E731
    defs = chain(8, lambda i: {"anyOf": [ref(i - 1)] * 4}, {"type": "string"})
    yield "400 parameters of 4^7 branches", REFUSED, {"type": "object", "properties": {f"p{i}": ref(7) for i in range(400)}, "$defs": defs}
    yield "40 parameters of 4^7 branches", EITHER, {"type": "object", "properties": {f"p{i}": ref(7) for i in range(40)}, "$defs": defs}
    names = [f"p{i}" for i in range(15000)]
    yield "15,000 parameters, all required", REFUSED, {"type": "object", "properties": {n: {"type": "null"} for n in names}, "required": names[::-1]}


def ask(server, field, what, salt):
    if field != "tools":
        return server.request("POST", "/v1/completions", {"prompt": "a", "max_tokens": 1, "cache_salt": salt, field: what})
    function = {"name": "f", "strict": True, "parameters": what}
    body = {"messages": [{"role": "user", "content": "a"}], "max_tokens": 1, "cache_salt": salt, "tool_choice": "required", "tools": [{"type": "function", "function": function}]}
    return server.request("POST", "/v1/chat/completions", body)


def measure(server, cases, rounds):
    """The least seconds of each case, what was said of it, and how many ended otherwise than they should."""
    server.request("POST", "/v1/completions", {"prompt": "a", "max_tokens": 1, "guided_json": {"type": "null"}})  # the vocabulary's trie is made once
    best, said, bad = [1e9] * len(cases), [""] * len(cases), set()
    for r in range(rounds):
        for i, (field, _, want, what) in enumerate(cases):
            before = server.metric("constraint_compile_seconds_total")
            status, _, answer = ask(server, field, what, f"{r} {i}")
            best[i] = min(best[i], server.metric("constraint_compile_seconds_total") - before)
            said[i] = "compiled" if status == 200 else json.loads(answer)["error"]["message"][-110:]
            # What a template writes of tools may be too long for the model: then nothing was compiled.
            if status not in ((200, 400) if want is EITHER else (want,)) or (field == "tools" and want == REFUSED and "steps" not in said[i]):
                bad.add(i)
                said[i] = f"{status} instead of {want}: {said[i]}"
    return best, said, len(bad)


def main():
    p = options.parser(__doc__)
    p.add_argument("--model", required=True)
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--limit", type=float, default=50)
    o = p.parse_args()
    cases = [(field, *c) for field, made in (("guided_json", schemas()), ("guided_regex", patterns()), ("guided_choice", choices()), ("tools", tools())) for c in made]
    try:
        server = served.Served(o.binary, o.model, "--ctx", "8192", "--slots", "2", "--tool-format", "qwen3-coder")
    except RuntimeError as e:
        raise Failure(str(e))
    try:
        best, said, bad = measure(server, cases, o.rounds)
    finally:
        server.stop()
    for (field, name, _, _), seconds, words in zip(cases, best, said):
        print(f"{field:14s} {name:44s} {1e3 * seconds:7.1f} ms  {words}")
    most = max(best)
    print(f"{len(cases)} constraints, {bad} ended otherwise than they should; the slowest {1e3 * most:.1f} ms ({cases[best.index(most)][1]}); the limit is {o.limit:g} ms")
    return 1 if bad or 1e3 * most > o.limit else 0


if __name__ == "__main__":
    run(main)
