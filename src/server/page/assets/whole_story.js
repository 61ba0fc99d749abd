// All events of a story: it keeps the first and the latest of them, the server has the others.
import { html, useEffect, useMemo, useRef, useState } from './core.js';
import { get, storyPath } from './api.js';
import { byTime, counted } from './text.js';

const PAGE = 1000;
/// Events on a time line at most.
const MOST = 20_000;
const NOTHING = { events: [], state: 'idle' };

/// The stored events of a story's trace, once `load` is called, `PAGE` at a time.
function useStoredEvents(id) {
  const [stored, setStored] = useState(NOTHING);
  const abort = useRef();
  const stop = () => abort.current?.abort();
  useEffect(() => {
    setStored(NOTHING);
    return stop;
  }, [id]);
  const load = async () => {
    stop();
    const { signal } = (abort.current = new AbortController());
    let [events, token] = [[], undefined];
    try {
      do {
        setStored({ events, state: 'loading' });
        const page = await get(storyPath(id, '/events'), { limit: Math.min(PAGE, MOST - events.length), page_token: token }, signal);
        events = [...events, ...page.items];
        token = page.next_page_token;
      } while (token && events.length < MOST);
      setStored({ events, state: token ? 'cut' : 'all' });
    } catch (error) {
      if (!signal.aborted) setStored({ events, state: 'failed', error });
    }
  };
  const end = () => {
    stop();
    setStored((before) => ({ ...before, state: 'stopped' }));
  };
  return { ...stored, load, end };
}

/// The members of a story in the order of time, with the stored events that it doesn't keep once they
/// are loaded; and `notice`, which says so and loads them.
export function useWholeStory(story) {
  const { events, state, error, load, end } = useStoredEvents(story.id);
  const members = useMemo(() => {
    const all = new Map(events.map((event) => [event.id, { ...event, role: '', summary: event.message }]));
    story.members.forEach((member) => all.set(member.id, { ...all.get(member.id), ...member }));
    return byTime([...all.values()]);
  }, [story.id, story.revision, story.members.length, events]);
  if (story.members_total <= story.members.length) return { members, notice: null };
  const shown = counted(members.length, 'event');
  const text = {
    idle: `It shows ${shown} of ${counted(story.members_total, 'event')}: the first and the latest.`,
    loading: `Loading the stored events of its trace: ${events.length.toLocaleString()} so far.`,
    stopped: `It shows ${shown} of ${counted(story.members_total, 'event')}.`,
    cut: `It shows the latest ${shown} of its trace; there are more.`,
    all: `It shows ${shown}: all that the server has of its trace.`,
    failed: `It shows ${shown}; the others can't be loaded: ${error?.message ?? ''}`,
  }[state];
  const button = state === 'loading' ? html`<button type="button" class="small" onClick=${end}>Stop</button>`
    : html`<button type="button" class="small" onClick=${load}>${state === 'all' || state === 'cut' ? 'Load again' : 'Show all events'}</button>`;
  return { members, notice: html`<p class="hint whole-story" role="status">${text} ${button}</p>` };
}
