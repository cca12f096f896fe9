// The presets' state: every file that counts, what is wrong with those that don't, and what has just changed.

import { h, KeyedList, replace } from '../dom.js';
import { onNextFrame } from '../frames.js';
import { plural, time, words } from '../format.js';
import { announce, badge } from '../ui.js';

const FOLDERS = { model: 'models/', hyperpod: 'hyperpod/', pipeline: '' };
const TONES = { added: 'ok', changed: 'busy', removed: 'idle', rejected: 'bad' };

const pathOf = ({ kind, name }) => `${FOLDERS[kind] ?? `${kind}/`}${name}.yaml`;

export class Presets {
  #feed;
  #files = h('ul', { class: 'files' });
  #summary = h('p', { class: 'dim small' });
  #changes = h('ol', { class: 'changes' });
  #noChanges = h('p', { class: 'dim' }, 'Nothing has changed since this page was opened. What is saved appears here within a second.');
  #fileList = new KeyedList(this.#files, (preset) => JSON.stringify(preset), fileRow);
  #changeList = new KeyedList(this.#changes, (change) => JSON.stringify(change), changeRow);
  #told = null;

  constructor(feed) {
    this.#feed = feed;
    const draw = () => this.#show();
    feed.addEventListener('presets', () => onNextFrame(draw));
    this.element = h('section', { class: 'presets', 'aria-labelledby': 'presets-title' },
      h('div', { class: 'section-head' }, h('h2', { id: 'presets-title' }, 'Presets'), this.#summary),
      h('div', { class: 'two-columns' },
        h('div', { class: 'card' }, h('h3', {}, 'Files'), this.#files),
        h('div', { class: 'card' }, h('h3', {}, 'Changes'), this.#noChanges, this.#changes)));
    this.#show();
  }

  #show() {
    const presets = [...this.#feed.presets.values()];
    const wrong = presets.filter((preset) => preset.error).length;
    const byPath = presets.sort((one, other) => Boolean(other.error) - Boolean(one.error) || pathOf(one).localeCompare(pathOf(other)));
    replace(this.#summary, plural(presets.length, 'file'), wrong > 0 && `, ${wrong} rejected`);
    this.#fileList.show(byPath);
    this.#changeList.show(this.#feed.changes);
    this.#noChanges.hidden = this.#feed.changes.length > 0;
    const newest = this.#feed.changes[0];
    if (newest && newest !== this.#told) {
      this.#told = newest;
      announce(`Preset ${newest.name} ${newest.change}. ${newest.error ?? ''}`);
    }
  }
}

function fileRow(preset) {
  const state = preset.error ? badge('bad', 'Rejected') : h('span', { class: 'in-force dim small' }, 'in force');
  const element = h('li', {}, h('div', { class: 'row between' }, h('span', { class: 'mono clip' }, pathOf(preset)), state),
    preset.error && h('p', { class: 'fault mono small' }, preset.error));
  return { element, update() {} };
}

function changeRow(change) {
  const element = h('li', {},
    h('div', { class: 'row' }, h('time', { class: 'dim small', datetime: change.at }, time(change.at)), badge(TONES[change.change] ?? 'idle', words(change.change)), h('span', { class: 'mono clip' }, pathOf(change))),
    change.error && h('p', { class: 'fault mono small' }, change.error));
  return { element, update() {} };
}
