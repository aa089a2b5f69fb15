// Items from the annotation server, answers to it. The page's other store is `file_store.js`.

import { isLasting } from "./safe_storage.js";
import { patientRequest, request } from "./server_api.js";
import { UnsentQueue } from "./unsent_queue.js";

const RENEW_EVERY = 60_000;
const AWAY_AFTER = 10 * 60_000; // without a key or a pointer, somebody else may have the item

/**
 * The store of one session.
 *
 * Listeners: onstatus({state, text, unsent}), onrefused(entry, sentence), and onanswers(item),
 * when an item's answers may have changed elsewhere.
 */
export class ServerStore {
  constructor(session) {
    this.session = session;
    this.name = session.name;
    this.isFile = false;
    this.onstatus = this.onrefused = this.onanswers = () => {};
    this.queue = new UnsentQueue(
      session.name,
      (status) => this.onstatus(status),
      (entry, sentence) => this.onrefused(entry, sentence),
    );
    this.held = null;
    this.saves = 0;
    this.active = Date.now();
    for (const sign of ["keydown", "pointerdown", "pointermove", "wheel"]) {
      addEventListener(sign, () => { this.active = Date.now(); }, { passive: true });
    }
    setInterval(() => this.renew(), RENEW_EVERY);
    addEventListener("focus", () => this.lookAgain());
  }

  /** Sends what an earlier page has left, and tells the first status. */
  start() {
    const text = isLasting
      ? "every choice is saved at once"
      : "this browser keeps nothing: do not close the page before everything is saved";
    this.onstatus({ state: "saved", text, unsent: 0 });
    if (this.queue.entries().length) this.queue.run();
  }

  /** The sets with their progress, from the server. */
  async sets() {
    return (await this.patient("GET", "/api/session")).sets;
  }

  /** The next item to answer, or {done: true}. It is leased for this annotator. */
  async next(set, after = null) {
    await this.queue.running; // or `after` does not count as answered yet
    return this.opened(
      await this.patient("POST", `/api/sets/${encodeURIComponent(set)}/next`, { after }),
    );
  }

  /** An item by its identifier. */
  async open(item) {
    return this.opened(await this.patient("GET", `/api/items/${encodeURIComponent(item)}`));
  }

  /** Saves a complete answer, or null to take it back; never fails, see `unsent_queue.js`. */
  save(item, dimension, answer, seconds) {
    this.saves += 1;
    this.queue.add(item.item, dimension, answer, seconds);
  }

  /** The item that is in view, whose lease is renewed. */
  hold(item) {
    this.held = item;
  }

  async renew() {
    if (!this.held || document.hidden || Date.now() - this.active > AWAY_AFTER) return;
    const { item } = this.held;
    // Saving tells whether the lease is still there; a network that is away is told there too.
    await request("POST", `/api/items/${encodeURIComponent(item)}/lease`).catch(() => null);
  }

  async lookAgain() {
    const { held, saves } = this;
    if (!held) return;
    const path = `/api/items/${encodeURIComponent(held.item)}`;
    const found = await request("GET", path).catch(() => null);
    // What was saved meanwhile may be missing in what was found.
    const isNews = found && this.held === held && this.saves === saves;
    if (isNews) this.onanswers(this.opened(found));
  }

  opened(item) {
    return item.done ? item : { ...item, answers: this.queue.overlay(item.item, item.answers) };
  }

  async patient(method, path, body) {
    let waited = false;
    const found = await patientRequest(method, path, body, (error) => {
      waited = true;
      const signedOut = error.status === 401;
      const text = signedOut ? "signed out: open your link again" : `${error.message}: trying again`;
      this.onstatus({ state: signedOut ? "signed out" : "waiting", text, unsent: 0 });
    });
    if (waited) this.onstatus({ state: "saved", text: "the server is back", unsent: 0 });
    return found;
  }
}
