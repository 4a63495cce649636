#!/usr/bin/env python3
"""Our chat templates against Jinja2 as transformers calls it: the templates of the test models and others in the manner of the large families with 40
conversations each, and some hundred expressions and statements one by one.

    template.py SPECDEC MODELS_DIR

TAP on standard output. Needs transformers, jinja2 and gguf; what is missing is a printed skip.
"""
import os
import random
import re
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import token_common as common  # noqa: E402
from token_common import MODELS, Probe, hugging_face, ok, skip  # noqa: E402

SUITE = "template"
SPECDEC, FOLDER = sys.argv[1], sys.argv[2]

TOOLS = [
    {"type": "function", "function": {"name": "get_weather", "description": "The weather of a place: \"now\" & <later>", "parameters": {
        "type": "object", "properties": {"city": {"type": "string", "description": "Größe, 東京"}, "days": {"type": "integer", "minimum": 1, "default": 1.5},
                                         "unit": {"type": "string", "enum": ["°C", "°F"]}}, "required": ["city"]}}},
    {"type": "function", "function": {"name": "nothing", "description": "", "parameters": {"type": "object", "properties": {}}}},
]
TEXTS = ["Hello!", "", " spaces around \n", "Zwei\nZeilen\n\n", "日本語のテキスト 🎌", "quotes \" and ' and \\ and {{ braces }} {% tag %}", "<|im_end|> in the text",
         "tab\there", "<think>\nhidden\n</think>\n\nshown", "a" * 300, "émigré naïve", "1 < 2 && 3 > 2"]


def conversations(seed=3):
    """40 of (messages, tools, add_generation_prompt, further variables)."""
    r = random.Random(seed)
    for i in range(40):
        messages = []
        if i % 3 == 0:
            messages.append({"role": "system", "content": r.choice(TEXTS)})
        with_tools = i % 4 == 1
        for _ in range(r.randrange(1, 5)):
            messages.append({"role": "user", "content": r.choice(TEXTS)})
            if with_tools and r.random() < 0.7:
                calls = [{"type": "function", "id": f"call{k:05d}", "function": {"name": "get_weather", "arguments": {
                    "city": r.choice(TEXTS), "days": r.choice((1, -2, 2.5, 1e21, True, None)), "list": [1, "é", {"a": []}]}}} for k in range(r.choice((1, 1, 2)))]
                messages.append({"role": "assistant", "content": r.choice(("", "Let me see.")), "tool_calls": calls})
                for c in calls:
                    messages.append({"role": "tool", "name": "get_weather", "tool_call_id": c["id"], "content": r.choice(('{"temp": 21}', "sunny", ""))})
            message = {"role": "assistant", "content": r.choice(TEXTS)}
            if i % 7 == 2:
                message["reasoning_content"] = "because\n"
            messages.append(message)
        if i % 2 == 0 or r.random() < 0.5:
            messages.append({"role": "user", "content": r.choice(TEXTS)})
        extra = {"enable_thinking": i % 5 != 0} if i % 2 else {}
        yield messages, (TOOLS if with_tools else None), bool(i % 2 == 0 or i % 5 == 0), extra


# Templates in the manner of the families: their constructs, with texts of our own.
FAMILIES = {
    "Llama 3.1": r"""{{- bos_token }}
{%- if custom_tools is defined %}
    {%- set tools = custom_tools %}
{%- endif %}
{%- if not tools_in_user_message is defined %}
    {%- set tools_in_user_message = true %}
{%- endif %}
{%- if not date_string is defined %}
    {%- if strftime_now is defined %}
        {%- set date_string = strftime_now("%d %b %Y") %}
    {%- else %}
        {%- set date_string = "26 Jul 2024" %}
    {%- endif %}
{%- endif %}
{%- if not tools is defined %}
    {%- set tools = none %}
{%- endif %}
{#- The system message is taken out -#}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "" %}
{%- endif %}
{{- "<|start_header_id|>system<|end_header_id|>\n\n" }}
{%- if tools is not none %}
    {{- "Environment: shell\n" }}
{%- endif %}
{%- if builtin_tools is defined %}
    {{- "Tools: " + builtin_tools | reject('equalto', 'code') | join(", ") + "\n\n"}}
{%- endif %}
{{- "Today: " + date_string + "\n\n" }}
{%- if tools is not none and not tools_in_user_message %}
    {%- for t in tools %}
        {{- t | tojson(indent=4) }}
        {{- "\n\n" }}
    {%- endfor %}
{%- endif %}
{{- system_message }}
{{- "<|eot_id|>" }}
{%- if tools_in_user_message and not tools is none %}
    {%- if messages | length != 0 %}
        {%- set first_user_message = messages[0]['content']|trim %}
        {%- set messages = messages[1:] %}
    {%- else %}
        {{- raise_exception("No first user message") }}
{%- endif %}
    {{- '<|start_header_id|>user<|end_header_id|>\n\n' -}}
    {{- "Call one of these:\n\n" }}
    {%- for t in tools %}
        {{- t | tojson(indent=4) }}
        {{- "\n\n" }}
    {%- endfor %}
    {{- first_user_message + "<|eot_id|>"}}
{%- endif %}
{%- for message in messages %}
    {%- if not (message.role == 'ipython' or message.role == 'tool' or 'tool_calls' in message) %}
        {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n'+ message['content'] | trim + '<|eot_id|>' }}
    {%- elif 'tool_calls' in message %}
        {%- if not message.tool_calls|length == 1 %}
            {{- raise_exception("One call at a time") }}
        {%- endif %}
        {%- set tool_call = message.tool_calls[0].function %}
        {%- if builtin_tools is defined and tool_call.name in builtin_tools %}
            {%- for arg_name, arg_val in tool_call.arguments | items %}
                {{- arg_name + '="' + arg_val + '"' }}
                {%- if not loop.last %}
                    {{- ", " }}
                {%- endif %}
            {%- endfor %}
        {%- else  %}
            {{- '<|start_header_id|>assistant<|end_header_id|>\n\n' -}}
            {{- '{"name": "' + tool_call.name + '", ' }}
            {{- '"parameters": ' }}
            {{- tool_call.arguments | tojson }}
            {{- "}" }}
        {%- endif %}
        {{- "<|eot_id|>" }}
    {%- elif message.role == "tool" or message.role == "ipython" %}
        {{- "<|start_header_id|>ipython<|end_header_id|>\n\n" }}
        {%- if message.content is mapping or message.content is iterable %}
            {{- message.content | tojson }}
        {%- else %}
            {{- message.content }}
        {%- endif %}
        {{- "<|eot_id|>" }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\n\n' }}
{%- endif %}
""",
    "Qwen 3": r"""{%- if tools %}
    {{- '<|im_start|>system\n' }}
    {%- if messages[0].role == 'system' %}
        {{- messages[0].content + '\n\n' }}
    {%- endif %}
    {{- "# Tools\n<tools>" }}
    {%- for tool in tools %}
        {{- "\n" }}
        {{- tool | tojson }}
    {%- endfor %}
    {{- "\n</tools>\n{\"name\": <function-name>}<|im_end|>\n" }}
{%- else %}
    {%- if messages[0].role == 'system' %}
        {{- '<|im_start|>system\n' + messages[0].content + '<|im_end|>\n' }}
    {%- endif %}
{%- endif %}
{%- set ns = namespace(multi_step_tool=true, last_query_index=messages|length - 1) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if ns.multi_step_tool and message.role == "user" and message.content is string and not(message.content.startswith('<tool_response>') and message.content.endswith('</tool_response>')) %}
        {%- set ns.multi_step_tool = false %}
        {%- set ns.last_query_index = index %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- if message.content is string %}
        {%- set content = message.content %}
    {%- else %}
        {%- set content = '' %}
    {%- endif %}
    {%- if (message.role == "user") or (message.role == "system" and not loop.first) %}
        {{- '<|im_start|>' + message.role + '\n' + content + '<|im_end|>' + '\n' }}
    {%- elif message.role == "assistant" %}
        {%- set reasoning_content = '' %}
        {%- if message.reasoning_content is string %}
            {%- set reasoning_content = message.reasoning_content %}
        {%- else %}
            {%- if '</think>' in content %}
                {%- set reasoning_content = content.split('</think>')[0].rstrip('\n').split('<think>')[-1].lstrip('\n') %}
                {%- set content = content.split('</think>')[-1].lstrip('\n') %}
            {%- endif %}
        {%- endif %}
        {%- if loop.index0 > ns.last_query_index %}
            {%- if loop.last or (not loop.last and reasoning_content) %}
                {{- '<|im_start|>' + message.role + '\n<think>\n' + reasoning_content.strip('\n') + '\n</think>\n\n' + content.lstrip('\n') }}
            {%- else %}
                {{- '<|im_start|>' + message.role + '\n' + content }}
            {%- endif %}
        {%- else %}
            {{- '<|im_start|>' + message.role + '\n' + content }}
        {%- endif %}
        {%- if message.tool_calls %}
            {%- for tool_call in message.tool_calls %}
                {%- if (loop.first and content) or (not loop.first) %}
                    {{- '\n' }}
                {%- endif %}
                {%- if tool_call.function %}
                    {%- set tool_call = tool_call.function %}
                {%- endif %}
                {{- '<tool_call>\n{"name": "' }}
                {{- tool_call.name }}
                {{- '", "arguments": ' }}
                {%- if tool_call.arguments is string %}
                    {{- tool_call.arguments }}
                {%- else %}
                    {{- tool_call.arguments | tojson }}
                {%- endif %}
                {{- '}\n</tool_call>' }}
            {%- endfor %}
        {%- endif %}
        {{- '<|im_end|>\n' }}
    {%- elif message.role == "tool" %}
        {%- if loop.first or (messages[loop.index0 - 1].role != "tool") %}
            {{- '<|im_start|>user' }}
        {%- endif %}
        {{- '\n<tool_response>\n' }}
        {{- content }}
        {{- '\n</tool_response>' }}
        {%- if loop.last or (messages[loop.index0 + 1].role != "tool") %}
            {{- '<|im_end|>\n' }}
        {%- endif %}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\n\n</think>\n\n' }}
    {%- endif %}
{%- endif %}""",
    "Mistral": r"""{%- if messages[0]["role"] == "system" %}
    {%- set system_message = messages[0]["content"] %}
    {%- set loop_messages = messages[1:] %}
{%- else %}
    {%- set loop_messages = messages %}
{%- endif %}
{%- if not tools is defined %}
    {%- set tools = none %}
{%- endif %}
{%- set user_messages = loop_messages | selectattr("role", "equalto", "user") | list %}

{#- Roles must alternate, apart from tools. #}
{%- set ns = namespace() %}
{%- set ns.index = 0 %}
{%- for message in loop_messages %}
    {%- if not (message.role == "tool" or message.role == "tool_results" or (message.tool_calls is defined and message.tool_calls is not none)) %}
        {%- if (message["role"] == "user") != (ns.index % 2 == 0) %}
            {{- raise_exception("Roles must alternate user/assistant") }}
        {%- endif %}
        {%- set ns.index = ns.index + 1 %}
    {%- endif %}
{%- endfor %}

{{- bos_token }}
{%- for message in loop_messages %}
    {%- if message["role"] == "user" %}
        {%- if tools is not none and (message == user_messages[-1]) %}
            {{- "[AVAILABLE_TOOLS] [" }}
            {%- for tool in tools %}
                {%- set tool = tool.function %}
                {{- '{"type": "function", "function": {' }}
                {%- for key, val in tool.items() if key != "return" %}
                    {%- if val is string %}
                        {{- '"' + key + '": "' + val + '"' }}
                    {%- else %}
                        {{- '"' + key + '": ' + val|tojson }}
                    {%- endif %}
                    {%- if not loop.last %}
                        {{- ", " }}
                    {%- endif %}
                {%- endfor %}
                {{- "}}" }}
                {%- if not loop.last %}
                    {{- ", " }}
                {%- else %}
                    {{- "]" }}
                {%- endif %}
            {%- endfor %}
            {{- "[/AVAILABLE_TOOLS]" }}
        {%- endif %}
        {%- if loop.last and system_message is defined %}
            {{- "[INST] " + system_message + "\n\n" + message["content"] + "[/INST]" }}
        {%- else %}
            {{- "[INST] " + message["content"] + "[/INST]" }}
        {%- endif %}
    {%- elif message.tool_calls is defined and message.tool_calls is not none %}
        {{- "[TOOL_CALLS] [" }}
        {%- for tool_call in message.tool_calls %}
            {%- set out = tool_call.function|tojson %}
            {{- out[:-1] }}
            {%- if not tool_call.id is defined or tool_call.id|length != 9 %}
                {{- raise_exception("ids of 9 characters") }}
            {%- endif %}
            {{- ', "id": "' + tool_call.id + '"}' }}
            {%- if not loop.last %}
                {{- ", " }}
            {%- else %}
                {{- "]" + eos_token }}
            {%- endif %}
        {%- endfor %}
    {%- elif message["role"] == "assistant" %}
        {{- " " + message["content"]|trim + eos_token}}
    {%- elif message["role"] == "tool_results" or message["role"] == "tool" %}
        {%- if message.content is defined and message.content.content is defined %}
            {%- set content = message.content.content %}
        {%- else %}
            {%- set content = message.content %}
        {%- endif %}
        {{- '[TOOL_RESULTS] {"content": ' + content|string + ", " }}
        {{- '"call_id": "' + message.tool_call_id + '"}[/TOOL_RESULTS]' }}
    {%- else %}
        {{- raise_exception("Only user and assistant roles") }}
    {%- endif %}
{%- endfor %}
""",
    "Gemma": r"""{{ bos_token }}
{%- if messages[0]['role'] == 'system' -%}
    {%- if messages[0]['content'] is string -%}
        {%- set first_user_prefix = messages[0]['content'] + '

' -%}
    {%- else -%}
        {%- set first_user_prefix = messages[0]['content'][0]['text'] + '

' -%}
    {%- endif -%}
    {%- set loop_messages = messages[1:] -%}
{%- else -%}
    {%- set first_user_prefix = "" -%}
    {%- set loop_messages = messages -%}
{%- endif -%}
{%- for message in loop_messages -%}
    {%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) -%}
        {{ raise_exception("Roles must alternate") }}
    {%- endif -%}
    {%- if (message['role'] == 'assistant') -%}
        {%- set role = "model" -%}
    {%- else -%}
        {%- set role = message['role'] -%}
    {%- endif -%}
    {{ '<start_of_turn>' + role + '
' + (first_user_prefix if loop.first else "") }}
    {%- if message['content'] is string -%}
        {{ message['content'] | trim }}
    {%- elif message['content'] is iterable -%}
        {%- for item in message['content'] -%}
            {%- if item['type'] == 'image' -%}
                {{ '<start_of_image>' }}
            {%- elif item['type'] == 'text' -%}
                {{ item['text'] | trim }}
            {%- endif -%}
        {%- endfor -%}
    {%- else -%}
        {{ raise_exception("Invalid content type") }}
    {%- endif -%}
    {{ '<end_of_turn>
' }}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{'<start_of_turn>model
'}}
{%- endif -%}
""",
    "Phi 3": r"""{% for message in messages %}{% if message['role'] == 'system' and message['content'] %}{{'<|system|>
' + message['content'] + '<|end|>
'}}{% elif message['role'] == 'user' %}{{'<|user|>
' + message['content'] + '<|end|>
'}}{% elif message['role'] == 'assistant' %}{{'<|assistant|>
' + message['content'] + '<|end|>
'}}{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>
' }}{% else %}{{ eos_token }}{% endif %}""",
    "macros": r"""
{%- macro show(value, depth=0, mark="-") -%}
    {%- if value is mapping -%}
        {%- for k, v in value|dictsort -%}
{{ "\n" ~ "  " * depth ~ mark ~ " " ~ k ~ ":" }}{{ show(v, depth + 1) }}
        {%- endfor -%}
    {%- elif value is iterable and value is not string -%}
        {%- for v in value -%}
            {{ show(v, depth + 1, mark="*") }}{{ "," if not loop.last }}
        {%- endfor -%}
    {%- else -%}
        {{ " " ~ value }}
    {%- endif -%}
{%- endmacro -%}
{%- macro turn(role) -%}
<{{ role }}>{{ caller() }}</{{ role }}>
{%- endmacro -%}
{% for message in messages %}
    {% if message.role == 'system' and not loop.first %}{% continue %}{% endif %}
    {% if loop.index > 6 %}{% break %}{% endif %}
    {% call turn(message.role) %}
{{ message.content | trim | replace("\n", "⏎") | indent(2) }}
        {%- if message.tool_calls %}{{ show(message.tool_calls) }}{% endif %}
    {% endcall %}
    {% set note %}
        {{- loop.cycle("odd", "even") }} of {{ loop.length }}{{ " after " ~ loop.previtem.role if loop.previtem is defined }}{{ " before " ~ loop.nextitem.role if not loop.last -}}
    {% endset %}
    [{{ note | upper }}]
{% else %}
nothing
{% endfor %}
{% if tools %}{{ show(tools) }}{{ tools | map(attribute="function.name") | join(", ") }}{% endif %}
{% generation %}{{ messages[-1].content }}{% endgeneration %}
{% raw %}{{ not this }}{% endraw +%}
{% filter upper %}shout {{ messages | length }}{% endfilter %}
{% with a = 1, b = messages | length %}{{ a + b }}{% endwith %}
{%- if add_generation_prompt %}

  go
{%- endif %}

""",
}

CONTEXT = {
    "i": 7, "n": -3, "f": 2.5, "big": 1e20, "small": 1.5e-7, "s": "Hello World", "u": "größe ΑΒΓ ß 日本", "e": "", "t": True, "x": None, "sp": "  a b  c \n",
    "l": [3, 1, 2], "w": ["b", "A", "c", "a"], "d": {"b": 1, "a": {"x": [1, 2]}, "items": 5}, "o": [{"k": "x", "v": 2}, {"k": "y", "v": 1}, {"k": "x"}],
    "m": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": None}], "q": "it's \"q\" \\ \n\t\x7f\u200b\U0001f600",
}
EXPRESSIONS = r"""
i + 1; i - n; i * f; i / 2; i // 2; n // 2; n % 2; i % n; f // 2; f % -2; 2 ** 10; 2 ** -1; -i; +i; -f; not i; i * "ab"; [1, 2] * 2; l + [4]; (1, 2) + (3,); "a" + "b"; "a" ~ 1 ~ none ~ true ~ 1.0
1 < 2 < 3; 1 < 3 < 2; 1 == 1.0; true == 1; "a" < "b"; [1, 2] < [1, 3]; i != 7; x is none; x == none; undefined_thing == none; 1 in l; 9 not in l; "a" in d; "ell" in s; "" in s; x in [none]; i > 1 and f or 0; e or "x"; e and 1; not e or t
s[0]; s[-1]; s[99]; s[1:4]; s[::-1]; s[::2]; s[-3:]; s[:-3]; u[2:5]; u[::-1]; l[0]; l[-1]; l[5]; l[1:]; l[::-1]; l[5:1:-2]; l[-100:100]; d.b; d["a"]["x"][1]; d.a.x; d.nope; d["nope"]; x.foo; i.foo; d.a.x.0; s.foo; (1, 2)[1]; l[true]
1 if t else 2; 1 if e; 1 if e else 2 if x else 3; [1, "a", none, true, 1.5, [], {}, ()]; {"a": 1, 'b': [2]}; (1,); (); {1: 2, none: 3, "q": q}; "a" "b"; "\x41\u00e9\n\t\\\'\d"; 'a\
b'; 1_000; 0.5e3; 1e16; 123456789012.0; 0.1 + 0.2; 1e-5; 1e5; 1e22; -0.0; 3.0; 100000000000000000000.0
q; [q]; {"k": q}; [u]; small; big; f; [big, small]
s.upper(); u.lower(); u.upper(); s.title(); "they're bill's".title(); s.capitalize(); s.swapcase(); sp.strip(); sp.lstrip(); sp.rstrip(); "xxaxx".strip("x"); "abcba".strip("ab"); sp.split(); sp.split(" "); "a,b,,c".split(","); "a,b,c".split(",", 1); "a b  c".split(none, 1); "a,b,c".rsplit(",", 1); " a  b c ".rsplit(none, 1); "a\nb\r\nc\n".splitlines(); "".split(); "".split(","); "a\nb".splitlines(true); ",".join(w)
s.startswith("He"); s.endswith(("x", "ld")); s.startswith(""); s.replace("l", "L"); s.replace("l", "L", 1); "abc".replace("", "-"); s.find("o"); s.rfind("o"); s.find("zz"); u.find("日"); s.count("l"); s.count(""); "abc".isalpha(); "12".isdigit(); "a1".isalnum(); " ".isspace(); "".isdigit(); "aB".islower(); "AB1".isupper(); "abc".removeprefix("a"); "abc".removesuffix("bc"); "abc".removesuffix("x"); s.index("W")
d.keys() | list; d.values() | list | length; d.get("b"); d.get("nope"); d.get("nope", 3); d["items"]; {"z": 1}.items() | list; l.index(2); l.count(1); w | sort; w | sort(reverse=true); w | sort(case_sensitive=true); o | map(attribute="k") | list; o | map(attribute="v", default=0) | list; o | selectattr("v") | list; o | selectattr("v", "defined") | list; o | rejectattr("v", "gt", 1) | map(attribute="k") | list if false else 0
l | map("string") | list; w | map("upper") | join("-"); w | select("in", ["a", "b"]) | list; [1, 2, 3, 4] | select("even") | list; [1, 2, 3, 4] | reject("odd") | list; [0, 1, "", "a", none] | select | list; m | selectattr("role", "equalto", "user") | list | length; l | first; l | last; [] | first; e | last; s | first; l | length; s | length; u | length; d | count; nothing | length
l | join; l | join(", "); o | join("/", attribute="k"); [1, none, "x"] | join("+"); s | list; l | reverse | list; s | reverse; l | sum; o | sum(attribute="v") if false else 1; [1.5, 2] | sum; l | min; l | max; w | min; w | max; [] | max; l | unique | list; ["a", "A", "b"] | unique | list; d | dictsort; {"b": 2, "a": 3} | dictsort(by="value"); {"b": 2, "a": 3} | dictsort(reverse=true); [1, 2, 3, 4, 5] | batch(2) | list; [1, 2, 3] | batch(2, 0) | list
o | groupby("k") | map("first") | list; x | default("d"); nothing | default("d"); e | default("d", true); nothing | d; nothing | default; s | trim; sp | trim; "xax" | trim("x"); s | upper; s | lower; s | capitalize; "hello big-world (now)" | title; s | replace("l", "L"); s | replace("o", 0, 1); 5 | string; none | string; [1] | string; "3" | int; "3.9" | int; "x" | int; "x" | int(5); 3.9 | int; -3.9 | int; "0x1f" | int(0, 16); "ff" | int(0, 16); true | int; " 12 " | int; "1_0" | int; "3.5" | float; "x" | float; 3 | float; "1e3" | float
2.5 | round; 3.5 | round; 2.567 | round(2); 2.5 | round(0, "ceil"); 2.5 | round(method="floor"); 1234 | round(-2); -7 | abs; 2.5 | abs; "a\nb\n\nc" | indent; "a\nb" | indent(2, true); "a\nb\n" | indent("> "); "a\n\nb" | indent(2, blank=true); "" | indent(2, true); "a\n" | indent(2); "%s is %d and %.2f %%" | format("x", 3, 2.5); "%5d|%-5d|%05d" | format(1, 2, 3); "%s" % "a"; "%s %r" % ("a", "b"); "%x" % 255; "<a href='x'>&\"" | escape; "<" | e; "x" | safe; "a b c" | wordcount
d | tojson; [1, 2.0, "é\u2028\x7f\x01", none, true, {"a": []}] | tojson; d | tojson(indent=2); l | tojson(indent=0); {} | tojson(indent=2); [] | tojson(indent=1); d | tojson(separators=(",", ":")); {"b": 1, "a": 2} | tojson(sort_keys=true); u | tojson(ensure_ascii=true); q | tojson; q | tojson(ensure_ascii=true); {"n": {"m": [1, {"k": 2}]}} | tojson(indent="\t"); 1e16 | tojson; 1e300 | tojson; {1: 2, true: 3, none: 4, 1.5: 2} | tojson; (1, 2) | tojson; "</script>" | tojson
i is defined; nothing is defined; nothing is undefined; x is none; d is mapping; l is sequence; s is sequence; d is sequence; l is iterable; i is iterable; s is string; i is number; f is float; i is integer; t is integer; t is boolean; t is number; t is true; 1 is true; e is false; i is odd; i is even; 6 is divisibleby 3; 6 is divisibleby(4); i is eq 7; i is gt 3; i is ge(7); i is lt 3; i is ne 3; 3 is in l; 3 is not in l; "a" is lower; "A" is upper; "1" is lower; x is sameas none; d is callable; range is callable; i is not defined; s is string and i is number; not i is defined; l is not string
range(3) | list; range(1, 4) | list; range(5, 0, -2) | list; range(0) | list; dict(a=1, b=2); dict({"a": 1}, c=3); namespace(a=1).a; [[1, 2], [3]] | map("sum") | list; [[1, 2], [3, 4]] | map("last") | list; l | map("tojson") | join(","); (l | sort)[0]; w[1:] | join | lower; -1 | abs; -1 + 2 | abs; 2 * 3 | string; (i, n) | first; l | length > 2 and s | length == 11; "a" if l | length else "b"; {"a": {"b": [10, 20]}}["a"].b[-1]; [x, y] is defined; m[0].role ~ m[-1].content; m[1].content is none; m | map(attribute="content") | select("string") | list; d | items | list; nothing | items | list; d | list; s | attr("upper") is callable; l | attr("nope") is undefined; (l, w) | map("length") | list; [3, 20] | map("string") | map("length") | max; loop is defined; true and false or none; none or 0; [] or {} or "z"; 1 == true; [1] == [1.0]; {"a": 1} == {"a": true}; (1, 2) == [1, 2]; "a" == "a" != "b"
"{}: {}".format("a", 1); "{0[x]!r:>4}".format({"x": 1}); "{:*^9}|{:+d}|{:x}|{:#o}|{:,}".format("é", 5, 255, 8, 1234567); "{a.k}{{}}{b[0]}".format(a=o[0], b=l); "{:{}}|".format("a", 4); "{!r}".format("q"); "{:.2f} {:e} {:g} {:%}".format(2.345, 1e10, 1e-7, 0.5); "{:08.3f}".format(-3.14159); "{a}".format_map({"a": 2}); "%5.1f|%-6s|%+d|%(a)s" % (2.25, "x", 3, 1) if false else "%(a)s" % {"a": 1}; "%%|%c|%5s|%.2s" % ("x", "é", "abc"); "%#x %o %X" % (255, 8, 255); "%08.3f" % 3.14159; "%*d" % (5, 42); "%r" % ("é",); "%a" % ("é",)
"a-b".partition("-"); "ab".partition("-"); "a-b-c".rpartition("-"); "7".zfill(3); "-7".zfill(4); "ab".center(6); "ab".center(7, "*"); "x".ljust(3) ~ "|"; "x".rjust(3, "é"); "a\tb".expandtabs(4); "ABC ß".casefold(); "12".isnumeric(); "½".isnumeric(); "²".isdigit(); "a_1".isidentifier(); "a\n".isprintable(); "Ab Cd".istitle(); "é".isascii(); "é".encode("utf-8"); "é".encode() | length; "é".encode().decode(); "abcabc".rindex("b"); "abcabc".find("b", 2); "abcabc".count("b", 2, 5); "Σας ΑΣ".lower(); "ŉ ﬁ".upper(); "ǆ".title(); "İ".lower(); "abc".startswith("b", 1); "abc".startswith("c", -1); "abc".endswith("b", 0, 2); "abc".startswith("", 4); d.get("b", 1)
2 ** 100; 12345678901234567890 + 1; -9223372036854775808 - 1; 9223372036854775807 + 1; 10 ** 25 // 7; -(10 ** 25) // 7; 10 ** 25 % -7; 2 ** 100 / 2 ** 98; 2 ** 64 == 1.8446744073709552e19; 2 ** 64 + 1 == 1.8446744073709552e19; 2 ** 64 > 1e19; [2 ** 64, 1] | sort; (2 ** 64) | int; "123456789012345678901234567890" | int; 1e22 | int; (10 ** 20) | string | length; 0xff + 0o17 + 0b11; 10 ** 30 | tojson; {10 ** 20: 1}[1e20]; 2 ** 64 is integer; 3 ** 40 is odd; 12345678901234567890123 | round(-3); 7 // -2; -7 // 2; 5.5 // -2; -5.5 % 2; 2 ** 0.5; 1e308 * 10; -0.0 // 1; 2 ** 70 | float
{"b": [1, {"c": 2}], "a": "x"} | pprint; [["word " * 12, "another long text " * 4], {"key": ["a" * 40, "b" * 40]}] | pprint; "one two three " * 8 | pprint; ("a" * 90,) | pprint; 1234567 | filesizeformat; 1234567 | filesizeformat(true); 1 | filesizeformat; 12 | filesizeformat; "a b c d" | wordwrap(3); "a well-known long-winded word--dash" | wordwrap(8); "abcdefghij" | wordwrap(4); "abcdefghij" | wordwrap(4, false); "a\n\nb c" | wordwrap(1, true, "|"); "foo bar baz qux" | truncate(9); "foo bar baz qux" | truncate(9, true); "foo bar baz qux" | truncate(11, false, "..", 0); "x" | center(5); "a b" | urlencode; {"a b": "é/", "c": 1} | urlencode; [1, 2, 3, 4, 5] | slice(2) | list; [1, 2, 3] | slice(2, 0) | list; "<b>x</b> <!-- c --> &amp; y" | striptags; {"a": "<", "b": none, "c": 1} | xmlattr; "a-b c_d" | wordcount; 1234.5 | round(-2); 25 | round(-1); 35 | round(-1); 2.675 | round(2); 1.1 | round(1, "ceil"); "1e3" | int; "inf" | float; " 1_000 " | int; "0b11" | int(0, 2)
"<" | e + "<"; "<" + ("<" | e); ("a" | safe) ~ "<"; ["<" | e]; ("<" | e) * 2; ("<%s>" | safe) % "<"; ("<{}>" | safe).format("<"); ("," | safe).join(["<", "a"]); ("a<" | e).replace("a", "<"); "<" | e | e; "<" | e | forceescape; "<" | e is escaped; ("<" | safe).upper() is escaped; "a" | safe == "a"; ("a,b" | safe).split(","); "<" | e | string is escaped
range(3); range(1, 9, 3); range(10)[2:5]; 3 in range(5); d.keys(); d.items(); d.values() | list; d.keys()[0]; [] | map("upper") is true; (l | select("gt", 9)) and "y"; d.items() | first; l | reverse | first; none | map("upper") | list; o | map(attribute="nope", default=0) | list; o | map(attribute="k.0") | list; o | groupby("k") | map(attribute="grouper") | list; (o | groupby("k"))[0].list | length; o | sort(attribute="k,v") | list if false else 1; [none, none] | sort; o | groupby("v", default=0) | list; ["a", "A"] | groupby(0) | list; [[1, 2], [3]] | sum(start=[]); {"b": 1, "a": 2} | dictsort(false, "value"); l.append is defined; d.pop; s._x; s.__class__; namespace(a=1); dict([("a", 1)]); namespace | length if false else 1; "upper" is filter; "nope" is filter; "even" is test; 1 is sameas 1; 4 is divisibleby 2; "a" is in ["a"]; 5 is eq(5); loop | default("no"); 1 if 2 is gt 1; {"a": 1} | items | list; "%s" % nothing; '{:5}|'.format(none) if false else none
"""
ERRORS = r"""
{{ nothing.foo }}; {{ nothing["foo"] }}; {{ nothing() }}; {{ nothing + 1 }}; {{ "a" + 1 }}; {{ 1 + none }}; {{ l + "a" }}; {{ 1 / 0 }}; {{ 1 % 0 }}; {{ 1 < "a" }}; {{ none | length }}; {{ 5 | list }}; {% for a in 5 %}{% endfor %}; {% for a, b in [[1, 2, 3]] %}{% endfor %}; {{ s | nofilter }}; {{ s is notest }}; {{ l.append(4) }}; {{ d.update({}) }}; {{ raise_exception("no") }}; {{ range(200000) }}; {{ "a".foo() }}; {{ nothing | tojson }}; {% set d.x = 1 %}; {{ "x" | int }; {% if %}; {% endfor %}; {{ (1 }}; {{ "a }}; {% for x in l %}; {% unknown %}; {{ 1 2 }}; {{ }}; {{ a.b. }}; {% set 1 = 2 %}; {{ x is }}; {% macro %}{% endmacro %}; {# never; {% raw %} never; {{ [1, 2 }}; {{ ) }}; {{ 5() }}; {{ s() }}; {{ "%d" % "a" }}; {{ {"a": 1}[[1]] is defined }}{{ {[1]: 2} }}; {% break %}; {{ none < 1 }}; {{ "a" in 5 }}; {{ 1 in "abc" }}; {{ -"a" }}; {{ "{} {1}".format(1, 2) }}; {{ "{".format(1) }}; {{ "{}".format() }}; {{ "{:d}".format("a") }}; {{ "%d" % () }}; {{ "%d %d" % (1,) }}; {{ "a" % 1 }}; {{ (l | map("upper")) | length }}; {{ 2 ** 20000 }}; {{ "x" | truncate(2) }}; {{ "abc" | wordwrap(0) }}; {{ [[1]] | unique | list }}; {{ 5[1:] if l else l.x[1:] }}; {{ i[1:] }}; {{ d.pop("b") }}; {{ "a" is sameas }}; {{ range(1, 2, 0) }}; {{ cycler() }}; {{ namespace(_a=1) }}; {% macro m(a) %}{% endmacro %}{{ m(1, 2) }}; {% macro m(a) %}{% endmacro %}{{ m(b=2) }}; {% for x in l %}{{ loop(l) }}{% endfor %}; {% include "a" %}; {% extends "a" %}; {% import "a" as b %}; {% block a %}{% endblock %}{% block a %}{% endblock %}; {{ super() }}; {{ "a" | int | nofilter }}; {{ (-8) ** 0.5 if f < 0 else 0 ** -1 }}; {{ x | abs }}; {{ "a" | abs }}; {{ {"a b": 1} | xmlattr }}; {{ nothing | int }}; {{ "a".upper(1) }}; {{ s | upper(1) }}; {{ s | length(2) }}; {{ range(3, a=1) }}; {{ "abc".replace("a", "b", 1, 2) }}; {{ d.get("a", 1, 2) }}; {{ l | first(1) }}; {{ joiner(1, 2) }}; {% call range(3) %}{% endcall %}
"""
STATEMENTS = [
    "a\n{% if true %}\n  b\n{% endif %}\nc\n", "  {% if true %}x{% endif %}  \n  y", "{%+ if true %}  x{%+ endif %}\n y", "a {%- if true -%} b {%- endif -%} c", "a\n\n{#- c -#}\n\nb",
    "x {# c #}\ny\n  {# d #}  \nz", "{{ 1 -}}  \n {{- 2 }}", "a  {{- 1 }}", "{% set a = 1 %}\n{% set a, b = 2, 3 %}{{ a }}{{ b }}", "{% set x %}\n q {{ 1 }}\n{% endset %}[{{ x }}]", "{% set x | upper | trim %} q {% endset %}[{{ x }}]",
    "{% for a in l %}{% set i = a %}{{ i }}{% endfor %}{{ i }}", "{% for a in l if a > 1 %}{{ loop.index }}/{{ loop.length }}:{{ a }} {% else %}none{% endfor %}", "{% for a in [] %}x{% else %}none{% endfor %}",
    "{% for a in l if a > 9 %}x{% else %}none{% endfor %}", "{% for k, v in d.items() %}{{ k }}={{ v }};{% endfor %}", "{% for k in d %}{{ k }}{% endfor %}", "{% for c in 'héy' %}[{{ c }}]{% endfor %}", "{% for a in nothing %}x{% endfor %}.",
    "{% for a in l %}{{ loop.first }}{{ loop.last }}{{ loop.revindex }}{{ loop.revindex0 }}{{ loop.depth }}{% for b in l %}{{ loop.depth0 }}{% endfor %}{% endfor %}",
    "{% for a in l %}{{ loop.previtem }}-{{ loop.nextitem }};{% endfor %}", "{% for a in [1,1,2] %}{{ loop.changed(a) }}{% endfor %}", "{% for a in range(10) %}{% if a == 3 %}{% continue %}{% endif %}{% if a > 5 %}{% break %}{% endif %}{{ a }}{% endfor %}",
    "{% macro f(a, b=2, c=a) %}{{ a }}{{ b }}{{ c }}{{ varargs }}{{ kwargs }}{% endmacro %}{{ f(1) }}|{{ f(1, 3) }}|{{ f(b=5, a=0) }}|{{ f(1, 2, 3, 4, z=5) }}", "{% macro f() %}{{ i }}{% set i = 0 %}{{ i }}{% endmacro %}{{ f() }}{{ i }}",
    "{% macro f(n) %}{{ n }}{% if n > 0 %}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(5) }}", "{% macro f(a) %}{{ a }}{% endmacro %}[{{ f() }}]", "{% set ns = namespace(a=0) %}{% for x in l %}{% set ns.a = ns.a + x %}{% endfor %}{{ ns.a }}{{ ns.b }}",
    "{% if x %}1{% elif e %}2{% elif t %}3{% else %}4{% endif %}", "{% if not x and (e or t) %}y{% endif %}", "{% if 1 in l and 'a' not in w[:1] %}y{% endif %}", "{% with %}{% set q = 1 %}{{ q }}{% endwith %}{{ q | length }}", "{% with a=i, b=a %}{{ a }}{{ b }}{% endwith %}",
    "{% filter upper | replace('A', 'x') %}abc{{ s }}{% endfilter %}", "{% raw %}{{ x }} {% y %}{% endraw %}z", "  {% raw -%}  \n x {%- endraw %}\n\ny", "{% call(a) m2(1) %}{{ a }}{% endcall %}", "{% macro m(x) %}<{{ caller(x) }}>{% endmacro %}{% call(a) m(7) %}[{{ a }}]{% endcall %}",
    "line\r\nother\rthird\n", "\n\n", "", "{{ '}}' }}{{ \"{%\" }}", "{{ {'a': {'b': 1}}.a.b }}", "{%- set a -%}  x  {%- endset -%}[{{a}}]", "{% set a = [1,\n2] %}\n{{ a }}", "{% set f = 'x' if t else 'y' %}{{ f }}", "{% set a = (1, 2) %}{{ a }}{% set b = 1, %}{{ b }}",
    "{% for m in m %}{{ m.role }}{% endfor %}", "{% if t %}{% set z = 1 %}{% endif %}{{ z }}", "{% for q in l %}{% if loop.first %}{% set z = q %}{% endif %}{{ z }}{% endfor %}", "{% generation %}{% set z = 1 %}a{% endgeneration %}{{ z }}", "{{ loop }}", "{% set x = none %}{{ x }}", "{{ none }}{{ true }}{{ 1.0 }}{{ nothing }}",
    "{{ '%s' | format(l) }}{{ l ~ d }}", "{{- '\\n' -}}\n\n{{ 'x' }}\n", "\t{%- if true %}\n\tx\n\t{%- endif %}\n", "{% if true %}   \n   x{% endif %}", "\u00a0{% if true %}x{% endif %}", "x\u2003{%- if true %} y{% endif %}", "{% for i in range(3) -%}\n  {{ i }}\n{%- endfor %}", "{{ 'a' -}}{# x -#}  b",
    "{% for x in [1,[2,[3]]] recursive %}{% if x is iterable %}({{ loop(x) }}){% else %}{{ x }}@{{ loop.depth }}{% endif %}{% endfor %}", "{% set j = joiner('|') %}{% for i in range(3) %}{{ j() }}{{ i }}{% endfor %}{{ joiner()() }}", "{% set c = cycler('o','e') %}{{ c.next() }}{{ c.current }}{{ c.next() }}{{ c.next() }}{% set q = c.reset() %}{{ c.current }}",
    "{% block a %}x{{ i }}{% endblock %}-{{ self.a() }}", "{% for x in l %}{% block b scoped %}{{ x }}{{ loop.index }}{% endblock b %}{% endfor %}", "{% for x in l %}{% block c %}{{ x }}{% endblock %}{% endfor %}", "{% print 1, 'a' %}", "{% set g = l | map('string') %}{% for x in g %}{{ x }}{% endfor %}|{% for x in g %}{{ x }}{% endfor %}",
    "{% macro m() %}{{ varargs }}{{ kwargs }}{% endmacro %}{{ m(1, 2, a=3) }}{{ m.name }}{{ m.arguments }}{{ m.catch_kwargs }}", "{% macro m(a) %}{% endmacro %}{{ m }}{{ m.arguments }}{{ m.caller }}", "{% for x in l %}{{ loop }}{% endfor %}", "{% macro li(xs) %}{% for x in xs %}{% if x is string %}{{ x }}{% else %}[{{ li(x) }}]{% endif %}{% endfor %}{% endmacro %}{{ li(['a', ['b', ['c']]]) }}",
    "{% for g in o | groupby('k') %}{{ g.grouper }}:{{ g.list | length }} {% endfor %}", "{% for k, g in o | groupby('k') %}{{ k }}{{ g | length }}{% endfor %}", "{% filter indent(2) | upper %}a\nb{% endfilter %}", "{% call(x, y=2) range2(1) %}{% endcall %}", "{% macro r(n) %}{% for i in range(n) %}{{ caller(i) }}{% endfor %}{% endmacro %}{% call(i) r(3) %}<{{ i }}>{% endcall %}", "{% set ns = namespace(n=0) %}{% for a in l recursive %}{% set ns.n = ns.n + a %}{% endfor %}{{ ns.n }}{{ ns }}",
    "{% for x in l %}{% macro f() %}{{ x }}{% endmacro %}{{ f() }}{% endfor %}", "{% for x in l %}{% set y = x %}{% for z in l %}{% set y = z %}{% endfor %}{{ y }}{% endfor %}", "{{ l | map('tojson') | join }}{% set a = l | sort | reverse | list %}{{ a }}",
    "{% for x in l %}{{ x }}{% break %}{% else %}E{% endfor %}", "{% for x in l %}{{ x }}{% continue %}{% else %}E{% endfor %}", "{% for x in l %}{% if loop.last %}{% break %}{% endif %}{% else %}E{% endfor %}", "x{#", "x{% raw %}",
    "{{ caller is defined }}", "{% macro a() %}{{ b() }}{% endmacro %}{% macro b() %}B{% endmacro %}{{ a() }}", "{% for x in l recursive_not %}{% endfor %}",
]


def jinja():
    from datetime import datetime
    import json
    import jinja2
    import jinja2.ext
    from jinja2.sandbox import ImmutableSandboxedEnvironment
    from transformers.utils import chat_template_utils as utils

    compile_template = getattr(utils, "_compile_jinja_template", None)
    if compile_template:
        return compile_template

    def fallback(source):  # the same environment by hand, should transformers rename its function
        env = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[jinja2.ext.loopcontrols])
        env.filters["tojson"] = lambda x, ensure_ascii=False, indent=None, separators=None, sort_keys=False: json.dumps(
            x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

        def refuse(message):
            raise jinja2.exceptions.TemplateError(message)

        env.globals["raise_exception"] = refuse
        env.globals["strftime_now"] = lambda f: datetime.now().strftime(f)
        return env.from_string(source)

    return fallback


def rendered(compile_template, source, **variables):
    """(text, None) or (None, error)"""
    try:
        return compile_template(source).render(**variables), None
    except Exception as e:  # whatever it raises, the template refuses
        return None, f"{type(e).__name__}: {e}"


def one_by_one():
    """(kind, template) of the tables."""
    cases = [("expression", "{{ " + e + " }}") for line in re.split(r"\n(?!b')", EXPRESSIONS.strip()) for e in line.split("; ") if e]
    cases += [("expression in a string", "{{ (" + e + ") ~ '' }}") for line in EXPRESSIONS.strip().splitlines()[1:3] for e in line.split("; ") if e]
    cases += [("statement", s) for s in STATEMENTS]
    return cases + [("error", s.strip()) for s in ERRORS.strip().split("; ")]


def check_one_by_one(probe, compile_template):
    count, bad = {}, {}
    for kind, source in one_by_one():
        want, error = rendered(compile_template, source, messages=[], tools=None, documents=None, add_generation_prompt=True, bos_token="<s>", eos_token="</s>", **CONTEXT)
        got = probe("render", template=source, messages=[], tools=None, extra=CONTEXT, prompt=True, bos="<s>", eos="</s>")
        count[kind] = count.get(kind, 0) + 1
        if got.get("text") != want or (kind == "error") != (error is not None) and kind == "error":
            bad.setdefault(kind, []).append(f"{source!r}: want {want!r} {error or ''}, got {got}")
    for kind in count:
        for line in bad.get(kind, []):
            print("# " + line)
        ok(kind not in bad, SUITE, f"{kind}s one by one", f"{count[kind]} cases, {len(bad.get(kind, []))} differ")


def check_family(probe, compile_template, name, source, bos="<s>", eos="</s>"):
    from transformers.utils.chat_template_utils import render_jinja_template

    bad = refused = 0
    note = ""
    for messages, tools, prompt, extra in conversations():
        try:
            want = render_jinja_template([messages], tools=tools, chat_template=source, add_generation_prompt=prompt, bos_token=bos, eos_token=eos, **extra)[0][0]
        except Exception:
            want = None
            refused += 1
        got = probe("render", template=source, messages=messages, tools=tools, extra=extra, prompt=prompt, bos=bos, eos=eos)
        if got.get("text") != want:
            bad += 1
            note = note or f"want {want!r}, got {got!r}"
    ok(bad == 0 and refused < 40, SUITE, f"{name}: 40 conversations", f"{refused} refused by the template itself; {bad} differ" + (f": {note}" if note else ""))


def check_model(probe, name):
    hf = hugging_face(FOLDER, name)
    probe("open", path=os.path.join(FOLDER, name))
    source = probe("template")["text"]
    ok(source == hf.chat_template, SUITE, f"{name}: the template is the file's")
    bad, note = 0, ""
    for messages, tools, prompt, extra in conversations():
        try:
            want = hf.apply_chat_template(messages, tools=tools, tokenize=False, add_generation_prompt=prompt, **extra)
        except Exception as e:
            want = None
            note = note or str(e)
        got = probe("render", template=source, messages=messages, tools=tools, extra=extra, prompt=prompt, bos=hf.bos_token or "", eos=hf.eos_token or "")
        if got.get("text") != want:
            bad += 1
            note = f"want {want!r}, got {got!r}"
    ok(bad == 0, SUITE, f"{name}: 40 conversations", f"{bad} differ {note}")


def main():
    try:
        import gguf  # noqa: F401
        import jinja2  # noqa: F401
        import transformers  # noqa: F401
    except ImportError as e:
        skip(SUITE, "renderings equal Jinja2's", f"{e.name} is not installed")
        return 0
    probe = Probe(SPECDEC)
    compile_template = jinja()
    check_one_by_one(probe, compile_template)
    for name, source in FAMILIES.items():
        check_family(probe, compile_template, name, source)
    for name in MODELS:
        if os.path.exists(os.path.join(FOLDER, name)):
            check_model(probe, name)
        else:
            skip(SUITE, f"{name}: 40 conversations", f"{name} is not in {FOLDER}")
    return 1 if common.failed else 0


if __name__ == "__main__":
    sys.exit(main())
