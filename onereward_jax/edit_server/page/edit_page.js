// The page of the editor: puts its parts together, sends edits and shows what comes back.

import { announce, element } from "./dom.js";
import { base64Of, login, request, submitted } from "./edit_client.js";
import { JudgeView } from "./judge_view.js";
import { ResultsView } from "./results_view.js";
import { SettingsForm } from "./settings_form.js";
import { SourceView } from "./source_view.js";

const NOTHING = [0, 0, 0, 0];

class EditPage {
  constructor(root, about) {
    this.stop = null;
    this.judge = new JudgeView(about.judge);
    this.results = new ResultsView({
      onpair: (pair) => this.judge.choose(pair),
    });
    this.source = new SourceView({
      ontell: (sentence) => this.settings.tell(sentence),
      onopen: () => this.opened(),
    });
    this.settings = new SettingsForm(about, {
      onsend: () => this.send(),
      oncancel: () => this.stop?.abort(),
      ontask: (name) => this.source.extend(name === "extend"),
    });
    root.className = "app editing";
    root.replaceChildren(
      element("header", { class: "top" },
        element("h1", {}, "Edit a picture"),
        element("span", { class: "soft models" },
          `${about.editor}, pictures of about ${about.resolution}x${about.resolution} pixels`),
        element("a", { class: "button quiet", href: "docs" }, "API")),
      element("main", { class: "desk" },
        this.source.element, this.results.element, this.settings.element,
        element("div", { class: "below" }, this.results.strip, this.judge.element)),
    );
    addEventListener("keydown", (event) => this.keydown(event));
    addEventListener("keyup", ({ key }) => {
      if (key.toLowerCase() === "f") this.results.pictures.releaseFlicker();
    });
  }

  opened() {
    this.settings.tell("");
    this.results.clear();
  }

  async send() {
    if (this.stop) return;
    const { source, settings } = this;
    settings.tell("");
    if (!source.file) return settings.tell("Open a picture first.");
    const body = settings.body();
    const isExtending = source.isExtending;
    const result = {
      task: body.task, prompt: body.prompt, seed: body.seed, source: source.address,
      size: source.size, pad: isExtending ? source.pad : NOTHING,
    };
    const mask = isExtending ? null : await source.mask.file();
    if (isExtending) body.pad = result.pad.join(",");
    else if (mask) body.mask = await base64Of(mask);
    else return settings.tell("Draw a mask first: it marks what is to be edited.");
    body.image = await base64Of(source.file);
    this.stop = new AbortController();
    const { signal } = this.stop;
    settings.busy("sending");
    try {
      const state = await submitted("/api/edits", body, {
        signal,
        onstate: (now) => settings.progress(now),
        onwait: (sentence, seconds) => settings.busy(`${sentence}; next try in ${seconds} s`),
      });
      if (state.state !== "done") throw new Error(state.error ?? "the edit was cancelled");
      const blob = await fetch(state.result, { signal }).then((answer) => answer.blob());
      await this.results.add({ ...result, id: state.id, blob });
      this.judge.offer(this.results.results.length);
      settings.idle([`done in ${state.seconds.toFixed(1)} s`, ...state.notes].join("; "));
      announce(`result ${this.results.shown.letter} is there`);
    } catch (error) {
      settings.idle(signal.aborted ? "cancelled" : "");
      if (!signal.aborted) settings.tell(error.message);
    }
    this.stop = null;
    return undefined;
  }

  keydown(event) {
    if (event.target.closest("input:not([type=range]), textarea, select")) return;
    const { source, results } = this;
    const key = event.key.toLowerCase();
    const isPlain = !event.ctrlKey && !event.metaKey && !event.altKey;
    const canDraw = source.file && !source.isExtending;
    if (key === "z" && !isPlain && canDraw) source.mask.undo();
    else if (!isPlain) return;
    else if (key === "u" && canDraw) source.mask.undo();
    else if (key === "b" && canDraw) source.choose("brush");
    else if (key === "e" && canDraw) source.choose("erase");
    else if (key === "r" && canDraw) source.choose("box");
    else if (key === "]") source.resize(1.25);
    else if (key === "[") source.resize(0.8);
    else if (key === "z" && results.shown) results.pictures.toggleZoom();
    else if (key === "f" && results.shown) {
      if (!event.repeat) results.pictures.pressFlicker();
    } else return;
    event.preventDefault();
  }
}

/** Asks for the token, for those who have come without the link. */
function askForToken(root, sentence) {
  const token = element("input", {
    type: "password", "aria-label": "token", autocomplete: "current-password", required: true,
  });
  root.className = "app";
  root.replaceChildren(element("main", { class: "home" },
    element("h1", {}, "Edit a picture"),
    element("p", { class: "lead" }, "Open the link that the server prints, or enter its token."),
    element("form", {
      class: "row",
      onsubmit: (event) => {
        event.preventDefault();
        start(root, token.value.trim());
      },
    }, token, element("button", { type: "submit", class: "main" }, "Enter")),
    element("p", { class: "told wrong", role: "alert" }, sentence)));
}

async function start(root, token) {
  try {
    if (token) await login(token);
    new EditPage(root, await request("GET", "/api/about"));
  } catch (error) {
    if (error.status === undefined) throw error;
    askForToken(root, error.status === 401 && !token ? "" : error.message);
  }
}

const given = new URLSearchParams(location.hash.slice(1)).get("token");
// The token must not stay in the history.
if (given) history.replaceState(null, "", location.pathname);
start(document.getElementById("app"), given);
