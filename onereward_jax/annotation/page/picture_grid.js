// Where the pictures go: as many columns as make them largest, their buttons below or beside.

const GAP = 12;
const BELOW = 52; // height of the buttons below a picture
const BESIDE = 112; // width of the buttons beside a picture
const WORTH = 1.12; // buttons go beside a picture if it gets that much wider
const EDGE = 4; // around all pictures, for the frames of the chosen ones
const SMALLEST = 150; // width of a picture below which the page scrolls instead

/** The columns, the width of a picture and where its buttons are, in pixels. */
export function arranged(count, aspect, width, height) {
  let best = { picture: 0 };
  let widest = best;
  for (let columns = 1; columns <= count; columns += 1) {
    const rows = Math.ceil(count / columns);
    const cell = (width - GAP * (columns - 1)) / columns;
    const tall = (height - GAP * (rows - 1)) / rows;
    const below = Math.min(cell, (tall - BELOW) * aspect);
    const beside = Math.min(cell - BESIDE, tall * aspect);
    if (below >= best.picture) best = { picture: below, columns, isBeside: false };
    if (beside > widest.picture) widest = { picture: beside, columns, isBeside: true };
  }
  if (widest.picture > WORTH * best.picture) best = widest;
  if (best.picture >= Math.min(SMALLEST, width)) return best;
  const columns = Math.max(1, Math.min(count, Math.floor(width / (SMALLEST + GAP))));
  return { picture: (width - GAP * (columns - 1)) / columns, columns, isBeside: false };
}

/** Where the source goes: "left" of all rows, on "top" of all columns, or "" into the first cell. */
export function placeOfSource(count, columns) {
  const [rows, candidates] = [Math.ceil(count / columns), count - 1];
  if (columns > 1 && rows > 1 && candidates === rows * (columns - 1)) return "left";
  return columns > 1 && candidates === (rows - 1) * columns ? "top" : "";
}

/** Keeps the pictures of `grid` as large as its box allows; returns what stops it. */
export function keepArranged(grid, count, aspect) {
  const arrange = () => {
    const { clientWidth, clientHeight } = grid.parentElement;
    if (!clientWidth) return;
    // Where the whole page scrolls, as on a phone, only the width counts.
    const isScrolling = getComputedStyle(grid.parentElement).overflowY === "visible";
    const [width, height] = [clientWidth - 2 * EDGE, isScrolling ? 0 : clientHeight - 2 * EDGE];
    const { picture, columns, isBeside } = arranged(count, aspect(), width, height);
    grid.dataset.source = placeOfSource(count, columns);
    grid.style.setProperty("--columns", columns);
    grid.style.setProperty("--rows", Math.ceil(count / columns));
    grid.style.setProperty("--picture", `${Math.floor(picture)}px`);
    grid.style.setProperty("--aspect", aspect());
    grid.classList.toggle("beside", isBeside);
  };
  const observer = new ResizeObserver(arrange);
  observer.observe(grid.parentElement);
  arrange();
  return { arrange, stop: () => observer.disconnect() };
}
