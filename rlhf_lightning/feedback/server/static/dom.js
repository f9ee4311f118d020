// Elements are built here and nowhere from markup: what people and models write is only ever text.

/** An element. `props`: `class`, `dataset`, `on` (listeners by event), properties, and attributes (aria-*, role, ...). */
export function h(tag, props = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(props ?? {})) {
    if (value === undefined || value === null || value === false) continue;
    if (name === "class") made.className = value;
    else if (name === "dataset") Object.assign(made.dataset, value);
    else if (name === "on") for (const [type, listener] of Object.entries(value)) made.addEventListener(type, listener);
    else if (name in made && !name.includes("-") && name !== "list" && name !== "role") made[name] = value;
    else made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.flat(9).filter((child) => child !== null && child !== undefined && child !== false));
  return made;
}

/** A button that submits nothing. `key` is shown beside its name, for those with a keyboard. */
export function button(name, action, { key, ...props } = {}) {
  const hint = key ? h("kbd", { "aria-hidden": "true" }, key) : null;
  return h("button", { type: "button", "aria-keyshortcuts": key === "↵" ? "Enter" : key, ...props, on: { click: action } }, hint, h("span", {}, name));
}

/** Tell people with a screen reader. Saying the same thing twice is heard twice. */
export function say(text) {
  const place = document.getElementById("said");
  place.textContent = place.textContent === text ? `${text}\u00a0` : text;
}

let last = 0;
/** An id that is unique in the page. */
export function unique(prefix) {
  last += 1;
  return `${prefix}-${last}`;
}

/** A group of radio buttons; `options`: [value, name]. `change` gets the value. */
export function radios(legend, options, value, change, { hideLegend = false, keys = false } = {}) {
  const name = unique("choice");
  return h(
    "fieldset",
    { class: "radios" },
    h("legend", { class: hideLegend ? "hidden" : "" }, legend),
    h(
      "div",
      { class: "options" },
      options.map(([option, text], i) =>
        h(
          "label",
          { class: "option" },
          h("input", {
            type: "radio",
            name,
            value: String(option),
            checked: option === value,
            on: { change: () => change(option) },
          }),
          keys ? h("kbd", { "aria-hidden": "true" }, String(i + 1)) : null,
          h("span", {}, text),
        ),
      ),
    ),
  );
}

/** Whether a key goes into a text that is being written. */
export function writing(target) {
  if (target.tagName === "TEXTAREA" || target.isContentEditable) return true;
  return target.tagName === "INPUT" && !["radio", "checkbox", "button"].includes(target.type);
}
