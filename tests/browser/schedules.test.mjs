// Schedules on the page: when they fire and why then, and what an operator does to them.

import assert from "node:assert/strict";
import { copyFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { done } from "./person.mjs";
import { enter, start } from "./server.mjs";

let world;

before(async () => (world = await start()), { timeout: 120_000 });
after(() => world?.stop());

const card = (page, playbook) => page.locator(".schedule", { has: page.getByRole("heading", { name: playbook }) });
const dialog = (page) => page.locator("dialog[open]");
const button = (page, playbook, name) => card(page, playbook).getByRole("button", { name: new RegExp(`^${name}`) });
const confirm = async (page, name) => {
  await dialog(page).getByRole("button", { name, exact: true }).click();
  await dialog(page).waitFor({ state: "detached" });
};

async function schedules(options, token) {
  const page = await enter(world, options, token);
  await page.click("nav a:text-is('Schedules')");
  await card(page, "nightly").waitFor();
  return page;
}

test("the next instants, on the wall and here, with what was decided where the clock is set", async () => {
  const page = await schedules({ timezoneId: "America/New_York" });
  assert.match(await card(page, "nightly").textContent(), /0 2 \* \* \* Europe\/Berlin/);
  assert.match(await card(page, "nightly").locator(".instants li").first().textContent(), /\d{4}-\d\d-\d\d 02:00 · here \d{4}-\d\d-\d\d 2[01]:00/);
  await card(page, "nightly").getByText("Further ahead").click();
  await page.waitForSelector(".explained:has-text('the clock is set forward over this time: it fires later by as much')");
  await page.waitForSelector(".explained:has-text('the clock is set back and shows this time twice: the first time')");
  const instants = await card(page, "nightly").locator(".instants li strong").allTextContents();
  assert.ok(instants.length > 10 && new Set(instants).size === instants.length, `each is shown once: ${instants}`);
  await card(page, "nightly").getByText("Its rules").click();
  assert.match(await card(page, "nightly").textContent(), /an instant is passed over.*A time that the clock leaves out\s*fires later by as much/s);
  assert.match(await card(page, "hourly").textContent(), /paused.*Paused by playbook/s);
  await page.waitForSelector(".strip tr:has-text('nightly') .next");
  await done(page);
});

test("pause and resume, with a name and a reason", async () => {
  const page = await schedules();
  await button(page, "nightly", "Pause").click();
  assert.match(await dialog(page).textContent(), /instants are passed over from now on.*The next would have been \d{4}-\d\d-\d\d 02:00 Europe\/Berlin.*What runs goes on/s);
  await dialog(page).getByLabel("Why").fill("the vault is full");
  await page.keyboard.press("Enter");
  await dialog(page).waitFor({ state: "detached" });
  await card(page, "nightly").getByText("the vault is full").waitFor();
  assert.match(await card(page, "nightly").textContent(), /Paused by mira@127\.0\.0\.1 since/);
  assert.match(await page.evaluate(() => document.activeElement.textContent), /^Resume…|Pause…|To the content|Schedules/s);
  await button(page, "nightly", "Resume").click();
  assert.match(await dialog(page).textContent(), /fires next on .* 02:00 Europe\/Berlin.*not made up for/s);
  await confirm(page, "Resume");
  await button(page, "nightly", "Pause").waitFor();
  // One that its playbook pauses is not resumed here, and the dialog says why.
  await button(page, "hourly", "Resume").click();
  await dialog(page).getByRole("button", { name: "Resume", exact: true }).click();
  await dialog(page).locator(".wrong", { hasText: "the playbook itself says `paused: true`" }).waitFor();
  await page.keyboard.press("Escape");
  await dialog(page).waitFor({ state: "detached" });
  await done(page);
});

test("run now: one run, and one is led to it", async () => {
  const page = await schedules();
  await button(page, "nightly", "Run now").click();
  assert.match(await dialog(page).textContent(), /One run starts at once, beside its instants/);
  await dialog(page).getByRole("button", { name: "Run now", exact: true }).click();
  await page.waitForURL(/\/runs\//);
  await page.waitForSelector(".run-state .badge[data-status=succeeded]");
  assert.match(await page.textContent(".facts"), /by mira@127\.0\.0\.1 from schedule-trigger/);
  await done(page);
});

test("backfill says how many runs, starts them, and never a second one", async () => {
  const page = await schedules({ timezoneId: "UTC" });
  // Once for all: the hour may end meanwhile.
  const now = new Date();
  now.setUTCMinutes(0, 0, 0);
  const at = (hours) => new Date(now.getTime() - hours * 3_600_000).toISOString().slice(0, 16);
  const range = async (from, to) => {
    await button(page, "hourly", "Backfill").click();
    await dialog(page).getByLabel("From").fill(at(from));
    await dialog(page).getByLabel("To, without").fill(at(to));
  };
  await range(4, 1);
  await dialog(page).locator(".told", { hasText: "3 runs will be started, one after the other: the range has 3 instants, 0 of them with a run" }).waitFor();
  await dialog(page).getByLabel("From").fill(at(0));
  await dialog(page).locator(".told", { hasText: "The beginning must be before the end" }).waitFor();
  await dialog(page).getByLabel("From").fill(at(4));
  await dialog(page).locator(".told", { hasText: "3 runs will be started" }).waitFor();
  await confirm(page, "Backfill");
  await card(page, "hourly").locator(".badge[data-status=succeeded] >> nth=2").waitFor();
  await range(5, 1);
  await dialog(page).locator(".told", { hasText: "1 run will be started, one after the other: the range has 4 instants, 3 of them with a run" }).waitFor();
  await page.keyboard.press("Escape");
  await dialog(page).waitFor({ state: "detached" });
  // The strip has them too, and leads to them.
  await page.reload();
  await page.waitForSelector(".strip tr:has-text('hourly') a[href^='/runs/']");
  const { runs } = await page.evaluate(async () => (await fetch("/api/v1/runs?playbook=hourly")).json());
  assert.equal(runs.length, 3);
  await done(page);
});

test("a playbook that breaks is said on every list, and mended it is gone", async () => {
  const page = await schedules();
  const file = join(world.playbooks, "nightly.yaml");
  writeFileSync(file, "runback: 1\nname: nightly\nsteps: [{ rum: echo }]\n");
  await page.locator("#alarms", { hasText: "2 playbooks cannot be read as they are now; the last good text stays in use" }).waitFor({ timeout: 40_000 });
  await card(page, "nightly").waitFor();
  for (const place of ["/", "/playbooks"]) {
    await page.goto(world.address + place);
    await page.locator("#alarms a", { hasText: "nightly" }).waitFor();
  }
  await page.click("#alarms a:text-is('nightly')");
  await page.waitForSelector(".alarm:has-text('The file is broken now. What runs is the last text that was good.')");
  await page.click("text=Show 1 error");
  await page.waitForSelector(".source-note:has-text('`rum` is not a key of a step')");
  copyFileSync(join(import.meta.dirname, "playbooks/nightly.yaml"), file);
  await page.goto(`${world.address}/schedules`);
  await page.locator("#alarms", { hasText: "1 playbook cannot be read as it is now" }).waitFor({ timeout: 40_000 });
  await done(page);
});

test("a viewer sees, and may do nothing", async () => {
  const page = await schedules({}, world.tokens.viewer);
  assert.ok(await button(page, "hourly", "Run now").isDisabled());
  assert.ok(await button(page, "hourly", "Backfill").isDisabled());
  assert.equal(await button(page, "hourly", "Run now").getAttribute("title"), "takes the role operator");
  await done(page);
});
