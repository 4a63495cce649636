#!/usr/bin/env python3
"""Clients that people use, against the server: litellm, langchain-openai, instructor. Each is skipped where it is not installed.

    tests/e2e/clients.py build/release/specdec        (PYTHON=... picks another interpreter)
"""
import importlib
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
import tap  # noqa: E402
from openai_sdk import sdk  # noqa: E402
from served import Served  # noqa: E402
from tap import check, skip  # noqa: E402

openai, BINARY, MODEL = sdk(__doc__, "clients", "SmolLM2-135M-Instruct.Q4_1.gguf")
NAME = "SmolLM2-135M-Instruct.Q4_1"
ASK = [{"role": "system", "content": "You are terse."}, {"role": "user", "content": "Name a colour."}]


def package(name):
    try:
        return importlib.import_module(name)
    except ImportError:
        skip(name, f"the Python package {name} is not installed")
        return None


def with_litellm(port, said):
    litellm = package("litellm")
    if not litellm:
        return
    url = "http://127.0.0.1:%d" % port
    chat = dict(messages=ASK, api_key="none", max_tokens=24, temperature=0)
    whole = litellm.completion(model="openai/" + NAME, api_base=url + "/v1", **chat)
    check("litellm: a chat", whole.choices[0].message.content == said, whole)
    parts = litellm.completion(model="openai/" + NAME, api_base=url + "/v1", stream=True, **chat)
    check("litellm: a stream", "".join(p.choices[0].delta.content or "" for p in parts) == said)
    other = litellm.completion(model="anthropic/" + NAME, api_base=url, **chat)
    check("litellm: Anthropic's messages", other.choices[0].message.content == said, other)


def with_langchain(port, said):
    if not package("langchain_openai"):
        return
    from typing import Literal

    from langchain_openai import ChatOpenAI
    model = ChatOpenAI(model=NAME, base_url="http://127.0.0.1:%d/v1" % port, api_key="none", max_tokens=24, temperature=0)
    turns = [(m["role"], m["content"]) for m in ASK]
    check("langchain: a chat", model.invoke(turns).content == said)
    check("langchain: a stream", "".join(p.content for p in model.stream(turns)) == said)

    def weather(city: Literal["Bern", "Rome"]) -> str:
        """The weather in a city now."""
        return city
    called = model.bind_tools([weather], tool_choice="required", strict=True).invoke(turns, max_tokens=200)
    check("langchain: a strict tool", called.tool_calls and called.tool_calls[0]["args"]["city"] in ("Bern", "Rome"), called)


def with_instructor(port, said):
    instructor = package("instructor")
    if not instructor:
        return
    from typing import Literal

    from pydantic import BaseModel

    class Colour(BaseModel):
        colour: Literal["red", "blue"]

    client = openai.OpenAI(base_url="http://127.0.0.1:%d/v1" % port, api_key="none")
    found = instructor.from_openai(client, mode=instructor.Mode.JSON_SCHEMA).chat.completions.create(
        model=NAME, messages=ASK, response_model=Colour, max_retries=0, temperature=0, max_tokens=200)
    check("instructor: a model of Pydantic's", found.colour in ("red", "blue"), found)


def main():
    try:
        server = Served(BINARY, MODEL)
    except RuntimeError as e:
        check("the server starts", False, e)
        return 1
    try:
        client = openai.OpenAI(base_url="http://127.0.0.1:%d/v1" % server.port, api_key="none")
        said = client.chat.completions.create(model=NAME, messages=ASK, max_tokens=24, temperature=0).choices[0].message.content
        for run in (with_litellm, with_langchain, with_instructor):
            run(server.port, said)
    finally:
        server.process.terminate()
        check("it ends with 0", server.process.wait(60) == 0)
    return tap.failures > 0


if __name__ == "__main__":
    sys.exit(main())
