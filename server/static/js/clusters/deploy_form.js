// Deploying a preset: what it makes, the values that may be chosen, the dry run first.

import { h, setText } from '../dom.js';
import { duration, plural } from '../format.js';
import { button, facts } from '../ui.js';
import { confirmDeploy } from './confirm.js';
import { submit } from './orders.js';
import { OverrideFields } from './overrides.js';
import { nameList } from './plan.js';

export class DeployForm {
  /** `preset`: an entry of the catalogue. `onJob` is told the job that was submitted. */
  constructor(preset, onJob, overrides = {}) {
    this.preset = preset;
    const problem = h('p', { class: 'problem', role: 'alert' });
    const order = () => ({ preset: preset.name, overrides: fields.values });
    const dryRun = async () => {
      setText(problem, '');
      if (!fields.isRight) return fields.focus();
      dry.disabled = true;
      try {
        onJob(await submit('deploy', { ...order(), dryRun: true }));
      } catch (error) {
        setText(problem, error.message);
      }
      dry.disabled = false;
      return undefined;
    };
    const live = button('Deploy …', () => (fields.isRight ? confirmDeploy(order(), fields.values.stack_name ?? preset.summary.stack_name, onJob) : fields.focus()));
    const dry = h('button', { type: 'submit', class: 'primary' }, h('span', {}, 'Dry run'));
    const fields = new OverrideFields(preset.overrides ?? {}, () => setText(problem, ''));
    fields.show(overrides);
    this.element = h('form', { class: 'card stack deploy', novalidate: true, 'aria-labelledby': 'deploy-title', on: { submit: (event) => { event.preventDefault(); dryRun(); } } },
      h('header', {}, h('h2', { id: 'deploy-title' }, 'Deploy ', h('span', { class: 'mono' }, preset.name))),
      preset.description && h('p', {}, preset.description),
      wouldMake(preset),
      Object.keys(preset.overrides ?? {}).length > 0 && h('h3', {}, 'Overrides'),
      fields.element, problem,
      h('div', { class: 'row' }, dry, live, h('span', { class: 'dim small grow' }, 'A dry run makes nothing: it shows the plan to read before the live run.')));
  }
}

/** What a preset would make, as it is without overrides. */
function wouldMake({ summary }) {
  const { region, stack_name: stackName, names, timeout, serves } = summary;
  return [
    facts([['Stack', stackName], ['Region', region], ['Ends after', timeout && duration(timeout * 1000)], ['Serves', serves]]),
    names.length > 0 && h('details', { open: true }, h('summary', {}, `Would make ${plural(names.length, 'named thing')}`), nameList(names)),
  ];
}
