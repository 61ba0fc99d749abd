// A list of stored events, page by page.
import { html, useEffect, useRef, useState } from './core.js';
import { get } from './api.js';
import { Link, entityUrl } from './route.js';
import { absolute, counted, digitsOf, plain } from './text.js';
import { VirtualList } from './virtual_list.js';
import { Failure, Severity, Text } from './widgets.js';

const ROW_PX = 40;
const PAGE = 200;

/// The details of an event or a member.
export function EventDetails({ event }) {
  const fields = (map) => Object.entries(map ?? {});
  return html`<dl class="details">
    <dt>Time</dt><dd>${absolute(event.time, digitsOf(event.time))}</dd>
    <dt>Kind</dt><dd>${plain(event.kind)} from ${plain(event.source)}</dd>
    <dt>Severity</dt><dd><${Severity} of=${event.severity} /></dd>
    ${event.role && html`<dt>Role</dt><dd>${plain(event.role)}${event.pattern ? ` (${plain(event.pattern)})` : ''}</dd>`}
    <dt>Message</dt><dd><${Text} of=${event.message ?? event.summary} most=${2000} /></dd>
    ${fields(event.entity).map(([key, value]) => html`<dt>${plain(key)}</dt><dd><${Link} href=${entityUrl(`${key === 'node' ? 'host.name' : key}=${value}`)}>${plain(value)}<//></dd>`)}
    ${fields(event.attributes).map(([key, value]) => html`<dt>${plain(key)}</dt><dd><${Text} of=${typeof value === 'string' ? value : JSON.stringify(value)} /></dd>`)}
    <dt>Id</dt><dd><code>${plain(event.id)}</code></dd></dl>`;
}

/// Events that a path of the API lists, loaded when the list is opened, more near its end.
export function Events({ path, parameters, onShow, revision }) {
  const [state, setState] = useState({ items: [], next: undefined });
  const loading = useRef(false);
  const key = JSON.stringify([path, parameters, revision]);
  const more = (before) => {
    if (loading.current || before.next === null) return;
    loading.current = true;
    get(path, { ...parameters, limit: PAGE, page_token: before.next }).then(
      (page) => setState((now) => ({ items: [...now.items, ...page.items], next: page.next_page_token })),
      (error) => setState((now) => ({ ...now, next: null, error })),
    ).finally(() => { loading.current = false; });
  };
  useEffect(() => {
    const start = { items: [], next: undefined };
    setState(start);
    more(start);
  }, [key]);
  const { items, next, error } = state;
  if (error) return html`<${Failure} error=${error} />`;
  if (items.length === 0) return html`<p>${next === undefined ? 'Loading…' : 'No stored events.'}</p>`;
  return html`<p class="summary">${counted(items.length, 'event')}${next ? ' so far' : ''}, the last received first</p>
    <${VirtualList} items=${items} rowPx=${ROW_PX} label="Events" keyOf=${(event) => event.id} onEnd=${() => more(state)}
      render=${(event) => html`<button type="button" class="event-row" onClick=${() => onShow([event])}>
        <span class="time">${absolute(event.time)}</span><${Severity} of=${event.severity} /><span class="kind">${plain(event.kind)}</span>
        <span class="message" dir="auto">${plain(event.message).slice(0, 200)}</span></button>`} />`;
}
