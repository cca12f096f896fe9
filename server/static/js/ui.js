// UI components that every page uses: buttons, badges, description lists, empty states, dialogs, copying, tabs.

import { announce } from './announcer.js';
import { h, replaceChildren, setText } from './dom.js';
import { icon } from './icons.js';

/** A button; `variant` is '', 'primary', 'danger' or 'quiet'; `iconName` is one of icons.js. */
export function button(label, onClick, { variant = '', iconName = null, ...props } = {}) {
  return h('button', { type: 'button', class: variant, on: { click: onClick }, ...props },
    iconName && icon(iconName), label && h('span', {}, label));
}

/** A button with an icon alone; `label` is its accessible name. */
export function iconButton(label, iconName, onClick, props = {}) {
  const labels = { 'aria-label': label, title: label };
  const on = { click: onClick };
  return h('button', { type: 'button', class: 'quiet icon', ...labels, on, ...props }, icon(iconName));
}

/** A status badge; `tone` is 'ok', 'busy', 'warn', 'bad' or 'idle'. */
export function badge(tone, text) {
  return h('span', { class: 'badge', data: { tone } }, text);
}

export function setBadge(node, tone, text) {
  node.dataset.tone = tone;
  setText(node, text);
}

/** The placeholder of an empty area: a title, and a text that says what to do. */
export function emptyState(title, text) {
  return h('div', { class: 'state' }, h('p', { class: 'state-title' }, title), h('p', {}, text));
}

export function loadingState(text) {
  return h('div', { class: 'state', role: 'status' },
    h('span', { class: 'spinner', 'aria-hidden': 'true' }), h('p', {}, text));
}

export function errorState(error, retry) {
  return h('div', { class: 'state', data: { tone: 'bad' }, role: 'alert' },
    h('p', { class: 'state-title' }, error.message),
    error.requestId && h('p', { class: 'dim small' }, `Request ${error.requestId}`),
    retry && button('Try again', retry, { iconName: 'refresh' }));
}

/** Preformatted text that the keyboard can scroll; `label` is its accessible name. `variant`: 'wrap' or 'diff'. */
export function codeBlock(label, content, variant = '') {
  return h('pre', { class: `code ${variant}`, tabindex: 0, role: 'group', 'aria-label': label }, content);
}

/** A description list of [name, value]; entries whose value is null or empty are omitted. */
export function descriptionList(entries) {
  return h('dl', { class: 'description-list' }, entries
    .filter(([, value]) => value !== null && value !== undefined && value !== '')
    .map(([name, value]) => h('div', {}, h('dt', {}, name), h('dd', {}, value))));
}

/** Opens a modal dialog. On close it returns the focus, removes itself and calls `onClose`. */
export function openDialog(title, { body, actions, onClose = () => {}, ...props }) {
  const dialog = h('dialog', { 'aria-labelledby': 'dialog-title', ...props },
    h('h2', { id: 'dialog-title' }, title),
    h('div', { class: 'dialog-body' }, body),
    h('div', { class: 'row end' }, actions));
  dialog.addEventListener('close', () => {
    dialog.remove();
    onClose();
  });
  document.body.append(dialog);
  dialog.showModal();
  return dialog;
}

/** A button that copies the result of `text()` and announces whether that worked. */
export function copyButton(label, text, props = {}) {
  const caption = h('span', {}, label);
  const copy = async () => {
    const outcome = (await copyText(text())) ? 'Copied' : 'Can\'t copy here';
    setText(caption, outcome);
    announce(`${outcome}.`);
    setTimeout(() => setText(caption, label), 1500);
  };
  return h('button', { type: 'button', on: { click: copy }, ...props }, icon('copy'), caption);
}

/** Whether it worked. `navigator.clipboard` exists only in a secure context: https or localhost. */
async function copyText(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return copyByCommand(text);
  }
}

function copyByCommand(text) {
  const onCopy = (event) => {
    event.preventDefault();
    event.clipboardData.setData('text/plain', text);
  };
  document.addEventListener('copy', onCopy);
  const isCopied = document.execCommand('copy');
  document.removeEventListener('copy', onCopy);
  return isCopied;
}

/**
 * Tabs over a panel; arrow keys select the next tab. `entries`: [[name, render]], where `render()` returns the panel's
 * content.
 */
export function tabs(label, entries) {
  const panel = h('div', { class: 'tab-panel', role: 'tabpanel', tabindex: 0, 'aria-label': label });
  const select = (index, focus) => {
    buttons.forEach((tab, tabIndex) => {
      tab.setAttribute('aria-selected', String(tabIndex === index));
      tab.tabIndex = tabIndex === index ? 0 : -1;
    });
    if (focus) buttons[index].focus();
    replaceChildren(panel, entries[index][1]());
  };
  const onKeydown = (index, { key }) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[key];
    if (step) select((index + step + entries.length) % entries.length, true);
  };
  const buttons = entries.map(([name], index) => h('button', {
    type: 'button',
    role: 'tab',
    on: { click: () => select(index, false), keydown: (event) => onKeydown(index, event) },
  }, name));
  select(0, false);
  const list = h('div', { class: 'tab-list', role: 'tablist', 'aria-label': label }, buttons);
  return h('div', { class: 'tabs' }, list, panel);
}
