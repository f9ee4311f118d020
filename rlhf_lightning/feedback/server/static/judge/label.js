// One of a set of labels.
import { h, radios } from "../dom.js";
import { cards } from "../text.js";
import { t } from "../words.js";

export function label({ item, options, draft, decided }) {
  let chosen = item.labels.includes(draft?.label) ? draft.label : null;
  const group = radios(t("ask_label"), item.labels.map((name) => [name, name]), chosen, (value) => choose(value, false), { keys: item.labels.length <= 9 });
  const inputs = [...group.querySelectorAll("input")];
  function choose(value, atOnce = true) {
    chosen = value;
    inputs.forEach((input, i) => (input.checked = item.labels[i] === value));
    // Arrow keys pass over labels on the way to the right one: only a number settles it.
    decided(t("chosen", { what: value }), atOnce);
  }
  return {
    element: [item.candidates.length ? cards(item, options) : null, h("div", { class: "panel labels" }, group)],
    keys: item.labels.slice(0, 9).map((name, i) => ({ keys: [String(i + 1)], name: `${t("key_label")}: ${name}`, run: () => choose(name) })),
    submits: true,
    missing: () => (chosen === null ? t("missing_label") : null),
    payload: () => ({ label: chosen ?? "", candidate: item.candidates.length ? 0 : null }),
    clear: () => {
      chosen = null;
      inputs.forEach((input) => (input.checked = false));
    },
  };
}
