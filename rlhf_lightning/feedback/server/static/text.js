// Texts of people and models: formatted or plain, each with its own direction and language.
import { h, unique } from "./dom.js";
import { markdown, textNodes } from "./markdown.js";
import { number, t } from "./words.js";

const LONG = 1500; // characters from which what only accompanies the question is folded

/** One text. `plain` leaves its marks as they are. */
export function textBlock(text, { language, plain, ...props } = {}) {
  const own = { lang: language ?? undefined, ...props };
  if (text === "") return h("div", { class: "text", ...own }, h("span", { class: "quiet" }, t("empty")));
  if (plain) return h("div", { class: "text plain", dir: "auto", ...own }, textNodes(text));
  return h("div", { class: "text", dir: "auto", ...own }, markdown(text));
}

/** A text that is folded where it is long. */
export function foldable(name, text, options) {
  const id = unique("heading");
  if (text.length <= LONG) return h("section", { class: "beside", "aria-labelledby": id }, h("h2", { id }, name), textBlock(text, options));
  const shown = h("div", {}, textBlock(text, options));
  return h(
    "section",
    { class: "beside", "aria-labelledby": id },
    h("h2", { id }, name),
    h("p", { class: "excerpt", dir: "auto", lang: options.language ?? undefined }, textNodes(`${text.slice(0, 280)} …`)),
    h("details", {}, h("summary", {}, t("show_all", { n: number([...text].length) })), shown),
  );
}

/** What was asked: a text, or the turns of a chat. */
export function prompt(asked, options) {
  if (!asked.turns) return foldable(t("prompt"), asked.text ?? "", options);
  const id = unique("heading");
  const turns = asked.turns.map((turn) =>
    h(
      "li",
      { class: `turn ${turn.role}` },
      h("h3", {}, t(`role_${turn.role}`)),
      turn.content.length > LONG
        ? h("details", {}, h("summary", {}, t("show_all", { n: number([...turn.content].length) })), textBlock(turn.content, options))
        : textBlock(turn.content, options),
    ),
  );
  return h("section", { class: "beside", "aria-labelledby": id }, h("h2", { id }, t("prompt")), h("ol", { class: "turns" }, turns));
}

/** The cards of the candidates, in the order in which they are shown; `more(i)` gives what stands below each. */
export function cards(item, options, more = () => null) {
  const one = item.candidates.length === 1;
  return h(
    "div",
    { class: `cards of-${Math.min(item.candidates.length, 3)}` },
    item.candidates.map((candidate, i) => {
      const id = unique("answer");
      return h(
        "article",
        { class: "card", "aria-labelledby": id, dataset: { candidate: i } },
        h(
          "header",
          {},
          h("h2", { id }, one ? t("answer") : t("answer_n", { n: i + 1 })),
          candidate.model ? h("p", { class: "quiet" }, t("by_model", { model: candidate.model })) : null,
        ),
        textBlock(candidate.text, options),
        more(i),
      );
    }),
  );
}
