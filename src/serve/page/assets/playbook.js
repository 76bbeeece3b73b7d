// One playbook: a form that starts a run, its text with what the check says of it in place, its plan, its runs.

import { $, alarm, announce, empty, h, put, tabs } from "./dom.js";
import { get, post } from "./api.js";
import { may } from "./actions.js";
import { Fields } from "./form.js";
import { badge, duration, plural, sign, tone, values, when } from "./words.js";

const id = document.body.dataset.playbook;
const path = `playbooks/${encodeURIComponent(id)}`;

function alone(content) {
  return h("div", { class: "panel pad" }, content);
}

function startForm(view) {
  if (!view.digest) return empty("It cannot be run.", h("p", null, "Its text was never good since the server started. See what is wrong under Text."));
  const required = new Set(view.inputs?.required ?? []);
  const fields = new Fields(view.inputs?.properties, (name) => required.has(name));
  const onFailure = h("select", { id: "on-failure" }, [["", "As the playbook says"], ["rollback", "Roll back"], ["hold", "Hold"], ["continue", "Go on with what does not depend on it"]].map(([value, text]) => h("option", { value }, text)));
  const parallel = h("input", { id: "parallel", type: "number", min: 1, max: 10000, placeholder: "As the playbook says" });
  const wrong = h("div", { role: "alert", class: "wrong" });
  const go = h("button", { type: "submit", class: "primary", disabled: !may("operator"), title: may("operator") ? null : "takes the role operator" }, "Start a run");
  const plan = h("button", { type: "button", onclick: () => show(false) }, "Show the plan");
  const look = h("button", { type: "button", disabled: !may("operator"), onclick: () => show(true) }, "Look at the live world");
  const planned = h("div", { class: "planned", "aria-live": "polite" });
  async function show(live) {
    put(wrong);
    try {
      put(planned, h("p", { class: "muted" }, live ? "Looking, changing nothing …" : "Planning …"));
      put(planned, planOf(await post(`${path}/${live ? "preview" : "plan"}`, { inputs: given() })));
    } catch (error) {
      put(planned);
      put(wrong, h("p", null, error.message), error.help ? h("p", { class: "muted pre" }, error.help) : null);
    }
  }
  // A field that is left empty and must be filled in is listed by the plan as missing.
  const given = () => Object.fromEntries(Object.entries(fields.values()).filter(([name, value]) => value !== "" || !required.has(name)));
  const submit = async (event) => {
    event.preventDefault();
    put(wrong);
    if (!fields.check()) return;
    go.disabled = true;
    try {
      const body = { playbook: id, inputs: fields.values(), ...(onFailure.value ? { on_failure: onFailure.value } : {}), ...(parallel.value ? { max_parallel: Number(parallel.value) } : {}) };
      const started = await post("runs", body);
      announce(`Run ${started.run} started`);
      location.assign(`/runs/${encodeURIComponent(started.run)}`);
    } catch (error) {
      put(wrong, h("p", null, error.message), error.help ? h("p", { class: "muted pre" }, error.help) : null);
      go.disabled = false;
    }
  };
  return h("form", { class: "start", onsubmit: submit, novalidate: true },
    fields.fields.length ? fields.element : h("p", { class: "muted" }, "It takes no inputs."),
    h("details", { class: "more" }, h("summary", null, "How it runs"),
      h("div", { class: "field" }, h("label", { for: "on-failure" }, "On failure"), onFailure),
      h("div", { class: "field" }, h("label", { for: "parallel" }, "Attempts at once"), parallel)),
    wrong, h("div", { class: "buttons" }, go, plan, look), planned);
}

const UNDO = { full: ["↶", "undone by a rollback"], none: ["–", "left as it is"], impossible: ["✗", "cannot be taken back"] };

function planOf(plan) {
  const rows = [];
  const walk = (steps, depth) => {
    for (const step of steps) {
      const [mark, about] = step.access === "reads" && step.undo === "none" ? ["·", "only looks"] : (UNDO[step.undo] ?? ["", "has steps inside"]);
      const seen = step.preview;
      const change = seen?.changes === true ? "→ " : seen?.changes === false ? "= " : seen ? "? " : "";
      const name = h("td", { data: { name: "Step" } }, h("code", null, step.id), step.irreversible ? h("span", { class: "badge tone-bad" }, "point of no return") : null);
      name.style.setProperty("--depth", depth);
      rows.push(h("tr", { class: step.irreversible ? "plan-point" : "" }, h("td", { data: { name: "Wave" }, class: "muted" }, depth ? "" : String(step.wave)), name,
        h("td", { data: { name: "Type" } }, h("code", { class: "muted" }, step.type)),
        h("td", { data: { name: "Rollback" } }, h("span", { "aria-hidden": "true" }, `${mark} `), about),
        h("td", { data: { name: "What it does" } }, step.when ? h("p", { class: "small" }, "when ", h("code", null, step.when)) : null,
          seen ? h("p", { class: "small pre" }, change, seen.summary ?? seen.error?.message ?? `known after ${seen.known_after}`, seen.details?.length ? `\n${seen.details.join("\n")}` : "") : null)));
      if (step.steps) walk(step.steps, depth + 1);
    }
  };
  // A plan of thousands is read on the page of a run, where it is drawn.
  const most = 500;
  walk(plan.steps, 0);
  if (plan.finally.length) {
    rows.push(h("tr", null, h("th", { colspan: 5, scope: "rowgroup", class: "plan-finally" }, "finally, however it ends")));
    walk(plan.finally, 0);
  }
  const facts = [
    plan.missing_inputs.length ? `to be given: ${plan.missing_inputs.join(", ")}` : null, plan.locks.length ? `locks ${plan.locks.join(", ")}` : null,
    `on failure: ${{ rollback: "roll back", hold: "hold, resumable", continue: "go on with what does not depend on it" }[plan.on_failure]}`,
  ].filter(Boolean);
  return [
    h("h2", null, "Plan"), h("p", { class: "muted" }, facts.join(" · ")),
    h("table", { class: "cards plan" }, h("caption", { class: "hidden" }, "Steps in order"), h("thead", null, h("tr", null, ["Wave", "Step", "Type", "Rollback", "What it does"].map((name) => h("th", { scope: "col" }, name)))), h("tbody", null, rows.slice(0, most))),
    rows.length > most ? h("p", { class: "muted" }, `and ${plural(rows.length - most, "step")} more`) : null,
    plan.keeps.length ? h("details", null, h("summary", null, `A rollback from the end would keep ${plural(plan.keeps.length, "step")}`), h("ul", null, plan.keeps.slice(0, 200).map((one) => h("li", null, h("code", null, one.step), h("span", { class: "muted" }, ` ${one.why}`)))))
      : h("p", null, "A rollback from the end takes everything back."),
  ];
}

/// The text with line numbers; what the check says stands under the line that it is about.
function text(view) {
  const notes = new Map();
  for (const one of view.diagnostics) {
    const label = one.labels.find((l) => true) ?? { line: 1, column: 1, length: 0 };
    if (!notes.has(label.line)) notes.set(label.line, []);
    notes.get(label.line).push({ ...one, label });
  }
  const lines = view.text.replace(/\n$/, "").split("\n").map((line, at) => {
    const here = notes.get(at + 1) ?? [];
    const row = h("div", { class: `source-line ${here.length ? `source-${here[0].severity}` : ""}` }, h("span", { class: "source-number", "aria-hidden": "true" }, String(at + 1)), marked(line, here));
    return [row, here.map((one) => h("div", { class: `source-note tone-${one.severity === "error" ? "bad" : "wait"}` },
      h("p", null, h("span", { class: "sign", "aria-hidden": "true" }, one.severity === "error" ? "✗ " : "! "), h("strong", null, `${one.severity} ${one.code}`), ` ${one.message}`), one.help ? h("p", { class: "muted" }, one.help) : null))];
  });
  const counts = view.errors || view.warnings ? [view.errors ? plural(view.errors, "error") : null, view.warnings ? plural(view.warnings, "warning") : null].filter(Boolean).join(", ") : "No errors, no warnings.";
  return h("div", { class: "panel" }, h("div", { class: "panel-bar" }, h("code", { class: "muted" }, view.file), h("span", null, counts)),
    h("div", { class: "source", tabindex: 0, role: "region", "aria-label": "Text of the playbook" }, lines));
}

/// Underlines what the diagnostics point at. Their columns count characters, from 1.
function marked(line, notes) {
  const chars = [...line];
  const spans = notes.map(({ label }) => [label.column - 1, label.column - 1 + Math.max(1, label.length)]).sort((a, b) => a[0] - b[0]);
  const out = h("span", { class: "source-text" });
  let at = 0;
  for (const [from, to] of spans) {
    if (from < at) continue;
    out.append(chars.slice(at, from).join(""), h("mark", null, chars.slice(from, to).join("")));
    at = Math.min(to, chars.length);
  }
  out.append(chars.slice(at).join(""));
  return out;
}

async function history(box, name) {
  const { runs } = name ? await get("runs", { playbook: name, limit: 100 }) : { runs: [] };
  if (!runs.length) return put(box, h("div", { class: "panel" }, empty("It has not run yet.", h("p", { class: "muted" }, "Start one from the form."))));
  const over = runs.filter((run) => run.finished_at && run.started_at);
  const most = Math.max(1, ...over.map((run) => run.finished_at - run.started_at));
  const chart = h("div", { class: "durations", role: "img", "aria-label": `Durations of the last ${plural(over.length, "run")}, the longest took ${duration(most)}` },
    over.slice(0, 60).reverse().map((run) => {
      const took = run.finished_at - run.started_at;
      const bar = h("span", { class: `bar tone-${tone(run.status)}`, title: `${run.id}: ${run.status}, ${duration(took)}` }, h("span", { class: "sign", "aria-hidden": "true" }, sign(run.status)));
      bar.style.height = `${Math.max(12, (took / most) * 100)}%`;
      return bar;
    }));
  const sorted = over.map((run) => run.finished_at - run.started_at).sort((a, b) => a - b);
  put(box, h("div", { class: "panel pad" }, over.length ? [h("p", { class: "muted" }, `Median ${duration(sorted[Math.floor(sorted.length / 2)])}, longest ${duration(most)}; ${over.filter((run) => run.status === "succeeded").length} of ${over.length} succeeded.`), chart] : null),
    h("div", { class: "panel" }, h("table", { class: "cards" }, h("caption", { class: "hidden" }, "Its runs, newest first"), h("thead", null, h("tr", null, ["State", "Run", "Inputs", "Started", "Took", "By"].map((one) => h("th", { scope: "col" }, one)))),
      h("tbody", null, runs.map((run) => h("tr", null, h("td", { data: { name: "State" } }, badge(run.status)), h("td", { data: { name: "Run" } }, h("a", { href: `/runs/${encodeURIComponent(run.id)}` }, run.id)),
        h("td", { data: { name: "Inputs" } }, h("span", { class: "inputs mono" }, values(run.inputs))), h("td", { data: { name: "Started" } }, run.started_at ? when(run.started_at) : ""),
        h("td", { data: { name: "Took" } }, run.finished_at && run.started_at ? duration(run.finished_at - run.started_at) : ""), h("td", { data: { name: "By" } }, run.by ?? "")))))));
}

try {
  const view = await get(path);
  document.title = `${view.name ?? view.id} · runback`;
  put($("#title"), view.name ?? view.id);
  const runs = h("div", null);
  const panels = [["start", "Start", alone(startForm(view))], ["text", view.errors ? `Text (${plural(view.errors, "error")})` : "Text", text(view)],
    ["history", "Runs", runs, () => history(runs, view.name).catch(alarm)]];
  const all = tabs("Views of the playbook", panels);
  const broken = view.broken ? h("div", { class: "alarm" }, h("p", null, h("strong", null, "✗ The file is broken now. "), view.digest ? "What runs is the last text that was good. " : "It was never good since the server started, so nothing of it runs. ",
    h("button", { type: "button", class: "link", onclick: () => all.show("text") }, `Show ${plural(view.errors, "error")}`))) : null;
  put($("#content"), broken, view.description ? h("p", { class: "lead" }, view.description) : null, all.list, all.panels);
  if (!view.digest) all.show("text");
} catch (error) {
  alarm(error);
}
