// The page: its header, and the view of the place in the URL.
import { html, render, useEffect, useRef, useState } from './core.js';
import { get } from './api.js';
import { Agent, Agents } from './agents.js';
import { Entity } from './entity.js';
import { Link, go, useRoute } from './route.js';
import { Rules } from './rules.js';
import { Stories } from './stories.js';
import { Story } from './story.js';
import { useKeys } from './widgets.js';

const THEME = 'tapio.theme';
const VIEWS = [['/stories', 'Stories'], ['/agents', 'Agents'], ['/rules', 'Rules']];
const KEYS = [
  ['j, k', 'the next or previous story'], ['g, G', 'the first or last story'], ['Enter', 'open the story'],
  ['n', 'show new stories'], ['/', 'the first filter'], ['s, a, r', 'stories, agents, rules'],
  ['+, −, 0, ←, →', 'zoom and move the time line, where it has the focus'], ['?', 'this help'],
];

function useTheme() {
  const [theme, setTheme] = useState(localStorage.getItem(THEME) ?? 'system');
  useEffect(() => {
    document.documentElement.dataset.theme = theme;
    localStorage.setItem(THEME, theme);
  }, [theme]);
  return [theme, setTheme];
}

function Help({ dialog }) {
  return html`<dialog ref=${dialog} aria-labelledby="keys"><h2 id="keys">Keys</h2>
    <dl class="details">${KEYS.map(([key, text]) => html`<dt><kbd>${key}</kbd></dt><dd>${text}</dd>`)}</dl>
    <form method="dialog"><button>Close</button></form></dialog>`;
}

function Header({ path, onHelp }) {
  const [theme, setTheme] = useTheme();
  return html`<header class="top"><a class="skip" href="#content">To the content</a>
    <${Link} href="/stories" class="brand">tapio<//>
    <nav aria-label="Views">${VIEWS.map(([href, name]) => html`<${Link} href=${href} key=${href}
      aria-current=${path.startsWith(href) ? 'page' : undefined}>${name}<//>`)}</nav>
    <span class="right">
      <label class="theme"><span class="unseen">Theme</span><select value=${theme} onChange=${(event) => setTheme(event.target.value)}>
        ${['system', 'light', 'dark'].map((name) => html`<option value=${name} selected=${name === theme}>${name}</option>`)}</select></label>
      <button type="button" class="small" onClick=${onHelp} aria-label="Keys">?</button></span></header>`;
}

function View({ route, settings }) {
  const [first, second] = route.parts;
  if (first === 'stories' && second) return html`<${Story} key=${second} id=${second} settings=${settings} />`;
  if (first === 'stories' || first === undefined) return html`<${Stories} parameters=${route.parameters} />`;
  if (first === 'entities' && second) return html`<${Entity} key=${second} entity=${second} />`;
  if (first === 'agents') return second ? html`<${Agent} key=${second} node=${second} />` : html`<${Agents} />`;
  if (first === 'rules') return html`<${Rules} open=${decodeURIComponent(route.hash)} />`;
  return html`<h1>No such page</h1><p><${Link} href="/stories">Stories<//></p>`;
}

function App() {
  const route = useRoute();
  const [settings, setSettings] = useState(null);
  const help = useRef();
  useEffect(() => { get('/page.json').then(setSettings, () => {}); }, []);
  useKeys({
    '?': () => help.current.showModal(),
    '/': () => { const field = document.querySelector('.filters input:not([type=checkbox]), .filters select'); field?.focus(); return Boolean(field); },
    s: () => go('/stories'), a: () => go('/agents'), r: () => go('/rules'),
  });
  return html`<${Header} path=${route.path === '/' ? '/stories' : route.path} onHelp=${() => help.current.showModal()} />
    <main id="content" tabindex="-1"><${View} route=${route} settings=${settings} /></main>
    <footer>tapio ${settings?.version ?? ''}</footer><${Help} dialog=${help} />`;
}

render(html`<${App} />`, document.getElementById('app'));
