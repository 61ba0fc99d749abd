// The place in the page: its path, and the filters in its query.
import { html, useEffect, useState } from './core.js';

const changed = new EventTarget();

function read() {
  const parameters = {};
  for (const [name, value] of new URLSearchParams(location.search)) {
    if (name === 'entity') (parameters.entity ??= []).push(value);
    else parameters[name] = value;
  }
  const parts = location.pathname.split('/').filter(Boolean).map((part) => {
    try {
      return decodeURIComponent(part);
    } catch {
      return part;
    }
  });
  return { path: location.pathname, parts, parameters, hash: location.hash.slice(1) };
}

/// Goes to another place. `replace`: instead of this one in the history.
export function go(url, { replace = false } = {}) {
  history[replace ? 'replaceState' : 'pushState'](null, '', url);
  changed.dispatchEvent(new Event('change'));
}

addEventListener('popstate', () => changed.dispatchEvent(new Event('change')));

/// The place, followed.
export function useRoute() {
  const [route, setRoute] = useState(read);
  useEffect(() => {
    const follow = () => setRoute(read());
    changed.addEventListener('change', follow);
    return () => changed.removeEventListener('change', follow);
  }, []);
  return route;
}

/// A link within the page.
export function Link({ href, children, ...rest }) {
  const onClick = (event) => {
    if (event.defaultPrevented || event.button !== 0) return;
    if (event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
    event.preventDefault();
    go(href);
    scrollTo(0, 0);
  };
  return html`<a href=${href} onClick=${onClick} ...${rest}>${children}</a>`;
}

/// The page of an entity, given as key=value.
export const entityUrl = (entity) => `/entities/${encodeURIComponent(entity)}`;

const KEYS = {
  node: 'host.name', unit: 'systemd.unit', pod: 'k8s.pod.name', container: 'container.id',
  service: 'service.name', workload: 'k8s.deployment.name',
};

/// The page of a possible root cause's entity; `null`: it has none.
export function causeEntityUrl(entity) {
  const key = KEYS[entity?.kind];
  if (!key) return null;
  // The name of a pod has its namespace.
  return entityUrl(`${key}=${entity.kind === 'pod' ? entity.name.split('/').at(-1) : entity.name}`);
}
