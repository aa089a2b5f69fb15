// What an annotator sees first and last: the sets with their progress; without a server also the
// name and the files of answers.

import { button, counted, element } from "./dom.js";
import { progressBar } from "./progress.js";

/** The file that the browser's dialog returns, as text. */
async function chosenText(input) {
  const [file] = input.files;
  input.value = "";
  return file ? file.text() : null;
}

function download(name, text) {
  const link = element("a", {
    href: URL.createObjectURL(new Blob([text], { type: "application/jsonl" })),
    download: name,
  });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

/** Saves the answers so far as a file. */
export function saveAnswers(store) {
  download(store.fileName(), store.asLines());
  store.exported();
}

function setCard({ set, title, total, answered_by_me: done, left_for_me: left }, onstart) {
  const words = `${done} of ${total} answered`;
  return element("section", { class: "set" },
    element("h2", {}, title),
    progressBar(done, total, words),
    element("div", { class: "row" },
      element("span", { class: "soft" }, left ? words : `${words}; nothing left for you`),
      left
        ? button({ class: "main", "data-set": set, onclick: () => onstart(set) },
          done ? "Continue" : "Start")
        : null));
}

/** The fields for a name, and for saving and loading answers; only without a server. */
function fileTools(store, left, redraw, told) {
  const name = element("input", {
    id: "annotator", value: store.name, autocomplete: "name", maxlength: "60", required: true,
  });
  const kept = store.allKept().length;
  const moving = element("input", { type: "checkbox", id: "moving", checked: true });
  const moves = element("label", { class: "row", hidden: true }, moving,
    `take my ${counted(kept, "answer")} with me`);
  const isNew = () => name.value.trim() && name.value.trim() !== store.name;
  name.addEventListener("input", () => {
    moves.hidden = !(kept && store.name && isNew());
    rename.disabled = !isNew();
  });
  const rename = button({ disabled: true, onclick: apply }, store.name ? "Change" : "Begin");
  if (!store.name) rename.classList.add("main");
  function apply() {
    if (!isNew()) return;
    store.rename(name.value.trim(), moving.checked && !moves.hidden);
    redraw();
  }
  name.addEventListener("keydown", (event) => {
    if (event.key !== "Enter") return;
    event.preventDefault(); // or it presses the button that has the focus next
    apply();
  });
  const file = element("input", { type: "file", accept: ".jsonl,application/jsonl", hidden: true });
  file.addEventListener("change", async () => {
    const text = await chosenText(file);
    if (text === null) return;
    try {
      redraw({ words: store.importLines(text) });
    } catch (error) {
      redraw({ words: error.message, isWrong: true });
    }
  });
  const save = () => {
    saveAnswers(store);
    redraw({ words: `Saved as ${store.fileName()}: send this file back.` });
  };
  return [
    element("section", { class: "files" },
      element("label", { for: "annotator" }, "Your name, as it is written into your answers"),
      element("div", { class: "row" }, name, rename),
      moves),
    element("section", { class: "files" },
      element("p", { class: "soft" },
        "Your answers stay in this browser until you save them as a file. Save as often as you "
        + "like, and send the last file back."),
      element("div", { class: "row" },
        button({ id: "save", class: left ? null : "main", disabled: !kept, onclick: save },
          "Save answers as a file"),
        button({ id: "load", onclick: () => file.click() }, "Continue from a file"),
        file),
      told
        ? element("p", { class: told.isWrong ? "told wrong" : "told", role: "alert" }, told.words)
        : null),
  ];
}

/**
 * The home page. `onstart(set)`; `redraw(told)` draws it again with {words, isWrong}; `onlogout`
 * only with a server.
 */
export async function homeView(store, { onstart, onlogout, redraw, told }) {
  const sets = await store.sets();
  const left = sets.reduce((sum, one) => sum + one.left_for_me, 0);
  const canStart = !store.isFile || store.name;
  const page = element("div", { class: "home" },
    element("h1", {}, store.name ? `Hello, ${store.name}` : "Welcome"),
    element("p", { class: "lead" }, left || !sets.length
      ? "Compare edited pictures, one dimension at a time. The keyboard is fastest: press ? at any "
        + "time for the keys."
      : store.isFile
        ? "Everything is answered, thank you! Save the file and send it back."
        : "Everything is answered, thank you!"),
    canStart ? sets.map((one) => setCard(one, onstart)) : null,
    store.isFile ? fileTools(store, left, redraw, told) : null,
    element("div", { class: "row" },
      store.session.admin
        ? element("a", { href: "admin", class: "button" }, "Admin page")
        : null,
      onlogout ? button({ class: "quiet", onclick: onlogout }, "Log out") : null));
  return page;
}

/** For those without a session: paste the link or the token. `onlogin(token)` may throw. */
export function loginView(onlogin, told = "") {
  const token = element("input", {
    id: "token", type: "password", autocomplete: "off", required: true,
  });
  const message = element("p", { class: "told wrong", role: "alert" }, told);
  const submit = async (event) => {
    event.preventDefault();
    const [, found] = /#token=(.+)$/.exec(token.value.trim()) ?? [null, token.value.trim()];
    try {
      await onlogin(decodeURIComponent(found));
    } catch (error) {
      message.textContent = error.message;
    }
  };
  return element("form", { class: "home", onsubmit: submit },
    element("h1", {}, "Welcome"),
    element("p", { class: "lead" }, "Open the link that you were given, or paste it here."),
    element("label", { for: "token" }, "Your link or token"),
    element("div", { class: "row" }, token,
      element("button", { class: "main", type: "submit" }, "Log in")),
    message);
}
