// What can be done to a run: each asks in a dialog first, and says there what will happen.

import { announce, h, problem, put } from "./dom.js";
import { get, post } from "./api.js";
import { Fields, secretFields } from "./form.js";
import { plural } from "./words.js";

const roles = () => (document.body.dataset.roles ?? "").split(" ");
export const may = (role) => roles().includes(role) || roles().includes("admin");

/// A question with a way out. `act` is called on yes; what it throws is shown, and the dialog stays.
export function ask({ title, body, yes, danger, act }) {
  const wrong = h("div", { role: "alert", class: "wrong" });
  const go = h("button", { type: "submit", class: danger ? "danger" : "primary" }, yes);
  const form = h("form", {
    method: "dialog", novalidate: true,
    onsubmit: async (event) => {
      event.preventDefault();
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
  }, h("h2", { id: "ask-title" }, title), h("div", { class: "ask-body" }, body), wrong,
  h("div", { class: "ask-buttons" }, h("button", { type: "button", onclick: () => dialog.close() }, "Leave it"), go));
  const dialog = h("dialog", { "aria-labelledby": "ask-title", onclose: () => dialog.remove() }, form);
  document.body.append(dialog);
  dialog.showModal();
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

  /// Buttons for what can be done now, the first one first in mind.
  buttons() {
    const { status, driven, questions } = this.view();
    const all = [];
    const button = (text, role, act, kind = "") => {
      const allowed = may(role);
      all.push(h("button", { type: "button", class: kind, disabled: !allowed, title: allowed ? null : `takes the role ${role}`, onclick: act }, text));
    };
    if (questions.length) {
      button("Approve…", "approver", () => this.answer(questions[0], true), "primary");
      button("Refuse…", "approver", () => this.answer(questions[0], false));
    }
    if (!driven && ["failed", "interrupted", "waiting"].includes(status)) {
      button("Resume…", "operator", () => this.resume(), questions.length ? "" : "primary");
    }
    const live = ["running", "waiting", "rolling-back"].includes(status);
    if (driven && live) {
      if (status !== "rolling-back") button("Hold…", "operator", () => this.hold());
      button("Cancel…", "operator", () => this.cancel(), "danger-quiet");
    }
    if (["succeeded", "failed", "interrupted", "stuck"].includes(status) || (status === "waiting" && !questions.length)) {
      button("Roll back…", "operator", () => this.rollback(), "danger-quiet");
    }
    return all;
  }

  answer({ step, question, answers }, approved) {
    const inputs = approved && question.form ? question.form : {};
    const fields = new Fields(inputs, (_, input) => input.default === undefined);
    const reason = h("textarea", { id: "reason", rows: 2 });
    const given = answers.filter((one) => one.approved).map((one) => one.by);
    const next = this.graph().filter((node) => node.needs.some((need) => this.graph()[need].id === step)).map((node) => node.id);
    const what = approved
      ? [question.min_approvals > 1 ? `${given.length} of ${question.min_approvals} said yes so far${given.length ? ` (${given.join(", ")})` : ""}. ` : "",
        next.length ? `When it is approved, ${next.slice(0, 4).join(", ")}${next.length > 4 ? ` and ${next.length - 4} more` : ""} can start.` : "When it is approved, the run goes on."]
      : ["The step fails, and the run does what it does on a failure: ", this.onFailure(), "."];
    ask({
      title: approved ? `Approve ${step}?` : `Refuse ${step}?`, yes: approved ? "Approve" : "Refuse", danger: !approved,
      body: [
        h("p", { class: "prompt" }, question.prompt), h("p", null, what), fields.element,
        h("div", { class: "field" }, h("label", { for: "reason" }, "Reason"), reason, h("p", { class: "hint" }, "Kept in the journal, with your name.")),
        h("p", { class: "muted small" }, "Binds to the plan ", h("code", null, (this.view().digest ?? "").slice(0, 12)), "."),
      ],
      act: async () => {
        if (approved && !fields.check()) return false;
        await this.send(approved ? "approve" : "refuse", {
          step, reason: reason.value || null, digest: this.view().digest, ...(approved ? { fields: fields.values() } : {}),
        });
      },
    });
  }

  onFailure() {
    return { rollback: "it takes back what it did", hold: "it is held as it stands", continue: "it goes on with what does not depend on it" }[this.policy ?? "rollback"];
  }

  hold() {
    const running = this.view().steps.filter((step) => step.status === "running").length;
    ask({
      title: "Hold this run?", yes: "Hold",
      body: h("p", null, `Nothing new starts. What runs (${plural(running, "step")}) may finish. Everything stays as it is, and the run can be resumed or rolled back.`),
      act: () => this.send("hold"),
    });
  }

  cancel() {
    const now = h("input", { type: "checkbox", id: "now" });
    ask({
      title: "Cancel this run?", yes: "Cancel the run", danger: true,
      body: [
        h("p", null, "Nothing new starts, and what runs is stopped (TERM, then KILL). Then, as after a failure: ", this.onFailure(), "."),
        h("div", { class: "field field-check" }, now, h("label", { for: "now" }, "Stop at once"), h("p", { class: "hint" }, "Takes nothing back, and leaves the run resumable.")),
      ],
      act: () => this.send("cancel", { now: now.checked }),
    });
  }

  resume() {
    const { doubts, steps } = this.view();
    const failed = steps.filter((step) => ["failed", "cancelled"].includes(step.status));
    const secrets = secretFields(this.secrets ?? []);
    const choices = doubts.map((doubt) => ({ doubt, select: this.resolution(doubt.step) }));
    ask({
      title: "Resume this run?", yes: "Resume",
      body: [
        h("p", null, failed.length ? `What failed starts anew (${failed.slice(0, 5).map((step) => step.id).join(", ")}), and the run goes on from there.` : "The run goes on where it stopped. Nothing that is done is done again."),
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
    ask({
      title: `Retry ${step}?`, yes: "Retry",
      body: [h("p", null, "It starts anew with its attempts counted from where they are, and the run goes on from there. Other steps that failed start anew too."), secrets.element],
      act: () => this.send("retry", { step, secret_inputs: secrets.values() }),
    });
  }

  async rollback() {
    const { steps, driven, status } = this.view();
    const plan = await get(`runs/${encodeURIComponent(this.id)}/plan`).catch(() => null);
    const groups = new Set(this.graph().map((node) => node.parent).filter((at) => at !== null).map((at) => this.graph()[at].id));
    const done = steps.filter((step) => ["succeeded", "failed", "interrupted", "undo-failed", "kept"].includes(step.status) && !groups.has(step.id));
    const looks = new Set(this.graph().filter((node) => node.undo === "none").map((node) => node.id));
    const point = this.graph().find((node) => node.irreversible && steps.find((step) => step.id === node.id)?.status === "succeeded");
    const undone = done.filter((step) => !looks.has(step.id)).reverse();
    const force = h("input", { type: "checkbox", id: "force" });
    const secrets = secretFields(this.secrets ?? []);
    const kept = plan?.keeps ?? [];
    ask({
      title: "Roll this run back?", yes: "Roll back", danger: true,
      body: [
        point ? h("p", { class: "warn" }, h("strong", null, "Past the point of no return. "), `${point.id} succeeded: what came before it stays.`) : null,
        h("p", null, driven ? "What runs is stopped first. Then " : "", `${plural(undone.length, "step")} ${undone.length === 1 ? "is" : "are"} undone, the last one first, where the world still is as the step left it.`),
        undone.length ? h("details", { open: undone.length < 9 }, h("summary", null, "In this order"), h("ol", null, undone.slice(0, 200).map((step) => h("li", null, step.id)))) : null,
        kept.length ? h("details", null, h("summary", null, `${plural(kept.length, "step")} would be kept`), h("ul", null, kept.slice(0, 200).map((one) => h("li", null, one.step, h("span", { class: "muted" }, ` ${one.why}`))))) : null,
        h("div", { class: "field field-check" }, force, h("label", { for: "force" }, "Undo also where the world has changed since"), h("p", { class: "hint" }, status === "stuck" ? "An undo failed: look at why first." : "Otherwise such a step is reported, and left.")),
        secrets.element,
      ],
      act: () => this.send("rollback", { force: force.checked, secret_inputs: secrets.values() }),
    });
  }
}
