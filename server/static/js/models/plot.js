// Recent answers of a model as a small plot: a bar for each, as high as it took; failures stand out.

import { svg } from '../dom.js';
import { duration } from '../format.js';

const BARS = 30;
const WIDTH = 4; // units of the drawing, of which one stays free between bars
const HEIGHT = 32;
const LEAST = 2;

/** `recent`: [{ok, duration_ms, time_to_first_token_ms}], oldest first. */
export function latencyPlot(recent) {
  const shown = recent.slice(-BARS);
  const longest = Math.max(...shown.map((one) => one.duration_ms ?? 0), 1);
  const bars = shown.flatMap((one, at) => {
    const x = (BARS - shown.length + at) * WIDTH;
    const whole = one.ok ? Math.max(LEAST, (one.duration_ms / longest) * HEIGHT) : HEIGHT;
    const first = one.ok && one.time_to_first_token_ms !== null ? Math.max(1, (one.time_to_first_token_ms / longest) * HEIGHT) : 0;
    return [bar(x, whole, one.ok ? 'whole' : 'failed'), first > 0 && bar(x, first, 'first')];
  });
  const says = shown.length === 0 ? 'No answers yet' : describe(shown);
  return svg('svg', { viewBox: `0 0 ${BARS * WIDTH - 1} ${HEIGHT}`, class: 'plot', role: 'img', 'aria-label': says, preserveAspectRatio: 'none' },
    svg('title', {}, says), bars, svg('line', { x1: 0, x2: BARS * WIDTH, y1: HEIGHT, y2: HEIGHT, class: 'plot-base' }));
}

const bar = (x, height, kind) => svg('rect', { x, y: HEIGHT - height, width: WIDTH - 1, height, class: `plot-${kind}` });

/** The median, in words. */
function describe(shown) {
  const failed = shown.filter((one) => !one.ok).length;
  const times = shown.filter((one) => one.ok).map((one) => one.duration_ms).sort((one, other) => one - other);
  const median = times.length > 0 ? `median ${duration(times[Math.floor(times.length / 2)])}` : 'none whole';
  return `Last ${shown.length} answers: ${median}${failed > 0 ? `, ${failed} failed` : ''}`;
}

export const medianOf = (recent, field) => {
  const times = recent.filter((one) => one.ok && one[field] !== null).map((one) => one[field]).sort((one, other) => one - other);
  return times.length > 0 ? times[Math.floor(times.length / 2)] : null;
};
