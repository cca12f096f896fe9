// What screen readers are told: together with what else happens in the same second, so that a busy feed floods nobody.

import { plural } from './format.js';

const PAUSE_MS = 1000;
const MOST = 3; // sentences at once

let waiting = [];

/** Says something to screen readers, soon: what answers a person's own act. */
export function announce(sentence) {
  if (waiting.length === 0) setTimeout(say, PAUSE_MS);
  waiting.unshift(sentence);
}

/** Says what has changed by itself, after what answers somebody. */
export function announceChange(sentence) {
  if (waiting.length === 0) setTimeout(say, PAUSE_MS);
  waiting.push(sentence);
}

function say() {
  const more = waiting.length - MOST;
  const rest = more > 0 ? [`And ${plural(more, 'more change')}.`] : [];
  document.getElementById('announcer').textContent = [...waiting.slice(0, MOST), ...rest].join(' ');
  waiting = [];
}
