// The admin page: progress, throughput, agreement, and how each person answers.

import { alphaChart, positionChart, seriesClass, swatch, throughputChart } from "./charts.js";
import { button, counted, element } from "./dom.js";
import { progressBar } from "./progress.js";
import { ago, goldWords, percent, readAlpha, readPositions, twoDigits } from "./readings.js";
import { Refused, request, session } from "./server_api.js";

const EVERY = 15_000;
const root = document.getElementById("admin");

const section = (title, note, ...children) =>
  element("section", {}, element("h2", {}, title),
    note ? element("p", { class: "note" }, note) : null, children);

/** A table; the first cell of a row is its heading. Columns with words are [title, "words"]. */
function table(columns, rows) {
  const head = columns.map((one) =>
    element("th", { scope: "col", class: Array.isArray(one) ? "words" : null },
      Array.isArray(one) ? one[0] : one));
  const body = rows.map(({ cells, ...attributes }) =>
    element("tr", attributes, cells.map((cell, place) => place === 0
      ? element("th", { scope: "row" }, cell)
      : element("td", { class: Array.isArray(columns[place]) ? "words" : null }, cell))));
  return element("div", { class: "scroll" }, element("table", {},
    element("thead", {}, element("tr", {}, head)), element("tbody", {}, body)));
}

function progress(sets) {
  return element("div", { class: "sets" }, Object.entries(sets).map(([name, one]) =>
    element("div", { "data-set": name },
      element("h2", {}, one.title),
      element("div", { class: "big" }, `${one.finished} of ${one.total}`),
      progressBar(one.finished, one.total, `${one.finished} of ${one.total} finished`),
      element("p", { class: "soft" },
        `${counted(one.answers, "answer")}; ${counted(one.overlap, "person").replace("persons", "people")} per question`),
      element("a", {
        class: "button", href: `api/admin/export?set=${encodeURIComponent(name)}`, download: true,
      }, "Export answers (JSON lines)"))));
}

function throughput(rows) {
  if (!rows.length) return section("Throughput", "No answers yet.");
  const totals = new Map();
  for (const { name, answers } of rows) totals.set(name, (totals.get(name) ?? 0) + answers);
  const names = [...totals.keys()].sort((a, b) => totals.get(b) - totals.get(a));
  return section("Throughput", "Answers per hour and person.",
    element("div", { class: "scroll" }, throughputChart(rows, names)),
    element("ul", { class: "legend" }, names.map((name, place) =>
      element("li", { class: "key", "data-series": seriesClass(place) },
        swatch(place), `${name}: ${totals.get(name)}`))));
}

function agreement(dimensions) {
  if (!dimensions.length) return section("Agreement", "No answers yet.");
  const named = dimensions.map((one) => ({
    ...one, name: `${one.task.replaceAll("_", " ")}: ${one.dimension.replaceAll("_", " ")}`,
  }));
  return section("Agreement",
    "Krippendorff's alpha of the answers that several people gave to the same question: 0 is "
    + "chance, 1 is complete agreement; shaded: 0.67 and above. An answer is one of many (best, "
    + "worst) pairs here, so alpha is lower than of a yes-or-no question.",
    element("div", { class: "scroll" }, alphaChart(named)),
    table(
      ["", "answers", "alpha", ["reading", "words"], "no difference", "gold right"],
      named.map((one) => ({
        "data-dimension": one.dimension,
        cells: [one.name, `${one.answers}`, one.alpha === null ? "" : twoDigits(one.alpha),
          readAlpha(one.alpha, one.answers),
          percent(one.share_none), goldWords(one.gold_right, one.gold_asked)],
      }))));
}

function people(annotators) {
  const rows = annotators.map((one) => ({
    class: one.revoked ? "revoked" : null,
    "data-annotator": one.name,
    cells: [
      one.name + (one.admin ? " (admin)" : "") + (one.revoked ? " (revoked)" : ""),
      `${one.items}`, `${one.answers}`,
      one.median_seconds === null ? "" : `${one.median_seconds.toFixed(1)} s`,
      percent(one.share_none), goldWords(one.gold.right, one.gold.asked), ago(one.last_seen),
    ],
  }));
  return section("Annotators", null, table(
    ["", "items", "answers", "median time", "no difference", "gold right", "last seen"], rows));
}

function positions(annotators) {
  const shown = annotators.filter((one) => one.position_bias.first_best.length);
  if (!shown.length) return null;
  return section("Position bias",
    "Where the best picture was on the screen. Pictures are shown in random order, so every "
    + "position should come up equally often (dashed).",
    element("div", { class: "people" }, shown.map((one) => {
      const { name, position_bias: bias } = one;
      const { text, isBiased } = readPositions(bias.counts, one.items, one.answers);
      return element("figure", { "data-annotator": name },
        element("figcaption", {}, element("b", {}, name), " ",
          element("span", { class: isBiased ? "bad" : "soft" }, text)),
        positionChart(bias.first_best));
    })));
}

function draw(summary, redraw) {
  const now = new Date().toLocaleTimeString();
  root.replaceChildren(
    element("header", {}, element("h1", {}, "Annotation"),
      element("span", { class: "soft", role: "status" }, `as of ${now}`),
      button({ class: "quiet", onclick: redraw }, "Refresh"),
      element("a", { class: "button", href: "./" }, "Annotate")),
    progress(summary.sets),
    ...[throughput(summary.throughput), agreement(summary.dimensions), people(summary.annotators),
      positions(summary.annotators)].filter(Boolean));
}

async function refresh() {
  try {
    draw(await request("GET", "/api/admin/summary"), refresh);
  } catch (error) {
    const status = root.querySelector("[role=status]");
    const told = error instanceof Refused && error.status === 401
      ? "Open the link of an admin first."
      : `${error.message}.`;
    if (status) status.textContent = told;
    else root.replaceChildren(element("p", { role: "alert" }, told));
  }
}

await session().catch(() => null);
await refresh();
// Not while the keyboard is somewhere on the page: it would lose its place.
setInterval(() => {
  if (!document.hidden && !root.contains(document.activeElement)) refresh();
}, EVERY);
