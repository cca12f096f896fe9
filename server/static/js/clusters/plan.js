// What a dry run found: what would be made or would go, how the configuration changes, and what could not be checked.

import { h } from '../dom.js';
import { plural } from '../format.js';
import { copyButton, facts } from '../ui.js';

/** `plan`: {config, diff, command, environment, names, unchecked}. */
export function planView(plan, action) {
  const { names, diff, unchecked, command, environment, config } = plan;
  return h('section', { class: 'card plan', 'aria-labelledby': 'plan-title' },
    h('h2', { id: 'plan-title' }, 'Plan'),
    uncheckedNote(unchecked),
    names.length > 0 && part(action === 'destroy' ? `Would go (${names.length})` : `Would be made (${names.length})`, nameList(names), true),
    diff.length > 0 && part('Change of the configuration', diffView(diff), true),
    part('Command', h('div', { class: 'stack tight' }, h('pre', { class: 'code wrap', tabindex: 0, 'aria-label': 'Command' }, command), environmentFacts(environment)), false),
    part('Configuration', configView(config), false));
}

export const nameList = (names) => h('ul', { class: 'names mono' }, names.map((name) => h('li', {}, name)));

function part(title, content, open) {
  return h('details', { open }, h('summary', {}, title), content);
}

function uncheckedNote(unchecked) {
  if (unchecked.length === 0) return null;
  return h('div', { class: 'notice', data: { tone: 'warn' } },
    h('p', {}, `Could not check ${plural(unchecked.length, 'thing')} here:`), h('ul', {}, unchecked.map((one) => h('li', {}, one))));
}

const KINDS = { '+': 'added', '-': 'gone' };

function diffView(diff) {
  return h('pre', { class: 'code diff', tabindex: 0, 'aria-label': 'Change of the configuration' }, diff.map((line) => h('span', { class: KINDS[line[0]] ?? 'same' }, line)));
}

function environmentFacts(environment) {
  return facts(Object.entries(environment).map(([name, value]) => [name, h('span', { class: 'mono' }, value)]));
}

function configView(config) {
  const text = JSON.stringify(config, null, 2);
  return h('div', { class: 'stack tight' }, h('pre', { class: 'code', tabindex: 0, 'aria-label': 'Configuration' }, text), h('div', {}, copyButton('Copy', () => text)));
}
