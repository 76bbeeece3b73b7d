// Playbooks that are broken now, said loudly at the top of the page. What a text should be it does not know.

import { $, h, put } from "./dom.js";
import { plural } from "./words.js";

let told = null;

/// `ids` as the status of the server has them. Says nothing twice.
export function broken(ids) {
  if (told === ids.join()) return;
  told = ids.join();
  const links = ids.map((id, at) => [at ? ", " : "", h("a", { href: `/playbooks/${encodeURIComponent(id)}` }, id)]);
  const text = `${plural(ids.length, "playbook")} cannot be read as ${ids.length === 1 ? "it is" : "they are"} now; the last good text stays in use, and without one nothing runs: `;
  put($("#alarms"), ids.length ? h("div", { class: "alarm" }, h("p", null, h("strong", null, "✗ "), text, links)) : null);
}
