#!/usr/bin/env python3
"""The official OpenAI client's tool loop against the server, whole and streamed. Skipped where client or model is not there.

    tests/e2e/openai_tools.py build/release/specdec        (PYTHON=... picks another interpreter)
"""
import json
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
import tap  # noqa: E402
from openai_sdk import sdk  # noqa: E402
from served import Served  # noqa: E402
from tap import check  # noqa: E402

openai, BINARY, MODEL = sdk(__doc__, "openai tools", "Qwen2.5-Coder-1.5B-Instruct.Q4_K_M.gguf")

TOOLS = [{"type": "function", "function": {"name": "get_weather", "description": "The weather in a city now.", "parameters": {
    "type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"], "additionalProperties": False}}}]
# The model is told its format once more: small coding models forget it.
SYSTEM = ("Answer questions about the weather with the tool get_weather. A call is written as\n<tool_call>\n"
          '{"name": "get_weather", "arguments": {"city": CITY}}\n</tool_call>\nand nothing else. Once you have its result, say it in one sentence.')
ASK = dict(model="Qwen2.5-Coder-1.5B-Instruct.Q4_K_M", tools=TOOLS, temperature=0, max_tokens=96)


def weather(arguments):
    return json.dumps({"city": arguments["city"], "sky": "clear", "degrees": 21})


def collect(stream):
    """A stream's deltas as the client's own examples join them: content, calls, the finish reason."""
    text, calls, finish = "", {}, None
    for chunk in stream:
        if not chunk.choices:
            continue
        choice = chunk.choices[0]
        text += choice.delta.content or ""
        for d in choice.delta.tool_calls or []:
            if d.id:
                calls[d.index] = {"id": d.id, "type": "function", "function": {"name": d.function.name, "arguments": ""}}
            calls[d.index]["function"]["arguments"] += d.function.arguments or ""
        finish = choice.finish_reason or finish
    return text, [calls[i] for i in sorted(calls)], finish


def loop(client, streamed):
    """The tool loop; the calls that were made, the last text and finish reason."""
    messages = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": "How is the weather in Bern?"}]
    made, text, finish = [], "", None
    for _ in range(4):
        if streamed:
            text, calls, finish = collect(client.chat.completions.create(messages=messages, stream=True, **ASK))
        else:
            choice = client.chat.completions.create(messages=messages, **ASK).choices[0]
            text, finish = choice.message.content, choice.finish_reason
            calls = [c.model_dump() for c in choice.message.tool_calls or []]
        if not calls:
            break
        messages.append({"role": "assistant", "content": text or None, "tool_calls": calls})
        for call in calls:
            made.append((call["function"]["name"], json.loads(call["function"]["arguments"])))
            messages.append({"role": "tool", "tool_call_id": call["id"], "content": weather(made[-1][1])})
    return made, text, finish


def run(port):
    client = openai.OpenAI(base_url="http://127.0.0.1:%d/v1" % port, api_key="none", max_retries=0, timeout=600)
    whole = loop(client, False)
    check("the tool is called with its argument", whole[0] and whole[0][0] == ("get_weather", {"city": "Bern"}), whole)
    check("its result is the answer", "21" in (whole[1] or "") and whole[2] == "stop", whole)
    check("a stream makes the same calls and says the same", loop(client, True) == whole, whole)
    strict = json.loads(json.dumps(TOOLS))
    strict[0]["function"]["strict"] = True
    forced = client.chat.completions.create(messages=[{"role": "user", "content": "Tell me about Paris."}], **dict(ASK, tools=strict, tool_choice="required")).choices[0]
    check("required and strict: a call that keeps to its schema", forced.message.tool_calls and forced.finish_reason == "tool_calls"
          and all(set(json.loads(c.function.arguments)) == {"city"} for c in forced.message.tool_calls), forced)
    none = client.chat.completions.create(messages=[{"role": "user", "content": "Say hi."}], tool_choice="none", **dict(ASK, max_tokens=8)).choices[0]
    check("tool_choice none: no calls", not none.message.tool_calls and none.message.content, none)


def main():
    try:
        server = Served(BINARY, MODEL, limit=300)
    except RuntimeError as e:
        check("the server starts", False, e)
        return 1
    try:
        run(server.port)
    finally:
        server.process.terminate()
        check("it ends with 0", server.process.wait(60) == 0)
    return tap.failures > 0


if __name__ == "__main__":
    sys.exit(main())
