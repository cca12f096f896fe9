// Which models are asked: a box for each, in the order of their names, with what it can do and whether it can answer.

import { announce } from '../announcer.js';
import { h, KeyedList, setText } from '../dom.js';
import { inOrder, TONES } from '../models/state.js';

const KEPT_AS = 'forgeline.models';
const MOST = 16;

export class ModelChoice {
  #chosen = new Set(JSON.parse(sessionStorage.getItem(KEPT_AS) ?? '[]'));
  #boxes = h('div', { class: 'model-boxes' });
  #list = new KeyedList(this.#boxes, (model) => model.name, (model) => this.#box(model));
  #feed;
  #hint = h('p', { class: 'dim small' }, 'Loading the models …');

  constructor(feed) {
    this.#feed = feed;
    this.element = h('fieldset', { class: 'models-fieldset' }, h('legend', {}, 'Models'), this.#hint, this.#boxes);
    feed.addEventListener('models', () => this.#show());
    if (feed.ready) this.#show();
  }

  /** The names, in the order shown. */
  get chosen() {
    return this.#models().map((model) => model.name).filter((name) => this.#chosen.has(name));
  }

  choose(names) {
    this.#chosen = new Set(names);
    this.#keep();
    this.#show();
  }

  #models() {
    return inOrder(this.#feed.models.values());
  }

  #show() {
    const models = this.#models();
    const first = models.find((model) => model.availability === 'available');
    if (this.chosen.length === 0 && first) this.#chosen = new Set([first.name]);
    this.#hint.hidden = models.length > 0;
    setText(this.#hint, 'No preset defines a model: save one as presets/models/NAME.yaml.');
    this.#list.show(models);
  }

  #keep() {
    sessionStorage.setItem(KEPT_AS, JSON.stringify([...this.#chosen]));
  }

  #toggle(name, box) {
    if (box.checked && this.chosen.length >= MOST) {
      box.checked = false;
      announce(`At most ${MOST} models at once.`);
      return;
    }
    if (box.checked) this.#chosen.add(name);
    else this.#chosen.delete(name);
    this.#keep();
  }

  #box({ name }) {
    const toggle = { change: () => this.#toggle(name, box) };
    const box = h('input', { type: 'checkbox', name: 'model', value: name, on: toggle });
    const dot = h('span', { class: 'dot', 'aria-hidden': 'true' });
    const state = h('span', { class: 'visually-hidden' });
    const provider = h('span', { class: 'dim small clip' });
    const names = h('span', { class: 'model-box-name' }, h('span', { class: 'clip' }, name), provider);
    const element = h('label', { class: 'model-box' }, box, names, dot, state);
    return {
      element,
      update: (model) => {
        box.checked = this.#chosen.has(name);
        dot.dataset.tone = TONES[model.availability] ?? 'idle';
        setText(state, model.availability === 'available' ? '' : `, ${model.availability.replaceAll('_', ' ')}`);
        setText(provider, model.provider);
        element.title = model.reason || `${name}: ${model.availability}`;
      },
    };
  }
}
