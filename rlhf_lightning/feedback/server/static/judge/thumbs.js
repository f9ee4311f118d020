// Good or bad, for each answer.
import { button, h, say } from "../dom.js";
import { cards } from "../text.js";
import { t } from "../words.js";

export function thumbs({ item, options, draft, decided, changed }) {
  const up = item.candidates.map((_, i) => draft?.up?.[i] ?? null);
  const one = up.length === 1;
  const groups = up.map((_, i) => {
    const pair = [true, false].map((value) =>
      button(t(value ? "up" : "down"), () => set(i, up[i] === value && !one ? null : value), {
        key: one ? (value ? "1" : "2") : undefined,
        class: `choice ${value ? "up" : "down"}`,
        "aria-label": one ? undefined : `${t("answer_n", { n: i + 1 })}: ${t(value ? "up" : "down")}`,
      }),
    );
    return h("div", { class: "choices", role: "group", "aria-label": one ? t("ask_thumbs_1") : t("answer_n", { n: i + 1 }) }, pair);
  });
  const show = () =>
    groups.forEach((group, i) =>
      [...group.children].forEach((child, n) => child.setAttribute("aria-pressed", String(up[i] === (n === 0)))),
    );
  function set(i, value) {
    up[i] = value;
    show();
    const told = t(value === null ? "none" : value ? "up" : "down");
    if (one) decided(t("chosen", { what: told }));
    else {
      say(`${t("answer_n", { n: i + 1 })}: ${told}`);
      changed();
    }
  }
  show();
  const turn = (i) => set(i, up[i] === null ? true : up[i] ? false : null);
  return {
    element: cards(item, options, (i) => (one ? null : groups[i])),
    actions: one ? groups[0] : null,
    keys: one
      ? [
          { keys: ["1", "+"], shown: ["1"], name: t("key_thumb_up"), run: () => set(0, true) },
          { keys: ["2", "-"], shown: ["2"], name: t("key_thumb_down"), run: () => set(0, false) },
        ]
      : up.map((_, i) => ({ keys: [String(i + 1)], name: t("key_thumb", { n: i + 1 }), run: () => turn(i) })),
    submits: !one,
    missing: () => (up.every((value) => value === null) ? t("missing_up") : null),
    payload: () => ({ up: [...up] }),
    clear: () => {
      up.fill(null);
      show();
    },
  };
}
