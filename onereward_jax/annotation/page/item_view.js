// One item: the question, its dimensions, the pictures and the buttons of the answer.

import { candidateName, inWords, isComplete } from "./answers.js";
import { button, element, keyName } from "./dom.js";
import { keepArranged } from "./picture_grid.js";
import { PictureView } from "./picture_view.js";

const QUESTIONS = {
  best_worst: "which is best, which is worst?",
  better: "which is better?",
  usable: "yes or no?",
};

/**
 * Draws an item once and then only changes what differs.
 *
 * onchoice(choice, position): a button of the answer; onstep(place): a dimension is asked for.
 */
export class ItemView {
  constructor(item, dimensions, { onchoice, onstep }) {
    this.item = item;
    this.dimensions = dimensions;
    this.onchoice = onchoice;
    this.grid = element("div", { class: "pictures" });
    this.pictures = new PictureView(this.grid);
    this.choices = [];
    this.heading = element("h1", { tabindex: "-1" });
    this.meaning = element("p", { class: "meaning" });
    this.steps = item.dimensions.map((dimension, place) =>
      button({ class: "step", onclick: () => onstep(place) }));
    this.missing = element("p", { class: "missing-choice", role: "alert" });
    this.element = this.drawn();
    const source = this.grid.querySelector("img");
    const aspect = () => (source.naturalWidth || 1) / (source.naturalHeight || 1);
    this.arranging = null;
    source.addEventListener("load", () => this.arranging?.arrange());
    this.attach = () => {
      this.arranging = keepArranged(this.grid, 1 + item.pictures.length, aspect);
    };
  }

  drawn() {
    const { item } = this;
    this.grid.append(this.source(), ...item.pictures.map((_, place) => this.candidate(place)));
    const many = this.steps.length > 1;
    return element("div", { class: "item" },
      element("div", { class: "asked" },
        element("div", { class: "question" }, this.heading, this.meaning),
        many ? element("nav", { class: "steps", "aria-label": "dimensions" }, this.steps) : null,
        element("p", { class: "prompt" },
          element("span", { class: "soft" }, `${item.task}: `),
          item.prompt ? element("q", {}, item.prompt) : "no prompt"),
      ),
      element("div", { class: "table" }, this.grid),
    );
  }

  source() {
    const { image, mask } = this.item;
    const frame = this.pictures.picture(image, "the source", { mask });
    return element("figure", { class: "tile source", "aria-label": "source and mask" },
      frame,
      element("figcaption", {}, element("span", { class: "name" }, "Source"),
        element("span", { class: "soft hint" }, "hatched: edited here")));
  }

  candidate(place) {
    const { kind, pictures, image } = this.item;
    const name = candidateName(kind, place);
    const called = kind === "usable" ? "the edit" : `candidate ${name}`;
    const frame = this.pictures.picture(pictures[place], called, { under: image });
    const label = element("span", { class: "name", "aria-hidden": "true" },
      kind === "usable" ? "Edit" : name);
    return element("figure", { class: "tile candidate", "aria-label": called },
      frame, element("figcaption", {}, label, this.buttons(place, name, called)));
  }

  buttons(place, name, called) {
    const { kind } = this.item;
    if (kind === "usable") {
      return [this.choice("yes", null, "Yes", "Y", "yes, usable"),
        this.choice("no", null, "No", "N", "no, not usable")];
    }
    const number = `${place + 1}`;
    if (kind === "better") return [this.choice("best", place, `${name} better`, number)];
    return [
      this.choice("best", place, "Best", number, `${called} is best`),
      this.choice("worst", place, "Worst", `⇧${number}`, `${called} is worst`, `Shift+${number}`),
    ];
  }

  choice(choice, place, words, key, spoken = words, shortcut = key) {
    const made = button({
      class: `choice ${choice}`,
      "aria-label": spoken,
      "aria-keyshortcuts": shortcut,
      "aria-pressed": "false",
      onclick: () => this.onchoice(choice, place),
    }, element("span", {}, words), keyName(key));
    this.choices.push({ made, choice, place });
    return made;
  }

  /** The button for "no difference", for the bar below; null for kinds without. */
  noneButton() {
    if (this.item.kind === "usable") return null;
    return this.choice("none", null, "No difference", "0");
  }

  /** Shows the dimension at `place` with the answers of all dimensions. */
  show(place, answers) {
    const { kind, dimensions } = this.item;
    const answer = answers[dimensions[place]] ?? {};
    const about = this.dimensions[dimensions[place]];
    this.heading.replaceChildren(
      element("b", {}, about.title), element("span", {}, `: ${QUESTIONS[kind]}`));
    this.meaning.textContent = about.meaning;
    dimensions.forEach((dimension, number) => {
      const step = this.steps[number];
      const given = answers[dimension] ?? {};
      const isDone = isComplete(given);
      const told = isDone ? inWords(kind, given) : "open";
      step.classList.toggle("done", isDone);
      if (number === place) step.setAttribute("aria-current", "step");
      else step.removeAttribute("aria-current");
      step.setAttribute("aria-label", `${this.dimensions[dimension].title}: ${told}`);
      step.replaceChildren(
        element("span", {}, this.dimensions[dimension].title),
        element("span", { class: "given" }, isDone ? told : "–"));
    });
    for (const { made, choice, place: position } of this.choices) {
      const isPressed = {
        best: () => answer.best === position,
        worst: () => answer.worst === position,
        none: () => answer.best === null,
        yes: () => answer.usable === true,
        no: () => answer.usable === false,
      }[choice]();
      made.setAttribute("aria-pressed", `${isPressed}`);
    }
    [...this.grid.querySelectorAll(".candidate")].forEach((tile, position) => {
      const good = answer.best === position || answer.usable === true;
      const bad = (answer.worst === position && kind !== "better") || answer.usable === false;
      tile.classList.toggle("is-best", good);
      tile.classList.toggle("is-worst", bad);
    });
  }

  /** Ends timers and observers. */
  remove() {
    this.arranging?.stop();
    this.pictures.stopFlicker();
    this.element.remove();
  }
}
