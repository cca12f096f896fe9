// The presets' state: every file that counts, what is wrong with those that don't, and what has just changed.

import { announceChange } from '../announcer.js';
import { h, KeyedList, setText } from '../dom.js';
import { onNextFrame } from '../frames.js';
import { plural, time, words } from '../format.js';
import { badge } from '../ui.js';

const FOLDERS = { model: 'models/', hyperpod: 'hyperpod/', pipeline: '' };
const TONES = { added: 'ok', changed: 'busy', removed: 'idle', rejected: 'bad' };
const NO_CHANGES = 'Nothing has changed since this page was opened. What is saved appears here within a second.';

const pathOf = ({ kind, name }) => `${FOLDERS[kind] ?? `${kind}/`}${name}.yaml`;

/** Those that are rejected first, then by their path. */
const inOrder = (presets) => [...presets].sort((one, other) =>
  Boolean(other.error) - Boolean(one.error) || pathOf(one).localeCompare(pathOf(other)));

export class Presets {
  #feed;
  #title = h('h2', { id: 'presets-title', tabindex: -1 }, 'Presets');
  #files = h('ul', { class: 'files' });
  #summary = h('p', { class: 'dim small' });
  #changes = h('ol', { class: 'changes' });
  #noChanges = h('p', { class: 'dim small' }, NO_CHANGES);
  #fileList = new KeyedList(this.#files, (preset) => preset, fileRow);
  #changeList = new KeyedList(this.#changes, (change) => change, changeRow);
  #told = null; // the newest change at the last look

  constructor(feed) {
    this.#feed = feed;
    const draw = () => this.#show();
    feed.addEventListener('presets', () => onNextFrame(draw));
    this.element = h('section', { class: 'presets', 'aria-labelledby': 'presets-title' },
      h('div', { class: 'section-head' }, this.#title, this.#summary),
      h('div', { class: 'preset-cards' },
        h('div', { class: 'card' }, h('h3', {}, 'Files'), this.#files),
        h('div', { class: 'card' }, h('h3', {}, 'Changes'), this.#noChanges, this.#changes)));
    this.#show();
  }

  /** How many files are rejected. */
  get rejected() {
    return rejectedOf([...this.#feed.presets.values()]);
  }

  /** Goes to the files, of which the rejected ones come first. */
  reveal() {
    this.#title.scrollIntoView({ block: 'start' });
    this.#title.focus({ preventScroll: true });
  }

  #show() {
    const presets = [...this.#feed.presets.values()];
    setText(this.#summary, this.#feed.ready ? summaryOf(presets) : 'Loading …');
    this.#fileList.show(inOrder(presets));
    this.#changeList.show(this.#feed.changes);
    this.#noChanges.hidden = this.#feed.changes.length > 0;
    this.#tell(this.#feed.changes);
  }

  /** What has changed since the last time, to who is here. */
  #tell(changes) {
    const known = changes.indexOf(this.#told);
    const fresh = changes.slice(0, known < 0 ? changes.length : known).reverse();
    this.#told = changes[0] ?? null;
    if (this.element.checkVisibility()) fresh.map(sentenceOf).forEach(announceChange);
  }
}

const sentenceOf = ({ name, change, error }) => `Preset ${name} ${change}${error ? `: ${error}` : ''}.`;

const rejectedOf = (presets) => presets.filter((preset) => preset.error).length;

function summaryOf(presets) {
  const wrong = rejectedOf(presets);
  return plural(presets.length, 'file') + (wrong > 0 ? `, ${wrong} rejected` : '');
}

const path = (preset) => h('span', { class: 'mono clip', title: pathOf(preset) }, pathOf(preset));

const fault = ({ error }) => error && h('p', { class: 'fault mono small' }, error);

function fileRow(preset) {
  const state = preset.error ? badge('bad', 'Rejected') : h('span', { class: 'in-force dim small' }, 'in force');
  return { element: h('li', {}, h('div', { class: 'row between' }, path(preset), state), fault(preset)) };
}

function changeRow(change) {
  const at = h('time', { class: 'dim small', datetime: change.at }, time(change.at));
  const kind = badge(TONES[change.change] ?? 'idle', words(change.change));
  return { element: h('li', {}, h('div', { class: 'row' }, at, kind, path(change)), fault(change)) };
}
