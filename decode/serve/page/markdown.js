// ---- Markdown
//
// A model's words are hostile text: they reach the page as text nodes alone, a link leads to a web or mail address or
// is none, nothing is loaded. Each line is looked at a bounded number of times, and nesting is bounded.
const MAX_NESTING = 8;

const FENCE = /^ {0,3}(`{3,}|~{3,})([^`]*)$/, HEADING = /^ {0,3}(#{1,6})(?: (.*))?$/, RULE = /^ {0,3}([-*_])(?: *\1){2,} *$/,
  QUOTE = /^ {0,3}> ?/, ITEM = /^( {0,3})([-*+]|\d{1,9}[.)])( +|$)/;
const isBlank = line => line.trim() === "";
const beginsBlock = line => FENCE.test(line) || HEADING.test(line) || RULE.test(line) || QUOTE.test(line) || ITEM.test(line);
const isTableRule = line => line !== undefined && /^[ |:-]+$/.test(line) && line.includes("-") && line.includes("|");
const beginsTable = (lines, i) => lines[i].includes("|") && isTableRule(lines[i + 1]);
const indent = line => line.length - line.trimStart().length;

// A list of {kind, from, to, ...}: the blocks, and the lines that each is made of.
function blocksOf(lines) {
  const found = [];
  for (let i = 0; i < lines.length;) {
    const from = i, line = lines[i];
    let m, block;
    if (isBlank(line)) { i++; continue; }
    if ((m = FENCE.exec(line))) {
      const closes = new RegExp("^ {0,3}" + m[1][0] + "{" + m[1].length + ",} *$");
      for (i++; i < lines.length && !closes.test(lines[i]); i++);
      block = {kind: "code", language: m[2].trim().split(/[ {,]/)[0], body: lines.slice(from + 1, i).join("\n")};
      i = Math.min(i + 1, lines.length);
    } else if ((m = HEADING.exec(line))) {
      block = {kind: "heading", level: m[1].length, body: (m[2] ?? "").trim()};
      i++;
    } else if (RULE.test(line)) {
      block = {kind: "rule"};
      i++;
    } else if (QUOTE.test(line)) {
      for (; i < lines.length && QUOTE.test(lines[i]); i++);
      block = {kind: "quote", inner: lines.slice(from, i).map(l => l.replace(QUOTE, ""))};
    } else if ((m = ITEM.exec(line))) {
      block = {kind: "list", ordered: /\d/.test(m[2]), start: parseInt(m[2], 10), items: []};
      i = listEnd(lines, i, block);
    } else if (beginsTable(lines, i)) {
      for (i += 2; i < lines.length && lines[i].includes("|"); i++);
      block = {kind: "table", rows: [line, ...lines.slice(from + 2, i)].map(cells)};
    } else {
      for (i++; i < lines.length && !isBlank(lines[i]) && !beginsBlock(lines[i]) && !beginsTable(lines, i); i++);
      block = {kind: "text", body: lines.slice(from, i).join("\n")};
    }
    found.push({...block, from, to: i});
  }
  return found;
}
// Collects the items of a list that begins at line i; where it ends.
function listEnd(lines, i, list) {
  for (let m; i < lines.length && (m = ITEM.exec(lines[i])) && /\d/.test(m[2]) === list.ordered && !RULE.test(lines[i]);) {
    const width = m[0].length > m[1].length + m[2].length ? Math.min(m[0].length, m[1].length + m[2].length + 4) : m[0].length + 1;
    const item = [lines[i].slice(Math.min(width, lines[i].length))];
    for (i++; i < lines.length; i++) {
      const deep = indent(lines[i]) >= Math.min(width, m[1].length + 2);
      if (isBlank(lines[i]) ? i + 1 < lines.length && !isBlank(lines[i + 1]) && indent(lines[i + 1]) >= 2 : deep || (!beginsBlock(lines[i]) && !isBlank(lines[i - 1])))
        item.push(lines[i].slice(Math.min(width, indent(lines[i]))));
      else break;
    }
    list.items.push(item);
    if (i + 1 < lines.length && isBlank(lines[i]) && ITEM.test(lines[i + 1])) i++;
  }
  return i;
}
const cells = row => row.trim().replace(/^\|/, "").replace(/\|$/, "").split("|").map(c => c.trim());

function blockNode(block, depth) {
  switch (block.kind) {
  case "code": return codeNode(block.language, block.body);
  case "heading": return make("h" + block.level, {}, inline(block.body, depth));
  case "rule": return make("hr");
  case "quote": return make("blockquote", {}, ...markdownNodes(block.inner, depth + 1));
  case "list": {
    const list = make(block.ordered ? "ol" : "ul");
    if (block.ordered && block.start !== 1) list.start = block.start;
    for (const item of block.items) {
      // What is one paragraph stands without the distance of one.
      const parts = depth < MAX_NESTING ? blocksOf(item) : [{kind: "text", body: item.join("\n")}];
      list.append(make("li", {}, ...parts.map((b, k) => k === 0 && b.kind === "text" ? inline(b.body, depth) : blockNode(b, depth + 1))));
    }
    return list;
  }
  case "table": {
    const row = (r, cell) => make("tr", {}, ...r.map(c => make(cell, {}, inline(c, depth))));
    return make("div", {className: "scroll"}, make("table", {}, row(block.rows[0], "th"), ...block.rows.slice(1).map(r => row(r, "td"))));
  }
  default: return make("p", {}, inline(block.body, depth));
  }
}
function markdownNodes(lines, depth) {
  if (depth >= MAX_NESTING) return [make("p", {}, lines.join("\n"))];
  return blocksOf(lines).map(b => blockNode(b, depth));
}

// Shows text in a box. While an answer grows only its last block changes: the others stay, with what is selected in them.
function showMarkdown(box, text) {
  const lines = text.split("\n");
  const now = blocksOf(lines).map(b => ({block: b, raw: b.kind + "\n" + lines.slice(b.from, b.to).join("\n")}));
  const before = box.shown ?? [];
  let same = 0;
  while (same < now.length && same < before.length && now[same].raw === before[same]) same++;
  while (box.childNodes.length > same) box.lastChild.remove();
  for (const b of now.slice(same)) box.append(blockNode(b.block, 0));
  box.shown = now.map(b => b.raw);
}

const LINK = /!?\[([^\[\]\n]{0,400})\]\(([^()\s]{1,2000})(?: "[^"\n]{0,200}")?\)/y, ADDRESS = /https?:\/\/[^\s<>"'`()\[\]]{1,2000}/y;
function linkNode(text, address) {
  let url;
  try { url = new URL(address); } catch { return null; }
  if (!["http:", "https:", "mailto:"].includes(url.protocol)) return null;
  const a = make("a", {target: "_blank", rel: "noopener noreferrer"}, text);
  a.href = url.href;
  return a;
}
// Where the mark that opens at i closes; -1: nowhere. What closes stands behind no space, "_" not within a word.
function closing(text, mark, i) {
  for (let k = text.indexOf(mark, i); k >= 0; k = text.indexOf(mark, k + 1)) {
    if (k === i || /\s/.test(text[k - 1])) continue;
    if (mark.length === 1 && (text[k + 1] === mark || text[k - 1] === mark)) continue;
    if (mark[0] === "_" && /\w/.test(text[k + mark.length] ?? " ")) continue;
    return k;
  }
  return -1;
}
function inline(text, depth) {
  const out = document.createDocumentFragment();
  const open = new Set(); // marks that close nowhere from here on
  let plain = "";
  const put = node => { out.append(plain, node); plain = ""; };
  for (let i = 0; i < text.length;) {
    const c = text[i], rest = (mark, at) => open.has(mark) ? -1 : closing(text, mark, at);
    let m, end, node;
    if (c === "\\" && /[!-\/:-@\[-`{-~]/.test(text[i + 1] ?? "")) {
      plain += text[i + 1];
      i += 2;
    } else if (c === "\n") {
      put(make("br"));
      i++;
    } else if (c === "`") {
      let n = 1;
      while (text[i + n] === "`") n++;
      const mark = "`".repeat(n);
      end = open.has(mark) ? -1 : text.indexOf(mark, i + n);
      while (end >= 0 && text[end + n] === "`") { while (text[end] === "`") end++; end = text.indexOf(mark, end); }
      if (end < 0) { open.add(mark); plain += mark; i += n; continue; }
      put(make("code", {}, text.slice(i + n, end).replace(/^ (.*) $/s, "$1")));
      i = end + n;
    } else if ((c === "*" || c === "_" || c === "~") && depth < MAX_NESTING) {
      const two = c + c, mark = text.startsWith(two, i) ? two : c;
      const opens = !/\s/.test(text[i + mark.length] ?? " ") && mark !== "~" && !(c === "_" && /\w/.test(text[i - 1] ?? " "));
      end = opens ? rest(mark, i + mark.length) : -1;
      if (opens && end < 0) open.add(mark);
      if (end < 0) { plain += mark; i += mark.length; continue; }
      node = make(mark === "~~" ? "del" : mark.length === 2 ? "strong" : "em");
      node.append(inline(text.slice(i + mark.length, end), depth + 1));
      put(node);
      i = end + mark.length;
    } else if ((c === "[" || (c === "!" && text[i + 1] === "[")) && (LINK.lastIndex = i, m = LINK.exec(text)) && (node = linkNode(m[1], m[2]))) {
      put(node);
      i += m[0].length;
    } else if (c === "h" && !/\w/.test(text[i - 1] ?? " ") && (ADDRESS.lastIndex = i, m = ADDRESS.exec(text))) {
      let n = m[0].length;
      while (".,;:!?*_~".includes(m[0][n - 1])) n--; // of the sentence
      const address = m[0].slice(0, n);
      if ((node = linkNode(address, address))) put(node);
      else plain += address;
      i += address.length;
    } else {
      plain += c;
      i++;
    }
  }
  out.append(plain);
  return out;
}

// ---- code
const WORDS = new Set(("abstract and as assert async await bool boolean break case catch char class const constexpr continue def default del delete do double elif else end enum "
  + "except export extends extern false final finally float fn for foreach from func function go goto if impl implements import in inline int interface is lambda let long "
  + "loop match mod mut namespace new nil none not null of operator or override package pass private protected pub public raise return select self short signed sizeof static "
  + "str string struct super switch template this throw trait true try type typedef typename undefined union unsafe unsigned use using var virtual void volatile where while "
  + "with yield begin then fi done esac echo local create table insert update into values set join left right inner outer on group by order having limit").split(" "));
const REMARK = {"#": "python py sh bash shell zsh yaml yml toml ruby rb r perl make makefile cmake dockerfile conf ini", "--": "sql lua haskell hs ada",
  "//": "c h cpp c++ cc cuda java js javascript jsx ts typescript tsx go rust rs swift kotlin kt scala php cs csharp css scss json jsonc zig dart proto glsl"};
function lexer(language) {
  for (const [mark, names] of Object.entries(REMARK)) {
    if (!names.split(" ").includes(language.toLowerCase())) continue;
    const remark = mark === "//" ? "\\/\\/.*|\\/\\*[^]*?(?:\\*\\/|$)" : mark + ".*";
    return new RegExp("(" + remark + ")|(\"(?:[^\"\\\\\\n]|\\\\.)*\"?|'(?:[^'\\\\\\n]|\\\\.)*'?)|(\\b\\d[\\w.]*)|([A-Za-z_$][\\w$]*)|[^]", "g");
  }
  return null;
}
function codeNode(language, body) {
  const code = make("code"), lex = lexer(language);
  let plain = "";
  const put = (kind, text) => { code.append(plain, make("span", {className: kind}, text)); plain = ""; };
  if (!lex || body.length > 50000) plain = body;
  else
    for (const m of body.matchAll(lex)) {
      if (m[1]) put("remark", m[1]);
      else if (m[2]) put("string", m[2]);
      else if (m[3]) put("number", m[3]);
      else if (m[4] && WORDS.has(m[4].toLowerCase())) put("word", m[4]);
      else plain += m[0];
    }
  code.append(plain);
  return make("figure", {className: "code"}, make("figcaption", {}, make("span", {}, language || "text"), copyButton(() => body)), make("pre", {tabIndex: 0}, code));
}
function copyButton(text) {
  const b = make("button", {type: "button", className: "small"}, "Copy");
  b.onclick = async () => {
    let done = false;
    try { await navigator.clipboard.writeText(text()); done = true; }
    catch { // without TLS a browser has no clipboard for pages but this
      const area = make("textarea", {value: text()});
      document.body.append(area);
      area.select();
      done = document.execCommand("copy");
      area.remove();
      b.focus();
    }
    b.textContent = done ? "Copied" : "Not allowed";
    setTimeout(() => { b.textContent = "Copy"; }, 1500);
  };
  return b;
}
