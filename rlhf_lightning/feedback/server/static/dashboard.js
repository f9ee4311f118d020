// How far it has come: counts, speed, agreement, people; and links for new ones.
import { get, post } from "./api.js";
import { button, h, say, unique } from "./dom.js";
import { language, number, t } from "./words.js";

const REFRESH = 5000;
const percent = (value) => (value === null || value === undefined ? t("no_data") : new Intl.NumberFormat(language(), { style: "percent", maximumFractionDigits: 0 }).format(value));

export class Dashboard {
  /** `on`: {progress(progress), ended(), banner(...), calm()}. */
  constructor({ me, place, on }) {
    Object.assign(this, { me, place, on });
    this.owner = me.annotator.role === "owner";
    this.counts = h("div", {});
    this.updated = h("p", { class: "quiet" });
    this.failing = false;
  }

  start() {
    this.place.replaceChildren(
      h("div", { class: "question-head" }, h("h1", { id: "question", tabIndex: -1 }, t("dashboard")), this.updated),
      this.counts,
      this.owner ? this.invitations() : "",
    );
    document.getElementById("question").focus();
    return this.refresh();
  }

  stop() {
    this.stopped = true;
    clearTimeout(this.timer);
  }

  async refresh() {
    clearTimeout(this.timer);
    try {
      const told = await get("/api/dashboard");
      if (this.stopped) return;
      if (this.failing) this.on.calm();
      this.failing = false;
      this.on.progress(told.progress);
      this.show(told);
    } catch (failure) {
      if (this.stopped) return;
      if (failure.status === 401) return this.on.ended(failure);
      this.failing = true;
      this.on.banner(failure.passing ? t("offline") : t("refused", { message: failure.message }), { kind: "wait" });
    }
    this.timer = setTimeout(() => this.refresh(), REFRESH);
  }

  show(told) {
    const text = JSON.stringify(told);
    this.updated.textContent = t("updated", { time: new Intl.DateTimeFormat(language(), { timeStyle: "medium" }).format(new Date()) });
    if (text === this.last) return; // what somebody is reading stays where it is
    this.last = text;
    const focused = document.activeElement?.dataset?.person;
    const { items, judgements, agreement } = told;
    const tile = (value, name, extra) => h("div", { class: "tile" }, h("dt", {}, name), h("dd", {}, value, extra ? h("small", {}, extra) : null));
    this.counts.replaceChildren(
      h(
        "dl",
        { class: "tiles" },
        tile(`${number(items.done)} / ${number(items.total)}`, `${t("items")}: ${t("items_done")}`),
        tile(number(items.open), `${t("items")}: ${t("open")}`),
        tile(number(items.disputed), `${t("items")}: ${t("disputed")}`),
        tile(number(judgements.submitted), t("judgements"), ` + ${number(judgements.skipped)} ${t("status_skipped")}, ${number(judgements.draft)} ${t("status_draft")}`),
        tile(percent(agreement.value), t("agreement_all"), ` n = ${number(agreement.pairs)}`),
      ),
      this.people(told.people),
      h("div", { class: "columns" }, this.kinds(told.by_kind), this.days(told.by_day)),
    );
    if (focused) this.counts.querySelector(`[data-person="${CSS.escape(focused)}"]`)?.focus();
  }

  people(people) {
    const heads = ["person", "role", "count_done", "skipped_count", "seconds", "agreement", "gold", ...(this.owner ? ["active"] : [])];
    const cell = (name, value) => h("td", { dataset: { label: t(name) } }, value);
    return h(
      "section",
      {},
      h("h2", {}, t("people")),
      h(
        "table",
        { class: "people" },
        h("thead", {}, h("tr", {}, heads.map((head) => h("th", { scope: "col" }, t(head))))),
        h(
          "tbody",
          {},
          people.map((one) =>
            h(
              "tr",
              { class: one.active ? "" : "inactive" },
              h("th", { scope: "row", dir: "auto" }, one.name ?? one.id.slice(0, 8), one.id === this.me.annotator.id ? " ★" : ""),
              cell("role", t(`role_${one.role}`)),
              cell("count_done", number(one.done)),
              cell("skipped_count", number(one.skipped)),
              cell("seconds", number(one.median_seconds, 1)),
              cell("agreement", percent(one.agreement)),
              cell("gold", one.gold.count ? `${percent(one.gold.accuracy)} (${number(one.gold.count)})` : t("no_data")),
              this.owner ? cell("active", one.id === this.me.annotator.id ? t("no_data") : this.switcher(one)) : null,
            ),
          ),
        ),
      ),
    );
  }

  switcher(one) {
    const name = one.name ?? one.id.slice(0, 8);
    const action = async () => {
      try {
        await post(`/api/people/${encodeURIComponent(one.id)}`, { active: !one.active });
        this.refresh();
      } catch (failure) {
        this.on.banner(t("refused", { message: failure.message }), { kind: "bad" });
      }
    };
    const word = t(one.active ? "deactivate" : "activate");
    return button(word, action, { class: "quiet-button", dataset: { person: one.id }, "aria-label": `${word}: ${name}` });
  }

  kinds(counts) {
    const most = Math.max(1, ...Object.values(counts));
    return h("section", {}, h("h2", {}, t("by_kind")), bars(Object.entries(counts).map(([kind, count]) => [t(`kind_${kind}`), count]), most));
  }

  days(days) {
    const last = days.slice(-14);
    return h("section", {}, h("h2", {}, t("by_day")), bars(last.map(({ day, count }) => [day, count]), Math.max(1, ...last.map((one) => one.count))));
  }

  invitations() {
    const [role, count, name] = [unique("role"), unique("count"), unique("name")];
    const roles = h("select", { id: role }, ["annotator", "adjudicator", "owner"].map((one) => h("option", { value: one }, t(`role_${one}`))));
    const many = h("input", { id: count, type: "number", min: 1, max: 100, value: 1, inputMode: "numeric" });
    const called = h("input", { id: name, type: "text", maxLength: 200, autocomplete: "off", dir: "auto" });
    const links = h("div", { class: "links", role: "status" });
    const make = async (event) => {
      event.preventDefault();
      try {
        const wanted = { role: roles.value, count: many.valueAsNumber || 1, ...(called.value.trim() ? { name: called.value.trim() } : {}) };
        const made = await post("/api/invitations", wanted);
        links.replaceChildren(h("p", { class: "quiet" }, t("invite_links")), h("ol", {}, made.links.map(linkRow)));
        this.refresh();
      } catch (failure) {
        this.on.banner(failure.passing ? t("offline") : t("refused", { message: failure.message }), { kind: "bad" });
      }
    };
    return h(
      "section",
      {},
      h("h2", {}, t("invite")),
      h(
        "form",
        { class: "invite", on: { submit: make } },
        h("p", {}, h("label", { for: role }, t("invite_role")), roles),
        h("p", {}, h("label", { for: count }, t("invite_count")), many),
        h("p", {}, h("label", { for: name }, t("invite_name")), called),
        h("button", { type: "submit", class: "primary" }, t("invite_go")),
      ),
      links,
    );
  }
}

function linkRow({ url }, n) {
  const field = h("input", { type: "text", readOnly: true, value: url, "aria-label": t("link_n", { n: n + 1 }), dir: "ltr", on: { focus: () => field.select() } });
  const copy = async () => {
    field.select();
    try {
      await navigator.clipboard.writeText(url);
    } catch {
      document.execCommand("copy"); // a plain http address has no clipboard
    }
    say(t("copied"));
    made.querySelector("span").textContent = t("copied");
  };
  const made = button(t("copy"), copy, { "aria-label": `${t("copy")}: ${t("link_n", { n: n + 1 })}` });
  return h("li", {}, field, made);
}

function bars(rows, most) {
  if (!rows.length) return h("p", { class: "quiet" }, t("no_data"));
  return h(
    "table",
    { class: "bars" },
    h("tbody", {}, rows.map(([name, count]) => h("tr", {}, h("th", { scope: "row" }, name), h("td", {}, h("meter", { min: 0, max: most, value: count, "aria-label": `${name}: ${count}` })), h("td", {}, number(count))))),
  );
}
