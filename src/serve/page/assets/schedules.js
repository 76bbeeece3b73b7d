// The schedules of the server's playbooks: when they fire next and why then, what became of their last instants, and
// what can be done to them. When an instant is, the server says.

import { $, alarm, announce, empty, h, pairs, put } from "./dom.js";
import { get, post, throttled, url, watch } from "./api.js";
import { ask, may } from "./actions.js";
import { broken } from "./broken.js";
import { DECIDED, calendar } from "./calendar.js";
import { badge, date, duration, plural, values, when } from "./words.js";

const OVERLAP = {
  skip: "while a run of it is not over, an instant is passed over", buffer_one: "one run waits for the one before, further instants are passed over",
  buffer_all: "runs wait for the one before, in order", cancel_other: "a run that is not over is cancelled first", allow_all: "runs go side by side",
};
const CATCHUP = { none: "none", last: "the last one", all: "all of them" };
const GAP = { shift: "fires later by as much", skip: "does not fire" };
const FOLD = { first: "fires the first time", last: "fires the last time", both: "fires both times" };
const WHY = {
  missed: "no server ran in time", paused: "the schedule was paused", overlap: "a run before it was not over", buffered: "enough runs waited already",
  failed: "its run could not be started",
};
/// So far ahead clocks that are set forward or back are looked for, in instants.
const FAR = 400;

const cards = new Map();
const list = h("div", { class: "schedules" });
const strip = h("div", { id: "calendar" });
const path = (one) => `schedules/${encodeURIComponent(one.key)}`;
const name = (one) => `${one.playbook}, ${one.cron}`;

/// The day of the week, the time on the wall of the schedule's zone, and the same here.
function instant({ at, jitter_ms: jitter, wall, explain }, zone) {
  const [day, time] = wall.split("T");
  const here = Intl.DateTimeFormat().resolvedOptions().timeZone;
  return h("li", null, h("strong", { class: "mono" }, `${day} ${time.slice(0, 5)}`), here === zone ? null : h("span", { class: "muted" }, ` · here ${date(at).slice(0, 16)}`),
    jitter ? h("span", { class: "muted" }, ` · ${duration(jitter)} later by jitter`) : null, explain ? h("p", { class: "explained" }, h("span", { "aria-hidden": "true" }, "⚠ "), explain) : null);
}

function became(firing, runs) {
  const at = date(firing.at).slice(0, 16);
  if (!firing.run) {
    const [mark, kind] = DECIDED[firing.decision] ?? ["·", "idle"];
    return h("li", null, h("span", { class: `badge tone-${kind}` }, h("span", { class: "sign", "aria-hidden": "true" }, mark), firing.decision), ` ${at}`, h("span", { class: "muted" }, ` ${WHY[firing.decision] ?? ""}`));
  }
  const run = runs.get(firing.run);
  return h("li", null, run ? badge(run.status) : h("span", { class: "badge tone-idle" }, "started"), " ", h("a", { href: `/runs/${encodeURIComponent(firing.run)}` }, at),
    run?.started_at && run.finished_at ? h("span", { class: "muted" }, ` took ${duration(run.finished_at - run.started_at)}`) : null);
}

function buttons(one) {
  const button = (text, act, kind = "") => h("button", { type: "button", class: kind, disabled: !may("operator"), title: may("operator") ? null : "takes the role operator", onclick: act }, text, h("span", { class: "hidden" }, ` ${name(one)}`));
  return h("div", { class: "buttons" },
    one.paused ? button("Resume…", () => resume(one), "primary") : button("Pause…", () => pause(one)),
    button("Run now…", () => trigger(one)), button("Backfill…", () => backfill(one)));
}

/// The instants behind those shown, asked for when somebody looks: the next ones, and those at which a clock is set.
function ahead(one, shown) {
  const box = h("div", null, h("p", { class: "muted" }, "Looking ahead …"));
  const details = h("details", { data: { part: "ahead" }, ontoggle: async () => {
    if (!details.open || details.dataset.read) return;
    details.dataset.read = "yes";
    try {
      const next = (await get(path(one), { next: FAR })).next.filter((firing) => firing.at > shown.at(-1).at);
      const odd = next.slice(10).filter((firing) => firing.explain).slice(0, 10);
      put(box, h("ol", { class: "instants" }, next.slice(0, 10).map((firing) => instant(firing, one.timezone))),
        next.length ? h("p", { class: "muted small" }, odd.length ? `Where the clock is set, among the next ${next.length}:` : `The clock is not set over any of the next ${next.length}.`) : null,
        odd.length ? h("ol", { class: "instants" }, odd.map((firing) => instant(firing, one.timezone))) : null);
    } catch (error) {
      delete details.dataset.read;
      put(box, h("p", null, error.message));
    }
  } }, h("summary", null, "Further ahead"), box);
  return details;
}

function card(one, runs) {
  const { paused } = one;
  const shown = one.next.slice(0, 3);
  const state = paused ? h("span", { class: "badge tone-wait" }, h("span", { class: "sign", "aria-hidden": "true" }, "="), "paused") : null;
  const rules = pairs([
    ["Inputs", Object.keys(one.inputs).length ? h("code", null, values(one.inputs)) : null], ["When it overlaps", OVERLAP[one.overlap]],
    ["After a time without a server", `catches up with ${CATCHUP[one.catchup]} of ${duration(one.catchup_window_ms)}`],
    ["A time that the clock leaves out", GAP[one.dst_gap]], ["A time that comes twice", FOLD[one.dst_fold]], ["Jitter", one.jitter_ms ? `up to ${duration(one.jitter_ms)}` : null],
    ["From", one.start_at && date(one.start_at)], ["Until", one.end_at && date(one.end_at)], ["After a failure", one.pause_on_failure ? "pauses by itself" : null],
  ]);
  return h("section", { class: "panel schedule", data: { schedule: one.key }, "aria-label": name(one) },
    h("div", { class: "card-head" }, h("div", null, h("h2", null, h("a", { href: `/playbooks/${encodeURIComponent(one.playbook)}` }, one.playbook), " ", state), h("p", null, h("code", null, one.cron), " ", h("span", { class: "muted" }, one.timezone))), buttons(one)),
    paused ? h("p", { class: "callout tone-wait" }, `Paused by ${paused.by}`, paused.at ? [" since ", when(paused.at)] : null, paused.why ? `: ${paused.why}` : ".", " Its instants are passed over.") : null,
    one.living.length ? h("p", null, "Not over: ", one.living.map((run, at) => [at ? ", " : "", h("a", { href: `/runs/${encodeURIComponent(run)}`, class: "mono" }, run)])) : null,
    h("div", { class: "two" },
      h("div", null, h("h3", null, paused ? "Would fire next" : "Fires next"), shown.length ? h("ol", { class: "instants" }, shown.map((firing) => instant(firing, one.timezone))) : h("p", { class: "muted" }, "Never again."), shown.length ? ahead(one, shown) : null),
      h("div", null, h("h3", null, "Last"), one.last.length ? h("ol", { class: "instants" }, one.last.map((firing) => became(firing, runs))) : h("p", { class: "muted" }, "None of its instants has come since it is there."))),
    h("details", { data: { part: "rules" } }, h("summary", null, "Its rules"), rules));
}

async function send(one, what, body, done) {
  const answer = await post(`${path(one)}/${what}`, body);
  announce(done);
  await update();
  return answer;
}

function pause(one) {
  const why = h("input", { id: "why", type: "text", autocomplete: "off" });
  ask({
    title: `Pause ${one.playbook}?`, yes: "Pause",
    body: [h("p", null, "Its instants are passed over from now on, until somebody resumes it. ", one.next.length ? `The next would have been ${one.next[0].wall.replace("T", " ").slice(0, 16)} ${one.timezone}. ` : "", "What runs goes on."),
      h("div", { class: "field" }, h("label", { for: "why" }, "Why"), why, h("p", { class: "hint" }, "Shown to others, with your name."))],
    act: () => send(one, "pause", { why: why.value || null }, "paused"),
  });
}

function resume(one) {
  const next = one.next[0];
  ask({
    title: `Resume ${one.playbook}?`, yes: "Resume",
    body: h("p", null, next ? `It fires next on ${next.wall.replace("T", " ").slice(0, 16)} ${one.timezone}. ` : "", "What it passed over meanwhile is not made up for: Backfill does that."),
    act: () => send(one, "resume", {}, "resumed"),
  });
}

function trigger(one) {
  const given = values(one.inputs);
  ask({
    title: `Run ${one.playbook} now?`, yes: "Run now",
    body: [h("p", null, "One run starts at once, beside its instants: none of them is taken away by it.", one.paused ? " The schedule stays paused." : ""),
      h("p", null, given ? ["With ", h("code", null, given), "."] : "With the inputs that the playbook says."),
      one.living.length ? h("p", { class: "warn" }, `${plural(one.living.length, "run")} of it ${one.living.length === 1 ? "is" : "are"} not over. The new one does not wait for it.`) : null],
    act: async () => {
      const { runs } = await send(one, "trigger", {}, "started");
      location.assign(`/runs/${encodeURIComponent(runs[0])}`);
    },
  });
}

/// For a field of date and time, which knows only the time here.
const local = (ms) => date(ms).slice(0, 16).replace(" ", "T");

function backfill(one) {
  const field = (id, text, at) => [id, h("input", { id, type: "datetime-local", required: true, value: local(at), oninput: () => look() }), text];
  const [from, to] = [field("from", "From", Date.now() - 86_400_000), field("to", "To, without that minute", Date.now())];
  const told = h("div", { class: "told", "aria-live": "polite" });
  const range = () => ({ from: new Date(from[1].value).getTime(), to: Math.min(new Date(to[1].value).getTime(), Date.now()) });
  let asked = 0;
  async function look() {
    const own = ++asked;
    const { from, to } = range();
    if (!(from < to)) return put(told, h("p", { class: "field-wrong" }, "The beginning must be before the end, and both in the past."));
    try {
      const { instants } = await get(`${path(one)}/instants`, { from, to });
      if (own !== asked) return;
      const open = instants.filter((instant) => !instant.run);
      const over = open.filter((instant) => instant.decision).length;
      put(told, h("p", null, h("strong", null, open.length ? `${plural(open.length, "run")} will be started, one after the other` : "Nothing will be started"), `: the range has ${plural(instants.length, "instant")}, ${instants.length - open.length} of them with a run.`,
        over ? ` ${over} of the others ${over === 1 ? "was" : "were"} passed over before.` : ""),
      open.length ? h("p", { class: "muted small" }, `From ${date(open[0].at).slice(0, 16)} to ${date(open.at(-1).at).slice(0, 16)}. Each run is told its instant as run.scheduled_at.`) : null);
    } catch (error) {
      if (own === asked) put(told, h("p", { class: "field-wrong" }, error.message, error.help ? `: ${error.help}` : ""));
    }
  }
  ask({
    title: `Backfill ${one.playbook}?`, yes: "Backfill",
    body: [h("p", null, "Starts the runs of instants that have none. One that has a run never gets another."),
      h("div", { class: "two" }, [from, to].map(([id, control, text]) => h("div", { class: "field" }, h("label", { for: id }, text), control))), h("p", { class: "hint" }, `Times of ${Intl.DateTimeFormat().resolvedOptions().timeZone}, as this browser has them.`), told],
    act: async () => {
      const { runs } = await send(one, "backfill", range(), "backfilled");
      announce(`${plural(runs.length, "run")} started`);
    },
  });
  look();
}

function show(schedules, runs) {
  if (!schedules.length) {
    cards.clear();
    return put(list, h("div", { class: "panel" }, empty("No schedules.", h("p", null, "A playbook of the server's folder has them under ", h("code", null, "schedule:"), "."))));
  }
  const fresh = schedules.map((one) => {
    const text = JSON.stringify([one, one.last.map((firing) => runs.get(firing.run)?.status)], (key, value) => (key === "decided" ? undefined : value));
    const old = cards.get(one.key);
    if (old?.text === text) return old.element;
    const element = card(one, runs);
    for (const part of old?.element.querySelectorAll("details[open]") ?? []) element.querySelector(`[data-part="${part.dataset.part}"]`).open = true;
    cards.set(one.key, { text, element });
    if (old?.element.contains(document.activeElement)) {
      const had = document.activeElement.textContent;
      queueMicrotask(() => [...element.querySelectorAll("button, a, summary")].find((like) => like.textContent === had)?.focus());
    }
    return element;
  });
  const same = list.children.length === fresh.length && fresh.every((element, at) => list.children[at] === element);
  if (!same) put(list, fresh);
}

async function update() {
  try {
    const [{ schedules }, status, { runs }] = await Promise.all([get("schedules", { next: 3 }), get("status"), get("runs", { limit: 500 })]);
    show(schedules, new Map(runs.map((run) => [run.id, run])));
    broken(status.broken);
  } catch (error) {
    if (error.status !== 0) alarm(error);
  }
}

const refresh = throttled(update, 1000);
put($("#content"), strip, list);
await update();
calendar(strip);
setInterval(() => document.hidden || refresh(), 15_000);
setInterval(() => document.hidden || calendar(strip), 60_000);
const state = $("#link");
watch(url("changes"), () => refresh(), (there) => {
  state.textContent = there ? "live" : "reconnecting …";
  state.classList.toggle("lost", !there);
});
