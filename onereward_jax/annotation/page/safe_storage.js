// localStorage, or memory where the browser does not allow it. Keys start with "onereward/".

const PREFIX = "onereward/";
const memory = new Map();

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

/** The stored value; null if there is none or it is not readable. */
export function read(key) {
  const text = isLasting ? localStorage.getItem(PREFIX + key) : memory.get(key);
  try {
    return text === null || text === undefined ? null : JSON.parse(text);
  } catch {
    return null;
  }
}

/** Stores a value, or removes it if it is null. Throws if the browser has no room for it. */
export function write(key, value) {
  const text = JSON.stringify(value);
  if (!isLasting) value === null ? memory.delete(key) : memory.set(key, text);
  else if (value === null) localStorage.removeItem(PREFIX + key);
  else localStorage.setItem(PREFIX + key, text);
}

/** The keys that start with `start`, sorted. */
export function keys(start) {
  const all = isLasting ? Object.keys(localStorage) : [...memory.keys()].map((key) => PREFIX + key);
  return all
    .filter((key) => key.startsWith(PREFIX + start))
    .map((key) => key.slice(PREFIX.length))
    .sort();
}

/** Calls `listener(key)` when another tab has stored something. */
export function onOtherTab(listener) {
  addEventListener("storage", (event) => {
    if (event.key?.startsWith(PREFIX)) listener(event.key.slice(PREFIX.length));
  });
}
