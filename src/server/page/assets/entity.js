// One entity: its stories and its events.
import { html, useState } from './core.js';
import { get } from './api.js';
import { EventDetails, Events } from './events.js';
import { causeText } from './export.js';
import { Link } from './route.js';
import { plain } from './text.js';
import { Failure, Severity, State, Time, useLoaded, useTitle } from './widgets.js';

/// The view. `entity`: key=value.
export function Entity({ entity }) {
  useTitle(entity);
  const stories = useLoaded((signal) => get('/api/v1/stories', { entity, limit: 100 }, signal), [entity]);
  const [selected, setSelected] = useState(null);
  const [key, ...value] = entity.split('=');
  return html`<h1 dir="auto">${plain(value.join('='))}</h1><p class="hint">${plain(key)}</p>
    <section aria-labelledby="stories"><h2 id="stories">Stories</h2>
      ${stories.error && html`<${Failure} error=${stories.error} onRetry=${stories.reload} />`}
      ${stories.value?.items.length === 0 && html`<p>No story is about this entity.</p>`}
      ${stories.value?.items.length > 0 && html`<div class="scroll"><table><caption class="unseen">Stories about this entity</caption>
        <thead><tr><th scope="col">Severity</th><th scope="col">State</th><th scope="col">Story</th><th scope="col">Cause</th><th scope="col">Last event</th></tr></thead>
        <tbody>${stories.value.items.map((story) => html`<tr key=${story.id}><td><${Severity} of=${story.severity} /></td><td><${State} of=${story.state} /></td>
          <th scope="row"><${Link} href=${`/stories/${story.id}`}>${plain(story.name)}<//></th><td dir="auto">${causeText(story)}</td><td><${Time} of=${story.last} /></td></tr>`)}</tbody></table></div>`}</section>
    <section aria-labelledby="events"><h2 id="events">Events</h2>
      ${selected && html`<aside class="selection" aria-label="Selected event"><p class="tools"><button type="button" class="small" onClick=${() => setSelected(null)}>Close</button></p>
        <${EventDetails} event=${selected[0]} /></aside>`}
      <${Events} path="/api/v1/events" parameters=${{ entity }} onShow=${setSelected} /></section>`;
}
