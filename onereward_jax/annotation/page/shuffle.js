// A random order that is the same whenever it is asked for.

/** A new random name of `digits` hexadecimal digits; also where there is no secure context. */
export function randomName(digits = 32) {
  const bytes = crypto.getRandomValues(new Uint8Array(digits / 2));
  return [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** 32 bits that depend on every character (FNV-1a, then the finalizer of MurmurHash3). */
function hashed(text) {
  let value = 0x811c9dc5;
  for (const character of text) value = Math.imul(value ^ character.codePointAt(0), 0x01000193);
  value = Math.imul(value ^ (value >>> 16), 0x85ebca6b);
  value = Math.imul(value ^ (value >>> 13), 0xc2b2ae35);
  return (value ^ (value >>> 16)) >>> 0;
}

/** The numbers from 0 to count - 1 in an order that depends on `seed` and `name` only. */
export function shuffled(count, seed, name) {
  const order = [...Array(count).keys()];
  const weight = order.map((number) => hashed(`${seed}/${name}/${number}`));
  return order.sort((one, other) => weight[one] - weight[other] || one - other);
}
