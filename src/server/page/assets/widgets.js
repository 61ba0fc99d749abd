// Small parts that several views have in common.
import { html, useEffect, useRef, useState } from './core.js';
import { isRefused, onToken, token } from './api.js';
import { absolute, ago, plain, shortened, stateText, zone } from './text.js';

// A symbol beside each severity: colour alone says nothing to many people.
const SEVERITIES = {
  critical: '✖', error: '▲', warn: '◆', info: '●', debug: '·', trace: '·',
};

/// The class of a severity's colour.
export function severityClass(severity) {
  const name = String(severity ?? 'info').replace(/\d+$/, '');
  if (name === 'fatal') return 'critical';
  return name in SEVERITIES ? name : 'info';
}

/// A severity: symbol, word and colour.
export function Severity({ of }) {
  const name = severityClass(of);
  return html`<span class=${`severity ${name}`}>
    <span aria-hidden="true">${SEVERITIES[name]}</span> ${plain(of)}</span>`;
}

/// The state of a story, with the exact one on hover.
export function State({ of }) {
  const text = stateText(of);
  return html`<span class=${`state ${text}`} title=${text === of ? undefined : plain(of)}>${plain(text)}</span>`;
}

/// A time: relative, with the absolute one on hover and for screen readers.
export function Time({ of }) {
  const exact = `${absolute(of)} ${zone(new Date(of))}`;
  return html`<time dateTime=${of} title=${exact}>${ago(of)}<span class="unseen"> (${exact})</span></time>`;
}

/// A text of an event: plain, and cut where it is long until somebody wants all of it.
export function Text({ of, most = 300 }) {
  const [isWhole, setWhole] = useState(false);
  const text = String(of ?? '');
  if (text.length <= most) return html`<span class="event-text" dir="auto">${plain(text)}</span>`;
  return html`<span class="event-text" dir="auto">
    ${isWhole ? plain(text) : shortened(text, most)}${' '}
    <button type="button" class="small" onClick=${() => setWhole(!isWhole)}>
      ${isWhole ? 'Show less' : `Show all ${text.length.toLocaleString('en-US')} characters`}
    </button></span>`;
}

/// Copies a text to the clipboard, also where the page came without TLS.
export async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const area = document.createElement('textarea');
    area.value = text;
    area.className = 'unseen';
    document.body.append(area);
    area.select();
    document.execCommand('copy');
    area.remove();
  }
}

/// A button that copies a text.
export function CopyButton({ text, label = 'Copy', title }) {
  const [isDone, setDone] = useState(false);
  const onClick = async () => {
    await copy(typeof text === 'function' ? text() : text);
    setDone(true);
    setTimeout(() => setDone(false), 1500);
  };
  return html`<button type="button" class="small" title=${title} onClick=${onClick}>
    <span aria-live="polite">${isDone ? 'Copied' : label}</span></button>`;
}

/// Asks for the token where the server wants one.
function TokenForm({ then }) {
  const onSubmit = (event) => {
    event.preventDefault();
    token.set(new FormData(event.target).get('token').trim());
    then?.();
  };
  return html`<form class="token" onSubmit=${onSubmit}>
    <label>Token <input name="token" type="password" autocomplete="off" required pattern=" *[!-~]+ *" title="letters, digits and signs of ASCII" /></label>
    <button>Use it</button>
    <p>The token stays in this tab until it is closed.</p></form>`;
}

const EXPLANATIONS = {
  0: 'The server can’t be reached.',
  401: 'The server wants to know who you are. Enter a token with the right to read.',
  403: 'Your token or certificate doesn’t have the right to do this.',
  404: 'The server doesn’t have this. It may have been removed by the retention.',
  503: 'The server is busy or stopping. Try again in a moment.',
};

/// An error of a request, in a sentence, with what can be done. `hint`: what else, of this request.
export function Failure({ error, onRetry, hint }) {
  return html`<div class="failure" role="alert">
    <p><strong>${EXPLANATIONS[error.status] ?? plain(error.title ?? 'The request failed.')}</strong></p>
    <p>${error.parameter ? html`<code>${plain(error.parameter)}</code>: ` : ''}${plain(error.message)}</p>
    ${hint && html`<p>${hint}</p>`}
    ${error.status === 401 && html`<${TokenForm} then=${onRetry} />`}
    ${onRetry && error.status !== 401 && html`<button type="button" onClick=${onRetry}>Try again</button>`}
  </div>`;
}

/// The result of requests: `{ value, error, isLoading, reload }`. `load(signal)` is called again when
/// one of `inputs` changes, and with `reload()`.
export function useLoaded(load, inputs) {
  const [state, setState] = useState({ isLoading: true });
  const [turn, setTurn] = useState(0);
  useEffect(() => {
    const abort = new AbortController();
    setState((before) => ({ ...before, isLoading: true }));
    load(abort.signal).then(
      (value) => setState({ value, isLoading: false }),
      (error) => error.name !== 'AbortError'
        && setState((before) => ({ value: before.value, error, isLoading: false })),
    );
    return () => abort.abort();
  }, [...inputs, turn]);
  const reload = () => setTurn((n) => n + 1);
  useEffect(() => (isRefused(state.error) ? onToken(reload) : undefined), [state.error]);
  return { ...state, reload };
}

/// Calls a function when a key is pressed that nothing else takes: `{ j: () => … }`.
export function useKeys(keys) {
  const current = useRef(keys);
  current.current = keys;
  useEffect(() => {
    const onKey = (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
      if (event.target.closest?.('input, textarea, select, [contenteditable], dialog[open]')) return;
      const act = current.current[event.key];
      if (act && act(event) !== false) event.preventDefault();
    };
    addEventListener('keydown', onKey);
    return () => removeEventListener('keydown', onKey);
  }, []);
}

/// Sets the title of the document.
export function useTitle(title) {
  useEffect(() => {
    document.title = title ? `${plain(title)} – tapio` : 'tapio';
  }, [title]);
}

/// The time, which changes every so many milliseconds: relative times stay true.
export function useNow(everyMs = 10_000) {
  const [now, setNow] = useState(Date.now());
  useEffect(() => {
    const timer = setInterval(() => setNow(Date.now()), everyMs);
    return () => clearInterval(timer);
  }, [everyMs]);
  return now;
}
