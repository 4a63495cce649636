#!/usr/bin/env python3
"""500 schemas as Pydantic and OpenAI's documents write them: every answer that a served model ends at temperature 1 is valid, its keys in the schema's order.

    schemas.py [SPECDEC] --model MODEL.gguf [--n 500] [--clients 8] [--max-tokens 1024] [--only INDEX] [--failed FILE]

Four of five schemas are `model_json_schema()` of a Pydantic model made by random recursion from its number (optional members, unions, literals, enums, nested and recursive
models, lists, tuples and dictionaries with bounds, constrained numbers and strings, dates, UUIDs, discriminated unions); the fifth is one of the strict forms that
OpenAI's guide describes (every member required, additionalProperties false, anyOf, $defs, recursion, nullable types). Each is asked for once over HTTP with
response_format. An answer that ends is read by json, by `jsonschema` with its format checker, and by the Pydantic model itself; its keys are compared with the schema's
order. An answer that meets max_tokens is counted as `length`. Beside each schema a copy with a keyword that the server does not enforce, at a random place, must be a
400 that names it. Exit 1: an answer that ended is invalid or out of order, a schema or a copy is not treated so, or more than 2 % of the answers met max_tokens. Exit 2: it could not be measured.

Needs pydantic >= 2 and jsonschema[format].
"""
import concurrent.futures
import copy
import datetime
import enum
import json
import pathlib
import random
import sys
import typing
import uuid

sys.path[:0] = [str(pathlib.Path(__file__).resolve().parent / "lib"), str(pathlib.Path(__file__).resolve().parents[1] / "e2e" / "lib")]
import options  # noqa: E402
import served  # noqa: E402
from script import Failure, run  # noqa: E402

try:
    import jsonschema
    import pydantic
    from pydantic import Field
except ImportError as e:
    print(f"schemas.py: {e}; it needs pydantic >= 2 and jsonschema[format]", file=sys.stderr)
    sys.exit(2)

WORDS = ("name", "title", "city", "colour", "size", "price", "owner", "status", "count", "note", "kind", "code", "place", "weight", "label", "level", "parent", "source",
         "target", "amount", "unit", "team", "role", "score", "reason", "language", "country", "product", "brand", "date_of_birth", "e-mail", "first name", "größe")
VALUES = ("red", "green", "blue", "small", "large", "open", "closed", "high", "low", "north", "south", "pending", "done", "it's", "50%", "café")
PATTERNS = ("^[A-Z]{2,4}-[0-9]{3,6}$", "^#[0-9a-f]{6}$", "^\\d{3}-\\d{4}$", "^(?:en|de|fr)(?:_[A-Z]{2})?$", "^[a-z]+(?:[ -][a-z]+){0,3}$", "^\\+?[0-9 ]{6,14}$", "^v\\d+\\.\\d+(\\.\\d+)?$")
UNENFORCED = ({"nullable": True}, {"unevaluatedItems": False}, {"dependentSchemas": {}}, {"$dynamicAnchor": "here"}, {"$anchor": "here"}, {"$id": "own"},
              {"unevaluatedProperties": False}, {"dependencies": {}}, {"format": "iri"}, {"format": "regex"}, {"not": {"const": 17}}, {"if": {"const": 17}},
              {"patternProperties": {"^x": {}}}, {"propertyNames": {"maxLength": 30}}, {"contains": {}}, {"dependentRequired": {}}, {"minLength": "3"}, {"enumNames": []})


# ---- Pydantic models by random recursion

class Maker:
    def __init__(self, rnd):
        self.rnd, self.n, self.open = rnd, 0, []

    def names(self, n):
        return self.rnd.sample(WORDS, n)

    def number(self):
        r = self.rnd
        low = r.randint(-50, 50)
        if r.random() < 0.5:
            bounds = {}
            if r.random() < 0.6:
                bounds[r.choice(("ge", "gt"))] = low
            if r.random() < 0.6:
                bounds[r.choice(("le", "lt"))] = low + r.choice((3, 10, 100, 12345))
            if r.random() < 0.2 and len(bounds) < 2:
                bounds["multiple_of"] = r.choice((2, 5, 10, 7))
            return typing.Annotated[int, Field(**bounds)] if bounds else int
        bounds = {}
        if r.random() < 0.6:
            bounds[r.choice(("ge", "gt"))] = low / 4
        if r.random() < 0.6:
            bounds[r.choice(("le", "lt"))] = low / 4 + r.choice((0.5, 1.25, 100.0))
        return typing.Annotated[float, Field(**bounds)] if bounds else float

    def text(self):
        r = self.rnd
        kind = r.random()
        if kind < 0.35:
            return str
        if kind < 0.65:
            least = r.choice((0, 0, 1, 3))
            return typing.Annotated[str, Field(min_length=least, max_length=least + r.choice((5, 20, 80)))]
        return typing.Annotated[str, Field(pattern=r.choice(PATTERNS))]

    def leaf(self):
        r = self.rnd
        kind = r.randrange(12)
        if kind < 3:
            return self.text()
        if kind < 5:
            return self.number()
        if kind == 5:
            return bool
        if kind == 6:
            return typing.Literal[tuple(r.sample(VALUES, r.randint(1, 5)))]
        if kind == 7:
            self.n += 1
            return enum.Enum(f"Choice{self.n}", {f"v{i}": v for i, v in enumerate(r.sample(VALUES, r.randint(2, 6)))}, type=str)
        if kind == 8:
            return typing.Literal[tuple(r.sample((1, 2, 3, "a", "b", True, None), r.randint(2, 4)))]
        return r.choice((datetime.date, datetime.datetime, datetime.time, uuid.UUID))

    def type(self, depth):
        r = self.rnd
        kind = r.random()
        if depth <= 0 or kind < 0.4:
            return self.leaf()
        if kind < 0.52:
            return typing.Optional[self.type(depth - 1)]
        if kind < 0.60:
            return typing.Union[tuple(self.type(depth - 1) for _ in range(r.randint(2, 3)))]
        if kind < 0.74:
            least = r.choice((0, 0, 1, 2))
            return typing.Annotated[list[self.type(depth - 1)], Field(min_length=least, max_length=least + r.randint(1, 4))]
        if kind < 0.79:
            return tuple[tuple(self.leaf() for _ in range(r.randint(1, 3)))]
        if kind < 0.86:
            return typing.Annotated[dict[str, self.type(depth - 1)], Field(max_length=r.randint(1, 4))]
        if kind < 0.92:
            return self.discriminated(depth)
        return self.model(depth - 1)

    def discriminated(self, depth):
        tag, kinds = "kind", self.rnd.sample(VALUES[:10], self.rnd.randint(2, 3))
        members = [self.model(depth - 1, first=(tag, typing.Literal[k])) for k in kinds]
        return typing.Annotated[typing.Union[tuple(members)], Field(discriminator=tag)]

    def model(self, depth, first=None):
        r = self.rnd
        self.n += 1
        name, fields, recursive = f"Model{self.n}", {}, depth > 0 and r.random() < 0.2
        if first:
            fields[first[0]] = (first[1], ...)
        for i, word in enumerate(self.names(r.randint(1, 5))):
            if word in ("kind",):
                continue
            key = word.replace(" ", "_").replace("-", "_")
            about = {"description": f"The {word}."} if r.random() < 0.3 else {}
            if key != word:
                about["alias"] = word
            if r.random() < 0.25:
                fields[key] = (typing.Optional[self.type(depth)], Field(default=None, **about))
            else:
                fields[key] = (self.type(depth), Field(**about))
        if recursive:
            fields["children"] = (typing.Annotated[list[name], Field(max_length=2)], ...) if r.random() < 0.5 else (typing.Optional[name], None)
        config = pydantic.ConfigDict(extra=r.choice(("ignore", "forbid")), title=r.choice((None, "A " + name)))
        made = pydantic.create_model(name, __config__=config, **fields)
        if recursive:
            made.model_rebuild(_types_namespace={name: made})
        return made


# ---- forms that OpenAI's guide describes, each with words of its own

def strict(properties, **more):
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False, **more}


def openai_form(r):
    words = r.sample([w for w in WORDS if w.isidentifier()], 6)
    text, values = {"type": "string"}, list(r.sample(VALUES, 4))
    forms = (
        lambda: strict({"steps": {"type": "array", "items": strict({words[0]: text, words[1]: text})}, "answer": text}),
        lambda: strict({words[0]: text, words[1]: {"type": "string", "format": "date"}, words[2]: {"type": "array", "items": text}}),
        lambda: strict({words[0]: {"type": ["string", "null"], "description": "May be empty."}, words[1]: {"type": "string", "enum": values}, words[2]: {"type": "boolean"}}),
        lambda: strict({"type": {"type": "string", "enum": ["box", "row", "button", "field"]}, words[0]: text,
                        "children": {"type": "array", "items": {"$ref": "#"}, "maxItems": 3},
                        "attributes": {"type": "array", "items": strict({"name": text, "value": text}), "maxItems": 2}}),
        lambda: strict({"first": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]}},
                       **{"$defs": {"node": strict({words[0]: {"type": "number"}, "next": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]}})}}),
        lambda: strict({"item": {"anyOf": [strict({words[0]: text, words[1]: {"type": "number"}}), strict({words[2]: text, words[3]: text, words[4]: text})]}}),
        lambda: strict({words[0]: {"type": "string", "pattern": "^@[a-zA-Z0-9_]+$"}, words[1]: {"type": "string", "format": "email"}, words[2]: {"type": "string", "format": "ipv4"}}),
        lambda: strict({words[0]: {"type": "number", "minimum": -130, "maximum": 130}, words[1]: {"type": "integer", "multipleOf": 5, "exclusiveMinimum": 0},
                        words[2]: {"type": "array", "minItems": 1, "maxItems": 3, "items": {"type": "integer"}}}),
        lambda: strict({words[0]: {"$ref": "#/$defs/part"}, words[1]: {"type": "array", "items": {"$ref": "#/$defs/part"}, "maxItems": 3}},
                       **{"$defs": {"part": strict({words[2]: text, words[3]: {"type": ["integer", "null"]}})}}),
        lambda: strict({words[0]: {"type": "string", "format": "date-time"}, words[1]: {"type": "string", "format": "duration"}, words[2]: {"type": "string", "format": "hostname"},
                        words[3]: {"type": "string", "format": "uuid"}, words[4]: {"const": values[0]}}),
    )
    return r.choice(forms)()


def make(index):
    """(schema, the Pydantic model or None) of a number."""
    r = random.Random(index * 2654435761 + 1)
    if index % 5 == 4:
        return openai_form(r), None
    model = Maker(r).model(3)
    return model.model_json_schema(), model


# ---- what an answer must be

def resolve(root, schema):
    for _ in range(50):
        if not isinstance(schema, dict) or "$ref" not in schema:
            break
        at = root
        for key in schema["$ref"].lstrip("#").split("/")[1:]:
            at = at[key.replace("~1", "/").replace("~0", "~")]
        schema = at
    return schema


def in_order(root, schema, value):
    """Whether the members of every object stand in their schema's order, those it does not list behind them."""
    schema = resolve(root, schema)
    if not isinstance(schema, dict):
        return True
    branches = schema.get("anyOf") or schema.get("oneOf")
    if branches:
        fitting = [b for b in branches if jsonschema.Draft202012Validator({**b, "$defs": root.get("$defs", {})} if resolve(root, b) is not root else root).is_valid(value)]
        return any(in_order(root, b, value) for b in fitting)
    if isinstance(value, dict):
        listed = list(schema.get("properties", {}))
        places = [listed.index(k) if k in listed else len(listed) for k in value]
        more = schema.get("additionalProperties", True)
        return places == sorted(places) and all(in_order(root, schema.get("properties", {}).get(k, more), v) for k, v in value.items())
    if isinstance(value, list):
        prefix = schema.get("prefixItems", [])
        return all(in_order(root, prefix[i] if i < len(prefix) else schema.get("items", True), v) for i, v in enumerate(value))
    return True


def fault(schema, model, text):
    """What is wrong with an answer; None: nothing."""
    try:
        value = json.loads(text)
    except ValueError as e:
        return f"no JSON: {e}"
    checker = jsonschema.Draft202012Validator(schema, format_checker=jsonschema.Draft202012Validator.FORMAT_CHECKER)
    wrong = next(checker.iter_errors(value), None)
    if wrong:
        return f"jsonschema: {wrong.message[:200]}"
    if model:
        try:
            model.model_validate_json(text)
        except pydantic.ValidationError as e:
            return f"pydantic: {str(e)[:300]}"
    return None if in_order(schema, schema, value) else "keys are out of order"


def places(schema):
    """Every schema in a schema."""
    yield schema
    for key in ("properties", "$defs"):
        for part in schema.get(key, {}).values():
            yield from places(part) if isinstance(part, dict) else ()
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), dict):
            yield from places(schema[key])
    for key in ("anyOf", "oneOf", "allOf", "prefixItems"):
        for part in schema.get(key, []):
            yield from places(part) if isinstance(part, dict) else ()


def spoil(schema, index):
    """A copy with a keyword that is not enforced at a place that was not one's constant, and the keyword."""
    r = random.Random(index * 40503 + 7)
    schema = copy.deepcopy(schema)
    open_ones = [s for s in places(schema) if "enum" not in s and "const" not in s]
    where, what = r.choice(open_ones), r.choice(UNENFORCED)
    key = next(iter(what))
    if key == "$id" and where is schema:
        what, key = {"$anchor": "here"}, "$anchor"
    where.update(what)
    return schema, what[key] if key == "format" else key


# ---- asking

MATCHING = dict(zip(PATTERNS + ("^@[a-zA-Z0-9_]+$",), ("AB-1234", "#00ff7f", "555-0199", "de_DE", "red small-open", "+49 30 1234", "v1.2.3", "@someone")))
FORMATTED = {"date": "2024-05-17", "date-time": "2024-05-17T08:30:00Z", "time": "08:30:00Z", "duration": "P3D", "uuid": "6f1c8e0a-52d4-4b7e-9a33-0c5d1e7f8b21",
             "email": "ann@example.org", "hostname": "www.example.org", "ipv4": "192.0.2.17"}


def example(root, schema, r, depth=0):
    """A short value that the schema allows; where it may end a recursion, it does."""
    schema = resolve(root, schema)
    if "const" in schema:
        return schema["const"]
    if "enum" in schema:
        return r.choice(schema["enum"])
    branches = schema.get("anyOf") or schema.get("oneOf")
    if branches:
        nothing = [b for b in branches if b.get("type") == "null"]
        return example(root, nothing[0] if nothing and depth else r.choice(branches), r, depth + 1)
    kind = schema.get("type", "string")
    kind = kind[0] if isinstance(kind, list) else kind
    if kind == "object":
        required = schema.get("required", [])
        value = {k: example(root, v, r, depth + 1) for k, v in schema.get("properties", {}).items() if k in required}
        more = schema.get("additionalProperties")
        return value | {k: example(root, more, r, depth + 1) for k in r.sample(WORDS, 1)} if isinstance(more, dict) else value
    if kind == "array":
        parts = schema.get("prefixItems", [])
        parts = parts + [schema["items"]] * (max(schema.get("minItems", 0), 0 if depth > 1 or "$ref" in schema["items"] else 1) - len(parts)) if "items" in schema else parts
        return [example(root, part, r, depth + 1) for part in parts]
    if kind in ("integer", "number"):
        step = schema.get("multipleOf", 1 if kind == "integer" else 0.25)
        low = schema.get("minimum", schema.get("exclusiveMinimum", schema.get("maximum", schema.get("exclusiveMaximum", 7)) - 2 * step))
        value = -(-low // step) * step
        return value + step if value == schema.get("exclusiveMinimum") else value
    if kind in ("boolean", "null"):
        return r.random() < 0.5 if kind == "boolean" else None
    if "pattern" in schema or "format" in schema:
        return MATCHING[schema["pattern"]] if "pattern" in schema else FORMATTED[schema["format"]]
    return r.choice(VALUES)[:schema.get("maxLength", 20)].ljust(schema.get("minLength", 0), "e")


def ask(server, schema, like, index, max_tokens):
    """Asks for a value of a schema, in a dialogue about `like`, which it is or is a copy of. Four values are in the dialogue: without them a small model writes strings that it never closes, and nests what may be nested."""
    r = random.Random(index)
    wish = f"Give one short example of a {schema.get('title', 'record')} as JSON, with members {', '.join(list(resolve(schema, schema).get('properties', {}))[:6])}."
    messages = [{"role": "user", "content": wish}]
    for _ in range(4):
        value = example(like, like, r)
        messages += [{"role": "assistant", "content": json.dumps(value, ensure_ascii=False)}, {"role": "user", "content": "Give another one, as short."}]
    body = {"messages": messages, "temperature": 1, "seed": index, "max_tokens": max_tokens,
            "response_format": {"type": "json_schema", "json_schema": {"name": f"schema_{index}", "strict": True, "schema": schema}}}
    status, _, answer = server.request("POST", "/v1/chat/completions", body, timeout=3600)
    return status, json.loads(answer)


def one(server, index, o):
    """(group, result, what is said of it) of a schema."""
    schema, model = make(index)
    group = "pydantic" if model else "openai"
    spoiled, keyword = spoil(schema, index)
    status, answer = ask(server, spoiled, schema, index, 1)
    if status != 400 or keyword not in answer["error"]["message"]:
        return group, "unenforced", f"{keyword}: {status} {json.dumps(answer)[:300]}", schema, ""
    status, answer = ask(server, schema, schema, index, o.max_tokens)
    if status != 200:
        return group, "refused", f"{status} {answer['error']['message']}", schema, ""
    choice = answer["choices"][0]
    text = choice["message"]["content"]
    if choice["finish_reason"] == "length":
        return group, "length", "", schema, text
    wrong = fault(schema, model, text)
    return (group, "invalid", wrong, schema, text) if wrong else (group, "valid", str(answer["usage"]["completion_tokens"]), schema, text)


def ask_all(server, numbers, o):
    """How many schemas of each (group, result), the valid answers' tokens, and what the server counted."""
    table, tokens = {}, 0
    kept = open(o.failed, "w") if o.failed else None
    with concurrent.futures.ThreadPoolExecutor(o.clients) as pool:
        for index, (group, result, said, schema, text) in zip(numbers, pool.map(lambda i: one(server, i, o), numbers)):
            if index and index % 50 == 0:
                print(f"# {index}: {sum(table.values())} answers, {sum(n for (_, r), n in table.items() if r == 'valid')} valid", file=sys.stderr, flush=True)
            table[group, result] = table.get((group, result), 0) + 1
            tokens += int(said) if result == "valid" else 0
            if result not in ("valid", "length"):
                print(f"# schema {index}: {result}: {said}", flush=True)
            if kept and result != "valid":
                print(json.dumps({"index": index, "result": result, "said": said, "schema": schema, "text": text}), file=kept, flush=True)
    counted = {r: server.metric_of("constraint_checks_total", f'result="{r}"') for r in ("valid", "failed", "unchecked")}
    counted.update((m, server.metric(f"constraint_{m}")) for m in ("compiled_total", "compile_seconds_total", "refused_total", "masks_total", "mask_seconds_total"))
    return table, tokens, counted


def main():
    p = options.parser(__doc__)
    p.add_argument("--model", required=True)
    p.add_argument("--n", type=int, default=500)
    p.add_argument("--clients", type=int, default=8)
    p.add_argument("--max-tokens", type=int, default=1024)
    p.add_argument("--only", type=int, default=-1)
    p.add_argument("--failed", help="a file for the schemas and answers that are not valid")
    o = p.parse_args()
    try:
        server = served.Served(o.binary, o.model, "--ctx", "4096", "--slots", str(o.clients), "--insecure-no-key")
    except RuntimeError as e:
        raise Failure(str(e))
    numbers = range(o.n) if o.only < 0 else [o.only]
    try:
        table, tokens, counted = ask_all(server, numbers, o)
    finally:
        server.stop()
    results = ("valid", "length", "invalid", "refused", "unenforced")
    print(f"{'schemas':10s}" + "".join(f"{r:>12s}" for r in results))
    for group in ("pydantic", "openai", "all"):
        row = [sum(n for (g, r), n in table.items() if r == result and group in (g, "all")) for result in results]
        print(f"{group:10s}" + "".join(f"{n:12d}" for n in row))
    valid, length, *bad = row
    tried = counted["compiled_total"] + counted["refused_total"]
    print(f"{tokens / max(valid, 1):.0f} tokens a valid answer; the server's own checks: " + ", ".join(f"{counted[r]:.0f} {r}" for r in ("valid", "failed", "unchecked")) +
          f"; {tried:.0f} constraints compiled or refused in {1e3 * counted['compile_seconds_total'] / max(tried, 1):.1f} ms each; "
          f"{counted['masks_total']:.0f} masks, {counted['mask_seconds_total']:.2f} s")
    return 1 if any(bad) or length > 0.02 * len(numbers) or counted["failed"] else 0


if __name__ == "__main__":
    run(main)
