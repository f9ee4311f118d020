// The page: who is there, what they may see, and which of it is on the screen.
import { Failure, ask, get, newId, post, sendAs } from "./api.js";
import { Dashboard } from "./dashboard.js";
import { dialog } from "./dialog.js";
import { button, h, say, unique } from "./dom.js";
import { unsent } from "./drafts.js";
import { Flow } from "./flow.js";
import { forget, keep, kept, tabName, whenKept } from "./keep.js";
import { listen, setCommonKeys, setKeys, showHelp } from "./keys.js";
import { markdown } from "./markdown.js";
import { chooseLanguage, language, languages, number, setLanguage, t } from "./words.js";

const page = document.getElementById("page");
let me = null;
let tab = null;
let view = null; // what is on the screen: {start(), stop()}
let frame = null;

const WHO = "who"; // is in, in this browser: a session is all tabs'

chooseLanguage();
begin();

async function begin() {
  page.replaceChildren(h("main", { class: "end" }, h("p", {}, t("loading"))));
  const token = takeToken();
  tab ??= await tabName(newId);
  try {
    me = await enter(token);
  } catch (failure) {
    if (!(failure instanceof Failure)) throw failure;
    if (failure.passing) return retry(token);
    return signIn(token ? t("sign_in_bad") : "");
  }
  sendAs(me);
  keep(WHO, me.annotator.id);
  return me.consent.version && me.consent.text && !me.consent.given ? consent() : open();
}

// The token stands behind the #: the address bar, history and bookmarks shall not keep it.
function takeToken() {
  const token = new URLSearchParams(location.hash.slice(1)).get("token");
  if (token) history.replaceState(null, "", "/");
  return token;
}

async function enter(token) {
  if (!token) return get("/api/me");
  try {
    return await post("/api/session", { token, consent: null });
  } catch (failure) {
    if (failure.status !== 401) throw failure;
    return get("/api/me"); // a link that this browser has used
  }
}

function retry(token) {
  page.replaceChildren(h("main", { class: "end" }, h("p", { role: "status" }, t("offline")), button(t("offline_retry"), again, { class: "primary" })));
  const timer = setTimeout(again, 3000);
  function again() {
    clearTimeout(timer);
    if (token) history.replaceState(null, "", `/#token=${encodeURIComponent(token)}`);
    begin();
  }
}

// --- before the questions

function signIn(message) {
  close();
  const id = unique("token");
  const field = h("input", { id, type: "text", autocomplete: "off", spellcheck: false, dir: "ltr" });
  const go = (event) => {
    event.preventDefault();
    const token = field.value.trim().replace(/^.*#token=/, "");
    if (!token) return;
    history.replaceState(null, "", `/#token=${encodeURIComponent(token)}`);
    begin();
  };
  page.replaceChildren(
    h(
      "main",
      { class: "end" },
      h("h1", { id: "question", tabIndex: -1 }, t("sign_in")),
      message ? h("p", { class: "notice bad", role: "alert" }, message) : null,
      h("p", {}, t("sign_in_why")),
      h("form", { on: { submit: go } }, h("label", { for: id }, t("sign_in_field")), field, h("button", { type: "submit", class: "primary" }, t("sign_in_go"))),
      h("p", {}, languageChoice()),
    ),
  );
  field.focus();
}

function consent() {
  const agree = async () => {
    try {
      await post("/api/consent", { version: me.consent.version });
      me.consent.given = true;
      open();
    } catch (failure) {
      if (failure.status === 409) return begin(); // the text is another one by now
      say(failure.message);
      note.textContent = failure.passing ? t("offline") : t("refused", { message: failure.message });
    }
  };
  const refuse = () => page.replaceChildren(h("main", { class: "end" }, h("h1", { tabIndex: -1 }, t("consent_refused"))));
  const note = h("p", { class: "notice", role: "status" });
  page.replaceChildren(
    h(
      "main",
      { class: "end" },
      h("h1", { id: "question", tabIndex: -1 }, t("consent")),
      h("div", { class: "text panel", dir: "auto" }, markdown(me.consent.text)),
      note,
      h("div", { class: "buttons" }, button(t("consent_no"), refuse), button(t("consent_yes"), agree, { class: "primary" })),
      h("p", {}, languageChoice()),
    ),
  );
  document.getElementById("question").focus();
}

// --- the frame around what is done

function open() {
  const views = { annotator: ["judge"], adjudicator: ["judge", "adjudicate", "dashboard"], owner: ["judge", "adjudicate", "dashboard"] }[me.annotator.role];
  const bar = h("progress", { max: 1, value: 0, "aria-label": t("progress") });
  const far = h("span", { class: "far" });
  const banners = h("div", { id: "banner" });
  const main = h("main", { id: "main" });
  const guide = h("aside", { class: "guide", id: "guide", "aria-label": t("guidelines"), hidden: kept("guide") !== true || !me.project.guidelines });
  guide.append(h("header", {}, h("h2", {}, t("guidelines")), button(t("close"), () => toggleGuide(false), { class: "quiet-button", "aria-label": t("guidelines_hide") })), h("div", { class: "text", dir: "auto" }, me.project.guidelines ? markdown(me.project.guidelines) : t("no_guidelines")));
  const guideButton = button(t("guidelines"), () => toggleGuide(), { key: "g", class: "quiet-button", "aria-expanded": String(!guide.hidden), "aria-controls": "guide" });
  const tabs = views.length > 1 ? h("nav", { "aria-label": t("title") }, views.map((name) => button(t(name), () => go(name), { class: "tab", dataset: { view: name } }))) : null;
  page.replaceChildren(
    h(
      "header",
      { class: "top" },
      h("p", { class: "project" }, me.project.name === "default" ? t("title") : me.project.name),
      tabs,
      h("div", { class: "progress" }, bar, far),
      h("div", { class: "tools" }, guideButton, button(t("help"), showHelp, { key: "?", class: "quiet-button" }), languageChoice(), button(t("log_out"), logOut, { class: "quiet-button" })),
    ),
    banners,
    h("div", { class: "middle" }, main, guide),
  );
  frame = { bar, far, banners, main, guide, guideButton, tabs };
  setCommonKeys([
    { shown: ["Enter"], name: t("key_submit") },
    { shown: ["Ctrl Enter"], name: t("key_ctrl_enter") },
    { keys: ["s"], name: t("key_skip"), run: () => view.skip?.() },
    { keys: ["u"], name: t("key_undo"), run: () => view.undo?.() },
    { keys: ["r"], name: t("key_rationale"), run: () => view.view?.rationale() },
    { keys: ["d"], name: t("key_more"), run: () => view.view?.more() },
    { keys: ["p"], name: t("key_plain"), run: () => plain() },
    { keys: ["g"], name: t("key_guidelines"), run: () => toggleGuide() },
    { keys: ["?"], name: t("key_help"), run: showHelp },
    { shown: ["Esc"], name: t("key_leave") },
  ]);
  progress(me.progress);
  const asked = location.hash.slice(1);
  go(views.includes(asked) ? asked : first());
}

function first() {
  const { left, disputes } = me.progress;
  if (disputes && !left) return "adjudicate";
  // An owner comes to look; being at a question would keep others from it.
  return me.annotator.role === "owner" ? "dashboard" : "judge";
}

function plain() {
  view.view?.plain();
  view.refreshKeys?.();
}

function go(name) {
  view?.stop();
  banner(null);
  history.replaceState(null, "", frame.tabs ? `#${name}` : "/");
  frame.tabs?.querySelectorAll("button").forEach((one) => one.setAttribute("aria-current", one.dataset.view === name ? "page" : "false"));
  frame.main.replaceChildren(h("h1", { id: "question", tabIndex: -1 }, t("loading")));
  const on = { progress, banner, calm: () => banner(null), ended, consent: anew, adjudicate: () => go("adjudicate") };
  view = name === "dashboard" ? new Dashboard({ me, place: frame.main, on }) : new Flow({ me, tab, queue: name, place: frame.main, on });
  if (name === "dashboard") frame.bar.parentElement.hidden = true;
  view.start();
}

function close() {
  view?.stop();
  view = null;
  setKeys([]);
  setCommonKeys([]);
}

function progress({ done, skipped, total, disputes }) {
  frame.bar.parentElement.hidden = view instanceof Dashboard || !total;
  const settle = frame.tabs?.querySelector("[data-view=adjudicate] span");
  if (settle) settle.textContent = disputes ? t("tab_waiting", { name: t("adjudicate"), n: number(disputes) }) : t("adjudicate");
  frame.bar.max = Math.max(total, 1);
  frame.bar.value = done + skipped;
  frame.far.textContent = t("progress_text", { done: done + skipped, total });
}

let fading = null;
// Calm news above the question; null takes them away.
function banner(text, { kind = "", more = "", action = null, for: time = 0 } = {}) {
  clearTimeout(fading);
  if (!text) return frame.banners.replaceChildren();
  const shown = frame.banners.textContent;
  const made = h("div", { class: `notice ${kind}` }, h("p", {}, text, more ? ` ${more}` : ""), action ? button(...action) : button(t("close"), () => banner(null), { class: "quiet-button" }));
  const focused = frame.banners.contains(document.activeElement);
  frame.banners.replaceChildren(made);
  if (focused) made.querySelector("button").focus();
  if (shown !== frame.banners.textContent) say(text);
  if (time) fading = setTimeout(() => banner(null), time);
  return made;
}

function toggleGuide(open = frame.guide.hidden) {
  frame.guide.hidden = !open;
  frame.guideButton.setAttribute("aria-expanded", String(open));
  keep("guide", open);
  if (open) {
    frame.guide.tabIndex = -1;
    frame.guide.focus({ preventScroll: innerWidth > 900 });
  } else document.getElementById("question")?.focus({ preventScroll: true });
}

function languageChoice() {
  const choose = h(
    "select",
    { "aria-label": t("interface_language"), on: { change: () => change(choose.value) } },
    Object.entries(languages).map(([tag, words]) => h("option", { value: tag, lang: tag, selected: tag === language() }, words.language_name)),
  );
  return choose;
}

async function change(tag) {
  setLanguage(tag);
  await view?.saveDraft?.();
  anew();
}

function anew() {
  close();
  begin();
}

// Where somebody else has logged in, in another tab, the page becomes theirs.
function ended(failure) {
  return failure.code === "other_person" ? anew() : signIn(t("session_over"));
}

whenKept(WHO, (id) => view && id !== me.annotator.id && anew());

// A link that is opened where the page is open already changes only what stands behind the #.
addEventListener("hashchange", () => new URLSearchParams(location.hash.slice(1)).has("token") && anew());

// Who comes to this browser next finds nothing of what was written; what is here alone goes only if that is said.
async function logOut() {
  await view?.saveDraft?.();
  if (!view) return; // the session was over
  const left = unsent(me.annotator.id);
  if (!left.length) return leave();
  dialog(t("log_out"), h("p", {}, t("log_out_unsent")), [
    [t("cancel"), null],
    [t("log_out_delete"), () => leave(left)],
    [t("log_out_keep"), () => leave(), { class: "primary" }],
  ]);
}

async function leave(left = []) {
  close();
  left.forEach(forget);
  try {
    await ask("DELETE", "/api/session", {});
  } catch (failure) {
    if (failure.status !== 401) return stillIn();
  }
  forget(WHO);
  page.replaceChildren(h("main", { class: "end" }, h("h1", { tabIndex: -1 }, t("logged_out"))));
  page.querySelector("h1").focus();
}

function stillIn() {
  page.replaceChildren(h("main", { class: "end" }, h("h1", { tabIndex: -1 }, t("log_out_failed")), button(t("offline_retry"), () => leave(), { class: "primary" })));
  page.querySelector("h1").focus();
}

listen(
  () => view?.submit?.(),
  () => view?.touch?.(),
);
document.addEventListener("pointerdown", (event) => event.target.closest?.(".judging, .bar, .details") && view?.touch?.());
