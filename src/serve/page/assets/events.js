// The events of a run, and what they say of its attempts: a list and a chart over time. Reads them once, as a whole, when
// somebody looks, and goes on with those that come.

import { Rows, empty, h, put } from "./dom.js";
import { allEvents } from "./api.js";
import { clean } from "./ansi.js";
import { clock, duration, grouped, short, tone } from "./words.js";

export const word = (type) => type.replaceAll("_", " ");

/// What an event says besides its type and step, in few words.
export function about(event) {
  if (event.error) return clean(event.error.message);
  const parts = [];
  for (const name of ["by", "reason", "outcome", "resolution", "why", "names", "note", "retry_in", "answer", "question", "outputs", "output_errors", "items"]) {
    const value = event[name];
    if (value === undefined || value === null) continue;
    if (name === "question") parts.push(value.prompt);
    else if (name === "answer") parts.push(`${value.by}${value.reason ? `: ${value.reason}` : ""}`);
    else if (name === "items") parts.push(`${grouped(value.length)} items`);
    else if (name === "retry_in") parts.push(`again in ${duration(value)}`);
    else parts.push(short(value, 120));
  }
  return parts.join(" · ");
}

const END = { attempt_succeeded: "succeeded", attempt_failed: "failed", attempt_interrupted: "interrupted", undo_succeeded: "undone", undo_failed: "undo-failed" };

export class Events {
  constructor(run) {
    this.run = run;
    this.all = [];
    this.bars = new Map();
    this.read = false;
    this.list = new Rows("Events", 34, (event) => this.row(event));
    this.listBox = h("div", null, this.list.box);
    this.chart = new Rows("Attempts over time", 26, (row) => this.bar(row));
    this.axis = h("div", { class: "gantt-axis", "aria-hidden": "true" });
    this.chartBox = h("div", { class: "gantt" }, this.axis, this.chart.box);
  }

  async load() {
    if (this.read) return this.show();
    this.read = true;
    try {
      await allEvents(this.run, (events) => this.take(events));
    } catch (error) {
      this.read = false;
      put(this.listBox, empty("The events cannot be read.", h("p", { class: "muted" }, error.message)));
    }
  }

  /// In order; those that are there already are left out.
  take(events) {
    const last = this.all.at(-1)?.seq ?? 0;
    const fresh = events.filter((event) => event.seq > last);
    this.all.push(...fresh);
    for (const event of fresh) this.fold(event);
    this.show();
  }

  /// One that came by the stream; until the others are read it waits.
  live(event) {
    if (this.read && event.seq === (this.all.at(-1)?.seq ?? 0) + 1) this.take([event]);
  }

  fold(event) {
    const { type, step, attempt } = event;
    const undo = type.startsWith("undo_");
    if (type === "attempt_started" || type === "undo_started") {
      const row = this.bars.get(step) ?? { step, bars: [], first: event.at };
      row.bars.push({ attempt, undo, from: event.at, to: null, status: undo ? "undoing" : "running" });
      this.bars.set(step, row);
    } else if (END[type]) {
      const bar = this.bars.get(step)?.bars.findLast((one) => one.attempt === attempt && one.undo === undo);
      if (bar) Object.assign(bar, { to: event.at, status: END[type] });
    }
  }

  show() {
    this.later ??= setTimeout(() => {
      this.later = undefined;
      const wasAtEnd = this.list.atEnd() && this.list.rows.length > 0;
      this.list.set(this.all);
      if (wasAtEnd) this.list.box.scrollTop = this.list.box.scrollHeight;
      this.scale();
      this.chart.set([...this.bars.values()]);
    }, this.all.length > 5000 ? 1000 : 200);
  }

  scale() {
    let from = Infinity, to = 0, open = false;
    for (const row of this.bars.values()) {
      for (const bar of row.bars) {
        from = Math.min(from, bar.from);
        to = Math.max(to, bar.to ?? bar.from);
        open ||= bar.to === null;
      }
    }
    // Where something runs, and events still come, the chart goes on to now.
    if (open && Date.now() - to < 86_400_000) to = Math.max(to, Date.now());
    this.from = from;
    this.span = Math.max(1, to - from);
    const marks = [0, 0.25, 0.5, 0.75, 1].map((part) => {
      const mark = h("span", null, this.bars.size ? `+${duration(this.span * part)}` : "");
      mark.style.left = `${part * 100}%`;
      return mark;
    });
    put(this.axis, h("div", null, marks));
  }

  bar({ step, bars }) {
    const track = h("div", { class: "gantt-track" });
    for (const bar of bars) {
      const end = bar.to ?? this.from + this.span;
      const text = `${bar.undo ? "undo" : "attempt"} ${bar.attempt}: ${bar.status}, ${duration(end - bar.from)}`;
      const element = h("span", { class: `gantt-bar tone-${tone(bar.status)} ${bar.undo ? "gantt-undo" : ""}`, title: text }, h("span", { class: "hidden" }, text));
      element.style.left = `${((bar.from - this.from) / this.span) * 100}%`;
      element.style.width = `max(3px, ${((end - bar.from) / this.span) * 100}%)`;
      track.append(element);
    }
    const took = bars.reduce((sum, bar) => sum + (bar.to ?? this.from + this.span) - bar.from, 0);
    return h("div", { class: "gantt-row" }, h("span", { class: "gantt-name", title: step }, step), track, h("span", { class: "gantt-took" }, duration(took)));
  }

  row(event) {
    return h("div", { class: "event" },
      h("span", { class: "muted mono event-seq" }, String(event.seq)), h("span", { class: "mono event-at" }, clock(event.at)),
      h("span", { class: "event-type" }, word(event.type)), h("span", { class: "event-step mono" }, event.step ?? ""),
      h("span", { class: "event-about" }, about(event)),
      h("button", { type: "button", class: "quiet small", "aria-label": `Show event ${event.seq} in full`, onclick: () => this.full(event) }, "Show"));
  }

  full(event) {
    const dialog = h("dialog", { class: "wide", "aria-labelledby": "event-title", onclose: () => dialog.remove() },
      h("h2", { id: "event-title" }, `Event ${event.seq}: ${word(event.type)}`),
      h("pre", { class: "data", tabindex: 0 }, JSON.stringify(event, null, 2)),
      h("form", { method: "dialog", class: "ask-buttons" }, h("button", null, "Close")));
    document.body.append(dialog);
    dialog.showModal();
  }
}
