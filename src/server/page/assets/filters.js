// The filters of lists. Their state is the query of the URL, with the names of the API.
import { html } from './core.js';
import { go } from './route.js';
import { query } from './api.js';

/// The names of the filters that a URL may have.
export const FILTERS = [
  'state', 'severity', 'node', 'pattern', 'entity', 'kind', 'text', 'trace_id', 'since', 'until',
];

/// The filters among a URL's parameters.
export function filtersOf(parameters) {
  return Object.fromEntries(Object.entries(parameters).filter(([name]) => FILTERS.includes(name)));
}

// A field begins with its value of the URL, and is the reader's from then on: the view is rendered
// again whenever a story arrives.
function Choice({ name, label, value, options }) {
  return html`<label>${label}
    <select name=${name} key=${value}>
      ${options.map(([of, text]) => html`<option value=${of} selected=${of === (value ?? '')}>${text}</option>`)}
    </select></label>`;
}

function Input({ name, label, value, placeholder, list }) {
  return html`<label>${label}
    <input name=${name} key=${value} defaultValue=${value ?? ''} placeholder=${placeholder} list=${list}
      autocomplete="off" spellcheck=${false} maxlength="256" /></label>`;
}

/// A time as the filter has it: a duration before now, or a time in the browser's zone.
function timeOf(text) {
  const local = /^\d{4}-\d\d-\d\d([ T]\d\d:\d\d(:\d\d)?)?$/.test(text);
  const date = local ? new Date(text.replace(' ', 'T') + (text.length === 10 ? 'T00:00' : '')) : null;
  return date && !Number.isNaN(date.getTime()) ? date.toISOString() : text;
}

/// The form. `path`: where it leads to; `only`: the names of its fields.
export function Filters({ path, parameters, children }) {
  const onSubmit = (event) => {
    event.preventDefault();
    const next = {};
    for (const [name, value] of new FormData(event.target)) {
      const text = value.trim();
      if (!text) continue;
      if (name === 'entity') next.entity = text.split(/\s+/);
      else next[name] = name === 'since' || name === 'until' ? timeOf(text) : text;
    }
    go(path + query(next));
  };
  const value = (name) => parameters[name];
  return html`<form class="filters" role="search" onSubmit=${onSubmit}
      onChange=${(event) => event.target.matches('select, [type=checkbox]') && event.currentTarget.requestSubmit()}>
    <${Choice} name="state" label="State" value=${value('state')}
      options=${[['', 'open and closed'], ['open', 'open'], ['closed', 'closed'], ['retracted', 'retracted']]} />
    <${Choice} name="severity" label="Severity" value=${value('severity')}
      options=${[['', 'any'], ['warn', 'warning and above'], ['error', 'error and above'], ['critical', 'critical']]} />
    <${Choice} name="since" label="Since" value=${value('since')}
      options=${[['', 'the beginning'], ['15m', '15 minutes ago'], ['1h', '1 hour ago'], ['6h', '6 hours ago'], ['24h', '1 day ago'], ['7d', '7 days ago'],
        ...(value('since') && !['15m', '1h', '6h', '24h', '7d'].includes(value('since')) ? [[value('since'), value('since')]] : [])]} />
    <${Input} name="node" label="Node" value=${value('node')} />
    <${Input} name="pattern" label="Pattern" value=${value('pattern')} placeholder="oom-kill" />
    <${Input} name="entity" label="Entity" value=${(value('entity') ?? []).join(' ')} placeholder="systemd.unit=nginx.service" />
    <${Input} name="text" label="Text" value=${value('text')} placeholder="part of a name or a message" />
    ${children}
    <button>Filter</button>
    ${Object.keys(filtersOf(parameters)).length > 0
      && html`<button type="button" class="quiet" onClick=${() => go(path)}>Clear</button>`}
  </form>`;
}
