// A small part of Markdown as elements: headings, paragraphs, lists, tables, quotes, code, emphasis. Links and images
// are shown as text with their address, HTML as it is written. Hostile text costs time in proportion to its length.
import { h } from "./dom.js";

const DEEPEST = 6; // quotes and lists within each other, and emphasis within emphasis
const REACH = 400; // characters in which emphasis must end
const OVERRIDE = /[\u202d\u202e]/;

/** Text as nodes. Characters that turn the direction of what follows are made visible and kept to themselves. */
export function textNodes(text) {
  if (!OVERRIDE.test(text)) return [document.createTextNode(text)];
  return text
    .split(/([\u202d\u202e])/)
    .filter(Boolean)
    .map((part) =>
      OVERRIDE.test(part)
        ? h("bdi", { class: "control", dataset: { code: `U+${part.charCodeAt(0).toString(16).toUpperCase()}` } }, part)
        : document.createTextNode(part),
    );
}

/** The blocks of a Markdown text. */
export function markdown(text) {
  return blocks(text.replace(/\r\n?/g, "\n").split("\n"), 0);
}

const FENCE = /^ {0,3}(`{3,}|~{3,})\s*([^`\s]*)/;
const HEADING = /^ {0,3}(#{1,6})(?:\s+(.*?))?\s*#*\s*$/;
const RULE = /^ {0,3}([-*_])(?:\s*\1){2,}\s*$/;
const QUOTE = /^ {0,3}> ?/;
const ENTRY = /^( {0,3})([-*+]|\d{1,9}[.)])(?:( {1,4})|$)/;
const DIVIDER = /^ {0,3}\|?\s*:?-+:?\s*(\|\s*:?-+:?\s*)*\|?\s*$/;
const MARKS = "`*_~";
const SPECIAL = /[\\`*_~![]/g;
const blank = (line) => line.trim() === "";
const isRule = (line) => line.length < 1000 && RULE.test(line);

function blocks(lines, depth) {
  const made = [];
  let i = 0;
  while (i < lines.length) {
    const line = lines[i];
    const short = line.length < 1000; // no mark needs more; keeps every pattern quick
    let found;
    if (blank(line)) {
      i += 1;
    } else if ((found = line.match(FENCE))) {
      const from = i + 1;
      const closes = new RegExp(`^ {0,3}${found[1][0]}{${Math.min(found[1].length, 999)},}\\s*$`);
      for (i = from; i < lines.length && !closes.test(lines[i]); ) i += 1;
      made.push(h("pre", { dir: "ltr" }, h("code", {}, textNodes(lines.slice(from, i).join("\n")))));
      i += 1;
    } else if (short && (found = line.match(HEADING))) {
      // The page has headings of its own above: those of a text come below them.
      made.push(h(`h${Math.min(found[1].length + 3, 6)}`, { dir: "auto" }, inline(found[2] ?? "", depth)));
      i += 1;
    } else if (isRule(line)) {
      made.push(h("hr"));
      i += 1;
    } else if (QUOTE.test(line) && depth < DEEPEST) {
      const from = i;
      while (i < lines.length && QUOTE.test(lines[i])) i += 1;
      made.push(h("blockquote", {}, blocks(lines.slice(from, i).map((one) => one.replace(QUOTE, "")), depth + 1)));
    } else if ((found = line.match(ENTRY)) && depth < DEEPEST) {
      const [list, after] = entries(lines, i, depth);
      made.push(list);
      i = after;
    } else if (short && isTable(line, lines[i + 1])) {
      const from = i;
      for (i += 2; i < lines.length && lines[i].includes("|") && !blank(lines[i]); ) i += 1;
      made.push(table(lines.slice(from, i), depth));
    } else {
      const from = i;
      for (i += 1; i < lines.length && !blank(lines[i]) && !starts(lines[i]); ) i += 1;
      made.push(h("p", { dir: "auto" }, inline(lines.slice(from, i).join("\n"), depth)));
    }
  }
  return made;
}

function starts(line) {
  return FENCE.test(line) || QUOTE.test(line) || ENTRY.test(line) || (line.length < 1000 && HEADING.test(line)) || isRule(line);
}

function entries(lines, from, depth) {
  const first = lines[from].match(ENTRY);
  const ordered = /\d/.test(first[2]);
  const list = h(ordered ? "ol" : "ul", ordered ? { start: Number.parseInt(first[2], 10) } : {});
  let i = from;
  while (i < lines.length) {
    const found = lines[i].match(ENTRY);
    if (!found || /\d/.test(found[2]) !== ordered || (i > from && isRule(lines[i]))) break;
    const indent = found[0].length || 1;
    const own = [lines[i].slice(indent)];
    i += 1;
    while (i < lines.length) {
      const inside = lines[i].startsWith(" ".repeat(Math.min(indent, 2)));
      const after = blank(lines[i]) ? lines.slice(i, i + 3).find((line) => !blank(line)) : undefined;
      if (blank(lines[i]) ? !(after?.startsWith("  ") || (after && ENTRY.test(after))) : !inside && starts(lines[i])) break;
      if (!blank(lines[i]) && !inside && blank(lines[i - 1])) break;
      const lead = lines[i].match(/^ */)[0].length;
      own.push(lines[i].slice(Math.min(lead, indent)));
      i += 1;
    }
    while (own.length > 1 && blank(own.at(-1))) own.pop();
    const loose = own.some(blank) && own.length > 1;
    const made = blocks(own, depth + 1);
    const tight = !loose && made[0]?.tagName === "P" ? [...made[0].childNodes, ...made.slice(1)] : made;
    list.append(h("li", { dir: "auto" }, tight));
  }
  return [list, i];
}

function isTable(head, divider = "") {
  if (!head.includes("|") || divider.length >= 1000 || !DIVIDER.test(divider)) return false;
  return cells(head).length === cells(divider).length;
}

function cells(line) {
  return line.trim().replace(/^\|/, "").replace(/\|$/, "").split("|").slice(0, 20).map((cell) => cell.trim());
}

function table(lines, depth) {
  const [head, , ...body] = lines;
  const columns = cells(head).length;
  const row = (line, tag) => h("tr", {}, Array.from({ length: columns }, (_, n) => h(tag, { dir: "auto" }, inline(cells(line)[n] ?? "", depth))));
  return h("table", {}, h("thead", {}, row(head, "th")), h("tbody", {}, body.map((line) => row(line, "td"))));
}

function inline(text, depth) {
  const made = [];
  let plain = "";
  const flush = () => {
    if (plain) made.push(...textNodes(plain));
    plain = "";
  };
  let i = 0;
  while (i < text.length) {
    const rest = text.slice(i, i + REACH);
    const letter = text[i];
    let found = null;
    if (letter === "\\" && /^\\[!-/:-@[-`{-~]/.test(rest)) {
      plain += text[i + 1];
      i += 2;
      continue;
    }
    if (letter === "`") found = code(rest);
    else if ((letter === "*" || letter === "_" || letter === "~") && depth < DEEPEST) found = emphasis(rest, text[i - 1] ?? " ", depth);
    else if (letter === "[" || (letter === "!" && text[i + 1] === "[")) found = link(rest);
    if (found) {
      flush();
      made.push(found[0]);
      i += found[1];
      continue;
    }
    // What begins nothing is passed over in one go.
    SPECIAL.lastIndex = i + (MARKS.includes(letter) ? rest.match(/^(.)\1*/s)[0].length : 1);
    const next = SPECIAL.exec(text)?.index ?? text.length;
    plain += text.slice(i, next);
    i = next;
  }
  flush();
  return made;
}

function code(rest) {
  const fence = rest.match(/^`+/)[0];
  let end = fence.length;
  while ((end = rest.indexOf(fence, end)) >= 0) {
    if (rest[end + fence.length] !== "`" && rest[end - 1] !== "`") break;
    while (rest[end] === "`") end += 1;
  }
  if (end < 0) return null;
  const inner = rest.slice(fence.length, end);
  const trimmed = inner.trim() && /^\s.*\s$/s.test(inner) ? inner.slice(1, -1) : inner;
  return [h("code", {}, textNodes(trimmed)), end + fence.length];
}

function emphasis(rest, before, depth) {
  const letter = rest[0];
  const run = rest.match(/^(.)\1*/)[0].length;
  if (run > 3 || (letter === "~" && run !== 2)) return null;
  if (/\s/.test(rest[run] ?? " ") || (letter === "_" && /[\p{L}\p{N}]/u.test(before))) return null;
  const mark = letter.repeat(run);
  let end = run;
  while ((end = rest.indexOf(mark, end)) >= 0) {
    const after = rest[end + run] ?? " ";
    const closes = !/\s/.test(rest[end - 1]) && rest[end - 1] !== "\\" && after !== letter && rest[end - 1] !== letter;
    if (closes && !(letter === "_" && /[\p{L}\p{N}]/u.test(after))) break;
    while (rest[end] === letter) end += 1;
  }
  if (end < 0) return null;
  const inner = inline(rest.slice(run, end), depth + 1);
  if (letter === "~") return [h("s", {}, inner), end + run];
  const made = run === 1 ? h("em", {}, inner) : h("strong", {}, run === 3 ? h("em", {}, inner) : inner);
  return [made, end + run];
}

// A link is no link here: its words, and its address for all to see.
function link(rest) {
  const found = rest.match(/^!?\[([^\][]{0,500})\]\(\s*([^\s()]{0,1000}(?:\([^\s()]{0,200}\)[^\s()]{0,200})?)(?:\s+"[^"\n]{0,200}")?\s*\)/);
  if (!found) return null;
  const [whole, words, address] = found;
  return [h("span", { class: "link" }, textNodes(words), h("span", { class: "address", dir: "ltr" }, textNodes(`(${address})`))), whole.length];
}
