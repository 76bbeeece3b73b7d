// What is large: long histories, runs of many steps, outputs that no browser can hold.

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { dirname, join } from "node:path";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";
import { done, traced } from "./person.mjs";
import { enter, start } from "./server.mjs";

const RUNS = 10_000;
const bench = process.env.RUNBACK_BENCH ?? join(dirname(fileURLToPath(import.meta.url)), "../../bench/serve");
/// Copies the one run of a store, each copy with a chain of hashes that holds.
const MULTIPLY = `
import importlib.machinery, importlib.util, sys
loader = importlib.machinery.SourceFileLoader("bench", sys.argv[1])
bench = importlib.util.module_from_spec(importlib.util.spec_from_loader("bench", loader))
sys.dont_write_bytecode = True
loader.exec_module(bench)
bench.multiply(sys.argv[2], int(sys.argv[3]))
`;
let world;

before(async () => {
  world = await start({
    options: ["--log-limit", "4GiB"],
    prepare: ({ command, state, playbooks }) => {
      command("run", join(playbooks, "nightly.yaml"));
      execFileSync("python3", ["-B", "-c", MULTIPLY, bench, join(state, "journal.db"), String(RUNS)]);
    },
  });
}, { timeout: 300_000 });
after(() => world?.stop());

const longest = (tasks) => tasks.reduce((most, task) => ({ cpu: Math.max(most.cpu, task.cpu), wall: Math.max(most.wall, task.wall) }));
const told = ({ cpu, wall }) => `${Math.round(cpu)} ms (${Math.round(wall)} ms on the clock)`;

/// The best of up to three times: a page that is too slow is so each time, a machine that others use is so at times.
async function best(measure, limit, of = (one) => one.cpu) {
  let least = await measure();
  for (let n = 0; n < 2 && of(least) > limit; n++) {
    const one = await measure();
    if (of(one) < of(least)) least = one;
  }
  return least;
}

/// Opens a page; ms until something is drawn, and until that is there.
const opened = (page, path, there) => best(async () => {
  await page.goto(`${world.address}${path}`);
  await page.waitForSelector(there, { timeout: 120_000 });
  return page.evaluate(() => ({ paint: performance.getEntriesByName("first-contentful-paint")[0].startTime, drawn: performance.now() }));
}, 1000, (one) => one.paint);

/// What the tab holds, in MiB, once what it does not need is gone.
async function held(page) {
  const debug = await page.context().newCDPSession(page);
  await debug.send("HeapProfiler.collectGarbage");
  const { usedSize } = await debug.send("Runtime.getHeapUsage");
  const { nodes } = await debug.send("Memory.getDOMCounters");
  await debug.detach();
  return { heap: usedSize / (1 << 20), nodes };
}

test("ten thousand runs: the list is there at once, and stays quick", { timeout: 300_000 }, async (t) => {
  const page = await enter(world);
  await page.waitForSelector("#list tbody tr", { timeout: 120_000 });
  const { paint, drawn } = await opened(page, "/", "#list tbody tr");
  const { total } = await page.evaluate(async () => (await fetch("/api/v1/runs?limit=1")).json());
  assert.ok(total >= RUNS, `${total} runs in the store`);
  const times = {};
  const timed = async (name, act) => {
    const began = performance.now();
    await act();
    times[name] = Math.round(performance.now() - began);
  };
  const rows = (text) => page.waitForSelector(`#list tbody tr:only-child:has-text('${text}')`);
  const use = () => traced(page, async () => {
    await timed("text", async () => {
      await page.fill("input[name=text]", "20250101-0000-007777");
      await rows("20250101-0000-007777");
    });
    await timed("status", async () => {
      await page.fill("input[name=text]", "");
      await page.selectOption("select[name=status]", "failed");
      await page.waitForSelector(".empty:has-text('No run is like that')");
    });
    await timed("time", async () => {
      await page.selectOption("select[name=status]", "");
      await page.selectOption("select[name=hours]", "1");
      await page.waitForSelector("#list tbody tr >> nth=49");
    });
    await timed("playbook", async () => {
      await page.selectOption("select[name=hours]", "");
      await page.fill("input[name=playbook]", "release");
      await page.press("input[name=playbook]", "Enter");
      await page.waitForSelector(".empty:has-text('No run is like that')");
      await page.click("text=Clear the filters");
      await page.waitForSelector("#list tbody tr >> nth=49");
    });
    await timed("ten pages", async () => {
      const seen = new Set();
      for (let n = 0; n < 10; n++) {
        await page.waitForSelector(`.pager:has-text('${n * 50 + 1} to ${n * 50 + 50}')`);
        for (const run of await page.locator("#list tbody tr").evaluateAll((rows) => rows.map((row) => row.dataset.run))) seen.add(run);
        await page.click("text=Older →");
      }
      assert.equal(seen.size, 500, "no run twice, none left out");
    });
    for (let i = 0; i < 20; i++) await page.mouse.wheel(0, 300);
    await page.waitForTimeout(300);
  });
  const worst = await best(async () => {
    await page.goto(`${world.address}/`);
    await page.waitForSelector("#list tbody tr");
    return longest(await use());
  }, 100);
  t.diagnostic(`first paint ${Math.round(paint)} ms, drawn after ${Math.round(drawn)} ms, longest task ${told(worst)}; ${JSON.stringify(times)} ms`);
  assert.ok(paint < 1000, `first paint after ${paint} ms`);
  assert.ok(worst.cpu <= 100, "a task was too long");
  await done(page);
});

test("ten thousand steps: there at once, and smooth", { timeout: 300_000 }, async (t) => {
  world.command("run", world.big);
  const page = await enter(world);
  const { paint, drawn } = await opened(page, "/runs/last", ".node");
  assert.match(await page.textContent(".counts"), /10,000 succeeded/);
  assert.ok(await page.locator(".node").count() < 2500, "only what is in view are elements");
  const scroll = () => best(async () => {
    await page.evaluate(() => document.querySelector(".graph").scrollTo(0, 0));
    await page.waitForTimeout(1000);
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
    return { ...longest(tasks), top };
  }, 100);
  const compact = await scroll();
  await page.click("button:text-is('Compact')");
  const named = await scroll();
  t.diagnostic(`first paint ${Math.round(paint)} ms, drawn after ${Math.round(drawn)} ms, longest task while scrolling ${told(compact)} as signs, ${told(named)} with names`);
  assert.ok(compact.top > 5000 && named.top > 50_000, "it was scrolled");
  assert.ok(paint < 1000, `first paint after ${paint} ms`);
  assert.ok(Math.max(compact.cpu, named.cpu) <= 100, "a task was too long");
  await page.fill("input[placeholder='Find a step']", "s57-31");
  await page.waitForSelector(".detail h2:text-is('s57-31')");
  await page.waitForSelector(".node[aria-selected=true]:has-text('s57-31')");
  await done(page);
});

/// MiB; more where somebody wants to know.
const MIB = Number(process.env.RUNBACK_LOG_MIB ?? 64);

test(`an output of ${MIB} MiB: end, beginning, error and search, in the same memory`, { timeout: 1_800_000 }, async (t) => {
  const page = await enter(world);
  await page.goto(`${world.address}/playbooks/flood`);
  await page.getByLabel("mib").fill(String(MIB));
  await page.click("form.start button[type=submit]");
  await page.waitForURL(/\/runs\//);
  await page.waitForSelector(".run-state .badge[data-status=succeeded]", { timeout: 1_500_000 });
  const server = world.memory();
  await page.reload();
  const last = (text) => page.waitForSelector(`.log-text .line:last-child:has-text('${text}')`);
  const found = (text) => page.waitForSelector(`.line.found:has-text('${text}')`, { timeout: 600_000 });
  await last("the last line");
  const before = await held(page);
  assert.match(await page.textContent(".log-about"), new RegExp(MIB >= 1024 ? `${(MIB / 1024).toFixed(2)} GiB` : `${MIB}\\.0 MiB`));
  assert.doesNotMatch(await page.textContent(".log-about"), /not kept/);
  const times = {};
  const timed = async (name, act) => {
    const began = performance.now();
    await act();
    times[name] = Math.round(performance.now() - began);
  };
  const use = () => traced(page, async () => {
    await timed("start", async () => {
      await page.click(".log-bar button:text-is('Start')");
      await page.waitForSelector(".log-text .line:first-child:has-text('the needle')");
    });
    await timed("error", async () => {
      await page.click("text=Jump to error");
      await found("error: half of it is over");
    });
    await timed("search back", async () => {
      await page.fill(".log-bar input[type=search]", "NEEDLE");
      await page.press(".log-bar input[type=search]", "Shift+Enter");
      await found("the needle stands here");
    });
    await timed("search on", async () => {
      await page.fill(".log-bar input[type=search]", "the last line");
      await page.press(".log-bar input[type=search]", "Enter");
      await found("the last line");
    });
    await timed("end", async () => {
      await page.click(".log-bar button:text-is('End')");
      await last("the last line");
    });
    // Backwards through what was never read, stretch by stretch.
    const box = await page.locator(".log").boundingBox();
    await page.mouse.move(box.x + 50, box.y + 50);
    for (let i = 0; i < 60; i++) {
      await page.mouse.wheel(0, -4000);
      await page.waitForTimeout(20);
    }
  });
  const worst = await best(async () => longest(await use()), 100);
  const now = await held(page);
  const lines = await page.locator(".log-text .line").count();
  t.diagnostic(`longest task ${told(worst)}; ${JSON.stringify(times)} ms; tab ${before.heap.toFixed(1)} → ${now.heap.toFixed(1)} MiB, ${before.nodes} → ${now.nodes} nodes; server ${server.toFixed(0)} → ${world.memory().toFixed(0)} MiB`);
  assert.ok(lines < 20_000, `${lines} lines are there`);
  assert.ok(now.heap < before.heap + 24, `the tab holds ${now.heap} MiB, and began with ${before.heap}`);
  assert.ok(world.memory() < server + 48, `the server holds ${world.memory()} MiB, and began with ${server}`);
  assert.ok(worst.cpu <= 100, "a task was too long");
  await done(page);
});
