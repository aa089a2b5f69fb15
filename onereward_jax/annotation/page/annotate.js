// The page of the annotation server: logs in with the token of the link, then starts.

import { App } from "./app.js";
import { element } from "./dom.js";
import { loginView } from "./home_view.js";
import { Away, login, pause, Refused, request, session, waitBefore } from "./server_api.js";
import { restore } from "./safe_storage.js";
import { ServerStore } from "./server_store.js";

const root = document.getElementById("app");

/** The token of a link http://…/#token=…; it does not stay in the address. */
function tokenOfLink() {
  const [, token] = /^#token=(.+)$/.exec(location.hash) ?? [];
  if (token) history.replaceState(null, "", location.pathname + location.search);
  return token ? decodeURIComponent(token) : null;
}

function showLogin(told) {
  const enter = async (token) => {
    await login(token);
    await begin();
  };
  root.className = "app";
  root.replaceChildren(element("main", {}, loginView(enter, told)));
  root.querySelector("input").focus();
}

async function logout() {
  await request("POST", "/api/logout").catch(() => null);
  location.reload();
}

async function begin() {
  const found = await session();
  await new App(root, new ServerStore(found), { onlogout: logout }).start();
}

async function open() {
  const token = tokenOfLink();
  for (let tries = 1; ; tries += 1) {
    try {
      if (token) await login(token);
      return await begin();
    } catch (error) {
      if (error instanceof Refused) {
        return showLogin(error.status === 401 && !token ? "" : error.message);
      }
      if (!(error instanceof Away)) throw error;
      root.replaceChildren(element("p", { class: "home", role: "status" },
        `${error.message}: trying again …`));
      await pause(waitBefore(tries));
    }
  }
}

await restore();
await open();
