// ---- talks, each kept in the browser under a key of its own, so that two windows do not undo each other
//
// {id, title, changed, model, spec, own: {setting: value that is not the model's}, tools, more, messages}
// A message: {role: "user", text} | {role: "tool", id, name, text} | {role: "assistant", at, versions}
// A version of an answer: {model, text, reasoning, calls: [{id, name, arguments}], stats, running, stopped, cut, error, off}
// off: the same answer without speculation, where both were asked for.
const STORE = "specdec-talk:";
let talk = null;

const newTalk = () => ({id: Date.now().toString(36) + Math.random().toString(36).slice(2, 6), title: "", changed: Date.now(),
  model: talk?.model ?? "", spec: talk?.spec ?? "on", own: {...talk?.own}, tools: talk?.tools ?? "", more: talk?.more ?? "", messages: []});
const newVersion = model => ({model, text: "", reasoning: "", calls: [], stats: null, running: true, stopped: false, cut: false, error: "", off: null});
const versionsOf = m => m.role === "assistant" ? m.versions.flatMap(v => v.off ? [v, v.off] : [v]) : [];

// What the storage has may be of another program, or damaged.
function readTalk(key) {
  try {
    const t = JSON.parse(localStorage.getItem(key));
    const text = v => typeof v === "string";
    const version = v => v && text(v.text) && text(v.reasoning) && text(v.error) && Array.isArray(v.calls) && (!v.off || version(v.off));
    const message = m => m && (m.role === "assistant" ? Array.isArray(m.versions) && m.versions.every(version) && m.versions[m.at] : ["user", "tool"].includes(m.role) && text(m.text));
    if (!t || STORE + t.id !== key || ![t.title, t.model, t.tools, t.more].every(text) || !["on", "off", "both"].includes(t.spec) || !t.own || !Array.isArray(t.messages) || !t.messages.every(message)) return null;
    for (const v of t.messages.flatMap(versionsOf)) if (v.running) Object.assign(v, {running: false, stopped: true}); // the page went while it came
    return t;
  } catch { return null; }
}
function readTalks() {
  return Object.keys(localStorage).filter(k => k.startsWith(STORE)).map(readTalk).filter(t => t).sort((a, b) => b.changed - a.changed);
}
let saveTimer = null;
function saveNow() {
  clearTimeout(saveTimer);
  saveTimer = null;
  if (!talk || !talk.messages.length) return;
  try {
    localStorage.setItem(STORE + talk.id, JSON.stringify(talk));
    sessionStorage.setItem("specdec-talk", talk.id);
  } catch { note("This talk is not kept: the browser's storage is full or closed. Delete old talks."); }
}
function save() { saveTimer ??= setTimeout(saveNow, 500); }
function note(text) { $("note").textContent = text; }

function listTalks() {
  const talks = readTalks();
  if (talk && !talks.some(t => t.id === talk.id)) talks.unshift(talk);
  $("list").replaceChildren(...talks.map(t => {
    const open = make("button", {type: "button", className: "name", title: t.title}, t.title || "New talk");
    if (t.id === talk?.id) open.setAttribute("aria-current", "true");
    open.onclick = () => { openTalk(t.id === talk?.id ? talk : t); $("text").focus(); };
    const remove = make("button", {type: "button", className: "small", "aria-label": "Delete: " + (t.title || "New talk")}, "\u00d7");
    remove.onclick = () => {
      if (remove.textContent !== "delete?") { remove.textContent = "delete?"; return; } // the second press does it
      localStorage.removeItem(STORE + t.id);
      if (t.id === talk?.id) { stopAnswer(); talk = null; openTalk(newTalk()); }
      listTalks();
      $("new").focus();
    };
    remove.onblur = () => { remove.textContent = "\u00d7"; };
    return make("li", {}, open, remove);
  }));
}
function openTalk(t) {
  if (t !== talk) { stopAnswer(); saveNow(); }
  talk = t;
  if (t.messages.length) sessionStorage.setItem("specdec-talk", t.id);
  note("");
  showSettings();
  drawTalk();
  listTalks();
}
// The talk of before a reload, else a new one.
function firstTalk() {
  const id = sessionStorage.getItem("specdec-talk");
  openTalk((id && readTalk(STORE + id)) || newTalk());
}
addEventListener("pagehide", saveNow);
addEventListener("storage", e => { if (e.key === null || e.key.startsWith(STORE)) listTalks(); });
$("new").onclick = () => { openTalk(newTalk()); $("text").focus(); };
