// Every page and every dialog, for those who do not see or do not see well, in light, in dark and at 400 pixels.

import assert from "node:assert/strict";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { done, violations } from "./person.mjs";
import { enter, start } from "./server.mjs";

let world;
const runs = {};

before(async () => {
  world = await start();
  writeFileSync(join(world.tier, "go"), "");
  const page = await enter(world);
  const begin = (playbook, inputs, on_failure) => page.evaluate(async (body) => {
    const headers = { "content-type": "application/json" };
    return (await (await fetch("/api/v1/runs", { method: "POST", headers, body: JSON.stringify(body) })).json()).run;
  }, { playbook, inputs, on_failure });
  runs.waiting = await begin("release", { version: "1.0", dir: world.tier });
  runs.long = await begin("long", {});
  runs.held = await begin("steady", { dir: world.tier });
  for (const [run, status] of [[runs.waiting, "waiting"], [runs.held, "failed"]]) {
    await page.goto(`${world.address}/runs/${run}`);
    await page.waitForSelector(`.run-state .badge[data-status=${status}]`);
  }
  await done(page);
}, { timeout: 120_000 });
after(() => world?.stop());

/// Goes everywhere; `look` is called with a name at each stop.
async function everywhere(page, look) {
  const go = async (place, wanted) => {
    await page.goto(world.address + place);
    await page.waitForSelector(wanted);
  };
  const ask = async (name, button) => {
    await page.locator(button).first().click();
    await page.waitForSelector("dialog[open]");
    await look(name);
    await page.keyboard.press("Escape");
    await page.waitForSelector("dialog", { state: "detached" });
  };
  await go("/", ".strip");
  await look("runs");
  await go("/schedules", ".schedule");
  await page.locator(".schedule:has-text('nightly') summary:text-is('Further ahead')").click();
  await page.waitForSelector(".explained");
  await look("schedules");
  for (const name of ["Pause…", "Resume…", "Run now…", "Backfill…"]) await ask(`schedules: ${name}`, `.schedule button:has-text('${name}')`);
  await go("/playbooks", ".card");
  await look("playbooks");
  await go("/playbooks/release", ".fields");
  await page.click("form.start button[type=submit]");
  await page.waitForSelector(".field-wrong:not(:empty)");
  await look("form with mistakes");
  await page.click("button:text-is('Show the plan')");
  await page.waitForSelector(".plan");
  await look("plan");
  await page.click("role=tab[name='Runs']");
  await page.waitForSelector("#panel-history tbody tr");
  await look("history");
  await go("/playbooks/broken", ".source-note");
  await look("broken");
  await go(`/runs/${runs.waiting}`, ".node");
  await page.waitForSelector(".run-head button:text-is('Refuse…')");
  await look("a run that waits");
  for (const name of ["Approve…", "Refuse…", "Hold…", "Cancel…"]) await ask(name, `.run-head button:text-is('${name}')`);
  await go(`/runs/${runs.held}`, ".log-text .line");
  await look("a run that is held");
  for (const name of ["Resume…", "Roll back…"]) await ask(name, `.run-head button:text-is('${name}')`);
  await ask("Retry step…", ".detail button:text-is('Retry step…')");
  for (const [tab, wanted] of [["Timeline", ".gantt-bar"], ["Events", ".event"], ["Inputs and outputs", ".values"]]) {
    await page.click(`role=tab[name='${tab}']`);
    await page.waitForSelector(wanted);
    await look(tab);
  }
  await page.click("role=tab[name='Events']");
  await ask("an event", ".event button");
  await go("/login", "#token");
  await look("login");
}

for (const [name, options] of Object.entries({
  light: { colorScheme: "light" }, dark: { colorScheme: "dark" },
  "light, 400 pixels": { colorScheme: "light", viewport: { width: 400, height: 850 } }, "dark, 400 pixels": { colorScheme: "dark", viewport: { width: 400, height: 850 } },
})) {
  test(`axe finds nothing serious, nothing is cut off: ${name}`, { timeout: 300_000 }, async () => {
    const page = await enter(world, { ...options, reducedMotion: "reduce" });
    const found = [];
    await everywhere(page, async (place) => {
      found.push(...(await violations(page)).map((one) => `${place}: ${one}`));
      const [wide, room] = await page.evaluate(() => [document.documentElement.scrollWidth, document.documentElement.clientWidth]);
      if (wide > room) found.push(`${place}: ${wide} wide, and there is room for ${room}`);
      const dialog = await page.evaluate(() => {
        const open = document.querySelector("dialog[open]");
        return open ? open.scrollWidth - open.clientWidth : 0;
      });
      if (dialog > 0) found.push(`${place}: the dialog is ${dialog} too wide`);
    });
    assert.deepEqual(found, []);
    await done(page);
  });
}
