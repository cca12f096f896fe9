// The panel of presets: the status of every file, errors of rejected files, and recent changes.

import { announceChange } from '../announcer.js';
import { h, KeyedList, setText } from '../dom.js';
import { formatTime, humanize, pluralize } from '../format.js';
import { scheduleRender } from '../render_queue.js';
import { badge } from '../ui.js';

const FOLDERS = { model: 'models/', hyperpod: 'hyperpod/', pipeline: '' };
const CHANGE_TONES = { added: 'ok', changed: 'busy', removed: 'idle', rejected: 'bad' };
const NO_CHANGES = 'Nothing has changed since this page was opened. What is saved appears here within a second.';

const pathOf = ({ kind, name }) => `${FOLDERS[kind] ?? `${kind}/`}${name}.yaml`;

/** Rejected presets first, then by path. */
const sortPresets = (presets) => [...presets].sort((a, b) =>
  Boolean(b.error) - Boolean(a.error) || pathOf(a).localeCompare(pathOf(b)));

export class PresetPanel {
  #feed;
  #title = h('h2', { id: 'presets-title', tabindex: -1 }, 'Presets');
  #files = h('ul', { class: 'files' });
  #summary = h('p', { class: 'dim small' });
  #changes = h('ol', { class: 'changes' });
  #noChanges = h('p', { class: 'dim small' }, NO_CHANGES);
  #fileList = new KeyedList(this.#files, (preset) => preset, createFileRow);
  #changeList = new KeyedList(this.#changes, (change) => change, createChangeRow);
  #lastAnnounced = null; // the newest change at the last render

  constructor(feed) {
    this.#feed = feed;
    const render = () => this.#render();
    feed.addEventListener('presets', () => scheduleRender(render));
    this.element = h('section', { class: 'presets', 'aria-labelledby': 'presets-title' },
      h('div', { class: 'section-head' }, this.#title, this.#summary),
      h('div', { class: 'preset-cards' },
        h('div', { class: 'card' }, h('h3', {}, 'Files'), this.#files),
        h('div', { class: 'card' }, h('h3', {}, 'Changes'), this.#noChanges, this.#changes)));
    this.#render();
  }

  /** The number of rejected files. */
  get rejectedCount() {
    return countRejected([...this.#feed.presets.values()]);
  }

  /** Focuses the list of files, where rejected files come first. */
  focusTitle() {
    this.#title.scrollIntoView({ block: 'start' });
    this.#title.focus({ preventScroll: true });
  }

  #render() {
    const presets = [...this.#feed.presets.values()];
    setText(this.#summary, this.#feed.ready ? summarize(presets) : 'Loading …');
    this.#fileList.render(sortPresets(presets));
    this.#changeList.render(this.#feed.changes);
    this.#noChanges.hidden = this.#feed.changes.length > 0;
    this.#announceChanges(this.#feed.changes);
  }

  /** Announces the changes since the last render, if the panel is visible. */
  #announceChanges(changes) {
    const lastIndex = changes.indexOf(this.#lastAnnounced);
    const newChanges = changes.slice(0, lastIndex < 0 ? changes.length : lastIndex).reverse();
    this.#lastAnnounced = changes[0] ?? null;
    if (this.element.checkVisibility()) newChanges.map(changeMessage).forEach(announceChange);
  }
}

const changeMessage = ({ name, change, error }) => `Preset ${name} ${change}${error ? `: ${error}` : ''}.`;

const countRejected = (presets) => presets.filter((preset) => preset.error).length;

function summarize(presets) {
  const rejected = countRejected(presets);
  return pluralize(presets.length, 'file') + (rejected > 0 ? `, ${rejected} rejected` : '');
}

const pathLabel = (preset) => h('span', { class: 'mono clip', title: pathOf(preset) }, pathOf(preset));

const errorText = ({ error }) => error && h('p', { class: 'preset-error mono small' }, error);

function createFileRow(preset) {
  const state = preset.error ? badge('bad', 'Rejected') : h('span', { class: 'in-force dim small' }, 'in force');
  return { element: h('li', {}, h('div', { class: 'row between' }, pathLabel(preset), state), errorText(preset)) };
}

function createChangeRow(change) {
  const changedAt = h('time', { class: 'dim small', datetime: change.at }, formatTime(change.at));
  const kind = badge(CHANGE_TONES[change.change] ?? 'idle', humanize(change.change));
  return { element: h('li', {}, h('div', { class: 'row' }, changedAt, kind, pathLabel(change)), errorText(change)) };
}
