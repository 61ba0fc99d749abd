// The list of stories: open ones first, the last updated first.
import { html, useEffect, useMemo, useRef, useState } from './core.js';
import { follow, get, storyPath } from './api.js';
import { causeText } from './export.js';
import { Filters, filtersOf } from './filters.js';
import { Link, go } from './route.js';
import { Sparkline, activity } from './sparkline.js';
import { counted, duration, plain, silenceOf, stateText } from './text.js';
import { VirtualList, reveal } from './virtual_list.js';
import { Failure, Severity, State, Time, useKeys, useNow, useTitle } from './widgets.js';

const PAGE = 200;
const LIFECYCLE = /-lifecycle$/;
const REFRESH_MS = 1000;
/// Stories whose marks are loaded one by one; beyond, all of the list are.
const SINGLE_STORIES = 5;

/// What a row shows of a story; the rest isn't kept, for there may be ten thousand.
function summary(story) {
  return {
    id: story.id, name: story.name, state: story.state, severity: story.severity,
    pattern: story.pattern, last: story.last, duration_ns: story.duration_ns,
    total: story.members_total, bins: activity(story), incident: story.incident,
    // A story of the stream is that of one node.
    nodes: [...new Set((story.parts ?? []).map((part) => part.node))],
    ids: [story.id, ...(story.parts ?? []).map((part) => part.id)],
    ...marksOf(story),
  };
}

/// What operators noted of a story, which the stream's stories don't have.
function marksOf(story) {
  const { annotations, silence } = story;
  return { cause: causeText(story), annotations, silence };
}

const isOpen = (story) => stateText(story.state) === 'open';

/// The pages of the list. Open stories come before the others, so these are two lists of the API.
function useStories(parameters) {
  const filters = filtersOf(parameters);
  const key = JSON.stringify([filters, parameters.lifecycles]);
  const [state, setState] = useState({ items: [] });
  const loading = useRef(null);
  const current = useRef();
  current.current = state;
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
  /// Loads these stories of the list again, all of them where `ids` is null: with what operators noted.
  const renew = async (ids, signal) => {
    const { items } = current.current;
    const [listed, found] = [items.filter((item) => !ids || item.ids.some((id) => ids.has(id))), new Map()];
    if (listed.length <= SINGLE_STORIES) {
      const loaded = listed.map(({ id }) => get(storyPath(id), {}, signal).then((story) => found.set(id, summary(story))));
      await Promise.allSettled(loaded);
    } else {
      for (let from = [0, undefined]; from && listed.some(({ id }) => !found.has(id));) {
        const page = await load(from, signal);
        page.items.forEach((item) => found.set(item.id, item));
        from = page.next;
      }
    }
    if (!signal.aborted) setState((now) => ({ ...now, items: now.items.map((item) => found.get(item.id) ?? item) }));
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
  return { key, filters, shows, state, setState, renew, more: () => more(state) };
}

/// A function that renews stories of a list, some time after it is called with the id of one, or with
/// none for all; and one that ends it.
function renewer(renew) {
  const abort = new AbortController();
  let [ids, timer] = [new Set(), 0];
  const ask = (id) => {
    ids = id ? ids?.add(id) : null;
    timer ||= setTimeout(() => {
      // Where this fails, the stream is lost as well, and all are renewed when it is back.
      renew(ids, abort.signal).catch(() => {});
      [ids, timer] = [new Set(), 0];
    }, REFRESH_MS);
  };
  return [ask, () => { clearTimeout(timer); abort.abort(); }];
}

/// New stories since the list was loaded; those that it has are updated where they are.
function useLive({ key, filters, shows, setState, renew }) {
  const [fresh, setFresh] = useState(new Map());
  const [live, setLive] = useState(null);
  const asked = useRef();
  useEffect(() => {
    setFresh(new Map());
    const { since, until, state, ...parameters } = filters;
    const [ask, endRenewing] = renewer(renew);
    asked.current = ask;
    let wasConnected = false;
    const endFollowing = follow({ ...parameters, types: 'stories,annotations' }, {
      onState: (isConnected, error) => {
        setLive({ isConnected, error });
        // Annotations that were made meanwhile aren't sent again.
        if (isConnected && wasConnected) ask();
        wasConnected ||= isConnected;
      },
      onItem: (type, story) => {
        if (type === 'annotation' || type === 'gap') ask(story.story);
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
          const { annotations, silence, nodes, ids } = items[at];
          items[at] = { ...summary({ ...story, annotations, silence }), nodes, ids };
          return { ...before, items };
        });
      },
    });
    return () => { endFollowing(); endRenewing(); };
  }, [key]);
  const show = () => {
    setState((before) => ({ ...before, items: [...[...fresh.values()].reverse(), ...before.items] }));
    [...fresh.keys()].forEach((id) => asked.current(id));
    setFresh(new Map());
    scrollTo(0, 0);
  };
  return { fresh: fresh.size, live, show };
}

function Row({ story, isSelected }) {
  return html`<${Link} href=${`/stories/${story.id}`} class=${`story-row ${isSelected ? 'selected' : ''}`}>
    <span class="marks"><${Severity} of=${story.severity} /> <${State} of=${story.state} />
      ${story.annotations?.acknowledged && html`<span class="state">acknowledged</span>`}
      ${silenceOf(story) && html`<span class="state">silenced</span>`}</span>
    <span class="names"><strong dir="auto">${plain(story.name)}</strong>
      <span class="cause" dir="auto">${story.cause}</span></span>
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
      ${live.live?.isConnected === false && html` <span class="state">not live: ${live.live.error ? plain(live.live.error.title) : 'reconnecting'}</span>`}</p>
    ${live.fresh > 0 && html`<button type="button" class="banner" onClick=${live.show}>
      ${counted(live.fresh, 'new story', 'new stories')}: show</button>`}
    ${error && html`<${Failure} error=${error} onRetry=${() => { list.setState({ items: [] }); list.more(); }} />`}
    ${isEmpty && html`<${Empty} hasFilters=${Object.keys(list.filters).length > 0} />`}
    <div ref=${place}>
      <${VirtualList} items=${items} rowPx=${rowPx} label="Stories" keyOf=${(story) => story.id} onEnd=${list.more}
        render=${(story, at) => html`<${Row} story=${story} isSelected=${at === selected} />`} />
    </div>`;
}
