// The answers in order, ties allowed: by their numbers, by arrow keys, or by dragging.
import { button, h, say } from "../dom.js";
import { cards } from "../text.js";
import { t } from "../words.js";

/** Ranks (1 is best, null is none) as tiers of positions, the best first. */
export function tiersOf(ranks) {
  const numbers = [...new Set(ranks.filter((rank) => rank !== null && rank !== undefined))].sort((a, b) => a - b);
  return numbers.map((rank) => ranks.flatMap((one, i) => (one === rank ? [i] : [])));
}

/** Tiers as ranks; those that are tied share the rank, and the next is one more. */
export function ranksOf(tiers, count) {
  const ranks = new Array(count).fill(null);
  tiers.forEach((tier, n) => tier.forEach((i) => (ranks[i] = n + 1)));
  return ranks;
}

/** One step up (-1) or down (1): out of a tie to a rank of its own, or into the next one's tie. */
export function step(tiers, i, by) {
  const at = tiers.findIndex((tier) => tier.includes(i));
  const rest = tiers.map((tier) => tier.filter((one) => one !== i));
  if (tiers[at].length > 1) rest.splice(by < 0 ? at : at + 1, 0, [i]);
  else if (rest[at + by]) {
    rest[at + by] = [...rest[at + by], i].sort((a, b) => a - b);
    rest.splice(at, 1);
  } else return tiers;
  return rest;
}

export function ranking({ item, options, draft, changed, submit }) {
  const count = item.candidates.length;
  let tiers = tiersOf(draft?.ranks ?? []);
  const order = tiers.flat(); // as they were put there, the last one last
  let tie = false;
  const board = h("ol", { class: "board" });
  const pool = h("div", { class: "pool" });
  const name = (i) => t("answer_n", { n: i + 1 });
  const excerpt = (i) => item.candidates[i].text.slice(0, 80).replace(/\s+/g, " ");
  const chips = item.candidates.map((_, i) =>
    h(
      "button",
      {
        type: "button", class: "chip", dataset: { chip: i },
        on: { keydown: (event) => typed(event, i), pointerdown: (event) => drag(event, i), click: (event) => clicked(event, i) },
      },
      h("b", {}, String(i + 1)),
      h("span", { class: "excerpt-line", dir: "auto", lang: options.language ?? undefined, "aria-hidden": "true" }, excerpt(i)),
    ),
  );
  const place = (i) => tiers.findIndex((tier) => tier.includes(i));
  const unranked = () => item.candidates.flatMap((_, i) => (place(i) < 0 ? [i] : []));

  function show() {
    const focused = document.activeElement;
    board.replaceChildren(
      ...tiers.flatMap((tier, n) => [
        gap(n),
        h("li", { class: "tier", dataset: { tier: n } }, h("span", { class: "rank" }, t("rank_n", { n: n + 1 })), h("div", { class: "chips" }, tier.map((i) => chips[i]))),
      ]),
      gap(tiers.length),
    );
    const left = unranked();
    pool.replaceChildren(...(left.length ? [h("span", { class: "rank" }, t("unranked")), h("div", { class: "chips" }, left.map((i) => chips[i]))] : []));
    pool.hidden = left.length === 0;
    chips.forEach((chip, i) => chip.setAttribute("aria-label", `${name(i)}: ${place(i) < 0 ? t("unranked") : where(i)}`));
    if (chips.includes(focused)) focused.focus({ preventScroll: true });
  }
  const gap = (n) => h("li", { class: "gap", role: "presentation", dataset: { gap: n } });
  function where(i) {
    const at = place(i);
    const others = tiers[at].filter((one) => one !== i).map(name).join(", ");
    return `${t("rank_n", { n: at + 1 })}${others ? t("tied_with", { others }) : ""}`;
  }
  function set(next, i) {
    tiers = next.filter((tier) => tier.length);
    show();
    const at = place(i);
    if (at < 0) say(t("taken_out", { answer: name(i) }));
    else {
      const others = tiers[at].filter((one) => one !== i).map(name).join(", ");
      say(t("moved", { answer: name(i), rank: at + 1, ranks: tiers.length, tied: others ? t("tied_with", { others }) : "" }));
    }
    changed();
  }
  const without = (i) => tiers.map((tier) => tier.filter((one) => one !== i));
  function append(i) {
    if (i >= count || place(i) >= 0) {
      if (i < count) chips[i].focus();
      return;
    }
    order.push(i);
    const last = tiers.length - 1;
    const next = tie && last >= 0 ? tiers.map((tier, n) => (n === last ? [...tier, i] : tier)) : [...tiers, [i]];
    tie = false;
    set(next, i);
  }
  function back() {
    const i = order.findLast((one) => place(one) >= 0);
    if (i === undefined) return;
    order.splice(order.lastIndexOf(i), 1);
    set(without(i), i);
  }
  function typed(event, i) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const ranked = place(i) >= 0;
    if (event.key === "ArrowUp" || event.key === "ArrowDown") {
      event.preventDefault();
      if (ranked) set(step(tiers, i, event.key === "ArrowUp" ? -1 : 1), i);
      else append(i);
    } else if ((event.key === "Delete" || event.key === "Backspace") && ranked) {
      event.preventDefault();
      set(without(i), i);
    } else if (event.key === "Enter" && ranked) {
      event.preventDefault();
      submit();
    }
  }
  let dragged = false;
  function clicked(event, i) {
    if (dragged) return;
    if (place(i) < 0) append(i);
  }

  // Dragging by pointer events: mouse, pen and finger alike. A finger must rest a moment, so that it can still scroll.
  function drag(down, i) {
    if (down.button !== 0) return;
    const chip = chips[i];
    const touch = down.pointerType !== "mouse";
    let moving = false;
    let target = null;
    dragged = false;
    const begin = () => {
      moving = dragged = true;
      chip.setPointerCapture?.(down.pointerId);
      chip.classList.add("dragged");
      board.classList.add("receiving");
    };
    const resting = touch ? setTimeout(begin, 250) : null;
    const mark = (next) => {
      target?.classList.remove("target");
      target = next;
      target?.classList.add("target");
    };
    const move = (event) => {
      const far = Math.hypot(event.clientX - down.clientX, event.clientY - down.clientY);
      if (!moving) {
        if (far < 6) return;
        if (touch) return end();
        begin();
      }
      event.preventDefault();
      chip.style.transform = `translate(${event.clientX - down.clientX}px, ${event.clientY - down.clientY}px)`;
      const under = document.elementsFromPoint(event.clientX, event.clientY).find((one) => one !== chip && !chip.contains(one) && one.closest(".gap, .tier, .pool"));
      mark(under?.closest(".gap, .tier, .pool") ?? null);
    };
    const still = (event) => moving && event.preventDefault(); // keeps the page from scrolling below the finger
    const end = () => {
      clearTimeout(resting);
      removeEventListener("pointermove", move);
      removeEventListener("pointerup", drop);
      removeEventListener("pointercancel", end);
      chip.removeEventListener("touchmove", still);
      chip.classList.remove("dragged");
      board.classList.remove("receiving");
      chip.style.transform = "";
      const found = target;
      mark(null);
      setTimeout(() => (dragged = false), 0); // the click that follows is none
      return found;
    };
    const drop = () => {
      const found = end();
      if (!moving || !found) return;
      const rest = without(i);
      if (found.dataset.tier !== undefined) rest[Number(found.dataset.tier)].push(i);
      else if (found.dataset.gap !== undefined) rest.splice(Number(found.dataset.gap), 0, [i]);
      if (!order.includes(i)) order.push(i);
      set(rest, i);
      chip.focus({ preventScroll: true });
    };
    addEventListener("pointermove", move, { passive: false });
    addEventListener("pointerup", drop);
    addEventListener("pointercancel", end);
    chip.addEventListener("touchmove", still, { passive: false });
  }

  show();
  return {
    element: h(
      "div",
      { class: "with-board" },
      cards(item, options),
      h(
        "section",
        { class: "panel ranking", "aria-label": t("ask_ranking") },
        pool,
        board,
        button(t("ranking_clear"), () => clear(), { class: "quiet-button" }),
        h("p", { class: "quiet how" }, t("ranking_how")),
      ),
    ),
    keys: [
      { keys: item.candidates.map((_, i) => String(i + 1)), shown: [`1 – ${count}`], name: t("key_rank"), run: (key) => append(Number(key) - 1) },
      { keys: ["0", "="], name: t("key_rank_tie"), run: () => ((tie = true), say(t("key_rank_tie"))) },
      { keys: ["Backspace"], name: t("key_rank_back"), run: back },
    ],
    submits: true,
    missing: () => (unranked().length ? t("missing_ranks") : null),
    payload: () => ({ ranks: ranksOf(tiers, count) }),
    clear,
  };
  function clear() {
    tiers = [];
    order.length = 0;
    show();
    changed();
  }
}
