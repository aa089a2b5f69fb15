// What the page keeps: in localStorage, which all tabs see at once, with a durable copy; in memory
// where the browser does not allow it. Keys start with "onereward/"; values have their time.

import { allCopied, copies, forget, keepCopy } from "./durable_copy.js";

const PREFIX = "onereward/";
const memory = new Map();

const bare = (key) => key.slice(PREFIX.length);

function works() {
  try {
    localStorage.setItem(PREFIX + "works", "1");
    localStorage.removeItem(PREFIX + "works");
    return true;
  } catch {
    return false;
  }
}

/** Whether what is stored outlives the page. */
export const isLasting = works();

/** Resolves when everything that was written is on the disk. */
export const onDisk = allCopied;

function stored(key) {
  const text = memory.get(key) ?? (isLasting ? localStorage.getItem(PREFIX + key) : null);
  try {
    return text === null ? null : JSON.parse(text);
  } catch {
    return null;
  }
}

function store(key, at, value) {
  memory.delete(key);
  const text = JSON.stringify({ at, value });
  try {
    if (value === null) localStorage.removeItem(PREFIX + key);
    else localStorage.setItem(PREFIX + key, text);
    return true;
  } catch {
    if (value !== null) memory.set(key, text);
    return false;
  }
}

/** The stored value; null if there is none or it is not readable. */
export const read = (key) => stored(key)?.value ?? null;

/** Stores a value, or removes it if it is null. Returns whether it outlives the page. */
export function write(key, value) {
  const at = Date.now();
  if (isLasting && (value !== null || stored(key) !== null)) keepCopy(key, { at, value });
  return store(key, at, value);
}

/** Brings back what a killed browser has forgotten; to be called before anything is read. */
export async function restore() {
  if (!isLasting) return;
  const all = await copies();
  for (const [key, { at, value }] of all) {
    if (value !== null && at > (stored(key)?.at ?? 0)) store(key, at, value);
    else if (value === null && at >= (stored(key)?.at ?? Infinity)) store(key, at, null);
  }
  forget(all.filter(([, { value }]) => value === null).map(([key]) => key));
}

/** The keys that start with `start`, sorted. */
export function keys(start) {
  const lasting = isLasting ? Object.keys(localStorage) : [];
  const all = [...lasting.filter((key) => key.startsWith(PREFIX)).map(bare), ...memory.keys()];
  return [...new Set(all)].filter((key) => key.startsWith(start)).sort();
}

/** Calls `listener(key)` when another tab has stored something. */
export function onOtherTab(listener) {
  addEventListener("storage", (event) => {
    if (event.key?.startsWith(PREFIX)) listener(bare(event.key));
  });
}

/** What this tab alone remembers; null if there is nothing or the browser refuses. */
export function readTab(key) {
  try {
    return JSON.parse(sessionStorage.getItem(PREFIX + key));
  } catch {
    return null;
  }
}

/** Stores something for this tab alone, if the browser allows it; null removes it. */
export function writeTab(key, value) {
  try {
    if (value === null) sessionStorage.removeItem(PREFIX + key);
    else sessionStorage.setItem(PREFIX + key, JSON.stringify(value));
  } catch {
    // A reload then starts at the start page.
  }
}
