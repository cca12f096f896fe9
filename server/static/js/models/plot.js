// Recent answers of a model as a small plot: a bar for each, as high as it took; failures stand out.

import { h, svg } from '../dom.js';
import { count, duration } from '../format.js';

const BARS = 30;
const WIDTH = 4; // units of the drawing, of which one stays free between bars
const HEIGHT = 32;
const LEAST = 2;

/** `recent`: [{ok, duration_ms, time_to_first_token_ms}], oldest first. A plot, and below it what it says in words. */
export function latencyPlot(recent) {
  const shown = recent.slice(-BARS);
  const box = { viewBox: `0 0 ${BARS * WIDTH - 1} ${HEIGHT}`, preserveAspectRatio: 'none', class: 'plot' };
  const base = svg('line', { x1: 0, x2: BARS * WIDTH, y1: HEIGHT, y2: HEIGHT, class: 'plot-base' });
  return [
    svg('svg', { ...box, role: 'img', 'aria-label': `Last ${shown.length} answers` }, bars(shown), base),
    h('p', { class: 'dim small' }, legend(recent)),
  ];
}

function bars(shown) {
  const longest = Math.max(...shown.map((one) => one.duration_ms ?? 0), 1);
  const heightOf = (ms, least) => Math.max(least, (ms / longest) * HEIGHT);
  return shown.map(({ ok, duration_ms: whole, time_to_first_token_ms: first }, at) => {
    const x = (BARS - shown.length + at) * WIDTH;
    if (!ok) return bar(x, HEIGHT, 'failed');
    return [bar(x, heightOf(whole, LEAST), 'whole'), first !== null && bar(x, heightOf(first, 1), 'first')];
  });
}

const bar = (x, height, kind) =>
  svg('rect', { x, y: HEIGHT - height, width: WIDTH - 1, height, class: `plot-${kind}` });

/** The medians, each after the colour of its bars. */
function legend(recent) {
  if (recent.length === 0) return 'No answers yet';
  const failed = recent.filter((one) => !one.ok).length;
  const entries = [
    ['first', 'first token', medianOf(recent, 'time_to_first_token_ms')],
    ['whole', 'whole', medianOf(recent, 'duration_ms')],
  ].filter(([, , median]) => median !== null);
  return [
    entries.length > 0 && h('span', { class: 'plot-entry' }, 'Median'),
    entries.map(([kind, name, median]) => entry(kind, `${name} ${duration(median)}`)),
    failed > 0 && entry('failed', `${count(failed)} of ${count(recent.length)} failed`),
  ];
}

const entry = (kind, text) => h('span', { class: 'plot-entry' }, h('span', { class: `swatch plot-${kind}` }), text);

function medianOf(recent, field) {
  const times = recent.filter((one) => one.ok && one[field] !== null).map((one) => one[field]);
  times.sort((one, other) => one - other);
  return times[Math.floor(times.length / 2)] ?? null;
}
