// What the tests do and look for on a page, whichever it is.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");

/// Fails with what went wrong in the page, and closes it.
export async function done(page) {
  assert.deepEqual(page.wrong, []);
  await page.context().close();
}

export const status = (page) => page.locator(".run-state .badge").getAttribute("data-status");
export const reaches = (page, wanted) => page.waitForSelector(`.run-state .badge[data-status="${wanted}"]`);
export const step = (page, name) => page.locator(".node", { has: page.getByText(name, { exact: true }) }).first();

export async function violations(page) {
  // The policy of the page forbids scripts of others; the debugger's protocol may add one.
  await page.evaluate(axe);
  const { violations } = await page.evaluate(() => window.axe.run(document, { resultTypes: ["violations"] }));
  return violations.filter((one) => ["serious", "critical"].includes(one.impact)).map((one) => `${one.id}: ${one.nodes.map((node) => `${node.html.slice(0, 160)} ${node.any[0]?.message ?? ""}`).slice(0, 3).join(" | ")}`);
}

/// The tasks of the page's main thread meanwhile, in milliseconds: of the processor, and of the clock, which on a busy
/// machine tells more of the machine than of the page.
export async function traced(page, act) {
  const debug = await page.context().newCDPSession(page);
  const events = [];
  debug.on("Tracing.dataCollected", ({ value }) => events.push(...value));
  await debug.send("Tracing.start", { transferMode: "ReportEvents", traceConfig: { includedCategories: ["devtools.timeline", "disabled-by-default-devtools.timeline", "toplevel"] } });
  await act();
  const complete = new Promise((done) => debug.once("Tracing.tracingComplete", done));
  await debug.send("Tracing.end");
  await complete;
  const main = new Set(events.filter((event) => event.name === "thread_name" && event.args.name === "CrRendererMain").map((event) => `${event.pid}:${event.tid}`));
  const tasks = events.filter((event) => event.ph === "X" && event.name.endsWith("RunTask") && main.has(`${event.pid}:${event.tid}`));
  assert.ok(tasks.length > 100, `only ${tasks.length} tasks were seen`);
  assert.ok(tasks.some((task) => task.tdur > 0), "the browser measures the processor's time");
  return tasks.map((task) => ({ cpu: (task.tdur ?? 0) / 1000, wall: task.dur / 1000 }));
}
