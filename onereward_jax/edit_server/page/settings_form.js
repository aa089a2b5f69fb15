// Task, prompt and settings of an edit.

import { button, element } from "./dom.js";

const WORDS = { fill: "Fill", extend: "Extend", remove: "Remove" };
const HINTS = {
  fill: "Draw over what is to be replaced, and say what should be there.",
  extend: "Say how many pixels to add at each side; a prompt is optional.",
  remove: "Draw over what is to go.",
};

const number = (name, value, others) =>
  element("input", { type: "number", name, value, required: true, ...others });

const field = (words, input) => element("label", { class: "field" }, element("span", {}, words), input);

/** The right column. `onsend()`, `oncancel()` and `ontask(name)` are called by it. */
export class SettingsForm {
  constructor(about, { onsend, oncancel, ontask }) {
    this.about = about;
    this.ontask = ontask;
    this.tasks = Object.keys(about.tasks).map((name) => button({
      class: "tool", "data-task": name, onclick: () => this.choose(name),
    }, WORDS[name] ?? name));
    this.hint = element("p", { class: "soft hint-line" });
    this.prompt = element("textarea", { name: "prompt", rows: 3, maxlength: 4000 });
    this.seed = number("seed", 0, { min: 0, max: Number.MAX_SAFE_INTEGER, step: 1 });
    const dice = button({
      class: "tool", title: "another seed",
      onclick: () => { this.seed.value = Math.floor(Math.random() * 2 ** 31); },
    }, "Another");
    this.sending = element("button", { type: "submit", class: "main send" }, "Edit");
    this.cancelling = button({ class: "cancel", hidden: true, onclick: oncancel }, "Cancel");
    this.filled = element("div", { class: "filled" });
    this.bar = element("div", {
      class: "progress", role: "progressbar", "aria-label": "steps", "aria-valuemin": 0, hidden: true,
    }, this.filled);
    this.status = element("p", { class: "status soft" });
    this.told = element("p", { class: "told wrong", role: "alert" });
    this.element = element("form", {
      class: "settings", "aria-label": "edit",
      onsubmit: (event) => {
        event.preventDefault();
        onsend();
      },
    },
    element("div", { class: "segments", role: "group", "aria-label": "task" }, this.tasks),
    this.hint,
    field("Prompt", this.prompt),
    element("div", { class: "row seed" }, field("Seed", this.seed), dice),
    this.more(about.defaults, about.limits),
    element("div", { class: "sender" },
      element("div", { class: "row" }, this.sending, this.cancelling),
      this.bar, this.status, this.told));
    this.choose("fill");
  }

  more(defaults, limits) {
    const options = (name, choices) => element("select", { name },
      choices.map(([value, words]) => element("option", { value }, words)));
    this.others = [
      ["Steps", number("steps", defaults.steps, { min: 1, max: limits.steps, step: 1 })],
      ["Guidance", number("true_cfg_scale", defaults.true_cfg_scale, { min: 0, max: 100, step: "any" })],
      ["Negative prompt", element("input", {
        name: "negative_prompt", value: defaults.negative_prompt, maxlength: 4000,
      })],
      ["Strength", number("strength", defaults.strength, { min: 0.01, max: 1, step: "any" })],
      ["Seam, pixels", number("feather", defaults.feather, { min: 0, max: 512, step: 1 })],
      ["In a window", options("crop", [
        ["", "if it is large"], ["true", "always"], ["false", "never"],
      ])],
      ["Separate areas", options("components", [["", "together"], ["each", "one by one"]])],
      ["Outside the mask", options("paste_back", [
        ["", defaults.paste_back ? "kept (default)" : "redrawn (default)"], ["true", "kept"],
        ["false", "redrawn"],
      ])],
    ];
    return element("details", {}, element("summary", {}, "More settings"),
      element("div", { class: "more" }, this.others.map(([words, input]) => field(words, input))));
  }

  choose(name) {
    this.task = name;
    for (const one of this.tasks) {
      one.setAttribute("aria-pressed", `${one.dataset.task === name}`);
    }
    this.hint.textContent = HINTS[name] ?? "";
    this.prompt.placeholder = this.about.prompts[name] ? "optional" : "a red apple";
    this.ontask(name);
  }

  /** What the request says beside the pictures. */
  body() {
    const given = { task: this.task, prompt: this.prompt.value.trim(), seed: Number(this.seed.value) };
    for (const [, input] of this.others) {
      const { name, value, type } = input;
      if (input.tagName === "SELECT") {
        if (value) given[name] = name === "components" ? value : value === "true";
      } else if (type === "number") given[name] = Number(value);
      else given[name] = value;
    }
    // One window per area is for windows only.
    if (given.components && given.crop === undefined) given.crop = true;
    return given;
  }

  /** Shows that an edit is on its way, and how far it is. */
  progress({ state, place, step, steps, seconds }) {
    let words = `step ${step} of ${steps}`;
    if (state === "waiting") words = place ? `${place} before this one` : "next";
    else if (step === 0) words = "starting; the first edit of a size takes longer";
    else if (step === steps) words = "finishing";
    this.busy(`${words}, ${Math.round(seconds)} s`);
    this.filled.style.width = `${100 * step / steps}%`;
    this.bar.setAttribute("aria-valuemax", steps);
    this.bar.setAttribute("aria-valuenow", step);
  }

  busy(words) {
    this.bar.hidden = this.cancelling.hidden = false;
    this.sending.disabled = true;
    this.status.textContent = words;
  }

  /** Shows that nothing is on its way; `words` say what happened. */
  idle(words) {
    this.bar.hidden = this.cancelling.hidden = true;
    this.sending.disabled = false;
    this.filled.style.width = "0";
    this.status.textContent = words;
  }

  tell(sentence) {
    this.told.textContent = sentence;
  }
}
