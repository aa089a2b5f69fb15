// Answers on their way to the server. Each is stored until the server has acknowledged it, under an
// identifier that the server knows again: it may be sent twice, by this page, another tab or the
// next start of the browser, and counts once.

import { isLasting, keys, onDisk, read, write } from "./safe_storage.js";
import { Away, isWorthAnotherTry, request } from "./server_api.js";
import { randomName } from "./shuffle.js";

/**
 * The queue of one annotator.
 *
 * onstatus({state, unsent, text}) is told about changes; state: "saved", "saving", "waiting",
 * "signed out" or "refused". onrefused(entry, sentence): the server does not want an answer.
 */
export class UnsentQueue {
  constructor(annotator, onstatus, onrefused) {
    this.start = `unsent/${encodeURIComponent(annotator)}/`;
    this.onstatus = onstatus;
    this.onrefused = onrefused;
    this.sending = null;
    this.running = null;
    this.waiting = null; // what was told when the server went away
  }

  /** Entries in the order of their making. */
  entries() {
    return keys(this.start)
      .map((key) => ({ ...read(key), storedAs: key }))
      .filter((entry) => entry.item);
  }

  /** Stores an answer (null: it is taken back) and sends it as soon as possible. */
  add(item, dimension, answer, seconds) {
    for (const older of this.entries()) {
      const isSame = older.item === item && older.dimension === dimension;
      if (isSame && older.storedAs !== this.sending) write(older.storedAs, null);
    }
    const key = randomName();
    const place = `${this.start}${String(Date.now()).padStart(15, "0")}-${key}`;
    write(place, { key, item, dimension, answer, seconds });
    // One that is waiting already tells when this is kept too.
    if (this.waiting) onDisk().then(() => this.waiting && this.tell(...this.waiting));
    this.run();
  }

  /** The answers of an item as they will be once everything is sent. */
  overlay(item, answers) {
    const result = { ...answers };
    for (const entry of this.entries()) {
      if (entry.item !== item) continue;
      if (entry.answer) result[entry.dimension] = entry.answer;
      else delete result[entry.dimension];
    }
    return result;
  }

  /** Sends everything; resolves when there is nothing left. */
  run() {
    this.running ??= this.sendAll().finally(() => {
      this.running = null;
      if (this.entries().length) this.run();
    });
    return this.running;
  }

  /** Sends one after the other until there is nothing left; waits when the server is away. */
  async sendAll() {
    let tries = 0;
    let refusal = "";
    for (let [entry] = this.entries(); entry; [entry] = this.entries()) {
      if (tries === 0) this.tell("saving", "saving …");
      try {
        this.sending = entry.storedAs;
        await send(entry);
        tries = 0;
        this.waiting = null;
      } catch (error) {
        tries += 1;
        if (error instanceof Away || error.status === 401) await this.tellWaiting(error);
        if (await isWorthAnotherTry(error, tries)) continue;
        refusal = error.message;
        tries = 0;
        this.onrefused(entry, error.message);
      }
      write(entry.storedAs, null);
    }
    this.sending = this.waiting = null;
    this.tell(refusal ? "refused" : "saved", refusal ? `not saved: ${refusal}` : "saved");
  }

  async tellWaiting(error) {
    await onDisk();

    const place = isLasting ? "kept in this browser" : "kept in this page: do not close it";
    if (error instanceof Away) {
      this.waiting = ["waiting",
        `${error.message}: your answers are ${place}, and sent when it is back`];
    } else {
      this.waiting = ["signed out", `signed out: your answers are ${place}; open your link again`];
    }
    this.tell(...this.waiting);
  }

  tell(state, text) {
    this.onstatus({ state, text, unsent: this.entries().length });
  }
}

async function send({ key, item, dimension, answer, seconds }) {
  const path = `/api/items/${encodeURIComponent(item)}/answers/${encodeURIComponent(dimension)}`;
  if (answer) await request("PUT", path, { ...answer, seconds, key });
  else await request("DELETE", `${path}?key=${key}`);
}
