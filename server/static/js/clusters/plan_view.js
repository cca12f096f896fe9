// The plan of a dry run: resources to create or delete, the configuration's diff, and checks that were impossible.

import { h } from '../dom.js';
import { pluralize } from '../format.js';
import { codeBlock, copyButton, descriptionList } from '../ui.js';

const NAMES_TITLES = { deploy: 'Would be made', destroy: 'Would go' };

/** `plan`: {config, diff, command, environment, names, unchecked}. */
export function planView(plan, action) {
  const { names, diff, unchecked, command, environment, config } = plan;
  return h('section', { class: 'card plan', 'aria-labelledby': 'plan-title' },
    h('h2', { id: 'plan-title' }, 'Plan'),
    uncheckedNote(unchecked),
    names.length > 0 && collapsible(`${NAMES_TITLES[action]} (${names.length})`, nameList(names), true),
    diff.length > 0 && collapsible('Change of the configuration', diffView(diff), true),
    collapsible('Command', commandView(command, environment), false),
    collapsible('Configuration', configView(config), false));
}

export const nameList = (names) => h('ul', { class: 'names mono' }, names.map((name) => h('li', {}, name)));

function collapsible(title, content, open) {
  return h('details', { open }, h('summary', {}, title), content);
}

function uncheckedNote(unchecked) {
  if (unchecked.length === 0) return null;
  return h('div', { class: 'notice', data: { tone: 'warn' } },
    h('p', {}, `Could not check ${pluralize(unchecked.length, 'thing')} here:`),
    h('ul', {}, unchecked.map((reason) => h('li', {}, reason))));
}

const DIFF_CLASSES = { '+': 'added', '-': 'removed' };

function diffView(diff) {
  const lines = diff.map((line) => h('span', { class: DIFF_CLASSES[line[0]] ?? 'unchanged' }, line));
  return codeBlock('Change of the configuration', lines, 'diff');
}

function commandView(command, environment) {
  const variables = Object.entries(environment).map(([name, value]) => [name, h('span', { class: 'mono' }, value)]);
  return h('div', { class: 'stack tight' }, codeBlock('Command', command, 'wrap'), descriptionList(variables));
}

function configView(config) {
  const text = JSON.stringify(config, null, 2);
  return h('div', { class: 'stack tight' },
    codeBlock('Configuration', text), h('div', {}, copyButton('Copy', () => text)));
}
