// Elements made without markup: text is always text. Knows nothing of runs.

const SVG = "http://www.w3.org/2000/svg";

function fill(element, props, children) {
  for (const [name, value] of Object.entries(props ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "data") Object.assign(element.dataset, value);
    else if (name === "value") element.value = value;
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  append(element, children);
  return element;
}

function append(element, children) {
  for (const child of children) {
    if (child === null || child === undefined || child === false) continue;
    if (Array.isArray(child)) append(element, child);
    else element.append(child);
  }
}

export const h = (tag, props, ...children) => fill(document.createElement(tag), props, children);
export const svg = (tag, props, ...children) => fill(document.createElementNS(SVG, tag), props, children);
export const $ = (selector, inside = document) => inside.querySelector(selector);

/// Puts these in the place of what is there.
export function put(element, ...children) {
  element.replaceChildren();
  append(element, children);
  return element;
}

/// Tells those who hear the page. The last message within half a second is the one that is told.
let telling = 0;
export function announce(text) {
  clearTimeout(telling);
  telling = setTimeout(() => put($("#live"), text), 500);
}

/// A line at the top of the page: what went wrong, and what to do.
export function alarm(error) {
  const close = h("button", { type: "button", class: "quiet", "aria-label": "Dismiss", onclick: () => box.remove() }, "✕");
  const box = h("div", { class: "alarm" }, problem(error), close);
  put($("#alarms"), box);
}

export function problem(error) {
  return h("div", null, h("p", null, error.message), error.help ? h("p", { class: "muted pre" }, error.help) : null);
}

/// An empty place: what is missing, and how it comes to be.
export const empty = (title, ...more) => h("div", { class: "empty" }, h("p", { class: "empty-title" }, title), more);

export const code = (text) => h("code", null, text);

/// Name and value pairs. A row without a value is left out.
export function pairs(rows) {
  const there = rows.filter(([, value]) => value !== null && value !== undefined && value !== "");
  return h("dl", { class: "pairs" }, there.map(([name, value]) => h("div", null, h("dt", null, name), h("dd", null, value))));
}

/// Tabs over panels: arrow keys move between them. `tabs` = [id, label, panel, shown]; `shown` is called each time.
export function tabs(label, all) {
  const list = h("div", { role: "tablist", "aria-label": label, class: "tabs" });
  const buttons = all.map(([id, text, panel], at) => {
    panel.id = `panel-${id}`;
    panel.setAttribute("role", "tabpanel");
    panel.setAttribute("aria-labelledby", `tab-${id}`);
    return h("button", {
      type: "button", role: "tab", id: `tab-${id}`, "aria-controls": panel.id,
      onclick: () => show(at),
      onkeydown: (event) => {
        const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
        if (!step) return;
        event.preventDefault();
        show((at + step + all.length) % all.length, true);
      },
    }, text);
  });
  function show(at, focus) {
    buttons.forEach((button, i) => {
      button.setAttribute("aria-selected", String(i === at));
      button.tabIndex = i === at ? 0 : -1;
      all[i][2].hidden = i !== at;
    });
    if (focus) buttons[at].focus();
    all[at][3]?.();
  }
  list.append(...buttons);
  show(0);
  const at = (id) => all.findIndex((tab) => tab[0] === id);
  return { list, panels: all.map((tab) => tab[2]), show: (id) => show(at(id)), button: (id) => buttons[at(id)] };
}

/// Rows of one height, of which only those in view are elements.
export class Rows {
  constructor(label, height, draw) {
    this.height = height;
    this.draw = draw;
    this.rows = [];
    this.shown = new Map();
    this.space = h("div", { class: "rows-space", role: "list", "aria-label": label });
    this.box = h("div", { class: "rows", tabindex: 0, role: "region", "aria-label": label }, this.space);
    this.box.addEventListener("scroll", () => this.later(), { passive: true });
    new ResizeObserver(() => this.later()).observe(this.box);
  }

  set(rows) {
    this.rows = rows;
    this.clear();
  }

  /// Everything is drawn anew.
  clear() {
    for (const element of this.shown.values()) element.remove();
    this.shown.clear();
    this.space.style.height = `${this.rows.length * this.height}px`;
    this.later();
  }

  later() {
    this.frame ??= requestAnimationFrame(() => {
      this.frame = undefined;
      this.render();
    });
  }

  render() {
    const from = Math.max(0, Math.floor(this.box.scrollTop / this.height) - 8);
    const to = Math.min(this.rows.length, Math.ceil((this.box.scrollTop + this.box.clientHeight) / this.height) + 8);
    for (const [at, element] of this.shown) {
      if (at >= from && at < to) continue;
      element.remove();
      this.shown.delete(at);
    }
    for (let at = from; at < to; at++) {
      if (this.shown.has(at)) continue;
      const element = this.draw(this.rows[at], at);
      element.setAttribute("role", "listitem");
      element.style.top = `${at * this.height}px`;
      element.style.height = `${this.height}px`;
      this.shown.set(at, element);
      this.space.append(element);
    }
  }

  atEnd() {
    return this.box.scrollTop + this.box.clientHeight >= this.box.scrollHeight - 2 * this.height;
  }
}
