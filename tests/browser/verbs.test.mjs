// Every button of a run: asks, says what will happen, and does it. By mouse and by keyboard.

import assert from "node:assert/strict";
import { readdirSync, writeFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import { after, before, beforeEach, test } from "node:test";
import { done, reaches, step } from "./person.mjs";
import { enter, start } from "./server.mjs";

let world;

before(async () => (world = await start()), { timeout: 120_000 });
after(() => world?.stop());
beforeEach(() => {
  for (const name of readdirSync(world.tier)) rmSync(join(world.tier, name));
});

const there = () => readdirSync(world.tier).sort();
const dialog = (page) => page.locator("dialog[open]");
const focused = (page) => page.evaluate(() => document.activeElement.textContent);

/// A run of a playbook, started from its form.
async function started(page, playbook, fill) {
  await page.goto(`${world.address}/playbooks/${playbook}`);
  await page.waitForSelector("form.start");
  await fill?.();
  await page.click("form.start button[type=submit]");
  await page.waitForURL(/\/runs\//);
  await page.waitForSelector(".node");
}

/// Opens a dialog by its button, with the keyboard, and waits for it.
async function asks(page, button) {
  await page.waitForSelector(`.run-head button:text-is('${button}')`);
  await page.focus(`.run-head button:text-is('${button}')`);
  await page.keyboard.press("Enter");
  await dialog(page).waitFor();
  return dialog(page).textContent();
}

async function release(page, onFailure) {
  await started(page, "release", async () => {
    await page.getByLabel("version").fill("2.0");
    await page.getByLabel("dir").fill(world.tier);
    if (onFailure) {
      await page.click("summary:text-is('How it runs')");
      await page.getByLabel("On failure").selectOption(onFailure);
    }
  });
  await reaches(page, "waiting");
}

test("hold, resume, retry, and a rollback past the point of no return, by keyboard", async () => {
  const page = await enter(world);
  await started(page, "steady", () => page.getByLabel("dir").fill(world.tier));
  await step(page, "first").click();
  await page.waitForSelector(".detail .badge[data-status='running']");
  let text = await asks(page, "Hold…");
  assert.match(text, /Nothing new starts\. Nothing is undone\..*1 step may finish first.*first/s);
  await page.keyboard.press("Escape");
  await dialog(page).waitFor({ state: "detached" });
  assert.equal(await focused(page), "Hold…", "the focus is where it was");
  await asks(page, "Hold…");
  assert.equal(await focused(page), "Hold", "yes does no harm, so it is one key away");
  await page.keyboard.press("Enter");
  await dialog(page).waitFor({ state: "detached" });
  writeFileSync(join(world.tier, "go"), "");
  await reaches(page, "failed");
  assert.deepEqual(there(), ["first", "go"], "what ran has finished, and nothing else began");
  assert.match(await page.textContent(".attention"), /hold|held/);

  text = await asks(page, "Resume…");
  assert.match(text, /goes on where it stopped\. Nothing that is done is done again/);
  await page.keyboard.press("Enter");
  await page.waitForSelector(".attention:has-text('second failed')");
  await reaches(page, "failed");

  await step(page, "second").click();
  writeFileSync(join(world.tier, "ready"), "");
  await page.focus(".detail button:text-is('Retry step…')");
  await page.keyboard.press("Enter");
  assert.match(await dialog(page).textContent(), /Retry second\?.*starts anew.*What is done is not done again/s);
  await page.keyboard.press("Enter");
  await reaches(page, "succeeded");
  assert.deepEqual(there(), ["first", "go", "last", "published", "ready"]);

  text = await asks(page, "Roll back…");
  assert.match(text, /Past the point of no return\. publish succeeded/);
  assert.match(text, /1 step is undone, the last one first\s*last/);
  assert.match(text, /3 steps cannot be undone, and stay.*publish: it is a point of no return.*first: it is before the point of no return, publish/s);
  assert.equal(await focused(page), "Leave it", "yes does harm, so Enter alone does nothing");
  await page.keyboard.press("Enter");
  await dialog(page).waitFor({ state: "detached" });
  assert.deepEqual(there(), ["first", "go", "last", "published", "ready"]);
  await asks(page, "Roll back…");
  await dialog(page).getByRole("button", { name: "Roll back" }).click();
  await reaches(page, "rolled-back");
  assert.deepEqual(there(), ["first", "go", "published", "ready"], "what the dialog said, and no more");
  assert.match(await page.textContent(".progress"), /1 of 1 step undone, 3 kept as they are/);
  await done(page);
});

test("refuse: the step fails, and what the dialog lists is undone", async () => {
  const page = await enter(world);
  await release(page);
  assert.deepEqual(there(), ["migrated", "snapshot"]);
  const text = await asks(page, "Refuse…");
  assert.match(text, /Refuse sign-off\?.*The step fails.*takes back what it did/s);
  assert.match(text, /2 steps are undone, the last one first\s*database\/migrate\s*database\/snapshot/);
  assert.match(text, /Bound to the plan [0-9a-f]{12}/);
  await dialog(page).getByLabel("Reason").fill("not on a Friday");
  await dialog(page).getByRole("button", { name: "Refuse" }).click();
  await reaches(page, "rolled-back");
  assert.deepEqual(there(), []);
  await page.click("role=tab[name='Events']");
  await page.waitForSelector(".event:has-text('not on a Friday')");
  await done(page);
});

test("cancel: as after a failure, or at once and resumable", async () => {
  const page = await enter(world);
  await release(page);
  const text = await asks(page, "Cancel…");
  assert.match(text, /takes back what it did.*database\/migrate\s*database\/snapshot/s);
  await dialog(page).getByRole("button", { name: "Cancel the run" }).click();
  await reaches(page, "cancelled");
  assert.deepEqual(there(), []);

  await release(page);
  await asks(page, "Cancel…");
  await dialog(page).getByLabel("Stop at once").check();
  assert.ok(!(await dialog(page).getByText("database/migrate").isVisible()), "nothing is taken back then");
  await dialog(page).getByRole("button", { name: "Cancel the run" }).click();
  await page.waitForSelector(".run-head button:text-is('Resume…')");
  assert.deepEqual(there(), ["migrated", "snapshot"]);
  await asks(page, "Resume…");
  await dialog(page).getByRole("button", { name: "Resume" }).click();
  await page.waitForSelector(".run-head button:text-is('Hold…')");
  await page.waitForSelector(".run-head button:text-is('Approve…')");
  assert.equal(await page.locator("button:text-is('Roll back…')").count(), 0, "a run that goes on is cancelled, not taken back");
  await asks(page, "Cancel…");
  await dialog(page).getByRole("button", { name: "Cancel the run" }).click();
  await reaches(page, "cancelled");
  assert.deepEqual(there(), []);
  await done(page);
});

test("a run that is left mid-question says what a rollback would do before it is asked to", async () => {
  const page = await enter(world);
  await release(page, "hold");
  await asks(page, "Refuse…");
  assert.match(await dialog(page).textContent(), /it is held as it stands/);
  await dialog(page).getByRole("button", { name: "Refuse" }).click();
  await reaches(page, "failed");
  const text = await asks(page, "Roll back…");
  assert.match(text, /2 steps are undone/);
  assert.match(text, /cannot be undone/, "fetch has no inverse, and may have done something");
  await dialog(page).getByRole("button", { name: "Roll back" }).click();
  await reaches(page, "rolled-back");
  assert.deepEqual(there(), []);
  await done(page);
});
