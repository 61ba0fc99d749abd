// One story: the cause, what to do, what is affected, the time line, the evidence.
import { html, useEffect, useLayoutEffect, useMemo, useRef, useState } from './core.js';
import { follow, get, storyPath } from './api.js';
import { Evidence } from './evidence.js';
import { EventDetails, Events } from './events.js';
import { extent, markdown, perfetto, save, sentence } from './export.js';
import { Graph } from './graph.js';
import { Lanes } from './lanes.js';
import { Marks } from './marks.js';
import { Link } from './route.js';
import { absolute, counted, duration, line, percent, plain, stateText, zone } from './text.js';
import { useWholeStory } from './whole_story.js';
import { CopyButton, Failure, Severity, State, Text, Time, useLoaded, useNow, useTitle } from './widgets.js';

const RELOAD_MS = 1000;

/// The story, which follows its updates.
function useStory(id) {
  const loaded = useLoaded((signal) => get(storyPath(id), {}, signal), [id]);
  const story = useRef();
  story.current = loaded.value;
  const traceId = loaded.value?.trace_id;
  useEffect(() => {
    if (!traceId) return undefined;
    let [timer, wasConnected] = [0, false];
    const reload = () => {
      clearTimeout(timer);
      timer = setTimeout(loaded.reload, RELOAD_MS);
    };
    const isOfOther = (type, { story: of }) => type === 'annotation' && of
      && story.current.id !== of && !story.current.parts.some((part) => part.id === of);
    const end = follow({ trace_id: traceId, types: 'stories,annotations' }, {
      onItem: (type, item) => isOfOther(type, item) || reload(),
      // Annotations that were made meanwhile aren't sent again.
      onState: (isConnected) => {
        if (isConnected && wasConnected) reload();
        wasConnected ||= isConnected;
      },
    });
    return () => { clearTimeout(timer); end(); };
  }, [traceId]);
  return loaded;
}

function Header({ story, settings, onError }) {
  const trace = settings?.trace_url?.replace('{trace_id}', story.trace_id);
  return html`<header class="story-head">
    <p class="crumbs"><${Link} href="/stories">Stories<//></p>
    <h1 dir="auto">${plain(story.name)}</h1>
    <p class="lead" dir="auto">${sentence(story)}</p>
    <p class="facts"><${Severity} of=${story.severity} /> <${State} of=${story.state} />
      <span>${absolute(story.first)} ${zone(new Date(story.first))}</span> ${story.duration_ns > 0 && html`<span>lasted ${duration(story.duration_ns)}</span>`}
      <span>${extent(story)}</span> <span>last event <${Time} of=${story.last} /></span>
      <span>rule <${Link} href=${`/rules#${encodeURIComponent(story.rule)}`}>${plain(story.rule)}<//></span></p>
    <p class="tools">
      <${CopyButton} label="Copy as Markdown" text=${() => markdown(story, location.href)} />
      <${CopyButton} label="Copy trace id" text=${story.trace_id} title=${story.trace_id} />
      ${trace && html`<a class="button small" href=${trace} rel="noreferrer noopener" target="_blank">Open the trace</a>`}
      <button type="button" class="small" title="Opens in ui.perfetto.dev"
        onClick=${() => save(`story-${story.id}.json`, perfetto(story), 'application/json')}>Save for Perfetto</button>
    </p></header>`;
}

function Actions({ story }) {
  if (story.actions.length === 0) return null;
  return html`<section class="panel" aria-labelledby="actions"><h2 id="actions">What to do</h2>
    <ol class="actions">${story.actions.map((action) => html`<li key=${action}><span dir="auto">${line(action)}</span>
      <${CopyButton} text=${line(action)} /></li>`)}</ol></section>`;
}

function Impact({ story, explanation }) {
  const { business, customer_facing: customers, slo_impact: slo, affected } = story.impact;
  const facts = explanation?.impact?.evidence ?? story.impact.evidence ?? [];
  return html`<section class="panel" aria-labelledby="impact"><h2 id="impact">Impact</h2>
    <p>Business impact <span class="score">${percent(business)}</span>. ${customers ? 'Customers notice it. ' : ''}${slo ? 'Service level objectives are at risk.' : ''}</p>
    ${affected.length > 0 ? html`<ul class="affected">${affected.slice(0, 30).map((entity) => html`<li key=${entity} dir="auto">${plain(entity)}</li>`)}
      ${affected.length > 30 && html`<li>and ${affected.length - 30} more</li>`}</ul>` : html`<p>Nothing else is known to be affected.</p>`}
    ${facts.length > 0 && html`<p class="hint">By: ${plain(facts.join('; '))}.</p>`}</section>`;
}

/// The details of one or several selected members.
function Selection({ members, onClose }) {
  const [at, setAt] = useState(0);
  const panel = useRef();
  useLayoutEffect(() => { setAt(0); panel.current?.focus({ preventScroll: true }); }, [members]);
  const member = members[Math.min(at, members.length - 1)];
  const step = (by) => setAt((at + by + members.length) % members.length);
  return html`<aside class="selection" aria-label="Selected event" tabindex="-1" ref=${panel}
      onKeyDown=${(event) => event.key === 'Escape' && onClose()}>
    <p class="tools">${members.length > 1 && html`
      <button type="button" class="small" onClick=${() => step(-1)}>Previous</button> ${at + 1} of ${members.length}
      ${' '}<button type="button" class="small" onClick=${() => step(1)}>Next</button>`}
      <button type="button" class="small" onClick=${onClose}>Close</button></p>
    <${EventDetails} event=${member} /></aside>`;
}

function Related({ story }) {
  const links = story.links ?? [];
  const incident = story.incident;
  const parts = story.parts.length > 1 ? story.parts : [];
  if (links.length === 0 && !incident && parts.length === 0 && !story.continues) return null;
  return html`<section aria-labelledby="related"><h2 id="related">Related</h2><ul>
    ${incident && html`<li>Part of an incident (${incident.role}): <${Link} href=${`/stories/${incident.id}`}>its first story<//>; <${Text} of=${incident.because} /></li>`}
    ${story.continues && html`<li>Continues <${Link} href=${`/stories/${story.continues}`}>an earlier story<//></li>`}
    ${links.map((link) => html`<li key=${link.id}><${Link} href=${`/stories/${link.id}`}>${plain(link.name)}<//>: ${counted(link.shared, 'event')} in common</li>`)}
    ${parts.map((part) => html`<li key=${part.id}>On node ${plain(part.node)}: ${counted(part.members_total, 'event')}, ${stateText(part.state)}</li>`)}</ul></section>`;
}

function MemberTable({ members, onShow }) {
  const [shown, setShown] = useState(50);
  return html`<div class="scroll"><table class="members"><caption class="unseen">Events of the story, in the order of time</caption>
    <thead><tr><th scope="col">Time</th><th scope="col">Source</th><th scope="col">Severity</th><th scope="col">Role</th><th scope="col">Event</th></tr></thead>
    <tbody>${members.slice(0, shown).map((member) => html`<tr key=${member.id}>
      <td class="time"><button type="button" class="quiet" onClick=${() => onShow([member])}>${absolute(member.time)}</button></td>
      <td>${plain(member.source)}</td><td><${Severity} of=${member.severity} /></td><td>${plain(member.role)}</td><td><${Text} of=${member.summary} most=${240} /></td></tr>`)}</tbody></table></div>
    ${shown < members.length && html`<button type="button" onClick=${() => setShown(shown + 200)}>Show more of ${counted(members.length, 'event')}</button>`}`;
}

function Loaded({ story, settings, reload }) {
  const explained = useLoaded((signal) => get(storyPath(story.id, '/explain'), {}, signal), [story.id, story.revision, story.state]);
  const graph = useLoaded((signal) => get(storyPath(story.id, '/graph'), {}, signal), [story.id, story.revision, story.state]);
  const [selected, setSelected] = useState(null);
  const [isRaw, setRaw] = useState(false);
  const { members, notice } = useWholeStory(story);
  const causes = useMemo(() => new Set(story.root_causes[0]?.evidence ?? []), [story.id, story.revision]);
  // The explanation names members by their ids in bytes, the story as they came.
  const byEvidence = useMemo(() => {
    const all = new Map();
    explained.value?.candidates.forEach((candidate) => candidate.evidence.forEach((id, at) => {
      const cause = story.root_causes.find((one) => one.cause === candidate.cause);
      const member = members.find((one) => one.id === (cause?.evidence[at] ?? id));
      if (member) all.set(id, member);
    }));
    return all;
  }, [explained.value, members]);
  return html`<${Header} story=${story} settings=${settings} />
    <div class="columns"><${Actions} story=${story} /><${Impact} story=${story} explanation=${explained.value} /></div>
    <section aria-labelledby="time-line"><h2 id="time-line">Time line</h2>${notice}
      <${Lanes} members=${members} causes=${causes} selected=${selected?.[0]?.id} onSelect=${setSelected} />
      ${selected && html`<${Selection} members=${selected} onClose=${() => setSelected(null)} />`}
      <details><summary>The same as a table</summary><${MemberTable} members=${members} onShow=${setSelected} /></details></section>
    <section aria-labelledby="evidence"><h2 id="evidence">Evidence for the cause</h2>
      ${explained.error && html`<${Failure} error=${explained.error} onRetry=${explained.reload} />`}
      ${explained.value && html`<${Evidence} explanation=${explained.value} memberOf=${(id) => byEvidence.get(id)} onShow=${(member) => setSelected([member])} />`}</section>
    <section aria-labelledby="entities"><h2 id="entities">Entities</h2>
      ${graph.error && html`<${Failure} error=${graph.error} onRetry=${graph.reload} />`}
      ${graph.value && html`<${Graph} graph=${graph.value} />`}</section>
    <${Related} story=${story} />
    <${Marks} story=${story} onChange=${reload} />
    <section aria-labelledby="raw"><h2 id="raw">Stored events of the trace</h2>
      ${isRaw ? html`<${Events} path=${storyPath(story.id, '/events')} parameters=${{}} revision=${story.revision} onShow=${setSelected} />`
        : html`<button type="button" onClick=${() => setRaw(true)}>Load them</button>`}</section>`;
}

/// The view.
export function Story({ id, settings }) {
  useNow();
  const { value: story, error, reload } = useStory(id);
  useTitle(story?.name ?? 'Story');
  if (error && !story) return html`<${Failure} error=${error} onRetry=${reload} />`;
  if (!story || (story.id !== id && !story.parts.some((part) => part.id === id) && story.provisional !== id)) return html`<p role="status">Loading…</p>`;
  return html`${error && html`<${Failure} error=${error} onRetry=${reload} />`}<${Loaded} story=${story} settings=${settings} reload=${reload} />`;
}
