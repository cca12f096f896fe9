// Small pieces that every place uses: buttons, badges, lists of facts, what stands where nothing is, copying, tabs.

import { announce } from './announcer.js';
import { h, replace, setText } from './dom.js';
import { icon } from './icons.js';

/** A button; `kind` is '', 'primary', 'danger' or 'quiet'. */
export function button(label, onClick, { kind = '', art = null, ...props } = {}) {
  return h('button', { type: 'button', class: kind, on: { click: onClick }, ...props },
    art && icon(art), label && h('span', {}, label));
}

/** A button that is an icon alone; `label` is its name. */
export function iconButton(label, art, onClick, props = {}) {
  const says = { 'aria-label': label, title: label };
  return h('button', { type: 'button', class: 'quiet icon', ...says, on: { click: onClick }, ...props }, icon(art));
}

/** A state in a word, with a colour beside the word: 'ok', 'busy', 'warn', 'bad' or 'idle'. */
export function badge(tone, text) {
  return h('span', { class: 'badge', data: { tone } }, text);
}

export function setBadge(node, tone, text) {
  node.dataset.tone = tone;
  setText(node, text);
}

/** What stands where nothing is yet: a sentence, and what to do. */
export function emptyState(title, text) {
  return h('div', { class: 'state' }, h('p', { class: 'state-title' }, title), h('p', {}, text));
}

export function loadingState(text) {
  return h('div', { class: 'state', role: 'status' },
    h('span', { class: 'spinner', 'aria-hidden': 'true' }), h('p', {}, text));
}

export function failedState(error, retry) {
  return h('div', { class: 'state', data: { tone: 'bad' }, role: 'alert' },
    h('p', { class: 'state-title' }, error.message),
    error.requestId && h('p', { class: 'dim small' }, `Request ${error.requestId}`),
    retry && button('Try again', retry, { art: 'again' }));
}

/** A text that keeps its lines, and that the keyboard can scroll; `label` is its name. `look`: 'wrap' or 'diff'. */
export function codeBlock(label, content, look = '') {
  return h('pre', { class: `code ${look}`, tabindex: 0, role: 'group', 'aria-label': label }, content);
}

/** A definition list; entries whose value is null or empty are left out. */
export function facts(entries) {
  return h('dl', { class: 'facts' }, entries
    .filter(([, value]) => value !== null && value !== undefined && value !== '')
    .map(([name, value]) => h('div', {}, h('dt', {}, name), h('dd', {}, value))));
}

/** A dialog over the page; closes by Escape and by its buttons, gives the focus back, and leaves nothing behind. */
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

/** A button that copies what `text()` returns, and says that it did. */
export function copyButton(label, text, props = {}) {
  const caption = h('span', {}, label);
  const copy = async () => {
    const says = (await copyText(text())) ? 'Copied' : 'Can\'t copy here';
    setText(caption, says);
    announce(`${says}.`);
    setTimeout(() => setText(caption, label), 1500);
  };
  return h('button', { type: 'button', on: { click: copy }, ...props }, icon('copy'), caption);
}

/** Whether it could. The clipboard is there only in a secure context: https, or this machine. */
async function copyText(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return copyByCommand(text);
  }
}

function copyByCommand(text) {
  const give = (event) => {
    event.preventDefault();
    event.clipboardData.setData('text/plain', text);
  };
  document.addEventListener('copy', give);
  const done = document.execCommand('copy');
  document.removeEventListener('copy', give);
  return done;
}

/**
 * Tabs over a panel: arrow keys go from one to the next. `entries`: [[name, show]], where `show()` returns the panel's
 * content.
 */
export function tabs(label, entries) {
  const panel = h('div', { class: 'tab-panel', role: 'tabpanel', tabindex: 0, 'aria-label': label });
  const choose = (index, focus) => {
    buttons.forEach((one, at) => {
      one.setAttribute('aria-selected', String(at === index));
      one.tabIndex = at === index ? 0 : -1;
    });
    if (focus) buttons[index].focus();
    replace(panel, entries[index][1]());
  };
  const goOn = (index, { key }) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[key];
    if (step) choose((index + step + entries.length) % entries.length, true);
  };
  const buttons = entries.map(([name], index) => h('button', {
    type: 'button',
    role: 'tab',
    on: { click: () => choose(index, false), keydown: (event) => goOn(index, event) },
  }, name));
  choose(0, false);
  const list = h('div', { class: 'tab-list', role: 'tablist', 'aria-label': label }, buttons);
  return h('div', { class: 'tabs' }, list, panel);
}
