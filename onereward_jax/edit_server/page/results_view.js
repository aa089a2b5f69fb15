// The results: one in large, in which the source can be flipped in; all of them in a strip.

import { button, element, keyName } from "./dom.js";
import { PictureView } from "./picture_view.js";
import { fit } from "./source_view.js";

const MOST = 26;

/** The source in the place where it is in a result, which may be larger. */
async function sourceInPlace(address, [width, height], [left, top, right, bottom]) {
  if (!left && !top && !right && !bottom) return address;
  const picture = element("img", { src: address });
  await picture.decode();
  const canvas = element("canvas", { width: left + width + right, height: top + height + bottom });
  canvas.getContext("2d").drawImage(picture, left, top);
  const blob = await new Promise((resume) => canvas.toBlob(resume, "image/png"));
  return URL.createObjectURL(blob);
}

/** The right half of the page, and the strip below. `onpair([a, b])`: results to compare. */
export class ResultsView {
  constructor({ onpair }) {
    this.onpair = onpair;
    this.results = [];
    this.made = 0;
    this.shown = null;
    this.table = element("div", { class: "table" });
    this.pictures = new PictureView(this.table);
    this.pictures.onchange = () => this.showTools();
    this.flipping = button({
      class: "tool flip", "aria-pressed": "false", "aria-keyshortcuts": "F",
      title: "hold: the source; tap: both in turns",
      onclick: (event) => { if (event.detail === 0) this.flip(); },
    }, "Flip", keyName("F"));
    this.flipping.addEventListener("pointerdown", (event) => {
      this.flipping.setPointerCapture(event.pointerId);
      this.pictures.pressFlicker();
    });
    for (const end of ["pointerup", "pointercancel"]) {
      this.flipping.addEventListener(end, () => this.pictures.releaseFlicker());
    }
    this.zooming = button({
      class: "tool", "aria-pressed": "false", "aria-keyshortcuts": "Z",
      onclick: () => this.pictures.toggleZoom(),
    }, "Zoom", keyName("Z"));
    this.download = element("a", { class: "button tool download" }, "Download");
    this.name = element("span", { class: "soft name" });
    this.element = element("section", { class: "pane result", "aria-label": "result" },
      element("div", { class: "bar" }, this.flipping, this.zooming, this.download, this.name),
      this.table);
    this.strip = element("section", { class: "strip", "aria-label": "results", hidden: true });
    new ResizeObserver(() => this.layOut()).observe(this.table);
    this.clear();
  }

  /** No result is in view. */
  clear() {
    this.shown = null;
    this.table.replaceChildren(element("div", { class: "drop soft" },
      element("p", {}, "The result will be here.")));
    this.showTools();
  }

  /** Adds a result `{id, blob, source, size, pad, task, prompt, seed}` and shows it. */
  async add(result) {
    result.letter = String.fromCharCode(65 + this.made % MOST);
    this.made += 1;
    result.address = URL.createObjectURL(result.blob);
    result.under = await sourceInPlace(result.source, result.size, result.pad);
    result.isCompared = false;
    result.card = this.card(result);
    this.results.push(result);
    this.strip.append(result.card);
    if (this.results.length > MOST) this.forget(this.results[0]);
    this.strip.hidden = false;
    this.strip.scrollLeft = this.strip.scrollWidth;
    this.show(result);
    this.element.scrollIntoView({ block: "nearest" }); // on a phone it is below the settings
  }

  card(result) {
    const words = `${result.task}, seed ${result.seed}`;
    const view = button({
      class: "thumb", "aria-label": `show result ${result.letter}`, title: result.prompt || words,
      onclick: () => this.show(result),
    }, element("img", { src: result.address, alt: "" }));
    const compare = button({
      class: "tool compare", "aria-pressed": "false",
      "aria-label": `compare result ${result.letter}`, onclick: () => this.compare(result),
    }, "Compare");
    return element("figure", { class: "card" }, view,
      element("figcaption", {}, element("b", {}, result.letter), compare));
  }

  forget(result) {
    this.results.splice(this.results.indexOf(result), 1);
    result.card.remove();
    URL.revokeObjectURL(result.address);
    if (result.isCompared) this.compare(result);
    if (this.shown === result) this.show(this.results.at(-1));
  }

  show(result) {
    this.shown = result;
    this.pictures.stopFlicker();
    this.pictures.zoomBy(0);
    this.table.replaceChildren(
      this.pictures.picture(result.address, `result ${result.letter}`, { under: result.under }));
    for (const one of this.results) {
      one.card.querySelector(".thumb").setAttribute("aria-current", `${one === result}`);
    }
    this.layOut();
    this.showTools();
  }

  /** Chooses a result for the judge, or no longer; of more than two the oldest choice ends. */
  compare(result) {
    result.isCompared = !result.isCompared && this.results.includes(result);
    const pair = (this.pair ?? []).filter((one) => one !== result);
    if (result.isCompared) pair.push(result);
    if (pair.length > 2) pair.shift().isCompared = false;
    this.pair = pair;
    for (const one of this.results) {
      one.card.querySelector(".compare").setAttribute("aria-pressed", `${one.isCompared}`);
    }
    this.onpair([...pair].sort((a, b) => (a.letter < b.letter ? -1 : 1)));
  }

  /** Flips between result and source, from the keyboard. */
  flip() {
    this.pictures.pressFlicker();
    this.pictures.releaseFlicker();
  }

  layOut() {
    if (!this.shown) return;
    const { size: [width, height], pad: [left, top, right, bottom] } = this.shown;
    fit(this.table, left + width + right, top + height + bottom);
  }

  showTools() {
    const { shown } = this;
    this.flipping.disabled = this.zooming.disabled = !shown;
    this.flipping.setAttribute("aria-pressed", `${this.pictures.isFlickering}`);
    this.zooming.setAttribute("aria-pressed", `${this.pictures.isZoomed}`);
    this.download.hidden = this.name.hidden = !shown;
    if (!shown) return;
    this.download.href = shown.address;
    this.download.download = `edit-${shown.letter}-seed-${shown.seed}.png`;
    this.name.textContent = `${shown.letter}: ${shown.prompt || shown.task}, seed ${shown.seed}`;
  }
}
