// Fields made from what a playbook or an approval asks for, and their values as JSON.

import { h } from "./dom.js";

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
        control.setCustomValidity(`${name} must be JSON: ${kind === "list" || kind === "array" ? '["a", "b"]' : '{"key": "value"}'}`);
        throw new Error(`${name} is not JSON`);
      }
    };
    control.addEventListener("input", () => control.setCustomValidity(""));
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
  const box = kind === "boolean" ? h("div", { class: "field field-check" }, control, label, about) : h("div", { class: "field" }, label, control, about);
  return { name, control, read, box };
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

  /// False: the browser has shown what is wrong.
  check() {
    try {
      for (const one of this.fields) one.read();
    } catch {
      // It is said by the field itself.
    }
    for (const one of this.fields) if (!one.control.reportValidity()) return false;
    return true;
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
