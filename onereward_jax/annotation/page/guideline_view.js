// The guideline of a dimension, with its example pictures.

import { button, element, keyName } from "./dom.js";

/** Plain text as paragraphs, lists ("- ") and headings ("# "); nothing in it is HTML. */
export function paragraphs(text) {
  const made = [];
  for (const block of text.split(/\n\s*\n/)) {
    let list = null;
    let words = [];
    const close = () => {
      if (words.length) made.push(element("p", {}, words.join(" ")));
      words = [];
    };
    for (const line of block.split("\n")) {
      const item = /^\s*[-*]\s+(.*)/.exec(line);
      const heading = /^#+\s+(.*)/.exec(line);
      if (item) {
        close();
        if (!list) made.push((list = element("ul")));
        list.append(element("li", {}, item[1]));
      } else if (heading) {
        close();
        list = null;
        made.push(element("h3", {}, heading[1]));
      } else if (line.trim()) {
        if (list) list.lastChild.append(` ${line.trim()}`);
        else words.push(line.trim());
      }
    }
    close();
  }
  return made;
}

function examples(addresses, title, kind) {
  if (!addresses.length) return null;
  return element("section", { class: `examples ${kind}` },
    element("h3", {}, title),
    element("div", {}, addresses.map((address, number) =>
      element("img", { src: address, alt: `${title}, example ${number + 1}`, loading: "lazy" }))));
}

/** The panel at the side; `show(dimension)` fills it. */
export class GuidelineView {
  constructor(onclose) {
    this.content = element("div", { class: "text" });
    this.element = element("aside", { class: "guideline", "aria-label": "guideline", hidden: true },
      button({ class: "close", "aria-label": "close the guideline", onclick: onclose },
        "Close", keyName("G")),
      this.content);
  }

  show({ title, meaning, guideline, good, bad }) {
    this.content.replaceChildren(
      element("h2", {}, title),
      element("p", { class: "soft" }, meaning),
      ...paragraphs(guideline),
      ...[examples(good, "Good", "good"), examples(bad, "Bad", "bad")].filter(Boolean));
    this.element.scrollTop = 0;
  }
}
