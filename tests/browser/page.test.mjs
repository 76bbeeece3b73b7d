// What a person does with the page, in a real browser.

import assert from "node:assert/strict";
import { readdirSync } from "node:fs";
import { after, before, test } from "node:test";
import { done, reaches, status, step } from "./person.mjs";
import { enter, open, start } from "./server.mjs";

let world;

before(async () => (world = await start()), { timeout: 120_000 });
after(() => world?.stop());

test("a token is asked for, and leads back to where one came from", async () => {
  const page = await open(world);
  await page.goto(`${world.address}/playbooks`);
  assert.equal(new URL(page.url()).pathname, "/login");
  await page.fill("#token", "rbk_00000000_no");
  await page.click("button[type=submit]");
  await page.waitForSelector("#wrong p");
  assert.match(await page.textContent("#wrong"), /token is not known/);
  await page.fill("#token", world.tokens.admin);
  await page.click("button[type=submit]");
  await page.waitForURL(`${world.address}/playbooks`);
  await page.click("text=Runs");
  await page.waitForSelector(".empty");
  assert.match(await page.textContent(".empty"), /No runs yet\..*runback run FILE/);
  assert.match(await page.textContent("#alarms"), /1 playbook cannot be read.*broken/);
  await page.click("#log-out");
  await page.waitForURL(/\/login/);
  await page.goto(`${world.address}/`);
  assert.equal(new URL(page.url()).pathname, "/login", "the session is over");
  await done(page);
});

test("a run is started from its form, watched, approved, seen to fail, and rolled back", async () => {
  const page = await enter(world);
  await page.click("text=Playbooks");
  await page.click("a:text-is('release')");
  await page.click("form.start button[type=submit]");
  assert.match(page.url(), /\/playbooks\/release$/, "what is required is missing, so nothing was started");
  const wrong = async (label) => (await page.locator(".field", { has: page.getByLabel(label) }).locator(".field-wrong").textContent()) || null;
  assert.equal(await wrong("version"), "version must be given.");
  assert.equal(await wrong("dir"), "dir must be given.");
  assert.equal(await page.evaluate(() => document.activeElement.name), "version", "the first that is wrong has the focus");
  await page.getByLabel("version").fill("next");
  assert.equal(await wrong("version"), "version must match [0-9]+\\.[0-9]+.");
  await page.getByLabel("hosts").fill("web1, web2");
  await page.click("form.start button[type=submit]");
  assert.match(await wrong("hosts"), /must be JSON, such as \["a", "b"\]/);
  await page.getByLabel("hosts").fill('["web1", "web2", "web3", "web4"]');
  await page.getByLabel("version").fill("1.7");
  assert.equal(await wrong("version"), null);
  assert.equal(await wrong("hosts"), null);
  await page.getByLabel("dir").fill(world.tier);
  await page.getByLabel("fail", { exact: true }).check();
  await page.click("button:text-is('Show the plan')");
  await page.waitForSelector(".plan");
  assert.match(await page.textContent(".plan"), /announcepoint of no return/);
  await page.click("summary:text-is('How it runs')");
  await page.getByLabel("On failure").selectOption("hold");
  await page.click("form.start button[type=submit]");
  await page.waitForURL(/\/runs\//);

  // Its log grows before one's eyes; what a command prints is text, whatever it looks like.
  await page.waitForSelector(".log-text .line >> nth=3");
  const early = await page.locator(".log-text .line").count();
  // There are 31 in all: a page that was long in coming has seen most of them.
  await page.waitForFunction((n) => document.querySelectorAll(".log-text .line").length > n, Math.min(early + 5, 30));
  assert.ok(await page.locator(".log-text .ansi-fg-2").count() > 5, "colours");
  await page.waitForSelector(".log-text .line:has-text('<script>alert(1)</script>')");
  assert.equal(await page.locator(".log-text script, .log-text img").count(), 0);

  // It asks, says what happens, and takes no answer without what it needs.
  await page.click(".run-head button:text-is('Approve…')");
  const ask = page.locator("dialog");
  assert.match(await ask.textContent(), /Switch eu-1 to 1\.7\?.*switch can start/);
  const { digest } = await page.evaluate(async (run) => (await fetch(`/api/v1/runs/${run}`)).json(), page.url().split("/").pop().split("?")[0]);
  assert.ok((await ask.textContent()).includes(`Bound to the plan ${digest.slice(0, 12)}`), "what the answer binds to");
  await ask.getByRole("button", { name: "Approve" }).click();
  await ask.getByLabel("ticket").fill("nothing");
  await ask.getByRole("button", { name: "Approve" }).click();
  assert.match(await ask.locator(".field-wrong").first().textContent(), /ticket must match OPS/);
  assert.notEqual(await status(page), "failed");
  await ask.getByLabel("ticket").fill("OPS-77");
  await ask.getByLabel("Reason").fill("window is open");
  await ask.getByRole("button", { name: "Approve" }).click();
  await ask.waitFor({ state: "detached" });

  await reaches(page, "failed");
  assert.match(await page.textContent(".attention"), /smoke failed/);
  assert.deepEqual(readdirSync(world.tier).sort(), ["migrated", "snapshot", "web1", "web2", "web3", "web4"]);
  await step(page, "smoke").click();
  await page.waitForSelector(".log-text .ansi-fg-1:has-text('3 of 40 checks failed')");
  await page.waitForSelector(".detail button:text-is('Retry step…')");

  await page.click("button:text-is('Roll back…')");
  assert.match(await page.textContent("dialog"), /steps are undone, the last one first.*switch\[.*database\/migrate.*database\/snapshot/s);
  await page.click("dialog button:text-is('Roll back')");
  await reaches(page, "rolled-back");
  assert.deepEqual(readdirSync(world.tier), [], "the world is as it was");
  await page.waitForFunction(() => /6 of 6 steps undone/.test(document.querySelector(".progress").textContent));

  await page.click("role=tab[name='Timeline']");
  await page.waitForSelector(".gantt-bar.gantt-undo");
  await page.click("role=tab[name='Events']");
  await page.waitForSelector(".event:has-text('approval given')");
  await page.locator(".event", { hasText: "approval given" }).getByRole("button").click();
  assert.match(await page.textContent("dialog pre"), /OPS-77/);
  await page.keyboard.press("Escape");
  await page.click("role=tab[name='Inputs and outputs']");
  assert.match(await page.textContent(".values"), /web4/);
  await done(page);
});

test("the list is live, whoever starts a run", async () => {
  const page = await enter(world);
  await page.waitForSelector("#list tbody tr");
  await page.waitForSelector("#link:text-is('live')");
  world.command("run", `${world.dir}/playbooks/nightly.yaml`);
  await page.waitForSelector("#list tbody tr:first-child:has-text('nightly') .badge[data-status='succeeded']");
  await page.selectOption("select[name=status]", "rolled-back");
  await page.waitForSelector("#list tbody tr:only-child:has-text('release')");
  await page.fill("input[name=text]", "no such text");
  await page.waitForSelector(".empty:has-text('No run is like that')");
  await page.click("text=Clear the filters");
  await page.waitForSelector("#list tbody tr >> nth=1");
  await done(page);
});

test("a run is cancelled, and a viewer cannot", async () => {
  const page = await enter(world);
  await page.goto(`${world.address}/playbooks/long`);
  await page.click("form.start button[type=submit]");
  await page.waitForURL(/\/runs\//);
  await step(page, "wait").click();
  await page.waitForSelector(".detail .badge[data-status='running']");
  const seen = await enter(world, {}, world.tokens.viewer);
  await seen.goto(page.url());
  await seen.waitForSelector("button:text-is('Cancel…')");
  assert.ok(await seen.isDisabled("button:text-is('Cancel…')"));
  await page.click("button:text-is('Cancel…')");
  assert.match(await page.textContent("dialog"), /what runs is stopped/);
  await page.click("dialog button:text-is('Cancel the run')");
  await page.waitForFunction(() => ["cancelled", "rolled-back"].includes(document.querySelector(".run-state .badge").dataset.status));
  await seen.waitForFunction(() => ["cancelled", "rolled-back"].includes(document.querySelector(".run-state .badge").dataset.status));
  await done(seen);
  await done(page);
});

test("long output: its end at once, its beginning by search", async () => {
  world.command("run", `${world.dir}/playbooks/chatty.yaml`);
  const page = await enter(world);
  await page.goto(`${world.address}/runs/last`);
  await page.waitForSelector(".log-text .line:last-child:has-text('error: the end')");
  assert.ok(await page.locator(".log-text .line").count() < 20_000, "only a window of it is there");
  await page.fill(".log-bar input[type=search]", "NEEDLE");
  await page.press(".log-bar input[type=search]", "Enter");
  await page.waitForSelector(".line.found:has-text('the needle stands here')");
  await page.fill(".log-bar input[type=search]", "line 123456 ");
  await page.press(".log-bar input[type=search]", "Enter");
  await page.waitForSelector(".line.found:has-text('line 123456 of')");
  await page.click("button:text-is('Jump to error')");
  await page.waitForSelector(".line.found:has-text('error: the end')");
  await page.click(".log-bar button:text-is('Start')");
  await page.waitForSelector(".log-text .line:first-child:has-text('the needle')");
  await done(page);
});

test("the keyboard reaches everything", async () => {
  const page = await enter(world);
  await page.keyboard.press("Tab");
  assert.equal(await page.evaluate(() => document.activeElement.textContent), "To the content");
  await page.waitForSelector("#list tbody a");
  const release = page.locator("#list tbody tr", { hasText: "release" }).locator("a").first();
  await release.focus();
  await page.keyboard.press("Enter");
  await page.waitForURL(/\/runs\//);
  await page.waitForSelector(".node[aria-selected=true]");
  await page.focus(".graph");
  await page.keyboard.press("Home");
  await page.waitForSelector(".node[aria-selected=true]:has-text('fetch')");
  await page.keyboard.press("ArrowDown");
  await page.keyboard.press("ArrowDown");
  const chosen = await page.textContent(".node[aria-selected=true] .node-name");
  assert.notEqual(chosen, "fetch");
  assert.equal(await page.getAttribute(".graph", "aria-activedescendant"), await page.getAttribute(".node[aria-selected=true]", "id"));
  await page.focus("role=tab[name='Steps']");
  await page.keyboard.press("ArrowRight");
  assert.equal(await page.getAttribute("role=tab[name='Timeline']", "aria-selected"), "true");
  await page.keyboard.press("ArrowLeft");
  await done(page);
});
