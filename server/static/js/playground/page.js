// The playground page: a prompt with media goes to one or more models, whose answers stream side by side.

import { h, KeyedList, setText } from '../dom.js';
import { formatTime, pluralize } from '../format.js';
import { button } from '../ui.js';
import { MediaInput } from './media_input.js';
import { ModelPicker } from './model_picker.js';
import { Run } from './run.js';
import { RunHistory } from './run_history.js';
import { RunView } from './run_view.js';
import { Settings } from './settings.js';

export function createPlaygroundPage(connection, feed) {
  const page = new PlaygroundPage(connection, feed);
  return { element: page.element, show() {}, hide() {} };
}

class PlaygroundPage {
  #connection;
  #modelPicker;
  #media;
  #prompt = h('textarea', { id: 'prompt', rows: 5, placeholder: 'Ask something, or drop a picture here' });
  #problem = h('p', { class: 'problem', role: 'alert' });
  #settings = new Settings();
  #history = new RunHistory();
  #runView = new RunView((run) => this.#reuse(run));

  constructor(connection, feed) {
    this.#connection = connection;
    this.#modelPicker = new ModelPicker(feed);
    const composer = h('section', { class: 'composer', 'aria-label': 'Request' },
      this.#createComposer(), this.#problem, this.#modelPicker.element,
      h('div', {}, this.#settings.element, this.#createHistory()));
    const title = h('h1', { class: 'visually-hidden' }, 'Playground');
    this.element = h('div', { class: 'playground' }, title, composer, this.#runView.element);
    this.#prompt.addEventListener('keydown', (event) => this.#onKeydown(event));
    const newestRun = this.#history.runs[0];
    if (newestRun) this.#runView.show(newestRun);
  }

  /** The input area: the prompt, media, and the send button; pictures can be dropped there. */
  #createComposer() {
    const zone = h('div', { class: 'composer-zone' });
    this.#media = new MediaInput(zone);
    const props = { iconName: 'send', variant: 'primary', 'aria-keyshortcuts': 'Control+Enter' };
    const send = button('Send', () => this.#send(), props);
    zone.append(
      h('label', { for: 'prompt', class: 'visually-hidden' }, 'Prompt'), this.#prompt, this.#media.element,
      h('div', { class: 'row between' }, this.#media.picker,
        h('span', { class: 'row' }, h('kbd', { class: 'dim wide-only' }, 'Ctrl Enter'), send)));
    return zone;
  }

  async #send() {
    const problem = this.#validate();
    setText(this.#problem, problem);
    if (problem) this.#prompt.focus();
    if (problem || !this.#settings.reportValidity()) return;
    try {
      const { frames, mediaType, names } = await this.#media.read();
      const media = frames.length > 0 ? { frames, mediaType } : {};
      const request = { text: this.#prompt.value, ...media, ...this.#settings.values };
      this.#start(new Run({ request, names, models: this.#modelPicker.selected }));
    } catch (error) {
      setText(this.#problem, error.message);
    }
  }

  #start(run) {
    run.start(this.#connection);
    this.#history.add(run);
    this.#runView.show(run);
    this.#runView.scrollIntoView();
  }

  #validate() {
    if (this.#prompt.value.trim() === '' && this.#media.isEmpty) return 'Write a prompt, or add a picture.';
    if (this.#modelPicker.selected.length === 0) return 'Choose at least one model.';
    return '';
  }

  #onKeydown(event) {
    if (event.key === 'Enter' && (event.ctrlKey || event.metaKey)) {
      event.preventDefault();
      this.#send();
    }
  }

  #reuse(run) {
    const { text, frames, mediaType, ...settings } = run.request;
    this.#prompt.value = text;
    this.#settings.setValues(settings);
    this.#modelPicker.select(run.models);
    this.#prompt.focus();
  }

  #createHistory() {
    const rows = h('ol', { class: 'runs' });
    const list = new KeyedList(rows, (run) => run.id, (run) => this.#createRunRow(run));
    const clear = button('Clear', () => this.#history.clear(), { variant: 'quiet' });
    const element = h('details', { class: 'last-runs' }, h('summary', {}, 'Last runs'), rows, clear);
    const render = () => {
      element.hidden = this.#history.runs.length === 0;
      list.render(this.#history.runs);
    };
    this.#history.addEventListener('change', render);
    render();
    return element;
  }

  #createRunRow(run) {
    const label = run.models.length > 1 ? pluralize(run.models.length, 'model') : run.models[0];
    const row = h('button', { type: 'button', class: 'run-row', on: { click: () => this.#runView.show(run) } },
      h('span', { class: 'clip' }, run.request.text || run.names.join(', ')),
      h('span', { class: 'dim small clip' }, `${label} · ${formatTime(run.at)}`));
    return { element: h('li', {}, row) };
  }
}
