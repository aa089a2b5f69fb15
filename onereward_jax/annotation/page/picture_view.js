// Pictures that are looked at together: one zoom and one position for all, the source in their
// place (flicker), the mask over the source.

import { drawn, element } from "./dom.js";

const CLOSEST = 16;
const STEP = 3;
const FLICKER_MS = 450;
const SMALL = 128;
const TAP_MS = 300;

let masks = 0;

/** An image that is pixelated if it is small, and can be asked for again if it does not come. */
function image(address, name) {
  const made = element("img", { alt: name, draggable: "false", decoding: "async" });
  made.addEventListener("load", () => {
    made.classList.toggle("small", Math.max(made.naturalWidth, made.naturalHeight) <= SMALL);
    made.parentElement?.classList.remove("missing");
  });
  made.addEventListener("error", () => {
    made.parentElement?.classList.add("missing");
    setTimeout(() => { if (made.isConnected) made.src = address; }, 3000);
  });
  made.src = address;
  return made;
}

/** The mask as hatching: where it is white, the source is to be edited. */
function maskOverlay(address) {
  masks += 1;
  const [mask, hatching] = [`mask-${masks}`, `hatching-${masks}`];
  const whole = { width: "100%", height: "100%" };
  return drawn("svg", { class: "mask", "aria-hidden": "true", focusable: "false" },
    drawn("defs", {},
      drawn("mask", { id: mask },
        drawn("image", { href: address, ...whole, preserveAspectRatio: "none" })),
      drawn("pattern", {
        id: hatching, width: 10, height: 10, patternUnits: "userSpaceOnUse",
        patternTransform: "rotate(45)",
      },
      drawn("rect", { width: 10, height: 10, class: "mask-tint" }),
      drawn("rect", { width: 2.5, height: 10, class: "mask-line" })),
    ),
    drawn("rect", { ...whole, fill: `url(#${hatching})`, mask: `url(#${mask})` }),
  );
}

/** The pictures of an item. `grid` is the element that has all of them inside. */
export class PictureView {
  constructor(grid) {
    this.grid = grid;
    this.scale = 1;
    this.x = this.y = 0.5; // what is in the middle, in parts of the picture
    this.pointers = new Map();
    this.over = null;
    this.flicker = { pressed: null, timer: null };
    this.onchange = () => {};
    this.apply();
  }

  /** A picture without its buttons; `under`: the source, for the flicker; `mask`: for the source. */
  picture(address, name, { under, mask } = {}) {
    const stage = element("div", { class: "stage" }, image(address, name));
    if (under) {
      const source = image(under, "");
      source.classList.add("under");
      stage.append(source);
    }
    if (mask) stage.append(maskOverlay(mask));
    const frame = element("div", { class: "frame" }, stage);
    this.listen(frame);
    return frame;
  }

  listen(frame) {
    frame.addEventListener("wheel", (event) => this.wheel(event, frame), { passive: false });
    frame.addEventListener("pointerdown", (event) => {
      if (event.pointerType === "mouse" && event.button !== 0) return;
      this.pointers.set(event.pointerId, event);
      if (this.scale > 1 || this.pointers.size > 1) frame.setPointerCapture(event.pointerId);
    });
    frame.addEventListener("pointermove", (event) => this.move(event, frame));
    for (const end of ["pointerup", "pointercancel"]) {
      frame.addEventListener(end, (event) => this.pointers.delete(event.pointerId));
    }
    frame.addEventListener("pointerleave", (event) => {
      if (event.pointerType === "mouse") this.over = null;
      if (!frame.hasPointerCapture(event.pointerId)) this.pointers.delete(event.pointerId);
    });
    frame.addEventListener("dblclick", (event) => this.toggleZoom(inside(event, frame)));
  }

  wheel(event, frame) {
    const page = document.scrollingElement;
    const pageScrolls = page.scrollHeight > page.clientHeight + 1;
    if (pageScrolls && this.scale === 1 && !event.ctrlKey) return;
    event.preventDefault();
    const lines = event.deltaMode === WheelEvent.DOM_DELTA_LINE ? 16 : 1;
    const speed = event.ctrlKey ? 0.01 : 0.002;
    this.zoomBy(Math.exp(-event.deltaY * lines * speed), inside(event, frame));
  }

  move(event, frame) {
    this.over = inside(event, frame);
    const before = this.pointers.get(event.pointerId);
    if (!before) return;
    const box = frame.getBoundingClientRect();
    if (this.pointers.size === 1) {
      if (this.scale > 1) {
        const [right, down] = [event.clientX - before.clientX, event.clientY - before.clientY];
        this.shift(-right / box.width / this.scale, -down / box.height / this.scale);
      }
    } else {
      const [other] = [...this.pointers.values()].filter(
        ({ pointerId }) => pointerId !== event.pointerId,
      );
      const apart = (one) =>
        Math.hypot(one.clientX - other.clientX, one.clientY - other.clientY) || 1;
      const middle = {
        clientX: (event.clientX + other.clientX) / 2, clientY: (event.clientY + other.clientY) / 2,
      };
      this.zoomBy(apart(event) / apart(before), inside(middle, frame));
      const half = 2 * this.scale;
      this.shift(-(event.clientX - before.clientX) / box.width / half,
        -(event.clientY - before.clientY) / box.height / half);
    }
    this.pointers.set(event.pointerId, event);
  }

  /** Closer by a factor, around a point {u, v} in parts of the frame. */
  zoomBy(factor, { u, v } = { u: 0.5, v: 0.5 }) {
    const scale = Math.min(CLOSEST, Math.max(1, this.scale * factor));
    const away = 1 / this.scale - 1 / scale;
    this.scale = scale < 1.001 ? 1 : scale;
    this.shift((u - 0.5) * away, (v - 0.5) * away);
  }

  /** Between the whole picture and a closer look, at the pointer if it is over a picture. */
  toggleZoom(point = this.over ?? undefined) {
    this.zoomBy(this.scale > 1 ? 0 : STEP, point);
  }

  /** Moves what is in view, by parts of the picture. */
  shift(right, down) {
    const edge = 0.5 / this.scale;
    const within = (place) => Math.min(1 - edge, Math.max(edge, place));
    this.x = within(this.x + right);
    this.y = within(this.y + down);
    this.apply();
  }

  apply() {
    const offset = (place) => `${50 - 100 * place * this.scale}%`;
    this.grid.style.setProperty("--right", offset(this.x));
    this.grid.style.setProperty("--down", offset(this.y));
    this.grid.style.setProperty("--scale", this.scale);
    this.grid.classList.toggle("zoomed", this.scale > 1);
    this.onchange?.();
  }

  /** Whether the view is closer than the whole picture. */
  get isZoomed() {
    return this.scale > 1;
  }

  get isFlickering() {
    return this.flicker.timer !== null;
  }

  /** Shows the source in the place of all candidates, as long as it is pressed. */
  pressFlicker() {
    this.flicker.pressed = performance.now();
    this.showSource(true);
  }

  /** After a short press the flicker goes on by itself, until the next. */
  releaseFlicker() {
    if (this.flicker.pressed === null) return;
    const isTap = performance.now() - this.flicker.pressed < TAP_MS;
    this.flicker.pressed = null;
    const goesOn = isTap && !this.isFlickering;
    this.stopFlicker();
    if (goesOn) {
      this.flicker.timer = setInterval(
        () => this.showSource(!this.grid.classList.contains("show-source")), FLICKER_MS,
      );
    }
    this.onchange();
  }

  stopFlicker() {
    clearInterval(this.flicker.timer);
    this.flicker.timer = null;
    this.showSource(false);
  }

  showSource(isShown) {
    this.grid.classList.toggle("show-source", isShown);
  }
}

function inside({ clientX, clientY }, frame) {
  const box = frame.getBoundingClientRect();
  return { u: (clientX - box.left) / box.width, v: (clientY - box.top) / box.height };
}
