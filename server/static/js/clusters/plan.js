// What a dry run found: what would be made or would go, how the configuration changes, and what could not be checked.

import { h } from '../dom.js';
import { plural } from '../format.js';
import { codeBlock, copyButton, facts } from '../ui.js';

const WORDS = { deploy: 'Would be made', destroy: 'Would go' };

/** `plan`: {config, diff, command, environment, names, unchecked}. */
export function planView(plan, action) {
  const { names, diff, unchecked, command, environment, config } = plan;
  return h('section', { class: 'card plan', 'aria-labelledby': 'plan-title' },
    h('h2', { id: 'plan-title' }, 'Plan'),
    uncheckedNote(unchecked),
    names.length > 0 && part(`${WORDS[action]} (${names.length})`, nameList(names), true),
    diff.length > 0 && part('Change of the configuration', diffView(diff), true),
    part('Command', commandView(command, environment), false),
    part('Configuration', configView(config), false));
}

export const nameList = (names) => h('ul', { class: 'names mono' }, names.map((name) => h('li', {}, name)));

function part(title, content, open) {
  return h('details', { open }, h('summary', {}, title), content);
}

function uncheckedNote(unchecked) {
  if (unchecked.length === 0) return null;
  return h('div', { class: 'notice', data: { tone: 'warn' } },
    h('p', {}, `Could not check ${plural(unchecked.length, 'thing')} here:`),
    h('ul', {}, unchecked.map((one) => h('li', {}, one))));
}

const KINDS = { '+': 'added', '-': 'gone' };

function diffView(diff) {
  const lines = diff.map((line) => h('span', { class: KINDS[line[0]] ?? 'same' }, line));
  return codeBlock('Change of the configuration', lines, 'diff');
}

function commandView(command, environment) {
  const variables = Object.entries(environment).map(([name, value]) => [name, h('span', { class: 'mono' }, value)]);
  return h('div', { class: 'stack tight' }, codeBlock('Command', command, 'wrap'), facts(variables));
}

function configView(config) {
  const text = JSON.stringify(config, null, 2);
  return h('div', { class: 'stack tight' },
    codeBlock('Configuration', text), h('div', {}, copyButton('Copy', () => text)));
}
