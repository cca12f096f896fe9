// What screen readers are told: together with what else happens in the same second, so that a busy feed floods nobody.

import { plural } from './format.js';

const PAUSE_MS = 1000;
const MOST = 3; // sentences at once

let waiting = [];

/** Says something to screen readers, soon. */
export function announce(sentence) {
  waiting.push(sentence);
  if (waiting.length === 1) setTimeout(say, PAUSE_MS);
}

function say() {
  const more = waiting.length - MOST;
  const rest = more > 0 ? [`And ${plural(more, 'more change')}.`] : [];
  document.getElementById('announcer').textContent = [...waiting.slice(0, MOST), ...rest].join(' ');
  waiting = [];
}
