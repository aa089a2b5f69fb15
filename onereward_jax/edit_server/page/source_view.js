// The source: opening it, drawing the mask over it, and the sides by which it is extended.

import { button, element, keyName } from "./dom.js";
import { MaskCanvas } from "./mask_canvas.js";

const READABLE = "image/png,image/jpeg,image/webp,image/avif,image/bmp,image/gif";
const SIDES = ["left", "top", "right", "bottom"];

/** A label that opens a file. */
function opener(words, properties, onfile) {
  const input = element("input", {
    type: "file", accept: READABLE, class: "unseen", ...properties,
    onchange: () => {
      const [file] = input.files;
      input.value = "";
      if (file) onfile(file);
    },
  });
  return element("label", { class: "button tool opener" }, words, input);
}

/** Sets the width of a picture so that all of it fits into its table. */
export function fit(table, width, height) {
  const across = table.clientWidth - 16;
  // On a phone the page scrolls: the table is as high as its picture.
  const down = matchMedia("(max-width: 44rem)").matches ? innerHeight * 0.7 : table.clientHeight - 16;
  const picture = Math.max(48, Math.min(across, down * width / height));
  table.style.setProperty("--picture", `${Math.floor(picture)}px`);
  table.style.setProperty("--aspect", `${width / height}`);
}

/** The left half of the page. `ontell(sentence)` says what went wrong, `onopen()` what is new. */
export class SourceView {
  constructor({ ontell, onopen }) {
    this.ontell = ontell;
    this.onopen = onopen;
    this.file = this.address = null;
    this.size = [0, 0];
    this.isExtending = false;
    this.mask = new MaskCanvas();
    this.mask.onchange = () => this.showTools();
    this.image = element("img", { alt: "the source", draggable: "false" });
    this.picture = element("div", { class: "picture" }, this.image, this.mask.canvas, this.mask.ring);
    this.frame = element("div", { class: "canvas-frame", hidden: true }, this.picture);
    const begin = opener("Open a picture", { "data-opens": "first" }, (file) => this.open(file));
    begin.classList.add("main");
    this.hint = element("div", { class: "drop soft" }, begin,
      element("p", {}, "or drop it here, or paste it"));
    this.table = element("div", { class: "table" }, this.hint, this.frame);
    this.element = element("section", { class: "pane source", "aria-label": "source and mask" },
      this.toolbar(), this.table);
    this.listen();
    this.showTools();
  }

  toolbar() {
    const tool = (name, words, key) => button({
      class: "tool", "aria-pressed": "false", "aria-keyshortcuts": key,
      onclick: () => this.choose(name),
    }, words, keyName(key));
    this.tools = {
      brush: tool("brush", "Brush", "B"),
      erase: tool("erase", "Eraser", "E"),
      box: tool("box", "Box", "R"),
    };
    this.undoing = button({
      class: "tool", "aria-keyshortcuts": "U", onclick: () => this.mask.undo(),
    }, "Undo", keyName("U"));
    this.others = [
      button({ class: "tool", onclick: () => this.mask.apply("invert") }, "Invert"),
      button({ class: "tool", onclick: () => this.mask.apply("clear") }, "Clear"),
    ];
    this.slider = element("input", {
      type: "range", min: 1, max: 40, value: 100 * this.mask.size, "aria-label": "size of the brush",
      title: "size of the brush: [ and ]",
      oninput: () => { this.mask.size = this.slider.value / 100; },
    });
    this.loading = opener("Load mask", { "data-opens": "mask" }, (file) => this.loadMask(file));
    this.drawing = element("div", { class: "tools", role: "toolbar", "aria-label": "mask" },
      Object.values(this.tools), this.slider, this.undoing, this.others, this.loading);
    const opening = opener("Open picture", { "data-opens": "picture" }, (file) => this.open(file));
    return element("div", { class: "bar" }, opening, this.drawing, this.sides());
  }

  sides() {
    this.pads = SIDES.map((side) => element("input", {
      type: "number", min: 0, step: 1, value: 0, "aria-label": `pixels to add: ${side}`,
      oninput: () => this.layOut(),
    }));
    this.padding = element("div", { class: "sides", hidden: true },
      SIDES.map((side, index) => element("label", {}, side, this.pads[index])));
    return this.padding;
  }

  listen() {
    new ResizeObserver(() => this.layOut()).observe(this.table);
    this.table.addEventListener("dragover", (event) => event.preventDefault());
    this.table.addEventListener("drop", (event) => {
      event.preventDefault();
      const [file] = event.dataTransfer.files;
      if (file) this.open(file);
    });
    addEventListener("paste", (event) => {
      const [file] = event.clipboardData?.files ?? [];
      if (file?.type.startsWith("image/")) this.open(file);
    });
  }

  async open(file) {
    const address = URL.createObjectURL(file);
    this.image.src = address;
    try {
      await this.image.decode();
    } catch {
      if (this.address) this.image.src = this.address;
      URL.revokeObjectURL(address);
      this.ontell(`${file.name || "the file"} is no picture that this browser shows: use PNG or JPEG`);
      return;
    }
    this.file = file;
    this.address = address; // of results too, so it is not revoked
    this.size = [this.image.naturalWidth, this.image.naturalHeight];
    this.image.classList.toggle("small", Math.max(...this.size) <= 128);
    this.mask.open(...this.size);
    const quarter = Math.max(16, 16 * Math.round(this.size[0] / 64));
    this.pads.forEach((input, side) => { input.value = side % 2 ? 0 : quarter; });
    this.hint.hidden = true;
    this.frame.hidden = false;
    this.layOut();
    this.showTools();
    this.onopen();
  }

  async loadMask(file) {
    try {
      const bitmap = await createImageBitmap(file).catch(() => {
        throw new Error(`${file.name} is no picture that this browser shows: use PNG or JPEG`);
      });
      this.mask.load(bitmap);
      this.ontell("");
    } catch (error) {
      this.ontell(error.message);
    }
  }

  /** The pixels to add, as numbers of at least 0. */
  get pad() {
    return this.pads.map((input) => Math.max(0, Math.round(Number(input.value) || 0)));
  }

  /** Whether sides are added, instead of a mask being drawn. */
  extend(isExtending) {
    this.isExtending = isExtending;
    this.padding.hidden = !isExtending;
    this.layOut();
    this.showTools();
  }

  layOut() {
    if (!this.file) return;
    const [width, height] = this.size;
    const [left, top, right, bottom] = this.isExtending ? this.pad : [0, 0, 0, 0];
    const whole = [left + width + right, top + height + bottom];
    fit(this.table, ...whole);
    const { style } = this.picture;
    style.left = `${100 * left / whole[0]}%`;
    style.top = `${100 * top / whole[1]}%`;
    style.width = `${100 * width / whole[0]}%`;
    style.height = `${100 * height / whole[1]}%`;
  }

  choose(name) {
    this.mask.tool = name;
    this.showTools();
  }

  /** Makes the brush larger or smaller. */
  resize(factor) {
    this.slider.value = Math.max(this.slider.value * factor, 1);
    this.mask.size = this.slider.value / 100;
  }

  showTools() {
    const canDraw = Boolean(this.file) && !this.isExtending;
    for (const [name, tool] of Object.entries(this.tools)) {
      tool.disabled = !canDraw;
      tool.setAttribute("aria-pressed", `${canDraw && name === this.mask.tool}`);
    }
    for (const one of [this.slider, ...this.others, this.loading.querySelector("input")]) {
      one.disabled = !canDraw;
    }
    this.loading.classList.toggle("off", !canDraw);
    this.undoing.disabled = !canDraw || !this.mask.canUndo;
    this.drawing.hidden = this.isExtending;
    this.mask.canvas.hidden = this.isExtending;
  }
}
