// The page without a server: questions inside, answers in the browser and in a file.

import { App } from "./app.js";
import { FileStore } from "./file_store.js";
import { restore } from "./safe_storage.js";

await restore();
const content = JSON.parse(document.getElementById("questions").textContent);
new App(document.getElementById("app"), new FileStore(content)).start();
