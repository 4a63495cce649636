#!/usr/bin/env python3
"""The official OpenAI client against the server: what drop-in means. Skipped where it is not installed.

    tests/e2e/openai_client.py build/release/specdec        (PYTHON=... picks another interpreter)
"""
import os
import re
import sys
import time
import urllib.request

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
import tap  # noqa: E402
from openai_sdk import sdk  # noqa: E402
from served import Served  # noqa: E402
from tap import check  # noqa: E402

openai, BINARY, MODEL = sdk(__doc__, "openai client", "SmolLM2-135M-Instruct.Q4_1.gguf")
NAME = "SmolLM2-135M-Instruct.Q4_1"


def raises(kind, call):
    try:
        call()
    except kind as e:
        return e
    except Exception as e:  # another error is what the check will show
        return "%s: %s" % (type(e).__name__, e)
    return None


def metric(port, name):
    page = urllib.request.urlopen("http://127.0.0.1:%d/metrics" % port).read().decode()
    return float(re.search(r"^specdec:%s\{[^}]*\} (\S+)$" % name, page, re.M).group(1))


def run(port):
    client = openai.OpenAI(base_url="http://127.0.0.1:%d/v1" % port, api_key="not-asked-for", max_retries=0, timeout=120)
    check("models.list", [m.id for m in client.models.list()] == [NAME])
    check("models.retrieve", client.models.retrieve(NAME).id == NAME)
    ask = dict(model=NAME, messages=[{"role": "system", "content": "You are terse."}, {"role": "user", "content": "Name a colour."}],
               max_tokens=24, temperature=0)
    whole = client.chat.completions.create(**ask)
    check("chat.completions.create", whole.choices[0].message.content and whole.choices[0].finish_reason in ("stop", "length"), whole)
    check("usage adds up", whole.usage.total_tokens == whole.usage.prompt_tokens + whole.usage.completion_tokens, whole.usage)
    chunks = list(client.chat.completions.create(**ask, stream=True, stream_options={"include_usage": True}))
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    check("a stream gives the same text", text == whole.choices[0].message.content, text)
    check("and the same usage", chunks[-1].usage.completion_tokens == whole.usage.completion_tokens, chunks[-1])
    lp = client.chat.completions.create(**ask, logprobs=True, top_logprobs=3).choices[0].logprobs.content
    check("logprobs parse", lp and all(len(t.top_logprobs) == 3 and t.logprob <= 0 for t in lp), lp)
    with client.chat.completions.stream(**ask) as stream:
        final = stream.get_final_completion()
    check("the streaming helper collects the same", final.choices[0].message.content == whole.choices[0].message.content, final)
    done = client.completions.create(model=NAME, prompt=["1, 2, 3,", "a b c"], max_tokens=4, n=2, seed=3)
    check("completions.create with two prompts and n = 2", [c.index for c in done.choices] == [0, 1, 2, 3], done)
    e = raises(openai.BadRequestError, lambda: client.chat.completions.create(**dict(ask, temperature=9)))
    check("a bad field is BadRequestError and names it", getattr(e, "param", None) == "temperature", e)
    e = raises(openai.NotFoundError, lambda: client.chat.completions.create(**dict(ask, model="gpt-none")))
    check("an unknown model is NotFoundError", getattr(e, "code", None) == "model_not_found", e)
    stream = client.completions.create(model=NAME, prompt="Once upon a time", max_tokens=3000, stream=True,
                                       extra_body={"ignore_eos": True})
    for i, _ in enumerate(stream):
        if i == 3:
            break
    check("a stream runs", metric(port, "num_requests_running") == 1)
    stream.close()
    end = time.monotonic() + 5
    while metric(port, "num_requests_running") and time.monotonic() < end:
        time.sleep(0.01)
    check("closing it frees its slot", metric(port, "num_requests_running") == 0)


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
