#!/usr/bin/env python3
"""The official Anthropic client against the server: messages, streams, tools, counts. Skipped where it is not installed.

    tests/e2e/anthropic_client.py build/release/specdec        (PYTHON=... picks another interpreter)
"""
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
import tap  # noqa: E402
from openai_sdk import sdk  # noqa: E402
from served import Served  # noqa: E402
from tap import check  # noqa: E402

anthropic, BINARY, MODEL = sdk(__doc__, "anthropic client", "SmolLM2-135M-Instruct.Q4_1.gguf", package="anthropic")
NAME = "SmolLM2-135M-Instruct.Q4_1"
TOOL = {"name": "get_weather", "description": "The weather in a city now.", "strict": True, "input_schema": {
    "type": "object", "properties": {"city": {"type": "string", "maxLength": 20}}, "required": ["city"], "additionalProperties": False}}


def raises(kind, call):
    try:
        call()
    except kind as e:
        return e
    return None


def run(port):
    client = anthropic.Anthropic(base_url="http://127.0.0.1:%d" % port, api_key="not-asked-for", max_retries=0, timeout=120)
    ask = dict(model=NAME, system="You are terse.", messages=[{"role": "user", "content": "Name a colour."}], max_tokens=24,
               extra_body={"temperature": 0})
    whole = client.messages.create(**ask)
    check("messages.create", whole.content[0].type == "text" and whole.content[0].text and whole.stop_reason in ("end_turn", "max_tokens"), whole)
    count = client.messages.count_tokens(model=NAME, system=ask["system"], messages=ask["messages"])
    check("count_tokens says what the request has", count.input_tokens == whole.usage.input_tokens + whole.usage.cache_read_input_tokens, count)
    with client.messages.stream(**ask) as stream:
        kinds = [event.type for event in stream]
        final = stream.get_final_message()
    check("the streaming helper collects the same", final.content[0].text == whole.content[0].text and final.stop_reason == whole.stop_reason, final)
    check("and the same usage", final.usage.output_tokens == whole.usage.output_tokens
          and final.usage.input_tokens + final.usage.cache_read_input_tokens == count.input_tokens, final.usage)
    check("its events come in their order", kinds[0] == "message_start" and kinds[-1] == "message_stop" and "content_block_stop" in kinds, kinds)
    blocks = [{"type": "text", "text": "You are terse.", "cache_control": {"type": "ephemeral"}}]
    check("a system of blocks is the same prompt", client.messages.create(**dict(ask, system=blocks)).content[0].text == whole.content[0].text)
    tools = dict(ask, tools=[TOOL, {"type": "web_search_20250305", "name": "web_search"}], tool_choice={"type": "any"}, max_tokens=200)
    raw = client.messages.with_raw_response.create(**tools)
    called = raw.parse()
    use = called.content[-1]
    check("a forced call keeps to its schema", called.stop_reason in ("tool_use", "max_tokens") and use.type == "tool_use" and set(use.input) == {"city"}, called)
    check("a tool of another kind is skipped and listed", raw.headers.get("x-specdec-skipped-tools") == "web_search_20250305", dict(raw.headers))
    with client.messages.stream(**tools) as stream:
        streamed = stream.get_final_message()
    check("a stream makes the same call", [b.input for b in streamed.content if b.type == "tool_use"] == [b.input for b in called.content if b.type == "tool_use"], streamed)
    turn = [*ask["messages"], {"role": "assistant", "content": [b.model_dump(include={"type", "id", "name", "input", "text"}) for b in called.content]},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": b.id, "content": "clear"} for b in called.content if b.type == "tool_use"]}]
    after = client.messages.create(**dict(ask, messages=turn, tools=[TOOL]))
    check("its result is taken", after.type == "message" and after.usage.output_tokens > 0, after)
    begun = client.messages.create(**dict(ask, messages=[*ask["messages"], {"role": "assistant", "content": "The colour is"}], stop_sequences=["."]))
    check("an answer goes on with what was begun", begun.stop_reason in ("stop_sequence", "max_tokens", "end_turn"), begun)
    e = raises(anthropic.BadRequestError, lambda: client.messages.create(**dict(ask, extra_body={"temperature": 9})))
    check("a bad field is BadRequestError in Anthropic's shape", e is not None and e.body["error"]["type"] == "invalid_request_error" and "temperature" in str(e), e)
    e = raises(anthropic.NotFoundError, lambda: client.messages.create(**dict(ask, model="no-such-model")))
    check("an unknown model is NotFoundError", e is not None and e.body["error"]["type"] == "not_found_error", e)


def main():
    try:
        server = Served(BINARY, MODEL)
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
