// Small pieces that every place uses: states of a place, badges, dialogs, copying, what screen readers are told.

import { h, replace, setText } from './dom.js';
import { icon } from './icons.js';

/** A button; `kind` is '', 'primary', 'danger' or 'quiet'. */
export function button(label, onClick, { kind = '', art = null, ...props } = {}) {
  return h('button', { type: 'button', class: kind, on: { click: onClick }, ...props }, art && icon(art), label && h('span', {}, label));
}

/** A button that is an icon alone; `label` is its name. */
export function iconButton(label, art, onClick, props = {}) {
  return h('button', { type: 'button', class: 'quiet icon', 'aria-label': label, title: label, on: { click: onClick }, ...props }, icon(art));
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
export function emptyState(title, text, ...actions) {
  return h('div', { class: 'state' }, h('p', { class: 'state-title' }, title), h('p', {}, text), actions.length > 0 && h('div', { class: 'row' }, actions));
}

export function loadingState(text) {
  return h('div', { class: 'state', role: 'status' }, h('span', { class: 'spinner', 'aria-hidden': 'true' }), h('p', {}, text));
}

export function failedState(error, retry) {
  return h('div', { class: 'state', data: { tone: 'bad' }, role: 'alert' },
    h('p', { class: 'state-title' }, error.message),
    error.requestId && h('p', { class: 'dim small' }, `Request ${error.requestId}`),
    retry && button('Try again', retry, { art: 'again' }));
}

/** Says something to screen readers. */
export function announce(text) {
  setText(document.getElementById('announcer'), text);
}

/** A dialog over the page; closes by Escape and by its buttons, gives the focus back, and leaves nothing behind. */
export function openDialog(title, { body, actions, onClose = () => {} }) {
  const heading = h('h2', { id: 'dialog-title' }, title);
  const dialog = h('dialog', { 'aria-labelledby': 'dialog-title' }, heading, h('div', { class: 'dialog-body' }, body), h('div', { class: 'row end' }, actions));
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
    const done = await copyText(text());
    setText(caption, done ? 'Copied' : 'Press Ctrl+C');
    announce(done ? 'Copied.' : 'The text is selected; press Ctrl+C to copy it.');
    setTimeout(() => setText(caption, label), 1500);
  };
  return h('button', { type: 'button', on: { click: copy }, ...props }, icon('copy'), caption);
}

async function copyText(text) {
  try {
    await navigator.clipboard.writeText(text); // there only in a secure context: https, or this machine
    return true;
  } catch {
    return false;
  }
}

/** A definition list; entries whose value is null or empty are left out. */
export function facts(entries) {
  return h('dl', { class: 'facts' }, entries
    .filter(([, value]) => value !== null && value !== undefined && value !== '')
    .map(([name, value]) => h('div', {}, h('dt', {}, name), h('dd', {}, value))));
}

/** Tabs over a panel: arrow keys go from one to the next. `tabs`: [[label, show]], where `show()` returns the panel's content. */
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
  const buttons = entries.map(([name], index) => h('button', { type: 'button', role: 'tab', on: {
    click: () => choose(index, false),
    keydown: (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (step) choose((index + step + entries.length) % entries.length, true);
    },
  } }, name));
  choose(0, false);
  return h('div', { class: 'tabs' }, h('div', { class: 'tab-list', role: 'tablist', 'aria-label': label }, buttons), panel);
}
