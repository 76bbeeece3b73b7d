// A server of its own for the tests, and a browser: both end with the tests.

import { spawn, execFileSync } from "node:child_process";
import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync, mkdirSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { chromium } from "playwright-core";

const here = dirname(fileURLToPath(import.meta.url));
export const runback = process.env.RUNBACK;
const CHROMIUM = "/usr/bin/chromium";
// Nothing in the browser asks anything of the network on its own.
const FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"];

/// A hundred layers of a hundred steps, each of which needs two of the layer above.
function tenThousand() {
  const lines = ["runback: 1", "name: big", "description: Ten thousand steps, a hundred in a layer.", "steps:"];
  for (let layer = 0; layer < 100; layer++) {
    for (let i = 0; i < 100; i++) {
      const needs = layer ? `s${layer - 1}-${i}, s${layer - 1}-${(i + 1) % 100}` : "";
      lines.push(`  - id: s${layer}-${i}`, "    uses: assert", "    with: { that: ['true'] }", `    needs: [${needs}]`);
    }
  }
  return `${lines.join("\n")}\n`;
}

/// `prepare` may put runs into the store before the server looks; `options` are further words for it.
export async function start({ prepare, options = [] } = {}) {
  const dir = mkdtempSync(join(tmpdir(), "runback-browser-"));
  const [playbooks, state, tier] = ["playbooks", "state", "tier"].map((name) => join(dir, name));
  cpSync(join(here, "playbooks"), playbooks, { recursive: true });
  mkdirSync(tier);
  const big = join(dir, "big.yaml");
  writeFileSync(big, tenThousand());
  const command = (...words) => execFileSync(runback, [...words, "--state-dir", state], { encoding: "utf8", stdio: ["ignore", "pipe", "ignore"] });
  const token = (name, role) => command("token", "create", name, "--role", role).trim();
  const tokens = { admin: token("mira", "admin"), viewer: token("olaf", "viewer") };
  prepare?.({ command, state, playbooks });
  const server = spawn(runback, ["serve", "--listen", "127.0.0.1:0", "--playbooks", playbooks, "--state-dir", state, ...options], { stdio: ["ignore", "ignore", "pipe"] });
  const address = await new Promise((found, lost) => {
    let text = "";
    server.stderr.on("data", (piece) => {
      text += piece;
      const match = text.match(/"address":"([^"]+)"/);
      if (match) found(match[1]);
    });
    server.on("exit", (code) => lost(new Error(`the server ended with ${code}:\n${text}`)));
  });
  // Its shared memory has names in TMPDIR for a moment; what is ended in that moment leaves them there.
  const litter = join(dir, "browser");
  mkdirSync(litter);
  const env = { ...process.env, TMPDIR: litter };
  const browser = await chromium.launch({ executablePath: CHROMIUM, args: FLAGS, env, timeout: 120_000 });
  const stop = async () => {
    await browser.close();
    const ended = new Promise((done) => server.once("exit", done));
    server.kill("SIGTERM");
    await ended;
    rmSync(dir, { recursive: true, force: true, maxRetries: 10 });
  };
  /// What the server holds in memory, in MiB.
  const memory = () => Number(readFileSync(`/proc/${server.pid}/status`, "utf8").match(/^VmRSS:\s+(\d+)/m)[1]) / 1024;
  return { address, browser, big, command, dir, memory, playbooks, tier, tokens, stop };
}

/// A page whose mistakes are kept: an exception, or something that the content security policy refused.
export async function open(world, options = {}) {
  const context = await world.browser.newContext({ viewport: { width: 1280, height: 900 }, ...options });
  const page = await context.newPage();
  page.setDefaultTimeout(60_000);
  page.wrong = [];
  page.on("pageerror", (error) => page.wrong.push(error.stack ?? String(error)));
  page.on("console", (message) => {
    if (/Content Security Policy|Refused to/.test(message.text())) page.wrong.push(message.text());
  });
  page.on("dialog", (dialog) => {
    page.wrong.push(`a script of somebody else ran: ${dialog.message()}`);
    dialog.dismiss();
  });
  return page;
}

/// The same, logged in.
export async function enter(world, options, token = world.tokens.admin) {
  const page = await open(world, options);
  await page.goto(`${world.address}/login`);
  await page.fill("#token", token);
  await page.click("button[type=submit]");
  await page.waitForURL(`${world.address}/`);
  return page;
}
