// The model picker: a checkbox for each model, with its provider and availability.

import { announce } from '../announcer.js';
import { h, KeyedList, setText } from '../dom.js';
import { AVAILABILITY_TONES, sortModels } from '../models/availability.js';

const STORAGE_KEY = 'forgeline.models';
const MAX_MODELS = 16;

export class ModelPicker {
  #selected = new Set(JSON.parse(sessionStorage.getItem(STORAGE_KEY) ?? '[]'));
  #container = h('div', { class: 'model-boxes' });
  #list = new KeyedList(this.#container, (model) => model.name, (model) => this.#createRow(model));
  #feed;
  #hint = h('p', { class: 'dim small' }, 'Loading the models …');

  constructor(feed) {
    this.#feed = feed;
    this.element = h('fieldset', { class: 'models-fieldset' }, h('legend', {}, 'Models'), this.#hint, this.#container);
    feed.addEventListener('models', () => this.#render());
    if (feed.ready) this.#render();
  }

  /** The names of the selected models, in display order. */
  get selected() {
    return this.#sortedModels().map((model) => model.name).filter((name) => this.#selected.has(name));
  }

  select(names) {
    this.#selected = new Set(names);
    this.#save();
    this.#render();
  }

  #sortedModels() {
    return sortModels(this.#feed.models.values());
  }

  #render() {
    const models = this.#sortedModels();
    const firstAvailable = models.find((model) => model.availability === 'available');
    if (this.selected.length === 0 && firstAvailable) this.#selected = new Set([firstAvailable.name]);
    this.#hint.hidden = models.length > 0;
    setText(this.#hint, 'No preset defines a model: save one as presets/models/NAME.yaml.');
    this.#list.render(models);
  }

  #save() {
    sessionStorage.setItem(STORAGE_KEY, JSON.stringify([...this.#selected]));
  }

  #toggle(name, checkbox) {
    if (checkbox.checked && this.selected.length >= MAX_MODELS) {
      checkbox.checked = false;
      announce(`At most ${MAX_MODELS} models at once.`);
      return;
    }
    if (checkbox.checked) this.#selected.add(name);
    else this.#selected.delete(name);
    this.#save();
  }

  #createRow({ name }) {
    const on = { change: () => this.#toggle(name, checkbox) };
    const checkbox = h('input', { type: 'checkbox', name: 'model', value: name, on });
    const dot = h('span', { class: 'dot', 'aria-hidden': 'true' });
    const state = h('span', { class: 'visually-hidden' });
    const provider = h('span', { class: 'dim small clip' });
    const names = h('span', { class: 'model-box-name' }, h('span', { class: 'clip' }, name), provider);
    const element = h('label', { class: 'model-box' }, checkbox, names, dot, state);
    return {
      element,
      update: (model) => {
        checkbox.checked = this.#selected.has(name);
        dot.dataset.tone = AVAILABILITY_TONES[model.availability] ?? 'idle';
        setText(state, model.availability === 'available' ? '' : `, ${model.availability.replaceAll('_', ' ')}`);
        setText(provider, model.provider);
        element.title = model.reason || `${name}: ${model.availability}`;
      },
    };
  }
}
