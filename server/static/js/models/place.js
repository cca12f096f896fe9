// The models and the presets: what there is, how it does, and what changes as files are saved.

import { oneAtATime } from '../again.js';
import { get } from '../api.js';
import { h, KeyedList, replace, setText } from '../dom.js';
import { onNextFrame } from '../frames.js';
import { plural } from '../format.js';
import { button, emptyState, failedState, loadingState } from '../ui.js';
import { modelCard } from './card.js';
import { inOrder } from './state.js';
import { Presets } from './presets.js';

const LOOK_MS = 4_000; // the feed tells what changes in a model's state; how its last answers went is looked at
const NO_MODELS = 'Save a preset as presets/models/NAME.yaml, and its model appears here within a second.';

export function createModels(feed) {
  const models = new Models(feed);
  return { element: models.element, show: () => models.show(), hide: () => models.hide() };
}

class Models {
  #feed;
  #latest = new Map(); // models as they were last looked at, by name: their recent answers
  #deployments = new Map(); // by name
  #timer = 0;
  #summary = h('p', { class: 'dim small' });
  #state = h('div', {}, loadingState('Loading the models …'));
  #grid = h('div', { class: 'cards' });
  #list = new KeyedList(this.#grid, (entry) => entry.model.name, modelCard);
  #presets;
  #look = oneAtATime(() => this.#fetchModels());
  #rejected = button('', () => this.#presets.reveal(), { class: 'small danger-quiet', hidden: true });

  constructor(feed) {
    this.#feed = feed;
    this.#presets = new Presets(feed);
    this.element = h('div', { class: 'models-place' },
      h('h1', { class: 'visually-hidden' }, 'Models'),
      h('section', { 'aria-labelledby': 'models-title' },
        h('div', { class: 'section-head' }, h('h2', { id: 'models-title' }, 'Models'), this.#summary, this.#rejected),
        this.#state, this.#grid),
      this.#presets.element);
    const draw = () => this.#show();
    feed.addEventListener('models', () => onNextFrame(draw));
    feed.addEventListener('presets', () => onNextFrame(draw));
  }

  show() {
    if (this.#timer) return;
    this.#timer = setInterval(() => !document.hidden && this.#look(), LOOK_MS);
    this.#look();
    this.#lookAtDeployments();
  }

  hide() {
    clearInterval(this.#timer);
    this.#timer = 0;
  }

  async #fetchModels() {
    try {
      this.#latest = new Map((await get('/api/models')).models.map((model) => [model.name, model]));
      this.#show();
    } catch (error) {
      if (!this.#feed.ready) replace(this.#state, failedState(error, () => this.#look()));
    }
  }

  async #lookAtDeployments() {
    try {
      const told = await get('/api/emd/status');
      this.#deployments = new Map(told.models.map((one) => [one.name, one]));
      this.#show();
    } catch {
      // A card without its deployment says the same as one of a model that nobody deploys; the banner says why.
    }
  }

  #show() {
    if (!this.#feed.ready) return;
    const entries = inOrder(this.#feed.models.values()).map((model) => ({
      model: { ...model, recent: this.#latest.get(model.name)?.recent ?? model.recent ?? [] },
      deployment: this.#deployments.get(model.name),
    }));
    const able = entries.filter(({ model }) => model.availability === 'available').length;
    setText(this.#summary, `${plural(entries.length, 'model')}, ${able} can answer now`);
    replace(this.#state, entries.length === 0 && emptyState('No models yet', NO_MODELS));
    this.#list.show(entries);
    const { rejected } = this.#presets;
    this.#rejected.hidden = rejected === 0;
    setText(this.#rejected, `${plural(rejected, 'preset')} rejected`);
  }
}
