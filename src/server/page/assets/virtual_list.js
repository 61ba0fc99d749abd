// A list of any length, of which only what is on the screen is in the document.
import { html, useEffect, useLayoutEffect, useRef, useState } from './core.js';

const MORE = 8;

/// The rows from `first` up to `end` that a window shows of a list.
function visible(top, rowPx, count) {
  const first = Math.max(0, Math.floor(-top / rowPx) - MORE);
  const end = Math.min(count, Math.ceil((innerHeight - top) / rowPx) + MORE);
  return [first, Math.max(first, end)];
}

/// `items`, each `rowPx` high as `render(item, index)` shows it; `onEnd` is called near the end.
/// `label` names the list.
export function VirtualList({ items, rowPx, render, onEnd, label, keyOf }) {
  const list = useRef();
  const [[first, end], setRange] = useState([0, 30]);
  const update = () => {
    if (!list.current) return;
    const next = visible(list.current.getBoundingClientRect().top, rowPx, items.length);
    setRange((before) => (before[0] === next[0] && before[1] === next[1] ? before : next));
    if (onEnd && next[1] >= items.length - MORE) onEnd();
  };
  useLayoutEffect(update, [items.length, rowPx]);
  useEffect(() => {
    let frame = 0;
    const later = () => {
      cancelAnimationFrame(frame);
      frame = requestAnimationFrame(update);
    };
    addEventListener('scroll', later, { passive: true });
    addEventListener('resize', later);
    return () => {
      cancelAnimationFrame(frame);
      removeEventListener('scroll', later);
      removeEventListener('resize', later);
    };
  });
  const rows = items.slice(first, end).map((item, at) => html`
    <li key=${keyOf(item)} class="row" aria-setsize=${items.length} aria-posinset=${first + at + 1}
      style=${{ height: `${rowPx}px`, transform: `translateY(${(first + at) * rowPx}px)` }}>
      ${render(item, first + at)}
    </li>`);
  return html`<ul class="virtual" ref=${list} aria-label=${label}
    style=${{ height: `${items.length * rowPx}px` }}>${rows}</ul>`;
}

/// Scrolls the window so that a row of a list can be seen.
export function reveal(list, index, rowPx) {
  if (!list) return;
  const top = list.getBoundingClientRect().top + index * rowPx;
  const header = 64;
  if (top < header) scrollBy(0, top - header);
  else if (top + rowPx > innerHeight) scrollBy(0, top + rowPx - innerHeight);
}
