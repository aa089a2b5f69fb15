// The description of the API, from openapi.json: what to send, what comes back.

import { element } from "./dom.js";

const code = (text) => element("code", {}, text);

/** A sentence whose `code` is marked. */
const marked = (text = "") =>
  text.split("`").map((part, index) => (index % 2 ? code(part) : part));

/** What a "$ref" refers to; other schemas as they are. */
const resolved = (schema, whole) =>
  schema.$ref ? whole.components.schemas[schema.$ref.split("/").at(-1)] : schema;

/** The type of a field in a few words. */
function typeOf(schema, whole) {
  if (schema.$ref) return resolved(schema, whole).title;
  if (schema.anyOf) return schema.anyOf.map((one) => typeOf(one, whole)).join(" or ");
  if (schema.enum) return schema.enum.map((one) => JSON.stringify(one)).join(", ");
  if (schema.const !== undefined) return JSON.stringify(schema.const);
  if (schema.contentEncoding) return `${schema.title ?? "a file"} in ${schema.contentEncoding}`;
  if (schema.type === "array") return `list of ${typeOf(schema.items, whole)}`;
  const range = [
    ["minimum", "from"], ["exclusiveMinimum", "above"], ["maximum", "to"],
    ["exclusiveMaximum", "below"], ["maxLength", "at most"],
  ].filter(([name]) => schema[name] !== undefined);
  // The range of a seed is larger than that of JavaScript's numbers.
  if (Math.abs(schema.maximum) > Number.MAX_SAFE_INTEGER) return `${schema.type} of 64 bits`;
  const words = range.map(([name, word]) =>
    `${word} ${schema[name]}${name === "maxLength" ? " characters" : ""}`);
  return [schema.type ?? "any", ...words].join(" ");
}

function fields(schema, whole) {
  const { properties = {}, required = [], additionalProperties } = resolved(schema, whole);
  const rows = Object.entries(properties).map(([name, field]) => element("tr", {},
    element("th", { scope: "row" }, code(name)),
    element("td", { class: "words" }, typeOf(field, whole)),
    element("td", { class: "words" }, required.includes(name) ? "required"
      : field.default === undefined || field.default === null ? ""
        : code(JSON.stringify(field.default))),
    element("td", { class: "words" }, marked(field.description))));
  if (!rows.length) return additionalProperties ? element("p", { class: "soft" }, "an object") : null;
  return element("div", { class: "scroll" }, element("table", {},
    element("thead", {}, element("tr", {}, ["field", "type", "default", "meaning"].map(
      (words) => element("th", { scope: "col", class: "words" }, words)))),
    element("tbody", {}, rows)));
}

function answers(responses, whole) {
  return Object.entries(responses).filter(([status]) => status !== "422").map(
    ([status, { description, content = {} }]) => {
      const [kind, { schema } = {}] = Object.entries(content)[0] ?? [];
      const title = schema?.$ref ? resolved(schema, whole).title : kind;
      return element("li", {}, code(status), " ", description === "Successful Response" ? "" : description,
        title ? ` (${title})` : "");
    });
}

function route(method, path, one, whole) {
  const body = one.requestBody?.content["application/json"]?.schema;
  return element("section", {},
    element("h2", {}, element("span", { class: "method" }, method.toUpperCase()), " ", code(path)),
    element("p", {}, one.summary),
    body ? [element("p", { class: "soft" }, marked(resolved(body, whole).description)),
      fields(body, whole)] : null,
    element("ul", { class: "statuses" }, answers(one.responses, whole)));
}

const whole = await (await fetch("openapi.json")).json();
const named = ["JobState", "Answer", "About", "Defaults", "Ready"].map((name) =>
  whole.components.schemas[name]);
document.getElementById("app").replaceChildren(
  element("header", {}, element("h1", {}, `${whole.info.title} ${whole.info.version}`),
    element("a", { href: "./" }, "the page"), " ", element("a", { href: "openapi.json" }, "openapi.json")),
  element("p", {}, marked(whole.info.description)),
  ...Object.entries(whole.paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, one]) => route(method, path, one, whole))),
  ...named.filter(Boolean).map((schema) => element("section", {},
    element("h2", {}, schema.title), element("p", { class: "soft" }, marked(schema.description)),
    fields(schema, whole))),
);
