// The playground: a prompt with pictures goes to one model or several, and the answers come side by side.

import { h, KeyedList, setText } from '../dom.js';
import { plural, time } from '../format.js';
import { button } from '../ui.js';
import { History } from './history.js';
import { Media } from './media.js';
import { ModelChoice } from './model_choice.js';
import { Run } from './run.js';
import { RunView } from './run_view.js';
import { Settings } from './settings.js';

export function createPlayground(connection, feed) {
  const playground = new Playground(connection, feed);
  return { element: playground.element, show() {}, hide() {} };
}

class Playground {
  #connection;
  #models;
  #media;
  #prompt = h('textarea', { id: 'prompt', rows: 5, placeholder: 'Ask something, or drop a picture here' });
  #problem = h('p', { class: 'problem', role: 'alert' });
  #settings = new Settings();
  #history = new History();
  #view = new RunView((run) => this.#useAgain(run));

  constructor(connection, feed) {
    this.#connection = connection;
    this.#models = new ModelChoice(feed);
    const composer = h('section', { class: 'composer', 'aria-label': 'Request' },
      this.#zone(), this.#problem, this.#models.element, h('div', {}, this.#settings.element, this.#lastRuns()));
    const title = h('h1', { class: 'visually-hidden' }, 'Playground');
    this.element = h('div', { class: 'playground' }, title, composer, this.#view.element);
    this.#prompt.addEventListener('keydown', (event) => this.#onKey(event));
    const newest = this.#history.runs[0];
    if (newest) this.#view.show(newest);
  }

  /** Where a request is written, and pictures are dropped. */
  #zone() {
    const zone = h('div', { class: 'composer-zone' });
    this.#media = new Media(zone);
    const keys = { art: 'send', kind: 'primary', 'aria-keyshortcuts': 'Control+Enter' };
    const send = button('Send', () => this.#send(), keys);
    zone.append(
      h('label', { for: 'prompt', class: 'visually-hidden' }, 'Prompt'), this.#prompt, this.#media.element,
      h('div', { class: 'row between' }, this.#media.picker,
        h('span', { class: 'row' }, h('kbd', { class: 'dim wide-only' }, 'Ctrl Enter'), send)));
    return zone;
  }

  async #send() {
    const problem = this.#whatIsMissing();
    setText(this.#problem, problem);
    if (problem) this.#prompt.focus();
    if (problem || !this.#settings.check()) return;
    try {
      const { frames, mediaType, names } = await this.#media.read();
      const media = frames.length > 0 ? { frames, mediaType } : {};
      const request = { text: this.#prompt.value, ...media, ...this.#settings.values };
      this.#run(new Run({ request, names, models: this.#models.chosen }));
    } catch (error) {
      setText(this.#problem, error.message);
    }
  }

  #run(run) {
    run.start(this.#connection);
    this.#history.add(run);
    this.#view.show(run);
    this.#view.reveal();
  }

  #whatIsMissing() {
    if (this.#prompt.value.trim() === '' && this.#media.isEmpty) return 'Write a prompt, or add a picture.';
    if (this.#models.chosen.length === 0) return 'Choose at least one model.';
    return '';
  }

  #onKey(event) {
    if (event.key === 'Enter' && (event.ctrlKey || event.metaKey)) {
      event.preventDefault();
      this.#send();
    }
  }

  #useAgain(run) {
    const { text, frames, mediaType, ...settings } = run.request;
    this.#prompt.value = text;
    this.#settings.show(settings);
    this.#models.choose(run.models);
    this.#prompt.focus();
  }

  #lastRuns() {
    const rows = h('ol', { class: 'runs' });
    const list = new KeyedList(rows, (run) => run.id, (run) => this.#runRow(run));
    const clear = button('Clear', () => this.#history.clear(), { kind: 'quiet' });
    const element = h('details', { class: 'last-runs' }, h('summary', {}, 'Last runs'), rows, clear);
    const draw = () => {
      element.hidden = this.#history.runs.length === 0;
      list.show(this.#history.runs);
    };
    this.#history.addEventListener('change', draw);
    draw();
    return element;
  }

  #runRow(run) {
    const label = run.models.length > 1 ? plural(run.models.length, 'model') : run.models[0];
    const row = h('button', { type: 'button', class: 'run-row', on: { click: () => this.#view.show(run) } },
      h('span', { class: 'clip' }, run.request.text || run.names.join(', ')),
      h('span', { class: 'dim small clip' }, `${label} · ${time(run.at)}`));
    return { element: h('li', {}, row) };
  }
}
