#!/usr/bin/env python3
"""The page at / in a headless Chromium, over a generated tiny model: chat and status, driven by keyboard alone.

    tests/e2e/page.py build/release/specdec [--shots DIR]

--shots: leaves screenshots at phone and desktop width, light and dark. Prints TAP. Standard library only; skipped where there is no Chromium ($CHROMIUM, or on the path).
"""
import json
import os
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
import chromium  # noqa: E402
import tap  # noqa: E402
from gate import Gate  # noqa: E402
from options import parser  # noqa: E402
from served import Served  # noqa: E402
from tap import check  # noqa: E402

options = parser(__doc__)
options.add_argument("--shots", metavar="DIR", help="leave screenshots there")
ARGS = options.parse_args()
IDLE = "$('send').textContent === 'Send'"
LAST = "$('log').lastElementChild"
TALK = "[...document.querySelectorAll('article')].map(a => [a.className, a.querySelector('.body').textContent])"
HOSTILE = """<img src=x onerror="document.title='broken'"> <script>document.title='broken'</script>

[a](javascript:document.title='broken') [b](data:text/html,x) ![c](http://127.0.0.1:1/x.png) <a href=x>d</a> [e](https://example.org/"onclick=x)

| a | b |
|---|---|
| <b>1</b> | `<i>2</i>` |

```html
</code></pre><script>document.title='broken'</script>
```

# <svg onload=x>
- **<u>bold</u>**"""
SAMPLE = """Here is a **short answer** with a [link](https://example.org), `code` and a list:

1. Read the file, line by line
2. Count the *words*
   - lower case
   - without punctuation

```python
import sys

def count(path):  # words of a file
    with open(path) as f:
        return sum(len(line.split()) for line in f)

print("words:", count(sys.argv[1]), 42)
```

| words | time |
|---|---|
| 1,000 | 0.2 ms |
| 1,000,000 | 180 ms |

> It reads the file once and keeps one line in memory."""


def ask(p, text):
    p.tab_to("e.id === 'text'")
    p.type(text)
    p.key("Enter")


def answered(p):
    return p.wait(IDLE + " && !!%s?.querySelector('.actions')" % LAST)


def press(p, name):
    """The last message's button of that name, reached and pressed by keyboard."""
    found = p.tab_to("e.textContent === '%s' && !%s.previousElementSibling?.contains(e) && %s.contains(e)" % (name, LAST, LAST))
    p.key("Enter")
    return found


def set_field(p, name, value):
    """By keyboard: what stood there goes."""
    found = p.tab_to("e.id === '%s'" % name)
    p.js("document.activeElement.select()")
    p.type(value)
    return found


def chat(p, gate):
    check("the page finds the model", p.wait("$('model').value === 'tiny' && $('state').textContent === 'serving'"), p.js("$('state').textContent"))
    check("settings are reached by keyboard", set_field(p, "max_tokens", "24") and set_field(p, "more", '{"ignore_eos": true}'))
    ask(p, "first question")
    check("a question gets an answer", answered(p) and p.js("$('log').children.length") == 2, p.js(TALK))
    check("its speed is said", " tok/s" in p.js(LAST + ".querySelector('.stats').textContent"), p.js(LAST + ".textContent"))
    check("what is asked is what the settings say", gate.bodies[-1].get("max_tokens") == 24 and gate.bodies[-1].get("ignore_eos") is True, gate.bodies[-1])

    gate.open.clear()
    ask(p, "second question")
    check("an answer that comes can be stopped", p.wait("$('log').children.length === 4 && $('send').textContent === 'Stop'"))
    p.key("Escape")
    check("... by Escape", p.wait(IDLE) and "stopped" in p.js(LAST + ".querySelector('.stats').textContent"), p.js(LAST + ".textContent"))
    gate.open.set()

    ask(p, "third question")
    check("the talk goes on", answered(p) and p.js("$('log').children.length") == 6, p.js(TALK))
    check("... and the model is told what was said", gate.bodies[-1]["messages"][0]["content"] == "first question" and gate.bodies[-1]["messages"][-1]["content"] == "third question", gate.bodies[-1])

    p.key("ArrowUp")
    check("arrow up edits the last question", p.js("document.activeElement.value") == "third question", p.js("document.activeElement.outerHTML"))
    p.key("End")
    p.type(", edited")
    p.key("Enter")
    check("... and asks it again", answered(p) and p.js("$('log').children.length") == 6 and gate.bodies[-1]["messages"][-1]["content"] == "third question, edited", gate.bodies[-1])
    before = p.js(LAST + ".querySelector('.body .text').textContent")
    check("regenerate is reached by keyboard", press(p, "Regenerate"))
    check("... and gives a further version", answered(p) and "2/2" in p.js(LAST + ".textContent"), p.js(LAST + ".textContent"))
    press(p, "\u2039")
    check("... behind which the one before is kept", p.js(LAST + ".querySelector('.body .text').textContent") == before)

    text = "(m => m.versions[m.at].text)(talk.messages.at(-1))"
    cut = p.js(text)
    press(p, "Continue")
    check("an answer that was cut goes on", answered(p) and p.js(text).startswith(cut) and len(p.js(text)) > len(cut)
          and gate.bodies[-1].get("continue_final_message") is True and gate.bodies[-1]["messages"][-1]["role"] == "assistant", gate.bodies[-1])

    set_field(p, "tools", "[not JSON")
    ask(p, "not sent")
    check("a mistake in the settings is said, and the text stays", "list of tools" in p.js("$('note').textContent") and p.js("$('text').value") == "not sent", p.js("$('note').textContent"))
    set_field(p, "tools", "")
    set_field(p, "text", "")

    said = p.js(TALK)
    p.call("Page.reload")
    check("a reload keeps the talk", p.wait("document.querySelectorAll('article').length === 6") and p.js(TALK) == said, p.js(TALK))
    check("... and how it is asked", p.wait("$('model').value === 'tiny'") and p.wait("$('max_tokens').value === '24'"))


def pair(p, gate):
    p.tab_to("e.id === 'spec'")
    p.key("End")
    check("speculation on and off is chosen by keyboard", p.js("$('spec').value") == "both")
    ask(p, "both ways")
    check("both answers come", answered(p) and p.js(LAST + ".querySelectorAll('.pair .text').length") == 2)
    check("... they are the same", "The same answer" in p.js(LAST + ".querySelector('.verdict').textContent"), p.js(LAST + ".textContent"))
    check("... and were asked for with and without speculation", [b["speculative"]["enabled"] for b in gate.bodies[-2:]] == [True, False]
          and gate.bodies[-1]["seed"] == gate.bodies[-2]["seed"], gate.bodies[-2:])
    p.tab_to("e.id === 'spec'")
    p.key("Home")


def tools(p, gate):
    tool = {"type": "function", "function": {"name": "weather", "strict": True, "parameters": {
        "type": "object", "properties": {"city": {"enum": ["Oslo"]}}, "required": ["city"], "additionalProperties": False}}}
    p.tab_to("e.id === 'new'")
    p.key("Enter")
    set_field(p, "tools", json.dumps([tool]))
    set_field(p, "more", '{"tool_choice": "required", "parallel_tool_calls": false}')
    set_field(p, "max_tokens", "120")
    ask(p, "what is the weather?")
    check("a tool call is shown", answered(p) and p.js(LAST + ".querySelector('.call b')?.textContent") == "weather"
          and "Oslo" in p.js(LAST + ".querySelector('.call code').textContent"), p.js(LAST + ".textContent"))
    set_field(p, "more", "")
    p.tab_to("e.getAttribute('aria-label') === 'Result of weather'")
    p.type("rain")
    p.tab_to("e.textContent === 'Send results'")
    p.key("Enter")
    check("its result is sent", answered(p) and not p.js("!!%s.querySelector('.error')" % LAST) and gate.bodies[-1]["messages"][-1]["role"] == "tool"
          and gate.bodies[-1]["messages"][-2]["tool_calls"][0]["id"] == gate.bodies[-1]["messages"][-1]["tool_call_id"], p.js(LAST + ".textContent") + str(gate.bodies[-1]))
    set_field(p, "tools", "")


def safety(p):
    p.js("window.box = document.createElement('div'); showMarkdown(box, %s); 0" % json.dumps(HOSTILE))
    check("a model's words make no element of their own", p.js("box.querySelectorAll('img, script, svg, u, iframe, b, i').length") == 0, p.js("box.innerHTML"))
    check("... and no link but to the web", p.js("[...box.querySelectorAll('a')].every(a => a.protocol === 'https:' || a.protocol === 'http:') && box.querySelectorAll('a').length") == 2, p.js("box.innerHTML"))
    check("... no attribute of theirs", p.js("[...box.querySelectorAll('*')].every(e => [...e.attributes].every(a => !a.name.startsWith('on')))"))
    check("... and are all there", p.js("box.textContent.includes(\"<script>document.title='broken'\") && box.querySelector('table td').textContent === '<b>1</b>'"), p.js("box.textContent"))
    # Growing piece by piece ends where the whole begins.
    check("Markdown that grows is Markdown at once", p.js("""(() => {
      const text = %s, a = document.createElement('div'), b = document.createElement('div');
      for (let i = 0; i <= text.length; i++) showMarkdown(a, text.slice(0, i));
      showMarkdown(b, text);
      return a.innerHTML === b.innerHTML && !!b.querySelector('ol ul li') && !!b.querySelector('.word') && !!b.querySelector('blockquote');
    })()""" % json.dumps(SAMPLE)))
    check("text that is made to be slow is not", p.js("""['*a '.repeat(20000), '`'.repeat(20000) + ' '.repeat(20000) + '`', '[a]('.repeat(20000), '> '.repeat(20000), '- '.repeat(20000), '| '.repeat(20000) + '\\n|-|',
      '``` ' + ' '.repeat(20000) + '`', '# ' + '# '.repeat(20000) + 'x', '_a_b'.repeat(20000), 'https://' + '.'.repeat(20000), '**a**'.repeat(20000)].map(t => { const d = document.createElement('div'); showMarkdown(d, t); return d.textContent.length > 0; }).length""") == 11)
    check("reasoning is folded", p.js("""(() => { const d = document.createElement('div'); showVersion(d, {...newVersion('m'), text: 'said', reasoning: '<b>thought</b>', running: false});
      return !d.querySelector('details').open && d.querySelector('details div').textContent === '<b>thought</b>' && d.querySelector('.text').textContent === 'said'; })()"""))
    clean = len(p.errors)
    p.js("{ const d = document.createElement('div'); d.innerHTML = '<img src=x onerror=\"window.ran = 1\">'; document.body.append(d); const s = document.createElement('script'); s.textContent = 'window.ran = 1'; d.append(s); } 0")
    check("a script that got into the page does not run", not p.wait("window.ran === 1", 1))
    check("... which the console says", len([e for e in p.errors if "Content Security Policy" in e]) >= 2, "\n".join(p.errors))
    del p.errors[clean:]
    p.js("document.body.lastChild.remove()")
    p.js("localStorage.setItem('specdec-talk:x', '{\"id\": \"x\"}'); localStorage.setItem('specdec-talk:y', '[not JSON'); listTalks()")
    check("what else stands in the storage is passed over", p.js("readTalks().every(t => t.id !== 'x' && t.id !== 'y')"))


def failures(p, gate):
    p.tab_to("e.id === 'new'")
    p.key("Enter")
    set_field(p, "max_tokens", "16")
    set_field(p, "more", '{"ignore_eos": true}')
    gate.refuse = True
    ask(p, "unanswered")
    check("an error is said", answered(p) and p.js("!!%s.querySelector('.error')" % LAST), p.js(TALK))
    gate.refuse = False
    check("... and what failed can be sent again", press(p, "Resend") and answered(p) and not p.js("!!%s.querySelector('.error')" % LAST), p.js(TALK))
    ask(p, "x " * 3000)
    check("a message that is too long is an error of the server", answered(p) and p.js("!!%s.querySelector('.error')" % LAST), p.js(TALK))
    ask(p, "short")
    check("... and the next one does without it", answered(p) and not p.js("!!%s.querySelector('.error')" % LAST)
          and [m["content"] for m in gate.bodies[-1]["messages"] if m["role"] == "user"] == ["unanswered", "short"], gate.bodies[-1])
    gate.cut = True
    ask(p, "cut")
    check("a connection that ends within an answer is an error", answered(p) and p.js("!!%s.querySelector('.error')" % LAST), p.js(LAST + ".textContent"))
    gate.cut = False


def status(p):
    p.tab_to("e.id === 'tab-chat'")
    p.key("ArrowRight")
    check("the status is reached by keyboard", p.js("!$('status').hidden && $('chat').hidden"))
    check("speeds, percentiles, use and utilisation are numbers", p.wait(
        "['generated', 'first token', 'between tokens', 'requests', 'KV in use', 'utilisation'].every(t => [...document.querySelectorAll('#cards div')].some(c => c.firstChild.textContent === t && /\\d/.test(c.children[1].textContent)))"),
        p.js("$('cards').textContent"))
    check("plots have axes and lines", p.wait("[...document.querySelectorAll('.plot svg')].every(s => s.querySelectorAll('text').length >= 8) && document.querySelectorAll('.plot polyline').length >= 6"), p.js("$('plots').textContent"))
    check("memory is shown by part", "weights" in p.js("$('tables').textContent"), p.js("$('tables').textContent"))
    check("percentiles are Prometheus'", p.js("quantile([{le: .01, n: 0}, {le: .02, n: 10}, {le: .04, n: 20}, {le: Infinity, n: 20}], .75)") == 30)
    check("labels are read as they are written", p.js("parseMetrics('specdec_x{a=\"b\\\\\"c\",d=\"e\"} 3').x[0].labels.a") == 'b"c')
    check("acceptance is shown by adapter and source", p.js("""acceptanceTable(parseMetrics('specdec_adapter_accept_length{adapter="a",draft=""} 2.5\\nspecdec_adapter_draft_tokens_total{adapter="a",source="suffix"} 8\\nspecdec_adapter_accepted_tokens_total{adapter="a",source="suffix"} 6')).textContent""")
          .endswith("aall2.5asuffix875 %"))


def widths(p, folder):
    """No width lets the page grow beyond the window. The pictures show a talk that has all there is to show."""
    sample = {"id": "sample", "title": "Count the words of a file", "changed": 0, "model": "tiny", "spec": "on", "own": {}, "tools": "", "more": "", "messages": [
        {"role": "user", "text": "How do I count the words of a file?"},
        {"role": "assistant", "at": 0, "versions": [{"model": "tiny", "text": SAMPLE, "reasoning": "The user wants a small program.", "calls": [], "running": False, "stopped": False, "cut": False, "error": "", "off": None,
                                                     "stats": {"n": 180, "tok_s": 412.3, "first_ms": 23.1, "round": 2.4, "cached": 20, "prompt": 41}}]}]}
    p.js("{ const t = %s; localStorage.setItem(STORE + t.id, JSON.stringify(t)); openTalk(t); } 0" % json.dumps(sample))
    if folder:
        os.makedirs(folder, exist_ok=True)
    for name, width, height, mobile in (("phone", 390, 844, True), ("desktop", 1440, 900, False)):
        p.size(width, height, mobile)
        p.js("$('talks').open = $('settings').open = %s" % ("false" if mobile else "true"))
        for view in ("chat", "status"):
            for shade in ("light", "dark"):
                p.dark(shade == "dark")
                p.js("view('%s'); $('log').scrollTop = 0" % view)
                p.wait("new Promise(r => requestAnimationFrame(() => requestAnimationFrame(() => r(true))))")
                wide = p.js("[document.documentElement.scrollWidth, innerWidth, $('%s').scrollWidth, $('%s').clientWidth]" % (view, view))
                if shade == "light":
                    check(f"{view} fits the {name}", wide[0] <= wide[1] and wide[2] <= wide[3] + 1, wide)
                if folder:
                    p.shot(os.path.join(folder, f"{view}-{name}-{shade}.png"))


def main():
    if not chromium.find():
        tap.skip("the page in a browser", "no Chromium is installed")
        tap.finish()
    with tempfile.TemporaryDirectory() as folder:
        model = os.path.join(folder, "tiny.gguf")
        subprocess.run([os.path.join(os.path.dirname(ARGS.binary), "tests", "make_tiny_model"), model, "long"], check=True)
        server = Served(ARGS.binary, model, "--no-pack-cache", "--ctx", "2048")
        gate = Gate(server.port)
        p = chromium.Page("http://127.0.0.1:%d/" % gate.port)
        try:
            chat(p, gate)
            pair(p, gate)
            tools(p, gate)
            safety(p)
            status(p)
            widths(p, ARGS.shots)
            check("the console has seen no error", p.errors == [], "\n".join(p.errors))
            p.size(1280, 900)
            p.js("view('chat')")
            failures(p, gate)
            check("the page makes no exception of a failure", not [e for e in p.errors if "Failed to load" not in e], "\n".join(p.errors))
        finally:
            p.close()
            server.stop()
        with open(os.path.join(folder, "keys"), "w") as f:
            f.write("secret-key-of-the-test\n")
        os.chmod(os.path.join(folder, "keys"), 0o600)
        server = Served(ARGS.binary, model, "--no-pack-cache", "--api-key-file", os.path.join(folder, "keys"))
        p = chromium.Page("http://127.0.0.1:%d/" % server.port)
        try:
            check("a server with keys is asked for one", p.wait("!$('ask-key').hidden"))
            p.tab_to("e.id === 'key'")
            p.type("secret-key-of-the-test")
            p.key("Enter")
            check("... and serves with it", p.wait("$('state').textContent === 'serving' && $('model').value === 'tiny'"), p.js("$('state').textContent"))
            p.call("Page.reload")
            check("... also behind a reload", p.wait("$('state').textContent === 'serving' && $('model').value === 'tiny'"), p.js("$('state').textContent"))
        finally:
            p.close()
            server.stop()
    tap.finish()


main()
