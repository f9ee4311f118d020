// What must outlive a reload, a crash or a server that doesn't answer: kept in the browser, an entry a key, so that
// two tabs never write over each other. Where the browser keeps nothing, it lives as long as the page.

const memory = new Map();
let refused = false;

/** Whether the browser wouldn't keep something. */
export const forgetful = () => refused;

export function keep(key, value) {
  const text = JSON.stringify(value);
  try {
    localStorage.setItem(`rlhf-feedback.${key}`, text);
    memory.delete(key); // what another tab forgets is gone here, too
    return true;
  } catch {
    memory.set(key, text);
    refused = true;
    return false;
  }
}

export function kept(key) {
  let text = memory.get(key) ?? null; // newer than what the browser has, where it refused this
  try {
    text ??= localStorage.getItem(`rlhf-feedback.${key}`);
  } catch {
    refused = true;
  }
  try {
    return text === null ? null : JSON.parse(text);
  } catch {
    return null;
  }
}

export function forget(key) {
  memory.delete(key);
  try {
    localStorage.removeItem(`rlhf-feedback.${key}`);
  } catch {
    refused = true;
  }
}

/** Call `changed` with the new value, or null, when another tab keeps something else under a key. */
export function whenKept(key, changed) {
  addEventListener("storage", (event) => event.key === `rlhf-feedback.${key}` && changed(event.newValue === null ? null : kept(key)));
}

/** The keys that begin so. */
export function keysOf(prefix) {
  const found = new Set([...memory.keys()].filter((key) => key.startsWith(prefix)));
  try {
    for (let i = 0; i < localStorage.length; i += 1) {
      const key = localStorage.key(i).replace(/^rlhf-feedback\./, "");
      if (key.startsWith(prefix)) found.add(key);
    }
  } catch {
    refused = true;
  }
  return [...found];
}

/**
 * This tab's name: the same after a reload, another one in a copy of the tab (browsers copy what a tab keeps).
 * A lock is held as long as the tab lives; where there are no locks (a plain http address that isn't this machine),
 * a copied tab shares its name, and its question, with the first.
 */
export async function tabName(newName) {
  let name = null;
  try {
    name = sessionStorage.getItem("rlhf-feedback.tab");
  } catch {
    refused = true;
  }
  if (!name || !(await locked(name))) {
    name = newName();
    await locked(name);
  }
  try {
    sessionStorage.setItem("rlhf-feedback.tab", name);
  } catch {
    refused = true;
  }
  return name;
}

function locked(name) {
  if (!navigator.locks) return Promise.resolve(true);
  return new Promise((resolve) => {
    // A page that is being reloaded gives its lock back a moment after the new one has started.
    const patience = new AbortController();
    setTimeout(() => patience.abort(), 700);
    navigator.locks
      .request(`rlhf-feedback.${name}`, { signal: patience.signal }, () => {
        resolve(true);
        return new Promise(() => {}); // held until the tab is closed
      })
      .catch(() => resolve(false));
  });
}
