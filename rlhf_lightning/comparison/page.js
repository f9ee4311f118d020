"use strict";
// The page's own script: sorts the table, compares answers, gives the data as CSV. It fetches nothing.
const data = JSON.parse(document.getElementById("data").textContent);
const byId = (id) => document.getElementById(id);

function element(tag, text, className) {
  const made = document.createElement(tag);
  if (text !== undefined) made.textContent = text;
  if (className) made.className = className;
  return made;
}

// ---- the table, sorted by any of its columns
function sortable(table) {
  const heads = [...table.tHead.rows[table.tHead.rows.length - 1].cells];
  heads.forEach((head, column) => {
    const button = element("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    head.setAttribute("aria-sort", "none");
    button.addEventListener("click", () => {
      const up = head.getAttribute("aria-sort") !== "ascending";
      heads.forEach((other) => other.setAttribute("aria-sort", "none"));
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      const body = table.tBodies[0];
      const key = (row) => row.cells[column].dataset.value ?? row.cells[column].textContent.trim();
      const rows = [...body.rows].sort((a, b) => {
        const [x, y] = [key(a), key(b)];
        if (x === "" || y === "") return (x === "") - (y === ""); // rows without a value stay last
        const order = isNaN(x) || isNaN(y) ? x.localeCompare(y, undefined, { numeric: true }) : x - y;
        return up ? order : -order;
      });
      body.append(...rows);
    });
  });
}

// ---- words that differ
const CJK = "\\u3040-\\u30ff\\u3400-\\u9fff\\uf900-\\ufaff";
const WORDS = new RegExp(`[${CJK}]|\\s+|[^\\s${CJK}]+`, "gu");
const MOST_WORDS = 600;

// The longest common subsequence of two lists of words: for each word whether it is in it.
function common(a, b) {
  const length = Array.from({ length: a.length + 1 }, () => new Uint16Array(b.length + 1));
  for (let i = a.length - 1; i >= 0; i--)
    for (let j = b.length - 1; j >= 0; j--)
      length[i][j] = a[i] === b[j] ? length[i + 1][j + 1] + 1 : Math.max(length[i + 1][j], length[i][j + 1]);
  const [inA, inB] = [a.map(() => false), b.map(() => false)];
  for (let i = 0, j = 0; i < a.length && j < b.length; ) {
    if (a[i] === b[j]) inA[i++] = inB[j++] = true;
    else if (length[i + 1][j] >= length[i][j + 1]) i++;
    else j++;
  }
  return [inA, inB];
}

function marked(words, shared) {
  const made = element("p");
  made.dir = "auto";
  if (!words.length) made.append(element("span", "(empty)", "dim"));
  let run = "", kept = true;
  const flush = () => {
    if (run) made.append(kept ? run : element("mark", run));
    run = "";
  };
  words.forEach((word, i) => {
    if (shared[i] !== kept) flush();
    kept = shared[i];
    run += word;
  });
  flush();
  return made;
}

function sideBySide(a, b) {
  const words = [a.match(WORDS) || [], b.match(WORDS) || []];
  const tooLong = words.some((list) => list.length > MOST_WORDS);
  const shared = a === b || tooLong ? words.map((list) => list.map(() => true)) : common(...words);
  return words.map((list, i) => marked(list, shared[i]));
}

// ---- answers of two policies beside each other
const PAGE = 20;
const number = (value) => (value === null || value === undefined ? "-" : value.toFixed(Math.abs(value) < 10 ? 3 : 1));

function answers(root) {
  const list = byId("answers");
  const [a, b, order, filter, differ, told, more] = ["side-a", "side-b", "order", "filter", "differ", "told", "more"].map(byId);
  data.policies.forEach((policy, i) => [a, b].forEach((select) => select.append(new Option(policy.label, i))));
  [a.value, b.value] = data.chosen;
  let found = [], shown = 0;

  function score(policy, name, i) {
    const values = policy.scores[name];
    return values ? values[i] : null;
  }

  function orders() {
    const before = order.value;
    const names = Object.keys(data.policies[b.value].scores).filter((n) => n in data.policies[a.value].scores);
    order.replaceChildren(new Option("as in the data", ""));
    for (const name of names) {
      order.append(new Option(`${name}: B wins first`, `+${name}`), new Option(`${name}: B loses first`, `-${name}`));
    }
    order.value = [...order.options].some((option) => option.value === before) ? before : "";
  }

  function find() {
    const [left, right] = [data.policies[a.value], data.policies[b.value]];
    list.replaceChildren();
    found = [];
    shown = 0;
    if (left.set !== right.set) {
      told.textContent = "These two answered other prompts.";
      more.hidden = true;
      return;
    }
    const words = filter.value.toLocaleLowerCase();
    data.sets[left.set].forEach((row, i) => {
      const texts = [row.prompt, ...row.references, left.texts[i], right.texts[i]];
      if (differ.checked && left.texts[i] === right.texts[i]) return;
      if (words && !texts.some((text) => text.toLocaleLowerCase().includes(words))) return;
      found.push(i);
    });
    if (order.value) {
      const name = order.value.slice(1), sign = order.value[0] === "+" ? 1 : -1;
      const better = (data.directions[name] === "min" ? -1 : 1) * sign;
      const gain = (i) => {
        const [x, y] = [score(left, name, i), score(right, name, i)];
        return x === null || y === null ? -Infinity : better * (y - x);
      };
      found.sort((i, j) => gain(j) - gain(i) || i - j);
    }
    const of = data.sets[left.set].length;
    told.textContent = `${found.length} of ${of} answers` + (of < data.held[left.set] ? ` (of ${data.held[left.set]} held-out rows the page holds the first ${of})` : "");
    show();
  }

  function show() {
    const [left, right] = [data.policies[a.value], data.policies[b.value]];
    for (const i of found.slice(shown, shown + PAGE)) {
      const row = data.sets[left.set][i];
      const card = element("article", undefined, "sample");
      card.tabIndex = 0;
      const prompt = element("div", undefined, "prompt");
      const text = element("p", row.prompt);
      text.dir = "auto";
      prompt.append(element("h4", `prompt ${row.id}`), text);
      card.append(prompt);
      if (row.references.length) {
        const reference = element("div");
        reference.append(element("h4", "reference"), element("p", row.references.join("\n")));
        card.append(reference);
      }
      sideBySide(left.texts[i], right.texts[i]).forEach((made, side) => {
        const policy = [left, right][side];
        const cell = element("div", undefined, `side-${"ab"[side]}`);
        const scores = Object.keys(policy.scores).map((name) => `${name} ${number(score(policy, name, i))}`);
        cell.append(element("h4", `${"AB"[side]}: ${policy.label}`), made, element("small", scores.join("  ")));
        card.append(cell);
      });
      list.append(card);
    }
    shown = Math.min(found.length, shown + PAGE);
    more.hidden = shown >= found.length;
    more.textContent = `${Math.min(PAGE, found.length - shown)} more`;
  }

  for (const select of [a, b]) select.addEventListener("change", () => { orders(); find(); });
  for (const control of [order, differ]) control.addEventListener("change", find);
  filter.addEventListener("input", find);
  more.addEventListener("click", () => {
    const first = shown;
    show();
    list.children[first]?.focus();
  });
  filter.addEventListener("keydown", (event) => {
    if (event.key === "ArrowDown" || event.key === "Enter") {
      event.preventDefault();
      list.firstElementChild?.focus();
    } else if (event.key === "Escape") {
      filter.value = "";
      find();
    }
  });
  list.addEventListener("keydown", (event) => {
    const card = event.target.closest("article");
    if (event.key === "ArrowDown" && card.nextElementSibling) card.nextElementSibling.focus();
    else if (event.key === "ArrowUp") (card.previousElementSibling || filter).focus();
    else return;
    event.preventDefault();
  });
  orders();
  find();
}

// ---- downloads
const cell = (value) => {
  const text = value === null || value === undefined ? "" : String(value);
  return /[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
};
const sheet = (rows) => rows.map((row) => row.map(cell).join(",") + "\n").join("");

function curveRows() {
  const rows = [["stage", "value", "part", "row", "step", "mean", "low", "high", "runs"]];
  for (const curve of data.curves)
    curve.steps.forEach((step, i) =>
      rows.push([curve.stage, curve.name, curve.part, curve.row, step, curve.mean[i], curve.low[i], curve.high[i], curve.runs]));
  return rows;
}

function answerRows() {
  const names = [...new Set(data.policies.flatMap((policy) => Object.keys(policy.scores)))];
  const rows = [["id", "prompt", "references", "policy", "answer", ...names]];
  for (const policy of data.policies)
    data.sets[policy.set].forEach((row, i) =>
      rows.push([row.id, row.prompt, row.references.join(" | "), policy.label, policy.texts[i],
        ...names.map((name) => policy.scores[name]?.[i])]));
  return rows;
}

function download(name, text) {
  const link = element("a");
  link.href = URL.createObjectURL(new Blob([text], { type: "text/csv" }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

const downloads = {
  "get-table": ["table.csv", () => data.table],
  "get-curves": ["curves.csv", () => sheet(curveRows())],
  "get-answers": ["answers.csv", () => sheet(answerRows())],
};
for (const [id, [name, text]] of Object.entries(downloads)) byId(id)?.addEventListener("click", () => download(name, text()));

for (const table of document.querySelectorAll("table.sortable")) sortable(table);
if (data.policies.length > 1) answers();
for (const hidden of document.querySelectorAll(".needs-script")) hidden.hidden = false;
