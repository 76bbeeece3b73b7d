// The list of runs: filtered, paged, and live.

import { $, alarm, announce, empty, h, put } from "./dom.js";
import { get, throttled, url, watch } from "./api.js";
import { broken } from "./broken.js";
import { calendar } from "./calendar.js";
import { badge, duration, values, when } from "./words.js";

const PAGE = 50;
const STATES = [
  ["", "Any state"], ["waiting,failed,stuck,interrupted", "Needs a person"], ["running,waiting,rolling-back", "Not over"], ["running", "Running"], ["waiting", "Waiting"],
  ["rolling-back", "Rolling back"], ["succeeded", "Succeeded"], ["failed", "Failed, held"], ["rolled-back", "Rolled back"], ["stuck", "Stuck"], ["cancelled", "Cancelled"], ["interrupted", "Interrupted"],
];
const TIMES = [["", "Any time"], ["1", "Last hour"], ["24", "Last day"], ["168", "Last week"], ["720", "Last 30 days"]];

const query = new URLSearchParams(location.search);
/// The last run of each page before this one.
let before = query.get("after") ? query.get("after").split(",") : [];
const known = new Map();

const select = (name, label, options) => h("select", { name, "aria-label": label, onchange: () => filter() },
  options.map(([value, text]) => h("option", { value, selected: query.get(name) === value }, text)));
const filters = {
  playbook: h("input", { name: "playbook", type: "search", list: "playbooks", placeholder: "Any playbook", "aria-label": "Playbook", value: query.get("playbook") ?? "", onchange: () => filter() }),
  status: select("status", "State", STATES), hours: select("hours", "Time", TIMES),
  text: h("input", { name: "text", type: "search", placeholder: "Text in inputs or id", "aria-label": "Text in inputs or id", value: query.get("text") ?? "", oninput: () => soon() }),
};
const body = h("tbody");
const table = h("table", { class: "cards" }, h("caption", { class: "hidden" }, "Runs, newest first"),
  h("thead", null, h("tr", null, ["State", "Playbook", "Inputs", "Started", "Took", "By", "Run"].map((name) => h("th", { scope: "col" }, name)))), body);
const list = h("div", { class: "panel", id: "list" });
const pager = h("nav", { class: "pager", "aria-label": "Pages" });
const strip = h("div", { id: "calendar" });
const load = h("p", { class: "muted load" });

let typing = 0;
function soon() {
  clearTimeout(typing);
  typing = setTimeout(filter, 250);
}

function filter() {
  before = [];
  known.clear();
  remember();
  update();
}

function remember() {
  const now = new URLSearchParams();
  for (const [name, control] of Object.entries(filters)) if (control.value) now.set(name, control.value);
  if (before.length) now.set("after", before.join(","));
  history.replaceState(null, "", now.size ? `?${now}` : location.pathname);
}

const filtered = () => Object.values(filters).some((control) => control.value);

async function read() {
  const hours = Number(filters.hours.value);
  const { runs } = await get("runs", {
    playbook: filters.playbook.value.trim(), status: filters.status.value, text: filters.text.value.trim(),
    since: hours ? Date.now() - hours * 3_600_000 : null, after: before.at(-1), limit: PAGE + 1,
  });
  return runs;
}

const cell = (name, ...content) => h("td", { data: { name } }, content);

function row(run) {
  const took = h("span", { data: run.finished_at || !run.started_at || !run.driven ? {} : { since: run.started_at } },
    run.started_at ? duration((run.finished_at ?? Date.now()) - run.started_at) : "");
  const given = values(run.inputs);
  return h("tr", { data: { run: run.id } },
    cell("State", badge(run.status)),
    cell("Playbook", h("a", { class: "row-link", href: `/runs/${encodeURIComponent(run.id)}` }, run.playbook ?? "?"), run.schedule ? h("span", { class: "muted small" }, " by schedule") : null),
    cell("Inputs", given ? h("span", { class: "inputs mono", title: given }, given) : null), cell("Started", run.started_at ? when(run.started_at) : h("span", { class: "muted" }, "not yet")),
    cell("Took", run.finished_at || run.driven ? took : ""), cell("By", run.by ?? ""), cell("Run", h("code", { class: "muted" }, run.id)));
}

function show(runs) {
  if (!runs.length) {
    put(list, filtered() || before.length
      ? empty("No run is like that.", h("p", null, h("button", { type: "button", onclick: clear }, "Clear the filters")))
      : empty("No runs yet.", h("p", null, "On a terminal: ", h("code", null, "runback run FILE"), ", or start one from ", h("a", { href: "/playbooks" }, "Playbooks"), ".")));
    return;
  }
  if (!table.isConnected) put(list, table);
  const rows = new Map([...body.children].map((element) => [element.dataset.run, element]));
  let at = body.firstElementChild;
  for (const run of runs) {
    const text = JSON.stringify(run);
    const old = rows.get(run.id);
    let element = old;
    if (!old || known.get(run.id)?.text !== text) {
      const status = known.get(run.id)?.status;
      if (status && status !== run.status) announce(`${run.playbook} ${run.id}: ${run.status.replace("-", " ")}`);
      const focused = old?.contains(document.activeElement);
      element = row(run);
      if (old) {
        if (at === old) at = element;
        old.replaceWith(element);
        if (focused) element.querySelector("a")?.focus();
      }
      known.set(run.id, { text, status: run.status });
    }
    rows.delete(run.id);
    if (element !== at) body.insertBefore(element, at);
    else at = at.nextElementSibling;
  }
  for (const gone of rows.values()) gone.remove();
}

function clear() {
  for (const control of Object.values(filters)) control.value = "";
  filter();
  filters.text.focus();
}

let shown = [];
const newer = h("button", { type: "button", onclick: () => turn(before.slice(0, -1)) }, "← Newer");
const older = h("button", { type: "button", onclick: () => turn([...before, shown.at(-1).id]) }, "Older →");
const place = h("span", { class: "muted" });

function pages(runs, more) {
  shown = runs;
  newer.disabled = before.length === 0;
  older.disabled = !more;
  const first = before.length * PAGE + 1;
  put(place, runs.length ? `${first} to ${first + runs.length - 1}` : "");
  if (!more && !before.length) put(pager);
  else if (!newer.isConnected) put(pager, newer, place, older);
}

function turn(to) {
  before = to;
  remember();
  update().then(() => table.scrollIntoView({ block: "nearest" }));
}

let reading = 0;
async function update() {
  const own = ++reading;
  try {
    const [runs, status] = await Promise.all([read(), get("status")]);
    if (own !== reading) return;
    const page = runs.slice(0, PAGE);
    show(page);
    pages(page, runs.length > PAGE);
    put(load, `${status.running} running · ${status.waiting} waiting for a person · ${status.queued} queued, of at most ${status.max_runs} at once`);
    broken(status.broken);
  } catch (error) {
    if (error.status !== 0) alarm(error);
  }
}

const refresh = throttled(update, 500);

put($("#content"), strip, h("form", { class: "filters", role: "search", onsubmit: (event) => event.preventDefault() }, Object.values(filters), h("datalist", { id: "playbooks" })), list, pager, load);
// A whole row leads to its run; its link is what the keyboard reaches.
body.addEventListener("click", (event) => {
  const link = event.target.closest("tr")?.querySelector("a.row-link");
  if (link && !event.target.closest("a") && !getSelection().toString()) location.assign(link.href);
});
setInterval(() => {
  for (const element of body.querySelectorAll("[data-since]")) element.textContent = duration(Date.now() - Number(element.dataset.since));
}, 1000);
get("playbooks").then(({ playbooks }) => put($("#playbooks"), playbooks.filter((one) => one.name).map((one) => h("option", { value: one.name }))), () => {});
await update();
calendar(strip);
const state = $("#link");
watch(url("changes"), () => refresh(), (there) => {
  state.textContent = there ? "live" : "reconnecting …";
  state.classList.toggle("lost", !there);
  // What changed before the stream was there, or while it was away.
  if (there) refresh();
});
