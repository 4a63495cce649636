#!/usr/bin/env python3
"""Writes tests/data/template_expressions.json: {"context": variables, "rows": [[template, what Jinja2 makes of it as transformers sets it up, or null where it refuses], ...]}, for the tables of tests/parity/template.py.

    make_template_expressions.py > template_expressions.json        (needs jinja2)
"""
import json
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "parity"))
sys.argv[1:] = ["", ""]
import template  # noqa: E402

compile_template = template.jinja()
rows = []
for kind, source in template.one_by_one():
    text, _ = template.rendered(compile_template, source, messages=[], tools=None, documents=None, add_generation_prompt=True, bos_token="<s>", eos_token="</s>", **template.CONTEXT)
    rows.append([source, text])
print('{"context": ' + json.dumps(template.CONTEXT) + ', "rows": [\n' + ",\n".join(json.dumps(r, ensure_ascii=False) for r in rows) + "\n]}")
