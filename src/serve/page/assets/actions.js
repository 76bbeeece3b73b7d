// What can be done to a run: each asks in a dialog first, and says there what will happen.

import { announce, h, problem, put } from "./dom.js";
import { get, post } from "./api.js";
import { Fields, secretFields } from "./form.js";
import { plural } from "./words.js";

const roles = () => (document.body.dataset.roles ?? "").split(" ");
export const may = (role) => roles().includes(role) || roles().includes("admin");

/// A question with a way out. `act` is called on yes; what it throws is shown, and the dialog stays. The keyboard begins
/// in the first field, else on yes; where yes does harm, on the way out.
export function ask({ title, body, yes, danger, act }) {
  const opener = document.activeElement;
  const wrong = h("div", { role: "alert", class: "wrong" });
  const go = h("button", { type: "submit", class: danger ? "danger" : "primary" }, yes);
  const leave = h("button", { type: "button", onclick: () => dialog.close() }, "Leave it");
  const form = h("form", {
    method: "dialog", novalidate: true,
    onsubmit: async (event) => {
      event.preventDefault();
      if (go.disabled) return;
      go.disabled = true;
      put(wrong);
      try {
        const done = await act();
        if (done !== false) dialog.close();
      } catch (error) {
        put(wrong, problem(error));
      }
      go.disabled = false;
    },
  }, h("h2", { id: "ask-title" }, title), h("div", { class: "ask-body" }, body), wrong, h("div", { class: "ask-buttons" }, leave, go));
  const dialog = h("dialog", { "aria-labelledby": "ask-title", onclose: () => {
    dialog.remove();
    back(opener);
  } }, form);
  document.body.append(dialog);
  dialog.showModal();
  (danger ? leave : (form.querySelector(".ask-body :is(input, select, textarea)") ?? go)).focus();
}

/// The focus goes back to where it was, or, where that was drawn anew, to its like.
function back(opener) {
  if (opener?.isConnected) return opener.focus();
  const like = [...document.querySelectorAll("main button")].find((one) => one.textContent === opener?.textContent && !one.disabled);
  (like ?? document.querySelector("#main")).focus();
}

/// A list that may be long, folded where it is.
function steps(title, list) {
  if (!list.length) return null;
  const most = 200;
  const more = list.length > most ? h("li", { class: "muted" }, `and ${plural(list.length - most, "more step")}`) : null;
  const item = (one) => h("li", null, h("code", null, one.step ?? one), one.why ? h("span", { class: "muted" }, `: ${one.why}`) : null);
  return h("details", { open: list.length < 9 }, h("summary", null, title), h("ol", null, list.slice(0, most).map(item), more));
}

/// What a rollback would do, in words. `would` as the server tells it.
function taken(would) {
  const { undo, keep, past } = would;
  return [
    past ? h("p", { class: "warn" }, h("strong", null, "Past the point of no return. "), h("code", null, past), " succeeded: it stays, and so does what came before it.") : null,
    steps(undo.length ? `${plural(undo.length, "step")} ${undo.length === 1 ? "is" : "are"} undone, the last one first` : "", undo),
    undo.length ? null : h("p", null, "There is nothing to undo."),
    steps(`${plural(keep.length, "step")} cannot be undone, and ${keep.length === 1 ? "stays" : "stay"}`, keep),
  ];
}

export class Actions {
  /// `view()` is the run as it was read last; `after` is called when something was done.
  constructor(id, view, graph, after) {
    Object.assign(this, { id, view, graph, after });
  }

  async send(what, body) {
    const done = await post(`runs/${encodeURIComponent(this.id)}/${what}`, body);
    announce(done.done);
    this.after(done.done);
  }

  /// What a rollback that began now would do; null where it cannot be told.
  would() {
    return get(`runs/${encodeURIComponent(this.id)}/rollback`).catch(() => null);
  }

  /// Puts the buttons for what can be done now into a place, the first one first in mind. They stay the same elements
  /// as long as they are the same buttons, so that whoever is on one stays on it.
  show(place) {
    const { status, driven, questions } = this.view();
    const all = [];
    const button = (text, role, act, kind = "") => all.push({ text, role, act, kind });
    if (questions.length) {
      button("Approve…", "approver", () => this.answer(this.view().questions[0], true), "primary");
      button("Refuse…", "approver", () => this.answer(this.view().questions[0], false));
    }
    if (!driven && ["failed", "interrupted", "waiting", "rolling-back"].includes(status)) {
      button("Resume…", "operator", () => this.resume(), questions.length ? "" : "primary");
    }
    const live = ["running", "waiting", "rolling-back"].includes(status);
    if (driven && live) {
      if (status !== "rolling-back") button("Hold…", "operator", () => this.hold());
      button("Cancel…", "operator", () => this.cancel(), "danger-quiet");
    }
    const over = ["succeeded", "failed", "interrupted", "stuck"].includes(status);
    if (over || (status === "waiting" && !driven)) button("Roll back…", "operator", () => this.rollback(), "danger-quiet");
    const key = JSON.stringify(all);
    if (place.dataset.shown === key) return;
    place.dataset.shown = key;
    const had = place.contains(document.activeElement) ? document.activeElement.textContent : null;
    const made = all.map(({ text, role, act, kind }) => h("button", { type: "button", class: kind, disabled: !may(role), title: may(role) ? null : `takes the role ${role}`, onclick: act }, text));
    put(place, made);
    if (had !== null) (made.find((one) => one.textContent === had) ?? made[0] ?? document.querySelector("#main")).focus();
  }

  async answer({ step, question, answers }, approved) {
    const fields = new Fields((approved && question.form) || {}, (_, input) => input.default === undefined);
    const reason = h("textarea", { id: "reason", rows: 2 });
    const given = answers.filter((one) => one.approved).map((one) => one.by);
    const nodes = this.graph();
    const next = nodes.filter((node) => node.needs.some((need) => nodes[need].id === step)).map((node) => node.id);
    const points = nodes.filter((node) => next.includes(node.id) && node.irreversible).map((node) => node.id);
    const names = `${next.slice(0, 4).join(", ")}${next.length > 4 ? ` and ${next.length - 4} more` : ""}`;
    const digest = this.view().digest ?? "";
    const what = approved
      ? [h("p", null, question.min_approvals > 1 ? `${given.length} of ${question.min_approvals} said yes so far${given.length ? ` (${given.join(", ")})` : ""}. ` : "",
        next.length ? `When it is approved, ${names} can start.` : "When it is approved, the run goes on."),
      points.length ? h("p", { class: "warn" }, `${points.join(", ")}: once that succeeded, nothing before it is undone.`) : null]
      : [h("p", null, "The step fails, one refusal is enough. Then, as after every failure of this run: ", this.onFailure(), "."), this.afterFailure(await this.would())];
    ask({
      title: approved ? `Approve ${step}?` : `Refuse ${step}?`, yes: approved ? "Approve" : "Refuse", danger: !approved,
      body: [
        h("p", { class: "prompt" }, question.prompt), what, fields.element,
        h("div", { class: "field" }, h("label", { for: "reason" }, "Reason"), reason, h("p", { class: "hint" }, "Kept in the journal, with your name.")),
        h("p", { class: "muted small" }, "Bound to the plan ", h("code", { title: digest }, digest.slice(0, 12)), ": if the run is of another one, your answer does not count."),
      ],
      act: async () => {
        if (approved && !fields.check()) return false;
        await this.send(approved ? "approve" : "refuse", { step, reason: reason.value || null, digest, ...(approved ? { fields: fields.values() } : {}) });
      },
    });
  }

  onFailure() {
    return { rollback: "it takes back what it did", hold: "it is held as it stands", continue: "it goes on with what does not depend on it" }[this.policy ?? "rollback"];
  }

  /// The steps that the policy takes back; nothing for the other policies.
  afterFailure(would) {
    return (this.policy ?? "rollback") === "rollback" && would ? taken(would) : null;
  }

  hold() {
    const running = this.view().steps.filter((step) => step.status === "running" && !this.groups().has(step.id)).map((step) => step.id);
    ask({
      title: "Hold this run?", yes: "Hold",
      body: [
        h("p", null, "Nothing new starts. Nothing is undone. Everything stays as it is, and the run can be resumed or rolled back."),
        running.length ? steps(`${plural(running.length, "step")} may finish first`, running) : h("p", null, "No step runs now."),
      ],
      act: () => this.send("hold"),
    });
  }

  groups() {
    const nodes = this.graph();
    return new Set(nodes.filter((node) => node.parent !== null).map((node) => nodes[node.parent].id));
  }

  async cancel() {
    if (this.view().status === "rolling-back") return this.leave();
    const now = h("input", { type: "checkbox", id: "now", onchange: () => (then.hidden = now.checked) });
    const then = h("div", null, h("p", null, "Then, as after a failure: ", this.onFailure(), "."), this.afterFailure(await this.would()));
    ask({
      title: "Cancel this run?", yes: "Cancel the run", danger: true,
      body: [
        h("p", null, "Nothing new starts, and what runs is stopped (TERM, then KILL)."), then,
        h("div", { class: "field field-check" }, now, h("label", { for: "now" }, "Stop at once"), h("p", { class: "hint" }, "Takes nothing back, and leaves the run resumable.")),
      ],
      act: () => this.send("cancel", { now: now.checked }),
    });
  }

  /// Stops a rollback.
  leave() {
    const undone = this.view().steps.filter((step) => step.status === "undone").length;
    ask({
      title: "Stop the rollback?", yes: "Stop at once", danger: true,
      body: [
        h("p", null, `The undo that runs is stopped at once. ${plural(undone, "step")} ${undone === 1 ? "is" : "are"} undone by now; what is not stays as it is, half undone.`),
        h("p", null, "The run is left where it stands: resume it, and the rollback goes on."),
      ],
      act: () => this.send("cancel", { now: true }),
    });
  }

  resume() {
    const { doubts, steps: all } = this.view();
    const groups = this.groups();
    const cut = doubts.length ? [] : all.filter((step) => step.status === "interrupted" && !groups.has(step.id)).map((step) => step.id).slice(0, 5);
    const again = all.filter((step) => ["failed", "cancelled"].includes(step.status) && !groups.has(step.id)).map((step) => step.id);
    const secrets = secretFields(this.secrets ?? []);
    const choices = doubts.map((doubt) => ({ doubt, select: this.resolution(doubt.step) }));
    ask({
      title: "Resume this run?", yes: "Resume",
      body: [
        h("p", null, "The run goes on where it stopped. Nothing that is done is done again."),
        cut.length ? h("p", null, `Whether ${cut.join(", ")} did its work is not known: what can tell is asked, and where nothing can, you are.`) : null,
        steps(`${plural(again.length, "step")} ${again.length === 1 ? "starts" : "start"} anew`, again),
        choices.length ? h("p", null, `Nobody knows what ${choices.length === 1 ? "this step" : "these steps"} did. Look, and say what is to happen:`) : null,
        choices.map(({ doubt, select }) => h("div", { class: "field" }, h("label", { for: select.id }, doubt.step), select, h("p", { class: "hint" }, doubt.why ?? "Nobody knows what it did."))),
        secrets.element,
      ],
      act: () => this.send("resume", {
        steps: Object.fromEntries(choices.map(({ doubt, select }) => [doubt.step, select.value])), secret_inputs: secrets.values(),
      }),
    });
  }

  resolution(step) {
    const options = [["redo", "Do it again"], ["done", "It is done: go on after it"], ["fail", "It failed"], ["skip", "Skip it"]];
    return h("select", { id: `resolve-${step}` }, options.map(([value, text]) => h("option", { value }, text)));
  }

  retry(step) {
    const secrets = secretFields(this.secrets ?? []);
    const others = this.view().steps.filter((one) => one.id !== step && ["failed", "cancelled"].includes(one.status) && !this.groups().has(one.id)).map((one) => one.id);
    // What has stopped goes on as a whole: the server refuses to try one of several failures alone.
    if (this.view().status === "failed" && this.view().steps.some((one) => others.includes(one.id) && one.status === "failed")) return this.resume();
    ask({
      title: `Retry ${step}?`, yes: "Retry",
      body: [h("p", null, "It starts anew, its attempts are counted on, and the run goes on from there. What is done is not done again."), steps(`${plural(others.length, "other step")} that did not succeed ${others.length === 1 ? "starts" : "start"} anew too`, others), secrets.element],
      act: () => this.send("retry", { step, secret_inputs: secrets.values() }),
    });
  }

  async rollback() {
    const { driven, status } = this.view();
    const would = await this.would();
    const force = h("input", { type: "checkbox", id: "force" });
    const secrets = secretFields(this.secrets ?? []);
    ask({
      title: "Roll this run back?", yes: "Roll back", danger: true,
      body: [
        driven ? h("p", null, "What runs is stopped first.") : null,
        would ? taken(would) : h("p", { class: "warn" }, "The server does not say which steps would be undone."),
        h("p", { class: "muted" }, "Each step is undone only where the world still is as it left it. Otherwise it is reported, and left to you."),
        h("div", { class: "field field-check" }, force, h("label", { for: "force" }, "Undo also where the world has changed since"), status === "stuck" ? h("p", { class: "hint" }, "An undo failed: look at why first.") : null),
        secrets.element,
      ],
      act: () => this.send("rollback", { force: force.checked, secret_inputs: secrets.values() }),
    });
  }
}
