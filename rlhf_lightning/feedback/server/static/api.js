// Talking to the server: one request after the other, so that a draft never overtakes what was submitted.

let csrf = "";
let person = null; // whose page this is
let last = Promise.resolve();

/** An answer that isn't what was asked for. `status` 0: the server didn't answer. */
export class Failure extends Error {
  constructor(status, code, message, wait = 0) {
    super(message);
    Object.assign(this, { status, code, wait });
  }

  /** Whether sending it again later may help. */
  get passing() {
    return this.status === 0 || this.status === 429 || this.status >= 500;
  }
}

async function send(method, path, body, keepalive) {
  let answer;
  let told;
  try {
    answer = await fetch(path, {
      method,
      keepalive,
      credentials: "same-origin",
      cache: "no-store",
      headers: { ...(body === undefined ? {} : { "Content-Type": "application/json" }), ...(csrf ? { "X-CSRF-Token": csrf } : {}) },
      body: body === undefined ? undefined : JSON.stringify(body),
      signal: "timeout" in AbortSignal ? AbortSignal.timeout(30_000) : undefined,
    });
    told = await answer.json();
  } catch (error) {
    if (answer && error instanceof SyntaxError) throw new Failure(answer.status >= 400 ? answer.status : 502, "form", String(answer.status));
    throw new Failure(0, "offline", String(error));
  }
  if (!answer.ok) {
    const wait = Number.parseFloat(answer.headers.get("Retry-After")) || 0;
    throw new Failure(answer.status, told.error ?? "", told.message ?? String(answer.status), wait);
  }
  return told;
}

/** Whose page this is from now on: what `/api/session` or `/api/me` has answered. */
export function sendAs(me) {
  csrf = me.csrf;
  person = me.annotator.id;
}

/** The server's answer. Throws `Failure`; nothing is sent in the name of another person who has logged in since. */
export function ask(method, path, body, { keepalive = false } = {}) {
  const answer = last.then(async () => {
    try {
      return await send(method, path, body, keepalive);
    } catch (error) {
      if (error.code !== "csrf") throw error;
      const me = await send("GET", "/api/me"); // another tab has logged in anew
      if (me.annotator.id !== person) throw new Failure(401, "other_person", "");
      sendAs(me);
      return send(method, path, body, keepalive);
    }
  });
  last = answer.catch(() => {});
  return answer;
}

export const get = (path) => ask("GET", path);
export const post = (path, body, options) => ask("POST", path, body, options);

/** A new id for a judgement: sent again under the same one, it is stored once. */
export function newId() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}
