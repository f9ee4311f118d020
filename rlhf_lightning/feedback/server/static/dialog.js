// Dialogs: for a moment, one thing matters. Escape leaves them, and the focus goes back to where it was.
import { button, h, unique } from "./dom.js";
import { t } from "./words.js";

/** Whether one is open: keys are then for it alone. */
export const dialogOpen = () => document.querySelector("dialog[open]") !== null;

/** Show a dialog. `buttons`: [name, action or null, props]; an action that returns false leaves it open. */
export function dialog(title, content, buttons = [[t("close"), null]], enter = null) {
  const id = unique("title");
  const before = document.activeElement;
  const made = h("dialog", { "aria-labelledby": id }, h("h2", { id }, title), h("div", { class: "content" }, content));
  const close = () => made.close();
  const run = (action) => () => {
    if (action?.() !== false) close();
  };
  made.append(h("div", { class: "buttons" }, buttons.map(([name, action, props]) => button(name, run(action), props))));
  made.addEventListener("close", () => {
    made.remove();
    if (document.activeElement === document.body || !document.activeElement) {
      (before?.isConnected && before !== document.body ? before : document.getElementById("question"))?.focus();
    }
  });
  if (enter) {
    made.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && !event.isComposing && event.target.tagName !== "BUTTON") {
        event.preventDefault();
        run(enter)();
      }
    });
  }
  document.body.append(made);
  made.showModal();
  return made;
}
