// A small plot of a model's recent answers: a bar for each, as high as its duration; failures have another colour.

import { h, svg } from '../dom.js';
import { formatCount, formatDuration } from '../format.js';

const MAX_BARS = 30;
const BAR_WIDTH = 4; // units of the view box, one of them a gap
const PLOT_HEIGHT = 32;
const MIN_BAR_HEIGHT = 2;

/** `recent`: [{ok, duration_ms, time_to_first_token_ms}], oldest first. Returns the plot and its legend. */
export function latencyPlot(recent) {
  const plotted = recent.slice(-MAX_BARS);
  const box = { viewBox: `0 0 ${MAX_BARS * BAR_WIDTH - 1} ${PLOT_HEIGHT}`, preserveAspectRatio: 'none', class: 'plot' };
  const base = svg('line', { x1: 0, x2: MAX_BARS * BAR_WIDTH, y1: PLOT_HEIGHT, y2: PLOT_HEIGHT, class: 'plot-base' });
  return [
    svg('svg', { ...box, role: 'img', 'aria-label': `Last ${plotted.length} answers` }, bars(plotted), base),
    h('p', { class: 'dim small' }, legend(recent)),
  ];
}

function bars(plotted) {
  const longest = Math.max(...plotted.map((answer) => answer.duration_ms ?? 0), 1);
  const heightOf = (ms, minHeight) => Math.max(minHeight, (ms / longest) * PLOT_HEIGHT);
  return plotted.map(({ ok, duration_ms: total, time_to_first_token_ms: firstToken }, index) => {
    const x = (MAX_BARS - plotted.length + index) * BAR_WIDTH;
    if (!ok) return bar(x, PLOT_HEIGHT, 'failed');
    return [
      bar(x, heightOf(total, MIN_BAR_HEIGHT), 'total'),
      firstToken !== null && bar(x, heightOf(firstToken, 1), 'first'),
    ];
  });
}

const bar = (x, height, kind) =>
  svg('rect', { x, y: PLOT_HEIGHT - height, width: BAR_WIDTH - 1, height, class: `plot-${kind}` });

/** The medians, each with the colour of its bars. */
function legend(recent) {
  if (recent.length === 0) return 'No answers yet';
  const failed = recent.filter((answer) => !answer.ok).length;
  const medians = [
    ['first', 'first token', medianOf(recent, 'time_to_first_token_ms')],
    ['total', 'whole', medianOf(recent, 'duration_ms')],
  ].filter(([, , median]) => median !== null);
  return [
    medians.length > 0 && h('span', { class: 'plot-entry' }, 'Median'),
    medians.map(([kind, name, median]) => legendEntry(kind, `${name} ${formatDuration(median)}`)),
    failed > 0 && legendEntry('failed', `${formatCount(failed)} of ${formatCount(recent.length)} failed`),
  ];
}

const legendEntry = (kind, text) =>
  h('span', { class: 'plot-entry' }, h('span', { class: `swatch plot-${kind}` }), text);

function medianOf(recent, field) {
  const times = recent.filter((answer) => answer.ok && answer[field] !== null).map((answer) => answer[field]);
  times.sort((a, b) => a - b);
  return times[Math.floor(times.length / 2)] ?? null;
}
