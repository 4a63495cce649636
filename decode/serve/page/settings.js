// ---- how the model is asked: its own defaults, which the server fills in by itself, and what the talk has else
const SETTINGS = ["temperature", "top_p", "top_k", "min_p", "repetition_penalty", "seed", "max_tokens"];
const defaults = {}; // model -> what the server would fill in: a setting to its value, and "system" to a text

async function listModels() {
  if ($("model").options.length && Date.now() - listModels.at < 15000) return;
  const r = await fetch("/v1/models", {headers: headers()});
  if (!r.ok) return;
  listModels.at = Date.now();
  const models = (await r.json()).data, shown = JSON.stringify(models.map(m => [m.id, m.generation]));
  if (shown === listModels.shown) return;
  listModels.shown = shown;
  $("model").replaceChildren(...models.map(m => new Option(m.id, m.id)));
  for (const id of Object.keys(defaults)) delete defaults[id];
  await showSettings();
}
async function defaultsOf(id) {
  if (defaults[id]) return defaults[id];
  const r = await fetch("/v1/models/" + encodeURIComponent(id), {headers: headers()});
  if (!r.ok) return {};
  const d = (await r.json()).defaults ?? {};
  defaults[id] = {...d.sampling};
  if (d.system && d.system_share >= 0.95) defaults[id].system = d.system;
  return defaults[id];
}
let own = {}; // of the talk's model
async function showSettings() {
  const models = [...$("model").options].map(o => o.value);
  if (!models.length || !talk) return;
  if (!models.includes(talk.model)) talk.model = models[0];
  $("model").value = talk.model;
  const t = talk, found = await defaultsOf(t.model);
  if (t !== talk || $("model").value !== t.model) return; // another one was opened meanwhile
  own = found;
  for (const s of SETTINGS) $(s).value = t.own[s] ?? own[s] ?? (s === "temperature" ? 0.7 : "");
  $("system").value = t.own.system ?? own.system ?? "";
  $("tools").value = t.tools;
  $("more").value = t.more;
  $("spec").value = t.spec;
  $("from").textContent = Object.keys(own).length ? "What is not marked is as the model's files say." : "";
  departs();
}
// Says what is not as the model's files say.
function departs() {
  for (const s of [...SETTINGS, "system"]) {
    const other = s in own && s in talk.own;
    $("was-" + s).textContent = !other ? "" : s === "system" ? "(not the one of the training)" : "(" + own[s] + ")";
  }
}
$("settings").oninput = e => {
  const s = e.target.id, value = e.target.value;
  if (s === "tools" || s === "more") talk[s] = value;
  else if (s === "system" || SETTINGS.includes(s)) {
    if (value === String(own[s] ?? "")) delete talk.own[s];
    else talk.own[s] = value;
    departs();
  }
  save();
};
$("model").onchange = () => { talk.model = $("model").value; save(); showSettings(); };
$("spec").onchange = () => { talk.spec = $("spec").value; save(); };
$("reset").onclick = () => { talk.own = {}; save(); showSettings(); };

function parsed(text, what, fits) {
  let v;
  try { v = JSON.parse(text); } catch (e) { throw new Error(what + ": " + e.message); }
  if (!fits(v)) throw new Error(what + " is not what is asked for");
  return v;
}
// The fields of a request beside its messages. What the talk has as the model's is left out: the server fills it in.
function askedFields(t) {
  const fields = {model: t.model};
  if (!("temperature" in t.own) && !("temperature" in own)) fields.temperature = 0.7;
  for (const s of SETTINGS)
    if (t.own[s] !== undefined && t.own[s] !== "") fields[s] = Number(t.own[s]);
  if (t.tools.trim()) fields.tools = parsed(t.tools, "The list of tools", Array.isArray);
  if (t.more.trim()) Object.assign(fields, parsed(t.more, "The further fields", v => v && typeof v === "object" && !Array.isArray(v)));
  return fields;
}
// The same, or null after a note that says what is wrong.
function fieldsOrNote() {
  note(talk.model ? "" : "The server has named no model yet.");
  try { return talk.model ? askedFields(talk) : null; }
  catch (e) { note(e.message); return null; }
}
// The first n messages as the API takes them. A question that got no answer is left out, or it would fail the next one too. An
// emptied system text is sent empty, or the server would fill it in.
function askedMessages(t, n) {
  const sent = "system" in t.own ? [{role: "system", content: t.own.system}] : [];
  for (const m of t.messages.slice(0, n)) {
    if (m.role === "user") sent.push({role: "user", content: m.text});
    else if (m.role === "tool") sent.push({role: "tool", tool_call_id: m.id, content: m.text});
    else if (!answered(m)) { if (sent.at(-1)?.role === "user") sent.pop(); }
    else {
      const v = m.versions[m.at], calls = v.calls.map(c => ({id: c.id, type: "function", function: {name: c.name, arguments: c.arguments}}));
      sent.push({role: "assistant", content: v.text || (calls.length ? null : ""), ...(calls.length ? {tool_calls: calls, reasoning_content: v.reasoning || undefined} : {})});
    }
  }
  return sent;
}
const answered = m => { const v = m.versions[m.at]; return v.text !== "" || v.calls.length > 0; };
