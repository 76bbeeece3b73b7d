// A token, or the code of the address that the server printed, becomes a session.

import { $, h, put } from "./dom.js";
import { logIn } from "./api.js";

const form = $("#login");
const wrong = $("#wrong");

/// Only a place on this server.
function next() {
  const wanted = new URLSearchParams(location.search).get("next") ?? "/";
  return wanted.startsWith("/") && !wanted.startsWith("//") && !wanted.includes("\\") ? wanted : "/";
}

async function enter(token) {
  put(wrong);
  try {
    await logIn(token);
    location.replace(next());
  } catch (error) {
    put(wrong, h("p", null, error.message), error.help ? h("p", { class: "muted pre" }, error.help) : null);
    $("#token").focus();
  }
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  enter($("#token").value);
});

const code = location.hash.slice(1);
if (code) {
  // It must not stay in the address.
  history.replaceState(null, "", location.pathname + location.search);
  enter(code);
}
