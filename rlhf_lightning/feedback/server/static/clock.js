// How long a question was really worked at.

const AWAY = 30_000; // milliseconds without a sign of use after which nobody is there

/** Starts when a question is shown. */
export class Clock {
  constructor() {
    this.origin = Date.now() - performance.now(); // later changes of the device's clock don't matter
    this.shown = performance.now();
    this.first = null;
    this.active = 0;
    this.since = document.visibilityState === "visible" ? this.shown : null;
    this.used = this.shown;
    this.seen = () => this.#tick(true);
    this.changed = () => this.#tick(false);
    for (const type of Clock.SIGNS) addEventListener(type, this.seen, { passive: true, capture: true });
    document.addEventListener("visibilitychange", this.changed);
  }

  static SIGNS = ["pointerdown", "pointermove", "keydown", "wheel", "scroll", "touchmove"];

  // Count the time since the last tick up to 30 s after the last use.
  #tick(use) {
    const now = performance.now();
    if (this.since !== null) {
      this.active += Math.max(0, Math.min(now, this.used + AWAY) - this.since);
    }
    this.since = document.visibilityState === "visible" ? now : null;
    if (use) this.used = now;
  }

  /** The first thing done about the question. */
  touch() {
    this.first ??= performance.now();
  }

  /** As the server wants it. */
  read(submitted) {
    this.#tick(false);
    const moment = (at) => (at === null ? null : new Date(this.origin + at).toISOString());
    return {
      shown: moment(this.shown),
      first_action: moment(this.first),
      submitted: submitted ? moment(performance.now()) : null,
      active_ms: Math.round(this.active),
    };
  }

  /** Whether somebody is there. */
  get inUse() {
    return document.visibilityState === "visible" && performance.now() - this.used < 60_000;
  }

  stop() {
    for (const type of Clock.SIGNS) removeEventListener(type, this.seen, { capture: true });
    document.removeEventListener("visibilitychange", this.changed);
  }
}
