// The list of stories: open ones first, the last updated first.
import { html, useEffect, useMemo, useRef, useState } from './core.js';
import { follow, get } from './api.js';
import { Filters, filtersOf } from './filters.js';
import { Link, go } from './route.js';
import { Sparkline, activity } from './sparkline.js';
import { counted, duration, plain } from './text.js';
import { VirtualList, reveal } from './virtual_list.js';
import { Failure, Severity, State, Time, useKeys, useNow, useTitle } from './widgets.js';

const PAGE = 200;
const LIFECYCLE = /-lifecycle$/;

/// What a row shows of a story; the rest isn't kept, for there may be ten thousand.
function summary(story) {
  return {
    id: story.id, name: story.name, state: story.state, severity: story.severity,
    pattern: story.pattern, last: story.last, duration_ns: story.duration_ns,
    total: story.members_total, bins: activity(story), incident: story.incident,
    cause: story.root_causes[0]?.cause, confidence: story.confidence,
    // A story of the stream is that of one node.
    nodes: [...new Set((story.parts ?? []).map((part) => part.node))],
    isAcknowledged: Boolean(story.annotations?.acknowledged), silence: story.silence,
  };
}

const isOpen = (story) => story.state !== 'closed' && story.state !== 'retracted' && story.state !== 'expired';

/// The pages of the list. Open stories come before the others, so these are two lists of the API.
function useStories(parameters) {
  const filters = filtersOf(parameters);
  const key = JSON.stringify([filters, parameters.lifecycles]);
  const [state, setState] = useState({ items: [] });
  const loading = useRef(null);
  const shows = (story) => parameters.lifecycles || filters.pattern || !LIFECYCLE.test(story.pattern);

  const load = async (from, signal) => {
    const [at, token] = from;
    const states = filters.state ? [filters.state] : ['open', 'closed'];
    const lifecycles = parameters.lifecycles || filters.pattern ? undefined : 'false';
    const page = await get('/api/v1/stories', { ...filters, lifecycles, state: states[at], limit: PAGE, page_token: token }, signal);
    const next = page.next_page_token ? [at, page.next_page_token] : [at + 1, undefined];
    return { items: page.items.filter(shows).map(summary), next: next[0] < states.length ? next : null };
  };
  const more = (before) => {
    if (loading.current || before.next === null) return;
    const abort = new AbortController();
    loading.current = abort;
    load(before.next ?? [0, undefined], abort.signal).then(
      ({ items, next }) => {
        loading.current = null;
        setState((now) => {
          const known = new Set(now.items.map((story) => story.id));
          return { items: [...now.items, ...items.filter((story) => !known.has(story.id))], next };
        });
      },
      (error) => {
        loading.current = null;
        if (error.name !== 'AbortError') setState((now) => ({ ...now, error }));
      },
    );
  };
  useEffect(() => {
    const start = { items: [] };
    setState(start);
    more(start);
    return () => {
      loading.current?.abort();
      loading.current = null;
    };
  }, [key]);
  // A page may have nothing that is shown.
  useEffect(() => {
    if (state.items.length < PAGE / 4 && state.next) more(state);
  }, [state]);
  return { key, filters, shows, state, setState, more: () => more(state) };
}

/// New stories since the list was loaded; those that it has are updated where they are.
function useLive({ key, filters, shows, setState }) {
  const [fresh, setFresh] = useState(new Map());
  const [isLive, setLive] = useState(null);
  useEffect(() => {
    setFresh(new Map());
    const { since, until, state, ...parameters } = filters;
    return follow({ ...parameters, types: 'stories' }, {
      onState: setLive,
      onItem: (type, story) => {
        if (type !== 'story' || !shows(story)) return;
        const now = summary(story);
        setState((before) => {
          const at = before.items.findIndex((item) => item.id === story.id);
          if (at < 0) {
            const belongs = !state || (state === 'open') === isOpen(story);
            if (belongs && story.state !== 'retracted') setFresh((all) => new Map(all).set(story.id, now));
            return before;
          }
          const items = before.items.slice();
          items[at] = now;
          return { ...before, items };
        });
      },
    });
  }, [key]);
  const show = () => {
    setState((before) => ({ ...before, items: [...[...fresh.values()].reverse(), ...before.items] }));
    setFresh(new Map());
    scrollTo(0, 0);
  };
  return { fresh: fresh.size, isLive, show };
}

function Row({ story, isSelected }) {
  return html`<${Link} href=${`/stories/${story.id}`} class=${`story-row ${isSelected ? 'selected' : ''}`}>
    <span class="marks"><${Severity} of=${story.severity} /> <${State} of=${story.state} />
      ${story.isAcknowledged && html`<span class="state">acknowledged</span>`}
      ${story.silence && html`<span class="state">silenced</span>`}</span>
    <span class="names"><strong dir="auto">${plain(story.name)}</strong>
      <span class="cause" dir="auto">${story.cause ? `Cause: ${plain(story.cause)}` : 'No cause found'}</span></span>
    <span class="node">${plain(story.nodes.slice(0, 2).join(', '))}${story.nodes.length > 2 ? ` +${story.nodes.length - 2}` : ''}</span>
    <${Sparkline} bins=${story.bins} total=${story.total} />
    <span class="when"><${Time} of=${story.last} /><span class="length">${story.duration_ns > 0 ? `${duration(story.duration_ns)}, ` : ''}${counted(story.total, 'event')}</span></span>
  </${Link}>`;
}

function Empty({ hasFilters }) {
  if (hasFilters) return html`<div class="empty"><h2>No story matches these filters</h2>
    <p>Fewer filters, or a longer time, may show one.</p></div>`;
  return html`<div class="empty"><h2>No stories yet</h2>
    <p>A story begins when events match a rule. To cause three real, harmless faults on a node with an agent, run there:</p>
    <pre><code>tapio demo</code></pre>
    <p>The page <${Link} href="/agents">Agents<//> shows whether agents send events to this server.</p></div>`;
}

/// The view.
export function Stories({ parameters }) {
  useTitle('Stories');
  useNow();
  const list = useStories(parameters);
  const live = useLive(list);
  const { items, error, next } = list.state;
  const [selected, setSelected] = useState(-1);
  const rowPx = useMemo(() => (innerWidth < 700 ? 116 : 64), [innerWidth < 700]);
  const place = useRef();
  const select = (at) => {
    const index = Math.min(items.length - 1, Math.max(0, at));
    setSelected(index);
    reveal(place.current?.querySelector('.virtual'), index, rowPx);
  };
  useKeys({
    j: () => select(selected + 1),
    k: () => select(selected - 1),
    g: () => select(0),
    G: () => select(items.length - 1),
    n: () => live.fresh > 0 && live.show(),
    Enter: (event) => {
      if (selected < 0 || event.target.closest?.('a, button')) return false;
      go(`/stories/${items[selected].id}`);
      return true;
    },
  });
  const isEmpty = items.length === 0 && next === null && !error;
  return html`<h1>Stories</h1>
    <${Filters} path="/stories" parameters=${parameters}>
      <label class="check"><input type="checkbox" name="lifecycles" value="1" checked=${Boolean(parameters.lifecycles)} /> lifecycles of pods and units</label>
    <//>
    <p class="summary" role="status">${items.length === 0 && next === undefined && !error ? 'Loading…' : `${counted(items.length, 'story', 'stories')}${next ? ' so far' : ''}`}
      ${live.isLive === false && html` <span class="state">not live: reconnecting</span>`}</p>
    ${live.fresh > 0 && html`<button type="button" class="banner" onClick=${live.show}>
      ${counted(live.fresh, 'new story', 'new stories')}: show</button>`}
    ${error && html`<${Failure} error=${error} onRetry=${() => { list.setState({ items: [] }); list.more(); }} />`}
    ${isEmpty && html`<${Empty} hasFilters=${Object.keys(list.filters).length > 0} />`}
    <div ref=${place}>
      <${VirtualList} items=${items} rowPx=${rowPx} label="Stories" keyOf=${(story) => story.id} onEnd=${list.more}
        render=${(story, at) => html`<${Row} story=${story} isSelected=${at === selected} />`} />
    </div>`;
}
