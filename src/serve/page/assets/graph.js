// The drawing of a run's steps: only what is in view are elements. Knows states as words; what they mean it does not.

import { announce, h, put, svg } from "./dom.js";
import { SIZES, Stretches, Tree, layout } from "./layout.js";
import { grouped, ownName, sign, tone } from "./words.js";

/// Above so many steps in sight they begin folded, and as signs without names.
const MANY = 60, VERY_MANY = 400;
const OVERSCAN = 300;
/// Milliseconds of one frame that go into new elements.
const SLICE = 8;
/// More edges than that in view tell nothing: then only those of the selected step are drawn.
const MOST_EDGES = 600;

export class Graph {
  /// `status(id)` gives a step's state, `word(status)` how it is told; `onSelect(id)` is told what is looked at.
  constructor({ status, word, onSelect }) {
    this.status = status;
    this.word = word;
    this.onSelect = onSelect;
    this.shown = new Map();
    this.todo = [];
    this.folded = new Set();
    this.selected = null;
    this.edges = svg("svg", { class: "graph-edges", "aria-hidden": "true" });
    this.space = h("div", { class: "graph-space", role: "presentation" }, this.edges);
    this.box = h("div", {
      class: "graph", role: "listbox", tabindex: 0, "aria-label": "Steps",
      onscroll: () => this.later(), onkeydown: (event) => this.key(event), onclick: (event) => this.click(event),
    }, this.space);
    this.density = h("button", { type: "button", class: "quiet", "aria-pressed": "false", onclick: () => this.setCompact(!this.compact) }, "Compact");
    new ResizeObserver(() => this.resized()).observe(this.box);
  }

  set(nodes) {
    const selected = this.selected === null ? null : this.tree.nodes[this.selected].id;
    const open = this.tree && new Map(this.tree.nodes.map((node, at) => [node.id, !this.folded.has(at)]));
    this.tree = new Tree(nodes);
    this.index = new Map(nodes.map((node, at) => [node.id, at]));
    this.folded = new Set();
    const tops = this.tree.roots.length + this.tree.finals.length;
    nodes.forEach((node, at) => {
      if (!this.tree.isGroup(at)) return;
      // What somebody opened or folded stays so.
      const many = this.tree.children[at].length > 12 || (nodes.length > MANY && tops > 1);
      if (open?.has(node.id) ? !open.get(node.id) : many) this.folded.add(at);
    });
    if (!open) this.compact = this.visible() > VERY_MANY;
    this.selected = selected === null ? null : (this.index.get(selected) ?? null);
    this.counts = undefined;
    this.draw();
  }

  visible() {
    const count = (all) => all.reduce((n, at) => n + 1 + (this.folded.has(at) ? 0 : count(this.tree.children[at])), 0);
    return count(this.tree.roots) + count(this.tree.finals);
  }

  setCompact(compact) {
    this.compact = compact;
    this.draw();
  }

  resized() {
    if (this.tree && this.box.clientWidth !== this.width) this.draw();
    else this.later();
  }

  /// Everything is placed anew.
  draw() {
    this.width = this.box.clientWidth;
    if (!this.tree || !this.width) return;
    this.density.setAttribute("aria-pressed", String(this.compact));
    this.box.classList.toggle("compact", this.compact);
    this.sizes = this.compact ? SIZES.compact : SIZES.full;
    const pad = 16;
    const placed = layout(this.tree, this.folded, this.width - 2 * pad, this.sizes);
    this.placed = placed;
    this.left = Math.max(pad, (this.width - placed.w) / 2);
    this.top = pad;
    this.box.style.setProperty("--content", `${placed.h + 2 * pad + 2}px`);
    this.space.style.height = `${placed.h + 2 * pad}px`;
    this.space.style.width = `${Math.max(this.width, placed.w + 2 * pad) - 1}px`;
    this.boxes = new Stretches(placed.h);
    for (const box of placed.boxes) if (box) this.boxes.add(box.node, box.y, box.y + box.h);
    this.ways = new Stretches(placed.h);
    for (let i = 0; i < placed.edges.length; i += 2) {
      const [from, to] = [placed.boxes[placed.edges[i]], placed.boxes[placed.edges[i + 1]]];
      if (from && to) this.ways.add(i, Math.min(from.y + from.h, to.y), Math.max(from.y + from.h, to.y));
    }
    for (const element of this.shown.values()) element.remove();
    this.shown.clear();
    this.marks?.forEach((mark) => mark.remove());
    this.marks = placed.lines.map((line) => this.line(line));
    if (placed.finallyAt !== null) this.marks.push(this.finallyLine(placed));
    this.space.append(...this.marks);
    this.drawn = null;
    this.render();
  }

  line({ x, y, w, points }) {
    const names = points.map((at) => ownName(this.tree.nodes[at].id)).join(", ");
    const title = `Once ${names} succeeded, nothing above is undone`;
    return this.at(h("div", { class: "no-return", role: "presentation", title }, h("span", null, "point of no return")), { x, y: y - 10, w, h: 20 });
  }

  finallyLine({ finallyAt, w }) {
    return this.at(h("div", { class: "finally", role: "presentation" }, h("span", null, "finally, however it ends")), { x: 0, y: finallyAt, w, h: 20 });
  }

  at(element, { x, y, w, h }) {
    Object.assign(element.style, { left: `${this.left + x}px`, top: `${this.top + y}px`, width: `${w}px`, height: `${h}px` });
    return element;
  }

  later() {
    this.frame ??= requestAnimationFrame(() => {
      this.frame = undefined;
      this.render();
    });
  }

  render() {
    if (!this.placed) return;
    const top = this.box.scrollTop - this.top, bottom = top + this.box.clientHeight;
    // What was drawn reaches beyond what is in view, so that little scrolling draws nothing.
    const near = 100;
    const there = this.drawn && Math.max(0, top - near) >= this.drawn.top && Math.min(this.placed.h, bottom + near) <= this.drawn.bottom;
    if (!there) this.plan(top, bottom);
    // Never long at once: what is left is drawn in the next frames.
    const until = performance.now() + SLICE;
    const fresh = document.createDocumentFragment();
    while (this.todo.length && performance.now() < until) {
      const node = this.todo.pop();
      const element = this.element(node);
      this.shown.set(node, element);
      fresh.append(element);
    }
    this.space.append(fresh);
    if (this.todo.length) this.later();
    else if (!this.edged) this.drawEdges();
  }

  /// What is to be drawn around this stretch: what is in view comes first, so it stands last.
  plan(top, bottom) {
    this.drawn = { top: top - OVERSCAN, bottom: bottom + OVERSCAN };
    this.edged = false;
    const wanted = this.boxes.between(this.drawn.top, this.drawn.bottom);
    if (this.selected !== null && this.placed.boxes[this.selected]) wanted.add(this.selected);
    for (const [node, element] of this.shown) {
      if (wanted.has(node)) continue;
      element.remove();
      this.shown.delete(node);
    }
    const seen = ({ y, h }) => y + h >= top && y <= bottom;
    const [near, far] = [[], []];
    for (const node of wanted) if (!this.shown.has(node)) (seen(this.placed.boxes[node]) ? near : far).push(node);
    this.todo = [...far.reverse(), ...near.reverse()];
    const own = this.todo.indexOf(this.selected);
    if (own >= 0) this.todo.push(...this.todo.splice(own, 1));
  }

  element(at) {
    const box = this.placed.boxes[at];
    const node = this.tree.nodes[at];
    const group = this.tree.isGroup(at);
    const element = h("div", {
      class: `node ${box.group ? "node-open" : ""} ${group ? "node-group" : ""} ${node.irreversible ? "node-point" : ""}`,
      role: "option", id: `step-${at}`, "aria-selected": String(at === this.selected), data: { node: at },
    });
    this.fill(element, at);
    return this.at(element, box);
  }

  fill(element, at) {
    const node = this.tree.nodes[at];
    const status = this.status(node.id);
    const shape = `${this.word(status)}:${this.compact}`;
    const group = this.tree.isGroup(at);
    if (!group && element.dataset.shape === shape) return;
    element.dataset.shape = shape;
    element.dataset.tone = tone(status);
    const name = ownName(node.id);
    element.title = `${node.id}: ${this.word(status)}`;
    if (this.compact && !this.placed.boxes[at].group) {
      element.setAttribute("aria-label", `${name}, ${this.word(status)}`);
      element.textContent = sign(status);
      return;
    }
    const mark = h("span", { class: "sign", "aria-hidden": "true" }, sign(status));
    const fold = group ? h("span", { class: "fold", "aria-hidden": "true", data: { fold: at } }, this.folded.has(at) ? "▸" : "▾") : null;
    const state = h("span", { class: "node-state" }, this.word(status));
    // The head of an open box is narrow, and what is inside says it too.
    const about = group ? [this.placed.boxes[at].group && status === "succeeded" ? null : [state, " · "], this.tally(at)] : [state, ` · ${node.type}`];
    put(element, mark, h("span", { class: "node-text" }, h("span", { class: "node-name" }, name), h("span", { class: "node-about" }, about)), fold);
  }

  /// `12/40` of what is inside is over.
  tally(at) {
    let all = 0, over = 0, bad = 0;
    for (const child of this.tree.inside(at)) {
      if (this.tree.isGroup(child)) continue;
      const status = this.status(this.tree.nodes[child].id);
      all += 1;
      if (tone(status) === "good" || status === "skipped" || status === "kept") over += 1;
      if (tone(status) === "bad") bad += 1;
    }
    return `${grouped(over)}/${grouped(all)}${bad ? `, ${grouped(bad)} failed` : ""}`;
  }

  drawEdges() {
    this.edged = true;
    const { boxes, edges } = this.placed;
    let inView = [...this.ways.between(this.drawn.top, this.drawn.bottom)];
    const own = (i) => edges[i] === this.selected || edges[i + 1] === this.selected;
    if (inView.length > MOST_EDGES) inView = inView.filter(own);
    const path = (list) => list.map((i) => {
      const [from, to] = [boxes[edges[i]], boxes[edges[i + 1]]];
      const [x1, y1, x2, y2] = [from.x + from.w / 2, from.y + from.h, to.x + to.w / 2, to.y];
      const bend = Math.min(Math.max(12, (y2 - y1) / 2), 60);
      return `M${x1} ${y1}C${x1} ${y1 + bend} ${x2} ${y2 - bend} ${x2} ${y2}`;
    }).join("");
    const top = Math.max(0, this.drawn.top), height = Math.min(this.placed.h, this.drawn.bottom) - top;
    this.edges.style.top = `${this.top + top}px`;
    this.edges.style.left = `${this.left}px`;
    this.edges.setAttribute("width", Math.max(1, this.placed.w));
    this.edges.setAttribute("height", Math.max(1, height));
    this.edges.setAttribute("viewBox", `0 ${top} ${Math.max(1, this.placed.w)} ${Math.max(1, height)}`);
    put(this.edges, svg("path", { d: path(inView.filter((i) => !own(i))) }), svg("path", { d: path(inView.filter(own)), class: "own" }));
  }

  /// States have changed.
  refresh() {
    for (const [at, element] of this.shown) this.fill(element, at);
  }

  select(at, { tell = true, scroll = true } = {}) {
    const node = this.tree.nodes[at];
    for (let up = node.parent, opened = false; ; up = this.tree.nodes[up].parent) {
      if (up === null) {
        if (opened) this.draw();
        break;
      }
      if (this.folded.delete(up)) opened = true;
    }
    const before = this.selected;
    this.selected = at;
    if (before !== null) this.shown.get(before)?.setAttribute("aria-selected", "false");
    if (scroll) this.reveal(at);
    this.drawn = null;
    this.render();
    this.shown.get(at)?.setAttribute("aria-selected", "true");
    this.box.setAttribute("aria-activedescendant", `step-${at}`);
    if (tell) announce(`${ownName(node.id)}, ${this.word(this.status(node.id))}`);
    this.onSelect(node.id);
  }

  selectId(id, how) {
    const at = this.index?.get(id);
    if (at !== undefined) this.select(at, how);
  }

  reveal(at) {
    const box = this.placed?.boxes[at];
    if (!box) return;
    const high = Math.min(box.h, 80);
    const y = box.y + this.top;
    if (y < this.box.scrollTop + 20) this.box.scrollTop = y - 60;
    else if (y + high > this.box.scrollTop + this.box.clientHeight - 20) this.box.scrollTop = y + high - this.box.clientHeight + 60;
  }

  toggle(at) {
    if (!this.tree.isGroup(at)) return;
    if (!this.folded.delete(at)) this.folded.add(at);
    this.draw();
    announce(`${ownName(this.tree.nodes[at].id)} ${this.folded.has(at) ? "folded" : "opened"}`);
  }

  click(event) {
    const element = event.target.closest("[data-node]");
    if (!element) return;
    const at = Number(element.dataset.node);
    if (event.target.closest("[data-fold]")) this.toggle(at);
    else this.select(at, { scroll: false });
  }

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || !this.placed) return;
    const at = this.selected;
    const move = (next) => {
      event.preventDefault();
      if (next !== undefined && next !== null) this.select(next);
    };
    if (event.key === "ArrowDown") move(at === null ? this.tree.roots[0] : this.nearest(at, 0, 1));
    else if (event.key === "ArrowUp") move(at === null ? this.tree.roots[0] : this.nearest(at, 0, -1));
    else if (event.key === "ArrowRight") move(this.nearest(at, 1, 0));
    else if (event.key === "ArrowLeft") move(this.nearest(at, -1, 0));
    else if (event.key === "Home") move(this.tree.roots[0]);
    else if (event.key === "End") move(this.tree.finals.at(-1) ?? this.tree.roots.at(-1));
    else if ((event.key === " " || event.key === "Enter") && at !== null) {
      event.preventDefault();
      this.toggle(at);
    }
  }

  /// The next box in a direction: the closest one, sideways counts more.
  nearest(at, dx, dy) {
    if (at === null) return null;
    const own = this.placed.boxes[at];
    const reach = 3000;
    let best = null, least = Infinity;
    for (const node of this.boxes.between(own.y - reach, own.y + own.h + reach)) {
      const box = this.placed.boxes[node];
      if (node === at) continue;
      const inside = dy > 0 && box.y > own.y && own.group && box.y < own.y + own.h;
      const ahead = dy > 0 ? (inside ? box.y - own.y : box.y - own.y - (own.group ? 0 : own.h) + 1)
        : dy < 0 ? own.y - box.y : dx > 0 ? box.x - own.x : own.x - box.x;
      if (ahead <= 0) continue;
      const side = dy ? Math.abs(box.x + (box.group ? 0 : box.w / 2) - own.x - (own.group ? 0 : own.w / 2)) : Math.abs(box.y - own.y);
      if (dx && side > this.sizes.h) continue;
      const far = ahead + side * 2;
      if (far < least) [best, least] = [node, far];
    }
    return best;
  }
}
