// ---- messages as they are shown
const button = (text, what, run) => { const b = make("button", {type: "button", className: "small", title: what}, text); b.onclick = run; return b; };

function statsText(v) {
  const s = v.stats;
  if (!s) return "";
  return [short(s.n) + " tokens", short(s.tok_s) + " tok/s", s.round > 1 ? short(s.round) + " tokens a round" : "", "first after " + short(s.first_ms) + " ms",
    s.cached ? short(s.cached) + " of " + short(s.prompt) + " prompt tokens cached" : ""].filter(t => t).join(" \u00b7 ");
}
// Brings a version's box up to date with it; called again as it grows.
function showVersion(box, v) {
  box.parts ??= {};
  const p = box.parts;
  if (v.reasoning && !p.think) {
    p.thought = make("div");
    p.think = make("details", {className: "think"}, p.summary = make("summary"), p.thought);
    box.prepend(p.think);
  }
  if (p.think) {
    p.thought.textContent = v.reasoning;
    p.summary.textContent = v.running && !v.text ? "Reasoning \u2026" : "Reasoning";
  }
  if (!p.text) box.append(p.text = make("div", {className: "text"}), p.calls = make("div"), p.end = make("div"));
  p.text.classList.toggle("running", v.running);
  showMarkdown(p.text, v.running && !v.text && !v.calls.length ? "\u2026" : v.text);
  p.calls.replaceChildren(...v.calls.map(c => {
    let args = c.arguments;
    try { args = JSON.stringify(JSON.parse(args), null, 2); } catch { /* still coming, or no JSON */ }
    return make("div", {className: "call"}, "calls ", make("b", {}, c.name), make("pre", {tabIndex: 0}, make("code", {}, args)));
  }));
  p.end.replaceChildren(...[v.error && make("div", {className: "error", role: "alert"}, v.error),
    make("span", {className: "stats"}, [v.stopped ? "stopped" : "", v.cut ? "cut at its limit" : "", statsText(v)].filter(t => t).join(" \u00b7 "))].filter(e => e));
}
// Both answers, their speeds, and whether they are the same.
function showPair(box, v) {
  if (!v.off) { showVersion(box, v); return; }
  box.parts ??= {};
  const p = box.parts;
  if (!p.on) {
    p.on = make("div");
    p.without = make("div");
    const side = (name, of) => make("div", {}, make("h3", {}, name), of);
    box.append(make("div", {className: "pair"}, side("speculation on", p.on), side("speculation off", p.without)), p.verdict = make("p", {className: "verdict"}));
  }
  showVersion(p.on, v);
  showVersion(p.without, v.off);
  const whole = o => !o.running && !o.stopped && !o.error, both = whole(v) && whole(v.off), faster = both && v.stats && v.off.stats && v.stats.tok_s / v.off.stats.tok_s;
  const same = ["text", "reasoning"].every(k => v[k] === v.off[k]) && JSON.stringify(v.calls.map(c => [c.name, c.arguments])) === JSON.stringify(v.off.calls.map(c => [c.name, c.arguments]));
  p.verdict.textContent = !both ? "" : (same ? "The same answer to the byte" : "The answers differ") + (faster ? "; decoding with speculation is " + short(faster) + " times as fast." : ".");
}

function editor(article, m, buttons) {
  const of = m.role === "assistant" ? m.versions[m.at] : m, area = make("textarea", {value: of.text, rows: Math.min(16, of.text.split("\n").length + 1), "aria-label": "Edited message"});
  const close = () => { drawTalk(); $("text").focus(); };
  const bar = make("div", {className: "actions"}, ...buttons.map(([name, what, run]) => button(name, what, () => { run(area.value); })), button("Cancel", "Esc", close));
  area.onkeydown = e => {
    if (e.key === "Escape") { e.stopPropagation(); close(); }
    if (e.key === "Enter" && !e.shiftKey && !e.isComposing) { e.preventDefault(); buttons[0][2](area.value); }
  };
  article.replaceChildren(make("div", {className: "editing"}, area, bar));
  area.focus();
}
function edit(i) {
  const m = talk.messages[i];
  stopAnswer();
  drawTalk();
  const article = $("log").children[i];
  if (m.role === "user")
    editor(article, m, [["Send again", "Enter: asks anew; what came behind it goes", text => { if (text.trim() && fieldsOrNote()) { m.text = text; talk.messages.length = i + 1; answer(i + 1); } }]]);
  else
    editor(article, m, [["Keep", "Enter: further answers build on this text", text => { m.versions[m.at].text = text; saveNow(); drawTalk(); $("text").focus(); }]]);
}

// The calls of the last answer that have no result yet get fields for them.
function resultFields(m, i) {
  const calls = m.versions[m.at].calls;
  if (!calls.length || i !== talk.messages.length - 1 || m.versions[m.at].running) return null;
  const areas = calls.map(c => make("textarea", {rows: 2, "aria-label": "Result of " + c.name, placeholder: "Result of " + c.name}));
  return make("div", {}, ...areas, button("Send results", "What the tools said", () => {
    if (!fieldsOrNote()) return;
    calls.forEach((c, k) => talk.messages.push({role: "tool", id: c.id, name: c.name, text: areas[k].value}));
    answer(talk.messages.length);
  }));
}
function drawMessage(i) {
  const m = talk.messages[i];
  if (m.role !== "assistant") {
    const article = make("article", {className: "user"});
    const actions = [copyButton(() => m.text), m.role === "user" && button("Edit", "Change it and ask again", () => edit(i))];
    article.append(make("div", {className: "who"}, m.role === "tool" ? "result of " + m.name : "You"), make("div", {className: "body"}, m.text), make("div", {className: "actions"}, ...actions.filter(a => a)));
    return article;
  }
  const v = m.versions[m.at], box = make("div", {className: "body"}), article = make("article", {className: "assistant"}, make("div", {className: "who"}, v.model), box);
  showPair(box, v);
  article.box = box;
  if (!v.running) endMessage(article, i);
  return article;
}
// What can be done with an answer that is there.
function endMessage(article, i) {
  const m = talk.messages[i], v = m.versions[m.at];
  showPair(article.box, v);
  const step = d => { m.at += d; saveNow(); drawTalk(); $("text").focus(); };
  const several = m.versions.length > 1 && [button("\u2039", "The version before", () => step(-1)), make("span", {className: "stats"}, m.at + 1 + "/" + m.versions.length), button("\u203a", "The next version", () => step(1))];
  if (several) { several[0].disabled = m.at === 0; several[2].disabled = m.at === m.versions.length - 1; }
  article.append(make("div", {className: "actions"}, copyButton(() => v.text), button("Edit", "Change what further answers build on", () => edit(i)),
    button(v.error ? "Resend" : "Regenerate", "Asks once more; what came behind it goes", () => answer(i)),
    (v.stopped || v.cut || v.error) && v.text && !v.calls.length && i === talk.messages.length - 1 && button("Continue", "Goes on where it ended", () => goOn(i)), ...(several || [])), resultFields(m, i) ?? "");
}
const atEnd = () => $("log").scrollHeight - $("log").scrollTop - $("log").clientHeight < 40;
const toEnd = () => { $("log").scrollTop = $("log").scrollHeight; };
function drawTalk() {
  const end = atEnd();
  $("log").replaceChildren(...talk.messages.map((_, i) => drawMessage(i)));
  if (!talk.messages.length) $("log").append(make("p", {className: "empty"}, "Ask something. Nothing of it leaves this server and this browser."));
  if (end) toEnd();
}
