// The number of a story's events over time, as a small picture.
import { html } from './core.js';
import { counted } from './text.js';

const BINS = 24;
const WIDTH = 96;
const HEIGHT = 24;

/// Counts of members in bins of the same length from the first to the last one.
export function activity(story) {
  const times = story.members.map((member) => Date.parse(member.time));
  const [first, last] = [Date.parse(story.first), Date.parse(story.last)];
  const bins = new Array(BINS).fill(0);
  for (const time of times) {
    const share = last > first ? (time - first) / (last - first) : 0;
    bins[Math.min(BINS - 1, Math.max(0, Math.floor(share * BINS)))] += 1;
  }
  return bins;
}

/// A bar for each bin.
export function Sparkline({ bins, total }) {
  const most = Math.max(1, ...bins);
  const step = WIDTH / bins.length;
  const bar = (count) => (count === 0 ? 0 : Math.max(2, (count / most) * HEIGHT));
  const path = bins
    .map((count, at) => [at * step, bar(count)])
    .filter(([, height]) => height > 0)
    .map(([x, height]) => `M${x.toFixed(1)} ${HEIGHT}v-${height.toFixed(1)}h${(step - 1).toFixed(1)}v${height.toFixed(1)}z`)
    .join('');
  return html`<svg class="sparkline" viewBox=${`0 0 ${WIDTH} ${HEIGHT}`} width=${WIDTH} height=${HEIGHT}
    role="img" aria-label=${`${counted(total, 'event')} over time`}><path d=${path} /></svg>`;
}
