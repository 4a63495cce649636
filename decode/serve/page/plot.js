// ---- plots: lines over time, with axes
const SVG = $("svg").namespaceURI;
function draw(name, props, text) {
  const e = document.createElementNS(SVG, name);
  for (const [k, v] of Object.entries(props)) e.setAttribute(k, v);
  if (text !== undefined) e.textContent = text;
  return e;
}
// 1, 2, 2.5 or 5 times a power of ten, so that some `count` of them reach `top`.
function niceStep(top, count) {
  const raw = top / count, power = 10 ** Math.floor(Math.log10(raw));
  return power * ([1, 2, 2.5, 5].find(m => m * power >= raw * 0.999) ?? 10);
}
// A number with three digits that matter, and no exponent.
function short(v) {
  if (v === null || v === undefined || !isFinite(v)) return "-";
  const a = Math.abs(v);
  return v.toLocaleString("en-US", {maximumFractionDigits: a === 0 || a >= 100 ? 0 : a >= 10 ? 1 : a >= 1 ? 2 : 3});
}
const agoText = s => s === 0 ? "now" : s % 60 === 0 ? "-" + s / 60 + " min" : "-" + s + " s";

// A plot: {title, unit, lines: [{name, color, of: sample => number or null}], top: the axis' end where it is fixed, least: the
// least that it reaches}.
// show(samples, now) draws the samples of the last `span` seconds, each {t, ...}.
function makePlot(p) {
  const svg = draw("svg", {role: "img"}), legend = make("div", {className: "legend"});
  const box = make("section", {className: "plot"}, make("h2", {}, p.title + (p.unit ? ", " + p.unit : "")), svg, legend);
  const texts = p.lines.map(line => {
    const value = make("span"), dash = make("i");
    dash.style.background = `var(--${line.color})`;
    legend.append(make("span", {}, dash, line.name + " ", value));
    return value;
  });
  const show = (samples, now) => {
    const w = svg.clientWidth, h = svg.clientHeight;
    if (!w) return;
    const left = 46, right = 8, above = 8, below = 20, wide = w - left - right, high = h - above - below;
    const age = samples.length ? now - samples[0].t : 0, span = [60, 120, 300, 600].find(s => s >= age) ?? 600;
    const values = p.lines.map(line => samples.map(line.of));
    const most = Math.max(p.least ?? 0, ...values.flat().filter(v => v !== null));
    const want = p.top ?? (most || 1), step = niceStep(want, 4), top = Math.ceil(want / step - 1e-9) * step;
    const x = t => left + wide * (1 - (now - t) / span), y = v => above + high * (1 - Math.min(v, top) / top);
    const parts = [];
    for (let k = 0; k * step <= top * 1.0001; k++) {
      parts.push(draw("line", {x1: left, x2: w - right, y1: y(k * step), y2: y(k * step)}));
      parts.push(draw("text", {x: left - 6, y: y(k * step) + 4, "text-anchor": "end"}, short(k * step)));
    }
    for (let k = 0; k <= 4; k++) {
      const ago = span * k / 4, at = x(now - ago);
      parts.push(draw("line", {x1: at, x2: at, y1: above + high, y2: above + high + 4}));
      parts.push(draw("text", {x: at, y: h - 4, "text-anchor": k === 0 ? "end" : k === 4 ? "start" : "middle"}, agoText(ago)));
    }
    values.forEach((list, k) => {
      const color = `stroke: var(--${p.lines[k].color})`;
      let run = [];
      const end = () => {
        if (run.length === 1) run.push(run[0]);
        if (run.length) parts.push(draw("polyline", {points: run.join(" "), style: color, "stroke-linecap": "round"}));
        run = [];
      };
      list.forEach((v, i) => {
        if (v === null || now - samples[i].t > span) end();
        else run.push(x(samples[i].t).toFixed(1) + "," + y(v).toFixed(1));
      });
      end();
      texts[k].textContent = short(list.at(-1));
    });
    svg.replaceChildren(...parts);
    svg.setAttribute("viewBox", `0 0 ${w} ${h}`);
    svg.setAttribute("aria-label", p.title + ": " + p.lines.map((line, k) => line.name + " " + texts[k].textContent).join(", ") + (p.unit ? " " + p.unit : ""));
  };
  return {box, show};
}
