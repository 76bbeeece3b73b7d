// Output of commands as lines of spans: colours become classes, every other escape sequence is left out, and text is
// only ever set as text.

import { h } from "./dom.js";

// Sequences that a terminal would act on: CSI, OSC (titles, links), other two-byte ones.
const ESCAPE = /\x1b\[([0-9;:]*)[ -/]*([@-~])|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?|\x1b[@-Z\\-_]/g;
const CONTROL = /[\x00-\x08\x0b-\x1f\x7f]/g;
const LEVELS = [0, 95, 135, 175, 215, 255];

const plain = () => ({ fg: null, bg: null, bold: false, dim: false, italic: false, underline: false, inverse: false });

function indexed(n) {
  if (n < 16) return n;
  if (n >= 232) return [8 + (n - 232) * 10, 8 + (n - 232) * 10, 8 + (n - 232) * 10];
  const at = n - 16;
  return [LEVELS[Math.floor(at / 36)], LEVELS[Math.floor(at / 6) % 6], LEVELS[at % 6]];
}

const inRange = (n) => Number.isInteger(n) && n >= 0 && n <= 255;

/// Applies `ESC [ codes m` to a style.
function apply(style, text) {
  const codes = text.split(/[;:]/).map((code) => (code === "" ? 0 : Number(code)));
  for (let i = 0; i < codes.length; i++) {
    const code = codes[i];
    if (code === 0) Object.assign(style, plain());
    else if (code === 1) style.bold = true;
    else if (code === 2) style.dim = true;
    else if (code === 3) style.italic = true;
    else if (code === 4) style.underline = true;
    else if (code === 7) style.inverse = true;
    else if (code === 22) style.bold = style.dim = false;
    else if (code === 23) style.italic = false;
    else if (code === 24) style.underline = false;
    else if (code === 27) style.inverse = false;
    else if (code >= 30 && code <= 37) style.fg = code - 30;
    else if (code >= 40 && code <= 47) style.bg = code - 40;
    else if (code >= 90 && code <= 97) style.fg = code - 82;
    else if (code >= 100 && code <= 107) style.bg = code - 92;
    else if (code === 39) style.fg = null;
    else if (code === 49) style.bg = null;
    else if (code === 38 || code === 48) {
      const which = code === 38 ? "fg" : "bg";
      if (codes[i + 1] === 5 && inRange(codes[i + 2])) {
        style[which] = indexed(codes[i + 2]);
        i += 2;
      } else if (codes[i + 1] === 2 && codes.slice(i + 2, i + 5).every(inRange)) {
        style[which] = codes.slice(i + 2, i + 5);
        i += 4;
      }
    }
  }
}

function span(text, style) {
  let { fg, bg } = style;
  if (style.inverse) [fg, bg] = [bg ?? "back", fg ?? "front"];
  const classes = [];
  for (const flag of ["bold", "dim", "italic", "underline"]) if (style[flag]) classes.push(`ansi-${flag}`);
  const named = (value, which) => {
    if (value !== null && !Array.isArray(value)) classes.push(`ansi-${which}-${value}`);
  };
  named(fg, "fg");
  named(bg, "bg");
  if (!classes.length && fg === null && bg === null) return document.createTextNode(text);
  const element = h("span", { class: classes.join(" ") });
  if (Array.isArray(fg)) element.style.color = `rgb(${fg.join(" ")})`;
  if (Array.isArray(bg)) element.style.backgroundColor = `rgb(${bg.join(" ")})`;
  element.textContent = text;
  return element;
}

/// What stands on the line in the end: a progress bar writes over itself with carriage returns.
function last(line) {
  const text = line.endsWith("\r") ? line.slice(0, -1) : line;
  return text.slice(text.lastIndexOf("\r") + 1);
}

export const strip = (line) => last(line).replace(ESCAPE, "").replace(CONTROL, "");

/// Several lines without what a terminal would act on.
export const clean = (text) => text.split("\n").map(strip).join("\n");

/// One line as nodes; `style` goes on from line to line.
export function render(line, style) {
  const text = last(line);
  const nodes = [];
  let from = 0;
  const push = (piece) => {
    const clean = piece.replace(CONTROL, "");
    if (clean) nodes.push(span(clean, style));
  };
  for (const match of text.matchAll(ESCAPE)) {
    push(text.slice(from, match.index));
    if (match[2] === "m") apply(style, match[1]);
    from = match.index + match[0].length;
  }
  push(text.slice(from));
  return nodes;
}

export { plain };
