// Deploying a preset: what it makes, the values that may be chosen, the dry run first.

import { h, setText } from '../dom.js';
import { duration, plural } from '../format.js';
import { button, facts } from '../ui.js';
import { confirmDeploy } from './confirm.js';
import { submit } from './orders.js';
import { OverrideFields } from './overrides.js';
import { nameList } from './plan.js';

const HINT = 'A dry run makes nothing: it shows the plan to read before the live run.';

export class DeployForm {
  #preset;
  #onJob;
  #fields;
  #problem = h('p', { class: 'problem', role: 'alert' });
  #dry = h('button', { type: 'submit', class: 'primary' }, h('span', {}, 'Dry run'));

  /** `preset`: an entry of the catalogue. `onJob` is told the job that was submitted. */
  constructor(preset, onJob) {
    this.#preset = preset;
    this.#onJob = onJob;
    const declared = preset.overrides ?? {};
    this.#fields = new OverrideFields(declared, () => setText(this.#problem, ''));
    const live = button('Deploy …', () => this.#ifRight(() => this.#confirm()));
    this.element = h('form', { class: 'card stack deploy', novalidate: true, 'aria-labelledby': 'deploy-title' },
      h('header', {}, h('h2', { id: 'deploy-title' }, 'Deploy ', h('span', { class: 'mono' }, preset.name))),
      preset.description && h('p', {}, preset.description),
      wouldMake(preset),
      Object.keys(declared).length > 0 && h('h3', {}, 'Overrides'),
      this.#fields.element, this.#problem,
      h('div', { class: 'row' }, this.#dry, live, h('span', { class: 'dim small grow' }, HINT)));
    this.element.addEventListener('submit', (event) => {
      event.preventDefault();
      this.#ifRight(() => this.#dryRun());
    });
  }

  /** Does it where every override is right; if not, shows where. */
  #ifRight(act) {
    if (this.#fields.isRight) act();
    else this.#fields.focus();
  }

  get #order() {
    return { preset: this.#preset.name, overrides: this.#fields.values };
  }

  #confirm() {
    const order = this.#order;
    confirmDeploy(order, order.overrides.stack_name ?? this.#preset.summary.stack_name, this.#onJob);
  }

  async #dryRun() {
    setText(this.#problem, '');
    this.#dry.disabled = true;
    try {
      this.#onJob(await submit('deploy', { ...this.#order, dryRun: true }));
    } catch (error) {
      setText(this.#problem, error.message);
    }
    this.#dry.disabled = false;
  }
}

/** What a preset would make, as it is without overrides. */
function wouldMake({ summary }) {
  const { region, stack_name: stackName, names, timeout, serves } = summary;
  const ends = timeout && duration(timeout * 1000);
  return [
    facts([['Stack', stackName], ['Region', region], ['Ends after', ends], ['Serves', serves]]),
    names.length > 0 && h('details', { open: true },
      h('summary', {}, `Would make ${plural(names.length, 'named thing')}`), nameList(names)),
  ];
}
