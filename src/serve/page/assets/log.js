// The output of one attempt, read from the server in stretches: the end first, and more as one scrolls. Keeps a window of
// it, however long it is; searching reads on stretch by stretch and keeps nothing.

import { announce, h, put } from "./dom.js";
import { readLog } from "./api.js";
import { plain, render, strip } from "./ansi.js";
import { bytes } from "./words.js";

/// Bytes that are asked for at once, and that are kept.
const PIECE = 64 << 10, WINDOW = 384 << 10, SCAN = 4 << 20;
/// Lines that are laid out together when they come into view, and how high one is that does not wrap, in pixels.
const PART = 100, LINE = 18.75;
/// Bytes that are looked at in one go, and milliseconds after which the page gets its turn.
const SLICE = 256 << 10, TURN = 30;
const ERRORS = /\b(error|errors|fatal|failed|failure|panic|panicked|exception|traceback|denied)\b/i;

/// Bytes to text, and how many of the last belong to a character that is not whole.
const decoder = new TextDecoder();

/// A stretch in parts of whole lines, and where its last whole line ends: one that goes on in the next stretch is looked
/// at there.
function sliced({ bytes: data, next, size }) {
  const last = next >= size ? data.length : data.lastIndexOf(10) + 1 || data.length;
  const slices = [];
  for (let from = 0; from < last; ) {
    const to = from + SLICE >= last ? last : data.indexOf(10, from + SLICE) + 1 || last;
    slices.push([from, Math.min(to, last)]);
    from = Math.min(to, last);
  }
  return { slices, end: last };
}

/// Text without what a terminal would act on; most has none of it.
const bare = (text) => (text.includes("\x1b") || text.includes("\r") ? strip(text.replaceAll("\r", "\n")) : text);

/// The lines of a part, and their places in the whole.
function offsets({ bytes: data, offset }, from, stop) {
  const list = [];
  while (from < stop) {
    const found = data.indexOf(10, from);
    const to = found < 0 || found > stop ? stop : found;
    list.push({ at: offset + from, text: decoder.decode(data.subarray(from, to)) });
    from = to + 1;
  }
  return list;
}

export class Log {
  constructor() {
    this.text = h("div", { class: "log-text" });
    this.box = h("div", { class: "log", tabindex: 0, role: "region", "aria-label": "Output", onscroll: () => this.scrolled() }, this.text);
    this.about = h("span", { class: "muted log-about" });
    this.follow = h("input", { type: "checkbox", checked: true, onchange: () => this.follow.checked && this.toEnd() });
    this.query = h("input", { type: "search", placeholder: "Search the output", "aria-label": "Search the output", onkeydown: (e) => {
      if (e.key === "Enter") this.find(this.matcher(), e.shiftKey ? -1 : 1);
      if (e.key === "Escape") this.stop();
    } });
    const button = (text, { label, about }, act) => h("button", { type: "button", class: "quiet", "aria-label": label, title: label ?? about, onclick: act }, text);
    this.bar = h("div", { class: "log-bar" }, this.query,
      button("↑", { label: "Previous match" }, () => this.find(this.matcher(), -1)),
      button("↓", { label: "Next match" }, () => this.find(this.matcher(), 1)),
      button("Jump to error", { about: "To the next line that tells of an error" }, () => this.find((text) => ERRORS.test(text), 1)),
      button("Start", { about: "To the first line" }, () => this.toStart()), button("End", { about: "To the last line" }, () => this.toEnd()),
      h("label", { class: "check" }, this.follow, "Follow"), this.about);
    this.generation = 0;
  }

  element() {
    return h("div", { class: "log-frame" }, this.bar, this.box);
  }

  /// Shows another attempt. `live()` says whether more may come.
  async open(run, params, live) {
    Object.assign(this, { run, params, live, size: 0, cut: 0, settled: false });
    this.generation += 1;
    this.search = null;
    this.found = null;
    this.follow.checked = true;
    put(this.about, "");
    this.fresh();
    await this.toEnd();
    this.poll(this.generation);
  }

  close() {
    this.generation += 1;
  }

  fresh() {
    /// Stretches in order: { from, to, lines }.
    this.pieces = [];
    put(this.text);
  }

  async poll(generation) {
    while (generation === this.generation) {
      await new Promise((done) => setTimeout(done, this.live() ? 700 : 2500));
      if (generation !== this.generation || !this.box.isConnected) return;
      const live = this.live();
      this.settled &&= !live;
      if (document.hidden || this.settled) continue;
      try {
        if (this.follow.checked) await this.forward();
        else await this.measure();
        // What its last moment brought is read after it was over.
        this.settled = !live && (!this.follow.checked || (this.last?.to ?? 0) >= this.size);
      } catch {
        // The next turn tries again.
      }
    }
  }

  get last() {
    return this.pieces.at(-1);
  }

  async measure() {
    const { size } = await readLog(this.run, { ...this.params, from: this.size, limit: 1 });
    this.size = Math.max(this.size, size);
    this.tell();
  }

  async read(from, limit) {
    const generation = this.generation;
    const piece = await readLog(this.run, { ...this.params, from, limit });
    if (generation !== this.generation) throw new Error("another output is shown");
    this.size = piece.size;
    if (piece.cut) this.cut = piece.cut;
    return piece;
  }

  tell() {
    if (this.search?.read) return;
    const cut = this.cut ? `, ${bytes(this.cut)} of the middle not kept` : "";
    put(this.about, this.size ? `${bytes(this.size)}${cut}` : this.live() ? "no output yet" : "no output");
  }

  /// A stretch as lines. What is no whole line at its end is left for the next one, apart from at the very end.
  lines(piece) {
    let { bytes: data, offset } = piece;
    const text = decoder.decode(data);
    const list = text.split("\n");
    if (list.at(-1) === "") list.pop();
    const fragment = h("div", { class: "log-piece" });
    if (piece.cut) fragment.append(h("div", { class: "log-cut" }, `… ${bytes(piece.cut)} are not kept …`));
    const style = plain();
    for (let at = 0; at < list.length; at += PART) {
      const part = h("div", { class: "log-part" }, list.slice(at, at + PART).map((line) => h("div", { class: "line" }, render(line, style))));
      part.style.containIntrinsicSize = `auto ${part.children.length * LINE}px`;
      fragment.append(part);
    }
    return { from: offset, to: piece.next, element: fragment, data };
  }

  /// Cuts a stretch after its last whole line, where more follows.
  whole(piece) {
    if (piece.next >= piece.size && !this.live()) return piece;
    const end = piece.bytes.lastIndexOf(10) + 1;
    if (end === 0) return piece.next >= piece.size || piece.bytes.length < PIECE ? { ...piece, bytes: piece.bytes.subarray(0, 0), next: piece.offset } : piece;
    return { ...piece, bytes: piece.bytes.subarray(0, end), next: piece.offset + end };
  }

  /// Begins a stretch after its first line break: a line cut in two looks like two.
  begun(piece, from) {
    if (piece.offset <= 0 || from === 0) return piece;
    const at = piece.bytes.indexOf(10) + 1;
    return at === 0 ? piece : { ...piece, bytes: piece.bytes.subarray(at), offset: piece.offset + at };
  }

  async toEnd() {
    this.follow.checked = true;
    this.fresh();
    try {
      const piece = this.whole(this.begun(await this.read(-PIECE, PIECE)));
      this.add(piece);
    } catch (error) {
      if (error.status) put(this.about, error.message);
    }
    this.tell();
    this.box.scrollTop = this.box.scrollHeight;
  }

  async toStart() {
    this.follow.checked = false;
    this.fresh();
    this.add(this.whole(await this.read(0, PIECE)));
    this.box.scrollTop = 0;
    this.tell();
  }

  add(piece, before = false) {
    if (!piece.bytes.length) {
      if (!this.last && !before) this.pieces.push({ from: piece.offset, to: piece.next, element: h("div", {}), data: piece.bytes });
      return false;
    }
    const made = this.lines(piece);
    if (before) {
      this.pieces.unshift(made);
      this.text.prepend(made.element);
    } else {
      this.pieces.push(made);
      this.text.append(made.element);
    }
    return true;
  }

  trim(before) {
    let kept = this.pieces.reduce((n, piece) => n + piece.data.length, 0);
    while (kept > WINDOW && this.pieces.length > 2) {
      const gone = before ? this.pieces.pop() : this.pieces.shift();
      kept -= gone.data.length;
      gone.element.remove();
    }
  }

  async forward() {
    if (this.loading) return;
    this.loading = true;
    try {
      const from = this.last?.to ?? 0;
      const piece = this.whole(await this.read(from, PIECE));
      const wasAtEnd = this.box.scrollTop + this.box.clientHeight >= this.box.scrollHeight - 40;
      const high = this.box.scrollHeight;
      if (this.add(piece)) {
        this.trim(false);
        if (this.follow.checked) this.box.scrollTop = this.box.scrollHeight;
        else if (!wasAtEnd) this.box.scrollTop -= Math.max(0, high - this.box.scrollHeight);
      }
      this.tell();
    } finally {
      this.loading = false;
    }
  }

  async backward() {
    const first = this.pieces[0];
    if (this.loading || !first || first.from <= 0) return;
    this.loading = true;
    try {
      const from = Math.max(0, first.from - PIECE);
      let piece = await this.read(from, first.from - from);
      if (piece.next > first.from) piece = { ...piece, bytes: piece.bytes.subarray(0, first.from - piece.offset), next: first.from };
      piece = this.begun(piece, from);
      const high = this.box.scrollHeight;
      if (piece.offset < first.from && this.add(piece, true)) {
        this.trim(true);
        this.box.scrollTop += this.box.scrollHeight - high;
      }
    } finally {
      this.loading = false;
    }
  }

  scrolled() {
    const { scrollTop, clientHeight, scrollHeight } = this.box;
    const atEnd = scrollTop + clientHeight >= scrollHeight - 30;
    if (!atEnd && this.was !== undefined && scrollTop < this.was - 4) this.follow.checked = false;
    this.was = scrollTop;
    if (scrollTop < 400) this.backward().catch(() => {});
    if (scrollTop + clientHeight > scrollHeight - 400 && this.last && this.last.to < this.size && !this.follow.checked) this.forward().catch(() => {});
  }

  matcher() {
    const wanted = this.query.value.toLowerCase();
    return wanted ? (text) => text.toLowerCase().includes(wanted) : null;
  }

  /// The next line that matches, forwards or backwards from the last one that was found, all round. `matches` is asked
  /// of many lines at once too. Another search, or Escape, ends it.
  async find(matches, way) {
    if (!matches || !this.size) return;
    this.follow.checked = false;
    const own = (this.search = { matches, way, read: 0 });
    const start = this.found ?? (way > 0 ? -1 : this.size);
    try {
      const hit = (await this.scan(own, start)) ?? (await this.scan(own, way > 0 ? -1 : this.size));
      if (own !== this.search) return;
      this.search = null;
      this.tell();
      if (hit === null) return announce("nothing found"), put(this.about, "nothing found");
      this.found = hit;
      await this.reveal(hit);
    } catch (error) {
      if (own !== this.search) return;
      this.search = null;
      put(this.about, error.message);
    }
  }

  stop() {
    if (!this.search) return;
    this.search = null;
    this.tell();
  }

  /// Place of the first byte of a line that matches after (or before) `start`, or null.
  async scan(search, start) {
    const { matches, way } = search;
    let at = way > 0 ? Math.max(0, start) : start;
    while (way > 0 ? at < this.size : at > 0) {
      const from = way > 0 ? at : Math.max(0, at - SCAN);
      const piece = way > 0 ? await this.read(from, SCAN) : this.begun(await this.read(from, at - from), from);
      const { slices, end } = sliced(piece);
      if (way < 0) slices.reverse();
      let turn = performance.now();
      for (const [begin, stop] of slices) {
        if (search !== this.search) return null;
        if (matches(bare(decoder.decode(piece.bytes.subarray(begin, stop))))) {
          const lines = offsets(piece, begin, stop).filter((line) => (way > 0 ? line.at > start : line.at < start) && matches(strip(line.text)));
          if (lines.length) return (way > 0 ? lines[0] : lines.at(-1)).at;
        }
        if (performance.now() - turn > TURN) {
          await new Promise((done) => setTimeout(done));
          turn = performance.now();
        }
      }
      search.read += piece.bytes.length;
      put(this.about, `searched ${bytes(search.read)} of ${bytes(this.size)} …`);
      const next = way > 0 ? piece.offset + end : Math.min(piece.offset, at - 1);
      if (way > 0 ? next <= at : next >= at) return null;
      at = next;
    }
    return null;
  }

  async reveal(at) {
    if (!this.pieces.some((piece) => piece.from <= at && at < piece.to)) {
      this.fresh();
      const from = Math.max(0, at - PIECE / 2);
      this.add(this.whole(this.begun(await this.read(from, PIECE), from)));
    }
    const piece = this.pieces.find((one) => one.from <= at && at < one.to);
    if (!piece) return;
    let row = 0;
    for (let i = 0; i < at - piece.from; i++) if (piece.data[i] === 10) row += 1;
    const line = piece.element.querySelectorAll(".line")[row];
    this.text.querySelector(".found")?.classList.remove("found");
    line?.classList.add("found");
    line?.scrollIntoView({ block: "center" });
    announce(line?.textContent ?? "");
  }
}
