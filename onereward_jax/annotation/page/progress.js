// How far the work is, and whether it is saved.

import { element } from "./dom.js";

/** A bar with the share of `total` that is done, and its words for a screen reader. */
export function progressBar(done, total, words) {
  const filled = element("div", { class: "filled" });
  filled.style.width = `${total ? (100 * done) / total : 0}%`;
  return element("div", {
    class: "progress",
    role: "progressbar",
    "aria-valuemin": "0",
    "aria-valuemax": `${total}`,
    "aria-valuenow": `${done}`,
    "aria-valuetext": words,
    "aria-label": "progress",
  }, filled);
}

/** The line that says whether everything is saved; `show(status)` as the stores tell it. */
export class SavedState {
  constructor() {
    this.words = element("span");
    this.element = element("div", { class: "saved", role: "status" },
      element("span", { class: "dot", "aria-hidden": "true" }), this.words);
  }

  show({ state, text, unsent }) {
    this.element.dataset.state = state.replace(" ", "-");
    const said = unsent > 1 && state !== "saving" ? `${text} (${unsent})` : text;
    if (this.words.textContent !== said) this.words.textContent = said;
    this.element.title = said;
  }
}
