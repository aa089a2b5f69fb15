// A copy of what is stored, in IndexedDB: a browser that is killed, or loses its power, may forget
// the last minute of localStorage, but not a finished transaction.

const NAME = "onereward";
const KEPT = "kept";

const asked = (request) =>
  new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });

let opening = null;

function database() {
  opening ??= new Promise((resolve, reject) => {
    const request = indexedDB.open(NAME, 1);
    request.onupgradeneeded = () => request.result.createObjectStore(KEPT);
    asked(request).then(resolve, reject);
  });
  return opening;
}

async function change(act) {
  const transaction = (await database()).transaction(KEPT, "readwrite", { durability: "strict" });
  act(transaction.objectStore(KEPT));
  await new Promise((resolve, reject) => {
    transaction.oncomplete = resolve;
    transaction.onabort = () => reject(transaction.error);
  });
}

let last = Promise.resolve();

/** Copies {at, value}; `value` null: it was removed at that time. Browsers may refuse. */
export function keepCopy(key, copy) {
  const kept = change((store) => store.put(copy, key)).catch(() => null);
  last = Promise.all([last, kept]);
}

/** Forgets copies of what was removed. */
export function forget(keys) {
  if (!keys.length) return;
  change((store) => keys.forEach((key) => store.delete(key))).catch(() => null);
}

/** Resolves when everything so far is on the disk, or refused. */
export const allCopied = () => last;

/** All copies: [key, {at, value}]; none where the browser refuses. */
export async function copies() {
  try {
    const store = (await database()).transaction(KEPT).objectStore(KEPT);
    const [keys, values] = await Promise.all([asked(store.getAllKeys()), asked(store.getAll())]);
    return keys.map((key, place) => [key, values[place]]);
  } catch {
    return [];
  }
}
