// Which of two answers is better.
import { button, h } from "../dom.js";
import { cards } from "../text.js";
import { t } from "../words.js";

export function pairwise({ item, options, draft, decided }) {
  let choice = draft?.outcome === "win" ? String(draft.winner + 1) : { tie: "0", both_bad: "b" }[draft?.outcome] ?? null;
  const names = { 1: t("win", { n: 1 }), 0: t("tie"), b: t("both_bad"), 2: t("win", { n: 2 }) };
  const shorts = { 1: t("win_short", { n: 1 }), 0: t("tie"), b: t("both_bad"), 2: t("win_short", { n: 2 }) };
  const order = ["1", "0", "b", "2"];
  const buttons = Object.fromEntries(
    order.map((key) => [key, button(shorts[key], () => choose(key), { key, class: "choice", "aria-label": names[key] })]),
  );
  const element = cards(item, options);
  const show = () => {
    for (const key of order) buttons[key].setAttribute("aria-pressed", String(choice === key));
    element.querySelectorAll(".card").forEach((card, i) => card.classList.toggle("chosen", choice === String(i + 1)));
  };
  function choose(key) {
    choice = key;
    show();
    decided(t("chosen", { what: names[key] }));
  }
  show();
  return {
    element,
    actions: h("div", { class: "choices", role: "group", "aria-label": t("ask_pairwise") }, order.map((key) => buttons[key])),
    keys: order.map((key) => ({ keys: [key], name: names[key], run: choose })),
    missing: () => (choice === null ? t("ask_pairwise") : null),
    payload: () => ({
      outcome: { 1: "win", 2: "win", 0: "tie", b: "both_bad" }[choice] ?? null,
      winner: { 1: 0, 2: 1 }[choice] ?? null,
    }),
    clear: () => {
      choice = null;
      show();
    },
  };
}
