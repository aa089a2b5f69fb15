// Requests to the server of the editor: patience with a full queue, and progress as it comes.

/** A refusal by the server, with its sentence. */
export class Refused extends Error {
  constructor(status, sentence, seconds) {
    super(sentence);
    this.status = status;
    this.seconds = seconds; // when to come again, if the server says so
  }
}

const POLL_MS = 1000;
const ENDED = ["done", "failed", "cancelled"];

/** Waits; ends at once, with an AbortError, when `signal` aborts. */
function pause(milliseconds, signal) {
  return new Promise((resume, fail) => {
    const timer = setTimeout(resume, milliseconds);
    signal?.addEventListener("abort", () => {
      clearTimeout(timer);
      fail(signal.reason);
    });
  });
}

/** One request. Returns the JSON of the answer, null if it has none. Throws Refused. */
export async function request(method, path, body, signal) {
  let response;
  try {
    response = await fetch(path, {
      method,
      headers: body === undefined ? {} : { "Content-Type": "application/json" },
      body: body === undefined ? undefined : JSON.stringify(body),
      credentials: "same-origin",
      cache: "no-store",
      signal,
    });
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new Refused(0, "the server does not answer");
  }
  if (response.status === 204) return null;
  const said = await response.json().catch(() => ({}));
  if (response.ok) return said;
  const seconds = Number(response.headers.get("Retry-After")) || 0;
  throw new Refused(
    response.status, said.error ?? `the server answers ${response.status}`, seconds);
}

/**
 * Sends a request, again and again while the server is busy, and follows it to its end.
 *
 * `onstate(state)` gets every state, `onwait(sentence, seconds)` tells of a server that is busy.
 * When `signal` aborts, the request is cancelled on the server too. Returns the last state.
 */
export async function submitted(path, body, { onstate, onwait, signal }) {
  let state;
  for (;;) {
    try {
      state = await request("POST", path, body, signal);
      break;
    } catch (error) {
      if (error.status !== 503 || !error.seconds) throw error;
      onwait(error.message, error.seconds);
      await pause(1000 * error.seconds, signal);
    }
  }
  const place = `${path}/${state.id}`;
  onstate(state);
  try {
    return await followed(place, onstate, signal);
  } catch (error) {
    if (signal.aborted) await request("DELETE", place).catch(() => null);
    throw error;
  }
}

/** Events until the last state; if they break off, the state is asked for every second. */
async function followed(place, onstate, signal) {
  const last = await new Promise((resume, fail) => {
    const source = new EventSource(`${place}/events`);
    const end = (finish, value) => {
      source.close();
      finish(value);
    };
    source.onmessage = (event) => {
      const state = JSON.parse(event.data);
      onstate(state);
      if (ENDED.includes(state.state)) end(resume, state);
    };
    source.onerror = () => end(resume, null);
    signal.addEventListener("abort", () => end(fail, signal.reason));
  });
  if (last) return last;
  for (;;) {
    await pause(POLL_MS, signal);
    const state = await request("GET", place, undefined, signal);
    onstate(state);
    if (ENDED.includes(state.state)) return state;
  }
}

/** The bytes of a file or a blob in base64. */
export function base64Of(blob) {
  return new Promise((resume, fail) => {
    const reader = new FileReader();
    reader.onload = () => resume(reader.result.slice(reader.result.indexOf(",") + 1));
    reader.onerror = () => fail(new Error("the file cannot be read"));
    reader.readAsDataURL(blob);
  });
}

/** Exchanges a token for the cookie of a session. Throws Refused if it is wrong. */
export const login = (token) => request("POST", "/api/login", { token });
