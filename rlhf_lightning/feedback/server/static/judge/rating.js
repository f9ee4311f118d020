// A number for each answer, by aspect.
import { h, radios, say, unique } from "../dom.js";
import { cards } from "../text.js";
import { number, t } from "../words.js";

const MOST_STEPS = 11; // a longer scale is a field to write a number into

export function rating({ item, options, draft, changed }) {
  const { low, high } = item;
  const aspects = item.aspects.length ? item.aspects : ["overall"];
  const shownAs = (aspect) => (aspect === "overall" ? t("overall") : aspect);
  const values = Object.fromEntries(aspects.map((aspect) => [aspect, item.candidates.map((_, i) => draft?.values?.[aspect]?.[i] ?? null)]));
  const steps = Number.isInteger(high - low) && high - low < MOST_STEPS ? Array.from({ length: high - low + 1 }, (_, n) => low + n) : null;
  const fields = [];
  const one = item.candidates.length === 1;
  const legend = (aspect, i) => (one ? shownAs(aspect) : t("rate_cell", { answer: t("answer_n", { n: i + 1 }), aspect: shownAs(aspect) }));

  function field(aspect, i) {
    const set = (value) => {
      values[aspect][i] = value;
      changed();
    };
    let element;
    if (steps) {
      element = radios(legend(aspect, i), steps.map((step) => [step, String(step)]), values[aspect][i], set);
      element.querySelector("legend").replaceChildren(shownAs(aspect), h("span", { class: "hidden" }, one ? "" : ` (${t("answer_n", { n: i + 1 })})`));
      element.classList.add("scale");
      const inputs = [...element.querySelectorAll("input")];
      fields.push({
        element,
        value: () => values[aspect][i],
        focus: () => (inputs.find((input) => input.checked) ?? inputs[0]).focus(),
        set: (value) => {
          inputs.forEach((input, n) => (input.checked = steps[n] === value));
          set(value);
          say(`${legend(aspect, i)}: ${value}`);
        },
      });
    } else {
      const id = unique("number");
      const input = h("input", {
        id, type: "number", min: low, max: high, step: "any", value: values[aspect][i] ?? "", inputMode: "decimal",
        on: { input: () => set(input.value !== "" && input.validity.valid ? input.valueAsNumber : null) },
      });
      element = h("p", { class: "scale" }, h("label", { for: id }, shownAs(aspect), h("span", { class: "hidden" }, one ? "" : ` (${t("answer_n", { n: i + 1 })})`)), " ", input);
      fields.push({ element, value: () => values[aspect][i], focus: () => input.focus(), set });
    }
    return element;
  }

  // Digits rate the field that has the focus, else the first that has no number yet.
  function rate(key) {
    const at = fields.findIndex((one) => one.element.contains(document.activeElement));
    const i = at >= 0 ? at : Math.max(0, fields.findIndex((one) => one.value() === null));
    const wanted = steps.includes(Number(key)) ? Number(key) : key === "0" && steps.at(-1) === 10 ? 10 : null;
    if (wanted === null) return;
    fields[i].set(wanted);
    fields[Math.min(i + 1, fields.length - 1)].focus();
  }

  const element = [
    h("p", { class: "quiet how" }, t("scale", { low: number(low, 2), high: number(high, 2) })),
    cards(item, options, (i) => h("div", { class: "ratings" }, aspects.map((aspect) => field(aspect, i)))),
  ];
  return {
    element,
    keys: steps ? [{ keys: [..."0123456789"], shown: [`${low} – ${high}`], name: t("key_rate"), run: rate }] : [],
    submits: true,
    missing: () => {
      if (element[1].querySelector("input:invalid")) return t("scale", { low, high });
      return fields.every((one) => one.value() === null) ? t("missing_values") : null;
    },
    payload: () => ({ values: structuredClone(values), low, high }),
    clear: () => {
      for (const aspect of aspects) values[aspect].fill(null);
      element[1].querySelectorAll("input").forEach((input) => (input.type === "radio" ? (input.checked = false) : (input.value = "")));
    },
  };
}
