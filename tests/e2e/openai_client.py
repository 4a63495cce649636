#!/usr/bin/env python3
"""The official OpenAI client against the server: what drop-in means. Skipped where it is not installed.

    tests/e2e/openai_client.py build/release/specdec        (PYTHON=... picks another interpreter)
"""
import json
import os
import re
import subprocess
import sys
import tempfile
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
    return float(re.search(r"^specdec_%s\{[^}]*\} (\S+)$" % name, page, re.M).group(1))


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


TOOL = {"type": "function", "name": "get_weather", "description": "The weather in a city now.", "strict": True, "parameters": {
    "type": "object", "properties": {"city": {"type": "string", "maxLength": 20}}, "required": ["city"], "additionalProperties": False}}


def responses(port):
    client = openai.OpenAI(base_url="http://127.0.0.1:%d/v1" % port, api_key="not-asked-for", max_retries=0, timeout=120)
    ask = dict(model=NAME, instructions="You are terse.", input="Name a colour.", max_output_tokens=24, temperature=0)
    whole = client.responses.create(**ask)
    check("responses.create", whole.output_text and whole.status in ("completed", "incomplete"), whole)
    chat = client.chat.completions.create(model=NAME, max_tokens=24, temperature=0, messages=[
        {"role": "system", "content": "You are terse."}, {"role": "user", "content": "Name a colour."}])
    check("says what a chat says", whole.output_text == chat.choices[0].message.content, whole)
    with client.responses.stream(**ask) as stream:
        kinds = [event.type for event in stream]
    text = "".join(e.delta for e in client.responses.create(**ask, stream=True) if e.type == "response.output_text.delta")
    check("a stream says the same", text == whole.output_text, text)
    check("the streaming helper follows its events", kinds[0] == "response.created" and kinds[-1] in ("response.completed", "response.incomplete")
          and "response.output_text.done" in kinds, kinds)
    form = {"type": "json_schema", "name": "colour", "strict": True, "schema": {
        "type": "object", "properties": {"colour": {"enum": ["red", "blue"]}}, "required": ["colour"], "additionalProperties": False}}
    held = client.responses.create(**dict(ask, text={"format": form}))
    check("text.format holds the answer", json.loads(held.output_text)["colour"] in ("red", "blue"), held)
    raw = client.responses.with_raw_response.create(**dict(ask, max_output_tokens=200, tools=[TOOL, {"type": "web_search"}], tool_choice="required"))
    calls = [item for item in raw.parse().output if item.type == "function_call"]
    check("a forced call keeps to its schema", calls and all(set(json.loads(c.arguments)) == {"city"} for c in calls), raw.parse())
    check("a tool of another kind is skipped and listed", raw.headers.get("x-specdec-skipped-tools") == "web_search", dict(raw.headers))
    items = [{"role": "user", "content": "How is the weather?"}]
    for c in calls:
        items += [c.model_dump(), {"type": "function_call_output", "call_id": c.call_id, "output": "clear"}]
    after = client.responses.create(**dict(ask, input=items, tools=[TOOL]))
    check("its output is taken", after.usage.output_tokens > 0, after)
    e = raises(openai.BadRequestError, lambda: client.responses.create(**dict(ask, previous_response_id="resp_1")))
    check("previous_response_id is refused plainly", getattr(e, "param", None) == "previous_response_id", e)


def scored(port):
    """As lm-eval's local-completions asks: the prompt's log probabilities, and whether it is what would be said."""
    client = openai.OpenAI(base_url="http://127.0.0.1:%d/v1" % port, api_key="not-asked-for", max_retries=0, timeout=120)
    ids = client.post("/tokenize", body={"prompt": "The capital of France is Paris."}, cast_to=object)["tokens"]
    done = client.completions.create(model=NAME, prompt=[ids], temperature=0, max_tokens=1, logprobs=1, seed=1, echo=True).choices[0]
    lists = done.logprobs
    check("a scored prompt has a log probability for each token but the first", len(lists.token_logprobs) == len(ids) + 1
          and lists.token_logprobs[0] is None and all(p <= 0 for p in lists.token_logprobs[1:]), lists)
    check("and its alternatives", lists.top_logprobs[0] is None and all(len(t) >= 1 for t in lists.top_logprobs[1:]), lists)
    check("its texts stand at their places", all(done.text[at:].startswith(t) for t, at in zip(lists.tokens, lists.text_offset)), lists)
    back = client.post("/detokenize", body={"tokens": ids}, cast_to=object)
    check("detokenize undoes tokenize", back == {"prompt": "The capital of France is Paris."}, back)


def decided(port):
    """Typed questions, in OpenAI's dialect: by the client where it has them, else by its plain requests."""
    client = openai.OpenAI(base_url="http://127.0.0.1:%d/v1" % port, api_key="not-asked-for", max_retries=0, timeout=120)
    ask = dict(model=NAME, input="My payouts have been failing for three days, I want my money today!", questions=[
        {"type": "predicate", "name": "urgent", "instructions": "Does this need attention today?"},
        {"type": "choice", "name": "team", "instructions": "Whose is it?", "choices": [{"value": "billing", "description": "money"}, {"value": "sales"}, {"value": True}]},
        {"type": "score", "name": "mood", "instructions": "How angry is the writer?", "levels": [{"label": "calm"}, {"label": "cross"}, {"label": "furious"}]}])
    if hasattr(client, "decisions"):
        got = client.decisions.create(**ask).model_dump()
    else:
        got = client.post("/decisions", body=ask, cast_to=object)
    urgent, team, mood = got["answers"]
    check("decisions: a predicate is a probability", 0 < urgent["probability"] < 1 and urgent["name"] == "urgent", got)
    check("decisions: probabilities sum to one", all(abs(sum(p["probability"] for p in a["probabilities"]) - 1) < 1e-6 for a in (team, mood)), got)
    check("decisions: a boolean stays one", team["probabilities"][2]["value"] is True and team["choice"] in ("billing", "sales", True), got)
    check("decisions: a score lies between its levels", 0 <= mood["score"] <= 2 and got["usage"]["output_tokens"] == 0, got)


def embedded(port):
    """Vectors, of a model that states its pooling; the client asks for base64 unless told otherwise."""
    client = openai.OpenAI(base_url="http://127.0.0.1:%d/v1" % port, api_key="not-asked-for", max_retries=0, timeout=120)
    texts = ["a word", "another text of more words"]
    done = client.embeddings.create(model="tiny", input=texts)
    check("embeddings.create", [d.index for d in done.data] == [0, 1] and all(abs(sum(x * x for x in d.embedding) - 1) < 1e-5 for d in done.data), done)
    numbers = client.embeddings.create(model="tiny", input=texts, encoding_format="float")
    off = max(abs(a - b) for d, e in zip(done.data, numbers.data) for a, b in zip(d.embedding, e.embedding))
    check("as numbers they are the same", off < 1e-8, off)
    check("its usage counts the texts' tokens", done.usage.prompt_tokens == done.usage.total_tokens > len(texts), done.usage)


def with_tiny():
    maker = os.path.join(os.path.dirname(BINARY), "tests", "make_tiny_model")
    if not os.path.exists(maker):
        tap.skip("embeddings", f"{maker} is not built")
        return
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "tiny.gguf")
        subprocess.run([maker, path, "pooling"], check=True)
        server = Served(BINARY, path)
        try:
            embedded(server.port)
        finally:
            server.stop()


def main():
    with_tiny()
    try:
        server = Served(BINARY, MODEL)
    except RuntimeError as e:
        check("the server starts", False, e)
        return 1
    try:
        run(server.port)
        responses(server.port)
        scored(server.port)
        decided(server.port)
        client = openai.OpenAI(base_url="http://127.0.0.1:%d/v1" % server.port, api_key="not-asked-for", max_retries=0, timeout=120)
        e = raises(openai.BadRequestError, lambda: client.embeddings.create(model=NAME, input="a"))
        check("a model without pooling is BadRequestError and says so", "states no pooling" in str(e), e)
    finally:
        server.process.terminate()
        check("it ends with 0", server.process.wait(60) == 0)
    return tap.failures > 0


if __name__ == "__main__":
    sys.exit(main())
