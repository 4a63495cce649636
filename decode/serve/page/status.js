// ---- status: the same /metrics that Prometheus reads, once a second
const KEPT_S = 600, WINDOW_S = 60, RATE_S = 5; // what plots show; what percentiles and shares are of; what speeds are of

// name -> [{labels, value}], names without the prefix.
function parseMetrics(text) {
  const rows = {};
  for (const line of text.split("\n")) {
    const m = /^specdec_(\w+)(?:\{(.*)\})? (\S+)$/.exec(line);
    if (!m) continue;
    const labels = {};
    for (const l of (m[2] ?? "").matchAll(/(\w+)="((?:[^"\\]|\\.)*)"/g)) labels[l[1]] = l[2].replace(/\\(.)/g, (_, c) => c === "n" ? "\n" : c);
    (rows[m[1]] ??= []).push({labels, value: Number(m[3])});
  }
  return rows;
}
const total = (rows, name) => rows[name]?.reduce((sum, r) => sum + r.value, 0) ?? null;
// Of all adapters together.
function buckets(rows, name) {
  const sum = new Map();
  for (const r of rows[name + "_bucket"] ?? []) sum.set(r.labels.le, (sum.get(r.labels.le) ?? 0) + r.value);
  return [...sum].map(([le, n]) => ({le: le === "+Inf" ? Infinity : Number(le), n}));
}

// The q-quantile of a histogram as Prometheus reads one, in ms: even within a bucket; null without values.
function quantile(list, q) {
  const n = list.at(-1)?.n ?? 0;
  if (!n) return null;
  const k = list.findIndex(b => b.n >= q * n), low = k ? list[k - 1] : {le: 0, n: 0};
  if (list[k].le === Infinity) return 1000 * low.le;
  return 1000 * (low.le + (list[k].le - low.le) * (q * n - low.n) / Math.max(list[k].n - low.n, 1e-9));
}
const minus = (now, then) => now.map((b, i) => ({le: b.le, n: b.n - (then[i]?.n ?? 0)}));
const share = (a, b) => a === null || b === null || b <= 0 ? null : a / b;

const taken = []; // one sample a second
const COUNTERS = ["generation_tokens_total", "prompt_tokens_total", "prefix_cache_queries_total", "prefix_cache_hits_total", "spec_decode_num_drafts_total",
  "spec_decode_num_draft_tokens_total", "spec_decode_num_accepted_tokens_total", "busy_seconds_total", "slot_seconds_total"];
const ago = (s, t) => taken.findLast(h => h.t <= t - s) ?? taken[0];

// What the server has counted, and what it says of the last seconds.
function takeSample(rows, t) {
  const h = {t, rows, ttft: buckets(rows, "time_to_first_token_seconds"), itl: buckets(rows, "inter_token_latency_seconds")};
  for (const name of COUNTERS) h[name] = total(rows, name);
  const last = taken.at(-1);
  if (last && COUNTERS.some(c => h[c] < last[c])) taken.length = 0; // another server
  const from = (s, name) => {
    const then = taken.length ? ago(s, t) : h;
    return h[name] === null || then[name] === null ? null : h[name] - then[name];
  };
  const seconds = s => taken.length ? t - ago(s, t).t : 0, slots = total(rows, "num_slots");
  const lately = name => taken.length ? minus(h[name], ago(WINDOW_S, t)[name]) : [];
  const [ttft, itl] = [lately("ttft"), lately("itl")];
  h.speed = share(from(RATE_S, "generation_tokens_total"), seconds(RATE_S));
  h.reading = share(from(RATE_S, "prompt_tokens_total"), seconds(RATE_S));
  [h.ttft50, h.ttft95, h.ttft99] = [.5, .95, .99].map(q => quantile(ttft, q));
  [h.itl50, h.itl95, h.itl99] = [.5, .95, .99].map(q => quantile(itl, q));
  h.running = total(rows, "num_requests_running");
  h.waiting = total(rows, "num_requests_waiting");
  h.slots = slots;
  h.kv = 100 * total(rows, "kv_cache_usage_perc");
  const percent = (a, b) => { const v = share(a, b); return v === null ? null : 100 * v; };
  h.cached = percent(from(WINDOW_S, "prefix_cache_hits_total"), from(WINDOW_S, "prefix_cache_queries_total"));
  h.busy = percent(from(WINDOW_S, "busy_seconds_total"), seconds(WINDOW_S));
  h.capacity = slots ? percent(from(WINDOW_S, "slot_seconds_total"), seconds(WINDOW_S) * slots) : null;
  const rounds = share(from(WINDOW_S, "spec_decode_num_accepted_tokens_total"), from(WINDOW_S, "spec_decode_num_drafts_total"));
  h.round = rounds === null ? null : 1 + rounds;
  h.accepted = percent(from(WINDOW_S, "spec_decode_num_accepted_tokens_total"), from(WINDOW_S, "spec_decode_num_draft_tokens_total"));
  taken.push(h);
  while (taken[0].t < t - KEPT_S) taken.shift();
  return h;
}

// Of the last minute; where nothing came in it, since the server's start.
const three = (h, name) => {
  const whole = h[name + "50"] === null, of = q => whole ? quantile(h[name], q) : h[name + Math.round(100 * q)];
  return [[.5, .95, .99].map(q => short(of(q))).join(" / "), "ms, p50 / p95 / p99, " + (whole ? "since the start" : "last minute")];
};
const CARDS = [
  ["generated", h => [short(h.speed) + " tok/s", short(total(h.rows, "generation_tokens_total")) + " tokens since the start"]],
  ["prompts read", h => [short(h.reading) + " tok/s", short(total(h.rows, "prompt_tokens_total")) + " tokens since the start"]],
  ["first token", h => three(h, "ttft")],
  ["between tokens", h => three(h, "itl")],
  ["requests", h => [h.running + " running", h.waiting + " waiting" + (h.slots === null ? "" : ", " + h.slots + " slots")]],
  ["KV in use", h => [short(h.kv) + " %", "by running requests"]],
  ["prefix cache", h => {
    const all = share(h.prefix_cache_hits_total, h.prefix_cache_queries_total);
    if (h.prefix_cache_queries_total === null) return ["off", ""];
    return h.cached === null ? [all === null ? "-" : short(100 * all) + " %", "of prompt tokens found, since the start"] : [short(h.cached) + " %", "of prompt tokens found, last minute"];
  }],
  ["speculation", h => {
    const since = h.round === null, rounds = share(h.spec_decode_num_accepted_tokens_total, h.spec_decode_num_drafts_total);
    return [(since ? rounds === null ? "-" : (1 + rounds).toFixed(2) : h.round.toFixed(2)) + " a round", since ? "tokens, since the start" : "tokens; " + short(h.accepted) + " % of drafts accepted, last minute"];
  }],
  ["utilisation", h => [short(h.busy) + " % busy", short(h.capacity) + " % of capacity (slots' time), last minute"]],
  ["ended", h => {
    const by = {};
    for (const r of h.rows.request_success_total ?? []) by[r.labels.finished_reason] = (by[r.labels.finished_reason] ?? 0) + r.value;
    return [short(total(h.rows, "request_success_total")), Object.entries(by).filter(([, n]) => n).map(([k, n]) => short(n) + " " + k).join(", ")];
  }],
  ["turned away", h => [short(total(h.rows, "admission_rejections_total")), (h.rows.admission_rejections_total ?? []).filter(r => r.value).map(r => short(r.value) + " " + r.labels.reason).join(", ")]],
];
const PLOTS = [
  {title: "Throughput", unit: "tokens/s", lines: [{name: "generated", color: "a", of: h => h.speed}, {name: "prompts", color: "b", of: h => h.reading}]},
  {title: "Utilisation", unit: "%", top: 100, lines: [{name: "busy", color: "a", of: h => h.busy}, {name: "of capacity", color: "b", of: h => h.capacity}]},
  {title: "First token", unit: "ms", lines: [{name: "p50", color: "a", of: h => h.ttft50}, {name: "p95", color: "b", of: h => h.ttft95}, {name: "p99", color: "c", of: h => h.ttft99}]},
  {title: "Between tokens", unit: "ms", lines: [{name: "p50", color: "a", of: h => h.itl50}, {name: "p95", color: "b", of: h => h.itl95}, {name: "p99", color: "c", of: h => h.itl99}]},
  {title: "Requests", unit: "", least: 4, lines: [{name: "running", color: "a", of: h => h.running}, {name: "waiting", color: "c", of: h => h.waiting}]},
  {title: "KV in use, prompts found in the cache", unit: "%", top: 100, lines: [{name: "KV", color: "a", of: h => h.kv}, {name: "found", color: "b", of: h => h.cached}]},
  {title: "Speculation", unit: "tokens a round", lines: [{name: "all", color: "a", of: h => h.round}]},
].map(makePlot);
$("plots").append(...PLOTS.map(p => p.box));
const cardText = CARDS.map(([title]) => {
  const value = make("dd"), more = make("dd", {className: "faint"});
  $("cards").append(make("div", {}, make("dt", {}, title), value, more));
  return [value, more];
});

function table(title, head, rows, none) {
  const cell = (c, i) => make("td", {className: i ? "n" : ""}, c);
  return make("section", {}, make("h2", {}, title), rows.length ? make("div", {className: "scroll"},
    make("table", {}, make("tr", {}, ...head.map(h => make("th", {}, h))), ...rows.map(r => make("tr", {}, ...r.map(cell))))) : make("p", {className: "faint"}, none));
}
function acceptanceTable(rows) {
  const of = (name, labels) => (rows[name] ?? []).find(r => Object.entries(labels).every(([k, v]) => r.labels[k] === v))?.value ?? 0;
  const lines = (rows.adapter_accept_length ?? []).map(r => [r.labels.adapter, "all", "", "", short(r.value)]);
  for (const r of rows.adapter_draft_tokens_total ?? []) {
    const {adapter, source} = r.labels, accepted = of("adapter_accepted_tokens_total", {adapter, source});
    lines.push([adapter, source, short(r.value), short(100 * accepted / r.value) + " %", ""]);
  }
  lines.sort((a, b) => a[0].localeCompare(b[0]) || (b[1] === "all") - (a[1] === "all"));
  return table("Acceptance by adapter and source", ["model", "source", "drafted", "accepted", "tokens a round"], lines, "No request has been drafted for yet.");
}
function memoryTable(rows) {
  const parts = (rows.memory_bytes ?? []).filter(r => r.value).sort((a, b) => b.value - a.value);
  const mib = v => short(v / 1048576) + " MiB";
  return table("Memory", ["part", "now"], [...parts.map(r => [r.labels.part.replaceAll("_", " "), mib(r.value)]), ["all", mib(total(rows, "memory_bytes") ?? 0)]], "");
}
function showStatus(h) {
  $("pulse").textContent = short(h.speed ?? 0) + " tok/s \u00b7 " + h.running + " running" + (h.waiting ? " \u00b7 " + h.waiting + " waiting" : "");
  if ($("status").hidden) return;
  CARDS.forEach(([, of], i) => of(h).forEach((text, k) => { cardText[i][k].textContent = text; }));
  for (const p of PLOTS) p.show(taken, h.t);
  $("tables").replaceChildren(acceptanceTable(h.rows), memoryTable(h.rows));
}

const headers = () => $("key").value ? {Authorization: "Bearer " + $("key").value} : {};
function state(kind, text) {
  if ($("state").textContent !== text) $("state").textContent = text;
  $("state").className = kind;
}
// A wrong key is not asked with again until it is changed.
let polling = false;
async function poll() {
  if (polling) return;
  polling = true;
  let answer, health;
  try {
    answer = await fetch("/metrics", {headers: headers()});
    health = answer.ok && await fetch("/health");
  } catch { answer = null; }
  if (answer?.ok) {
    showStatus(takeSample(parseMetrics(await answer.text()), performance.now() / 1000));
    state(health.ok ? "ok" : "bad", health.ok ? "serving" : "loading or draining");
    await listModels();
  } else if (answer?.status === 401) {
    state("bad", $("key").value ? "the API key is not the server's" : "an API key is asked for");
    $("ask-key").hidden = false;
  } else state("bad", answer ? "status " + answer.status : "not reachable");
  polling = false;
  if (answer?.status !== 401) setTimeout(poll, 1000);
}
