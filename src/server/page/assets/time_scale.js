// The axis of a time line: linear in time, but for long gaps, which have one width.

const GAP_WIDTH = 0.06;
const MAX_GAPS = 6;

/// The gaps worth cutting out: longer than half of what is left without them, one for four events
/// and six at most.
function gapsOf(times) {
  const steps = [];
  for (let at = 1; at < times.length; at += 1) steps.push([times[at] - times[at - 1], times[at - 1], times[at]]);
  steps.sort((a, b) => b[0] - a[0]);
  const gaps = [];
  let left = times.length > 1 ? times.at(-1) - times[0] : 0;
  const most = Math.min(MAX_GAPS, Math.floor(times.length / 4));
  for (const [length, from, to] of steps.slice(0, most)) {
    if (length < 1e6 || length < (left - length) * 0.5) break;
    gaps.push({ from, to });
    left -= length;
  }
  return gaps.sort((a, b) => a.from - b.from);
}

/// A scale from times (ns, ascending, relative to the first) to positions from 0 to 1.
export function timeScale(times) {
  const gaps = gapsOf(times);
  const [first, last] = [times[0] ?? 0, times.at(-1) ?? 0];
  const busy = Math.max(1, last - first - gaps.reduce((sum, gap) => sum + gap.to - gap.from, 0));
  const room = 1 - gaps.length * GAP_WIDTH;
  // Pieces: from, to in time; at, width in position.
  const pieces = [];
  let [from, at] = [first, 0];
  for (const gap of [...gaps, { from: last, to: last }]) {
    const width = ((gap.from - from) / busy) * room;
    pieces.push({ from, to: gap.from, at, width, isGap: false });
    at += width;
    if (gap.to > gap.from) {
      pieces.push({ ...gap, at, width: GAP_WIDTH, isGap: true });
      at += GAP_WIDTH;
    }
    from = gap.to;
  }
  const position = (time) => {
    const piece = pieces.find((one) => time <= one.to) ?? pieces.at(-1);
    if (piece.to === piece.from) return piece.at + piece.width / 2;
    return piece.at + ((time - piece.from) / (piece.to - piece.from)) * piece.width;
  };
  return { position, gaps: pieces.filter((piece) => piece.isGap), pieces };
}

/// Times for the marks of an axis: round offsets from the first event, a few in each piece.
export function ticks(scale, view, most = 6) {
  const out = [];
  for (const piece of scale.pieces.filter((one) => !one.isGap && one.to > one.from)) {
    const shown = piece.width / (view.to - view.from);
    const count = Math.max(1, Math.round(most * shown));
    const step = roundStep((piece.to - piece.from) / count);
    for (let time = Math.ceil(piece.from / step) * step; time <= piece.to; time += step) out.push(time);
  }
  return out;
}

function roundStep(length) {
  const base = 10 ** Math.floor(Math.log10(Math.max(1, length)));
  return [1, 2, 5, 10].map((factor) => factor * base).find((step) => step >= length) ?? base * 10;
}
