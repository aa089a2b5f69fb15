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
  const text = memory.get(key) ?? (isLasting ? localStorage.getItem(PREFIX + key) : null);
  try {
    return text === null ? null : JSON.parse(text);
  } catch {
    return null;
  }
}

/** Stores a value, or removes it if it is null. Returns whether it outlives the page. */
export function write(key, value) {
  memory.delete(key);
  try {
    if (value === null) localStorage.removeItem(PREFIX + key);
    else localStorage.setItem(PREFIX + key, JSON.stringify(value));
    return true;
  } catch {
    if (value !== null) memory.set(key, JSON.stringify(value));
    return false;
  }
}

/** The keys that start with `start`, sorted. */
export function keys(start) {
  const stored = isLasting ? Object.keys(localStorage) : [];
  const all = [...stored.filter((key) => key.startsWith(PREFIX)).map(bare), ...memory.keys()];
  return [...new Set(all)].filter((key) => key.startsWith(start)).sort();
}

const bare = (key) => key.slice(PREFIX.length);

/** Calls `listener(key)` when another tab has stored something. */
export function onOtherTab(listener) {
  addEventListener("storage", (event) => {
    if (event.key?.startsWith(PREFIX)) listener(bare(event.key));
  });
}
