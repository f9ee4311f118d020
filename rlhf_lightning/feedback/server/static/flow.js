// From question to question: fetch, show, keep drafts, submit, skip, take back.
import { Failure, newId, post } from "./api.js";
import { Clock } from "./clock.js";
import { dialog } from "./dialog.js";
import { button, h, radios, say, unique } from "./dom.js";
import { Drafts } from "./drafts.js";
import { forgetful } from "./keep.js";
import { setKeys } from "./keys.js";
import { Outbox } from "./outbox.js";
import { showQuestion } from "./question.js";
import { number, t } from "./words.js";

const AUTOSAVE = 1000;
const SLOWEST = 10_000;
const HEARTBEAT = 60_000;
const ASK_AGAIN = 10_000;
// Stored as they stand here, whatever the page's language.
const REASONS = ["unclear", "knowledge", "language", "harmful", "broken", "other"];

// What is said where there is no question follows from this.
const reasonOf = ({ why, progress }) => `${why} ${progress.disputes ?? 0}`;

export class Flow {
  /** `on`: {progress(progress), ended(), consent(), banner(text, props), calm(), adjudicate()}. */
  constructor({ me, tab, queue, place, on }) {
    Object.assign(this, { me, tab, queue, place, on });
    this.outbox = new Outbox(me.annotator.id, {
      waiting: (count, failure) => this.waiting(count, failure),
      arrived: () => this.on.banner(t("online"), { kind: "good", for: 4000 }),
      refused: (_, failure) => this.on.banner(t("stale", { message: failure.message })),
    });
    this.busy = false;
    this.stopped = false;
    this.beat = setInterval(() => this.heartbeat(), HEARTBEAT);
    this.hidden = () => document.visibilityState === "hidden" && this.saveDraft(true);
    document.addEventListener("visibilitychange", this.hidden);
    this.leaving = () => this.release();
    addEventListener("pagehide", this.leaving);
  }

  async start() {
    try {
      await this.outbox.empty();
    } catch (failure) {
      return this.ended(failure);
    }
    return this.next();
  }

  stop() {
    this.saveDraft(true);
    this.release();
    this.stopped = true;
    this.outbox.close();
    removeEventListener("pagehide", this.leaving);
    this.put(null);
    clearInterval(this.beat);
    clearTimeout(this.again);
    document.removeEventListener("visibilitychange", this.hidden);
    setKeys([]);
  }

  waiting(count, failure) {
    const text = failure.status === 429 ? t("slow_down") : t("offline");
    this.on.banner(text, { kind: "wait", more: t("offline_waiting", { n: count }), action: [t("offline_retry"), () => this.outbox.wake()] });
    if (forgetful()) this.on.banner(t("storage_full"), { kind: "bad" });
  }

  // Of which nothing was said yet is for others at once when its person goes away. (After a reload it is asked for anew.)
  release() {
    const at = this.current;
    if (!at || at.written || at.editing || this.busy) return;
    post("/api/release", { lease: at.lease.id }, { keepalive: true }).catch(() => {}); // else its lease ends by itself
  }

  /** Ask until the server answers. */
  async ask(path, body) {
    let pause = 1000;
    for (;;) {
      try {
        const answer = await post(path, body);
        if (pause > 1000) this.on.calm();
        return answer;
      } catch (failure) {
        if (!(failure instanceof Failure) || !failure.passing || this.stopped) throw failure;
        this.on.banner(failure.status === 429 ? t("slow_down") : t("offline"), { kind: "wait", action: [t("offline_retry"), () => this.wake?.()] });
        await new Promise((resolve) => {
          const timer = setTimeout(resolve, failure.wait ? failure.wait * 1000 : pause);
          this.wake = () => {
            clearTimeout(timer);
            resolve();
          };
        });
        pause = Math.min(2 * pause, 15_000);
      }
    }
  }

  ended(failure) {
    if (this.stopped) return;
    if (failure?.status === 401) this.on.ended(failure);
    else if (failure?.code === "consent") this.on.consent();
    else this.on.banner(t("refused", { message: failure?.message ?? String(failure) }), { kind: "bad", action: [t("next"), () => this.next()] });
  }

  // --- the question

  async next() {
    clearTimeout(this.again);
    try {
      const given = await this.ask("/api/next", { tab: this.tab, queue: this.queue });
      if (!this.stopped) this.show(given);
    } catch (failure) {
      if (!this.stopped) this.ended(failure);
    }
  }

  put(current) {
    this.current?.clock.stop();
    clearTimeout(this.timer);
    this.timer = null;
    this.current = current;
  }

  show(given, { editing = false } = {}) {
    this.on.progress(given.progress);
    if (!given.item) return this.showNone(given);
    const drafts = new Drafts(this.me.annotator.id, given);
    this.put({ ...given, drafts, editing, clock: new Clock(), changed: drafts.own, written: drafts.own });
    this.draw(drafts.shown);
    if (drafts.own) this.timer = setTimeout(() => this.saveDraft(), AUTOSAVE); // it never reached the server
    scrollTo({ top: 0 });
  }

  draw(draft) {
    const { item, others, progress, editing, drafts } = this.current;
    this.view = showQuestion(
      this.place,
      { item, draft, others, number: editing ? null : progress.done + progress.skipped + 1, editing, aside: drafts.aside.length },
      {
        swap: () => this.swap(),
        submit: (told) => this.submit(typeof told === "string" ? told : undefined),
        changed: (told) => this.changed(told),
        skip: () => this.skip(),
        undo: () => this.undo(),
      },
    );
    this.refreshKeys();
  }

  // Show another draft of this answer.
  swap() {
    if (!this.current || this.busy) return;
    this.draw(this.current.drafts.swap(this.view.payload()));
    this.changed(t("other_draft_shown"));
  }

  refreshKeys() {
    setKeys(this.view?.keys ?? []);
  }

  showNone(given) {
    this.put(null);
    this.view = null;
    this.none = reasonOf(given);
    setKeys([]);
    const done = given.why === "done";
    const disputes = this.queue === "judge" && given.progress.disputes;
    this.place.replaceChildren(
      h(
        "div",
        { class: "end" },
        h("h1", { id: "question", tabIndex: -1 }, t(!done ? "none_now" : disputes ? "done_judging" : "done")),
        disputes ? h("p", {}, t("disputes_wait", { n: number(disputes) })) : null,
        disputes ? h("p", {}, button(t("adjudicate"), () => this.on.adjudicate(), { class: "primary" })) : null,
        h("p", {}, t(!done ? "none_now_more" : disputes ? "done_come" : "done_more")),
        h("p", {}, button(t("undo"), () => this.undo(), { key: "u" })),
      ),
    );
    document.getElementById("question").focus();
    this.again = setTimeout(() => this.poll(), ASK_AGAIN);
  }

  // New questions, or ones that others gave back, come up by themselves; quietly, until there is one.
  async poll() {
    try {
      const given = await post("/api/next", { tab: this.tab, queue: this.queue });
      if (this.stopped || this.current) return;
      if (given.item || reasonOf(given) !== this.none) return this.show(given);
      this.on.progress(given.progress);
    } catch (failure) {
      if (failure.status === 401) return this.ended(failure);
    }
    if (!this.stopped) this.again = setTimeout(() => this.poll(), ASK_AGAIN);
  }

  // --- drafts

  touch() {
    this.current?.clock.touch();
  }

  changed(told) {
    if (!this.current) return;
    this.touch();
    if (told) say(told);
    this.current.changed = this.current.written = true;
    const payload = this.view.payload();
    const safe = this.current.drafts.keep(payload);
    this.state(safe ? "" : t("storage_full"));
    clearTimeout(this.timer);
    // Each draft is stored whole, for good: a long text is sent at longer pauses. This browser has it at once.
    this.timer = setTimeout(() => this.saveDraft(), Math.min(SLOWEST, AUTOSAVE + JSON.stringify(payload).length));
  }

  state(text) {
    const place = document.getElementById("draft-state");
    if (place) place.textContent = text;
  }

  async saveDraft(leaving = false) {
    const at = this.current;
    if (!at?.changed || !this.view || this.busy) return;
    clearTimeout(this.timer);
    at.changed = false;
    const payload = this.view.payload();
    const timing = at.clock.read(false);
    const id = newId();
    const arrived = at.drafts.sending(id);
    try {
      await post("/api/judgements", { id, item: at.item.id, lease: at.lease.id, status: "draft", payload, reason: null, timing }, { keepalive: leaving && new Blob([JSON.stringify(payload)]).size < 60_000 });
      if (at.lost && this.current === at) this.on.calm(); // who had taken it left it again
      at.lost = false;
      // What was written meanwhile is kept until its own draft has arrived.
      if (arrived() && this.current === at) this.state(t("draft_saved"));
    } catch (failure) {
      if (this.current !== at) return;
      if (failure.status === 401) return this.ended(failure);
      if (failure.status === 409 && !at.lost) {
        at.lost = true; // who goes on writing should know that it is in vain
        this.on.banner(t("lease_lost"), { kind: "bad" });
      }
      at.changed ||= failure.passing;
      this.state(t("draft_kept"));
      clearTimeout(this.timer);
      if (failure.passing) this.timer = setTimeout(() => this.saveDraft(), 5000);
    }
  }

  async heartbeat() {
    if (!this.current?.clock.inUse) return;
    try {
      await post("/api/heartbeat", { lease: this.current.lease.id });
    } catch {
      // the judgement itself will tell
    }
  }

  // --- submitted, skipped

  async submit(told) {
    if (!this.current || this.busy) return;
    this.touch();
    const missing = this.view.missing();
    if (missing) {
      this.on.banner(t("incomplete", { what: missing }), { kind: "bad", for: 6000 });
      return;
    }
    await this.finish("submitted", this.view.payload(), null, `${told ? `${told}. ` : ""}${t("saved_next")}`);
  }

  async finish(status, payload, reason, told) {
    const at = this.current;
    this.busy = true;
    clearTimeout(this.timer);
    this.place.classList.add("sending");
    const entry = { id: newId(), item: at.item.id, lease: at.lease.id, status, payload, reason, timing: at.clock.read(true) };
    try {
      const answer = await this.outbox.send(entry);
      at.drafts.done();
      this.on.progress(answer.progress);
      if (this.stopped) return;
      say(told);
      this.put(null);
      await this.next();
    } catch (failure) {
      if (this.stopped) return;
      if (failure.status === 409) await this.lost(at, entry);
      else this.ended401or(failure);
    } finally {
      this.busy = false;
      this.place.classList.remove("sending");
    }
  }

  // What the server refuses for good stays on the screen.
  ended401or(failure) {
    if (this.stopped) return;
    if (failure.status === 401 || failure.code === "consent") return this.ended(failure);
    return this.on.banner(t("refused", { message: failure.message }), { kind: "bad" });
  }

  // The lease is gone: get the question again where it is still to be had; else say so, and keep what was written.
  async lost(at, entry) {
    let given;
    try {
      given = await this.ask("/api/next", { tab: this.tab, queue: this.queue });
    } catch (failure) {
      return this.ended401or(failure);
    }
    if (given.item?.id === at.item.id && given.lease.id !== entry.lease) {
      this.current.lease = given.lease;
      try {
        await this.outbox.send({ ...entry, id: newId(), lease: given.lease.id });
        at.drafts.done();
        this.put(null);
        return await this.next();
      } catch (failure) {
        if (failure.status !== 409) return this.ended401or(failure);
      }
    }
    at.drafts.lost();
    this.put(null);
    this.view = null;
    setKeys([]);
    const written = [entry.payload?.text, entry.payload?.rationale, ...(entry.payload?.spans ?? []).map((span) => span.note)].filter(Boolean);
    const id = unique("written");
    this.place.replaceChildren(
      h(
        "div",
        { class: "end" },
        h("h1", { id: "question", tabIndex: -1 }, t("lease_lost")),
        written.length ? [h("label", { for: id }, t("lease_text")), h("textarea", { id, rows: 8, readOnly: true, dir: "auto", value: written.join("\n\n") })] : null,
        h("p", {}, button(t("next"), () => (given.item ? this.show(given) : this.next()), { class: "primary" })),
      ),
    );
    document.getElementById("question").focus();
  }

  skip() {
    if (!this.current || this.busy) return;
    this.touch();
    let reason = "unclear";
    const group = radios(t("skip_why"), REASONS.map((one) => [one, t(`skip_${one}`)]), reason, (value) => (reason = value), { keys: true });
    const id = unique("note");
    const note = h("input", { id, type: "text", maxLength: 1000, dir: "auto", autocomplete: "off" });
    const inputs = [...group.querySelectorAll("input")];
    group.addEventListener("keydown", (event) => {
      const i = Number(event.key) - 1;
      if (!(i in inputs)) return;
      event.preventDefault();
      inputs[i].checked = true;
      inputs[i].focus();
      reason = REASONS[i];
    });
    const done = () => {
      const told = note.value.trim() ? `${reason}: ${note.value.trim()}` : reason;
      this.finish("skipped", null, told, t("skipped"));
    };
    dialog(t("skip_title"), [group, h("p", {}, h("label", { for: id }, t("skip_note")), note)], [[t("cancel"), null], [t("skip"), done, { class: "primary" }]], done);
    inputs[0].focus();
  }

  async undo() {
    if (this.busy) return;
    this.busy = true;
    await this.saveDraftNow();
    try {
      const given = await this.ask("/api/undo", { tab: this.tab });
      this.show(given, { editing: true });
      say(t("undone"));
    } catch (failure) {
      if (failure.status === 404 || failure.status === 409) this.on.banner(t("nothing_to_undo"), { for: 4000 });
      else this.ended401or(failure);
    } finally {
      this.busy = false;
    }
  }

  async saveDraftNow() {
    this.busy = false;
    await this.saveDraft();
    this.busy = true;
  }
}
