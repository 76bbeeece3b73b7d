// What a person does with the page, in a real browser.

import assert from "node:assert/strict";
import { readFileSync, readdirSync } from "node:fs";
import { createRequire } from "node:module";
import { after, before, test } from "node:test";
import { enter, open, start } from "./server.mjs";

const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
let world;

before(async () => (world = await start()), { timeout: 120_000 });
after(() => world?.stop());

/// Fails with what went wrong in the page, and closes it.
async function done(page) {
  assert.deepEqual(page.wrong, []);
  await page.context().close();
}

const status = (page) => page.locator(".run-state .badge").getAttribute("data-status");
const reaches = (page, wanted) => page.waitForSelector(`.run-state .badge[data-status="${wanted}"]`);
const step = (page, name) => page.locator(".node", { has: page.getByText(name, { exact: true }) }).first();

async function violations(page) {
  // The policy of the page forbids scripts of others; the debugger's protocol may add one.
  await page.evaluate(axe);
  const { violations } = await page.evaluate(() => window.axe.run(document, { resultTypes: ["violations"] }));
  return violations.filter((one) => ["serious", "critical"].includes(one.impact)).map((one) => `${one.id}: ${one.nodes.map((node) => `${node.html.slice(0, 160)} ${node.any[0]?.message ?? ""}`).slice(0, 3).join(" | ")}`);
}

/// The tasks of the page's main thread meanwhile, in milliseconds: of the processor, and of the clock, which on a busy
/// machine tells more of the machine than of the page.
async function traced(page, act) {
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
  await page.getByLabel("version").fill("1.7");
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
  await page.waitForFunction((n) => document.querySelectorAll(".log-text .line").length > n + 5, early);
  assert.ok(await page.locator(".log-text .ansi-fg-2").count() > 5, "colours");
  await page.waitForSelector(".log-text .line:has-text('<script>alert(1)</script>')");
  assert.equal(await page.locator(".log-text script, .log-text img").count(), 0);

  // It asks, says what happens, and takes no answer without what it needs.
  await page.click(".run-head button:text-is('Approve…')");
  const ask = page.locator("dialog");
  assert.match(await ask.textContent(), /Switch eu-1 to 1\.7\?.*switch can start/);
  await ask.getByRole("button", { name: "Approve" }).click();
  await ask.getByLabel("ticket").fill("nothing");
  await ask.getByRole("button", { name: "Approve" }).click();
  assert.ok(await ask.isVisible(), "the ticket is not like one");
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
  await page.waitForSelector("#list tbody tr:first-child:has-text('nightly') .badge[data-status='succeeded']", { timeout: 10_000 });
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

for (const colorScheme of ["light", "dark"]) {
  test(`axe finds nothing serious: ${colorScheme}`, async () => {
    const page = await enter(world, { colorScheme, reducedMotion: "reduce" });
    const found = [];
    const look = async (name) => {
      await page.waitForTimeout(400);
      found.push(...(await violations(page)).map((one) => `${name}: ${one}`));
    };
    await page.waitForSelector("#list tbody tr");
    await page.waitForSelector(".strip");
    await look("runs");
    const run = await page.locator("#list tbody tr", { hasText: "release" }).first().getAttribute("data-run");
    await page.goto(`${world.address}/playbooks`);
    await page.waitForSelector(".card");
    await look("playbooks");
    await page.goto(`${world.address}/playbooks/release`);
    await page.waitForSelector(".fields");
    await page.click("button:text-is('Show the plan')");
    await page.waitForSelector(".plan");
    await look("playbook");
    await page.click("role=tab[name='Runs']");
    await page.waitForSelector(".durations");
    await look("history");
    await page.goto(`${world.address}/playbooks/broken`);
    await page.waitForSelector(".source-note");
    await look("broken");
    await page.goto(`${world.address}/runs/${run}`);
    await page.waitForSelector(".node");
    await page.waitForSelector(".log-text");
    await look("run");
    for (const tab of ["Timeline", "Events", "Inputs and outputs"]) {
      await page.click(`role=tab[name='${tab}']`);
      await look(tab);
    }
    await page.goto(`${world.address}/runs/last`);
    await page.waitForSelector(".node");
    await page.click("button:text-is('Roll back…')");
    await page.waitForSelector("dialog[open]");
    await look("dialog");
    await page.goto(`${world.address}/login`);
    await look("login");
    assert.deepEqual(found, []);
    await done(page);
  });
}

test("nothing is wider than 400 pixels", async () => {
  const page = await enter(world, { viewport: { width: 400, height: 850 } });
  await page.waitForSelector("#list tbody tr");
  const run = await page.locator("#list tbody tr", { hasText: "release" }).first().getAttribute("data-run");
  const places = ["/", "/playbooks", "/playbooks/release", "/playbooks/broken", `/runs/${run}`, "/login"];
  for (const place of places) {
    await page.goto(world.address + place);
    await page.waitForTimeout(700);
    const [wide, room] = await page.evaluate(() => [document.documentElement.scrollWidth, document.documentElement.clientWidth]);
    assert.ok(wide <= room, `${place}: ${wide} of ${room}`);
  }
  await done(page);
});

test("ten thousand steps: there at once, and smooth", { timeout: 300_000 }, async (t) => {
  world.command("run", world.big);
  const page = await enter(world);
  await page.goto(`${world.address}/runs/last`);
  await page.waitForSelector(".node", { timeout: 120_000 });
  const { paint, drawn } = await page.evaluate(() => ({
    paint: performance.getEntriesByName("first-contentful-paint")[0].startTime, drawn: performance.now(),
  }));
  assert.match(await page.textContent(".counts"), /10,000 succeeded/);
  assert.ok(await page.locator(".node").count() < 2500, "only what is in view are elements");
  await page.waitForTimeout(1500);
  const scroll = async () => {
    const tasks = await traced(page, async () => {
      const box = await page.locator(".graph").boundingBox();
      await page.mouse.move(box.x + box.width / 2, box.y + 200);
      for (let i = 0; i < 60; i++) {
        await page.mouse.wheel(0, 400);
        await page.waitForTimeout(30);
      }
      await page.evaluate(() => document.querySelector(".graph").scrollTo(0, 1e9));
      await page.waitForTimeout(500);
    });
    const top = await page.evaluate(() => document.querySelector(".graph").scrollTop);
    return { cpu: Math.max(...tasks.map((task) => task.cpu)), wall: Math.max(...tasks.map((task) => task.wall)), top };
  };
  const compact = await scroll();
  await page.click("button:text-is('Compact')");
  await page.evaluate(() => document.querySelector(".graph").scrollTo(0, 0));
  await page.waitForTimeout(1000);
  const named = await scroll();
  const told = ({ cpu, wall }) => `${Math.round(cpu)} ms (${Math.round(wall)} ms on the clock)`;
  t.diagnostic(`first paint ${Math.round(paint)} ms, drawn after ${Math.round(drawn)} ms, longest task while scrolling ${told(compact)} as signs, ${told(named)} with names`);
  assert.ok(compact.top > 5000 && named.top > 50_000, "it was scrolled");
  assert.ok(paint < 1000, `first paint after ${paint} ms`);
  assert.ok(Math.max(compact.cpu, named.cpu) <= 100, "a task was too long");
  await page.fill("input[placeholder='Find a step']", "s57-31");
  await page.waitForSelector(".detail h2:text-is('s57-31')");
  await page.waitForSelector(".node[aria-selected=true]:has-text('s57-31')");
  await done(page);
});
