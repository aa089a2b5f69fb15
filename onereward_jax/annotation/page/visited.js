// The items that somebody has been at, in order, to go back to and forward from.

import { read, write } from "./safe_storage.js";

const LONGEST = 500;

const place = (name, set) => `history/${encodeURIComponent(name)}/${set}`;

/** The identifiers of the items of a set that `name` has visited, the latest last. */
export const visited = (name, set) => read(place(name, set)) ?? [];

/** Notes a visit; an item that is there already becomes the latest. */
export function noteVisit(name, { set, item }) {
  const others = visited(name, set).filter((one) => one !== item);
  write(place(name, set), [...others, item].slice(-LONGEST));
}

/** The item visited before (by -1) or after (by 1) an item; null if there is none. */
export function visitedBeside(name, { set, item }, by) {
  const all = visited(name, set);
  const at = all.indexOf(item);
  return at < 0 ? null : (all[at + by] ?? null);
}

/** Whether the item is the latest. */
export const isLatestVisit = (name, { set, item }) => visited(name, set).at(-1) === item;
