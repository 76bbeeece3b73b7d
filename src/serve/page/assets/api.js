// The API of this server, as the page asks it. A request that needs a login leads there and comes back.

export class ApiError extends Error {
  constructor(status, message, help) {
    super(message);
    this.status = status;
    this.help = help;
  }
}

function toLogin() {
  const here = location.pathname + location.search;
  location.assign(`/login?next=${encodeURIComponent(here)}`);
}

async function ask(path, options) {
  let response;
  try {
    response = await fetch(path, { credentials: "same-origin", ...options });
  } catch {
    throw new ApiError(0, "The server does not answer.", "It may be restarting; this page tries again by itself.");
  }
  if (response.ok) return response;
  const error = await response.json().then((body) => body.error, () => null);
  if (response.status === 401) toLogin();
  throw new ApiError(response.status, error?.message ?? `The server answered ${response.status}.`, error?.help);
}

export function url(path, params = {}) {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(params)) {
    if (value !== null && value !== undefined && value !== "") query.set(name, value);
  }
  const text = query.toString();
  return `/api/v1/${path}${text ? `?${text}` : ""}`;
}

export const get = async (path, params) => (await ask(url(path, params))).json();

export async function post(path, body = {}) {
  const headers = { "content-type": "application/json" };
  const response = await ask(url(path), { method: "POST", headers, body: JSON.stringify(body) });
  return response.json();
}

export async function logIn(token) {
  const headers = { "content-type": "application/x-www-form-urlencoded" };
  const response = await fetch("/session", { method: "POST", headers, body: new URLSearchParams({ token }) });
  if (response.ok) return;
  const error = await response.json().then((body) => body.error, () => null);
  throw new ApiError(response.status, error?.message ?? `The server answered ${response.status}.`, error?.help);
}

export const logOut = () => fetch("/session/end", { method: "POST" });

/// A stretch of an attempt's output: bytes, and where they stand in the whole.
export async function readLog(run, params) {
  const response = await ask(url(`runs/${encodeURIComponent(run)}/log`, params));
  const number = (name) => Number(response.headers.get(name) ?? 0);
  const bytes = new Uint8Array(await response.arrayBuffer());
  return { bytes, offset: number("x-log-offset"), cut: number("x-log-cut"), next: number("x-log-next"), size: number("x-log-size") };
}

/// Events of a stream as objects, until it is closed. The browser comes back by itself with its place.
export function watch(path, onEvent, onState) {
  const source = new EventSource(path);
  source.onmessage = (message) => onEvent(JSON.parse(message.data));
  // Some were missed: whoever shows a list reads it anew.
  source.addEventListener("reload", () => onEvent({ type: "reload" }));
  source.onopen = () => onState?.(true);
  source.onerror = () => onState?.(false);
  addEventListener("pagehide", () => source.close());
  return source;
}

/// All events of a run up to now, in pieces as they come.
export async function allEvents(run, onEvents) {
  const response = await ask(url(`runs/${encodeURIComponent(run)}/stream`, { after: 0, follow: false }));
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const frames = (rest + value).split("\n\n");
    rest = frames.pop();
    const data = frames.map((frame) => frame.split("\n").find((line) => line.startsWith("data: "))).filter(Boolean);
    if (data.length) onEvents(data.map((line) => JSON.parse(line.slice(6))));
  }
}

/// Calls `work` soon, never twice at once, and rarely where it takes long.
export function throttled(work, gap = 300) {
  let running = false, again = false, took = 0;
  return async function go() {
    if (running) {
      again = true;
      return;
    }
    running = true;
    do {
      again = false;
      const began = performance.now();
      await work();
      took = performance.now() - began;
      await new Promise((done) => setTimeout(done, Math.max(gap, took * 3)));
    } while (again);
    running = false;
  };
}
