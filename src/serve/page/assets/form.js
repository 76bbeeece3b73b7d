// Fields made from what a playbook or an approval asks for, and their values as JSON.

import { h, put } from "./dom.js";

let ids = 0;

/// `input` as the API has it: { type, x-type, description, default, pattern, minimum, maximum, enum, x-secret, format }.
function field(name, input, required) {
  const id = `field-${++ids}`;
  const kind = input["x-type"] ?? input.type ?? "string";
  const options = input.enum ?? input.options;
  const given = input.default;
  const props = { id, name, required, "aria-describedby": `${id}-about` };
  let control, read;
  if (kind === "boolean") {
    control = h("input", { ...props, type: "checkbox", checked: given === true, required: false });
    read = () => control.checked;
  } else if (options?.length) {
    control = h("select", props, given === undefined ? h("option", { value: "" }, "choose one") : null,
      options.map((option) => h("option", { value: JSON.stringify(option), selected: JSON.stringify(option) === JSON.stringify(given) }, String(option))));
    read = () => (control.value === "" ? undefined : JSON.parse(control.value));
  } else if (kind === "integer" || kind === "number") {
    control = h("input", { ...props, type: "number", step: kind === "integer" ? 1 : "any", min: input.minimum ?? input.min, max: input.maximum ?? input.max, value: given ?? "" });
    read = () => (control.value === "" ? undefined : Number(control.value));
  } else if (["list", "map", "array", "object"].includes(kind)) {
    control = h("textarea", { ...props, rows: 3, spellcheck: "false", class: "mono", value: given === undefined ? "" : JSON.stringify(given, null, given?.length > 4 ? 2 : 0) });
    read = () => {
      if (control.value.trim() === "") return undefined;
      try {
        return JSON.parse(control.value);
      } catch {
        throw new Error(`${name} must be JSON, such as ${kind === "list" || kind === "array" ? '["a", "b"]' : '{"key": "value"}'}.`);
      }
    };
  } else if (typeof given === "string" && given.includes("\n")) {
    control = h("textarea", { ...props, rows: Math.min(10, given.split("\n").length + 1), value: given });
    read = () => control.value;
  } else {
    const secret = input["x-secret"] || kind === "secret";
    control = h("input", { ...props, type: secret ? "password" : "text", autocomplete: "off", spellcheck: "false", value: given ?? "", pattern: usable(input.pattern) });
    read = () => (control.value === "" && given === undefined && !required ? undefined : control.value);
  }
  const rules = [
    input.description, kind === "string" ? null : kind, input.format, input.pattern && `matches ${input.pattern.replace(/^\^\(\?:(.*)\)\$$/, "$1")}`,
    limits(input.minimum ?? input.min, input.maximum ?? input.max), input["x-secret"] && "secret: never stored",
  ].filter(Boolean);
  const label = h("label", { for: id }, name, required ? h("span", { class: "required" }, " required") : null);
  const about = h("p", { id: `${id}-about`, class: "hint" }, rules.join(" · "));
  const fault = h("p", { id: `${id}-wrong`, class: "field-wrong" });
  const box = kind === "boolean" ? h("div", { class: "field field-check" }, control, label, about, fault) : h("div", { class: "field" }, label, control, about, fault);
  const one = { name, control, read, box };
  /// Says at the field what is wrong with it, or that nothing is.
  one.judge = () => {
    const wrong = wrongWith(one);
    put(fault, wrong);
    if (wrong) control.setAttribute("aria-invalid", "true");
    else control.removeAttribute("aria-invalid");
    control.setAttribute("aria-describedby", wrong ? `${id}-wrong ${id}-about` : `${id}-about`);
    return !wrong;
  };
  // While somebody writes for the first time nothing is held against it.
  control.addEventListener("input", () => control.hasAttribute("aria-invalid") && one.judge());
  control.addEventListener("change", () => control.hasAttribute("aria-invalid") && one.judge());
  return one;
}

function wrongWith({ name, control, read }) {
  try {
    read();
  } catch (error) {
    return error.message;
  }
  const { validity } = control;
  if (validity.valueMissing) return `${name} must be given.`;
  if (validity.patternMismatch) return `${name} must match ${control.pattern.replace(/^\^\(\?:(.*)\)\$$/, "$1")}.`;
  if (validity.rangeUnderflow) return `${name} must be at least ${control.min}.`;
  if (validity.rangeOverflow) return `${name} must be at most ${control.max}.`;
  if (validity.stepMismatch || validity.badInput) return `${name} must be ${control.step === "1" ? "a whole number" : "a number"}.`;
  return validity.valid ? null : control.validationMessage;
}

/// A pattern that this browser can check too; the server checks all of them.
function usable(pattern) {
  try {
    if (pattern) new RegExp(pattern, "v");
    return pattern ?? null;
  } catch {
    return null;
  }
}

function limits(min, max) {
  if (min !== undefined && max !== undefined) return `${min} to ${max}`;
  if (min !== undefined) return `at least ${min}`;
  return max !== undefined ? `at most ${max}` : null;
}

export class Fields {
  constructor(inputs, isRequired) {
    this.fields = Object.entries(inputs ?? {}).map(([name, input]) => field(name, input, isRequired(name, input)));
    this.element = h("div", { class: "fields" }, this.fields.map((one) => one.box));
  }

  /// False: each field says what is wrong with it, and the first of those has the focus.
  check() {
    const wrong = this.fields.filter((one) => !one.judge());
    wrong[0]?.control.focus();
    return wrong.length === 0;
  }

  /// Those that are filled in.
  values() {
    const all = {};
    for (const one of this.fields) {
      const value = one.read();
      if (value !== undefined) all[one.name] = value;
    }
    return all;
  }
}

/// Password fields for inputs that are not stored.
export function secretFields(names) {
  const inputs = Object.fromEntries(names.map((name) => [name, { type: "string", "x-secret": true, description: "Not stored, so it must be given again" }]));
  return new Fields(inputs, () => false);
}
