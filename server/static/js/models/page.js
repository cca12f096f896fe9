// The models page: a card for each model, and the panel of presets.

import { get } from '../api.js';
import { coalesce } from '../coalesce.js';
import { h, KeyedList, replaceChildren, setText } from '../dom.js';
import { pluralize } from '../format.js';
import { scheduleRender } from '../render_queue.js';
import { button, emptyState, errorState, loadingState } from '../ui.js';
import { sortModels } from './availability.js';
import { modelCard } from './model_card.js';
import { PresetPanel } from './preset_panel.js';

const REFRESH_MS = 4_000; // of recent answers, which the feed does not send
const NO_MODELS = 'Save a preset as presets/models/NAME.yaml, and its model appears here within a second.';

export function createModelsPage(feed) {
  const page = new ModelsPage(feed);
  return { element: page.element, show: () => page.show(), hide: () => page.hide() };
}

class ModelsPage {
  #feed;
  #fetchedModels = new Map(); // by name, for their recent answers
  #deployments = new Map(); // by name
  #timer = 0;
  #summary = h('p', { class: 'dim small' });
  #placeholder = h('div', {}, loadingState('Loading the models …'));
  #grid = h('div', { class: 'cards' });
  #list = new KeyedList(this.#grid, (entry) => entry.model.name, modelCard);
  #presetPanel;
  #refresh = coalesce(() => this.#fetchModels());
  #rejectedButton = button('', () => this.#presetPanel.focusTitle(), { class: 'small danger-quiet', hidden: true });

  constructor(feed) {
    this.#feed = feed;
    this.#presetPanel = new PresetPanel(feed);
    this.element = h('div', { class: 'models-page' },
      h('h1', { class: 'visually-hidden' }, 'Models'),
      h('section', { 'aria-labelledby': 'models-title' },
        h('div', { class: 'section-head' },
          h('h2', { id: 'models-title' }, 'Models'), this.#summary, this.#rejectedButton),
        this.#placeholder, this.#grid),
      this.#presetPanel.element);
    const render = () => this.#render();
    feed.addEventListener('models', () => scheduleRender(render));
    feed.addEventListener('presets', () => scheduleRender(render));
  }

  show() {
    if (this.#timer) return;
    this.#timer = setInterval(() => !document.hidden && this.#refresh(), REFRESH_MS);
    this.#refresh();
    this.#fetchDeployments();
  }

  hide() {
    clearInterval(this.#timer);
    this.#timer = 0;
  }

  async #fetchModels() {
    try {
      this.#fetchedModels = new Map((await get('/api/models')).models.map((model) => [model.name, model]));
      this.#render();
    } catch (error) {
      if (!this.#feed.ready) replaceChildren(this.#placeholder, errorState(error, () => this.#refresh()));
    }
  }

  async #fetchDeployments() {
    try {
      const status = await get('/api/emd/status');
      this.#deployments = new Map(status.models.map((model) => [model.name, model]));
      this.#render();
    } catch {
      // The card then has no deployment, like that of a model without one; the banner shows a lost connection.
    }
  }

  #render() {
    if (!this.#feed.ready) return;
    const entries = sortModels(this.#feed.models.values()).map((model) => ({
      model: { ...model, recent: this.#fetchedModels.get(model.name)?.recent ?? model.recent ?? [] },
      deployment: this.#deployments.get(model.name),
    }));
    const availableCount = entries.filter(({ model }) => model.availability === 'available').length;
    setText(this.#summary, `${pluralize(entries.length, 'model')}, ${availableCount} can answer now`);
    replaceChildren(this.#placeholder, entries.length === 0 && emptyState('No models yet', NO_MODELS));
    this.#list.render(entries);
    const { rejectedCount } = this.#presetPanel;
    this.#rejectedButton.hidden = rejectedCount === 0;
    setText(this.#rejectedButton, `${pluralize(rejectedCount, 'preset')} rejected`);
  }
}
