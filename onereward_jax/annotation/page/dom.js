// Building elements, and telling a screen reader what has changed.

/**
 * An element. A property that starts with "on" is a listener; true is an attribute without a value;
 * null, undefined and false are left out. Children are nodes or texts, lists of them, or null.
 */
export function element(name, properties = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (value === null || value === undefined || value === false) continue;
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else made.setAttribute(key, value === true ? "" : value);
  }
  made.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return made;
}

/** An SVG element with attributes and children. */
export function drawn(name, attributes = {}, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return made;
}

/** A button. After a click with a pointer it lets the keyboard go back to the page's own keys. */
export function button(properties, ...children) {
  const { onclick, ...others } = properties;
  return element("button", {
    type: "button",
    ...others,
    onclick: (event) => {
      if (event.detail > 0) event.currentTarget.blur();
      onclick?.(event);
    },
  }, ...children);
}

/** The name of a key, in a button or a list. */
export const keyName = (name) => element("kbd", { "aria-hidden": "true" }, name);

/** Says `text` to a screen reader when it is idle. */
export function announce(text) {
  const place = document.getElementById("announcer");
  if (place) place.textContent = text;
}

/** "1 answer", "2 answers". */
export const counted = (number, noun) => `${number} ${noun}${number === 1 ? "" : "s"}`;
