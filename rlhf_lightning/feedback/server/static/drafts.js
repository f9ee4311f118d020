// What a person has written of a question: here at once, at the server a moment later. Kept by person, so that nobody
// who uses the same browser sees another's. The server may have got another draft meanwhile, from another browser: the
// newer one is shown, and the other one lies aside, to be had until the question is answered.
import { forget, keep, kept, keysOf } from "./keep.js";

const MOST_KNOWN = 200; // a server that doesn't answer is tried for hours

const draftKey = (person, item) => `draft.${person}.${item}`;
const asideKey = (person, item) => `aside.${person}.${item}`;

/** Keys of what a person has written that lies in this browser alone. */
export const unsent = (person) => ["draft", "aside", "outbox"].flatMap((kind) => keysOf(`${kind}.${person}.`));

/** The drafts of one question that a person was given. */
export class Drafts {
  /** `given`: {item, draft, version, written, now}, as the server sends it. */
  constructor(person, { item, draft, version, written, now }) {
    Object.assign(this, { key: draftKey(person, item.id), asideKey: asideKey(person, item.id) });
    this.ahead = Date.now() - Date.parse(now); // of the server's clock
    const mine = kept(this.key);
    this.known = [...(mine?.known ?? []), version].filter(Boolean); // ids of the drafts that what is written here follows
    this.shown = draft;
    this.own = false; // whether what is shown is not at the server
    if (!mine?.payload) return;
    const follows = version === null || (mine.known ?? []).includes(version);
    const newer = follows || mine.time > Date.parse(written);
    if (newer) Object.assign(this, { shown: mine.payload, own: true });
    if (!follows && !same(mine.payload, draft)) this.putAside(newer ? draft : mine.payload);
    if (!newer) forget(this.key);
  }

  /** Keep what is written. Returns whether the browser has room for it. */
  keep(payload) {
    return keep(this.key, { payload, time: Date.now() - this.ahead, known: this.known });
  }

  /** Note that what is kept is about to be sent under this id. Returns what to call when it has arrived: it tells
   * whether nothing was written meanwhile. */
  sending(id) {
    const [base, ...others] = [...this.known, id];
    this.known = [base, ...others.slice(-MOST_KNOWN)];
    const sent = kept(this.key);
    if (sent) keep(this.key, { ...sent, known: this.known });
    return () => {
      const arrived = !sent || kept(this.key)?.time === sent.time;
      if (arrived) forget(this.key);
      return arrived;
    };
  }

  // --- the other drafts

  get aside() {
    return kept(this.asideKey) ?? [];
  }

  putAside(payload) {
    keep(this.asideKey, [...this.aside.filter((one) => !same(one, payload)), payload]);
  }

  /** The draft that lay aside for longest; this one takes its place. */
  swap(payload) {
    const [next, ...others] = this.aside;
    keep(this.asideKey, [...others, payload]);
    return next;
  }

  /** The question is answered. */
  done() {
    forget(this.key);
    forget(this.asideKey);
  }

  /** The question is lost, and what was written is on the screen. */
  lost() {
    forget(this.key);
  }
}

/** Whether two drafts say the same: what is null in an object says nothing. */
function same(a, b) {
  const plain = (value) => {
    if (Array.isArray(value)) return value.map(plain);
    if (value === null || typeof value !== "object") return value;
    const said = Object.entries(value).filter(([, part]) => part !== null);
    return Object.fromEntries(said.sort(([x], [y]) => (x < y ? -1 : 1)).map(([name, part]) => [name, plain(part)]));
  };
  return JSON.stringify(plain(a)) === JSON.stringify(plain(b));
}
