// Schedules on a strip of days: what became of their instants, and when they fire next.

import { h, put } from "./dom.js";
import { get } from "./api.js";
import { clock, date, sign, tone } from "./words.js";

const DAY = 86_400_000, NEXT = 40;
/// Days before and after today.
const PAST = 6, AHEAD = 3;
/// What became of an instant, where it is not a run that says it.
export const DECIDED = { missed: ["⊘", "wait"], paused: ["=", "idle"], overlap: ["⊘", "idle"], buffered: ["○", "idle"], failed: ["✗", "bad"] };

const midnight = (ms) => new Date(ms).setHours(0, 0, 0, 0);

export async function calendar(box) {
  let schedules, firings, runs;
  const from = midnight(Date.now() - PAST * DAY);
  try {
    ({ schedules } = await get("schedules", { next: NEXT }));
    if (!schedules.length) return;
    [{ firings }, { runs }] = await Promise.all([get("firings", { since: from, limit: 1000 }), get("runs", { since: from, limit: 500 })]);
  } catch {
    // The list of runs is the page; the strip is left out where it cannot be read.
    return;
  }
  const status = new Map(runs.map((run) => [run.id, run.status]));
  const days = Array.from({ length: PAST + 1 + AHEAD }, (_, n) => midnight(from + n * DAY + DAY / 2));
  const today = midnight(Date.now());
  const name = (day) => new Date(day).toLocaleDateString(undefined, { weekday: "short", day: "numeric" });
  const head = h("tr", null, h("th", { scope: "col" }, "Schedule"), days.map((day) => h("th", { scope: "col", class: day === today ? "today" : "" }, name(day))));
  const rows = schedules.map((schedule) => {
    const own = firings.filter((firing) => firing.schedule === schedule.key);
    const cells = days.map((day) => {
      const there = own.filter((firing) => midnight(firing.at) === day).sort((a, b) => a.at - b.at);
      const next = schedule.next.filter((one) => midnight(one.at) === day);
      return h("td", { class: day === today ? "today" : "" }, marks(there, status), ahead(next, schedule));
    });
    const paused = schedule.paused ? h("span", { class: "muted small" }, ` paused by ${schedule.paused.by}`) : null;
    return h("tr", null, h("th", { scope: "row" }, h("a", { href: "/schedules" }, schedule.playbook), h("br"), h("code", { class: "muted small" }, `${schedule.cron} ${schedule.timezone}`), paused), cells);
  });
  const at = box.firstElementChild?.scrollLeft;
  put(box, h("section", { class: "panel strip", tabindex: 0, "aria-label": "Schedules" },
    h("table", null, h("caption", { class: "hidden" }, "Schedules by day: what they did, and when they fire next"), h("thead", null, head), h("tbody", null, rows))));
  // Where not all of it has room, today is what one sees first.
  const [strip, now] = [box.firstElementChild, box.querySelector("th.today")];
  strip.scrollLeft = at ?? now.offsetLeft - strip.clientWidth + 2 * now.offsetWidth;
}

/// Single marks where there are few, a number of each kind where there are many.
function marks(firings, status) {
  const one = (firing) => {
    const word = firing.run ? (status.get(firing.run) ?? "started") : firing.decision;
    const [mark, kind] = firing.run ? [sign(word), tone(word)] : (DECIDED[firing.decision] ?? ["·", "idle"]);
    return { word, mark, kind, firing };
  };
  const all = firings.map(one);
  if (all.length <= 4) {
    return all.map(({ word, mark, kind, firing }) => {
      const text = `${date(firing.at)}: ${word}`;
      const content = [h("span", { class: "sign", "aria-hidden": "true" }, mark), h("span", { class: "hidden" }, text)];
      return firing.run ? h("a", { href: `/runs/${encodeURIComponent(firing.run)}`, class: `tone-${kind}`, title: text }, content) : h("span", { class: `tone-${kind}`, title: text }, content);
    });
  }
  const kinds = Map.groupBy(all, ({ word }) => word);
  return [...kinds].map(([word, list]) => h("span", { class: `badge tone-${list[0].kind}`, title: word }, h("span", { class: "sign", "aria-hidden": "true" }, list[0].mark), String(list.length), h("span", { class: "hidden" }, ` ${word}`)));
}

function ahead(next, schedule) {
  if (!next.length || schedule.paused) return null;
  const more = schedule.next.length === NEXT && next.at(-1) === schedule.next.at(-1) ? "+" : "";
  const text = next.length > 2 ? `${next.length}${more} more` : next.map((one) => clock(one.at).slice(0, 5)).join(", ");
  return h("div", { class: "next", title: next.map((one) => one.explain ?? "").join(" ").trim() || null }, text);
}
