// The deploy form of a preset: a summary, the override fields, dry run and live deploy.

import { h, setText } from '../dom.js';
import { formatDuration, pluralize } from '../format.js';
import { button, descriptionList } from '../ui.js';
import { confirmDeploy } from './confirm_dialogs.js';
import { submitJob } from './job_requests.js';
import { OverrideFields } from './override_fields.js';
import { nameList } from './plan_view.js';

const HINT = 'A dry run makes nothing: it shows the plan to read before the live run.';

export class DeployForm {
  #preset;
  #onJob;
  #fields;
  #problem = h('p', { class: 'problem', role: 'alert' });
  #dryRunButton = h('button', { type: 'submit', class: 'primary' }, h('span', {}, 'Dry run'));

  /** `preset`: an entry of the catalogue. Calls `onJob(job)` with each submitted job. */
  constructor(preset, onJob) {
    this.#preset = preset;
    this.#onJob = onJob;
    const overrideRules = preset.overrides ?? {};
    this.#fields = new OverrideFields(overrideRules, () => setText(this.#problem, ''));
    const deployButton = button('Deploy …', () => this.#ifValid(() => this.#openConfirm()));
    this.element = h('form', { class: 'card stack deploy', novalidate: true, 'aria-labelledby': 'deploy-title' },
      h('header', {}, h('h2', { id: 'deploy-title' }, 'Deploy ', h('span', { class: 'mono' }, preset.name))),
      preset.description && h('p', {}, preset.description),
      presetSummary(preset),
      Object.keys(overrideRules).length > 0 && h('h3', {}, 'Overrides'),
      this.#fields.element, this.#problem,
      h('div', { class: 'row' }, this.#dryRunButton, deployButton, h('span', { class: 'dim small grow' }, HINT)));
    this.element.addEventListener('submit', (event) => {
      event.preventDefault();
      this.#ifValid(() => this.#submitDryRun());
    });
  }

  /** Runs `action` if every override is valid; else focuses the first invalid field. */
  #ifValid(action) {
    if (this.#fields.isValid) action();
    else this.#fields.focusInvalid();
  }

  get #request() {
    return { preset: this.#preset.name, overrides: this.#fields.values };
  }

  #openConfirm() {
    const request = this.#request;
    confirmDeploy(request, request.overrides.stack_name ?? this.#preset.summary.stack_name, this.#onJob);
  }

  async #submitDryRun() {
    setText(this.#problem, '');
    this.#dryRunButton.disabled = true;
    try {
      this.#onJob(await submitJob('deploy', { ...this.#request, dryRun: true }));
    } catch (error) {
      setText(this.#problem, error.message);
    }
    this.#dryRunButton.disabled = false;
  }
}

/** What a preset would create without overrides. */
function presetSummary({ summary }) {
  const { region, stack_name: stackName, names, timeout, serves } = summary;
  const maxDuration = timeout && formatDuration(timeout * 1000);
  return [
    descriptionList([['Stack', stackName], ['Region', region], ['Ends after', maxDuration], ['Serves', serves]]),
    names.length > 0 && h('details', { open: true },
      h('summary', {}, `Would make ${pluralize(names.length, 'named thing')}`), nameList(names)),
  ];
}
