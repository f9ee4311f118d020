// Single keys that do things: off while a text is written, while a dialog is open, and for those who switch them off.
import { dialog, dialogOpen } from "./dialog.js";
import { h, writing } from "./dom.js";
import { keep, kept } from "./keep.js";
import { t } from "./words.js";

const OFF = "keys-off";
let own = []; // of the question: [{keys, name, run}]
let common = []; // of the page

export function setKeys(question) {
  own = question;
}

export function setCommonKeys(keys) {
  common = keys;
}

// The letter or digit of a key, also on a keyboard of another script.
function named(event) {
  if (event.key.length > 1 || /^[\x21-\x7e]$/.test(event.key)) return event.key.length > 1 ? event.key : event.key.toLowerCase();
  return event.code.startsWith("Key") ? event.code.slice(3).toLowerCase() : event.key;
}

/** Listen. `submit` is called for Enter where nothing else wants it, and for Ctrl+Enter while writing. */
export function listen(submit, typed) {
  document.addEventListener("keydown", (event) => {
    if (event.defaultPrevented || event.isComposing || dialogOpen()) return;
    const target = event.target;
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
      event.preventDefault();
      submit();
      return;
    }
    if (writing(target)) {
      if (event.key === "Escape") document.getElementById("question")?.focus();
      return;
    }
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "Enter") {
      if (target.closest("button, a, summary, select")) return;
      event.preventDefault();
      submit();
      return;
    }
    const key = named(event);
    const found = [...own, ...common].find((one) => one.keys?.includes(key));
    if (!found || (kept(OFF) && key.length === 1 && key !== "?") || target.tagName === "SELECT" || (event.repeat && !found.repeats)) return;
    event.preventDefault();
    typed();
    found.run(key);
  });
}

/** The list of keys. */
export function showHelp() {
  const row = ({ keys, shown, name }) =>
    h("tr", {}, h("td", {}, (shown ?? keys).map((key) => h("kbd", {}, key))), h("td", {}, name));
  const box = h("input", { type: "checkbox", checked: !kept(OFF), on: { change: () => keep(OFF, !box.checked) } });
  dialog(t("keys_title"), [
    h("table", { class: "keys" }, h("tbody", {}, [...own, ...common].filter((one) => one.name).map(row))),
    h("label", { class: "option" }, box, h("span", {}, t("single_keys"))),
  ]);
}
