// One question on the screen: what is asked, the answers, what can be said of them.
import { button, h, radios, unique } from "./dom.js";
import { correction } from "./judge/correction.js";
import { label } from "./judge/label.js";
import { pairwise } from "./judge/pairwise.js";
import { ranking } from "./judge/ranking.js";
import { rating } from "./judge/rating.js";
import { spans } from "./judge/spans.js";
import { thumbs } from "./judge/thumbs.js";
import { keep, kept } from "./keep.js";
import { foldable, prompt, textBlock } from "./text.js";
import { t } from "./words.js";

// Each makes {element, actions?, keys, submits?, missing(), payload(), clear(), focus?} of a question and its draft.
const KINDS = { pairwise, ranking, rating, thumbs, correction, spans, label };
const WITH_FORMAT = new Set(["pairwise", "ranking", "rating", "thumbs", "label"]);

/** The question's own words. */
export function asking(item) {
  const one = item.candidates.length === 1 && `ask_${item.kind}_1`;
  const question = t(one && t(one) !== one ? one : `ask_${item.kind}`);
  const aspect = item.kind !== "rating" && item.aspects.length === 1 ? item.aspects[0] : null;
  return aspect ? t("with_aspect", { question, aspect }) : question;
}

/**
 * Show a question in `place`.
 * `aside`: how many other drafts there are. `on`: {submit(), changed(), skip(), undo(), swap()}. Returns {payload(), missing(), keys, rationale(), more(), plain()}.
 */
export function showQuestion(place, { item, draft, others, number, editing, aside }, on) {
  const extras = { confidence: draft?.confidence ?? null, strength: draft?.strength ?? null, rationale: draft?.rationale ?? "", aspect: draft?.aspect ?? null };
  if (item.kind !== "rating" && item.aspects.length === 1) extras.aspect = item.aspects[0];
  const details = detailsOf(item, extras, on.changed);
  let judge;

  function make(payload) {
    const options = { language: item.asked.language, plain: kept("plain") === true };
    const context = { item, options, draft: payload, changed: on.changed, submit: () => on.submit(), decided };
    judge = KINDS[item.kind](context);
    const formats = button(options.plain ? t("formatted") : t("plain"), () => plain(), { class: "quiet-button" });
    const heading = h("h1", { id: "question", tabIndex: -1 }, number ? h("span", { class: "quiet" }, `${t("question_here", { n: number })} · `) : null, asking(item));
    const submits = judge.submits || details.open || editing;
    const submit = h("span", { class: "submit" }, button(t("submit"), on.submit, { key: "↵", class: "primary" }));
    submit.hidden = !submits;
    details.ontoggle = () => {
      keep("details", details.open);
      submit.hidden = !(judge.submits || details.open || editing);
    };
    place.replaceChildren(
      h("div", { class: "question-head" }, heading, h("div", { class: "tools" }, formats)),
      editing ? h("p", { class: "notice" }, t("changing")) : "",
      aside ? h("div", { class: "notice aside" }, h("p", {}, t("other_draft")), button(t("other_draft_show"), on.swap)) : "",
      prompt(item.asked, options),
      item.asked.context ? foldable(t("context"), item.asked.context, options) : "",
      others?.length ? othersOf(item, others, options) : "",
      h("section", { class: "judging", "aria-label": asking(item) }, judge.element),
      details,
      h(
        "div",
        { class: "bar" },
        judge.actions ?? null,
        h("div", { class: "bar-end" }, h("span", { class: "quiet draft-state", id: "draft-state" }), button(t("skip"), on.skip, { key: "s", class: "quiet-button" }), button(t("undo"), on.undo, { key: "u", class: "quiet-button" }), submit),
      ),
    );
    heading.focus({ preventScroll: true });
    judge.focus?.();
  }
  function decided(told, atOnce = true) {
    if (!atOnce || details.open || editing) on.changed(told);
    else on.submit(told);
  }
  function plain() {
    const payload = judge.payload();
    keep("plain", kept("plain") !== true);
    make(payload);
  }
  make(draft);
  return {
    get keys() {
      return judge.keys;
    },
    missing: () => judge.missing(),
    payload() {
      const said = Object.fromEntries(Object.entries(extras).filter(([, value]) => value !== null && value !== ""));
      if (item.kind !== "pairwise") delete said.strength;
      return { kind: item.kind, ...judge.payload(), ...said };
    },
    // Nothing of it was said: a choice that was refused is no choice any more.
    clear: () => judge.clear(),
    touchedExtras: () => extras.rationale !== "" || extras.confidence !== null || extras.strength !== null,
    more() {
      details.open = !details.open;
      if (details.open) details.querySelector("input, select, textarea").focus();
      else document.getElementById("question").focus();
    },
    rationale() {
      details.open = true;
      details.querySelector("textarea").focus();
    },
    plain: WITH_FORMAT.has(item.kind) || item.asked ? plain : null,
  };
}

function detailsOf(item, extras, changed) {
  const set = (name) => (value) => {
    extras[name] = value;
    changed();
  };
  const grades = (name) => [1, 2, 3].map((grade) => [grade, t(`${name}_${grade}`)]);
  const area = h("textarea", { id: unique("rationale"), rows: 3, dir: "auto", maxLength: 20_000, value: extras.rationale, on: { input: () => set("rationale")(area.value) } });
  const choice = unique("aspect");
  const made = h(
    "details",
    { class: "details", open: kept("details") === true || extras.rationale !== "" || extras.confidence !== null || extras.strength !== null },
    h("summary", {}, t("more")),
    h(
      "div",
      { class: "panel" },
      item.kind === "pairwise" ? radios(t("strength"), grades("strength"), extras.strength, set("strength")) : null,
      radios(t("confidence"), grades("confidence"), extras.confidence, set("confidence")),
      item.kind !== "rating" && item.aspects.length > 1
        ? h("p", {}, h("label", { for: choice }, t("aspect")), h("select", { id: choice, on: { change: (event) => set("aspect")(event.target.value || null) } }, h("option", { value: "" }, t("aspect_whole")), item.aspects.map((one) => h("option", { value: one, selected: one === extras.aspect }, one))))
        : null,
      h("p", {}, h("label", { for: area.id }, t("rationale")), area),
      ["pairwise", "thumbs"].includes(item.kind) ? h("p", { class: "quiet" }, t("more_hint")) : null,
    ),
  );
  return made;
}

// --- what others said, for who settles it

function othersOf(item, others, options) {
  const id = unique("heading");
  return h(
    "section",
    { class: "beside others", "aria-labelledby": id },
    h("h2", { id }, t("others")),
    h("ul", {}, others.map((one, n) => h("li", {}, h("b", {}, t("person_n", { n: one.by ?? n + 1 })), " ", said(item, one, options), one.payload?.rationale ? h("blockquote", { dir: "auto" }, one.payload.rationale) : null))),
  );
}

function said(item, { payload, reason }, options) {
  if (!payload) return t("said_skip", { reason: reason ?? t("not_said") });
  const name = (i) => t("answer_n", { n: i + 1 });
  switch (payload.kind) {
    case "pairwise":
      return payload.outcome === "win" ? t("win", { n: payload.winner + 1 }) : t(payload.outcome);
    case "ranking":
      return payload.ranks.map((rank, i) => t("rank_list", { answer: name(i), rank: t("rank_n", { n: rank }) })).join(" · ");
    case "rating":
      return Object.entries(payload.values)
        .map(([aspect, values]) => `${aspect === "overall" ? t("overall") : aspect}: ${values.map((value) => value ?? t("no_data")).join(", ")}`)
        .join(" · ");
    case "thumbs":
      return payload.up.map((up, i) => `${name(i)}: ${t(up === null ? "none" : up ? "up" : "down")}`).join(" · ");
    case "label":
      return payload.label;
    case "correction":
      return payload.text === item.candidates[0].text ? t("no_change") : textBlock(payload.text, { ...options, plain: true });
    case "spans": {
      const letters = [...item.candidates[0].text];
      if (!payload.spans.length) return t("no_marks");
      return h("ul", {}, payload.spans.map((span) => h("li", { dir: "auto" }, `${span.label}${span.severity ? ` (${t(span.severity)})` : ""}: “${letters.slice(span.start, span.end).join("")}”`)));
    }
    default:
      return "";
  }
}
