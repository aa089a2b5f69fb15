// What the numbers of the admin page say, in words.

import { counted } from "./dom.js";

const FEW = 30;

/** A number with two digits, never "-0.00". */
export const twoDigits = (number) => (Math.round(100 * number) / 100 + 0).toFixed(2);

/** Krippendorff's own limits (Content Analysis, 2004): 0.8 reliable, 0.667 tentative. */
export function readAlpha(alpha, answers) {
  if (alpha !== null && answers < FEW) return `fewer than ${FEW} answers: too few to tell`;
  if (alpha === null) return "not known: no question has answers of two people yet";
  if (alpha >= 0.8) return "reliable";
  if (alpha >= 0.667) return "good enough for tentative conclusions";
  if (alpha >= 0.4) return "weak: train on majorities, add overlap";
  if (alpha > 0.05) return "low: the guideline is read differently, or pictures hardly differ";
  return "no better than chance: talk about the guideline before going on";
}

/**
 * Whether a person prefers a position: the chi-squared test of equal shares.
 *
 * counts: how often the best picture was at each position. items, answers: of the person; the
 * dimensions of an item share an order, so that only items count as independent.
 * Returns {text, isBiased}.
 */
export function readPositions(counts, items, answers) {
  const total = counts.reduce((sum, one) => sum + one, 0);
  const independent = Math.floor((total * items) / Math.max(1, answers));
  if (independent < 5 * counts.length) {
    return { text: `${counted(independent, "item")}: too few to tell`, isBiased: false };
  }
  const expected = total / counts.length;
  const spread = counts.reduce((sum, one) => sum + (one - expected) ** 2 / expected, 0);
  const squares = (spread * independent) / total;
  const limits = [6.63, 9.21, 11.34, 13.28, 15.09, 16.81, 18.48, 20.09]; // p = 0.01
  const isBiased = squares > (limits[counts.length - 2] ?? Infinity);
  const most = counts.indexOf(Math.max(...counts)) + 1;
  return {
    text: isBiased ? `prefers position ${most} (p < 0.01)` : "no bias seen",
    isBiased,
  };
}

/** A share as a percentage; "" if there is none. */
export const percent = (share) =>
  share === null || share === undefined ? "" : `${Math.round(100 * share)} %`;

/** "12 of 14", or "" without gold items. */
export const goldWords = (right, asked) => (asked ? `${right} of ${asked}` : "");

/** How long ago, in words. */
export function ago(unixSeconds, now = Date.now() / 1000) {
  if (!unixSeconds) return "never";
  const passed = now - unixSeconds;
  if (passed < 90) return "now";
  if (passed < 5400) return `${Math.round(passed / 60)} minutes ago`;
  if (passed < 129600) return `${Math.round(passed / 3600)} hours ago`;
  return `${Math.round(passed / 86400)} days ago`;
}
