// ---- asking and answering
let asking = null; // the AbortController of what comes now

async function* eventsOf(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const {value, done} = await reader.read();
    if (done) return;
    const parts = (rest + value).split("\n\n");
    rest = parts.pop();
    for (const part of parts) if (part.startsWith("data: ")) yield part.slice(6);
  }
}
function takeCalls(v, deltas) {
  for (const d of deltas ?? []) {
    const c = v.calls[d.index] ??= {id: "", name: "", arguments: ""};
    c.id += d.id ?? "";
    c.name += d.function?.name ?? "";
    c.arguments += d.function?.arguments ?? "";
  }
}
// Fills a version from a stream. What fails stands in it as its error.
async function stream(v, body, signal, grew) {
  const began = performance.now();
  let first = 0, whole = false;
  try {
    const r = await fetch("/v1/chat/completions", {method: "POST", signal, headers: {"Content-Type": "application/json", ...headers()}, body: JSON.stringify({...body, stream: true})});
    if (!r.ok) throw new Error((await r.json().catch(() => null))?.error?.message ?? "status " + r.status);
    for await (const data of eventsOf(r.body)) {
      if (data === "[DONE]") { whole = true; continue; }
      const e = JSON.parse(data), choice = e.choices?.[0], delta = choice?.delta;
      if (e.error) throw new Error(e.error.message);
      if (!first && (delta?.content || delta?.reasoning_content || delta?.tool_calls)) first = performance.now() - began;
      v.reasoning += delta?.reasoning_content ?? "";
      v.text += delta?.content ?? "";
      takeCalls(v, delta?.tool_calls);
      if (choice?.finish_reason === "length") v.cut = true;
      if (e.timings) v.stats = {n: e.timings.predicted_n, tok_s: e.timings.predicted_per_second, first_ms: first, round: e.metrics?.speculative_decoding?.mean_acceptance_length ?? 1,
        cached: e.timings.cache_n, prompt: e.timings.cache_n + e.timings.prompt_n};
      grew();
    }
    if (!whole) throw new Error("the connection ended within the answer; send it again");
  } catch (e) {
    if (e.name === "AbortError") v.stopped = true;
    else v.error = e instanceof TypeError ? "the server is not reachable: " + e.message : e.message;
  }
  v.calls = v.calls.filter(c => c);
  v.running = false;
  grew();
}

// Asks for the message at place i; what stands behind it goes. An answer that stands there becomes an older version.
function answer(i) {
  const fields = fieldsOrNote();
  if (!fields) return;
  stopAnswer();
  const t = talk, m = t.messages[i] ?? {role: "assistant", at: 0, versions: []};
  const body = {...fields, messages: askedMessages(t, i)}, v = newVersion(t.model);
  m.versions = m.versions.filter(old => old.text || old.calls.length);
  m.versions.push(v);
  m.at = m.versions.length - 1;
  t.messages.length = i;
  t.messages.push(m);
  if (t.spec === "both") {
    // Sampled alike, or they could not be the same; one behind the other, or they would share the machine.
    body.seed ??= Math.floor(Math.random() * 2 ** 31);
    v.off = newVersion(t.model);
  }
  follow(t, v, body);
}
// An answer that was stopped or cut goes on where it ended.
function goOn(i) {
  const fields = fieldsOrNote();
  if (!fields) return;
  stopAnswer();
  const m = talk.messages[i], v = m.versions[m.at], body = {...fields, messages: askedMessages(talk, i + 1), continue_final_message: true};
  Object.assign(v, {running: true, stopped: false, cut: false, error: "", off: null});
  follow(talk, v, body);
}
// Shows a version of the last message while it comes, without speculation too where it has that.
async function follow(t, v, body) {
  t.changed = Date.now();
  const mine = asking = new AbortController();
  $("send").textContent = "Stop";
  drawTalk();
  toEnd();
  $("text").focus();
  listTalks();
  let drawing = false;
  const grew = () => {
    save();
    if (drawing || t !== talk) return;
    drawing = true;
    requestAnimationFrame(() => {
      drawing = false;
      const box = $("log").lastElementChild?.box, end = atEnd();
      if (asking !== mine || t !== talk || !box) return;
      showPair(box, v);
      if (end) toEnd();
    });
  };
  await stream(v, {...body, speculative: {enabled: t.spec !== "off"}}, mine.signal, grew);
  if (v.off && !mine.signal.aborted && !v.error) await stream(v.off, {...body, speculative: {enabled: false}}, mine.signal, grew);
  else if (v.off) Object.assign(v.off, {running: false, stopped: true});
  if (asking !== mine) return; // stopped: whoever did it has shown that
  endAnswer();
  saveNow();
  const end = atEnd();
  endMessage($("log").lastElementChild, t.messages.length - 1);
  if (end) toEnd();
  $("said").textContent = v.error || v.text;
}
function endAnswer() {
  asking = null;
  $("send").textContent = "Send";
}
function stopAnswer() {
  if (!asking) return;
  asking.abort();
  for (const v of talk.messages.flatMap(versionsOf)) if (v.running) Object.assign(v, {running: false, stopped: true});
  endAnswer();
  saveNow();
}
function send() {
  const text = $("text").value;
  if (!text.trim() || !fieldsOrNote()) return;
  $("text").value = "";
  $("text").style.height = "";
  if (!talk.messages.length) talk.title = text.trim().split("\n")[0].slice(0, 60);
  talk.messages.push({role: "user", text});
  answer(talk.messages.length);
}

$("form").onsubmit = e => { e.preventDefault(); if (asking) { stopAnswer(); drawTalk(); } else send(); };
$("text").onkeydown = e => {
  if (e.key === "Enter" && !e.shiftKey && !e.isComposing) { e.preventDefault(); if (!asking) send(); }
  if (e.key === "ArrowUp" && !$("text").value) {
    const i = talk.messages.findLastIndex(m => m.role === "user");
    if (i >= 0) { e.preventDefault(); edit(i); }
  }
};
$("text").oninput = () => { $("text").style.height = "auto"; $("text").style.height = $("text").scrollHeight + 2 + "px"; };
document.onkeydown = e => { if (e.key === "Escape" && asking) { stopAnswer(); drawTalk(); $("text").focus(); } };

// ---- the two views
const TABS = ["chat", "status"];
function view(name) {
  for (const t of TABS) {
    $(t).hidden = t !== name;
    $("tab-" + t).setAttribute("aria-selected", String(t === name));
    $("tab-" + t).tabIndex = t === name ? 0 : -1;
  }
  if (name === "status" && taken.length) showStatus(taken.at(-1));
  if ((location.hash === "#status") !== (name === "status")) location.hash = name;
}
for (const t of TABS) {
  $("tab-" + t).onclick = () => view(t);
  $("tab-" + t).onkeydown = e => {
    if (e.key !== "ArrowRight" && e.key !== "ArrowLeft") return;
    const other = TABS[1 - TABS.indexOf(t)];
    view(other);
    $("tab-" + other).focus();
  };
}
onhashchange = () => view(location.hash === "#status" ? "status" : "chat");
$("key").value = sessionStorage.getItem("specdec-key") ?? "";
$("ask-key").hidden = !$("key").value;
$("key").onchange = () => { sessionStorage.setItem("specdec-key", $("key").value); poll(); };
$("talks").open = $("settings").open = matchMedia("(min-width: 70.01rem)").matches;
firstTalk();
onhashchange();
poll();
