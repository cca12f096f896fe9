// The live region for screen readers: messages of one second are read together, so that a busy feed floods nobody.

import { pluralize } from './format.js';

const DELAY_MS = 1000;
const MAX_MESSAGES = 3; // read at once

let pending = [];

/** Announces the result of a user's own action, before announced changes. */
export function announce(message) {
  if (pending.length === 0) setTimeout(flush, DELAY_MS);
  pending.unshift(message);
}

/** Announces a change that no user action caused. */
export function announceChange(message) {
  if (pending.length === 0) setTimeout(flush, DELAY_MS);
  pending.push(message);
}

function flush() {
  const omitted = pending.length - MAX_MESSAGES;
  const summary = omitted > 0 ? [`And ${pluralize(omitted, 'more change')}.`] : [];
  document.getElementById('announcer').textContent = [...pending.slice(0, MAX_MESSAGES), ...summary].join(' ');
  pending = [];
}
