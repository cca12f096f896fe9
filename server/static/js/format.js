// Numbers, durations, sizes and times, formatted for people.

const integerFormat = new Intl.NumberFormat('en');
const hourAndMinute = { hour: '2-digit', minute: '2-digit' };
const timeFormat = new Intl.DateTimeFormat('en-GB', { ...hourAndMinute, second: '2-digit' });
const dateTimeFormat = new Intl.DateTimeFormat('en-GB', { day: 'numeric', month: 'short', ...hourAndMinute });

const DAY_MS = 86_400_000;

export const formatCount = (number) => integerFormat.format(number);

/** "1 line", "2 lines". */
export const pluralize = (number, word) => `${formatCount(number)} ${word}${number === 1 ? '' : 's'}`;

/** 83 ms, 1.24 s, 12.4 s, 3 min 05 s, 1 h 02 min. */
export function formatDuration(ms) {
  if (ms === null || ms === undefined) return '–';
  if (ms < 1000) return `${Math.round(ms)} ms`;
  const seconds = ms / 1000;
  if (seconds < 60) return `${seconds.toFixed(seconds < 10 ? 2 : 1)} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return `${minutes} min ${padTwo(Math.floor(seconds % 60))} s`;
  return `${Math.floor(minutes / 60)} h ${padTwo(minutes % 60)} min`;
}

const padTwo = (number) => String(number).padStart(2, '0');

export function formatBytes(size) {
  const units = ['B', 'kB', 'MB', 'GB'];
  let unit = 0;
  while (size >= 1000 && unit < units.length - 1) {
    size /= 1000;
    unit += 1;
  }
  return `${unit && size < 10 ? size.toFixed(1) : Math.round(size)} ${units[unit]}`;
}

export const formatPixels = (number) => `${Math.round(number / 1e6)} MP`;

/** The time of day, with the date if it is more than 24 hours away. */
export function formatTime(iso) {
  const date = new Date(iso);
  return (Math.abs(Date.now() - date) < DAY_MS ? timeFormat : dateTimeFormat).format(date);
}

/** "queued" as "Queued"; "in_progress" as "In progress". */
export function humanize(text) {
  const spaced = String(text).replaceAll('_', ' ');
  return spaced.charAt(0).toUpperCase() + spaced.slice(1);
}
