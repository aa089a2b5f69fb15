// What an answer is, for each kind of item; no page, no storage.
//
// A complete answer is {best, worst} with positions from 0, or both null (they do not differ); or
// {usable: true | false}. An answer that is begun has only best or only worst; {} is none.

/** Whether nothing is missing in the answer. */
export const isComplete = (answer) =>
  typeof answer.usable === "boolean" || (answer.best !== undefined && answer.worst !== undefined);

/** Whether two answers say the same. */
export const isSame = (one, other) =>
  one.best === other.best && one.worst === other.worst && one.usable === other.usable;

/**
 * The answer after a choice.
 *
 * kind: "best_worst", "better" or "usable"; choice: "best" or "worst" of a position, "none",
 * "yes" or "no". Returns null if the kind has no such choice.
 */
export function chosen(kind, answer, choice, position) {
  if (kind === "usable") {
    return choice === "yes" || choice === "no" ? { usable: choice === "yes" } : null;
  }
  if (choice === "none") return { best: null, worst: null };
  if (choice !== "best" && choice !== "worst") return null;
  const other = choice === "best" ? "worst" : "best";
  if (kind === "better") return { [choice]: position, [other]: 1 - position };
  const next = { [choice]: position };
  // Nothing can be best and worst, and "no difference" is replaced as a whole.
  if (Number.isInteger(answer[other]) && answer[other] !== position) next[other] = answer[other];
  return next;
}

/** What candidates are called: A and B, or 1, 2, 3, ... */
export const candidateName = (kind, position) =>
  kind === "better" ? "AB"[position] : `${position + 1}`;

/** The answer in a few words. */
export function inWords(kind, answer) {
  if (typeof answer.usable === "boolean") return answer.usable ? "usable" : "not usable";
  if (answer.best === null) return "no difference";
  const name = (position) => candidateName(kind, position);
  if (kind === "better" && isComplete(answer)) return `${name(answer.best)} is better`;
  return ["best", "worst"]
    .filter((word) => answer[word] !== undefined)
    .map((word) => `${word} ${name(answer[word])}`)
    .join(", ");
}

/** What is still to be chosen, as a sentence. */
export function whatIsMissing(kind, answer) {
  if (kind === "usable") return "Choose yes or no.";
  if (kind === "better") return "Choose A, B or no difference.";
  if (answer.best !== undefined) return "Choose the worst one too.";
  if (answer.worst !== undefined) return "Choose the best one too.";
  return "Choose the best and the worst, or no difference.";
}
