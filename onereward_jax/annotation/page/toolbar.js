// The buttons for looking: mask, zoom, flicker, guideline, keys.

import { button, element, keyName } from "./dom.js";

/** Buttons that show their state with aria-pressed. `actions`: {mask, zoom, ...} functions. */
export class Toolbar {
  constructor(actions) {
    const tool = (name, words, key, spoken) =>
      button({
        class: "tool", "aria-keyshortcuts": key, "aria-label": spoken, title: spoken,
        "aria-pressed": name === "help" ? null : "false",
        onclick: actions[name],
      }, element("span", {}, words), keyName(key));
    this.tools = {
      mask: tool("mask", "Mask", "M", "mask over the source"),
      zoom: tool("zoom", "Zoom", "Z", "zoom, all pictures together"),
      flicker: tool("flicker", "Flicker", "F", "flicker: the source in the place of the candidates"),
      guideline: tool("guideline", "Guideline", "G", "guideline of the dimension"),
      help: tool("help", "Keys", "?", "all keys"),
    };
    const { flicker } = this.tools;
    flicker.addEventListener("pointerdown", (event) => {
      flicker.setPointerCapture(event.pointerId);
      actions.pressFlicker();
    });
    for (const end of ["pointerup", "pointercancel"]) {
      flicker.addEventListener(end, actions.releaseFlicker);
    }
    this.element = element("div", { class: "tools", role: "toolbar", "aria-label": "view" },
      Object.values(this.tools));
  }

  /** Marks what is on, e.g. {mask: true}. */
  show(on) {
    for (const [name, isOn] of Object.entries(on)) {
      this.tools[name].setAttribute("aria-pressed", `${isOn}`);
    }
  }
}
