// Words, signs and tones for states, times and amounts: the same as on the terminal.

import { h } from "./dom.js";

/// Sign and tone of a state. The word always stands beside it.
const STATES = {
  blocked: ["·", "idle"], ready: ["○", "idle"], running: ["●", "run"], backoff: ["↻", "wait"], succeeded: ["✓", "good"],
  failed: ["✗", "bad"], skipped: ["⊘", "idle"], cancelled: ["■", "wait"], interrupted: ["?", "wait"], undoing: ["↶", "undo"],
  undone: ["↶", "good"], "undo-failed": ["✗", "bad"], kept: ["=", "wait"], waiting: ["◆", "wait"],
  "rolling-back": ["↶", "undo"], "rolled-back": ["↶", "wait"], stuck: ["!", "bad"], queued: ["○", "idle"],
};

export const sign = (status) => (STATES[status] ?? ["·", "idle"])[0];
export const tone = (status) => (STATES[status] ?? ["·", "idle"])[1];

/// A state in words: what a run that is over has never begun waits for nothing.
export function stateWord(status, over) {
  if (over && (status === "blocked" || status === "ready")) return "not started";
  if (over && status === "undoing") return "not undone";
  return status.replace("-", " ");
}

export function badge(status, over = false) {
  return h("span", { class: `badge tone-${tone(status)}`, data: { status } },
    h("span", { class: "sign", "aria-hidden": "true" }, sign(status)), stateWord(status, over));
}

const two = (n) => String(n).padStart(2, "0");

/// `34ms`, `0.4s`, `12s`, `3m05s`, `2h07m`, `4d03h`.
export function duration(ms) {
  const s = Math.floor(ms / 1000);
  if (ms < 100) return `${Math.max(0, Math.round(ms))}ms`;
  if (s < 10) return `${s}.${Math.floor((ms % 1000) / 100)}s`;
  if (s < 60) return `${s}s`;
  if (s < 3600) return `${Math.floor(s / 60)}m${two(s % 60)}s`;
  if (s < 86400) return `${Math.floor(s / 3600)}h${two(Math.floor(s / 60) % 60)}m`;
  return `${Math.floor(s / 86400)}d${two(Math.floor(s / 3600) % 24)}h`;
}

export function clock(ms) {
  const d = new Date(ms);
  return `${two(d.getHours())}:${two(d.getMinutes())}:${two(d.getSeconds())}`;
}

export function date(ms) {
  const d = new Date(ms);
  return `${d.getFullYear()}-${two(d.getMonth() + 1)}-${two(d.getDate())} ${clock(ms)}`;
}

/// The date only where it is not today.
export function when(ms) {
  const same = new Date(ms).toDateString() === new Date().toDateString();
  return h("time", { datetime: new Date(ms).toISOString(), title: date(ms) }, same ? clock(ms) : date(ms).slice(0, 16));
}

export const grouped = (n) => n.toLocaleString("en-US");
export const plural = (n, what) => `${grouped(n)} ${what}${n === 1 ? "" : "s"}`;

export function bytes(n) {
  if (n < 1024) return `${n} B`;
  if (n < 1 << 20) return `${(n / 1024).toFixed(1)} KiB`;
  if (n < 1 << 30) return `${(n / (1 << 20)).toFixed(1)} MiB`;
  return `${(n / (1 << 30)).toFixed(2)} GiB`;
}

/// A value in few characters: strings without quotes.
export function short(value, most = 60) {
  const text = typeof value === "string" ? value : JSON.stringify(value);
  return text.length > most ? `${text.slice(0, most - 1)}…` : text;
}

export function values(map) {
  return Object.entries(map ?? {}).map(([name, value]) => `${name}=${short(value, 40)}`).join("  ");
}

/// The last part of a step's path.
export function ownName(id) {
  const at = id.endsWith("]") ? id.lastIndexOf("[") : id.lastIndexOf("/") + 1;
  return id.slice(Math.max(0, at));
}
