// A story for other programs: Markdown for a ticket, Perfetto's trace events.
import { absolute, counted, digitsOf, duration, nanoseconds, percent, plain, silenceOf, stateText, zone } from './text.js';

// A text within Markdown: nothing in it makes a link, a picture or a heading.
const escaped = (text) => plain(text).replace(/[\\`*_{}[\]<>#|!~]/g, '\\$&').replace(/\n/g, ' ');

/// What operators marked about a story's first cause: `{ cause, real, isWrong, by }`; `null`: nothing.
function causeMark(story) {
  const { wrong_cause: wrong, right_cause: right } = story.annotations ?? {};
  const mark = wrong ?? right;
  if (!mark) return null;
  // The first cause may be another one by now.
  const cause = mark.first_cause ?? story.root_causes[0]?.cause ?? '';
  return { cause, real: wrong?.cause, isWrong: Boolean(wrong), by: mark.by || 'an operator' };
}

/// The sentences at the head of a story: its cause, and what operators marked.
export function sentence(story) {
  const first = story.root_causes[0];
  const mark = causeMark(story);
  const confidence = `(confidence ${percent(story.confidence)})`;
  const said = [];
  if (mark?.isWrong) {
    if (mark.real) said.push(`Cause, by ${mark.by}: ${mark.real}.`);
    said.push(`Marked as wrong${mark.real ? '' : ` by ${mark.by}`}: ${mark.cause}${mark.cause === first?.cause ? ` ${confidence}` : ''}.`);
  } else if (mark) {
    said.push(`Cause, marked as right by ${mark.by}: ${mark.cause}${mark.cause === first?.cause ? ` ${confidence}` : ''}.`);
  }
  if (!mark || (first && mark.cause !== first.cause)) {
    said.push(first ? `Most likely cause: ${first.cause} ${confidence}.` : 'No cause was found.');
  }
  return plain(said.join(' '));
}

/// The cause of a story in a list.
export function causeText(story) {
  const mark = causeMark(story);
  const first = story.root_causes[0]?.cause;
  if (mark?.real) return `Cause, by ${plain(mark.by)}: ${plain(mark.real)}`;
  if (mark?.isWrong && mark.cause === (first ?? '')) return `Marked as wrong: ${plain(mark.cause)}`;
  return first ? `Cause: ${plain(first)}` : 'No cause found';
}

/// The marks of a story and its silence, as lines of text.
function markLines(story) {
  const { acknowledged, wrong_cause: wrong, right_cause: right, notes = [] } = story.annotations ?? {};
  const silence = silenceOf(story);
  const text = (label, { time, by }, of) => `${absolute(time, 0)} ${label}${by ? ` by ${by}` : ''}${of ? `: ${of}` : ''}`;
  return [
    acknowledged && text('acknowledged', acknowledged),
    wrong && text('wrong cause', wrong, wrong.cause),
    right && text('right cause', right),
    ...notes.map((note) => text('note', note, note.text)),
    silence && `silenced until ${absolute(silence.until, 0)}${silence.by ? ` by ${silence.by}` : ''}${silence.reason ? `: ${silence.reason}` : ''}`,
  ].filter(Boolean);
}

/// The story as Markdown.
export function markdown(story, url) {
  const lines = [`## ${escaped(story.name)}`, '', escaped(sentence(story)), ''];
  lines.push(`- severity: ${story.severity}, state: ${stateText(story.state)}`);
  lines.push(`- from ${absolute(story.first)} to ${absolute(story.last)} (${zone(new Date(story.first))}), ${duration(story.duration_ns)}`);
  lines.push(`- trace: ${story.trace_id}`, `- ${url}`, '');
  const section = (title, items) => items.length > 0 && lines.push(`### ${title}`, '', ...items, '');
  section('Actions', story.actions.map((action, at) => `${at + 1}. ${escaped(action)}`));
  section('Affected', story.impact.affected.map((entity) => `- ${escaped(entity)}`));
  section('Marks', markLines(story).map((mark) => `- ${escaped(mark)}`));
  const shown = story.members.slice(0, 50);
  const digits = Math.min(6, Math.max(0, ...shown.map((member) => digitsOf(member.time))));
  const members = shown.map(
    (member) => `| ${absolute(member.time, digits)} | ${escaped(member.source)} | ${escaped(member.kind)} | ${escaped(member.role)} | ${escaped(member.summary).slice(0, 300)} |`,
  );
  section(`Events${story.members_total > members.length ? ` (first ${members.length} of ${story.members_total})` : ''}`,
    members.length > 0 ? ['| time | source | kind | role | event |', '| --- | --- | --- | --- | --- |', ...members] : []);
  return lines.join('\n');
}

/// The story in the Trace Event Format, which Perfetto's page opens: a track for each source.
/// https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU
export function perfetto(story) {
  const sources = [...new Set(story.members.map((member) => member.source))];
  const microseconds = (time) => Number(nanoseconds(time) / 1000n);
  const track = (source) => sources.indexOf(source) + 1;
  const name = (tid, text, kind) => ({ ph: 'M', pid: 1, tid, name: kind, args: { name: text } });
  return JSON.stringify({
    traceEvents: [
      name(0, `tapio: ${story.name}`, 'process_name'),
      ...sources.map((source) => name(track(source), source, 'thread_name')),
      { ph: 'X', pid: 1, tid: 0, name: story.name, ts: microseconds(story.first), dur: Math.max(1, story.duration_ns / 1000), args: { rule: story.rule, trace_id: story.trace_id } },
      ...story.members.map((member) => ({
        ph: 'i', s: 't', pid: 1, tid: track(member.source), ts: microseconds(member.time), name: member.kind,
        args: { summary: member.summary, severity: member.severity, role: member.role, id: member.id },
      })),
    ],
    displayTimeUnit: 'ns',
  });
}

/// Saves a text as a file.
export function save(fileName, text, type) {
  const url = URL.createObjectURL(new Blob([text], { type }));
  const link = document.createElement('a');
  link.href = url;
  link.download = fileName;
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}

/// `3 events from 2 sources`.
export function extent(story) {
  const sources = new Set(story.members.map((member) => member.source));
  return `${counted(story.members_total, 'event')} from ${counted(sources.size, 'source')}`;
}
