// The keys, as a dialog over the page.

import { button, element } from "./dom.js";
import { LEGEND } from "./keys.js";

/** A dialog with the keys for items of a kind; Escape or ? closes it. */
export function openHelp(kind) {
  if (document.querySelector("dialog[open]")) return;
  const rows = LEGEND.filter(([, , kinds]) => !kinds || kinds.includes(kind));
  const dialog = element("dialog", { class: "help", "aria-labelledby": "help-title" },
    element("h2", { id: "help-title" }, "Keys"),
    element("dl", {}, rows.flatMap(([names, meaning]) => [
      element("dt", {}, names.map((name) =>
        name === "…" ? " … " : element("kbd", {}, name))),
      element("dd", {}, meaning),
    ])),
    element("p", { class: "soft" },
      "Every choice is saved at once. Dimensions are independent: the best in one may be the worst "
      + "in another."),
    button({ class: "main", autofocus: true, onclick: () => dialog.close() }, "Close"));
  dialog.addEventListener("close", () => dialog.remove());
  dialog.addEventListener("keydown", (event) => {
    if (event.key === "?" || event.key === "Enter") {
      event.preventDefault();
      dialog.close();
    }
  });
  dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
  document.body.append(dialog);
  dialog.showModal();
}
