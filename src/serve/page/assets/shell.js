// What every page has: the end of the session.

import { $ } from "./dom.js";
import { logOut } from "./api.js";

$("#log-out")?.addEventListener("click", async () => {
  await logOut();
  location.assign("/login");
});
