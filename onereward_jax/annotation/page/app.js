// The page's state: which item, which dimension, what is answered; keys and buttons change it.

import { chosen, inWords, isComplete, isSame, whatIsMissing } from "./answers.js";
import { announce, button, element, keyName } from "./dom.js";
import { GuidelineView } from "./guideline_view.js";
import { openHelp } from "./help_view.js";
import { homeView, saveAnswers } from "./home_view.js";
import { ItemView } from "./item_view.js";
import { actionOf } from "./keys.js";
import { progressBar, SavedState } from "./progress.js";
import { read, readTab, write, writeTab } from "./safe_storage.js";
import { restartStopwatch, secondsInView } from "./stopwatch.js";
import { Toolbar } from "./toolbar.js";
import { isLatestVisit, noteVisit, visitedBeside } from "./visited.js";

const PAN = 0.12;

/** The whole page over a store (`server_store.js`, `file_store.js`). */
export class App {
  constructor(root, store, { onlogout } = {}) {
    this.root = root;
    this.store = store;
    this.onlogout = onlogout;
    this.saved = new SavedState();
    this.guideline = new GuidelineView(() => this.toggleGuideline());
    this.item = null;
    this.view = null;
    this.undoable = [];
    this.upcoming = null;
    this.isMoving = false;
    store.onstatus = (status) => this.showStatus(status);
    store.onrefused = (entry, sentence) => this.refused(entry, sentence);
    store.onanswers = (item) => this.answersFromElsewhere(item);
    addEventListener("keydown", (event) => this.keydown(event));
    addEventListener("keyup", (event) => this.keyup(event));
    addEventListener("blur", () => this.view?.pictures.releaseFlicker());
  }

  /** Shows the item that was in view before a reload, or the home page. */
  async start() {
    this.store.start();
    const at = readTab("at");
    if (at && at.name === this.store.name) {
      const item = await this.store.open(at.item).catch(() => null);
      if (item) return this.showItem(item, at.dimension);
    }
    return this.home();
  }

  // -------------------------------------------------------------------------------------- pages

  async home(told) {
    this.leaveItem();
    writeTab("at", null);
    this.store.hold(null);
    const page = await homeView(this.store, {
      onstart: (set) => this.begin(set),
      onlogout: this.onlogout,
      redraw: (said) => this.home(said),
      told,
    });
    this.root.className = "app";
    this.root.replaceChildren(
      element("main", {}, page), element("footer", { class: "bottom plain" }, this.saved.element));
    document.title = "Which is best?";
    (page.querySelector("button.main") ?? page.querySelector("input"))?.focus();
  }

  async begin(set) {
    const item = await this.store.next(set);
    if (item.done) return this.home();
    noteVisit(this.store.name, item);
    return this.showItem(item);
  }

  showItem(item, dimension) {
    this.leaveItem();
    this.item = item;
    this.answers = {};
    for (const one of item.dimensions) {
      this.answers[one] = item.answers[one] ?? read(this.draftPlace(one)) ?? {};
    }
    this.store.hold(item);
    const open = item.dimensions.findIndex((one) => !isComplete(this.answers[one]));
    this.at = Math.max(0, dimension ? item.dimensions.indexOf(dimension) : open);
    this.view = new ItemView(item, this.store.session.dimensions, {
      onchoice: (choice, position) => this.act({ name: choice, position }),
      onstep: (place) => this.goTo(place),
    });
    this.drawFrame();
    this.view.attach();
    this.view.pictures.onchange = () => this.showTools();
    this.goTo(this.at);
    this.peek();
  }

  drawFrame() {
    const { item, view } = this;
    const words = `item ${item.number} of ${item.total}`;
    this.tools = new Toolbar({
      mask: () => this.act({ name: "mask" }),
      zoom: () => view.pictures.toggleZoom(),
      flicker: (event) => { if (event.detail === 0) this.tapFlicker(); },
      pressFlicker: () => view.pictures.pressFlicker(),
      releaseFlicker: () => view.pictures.releaseFlicker(),
      guideline: () => this.toggleGuideline(),
      help: () => openHelp(item.kind),
    });
    this.saveButton = this.store.isFile
      ? button({ class: "quiet", id: "save-now", onclick: () => saveAnswers(this.store) })
      : null;
    const top = element("header", { class: "top" },
      button({ class: "quiet", id: "home", "aria-label": "to the start page",
        onclick: () => this.home() }, "‹ Start page"),
      element("div", { class: "where" }, progressBar(item.number - 1, item.total, words),
        element("span", { class: "soft" }, words)),
      this.saved.element, this.saveButton, this.tools.element);
    this.nextButton = button({ class: "main next", onclick: () => this.act({ name: "next" }) },
      element("span"), keyName("Enter"));
    this.undoButton = button({ id: "undo", onclick: () => this.act({ name: "undo" }) },
      "Undo", keyName("U"));
    const bottom = element("footer", { class: "bottom" },
      button({ id: "back", onclick: () => this.act({ name: "back" }) }, "Back", keyName("⌫")),
      this.undoButton, view.missing, view.noneButton(), this.nextButton);
    this.root.className = "app working";
    this.root.replaceChildren(top,
      element("div", { class: "body" }, element("main", {}, view.element), this.guideline.element),
      bottom);
    if (this.store.isFile) this.store.tell();
    this.guideline.element.hidden = !read("guideline");
    this.view.grid.classList.toggle("show-mask", read("mask") !== false);
    document.title = `${item.task}, ${words}`;
  }

  leaveItem() {
    this.view?.remove();
    this.view = null;
    this.item = null;
    this.upcoming = null;
  }

  // ----------------------------------------------------------------------------------- answers

  get dimension() {
    return this.item.dimensions[this.at];
  }

  choose(choice, position) {
    const { kind, pictures } = this.item;
    if (Number.isInteger(position) && position >= pictures.length) return;
    const before = this.answers[this.dimension];
    const answer = chosen(kind, before, choice, position);
    if (!answer || isSame(answer, before)) return;
    this.undoable.push({ item: this.item.item, dimension: this.dimension, answer: before });
    this.answer(answer);
  }

  /** Makes it the answer to the dimension in view, and saves it if nothing is missing. */
  answer(answer) {
    const { dimension } = this;
    const before = this.answers[dimension];
    this.answers[dimension] = answer;
    write(this.draftPlace(dimension), isComplete(answer) || isSame(answer, {}) ? null : answer);
    if (isComplete(answer)) this.store.save(this.item, dimension, answer, secondsInView());
    else if (isComplete(before)) this.store.save(this.item, dimension, null, secondsInView());
    this.draw();
    const said = inWords(this.item.kind, answer);
    announce(`${this.title(dimension)}: ${said || "no answer"}`);
    this.peek();
  }

  async undo() {
    const last = this.undoable.pop();
    if (!last) return this.say("Nothing to undo.");
    if (last.item !== this.item.item) {
      this.isMoving = true;
      const item = await this.store.open(last.item).catch(() => null);
      this.isMoving = false;
      if (!item) return this.say("That item is not yours any more.");
      this.showItem(item, last.dimension);
    } else {
      this.goTo(this.item.dimensions.indexOf(last.dimension));
    }
    this.answer(last.answer);
    return null;
  }

  /** Another tab or browser of the same annotator has answered. */
  answersFromElsewhere(item) {
    if (item?.item !== this.item?.item) return;
    for (const one of item.dimensions) {
      const found = item.answers[one];
      if (found) this.answers[one] = found;
      else if (isComplete(this.answers[one])) this.answers[one] = {};
    }
    this.draw();
  }

  refused(entry, sentence) {
    if (this.item?.item === entry.item) {
      this.answers[entry.dimension] = {};
      this.draw();
    }
    this.say(`Not saved: ${sentence}.`);
  }

  // ------------------------------------------------------------------------------------- moving

  goTo(place) {
    this.at = place;
    const { name } = this.store;
    writeTab("at", { name, item: this.item.item, dimension: this.dimension });
    restartStopwatch();
    this.say("");
    this.guideline.show(this.store.session.dimensions[this.dimension]);
    this.draw();
    this.view.heading.focus({ preventScroll: true });
  }

  async next() {
    const { kind, dimensions, item } = this.item;
    if (this.at + 1 < dimensions.length) return this.goTo(this.at + 1);
    const open = dimensions.findIndex((one) => !isComplete(this.answers[one]));
    if (open >= 0 && this.warned !== item) {
      this.goTo(open);
      this.warned = item;
      const missing = whatIsMissing(kind, this.answers[this.dimension]);
      return this.say(`${missing} Enter again leaves it open.`);
    }
    return this.move(async () => {
      const after = visitedBeside(this.store.name, this.item, 1);
      const known = after && (await this.store.open(after).catch(() => null));
      if (known) return known; // or its lease went to somebody else
      const found = await (this.upcoming ?? this.store.next(this.item.set, item));
      if (!found.done) noteVisit(this.store.name, found);
      return found;
    });
  }

  async back() {
    if (this.at > 0) return this.goTo(this.at - 1);
    const before = visitedBeside(this.store.name, this.item, -1)
      ?? this.store.before?.(this.item.item);
    if (!before) return this.say("This is the first item.");
    return this.move(() => this.store.open(before), true);
  }

  /** Opens the item that `find` returns, one move at a time. */
  async move(find, isBack = false) {
    if (this.isMoving) return;
    this.isMoving = true;
    const from = this.item;
    try {
      const item = await find();
      if (this.item !== from) return;
      if (!item || item.done) await this.home();
      else this.showItem(item, isBack ? item.dimensions.at(-1) : undefined);
    } catch (error) {
      this.say(`${error.message}.`);
    } finally {
      this.isMoving = false;
    }
  }

  /** Gets the next item and its pictures while this one is still in view. */
  peek() {
    const { item } = this;
    const isLast = isLatestVisit(this.store.name, item);
    const isAnswered = item.dimensions.every((one) => isComplete(this.answers[one]));
    if (!isLast || !isAnswered || this.upcoming) return;
    this.upcoming = this.store.next(item.set, item.item);
    this.upcoming.then((found) => {
      if (found.done) return;
      for (const address of [found.image, found.mask, ...found.pictures]) {
        new Image().src = address;
      }
    }, () => { this.upcoming = null; });
  }

  draftPlace(dimension) {
    return `draft/${encodeURIComponent(this.store.name)}/${this.item.item}/${dimension}`;
  }

  // --------------------------------------------------------------------------------- keys, view

  title(dimension) {
    return this.store.session.dimensions[dimension].title;
  }

  draw() {
    if (!this.view) return;
    const isLast = this.at + 1 === this.item.dimensions.length;
    const isDone = isComplete(this.answers[this.dimension]);
    if (isDone) this.say("");
    this.view.show(this.at, this.answers);
    this.nextButton.firstChild.textContent = isLast ? "Next item" : "Next";
    this.nextButton.classList.toggle("ready", isDone);
    this.undoButton.disabled = !this.undoable.length;
    this.showTools();
  }

  showTools() {
    if (!this.view) return;
    const { pictures, grid } = this.view;
    this.tools.show({
      mask: grid.classList.contains("show-mask"),
      zoom: pictures.isZoomed,
      flicker: pictures.isFlickering,
      guideline: !this.guideline.element.hidden,
    });
  }

  showStatus(status) {
    this.saved.show(status);
    if (!this.saveButton) return;
    const unsaved = this.store.unsaved();
    this.saveButton.textContent = unsaved ? `Save file (${unsaved} new)` : "Save file";
  }

  say(text) {
    if (this.view) this.view.missing.textContent = text;
  }

  toggleGuideline() {
    const { element: panel } = this.guideline;
    panel.hidden = !panel.hidden;
    write("guideline", !panel.hidden);
    this.showTools();
  }

  tapFlicker() {
    this.view.pictures.pressFlicker();
    this.view.pictures.releaseFlicker();
  }

  keydown(event) {
    if (!this.view) return;
    const action = actionOf(event, this.item.kind);
    if (!action) return;
    const isPan = ["left", "right", "up", "down"].includes(action.name);
    if (isPan && !this.view.pictures.isZoomed) return;
    event.preventDefault();
    if (event.repeat && !isPan) return;
    this.act(action);
  }

  keyup(event) {
    if (!this.view) return;
    if (actionOf(event, this.item.kind)?.name === "flicker") this.view.pictures.releaseFlicker();
  }

  act({ name, position }) {
    if (this.isMoving) return; // or what is typed would belong to an item that is not seen yet
    const { pictures, grid } = this.view;
    if (name !== "next") this.warned = null;
    const acts = {
      next: () => this.next(),
      back: () => this.back(),
      undo: () => this.undo(),
      zoom: () => pictures.toggleZoom(),
      closer: () => pictures.zoomBy(1.5),
      farther: () => pictures.zoomBy(1 / 1.5),
      left: () => pictures.shift(-PAN / pictures.scale, 0),
      right: () => pictures.shift(PAN / pictures.scale, 0),
      up: () => pictures.shift(0, -PAN / pictures.scale),
      down: () => pictures.shift(0, PAN / pictures.scale),
      flicker: () => pictures.pressFlicker(),
      mask: () => {
        write("mask", grid.classList.toggle("show-mask"));
        this.showTools();
      },
      guideline: () => this.toggleGuideline(),
      help: () => openHelp(this.item.kind),
      escape: () => {
        if (pictures.isZoomed) pictures.toggleZoom();
        else if (!this.guideline.element.hidden) this.toggleGuideline();
      },
    };
    if (acts[name]) acts[name]();
    else this.choose(name, position);
  }
}
