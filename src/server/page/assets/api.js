// The server's API: requests, errors, and the stream of what is stored.

const TOKEN = 'tapio.token';
const FIRST_PAUSE_MS = 500;
const MAX_PAUSE_MS = 15_000;
/// A change without an answer for so long has failed.
const SEND_TIMEOUT_MS = 30_000;

/// An error of a request. `status` 0: the server can't be reached.
export class ApiError extends Error {
  constructor(status, title, detail, parameter) {
    super(detail || title);
    Object.assign(this, { status, title, parameter });
  }
}

const tokenChanges = new EventTarget();

/// The token that requests have, kept until the tab is closed.
export const token = {
  get: () => sessionStorage.getItem(TOKEN) ?? '',
  set: (value) => {
    if (value) sessionStorage.setItem(TOKEN, value);
    else sessionStorage.removeItem(TOKEN);
    tokenChanges.dispatchEvent(new Event('change'));
  },
};

/// Whether a request was refused for want of a right, which another token may have.
export const isRefused = (error) => error instanceof ApiError && [401, 403].includes(error.status);

/// Calls a function when another token is entered. Returns a function that ends it.
export function onToken(act) {
  tokenChanges.addEventListener('change', act);
  return () => tokenChanges.removeEventListener('change', act);
}

/// Waits for another token than `used`.
function otherToken(used, signal) {
  if (token.get() !== used) return Promise.resolve();
  return new Promise((resolve) => {
    tokenChanges.addEventListener('change', resolve, { once: true, signal });
    signal.addEventListener('abort', resolve, { once: true });
  });
}

function headers(more = {}) {
  const value = token.get();
  return value ? { ...more, Authorization: `Bearer ${value}` } : more;
}

/// A query string of the parameters that have a value.
export function query(parameters) {
  const all = new URLSearchParams();
  for (const [name, value] of Object.entries(parameters ?? {})) {
    for (const one of Array.isArray(value) ? value : [value]) {
      if (one !== undefined && one !== null && one !== '') all.append(name, one);
    }
  }
  const text = all.toString();
  return text ? `?${text}` : '';
}

async function request(method, path, { parameters, body, signal } = {}) {
  let response;
  try {
    response = await fetch(path + query(parameters), {
      method,
      signal,
      headers: headers(body === undefined ? {} : { 'Content-Type': 'application/json' }),
      body: body === undefined ? undefined : JSON.stringify(body),
    });
  } catch (error) {
    if (error.name === 'AbortError') throw error;
    throw new ApiError(0, 'The server can’t be reached.', String(error.message ?? error));
  }
  if (!response.ok) throw await problem(response);
  return response.status === 204 ? null : response.json();
}

async function problem(response) {
  let document = {};
  try {
    document = await response.json();
  } catch {
    // A proxy's error page, for example.
  }
  const title = document.title ?? response.statusText;
  return new ApiError(response.status, title, document.detail, document.parameter);
}

/// Requests a document.
export const get = (path, parameters, signal) => request('GET', path, { parameters, signal });

/// Changes something.
export const send = (method, path, body = {}) => request(method, path, { body, signal: AbortSignal.timeout(SEND_TIMEOUT_MS) });

/// The path of a story.
export const storyPath = (id, below = '') => `/api/v1/stories/${encodeURIComponent(id)}${below}`;

/// Follows what is stored: calls `onItem(type, item)` for each message and
/// `onState(isConnected, error)`. Goes on after a lost connection where it was, and after a refusal
/// once another token is entered. Returns a function that ends it.
export function follow(parameters, { onItem, onState }) {
  const abort = new AbortController();
  let [lastId, pauseMs] = ['', FIRST_PAUSE_MS];
  const read = async () => {
    const more = { Accept: 'text/event-stream', ...(lastId && { 'Last-Event-ID': lastId }) };
    const response = await fetch(`/api/v1/stream${query(parameters)}`, {
      headers: headers(more), signal: abort.signal,
    });
    if (!response.ok) throw await problem(response);
    onState?.(true);
    pauseMs = FIRST_PAUSE_MS;
    await readMessages(response.body, (message) => {
      if (message.id) lastId = message.id;
      if (!message.data) return;
      try {
        onItem(message.event, JSON.parse(message.data));
      } catch (error) {
        // A defect of the page, not of the connection.
        reportError(error);
      }
    });
  };
  (async () => {
    while (!abort.signal.aborted) {
      const used = token.get();
      try {
        await read();
      } catch (error) {
        if (abort.signal.aborted) return;
        if (error instanceof ApiError && error.status >= 400 && error.status < 500) {
          onState?.(false, error);
          if (!isRefused(error)) return;
          await otherToken(used, abort.signal);
          continue;
        }
      }
      onState?.(false);
      await new Promise((resolve) => setTimeout(resolve, pauseMs * (0.5 + Math.random())));
      pauseMs = Math.min(pauseMs * 2, MAX_PAUSE_MS);
    }
  })();
  return () => abort.abort();
}

/// Splits a stream of server-sent events into messages.
async function readMessages(body, each) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = '';
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    rest += value;
    for (let end = rest.indexOf('\n\n'); end >= 0; end = rest.indexOf('\n\n')) {
      each(parseMessage(rest.slice(0, end)));
      rest = rest.slice(end + 2);
    }
  }
}

function parseMessage(text) {
  const message = { event: 'message', data: '', id: '' };
  for (const line of text.split('\n')) {
    const colon = line.indexOf(':');
    if (colon <= 0) continue;
    const [name, value] = [line.slice(0, colon), line.slice(colon + 1).replace(/^ /, '')];
    if (name === 'data') message.data += (message.data ? '\n' : '') + value;
    else if (name in message) message[name] = value;
  }
  return message;
}
