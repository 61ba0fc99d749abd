// The rules in words, with how many stories each has made.
import { html, useEffect, useState } from './core.js';
import { get } from './api.js';
import { Link } from './route.js';
import { count, counted, plain } from './text.js';
import { Failure, Time, useLoaded, useTitle } from './widgets.js';

function Rule({ rule, isOpen }) {
  return html`<details class="rule" id=${`rule-${rule.name}`} open=${isOpen}>
    <summary><strong>${plain(rule.name)}</strong> <span class="hint">${plain(rule.description ?? '')}</span>
      <span class="number">${rule.stories > 0 ? counted(rule.stories, 'story', 'stories') : ''}</span></summary>
    ${rule.text ? html`<pre>${plain(rule.text)}</pre>` : html`<p>This server doesn’t have the rule’s text: it is one of an agent’s own rules.</p>`}
    <p>${rule.tests !== null && html`${counted(rule.tests, 'test')}. `}${rule.stories > 0
      ? html`<${Link} href=${`/stories?pattern=${encodeURIComponent(rule.pattern)}`}>Stories of this pattern<//>, the last one <${Time} of=${rule.last_story} />.`
      : 'No stored story.'}</p></details>`;
}

/// The view. `open`: the name of the rule to show.
export function Rules({ open }) {
  useTitle('Rules');
  const { value, error, reload } = useLoaded((signal) => get('/api/v1/rules', {}, signal), []);
  const [text, setText] = useState('');
  useEffect(() => {
    if (value && open) document.getElementById(`rule-${open}`)?.scrollIntoView();
  }, [value, open]);
  const matches = (rule) => `${rule.name} ${rule.pattern} ${rule.description ?? ''}`.toLowerCase().includes(text.toLowerCase());
  const rules = (value?.items ?? []).filter(matches);
  return html`<h1>Rules</h1>
    <form class="filters" role="search" onSubmit=${(event) => event.preventDefault()}>
      <label>Text <input value=${text} onInput=${(event) => setText(event.target.value)} placeholder="part of a name or a description" /></label></form>
    ${error && html`<${Failure} error=${error} onRetry=${reload} />`}
    ${value && html`<p class="summary" role="status">${counted(rules.length, 'rule')} of ${count(value.items.length)}. Agents may have others; <code>tapio rules list</code> shows those of a node.</p>`}
    ${rules.map((rule) => html`<${Rule} key=${rule.name} rule=${rule} isOpen=${rule.name === open} />`)}`;
}
