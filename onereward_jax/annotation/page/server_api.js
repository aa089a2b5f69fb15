// Requests to the annotation server: the session, its CSRF token, and patience with the network.

/** A refusal by the server, with its sentence. */
export class Refused extends Error {
  constructor(status, sentence) {
    super(sentence);
    this.status = status;
  }
}

/** The network or the server is away, busy or restarting: trying again may help. */
export class Away extends Error {}

const TIMEOUT = 20_000;
const LONGEST_WAIT = 15;

let csrf = "";

async function sentenceOf(response) {
  try {
    return (await response.json()).error ?? `the server answers ${response.status}`;
  } catch {
    return `the server answers ${response.status}`;
  }
}

/** One request. Returns the JSON of the answer, null if it has none. Throws Refused or Away. */
export async function request(method, path, body) {
  const headers = {};
  if (body !== undefined) headers["Content-Type"] = "application/json";
  if (method !== "GET") headers["X-CSRF-Token"] = csrf;
  let response;
  try {
    response = await fetch(path, {
      method,
      headers,
      body: body === undefined ? undefined : JSON.stringify(body),
      credentials: "same-origin",
      cache: "no-store",
      signal: AbortSignal.timeout(TIMEOUT),
    });
    if (response.status === 204) return null;
    if (response.ok) return await response.json();
  } catch {
    throw new Away("the server does not answer");
  }
  const sentence = await sentenceOf(response);
  if (response.status >= 500 || [408, 429].includes(response.status)) throw new Away(sentence);
  throw new Refused(response.status, sentence);
}

/** Logs in with a token. Throws Refused if there is no such token. */
export async function login(token) {
  await request("POST", "/api/login", { token });
}

/** The session of the cookie; also renews the CSRF token. Throws Refused (401): not logged in. */
export async function session() {
  const found = await request("GET", "/api/session");
  csrf = found.csrf;
  return found;
}

/** Seconds to wait before the try number `tries`, from 1: 1, 2, 4, ... */
export const waitBefore = (tries) => Math.min(LONGEST_WAIT, 2 ** (tries - 1));

/** Waits some seconds, or until the network is back. */
export const pause = (seconds) =>
  new Promise((resume) => {
    const timer = setTimeout(done, 1000 * seconds);
    function done() {
      clearTimeout(timer);
      removeEventListener("online", done);
      resume();
    }
    addEventListener("online", done);
  });

/**
 * Whether to try again after an error: the server is away, nobody is logged in, or (once) the CSRF
 * token is old. Waits, and renews the session.
 */
export async function isWorthAnotherTry(error, tries) {
  const isOldToken = error instanceof Refused && error.status === 403 && tries === 1;
  const signedOut = error instanceof Refused && error.status === 401;
  if (!isOldToken && !signedOut && !(error instanceof Away)) return false;
  if (!isOldToken) await pause(waitBefore(tries));
  if (error instanceof Refused) await session().catch(() => null);
  return true;
}

/** A request that is repeated until the server answers; `onwait(error)` before every wait. */
export async function patientRequest(method, path, body, onwait) {
  for (let tries = 1; ; tries += 1) {
    try {
      return await request(method, path, body);
    } catch (error) {
      if (error.status !== 403) onwait(error);
      if (!(await isWorthAnotherTry(error, tries))) throw error;
    }
  }
}
