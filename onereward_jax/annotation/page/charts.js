// Charts as inline SVG: attributes and classes only, as the page's policy asks.

import { drawn } from "./dom.js";
import { twoDigits } from "./readings.js";

const SERIES = 8;
const HOURS = 48;

/** A chart of some size with a name for screen readers. */
function chart(width, height, label, ...children) {
  return drawn("svg", {
    class: "chart", viewBox: `0 0 ${width} ${height}`, width, height, role: "img",
    "aria-label": label,
  }, ...children);
}

const text = (x, y, words, attributes = {}) => drawn("text", { x, y, ...attributes }, words);
const rect = (x, y, width, height, attributes) =>
  drawn("rect", { x, y, width: Math.max(0, width), height: Math.max(0, height), ...attributes });
const line = (x1, y1, x2, y2, name) => drawn("line", { x1, y1, x2, y2, class: name });

/** The class of the colour of series number `place`; those beyond the last share it. */
export const seriesClass = (place) => `series-${Math.min(place, SERIES - 1)}`;

/** A value of 1, 2 or 5 times a power of ten that is not below `value`. */
function roundUp(value) {
  const power = 10 ** Math.floor(Math.log10(Math.max(1, value)));
  return [1, 2, 5, 10].map((factor) => factor * power).find((one) => one >= value);
}

const clock = (hour) => new Date(1000 * hour).toLocaleTimeString([], {
  hour: "2-digit", minute: "2-digit",
});
const day = (hour) => new Date(1000 * hour).toLocaleDateString([], {
  weekday: "short", day: "numeric", month: "short",
});

/** Answers per hour as stacked bars, one colour per name; the last `HOURS` hours with answers. */
export function throughputChart(rows, names) {
  const [width, height, left, bottom, top] = [1040, 240, 44, 40, 12];
  const last = Math.max(...rows.map((row) => row.hour));
  const first = Math.max(Math.min(...rows.map((row) => row.hour)), last - 3600 * (HOURS - 1));
  const count = Math.max(8, (last - first) / 3600 + 1);
  const totals = new Map();
  for (const { hour, answers } of rows) totals.set(hour, (totals.get(hour) ?? 0) + answers);
  const most = roundUp(Math.max(...totals.values()));
  const step = (width - left) / count;
  const tall = (answers) => ((height - bottom - top) * answers) / most;
  const parts = [0, 0.5, 1].flatMap((share) => {
    const y = height - bottom - tall(share * most);
    return [line(left, y, width, y, "grid"),
      text(left - 6, y + 4, `${share * most}`, { "text-anchor": "end" })];
  });
  const reached = new Map();
  const places = new Map(names.map((name, place) => [name, place]));
  const sorted = [...rows].sort((a, b) => places.get(a.name) - places.get(b.name));
  for (const { hour, name, answers } of sorted.filter((row) => row.hour >= first)) {
    const below = reached.get(hour) ?? 0;
    const x = left + step * ((hour - first) / 3600);
    parts.push(drawn("g", {},
      drawn("title", {}, `${day(hour)} ${clock(hour)}, ${name}: ${answers}`),
      rect(x + 1, height - bottom - tall(below + answers), Math.min(step - 2, 60), tall(answers),
        { class: seriesClass(places.get(name)) })));
    reached.set(hour, below + answers);
  }
  const every = Math.ceil(count / 12);
  for (let number = 0; number < count; number += every) {
    const hour = first + 3600 * number;
    const x = left + step * number;
    parts.push(text(x + 1, height - bottom + 16, clock(hour)));
    const isNewDay = number === 0 || day(hour) !== day(hour - 3600 * every);
    if (isNewDay) parts.push(text(x + 1, height - bottom + 32, day(hour)));
  }
  return chart(width, height, "answers per hour and person", ...parts);
}

/** Alpha on a scale from below 0 to 1, one row each: {name, alpha}; null has no dot. */
export function alphaChart(rows) {
  const [width, left, row, top, low] = [1040, 290, 26, 22, -0.2];
  const height = top + row * rows.length + 6;
  const x = (value) => left + ((width - left - 20) * (Math.max(low, value) - low)) / (1 - low);
  const ticks = [0, 0.2, 0.4, 0.6, 0.667, 0.8, 1];
  const marks = ticks.filter((value) => value !== 0.6).flatMap((value) => [
    line(x(value), top, x(value), height - 4, "grid"),
    text(x(value), top - 7, value === 0.667 ? "0.67" : `${value}`, { "text-anchor": "middle" }),
  ]);
  const dots = rows.flatMap(({ name, alpha }, place) => {
    const y = top + row * (place + 0.5);
    const words = text(left - 12, y + 4, name, { "text-anchor": "end", class: "strong" });
    if (alpha === null) return [words, text(x(0) + 8, y + 4, "not yet: needs shared items")];
    return [words, rect(Math.min(x(0), x(alpha)), y - 5, Math.abs(x(alpha) - x(0)), 10,
      { class: "bar", rx: 2 }), text(x(Math.max(0, alpha)) + 8, y + 4, twoDigits(alpha))];
  });
  const label = rows.map(({ name, alpha }) => `${name}: ${alpha === null ? "none" : twoDigits(alpha)}`).join(", ");
  return chart(width, height, `Krippendorff's alpha, ${label}`,
    rect(x(0.667), top, x(1) - x(0.667), height - top - 4, { class: "band" }), ...marks, ...dots);
}

/** How often the best picture was at each position, with the share that chance gives marked. */
export function positionChart(shares) {
  const [width, height, bottom, top] = [240, 110, 18, 4];
  const inside = 18; // height of the words in a bar
  const step = (width - 30) / shares.length;
  const most = Math.max(2 / shares.length, ...shares);
  const tall = (share) => ((height - bottom - top) * share) / most;
  const expected = height - bottom - tall(1 / shares.length);
  return chart(width, height,
    shares.map((share, place) => `position ${place + 1}: ${Math.round(100 * share)} %`).join(", "),
    ...shares.flatMap((share, place) => {
      const x = 8 + step * place;
      const middle = { "text-anchor": "middle" };
      const isInside = tall(share) > inside;
      return [
        rect(x, height - bottom - tall(share), step - 6, tall(share), { class: "bar", rx: 2 }),
        text(x + (step - 6) / 2, height - bottom - (isInside ? 6 : tall(share) + 4),
          `${Math.round(100 * share)} %`, { ...middle, class: isInside ? "on-bar" : "strong" }),
        text(x + (step - 6) / 2, height - 4, `${place + 1}`, middle),
      ];
    }),
    line(2, expected, width - 24, expected, "mark"));
}

/** A square in a series' colour, for a legend. */
export const swatch = (place) =>
  drawn("svg", { viewBox: "0 0 12 12", "aria-hidden": "true" },
    rect(0, 0, 12, 12, { class: seriesClass(place), rx: 2 }));
