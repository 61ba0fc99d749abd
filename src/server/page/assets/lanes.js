// The time line of a story: a lane for each source of events on one axis.
import { html, useEffect, useMemo, useRef, useState } from './core.js';
import { timeScale, ticks } from './time_scale.js';
import { absolute, counted, duration, nanoseconds, plain } from './text.js';
import { severityClass } from './widgets.js';

const LANE_PX = 34;
const AXIS_PX = 26;
const LABEL_PX = 92;
// Marks nearer to each other than this are one, with their number.
const MERGE_PX = 9;
const WHOLE = { from: 0, to: 1 };
const MIN_VIEW = 1e-5;

/// By how much a member's time may be wrong, in ns: Kubernetes writes whole seconds.
export function uncertainty(member) {
  return /^k8s/.test(member.source) && !/\.\d/.test(member.time) ? 1e9 : 0;
}

/// Members by source, with their times relative to the first.
function lanesOf(members) {
  const first = members.length > 0 ? nanoseconds(members[0].time) : 0n;
  const lanes = new Map();
  for (const member of members) {
    const lane = lanes.get(member.source) ?? [];
    lane.push({ member, time: Number(nanoseconds(member.time) - first), error: uncertainty(member) });
    lanes.set(member.source, lane);
  }
  return [...lanes].map(([source, items]) => ({ source, items: items.sort((a, b) => a.time - b.time) }));
}

/// Items of a lane as marks on the screen: those next to each other are one.
function marksOf(items, x, isCause) {
  const marks = [];
  for (const item of items) {
    const at = x(item.time);
    const mark = marks.at(-1);
    if (mark && at - mark.x < MERGE_PX) {
      mark.items.push(item);
      if (rank(item.member.severity) > rank(mark.severity)) mark.severity = item.member.severity;
      mark.isCause ||= isCause(item.member);
      mark.error = Math.max(mark.error, item.error);
    } else {
      marks.push({ x: at, items: [item], severity: item.member.severity, isCause: isCause(item.member), error: item.error, time: item.time });
    }
  }
  return marks;
}

const RANKS = { trace: 0, debug: 1, info: 2, warn: 3, error: 4, critical: 5 };
const rank = (severity) => RANKS[severityClass(severity)];

function markTitle({ items }) {
  const [{ member, error }] = items;
  if (items.length > 1) return `${counted(items.length, 'event')} from ${absolute(member.time)}`;
  return `${absolute(member.time, 6)}${error ? ' (up to 1 s later)' : ''} ${member.kind}: ${plain(member.summary).slice(0, 200)}`;
}

// Shapes differ by role, so that colour isn't needed to see the cause.
function Shape({ mark }) {
  const name = severityClass(mark.severity);
  if (mark.items.length > 1) {
    return html`<circle r="8" class=${`mark ${name}`} /><text class="many" text-anchor="middle" dy="3.5">${mark.items.length > 99 ? '99+' : mark.items.length}</text>`;
  }
  if (mark.isCause) return html`<path d="M0 -9L9 0L0 9L-9 0z" class=${`mark ${name}`} />`;
  return html`<circle r="5.5" class=${`mark ${name}`} />`;
}

function Mark({ mark, y, errorPx, isSelected, onSelect }) {
  const onKeyDown = (event) => {
    if (event.key !== 'Enter' && event.key !== ' ') return;
    event.preventDefault();
    onSelect();
  };
  return html`<g transform=${`translate(${mark.x.toFixed(1)} ${y})`} class=${`member ${isSelected ? 'selected' : ''} ${mark.isCause ? 'cause' : ''}`}
      tabindex="0" role="button" aria-pressed=${isSelected} aria-label=${markTitle(mark)} onClick=${onSelect} onKeyDown=${onKeyDown}>
    <title>${markTitle(mark)}</title>
    ${mark.error > 0 && errorPx > 3 && html`<path class="uncertain" d=${`M0 0H${errorPx}M${errorPx} -4v8`} />`}
    <${Shape} mark=${mark} /></g>`;
}

function useWidth() {
  const element = useRef();
  const [width, setWidth] = useState(800);
  useEffect(() => {
    const observer = new ResizeObserver(([entry]) => setWidth(Math.max(240, entry.contentRect.width)));
    observer.observe(element.current);
    return () => observer.disconnect();
  }, []);
  return [element, width];
}

/// Zoom and place of the axis, by wheel, keys, buttons and dragging.
function useView(svg) {
  const [view, setView] = useState(WHOLE);
  const zoom = (factor, at = 0.5) => setView((before) => {
    const length = Math.min(1, Math.max(MIN_VIEW, (before.to - before.from) * factor));
    const fixed = before.from + (before.to - before.from) * at;
    const from = Math.min(1 - length, Math.max(0, fixed - length * at));
    return { from, to: from + length };
  });
  const move = (share) => setView((before) => {
    const length = before.to - before.from;
    const from = Math.min(1 - length, Math.max(0, before.from + length * share));
    return { from, to: from + length };
  });
  useEffect(() => {
    const element = svg.current;
    const onWheel = (event) => {
      if (!event.ctrlKey && !event.shiftKey) return;
      event.preventDefault();
      const box = element.getBoundingClientRect();
      const at = Math.min(1, Math.max(0, (event.clientX - box.left - LABEL_PX) / (box.width - LABEL_PX)));
      zoom(event.deltaY + event.deltaX > 0 ? 1.25 : 0.8, at);
    };
    element.addEventListener('wheel', onWheel, { passive: false });
    return () => element.removeEventListener('wheel', onWheel);
  }, []);
  const drag = useRef(null);
  const pointer = {
    onPointerDown: (event) => { if (event.target === event.currentTarget) drag.current = event.clientX; },
    onPointerMove: (event) => {
      if (drag.current === null || event.buttons === 0) return;
      const box = event.currentTarget.getBoundingClientRect();
      move((drag.current - event.clientX) / (box.width - LABEL_PX));
      drag.current = event.clientX;
    },
    onPointerUp: () => { drag.current = null; },
  };
  const onKeyDown = (event) => {
    const act = {
      '+': () => zoom(0.5), '=': () => zoom(0.5), '-': () => zoom(2), 0: () => setView(WHOLE),
      ArrowLeft: () => move(-0.2), ArrowRight: () => move(0.2),
    }[event.key];
    if (!act || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    act();
  };
  return { view, zoom, reset: () => setView(WHOLE), pointer, onKeyDown };
}

function Axis({ scale, view, x, width, top }) {
  const marks = ticks(scale, view).map((time) => [time, x(time)]).filter(([, at]) => at >= LABEL_PX - 1 && at <= width);
  let lastEnd = -Infinity;
  const spaced = marks.filter(([, at]) => at - lastEnd > 64 && (lastEnd = at) !== null);
  return html`<g class="axis">${spaced.map(([time, at]) => html`
    <path d=${`M${at.toFixed(1)} 0V${top}`} /><text x=${at.toFixed(1)} y=${top + 16} text-anchor="middle">${time === 0 ? '0' : `+${duration(time)}`}</text>`)}</g>`;
}

function Gaps({ scale, place, top }) {
  return scale.gaps.map((gap) => {
    const [from, to] = [place(gap.at), place(gap.at + gap.width)];
    if (to <= LABEL_PX) return null;
    return html`<g class="gap"><title>No events for ${duration(gap.to - gap.from)}; the axis is cut here</title>
      <rect x=${Math.max(LABEL_PX, from)} y="0" width=${Math.max(0, to - Math.max(LABEL_PX, from))} height=${top} />
      ${to - from > 40 && html`<text x=${(from + to) / 2} y="11" text-anchor="middle">${duration(gap.to - gap.from)}</text>`}</g>`;
  });
}

/// `members` in the order of time; `causes`: ids of those that the first root cause rests on.
export function Lanes({ members, causes, selected, onSelect }) {
  const [frame, width] = useWidth();
  const svg = useRef();
  const { view, zoom, reset, pointer, onKeyDown } = useView(svg);
  const lanes = useMemo(() => lanesOf(members), [members]);
  const scale = useMemo(
    () => timeScale(lanes.flatMap((lane) => lane.items.map((item) => item.time)).sort((a, b) => a - b)),
    [lanes],
  );
  const place = (position) => LABEL_PX + 12 + ((position - view.from) / (view.to - view.from)) * (width - LABEL_PX - 28);
  const x = (time) => place(scale.position(time));
  const top = lanes.length * LANE_PX;
  const isCause = (member) => causes.has(member.id) || member.role === 'cause';
  const hasErrors = lanes.some((lane) => lane.items.some((item) => item.error > 0));
  return html`<div class="lanes" ref=${frame}>
    <div class="tools" role="toolbar" aria-label="Time line">
      <button type="button" class="small" onClick=${() => zoom(0.5)} aria-label="Zoom in">+</button>
      <button type="button" class="small" onClick=${() => zoom(2)} aria-label="Zoom out">−</button>
      <button type="button" class="small" onClick=${reset}>Whole story</button>
      <span class="hint">◇ cause, ● event${hasErrors ? ', ─┤ the source’s clock has whole seconds' : ''}. Keys + − 0 ← →; Ctrl and wheel; drag.</span>
    </div>
    <svg ref=${svg} width=${width} height=${top + AXIS_PX} class="time-line" tabindex="0" role="group"
        aria-label=${`Time line of ${counted(members.length, 'event')} from ${counted(lanes.length, 'source')}`}
        onKeyDown=${onKeyDown} ...${pointer}>
      <${Gaps} scale=${scale} place=${place} top=${top} />
      <${Axis} scale=${scale} view=${view} x=${x} width=${width} top=${top} />
      ${lanes.map((lane, at) => {
        const y = at * LANE_PX + LANE_PX / 2;
        const marks = marksOf(lane.items, x, isCause).filter((mark) => mark.x >= LABEL_PX - 4 && mark.x <= width + 4);
        return html`<g class="lane" key=${lane.source}>
          <path class="base" d=${`M${LABEL_PX} ${y}H${width}`} />
          ${marks.map((mark) => html`<${Mark} key=${mark.items[0].member.id} mark=${mark} y=${y}
            errorPx=${mark.error ? Math.abs(x(mark.time + mark.error) - mark.x) : 0}
            isSelected=${mark.items.some(({ member }) => member.id === selected)}
            onSelect=${() => onSelect(mark.items.map(({ member }) => member))} />`)}
          <rect class="label-back" x="0" y=${at * LANE_PX} width=${LABEL_PX - 6} height=${LANE_PX} />
          <text class="label" x="0" y=${y + 4}>${plain(lane.source).slice(0, 14)}</text></g>`;
      })}
    </svg></div>`;
}
