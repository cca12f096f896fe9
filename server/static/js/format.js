// Numbers and times, as a person reads them.

const whole = new Intl.NumberFormat('en');
const clock = new Intl.DateTimeFormat('en-GB', { hour: '2-digit', minute: '2-digit', second: '2-digit' });
const day = new Intl.DateTimeFormat('en-GB', { day: 'numeric', month: 'short', hour: '2-digit', minute: '2-digit' });

const DAY_MS = 86_400_000;

export const count = (number) => whole.format(number);

/** "1 line", "2 lines". */
export const plural = (number, word) => `${count(number)} ${word}${number === 1 ? '' : 's'}`;

/** 83 ms, 1.24 s, 12.4 s, 3 min 05 s, 1 h 02 min. */
export function duration(ms) {
  if (ms === null || ms === undefined) return '–';
  if (ms < 1000) return `${Math.round(ms)} ms`;
  const seconds = ms / 1000;
  if (seconds < 60) return `${seconds.toFixed(seconds < 10 ? 2 : 1)} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return `${minutes} min ${pad(Math.floor(seconds % 60))} s`;
  return `${Math.floor(minutes / 60)} h ${pad(minutes % 60)} min`;
}

const pad = (number) => String(number).padStart(2, '0');

export function bytes(size) {
  const units = ['B', 'kB', 'MB', 'GB'];
  let unit = 0;
  while (size >= 1000 && unit < units.length - 1) {
    size /= 1000;
    unit += 1;
  }
  return `${unit && size < 10 ? size.toFixed(1) : Math.round(size)} ${units[unit]}`;
}

export const pixels = (number) => `${Math.round(number / 1e6)} MP`;

/** The time of day; with the date where it is not from the last 24 hours. */
export function time(iso) {
  const at = new Date(iso);
  return (Math.abs(Date.now() - at) < DAY_MS ? clock : day).format(at);
}

/** "queued" as "Queued"; "in_progress" as "In progress". */
export function words(text) {
  const plain = String(text).replaceAll('_', ' ');
  return plain.charAt(0).toUpperCase() + plain.slice(1);
}
