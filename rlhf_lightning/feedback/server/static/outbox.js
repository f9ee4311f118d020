// What was submitted is kept in the browser until the server has acknowledged it, and sent again under the same id:
// it is stored once, also where the answer was lost on its way.
import { Failure, post } from "./api.js";
import { forget, keep, kept, keysOf } from "./keep.js";

const LONGEST_PAUSE = 15_000;

/** The entries of one person that wait. */
export class Outbox {
  /** `on`: {waiting(count, failure), arrived(), refused(entry, failure)}. */
  constructor(person, on) {
    this.prefix = `outbox.${person}.`;
    this.on = on;
    this.wake = () => {};
    this.closed = false;
    this.online = () => this.wake();
    addEventListener("online", this.online);
  }

  /** Send nothing more: what waits is kept, for the next page of this person. */
  close() {
    this.closed = true;
    removeEventListener("online", this.online);
    this.wake();
  }

  waiting() {
    return keysOf(this.prefix);
  }

  /**
   * Send an entry until the server has it. Returns its answer; throws `Failure` where it will never take it.
   */
  async send(entry) {
    const key = this.prefix + entry.id;
    keep(key, entry);
    let pause = 1000;
    let told = false;
    for (;;) {
      if (this.closed) throw new Failure(0, "closed", "");
      try {
        const answer = await post("/api/judgements", entry);
        forget(key);
        if (told) this.on.arrived();
        return answer;
      } catch (failure) {
        if (!(failure instanceof Failure)) throw failure;
        if (failure.code === "timing" && entry.timing.shown) {
          entry = { ...entry, timing: { active_ms: entry.timing.active_ms } }; // this device's clock is wrong
          keep(key, entry);
          continue;
        }
        if (!failure.passing) {
          if (failure.status !== 401) forget(key); // after a new log-in it is sent
          throw failure;
        }
        told = true;
        this.on.waiting(this.waiting().length, failure);
        await this.#rest(failure.wait ? failure.wait * 1000 : pause);
        pause = Math.min(2 * pause, LONGEST_PAUSE);
      }
    }
  }

  #rest(ms) {
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, ms);
      this.wake = () => {
        clearTimeout(timer);
        resolve();
      };
    });
  }

  /** Send what an earlier page, or a tab that is gone, has left. */
  async empty() {
    for (const key of this.waiting()) {
      const entry = kept(key);
      if (!entry) continue;
      try {
        await this.send(entry);
      } catch (failure) {
        if (failure.status === 401 || failure.code === "closed") throw failure;
        this.on.refused(entry, failure);
      }
    }
  }
}
