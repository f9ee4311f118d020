// What is wrong in an answer, and where. Marks may overlap.
import { button, h, say, unique } from "../dom.js";
import { pieces } from "../diff.js";
import { textNodes } from "../markdown.js";
import { t } from "../words.js";

const SEVERITIES = ["minor", "major", "critical"];

export function spans({ item, options, draft, changed }) {
  const text = item.candidates[0].text;
  const labels = item.labels.length ? item.labels : ["wrong"];
  const shownAs = (label) => (item.labels.length ? label : t("default_label"));
  // The server counts code points; the browser counts UTF-16 units.
  const units = [0];
  for (const letter of text) units.push(units.at(-1) + letter.length);
  const points = new Map(units.map((unit, point) => [unit, point]));
  const toPoint = (unit) => points.get(unit) ?? points.get(unit - 1);
  let marks = (draft?.spans ?? []).map((span) => ({ ...span, start: units[span.start], end: units[span.end] }));
  let chosen = null; // [start, end] in UTF-16 units
  const words = [];
  let at = 0;
  for (const piece of pieces(text)) {
    if (piece.trim()) words.push([at, at + piece.length]);
    at += piece.length;
  }

  const place = h("div", {
    class: "text plain markable", dir: "auto", lang: options.language ?? undefined, tabIndex: 0, role: "group",
    "aria-label": t("spans_text"), on: { keydown: typed },
  });
  const told = h("p", { class: "quiet chosen-text", role: "status" });
  const list = h("ol", { class: "marks" });
  const none = h("p", { class: "quiet" }, t("no_marks"));
  const hue = (label) => (Math.max(0, labels.indexOf(label)) % 6) + 1;

  function show() {
    const cuts = [...new Set([0, text.length, ...marks.flatMap((mark) => [mark.start, mark.end])])].sort((a, b) => a - b);
    place.replaceChildren(
      ...cuts.slice(0, -1).map((from, n) => {
        const part = text.slice(from, cuts[n + 1]);
        const over = marks.filter((mark) => mark.start <= from && mark.end >= cuts[n + 1]);
        if (!over.length) return h("span", {}, textNodes(part));
        const names = over.map((mark) => shownAs(mark.label)).join(", ");
        return h("mark", { class: `hue-${hue(over.at(-1).label)}${over.length > 1 ? " several" : ""}`, title: names }, textNodes(part));
      }),
    );
    list.replaceChildren(
      ...marks.map((mark, n) => {
        const id = unique("mark");
        const quote = text.slice(mark.start, mark.end);
        const short = quote.length > 60 ? `${quote.slice(0, 60)} …` : quote;
        return h(
          "li",
          { role: "group", "aria-label": t("mark_n", { n: n + 1, label: shownAs(mark.label), text: short }) },
          h("b", { class: `tag hue-${hue(mark.label)}` }, shownAs(mark.label)),
          h("q", { dir: "auto", lang: options.language ?? undefined }, textNodes(short)),
          h("label", { class: "hidden", for: id }, t("severity")),
          h(
            "select",
            { id, on: { change: (event) => edit(mark, "severity", event.target.value) } },
            h("option", { value: "" }, `${t("severity")}: ${t("not_said")}`),
            SEVERITIES.map((one) => h("option", { value: one, selected: mark.severity === one }, t(one))),
          ),
          h("input", { type: "text", maxLength: 1000, "aria-label": t("note"), placeholder: t("note"), dir: "auto", value: mark.note ?? "", on: { input: (event) => edit(mark, "note", event.target.value) } }),
          button(t("remove"), () => remove(mark), { class: "quiet-button" }),
        );
      }),
    );
    none.hidden = marks.length > 0;
  }
  function edit(mark, field, value) {
    mark[field] = value || null;
    changed();
  }
  function remove(mark) {
    const n = marks.indexOf(mark);
    marks = marks.filter((one) => one !== mark);
    show();
    (list.children[Math.min(n, marks.length - 1)]?.querySelector("button") ?? place).focus();
    changed();
  }
  function mark(label) {
    if (!chosen) {
      told.textContent = t("select_first");
      return;
    }
    const [start, end] = chosen;
    marks = [...marks, { start, end, label, severity: null, note: null }].sort((a, b) => a.start - b.start || a.end - b.end);
    const inside = place.contains(document.activeElement);
    show();
    say(t("mark_n", { n: marks.findIndex((one) => one.start === start && one.end === end && one.label === label) + 1, label: shownAs(label), text: text.slice(start, end) }));
    told.textContent = "";
    chosen = inside ? chosen : null;
    if (inside) select(...[start, end]);
    else getSelection().removeAllRanges();
    changed();
  }

  // --- from the selection to places in the text, and back
  function unitOf(node, offset) {
    const before = document.createRange();
    before.setStart(place, 0);
    before.setEnd(node, offset);
    return before.toString().length;
  }
  function nodeAt(unit) {
    const walker = document.createTreeWalker(place, NodeFilter.SHOW_TEXT);
    let left = unit;
    let node = walker.nextNode();
    while (node && left > node.length) {
      left -= node.length;
      node = walker.nextNode();
    }
    return node ? [node, left] : [place, 0];
  }
  function select(start, end) {
    getSelection().setBaseAndExtent(...nodeAt(start), ...nodeAt(end));
    chosen = [Math.min(start, end), Math.max(start, end)];
    told.textContent = t("selected", { text: text.slice(...chosen) });
  }
  function selected() {
    if (!place.isConnected) {
      document.removeEventListener("selectionchange", selected);
      return;
    }
    const selection = getSelection();
    if (!selection.rangeCount || selection.isCollapsed) return; // what was selected stays until something else is
    const range = selection.getRangeAt(0);
    if (!range.intersectsNode(place)) return;
    const inside = (node) => place.contains(node);
    let start = inside(range.startContainer) ? unitOf(range.startContainer, range.startOffset) : 0;
    let end = inside(range.endContainer) ? unitOf(range.endContainer, range.endOffset) : text.length;
    while (start < end && /\s/.test(text[start])) start += 1;
    while (end > start && /\s/.test(text[end - 1])) end -= 1;
    if (!points.has(start)) start -= 1;
    if (!points.has(end)) end += 1;
    if (end <= start) return;
    chosen = [start, end];
    told.textContent = t("selected", { text: text.slice(start, end) });
  }
  document.addEventListener("selectionchange", selected);

  let anchor = 0; // word at which the selection began
  let head = -1; // word at which it ends
  function typed(event) {
    const right = getComputedStyle(place).direction === "rtl" ? "ArrowLeft" : "ArrowRight";
    const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key] * (right === "ArrowRight" ? 1 : -1);
    if (event.altKey || event.metaKey) return;
    if (by && event.ctrlKey) {
      if (!chosen) return;
      event.preventDefault();
      const point = toPoint(chosen[1]) + by; // the end moves by a character
      if (units[point] !== undefined && units[point] > chosen[0]) select(chosen[0], units[point]);
    } else if (by || event.key === "Home" || event.key === "End") {
      if (!words.length) return;
      event.preventDefault();
      const to = event.key === "Home" ? 0 : event.key === "End" ? words.length - 1 : head + by;
      head = Math.max(0, Math.min(words.length - 1, to));
      if (!event.shiftKey) anchor = head;
      const [first, last] = anchor <= head ? [anchor, head] : [head, anchor];
      select(words[first][0], words[last][1]);
      getSelection().focusNode?.parentElement?.scrollIntoView({ block: "nearest" });
    }
  }

  const tools = h(
    "div",
    { class: "choices wrap", role: "group", "aria-label": t("mark_as") },
    h("span", { class: "rank" }, t("mark_as")),
    labels.map((label, i) => {
      const made = button(shownAs(label), () => mark(label), { key: i < 9 ? String(i + 1) : undefined, class: `choice hue-${hue(label)}` });
      made.addEventListener("pointerdown", (event) => event.preventDefault()); // keeps the selection
      return made;
    }),
  );
  show();
  return {
    element: h(
      "div",
      { class: "spans" },
      h("article", { class: "card" }, h("header", {}, h("h2", {}, t("answer"))), place, told),
      h("section", { class: "panel", "aria-label": t("marks") }, h("h2", {}, t("marks")), list, none, h("p", { class: "quiet how" }, t("spans_how"))),
    ),
    actions: tools,
    keys: [
      ...labels.slice(0, 9).map((label, i) => ({ keys: [String(i + 1)], name: `${t("key_mark")}: ${shownAs(label)}`, run: () => mark(label) })),
      { shown: ["←", "→"], name: t("key_words") },
      { shown: ["Shift ←", "Shift →"], name: t("key_extend") },
      { shown: ["Ctrl ←", "Ctrl →"], name: t("key_chars") },
    ],
    submits: true,
    focus: () => place.focus({ preventScroll: true }),
    missing: () => null,
    payload: () => ({
      candidate: 0,
      spans: marks.map(({ start, end, label, severity, note }) => ({ start: toPoint(start), end: toPoint(end), label, severity: severity ?? null, note: note ?? null })),
    }),
    clear: () => {
      marks = [];
      show();
    },
  };
}
