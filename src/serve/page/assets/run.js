// The page of one run: what it does, what it waits for, and what can be done about it. What the server folded from the
// journal is the truth; an event that comes by the stream is shown at once, and the truth is asked for again soon.

import { $, alarm, announce, empty, h, pairs, put, tabs } from "./dom.js";
import { get, throttled, url, watch } from "./api.js";
import { Actions, may } from "./actions.js";
import { Events } from "./events.js";
import { Graph } from "./graph.js";
import { Log } from "./log.js";
import { clean } from "./ansi.js";
import { badge, date, duration, grouped, plural, sign, stateWord, tone, when } from "./words.js";

const id = document.body.dataset.run;
const path = `runs/${encodeURIComponent(id)}`;
/// What an event says of its step, until the server was asked.
const MEANS = {
  attempt_started: "running", attempt_succeeded: "succeeded", step_skipped: "skipped", step_failed: "failed", undo_started: "undoing",
  undo_succeeded: "undone", attempt_interrupted: "interrupted", block_started: "running", step_expanded: "running",
};
const OVER = ["succeeded", "failed", "skipped", "cancelled", "undone", "undo-failed", "kept"];

let run = null;
let nodes = [];
let steps = new Map();

/// A step that asks a person waits, whatever else it does; one that failed has failed, also where what it did is kept.
function statusOf(step) {
  const view = steps.get(step);
  const status = view?.status ?? "blocked";
  if (status === "kept" && view.error) return "failed";
  return status === "running" && run.questions.some((open) => open.step === step) ? "waiting" : status;
}

/// Nobody goes on with it now.
const isOver = () => !run.driven && !["running", "waiting", "rolling-back", "interrupted"].includes(run.status);

const graph = new Graph({ status: statusOf, word: (status) => stateWord(status, isOver()), onSelect: select });
const log = new Log();
const events = new Events(id);
const actions = new Actions(id, () => run, () => nodes, () => refresh());
const parts = {
  title: $("#title"), state: h("div", { class: "run-state" }), buttons: h("div", { class: "buttons", role: "group", "aria-label": "Actions" }),
  facts: h("div", { class: "facts muted" }), attention: h("div", { class: "attention" }), progress: h("div", { class: "progress" }),
  counts: h("div", { class: "counts", role: "group", "aria-label": "Steps by state" }), detail: h("section", { class: "detail panel", "aria-label": "Step", tabindex: -1 }),
  data: h("div", null),
};
let detail = null;
/// Whether somebody folded what it waits for (or opened it); it stays so.
let foldedByHand = null;

function page() {
  const find = h("input", { type: "search", placeholder: "Find a step", "aria-label": "Find a step", list: "steps-found", oninput: () => suggest(find), onchange: () => jump(find.value) });
  const steps = h("div", { class: "split" },
    h("section", { class: "panel graph-panel", "aria-label": "Steps of the run" },
      h("div", { class: "panel-bar" }, find, h("datalist", { id: "steps-found" }), parts.counts, graph.density), graph.box),
    parts.detail);
  const timeline = h("div", { class: "panel" }, events.chartBox);
  const list = h("div", { class: "panel" }, events.listBox);
  const data = h("div", { class: "panel pad" }, parts.data);
  const all = tabs("Views of the run", [
    ["steps", "Steps", h("div", null, steps)], ["timeline", "Timeline", h("div", null, timeline), () => events.load()],
    ["events", "Events", h("div", null, list), () => events.load()], ["data", "Inputs and outputs", h("div", null, data)],
  ]);
  put($("#content"), h("div", { class: "run-head" }, parts.state, parts.buttons), parts.facts, parts.attention, parts.progress, all.list, all.panels);
  put(parts.detail, empty("No step is chosen", h("p", { class: "muted" }, "The state of a step, its outputs and what its command printed are shown here. A run that has not started has none yet.")));
}

function suggest(find) {
  const wanted = find.value.toLowerCase();
  const found = wanted ? nodes.filter((node) => node.id.toLowerCase().includes(wanted)).slice(0, 20) : [];
  put($("#steps-found"), found.map((node) => h("option", { value: node.id })));
  const exact = nodes.find((node) => node.id === find.value);
  if (exact) jump(exact.id);
}

function jump(wanted) {
  const found = nodes.find((node) => node.id === wanted) ?? nodes.find((node) => wanted && node.id.includes(wanted));
  if (found) graph.selectId(found.id);
}

async function load() {
  const [view, drawn, why] = await Promise.all([get(path), get(`${path}/graph`), get(`${path}/why`)]);
  if (view.id !== id) {
    // `last`, or the beginning of an id, may mean another run a moment later.
    location.replace(`/runs/${encodeURIComponent(view.id)}${location.search}`);
    return new Promise(() => {});
  }
  nodes = drawn.steps;
  actions.policy = drawn.on_failure;
  actions.secrets = drawn.secret_inputs;
  show(view, why);
  graph.set(nodes);
  choose(view);
  return view.last_seq;
}

/// What one looks at first: what went wrong, what asks, what runs.
function choose(view) {
  const first = view.steps.find((step, at) => tone(step.status) === "bad" && !graph.tree.isGroup(at)) ?? view.steps.find((step) => step.error) ?? view.questions.map((q) => steps.get(q.step))[0] ?? view.steps.find((step) => step.status === "running");
  const open = new URLSearchParams(location.search).get("step") ?? first?.id ?? nodes.find((node) => node.parent === null)?.id;
  if (open) graph.selectId(open, { tell: false });
}

async function update() {
  try {
    const [view, why] = await Promise.all([get(path), get(`${path}/why`)]);
    if (view.steps.length !== nodes.length) {
      ({ steps: nodes } = await get(`${path}/graph`));
      show(view, why);
      graph.set(nodes);
      if (!detail) choose(view);
    } else {
      show(view, why);
    }
  } catch (error) {
    if (error.status !== 0) alarm(error);
  }
}

const refresh = throttled(update, 250);

function show(view, why) {
  const before = run?.status;
  run = view;
  steps = new Map(view.steps.map((step) => [step.id, step]));
  if (before && before !== view.status) announce(`The run is ${view.status.replace("-", " ")}`);
  document.title = `${sign(view.status)} ${view.playbook ?? ""} ${view.id} · runback`;
  put(parts.title, view.playbook ?? view.id);
  put(parts.state, badge(view.queued ? "queued" : view.status), h("code", { class: "run-id" }, view.id), h("span", { class: "muted", id: "took" }));
  actions.show(parts.buttons);
  put(parts.facts,
    view.started_at ? ["Started ", when(view.started_at)] : "Not started yet, asked for", view.by ? [" by ", h("strong", null, view.by)] : null, view.from ? ` from ${view.from}` : null,
    view.schedule ? [", schedule ", h("strong", null, view.schedule)] : null, view.owner ? `, driven by ${view.owner}` : null, view.queued ? `, place ${view.queued} in the queue` : null);
  attention(view, why);
  progress(view);
  data(view);
  graph.refresh();
  if (detail) showStep(detail, false);
  tick();
}

function tick() {
  const took = $("#took");
  if (!took || !run?.started_at) return;
  const end = run.finished_at ?? (run.driven ? Date.now() : null);
  took.textContent = end ? `${run.finished_at ? "took" : "for"} ${duration(end - run.started_at)}` : "";
}

/// What it waits for and why, questions and doubts: only where there is something to say.
function attention(view, why) {
  const boxes = [];
  for (const open of view.questions) {
    boxes.push(h("div", { class: "callout tone-wait" }, h("p", { class: "callout-title" }, h("span", { class: "sign", "aria-hidden": "true" }, "◆"), ` ${open.step} asks`), h("p", { class: "prompt" }, open.question.prompt),
      view.questions.length > 1 ? h("div", { class: "buttons" }, [["Approve…", true, "primary"], ["Refuse…", false, ""]].map(([text, yes, kind]) =>
        h("button", { type: "button", class: kind, disabled: !may("approver"), onclick: () => actions.answer(open, yes) }, text, h("span", { class: "hidden" }, ` ${open.step}`)))) : null,
      open.question.approvers?.length ? h("p", { class: "muted small" }, `Asked: ${open.question.approvers.join(", ")}`) : null));
  }
  const over = view.status === "succeeded" || view.status === "rolled-back" || view.status === "cancelled";
  const lines = why.why.filter((line) => line.text.trim());
  if (lines.length && !(over && lines.length === 1)) {
    const most = 12;
    const item = (line) => {
      const [first, ...rest] = clean(line.text).split("\n");
      const element = h("li", null, first, rest.length ? h("span", { class: "muted pre" }, `\n${rest.join("\n")}`) : null);
      element.style.marginInlineStart = `${line.depth * 1.25}rem`;
      return element;
    };
    boxes.push(h("details", { class: `callout tone-${tone(view.status)}`, open: view.questions.length === 0 },
      h("summary", { class: "callout-title", onclick: () => (foldedByHand = $("details", parts.attention).open) }, over ? "How it ended" : tone(view.status) === "bad" ? "Why it stopped" : "What it does and waits for"),
      h("ul", { class: "why" }, lines.slice(0, most).map(item), lines.length > most ? h("li", { class: "muted" }, `and ${grouped(lines.length - most)} more`) : null),
      why.commands.length ? h("p", { class: "muted small" }, "On a terminal: ", why.commands.map((command, at) => [at ? " · " : "", h("code", null, command)])) : null));
  }
  const text = JSON.stringify([view.questions, why]);
  if (parts.attention.dataset.text === text) return;
  parts.attention.dataset.text = text;
  put(parts.attention, boxes);
  if (foldedByHand !== null && $("details", parts.attention)) $("details", parts.attention).open = !foldedByHand;
}

function progress(view) {
  const groups = new Set(nodes.filter((node) => node.parent !== null).map((node) => node.parent));
  const counts = new Map();
  let all = 0, over = 0;
  nodes.forEach((node, at) => {
    if (groups.has(at)) return;
    const status = statusOf(node.id);
    counts.set(status, (counts.get(status) ?? 0) + 1);
    all += 1;
    if (OVER.includes(status)) over += 1;
  });
  const n = (status) => counts.get(status) ?? 0;
  const undoable = n("undoing") + n("undone") + n("undo-failed");
  const back = view.status === "rolling-back" || undoable > 0;
  const left = [n("undo-failed") ? `${grouped(n("undo-failed"))} could not be` : "", n("kept") ? `${grouped(n("kept"))} kept as they are` : ""].filter(Boolean);
  const [done, total, text] = back
    ? [n("undone"), undoable, [`${grouped(n("undone"))} of ${plural(undoable, "step")} undone`, ...left].join(", ")]
    : [over, all, `${grouped(over)} of ${plural(all, "step")} over`];
  parts.progress.hidden = total === 0 && !back;
  const bar = h("progress", { max: Math.max(1, total), value: done, "aria-label": text, class: back ? "back" : "" });
  put(parts.progress, bar, h("span", { class: "small muted" }, text));
  const order = ["waiting", "failed", "undo-failed", "interrupted", "running", "undoing", "backoff", "ready", "blocked", "succeeded", "skipped", "cancelled", "undone", "kept"];
  const chips = order.filter((status) => counts.has(status)).map((status) => h("button", {
    type: "button", class: `chip tone-${tone(status)}`, title: `To the next that is ${stateWord(status, isOver())}`, onclick: () => toNext(status),
  }, h("span", { class: "sign", "aria-hidden": "true" }, sign(status)), `${grouped(counts.get(status))} ${stateWord(status, isOver())}`));
  const focused = parts.counts.contains(document.activeElement) ? [...parts.counts.children].indexOf(document.activeElement) : -1;
  put(parts.counts, chips);
  parts.counts.children[focused]?.focus();
}

function toNext(status) {
  const groups = graph.tree;
  const start = detail ? graph.index.get(detail) : -1;
  for (let n = 1; n <= nodes.length; n++) {
    const at = (start + n) % nodes.length;
    if (!groups.isGroup(at) && statusOf(nodes[at].id) === status) return graph.select(at);
  }
}

const json = (value) => (typeof value === "string" ? value : JSON.stringify(value, null, 2));

function table(title, map, none) {
  const rows = Object.entries(map ?? {});
  return h("section", null, h("h2", null, title), rows.length
    ? h("dl", { class: "values" }, rows.map(([name, value]) => h("div", null, h("dt", null, h("code", null, name)), h("dd", null, h("pre", { tabindex: 0 }, json(value))))))
    : h("p", { class: "muted" }, none));
}

function data(view) {
  const text = JSON.stringify([view.inputs, view.outputs, view.status]);
  if (parts.data.dataset.text === text) return;
  parts.data.dataset.text = text;
  put(parts.data, table("Inputs", view.inputs, "This run takes no inputs."),
    table("Outputs", view.outputs, OVER.includes(view.status) ? "This run gives no outputs." : "Outputs are known when the run is over."),
    ...Object.entries(view.output_errors).map(([name, why]) => h("p", null, h("code", null, name), ` could not be worked out: ${why}`)),
    h("section", null, h("h2", null, "About"), pairs([
      ["Run", h("code", null, view.id)], ["Plan", h("code", null, view.digest)], ["Created", date(view.created_at)],
      ["Started", view.started_at && date(view.started_at)], ["Finished", view.finished_at && date(view.finished_at)],
      ["By", view.by], ["From", view.from], ["Scheduled for", view.scheduled_at && date(view.scheduled_at)],
    ])));
}

function select(step) {
  detail = step;
  showStep(step, true);
  const here = new URL(location.href);
  here.searchParams.set("step", step);
  history.replaceState(null, "", here);
}

let shown = {};

/// The step in detail. Its log stays open as long as it is the same attempt.
function showStep(step, fresh) {
  const at = graph.index?.get(step);
  const node = nodes[at];
  const view = steps.get(step);
  if (!node || !view) return;
  if (fresh || shown.step !== step) {
    shown = { step, head: h("div", { class: "detail-head" }), body: h("div", { class: "detail-body" }), choice: h("div", { class: "attempts", role: "group", "aria-label": "Attempts" }), output: h("div", { class: "detail-log" }), attempts: "" };
    put(parts.detail, shown.head, shown.body, shown.choice, shown.output);
    log.close();
  }
  const group = graph.tree.isGroup(at);
  const retry = ["failed", "interrupted"].includes(view.status) && !run.driven && ["failed", "interrupted", "waiting"].includes(run.status);
  const text = JSON.stringify([view, retry, statusOf(step), isOver()]);
  if (shown.text !== text) {
    shown.text = text;
    const focused = shown.head.contains(document.activeElement);
    put(shown.head, h("h2", null, step), badge(statusOf(step), isOver()),
      retry ? h("button", { type: "button", disabled: !may("operator"), onclick: () => actions.retry(step) }, "Retry step…") : null);
    if (focused) (shown.head.querySelector("button") ?? parts.detail).focus();
    const undo = { full: "can be taken back", none: "left as it is", impossible: "cannot be taken back" }[node.undo];
    put(shown.body,
      node.irreversible ? h("p", { class: "point-note" }, "The point of no return: once it succeeded, nothing before it is undone.") : null,
      [["", view.error], ["Undo: ", view.undo_error]].map(([what, error]) => error ? h("div", { class: "callout tone-bad" }, h("p", { class: "callout-title pre" }, what, clean(error.message)), error.help ? h("p", { class: "pre" }, clean(error.help)) : null, h("p", { class: "muted small" }, error.class ?? "")) : null),
      pairs([
        ["Type", h("code", null, node.type)], ["Started", view.started_at && when(view.started_at)],
        ["Took", view.started_at && view.finished_at ? duration(view.finished_at - view.started_at) : null],
        ["Attempts", view.attempts > 1 ? String(view.attempts) : null], ["Changed", view.status === "succeeded" && !group ? (view.changed ? "yes" : "no, it was so already") : null],
        ["Rollback", group ? null : undo], ["Needs", node.needs.length ? h("span", null, node.needs.slice(0, 12).map((need, i) => [i ? ", " : "", h("button", { type: "button", class: "link", onclick: () => graph.select(need) }, nodes[need].id)]), node.needs.length > 12 ? ` and ${node.needs.length - 12} more` : null) : null],
      ]),
      view.outputs && Object.keys(view.outputs).length ? h("details", { open: json(view.outputs).length < 500 }, h("summary", null, "Outputs"), h("pre", { class: "data", tabindex: 0 }, json(view.outputs))) : null);
  }
  if (!group) attempts(step, view);
}

function attempts(step, view) {
  const undone = ["undoing", "undone", "undo-failed"].includes(view.status);
  const key = `${view.attempts}:${undone}`;
  if (shown.attempts === key) return;
  shown.attempts = key;
  const all = Array.from({ length: view.attempts }, (_, n) => ({ label: view.attempts > 1 ? `Attempt ${n + 1}` : "Output", params: { step, attempt: n + 1 } }));
  if (undone) all.push({ label: "Undo", params: { step, undo: true } });
  const live = () => ["running", "undoing"].includes(steps.get(step)?.status);
  const show = (one, at) => {
    [...shown.choice.children].forEach((button, i) => button.setAttribute("aria-pressed", String(i === at)));
    put(shown.output, log.element());
    log.open(id, one.params, live);
  };
  put(shown.choice, all.length > 1 ? all.map((one, at) => h("button", { type: "button", class: "quiet", onclick: () => show(one, at) }, one.label)) : null);
  if (all.length) show(all.at(-1), all.length - 1);
  else put(shown.output, h("p", { class: "muted" }, "It has not started."));
}

function live(event) {
  const status = event.type === "attempt_failed" ? (event.retry_in === undefined ? "failed" : "backoff") : MEANS[event.type];
  const step = steps.get(event.step);
  if (step && status) {
    step.status = status;
    if (event.attempt && event.type === "attempt_started") step.attempts = event.attempt;
    graph.later();
    changed = true;
  }
  events.live(event);
  refresh();
}

let changed = false;
// That a process lets go of a run is no event of it.
setInterval(() => document.hidden || !run || isOver() || refresh(), 3000);
setInterval(() => {
  tick();
  if (changed) graph.refresh();
  changed = false;
}, 250);

page();
try {
  const last = await load();
  const state = $("#link");
  watch(url(`${path}/stream`, { after: last }), live, (there) => {
    state.textContent = there ? "live" : "reconnecting …";
    state.classList.toggle("lost", !there);
  });
} catch (error) {
  alarm(error);
  if (error.status === 404) put($("#content"), empty("There is no such run.", h("p", null, h("a", { href: "/" }, "All runs"))));
}
