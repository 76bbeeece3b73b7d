// Makes the pictures of docs/guide/serve.md anew: RUNBACK=… node screenshots.mjs FOLDER

import { join } from "node:path";
import { enter, start } from "./server.mjs";

const folder = process.argv[2] ?? ".";
const world = await start();
const view = { viewport: { width: 1120, height: 760 }, reducedMotion: "reduce" };

async function started(page, values) {
  await page.goto(`${world.address}/playbooks/release`);
  for (const [label, value] of Object.entries(values)) await page.getByLabel(label).fill(value);
}

async function picture(page, name) {
  await page.waitForTimeout(600);
  await page.screenshot({ path: join(folder, `serve-${name}.png`) });
}

try {
  const page = await enter(world, view);
  for (const version of ["1.6", "1.7"]) {
    await started(page, { version, dir: world.tier });
    if (version === "1.7") {
      await page.getByLabel("fail", { exact: true }).check();
      await picture(page, "playbook");
      await page.click("summary:text-is('How it runs')");
      await page.getByLabel("On failure").selectOption("hold");
    }
    await page.click("form.start button[type=submit]");
    await page.waitForURL(/\/runs\//);
    await page.waitForSelector(".run-head button:text-is('Approve…')");
    if (version === "1.6") {
      await page.evaluate(() => [...document.querySelectorAll(".node")].find((node) => node.textContent.includes("fetch")).click());
      await page.waitForSelector(".log-text .line:has-text('part 30')");
      await page.setViewportSize({ width: 1120, height: 920 });
      await picture(page, "run");
      await page.setViewportSize(view.viewport);
    }
    await page.click(".run-head button:text-is('Approve…')");
    await page.getByLabel("ticket").fill("OPS-77");
    await page.locator("dialog").getByRole("button", { name: "Approve" }).click();
    await page.waitForSelector(`.run-state .badge[data-status=${version === "1.6" ? "succeeded" : "failed"}]`);
    if (version === "1.7") {
      await page.click("button:text-is('Roll back…')");
      await page.waitForSelector("dialog[open]");
      await picture(page, "rollback");
    }
  }
  world.command("run", join(world.dir, "playbooks/nightly.yaml"));
  await page.goto(`${world.address}/`);
  await page.waitForSelector("#list tbody tr >> nth=2");
  await picture(page, "runs");
  await page.goto(`${world.address}/schedules`);
  await page.waitForSelector(".schedule");
  await page.locator(".schedule", { hasText: "nightly" }).getByText("Further ahead").click();
  await page.waitForSelector(".explained");
  await page.evaluate(() => document.querySelector("#calendar").remove());
  await picture(page, "schedules");
  const dark = await enter(world, { ...view, colorScheme: "dark" });
  await dark.goto(`${world.address}/playbooks/broken`);
  await dark.waitForSelector(".source-note");
  await picture(dark, "text");
} finally {
  await world.stop();
}
