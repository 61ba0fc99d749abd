// Text, numbers and times as the page shows them. Texts of events come from anybody: they are only
// ever text nodes, and characters that control a terminal or reverse a line are shown as symbols.

const CONTROL = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]/g;

function symbol(character) {
  const code = character.codePointAt(0);
  if (code < 0x20) return String.fromCodePoint(0x2400 + code);
  if (code === 0x7f) return '\u2421';
  return `\u27e8U+${code.toString(16).toUpperCase().padStart(4, '0')}\u27e9`;
}

/// A text without characters that change how the text around it is shown.
export function plain(text) {
  return String(text ?? '').replace(CONTROL, symbol);
}

/// A plain text without breaks of lines, as it is shown and copied: a shell would run the part before
/// one.
export function line(text) {
  return plain(text).replace(/[\t\n]/g, symbol);
}

/// A plain text of at most so many characters.
export function shortened(text, most = 300) {
  const all = String(text ?? '');
  return all.length <= most ? plain(all) : `${plain(all.slice(0, most))}…`;
}

/// Nanoseconds since 1970 of a time in RFC 3339, as a BigInt: a number has no room for them.
export function nanoseconds(time) {
  const match = /^(.*?)(?:\.(\d+))?(Z|[+-]\d\d:\d\d)$/.exec(time ?? '');
  if (!match) return 0n;
  const seconds = Math.floor(Date.parse(match[1] + match[3]) / 1000);
  if (!Number.isFinite(seconds)) return 0n;
  return BigInt(seconds) * 1_000_000_000n + BigInt((match[2] ?? '').padEnd(9, '0').slice(0, 9));
}

/// Members or events in the order of time. Their texts have no order: `00Z` is before `00.5Z`.
export function byTime(items) {
  const timed = items.map((item) => [nanoseconds(item.time), item]);
  return timed.sort(([a], [b]) => (a < b ? -1 : Number(a > b))).map(([, item]) => item);
}

/// A length of time in words: two units at most.
export function duration(ns) {
  const number = Number(ns);
  const abs = Math.abs(number);
  // A little less than the next unit is one of it, and not 1000 of this one.
  if (abs < 999.5) return `${Math.round(number)} ns`;
  if (abs < 999.5e3) return `${(number / 1e3).toFixed(abs < 1e4 ? 1 : 0)} µs`;
  if (abs < 999.5e6) return `${(number / 1e6).toFixed(abs < 1e7 ? 1 : 0)} ms`;
  const seconds = abs / 1e9;
  const sign = number < 0 ? '-' : '';
  if (seconds < 10) return `${sign}${seconds.toFixed(1)} s`;
  if (seconds < 60) return `${sign}${Math.round(seconds)} s`;
  const units = [['d', 86400], ['h', 3600], ['min', 60], ['s', 1]];
  const first = units.findIndex(([, size]) => seconds >= size);
  let rest = Math.round(seconds);
  const parts = [];
  for (const [name, size] of units.slice(first, first + 2)) {
    const count = Math.floor(rest / size);
    rest -= count * size;
    if (count > 0 || parts.length === 0) parts.push(`${count} ${name}`);
  }
  return sign + parts.join(' ');
}

/// How long ago a time is: `5 min ago`.
export function ago(time, now = Date.now()) {
  const milliseconds = now - Date.parse(time);
  if (!Number.isFinite(milliseconds)) return '';
  if (Math.abs(milliseconds) < 1000) return 'now';
  const length = duration(Math.abs(milliseconds) * 1e6).split(' ').slice(0, 2).join(' ');
  return milliseconds > 0 ? `${length} ago` : `in ${length}`;
}

const fractionOf = (time) => /\.(\d+)/.exec(time)?.[1] ?? '';

/// The digits of a second's fraction that a time has.
export const digitsOf = (time) => fractionOf(time).length;

const pad = (number, digits = 2) => String(number).padStart(digits, '0');

/// A time with its date in the browser's zone: `2026-11-30 10:00:00.123`, always with so many digits
/// of the second's fraction.
export function absolute(time, digits = 3) {
  const date = new Date(time);
  if (Number.isNaN(date.getTime())) return '';
  const day = `${date.getFullYear()}-${pad(date.getMonth() + 1)}-${pad(date.getDate())}`;
  const shown = digits > 0 ? `.${fractionOf(time).padEnd(digits, '0').slice(0, digits)}` : '';
  return `${day} ${pad(date.getHours())}:${pad(date.getMinutes())}:${pad(date.getSeconds())}${shown}`;
}

/// The browser's zone, as an offset.
export function zone(date = new Date()) {
  const minutes = -date.getTimezoneOffset();
  if (minutes === 0) return 'UTC';
  const abs = Math.abs(minutes);
  return `UTC${minutes < 0 ? '-' : '+'}${pad(Math.floor(abs / 60))}:${pad(abs % 60)}`;
}

/// A number with separators.
export function count(number) {
  return Number(number ?? 0).toLocaleString('en-US');
}

/// A number with its sign and two digits of its fraction.
export function signed(number) {
  const text = Math.abs(number).toFixed(2);
  return `${number < 0 && Number(text) !== 0 ? '−' : '+'}${text}`;
}

/// The state of a story as filters have it: that of a story is more exact.
export function stateText(state) {
  return { opened: 'open', updated: 'open', expired: 'closed' }[state] ?? String(state ?? '');
}

/// The silence that a story is under; `null`: none, or it is over.
export function silenceOf({ silence }) {
  return silence && Date.parse(silence.until) > Date.now() ? silence : null;
}

/// A size.
export function bytes(number) {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
  let [size, unit] = [Number(number ?? 0), 0];
  while (size >= 1024 && unit < units.length - 1) [size, unit] = [size / 1024, unit + 1];
  return `${unit === 0 || size >= 100 ? Math.round(size) : size.toFixed(1)} ${units[unit]}`;
}

/// `1 event`, `2 events`.
export function counted(number, noun, plural = `${noun}s`) {
  return `${count(number)} ${Number(number) === 1 ? noun : plural}`;
}

/// A number as a percentage.
export function percent(share) {
  return `${Math.round(Number(share) * 100)} %`;
}
