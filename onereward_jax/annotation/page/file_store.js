// Items embedded in the page, answers in localStorage and in a file to download: the form that needs
// no server. Every answer has its own entry, so that tabs do not overwrite each other.

import { isComplete, isSame } from "./answers.js";
import { isLasting, keys, onDisk, onOtherTab, read, write } from "./safe_storage.js";
import { randomName, shuffled } from "./shuffle.js";

const KINDS = { 1: "usable", 2: "better" };

/** Translates {best, worst} by a table; anything else is unchanged. */
function translated(answer, table) {
  if (!Number.isInteger(answer.best)) return answer;
  return { best: table[answer.best], worst: table[answer.worst] };
}

/** The store of a page with questions; the interface of `server_store.js`. */
export class FileStore {
  constructor({ questions, dimensions, title }) {
    this.session = { dimensions };
    this.title = title;
    this.isFile = true;
    this.name = read("name") ?? "";
    this.onstatus = this.onrefused = this.onanswers = () => {};
    this.held = null;
    this.writing = 0; // answers that are not on the disk yet
    if (!read("seed")) write("seed", randomName());
    const seed = read("seed");
    this.questions = questions.map((one, place) => ({
      ...one,
      number: place + 1,
      order: shuffled(one.candidates.length, seed, one.digest),
    }));
    this.byDigest = new Map(this.questions.map((one) => [one.digest, one]));
    onOtherTab((key) => {
      this.tell();
      const changed = this.held && key.startsWith(this.place(this.held.item, ""));
      if (changed) this.onanswers(this.shown(this.byDigest.get(this.held.item)));
    });
  }

  start() {
    this.tell();
  }

  /** Changes the annotator's name; `moving`: the answers so far are theirs. */
  rename(name, moving) {
    const before = this.allKept();
    this.name = name;
    write("name", name);
    if (moving) {
      for (const { digest, dimension, kept, storedAs } of before) {
        write(this.place(digest, dimension), kept);
        write(storedAs, null);
      }
    }
    this.tell();
  }

  /** One set, with its progress in items. */
  async sets() {
    const answered = this.questions.filter((one) => this.isAnswered(one)).length;
    const total = this.questions.length;
    const progress = { total, answered_by_me: answered, left_for_me: total - answered };
    return [{ set: "questions", title: this.title, ...progress }];
  }

  /** The next item with a missing answer after `after`, around the end; or {done: true}. */
  async next(set, after = null) {
    const from = after ? this.byDigest.get(after).number : 0;
    const around = [...this.questions.slice(from), ...this.questions.slice(0, from)];
    const open = around.filter((one) => !this.isAnswered(one));
    const found = open.find((one) => one.digest !== after) ?? open[0];
    return found ? this.shown(found) : { done: true };
  }

  /** An item by its identifier; null if the page has none. */
  async open(item) {
    const found = this.byDigest.get(item);
    return found ? this.shown(found) : null;
  }

  /** The item before, in the order of the file; null for the first. */
  before(item) {
    const found = this.questions[this.byDigest.get(item).number - 2];
    return found ? found.digest : null;
  }

  hold(item) {
    this.held = item;
  }

  /** Keeps a complete answer, or null to take it back. */
  save(item, dimension, answer, seconds) {
    const { order } = this.byDigest.get(item.item);
    const kept = answer && {
      ...translated(answer, order),
      seconds,
      shown: order,
      answered_at: Date.now() / 1000,
    };
    if (write(this.place(item.item, dimension), kept) || !isLasting) {
      this.writing += 1;
      this.tell();
      return onDisk().then(() => {
        this.writing -= 1;
        this.tell();
      });
    }
    const text = "not kept: the browser has no room; save your answers as a file";
    return this.onstatus({ state: "refused", text, unsent: 0 });
  }

  // ---------------------------------------------------------------------------- files of answers

  /** How many answers are not in a saved file yet. */
  unsaved() {
    const saved = read(`exported/${encodeURIComponent(this.name)}`) ?? 0;
    return this.allKept().filter(({ kept }) => kept.answered_at > saved).length;
  }

  /** The answers as JSON lines, see `annotation/questions.py`. */
  asLines() {
    const lines = this.questions.flatMap((one) =>
      one.dimensions.flatMap((dimension) => {
        const kept = read(this.place(one.digest, dimension));
        if (!kept) return [];
        const { triplet, digest } = one;
        return [JSON.stringify({ triplet, dimension, digest, ...kept, annotator: this.name })];
      }),
    );
    return lines.map((line) => line + "\n").join("");
  }

  /** The name of the file. */
  fileName() {
    const name = this.name.replace(/[^\p{L}\p{N}_-]+/gu, "_");
    return `answers-${name || "people"}.jsonl`;
  }

  /** Everything so far is in a file. */
  exported() {
    const latest = Math.max(0, ...this.allKept().map(({ kept }) => kept.answered_at));
    write(`exported/${encodeURIComponent(this.name)}`, latest);
    this.tell();
  }

  /**
   * Takes over the answers of a saved file; the later answer to a question wins. Returns a sentence
   * about what was found. Throws an Error with all broken lines, and then takes nothing.
   */
  importLines(text) {
    const broken = [];
    const found = [];
    let unknown = 0;
    text.replace(/^\ufeff/, "").split("\n").forEach((line, place) => {
      if (!line.trim()) return;
      try {
        const answer = this.imported(JSON.parse(line));
        if (answer) found.push(answer);
        else unknown += 1;
      } catch (error) {
        broken.push(`line ${place + 1}: ${error.message}`);
      }
    });
    if (broken.length) throw new Error(`The file is not taken over: ${broken.join("; ")}.`);
    const names = [...new Set(found.map(({ annotator }) => annotator))];
    if (names.length > 1) throw new Error(`The file has answers of ${names.join(" and ")}.`);
    if (!this.name && names.length) this.rename(names[0], false);
    if (names.length && names[0] !== this.name) {
      throw new Error(
        `The file has answers of ${names[0]}, and you are ${this.name}: change the name first.`,
      );
    }
    let taken = 0;
    for (const { digest, dimension, kept } of found) {
      const place = this.place(digest, dimension);
      const mine = read(place);
      if (mine && (isSame(mine, kept) || mine.answered_at >= kept.answered_at)) continue;
      write(place, kept);
      taken += 1;
    }
    this.tell();
    const others = unknown ? `, ${unknown} about other pictures` : "";
    return `${taken} of ${found.length + unknown} answers are new${others}.`;
  }

  /** An answer of a file; null if it is about no question of this page. Throws an Error. */
  imported(fields) {
    const { digest, dimension, annotator, best, worst, usable, seconds, shown } = fields;
    const question = this.byDigest.get(digest);
    if (!question || !question.dimensions.includes(dimension)) return null;
    const answer = question.candidates.length === 1 ? { usable } : { best, worst };
    const isNumber = (one) => Number.isInteger(one) && one >= 0 && one < question.candidates.length;
    const isPair = (isNumber(best) && isNumber(worst) && best !== worst)
      || (best === null && worst === null);
    if (!(question.candidates.length === 1 ? isComplete(answer) : isPair)) {
      throw new Error(`not an answer to ${dimension}`);
    }
    const kept = { ...answer, seconds, shown, answered_at: fields.answered_at ?? 0 };
    return { digest, dimension, kept, annotator: annotator ?? this.name };
  }

  // ------------------------------------------------------------------------------------ storage

  place(digest, dimension) {
    return `answer/${encodeURIComponent(this.name)}/${digest}/${dimension}`;
  }

  allKept() {
    return keys(this.place("", "").slice(0, -1)).flatMap((storedAs) => {
      const [digest, dimension] = storedAs.split("/").slice(2);
      const kept = read(storedAs);
      return kept && this.byDigest.has(digest) ? [{ digest, dimension, kept, storedAs }] : [];
    });
  }

  isAnswered(question) {
    return question.dimensions.every((one) => read(this.place(question.digest, one)));
  }

  /** The item as the page shows it: positions, never numbers of candidates. */
  shown({ digest, task, prompt, image, mask, candidates, dimensions, number, order }) {
    const back = order.map((_, candidate) => order.indexOf(candidate));
    const answers = {};
    for (const dimension of dimensions) {
      const kept = read(this.place(digest, dimension));
      if (!kept) continue;
      const { best, worst, usable } = kept;
      const answer = usable === undefined ? { best, worst } : { usable };
      answers[dimension] = translated(answer, back);
    }
    return {
      item: digest,
      set: "questions",
      kind: KINDS[candidates.length] ?? "best_worst",
      task, prompt, image, mask, dimensions, answers, number,
      pictures: order.map((candidate) => candidates[candidate]),
      total: this.questions.length,
    };
  }

  tell() {
    const text = isLasting ? "kept in this browser" : "kept in this page: do not close it";
    const status = this.writing
      ? { state: "saving", text: "saving …" }
      : { state: isLasting ? "saved" : "waiting", text };
    this.onstatus({ ...status, unsent: 0 });
  }
}
