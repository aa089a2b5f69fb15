// Which key means what. Digits go by their place (`code`), so that Shift and the layout do not
// matter; letters by what is printed on the key, or by their place on layouts without Latin letters.

const LETTERS = {
  z: "zoom", f: "flicker", m: "mask", g: "guideline", u: "undo", y: "yes", n: "no", h: "help",
};
const NAMED = {
  Enter: "next", Backspace: "back", ArrowLeft: "left", ArrowRight: "right", ArrowUp: "up",
  ArrowDown: "down", "+": "closer", "-": "farther", "?": "help", Escape: "escape",
};

/** The legend of the help: [keys, what they do, kinds of items that have them]. */
export const LEGEND = [
  [["1", "…", "4"], "best", ["best_worst"]],
  [["Shift", "1", "…", "4"], "worst", ["best_worst"]],
  [["1"], "A is better", ["better"]],
  [["2"], "B is better", ["better"]],
  [["0"], "no difference", ["best_worst", "better"]],
  [["1", "Y"], "yes", ["usable"]],
  [["2", "N"], "no", ["usable"]],
  [["Enter"], "next dimension, next item"],
  [["Backspace"], "back"],
  [["U"], "undo, also Ctrl+Z"],
  [["Z"], "zoom; then drag, wheel, pinch or arrow keys"],
  [["F"], "hold: the source; tap: flicker"],
  [["M"], "mask"],
  [["G"], "guideline"],
  [["?"], "these keys"],
];

/** Whether the event belongs to a field or a dialog, or is a shortcut of the browser. */
function isForeign(event) {
  const target = event.target;
  if (event.altKey || event.isComposing) return true;
  if (target.closest?.("input:not([type=checkbox]), textarea, select, dialog")) return true;
  // Enter and Space press the button that somebody has walked to with Tab.
  const pressed = event.key === "Enter" || event.key === " ";
  return pressed && target.closest?.("button, a, summary, input, label") !== null
    && target !== document.body;
}

function digit(event) {
  const found = /^(Digit|Numpad)(\d)$/.exec(event.code);
  if (!found) return /^\d$/.test(event.key) ? Number(event.key) : null;
  // Without Num Lock these keys are arrows.
  return found[1] === "Numpad" && !/^\d$/.test(event.key) ? null : Number(found[2]);
}

function letter(event) {
  const key = event.key.toLowerCase();
  if (/^[a-z]$/.test(key)) return key;
  const [, place] = /^Key([A-Z])$/.exec(event.code) ?? [];
  return event.key.length === 1 && event.key > "\x7f" && place ? place.toLowerCase() : null;
}

/**
 * What a keydown or keyup means for an item of a kind: {name, position?}, or null.
 *
 * Names: best, worst (with a position), none, yes, no, next, back, undo, zoom, flicker, mask,
 * guideline, help, escape, left, right, up, down, closer, farther.
 */
export function actionOf(event, kind) {
  if (isForeign(event)) return null;
  if (event.ctrlKey || event.metaKey) {
    return letter(event) === "z" && !event.shiftKey ? { name: "undo" } : null;
  }
  const number = digit(event);
  if (number !== null) {
    if (kind === "usable") return [null, { name: "yes" }, { name: "no" }][number] ?? null;
    if (number === 0) return { name: "none" };
    return { name: event.shiftKey ? "worst" : "best", position: number - 1 };
  }
  const name = NAMED[event.key] ?? LETTERS[letter(event)];
  if ((name === "yes" || name === "no") && kind !== "usable") return null;
  return name ? { name } : null;
}
