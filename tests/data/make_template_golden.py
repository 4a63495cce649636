#!/usr/bin/env python3
"""Writes tests/data/template_golden.json: templates, their variables, and what Jinja2 makes of them with the settings of transformers.

    make_template_golden.py > template_golden.json        (needs jinja2)
"""
import json

import jinja2.ext
from jinja2.sandbox import ImmutableSandboxedEnvironment

MESSAGES = [{"role": "system", "content": " Be brief. "}, {"role": "user", "content": "Größe?\n"}, {"role": "assistant", "content": "", "tool_calls": [
    {"function": {"name": "look", "arguments": {"q": "a \"b\" é", "n": [1, 2.5, None, True]}}}]}, {"role": "tool", "content": "{}"}, {"role": "user", "content": "ok"}]
TEMPLATES = [
    "{% for m in messages %}{{'<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}",
    "{%- set ns = namespace(last=0) %}\n{%- for m in messages[::-1] %}\n    {%- if m.role == 'user' and not ns.last %}\n        {%- set ns.last = messages|length - loop.index0 %}\n    {%- endif %}\n{%- endfor %}\n{{ ns.last }}",
    "  {% if messages[0].role == 'system' %}\n  {{ messages[0].content | trim }}\n  {% endif %}\nend\n",
    "{%- for m in messages if m.tool_calls is defined %}{% for c in m.tool_calls %}{{ c.function | tojson }}|{{ c.function.arguments | tojson(indent=2) }}{% endfor %}{% endfor %}",
    "{% macro f(x, y='d') %}<{{ x }}:{{ y }}>{% endmacro %}{{ f(1) }}{{ f(2, y='z') }}{% set b %}{{ f(3) | upper }}{% endset %}[{{ b }}]",
    "{{ messages | map(attribute='role') | unique | sort | join(', ') }} {{ (messages | selectattr('role', 'equalto', 'user') | list)[-1].content }}",
    "{% for m in messages %}{% if loop.first %}{% continue %}{% elif loop.index > 3 %}{% break %}{% endif %}{{ loop.index0 }}{{ loop.previtem.role }}{{ loop.nextitem.role }} {% endfor %}",
    "{{ [1, 'a', none, 1.0, 1e16, {'k': (1,)}] }}{{ 7 // -2 }}{{ -7 % 3 }}{{ 2 ** 10 }}{{ 'x' * 3 }}{{ 'a' ~ 1 ~ none }}{{ nothing }}{{ nothing is defined }}{{ tools is none }}",
    "{{ 'a,b,,c'.split(',') }}{{ ' x '.strip() }}{{ 'Größe'[2:4] }}{{ 'abc'[::-1] }}{{ 'abc'.replace('b', 'x').upper() }}{{ 'x' if messages else 'y' }}",
    "a {#- no -#} b {%- raw %} {{ x }} {% endraw -%}  c",
]
env = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[jinja2.ext.loopcontrols])
env.filters["tojson"] = lambda x, indent=None: json.dumps(x, ensure_ascii=False, indent=indent)
rows = [{"template": s, "messages": MESSAGES, "text": env.from_string(s).render(messages=MESSAGES, tools=None, add_generation_prompt=True, bos_token="<s>", eos_token="</s>")}
        for s in TEMPLATES]
print("[\n" + ",\n".join(json.dumps(r) for r in rows) + "\n]")
