// The mask as it is drawn: strokes, boxes and files, that can be undone one by one.

import { element } from "./dom.js";

const LARGEST = 2048; // of a side: the server scales the mask to the picture
const COLOUR = "#e0218a";
const OPAQUE = 128;

/** A canvas over the source, transparent where the picture is kept. */
export class MaskCanvas {
  constructor() {
    this.canvas = element("canvas", {
      class: "drawing", role: "img", "aria-label": "the mask: draw with the pointer, or load a file",
    });
    this.ring = element("div", { class: "brush-ring", hidden: true });
    this.tool = "brush";
    this.size = 0.12; // diameter of the brush, in parts of the longer side
    this.marks = [];
    this.current = null;
    this.onchange = () => {};
    this.listen();
  }

  /** Begins an empty mask for a picture of this width and height. */
  open(width, height) {
    const scale = Math.min(1, LARGEST / Math.max(width, height));
    this.canvas.width = Math.max(1, Math.round(width * scale));
    this.canvas.height = Math.max(1, Math.round(height * scale));
    this.canvas.classList.toggle("small", Math.max(width, height) <= 128);
    this.marks = [];
    this.redraw();
  }

  get context() {
    return this.canvas.getContext("2d", { willReadFrequently: true });
  }

  get diameter() {
    return Math.max(1, this.size * Math.max(this.canvas.width, this.canvas.height));
  }

  listen() {
    const { canvas } = this;
    canvas.addEventListener("pointerdown", (event) => {
      if (event.button !== 0 || this.current) return;
      event.preventDefault();
      canvas.setPointerCapture(event.pointerId);
      this.current = {
        tool: this.tool, width: this.diameter, points: [this.place(event)], id: event.pointerId,
      };
      this.redraw();
    });
    canvas.addEventListener("pointermove", (event) => {
      this.showRing(event);
      if (this.current?.id !== event.pointerId) return;
      const moves = event.getCoalescedEvents?.() ?? [];
      for (const one of moves.length ? moves : [event]) this.current.points.push(this.place(one));
      if (this.current.tool === "box") this.redraw();
      else this.stroke(this.current, moves.length || 1);
    });
    for (const end of ["pointerup", "pointercancel"]) {
      canvas.addEventListener(end, (event) => {
        if (this.current?.id !== event.pointerId) return;
        if (end === "pointerup") this.marks.push(this.current);
        this.current = null;
        this.redraw();
        if (event.pointerType !== "mouse") this.ring.hidden = true;
      });
    }
    canvas.addEventListener("pointerleave", () => { this.ring.hidden = true; });
  }

  place({ clientX, clientY }) {
    const box = this.canvas.getBoundingClientRect();
    return [
      (clientX - box.left) * this.canvas.width / box.width,
      (clientY - box.top) * this.canvas.height / box.height,
    ];
  }

  showRing({ clientX, clientY }) {
    const box = this.canvas.getBoundingClientRect();
    const side = this.diameter * box.width / this.canvas.width;
    this.ring.hidden = this.tool === "box";
    this.ring.style.width = this.ring.style.height = `${side}px`;
    this.ring.style.translate =
      `${clientX - box.left - side / 2}px ${clientY - box.top - side / 2}px`;
  }

  /** Draws everything anew. */
  redraw() {
    this.context.clearRect(0, 0, this.canvas.width, this.canvas.height);
    for (const mark of this.marks) this.draw(mark);
    if (this.current) this.draw(this.current);
    this.onchange();
  }

  draw(mark) {
    const { context, canvas } = this;
    context.globalCompositeOperation = "source-over";
    context.fillStyle = COLOUR;
    if (mark.tool === "clear") context.clearRect(0, 0, canvas.width, canvas.height);
    else if (mark.tool === "file") context.drawImage(mark.picture, 0, 0);
    else if (mark.tool === "invert") {
      context.globalCompositeOperation = "source-out";
      context.fillRect(0, 0, canvas.width, canvas.height);
    } else if (mark.tool === "box") {
      const [[x0, y0], [x1, y1]] = [mark.points[0], mark.points.at(-1)].map(
        (point) => point.map(Math.round));
      context.fillRect(Math.min(x0, x1), Math.min(y0, y1), Math.abs(x1 - x0), Math.abs(y1 - y0));
    } else this.stroke(mark, mark.points.length);
  }

  /** Draws the last `count` moves of a stroke. */
  stroke(mark, count) {
    const { context } = this;
    context.globalCompositeOperation = mark.tool === "erase" ? "destination-out" : "source-over";
    context.strokeStyle = context.fillStyle = COLOUR;
    context.lineWidth = mark.width;
    context.lineCap = context.lineJoin = "round";
    const points = mark.points.slice(-count - 1);
    context.beginPath();
    if (points.length === 1) {
      context.arc(...points[0], mark.width / 2, 0, 2 * Math.PI);
      context.fill();
      return;
    }
    context.moveTo(...points[0]);
    for (const point of points.slice(1)) context.lineTo(...point);
    context.stroke();
  }

  get canUndo() {
    return this.marks.length > 0;
  }

  /** Takes the last mark back. */
  undo() {
    this.marks.pop();
    this.redraw();
  }

  /** "clear" or "invert", which can be undone too. */
  apply(tool) {
    this.marks.push({ tool });
    this.redraw();
  }

  /**
   * Adds what is white in a picture. Where its colours do not vary, as on a drawing without a
   * background, what is opaque counts. Throws an Error if it has another shape than the source.
   */
  load(bitmap) {
    const { width, height } = this.canvas;
    if (Math.abs((bitmap.width * height) / bitmap.height - width) > 2) {
      throw new Error(
        `the mask of ${bitmap.width}x${bitmap.height} pixels has another shape than the picture`);
    }
    const picture = element("canvas", { width, height });
    const context = picture.getContext("2d");
    context.drawImage(bitmap, 0, 0, width, height);
    const pixels = context.getImageData(0, 0, width, height);
    const { data } = pixels;
    const grey = (at) =>
      (0.299 * data[at] + 0.587 * data[at + 1] + 0.114 * data[at + 2]) * data[at + 3] / 255;
    const isOpaque = !data.some((value, at) => at % 4 === 3 && value < 255);
    let [least, most] = [255, 0];
    for (let at = 0; at < data.length; at += 4) {
      if (data[at + 3] < OPAQUE) continue;
      const value = grey(at) * 255 / data[at + 3];
      least = Math.min(least, value);
      most = Math.max(most, value);
    }
    const byAlpha = !isOpaque && most - least < 16;
    for (let at = 0; at < data.length; at += 4) {
      const isEdited = (byAlpha ? data[at + 3] : grey(at)) >= OPAQUE;
      [data[at], data[at + 1], data[at + 2]] = [0xe0, 0x21, 0x8a];
      data[at + 3] = isEdited ? 255 : 0;
    }
    context.putImageData(pixels, 0, 0);
    this.marks.push({ tool: "file", picture });
    this.redraw();
  }

  /** The mask as a PNG file, white where the picture is to be edited; null if it is empty. */
  async file() {
    const { width, height } = this.canvas;
    const pixels = this.context.getImageData(0, 0, width, height);
    const { data } = pixels;
    let isEmpty = true;
    for (let at = 0; at < data.length; at += 4) {
      const isEdited = data[at + 3] >= OPAQUE;
      if (isEdited) isEmpty = false;
      data[at] = data[at + 1] = data[at + 2] = isEdited ? 255 : 0;
      data[at + 3] = 255;
    }
    if (isEmpty) return null;
    const copy = element("canvas", { width, height });
    copy.getContext("2d").putImageData(pixels, 0, 0);
    return new Promise((resume) => copy.toBlob(resume, "image/png"));
  }
}
