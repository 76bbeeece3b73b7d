// The list of the folder's playbooks.

import { $, alarm, empty, h, put } from "./dom.js";
import { get } from "./api.js";
import { broken } from "./broken.js";
import { plural } from "./words.js";

function card(one) {
  const href = `/playbooks/${encodeURIComponent(one.id)}`;
  const state = one.broken
    ? h("span", { class: "badge tone-bad" }, h("span", { class: "sign", "aria-hidden": "true" }, "✗"), plural(one.errors, "error"))
    : one.warnings ? h("span", { class: "badge tone-wait" }, h("span", { class: "sign", "aria-hidden": "true" }, "!"), plural(one.warnings, "warning")) : null;
  return h("li", { class: "panel card" },
    h("div", { class: "card-head" }, h("h2", null, h("a", { href }, one.name ?? one.id)), state),
    h("p", { class: "card-text" }, one.description ?? h("span", { class: "muted" }, one.broken ? "It was never good since the server started." : "No description.")),
    h("p", { class: "muted small" }, h("code", null, one.id), ` · ${plural(one.steps, "step")}`, one.schedules ? ` · ${plural(one.schedules, "schedule")}` : "", one.broken && one.name ? " · the last good text stays in use" : ""));
}

try {
  const { playbooks } = await get("playbooks");
  broken(playbooks.filter((one) => one.broken).map((one) => one.id));
  put($("#content"), playbooks.length
    ? h("ul", { class: "cards-list" }, playbooks.map(card))
    : h("div", { class: "panel" }, empty("No playbooks.", h("p", null, "Start the server with ", h("code", null, "--playbooks DIR"), " to run and schedule what is in a folder."))));
} catch (error) {
  alarm(error);
}
