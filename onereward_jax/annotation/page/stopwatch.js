// Seconds that a question has been in view; a hidden page does not count.

let shown = 0;
let since = null;

const now = () => performance.now() / 1000;

document.addEventListener("visibilitychange", () => {
  if (document.hidden && since !== null) {
    shown += now() - since;
    since = null;
  } else if (!document.hidden && since === null) {
    since = now();
  }
});

/** Starts again from 0. */
export function restartStopwatch() {
  shown = 0;
  since = document.hidden ? null : now();
}

/** Seconds in view since `restartStopwatch`, to a tenth; a day at most, as the server takes it. */
export const secondsInView = () =>
  Math.min(86400, Math.round(10 * (shown + (since === null ? 0 : now() - since))) / 10);
