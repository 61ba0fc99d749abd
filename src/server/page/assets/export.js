// A story for other programs: Markdown for a ticket, Perfetto's trace events.
import { absolute, counted, duration, nanoseconds, percent, plain, zone } from './text.js';

// A text within Markdown: nothing in it makes a link, a picture or a heading.
const escaped = (text) => plain(text).replace(/[\\`*_{}[\]<>#|!~]/g, '\\$&').replace(/\n/g, ' ');

/// The sentence at the head of a story.
export function sentence(story) {
  const cause = story.root_causes[0];
  if (!cause) return 'No cause was found.';
  return `Most likely cause: ${plain(cause.cause)} (confidence ${percent(story.confidence)}).`;
}

/// The story as Markdown.
export function markdown(story, url) {
  const lines = [`## ${escaped(story.name)}`, '', escaped(sentence(story)), ''];
  lines.push(`- severity: ${story.severity}, state: ${story.state}`);
  lines.push(`- from ${absolute(story.first)} to ${absolute(story.last)} (${zone(new Date(story.first))}), ${duration(story.duration_ns)}`);
  lines.push(`- trace: ${story.trace_id}`, `- ${url}`, '');
  const section = (title, items) => items.length > 0 && lines.push(`### ${title}`, '', ...items, '');
  section('Actions', story.actions.map((action, at) => `${at + 1}. ${escaped(action)}`));
  section('Affected', story.impact.affected.map((entity) => `- ${escaped(entity)}`));
  const members = story.members.slice(0, 50).map(
    (member) => `| ${absolute(member.time, 6)} | ${escaped(member.source)} | ${escaped(member.kind)} | ${escaped(member.role)} | ${escaped(member.summary).slice(0, 300)} |`,
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
