// An answer as it should be, with what was changed beside it.
import { difference } from "../diff.js";
import { button, h, unique } from "../dom.js";
import { textNodes } from "../markdown.js";
import { textBlock } from "../text.js";
import { number, t } from "../words.js";

export function correction({ item, options, draft, changed }) {
  const original = item.candidates[0].text;
  const language = options.language ?? undefined;
  const id = unique("text");
  const area = h("textarea", {
    id, dir: "auto", lang: language, spellcheck: true, rows: 8, value: draft?.text ?? original,
    on: {
      input: () => {
        changed();
        clearTimeout(waiting);
        waiting = setTimeout(compare, original.length + area.value.length > 20_000 ? 400 : 60);
        fit();
      },
    },
  });
  let waiting = null;
  const shown = h("div", { class: "text plain difference", dir: "auto", lang: language });
  const told = h("p", { class: "quiet", role: "status" });
  // A textarea tells line breaks its own way: an untouched text must come back as it was.
  const untouched = h("textarea", { value: original }).value;
  const text = () => (area.value === untouched ? original : area.value);

  function compare() {
    const { parts, whole } = difference(original, text());
    const tags = { same: "span", removed: "del", added: "ins" };
    shown.replaceChildren(...parts.map(([kind, part]) => (kind === "same" ? h("span", {}, textNodes(part)) : h(tags[kind], {}, textNodes(part)))));
    const count = (kind) => parts.filter((part) => part[0] === kind).reduce((sum, part) => sum + [...part[1]].length, 0);
    const same = parts.every((part) => part[0] === "same");
    told.textContent = same ? t("unchanged") : `${t("added_chars", { added: number(count("added")), removed: number(count("removed")) })}${whole ? ` · ${t("diff_too_long")}` : ""}`;
  }
  // It grows with its text: the page scrolls, not a box within it.
  function fit() {
    area.style.height = "auto";
    area.style.height = `${area.scrollHeight + 4}px`;
  }
  function reset() {
    area.value = original;
    compare();
    fit();
    changed();
    area.focus();
  }
  compare();
  requestAnimationFrame(fit);
  return {
    element: h(
      "div",
      { class: "cards of-2" },
      h(
        "section",
        { class: "card" },
        h("header", {}, h("h2", {}, h("label", { for: id }, t("your_text"))), button(t("reset"), reset, { class: "quiet-button" })),
        area,
        h("details", {}, h("summary", {}, t("original")), textBlock(original, options)),
      ),
      h("section", { class: "card", "aria-label": t("difference") }, h("header", {}, h("h2", {}, t("difference"))), shown, told),
    ),
    keys: [{ keys: ["e"], name: t("key_edit"), run: () => area.focus() }],
    submits: true,
    missing: () => (text().trim() ? null : t("missing_text")),
    payload: () => ({ candidate: 0, text: text() }),
    clear: reset,
  };
}
